//! Serves requests one after another: busy, its work, reply, idle. The executor has the namespace and the order; this file turns requests
//! into its work, and what comes out into messages.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use protocol::message::iopub::{ExecuteInput, ExecuteResult, ExecutionState, StreamName};
use protocol::message::{ErrorInfo, MimeBundle};
use protocol::{Header, Message};
use serde_json::{Map, Value, json};
use tokio::sync::mpsc;

use super::compiler::SnippetCompiler;
use super::line::attempt;
use super::requests::{Execute, Kind, Request};
use super::runtimes::RuntimeStarter;
use super::{Command, Config, Job, Shared, call};
use crate::Lineage;
use crate::connection::EngineFile;
use crate::executor::{
    self, AHEAD, CallReport, CompileRequest, Compiled, Driver, Ending, Event, Executor, Host,
    Outcome, Settlement, StartRuntime, Started, StatusSender, Work, WorkId,
};
use crate::failure;
use crate::output::Output;

/// Requests that are taken at once, at most, while no calls are under way that would wait meanwhile.
const BATCH_LIMIT: usize = 4096;

pub(super) struct Worker {
    shared: Arc<Shared>,
    starter: RuntimeStarter,
    compiler: SnippetCompiler,
    /// Requests that are not answered.
    requests: HashMap<WorkId, Request>,
    count: u32,
    /// The last request that ran, which is the parent of what its threads print later.
    last: Option<Header>,
}

/// Serves jobs until there will be no further ones, and takes the runtimes down.
pub(super) async fn run(
    config: Config,
    file: EngineFile,
    shared: Arc<Shared>,
    mut jobs: mpsc::UnboundedReceiver<Job>,
    mut commands: mpsc::UnboundedReceiver<Command>,
) {
    // The runtime's environment names the engine, whose number the controller gives.
    let mut line = shared.line.subscribe();
    let engine = tokio::select! {
        biased;
        Ok(line) = line.wait_for(Option::is_some) => line.as_ref().map(|line| line.id),
        // Without a controller there is never a job.
        _ = jobs.recv() => None,
    };
    let Some(engine) = engine else { return };
    let compiler = SnippetCompiler::connect(&file, config.compiler.clone());
    let libraries = config.libraries.clone().or(file.libraries);
    let worker = Worker {
        shared,
        starter: RuntimeStarter::new(config, engine, compiler.clone(), libraries),
        compiler,
        requests: HashMap::new(),
        count: 0,
        last: None,
    };
    let mut driver = Driver::new(Executor::new(executor::Config::engine()), worker);
    // Requests wait for it anyway; the reason why it does not start is told to the first.
    driver.send(Event::Start);
    let mut batch = Vec::new();
    loop {
        let limit = match driver.executor().is_calling() {
            true => AHEAD,
            false => BATCH_LIMIT,
        };
        tokio::select! {
            biased;
            command = commands.recv() => match command {
                Some(Command::Interrupt) => driver.send(Event::Interrupt { waiting: false }),
                Some(Command::Abort { ids, running }) => {
                    for id in ids {
                        driver.send(Event::Abort { id, running });
                    }
                }
                None => break,
            },
            happening = driver.next() => {
                // Those that wait behind a snippet are to be there when it fails.
                while driver.executor().is_evaluating() && let Ok(job) = jobs.try_recv() {
                    batch.push(job);
                }
                submit(&mut driver, &mut batch);
                driver.handle(happening);
            }
            count = jobs.recv_many(&mut batch, limit) => {
                if count == 0 {
                    break;
                }
                submit(&mut driver, &mut batch);
            }
        }
    }
    driver.shutdown().await;
}

fn submit(driver: &mut Driver<Worker>, batch: &mut Vec<Job>) {
    if !batch.is_empty() {
        let worker = driver.host();
        let works = batch.drain(..).map(|job| worker.accept(job)).collect();
        driver.send(Event::Submit(works));
    }
}

