//! Peers in the process of the sockets' owner: what they say and hear doesn't go through ZeroMQ.

use bytes::Bytes;
use tokio::sync::mpsc;
use zmq::SocketType;

use super::{Received, SocketId};

/// A peer in this process.
pub(super) struct Visitor {
    /// By which ROUTERs know it, as nobody else.
    pub(super) identity: Bytes,
    /// The sockets that it is a peer of, and what they are called by the visitor.
    pub(super) doors: Vec<(SocketId, SocketId)>,
    pub(super) inbox: mpsc::UnboundedSender<Received>,
    /// What it is to be told at the end of the turn, so that it is woken once for all of it.
    pub(super) told: Vec<Received>,
}

impl Visitor {
    /// What it calls a socket, if it is a peer of that.
    fn name(&self, socket: SocketId) -> Option<SocketId> {
        let mut doors = self.doors.iter();
        doors.find_map(|(door, name)| (*door == socket).then_some(*name))
    }
}

#[derive(Default)]
pub(super) struct Visitors(Vec<Visitor>);

impl Visitors {
    pub(super) fn add(&mut self, visitor: Visitor) {
        self.0.push(visitor);
    }

    /// Whether a visitor said this that has not left.
    pub(super) fn know(&self, received: &Received) -> bool {
        let by = received.frames.first();
        self.0.iter().any(|visitor| Some(&visitor.identity) == by)
    }

    pub(super) fn remove(&mut self, identity: &Bytes) {
        self.0.retain(|visitor| visitor.identity != identity);
    }

    /// Tells visitors what they were left since the last time.
    pub(super) fn flush(&mut self) {
        for visitor in &mut self.0 {
            for received in visitor.told.drain(..) {
                // Whoever has stopped listening is about to leave.
                let _ = visitor.inbox.send(received);
            }
        }
    }

    /// Leaves visitors what is theirs, as ZeroMQ would by this type of socket. Gives back what others are to have.
    pub(super) fn take(
        &mut self,
        socket: SocketId,
        socket_type: SocketType,
        mut frames: Vec<Bytes>,
    ) -> Option<Vec<Bytes>> {
        match socket_type {
            SocketType::ROUTER => {
                let to = frames.first();
                let mut visitors = self.0.iter_mut();
                let Some(visitor) = visitors.find(|visitor| Some(&visitor.identity) == to) else {
                    return Some(frames);
                };
                let Some(socket) = visitor.name(socket) else {
                    return Some(frames);
                };
                frames.remove(0);
                visitor.told.push(Received { socket, frames });
                None
            }
            SocketType::PUB | SocketType::XPUB => {
                for visitor in &mut self.0 {
                    if let Some(socket) = visitor.name(socket) {
                        let frames = frames.clone();
                        visitor.told.push(Received { socket, frames });
                    }
                }
                Some(frames)
            }
            _ => Some(frames),
        }
    }
}

impl std::fmt::Debug for Visitors {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let identities = self.0.iter().map(|visitor| &visitor.identity);
        f.debug_list().entries(identities).finish()
    }
}
