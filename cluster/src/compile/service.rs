//! `chorus compiler`: takes requests on a socket, has a thread of its own compile them one after another, and answers.

use std::path::PathBuf;
use std::sync::mpsc as blocking;
use std::time::{Duration, Instant};

use protocol::{Header, Message, RawJson, Session, SocketId, SocketType, SocketsBuilder};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::{Compiler, Diagnostic, Ended, Job, Queue, Request};
use crate::connection::EngineFile;
use crate::{Error, process};

const REQUESTS: SocketId = SocketId(0);
/// How often it is looked at what the compiler is doing, at most.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);

/// What `chorus compiler` is told on its command line.
#[derive(Clone, Debug)]
pub struct Arguments {
    /// The engines' connection file; `--file`.
    pub file: PathBuf,
    /// As [`crate::controller::Arguments::tied`].
    pub tied: bool,
}

/// Runs the service until it is told to end; for a `main`. `open` makes the compiler, on the thread that will use it; it may take
/// its time, requests wait meanwhile. `activity` says what it is doing, for those who wait.
///
/// # Errors
/// When the socket cannot be opened.
pub fn main<C: Compiler>(
    arguments: Arguments,
    open: impl FnOnce() -> Result<C, String> + Send + 'static,
    activity: impl Fn() -> Option<String> + Clone + Send + 'static,
) -> Result<(), Error> {
    process::run(arguments.tied, |stop, announce| async move {
        let file = EngineFile::read(&arguments.file)?;
        let ready = || announce.ready(&json!({}));
        serve(&file, open, activity, ready, stop.wait()).await
    })
}

/// Who waits for an answer.
#[derive(Debug)]
struct Waiter {
    identities: Vec<bytes::Bytes>,
    header: Header,
}

/// Serves requests until `stop`. `ready` is called when the socket is open.
///
/// # Errors
/// When the socket cannot be opened, or the file names none.
pub async fn serve<C: Compiler>(
    file: &EngineFile,
    open: impl FnOnce() -> Result<C, String> + Send + 'static,
    activity: impl Fn() -> Option<String> + Clone + Send + 'static,
    ready: impl FnOnce(),
    stop: impl Future<Output = ()>,
) -> Result<(), Error> {
    let Some(port) = file.compile else {
        return Err(Error::Refused {
            reason: "its connection file has no place for a compiler".to_owned(),
        });
    };
    let session = Session::new(&file.common.key);
    let (sockets, mut inbox) = SocketsBuilder::new()
        .bind(REQUESTS, SocketType::ROUTER, file.endpoint(port))
        .start()?;
    let (jobs, to_do) = blocking::channel();
    let (answers, mut done) = mpsc::unbounded_channel();
    std::thread::Builder::new()
        .name("compile".to_owned())
        // Compilers recurse deeply on deeply nested code.
        .stack_size(64 << 20)
        .spawn(move || work(open, &to_do, &answers))
        .map_err(Error::system("start the compiler's thread"))?;
    ready();
    let mut queue: Queue<Waiter> = Queue::default();
    let mut doing = Doing {
        ask: activity,
        last: None,
    };
    let mut stop = std::pin::pin!(stop);
    loop {
        tokio::select! {
            received = inbox.recv() => {
                let Some(received) = received else { break };
                let request = match session.decode(received.frames) {
                    Ok(request) => request,
                    Err(error) => {
                        tracing::warn!(%error, "a message is dropped");
                        continue;
                    }
                };
                let answer = |content: Value| {
                    let reply = reply(&session, &request.identities, &request.header, &content);
                    sockets.send(REQUESTS, session.encode(&reply));
                };
                match understand(&request) {
                    Asked::Job(job) => {
                        let waiter = Waiter {
                            identities: request.identities.clone(),
                            header: request.header.clone(),
                        };
                        // The thread ends with this task only.
                        if queue.submit(job.clone(), waiter) && jobs.send(job).is_err() {
                            tracing::error!("the compiler's thread has ended");
                            break;
                        }
                    }
                    Asked::Known(id) => {
                        let known = queue.waiting().any(|waiter| waiter.header.msg_id == id);
                        let activity = doing.get().await;
                        answer(json!({"status": "ok", "msg_id": id, "known": known, "activity": activity}));
                    }
                    Asked::Unknown => answer(failed(&[complaint(format!(
                        "the compiler does not know {}",
                        request.msg_type()
                    ))])),
                }
            }
            answered = done.recv() => {
                let Some((job, content)) = answered else { break };
                for waiter in queue.done(&job) {
                    let reply = reply(&session, &waiter.identities, &waiter.header, &content);
                    sockets.send(REQUESTS, session.encode(&reply));
                }
            }
            () = &mut stop => break,
        }
    }
    sockets.close().await;
    Ok(())
}

