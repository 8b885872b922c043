//! The handle to a set of sockets.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::oneshot;

use super::outgoing::{Command, Outgoing};
use super::{SendError, SocketId};

/// A handle to a set of sockets. Clones are handles to the same set.
///
/// When the last handle is dropped the sockets' task sends what was queued, and ends on its own, as long as the runtime runs. [`Self::close`]
/// waits for that, which a process that is about to exit should do.
#[derive(Clone)]
pub struct Sockets(Arc<Inner>);

struct Inner {
    outgoing: Arc<Outgoing>,
    endpoints: HashMap<SocketId, String>,
}

impl Sockets {
    pub(super) fn new(outgoing: Arc<Outgoing>, endpoints: HashMap<SocketId, String>) -> Self {
        Self(Arc::new(Inner {
            outgoing,
            endpoints,
        }))
    }

    /// Queues a message and returns at once. Messages leave in the order of the calls, across all sockets of the set.
    ///
    /// What cannot be sent is dropped, and traced when it happens for the first time on a socket: a ROUTER's peer that is gone, a
    /// bound DEALER or PUSH without peers. Use [`Self::deliver`] to know.
    pub fn send(&self, socket: SocketId, frames: Vec<Bytes>) {
        self.0.outgoing.push(Command::Send { socket, frames });
    }

    /// As [`Self::send`], for many messages: the task is woken once for all that are there by then.
    pub fn send_all(&self, messages: impl IntoIterator<Item = (SocketId, Vec<Bytes>)>) {
        let commands = messages
            .into_iter()
            .map(|(socket, frames)| Command::Send { socket, frames });
        self.0.outgoing.push_all(commands);
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
        self.0.outgoing.push(Command::Deliver {
            socket,
            frames,
            outcome,
        });
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
    /// most the sockets' linger. Other handles stay valid, and what they send is dropped.
    pub async fn close(self) {
        self.0.outgoing.push(Command::Close);
        self.ended().await;
    }

    /// The endpoint of a socket as peers can connect to it: with the port that the system chose. For a socket with several
    /// endpoints the last one, for a connected one what it was given.
    pub fn endpoint(&self, socket: SocketId) -> Option<&str> {
        self.0.endpoints.get(&socket).map(String::as_str)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.outgoing.push(Command::Close);
    }
}

impl fmt::Debug for Sockets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sockets")
            .field("endpoints", &self.0.endpoints)
            .finish_non_exhaustive()
    }
}
