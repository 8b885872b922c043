//! A client: one task owns the connection, handles submit requests to it.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use serde_json::Value;
use serde_json::value::{RawValue, to_raw_value};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use super::frame::{FrameError, encode};
use super::link::Link;
use super::message::{ClientMessage, ServiceMessage, Status};
use super::start::{connect, connect_or_start};
use super::{Address, Request, RequestError, ServiceConfig, ServiceError};

/// How long a service may take to answer for its status.
const STATUS_TIMEOUT: Duration = Duration::from_secs(5);
/// How often a service is asked whether it is there, while requests are in flight.
const PING_INTERVAL: Duration = Duration::from_secs(2);
/// How long a service may say nothing then: its process never waits for a worker.
const SILENCE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a service may take to end: its workers have a second before they are killed.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// A connection to a compile service. Clones share it; it closes with the last of them and of their requests.
///
/// When it breaks, the requests in flight are repeated once with a service that is started anew.
#[derive(Clone, Debug)]
pub struct Client {
    commands: mpsc::UnboundedSender<Command>,
    next_id: Arc<AtomicU64>,
}

#[derive(Debug)]
enum Command {
    Submit {
        id: u64,
        frame: Vec<u8>,
        reply: oneshot::Sender<Result<Value, ServiceError>>,
    },
    Cancel {
        id: u64,
    },
    Activity {
        id: u64,
        answer: oneshot::Sender<Option<String>>,
    },
}

impl Client {
    /// Connects to the service at [`Address::find`], and starts it when no process answers. Has to be called within a tokio
    /// runtime, which the connection's task stays in.
    ///
    /// # Errors
    /// When there is no folder for its socket, or it does not start within 10 s.
    pub async fn open(config: ServiceConfig) -> Result<Self, ServiceError> {
        let address = Address::find(&config.id)?;
        Self::open_at(address, config).await
    }

    /// As [`Client::open`], with the service at another address.
    ///
    /// # Errors
    /// As [`Client::open`].
    pub async fn open_at(address: Address, config: ServiceConfig) -> Result<Self, ServiceError> {
        let link = connect_or_start(&address, &config).await?;
        let (commands, received) = mpsc::unbounded_channel();
        let task = Task {
            address,
            config,
            link: Some(link),
            in_flight: BTreeMap::new(),
            heard: Instant::now(),
        };
        tokio::spawn(task.run(received));
        Ok(Self {
            commands,
            next_id: Arc::default(),
        })
    }

    /// Submits a request. The result is a future of the answer; dropping it cancels the request.
    pub fn submit(&self, request: &Request) -> Pending {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let (reply, answer) = oneshot::channel();
        match request_frame(id, request) {
            Ok(frame) => {
                let command = Command::Submit { id, frame, reply };
                // The answer says so if the task has ended.
                let _ = self.commands.send(command);
            }
            Err(error) => drop(reply.send(Err(error.into()))),
        }
        Pending {
            id,
            commands: self.commands.clone(),
            answer: Some(answer),
        }
    }

    /// Submits a request and waits for the answer. Dropping the future cancels the request.
    ///
    /// # Errors
    /// As the future [`Pending`].
    pub async fn request(&self, request: &Request) -> Result<Value, ServiceError> {
        self.submit(request).await
    }
}

fn request_frame(id: u64, request: &Request) -> Result<Vec<u8>, FrameError> {
    encode(&ClientMessage::Request {
        id,
        key: request.key.clone(),
        affinity: request.affinity.clone(),
        is_minor: request.is_minor,
        payload: to_raw_value(&request.payload)?,
    })
}

/// A request in flight: a future of what the handler answered. Dropping it cancels the request.
///
/// It fails when the service answers with an error, was lost twice, or cannot be started again.
#[derive(Debug)]
pub struct Pending {
    id: u64,
    commands: mpsc::UnboundedSender<Command>,
    /// `None` once it was given.
    answer: Option<oneshot::Receiver<Result<Value, ServiceError>>>,
}

