//! A connection to a cluster of real processes.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod common;

use std::collections::BTreeMap;
use std::process::Command;
use std::time::{Duration, Instant};

use chorus::controller::{Connection, Ending, EngineId, Error, Lost, Output, Request, Said, To};
use common::Cluster;
use protocol::RawJson;
use serde_json::{Value, json};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(60);
const TWO: [EngineId; 2] = [EngineId(0), EngineId(1)];

impl Cluster {
    async fn connect(&self) -> Connection {
        Connection::open(&self.file, PATIENCE).await.unwrap()
    }

    /// Its processes' numbers.
    fn state(&self) -> Value {
        let path = self
            .root
            .path()
            .join("chorus/profiles/default/cluster.json");
        serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
    }
}

fn kill(pid: &Value) {
    let killed = Command::new("kill").args(["-9", &pid.to_string()]).status();
    assert!(killed.unwrap().success());
}

/// What one engine said: text, the last result, the ending.
#[derive(Debug, Default)]
struct Told {
    text: String,
    result: Option<String>,
    ending: Option<Ending>,
}

type Saying = UnboundedReceiver<(EngineId, Said)>;

async fn next(sayings: &mut Saying) -> Option<(EngineId, Said)> {
    timeout(PATIENCE, sayings.recv())
        .await
        .expect("engines say something in time")
}

/// Listens until all have ended.
async fn all(mut sayings: Saying) -> BTreeMap<EngineId, Told> {
    let mut told: BTreeMap<EngineId, Told> = BTreeMap::new();
    while let Some((id, said)) = next(&mut sayings).await {
        let told = told.entry(id).or_default();
        assert_eq!(told.ending, None, "nothing comes after the end");
        match said {
            Said::Output(Output::Stream(stream)) => told.text.push_str(&stream.text),
            Said::Output(Output::Result(result)) => {
                told.result = result.data["text/plain"].as_str().map(str::to_owned);
            }
            Said::Output(_) => {}
            Said::Lineage(_) => {}
            Said::Ended(ending) => told.ending = Some(ending),
        }
    }
    told
}

async fn run(
    connection: &Connection,
    targets: &[EngineId],
    code: &str,
) -> BTreeMap<EngineId, Told> {
    let (ids, sayings) = connection.run(targets, code, false).unwrap();
    assert_eq!(ids.len(), targets.len());
    all(sayings).await
}

/// Starts a snippet that does not end, and waits until it runs on all of these.
async fn endless(connection: &Connection, targets: &[EngineId]) -> Saying {
    let code =
        "loop { println!(\"on\"); std::thread::sleep(std::time::Duration::from_millis(20)); }";
    let (_, mut sayings) = connection.run(targets, code, false).unwrap();
    let mut quiet = targets.to_vec();
    while !quiet.is_empty() {
        let (id, said) = next(&mut sayings).await.unwrap();
        assert!(matches!(said, Said::Output(_)), "{said:?}");
        quiet.retain(|it| *it != id);
    }
    sayings
}

