//! `chorus engine`: a kernel that takes its requests from a controller and owns one runtime.
//!
//! Two tasks: `link` has the sockets, registers, keeps the heart beating and answers what must not wait; `worker` gives requests to the
//! [`executor`](crate::executor), which has the namespace, and answers them. A link that breaks is made anew; the namespace stays.

mod call;
mod compiler;
mod line;
mod link;
mod memory;
mod requests;
mod runtimes;
mod snippet;
mod worker;

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::process;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use protocol::{Message, SocketId};
use serde_json::json;
use tokio::sync::{mpsc, watch};
use uuid::Uuid;

use crate::compile::{Compiler, DirectCompiler};
use crate::connection::{EngineFile, Libraries};
use crate::executor::WorkId;
use crate::{EngineId, Error};
use line::Line;

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
    pub runtime: process::Command,
    /// Compiles where the connection file names no compiler, or that has ended.
    pub compiler: DirectCompiler,
    /// What runtimes load; by default what the connection file says, or else its compiler.
    pub libraries: Option<Libraries>,
    /// Resident memory in bytes above which no checkpoint is made.
    pub checkpoint_limit: u64,
    /// How long to look for a controller that has gone.
    pub patience: Duration,
}

impl Config {
    /// An engine with the usual limits.
    pub fn new(file: PathBuf, runtime: process::Command, compiler: DirectCompiler) -> Self {
        Self {
            file,
            id: None,
            runtime,
            compiler,
            libraries: None,
            checkpoint_limit: 4_000_000_000,
            patience: Duration::from_secs(120),
        }
    }
}

/// Runs an engine until it is told to end; for a `main`. `runtime` is the program that becomes the runtime's process, which is
/// this one with the subcommand `runtime`. `open` makes a compiler, as [`DirectCompiler::new`] says, if it is needed.
///
/// # Errors
/// When there is no controller, or it refuses this engine.
pub fn main(
    arguments: Arguments,
    runtime: process::Command,
    open: impl Fn() -> Result<Box<dyn Compiler>, String> + Send + Sync + 'static,
) -> Result<(), Error> {
    crate::process::run(arguments.tied, |stop, announce| async move {
        let mut config = Config::new(arguments.file, runtime, DirectCompiler::new(open));
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
    /// Requests that were aborted before they came.
    aborted: Mutex<HashSet<String>>,
    /// Requests that have come and are not answered. A controller that is found again is told, so that it knows which were lost.
    holds: Mutex<HashMap<String, WorkId>>,
}

impl Shared {
    fn line(&self) -> Option<Line> {
        self.line.borrow().clone()
    }

    fn aborted(&self) -> MutexGuard<'_, HashSet<String>> {
        self.aborted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn holds(&self) -> MutexGuard<'_, HashMap<String, WorkId>> {
        self.holds.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is done before requests that wait.
#[derive(Debug)]
enum Command {
    /// End what runs.
    Interrupt,
    /// Do not run these, and end those that run if `running` is set.
    Abort { ids: Vec<WorkId>, running: bool },
}

/// A request and the socket that its reply goes to.
#[derive(Debug)]
struct Job {
    id: WorkId,
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
        aborted: Mutex::default(),
        holds: Mutex::default(),
    });
    let (jobs, queue) = mpsc::unbounded_channel();
    let (commands, orders) = mpsc::unbounded_channel();
    let mut link = link::Link {
        path: config.file.clone(),
        patience: config.patience,
        uuid,
        id: config.id,
        shared: Arc::clone(&shared),
        jobs,
        commands,
        count: AtomicU64::new(0),
    };
    let worker = tokio::spawn(worker::run(config, file, shared, queue, orders));
    let outcome = link.serve(ready, stop).await;
    // Without further jobs the worker ends, and takes the runtimes down.
    drop(link);
    if worker.await.is_err() {
        tracing::error!("the engine's worker panicked");
    }
    outcome
}
