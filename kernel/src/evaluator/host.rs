//! What the executor of a notebook needs: its runtime, its compiler, and the cells' readers.

use super::backlog::Backlog;
use super::local;
use super::places::Places;
use super::{Checkpoints, Shared, blocking};
use crate::compiling::environment;
use crate::failure;
use crate::kernel::lock;
use crate::translate;
use cluster::Lineage;
use cluster::connection::Libraries;
use cluster::executor::{
    CompileRequest, Compiled, Ending, Host, Kept, Outcome, Restart, Settlement, StartRuntime,
    Started, StatusSender, WorkId,
};
use cluster::failure::{PanicLocations, SourceLocation, Subject};
use cluster::output::Output;
use compiler::lineages::Next;
use compiler::{Lineages, Made, Place, Request, Source, Ticket};
use protocol::message::ErrorInfo;
use protocol::message::iopub::{Stream, StreamName};
use runtime::Runtime;
use serde_json::Value;
use std::collections::HashMap;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, Mutex};
use tokio::sync::{mpsc, oneshot, watch};

/// A cell that is with the executor.
pub(super) struct Submitted {
    pub(super) source: Source,
    pub(super) count: u32,
    pub(super) reader: Arc<Mutex<Reader>>,
}

/// Where goes what a cell shows.
pub(super) struct Reader {
    pub(super) emit: Box<dyn FnMut(Output) + Send>,
    pub(super) questions: mpsc::UnboundedSender<Question>,
    pub(super) stage: watch::Sender<Stage>,
    /// Whether this is evcxr's start-up configuration, whose failure the next cell tells.
    pub(super) is_startup: bool,
    /// The cells of his that have not ended: those of evcxr's configuration come before the one that asks for it.
    pub(super) left: usize,
    /// Told when the last of them has ended, or one has failed.
    pub(super) done: Option<oneshot::Sender<Outcome>>,
}

/// How far a cell has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Stage {
    /// It waits for its turn.
    Queued,
    Begun,
    Compiled,
}

/// A cell asks for a line of input.
pub(super) struct Question {
    pub(super) prompt: String,
    pub(super) password: bool,
    /// Closed when nobody waits for the line any more.
    pub(super) answer: oneshot::Sender<Option<String>>,
}

/// Which cell was compiled last, and the lineages that it can lead to.
type Last = Arc<Mutex<Option<(CompileRequest, Next)>>>;

/// See the module.
pub(super) struct NotebookHost {
    pub(super) shared: Arc<Shared>,
    pub(super) executable: PathBuf,
    pub(super) carrier: Option<PathBuf>,
    pub(super) cells: HashMap<WorkId, Submitted>,
    backlog: Backlog,
    /// What the next cell shows first.
    notes: Vec<Output>,
    last: Last,
    /// What the runtime loads, if a toolchain was chosen.
    libraries: Option<Libraries>,
    places: Places,
}

impl NotebookHost {
    pub(super) fn new(shared: Arc<Shared>, executable: PathBuf, carrier: Option<PathBuf>) -> Self {
        NotebookHost {
            shared,
            executable,
            carrier,
            cells: HashMap::new(),
            backlog: Backlog::default(),
            notes: Vec::new(),
            last: Last::default(),
            libraries: None,
            places: Places::default(),
        }
    }

    /// See [`Places`].
    fn name_cells(&mut self, text: &mut String) {
        if let Some(lineages) = self.shared.lineages_now()
            && let Some(named) = self.places.named(text, &lineages)
        {
            *text = named;
        }
    }

    fn runtime_command(&self) -> Command {
        let mut command = Command::new(&self.executable);
        command.arg("runtime");
        if let Some(carrier) = &self.carrier {
            command.env(chorus::wire::CARRIER, carrier);
        }
        command.envs(local::variables(&self.shared.environment));
        command
    }
}

