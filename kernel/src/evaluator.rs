//! Cells in, outcomes out: has evcxr compile a cell and the runtime run it, and keeps both of one mind.
//!
//! One cell at a time. Its phases are waiting for the evaluator to be ready, compiling, running; an interrupt ends each of them. evcxr is free again
//! once a cell is compiled, so completion and inspection don't wait for a cell that runs.

use crate::failure::{self, Places};
use crate::output::{Gatherer, Output, text_bundle};
use compiler::{Compiled, Failure, Notebook, Session, Settings, Support, Toolchain, Undo};
use protocol::message::{ErrorInfo, MimeBundle};
use runtime::{Event, Outcome, RunId, Runtime, Snippet};
use serde_json::Value;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{mpsc, oneshot, watch};

/// Resident memory in bytes above which no checkpoint is made.
const CHECKPOINT_LIMIT: u64 = 8 << 30;

/// A cell to evaluate.
#[derive(Clone, Debug)]
pub(crate) struct Cell {
    /// Its text without magics, line by line.
    pub(crate) code: String,
    /// Its execution count.
    pub(crate) count: u32,
}

/// How a cell ended. Its output has been passed on.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Ending {
    /// The value of its last expression, if it has one.
    Done(Option<MimeBundle>),
    Failed(ErrorInfo),
}

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
    events: Mutex<Target>,
    /// Counts interrupts, so that a cell notices those since its beginning.
    interrupts: watch::Sender<u64>,
    runs: AtomicU64,
    checkpoints: Mutex<Checkpoints>,
}

#[derive(Clone, Debug)]
struct Ready {
    session: Session,
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

/// What happened between two cells.
#[derive(Debug, Default)]
struct Backlog {
    /// Output in its order; large amounts of it in a file.
    output: Option<tempfile::SpooledTempFile>,
    pieces: Vec<(runtime::Stream, usize)>,
    notes: Vec<String>,
}

/// Output between two cells that is kept in memory, in bytes.
const BACKLOG_IN_MEMORY: usize = 8 << 20;

impl Backlog {
    fn add(&mut self, stream: runtime::Stream, bytes: &[u8]) {
        use std::io::Write;
        let file = self
            .output
            .get_or_insert_with(|| tempfile::SpooledTempFile::new(BACKLOG_IN_MEMORY));
        if let Err(error) = file.write_all(bytes) {
            self.notes.push(format!(
                "Output between two cells is lost, since it could not be kept: {error}\n"
            ));
            return;
        }
        match self.pieces.last_mut() {
            Some((last, length)) if *last == stream => *length += bytes.len(),
            _ => self.pieces.push((stream, bytes.len())),
        }
    }