#[tokio::test(flavor = "multi_thread")]
async fn snippets_run_and_errors_and_interrupts_are_told() {
    let cluster = Cluster::start(2);
    let connection = cluster.connect().await;
    assert_eq!(connection.ids(), TWO);

    // Much text, and all of it comes before the end.
    let told = run(
        &connection,
        &TWO,
        "for i in 0..20_000 { println!(\"line {i}\"); } 6 * 7",
    )
    .await;
    for told in told.values() {
        assert_eq!(told.text.lines().count(), 20_000);
        assert!(told.text.ends_with("line 19999\n"));
        assert_eq!(told.result.as_deref(), Some("42"));
        assert_eq!(told.ending, Some(Ending::Done));
    }
    assert_eq!(told.len(), 2);

    for (code, ename) in [
        ("panic!(\"boom\");", "panic"),
        ("let x: u8 = \"text\";", "compile error"),
        ("std::process::abort();", "SIGABRT"),
    ] {
        for (id, told) in run(&connection, &TWO, code).await {
            let Some(Ending::Failed(error)) = told.ending else {
                panic!("{code} on {id}: {told:?}")
            };
            assert_eq!(error.ename, ename);
        }
    }

    let sayings = endless(&connection, &TWO).await;
    connection.signal(&TWO, 2).await.unwrap();
    for told in all(sayings).await.into_values() {
        let Some(Ending::Failed(error)) = told.ending else {
            panic!("{told:?}")
        };
        assert_eq!(error.ename, "interrupted");
    }
    let refused = connection.signal(&TWO, 10).await.unwrap_err();
    assert!(refused.to_string().contains("SIGINT"), "{refused}");

    // What waits behind can be taken out of the queue.
    let running = endless(&connection, &TWO[..1]).await;
    let (ids, waiting) = connection.run(&TWO[..1], "1", false).unwrap();
    connection.abort(&TWO[..1], &ids).await.unwrap();
    connection.signal(&TWO[..1], 2).await.unwrap();
    assert_eq!(all(waiting).await[&TWO[0]].ending, Some(Ending::Aborted));
    all(running).await;

    let missing = connection.run(&[EngineId(9)], "1", false).unwrap_err();
    assert!(missing.to_string().contains("there are 0, 1"), "{missing}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_hub_answers() {
    let cluster = Cluster::start(2);
    let connection = cluster.connect().await;
    let (ids, sayings) = connection.run(&TWO, "1 + 1", false).unwrap();
    all(sayings).await;
    let status = connection.queue_status(&[], false).await.unwrap();
    assert_eq!(
        (&status["0"]["completed"], &status["1"]["queue"]),
        (&json!(1), &json!(0))
    );
    let results = connection.results(&ids, false).await.unwrap();
    let results: Value = results.parse().unwrap();
    let data = &results[&ids[0]]["io"]["execute_result"]["data"];
    assert_eq!(data["text/plain"], "2");
    connection.purge(Some(&ids)).await.unwrap();
    let gone = connection.results(&ids, false).await.unwrap_err();
    assert!(gone.to_string().contains("No such message"), "{gone}");

    // As the next issue will: a request with metadata and buffers, and its reply by the same way.
    for to in [To::Engine(EngineId(0)), To::AnyEngine] {
        let request = Request::new(to, "apply_request", RawJson::empty_object())
            .with_metadata(serde_json::Map::from_iter([(
                "label".to_owned(),
                json!("x"),
            )]))
            .with_buffers(vec![vec![7; 100_000].into()]);
        let reply = connection.ask(request).await.unwrap();
        assert_eq!(reply.msg_type(), "apply_reply");
        assert_eq!(reply.metadata["label"], "x");
    }

    let mut ended = Box::pin(connection.ended());
    connection.shutdown().await.unwrap();
    let lost = timeout(PATIENCE, &mut ended).await.unwrap();
    assert!(
        matches!(lost, Lost::Controller { told: true, .. }),
        "{lost}"
    );
    let over = connection.run(&TWO, "1", false).unwrap_err();
    assert!(matches!(over, Error::Lost(_)), "{over}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_is_killed_is_lost_and_the_other_is_not() {
    let cluster = Cluster::start(2);
    let connection = cluster.connect().await;
    let state = cluster.state();
    let victim = &state["engines"][0];
    let id = EngineId(u32::try_from(victim["id"].as_u64().unwrap()).unwrap());
    let other = TWO.into_iter().find(|it| *it != id).unwrap();
    let sayings = endless(&connection, &TWO).await;
    let mut watch = connection.watch();
    watch.mark_unchanged();

    let began = Instant::now();
    kill(&victim["process"]["pid"]);
    timeout(PATIENCE, watch.changed()).await.unwrap().unwrap();
    assert!(began.elapsed() < Duration::from_secs(2));
    assert_eq!(connection.ids(), [other]);
    connection.signal(&[other], 2).await.unwrap();
    let told = all(sayings).await;
    assert_eq!(told[&id].ending, Some(Ending::Lost(Lost::Engine(id))));
    assert!(matches!(told[&other].ending, Some(Ending::Failed(_))));
    assert_eq!(
        run(&connection, &[other], "2").await[&other]
            .result
            .as_deref(),
        Some("2")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_controller_that_is_killed_ends_everything_soon() {
    let cluster = Cluster::start(1);
    let connection = cluster.connect().await;
    let sayings = endless(&connection, &TWO[..1]).await;
    let began = Instant::now();
    kill(&cluster.state()["controller"]["pid"]);
    let told = all(sayings).await;
    let Some(Ending::Lost(Lost::Controller { told: false, .. })) = told[&TWO[0]].ending else {
        panic!("{told:?}")
    };
    assert!(
        began.elapsed() < Duration::from_secs(2),
        "{:?}",
        began.elapsed()
    );
    assert!(connection.lost().is_some() && connection.ids().is_empty());

    // What it left is seen to be stale, without waiting.
    let began = Instant::now();
    let stale = Connection::open(&cluster.file, PATIENCE).await.unwrap_err();
    assert!(matches!(stale, Error::Nobody { .. }), "{stale}");
    assert!(
        began.elapsed() < Duration::from_secs(2),
        "{:?}",
        began.elapsed()
    );
}

/// There and back: 3 ms are the budget for two engines on an idle machine; the test's limits are for a busy one.
#[tokio::test(flavor = "multi_thread")]
async fn a_snippet_compiled_before_is_there_and_back_soon() {
    let cluster = Cluster::start(8);
    let connection = cluster.connect().await;
    let ids = connection.ids();
    assert_eq!(ids.len(), 8);
    for silent in [false, true] {
        for count in [1, 2, 8] {
            let mut times = Vec::new();
            for _ in 0..200 {
                let began = Instant::now();
                let (_, sayings) = connection.run(&ids[..count], "6 * 7", silent).unwrap();
                let told = all(sayings).await;
                times.push(began.elapsed());
                assert!(told.values().all(|it| it.ending == Some(Ending::Done)));
                assert_eq!(told.len(), count);
            }
            times.sort();
            println!(
                "{count} engines, silent {silent}: median {:?}, 90% {:?}",
                times[100], times[180]
            );
            assert!(times[100] < Duration::from_millis(40 * count as u64));
        }
    }
}