/// What the compiler is doing, looked at once for all who ask at the same time.
struct Doing<F> {
    ask: F,
    last: Option<(Instant, Option<String>)>,
}

impl<F: Fn() -> Option<String> + Clone + Send + 'static> Doing<F> {
    async fn get(&mut self) -> Option<String> {
        if let Some((at, activity)) = &self.last
            && at.elapsed() < LOOK_INTERVAL
        {
            return activity.clone();
        }
        // It may read many small files.
        let activity = tokio::task::spawn_blocking(self.ask.clone()).await;
        let activity = activity.ok().flatten();
        self.last = Some((Instant::now(), activity.clone()));
        activity
    }
}

enum Asked {
    Job(Job),
    Known(String),
    Unknown,
}

fn understand(request: &Message) -> Asked {
    let job = match request.msg_type() {
        "libraries_request" => Some(Job::Libraries),
        "compile_request" => request.parse::<Request>().ok().map(Job::Compile),
        "aftermath_request" => request.parse::<Ended>().ok().map(Job::Aftermath),
        "known_request" => {
            let content: Value = request.parse().unwrap_or_default();
            let id = content["msg_id"].as_str().unwrap_or_default();
            return Asked::Known(id.to_owned());
        }
        _ => None,
    };
    job.map_or(Asked::Unknown, Asked::Job)
}

fn reply(
    session: &Session,
    identities: &[bytes::Bytes],
    parent: &Header,
    content: &Value,
) -> Message {
    let msg_type = parent.msg_type.replace("_request", "_reply");
    // A Value always renders.
    let content = RawJson::from_value(content).unwrap_or_else(|_| RawJson::empty_object());
    session
        .raw_message(msg_type, content, Some(parent))
        .with_identities(identities.to_vec())
}

fn complaint(message: String) -> Diagnostic {
    Diagnostic {
        code: None,
        rendered: format!("error: {message}"),
        message,
    }
}

fn failed(diagnostics: &[Diagnostic]) -> Value {
    json!({"status": "error", "diagnostics": diagnostics})
}

/// The compiler's thread: one job after another, whatever becomes of them.
fn work<C: Compiler>(
    open: impl FnOnce() -> Result<C, String>,
    jobs: &blocking::Receiver<Job>,
    answers: &mpsc::UnboundedSender<(Job, Value)>,
) {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    let mut compiler = open().map_err(|reason| {
        tracing::error!(reason, "failed to open the compiler");
        complaint(format!("the compiler could not be opened: {reason}"))
    });
    for job in jobs {
        let answer = match &mut compiler {
            Err(reason) => failed(std::slice::from_ref(reason)),
            Ok(compiler) => catch_unwind(AssertUnwindSafe(|| answer(compiler, &job)))
                .unwrap_or_else(|_| {
                    failed(&[complaint(
                        "the compiler could not deal with this snippet; try to write it another way".to_owned(),
                    )])
                }),
        };
        if answers.send((job, answer)).is_err() {
            return;
        }
    }
}

fn answer(compiler: &mut impl Compiler, job: &Job) -> Value {
    match job {
        Job::Libraries => match compiler.libraries() {
            Ok(libraries) => json!({"status": "ok", "libraries": libraries}),
            Err(reason) => failed(&[complaint(reason)]),
        },
        Job::Compile(request) => match compiler.compile(request) {
            Ok(artifact) => json!({"status": "ok", "artifact": artifact}),
            Err(diagnostics) => failed(&diagnostics),
        },
        Job::Aftermath(ended) => match compiler.after_early_end(ended) {
            Ok(aftermath) => json!({"status": "ok", "aftermath": aftermath}),
            Err(diagnostics) => failed(&diagnostics),
        },
    }
}
