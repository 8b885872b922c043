//! What goes into an [`Executor`](super::Executor) and what comes out of it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use protocol::message::{ErrorInfo, MimeBundle};
use runtime::{Call, CallOutcome, Panic, RunId, Snippet, Span, Stream};

use super::Program;
use crate::Lineage;
use crate::compile::{Artifact, Request};
use crate::connection::Libraries;
use crate::failure::{PanicLocations, Subject};
use crate::output::Output;

/// What differs between the executors of engines and of notebooks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// What errors are about.
    pub subject: Subject,
    /// Whether somebody can answer [`Effect::AskInput`]. Otherwise user code that reads input finds its end.
    pub asks: bool,
    /// What becomes of output that comes while nothing runs.
    pub idle_output: IdleOutput,
    /// What follows when a snippet was compiled for other types than its variables have.
    pub types_changed: TypesChanged,
    /// How that is shown which a snippet's commands have to show.
    pub shown: Shown,
    /// Which lineage follows when the runtime has lost its variables.
    pub variables_lost: VariablesLost,
}

impl Config {
    /// For the namespace of an engine.
    pub fn engine() -> Self {
        Self {
            subject: Subject::Snippet,
            asks: false,
            idle_output: IdleOutput::Publish,
            types_changed: TypesChanged::Fail,
            shown: Shown::Display,
            variables_lost: VariablesLost::Root,
        }
    }

    /// For the namespace of a notebook.
    pub fn notebook() -> Self {
        Self {
            subject: Subject::Cell,
            asks: true,
            idle_output: IdleOutput::Keep,
            types_changed: TypesChanged::Recompile,
            shown: Shown::ResultIfNothingRuns,
            variables_lost: VariablesLost::Ask,
        }
    }
}

/// See [`Config::idle_output`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdleOutput {
    /// It is sent at once, as [`Effect::Output`] of no work.
    Publish,
    /// It is kept ([`Effect::Keep`]), and the next snippet shows it ([`Effect::ReplayKept`]).
    Keep,
}

/// See [`Config::types_changed`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TypesChanged {
    /// The snippet fails.
    Fail,
    /// The snippet is compiled once more, without these variables.
    Recompile,
}

/// See [`Config::shown`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shown {
    /// As a display.
    Display,
    /// As the result, if there is nothing to run.
    ResultIfNothingRuns,
}

/// See [`Config::variables_lost`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VariablesLost {
    /// The root's.
    Root,
    /// What the compiler says: [`Ending::VariablesLost`].
    Ask,
}

/// Names a piece of work. Each is larger than 0 and than those submitted before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkId(pub u64);

/// Names a question to the compiler. An answer to a question that nobody waits for any more is ignored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket(pub(super) u64);

/// A runtime that an executor works with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RuntimeId {
    /// The namespace's: snippets run here, and closures of snippets.
    Namespace,
    /// A stand-alone program's: its closures run here.
    Program(Program),
}

/// Something to do. Work is done in the order in which it was submitted.
#[derive(Debug)]
pub struct Work {
    /// Its name.
    pub id: WorkId,
    /// What is to be done.
    pub kind: WorkKind,
    /// Work of the same group that waits is aborted when this fails and `stop_on_error` is set.
    pub group: Option<Arc<str>>,
    /// See `group`.
    pub stop_on_error: bool,
}

/// See [`Work`].
#[derive(Debug)]
pub enum WorkKind {
    /// Compile and run source text.
    Snippet {
        /// The text.
        source: String,
        /// Whether values are put somewhere before it and fetched after it: [`Effect::Provide`], [`Effect::Collect`].
        exchanges: bool,
    },
    /// Call a closure; or say what is wrong with the request for it. Up to [`AHEAD`](super::AHEAD) calls are with the runtime at a time.
    Call(Result<CallWork, ErrorInfo>),
    /// Empty the namespace.
    Clear,
    /// Nothing but its turn, which ends at once in this way.
    Turn(Result<(), ErrorInfo>),
}

/// A closure to call.
#[derive(Debug)]
pub struct CallWork {
    /// What to call. The executor sets its id.
    pub call: Call,
    /// Where.
    pub runtime: RuntimeId,
}

