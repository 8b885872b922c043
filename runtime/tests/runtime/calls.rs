//! Closures: called, answered, and no harm done to the namespace.

use std::num::NonZeroU64;
use std::path::PathBuf;
use std::time::Instant;

use bytes::Bytes;
use object::{Object, ObjectSymbol};
use runtime::{
    Call, CallOutcome, Cause, Data, Event, Outcome, Piece, RunId, Stream, Value, WhyNot,
};

use crate::support::{ALL_RESTORED, Namespace, PATIENCE, cell, cell_with, config};

/// What the crate `chorus` makes of closures, by hand.
const TRAMPOLINES: &str = r#"
#[repr(C)] pub struct Slice { data: *const u8, len: usize, id: u64 }
#[repr(C)] pub struct Answer { status: u32, data: *mut u8, len: usize, capacity: usize, drop: Option<unsafe extern "C" fn(*mut u8, usize, usize)> }
unsafe extern "C" fn release(data: *mut u8, len: usize, capacity: usize) { drop(unsafe { Vec::from_raw_parts(data, len, capacity) }) }
fn call(pieces: *const Slice, count: usize, answer: *mut Answer, f: fn(&[Slice]) -> Result<Vec<u8>, String>) {
    let pieces = unsafe { std::slice::from_raw_parts(pieces, count) };
    let (status, mut bytes) = match std::panic::catch_unwind(|| f(pieces)) {
        Ok(Ok(bytes)) => (0, bytes),
        Ok(Err(text)) => (1, text.into_bytes()),
        Err(_) => (2, Vec::new()),
    };
    let (data, len, capacity) = (bytes.as_mut_ptr(), bytes.len(), bytes.capacity());
    std::mem::forget(bytes);
    unsafe { *answer = Answer { status, data, len, capacity, drop: Some(release) } };
}
fn bytes(slice: &Slice) -> &[u8] { unsafe { std::slice::from_raw_parts(slice.data, slice.len) } }
fn text(slice: &Slice) -> String { String::from_utf8_lossy(bytes(slice)).into_owned() }
macro_rules! trampoline { ($name:ident, $f:expr) => {
    #[unsafe(no_mangle)] pub unsafe extern "C" fn $name(pieces: *const Slice, count: usize, answer: *mut Answer) { call(pieces, count, answer, $f) }
} }
trampoline!(nothing, |_| Ok(Vec::new()));
trampoline!(join, |pieces| Ok(pieces.iter().flat_map(|piece| bytes(piece).to_vec()).collect()));
trampoline!(places, |pieces| Ok(pieces.iter().map(|piece| format!("{} {} {};", piece.id, piece.len, piece.data as usize % 16)).collect::<String>().into_bytes()));
trampoline!(address, |pieces| Ok(format!("{} {}", pieces[1].data as usize, pieces[1].len).into_bytes()));
trampoline!(zeros, |pieces| Ok(vec![0; text(&pieces[0]).parse().unwrap()]));
#[unsafe(no_mangle)] pub unsafe extern "C" fn partly(pieces: *const Slice, count: usize, answer: *mut Answer) { unsafe { zeros(pieces, count, answer); (*answer).status = 3; } }
trampoline!(sum, |pieces| Ok(pieces.iter().flat_map(|piece| bytes(piece)).map(|byte| *byte as u64).sum::<u64>().to_string().into_bytes()));
trampoline!(fails, |_| Err("no such thing".to_owned()));
trampoline!(panics, |pieces| { if pieces[0].len > 0 { panic!("bad input {}", text(&pieces[0])); } Ok(vec![]) });
trampoline!(catches, |_| { let _ = std::panic::catch_unwind(|| panic!("caught")); Ok(vec![]) });
trampoline!(prints, |pieces| { print!("<{}>", text(&pieces[0])); eprint!("({})", text(&pieces[0])); Ok(vec![]) });
trampoline!(segfaults, |_| { unsafe { *(8 as *mut u8) = 1; } Ok(vec![]) });
trampoline!(aborts, |_| std::process::abort());
trampoline!(exits, |_| std::process::exit(3));
trampoline!(overflows, |_| { fn deep(n: u64) -> u64 { let a = [n; 100]; std::hint::black_box(&a); deep(n + 1) + a[3] } Ok(vec![deep(0) as u8]) });
trampoline!(spins, |_| { println!("begun"); loop { std::hint::black_box(1); } });
trampoline!(counts, |_| { static COUNT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0); Ok((COUNT.fetch_add(1, std::sync::atomic::Ordering::SeqCst) + 1).to_string().into_bytes()) });
trampoline!(pid, |_| Ok(std::process::id().to_string().into_bytes()));
#[unsafe(no_mangle)] pub unsafe extern "C" fn silent(_: *const Slice, _: usize, _: *mut Answer) {}
#[unsafe(no_mangle)] pub static DATA: u64 = 5;
"#;

