//! What a program and its *carrier* say to each other.
//!
//! The carrier is whoever speaks to the cluster on the program's behalf: the notebook's kernel, or a thread of a stand-alone
//! program. They share a Unix stream socket, whose path the carrier puts into the environment variable [`CARRIER`] of processes that
//! run cells. One connection is one client of one cluster.
//!
//! # Frames
//! A frame is its length in bytes (four bytes, little endian, at most [`MOST`]) and one [`Up`] (program to carrier) or [`Down`]
//! (carrier to program), encoded by [`codec`](crate::codec). The enums are internal to one build of Chorus: their layout is
//! [`VERSION`], which both sides check first.
//!
//! # Rules
//! 1. The first frame is `Up::Hello`; the answer to it is `Down::Welcome` or `Down::Refused`, and after the latter the carrier closes. A
//!    carrier that starts a cluster on demand does it before it answers. Nothing else is sent before the answer.
//! 2. The carrier reads whether or not what it writes is taken. (The program writes with blocking calls, and reads only while somebody
//!    waits for a result: what it hasn't read is the carrier's to keep.)
//! 3. Numbers (`u64`) of tasks, shared values and questions are drawn by the program from one sequence, beginning at
//!    `Welcome::first`. Carriers begin sequences where no other client of the cluster will get to (say, 32 random bits and then
//!    32 zeroes), so that engines can tell shared values by their numbers alone.
//! 4. Every submitted task ends in exactly one [`Done`], whatever happens: a lost engine, an abort, a refusal of the controller are
//!    failures. Only `Down::Gone` or the end of the connection spares the carrier from it.
//! 5. A [`Piece::File`] belongs to whoever receives it: a carrier removes it when the task that it came with is done, or the shared
//!    value dropped; the program when it has taken it. A file's name begins with [`FILES`], the process id of its maker and a `-`, so
//!    that those of the dead can be found. The arguments of a call's many tasks are stretches of a file ([`Piece::Part`]), which is a shared
//!    value: the program sends it before it has written anything, a task when its stretch is written, and `Unshare` behind the last of them. The
//!    carrier may rename it meanwhile. Instead of removing a file that nobody reads any more, a carrier may give it the name `Welcome::spare`; a
//!    program that needs a file may rename that one, and write over it: fresh memory costs more than the copying.
//! 6. After a cell died, its namespace goes on in a copy made before the cell ([`Resume`]). The copy connects anew and says which of its
//!    tasks are open for it. The carrier gives it their outcomes once more, those that the dead process has taken included, or
//!    a failure of kind `Lost` for those that are not to be had any more; forgets shared values that are not listed; aborts queued
//!    tasks that are not listed; and begins the sequence of numbers behind all that the session has used. From then on the connection that
//!    the session had before is nobody's, even if it isn't closed yet: both processes have its socket.
//!
//! # A task
//! An engine (or the carrier, for one that runs elsewhere) sees: the work, the arguments piece, the shared pieces.
//! - [`Work::Call`]: call the trampoline at `offset` of `artifact` with slice 0 = arguments and then the shared values in their order, each
//!   with its number as the slice's `id`. The value of the outcome is the answer's bytes, unread by anyone between. Status 1 and 2 become
//!   failures of kind `Error` and `Panic`; 3 is a value that tells itself what failed.
//! - [`Work::Snippet`]: evaluate `code` in the engine's namespace, as `%px` does. If `takes`, put the arguments into the file
//!   `$`[`PIECES`]`/slot` before. If `gives`, the file of that name afterwards is the value of the outcome; otherwise the value is an encoded
//!   [`Executed`]. The environment variable is set in engines' runtimes and names a folder of each runtime's own. The code
//!   for equal names and types is always equal, so it is compiled once.

mod frame;
mod piece;

pub use frame::{MOST, read, write};
pub(crate) use piece::Stretches;
pub use piece::{Bytes, FILES, LARGE, Piece, SPARE};

use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Names the environment variable with the path of the carrier's socket.
pub const CARRIER: &str = "CHORUS_CARRIER";
/// Names the environment variable with the folder through which snippets take and give pieces.
pub const PIECES: &str = "CHORUS_PIECES";
/// Raised with every change of this module's types or of the codec.
pub const VERSION: u32 = 4;

