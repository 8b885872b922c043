//! What goes in and out: what an engine says while it runs a snippet, and what a notebook is to show.
//!
//! The shapes are those of Jupyter's `iopub` messages, without envelopes:
//! <https://jupyter-client.readthedocs.io/en/stable/messaging.html#messages-on-the-iopub-xpub-sub-channel>.

use std::fmt;

use serde_json::{Map, Value};

/// The number an engine has in its cluster; what users write after `-t`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EngineId(pub u32);

impl fmt::Display for EngineId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(out)
    }
}

/// Representations of one thing: MIME type to its value.
pub type MimeBundle = Map<String, Value>;

/// The two streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum StreamName {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

impl StreamName {
    /// As messages and labels spell it.
    pub fn as_str(self) -> &'static str {
        match self {
            StreamName::Stdout => "stdout",
            StreamName::Stderr => "stderr",
        }
    }
}

/// An error as a notebook shows it: the content of a Jupyter `error` message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Failure {
    /// Its kind, such as `panic` or `compile error`.
    pub ename: String,
    /// What happened, in one line.
    pub evalue: String,
    /// What the user reads; an entry may hold several lines.
    pub traceback: Vec<String>,
}

impl Failure {
    /// An error whose text says all there is to say.
    pub fn new(ename: impl Into<String>, text: impl Into<String>) -> Failure {
        let evalue = text.into();
        Failure {
            ename: ename.into(),
            traceback: vec![evalue.clone()],
            evalue,
        }
    }
}

/// What an engine says of a snippet it was given. The last one is an [ending](EngineEvent::is_end), and an engine ends once.
#[derive(Clone, Debug, PartialEq)]
pub enum EngineEvent {
    /// Text that the snippet wrote, cut anywhere between characters.
    Stream {
        /// Where to.
        name: StreamName,
        /// At least one character.
        text: String,
    },
    /// Something to show besides text (`display_data`).
    Display {
        /// Its representations.
        data: MimeBundle,
        /// What is said about them.
        metadata: Map<String, Value>,
        /// The engine's own name for it, if it is to be updated.
        display_id: Option<String>,
    },
    /// Takes the place of an earlier display with the same name on the same engine (`update_display_data`).
    Update {
        /// The new representations.
        data: MimeBundle,
        /// What is said about them.
        metadata: Map<String, Value>,
        /// The engine's own name for it.
        display_id: String,
    },
    /// The value of the snippet's last expression (`execute_result`).
    Result {
        /// The engine's execution count.
        count: u32,
        /// Its representations, `text/plain` among them.
        data: MimeBundle,
        /// What is said about them.
        metadata: Map<String, Value>,
    },
    /// What the snippet waits for before it runs; `None` when it waits no more (`compile_status`).
    Compiling {
        /// Such as `compiling plotters (12 of 40)`.
        activity: Option<String>,
    },
    /// The snippet ran to its end.
    Done,
    /// The snippet did not compile, and nothing of it ran.
    Rejected(Failure),
    /// The snippet ran and failed: a panic, an early `?`, a signal.
    Failed(Failure),
    /// The engine has gone and will not answer.
    Lost {
        /// Why, as a clause: `it was killed by SIGKILL`.
        reason: String,
    },
}

impl EngineEvent {
    /// Whether the engine has nothing more to say of the snippet.
    pub fn is_end(&self) -> bool {
        matches!(
            self,
            EngineEvent::Done
                | EngineEvent::Rejected(_)
                | EngineEvent::Failed(_)
                | EngineEvent::Lost { .. }
        )
    }

    /// The ending that a Jupyter error message tells of. A failure whose `ename` is `compile error` is a [`EngineEvent::Rejected`].
    pub fn error(failure: Failure) -> EngineEvent {
        if failure.ename == "compile error" {
            EngineEvent::Rejected(failure)
        } else {
            EngineEvent::Failed(failure)
        }
    }
}

/// What a notebook is to show, in this order; one `iopub` message each.
#[derive(Clone, Debug, PartialEq)]
pub enum Shown {
    /// `stream`.
    Stream {
        /// Where to.
        name: StreamName,
        /// At least one character.
        text: String,
    },
    /// `display_data`.
    Display {
        /// Its representations.
        data: MimeBundle,
        /// What is said about them; `engine` is the id of the engine it comes from.
        metadata: Map<String, Value>,
        /// For `transient.display_id`.
        display_id: Option<String>,
    },
    /// `update_display_data`.
    Update {
        /// The new representations.
        data: MimeBundle,
        /// What is said about them.
        metadata: Map<String, Value>,
        /// For `transient.display_id`.
        display_id: String,
    },
    /// What the cell waits for, in a line that is gone when it waits no more (`compile_status`).
    Compiling {
        /// Such as `compiling plotters (12 of 40)`; `None` for nothing.
        activity: Option<String>,
    },
}

impl Shown {
    /// Text on stdout.
    pub fn stdout(text: impl Into<String>) -> Shown {
        Shown::Stream {
            name: StreamName::Stdout,
            text: text.into(),
        }
    }

    /// Text on stderr.
    pub fn stderr(text: impl Into<String>) -> Shown {
        Shown::Stream {
            name: StreamName::Stderr,
            text: text.into(),
        }
    }

    /// A display that is plain text and is not updated.
    pub fn plain(text: impl Into<String>) -> Shown {
        Shown::Display {
            data: plain(text),
            metadata: Map::new(),
            display_id: None,
        }
    }
}

/// A bundle that is plain text.
pub fn plain(text: impl Into<String>) -> MimeBundle {
    MimeBundle::from_iter([("text/plain".to_owned(), Value::String(text.into()))])
}

/// The plain text of a bundle; nothing if it has none.
pub fn text_of(data: &MimeBundle) -> &str {
    data.get("text/plain")
        .and_then(Value::as_str)
        .unwrap_or_default()
}
