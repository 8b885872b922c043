//! The started processes as their owner holds them: sockets, pipes, and the supervisor's end.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use super::Config;
use super::output::Pipe;
use super::socket::{self, Socket};
use crate::tally::{self, Which};
use crate::wire::{FDS_VARIABLE, Start, ToSupervisor, fds_text};

/// Stack of the thread that runs cells, in bytes. Only what is used takes memory.
const STACK: libc::rlim_t = 256 * 1024 * 1024;

/// A supervisor and what is below it.
#[derive(Debug)]
pub(super) struct Processes {
    pub(super) control: Socket,
    pub(super) link: Socket,
    pub(super) input: Socket,
    pub(super) stdout: Pipe,
    pub(super) stderr: Pipe,
    supervisor: Supervisor,
}

/// Reaps the supervisor, whatever happens to its owner.
#[derive(Debug)]
struct Supervisor {
    child: Option<Child>,
}

impl Processes {
    /// Starts a supervisor, and by it an empty worker of this epoch. Must be called within a tokio runtime.
    pub(super) fn spawn(config: &Config, epoch: u32) -> io::Result<Processes> {
        let (control, control_child) = socket::pair()?;
        let (mut link, link_child) = socket::pair()?;
        let (input, input_child) = socket::pair()?;
        let (tally, tally_child) = tally::Shared::new()?;
        let tally = Arc::new(tally);
        let (stdout, stdout_child) = pipe()?;
        let (stderr, stderr_child) = pipe()?;
        let inherited = [control_child, link_child, input_child, tally_child];
        let numbers = inherited.each_ref().map(AsRawFd::as_raw_fd);
        // A new one every time: what is set on a `Command` for a start cannot be unset for the next.
        let mut command = Command::new(config.command.get_program());
        command.args(config.command.get_args());
        for (name, value) in config.command.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        if let Some(folder) = config
            .current_dir
            .as_deref()
            .or(config.command.get_current_dir())
        {
            command.current_dir(folder);
        }
        command
            .env(FDS_VARIABLE, fds_text(numbers))
            .stdin(Stdio::null())
            .stdout(stdout_child)
            .stderr(stderr_child);
        // SAFETY: the closure only makes system calls that are allowed between fork and exec.
        unsafe { command.pre_exec(move || prepare(numbers)) };
        let child = command.spawn()?;
        drop(inherited);
        let bytes = |path: &PathBuf| path.as_os_str().as_bytes().to_vec();
        let start = ToSupervisor::Start(Start {
            epoch,
            support: config.support.as_ref().map(bytes),
            preload: config.preload.iter().map(bytes).collect(),
            keep: config.keep,
        });
        let supervisor = Supervisor { child: Some(child) };
        link.send(&start)?;
        Ok(Processes {
            control,
            link,
            input,
            stdout: Pipe::new(stdout, Which::Stdout, Arc::clone(&tally))?,
            stderr: Pipe::new(stderr, Which::Stderr, tally)?,
            supervisor,
        })
    }

    /// Makes sure that nothing of the supervisor's process group is left, and reaps it. To be called when the
    /// supervisor has closed its link or does not answer.
    pub(super) async fn reap(mut self) {
        if let Some(child) = self.supervisor.child.take() {
            // A blocking wait, but for a process that is dead or was sent SIGKILL.
            let waiter = tokio::task::spawn_blocking(move || finish(child));
            if waiter.await.is_err() {
                tracing::warn!("failed to wait for the runtime's supervisor");
            }
        }
    }
}

impl Drop for Supervisor {
    /// Without an owner that waits: the link's end makes the supervisor clean up and end, which this only reaps.
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let reaper = std::thread::Builder::new().name("runtime-reaper".to_owned());
            let spawned = reaper.spawn(move || child.wait());
            if let Err(error) = spawned {
                tracing::warn!(%error, "failed to reap the runtime's supervisor");
            }
        }
    }
}

/// Kills the group before the supervisor is reaped: its number cannot be another's yet.
fn finish(mut child: Child) {
    if let Ok(group) = libc::pid_t::try_from(child.id()) {
        // SAFETY: signals the group that the supervisor leads.
        unsafe { libc::kill(-group, libc::SIGKILL) };
    }
    let ended = child.kill().and_then(|()| child.wait());
    if let Err(error) = ended {
        tracing::warn!(%error, "failed to end the runtime's supervisor");
    }
}

/// Runs in the child between fork and exec.
fn prepare(inherited: [i32; 4]) -> io::Result<()> {
    for fd in inherited {
        // SAFETY: clears the close-on-exec flag of a descriptor that this process inherited.
        if unsafe { libc::fcntl(fd, libc::F_SETFD, 0) } < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    // The kernel lays out memory at exec according to this limit, so it has to be set before.
    // SAFETY: both calls use a local.
    unsafe {
        let mut limit = libc::rlimit {
            rlim_cur: 0,
            rlim_max: 0,
        };
        if libc::getrlimit(libc::RLIMIT_STACK, &raw mut limit) == 0 && limit.rlim_cur < STACK {
            limit.rlim_cur = STACK.min(limit.rlim_max);
            libc::setrlimit(libc::RLIMIT_STACK, &raw const limit);
        }
    }
    Ok(())
}

/// Reading and writing end, both closed on exec.
fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let mut fds = [-1; 2];
    // SAFETY: the array has room for two.
    if unsafe { libc::pipe2(fds.as_mut_ptr(), libc::O_CLOEXEC) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: new descriptors that nothing else owns.
    Ok(fds.map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }).into())
}
