//! What a kernel broadcasts: status, output, results, errors.
//!
//! Source: <https://jupyter-client.readthedocs.io/en/stable/messaging.html#messages-on-the-iopub-xpub-sub-channel>.
//! The content of `error` is [`super::ErrorInfo`].

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::content::{MimeBundle, contents};
use super::lenient;

/// What the kernel is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The state it has just entered.
    pub execution_state: ExecutionState,
}

/// The states of a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ExecutionState {
    /// Said once, when the process is up.
    Starting,
    /// A request is being handled.
    Busy,
    /// It was handled and all its output is out.
    Idle,
}

/// Text that code wrote.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stream {
    /// Where to.
    pub name: StreamName,
    /// The text, of any length, not necessarily whole lines.
    pub text: String,
}

/// The two streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StreamName {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// Something to show.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct DisplayData {
    /// Its representations.
    #[serde(default, deserialize_with = "lenient::or_default")]
    pub data: MimeBundle,
    /// What is said about them.
    #[serde(default, deserialize_with = "lenient::or_default")]
    pub metadata: Map<String, Value>,
    /// What is not kept with the document.
    #[serde(default, deserialize_with = "lenient::or_default")]
    pub transient: Transient,
}

/// Takes the place of what was shown earlier with the same `display_id`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct UpdateDisplayData {
    /// The new representations.
    #[serde(default, deserialize_with = "lenient::or_default")]
    pub data: MimeBundle,
    /// What is said about them.
    #[serde(default, deserialize_with = "lenient::or_default")]
    pub metadata: Map<String, Value>,
    /// Must have a `display_id`.
    #[serde(default, deserialize_with = "lenient::or_default")]
    pub transient: Transient,
}

/// What belongs to a display while the kernel lives.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Transient {
    /// The name under which it can be updated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub display_id: Option<String>,
    /// What else a kernel wrote.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

impl Transient {
    /// A display that can be updated under `display_id`.
    pub fn named(display_id: impl Into<String>) -> Self {
        Self {
            display_id: Some(display_id.into()),
            extra: Map::new(),
        }
    }

    fn is_empty(&self) -> bool {
        self.display_id.is_none() && self.extra.is_empty()
    }
}

/// Tells all clients what code is about to run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecuteInput {
    /// The request's code.
    pub code: String,
    /// The number of its prompt.
    pub execution_count: u32,
}

/// The value of the code that ran.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ExecuteResult {
    /// The number of its prompt.
    pub execution_count: u32,
    /// Its representations, `text/plain` among them.
    #[serde(default, deserialize_with = "lenient::or_default")]
    pub data: MimeBundle,
    /// What is said about them.
    #[serde(default, deserialize_with = "lenient::or_default")]
    pub metadata: Map<String, Value>,
    /// A `display_id`, if the result can be updated.
    #[serde(
        default,
        deserialize_with = "lenient::or_default",
        skip_serializing_if = "Transient::is_empty"
    )]
    pub transient: Transient,
}

/// Removes a cell's output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClearOutput {
    /// Whether to wait for new output, so that the page does not flicker.
    #[serde(default, deserialize_with = "lenient::or_default")]
    pub wait: bool,
}

/// Says what a request waits for before it runs: Chorus' own, which other clients skip.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CompileStatus {
    /// Such as `compiling plotters (12 of 40)`; `None` when it waits no more.
    pub activity: Option<String>,
}

/// Tells a client that its subscription has arrived. Has no parent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IopubWelcome {
    /// The topic subscribed to; empty for all.
    pub subscription: String,
}

contents! {
    Status => "status",
    Stream => "stream",
    DisplayData => "display_data",
    UpdateDisplayData => "update_display_data",
    ExecuteInput => "execute_input",
    ExecuteResult => "execute_result",
    ClearOutput => "clear_output",
    CompileStatus => "compile_status",
    IopubWelcome => "iopub_welcome",
}
