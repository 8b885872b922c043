//! Requests of several clients, their cancellation, and what is told of them.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Instant;

use cluster::compile_service::{FRAME_LIMIT_BYTES, ServiceError, stop};
use serde_json::json;
use tokio::time::timeout;

use crate::{PATIENCE, Place, echo, request};

#[tokio::test]
async fn a_long_request_blocks_nobody() {
    let place = Place::new();
    let (one, two) = (place.client().await, place.client().await);
    let hold = place.hold("hold");
    let held = one.submit(&hold.request("x"));
    hold.taken().await;
    // By another client, and on the same connection.
    for client in [&two, &one] {
        let echoed = client.submit(&echo("y", json!(1)));
        assert_eq!(timeout(PATIENCE, echoed).await.unwrap().unwrap(), json!(1));
    }
    assert_eq!(place.status().await.workers.len(), 2);
    hold.release();
    assert_eq!(held.await.unwrap(), json!("held"));
    // The namespace is where it was.
    let about = |affinity| request("a", affinity, json!({"do": "about"}));
    let mut pids = Vec::new();
    for affinity in ["x", "y", "x", "y"] {
        pids.push(one.request(&about(affinity)).await.unwrap()["pid"].clone());
    }
    assert!(pids[0] == pids[2] && pids[1] == pids[3] && pids[0] != pids[1]);
    // Another toolchain has workers of its own.
    let other = request("b", "x", json!({"do": "about"}));
    let about = one.request(&other).await.unwrap();
    assert_eq!(about["key"], "b");
    assert!(!pids.contains(&about["pid"]));
    place.stop().await;
}

#[tokio::test]
async fn many_requests_are_in_flight_on_one_connection() {
    let place = Place::new();
    let client = place.client().await;
    let pending: Vec<_> = (0..50)
        .map(|number| client.submit(&echo("x", json!(number))))
        .collect();
    for (number, pending) in pending.into_iter().enumerate() {
        assert_eq!(pending.await.unwrap(), json!(number));
    }
    let began = Instant::now();
    for number in 0..100 {
        client.request(&echo("x", json!(number))).await.unwrap();
    }
    println!("a request takes {:?}", began.elapsed() / 100);
    place.stop().await;
}

#[tokio::test]
async fn a_request_that_is_dropped_is_cancelled() {
    let place = Place::new();
    let client = place.client().await;
    let hold = place.hold("hold");
    let held = client.submit(&hold.request("x"));
    hold.taken().await;
    drop(held);
    hold.cancelled().await;
    client.request(&echo("x", json!(1))).await.unwrap();
    // A worker that goes on keeps its place; a queued request is forgotten.
    let deaf = place.hold("deaf");
    let held = client.submit(&deaf.deaf_request("x"));
    deaf.taken().await;
    let queued = client.submit(&request("a", "x", json!({"do": "die"})));
    drop((held, queued));
    deaf.cancelled().await;
    place.until(|status| status.queued == 0).await;
    assert_eq!(
        client.request(&echo("x", json!(2))).await.unwrap(),
        json!(2)
    );
    deaf.release();
    place
        .until(|status| {
            let served: u64 = status.workers.iter().map(|worker| worker.served).sum();
            served == 4 && status.workers.iter().all(|worker| worker.pid.is_some())
        })
        .await;
    place.stop().await;
}

#[tokio::test]
async fn a_client_that_leaves_cancels_its_requests() {
    let place = Place::new();
    let client = place.client().await;
    let hold = place.hold("hold");
    let held = tokio::spawn(client.submit(&hold.request("x")));
    hold.taken().await;
    drop(client);
    held.abort();
    hold.cancelled().await;
    place.until(|status| status.connections == 1).await;
    place.stop().await;
}

#[tokio::test]
async fn what_is_being_done_is_told_meanwhile() {
    let place = Place::new();
    let client = place.client().await;
    let hold = place.hold("hold");
    let mut held = client.submit(&hold.request("x"));
    hold.taken().await;
    // It is told before or after the worker has said so.
    let expected = format!("holding {}", place.path("hold").display());
    timeout(PATIENCE, async {
        while held.inquiry().activity().await.as_ref() != Some(&expected) {}
    })
    .await
    .unwrap();
    let inquiry = held.inquiry();
    let (one, two) = tokio::join!(inquiry.activity(), inquiry.activity());
    assert_eq!(
        (one.as_ref(), two.as_ref()),
        (Some(&expected), Some(&expected))
    );
    let key = place.hold("other");
    let mut other = key.request("x");
    other.key = "b".to_owned();
    let other = client.submit(&other);
    // Whatever it says, it answers while another request is held.
    timeout(PATIENCE, other.inquiry().activity()).await.unwrap();
    key.release();
    other.await.unwrap();
    hold.release();
    assert_eq!((&mut held).await.unwrap(), json!("held"));
    assert_eq!(held.inquiry().activity().await, None);
    place.stop().await;
}

#[tokio::test]
async fn what_a_handler_prints_is_in_the_log() {
    let place = Place::new();
    let client = place.client().await;
    let print = json!({"do": "print", "value": "to standard output"});
    let answer = client.request(&request("a", "x", print)).await.unwrap();
    assert_eq!(answer, json!(true));
    assert!(stop(&place.address()).await.unwrap());
    let log = std::fs::read_to_string(place.address().log()).unwrap();
    for line in ["to standard output", "of a child", "the handler is dropped"] {
        assert!(log.lines().any(|it| it == line), "{line}: {log}");
    }
}

#[tokio::test]
async fn long_messages_pass_and_those_that_are_too_long_are_refused() {
    let place = Place::new();
    let client = place.client().await;
    let text = "x".repeat(5 << 20);
    let answer = client.request(&echo("x", json!(text))).await.unwrap();
    assert_eq!(answer.as_str().map(str::len), Some(text.len()));
    let text = "x".repeat(FRAME_LIMIT_BYTES);
    let error = client.request(&echo("x", json!(text))).await.unwrap_err();
    assert!(matches!(error, ServiceError::Frame(_)), "{error}");
    let large = json!({"do": "large", "bytes": FRAME_LIMIT_BYTES});
    let error = client.request(&request("a", "x", large)).await.unwrap_err();
    assert!(error.to_string().contains("is the limit"), "{error}");
    client.request(&echo("x", json!(1))).await.unwrap();
    place.stop().await;
}

#[tokio::test]
async fn garbage_costs_its_connection_only() {
    let place = Place::new();
    let client = place.client().await;
    let hold = place.hold("hold");
    let held = client.submit(&hold.request("x"));
    hold.taken().await;
    let garbage: [&[u8]; 4] = [
        b"GET / HTTP/1.1\r\n\r\n",
        b"\0\0\0\x02{]",
        b"\0\0\0\x04null",
        b"\xff\xff\xff\xff",
    ];
    for bytes in garbage {
        let mut stream = UnixStream::connect(place.address().socket()).unwrap();
        stream.write_all(bytes).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        // Closed after the welcome, by an end or a reset.
        let closed = stream.read_to_end(&mut Vec::new());
        let still_open = closed.is_err_and(|error| error.kind() == ErrorKind::WouldBlock);
        assert!(!still_open, "{bytes:?}");
    }
    hold.release();
    assert_eq!(held.await.unwrap(), json!("held"));
    place.stop().await;
}
