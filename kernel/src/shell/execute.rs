//! Running cells.

use super::inspect;
use super::output::CellOutput;
use crate::cells::Emit;
use crate::evaluator::{Ask, Cell, Interrupts};
use crate::kernel::{Kernel, lock};
use crate::outlet::SHELL;
use cluster::output::Output;
use protocol::Message;
use protocol::message::execute::{
    Displayed, ExecuteOutcome, ExecuteReply, ExecuteRequest, Payload,
};
use protocol::message::iopub::{DisplayData, ExecuteInput, ExecuteResult, Stream, StreamName};
use protocol::message::stdin::InputRequest;
use protocol::message::{ErrorInfo, MimeBundle, Reply};
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use tokio::sync::oneshot;

/// Serves an `execute_request`. When it fails and says so, calls `drop_waiting` before the reply.
pub(crate) async fn serve(kernel: &Kernel, request: &Message, drop_waiting: impl FnOnce() + Send) {
    // Whoever has seen that the request is served may interrupt it.
    let interrupts = kernel.cells.interrupts();
    let mut quits = false;
    kernel
        .answer(SHELL, request, async |content: ExecuteRequest| {
            let stop_on_error = content.stop_on_error;
            quits = self::quits(&content.code);
            let reply = execute(kernel, request, content, interrupts).await;
            if stop_on_error && matches!(reply.outcome, Reply::Error(_)) {
                drop_waiting();
            }
            reply
        })
        .await;
    if quits {
        kernel.end.send_replace(true);
    }
}

async fn execute(
    kernel: &Kernel,
    request: &Message,
    content: ExecuteRequest,
    interrupts: Interrupts,
) -> ExecuteReply {
    let counted = content.enters_history();
    let count = if counted {
        kernel.count.fetch_add(1, Ordering::SeqCst) + 1
    } else {
        kernel.count.load(Ordering::SeqCst)
    };
    if counted {
        kernel.history.input(count, &content.code);
    }
    if !content.silent {
        kernel.outlet.publish(
            Some(&request.header),
            &ExecuteInput {
                code: content.code.clone(),
                execution_count: count,
            },
        );
    }
    let mut running = Running {
        kernel,
        request,
        content: &content,
        count,
    };
    match running.run(interrupts).await {
        Ok(payload) => {
            let user_expressions = running.user_expressions().await;
            ExecuteReply::ok(
                count,
                ExecuteOutcome {
                    payload,
                    user_expressions,
                },
            )
        }
        Err(error) => {
            if !content.silent {
                kernel.outlet.publish(Some(&request.header), &error);
            }
            ExecuteReply::error(count, error)
        }
    }
}

/// A request to run a cell, while it is served.
struct Running<'a> {
    kernel: &'a Kernel,
    request: &'a Message,
    content: &'a ExecuteRequest,
    count: u32,
}

