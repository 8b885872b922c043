//! The Jupyter kernel: serves Jupyter's channels, evaluates cells, keeps history.
//!
//! - [`server`]: sockets in, requests to their queues;
//! - `shell`, `control`: a queue each, one request after another; `kernel` frames them with busy and idle;
//! - `evaluator`: a cell's way through compiler and runtime; `output` and `failure` say what came of it;
//! - `magic`, `history`, `info`: what they say;
//! - [`engines`]: the cluster that a notebook's magics use;
//! - [`cli`]: the `chorus` program, every role of it.

pub mod cli;
mod control;
mod demo;
pub mod engines;
mod evaluator;
mod failure;
mod history;
mod info;
mod kernel;
mod magic;
mod outlet;
mod output;
mod server;
mod shell;
