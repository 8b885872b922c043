//! The supervisor: starts workers, reaps everything, kills on request, and takes all down when the owner is gone.
//!
//! It loads nothing and runs no user code, so it is there when everything else is not. As child subreaper it inherits what
//! user code leaves behind.

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::{Duration, Instant};

use libc::pid_t;

use super::channel::Channel;
use super::gate::{Gate, Verdict};
use super::system::{self, Reaped, Stat};
use super::worker;
use crate::tally::{self, Tally};
use crate::wire::{FromSupervisor, Generation, Next, Received, Start, ToSupervisor};

/// How long a run may take to get ready before a kill no longer waits for it: it could wait for a lock that
/// a thread of the namespace holds.
const PREPARATION: Duration = Duration::from_secs(1);

/// What a worker inherits.
#[derive(Debug)]
pub(super) struct Inheritance {
    pub(super) control: OwnedFd,
    pub(super) input: OwnedFd,
    pub(super) gate: &'static Gate,
    pub(super) tally: &'static Tally,
    pub(super) start: Start,
    pub(super) generation: Generation,
    pub(super) supervisor: pid_t,
}

#[derive(Debug)]
struct Supervisor {
    link: Channel,
    /// Becomes readable with SIGCHLD.
    deaths: OwnedFd,
    control: OwnedFd,
    input: OwnedFd,
    gate: &'static Gate,
    tally: &'static Tally,
    start: Start,
    generation: Generation,
    worker: Option<pid_t>,
    /// Everything ends then, or when the worker has ended.
    end_by: Option<Instant>,
    /// Kill this ticket's run then, if it is still not ready.
    kill_by: Option<(Instant, u64)>,
}

/// The supervisor's whole life.
pub(super) fn main(control: OwnedFd, link: OwnedFd, input: OwnedFd, tally: &OwnedFd) -> ! {
    system::set_name(c"chorus-superv");
    let mut link = Channel::new(link);
    // SAFETY: both calls set attributes of this process only.
    unsafe {
        libc::setsid();
        libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1);
    }
    // User code that signals its own process group must not hit us.
    for signal in TO_IGNORE {
        // SAFETY: ignoring runs no code.
        unsafe { libc::signal(signal, libc::SIG_IGN) };
    }
    let start = match link.receive() {
        Ok(Some(Received {
            message: ToSupervisor::Start(start),
            ..
        })) => start,
        _ => system::leave(0),
    };
    let (Ok(gate), Ok(tally), Some(deaths)) =
        (Gate::shared(), tally::Shared::map(tally), death_signals())
    else {
        system::leave(2)
    };
    let mut supervisor = Supervisor {
        link,
        deaths,
        control,
        input,
        gate,
        tally: Box::leak(Box::new(tally)),
        generation: Generation {
            epoch: start.epoch,
            number: 0,
        },
        start,
        worker: None,
        end_by: None,
        kill_by: None,
    };
    supervisor.start_worker();
    loop {
        supervisor.step();
    }
}

/// Signals that user code may send to its process group, and that end a process by default.
const TO_IGNORE: [i32; 6] = [
    libc::SIGTERM,
    libc::SIGINT,
    libc::SIGHUP,
    libc::SIGQUIT,
    libc::SIGUSR1,
    libc::SIGUSR2,
];

/// Blocks SIGCHLD and gives a descriptor for it.
fn death_signals() -> Option<OwnedFd> {
    // SAFETY: `sigset_t` is a plain bit set, filled by sigemptyset before use; the descriptor is new.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, libc::SIGCHLD);
        libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut());
        let fd = libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK);
        (fd >= 0).then(|| OwnedFd::from_raw_fd(fd))
    }
}

/// Undoes for a worker what the supervisor did to its signals.
fn reset_signals() {
    for signal in TO_IGNORE {
        // SAFETY: the default action runs no code of ours.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
    // SAFETY: as in `death_signals`.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const set, std::ptr::null_mut());
    }
}

impl Supervisor {
    fn step(&mut self) {
        let [asked, died] =
            system::wait_readable([self.link.raw(), self.deaths.as_raw_fd()], self.timeout());
        if died {
            self.reap();
        }
        if asked {
            match self.link.receive() {
                Ok(Some(request)) => self.on_request(request.message),
                // The owner is gone.
                Ok(None) | Err(_) => self.end(),
            }
        }
        let now = Instant::now();
        if self.end_by.is_some_and(|end| end <= now) {
            self.end();
        }
        if let Some((_, ticket)) = self.kill_by.take_if(|(by, _)| *by <= now)
            && self.gate.is_preparing(ticket)
        {
            self.gate.mark_killed(ticket);
            self.kill_worker();
        }
    }

    /// Milliseconds until something is due, -1 for never.
    fn timeout(&self) -> i32 {
        let due = self
            .end_by
            .into_iter()
            .chain(self.kill_by.map(|(by, _)| by))
            .min();
        due.map_or(-1, |due| {
            let left = due.saturating_duration_since(Instant::now());
            i32::try_from(left.as_millis() + 1).unwrap_or(i32::MAX)
        })
    }

