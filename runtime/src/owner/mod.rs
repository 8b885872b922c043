//! The owner's handle: starts the processes, feeds them snippets and calls, gives back events.

mod calls;
mod core;
mod driver;
mod output;
mod processes;
mod socket;

use std::path::PathBuf;
use std::process::Command;

use tokio::sync::{mpsc, oneshot};

use self::driver::{Driver, Order};
use self::processes::Processes;

use crate::call::Call;
use crate::event::{Event, RunId, Snippet};

/// How to start a runtime.
#[derive(Debug)]
pub struct Config {
    /// The program whose `main` calls [`child_main`](crate::child_main), with its arguments and environment. Its stdin, stdout and stderr
    /// settings are not used.
    pub command: Command,
    /// `libchorus_support.so`, compiled from [`SUPPORT_SOURCE`](crate::SUPPORT_SOURCE); without, the program runs no snippets, but
    /// closures of its own executable.
    pub support: Option<PathBuf>,
    /// Shared objects to load before `support`, in this order: the toolchain's `libstd-*.so`, which the dynamic linker would not
    /// find by itself.
    pub preload: Vec<PathBuf>,
    /// Whether checkpoints are made at all.
    pub checkpoint: bool,
    /// Resident memory in bytes above which no checkpoint is made.
    pub checkpoint_limit: u64,
    /// How many bytes are kept for later calls, see [`Piece::Keep`](crate::Piece::Keep).
    pub keep: u64,
    /// Where user code starts; the owner's own current folder when not given.
    pub current_dir: Option<PathBuf>,
}

impl Config {
    /// A runtime with checkpoints for namespaces of up to 4 GB, that keeps 1 GB for calls.
    pub fn new(command: Command, support: PathBuf) -> Config {
        Config {
            support: Some(support),
            ..Config::of_program(command)
        }
    }

    /// The same for a program whose closures are functions of its own executable, which no other process can load.
    pub fn of_program(command: Command) -> Config {
        Config {
            command,
            support: None,
            preload: Vec::new(),
            checkpoint: true,
            checkpoint_limit: 4_000_000_000,
            keep: 1_000_000_000,
            current_dir: None,
        }
    }
}

/// Why a runtime could not be started.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// The system refused.
    #[error("failed to {doing}")]
    System {
        /// What was tried.
        doing: &'static str,
        /// The system's words.
        #[source]
        source: std::io::Error,
    },
    /// The process started and could not load what it needs.
    #[error("failed to load what cells need: {reason}")]
    Support {
        /// The dynamic linker's words.
        reason: String,
    },
    /// The tokio runtime ended first.
    #[error("failed to start the runtime: its task was cancelled")]
    Died,
}

/// A handle to a namespace's process. Clones are handles to the same; dropping the last one takes the processes down.
#[derive(Debug, Clone)]
pub struct Runtime {
    orders: mpsc::UnboundedSender<Order>,
}

impl Runtime {
    /// Starts the processes and waits until they are ready for a snippet.
    ///
    /// Must be called within a tokio runtime with I/O and time enabled.
    ///
    /// # Errors
    /// When the process cannot be started, or cannot load the support library.
    pub async fn start(
        config: Config,
    ) -> Result<(Runtime, mpsc::UnboundedReceiver<Event>), RuntimeError> {
        let processes = Processes::spawn(&config, 0).map_err(|source| RuntimeError::System {
            doing: "start the runtime's process",
            source,
        })?;
        let (orders, received) = mpsc::unbounded_channel();
        let (events, to_read) = mpsc::unbounded_channel();
        let (ready, is_ready) = oneshot::channel();
        let driver = Driver::new(config, processes, received, events, ready);
        tokio::spawn(driver.run());
        match is_ready.await {
            Ok(Ok(())) => Ok((Runtime { orders }, to_read)),
            Ok(Err(reason)) => Err(RuntimeError::Support { reason }),
            Err(_) => Err(RuntimeError::Died),
        }
    }

    /// Queues a snippet. Exactly one [`Event::Finished`] comes back for it, in the order of the calls.
    pub fn run(&self, snippet: Snippet) {
        self.order(Order::Run(snippet));
    }

    /// Queues a call of a closure, which is made when all snippets and calls before it are over. Exactly one [`Event::Called`] comes
    /// back for it, in the order of the calls. Several calls are with the worker at once: queue the next before the last is answered.
    ///
    /// Calls leave the variables as they are: one copy of the namespace, made before the first call after a snippet, serves all of
    /// them. A call that dies or is interrupted costs nothing but itself.
    ///
    /// Copies pieces of more than 256 kB into shared memory before it returns.
    pub fn call(&self, call: &Call) {
        self.order(Order::Call(calls::prepare(call)));
    }

    /// Kills the worker if this run or call is going, takes it from the queue if it is waiting (it is reported in its turn);
    /// nothing if it is over.
    pub fn interrupt(&self, run: RunId) {
        self.order(Order::Interrupt(run));
    }

    /// Answers [`Event::Input`]: a line without its end, or `None` for the end of input.
    pub fn input(&self, line: Option<String>) {
        self.order(Order::Input(line));
    }

    /// Switches checkpoints, from the next snippet on. `limit`: resident memory in bytes above which none is made.
    pub fn set_checkpoint(&self, on: bool, limit: u64) {
        self.order(Order::SetCheckpoint { on, limit });
    }

    /// Begins anew with an empty namespace; runs that are going or queued end as interrupted. Returns when the new one is
    /// ready, or cannot become so: the next run's outcome says why.
    pub async fn restart(&self) {
        let (done, is_done) = oneshot::channel();
        self.order(Order::Restart(done));
        // An error means that the runtime was shut down meanwhile.
        let _ = is_done.await;
    }

    /// Ends the processes, everything that user code spawned included. Returns when they are gone.
    pub async fn shutdown(&self) {
        let (done, is_done) = oneshot::channel();
        self.order(Order::Shutdown(done));
        let _ = is_done.await;
    }

    /// After a shutdown there is nobody to take orders, and nothing that they could do.
    fn order(&self, order: Order) {
        if self.orders.send(order).is_err() {
            tracing::debug!("the runtime was shut down");
        }
    }
}
