//! Serves requests one after another: busy, its work, reply, idle. Calls of closures go by `flight`.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use protocol::message::execute::ExecuteRequest;
use protocol::message::iopub::{ExecuteInput, ExecuteResult, ExecutionState, Stream, StreamName};
use protocol::message::kernel_info::{KernelInfoReply, LanguageInfo};
use protocol::message::{ErrorInfo, PROTOCOL_VERSION, Reply};
use protocol::{Header, Message};
use serde_json::{Map, Value, json};
use tokio::sync::{mpsc, watch};

use super::flight::{Alarm, Flight};
use super::line::{Line, attempt};
use super::namespace::Namespace;
use super::snippet::Exchange;
use super::{Config, Job, Shared};
use crate::connection::EngineFile;
use crate::failure;
use crate::output::Output;

pub(super) struct Worker {
    pub(super) namespace: Namespace,
    pub(super) shared: Arc<Shared>,
    pub(super) queue: mpsc::UnboundedReceiver<Job>,
    /// Jobs that came before those in the queue.
    pub(super) waiting: VecDeque<Job>,
    /// Calls that came before those, oldest first.
    pub(super) flights: VecDeque<Flight>,
    pub(super) alarm: Alarm,
    pub(super) interrupts: watch::Receiver<u64>,
    pub(super) aborts: watch::Receiver<u64>,
    count: u32,
    /// The last request that ran, which is the parent of what its threads print later.
    pub(super) last: Option<Header>,
}

impl Worker {
    pub(super) fn new(
        config: Config,
        file: EngineFile,
        shared: Arc<Shared>,
        queue: mpsc::UnboundedReceiver<Job>,
    ) -> Self {
        Self {
            namespace: Namespace::new(config, &file),
            interrupts: shared.interrupts.subscribe(),
            aborts: shared.aborts.subscribe(),
            shared,
            queue,
            waiting: VecDeque::new(),
            flights: VecDeque::new(),
            alarm: Alarm::default(),
            count: 0,
            last: None,
        }
    }

    pub(super) async fn run(mut self) {
        // The runtime's environment names the engine, whose number the controller gives.
        let mut line = self.shared.line.subscribe();
        let engine = tokio::select! {
            Ok(line) = line.wait_for(Option::is_some) => line.as_ref().map(|line| line.id),
            // Without a controller there is never a job.
            _ = self.queue.recv() => None,
        };
        let Some(engine) = engine else { return };
        self.namespace.set_engine(engine);
        // Requests wait for it anyway; the reason why it does not start is told to the first.
        if let Err(error) = self.namespace.start().await {
            tracing::error!("{}", error.evalue);
        }
        loop {
            self.depart().await;
            if !self.flights.is_empty() {
                if self.attend().await {
                    continue;
                }
                break;
            }
            let job = match self.waiting.pop_front() {
                Some(job) => Some(job),
                None => tokio::select! {
                    biased;
                    // It may be a call, which `depart` takes.
                    job = self.queue.recv() => match job {
                        Some(job) => {
                            self.waiting.push_back(job);
                            continue;
                        }
                        None => None,
                    },
                    (name, text) = self.namespace.idle() => {
                        self.say(name, text);
                        continue;
                    }
                },
            };
            let Some(job) = job else { break };
            self.serve(job).await;
        }
        self.namespace.shutdown().await;
    }

    fn line(&self) -> Option<Line> {
        self.shared.line.borrow().clone()
    }

    fn say(&self, name: StreamName, text: String) {
        if let Some(line) = self.line() {
            let topic = stream_topic(name);
            line.publish(self.last.as_ref(), topic, &Stream { name, text });
        }
    }

