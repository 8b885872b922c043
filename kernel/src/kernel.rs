//! What all requests share, and the frame around each of them: busy, its work and reply, idle.

use crate::cells::Cells;
use crate::evaluator::Evaluator;
use crate::history::History;
use crate::outlet::Outlet;
use protocol::message::interrupt::InterruptReply;
use protocol::message::iopub::ExecutionState;
use protocol::message::{Content, ErrorInfo, Reply};
use protocol::{Message, SocketId};
use serde::de::DeserializeOwned;
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::AtomicU32;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::{mpsc, oneshot, watch};

/// The kernel, shared by all that serve requests.
#[derive(Debug)]
pub(crate) struct Kernel {
    pub(crate) outlet: Outlet,
    pub(crate) evaluator: Evaluator,
    pub(crate) cells: Cells,
    pub(crate) history: History,
    /// The number of the last cell that was counted.
    pub(crate) count: AtomicU32,
    /// The queues of the subshells, by id.
    pub(crate) subshells: Mutex<BTreeMap<String, mpsc::UnboundedSender<Message>>>,
    /// Who waits for the answer to an `input_request`, by its id.
    pub(crate) questions: Mutex<HashMap<String, oneshot::Sender<String>>>,
    /// Set when the kernel is to end.
    pub(crate) end: watch::Sender<bool>,
}

/// A lock that a panic elsewhere can't take away: what these guard is never half changed.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Kernel {
    /// Does `work` between busy and idle.
    pub(crate) async fn attend<T>(&self, request: &Message, work: impl Future<Output = T>) -> T {
        let parent = Some(&request.header);
        self.outlet.status(parent, ExecutionState::Busy);
        let done = work.await;
        self.outlet.status(parent, ExecutionState::Idle);
        done
    }

    /// Reads the request, has `work` make the reply, and sends it. A request that can't be read is answered by an error.
    pub(crate) async fn answer<Q: DeserializeOwned, A: Content>(
        &self,
        socket: SocketId,
        request: &Message,
        work: impl AsyncFnOnce(Q) -> A,
    ) {
        self.attend(request, async {
            match request.parse::<Q>() {
                Ok(content) => {
                    let reply = work(content).await;
                    self.outlet.reply(socket, request, &reply);
                }
                Err(error) => self.refuse(socket, request, &format!("its content has {error}")),
            }
        })
        .await;
    }

    /// Replies that a request can't be served.
    pub(crate) fn refuse(&self, socket: SocketId, request: &Message, why: &str) {
        let msg_type = request.msg_type();
        tracing::warn!(msg_type, why, "a request is refused");
        let reply_type = match msg_type.strip_suffix("_request") {
            Some(stem) => format!("{stem}_reply"),
            None => return,
        };
        let evalue = format!("this {msg_type} can't be served: {why}");
        self.outlet.reply_as(
            &reply_type,
            socket,
            request,
            &Reply::<InterruptReply>::Error(ErrorInfo {
                ename: "bad request".to_owned(),
                traceback: vec![evalue.clone()],
                evalue,
            }),
        );
    }
}