    fn pass_on(self, gatherer: &mut Gatherer) {
        use std::io::{Read, Seek};
        if let Some(mut file) = self.output
            && file.rewind().is_ok()
        {
            let mut buffer = vec![0; 1 << 20];
            for (stream, mut length) in self.pieces {
                while length > 0 {
                    let part = length.min(buffer.len());
                    if file.read_exact(&mut buffer[..part]).is_err() {
                        break;
                    }
                    gatherer.bytes(stream, &buffer[..part]);
                    length -= part;
                }
            }
        }
        for note in self.notes {
            gatherer.note(note);
        }
    }
}

impl Evaluator {
    /// Starts evcxr and the runtime behind it. Returns at once; cells wait until it is ready.
    pub(crate) fn start(executable: PathBuf, folder: PathBuf) -> Evaluator {
        let evaluator = Evaluator {
            shared: Arc::new(Shared {
                turn: Arc::default(),
                ready: watch::Sender::new(None),
                executable: executable.clone(),
                events: Mutex::new(Target::Backlog(Backlog::default())),
                interrupts: watch::Sender::new(0),
                runs: AtomicU64::new(0),
                checkpoints: Mutex::new(Checkpoints {
                    on: true,
                    limit: CHECKPOINT_LIMIT,
                }),
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
                && compiler::has_configuration()
            {
                started.configure(ready).await;
            }
            drop(turn);
        });
        evaluator
    }

    async fn bring_up(&self, executable: PathBuf, folder: PathBuf) -> Result<Ready, String> {
        let (found, toolchain) = std::sync::mpsc::channel();
        let settings = Settings {
            folder,
            executable: executable.clone(),
            toolchain,
            support_source: runtime::SUPPORT_SOURCE,
        };
        let (opened_tx, opened) = oneshot::channel();
        let session = Session::start(settings, move |outcome| {
            // Whoever waits has gone with the kernel.
            let _ = opened_tx.send(outcome);
        })
        .map_err(|error| format!("failed to start evcxr's thread: {error}"))?;
        let support = tokio::task::spawn_blocking(move || {
            let rustc = compiler::toolchain::rustc();
            let support = compiler::support::ensure(&rustc, runtime::SUPPORT_SOURCE)?;
            // Should evcxr not start, it says so itself.
            let _ = found.send(Toolchain {
                rustc,
                support: support.clone(),
            });
            Ok::<_, compiler::support::SupportError>(support)
        })
        .await
        .map_err(|error| error.to_string())?
        .map_err(|error| error.to_string())?;
        let runtime = self.start_runtime(executable, &support).await?;
        opened
            .await
            .map_err(|_| "evcxr's thread ended early".to_owned())?
            .map_err(|error| error.to_string())?;
        Ok(Ready {
            session,
            runtime,
            support,
        })
    }

    /// Runs evcxr's start-up configuration, as evcxr_jupyter does. Should it fail, the first cell says so.
    async fn configure(&self, ready: Ready) {
        let cell = Cell {
            code: ":load_config --quiet".to_owned(),
            count: 0,
        };
        let interrupts = self.shared.interrupts.subscribe();
        let ending = self
            .course(ready, interrupts, &cell, |_| {}, &mut NoInput)
            .await;
        if let Ending::Failed(error) = ending
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
                            drop(target);
                            self.submit(|notebook| notebook.undo(Undo::Lost));
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

    /// Has evcxr's thread do something, if there is one.
    fn submit(&self, job: impl FnOnce(&mut Notebook) + Send + 'static) {
        if let Some(Ok(ready)) = &*self.shared.ready.borrow() {
            ready.session.submit(job);
        }
    }

    /// Asks evcxr's thread something; `None` if it can't answer.
    pub(crate) async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&mut Notebook) -> T + Send + 'static,
    ) -> Option<T> {
        let session = self.ready().await.ok()?.session;
        let (answer, answered) = oneshot::channel();
        session.submit(move |notebook| drop(answer.send(question(notebook))));
        answered.await.ok()
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
    async fn places(&self, panic: runtime::Panic) -> Places {
        self.ask(move |notebook| Places {
            panic: panic
                .location
                .and_then(|location| notebook.locate(&location.file, location.line)),
            frames: panic
                .frames
                .iter()
                .map(|frame| {
                    let location = frame.location.as_ref()?;
                    let from = location.file.rfind("chorus-").unwrap_or(0);
                    notebook.locate(&location.file[from..], location.line)
                })
                .collect(),
        })
        .await
        .unwrap_or_default()
    }

    /// Evaluates a cell. All of its output has been emitted when this returns.
    pub(crate) async fn evaluate(
        &self,
        cell: &Cell,
        emit: impl FnMut(Output) + Send + 'static,
        ask: &mut impl Ask,
    ) -> Ending {
        let mut interrupts = self.shared.interrupts.subscribe();
        interrupts.mark_unchanged();
        let prepared = async {
            let turn = self.shared.turn.lock().await;
            (turn, self.ready().await)
        };
        let (_turn, ready) = tokio::select! {
            prepared = prepared => prepared,
            _ = interrupts.changed() => return Ending::Failed(failure::interrupted_early()),
        };
        let ready = match ready {
            Ok(ready) => ready,
            Err(message) => return Ending::Failed(failure::not_ready(&message)),
        };
        self.course(ready, interrupts, cell, emit, ask).await
    }

    /// Evaluates a cell whose turn it is.
    async fn course(
        &self,
        ready: Ready,
        interrupts: watch::Receiver<u64>,
        cell: &Cell,
        emit: impl FnMut(Output) + Send + 'static,
        ask: &mut impl Ask,
    ) -> Ending {
        let (sender, events) = mpsc::unbounded_channel();
        let backlog = match std::mem::replace(&mut *self.events(), Target::Cell(sender)) {
            Target::Backlog(backlog) => backlog,
            Target::Cell(_) => Backlog::default(),
        };
        let mut gatherer = Gatherer::new(emit);
        backlog.pass_on(&mut gatherer);
        let mut course = Course {
            evaluator: self,
            ready,
            cell,
            events,
            interrupts,
            gatherer,
        };
        let error = course.follow(ask).await.err();

        *self.events() = Target::Backlog(Backlog::default());
        while let Ok(event) = course.events.try_recv() {
            course.other(event);
        }
        let result = course
            .gatherer
            .finish(error.is_none() && compiler::ends_in_expression(&cell.code));
        match error {
            None => Ending::Done(result),
            Some(error) => Ending::Failed(error),
        }
    }
}

/// A cell on its way.
struct Course<'a> {
    evaluator: &'a Evaluator,
    ready: Ready,
    cell: &'a Cell,
    events: mpsc::UnboundedReceiver<Event>,
    interrupts: watch::Receiver<u64>,
    gatherer: Gatherer,
}

impl Course<'_> {
    async fn follow(&mut self, ask: &mut impl Ask) -> Result<(), ErrorInfo> {
        let mut compiled = self.compile(None).await?;
        let mut redefined = false;
        loop {
            if compiled.restarted {
                self.begin_anew(compiled.support.take()).await?;
            }
            if !compiled.lost.is_empty() {
                self.gatherer.note(failure::redefined(&compiled.lost));
            }
            self.show(&compiled);
            match self.run_all(&compiled, ask).await? {
                None => return Ok(()),
                Some(variables) if !redefined => {
                    redefined = true;
                    self.gatherer.note(failure::redefined(&variables));
                    compiled = self.compile(Some(variables)).await?;
                }
                Some(variables) => return Err(failure::types_changed(&variables)),
            }
        }
    }

