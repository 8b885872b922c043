//! Cells in, outcomes out: the notebook's namespace behind an executor (`cluster::executor`), one cell at a time.
//!
//! `host` is what the executor needs of a notebook, `local` does the commands that need no evcxr, `backlog` keeps what happens between two cells. A cell waits for its
//! turn, is compiled and runs; an interrupt ends each of these. evcxr is free again once a cell is compiled, so completion and inspection don't wait for a cell that runs.

mod backlog;
mod host;
mod local;
mod places;
mod waiting;

use crate::compiling::{self, ServiceCompiler};
use crate::kernel::lock;
use crate::translate;
use cluster::Lineage;
use cluster::executor::{Config, Driver, Event, Executor, Outcome, Work, WorkId, WorkKind};
use cluster::failure::{Subject, interrupted_early, not_ready};
use cluster::output::Output;
use compiler::lineages::{self, Base, Compiler, ROOT};
use compiler::{Completions, Documentation, Lineages, Owner, Place, Source, Ticket};
use host::{NotebookHost, Question, Reader, Stage, Submitted};
use local::Environment;
use magics::run::Evaluated;
use magics::timeit::Times;
use protocol::message::ErrorInfo;
use runtime::Runtime;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot, watch};
use waiting::Waiting;

/// Resident memory in bytes above which no checkpoint is made.
const CHECKPOINT_LIMIT: u64 = 8 << 30;

/// How long after its start a kernel without cells has a compiler started: one that is restarted is given its cells at once.
const UNTIL_WARM_UP: Duration = Duration::from_secs(2);

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
    orders: mpsc::UnboundedSender<Order>,
}

/// What the evaluator's handles, its executor's task, and what that has asked for share.
#[derive(Debug)]
struct Shared {
    ready: watch::Sender<Option<Result<Lineages, String>>>,
    namespace: Mutex<Namespace>,
    runtime: Mutex<Option<Runtime>>,
    checkpoints: Mutex<Checkpoints>,
    environment: Environment,
    /// Counts interrupts, so that a cell notices those since its beginning.
    interrupts: watch::Sender<u64>,
    /// Set when there is one.
    compiler: Arc<OnceLock<Arc<dyn Compiler>>>,
    submissions: AtomicU64,
}

/// Which lineage the namespace has.
#[derive(Debug)]
struct Namespace {
    lineage: String,
    /// The lineage once the cell that runs has ended: its names complete already.
    ahead: Option<String>,
}

impl Shared {
    async fn lineages(&self) -> Result<Lineages, String> {
        let mut ready = self.ready.subscribe();
        let ready = ready.wait_for(Option::is_some).await;
        let ready = ready.ok().and_then(|ready| ready.clone());
        ready.unwrap_or_else(|| Err("the evaluator has gone".to_owned()))
    }

    /// The same, if they are ready.
    fn lineages_now(&self) -> Option<Lineages> {
        self.ready.borrow().as_ref()?.as_ref().ok().cloned()
    }

    fn checkpoints(&self) -> Checkpoints {
        *lock(&self.checkpoints)
    }

    fn set_runtime(&self, runtime: Runtime, started_with: Checkpoints) {
        let mut present = lock(&self.runtime);
        // It may have been switched while the runtime started.
        let now = self.checkpoints();
        if now != started_with {
            runtime.set_checkpoint(now.on, now.limit);
        }
        *present = Some(runtime);
    }

    fn look_ahead(&self, lineage: &str) {
        lock(&self.namespace).ahead = Some(lineage.to_owned());
    }

    fn look_back(&self, lineage: &str) {
        *lock(&self.namespace) = Namespace {
            lineage: lineage.to_owned(),
            ahead: None,
        };
    }

    fn note_lineage(&self, lineage: &str, is_evaluating: bool) {
        let mut namespace = lock(&self.namespace);
        if !is_evaluating {
            namespace.ahead = None;
        }
        if namespace.lineage != lineage {
            namespace.lineage = lineage.to_owned();
        }
    }
}

/// Something for the executor's task.
enum Order {
    Evaluate {
        submission: u64,
        cells: Vec<Submitted>,
    },
    /// What is waited for before a cell runs.
    Status {
        submission: u64,
        activity: String,
    },
    /// Nobody waits for these cells any more.
    GiveUp {
        submission: u64,
    },
    Shutdown(oneshot::Sender<()>),
}

