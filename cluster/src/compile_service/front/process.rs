//! A worker's process: this program, in a process group of its own that ends as a whole.

use std::ffi::OsString;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::process::{Child, ChildStderr, ChildStdout, Command};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until, timeout};

use super::core::{Event, WorkerId};
use crate::compile_service::error::last_lines;
use crate::compile_service::frame::{FrameReader, encode, spawn_writer};
use crate::compile_service::message::{WorkerReply, WorkerRequest};

/// How long a worker may take to end by itself once its pipe is closed.
const CLOSE_TIMEOUT: Duration = Duration::from_millis(500);
/// How long its process group may take to end after SIGTERM.
const TERMINATE_TIMEOUT: Duration = Duration::from_secs(1);
/// How long to wait for the last of a dead worker's standard error.
const STDERR_TIMEOUT: Duration = Duration::from_millis(200);
/// How much of its standard error is kept.
const STDERR_KEPT_BYTES: usize = 8192;
const STDERR_LINES: usize = 20;

/// The front's side of a worker's process, which a task watches.
#[derive(Debug)]
pub(super) struct WorkerProcess {
    pid: u32,
    /// `None` once it was told to end.
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    frames: mpsc::UnboundedSender<Vec<u8>>,
    /// Never sent: the task notices that it is dropped.
    _end: oneshot::Sender<()>,
}

impl WorkerProcess {
    pub(super) fn pid(&self) -> u32 {
        self.pid
    }

    pub(super) fn send(&self, request: &WorkerRequest) {
        let Some(open) = &self.open else { return };
        match encode(request) {
            // One that is gone is told of by its task.
            Ok(frame) => drop(open.frames.send(frame)),
            Err(error) => tracing::error!(%error, "a request cannot be passed on"),
        }
    }

    /// Closes the worker's pipe, so that it can end in an orderly way. If it does not, its process group is sent SIGTERM and
    /// then SIGKILL.
    pub(super) fn end(&mut self) {
        self.open = None;
    }
}

/// Starts a worker. [`Event::WorkerEnded`] comes once, also if it could not be started.
pub(super) fn start(
    worker: WorkerId,
    key: &str,
    arguments: &[OsString],
    events: mpsc::UnboundedSender<Event>,
) -> Option<WorkerProcess> {
    let mut child = match spawn(arguments) {
        Ok(child) => child,
        Err(error) => {
            let _ = events.send(Event::WorkerEnded {
                worker,
                status: format!("it cannot be run: {error}"),
                stderr: String::new(),
            });
            return None;
        }
    };
    let (Some(stdin), Some(stdout), Some(stderr), Some(pid)) = (
        child.stdin.take(),
        child.stdout.take(),
        child.stderr.take(),
        child.id(),
    ) else {
        // All were asked for, and it was not waited for.
        return None;
    };
    let (frames, _) = spawn_writer(stdin);
    let (end, ends) = oneshot::channel();
    let process = WorkerProcess {
        pid,
        open: Some(Open { frames, _end: end }),
    };
    process.send(&WorkerRequest::Open {
        key: key.to_owned(),
    });
    let watched = Watched {
        worker,
        pid,
        child,
        replies: FrameReader::new(stdout),
        stderr: Some(stderr),
        said: Vec::new(),
        events,
    };
    tokio::spawn(watched.run(ends));
    Some(process)
}

fn spawn(arguments: &[OsString]) -> std::io::Result<Child> {
    // The same version of the program, even if its file was replaced since.
    let mut command = Command::new("/proc/self/exe");
    if let Ok(program) = std::env::current_exe() {
        command.arg0(program);
    }
    command
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
}

/// The resident memory of a process in bytes; 0 when it has ended. Source: proc_pid_statm(5).
pub(super) fn resident_memory(pid: u32) -> u64 {
    let statm = std::fs::read_to_string(format!("/proc/{pid}/statm")).unwrap_or_default();
    let pages: u64 = statm
        .split_whitespace()
        .nth(1)
        .and_then(|pages| pages.parse().ok())
        .unwrap_or_default();
    // SAFETY: asks for a number.
    let page_size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    pages * u64::try_from(page_size).unwrap_or_default()
}

struct Watched {
    worker: WorkerId,
    pid: u32,
    child: Child,
    replies: FrameReader<ChildStdout>,
    /// `None` once it has ended.
    stderr: Option<ChildStderr>,
    /// The last that came from there.
    said: Vec<u8>,
    events: mpsc::UnboundedSender<Event>,
}

impl Watched {
    async fn run(mut self, mut ends: oneshot::Receiver<()>) {
        // The next signal; `None` while the worker is to live.
        let mut next: Option<(Instant, i32)> = None;
        loop {
            tokio::select! {
                reply = self.replies.next::<WorkerReply>() => match reply {
                    Ok(Some(reply)) => {
                        let _ = self.events.send(Event::FromWorker(self.worker, reply));
                    }
                    Ok(None) => break,
                    Err(error) => {
                        let error = protocol::chain(&error);
                        tracing::warn!(error, "a worker is ended");
                        break;
                    }
                },
                () = read_stderr(&mut self.stderr, &mut self.said) => {}
                _ = &mut ends, if next.is_none() => {
                    next = Some((Instant::now() + CLOSE_TIMEOUT, libc::SIGTERM));
                }
                signal = due(next) => {
                    if signal == libc::SIGKILL {
                        break;
                    }
                    self.signal(signal);
                    next = Some((Instant::now() + TERMINATE_TIMEOUT, libc::SIGKILL));
                }
            }
        }
        // Nobody has waited for the process yet, so the number is still its group's.
        self.signal(libc::SIGKILL);
        let status = match self.child.wait().await {
            Ok(status) => status.to_string(),
            Err(error) => error.to_string(),
        };
        let rest = async {
            while self.stderr.is_some() {
                read_stderr(&mut self.stderr, &mut self.said).await;
            }
        };
        // A process that has left the group may hold it open.
        let _ = timeout(STDERR_TIMEOUT, rest).await;
        let said = String::from_utf8_lossy(&self.said);
        let _ = self.events.send(Event::WorkerEnded {
            worker: self.worker,
            status,
            stderr: last_lines(&said, STDERR_LINES),
        });
    }

    fn signal(&self, signal: i32) {
        if let Ok(group) = libc::pid_t::try_from(self.pid) {
            // SAFETY: signals the group that the worker leads.
            unsafe { libc::kill(-group, signal) };
        }
    }
}

/// Waits until a signal is due.
async fn due(signal: Option<(Instant, i32)>) -> i32 {
    match signal {
        Some((at, signal)) => {
            sleep_until(at).await;
            signal
        }
        None => std::future::pending().await,
    }
}

/// Copies what comes next to the log, and keeps the last of it. Never returns once the stream has ended.
async fn read_stderr(stream: &mut Option<ChildStderr>, said: &mut Vec<u8>) {
    let Some(stderr) = stream else {
        return std::future::pending().await;
    };
    let mut chunk = [0; 4096];
    match stderr.read(&mut chunk).await {
        Ok(0) | Err(_) => *stream = None,
        Ok(read) => {
            use std::io::Write;
            let chunk = chunk.get(..read).unwrap_or_default();
            // The log may be gone, which is no reason to stop.
            let _ = std::io::stderr().write_all(chunk);
            said.extend_from_slice(chunk);
            let excess = said.len().saturating_sub(STDERR_KEPT_BYTES);
            said.drain(..excess);
        }
    }
}
