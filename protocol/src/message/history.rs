//! `history`: what was run before.
//!
//! Source: <https://jupyter-client.readthedocs.io/en/stable/messaging.html#history>.

use serde::{Deserialize, Serialize};

use super::content::{contents, replies};
use super::lenient;

/// Asks for earlier inputs. Which of the later fields count depends on `hist_access_type`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryRequest {
    /// Whether outputs are wanted too.
    #[serde(default, deserialize_with = "lenient::or_default")]
    pub output: bool,
    /// Whether inputs are wanted as typed, before magics are rewritten.
    #[serde(default, deserialize_with = "lenient::or_default")]
    pub raw: bool,
    /// Which inputs.
    #[serde(default, deserialize_with = "lenient::or_default")]
    pub hist_access_type: HistoryAccess,
    /// `range`: the session; 0 is the current one, a negative number counts back from it.
    #[serde(default, deserialize_with = "lenient::or_default")]
    pub session: i64,
    /// `range`: the first line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start: Option<i64>,
    /// `range`: the line after the last; none is all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop: Option<i64>,
    /// `tail`, `search`: the last so many.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub n: Option<i64>,
    /// `search`: a glob with `*` and `?`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pattern: Option<String>,
    /// `search`: whether an input that occurs again is given once.
    #[serde(default, deserialize_with = "lenient::or_default")]
    pub unique: bool,
}

/// How a [`HistoryRequest`] selects.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HistoryAccess {
    /// Lines of one session.
    Range,
    /// The last lines.
    #[default]
    Tail,
    /// Lines that match.
    Search,
    /// A way that this protocol version does not know.
    #[serde(other)]
    Unknown,
}

/// The inputs, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryReply {
    /// One entry an input.
    pub history: Vec<HistoryEntry>,
}

/// Session, line and what was run there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum HistoryEntry {
    /// When outputs were not asked for.
    Input(i64, i64, String),
    /// When they were; an input may have none.
    WithOutput(i64, i64, (String, Option<String>)),
}

contents! {
    HistoryRequest => "history_request",
}

replies! {
    HistoryReply => "history_reply",
}
