//! The owner's handle: starts the processes, feeds them snippets, gives back events.

use std::path::PathBuf;
use std::process::Command;

use tokio::sync::mpsc;

use crate::event::{Event, RunId, Snippet};

/// How to start a runtime.
#[derive(Debug)]
pub struct Config {
    /// The program whose `main` calls [`child_main`](crate::child_main), with its arguments and environment. Its stdin, stdout and stderr
    /// settings are not used.
    pub command: Command,
    /// `libchorus_support.so`, compiled from [`SUPPORT_SOURCE`](crate::SUPPORT_SOURCE).
    pub support: PathBuf,
    /// Shared objects to load before `support`, in this order: the toolchain's `libstd-*.so`, which the dynamic linker would not
    /// find by itself.
    pub preload: Vec<PathBuf>,
    /// Whether checkpoints are made at all.
    pub checkpoint: bool,
    /// Resident memory in bytes above which no checkpoint is made.
    pub checkpoint_limit: u64,
    /// Where user code starts; the owner's own current folder when not given.
    pub current_dir: Option<PathBuf>,
}

impl Config {
    /// A runtime with checkpoints for namespaces of up to 4 GB.
    pub fn new(command: Command, support: PathBuf) -> Config {
        Config {
            command,
            support,
            preload: Vec::new(),
            checkpoint: true,
            checkpoint_limit: 4_000_000_000,
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
    /// The process ended before it was ready.
    #[error("failed to start the runtime: {cause}")]
    Died {
        /// What it died of.
        cause: String,
    },
}

/// A handle to a namespace's process. Clones are handles to the same; dropping the last one takes the processes down.
#[derive(Debug, Clone)]
pub struct Runtime {}

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
        let _ = config;
        Err(RuntimeError::Died {
            cause: "not built yet".to_owned(),
        })
    }

    /// Queues a snippet. Exactly one [`Event::Finished`] comes back for it, in the order of the calls.
    pub fn run(&self, snippet: Snippet) {
        let _ = snippet;
    }

    /// Kills the worker if this run is going, takes it from the queue if it is waiting; nothing if it is over.
    pub fn interrupt(&self, run: RunId) {
        let _ = run;
    }

    /// Answers [`Event::Input`]: a line without its end, or `None` for the end of input.
    pub fn input(&self, line: Option<String>) {
        let _ = line;
    }

    /// Switches checkpoints, from the next snippet on. `limit`: resident memory in bytes above which none is made.
    pub fn set_checkpoint(&self, on: bool, limit: u64) {
        let _ = (on, limit);
    }

    /// Begins anew with an empty namespace; runs that are going or queued end as interrupted. Returns when the new one is ready.
    pub async fn restart(&self) {}

    /// Ends the processes, everything that user code spawned included. Returns when they are gone.
    pub async fn shutdown(&self) {}
}