pub(crate) fn artifact() -> PathBuf {
    cell_with(TRAMPOLINES, "")
}

/// Where a symbol is, from where its object is loaded.
pub(crate) fn offset(name: &str) -> u64 {
    let bytes = std::fs::read(artifact()).unwrap();
    let file = object::File::parse(&bytes[..]).unwrap();
    let mut symbols = file.dynamic_symbols();
    symbols
        .find(|symbol| symbol.name() == Ok(name))
        .unwrap()
        .address()
}

/// A call of a trampoline.
pub(crate) fn call(id: u64, name: &str, pieces: Vec<Piece>) -> Call {
    Call {
        id: RunId(id),
        artifact: artifact(),
        offset: offset(name),
        pieces,
        answer_file: None,
    }
}

fn once(bytes: impl Into<Vec<u8>>) -> Piece {
    Piece::Once(Data::Bytes(bytes.into().into()))
}

fn id(id: u64) -> NonZeroU64 {
    NonZeroU64::new(id).unwrap()
}

fn keep(name: u64, bytes: impl Into<Vec<u8>>) -> Piece {
    Piece::Keep {
        id: id(name),
        data: Data::Bytes(bytes.into().into()),
    }
}

fn kept(name: u64) -> Piece {
    Piece::Kept { id: id(name) }
}

fn returned(outcome: CallOutcome) -> Bytes {
    match outcome {
        CallOutcome::Returned(Value::Bytes(bytes)) => bytes,
        other => panic!("{other:?}"),
    }
}

fn shown(outcome: CallOutcome) -> String {
    String::from_utf8(returned(outcome).to_vec()).unwrap()
}

impl Namespace {
    fn call(&mut self, name: &str, pieces: Vec<Piece>) -> RunId {
        self.last += 1;
        self.runtime.call(&call(self.last, name, pieces));
        RunId(self.last)
    }

    /// The outcome, and what was printed: first to stdout, then to stderr.
    async fn called(&mut self, id: RunId) -> (CallOutcome, String) {
        let (mut stdout, mut stderr) = (Vec::new(), Vec::<u8>::new());
        loop {
            match self.event().await {
                Event::Called {
                    id: called,
                    outcome,
                    span,
                } => {
                    assert_eq!(called, id);
                    if let Some(span) = span {
                        assert!(span.ended >= span.began);
                    }
                    stdout.extend(stderr);
                    return (outcome, String::from_utf8(stdout).unwrap());
                }
                Event::Output { stream, bytes } => match stream {
                    Stream::Stdout => stdout.extend(&bytes[..]),
                    Stream::Stderr => stderr.extend(&bytes[..]),
                },
                other => panic!("unexpected {other:?}"),
            }
        }
    }

    async fn outcome(&mut self, name: &str, pieces: Vec<Piece>) -> CallOutcome {
        let id = self.call(name, pieces);
        self.called(id).await.0
    }
}

