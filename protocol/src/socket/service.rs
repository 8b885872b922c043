//! What becomes of the messages that a set of sockets receives.

use std::ops::ControlFlow;
use std::time::Instant;

use bytes::Bytes;
use tokio::sync::mpsc;

use super::visitors::Visitors;
use super::worker::Owned;
use super::{Received, SendError, SocketId};

/// Who handles what arrives, in the task that owns the sockets: a message goes in and its answer out without another task having to
/// wake up. So nothing in here may wait.
///
/// `Break` ends the task, and closes the sockets.
pub trait Service: Send + 'static {
    /// A message has come.
    fn on_message(&mut self, received: Received, outlet: &mut Outlet<'_>) -> ControlFlow<()>;

    /// When [`Self::on_time`] is wanted, if at all. Asked after each time that something happened.
    fn deadline(&self) -> Option<Instant> {
        None
    }

    /// The deadline has come.
    fn on_time(&mut self, _outlet: &mut Outlet<'_>) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }

    /// Somebody wants the sockets to be closed, by [`super::Sockets::close`] or because the last handle is gone. May come again.
    fn on_close(&mut self, _outlet: &mut Outlet<'_>) -> ControlFlow<()> {
        ControlFlow::Break(())
    }
}

/// Hands everything on. Without a receiver messages are thrown away, or they would pile up in ZeroMQ.
impl Service for mpsc::UnboundedSender<Received> {
    fn on_message(&mut self, received: Received, _outlet: &mut Outlet<'_>) -> ControlFlow<()> {
        let _ = self.send(received);
        ControlFlow::Continue(())
    }
}

/// The way out for a [`Service`]: to ZeroMQ, and to the peers in this process ([`super::Sockets::visit`]).
#[derive(Debug)]
pub struct Outlet<'a> {
    pub(super) sockets: &'a mut [Owned],
    pub(super) visitors: &'a mut Visitors,
}

impl Outlet<'_> {
    /// Sends a message at once. What cannot be sent is dropped, as by [`super::Sockets::send`].
    pub fn send(&mut self, socket: SocketId, frames: Vec<Bytes>) {
        if let Err(error @ SendError::UnknownSocket(_)) = self.deliver(socket, frames) {
            tracing::error!(%error, "a message is lost");
        }
    }

    /// As [`Self::send`], and tells whether ZeroMQ or a peer in this process took the message.
    ///
    /// # Errors
    /// When the message cannot be sent. Success means that a peer was there, not that it has the message.
    pub fn deliver(&mut self, socket: SocketId, frames: Vec<Bytes>) -> Result<(), SendError> {
        let owned = self.sockets.iter_mut().find(|owned| owned.id == socket);
        let owned = owned.ok_or(SendError::UnknownSocket(socket))?;
        match self.visitors.take(socket, owned.socket_type, frames) {
            Some(frames) => owned.send(frames),
            None => Ok(()),
        }
    }
}
