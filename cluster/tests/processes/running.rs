//! Snippets on engines: output, results, errors, deaths.

use std::time::Instant;

use cluster::{launcher, query};
use serde_json::json;

use crate::client::{Client, PATIENCE};
use crate::options;

#[tokio::test(flavor = "multi_thread")]
async fn snippets_run_and_namespaces_outlive_what_goes_wrong() {
    let root = tempfile::tempdir().unwrap();
    let cluster = launcher::start(options(&root, 2)).await.unwrap();
    let mut client = Client::connect(&cluster.files().client);
    let (one, two) = (client.engine(0).await, client.engine(1).await);

    let ran = client.run(&one, "print!(\"no newline\"); 6 * 7").await;
    assert_eq!(
        (ran.stdout.as_str(), ran.result.as_deref()),
        ("no newline", Some("42"))
    );
    assert_eq!(ran.content["status"], "ok");

    // Engines diverge, and what is true on one is not on the other.
    client.run(&one, "store.put_variable(\"x\", 5_i32);").await;
    let look = "({ let x: i32 = store.take_variable(\"x\"); store.put_variable(\"x\", x); x })";
    assert_eq!(client.run(&one, look).await.result.as_deref(), Some("5"));
    let ran = client.run(&two, look).await;
    assert_eq!(ran.content["ename"], "panic");

    for (code, ename) in [
        ("panic!(\"boom\");", "panic"),
        ("let x: u8 = \"text\";", "compile error"),
        ("std::process::abort();", "SIGABRT"),
        ("std::process::exit(3);", "exit"),
        (
            "fn f(n: u64) -> u64 { std::hint::black_box(f(n + 1)) + 1 } f(0);",
            "stack overflow",
        ),
        (
            "unsafe { std::ptr::null_mut::<u8>().write_volatile(1) };",
            "SIGSEGV",
        ),
    ] {
        let ran = client.run(&one, code).await;
        assert_eq!(ran.content["ename"], ename, "{code}: {ran:?}");
        assert_eq!(ran.content["engine_info"]["engine_id"], 0);
        assert_eq!(
            client.run(&one, look).await.result.as_deref(),
            Some("5"),
            "{code}"
        );
    }
    assert_eq!(client.engine(0).await, one, "it keeps its id");

    let endless = client.send(
        &one,
        "loop { println!(\"on\"); std::thread::sleep(std::time::Duration::from_millis(5)); }",
    );
    client.first_output(&endless).await;
    let nothing = json!({});
    let interrupt = query::control(&client.file, &one, "interrupt_request", &nothing, PATIENCE);
    interrupt.await.unwrap();
    assert_eq!(
        client.finish(&endless).await.content["ename"],
        "interrupted"
    );
    assert_eq!(client.run(&one, look).await.result.as_deref(), Some("5"));
    cluster.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_dies_is_told_of_within_two_seconds() {
    let root = tempfile::tempdir().unwrap();
    let mut cluster = launcher::start(options(&root, 2)).await.unwrap();
    let mut client = Client::connect(&cluster.files().client);
    let victim = cluster.state().engines.first().unwrap().clone();
    let waiting = client.send(
        &victim.uuid,
        "println!(\"on\"); std::thread::sleep(std::time::Duration::from_secs(600));",
    );
    client.first_output(&waiting).await;

    let began = Instant::now();
    kill(victim.process.pid);
    let ran = client.finish(&waiting).await;
    assert_eq!(ran.content["ename"], "EngineError");
    let news = client.news("unregistration_notification").await;
    assert_eq!(news["uuid"], victim.uuid.as_str());
    assert!(began.elapsed().as_secs() < 2, "{:?}", began.elapsed());
    // A request to it is answered at once.
    let ran = client.run(&victim.uuid, "1").await;
    assert_eq!(ran.content["ename"], "EngineError");

    cluster.add_engines(1).await.unwrap();
    let newcomer = cluster.state().engines.last().unwrap().clone();
    assert_ne!(newcomer.id, victim.id);
    assert_eq!(
        client.run(&newcomer.uuid, "1 + 1").await.result.as_deref(),
        Some("2")
    );
    cluster.stop().await.unwrap();
}

pub(crate) fn kill(pid: u32) {
    let killed = std::process::Command::new("kill")
        .args(["-9", &pid.to_string()])
        .status();
    assert!(killed.unwrap().success());
}

/// There and back on two engines: 3 ms are the budget on an idle machine; the test's limit is for a busy one.
#[tokio::test(flavor = "multi_thread")]
async fn a_snippet_compiled_before_waits_for_nothing() {
    let root = tempfile::tempdir().unwrap();
    let cluster = launcher::start(options(&root, 2)).await.unwrap();
    let mut client = Client::connect(&cluster.files().client);
    let engines = [client.engine(0).await, client.engine(1).await];
    let mut times = Vec::new();
    for _ in 0..100 {
        let began = Instant::now();
        let sent = engines
            .each_ref()
            .map(|engine| client.send(engine, "6 * 7"));
        client.finish_all(&sent).await;
        times.push(began.elapsed());
    }
    times.sort();
    let median = times.get(50).copied().unwrap();
    println!("a snippet compiled before, 2 engines: median {median:?}");
    assert!(median.as_millis() < 30, "{median:?}");
    cluster.stop().await.unwrap();
}