    /// Compiles the cell; `without` variables whose types it redefined.
    async fn compile(&mut self, without: Option<Vec<String>>) -> Result<Compiled, ErrorInfo> {
        let (answer, mut answered) = oneshot::channel();
        // Set by whichever comes first, the end of the compile or an interrupt.
        let settled = Arc::new(AtomicBool::new(false));
        let compiled = Arc::clone(&settled);
        let Cell { code, count } = self.cell.clone();
        self.ready.session.submit(move |notebook| {
            if compiled.load(Ordering::SeqCst) {
                return;
            }
            let outcome = match without {
                None => notebook.compile(count, &code),
                Some(variables) => notebook.compile_without(count, &code, &variables),
            };
            if !compiled.swap(true, Ordering::SeqCst) {
                // Nobody waits when the kernel shuts down.
                let _ = answer.send(outcome);
            } else if outcome.is_ok() {
                notebook.undo(Undo::Everything);
            }
        });
        loop {
            tokio::select! {
                outcome = &mut answered => {
                    return match outcome {
                        Ok(Ok(compiled)) => Ok(compiled),
                        Ok(Err(failed)) => Err(failure::compile(failed)),
                        Err(_) => Err(failure::compile(Failure::Panicked("no answer".to_owned()))),
                    };
                }
                _ = self.interrupts.changed() => {
                    if settled.swap(true, Ordering::SeqCst) {
                        if let Ok(Ok(_)) = answered.await {
                            self.ready.session.submit(|notebook| notebook.undo(Undo::Everything));
                        }
                    } else {
                        tokio::task::spawn_blocking(compiler::stop_compiles);
                    }
                    return Err(failure::interrupted_early());
                }
                Some(event) = self.events.recv() => self.other(event),
            }
        }
    }

    /// Begins anew with an empty runtime, which gets the kernel's present environment (evcxr's `:env` changes it); for another
    /// toolchain with its support library.
    async fn begin_anew(&mut self, support: Option<Support>) -> Result<(), ErrorInfo> {
        self.ready.runtime.shutdown().await;
        self.ready.support = support.unwrap_or_else(|| self.ready.support.clone());
        let executable = self.evaluator.shared.executable.clone();
        self.ready.runtime = self
            .evaluator
            .start_runtime(executable, &self.ready.support)
            .await
            .map_err(|message| failure::not_ready(&message))?;
        self.evaluator
            .shared
            .ready
            .send_replace(Some(Ok(self.ready.clone())));
        Ok(())
    }

