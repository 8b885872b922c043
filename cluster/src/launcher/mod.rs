//! Starting and stopping the processes of a cluster: a controller, a compiler, engines.
//!
//! Keys are never on a command line or in an environment: processes read them from the connection files.

pub mod local;
mod state;

pub use local::{
    Cluster, Lifetime, Options, add_engines, clean, list, remove_engines, start, status, stop,
};
pub use state::{EngineProcess, Process, State};
