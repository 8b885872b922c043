//! What passes between clients and engines. Both know each other by the identities that their messages begin with.

use bytes::Bytes;
use protocol::Message;
use serde_json::{Value, json};

use super::broadcast::Answer;
use super::core::{Channel, Core, Moment, Outcome, Outstanding, Saying, raw, reply_type, say};

use super::results::Finished;
use super::scheduler::Task;
use crate::MessageId;
use crate::failure::hub_error;

/// The message by which an engine made here tells that it can be reached.
pub(crate) const HELLO: &str = "chorus_hello";

/// Stands for a client where nobody waits for the reply.
const RESUBMIT: &[u8] = b"resubmit";

impl Channel {
    /// The ROUTER identity under which engines address the controller.
    pub fn identity(self) -> Option<&'static str> {
        match self {
            Self::MuxEngine => Some("mux_out"),
            Self::TaskEngine => Some("task_out"),
            Self::ControlEngine => Some("control_out"),
            Self::BroadcastEngine => Some("broadcast_out"),
            _ => None,
        }
    }
}

fn parent_id(message: &Message) -> Option<MessageId> {
    let parent = message.parent.as_ref()?;
    Some(MessageId(parent.msg_id.clone()))
}

fn text(identity: &Bytes) -> &str {
    std::str::from_utf8(identity).unwrap_or_default()
}

fn succeeded(message: &Message) -> bool {
    message.metadata.get("status").is_none_or(|it| it == "ok")
}

fn finished(now: Moment, message: &Message) -> Finished {
    Finished {
        header: serde_json::to_value(&message.header).unwrap_or_default(),
        metadata: message.metadata.clone(),
        content: message.content.clone(),
        buffers: message.buffers.clone(),
        received: now.wall.to_string(),
    }
}

impl Core {
    /// A request to one engine: `[client, engine, ..]`.
    pub(super) fn on_request(
        &mut self,
        now: Moment,
        channel: Channel,
        message: &Message,
        mut frames: Vec<Bytes>,
        out: &mut Vec<Outcome>,
    ) {
        let [client, engine, ..] = &message.identities[..] else {
            return tracing::debug!("a request names no engine");
        };
        let (client, uuid) = (client.clone(), text(engine).to_owned());
        let is_request = message.msg_type().ends_with("_request");
        let id = MessageId(message.header.msg_id.clone());
        if !self.registry.knows(&uuid) {
            if is_request {
                let content = hub_error("EngineError", format!("There is no engine {uuid:?}"));
                self.results.add(message, Some("mux"), Some(uuid.clone()));
                self.record_failure(now, &id, &uuid, &content);
                let to = vec![client, engine.clone()];
                let msg_type = reply_type(message.msg_type());
                out.push(say(channel, to, &msg_type, &content, Some(&message.header)));
            }
            return;
        }
        if is_request {
            if channel == Channel::MuxClient {
                self.results.add(message, Some("mux"), Some(uuid.clone()));
            }
            let outstanding = Outstanding {
                channel,
                client,
                header: message.header.clone(),
            };
            let all = self.outstanding.entry(uuid).or_default();
            all.insert(id, outstanding);
        }
        frames.swap(0, 1);
        let channel = match channel {
            Channel::MuxClient => Channel::MuxEngine,
            _ => Channel::ControlEngine,
        };
        out.push(Outcome::Forward { channel, frames });
    }

    /// An engine's reply: `[engine, client, ..]`.
    pub(super) fn on_reply(
        &mut self,
        now: Moment,
        channel: Channel,
        message: &Message,
        mut frames: Vec<Bytes>,
        out: &mut Vec<Outcome>,
    ) {
        let [engine, rest @ ..] = &message.identities[..] else {
            return;
        };
        let uuid = text(engine).to_owned();
        if message.msg_type() == HELLO {
            return self.on_hello(now, channel, &uuid, out);
        }
        if rest.is_empty() {
            return;
        }
        let outstanding = self.outstanding.get_mut(&uuid).and_then(|all| {
            let id = parent_id(message)?;
            all.remove(&id).map(|outstanding| (id, outstanding))
        });
        if let Some((id, _)) = outstanding {
            if channel == Channel::MuxEngine {
                self.results.finish(&id, finished(now, message));
                self.registry.completed(&uuid, id);
            }
        } else if !self.registry.knows(&uuid) || message.msg_type().ends_with("_reply") {
            // Its client has been answered, when the engine was thought dead.
            return;
        }
        frames.swap(0, 1);
        let channel = match channel {
            Channel::MuxEngine => Channel::MuxClient,
            _ => Channel::ControlClient,
        };
        out.push(Outcome::Forward { channel, frames });
        if message.msg_type() == "shutdown_reply" {
            self.unregister(now, &uuid, out);
        }
    }

