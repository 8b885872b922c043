//! The launcher for this machine: each process is this program with another subcommand.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use super::state::{EngineProcess, Lock, Process, State};
use crate::connection::{ClientFile, Paths};
use crate::profile::{self, Profile};
use crate::{EngineId, Error, query};

/// How long a running controller may take to answer.
const ANSWER: Duration = Duration::from_secs(5);
/// How long processes may take to end on request, and then on SIGTERM.
const GRACE: Duration = Duration::from_secs(3);

/// What becomes of the processes when whoever started them ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lifetime {
    /// They end, however that happened.
    Tied,
    /// They go on, until `stop`.
    Background,
}

/// What to start.
#[derive(Clone, Debug)]
pub struct Options {
    /// Whose settings and folders.
    pub profile: Profile,
    /// Empty for the profile's only cluster.
    pub cluster_id: String,
    /// How many engines; by default what the settings say.
    pub engines: Option<u32>,
    /// The program with the subcommands `controller`, `engine` and `compiler`.
    pub program: PathBuf,
    /// What becomes of it later.
    pub lifetime: Lifetime,
    /// Whether to start a compiler.
    pub compiler: bool,
    /// How long the processes may take to be ready.
    pub patience: Duration,
}

impl Options {
    /// A cluster of this program's processes.
    ///
    /// # Errors
    /// When this program's file cannot be found.
    pub fn new(profile: Profile) -> Result<Self, Error> {
        Ok(Self {
            profile,
            cluster_id: String::new(),
            engines: None,
            program: std::env::current_exe().map_err(Error::system("find this program's file"))?,
            lifetime: Lifetime::Tied,
            compiler: true,
            patience: Duration::from_secs(60),
        })
    }
}

/// A cluster that was started. Dropping it ends processes that are tied to it.
#[derive(Debug)]
pub struct Cluster {
    options: Options,
    files: Paths,
    state: State,
    /// Held open for as long as tied processes are to live.
    controller: Child,
    others: Vec<Child>,
}

/// A cluster as `list` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its profile.
    pub profile: String,
    /// Its id, empty for the profile's only one.
    pub cluster_id: String,
    /// Its controller's process.
    pub pid: u32,
    /// Whether that runs.
    pub running: bool,
    /// Engine processes that run.
    pub engines: usize,
}

/// A cluster as `status` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Its controller's process, if it was started here.
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

/// How to name a cluster to people, and on a command line.
fn names(profile: &Profile, cluster_id: &str) -> (String, String) {
    let mut options = match profile.name() {
        profile::DEFAULT => String::new(),
        name => format!(" --profile {name}"),
    };
    if !cluster_id.is_empty() {
        options = format!("{options} --cluster-id {cluster_id}");
    }
    let name = match cluster_id {
        "" => format!("of profile {:?}", profile.name()),
        id => format!("{id:?} of profile {:?}", profile.name()),
    };
    (name, options)
}

fn not_running(profile: &Profile, cluster_id: &str) -> Error {
    let (name, options) = names(profile, cluster_id);
    Error::NotRunning { name, options }
}

/// Starts a cluster and waits until its engines are ready. The compiler warms up behind.
///
/// # Errors
/// When one of that name runs, or a process does not start; then none is left.
pub async fn start(options: Options) -> Result<Cluster, Error> {
    let Options {
        profile,
        cluster_id,
        ..
    } = &options;
    let settings = profile.settings()?;
    let files = profile.connection_files(cluster_id)?;
    profile.make_folders()?;
    let _lock = Lock::take(profile, cluster_id)?;
    if let Some(state) = State::read(profile, cluster_id) {
        if state.controller.is_alive() {
            let (name, stop) = names(profile, cluster_id);
            return Err(Error::AlreadyRunning {
                name,
                pid: state.controller.pid,
                stop,
            });
        }
        // Its controller died: what is left of it would only confuse.
        remove(profile, &state, &files).await;
    }
    let mut arguments = vec![
        "--profile-dir".to_owned(),
        profile.folder().display().to_string(),
    ];
    if !cluster_id.is_empty() {
        arguments.extend(["--cluster-id".to_owned(), cluster_id.clone()]);
    }
    let mut controller = spawn(&options, "controller", &arguments, "controller")?;
    let log = log_path(&options, "controller");
    ready(&mut controller, "controller", &log, options.patience).await?;
    let process = process_of(&controller, "controller", &log)?;
    let state = State {
        cluster_id: cluster_id.clone(),
        program: options.program.clone(),
        controller: process,
        compiler: None,
        engines: Vec::new(),
    };
    let mut cluster = Cluster {
        options,
        files,
        state,
        controller,
        others: Vec::new(),
    };
    let count = cluster
        .options
        .engines
        .unwrap_or_else(|| settings.engine_count());
    match cluster
        .populate(count, settings.engines.checkpoint_mb)
        .await
    {
        Ok(()) => Ok(cluster),
        Err(error) => {
            let state = cluster.state.clone();
            let (profile, files) = (cluster.options.profile.clone(), cluster.files.clone());
            // Engines that are not ready are not in the state yet.
            for child in &mut cluster.others {
                let _ = child.start_kill();
            }
            remove(&profile, &state, &files).await;
            Err(error)
        }
    }
}

