//! The engines of a notebook: which cluster it uses, and what `%px` and `%cluster` do with it.
//!
//! A notebook uses the cluster of the default profile if one runs, or else starts one of its own, which ends with it and whose controller is in
//! this process, so that a task and its result change threads twice less each way, and processes once. Messages of engines
//! become what magics understand in `words`; what `%cluster status` tells is gathered in `details`.

mod details;
mod shared;
#[cfg(test)]
mod tests;
mod words;

pub(crate) use shared::Shared;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use chorus::controller::{Connection, Error, Lost, Said};
use cluster::Lineage;
use cluster::launcher::{self, Host, Lifetime, Options, State};
use cluster::profile::{self, Profile};
use magics::options::Signal;
use magics::run::{Cluster, How, Run};
use magics::{EngineId, Failure};
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

use crate::compiling;
use crate::kernel::lock;

/// Names the profile whose cluster is used, in place of the default one.
const PROFILE: &str = "CHORUS_PROFILE";
/// Names the cluster that is used, in place of the profile's only one.
const CLUSTER_ID: &str = "CHORUS_CLUSTER_ID";
/// The beginning of the ids of notebooks' own clusters; a number follows.
const OWN: &str = "notebook-";
/// How long a controller may take to say which engines it has. Magics wait two seconds.
const ANSWER: Duration = Duration::from_millis(1500);
/// How long a cluster that was just changed may take to show it.
const CHANGE: Duration = Duration::from_secs(10);

/// See the module.
#[derive(Debug)]
pub(crate) struct Engines {
    starter: Starter,
    /// In place of what the environment says.
    place: Option<Place>,
    attached: Option<Attached>,
    known: watch::Sender<Option<Connection>>,
    lineages: Arc<Mutex<BTreeMap<EngineId, Lineage>>>,
    /// The requests of the last snippet.
    last: Vec<String>,
}

/// The engines that are known, for whoever must not wait: completion, while a cell runs.
#[derive(Clone, Debug)]
pub(crate) struct Known {
    connection: watch::Receiver<Option<Connection>>,
    lineages: Arc<Mutex<BTreeMap<EngineId, Lineage>>>,
}

impl Known {
    /// The engines there are, ascending; `None` if the notebook uses no cluster, or has not asked for one yet.
    pub(crate) fn ids(&self) -> Option<Vec<EngineId>> {
        let connection = self.connection.borrow();
        let connection = connection.as_ref()?;
        if connection.lost().is_some() {
            return None;
        }
        Some(ids(connection))
    }

    /// The compile-time state of the first engine that has told one.
    pub(crate) fn lineage(&self) -> Option<Lineage> {
        let ids = self.ids()?;
        let lineages = lock(&self.lineages);
        ids.iter().find_map(|id| lineages.get(id)).cloned()
    }
}

/// Where a notebook looks for a cluster.
#[derive(Clone, Debug)]
struct Place {
    profile: Profile,
    /// Empty for the profile's only one.
    cluster_id: String,
}

impl Place {
    fn from_environment() -> Result<Self, Failure> {
        let named = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        let name = named(PROFILE).unwrap_or_else(|| profile::DEFAULT.to_owned());
        Ok(Self {
            profile: Profile::named(&name).map_err(words::cluster_failure)?,
            cluster_id: named(CLUSTER_ID).unwrap_or_default(),
        })
    }
}

/// A cluster that is used.
#[derive(Debug)]
struct Attached {
    connection: Connection,
    profile: Profile,
    cluster_id: String,
    /// Its processes, if this notebook started them. They end when this is dropped.
    own: Option<launcher::Cluster>,
}

impl Attached {
    /// Its name for people.
    fn name(&self) -> &str {
        match self.cluster_id.as_str() {
            "" => self.profile.name(),
            id => id,
        }
    }

    /// What the launcher knows of it; nothing if it was not started on this machine, or not by Chorus.
    fn state(&self) -> Option<State> {
        State::read(&self.profile, &self.cluster_id).filter(|state| state.controller.is_alive())
    }
}

