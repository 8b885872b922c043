//! What clients, the front and workers say to each other. Private to one version of the program, but for the status.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::error::quoted;

/// From a client to the service. Ids are the client's.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum ClientMessage {
    Request {
        id: u64,
        key: String,
        affinity: String,
        is_minor: bool,
        payload: Box<RawValue>,
    },
    /// The client no longer wants the answer. There is none.
    Cancel {
        id: u64,
    },
    /// Asks what is being done for a request.
    Activity {
        id: u64,
    },
    /// Asks for a [`ServiceMessage::Pong`].
    Ping,
    Status,
    /// The service ends; the connection closes when it has.
    Stop,
}

/// From the service to a client.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum ServiceMessage {
    /// The first message: the connection was accepted. The system connects clients to a listener without its process, which may
    /// be about to end.
    Welcome,
    Reply {
        id: u64,
        result: Result<Box<RawValue>, RequestError>,
    },
    Activity {
        id: u64,
        activity: Option<String>,
    },
    Pong,
    Status(Status),
}

/// From the front to a worker. Ids are the front's.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum WorkerRequest {
    /// The first message.
    Open {
        key: String,
    },
    Request {
        id: u64,
        payload: Box<RawValue>,
    },
    /// Nobody wants the answer. The worker has to give one all the same, since that makes it free.
    Cancel {
        id: u64,
    },
    Activity {
        id: u64,
    },
}

/// From a worker to the front.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum WorkerReply {
    /// The handler is open.
    Ready,
    Reply {
        id: u64,
        result: Result<Box<RawValue>, String>,
        /// See [`super::worker::Handler::has_moved`].
        has_moved: bool,
    },
    Activity {
        id: u64,
        activity: Option<String>,
    },
}

/// Why the service could not answer a request.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum RequestError {
    /// Two workers died of it, one after the other.
    #[error(
        "the compile worker died of this twice ({status}); write the cell another way, or see the log that `chorus compiler status` names{}",
        quoted(.stderr)
    )]
    WorkerDied {
        /// How the second worker ended, such as `signal: 9 (SIGKILL)`.
        status: String,
        /// The last lines of its standard error.
        stderr: String,
    },
    /// Workers die before they are ready.
    #[error(
        "the compile worker did not start, {attempts} times in a row ({status}); see the log that `chorus compiler status` names{}",
        quoted(.stderr)
    )]
    WorkerStart {
        /// The number of workers that were started.
        attempts: u32,
        /// How the last worker ended.
        status: String,
        /// The last lines of its standard error.
        stderr: String,
    },
    /// A worker could not give its answer.
    #[error("the compile worker could not answer: {reason}")]
    Worker {
        /// Why.
        reason: String,
    },
    /// The service was told to end.
    #[error("the compile service was stopped during this request; run the cell again")]
    Stopped,
}

/// A running service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// The service's process.
    pub pid: u32,
    /// When it started.
    pub started: jiff::Timestamp,
    /// Open connections, the one that asks included.
    pub connections: usize,
    /// Requests that wait for a worker.
    pub queued: usize,
    /// The workers, oldest first.
    pub workers: Vec<WorkerStatus>,
}

/// A worker of a running service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WorkerStatus {
    /// Its process; `None` when it could not be started.
    pub pid: Option<u32>,
    /// The namespace that it served last.
    pub affinity: Option<String>,
    /// What it does.
    pub state: WorkerState,
    /// How long it has been in that state, in seconds.
    pub state_seconds: f64,
    /// Resident memory of the process, in bytes.
    pub memory: u64,
    /// Requests that it has answered.
    pub served: u64,
}

/// What a worker does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WorkerState {
    /// It is not ready yet.
    Starting,
    /// It waits for a request.
    Idle,
    /// It handles a request.
    Busy,
    /// It was told to end.
    Ending,
}
