//! The way to give up something that was asked of a compiler.

use crate::toolchain::interrupt_compiles;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How often it is looked whether evcxr has started another process for a job that was given up.
const STOP_INTERVAL: Duration = Duration::from_millis(100);

/// Belongs to one question. Clones share it.
#[derive(Clone, Default)]
pub struct Ticket(Arc<Mutex<Progress>>);

#[derive(Default)]
struct Progress {
    is_at_work: bool,
    is_given_up: bool,
    when_given_up: Option<Box<dyn FnOnce() + Send>>,
}

impl std::fmt::Debug for Ticket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ticket").finish_non_exhaustive()
    }
}

impl Ticket {
    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says that the job's turn has come; false if it is not to be done any more.
    pub(super) fn begin(&self) -> bool {
        let mut progress = self.progress();
        progress.is_at_work = !progress.is_given_up;
        progress.is_at_work
    }

    pub(super) fn end(&self) {
        self.progress().is_at_work = false;
    }

    /// Has `work` called when nobody waits for the answer any more: at once if that is so already.
    pub fn when_given_up(&self, work: impl FnOnce() + Send + 'static) {
        let mut progress = self.progress();
        match progress.is_given_up {
            true => {
                drop(progress);
                work();
            }
            false => progress.when_given_up = Some(Box::new(work)),
        }
    }

    /// Nobody waits for the answer any more. What has not begun is left out; what has begun goes on.
    pub fn withdraw(&self) {
        let when_given_up = {
            let mut progress = self.progress();
            progress.is_given_up = true;
            progress.when_given_up.take()
        };
        if let Some(work) = when_given_up {
            work();
        }
    }

    /// Nobody waits for the answer any more. What has not begun is left out; what evcxr starts in this process for something that has begun
    /// is killed until that ends. Blocks until then.
    pub fn give_up(&self) {
        self.withdraw();
        loop {
            {
                // evcxr starts nothing for the next job meanwhile.
                let progress = self.progress();
                if !progress.is_at_work {
                    return;
                }
                interrupt_compiles();
            }
            std::thread::sleep(STOP_INTERVAL);
        }
    }
}
