//! The task that owns a set of sockets.

use std::collections::{HashSet, VecDeque};
use std::future::poll_fn;
use std::io;
use std::ops::ControlFlow;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::oneshot;
use tokio::time::sleep_until;
use zmq::{POLLIN, SocketType};

use super::frames::{self, Receiver, retried};
use super::outgoing::{Command, Outgoing};
use super::service::{Outlet, Service};
use super::visitors::Visitors;
use super::{Received, SendError, SocketId};

/// How many messages one socket may deliver, or the queue of what there is to do, before the others have their turn.
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

/// See [`Worker::descriptors`].
pub(super) struct Descriptors(Vec<AsyncFd<RawFd>>);

pub(super) struct Worker<S> {
    // Fields are dropped in this order. Visitors learn of the end at once. The last socket takes the context with it, which waits for as
    // long as sockets linger; only then are commands refused and those told who wait for the end.
    visitors: Visitors,
    sockets: Vec<Owned>,
    outgoing: ClosedOnDrop,
    waiting: Vec<oneshot::Sender<()>>,
    service: S,
    /// Those that were taken out of the queue and have not had their turn.
    commands: VecDeque<Command>,
    receiver: Receiver,
    /// The sockets that have messages, by index.
    readable: Vec<usize>,
}

/// Whatever ends the task, nobody waits for it in vain.
struct ClosedOnDrop(Arc<Outgoing>);

impl Drop for ClosedOnDrop {
    fn drop(&mut self) {
        self.0.close();
    }
}

impl<S: Service> Worker<S> {
    pub(super) fn new(sockets: Vec<Owned>, outgoing: Arc<Outgoing>, service: S) -> Self {
        Self {
            readable: Vec::with_capacity(sockets.len()),
            visitors: Visitors::default(),
            sockets,
            outgoing: ClosedOnDrop(outgoing),
            waiting: Vec::new(),
            service,
            commands: VecDeque::new(),
            receiver: Receiver::default(),
        }
    }

