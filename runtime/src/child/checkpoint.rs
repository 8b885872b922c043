//! The copy of the namespace that waits while a snippet runs, or from the first call of a closure to the next snippet; from both sides.
//!
//! The copy holds one end of a socket pair and a descriptor of its parent's process. A byte tells it that it is not needed; the parent's
//! death makes it the worker. What the parent closes meanwhile it closes too ([`descriptors`]).

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::Mutex;

use libc::pid_t;

use super::descriptors;
use super::gate::Gate;
use super::host::{Reporter, Support, lock};
use super::system::{self, Stat, leave, pidfd, wait_readable};
use crate::event::CheckpointState;

/// The parent's end.
#[derive(Debug)]
pub(super) struct Copy {
    pid: pid_t,
    socket: OwnedFd,
}

/// What [`take`] returns, in the parent or in the copy.
#[derive(Debug)]
pub(super) enum Taken {
    /// Here is the parent: go on with the snippet.
    Parent(Option<Copy>, CheckpointState),
    /// Here is the copy, and the parent is dead.
    Survivor {
        /// How many threads the parent had besides its main thread when the copy was made.
        threads_lost: u32,
        /// How many descriptors the parent had closed.
        closed: u32,
    },
}

/// What the parent and a copy of it know of each other.
#[derive(Debug)]
pub(super) struct Family<'a> {
    pub(super) gate: &'a Gate,
    pub(super) reporter: &'a Mutex<Reporter>,
    pub(super) supervisor: pid_t,
    /// Readable when the worker is dead; opened by the worker itself.
    pub(super) worker: Option<&'a OwnedFd>,
    /// Descriptors of the runtime's own that it may close while a copy waits.
    pub(super) own: &'a [RawFd],
}

/// Makes a copy of this process, if it is not larger than `limit` bytes (`None`: not wanted). In the copy this
/// returns only when the parent died; it calls `give_up` at once, which lets go of what only the parent needs.
pub(super) fn take(
    limit: Option<u64>,
    support: &Support,
    family: &Family<'_>,
    give_up: impl FnOnce(),
) -> Taken {
    let Some(limit) = limit else {
        return Taken::Parent(None, CheckpointState::Off);
    };
    let failed = |error: io::Error| {
        let error = error.to_string();
        Taken::Parent(None, CheckpointState::Failed { error })
    };
    let Some(stat) = Stat::of("self") else {
        return failed(io::Error::other("/proc is not there"));
    };
    if stat.resident > limit {
        let bytes = stat.resident;
        return Taken::Parent(None, CheckpointState::TooLarge { bytes, limit });
    }
    let (ours, theirs) = match system::stream_pair() {
        Ok(pair) => pair,
        Err(error) => return failed(error),
    };
    let (signals, forked) = support.around_fork(|| {
        // Held across the fork, so that no other thread has it in the copy. After stdout's lock: a thread may report while it
        // holds that one, none prints while it reports.
        let _reporter = lock(family.reporter);
        let _follower = descriptors::hold();
        // Before the fork, so that there is no moment at which a signal hits the copy.
        let signals = Signals::hold();
        // SAFETY: glibc keeps its allocator sound across this; what other threads hold in user code is lost with them, which is
        // told to the user.
        let forked = match unsafe { libc::fork() } {
            -1 => Err(io::Error::last_os_error()),
            pid => Ok(pid),
        };
        if let Ok(pid @ 1..) = forked {
            // The copy does not say this itself: it may come to run only when its time is over, and another copy waits.
            family.gate.set_copy(pid);
        }
        if !matches!(forked, Ok(0)) {
            signals.restore();
        }
        (signals, forked)
    });
    match forked {
        Err(error) => failed(error),
        Ok(0) => {
            descriptors::forget();
            drop(ours);
            give_up();
            let closed = wait_as_copy(&theirs, family);
            signals.forget_pending();
            signals.restore();
            Taken::Survivor {
                threads_lost: stat.threads.saturating_sub(1),
                closed,
            }
        }
        Ok(pid) => {
            drop(theirs);
            descriptors::follow(pid, &ours);
            Taken::Parent(Some(Copy { pid, socket: ours }), CheckpointState::Taken)
        }
    }
}

impl Copy {
    /// Ends the copy. Gives what to wait for, until [`Leaving::reap`].
    pub(super) fn dismiss(self, gate: &Gate) -> Leaving {
        descriptors::unfollow();
        let pidfd = pidfd(self.pid);
        gate.take_copy();
        // SAFETY: one byte from a living array.
        unsafe {
            libc::send(
                self.socket.as_raw_fd(),
                [descriptors::DISMISSED].as_ptr().cast(),
                1,
                libc::MSG_NOSIGNAL,
            )
        };
        Leaving {
            pid: self.pid,
            pidfd,
        }
    }
}

