//! A carrier between a program and a cluster of real processes (`cluster`'s example `cluster_process`, or what CHORUS_CLUSTER names). The
//! program is this test: it says frames, and hears what comes back.
#![expect(
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking, and so do its helpers"
)]

mod common;

use std::collections::HashMap;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Mutex;
use std::time::Duration;

use chorus::carrier::{Carrier, Found, Host};
use chorus::controller::{Connection, Output};
use chorus::wire::{self, *};
use object::{Object, ObjectSymbol};

const PATIENCE: Duration = Duration::from_secs(60);

/// What the crate makes of closures, by hand: an engine of `cluster_process` has no crates.
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
trampoline!(count, |all| (all.len() as u64).to_le_bytes().to_vec());
trampoline!(large, |all| vec![all[0]; 1_000_000]);
trampoline!(panics, |all| panic!("boom {}", all.len()));
trampoline!(prints, |all| { println!("said {}", String::from_utf8_lossy(all)); Vec::new() });
trampoline!(spins, |_| loop { std::hint::black_box(1); });
trampoline!(waits, |all| {
    while !std::path::Path::new(std::str::from_utf8(all).unwrap()).exists() { std::thread::sleep(std::time::Duration::from_millis(5)) }
    all.to_vec()
});
"#;

/// A cluster, and an artifact for its engines.
struct Cluster {
    processes: common::Cluster,
    offsets: HashMap<String, u64>,
}

impl Cluster {
    fn start(engines: u32) -> Self {
        let processes = common::Cluster::start(engines);
        let root = &processes.root;
        let input = root.path().join("src.rs");
        std::fs::write(&input, SOURCE).unwrap();
        let made = Command::new("rustc")
            .args(["--edition", "2024", "--crate-type", "cdylib"])
            .args(["-Cprefer-dynamic", "-o"])
            .args([&root.path().join("a.so"), &input])
            .status();
        assert!(made.unwrap().success());
        let bytes = std::fs::read(root.path().join("a.so")).unwrap();
        let object = object::File::parse(&bytes[..]).unwrap();
        let offsets = object
            .dynamic_symbols()
            .map(|it| (it.name().unwrap().to_owned(), it.address()))
            .collect();
        Self { processes, offsets }
    }

    fn call(&self, name: &str) -> Work {
        Work::Call {
            artifact: self.processes.root.path().join("a.so"),
            executable: false,
            offset: self.offsets[name],
        }
    }

    fn kill_engine(&self, id: u32) {
        let path = self
            .processes
            .root
            .path()
            .join("chorus/profiles/default/cluster.json");
        let state: serde_json::Value =
            serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        let engines = state["engines"].as_array().unwrap();
        let engine = engines.iter().find(|it| it["id"] == id).unwrap();
        let pid = engine["process"]["pid"].to_string();
        assert!(
            Command::new("kill")
                .args(["-9", &pid])
                .status()
                .unwrap()
                .success()
        );
    }
}

/// A host that knows one cluster.
struct One {
    file: PathBuf,
    shown: Mutex<Vec<(u32, String)>>,
}

impl Host for One {
    async fn find(&self, profile: Option<&str>, _id: Option<&str>) -> Result<Found, String> {
        if profile == Some("none") {
            return Err("there is no profile `none`".to_owned());
        }
        let connection = Connection::open(&self.file, PATIENCE).await;
        Ok(Found {
            connection: connection.map_err(|error| error.chain())?,
            name: "test".to_owned(),
        })
    }

    async fn locate(&self, file: &str, line: u32) -> Option<Place> {
        file.ends_with("src.rs").then(|| Place {
            file: "In[1]".to_owned(),
            line,
            text: None,
        })
    }

    fn show(&self, engine: u32, output: &Output) {
        if let Output::Stream(stream) = output {
            self.shown
                .lock()
                .unwrap()
                .push((engine, stream.text.clone()));
        }
    }
}

