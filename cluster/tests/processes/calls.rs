//! Closures on engines: results, errors, output, order, aborts.

use std::collections::HashMap;
use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;

use bytes::Bytes;
use cluster::{launcher, query};
use object::{Object, ObjectSymbol};
use protocol::{Message, RawJson};
use serde_json::{Value, json};

use crate::client::{Client, IOPUB, MUX, PATIENCE};
use crate::options;

/// What the crate `chorus` makes of closures, by hand.
const SOURCE: &str = r#"
#[repr(C)] pub struct Slice { data: *const u8, len: usize, id: u64 }
#[repr(C)] pub struct Answer { status: u32, data: *mut u8, len: usize, capacity: usize, drop: Option<unsafe extern "C" fn(*mut u8, usize, usize)> }
unsafe extern "C" fn release(data: *mut u8, len: usize, capacity: usize) { drop(unsafe { Vec::from_raw_parts(data, len, capacity) }) }
fn call(pieces: *const Slice, count: usize, answer: *mut Answer, f: fn(&[u8]) -> Vec<u8>) {
    let pieces = unsafe { std::slice::from_raw_parts(pieces, count) };
    let all: Vec<u8> = pieces.iter().flat_map(|it| unsafe { std::slice::from_raw_parts(it.data, it.len) }).copied().collect();
    let (status, mut bytes) = match std::panic::catch_unwind(|| f(&all)) { Ok(bytes) => (0, bytes), Err(_) => (2, Vec::new()) };
    let (data, len, capacity) = (bytes.as_mut_ptr(), bytes.len(), bytes.capacity());
    std::mem::forget(bytes);
    unsafe { *answer = Answer { status, data, len, capacity, drop: Some(release) } };
}
macro_rules! trampoline { ($name:ident, $f:expr) => {
    #[unsafe(no_mangle)] pub unsafe extern "C" fn $name(pieces: *const Slice, count: usize, answer: *mut Answer) { call(pieces, count, answer, $f) }
} }
trampoline!(join, |all| all.to_vec());
trampoline!(panics, |all| panic!("boom {}", all.len()));
trampoline!(aborts, |_| std::process::abort());
trampoline!(prints, |all| { println!("said {}", String::from_utf8_lossy(all)); Vec::new() });
trampoline!(spins, |_| { println!("begun"); loop { std::hint::black_box(1); } });
trampoline!(double, |all| [all, all].concat());
"#;

struct Artifact {
    folder: tempfile::TempDir,
    offsets: HashMap<String, u64>,
}

impl Artifact {
    fn make() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let input = folder.path().join("src.rs");
        std::fs::write(&input, SOURCE).unwrap();
        let made = Command::new("rustc")
            .args([
                "--edition",
                "2024",
                "--crate-type",
                "cdylib",
                "-Cprefer-dynamic",
            ])
            .arg("-o")
            .args([&folder.path().join("a.so"), &input])
            .status();
        assert!(made.unwrap().success());
        let bytes = std::fs::read(folder.path().join("a.so")).unwrap();
        let file = object::File::parse(&bytes[..]).unwrap();
        let symbols = file.dynamic_symbols();
        let offsets = symbols.map(|it| (it.name().unwrap().to_owned(), it.address()));
        Self {
            offsets: offsets.collect(),
            folder,
        }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("a.so")
    }

    fn content(&self, name: &str, pieces: Value) -> Value {
        let offset = self.offsets[name];
        json!({"chorus": {"artifact": self.path(), "offset": offset, "pieces": pieces}})
    }
}

impl Client {
    fn apply(&self, engine: &str, content: &Value, buffers: &[&[u8]]) -> String {
        let content = RawJson::from_value(content).unwrap();
        let message = self
            .session
            .raw_message("apply_request", content, None)
            .with_identities(vec![Bytes::from(engine.to_owned())])
            .with_buffers(
                buffers
                    .iter()
                    .map(|it| Bytes::copy_from_slice(it))
                    .collect(),
            );
        self.sockets.send(MUX, self.session.encode(&message));
        message.header.msg_id
    }

    /// The reply, and what iopub said of the request before.
    async fn applied(&mut self, id: &str) -> (Message, Vec<Message>) {
        let mut said = Vec::new();
        loop {
            let (socket, message) = self.next().await;
            if message.parent.as_ref().is_none_or(|it| it.msg_id != id) {
                continue;
            }
            if socket == MUX {
                return (message, said);
            }
            said.push(message);
        }
    }

    async fn apply_sync(&mut self, engine: &str, content: &Value, buffers: &[&[u8]]) -> Message {
        let id = self.apply(engine, content, buffers);
        self.applied(&id).await.0
    }

