//! A notebook's engines, with processes of the example `cluster_process` of the crate `cluster`.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use magics::cell::Code;
use magics::{EngineEvent, Engines as _};

use super::*;

const PATIENCE: Duration = Duration::from_secs(60);

fn program() -> PathBuf {
    if let Some(program) = std::env::var_os("CHORUS_CLUSTER") {
        return program.into();
    }
    let test = std::env::current_exe().unwrap();
    let folder = test.parent().and_then(Path::parent).unwrap();
    let program = folder.join("examples/cluster_process");
    assert!(
        program.exists(),
        "{} is missing: build it with `cargo build -p cluster --example cluster_process`, as a release if this is one",
        program.display()
    );
    program
}

/// A notebook that looks for its cluster in a folder of the test.
fn notebook(root: &tempfile::TempDir) -> Engines {
    let mut engines = Engines::new(program());
    // The program's compile service has its own.
    engines.starter.host = || None;
    engines.place = Some(Place {
        profile: Profile::under(root.path(), profile::DEFAULT).unwrap(),
        cluster_id: String::new(),
    });
    engines
}

/// A cluster that isn't the notebook's: all of it are processes.
fn others(engines: &Engines) -> Options {
    let profile = engines.place().unwrap().profile;
    let mut options = engines.starter.options(&profile, "").unwrap();
    options.host = None;
    options
}

fn code(text: &str) -> Code {
    Code {
        text: text.to_owned(),
        line: 1,
        ..Code::default()
    }
}

/// Runs code everywhere, and gives all that is said.
async fn run(engines: &mut Engines, text: &str) -> Vec<(EngineId, EngineEvent)> {
    let ids = engines.ids().await.unwrap().unwrap();
    let run = engines.execute(&ids, &code(text), How::default()).await;
    all(run.unwrap()).await
}

async fn all(mut run: Run) -> Vec<(EngineId, EngineEvent)> {
    assert!(!run.id.is_empty());
    let mut said = Vec::new();
    while let Some(event) = timeout(PATIENCE, run.events.recv()).await.unwrap() {
        said.push(event);
    }
    said
}

fn numbers_of(ids: &[EngineId]) -> Vec<u32> {
    ids.iter().map(|id| id.0).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_of_ones_own_is_started_scaled_restarted_and_ended() {
    let root = tempfile::tempdir().unwrap();
    let mut engines = notebook(&root);
    let known = engines.known();
    assert_eq!(engines.ids().await.unwrap(), None);
    assert_eq!(engines.status().await.unwrap(), None);
    assert!(engines.stop().await.is_err() && known.ids().is_none());

    let cluster = engines.start(Some(2)).await.unwrap();
    assert_eq!(
        (cluster.name.as_str(), numbers_of(&cluster.ids)),
        ("notebook-1", vec![0, 1])
    );
    let details = cluster.details.join("\n");
    for part in [
        "ends with it",
        "notebook-1-client.json",
        "*.log",
        "compiler: runs",
        "MB in",
        "0 done",
    ] {
        assert!(details.contains(part), "{part}: {details}");
    }
    let again = engines.start(None).await.unwrap_err();
    assert!(again.evalue.contains("%cluster scale N"), "{again:?}");
    let said = run(&mut engines, "6 * 7").await;
    assert_eq!(
        said.iter()
            .filter(|(_, event)| *event == EngineEvent::Done)
            .count(),
        2
    );
    assert!(
        said.iter()
            .any(|(_, event)| matches!(event, EngineEvent::Result { .. }))
    );

    let cluster = engines.scale(3).await.unwrap();
    assert_eq!(numbers_of(&cluster.ids), [0, 1, 2]);
    let cluster = engines.scale(1).await.unwrap();
    assert_eq!(numbers_of(&cluster.ids), [0]);
    assert_eq!(known.ids().unwrap(), cluster.ids);
    let cluster = engines.restart().await.unwrap();
    assert_eq!(
        (cluster.ids.len(), cluster.name.as_str()),
        (1, "notebook-1")
    );
    assert_eq!(run(&mut engines, "1;").await.len(), 1);

    // Another notebook has one of its own.
    let mut other = notebook(&root);
    assert_eq!(other.ids().await.unwrap(), None);
    assert_eq!(other.start(Some(0)).await.unwrap().name, "notebook-2");
    assert_eq!(
        other.stop().await.unwrap(),
        "The cluster \"notebook-2\" is stopped."
    );

    let profile = engines.place().unwrap().profile;
    let state = State::read(&profile, "notebook-1").unwrap();
    assert!(state.hosted.is_some() && state.controller.pid == std::process::id());
    engines.shutdown().await;
    assert!(known.ids().is_none() && state.processes().all(|process| !process.is_alive()));
    assert_eq!(State::read(&profile, "notebook-1"), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_that_runs_already_is_used() {
    let root = tempfile::tempdir().unwrap();
    let mut engines = notebook(&root);
    let mut options = others(&engines);
    options.lifetime = Lifetime::Background;
    options.engines = Some(1);
    let others = launcher::start(options.clone()).await.unwrap();
    assert_eq!(numbers_of(&engines.ids().await.unwrap().unwrap()), [0]);
    let cluster = engines.scale(2).await.unwrap();
    assert_eq!((cluster.name.as_str(), cluster.ids.len()), ("default", 2));
    assert!(
        cluster
            .details
            .join("\n")
            .contains("not started by this notebook")
    );

    // Leaving it does not end it.
    engines.shutdown().await;
    assert!(others.state().controller.is_alive());
    assert_eq!(engines.restart().await.unwrap().ids.len(), 2);
    assert!(!others.state().controller.is_alive());
    let said = engines.stop().await.unwrap();
    assert!(said.contains("did not start it"), "{said}");
    assert_eq!(engines.ids().await.unwrap(), None);
    drop(others);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_controller_that_dies_is_noticed_and_what_it_left_is_in_nobodys_way() {
    let root = tempfile::tempdir().unwrap();
    let mut engines = notebook(&root);
    let mut options = others(&engines);
    options.engines = Some(1);
    let others = launcher::start(options).await.unwrap();
    let ids = engines.ids().await.unwrap().unwrap();
    let sleep = "println!(\"on\"); std::thread::sleep(std::time::Duration::from_secs(600));";
    let mut sleeping = engines
        .execute(&ids, &code(sleep), How::default())
        .await
        .unwrap();
    timeout(PATIENCE, sleeping.events.recv()).await.unwrap();
    let began = Instant::now();
    let pid = others.state().controller.pid;
    let killed = Command::new("kill").args(["-9", &pid.to_string()]).status();
    assert!(killed.unwrap().success());
    let said = all(sleeping).await;
    let [(_, EngineEvent::Lost { reason })] = &said[..] else {
        panic!("{said:?}")
    };
    assert!(reason.contains("controller"), "{reason}");
    assert_eq!(engines.ids().await.unwrap(), None, "its file is stale");
    assert!(
        began.elapsed() < Duration::from_secs(2),
        "{:?}",
        began.elapsed()
    );
    let gone = engines.execute(&ids, &code("1"), How::default()).await;
    assert!(gone.unwrap_err().evalue.contains("%cluster start"));
    assert_eq!(engines.start(Some(1)).await.unwrap().name, "notebook-1");
    engines.shutdown().await;
}
