//! The program as a compile worker: evcxr on a thread, asked by the compile service.

use super::{environment, options};
use anyhow::Context;
use cluster::compile_service::worker::{self, Activity, Cancel, Handler};
use compiler::Ticket;
use compiler::folder::Folder;
use compiler::lineages::{Answer, Ask, Base, Compiler, Failure, Refused, Thread};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, mpsc};
use std::time::Duration;

/// The limit for the end of evcxr's thread. The service ends this process soon after it has closed the pipe, and the folder has to be removed before.
const END_TIMEOUT: Duration = Duration::from_millis(200);

/// What a worker is opened with. It has the environment of its clients, so it is not for a log.
#[derive(Serialize, Deserialize)]
pub(super) struct Key {
    pub(super) environment: BTreeMap<String, String>,
    pub(super) base: Base,
    /// The clients' folder, if evcxr is configured there.
    pub(super) folder: Option<PathBuf>,
    pub(super) executable: PathBuf,
}

/// Serves the compile service that has started this process. `log` is called when this process has its environment.
pub(crate) fn main(log: impl FnOnce()) -> anyhow::Result<()> {
    Ok(worker::serve(|key| {
        Worker::open(key, log).map_err(|error| format!("{error:#}"))
    })?)
}

struct Worker {
    /// `None` at the end.
    thread: Option<Arc<Thread>>,
    ended: mpsc::Receiver<()>,
    _folder: Folder,
}

impl Worker {
    fn open(key: &str, log: impl FnOnce()) -> anyhow::Result<Self> {
        let Key {
            environment,
            base,
            folder,
            executable,
        } = serde_json::from_str(key)?;
        // SAFETY: no other thread has been started.
        unsafe { environment::replace(&environment) };
        log();
        if let Some(folder) = folder {
            let failed = || {
                format!(
                    "failed to enter {}, where evcxr is configured",
                    folder.display()
                )
            };
            std::env::set_current_dir(&folder).with_context(failed)?;
        }
        let folder = Folder::create().context("failed to make a temporary folder")?;
        for (name, value) in folder.environment() {
            // SAFETY: no other thread has been started.
            unsafe { std::env::set_var(name, value) };
        }
        let (working, ended) = mpsc::channel();
        let path = folder.path().to_owned();
        let thread = Thread::start(base, &options(executable), path, working)?;
        Ok(Self {
            thread: Some(Arc::new(thread)),
            ended,
            _folder: folder,
        })
    }

    fn answer(&self, payload: Value, cancel: &Cancel) -> Result<Answer, Refused> {
        let failed = |reason: String| Refused::Failure(Failure::Unavailable(reason));
        let ask: Ask = serde_json::from_value(payload)
            .map_err(|error| failed(format!("the request cannot be understood: {error}")))?;
        let thread = self
            .thread
            .as_ref()
            .ok_or_else(|| failed("the worker ends".to_owned()))?;
        let ticket = Ticket::default();
        let given_up = ticket.clone();
        // Blocks until evcxr is back, and the service has more to say meanwhile.
        let _cancelled = cancel.on_cancel(move || {
            let give_up = move || given_up.give_up();
            if let Err(error) = std::thread::Builder::new().spawn(give_up) {
                tracing::warn!(%error, "a compile that nobody waits for goes on");
            }
        });
        thread.ask(ask, &ticket)
    }
}

impl Handler for Worker {
    fn handle(&mut self, payload: Value, cancel: &Cancel) -> Value {
        let answer = self.answer(payload, cancel);
        serde_json::to_value(&answer).unwrap_or_else(|error| {
            // The client says that it does not understand this.
            Value::String(error.to_string())
        })
    }

    fn has_moved(&self) -> bool {
        self.thread
            .as_ref()
            .is_some_and(|thread| thread.has_moved())
    }

    fn activity(&self) -> Activity {
        let thread = self.thread.as_ref().map(Arc::downgrade);
        Arc::new(move || thread.as_ref()?.upgrade()?.activity())
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.thread = None;
        // evcxr may be in the middle of a compile that nobody waits for.
        compiler::stop_compiles();
        // It says nothing, and its channel closes when the thread has ended.
        let _ = self.ended.recv_timeout(END_TIMEOUT);
    }
}
