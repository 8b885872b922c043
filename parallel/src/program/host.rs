//! The carrier of a program outside of notebooks: a thread of its own, with a Unix stream to the clients.

use crate::carrier::{Carrier, Found, Host};
use crate::controller::{Connection, Output};
use crate::error::Error;
use crate::wire::Place;
use protocol::cluster::{DEFAULT_PROFILE, Paths, profiles, security};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::Duration;
use tokio::runtime::{Builder, Runtime};

/// Names the profile whose cluster is used, in place of the default one; as for notebooks.
const PROFILE: &str = "CHORUS_PROFILE";
/// Names the cluster within the profile.
const CLUSTER_ID: &str = "CHORUS_CLUSTER_ID";
/// How long a controller may take to say which engines it has.
const ANSWER: Duration = Duration::from_secs(10);

/// Where a client's cluster is.
#[derive(Clone, Debug)]
pub(crate) enum Where {
    /// The one that its client names, or the environment.
    Named,
    /// The one with this connection file.
    File(PathBuf),
}

/// What the carrier asks.
struct Program(Where);

impl Host for Program {
    async fn find(&self, profile: Option<&str>, cluster_id: Option<&str>) -> Result<Found, String> {
        let (file, name) = match &self.0 {
            Where::File(file) => (file.clone(), file.display().to_string()),
            Where::Named => named(profile, cluster_id)?,
        };
        let connection = Connection::open(&file, ANSWER).await.map_err(|error| {
            format!(
                "{}. `chorus cluster start` starts a cluster, and so does a program with `chorus::Cluster::start(4)`",
                error.chain()
            )
        })?;
        Ok(Found { connection, name })
    }

    /// Sources are at hand by their names.
    async fn locate(&self, _file: &str, _line: u32) -> Option<Place> {
        None
    }

    /// A program's output is its own; what tasks print is told by the result.
    fn show(&self, _engine: u32, _output: &Output) {}
}

/// The connection file of a cluster and what people call it.
fn named(profile: Option<&str>, cluster_id: Option<&str>) -> Result<(PathBuf, String), String> {
    let choose = |given: Option<&str>, variable| match given {
        Some(given) => Some(given.to_owned()),
        None => std::env::var(variable).ok().filter(|name| !name.is_empty()),
    };
    let profile = choose(profile, PROFILE).unwrap_or_else(|| DEFAULT_PROFILE.to_owned());
    let id = choose(cluster_id, CLUSTER_ID).unwrap_or_default();
    if [&profile, &id].iter().any(|name| name.contains('/')) {
        return Err(format!(
            "{profile:?} and {id:?} can't be the names of a profile and a cluster"
        ));
    }
    let root = profiles()
        .ok_or("there is no folder for profiles: set HOME or XDG_DATA_HOME".to_owned())?;
    let file = Paths::new(&security(&root.join(&profile)), &id).client;
    let name = if id.is_empty() { profile } else { id };
    if file.exists() {
        Ok((file, name))
    } else {
        Err(format!(
            "no cluster {name:?} is running: start one with `chorus cluster start`, or in the program with `chorus::Cluster::start(4)`; \
             `chorus cluster list` shows those there are"
        ))
    }
}

/// A stream to a carrier in this process.
pub(crate) fn carrier(place: Where) -> Result<UnixStream, Error> {
    static RUNTIME: OnceLock<Option<Runtime>> = OnceLock::new();
    super::hook::link();
    let failed = |reason: String| Error::Connect { reason };
    let runtime = RUNTIME.get_or_init(|| {
        let mut builder = Builder::new_multi_thread();
        builder.worker_threads(1).thread_name("chorus").enable_all();
        builder.build().ok()
    });
    let runtime = runtime
        .as_ref()
        .ok_or_else(|| failed("a thread can't be started".to_owned()))?;
    let make = || -> std::io::Result<UnixStream> {
        let (ours, theirs) = UnixStream::pair()?;
        runtime.spawn(async move { Carrier::new(Program(place), false).serve(theirs).await });
        Ok(ours)
    };
    make().map_err(|error| failed(error.to_string()))
}
