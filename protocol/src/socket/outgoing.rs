//! The queue between handles and the task that owns the sockets: any number of writers, one reader.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::{Notify, oneshot};

use super::visitors::Visitor;
use super::{Received, SendError, SocketId};

/// What the task is asked to do, in this order.
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
    /// A peer in this process comes.
    Visit(Visitor),
    /// It has said something; tell whether it was heard.
    Hear {
        received: Received,
        outcome: Option<oneshot::Sender<Result<(), SendError>>>,
    },
    /// It goes.
    Leave(Bytes),
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

#[derive(Default)]
pub(super) struct Outgoing {
    queue: Mutex<Queue>,
    /// Tells the task that there are commands.
    wake: Notify,
}

#[derive(Default)]
struct Queue {
    commands: VecDeque<Command>,
    closed: bool,
}

impl Outgoing {
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
            self.wake.notify_one();
        }
    }

    /// Resolves when commands were put into the empty queue, or have been since the last time.
    pub(super) async fn woken(&self) {
        self.wake.notified().await;
    }

    /// Moves all commands to `commands`, which is empty.
    pub(super) fn take(&self, commands: &mut VecDeque<Command>) {
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
