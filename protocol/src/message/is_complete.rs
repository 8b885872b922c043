//! `is_complete`: whether a console should run what was typed or ask for another line.
//!
//! Source: <https://jupyter-client.readthedocs.io/en/stable/messaging.html#code-completeness>.

use serde::{Deserialize, Serialize};

use super::content::contents;

/// Asks about code typed so far.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IsCompleteRequest {
    /// The code.
    pub code: String,
}

/// The verdict. Its `status` is its own, not that of other replies.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "status", rename_all = "lowercase")]
pub enum IsCompleteReply {
    /// Ready to run.
    Complete,
    /// Needs more lines.
    Incomplete {
        /// What to indent the next line with.
        #[serde(default)]
        indent: String,
    },
    /// Will not compile whatever follows.
    Invalid,
    /// The kernel cannot tell.
    Unknown,
}

contents! {
    IsCompleteRequest => "is_complete_request",
    IsCompleteReply => "is_complete_reply",
}
