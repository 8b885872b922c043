//! Broadcasts: one request to many engines, answered one by one or all together. No socket in it.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use protocol::{Header, Message, RawJson};
use serde_json::{Map, Value, json};

/// The broadcasts that are not answered yet, by their requests' id.
#[derive(Debug, Default)]
pub struct Broadcasts(HashMap<String, Broadcast>);

#[derive(Debug)]
struct Broadcast {
    client: Bytes,
    header: Header,
    coalescing: bool,
    targets: Value,
    /// By uuid: nothing yet, or the buffers of its answer. In the order of the targets.
    answers: Vec<(String, Option<Vec<Bytes>>)>,
    /// The first answer that was an error.
    error: Option<RawJson>,
}

/// An answer for a client.
#[derive(Debug)]
pub struct Answer {
    /// Who asked.
    pub client: Bytes,
    /// The reply's type.
    pub msg_type: String,
    /// The header of the request that it answers.
    pub parent: Header,
    /// As the client expects it.
    pub metadata: Map<String, Value>,
    /// The reply's content.
    pub content: RawJson,
    /// The results.
    pub buffers: Vec<Bytes>,
}

/// The id under which one engine knows a broadcast.
fn own_id(original: &str, uuid: &str) -> String {
    format!("{original}_{uuid}")
}

