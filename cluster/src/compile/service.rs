//! `chorus compiler`: takes requests on a socket, has them compiled, and answers.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use protocol::{Header, Message, RawJson, Session, SocketId, SocketType, SocketsBuilder};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::{Compiler, Diagnostic, DirectCompiler, Ended, Job, Queue, Request, RunId, Trouble};
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

/// Runs the cluster's compiler until it is told to end; for a `main`. `open` makes the compiler, as [`DirectCompiler::new`] says; requests wait meanwhile.
///
/// # Errors
/// When the socket cannot be opened.
pub fn main(
    arguments: Arguments,
    open: impl Fn() -> Result<Box<dyn Compiler>, String> + Send + Sync + 'static,
) -> Result<(), Error> {
    process::run(arguments.tied, |stop, announce| async move {
        let file = EngineFile::read(&arguments.file)?;
        let ready = || announce.ready(&json!({}));
        serve(&file, DirectCompiler::new(open), ready, stop.wait()).await
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
pub async fn serve(
    file: &EngineFile,
    compiler: DirectCompiler,
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
    let (answers, mut done) = mpsc::unbounded_channel();
    ready();
    let mut queue: Queue<Waiter> = Queue::default();
    let mut runs: HashMap<RunId, JoinHandle<()>> = HashMap::new();
    let mut activity = LatestActivity {
        compiler: compiler.clone(),
        latest: None,
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
                        if let Some(run) = queue.submit(job.clone(), waiter) {
                            let (compiler, answers) = (compiler.clone(), answers.clone());
                            let task = async move {
                                let answer = run_job(&compiler, &job).await;
                                // Nobody reads them at the end.
                                let _ = answers.send((job, run, answer));
                            };
                            runs.insert(run, tokio::spawn(task));
                        }
                    }
                    Asked::Known(id) => {
                        let known = queue.waiting().any(|waiter| waiter.header.msg_id == id);
                        let activity = activity.get().await;
                        answer(json!({"status": "ok", "msg_id": id, "known": known, "activity": activity}));
                    }
                    Asked::Cancel(id) => {
                        for run in queue.withdraw(|waiter| waiter.header.msg_id == id) {
                            if let Some(task) = runs.remove(&run) {
                                task.abort();
                            }
                        }
                    }
                    Asked::Unknown => answer(failed(&[Diagnostic::plain(format!(
                        "the compiler does not know {}",
                        request.msg_type()
                    ))])),
                }
            }
            answered = done.recv() => {
                let Some((job, run, content)) = answered else { break };
                runs.remove(&run);
                for waiter in queue.done(&job, run) {
                    let reply = reply(&session, &waiter.identities, &waiter.header, &content);
                    sockets.send(REQUESTS, session.encode(&reply));
                }
            }
            () = &mut stop => break,
        }
    }
    runs.values().for_each(JoinHandle::abort);
    sockets.close().await;
    Ok(())
}

/// What the compiler is doing, looked at once for all who ask at the same time.
struct LatestActivity {
    compiler: DirectCompiler,
    latest: Option<(Instant, Option<String>)>,
}

impl LatestActivity {
    async fn get(&mut self) -> Option<String> {
        if let Some((at, activity)) = &self.latest
            && at.elapsed() < LOOK_INTERVAL
        {
            return activity.clone();
        }
        let activity = self.compiler.activity().await;
        self.latest = Some((Instant::now(), activity.clone()));
        activity
    }
}

enum Asked {
    Job(Job),
    Known(String),
    Cancel(String),
    Unknown,
}

fn understand(request: &Message) -> Asked {
    let id = || {
        let content: Value = request.parse().unwrap_or_default();
        content["msg_id"].as_str().unwrap_or_default().to_owned()
    };
    let job = match request.msg_type() {
        "libraries_request" => Some(Job::Libraries),
        "compile_request" => request.parse::<Request>().ok().map(Job::Compile),
        "aftermath_request" => request.parse::<Ended>().ok().map(Job::Aftermath),
        "known_request" => return Asked::Known(id()),
        "cancel_request" => return Asked::Cancel(id()),
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

fn failed(diagnostics: &[Diagnostic]) -> Value {
    json!({"status": "error", "diagnostics": diagnostics})
}

async fn run_job(compiler: &DirectCompiler, job: &Job) -> Value {
    fn reply<T: serde::Serialize>(name: &str, answer: Result<T, Trouble>) -> Value {
        match answer {
            Ok(answer) => json!({"status": "ok", name: answer}),
            Err(Trouble::Diagnostics(diagnostics)) => failed(&diagnostics),
            Err(Trouble::Gone(reason)) => failed(&[Diagnostic::plain(reason)]),
        }
    }
    match job {
        Job::Libraries => reply("libraries", compiler.libraries().await),
        Job::Compile(request) => reply("artifact", compiler.compile(request, drop).await),
        Job::Aftermath(ended) => reply("aftermath", compiler.after_early_end(ended).await),
    }
}
