//! What is asked of evcxr, in this process or in another, and what comes back.

use super::Failure;
use super::answers::{Completions, Documentation};
use super::store::{Owner, Record};
use crate::diagnostics::Report;
use crate::sources::Cell;
use crate::support::Support;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// A question to whoever has evcxr.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Ask {
    /// To compile a snippet. Answered by [`Answer::Compiled`].
    Compile(Task),
    /// For the lineage of a state without these variables, or without any. Answered by [`Answer::Lineage`].
    Without {
        /// The state.
        lineage: String,
        /// The variables that are gone; all of them if `None`.
        variables: Option<Vec<String>>,
    },
    /// For a state's variables. Answered by [`Answer::Variables`].
    Variables {
        /// The state.
        lineage: String,
    },
    /// For suggestions. Answered by [`Answer::Completions`].
    Complete(Text),
    /// For what is known of a name. Answered by [`Answer::Documentation`].
    Inspect(Text),
}

/// A snippet to compile.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Task {
    pub(crate) lineage: String,
    pub(crate) owner: Owner,
    /// As it was written.
    pub(crate) cell: Cell,
    /// The environment variables of whoever asks that differ from the compiler's.
    pub(crate) environment: BTreeMap<String, String>,
    /// The folder of whoever asks.
    pub(crate) folder: PathBuf,
}

/// A place in a text.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Text {
    /// The state in which the text is.
    pub(crate) lineage: String,
    pub(crate) text: String,
    /// In bytes.
    pub(crate) position: usize,
}

/// The answer to an [`Ask`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Answer {
    /// What a snippet was compiled to.
    Compiled(Box<Fresh>),
    /// A lineage.
    Lineage(String),
    /// Variables, name to type.
    Variables(BTreeMap<String, String>),
    /// Suggestions.
    Completions(Completions),
    /// What is known of a name.
    Documentation(Option<Documentation>),
}

/// What was compiled.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Fresh {
    pub(crate) record: Record,
    /// The shared object, if the store doesn't have it.
    pub(crate) made: Option<PathBuf>,
    /// The runtime is to begin anew with this.
    pub(crate) support: Option<Support>,
}

/// Why there is no answer.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Refused {
    /// The snippet does not compile; whoever knows its reader renders this.
    Report(Report),
    /// Anything else.
    Failure(Failure),
}

impl From<Failure> for Refused {
    fn from(failure: Failure) -> Refused {
        Refused::Failure(failure)
    }
}

impl Refused {
    /// What happened, in a line without colours.
    pub(super) fn headline(&self) -> String {
        match self {
            Refused::Report(report) => report
                .headline()
                .unwrap_or_else(|| "the snippet did not compile".to_owned()),
            Refused::Failure(failure) => failure.headline(),
        }
    }
}
