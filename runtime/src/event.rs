//! What goes through a [`Runtime`](crate::Runtime): snippets in, events out. For closures see `call.rs`.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::call::{CallOutcome, Span};

/// Names one run of a snippet or one call of a closure; chosen by the owner, unique within a [`Runtime`](crate::Runtime).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RunId(pub u64);

/// A compiled snippet that is to be run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snippet {
    /// Names this run.
    pub id: RunId,
    /// The shared object. It must stay as it is for as long as the runtime lives.
    pub artifact: PathBuf,
    /// The function in it to call, `extern "C" fn(*mut c_void) -> *mut c_void`: takes and returns the variable store, null at
    /// first.
    pub entry: String,
    /// Whether to make a copy of the namespace first; [`Runtime::set_checkpoint`](crate::Runtime::set_checkpoint) switched off wins.
    pub checkpoint: bool,
}

/// What a runtime reports, in the order in which it happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The snippet's checkpoint is made, its code starts now.
    Started {
        /// The run.
        id: RunId,
        /// Whether there is a copy of the namespace to fall back on.
        checkpoint: CheckpointState,
    },
    /// Bytes as they were read from a pipe; cut anywhere, within a character too. Also between runs, from threads that go on.
    ///
    /// Hold on to `bytes` no longer than needed: the runtime stops reading (and user code that prints waits) while 64 MB of them
    /// are alive.
    Output {
        /// Which pipe.
        stream: Stream,
        /// At least one byte.
        bytes: Bytes,
    },
    /// The text of the snippet's last expression.
    Result {
        /// The run.
        id: RunId,
        /// Its `{:?}` text, or what the value's `evcxr_display` sent.
        text: String,
    },
    /// User code waits for a line; answer with [`Runtime::input`](crate::Runtime::input).
    Input {
        /// What to ask; empty when user code reads stdin by other means than `evcxr_input`.
        prompt: String,
        /// Whether the answer is not to be shown.
        password: bool,
    },
    /// The CPU's time that the worker's process spent on a snippet which came to its end, in user code and in the system. Comes before
    /// `Finished`.
    Spent {
        /// The run.
        id: RunId,
        /// In user code.
        user: Duration,
        /// In the system.
        system: Duration,
    },
    /// The run is over. Everything that the snippet wrote to stdout and stderr came as `Output` before this.
    Finished {
        /// The run.
        id: RunId,
        /// How it went.
        outcome: Outcome,
    },
    /// The call is over. Everything that it wrote to stdout and stderr came as `Output` before this.
    Called {
        /// The call.
        id: RunId,
        /// How it went.
        outcome: CallOutcome,
        /// When it ran; `None` when it did not begin, or did not end by itself.
        span: Option<Span>,
    },
    /// The runtime died while nothing was running, by one of the namespace's threads. Another one has taken its place.
    Lost {
        /// What it died of.
        cause: Cause,
        /// What is left of the namespace.
        restored: Restored,
    },
}

/// Where output was written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stream {
    /// File descriptor 1.
    Stdout,
    /// File descriptor 2.
    Stderr,
}

/// Whether there is a copy of the namespace while a snippet runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum CheckpointState {
    /// A copy waits.
    Taken,
    /// Not asked for.
    Off,
    /// The namespace is larger than the limit.
    TooLarge {
        /// Resident memory of the worker, in bytes.
        bytes: u64,
        /// The limit, in bytes.
        limit: u64,
    },
    /// The system refused to fork.
    Failed {
        /// The system's words.
        error: String,
    },
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It returned.
    Completed,
    /// User code unwound.
    Panicked(Panic),
    /// `?` left the cell early.
    Returned {
        /// The error's text.
        error: String,
    },
    /// The snippet did not run: it was compiled for other types than these variables have now.
    TypesChanged {
        /// Their names.
        variables: Vec<String>,
    },
    /// The snippet did not run: its artifact could not be loaded or has no such function.
    LoadFailed {
        /// The dynamic linker's words.
        error: String,
    },
    /// The process died.
    Died {
        /// Of what.
        cause: Cause,
        /// What is left of the namespace.
        restored: Restored,
    },
    /// It was interrupted, or the runtime was restarted or shut down before it ended.
    Interrupted {
        /// What is left of the namespace.
        restored: Restored,
    },
}

/// A panic that user code did not catch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Panic {
    /// The panic's message.
    pub message: String,
    /// Where it was raised; `None` when it was resumed from elsewhere.
    pub location: Option<Location>,
    /// The user's own frames, innermost first, as far as the optimizer has left them.
    pub frames: Vec<Frame>,
}

