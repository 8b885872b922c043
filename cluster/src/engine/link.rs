//! The connection to a controller: registration, the heart, control requests; made anew when it breaks.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use protocol::{
    Message, Received, SendError, Session, SocketId, SocketOptions, SocketType, Sockets,
    SocketsBuilder,
};
use serde_json::{Map, Value, json};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

use super::line::{CONTROL, IOPUB, Line, PING, PONG, SHELL, raw};
use super::{Command, Job, Shared};
use crate::connection::EngineFile;
use crate::controller::{HELLO, OURS};
use crate::executor::WorkId;
use crate::{EngineId, Error};

const REGISTRATION: SocketId = SocketId(0);
/// How long the controller may take to answer a registration.
const ANSWER: Duration = Duration::from_secs(10);
/// Beats that may be missed before the controller counts as gone, and the least time that this takes.
const MISSES: u32 = 5;
const SILENCE: Duration = Duration::from_secs(3);
/// How long clients' iopub may take to appear before the engine goes on without.
const LISTENERS: Duration = Duration::from_secs(2);
/// Between attempts: from, to.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(1), Duration::from_secs(1));

pub(super) struct Link {
    pub(super) path: PathBuf,
    pub(super) patience: Duration,
    pub(super) uuid: String,
    pub(super) id: Option<EngineId>,
    pub(super) shared: Arc<Shared>,
    pub(super) jobs: mpsc::UnboundedSender<Job>,
    pub(super) commands: mpsc::UnboundedSender<Command>,
    /// Jobs so far.
    pub(super) count: AtomicU64,
}

/// A connection that is registered.
struct Registered {
    line: Line,
    inbox: mpsc::UnboundedReceiver<Received>,
    registrar: Sockets,
    /// Whether the controller tells when the engine is registered.
    ours: bool,
    silence: Duration,
}

enum End {
    /// The controller has gone, or does not know this engine any more.
    Lost,
    /// The engine is to end.
    Over,
}

impl Link {
    pub(super) async fn serve(
        &mut self,
        ready: impl FnOnce(EngineId, &str),
        stop: impl Future<Output = ()>,
    ) -> Result<(), Error> {
        let mut stop = std::pin::pin!(stop);
        let mut ready = Some(ready);
        loop {
            let mut connected = tokio::select! {
                connected = self.connect(ready.is_none()) => connected?,
                () = &mut stop => return Ok(()),
            };
            self.id = Some(connected.line.id);
            let id = connected.line.id;
            self.shared.line.send_replace(Some(connected.line.clone()));
            let end = tokio::select! {
                end = self.follow(&mut connected, || {
                    if let Some(ready) = ready.take() {
                        ready(id, &self.uuid);
                    }
                }) => end,
                () = &mut stop => End::Over,
            };
            if let End::Over = end {
                self.leave(connected).await;
                return Ok(());
            }
            tracing::warn!("the controller has gone; looking for it");
            self.shared.line.send_replace(None);
        }
    }

    /// Registers, again and again when it is to find a controller that has gone.
    async fn connect(&self, again: bool) -> Result<Registered, Error> {
        let give_up = Instant::now() + self.patience;
        let mut pause = BACK_OFF.0 * 50;
        loop {
            match self.register().await {
                Err(error @ (Error::NoConnectionFile { .. } | Error::NoAnswer { .. }))
                    if again && Instant::now() < give_up =>
                {
                    tracing::info!("{}", error.chain());
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(BACK_OFF.1);
                }
                outcome => return outcome,
            }
        }
    }

