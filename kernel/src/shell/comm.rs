//! Comms: this kernel offers no targets, so whoever opens one is told that it is closed.

use crate::kernel::Kernel;
use crate::outlet::SHELL;
use protocol::Message;
use protocol::message::Reply;
use protocol::message::comm::{CommClose, CommInfoReply, CommInfoRequest, CommOpen};

pub(crate) async fn info(kernel: &Kernel, request: &Message) {
    kernel
        .answer(SHELL, request, async |_: CommInfoRequest| {
            Reply::Ok(CommInfoReply::default())
        })
        .await;
}

pub(crate) async fn open(kernel: &Kernel, request: &Message) {
    kernel
        .attend(request, async {
            match request.parse::<CommOpen>() {
                Ok(open) => {
                    tracing::info!(
                        target = open.target_name,
                        "a comm for an unknown target is closed"
                    );
                    kernel.outlet.publish(
                        Some(&request.header),
                        &CommClose {
                            comm_id: open.comm_id,
                            data: Default::default(),
                        },
                    );
                }
                Err(error) => tracing::warn!("a comm_open is dropped: it has {error}"),
            }
        })
        .await;
}

/// No comm is open, so this message is late or lost.
pub(crate) async fn ignore(kernel: &Kernel, request: &Message) {
    kernel
        .attend(request, async {
            tracing::debug!(msg_type = request.msg_type(), "a message for no comm");
        })
        .await;
}
