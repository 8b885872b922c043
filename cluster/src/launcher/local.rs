//! Starting processes on this machine: each is this program with another subcommand. What is done with a cluster later is `manage`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use protocol::Sockets;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{Child, ChildStdin, Command};
use tokio::time::timeout;
use uuid::Uuid;

use super::manage::{GRACE, remove, stop};
use super::state::{EngineProcess, Lock, Process, State};
use crate::Error;
use crate::connection::{Libraries, Paths};
use crate::controller::{Config, Hosted};
use crate::profile::{self, Profile, Settings};

/// What becomes of the processes when whoever started them ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lifetime {
    /// They end, however that happened.
    Tied,
    /// They go on, until `stop`.
    Background,
}

/// What a controller in this process needs to know: what runtimes load first, as [`crate::controller::Config::libraries`]. May take its time.
pub type Host = fn() -> Option<Libraries>;

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
    /// Have the controller in a thread of this process, whose connection is then the fastest there is ([`Cluster::sockets`]). Not for
    /// clusters in the background, which need a process that stays.
    pub host: Option<Host>,
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
            host: None,
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
    controller: Controller,
    others: Vec<Child>,
}

#[derive(Debug)]
enum Controller {
    Process {
        child: Child,
        /// Its standard input, held open for as long as it is to live; the others' are in their handles.
        _tie: Option<ChildStdin>,
    },
    Hosted(Hosted),
}

/// How to name a cluster to people, and on a command line.
pub(super) fn names(profile: &Profile, cluster_id: &str) -> (String, String) {
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

pub(super) fn not_running(profile: &Profile, cluster_id: &str) -> Error {
    let (name, options) = names(profile, cluster_id);
    Error::NotRunning { name, options }
}

/// More clusters than one has that end with who started them.
const MANY: u32 = 1000;

/// As [`start`], under the first id that no running cluster has, of those that consist of `prefix` and a number.
///
/// # Errors
/// As [`start`], and when a thousand run.
pub async fn start_numbered(mut options: Options, prefix: &str) -> Result<Cluster, Error> {
    let mut number = 1;
    loop {
        options.cluster_id = format!("{prefix}{number}");
        let state = State::read(&options.profile, &options.cluster_id);
        if number == MANY || !state.is_some_and(|state| state.controller.is_alive()) {
            match start(options.clone()).await {
                // Somebody else was faster.
                Err(Error::AlreadyRunning { .. }) if number < MANY => {}
                outcome => return outcome,
            }
        }
        number += 1;
    }
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
    let mut lock = Lock::take(profile, cluster_id)?;
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
    let (controller, process, hosted) = match options.host {
        Some(host) if options.lifetime == Lifetime::Tied => {
            let started = start_hosted(&options, settings.clone(), host, lock).await?;
            lock = started.1;
            started.0
        }
        _ => start_controller(&options).await?,
    };
    let _lock = lock;
    let state = State {
        cluster_id: cluster_id.clone(),
        program: options.program.clone(),
        controller: process,
        hosted,
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
            end(&mut cluster.others).await;
            remove(&profile, &state, &files).await;
            Err(error)
        }
    }
}

/// A controller, the process that it is in, and its name if it isn't alone there.
type Started = (Controller, Process, Option<String>);

async fn start_controller(options: &Options) -> Result<Started, Error> {
    let mut arguments = vec![
        "--profile-dir".to_owned(),
        options.profile.folder().display().to_string(),
    ];
    if !options.cluster_id.is_empty() {
        arguments.extend(["--cluster-id".to_owned(), options.cluster_id.clone()]);
    }
    let mut child = spawn(options, "controller", &arguments, "controller")?;
    let log = log_path(options, "controller");
    if let Err(error) = ready(&mut child, "controller", &log, options.patience).await {
        end(std::slice::from_mut(&mut child)).await;
        return Err(error);
    }
    let process = process_of(&child, "controller", &log)?;
    // Waiting for a child closes what of it is in its handle.
    let tie = child.stdin.take();
    let controller = Controller::Process { child, _tie: tie };
    Ok((controller, process, None))
}