    fn on_request(&mut self, request: ToSupervisor) {
        match request {
            ToSupervisor::Start(_) => {}
            ToSupervisor::Kill { ticket } => match self.gate.kill(ticket) {
                Verdict::Kill => self.kill_worker(),
                // Of several that wait, the one that is being made ready is the one that could hang.
                Verdict::Cancelled if self.kill_by.is_none() || self.gate.is_preparing(ticket) => {
                    self.kill_by = Some((Instant::now() + PREPARATION, ticket));
                }
                Verdict::Cancelled => {}
                Verdict::Over => {}
            },
            ToSupervisor::Restart { epoch } => {
                self.worker = None;
                kill_all();
                self.generation = Generation { epoch, number: 0 };
                self.start_worker();
            }
            ToSupervisor::Shutdown { grace_ms } => {
                if self.worker.is_none() {
                    self.end();
                }
                self.end_by = Some(Instant::now() + Duration::from_millis(grace_ms.into()));
            }
        }
    }

    fn kill_worker(&self) {
        if let Some(worker) = self.worker {
            system::kill(worker);
        }
    }

    fn reap(&mut self) {
        // Which signals there were does not matter, only that the descriptor is empty again.
        let mut noted = [0_u8; 1024];
        // SAFETY: pointer and length are those of a living array.
        while unsafe {
            libc::read(
                self.deaths.as_raw_fd(),
                noted.as_mut_ptr().cast(),
                noted.len(),
            )
        } > 0
        {}
        while let Some(reaped) = system::reap(-1, false) {
            if self.worker == Some(reaped.pid) {
                self.on_death(reaped);
            }
        }
    }

    fn on_death(&mut self, worker: Reaped) {
        self.worker = None;
        self.kill_by = None;
        if self.end_by.is_some() {
            self.end();
        }
        let overflow = self.gate.take_overflow()
            && libc::WIFSIGNALED(worker.status)
            && libc::WTERMSIG(worker.status) == libc::SIGSEGV;
        let (killed, ticket) = (self.gate.was_killed(), self.gate.last_ticket());
        let died = |next| FromSupervisor::Died {
            generation: self.generation,
            status: worker.status,
            killed,
            overflow,
            ticket,
            next,
        };
        if !self.gate.is_ready() {
            let _ = self.link.send(&died(Next::Nobody));
            return;
        }
        let copy = self
            .gate
            .take_copy()
            .filter(|copy| system::reap(*copy, false).is_none() && is_child(*copy));
        if let Some(copy) = copy {
            let _ = self.link.send(&died(Next::Copy));
            if killed {
                kill_what_began_with(copy);
            }
            self.worker = Some(copy);
        } else {
            let _ = self.link.send(&died(Next::Fresh));
            kill_all();
            self.generation.number += 1;
            self.start_worker();
        }
    }

    fn start_worker(&mut self) {
        self.gate.reset();
        let supervisor = system::own_pid();
        // SAFETY: this process has one thread.
        match unsafe { libc::fork() } {
            0 => {
                reset_signals();
                let (Ok(control), Ok(input)) = (self.control.try_clone(), self.input.try_clone())
                else {
                    system::leave(2)
                };
                // SAFETY: nothing in the worker's life uses these again; `self` is never dropped.
                unsafe {
                    for fd in [
                        self.link.raw(),
                        self.deaths.as_raw_fd(),
                        self.control.as_raw_fd(),
                        self.input.as_raw_fd(),
                    ] {
                        libc::close(fd);
                    }
                }
                worker::main(Inheritance {
                    control,
                    input,
                    gate: self.gate,
                    tally: self.tally,
                    start: self.start.clone(),
                    generation: self.generation,
                    supervisor,
                })
            }
            -1 => {
                // The owner hears of it as of any death.
                let _ = self.link.send(&FromSupervisor::Died {
                    generation: self.generation,
                    status: libc::SIGKILL,
                    killed: false,
                    overflow: false,
                    ticket: 0,
                    next: Next::Nobody,
                });
            }
            worker => self.worker = Some(worker),
        }
    }

    fn end(&mut self) -> ! {
        kill_all();
        system::leave(0)
    }
}

fn is_child(pid: pid_t) -> bool {
    Stat::of(&pid.to_string()).is_some_and(|stat| stat.parent == system::own_pid())
}

/// Kills what an interrupted run had spawned: everything that is younger than the copy made for it.
fn kill_what_began_with(copy: pid_t) {
    let Some(start) = Stat::of(&copy.to_string()).map(|stat| stat.started) else {
        return;
    };
    for process in system::descendants() {
        if process.pid != copy && process.started >= start {
            system::kill(process.pid);
        }
    }
}

/// Kills everything below this process and waits until it is gone. What a dying process leaves comes to us, as we
/// are the subreaper, so this ends when there is no child left.
fn kill_all() {
    loop {
        for process in system::descendants() {
            system::kill(process.pid);
        }
        if system::reap(-1, true).is_none() {
            return;
        }
        while system::reap(-1, false).is_some() {}
    }
}
