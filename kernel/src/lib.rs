//! The Jupyter kernel: serves Jupyter's channels, evaluates cells, keeps history.
//!
//! - [`server`]: sockets in, requests to their queues; `parent`: whose end ends the kernel;
//! - `shell`, `control`: a queue each, one request after another; `kernel` frames them with busy and idle;
//! - `cells`: a cell with its magics; `engines`: the cluster that they reach;
//! - `carrier`: what programs in cells do on engines, by the crate `chorus`;
//! - `evaluator`: Rust on its way through compiler and runtime; `output` and `failure` say what came of it;
//! - `compiling`: asking the compile service, and being it; `history`, `info`: what they say; `crates`: what cells may name without asking;
//! - [`cli`]: the `chorus` program, every role of it.

mod carrier;
mod cells;
pub mod cli;
mod compiling;
mod control;
mod crates;
mod demo;
mod engines;
mod evaluator;
mod failure;
mod history;
mod info;
mod kernel;
mod outlet;
mod parent;
mod server;
mod shell;
mod translate;