    async fn serve(&mut self, job: Job) {
        let request = &job.message;
        // An interrupt from now on is meant for this request, unless it is taken out of the queue.
        self.interrupts.mark_unchanged();
        if self.is_aborted(&job) {
            return self.reply(&job, json!({"status": "aborted"}), jiff::Timestamp::now());
        }
        let started = jiff::Timestamp::now();
        *self.shared.running() = Some(request.header.msg_id.clone());
        self.status(request, ExecutionState::Busy);
        let mut buffers = Vec::new();
        let content = match request.msg_type() {
            "execute_request" => match request.parse::<ExecuteRequest>() {
                Ok(content) => {
                    let (content, given) = self.execute(request, content).await;
                    buffers = given;
                    content
                }
                Err(error) => self.error(
                    failure::plain("bad request", format!("its content has {error}")),
                    "execute",
                ),
            },
            "apply_request" => {
                let error = failure::plain(
                    "unsupported",
                    "This engine runs Rust: it cannot apply a Python function. Send source text, as in \
                     `view.execute(\"1 + 1\")`.",
                );
                if let Some(line) = self.line() {
                    line.publish(Some(&request.header), "error", &error);
                }
                self.error(error, "apply")
            }
            "clear_request" => {
                self.namespace.clear().await;
                json!({"status": "ok"})
            }
            "kernel_info_request" => info(),
            "connect_request" => json!({"status": "ok"}),
            "comm_info_request" => json!({"status": "ok", "comms": {}}),
            "history_request" => json!({"status": "ok", "history": []}),
            "is_complete_request" => json!({"status": "unknown"}),
            other if other.ends_with("_request") => self.error(
                failure::plain("unsupported", format!("An engine does not know {other}.")),
                "request",
            ),
            // Comms and the like expect no answer.
            _ => Value::Null,
        };
        let failed = content["status"] == "error";
        *self.shared.running() = None;
        if !content.is_null() {
            self.reply_with(&job, content, started, Map::new(), buffers);
        }
        self.status(&job.message, ExecutionState::Idle);
        if failed && job.message.msg_type() == "execute_request" {
            self.abort_followers(&job.message);
        }
    }

    /// Whether the request is not to run. It counts as told then.
    pub(super) fn is_aborted(&self, job: &Job) -> bool {
        self.shared.aborted().remove(&job.message.header.msg_id)
    }

    pub(super) fn status(&self, request: &Message, state: ExecutionState) {
        if let Some(line) = self.line() {
            line.status(request, state);
        }
    }

    /// Runs a snippet; the reply's content and its buffers.
    async fn execute(&mut self, request: &Message, content: ExecuteRequest) -> (Value, Vec<Bytes>) {
        let parent = &request.header;
        self.last = Some(parent.clone());
        if content.enters_history() {
            self.count += 1;
        }
        let execution_count = self.count;
        if !content.silent
            && let Some(line) = self.line()
        {
            let input = ExecuteInput {
                code: content.code.clone(),
                execution_count,
            };
            line.publish(Some(parent), "execute_input", &input);
        }
        let exchange = match Exchange::of(request) {
            Ok(Some(exchange)) => self.namespace.put(exchange, request).await.map(Some),
            other => other,
        };
        let outcome = match &exchange {
            Ok(_) => {
                self.namespace
                    .run(
                        &content.code,
                        emitter(Arc::clone(&self.shared), parent.clone()),
                        &mut self.interrupts,
                    )
                    .await
            }
            Err(reason) => Err(failure::plain("bad request", reason.clone())),
        };
        let mut given = None;
        let outcome = match (outcome, exchange) {
            (outcome, Ok(Some(exchange))) => {
                let outcome = outcome.and_then(|data| {
                    let gift = self.namespace.give(&exchange, data.clone());
                    given = Some(gift.map_err(|reason| failure::plain("no value", reason))?);
                    Ok(data)
                });
                self.namespace.clear_pieces(&exchange);
                outcome
            }
            (outcome, _) => outcome,
        };
        let line = self.line();
        match outcome {
            Ok(result) => {
                if let (Some(data), Some(line), false) = (result, line, content.silent) {
                    let result = ExecuteResult {
                        execution_count,
                        data,
                        ..ExecuteResult::default()
                    };
                    line.publish(Some(parent), "execute_result", &result);
                }
                let mut content = json!({"status": "ok", "execution_count": execution_count, "payload": [], "user_expressions": {}});
                match given {
                    Some((chorus, buffers)) => {
                        content["chorus"] = chorus;
                        (content, buffers)
                    }
                    None => (content, Vec::new()),
                }
            }
            Err(error) => {
                // Also of silent requests, as ipykernel does it.
                if let Some(line) = line {
                    line.publish(Some(parent), "error", &error);
                }
                let mut content = self.error(error, "execute");
                content["execution_count"] = json!(execution_count);
                (content, Vec::new())
            }
        }
    }

