//! Magics of a notebook: a cell's text in, what is to be shown out.
//!
//! The way of a cell: [`cell::parse`] takes it apart into Rust and magics, [`run::Magics::run_cell`] runs the pieces in their order against
//! two traits, [`run::Notebook`] (evaluates Rust, shows) and [`run::Engines`] (runs snippets on engines), and [`merge`] turns what
//! engines say into what a notebook shows. [`complete`] and [`table`] answer completion and `%px?`.
//!
//! No socket, no compiler, no process here: the kernel implements the traits.

pub mod cell;
pub mod complete;
pub mod error;
pub mod event;
pub mod generate;
pub mod merge;
pub mod names;
pub mod options;
pub mod run;
pub mod table;
pub mod targets;
pub mod timeit;
mod words;

pub use error::Error;
pub use event::{EngineEvent, EngineId, Failure, MimeBundle, Shown, StreamName};
pub use run::{Engines, Magics, Notebook};
