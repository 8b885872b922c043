//! A connection to a service that has accepted it.

use std::time::Duration;

use tokio::net::UnixStream;
use tokio::net::unix::OwnedReadHalf;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::frame::{FrameError, FrameReader, encode, spawn_writer};
use super::message::{ClientMessage, ServiceMessage};

/// How long a service may take to accept a connection.
const WELCOME_TIMEOUT: Duration = Duration::from_secs(10);

/// A connection, as its client's task has it.
#[derive(Debug)]
pub(super) struct Link {
    messages: FrameReader<OwnedReadHalf>,
    frames: mpsc::UnboundedSender<Vec<u8>>,
}

/// What becomes of a new connection.
#[derive(Debug)]
pub(super) enum Greeting {
    Welcome(Link),
    /// It was closed: the service has ended, or is about to.
    Closed,
    /// Nothing comes.
    Silence,
}

impl Link {
    /// Waits until the service has accepted the connection.
    pub(super) async fn establish(stream: UnixStream) -> Greeting {
        let (read, write) = stream.into_split();
        let mut link = Self {
            messages: FrameReader::new(read),
            frames: spawn_writer(write).0,
        };
        match timeout(WELCOME_TIMEOUT, link.next()).await {
            Ok(Ok(Some(ServiceMessage::Welcome))) => Greeting::Welcome(link),
            Ok(_) => Greeting::Closed,
            Err(_) => Greeting::Silence,
        }
    }

    /// The next message; `None` when the service has closed the connection. Nothing is lost when the future is dropped.
    pub(super) async fn next(&mut self) -> Result<Option<ServiceMessage>, FrameError> {
        self.messages.next().await
    }

    pub(super) fn send(&self, message: &ClientMessage) {
        match encode(message) {
            Ok(frame) => self.send_frame(frame),
            Err(error) => tracing::error!(%error, "a message cannot be sent"),
        }
    }

    /// Sends what was encoded before. A connection that is broken is noticed where it is read.
    pub(super) fn send_frame(&self, frame: Vec<u8>) {
        let _ = self.frames.send(frame);
    }
}
