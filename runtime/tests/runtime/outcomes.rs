//! How a run ends, when it takes nothing with it.

use runtime::{Outcome, Panic};

use crate::support::{Namespace, artifact, cell_with};

#[tokio::test]
async fn variables_pass_from_cell_to_cell() {
    let mut namespace = Namespace::start().await;
    namespace.fill().await;
    namespace.assert_filled().await;
    namespace.assert_filled().await;
    let ran = namespace
        .good(r#"store.put_variable("rc", std::rc::Rc::new(5)); store.put_variable("x", 1_u8);"#)
        .await;
    assert_eq!((ran.stdout.as_str(), ran.stderr.as_str()), ("", ""));
    let ran = namespace
        .good(r#"println!("{}", store.take_variable::<std::rc::Rc<i32>>("rc"))"#)
        .await;
    assert_eq!(ran.stdout, "5\n");
    namespace.runtime.shutdown().await;
    assert_eq!(namespace.events.recv().await, None);
}

#[tokio::test]
async fn results_are_debug_texts() {
    let mut namespace = Namespace::start().await;
    for (expression, expected) in [
        ("vec![1, 2]", Some("[1, 2]")),
        ("()", None),
        (r#""a\nb""#, Some(r#""a\nb""#)),
        (r#"*"unsized""#, Some(r#""unsized""#)),
        ("Some(())", Some("Some(())")),
    ] {
        let ran = namespace
            .good(&format!(
                "fn show<T: std::fmt::Debug + ?Sized>(value: &T) {{ display(&value, std::any::type_name::<T>()) }} show(&{expression});"
            ))
            .await;
        let expected: Vec<String> = expected.into_iter().map(str::to_owned).collect();
        assert_eq!(ran.results, expected, "{expression}");
    }
    let ran = namespace
        .good(r#"send_text_plain(&"0123456789".repeat(10_000_000))"#)
        .await;
    let [text] = &ran.results[..] else {
        panic!("one result");
    };
    assert_eq!(text.len(), 100_000_000);
    assert!(text.as_bytes().chunks(10).all(|ten| ten == b"0123456789"));
}

fn panic_of(outcome: Outcome) -> Panic {
    match outcome {
        Outcome::Panicked(panic) => panic,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_panic_has_message_place_and_frames() {
    let mut namespace = Namespace::start().await;
    namespace.fill().await;
    let cell = cell_with(
        "#[inline(never)] fn inner(v: &[i32], i: usize) -> i32 { v[i] }\n#[inline(never)] fn outer() -> i32 { inner(&[1], 3) + 1 }",
        "println!(\"{}\", outer())",
    );
    let run = namespace.send(cell);
    let ran = namespace.finish(run).await;
    let panic = panic_of(ran.outcome);
    assert_eq!(
        panic.message,
        "index out of bounds: the len is 1 but the index is 3"
    );
    let place = panic.location.unwrap();
    assert_eq!(
        (place.file.as_str(), place.line, place.column),
        ("src.rs", 6, 57)
    );
    let [inner, outer, ..] = &panic.frames[..] else {
        panic!("{:?}", panic.frames);
    };
    assert!(
        inner.function == "ctx::inner"
            && inner
                .location
                .as_ref()
                .is_some_and(|location| location.file.ends_with("src.rs") && location.line == 6),
        "{inner:?}"
    );
    assert!(
        outer.function == "ctx::outer"
            && outer
                .location
                .as_ref()
                .is_some_and(|location| location.file.ends_with("src.rs") && location.line == 7),
        "{outer:?}"
    );
    assert!(
        panic
            .frames
            .iter()
            .all(|frame| frame.function.contains("ctx::")),
        "{:?}",
        panic.frames
    );
    assert_eq!((ran.stdout.as_str(), ran.stderr.as_str()), ("", ""));
    namespace.assert_filled().await;
}

#[tokio::test]
async fn panics_that_are_no_error_are_printed_as_std_does() {
    let mut namespace = Namespace::start().await;
    let ran = namespace
        .good(
            "let _ = std::panic::catch_unwind(|| panic!(\"one\"));
             let _ = std::panic::catch_unwind(|| panic!(\"two\"));",
        )
        .await;
    let one = ran
        .stderr
        .find("thread 'main' panicked at src.rs:")
        .unwrap();
    assert!(ran.stderr[one..].contains(":\none\n"), "{}", ran.stderr);
    assert!(ran.stderr.contains(":\ntwo\n"), "{}", ran.stderr);
    let ran = namespace
        .good(
            "let thread = std::thread::Builder::new().name(\"w\".into());
             let _ = thread.spawn(|| panic!(\"in {}\", \"thread\")).unwrap().join();",
        )
        .await;
    assert!(
        ran.stderr.contains("thread 'w' panicked at src.rs:"),
        "{}",
        ran.stderr
    );
    assert!(ran.stderr.contains(":\nin thread\n"), "{}", ran.stderr);
}

#[tokio::test]
async fn a_panic_that_was_resumed_is_the_thread_s() {
    let mut namespace = Namespace::start().await;
    let ran = namespace
        .run(
            "if let Err(payload) = std::thread::spawn(|| panic!(\"far away\")).join() {
                 std::panic::resume_unwind(payload);
             }",
        )
        .await;
    assert_eq!(panic_of(ran.outcome).message, "far away");
    let ran = namespace
        .run("std::panic::resume_unwind(Box::new(3));")
        .await;
    assert_eq!(panic_of(ran.outcome).location, None);
    let ran = namespace.run("std::panic::panic_any(3);").await;
    assert_eq!(panic_of(ran.outcome).message, "Box<dyn Any>");
}

#[tokio::test]
async fn an_early_return_has_its_text() {
    let mut namespace = Namespace::start().await;
    let ran = namespace
        .run("println!(\"before\"); error_returned(\"no such number: ä\");")
        .await;
    let error = "no such number: ä".to_owned();
    assert_eq!(ran.outcome, Outcome::Returned { error });
    assert_eq!(ran.stdout, "before\n");
}

#[tokio::test]
async fn changed_types_are_named() {
    let mut namespace = Namespace::start().await;
    namespace.fill().await;
    let ran = namespace
        .run(
            r#"let mut ok = store.check_variable::<i32>("x");
               ok &= store.check_variable::<i32>("v");
               ok &= store.check_variable::<i32>("unknown");
               if !ok { return; }
               unreachable!();"#,
        )
        .await;
    let variables = vec!["x".to_owned(), "v".to_owned()];
    assert_eq!(ran.outcome, Outcome::TypesChanged { variables });
    namespace.assert_filled().await;
}

#[tokio::test]
async fn a_missing_variable_is_a_panic() {
    let mut namespace = Namespace::start().await;
    let ran = namespace
        .run(r#"store.take_variable::<i32>("gone");"#)
        .await;
    assert_eq!(
        panic_of(ran.outcome).message,
        "variable `gone` has gone missing"
    );
    // Outside of the cell's catch_unwind, as generated code does it, it aborts; the reason is told.
    let run = namespace.send(artifact(
        "use chorus_support::*;
         #[unsafe(no_mangle)] pub extern \"C\" fn run(store: *mut VariableStore) -> *mut VariableStore {
             unsafe { (*store).take_variable::<i32>(\"gone\") }; store }",
    ));
    let ran = namespace.finish(run).await;
    assert!(matches!(ran.outcome, Outcome::Died { .. }), "{ran:?}");
    assert!(
        ran.stderr.contains("variable `gone` has gone missing"),
        "{ran:?}"
    );
}

#[tokio::test]
async fn what_cannot_be_loaded_is_told() {
    let mut namespace = Namespace::start().await;
    namespace.fill().await;
    let text = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(text.path(), "no shared object").unwrap();
    let run = namespace.send(text.path().to_owned());
    let ran = namespace.finish(run).await;
    let Outcome::LoadFailed { error } = ran.outcome else {
        panic!("{ran:?}");
    };
    assert!(error.contains(text.path().to_str().unwrap()), "{error}");
    let run = namespace.send(artifact(
        "#[unsafe(no_mangle)] pub extern \"C\" fn other() {}",
    ));
    let ran = namespace.finish(run).await;
    let Outcome::LoadFailed { error } = ran.outcome else {
        panic!("{ran:?}");
    };
    assert!(error.contains("run"), "{error}");
    namespace.assert_filled().await;
}

#[tokio::test]
async fn a_cell_that_ends_tells_its_cpu_time() {
    let mut namespace = Namespace::start().await;
    let idle = namespace
        .good("std::thread::sleep(std::time::Duration::from_millis(60));")
        .await;
    let busy = namespace
        .good("let start = std::time::Instant::now(); while start.elapsed().as_millis() < 300 {}")
        .await;
    let died = namespace.run("std::process::abort()").await;
    let (idle, busy) = (idle.cpu.unwrap(), busy.cpu.unwrap());
    // Others may have had the processor for a part of that time.
    assert!(idle < busy / 2, "{idle:?} {busy:?}");
    assert_eq!(died.cpu, None);
}
