//! Cells in, outcomes out: has a cell compiled in the namespace's lineage and run by its runtime.
//!
//! `course` is one cell on its way, `backlog` what happens between two of them. One cell at a time. Its phases are waiting for the evaluator to be ready, compiling, running; an interrupt ends each of them. evcxr is free again
//! once a cell is compiled, so completion and inspection don't wait for a cell that runs.

mod backlog;
mod course;
mod waiting;

use crate::compile_service;
use crate::failure::{self, Places};
use backlog::Backlog;
use cluster::output::{Gatherer, Output};
use compiler::lineages::{self, Compiler, ROOT, Thread};
use compiler::{Completions, Documentation, Lineages, Owner, Place, Support, Ticket};
use course::Course;
use magics::run::Evaluated;
use magics::timeit::Times;
use protocol::message::ErrorInfo;
use runtime::{Event, Runtime};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use tokio::sync::{mpsc, watch};
use waiting::Waiting;

/// Resident memory in bytes above which no checkpoint is made.
const CHECKPOINT_LIMIT: u64 = 8 << 30;

/// A cell to evaluate.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cell {
    /// Its text without magics, line by line.
    pub(crate) code: String,
    /// What the user sees in these lines, if that is something else.
    pub(crate) shown: Option<String>,
    /// Its execution count.
    pub(crate) count: u32,
}

/// Interrupts since a cell began, for all that it does.
pub(crate) type Interrupts = watch::Receiver<u64>;

/// A line for a cell that reads input.
pub(crate) trait Ask: Send {
    /// `None` is the end of input.
    fn ask(
        &mut self,
        prompt: String,
        password: bool,
    ) -> impl Future<Output = Option<String>> + Send;
}

/// For cells that nobody can answer.
pub(crate) struct NoInput;

impl Ask for NoInput {
    async fn ask(&mut self, _prompt: String, _password: bool) -> Option<String> {
        None
    }
}

/// The notebook's state of checkpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Checkpoints {
    pub(crate) on: bool,
    /// See [`CHECKPOINT_LIMIT`].
    pub(crate) limit: u64,
}

/// A handle; clones share the evaluator.
#[derive(Clone, Debug)]
pub(crate) struct Evaluator {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// Held by the cell that is evaluated.
    turn: Arc<tokio::sync::Mutex<()>>,
    ready: watch::Sender<Option<Result<Ready, String>>>,
    executable: PathBuf,
    /// Where programs in cells find their carrier.
    carrier: Option<PathBuf>,
    events: Mutex<Target>,
    namespace: Mutex<Namespace>,
    /// Counts interrupts, so that a cell notices those since its beginning.
    interrupts: watch::Sender<u64>,
    runs: AtomicU64,
    checkpoints: Mutex<Checkpoints>,
    /// Set when there is one.
    compiler: Arc<OnceLock<Arc<dyn Compiler>>>,
    /// Variables of the environment that `:env` has set.
    environment: Mutex<BTreeMap<String, String>>,
}

/// What the runtime has, as the compiler knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Namespace {
    lineage: String,
    /// The lineage once the cell that runs has ended: its names complete already.
    ahead: Option<String>,
    /// The runtime has lost the lineage's variables.
    has_lost_variables: bool,
}

#[derive(Clone, Debug)]
struct Ready {
    lineages: Lineages,
    runtime: Runtime,
    support: Support,
}

/// Where the runtime's events go.
#[derive(Debug)]
enum Target {
    /// To the cell that is evaluated.
    Cell(mpsc::UnboundedSender<Event>),
    /// Nowhere yet: the next cell gets what threads of earlier ones do.
    Backlog(Backlog),
}