/// A program's side of a session.
struct Program {
    stream: UnixStream,
    welcome: Welcome,
    next: u64,
    ends: HashMap<u64, Done>,
    started: Vec<u64>,
    others: Vec<Down>,
}

fn carrier(cluster: &Cluster) -> Carrier<One> {
    Carrier::new(
        One {
            file: cluster.processes.file.clone(),
            shown: Mutex::default(),
        },
        true,
    )
}

/// What the carrier says first.
fn greet(
    carrier: &Carrier<One>,
    profile: Option<&str>,
    resume: Option<Resume>,
) -> (UnixStream, Down) {
    let (here, there) = UnixStream::pair().unwrap();
    let carrier = carrier.clone();
    tokio::spawn(async move { carrier.serve(there).await });
    here.set_read_timeout(Some(PATIENCE)).unwrap();
    let hello = Hello {
        version: VERSION,
        profile: profile.map(str::to_owned),
        cluster_id: None,
        resume,
    };
    wire::write(&here, &Up::Hello(hello)).unwrap();
    let first = wire::read(&here).unwrap().unwrap();
    (here, first)
}

impl Program {
    fn connect(carrier: &Carrier<One>, resume: Option<Resume>) -> Self {
        let (stream, first) = greet(carrier, None, resume);
        let Down::Welcome(welcome) = first else {
            panic!("{first:?}")
        };
        Self {
            stream,
            next: welcome.first,
            welcome,
            ends: HashMap::new(),
            started: Vec::new(),
            others: Vec::new(),
        }
    }

    fn say(&self, up: &Up) {
        wire::write(&self.stream, up).unwrap();
    }

    fn draw(&mut self) -> u64 {
        self.next += 1;
        self.next - 1
    }

    fn submit(
        &mut self,
        work: Work,
        route: Route,
        shared: &[u64],
        arguments: &[(Option<u32>, Piece)],
    ) -> Vec<u64> {
        let tasks: Vec<Task> = arguments
            .iter()
            .map(|(engine, arguments)| Task {
                id: self.draw(),
                engine: *engine,
                arguments: arguments.clone(),
            })
            .collect();
        let ids = tasks.iter().map(|task| task.id).collect();
        self.say(&Up::Submit(Submission {
            work,
            shared: shared.to_vec(),
            route,
            label: None,
            tasks,
        }));
        ids
    }

    fn ask(&mut self, question: Question) -> Answer {
        let asked = self.draw();
        self.say(&Up::Ask {
            id: asked,
            question,
        });
        loop {
            self.hear();
            let found = self
                .others
                .iter()
                .position(|it| matches!(it, Down::Reply { id, .. } if *id == asked));
            if let Some(at) = found
                && let Down::Reply { answer, .. } = self.others.remove(at)
            {
                return answer;
            }
        }
    }

    fn hear(&mut self) {
        match wire::read::<Down>(&self.stream).unwrap().unwrap() {
            Down::Tasks(news) => {
                for news in news {
                    match news {
                        News::Started { id, .. } => self.started.push(id),
                        News::Done(done) => {
                            let id = done.id;
                            assert!(self.ends.insert(id, done).is_none(), "{id} ended twice");
                        }
                    }
                }
            }
            other => self.others.push(other),
        }
    }

    fn end(&mut self, id: u64) -> Done {
        while !self.ends.contains_key(&id) {
            self.hear();
        }
        self.ends[&id].clone()
    }

    fn value(&mut self, id: u64) -> Vec<u8> {
        match self.end(id).outcome {
            Outcome::Value(piece) => piece.take().unwrap().to_vec(),
            Outcome::Failed(failure) => panic!("{failure:?}"),
        }
    }

    fn failure(&mut self, id: u64) -> (Failure, Option<u32>) {
        let done = self.end(id);
        match done.outcome {
            Outcome::Failed(failure) => (failure, done.engine),
            Outcome::Value(value) => panic!("{value:?}"),
        }
    }
}

fn balanced() -> Route {
    Route::Balanced {
        targets: None,
        retries: 0,
        timeout: None,
        after: None,
        follow: None,
    }
}