impl Host for Worker {
    fn start_runtime(
        &mut self,
        start: StartRuntime,
    ) -> impl Future<Output = Result<Started, ErrorInfo>> + Send + 'static {
        self.starter.start(start)
    }

    fn compile(
        &mut self,
        _id: WorkId,
        request: CompileRequest,
        status: StatusSender,
    ) -> impl Future<Output = Result<Compiled, ErrorInfo>> + Send + 'static {
        self.compiler.clone().compile(request, status)
    }

    fn settle(
        &mut self,
        ending: Ending,
    ) -> impl Future<Output = Option<Settlement>> + Send + 'static {
        self.compiler.clone().settle(ending)
    }

    fn provide(&mut self, id: WorkId) -> Result<(), ErrorInfo> {
        let Some(Request { job, kind, .. }) = self.requests.get(&id) else {
            return Ok(());
        };
        let Some(exchange) = kind.exchange() else {
            return Ok(());
        };
        let pieces = self.starter.pieces();
        let put = pieces.and_then(|pieces| exchange.put(&job.message, pieces));
        put.map_err(|reason| failure::plain("bad request", reason))
    }

    fn collect(
        &mut self,
        id: WorkId,
        value: Option<MimeBundle>,
    ) -> Result<Option<MimeBundle>, ErrorInfo> {
        if let Some(Request { kind, .. }) = self.requests.get_mut(&id)
            && let Kind::Execute(execute) = kind
            && let Some(exchange) = &execute.exchange
        {
            let pieces = self.starter.pieces();
            let given = pieces.and_then(|pieces| exchange.give(pieces, value.clone()));
            let given = given.map_err(|reason| failure::plain("no value", reason))?;
            execute.given = Some(given);
        }
        Ok(value)
    }

    fn started(&mut self, id: WorkId) {
        let Some(request) = self.requests.get_mut(&id) else {
            return;
        };
        request.started = Some(jiff::Timestamp::now());
        let message = &request.job.message;
        let line = self.shared.line();
        if let Some(line) = &line {
            line.status(message, ExecutionState::Busy);
        }
        let Kind::Execute(execute) = &mut request.kind else {
            return;
        };
        self.last = Some(message.header.clone());
        if execute.content.enters_history() {
            self.count += 1;
        }
        execute.execution_count = self.count;
        if !execute.content.silent
            && let Some(line) = &line
        {
            let input = ExecuteInput {
                code: execute.content.code.clone(),
                execution_count: self.count,
            };
            line.publish(Some(&message.header), "execute_input", &input);
        }
    }

    /// Broadcasts over whatever connection there is now.
    fn output(&mut self, id: Option<WorkId>, output: Output) {
        let Some(line) = self.shared.line() else {
            return;
        };
        let parent = match id {
            Some(id) => self.requests.get(&id).map(|it| &it.job.message.header),
            None => self.last.as_ref(),
        };
        match output {
            Output::Stream(content) => line.publish(parent, stream_topic(content.name), &content),
            Output::Display(content) => line.publish(parent, "displaypub", &content),
            Output::Update(content) => line.publish(parent, "displaypub", &content),
            Output::Clear(content) => line.publish(parent, "clear_output", &content),
            Output::CompileStatus(content) => line.publish(parent, "compile_status", &content),
        }
    }

    fn finished(&mut self, id: WorkId, outcome: Outcome, lineage: &Lineage) {
        let Some(Request { job, kind, started }) = self.requests.remove(&id) else {
            return;
        };
        if let Some(exchange) = kind.exchange()
            && let Ok(pieces) = self.starter.pieces()
        {
            exchange.clear(pieces);
        }
        let (content, buffers) = match (outcome, kind) {
            (Outcome::Aborted, _) => {
                let aborted = json!({"status": "aborted"});
                return self.reply(&job, aborted, jiff::Timestamp::now());
            }
            (Outcome::Called(report), Kind::Call { file }) => {
                return self.finish_call(&job, report, file);
            }
            (Outcome::Evaluated { value, .. }, Kind::Execute(execute)) => {
                self.evaluated(&job.message, value, *execute)
            }
            (Outcome::Failed { error, .. }, kind) => {
                (self.failed(&job.message, error, &kind), Vec::new())
            }
            (_, Kind::Other(content)) => (content, Vec::new()),
            _ => (Value::Null, Vec::new()),
        };
        if !content.is_null() {
            let started = started.unwrap_or_else(jiff::Timestamp::now);
            // A notebook completes names of the namespace with it.
            let extra = Map::from_iter([("lineage".to_owned(), json!(lineage))]);
            self.reply_with(&job, content, started, extra, buffers);
        }
        self.status(&job.message, ExecutionState::Idle);
    }
}

impl Worker {
    /// Takes a request. Returns what the executor is to do.
    fn accept(&mut self, job: Job) -> Work {
        let (request, work) = Request::read(job);
        self.requests.insert(work.id, request);
        work
    }

    /// A snippet's result, as a message and as a reply's content and buffers.
    fn evaluated(
        &self,
        request: &Message,
        value: Option<MimeBundle>,
        execute: Execute,
    ) -> (Value, Vec<Bytes>) {
        let execution_count = execute.execution_count;
        if let (Some(data), Some(line), false) = (value, self.shared.line(), execute.content.silent)
        {
            let result = ExecuteResult {
                execution_count,
                data,
                ..ExecuteResult::default()
            };
            line.publish(Some(&request.header), "execute_result", &result);
        }
        let mut content = json!({"status": "ok", "execution_count": execution_count, "payload": [], "user_expressions": {}});
        match execute.given {
            Some((chorus, buffers)) => {
                content["chorus"] = chorus;
                (content, buffers)
            }
            None => (content, Vec::new()),
        }
    }

