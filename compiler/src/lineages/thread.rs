//! evcxr on a thread of this process.

use super::ask::{Answer, Ask, Refused};
use super::ticket::Ticket;
use super::workshop::Workshop;
use super::{Base, Failure, Options};
use crate::activity::{Activity, Phase};
use crate::bench::Settings;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
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
    failed: Mutex<Option<String>>,
}

#[derive(Debug)]
struct Job {
    ask: Ask,
    ticket: Ticket,
    answer: mpsc::Sender<Result<Answer, Refused>>,
}

impl Thread {
    /// Starts it, in a folder of this process's own where evcxr works (`EVCXR_TMPDIR` names it). `working` is kept to the thread's end, until
    /// which it may write there.
    ///
    /// # Errors
    /// When the system has no thread to give.
    pub fn start(
        base: Base,
        options: &Options,
        folder: PathBuf,
        working: mpsc::Sender<()>,
    ) -> io::Result<Thread> {
        let told = Arc::new(Told::default());
        let settings = Settings {
            folder,
            executable: options.executable.clone(),
            support_source: options.support_source,
            crates: options.crates,
            activity: told.activity.clone(),
        };
        let (jobs, queue) = mpsc::channel();
        let telling = Arc::clone(&told);
        std::thread::Builder::new()
            .name("evcxr".into())
            // rust-analyzer recurses deeply on deeply nested code.
            .stack_size(64 << 20)
            .spawn(move || {
                serve(&settings, &base, &queue, &telling);
                drop(working);
            })?;
        Ok(Thread { jobs, told })
    }

    /// Whether evcxr had to be brought to other dependencies since this was asked last, which takes seconds.
    pub fn has_moved(&self) -> bool {
        self.told.activity.take_move()
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
            let failed = self.told.failed.lock();
            let failure = match &*failed.unwrap_or_else(PoisonError::into_inner) {
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
fn serve(settings: &Settings, base: &Base, jobs: &mpsc::Receiver<Job>, told: &Told) {
    let mut next = None;
    let mut workshop = loop {
        match Workshop::open(settings.clone(), base.clone()) {
            Ok(workshop) => break workshop,
            Err(error) => {
                tracing::error!(%error, "failed to open the compiler");
                let mut failed = told.failed.lock().unwrap_or_else(PoisonError::into_inner);
                *failed = Some(error.to_string());
            }
        }
        // Whoever has waited is told so by the end of his job. Another try may go better: its process may have been killed.
        drop(next.take());
        match jobs.recv() {
            Ok(job) => next = Some(job),
            Err(_) => return,
        }
    };
    tracing::info!("evcxr is open");
    let mut warming = Workshop::warming();
    loop {
        let job = match warming.last() {
            _ if next.is_some() => next.take(),
            None => jobs.recv().ok(),
            Some(step) => match jobs.recv_timeout(PAUSE) {
                Ok(job) => Some(job),
                Err(RecvTimeoutError::Timeout) => {
                    guarded(|| step(&mut workshop));
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
        guarded(|| workshop.tidy_up());
    }
}

/// Does what nobody waits for. A panic in it ends nothing else.
fn guarded(work: impl FnOnce()) {
    if catch_unwind(AssertUnwindSafe(work)).is_err() {
        tracing::error!("evcxr panicked");
    }
}
