//! The executor: drives a namespace, which is a lineage and a runtime.
//!
//! [`Executor`] is a synchronous state machine: [`Executor::on_event`] takes what happened and the time, and returns what is to be done. It
//! knows no socket, no process and no clock. [`Driver`] gives it those; its [`Host`] starts runtimes, compiles, and takes what comes out.
//!
//! Work is done in the order in which it comes, one snippet at a time:
//!
//! ```text
//! Submit ── Started ── StartRuntime, Settle ── Provide ── Compile ── Run, Run .. ── Collect ── Finished
//!                                                           └──── Settle (a panic, an early `?`) ──┘
//! ```
//!
//! Calls of closures between two snippets are handed to the runtime up to [`AHEAD`] at a time; it makes one after another. They may go to
//! a program's runtime instead, to one runtime at a time, since only one runtime's calls come back in their order.

mod calls;
mod driver;
mod ending;
mod evaluation;
mod event;
mod program;
mod runtimes;

use std::collections::{HashSet, VecDeque};
use std::time::{Duration, Instant};

use runtime::{CallOutcome, Restored, RunId};

use calls::Calls;
pub use driver::{Driver, Happening, Host, Started, StatusSender};
use evaluation::Evaluation;
pub use event::{
    CallReport, CallWork, CompileRequest, Compiled, Config, Effect, Ending, Event, IdleOutput,
    Kept, Outcome, Restart, RuntimeId, Settlement, Shown, StartRuntime, Ticket, Times,
    TypesChanged, VariablesLost, Work, WorkId, WorkKind,
};
pub use program::Program;
use program::Programs;

use crate::Lineage;
use crate::failure;
use crate::output::Output;

/// Calls that are with the runtime at a time, at most: short ones follow each other without anybody having to wake up in between.
/// Those that have not begun can still be aborted.
pub const AHEAD: usize = 32;

/// A call that takes longer is reported as [`Effect::Started`].
pub const LONG_CALL: Duration = Duration::from_millis(100);

/// A namespace is as it was.
const NOTHING_LOST: Restored = Restored {
    variables: true,
    threads_lost: 0,
    tokio_lost: false,
    closed: 0,
    why_not: None,
};

/// See the module.
#[derive(Debug)]
pub struct Executor {
    config: Config,
    lineage: Lineage,
    /// The question whose answer is the lineage.
    settling: Option<Ticket>,
    namespace: RuntimeState,
    programs: Programs,
    /// Work that has not begun, by ascending ids.
    queue: VecDeque<Queued>,
    last_submitted: WorkId,
    /// Work that was aborted before it came.
    aborted_early: HashSet<WorkId>,
    state: State,
    /// Only while the state is `Idle`.
    calls: Calls,
    has_kept: bool,
    runs: u64,
    tickets: u64,
    effects: Vec<Effect>,
}

#[derive(Debug)]
struct Queued {
    work: Work,
    aborted: bool,
}

#[derive(Debug)]
enum State {
    /// No snippet is evaluated. Calls may be in flight.
    Idle,
    Evaluating(Box<Evaluation>),
    Clearing(WorkId),
    ShutDown,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RuntimeState {
    Absent,
    Starting,
    Ready,
}

impl Executor {
    /// An executor without a runtime, which begins at the root.
    pub fn new(config: Config) -> Self {
        Self {
            config,
            lineage: Lineage::root(),
            settling: None,
            namespace: RuntimeState::Absent,
            programs: Programs::default(),
            queue: VecDeque::new(),
            last_submitted: WorkId::default(),
            aborted_early: HashSet::new(),
            state: State::Idle,
            calls: Calls::default(),
            has_kept: false,
            runs: 0,
            tickets: 0,
            effects: Vec::new(),
        }
    }

    /// The namespace's lineage: the last one that is known.
    pub fn lineage(&self) -> &Lineage {
        &self.lineage
    }

    /// Whether a snippet's turn has come.
    pub fn is_evaluating(&self) -> bool {
        matches!(self.state, State::Evaluating(_))
    }

    /// Whether calls are with a runtime.
    pub fn is_calling(&self) -> bool {
        !self.calls.is_empty()
    }

