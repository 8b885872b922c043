//! A cell that dies takes nothing with it.

use std::time::Instant;

use runtime::{Cause, CheckpointState, Event, Outcome, Restored, RunId, WhyNot};

use crate::support::{ALL_RESTORED, FILL, Namespace, cell, config};

async fn dies(body: &str, expected: Cause) {
    let mut namespace = Namespace::start().await;
    namespace.fill().await;
    // Twice: the copy that took over makes copies in its turn.
    for _ in 0..2 {
        let ran = namespace
            .run(&format!(
                "println!(\"before\");
                 store.put_variable(\"x\", \"changed\".to_owned());
                 store.take_variable::<Vec<u64>>(\"v\");
                 {body}"
            ))
            .await;
        let restored = ALL_RESTORED;
        assert_eq!(
            ran.outcome,
            Outcome::Died {
                cause: expected,
                restored
            },
            "{}",
            ran.stderr
        );
        assert_eq!(ran.checkpoint, Some(CheckpointState::Taken));
        assert_eq!(ran.stdout, "before\n");
        namespace.assert_filled().await;
    }
    namespace.runtime.shutdown().await;
}

#[tokio::test]
async fn segmentation_fault() {
    dies(
        "unsafe { *(8 as *mut u8) = 1; }",
        Cause::Signal(11, "SIGSEGV"),
    )
    .await;
}

#[tokio::test]
async fn abort() {
    dies("std::process::abort();", Cause::Signal(6, "SIGABRT")).await;
}

#[tokio::test]
async fn exit() {
    dies("std::process::exit(3);", Cause::Exited(3)).await;
    dies("print!(\"\"); std::process::exit(0);", Cause::Exited(0)).await;
}

#[tokio::test]
async fn stack_overflow() {
    dies(
        "fn deep(n: u64) -> u64 { let a = [n; 100]; std::hint::black_box(&a); deep(n + 1) + a[3] }
         println!(\"{}\", deep(0));",
        Cause::StackOverflow,
    )
    .await;
}

#[tokio::test]
async fn killed_from_outside() {
    dies(
        "unsafe extern \"C\" { fn kill(pid: i32, signal: i32) -> i32; }
         unsafe { kill(std::process::id() as i32, 9) };
         loop { std::thread::park(); }",
        Cause::Signal(9, "SIGKILL"),
    )
    .await;
}

#[tokio::test]
async fn a_signal_to_the_whole_group_spares_copy_and_supervisor() {
    dies(
        "unsafe extern \"C\" { fn kill(pid: i32, signal: i32) -> i32; }
         unsafe { kill(0, 15) };
         loop { std::thread::park(); }",
        Cause::Signal(15, "SIGTERM"),
    )
    .await;
}

#[tokio::test]
async fn deep_recursion_has_room() {
    let mut namespace = Namespace::start().await;
    let ran = namespace
        .good(
            "fn deep(n: u64) -> u64 { let a = [n; 100]; std::hint::black_box(&a); if n == 0 { 0 } else { deep(n - 1) + a[3] } }
             println!(\"{}\", deep(100_000) > 0);",
        )
        .await;
    assert_eq!(ran.stdout, "true\n");
}

/// The time from the call to the event that says it is over.
async fn interrupt(namespace: &mut Namespace, body: &str) -> u128 {
    let run = namespace.send(cell(&format!("println!(\"begun\"); {body}")));
    loop {
        if let Event::Output { bytes, .. } = namespace.event().await {
            assert_eq!(&bytes[..], b"begun\n");
            break;
        }
    }
    let since = Instant::now();
    namespace.runtime.interrupt(run);
    let ran = namespace.finish(run).await;
    let elapsed = since.elapsed().as_millis();
    let restored = ALL_RESTORED;
    assert_eq!(ran.outcome, Outcome::Interrupted { restored });
    elapsed
}

#[tokio::test]
async fn interrupts_are_quick_and_lose_nothing() {
    let mut namespace = Namespace::start().await;
    namespace.fill().await;
    let small = interrupt(&mut namespace, "loop { std::hint::black_box(1); }").await;
    assert!(small < 200, "{small} ms");
    namespace.assert_filled().await;
    let ran = namespace
        .good("store.put_variable(\"big\", vec![7_u8; 200_000_000]);")
        .await;
    assert_eq!(ran.stderr, "");
    let large = interrupt(
        &mut namespace,
        "let mut big: Vec<u8> = store.take_variable(\"big\");
         for byte in big.iter_mut().step_by(4096).take(10_000) { *byte = 0; }
         loop { std::thread::sleep(Duration::from_secs(1)); }",
    )
    .await;
    assert!(large < 200, "{large} ms");
    let ran = namespace
        .good("println!(\"{}\", store.take_variable::<Vec<u8>>(\"big\").iter().all(|b| *b == 7));")
        .await;
    assert_eq!(ran.stdout, "true\n");
    namespace.assert_filled().await;
}

#[tokio::test]
async fn an_interrupt_that_comes_before_or_after_does_no_harm() {
    let mut namespace = Namespace::start().await;
    namespace.fill().await;
    let quick = cell("");
    for round in 0..50 {
        let run = namespace.send(quick.clone());
        // Now and then later, so that every moment is met.
        if round % 2 == 0 {
            loop {
                if matches!(namespace.event().await, Event::Started { .. }) {
                    break;
                }
            }
        }
        namespace.runtime.interrupt(run);
        let ran = namespace.finish(run).await;
        let restored = ALL_RESTORED;
        assert!(
            ran.outcome == Outcome::Completed || ran.outcome == Outcome::Interrupted { restored },
            "{ran:?}"
        );
        namespace.runtime.interrupt(run);
    }
    namespace.assert_filled().await;
}

#[tokio::test]
async fn what_waits_can_be_interrupted_and_ends_in_order() {
    let mut namespace = Namespace::start().await;
    let endless = namespace.send(cell("loop { std::thread::park(); }"));
    let [second, third] = [namespace.send(cell("")), namespace.send(cell(""))];
    namespace.runtime.interrupt(second);
    namespace.runtime.interrupt(endless);
    let mut ended = Vec::new();
    while ended.len() < 3 {
        if let Event::Finished { id, outcome } = namespace.event().await {
            ended.push((id, outcome));
        }
    }
    let restored = ALL_RESTORED;
    let interrupted = Outcome::Interrupted { restored };
    assert_eq!(
        ended,
        [
            (endless, interrupted.clone()),
            (second, interrupted),
            (third, Outcome::Completed)
        ]
    );
}

#[tokio::test]
async fn lost_threads_and_tokio_are_told() {
    let mut namespace = Namespace::start().await;
    namespace.fill().await;
    namespace
        .good(
            "for _ in 0..3 { std::thread::spawn(|| loop { std::thread::park(); }); }
             struct Tokio; impl Drop for Tokio { fn drop(&mut self) { println!(\"dropped\"); } }
             store.lazy_arc(\"evcxr_tokio_runtime\", || std::sync::Mutex::new(Tokio));",
        )
        .await;
    let ran = namespace.run("std::process::abort();").await;
    let restored = Restored {
        threads_lost: 3,
        tokio_lost: true,
        ..ALL_RESTORED
    };
    assert_eq!(
        ran.outcome,
        Outcome::Died {
            cause: Cause::Signal(6, "SIGABRT"),
            restored
        }
    );
    let ran = namespace
        .good("println!(\"{}\", store.lazy_arc(\"evcxr_tokio_runtime\", || 5_i32));")
        .await;
    assert_eq!(ran.stdout, "5\n");
    let ran = namespace.run("std::process::abort();").await;
    let restored = Restored {
        tokio_lost: true,
        ..ALL_RESTORED
    };
    assert_eq!(
        ran.outcome,
        Outcome::Died {
            cause: Cause::Signal(6, "SIGABRT"),
            restored
        }
    );
    namespace.assert_filled().await;
}

#[tokio::test]
async fn without_a_checkpoint_the_loss_is_told() {
    let mut namespace = Namespace::start().await;
    namespace.fill().await;
    for (on, limit, expected) in [(false, u64::MAX, "off"), (true, 1, "large")] {
        namespace.runtime.set_checkpoint(on, limit);
        let ran = namespace.run("std::process::exit(4);").await;
        let Outcome::Died {
            cause: Cause::Exited(4),
            restored,
        } = ran.outcome
        else {
            panic!("{ran:?}");
        };
        assert!(!restored.variables);
        match (expected, ran.checkpoint, restored.why_not) {
            ("off", Some(CheckpointState::Off), Some(WhyNot::CheckpointOff)) => {}
            (
                "large",
                Some(CheckpointState::TooLarge { bytes, limit: 1 }),
                Some(WhyNot::TooLarge { limit: 1, .. }),
            ) => assert!(bytes > 1_000_000),
            other => panic!("{other:?}"),
        }
        let ran = namespace
            .good("println!(\"{}\", store.check_variable::<u8>(\"x\"));")
            .await;
        assert_eq!(ran.stdout, "true\n", "the namespace is empty");
    }
}

#[tokio::test]
async fn a_death_between_runs_is_told() {
    let mut namespace = Namespace::start().await;
    namespace.fill().await;
    namespace
        .good("std::thread::spawn(|| { std::thread::sleep(Duration::from_millis(50)); std::process::abort(); });")
        .await;
    assert_eq!(
        namespace.event().await,
        Event::Lost {
            cause: Cause::Signal(6, "SIGABRT"),
            restored: Restored {
                variables: false,
                why_not: Some(WhyNot::BetweenRuns),
                ..ALL_RESTORED
            }
        }
    );
    namespace.fill().await;
    namespace.assert_filled().await;
}

#[tokio::test]
async fn a_copy_that_dies_too_is_told() {
    let mut namespace = Namespace::start().await;
    namespace.fill().await;
    let ran = namespace
        .run(
            "unsafe extern \"C\" { fn kill(pid: i32, signal: i32) -> i32; }
             let children = std::fs::read_to_string(format!(\"/proc/self/task/{}/children\", std::process::id())).unwrap();
             for child in children.split_whitespace() { unsafe { kill(child.parse().unwrap(), 9) }; }
             std::process::abort();",
        )
        .await;
    let Outcome::Died { cause, restored } = ran.outcome else {
        panic!("{ran:?}");
    };
    assert_eq!(cause, Cause::Signal(6, "SIGABRT"));
    assert_eq!(restored.why_not, Some(WhyNot::CopyDied));
    namespace.fill().await;
    namespace.assert_filled().await;
}

#[tokio::test]
async fn a_restart_empties_the_namespace() {
    let mut namespace = Namespace::start().await;
    namespace.fill().await;
    let going = namespace.send(cell("println!(\"going\"); loop { std::thread::park(); }"));
    let waiting = namespace.send(cell(FILL));
    loop {
        if matches!(namespace.event().await, Event::Output { .. }) {
            break;
        }
    }
    namespace.runtime.restart().await;
    for run in [going, waiting] {
        let ran = namespace.finish(run).await;
        let Outcome::Interrupted { restored } = ran.outcome else {
            panic!("{ran:?}");
        };
        assert_eq!(restored.why_not, Some(WhyNot::Restarted));
    }
    let ran = namespace
        .good("println!(\"{}\", store.check_variable::<u8>(\"x\"));")
        .await;
    assert_eq!(ran.stdout, "true\n");
    namespace.runtime.shutdown().await;
    namespace.runtime.run(runtime::Snippet {
        id: RunId(99),
        artifact: cell(""),
        entry: "run".to_owned(),
        checkpoint: true,
    });
}

#[tokio::test]
async fn a_killed_supervisor_is_replaced() {
    let mut namespace = Namespace::start().await;
    namespace.fill().await;
    let ran = namespace
        .run(
            "unsafe extern \"C\" { fn kill(pid: i32, signal: i32) -> i32; }
             unsafe { kill(std::os::unix::process::parent_id() as i32, 9) };
             loop { std::thread::park(); }",
        )
        .await;
    let Outcome::Died { cause, restored } = ran.outcome else {
        panic!("{ran:?}");
    };
    assert_eq!((cause, restored.variables), (Cause::SupervisorGone, false));
    namespace.fill().await;
    namespace.assert_filled().await;
}

#[tokio::test]
async fn a_runtime_that_cannot_load_its_library_says_so() {
    let mut config = config();
    config.support = Some("/nonexistent/libchorus_support.so".into());
    let error = runtime::Runtime::start(config).await.unwrap_err();
    let runtime::RuntimeError::Support { reason } = error else {
        panic!("{error:?}");
    };
    assert!(
        reason.contains("/nonexistent/libchorus_support.so"),
        "{reason}"
    );
}