impl Evaluator {
    /// Starts evcxr and the runtime behind it. Returns at once; cells wait until it is ready.
    /// `carrier`: the socket of the programs' carrier.
    pub(crate) fn start(
        executable: PathBuf,
        folder: PathBuf,
        carrier: Option<PathBuf>,
    ) -> Evaluator {
        let evaluator = Evaluator {
            shared: Arc::new(Shared {
                turn: Arc::default(),
                ready: watch::Sender::new(None),
                executable: executable.clone(),
                carrier,
                events: Mutex::new(Target::Backlog(Backlog::default())),
                namespace: Mutex::new(Namespace {
                    lineage: ROOT.to_owned(),
                    ahead: None,
                    has_lost_variables: false,
                }),
                interrupts: watch::Sender::new(0),
                runs: AtomicU64::new(0),
                checkpoints: Mutex::new(Checkpoints {
                    on: true,
                    limit: CHECKPOINT_LIMIT,
                }),
                compiler: Arc::default(),
                environment: Mutex::default(),
            }),
        };
        // No cell comes before the user's configuration.
        let turn = Arc::clone(&evaluator.shared.turn).try_lock_owned();
        let started = evaluator.clone();
        tokio::spawn(async move {
            let outcome = started.bring_up(executable, folder).await;
            if let Err(message) = &outcome {
                tracing::error!("{message}");
            }
            started.shared.ready.send_replace(Some(outcome.clone()));
            if let Ok(ready) = outcome
                && lineages::has_configuration()
            {
                started.configure(ready).await;
            }
            drop(turn);
        });
        evaluator
    }

    async fn bring_up(&self, executable: PathBuf, folder: PathBuf) -> Result<Ready, String> {
        let (working, _) = std::sync::mpsc::channel();
        let options = compile_service::options(executable.clone());
        let opened = {
            let folder = folder.clone();
            blocking(move || Thread::start(&options, folder, working)).await?
        };
        let (thread, base) = opened.map_err(|error| error.to_string())?;
        let compiler: Arc<dyn Compiler> = Arc::new(thread);
        let _ = self.shared.compiler.set(Arc::clone(&compiler));
        let lineages = Lineages::new(Owner::Notebook, base, compiler, Some(&folder));
        let support = lineages.support().clone();
        let runtime = self.start_runtime(executable, &support).await?;
        Ok(Ready {
            lineages,
            runtime,
            support,
        })
    }

    /// Runs evcxr's start-up configuration, as evcxr_jupyter does. Should it fail, the first cell says so.
    async fn configure(&self, ready: Ready) {
        let cell = Cell {
            code: ":load_config --quiet".to_owned(),
            ..Cell::default()
        };
        let mut interrupts = self.interrupts();
        let ending = self
            .course(
                ready,
                &mut interrupts,
                &cell,
                Gatherer::new(|_| {}),
                self.waiting(),
                &mut NoInput,
            )
            .await;
        if let Err(error) = ending
            && let Target::Backlog(backlog) = &mut *self.events()
        {
            backlog.notes.push(format!(
                "evcxr's start-up configuration failed:\n{}\n",
                error.traceback.join("\n")
            ));
        }
    }

    async fn start_runtime(
        &self,
        executable: PathBuf,
        support: &Support,
    ) -> Result<Runtime, String> {
        let mut command = Command::new(executable);
        command.arg("runtime");
        if compiler::folder::has_hidden_std() {
            command.env_remove(compiler::folder::STD_SOURCE);
        }
        if let Some(carrier) = &self.shared.carrier {
            command.env(chorus::wire::CARRIER, carrier);
        }
        command.envs(self.environment().iter());
        let Checkpoints { on, limit } = self.checkpoints();
        let mut config = runtime::Config::new(command, support.library.clone());
        config.preload = vec![support.std.clone()];
        config.checkpoint = on;
        config.checkpoint_limit = limit;
        let (runtime, events) = Runtime::start(config)
            .await
            .map_err(|error| error.to_string())?;
        tokio::spawn(self.clone().pump(events));
        Ok(runtime)
    }

    /// Takes the runtime's events to whoever they are for.
    async fn pump(self, mut events: mpsc::UnboundedReceiver<Event>) {
        while let Some(event) = events.recv().await {
            let mut target = self.events();
            match &mut *target {
                // A cell that has gone left its place to the backlog.
                Target::Cell(cell) => drop(cell.send(event)),
                Target::Backlog(backlog) => match event {
                    Event::Output { stream, bytes } => backlog.add(stream, &bytes),
                    Event::Lost { cause, restored } => {
                        backlog.notes.push(failure::lost(&cause, &restored));
                        if !restored.variables {
                            self.note_lost_variables();
                        }
                    }
                    Event::Input { .. } => {
                        drop(target);
                        if let Some(Ok(ready)) = &*self.shared.ready.borrow() {
                            ready.runtime.input(None);
                        }
                    }
                    Event::Started { .. }
                    | Event::Result { .. }
                    | Event::Spent { .. }
                    | Event::Finished { .. }
                    | Event::Called { .. } => {}
                },
            }
        }
    }

