//! The books, step by step.

use super::*;
use crate::controller::PostMetadata;
use crate::wire::{Place, Resume};
use std::path::Path;

const FIRST: u64 = 7 << 32;

fn books() -> Books {
    let mut books = Books::new(FIRST, |task| format!("t-{task:x}"), "noise");
    books.on_engines(engines(&[0, 1]), &mut Out::default());
    books
}

fn engines(ids: &[u32]) -> BTreeMap<u32, String> {
    ids.iter().map(|id| (*id, format!("uuid{id}"))).collect()
}

fn call() -> Work {
    Work::Call {
        artifact: "/a.so".into(),
        executable: false,
        offset: 1,
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

fn task(id: u64, engine: Option<u32>, arguments: Piece) -> wire::Task {
    wire::Task {
        id,
        engine,
        arguments,
    }
}

fn inline() -> Piece {
    Piece::Inline(vec![1, 2])
}

fn file(name: &str) -> Piece {
    Piece::File {
        path: format!("/dev/shm/{name}").into(),
        length: 1000,
    }
}

/// Submits one task with these arguments and shared values.
fn submit(
    books: &mut Books,
    id: u64,
    engine: Option<u32>,
    arguments: Piece,
    shared: &[u64],
) -> Out {
    let route = match engine {
        Some(_) => Route::Direct,
        None => balanced(),
    };
    let group = books
        .open(5.0, &call(), shared.to_vec(), &route, None)
        .unwrap();
    let mut out = Out::default();
    books.submit(&group, task(id, engine, arguments), &mut out);
    out
}

fn reply(status: &str, engine: u32, content: &str) -> Box<PostReply> {
    Box::new(PostReply {
        metadata: PostMetadata {
            status: Some(status.to_owned()),
            started: Some("2026-01-01T00:00:00.25Z".to_owned()),
            completed: Some("2026-01-01T00:00:01Z".to_owned()),
            engine: Some(format!("uuid{engine}")),
            printed: false,
            attempt: 0,
        },
        content: Bytes::from(content.to_owned()),
        buffers: vec![Bytes::from_static(b"value")],
    })
}

const OK: &str = r#"{"status":"ok"}"#;

fn replied(books: &mut Books, number: u64, reply: Box<PostReply>) -> Out {
    let mut out = Out::default();
    books.on_posted(10.0, Posted::Reply { number, reply }, &mut out);
    out
}

/// The ends among the news, which the program is then told.
fn ends(books: &mut Books, out: Out) -> Vec<Done> {
    let mut ends = Vec::new();
    for news in &out.news {
        if let News::Done(done) = news {
            ends.push(done.clone());
        }
    }
    let mut then = Out::default();
    books.told(out.news, &mut then);
    assert!(then.files.is_empty());
    ends
}

fn failed(done: &Done) -> &Failure {
    match &done.outcome {
        Outcome::Failed(failure) => failure,
        Outcome::Value(value) => panic!("{value:?}"),
    }
}

fn removed(out: &Out) -> Vec<&Path> {
    let removed = out.files.iter().filter_map(|work| match work {
        FileWork::Remove(path) => Some(path.as_path()),
        _ => None,
    });
    removed.collect()
}

#[test]
fn a_task_goes_out_and_its_value_comes_back() {
    let mut books = books();
    let out = submit(&mut books, FIRST, None, inline(), &[]);
    let [post] = &out.posts[..] else {
        panic!("{out:?}")
    };
    assert_eq!((post.number, &post.engine), (FIRST, &None));
    assert_eq!(post.buffers, [Bytes::from_static(&[1, 2])]);
    assert!(!books.is_idle() && books.next() == FIRST + 1);
    let out = replied(&mut books, FIRST, reply("ok", 1, OK));
    let [done] = &ends(&mut books, out)[..] else {
        panic!("one end")
    };
    assert_eq!(
        done.outcome,
        Outcome::Value(Piece::Inline(b"value".to_vec()))
    );
    assert_eq!((done.engine, done.submitted), (Some(1), 5.0));
    assert_eq!(done.completed - done.started, 0.75);
    assert!(books.is_idle());
    // Whatever comes then changes nothing.
    let out = replied(&mut books, FIRST, reply("ok", 1, OK));
    assert!(out.news.is_empty());
}

#[test]
fn direct_tasks_go_to_their_engine_or_fail_at_once() {
    let mut books = books();
    let out = submit(&mut books, FIRST, Some(1), inline(), &[]);
    assert_eq!(out.posts[0].engine.as_deref(), Some(&b"uuid1"[..]));
    let out = submit(&mut books, FIRST + 1, Some(7), file("x"), &[]);
    assert!(out.posts.is_empty());
    assert_eq!(removed(&out), [Path::new("/dev/shm/x")]);
    let done = ends(&mut books, out);
    assert_eq!(failed(&done[0]).kind, FailureKind::Engine);
    assert!(
        failed(&done[0])
            .evalue
            .contains("engine 7 (any more): there are 0, 1")
    );
}

#[test]
fn files_are_the_carriers_until_the_task_is_done() {
    let mut books = books();
    let out = submit(&mut books, FIRST, None, file("x"), &[]);
    let [FileWork::Rename { from, to }] = &out.files[..] else {
        panic!("{out:?}")
    };
    assert_eq!(from, Path::new("/dev/shm/x"));
    let pid = std::process::id();
    assert_eq!(
        to.to_str().unwrap(),
        format!("/dev/shm/chorus-piece-{pid}-noise-1")
    );
    let content = String::from_utf8_lossy(&out.posts[0].content).into_owned();
    assert!(content.contains(to.to_str().unwrap()), "{content}");
    let given = r#"{"status":"ok","file":{"path":"/dev/shm/answer","length":5000}}"#;
    let out = replied(&mut books, FIRST, reply("ok", 0, given));
    assert_eq!(removed(&out), [to.as_path()]);
    let [
        _,
        FileWork::Rename { to: answer, .. },
        FileWork::Link { from, to: link },
    ] = &out.files[..]
    else {
        panic!("{out:?}")
    };
    assert_eq!(answer, from);
    let (answer, link) = (answer.clone(), link.clone());
    let done = ends(&mut books, out);
    let path = |path| Outcome::Value(Piece::File { path, length: 5000 });
    assert_eq!(done[0].outcome, path(answer));
    // A copy of the program gets the other name.
    let resume = Resume {
        session: String::new(),
        open: vec![Span {
            first: FIRST,
            count: 1,
        }],
        shared: Vec::new(),
    };
    let mut out = Out::default();
    assert!(books.resume(&resume, &mut out).is_empty());
    let done = ends(&mut books, out);
    assert_eq!(done[0].outcome, path(link));
    let mut out = Out::default();
    books.settle(&mut out);
    assert_eq!(removed(&out).len(), 1, "the third name");
}

#[test]
fn shared_values_live_as_long_as_tasks_use_them() {
    let mut books = books();
    let mut out = Out::default();
    let from = Path::new(SHARED_MEMORY).join("made by the program");
    let long = Piece::File {
        path: from,
        length: 5000,
    };
    books.share(FIRST, long, &mut out);
    let [FileWork::Rename { to: path, .. }] = &out.files[..] else {
        panic!("{out:?}")
    };
    let path = path.clone();
    books.share(FIRST + 1, inline(), &mut Out::default());
    let out = submit(&mut books, FIRST + 2, None, inline(), &[FIRST, FIRST + 1]);
    let content: serde_json::Value = serde_json::from_slice(&out.posts[0].content).unwrap();
    let pieces = &content["chorus"]["pieces"];
    assert_eq!(
        (&pieces[1]["keep"], &pieces[2]["keep"]),
        (&FIRST.into(), &(FIRST + 1).into())
    );
    assert_eq!(pieces[1]["file"], path.to_str().unwrap());
    assert_eq!(out.posts[0].buffers.len(), 2);
    submit(
        &mut books,
        FIRST + 3,
        Some(0),
        Piece::Shared { id: FIRST },
        &[],
    );

    let mut out = Out::default();
    books.unshare(FIRST, &mut out);
    books.unshare(FIRST + 1, &mut out);
    assert!(out.files.is_empty());
    let out = replied(&mut books, FIRST + 2, reply("ok", 0, OK));
    assert!(out.files.is_empty());
    let out = replied(&mut books, FIRST + 3, reply("ok", 0, OK));
    assert_eq!(removed(&out), [path.as_path()]);
    let refused = books.open(0.0, &call(), vec![FIRST], &balanced(), None);
    assert_eq!(refused.unwrap_err().kind, FailureKind::Refused);
}

#[test]
fn a_large_file_is_kept_if_its_engines_are_done_with_it() {
    let large = |name: &str| Piece::File {
        path: format!("/dev/shm/{name}").into(),
        length: 2 << 20,
    };
    // Shared by two tasks of which the second goes to an engine, or to any, and ends like this.
    for (engine, status, kept) in [
        (Some(1), "ok", true),
        (Some(1), "error", false),
        (None, "ok", true),
        (None, "error", false),
    ] {
        let mut books = books();
        books.share(FIRST, large("shared"), &mut Out::default());
        let argument = || Piece::Shared { id: FIRST };
        submit(&mut books, FIRST + 1, Some(0), argument(), &[]);
        submit(&mut books, FIRST + 2, engine, argument(), &[]);
        books.unshare(FIRST, &mut Out::default());
        let out = replied(&mut books, FIRST + 2, reply(status, 1, OK));
        assert!(out.files.is_empty());
        let out = replied(&mut books, FIRST + 1, reply("ok", 0, OK));
        assert_eq!(out.files.len(), 1);
        assert_eq!(matches!(out.files[..], [FileWork::Keep(_)]), kept);
        assert_eq!(removed(&out).len(), usize::from(!kept));
    }
    let mut books = books();
    submit(&mut books, FIRST, Some(0), large("own"), &[]);
    submit(&mut books, FIRST + 1, Some(0), file("small"), &[]);
    let out = replied(&mut books, FIRST, reply("ok", 0, OK));
    assert!(matches!(out.files[..], [FileWork::Keep(_)]));
    let out = replied(&mut books, FIRST + 1, reply("ok", 0, OK));
    assert_eq!(removed(&out).len(), 1);
    // Nor may one from which a task was taken to be tried elsewhere.
    let again = Route::Balanced {
        targets: None,
        retries: 1,
        timeout: None,
        after: None,
        follow: None,
    };
    let group = books.open(5.0, &call(), Vec::new(), &again, None).unwrap();
    let retried = task(FIRST + 3, None, large("retried"));
    books.submit(&group, retried, &mut Out::default());
    let out = replied(&mut books, FIRST + 3, reply("ok", 0, OK));
    assert_eq!(removed(&out).len(), 1);
    // An engine that is lost may not be dead.
    submit(&mut books, FIRST + 2, Some(0), large("lost"), &[]);
    let mut out = Out::default();
    books.on_engines(engines(&[1]), &mut out);
    assert_eq!(removed(&out).len(), 1);
}

#[test]
fn arguments_can_be_stretches_of_a_file() {
    let mut books = books();
    let mut out = Out::default();
    let empty = Piece::File {
        path: "/dev/shm/written-later".into(),
        length: 0,
    };
    books.share(FIRST, empty, &mut out);
    let [FileWork::Rename { to, .. }] = &out.files[..] else {
        panic!("{out:?}")
    };
    let path = to.clone();
    let part = |start| Piece::Part {
        id: FIRST,
        start,
        length: 1 << 20,
    };
    for (id, start) in [(FIRST + 1, 0), (FIRST + 2, 1 << 20)] {
        let out = submit(&mut books, id, None, part(start), &[]);
        let content: serde_json::Value = serde_json::from_slice(&out.posts[0].content).unwrap();
        let piece = &content["chorus"]["pieces"][0];
        assert_eq!(piece["file"], path.to_str().unwrap());
        match start {
            0 => assert_eq!(piece["length"], 1 << 20),
            _ => assert_eq!(piece["stretch"], serde_json::json!([start, 1 << 20])),
        }
    }
    books.unshare(FIRST, &mut Out::default());
    let out = replied(&mut books, FIRST + 1, reply("ok", 0, OK));
    assert!(out.files.is_empty());
    // The file is as long as its stretches reach, so it is worth keeping.
    let out = replied(&mut books, FIRST + 2, reply("ok", 0, OK));
    assert_eq!(out.files, [FileWork::Keep(path)]);

    // Somebody may still write a file that is forgotten for other reasons.
    books.share(FIRST + 10, file("half-written"), &mut Out::default());
    submit(
        &mut books,
        FIRST + 11,
        None,
        Piece::Part {
            id: FIRST + 10,
            start: 0,
            length: 2 << 20,
        },
        &[],
    );
    assert!(
        replied(&mut books, FIRST + 11, reply("ok", 0, OK))
            .files
            .is_empty()
    );
    let mut out = Out::default();
    assert!(books.abandon(&mut out).is_empty());
    assert_eq!(removed(&out).len(), 1, "{out:?}");

    // What came in the message has no stretches, and snippets take none.
    books.share(FIRST + 3, inline(), &mut Out::default());
    let of = |id| Piece::Part {
        id,
        start: 0,
        length: 1,
    };
    for id in [FIRST, FIRST + 3] {
        let out = submit(&mut books, FIRST + 4, Some(0), of(id), &[]);
        assert!(out.posts.is_empty() && out.news.len() == 1, "{out:?}");
    }
    books.share(FIRST + 5, file("x"), &mut Out::default());
    let snippet = Work::Snippet {
        code: String::new(),
        takes: Some("x".to_owned()),
        gives: None,
    };
    let group = books.open(5.0, &snippet, Vec::new(), &Route::Direct, None);
    let mut out = Out::default();
    books.submit(
        &group.unwrap(),
        task(FIRST + 6, Some(0), of(FIRST + 5)),
        &mut out,
    );
    assert!(out.posts.is_empty() && out.news.len() == 1, "{out:?}");
}

#[test]
fn output_comes_before_the_end() {
    let mut books = books();
    submit(&mut books, FIRST, None, inline(), &[]);
    let mut printed = reply("ok", 1, OK);
    printed.metadata.printed = true;
    assert!(replied(&mut books, FIRST, printed.clone()).news.is_empty());
    let text = Output::Stream(protocol::message::iopub::Stream {
        name: protocol::message::iopub::StreamName::Stdout,
        text: "text".to_owned(),
    });
    let mut out = Out::default();
    let said = Posted::Output {
        number: FIRST,
        engine: "uuid1".to_owned(),
        output: text,
    };
    books.on_posted(11.0, said, &mut out);
    assert_eq!((out.shown[0].task, out.shown[0].engine), (FIRST, 1));
    let idle = |number, attempt| Posted::Idle { number, attempt };
    books.on_posted(11.0, idle(FIRST, 0), &mut out);
    assert_eq!(out.news.len(), 1);

    // That an earlier attempt showed nothing more says nothing of this one.
    submit(&mut books, FIRST + 2, None, inline(), &[]);
    let mut out = Out::default();
    books.on_posted(11.0, idle(FIRST + 2, 0), &mut out);
    let mut second = printed.clone();
    second.metadata.attempt = 1;
    assert!(
        replied(&mut books, FIRST + 2, second.clone())
            .news
            .is_empty()
    );
    books.on_posted(11.0, idle(FIRST + 2, 1), &mut out);
    assert_eq!(out.news.len(), 1);
    submit(&mut books, FIRST + 3, None, inline(), &[]);
    for attempt in [1, 0] {
        books.on_posted(11.0, idle(FIRST + 3, attempt), &mut out);
    }
    assert_eq!(replied(&mut books, FIRST + 3, second).news.len(), 1);

    // It is given up at last.
    submit(&mut books, FIRST + 1, None, inline(), &[]);
    replied(&mut books, FIRST + 1, printed);
    let until = books.deadline().unwrap();
    let mut out = Out::default();
    books.on_time(until - 0.1, &mut out);
    assert!(out.news.is_empty());
    books.on_time(until, &mut out);
    assert_eq!(out.news.len(), 1);
    assert!(books.deadline().is_none() && books.is_idle());
}

#[test]
fn panics_wait_for_their_place() {
    let mut books = books();
    submit(&mut books, FIRST, None, inline(), &[]);
    let content = r#"{"status":"error","ename":"panic","evalue":"no","traceback":["t"],"location":{"file":"a/b.rs","line":3,"column":1}}"#;
    let out = replied(&mut books, FIRST, reply("error", 1, content));
    assert!(out.news.is_empty() && !books.is_idle());
    assert_eq!(out.places, [(FIRST, "a/b.rs".to_owned(), 3)]);
    let place = Place {
        file: "In[2]".to_owned(),
        line: 1,
        text: None,
    };
    let mut out = Out::default();
    books.on_place(FIRST, Some(place.clone()), &mut out);
    let done = ends(&mut books, out);
    let failure = failed(&done[0]);
    assert_eq!(
        (failure.kind, &failure.place),
        (FailureKind::Panic, &Some(place))
    );
    assert!(books.is_idle());
}

#[test]
fn failures_by_name() {
    let kinds = [
        ("EngineError", FailureKind::Engine),
        ("TaskTimeout", FailureKind::Timeout),
        ("ImpossibleDependency", FailureKind::Dependency),
        ("QueueFull", FailureKind::Refused),
        ("SIGSEGV", FailureKind::Error),
    ];
    for (ename, kind) in kinds {
        let mut books = books();
        submit(&mut books, FIRST, None, inline(), &[]);
        let content =
            format!(r#"{{"status":"error","ename":"{ename}","evalue":"why","engine_info":{{}}}}"#);
        let out = replied(&mut books, FIRST, reply("error", 1, &content));
        let done = ends(&mut books, out);
        assert_eq!(failed(&done[0]).kind, kind, "{ename}");
        assert_eq!(done[0].engine, Some(1));
    }
    let mut books = books();
    submit(&mut books, FIRST, None, inline(), &[]);
    let out = replied(
        &mut books,
        FIRST,
        reply("aborted", 1, r#"{"status":"aborted"}"#),
    );
    assert_eq!(failed(&ends(&mut books, out)[0]).kind, FailureKind::Aborted);
}

#[test]
fn an_engine_that_goes_takes_its_direct_tasks() {
    let mut books = books();
    submit(&mut books, FIRST, Some(0), file("x"), &[]);
    submit(&mut books, FIRST + 1, Some(1), inline(), &[]);
    submit(&mut books, FIRST + 2, None, inline(), &[]);
    let mut out = Out::default();
    books.on_engines(engines(&[1, 2]), &mut out);
    assert_eq!(removed(&out).len(), 1);
    let done = ends(&mut books, out);
    let [lost] = &done[..] else {
        panic!("{done:?}")
    };
    assert_eq!((lost.id, failed(lost).kind), (FIRST, FailureKind::Engine));
    assert!(failed(lost).evalue.starts_with("engine 0 died"), "{lost:?}");
    assert_eq!(
        books.open_tasks(None),
        [(FIRST + 1, Some(1)), (FIRST + 2, None)]
    );
}

#[test]
fn a_copy_is_told_all_it_asks_for() {
    let mut books = books();
    for id in 0..5 {
        submit(&mut books, FIRST + id, None, inline(), &[]);
    }
    books.share(FIRST + 5, inline(), &mut Out::default());
    books.share(FIRST + 6, inline(), &mut Out::default());
    for id in [0, 1] {
        let out = replied(&mut books, FIRST + id, reply("ok", 0, OK));
        ends(&mut books, out);
    }
    // The copy knows of 0 and 2 and 90; 1 is not open for it, 3 and 4 came after it was made.
    let span = |first| Span {
        first: FIRST + first,
        count: 1,
    };
    let resume = Resume {
        session: String::new(),
        open: vec![span(0), span(2), span(90)],
        shared: vec![FIRST + 5],
    };
    let mut out = Out::default();
    let unknown = books.resume(&resume, &mut out);
    assert_eq!(unknown, [(FIRST + 3, None), (FIRST + 4, None)]);
    let done = ends(&mut books, out);
    assert_eq!(
        done.iter().map(|done| done.id - FIRST).collect::<Vec<_>>(),
        [0, 90]
    );
    assert!(matches!(done[0].outcome, Outcome::Value(_)));
    assert_eq!(failed(&done[1]).kind, FailureKind::Lost);
    assert_eq!(books.next(), FIRST + 91);
    assert!(books.shared.contains_key(&(FIRST + 5)) && !books.shared.contains_key(&(FIRST + 6)));
    // Those that nobody knows end quietly, the other is told.
    let out = replied(&mut books, FIRST + 3, reply("ok", 0, OK));
    assert!(out.news.is_empty());
    let out = replied(&mut books, FIRST + 2, reply("ok", 0, OK));
    assert_eq!(ends(&mut books, out).len(), 1);
    // And nothing is left when nobody comes any more.
    let open = books.abandon(&mut Out::default());
    assert_eq!(open, [(FIRST + 4, None)]);
    let out = replied(&mut books, FIRST + 4, reply("ok", 0, OK));
    assert!(out.news.is_empty() && books.is_idle());
}

#[test]
fn what_belongs_to_a_cell() {
    let mut books = books();
    books.begin(1);
    submit(&mut books, FIRST, None, inline(), &[]);
    books.begin(2);
    submit(&mut books, FIRST + 1, Some(1), inline(), &[]);
    submit(&mut books, FIRST + 2, None, inline(), &[]);
    assert_eq!(
        books.open_of_this_cell(),
        [(FIRST + 1, Some(1)), (FIRST + 2, None)]
    );
    books.begin(3);
    assert!(books.open_of_this_cell().is_empty());
    let some = [Span {
        first: FIRST,
        count: u64::MAX,
    }];
    assert_eq!(books.open_tasks(Some(&some)).len(), 3);
    let out = replied(&mut books, FIRST + 1, reply("ok", 1, OK));
    ends(&mut books, out);
    assert_eq!(books.ended_tasks(None), [FIRST + 1]);
}

#[test]
fn nothing_is_left_at_the_end() {
    let mut books = books();
    books.share(FIRST, file("s"), &mut Out::default());
    submit(&mut books, FIRST + 1, None, file("a"), &[FIRST]);
    submit(&mut books, FIRST + 2, None, inline(), &[]);
    let given = r#"{"status":"ok","file":{"path":"/dev/shm/answer","length":5000}}"#;
    let out = replied(&mut books, FIRST + 2, reply("ok", 0, given));
    ends(&mut books, out);
    let mut out = Out::default();
    books.close(&mut out);
    assert_eq!(
        removed(&out).len(),
        3,
        "an argument, a shared value, a kept value"
    );
}

#[test]
fn what_failed_in_part_is_a_value() {
    let mut books = books();
    let content =
        r#"{"status":"error","ename":"panic","evalue":"some","traceback":[],"partly":true}"#;
    submit(&mut books, FIRST, None, inline(), &[]);
    let out = replied(&mut books, FIRST, reply("error", 1, content));
    let done = ends(&mut books, out);
    let value = Outcome::Value(Piece::Inline(b"value".to_vec()));
    assert_eq!(done[0].outcome, value);

    // In a file; and its argument's file has been read, and may be written over.
    let argument = Piece::File {
        path: Path::new(SHARED_MEMORY).join("argument"),
        length: *SPARE.start(),
    };
    submit(&mut books, FIRST + 1, None, argument, &[]);
    let content = r#"{"status":"error","ename":"panic","evalue":"some","traceback":[],"partly":true,"file":{"path":"/dev/shm/result","length":9}}"#;
    let out = replied(&mut books, FIRST + 1, reply("error", 1, content));
    let kept = |work: &FileWork| matches!(work, FileWork::Keep(_));
    assert!(out.files.iter().any(kept), "{out:?}");
    let done = ends(&mut books, out);
    assert!(matches!(
        &done[0].outcome,
        Outcome::Value(Piece::File { length: 9, .. })
    ));
    assert!(books.is_idle());
}

#[test]
fn a_file_that_is_not_in_memory_stays_where_it_is() {
    let mut books = books();
    let mut out = Out::default();
    let path = PathBuf::from("/tmp/elsewhere");
    let elsewhere = Piece::File {
        path: path.clone(),
        length: 5000,
    };
    books.share(FIRST, elsewhere, &mut out);
    books.unshare(FIRST, &mut out);
    assert_eq!(out.files, [FileWork::Remove(path)]);
}
