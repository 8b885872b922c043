//! Why there is no answer from a compile service, each with what to do about it.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use super::frame::FrameError;
use super::message::RequestError;

/// An error of the compile service or of its client. Clones share the cause, since one broken connection fails many requests.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ServiceError {
    /// No folder can hold the service's socket.
    #[error(
        "no folder for the compile service's socket: {}; set XDG_RUNTIME_DIR to a folder of yours that nobody else can access",
        .refused.iter().map(|(path, reason)| format!("{} {reason}", path.display())).collect::<Vec<_>>().join(", ")
    )]
    NoFolder {
        /// The folders in question, each with what is wrong with it.
        refused: Vec<(PathBuf, String)>,
    },
    /// The id cannot be part of a file's name.
    #[error(
        "a compile service cannot have the id {id:?}: use 1 to 64 letters, digits, `-` and `_`"
    )]
    Id {
        /// The id.
        id: String,
    },
    /// A file, socket or process cannot be used.
    #[error("cannot {doing} {}", .path.display())]
    Io {
        /// What was tried, in the infinitive.
        doing: &'static str,
        /// With what.
        path: PathBuf,
        /// The system's error.
        source: Arc<io::Error>,
    },
    /// The service did not start.
    #[error(
        "the compile service {} did not start: {reason}; its log is {}{}", .program.display(), .log.display(), quoted(.last_lines)
    )]
    Start {
        /// The program.
        program: PathBuf,
        /// What happened.
        reason: String,
        /// The service's log.
        log: PathBuf,
        /// The end of the log.
        last_lines: String,
    },
    /// The service's socket belongs to another user.
    #[error("the process behind {} belongs to another user; remove that file", .socket.display())]
    OtherUser {
        /// The socket.
        socket: PathBuf,
    },
    /// The service runs, but accepts no connection.
    #[error(
        "the compile service does not answer; `kill -9 {pid}` ends it, the next cell starts another"
    )]
    NoAnswer {
        /// The service's process.
        pid: i32,
    },
    /// The connection broke twice during a request.
    #[error(
        "the compile service ended twice during this request; `chorus compiler status` shows whether it runs again, its log is {}",
        .log.display()
    )]
    Lost {
        /// The service's log.
        log: PathBuf,
    },
    /// The connection broke before an answer to a question that is not repeated, such as that for the status.
    #[error(
        "the compile service closed the connection without an answer; `chorus compiler status` shows whether it runs"
    )]
    Closed,
    /// The service does not end.
    #[error("the compile service did not end in time; `kill -9 {pid}` ends it")]
    StillRunning {
        /// The service's process.
        pid: u32,
    },
    /// The task that owns the client's connection has ended, with its tokio runtime.
    #[error("the connection to the compile service is closed, since this program is ending")]
    ClientEnded,
    /// The service answered with an error.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// A message cannot be sent or understood.
    #[error(
        "a message of the compile service is unusable; `chorus compiler stop` ends the service, the next cell starts another"
    )]
    Frame(#[source] Arc<FrameError>),
    /// A worker's handler cannot be opened.
    #[error("the compile worker cannot start: {reason}")]
    Open {
        /// Why.
        reason: String,
    },
}

impl ServiceError {
    /// An error of the system, for `map_err`.
    pub(super) fn io(
        doing: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io {
            doing,
            path,
            source: Arc::new(source),
        }
    }

    /// The error and its causes in one line.
    pub fn chain(&self) -> String {
        protocol::chain(self)
    }
}

impl From<FrameError> for ServiceError {
    fn from(error: FrameError) -> Self {
        Self::Frame(Arc::new(error))
    }
}

/// Text for the end of a message: after a line break, or nothing.
pub(super) fn quoted(text: &str) -> String {
    match text.trim_end() {
        "" => String::new(),
        text => format!(", which ends with:\n{text}"),
    }
}

/// The last `count` lines of a text.
pub(super) fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.trim_end().lines().collect();
    let skipped = lines.len().saturating_sub(count);
    lines.get(skipped..).unwrap_or_default().join("\n")
}
