//! Requests in great numbers: their texts are prepared, nothing is kept of them here, and of what comes back only as much is read as is
//! needed to pass it on.
//!
//! [`Connection::posts`](super::Connection::posts) makes a sender whose requests bear numbers. Whoever has it keeps the books: an engine
//! that goes ([`super::State`]) takes what it was sent directly with it, and a connection that is lost takes all.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;

use bytes::Bytes;
use protocol::message::iopub::{ExecutionState, Status};
use protocol::wire::Parts;
use protocol::{Headers, Session, Sockets};
use serde::Deserialize;
use tokio::sync::mpsc;
use uuid::Uuid;

use super::core::output;
use super::driver::{Command, MUX, TASK};
use super::request::Output;

/// What kind of request it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PostKind {
    /// `apply_request`.
    Apply,
    /// `execute_request`.
    Execute,
}

/// A request.
#[derive(Clone, Debug)]
pub struct Post {
    /// Unique among those of its sender.
    pub number: u64,
    /// The identity of the engine; without, the controller's scheduler chooses.
    pub engine: Option<Bytes>,
    /// What is asked.
    pub kind: PostKind,
    /// JSON.
    pub metadata: Bytes,
    /// JSON.
    pub content: Bytes,
    /// Binary data.
    pub buffers: Vec<Bytes>,
}

/// What comes of requests.
#[derive(Clone, Debug)]
pub enum Posted {
    /// The reply, or the controller's in an engine's place. There is one for each request, unless its engine or the connection is lost.
    Reply {
        /// The request.
        number: u64,
        /// What it says.
        reply: Box<PostReply>,
    },
    /// An engine began with it, if it says so.
    Busy {
        /// The request.
        number: u64,
        /// The engine's identity.
        engine: String,
    },
    /// Something that the engine shows for the request.
    Output {
        /// The request.
        number: u64,
        /// The engine's identity.
        engine: String,
        /// What.
        output: Output,
    },
    /// The engine shows nothing more for it.
    Idle {
        /// The request.
        number: u64,
        /// Which attempt at it has ended.
        attempt: u32,
    },
}

/// A reply, as far as it is read here.
#[derive(Clone, Debug, Default)]
pub struct PostReply {
    /// Its metadata.
    pub metadata: PostMetadata,
    /// JSON.
    pub content: Bytes,
    /// Binary data.
    pub buffers: Vec<Bytes>,
}

/// What is read of a reply's metadata.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct PostMetadata {
    /// `ok`, `error` or `aborted`.
    pub status: Option<String>,
    /// When the engine began, as dates are written.
    pub started: Option<String>,
    /// When it ended.
    pub completed: Option<String>,
    /// The engine's identity.
    pub engine: Option<String>,
    /// Whether output, and an idle behind it, came or will come.
    pub printed: bool,
    /// How many attempts at it there were before.
    pub attempt: u32,
}

/// Sends requests. What comes of them goes to the channel that was given for it.
pub struct Posts {
    prefix: String,
    session: Session,
    sockets: Sockets,
    apply: Headers,
    execute: Headers,
    commands: mpsc::UnboundedSender<Command>,
}

impl Posts {
    pub(super) fn new(
        session: Session,
        sockets: Sockets,
        commands: mpsc::UnboundedSender<Command>,
    ) -> Self {
        Self {
            prefix: Uuid::new_v4().simple().to_string(),
            apply: session.headers("apply_request"),
            execute: session.headers("execute_request"),
            session,
            sockets,
            commands,
        }
    }

    pub(super) fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The message id of a request.
    pub fn id(&self, number: u64) -> String {
        id(&self.prefix, number)
    }

    /// The request of a message id, if it is one of these.
    pub fn number(&self, id: &str) -> Option<u64> {
        number(id.strip_prefix(&self.prefix)?)
    }

    /// Sends requests, in this order.
    pub fn send(&self, posts: impl IntoIterator<Item = Post>) {
        let date = Headers::now();
        let none = Bytes::from_static(b"{}");
        let messages = posts.into_iter().map(|post| {
            let headers = match post.kind {
                PostKind::Apply => &self.apply,
                PostKind::Execute => &self.execute,
            };
            let header = headers.header(&self.id(post.number), &date);
            let parts = [header, none.clone(), post.metadata, post.content];
            let socket = match &post.engine {
                Some(_) => MUX,
                None => TASK,
            };
            let frames = self
                .session
                .seal(post.engine.as_slice(), parts, &post.buffers);
            (socket, frames)
        });
        self.sockets.send_all(messages);
    }
}

impl Drop for Posts {
    fn drop(&mut self) {
        let prefix = std::mem::take(&mut self.prefix);
        // A task that ended has forgotten everything.
        let _ = self.commands.send(Command::EndPosts(prefix));
    }
}

impl fmt::Debug for Posts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Posts")
            .field("prefix", &self.prefix)
            .finish_non_exhaustive()
    }
}

fn id(prefix: &str, number: u64) -> String {
    format!("{prefix}-{number:x}")
}

/// The number behind a prefix.
fn number(rest: &str) -> Option<u64> {
    u64::from_str_radix(rest.strip_prefix('-')?, 16).ok()
}

