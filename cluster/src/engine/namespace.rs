//! A namespace: one runtime, and the lineage of what has run in it. Compiles and runs one snippet at a time. Calls go to this runtime or to
//! that of a program (see `programs`), to one of them at a time.

use std::collections::{HashMap, VecDeque};
use std::ffi::OsStr;
use std::process::Command;

use bytes::Bytes;
use protocol::Message;
use protocol::message::iopub::StreamName;
use protocol::message::{ErrorInfo, MimeBundle};
use runtime::{Call, CallOutcome, Event, Outcome, Restored, RunId, Runtime, Snippet};
use serde_json::Value;
use tokio::sync::{mpsc, watch};

use super::Config;
use super::programs::{Program, Programs};
use super::snippet::{Exchange, Pieces};
use crate::compile::{Artifact, Client, Ended, Place, Request, Trouble};
use crate::connection::{EngineFile, Libraries};
use crate::failure::{PanicLocations, SourceLocation, Subject};
use crate::output::{Gatherer, Output, text_bundle};
use crate::{EngineId, Lineage, failure};

/// Artifacts that are remembered.
const KNOWN: usize = 4096;

/// The next event of a runtime; never resolves without one.
async fn next(running: &mut Option<Running>) -> Option<Event> {
    match running {
        Some(running) => running.events.recv().await,
        None => std::future::pending().await,
    }
}

/// The engine's number, for snippets that share work between them.
const ENGINE_ID: &str = "CHORUS_ENGINE_ID";
/// The folder through which snippets take and give values.
const PIECES: &str = "CHORUS_PIECES";

pub(super) struct Namespace {
    config: Config,
    engine: Option<EngineId>,
    libraries: Option<Libraries>,
    compiler: Option<Client>,
    running: Option<Running>,
    /// Where snippets take and give values; nothing if there is no place for that.
    pieces: Option<Pieces>,
    programs: Programs,
    /// Whose closures are called; without, those of cells.
    calling: Option<Program>,
    lineage: Lineage,
    known: HashMap<Request, Artifact>,
    oldest: VecDeque<Request>,
    runs: u64,
}

/// A runtime and what it reports.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) runtime: Runtime,
    pub(super) events: mpsc::UnboundedReceiver<Event>,
}

impl Namespace {
    pub(super) fn new(config: Config, file: &EngineFile) -> Self {
        let compiler = file.compile.and_then(|port| {
            Client::connect(&file.endpoint(port), &file.common.key)
                .inspect_err(|error| tracing::error!("{}", error.chain()))
                .ok()
        });
        Self {
            libraries: config.libraries.clone().or(file.libraries.clone()),
            config,
            engine: None,
            compiler,
            running: None,
            pieces: None,
            programs: Programs::default(),
            calling: None,
            lineage: Lineage::root(),
            known: HashMap::new(),
            oldest: VecDeque::new(),
            runs: 0,
        }
    }

    fn compiler(&self) -> Result<&Client, ErrorInfo> {
        self.compiler.as_ref().ok_or_else(|| {
            failure::plain(
                "no compiler",
                "The connection file names no compiler, so this engine cannot compile snippets.",
            )
        })
    }

    /// The engine that runtimes are told they belong to, from the next one on.
    pub(super) fn set_engine(&mut self, engine: EngineId) {
        self.engine = Some(engine);
    }

    /// Starts the runtime, if there is none.
    pub(super) async fn start(&mut self) -> Result<(), ErrorInfo> {
        if self.running.is_some() {
            return Ok(());
        }
        let libraries = match &self.libraries {
            Some(libraries) => libraries.clone(),
            None => self.compiler()?.libraries().await.map_err(trouble)?,
        };
        let mut command = self.command(self.config.runtime.get_program());
        command.args(self.config.runtime.get_args());
        let pieces = Pieces::make()
            .inspect_err(|error| tracing::warn!(%error, "failed to make a folder for pieces"))
            .ok();
        if let Some(pieces) = &pieces {
            command.env(PIECES, pieces.path());
        }
        let mut config = runtime::Config::new(command, libraries.support.clone());
        config.preload = libraries.preload.clone();
        config.checkpoint_limit = self.config.checkpoint_limit;
        let (runtime, events) = Runtime::start(config)
            .await
            .map_err(|error| failure::plain("not ready", format!("No snippet can run: {error}")))?;
        self.libraries = Some(libraries);
        self.lineage = Lineage::root();
        self.running = Some(Running { runtime, events });
        self.pieces = pieces;
        Ok(())
    }

