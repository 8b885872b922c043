//! What a cell waits for before it runs.

use compiler::lineages::Compiler;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::time::{Instant, sleep_until};

/// How long a cell waits without a word.
const PATIENCE: Duration = Duration::from_secs(1);
/// How often it is looked at what the compiler is doing.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);

/// A cell's wait, from its beginning on.
pub(super) struct Waiting {
    compiler: Arc<OnceLock<Arc<dyn Compiler>>>,
    next: Instant,
}

impl Waiting {
    pub(super) fn new(compiler: Arc<OnceLock<Arc<dyn Compiler>>>) -> Waiting {
        Waiting {
            compiler,
            next: Instant::now() + PATIENCE,
        }
    }

    /// Returns what the compiler is doing when it is time to say so.
    pub(super) async fn activity(&mut self) -> String {
        loop {
            sleep_until(self.next).await;
            self.next = Instant::now() + LOOK_INTERVAL;
            let Some(compiler) = self.compiler.get().cloned() else {
                continue;
            };
            // It reads many small files.
            let activity = tokio::task::spawn_blocking(move || compiler.activity()).await;
            if let Ok(Some(activity)) = activity {
                return activity;
            }
        }
    }
}