impl Host for NotebookHost {
    fn start_runtime(
        &mut self,
        start: StartRuntime,
    ) -> impl Future<Output = Result<Started, ErrorInfo>> + Send + 'static {
        let (shared, command) = (Arc::clone(&self.shared), self.runtime_command());
        // Closures of programs run on engines only.
        if let StartRuntime::Namespace {
            libraries: Some(chosen),
        } = start
        {
            self.libraries = Some(chosen);
        }
        let chosen = self.libraries.clone();
        async move {
            let not_ready = |reason: String| cluster::failure::not_ready(Subject::Cell, &reason);
            let lineages = shared.lineages().await.map_err(not_ready)?;
            let libraries = chosen.unwrap_or_else(|| translate::libraries(lineages.support()));
            let checkpoints = shared.checkpoints();
            let Checkpoints { on, limit } = checkpoints;
            let mut config = runtime::Config::new(command, libraries.support);
            config.preload = libraries.preload;
            config.checkpoint = on;
            config.checkpoint_limit = limit;
            let started = Runtime::start(config).await;
            let started = started.map_err(|error| not_ready(error.to_string()))?;
            shared.set_runtime(started.0.clone(), checkpoints);
            Ok(started)
        }
    }

    fn compile(
        &mut self,
        id: WorkId,
        request: CompileRequest,
        _status: StatusSender,
    ) -> impl Future<Output = Result<Compiled, ErrorInfo>> + Send + 'static {
        let submitted = self.cells.get(&id);
        let cell = submitted.map(|cell| (cell.source.clone(), cell.count));
        let reader = submitted.map(|cell| Arc::clone(&cell.reader));
        let (shared, last) = (Arc::clone(&self.shared), Arc::clone(&self.last));
        async move {
            let (source, count) = cell.unwrap_or_default();
            let made = compile(&shared, source, count, &request).await?;
            *lock(&last) = Some((request, made.next.clone()));
            shared.look_ahead(&made.next.completed);
            if let Some(reader) = reader {
                lock(&reader).stage.send_replace(Stage::Compiled);
            }
            Ok(compiled(made))
        }
    }

    fn settle(
        &mut self,
        ending: Ending,
    ) -> impl Future<Output = Option<Settlement>> + Send + 'static {
        let (shared, last) = (Arc::clone(&self.shared), Arc::clone(&self.last));
        async move {
            let lineages = shared.lineages().await.ok()?;
            let settled = move || match ending {
                Ending::Early { request, panic } => {
                    let last = lock(&last).take();
                    let (_, next) = last.filter(|(compiled, _)| *compiled == request)?;
                    Some(Settlement {
                        lineage: translate::lineage(next.early),
                        locations: panic
                            .map(|panic| locations(&lineages, &panic))
                            .unwrap_or_default(),
                    })
                }
                Ending::VariablesLost { lineage, variables } => {
                    let left = lineages.without(translate::name_of(&lineage), variables.as_deref());
                    let left =
                        left.inspect_err(|failure| tracing::warn!(?failure, "variables are lost"));
                    Some(Settlement {
                        lineage: translate::lineage(left.ok()?),
                        locations: PanicLocations::default(),
                    })
                }
            };
            blocking(settled).await.ok()?
        }
    }

    fn ask(
        &mut self,
        id: WorkId,
        prompt: String,
        password: bool,
    ) -> impl Future<Output = Option<String>> + Send + 'static {
        let (answer, answered) = oneshot::channel();
        if let Some(cell) = self.cells.get(&id) {
            let question = Question {
                prompt,
                password,
                answer,
            };
            // Who has gone answers nothing.
            let _ = lock(&cell.reader).questions.send(question);
        }
        async move { answered.await.ok().flatten() }
    }

    fn keep(&mut self, kept: Kept) {
        self.backlog.add(kept);
    }

    fn take_kept(&mut self) -> Option<Kept> {
        self.backlog.take()
    }

    fn started(&mut self, id: WorkId) {
        if let Some(cell) = self.cells.get(&id) {
            lock(&cell.reader).stage.send_replace(Stage::Begun);
        }
        for note in std::mem::take(&mut self.notes) {
            self.output(Some(id), note);
        }
    }

    fn output(&mut self, id: Option<WorkId>, mut output: Output) {
        if let Output::Stream(Stream { text, .. }) = &mut output {
            self.name_cells(text);
        }
        if let Some(cell) = id.and_then(|id| self.cells.get(&id)) {
            (lock(&cell.reader).emit)(output);
        }
    }

    fn finished(&mut self, id: WorkId, mut outcome: Outcome, lineage: &Lineage) {
        if let Outcome::Evaluated {
            value: Some(value), ..
        } = &mut outcome
            && let Some(Value::String(text)) = value.get_mut("text/plain")
        {
            self.name_cells(text);
        }
        self.shared.look_back(translate::name_of(lineage));
        let Some(cell) = self.cells.remove(&id) else {
            return;
        };
        let mut reader = lock(&cell.reader);
        if let (true, Outcome::Failed { error, .. }) = (reader.is_startup, &outcome) {
            let text = format!(
                "evcxr's start-up configuration failed:\n{}\n",
                error.traceback.join("\n")
            );
            self.notes.push(Output::Stream(Stream {
                name: StreamName::Stderr,
                text,
            }));
        }
        reader.left -= 1;
        if (reader.left == 0 || !matches!(outcome, Outcome::Evaluated { .. }))
            && let Some(done) = reader.done.take()
        {
            // Who waited may have gone.
            let _ = done.send(outcome);
        }
    }
}