/// The engines' numbers as magics have them.
fn ids(connection: &Connection) -> Vec<EngineId> {
    let ids = connection.ids().into_iter();
    ids.map(|id| EngineId(id.0)).collect()
}

fn numbers(targets: &[EngineId]) -> Vec<chorus::controller::EngineId> {
    let ids = targets.iter();
    ids.map(|id| chorus::controller::EngineId(id.0)).collect()
}

/// What clusters are made of.
#[derive(Clone, Debug)]
struct Starter {
    /// What their processes run.
    program: PathBuf,
    /// The controller of a cluster that ends with the notebook is in its process.
    host: Host,
}

impl Starter {
    /// What the launcher is to do with a cluster.
    fn options(&self, profile: &Profile, cluster_id: &str) -> Result<Options, Failure> {
        let mut options = Options::new(profile.clone()).map_err(words::cluster_failure)?;
        options.program = self.program.clone();
        options.host = Some(self.host);
        options.cluster_id = cluster_id.to_owned();
        Ok(options)
    }
}

impl Engines {
    /// The engines of a notebook whose clusters are processes of `program`, which has the subcommands `controller`, `engine` and `compiler`.
    /// Does nothing yet.
    pub(crate) fn new(program: PathBuf) -> Self {
        Self {
            starter: Starter {
                program,
                host: compiling::cluster::libraries,
            },
            place: None,
            attached: None,
            last: Vec::new(),
            known: watch::Sender::new(None),
            lineages: Arc::default(),
        }
    }

    /// The engines that are known, now and later.
    pub(crate) fn known(&self) -> Known {
        Known {
            connection: self.known.subscribe(),
            lineages: Arc::clone(&self.lineages),
        }
    }

    /// Ends the notebook's own cluster, if it has one, and leaves others alone.
    pub(crate) async fn shutdown(&mut self) {
        if let Some(Attached { own: Some(own), .. }) = self.detach()
            && let Err(error) = own.stop().await
        {
            tracing::warn!("{}", error.chain());
        }
    }

    fn place(&self) -> Result<Place, Failure> {
        match &self.place {
            Some(place) => Ok(place.clone()),
            None => Place::from_environment(),
        }
    }

    fn attach(&mut self, attached: Attached) -> &Attached {
        self.known.send_replace(Some(attached.connection.clone()));
        self.attached.insert(attached)
    }

    fn detach(&mut self) -> Option<Attached> {
        self.known.send_replace(None);
        lock(&self.lineages).clear();
        self.attached.take()
    }

    /// The cluster that is used: the one there was if it still runs, or one that others run.
    async fn find(&mut self) -> Result<Option<&Attached>, Failure> {
        if self
            .attached
            .as_ref()
            .is_some_and(|it| it.connection.lost().is_some())
        {
            // Without its controller a cluster is nothing; what is left of our own ends here, and its name is free.
            if let Some(Attached {
                own: Some(mut own), ..
            }) = self.detach()
            {
                let _ = timeout(ANSWER, own.ended()).await;
            }
        }
        if self.attached.is_none() {
            let Place {
                profile,
                cluster_id,
            } = self.place()?;
            let files = profile.connection_files(&cluster_id);
            let path = files.map_err(words::cluster_failure)?.client;
            if !path.exists() {
                return Ok(None);
            }
            match Connection::open(&path, ANSWER).await {
                Ok(connection) => {
                    self.attach(Attached {
                        connection,
                        profile,
                        cluster_id,
                        own: None,
                    });
                }
                // A stale file is in nobody's way.
                Err(error @ Error::Nobody { .. }) => {
                    tracing::info!("{}", error.chain());
                    return Ok(None);
                }
                Err(error) => return Err(words::failure(error)),
            }
        }
        Ok(self.attached.as_ref())
    }

    /// The cluster that is used, which must be there.
    async fn there(&mut self) -> Result<&Attached, Failure> {
        match self.find().await? {
            Some(attached) => Ok(attached),
            None => Err(words::no_cluster()),
        }
    }

