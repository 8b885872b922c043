//! Requests on their way: what the executor is to do for them, and what is remembered for their replies.

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use protocol::Message;
use protocol::message::execute::ExecuteRequest;
use protocol::message::kernel_info::{KernelInfoReply, LanguageInfo};
use protocol::message::{PROTOCOL_VERSION, Reply};
use runtime::RunId;
use serde_json::{Value, json};

use super::memory::memory_file;
use super::runtimes::runtime_of;
use super::snippet::Exchange;
use super::{Job, call};
use crate::executor::{CallWork, Work, WorkKind};
use crate::failure;

/// A request on its way.
pub(super) struct Request {
    pub(super) job: Job,
    pub(super) kind: Kind,
    /// When its turn came; not known of calls, which have none of their own.
    pub(super) started: Option<jiff::Timestamp>,
}

pub(super) enum Kind {
    Execute(Box<Execute>),
    /// An `execute_request` that cannot be read.
    BadExecute,
    Call {
        /// Where a long result may be.
        file: Option<PathBuf>,
    },
    /// A function of another language.
    Apply,
    /// Answered with this, unless it fails; null for what expects no answer.
    Other(Value),
}

pub(super) struct Execute {
    pub(super) content: ExecuteRequest,
    pub(super) exchange: Option<Exchange>,
    pub(super) execution_count: u32,
    /// What the exchange gives: the reply's `chorus`, and buffers.
    pub(super) given: Option<(Value, Vec<Bytes>)>,
}

impl Request {
    /// Reads a request. Returns what the executor is to do, too.
    pub(super) fn read(job: Job) -> (Self, Work) {
        let request = &job.message;
        let (mut group, mut stop_on_error) = (None, false);
        let (work, kind) = match request.msg_type() {
            "execute_request" => {
                group = Some(Arc::from(request.header.session.as_str()));
                match request.parse::<ExecuteRequest>() {
                    Ok(content) => {
                        stop_on_error = content.stop_on_error && !content.silent;
                        execute(request, content)
                    }
                    Err(error) => {
                        let content: Value = request.parse().unwrap_or_default();
                        stop_on_error =
                            content["silent"] != true && content["stop_on_error"] != false;
                        let reason = format!("its content has {error}");
                        let error = failure::plain("bad request", reason);
                        (WorkKind::Turn(Err(error)), Kind::BadExecute)
                    }
                }
            }
            "apply_request" => apply(request),
            "clear_request" => (WorkKind::Clear, Kind::Other(json!({"status": "ok"}))),
            other => match answer(other) {
                Some(content) => (WorkKind::Turn(Ok(())), Kind::Other(content)),
                None => {
                    let reason = format!("An engine does not know {other}.");
                    let error = failure::plain("unsupported", reason);
                    (WorkKind::Turn(Err(error)), Kind::Other(Value::Null))
                }
            },
        };
        let work = Work {
            id: job.id,
            kind: work,
            group,
            stop_on_error,
        };
        let request = Self {
            job,
            kind,
            started: None,
        };
        (request, work)
    }
}

impl Kind {
    pub(super) fn exchange(&self) -> Option<&Exchange> {
        match self {
            Kind::Execute(execute) => execute.exchange.as_ref(),
            _ => None,
        }
    }
}

/// The work of an `execute_request`.
fn execute(request: &Message, content: ExecuteRequest) -> (WorkKind, Kind) {
    let exchange = Exchange::of(request);
    let work = match &exchange {
        Ok(exchange) => WorkKind::Snippet {
            source: content.code.clone(),
            exchanges: exchange.is_some(),
        },
        Err(reason) => WorkKind::Turn(Err(failure::plain("bad request", reason.clone()))),
    };
    let execute = Execute {
        content,
        exchange: exchange.ok().flatten(),
        execution_count: 0,
        given: None,
    };
    (work, Kind::Execute(Box::new(execute)))
}

/// The work of an `apply_request`.
fn apply(request: &Message) -> (WorkKind, Kind) {
    // The executor sets the id.
    let parsed = match call::parse(request, RunId(0), memory_file) {
        Ok(Some((call, executable, memory))) => match memory.lacks(&call) {
            None => runtime_of(&call, executable).map(|runtime| CallWork { call, runtime }),
            Some(reason) => Err(failure::plain("another machine", reason)),
        },
        Ok(None) => {
            let error = failure::plain(
                "unsupported",
                "This engine runs Rust: it cannot apply a Python function. Send source text, as in \
                 `view.execute(\"1 + 1\")`.",
            );
            return (WorkKind::Turn(Err(error)), Kind::Apply);
        }
        Err(reason) => Err(failure::plain("bad request", reason)),
    };
    let file = parsed.as_ref().ok();
    let file = file.and_then(|work| work.call.answer_file.clone());
    (WorkKind::Call(parsed), Kind::Call { file })
}

/// The answer to a request that needs no work; null for what expects none.
fn answer(msg_type: &str) -> Option<Value> {
    Some(match msg_type {
        "kernel_info_request" => info(),
        "connect_request" => json!({"status": "ok"}),
        "comm_info_request" => json!({"status": "ok", "comms": {}}),
        "history_request" => json!({"status": "ok", "history": []}),
        "is_complete_request" => json!({"status": "unknown"}),
        other if other.ends_with("_request") => return None,
        // Comms and the like expect no answer.
        _ => Value::Null,
    })
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
