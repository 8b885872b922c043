//! Output is exact, and complete when a run ends.

use runtime::{Event, Outcome, Stream};

use crate::support::{Namespace, cell};

#[tokio::test]
async fn ten_megabytes_in_one_line() {
    let mut namespace = Namespace::start().await;
    let ran = namespace
        .good("print!(\"{}\", \"0123456789\".repeat(1_000_000));")
        .await;
    assert_eq!(ran.stdout.len(), 10_000_000);
    assert!(
        ran.stdout
            .as_bytes()
            .chunks(10)
            .all(|ten| ten == b"0123456789")
    );
}

#[tokio::test]
async fn a_hundred_thousand_lines() {
    let mut namespace = Namespace::start().await;
    let ran = namespace
        .good("for i in 0..100_000 { println!(\"line {i}\"); eprintln!(\"error {i}\"); }")
        .await;
    for (text, word) in [(&ran.stdout, "line"), (&ran.stderr, "error")] {
        let mut expected = 0;
        for line in text.lines() {
            assert_eq!(line, format!("{word} {expected}"));
            expected += 1;
        }
        assert_eq!(expected, 100_000);
    }
}

#[tokio::test]
async fn text_without_newline_belongs_to_its_own_run() {
    let mut namespace = Namespace::start().await;
    for text in [
        "abc",
        "ä",
        "EVCXR_PANIC_NOTIFICATION",
        "EVCXR_INPUT_REQUEST:x",
    ] {
        let ran = namespace.good(&format!("print!({text:?});")).await;
        assert_eq!(ran.stdout, text);
    }
    let ran = namespace
        .good("unsafe extern \"C\" { fn printf(format: *const u8) -> i32; } unsafe { printf(b\"from C\\0\".as_ptr()) };")
        .await;
    assert_eq!(ran.stdout, "from C");
}

#[tokio::test]
async fn what_was_written_before_death_is_there() {
    let mut namespace = Namespace::start().await;
    let ran = namespace
        .run(
            "for i in 0..20_000 { println!(\"{i}\"); }
             eprint!(\"last words\");
             unsafe { *(8 as *mut u8) = 1; }",
        )
        .await;
    assert!(matches!(ran.outcome, Outcome::Died { .. }));
    assert_eq!(ran.stdout.lines().count(), 20_000);
    assert_eq!(ran.stderr, "last words");
    let ran = namespace
        .run("print!(\"no newline\"); std::process::exit(0);")
        .await;
    assert_eq!(ran.stdout, "no newline");
}

#[tokio::test]
async fn stdout_and_stderr_come_in_turn() {
    let mut namespace = Namespace::start().await;
    // The pauses are the cell's: as far as two pipes can tell, there is no order without them.
    let run = namespace.send(cell(
        "for i in 0..5 {
             println!(\"out {i}\"); std::thread::sleep(Duration::from_millis(40));
             eprintln!(\"err {i}\"); std::thread::sleep(Duration::from_millis(40));
         }",
    ));
    let mut order = Vec::new();
    loop {
        match namespace.event().await {
            Event::Output { stream, .. } => order.push(stream),
            Event::Finished { id, .. } if id == run => break,
            _ => {}
        }
    }
    // `eprintln!` writes its pieces one by one.
    order.dedup();
    assert_eq!(order, [Stream::Stdout, Stream::Stderr].repeat(5));
}

#[tokio::test]
async fn output_comes_while_the_cell_runs() {
    let mut namespace = Namespace::start().await;
    let run = namespace.send(cell("println!(\"first\"); loop { std::thread::park(); }"));
    loop {
        if let Event::Output { bytes, .. } = namespace.event().await {
            assert_eq!(&bytes[..], b"first\n");
            break;
        }
    }
    namespace.runtime.interrupt(run);
    namespace.finish(run).await;
}

#[tokio::test]
async fn threads_go_on_printing_after_the_run() {
    let mut namespace = Namespace::start().await;
    let ran = namespace
        .good("std::thread::spawn(|| for i in 0..2000 { println!(\"{i:01000}\"); std::thread::yield_now(); });")
        .await;
    let mut length = ran.stdout.len();
    // 2000 lines of 1001 bytes: more than a pipe holds, so the thread would block if nobody read.
    while length < 2_002_000 {
        match namespace.event().await {
            Event::Output { bytes, .. } => length += bytes.len(),
            other => panic!("{other:?}"),
        }
        if length > 1_000_000 && namespace.last == 1 {
            // Another run in between gets what is printed meanwhile.
            length += namespace.good("").await.stdout.len();
        }
    }
    assert_eq!(length, 2_002_000);
}

#[tokio::test]
async fn an_endless_writer_is_slowed_and_can_be_interrupted() {
    let mut namespace = Namespace::start().await;
    let run = namespace.send(cell(
        "let line = \"x\".repeat(1000); loop { println!(\"{line}\"); }",
    ));
    let mut held = Vec::new();
    let mut bytes_held = 0;
    // Nothing is dropped, so reading stops at the budget of 64 MB and no event comes any more.
    while let Ok(Some(event)) = tokio::time::timeout(
        std::time::Duration::from_millis(500),
        namespace.events.recv(),
    )
    .await
    {
        if let Event::Output { bytes, .. } = event {
            bytes_held += bytes.len();
            held.push(bytes);
        }
    }
    assert!(
        (60_000_000..70_000_000).contains(&bytes_held),
        "{bytes_held}"
    );
    namespace.runtime.interrupt(run);
    let ran = namespace.finish(run).await;
    assert!(matches!(ran.outcome, Outcome::Interrupted { .. }));
    drop(held);
    namespace.good("println!();").await;
}
