//! Programs outside of notebooks: how they find a cluster or start one, and how their closures get to engines.

mod cluster;
mod hook;
mod host;

pub use cluster::Cluster;
pub(crate) use host::{Where, carrier};
