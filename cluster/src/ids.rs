//! Names of things, each of a type of its own.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

pub use protocol::cluster::EngineId;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A message's `msg_id`. Clones share the text.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageId(pub Arc<str>);

impl From<&str> for MessageId {
    fn from(id: &str) -> Self {
        Self(Arc::from(id))
    }
}

impl From<String> for MessageId {
    fn from(id: String) -> Self {
        Self(Arc::from(id))
    }
}

/// Maps by ids are searched by text; `Hash` and `Ord` are the text's.
impl Borrow<str> for MessageId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl Serialize for MessageId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for MessageId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self::from)
    }
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The identity of a namespace's compile-time state. Whoever compiles makes them; everyone else compares them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Lineage(pub String);

impl Lineage {
    /// The state in which nothing has been compiled.
    pub fn root() -> Self {
        Self("root".to_owned())
    }
}

impl fmt::Display for Lineage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
