//! The connection to the carrier: who waits, reads.
//!
//! There is no thread of its own. Whoever sends, writes; of those who wait for something, one reads for all. So a namespace that goes on in a
//! forked copy (where only the forking thread exists) loses nothing but the socket, which is shared with the process it was copied from:
//! the first use in another process connects anew and takes the session up again.

mod session;

pub(crate) use session::{Session, discard};

use crate::codec::Encoded;
use crate::error::Error;
use crate::wire::{self, Answer, Down, Hello, Piece, Question, Stretches, Up, Welcome};
use std::io::{BufReader, Read};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

/// How long a carrier may take to greet; it may have to start a cluster.
const GREETING: Duration = Duration::from_secs(120);
/// How long a carrier may take to answer a question.
const ANSWER: Duration = Duration::from_secs(30);

/// How much is read at once.
const BUFFER: usize = 64 * 1024;

/// Where a connection comes from.
#[derive(Clone, Debug)]
pub(crate) struct Origin {
    /// The carrier's socket, if the connection can be made again.
    pub(crate) path: Option<PathBuf>,
    pub(crate) profile: Option<String>,
    pub(crate) cluster_id: Option<String>,
}

/// A connection that everyone who works with one client shares.
pub(crate) struct Link {
    origin: Origin,
    /// The process that made the connection.
    process: AtomicU32,
    socket: RwLock<Arc<Socket>>,
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    session: Session,
    /// Whether somebody is reading.
    reading: bool,
}

struct Socket {
    stream: Arc<UnixStream>,
    writing: Mutex<()>,
    reader: Mutex<BufReader<Stream>>,
}

struct Stream(Arc<UnixStream>);

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        (&*self.0).read(buffer)
    }
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link")
            .field("origin", &self.origin)
            .finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What came when somebody read.
enum Received {
    Frame(Down),
    Nothing,
    Ended(String),
}

impl Socket {
    fn new(stream: UnixStream) -> Socket {
        let stream = Arc::new(stream);
        Socket {
            reader: Mutex::new(BufReader::with_capacity(
                BUFFER,
                Stream(Arc::clone(&stream)),
            )),
            stream,
            writing: Mutex::new(()),
        }
    }

    fn send(&self, up: &Up) -> std::io::Result<()> {
        let _turn = lock(&self.writing);
        wire::write(&*self.stream, up)
    }

    /// The next frame, if it begins within the time; without, waits for ever.
    fn receive(&self, within: Option<Duration>) -> Received {
        let mut reader = lock(&self.reader);
        if reader.buffer().is_empty() {
            match readable(&self.stream, within) {
                Ok(true) => {}
                Ok(false) => return Received::Nothing,
                Err(error) => return Received::Ended(format!("waiting failed: {error}")),
            }
        }
        match wire::read(&mut *reader) {
            Ok(Some(down)) => Received::Frame(down),
            Ok(None) => Received::Ended("the other side closed it".to_owned()),
            Err(error) => Received::Ended(format!("reading failed: {error}")),
        }
    }

    fn greet(&self, hello: Hello) -> Result<Welcome, Error> {
        let refused = |reason: String| Error::Connect { reason };
        self.send(&Up::Hello(hello))
            .map_err(|error| refused(format!("the carrier doesn't listen: {error}")))?;
        match self.receive(Some(GREETING)) {
            Received::Frame(Down::Welcome(welcome)) if welcome.version == wire::VERSION => {
                Ok(welcome)
            }
            Received::Frame(Down::Welcome(welcome)) => Err(refused(format!(
                "the carrier speaks version {}, this program {}: restart the kernel, or build both from one version of Chorus",
                welcome.version,
                wire::VERSION
            ))),
            Received::Frame(Down::Refused { reason }) => Err(refused(reason)),
            Received::Frame(_) => Err(refused(
                "the carrier's first words are no greeting".to_owned(),
            )),
            Received::Nothing => Err(refused(format!(
                "the carrier didn't answer within {GREETING:?}"
            ))),
            Received::Ended(reason) => Err(refused(reason)),
        }
    }
}

