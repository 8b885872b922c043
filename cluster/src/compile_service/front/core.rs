//! The front without its socket and processes: events in, effects out. `dispatch` is what it does with its queue.
//!
//! Requests wait in one queue, oldest first. A worker serves one key, one request at a time.
//!
//! - A request goes to an idle worker of its key: the one that served its affinity last, else the one that was busy last.
//! - A worker is started for a request when its key has none, and, unless it is a minor one, when all of the key's are busy for
//!   [`Limits::start_delay`], or one whose request was cancelled for [`Limits::abandon_delay`].
//! - A worker that had to move from one state to another for its last affinity is spared another move: while there is room, another worker is
//!   started for another affinity.
//!   At [`Limits::max_workers`], an idle or abandoned worker is ended to make room.
//! - A worker that has not come back [`Limits::cancel_timeout`] after its request was cancelled is ended.
//! - A request whose worker died is repeated once, on a worker that is started for it.
//! - Extra idle workers (a key has others, or it is of no client, but others are) end after [`Limits::worker_idle`], the front after [`Limits::idle`] without connections.

mod dispatch;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::time::Duration;

use serde_json::value::RawValue;

use crate::compile_service::message::{
    ClientMessage, RequestError, ServiceMessage, WorkerReply, WorkerRequest, WorkerState,
};

/// Workers of a key that may die one after the other before they are ready.
pub(super) const START_ATTEMPTS: u32 = 5;

/// The front's settings.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Workers of all keys, at least 1.
    pub(super) max_workers: usize,
    /// How long a request waits for a busy worker before another one is started.
    pub(super) start_delay: Duration,
    /// How long a request waits for a worker whose request was cancelled.
    pub(super) abandon_delay: Duration,
    /// How long a worker may take to come back from a cancelled request.
    pub(super) cancel_timeout: Duration,
    /// How long an extra worker may be idle.
    pub(super) worker_idle: Duration,
    /// How long the front stays without connections.
    pub(super) idle: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct ConnectionId(pub(super) u64);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct WorkerId(pub(super) u64);

/// A request's id at its worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct RequestId(pub(super) u64);

/// What happens.
#[derive(Debug)]
pub(super) enum Event {
    /// A client of the same user has connected.
    Connected(ConnectionId),
    Received(ConnectionId, ClientMessage),
    /// A client has closed its connection, or has sent what is no message.
    Disconnected(ConnectionId),
    FromWorker(WorkerId, WorkerReply),
    /// A worker's process has ended, or could not be started. Nothing comes from it any more.
    WorkerEnded {
        worker: WorkerId,
        /// How, for people.
        status: String,
        /// The last lines of its standard error.
        stderr: String,
    },
    /// [`Core::deadline`] has passed.
    Time,
    /// The process is told to end.
    Stop,
}

/// What is to be done.
#[derive(Debug)]
pub(super) enum Effect {
    Send(ConnectionId, ServiceMessage),
    /// Closes a connection that broke the rules.
    Close(ConnectionId),
    /// Answers with [`Core::workers`] and what the system knows of their processes.
    SendStatus(ConnectionId),
    /// Starts a process; [`WorkerReply::Ready`] or [`Event::WorkerEnded`] follows.
    StartWorker {
        worker: WorkerId,
        key: String,
    },
    ToWorker(WorkerId, WorkerRequest),
    /// Ends a process; [`Event::WorkerEnded`] follows.
    EndWorker(WorkerId),
    /// Ends the front, with all workers.
    Exit,
}

#[derive(Debug)]
struct Request {
    /// Who waits for the answer: a client, and its id for the request. `None` once it is cancelled.
    client: Option<(ConnectionId, u64)>,
    /// When it was cancelled, if a worker is at it.
    cancelled: Option<Duration>,
    key: String,
    affinity: String,
    is_minor: bool,
    payload: Box<RawValue>,
    came: Duration,
    /// Its worker died once.
    repeated: bool,
    /// The client waits to be told what is being done.
    asked: bool,
}

#[derive(Debug)]
struct Worker {
    key: String,
    affinity: Option<String>,
    state: State,
    since: Duration,
    ready: Option<Duration>,
    served: u64,
    /// When it last had to move.
    moved: Option<Duration>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Starting,
    Idle,
    Busy(RequestId),
    Ending,
}

impl Worker {
    /// Whether it serves requests, or will.
    fn is_live(&self) -> bool {
        self.state != State::Ending
    }

