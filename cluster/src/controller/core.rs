//! The controller without its sockets: messages and moments in, messages out.
//!
//! What engines there are is `registration`, what clients ask the hub is `queries`, what passes between clients and engines is
//! `traffic`, and `tasks` where it is load-balanced; here are the state they share and the one way in.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use protocol::{Header, Message, RawJson};
use serde_json::{Map, Value, json};

use super::broadcast::Broadcasts;
use super::heartbeat::Hearts;
use super::packet::Packet;
use super::registration::Registry;
use super::results::Results;
use super::scheduler::{Config, Decision, HighWater, Scheduler};
use crate::MessageId;
use crate::profile::{HighWaterMark, Settings};

/// How long clients may take to read replies made for a dead engine, before they are told that it is gone: ipyparallel's
/// make such replies up themselves on that news, and complain about the second one.
const TELL_LATER: Duration = Duration::from_millis(100);
/// How long the last messages may take before the sockets close.
const LAST_WORDS: Duration = Duration::from_millis(50);

/// One of the controller's sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Channel {
    /// ROUTER: registration, and clients' questions.
    Query,
    /// PUB to clients: engines come and go.
    Notification,
    /// ROUTER to clients.
    MuxClient,
    /// ROUTER to engines.
    MuxEngine,
    /// ROUTER to clients.
    TaskClient,
    /// ROUTER to engines.
    TaskEngine,
    /// ROUTER to clients.
    ControlClient,
    /// ROUTER to engines.
    ControlEngine,
    /// ROUTER to clients.
    BroadcastClient,
    /// ROUTER to engines.
    BroadcastEngine,
    /// XPUB to clients.
    IopubClient,
    /// SUB from engines.
    IopubEngine,
    /// PUB to engines.
    Ping,
    /// ROUTER to engines.
    Pong,
}

/// When something happens.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// Since the controller's start; never goes back.
    pub elapsed: Duration,
    /// What clocks say.
    pub wall: jiff::Timestamp,
}

/// What happens.
#[derive(Debug)]
pub enum Event {
    /// A message came, and its signature is good.
    Received {
        /// Where.
        channel: Channel,
        /// What it says.
        message: Box<Message>,
        /// As it came.
        frames: Vec<Bytes>,
    },
    /// A task came, or an engine's reply to one, and its signature is good.
    Passing {
        /// [`Channel::TaskClient`] or [`Channel::TaskEngine`].
        channel: Channel,
        /// As it came.
        packet: Packet,
    },
    /// An engine sent a beat back. `ours`: in the way that only engines made here do.
    Beat {
        /// The engine's identity.
        uuid: Bytes,
        /// Whether it knows probes.
        ours: bool,
    },
    /// A probe was sent, or could not be.
    Probed {
        /// To this engine.
        uuid: String,
        /// Whether it could be sent.
        sent: bool,
    },
    /// A client subscribed to notifications.
    Subscribed,
    /// The deadline is there.
    Time,
    /// The process is told to end.
    Stop,
}

/// What is to be done.
#[derive(Debug)]
pub enum Outcome {
    /// Pass on what came, signature and all.
    Forward {
        /// Where to.
        channel: Channel,
        /// Identities first.
        frames: Vec<Bytes>,
    },
    /// Sign and send a message that has its header.
    Send {
        /// Where to.
        channel: Channel,
        /// The message, with its identities.
        message: Box<Message>,
    },
    /// Make a message and send it.
    Say(Box<Saying>),
    /// Sign a message and treat it as if it had come on [`Channel::TaskClient`].
    Resubmit(Box<Message>),
    /// Beat.
    Beat,
    /// Tell an engine made here something by its heart's connection.
    Heart {
        /// Which engine.
        uuid: String,
        /// What.
        word: HeartWord,
    },
    /// Close the sockets and end.
    Stop,
}

/// What is said to engines made here, one frame on the socket that takes their beats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeartWord {
    /// Are you there? Nothing is to be answered.
    Probe,
    /// You are registered now, and clients know of you.
    Registered,
    /// You are not registered. Do so.
    Register,
}