    /// Starts a cluster with an id that no other notebook has; the place's if it names one.
    async fn start_own(&mut self, n: Option<u32>) -> Result<(), Failure> {
        let place = self.place()?;
        let mut options = self.starter.options(&place.profile, &place.cluster_id)?;
        options.engines = n;
        let started = match place.cluster_id.as_str() {
            "" => launcher::start_numbered(options.clone(), OWN).await,
            _ => launcher::start(options.clone()).await,
        };
        let own = started.map_err(words::cluster_failure)?;
        options.cluster_id = own.state().cluster_id.clone();
        self.use_started(own, options).await
    }

    async fn use_started(
        &mut self,
        started: launcher::Cluster,
        options: Options,
    ) -> Result<(), Failure> {
        let file = &started.files().client;
        let connection = match started.sockets() {
            Some(host) => Connection::visit(file, host, CHANGE).await,
            None => Connection::open(file, CHANGE).await,
        };
        self.attach(Attached {
            connection: connection.map_err(words::failure)?,
            profile: options.profile,
            cluster_id: options.cluster_id,
            own: (options.lifetime == Lifetime::Tied).then_some(started),
        });
        Ok(())
    }

    /// Starts more engines of the cluster that is used.
    async fn add(&mut self, count: u32) -> Result<(), Failure> {
        let starter = self.starter.clone();
        let Some(attached) = &mut self.attached else {
            return Err(words::no_cluster());
        };
        if let Some(own) = &mut attached.own {
            return own.add_engines(count).await.map_err(words::cluster_failure);
        }
        if attached.state().is_none() {
            return Err(words::not_ours(attached.name(), "more engines of it"));
        }
        let mut options = starter.options(&attached.profile, &attached.cluster_id)?;
        // They belong to a cluster that is not this notebook's.
        options.lifetime = Lifetime::Background;
        let added = launcher::add_engines(&options, count).await;
        added.map(|_| ()).map_err(words::cluster_failure)
    }

    /// Waits until there are `n` engines, and tells of the cluster.
    async fn settled(&mut self, n: usize) -> Result<Cluster, Failure> {
        let connection = self.there().await?.connection.clone();
        let mut state = connection.watch();
        let settled = state.wait_for(|state| state.lost.is_some() || state.engines.len() == n);
        // Whatever there is by then is what is told.
        let _ = timeout(CHANGE, settled).await;
        self.told().await
    }

    async fn told(&mut self) -> Result<Cluster, Failure> {
        Ok(details::cluster(self.there().await?).await)
    }
}

impl magics::Engines for Engines {
    async fn ids(&mut self) -> Result<Option<Vec<EngineId>>, Failure> {
        let attached = self.find().await?;
        Ok(attached.map(|attached| ids(&attached.connection)))
    }

    async fn execute(
        &mut self,
        targets: &[EngineId],
        code: &magics::cell::Code,
        how: How,
    ) -> Result<Run, Failure> {
        let lineages = Arc::clone(&self.lineages);
        let connection = &self.there().await?.connection;
        let (sender, events) = mpsc::unbounded_channel();
        let ids = connection
            .execute(
                &numbers(targets),
                &code.source(),
                how.silent,
                move |engine, said| {
                    if let Said::Lineage(lineage) = &said {
                        lock(&lineages).insert(EngineId(engine.0), Lineage(lineage.clone()));
                    }
                    if let Some(event) = words::event(said) {
                        // Who does not listen does not want to know.
                        let _ = sender.send((EngineId(engine.0), event));
                    }
                },
            )
            .map_err(words::failure)?;
        let id = ids.first().cloned().unwrap_or_default();
        self.last = ids;
        Ok(Run { id, events })
    }

