//! A cell on its way: compiled, run, and both of one mind again should it fail.

use super::waiting::Waiting;
use super::{Ask, Cell, Evaluator, Interrupts, Ready};
use crate::failure::{self, Places};
use crate::kernel::lock;
use cluster::output::{Gatherer, text_bundle};
use compiler::{Compiled, Failure, Source, Support, Undo};
use magics::timeit::Times;
use protocol::message::ErrorInfo;
use runtime::{Event, Outcome, RunId, Snippet};
use serde_json::Value;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot};

/// How often it is looked whether evcxr has started another process for a cell that was interrupted.
const STOP_INTERVAL: Duration = Duration::from_millis(100);

pub(super) struct Course<'a> {
    pub(super) evaluator: &'a Evaluator,
    pub(super) ready: Ready,
    pub(super) cell: &'a Cell,
    pub(super) events: mpsc::UnboundedReceiver<Event>,
    pub(super) interrupts: &'a mut Interrupts,
    pub(super) gatherer: Gatherer,
    pub(super) waiting: Waiting,
    pub(super) times: Times,
}

impl Course<'_> {
    pub(super) async fn follow(&mut self, ask: &mut impl Ask) -> Result<(), ErrorInfo> {
        let mut compiled = self.compile(None).await?;
        let mut redefined = false;
        loop {
            if compiled.restarted {
                self.begin_anew(compiled.support.take()).await?;
            }
            if !compiled.lost.is_empty() {
                self.gatherer.note(failure::redefined(&compiled.lost));
            }
            self.show(&compiled);
            let start = Instant::now();
            let ran = self.run_all(&compiled, ask).await;
            self.times.wall += start.elapsed();
            match ran? {
                None => return Ok(()),
                Some(variables) if !redefined => {
                    redefined = true;
                    self.gatherer.note(failure::redefined(&variables));
                    compiled = self.compile(Some(variables)).await?;
                }
                Some(variables) => return Err(failure::types_changed(&variables)),
            }
        }
    }

    /// Compiles the cell; `without` variables whose types it redefined.
    async fn compile(&mut self, without: Option<Vec<String>>) -> Result<Compiled, ErrorInfo> {
        let start = Instant::now();
        let (answer, mut answered) = oneshot::channel();
        // Set by whichever comes first, the end of the compile or an interrupt.
        let settled = Arc::new(AtomicBool::new(false));
        let compiled = Arc::clone(&settled);
        let at_work = Arc::new(Mutex::new(false));
        let work = Work(Arc::clone(&at_work));
        let Cell { code, shown, count } = self.cell.clone();
        let source = Source { code, shown };
        self.ready.session.submit(move |notebook| {
            *lock(&work.0) = true;
            if compiled.load(Ordering::SeqCst) {
                return;
            }
            let outcome = match without {
                None => notebook.compile(count, &source),
                Some(variables) => notebook.compile_without(count, &source, &variables),
            };
            if !compiled.swap(true, Ordering::SeqCst) {
                // Nobody waits when the kernel shuts down.
                let _ = answer.send(outcome);
            } else if outcome.is_ok() {
                notebook.undo(Undo::Everything);
            }
            drop(work);
            notebook.teach();
        });
        loop {
            tokio::select! {
                outcome = &mut answered => {
                    self.gatherer.compile_status(None);
                    self.times.compile += start.elapsed();
                    return match outcome {
                        Ok(Ok(compiled)) => Ok(compiled),
                        Ok(Err(failed)) => Err(failure::compile(failed)),
                        Err(_) => Err(failure::compile(Failure::Panicked("no answer".to_owned()))),
                    };
                }
                _ = self.interrupts.changed() => {
                    if settled.swap(true, Ordering::SeqCst) {
                        if let Ok(Ok(_)) = answered.await {
                            self.ready.session.submit(|notebook| notebook.undo(Undo::Everything));
                        }
                    } else {
                        tokio::task::spawn_blocking(move || stop(&at_work));
                    }
                    return Err(failure::interrupted_early());
                }
                Some(event) = self.events.recv() => self.other(event),
                activity = self.waiting.activity() => self.gatherer.compile_status(Some(activity)),
            }
        }
    }

    /// Begins anew with an empty runtime, which gets the kernel's present environment (evcxr's `:env` changes it); for another
    /// toolchain with its support library.
    async fn begin_anew(&mut self, support: Option<Support>) -> Result<(), ErrorInfo> {
        self.ready.runtime.shutdown().await;
        self.ready.support = support.unwrap_or_else(|| self.ready.support.clone());
        let executable = self.evaluator.shared.executable.clone();
        self.ready.runtime = self
            .evaluator
            .start_runtime(executable, &self.ready.support)
            .await
            .map_err(|message| failure::not_ready(&message))?;
        self.evaluator
            .shared
            .ready
            .send_replace(Some(Ok(self.ready.clone())));
        Ok(())
    }

    /// Shows what the cell's commands have to say; it is the result of a cell that has nothing else.
    fn show(&mut self, compiled: &Compiled) {
        if compiled.shown.is_empty() {
            return;
        }
        let data = compiled
            .shown
            .iter()
            .map(|(mime, text)| {
                (
                    mime.clone(),
                    Value::String(text.trim_end_matches('\n').to_owned()),
                )
            })
            .collect();
        if compiled.artifacts.is_empty() {
            self.gatherer.result(data);
        } else {
            self.gatherer.display(data);
        }
    }

    /// Runs what was compiled. Gives the variables whose types were redefined, if that kept it from running.
    async fn run_all(
        &mut self,
        compiled: &Compiled,
        ask: &mut impl Ask,
    ) -> Result<Option<Vec<String>>, ErrorInfo> {
        for artifact in &compiled.artifacts {
            let snippet = Snippet {
                id: RunId(self.evaluator.shared.runs.fetch_add(1, Ordering::Relaxed)),
                artifact: artifact.clone(),
                entry: compiler::ENTRY.to_owned(),
                checkpoint: true,
            };
            match self.run(snippet, ask).await {
                Outcome::Completed => {}
                Outcome::TypesChanged { variables } => return Ok(Some(variables)),
                failed => return Err(self.fail(failed).await),
            }
        }
        Ok(None)
    }

    async fn run(&mut self, snippet: Snippet, ask: &mut impl Ask) -> Outcome {
        let id = snippet.id;
        self.ready.runtime.run(snippet);
        loop {
            let due = self.gatherer.due();
            tokio::select! {
                biased;
                _ = self.interrupts.changed() => self.ready.runtime.interrupt(id),
                event = self.events.recv() => match event {
                    Some(Event::Finished { id: finished, outcome }) if finished == id => return outcome,
                    Some(Event::Result { text, .. }) => self.gatherer.result(text_bundle(text)),
                    Some(Event::Input { prompt, password }) => {
                        self.gatherer.send();
                        tokio::select! {
                            line = ask.ask(prompt, password) => self.ready.runtime.input(line),
                            _ = self.interrupts.changed() => self.ready.runtime.interrupt(id),
                        }
                    }
                    Some(event) => self.other(event),
                    None => return Outcome::LoadFailed { error: "the runtime has gone".to_owned() },
                },
                () = due => self.gatherer.send(),
            }
        }
    }

    /// Makes evcxr's books true again after a run that failed, and says what happened.
    async fn fail(&mut self, outcome: Outcome) -> ErrorInfo {
        let undo = match &outcome {
            Outcome::Panicked(_) | Outcome::Returned { .. } => Undo::NewVariables,
            Outcome::Died { restored, .. } | Outcome::Interrupted { restored }
                if !restored.variables =>
            {
                Undo::Lost
            }
            _ => Undo::Everything,
        };
        let places = match &outcome {
            Outcome::Panicked(panic) => self.evaluator.places(panic.clone()).await,
            _ => Places::default(),
        };
        self.ready
            .session
            .submit(move |notebook| notebook.undo(undo));
        failure::run(&outcome, &places)
    }

    /// Events that belong to no phase: output, also of threads that go on.
    fn other(&mut self, event: Event) {
        match event {
            Event::Output { stream, bytes } => self.gatherer.bytes(stream, &bytes),
            Event::Lost { cause, restored } => {
                self.gatherer.note(failure::lost(&cause, &restored));
                if !restored.variables {
                    self.ready
                        .session
                        .submit(|notebook| notebook.undo(Undo::Lost));
                }
            }
            Event::Input { .. } => self.ready.runtime.input(None),
            Event::Result { text, .. } => self.gatherer.display(text_bundle(text)),
            Event::Spent { user, system, .. } => {
                let (so_far_user, so_far_system) = self.times.cpu.unwrap_or_default();
                self.times.cpu = Some((so_far_user + user, so_far_system + system));
            }
            Event::Started { .. } | Event::Finished { .. } | Event::Called { .. } => {}
        }
    }

    /// Takes in what came before the cell's end and was not waited for.
    pub(super) fn take_in_the_rest(&mut self) {
        while let Ok(event) = self.events.try_recv() {
            self.other(event);
        }
    }
}

/// Says that evcxr is at work for a cell, until it is dropped.
struct Work(Arc<Mutex<bool>>);

impl Drop for Work {
    fn drop(&mut self) {
        *lock(&self.0) = false;
    }
}

/// Kills what evcxr has started for a cell, and what it starts next, until it comes back. Blocks.
fn stop(at_work: &Mutex<bool>) {
    loop {
        {
            // evcxr starts nothing for the next cell meanwhile.
            let at_work = lock(at_work);
            if !*at_work {
                return;
            }
            compiler::interrupt_compiles();
        }
        std::thread::sleep(STOP_INTERVAL);
    }
}