    fn enter(&mut self, state: State, now: Duration) {
        self.state = state;
        self.since = now;
    }
}

/// What the core knows of a worker.
#[derive(Debug, PartialEq)]
pub(super) struct WorkerSummary {
    pub(super) worker: WorkerId,
    pub(super) key: String,
    pub(super) affinity: Option<String>,
    pub(super) state: WorkerState,
    pub(super) since: Duration,
    pub(super) served: u64,
}

/// The front's state. All times are since its start.
#[derive(Debug)]
pub(super) struct Core {
    limits: Limits,
    /// Each with the keys that it has used.
    connections: BTreeMap<ConnectionId, BTreeSet<String>>,
    /// All that wait or run.
    requests: BTreeMap<RequestId, Request>,
    /// Those that wait.
    queue: VecDeque<RequestId>,
    workers: BTreeMap<WorkerId, Worker>,
    /// By key: the workers in a row that died before they were ready.
    failed_starts: HashMap<String, u32>,
    /// Since when there has been no connection.
    alone_since: Duration,
    /// The time of the last event.
    last_event: Duration,
    next_id: u64,
    has_exited: bool,
}

impl Core {
    pub(super) fn new(mut limits: Limits) -> Self {
        limits.max_workers = limits.max_workers.max(1);
        Self {
            limits,
            connections: BTreeMap::new(),
            requests: BTreeMap::new(),
            queue: VecDeque::new(),
            workers: BTreeMap::new(),
            failed_starts: HashMap::new(),
            alone_since: Duration::ZERO,
            last_event: Duration::ZERO,
            next_id: 0,
            has_exited: false,
        }
    }

    /// The one way in. `now` is the time since the front's start.
    pub(super) fn on_event(&mut self, now: Duration, event: Event) -> Vec<Effect> {
        let mut effects = Vec::new();
        if self.has_exited {
            return effects;
        }
        self.last_event = now;
        match event {
            Event::Connected(connection) => {
                self.connections.insert(connection, BTreeSet::new());
            }
            Event::Received(connection, message) => {
                // One that was closed may have sent more before.
                if self.connections.contains_key(&connection) {
                    self.on_message(now, connection, message, &mut effects);
                }
            }
            Event::Disconnected(connection) => self.disconnect(now, connection, &mut effects),
            Event::FromWorker(worker, reply) => self.on_reply(now, worker, reply, &mut effects),
            Event::WorkerEnded {
                worker,
                status,
                stderr,
            } => self.on_worker_ended(worker, status, stderr, &mut effects),
            Event::Time => {}
            Event::Stop => self.exit(&mut effects),
        }
        if self.connections.is_empty() && now >= self.alone_since + self.limits.idle {
            self.exit(&mut effects);
        }
        if !self.has_exited {
            self.end_stuck_workers(now, &mut effects);
            self.dispatch(now, &mut effects);
            self.end_extra_workers(now, &mut effects);
        }
        effects
    }

    /// When [`Event::Time`] is due, if nothing else happens before.
    pub(super) fn deadline(&self) -> Option<Duration> {
        if self.has_exited {
            return None;
        }
        let alone = self
            .connections
            .is_empty()
            .then(|| self.alone_since + self.limits.idle);
        // A request whose delay has passed waits for another event: a worker that is free, or room for one.
        let delays = self
            .queue
            .iter()
            .filter_map(|id| self.patience_ends(self.requests.get(id)?))
            .filter(|patience| *patience > self.last_event);
        let idle = self
            .extra_idle_workers()
            .map(|(_, worker)| worker.since + self.limits.worker_idle);
        let stuck = self
            .cancelled_workers()
            .map(|(_, cancelled)| cancelled + self.limits.cancel_timeout);
        alone
            .into_iter()
            .chain(delays)
            .chain(idle)
            .chain(stuck)
            .min()
    }

    pub(super) fn connections(&self) -> usize {
        self.connections.len()
    }

    pub(super) fn queued(&self) -> usize {
        self.queue.len()
    }

    pub(super) fn workers(&self) -> impl Iterator<Item = WorkerSummary> {
        self.workers.iter().map(|(id, worker)| WorkerSummary {
            worker: *id,
            key: worker.key.clone(),
            affinity: worker.affinity.clone(),
            state: match worker.state {
                State::Starting => WorkerState::Starting,
                State::Idle => WorkerState::Idle,
                State::Busy(_) => WorkerState::Busy,
                State::Ending => WorkerState::Ending,
            },
            since: worker.since,
            served: worker.served,
        })
    }

