//! The loop of a worker process: requests from standard input, replies to standard output.

use std::collections::HashMap;
use std::fmt;
use std::fs::File;
use std::io::{self, BufReader, Write};
use std::os::fd::FromRawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::Value;
use serde_json::value::RawValue;

use super::ServiceError;
use super::frame::{encode, read_blocking};
use super::message::{WorkerReply, WorkerRequest};

/// How long a request may go on when the front is gone, before the process group is killed.
const ORPHAN_TIMEOUT: Duration = Duration::from_secs(2);

/// Says what a worker is doing, in a few words for people. Called by another thread than the handler's, also while that handles
/// a request.
pub type Activity = Arc<dyn Fn() -> Option<String> + Send + Sync>;

/// What a worker does with requests. All calls come from the thread that called [`serve`].
pub trait Handler {
    /// Handles a request. A panic ends the process; the front then repeats the request once on another worker.
    fn handle(&mut self, payload: Value, cancel: &Cancel) -> Value;

    /// Whether the last request needed another state than the one before it, which took its time. Namespaces that take turns so are given workers of
    /// their own.
    fn has_moved(&self) -> bool {
        false
    }

    /// Says what is being done while a request is handled. Asked for once, before the first request.
    fn activity(&self) -> Activity {
        Arc::new(|| None)
    }
}

/// Tells a handler that its request was cancelled. It should return soon, with any value. Clones share the state.
#[derive(Clone, Default)]
pub struct Cancel(Arc<Shared>);

#[derive(Default)]
struct Shared {
    is_cancelled: AtomicBool,
    callbacks: Mutex<Callbacks>,
}

#[derive(Default)]
struct Callbacks {
    next: u64,
    waiting: HashMap<u64, Box<dyn FnOnce() + Send>>,
}

impl Cancel {
    /// Whether the request was cancelled.
    pub fn is_cancelled(&self) -> bool {
        self.0.is_cancelled.load(Ordering::SeqCst)
    }

    /// Calls `callback` when the request is cancelled, from another thread, or here and now if it was before. Dropping the guard
    /// removes the callback, and waits for one that runs. A callback must not use the guard or call `on_cancel`.
    pub fn on_cancel(&self, callback: impl FnOnce() + Send + 'static) -> OnCancel {
        let mut callbacks = lock(&self.0.callbacks);
        let id = callbacks.next;
        callbacks.next += 1;
        if self.is_cancelled() {
            callback();
        } else {
            callbacks.waiting.insert(id, Box::new(callback));
        }
        drop(callbacks);
        OnCancel {
            cancel: self.clone(),
            id,
        }
    }

    pub(crate) fn cancel(&self) {
        let mut callbacks = lock(&self.0.callbacks);
        self.0.is_cancelled.store(true, Ordering::SeqCst);
        // Under the lock, so that a guard's end means that its callback does nothing more.
        for (_, callback) in callbacks.waiting.drain() {
            callback();
        }
    }
}

impl fmt::Debug for Cancel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cancel")
            .field("is_cancelled", &self.is_cancelled())
            .finish_non_exhaustive()
    }
}

/// Keeps a callback of [`Cancel::on_cancel`].
#[derive(Debug)]
#[must_use = "dropping it removes the callback"]
pub struct OnCancel {
    cancel: Cancel,
    id: u64,
}

