//! What a notebook answers.

use crate::diagnostics::Diagnostic;
use crate::support::Support;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// A cell that compiled.
#[derive(Clone, Debug, Default)]
pub struct Compiled {
    /// Shared objects to load and run, in order. None for a cell of commands, or of items only.
    pub artifacts: Vec<PathBuf>,
    /// What its commands print, by media type.
    pub shown: BTreeMap<String, String>,
    /// A command emptied the namespace (`:clear`, `:restart`): the runtime has to begin anew before `artifacts`.
    pub restarted: bool,
    /// Variables that are given up, since the cell defines anew what their values are made of.
    pub lost: Vec<String>,
    /// `:toolchain` was used: the runtime has to begin anew with this support library.
    pub support: Option<Support>,
}

impl Compiled {
    /// Takes in what comes after this.
    pub(super) fn add(&mut self, mut next: Compiled) {
        self.artifacts.append(&mut next.artifacts);
        self.lost.append(&mut next.lost);
        self.restarted |= next.restarted;
        self.support = next.support.or(self.support.take());
        self.show(next.shown);
    }

    /// Adds to what is shown.
    pub(super) fn show(&mut self, shown: BTreeMap<String, String>) {
        for (kind, text) in shown {
            self.shown.entry(kind).or_default().push_str(&text);
        }
    }
}

/// A cell that did not compile. Nothing has changed.
#[derive(Clone, Debug)]
pub enum Failure {
    /// rustc's errors, or an error in a command.
    Errors(Vec<Diagnostic>),
    /// evcxr's own refusal, in its words.
    Refused(String),
    /// evcxr or rust-analyzer panicked.
    Panicked(String),
}

/// How a cell that had compiled failed when it ran.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Undo {
    /// It unwound, or returned early by `?`: its new variables were never stored.
    NewVariables,
    /// A checkpoint brought back every variable as it was before.
    Everything,
    /// Every variable is lost.
    Lost,
}

/// A suggestion for the text at the cursor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Completion {
    /// What to put in.
    pub text: String,
    /// What to show.
    pub label: String,
    /// Jupyter's word for its kind: `function`, `instance`, `module`, ...
    pub kind: &'static str,
}

/// Suggestions, with the bytes of the cell that they would replace.
#[derive(Clone, Debug, Default)]
pub struct Completions {
    /// In the order of usefulness.
    pub items: Vec<Completion>,
    /// First byte.
    pub start: usize,
    /// Past the last byte.
    pub end: usize,
}

/// What is known of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Documentation {
    /// Plain text.
    pub text: String,
    /// The same as HTML.
    pub html: String,
}
