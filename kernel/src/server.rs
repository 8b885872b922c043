//! Sockets in, requests out: binds what the connection file names and hands every message to whom it is for.

use crate::carrier::Door;
use crate::cells::Cells;
use crate::control;
use crate::evaluator::Evaluator;
use crate::history::History;
use crate::kernel::{Kernel, lock};
use crate::outlet::{CONTROL, IOPUB, Outlet, SHELL, STDIN};
use crate::parent;
use crate::shell;
use anyhow::Context;
use protocol::message::iopub::{ExecutionState, IopubWelcome};
use protocol::message::stdin::InputReply;
use protocol::socket::Subscription;
use protocol::{ConnectionFile, Message, Received, Session, SocketType, SocketsBuilder};
use std::path::PathBuf;
use std::sync::atomic::AtomicU32;
use std::sync::{Arc, Mutex};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};

/// Serves until a client asks for the end.
pub(crate) async fn serve(
    connection: ConnectionFile,
    executable: PathBuf,
    folder: PathBuf,
) -> anyhow::Result<()> {
    let bind =
        |builder: SocketsBuilder, id, kind, port| builder.bind(id, kind, connection.endpoint(port));
    let builder = SocketsBuilder::new();
    let builder = bind(builder, SHELL, SocketType::ROUTER, connection.shell_port);
    let builder = bind(
        builder,
        CONTROL,
        SocketType::ROUTER,
        connection.control_port,
    );
    let builder = bind(builder, IOPUB, SocketType::XPUB, connection.iopub_port);
    let builder = bind(builder, STDIN, SocketType::ROUTER, connection.stdin_port);
    let (sockets, received) = builder
        .start()
        .context("failed to open the kernel's sockets")?;
    let _heartbeat = protocol::heartbeat(&connection.endpoint(connection.hb_port))
        .context("failed to open the heartbeat's socket")?;

    let session = Session::new(&connection.key);
    let outlet = Outlet::new(session.clone(), sockets.clone());
    let door = Door::open()
        .inspect_err(
            |error| tracing::error!(%error, "failed to open a socket for programs in cells"),
        )
        .ok();
    let path = door.as_ref().map(Door::path);
    let evaluator = Evaluator::start(executable.clone(), folder, path);
    let kernel = Arc::new(Kernel {
        outlet,
        cells: Cells::new(evaluator.clone(), executable, door),
        evaluator,
        history: History::open(History::path()).context("failed to start the history's thread")?,
        count: AtomicU32::new(0),
        subshells: Mutex::default(),
        questions: Mutex::default(),
        end: watch::Sender::new(false),
    });
    let mut end = kernel.end.subscribe();
    tokio::select! {
        () = route(Arc::clone(&kernel), session, received) => {}
        () = parent::ended() => {}
        outcome = signals(&kernel) => outcome.context("failed to watch for signals")?,
        // The sender lives in `kernel`.
        _ = end.wait_for(|end| *end) => {}
    }
    kernel.cells.shutdown().await;
    sockets.close().await;
    Ok(())
}

/// Interrupts at SIGINT; returns at a signal to end.
async fn signals(kernel: &Kernel) -> std::io::Result<()> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    loop {
        tokio::select! {
            _ = interrupt.recv() => kernel.cells.interrupt(),
            _ = terminate.recv() => return Ok(()),
            _ = hangup.recv() => return Ok(()),
        }
    }
}

/// Takes every message to its queue. Nothing here waits for anything but messages.
async fn route(
    kernel: Arc<Kernel>,
    session: Session,
    mut received: mpsc::UnboundedReceiver<Received>,
) {
    let main = shell::start(Arc::clone(&kernel));
    let control = control::start(Arc::clone(&kernel));
    let mut started = false;
    while let Some(Received { socket, frames }) = received.recv().await {
        if socket == IOPUB {
            if let Some(subscription) = Subscription::from_frames(&frames)
                && subscription.subscribes
            {
                welcome(&kernel, &subscription);
                // Said earlier nobody would hear it.
                if !std::mem::replace(&mut started, true) {
                    kernel.outlet.status(None, ExecutionState::Starting);
                }
            }
            continue;
        }
        let message = match session.decode(frames) {
            Ok(message) => message,
            Err(error) => {
                tracing::warn!("a message is dropped: {error}");
                continue;
            }
        };
        // A queue ends only with the kernel.
        if socket == STDIN {
            input(&kernel, &message);
        } else if socket == CONTROL {
            let _ = control.send(message);
        } else {
            to_shell(&kernel, &main, message);
        }
    }
}

fn to_shell(kernel: &Arc<Kernel>, main: &mpsc::UnboundedSender<Message>, message: Message) {
    if shell::is_quick(message.msg_type()) {
        let kernel = Arc::clone(kernel);
        tokio::spawn(async move { shell::serve_aside(&kernel, &message).await });
        return;
    }
    let Some(id) = &message.header.subshell_id else {
        let _ = main.send(message);
        return;
    };
    let subshell = lock(&kernel.subshells).get(id).cloned();
    match subshell {
        Some(subshell) => drop(subshell.send(message)),
        None => {
            let why = format!("there is no subshell {id:?}");
            kernel.refuse(SHELL, &message, &why);
        }
    }
}

fn welcome(kernel: &Kernel, subscription: &Subscription) {
    let topic = String::from_utf8_lossy(&subscription.topic).into_owned();
    kernel.outlet.welcome(&IopubWelcome {
        subscription: topic,
    });
}

fn input(kernel: &Kernel, message: &Message) {
    // jupyter_client sends the answer without a parent; it can only be meant for the question that is open.
    let question = {
        let mut questions = lock(&kernel.questions);
        let id = match &message.parent {
            Some(parent) => Some(parent.msg_id.clone()),
            None => questions.keys().next().cloned(),
        };
        id.and_then(|id| questions.remove(&id))
    };
    match (question, message.parse::<InputReply>()) {
        // The cell that asked may have been interrupted.
        (Some(question), Ok(reply)) => drop(question.send(reply.value)),
        _ => tracing::warn!(
            msg_type = message.msg_type(),
            "a message on stdin answers no question"
        ),
    }
}
