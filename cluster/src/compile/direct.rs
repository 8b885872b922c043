//! A compiler of this process: opened when it is first needed, asked on threads where it may block.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::{MissedTickBehavior, interval};

use super::{Aftermath, Artifact, Compiler, Diagnostic, Ended, Request, Trouble};
use crate::compile_service::worker::Cancel;
use crate::connection::Libraries;

/// The interval between two reports of the compiler's activity.
const TELL_INTERVAL: Duration = Duration::from_secs(1);

type Open = Box<dyn Fn() -> Result<Box<dyn Compiler>, String> + Send + Sync>;

/// A compiler of this process. Clones share it.
#[derive(Clone)]
pub struct DirectCompiler(Arc<Shared>);

struct Shared {
    open: Open,
    /// Held while it is opened.
    opening: Mutex<()>,
    compiler: OnceLock<Box<dyn Compiler>>,
}

impl fmt::Debug for DirectCompiler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DirectCompiler")
            .field("is_open", &self.0.compiler.get().is_some())
            .finish_non_exhaustive()
    }
}

impl DirectCompiler {
    /// A compiler that `open` makes when something is asked for the first time, and again after it failed, on a thread where it may block, within a tokio
    /// runtime.
    pub fn new(
        open: impl Fn() -> Result<Box<dyn Compiler>, String> + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(Shared {
            open: Box::new(open),
            opening: Mutex::default(),
            compiler: OnceLock::new(),
        }))
    }

    /// As [`Compiler::libraries`].
    ///
    /// # Errors
    /// As there, or that the compiler cannot be opened.
    pub async fn libraries(&self) -> Result<Libraries, Trouble> {
        self.ask(|compiler, _| compiler.libraries().map_err(Trouble::Gone))
            .await
    }

    /// As [`Compiler::compile`]; dropping the future cancels it. From the first second on, `tell` gets what the compiler does.
    ///
    /// # Errors
    /// As there, or that the compiler cannot be opened.
    pub async fn compile(
        &self,
        request: &Request,
        mut tell: impl FnMut(String),
    ) -> Result<Artifact, Trouble> {
        let request = request.clone();
        let mut compiled = std::pin::pin!(self.ask(move |compiler, cancel| {
            let compiled = compiler.compile(&request, cancel);
            compiled.map_err(Trouble::Diagnostics)
        }));
        let mut ticks = interval(TELL_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ticks.tick().await;
        loop {
            tokio::select! {
                compiled = &mut compiled => return compiled,
                _ = ticks.tick() => if let Some(activity) = self.activity().await {
                    tell(activity);
                },
            }
        }
    }

    /// As [`Compiler::after_early_end`].
    ///
    /// # Errors
    /// As there, or that the compiler cannot be opened.
    pub async fn after_early_end(&self, ended: &Ended) -> Result<Aftermath, Trouble> {
        let ended = ended.clone();
        let ask = move |compiler: &dyn Compiler, _: &Cancel| {
            let told = compiler.after_early_end(&ended);
            told.map_err(Trouble::Diagnostics)
        };
        self.ask(ask).await
    }

    /// As [`Compiler::activity`]. Opens nothing.
    pub async fn activity(&self) -> Option<String> {
        let shared = Arc::clone(&self.0);
        // It may read many small files.
        let activity = spawn_blocking(move || shared.compiler.get()?.activity());
        activity.await.ok().flatten()
    }

    async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&dyn Compiler, &Cancel) -> Result<T, Trouble> + Send + 'static,
    ) -> Result<T, Trouble> {
        let (shared, cancelled) = (Arc::clone(&self.0), Cancel::default());
        let mut cancel = CancelOnDrop(Some(cancelled.clone()));
        let answered = spawn_blocking(move || {
            let compiler = shared.open().map_err(|reason| {
                Trouble::Gone(format!("the compiler could not be opened: {reason}"))
            })?;
            catch_unwind(AssertUnwindSafe(|| question(compiler, &cancelled)))
                .unwrap_or_else(|_| Err(Trouble::Diagnostics(vec![beyond_the_compiler()])))
        });
        let answered = answered.await;
        cancel.0 = None;
        answered.unwrap_or_else(|error| Err(Trouble::Gone(error.to_string())))
    }
}

impl Shared {
    fn open(&self) -> Result<&dyn Compiler, String> {
        let _opening = self.opening.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(compiler) = self.compiler.get() {
            return Ok(&**compiler);
        }
        let opened = (self.open)()
            .inspect_err(|reason| tracing::error!(reason, "failed to open the compiler"))?;
        Ok(&**self.compiler.get_or_init(|| opened))
    }
}

/// Cancels when dropped.
struct CancelOnDrop(Option<Cancel>);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        if let Some(cancel) = &self.0 {
            cancel.cancel();
        }
    }
}

fn beyond_the_compiler() -> Diagnostic {
    Diagnostic::plain(
        "the compiler could not deal with this snippet; try to write it another way".to_owned(),
    )
}
