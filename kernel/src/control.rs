//! The control channel: requests that are answered while cells run.

use crate::info;
use crate::kernel::{Kernel, lock};
use crate::outlet::CONTROL;
use crate::shell;
use protocol::Message;
use protocol::SocketId;
use protocol::message::interrupt::{InterruptReply, InterruptRequest};
use protocol::message::kernel_info::KernelInfoRequest;
use protocol::message::shutdown::{ShutdownReply, ShutdownRequest};
use protocol::message::subshell::{
    CreateSubshellReply, CreateSubshellRequest, DeleteSubshellReply, DeleteSubshellRequest,
    ListSubshellReply, ListSubshellRequest,
};
use protocol::message::{ErrorInfo, Reply};
use std::sync::Arc;
use tokio::sync::mpsc;

/// Starts the task that serves the channel; gives its queue.
pub(crate) fn start(kernel: Arc<Kernel>) -> mpsc::UnboundedSender<Message> {
    let (queue, mut requests) = mpsc::unbounded_channel::<Message>();
    tokio::spawn(async move {
        while let Some(request) = requests.recv().await {
            serve(&kernel, &request).await;
        }
    });
    queue
}

async fn serve(kernel: &Arc<Kernel>, request: &Message) {
    match request.msg_type() {
        "kernel_info_request" => {
            kernel
                .answer(CONTROL, request, async |_: KernelInfoRequest| {
                    Reply::Ok(info::kernel_info())
                })
                .await;
        }
        "interrupt_request" => {
            kernel
                .answer(CONTROL, request, async |_: InterruptRequest| {
                    kernel.cells.interrupt();
                    Reply::Ok(InterruptReply {})
                })
                .await;
        }
        "shutdown_request" => shutdown(kernel, CONTROL, request).await,
        "create_subshell_request" => {
            kernel
                .answer(CONTROL, request, async |_: CreateSubshellRequest| {
                    let subshell_id = uuid::Uuid::new_v4().to_string();
                    let queue = shell::start(Arc::clone(kernel));
                    lock(&kernel.subshells).insert(subshell_id.clone(), queue);
                    Reply::Ok(CreateSubshellReply { subshell_id })
                })
                .await;
        }
        "delete_subshell_request" => {
            kernel
                .answer(CONTROL, request, async |content: DeleteSubshellRequest| {
                    // What is queued there is still served; then its task ends.
                    match lock(&kernel.subshells).remove(&content.subshell_id) {
                        Some(_) => Reply::Ok(DeleteSubshellReply {}),
                        None => {
                            let evalue = format!("there is no subshell {:?}", content.subshell_id);
                            Reply::Error(ErrorInfo {
                                ename: "no such subshell".to_owned(),
                                traceback: vec![evalue.clone()],
                                evalue,
                            })
                        }
                    }
                })
                .await;
        }
        "list_subshell_request" => {
            kernel
                .answer(CONTROL, request, async |_: ListSubshellRequest| {
                    Reply::Ok(ListSubshellReply {
                        subshell_id: lock(&kernel.subshells).keys().cloned().collect(),
                    })
                })
                .await;
        }
        msg_type => tracing::warn!(
            msg_type,
            "a control message of a type unknown here is dropped"
        ),
    }
}

/// Answers, and ends the kernel. Old clients ask for it on shell.
pub(crate) async fn shutdown(kernel: &Kernel, socket: SocketId, request: &Message) {
    kernel
        .answer(socket, request, async |content: ShutdownRequest| {
            Reply::Ok(ShutdownReply {
                restart: content.restart,
            })
        })
        .await;
    kernel.end.send_replace(true);
}