impl Pending {
    /// A way to ask about the request, for as long as it is in flight.
    pub fn inquiry(&self) -> Inquiry {
        Inquiry {
            id: self.id,
            commands: self.commands.downgrade(),
        }
    }
}

/// Asks about a request in flight. Keeps no connection open.
#[derive(Clone, Debug)]
pub struct Inquiry {
    id: u64,
    commands: mpsc::WeakUnboundedSender<Command>,
}

impl Inquiry {
    /// Asks what is being done for the request: what its worker's handler says, or that it waits for a worker. `None` when
    /// nothing is known, or the answer has come.
    pub async fn activity(&self) -> Option<String> {
        let (answer, activity) = oneshot::channel();
        let command = Command::Activity {
            id: self.id,
            answer,
        };
        self.commands.upgrade()?.send(command).ok()?;
        activity.await.ok().flatten()
    }
}

impl Future for Pending {
    type Output = Result<Value, ServiceError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(answer) = &mut self.answer else {
            return Poll::Pending;
        };
        let outcome = std::task::ready!(Pin::new(answer).poll(context));
        self.answer = None;
        Poll::Ready(outcome.unwrap_or(Err(ServiceError::ClientEnded)))
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if self.answer.is_some() {
            // A task that has ended has closed its connection, which cancels too.
            let _ = self.commands.send(Command::Cancel { id: self.id });
        }
    }
}

#[derive(Debug)]
struct InFlight {
    frame: Vec<u8>,
    reply: oneshot::Sender<Result<Value, ServiceError>>,
    /// The connection broke once during the request.
    repeated: bool,
    /// Questions for the activity. One message is sent for all of them.
    asked: Vec<oneshot::Sender<Option<String>>>,
}

#[derive(Debug)]
struct Task {
    address: Address,
    config: ServiceConfig,
    /// `None` after it broke while nothing was in flight.
    link: Option<Link>,
    in_flight: BTreeMap<u64, InFlight>,
    /// When the service has said something, or been asked for the first time after a pause.
    heard: Instant,
}