impl Evaluator {
    /// Starts a runtime, and a compiler behind it. Returns at once; cells wait until both are ready.
    /// `carrier`: the socket of the programs' carrier.
    pub(crate) fn start(
        executable: PathBuf,
        folder: PathBuf,
        carrier: Option<PathBuf>,
    ) -> Evaluator {
        let shared = Arc::new(Shared {
            ready: watch::Sender::new(None),
            namespace: Mutex::new(Namespace {
                lineage: ROOT.to_owned(),
                ahead: None,
            }),
            runtime: Mutex::default(),
            checkpoints: Mutex::new(Checkpoints {
                on: true,
                limit: CHECKPOINT_LIMIT,
            }),
            environment: Environment::default(),
            interrupts: watch::Sender::new(0),
            compiler: Arc::default(),
            submissions: AtomicU64::new(0),
        });
        let (orders, queue) = mpsc::unbounded_channel();
        let host = NotebookHost::new(Arc::clone(&shared), executable.clone(), carrier);
        tokio::spawn(drive(host, Arc::clone(&shared), queue));
        tokio::spawn(open(Arc::clone(&shared), executable, folder));
        let evaluator = Evaluator { shared, orders };
        // No cell comes before the user's configuration.
        if lineages::has_configuration() {
            tokio::spawn(evaluator.clone().configure());
        }
        evaluator
    }

    /// Runs evcxr's start-up configuration, as evcxr_jupyter does, until an interrupt. Should it fail, the first cell says so.
    fn configure(self) -> impl Future<Output = ()> + Send {
        let cell = Cell {
            code: ":load_config --quiet".to_owned(),
            ..Cell::default()
        };
        let submitted = self.submit(&cell, |_| {}, true);
        let mut interrupts = self.interrupts();
        async move {
            let Ok(mut submitted) = submitted.inspect_err(|error| {
                tracing::warn!(error.evalue, "evcxr's start-up configuration can't be read");
            }) else {
                return;
            };
            let submission = submitted.number;
            loop {
                tokio::select! {
                    _ = &mut submitted.done => return,
                    _ = interrupts.changed() => self.order(Order::GiveUp { submission }),
                }
            }
        }
    }

    fn order(&self, order: Order) {
        // The task ends with the kernel.
        let _ = self.orders.send(order);
    }

    /// Submits a cell, and before it what its `:load_config` asks for.
    fn submit(
        &self,
        cell: &Cell,
        emit: impl FnMut(Output) + Send + 'static,
        is_startup: bool,
    ) -> Result<Submission, ErrorInfo> {
        let configuration = lineages::configuration(&cell.code)
            .map_err(|error| crate::failure::compile(compiler::Failure::Refused(error)))?;
        let (question, questions) = mpsc::unbounded_channel();
        let (stage, stages) = watch::channel(Stage::Queued);
        let (done, is_done) = oneshot::channel();
        let reader = Arc::new(Mutex::new(Reader {
            emit: Box::new(emit),
            questions: question,
            stage,
            is_startup,
            left: configuration.len() + 1,
            done: Some(done),
        }));
        let configuration = configuration.into_iter();
        let sources = configuration.map(|code| Source { code, shown: None });
        let own = Source {
            code: cell.code.clone(),
            shown: cell.shown.clone(),
        };
        let cells = sources.chain([own]).map(|source| Submitted {
            source,
            count: cell.count,
            reader: Arc::clone(&reader),
        });
        let cells = cells.collect();
        let submission = self.shared.submissions.fetch_add(1, Ordering::Relaxed);
        self.order(Order::Evaluate { submission, cells });
        Ok(Submission {
            number: submission,
            questions,
            stages,
            done: is_done,
        })
    }

    /// Evaluates a cell. All of its output has been emitted when this returns. It takes what it sees out of `interrupts`.
    pub(crate) async fn evaluate(
        &self,
        cell: &Cell,
        emit: impl FnMut(Output) + Send + 'static,
        ask: &mut impl Ask,
        interrupts: &mut Interrupts,
    ) -> Result<Evaluated, ErrorInfo> {
        let Submission {
            number: submission,
            mut questions,
            mut stages,
            mut done,
        } = self.submit(cell, emit, false)?;
        let mut waiting = Waiting::new(Arc::clone(&self.shared.compiler));
        let (stage, mut waits) = (stages.clone(), true);
        let give_up = || self.order(Order::GiveUp { submission });
        // Kept open after an interrupt: its end would be the end of input to the cell.
        let mut open = None;
        let outcome = loop {
            tokio::select! {
                outcome = &mut done => break outcome,
                Some(question) = questions.recv() => {
                    let Question { prompt, password, mut answer } = question;
                    let asked = tokio::select! {
                        line = ask.ask(prompt, password) => Some(line),
                        () = answer.closed() => None,
                        _ = interrupts.changed() => {
                            give_up();
                            None
                        }
                    };
                    match asked {
                        // The cell may have ended.
                        Some(line) => drop(answer.send(line)),
                        None => open = Some(answer),
                    }
                }
                _ = interrupts.changed() => {
                    give_up();
                    // What runs before it may take its time to end.
                    if *stage.borrow() == Stage::Queued {
                        return Err(interrupted_early(Subject::Cell));
                    }
                }
                _ = stages.changed(), if waits => {
                    waits = *stage.borrow() != Stage::Compiled;
                }
                activity = waiting.activity(), if waits => {
                    self.order(Order::Status { submission, activity });
                }
            }
        };
        drop(open);
        match outcome {
            Ok(Outcome::Evaluated { value, times }) => Ok(Evaluated {
                value,
                times: Times {
                    compile: times.compile,
                    wall: times.wall,
                    cpu: times.cpu,
                },
            }),
            Ok(Outcome::Failed { error, .. }) => Err(error),
            Ok(_) => Err(interrupted_early(Subject::Cell)),
            Err(_) => Err(not_ready(Subject::Cell, "the evaluator has gone")),
        }
    }