impl Broadcasts {
    /// A request came in: gives what to send to which engine. `request` has its client as only identity.
    pub fn start(&mut self, request: &Message) -> Vec<(String, Message)> {
        let [client, ..] = &request.identities[..] else {
            return Vec::new();
        };
        let targets = request.metadata.get("targets").cloned();
        let targets = targets.unwrap_or_else(|| json!([]));
        let uuids: Vec<String> = targets
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|target| target.get(0)?.as_str().map(str::to_owned))
            .collect();
        let coalescing = request.metadata.get("is_coalescing") == Some(&Value::Bool(true));
        let original = request.header.msg_id.clone();
        let mut messages = Vec::new();
        for uuid in &uuids {
            let mut message = request.clone();
            message.header.msg_id = own_id(&original, uuid);
            message
                .metadata
                .insert("original_msg_id".to_owned(), original.clone().into());
            message.identities = vec![Bytes::from(uuid.clone()), client.clone()];
            messages.push((uuid.clone(), message));
        }
        let broadcast = Broadcast {
            client: client.clone(),
            header: request.header.clone(),
            coalescing,
            targets,
            answers: uuids.into_iter().map(|uuid| (uuid, None)).collect(),
            error: None,
        };
        if !broadcast.answers.is_empty() {
            self.0.insert(original, broadcast);
        }
        messages
    }

    /// An engine answered: gives what to tell the client now, if anything.
    pub fn answer(&mut self, uuid: &str, reply: &Message, success: bool) -> Option<Answer> {
        let original = reply.metadata.get("original_msg_id")?.as_str()?.to_owned();
        self.take(
            &original,
            uuid,
            reply.msg_type(),
            reply.metadata.clone(),
            reply.content.clone(),
            reply.buffers.clone(),
            success,
        )
    }

    /// An engine is gone: gives what to tell the clients that waited for it. `error`: the content of such a reply.
    pub fn leave(&mut self, uuid: &str, error: &RawJson) -> Vec<Answer> {
        let waiting = self.0.iter().filter(|(_, broadcast)| {
            let mut answers = broadcast.answers.iter();
            answers.any(|(own, answer)| own == uuid && answer.is_none())
        });
        let waiting: BTreeMap<String, (String, bool)> = waiting
            .map(|(original, broadcast)| {
                let msg_type = broadcast.header.msg_type.replace("_request", "_reply");
                (original.clone(), (msg_type, broadcast.coalescing))
            })
            .collect();
        let mut told = Vec::new();
        for (original, (msg_type, coalescing)) in waiting {
            let metadata = json!({"engine": uuid, "status": "error", "is_broadcast": true,
                "is_coalescing": coalescing, "original_msg_id": original});
            let Value::Object(metadata) = metadata else {
                continue;
            };
            let error = error.clone();
            told.extend(self.take(&original, uuid, &msg_type, metadata, error, vec![], false));
        }
        told
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "the parts of a reply, which an engine or the controller made"
    )]
    fn take(
        &mut self,
        original: &str,
        uuid: &str,
        msg_type: &str,
        mut metadata: Map<String, Value>,
        content: RawJson,
        buffers: Vec<Bytes>,
        success: bool,
    ) -> Option<Answer> {
        let broadcast = self.0.get_mut(original)?;
        let mut answers = broadcast.answers.iter_mut();
        let slot = answers.find(|(own, answer)| own == uuid && answer.is_none())?;
        if !broadcast.coalescing {
            slot.1 = Some(Vec::new());
            let mut parent = broadcast.header.clone();
            parent.msg_id = own_id(original, uuid);
            let answer = Answer {
                client: broadcast.client.clone(),
                msg_type: msg_type.to_owned(),
                parent,
                metadata,
                content,
                buffers,
            };
            if broadcast.answers.iter().all(|(_, answer)| answer.is_some()) {
                self.0.remove(original);
            }
            return Some(answer);
        }
        slot.1 = Some(buffers);
        if !success && broadcast.error.is_none() {
            broadcast.error = Some(content.clone());
        }
        if broadcast.answers.iter().any(|(_, answer)| answer.is_none()) {
            return None;
        }
        let broadcast = self.0.remove(original)?;
        metadata.insert("broadcast_targets".to_owned(), broadcast.targets);
        Some(Answer {
            client: broadcast.client,
            msg_type: msg_type.to_owned(),
            parent: broadcast.header,
            metadata,
            content: broadcast.error.unwrap_or(content),
            buffers: broadcast
                .answers
                .into_iter()
                .flat_map(|(_, buffers)| buffers.unwrap_or_default())
                .collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use protocol::{Key, Session};

    use super::*;

    fn request(coalescing: bool) -> Message {
        let session = Session::new(&Key::none());
        let mut message = session.raw_message("apply_request", RawJson::empty_object(), None);
        message.header.msg_id = "m".to_owned();
        message.identities = vec![Bytes::from_static(b"client")];
        let metadata = json!({"is_coalescing": coalescing, "targets": [["x", 0], ["y", 1]]});
        message.metadata = metadata.as_object().unwrap().clone();
        message
    }

    fn reply(to: &Message, buffer: &'static [u8]) -> Message {
        let session = Session::new(&Key::none());
        session
            .raw_message("apply_reply", RawJson::empty_object(), Some(&to.header))
            .with_metadata(to.metadata.clone())
            .with_buffers(vec![Bytes::from_static(buffer)])
    }

    #[test]
    fn answers_come_one_by_one() {
        let mut broadcasts = Broadcasts::default();
        let sent = broadcasts.start(&request(false));
        let [(x, to_x), (y, to_y)] = &sent[..] else {
            panic!("{sent:?}")
        };
        assert_eq!((x.as_str(), y.as_str()), ("x", "y"));
        assert_eq!(to_x.header.msg_id, "m_x");
        assert_eq!(to_x.identities, ["x", "client"]);
        let answer = broadcasts.answer("y", &reply(to_y, b"2"), true).unwrap();
        assert_eq!(answer.parent.msg_id, "m_y");
        assert!(broadcasts.answer("y", &reply(to_y, b"2"), true).is_none());
        let told = broadcasts.leave("x", &RawJson::empty_object());
        assert_eq!(told.len(), 1);
        assert_eq!(told.first().unwrap().parent.msg_id, "m_x");
        assert!(broadcasts.0.is_empty());
    }

    #[test]
    fn answers_come_together_in_the_order_of_the_targets() {
        let mut broadcasts = Broadcasts::default();
        let sent = broadcasts.start(&request(true));
        let [(_, to_x), (_, to_y)] = &sent[..] else {
            panic!("{sent:?}")
        };
        assert!(broadcasts.answer("y", &reply(to_y, b"2"), true).is_none());
        let answer = broadcasts.answer("x", &reply(to_x, b"1"), true).unwrap();
        assert_eq!(answer.parent.msg_id, "m");
        assert_eq!(answer.buffers, ["1", "2"]);
        assert_eq!(
            answer.metadata["broadcast_targets"],
            json!([["x", 0], ["y", 1]])
        );
        assert!(broadcasts.0.is_empty());
    }
}
