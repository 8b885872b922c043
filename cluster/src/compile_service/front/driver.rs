//! The front's sockets: tells the core what happens, and does what it decides.

use std::collections::HashMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use tokio::net::{UnixListener, UnixStream};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, sleep_until, timeout};

use super::Arguments;
use super::core::{ConnectionId, Core, Effect, Event, Limits, WorkerId};
use super::process::{self, WorkerProcess};
use crate::compile_service::ServiceError;
use crate::compile_service::address::own_uid;
use crate::compile_service::frame::{FrameReader, encode, spawn_writer};
use crate::compile_service::message::{
    ClientMessage, RequestError, ServiceMessage, Status, WorkerStatus,
};

/// How long to wait before connections are accepted again after that failed.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);
/// How long clients may take to read their last messages.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);
/// How long workers may take to end with the front: they are killed before.
const WORKERS_END_TIMEOUT: Duration = Duration::from_secs(5);

struct Connection {
    frames: mpsc::UnboundedSender<Vec<u8>>,
    writer: JoinHandle<()>,
    reader: JoinHandle<()>,
}

struct Driver {
    core: Core,
    worker_arguments: Vec<OsString>,
    began: Instant,
    started: Timestamp,
    events: mpsc::UnboundedSender<Event>,
    connections: HashMap<ConnectionId, Connection>,
    next_connection: u64,
    workers: HashMap<WorkerId, WorkerProcess>,
    /// What is left to be done before the process ends.
    last_writers: JoinSet<()>,
}

/// The socket's file, which is removed while the listener is still open: a client that finds none starts another service, and
/// that service's file is not to be removed.
struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.0) {
            tracing::warn!(%error, "failed to remove the socket");
        }
    }
}

/// Serves until the core exits.
pub(super) async fn run(
    listener: UnixListener,
    arguments: &Arguments,
    limits: Limits,
) -> Result<(), ServiceError> {
    let socket = SocketFile(arguments.socket.clone());
    let mut signals = Signals::new(&arguments.socket)?;
    let (events, mut received) = mpsc::unbounded_channel();
    let mut driver = Driver {
        core: Core::new(limits),
        worker_arguments: arguments.worker.clone(),
        began: Instant::now(),
        started: Timestamp::now(),
        events,
        connections: HashMap::new(),
        next_connection: 0,
        workers: HashMap::new(),
        last_writers: JoinSet::new(),
    };
    let mut accept_after = None;
    loop {
        let deadline = driver.core.deadline().map(|at| driver.began + at);
        let event = tokio::select! {
            Some(event) = received.recv() => event,
            accepted = accept(&listener, accept_after) => match accepted {
                Ok(stream) => {
                    accept_after = None;
                    match driver.admit(stream) {
                        Some(event) => event,
                        None => continue,
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "failed to accept a connection");
                    accept_after = Some(Instant::now() + ACCEPT_BACKOFF);
                    continue;
                }
            },
            () = sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => Event::Time,
            () = signals.wait() => Event::Stop,
        };
        if driver.apply(event) {
            break;
        }
    }
    drop(socket);
    drop(listener);
    driver.end(received).await;
    Ok(())
}

async fn accept(listener: &UnixListener, after: Option<Instant>) -> std::io::Result<UnixStream> {
    if let Some(after) = after {
        sleep_until(after).await;
    }
    let (stream, _) = listener.accept().await?;
    Ok(stream)
}

/// The signals that end the process in an orderly way.
struct Signals([Signal; 3]);

impl Signals {
    fn new(socket: &Path) -> Result<Self, ServiceError> {
        let listen = |kind| signal(kind).map_err(ServiceError::io("listen to signals for", socket));
        Ok(Self([
            listen(SignalKind::terminate())?,
            listen(SignalKind::interrupt())?,
            listen(SignalKind::hangup())?,
        ]))
    }

    async fn wait(&mut self) {
        let [terminate, interrupt, hangup] = &mut self.0;
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            _ = hangup.recv() => {}
        }
    }
}