impl Running<'_> {
    /// Runs the cell; gives the reply's payload.
    async fn run(&mut self, interrupts: Interrupts) -> Result<Vec<Value>, ErrorInfo> {
        if let Some(bundle) = self.question().await? {
            let page = Payload::Page {
                data: bundle,
                start: 0,
            };
            return Ok(serde_json::to_value(page).into_iter().collect());
        }
        if quits(&self.content.code) {
            return Ok(Vec::new());
        }
        let cell = Cell {
            code: self.content.code.clone(),
            count: self.count,
            ..Cell::default()
        };
        let mut ask = Question {
            kernel: self.kernel,
            request: self.request,
            allowed: self.content.allow_stdin,
        };
        let ran = self
            .kernel
            .cells
            .run(&cell, self.emit(), &mut ask, interrupts);
        let value = ran.await?;
        if let Some(data) = value {
            self.result(data);
        }
        Ok(Vec::new())
    }

    /// Broadcasts a cell's output, unless it is to be silent.
    fn emit(&self) -> Emit {
        let outlet = (!self.content.silent).then(|| self.kernel.outlet.clone());
        let page = outlet.map(|outlet| CellOutput::new(outlet, self.request.header.clone()));
        Arc::new(move |output| {
            if let Some(page) = &page {
                page.publish(output);
            }
        })
    }

    fn result(&self, data: MimeBundle) {
        if self.content.enters_history()
            && let Some(text) = data.get("text/plain").and_then(Value::as_str)
        {
            self.kernel.history.output(self.count, text);
        }
        if !self.content.silent {
            self.kernel.outlet.publish(
                Some(&self.request.header),
                &ExecuteResult {
                    execution_count: self.count,
                    data,
                    ..ExecuteResult::default()
                },
            );
        }
    }

    /// `name?`, `name??` and `?name` ask for help. `name?` is Rust for a value; so is a `?` behind a field or a method.
    async fn question(&self) -> Result<Option<MimeBundle>, ErrorInfo> {
        let text = self.content.code.trim();
        let asks = text.starts_with('?') || text.ends_with("??");
        let name = text.trim_matches('?');
        if !asks && (!text.ends_with('?') || name.contains('.')) {
            return Ok(None);
        }
        let is_name = !name.is_empty()
            && name
                .chars()
                .all(|c| c.is_alphanumeric() || matches!(c, '_' | ':' | '.' | '%' | '!'));
        if !is_name {
            return Ok(None);
        }
        if !asks && self.kernel.evaluator.variables().await.contains_key(name) {
            return Ok(None);
        }
        match inspect::describe(self.kernel, name, name.len()).await {
            Some(bundle) if !asks && is_value(&bundle) => Ok(None),
            Some(bundle) => {
                if !self.content.silent {
                    self.kernel.outlet.publish(
                        Some(&self.request.header),
                        &DisplayData {
                            data: bundle.clone(),
                            ..DisplayData::default()
                        },
                    );
                }
                Ok(Some(bundle))
            }
            None => Err(error("not found", format!("Nothing is known of `{name}`."))),
        }
    }

    /// Evaluates what the client wants to know besides the cell.
    async fn user_expressions(&self) -> BTreeMap<String, Reply<Displayed>> {
        let mut values = BTreeMap::new();
        for (name, expression) in &self.content.user_expressions {
            let cell = Cell {
                code: expression.clone(),
                count: self.count,
                ..Cell::default()
            };
            let shown = Arc::new(Mutex::new(MimeBundle::new()));
            let sink = Arc::clone(&shown);
            let emit = Arc::new(move |output| {
                if let Output::Display(display) = output {
                    *lock(&sink) = display.data;
                }
            });
            let mut ask = Question {
                kernel: self.kernel,
                request: self.request,
                allowed: false,
            };
            let interrupts = self.kernel.cells.interrupts();
            let ran = self.kernel.cells.run(&cell, emit, &mut ask, interrupts);
            let value = match ran.await {
                Ok(data) => Reply::Ok(Displayed {
                    data: data.unwrap_or_else(|| lock(&shown).clone()),
                    ..Displayed::default()
                }),
                Err(error) => Reply::Error(error),
            };
            values.insert(name.clone(), value);
        }
        values
    }
}

/// Whether help is about a constant or a static, to judge by its first lines: the module's name, and the item as it is declared.
fn is_value(help: &MimeBundle) -> bool {
    let text = help.get("text/plain").and_then(Value::as_str);
    let lines = text.unwrap_or_default().lines();
    let mut declared = lines.filter(|line| !line.is_empty()).take(2);
    declared.any(|line| {
        let line = line.strip_prefix("pub ").unwrap_or(line);
        ["const ", "static "]
            .iter()
            .any(|word| line.starts_with(word) && !line.starts_with("const fn"))
    })
}

/// Whether a cell says `:quit`, which ends evcxr's own process.
fn quits(code: &str) -> bool {
    code.lines().any(|line| line.trim() == ":quit")
}

fn error(ename: &str, evalue: String) -> ErrorInfo {
    ErrorInfo {
        ename: ename.to_owned(),
        traceback: vec![evalue.clone()],
        evalue,
    }
}

/// Asks the client that sent a request for input.
struct Question<'a> {
    kernel: &'a Kernel,
    request: &'a Message,
    allowed: bool,
}

impl Ask for Question<'_> {
    async fn ask(&mut self, prompt: String, password: bool) -> Option<String> {
        if !self.allowed {
            self.kernel.outlet.publish(
                Some(&self.request.header),
                &Stream {
                    name: StreamName::Stderr,
                    text: "This client takes no questions (allow_stdin is false): the cell reads the end of input.\n"
                        .to_owned(),
                },
            );
            return None;
        }
        let (answer, answered) = oneshot::channel();
        let _open = {
            // The answer can't overtake this, because it needs the lock.
            let mut questions = lock(&self.kernel.questions);
            let id = self
                .kernel
                .outlet
                .ask(self.request, &InputRequest { prompt, password });
            questions.insert(id.clone(), answer);
            Open {
                kernel: self.kernel,
                id,
            }
        };
        answered.await.ok()
    }
}

/// A question that is open. An interrupt ends the wait for its answer, and then it is open no more.
struct Open<'a> {
    kernel: &'a Kernel,
    id: String,
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        lock(&self.kernel.questions).remove(&self.id);
    }
}
