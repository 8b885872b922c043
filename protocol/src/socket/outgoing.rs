//! The queue between handles and the thread: any number of writers, one reader, and a pipe that wakes it.

use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::oneshot;

use super::{SendError, SocketId};

/// What the thread is asked to do, in this order.
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

pub(super) struct Outgoing {
    queue: Mutex<Queue>,
    // Both ends live here, so that a write never meets a closed pipe.
    waker: PipeWriter,
    wake: PipeReader,
}

struct Queue {
    commands: Vec<Command>,
    closed: bool,
}

impl Outgoing {
    pub(super) fn new() -> io::Result<Self> {
        let (wake, waker) = io::pipe()?;
        Ok(Self {
            queue: Mutex::new(Queue {
                commands: Vec::new(),
                closed: false,
            }),
            waker,
            wake,
        })
    }

    /// Puts a command at the end. When the thread has ended the command is dropped, and with it the channel for its answer.
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
        // A queue that was not empty has been announced already. So at most a few bytes are ever in the pipe, and the write
        // does not block.
        if was_empty && let Err(error) = (&self.waker).write_all(&[1]) {
            tracing::error!(%error, "failed to wake the thread that owns the sockets");
        }
    }

    /// What becomes readable when there are commands.
    pub(super) fn wake_fd(&self) -> RawFd {
        self.wake.as_raw_fd()
    }

    /// Takes note of being woken; for the thread, once [`Self::wake_fd`] is readable and before [`Self::take`].
    pub(super) fn awake(&self) {
        if let Err(error) = (&self.wake).read(&mut [0; 64]) {
            tracing::error!(%error, "failed to read the pipe that wakes the thread that owns the sockets");
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
