//! Engines come and go. An engine is registered when requests can reach it: those made here say hello on every socket; of others
//! the first beat that they send back tells.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use protocol::Message;
use serde_json::{Value, json};

use super::core::{Channel, Core, HeartWord, Moment, Outcome, Outstanding, raw, reply_type, say};
use super::results::Finished;
use crate::failure::hub_error;
use crate::{EngineId, MessageId};

/// How long a registration may take.
const REGISTRATION: Duration = Duration::from_secs(30);
/// Clients that subscribe this long after an engine has come are told of it again: the news may have been too early for them.
const NEWS: Duration = Duration::from_secs(5);
/// Ids of finished requests that are remembered for each engine.
const COMPLETED: usize = 10_000;

/// The sockets on which an engine made here says hello.
pub(super) const HELLOS: [Channel; 5] = [
    // Here a beat is a hello.
    Channel::Pong,
    Channel::MuxEngine,
    Channel::TaskEngine,
    Channel::ControlEngine,
    Channel::BroadcastEngine,
];

/// A registered engine.
#[derive(Debug)]
pub(super) struct Engine {
    pub(super) uuid: String,
    /// Finished requests, of which the last are known by name.
    pub(super) completed: VecDeque<MessageId>,
    pub(super) completed_count: u64,
    since: Duration,
}

#[derive(Debug)]
struct Incoming {
    id: EngineId,
    since: Duration,
    ours: bool,
    hellos: BTreeSet<Channel>,
    /// The requests that it has and has not answered, as it says.
    holds: HashSet<String>,
}

/// All engines.
#[derive(Debug, Default)]
pub(super) struct Registry {
    pub(super) engines: BTreeMap<EngineId, Engine>,
    by_uuid: HashMap<String, EngineId>,
    incoming: HashMap<String, Incoming>,
    next: u32,
}

impl Registry {
    pub(super) fn id(&self, uuid: &str) -> Option<EngineId> {
        self.by_uuid.get(uuid).copied()
    }

    pub(super) fn knows(&self, uuid: &str) -> bool {
        self.by_uuid.contains_key(uuid)
    }

    /// Whether an engine that cannot say hello is registering.
    pub(super) fn is_waiting_for_beats(&self) -> bool {
        self.incoming.values().any(|incoming| !incoming.ours)
    }

    pub(super) fn forget_stalled(&mut self, now: Duration) {
        self.incoming.retain(|uuid, incoming| {
            let waits = now < incoming.since + REGISTRATION;
            if !waits {
                tracing::warn!(uuid, "an engine did not complete its registration");
            }
            waits
        });
    }

    /// An id that nobody has: the wanted one if possible, a new one otherwise.
    fn new_id(&mut self, wanted: Option<EngineId>) -> EngineId {
        let taken = |id: EngineId| {
            self.engines.contains_key(&id)
                || self.incoming.values().any(|incoming| incoming.id == id)
        };
        match wanted {
            Some(id) if !taken(id) => {
                self.next = self.next.max(id.0.saturating_add(1));
                id
            }
            _ => {
                let id = EngineId(self.next);
                self.next += 1;
                id
            }
        }
    }

    /// A request has ended on an engine.
    pub(super) fn completed(&mut self, uuid: &str, id: MessageId) {
        if let Some(engine) = self
            .by_uuid
            .get(uuid)
            .and_then(|id| self.engines.get_mut(id))
        {
            engine.completed_count += 1;
            if engine.completed.len() == COMPLETED {
                engine.completed.pop_front();
            }
            engine.completed.push_back(id);
        }
    }
}