    async fn register(&self) -> Result<Registered, Error> {
        let file = EngineFile::read(&self.path)?;
        let session = Session::new(&file.common.key);
        let named = || SocketOptions {
            identity: Some(Bytes::from(self.uuid.clone())),
            // Registration may be to a controller that is gone: nothing waits for it.
            linger: Duration::from_millis(200),
            ..SocketOptions::default()
        };
        let endpoint = file.endpoint(file.registration);
        let (registrar, mut answers) = SocketsBuilder::new()
            .connect(REGISTRATION, SocketType::DEALER, &endpoint)
            .options(REGISTRATION, named())
            .start()?;
        let holds: Vec<String> = self.shared.holds().keys().cloned().collect();
        let mut content = json!({"uuid": self.uuid, "hello": true, "holds": holds});
        if let (Some(id), Value::Object(content)) = (self.id, &mut content) {
            content.insert("id".to_owned(), json!(id));
        }
        let request = session.raw_message("registration_request", raw(&content), None);
        registrar.send(REGISTRATION, session.encode(&request));
        let answer = async {
            loop {
                let received = answers.recv().await?;
                match session.decode(received.frames) {
                    Ok(message) if message.msg_type() == "registration_reply" => {
                        return Some(message.parse::<Value>().unwrap_or_default());
                    }
                    Ok(_) => {}
                    Err(error) => tracing::warn!(%error, "a message is dropped"),
                }
            }
        };
        let answer = timeout(ANSWER, answer).await.ok().flatten();
        let answer = answer.ok_or(Error::NoAnswer {
            endpoint,
            waited: ANSWER,
        })?;
        let id: Option<EngineId> = serde_json::from_value(answer["id"].clone()).ok();
        let id = match id {
            Some(id) if answer["status"] == "ok" => id,
            _ => {
                let reason = answer["evalue"].as_str();
                return Err(Error::Refused {
                    reason: reason.unwrap_or("its answer makes no sense").to_owned(),
                });
            }
        };
        let leaf = usize::try_from(id.0).unwrap_or(0) % file.broadcast.len().max(1);
        let mut builder = SocketsBuilder::new();
        for port in [Some(&file.mux), Some(&file.task), file.broadcast.get(leaf)]
            .into_iter()
            .flatten()
        {
            builder = builder.connect(SHELL, SocketType::ROUTER, file.endpoint(*port));
        }
        let (sockets, mut inbox) = builder
            .connect(CONTROL, SocketType::ROUTER, file.endpoint(file.control))
            .connect(IOPUB, SocketType::XPUB, file.endpoint(file.iopub))
            .connect(PING, SocketType::SUB, file.endpoint(file.hb_ping))
            .connect(PONG, SocketType::DEALER, file.endpoint(file.hb_pong))
            .options(SHELL, named())
            .options(CONTROL, named())
            .options(PONG, named())
            .start()?;
        let line = Line {
            sockets,
            session,
            uuid: self.uuid.clone(),
            id,
        };
        let names = serde_json::from_value::<Vec<String>>(answer["hello"].clone()).ok();
        if let Some(names) = &names {
            hello(&line, &mut inbox, names).await;
        }
        let period = Duration::from_millis(answer["hb_period"].as_u64().unwrap_or(3000));
        Ok(Registered {
            line,
            inbox,
            registrar,
            ours: names.is_some(),
            silence: (period * MISSES).max(SILENCE),
        })
    }

    /// Serves the connection until it ends.
    async fn follow(&self, connected: &mut Registered, ready: impl FnOnce()) -> End {
        let line = connected.line.clone();
        let mut ready = Some(ready);
        let mut heard = Instant::now();
        loop {
            let received = tokio::select! {
                received = connected.inbox.recv() => received,
                () = tokio::time::sleep_until(heard + connected.silence) => return End::Lost,
            };
            let Some(received) = received else {
                return End::Lost;
            };
            match received.socket {
                PING => {
                    heard = Instant::now();
                    let mut frames = received.frames;
                    // ipyparallel's controller takes a beat for its own only if it is one frame.
                    if connected.ours {
                        frames.push(Bytes::from_static(OURS));
                    }
                    line.sockets.send(PONG, frames);
                    // Controllers that know no hello say nothing more: the first beat is their word.
                    if !connected.ours
                        && let Some(ready) = ready.take()
                    {
                        ready();
                    }
                }
                PONG => match received.frames.last().map(|frame| &frame[..]) {
                    Some(b"registered") => {
                        if let Some(ready) = ready.take() {
                            ready();
                        }
                    }
                    Some(b"register") => return End::Lost,
                    _ => {}
                },
                SHELL | CONTROL => match line.session.decode(received.frames) {
                    Ok(message) => {
                        if self.on_request(&line, received.socket, message) {
                            return End::Over;
                        }
                    }
                    Err(error) => tracing::warn!(%error, "a message is dropped"),
                },
                _ => {}
            }
        }
    }

