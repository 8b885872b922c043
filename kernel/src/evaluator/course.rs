//! A cell on its way: compiled, run, and both of one mind again should it fail.

use super::waiting::Waiting;
use super::{Ask, Cell, Evaluator, Interrupts, Ready};
use crate::failure::{self, Places};
use cluster::output::{Gatherer, text_bundle};
use compiler::lineages::{self, At, Local, Next};
use compiler::{Failure, Made, Request, Source, Support, Ticket};
use magics::timeit::Times;
use protocol::message::ErrorInfo;
use runtime::{Event, Outcome, RunId, Snippet};
use serde_json::Value;
use std::process::Stdio;
use std::sync::atomic::Ordering;
use std::time::Instant;
use tokio::process::Command;
use tokio::sync::mpsc;

pub(super) struct Course<'a> {
    pub(super) evaluator: &'a Evaluator,
    pub(super) ready: Ready,
    pub(super) cell: &'a Cell,
    pub(super) events: mpsc::UnboundedReceiver<Event>,
    pub(super) interrupts: &'a mut Interrupts,
    pub(super) gatherer: Gatherer,
    pub(super) waiting: Waiting,
    pub(super) times: Times,
    pub(super) ends_in_expression: bool,
}

impl Course<'_> {
    pub(super) async fn follow(&mut self, ask: &mut impl Ask) -> Result<(), ErrorInfo> {
        let Cell { code, shown, .. } = self.cell.clone();
        let mut source = Source { code, shown };
        self.do_local(&mut source).await?;
        let configuration = lineages::configuration(&source.code)
            .map_err(|error| failure::compile(Failure::Refused(error)))?;
        for code in configuration {
            self.take(Source { code, shown: None }, ask).await?;
        }
        self.take(source, ask).await
    }

    /// Does the commands that need no evcxr, and takes them out of the cell.
    async fn do_local(&mut self, source: &mut Source) -> Result<(), ErrorInfo> {
        let (commands, rest) = lineages::take_local(&source.code);
        if commands.is_empty() {
            return Ok(());
        }
        // What is said of the rest of the cell is said of all of it.
        let shown = source.shown.take().unwrap_or_else(|| source.code.clone());
        let mut all = Source {
            code: std::mem::replace(&mut source.code, rest),
            shown: Some(shown),
        };
        source.shown.clone_from(&all.shown);
        all.code.clone_from(&source.code);
        for At { command, range } in commands {
            let done = match command {
                Some(Local::Shell(command)) => self.shell(&command).await?,
                Some(Local::Environment { name, value }) => {
                    let said = format!(
                        "Set {name}={value} (use :restart command to reload child process)"
                    );
                    self.evaluator.environment().insert(name, value);
                    Ok(said)
                }
                Some(Local::Explain) => {
                    let explained = self.ready.lineages.explain();
                    explained.ok_or_else(|| "there is no last error that rustc explains".to_owned())
                }
                Some(Local::LastErrors) => Err(self.ready.lineages.last_errors_as_json()),
                None => Err("`:env` takes KEY=VALUE".to_owned()),
            };
            match done {
                Ok(text) => self.gatherer.display(text_bundle(text)),
                Err(message) => {
                    let lineages = &self.ready.lineages;
                    let refusal = lineages.refusal(&all, self.cell.count, range, &message);
                    return Err(failure::compile(refusal));
                }
            }
        }
        Ok(())
    }

    /// Runs a command of the shell, and gives what it prints, or says how it failed. An interrupt ends it.
    async fn shell(&mut self, command: &str) -> Result<Result<String, String>, ErrorInfo> {
        let mut shell = Command::new("sh");
        shell.arg("-c").arg(command).stdin(Stdio::null());
        shell.stdout(Stdio::piped()).stderr(Stdio::piped());
        shell.envs(self.evaluator.environment().iter());
        // What it starts ends with it.
        shell.process_group(0);
        let failed = |error: std::io::Error| format!("failed to run the shell: {error}");
        let shell = match shell.spawn() {
            Ok(shell) => shell,
            Err(error) => return Ok(Err(failed(error))),
        };
        let group = shell.id().and_then(|id| i32::try_from(id).ok());
        let output = tokio::select! {
            output = shell.wait_with_output() => output,
            _ = self.interrupts.changed() => {
                if let Some(group) = group {
                    // SAFETY: sends a signal, touches no memory. The group's first process has not been waited for.
                    unsafe { libc::killpg(group, libc::SIGKILL) };
                }
                return Err(failure::interrupted());
            }
        };
        let output = match output {
            Ok(output) => output,
            Err(error) => return Ok(Err(failed(error))),
        };
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let errors = text(&output.stderr);
        Ok(match output.status.success() {
            true => Ok((text(&output.stdout) + &errors)
                .trim_end_matches('\n')
                .to_owned()),
            false => Err(format!("the command failed ({}): {errors}", output.status)),
        })
    }

    /// Compiles and runs a cell.
    async fn take(&mut self, mut source: Source, ask: &mut impl Ask) -> Result<(), ErrorInfo> {
        if source.code.trim().is_empty() {
            return Ok(());
        }
        let mut made = self.compile(source.clone()).await?;
        let mut redefined = false;
        loop {
            // A thread that an earlier cell has left may just have taken them with it.
            if self.evaluator.has_lost_variables() {
                made = self.compile(source.clone()).await?;
                continue;
            }
            if made.restarts {
                self.evaluator.set_lineage(made.next.undone.clone());
                self.begin_anew(made.support.take()).await?;
            }
            if !made.lost.is_empty() {
                self.gatherer.note(failure::redefined(&made.lost));
            }
            self.show(&made);
            self.ends_in_expression = made.ends_in_expression;
            self.evaluator.look_ahead(&made.next.completed);
            let start = Instant::now();
            let outcome = self.run(&made, ask).await;
            self.times.wall += start.elapsed();
            match outcome {
                Outcome::Completed => {
                    self.evaluator.set_lineage(made.next.completed);
                    return Ok(());
                }
                Outcome::TypesChanged { variables } if !redefined => {
                    redefined = true;
                    self.gatherer.note(failure::redefined(&variables));
                    self.evaluator.set_lineage(made.next.undone);
                    self.forget(variables).await?;
                    // Its commands have been done.
                    source.code = compiler::without_commands(&source.code);
                    made = self.compile(source.clone()).await?;
                }
                failed => return Err(self.fail(failed, made.next).await),
            }
        }
    }

    /// Has the namespace without these variables.
    async fn forget(&mut self, variables: Vec<String>) -> Result<(), ErrorInfo> {
        let lineages = self.ready.lineages.clone();
        let left = self
            .evaluator
            .with_lineages(lineages, move |lineages, lineage| {
                lineages.without(lineage, Some(&variables))
            });
        self.evaluator
            .set_lineage(left.await.map_err(failure::compile)?);
        Ok(())
    }

    async fn compile(&mut self, source: Source) -> Result<Made, ErrorInfo> {
        let start = Instant::now();
        let ticket = Ticket::default();
        let count = Some(self.cell.count);
        let environment = self.evaluator.environment().clone();
        let compiled = {
            let ticket = ticket.clone();
            self.evaluator
                .with_lineages(self.ready.lineages.clone(), move |lineages, lineage| {
                    let lineage = lineage.to_owned();
                    let request = Request {
                        lineage,
                        source,
                        count,
                        environment,
                    };
                    lineages.compile(&request, &ticket)
                })
        };
        let mut compiled = std::pin::pin!(compiled);
        loop {
            tokio::select! {
                outcome = &mut compiled => {
                    self.gatherer.compile_status(None);
                    self.times.compile += start.elapsed();
                    return outcome.map_err(failure::compile);
                }
                _ = self.interrupts.changed() => {
                    tokio::task::spawn_blocking(move || ticket.give_up());
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
    fn show(&mut self, made: &Made) {
        if made.shown.is_empty() {
            return;
        }
        let data = made
            .shown
            .iter()
            .map(|(mime, text)| {
                (
                    mime.clone(),
                    Value::String(text.trim_end_matches('\n').to_owned()),
                )
            })
            .collect();
        if made.load.is_none() {
            self.gatherer.result(data);
        } else {
            self.gatherer.display(data);
        }
    }

    async fn run(&mut self, made: &Made, ask: &mut impl Ask) -> Outcome {
        let Some(artifact) = made.load.clone() else {
            return Outcome::Completed;
        };
        let snippet = Snippet {
            id: RunId(self.evaluator.shared.runs.fetch_add(1, Ordering::Relaxed)),
            artifact,
            entry: made.entry.to_owned(),
            checkpoint: true,
        };
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

    /// Says what happened in a run that failed, and which lineage the runtime has after it.
    async fn fail(&mut self, outcome: Outcome, next: Next) -> ErrorInfo {
        let places = match &outcome {
            Outcome::Panicked(panic) => {
                let places = self.evaluator.places(&self.ready.lineages, panic.clone());
                places.await
            }
            _ => Places::default(),
        };
        match &outcome {
            Outcome::Panicked(_) | Outcome::Returned { .. } => {
                self.evaluator.set_lineage(next.early);
            }
            Outcome::Died { restored, .. } | Outcome::Interrupted { restored } => {
                self.evaluator.set_lineage(next.undone);
                if !restored.variables {
                    self.evaluator.note_lost_variables();
                }
            }
            _ => self.evaluator.set_lineage(next.undone),
        }
        failure::run(&outcome, &places)
    }

    /// Events that belong to no phase: output, also of threads that go on.
    fn other(&mut self, event: Event) {
        match event {
            Event::Output { stream, bytes } => self.gatherer.bytes(stream, &bytes),
            Event::Lost { cause, restored } => {
                self.gatherer.note(failure::lost(&cause, &restored));
                if !restored.variables {
                    self.evaluator.note_lost_variables();
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