/// Waits until there is something to read, or the end of the stream.
fn readable(stream: &UnixStream, within: Option<Duration>) -> std::io::Result<bool> {
    let deadline = within.map(|within| Instant::now() + within);
    loop {
        let milliseconds = deadline.map_or(-1, |deadline| {
            let left = deadline.saturating_duration_since(Instant::now());
            // Rounded up: waking too early would be one more turn.
            i32::try_from(left.as_micros().div_ceil(1000)).unwrap_or(i32::MAX)
        });
        let mut wanted = libc::pollfd {
            fd: stream.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        };
        // SAFETY: one structure, and the number of them is one.
        match unsafe { libc::poll(&raw mut wanted, 1, milliseconds) } {
            0 if milliseconds == i32::MAX => {}
            0 => return Ok(false),
            1.. => return Ok(true),
            _ => {
                let error = std::io::Error::last_os_error();
                if error.kind() != std::io::ErrorKind::Interrupted {
                    return Err(error);
                }
            }
        }
    }
}

impl Link {
    /// Greets the carrier at the other end of the stream.
    pub(crate) fn open(stream: UnixStream, origin: Origin) -> Result<Link, Error> {
        let socket = Socket::new(stream);
        let welcome = socket.greet(Hello {
            version: wire::VERSION,
            profile: origin.profile.clone(),
            cluster_id: origin.cluster_id.clone(),
            resume: None,
        })?;
        Ok(Link {
            origin,
            process: AtomicU32::new(std::process::id()),
            socket: RwLock::new(Arc::new(socket)),
            state: Mutex::new(State {
                session: Session::new(welcome),
                reading: false,
            }),
            changed: Condvar::new(),
        })
    }

    /// The socket of this process.
    fn socket(&self) -> Result<Arc<Socket>, Error> {
        let here = std::process::id();
        if self.process.load(Ordering::SeqCst) != here {
            self.resume(here)?;
        }
        let socket = self.socket.read().unwrap_or_else(PoisonError::into_inner);
        Ok(Arc::clone(&socket))
    }

    /// Connects a copied process.
    fn resume(&self, here: u32) -> Result<(), Error> {
        let lost = |reason: &str| Error::Lost {
            reason: reason.to_owned(),
        };
        // A lock that a thread of the other process held at the fork will never be free here.
        let busy = || lost("another thread was using it when the namespace was copied");
        let mut state = self.state.try_lock().map_err(|_| busy())?;
        let mut current = self.socket.try_write().map_err(|_| busy())?;
        if self.process.load(Ordering::SeqCst) == here {
            return Ok(());
        }
        state.reading = false;
        if state.session.lost.is_some() {
            return Ok(());
        }
        let again = || -> Result<(Socket, Welcome), Error> {
            let path = self
                .origin
                .path
                .as_ref()
                .ok_or_else(|| lost("it belongs to a process that is gone"))?;
            let stream = UnixStream::connect(path)
                .map_err(|error| lost(&format!("the carrier is gone: {error}")))?;
            let socket = Socket::new(stream);
            let welcome = socket.greet(Hello {
                version: wire::VERSION,
                profile: self.origin.profile.clone(),
                cluster_id: self.origin.cluster_id.clone(),
                resume: Some(state.session.resume()),
            })?;
            Ok((socket, welcome))
        };
        match again() {
            Ok((socket, welcome)) => {
                *current = Arc::new(socket);
                state.session.resumed(welcome);
            }
            Err(error) => state.session.lose(&error.to_string()),
        }
        self.process.store(here, Ordering::SeqCst);
        Ok(())
    }

    /// Looks at or changes what is known, without waiting.
    pub(crate) fn with<T>(&self, look: impl FnOnce(&mut Session) -> T) -> Result<T, Error> {
        self.socket()?;
        Ok(look(&mut lock(&self.state).session))
    }

    /// A value's bytes, for a frame to be sent.
    pub(crate) fn piece(&self, value: Encoded<'_>) -> Result<Piece, Error> {
        let spare = self.with(|session| session.spare.clone())?;
        Ok(Piece::with_spare(value, spare.as_deref()))
    }

