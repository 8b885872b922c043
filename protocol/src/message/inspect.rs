//! `inspect`: help on what stands at the cursor.
//!
//! Source: <https://jupyter-client.readthedocs.io/en/stable/messaging.html#introspection>.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::content::{MimeBundle, contents, replies};
use super::{cursor, lenient};

/// Asks for help on the code at the cursor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InspectRequest {
    /// The code around the cursor.
    pub code: String,
    /// The cursor in code points from the start of `code`; none is its end.
    #[serde(default)]
    pub cursor_pos: Option<usize>,
    /// 0 for a summary, 1 for everything, as `x?` and `x??` in IPython.
    #[serde(default, deserialize_with = "lenient::or_default")]
    pub detail_level: u8,
}

impl InspectRequest {
    /// The cursor as a byte offset in `code`, always at a character's boundary.
    pub fn cursor_byte(&self) -> usize {
        cursor::byte_offset(&self.code, self.cursor_pos)
    }
}

/// The help.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct InspectReply {
    /// Whether there is anything at the cursor.
    pub found: bool,
    /// Its representations; empty if nothing was found.
    #[serde(default, deserialize_with = "lenient::or_default")]
    pub data: MimeBundle,
    /// What is said about them.
    #[serde(default, deserialize_with = "lenient::or_default")]
    pub metadata: Map<String, Value>,
}

contents! {
    InspectRequest => "inspect_request",
}

replies! {
    InspectReply => "inspect_reply",
}
