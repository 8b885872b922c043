//! The runtimes of an executor: started when they are needed, heard while nothing runs, and the lineage that follows when they are lost.

use std::time::Instant;

use protocol::message::ErrorInfo;
use protocol::message::iopub::{Stream as StreamContent, StreamName};
use runtime::{CallOutcome, Restored, Stream};

use super::{
    Effect, Ending, Executor, IdleOutput, Kept, Outcome, RuntimeId, RuntimeState, Settlement,
    StartRuntime, Ticket, VariablesLost, WorkKind,
};
use crate::Lineage;
use crate::connection::Libraries;
use crate::failure::{self, PanicLocations};
use crate::output::Output;

impl Executor {
    /// Whether the namespace's runtime is there. Otherwise it is started.
    pub(super) fn has_namespace(&mut self) -> bool {
        if self.namespace == RuntimeState::Absent {
            self.variables_lost();
            self.start_namespace(None);
        }
        self.namespace == RuntimeState::Ready
    }

    pub(super) fn start_namespace(&mut self, libraries: Option<Libraries>) {
        self.namespace = RuntimeState::Starting;
        self.effects
            .push(Effect::StartRuntime(StartRuntime::Namespace { libraries }));
    }

    pub(super) fn on_runtime_started(
        &mut self,
        now: Instant,
        runtime: RuntimeId,
        result: Result<(), ErrorInfo>,
    ) {
        match runtime {
            RuntimeId::Namespace => {
                self.namespace = match result {
                    Ok(()) => RuntimeState::Ready,
                    Err(_) => RuntimeState::Absent,
                };
            }
            RuntimeId::Program(program) if result.is_err() => self.programs.forget(program),
            RuntimeId::Program(program) => {
                if !self.programs.started(program) {
                    self.effects.push(Effect::StopRuntime(runtime));
                }
            }
        }
        if self.is_evaluating() {
            if runtime == RuntimeId::Namespace {
                self.on_namespace_started(now, result);
            }
            return;
        }
        if let Err(error) = result
            && let Some(waiting) = self.queue.pop_front_if(
                |first| matches!(&first.work.kind, WorkKind::Call(Ok(call)) if call.runtime == runtime),
            )
        {
            self.finished(waiting.work.id, Outcome::failed(error));
        }
        self.advance(now);
    }

    pub(super) fn on_runtime_event(
        &mut self,
        now: Instant,
        runtime: RuntimeId,
        event: runtime::Event,
    ) {
        if self.is_evaluating() && runtime == RuntimeId::Namespace {
            self.on_evaluation_event(now, event);
        } else if self.calls.are_in(runtime) {
            self.on_call_event(now, runtime, event);
        } else {
            self.on_idle_event(runtime, event);
        }
    }

    /// Something that a thread did which snippets or calls left behind.
    pub(super) fn on_idle_event(&mut self, runtime: RuntimeId, event: runtime::Event) {
        match event {
            runtime::Event::Output { stream, bytes } => match self.config.idle_output {
                IdleOutput::Publish => {
                    let name = match stream {
                        Stream::Stdout => StreamName::Stdout,
                        Stream::Stderr => StreamName::Stderr,
                    };
                    self.publish(name, String::from_utf8_lossy(&bytes).into_owned());
                }
                IdleOutput::Keep => self.keep(Kept::Output { stream, bytes }),
            },
            // The next call begins a program's runtime anew.
            runtime::Event::Lost { .. } if runtime != RuntimeId::Namespace => {}
            runtime::Event::Lost { cause, restored } => {
                let text = failure::lost(self.config.subject, &cause, &restored);
                match self.config.idle_output {
                    IdleOutput::Publish => self.publish(StreamName::Stderr, text),
                    IdleOutput::Keep => self.keep(Kept::Note(text)),
                }
                self.note_restored(runtime, &restored);
            }
            runtime::Event::Input { .. } => self.answer_input(runtime, None),
            _ => {}
        }
    }

    pub(super) fn publish(&mut self, name: StreamName, text: String) {
        let output = Output::Stream(StreamContent { name, text });
        self.effects.push(Effect::Output { id: None, output });
    }

    pub(super) fn keep(&mut self, kept: Kept) {
        self.has_kept = true;
        self.effects.push(Effect::Keep(kept));
    }

    pub(super) fn answer_input(&mut self, runtime: RuntimeId, line: Option<String>) {
        self.effects.push(Effect::AnswerInput { runtime, line });
    }

    pub(super) fn on_runtime_gone(&mut self, now: Instant, runtime: RuntimeId) {
        match runtime {
            RuntimeId::Namespace => self.namespace = RuntimeState::Absent,
            RuntimeId::Program(program) => self.programs.forget(program),
        }
        let gone = || "the runtime has gone".to_owned();
        if self.is_evaluating() {
            if runtime == RuntimeId::Namespace {
                self.fail(now, runtime::Outcome::LoadFailed { error: gone() });
            }
        } else if self.calls.are_in(runtime) {
            self.end_calls(now, || CallOutcome::NotRun { error: gone() });
            self.advance(now);
        }
    }

    /// Variables that are lost take their types with them. Programs have none.
    pub(super) fn note_restored(&mut self, runtime: RuntimeId, restored: &Restored) {
        if !restored.variables && runtime == RuntimeId::Namespace {
            self.variables_lost();
        }
    }

    pub(super) fn variables_lost(&mut self) {
        // What a question from before would be answered does not matter any more.
        self.settling = None;
        if self.lineage == Lineage::root() {
            return;
        }
        match self.config.variables_lost {
            VariablesLost::Root => self.lineage = Lineage::root(),
            VariablesLost::Ask => {
                let lineage = self.lineage.clone();
                let ticket = self.settle(Ending::VariablesLost {
                    lineage,
                    variables: None,
                });
                self.settling = Some(ticket);
            }
        }
    }

    pub(super) fn settle(&mut self, ending: Ending) -> Ticket {
        let ticket = self.new_ticket();
        self.effects.push(Effect::Settle { ticket, ending });
        ticket
    }

    pub(super) fn on_settled(
        &mut self,
        now: Instant,
        ticket: Ticket,
        settlement: Option<Settlement>,
    ) {
        let mut locations = PanicLocations::default();
        let is_known = self.settling == Some(ticket);
        if is_known {
            self.settling = None;
        }
        if let Some(settlement) = settlement {
            if is_known {
                self.lineage = settlement.lineage;
            }
            locations = settlement.locations;
        }
        self.on_evaluation_settled(now, ticket, &locations);
    }
}
