//! The service's process: accepts clients, queues their requests, and has worker processes handle them.
//!
//! `core` decides, without sockets and clocks. `driver` owns the listener and the connections, `process` the workers.

mod core;
mod driver;
mod process;

use std::ffi::OsString;
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::net::UnixListener;

use self::core::Limits;
use super::ServiceError;

/// Workers at a time, unless told otherwise.
pub const DEFAULT_MAX_WORKERS: usize = 3;
/// How long the service stays without connections, unless told otherwise.
pub const DEFAULT_IDLE: Duration = Duration::from_secs(600);
/// A worker needs hundreds of megabytes, so one more is for long builds, not for two notebooks that compile at the same moment.
const START_DELAY: Duration = Duration::from_secs(3);
const ABANDON_DELAY: Duration = Duration::from_millis(300);
const CANCEL_TIMEOUT: Duration = Duration::from_secs(10);
const WORKER_IDLE: Duration = Duration::from_secs(60);

/// What the service is told on its command line.
#[derive(Clone, Debug)]
pub struct Arguments {
    /// The socket to listen on, from `--socket`.
    pub socket: PathBuf,
    /// The arguments with which this program is a worker, so that it calls [`super::worker::serve`].
    pub worker: Vec<OsString>,
    /// The most workers at a time, at least 1.
    pub max_workers: usize,
    /// How long the service stays without connections.
    pub idle: Duration,
}

impl Arguments {
    /// A service with the default limits.
    pub fn new(socket: PathBuf, worker: Vec<OsString>) -> Self {
        Self {
            socket,
            worker,
            max_workers: DEFAULT_MAX_WORKERS,
            idle: DEFAULT_IDLE,
        }
    }
}

/// Runs the service until it is stopped or idle; for a `main` that has started no thread. Detaches from the calling process:
/// the function returns in a child process, the one that was started exits with status 0.
///
/// The first line on standard output says that the service listens (`{"ready": {"pid": ..}}`) or why it does not
/// (`{"error": ".."}`). What follows goes to standard error.
///
/// # Errors
/// When the process cannot be detached, or the socket cannot be opened.
pub fn main(arguments: Arguments) -> Result<(), ServiceError> {
    let outcome = detach().and_then(|()| serve(arguments));
    if let Err(error) = &outcome {
        print_line(&json!({"error": error.chain()}));
    }
    outcome
}

fn serve(arguments: Arguments) -> Result<(), ServiceError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(ServiceError::io("start a runtime in", "/"))?;
    runtime.block_on(async {
        let listener = bind(&arguments.socket)?;
        print_line(&json!({"ready": {"pid": std::process::id()}}));
        redirect_stdout().map_err(ServiceError::io("redirect", "/dev/stdout"))?;
        let limits = Limits {
            max_workers: arguments.max_workers,
            start_delay: START_DELAY,
            abandon_delay: ABANDON_DELAY,
            cancel_timeout: CANCEL_TIMEOUT,
            worker_idle: WORKER_IDLE,
            idle: arguments.idle,
        };
        driver::run(listener, &arguments, limits).await
    })
}

/// Continues in a child process that leads a session, and exits. The service is then no descendant of the client that started
/// it, which may end all its descendants.
fn detach() -> Result<(), ServiceError> {
    // SAFETY: the process has one thread, so the child finds no lock held by another.
    let child = unsafe { libc::fork() };
    match child {
        -1 => {
            let error = io::Error::last_os_error();
            return Err(ServiceError::io("detach from", "/")(error));
        }
        0 => {}
        // SAFETY: ends the process without running what its child will run at its own end.
        _ => unsafe { libc::_exit(0) },
    }
    // SAFETY: takes nothing and gives a number. The child leads no process group yet, so it does not fail.
    unsafe { libc::setsid() };
    Ok(())
}

fn bind(socket: &Path) -> Result<UnixListener, ServiceError> {
    // The folder is the user's alone, so nobody connects before the mode is set.
    let listener =
        UnixListener::bind(socket).map_err(ServiceError::io("listen on the socket", socket))?;
    std::fs::set_permissions(socket, std::fs::Permissions::from_mode(0o600))
        .map_err(ServiceError::io("protect the socket", socket))?;
    Ok(listener)
}

/// Prints a line for the client that started this process. That it no longer reads is no error.
fn print_line(line: &Value) {
    let mut out = io::stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

/// Sends standard output where standard error goes.
fn redirect_stdout() -> io::Result<()> {
    // SAFETY: both descriptors are open and stay so.
    match unsafe { libc::dup2(2, 1) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}
