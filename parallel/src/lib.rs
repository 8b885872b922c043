//! What programs write against to use a cluster.
//!
//! `client` (feature `client`) is a connection to a controller over ZeroMQ.

#[cfg(feature = "client")]
pub mod client;
