//! The thread that owns a notebook's compile-time state.

use crate::bench::{OpenError, Settings};
use crate::notebook::Notebook;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::TryRecvError;
use std::sync::{Arc, mpsc};

type Job = Box<dyn FnOnce(&mut Notebook) + Send>;

/// A handle to a [`Notebook`] on its thread. Jobs run one after another, in the order they came.
#[derive(Clone)]
pub struct Session {
    jobs: mpsc::Sender<Job>,
    /// Whether completion is warm.
    completes: Arc<AtomicBool>,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").finish_non_exhaustive()
    }
}

impl Session {
    /// Starts the thread, which opens the notebook, tells `opened`, and warms up. Returns at once.
    pub fn start(
        settings: Settings,
        opened: impl FnOnce(Result<(), OpenError>) + Send + 'static,
    ) -> std::io::Result<Session> {
        let (jobs, queue) = mpsc::channel::<Job>();
        let completes = Arc::new(AtomicBool::new(false));
        let warm = Arc::clone(&completes);
        std::thread::Builder::new()
            .name("evcxr".into())
            // rust-analyzer recurses deeply on deeply nested code.
            .stack_size(64 << 20)
            .spawn(move || {
                let mut notebook = match Notebook::open(settings) {
                    Ok(notebook) => notebook,
                    Err(error) => return opened(Err(error)),
                };
                notebook.warm_up();
                opened(Ok(()));
                loop {
                    let next = match queue.try_recv() {
                        Err(TryRecvError::Empty) if !warm.load(Ordering::Relaxed) => {
                            notebook.warm_up_completion();
                            warm.store(true, Ordering::Relaxed);
                            tracing::info!("the compiler is warm");
                            continue;
                        }
                        Err(TryRecvError::Empty) => queue.recv().ok(),
                        next => next.ok(),
                    };
                    let Some(job) = next else { return };
                    // A job's own answer is lost with its panic, and whoever waits for it is told so by that.
                    if catch_unwind(AssertUnwindSafe(|| job(&mut notebook))).is_err() {
                        tracing::error!("a job of the evcxr thread panicked");
                    }
                }
            })?;
        Ok(Session { jobs, completes })
    }

    /// Whether completions come as fast as they will; the first of all takes longer.
    pub fn completes(&self) -> bool {
        self.completes.load(Ordering::Relaxed)
    }

    /// Queues a job. It is dropped when the session couldn't be opened.
    pub fn submit(&self, job: impl FnOnce(&mut Notebook) + Send + 'static) {
        // The thread is gone only if the notebook couldn't be opened, which `opened` has told.
        let _ = self.jobs.send(Box::new(job));
    }
}