    /// Shows what the cell's commands have to say; it is the result of a cell that has nothing else.
    fn show(&mut self, compiled: &Compiled) {
        if compiled.shown.is_empty() {
            return;
        }
        let data = compiled
            .shown
            .iter()
            .map(|(mime, text)| {
                (
                    mime.clone(),
                    Value::String(text.trim_end_matches('\n').to_owned()),
                )
            })
            .collect();
        if compiled.loads.is_empty() {
            self.gatherer.result(data);
        } else {
            self.gatherer.display(data);
        }
    }

    /// Runs what was compiled. Gives the variables whose types were redefined, if that kept it from running.
    async fn run_all(
        &mut self,
        compiled: &Compiled,
        ask: &mut impl Ask,
    ) -> Result<Option<Vec<String>>, ErrorInfo> {
        for load in &compiled.loads {
            let snippet = Snippet {
                id: RunId(self.evaluator.shared.runs.fetch_add(1, Ordering::Relaxed)),
                artifact: load.artifact.clone(),
                entry: compiler::ENTRY.to_owned(),
                checkpoint: true,
            };
            match self.run(snippet, ask).await {
                Outcome::Completed => {}
                Outcome::TypesChanged { variables } => return Ok(Some(variables)),
                failed => return Err(self.fail(failed).await),
            }
        }
        Ok(None)
    }

    async fn run(&mut self, snippet: Snippet, ask: &mut impl Ask) -> Outcome {
        let id = snippet.id;
        self.ready.runtime.run(snippet);
        loop {
            let deadline = self.gatherer.deadline();
            let due = async {
                match deadline {
                    Some(deadline) => tokio::time::sleep_until(deadline).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                _ = self.interrupts.changed() => self.ready.runtime.interrupt(id),
                event = self.events.recv() => match event {
                    Some(Event::Finished { id: finished, outcome }) if finished == id => return outcome,
                    Some(Event::Result { text, .. }) => self.gatherer.result(text_bundle(text)),
                    Some(Event::Input { prompt, password }) => {
                        self.gatherer.send();
                        tokio::select! {
                            line = ask.ask(prompt, password) => self.ready.runtime.input(line),
                            _ = self.interrupts.changed() => self.ready.runtime.interrupt(id),
                        }
                    }
                    Some(event) => self.other(event),
                    None => return Outcome::LoadFailed { error: "the runtime has gone".to_owned() },
                },
                () = due => self.gatherer.send(),
            }
        }
    }

    /// Makes evcxr's books true again after a run that failed, and says what happened.
    async fn fail(&mut self, outcome: Outcome) -> ErrorInfo {
        let undo = match &outcome {
            Outcome::Panicked(_) | Outcome::Returned { .. } => Undo::NewVariables,
            Outcome::Died { restored, .. } | Outcome::Interrupted { restored }
                if !restored.variables =>
            {
                Undo::Lost
            }
            _ => Undo::Everything,
        };
        let places = match &outcome {
            Outcome::Panicked(panic) => self.evaluator.places(panic.clone()).await,
            _ => Places::default(),
        };
        self.ready
            .session
            .submit(move |notebook| notebook.undo(undo));
        failure::run(&outcome, &places)
    }

    /// Events that belong to no phase: output, also of threads that go on.
    fn other(&mut self, event: Event) {
        match event {
            Event::Output { stream, bytes } => self.gatherer.bytes(stream, &bytes),
            Event::Lost { cause, restored } => {
                self.gatherer.note(failure::lost(&cause, &restored));
                if !restored.variables {
                    self.ready
                        .session
                        .submit(|notebook| notebook.undo(Undo::Lost));
                }
            }
            Event::Input { .. } => self.ready.runtime.input(None),
            Event::Result { text, .. } => self.gatherer.display(text_bundle(text)),
            Event::Started { .. } | Event::Finished { .. } | Event::Called { .. } => {}
        }
    }
}
