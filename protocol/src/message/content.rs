//! What all contents share: the type they are sent as, the status of replies, errors, mime bundles.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// A content that knows the type of message it belongs to.
///
/// Its `Serialize` gives a JSON object and does not fail.
pub trait Content: Serialize {
    /// The header's `msg_type`.
    const TYPE: &'static str;
}

/// Representations of one thing: MIME type to its value, text for most types and JSON for `application/json`.
pub type MimeBundle = Map<String, Value>;

/// A reply: what was asked for, or why not.
///
/// Source: <https://jupyter-client.readthedocs.io/en/stable/messaging.html#request-reply>.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "status", rename_all = "lowercase")]
pub enum Reply<T> {
    /// The request succeeded.
    Ok(T),
    /// The request failed.
    Error(ErrorInfo),
    /// The request was dropped because an earlier one failed. Deprecated by the protocol, still understood by clients.
    Aborted,
}

/// What a reply holds when its request succeeded.
///
/// It is no [`Content`] itself: only [`Reply`] gives it the `status` that every reply must have.
pub trait ReplyContent: Serialize {
    /// The reply's `msg_type`.
    const TYPE: &'static str;
}

impl<T: ReplyContent> Content for Reply<T> {
    const TYPE: &'static str = T::TYPE;
}

/// An error as users see it; also the content of `error` on iopub.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorInfo {
    /// The error's name.
    #[serde(default)]
    pub ename: String,
    /// What it says.
    #[serde(default)]
    pub evalue: String,
    /// Lines to show, possibly with ANSI colours.
    #[serde(default)]
    pub traceback: Vec<String>,
}

impl Content for ErrorInfo {
    const TYPE: &'static str = "error";
}

/// Says which `msg_type` each content is sent as.
macro_rules! contents {
    ($($content:ty => $msg_type:literal),+ $(,)?) => {
        $(impl $crate::message::Content for $content {
            const TYPE: &'static str = $msg_type;
        })+
    };
}
pub(super) use contents;

/// Says which `msg_type` the [`Reply`] around each content is sent as.
macro_rules! replies {
    ($($content:ty => $msg_type:literal),+ $(,)?) => {
        $(impl $crate::message::content::ReplyContent for $content {
            const TYPE: &'static str = $msg_type;
        })+
    };
}
pub(super) use replies;
