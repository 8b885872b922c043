//! The way to give up a job of evcxr's thread.

use crate::toolchain::interrupt_compiles;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How often it is looked whether evcxr has started another process for a job that was given up.
const STOP_INTERVAL: Duration = Duration::from_millis(100);

/// Belongs to one job. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Ticket(Arc<Mutex<Progress>>);

#[derive(Debug, Default)]
struct Progress {
    is_at_work: bool,
    is_given_up: bool,
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

    /// Nobody waits for the job any more: it is left out, or what evcxr starts for it is killed until it ends. Blocks until then.
    pub fn give_up(&self) {
        self.progress().is_given_up = true;
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
