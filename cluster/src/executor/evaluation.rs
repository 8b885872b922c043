//! A snippet on its way: prepared, compiled, run load by load. How it ends is in `ending`.

use std::sync::Arc;
use std::time::Instant;

use protocol::message::{ErrorInfo, MimeBundle};
use runtime::{Outcome as RunOutcome, RunId, Snippet};

use super::{
    CompileRequest, Compiled, Effect, Ending, Executor, Kept, RuntimeId, Shown, State, Ticket,
    Times, WorkId,
};
use crate::compile::Request;
use crate::failure;
use crate::output::{OutputBuffer, text_bundle};

/// The snippet whose turn it is.
#[derive(Debug)]
pub(super) struct Evaluation {
    pub(super) id: WorkId,
    pub(super) output: OutputBuffer,
    /// What is aborted if it fails.
    pub(super) group: Option<Arc<str>>,
    pub(super) exchanges: bool,
    /// Whether what it takes is in its place.
    pub(super) provided: bool,
    pub(super) compile: CompileRequest,
    pub(super) compiled: Option<Compiled>,
    pub(super) times: Times,
    pub(super) interrupted: bool,
    /// Whether the variables that it was compiled for are lost.
    pub(super) outdated: bool,
    pub(super) phase: Phase,
}

#[derive(Debug)]
pub(super) enum Phase {
    /// Waits for the runtime, and for the lineage that follows from what went wrong before.
    Preparing,
    Providing,
    Compiling {
        ticket: Ticket,
        since: Instant,
    },
    /// Its commands asked for an empty runtime.
    Restarting,
    Running {
        run: RunId,
        /// Which of the artifact's loads.
        load: usize,
        since: Instant,
        /// Whether it waits for a line of input.
        asking: bool,
    },
    /// It failed; the compiler says where, and what is left.
    Settling {
        ticket: Ticket,
        outcome: RunOutcome,
    },
    Collecting,
}

impl Evaluation {
    pub(super) fn new(
        id: WorkId,
        source: String,
        exchanges: bool,
        group: Option<Arc<str>>,
    ) -> Self {
        let request = Request {
            lineage: crate::Lineage::root(),
            source,
        };
        Self {
            id,
            output: OutputBuffer::default(),
            group,
            exchanges,
            provided: !exchanges,
            compile: CompileRequest {
                request,
                without: Vec::new(),
            },
            compiled: None,
            times: Times::default(),
            interrupted: false,
            outdated: false,
            phase: Phase::Preparing,
        }
    }

    fn is_before_run(&self) -> bool {
        matches!(
            self.phase,
            Phase::Preparing | Phase::Providing | Phase::Compiling { .. } | Phase::Restarting
        )
    }
}

impl Executor {
    pub(super) fn evaluation(&mut self) -> Option<&mut Evaluation> {
        match &mut self.state {
            State::Evaluating(evaluation) => Some(evaluation),
            _ => None,
        }
    }

    /// Begins with a snippet.
    pub(super) fn evaluate(&mut self, now: Instant, evaluation: Evaluation) {
        self.state = State::Evaluating(Box::new(evaluation));
        if std::mem::take(&mut self.has_kept) {
            self.effects.push(Effect::ReplayKept);
        }
        self.prepare(now);
    }

    /// Compiles the snippet once everything is there that it needs.
    pub(super) fn prepare(&mut self, now: Instant) {
        if !self.has_namespace() || self.settling.is_some() {
            return;
        }
        let State::Evaluating(evaluation) = &mut self.state else {
            return;
        };
        let id = evaluation.id;
        if !evaluation.provided {
            evaluation.phase = Phase::Providing;
            self.effects.push(Effect::Provide(id));
            return;
        }
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        evaluation.compile.request.lineage.clone_from(&self.lineage);
        evaluation.phase = Phase::Compiling { ticket, since: now };
        let request = evaluation.compile.clone();
        self.effects.push(Effect::Compile {
            ticket,
            id,
            request,
        });
    }

    pub(super) fn on_namespace_started(&mut self, now: Instant, result: Result<(), ErrorInfo>) {
        let phase = self.evaluation().map(|evaluation| &evaluation.phase);
        match (phase, result) {
            (Some(Phase::Preparing | Phase::Restarting), Err(error)) => self.end(now, Err(error)),
            (Some(Phase::Preparing), Ok(())) => self.prepare(now),
            (Some(Phase::Restarting), Ok(())) => self.begin_running(now),
            _ => {}
        }
    }

