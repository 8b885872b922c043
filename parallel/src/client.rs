//! The way in: one client of one cluster.

use crate::error::Error;
use crate::link::{Link, Origin};
use crate::portable::Portable;
use crate::result::AsyncResult;
use crate::targets::Targets;
use crate::view::{DirectView, LoadBalancedView, Shared};
use crate::wire::{Answer, CARRIER, Question, QueueStatus};
use std::fmt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long engines that were told to end may take for it.
const ENDING: Duration = Duration::from_secs(10);

/// A connection to a cluster. Cheap to clone; clones share it.
#[derive(Clone)]
pub struct Client {
    link: Arc<Link>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.link.with(|session| {
            (
                session.cluster.clone(),
                session.engines.len(),
                session.lost.clone(),
            )
        }) {
            Ok((cluster, engines, None)) => write!(f, "Client({cluster}, {engines} engines)"),
            Ok((cluster, _, Some(reason))) => write!(f, "Client({cluster}, lost: {reason})"),
            Err(error) => write!(f, "Client({error})"),
        }
    }
}

impl Client {
    /// Connects to the notebook's cluster: the default profile's, or the one that the kernel started.
    ///
    /// Outside a notebook (feature `client`): to the default profile's, or the one that the environment variables `CHORUS_PROFILE` and
    /// `CHORUS_CLUSTER_ID` name.
    ///
    /// # Errors
    /// When there is no cluster.
    pub fn connect() -> Result<Client, Error> {
        Client::open(None, None)
    }

    /// Connects to a cluster by its profile and id, as `chorus cluster list` shows them. An empty text means the default.
    ///
    /// # Errors
    /// As [`connect`](Client::connect).
    pub fn connect_to(profile: &str, cluster_id: &str) -> Result<Client, Error> {
        let given = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        Client::open(given(profile), given(cluster_id))
    }

    fn open(profile: Option<String>, cluster_id: Option<String>) -> Result<Client, Error> {
        let Some(path) = std::env::var_os(CARRIER).map(PathBuf::from) else {
            return Client::outside(profile, cluster_id);
        };
        let stream = UnixStream::connect(&path).map_err(|error| Error::Connect {
            reason: format!(
                "nobody answers at {}: {error}. Restart the kernel",
                path.display()
            ),
        })?;
        Client::over(
            stream,
            Origin {
                path: Some(path),
                profile,
                cluster_id,
            },
        )
    }

    #[cfg(feature = "client")]
    fn outside(profile: Option<String>, cluster_id: Option<String>) -> Result<Client, Error> {
        Client::over(
            crate::program::carrier(crate::program::Where::Named)?,
            Origin {
                path: None,
                profile,
                cluster_id,
            },
        )
    }

    #[cfg(not(feature = "client"))]
    fn outside(_: Option<String>, _: Option<String>) -> Result<Client, Error> {
        Err(Error::Connect {
            reason: format!(
                "this program doesn't run in a cell of a Chorus notebook ({CARRIER} is not set). \
                 Outside a notebook, build it with the feature `client` of the crate `chorus`"
            ),
        })
    }

    /// Connects to the cluster of a connection file, one of Chorus or of ipyparallel, from a program outside of notebooks.
    ///
    /// # Errors
    /// When the file can't be used or nobody answers.
    #[cfg(feature = "client")]
    pub fn from_connection_file(path: impl Into<PathBuf>) -> Result<Client, Error> {
        Client::from_stream(crate::program::carrier(crate::program::Where::File(
            path.into(),
        ))?)
    }

    /// Connects to a carrier of this process at the other end of the stream; see [`wire`](crate::wire).
    ///
    /// # Errors
    /// When it refuses.
    pub fn from_stream(stream: UnixStream) -> Result<Client, Error> {
        Client::over(
            stream,
            Origin {
                path: None,
                profile: None,
                cluster_id: None,
            },
        )
    }

    fn over(stream: UnixStream, origin: Origin) -> Result<Client, Error> {
        Ok(Client {
            link: Arc::new(Link::open(stream, origin)?),
        })
    }

    /// The engines there are, in ascending order.
    ///
    /// # Errors
    /// When the connection is lost.
    pub fn ids(&self) -> Result<Vec<u32>, Error> {
        self.link.engines()
    }

    /// A view of the engines that the targets name: what is called on it runs on each of them.
    pub fn direct_view(&self, targets: impl Into<Targets>) -> DirectView {
        DirectView::new(Arc::clone(&self.link), targets.into())
    }