    /// Runs a program as a runtime of this engine.
    fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        if let Some(engine) = self.engine {
            command.env(ENGINE_ID, engine.to_string());
        }
        command
    }

    /// Forgets everything.
    pub(super) async fn clear(&mut self) {
        if let Some(running) = &self.running {
            running.runtime.restart().await;
        }
        self.lineage = Lineage::root();
    }

    pub(super) async fn shutdown(self) {
        if let Some(running) = self.running {
            running.runtime.shutdown().await;
        }
        self.programs.shutdown().await;
    }

    /// What happens while no snippet runs, as text for a stream.
    pub(super) async fn idle(&mut self) -> (StreamName, String) {
        loop {
            let (program, event) = tokio::select! {
                event = next(&mut self.running) => (false, event),
                event = self.programs.idle() => (true, Some(event)),
            };
            match event {
                Some(Event::Output { stream, bytes }) => {
                    let name = match stream {
                        runtime::Stream::Stdout => StreamName::Stdout,
                        runtime::Stream::Stderr => StreamName::Stderr,
                    };
                    return (name, String::from_utf8_lossy(&bytes).into_owned());
                }
                // The next call begins a program's runtime anew.
                Some(Event::Lost { .. } | Event::Input { .. }) if program => {}
                Some(Event::Lost { cause, restored }) => {
                    if !restored.variables {
                        self.lineage = Lineage::root();
                    }
                    return (
                        StreamName::Stderr,
                        failure::lost(Subject::Snippet, &cause, &restored),
                    );
                }
                Some(Event::Input { .. }) => {
                    if let Some(running) = &self.running {
                        running.runtime.input(None);
                    }
                }
                Some(_) => {}
                None => self.running = None,
            }
        }
    }

    /// For a snippet or a call.
    pub(super) fn new_id(&mut self) -> RunId {
        self.runs += 1;
        RunId(self.runs)
    }

    /// Where a call belongs: to a program, or without to what cells made.
    pub(super) fn home(&self, call: &Call, executable: bool) -> Result<Option<Program>, ErrorInfo> {
        executable.then(|| Program::at(&call.artifact)).transpose()
    }

    /// Whether calls of this home are what goes on.
    pub(super) fn calls_go_to(&self, home: Option<Program>) -> bool {
        self.calling == home
    }

    /// Starts the runtime for calls of this home, if it is not there. No others are under way.
    pub(super) async fn start_calls(
        &mut self,
        call: &Call,
        home: Option<Program>,
    ) -> Result<(), ErrorInfo> {
        self.calling = home;
        match home {
            None => self.start().await,
            Some(program) => {
                let command = self.command(&call.artifact);
                let limit = self.config.checkpoint_limit;
                self.programs.start(program, command, limit).await
            }
        }
    }

    /// The runtime that calls go to.
    fn caller(&mut self) -> Option<&mut Running> {
        match self.calling {
            None => self.running.as_mut(),
            Some(program) => self.programs.get(program),
        }
    }

    /// Hands a call to the runtime, which is there; `event` tells how it went.
    pub(super) fn call(&mut self, call: &Call) {
        if let Some(running) = self.caller() {
            running.runtime.call(call);
        }
    }

    pub(super) fn interrupt(&mut self, id: RunId) {
        if let Some(running) = self.caller() {
            running.runtime.interrupt(id);
        }
    }

    /// What happens while calls are under way; `None` when the runtime has gone.
    pub(super) async fn event(&mut self) -> Option<Event> {
        let running = self.caller()?;
        let event = running.events.recv().await;
        match &event {
            Some(Event::Input { .. }) => running.runtime.input(None),
            Some(Event::Lost { restored, .. }) => self.note_restored(restored),
            Some(_) => {}
            None => match self.calling {
                None => self.running = None,
                Some(program) => self.programs.forget(program),
            },
        }
        event
    }

    /// Variables that are lost take their types with them. Programs have none.
    fn note_restored(&mut self, restored: &Restored) {
        if !restored.variables && self.calling.is_none() {
            self.lineage = Lineage::root();
        }
    }

    /// A call may have taken the variables with it.
    pub(super) fn note_outcome(&mut self, outcome: &CallOutcome) {
        if let CallOutcome::Died { restored, .. } | CallOutcome::Interrupted { restored } = outcome
        {
            self.note_restored(restored);
        }
    }

    fn pieces(&self) -> Result<&Pieces, String> {
        self.pieces.as_ref().ok_or_else(|| {
            "this engine has no folder through which values could come and go; its log says why"
                .to_owned()
        })
    }

    /// Puts there what a snippet takes.
    pub(super) async fn put(
        &mut self,
        exchange: Exchange,
        request: &Message,
    ) -> Result<Exchange, String> {
        self.start().await.map_err(|error| error.evalue)?;
        exchange.put(request, self.pieces()?)?;
        Ok(exchange)
    }

    /// What a snippet gives.
    pub(super) fn give(
        &self,
        exchange: &Exchange,
        data: Option<MimeBundle>,
    ) -> Result<(Value, Vec<Bytes>), String> {
        exchange.give(self.pieces()?, data)
    }

    /// Removes what a snippet left.
    pub(super) fn clear_pieces(&self, exchange: &Exchange) {
        if let Ok(pieces) = self.pieces() {
            exchange.clear(pieces);
        }
    }

    /// Runs a snippet. All of its output has been emitted when this returns.
    pub(super) async fn run(
        &mut self,
        source: &str,
        emit: impl FnMut(Output) + Send + 'static,
        interrupts: &mut watch::Receiver<u64>,
    ) -> Result<Option<MimeBundle>, ErrorInfo> {
        let request = Request {
            lineage: self.lineage.clone(),
            source: source.to_owned(),
        };
        let mut gatherer = Gatherer::new(emit);
        let prepared = async {
            self.start().await?;
            // The runtime's start makes the lineage the root's.
            let lineage = self.lineage.clone();
            let tell = |activity| gatherer.compile_status(Some(activity));
            self.artifact(Request { lineage, ..request }, tell).await
        };
        let (request, artifact) = tokio::select! {
            biased;
            prepared = prepared => prepared?,
            _ = interrupts.changed() => return Err(failure::interrupted_early(Subject::Snippet)),
        };
        gatherer.compile_status(None);
        if !artifact.shown.is_empty() {
            gatherer.display(artifact.shown.clone());
        }
        if !artifact.lost.is_empty() {
            let names = artifact.lost.join(", ");
            gatherer.note(format!(
                "The types of {names} were redefined, so their values are lost.\n"
            ));
        }
        for load in &artifact.loads {
            let snippet = Snippet {
                id: self.new_id(),
                artifact: load.clone(),
                entry: artifact.entry.clone(),
                checkpoint: true,
            };
            let outcome = self.run_one(snippet, &mut gatherer, interrupts).await;
            if outcome != Outcome::Completed {
                let place = self.settle(&request, &outcome).await;
                let locations = PanicLocations {
                    panic: place.map(SourceLocation::from),
                    frames: Vec::new(),
                };
                gatherer.finish(false);
                return match failure::run(Subject::Snippet, &outcome, &locations) {
                    Some(error) => Err(error),
                    None => Ok(None),
                };
            }
        }
        self.lineage = artifact.lineage;
        Ok(gatherer.finish(artifact.ends_in_expression))
    }

    /// Finds out what a snippet was compiled to: what was compiled before does not wait for anything. Calls `tell` with what the compiler
    /// does meanwhile.
    async fn artifact(
        &mut self,
        request: Request,
        tell: impl FnMut(String),
    ) -> Result<(Request, Artifact), ErrorInfo> {
        if let Some(artifact) = self.known.get(&request)
            && artifact.loads.iter().all(|load| load.exists())
        {
            return Ok((request, artifact.clone()));
        }
        let artifact = self.compiler()?.compile(&request, tell).await;
        let artifact = artifact.map_err(trouble)?;
        if artifact.reads {
            return Ok((request, artifact));
        }
        if self
            .known
            .insert(request.clone(), artifact.clone())
            .is_none()
        {
            self.oldest.push_back(request.clone());
        }
        if self.oldest.len() > KNOWN
            && let Some(oldest) = self.oldest.pop_front()
        {
            self.known.remove(&oldest);
        }
        Ok((request, artifact))
    }

    async fn run_one(
        &mut self,
        snippet: Snippet,
        gatherer: &mut Gatherer,
        interrupts: &mut watch::Receiver<u64>,
    ) -> Outcome {
        let gone = || Outcome::LoadFailed {
            error: "the runtime has gone".to_owned(),
        };
        let Some(Running { runtime, events }) = &mut self.running else {
            return gone();
        };
        let id = snippet.id;
        runtime.run(snippet);
        loop {
            let due = gatherer.due();
            tokio::select! {
                biased;
                _ = interrupts.changed() => runtime.interrupt(id),
                event = events.recv() => match event {
                    Some(Event::Finished { id: finished, outcome }) if finished == id => return outcome,
                    Some(Event::Output { stream, bytes }) => gatherer.bytes(stream, &bytes),
                    Some(Event::Result { text, .. }) => gatherer.result(text_bundle(text)),
                    // Engines have nobody to ask.
                    Some(Event::Input { .. }) => runtime.input(None),
                    Some(Event::Lost { cause, restored }) => {
                        gatherer.note(failure::lost(Subject::Snippet, &cause, &restored));
                    }
                    // No call is under way while a snippet runs.
                    Some(
                        Event::Started { .. }
                        | Event::Spent { .. }
                        | Event::Finished { .. }
                        | Event::Called { .. },
                    ) => {}
                    None => {
                        self.running = None;
                        return gone();
                    }
                },
                () = due => gatherer.send(),
            }
        }
    }

    /// Which lineage the namespace has after a run that failed; where it panicked.
    async fn settle(&mut self, request: &Request, outcome: &Outcome) -> Option<Place> {
        let location = match outcome {
            Outcome::Panicked(panic) => panic
                .location
                .as_ref()
                .map(|location| (location.file.clone(), location.line)),
            Outcome::Returned { .. } => None,
            Outcome::Died { restored, .. } | Outcome::Interrupted { restored }
                if !restored.variables =>
            {
                self.lineage = Lineage::root();
                return None;
            }
            // The variables are as they were before.
            _ => return None,
        };
        let ended = Ended {
            request: request.clone(),
            location,
        };
        let answer = match self.compiler() {
            Ok(compiler) => compiler.after_early_end(&ended).await,
            Err(_) => return None,
        };
        match answer {
            Ok(aftermath) => {
                self.lineage = aftermath.lineage;
                aftermath.place
            }
            Err(trouble) => {
                tracing::warn!(?trouble, "the state after a panic is not known");
                None
            }
        }
    }
}

fn trouble(trouble: Trouble) -> ErrorInfo {
    match trouble {
        Trouble::Diagnostics(diagnostics) => failure::compile(Subject::Snippet, &diagnostics),
        Trouble::Gone(reason) => failure::plain(
            "no compiler",
            format!(
                "The cluster's compiler cannot be reached: {reason}. What was compiled before still runs. For a new compiler start the \
                 cluster again: `%cluster restart`, or `chorus cluster stop` and `chorus cluster start`."
            ),
        ),
    }
}
