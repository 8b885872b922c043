//! `chorus cluster`, `chorus profile`, and the processes that a cluster is made of.

use anyhow::Context;
use clap::{Args, Subcommand};
use cluster::launcher::{self, Lifetime, Options};
use cluster::profile::{self, Profile};
use cluster::{EngineId, controller, engine};
use comfy_table::{Table, presets};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::process::Command;

#[derive(Debug, Subcommand)]
pub(super) enum ClusterRole {
    /// Start a controller, a compiler and engines on this machine
    #[command(
        after_help = "Examples:\n  chorus cluster start -n 4\n  chorus cluster start --daemonize\n  \
                      chorus cluster start --profile big --cluster-id nightly"
    )]
    Start(StartArgs),
    /// End a cluster that was started here
    #[command(after_help = "Examples:\n  chorus cluster stop\n  chorus cluster stop --profile big")]
    Stop(Name),
    /// List the clusters that were started here
    #[command(after_help = "Example:\n  chorus cluster list")]
    List,
    /// Say which engines a cluster has and what they do
    #[command(
        after_help = "Examples:\n  chorus cluster status\n  chorus cluster status --cluster-id nightly"
    )]
    Status(Name),
    /// Remove what clusters have left that do not run any more
    #[command(
        after_help = "Examples:\n  chorus cluster clean\n  chorus cluster clean --profile big"
    )]
    Clean(ProfileName),
    /// Start or end engines of a cluster that runs
    #[command(
        subcommand,
        after_help = "Examples:\n  chorus cluster engines add 2\n  chorus cluster engines remove 3"
    )]
    Engines(EnginesRole),
}

#[derive(Debug, Subcommand)]
pub(super) enum EnginesRole {
    /// Start more engines
    #[command(after_help = "Example:\n  chorus cluster engines add 2")]
    Add {
        /// How many
        #[arg(default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
        count: u32,
        #[command(flatten)]
        name: Name,
    },
    /// End engines; what they hold is lost
    #[command(after_help = "Example:\n  chorus cluster engines remove 2 3")]
    Remove {
        /// Their numbers
        #[arg(required = true, value_name = "ID")]
        ids: Vec<u32>,
        #[command(flatten)]
        name: Name,
    },
}

#[derive(Debug, Args)]
pub(super) struct StartArgs {
    /// How many engines; by default what the profile says, one a core if it says nothing
    #[arg(short = 'n', long = "engines", value_name = "N")]
    engines: Option<u32>,
    #[command(flatten)]
    name: Name,
    /// Return when it is ready, and leave it running
    #[arg(long)]
    daemonize: bool,
    /// For programs: say in a line of JSON that it is ready, and end it when standard input is closed
    #[arg(long, hide = true, conflicts_with = "daemonize")]
    tied: bool,
}

#[derive(Debug, Args)]
pub(super) struct ProfileName {
    /// The profile
    #[arg(long, value_name = "NAME", default_value = profile::DEFAULT)]
    profile: String,
}

#[derive(Debug, Args)]
pub(super) struct Name {
    #[command(flatten)]
    profile: ProfileName,
    /// Tells several clusters of one profile apart
    #[arg(long, value_name = "ID", default_value = "", hide_default_value = true)]
    cluster_id: String,
}

#[derive(Debug, Subcommand)]
pub(super) enum ProfileRole {
    /// Create a profile, with a file of settings to edit
    #[command(after_help = "Example:\n  chorus profile create big")]
    Create {
        /// Its name
        name: String,
    },
    /// List the profiles
    #[command(after_help = "Example:\n  chorus profile list")]
    List,
    /// Print a profile's settings
    #[command(after_help = "Examples:\n  chorus profile show\n  chorus profile show big")]
    Show {
        /// Its name
        #[arg(default_value = profile::DEFAULT)]
        name: String,
    },
}

#[derive(Debug, Args)]
pub(super) struct ControllerArgs {
    /// The folder of the profile whose settings hold
    #[arg(long, value_name = "DIR")]
    profile_dir: PathBuf,
    /// Tells several clusters of one profile apart
    #[arg(long, value_name = "ID", default_value = "", hide_default_value = true)]
    cluster_id: String,
    /// Take addresses and key from the connection files that are there
    #[arg(long)]
    reuse: bool,
    /// End when standard input is closed
    #[arg(long, hide = true)]
    tied: bool,
}

#[derive(Debug, Args)]
pub(super) struct EngineArgs {
    /// The engines' connection file
    #[arg(long, value_name = "FILE")]
    file: PathBuf,
    /// The number that it would like
    #[arg(long, value_name = "N")]
    id: Option<u32>,
    /// Make no checkpoint when the variables take more megabytes
    #[arg(long, value_name = "MB")]
    checkpoint_mb: Option<u64>,
    /// End when standard input is closed
    #[arg(long, hide = true)]
    tied: bool,
}