/// From the program to the carrier.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Up {
    /// The first frame.
    Hello(Hello),
    /// A value for several tasks, kept until `Unshare`.
    Share {
        /// Its number.
        id: u64,
        /// Its bytes; neither `Shared` nor `Part`.
        piece: Piece,
    },
    /// No task that is submitted from now on uses these shared values. Those submitted before still may.
    Unshare {
        /// Their numbers.
        ids: Vec<u64>,
    },
    /// Tasks to run. Several frames may belong to one call of the user's.
    Submit(Submission),
    /// A question that is answered by `Down::Reply`.
    Ask {
        /// The answer carries the same number.
        id: u64,
        /// What to tell or to do.
        question: Question,
    },
}

/// Who connects, and to which cluster.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Hello {
    /// [`VERSION`]. It stays the first field.
    pub version: u32,
    /// The profile; without, the carrier's own choice.
    pub profile: Option<String>,
    /// The cluster within the profile.
    pub cluster_id: Option<String>,
    /// Set when a copy of the program goes on with a session.
    pub resume: Option<Resume>,
}

/// The state of a session as the copy knows it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Resume {
    /// `Welcome::session` of the connection before.
    pub session: String,
    /// Tasks whose outcome is awaited.
    pub open: Vec<Span>,
    /// Shared values that will be used again.
    pub shared: Vec<u64>,
}

/// Consecutive numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span {
    /// The first of them.
    pub first: u64,
    /// How many.
    pub count: u64,
}

impl Span {
    /// All of them.
    pub fn ids(self) -> std::ops::Range<u64> {
        self.first..self.first.saturating_add(self.count)
    }
}

/// Tasks that do the same with different arguments.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Submission {
    /// What to do.
    pub work: Work,
    /// Numbers of shared values that each task gets besides its arguments.
    pub shared: Vec<u64>,
    /// Who runs them.
    pub route: Route,
    /// What users write for people to read.
    pub label: Option<String>,
    /// The tasks.
    pub tasks: Vec<Task>,
}

/// One task.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Task {
    /// Its number.
    pub id: u64,
    /// With `Route::Direct`, the engine. Otherwise nothing.
    pub engine: Option<u32>,
    /// Slice 0 of a call, or what a snippet takes.
    pub arguments: Piece,
}

/// What an engine does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Work {
    /// Calls a trampoline.
    Call {
        /// The shared object or program, on the program's machine.
        artifact: PathBuf,
        /// Whether it is the program itself, which no other process can load: engines start it anew.
        executable: bool,
        /// Bytes from where it is loaded to the trampoline.
        offset: u64,
    },
    /// Evaluates source text in the engine's namespace.
    Snippet {
        /// The source.
        code: String,
        /// Under which name the arguments are put into `$CHORUS_PIECES` before.
        takes: Option<String>,
        /// Under which name the outcome's value is found there afterwards.
        gives: Option<String>,
    },
}

/// How tasks get to engines.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Route {
    /// Each task names its engine.
    Direct,
    /// The controller's scheduler chooses.
    Balanced {
        /// Among these; without, among all.
        targets: Option<Vec<u32>>,
        /// How many times a task may be run again after its engine was lost or it failed.
        retries: u32,
        /// Seconds after which a task that no engine got fails.
        timeout: Option<f64>,
        /// Not before these have ended.
        after: Option<Dependency>,
        /// On an engine where these ran, not before they have ended.
        follow: Option<Dependency>,
    },
}

/// Tasks that come first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Dependency {
    /// Their numbers.
    pub tasks: Vec<Span>,
    /// Whether all of them have to end, or any one.
    pub all: bool,
    /// Whether it counts when they end well.
    pub success: bool,
    /// Whether it counts when they fail.
    pub failure: bool,
}

/// Something to ask the carrier.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Question {
    /// `Answer::Queue`.
    QueueStatus {
        /// Of these engines; without, of all.
        targets: Option<Vec<u32>>,
    },
    /// Drop these tasks where they wait; each of those fails with `Aborted`. Running ones go on. `Answer::Done`.
    Abort {
        /// Without, all of this client's.
        tasks: Option<Vec<Span>>,
    },
    /// Forget stored results. `Answer::Done`.
    Purge {
        /// Without, all of this client's.
        tasks: Option<Vec<Span>>,
    },
    /// End engines, or the cluster. `Answer::Done`.
    Shutdown {
        /// These; without, all.
        targets: Option<Vec<u32>>,
        /// The controller too.
        controller: bool,
    },
    /// What is at a file and line, as a panic names them? `Answer::Place`.
    Locate {
        /// As the artifact has it.
        file: String,
        /// From 1.
        line: u32,
    },
}

