//! A user's compile service: a front process that hands opaque requests to worker processes.
//!
//! ```text
//! Client ──Unix socket── front ──pipes── worker (one key: toolchain and environment)
//! Client ──────────────┘      └───────── worker ..
//! ```
//!
//! - [`address`]: where a user's service is found.
//! - [`Client`]: sends requests; starts the service when none answers, and again when it was killed.
//! - [`front`]: the service's process. A synchronous core decides, a driver owns the socket and the workers.
//! - [`worker`]: the loop of a worker process.
//!
//! Payloads are JSON that only clients and workers interpret. Frames are a length (four bytes, big-endian) and that many bytes
//! of JSON. All parts belong to one version of one program: the service's id has to differ between versions.

pub mod address;
mod client;
mod error;
mod frame;
pub mod front;
mod link;
mod message;
mod start;
pub mod worker;

use std::ffi::OsString;
use std::path::PathBuf;

use serde_json::Value;

pub use address::Address;
pub use client::{Client, Inquiry, Pending, status, stop};
pub use error::ServiceError;
pub use frame::{FRAME_LIMIT_BYTES, FrameError};
pub use front::DEFAULT_IDLE;
pub use message::{RequestError, Status, WorkerState, WorkerStatus};

/// A compile service, and the command that starts it.
///
/// The program is called with `arguments` followed by `--socket PATH`. It has to call [`front::main`] with that path before it
/// starts a thread.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceConfig {
    /// Names the service: 1 to 64 letters, digits, `-` or `_`. Clients with equal ids share a service.
    pub id: String,
    /// The program, an absolute path: it is started in `/`.
    pub program: PathBuf,
    /// Arguments, before `--socket PATH`.
    pub arguments: Vec<OsString>,
    /// Changes to the client's environment, which the service inherits: a value, or `None` to remove the variable.
    pub environment: Vec<(OsString, Option<OsString>)>,
}

/// Work for a compile worker.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// What the worker must have been opened with: toolchain and environment, in a form that the worker understands.
    pub key: String,
    /// The namespace. The worker that served it last is preferred.
    pub affinity: String,
    /// Whether it may wait for a worker that there is, rather than have another one started.
    pub is_minor: bool,
    /// What the worker's handler is given.
    pub payload: Value,
}
