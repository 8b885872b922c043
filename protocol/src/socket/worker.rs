//! The thread that owns a set of sockets.

use std::collections::HashSet;
use std::ops::ControlFlow;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::oneshot;
use zmq::{POLLIN, SocketType};

use super::frames::{self, Receiver, last_error, retried};
use super::outgoing::{Command, Outgoing};
use super::service::{Outlet, Service};
use super::{Received, SendError, SocketId};

/// How many messages one socket may deliver before the others and the outgoing ones have their turn.
const BURST: usize = 256;

/// A socket and what is known of it.
pub(super) struct Owned {
    pub(super) id: SocketId,
    pub(super) socket_type: SocketType,
    pub(super) socket: zmq::Socket,
    /// Whether it may have messages of which its descriptor does not tell: it had some when it was asked last, or was used since.
    may_have: bool,
    /// The errors that have been traced, by number.
    traced: HashSet<i32>,
}

impl Owned {
    pub(super) fn new(id: SocketId, socket_type: SocketType, socket: zmq::Socket) -> Self {
        Self {
            id,
            socket_type,
            socket,
            may_have: true,
            traced: HashSet::new(),
        }
    }

    /// Whether messages can be received.
    fn has_messages(&mut self) -> zmq::Result<bool> {
        self.may_have = retried(|| self.socket.get_events())?.contains(POLLIN);
        Ok(self.may_have)
    }

    /// Sends a message.
    pub(super) fn send(&mut self, frames: Vec<Bytes>) -> Result<(), SendError> {
        self.may_have = true;
        frames::send(&mut self.socket, frames).map_err(|error| {
            self.trace("send a message", error);
            match error {
                zmq::Error::EHOSTUNREACH => SendError::Unroutable,
                zmq::Error::EAGAIN => SendError::NoPeer,
                error => SendError::Refused(error),
            }
        })
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

impl std::fmt::Debug for Owned {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Owned")
            .field("id", &self.id)
            .field("socket_type", &self.socket_type)
            .finish_non_exhaustive()
    }
}

pub(super) struct Worker<S> {
    // Fields are dropped in this order. The last socket takes the context with it, which waits for as long as sockets linger;
    // only then are commands refused and those told who wait for the end.
    sockets: Vec<Owned>,
    outgoing: ClosedOnDrop,
    waiting: Vec<oneshot::Sender<()>>,
    service: S,
}

/// Whatever ends the thread, nobody waits for it in vain.
struct ClosedOnDrop(Arc<Outgoing>);

impl Drop for ClosedOnDrop {
    fn drop(&mut self) {
        self.0.close();
    }
}

impl<S: Service> Worker<S> {
    pub(super) fn new(sockets: Vec<Owned>, outgoing: Arc<Outgoing>, service: S) -> Self {
        Self {
            sockets,
            outgoing: ClosedOnDrop(outgoing),
            waiting: Vec::new(),
            service,
        }
    }