    /// The namespace's lineage, as it is to be after the cell that runs.
    pub(crate) fn lineage(&self) -> Lineage {
        let namespace = lock(&self.shared.namespace);
        let ahead = namespace.ahead.as_ref();
        translate::lineage(ahead.unwrap_or(&namespace.lineage).clone())
    }

    /// Asks about the namespace; `None` if the compiler can't answer.
    async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&Lineages, &str, &Ticket) -> Result<T, compiler::Failure> + Send + 'static,
    ) -> Option<T> {
        self.ask_in(&self.lineage(), question).await
    }

    async fn ask_in<T: Send + 'static>(
        &self,
        lineage: &Lineage,
        question: impl FnOnce(&Lineages, &str, &Ticket) -> Result<T, compiler::Failure> + Send + 'static,
    ) -> Option<T> {
        let lineages = self.shared.lineages().await.ok()?;
        let lineage = translate::name_of(lineage).to_owned();
        // Whoever does not wait any longer drops this.
        let waits = Withdraw(Ticket::default());
        let ticket = waits.0.clone();
        let answered = blocking(move || question(&lineages, &lineage, &ticket)).await;
        answered.ok()?.ok()
    }

    /// Suggestions for the byte `position` of `code` in a lineage; `None` if the compiler can't answer.
    pub(crate) async fn complete(
        &self,
        lineage: &Lineage,
        code: String,
        position: usize,
    ) -> Option<Completions> {
        self.ask_in(lineage, move |lineages, lineage, ticket| {
            lineages.complete(lineage, &code, position, ticket)
        })
        .await
    }

    /// What is known of the name that ends at the byte `position` of `code` in a lineage.
    pub(crate) async fn inspect(
        &self,
        lineage: &Lineage,
        code: String,
        position: usize,
    ) -> Option<Documentation> {
        self.ask_in(lineage, move |lineages, lineage, ticket| {
            lineages.inspect(lineage, &code, position, ticket)
        })
        .await?
    }

    /// The variables and their types.
    pub(crate) async fn variables(&self) -> BTreeMap<String, String> {
        let asked = self.ask(|lineages, lineage, _| Ok(lineages.variables(lineage)));
        asked.await.unwrap_or_default()
    }

    /// The line of a cell behind a location in generated code.
    pub(crate) async fn locate(&self, file: String, line: u32) -> Option<Place> {
        self.ask(move |lineages, _, _| Ok(lineages.locate(&file, line)))
            .await?
    }

    /// Whether completions come as fast as they will.
    pub(crate) fn completes(&self) -> bool {
        let compiler = self.shared.compiler.get();
        compiler.is_some_and(|compiler| compiler.completes())
    }

    /// Ends the cell that is evaluated, and those that wait for their turn.
    pub(crate) fn interrupt(&self) {
        self.shared.interrupts.send_modify(|count| *count += 1);
    }

    /// The interrupts from now on.
    pub(crate) fn interrupts(&self) -> Interrupts {
        self.shared.interrupts.subscribe()
    }

    pub(crate) fn checkpoints(&self) -> Checkpoints {
        self.shared.checkpoints()
    }

    /// Switches checkpoints, from the next cell on.
    pub(crate) async fn set_checkpoints(&self, on: bool) -> Result<(), String> {
        self.shared.lineages().await?;
        let runtime = lock(&self.shared.runtime);
        lock(&self.shared.checkpoints).on = on;
        // One that starts later is told then.
        if let Some(runtime) = &*runtime {
            runtime.set_checkpoint(on, self.shared.checkpoints().limit);
        }
        Ok(())
    }

    /// Ends the runtime with all that user code has started.
    pub(crate) async fn shutdown(&self) {
        self.interrupt();
        let (done, is_done) = oneshot::channel();
        self.order(Order::Shutdown(done));
        // The task may have ended already.
        let _ = is_done.await;
    }
}