impl HeartWord {
    /// The frame.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Probe => "probe",
            Self::Registered => "registered",
            Self::Register => "register",
        }
    }
}

/// A message to be made.
#[derive(Debug)]
pub struct Saying {
    /// Where to.
    pub channel: Channel,
    /// To whom.
    pub identities: Vec<Bytes>,
    /// The header's type.
    pub msg_type: String,
    /// The body.
    pub content: RawJson,
    /// What it answers.
    pub parent: Option<Header>,
    /// About the message.
    pub metadata: Map<String, Value>,
    /// Binary data.
    pub buffers: Vec<Bytes>,
}

/// A request that an engine has not answered.
#[derive(Debug)]
pub(super) struct Outstanding {
    pub(super) channel: Channel,
    pub(super) client: Bytes,
    pub(super) header: Header,
}

/// The controller's state.
#[derive(Debug)]
pub struct Core {
    pub(super) hearts: Hearts,
    pub(super) registry: Registry,
    pub(super) scheduler: Scheduler<Arc<Packet>>,
    /// Empty between events; kept for its memory.
    pub(super) decisions: Vec<Decision<Arc<Packet>>>,
    pub(super) broadcasts: Broadcasts,
    pub(super) results: Results,
    /// Requests to engines by mux and control, by engine and id.
    pub(super) outstanding: HashMap<String, BTreeMap<MessageId, Outstanding>>,
    later: VecDeque<(Duration, Outcome)>,
    pub(super) stopping: bool,
    pub(super) resubmissions: u64,
}

impl Core {
    /// A controller without engines. The random schemes take their chances from `generator`.
    pub fn new(settings: &Settings, generator: fastrand::Rng) -> Self {
        let count = |number: u32| usize::try_from(number).unwrap_or(usize::MAX);
        let bytes = |megabytes: u64| megabytes.saturating_mul(1 << 20);
        let scheduling = Config {
            scheme: settings.scheduler.scheme,
            high_water: match settings.scheduler.hwm {
                HighWaterMark::Auto => HighWater::Auto,
                HighWaterMark::Tasks(0) => HighWater::Unlimited,
                HighWaterMark::Tasks(tasks) => HighWater::Fixed(count(tasks)),
            },
            limit: bytes(settings.limits.queue_mb),
        };
        Self {
            hearts: Hearts::new(settings.heartbeat_period(), settings.heartbeat.misses),
            registry: Registry::default(),
            scheduler: Scheduler::new(scheduling, generator),
            decisions: Vec::new(),
            broadcasts: Broadcasts::default(),
            results: Results::new(
                count(settings.limits.results),
                bytes(settings.limits.results_mb),
            ),
            outstanding: HashMap::new(),
            later: VecDeque::new(),
            stopping: false,
            resubmissions: 0,
        }
    }

    /// What to do about something, added to `out`.
    pub fn on_event(&mut self, now: Moment, event: Event, out: &mut Vec<Outcome>) {
        match event {
            Event::Received {
                channel,
                message,
                frames,
            } => self.on_message(now, channel, &message, frames, out),
            Event::Passing { channel, packet } => match channel {
                Channel::TaskEngine => self.on_task_reply(now, packet, out),
                _ => self.on_task(now, packet, out),
            },
            Event::Beat { uuid, ours } => self.on_beat(now, &uuid, ours, out),
            Event::Probed { uuid, sent } => {
                if self.hearts.on_probe(&uuid, sent) {
                    self.unregister(now, &uuid, out);
                }
            }
            Event::Subscribed => self.announce_again(now, out),
            Event::Time => self.on_time(now, out),
            Event::Stop => self.stop(now, out),
        }
    }

    /// When [`Event::Time`] is to happen at the latest.
    pub fn deadline(&self) -> Duration {
        let later = self.later.iter().map(|(due, _)| *due).min();
        let beat = self.hearts.deadline(self.registry.is_waiting_for_beats());
        let deadlines = [later, self.scheduler.deadline()];
        deadlines.into_iter().flatten().fold(beat, Duration::min)
    }