/// Has the lock until it is over, also if nobody waits for that any more.
async fn start_hosted(
    options: &Options,
    settings: Settings,
    host: Host,
    lock: Lock,
) -> Result<(Started, Lock), Error> {
    let (profile, cluster_id) = (options.profile.clone(), options.cluster_id.clone());
    let start = move || {
        let config = Config {
            security: profile.security(),
            cluster_id: cluster_id.clone(),
            reuse: false,
            settings,
            libraries: host(),
        };
        let process = Process::of(std::process::id())
            .ok_or_else(|| Error::system("find this process")(io::ErrorKind::NotFound.into()))?;
        let name = Uuid::new_v4().to_string();
        let mine = name.clone();
        let at_end = move || State::remove_hosted(&profile, &cluster_id, &mine);
        let hosted = Controller::Hosted(Hosted::start(config, at_end)?);
        Ok(((hosted, process, Some(name)), lock))
    };
    let started = tokio::task::spawn_blocking(start).await;
    started.map_err(|error| Error::system("start the controller")(io::Error::other(error)))?
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
        self.write()?;
        self.grow(count, checkpoint_mb).await
    }

    async fn grow(&mut self, count: u32, checkpoint_mb: u64) -> Result<(), Error> {
        let (children, engines) =
            spawn_engines(&self.options, &self.files, count, checkpoint_mb).await?;
        self.others.extend(children);
        self.state.engines.extend(engines);
        self.write()
    }

    fn write(&self) -> Result<(), Error> {
        self.state.write(&self.options.profile)?;
        // What is written of a controller that has ended stays.
        if let (Controller::Hosted(hosted), Some(name)) = (&self.controller, &self.state.hosted)
            && hosted.is_over()
        {
            State::remove_hosted(&self.options.profile, &self.state.cluster_id, name);
        }
        Ok(())
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

    /// The controller's sockets, if it is in this process.
    pub fn sockets(&self) -> Option<&Sockets> {
        match &self.controller {
            Controller::Process { .. } => None,
            Controller::Hosted(hosted) => Some(hosted.sockets()),
        }
    }

    /// Resolves when the controller has ended, whyever.
    pub async fn ended(&mut self) {
        match &mut self.controller {
            Controller::Process { child, .. } => {
                if let Err(error) = child.wait().await {
                    tracing::warn!(%error, "failed to wait for the controller");
                }
            }
            Controller::Hosted(hosted) => hosted.ended().await,
        }
    }

    /// Ends all processes and removes what they left.
    ///
    /// # Errors
    /// When the controller cannot be ended.
    pub async fn stop(mut self) -> Result<(), Error> {
        let Options {
            profile,
            cluster_id,
            ..
        } = &self.options;
        let stopped = stop(profile, cluster_id).await;
        if let Controller::Hosted(hosted) = &mut self.controller {
            // In case that its hub could not be asked.
            hosted.stop();
            // Its thread may be about to remove files that the next one of this name will have.
            if timeout(GRACE, hosted.ended()).await.is_ok() {
                if stopped.is_err() {
                    remove(profile, &self.state, &self.files).await;
                }
                return Ok(());
            }
        }
        match stopped {
            // Somebody else was faster.
            Err(Error::NotRunning { .. }) => {}
            outcome => outcome?,
        }
        Ok(())
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

/// Ends processes, and waits until they have ended.
async fn end(children: &mut [Child]) {
    for child in &mut *children {
        // One that has ended already can't be.
        let _ = child.start_kill();
    }
    for child in children {
        if let Err(error) = child.wait().await {
            tracing::warn!(%error, "failed to wait for a process");
        }
    }
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
pub(super) async fn spawn_engines(
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
            let name = format!("engine-{}", Uuid::new_v4().simple());
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
            end(&mut children).await;
            Err(error)
        }
    }
}