impl Cluster {
    async fn populate(&mut self, count: u32, checkpoint_mb: u64) -> Result<(), Error> {
        if self.options.compiler {
            let arguments = ["--file".to_owned(), self.files.engine.display().to_string()];
            let mut compiler = spawn(&self.options, "compiler", &arguments, "compiler")?;
            let log = log_path(&self.options, "compiler");
            self.state.compiler = Some(process_of(&compiler, "compiler", &log)?);
            // Nobody waits for it, so nobody reads what it says.
            drop(compiler.stdout.take());
            self.others.push(compiler);
        }
        self.state.write(&self.options.profile)?;
        self.grow(count, checkpoint_mb).await
    }

    async fn grow(&mut self, count: u32, checkpoint_mb: u64) -> Result<(), Error> {
        let (children, engines) =
            spawn_engines(&self.options, &self.files, count, checkpoint_mb).await?;
        self.others.extend(children);
        self.state.engines.extend(engines);
        self.state.write(&self.options.profile)
    }

    /// Where its connection files are.
    pub fn files(&self) -> &Paths {
        &self.files
    }

    /// Its processes.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Starts more engines and waits until they are ready.
    ///
    /// # Errors
    /// When one does not start.
    pub async fn add_engines(&mut self, count: u32) -> Result<(), Error> {
        let checkpoint_mb = self.options.profile.settings()?.engines.checkpoint_mb;
        let _lock = Lock::take(&self.options.profile, &self.options.cluster_id)?;
        self.grow(count, checkpoint_mb).await
    }

    /// Resolves when the controller has ended, whyever.
    pub async fn ended(&mut self) {
        if let Err(error) = self.controller.wait().await {
            tracing::warn!(%error, "failed to wait for the controller");
        }
    }

    /// Ends all processes and removes what they left.
    ///
    /// # Errors
    /// When a process cannot be ended.
    pub async fn stop(self) -> Result<(), Error> {
        let Options {
            profile,
            cluster_id,
            ..
        } = &self.options;
        match stop(profile, cluster_id).await {
            // Somebody else was faster.
            Err(Error::NotRunning { .. }) => Ok(()),
            outcome => outcome,
        }
    }
}

fn log_path(options: &Options, name: &str) -> PathBuf {
    let prefix = match options.cluster_id.as_str() {
        "" => String::new(),
        id => format!("{id}-"),
    };
    options.profile.log().join(format!("{prefix}{name}.log"))
}

fn spawn(
    options: &Options,
    role: &'static str,
    arguments: &[String],
    name: &str,
) -> Result<Child, Error> {
    let log = log_path(options, name);
    let file = fs::File::create(&log).map_err(Error::file("write the log", &log))?;
    let tied = options.lifetime == Lifetime::Tied;
    let mut command = Command::new(&options.program);
    command
        .arg(role)
        .args(arguments)
        .args(tied.then_some("--tied"))
        .stdin(if tied { Stdio::piped() } else { Stdio::null() })
        .stdout(Stdio::piped())
        .stderr(file)
        // Ctrl-C at a terminal is for whoever started this.
        .process_group(0);
    command.spawn().map_err(|error| Error::Process {
        role,
        reason: format!("{} cannot be run: {error}", options.program.display()),
        log,
    })
}

fn process_of(child: &Child, role: &'static str, log: &Path) -> Result<Process, Error> {
    child
        .id()
        .and_then(Process::of)
        .ok_or_else(|| Error::Process {
            role,
            reason: format!("it ended at once{}", last_words(log)),
            log: log.to_owned(),
        })
}