    async fn signal(&mut self, targets: &[EngineId], signal: Signal) -> Result<(), Failure> {
        let last = self.last.clone();
        let connection = &self.there().await?.connection;
        let targets = numbers(targets);
        let signalled = async {
            // A signal reaches what runs, and may overtake a request that is on its way.
            connection.abort(&targets, &last).await?;
            connection.signal(&targets, signal.0).await
        };
        match signalled.await {
            // Its snippet has ended with it, which is told where that is shown.
            Ok(()) | Err(Error::Lost(Lost::Engine(_)) | Error::NoEngine { .. }) => Ok(()),
            Err(error) => Err(words::failure(error)),
        }
    }

    async fn start(&mut self, n: Option<u32>) -> Result<Cluster, Failure> {
        if let Some(attached) = self.find().await? {
            return Err(Failure::new(
                "cluster",
                format!(
                    "The cluster \"{}\" is running already: `%cluster scale N` changes how many engines it has, `%cluster restart` \
                     starts it anew.",
                    attached.name()
                ),
            ));
        }
        self.start_own(n).await?;
        self.told().await
    }

    async fn stop(&mut self) -> Result<String, Failure> {
        self.there().await?;
        let Some(attached) = self.detach() else {
            return Err(words::no_cluster());
        };
        let name = attached.name().to_owned();
        let has_state = attached.state().is_some();
        let Attached {
            connection,
            profile,
            cluster_id,
            own,
        } = attached;
        let others = "This notebook did not start it: whoever else used it has lost it, too.";
        match own {
            Some(own) => {
                own.stop().await.map_err(words::cluster_failure)?;
                Ok(format!("The cluster \"{name}\" is stopped."))
            }
            None if has_state => {
                launcher::stop(&profile, &cluster_id)
                    .await
                    .map_err(words::cluster_failure)?;
                Ok(format!("The cluster \"{name}\" is stopped. {others}"))
            }
            None => {
                let asked = timeout(CHANGE, connection.shutdown()).await;
                match asked {
                    Ok(outcome) => outcome.map_err(words::failure)?,
                    Err(_) => return Err(words::silent(CHANGE)),
                }
                Ok(format!(
                    "The cluster \"{name}\" was asked to end, with all its engines. {others}"
                ))
            }
        }
    }

    async fn scale(&mut self, n: u32) -> Result<Cluster, Failure> {
        let attached = self.there().await?;
        let there = attached.connection.ids();
        let wanted = usize::try_from(n).unwrap_or(usize::MAX);
        let spare = there.get(wanted.min(there.len())..).unwrap_or_default();
        if spare.is_empty() {
            let missing = wanted.saturating_sub(there.len());
            self.add(u32::try_from(missing).unwrap_or(u32::MAX)).await?;
        } else {
            launcher::remove_engines(&attached.profile, &attached.cluster_id, spare)
                .await
                .map_err(words::cluster_failure)?;
        }
        self.settled(wanted).await
    }

    async fn restart(&mut self) -> Result<Cluster, Failure> {
        let starter = self.starter.clone();
        let attached = self.there().await?;
        let Some(state) = attached.state() else {
            return Err(words::not_ours(attached.name(), "it"));
        };
        let mut options = starter.options(&attached.profile, &attached.cluster_id)?;
        options.engines = u32::try_from(state.engines.len()).ok();
        let own = self.detach().and_then(|attached| attached.own);
        // A cluster that outlived who started it will do so again.
        options.lifetime = match own {
            Some(_) => Lifetime::Tied,
            None => Lifetime::Background,
        };
        let stopped = match own {
            Some(own) => own.stop().await,
            None => launcher::stop(&options.profile, &options.cluster_id).await,
        };
        stopped.map_err(words::cluster_failure)?;
        let started = launcher::start(options.clone()).await;
        let cluster = started.map_err(words::cluster_failure)?;
        self.use_started(cluster, options).await?;
        self.told().await
    }

    async fn status(&mut self) -> Result<Option<Cluster>, Failure> {
        match self.find().await? {
            Some(attached) => Ok(Some(details::cluster(attached).await)),
            None => Ok(None),
        }
    }
}
