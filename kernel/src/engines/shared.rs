//! The notebook's engines as its cells' magics and its programs have them: both at once, each for as long as one thing takes.

use std::path::PathBuf;
use std::sync::Arc;

use chorus::controller::{Connection, Error};
use cluster::profile::{self, Profile};
use magics::cell::Code;
use magics::options::Signal;
use magics::run::{Cluster, How, Run};
use magics::{EngineId, Failure};
use tokio::sync::Mutex;

use super::{CHANGE, Engines, Known, words};

/// See the module. Clones are the same engines.
#[derive(Clone, Debug)]
pub(crate) struct Shared(Arc<Mutex<Engines>>);

impl Shared {
    /// See [`Engines::new`]. Also gives those that are known, now and later.
    pub(crate) fn new(program: PathBuf) -> (Self, Known) {
        let engines = Engines::new(program);
        let known = engines.known();
        (Self(Arc::new(Mutex::new(engines))), known)
    }

    /// Ends the notebook's own cluster, if it has one.
    pub(crate) async fn shutdown(&self) {
        self.0.lock().await.shutdown().await;
    }

    /// A connection to the cluster that the notebook uses, and that cluster's name. If there is none, starts one as the first `%px`
    /// does, and says so.
    pub(crate) async fn for_programs(
        &self,
        say: impl Fn(String),
    ) -> Result<(Connection, String), Failure> {
        let mut engines = self.0.lock().await;
        if engines.find().await?.is_none() {
            say(
                "No cluster is running: starting one on this machine, with one engine a core.\n"
                    .to_owned(),
            );
            engines.start_own(None).await?;
            let cluster = engines.told().await?;
            say(format!(
                "{} `%cluster stop` ends it.\n",
                magics::run::up(&cluster)
            ));
        }
        let attached = engines.there().await?;
        Ok((attached.connection.clone(), attached.name().to_owned()))
    }

    /// A connection to the cluster of this profile and id, which must run.
    pub(crate) async fn named(
        &self,
        profile: Option<&str>,
        cluster_id: Option<&str>,
    ) -> Result<(Connection, String), Failure> {
        let profile = profile.unwrap_or(profile::DEFAULT);
        let cluster_id = cluster_id.unwrap_or_default();
        let name = match cluster_id {
            "" => profile.to_owned(),
            id => format!("{profile}/{id}"),
        };
        let there = Profile::named(profile).map_err(words::cluster_failure)?;
        if let Some(attached) = &self.0.lock().await.attached
            && attached.profile.name() == profile
            && attached.cluster_id == cluster_id
            && attached.connection.lost().is_none()
        {
            return Ok((attached.connection.clone(), name));
        }
        let files = there.connection_files(cluster_id);
        let path = files.map_err(words::cluster_failure)?.client;
        let missing = || {
            let id = match cluster_id {
                "" => String::new(),
                id => format!(" --cluster-id {id}"),
            };
            Failure::new(
                "no engines",
                format!(
                    "no cluster \"{name}\" is running: `chorus cluster start --profile {profile}{id}` starts it, \
                     `chorus cluster list` shows those that run"
                ),
            )
        };
        if !path.exists() {
            return Err(missing());
        }
        match Connection::open(&path, CHANGE).await {
            Ok(connection) => Ok((connection, name)),
            Err(Error::Nobody { .. }) => Err(missing()),
            Err(error) => Err(words::failure(error)),
        }
    }
}

impl magics::Engines for Shared {
    async fn ids(&mut self) -> Result<Option<Vec<EngineId>>, Failure> {
        self.0.lock().await.ids().await
    }

    async fn execute(
        &mut self,
        targets: &[EngineId],
        code: &Code,
        how: How,
    ) -> Result<Run, Failure> {
        self.0.lock().await.execute(targets, code, how).await
    }

    async fn signal(&mut self, targets: &[EngineId], signal: Signal) -> Result<(), Failure> {
        self.0.lock().await.signal(targets, signal).await
    }

    async fn start(&mut self, n: Option<u32>) -> Result<Cluster, Failure> {
        self.0.lock().await.start(n).await
    }

    async fn stop(&mut self) -> Result<String, Failure> {
        self.0.lock().await.stop().await
    }

    async fn scale(&mut self, n: u32) -> Result<Cluster, Failure> {
        self.0.lock().await.scale(n).await
    }

    async fn restart(&mut self) -> Result<Cluster, Failure> {
        self.0.lock().await.restart().await
    }

    async fn status(&mut self) -> Result<Option<Cluster>, Failure> {
        self.0.lock().await.status().await
    }
}
