//! Load-balanced tasks between their clients, the scheduler and the engines.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use protocol::{Message, RawJson};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::core::{Channel, Core, Moment, Outcome, Saying, raw, reply_type, say};
use super::packet::{Packet, between};
use super::queries::ids;
use super::results::Finished;
use super::scheduler::{Answer, Conditions, Decision, Dependency, Submission, Verdict, WhyNot};
use super::traffic::HELLO;
use crate::failure::hub_error;
use crate::{EngineId, MessageId};

/// Stands for a client where nobody waits for the reply.
pub(super) const RESUBMIT: &[u8] = b"resubmit";
/// What the scheduler and the result store take for a task besides its frames, in bytes, roughly.
const BOOKS: u64 = 700;

/// What the scheduler is asked to do for a task: its request's metadata.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Wishes {
    targets: Option<Vec<String>>,
    after: Named,
    follow: Named,
    timeout: Option<f64>,
    retries: Option<i64>,
}

/// A dependency as ipyparallel's clients write it.
#[derive(Debug, Default, Deserialize)]
#[serde(untagged)]
enum Named {
    Whole {
        #[serde(default)]
        dependencies: Vec<MessageId>,
        #[serde(default = "yes")]
        all: bool,
        #[serde(default = "yes")]
        success: bool,
        #[serde(default)]
        failure: bool,
    },
    Ids(Vec<MessageId>),
    Id(MessageId),
    #[default]
    None,
}

fn yes() -> bool {
    true
}

impl From<Named> for Dependency {
    fn from(named: Named) -> Self {
        let all = |ids| Self {
            ids,
            ..Self::default()
        };
        match named {
            Named::Whole {
                dependencies,
                all,
                success,
                failure,
            } => Self {
                ids: dependencies,
                all,
                success,
                failure,
            },
            Named::Ids(ids) => all(ids),
            Named::Id(id) => all(vec![id]),
            Named::None => Self::default(),
        }
    }
}

impl Wishes {
    fn retries(&self) -> u32 {
        u32::try_from(self.retries.unwrap_or(0).max(0)).unwrap_or(u32::MAX)
    }

    /// None when the task may run anywhere and at once.
    fn conditions(self) -> Option<Box<Conditions>> {
        let targets = self.targets.unwrap_or_default();
        // Zero is what a view has that sets none.
        let timeout = self.timeout.filter(|seconds| *seconds > 0.0);
        let conditions = Conditions {
            targets: targets.into_iter().map(Bytes::from).collect(),
            after: self.after.into(),
            follow: self.follow.into(),
            timeout: timeout.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()),
        };
        (conditions != Conditions::default()).then(|| Box::new(conditions))
    }
}

impl Core {
    /// Tasks that no engine has are not to run: those that are named, or all of this client's. Tells which of those named engines have.
    ///
    /// Not ipyparallel's, whose clients ask all engines. It comes the way that tasks come, after those that it is about.
    fn on_task_abort(&mut self, now: Moment, packet: &Packet, out: &mut Vec<Outcome>) {
        let (Some(client), Some(header)) = (packet.identities().first(), packet.full_header())
        else {
            return;
        };
        let content: Value = serde_json::from_slice(packet.content()).unwrap_or_default();
        let ids = ids(&content["msg_ids"]);
        let aborted = self.abort_tasks(now, client, &ids, out);
        let mut engines: BTreeMap<EngineId, Vec<&str>> = BTreeMap::new();
        for id in &ids {
            let engine = self.scheduler.engine_of(&id.0);
            let uuid = engine.and_then(|identity| std::str::from_utf8(identity).ok());
            if let Some(engine) = uuid.and_then(|uuid| self.registry.id(uuid)) {
                engines.entry(engine).or_default().push(&id.0);
            }
        }
        out.push(say(
            Channel::TaskClient,
            vec![client.clone()],
            &reply_type(&header.msg_type),
            &json!({"status": "ok", "aborted": aborted, "engines": engines}),
            Some(&header),
        ));
    }

