//! `complete`: what could stand at the cursor.
//!
//! Source: <https://jupyter-client.readthedocs.io/en/stable/messaging.html#completion>.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::content::{contents, replies};
use super::{cursor, lenient};

/// Asks for completions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CompleteRequest {
    /// The code around the cursor.
    pub code: String,
    /// The cursor in code points from the start of `code`; none is its end.
    #[serde(default)]
    pub cursor_pos: Option<usize>,
}

impl CompleteRequest {
    /// The cursor as a byte offset in `code`, always at a character's boundary.
    pub fn cursor_byte(&self) -> usize {
        cursor::byte_offset(&self.code, self.cursor_pos)
    }
}

/// The completions.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CompleteReply {
    /// The texts that fit, best first.
    pub matches: Vec<String>,
    /// Where the text that a match replaces starts, in code points.
    pub cursor_start: usize,
    /// Where it ends, in code points; normally the request's cursor.
    pub cursor_end: usize,
    /// What front ends may show besides, such as `_jupyter_types_experimental`.
    #[serde(default, deserialize_with = "lenient::or_default")]
    pub metadata: Map<String, Value>,
}

contents! {
    CompleteRequest => "complete_request",
}

replies! {
    CompleteReply => "complete_reply",
}
