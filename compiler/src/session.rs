//! The thread that owns a notebook's compile-time state.

use crate::bench::{OpenError, Settings};
use crate::notebook::Notebook;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::RecvTimeoutError;
use std::sync::{Arc, mpsc};
use std::time::Duration;

/// How long nobody may have asked for anything before the next step of the warm-up.
const PAUSE: Duration = Duration::from_millis(100);

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
    /// Starts the thread, which opens the notebook, tells `opened`, and warms up while it has nothing to do. Returns at once.
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
                opened(Ok(()));
                // A cell that needs no types doesn't wait for the standard library.
                let mut warming: Vec<fn(&mut Notebook)> =
                    vec![Notebook::warm_up_completion, Notebook::warm_up];
                loop {
                    let next = match warming.last() {
                        None => queue.recv().ok(),
                        Some(step) => match queue.recv_timeout(PAUSE) {
                            Ok(job) => Some(job),
                            Err(RecvTimeoutError::Timeout) => {
                                step(&mut notebook);
                                warming.pop();
                                if warming.is_empty() {
                                    warm.store(true, Ordering::Relaxed);
                                    tracing::info!("the compiler is warm");
                                }
                                continue;
                            }
                            Err(RecvTimeoutError::Disconnected) => None,
                        },
                    };
                    let Some(job) = next else { return };
                    let _during = notebook.busy();
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