/// What an executor is told.
#[derive(Debug)]
pub enum Event {
    /// There is more to do.
    Submit(Vec<Work>),
    /// Start the namespace's runtime before it is needed.
    Start,
    /// End the snippet that is evaluated or the call that runs.
    Interrupt {
        /// Whether snippets and calls that wait end as well.
        waiting: bool,
    },
    /// Do not do this. Calls that are with the runtime and have not begun are aborted, too. May come before its work.
    Abort {
        /// Which.
        id: WorkId,
        /// Whether it is to be interrupted if it runs.
        running: bool,
    },
    /// End everything, for good.
    Shutdown,
    /// [`Effect::StartRuntime`] is done.
    RuntimeStarted {
        /// Which.
        runtime: RuntimeId,
        /// Or why it is not there.
        result: Result<(), ErrorInfo>,
    },
    /// A runtime reports something.
    Runtime {
        /// Which.
        runtime: RuntimeId,
        /// What.
        event: runtime::Event,
    },
    /// A runtime's processes have gone and will not report anything any more.
    RuntimeGone(RuntimeId),
    /// [`Effect::ClearRuntime`] is done.
    Cleared,
    /// [`Effect::Provide`] is done.
    Provided {
        /// For which work.
        id: WorkId,
        /// Or why it cannot run.
        result: Result<(), ErrorInfo>,
    },
    /// [`Effect::Collect`] is done.
    Collected {
        /// For which work.
        id: WorkId,
        /// The snippet's result.
        result: Result<Option<MimeBundle>, ErrorInfo>,
    },
    /// What a snippet waits for before it runs. Ignored once it runs.
    CompileStatus {
        /// Which.
        id: WorkId,
        /// A line for people.
        activity: String,
    },
    /// The answer to [`Effect::Compile`].
    Compiled {
        /// As in the effect.
        ticket: Ticket,
        /// Or why it does not compile.
        result: Result<Compiled, ErrorInfo>,
    },
    /// The answer to [`Effect::Settle`].
    Settled {
        /// As in the effect.
        ticket: Ticket,
        /// `None` when nobody can tell: the lineage stays as it is.
        settlement: Option<Settlement>,
    },
    /// The answer to [`Effect::AskInput`].
    Input {
        /// As in the effect.
        id: WorkId,
        /// A line without its end; `None` for the end of input.
        line: Option<String>,
    },
    /// Something that was kept; answers [`Effect::ReplayKept`].
    Kept(Kept),
    /// It is [`Executor::deadline`](super::Executor::deadline).
    Tick,
}

/// What is to be done, in this order.
#[derive(Debug)]
pub enum Effect {
    /// Start a runtime, in the place of the one of this name if there is one. Answered by [`Event::RuntimeStarted`].
    StartRuntime(StartRuntime),
    /// End a program's runtime.
    StopRuntime(RuntimeId),
    /// Empty the namespace's runtime. Answered by [`Event::Cleared`].
    ClearRuntime,
    /// Run a snippet in the namespace's runtime.
    Run(Snippet),
    /// Call a closure.
    Call {
        /// Where.
        runtime: RuntimeId,
        /// What.
        call: Call,
    },
    /// Interrupt a run or a call.
    InterruptRun {
        /// Where.
        runtime: RuntimeId,
        /// Which.
        run: RunId,
    },
    /// Answer user code that reads input.
    AnswerInput {
        /// Where.
        runtime: RuntimeId,
        /// As in [`Event::Input`].
        line: Option<String>,
    },
    /// Put values where a snippet finds them. Answered by [`Event::Provided`].
    Provide(WorkId),
    /// Fetch what a snippet left. Answered by [`Event::Collected`].
    Collect {
        /// Which.
        id: WorkId,
        /// Its result.
        value: Option<MimeBundle>,
    },
    /// Compile a snippet. Answered by [`Event::Compiled`].
    Compile {
        /// For the answer.
        ticket: Ticket,
        /// Which.
        id: WorkId,
        /// What.
        request: CompileRequest,
    },
    /// Nobody waits for this answer of the compiler any more.
    CancelCompile(Ticket),
    /// Find out which lineage the namespace has. Answered by [`Event::Settled`].
    Settle {
        /// For the answer.
        ticket: Ticket,
        /// What happened.
        ending: Ending,
    },
    /// Ask the user for a line. Answered by [`Event::Input`].
    AskInput {
        /// Who asks.
        id: WorkId,
        /// What to ask.
        prompt: String,
        /// Whether the answer is not to be shown.
        password: bool,
    },
    /// Nobody waits for this line any more.
    CancelInput(WorkId),
    /// A snippet's turn has come; or a call has run for [`LONG_CALL`](super::LONG_CALL).
    Started(WorkId),
    /// Send output.
    Output {
        /// Whose it is; `None` for what comes while nothing runs.
        id: Option<WorkId>,
        /// What.
        output: Output,
    },
    /// Keep this for the next snippet.
    Keep(Kept),
    /// Pass what was kept to the executor, oldest first ([`Event::Kept`]), before any later effect.
    ReplayKept,
    /// Work is over. All of its output was sent before.
    Finished {
        /// Which.
        id: WorkId,
        /// How it went.
        outcome: Outcome,
    },
    /// End all runtimes.
    Shutdown,
}

