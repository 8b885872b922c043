//! The runtime as its owner sees it: real processes, real shared objects made by the installed rustc.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod calls;
mod checkpoints;
mod input;
mod measure;
mod outcomes;
mod output;
mod processes;
mod programs;
mod support;