    /// A file for about so many bytes, if there can be one.
    pub(crate) fn stretches(
        &self,
        about: u64,
    ) -> Result<std::io::Result<(Stretches, Piece)>, Error> {
        let spare = self.with(|session| session.spare.clone())?;
        Ok(Stretches::new(about, spare.as_deref()))
    }

    /// Sends a frame; if that fails, the connection is lost for all.
    pub(crate) fn send(&self, up: &Up) -> Result<(), Error> {
        let socket = self.socket()?;
        if let Some(reason) = &lock(&self.state).session.lost {
            return Err(Error::Lost {
                reason: reason.clone(),
            });
        }
        socket.send(up).map_err(|error| {
            if error.kind() == std::io::ErrorKind::InvalidInput {
                return Error::Refused {
                    reason: error.to_string(),
                };
            }
            let reason = format!("writing failed: {error}");
            self.lose(&reason);
            Error::Lost { reason }
        })
    }

    fn lose(&self, reason: &str) {
        lock(&self.state).session.lose(reason);
        self.changed.notify_all();
    }

    /// Waits until `check` gives something: nothing when the time is over or the connection lost. Without a deadline it waits as long as
    /// there is a connection; with one that is past, it looks at what has arrived.
    pub(crate) fn wait<T>(
        &self,
        deadline: Option<Instant>,
        mut check: impl FnMut(&mut Session) -> Option<T>,
    ) -> Result<Option<T>, Error> {
        let socket = self.socket()?;
        let mut state = lock(&self.state);
        loop {
            if let Some(value) = check(&mut state.session) {
                return Ok(Some(value));
            }
            if state.session.lost.is_some() {
                return Ok(None);
            }
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if state.reading {
                state = match left {
                    Some(Duration::ZERO) => return Ok(None),
                    Some(left) => {
                        let waited = self.changed.wait_timeout(state, left);
                        waited.unwrap_or_else(PoisonError::into_inner).0
                    }
                    None => self
                        .changed
                        .wait(state)
                        .unwrap_or_else(PoisonError::into_inner),
                };
                continue;
            }
            state.reading = true;
            drop(state);
            let received = socket.receive(left);
            state = lock(&self.state);
            state.reading = false;
            let nothing = matches!(received, Received::Nothing);
            match received {
                Received::Frame(down) => state.session.heard(down),
                Received::Nothing => {}
                Received::Ended(reason) => state.session.lose(&reason),
            }
            // Whoever waits besides may have got what it waits for, or has to read in our place.
            self.changed.notify_all();
            if nothing && deadline.is_some_and(|deadline| deadline <= Instant::now()) {
                return Ok(check(&mut state.session));
            }
        }
    }

    /// Takes what has arrived, without waiting.
    pub(crate) fn poll(&self) -> Result<(), Error> {
        self.wait(Some(Instant::now()), |_| None::<()>).map(drop)
    }

    /// The engines there are now.
    pub(crate) fn engines(&self) -> Result<Vec<u32>, Error> {
        self.poll()?;
        self.with(|session| match &session.lost {
            Some(reason) => Err(Error::Lost {
                reason: reason.clone(),
            }),
            None => Ok(session.engines.clone()),
        })?
    }

    /// Asks the carrier.
    pub(crate) fn ask(&self, question: Question) -> Result<Answer, Error> {
        let id = self.with(Session::ask)?;
        self.send(&Up::Ask { id, question })?;
        let deadline = Instant::now() + ANSWER;
        let answer = self.wait(Some(deadline), |session| session.answer(id))?;
        match answer {
            Some(Answer::Refused { reason }) => Err(Error::Refused { reason }),
            Some(answer) => Ok(answer),
            None => Err(self.with(|session| {
                session.forget(id);
                match &session.lost {
                    Some(reason) => Error::Lost {
                        reason: reason.clone(),
                    },
                    None => Error::Refused {
                        reason: format!("no answer within {ANSWER:?}"),
                    },
                }
            })?),
        }
    }
}
