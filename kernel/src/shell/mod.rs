//! The shell channel, and every subshell: a queue of requests that are served one after another.

mod comm;
mod complete;
mod execute;
mod inspect;
mod output;

use crate::cells::at_boundary;
use crate::control;
use crate::info;
use crate::kernel::Kernel;
use crate::outlet::SHELL;
use protocol::Message;
use protocol::message::Reply;
use protocol::message::execute::{ExecuteReply, ExecuteRequest};
use protocol::message::history::{HistoryReply, HistoryRequest};
use protocol::message::is_complete::{IsCompleteReply, IsCompleteRequest};
use protocol::message::kernel_info::KernelInfoRequest;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::mpsc;

/// How long a user waits for rust-analyzer, which may be behind the compile of a cell, if there is something to offer instead.
const PATIENCE: Duration = Duration::from_millis(250);
/// The same where there is nothing else, or rust-analyzer still reads the standard library. Looking at a type's methods for the first time
/// can take it longer than [`PATIENCE`] on a busy machine.
const WITHOUT_ELSE: Duration = Duration::from_secs(5);
/// The same while the compiler starts and rust-analyzer reads the standard library. Cells that were compiled before don't wait for that, so
/// somebody may ask in a kernel's first second.
const COLD: Duration = Duration::from_secs(20);

/// Starts a shell; gives its queue. It ends when the queue is dropped.
pub(crate) fn start(kernel: Arc<Kernel>) -> mpsc::UnboundedSender<Message> {
    let (queue, mut requests) = mpsc::unbounded_channel::<Message>();
    tokio::spawn(async move {
        let mut waiting = VecDeque::new();
        loop {
            let request = match waiting.pop_front() {
                Some(request) => request,
                None => match requests.recv().await {
                    Some(request) => request,
                    None => return,
                },
            };
            // A client that has seen the reply may send its next cell at once, and that one is not dropped: those that
            // are to be dropped are told apart before the reply goes out.
            let mut dropped = VecDeque::new();
            serve(&kernel, &request, || {
                dropped.append(&mut waiting);
                while let Ok(request) = requests.try_recv() {
                    dropped.push_back(request);
                }
            })
            .await;
            abort(&kernel, &mut dropped).await;
            dropped.append(&mut waiting);
            waiting = dropped;
        }
    });
    queue
}

/// Whether a request is served beside the queue, so that who types doesn't wait for a cell that runs.
pub(crate) fn is_quick(msg_type: &str) -> bool {
    matches!(
        msg_type,
        "complete_request" | "inspect_request" | "is_complete_request"
    )
}

/// Serves a request of the quick kind.
pub(crate) async fn serve_aside(kernel: &Kernel, request: &Message) {
    serve(kernel, request, || {}).await;
}

/// Serves a request. A cell that fails calls `drop_waiting` before its reply, if it is to take those behind it along.
async fn serve(kernel: &Kernel, request: &Message, drop_waiting: impl FnOnce() + Send) {
    match request.msg_type() {
        "execute_request" => execute::serve(kernel, request, drop_waiting).await,
        "kernel_info_request" => {
            kernel
                .answer(SHELL, request, async |_: KernelInfoRequest| {
                    Reply::Ok(info::kernel_info())
                })
                .await;
        }
        "complete_request" => complete::serve(kernel, request).await,
        "inspect_request" => inspect::serve(kernel, request).await,
        "is_complete_request" => {
            kernel
                .answer(SHELL, request, async |content: IsCompleteRequest| {
                    is_complete(&content.code)
                })
                .await;
        }
        "history_request" => {
            kernel
                .answer(SHELL, request, async |content: HistoryRequest| {
                    Reply::Ok(HistoryReply {
                        history: kernel.history.find(content).await,
                    })
                })
                .await;
        }
        "comm_info_request" => comm::info(kernel, request).await,
        "comm_open" => comm::open(kernel, request).await,
        "comm_msg" | "comm_close" => comm::ignore(kernel, request).await,
        "shutdown_request" => control::shutdown(kernel, SHELL, request).await,
        msg_type => tracing::warn!(
            msg_type,
            "a shell message of a type unknown here is dropped"
        ),
    }
}

/// Answers the cells in `waiting` without running them; leaves all else.
async fn abort(kernel: &Kernel, waiting: &mut VecDeque<Message>) {
    let (cells, rest): (Vec<_>, Vec<_>) = waiting
        .drain(..)
        .partition(|request| request.msg_type() == "execute_request");
    *waiting = rest.into();
    for request in cells {
        kernel
            .answer(SHELL, &request, async |_: ExecuteRequest| {
                ExecuteReply::aborted(kernel.count.load(Ordering::SeqCst))
            })
            .await;
    }
}

fn is_complete(cell: &str) -> IsCompleteReply {
    use magics::cell::{Piece, parse};
    let rust = match parse(cell, &at_boundary).pop() {
        Some(Piece::Code(code)) => code.text,
        Some(Piece::Line(_)) => return IsCompleteReply::Complete,
        Some(Piece::Cell(magic)) if magic.body.is_blank() => {
            return IsCompleteReply::Incomplete {
                indent: String::new(),
            };
        }
        Some(Piece::Cell(magic)) => magic.body.text,
        None => String::new(),
    };
    match compiler::completeness(&rust) {
        compiler::Completeness::Complete => IsCompleteReply::Complete,
        compiler::Completeness::Incomplete { indent } => IsCompleteReply::Incomplete { indent },
        compiler::Completeness::Invalid => IsCompleteReply::Invalid,
    }
}
