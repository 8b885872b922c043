//! Why something did not work with a cluster, and what ended before its time.

use std::time::Duration;

use protocol::SocketError;
use protocol::cluster::{EngineId, FileError};

/// Failed to do something with a cluster.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The connection file is not there, or is none.
    #[error(transparent)]
    File(#[from] FileError),
    /// The sockets cannot be opened.
    #[error("open the client's sockets")]
    Socket(#[from] SocketError),
    /// Nobody listens where the connection file says.
    #[error(
        "reach the controller at {endpoint}: nobody is there, its connection file is stale; `chorus cluster clean` removes it"
    )]
    Nobody {
        /// Where it should be.
        endpoint: String,
    },
    /// Somebody is there, and says nothing.
    #[error(
        "get an answer from the controller at {endpoint} within {waited:?}; if it hangs, `chorus cluster stop` ends it"
    )]
    NoAnswer {
        /// Where it is.
        endpoint: String,
        /// How long it was given.
        waited: Duration,
    },
    /// The hub or an engine refused.
    #[error("have the cluster do that: {ename}: {evalue}")]
    Refused {
        /// The error's name.
        ename: String,
        /// What it says.
        evalue: String,
    },
    /// The answer makes no sense.
    #[error("read the answer to {msg_type}")]
    Answer {
        /// What was asked.
        msg_type: String,
        /// What is wrong with it.
        source: protocol::JsonError,
    },
    /// There is no such engine.
    #[error("find engine {id}: there are {known}")]
    NoEngine {
        /// What was asked for.
        id: EngineId,
        /// Those there are, for people.
        known: String,
    },
    /// Who should have answered has gone.
    #[error("get an answer: {0}")]
    Lost(#[from] Lost),
}

/// Who will not answer any more.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Lost {
    /// An engine has gone, and what it had with it.
    #[error("engine {0} has gone: its process has ended, or cannot be reached")]
    Engine(EngineId),
    /// The controller has gone, and with it the connection to all engines.
    #[error("the controller at {endpoint} {}", if *.told { "was shut down" } else { "has gone" })]
    Controller {
        /// Where it was.
        endpoint: String,
        /// Whether it said so before.
        told: bool,
    },
    /// This connection was closed.
    #[error("the connection to the controller was closed")]
    Closed,
}

impl Error {
    /// The error and its causes in one line.
    pub fn chain(&self) -> String {
        format!("failed to {}", protocol::chain(self))
    }
}