/// A function of the user's that a panic went through.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Frame {
    /// Its name: with its path, as in `ctx::f`, or without if it was inlined.
    pub function: String,
    /// Where in it the call or the panic is; `None` without debug information.
    pub location: Option<Location>,
}

/// A place in a source file, as the compiler noted it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Location {
    /// Path as it was given to rustc.
    pub file: String,
    /// Counted from 1.
    pub line: u32,
    /// Counted from 1, in characters.
    pub column: u32,
}

/// What a process died of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// A signal that its owner had not asked for: number and name.
    Signal(i32, &'static str),
    /// A segmentation fault at the end of a stack.
    StackOverflow,
    /// `std::process::exit` or the like, with this status.
    Exited(i32),
    /// The whole process tree went down, supervisor included.
    SupervisorGone,
}

impl Cause {
    /// From `waitpid`'s status; `overflow`: the process met the end of its stack.
    pub(crate) fn from_status(status: i32, overflow: bool) -> Cause {
        if overflow {
            Cause::StackOverflow
        } else if libc::WIFEXITED(status) {
            Cause::Exited(libc::WEXITSTATUS(status))
        } else {
            let signal = libc::WTERMSIG(status);
            Cause::Signal(signal, signal_name(signal))
        }
    }
}

fn signal_name(signal: i32) -> &'static str {
    match signal {
        libc::SIGABRT => "SIGABRT",
        libc::SIGALRM => "SIGALRM",
        libc::SIGBUS => "SIGBUS",
        libc::SIGFPE => "SIGFPE",
        libc::SIGHUP => "SIGHUP",
        libc::SIGILL => "SIGILL",
        libc::SIGINT => "SIGINT",
        libc::SIGKILL => "SIGKILL",
        libc::SIGPIPE => "SIGPIPE",
        libc::SIGQUIT => "SIGQUIT",
        libc::SIGSEGV => "SIGSEGV",
        libc::SIGSYS => "SIGSYS",
        libc::SIGTERM => "SIGTERM",
        libc::SIGTRAP => "SIGTRAP",
        libc::SIGUSR1 => "SIGUSR1",
        libc::SIGUSR2 => "SIGUSR2",
        libc::SIGVTALRM => "SIGVTALRM",
        libc::SIGXCPU => "SIGXCPU",
        libc::SIGXFSZ => "SIGXFSZ",
        _ => "a signal",
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Cause::Signal(libc::SIGKILL, name) => {
                write!(
                    f,
                    "killed by {name}, most likely by the system for want of memory"
                )
            }
            Cause::Signal(number, name) => write!(f, "killed by {name} (signal {number})"),
            Cause::StackOverflow => write!(f, "stack overflow (SIGSEGV)"),
            Cause::Exited(status) => write!(f, "exited with status {status}"),
            Cause::SupervisorGone => write!(f, "the runtime's supervisor was killed"),
        }
    }
}

/// What is left of a namespace after its process died.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restored {
    /// Whether the variables are as they were before the snippet. Otherwise the namespace is empty.
    pub variables: bool,
    /// How many threads the namespace had before the snippet that are gone now.
    pub threads_lost: usize,
    /// Whether an async cell's tokio runtime had to be forgotten; the next async cell makes another.
    pub tokio_lost: bool,
    /// How many files and connections were closed since, which stay closed.
    pub closed: usize,
    /// Why the variables are lost, when they are.
    pub why_not: Option<WhyNot>,
}

/// Why a namespace could not be restored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WhyNot {
    /// No checkpoint was asked for.
    CheckpointOff,
    /// The namespace was larger than the limit; both in bytes.
    TooLarge {
        /// Resident memory of the worker.
        bytes: u64,
        /// The limit.
        limit: u64,
    },
    /// The system refused to make the copy.
    CheckpointFailed {
        /// The system's words.
        error: String,
    },
    /// The process died between two runs, when there is no copy.
    BetweenRuns,
    /// The copy died as well.
    CopyDied,
    /// The runtime was restarted or shut down.
    Restarted,
}

impl fmt::Display for WhyNot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WhyNot::CheckpointOff => write!(f, "checkpoints are off"),
            WhyNot::TooLarge { bytes, limit } => write!(
                f,
                "the namespace takes {} MB, and the limit for a checkpoint is {} MB",
                bytes / 1_000_000,
                limit / 1_000_000
            ),
            WhyNot::CheckpointFailed { error } => write!(f, "no checkpoint could be made: {error}"),
            WhyNot::BetweenRuns => {
                write!(f, "it died between two cells, when there is no checkpoint")
            }
            WhyNot::CopyDied => write!(f, "the checkpoint's process died as well"),
            WhyNot::Restarted => write!(f, "the runtime was restarted"),
        }
    }
}
