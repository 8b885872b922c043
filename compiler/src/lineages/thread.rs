//! evcxr on a thread of this process.

use super::ask::{Answer, Ask, Refused};
use super::store::Store;
use super::ticket::Ticket;
use super::workshop::Workshop;
use super::{Base, Failure, Options, StartError};
use crate::activity::{Activity, Phase};
use crate::bench::{Settings, Toolchain};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// How long nobody may have asked for anything before the next step of the warm-up: who has just asked may ask again at once.
const PAUSE: Duration = Duration::from_millis(100);

/// Whoever has evcxr.
pub trait Compiler: std::fmt::Debug + Send + Sync {
    /// Asks, and blocks until it is answered or given up.
    ///
    /// # Errors
    /// Says why there is no answer.
    fn ask(&self, ask: Ask, ticket: &Ticket) -> Result<Answer, Refused>;

    /// Whether completions come as fast as they will; the first of all takes longer.
    fn completes(&self) -> bool;

    /// What is being done for those who wait, in a line for people. It may take a while to find out.
    fn activity(&self) -> Option<String>;
}

/// See the module's page.
#[derive(Debug)]
pub struct Thread {
    jobs: mpsc::Sender<Job>,
    told: Arc<Told>,
}

#[derive(Debug, Default)]
struct Told {
    activity: Activity,
    /// Whether it is warm.
    completes: AtomicBool,
    /// Why there is no evcxr.
    failed: OnceLock<String>,
}

#[derive(Debug)]
struct Job {
    ask: Ask,
    ticket: Ticket,
    answer: mpsc::Sender<Result<Answer, Refused>>,
}

impl Thread {
    /// Starts it, in a folder of this process's own where evcxr works (`EVCXR_TMPDIR` names it). `working` is kept to the thread's end, until which
    /// it may write there.
    ///
    /// # Errors
    /// When there is no toolchain, or no place to keep anything.
    pub fn start(
        options: &Options,
        folder: PathBuf,
        working: mpsc::Sender<()>,
    ) -> Result<(Thread, Base), StartError> {
        let told = Arc::new(Told::default());
        let (found, toolchain) = mpsc::channel();
        let settings = Settings {
            folder: folder.clone(),
            executable: options.executable.clone(),
            toolchain,
            support_source: options.support_source,
            crates: options.crates,
            activity: told.activity.clone(),
        };
        let (stores, opened) = mpsc::channel::<Store>();
        let (jobs, queue) = mpsc::channel();
        let telling = Arc::clone(&told);
        // evcxr starts while the toolchain is looked at.
        std::thread::Builder::new()
            .name("evcxr".into())
            // rust-analyzer recurses deeply on deeply nested code.
            .stack_size(64 << 20)
            .spawn(move || {
                serve(settings, &opened, &queue, &telling);
                drop(working);
            })
            .map_err(StartError::Thread)?;
        let base = Base::prepare(options).or_else(|error| match error {
            StartError::Store { .. } => {
                tracing::warn!(%error, "compiled snippets are kept for this session only");
                let store = folder.join("snippets");
                Base::prepare(&Options {
                    store,
                    ..options.clone()
                })
            }
            error => Err(error),
        })?;
        // Should the thread have ended already, the first who asks is told why.
        let _ = stores.send(base.store.clone());
        let _ = found.send(Toolchain {
            rustc: base.rustc.clone(),
            support: base.support.clone(),
        });
        Ok((Thread { jobs, told }, base))
    }
}

impl Compiler for Thread {
    fn ask(&self, ask: Ask, ticket: &Ticket) -> Result<Answer, Refused> {
        let (answer, answered) = mpsc::channel();
        let job = Job {
            ask,
            ticket: ticket.clone(),
            answer,
        };
        let sent = self.jobs.send(job).is_ok();
        answered.recv().unwrap_or_else(|_| {
            let failure = match self.told.failed.get() {
                Some(reason) => Failure::Refused(reason.clone()),
                None if sent => Failure::Panicked("no answer".to_owned()),
                None => Failure::Refused("the compiler's thread has ended".to_owned()),
            };
            Err(failure.into())
        })
    }

    fn completes(&self) -> bool {
        self.told.completes.load(Ordering::Relaxed)
    }

    fn activity(&self) -> Option<String> {
        self.told.activity.line()
    }
}

/// Serves jobs until nobody can send any. What the first of them would wait for is done before, as long as there is none.
fn serve(
    settings: Settings,
    stores: &mpsc::Receiver<Store>,
    jobs: &mpsc::Receiver<Job>,
    told: &Told,
) {
    let mut workshop = match Workshop::open(settings, stores) {
        Ok(workshop) => workshop,
        Err(error) => {
            tracing::error!(%error, "failed to open the compiler");
            // Set before the first job is dropped, by which whoever waits for it is told.
            let _ = told.failed.set(error.to_string());
            jobs.iter().for_each(drop);
            return;
        }
    };
    tracing::info!("evcxr is open");
    let mut warming = Workshop::warming();
    loop {
        let job = match warming.last() {
            None => jobs.recv().ok(),
            Some(step) => match jobs.recv_timeout(PAUSE) {
                Ok(job) => Some(job),
                Err(RecvTimeoutError::Timeout) => {
                    step(&mut workshop);
                    warming.pop();
                    // The store's size is of no interest to who asks.
                    told.completes.store(warming.len() < 2, Ordering::Relaxed);
                    continue;
                }
                Err(RecvTimeoutError::Disconnected) => None,
            },
        };
        let Some(Job {
            ask,
            ticket,
            answer,
        }) = job
        else {
            return;
        };
        if !ticket.begin() {
            continue;
        }
        let phase = match &ask {
            Ask::Compile(task) => Phase::of(&task.cell.source),
            _ => Phase::Snippet,
        };
        let _during = told.activity.enter(phase);
        // A job's own answer is lost with its panic, and whoever waits for it is told so by that.
        match catch_unwind(AssertUnwindSafe(|| workshop.answer(ask))) {
            Ok(done) => drop(answer.send(done)),
            Err(_) => tracing::error!("a job of the evcxr thread panicked"),
        }
        drop(answer);
        ticket.end();
        workshop.tidy_up();
    }
}
