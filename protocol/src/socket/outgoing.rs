//! The queue between handles and the owner of the sockets: any number of writers, one reader, and what wakes it.

use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::{Notify, oneshot};

use super::{SendError, SocketId};

/// What the owner is asked to do, in this order.
pub(super) enum Command {
    /// Send a message.
    Send {
        socket: SocketId,
        frames: Vec<Bytes>,
    },
    /// Send a message and tell whether it went.
    Deliver {
        socket: SocketId,
        frames: Vec<Bytes>,
        outcome: oneshot::Sender<Result<(), SendError>>,
    },
    /// Answer when this is reached.
    Flush(oneshot::Sender<()>),
    /// Keep the sender until the sockets are closed.
    Ended(oneshot::Sender<()>),
    /// End.
    Close,
}

impl Command {
    /// Who waits for the sockets to be closed, if this asks for that.
    pub(super) fn waiting(self) -> Option<oneshot::Sender<()>> {
        match self {
            Self::Ended(sender) => Some(sender),
            _ => None,
        }
    }
}

pub(super) struct Outgoing<W: ?Sized = dyn Wake> {
    queue: Mutex<Queue>,
    wake: W,
}

/// How the owner of the sockets learns that there are commands.
pub(super) trait Wake: Send + Sync {
    fn wake(&self);
}

/// Wakes a thread that polls.
pub(super) struct Pipe {
    // Both ends live here, so that a write never meets a closed pipe.
    writer: PipeWriter,
    reader: PipeReader,
}

impl Pipe {
    pub(super) fn new() -> io::Result<Self> {
        let (reader, writer) = io::pipe()?;
        Ok(Self { writer, reader })
    }

    /// What becomes readable when there are commands.
    pub(super) fn fd(&self) -> RawFd {
        self.reader.as_raw_fd()
    }

    /// Takes note of being woken: once [`Self::fd`] is readable, and before the commands are taken.
    pub(super) fn awake(&self) {
        if let Err(error) = (&self.reader).read(&mut [0; 64]) {
            tracing::error!(%error, "failed to read the pipe that wakes the thread that owns the sockets");
        }
    }
}

impl Wake for Pipe {
    fn wake(&self) {
        // At most a few bytes are ever in the pipe, and the write does not block.
        if let Err(error) = (&self.writer).write_all(&[1]) {
            tracing::error!(%error, "failed to wake the thread that owns the sockets");
        }
    }
}

/// Wakes a task.
impl Wake for Notify {
    fn wake(&self) {
        self.notify_one();
    }
}

struct Queue {
    commands: Vec<Command>,
    closed: bool,
}

impl<W: Wake> Outgoing<W> {
    pub(super) fn new(wake: W) -> Self {
        Self {
            queue: Mutex::new(Queue {
                commands: Vec::new(),
                closed: false,
            }),
            wake,
        }
    }

    pub(super) fn wake(&self) -> &W {
        &self.wake
    }
}

impl<W: Wake + ?Sized> Outgoing<W> {
    /// Puts a command at the end. When the sockets are closed the command is dropped, and with it the channel for its answer.
    pub(super) fn push(&self, command: Command) {
        self.push_all([command]);
    }

    /// As [`Self::push`]. The commands are made before the queue is locked.
    pub(super) fn push_all(&self, commands: impl IntoIterator<Item = Command>) {
        let commands: Vec<Command> = commands.into_iter().collect();
        let mut queue = self.lock();
        if queue.closed || commands.is_empty() {
            return;
        }
        let was_empty = queue.commands.is_empty();
        queue.commands.extend(commands);
        drop(queue);
        // A queue that was not empty has been announced already.
        if was_empty {
            self.wake.wake();
        }
    }

    /// Moves all commands to `commands`, which is empty.
    pub(super) fn take(&self, commands: &mut Vec<Command>) {
        std::mem::swap(&mut self.lock().commands, commands);
    }

    /// Refuses further commands and drops those that are left.
    pub(super) fn close(&self) {
        let mut queue = self.lock();
        queue.closed = true;
        let left = std::mem::take(&mut queue.commands);
        drop(queue);
        drop(left);
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        // Nothing that holds the lock can leave the queue half changed.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