/// `chorus controller`.
pub(super) fn controller(arguments: ControllerArgs) -> anyhow::Result<()> {
    let ControllerArgs {
        profile_dir,
        cluster_id,
        reuse,
        tied,
    } = arguments;
    let arguments = controller::Arguments {
        profile_dir,
        cluster_id,
        reuse,
        tied,
    };
    Ok(controller::main(
        arguments,
        crate::compiling::cluster::libraries,
    )?)
}

/// `chorus engine`.
pub(super) fn engine(arguments: EngineArgs) -> anyhow::Result<()> {
    let mut runtime = Command::new(std::env::current_exe()?);
    runtime.arg("runtime");
    let arguments = engine::Arguments {
        file: arguments.file,
        id: arguments.id.map(EngineId),
        checkpoint_mb: arguments.checkpoint_mb,
        tied: arguments.tied,
    };
    Ok(engine::main(
        arguments,
        runtime,
        crate::compiling::cluster::open,
    )?)
}

/// `chorus cluster`.
pub(super) fn cluster(role: ClusterRole) -> anyhow::Result<()> {
    super::block_on(async {
        match role {
            ClusterRole::Start(arguments) => start(arguments).await,
            ClusterRole::Stop(name) => {
                let profile = Profile::named(&name.profile.profile)?;
                launcher::stop(&profile, &name.cluster_id).await?;
                println!("The cluster {} has ended.", title(&name));
                Ok(())
            }
            ClusterRole::List => list(),
            ClusterRole::Status(name) => status(&name).await,
            ClusterRole::Clean(name) => clean(&name).await,
            ClusterRole::Engines(role) => engines(role).await,
        }
    })
}

/// A cluster's name for people.
fn title(name: &Name) -> String {
    match name.cluster_id.as_str() {
        "" => format!("of profile {:?}", name.profile.profile),
        id => format!("{id:?} of profile {:?}", name.profile.profile),
    }
}

/// The options that name a cluster, to be put behind a command.
fn options_of(name: &Name) -> String {
    let mut options = String::new();
    if name.profile.profile != profile::DEFAULT {
        options.push_str(&format!(" --profile {}", name.profile.profile));
    }
    if !name.cluster_id.is_empty() {
        options.push_str(&format!(" --cluster-id {}", name.cluster_id));
    }
    options
}

fn options(name: &Name, lifetime: Lifetime) -> anyhow::Result<Options> {
    let mut options = Options::new(Profile::named(&name.profile.profile)?)?;
    options.cluster_id = name.cluster_id.clone();
    options.lifetime = lifetime;
    Ok(options)
}

async fn start(arguments: StartArgs) -> anyhow::Result<()> {
    let StartArgs {
        engines,
        name,
        daemonize,
        tied,
    } = arguments;
    let lifetime = if daemonize {
        Lifetime::Background
    } else {
        Lifetime::Tied
    };
    let mut options = options(&name, lifetime)?;
    options.engines = engines;
    let log = options.profile.log();
    if tied {
        let started = match options.cluster_id.as_str() {
            "" => launcher::start_numbered(options, OF_PROGRAMS).await,
            _ => launcher::start(options).await,
        };
        return serve_starter(started).await;
    }
    let mut cluster = launcher::start(options).await?;
    let count = cluster.state().engines.len();
    println!(
        "The cluster {} is ready: {count} engine{}.\n  Connection file: {}\n  Logs: {}",
        title(&name),
        if count == 1 { "" } else { "s" },
        cluster.files().client.display(),
        log.display()
    );
    if daemonize {
        println!("  `chorus cluster stop{}` ends it.", options_of(&name));
        return Ok(());
    }
    println!("  Ctrl-C ends it.");
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    tokio::select! {
        () = cluster.ended() => anyhow::bail!(
            "the controller has ended; {} tells why",
            log.join("controller.log").display()
        ),
        outcome = tokio::signal::ctrl_c() => outcome.context("failed to watch for Ctrl-C")?,
        _ = terminate.recv() => {}
    }
    cluster.stop().await?;
    println!("The cluster {} has ended.", title(&name));
    Ok(())
}

/// The beginning of the ids of programs' own clusters; a number follows.
const OF_PROGRAMS: &str = "program-";

