//! `chorus engine`: a kernel that takes its requests from a controller and owns one runtime.
//!
//! Two tasks: `link` has the sockets, registers, keeps the heart beating and answers what must not wait; `worker` has the
//! namespace and serves one request after another; of closures (see `call`) it sends some ahead. A link that breaks is made anew; the
//! namespace stays.

mod call;
mod flight;
mod line;
mod link;
mod memory;
mod namespace;
mod programs;
mod snippet;
mod worker;

use std::collections::HashSet;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use protocol::{Message, SocketId};
use serde_json::json;
use tokio::sync::{mpsc, watch};
use uuid::Uuid;

use crate::connection::{EngineFile, Libraries};
use crate::{EngineId, Error, process};
use line::Line;
use worker::Worker;

/// What `chorus engine` is told on its command line.
#[derive(Clone, Debug)]
pub struct Arguments {
    /// The engines' connection file; `--file`.
    pub file: PathBuf,
    /// The id that it would like; `--id`.
    pub id: Option<EngineId>,
    /// Megabytes above which no checkpoint is made; `--checkpoint-mb`.
    pub checkpoint_mb: Option<u64>,
    /// As [`crate::controller::Arguments::tied`].
    pub tied: bool,
}

/// How to run an engine.
#[derive(Debug)]
pub struct Config {
    /// The connection file, read anew for every attempt to connect.
    pub file: PathBuf,
    /// The id that it would like.
    pub id: Option<EngineId>,
    /// The program whose `main` calls [`runtime::child_main`], with its arguments.
    pub runtime: Command,
    /// What runtimes load; by default what the connection file says, or else the compile service.
    pub libraries: Option<Libraries>,
    /// Resident memory in bytes above which no checkpoint is made.
    pub checkpoint_limit: u64,
    /// How long to look for a controller that has gone.
    pub patience: Duration,
}

impl Config {
    /// An engine with the usual limits.
    pub fn new(file: PathBuf, runtime: Command) -> Self {
        Self {
            file,
            id: None,
            runtime,
            libraries: None,
            checkpoint_limit: 4_000_000_000,
            patience: Duration::from_secs(120),
        }
    }
}

/// Runs an engine until it is told to end; for a `main`. `runtime` is the program that becomes the runtime's process, which is
/// this one with the subcommand `runtime`.
///
/// # Errors
/// When there is no controller, or it refuses this engine.
pub fn main(arguments: Arguments, runtime: Command) -> Result<(), Error> {
    process::run(arguments.tied, |stop, announce| async move {
        let mut config = Config::new(arguments.file, runtime);
        config.id = arguments.id;
        if let Some(megabytes) = arguments.checkpoint_mb {
            config.checkpoint_limit = megabytes.saturating_mul(1_000_000);
        }
        let ready = |id: EngineId, uuid: &str| announce.ready(&json!({"id": id, "uuid": uuid}));
        serve(config, ready, stop.wait()).await
    })
}

/// What both tasks see.
#[derive(Debug)]
struct Shared {
    /// The connection that there is.
    line: watch::Sender<Option<Line>>,
    /// Counts interrupts.
    interrupts: watch::Sender<u64>,
    /// Counts changes of `aborted`.
    aborts: watch::Sender<u64>,
    /// Requests that are not to be run when their turn comes.
    aborted: Mutex<HashSet<String>>,
    /// The request that runs, unless it is a call.
    running: Mutex<Option<String>>,
    /// Requests that are to end even if they run.
    stopped: Mutex<HashSet<String>>,
    /// Requests that have come and are not answered. A controller that is found again is told, so that it knows which were lost.
    holds: Mutex<HashSet<String>>,
}

impl Shared {
    fn aborted(&self) -> MutexGuard<'_, HashSet<String>> {
        self.aborted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn running(&self) -> MutexGuard<'_, Option<String>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stopped(&self) -> MutexGuard<'_, HashSet<String>> {
        self.stopped.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn holds(&self) -> MutexGuard<'_, HashSet<String>> {
        self.holds.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request and the socket that its reply goes to.
#[derive(Debug)]
struct Job {
    socket: SocketId,
    message: Message,
}

/// Registers, serves requests until `stop` or until it is asked to end, and unregisters. `ready` is called when clients know of the
/// engine for the first time.
///
/// # Errors
/// When there is no controller at first, or none any more, or it refuses this engine.
pub async fn serve(
    config: Config,
    ready: impl FnOnce(EngineId, &str),
    stop: impl Future<Output = ()>,
) -> Result<(), Error> {
    let file = EngineFile::read(&config.file)?;
    let uuid = Uuid::new_v4().to_string();
    let shared = Arc::new(Shared {
        line: watch::Sender::new(None),
        interrupts: watch::Sender::new(0),
        aborts: watch::Sender::new(0),
        aborted: Mutex::default(),
        running: Mutex::default(),
        stopped: Mutex::default(),
        holds: Mutex::default(),
    });
    let (jobs, queue) = mpsc::unbounded_channel();
    let mut link = link::Link {
        path: config.file.clone(),
        patience: config.patience,
        uuid,
        id: config.id,
        shared: Arc::clone(&shared),
        jobs,
    };
    let worker = Worker::new(config, file, shared, queue);
    let worker = tokio::spawn(worker.run());
    let outcome = link.serve(ready, stop).await;
    // Without further jobs the worker ends, and takes the runtime down.
    link.shared.interrupts.send_modify(|count| *count += 1);
    drop(link);
    if worker.await.is_err() {
        tracing::error!("the engine's worker panicked");
    }
    outcome
}