#[tokio::test]
async fn what_goes_in_comes_out() {
    let mut namespace = Namespace::start().await;
    namespace.fill().await;
    let long = Bytes::from((0..3_000_000_u32).map(|n| n as u8).collect::<Vec<_>>());
    for pieces in [
        vec![],
        vec![once("")],
        vec![once("abc"), once("defg")],
        vec![once(long.slice(..65_000)), once("x")],
        vec![
            once(long.slice(..200_000)),
            once("y"),
            once(long.slice(3..100_000)),
        ],
        vec![once(long.clone()), once("z"), once(long.slice(7..))],
    ] {
        let whole: Vec<u8> = pieces
            .iter()
            .flat_map(|piece| match piece {
                Piece::Once(Data::Bytes(bytes)) => bytes.to_vec(),
                _ => panic!("{piece:?}"),
            })
            .collect();
        let outcome = namespace.outcome("join", pieces).await;
        assert!(returned(outcome) == whole, "{} bytes", whole.len());
    }
    let pieces = vec![once("a"), keep(9, "abc"), once(long), once("bc")];
    let places = shown(namespace.outcome("places", pieces).await);
    assert_eq!(places, "0 1 0;9 3 0;0 3000000 0;0 2 0;");
    namespace.assert_filled().await;
    namespace.runtime.shutdown().await;
}

#[tokio::test]
async fn files_go_in_and_out() {
    let mut namespace = Namespace::start().await;
    let folder = tempfile::tempdir_in("/dev/shm").unwrap();
    let path = folder.path().join("in");
    std::fs::write(&path, vec![1_u8; 1_000_000]).unwrap();
    let stretch = |start, length| {
        let path = path.clone();
        Piece::Once(Data::File {
            path,
            start,
            length,
        })
    };
    let file = |length| stretch(0, length);
    let sum = namespace
        .outcome("sum", vec![stretch(65536, 5), once([2])])
        .await;
    assert_eq!(shown(sum), "7");
    let sum = namespace
        .outcome("sum", vec![file(999_999), once([2])])
        .await;
    assert_eq!(shown(sum), "1000001");
    let too_long = namespace.outcome("sum", vec![file(1_000_001)]).await;
    assert!(matches!(too_long, CallOutcome::NotRun { error } if error.contains("1000000 bytes")));

    let answer = folder.path().join("out");
    for (length, expected) in [
        (1_000_000, Value::File { length: 1_000_000 }),
        (10, Value::Bytes(Bytes::from(vec![0; 10]))),
    ] {
        namespace.last += 1;
        let mut call = call(namespace.last, "zeros", vec![once(length.to_string())]);
        call.answer_file = Some(answer.clone());
        namespace.runtime.call(&call);
        let (outcome, _) = namespace.called(call.id).await;
        assert_eq!(outcome, CallOutcome::Returned(expected));
    }
    assert_eq!(std::fs::read(&answer).unwrap(), vec![0; 1_000_000]);
    for (length, to) in [(10, None), (1_000_000, None), (1_000_000, Some("partly"))] {
        namespace.last += 1;
        let mut call = call(namespace.last, "partly", vec![once(length.to_string())]);
        call.answer_file = to.map(|name| folder.path().join(name));
        namespace.runtime.call(&call);
        let (outcome, _) = namespace.called(call.id).await;
        let value = match to {
            Some(_) => Value::File {
                length: length as u64,
            },
            None => Value::Bytes(Bytes::from(vec![0; length])),
        };
        assert_eq!(outcome, CallOutcome::Partly(value));
    }
    // A file that is there already is somebody else's, and files may find no room: the result comes by other memory.
    namespace.last += 1;
    let mut call = call(namespace.last, "zeros", vec![once("1000000")]);
    call.answer_file = Some(answer);
    namespace.runtime.call(&call);
    let (outcome, _) = namespace.called(call.id).await;
    let zeros = Bytes::from(vec![0; 1_000_000]);
    assert_eq!(outcome, CallOutcome::Returned(Value::Bytes(zeros)));
}

