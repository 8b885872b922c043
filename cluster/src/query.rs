//! One question to a running controller, for commands that look at a cluster from outside.

use std::time::Duration;

use bytes::Bytes;
use protocol::{RawJson, Session, SocketId, SocketOptions, SocketType, SocketsBuilder};
use serde_json::Value;
use tokio::time::timeout;

use crate::Error;
use crate::connection::ClientFile;

const SOCKET: SocketId = SocketId(0);

/// Asks the hub: `connection_request`, `queue_request` and the like. Gives the reply's content.
///
/// # Errors
/// When nobody answers in time, or the answer is an error.
pub async fn hub(
    file: &ClientFile,
    msg_type: &str,
    content: &Value,
    patience: Duration,
) -> Result<Value, Error> {
    ask(file, file.registration, None, msg_type, content, patience).await
}

/// Sends an engine a control request: `shutdown_request`, `interrupt_request` and the like. Gives the reply's content.
///
/// # Errors
/// When nobody answers in time, or the answer is an error.
pub async fn control(
    file: &ClientFile,
    engine: &str,
    msg_type: &str,
    content: &Value,
    patience: Duration,
) -> Result<Value, Error> {
    ask(
        file,
        file.control,
        Some(engine),
        msg_type,
        content,
        patience,
    )
    .await
}

/// Who has no answer by the end waits for nothing more.
fn hasty() -> SocketOptions {
    SocketOptions {
        linger: Duration::ZERO,
        ..SocketOptions::default()
    }
}

async fn ask(
    file: &ClientFile,
    port: u16,
    engine: Option<&str>,
    msg_type: &str,
    content: &Value,
    patience: Duration,
) -> Result<Value, Error> {
    let endpoint = file.endpoint(port);
    let session = Session::new(&file.common.key);
    let (sockets, mut inbox) = SocketsBuilder::new()
        .connect(SOCKET, SocketType::DEALER, &endpoint)
        .options(SOCKET, hasty())
        .start()?;
    // A Value always renders.
    let content = RawJson::from_value(content).unwrap_or_else(|_| RawJson::empty_object());
    let request = session
        .raw_message(msg_type, content, None)
        .with_identities(
            engine
                .map(|uuid| Bytes::from(uuid.to_owned()))
                .into_iter()
                .collect(),
        );
    sockets.send(SOCKET, session.encode(&request));
    let answer = async {
        loop {
            let received = inbox.recv().await?;
            match session.decode(received.frames) {
                Ok(message) => return message.parse::<Value>().ok(),
                Err(error) => tracing::warn!(%error, "a message is dropped"),
            }
        }
    };
    let answer = timeout(patience, answer).await.ok().flatten();
    let answer = answer.ok_or(Error::NoAnswer {
        endpoint,
        waited: patience,
    })?;
    if answer["status"] == "error" {
        let text = |name: &str| answer[name].as_str().unwrap_or_default().to_owned();
        return Err(Error::Hub {
            ename: text("ename"),
            evalue: text("evalue"),
        });
    }
    Ok(answer)
}
