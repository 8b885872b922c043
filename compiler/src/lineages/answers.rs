//! What is told of code that is being written.

use serde::{Deserialize, Serialize};

/// A suggestion for the text at the cursor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Completion {
    /// What to put in.
    pub text: String,
    /// What to show.
    pub label: String,
    /// Jupyter's word for its kind: `function`, `instance`, `module`, ...
    pub kind: String,
}

/// Suggestions, with the bytes of the cell that they would replace.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Completions {
    /// In the order of usefulness.
    pub items: Vec<Completion>,
    /// First byte.
    pub start: usize,
    /// Past the last byte.
    pub end: usize,
}

/// What is known of a name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Documentation {
    /// Plain text.
    pub text: String,
    /// The same as HTML.
    pub html: String,
}