#[tokio::test]
async fn what_calls_share_is_sent_once_and_stays_in_its_place() {
    let mut limited = config();
    limited.keep = 2_500_000;
    let mut namespace = Namespace::start_with(limited).await;
    let long = || Bytes::from(vec![1; 1_000_000]);
    let missing = namespace
        .outcome("sum", vec![once(""), kept(1), kept(2)])
        .await;
    let ids = vec![id(1), id(2)];
    assert_eq!(missing, CallOutcome::MissingShared { ids });
    let sum = namespace
        .outcome("sum", vec![once([5]), keep(1, long())])
        .await;
    assert_eq!(shown(sum), "1000005");
    let first = shown(namespace.outcome("address", vec![once(""), kept(1)]).await);
    let small = namespace.outcome("sum", vec![keep(2, [7, 8])]).await;
    assert_eq!(shown(small), "15");
    for _ in 0..3 {
        // What comes again under the same id is not looked at.
        let again = namespace
            .outcome("address", vec![once(""), keep(1, [1])])
            .await;
        assert_eq!(shown(again), first);
    }
    // Pieces that came are kept, even though one is missing.
    let missing = namespace
        .outcome("sum", vec![keep(3, long()), kept(99)])
        .await;
    assert_eq!(missing, CallOutcome::MissingShared { ids: vec![id(99)] });
    let sum = namespace.outcome("sum", vec![kept(3), kept(2)]).await;
    assert_eq!(shown(sum), "1000015");
    // The one used longest ago goes.
    let sum = namespace.outcome("sum", vec![keep(4, long())]).await;
    assert_eq!(shown(sum), "1000000");
    let missing = namespace.outcome("sum", vec![kept(1), kept(3)]).await;
    assert_eq!(missing, CallOutcome::MissingShared { ids: vec![id(1)] });
}

#[tokio::test]
async fn errors_and_panics_are_that_calls_own() {
    let mut namespace = Namespace::start().await;
    namespace.fill().await;
    let error = "no such thing".to_owned();
    let failed = namespace.outcome("fails", vec![]).await;
    assert_eq!(failed, CallOutcome::Failed { error });

    let ids = ["x", "", "y"].map(|input| namespace.call("panics", vec![once(input)]));
    for (id, input) in ids.into_iter().zip(["x", "", "y"]) {
        let (outcome, printed) = namespace.called(id).await;
        assert_eq!(printed, "");
        match outcome {
            CallOutcome::Panicked(panic) => {
                assert_eq!(panic.message, format!("bad input {input}"));
                let location = panic.location.unwrap();
                assert!(location.file.ends_with("src.rs") && location.line > 1);
                assert!(!panic.frames.is_empty());
            }
            other => assert!(input.is_empty() && returned(other).is_empty()),
        }
    }
    let id = namespace.call("catches", vec![]);
    let (outcome, printed) = namespace.called(id).await;
    assert!(returned(outcome).is_empty() && printed.contains("caught"));
    let silent = namespace.outcome("silent", vec![]).await;
    assert!(matches!(silent, CallOutcome::Failed { .. }));
    namespace.assert_filled().await;
}

#[tokio::test]
async fn what_is_no_code_is_not_called() {
    let mut namespace = Namespace::start().await;
    let wrong = |artifact: PathBuf, offset| Call {
        id: RunId(1000 + offset),
        artifact,
        offset,
        pieces: Vec::new(),
        answer_file: None,
    };
    for (call, words) in [
        (wrong("/nowhere/x.so".into(), 1), "/nowhere/x.so"),
        (wrong(artifact(), 2), "no code there"),
        (wrong(artifact(), u64::MAX - 2000), "no code there"),
        (wrong(artifact(), offset("DATA")), "no code there"),
    ] {
        namespace.runtime.call(&call);
        let (outcome, _) = namespace.called(call.id).await;
        assert!(
            matches!(&outcome, CallOutcome::NotRun { error } if error.contains(words)),
            "{outcome:?}"
        );
    }
    assert_eq!(shown(namespace.outcome("counts", vec![]).await), "1");
}

#[tokio::test]
async fn output_comes_before_the_answer_and_is_that_calls_own() {
    let mut namespace = Namespace::start().await;
    for ahead in [1, 50] {
        for round in 0..20 {
            let ids: Vec<_> = (0..ahead)
                .map(|n| {
                    (
                        n,
                        namespace.call("prints", vec![once(format!("{round} {n}"))]),
                    )
                })
                .collect();
            for (n, id) in ids {
                let (_, printed) = namespace.called(id).await;
                assert_eq!(printed, format!("<{round} {n}>({round} {n})"));
            }
        }
    }
}

