//! The runtime as its owner sees it: real processes, real shared objects made by the installed rustc.

mod checkpoints;
mod input;
mod measure;
mod outcomes;
mod output;
mod processes;
mod support;