impl Driver {
    /// Lets a client in, unless it is another user's.
    fn admit(&mut self, stream: UnixStream) -> Option<Event> {
        match stream.peer_cred() {
            Ok(peer) if peer.uid() == own_uid() => {}
            Ok(peer) => {
                tracing::warn!(uid = peer.uid(), "another user's process is turned away");
                return None;
            }
            Err(error) => {
                tracing::warn!(%error, "a client of an unknown user is turned away");
                return None;
            }
        }
        self.next_connection += 1;
        let id = ConnectionId(self.next_connection);
        let (read, write) = stream.into_split();
        let (frames, writer) = spawn_writer(write);
        if let Ok(welcome) = encode(&ServiceMessage::Welcome) {
            let _ = frames.send(welcome);
        }
        let events = self.events.clone();
        let reader = tokio::spawn(async move {
            let mut reader = FrameReader::new(read);
            loop {
                match reader.next::<ClientMessage>().await {
                    Ok(Some(message)) => {
                        let _ = events.send(Event::Received(id, message));
                    }
                    Ok(None) => break,
                    Err(error) => {
                        let error = protocol::chain(&error);
                        tracing::warn!(error, "a client is disconnected");
                        break;
                    }
                }
            }
            let _ = events.send(Event::Disconnected(id));
        });
        let connection = Connection {
            frames,
            writer,
            reader,
        };
        self.connections.insert(id, connection);
        Some(Event::Connected(id))
    }

    /// Says whether the front is to end.
    fn apply(&mut self, event: Event) -> bool {
        match &event {
            Event::Disconnected(connection) => self.close(*connection),
            Event::WorkerEnded { worker, .. } => drop(self.workers.remove(worker)),
            _ => {}
        }
        let mut ends = false;
        for effect in self.core.on_event(self.began.elapsed(), event) {
            match effect {
                Effect::Send(connection, message) => self.send(connection, &message),
                Effect::Close(connection) => self.close(connection),
                Effect::SendStatus(connection) => {
                    let status = ServiceMessage::Status(self.status());
                    self.send(connection, &status);
                }
                Effect::StartWorker { worker, key } => {
                    let arguments = &self.worker_arguments;
                    let process = process::start(worker, &key, arguments, self.events.clone());
                    self.workers.extend(process.map(|it| (worker, it)));
                }
                Effect::ToWorker(worker, request) => {
                    if let Some(process) = self.workers.get(&worker) {
                        process.send(&request);
                    }
                }
                Effect::EndWorker(worker) => {
                    if let Some(process) = self.workers.get_mut(&worker) {
                        process.end();
                    }
                }
                Effect::Exit => ends = true,
            }
        }
        ends
    }

    fn send(&self, connection: ConnectionId, message: &ServiceMessage) {
        let Some(connection) = self.connections.get(&connection) else {
            return;
        };
        // An answer that a worker could just send may be too long with the client's id.
        let frame = encode(message).or_else(|error| match message {
            ServiceMessage::Reply { id, .. } => encode(&ServiceMessage::Reply {
                id: *id,
                result: Err(RequestError::Worker {
                    reason: error.to_string(),
                }),
            }),
            _ => Err(error),
        });
        match frame {
            // One that is gone is told of by its reader.
            Ok(frame) => drop(connection.frames.send(frame)),
            Err(error) => tracing::error!(%error, "a message cannot be sent"),
        }
    }

    fn close(&mut self, connection: ConnectionId) {
        if let Some(connection) = self.connections.remove(&connection) {
            connection.reader.abort();
        }
    }

    fn status(&self) -> Status {
        let now = self.began.elapsed();
        let workers = self.core.workers().map(|it| {
            let pid = self.workers.get(&it.worker).map(WorkerProcess::pid);
            WorkerStatus {
                pid,
                affinity: it.affinity,
                state: it.state,
                state_seconds: now.saturating_sub(it.since).as_secs_f64(),
                memory: pid.map_or(0, process::resident_memory),
                served: it.served,
            }
        });
        Status {
            pid: std::process::id(),
            started: self.started,
            connections: self.core.connections(),
            queued: self.core.queued(),
            workers: workers.collect(),
        }
    }

    /// Ends the workers, and closes the connections once they are gone.
    async fn end(mut self, mut received: mpsc::UnboundedReceiver<Event>) {
        for process in self.workers.values_mut() {
            process.end();
        }
        let workers = async {
            while !self.workers.is_empty() {
                match received.recv().await {
                    Some(Event::WorkerEnded { worker, .. }) => drop(self.workers.remove(&worker)),
                    Some(_) => {}
                    None => return,
                }
            }
        };
        if timeout(WORKERS_END_TIMEOUT, workers).await.is_err() {
            tracing::error!("workers do not end although they were killed");
        }
        for (_, connection) in self.connections.drain() {
            connection.reader.abort();
            drop(connection.frames);
            self.last_writers
                .spawn(async move { drop(connection.writer.await) });
        }
        let flushed = async { while self.last_writers.join_next().await.is_some() {} };
        if timeout(FLUSH_TIMEOUT, flushed).await.is_err() {
            tracing::warn!("a client does not read its last messages");
        }
    }
}