#[tokio::test]
async fn a_call_that_dies_takes_nothing_with_it() {
    let mut namespace = Namespace::start().await;
    namespace.fill().await;
    for (round, (name, cause)) in [
        ("segfaults", Cause::Signal(11, "SIGSEGV")),
        ("aborts", Cause::Signal(6, "SIGABRT")),
        ("exits", Cause::Exited(3)),
        ("overflows", Cause::StackOverflow),
    ]
    .into_iter()
    .enumerate()
    {
        let shared = || vec![once(""), keep(1, [1])];
        let keeping = namespace.outcome("sum", shared()).await;
        assert_eq!(shown(keeping), "1");
        // Others before and behind it, in the pipe already.
        let before: Vec<_> = (0..5).map(|_| namespace.call("nothing", vec![])).collect();
        let dying = namespace.call(name, vec![]);
        let behind: Vec<_> = (0..50).map(|_| namespace.call("nothing", vec![])).collect();
        for id in before {
            assert!(returned(namespace.called(id).await.0).is_empty());
        }
        let restored = ALL_RESTORED;
        let died = CallOutcome::Died { cause, restored };
        assert_eq!(namespace.called(dying).await.0, died);
        for id in behind {
            assert!(returned(namespace.called(id).await.0).is_empty());
        }
        // The copy is from before the first call since the last snippet: what that one left is not there.
        let missing = namespace.outcome("sum", vec![kept(1)]).await;
        assert_eq!(missing, CallOutcome::MissingShared { ids: vec![id(1)] });
        let counted = shown(namespace.outcome("counts", vec![]).await);
        assert_eq!(counted, (round + 1).to_string());
        namespace.assert_filled().await;
    }
    namespace.runtime.shutdown().await;
}