    /// A request for any engine: `[client, ..]`.
    pub(super) fn on_task(
        &mut self,
        now: Moment,
        message: &Message,
        frames: Vec<Bytes>,
        out: &mut Vec<Outcome>,
    ) {
        let [client] = &message.identities[..] else {
            return;
        };
        self.results.add(message, Some("task"), None);
        let id = MessageId(message.header.msg_id.clone());
        let given = |name: &str| {
            let value = message.metadata.get(name);
            value.filter(|value| match value {
                Value::Array(values) => !values.is_empty(),
                value => !value.is_null(),
            })
        };
        let depends = |value: &Value| match value {
            // As ipyparallel renders a Dependency.
            Value::Object(dependency) => dependency
                .get("dependencies")
                .and_then(Value::as_array)
                .is_some_and(|ids| !ids.is_empty()),
            _ => true,
        };
        if ["after", "follow"]
            .iter()
            .any(|name| given(name).is_some_and(depends))
        {
            let content = hub_error(
                "InvalidDependency",
                "this controller does not know dependencies (after, follow) between tasks",
            );
            self.record_failure(now, &id, "", &content);
            let msg_type = reply_type(message.msg_type());
            let to = vec![client.clone()];
            return out.push(say(
                Channel::TaskClient,
                to,
                &msg_type,
                &content,
                Some(&message.header),
            ));
        }
        let targets = given("targets").and_then(Value::as_array);
        let retries = given("retries").and_then(Value::as_u64).unwrap_or(0);
        let task = Task {
            id,
            client: client.clone(),
            header: message.header.clone(),
            frames: frames.into_iter().skip(1).collect(),
            targets: targets
                .into_iter()
                .flatten()
                .filter_map(|target| target.as_str().map(str::to_owned))
                .collect(),
            retries: u32::try_from(retries).unwrap_or(u32::MAX),
            tried: Vec::new(),
        };
        let decisions = self.scheduler.submit(task);
        self.decide(now, decisions, out);
    }

    pub(super) fn on_task_reply(
        &mut self,
        now: Moment,
        message: &Message,
        mut frames: Vec<Bytes>,
        out: &mut Vec<Outcome>,
    ) {
        let [engine, rest @ ..] = &message.identities[..] else {
            return;
        };
        let uuid = text(engine).to_owned();
        if message.msg_type() == HELLO {
            return self.on_hello(now, Channel::TaskEngine, &uuid, out);
        }
        let (Some(id), false) = (parent_id(message), rest.is_empty()) else {
            return;
        };
        let met = message.metadata.get("dependencies_met") != Some(&Value::Bool(false));
        let (deliver, decisions) = self.scheduler.finish(&uuid, &id, succeeded(message) && met);
        if deliver {
            self.results.finish(&id, finished(now, message));
            self.registry.completed(&uuid, id);
            // Who has a task done again asks the result store for its end.
            if rest.first().is_some_and(|client| client != RESUBMIT) {
                frames.swap(0, 1);
                out.push(Outcome::Forward {
                    channel: Channel::TaskClient,
                    frames,
                });
            }
        }
        self.decide(now, decisions, out);
    }

    /// A request for many engines: `[client, ..]`.
    pub(super) fn on_broadcast(&mut self, now: Moment, message: &Message, out: &mut Vec<Outcome>) {
        self.results.add(message, None, None);
        let mut lost = Vec::new();
        for (uuid, request) in self.broadcasts.start(message) {
            if self.registry.knows(&uuid) {
                out.push(Outcome::Send {
                    channel: Channel::BroadcastEngine,
                    message: Box::new(request),
                });
            } else {
                lost.push(uuid);
            }
        }
        for uuid in lost {
            let error = hub_error("EngineError", format!("There is no engine {uuid:?}"));
            for answer in self.broadcasts.leave(&uuid, &raw(&error)) {
                self.send_broadcast_answer(now, &uuid, answer, out);
            }
        }
    }

