//! What passes between clients and engines, but for load-balanced tasks. Both know each other by the identities that their messages begin with.

use std::sync::Arc;

use bytes::Bytes;
use protocol::Message;
use serde_json::{Value, json};

use super::broadcast::Answer;
use super::core::{Channel, Core, Moment, Outcome, Outstanding, Saying, raw, reply_type, say};
use super::queries::ids;

use super::packet::Packet;
use super::results::{Finished, rendered};
use crate::MessageId;
use crate::failure::hub_error;

/// The message by which an engine made here tells that it can be reached.
pub(crate) const HELLO: &str = "chorus_hello";

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
    Some(MessageId::from(&*parent.msg_id))
}

fn text(identity: &Bytes) -> &str {
    std::str::from_utf8(identity).unwrap_or_default()
}

fn succeeded(message: &Message) -> bool {
    message.metadata.get("status").is_none_or(|it| it == "ok")
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
        let id = MessageId::from(&*message.header.msg_id);
        if !self.registry.knows(&uuid) {
            if is_request {
                let content = hub_error("EngineError", format!("There is no engine {uuid:?}"));
                self.remember(&id, &frames, Some("mux"), Some(engine.clone()));
                self.record_failure(now, &id, &uuid, &content);
                let to = vec![client, engine.clone()];
                let msg_type = reply_type(message.msg_type());
                out.push(say(channel, to, &msg_type, &content, Some(&message.header)));
            }
            return;
        }
        if is_request {
            if channel == Channel::ControlClient && message.msg_type() == "abort_request" {
                self.on_abort(now, message, out);
            }
            if channel == Channel::MuxClient {
                self.remember(&id, &frames, Some("mux"), Some(engine.clone()));
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

    fn remember(
        &mut self,
        id: &MessageId,
        frames: &[Bytes],
        queue: Option<&'static str>,
        engine: Option<Bytes>,
    ) {
        if let Some(packet) = Packet::of(frames.to_vec()) {
            let packet = Arc::new(packet);
            self.results.add(id.clone(), &packet, queue, engine);
        }
    }

    /// What an engine is told to drop is not given to one, nor out again. Clients name no engine for load-balanced tasks, so they
    /// tell all of them.
    fn on_abort(&mut self, now: Moment, message: &Message, out: &mut Vec<Outcome>) {
        let [client, engine, ..] = &message.identities[..] else {
            return;
        };
        let content: Value = message.parse().unwrap_or_default();
        let ids = ids(&content["msg_ids"]);
        if ids.is_empty() {
            self.scheduler.abort_at(engine);
        }
        self.abort_tasks(now, client, &ids, out);
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
                if let Some(reply) = Packet::of(frames.clone()) {
                    self.results.finish(&id.0, Finished::received(now, &reply));
                }
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

    /// A request for many engines: `[client, ..]`.
    pub(super) fn on_broadcast(
        &mut self,
        now: Moment,
        message: &Message,
        frames: Vec<Bytes>,
        out: &mut Vec<Outcome>,
    ) {
        let id = MessageId::from(&*message.header.msg_id);
        self.remember(&id, &frames, None, None);
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
            let header =
                json!({"msg_type": answer.msg_type, "date": now.wall.to_string(), "engine": uuid});
            let finished = Finished {
                header: Bytes::from(header.to_string()),
                metadata: rendered(&answer.metadata),
                content: answer.content.as_bytes().clone(),
                buffers: answer.buffers.clone(),
                received: now.wall,
            };
            self.results.finish(original, finished);
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
                if let Some(parent) = &message.parent
                    && let Ok(content) = message.parse::<Value>()
                {
                    let mut id = &*parent.msg_id;
                    // What a broadcast prints belongs to the request that the client made.
                    if self.results.get(id).is_none()
                        && let Some((original, _)) = id.rsplit_once('_')
                    {
                        id = original;
                    }
                    self.results.output(id, msg_type, &content);
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
}