    fn events(&self) -> MutexGuard<'_, Target> {
        self.shared
            .events
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn environment(&self) -> MutexGuard<'_, BTreeMap<String, String>> {
        self.shared
            .environment
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn namespace(&self) -> MutexGuard<'_, Namespace> {
        self.shared
            .namespace
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Says which lineage the runtime has now.
    fn set_lineage(&self, lineage: String) {
        *self.namespace() = Namespace {
            lineage,
            ahead: None,
            has_lost_variables: false,
        };
    }

    fn note_lost_variables(&self) {
        self.namespace().has_lost_variables = true;
    }

    fn has_lost_variables(&self) -> bool {
        self.namespace().has_lost_variables
    }

    fn look_ahead(&self, lineage: &str) {
        self.namespace().ahead = Some(lineage.to_owned());
    }

    /// Does something with the lineages in the namespace's own. It may block.
    async fn with_lineages<T: Send + 'static>(
        &self,
        lineages: Lineages,
        work: impl FnOnce(&Lineages, &str) -> Result<T, compiler::Failure> + Send + 'static,
    ) -> Result<T, compiler::Failure> {
        let evaluator = self.clone();
        let done = blocking(move || {
            let before = evaluator.namespace().clone();
            let mut lineage = before.lineage.clone();
            if before.has_lost_variables {
                lineage = lineages.without(&lineage, None)?;
                let mut namespace = evaluator.namespace();
                // A cell may have ended meanwhile.
                if *namespace == before {
                    namespace.lineage.clone_from(&lineage);
                    namespace.has_lost_variables = false;
                }
            }
            work(&lineages, &lineage)
        });
        done.await
            .unwrap_or_else(|error| Err(compiler::Failure::Panicked(error)))
    }

    /// Asks about the namespace as it is to be after the cell that runs; `None` if the compiler can't answer.
    async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&Lineages, &str) -> Result<T, compiler::Failure> + Send + 'static,
    ) -> Option<T> {
        let lineages = self.ready().await.ok()?.lineages;
        let ahead = self.namespace().ahead.clone();
        let asked = self.with_lineages(lineages, move |lineages, lineage| {
            question(lineages, ahead.as_deref().unwrap_or(lineage))
        });
        asked.await.ok()
    }

    /// Suggestions for the byte `position` of `code`; `None` if the compiler can't answer.
    pub(crate) async fn complete(&self, code: String, position: usize) -> Option<Completions> {
        self.ask(move |lineages, lineage| {
            lineages.complete(lineage, &code, position, &Ticket::default())
        })
        .await
    }

    /// What is known of the name that ends at the byte `position` of `code`.
    pub(crate) async fn inspect(&self, code: String, position: usize) -> Option<Documentation> {
        self.ask(move |lineages, lineage| {
            lineages.inspect(lineage, &code, position, &Ticket::default())
        })
        .await?
    }

    /// The variables and their types.
    pub(crate) async fn variables(&self) -> BTreeMap<String, String> {
        let asked = self.ask(|lineages, lineage| Ok(lineages.variables(lineage)));
        asked.await.unwrap_or_default()
    }

    /// The line of a cell behind a location in generated code.
    pub(crate) async fn locate(&self, file: String, line: u32) -> Option<Place> {
        self.ask(move |lineages, _| Ok(lineages.locate(&file, line)))
            .await?
    }

    /// Whether completions come as fast as they will.
    pub(crate) fn completes(&self) -> bool {
        let compiler = self.shared.compiler.get();
        compiler.is_some_and(|compiler| compiler.completes())
    }

    async fn ready(&self) -> Result<Ready, String> {
        let mut ready = self.shared.ready.subscribe();
        match ready.wait_for(Option::is_some).await {
            Ok(outcome) => outcome
                .clone()
                .unwrap_or_else(|| Err("the evaluator is not ready".to_owned())),
            Err(_) => Err("the evaluator has gone".to_owned()),
        }
    }

    /// Ends the cell that is evaluated, and those that wait for their turn.
    pub(crate) fn interrupt(&self) {
        self.shared.interrupts.send_modify(|count| *count += 1);
    }

    pub(crate) fn checkpoints(&self) -> Checkpoints {
        *self
            .shared
            .checkpoints
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Switches checkpoints, from the next cell on.
    pub(crate) async fn set_checkpoints(&self, on: bool) -> Result<(), String> {
        let ready = self.ready().await?;
        let mut checkpoints = self
            .shared
            .checkpoints
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        checkpoints.on = on;
        ready.runtime.set_checkpoint(on, checkpoints.limit);
        Ok(())
    }

    /// Ends the runtime with all that user code has started.
    pub(crate) async fn shutdown(&self) {
        self.interrupt();
        if let Some(Ok(ready)) = self.shared.ready.borrow().clone() {
            ready.runtime.shutdown().await;
        }
    }

    /// Where a panic and its frames are in the cells.
    async fn places(&self, lineages: &Lineages, panic: runtime::Panic) -> Places {
        let lineages = lineages.clone();
        let found = blocking(move || Places {
            panic: panic
                .location
                .and_then(|location| lineages.locate(&location.file, location.line)),
            frames: panic
                .frames
                .iter()
                .map(|frame| {
                    let location = frame.location.as_ref()?;
                    let from = location.file.rfind("chorus-").unwrap_or(0);
                    lineages.locate(&location.file[from..], location.line)
                })
                .collect(),
        });
        found.await.unwrap_or_default()
    }

    /// The interrupts from now on.
    pub(crate) fn interrupts(&self) -> Interrupts {
        self.shared.interrupts.subscribe()
    }

    /// Evaluates a cell. All of its output has been emitted when this returns. It takes what it sees out of `interrupts`.
    pub(crate) async fn evaluate(
        &self,
        cell: &Cell,
        emit: impl FnMut(Output) + Send + 'static,
        ask: &mut impl Ask,
        interrupts: &mut Interrupts,
    ) -> Result<Evaluated, ErrorInfo> {
        let prepared = async {
            let turn = self.shared.turn.lock().await;
            (turn, self.ready().await)
        };
        let mut prepared = std::pin::pin!(prepared);
        let mut gatherer = Gatherer::new(emit);
        let mut waiting = self.waiting();
        let (_turn, ready) = loop {
            tokio::select! {
                prepared = &mut prepared => break prepared,
                _ = interrupts.changed() => {
                    gatherer.finish(false);
                    return Err(failure::interrupted_early());
                }
                activity = waiting.activity() => gatherer.compile_status(Some(activity)),
            }
        };
        let ready = match ready {
            Ok(ready) => ready,
            Err(message) => {
                gatherer.finish(false);
                return Err(failure::not_ready(&message));
            }
        };
        self.course(ready, interrupts, cell, gatherer, waiting, ask)
            .await
    }

    fn waiting(&self) -> Waiting {
        Waiting::new(Arc::clone(&self.shared.compiler))
    }

    /// Evaluates a cell whose turn it is.
    async fn course(
        &self,
        ready: Ready,
        interrupts: &mut Interrupts,
        cell: &Cell,
        mut gatherer: Gatherer,
        waiting: Waiting,
        ask: &mut impl Ask,
    ) -> Result<Evaluated, ErrorInfo> {
        let (sender, events) = mpsc::unbounded_channel();
        let backlog = match std::mem::replace(&mut *self.events(), Target::Cell(sender)) {
            Target::Backlog(backlog) => backlog,
            Target::Cell(_) => Backlog::default(),
        };
        backlog.pass_on(&mut gatherer);
        let mut course = Course {
            evaluator: self,
            ready,
            cell,
            events,
            interrupts,
            gatherer,
            waiting,
            times: Times::default(),
            ends_in_expression: false,
        };
        let outcome = course.follow(ask).await;

        *self.events() = Target::Backlog(Backlog::default());
        course.take_in_the_rest();
        let times = course.times;
        let value = course
            .gatherer
            .finish(outcome.is_ok() && course.ends_in_expression);
        outcome.map(|()| Evaluated { value, times })
    }
}

/// Runs what blocks on a thread where it may.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, String> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| error.to_string())
}