    /// Answers what must not wait and queues everything else. Says whether the engine is to end.
    fn on_request(&self, line: &Line, socket: SocketId, request: Message) -> bool {
        let content: Value = match request.msg_type() {
            "interrupt_request" | "signal_request" | "abort_request" | "shutdown_request" => {
                request.parse().unwrap_or_default()
            }
            _ => Value::Null,
        };
        let ok = json!({"status": "ok"});
        let answer = |content: &Value| line.reply(socket, &request, content, Map::new());
        match request.msg_type() {
            "interrupt_request" => {
                self.interrupt();
                answer(&ok);
            }
            "signal_request" => {
                let interrupts = match &content["sig"] {
                    Value::String(name) => name == "SIGINT",
                    number => number.as_i64() == Some(libc::SIGINT.into()),
                };
                if interrupts {
                    self.interrupt();
                    answer(&ok);
                } else {
                    let evalue = format!("an engine takes SIGINT only, not {}", content["sig"]);
                    answer(&crate::failure::hub_error("ValueError", evalue));
                }
            }
            "abort_request" => {
                let ids: Vec<String> = match &content["msg_ids"] {
                    Value::String(id) => vec![id.clone()],
                    ids => serde_json::from_value(ids.clone()).unwrap_or_default(),
                };
                // Chorus's own: an interrupt of these requests and of no other.
                self.abort(ids, content["running"] == true);
                answer(&ok);
            }
            "shutdown_request" => {
                let content = json!({"status": "ok", "restart": content["restart"] == true});
                answer(&content);
                line.publish_as("shutdown_reply", &request.header, &content);
                return true;
            }
            _ => {
                let message = request;
                let id = WorkId(self.count.fetch_add(1, Ordering::Relaxed) + 1);
                if message.msg_type().ends_with("_request") {
                    let name = message.header.msg_id.clone();
                    if self.shared.aborted().remove(&name) {
                        self.command(Command::Abort {
                            ids: vec![id],
                            running: false,
                        });
                    }
                    self.shared.holds().insert(name, id);
                }
                // The worker ends after this link only.
                let _ = self.jobs.send(Job {
                    id,
                    socket,
                    message,
                });
            }
        }
        false
    }

    /// Aborts requests, also those that have not come yet.
    fn abort(&self, ids: Vec<String>, running: bool) {
        let holds = self.shared.holds();
        let (held, early): (Vec<_>, Vec<_>) = ids
            .into_iter()
            .map(|name| holds.get(&name).copied().ok_or(name))
            .partition(Result::is_ok);
        drop(holds);
        let early = early.into_iter().filter_map(Result::err);
        self.shared.aborted().extend(early);
        self.command(Command::Abort {
            ids: held.into_iter().flatten().collect(),
            running,
        });
    }

    fn interrupt(&self) {
        self.command(Command::Interrupt);
    }

    fn command(&self, command: Command) {
        // The worker ends after this link only.
        let _ = self.commands.send(command);
    }

    /// Tells the controller that the engine ends.
    async fn leave(&self, connected: Registered) {
        let Registered {
            line, registrar, ..
        } = connected;
        let content = json!({"id": line.id, "uuid": self.uuid});
        let message = line
            .session
            .raw_message("unregistration_request", raw(&content), None);
        registrar.send(REGISTRATION, line.session.encode(&message));
        self.shared.line.send_replace(None);
        tokio::join!(registrar.close(), line.sockets.close());
    }
}

/// Makes sure that requests can reach this engine and that its output is heard, and says so.
async fn hello(line: &Line, inbox: &mut mpsc::UnboundedReceiver<Received>, names: &[String]) {
    // Nothing but a subscription comes before the controller knows of the engine; beats may, and are not missed.
    let subscribed = async {
        while let Some(received) = inbox.recv().await {
            if received.socket == IOPUB {
                return;
            }
        }
    };
    if timeout(LISTENERS, subscribed).await.is_err() {
        tracing::warn!("the controller does not listen to this engine's output yet");
    }
    let message = line.session.raw_message(HELLO, raw(&json!({})), None);
    for name in names {
        let socket = match name.as_str() {
            "control_out" => CONTROL,
            _ => SHELL,
        };
        let mut pause = BACK_OFF.0;
        loop {
            // A message of its own each time, or the second would look like a replay of the first.
            let mut message = message.clone();
            message.header.msg_id = uuid::Uuid::new_v4().to_string();
            message.identities = vec![Bytes::from(name.clone())];
            let sent = line.sockets.deliver(socket, line.session.encode(&message));
            match sent.await {
                Err(SendError::Unroutable) => tokio::time::sleep(pause).await,
                _ => break,
            }
            pause = (pause * 2).min(BACK_OFF.1);
        }
    }
    let beat = vec![Bytes::from_static(b"hello"), Bytes::from_static(OURS)];
    line.sockets.send(PONG, beat);
}
