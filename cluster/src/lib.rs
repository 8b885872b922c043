//! A cluster: the controller, its engines, the compiler that they share, what starts them, and their profiles.
//!
//! The wire protocol is ipyparallel's (9.x): its clients drive this controller, its engines register here, and engines made
//! here register with its `ipcontroller`. Source: <https://ipyparallel.readthedocs.io/en/stable/reference/messages.html>.
//!
//! - [`controller`]: hub and schedulers. Synchronous cores, one driver with sockets.
//! - [`engine`]: a kernel that takes its requests from a controller; owns one runtime.
//! - [`executor`]: drives a namespace, for engines and for the notebook's kernel: a synchronous core, and a driver with processes.
//! - [`compile`]: turns (lineage, source) into shared objects for all engines. The compiler itself is behind a trait.
//! - [`compile_service`]: a front process of the user that hands requests to worker processes.
//! - [`launcher`]: starts and stops the processes of a cluster on this machine.
//! - [`profile`]: a named configuration, and the folder with its connection files.
//! - [`connection`]: the connection files. [`query`]: one question to a running controller.
//! - [`output`] and [`failure`]: what a snippet shows, and what to say when it fails.
//!
//! This crate knows no evcxr: the program gives a cluster's compiler what compiles.

pub mod compile;
pub mod compile_service;
pub mod connection;
pub mod controller;
pub mod engine;
mod error;
pub mod executor;
pub mod failure;
mod ids;
pub mod launcher;
pub mod output;
mod process;
pub mod profile;
pub mod query;

pub use error::Error;
pub use ids::{EngineId, Lineage, MessageId};
