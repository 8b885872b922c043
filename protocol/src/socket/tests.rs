//! Sockets against sockets, over TCP and Unix sockets.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::timeout;

use super::*;

const SERVER: SocketId = SocketId(1);
const CLIENT: SocketId = SocketId(2);
const DEADLINE: Duration = Duration::from_secs(60);

type Inbox = UnboundedReceiver<Received>;

fn frames<const N: usize>(frames: [&'static [u8]; N]) -> Vec<Bytes> {
    frames.map(Bytes::from_static).to_vec()
}

fn bound(socket_type: SocketType, endpoint: &str) -> (Sockets, Inbox) {
    SocketsBuilder::new()
        .bind(SERVER, socket_type, endpoint)
        .start()
        .unwrap()
}

fn connected(socket_type: SocketType, endpoint: &str, identity: &'static [u8]) -> (Sockets, Inbox) {
    let options = SocketOptions {
        identity: Some(Bytes::from_static(identity)),
        ..SocketOptions::default()
    };
    SocketsBuilder::new()
        .options(CLIENT, options)
        .connect(CLIENT, socket_type, endpoint)
        .start()
        .unwrap()
}

async fn next(inbox: &mut Inbox) -> Vec<Bytes> {
    timeout(DEADLINE, inbox.recv())
        .await
        .expect("a message in time")
        .expect("an open channel")
        .frames
}

#[tokio::test]
async fn requests_and_replies_over_tcp_and_unix_sockets() {
    let folder = tempfile::tempdir().unwrap();
    let file = format!("ipc://{}/socket", folder.path().display());
    for endpoint in [
        "tcp://127.0.0.1:0",
        "ipc://*",
        file.as_str(),
        "tcp://[::1]:0",
    ] {
        let (server, mut requests) = match SocketsBuilder::new()
            .bind(SERVER, SocketType::ROUTER, endpoint)
            .start()
        {
            // Not every machine that builds this has IPv6.
            Err(SocketError::Bind {
                source: zmq::Error::EADDRNOTAVAIL | zmq::Error::ENODEV,
                ..
            }) if endpoint.contains("::1") => continue,
            started => started.unwrap(),
        };
        let endpoint = server.endpoint(SERVER).unwrap();
        assert!(
            !endpoint.ends_with(":0") && !endpoint.ends_with('*'),
            "{endpoint}"
        );
        let (client, mut replies) = connected(SocketType::DEALER, endpoint, b"me");
        client.send(CLIENT, frames([b"hello", b"", b"world"]));
        assert_eq!(
            next(&mut requests).await,
            frames([b"me", b"hello", b"", b"world"])
        );
        server.send(SERVER, frames([b"me", b"hi"]));
        assert_eq!(next(&mut replies).await, frames([b"hi"]));
        client.close().await;
        server.close().await;
    }
}

#[tokio::test]
async fn a_hundred_megabytes_arrive_unchanged() {
    let (server, mut requests) = bound(SocketType::ROUTER, "tcp://127.0.0.1:0");
    let (client, mut replies) =
        connected(SocketType::DEALER, server.endpoint(SERVER).unwrap(), b"me");
    let bulk: Vec<u8> = (0..100_000_000_u32)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    let bulk = Bytes::from(bulk);
    client.send(CLIENT, vec![Bytes::from_static(b"header"), bulk.clone()]);
    let request = next(&mut requests).await;
    assert!(
        matches!(&request[..], [_, header, received] if header == "header" && *received == bulk)
    );
    // And back, out of ZeroMQ's own memory.
    server.send(SERVER, request);
    let reply = next(&mut replies).await;
    assert!(matches!(&reply[..], [_, received] if *received == bulk));
}

#[tokio::test]
async fn frames_of_all_sizes_arrive_in_their_order() {
    let (server, mut requests) = bound(SocketType::ROUTER, "tcp://127.0.0.1:0");
    let (client, _replies) = connected(SocketType::DEALER, server.endpoint(SERVER).unwrap(), b"me");
    // More small ones than share one allocation, and large ones among them.
    let sizes = [0, 3000, 9000, 5000, 0, 3000, 1, 8191, 8192, 7, 0];
    let sent: Vec<Bytes> = (1..)
        .zip(sizes)
        .map(|(byte, size)| Bytes::from(vec![byte; size]))
        .collect();
    for _ in 0..2 {
        client.send(CLIENT, sent.clone());
        let received = next(&mut requests).await;
        assert_eq!(received.split_first().unwrap().1, sent);
    }
}

/// Bulk data that tells when it is no longer used.
struct Counted(
    Vec<u8>,
    #[expect(dead_code, reason = "counted when dropped")] Arc<()>,
);

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

#[tokio::test]
async fn bulk_data_is_lent_to_zeromq_and_given_back() {
    let counter = Arc::new(());
    let bulk = Bytes::from_owner(Counted(vec![7; 1_000_000], Arc::clone(&counter)));
    let (first, mut at_first) = bound(SocketType::PULL, "tcp://127.0.0.1:0");
    let (second, mut at_second) = bound(SocketType::PULL, "ipc://*");
    let (client, _) = SocketsBuilder::new()
        .connect(
            SocketId(1),
            SocketType::PUSH,
            first.endpoint(SERVER).unwrap(),
        )
        .connect(
            SocketId(2),
            SocketType::PUSH,
            second.endpoint(SERVER).unwrap(),
        )
        .bind(SocketId(3), SocketType::ROUTER, "ipc://*")
        .bind(SocketId(4), SocketType::PUSH, "ipc://*")
        .start()
        .unwrap();
    for id in [SocketId(1), SocketId(2)] {
        client.send(id, vec![bulk.clone(), Bytes::from_static(b"end")]);
    }
    for inbox in [&mut at_first, &mut at_second] {
        assert!(
            matches!(&next(inbox).await[..], [received, end] if *received == bulk && end == "end")
        );
    }
    // What ZeroMQ refuses is given back too.
    assert_eq!(
        client
            .deliver(SocketId(3), vec![bulk.clone(), bulk.clone()])
            .await,
        Err(SendError::Unroutable)
    );
    assert_eq!(
        client.deliver(SocketId(4), vec![bulk.clone()]).await,
        Err(SendError::NoPeer)
    );
    client.close().await;
    // The last of ZeroMQ's references ends with its context, so this one is the only one left.
    drop(bulk);
    assert_eq!(Arc::strong_count(&counter), 1);
}

#[tokio::test]
async fn many_small_messages_keep_their_order() {
    const COUNT: u32 = 100_000;
    let (server, mut requests) = bound(SocketType::ROUTER, "tcp://127.0.0.1:0");
    let (client, mut replies) =
        connected(SocketType::DEALER, server.endpoint(SERVER).unwrap(), b"me");
    let sender = std::thread::spawn(move || {
        for n in 0..COUNT {
            client.send(
                CLIENT,
                vec![
                    Bytes::from(n.to_le_bytes().to_vec()),
                    Bytes::from_static(b"payload"),
                ],
            );
        }
        client
    });
    for n in 0..COUNT {
        let request = next(&mut requests).await;
        assert!(
            matches!(&request[..], [_, number, _] if number[..] == n.to_le_bytes()),
            "message {n}"
        );
        server.send(SERVER, request);
    }
    for n in 0..COUNT {
        let reply = next(&mut replies).await;
        assert!(
            matches!(&reply[..], [number, _] if number[..] == n.to_le_bytes()),
            "reply {n}"
        );
    }
    drop(sender.join().unwrap());
}

#[tokio::test]
async fn every_socket_of_a_set_is_served() {
    let (server, mut inbox) = SocketsBuilder::new()
        .bind(SocketId(1), SocketType::PULL, "ipc://*")
        .bind(SocketId(2), SocketType::PULL, "ipc://*")
        .start()
        .unwrap();
    let (client, _) = SocketsBuilder::new()
        .connect(
            SocketId(1),
            SocketType::PUSH,
            server.endpoint(SocketId(1)).unwrap(),
        )
        .connect(
            SocketId(2),
            SocketType::PUSH,
            server.endpoint(SocketId(2)).unwrap(),
        )
        .start()
        .unwrap();
    for n in 0..100_u8 {
        let socket = SocketId(1 + u16::from(n % 2));
        client.send(socket, vec![Bytes::from(vec![n])]);
        let received = timeout(DEADLINE, inbox.recv()).await.unwrap().unwrap();
        assert_eq!(
            received,
            Received {
                socket,
                frames: vec![Bytes::from(vec![n])]
            }
        );
    }
}

#[tokio::test]
async fn subscriptions_are_received_and_each_client_is_seen() {
    let (kernel, mut subscriptions) = bound(SocketType::XPUB, "tcp://127.0.0.1:0");
    for _ in 0..2 {
        let endpoint = kernel.endpoint(SERVER).unwrap();
        let (client, mut broadcasts) = SocketsBuilder::new()
            .connect(CLIENT, SocketType::SUB, endpoint)
            .start()
            .unwrap();
        let subscription = Subscription::from_frames(&next(&mut subscriptions).await);
        assert_eq!(
            subscription,
            Some(Subscription {
                subscribes: true,
                topic: Bytes::new()
            })
        );
        kernel.send(SERVER, frames([b"stream", b"text"]));
        assert_eq!(next(&mut broadcasts).await, frames([b"stream", b"text"]));
        drop(client);
        let subscription = Subscription::from_frames(&next(&mut subscriptions).await);
        assert_eq!(
            subscription,
            Some(Subscription {
                subscribes: false,
                topic: Bytes::new()
            })
        );
    }
    assert_eq!(Subscription::from_frames(&frames([b"\x02x"])), None);
    assert_eq!(Subscription::from_frames(&frames([b""])), None);
    assert_eq!(Subscription::from_frames(&frames([b"\x01", b"x"])), None);
}

#[tokio::test]
async fn what_cannot_be_sent_is_an_error_and_no_more() {
    let (server, mut requests) = SocketsBuilder::new()
        .bind(SERVER, SocketType::ROUTER, "ipc://*")
        .bind(SocketId(3), SocketType::PUSH, "ipc://*")
        .start()
        .unwrap();
    let nobody = || frames([b"nobody", b"text"]);
    assert_eq!(
        server.deliver(SERVER, nobody()).await,
        Err(SendError::Unroutable)
    );
    assert_eq!(
        server.deliver(SocketId(3), nobody()).await,
        Err(SendError::NoPeer)
    );
    assert_eq!(
        server.deliver(SocketId(9), nobody()).await,
        Err(SendError::UnknownSocket(SocketId(9)))
    );
    for id in [SERVER, SocketId(3), SocketId(9)] {
        server.send(id, nobody());
        server.send(id, Vec::new());
    }
    server.flush().await;

    let (client, mut replies) =
        connected(SocketType::DEALER, server.endpoint(SERVER).unwrap(), b"me");
    client.send(CLIENT, frames([b"hello"]));
    next(&mut requests).await;
    assert_eq!(server.deliver(SERVER, frames([b"me", b"hi"])).await, Ok(()));
    assert_eq!(next(&mut replies).await, frames([b"hi"]));

    let left = server.clone();
    server.close().await;
    left.send(SERVER, nobody());
    left.flush().await;
    assert_eq!(left.deliver(SERVER, nobody()).await, Err(SendError::Closed));
    left.close().await;
}

#[tokio::test]
async fn a_client_that_comes_back_is_heard() {
    let (server, mut requests) = bound(SocketType::ROUTER, "tcp://127.0.0.1:0");
    let endpoint = server.endpoint(SERVER).unwrap();
    // The first one is still there when the second takes over its identity.
    let (first, _) = connected(SocketType::DEALER, endpoint, b"me");
    first.send(CLIENT, frames([b"1"]));
    next(&mut requests).await;
    let (second, mut replies) = connected(SocketType::DEALER, endpoint, b"me");
    second.send(CLIENT, frames([b"2"]));
    assert_eq!(next(&mut requests).await, frames([b"me", b"2"]));
    server.send(SERVER, frames([b"me", b"hi"]));
    assert_eq!(next(&mut replies).await, frames([b"hi"]));
}

#[tokio::test]
async fn closing_sends_what_was_queued() {
    const COUNT: u16 = 1000;
    for ending in ["close", "drop"] {
        let (server, mut requests) = bound(SocketType::PULL, "tcp://127.0.0.1:0");
        let (client, mut inbox) =
            connected(SocketType::PUSH, server.endpoint(SERVER).unwrap(), b"me");
        for n in 0..COUNT {
            client.send(CLIENT, vec![Bytes::from(n.to_le_bytes().to_vec())]);
        }
        match ending {
            "close" => client.close().await,
            _ => drop(client),
        }
        for n in 0..COUNT {
            assert_eq!(
                next(&mut requests).await,
                [n.to_le_bytes().to_vec()],
                "{ending}"
            );
        }
        // The task has ended when its channel has.
        assert_eq!(
            timeout(DEADLINE, inbox.recv())
                .await
                .expect("an end in time"),
            None
        );
    }
}

#[tokio::test]
async fn closing_waits_no_longer_than_sockets_linger() {
    let options = SocketOptions {
        linger: Duration::from_millis(200),
        ..SocketOptions::default()
    };
    let endpoint = format!(
        "ipc://{}/nobody",
        tempfile::tempdir().unwrap().path().display()
    );
    let client = SocketsBuilder::new()
        .connect(CLIENT, SocketType::PUSH, endpoint)
        .options(CLIENT, options);
    let (client, _) = client.start().unwrap();
    client.send(CLIENT, frames([b"never taken"]));
    let started = Instant::now();
    client.close().await;
    let took = started.elapsed();
    assert!(
        took >= Duration::from_millis(190) && took < Duration::from_secs(20),
        "{took:?}"
    );
}

#[tokio::test]
async fn sockets_go_on_when_nobody_listens() {
    let (server, requests) = bound(SocketType::ROUTER, "ipc://*");
    drop(requests);
    let (client, mut replies) =
        connected(SocketType::DEALER, server.endpoint(SERVER).unwrap(), b"me");
    client.send(CLIENT, frames([b"into the void"]));
    let mut answered = false;
    while !answered {
        // Until the client has connected there is no such peer.
        answered = server.deliver(SERVER, frames([b"me", b"hi"])).await.is_ok();
        tokio::task::yield_now().await;
    }
    assert_eq!(next(&mut replies).await, frames([b"hi"]));
}

#[tokio::test]
async fn what_cannot_be_opened_is_an_error() {
    let (taken, _) = bound(SocketType::ROUTER, "tcp://127.0.0.1:0");
    let taken = taken.endpoint(SERVER).unwrap();
    let bind = |endpoint: &str| {
        SocketsBuilder::new()
            .bind(SERVER, SocketType::ROUTER, endpoint)
            .start()
            .map(drop)
    };
    assert!(matches!(
        bind(taken),
        Err(SocketError::Bind {
            source: zmq::Error::EADDRINUSE,
            ..
        })
    ));
    assert!(matches!(
        bind("tcp://nowhere"),
        Err(SocketError::Bind { .. })
    ));
    assert!(matches!(bind("ipc://a\0b"), Err(SocketError::Bind { .. })));
    assert!(matches!(heartbeat(taken), Err(SocketError::Bind { .. })));
    assert!(matches!(
        heartbeat("ipc://a\0b"),
        Err(SocketError::Bind { .. })
    ));

    let two_types = SocketsBuilder::new()
        .bind(SERVER, SocketType::ROUTER, "ipc://*")
        .bind(SERVER, SocketType::PULL, "ipc://*");
    assert!(matches!(
        two_types.start(),
        Err(SocketError::Inconsistent(SERVER))
    ));
    let no_socket = SocketsBuilder::new().options(SERVER, SocketOptions::default());
    assert!(matches!(
        no_socket.start(),
        Err(SocketError::Inconsistent(SERVER))
    ));
    let long = SocketOptions {
        identity: Some(Bytes::from(vec![b'x'; 256])),
        ..SocketOptions::default()
    };
    let long =
        SocketsBuilder::new()
            .options(SERVER, long)
            .bind(SERVER, SocketType::ROUTER, "ipc://*");
    assert!(matches!(
        long.start(),
        Err(SocketError::SetOption {
            option: "identity",
            ..
        })
    ));
}

#[test]
fn hearts_beat_for_every_kind_of_client_and_stop() {
    let heart = heartbeat("tcp://127.0.0.1:0").unwrap();
    let context = zmq::Context::new();
    let client = |socket_type| {
        let socket = context.socket(socket_type).unwrap();
        socket.set_linger(0).unwrap();
        socket
            .set_rcvtimeo(i32::try_from(DEADLINE.as_millis()).unwrap())
            .unwrap();
        socket.connect(heart.endpoint()).unwrap();
        socket
    };
    let (request, dealer) = (client(SocketType::REQ), client(SocketType::DEALER));
    for _ in 0..100 {
        request.send("ping", 0).unwrap();
        dealer.send_multipart(["", "ping", "pong"], 0).unwrap();
        assert_eq!(request.recv_bytes(0).unwrap(), b"ping");
        assert_eq!(
            dealer.recv_multipart(0).unwrap(),
            [&b""[..], b"ping", b"pong"]
        );
    }
    let endpoint = heart.endpoint().to_owned();
    drop(heart);
    // Once it has stopped the port is free.
    drop(heartbeat(&endpoint).unwrap());
}

#[test]
fn handles_may_be_shared() {
    fn shared<T: Clone + Send + Sync + 'static>() {}
    shared::<Sockets>();
}

#[tokio::test]
async fn a_monitor_tells_when_a_peer_comes_and_goes() {
    const NEWS: SocketId = SocketId(3);
    let folder = tempfile::tempdir().unwrap();
    let file = format!("ipc://{}/socket", folder.path().display());
    for endpoint in [file.as_str(), "tcp://127.0.0.1:0"] {
        let (server, _requests) = bound(SocketType::ROUTER, endpoint);
        let endpoint = server.endpoint(SERVER).unwrap().to_owned();
        let client = || {
            SocketsBuilder::new()
                .monitor(CLIENT, NEWS)
                .connect(CLIENT, SocketType::DEALER, &endpoint)
                .start()
                .unwrap()
        };
        let (_client, mut inbox) = client();
        assert_eq!(contact(&mut inbox).await, Contact::Made);
        server.close().await;
        assert_eq!(contact(&mut inbox).await, Contact::Lost);
        let (_late, mut inbox) = client();
        assert_eq!(contact(&mut inbox).await, Contact::Refused);
    }
    let nothing = SocketsBuilder::new().monitor(CLIENT, NEWS).start();
    assert!(matches!(nothing, Err(SocketError::Inconsistent(_))));
}

async fn contact(inbox: &mut Inbox) -> Contact {
    Contact::from_frames(&next(inbox).await).expect("news of a connection")
}

#[test]
fn what_is_no_news_of_a_connection_is_not_read_as_such() {
    for frames in [
        frames([b"", b"tcp://"]),
        frames([b"\0\0\0\0\0\0", b"tcp://"]),
    ] {
        assert_eq!(Contact::from_frames(&frames), None);
    }
    assert_eq!(Contact::from_frames(&[]), None);
}

/// Sends back what comes, and says something by itself a moment after `later`. Asked to close, it takes leave once.
struct Echo {
    peer: Option<Bytes>,
    due: Option<Instant>,
    leaving: bool,
}

impl Service for Echo {
    fn on_message(&mut self, received: Received, outlet: &mut Outlet<'_>) -> ControlFlow<()> {
        self.peer = received.frames.first().cloned();
        if received.frames.ends_with(&[Bytes::from_static(b"later")]) {
            self.due = Some(Instant::now() + Duration::from_millis(20));
        }
        let nobody = frames([b"nobody", b"x"]);
        assert_eq!(
            outlet.deliver(received.socket, nobody),
            Err(SendError::Unroutable)
        );
        assert_eq!(outlet.deliver(received.socket, received.frames), Ok(()));
        ControlFlow::Continue(())
    }

    fn deadline(&self) -> Option<Instant> {
        self.due
    }

    fn on_time(&mut self, outlet: &mut Outlet<'_>) -> ControlFlow<()> {
        self.due = None;
        let peer = self.peer.clone().unwrap();
        outlet.send(SERVER, vec![peer, Bytes::from_static(b"well?")]);
        match self.leaving {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    }

    fn on_close(&mut self, _outlet: &mut Outlet<'_>) -> ControlFlow<()> {
        self.leaving = true;
        self.due = Some(Instant::now());
        ControlFlow::Continue(())
    }
}

/// Sends what comes from [`SERVER`] back there, for ever; something else ends it.
struct Mill;

impl Service for Mill {
    fn on_message(&mut self, received: Received, outlet: &mut Outlet<'_>) -> ControlFlow<()> {
        if received.socket != SERVER {
            return ControlFlow::Break(());
        }
        outlet.send(CLIENT, received.frames);
        // Slower than they come back.
        std::thread::sleep(Duration::from_micros(20));
        ControlFlow::Continue(())
    }
}

#[tokio::test]
async fn a_busy_socket_is_not_the_only_one_that_is_heard() {
    const ASIDE: SocketId = SocketId(3);
    let folder = tempfile::tempdir().unwrap();
    let [mill, aside] =
        ["mill", "aside"].map(|name| format!("ipc://{}/{name}", folder.path().display()));
    let open = SocketsBuilder::new()
        .bind(SERVER, SocketType::PULL, &mill)
        .connect(CLIENT, SocketType::PUSH, &mill)
        .bind(ASIDE, SocketType::PULL, &aside)
        .open()
        .unwrap();
    let busy = open.serve(Mill).unwrap();
    // More than one turn takes: there is always something left.
    busy.send_all((0..5000).map(|_| (CLIENT, frames([b"round"]))));
    let (client, _) = connected(SocketType::PUSH, &aside, b"me");
    client.send(CLIENT, frames([b"enough"]));
    timeout(DEADLINE, busy.ended()).await.unwrap();
}

#[tokio::test]
async fn a_service_answers_in_the_sockets_task() {
    let open = SocketsBuilder::new()
        .bind(SERVER, SocketType::ROUTER, "tcp://127.0.0.1:0")
        .open()
        .unwrap();
    let endpoint = open.endpoint(SERVER).unwrap().to_owned();
    let service = Echo {
        peer: None,
        due: None,
        leaving: false,
    };
    let server = open.serve(service).unwrap();
    let (client, mut replies) = connected(SocketType::DEALER, &endpoint, b"me");
    for word in [b"hello", b"again", b"later"] {
        client.send(CLIENT, frames([word]));
        assert_eq!(next(&mut replies).await, frames([word]));
    }
    assert_eq!(next(&mut replies).await, frames([b"well?"]));
    let ended = server.clone();
    let ended = tokio::spawn(async move { ended.ended().await });
    timeout(DEADLINE, server.close()).await.unwrap();
    timeout(DEADLINE, ended).await.unwrap().unwrap();
    assert_eq!(next(&mut replies).await, frames([b"well?"]));
}

/// Answers, and publishes what it is told.
struct Herald;

const NEWS: SocketId = SocketId(4);

impl Service for Herald {
    fn on_message(&mut self, received: Received, outlet: &mut Outlet<'_>) -> ControlFlow<()> {
        if received.socket == SERVER {
            outlet.send(NEWS, received.frames.get(1..).unwrap_or_default().to_vec());
            assert_eq!(outlet.deliver(SERVER, received.frames), Ok(()));
        }
        ControlFlow::Continue(())
    }
}

#[tokio::test]
async fn visitors_are_peers_without_zeromq() {
    const ASKS: SocketId = SocketId(7);
    const HEARS: SocketId = SocketId(8);
    let folder = tempfile::tempdir().unwrap();
    let [server, news] =
        ["server", "news"].map(|name| format!("ipc://{}/{name}", folder.path().display()));
    let open = SocketsBuilder::new()
        .bind(SERVER, SocketType::ROUTER, &server)
        .bind(NEWS, SocketType::XPUB, &news)
        .open()
        .unwrap();
    let sockets = open.serve(Herald).unwrap();
    let name = Bytes::from_static(b"visitor");
    let nowhere = [(ASKS, format!("{server}-2"))];
    assert!(sockets.visit(name.clone(), nowhere).is_none());
    let doors = || [(ASKS, server.clone()), (HEARS, news.clone())];
    let (visitor, mut heard) = sockets.visit(name.clone(), doors()).unwrap();
    assert_eq!(visitor.endpoint(HEARS), Some(news.as_str()));
    // Others hear what is published, and get what is theirs.
    let (client, mut replies) = connected(SocketType::DEALER, &server, b"me");
    visitor.send(ASKS, frames([b"one", b"rest"]));
    for socket in [HEARS, ASKS] {
        let received = timeout(DEADLINE, heard.recv()).await.unwrap().unwrap();
        let frames = frames([b"one", b"rest"]);
        assert_eq!(received, Received { socket, frames });
    }
    client.send(CLIENT, frames([b"two", b"rest"]));
    let received = timeout(DEADLINE, heard.recv()).await.unwrap().unwrap();
    assert_eq!(
        (received.socket, received.frames),
        (HEARS, frames([b"two", b"rest"]))
    );
    assert_eq!(next(&mut replies).await, frames([b"two", b"rest"]));
    assert_eq!(visitor.deliver(ASKS, frames([b"x"])).await, Ok(()));
    assert_eq!(
        visitor.deliver(CLIENT, frames([b"x"])).await,
        Err(SendError::UnknownSocket(CLIENT))
    );
    next(&mut heard).await;
    next(&mut heard).await;
    // One that goes takes nobody with it, is not heard any more, and can come again.
    assert!(visitor.visit(name.clone(), doors()).is_none());
    let other = visitor.clone();
    timeout(DEADLINE, visitor.close()).await.unwrap();
    assert_eq!(heard.recv().await, None);
    assert_eq!(
        other.deliver(ASKS, frames([b"x"])).await,
        Err(SendError::Closed)
    );
    drop(other);
    let (visitor, mut heard) = sockets.visit(name.clone(), doors()).unwrap();
    visitor.send_all((0..1000).map(|_| (ASKS, frames([b"many"]))));
    for _ in 0..2000 {
        assert_eq!(next(&mut heard).await, frames([b"many"]));
    }
    // The sockets' end is the receiver's.
    client.send(CLIENT, frames([b"last"]));
    assert_eq!(next(&mut heard).await, frames([b"last"]));
    let closing = tokio::spawn(sockets.close());
    assert_eq!(timeout(DEADLINE, heard.recv()).await.unwrap(), None);
    timeout(DEADLINE, closing).await.unwrap().unwrap();
    assert_eq!(
        visitor.deliver(ASKS, frames([b"x"])).await,
        Err(SendError::Closed)
    );
}
