//! A notebook that keeps what it is shown, and engines that play a script.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;

use super::super::*;
use crate::event::{plain, text_of};

/// What a fake engine does with a snippet, step by step.
#[derive(Clone, Debug)]
pub(super) enum Step {
    Say(EngineEvent),
    /// Seconds.
    Sleep(f64),
    /// Goes on when it gets a signal, and says that.
    AwaitSignal,
    /// Says nothing any more, ever.
    Hang,
}

#[derive(Debug, Default)]
pub(super) struct FakeNotebook {
    pub(super) shown: Vec<Shown>,
    pub(super) evaluated: Vec<String>,
    pub(super) values: VecDeque<Result<Evaluated, Failure>>,
    pub(super) variables: Vec<Variable>,
    /// When the user interrupts.
    pub(super) interrupts: VecDeque<Instant>,
}

impl FakeNotebook {
    /// Text that was shown, one entry a message.
    pub(super) fn texts(&self) -> Vec<String> {
        self.shown
            .iter()
            .map(|shown| match shown {
                Shown::Stream { text, .. } => text.clone(),
                Shown::Display { data, .. } | Shown::Update { data, .. } => text_of(data)
                    .replace("\x1b[0;31m", "")
                    .replace("\x1b[0m", ""),
                Shown::Compiling { activity } => activity.clone().unwrap_or_default(),
            })
            .collect()
    }

    pub(super) fn interrupt_after(&mut self, seconds: f64) {
        self.interrupts
            .push_back(Instant::now() + Duration::from_secs_f64(seconds));
    }
}

impl Notebook for FakeNotebook {
    fn at_boundary(&self, text: &str) -> bool {
        text.matches(['{', '(']).count() == text.matches(['}', ')']).count()
    }

    async fn evaluate(&mut self, code: &Code) -> Result<Evaluated, Failure> {
        self.evaluated.push(code.source());
        self.values
            .pop_front()
            .unwrap_or_else(|| Ok(Evaluated::default()))
    }

    fn show(&mut self, shown: Shown) {
        self.shown.push(shown);
    }

    async fn variables(&mut self) -> Vec<Variable> {
        self.variables.clone()
    }

    async fn checkpoint(&mut self, on: Option<bool>) -> Result<String, Failure> {
        Ok(format!("checkpoint {on:?}\n"))
    }

    async fn interrupted(&mut self) {
        match self.interrupts.front() {
            Some(at) => {
                tokio::time::sleep_until(*at).await;
                self.interrupts.pop_front();
            }
            None => std::future::pending().await,
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct FakeEngines {
    /// `None`: no cluster.
    pub(super) ids: Option<Vec<EngineId>>,
    /// What the engine of that number does; others say `Done`.
    pub(super) scripts: Vec<(u32, Vec<Step>)>,
    /// The controller does not answer.
    pub(super) silent: bool,
    /// Nothing can be sent.
    pub(super) stuck: bool,
    pub(super) executed: Vec<(Vec<u32>, String, How)>,
    pub(super) signals: Vec<(Vec<u32>, i32)>,
    pub(super) commands: Vec<String>,
    pub(super) signalled: Option<tokio::sync::watch::Sender<u32>>,
}

impl FakeEngines {
    pub(super) fn with(count: u32) -> FakeEngines {
        FakeEngines {
            ids: Some((0..count).map(EngineId).collect()),
            ..FakeEngines::default()
        }
    }

    pub(super) fn script(mut self, engine: u32, steps: Vec<Step>) -> FakeEngines {
        self.scripts.push((engine, steps));
        self
    }

    fn cluster(&self) -> Cluster {
        Cluster {
            name: "default".to_owned(),
            ids: self.ids.clone().unwrap_or_default(),
            details: vec!["transport ipc".to_owned()],
        }
    }
}

fn numbers(ids: &[EngineId]) -> Vec<u32> {
    ids.iter().map(|id| id.0).collect()
}

impl Engines for FakeEngines {
    async fn ids(&mut self) -> Result<Option<Vec<EngineId>>, Failure> {
        if self.silent {
            std::future::pending::<()>().await;
        }
        Ok(self.ids.clone())
    }

    async fn execute(
        &mut self,
        targets: &[EngineId],
        code: &Code,
        how: How,
    ) -> Result<Run, Failure> {
        if self.stuck {
            std::future::pending::<()>().await;
        }
        self.executed.push((numbers(targets), code.source(), how));
        let (sender, events) = mpsc::unbounded_channel();
        let signalled = self
            .signalled
            .get_or_insert_with(|| tokio::sync::watch::Sender::new(0));
        for id in targets {
            let script = self.scripts.iter().find(|(engine, _)| *engine == id.0);
            let steps = script.map_or_else(
                || vec![Step::Say(EngineEvent::Done)],
                |(_, steps)| steps.clone(),
            );
            let (id, sender) = (*id, sender.clone());
            let mut signal = signalled.subscribe();
            tokio::spawn(async move {
                for step in steps {
                    match step {
                        Step::Say(event) => drop(sender.send((id, event))),
                        Step::Sleep(seconds) => {
                            tokio::time::sleep(Duration::from_secs_f64(seconds)).await;
                        }
                        Step::AwaitSignal => {
                            let _ = signal.changed().await;
                            let failure = Failure::new("interrupted", "the cell was interrupted");
                            let _ = sender.send((id, EngineEvent::error(failure)));
                        }
                        Step::Hang => std::future::pending().await,
                    }
                }
            });
        }
        Ok(Run {
            id: format!("run{}", self.executed.len()),
            events,
        })
    }

    async fn signal(&mut self, targets: &[EngineId], signal: Signal) -> Result<(), Failure> {
        self.signals.push((numbers(targets), signal.0));
        if let Some(signalled) = &self.signalled {
            signalled.send_modify(|count| *count += 1);
        }
        Ok(())
    }

    async fn start(&mut self, n: Option<u32>) -> Result<Cluster, Failure> {
        self.commands.push(format!("start {n:?}"));
        self.ids = Some((0..n.unwrap_or(2)).map(EngineId).collect());
        Ok(self.cluster())
    }

    async fn stop(&mut self) -> Result<String, Failure> {
        self.commands.push("stop".to_owned());
        self.ids = None;
        Ok("The cluster is stopped.".to_owned())
    }

    async fn scale(&mut self, n: u32) -> Result<Cluster, Failure> {
        self.commands.push(format!("scale {n}"));
        self.ids = Some((0..n).map(EngineId).collect());
        Ok(self.cluster())
    }

    async fn restart(&mut self) -> Result<Cluster, Failure> {
        self.commands.push("restart".to_owned());
        Ok(self.cluster())
    }

    async fn status(&mut self) -> Result<Option<Cluster>, Failure> {
        Ok(self.ids.is_some().then(|| self.cluster()))
    }
}

pub(super) fn say(text: &str) -> Step {
    Step::Say(EngineEvent::Stream {
        name: crate::StreamName::Stdout,
        text: text.to_owned(),
    })
}

pub(super) fn value(count: u32, text: &str) -> Step {
    Step::Say(EngineEvent::Result {
        count,
        data: plain(text),
        metadata: serde_json::Map::new(),
    })
}

pub(super) fn done() -> Step {
    Step::Say(EngineEvent::Done)
}

pub(super) fn fails(ename: &str, evalue: &str) -> Step {
    Step::Say(EngineEvent::error(Failure::new(ename, evalue)))
}