    pub(super) fn on_provided(&mut self, now: Instant, id: WorkId, result: Result<(), ErrorInfo>) {
        let Some(evaluation) = self.evaluation() else {
            return;
        };
        if evaluation.id != id || !matches!(evaluation.phase, Phase::Providing) {
            return;
        }
        match result {
            Ok(()) => {
                evaluation.provided = true;
                evaluation.phase = Phase::Preparing;
                self.prepare(now);
            }
            Err(error) => self.end(now, Err(error)),
        }
    }

    pub(super) fn on_compile_status(&mut self, id: WorkId, activity: String) {
        if let Some(evaluation) = self.evaluation()
            && evaluation.id == id
            && evaluation.is_before_run()
        {
            evaluation.output.compile_status(Some(activity));
        }
    }

    pub(super) fn on_compiled(
        &mut self,
        now: Instant,
        ticket: Ticket,
        result: Result<Compiled, ErrorInfo>,
    ) {
        let Some(evaluation) = self.evaluation() else {
            return;
        };
        let since = match evaluation.phase {
            Phase::Compiling {
                ticket: asked,
                since,
            } if asked == ticket => since,
            _ => return,
        };
        evaluation.times.compile += now.saturating_duration_since(since);
        evaluation.output.compile_status(None);
        let compiled = match result {
            Ok(compiled) => compiled,
            Err(error) => {
                let without = std::mem::take(&mut evaluation.compile.without);
                if !without.is_empty() && !evaluation.outdated {
                    self.variables_unusable(without);
                }
                return self.end(now, Err(error));
            }
        };
        let restart = compiled.restart.clone();
        evaluation.compiled = Some(compiled);
        match restart {
            Some(restart) => {
                evaluation.phase = Phase::Restarting;
                self.settling = None;
                self.lineage = restart.lineage;
                self.start_namespace(restart.libraries);
            }
            None => self.begin_running(now),
        }
    }

    /// Variables whose types have changed are of no use to what comes next, either.
    fn variables_unusable(&mut self, variables: Vec<String>) {
        let ticket = self.settle(Ending::VariablesLost {
            lineage: self.lineage.clone(),
            variables: Some(variables),
        });
        self.settling = Some(ticket);
    }

    /// Shows what there is to show before anything runs, and runs the first load.
    fn begin_running(&mut self, now: Instant) {
        let config = self.config;
        let Some(evaluation) = self.evaluation() else {
            return;
        };
        evaluation.output.compile_status(None);
        if let Some(compiled) = &mut evaluation.compiled {
            let artifact = &mut compiled.artifact;
            let shown = std::mem::take(&mut artifact.shown);
            if shown.is_empty() {
            } else if config.shown == Shown::ResultIfNothingRuns && artifact.loads.is_empty() {
                evaluation.output.result(now, shown);
            } else {
                evaluation.output.display(now, shown);
            }
            if !artifact.lost.is_empty() {
                let note = failure::redefined(config.subject, &artifact.lost);
                evaluation.output.note(now, note);
            }
            for note in &artifact.notes {
                evaluation.output.note(now, format!("{note}\n"));
            }
        }
        self.send_output();
        self.run_load(now, 0, now);
    }

    /// Runs one of the loads, or ends the snippet after the last. `since`: when the first one began.
    pub(super) fn run_load(&mut self, now: Instant, load: usize, since: Instant) {
        let State::Evaluating(evaluation) = &mut self.state else {
            return;
        };
        let Some(artifact) = evaluation.compiled.as_ref().map(|it| &it.artifact) else {
            return;
        };
        if let Some(path) = artifact.loads.get(load) {
            self.runs += 1;
            let id = RunId(self.runs);
            let snippet = Snippet {
                id,
                artifact: path.clone(),
                entry: artifact.entry.clone(),
                checkpoint: true,
            };
            evaluation.phase = Phase::Running {
                run: id,
                load,
                since,
                asking: false,
            };
            self.effects.push(Effect::Run(snippet));
            return;
        }
        let (lineage, ends_in_expression) = (artifact.lineage.clone(), artifact.ends_in_expression);
        evaluation.times.wall += now.saturating_duration_since(since);
        let value = evaluation.output.finish(now, ends_in_expression);
        let (exchanges, outdated, id) = (evaluation.exchanges, evaluation.outdated, evaluation.id);
        if exchanges {
            evaluation.phase = Phase::Collecting;
        }
        if !outdated {
            self.lineage = lineage;
        }
        if exchanges {
            self.send_output();
            self.effects.push(Effect::Collect { id, value });
        } else {
            self.end(now, Ok(value));
        }
    }