/// Compiles a cell, and does those of its commands that need no evcxr.
async fn compile(
    shared: &Shared,
    mut source: Source,
    count: u32,
    request: &CompileRequest,
) -> Result<Made, ErrorInfo> {
    let lineages = shared.lineages().await;
    let lineages =
        lineages.map_err(|reason| cluster::failure::not_ready(Subject::Cell, &reason))?;
    let mut said = String::new();
    if request.without.is_empty() {
        said = local::perform(&mut source, count, &lineages, &shared.environment).await?;
    } else {
        source.code = compiler::lineages::take_local(&source.code).1;
    }
    let without = request.without.clone();
    let mut environment = environment::personal(&source.code);
    environment.extend(local::variables(&shared.environment));
    let mut request = Request {
        lineage: translate::name_of(&request.request.lineage).to_owned(),
        source,
        count: Some(count),
        environment,
    };
    let waited = GiveUp(Some(Ticket::default()));
    let ticket = waited.0.clone().unwrap_or_default();
    let made = blocking(move || {
        if !without.is_empty() {
            request.lineage = lineages.without(&request.lineage, Some(&without))?;
        }
        lineages.compile(&request, &ticket)
    });
    let made = made.await;
    waited.forget();
    let made = made.unwrap_or_else(|error| Err(compiler::Failure::Panicked(error)));
    let mut made = made.map_err(failure::compile)?;
    if !said.is_empty() {
        let shown = made.shown.entry("text/plain".to_owned()).or_default();
        shown.insert_str(0, &said);
    }
    Ok(made)
}

/// Gives a ticket up when dropped.
struct GiveUp(Option<Ticket>);

impl GiveUp {
    fn forget(mut self) {
        self.0 = None;
    }
}

impl Drop for GiveUp {
    fn drop(&mut self) {
        if let Some(ticket) = self.0.take() {
            tokio::task::spawn_blocking(move || ticket.give_up());
        }
    }
}

fn compiled(made: Made) -> Compiled {
    let undone = translate::lineage(made.next.undone.clone());
    Compiled {
        restart: made.restarts.then(|| Restart {
            libraries: made.support.as_ref().map(translate::libraries),
            lineage: undone.clone(),
        }),
        undone: Some(undone),
        artifact: translate::artifact(made),
    }
}

/// Where a panic and its frames are in the cells.
fn locations(lineages: &Lineages, panic: &runtime::Panic) -> PanicLocations {
    let frames = panic.frames.iter().map(|frame| {
        let location = frame.location.as_ref()?;
        let from = location.file.rfind("chorus-").unwrap_or(0);
        lineages.locate(&location.file[from..], location.line)
    });
    let raised = panic.location.as_ref();
    let raised = raised.and_then(|location| lineages.locate(&location.file, location.line));
    PanicLocations {
        panic: raised.map(location),
        frames: frames.map(|place| place.map(location)).collect(),
    }
}

fn location(place: Place) -> SourceLocation {
    SourceLocation {
        cell: Some(place.cell),
        line: place.line,
        text: place.text,
    }
}