impl Core {
    pub(super) fn register(
        &mut self,
        now: Moment,
        request: &Message,
        content: &Value,
        out: &mut Vec<Outcome>,
    ) {
        let mut reply = |content: &Value| {
            out.push(say(
                Channel::Query,
                request.identities.clone(),
                "registration_reply",
                content,
                Some(&request.header),
            ));
        };
        let Some(uuid) = content["uuid"].as_str().filter(|uuid| !uuid.is_empty()) else {
            return reply(&hub_error("KeyError", "the registration has no uuid"));
        };
        let ours = content["hello"] == true;
        if !ours && (self.registry.knows(uuid) || self.registry.incoming.contains_key(uuid)) {
            return reply(&hub_error("KeyError", format!("uuid {uuid:?} in use")));
        }
        let wanted: Option<EngineId> = serde_json::from_value(content["id"].clone()).ok();
        // An engine made here that asks again has lost its connections, and nothing else.
        let known = self.registry.id(uuid).or_else(|| {
            let incoming = self.registry.incoming.get(uuid);
            incoming.map(|incoming| incoming.id)
        });
        let id = known.unwrap_or_else(|| self.registry.new_id(wanted));
        let mut answer = json!({
            "status": "ok",
            "id": id,
            "hb_period": u64::try_from(self.hearts.period().as_millis()).unwrap_or(u64::MAX),
        });
        if ours && let Some(answer) = answer.as_object_mut() {
            let names: Vec<_> = HELLOS.iter().filter_map(|it| it.identity()).collect();
            answer.insert("hello".to_owned(), json!(names));
        }
        reply(&answer);
        let incoming = Incoming {
            id,
            since: now.elapsed,
            ours,
            hellos: BTreeSet::new(),
            holds: serde_json::from_value(content["holds"].clone()).unwrap_or_default(),
        };
        self.registry.incoming.insert(uuid.to_owned(), incoming);
    }

    /// An engine made here can be reached by this socket.
    pub(super) fn on_hello(
        &mut self,
        now: Moment,
        channel: Channel,
        uuid: &str,
        out: &mut Vec<Outcome>,
    ) {
        let Some(incoming) = self.registry.incoming.get_mut(uuid) else {
            return;
        };
        incoming.hellos.insert(channel);
        if incoming.hellos.len() == HELLOS.len() {
            self.complete(now, uuid, out);
            out.push(Outcome::Heart {
                uuid: uuid.to_owned(),
                word: HeartWord::Registered,
            });
        }
    }

    pub(super) fn on_beat(
        &mut self,
        now: Moment,
        uuid: &Bytes,
        ours: bool,
        out: &mut Vec<Outcome>,
    ) {
        let Ok(uuid) = std::str::from_utf8(uuid) else {
            return;
        };
        if self.hearts.on_beat(uuid) && !self.registry.incoming.contains_key(uuid) {
            return;
        }
        match self.registry.incoming.get(uuid) {
            Some(incoming) if !incoming.ours => self.complete(now, uuid, out),
            Some(_) => self.on_hello(now, Channel::Pong, uuid, out),
            None if ours => out.push(Outcome::Heart {
                uuid: uuid.to_owned(),
                word: HeartWord::Register,
            }),
            None => tracing::debug!(uuid, "a beat of an engine that is not registered"),
        }
    }

    fn complete(&mut self, now: Moment, uuid: &str, out: &mut Vec<Outcome>) {
        let Some(incoming) = self.registry.incoming.remove(uuid) else {
            return;
        };
        self.hearts.watch(uuid, incoming.ours);
        if self.registry.knows(uuid) {
            return self.lose_requests(now, uuid, incoming.id, &incoming.holds, out);
        }
        tracing::info!(uuid, id = %incoming.id, "an engine is registered");
        let engine = Engine {
            uuid: uuid.to_owned(),
            completed: VecDeque::new(),
            completed_count: 0,
            since: now.elapsed,
        };
        self.registry.engines.insert(incoming.id, engine);
        self.registry.by_uuid.insert(uuid.to_owned(), incoming.id);
        let content = json!({"id": incoming.id, "uuid": uuid});
        self.notify(now, "registration_notification", &content, false, out);
        let mut decisions = std::mem::take(&mut self.decisions);
        let identity = Bytes::from(uuid.to_owned());
        self.scheduler.join(now.elapsed, identity, &mut decisions);
        self.decide(now, decisions, out);
    }

    pub(super) fn announce_again(&mut self, now: Moment, out: &mut Vec<Outcome>) {
        let news: Vec<Value> = self
            .registry
            .engines
            .iter()
            .filter(|(_, engine)| now.elapsed < engine.since + NEWS)
            .map(|(id, engine)| json!({"id": id, "uuid": engine.uuid}))
            .collect();
        for content in news {
            self.notify(now, "registration_notification", &content, false, out);
        }
    }