#[tokio::test]
async fn one_copy_serves_all_calls_until_the_next_snippet() {
    let mut namespace = Namespace::start().await;
    let pid = shown(namespace.outcome("pid", vec![]).await);
    let children = || {
        let path = format!("/proc/{pid}/task/{pid}/children");
        let children = std::fs::read_to_string(path).unwrap();
        children
            .split_whitespace()
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let copy = children();
    assert_eq!(copy.len(), 1);
    for _ in 0..100 {
        namespace.outcome("nothing", vec![]).await;
    }
    assert_eq!(children(), copy);
    namespace.fill().await;
    namespace.outcome("nothing", vec![]).await;
    // Copies that were dismissed take a moment to go.
    let since = Instant::now();
    while children().len() > 1 {
        assert!(since.elapsed() < PATIENCE, "{:?}", children());
        namespace.outcome("nothing", vec![]).await;
    }
    assert_ne!(children(), copy);
    // The variables that came after the first calls are there when a call dies.
    namespace.outcome("aborts", vec![]).await;
    namespace.assert_filled().await;
}

#[tokio::test]
async fn calls_are_interrupted_within_200_ms() {
    let mut namespace = Namespace::start().await;
    namespace.fill().await;
    let endless = namespace.call("spins", vec![]);
    let behind: Vec<_> = (0..40).map(|_| namespace.call("counts", vec![])).collect();
    assert!(matches!(namespace.event().await, Event::Output { .. }));
    for id in behind.iter().skip(1).step_by(2) {
        namespace.runtime.interrupt(*id);
    }
    let since = Instant::now();
    namespace.runtime.interrupt(endless);
    let restored = ALL_RESTORED;
    let interrupted = CallOutcome::Interrupted { restored };
    assert_eq!(namespace.called(endless).await.0, interrupted);
    let elapsed = since.elapsed().as_millis();
    assert!(elapsed < 200, "{elapsed} ms");
    for (at, id) in behind.into_iter().enumerate() {
        let (outcome, _) = namespace.called(id).await;
        match at % 2 {
            0 => assert_eq!(shown(outcome), (at / 2 + 1).to_string()),
            _ => assert_eq!(outcome, interrupted),
        }
    }
    namespace.assert_filled().await;
}

#[tokio::test]
async fn an_interrupt_at_any_moment_ends_one_call_at_most() {
    let mut namespace = Namespace::start().await;
    namespace.fill().await;
    for _ in 0..100 {
        let ids: Vec<_> = (0..4).map(|_| namespace.call("nothing", vec![])).collect();
        namespace.runtime.interrupt(ids[2]);
        for (at, id) in ids.into_iter().enumerate() {
            match namespace.called(id).await.0 {
                CallOutcome::Interrupted { restored } => {
                    assert_eq!((at, restored), (2, ALL_RESTORED));
                }
                other => assert!(returned(other).is_empty()),
            }
        }
    }
    namespace.assert_filled().await;
}

#[tokio::test]
async fn calls_and_snippets_keep_their_order() {
    let mut namespace = Namespace::start().await;
    let mut expected = Vec::new();
    for round in 0..5 {
        for _ in 0..round * 10 {
            expected.push(namespace.call("nothing", vec![]));
        }
        expected.push(namespace.send(cell("")));
    }
    let mut ended = Vec::new();
    while ended.len() < expected.len() {
        match namespace.event().await {
            Event::Called { id, outcome, .. } => {
                returned(outcome);
                ended.push(id);
            }
            Event::Finished { id, outcome } => {
                assert_eq!(outcome, Outcome::Completed);
                ended.push(id);
            }
            Event::Started { .. } | Event::Spent { .. } => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(ended, expected);
}

#[tokio::test]
async fn calls_of_any_length_keep_their_order() {
    let mut namespace = Namespace::start().await;
    let lengths = [3, 65_000, 200_000, 5, 7, 3_000_000, 0, 30_000, 40_000, 1];
    let calls: Vec<_> = (0..3)
        .flat_map(|round| lengths.map(|length| vec![round; length]))
        .map(|bytes| (namespace.call("join", vec![once(bytes.clone())]), bytes))
        .collect();
    for (expected, bytes) in calls {
        match namespace.event().await {
            Event::Called { id, outcome, .. } => {
                assert_eq!(id, expected);
                assert!(returned(outcome) == bytes, "{} bytes", bytes.len());
            }
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn output_without_end_holds_no_call_back() {
    let mut namespace = Namespace::start().await;
    namespace
        .good("use std::io::Write; for _ in 0..2 { std::thread::spawn(|| loop { std::io::stdout().write_all(&[b'x'; 1 << 20]).unwrap() }); }")
        .await;
    for _ in 0..3 {
        let since = Instant::now();
        let id = namespace.call("nothing", vec![]);
        returned(namespace.called(id).await.0);
        assert!(since.elapsed().as_secs() < 2, "{:?}", since.elapsed());
    }
    let endless = namespace.call("spins", vec![]);
    namespace.runtime.interrupt(endless);
    assert!(matches!(
        namespace.called(endless).await.0,
        CallOutcome::Interrupted { .. }
    ));
}

#[tokio::test]
async fn without_a_copy_the_loss_is_told() {
    let mut namespace = Namespace::start().await;
    namespace.fill().await;
    namespace.runtime.set_checkpoint(false, 0);
    let dying = namespace.call("aborts", vec![]);
    let behind = namespace.call("nothing", vec![]);
    let (outcome, _) = namespace.called(dying).await;
    let CallOutcome::Died { restored, .. } = outcome else {
        panic!("{outcome:?}");
    };
    assert!(!restored.variables);
    assert_eq!(restored.why_not, Some(WhyNot::CheckpointOff));
    returned(namespace.called(behind).await.0);
}

#[tokio::test]
async fn a_restart_ends_calls_and_the_next_one_runs() {
    let mut namespace = Namespace::start().await;
    let endless = namespace.call("spins", vec![]);
    let behind = namespace.call("nothing", vec![]);
    assert!(matches!(
        namespace.event().await,
        Event::Output {
            stream: Stream::Stdout,
            ..
        }
    ));
    namespace.runtime.restart().await;
    for id in [endless, behind] {
        let (outcome, _) = namespace.called(id).await;
        assert!(matches!(outcome, CallOutcome::Interrupted { .. }));
    }
    returned(namespace.outcome("nothing", vec![]).await);
    namespace.runtime.shutdown().await;
}
