//! How a service is found and started, and what is said when it is not.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;

use cluster::compile_service::{Address, Client, ServiceError, status};
use cluster::launcher::Process;
use serde_json::json;

use crate::{Place, VARIABLE, echo, request};

#[tokio::test]
async fn a_service_is_started_on_demand() {
    let place = Place::new();
    assert_eq!(status(&place.address()).await.unwrap(), None);
    let client = place.client().await;
    let answer = client.request(&echo("x", json!([1, "b"]))).await.unwrap();
    assert_eq!(answer, json!([1, "b"]));
    let address = place.address();
    for path in [address.socket(), address.lock(), address.log()] {
        let mode = fs::metadata(&path).unwrap().mode();
        assert_eq!(mode & 0o777, 0o600, "{}", path.display());
    }
    // It is nobody's child, with a session of its own.
    let found = place.status().await;
    let stat = fs::read_to_string(format!("/proc/{}/stat", found.pid)).unwrap();
    let (_, fields) = stat.rsplit_once(") ").unwrap();
    let fields: Vec<&str> = fields.split(' ').collect();
    assert_ne!(fields[1], std::process::id().to_string(), "its parent");
    assert_eq!(fields[3], found.pid.to_string(), "its session");
    let about = json!({"do": "about", "variable": VARIABLE});
    let about = client.request(&request("a", "x", about)).await.unwrap();
    assert_eq!(
        (&about["folder"], &about["variable"], &about["key"]),
        (&json!("/"), &json!("given"), &json!("a"))
    );
    let [worker] = found.workers.as_slice() else {
        panic!("{found:?}")
    };
    assert_eq!(about["pid"], json!(worker.pid.unwrap()));
    assert_eq!(worker.affinity.as_deref(), Some("x"));
    assert!(worker.memory > 100_000, "{worker:?}");
    assert_eq!((found.connections, found.queued, worker.served), (2, 0, 1));
    // The next client finds it.
    let other = place.client().await;
    other.request(&echo("y", json!(2))).await.unwrap();
    assert_eq!(place.status().await.pid, found.pid);
    let all = Address::all_in(Some(&place.path("run")), &place.path("tmp"));
    assert_eq!(all, [place.address()]);
    place.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_of_the_same_moment_start_one_service() {
    let place = Place::new();
    let opening: Vec<_> = (0..8)
        .map(|_| tokio::spawn(Client::open_at(place.address(), place.config.clone())))
        .collect();
    let mut clients = Vec::new();
    for client in opening {
        clients.push(client.await.unwrap().unwrap());
    }
    assert_eq!(place.status().await.connections, 9);
    for client in &clients {
        client.request(&echo("x", json!(1))).await.unwrap();
    }
    place.stop().await;
}

#[tokio::test]
async fn a_stale_socket_is_replaced() {
    let place = Place::new();
    drop(UnixListener::bind(place.address().socket()).unwrap());
    assert_eq!(status(&place.address()).await.unwrap(), None);
    let client = place.client().await;
    client.request(&echo("x", json!(1))).await.unwrap();
    place.stop().await;
}

#[tokio::test]
async fn without_a_runtime_folder_the_socket_is_with_temporary_files() {
    let place = Place::new();
    let chorus = place.path("run/chorus");
    fs::create_dir(&chorus).unwrap();
    fs::set_permissions(&chorus, fs::Permissions::from_mode(0o755)).unwrap();
    assert!(place.address().socket().starts_with(place.path("tmp")));
    let client = place.client().await;
    client.request(&echo("x", json!(1))).await.unwrap();
    fs::remove_dir(&chorus).unwrap();
    fs::remove_dir(place.path("run")).unwrap();
    assert_eq!(place.status().await.connections, 2);
    place.stop().await;
}

#[tokio::test]
async fn a_service_that_does_not_start_says_why() {
    let cases = [
        ("broken-service", "it ended before it listened"),
        ("broken-service", "this service is broken"),
        ("broken-service", "compiler-test.log"),
    ];
    for (role, expected) in cases {
        let mut place = Place::new();
        place.config.arguments = vec![role.into()];
        let error = place.open().await.unwrap_err();
        assert!(matches!(error, ServiceError::Start { .. }));
        let text = error.to_string();
        assert!(text.contains(expected), "{text}");
    }
    let mut place = Place::new();
    place.config.program = "/nowhere/chorus".into();
    let text = place.open().await.unwrap_err().to_string();
    assert!(text.contains("/nowhere/chorus"), "{text}");
    // A socket cannot be bound where something that is no socket cannot be removed.
    let place = Place::new();
    fs::create_dir(place.address().socket()).unwrap();
    let text = place.open().await.unwrap_err().chain();
    assert!(text.contains("cannot remove the stale socket"), "{text}");
}

#[tokio::test]
async fn a_second_service_at_the_same_socket_refuses() {
    let place = Place::new();
    let _client = place.client().await;
    let output = std::process::Command::new(&place.config.program)
        .arg("service")
        .arg("--socket")
        .arg(place.address().socket())
        .output()
        .unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.contains("cannot listen on the socket"), "{said}");
    let pid = place.status().await.pid;
    assert!(Process::of(pid).is_some());
    place.stop().await;
}

/// The system connects a client to a listener whose process has not accepted it, and may never do.
#[tokio::test]
async fn a_service_that_ends_before_it_accepts_is_replaced() {
    let place = Place::new();
    let listener = UnixListener::bind(place.address().socket()).unwrap();
    let closing = std::thread::spawn(move || drop(listener.accept().unwrap()));
    let client = place.client().await;
    client.request(&echo("x", json!(1))).await.unwrap();
    closing.join().unwrap();
    place.stop().await;
}
