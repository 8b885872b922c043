//! The worker: loads snippets and runs them on the main thread, one after the other.

use std::ffi::{OsStr, c_void};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::sync::Mutex;

use super::channel::Channel;
use super::checkpoint::{self, Copy, Family, Leaving, Taken, likely_victim};
use super::gate::Gate;
use super::host::{self, Reporter, Support, lock};
use super::supervisor::Inheritance;
use super::system::{self, leave};
use super::{crash, stdin};
use crate::wire::{End, FromWorker, Generation, ToWorker};

/// How many copies may be on their way out when the next is made: each holds memory until it is gone.
const MOST_LEAVING: usize = 4;

#[derive(Debug)]
struct Worker {
    control: Channel,
    input: OwnedFd,
    reporter: &'static Mutex<Reporter>,
    support: &'static Support,
    gate: &'static Gate,
    generation: Generation,
    supervisor: libc::pid_t,
    pid: libc::pid_t,
    /// Readable when this process is dead: for its copies.
    own_death: Option<OwnedFd>,
    /// What cells pass on; null before the first.
    variables: *mut c_void,
    leaving: Vec<Leaving>,
}

/// A request to run, taken apart.
#[derive(Debug)]
struct Run<'a> {
    ticket: u64,
    artifact: &'a OsStr,
    entry: &'a str,
    checkpoint: Option<u64>,
}

/// The worker's whole life.
pub(super) fn main(inheritance: Inheritance) -> ! {
    let Inheritance {
        control,
        input,
        gate,
        start,
        generation,
        supervisor,
    } = inheritance;
    system::set_name(c"chorus-worker");
    system::die_with_parent();
    if system::parent_pid() != supervisor {
        leave(1);
    }
    likely_victim(true);
    crash::watch(gate);
    let (Ok(sender), Ok(answers)) = (control.try_clone(), input.try_clone()) else {
        leave(2)
    };
    let control = Channel::new(control);
    let reporter = host::install(Channel::new(sender));
    let support: &'static Support = match Support::load(&start) {
        Ok(support) => Box::leak(Box::new(support)),
        Err(reason) => {
            lock(reporter).send(&FromWorker::Failed { reason });
            leave(1)
        }
    };
    stdin::install(Channel::new(answers), reporter, support);
    let pid = system::own_pid();
    gate.set_ready();
    lock(reporter).send(&FromWorker::Ready { generation });
    let mut worker = Worker {
        control,
        input,
        reporter,
        support,
        gate,
        generation,
        supervisor,
        pid,
        own_death: system::pidfd(pid),
        variables: std::ptr::null_mut(),
        leaving: Vec::new(),
    };
    loop {
        worker.step();
    }
}

impl Worker {
    /// Waits for a request and answers it; meanwhile reaps copies that were dismissed.
    fn step(&mut self) {
        let mut polled: Vec<libc::pollfd> = std::iter::once(self.control.raw())
            .chain(self.leaving.iter().map(Leaving::raw))
            .map(system::pollfd)
            .collect();
        system::wait_readable_in(&mut polled, -1);
        if polled.iter().skip(1).any(|leaving| leaving.revents != 0) {
            self.leaving.retain(|leaving| !leaving.reap());
        }
        if polled.first().is_none_or(|control| control.revents == 0) {
            return;
        }
        match self.control.receive() {
            Ok(Some(ToWorker::Run {
                generation,
                ticket,
                artifact,
                entry,
                checkpoint,
            })) => {
                // Meant for a worker that died idle: its owner will be told, and this namespace is another one.
                if generation == self.generation {
                    self.run(&Run {
                        ticket,
                        artifact: OsStr::from_bytes(&artifact),
                        entry: &entry,
                        checkpoint,
                    });
                }
            }
            Ok(Some(ToWorker::Exit)) => {
                self.support.flush();
                // SAFETY: runs what user code registered, as the end of any program does.
                unsafe { libc::exit(0) }
            }
            // The owner is gone; the supervisor ends us if we don't.
            Ok(None) | Err(_) => leave(1),
        }
    }

    fn run(&mut self, run: &Run<'_>) {
        if self.leaving.len() >= MOST_LEAVING {
            self.leaving.remove(0).wait();
        }
        self.gate.prepare(run.ticket);
        let family = Family {
            gate: self.gate,
            reporter: self.reporter,
            supervisor: self.supervisor,
            worker: self.own_death.as_ref(),
        };
        let taken = checkpoint::take(run.checkpoint, self.support, &family);
        let (copy, checkpoint) = match taken {
            Taken::Parent(copy, checkpoint) => (copy, checkpoint),
            Taken::Survivor { threads_lost } => return self.take_over(threads_lost),
        };
        let mut reporter = lock(self.reporter);
        reporter.begin(run.ticket);
        let ticket = run.ticket;
        reporter.send(&FromWorker::Started { ticket, checkpoint });
        drop(reporter);
        let end = if self.gate.begin(ticket) {
            self.call(run)
        } else {
            End::Cancelled
        };
        self.finish(ticket, end, copy);
    }

    fn call(&mut self, run: &Run<'_>) -> End {
        let entry = match host::load_entry(run.artifact, run.entry) {
            Ok(entry) => entry,
            Err(error) => return End::LoadFailed { error },
        };
        self.variables = entry(self.variables);
        if system::own_pid() != self.pid {
            // User code forked, and its child came back from the cell as well.
            leave(0);
        }
        self.support.cell_end();
        lock(self.reporter).take_end()
    }

    fn finish(&mut self, ticket: u64, end: End, copy: Option<Copy>) {
        if !self.gate.finish(ticket) {
            // The supervisor's signal is on its way.
            loop {
                // SAFETY: waits for a signal.
                unsafe { libc::pause() };
            }
        }
        lock(self.reporter).send(&FromWorker::Finished { ticket, end });
        if let Some(copy) = copy {
            self.leaving.push(copy.dismiss(self.gate));
        }
    }

    /// In the copy: the worker is dead, be it.
    fn take_over(&mut self, threads_lost: u32) {
        self.pid = system::own_pid();
        self.own_death = system::pidfd(self.pid);
        // The dead worker's children, not ours.
        self.leaving.clear();
        match self.input.try_clone() {
            Ok(answers) => stdin::take_over(Channel::new(answers)),
            Err(_) => leave(2),
        }
        let tokio_lost = self.support.restored();
        lock(self.reporter).send(&FromWorker::TookOver {
            generation: self.generation,
            threads_lost,
            tokio_lost,
        });
    }
}