/// A runtime to start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StartRuntime {
    /// The namespace's; with other libraries than before, if they are given.
    Namespace {
        /// See [`Compiled::restart`].
        libraries: Option<Libraries>,
    },
    /// A program's.
    Program {
        /// Which.
        program: Program,
        /// Its executable.
        path: PathBuf,
    },
}

impl StartRuntime {
    /// The name of the runtime.
    pub fn runtime(&self) -> RuntimeId {
        match self {
            StartRuntime::Namespace { .. } => RuntimeId::Namespace,
            StartRuntime::Program { program, .. } => RuntimeId::Program(*program),
        }
    }
}

/// What to compile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompileRequest {
    /// Lineage and source.
    pub request: Request,
    /// Variables that the snippet is compiled without, since their types have changed.
    pub without: Vec<String>,
}

/// A snippet that was compiled.
#[derive(Clone, Debug, PartialEq)]
pub struct Compiled {
    /// What to run, and what follows.
    pub artifact: Artifact,
    /// Set if its commands ask for an empty runtime, which is to be there before it runs.
    pub restart: Option<Restart>,
    /// The state when its run was undone. The state before it if `None`.
    pub undone: Option<Lineage>,
}

impl From<Artifact> for Compiled {
    fn from(artifact: Artifact) -> Self {
        Self {
            artifact,
            restart: None,
            undone: None,
        }
    }
}

/// See [`Compiled::restart`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restart {
    /// What the new runtime loads, if that changes.
    pub libraries: Option<Libraries>,
    /// The state after the snippet's commands and before its code.
    pub lineage: Lineage,
}

/// What happened to a namespace whose lineage is not known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// A snippet did not come to its end.
    Early {
        /// What was compiled.
        request: CompileRequest,
        /// The panic, if it was one.
        panic: Option<Panic>,
    },
    /// The runtime has lost variables.
    VariablesLost {
        /// The state before that.
        lineage: Lineage,
        /// Which; all if `None`.
        variables: Option<Vec<String>>,
    },
}

/// The answer to an [`Ending`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settlement {
    /// The namespace's lineage now.
    pub lineage: Lineage,
    /// Where the panic was.
    pub locations: PanicLocations,
}

/// What happened while nothing ran.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kept {
    /// Bytes of output. Should not be held as they are: see [`runtime::Event::Output`].
    Output {
        /// Which pipe.
        stream: Stream,
        /// As they were read.
        bytes: Bytes,
    },
    /// A line of the executor's own.
    Note(String),
}

/// How work ended.
#[derive(Debug, PartialEq)]
pub enum Outcome {
    /// A snippet ran to its end.
    Evaluated {
        /// Its result.
        value: Option<MimeBundle>,
        /// How long it took.
        times: Times,
    },
    /// It failed, or did not begin.
    Failed {
        /// In words.
        error: ErrorInfo,
        /// How long it took.
        times: Times,
    },
    /// A call is back from the runtime.
    Called(CallReport),
    /// It was aborted before it began.
    Aborted,
    /// Anything else is done.
    Done,
}

impl Outcome {
    pub(super) fn failed(error: ErrorInfo) -> Self {
        Outcome::Failed {
            error,
            times: Times::default(),
        }
    }
}

/// How long a snippet took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Times {
    /// Until it was compiled, all attempts together.
    pub compile: Duration,
    /// From the first load's start to the last one's end.
    pub wall: Duration,
    /// The processor's time in user code and in the system, if it is known.
    pub cpu: Option<(Duration, Duration)>,
}

/// How a call went.
#[derive(Debug, PartialEq)]
pub struct CallReport {
    /// What the runtime says.
    pub outcome: CallOutcome,
    /// When it ran, by the runtime's clock.
    pub span: Option<Span>,
    /// When it was handed to the runtime.
    pub sent: Instant,
    /// Whether it has printed something.
    pub printed: bool,
    /// Whether [`Effect::Started`] was told.
    pub announced: bool,
    /// Whether it was aborted before it began.
    pub aborted: bool,
}