    /// A request for any engine: `[client, ..]`.
    pub(super) fn on_task(&mut self, now: Moment, packet: Packet, out: &mut Vec<Outcome>) {
        let [client] = packet.identities() else {
            return tracing::debug!("a task has no client");
        };
        let Some(head) = packet.head() else {
            return tracing::warn!("a task without a header is dropped");
        };
        if head.msg_type == "abort_request" {
            return self.on_task_abort(now, &packet, out);
        }
        let id = MessageId::from(&*head.msg_id);
        let wishes = match &packet.metadata()[..] {
            b"{}" => Ok(Wishes::default()),
            metadata => serde_json::from_slice(metadata),
        };
        let client = client.clone();
        let bytes = packet.size() + BOOKS;
        let payload = Arc::new(packet);
        let wishes = match wishes {
            Ok(wishes) => wishes,
            Err(error) => {
                let text = format!(
                    "targets, after, follow, retries or timeout of the task cannot be understood ({:?})",
                    error.classify()
                );
                self.results.add(id.clone(), &payload, Some("task"), None);
                let content = hub_error("ValueError", text);
                return self.answer_task(now, &id, &payload, &Bytes::new(), &content, out);
            }
        };
        let submission = Submission {
            id: id.clone(),
            client,
            bytes,
            retries: wishes.retries(),
            conditions: wishes.conditions(),
            payload: Arc::clone(&payload),
        };
        self.results.add(id, &payload, Some("task"), None);
        let mut decisions = std::mem::take(&mut self.decisions);
        if !self
            .scheduler
            .submit(now.elapsed, submission, &mut decisions)
        {
            tracing::warn!("a task is dropped: one of the same id has not ended");
        }
        self.decide(now, decisions, out);
    }

    /// An engine's reply: `[engine, client, ..]`.
    pub(super) fn on_task_reply(&mut self, now: Moment, packet: Packet, out: &mut Vec<Outcome>) {
        let [engine, rest @ ..] = packet.identities() else {
            return;
        };
        let Some(parent) = packet.parent_head() else {
            let uuid = std::str::from_utf8(engine).unwrap_or_default().to_owned();
            if packet.head().is_some_and(|head| head.msg_type == HELLO) {
                self.on_hello(now, Channel::TaskEngine, &uuid, out);
            }
            return;
        };
        let Some(client) = rest.first() else {
            return;
        };
        let metadata = packet.reply_metadata();
        let answer = match metadata.status.as_deref() {
            _ if metadata.dependencies_met == Some(false) => Answer::Unmet,
            None | Some("ok") => Answer::Succeeded,
            Some("aborted") => Answer::Aborted,
            Some(_) => Answer::Failed,
        };
        let took =
            metadata
                .started
                .as_deref()
                .and_then(|started| match metadata.completed.as_deref() {
                    Some(completed) => between(started, completed),
                    None => between(started, packet.head()?.date.as_deref()?),
                });
        let mut decisions = std::mem::take(&mut self.decisions);
        let verdict = self.scheduler.finish(
            now.elapsed,
            engine,
            &parent.msg_id,
            answer,
            took,
            &mut decisions,
        );
        if verdict == Verdict::Deliver {
            let uuid = std::str::from_utf8(engine).unwrap_or_default();
            if let Some(id) = self
                .results
                .finish(&parent.msg_id, Finished::received(now, &packet))
            {
                self.registry.completed(uuid, id);
            }
            // Who has a task done again asks the result store for its end.
            if client != RESUBMIT {
                out.push(Outcome::Forward {
                    channel: Channel::TaskClient,
                    frames: packet.turned(),
                });
            }
        }
        self.decide(now, decisions, out);
    }

    /// Some tasks of a client that have no engine yet are not to run, or all of them.
    pub(super) fn abort_tasks(
        &mut self,
        now: Moment,
        client: &[u8],
        ids: &[MessageId],
        out: &mut Vec<Outcome>,
    ) -> usize {
        let mut decisions = std::mem::take(&mut self.decisions);
        let aborted = if ids.is_empty() {
            self.scheduler
                .abort_all_of(now.elapsed, client, &mut decisions)
        } else {
            let ids = ids.iter().map(|id| &*id.0);
            self.scheduler.abort(now.elapsed, ids, &mut decisions)
        };
        self.decide(now, decisions, out);
        aborted
    }

