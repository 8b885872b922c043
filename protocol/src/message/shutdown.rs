//! `shutdown`: ending the kernel in good order.
//!
//! Source: <https://jupyter-client.readthedocs.io/en/stable/messaging.html#kernel-shutdown>.

use serde::{Deserialize, Serialize};

use super::content::{contents, replies};
use super::lenient;

/// Asks the kernel to end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShutdownRequest {
    /// Whether it will be started again.
    #[serde(default, deserialize_with = "lenient::or_default")]
    pub restart: bool,
}

/// Says that it is ending.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShutdownReply {
    /// What the request said.
    #[serde(default, deserialize_with = "lenient::or_default")]
    pub restart: bool,
}

contents! {
    ShutdownRequest => "shutdown_request",
}

replies! {
    ShutdownReply => "shutdown_reply",
}
