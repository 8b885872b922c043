//! evcxr as a pure compiler: it turns cells into shared objects and runs nothing.
//!
//! [`lineages::Thread`] owns evcxr on a thread of its own; what it compiles, a runtime elsewhere loads and runs. The
//! other processes behind it are this same binary: the [`stub`] that evcxr takes for its subprocess,
//! and the [`wrapper`] that cargo takes for rustc. This is the only crate that depends on evcxr.

mod activity;
mod amendments;
mod bench;
mod completeness;
pub mod crates;
mod diagnostics;
mod facts;
pub mod folder;
mod implementations;
mod inputs;
mod layouts;
pub mod lineages;
mod reach;
mod rewrite;
mod sources;
mod statements;
pub mod stub;
mod summary;
pub mod support;
pub mod toolchain;
pub mod wrapper;

pub use completeness::{Completeness, completeness};
pub use crates::Crates;
pub use diagnostics::Diagnostic;
pub use lineages::{
    Completion, Completions, Documentation, Failure, Lineages, Made, Owner, Request, Ticket,
};
pub use rewrite::ENTRY;
pub use sources::{Place, Source};
pub use statements::without_commands;
pub use support::Support;
pub use toolchain::stop_compiles;

/// Acts as rustc under `:cache` and `:allow_static_linking 0`, when evcxr has cargo call this binary so.
/// To be called first in `main`.
pub fn hook() {
    evcxr::runtime_hook();
}