/// Waits for a process's word that it is ready; gives what it says of itself.
async fn ready(
    child: &mut Child,
    role: &'static str,
    log: &Path,
    patience: Duration,
) -> Result<Value, Error> {
    let failed = |reason: String| Error::Process {
        role,
        reason,
        log: log.to_owned(),
    };
    let Some(stdout) = child.stdout.take() else {
        return Err(failed("its output cannot be read".to_owned()));
    };
    let mut line = String::new();
    let mut stdout = BufReader::new(stdout.take(1 << 16));
    match timeout(patience, stdout.read_line(&mut line)).await {
        Err(_) => Err(failed(format!(
            "it was not ready after {patience:?}{}",
            last_words(log)
        ))),
        Ok(Err(error)) => Err(failed(error.to_string())),
        Ok(Ok(_)) => {
            let mut said: Value = serde_json::from_str(&line).unwrap_or_default();
            match (said["error"].take(), said["ready"].take()) {
                (Value::String(error), _) => Err(failed(error)),
                (_, Value::Null) => Err(failed(format!("it ended{}", last_words(log)))),
                (_, ready) => Ok(ready),
            }
        }
    }
}

/// The end of a log, as the end of a sentence.
fn last_words(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    match text.trim().lines().last() {
        Some(line) => format!(", its last words were: {line}"),
        None => String::new(),
    }
}

/// Starts engines, all at once. If one does not get ready, all of them are ended.
async fn spawn_engines(
    options: &Options,
    files: &Paths,
    count: u32,
    checkpoint_mb: u64,
) -> Result<(Vec<Child>, Vec<EngineProcess>), Error> {
    let arguments = [
        "--file".to_owned(),
        files.engine.display().to_string(),
        "--checkpoint-mb".to_owned(),
        checkpoint_mb.to_string(),
    ];
    let mut children = Vec::new();
    let result = async {
        let mut logs = Vec::new();
        for _ in 0..count {
            let name = format!("engine-{}", uuid::Uuid::new_v4().simple());
            children.push(spawn(options, "engine", &arguments, &name)?);
            logs.push(log_path(options, &name));
        }
        let mut engines = Vec::new();
        for (child, log) in children.iter_mut().zip(&logs) {
            let process = process_of(child, "engine", log)?;
            let said = ready(child, "engine", log, options.patience).await?;
            let id = serde_json::from_value(said["id"].clone()).unwrap_or_default();
            let uuid = said["uuid"].as_str().unwrap_or_default().to_owned();
            // Now that it has a number its log can have it too.
            let named = log_path(options, &format!("engine-{id}"));
            if let Err(error) = fs::rename(log, &named) {
                tracing::debug!(%error, "a log keeps its long name");
            }
            engines.push(EngineProcess { process, id, uuid });
        }
        Ok(engines)
    }
    .await;
    match result {
        Ok(engines) => Ok((children, engines)),
        Err(error) => {
            for child in &mut children {
                let _ = child.start_kill();
            }
            Err(error)
        }
    }
}

/// Stops a cluster that was started here, by this process or another.
///
/// # Errors
/// When it does not run.
pub async fn stop(profile: &Profile, cluster_id: &str) -> Result<(), Error> {
    let files = profile.connection_files(cluster_id)?;
    let Some(state) = State::read(profile, cluster_id) else {
        return Err(not_running(profile, cluster_id));
    };
    let _lock = Lock::take(profile, cluster_id)?;
    let was_running = state.controller.is_alive();
    if was_running && let Ok(file) = ClientFile::read(&files.client) {
        let asked = query::hub(&file, "shutdown_request", &json!({}), GRACE).await;
        if let Err(error) = asked {
            tracing::info!("{}", error.chain());
        }
    }
    remove(profile, &state, &files).await;
    match was_running {
        true => Ok(()),
        false => Err(not_running(profile, cluster_id)),
    }
}

/// Ends what still runs and removes the files. The controller's word makes engines end by themselves.
async fn remove(profile: &Profile, state: &State, files: &Paths) {
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
    let file = ClientFile::read(&files.client).map_err(|error| match error {
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
    let _lock = Lock::take(profile, cluster_id)?;
    let state = State::read(profile, cluster_id).filter(|state| state.controller.is_alive());
    let mut state = state.ok_or_else(|| not_running(profile, cluster_id))?;
    let checkpoint_mb = settings.engines.checkpoint_mb;
    let (children, engines) = spawn_engines(options, &files, count, checkpoint_mb).await?;
    // In the background they go on without their handles.
    drop(children);
    let ids = engines.iter().map(|engine| engine.id).collect();
    state.engines.retain(|engine| engine.process.is_alive());
    state.engines.extend(engines);
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
    let file = ClientFile::read(&files.client).map_err(|error| match error {
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
