//! `execute`: running code.
//!
//! Source: <https://jupyter-client.readthedocs.io/en/stable/messaging.html#execute>.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::content::{ErrorInfo, MimeBundle, Reply, contents};
use super::lenient;

/// Asks to run code. Everything but the code may be left out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ExecuteRequest {
    /// The code, any number of lines.
    pub code: String,
    /// Run without output, results, history or counting.
    #[serde(default, deserialize_with = "lenient::or_default")]
    pub silent: bool,
    /// Whether the code enters the history; see [`Self::enters_history`] for what `silent` makes of it.
    #[serde(default = "lenient::yes", deserialize_with = "lenient::or_true")]
    pub store_history: bool,
    /// Name to expression: what to evaluate once the code has run.
    #[serde(default, deserialize_with = "lenient::or_default")]
    pub user_expressions: BTreeMap<String, String>,
    /// Whether the client answers `input_request`.
    #[serde(default = "lenient::yes", deserialize_with = "lenient::or_true")]
    pub allow_stdin: bool,
    /// Whether requests that wait behind this one are dropped if it fails.
    #[serde(default = "lenient::yes", deserialize_with = "lenient::or_true")]
    pub stop_on_error: bool,
}

impl ExecuteRequest {
    /// A request with the protocol's defaults.
    pub fn new(code: impl Into<String>) -> Self {
        Self {
            code: code.into(),
            silent: false,
            store_history: true,
            user_expressions: BTreeMap::new(),
            allow_stdin: true,
            stop_on_error: true,
        }
    }

    /// Whether the code is counted and enters the history: `silent` rules `store_history`.
    pub fn enters_history(&self) -> bool {
        self.store_history && !self.silent
    }
}

/// Says how a request to run code ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ExecuteReply {
    /// The kernel's counter, whatever the outcome.
    #[serde(default)]
    pub execution_count: u32,
    /// The outcome.
    #[serde(flatten)]
    pub outcome: Reply<ExecuteOutcome>,
}

/// What a successful execution gives besides its output.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ExecuteOutcome {
    /// Actions for the front end, deprecated but alive: objects with a `source`, see [`Payload`].
    #[serde(default, deserialize_with = "lenient::or_default")]
    pub payload: Vec<Value>,
    /// A result for every expression asked for.
    #[serde(default, deserialize_with = "lenient::or_default")]
    pub user_expressions: BTreeMap<String, Reply<Displayed>>,
}

/// The value of one of the `user_expressions`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Displayed {
    /// The value's representations.
    #[serde(default)]
    pub data: MimeBundle,
    /// What is said about them.
    #[serde(default)]
    pub metadata: Map<String, Value>,
}

/// The payloads that front ends know.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "source", rename_all = "snake_case")]
pub enum Payload {
    /// Show something in a pager.
    Page {
        /// Its representations; `text/plain` must be among them.
        data: MimeBundle,
        /// The line to start from.
        start: u32,
    },
    /// Make a cell, or set a console's next input.
    SetNextInput {
        /// The cell's text.
        text: String,
        /// Whether it takes the current cell's place.
        replace: bool,
    },
    /// Open a file in an editor.
    EditMagic {
        /// The file.
        filename: String,
        /// The line to start from.
        line_number: u32,
    },
    /// Offer to leave a console.
    AskExit {
        /// Whether the kernel stays.
        keepkernel: bool,
    },
}

impl ExecuteReply {
    /// The reply of an execution that succeeded.
    pub fn ok(execution_count: u32, outcome: ExecuteOutcome) -> Self {
        Self {
            execution_count,
            outcome: Reply::Ok(outcome),
        }
    }

    /// The reply of an execution that failed.
    pub fn error(execution_count: u32, error: ErrorInfo) -> Self {
        Self {
            execution_count,
            outcome: Reply::Error(error),
        }
    }

    /// The reply of a request that was dropped because an earlier one failed.
    pub fn aborted(execution_count: u32) -> Self {
        Self {
            execution_count,
            outcome: Reply::Aborted,
        }
    }
}

contents! {
    ExecuteRequest => "execute_request",
    ExecuteReply => "execute_reply",
}