impl Drop for OnCancel {
    fn drop(&mut self) {
        lock(&self.cancel.0.callbacks).waiting.remove(&self.id);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs a worker until the front closes its pipe; for a `main`. `open` is given the key and makes the handler, before this process has a second
/// thread: it may change the environment. It should not take long.
///
/// From the call on, standard input is empty, and standard output goes to standard error, which is the service's log. When the
/// front is gone, the request that runs is cancelled; two seconds later the process group is killed.
///
/// # Errors
/// When the process was not started by a front, or `open` fails.
pub fn serve<H: Handler>(open: impl FnOnce(&str) -> Result<H, String>) -> Result<(), ServiceError> {
    let (input, output) = take_pipes().map_err(ServiceError::io("take over", "/dev/stdin"))?;
    let mut input = BufReader::new(input);
    let key = match read_blocking(&mut input)? {
        Some(WorkerRequest::Open { key }) => key,
        _ => {
            return Err(ServiceError::Open {
                reason: "it was not started by a compile service".to_owned(),
            });
        }
    };
    let mut handler = open(&key).map_err(|reason| ServiceError::Open { reason })?;
    let shared = Arc::new(WorkerState {
        output: Mutex::new(output),
        running: Mutex::default(),
        activity: handler.activity(),
    });
    let (jobs, to_do) = mpsc::channel();
    // Dropped when everything has ended, the handler too.
    let (working, ended) = mpsc::channel::<()>();
    let reader = Arc::clone(&shared);
    std::thread::Builder::new()
        .name("worker-requests".to_owned())
        .spawn(move || {
            reader.read(&mut input, jobs);
            if ended.recv_timeout(ORPHAN_TIMEOUT) == Err(RecvTimeoutError::Timeout) {
                kill_group();
            }
        })
        .map_err(ServiceError::io("start a thread in", "/proc/self"))?;
    shared.write(&WorkerReply::Ready);
    for job in to_do {
        let result = match serde_json::from_str(job.payload.get()) {
            Ok(payload) => {
                let answer = handler.handle(payload, &job.cancel);
                serde_json::value::to_raw_value(&answer).map_err(|error| error.to_string())
            }
            Err(error) => Err(error.to_string()),
        };
        lock(&shared.running).remove(&job.id);
        shared.write(&WorkerReply::Reply {
            id: job.id,
            result,
            has_moved: handler.has_moved(),
        });
    }
    drop(handler);
    drop(working);
    Ok(())
}

/// Kills this process and what it has started, if it leads its process group.
fn kill_group() {
    // SAFETY: takes and gives numbers.
    unsafe {
        if libc::getpgrp() == libc::getpid() {
            libc::kill(0, libc::SIGKILL);
        }
    }
    std::process::exit(1);
}

struct Job {
    id: u64,
    payload: Box<RawValue>,
    cancel: Cancel,
}

struct WorkerState {
    output: Mutex<File>,
    /// Requests that were read and are not answered.
    running: Mutex<HashMap<u64, Cancel>>,
    activity: Activity,
}

impl WorkerState {
    /// Reads until the pipe is closed or makes no sense; cancels what runs then.
    fn read(&self, input: &mut impl io::Read, jobs: mpsc::Sender<Job>) {
        loop {
            match read_blocking(input) {
                Ok(Some(WorkerRequest::Request { id, payload })) => {
                    let cancel = Cancel::default();
                    lock(&self.running).insert(id, cancel.clone());
                    let job = Job {
                        id,
                        payload,
                        cancel,
                    };
                    if jobs.send(job).is_err() {
                        return;
                    }
                }
                Ok(Some(WorkerRequest::Cancel { id })) => {
                    let cancel = lock(&self.running).get(&id).cloned();
                    if let Some(cancel) = cancel {
                        cancel.cancel();
                    }
                }
                Ok(Some(WorkerRequest::Activity { id })) => {
                    let activity = (self.activity)();
                    self.write(&WorkerReply::Activity { id, activity });
                }
                Ok(Some(WorkerRequest::Open { .. })) => {}
                Ok(None) => break,
                Err(error) => {
                    let error = protocol::chain(&error);
                    tracing::warn!(error, "the front's requests cannot be read");
                    break;
                }
            }
        }
        let running: Vec<Cancel> = lock(&self.running).values().cloned().collect();
        running.iter().for_each(Cancel::cancel);
    }

    fn write(&self, reply: &WorkerReply) {
        let frame = encode(reply).or_else(|error| match reply {
            WorkerReply::Reply { id, .. } => encode(&WorkerReply::Reply {
                id: *id,
                result: Err(error.to_string()),
                has_moved: false,
            }),
            _ => Err(error),
        });
        match frame {
            // A front that is gone has closed the other pipe too.
            Ok(frame) => drop(lock(&self.output).write_all(&frame)),
            Err(error) => tracing::error!(%error, "a reply cannot be sent"),
        }
    }
}

/// Keeps standard input and output for the front alone: what the handler prints, and the programs that it starts, have others.
fn take_pipes() -> io::Result<(File, File)> {
    let take = |fd: i32| {
        // SAFETY: gives a new descriptor, or an error.
        let taken = unsafe { libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, 3) };
        if taken == -1 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: nothing else owns the descriptor.
        Ok(unsafe { File::from_raw_fd(taken) })
    };
    let (input, output) = (take(0)?, take(1)?);
    let null = File::open("/dev/null")?;
    // SAFETY: the descriptors are open.
    let replaced = unsafe {
        use std::os::fd::AsRawFd;
        libc::dup2(null.as_raw_fd(), 0) != -1 && libc::dup2(2, 1) != -1
    };
    match replaced {
        true => Ok((input, output)),
        false => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU32;

    use super::*;

    #[test]
    fn a_cancelled_request_calls_back_once() {
        let calls = Arc::new(AtomicU32::new(0));
        let count = || {
            let calls = Arc::clone(&calls);
            move || {
                calls.fetch_add(1, Ordering::SeqCst);
            }
        };
        let cancel = Cancel::default();
        let kept = cancel.on_cancel(count());
        drop(cancel.on_cancel(count()));
        assert!(!cancel.is_cancelled());
        cancel.cancel();
        cancel.cancel();
        assert!(cancel.is_cancelled());
        assert_eq!(calls.load(Ordering::SeqCst), 1, "one guard was dropped");
        let late = cancel.on_cancel(count());
        assert_eq!(calls.load(Ordering::SeqCst), 2);
        drop((kept, late));
    }
}