    pub(super) fn on_broadcast_reply(
        &mut self,
        now: Moment,
        message: &Message,
        out: &mut Vec<Outcome>,
    ) {
        let [engine, ..] = &message.identities[..] else {
            return;
        };
        let uuid = text(engine).to_owned();
        if message.msg_type() == HELLO {
            return self.on_hello(now, Channel::BroadcastEngine, &uuid, out);
        }
        if let Some(answer) = self.broadcasts.answer(&uuid, message, succeeded(message)) {
            if let Some(id) = parent_id(message) {
                self.registry.completed(&uuid, id);
            }
            self.send_broadcast_answer(now, &uuid, answer, out);
        }
    }

    pub(super) fn send_broadcast_answer(
        &mut self,
        now: Moment,
        uuid: &str,
        answer: Answer,
        out: &mut Vec<Outcome>,
    ) {
        let original = answer.metadata.get("original_msg_id");
        if let Some(original) = original.and_then(Value::as_str) {
            let finished = Finished {
                header: json!({"msg_type": answer.msg_type, "date": now.wall.to_string(), "engine": uuid}),
                metadata: answer.metadata.clone(),
                content: answer.content.clone(),
                buffers: answer.buffers.clone(),
                received: now.wall.to_string(),
            };
            self.results
                .finish(&MessageId(original.to_owned()), finished);
        }
        out.push(Outcome::Say(Box::new(Saying {
            channel: Channel::BroadcastClient,
            identities: vec![answer.client],
            msg_type: answer.msg_type,
            content: answer.content,
            parent: Some(answer.parent),
            metadata: answer.metadata,
            buffers: answer.buffers,
        })));
    }

    /// What an engine broadcasts: `[topic, ..]`.
    pub(super) fn on_iopub(
        &mut self,
        now: Moment,
        message: &Message,
        frames: Vec<Bytes>,
        out: &mut Vec<Outcome>,
    ) {
        out.push(Outcome::Forward {
            channel: Channel::IopubClient,
            frames,
        });
        let msg_type = message.msg_type();
        match msg_type {
            "status" => {}
            "shutdown_reply" => {
                let engine = message.metadata.get("engine").and_then(Value::as_str);
                let uuid = engine.unwrap_or(&message.header.session).to_owned();
                self.unregister(now, &uuid, out);
            }
            _ => {
                if let Some(mut id) = parent_id(message)
                    && let Ok(content) = message.parse::<Value>()
                {
                    // What a broadcast prints belongs to the request that the client made.
                    if self.results.get(&id).is_none()
                        && let Some((original, _)) = id.0.rsplit_once('_')
                    {
                        id = MessageId(original.to_owned());
                    }
                    self.results.output(&id, msg_type, &content);
                }
            }
        }
    }

    /// All engines are to end.
    pub(super) fn shut_engines_down(&mut self, out: &mut Vec<Outcome>) {
        for engine in self.registry.engines.values() {
            out.push(say(
                Channel::ControlEngine,
                vec![
                    Bytes::from(engine.uuid.clone()),
                    Bytes::from_static(b"controller"),
                ],
                "shutdown_request",
                &json!({"restart": false}),
                None,
            ));
        }
    }

    /// A task that is asked for again gets a new header, and the client that asked its reply by the result store only.
    pub(super) fn again(&self, id: &MessageId, new: &MessageId, now: Moment) -> Option<Message> {
        let record = self.results.get(id)?;
        let mut header = record.header.clone();
        header.msg_id = new.0.clone();
        header.date = now.wall.to_string();
        Some(Message {
            identities: vec![Bytes::from_static(RESUBMIT)],
            header,
            parent: Some(record.header.clone()),
            metadata: record.metadata.clone(),
            content: record.content.clone(),
            buffers: record.buffers.clone(),
        })
    }
}