/// Runs a cluster for the program that started it, which reads a line as a cluster's processes print it.
async fn serve_starter(started: Result<launcher::Cluster, cluster::Error>) -> anyhow::Result<()> {
    let mut cluster = match started {
        Ok(cluster) => cluster,
        Err(error) => {
            println!("{}", json!({"error": error.chain()}));
            return Err(error.into());
        }
    };
    let (client, engines) = (&cluster.files().client, cluster.state().engines.len());
    println!(
        "{}",
        json!({"ready": {"client": client, "engines": engines}})
    );
    let (closed, is_closed) = tokio::sync::oneshot::channel::<()>();
    // A thread, because reading standard input can't be given up.
    std::thread::Builder::new()
        .name("tie".to_owned())
        .spawn(move || {
            // Whatever ends the reading, the program is gone.
            let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
            drop(closed);
        })
        .context("failed to start a thread")?;
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    tokio::select! {
        () = cluster.ended() => {}
        _ = is_closed => {}
        _ = tokio::signal::ctrl_c() => {}
        _ = terminate.recv() => {}
    }
    Ok(cluster.stop().await?)
}

pub(super) fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_header(header);
    table
}

fn list() -> anyhow::Result<()> {
    let clusters = launcher::list(&profile::root()?)?;
    if clusters.is_empty() {
        println!("No cluster was started here. `chorus cluster start` starts one.");
        return Ok(());
    }
    let mut table = table(&["PROFILE", "CLUSTER ID", "STATE", "ENGINES", "PID"]);
    for cluster in clusters {
        let state = if cluster.running {
            "running"
        } else {
            "dead (`chorus cluster clean` removes it)"
        };
        table.add_row([
            cluster.profile,
            cluster.cluster_id,
            state.to_owned(),
            cluster.engines.to_string(),
            cluster.pid.to_string(),
        ]);
    }
    println!("{}", table.trim_fmt());
    Ok(())
}

async fn status(name: &Name) -> anyhow::Result<()> {
    let profile = Profile::named(&name.profile.profile)?;
    let status = launcher::status(&profile, &name.cluster_id).await?;
    let controller = status.pid.map_or_else(
        || "not started here".to_owned(),
        |pid| format!("in process {pid}"),
    );
    let compiler = match status.compiler {
        Some(true) => "runs",
        Some(false) => {
            "does not run; engines use the compile service of their user (`chorus compiler status`)"
        }
        None => "not started here",
    };
    println!(
        "The cluster {} runs.\n  Controller: {controller}\n  Compiler: {compiler}\n  Tasks that wait: {}\n",
        title(name),
        status.unassigned
    );
    if status.engines.is_empty() {
        println!(
            "It has no engines. `chorus cluster engines add 1{}` adds one.",
            options_of(name)
        );
        return Ok(());
    }
    let mut table = table(&["ENGINE", "QUEUE", "TASKS", "COMPLETED", "UUID"]);
    for engine in status.engines {
        table.add_row([
            engine.id.to_string(),
            engine.queue.to_string(),
            engine.tasks.to_string(),
            engine.completed.to_string(),
            engine.uuid,
        ]);
    }
    println!("{}", table.trim_fmt());
    Ok(())
}

async fn clean(name: &ProfileName) -> anyhow::Result<()> {
    let removed = launcher::clean(&Profile::named(&name.profile)?).await?;
    if removed.is_empty() {
        println!("There was nothing to remove.");
    }
    for path in removed {
        println!("Removed {}", path.display());
    }
    Ok(())
}

async fn engines(role: EnginesRole) -> anyhow::Result<()> {
    match role {
        EnginesRole::Add { count, name } => {
            let options = options(&name, Lifetime::Background)?;
            let ids = launcher::add_engines(&options, count).await?;
            println!("Added {}.", numbers(&ids));
        }
        EnginesRole::Remove { ids, name } => {
            let profile = Profile::named(&name.profile.profile)?;
            let ids: Vec<EngineId> = ids.into_iter().map(EngineId).collect();
            launcher::remove_engines(&profile, &name.cluster_id, &ids).await?;
            println!("Ended {}.", numbers(&ids));
        }
    }
    Ok(())
}

fn numbers(ids: &[EngineId]) -> String {
    let numbers: Vec<String> = ids.iter().map(ToString::to_string).collect();
    let noun = if ids.len() == 1 { "engine" } else { "engines" };
    format!("{noun} {}", numbers.join(", "))
}

/// `chorus profile`.
pub(super) fn profile(role: ProfileRole) -> anyhow::Result<()> {
    match role {
        ProfileRole::Create { name } => {
            let path = Profile::named(&name)?.create()?;
            println!("Created profile {name:?}. Its settings: {}", path.display());
        }
        ProfileRole::List => {
            let mut table = table(&["PROFILE", "SETTINGS"]);
            for profile in profile::list(&profile::root()?)? {
                table.add_row([
                    profile.name().to_owned(),
                    settings(&profile.settings_path()),
                ]);
            }
            println!("{}", table.trim_fmt());
        }
        ProfileRole::Show { name } => print!("{}", Profile::named(&name)?.show()?),
    }
    Ok(())
}

fn settings(path: &Path) -> String {
    if path.exists() {
        path.display().to_string()
    } else {
        "the usual ones".to_owned()
    }
}
