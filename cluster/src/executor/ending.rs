//! How a snippet ends: its loads are done, it fails and the compiler says what is left, or it is interrupted.

use std::time::Instant;

use protocol::message::{ErrorInfo, MimeBundle};
use runtime::{Outcome as RunOutcome, Restored, RunId, WhyNot};

use super::evaluation::{Evaluation, Phase};
use super::{
    Effect, Ending, Executor, NOTHING_LOST, Outcome, RuntimeId, State, Ticket, TypesChanged,
};
use crate::failure::{self, PanicLocations};

impl Executor {
    /// A load has come to its end.
    pub(super) fn on_finished(&mut self, now: Instant, id: RunId, outcome: RunOutcome) {
        let recompiles = self.config.types_changed == TypesChanged::Recompile;
        let subject = self.config.subject;
        self.cancel_input();
        let Some(evaluation) = self.evaluation() else {
            return;
        };
        let (load, since) = match &mut evaluation.phase {
            Phase::Running {
                run, load, since, ..
            } if *run == id => (load, *since),
            _ => return,
        };
        match outcome {
            RunOutcome::Completed => {
                *load += 1;
                let (next, interrupted) = (*load, evaluation.interrupted);
                let loads = evaluation.compiled.as_ref().map(|it| &it.artifact.loads);
                if interrupted && loads.is_some_and(|loads| next < loads.len()) {
                    let restored = NOTHING_LOST;
                    self.fail(now, RunOutcome::Interrupted { restored });
                } else {
                    self.run_load(now, next, since);
                }
            }
            RunOutcome::TypesChanged { variables }
                if recompiles && evaluation.compile.without.is_empty() =>
            {
                evaluation.times.wall += now.saturating_duration_since(since);
                if evaluation.interrupted {
                    let error = failure::interrupted_early(subject);
                    return self.end(now, Err(error));
                }
                let note = failure::redefined(subject, &variables);
                evaluation.output.note(now, note);
                evaluation.compile.without = variables;
                evaluation.phase = Phase::Preparing;
                self.prepare(now);
            }
            outcome => self.fail(now, outcome),
        }
    }

    /// The snippet has failed: asks what that means for the lineage, if it means anything.
    pub(super) fn fail(&mut self, now: Instant, outcome: RunOutcome) {
        self.cancel_input();
        let Some(evaluation) = self.evaluation() else {
            return;
        };
        let mut load = 0;
        match evaluation.phase {
            Phase::Running {
                load: at, since, ..
            } => {
                load = at;
                evaluation.times.wall += now.saturating_duration_since(since);
            }
            Phase::Compiling { ticket, .. } => self.effects.push(Effect::CancelCompile(ticket)),
            Phase::Settling { .. } | Phase::Collecting => return,
            Phase::Preparing | Phase::Providing | Phase::Restarting => {}
        }
        let panic = match &outcome {
            RunOutcome::Panicked(panic) => Some(panic.clone()),
            RunOutcome::Returned { .. } => None,
            RunOutcome::Died { restored, .. } | RunOutcome::Interrupted { restored }
                if !restored.variables =>
            {
                self.undo();
                self.variables_lost();
                return self.end_failed(now, &outcome, &PanicLocations::default());
            }
            // The variables are as they were before the first load.
            _ if load == 0 => {
                self.undo();
                return self.end_failed(now, &outcome, &PanicLocations::default());
            }
            // Earlier loads have done their part.
            _ => None,
        };
        let Some(evaluation) = self.evaluation() else {
            return;
        };
        let (request, outdated) = (evaluation.compile.clone(), evaluation.outdated);
        let ticket = self.settle(Ending::Early { request, panic });
        if !outdated {
            self.settling = Some(ticket);
        }
        if let Some(evaluation) = self.evaluation() {
            evaluation.phase = Phase::Settling { ticket, outcome };
        }
    }

    /// Notes the lineage after a run that was undone.
    fn undo(&mut self) {
        if let Some(evaluation) = self.evaluation()
            && !evaluation.outdated
            && let Some(compiled) = &evaluation.compiled
            && let Some(undone) = compiled.undone.clone()
        {
            self.lineage = undone;
        }
    }

    pub(super) fn on_evaluation_settled(
        &mut self,
        now: Instant,
        ticket: Ticket,
        locations: &PanicLocations,
    ) {
        let Some(evaluation) = self.evaluation() else {
            return;
        };
        match &mut evaluation.phase {
            Phase::Preparing => self.prepare(now),
            Phase::Settling {
                ticket: asked,
                outcome,
            } if *asked == ticket => {
                let outcome = std::mem::replace(outcome, RunOutcome::Completed);
                self.end_failed(now, &outcome, locations);
            }
            _ => {}
        }
    }

    pub(super) fn interrupt_evaluation(&mut self, now: Instant) {
        let error = failure::interrupted_early(self.config.subject);
        let Some(evaluation) = self.evaluation() else {
            return;
        };
        match &mut evaluation.phase {
            Phase::Preparing | Phase::Providing => self.end(now, Err(error)),
            Phase::Compiling { ticket, .. } => {
                let ticket = *ticket;
                self.effects.push(Effect::CancelCompile(ticket));
                self.end(now, Err(error));
            }
            Phase::Restarting => {
                let restored = restarted();
                let outcome = RunOutcome::Interrupted { restored };
                self.end_failed(now, &outcome, &PanicLocations::default());
            }
            Phase::Running { run, .. } => {
                let run = *run;
                evaluation.interrupted = true;
                self.cancel_input();
                self.effects.push(Effect::InterruptRun {
                    runtime: RuntimeId::Namespace,
                    run,
                });
            }
            // The lineage is waited for by the next snippet.
            Phase::Settling { outcome, .. } => {
                let outcome = std::mem::replace(outcome, RunOutcome::Completed);
                self.end_failed(now, &outcome, &PanicLocations::default());
            }
            Phase::Collecting => {}
        }
    }

    /// Ends the snippet at once, since the executor ends.
    pub(super) fn end_evaluation(&mut self, now: Instant) {
        self.cancel_input();
        let runs = self.evaluation().is_some_and(|evaluation| {
            matches!(evaluation.phase, Phase::Running { .. } | Phase::Collecting)
        });
        if runs {
            let restored = restarted();
            let outcome = RunOutcome::Interrupted { restored };
            self.end_failed(now, &outcome, &PanicLocations::default());
        } else {
            self.interrupt_evaluation(now);
        }
    }

    pub(super) fn end_failed(
        &mut self,
        now: Instant,
        outcome: &RunOutcome,
        locations: &PanicLocations,
    ) {
        let error = failure::run(self.config.subject, outcome, locations);
        self.end(now, Err(error.unwrap_or_default()));
    }

    pub(super) fn end(&mut self, now: Instant, result: Result<Option<MimeBundle>, ErrorInfo>) {
        if let Some(evaluation) = self.evaluation() {
            evaluation.output.finish(now, false);
        }
        self.send_output();
        let State::Evaluating(evaluation) = std::mem::replace(&mut self.state, State::Idle) else {
            return;
        };
        let Evaluation {
            id, group, times, ..
        } = *evaluation;
        match result {
            Ok(value) => self.finished(id, Outcome::Evaluated { value, times }),
            Err(error) => {
                self.finished(id, Outcome::Failed { error, times });
                if let Some(group) = group {
                    self.abort_group(&group);
                }
            }
        }
        self.advance(now);
    }
}

/// The runtime was ended on purpose.
pub(super) fn restarted() -> Restored {
    Restored {
        variables: false,
        why_not: Some(WhyNot::Restarted),
        ..NOTHING_LOST
    }
}