    fn new_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    fn exit(&mut self, effects: &mut Vec<Effect>) {
        self.has_exited = true;
        let waiting = self.requests.values().filter_map(|request| request.client);
        effects.extend(waiting.map(|client| reply(client, Err(RequestError::Stopped))));
        effects.push(Effect::Exit);
    }

    // Clients.

    fn on_message(
        &mut self,
        now: Duration,
        connection: ConnectionId,
        message: ClientMessage,
        effects: &mut Vec<Effect>,
    ) {
        match message {
            ClientMessage::Request {
                id,
                key,
                affinity,
                is_minor,
                payload,
            } => {
                if self.find(connection, id).is_some() {
                    tracing::warn!("a client used an id twice and is disconnected");
                    effects.push(Effect::Close(connection));
                    self.disconnect(now, connection, effects);
                    return;
                }
                if let Some(keys) = self.connections.get_mut(&connection)
                    && !keys.contains(&key)
                {
                    keys.insert(key.clone());
                }
                let request = RequestId(self.new_id());
                self.queue.push_back(request);
                self.requests.insert(
                    request,
                    Request {
                        client: Some((connection, id)),
                        cancelled: None,
                        key,
                        affinity,
                        is_minor,
                        payload,
                        came: now,
                        repeated: false,
                        asked: false,
                    },
                );
            }
            ClientMessage::Cancel { id } => {
                if let Some(request) = self.find(connection, id) {
                    self.cancel(now, request, effects);
                }
            }
            ClientMessage::Activity { id } => self.ask_activity(connection, id, effects),
            ClientMessage::Ping => effects.push(Effect::Send(connection, ServiceMessage::Pong)),
            ClientMessage::Status => effects.push(Effect::SendStatus(connection)),
            ClientMessage::Stop => self.exit(effects),
        }
    }

    fn find(&self, connection: ConnectionId, id: u64) -> Option<RequestId> {
        self.requests
            .iter()
            .find(|(_, request)| request.client == Some((connection, id)))
            .map(|(request, _)| *request)
    }

    fn worker_of(&self, request: RequestId) -> Option<WorkerId> {
        self.workers
            .iter()
            .find(|(_, worker)| worker.state == State::Busy(request))
            .map(|(id, _)| *id)
    }

    fn cancel(&mut self, now: Duration, id: RequestId, effects: &mut Vec<Effect>) {
        if let Some(worker) = self.worker_of(id) {
            if let Some(request) = self.requests.get_mut(&id) {
                request.client = None;
                request.cancelled = Some(now);
                request.asked = false;
            }
            effects.push(Effect::ToWorker(worker, WorkerRequest::Cancel { id: id.0 }));
        } else {
            self.queue.retain(|queued| *queued != id);
            self.requests.remove(&id);
        }
    }

    fn disconnect(&mut self, now: Duration, connection: ConnectionId, effects: &mut Vec<Effect>) {
        if self.connections.remove(&connection).is_none() {
            return;
        }
        let left: Vec<RequestId> = self
            .requests
            .iter()
            .filter(|(_, request)| {
                request
                    .client
                    .is_some_and(|(client, _)| client == connection)
            })
            .map(|(id, _)| *id)
            .collect();
        for request in left {
            self.cancel(now, request, effects);
        }
        if self.connections.is_empty() {
            self.alone_since = now;
        }
    }

    fn ask_activity(&mut self, connection: ConnectionId, id: u64, effects: &mut Vec<Effect>) {
        let request = self.find(connection, id);
        let activity = match request.and_then(|request| self.worker_of(request)) {
            Some(worker) => {
                if let Some(request) = request
                    && let Some(asked) = self.requests.get_mut(&request)
                {
                    let question = WorkerRequest::Activity { id: request.0 };
                    asked.asked = true;
                    effects.push(Effect::ToWorker(worker, question));
                }
                return;
            }
            None => request.and_then(|request| self.queued_activity(request)),
        };
        let answer = ServiceMessage::Activity { id, activity };
        effects.push(Effect::Send(connection, answer));
    }

