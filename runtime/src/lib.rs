//! The process user code runs in: load, run, flush, checkpoint; and its owner's handle.
//!
//! Three processes, each the parent of the next:
//!
//! - the *owner* (kernel or engine) holds a [`Runtime`];
//! - the *supervisor* is what [`child_main`] starts as: it reaps, kills on request, and takes everything down when the
//!   owner is gone;
//! - the *worker* loads shared objects and runs them on its main thread. Before a snippet it forks a *copy* of itself that waits,
//!   and becomes the worker when the worker dies. Closures ([`Call`]) change no variables: one copy serves all calls until the next
//!   snippet.
//!
//! `owner` knows no shared object, `child` knows no tokio; what they say to each other is `wire`. This crate compiles
//! nothing: [`SUPPORT_SOURCE`] is compiled by whoever compiles the cells.

mod call;
mod child;
mod event;
mod memory;
mod owner;
mod packet;
mod tally;
mod watch;
mod wire;

pub use call::{Call, CallOutcome, Data, Piece, Span, Value};
pub use child::{child_main, is_child};
pub use event::{
    Cause, CheckpointState, Event, Frame, Location, Outcome, Panic, Restored, RunId, Snippet,
    Stream, WhyNot,
};
pub use owner::{Config, Runtime, RuntimeError};
pub use watch::Watched;

/// Source of the library that every cell links to, `chorus_support`.
///
/// Compile it with the rustc that compiles the cells: `--edition 2024 --crate-name chorus_support --crate-type dylib -C prefer-dynamic -C
/// opt-level=2`, and cells with `-C prefer-dynamic --extern chorus_support=libchorus_support.so`. Its path goes into
/// [`Config::support`], that of the toolchain's `libstd-*.so` into [`Config::preload`].
pub const SUPPORT_SOURCE: &str = include_str!("../support/lib.rs");
