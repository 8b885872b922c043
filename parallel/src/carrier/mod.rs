//! The carrier: speaks to clusters on behalf of programs. What a program and its carrier say to each other is [`wire`](crate::wire).
//!
//! A [`Carrier`] belongs to a [`Host`], which knows where clusters are, what is at a line of the program's source, and where output is
//! shown: the notebook's kernel, or the thread of a stand-alone program at whose other end is a `UnixStream::pair`. Each connection
//! that is given to [`Carrier::serve`] is one client.
//!
//! | file | owns |
//! |---|---|
//! | `books` | a session's tasks, shared values and files; no socket, no clock |
//! | `kept` | outcomes that a copy of the program may ask for again |
//! | `texts` | the JSON of requests |
//! | `pipe` | frames on the program's stream |
//! | `session` | the task of one session, with all I/O around the books |
//! | `answer`, `abort` | what a program asks the cluster |
//! | `sweep` | files that nobody needs any more |

mod abort;
mod answer;
mod books;
mod kept;
mod pipe;
mod session;
mod sweep;
mod texts;

use crate::controller::{Connection, Output};
use crate::wire::{Down, Hello, Place, Up, VERSION};
use pipe::Pipe;
use session::{Order, Session};
use std::collections::HashMap;
use std::fmt;
use std::io;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

/// How long a program may take for its first frame.
const GREETING: Duration = Duration::from_secs(30);

/// A cluster that was found.
#[derive(Clone, Debug)]
pub struct Found {
    /// The connection to it.
    pub connection: Connection,
    /// What people call it.
    pub name: String,
}

/// Whom a carrier belongs to.
pub trait Host: Send + Sync + 'static {
    /// Finds a cluster, or starts one where that is called for: the one of this profile and id, or without them the host's own choice.
    /// The error is a sentence that says what to do.
    fn find(
        &self,
        profile: Option<&str>,
        cluster_id: Option<&str>,
    ) -> impl Future<Output = Result<Found, String>> + Send;

    /// What users know a line of the program's source by; nothing if it is in no cell.
    fn locate(&self, file: &str, line: u32) -> impl Future<Output = Option<Place>> + Send;

    /// Shows something that a task shows on an engine, if there is a place for it. The program is told text all the same.
    fn show(&self, engine: u32, output: &Output);
}

/// A carrier. Clones are handles to the same one.
pub struct Carrier<H>(Arc<Inner<H>>);

impl<H> Clone for Carrier<H> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

struct Inner<H> {
    host: H,
    sessions: Mutex<Sessions>,
    sweeper: sweep::Sweeper,
}

#[derive(Default)]
struct Sessions {
    open: HashMap<String, mpsc::UnboundedSender<Order>>,
    /// The program's present cell, by number; numbers between cells belong to none.
    epoch: u64,
    /// A cell is running.
    running: bool,
    /// No further session may begin.
    closed: bool,
}

impl Sessions {
    fn order(&self, order: impl Fn() -> Order) {
        for session in self.open.values() {
            // One that has ended has nothing to do.
            let _ = session.send(order());
        }
    }
}

impl<H> fmt::Debug for Carrier<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Carrier")
            .field("sessions", &self.0.sessions().open.len())
            .finish_non_exhaustive()
    }
}

