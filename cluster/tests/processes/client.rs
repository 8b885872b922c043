//! A client of a cluster, as small as can be: requests to engines, replies and output.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use cluster::connection::ClientFile;
use protocol::message::execute::ExecuteRequest;
use protocol::{
    Content, Message, RawJson, Received, Session, SocketId, SocketType, Sockets, SocketsBuilder,
};
use serde_json::{Value, json};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::timeout;

pub(crate) const MUX: SocketId = SocketId(0);
pub(crate) const IOPUB: SocketId = SocketId(1);
const NEWS: SocketId = SocketId(2);
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Client {
    pub(crate) file: ClientFile,
    pub(crate) session: Session,
    pub(crate) sockets: Sockets,
    inbox: UnboundedReceiver<Received>,
}

/// A reply and the text that was printed for it.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) content: Value,
    pub(crate) stdout: String,
    pub(crate) result: Option<String>,
}

impl Client {
    pub(crate) fn connect(path: &Path) -> Self {
        let file = ClientFile::read(path).unwrap();
        let (sockets, inbox) = SocketsBuilder::new()
            .connect(MUX, SocketType::DEALER, file.endpoint(file.mux))
            .connect(IOPUB, SocketType::SUB, file.endpoint(file.iopub))
            .connect(NEWS, SocketType::SUB, file.endpoint(file.notification))
            .start()
            .unwrap();
        let session = Session::new(&file.common.key);
        Self {
            file,
            session,
            sockets,
            inbox,
        }
    }

    pub(crate) async fn hub(&self, msg_type: &str, content: Value) -> Value {
        cluster::query::hub(&self.file, msg_type, &content, PATIENCE)
            .await
            .unwrap()
    }

    /// The identity of an engine.
    pub(crate) async fn engine(&self, id: u32) -> String {
        let reply = self.hub("connection_request", json!({})).await;
        reply["engines"][id.to_string()]
            .as_str()
            .unwrap()
            .to_owned()
    }

    pub(crate) fn send(&self, engine: &str, code: &str) -> String {
        let content = RawJson::from_value(&ExecuteRequest::new(code)).unwrap();
        let message = self
            .session
            .raw_message(ExecuteRequest::TYPE, content, None)
            .with_identities(vec![Bytes::from(engine.to_owned())]);
        self.sockets.send(MUX, self.session.encode(&message));
        message.header.msg_id
    }

    pub(crate) async fn next(&mut self) -> (SocketId, Message) {
        let received = timeout(PATIENCE, self.inbox.recv()).await;
        let received = received.expect("a message in time").unwrap();
        (
            received.socket,
            self.session.decode(received.frames).unwrap(),
        )
    }

    /// Waits for a request's reply and for the end of its output.
    pub(crate) async fn finish(&mut self, id: &str) -> Ran {
        let (mut content, mut stdout, mut result) = (None, String::new(), None);
        let mut idle = false;
        while content.is_none() || !idle {
            let (socket, message) = self.next().await;
            if message.parent.as_ref().is_none_or(|it| it.msg_id != id) {
                continue;
            }
            let said: Value = message.parse().unwrap();
            match (socket, message.msg_type()) {
                (MUX, _) => {
                    // Of an engine that died nothing more is heard.
                    idle |= said["ename"] == "EngineError";
                    content = Some(said);
                }
                (IOPUB, "status") => idle |= said["execution_state"] == "idle",
                (IOPUB, "stream") => stdout.push_str(said["text"].as_str().unwrap()),
                (IOPUB, "execute_result") => {
                    result = Some(said["data"]["text/plain"].as_str().unwrap().to_owned());
                }
                _ => {}
            }
        }
        Ran {
            content: content.unwrap(),
            stdout,
            result,
        }
    }

    /// Waits for the replies and the end of the output of several requests.
    pub(crate) async fn finish_all(&mut self, ids: &[String]) {
        let mut left = ids.len() * 2;
        while left > 0 {
            let (socket, message) = self.next().await;
            if !message
                .parent
                .as_ref()
                .is_some_and(|it| ids.contains(&it.msg_id))
            {
                continue;
            }
            let said: Value = message.parse().unwrap();
            if socket == MUX || said["execution_state"] == "idle" {
                left -= 1;
            }
        }
    }

    pub(crate) async fn run(&mut self, engine: &str, code: &str) -> Ran {
        let id = self.send(engine, code);
        self.finish(&id).await
    }

    /// Waits until output of this request has come.
    pub(crate) async fn first_output(&mut self, id: &str) {
        loop {
            let (_, message) = self.next().await;
            let ours = message.parent.as_ref().is_some_and(|it| it.msg_id == id);
            if ours && message.msg_type() == "stream" {
                return;
            }
        }
    }

    /// Waits for news of this type.
    pub(crate) async fn news(&mut self, msg_type: &str) -> Value {
        loop {
            let (socket, message) = self.next().await;
            if socket == NEWS && message.msg_type() == msg_type {
                return message.parse().unwrap();
            }
        }
    }
}