fn small(text: &str) -> Piece {
    Piece::Inline(text.as_bytes().to_vec())
}

fn file(byte: u8, length: usize) -> Piece {
    static COUNT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let count = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let path = format!("/dev/shm/{FILES}{}-test-{count}", std::process::id());
    std::fs::write(&path, vec![byte; length]).unwrap();
    Piece::File {
        path: path.into(),
        length: length as u64,
    }
}

/// Files in memory that this process made. Other tests' among them, so that it is asked by name.
fn exists(piece: &Piece) -> bool {
    matches!(piece, Piece::File { path, .. } if path.exists())
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_of_all_kinds() {
    let cluster = Cluster::start(2);
    let carrier = carrier(&cluster);
    let (_, refused) = greet(&carrier, Some("none"), None);
    assert!(
        matches!(&refused, Down::Refused { reason } if reason.contains("`none`")),
        "{refused:?}"
    );
    let mut program = Program::connect(&carrier, None);
    assert_eq!(
        (
            &program.welcome.engines[..],
            program.welcome.cluster.as_str()
        ),
        (&[0, 1][..], "test")
    );

    let inputs: Vec<_> = (0..500).map(|n| (None, small(&n.to_string()))).collect();
    let ids = program.submit(cluster.call("join"), balanced(), &[], &inputs);
    for (n, id) in ids.iter().enumerate() {
        assert_eq!(program.value(*id), n.to_string().as_bytes());
        let done = program.end(*id);
        assert!(
            done.engine.is_some()
                && done.started > done.submitted - 1.0
                && done.completed >= done.started
        );
    }

    // Shared values, in the message and in a file, and arguments in a file.
    let (first, second) = (program.draw(), program.draw());
    let (shared, argument) = (file(1, 300_000), file(2, 400_000));
    program.say(&Up::Share {
        id: first,
        piece: shared.clone(),
    });
    program.say(&Up::Share {
        id: second,
        piece: small("abc"),
    });
    let ids = program.submit(
        cluster.call("count"),
        Route::Direct,
        &[first, second],
        &[
            (Some(0), argument.clone()),
            (Some(1), Piece::Shared { id: first }),
        ],
    );
    program.say(&Up::Unshare {
        ids: vec![first, second],
    });
    assert_eq!(program.value(ids[0]), 700_003_u64.to_le_bytes());
    assert_eq!(program.value(ids[1]), 600_003_u64.to_le_bytes());
    assert!(!exists(&shared) && !exists(&argument));

    let ids = program.submit(
        cluster.call("large"),
        balanced(),
        &[],
        &[(None, small("x"))],
    );
    assert!(matches!(
        &program.end(ids[0]).outcome,
        Outcome::Value(Piece::File {
            length: 1_000_000,
            ..
        })
    ));
    assert_eq!(program.value(ids[0]), vec![b'x'; 1_000_000]);

    let ids = program.submit(
        cluster.call("panics"),
        Route::Direct,
        &[],
        &[(Some(1), small("abc"))],
    );
    let (failure, engine) = program.failure(ids[0]);
    assert_eq!(
        (failure.kind, failure.evalue.as_str(), engine),
        (FailureKind::Panic, "boom 3", Some(1))
    );
    assert_eq!(failure.place.unwrap().file, "In[1]");

    let ids = program.submit(
        cluster.call("prints"),
        Route::Direct,
        &[],
        &[(Some(0), small("this"))],
    );
    program.end(ids[0]);
    let text = program.others.iter().find_map(|it| match it {
        Down::Output {
            task,
            engine: 0,
            stderr: false,
            text,
        } if *task == ids[0] => Some(text.as_str()),
        _ => None,
    });
    assert_eq!(text, Some("said this\n"));
    let shown = carrier.host().shown.lock().unwrap().clone();
    assert_eq!(shown, [(0, "said this\n".to_owned())]);
    carrier.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn snippets_take_and_give() {
    let cluster = Cluster::start(2);
    let carrier = carrier(&cluster);
    let mut program = Program::connect(&carrier, None);
    let snippet = |code: &str, takes: Option<&str>, gives: Option<&str>| Work::Snippet {
        code: code.to_owned(),
        takes: takes.map(str::to_owned),
        gives: gives.map(str::to_owned),
    };
    // Moves what is there under one name to another.
    let code = "let folder = std::path::PathBuf::from(std::env::var(\"CHORUS_PIECES\").unwrap()); std::fs::rename(folder.join(\"x\"), folder.join(\"y\")).unwrap();";
    for (piece, value) in [
        (small("abc"), b"abc".to_vec()),
        (file(7, 500_000), vec![7; 500_000]),
    ] {
        let both = [(Some(0), piece.clone())];
        let ids = program.submit(
            snippet(code, Some("x"), Some("y")),
            Route::Direct,
            &[],
            &both,
        );
        assert_eq!(program.value(ids[0]), value);
        assert!(!exists(&piece));
    }
    let ids = program.submit(
        snippet("println!(\"text\"); 6 * 7", None, None),
        Route::Direct,
        &[],
        &[(Some(1), small(""))],
    );
    let shown: Executed = chorus::codec::decode(&program.value(ids[0])).unwrap();
    assert_eq!(shown.text(), Some("42"));
    assert_eq!(
        *carrier.host().shown.lock().unwrap(),
        [(1, "text\n".to_owned())]
    );
    let ids = program.submit(
        snippet("let x: u8 = \"\";", None, Some("x")),
        Route::Direct,
        &[],
        &[(Some(1), small(""))],
    );
    let (failure, engine) = program.failure(ids[0]);
    assert_eq!(
        (failure.kind, failure.ename.as_str(), engine),
        (FailureKind::Error, "compile error", Some(1))
    );
    carrier.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_is_taken_back_and_what_runs_is_interrupted() {
    let cluster = Cluster::start(1);
    let carrier = carrier(&cluster);
    let mut program = Program::connect(&carrier, None);
    carrier.begin();
    let spins = program.submit(cluster.call("spins"), balanced(), &[], &[(None, small(""))]);
    let waits: Vec<_> = (0..50).map(|_| (None, small("x"))).collect();
    let waiting = program.submit(cluster.call("join"), balanced(), &[], &waits);
    let all = |ids: &[u64]| {
        vec![Span {
            first: ids[0],
            count: ids.len() as u64,
        }]
    };
    assert_eq!(
        program.ask(Question::Abort {
            tasks: Some(all(&waiting))
        }),
        Answer::Done
    );
    let Answer::Queue(queue) = program.ask(Question::QueueStatus { targets: None }) else {
        panic!("no queue")
    };
    assert_eq!(queue.unassigned, 0);
    // A long call is told to have begun.
    while !program.started.contains(&spins[0]) {
        program.hear();
    }
    let direct = program.submit(
        cluster.call("join"),
        Route::Direct,
        &[],
        &[(Some(0), small("y"))],
    );
    // It is there when a question that was asked later is answered.
    program.ask(Question::QueueStatus { targets: None });
    carrier.interrupt();
    for id in &waiting {
        assert_eq!(program.failure(*id).0.kind, FailureKind::Aborted);
    }
    assert_eq!(program.failure(spins[0]).0.ename, "interrupted");
    assert_eq!(program.failure(direct[0]).0.kind, FailureKind::Aborted);
    // Between cells nothing is interrupted, and in a cell nothing that was submitted before.
    carrier.end(true);
    let gate = cluster.processes.root.path().join("gate");
    let path = gate.to_str().unwrap();
    let waits = program.submit(
        cluster.call("waits"),
        balanced(),
        &[],
        &[(None, small(path))],
    );
    while !program.started.contains(&waits[0]) {
        program.hear();
    }
    carrier.interrupt();
    carrier.begin();
    let spins = program.submit(cluster.call("spins"), balanced(), &[], &[(None, small(""))]);
    program.ask(Question::QueueStatus { targets: None });
    carrier.interrupt();
    assert_eq!(program.failure(spins[0]).0.kind, FailureKind::Aborted);
    std::fs::write(&gate, "").unwrap();
    assert_eq!(program.value(waits[0]), path.as_bytes());
    carrier.end(true);
    assert_eq!(program.ask(Question::Purge { tasks: None }), Answer::Done);
    carrier.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_is_killed() {
    let cluster = Cluster::start(2);
    let carrier = carrier(&cluster);
    let mut program = Program::connect(&carrier, None);
    let argument = file(1, 300_000);
    let ids = program.submit(
        cluster.call("spins"),
        Route::Direct,
        &[],
        &[(Some(1), argument.clone())],
    );
    // It is there when a question that was asked later is answered.
    program.ask(Question::QueueStatus { targets: None });
    cluster.kill_engine(1);
    let (failure, engine) = program.failure(ids[0]);
    assert_eq!(
        (failure.kind, failure.ename.as_str(), engine),
        (FailureKind::Engine, "EngineError", Some(1))
    );
    assert!(failure.evalue.starts_with("engine 1 died"), "{failure:?}");
    assert!(!exists(&argument));
    while !program.others.contains(&Down::Engines(vec![0])) {
        program.hear();
    }
    let ids = program.submit(
        cluster.call("join"),
        Route::Direct,
        &[],
        &[(Some(1), small("")), (Some(0), small("a"))],
    );
    assert!(
        program
            .failure(ids[0])
            .0
            .evalue
            .contains("there is no engine 1")
    );
    assert_eq!(program.value(ids[1]), b"a");
    assert_eq!(
        program.ask(Question::Shutdown {
            targets: None,
            controller: true
        }),
        Answer::Done
    );
    while !program
        .others
        .iter()
        .any(|it| matches!(it, Down::Gone { .. }))
    {
        program.hear();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_goes_on_and_one_that_is_gone_leaves_nothing() {
    let cluster = Cluster::start(1);
    let carrier = carrier(&cluster);
    let mut program = Program::connect(&carrier, None);
    let ids = program.submit(
        cluster.call("large"),
        balanced(),
        &[],
        &[(None, small("a")), (None, small("b"))],
    );
    // The program takes both; its copy knows of neither, and of one that it will never hear of.
    program.value(ids[0]);
    program.value(ids[1]);
    let resume = Resume {
        session: program.welcome.session.clone(),
        open: vec![
            Span {
                first: ids[0],
                count: 2,
            },
            Span {
                first: ids[1] + 50,
                count: 1,
            },
        ],
        shared: Vec::new(),
    };
    let mut copy = Program::connect(&carrier, Some(resume));
    assert_eq!(copy.welcome.session, program.welcome.session);
    assert_eq!(copy.next, ids[1] + 51);
    assert_eq!(copy.value(ids[0]), vec![b'a'; 1_000_000]);
    assert_eq!(copy.value(ids[1]), vec![b'b'; 1_000_000]);
    assert_eq!(copy.failure(ids[1] + 50).0.kind, FailureKind::Lost);
    // What the dead one still says is nobody's: its stream is closed by now.
    let _ = wire::write(&program.stream, &Up::Unshare { ids: vec![1] });
    let ids = copy.submit(cluster.call("join"), balanced(), &[], &[(None, small("c"))]);
    assert_eq!(copy.value(ids[0]), b"c");

    let argument = file(3, 300_000);
    let mut inputs = vec![(None, argument.clone())];
    inputs.extend((0..100).map(|_| (None, small(""))));
    copy.submit(cluster.call("spins"), balanced(), &[], &inputs);
    copy.ask(Question::QueueStatus { targets: None });
    drop(copy);
    drop(program);
    let mut other = Program::connect(&carrier, None);
    loop {
        let Answer::Queue(queue) = other.ask(Question::QueueStatus { targets: None }) else {
            panic!("no queue")
        };
        if (queue.unassigned, queue.engines[0].tasks) == (0, 1) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    carrier.shutdown().await;
    assert!(!exists(&argument));
}