impl<H> Inner<H> {
    fn sessions(&self) -> MutexGuard<'_, Sessions> {
        // Nothing that holds the lock can leave the table half changed.
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<H: Host> Carrier<H> {
    /// A carrier without clients. Removes what carriers and programs of the past left in memory. `spare`: whether it keeps a file for a while
    /// that can be written over; to be removed by [`Self::shutdown`] then.
    pub fn new(host: H, spare: bool) -> Self {
        let sweeper = sweep::Sweeper::start(spare);
        sweeper.sweep();
        Self(Arc::new(Inner {
            host,
            sessions: Mutex::default(),
            sweeper,
        }))
    }

    /// The host.
    pub fn host(&self) -> &H {
        &self.0.host
    }

    /// Serves a client until it is gone and all that it began has ended. Must be called within a tokio runtime.
    pub async fn serve(&self, stream: UnixStream) {
        let mut pipe = match Pipe::new(stream) {
            Ok(pipe) => pipe,
            Err(error) => return tracing::warn!(%error, "failed to watch a program's stream"),
        };
        let hello = match tokio::time::timeout(GREETING, greeting(&mut pipe)).await {
            Ok(Ok(Some(hello))) => hello,
            Ok(Ok(None)) | Err(_) => return,
            Ok(Err(error)) => {
                return tracing::warn!(%error, "a program's first words can't be understood");
            }
        };
        if hello.version != VERSION {
            let reason = format!(
                "the program speaks version {}, its carrier {VERSION}: restart the kernel, or build both from one version of Chorus",
                hello.version
            );
            return refuse(pipe, reason).await;
        }
        let resumed = hello.resume.as_ref().map(|resume| resume.session.as_str());
        let known = resumed.and_then(|session| self.0.sessions().open.get(session).cloned());
        let (mut pipe, hello) = match (known, hello.resume) {
            (Some(session), Some(resume)) => {
                match session.send(Order::Resume(Box::new((pipe, resume)))) {
                    Ok(()) => return,
                    // It ended just now.
                    Err(mpsc::error::SendError(Order::Resume(again))) => {
                        let (pipe, resume) = *again;
                        let hello = Hello {
                            resume: Some(resume),
                            version: hello.version,
                            profile: hello.profile,
                            cluster_id: hello.cluster_id,
                        };
                        (pipe, hello)
                    }
                    Err(_) => return,
                }
            }
            (_, resume) => (pipe, Hello { resume, ..hello }),
        };
        let found = {
            let found = self
                .0
                .host
                .find(hello.profile.as_deref(), hello.cluster_id.as_deref());
            tokio::pin!(found);
            tokio::select! {
                found = &mut found => found,
                // Whoever doesn't wait for a cluster needs none.
                () = gone(&mut pipe) => return,
            }
        };
        let opened = match found {
            Ok(found) => Session::open(Arc::clone(&self.0), found).await,
            Err(reason) => Err(reason),
        };
        match opened {
            Ok(session) => session.run(pipe, hello.resume).await,
            Err(reason) => refuse(pipe, reason).await,
        }
    }

    fn turn(&self, running: bool) {
        let mut sessions = self.0.sessions();
        sessions.epoch += 1;
        sessions.running = running;
        let epoch = sessions.epoch;
        sessions.order(|| Order::Epoch(epoch));
    }

    /// A cell of the program begins: what is submitted from now on is its.
    pub fn begin(&self) {
        self.turn(true);
    }

    /// The cell has ended. `settled`: no copy of the program that was made before its end will go on.
    pub fn end(&self, settled: bool) {
        self.turn(false);
        if settled {
            self.0.sessions().order(|| Order::Settle);
        }
    }

    /// The program's present cell is interrupted: what it submitted is taken back where it waits, and interrupted where it runs.
    /// Between cells nothing is.
    pub fn interrupt(&self) {
        let sessions = self.0.sessions();
        if sessions.running {
            sessions.order(|| Order::Interrupt);
        }
    }

    /// Ends all sessions and removes their files. Tasks that wait are aborted.
    pub async fn shutdown(&self) {
        let ended: Vec<oneshot::Receiver<()>> = {
            let mut sessions = self.0.sessions();
            sessions.closed = true;
            let open = sessions.open.values();
            open.map(|session| {
                let (done, ended) = oneshot::channel();
                // Dropped if it has ended.
                let _ = session.send(Order::End(done));
                ended
            })
            .collect()
        };
        for ended in ended {
            let _ = ended.await;
        }
        self.0.sweeper.finish().await;
    }
}

/// A program's first frame.
async fn greeting(pipe: &mut Pipe) -> io::Result<Option<Hello>> {
    loop {
        pipe.ready().await?;
        let open = pipe.read()?;
        match pipe.next()? {
            Some(Up::Hello(hello)) => return Ok(Some(hello)),
            Some(_) => return Err(io::Error::other("it begins without a greeting")),
            None if !open => return Ok(None),
            None => {}
        }
    }
}

/// Resolves when the program closes its end.
async fn gone(pipe: &mut Pipe) {
    loop {
        if pipe.ready().await.is_err() || !pipe.read().unwrap_or(false) {
            return;
        }
    }
}

async fn refuse(mut pipe: Pipe, reason: String) {
    pipe.push(&Down::Refused { reason });
    while pipe.write().is_ok() && !pipe.is_sent() {
        if pipe.ready().await.is_err() || !pipe.read().unwrap_or(false) {
            return;
        }
    }
}
