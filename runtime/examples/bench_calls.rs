//! Prints what calls cost: `cargo run --release -p runtime --example bench_calls`. Plays the runtime's process as well.
#![expect(clippy::unwrap_used, reason = "a bench fails by panicking")]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use object::{Object, ObjectSymbol};
use runtime::{Call, CallOutcome, Config, Data, Event, Piece, RunId, Runtime, Value};
use tokio::sync::mpsc::UnboundedReceiver;

const SOURCE: &str = r#"
#[repr(C)] pub struct Slice { data: *const u8, len: usize, id: u64 }
#[repr(C)] pub struct Answer { status: u32, data: *mut u8, len: usize, capacity: usize, drop: Option<unsafe extern "C" fn(*mut u8, usize, usize)> }
unsafe extern "C" fn release(data: *mut u8, len: usize, capacity: usize) { drop(unsafe { Vec::from_raw_parts(data, len, capacity) }) }
fn give(answer: *mut Answer, mut bytes: Vec<u8>) {
    let (data, len, capacity) = (bytes.as_mut_ptr(), bytes.len(), bytes.capacity());
    std::mem::forget(bytes);
    unsafe { *answer = Answer { status: 0, data, len, capacity, drop: Some(release) } };
}
#[unsafe(no_mangle)] pub unsafe extern "C" fn nothing(_: *const Slice, _: usize, answer: *mut Answer) { give(answer, Vec::new()) }
#[unsafe(no_mangle)] pub unsafe extern "C" fn copy(pieces: *const Slice, _: usize, answer: *mut Answer) {
    let piece = unsafe { &*pieces };
    give(answer, unsafe { std::slice::from_raw_parts(piece.data, piece.len) }.to_vec())
}
#[unsafe(no_mangle)] pub unsafe extern "C" fn read(pieces: *const Slice, _: usize, answer: *mut Answer) {
    let piece = unsafe { &*pieces };
    let mut copy = unsafe { std::slice::from_raw_parts(piece.data, piece.len) }.to_vec();
    std::hint::black_box(&mut copy);
    give(answer, Vec::new())
}
"#;

/// How many calls are queued at once.
const AHEAD: u64 = 256;

struct Bench {
    runtime: Runtime,
    events: UnboundedReceiver<Event>,
    artifact: PathBuf,
    id: u64,
}

impl Bench {
    fn send(&mut self, offset: u64, pieces: Vec<Piece>, answer_file: Option<PathBuf>) {
        self.id += 1;
        self.runtime.call(&Call {
            id: RunId(self.id),
            artifact: self.artifact.clone(),
            offset,
            pieces,
            answer_file,
        });
    }

    async fn answer(&mut self) -> Value {
        loop {
            match self.events.recv().await.unwrap() {
                Event::Called {
                    outcome: CallOutcome::Returned(value),
                    ..
                } => return value,
                Event::Called { outcome, .. } => eprintln!("{outcome:?}"),
                _ => {}
            }
        }
    }

    async fn pipelined(&mut self, offset: u64, count: u64, bytes: &[u8]) -> Duration {
        let bytes = bytes::Bytes::copy_from_slice(bytes);
        let since = Instant::now();
        let (mut sent, mut done) = (0, 0);
        while done < count {
            while sent < count && sent < done + AHEAD {
                self.send(offset, vec![Piece::Once(Data::Bytes(bytes.clone()))], None);
                sent += 1;
            }
            self.answer().await;
            done += 1;
        }
        since.elapsed()
    }
}

/// CPU time that this process has used: the owner's.
fn cpu() -> Duration {
    let mut spent = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: written to a local.
    unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &raw mut spent) };
    Duration::new(
        spent.tv_sec.try_into().unwrap(),
        spent.tv_nsec.try_into().unwrap(),
    )
}

fn report(what: &str, count: u32, elapsed: Duration, cpu: Duration) {
    println!(
        "{what}: {:.0} calls/s, {:?} CPU of the owner a call",
        f64::from(count) / elapsed.as_secs_f64(),
        cpu / count
    );
}

fn rustc(folder: &Path, name: &str, source: &str, arguments: &[&str]) -> PathBuf {
    let (input, made) = (folder.join("src.rs"), folder.join(name));
    std::fs::write(&input, source).unwrap();
    let status = Command::new("rustc")
        .args(["--edition", "2024", "-Cprefer-dynamic", "-Copt-level=2"])
        .args(arguments)
        .arg("-o")
        .args([&made, &input])
        .status();
    assert!(status.unwrap().success());
    made
}

fn main() {
    let role = std::env::args().nth(1);
    if role.as_deref() == Some("runtime") {
        runtime::child_main();
    }
    let threads = role.as_deref() == Some("threads");
    let mut builder = match threads {
        true => tokio::runtime::Builder::new_multi_thread(),
        false => tokio::runtime::Builder::new_current_thread(),
    };
    builder.enable_all().build().unwrap().block_on(bench());
}