/// Who hears of which requests.
#[derive(Debug, Default)]
pub(super) struct Postbox(HashMap<String, mpsc::UnboundedSender<Posted>>);

/// As much of a header as is needed to see whose it is.
#[derive(Deserialize)]
struct Head<'a> {
    #[serde(borrow)]
    msg_id: Cow<'a, str>,
}

#[derive(Deserialize)]
struct Kind<'a> {
    #[serde(borrow)]
    msg_type: Cow<'a, str>,
}

/// A message that belongs to a request of somebody's.
pub(super) struct Addressed<'a> {
    to: &'a mpsc::UnboundedSender<Posted>,
    number: u64,
}

impl Postbox {
    pub(super) fn add(&mut self, prefix: String, to: mpsc::UnboundedSender<Posted>) {
        self.0.insert(prefix, to);
    }

    pub(super) fn remove(&mut self, prefix: &str) {
        self.0.remove(prefix);
    }

    /// Whose a message is, by its parent. It isn't verified yet.
    pub(super) fn find(&self, parts: &Parts<'_>) -> Option<Addressed<'_>> {
        if self.0.is_empty() {
            return None;
        }
        let head: Head<'_> = serde_json::from_slice(parts.parent).ok()?;
        let (prefix, _) = head.msg_id.split_once('-')?;
        let to = self.0.get(prefix)?;
        let number = number(head.msg_id.get(prefix.len()..)?)?;
        Some(Addressed { to, number })
    }
}

impl Addressed<'_> {
    /// Passes on a reply that is verified.
    pub(super) fn reply(&self, parts: &Parts<'_>) {
        let reply = PostReply {
            metadata: serde_json::from_slice(parts.metadata).unwrap_or_default(),
            content: parts.content.clone(),
            buffers: parts.buffers.to_vec(),
        };
        let number = self.number;
        let reply = Box::new(reply);
        self.tell(Posted::Reply { number, reply });
    }

    /// Passes on something that is verified and that an engine broadcasts; `decode` makes the message of it.
    pub(super) fn broadcast(
        &self,
        parts: &Parts<'_>,
        decode: impl FnOnce() -> Option<protocol::Message>,
    ) {
        let number = self.number;
        let kind = serde_json::from_slice::<Kind<'_>>(parts.header);
        match kind.as_ref().map(|kind| &*kind.msg_type) {
            Ok("status") => {
                match serde_json::from_slice::<Status>(parts.content).map(|it| it.execution_state) {
                    Ok(ExecutionState::Idle) => {
                        let attempt = metadata(parts).attempt;
                        self.tell(Posted::Idle { number, attempt });
                    }
                    Ok(ExecutionState::Busy) => {
                        let engine = engine(parts);
                        self.tell(Posted::Busy { number, engine });
                    }
                    _ => {}
                }
            }
            Ok(_) => match decode().as_ref().and_then(output) {
                Some(Ok(output)) => {
                    let engine = engine(parts);
                    self.tell(Posted::Output {
                        number,
                        engine,
                        output,
                    });
                }
                Some(Err(error)) => tracing::warn!(%error, "an output is dropped"),
                None => {}
            },
            Err(_) => tracing::warn!("a broadcast without a type is dropped"),
        }
    }

    fn tell(&self, posted: Posted) {
        // Whoever is gone doesn't want to know.
        let _ = self.to.send(posted);
    }
}

/// Who made a broadcast, by its metadata.
fn engine(parts: &Parts<'_>) -> String {
    metadata(parts).engine.unwrap_or_default()
}

fn metadata(parts: &Parts<'_>) -> PostMetadata {
    serde_json::from_slice(parts.metadata).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_tell_whose_they_are() {
        let id = id("0123456789abcdef0123456789abcdef", 0xff_0000_0001);
        assert_eq!(id, "0123456789abcdef0123456789abcdef-ff00000001");
        let (to, mut heard) = mpsc::unbounded_channel();
        let mut postbox = Postbox::default();
        let parent = Bytes::from(format!("{{\"msg_id\": \"{id}\", \"more\": []}}"));
        let none = Bytes::from_static(b"{}");
        let parts = Parts {
            identities: &[],
            signature: &none,
            header: &none,
            parent: &parent,
            metadata: &Bytes::from_static(b"{\"status\": \"ok\", \"engine\": \"e\"}"),
            content: &none,
            buffers: &[],
        };
        assert!(postbox.find(&parts).is_none());
        postbox.add("0123456789abcdef0123456789abcdef".to_owned(), to);
        postbox.find(&parts).unwrap().reply(&parts);
        let Posted::Reply { number, reply } = heard.try_recv().unwrap() else {
            panic!("no reply")
        };
        assert_eq!(number, 0xff_0000_0001);
        assert_eq!(reply.metadata.engine.as_deref(), Some("e"));
        let other = Bytes::from_static(b"{\"msg_id\": \"0123-1\"}");
        let parts = Parts {
            parent: &other,
            ..parts
        };
        assert!(postbox.find(&parts).is_none());
    }
}
