//! The worker: loads snippets and runs them on the main thread, one after the other.

use std::ffi::{OsStr, c_void};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::sync::Mutex;
use std::time::SystemTime;

use bytes::Bytes;

use super::calls::{Answer, Calls, Status};
use super::channel::Channel;
use super::checkpoint::{self, Copy, Family, Leaving, Taken, likely_victim};
use super::gate::Gate;
use super::host::{self, Reporter, Support, lock};
use super::supervisor::Inheritance;
use super::system::{self, leave};
use super::{crash, stdin};
use crate::event::Panic;
use crate::memory;
use crate::tally::Tally;
use crate::wire::{
    BESIDE, CallEnd, End, FromWorker, Generation, INLINE, Received, ToWorker, request,
};

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
    calls: Calls,
    guard: Guard,
    /// How many copies have taken over in this generation.
    turn: u32,
    tally: &'static Tally,
    /// The writing ends of stdout's and stderr's pipes.
    pipes: [OwnedFd; 2],
}

/// The copy that serves all calls until the next snippet.
#[derive(Debug)]
enum Guard {
    /// No call has come yet.
    NotYet,
    /// None where none could be made.
    Made(Option<Copy>),
}

/// A request to run, taken apart.
#[derive(Debug)]
struct Run<'a> {
    ticket: u64,
    artifact: &'a OsStr,
    entry: &'a str,
    checkpoint: Option<u64>,
}

/// A closure's call, taken apart.
#[derive(Debug)]
struct Call {
    ticket: u64,
    checkpoint: Option<u64>,
    payload: Bytes,
    memory: Option<OwnedFd>,
}