async fn bench() {
    let folder = tempfile::tempdir().unwrap();
    let support = rustc(
        folder.path(),
        "libchorus_support.so",
        runtime::SUPPORT_SOURCE,
        &["--crate-name", "chorus_support", "--crate-type", "dylib"],
    );
    let artifact = rustc(
        folder.path(),
        "bench.so",
        SOURCE,
        &["--crate-name", "ctx", "--crate-type", "cdylib"],
    );
    let data = std::fs::read(&artifact).unwrap();
    let file = object::File::parse(&data[..]).unwrap();
    let offset = |name: &str| {
        let mut symbols = file.dynamic_symbols();
        let symbol = symbols.find(|symbol| symbol.name() == Ok(name));
        symbol.unwrap().address()
    };
    let (nothing, copy, read) = (offset("nothing"), offset("copy"), offset("read"));

    let mut command = Command::new(std::env::current_exe().unwrap());
    command.arg("runtime");
    let mut config = Config::new(command, support);
    let printed = Command::new("rustc")
        .args(["--print", "target-libdir"])
        .output();
    let libdir = String::from_utf8(printed.unwrap().stdout).unwrap();
    let mut libraries = std::fs::read_dir(libdir.trim())
        .unwrap()
        .map(|entry| entry.unwrap().path());
    config.preload.extend(libraries.find(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with("libstd-") && name.ends_with(".so")
    }));
    let (runtime, events) = Runtime::start(config).await.unwrap();
    let mut bench = Bench {
        runtime,
        events,
        artifact,
        id: 0,
    };
    bench.pipelined(nothing, 10_000, b"").await;

    let before = cpu();
    let elapsed = bench.pipelined(nothing, 300_000, b"").await;
    report("pipelined, nothing", 300_000, elapsed, cpu() - before);
    let before = cpu();
    let elapsed = bench.pipelined(copy, 200_000, &[1; 1000]).await;
    report(
        "pipelined, 1 kB there and back",
        200_000,
        elapsed,
        cpu() - before,
    );

    let mut times = Vec::new();
    for _ in 0..50_000 {
        let since = Instant::now();
        bench.send(nothing, Vec::new(), None);
        bench.answer().await;
        times.push(since.elapsed());
    }
    times.sort();
    println!(
        "one at a time: median {:?}, 90 % {:?}, 99 % {:?}",
        times[25_000], times[45_000], times[49_500]
    );

    let size = 32_000_000;
    let bytes = bytes::Bytes::from(vec![1; size]);
    let rate = |elapsed: Duration, rounds: u32| {
        let bytes = size as f64 * f64::from(rounds);
        format!("{:.2} GB/s", bytes / elapsed.as_secs_f64() / 1e9)
    };
    const ROUNDS: u32 = 20;
    let since = Instant::now();
    for _ in 0..ROUNDS {
        bench.send(read, vec![Piece::Once(Data::Bytes(bytes.clone()))], None);
        bench.answer().await;
    }
    println!(
        "32 MB in, copied by the owner: {}",
        rate(since.elapsed(), ROUNDS)
    );

    let shared = tempfile::tempdir_in("/dev/shm").unwrap();
    let path = shared.path().join("in");
    std::fs::write(&path, &bytes).unwrap();
    let since = Instant::now();
    for _ in 0..ROUNDS {
        let (path, length) = (path.clone(), size as u64);
        bench.send(
            read,
            vec![Piece::Once(Data::File {
                path,
                start: 0,
                length,
            })],
            None,
        );
        bench.answer().await;
    }
    println!(
        "32 MB in, from a shared file: {}",
        rate(since.elapsed(), ROUNDS)
    );

    let mut out = 0;
    let since = Instant::now();
    for _ in 0..ROUNDS {
        let (path, length) = (path.clone(), size as u64);
        bench.send(
            copy,
            vec![Piece::Once(Data::File {
                path,
                start: 0,
                length,
            })],
            None,
        );
        if let Value::Bytes(bytes) = bench.answer().await {
            out += bytes.len();
        }
    }
    assert_eq!(out, size * ROUNDS as usize);
    println!(
        "32 MB from a shared file and out as bytes: {}",
        rate(since.elapsed(), ROUNDS)
    );

    let answer = shared.path().join("out");
    let since = Instant::now();
    for _ in 0..ROUNDS {
        let (path, length) = (path.clone(), size as u64);
        let piece = Piece::Once(Data::File {
            path,
            start: 0,
            length,
        });
        bench.send(copy, vec![piece], Some(answer.clone()));
        bench.answer().await;
        std::fs::remove_file(&answer).unwrap();
    }
    println!(
        "32 MB from a shared file to a shared file: {}",
        rate(since.elapsed(), ROUNDS)
    );
    bench.runtime.shutdown().await;
}
