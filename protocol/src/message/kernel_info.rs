//! `kernel_info`: who the kernel is and what it speaks.
//!
//! Source: <https://jupyter-client.readthedocs.io/en/stable/messaging.html#kernel-info>.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::content::{contents, replies};

/// Asks for a [`KernelInfoReply`]; has no fields.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KernelInfoRequest {}

/// What the kernel says of itself.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct KernelInfoReply {
    /// Version of the protocol, [`super::PROTOCOL_VERSION`] for us.
    pub protocol_version: String,
    /// The kernel's name.
    #[serde(default)]
    pub implementation: String,
    /// The kernel's version.
    #[serde(default)]
    pub implementation_version: String,
    /// The language of its code.
    pub language_info: LanguageInfo,
    /// A greeting that consoles show.
    #[serde(default)]
    pub banner: String,
    /// Whether it can debug. Deprecated by `supported_features`.
    #[serde(default)]
    pub debugger: bool,
    /// Links for a notebook's help menu.
    #[serde(default)]
    pub help_links: Vec<HelpLink>,
    /// Optional features: `debugger`, `kernel subshells`.
    #[serde(default)]
    pub supported_features: Vec<String>,
}

/// The language that a kernel's code is written in.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LanguageInfo {
    /// Its name in lower case.
    pub name: String,
    /// Its version.
    #[serde(default)]
    pub version: String,
    /// MIME type of its files.
    #[serde(default)]
    pub mimetype: String,
    /// Extension of its files, with the dot.
    #[serde(default)]
    pub file_extension: String,
    /// Pygments lexer, where it is not `name`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pygments_lexer: Option<String>,
    /// CodeMirror mode, where it is not `name`: a string or an object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub codemirror_mode: Option<Value>,
    /// Exporter of nbconvert, where it is not the general `script`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nbconvert_exporter: Option<String>,
}

/// An entry of a notebook's help menu.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HelpLink {
    /// What the entry says.
    pub text: String,
    /// Where it leads.
    pub url: String,
}

contents! {
    KernelInfoRequest => "kernel_info_request",
}

replies! {
    KernelInfoReply => "kernel_info_reply",
}