    /// What a request printed, from its first word to idle.
    async fn printed(&mut self, id: &str) -> String {
        let mut text = String::new();
        loop {
            let (socket, message) = self.next().await;
            if socket != IOPUB || message.parent.as_ref().is_none_or(|it| it.msg_id != id) {
                continue;
            }
            let said = said(&message);
            match message.msg_type() {
                "stream" => text.push_str(said["text"].as_str().unwrap()),
                _ => {
                    assert_eq!(said["execution_state"], "idle");
                    return text;
                }
            }
        }
    }
}

fn said(message: &Message) -> Value {
    message.parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn closures_are_applied() {
    let root = tempfile::tempdir().unwrap();
    let cluster = launcher::start(options(&root, 1)).await.unwrap();
    let mut client = Client::connect(&cluster.files().client);
    let engine = client.engine(0).await;
    let artifact = Artifact::make();
    client
        .run(&engine, "store.put_variable(\"x\", 5_i32);")
        .await;
    let look = "({ let x: i32 = store.take_variable(\"x\"); store.put_variable(\"x\", x); x })";

    let join = artifact.content("join", json!([{"buffer": 1}, {"buffer": 0}]));
    let id = client.apply(&engine, &join, &[b"b", b"a"]);
    let (reply, before) = client.applied(&id).await;
    assert!(before.is_empty(), "{before:?}");
    assert_eq!(said(&reply), json!({"status": "ok"}));
    assert_eq!(reply.buffers, [Bytes::from_static(b"ab")]);
    assert_eq!(reply.metadata["engine"], engine.as_str());
    assert_eq!(
        (&reply.metadata["status"], &reply.metadata["printed"]),
        (&json!("ok"), &json!(false))
    );
    assert!(reply.metadata["completed"].as_str() >= reply.metadata["started"].as_str());

    let kept = artifact.content("join", json!([{"kept": 7}]));
    let missing = said(&client.apply_sync(&engine, &kept, &[]).await);
    assert_eq!(
        (&missing["ename"], &missing["missing"]),
        (&json!("MissingShared"), &json!([7]))
    );
    assert_eq!(missing["engine_info"]["engine_uuid"], engine.as_str());
    let keep = artifact.content("join", json!([{"buffer": 0, "keep": 7}]));
    client.apply_sync(&engine, &keep, &[b"shared"]).await;
    let reply = client.apply_sync(&engine, &kept, &[]).await;
    assert_eq!(reply.buffers, [Bytes::from_static(b"shared")]);

    // Large both ways: as buffers, and as files for those on this machine.
    let large = vec![3_u8; 1_000_000];
    let double = artifact.content("double", json!([{"buffer": 0}]));
    let reply = client.apply_sync(&engine, &double, &[&large]).await;
    assert!(reply.buffers == [Bytes::from([&large[..], &large].concat())]);
    let shared = tempfile::tempdir_in("/dev/shm").unwrap();
    let path = shared.path().join("in");
    std::fs::write(&path, &large).unwrap();
    let mut content = artifact.content("double", json!([{"file": path, "length": 1_000_000}]));
    content["chorus"]["shm"] = json!(protocol::machine::shared_memory());
    let reply = said(&client.apply_sync(&engine, &content, &[]).await);
    assert_eq!(reply["file"]["length"], 2_000_000);
    let answer = reply["file"]["path"].as_str().unwrap();
    assert_eq!(std::fs::metadata(answer).unwrap().len(), 2_000_000);
    std::fs::remove_file(answer).unwrap();

    let panics = artifact.content("panics", json!([{"buffer": 0}]));
    let reply = said(&client.apply_sync(&engine, &panics, &[b"abc"]).await);
    assert_eq!(
        (&reply["ename"], &reply["evalue"]),
        (&json!("panic"), &json!("boom 3"))
    );
    assert!(reply["location"]["line"].as_u64().unwrap() > 1);
    assert!(
        reply["location"]["file"]
            .as_str()
            .unwrap()
            .ends_with("src.rs")
    );

    let dies = artifact.content("aborts", json!([]));
    let reply = said(&client.apply_sync(&engine, &dies, &[]).await);
    assert_eq!(reply["ename"], "SIGABRT");
    let reply = client.run(&engine, look).await;
    assert_eq!(reply.result.as_deref(), Some("5"), "{reply:?}");

    let bad =
        json!({"chorus": {"artifact": artifact.path(), "offset": 1, "pieces": [{"buffer": 3}]}});
    let reply = said(&client.apply_sync(&engine, &bad, &[]).await);
    assert_eq!(reply["ename"], "bad request");
    let nowhere = json!({"chorus": {"artifact": "/nowhere.so", "offset": 1}});
    let reply = said(&client.apply_sync(&engine, &nowhere, &[]).await);
    assert_eq!(reply["ename"], "not run");
    let python = said(&client.apply_sync(&engine, &json!({}), &[b"pickle"]).await);
    assert_eq!(python["ename"], "unsupported");

    let prints = artifact.content("prints", json!([{"buffer": 0}]));
    let ids: Vec<_> = (0..20)
        .map(|n| client.apply(&engine, &prints, &[format!("{n}").as_bytes()]))
        .collect();
    for (n, id) in ids.iter().enumerate() {
        assert_eq!(client.printed(id).await, format!("said {n}\n"));
    }
    cluster.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn order_is_kept_and_what_waits_can_be_aborted() {
    let root = tempfile::tempdir().unwrap();
    let cluster = launcher::start(options(&root, 1)).await.unwrap();
    let mut client = Client::connect(&cluster.files().client);
    let engine = client.engine(0).await;
    let artifact = Artifact::make();
    let join = artifact.content("join", json!([{"buffer": 0}]));
    let spins = artifact.content("spins", json!([]));

    let mut expected = Vec::new();
    for round in 0..10 {
        for _ in 0..round {
            expected.push(client.apply(&engine, &join, &[b"x"]));
        }
        expected.push(client.send(&engine, "1 + 1"));
    }
    let mut replies = Vec::new();
    while replies.len() < expected.len() {
        let (socket, message) = client.next().await;
        if socket == MUX {
            assert_eq!(said(&message)["status"], "ok");
            replies.push(message.parent.unwrap().msg_id);
        }
    }
    assert_eq!(replies, expected);

    // The second is with the runtime already, the third is not.
    let endless = client.apply(&engine, &spins, &[]);
    let waiting = [(); 4].map(|()| client.apply(&engine, &join, &[b"y"]));
    client.first_output(&endless).await;
    let ids = json!({"msg_ids": [waiting[0], waiting[2]]});
    let abort = query::control(&client.file, &engine, "abort_request", &ids, PATIENCE);
    abort.await.unwrap();
    let began = Instant::now();
    let nothing = json!({});
    let interrupt = query::control(
        &client.file,
        &engine,
        "interrupt_request",
        &nothing,
        PATIENCE,
    );
    interrupt.await.unwrap();
    let mut replies = HashMap::new();
    while replies.len() < 5 {
        let (socket, message) = client.next().await;
        if socket == MUX {
            let status = message.metadata["status"].as_str().unwrap().to_owned();
            replies.insert(message.parent.unwrap().msg_id, status);
        }
    }
    assert!(began.elapsed().as_millis() < 1000, "{:?}", began.elapsed());
    assert_eq!(replies[&endless], "error");
    let statuses = waiting.each_ref().map(|id| replies[id].as_str());
    assert_eq!(statuses, ["aborted", "ok", "aborted", "ok"]);
    cluster.stop().await.unwrap();
}

/// Prints what calls cost: `cargo test --release -p cluster -- --ignored --nocapture what_a_call_costs`.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "prints, asserts nothing"]
async fn what_a_call_costs() {
    let root = tempfile::tempdir().unwrap();
    let cluster = launcher::start(options(&root, 1)).await.unwrap();
    let mut client = Client::connect(&cluster.files().client);
    let engine = client.engine(0).await;
    let pid = cluster.state().engines.first().unwrap().process.pid;
    let artifact = Artifact::make();
    let join = artifact.content("join", json!([{"buffer": 0}]));
    let count: u32 = 20_000;
    for ahead in [1, 64] {
        let (mut sent, mut done) = (0, 0);
        let (began, before) = (Instant::now(), cpu(pid));
        while done < count {
            while sent < count && sent < done + ahead {
                client.apply(&engine, &join, &[b"x"]);
                sent += 1;
            }
            let (socket, _) = client.next().await;
            done += u32::from(socket == MUX);
        }
        let elapsed = began.elapsed();
        println!(
            "{ahead} ahead: {:.0} calls/s, {:?} each; the engine's process {:.1} µs CPU a call",
            f64::from(count) / elapsed.as_secs_f64(),
            elapsed / count,
            (cpu(pid) - before) / f64::from(count) * 1e6
        );
    }
    cluster.stop().await.unwrap();
}

/// CPU time of a process's threads, in seconds.
fn cpu(pid: u32) -> f64 {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let spent = |thread: std::fs::DirEntry| {
        let text = std::fs::read_to_string(thread.path().join("schedstat")).unwrap();
        let nanoseconds: f64 = text.split(' ').next().unwrap().parse().unwrap();
        let name = std::fs::read_to_string(thread.path().join("comm")).unwrap();
        println!("  {:>16}: {:.3} s", name.trim(), nanoseconds / 1e9);
        nanoseconds / 1e9
    };
    threads.map(|thread| spent(thread.unwrap())).sum()
}
