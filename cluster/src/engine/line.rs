//! The way out: replies and broadcasts over the connection that there is at the moment.

use bytes::Bytes;
use protocol::message::iopub::{ExecutionState, Status};
use protocol::{Content, Header, Message, RawJson, Session, SocketId, Sockets};
use serde_json::{Map, Value, json};

use crate::EngineId;

/// ROUTER: mux, task and broadcast requests.
pub(super) const SHELL: SocketId = SocketId(0);
/// ROUTER: control requests.
pub(super) const CONTROL: SocketId = SocketId(1);
/// XPUB.
pub(super) const IOPUB: SocketId = SocketId(2);
/// SUB: the controller's heart.
pub(super) const PING: SocketId = SocketId(3);
/// DEALER: beats go back.
pub(super) const PONG: SocketId = SocketId(4);

/// A connection to a controller. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Line {
    pub(super) sockets: Sockets,
    pub(super) session: Session,
    pub(super) uuid: String,
    pub(super) id: EngineId,
}

/// The number of the attempt that a request is, as it has it; nothing for the first.
pub(super) fn attempt(request: &Message) -> impl Iterator<Item = (String, Value)> {
    let attempt = request.metadata.get("attempt").cloned();
    attempt
        .map(|attempt| ("attempt".to_owned(), attempt))
        .into_iter()
}

impl Line {
    /// Broadcasts under the topic `engine.<id>.<topic>`.
    pub(super) fn publish<C: Content>(&self, parent: Option<&Header>, topic: &str, content: &C) {
        let message = self.session.message(content, parent);
        self.broadcast(topic, message, Map::new());
    }

    /// As [`Self::publish`], of a type that is no broadcast by nature.
    pub(super) fn publish_as(&self, msg_type: &str, parent: &Header, content: &Value) {
        let message = self
            .session
            .raw_message(msg_type, raw(content), Some(parent));
        self.broadcast(msg_type, message, Map::new());
    }

    fn broadcast(&self, topic: &str, message: Message, mut metadata: Map<String, Value>) {
        let topic = Bytes::from(format!("engine.{}.{topic}", self.id));
        metadata.insert("engine".to_owned(), json!(self.uuid));
        let message = message.with_identities(vec![topic]).with_metadata(metadata);
        self.sockets.send(IOPUB, self.session.encode(&message));
    }

    /// What the engine does with a request. As in the reply, its metadata says which attempt it is.
    pub(super) fn status(&self, request: &Message, execution_state: ExecutionState) {
        let content = Status { execution_state };
        let message = self.session.message(&content, Some(&request.header));
        self.broadcast("status", message, attempt(request).collect());
    }

    /// Answers a request on the socket it came from.
    pub(super) fn reply(
        &self,
        socket: SocketId,
        request: &Message,
        content: &Value,
        metadata: Map<String, Value>,
    ) {
        self.reply_with(socket, request, content, metadata, Vec::new());
    }

    /// As [`Self::reply`], with buffers.
    pub(super) fn reply_with(
        &self,
        socket: SocketId,
        request: &Message,
        content: &Value,
        mut metadata: Map<String, Value>,
        buffers: Vec<Bytes>,
    ) {
        metadata.entry("engine").or_insert_with(|| json!(self.uuid));
        let stem = request.msg_type();
        let stem = stem.strip_suffix("_request").unwrap_or(stem);
        let reply = self
            .session
            .raw_message(format!("{stem}_reply"), raw(content), Some(&request.header))
            .with_identities(request.identities.clone())
            .with_metadata(metadata)
            .with_buffers(buffers);
        self.sockets.send(socket, self.session.encode(&reply));
    }
}

pub(super) fn raw(content: &Value) -> RawJson {
    // A Value always renders.
    RawJson::from_value(content).unwrap_or_else(|_| RawJson::empty_object())
}
