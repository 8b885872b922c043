//! Starting and stopping the processes of a cluster: a controller, a compiler, engines.
//!
//! Keys are never on a command line or in an environment: processes read them from the connection files.

mod local;
mod manage;
mod state;

pub use local::{Cluster, Host, Lifetime, Options, start, start_numbered};
pub use manage::{
    EngineStatus, Listed, Status, add_engines, clean, list, remove_engines, status, stop,
};
pub use state::{EngineProcess, Process, State};