    /// When [`Event::Tick`] is to come, at the latest.
    pub fn deadline(&self) -> Option<Instant> {
        match &self.state {
            State::Evaluating(evaluation) => evaluation.output.deadline(),
            _ => self.calls.deadline(),
        }
    }

    /// Takes an event. Returns what is to be done, in this order.
    pub fn on_event(&mut self, now: Instant, event: Event) -> Vec<Effect> {
        match event {
            // Nothing is under way, and nothing begins any more.
            Event::Submit(works) if matches!(self.state, State::ShutDown) => {
                for work in works {
                    self.finished(work.id, Outcome::Aborted);
                }
            }
            _ if matches!(self.state, State::ShutDown) => {}
            Event::Submit(works) => self.submit(now, works),
            Event::Start => {
                self.has_namespace();
            }
            Event::Interrupt { waiting } => self.interrupt(now, waiting),
            Event::Abort { id, running } => self.abort(now, id, running),
            Event::Shutdown => self.shut_down(now),
            Event::RuntimeStarted { runtime, result } => {
                self.on_runtime_started(now, runtime, result);
            }
            Event::Runtime { runtime, event } => self.on_runtime_event(now, runtime, event),
            Event::RuntimeGone(runtime) => self.on_runtime_gone(now, runtime),
            Event::Cleared => {
                if let State::Clearing(id) = self.state {
                    self.state = State::Idle;
                    self.finished(id, Outcome::Done);
                    self.advance(now);
                }
            }
            Event::Provided { id, result } => self.on_provided(now, id, result),
            Event::Collected { id, result } => self.on_collected(now, id, result),
            Event::CompileStatus { id, activity } => self.on_compile_status(id, activity),
            Event::Compiled { ticket, result } => self.on_compiled(now, ticket, result),
            Event::Settled { ticket, settlement } => self.on_settled(now, ticket, settlement),
            Event::Input { id, line } => self.on_input(id, line),
            Event::Kept(kept) => self.on_kept(now, kept),
            Event::Tick => self.on_tick(now),
        }
        self.send_output();
        std::mem::take(&mut self.effects)
    }

    fn submit(&mut self, now: Instant, works: Vec<Work>) {
        for work in works {
            debug_assert!(work.id > self.last_submitted, "ids ascend");
            self.last_submitted = work.id;
            let aborted = !self.aborted_early.is_empty() && self.aborted_early.remove(&work.id);
            self.queue.push_back(Queued { work, aborted });
        }
        self.advance(now);
    }

    /// Begins what can begin.
    fn advance(&mut self, now: Instant) {
        while let (State::Idle, Some(first)) = (&self.state, self.queue.front()) {
            if matches!(first.work.kind, WorkKind::Call(_)) {
                if !self.dispatch(now) {
                    return;
                }
                continue;
            }
            if !self.calls.is_empty() {
                return;
            }
            let Some(Queued { work, aborted }) = self.queue.pop_front() else {
                return;
            };
            if aborted {
                self.finished(work.id, Outcome::Aborted);
                continue;
            }
            self.effects.push(Effect::Started(work.id));
            match work.kind {
                WorkKind::Snippet { source, exchanges } => {
                    let evaluation = Evaluation::new(
                        work.id,
                        source,
                        exchanges,
                        work.group.filter(|_| work.stop_on_error),
                    );
                    self.evaluate(now, evaluation);
                }
                WorkKind::Clear => self.clear(work.id),
                WorkKind::Turn(Ok(())) => self.finished(work.id, Outcome::Done),
                WorkKind::Turn(Err(error)) => {
                    self.finished(work.id, Outcome::failed(error));
                    if let (Some(group), true) = (&work.group, work.stop_on_error) {
                        self.abort_group(group);
                    }
                }
                // Taken by `dispatch`.
                WorkKind::Call(_) => {}
            }
        }
    }

    fn finished(&mut self, id: WorkId, outcome: Outcome) {
        self.effects.push(Effect::Finished { id, outcome });
    }

    fn clear(&mut self, id: WorkId) {
        self.lineage = Lineage::root();
        self.settling = None;
        match self.namespace {
            RuntimeState::Ready => {
                self.effects.push(Effect::ClearRuntime);
                self.state = State::Clearing(id);
            }
            // It is empty.
            RuntimeState::Absent | RuntimeState::Starting => self.finished(id, Outcome::Done),
        }
    }