    fn queued_activity(&self, id: RequestId) -> Option<String> {
        let request = self.requests.get(&id)?;
        let is_starting = self.count_starting(&request.key) > 0;
        Some(match is_starting {
            true => "starting a compile worker".to_owned(),
            false => "waiting for a compile worker".to_owned(),
        })
    }

    // Workers.

    fn on_reply(
        &mut self,
        now: Duration,
        worker: WorkerId,
        said: WorkerReply,
        effects: &mut Vec<Effect>,
    ) {
        let Some(it) = self.workers.get_mut(&worker) else {
            return;
        };
        match said {
            WorkerReply::Ready if it.state == State::Starting => {
                it.enter(State::Idle, now);
                it.ready = Some(now);
                self.failed_starts.remove(&it.key);
            }
            WorkerReply::Reply {
                id,
                result,
                has_moved,
            } if it.state == State::Busy(RequestId(id)) => {
                it.enter(State::Idle, now);
                if has_moved {
                    it.moved = Some(now);
                }
                it.served += 1;
                let request = self.requests.remove(&RequestId(id));
                if let Some(client) = request.and_then(|request| request.client) {
                    let result = result.map_err(|reason| RequestError::Worker { reason });
                    effects.push(reply(client, result));
                }
            }
            WorkerReply::Activity { id, activity } => {
                if let Some(request) = self.requests.get_mut(&RequestId(id))
                    && std::mem::take(&mut request.asked)
                    && let Some((connection, id)) = request.client
                {
                    let answer = ServiceMessage::Activity { id, activity };
                    effects.push(Effect::Send(connection, answer));
                }
            }
            // One that was told to end may have answered before.
            WorkerReply::Ready | WorkerReply::Reply { .. } => {}
        }
    }

    fn on_worker_ended(
        &mut self,
        worker: WorkerId,
        status: String,
        stderr: String,
        effects: &mut Vec<Effect>,
    ) {
        let Some(it) = self.workers.remove(&worker) else {
            return;
        };
        match it.state {
            State::Starting => {
                let attempts = self.failed_starts.entry(it.key.clone()).or_default();
                *attempts += 1;
                if *attempts >= START_ATTEMPTS {
                    let error = RequestError::WorkerStart {
                        attempts: *attempts,
                        status,
                        stderr,
                    };
                    self.fail_queued(&it.key, &error, effects);
                }
            }
            State::Busy(id) => {
                let Some(request) = self.requests.get_mut(&id) else {
                    return;
                };
                match request.client {
                    Some(_) if !request.repeated => {
                        request.repeated = true;
                        if std::mem::take(&mut request.asked)
                            && let Some((connection, id)) = request.client
                        {
                            let activity = Some("starting a compile worker".to_owned());
                            let answer = ServiceMessage::Activity { id, activity };
                            effects.push(Effect::Send(connection, answer));
                        }
                        self.queue.push_front(id);
                    }
                    Some(client) => {
                        self.requests.remove(&id);
                        let error = RequestError::WorkerDied { status, stderr };
                        effects.push(reply(client, Err(error)));
                    }
                    None => {
                        self.requests.remove(&id);
                    }
                }
            }
            State::Idle | State::Ending => {}
        }
    }

    /// Fails the requests of a key whose workers do not start, but those that another worker of the key will take.
    fn fail_queued(&mut self, key: &str, error: &RequestError, effects: &mut Vec<Effect>) {
        let others = self.has_live(key);
        let failed = |request: &Request| request.key == key && (request.repeated || !others);
        let requests = &mut self.requests;
        self.queue.retain(|id| {
            if !requests.get(id).is_some_and(failed) {
                return true;
            }
            let client = requests.remove(id).and_then(|request| request.client);
            effects.extend(client.map(|client| reply(client, Err(error.clone()))));
            false
        });
    }

    fn of_key(&self, key: &str) -> impl Iterator<Item = &Worker> {
        self.workers
            .values()
            .filter(move |worker| worker.key == key && worker.is_live())
    }

    fn has_live(&self, key: &str) -> bool {
        self.of_key(key).next().is_some()
    }

    fn count_starting(&self, key: &str) -> usize {
        self.of_key(key)
            .filter(|worker| worker.state == State::Starting)
            .count()
    }
}

fn reply(
    (connection, id): (ConnectionId, u64),
    result: Result<Box<RawValue>, RequestError>,
) -> Effect {
    Effect::Send(connection, ServiceMessage::Reply { id, result })
}

#[cfg(test)]
mod tests;