    /// The sockets' descriptors, in their order, watched by the runtime.
    ///
    /// # Errors
    /// When the system does not watch them.
    pub(super) fn descriptors(&self) -> io::Result<Descriptors> {
        let watched = |owned: &Owned| {
            let fd = owned.socket.get_fd().map_err(errno)?;
            // SAFETY: the descriptor is the socket's, which outlives what is made here.
            let watched = unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) };
            watched.map_err(io::Error::from)
        };
        self.sockets
            .iter()
            .map(watched)
            .collect::<io::Result<_>>()
            .map(Descriptors)
    }

    /// Serves the sockets to their end.
    pub(super) async fn run(mut self, descriptors: Descriptors) {
        loop {
            if let Err(error) = self.wait(&descriptors).await {
                tracing::error!(%error, "failed to wait for messages; the sockets are closed");
                break;
            }
            let turn = self.turn();
            self.visitors.flush();
            if turn.is_break() {
                break;
            }
        }
        drop(descriptors);
        // Closing waits for as long as sockets linger.
        tokio::task::spawn_blocking(move || drop(self));
    }

    /// Finds sockets with messages among those that may have some. Before each sleep.
    ///
    /// ZeroMQ's own poll asks every socket twice, with a system call for each. Only those are asked here whose descriptor became
    /// readable, and who were used since, for that makes a descriptor unreadable (zmq_getsockopt(3), `ZMQ_FD`).
    fn ask(&mut self) -> zmq::Result<()> {
        for (index, owned) in self.sockets.iter_mut().enumerate() {
            if owned.may_have && owned.has_messages()? {
                self.readable.push(index);
            }
        }
        Ok(())
    }

    /// Takes note of a socket's descriptor being readable.
    fn note(&mut self, index: usize) -> zmq::Result<()> {
        if let Some(owned) = self.sockets.get_mut(index)
            && !owned.may_have
            && owned.has_messages()?
        {
            self.readable.push(index);
        }
        Ok(())
    }

    /// Does what there is to do: what was asked for, what came, what is due.
    fn turn(&mut self) -> ControlFlow<()> {
        if self.commands.is_empty() {
            self.outgoing.0.take(&mut self.commands);
        }
        for _ in 0..BURST {
            let Some(command) = self.commands.pop_front() else {
                break;
            };
            if self.obey(command).is_break() {
                let left = std::mem::take(&mut self.commands);
                self.waiting
                    .extend(left.into_iter().filter_map(Command::waiting));
                return ControlFlow::Break(());
            }
        }
        let mut readable = std::mem::take(&mut self.readable);
        for index in readable.drain(..) {
            self.receive(index)?;
        }
        self.readable = readable;
        let due = self.service.deadline();
        if due.is_some_and(|due| due <= Instant::now()) {
            let (service, mut outlet) = self.service();
            service.on_time(&mut outlet)?;
        }
        ControlFlow::Continue(())
    }

    /// Sleeps until there may be something to do.
    async fn wait(&mut self, descriptors: &Descriptors) -> zmq::Result<()> {
        self.ask()?;
        if !self.readable.is_empty() || !self.commands.is_empty() {
            // The other tasks' turn; and then that of all sockets, or a busy one would be the only one that is heard.
            tokio::task::yield_now().await;
            return poll_fn(|context| match self.poll_note(descriptors, context) {
                Poll::Ready(noted) => Poll::Ready(noted),
                Poll::Pending => Poll::Ready(Ok(())),
            })
            .await;
        }
        let deadline = self.service.deadline();
        let due = async {
            match deadline {
                Some(deadline) => sleep_until(deadline.into()).await,
                None => std::future::pending().await,
            }
        };
        let outgoing = Arc::clone(&self.outgoing.0);
        tokio::select! {
            biased;
            noted = poll_fn(|context| self.poll_note(descriptors, context)) => noted,
            () = outgoing.woken() => Ok(()),
            () = due => Ok(()),
        }
    }

    /// Ready when the descriptor of at least one socket is readable, which are noted.
    fn poll_note(
        &mut self,
        descriptors: &Descriptors,
        context: &mut Context<'_>,
    ) -> Poll<zmq::Result<()>> {
        let mut noted = Poll::Pending;
        for (index, descriptor) in descriptors.0.iter().enumerate() {
            // What becomes readable after that makes it ready once more.
            while let Poll::Ready(ready) = descriptor.poll_read_ready(context) {
                match ready {
                    Ok(mut ready) => ready.clear_ready(),
                    // The runtime ends.
                    Err(_) => return Poll::Ready(Err(zmq::Error::ETERM)),
                }
                self.note(index)?;
                noted = Poll::Ready(Ok(()));
            }
        }
        noted
    }

    /// The service and its way out.
    fn service(&mut self) -> (&mut S, Outlet<'_>) {
        let outlet = Outlet {
            sockets: &mut self.sockets,
            visitors: &mut self.visitors,
        };
        (&mut self.service, outlet)
    }

    fn obey(&mut self, command: Command) -> ControlFlow<()> {
        let (service, mut outlet) = self.service();
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
            Command::Visit(visitor) => self.visitors.add(visitor),
            Command::Hear { received, outcome } => {
                let heard = outlet.visitors.know(&received);
                let flow = match heard {
                    true => service.on_message(received, &mut outlet),
                    false => ControlFlow::Continue(()),
                };
                if let Some(outcome) = outcome {
                    let _ = outcome.send(heard.then_some(()).ok_or(SendError::Closed));
                }
                return flow;
            }
            Command::Leave(identity) => self.visitors.remove(&identity),
            Command::Flush(done) => {
                let _ = done.send(());
            }
            Command::Ended(sender) => self.waiting.push(sender),
            Command::Close => return service.on_close(&mut outlet),
        }
        ControlFlow::Continue(())
    }

    /// Hands on what has arrived, up to a burst; [`Self::ask`] finds the rest.
    fn receive(&mut self, index: usize) -> ControlFlow<()> {
        for _ in 0..BURST {
            let Some(owned) = self.sockets.get_mut(index) else {
                break;
            };
            match self.receiver.receive(&owned.socket) {
                Ok(frames) => {
                    let received = Received {
                        socket: owned.id,
                        frames,
                    };
                    let (service, mut outlet) = self.service();
                    service.on_message(received, &mut outlet)?;
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

fn errno(error: zmq::Error) -> io::Error {
    io::Error::from_raw_os_error(error.to_raw())
}