/// From the carrier to the program.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Down {
    /// The connection is made.
    Welcome(Welcome),
    /// It is not.
    Refused {
        /// A sentence that says what to do.
        reason: String,
    },
    /// News of tasks.
    Tasks(Vec<News>),
    /// The engines there are now, in ascending order.
    Engines(Vec<u32>),
    /// What a task printed. It is left out while much of what was said is unread.
    Output {
        /// Its number.
        task: u64,
        /// Where it runs.
        engine: u32,
        /// Whether it was written to stderr.
        stderr: bool,
        /// What was written.
        text: String,
    },
    /// The answer to a question.
    Reply {
        /// The question's number.
        id: u64,
        /// The answer.
        answer: Answer,
    },
    /// The cluster is lost; the connection will be closed.
    Gone {
        /// What happened, in a phrase.
        reason: String,
    },
}

/// What a client has to know.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Welcome {
    /// [`VERSION`]. It stays the first field.
    pub version: u32,
    /// A name for this client that nobody guesses.
    pub session: String,
    /// The first number to use.
    pub first: u64,
    /// What people call the cluster: profile and id.
    pub cluster: String,
    /// The engines there are, in ascending order.
    pub engines: Vec<u32>,
    /// Where a file lies, now and then, that may be taken and written over.
    pub spare: Option<PathBuf>,
}

/// Something happened to a task.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum News {
    /// An engine began with it. Not every carrier knows it when it happens.
    Started {
        /// The task.
        id: u64,
        /// Who runs it.
        engine: u32,
        /// When, in seconds since 1970.
        at: f64,
    },
    /// It has ended.
    Done(Done),
}

/// A task's end.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Done {
    /// The task.
    pub id: u64,
    /// Who ran it, if anybody.
    pub engine: Option<u32>,
    /// When the controller got it, in seconds since 1970; 0 if nobody knows.
    pub submitted: f64,
    /// When the engine began; 0 if it didn't.
    pub started: f64,
    /// When the engine ended.
    pub completed: f64,
    /// How it went.
    pub outcome: Outcome,
}

/// How a task went.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Outcome {
    /// Well, or in part; neither `Piece::Shared` nor `Piece::Part`.
    Value(Piece),
    /// Not well.
    Failed(Failure),
}

/// Why a task has no value.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Failure {
    /// For programs.
    pub kind: FailureKind,
    /// The error's name in ipyparallel's terms: `panic`, `EngineError`, `TaskAborted`, `TaskTimeout`, `ImpossibleDependency` ...
    pub ename: String,
    /// Its message.
    pub evalue: String,
    /// Frames for people to read.
    pub traceback: Vec<String>,
    /// Where, if that is known.
    pub place: Option<Place>,
}

/// Kinds of failures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FailureKind {
    /// The function panicked.
    Panic,
    /// The call could not be made, a snippet didn't compile or returned an error.
    Error,
    /// The engine died, as often as `retries` allowed.
    Engine,
    /// It was aborted before it began.
    Aborted,
    /// No engine got it in time.
    Timeout,
    /// What it depends on can't be any more.
    Dependency,
    /// The controller didn't take it.
    Refused,
    /// Nobody knows its outcome any more.
    Lost,
}

/// A line of source, as it is named to users.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// `In[3]`, or a file.
    pub file: String,
    /// From 1.
    pub line: u32,
    /// The line's text, if it is at hand.
    pub text: Option<String>,
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Answer {
    /// It was done.
    Done,
    /// The queues.
    Queue(QueueStatus),
    /// The place in a cell; nothing if it is in none.
    Place(Option<Place>),
    /// It can't be answered.
    Refused {
        /// Why.
        reason: String,
    },
}

/// What waits and what runs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct QueueStatus {
    /// Each engine's.
    pub engines: Vec<EngineQueue>,
    /// Tasks that wait in the scheduler.
    pub unassigned: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// One engine's work.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct EngineQueue {
    /// The engine.
    pub engine: u32,
    /// Requests sent to it directly that haven't ended.
    pub queue: u64,
    /// Tasks the scheduler gave it that haven't ended.
    pub tasks: u64,
    /// What it has ended.
    pub completed: u64,
}

/// What a snippet without `gives` shows.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Executed {
    /// Its result, by MIME type.
    pub data: Vec<(String, String)>,
}

impl Executed {
    /// Its result as plain text; nothing if the snippet has none.
    pub fn text(&self) -> Option<&str> {
        let (_, text) = self.data.iter().find(|(mime, _)| mime == "text/plain")?;
        Some(text)
    }
}
