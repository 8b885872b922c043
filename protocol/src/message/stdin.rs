//! `input`: the kernel asks the user for a line, the only request that goes from kernel to client.
//!
//! Source: <https://jupyter-client.readthedocs.io/en/stable/messaging.html#messages-on-the-stdin-router-dealer-channel>.

use serde::{Deserialize, Serialize};

use super::content::contents;
use super::lenient;

/// Asks the user. Goes to the identities of the `execute_request`, and only if that allows it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InputRequest {
    /// What to show.
    #[serde(default, deserialize_with = "lenient::or_default")]
    pub prompt: String,
    /// Whether what is typed stays hidden.
    #[serde(default, deserialize_with = "lenient::or_default")]
    pub password: bool,
}

/// What the user typed. Its `Debug` hides it, for it may be a password.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InputReply {
    /// The line without its end; the character U+0004 alone is the end of input.
    pub value: String,
}

impl std::fmt::Debug for InputReply {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("InputReply(..hidden..)")
    }
}

contents! {
    InputRequest => "input_request",
    InputReply => "input_reply",
}
