//! The page that supervisor, worker and copy share, and the rule by which a run is either killed or finished, never both.
//!
//! A worker that is killed after it dismissed its copy would take the namespace with it. So both sides go through one
//! atomic: the supervisor turns `Running` into `Killed` before it kills, the worker turns `Running` into `Done` before it reports.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering::SeqCst};

use crate::wire::WINDOW;

const PREPARING: u64 = 0;
const RUNNING: u64 = 1;
const DONE: u64 = 2;
const KILLED: u64 = 3;

/// Shared memory: only atomics, all zero at first.
#[derive(Debug, Default)]
pub(super) struct Gate {
    /// Ticket times four plus phase.
    state: AtomicU64,
    /// Tickets that are not to begin, each in its own place: as many wait at most.
    cancelled: [AtomicU64; WINDOW],
    /// The waiting copy's process id, or 0.
    copy: AtomicI32,
    /// Whether the worker has loaded what it needs.
    ready: AtomicBool,
    /// Whether the worker met the end of its stack.
    overflow: AtomicBool,
}

/// What became of a request to kill.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The worker runs this ticket and is to be killed now.
    Kill,
    /// The worker will see for itself, before it begins.
    Cancelled,
    /// The run is over.
    Over,
}

impl Gate {
    /// A gate in memory that children inherit and share.
    pub(super) fn shared() -> io::Result<&'static Gate> {
        // SAFETY: a new mapping that aliases nothing.
        let page = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                size_of::<Gate>(),
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        if page == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: page-aligned, zeroed, never unmapped; zero is a valid value of every field.
        Ok(unsafe { &*page.cast::<Gate>() })
    }

    /// Worker: a run is about to be made ready.
    pub(super) fn prepare(&self, ticket: u64) {
        self.state.store(ticket << 2 | PREPARING, SeqCst);
    }

    /// Worker: from here on the run can be killed. False when it was cancelled; then it is done.
    pub(super) fn begin(&self, ticket: u64) -> bool {
        self.state.store(ticket << 2 | RUNNING, SeqCst);
        self.cancelled(ticket).load(SeqCst) != ticket
    }

    /// Worker: the run has ended. False when the supervisor is about to kill.
    pub(super) fn finish(&self, ticket: u64) -> bool {
        self.exchange(ticket, DONE)
    }

    /// Supervisor: whether to kill the worker for this ticket's sake.
    pub(super) fn kill(&self, ticket: u64) -> Verdict {
        if self.exchange(ticket, KILLED) {
            return Verdict::Kill;
        }
        if self.is_over(ticket) {
            return Verdict::Over;
        }
        // The worker reads this after it went to `Running`, we look for `Running` again after this: one of us sees.
        self.cancelled(ticket).store(ticket, SeqCst);
        if self.exchange(ticket, KILLED) {
            return Verdict::Kill;
        }
        Verdict::Cancelled
    }

    /// Supervisor: whether the worker was killed on request while it ran.
    pub(super) fn was_killed(&self) -> bool {
        self.state.load(SeqCst) & 3 == KILLED
    }

    /// Supervisor: what the worker worked on last; 0 when it has done nothing yet.
    pub(super) fn last_ticket(&self) -> u64 {
        self.state.load(SeqCst) >> 2
    }

    /// Supervisor: whether the worker is still making this ticket ready.
    pub(super) fn is_preparing(&self, ticket: u64) -> bool {
        self.state.load(SeqCst) == ticket << 2 | PREPARING
    }

    /// Supervisor: kill even though it does not run yet.
    pub(super) fn mark_killed(&self, ticket: u64) {
        self.state.store(ticket << 2 | KILLED, SeqCst);
    }

    /// Supervisor: an empty worker begins.
    pub(super) fn reset(&self) {
        self.state.store(0, SeqCst);
        for cancelled in &self.cancelled {
            cancelled.store(0, SeqCst);
        }
        self.copy.store(0, SeqCst);
        self.ready.store(false, SeqCst);
        self.overflow.store(false, SeqCst);
    }

    pub(super) fn set_copy(&self, pid: libc::pid_t) {
        self.copy.store(pid, SeqCst);
    }

    /// The waiting copy, which from now on is nobody's.
    pub(super) fn take_copy(&self) -> Option<libc::pid_t> {
        Some(self.copy.swap(0, SeqCst)).filter(|pid| *pid != 0)
    }

    pub(super) fn set_ready(&self) {
        self.ready.store(true, SeqCst);
    }

    pub(super) fn is_ready(&self) -> bool {
        self.ready.load(SeqCst)
    }

    /// Called from a signal handler.
    pub(super) fn set_overflow(&self) {
        self.overflow.store(true, SeqCst);
    }

    pub(super) fn take_overflow(&self) -> bool {
        self.overflow.swap(false, SeqCst)
    }

    fn cancelled(&self, ticket: u64) -> &AtomicU64 {
        let [first, ..] = &self.cancelled;
        let place = usize::try_from(ticket).unwrap_or(0) % WINDOW;
        self.cancelled.get(place).unwrap_or(first)
    }

    fn exchange(&self, ticket: u64, phase: u64) -> bool {
        self.state
            .compare_exchange(ticket << 2 | RUNNING, ticket << 2 | phase, SeqCst, SeqCst)
            .is_ok()
    }

    fn is_over(&self, ticket: u64) -> bool {
        let state = self.state.load(SeqCst);
        state >> 2 > ticket || state >> 2 == ticket && state & 3 >= DONE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_killed_or_finished_never_both() {
        let gate = Gate::default();
        gate.prepare(5);
        assert!(gate.begin(5));
        assert_eq!(gate.kill(5), Verdict::Kill);
        assert!(!gate.finish(5));
        assert!(gate.was_killed());

        gate.prepare(6);
        assert!(gate.begin(6));
        assert!(gate.finish(6));
        assert_eq!(gate.kill(6), Verdict::Over);
        assert_eq!(gate.kill(5), Verdict::Over);
        assert!(!gate.was_killed());
    }

    #[test]
    fn a_run_that_has_not_begun_is_cancelled() {
        let gate = Gate::default();
        assert_eq!(gate.kill(1), Verdict::Cancelled);
        gate.prepare(1);
        assert_eq!(gate.kill(1), Verdict::Cancelled);
        assert!(!gate.begin(1));
        assert!(gate.finish(1));
        gate.prepare(2);
        assert!(gate.begin(2));
    }

    #[test]
    fn as_many_can_be_cancelled_as_may_wait() {
        let gate = Gate::default();
        let last = WINDOW as u64;
        for ticket in 1..=last {
            assert_eq!(gate.kill(ticket), Verdict::Cancelled);
        }
        for ticket in 1..=last {
            gate.prepare(ticket);
            assert!(!gate.begin(ticket));
            assert!(gate.finish(ticket));
            assert_eq!(gate.last_ticket(), ticket);
        }
        gate.prepare(last + 1);
        assert!(gate.begin(last + 1));
    }

    #[test]
    fn both_sides_at_once() {
        let gate = Gate::default();
        for ticket in 1..2000 {
            gate.prepare(ticket);
            let (killed, finished) = std::thread::scope(|scope| {
                let killer = scope.spawn(|| gate.kill(ticket));
                let began = gate.begin(ticket);
                let finished = gate.finish(ticket);
                (killer.join().unwrap(), began.then_some(finished))
            });
            match killed {
                Verdict::Kill => assert_ne!(finished, Some(true)),
                Verdict::Cancelled => assert_eq!(finished, None),
                Verdict::Over => assert_ne!(finished, Some(false)),
            }
        }
    }
}
