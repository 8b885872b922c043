//! The thread that owns a set of sockets.

use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};
use zmq::{POLLIN, SocketType};

use super::frames::{self, Receiver, retried};
use super::outgoing::{Command, Outgoing};
use super::{Received, SendError, SocketId};

/// How many messages one socket may deliver before the others and the outgoing ones have their turn.
const BURST: usize = 256;

/// A socket and what is known of it.
pub(super) struct Owned {
    pub(super) id: SocketId,
    pub(super) socket_type: SocketType,
    pub(super) socket: zmq::Socket,
    /// The errors that have been traced, by number.
    traced: HashSet<i32>,
}

impl Owned {
    pub(super) fn new(id: SocketId, socket_type: SocketType, socket: zmq::Socket) -> Self {
        Self {
            id,
            socket_type,
            socket,
            traced: HashSet::new(),
        }
    }

    /// Traces an error, loudly if it is the first of its kind on this socket.
    fn trace(&mut self, action: &'static str, error: zmq::Error) {
        let (socket, socket_type) = (self.id.0, self.socket_type);
        if self.traced.insert(error.to_raw()) {
            tracing::warn!(socket, ?socket_type, %error, "failed to {action}; the next time this is a trace only");
        } else {
            tracing::trace!(socket, ?socket_type, %error, "failed to {action}");
        }
    }
}

pub(super) struct Worker {
    // Fields are dropped in this order. The last socket takes the context with it, which waits for as long as sockets linger;
    // only then are commands refused and those told who wait for the end.
    sockets: Vec<Owned>,
    outgoing: ClosedOnDrop,
    closers: Vec<oneshot::Sender<()>>,
    received: mpsc::UnboundedSender<Received>,
}

/// Whatever ends the thread, nobody waits for it in vain.
struct ClosedOnDrop(Arc<Outgoing>);

impl Drop for ClosedOnDrop {
    fn drop(&mut self) {
        self.0.close();
    }
}

impl Worker {
    pub(super) fn new(
        sockets: Vec<Owned>,
        outgoing: Arc<Outgoing>,
        received: mpsc::UnboundedSender<Received>,
    ) -> Self {
        Self {
            sockets,
            outgoing: ClosedOnDrop(outgoing),
            closers: Vec::new(),
            received,
        }
    }

    pub(super) fn run(mut self) {
        let mut readable = Vec::with_capacity(self.sockets.len());
        let mut commands = Vec::new();
        let mut receiver = Receiver::default();
        loop {
            let awake = match self.wait(&mut readable) {
                Ok(awake) => awake,
                Err(error) => {
                    tracing::error!(%error, "failed to wait for messages; the sockets are closed");
                    return;
                }
            };
            if awake {
                self.outgoing.0.awake();
                self.outgoing.0.take(&mut commands);
                let mut commands = commands.drain(..);
                while let Some(command) = commands.next() {
                    if self.obey(command).is_break() {
                        self.closers.extend(commands.filter_map(Command::closer));
                        return;
                    }
                }
            }
            for index in readable.drain(..) {
                if let Some(owned) = self.sockets.get_mut(index) {
                    receive(owned, &mut receiver, &self.received);
                }
            }
        }
    }

    /// Sleeps until there is something to do. Fills `readable` with the sockets that have messages; tells whether there are
    /// commands.
    fn wait(&self, readable: &mut Vec<usize>) -> zmq::Result<bool> {
        let mut items: Vec<_> = self
            .sockets
            .iter()
            .map(|owned| owned.socket.as_poll_item(POLLIN))
            .collect();
        items.push(zmq::PollItem::from_fd(self.outgoing.0.wake_fd(), POLLIN));
        retried(|| zmq::poll(&mut items, -1))?;
        let awake = items.pop().is_some_and(|item| item.is_readable());
        readable.extend(
            items
                .iter()
                .enumerate()
                .filter(|(_, item)| item.is_readable())
                .map(|(index, _)| index),
        );
        Ok(awake)
    }

    fn obey(&mut self, command: Command) -> std::ops::ControlFlow<()> {
        match command {
            Command::Send { socket, frames } => {
                if let Err(error @ SendError::UnknownSocket(_)) = self.send(socket, frames) {
                    tracing::error!(%error, "a message is lost");
                }
            }
            Command::Deliver {
                socket,
                frames,
                outcome,
            } => {
                // Whoever asked may have stopped listening.
                let _ = outcome.send(self.send(socket, frames));
            }
            Command::Flush(done) => {
                let _ = done.send(());
            }
            Command::Close(done) => {
                self.closers.extend(done);
                return std::ops::ControlFlow::Break(());
            }
        }
        std::ops::ControlFlow::Continue(())
    }

    fn send(&mut self, socket: SocketId, frames: Vec<Bytes>) -> Result<(), SendError> {
        let owned = self.sockets.iter_mut().find(|owned| owned.id == socket);
        let owned = owned.ok_or(SendError::UnknownSocket(socket))?;
        frames::send(&mut owned.socket, frames).map_err(|error| {
            owned.trace("send a message", error);
            match error {
                zmq::Error::EHOSTUNREACH => SendError::Unroutable,
                zmq::Error::EAGAIN => SendError::NoPeer,
                error => SendError::Refused(error),
            }
        })
    }
}

/// Hands on what has arrived, up to a burst; the next poll tells of the rest.
fn receive(owned: &mut Owned, receiver: &mut Receiver, received: &mpsc::UnboundedSender<Received>) {
    for _ in 0..BURST {
        match receiver.receive(&owned.socket) {
            // Without a receiver messages are thrown away, or they would pile up in ZeroMQ.
            Ok(frames) => drop(received.send(Received {
                socket: owned.id,
                frames,
            })),
            Err(zmq::Error::EAGAIN) => return,
            Err(error) => return owned.trace("receive a message", error),
        }
    }
}
