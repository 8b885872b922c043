//! A cluster's compiler: what engines ask it, the process that answers, and the engines' side of it. What compiles behind it is a [`Compiler`].
//!
//! The messages are the Jupyter protocol's, signed with the cluster's key: `compile_request`, `aftermath_request`, `libraries_request`
//! and `known_request`, each with a reply; and `cancel_request`, which has none. Engines and the service see the same files.

mod client;
mod direct;
mod queue;
mod service;

use std::path::PathBuf;

use protocol::message::MimeBundle;
use serde::{Deserialize, Serialize};

use crate::Lineage;
use crate::compile_service::worker::Cancel;
pub use client::{Client, Trouble};
pub use direct::DirectCompiler;
use queue::{Job, Queue, RunId};
pub use service::{Arguments, main, serve};

use crate::connection::Libraries;

/// A snippet to be compiled.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Request {
    /// The state that it is compiled in.
    pub lineage: Lineage,
    /// Its text.
    pub source: String,
}

/// A snippet that was compiled. It has not run: which lineage follows depends on how that goes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Artifact {
    /// Shared objects to run one after another; none if the snippet has nothing to run (only commands, or items).
    pub loads: Vec<PathBuf>,
    /// The function to call in each.
    pub entry: String,
    /// The state after it, if it runs to its end.
    pub lineage: Lineage,
    /// What its commands have to show.
    #[serde(default)]
    pub shown: MimeBundle,
    /// Whether its last expression is its result.
    #[serde(default)]
    pub ends_in_expression: bool,
    /// Variables whose types it redefined, so that their values are gone.
    #[serde(default)]
    pub lost: Vec<String>,
    /// What a person is told of how it was compiled, a line each.
    #[serde(default)]
    pub notes: Vec<String>,
    /// Whether its compile read what may change (files, the environment), so that it has to be asked for each time.
    #[serde(default)]
    pub reads: bool,
}

/// A compile error.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Diagnostic {
    /// rustc's code, such as `E0308`, where it has one.
    #[serde(default)]
    pub code: Option<String>,
    /// rustc's words for it.
    pub message: String,
    /// All of it, in rustc's layout, with ANSI colours.
    pub rendered: String,
}

impl Diagnostic {
    /// An error that rustc has not found.
    pub(crate) fn plain(message: String) -> Self {
        Self {
            code: None,
            rendered: format!("error: {message}"),
            message,
        }
    }
}

/// How a snippet that compiled ended early.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Ended {
    /// What was compiled.
    pub request: Request,
    /// Where it panicked: file as the artifact has it, and line from 1. `None` for an early `?`.
    pub location: Option<(String, u32)>,
}

/// What is true after a snippet that ended early by a panic or a `?`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Aftermath {
    /// The state then: variables that were moved into the snippet are gone, new ones never came.
    pub lineage: Lineage,
    /// The line of the snippet that panicked.
    pub place: Option<Place>,
}

/// A line of a snippet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// Its number, from 1.
    pub line: usize,
    /// Its text.
    pub text: String,
}

/// What turns snippets into shared objects. Calls come from threads where it may block, several at a time.
pub trait Compiler: Send + Sync {
    /// What runtimes load before any artifact.
    ///
    /// # Errors
    /// Says why there is none, for people.
    fn libraries(&self) -> Result<Libraries, String>;

    /// Compiles a snippet. The same request gives the same artifact, at best without compiling again. A lineage that is not known
    /// (any more, or because another process made it) is an error, except [`Lineage::root`]. After a cancel it returns soon; its answer is not used.
    ///
    /// # Errors
    /// Why it does not compile.
    fn compile(&self, request: &Request, cancel: &Cancel) -> Result<Artifact, Vec<Diagnostic>>;

    /// What is true after a snippet that was compiled ended early.
    ///
    /// # Errors
    /// Why it cannot be told.
    fn after_early_end(&self, ended: &Ended) -> Result<Aftermath, Vec<Diagnostic>>;

    /// What is being done for those who wait, in a line for people.
    fn activity(&self) -> Option<String> {
        None
    }
}
