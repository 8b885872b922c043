//! What is done with a cluster that was started here, by this process or another: stop, look, grow, shrink, clean.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::json;
use tokio::time::timeout;

use super::local::{Options, not_running, spawn_engines};
use super::state::{Lock, Process, State};
use crate::connection::{ClientFile, Paths};
use crate::controller::remove_sockets;
use crate::profile::{self, Profile};
use crate::{EngineId, Error, query};

/// How long a running controller may take to answer.
const ANSWER: Duration = Duration::from_secs(5);
/// How long processes may take to end on request, and then on SIGTERM.
pub(super) const GRACE: Duration = Duration::from_secs(3);

/// A cluster as `list` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its profile.
    pub profile: String,
    /// Its id, empty for the profile's only one.
    pub cluster_id: String,
    /// The process that its controller is, or is in.
    pub pid: u32,
    /// Whether that runs.
    pub running: bool,
    /// Engine processes that run.
    pub engines: usize,
}

/// A cluster as `status` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// The process that its controller is, or is in, if it was started here.
    pub pid: Option<u32>,
    /// Whether its compiler runs; unknown if it was not started here.
    pub compiler: Option<bool>,
    /// The registered engines.
    pub engines: Vec<EngineStatus>,
    /// Tasks that no engine has yet.
    pub unassigned: u64,
}

/// One engine of a [`Status`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineStatus {
    /// Its number.
    pub id: EngineId,
    /// Its identity.
    pub uuid: String,
    /// Requests sent to it and not answered.
    pub queue: u64,
    /// Tasks that it has.
    pub tasks: u64,
    /// Requests that it has finished.
    pub completed: u64,
}

/// Stops a cluster that was started here, by this process or another.
///
/// # Errors
/// When it does not run, or its controller, which is in a process that does more than that, doesn't answer.
pub async fn stop(profile: &Profile, cluster_id: &str) -> Result<(), Error> {
    let files = profile.connection_files(cluster_id)?;
    let Some(state) = State::read(profile, cluster_id) else {
        return Err(not_running(profile, cluster_id));
    };
    let _lock = Lock::take(profile, cluster_id)?;
    let was_running = state.controller.is_alive();
    if was_running && let Ok(file) = ClientFile::read(&files.client) {
        let asked = query::hub(&file, "shutdown_request", &json!({}), GRACE).await;
        match asked {
            // It can't be ended otherwise than by its word, and goes on, unless it ended just now.
            Err(error) if state.hosted.is_some() && State::read(profile, cluster_id).is_some() => {
                return Err(error);
            }
            Err(error) => tracing::info!("{}", error.chain()),
            Ok(_) => {}
        }
    }
    remove(profile, &state, &files).await;
    match was_running {
        true => Ok(()),
        false => Err(not_running(profile, cluster_id)),
    }
}

/// Ends what still runs and removes the files. The controller's word makes engines end by themselves.
pub(super) async fn remove(profile: &Profile, state: &State, files: &Paths) {
    if let Some(compiler) = state.compiler {
        compiler.signal(libc::SIGTERM);
    }
    for (signal, patience) in [
        (None, GRACE),
        (Some(libc::SIGTERM), GRACE),
        (Some(libc::SIGKILL), GRACE),
    ] {
        let left: Vec<Process> = state.processes().filter(|it| it.is_alive()).collect();
        // Without a controller nobody asks them.
        if signal.is_none() && !state.controller.is_alive() && !left.is_empty() {
            left.iter().for_each(|it| it.signal(libc::SIGTERM));
        }
        if let Some(signal) = signal {
            left.iter().for_each(|it| it.signal(signal));
        }
        let all = async {
            for process in left {
                process.wait(patience).await;
            }
        };
        // All have the same time, together.
        let _ = timeout(patience, all).await;
    }
    // One whose process was killed has left its sockets.
    if let Ok(file) = ClientFile::read(&files.client) {
        remove_sockets(&file.interface);
    }
    let state_file = State::path(profile, &state.cluster_id);
    for path in [&files.client, &files.engine, &state_file] {
        if let Err(error) = fs::remove_file(path)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(path = %path.display(), %error, "failed to remove a file");
        }
    }
}

/// All clusters that were started here, of all profiles in `root`.
///
/// # Errors
/// When the profiles cannot be read.
pub fn list(root: &Path) -> Result<Vec<Listed>, Error> {
    let mut listed = Vec::new();
    for profile in profile::list(root)? {
        for cluster_id in State::ids(&profile) {
            if let Some(state) = State::read(&profile, &cluster_id) {
                let alive = state.engines.iter().filter(|it| it.process.is_alive());
                listed.push(Listed {
                    profile: profile.name().to_owned(),
                    cluster_id,
                    pid: state.controller.pid,
                    running: state.controller.is_alive(),
                    engines: alive.count(),
                });
            }
        }
    }
    Ok(listed)
}

/// Asks a cluster how it is. It need not have been started here: its connection file is enough.
///
/// # Errors
/// When it does not run or does not answer.
pub async fn status(profile: &Profile, cluster_id: &str) -> Result<Status, Error> {
    let files = profile.connection_files(cluster_id)?;
    let state = State::read(profile, cluster_id);
    let file = ClientFile::read(&files.client).map_err(|error| match error.into() {
        Error::NoConnectionFile { .. } => not_running(profile, cluster_id),
        error => error,
    })?;
    let engines = engines(&file).await?;
    let queue = query::hub(&file, "queue_request", &json!({"targets": null}), ANSWER).await?;
    let engines = engines.into_iter().map(|(id, uuid)| {
        let count = |name: &str| queue[id.to_string()][name].as_u64().unwrap_or(0);
        EngineStatus {
            queue: count("queue"),
            tasks: count("tasks"),
            completed: count("completed"),
            id,
            uuid,
        }
    });
    Ok(Status {
        pid: state.as_ref().map(|state| state.controller.pid),
        compiler: state.map(|state| state.compiler.is_some_and(Process::is_alive)),
        engines: engines.collect(),
        unassigned: queue["unassigned"].as_u64().unwrap_or(0),
    })
}