    pub(super) fn run(mut self) {
        let mut readable = Vec::with_capacity(self.sockets.len());
        let mut commands = Vec::new();
        let mut receiver = Receiver::default();
        let mut descriptors = match self.descriptors() {
            Ok(descriptors) => descriptors,
            Err(error) => return tracing::error!(%error, "the sockets have no descriptors"),
        };
        loop {
            let awake = match self.wait(&mut descriptors, &mut readable) {
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
                        self.waiting.extend(commands.filter_map(Command::waiting));
                        return;
                    }
                }
            }
            for index in readable.drain(..) {
                if self.receive(index, &mut receiver).is_break() {
                    return;
                }
            }
            let mut outlet = Outlet(&mut self.sockets);
            let due = self.service.deadline();
            if due.is_some_and(|due| due <= Instant::now())
                && self.service.on_time(&mut outlet).is_break()
            {
                return;
            }
        }
    }

    /// What to wait for: a descriptor of each socket, and that of the commands.
    fn descriptors(&self) -> zmq::Result<Vec<libc::pollfd>> {
        let wanted = |fd: RawFd| libc::pollfd {
            fd,
            events: libc::POLLIN,
            revents: 0,
        };
        let sockets = self.sockets.iter().map(|owned| owned.socket.get_fd());
        let commands = std::iter::once(Ok(self.outgoing.0.wake_fd()));
        sockets.chain(commands).map(|fd| fd.map(wanted)).collect()
    }

    /// Sleeps until there is something to do. Fills `readable` with the sockets that have messages; tells whether there are
    /// commands.
    ///
    /// ZeroMQ's own poll asks every socket twice, with a system call for each. Only those that may have messages are asked here: whose
    /// descriptor is readable, and who were used, for that makes a descriptor unreadable (zmq_getsockopt(3), `ZMQ_FD`).
    fn wait(
        &mut self,
        descriptors: &mut [libc::pollfd],
        readable: &mut Vec<usize>,
    ) -> zmq::Result<bool> {
        for (index, owned) in self.sockets.iter_mut().enumerate() {
            if owned.may_have && owned.has_messages()? {
                readable.push(index);
            }
        }
        let patience = match readable.is_empty() {
            true => self
                .service
                .deadline()
                .map(|deadline| deadline.saturating_duration_since(Instant::now())),
            false => Some(Duration::ZERO),
        };
        poll(descriptors, patience)?;
        let Some((commands, descriptors)) = descriptors.split_last() else {
            return Ok(false);
        };
        for (index, (owned, descriptor)) in self.sockets.iter_mut().zip(descriptors).enumerate() {
            if descriptor.revents != 0 && !owned.may_have && owned.has_messages()? {
                readable.push(index);
            }
        }
        Ok(commands.revents != 0)
    }

    fn obey(&mut self, command: Command) -> ControlFlow<()> {
        let mut outlet = Outlet(&mut self.sockets);
        match command {
            Command::Send { socket, frames } => outlet.send(socket, frames),
            Command::Deliver {
                socket,
                frames,
                outcome,
            } => {
                // Whoever asked may have stopped listening.
                let _ = outcome.send(outlet.deliver(socket, frames));
            }
            Command::Flush(done) => {
                let _ = done.send(());
            }
            Command::Ended(sender) => self.waiting.push(sender),
            Command::Close => return self.service.on_close(&mut outlet),
        }
        ControlFlow::Continue(())
    }

    /// Hands on what has arrived, up to a burst; the next poll tells of the rest.
    fn receive(&mut self, index: usize, receiver: &mut Receiver) -> ControlFlow<()> {
        for _ in 0..BURST {
            let Some(owned) = self.sockets.get_mut(index) else {
                break;
            };
            match receiver.receive(&owned.socket) {
                Ok(frames) => {
                    let received = Received {
                        socket: owned.id,
                        frames,
                    };
                    self.service
                        .on_message(received, &mut Outlet(&mut self.sockets))?;
                }
                Err(zmq::Error::EAGAIN) => break,
                Err(error) => {
                    owned.trace("receive a message", error);
                    break;
                }
            }
        }
        ControlFlow::Continue(())
    }
}

/// Waits for descriptors, without a patience for ever.
fn poll(descriptors: &mut [libc::pollfd], patience: Option<Duration>) -> zmq::Result<()> {
    let count = descriptors.len() as libc::nfds_t;
    // Rounded up: waking too early would be one more turn.
    let milliseconds = patience.map_or(-1, |patience| {
        i32::try_from(patience.as_micros().div_ceil(1000)).unwrap_or(i32::MAX)
    });
    retried(|| {
        // SAFETY: so many structures, which the call may write to.
        match unsafe { libc::poll(descriptors.as_mut_ptr(), count, milliseconds) } {
            0.. => Ok(()),
            _ => Err(last_error()),
        }
    })
}