    /// An error, as a message and as a reply's content.
    fn failed(&self, request: &Message, error: ErrorInfo, kind: &Kind) -> Value {
        // Also of silent requests, as ipykernel does it.
        if let (Kind::Execute(_) | Kind::Apply, Some(line)) = (kind, self.shared.line()) {
            line.publish(Some(&request.header), "error", &error);
        }
        let method = match kind {
            Kind::Execute(_) | Kind::BadExecute => "execute",
            Kind::Call { .. } | Kind::Apply => "apply",
            Kind::Other(_) => "request",
        };
        let mut content = serde_json::to_value(&error).unwrap_or_default();
        content["status"] = json!("error");
        self.name_engine(&mut content, method);
        if let Kind::Execute(execute) = kind {
            content["execution_count"] = json!(execute.execution_count);
        }
        content
    }

    /// The engine that clients show beside the error.
    fn name_engine(&self, content: &mut Value, method: &str) {
        if let Some(line) = self.shared.line() {
            content["engine_info"] =
                json!({"engine_uuid": line.uuid, "engine_id": line.id, "method": method});
        }
    }

    fn finish_call(&mut self, job: &Job, report: CallReport, file: Option<PathBuf>) {
        let CallReport {
            outcome,
            span,
            sent,
            printed,
            announced,
            aborted,
        } = report;
        if printed {
            self.last = Some(job.message.header.clone());
        }
        let (mut content, buffers) = match aborted {
            true => (json!({"status": "aborted"}), Vec::new()),
            false => {
                let retries = job.message.metadata.get("retries");
                let outcome = match retries.and_then(Value::as_u64) {
                    None | Some(0) => outcome,
                    Some(_) => call::out_of_file(outcome, file.as_deref()),
                };
                let error = failure::call(&outcome);
                call::reply(outcome, error, file.as_deref())
            }
        };
        let failed = content["status"] == "error";
        if failed {
            self.name_engine(&mut content, "apply");
        }
        let times = span.and_then(|span| Some((time(span.began)?, time(span.ended)?)));
        let (began, ended) = times.unwrap_or_else(|| {
            let now = jiff::Timestamp::now();
            let ago = Instant::now().saturating_duration_since(sent);
            (now.checked_sub(ago).unwrap_or(now), now)
        });
        let extra = [
            ("completed".to_owned(), json!(format!("{ended:.6}"))),
            ("printed".to_owned(), json!(printed)),
        ];
        let in_file = !content["file"].is_null();
        let is_sent = self.reply_with(job, content, began, Map::from_iter(extra), buffers);
        if !is_sent
            && in_file
            && let Some(file) = file
            && let Err(error) = std::fs::remove_file(&file)
        {
            tracing::warn!(%error, file = %file.display(), "failed to remove a result that nobody takes");
        }
        if printed || failed || announced {
            self.status(&job.message, ExecutionState::Idle);
        }
    }

    fn status(&self, request: &Message, state: ExecutionState) {
        if let Some(line) = self.shared.line() {
            line.status(request, state);
        }
    }

    fn reply(&self, job: &Job, content: Value, started: jiff::Timestamp) {
        self.reply_with(job, content, started, Map::new(), Vec::new());
    }

    /// As `reply`, with further metadata and buffers; whether there was somebody to send it to.
    fn reply_with(
        &self,
        job: &Job,
        content: Value,
        started: jiff::Timestamp,
        extra: Map<String, Value>,
        buffers: Vec<Bytes>,
    ) -> bool {
        let id = &job.message.header.msg_id;
        self.shared.holds().remove(id);
        let Some(line) = self.shared.line() else {
            tracing::warn!("a reply is lost: there is no controller");
            return false;
        };
        let request = &job.message;
        let asked = |name: &str| request.metadata.get(name).cloned();
        let mut metadata = Map::from_iter([
            ("started".to_owned(), json!(format!("{started:.6}"))),
            ("dependencies_met".to_owned(), json!(true)),
            ("engine".to_owned(), json!(line.uuid)),
            ("status".to_owned(), content["status"].clone()),
            ("label".to_owned(), asked("label").unwrap_or_default()),
        ]);
        for name in ["is_broadcast", "is_coalescing"] {
            metadata.insert(name.to_owned(), asked(name).unwrap_or(json!(false)));
        }
        let original = asked("original_msg_id").unwrap_or(json!(""));
        metadata.insert("original_msg_id".to_owned(), original);
        if content["status"] == "error" {
            let info = json!({"engine_uuid": line.uuid, "engine_id": line.id});
            metadata.insert("engine_info".to_owned(), info);
        }
        metadata.extend(attempt(request));
        metadata.extend(extra);
        metadata
            .entry("completed")
            .or_insert_with(|| json!(format!("{:.6}", jiff::Timestamp::now())));
        line.reply_with(job.socket, request, &content, metadata, buffers);
        true
    }
}

fn time(at: std::time::SystemTime) -> Option<jiff::Timestamp> {
    jiff::Timestamp::try_from(at).ok()
}

fn stream_topic(name: StreamName) -> &'static str {
    match name {
        StreamName::Stdout => "stdout",
        StreamName::Stderr => "stderr",
    }
}
