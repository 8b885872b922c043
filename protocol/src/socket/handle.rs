//! The handle to a set of sockets.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

use super::outgoing::{Command, Outgoing};
use super::visitors::Visitor;
use super::{Received, SendError, SocketId};

/// A handle to a set of sockets. Clones are handles to the same set.
///
/// When the last handle is dropped the sockets' task sends what was queued, and ends on its own, as long as the runtime runs. [`Self::close`]
/// waits for that, which a process that is about to exit should do.
#[derive(Clone)]
pub struct Sockets(Arc<Inner>);

struct Inner {
    outgoing: Arc<Outgoing>,
    endpoints: HashMap<SocketId, String>,
    /// There for a visitor: nothing is sent by the sockets, but to their owner.
    visit: Option<Visit>,
}

/// A visitor's way in.
struct Visit {
    identity: Bytes,
    /// The visitor's names of sockets, and their owner's.
    doors: HashMap<SocketId, SocketId>,
}

impl Sockets {
    pub(super) fn new(outgoing: Arc<Outgoing>, endpoints: HashMap<SocketId, String>) -> Self {
        Self(Arc::new(Inner {
            outgoing,
            endpoints,
            visit: None,
        }))
    }

    /// Makes the caller a peer of these sockets without ZeroMQ between: what is sent by the handle that this gives reaches the sockets'
    /// [`super::Service`] as if it had come from a DEALER with this identity, and what is sent to that, or published, comes out of the receiver, whose end is
    /// the sockets' end. As that happens in one process, no thread of ZeroMQ's has to wake up.
    ///
    /// `identity`: no other peer's. `doors`: what the caller calls the sockets, and their endpoints. `None` if an endpoint is none of them, or
    /// this is a visitor's handle itself.
    pub fn visit(
        &self,
        identity: Bytes,
        doors: impl IntoIterator<Item = (SocketId, String)>,
    ) -> Option<(Self, mpsc::UnboundedReceiver<Received>)> {
        if self.0.visit.is_some() {
            return None;
        }
        let endpoints: HashMap<SocketId, String> = doors.into_iter().collect();
        let at = |endpoint: &String| {
            let mut all = self.0.endpoints.iter();
            all.find_map(|(socket, at)| (at == endpoint).then_some(*socket))
        };
        let doors = endpoints
            .iter()
            .map(|(name, endpoint)| Some((*name, at(endpoint)?)))
            .collect::<Option<HashMap<SocketId, SocketId>>>()?;
        let (sender, inbox) = mpsc::unbounded_channel();
        self.0.outgoing.push(Command::Visit(Visitor {
            identity: identity.clone(),
            doors: doors.iter().map(|(name, door)| (*door, *name)).collect(),
            inbox: sender,
            told: Vec::new(),
        }));
        let visitor = Self(Arc::new(Inner {
            outgoing: Arc::clone(&self.0.outgoing),
            endpoints,
            visit: Some(Visit { identity, doors }),
        }));
        Some((visitor, inbox))
    }

    /// Queues a message and returns at once. Messages leave in the order of the calls, across all sockets of the set.
    ///
    /// What cannot be sent is dropped, and traced when it happens for the first time on a socket: a ROUTER's peer that is gone, a
    /// bound DEALER or PUSH without peers. Use [`Self::deliver`] to know.
    pub fn send(&self, socket: SocketId, frames: Vec<Bytes>) {
        self.send_all([(socket, frames)]);
    }

    /// As [`Self::send`], for many messages: the task is woken once for all that are there by then.
    pub fn send_all(&self, messages: impl IntoIterator<Item = (SocketId, Vec<Bytes>)>) {
        let messages = messages.into_iter();
        let outgoing = &self.0.outgoing;
        match &self.0.visit {
            None => {
                outgoing.push_all(messages.map(|(socket, frames)| Command::Send { socket, frames }))
            }
            Some(visit) => outgoing.push_all(messages.filter_map(|(socket, frames)| {
                let received = visit.received(socket, frames)?;
                let outcome = None;
                Some(Command::Hear { received, outcome })
            })),
        }
    }

    /// As [`Self::send`], and tells whether ZeroMQ took the message. It is queued when this is called, not when it is awaited.
    ///
    /// # Errors
    /// When the message cannot be sent. Success means that a peer was there, not that it has the message.
    pub fn deliver(
        &self,
        socket: SocketId,
        frames: Vec<Bytes>,
    ) -> impl Future<Output = Result<(), SendError>> + Send + use<> {
        let (outcome, answer) = oneshot::channel();
        match &self.0.visit {
            None => self.0.outgoing.push(Command::Deliver {
                socket,
                frames,
                outcome,
            }),
            Some(visit) => match visit.received(socket, frames) {
                Some(received) => self.0.outgoing.push(Command::Hear {
                    received,
                    outcome: Some(outcome),
                }),
                // The receiver is here.
                None => drop(outcome.send(Err(SendError::UnknownSocket(socket)))),
            },
        }
        async { answer.await.unwrap_or(Err(SendError::Closed)) }
    }

    /// Resolves when everything queued before has been handed to ZeroMQ, or when the sockets are closed.
    pub async fn flush(&self) {
        let (done, answer) = oneshot::channel();
        self.0.outgoing.push(Command::Flush(done));
        // An error is the task's end, which leaves nothing to wait for.
        let _ = answer.await;
    }

    /// Resolves when the sockets are closed, whoever closed them.
    pub async fn ended(&self) {
        let (ended, answer) = oneshot::channel();
        self.0.outgoing.push(Command::Ended(ended));
        // It is dropped, now if there is no task any more.
        let _ = answer.await;
    }

    /// Sends what is queued, closes the sockets and ends their task. Takes as long as peers need to take what was sent, at
    /// most the sockets' linger. Other handles stay valid, and what they send is dropped. A visitor takes its leave, and the sockets stay.
    pub async fn close(self) {
        self.0.end();
        match self.0.visit {
            None => self.ended().await,
            Some(_) => self.flush().await,
        }
    }

    /// The endpoint of a socket as peers can connect to it: with the port that the system chose. For a socket with several
    /// endpoints the last one, for a connected one what it was given.
    pub fn endpoint(&self, socket: SocketId) -> Option<&str> {
        self.0.endpoints.get(&socket).map(String::as_str)
    }
}

impl Visit {
    /// As the sockets would receive it.
    fn received(&self, socket: SocketId, mut frames: Vec<Bytes>) -> Option<Received> {
        let socket = *self.doors.get(&socket)?;
        frames.insert(0, self.identity.clone());
        Some(Received { socket, frames })
    }
}

impl Inner {
    fn end(&self) {
        self.outgoing.push(match &self.visit {
            None => Command::Close,
            Some(visit) => Command::Leave(visit.identity.clone()),
        });
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.end();
    }
}

impl fmt::Debug for Sockets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sockets")
            .field("endpoints", &self.0.endpoints)
            .finish_non_exhaustive()
    }
}
