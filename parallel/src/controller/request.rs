//! What is asked, and what comes back.

use std::fmt;

use bytes::Bytes;
use protocol::cluster::EngineId;
use protocol::message::ErrorInfo;
use protocol::message::iopub::{
    ClearOutput, CompileStatus, DisplayData, ExecuteResult, Stream, UpdateDisplayData,
};
use protocol::{Message, RawJson};
use serde_json::{Map, Value};

use super::Lost;

/// To whom a request goes, and by which way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum To {
    /// The hub: questions about the cluster.
    Hub,
    /// An engine: waits there until what it was asked before is done.
    Engine(EngineId),
    /// An engine, past everything that waits there.
    Control(EngineId),
    /// The engine that the controller chooses.
    AnyEngine,
}

impl To {
    /// The engine that is named.
    pub(super) fn engine(self) -> Option<EngineId> {
        match self {
            Self::Engine(id) | Self::Control(id) => Some(id),
            Self::Hub | Self::AnyEngine => None,
        }
    }
}

/// A request to be sent.
#[derive(Clone, Debug)]
pub struct Request {
    /// To whom.
    pub to: To,
    /// What kind of request it is.
    pub msg_type: String,
    /// Its body. Several requests may share one.
    pub content: RawJson,
    /// What is said about it: `retries`, `after`, `label` and the like.
    pub metadata: Map<String, Value>,
    /// Binary data; not copied.
    pub buffers: Vec<Bytes>,
    /// Whether what the engine broadcasts for it is wanted. The request then ends only when the engine has said that this was all.
    pub output: bool,
}

impl Request {
    /// A request without metadata and buffers, whose output is not wanted.
    pub fn new(to: To, msg_type: impl Into<String>, content: RawJson) -> Self {
        Self {
            to,
            msg_type: msg_type.into(),
            content,
            metadata: Map::new(),
            buffers: Vec::new(),
            output: false,
        }
    }

    /// The same request with these buffers.
    #[must_use]
    pub fn with_buffers(mut self, buffers: Vec<Bytes>) -> Self {
        self.buffers = buffers;
        self
    }

    /// The same request with this metadata.
    #[must_use]
    pub fn with_metadata(mut self, metadata: Map<String, Value>) -> Self {
        self.metadata = metadata;
        self
    }
}

/// What comes of a request. The last one is a reply or a loss, and there is one of these for every request.
#[derive(Clone, Debug)]
pub enum Event {
    /// Something that the engine shows for the request.
    Output(Output),
    /// The reply, with its metadata and buffers; it may tell of an error.
    Reply(Box<Message>),
    /// There will be no reply.
    Lost(Lost),
}

/// Something that an engine shows.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    /// Text.
    Stream(Stream),
    /// Something to show besides text.
    Display(DisplayData),
    /// Takes the place of an earlier display.
    Update(UpdateDisplayData),
    /// What was shown so far is to go.
    Clear(ClearOutput),
    /// The value of the code that ran.
    Result(ExecuteResult),
    /// What it waits for before it runs.
    CompileStatus(CompileStatus),
}

/// Hears what comes of requests that were sent together: the request's place among them, and what happened.
///
/// It is called by the task that owns the connection, so it hands things on and does not wait.
pub type Listener = Box<dyn FnMut(usize, Event) + Send>;

/// What an engine says of a snippet that it runs.
#[derive(Clone, Debug, PartialEq)]
pub enum Said {
    /// It shows something.
    Output(Output),
    /// It names the compile-time state that it has after the snippet, if it is Chorus's. Said before the end.
    Lineage(String),
    /// It has nothing more to say.
    Ended(Ending),
}

/// How a snippet ended on an engine.
#[derive(Clone, Debug, PartialEq)]
pub enum Ending {
    /// It ran to its end.
    Done,
    /// It failed.
    Failed(ErrorInfo),
    /// It was taken out of the engine's queue before it ran.
    Aborted,
    /// Nobody knows.
    Lost(Lost),
}

impl fmt::Display for To {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hub => f.write_str("the hub"),
            Self::Engine(id) | Self::Control(id) => write!(f, "engine {id}"),
            Self::AnyEngine => f.write_str("any engine"),
        }
    }
}
