//! The stub: the subprocess that evcxr believes runs the user's code. It runs nothing.
//!
//! evcxr writes `LOAD_AND_RUN <so> <fn>` to its subprocess's stdin and reads control lines until
//! `EVCXR_EXECUTION_COMPLETE`. The stub passes the request over its link to the session, prints the
//! control lines that the session answers with, and then the completion. So evcxr commits its state as
//! if the snippet had run that way, while the snippet itself is left to a runtime.

use std::collections::VecDeque;
use std::io::{self, BufRead, BufReader, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};

/// The descriptor on which the stub finds its link to the session.
const LINK: i32 = 3;

/// What evcxr's subprocess prints when a snippet is over.
const COMPLETE: &str = "EVCXR_EXECUTION_COMPLETE";

/// What happened on the link since it was last looked at.
#[derive(Debug, Default)]
pub(crate) struct Traffic {
    /// The shared objects that evcxr asked its subprocess to load and run.
    pub(crate) loads: Vec<PathBuf>,
    /// Control lines for the next loads, first come first served. A load without one has gone well.
    pub(crate) answers: VecDeque<Vec<String>>,
}

/// The session's end of the link.
#[derive(Clone, Debug)]
pub(crate) struct Link {
    traffic: Arc<Mutex<Traffic>>,
}

impl Link {
    /// Prepares `command` to start a stub, and the thread that answers it.
    pub(crate) fn attach(command: &mut Command) -> io::Result<Link> {
        let (ours, theirs) = UnixStream::pair()?;
        let theirs = OwnedFd::from(theirs);
        // SAFETY: between fork and exec only dup2 is called, which is async-signal-safe.
        unsafe {
            command.pre_exec(move || {
                if libc::dup2(theirs.as_raw_fd(), LINK) < 0 {
                    return Err(io::Error::last_os_error());
                }
                Ok(())
            });
        }
        let link = Link {
            traffic: Arc::default(),
        };
        let served = link.clone();
        std::thread::Builder::new()
            .name("stub link".into())
            .spawn(move || {
                if let Err(error) = served.serve(ours) {
                    tracing::debug!(%error, "the stub's link ended");
                }
            })?;
        Ok(link)
    }

    fn serve(&self, stream: UnixStream) -> io::Result<()> {
        let mut answers = stream.try_clone()?;
        for line in BufReader::new(stream).lines() {
            let line = line?;
            let mut traffic = self.traffic();
            let Some((artifact, _entry)) = line.rsplit_once(' ') else {
                continue;
            };
            traffic.loads.push(artifact.into());
            let lines = traffic.answers.pop_front().unwrap_or_default();
            drop(traffic);
            answers.write_all(format!("{}\n", lines.len()).as_bytes())?;
            for line in lines {
                answers.write_all(format!("{line}\n").as_bytes())?;
            }
        }
        Ok(())
    }

    /// Makes the next loads print these control lines, in order.
    pub(crate) fn answer_with(&self, answers: impl IntoIterator<Item = Vec<String>>) {
        self.traffic().answers = answers.into_iter().collect();
    }

    /// Takes what happened since the last call and forgets unused answers.
    pub(crate) fn take(&self) -> Traffic {
        std::mem::take(&mut *self.traffic())
    }

    fn traffic(&self) -> std::sync::MutexGuard<'_, Traffic> {
        self.traffic.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// `chorus stub`: serves evcxr until its stdin closes.
pub fn main() -> io::Result<()> {
    // SAFETY: the session has put the link there (`Link::attach`), and nothing else owns it.
    let link = unsafe { UnixStream::from_raw_fd(LINK) };
    // SAFETY: sets a flag on a descriptor that is ours, so that no child inherits it.
    unsafe { libc::fcntl(LINK, libc::F_SETFD, libc::FD_CLOEXEC) };
    let mut answers = BufReader::new(link.try_clone()?).lines();
    for line in io::stdin().lock().lines() {
        let line = line?;
        let Some(request) = line.strip_prefix("LOAD_AND_RUN ") else {
            continue;
        };
        (&link).write_all(format!("{request}\n").as_bytes())?;
        let count: usize = match answers.next() {
            Some(count) => count?.parse().map_err(io::Error::other)?,
            None => return Ok(()),
        };
        let mut stdout = io::stdout().lock();
        for _ in 0..count {
            let Some(answer) = answers.next() else {
                return Ok(());
            };
            writeln!(stdout, "{}", answer?)?;
        }
        writeln!(stdout, "{COMPLETE}")?;
        stdout.flush()?;
    }
    Ok(())
}
