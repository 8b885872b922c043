//! Workers and services that die amid a request.

use cluster::compile_service::{RequestError, ServiceError};
use cluster::launcher::Process;
use serde_json::json;

use crate::{Place, echo, ended, request, signal};

#[tokio::test]
async fn a_request_survives_its_worker() {
    let place = Place::new();
    let client = place.client().await;
    let hold = place.hold("hold");
    let held = client.submit(&hold.request("x"));
    let [worker, child] = hold.taken().await;
    signal(worker.pid, "-9");
    let [next, _] = hold.taken().await;
    assert_ne!(next, worker);
    // What it had started is gone too.
    ended([worker, child]).await;
    hold.release();
    assert_eq!(held.await.unwrap(), json!("held"));
    let payload = json!({"do": "die-once", "path": place.path("once")});
    let answer = client.request(&request("a", "x", payload)).await.unwrap();
    assert_eq!(answer, json!("survived"));
    place.stop().await;
}

#[tokio::test]
async fn a_request_that_kills_two_workers_fails() {
    let place = Place::new();
    let client = place.client().await;
    let die = request("a", "x", json!({"do": "die"}));
    let error = client.request(&die).await.unwrap_err();
    let ServiceError::Request(RequestError::WorkerDied { status, .. }) = &error else {
        panic!("{error}")
    };
    assert!(status.contains("SIGABRT"), "{status}");
    assert!(error.to_string().contains("`chorus compiler status`"));
    let panic = json!({"do": "panic", "value": "it is not to be compiled"});
    let error = client.request(&request("a", "x", panic)).await.unwrap_err();
    let text = error.to_string();
    assert!(text.contains("it is not to be compiled"), "{text}");
    client.request(&echo("x", json!(1))).await.unwrap();
    place.stop().await;
}

#[tokio::test]
async fn workers_that_do_not_start_are_told_of() {
    let place = Place::new();
    let client = place.client().await;
    let error = client
        .request(&request("broken", "x", json!({})))
        .await
        .unwrap_err();
    let text = error.to_string();
    assert!(text.contains("5 times in a row"), "{text}");
    assert!(text.contains("this key cannot be opened"), "{text}");
    client.request(&echo("x", json!(1))).await.unwrap();
    place.stop().await;
}

#[tokio::test]
async fn a_request_survives_the_service() {
    let place = Place::new();
    let client = place.client().await;
    let (hold, second) = (place.hold("hold"), place.hold("second"));
    let held = client.submit(&hold.deaf_request("x"));
    let [worker, child] = hold.taken().await;
    let also_held = client.submit(&second.request("y"));
    let [second_worker, _] = second.taken().await;
    let service = place.status().await.pid;
    signal(service, "-9");
    let [next, _] = hold.taken().await;
    second.taken().await;
    assert_ne!(next, worker);
    // Workers end without the service, those that do not listen and their children too.
    ended([worker, child, second_worker]).await;
    assert_ne!(place.status().await.pid, service);
    hold.release();
    second.release();
    assert_eq!(held.await.unwrap(), json!("held"));
    assert_eq!(also_held.await.unwrap(), json!("held"));
    place.stop().await;
}

#[tokio::test]
async fn a_request_whose_service_dies_twice_fails() {
    let place = Place::new();
    let client = place.client().await;
    let hold = place.hold("hold");
    let held = client.submit(&hold.request("x"));
    for _ in 0..2 {
        hold.taken().await;
        signal(place.status().await.pid, "-9");
    }
    let error = held.await.unwrap_err();
    assert!(matches!(error, ServiceError::Lost { .. }), "{error}");
    assert!(error.to_string().contains("`chorus compiler status`"));
    // The next request starts another one.
    client.request(&echo("x", json!(1))).await.unwrap();
    place.stop().await;
}

#[tokio::test]
async fn a_service_that_dies_meanwhile_is_started_by_the_next_request() {
    let place = Place::new();
    let client = place.client().await;
    client.request(&echo("x", json!(1))).await.unwrap();
    let service = place.status().await;
    signal(service.pid, "-9");
    let worker = service.workers.first().and_then(|worker| worker.pid);
    ended(worker.and_then(Process::of)).await;
    client.request(&echo("x", json!(2))).await.unwrap();
    assert_ne!(place.status().await.pid, service.pid);
    place.stop().await;
}
