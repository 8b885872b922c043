//! `chorus controller`: the hub and its schedulers, in one process, or in a thread of their first client's ([`Hosted`]).
//!
//! [`core::Core`] decides, without sockets and clocks; `driver` owns those; `open` opens the sockets and writes the connection files.

pub mod broadcast;
pub mod core;
mod driver;
pub mod heartbeat;
mod hosted;
mod open;
pub mod packet;
mod queries;
mod registration;
pub mod results;
pub mod scheduler;
mod tasks;
mod traffic;

#[cfg(test)]
mod tests;

use std::path::PathBuf;

pub(crate) use driver::OURS;
pub use hosted::Hosted;
pub(crate) use open::remove_sockets;
pub use open::{Files, Open};
pub(crate) use traffic::HELLO;

use crate::connection::Libraries;
use crate::profile::{Profile, Settings};
use crate::{Error, process};

/// What `chorus controller` is told on its command line.
#[derive(Clone, Debug)]
pub struct Arguments {
    /// The profile's folder; `--profile-dir`.
    pub profile_dir: PathBuf,
    /// Empty for the profile's only cluster; `--cluster-id`.
    pub cluster_id: String,
    /// Take addresses and key from the connection files that a controller has left, so that engines and clients
    /// find this one where that one was; `--reuse`.
    pub reuse: bool,
    /// End when standard input is closed; `--tied`. For controllers that must not outlive who started them.
    pub tied: bool,
}

/// How to run a controller.
#[derive(Debug)]
pub struct Config {
    /// Where the connection files go.
    pub security: PathBuf,
    /// See [`Arguments::cluster_id`].
    pub cluster_id: String,
    /// See [`Arguments::reuse`].
    pub reuse: bool,
    /// The profile's.
    pub settings: Settings,
    /// What runtimes on this machine load first; told to the engines.
    pub libraries: Option<Libraries>,
}

/// Runs a controller until it is told to end; for a `main`. `ready` is printed as one line to standard output, as is a failure.
///
/// `libraries` are what the compiler's artifacts need; engines find them out themselves where they are not given.
///
/// # Errors
/// When it cannot start.
pub fn main(
    arguments: Arguments,
    libraries: impl FnOnce() -> Option<Libraries>,
) -> Result<(), Error> {
    process::run(arguments.tied, |stop, announce| async move {
        let profile = Profile::at(&arguments.profile_dir);
        let config = Config {
            security: profile.security(),
            cluster_id: arguments.cluster_id,
            reuse: arguments.reuse,
            settings: profile.settings()?,
            libraries: libraries(),
        };
        let open = Open::new(config)?;
        announce.ready(&serde_json::json!({"client_file": open.files().client}));
        open.serve(stop.wait()).await
    })
}

/// Opens the sockets, writes the connection files, and serves until `stop` or until a client asks for the end.
///
/// # Errors
/// When the sockets cannot be opened or the files not written.
pub async fn serve(config: Config, stop: impl Future<Output = ()>) -> Result<(), Error> {
    Open::new(config)?.serve(stop).await
}
