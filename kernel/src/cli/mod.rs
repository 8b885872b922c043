//! The command line: one program, a subcommand for each role.

mod cluster;
mod compiler;

use crate::{crates, demo, server};
use ::compiler::folder::Folder;
use anyhow::Context;
use clap::{Args, Parser, Subcommand};
use cluster::{ClusterRole, ControllerArgs, EngineArgs, ProfileRole};
use compiler::CompilerArgs;
use kernelspec::{InstallOptions, Target};
use protocol::ConnectionFile;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// A Jupyter kernel for Rust.
#[derive(Debug, Parser)]
#[command(
    name = "chorus",
    version,
    about,
    after_help = "Examples:\n  chorus demo                 count words, without Jupyter\n  \
                  chorus lab                  the same as a notebook in JupyterLab\n  \
                  chorus kernelspec install   let Jupyter find this kernel\n  \
                  chorus cluster start -n 4   start engines that notebooks share"
)]
struct Cli {
    #[command(subcommand)]
    role: Role,
}

#[derive(Debug, Subcommand)]
enum Role {
    /// Count the words of a text, cell by cell, and say how long it took
    #[command(after_help = "Examples:\n  chorus demo\n  CHORUS_TEXT=book.txt chorus demo")]
    Demo,
    /// Open the word count in JupyterLab, which is installed in a private environment if there is none
    #[command(
        after_help = "Examples:\n  chorus lab\n  chorus lab analysis.ipynb\n  chorus lab --no-browser -- --port 9999"
    )]
    Lab(LabArgs),
    /// Let Jupyter find this kernel
    #[command(
        subcommand,
        after_help = "Examples:\n  chorus kernelspec install\n  chorus kernelspec show"
    )]
    Kernelspec(KernelspecRole),
    /// Start, end and look at clusters of engines
    #[command(
        subcommand,
        after_help = "Examples:\n  chorus cluster start -n 4 --daemonize\n  chorus cluster status\n  chorus cluster stop"
    )]
    Cluster(ClusterRole),
    /// Create and show profiles: a cluster's settings under a name
    #[command(
        subcommand,
        after_help = "Examples:\n  chorus profile create big\n  chorus profile show big"
    )]
    Profile(ProfileRole),
    /// Serve a notebook (Jupyter starts this)
    #[command(after_help = "Example:\n  chorus kernel -f connection.json")]
    Kernel(KernelArgs),
    /// Route between clients and engines (`chorus cluster start` starts this)
    #[command(
        after_help = "Example:\n  chorus controller --profile-dir ~/.local/share/chorus/profiles/default"
    )]
    Controller(ControllerArgs),
    /// Run what clients send (`chorus cluster start` starts this)
    #[command(after_help = "Example:\n  chorus engine --file ipcontroller-engine.json")]
    Engine(EngineArgs),
    /// Look at the compile service, or end it; compile for engines (`chorus cluster start` starts this)
    #[command(
        after_help = "Examples:\n  chorus compiler status\n  chorus compiler stop\n  \
                      chorus compiler --file ipcontroller-engine.json"
    )]
    Compiler(CompilerArgs),
    #[command(hide = true)]
    Runtime,
    #[command(hide = true)]
    Stub,
}

#[derive(Debug, Args)]
struct KernelArgs {
    /// The connection file that Jupyter has written
    #[arg(short = 'f', long = "connection-file", value_name = "FILE")]
    connection_file: PathBuf,
}

#[derive(Debug, Args)]
struct LabArgs {
    /// Print the address instead of opening a browser
    #[arg(long)]
    no_browser: bool,
    /// A notebook; by default the word count, copied into the current folder if it isn't there
    notebook: Option<PathBuf>,
    /// Passed on to JupyterLab
    #[arg(last = true)]
    arguments: Vec<OsString>,
}

