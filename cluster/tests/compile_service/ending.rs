//! How a service ends: idle, by a signal, by `stop`.

use cluster::compile_service::{RequestError, ServiceError, status, stop};
use cluster::launcher::Process;
use serde_json::json;

use crate::{Place, echo, ended, signal};

#[tokio::test]
async fn an_idle_service_ends() {
    let mut place = Place::new();
    place.config.arguments = ["service", "--idle-ms", "200"].map(Into::into).to_vec();
    let client = place.client().await;
    client.request(&echo("x", json!(1))).await.unwrap();
    let found = place.status().await;
    let worker = found.workers.first().and_then(|worker| worker.pid);
    let processes: Vec<Process> = worker
        .into_iter()
        .chain([found.pid])
        .filter_map(Process::of)
        .collect();
    assert_eq!(processes.len(), 2);
    drop(client);
    ended(processes).await;
    assert!(!place.address().socket().exists());
    assert_eq!(status(&place.address()).await.unwrap(), None);
}

#[tokio::test]
async fn a_service_that_is_stopped_ends_at_once() {
    for by_signal in [false, true] {
        let place = Place::new();
        let address = place.address();
        let client = place.client().await;
        let hold = place.hold("hold");
        let held = client.submit(&hold.deaf_request("x"));
        let [worker, child] = hold.taken().await;
        let service = Process::of(place.status().await.pid).unwrap();
        match by_signal {
            true => signal(service.pid, "-TERM"),
            false => assert!(stop(&address).await.unwrap()),
        }
        let error = held.await.unwrap_err();
        let is_stopped = matches!(error, ServiceError::Request(RequestError::Stopped));
        assert!(is_stopped, "{error}");
        ended([worker, child, service]).await;
        assert!(!address.socket().exists());
        assert_eq!(status(&address).await.unwrap(), None);
        assert!(!stop(&address).await.unwrap(), "none runs");
        // The client is as good as before.
        client.request(&echo("x", json!(1))).await.unwrap();
        place.stop().await;
    }
}