    fn on_message(
        &mut self,
        now: Moment,
        channel: Channel,
        message: &Message,
        frames: Vec<Bytes>,
        out: &mut Vec<Outcome>,
    ) {
        match channel {
            Channel::Query => self.on_query(now, message, out),
            Channel::MuxClient | Channel::ControlClient => {
                self.on_request(now, channel, message, frames, out);
            }
            Channel::MuxEngine | Channel::ControlEngine => {
                self.on_reply(now, channel, message, frames, out);
            }
            Channel::BroadcastClient => self.on_broadcast(now, message, frames, out),
            Channel::BroadcastEngine => self.on_broadcast_reply(now, message, out),
            Channel::IopubEngine => self.on_iopub(now, message, frames, out),
            // Tasks are passed on unread.
            Channel::TaskClient | Channel::TaskEngine => {}
            Channel::Notification | Channel::IopubClient | Channel::Ping | Channel::Pong => {}
        }
    }

    fn on_time(&mut self, now: Moment, out: &mut Vec<Outcome>) {
        let hurry = self.registry.is_waiting_for_beats();
        let due = self.hearts.on_time(now.elapsed, hurry);
        if due.beat {
            out.push(Outcome::Beat);
        }
        out.extend(due.probe.into_iter().map(|uuid| Outcome::Heart {
            uuid,
            word: HeartWord::Probe,
        }));
        for uuid in due.dead {
            tracing::warn!(uuid, "an engine does not answer any more");
            self.unregister(now, &uuid, out);
        }
        self.registry.forget_stalled(now.elapsed);
        let mut decisions = std::mem::take(&mut self.decisions);
        self.scheduler.on_time(now.elapsed, &mut decisions);
        self.decide(now, decisions, out);
        let (ready, waiting) = std::mem::take(&mut self.later)
            .into_iter()
            .partition(|(due, _)| *due <= now.elapsed);
        self.later = waiting;
        let ready: VecDeque<_> = ready;
        out.extend(ready.into_iter().map(|(_, outcome)| outcome));
    }

    /// Ends: tells clients, and engines too.
    pub(super) fn stop(&mut self, now: Moment, out: &mut Vec<Outcome>) {
        if std::mem::replace(&mut self.stopping, true) {
            return;
        }
        out.push(say(
            Channel::Notification,
            vec![Bytes::from_static(b"shutdown_notification")],
            "shutdown_notification",
            &json!({"status": "ok"}),
            None,
        ));
        self.later
            .push_back((now.elapsed + LAST_WORDS, Outcome::Stop));
    }

    /// Tells clients something, at once or when they have read what they are to read before.
    pub(super) fn notify(
        &mut self,
        now: Moment,
        msg_type: &'static str,
        content: &Value,
        wait: bool,
        out: &mut Vec<Outcome>,
    ) {
        let topic = vec![Bytes::from_static(msg_type.as_bytes())];
        let saying = say(Channel::Notification, topic, msg_type, content, None);
        if wait {
            self.later.push_back((now.elapsed + TELL_LATER, saying));
        } else {
            out.push(saying);
        }
    }
}

/// A message to be made.
pub(super) fn say(
    channel: Channel,
    identities: Vec<Bytes>,
    msg_type: &str,
    content: &Value,
    parent: Option<&Header>,
) -> Outcome {
    Outcome::Say(Box::new(Saying {
        channel,
        identities,
        msg_type: msg_type.to_owned(),
        content: raw(content),
        parent: parent.cloned(),
        metadata: Map::new(),
        buffers: Vec::new(),
    }))
}

pub(super) fn raw(content: &Value) -> RawJson {
    // A Value always renders.
    RawJson::from_value(content).unwrap_or_else(|_| RawJson::empty_object())
}

/// The type of the reply to a request of this type.
pub(super) fn reply_type(msg_type: &str) -> String {
    match msg_type.strip_suffix("_request") {
        Some(stem) => format!("{stem}_reply"),
        None => format!("{msg_type}_reply"),
    }
}