    pub(super) fn on_collected(
        &mut self,
        now: Instant,
        id: WorkId,
        result: Result<Option<MimeBundle>, ErrorInfo>,
    ) {
        if let Some(evaluation) = self.evaluation()
            && evaluation.id == id
            && matches!(evaluation.phase, Phase::Collecting)
        {
            self.end(now, result);
        }
    }

    /// What the namespace's runtime reports while a snippet is evaluated.
    pub(super) fn on_evaluation_event(&mut self, now: Instant, event: runtime::Event) {
        let asks = self.config.asks;
        let subject = self.config.subject;
        let Some(evaluation) = self.evaluation() else {
            return;
        };
        match event {
            runtime::Event::Output { stream, bytes } => {
                evaluation.output.bytes(now, stream, &bytes);
            }
            runtime::Event::Result { id, text } => match evaluation.phase {
                Phase::Running { run, .. } if run == id => {
                    evaluation.output.result(now, text_bundle(text));
                }
                _ => evaluation.output.display(now, text_bundle(text)),
            },
            runtime::Event::Input { prompt, password } => match &mut evaluation.phase {
                Phase::Running { asking, .. } if asks && !evaluation.interrupted => {
                    *asking = true;
                    evaluation.output.flush(now);
                    let id = evaluation.id;
                    self.send_output();
                    self.effects.push(Effect::AskInput {
                        id,
                        prompt,
                        password,
                    });
                }
                _ => self.answer_input(RuntimeId::Namespace, None),
            },
            runtime::Event::Spent { user, system, .. } => {
                let (earlier_user, earlier_system) = evaluation.times.cpu.unwrap_or_default();
                evaluation.times.cpu = Some((earlier_user + user, earlier_system + system));
            }
            runtime::Event::Finished { id, outcome } => self.on_finished(now, id, outcome),
            runtime::Event::Lost { cause, restored } => {
                let note = failure::lost(subject, &cause, &restored);
                evaluation.output.note(now, note);
                if !restored.variables {
                    self.on_variables_lost(now);
                }
            }
            runtime::Event::Started { .. } | runtime::Event::Called { .. } => {}
        }
    }

    /// A thread took the variables with it, while the snippet was on its way.
    fn on_variables_lost(&mut self, now: Instant) {
        self.variables_lost();
        let Some(evaluation) = self.evaluation() else {
            return;
        };
        match evaluation.phase {
            // It is compiled for what is left.
            Phase::Compiling { ticket, .. } => {
                evaluation.phase = Phase::Preparing;
                self.effects.push(Effect::CancelCompile(ticket));
                self.prepare(now);
            }
            Phase::Preparing => self.prepare(now),
            Phase::Running { .. } => evaluation.outdated = true,
            _ => {}
        }
    }

    pub(super) fn on_input(&mut self, id: WorkId, line: Option<String>) {
        if let Some(evaluation) = self.evaluation()
            && evaluation.id == id
            && let Phase::Running { asking, .. } = &mut evaluation.phase
            && std::mem::take(asking)
        {
            self.answer_input(RuntimeId::Namespace, line);
        }
    }

    /// Takes back the question that the snippet has asked.
    pub(super) fn cancel_input(&mut self) {
        if let Some(evaluation) = self.evaluation()
            && let Phase::Running { asking, .. } = &mut evaluation.phase
            && std::mem::take(asking)
        {
            let id = evaluation.id;
            self.effects.push(Effect::CancelInput(id));
        }
    }

    pub(super) fn on_kept(&mut self, now: Instant, kept: Kept) {
        let Some(evaluation) = self.evaluation() else {
            return;
        };
        match kept {
            Kept::Output { stream, bytes } => evaluation.output.bytes(now, stream, &bytes),
            Kept::Note(text) => evaluation.output.note(now, text),
        }
    }
}