    /// An engine is gone. Whoever waits for it is answered.
    pub(super) fn unregister(&mut self, now: Moment, uuid: &str, out: &mut Vec<Outcome>) {
        self.hearts.forget(uuid);
        self.registry.incoming.remove(uuid);
        let Some(id) = self.registry.by_uuid.remove(uuid) else {
            return;
        };
        self.registry.engines.remove(&id);
        tracing::info!(uuid, %id, "an engine is unregistered");
        let before = out.len();
        for (msg_id, outstanding) in self.outstanding.remove(uuid).unwrap_or_default() {
            // Whoever asked an engine to end has what he wanted.
            let content = match outstanding.header.msg_type.as_str() {
                "shutdown_request" => json!({"status": "ok", "restart": false}),
                _ => died(id, &msg_id),
            };
            self.answer_for(now, uuid, &msg_id, outstanding, &content, out);
        }
        let error = hub_error(
            "EngineError",
            format!("Engine {id} died while running a broadcast"),
        );
        for answer in self.broadcasts.leave(uuid, &raw(&error)) {
            self.send_broadcast_answer(now, uuid, answer, out);
        }
        let mut decisions = std::mem::take(&mut self.decisions);
        self.scheduler
            .leave(now.elapsed, uuid.as_bytes(), &mut decisions);
        self.decide(now, decisions, out);
        let told = out.len() > before;
        let content = json!({"id": id, "uuid": uuid});
        self.notify(now, "unregistration_notification", &content, told, out);
    }

    /// An engine's connections broke and were made again. What was on its way to the engine then, it has not got: whoever waits for that is
    /// answered.
    fn lose_requests(
        &mut self,
        now: Moment,
        uuid: &str,
        id: EngineId,
        holds: &HashSet<String>,
        out: &mut Vec<Outcome>,
    ) {
        let outstanding = self.outstanding.remove(uuid).unwrap_or_default();
        let (held, lost) = outstanding
            .into_iter()
            .partition(|(msg_id, _)| holds.contains(&*msg_id.0));
        self.outstanding.insert(uuid.to_owned(), held);
        for (msg_id, outstanding) in lost {
            let content = hub_error(
                "EngineError",
                format!(
                    "The connection to engine {id} broke, and the request was lost. The engine is back: send it again"
                ),
            );
            self.answer_for(now, uuid, &msg_id, outstanding, &content, out);
        }
        let identity = Bytes::from(uuid.to_owned());
        if self
            .scheduler
            .running(&identity)
            .any(|task| !holds.contains(&*task.0))
        {
            let mut decisions = std::mem::take(&mut self.decisions);
            self.scheduler.leave(now.elapsed, &identity, &mut decisions);
            self.scheduler.join(now.elapsed, identity, &mut decisions);
            self.decide(now, decisions, out);
        }
    }

    /// Answers in an engine's place.
    fn answer_for(
        &mut self,
        now: Moment,
        uuid: &str,
        msg_id: &MessageId,
        outstanding: Outstanding,
        content: &Value,
        out: &mut Vec<Outcome>,
    ) {
        if outstanding.channel == Channel::MuxClient {
            self.record_failure(now, msg_id, uuid, content);
        }
        let msg_type = reply_type(&outstanding.header.msg_type);
        let to = vec![outstanding.client, Bytes::from(uuid.to_owned())];
        let channel = outstanding.channel;
        let mut reply = say(channel, to, &msg_type, content, Some(&outstanding.header));
        if let Outcome::Say(saying) = &mut reply {
            saying.metadata = failure_metadata(now, uuid);
            saying
                .metadata
                .insert("status".to_owned(), content["status"].clone());
        }
        out.push(reply);
    }

    pub(super) fn record_failure(
        &mut self,
        now: Moment,
        id: &MessageId,
        uuid: &str,
        content: &Value,
    ) {
        let finished = Finished::made(now, uuid, &failure_metadata(now, uuid), content);
        self.results.finish(&id.0, finished);
    }
}

fn died(id: EngineId, msg_id: &MessageId) -> Value {
    hub_error(
        "EngineError",
        format!("Engine {id} died while running task {:?}", msg_id.0),
    )
}

fn failure_metadata(now: Moment, uuid: &str) -> serde_json::Map<String, Value> {
    let metadata = json!({"engine": uuid, "status": "error", "date": now.wall.to_string(), "dependencies_met": true});
    metadata.as_object().cloned().unwrap_or_default()
}