/// A copy that was told to go: unmapping a large namespace takes it a while, for which nobody waits.
#[derive(Debug)]
pub(super) struct Leaving {
    pid: pid_t,
    pidfd: Option<OwnedFd>,
}

impl Leaving {
    /// Readable when the copy is gone; -1 when the kernel has no such thing.
    pub(super) fn raw(&self) -> i32 {
        self.pidfd.as_ref().map_or(-1, AsRawFd::as_raw_fd)
    }

    /// Reaps the copy if it has ended.
    pub(super) fn reap(&self) -> bool {
        system::reap(self.pid, false).is_some()
    }

    /// Waits until the copy has ended, and reaps it.
    pub(super) fn wait(&self) {
        system::reap(self.pid, true);
    }
}

/// Returns when the parent is dead and this process is the supervisor's child: how many descriptors the parent had closed.
fn wait_as_copy(socket: &OwnedFd, family: &Family<'_>) -> u32 {
    let mut closed = 0;
    let own = [family.own, &[socket.as_raw_fd()]].concat();
    system::set_name(c"chorus-copy");
    likely_victim(false);
    let worker = family.worker.map_or(-1, AsRawFd::as_raw_fd);
    loop {
        let [spoken, dead] = wait_readable([socket.as_raw_fd(), worker], -1);
        if spoken {
            match heard(socket) {
                Some(descriptors::DISMISSED) => leave(0),
                Some(_) => {
                    closed += u32::from(descriptors::let_go(socket, &own));
                    continue;
                }
                None => {}
            }
        }
        if dead {
            break;
        }
        if spoken {
            // Closed, so the parent is dying: not readable any more, but always ready.
            if worker >= 0 {
                wait_readable([worker], -1);
            }
            break;
        }
    }
    system::die_with_parent();
    if worker >= 0 && system::parent_pid() != family.supervisor {
        leave(1);
    }
    likely_victim(true);
    system::set_name(c"chorus-worker");
    closed
}

/// What the parent says, if anything.
fn heard(socket: &OwnedFd) -> Option<u8> {
    let mut byte = [0_u8; 1];
    // SAFETY: one byte into a living array.
    let received = unsafe {
        libc::recv(
            socket.as_raw_fd(),
            byte.as_mut_ptr().cast(),
            1,
            libc::MSG_DONTWAIT,
        )
    };
    (received == 1).then_some(byte[0])
}

/// When memory runs out, the process that fills it shall go, not the copy that can make good the loss.
pub(super) fn likely_victim(yes: bool) {
    // Where this is not allowed, the kernel's own guess has to do.
    let _ = std::fs::write("/proc/self/oom_score_adj", if yes { "300" } else { "0" });
}

/// Keeps signals that are meant for the whole process group (`kill(0, ..)` in user code) from a waiting copy.
struct Signals {
    before: libc::sigset_t,
}

impl Signals {
    fn hold() -> Signals {
        // SAFETY: a zeroed set is a set; both sets are locals.
        unsafe {
            let mut all: libc::sigset_t = std::mem::zeroed();
            let mut before: libc::sigset_t = std::mem::zeroed();
            libc::sigfillset(&raw mut all);
            libc::sigprocmask(libc::SIG_SETMASK, &raw const all, &raw mut before);
            Signals { before }
        }
    }

    /// Forgets the signals that came meanwhile: ignoring one for a moment takes it off the list.
    fn forget_pending(&self) {
        // SAFETY: zeroed sets and actions are valid, all are locals, and actions are put back as they were.
        unsafe {
            let mut pending: libc::sigset_t = std::mem::zeroed();
            libc::sigpending(&raw mut pending);
            for signal in 1..=libc::SIGRTMAX() {
                if libc::sigismember(&raw const pending, signal) == 1 {
                    let mut ignore: libc::sigaction = std::mem::zeroed();
                    let mut before: libc::sigaction = std::mem::zeroed();
                    ignore.sa_sigaction = libc::SIG_IGN;
                    libc::sigaction(signal, &raw const ignore, &raw mut before);
                    libc::sigaction(signal, &raw const before, std::ptr::null_mut());
                }
            }
        }
    }

    fn restore(&self) {
        // SAFETY: a set that the system filled.
        unsafe {
            libc::sigprocmask(
                libc::SIG_SETMASK,
                &raw const self.before,
                std::ptr::null_mut(),
            );
        }
    }
}