#[derive(Debug, Subcommand)]
enum KernelspecRole {
    /// Install the kernelspec "Rust (Chorus)"
    #[command(
        after_help = "Examples:\n  chorus kernelspec install\n  chorus kernelspec install --sys-prefix\n  \
                      chorus kernelspec install --prefix /opt/jupyter --name chorus-dev"
    )]
    Install(Place),
    /// Remove it
    #[command(after_help = "Example:\n  chorus kernelspec uninstall --user")]
    Uninstall(Place),
    /// Say where it is installed, and what it says
    #[command(after_help = "Example:\n  chorus kernelspec show")]
    Show(Place),
}

#[derive(Debug, Args)]
struct Place {
    /// For this user (the default)
    #[arg(long, group = "place")]
    user: bool,
    /// Into the active Python environment
    #[arg(long, group = "place")]
    sys_prefix: bool,
    /// Into DIR/share/jupyter
    #[arg(long, group = "place", value_name = "DIR")]
    prefix: Option<PathBuf>,
    /// The kernelspec's name
    #[arg(long, default_value = kernelspec::DEFAULT_NAME)]
    name: String,
}

impl Place {
    fn target(&self) -> Option<Target> {
        if let Some(prefix) = &self.prefix {
            Some(Target::Prefix(prefix.clone()))
        } else if self.sys_prefix {
            Some(Target::SysPrefix)
        } else {
            self.user.then_some(Target::User)
        }
    }
}

/// The program.
pub fn main() -> ExitCode {
    forget_hidden_std();
    // These are called by other programs, which leave no room for a subcommand.
    let name = std::env::args_os().next().unwrap_or_default();
    if Path::new(&name).file_name() == Some(::compiler::wrapper::NAME.as_ref()) {
        return ::compiler::wrapper::main();
    }
    // Neither is to pay for what the kernel needs.
    match std::env::args_os().nth(1) {
        Some(role) if role == "runtime" => runtime::child_main(),
        Some(role) if role == "stub" => return exit(::compiler::stub::main().map_err(Into::into)),
        _ => {}
    }
    ::compiler::hook();
    forget_build_flags();
    exit(run(Cli::parse().role))
}

/// What a compile worker keeps from its own rust-analyzer is not for the processes that it starts.
fn forget_hidden_std() {
    if ::compiler::folder::has_hidden_std() {
        // SAFETY: no other thread has been started.
        unsafe { std::env::remove_var(::compiler::folder::STD_SOURCE) };
    }
}

/// `cargo run` gives a program the environment of its own build. What `.cargo/config.toml` says for libzmq is not for the crates that cells depend on.
fn forget_build_flags() {
    const FLAGS: &str = "CXXFLAGS";
    if std::env::var(FLAGS).is_ok_and(|flags| flags.contains("ZMQ_HAVE_EVENTFD")) {
        // SAFETY: no other thread has been started.
        unsafe { std::env::remove_var(FLAGS) };
    }
}

fn exit(outcome: anyhow::Result<()>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            match error.downcast_ref::<::cluster::Error>() {
                Some(error) => eprintln!("chorus: {}", error.chain()),
                None => eprintln!("chorus: {error:#}"),
            }
            ExitCode::FAILURE
        }
    }
}

fn run(role: Role) -> anyhow::Result<()> {
    match role {
        Role::Kernel(arguments) => {
            log();
            let connection =
                ConnectionFile::read(&arguments.connection_file).with_context(|| {
                    format!(
                        "failed to use the connection file {}",
                        arguments.connection_file.display()
                    )
                })?;
            with_session(|executable, folder| server::serve(connection, executable, folder))
        }
        Role::Demo => with_session(demo::run),
        Role::Lab(arguments) => lab(arguments),
        Role::Cluster(role) => {
            log();
            cluster::cluster(role)
        }
        Role::Profile(role) => cluster::profile(role),
        Role::Controller(arguments) => {
            log();
            cluster::controller(arguments)
        }
        Role::Engine(arguments) => {
            log();
            cluster::engine(arguments)
        }
        Role::Compiler(arguments) => compiler::compiler(arguments),
        Role::Kernelspec(role) => kernelspec_role(role),
        Role::Runtime => runtime::child_main(),
        Role::Stub => Ok(::compiler::stub::main()?),
    }
}