    /// A view of all engines.
    pub fn all(&self) -> DirectView {
        self.direct_view(Targets::all())
    }

    /// The same as [`direct_view`](Client::direct_view): here, one message goes to the carrier whatever the number of engines.
    pub fn broadcast_view(&self, targets: impl Into<Targets>) -> DirectView {
        self.direct_view(targets)
    }

    /// A view of all engines on which each task runs on the one that has least to do.
    pub fn load_balanced_view(&self) -> LoadBalancedView {
        LoadBalancedView::new(Arc::clone(&self.link))
    }

    /// Sends a value to the engines for any number of calls, see [`DirectView::map_shared`]; it is on its way when the first of them is made. For
    /// one call there is [`DirectView::map_with`].
    ///
    /// # Errors
    /// When the value can't be encoded or the connection is lost.
    pub fn share<S: Portable + Sync>(&self, value: &S) -> Result<Shared<S>, Error> {
        Shared::new(&self.link, value)
    }

    /// Waits until there are at least so many engines; gives their ids.
    ///
    /// # Errors
    /// When there aren't within the time, or the connection is lost.
    pub fn wait_for_engines(&self, count: usize, within: Duration) -> Result<Vec<u32>, Error> {
        let deadline = Instant::now().checked_add(within);
        let found = self.link.wait(deadline, |session| {
            (session.engines.len() >= count).then(|| session.engines.clone())
        })?;
        match found {
            Some(ids) => Ok(ids),
            None => {
                let ids = self.ids()?;
                Err(Error::Targets {
                    reason: format!(
                        "after {within:?} there are {} engines of the {count} that were waited for",
                        ids.len()
                    ),
                })
            }
        }
    }

    /// What waits and what runs, on these engines.
    ///
    /// # Errors
    /// When the carrier can't be asked or there are no such engines; `..` may be none.
    pub fn queue_status(&self, targets: impl Into<Targets>) -> Result<QueueStatus, Error> {
        let targets = targets.into();
        let targets = match targets == Targets::all() {
            true => None,
            false => Some(targets.resolve(&self.ids()?)?),
        };
        match self.link.ask(Question::QueueStatus { targets })? {
            Answer::Queue(status) => Ok(status),
            other => Err(Error::Refused {
                reason: format!("the answer to another question came: {other:?}"),
            }),
        }
    }

    /// Drops all of this client's tasks that no engine has begun.
    ///
    /// # Errors
    /// When the carrier can't be asked.
    pub fn abort(&self) -> Result<(), Error> {
        self.link.ask(Question::Abort { tasks: None }).map(drop)
    }

    /// Has the controller forget the stored results of all of this client's tasks.
    ///
    /// # Errors
    /// When the carrier can't be asked.
    pub fn purge(&self) -> Result<(), Error> {
        self.link.ask(Question::Purge { tasks: None }).map(drop)
    }

    /// Has the controller forget the stored results of one call.
    ///
    /// # Errors
    /// When the carrier can't be asked.
    pub fn purge_results<T>(&self, of: &AsyncResult<T>) -> Result<(), Error> {
        let handle = of.handle()?;
        if !Arc::ptr_eq(handle.link(), &self.link) {
            return Err(Error::Refused {
                reason: "these are results of another client: purge them with that one".to_owned(),
            });
        }
        let tasks = Some(vec![handle.batch().span()]);
        self.link.ask(Question::Purge { tasks }).map(drop)
    }

    /// Ends these engines; they are no more among [`ids`](Client::ids) then.
    ///
    /// # Errors
    /// When the carrier can't be asked or there are no such engines.
    pub fn shutdown(&self, targets: impl Into<Targets>) -> Result<(), Error> {
        let ending = targets.into().resolve(&self.ids()?)?;
        self.link.ask(Question::Shutdown {
            targets: Some(ending.clone()),
            controller: false,
        })?;
        // The news of them comes by another way than the answer. If it doesn't, they are asked and will end.
        let deadline = Instant::now() + ENDING;
        self.link.wait(Some(deadline), |session| {
            let ended = |id: &u32| !session.engines.contains(id);
            ending.iter().all(ended).then_some(())
        })?;
        Ok(())
    }

    /// Ends the cluster: all engines and the controller.
    ///
    /// # Errors
    /// When the carrier can't be asked.
    pub fn shutdown_cluster(&self) -> Result<(), Error> {
        self.link
            .ask(Question::Shutdown {
                targets: None,
                controller: true,
            })
            .map(drop)
    }
}