    /// Carries out what the scheduler decided, in the buffer that it takes back.
    pub(super) fn decide(
        &mut self,
        now: Moment,
        mut decisions: Vec<Decision<Arc<Packet>>>,
        out: &mut Vec<Outcome>,
    ) {
        for decision in decisions.drain(..) {
            match decision {
                Decision::Run {
                    engine,
                    id,
                    attempt,
                    payload,
                } => {
                    self.results.assign(&id, &engine);
                    if attempt > 0 {
                        out.extend(repeated(engine, &payload, attempt));
                        continue;
                    }
                    let mut frames = Vec::with_capacity(1 + payload.frames().len());
                    frames.push(engine);
                    frames.extend_from_slice(payload.frames());
                    out.push(Outcome::Forward {
                        channel: Channel::TaskEngine,
                        frames,
                    });
                }
                Decision::Fail { id, payload, why } => {
                    let engine = match &why {
                        WhyNot::EngineDied(engine) => engine.clone(),
                        _ => Bytes::new(),
                    };
                    let content = match &why {
                        WhyNot::Aborted => json!({"status": "aborted"}),
                        why => hub_error(why.ename(), why.to_string()),
                    };
                    self.answer_task(now, &id, &payload, &engine, &content, out);
                }
            }
        }
        self.decisions = decisions;
    }

    /// Answers a task in an engine's place.
    fn answer_task(
        &mut self,
        now: Moment,
        id: &MessageId,
        request: &Packet,
        engine: &Bytes,
        content: &Value,
        out: &mut Vec<Outcome>,
    ) {
        let uuid = std::str::from_utf8(engine).unwrap_or_default();
        let metadata = made_metadata(now, uuid, content, request);
        self.results
            .finish(&id.0, Finished::made(now, uuid, &metadata, content));
        let (Some(client), Some(parent)) = (request.identities().first(), request.full_header())
        else {
            return;
        };
        if client == RESUBMIT {
            return;
        }
        let mut identities = vec![client.clone()];
        if !engine.is_empty() {
            identities.push(engine.clone());
        }
        out.push(Outcome::Say(Box::new(Saying {
            channel: Channel::TaskClient,
            identities,
            msg_type: reply_type(&parent.msg_type),
            content: raw(content),
            parent: Some(parent),
            metadata,
            buffers: Vec::new(),
        })));
    }

    /// A task that is asked for again gets a new header, and the client that asked its reply by the result store only.
    pub(super) fn again(&self, id: &MessageId, new: &MessageId, now: Moment) -> Option<Message> {
        let request = &self.results.get(&id.0)?.request;
        let mut header = request.full_header()?;
        let parent = Some(header.clone());
        header.msg_id = new.to_string();
        header.date = now.wall.to_string();
        Some(Message {
            identities: vec![Bytes::from_static(RESUBMIT)],
            header,
            parent,
            metadata: request.metadata_map(),
            content: RawJson::from_bytes(request.content().clone()).ok()?,
            buffers: request.buffers().to_vec(),
        })
    }
}

/// A task that is given out again. An engine that has had it would take the same message for a replay, so it is told which attempt
/// this is, and the message signed anew.
fn repeated(engine: Bytes, request: &Packet, attempt: u32) -> Option<Outcome> {
    let mut metadata = request.metadata_map();
    metadata.insert("attempt".to_owned(), json!(attempt));
    let mut identities = vec![engine];
    identities.extend_from_slice(request.identities());
    Some(Outcome::Send {
        channel: Channel::TaskEngine,
        message: Box::new(Message {
            identities,
            header: request.full_header()?,
            parent: request.full_parent(),
            metadata,
            content: RawJson::from_bytes(request.content().clone()).ok()?,
            buffers: request.buffers().to_vec(),
        }),
    })
}

/// The metadata of a reply that no engine made.
fn made_metadata(now: Moment, uuid: &str, content: &Value, request: &Packet) -> Map<String, Value> {
    let mut metadata = Map::new();
    let mut set = |name: &str, value: Value| drop(metadata.insert(name.to_owned(), value));
    set("status", content["status"].clone());
    set("date", json!(now.wall.to_string()));
    set("dependencies_met", json!(true));
    if !uuid.is_empty() {
        set("engine", json!(uuid));
    }
    if let Some(label) = request.metadata_map().remove("label") {
        set("label", label);
    }
    metadata
}