/// Runs what needs no more than this thread.
fn block_on(work: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("failed to start")?
        .block_on(work)
}

/// Warnings go to stderr, a line each; `CHORUS_LOG` asks for more, as in `CHORUS_LOG=debug`.
fn log() {
    // A level alone is meant for what is ours: rust-analyzer logs every query.
    let asked = std::env::var("CHORUS_LOG").unwrap_or_default();
    let directives = match asked.parse::<tracing_subscriber::filter::LevelFilter>() {
        _ if asked.is_empty() => String::new(),
        Ok(level) => [
            "chorus", "cluster", "compiler", "kernel", "magics", "protocol", "runtime",
        ]
        .map(|name| format!(",{name}={level}"))
        .concat(),
        Err(_) => format!(",{asked}"),
    };
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::new(format!(
            "warn{directives}"
        )))
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .init();
}

/// Runs something that evaluates cells, with a folder of its own.
fn with_session<F: Future<Output = anyhow::Result<()>>>(
    work: impl FnOnce(PathBuf, PathBuf) -> F,
) -> anyhow::Result<()> {
    let executable = std::env::current_exe().context("failed to find this program's file")?;
    let folder = Folder::create().context("failed to make a temporary folder")?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("failed to start")?;
    let outcome = runtime.block_on(work(executable, folder.path().to_owned()));
    runtime.shutdown_background();
    outcome
}

fn lab(arguments: LabArgs) -> anyhow::Result<()> {
    let executable = std::env::current_exe().context("failed to find this program's file")?;
    let notebook = match arguments.notebook {
        Some(notebook) => notebook,
        None => {
            let notebook = PathBuf::from("wordcount.ipynb");
            if !notebook.exists() {
                std::fs::write(&notebook, examples::WORDCOUNT_NOTEBOOK)
                    .context("failed to put wordcount.ipynb into the current folder")?;
            }
            notebook
        }
    };
    let jupyter = kernelspec::lab::environment(|step| eprintln!("chorus: {step}"))?;
    prepare_crates();
    let mut passed: Vec<OsString> = Vec::new();
    if arguments.no_browser {
        passed.push("--no-browser".into());
    }
    passed.extend(arguments.arguments);
    match kernelspec::lab::open(&jupyter, &executable, Some(&notebook), &passed)? {}
}

/// Has what cells may name without asking compiled now. Nothing depends on it: the first cell that names it does it otherwise.
fn prepare_crates() {
    let begin = || {
        eprintln!(
            "chorus: compiling the crate `chorus`, once for this version of Chorus and of Rust ..."
        );
    };
    if let Err(error) = crates::prepare(begin) {
        eprintln!(
            "chorus: warning: {error}\nThe first cell that uses one of them will try again; everything else works."
        );
    }
}

fn kernelspec_role(role: KernelspecRole) -> anyhow::Result<()> {
    match role {
        KernelspecRole::Install(place) => {
            let executable =
                std::env::current_exe().context("failed to find this program's file")?;
            let mut options = InstallOptions::new(executable);
            options.target = place.target().unwrap_or_default();
            options.name = place.name;
            let folder = kernelspec::install(&options)?;
            println!(
                "Installed kernelspec {} in {}",
                options.name,
                folder.display()
            );
            prepare_crates();
        }
        KernelspecRole::Uninstall(place) => {
            let folder = kernelspec::uninstall(&place.target().unwrap_or_default(), &place.name)?;
            println!("Removed {}", folder.display());
        }
        KernelspecRole::Show(place) => {
            let found = kernelspec::show(place.target().as_ref(), &place.name)?;
            if found.is_empty() {
                anyhow::bail!(
                    "there is no kernelspec {}; `chorus kernelspec install` makes one",
                    place.name
                );
            }
            for installed in found {
                print!("{installed}");
            }
        }
    }
    Ok(())
}