impl Task {
    async fn run(mut self, mut commands: mpsc::UnboundedReceiver<Command>) {
        let mut ping = interval(PING_INTERVAL);
        ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ping.tick(), if !self.in_flight.is_empty() => self.ping().await,
                command = commands.recv() => match command {
                    Some(command) => self.on_command(command).await,
                    None => return,
                },
                message = next(&mut self.link) => match message {
                    Ok(Some(message)) => self.on_message(message),
                    Ok(None) => self.on_break().await,
                    Err(error) => {
                        let error = protocol::chain(&error);
                        tracing::warn!(error, "the connection to the compile service is broken");
                        self.on_break().await;
                    }
                },
            }
        }
    }

    async fn on_command(&mut self, command: Command) {
        match command {
            Command::Submit { id, frame, reply } => {
                let link = match &self.link {
                    Some(link) => link,
                    None => match connect_or_start(&self.address, &self.config).await {
                        Ok(link) => self.link.insert(link),
                        Err(error) => {
                            let _ = reply.send(Err(error));
                            return;
                        }
                    },
                };
                link.send_frame(frame.clone());
                if self.in_flight.is_empty() {
                    self.heard = Instant::now();
                }
                let request = InFlight {
                    frame,
                    reply,
                    repeated: false,
                    asked: Vec::new(),
                };
                self.in_flight.insert(id, request);
            }
            Command::Cancel { id } => {
                if self.in_flight.remove(&id).is_some()
                    && let Some(link) = &self.link
                {
                    link.send(&ClientMessage::Cancel { id });
                }
            }
            Command::Activity { id, answer } => {
                // Otherwise the answer to the request has come, and this is dropped.
                if let Some(request) = self.in_flight.get_mut(&id)
                    && let Some(link) = &self.link
                {
                    if request.asked.is_empty() {
                        link.send(&ClientMessage::Activity { id });
                    }
                    request.asked.push(answer);
                }
            }
        }
    }

    async fn ping(&mut self) {
        if self.heard.elapsed() > SILENCE_TIMEOUT {
            tracing::warn!("the compile service does not answer");
            self.on_break().await;
        } else if let Some(link) = &self.link {
            link.send(&ClientMessage::Ping);
        }
    }

    fn on_message(&mut self, message: ServiceMessage) {
        self.heard = Instant::now();
        match message {
            ServiceMessage::Reply { id, result } => {
                // One that was cancelled may have been answered before.
                if let Some(request) = self.in_flight.remove(&id) {
                    let _ = request.reply.send(understand(result));
                }
            }
            ServiceMessage::Activity { id, activity } => {
                if let Some(request) = self.in_flight.get_mut(&id) {
                    for asked in request.asked.drain(..) {
                        let _ = asked.send(activity.clone());
                    }
                }
            }
            ServiceMessage::Welcome | ServiceMessage::Pong | ServiceMessage::Status(_) => {}
        }
    }

    /// The connection is broken: repeats what was in flight, but nothing twice.
    async fn on_break(&mut self) {
        self.link = None;
        let mut repeated = BTreeMap::new();
        for (id, mut request) in std::mem::take(&mut self.in_flight) {
            if request.repeated {
                let log = self.address.log();
                let _ = request.reply.send(Err(ServiceError::Lost { log }));
                continue;
            }
            request.repeated = true;
            request.asked.clear();
            repeated.insert(id, request);
        }
        if repeated.is_empty() {
            return;
        }
        match connect_or_start(&self.address, &self.config).await {
            Ok(link) => {
                for request in repeated.values() {
                    link.send_frame(request.frame.clone());
                }
                self.in_flight = repeated;
                self.link = Some(link);
                self.heard = Instant::now();
            }
            Err(error) => {
                for request in repeated.into_values() {
                    let _ = request.reply.send(Err(error.clone()));
                }
            }
        }
    }
}

async fn next(link: &mut Option<Link>) -> Result<Option<ServiceMessage>, FrameError> {
    match link {
        Some(link) => link.next().await,
        None => std::future::pending().await,
    }
}

fn understand(result: Result<Box<RawValue>, RequestError>) -> Result<Value, ServiceError> {
    let text = result?;
    serde_json::from_str(text.get()).map_err(|error| FrameError::from(error).into())
}

/// Asks a service how it is; `None` when none runs there. Starts no service.
///
/// # Errors
/// When it does not answer within 5 s.
pub async fn status(address: &Address) -> Result<Option<Status>, ServiceError> {
    let Some(mut link) = connect(address).await? else {
        return Ok(None);
    };
    ask_status(&mut link).await.map(Some)
}

async fn ask_status(link: &mut Link) -> Result<Status, ServiceError> {
    link.send(&ClientMessage::Status);
    let answer = async {
        while let Some(message) = link.next().await? {
            if let ServiceMessage::Status(status) = message {
                return Ok(status);
            }
        }
        Err(ServiceError::Closed)
    };
    timeout(STATUS_TIMEOUT, answer)
        .await
        .unwrap_or(Err(ServiceError::Closed))
}

/// Ends a service with its workers, and waits until they have ended. Says whether one ran. Requests in flight fail with
/// [`RequestError::Stopped`]. Starts no service.
///
/// # Errors
/// When it does not end within 10 s.
pub async fn stop(address: &Address) -> Result<bool, ServiceError> {
    let Some(mut link) = connect(address).await? else {
        return Ok(false);
    };
    let pid = ask_status(&mut link).await?.pid;
    link.send(&ClientMessage::Stop);
    // A broken connection is an end too.
    let ended = async { while let Ok(Some(_)) = link.next().await {} };
    match timeout(STOP_TIMEOUT, ended).await {
        Ok(()) => Ok(true),
        Err(_) => Err(ServiceError::StillRunning { pid }),
    }
}