/// The registered engines: number and identity.
async fn engines(file: &ClientFile) -> Result<BTreeMap<EngineId, String>, Error> {
    let reply = query::hub(file, "connection_request", &json!({}), ANSWER).await?;
    let engines = reply["engines"].as_object().cloned().unwrap_or_default();
    Ok(engines
        .into_iter()
        .filter_map(|(id, uuid)| Some((EngineId(id.parse().ok()?), uuid.as_str()?.to_owned())))
        .collect())
}

/// Starts more engines for a cluster that runs. Gives their numbers.
///
/// # Errors
/// When the cluster does not run, or an engine does not start.
pub async fn add_engines(options: &Options, count: u32) -> Result<Vec<EngineId>, Error> {
    let Options {
        profile,
        cluster_id,
        ..
    } = options;
    let settings = profile.settings()?;
    let files = profile.connection_files(cluster_id)?;
    let running = || State::read(profile, cluster_id).filter(|state| state.controller.is_alive());
    // Where nothing ran there is not even a folder for the lock.
    running().ok_or_else(|| not_running(profile, cluster_id))?;
    let _lock = Lock::take(profile, cluster_id)?;
    let mut state = running().ok_or_else(|| not_running(profile, cluster_id))?;
    let checkpoint_mb = settings.engines.checkpoint_mb;
    let (children, engines) = spawn_engines(options, &files, count, checkpoint_mb).await?;
    // In the background they go on without their handles.
    drop(children);
    let mut ids: Vec<EngineId> = engines.iter().map(|engine| engine.id).collect();
    ids.sort_unstable();
    state.engines.retain(|engine| engine.process.is_alive());
    state.engines.extend(engines);
    if running().is_none() {
        // It has ended meanwhile.
        let new = state.engines.iter().filter(|it| ids.contains(&it.id));
        new.for_each(|it| it.process.signal(libc::SIGTERM));
        return Err(not_running(profile, cluster_id));
    }
    state.write(profile)?;
    Ok(ids)
}

/// Ends some engines of a cluster.
///
/// # Errors
/// When the cluster does not run, or there is no such engine; then none is ended.
pub async fn remove_engines(
    profile: &Profile,
    cluster_id: &str,
    ids: &[EngineId],
) -> Result<(), Error> {
    let files = profile.connection_files(cluster_id)?;
    let file = ClientFile::read(&files.client).map_err(|error| match error.into() {
        Error::NoConnectionFile { .. } => not_running(profile, cluster_id),
        error => error,
    })?;
    let known = engines(&file).await?;
    if let Some(id) = ids.iter().find(|id| !known.contains_key(id)) {
        let known: Vec<String> = known.keys().map(ToString::to_string).collect();
        return Err(Error::NoEngine {
            id: *id,
            known: match known.is_empty() {
                true => "none".to_owned(),
                false => known.join(", "),
            },
        });
    }
    for id in ids {
        if let Some(uuid) = known.get(id) {
            query::control(&file, uuid, "shutdown_request", &json!({}), ANSWER).await?;
        }
    }
    if let Some(state) = State::read(profile, cluster_id) {
        for engine in &state.engines {
            if ids.contains(&engine.id) {
                engine.process.wait(GRACE).await;
            }
        }
        let _lock = Lock::take(profile, cluster_id)?;
        if let Some(mut state) = State::read(profile, cluster_id) {
            state.engines.retain(|engine| engine.process.is_alive());
            state.write(profile)?;
        }
    }
    Ok(())
}

/// Removes what clusters of a profile left that do not run any more. Gives the files that it removed.
///
/// # Errors
/// When the profile's folders cannot be read.
pub async fn clean(profile: &Profile) -> Result<Vec<PathBuf>, Error> {
    let mut gone = Vec::new();
    for cluster_id in State::ids(profile) {
        let files = profile.connection_files(&cluster_id)?;
        if let Some(state) = State::read(profile, &cluster_id)
            && !state.controller.is_alive()
        {
            let there = [&files.client, &files.engine].map(Clone::clone);
            gone.extend(there.into_iter().filter(|path| path.exists()));
            gone.push(State::path(profile, &cluster_id));
            remove(profile, &state, &files).await;
        }
    }
    let entries = match fs::read_dir(profile.security()) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(gone),
        Err(error) => return Err(Error::file("read", profile.security())(error)),
    };
    for path in entries.flatten().map(|entry| entry.path()) {
        let name = path.file_name().and_then(|name| name.to_str());
        let is_client =
            name.is_some_and(|it| it.starts_with("ipcontroller") && it.ends_with("-client.json"));
        if !is_client {
            continue;
        }
        // Controllers that were started otherwise have no state; whether they live, they say themselves.
        let dead = match ClientFile::read(&path) {
            Ok(file) => {
                let asked = query::hub(&file, "connection_request", &json!({}), ANSWER / 5).await;
                matches!(asked, Err(Error::NoAnswer { .. }))
            }
            Err(_) => true,
        };
        if dead {
            if let Ok(file) = ClientFile::read(&path) {
                remove_sockets(&file.interface);
            }
            let text = path.display().to_string();
            let engine = PathBuf::from(text.replace("-client.json", "-engine.json"));
            for path in [path, engine] {
                if fs::remove_file(&path).is_ok() {
                    gone.push(path);
                }
            }
        }
    }
    Ok(gone)
}