    /// A reply's content, with the engine that clients show beside the error.
    pub(super) fn error(&self, error: ErrorInfo, method: &str) -> Value {
        let mut content = serde_json::to_value(&error).unwrap_or_default();
        content["status"] = json!("error");
        self.name_engine(&mut content, method);
        content
    }

    pub(super) fn name_engine(&self, content: &mut Value, method: &str) {
        if let Some(line) = self.line() {
            content["engine_info"] =
                json!({"engine_uuid": line.uuid, "engine_id": line.id, "method": method});
        }
    }

    pub(super) fn reply(&self, job: &Job, content: Value, started: jiff::Timestamp) {
        self.reply_with(job, content, started, Map::new(), Vec::new());
    }

    /// As `reply`, with further metadata and buffers; whether there was somebody to send it to.
    pub(super) fn reply_with(
        &self,
        job: &Job,
        content: Value,
        started: jiff::Timestamp,
        extra: Map<String, Value>,
        buffers: Vec<Bytes>,
    ) -> bool {
        let id = &job.message.header.msg_id;
        self.shared.holds().remove(id);
        self.shared.stopped().remove(id);
        // Said of a request that runs, an abort changes nothing.
        self.shared.aborted().remove(id);
        let Some(line) = self.line() else {
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

    /// Requests of the same client that wait behind one that failed are dropped, if that one says so.
    fn abort_followers(&mut self, failed: &Message) {
        let content: Value = failed.parse().unwrap_or_default();
        if content["silent"] == true || content["stop_on_error"] == false {
            return;
        }
        while let Ok(job) = self.queue.try_recv() {
            self.waiting.push_back(job);
        }
        for job in std::mem::take(&mut self.waiting) {
            let header = &job.message.header;
            if header.msg_type == "execute_request" && header.session == failed.header.session {
                self.reply(&job, json!({"status": "aborted"}), jiff::Timestamp::now());
            } else {
                self.waiting.push_back(job);
            }
        }
    }
}

/// Broadcasts a snippet's output over whatever connection there is then.
pub(super) fn emitter(shared: Arc<Shared>, parent: Header) -> impl FnMut(Output) + Send + 'static {
    move |output| {
        let Some(line) = shared.line.borrow().clone() else {
            return;
        };
        let parent = Some(&parent);
        match output {
            Output::Stream(content) => line.publish(parent, stream_topic(content.name), &content),
            Output::Display(content) => line.publish(parent, "displaypub", &content),
            Output::Update(content) => line.publish(parent, "displaypub", &content),
            Output::Clear(content) => line.publish(parent, "clear_output", &content),
            Output::CompileStatus(content) => line.publish(parent, "compile_status", &content),
        }
    }
}

fn stream_topic(name: StreamName) -> &'static str {
    match name {
        StreamName::Stdout => "stdout",
        StreamName::Stderr => "stderr",
    }
}

fn info() -> Value {
    let version = env!("CARGO_PKG_VERSION").to_owned();
    let reply = Reply::Ok(KernelInfoReply {
        protocol_version: PROTOCOL_VERSION.to_owned(),
        implementation: "chorus".to_owned(),
        implementation_version: version.clone(),
        language_info: LanguageInfo {
            name: "rust".to_owned(),
            mimetype: "text/rust".to_owned(),
            file_extension: ".rs".to_owned(),
            ..LanguageInfo::default()
        },
        banner: format!("Chorus {version}, an engine"),
        ..KernelInfoReply::default()
    });
    serde_json::to_value(&reply).unwrap_or_default()
}