    /// Work that waits behind one of its group that failed.
    fn abort_group(&mut self, group: &str) {
        let effects = &mut self.effects;
        self.queue.retain(|queued| {
            let is_of_group = queued.work.group.as_deref() == Some(group);
            if is_of_group {
                effects.push(Effect::Finished {
                    id: queued.work.id,
                    outcome: Outcome::Aborted,
                });
            }
            !is_of_group
        });
    }

    fn interrupt(&mut self, now: Instant, waiting: bool) {
        let waits = if waiting {
            std::mem::take(&mut self.queue)
        } else {
            VecDeque::new()
        };
        if self.is_evaluating() {
            self.interrupt_evaluation(now);
        } else if !self.interrupt_first_call()
            && matches!(self.state, State::Idle)
            && let Some(call) = self.queue.pop_front_if(|first| is_call(&first.work))
        {
            // Its runtime is being started.
            self.finish_interrupted_call(call.work.id);
            self.advance(now);
        }
        for Queued { work, .. } in waits {
            match work.kind {
                WorkKind::Call(_) => self.finish_interrupted_call(work.id),
                _ => {
                    let error = failure::interrupted_early(self.config.subject);
                    self.finished(work.id, Outcome::failed(error));
                }
            }
        }
    }

    fn finish_interrupted_call(&mut self, id: WorkId) {
        let interrupted = CallOutcome::Interrupted {
            restored: NOTHING_LOST,
        };
        let error = failure::call(&interrupted).unwrap_or_default();
        self.finished(id, Outcome::failed(error));
    }

    fn abort(&mut self, now: Instant, id: WorkId, running: bool) {
        if id > self.last_submitted {
            self.aborted_early.insert(id);
        } else if let Ok(at) = self.queue.binary_search_by_key(&id, |it| it.work.id) {
            if let Some(queued) = self.queue.get_mut(at) {
                queued.aborted = true;
            }
            self.advance(now);
        } else if let State::Evaluating(evaluation) = &self.state {
            if evaluation.id == id && running {
                self.interrupt_evaluation(now);
            }
        } else {
            self.abort_call(id, running);
        }
    }

    fn shut_down(&mut self, now: Instant) {
        let waiting = std::mem::take(&mut self.queue);
        if self.is_evaluating() {
            self.end_evaluation(now);
        }
        if let State::Clearing(id) = self.state {
            self.finished(id, Outcome::Aborted);
        }
        self.end_calls(now, || CallOutcome::Interrupted {
            restored: ending::restarted(),
        });
        for queued in waiting {
            self.finished(queued.work.id, Outcome::Aborted);
        }
        self.state = State::ShutDown;
        self.effects.push(Effect::Shutdown);
    }

    fn on_tick(&mut self, now: Instant) {
        match &mut self.state {
            State::Evaluating(evaluation) => {
                if evaluation.output.deadline().is_some_and(|due| due <= now) {
                    evaluation.output.flush(now);
                }
            }
            _ => self.on_calls_tick(now),
        }
    }

    /// Sends what the snippet or the call that runs has shown.
    fn send_output(&mut self) {
        let shown = match &mut self.state {
            State::Evaluating(evaluation) => Some((evaluation.id, evaluation.output.take())),
            _ => self.calls.take_output(),
        };
        if let Some((id, outputs)) = shown {
            self.push_outputs(id, outputs);
        }
    }

    fn push_outputs(&mut self, id: WorkId, outputs: Vec<Output>) {
        let id = Some(id);
        let outputs = outputs.into_iter();
        self.effects
            .extend(outputs.map(|output| Effect::Output { id, output }));
    }

    fn new_run(&mut self) -> RunId {
        self.runs += 1;
        RunId(self.runs)
    }

    fn new_ticket(&mut self) -> Ticket {
        self.tickets += 1;
        Ticket(self.tickets)
    }
}

fn is_call(work: &Work) -> bool {
    matches!(work.kind, WorkKind::Call(Ok(_)))
}

#[cfg(test)]
mod tests;
