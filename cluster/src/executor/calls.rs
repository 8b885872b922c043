//! Calls in flight: while one runs, the next ones are with the runtime already.

use std::collections::VecDeque;
use std::time::Instant;

use runtime::{CallOutcome, RunId, Span};

use super::{
    AHEAD, CallReport, CallWork, Effect, Executor, LONG_CALL, Outcome, Queued, RuntimeId, WorkId,
    WorkKind,
};
use crate::failure;
use crate::output::{Output, OutputBuffer, text_bundle};

/// The calls that are with a runtime, oldest first.
#[derive(Debug, Default)]
pub(super) struct Calls {
    /// Where they are.
    runtime: Option<RuntimeId>,
    in_flight: VecDeque<InFlight>,
    /// What the first one prints.
    output: Option<OutputBuffer>,
    turn: Turn,
}

#[derive(Debug)]
struct InFlight {
    id: WorkId,
    run: RunId,
    sent: Instant,
    aborted: bool,
}

/// The turn of the first call.
#[derive(Clone, Copy, Debug, Default)]
enum Turn {
    Since(Instant),
    #[default]
    Announced,
}

impl Calls {
    pub(super) fn is_empty(&self) -> bool {
        self.in_flight.is_empty()
    }

    /// Whether there are some, in this runtime.
    pub(super) fn are_in(&self, runtime: RuntimeId) -> bool {
        !self.is_empty() && self.runtime == Some(runtime)
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        if self.is_empty() {
            return None;
        }
        let text = self.output.as_ref().and_then(OutputBuffer::deadline);
        let turn = match self.turn {
            Turn::Since(since) => Some(since + LONG_CALL),
            Turn::Announced => None,
        };
        [text, turn].into_iter().flatten().min()
    }

    pub(super) fn take_output(&mut self) -> Option<(WorkId, Vec<Output>)> {
        let first = self.in_flight.front()?;
        Some((first.id, self.output.as_mut()?.take()))
    }

    /// What the call that is running prints goes here.
    fn output(&mut self) -> &mut OutputBuffer {
        self.output.get_or_insert_default()
    }
}

impl Executor {
    /// Hands the first work of the queue, a call, to its runtime, or says at once why it is not made. False if it has to wait.
    pub(super) fn dispatch(&mut self, now: Instant) -> bool {
        if self.calls.in_flight.len() >= AHEAD {
            return false;
        }
        let Some(first) = self.queue.front() else {
            return false;
        };
        if let (WorkKind::Call(Ok(wanted)), false) = (&first.work.kind, first.aborted) {
            // Calls come back in their order only from one runtime.
            if !self.calls.is_empty() && self.calls.runtime != Some(wanted.runtime) {
                return false;
            }
            let is_ready = match wanted.runtime {
                RuntimeId::Namespace => self.has_namespace(),
                RuntimeId::Program(program) => {
                    let path = &wanted.call.artifact;
                    self.programs.is_ready(program, path, &mut self.effects)
                }
            };
            if !is_ready {
                return false;
            }
        }
        let Some(Queued { work, aborted }) = self.queue.pop_front() else {
            return false;
        };
        let id = work.id;
        let CallWork { mut call, runtime } = match work.kind {
            WorkKind::Call(Ok(call)) if !aborted => call,
            WorkKind::Call(Err(error)) => {
                self.finished(id, Outcome::failed(error));
                return true;
            }
            _ => {
                self.finished(id, Outcome::Aborted);
                return true;
            }
        };
        call.id = self.new_run();
        if self.calls.is_empty() {
            self.calls.runtime = Some(runtime);
            self.calls.turn = Turn::Since(now);
        }
        self.calls.in_flight.push_back(InFlight {
            id,
            run: call.id,
            sent: now,
            aborted: false,
        });
        self.effects.push(Effect::Call { runtime, call });
        true
    }

    pub(super) fn on_call_event(
        &mut self,
        now: Instant,
        runtime: RuntimeId,
        event: runtime::Event,
    ) {
        match event {
            runtime::Event::Called { id, outcome, span } => {
                let Some(call) = self.calls.in_flight.pop_front_if(|first| first.run == id) else {
                    return;
                };
                if let CallOutcome::Died { restored, .. } | CallOutcome::Interrupted { restored } =
                    &outcome
                {
                    self.note_restored(runtime, restored);
                }
                self.finish_call(now, call, outcome, span);
                self.advance(now);
            }
            runtime::Event::Output { stream, bytes } => {
                self.calls.output().bytes(now, stream, &bytes);
            }
            runtime::Event::Result { text, .. } => {
                self.calls.output().display(now, text_bundle(text));
            }
            runtime::Event::Lost { cause, restored } => {
                let text = failure::lost(self.config.subject, &cause, &restored);
                self.calls.output().note(now, text);
                self.note_restored(runtime, &restored);
            }
            runtime::Event::Input { .. } => self.answer_input(runtime, None),
            runtime::Event::Started { .. }
            | runtime::Event::Spent { .. }
            | runtime::Event::Finished { .. } => {}
        }
    }

    /// Reports the call that was the first.
    fn finish_call(
        &mut self,
        now: Instant,
        call: InFlight,
        outcome: CallOutcome,
        span: Option<Span>,
    ) {
        let announced = matches!(self.calls.turn, Turn::Announced);
        self.calls.turn = Turn::Since(now);
        let output = self.calls.output.take();
        let printed = output.is_some();
        if let Some(mut output) = output {
            output.finish(now, false);
            self.push_outputs(call.id, output.take());
        }
        let report = CallReport {
            aborted: call.aborted && matches!(outcome, CallOutcome::Interrupted { .. }),
            outcome,
            span,
            sent: call.sent,
            printed,
            announced,
        };
        self.finished(call.id, Outcome::Called(report));
    }

    /// Ends all calls at once.
    pub(super) fn end_calls(&mut self, now: Instant, outcome: impl Fn() -> CallOutcome) {
        while let Some(call) = self.calls.in_flight.pop_front() {
            self.finish_call(now, call, outcome(), None);
        }
    }

    /// Interrupts the call that runs; false if there is none.
    pub(super) fn interrupt_first_call(&mut self) -> bool {
        let Some(first) = self.calls.in_flight.front() else {
            return false;
        };
        let run = first.run;
        self.interrupt_run(run);
        true
    }

    /// The first one is running; those behind it can still be stopped.
    pub(super) fn abort_call(&mut self, id: WorkId, running: bool) {
        let mut calls = self.calls.in_flight.iter_mut().enumerate();
        let Some((at, call)) = calls.find(|(_, call)| call.id == id) else {
            return;
        };
        if at > 0 {
            call.aborted = true;
        } else if !running {
            return;
        }
        let run = call.run;
        self.interrupt_run(run);
    }

    fn interrupt_run(&mut self, run: RunId) {
        if let Some(runtime) = self.calls.runtime {
            self.effects.push(Effect::InterruptRun { runtime, run });
        }
    }

    pub(super) fn on_calls_tick(&mut self, now: Instant) {
        let Some(first) = self.calls.in_flight.front() else {
            return;
        };
        if let Turn::Since(since) = self.calls.turn
            && since + LONG_CALL <= now
        {
            self.calls.turn = Turn::Announced;
            self.effects.push(Effect::Started(first.id));
        }
        if let Some(output) = &mut self.calls.output
            && output.deadline().is_some_and(|due| due <= now)
        {
            output.flush(now);
        }
    }
}
