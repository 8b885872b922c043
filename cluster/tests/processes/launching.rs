//! Starting, finding and stopping clusters; controllers that come back.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::process::Command;
use std::time::{Duration, Instant};

use cluster::compile::DirectCompiler;
use cluster::connection::{ClientFile, EngineFile, Libraries};
use cluster::controller::{Config, Open};
use cluster::launcher::{self, Lifetime};
use cluster::profile::{Settings, TransportSetting};
use cluster::{Error, engine};
use protocol::{RawJson, SendError, Session, SocketId};
use serde_json::{Value, json};
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::client::{Client, PATIENCE};
use crate::running::kill;
use crate::{options, program};

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_is_started_seen_and_stopped() {
    let root = tempfile::tempdir().unwrap();
    let mut options = options(&root, 2);
    options.lifetime = Lifetime::Background;
    let began = Instant::now();
    let cluster = launcher::start(options.clone()).await.unwrap();
    println!("a cluster of 2 is ready after {:?}", began.elapsed());
    for path in [&cluster.files().client, &cluster.files().engine] {
        let mode = path.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
    let second = launcher::start(options.clone()).await.unwrap_err();
    assert!(matches!(second, Error::AlreadyRunning { .. }), "{second}");
    assert!(second.to_string().contains("`chorus cluster stop`"));

    let mut other = options.clone();
    other.cluster_id = "other".to_owned();
    other.engines = Some(0);
    launcher::start(other.clone()).await.unwrap();
    let listed = launcher::list(root.path()).unwrap();
    let ids: Vec<_> = listed
        .iter()
        .map(|it| (it.cluster_id.as_str(), it.running, it.engines))
        .collect();
    assert_eq!(ids, [("", true, 2), ("other", true, 0)]);
    launcher::stop(&other.profile, "other").await.unwrap();

    let added = launcher::add_engines(&options, 1).await.unwrap();
    assert_eq!(added.len(), 1);
    launcher::remove_engines(&options.profile, "", &added)
        .await
        .unwrap();
    let missing = launcher::remove_engines(&options.profile, "", &added)
        .await
        .unwrap_err();
    assert!(missing.to_string().contains("0, 1"), "{missing}");
    let status = launcher::status(&options.profile, "").await.unwrap();
    assert_eq!((status.engines.len(), status.compiler), (2, Some(true)));

    launcher::stop(&options.profile, "").await.unwrap();
    let gone = launcher::stop(&options.profile, "").await.unwrap_err();
    assert!(matches!(gone, Error::NotRunning { .. }), "{gone}");
    assert!(launcher::status(&options.profile, "").await.is_err());
    assert!(!cluster.files().client.exists() && !cluster.files().engine.exists());
    for process in [Some(cluster.state().controller), cluster.state().compiler] {
        assert!(!process.unwrap().is_alive());
    }
    assert!(
        cluster
            .state()
            .engines
            .iter()
            .all(|it| !it.process.is_alive())
    );
}

/// A controller in this process is a controller for all others, and its end is not this process's.
#[tokio::test(flavor = "multi_thread")]
async fn a_controller_in_this_process() {
    let root = tempfile::tempdir().unwrap();
    let mut options = options(&root, 1);
    options.host = Some(|| None);
    let mut cluster = launcher::start(options.clone()).await.unwrap();
    let state = cluster.state().clone();
    assert!(state.hosted.is_some() && state.controller.pid == std::process::id());
    assert!(state.processes().all(|it| it != state.controller));
    let file = ClientFile::read(&cluster.files().client).unwrap();
    let hub = || [(SocketId(0), file.endpoint(file.registration))];
    let sockets = cluster.sockets().unwrap().clone();
    let (visitor, mut inbox) = sockets.visit("me".into(), hub()).unwrap();
    let session = Session::new(&file.common.key);
    let request = session.raw_message("connection_request", RawJson::empty_object(), None);
    visitor.send(SocketId(0), session.encode(&request));
    let reply = timeout(PATIENCE, inbox.recv()).await.unwrap().unwrap();
    let reply: Value = session.decode(reply.frames).unwrap().parse().unwrap();
    assert!(reply["engines"]["0"].is_string(), "{reply}");
    let status = launcher::status(&options.profile, "").await.unwrap();
    assert_eq!(
        (status.engines.len(), status.pid),
        (1, Some(std::process::id()))
    );

    launcher::stop(&options.profile, "").await.unwrap();
    timeout(PATIENCE, cluster.ended()).await.unwrap();
    assert_eq!(timeout(PATIENCE, inbox.recv()).await.unwrap(), None);
    assert!(state.processes().all(|it| !it.is_alive()));
    assert_eq!(launcher::list(root.path()).unwrap(), []);
    assert!(!cluster.files().client.exists());
    // Its name is free; it ends without being asked, too.
    let again = launcher::start(options.clone()).await.unwrap();
    let state = again.state().clone();
    let sockets = again.sockets().unwrap().clone();
    fs::remove_file(&again.files().client).unwrap();
    timeout(PATIENCE, again.stop()).await.unwrap().unwrap();
    let closed = sockets.deliver(SocketId(0), Vec::new()).await;
    assert_eq!(closed, Err(SendError::Closed));
    assert!(state.processes().all(|it| !it.is_alive()));
    assert_eq!(launcher::list(root.path()).unwrap(), []);
    // Dropping is enough.
    let last = launcher::start(options.clone()).await.unwrap();
    let engines = last.state().engines.clone();
    drop((cluster, last));
    for engine in engines {
        assert!(engine.process.wait(PATIENCE).await);
    }
}

/// What one left whose process was killed is removed, and nothing else that lies there.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_host_left_is_removed() {
    let root = tempfile::tempdir().unwrap();
    let mut options = options(&root, 0);
    options.host = Some(|| None);
    let first = launcher::start(options.clone()).await.unwrap();
    let (file, state) = (first.files().client.clone(), first.state().clone());
    let text = fs::read_to_string(&file).unwrap();
    first.stop().await.unwrap();
    // As if: a process that is no more, its files, and a socket, beside something of others' or one that is listened to.
    let mut ended = Command::new("true").spawn().unwrap();
    let pid = ended.id();
    ended.wait().unwrap();
    let mut state = serde_json::to_value(&state).unwrap();
    state["controller"]["pid"] = pid.into();
    let folder = root.path().join("sockets");
    fs::create_dir(&folder).unwrap();
    let mut text: Value = serde_json::from_str(&text).unwrap();
    text["interface"] = format!("ipc://{}/s", folder.display()).into();
    for others in [false, true] {
        fs::create_dir_all(&folder).unwrap();
        drop(UnixListener::bind(folder.join("s:1")).unwrap());
        let alive = others.then(|| UnixListener::bind(folder.join("s:3")).unwrap());
        if others {
            fs::write(folder.join("s:2"), "no socket").unwrap();
        }
        fs::write(&file, text.to_string()).unwrap();
        let path = options.profile.folder().join("cluster.json");
        fs::write(&path, state.to_string()).unwrap();
        launcher::clean(&options.profile).await.unwrap();
        assert!(!file.exists() && !path.exists());
        assert!(!folder.join("s:1").exists());
        assert_eq!(folder.join("s:2").exists(), others);
        assert_eq!(folder.join("s:3").exists(), others);
        assert_eq!(folder.exists(), others);
        drop(alive);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_dead_controller_left_is_no_obstacle() {
    let root = tempfile::tempdir().unwrap();
    let mut options = options(&root, 1);
    options.lifetime = Lifetime::Background;
    let first = launcher::start(options.clone()).await.unwrap();
    kill(first.state().controller.pid);
    assert!(first.state().controller.wait(PATIENCE).await);
    drop(first);
    let removed = launcher::clean(&options.profile).await.unwrap();
    assert_eq!(removed.len(), 3, "{removed:?}");
    let second = launcher::start(options.clone()).await.unwrap();
    kill(second.state().controller.pid);
    assert!(second.state().controller.wait(PATIENCE).await);
    // Without cleaning up as well.
    let third = launcher::start(options).await.unwrap();
    assert!(
        second
            .state()
            .engines
            .iter()
            .all(|it| !it.process.is_alive())
    );
    third.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn tied_processes_end_with_who_started_them() {
    let root = tempfile::tempdir().unwrap();
    let mut cluster = launcher::start(options(&root, 1)).await.unwrap();
    let state = cluster.state().clone();
    let waited = timeout(Duration::from_millis(500), cluster.ended()).await;
    assert!(waited.is_err(), "waiting for its end does not end it");
    assert!(state.controller.is_alive());
    drop(cluster);
    for process in state
        .engines
        .iter()
        .map(|it| it.process)
        .chain(state.compiler)
        .chain([state.controller])
    {
        assert!(process.wait(PATIENCE).await, "{process:?}");
    }
    // What they left says that nothing runs, and is in nobody's way.
    let profile = options(&root, 1).profile;
    let stopped = launcher::stop(&profile, "").await;
    assert!(matches!(stopped, Err(Error::NotRunning { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_say_what_to_do() {
    let root = tempfile::tempdir().unwrap();
    let mut wrong = options(&root, 1);
    wrong.program = "/nowhere/chorus".into();
    let error = launcher::start(wrong).await.unwrap_err();
    assert!(error.to_string().contains("/nowhere/chorus"), "{error}");
    let mut wrong = options(&root, 1);
    wrong.cluster_id = "../x".to_owned();
    assert!(matches!(
        launcher::start(wrong).await,
        Err(Error::Name { .. })
    ));

    let mut settings = Settings::default();
    settings.network.transport = TransportSetting::Tcp;
    settings.network.address = "0.0.0.0".to_owned();
    let config = Config {
        security: root.path().join("security"),
        cluster_id: String::new(),
        reuse: false,
        settings,
        libraries: None,
    };
    assert!(matches!(Open::new(config), Err(Error::NotLoopback { .. })));
    let engine = Command::new(program())
        .args(["engine", "--file", "/nowhere/file.json"])
        .output()
        .unwrap();
    let said = String::from_utf8(engine.stdout).unwrap();
    assert!(said.contains("chorus cluster start"), "{said}");
}

/// An engine outlives its controller, and keeps its id.
#[tokio::test(flavor = "multi_thread")]
async fn an_engine_finds_a_controller_that_comes_back() {
    for transport in [TransportSetting::Ipc, TransportSetting::Tcp] {
        let root = tempfile::tempdir().unwrap();
        let config = || {
            let mut settings = Settings::default();
            settings.network.transport = transport;
            Config {
                security: root.path().join("security"),
                cluster_id: String::new(),
                reuse: true,
                settings,
                libraries: Some(Libraries {
                    support: "/nowhere".into(),
                    preload: Vec::new(),
                }),
            }
        };
        let open = Open::new(config()).unwrap();
        let files = open.files().clone();
        let (stop, stopped) = oneshot::channel::<()>();
        let first = tokio::spawn(open.serve(async { drop(stopped.await) }));

        let mut runtime = Command::new(program());
        runtime.arg("runtime");
        let engine = engine::Config::new(
            files.engine.clone(),
            runtime,
            DirectCompiler::new(|| Err("this test compiles nothing".to_owned())),
        );
        let (ready, is_ready) = oneshot::channel();
        let (end, ended) = oneshot::channel::<()>();
        let engine = tokio::spawn(engine::serve(
            engine,
            move |id, uuid| ready.send((id, uuid.to_owned())).unwrap(),
            async { drop(ended.await) },
        ));
        let (id, uuid) = timeout(PATIENCE, is_ready).await.unwrap().unwrap();

        stop.send(()).unwrap();
        first.await.unwrap().unwrap();
        let open = Open::new(config()).unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let second = tokio::spawn(open.serve(async { drop(stopped.await) }));
        let mut client = Client::connect(&files.client);
        let news = timeout(
            Duration::from_secs(20),
            client.news("registration_notification"),
        );
        let news = news.await.expect("the engine comes back");
        assert_eq!(news, json!({"id": id, "uuid": uuid}));

        end.send(()).unwrap();
        engine.await.unwrap().unwrap();
        assert_eq!(
            client.news("unregistration_notification").await["uuid"],
            uuid.as_str()
        );
        stop.send(()).unwrap();
        second.await.unwrap().unwrap();
        let file = EngineFile::read(&files.engine).unwrap();
        if let Some(prefix) = file.interface.strip_prefix("ipc://") {
            std::fs::remove_dir_all(std::path::Path::new(prefix).parent().unwrap()).unwrap();
        }
    }
}