/// The worker's whole life.
pub(super) fn main(inheritance: Inheritance) -> ! {
    let Inheritance {
        control,
        input,
        gate,
        tally,
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
    system::fresh_memory();
    crash::watch(gate);
    let (Ok(sender), Ok(answers)) = (control.try_clone(), input.try_clone()) else {
        leave(2)
    };
    // User code may put something else in their places.
    let (Ok(stdout), Ok(stderr)) = (
        std::io::stdout().as_fd().try_clone_to_owned(),
        std::io::stderr().as_fd().try_clone_to_owned(),
    ) else {
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
        calls: Calls::new(start.keep),
        guard: Guard::NotYet,
        turn: 0,
        tally,
        pipes: [stdout, stderr],
    };
    loop {
        worker.step();
    }
}

impl Worker {
    /// Waits for a request and answers it; meanwhile reaps copies that were dismissed.
    fn step(&mut self) {
        if !self.leaving.is_empty() && !self.wait_for_request() {
            return;
        }
        match self.control.receive() {
            Ok(Some(received)) => self.on_request(received),
            // The owner is gone; the supervisor ends us if we don't.
            Ok(None) | Err(_) => leave(1),
        }
    }

    /// Whether there is a request; otherwise a copy may have gone.
    fn wait_for_request(&mut self) -> bool {
        let mut polled: Vec<libc::pollfd> = std::iter::once(self.control.raw())
            .chain(self.leaving.iter().map(Leaving::raw))
            .map(system::pollfd)
            .collect();
        let has_more = self.control.has_more();
        system::wait_readable_in(&mut polled, if has_more { 0 } else { -1 });
        if polled.iter().skip(1).any(|leaving| leaving.revents != 0) {
            self.leaving.retain(|leaving| !leaving.reap());
        }
        has_more || polled.first().is_some_and(|control| control.revents != 0)
    }

    fn on_request(&mut self, received: Received<ToWorker>) {
        match received.message {
            ToWorker::Run {
                generation,
                ticket,
                artifact,
                entry,
                checkpoint,
            } => {
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
            ToWorker::Call {
                generation,
                turn,
                ticket,
                checkpoint,
            } => {
                // What its reader had not begun when it died comes again.
                if (generation, turn) == (self.generation, self.turn) {
                    self.call_closure(Call {
                        ticket,
                        checkpoint,
                        payload: received.payload,
                        memory: received.passed,
                    });
                }
            }
            ToWorker::Exit => {
                self.support.flush();
                // SAFETY: runs what user code registered, as the end of any program does.
                unsafe { libc::exit(0) }
            }
        }
    }

    fn run(&mut self, run: &Run<'_>) {
        if self.leaving.len() >= MOST_LEAVING {
            self.leaving.remove(0).wait();
        }
        self.gate.prepare(run.ticket);
        if let Guard::Made(Some(copy)) = std::mem::replace(&mut self.guard, Guard::NotYet) {
            self.leaving.push(copy.dismiss(self.gate));
        }
        let (copy, checkpoint) = match self.checkpoint(run.checkpoint, || {}) {
            Taken::Parent(copy, checkpoint) => (copy, checkpoint),
            Taken::Survivor {
                threads_lost,
                closed,
            } => return self.take_over(threads_lost, closed, false),
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

    fn checkpoint(&self, limit: Option<u64>, give_up: impl FnOnce()) -> Taken {
        let mut own: Vec<RawFd> = self.leaving.iter().map(Leaving::raw).collect();
        own.extend(self.own_death.as_ref().map(AsRawFd::as_raw_fd));
        let family = Family {
            own: &own,
            gate: self.gate,
            reporter: self.reporter,
            supervisor: self.supervisor,
            worker: self.own_death.as_ref(),
        };
        checkpoint::take(limit, self.support, &family, give_up)
    }

    fn call(&mut self, run: &Run<'_>) -> End {
        let entry = match host::load_entry(run.artifact, run.entry) {
            Ok(entry) => entry,
            Err(error) => return End::LoadFailed { error },
        };
        let before = system::cpu_times();
        self.variables = entry(self.variables);
        if system::own_pid() != self.pid {
            // User code forked, and its child came back from the cell as well.
            leave(0);
        }
        self.support.cell_end();
        let (user, system) = system::cpu_times();
        let mut reporter = lock(self.reporter);
        reporter.send(&FromWorker::Spent {
            ticket: run.ticket,
            user: user.saturating_sub(before.0),
            system: system.saturating_sub(before.1),
        });
        reporter.take_end()
    }

    fn finish(&mut self, ticket: u64, end: End, copy: Option<Copy>) {
        self.pass_gate(ticket);
        lock(self.reporter).send(&FromWorker::Finished { ticket, end });
        if let Some(copy) = copy {
            self.leaving.push(copy.dismiss(self.gate));
        }
    }

    /// Ends a run, unless it is being killed: then this does not return.
    fn pass_gate(&self, ticket: u64) {
        if !self.gate.finish(ticket) {
            // The supervisor's signal is on its way.
            loop {
                // SAFETY: waits for a signal.
                unsafe { libc::pause() };
            }
        }
    }

    fn call_closure(&mut self, mut call: Call) {
        let ticket = call.ticket;
        self.gate.prepare(ticket);
        if let Guard::NotYet = self.guard {
            // Memory that came along would live as long as the copy.
            let memory = &mut call.memory;
            match self.checkpoint(call.checkpoint, || drop(memory.take())) {
                Taken::Parent(copy, checkpoint) => {
                    self.guard = Guard::Made(copy);
                    lock(self.reporter).send(&FromWorker::Guarded { checkpoint });
                }
                Taken::Survivor {
                    threads_lost,
                    closed,
                } => return self.take_over(threads_lost, closed, true),
            }
        }
        lock(self.reporter).begin(ticket);
        let mut span = [0; 2];
        let outgoing = if self.gate.begin(ticket) {
            span[0] = now();
            self.enter(&call)
        } else {
            Outgoing::only(CallEnd::Cancelled)
        };
        if system::own_pid() != self.pid {
            // User code forked, and its child came back from the closure as well.
            leave(0);
        }
        self.support.cell_end();
        if span[0] != 0 {
            span[1] = now();
        }
        self.pass_gate(ticket);
        let Outgoing {
            end,
            answer,
            memory,
            partly,
        } = outgoing;
        let payload = answer.as_ref().map_or(&[][..], Answer::bytes);
        let written = self
            .tally
            .written(self.pipes.each_ref().map(AsRawFd::as_raw_fd));
        let called = FromWorker::Called {
            ticket,
            span,
            written,
            end,
            partly,
        };
        lock(self.reporter).send_with(&called, payload, memory.as_ref());
    }

    /// Calls the closure and puts its result where it can be had.
    fn enter(&mut self, call: &Call) -> Outgoing {
        let (request, inline) = match request(&call.payload) {
            Ok(parts) => parts,
            Err(error) => {
                let error = error.to_string();
                return Outgoing::only(CallEnd::NotRun { error });
            }
        };
        match self.calls.call(&request, &inline, call.memory.as_ref()) {
            Err(end) => Outgoing::only(end),
            Ok(answer) => match answer.status() {
                status @ (Status::Returned | Status::Partly) => Outgoing {
                    partly: status == Status::Partly,
                    ..Outgoing::result(answer, request.answer_file.as_deref())
                },
                Status::Failed => Outgoing::only(CallEnd::Failed {
                    error: answer.text(),
                }),
                Status::Panicked => {
                    self.support.panicked(&answer.text());
                    Outgoing::only(match lock(self.reporter).take_end() {
                        End::Panicked(panic) => CallEnd::Panicked(panic),
                        _ => CallEnd::Panicked(Panic {
                            message: answer.text(),
                            location: None,
                            frames: Vec::new(),
                        }),
                    })
                }
                Status::Unknown(status) => Outgoing::only(CallEnd::Failed {
                    error: format!("the code at this place is no trampoline: it said {status}"),
                }),
            },
        }
    }

    /// In the copy: the worker is dead, be it. `of_calls`: the copy was made for calls.
    fn take_over(&mut self, threads_lost: u32, closed: u32, of_calls: bool) {
        self.pid = system::own_pid();
        self.own_death = system::pidfd(self.pid);
        // The dead worker's children, not ours.
        self.leaving.clear();
        self.control.forget();
        self.guard = Guard::NotYet;
        self.turn += 1;
        match self.input.try_clone() {
            Ok(answers) => stdin::take_over(Channel::new(answers)),
            Err(_) => leave(2),
        }
        if threads_lost > 0 {
            // What was loaded believes in them.
            host::load_anew();
            self.calls.forget_code();
        }
        let tokio_lost = self.support.restored();
        lock(self.reporter).send(&FromWorker::TookOver {
            generation: self.generation,
            turn: self.turn,
            threads_lost,
            tokio_lost,
            closed,
            of_calls,
        });
    }
}

/// How a call ended, and what goes with the message that says so.
#[derive(Debug)]
struct Outgoing {
    end: CallEnd,
    /// A result that goes in packets.
    answer: Option<Answer>,
    memory: Option<OwnedFd>,
    partly: bool,
}

impl Outgoing {
    fn only(end: CallEnd) -> Outgoing {
        Outgoing {
            end,
            answer: None,
            memory: None,
            partly: false,
        }
    }

    fn result(answer: Answer, file: Option<&[u8]>) -> Outgoing {
        let bytes = answer.bytes();
        let most = if file.is_some() { BESIDE } else { INLINE };
        if bytes.len() <= most {
            return Outgoing {
                answer: Some(answer),
                ..Outgoing::only(CallEnd::Returned)
            };
        }
        let length = bytes.len() as u64;
        // Files' memory may be full (a container has 64 MB); that of the second way has no limit of its own.
        if let Some(path) = file
            && memory::write_file(OsStr::from_bytes(path), bytes).is_ok()
        {
            return Outgoing::only(CallEnd::InFile { length });
        }
        match memory::sealed(&[bytes]) {
            Ok((memory, _)) => Outgoing {
                memory: Some(memory),
                ..Outgoing::only(CallEnd::InMemory { length })
            },
            Err(error) => Outgoing::only(CallEnd::Failed {
                error: format!(
                    "its result of {length} bytes could not be put into shared memory: {error}"
                ),
            }),
        }
    }
}

/// Nanoseconds since the Unix epoch.
fn now() -> u64 {
    let elapsed = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    elapsed.map_or(1, |elapsed| u64::try_from(elapsed.as_nanos()).unwrap_or(1))
}