/// Withdraws a ticket when dropped.
struct Withdraw(Ticket);

impl Drop for Withdraw {
    fn drop(&mut self) {
        self.0.withdraw();
    }
}

/// Cells that were submitted together.
struct Submission {
    number: u64,
    questions: mpsc::UnboundedReceiver<Question>,
    stages: watch::Receiver<Stage>,
    done: oneshot::Receiver<Outcome>,
}

/// Prepares what compiles, and asks for nothing yet.
async fn open(shared: Arc<Shared>, executable: PathBuf, folder: PathBuf) {
    let opened = prepare(executable, folder).await;
    let lineages = opened.map(|(compiler, lineages)| {
        let _ = shared.compiler.set(compiler);
        lineages
    });
    if let Err(message) = &lineages {
        tracing::error!("{message}");
    }
    shared.ready.send_replace(Some(lineages.clone()));
    // A new notebook needs a compiler soon, unless all of its cells come from the store.
    tokio::time::sleep(UNTIL_WARM_UP).await;
    if shared.submissions.load(Ordering::Relaxed) == 0
        && let Ok(lineages) = lineages
    {
        // The next question tells a failure.
        let _ = blocking(move || lineages.warm_up()).await;
    }
}

async fn prepare(
    executable: PathBuf,
    folder: PathBuf,
) -> Result<(Arc<dyn Compiler>, Lineages), String> {
    let options = compiling::options(executable.clone());
    let session = folder.clone();
    let base = blocking(move || Base::prepare(&options, &session)).await?;
    let base = base.map_err(|error| error.to_string())?;
    let compiler = ServiceCompiler::new(Handle::current(), executable, &base, folder.clone());
    let compiler: Arc<dyn Compiler> = Arc::new(compiler.map_err(|error| format!("{error:#}"))?);
    let lineages = Lineages::new(Owner::Notebook, base, Arc::clone(&compiler), &folder);
    Ok((compiler, lineages))
}

/// Runs the executor.
async fn drive(
    host: NotebookHost,
    shared: Arc<Shared>,
    mut orders: mpsc::UnboundedReceiver<Order>,
) {
    let mut driver = Driver::new(Executor::new(Config::notebook()), host);
    let mut works = 0;
    // The works of the submissions that may still be given up, oldest first.
    let mut submissions: BTreeMap<u64, Vec<WorkId>> = BTreeMap::new();
    driver.send(Event::Start);
    let done = loop {
        tokio::select! {
            order = orders.recv() => match order {
                None => break None,
                Some(Order::Shutdown(done)) => break Some(done),
                Some(Order::Evaluate { submission, cells }) => {
                    let host = driver.host();
                    submissions.retain(|_, works| works.iter().any(|work| host.has(*work)));
                    let group: Arc<str> = submission.to_string().into();
                    let mut ids = Vec::new();
                    let mut submitted = Vec::new();
                    for cell in cells {
                        works += 1;
                        let id = WorkId(works);
                        ids.push(id);
                        submitted.push(Work {
                            id,
                            kind: WorkKind::Snippet {
                                source: cell.source.code.clone(),
                                exchanges: false,
                            },
                            group: Some(Arc::clone(&group)),
                            stop_on_error: true,
                        });
                        host.cells.insert(id, cell);
                    }
                    submissions.insert(submission, ids);
                    driver.send(Event::Submit(submitted));
                }
                Some(Order::Status { submission, activity }) => {
                    for id in submissions.get(&submission).into_iter().flatten() {
                        let activity = activity.clone();
                        driver.send(Event::CompileStatus { id: *id, activity });
                    }
                }
                Some(Order::GiveUp { submission }) => {
                    for id in submissions.get(&submission).cloned().unwrap_or_default().into_iter().rev() {
                        driver.send(Event::Abort { id, running: true });
                    }
                }
            },
            happening = driver.next() => driver.handle(happening),
        }
        let executor = driver.executor();
        shared.note_lineage(
            translate::name_of(executor.lineage()),
            executor.is_evaluating(),
        );
    };
    driver.shutdown().await;
    if let Some(done) = done {
        // Who waited may have gone.
        let _ = done.send(());
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

impl NotebookHost {
    fn has(&self, id: WorkId) -> bool {
        self.cells.contains_key(&id)
    }
}
