//! Messages as values: the envelope here, one file a family of contents beside it. No I/O, no signing.
//!
//! Source: <https://jupyter-client.readthedocs.io/en/stable/messaging.html#general-message-format>.

pub mod comm;
pub mod complete;
pub mod content;
pub mod cursor;
pub mod execute;
pub mod history;
pub mod inspect;
pub mod interrupt;
pub mod iopub;
pub mod is_complete;
pub mod kernel_info;
mod lenient;
pub mod shutdown;
pub mod stdin;
pub mod subshell;

#[cfg(test)]
mod tests;

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

pub use content::{Content, ErrorInfo, MimeBundle, Reply, ReplyContent};

use crate::json::{JsonError, RawJson};

/// The protocol version that headers made here carry, and that a kernel reports.
pub const PROTOCOL_VERSION: &str = "5.5";

/// Who says what, and when.
///
/// Only `msg_id` and `msg_type` are demanded of a peer. Fields unknown here are kept, so that a header that comes back as a
/// parent is what the peer sent.
///
/// Source: <https://jupyter-client.readthedocs.io/en/stable/messaging.html#message-header>.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Header {
    /// Unique for every message.
    pub msg_id: String,
    /// Names the process that speaks; a kernel that restarts has another one.
    #[serde(default, deserialize_with = "lenient::or_default")]
    pub session: String,
    /// Whom the process belongs to; often empty.
    #[serde(default, deserialize_with = "lenient::or_default")]
    pub username: String,
    /// When the message was made: ISO 8601 with an offset.
    #[serde(default, deserialize_with = "lenient::or_default")]
    pub date: String,
    /// What kind of message this is, and so the shape of its content.
    pub msg_type: String,
    /// The version of the protocol that the sender speaks.
    #[serde(default, deserialize_with = "lenient::or_default")]
    pub version: String,
    /// The subshell a shell request is meant for; none is the main shell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subshell_id: Option<String>,
    /// What else the peer wrote.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// One message: routing, header, parent, metadata, content and binary buffers.
#[derive(Clone, Debug)]
pub struct Message {
    /// What precedes the delimiter: the peer's identities on a ROUTER socket, the topic on iopub.
    pub identities: Vec<Bytes>,
    /// The message's own header.
    pub header: Header,
    /// The header of the message that caused this one.
    pub parent: Option<Header>,
    /// What is said about the message and is not part of its content.
    pub metadata: Map<String, Value>,
    /// The body, not yet read.
    pub content: RawJson,
    /// Binary data, not covered by the signature.
    pub buffers: Vec<Bytes>,
}

impl Message {
    /// Reads the content as a `T`, which need not be the content that the message's type names.
    ///
    /// # Errors
    /// When the content has not the shape of a `T`.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T, JsonError> {
        self.content.parse()
    }

    /// What kind of message this is.
    pub fn msg_type(&self) -> &str {
        &self.header.msg_type
    }

    /// The same message with these identities, or this topic, before the delimiter.
    #[must_use]
    pub fn with_identities(mut self, identities: Vec<Bytes>) -> Self {
        self.identities = identities;
        self
    }

    /// The same message with this metadata.
    #[must_use]
    pub fn with_metadata(mut self, metadata: Map<String, Value>) -> Self {
        self.metadata = metadata;
        self
    }

    /// The same message with these buffers.
    #[must_use]
    pub fn with_buffers(mut self, buffers: Vec<Bytes>) -> Self {
        self.buffers = buffers;
        self
    }
}
