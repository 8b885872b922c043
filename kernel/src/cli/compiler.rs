//! `chorus compiler`: the user's compile service and its workers, and the compiler of a cluster.

use super::cluster::table;
use super::{block_on, log};
use crate::compiling;
use anyhow::Context;
use clap::{Args, Subcommand};
use cluster::compile;
use cluster::compile_service::{self, Address, WorkerState, front};
use std::path::PathBuf;
use std::time::Duration;

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, arg_required_else_help = true)]
pub(super) struct CompilerArgs {
    #[command(subcommand)]
    role: Option<CompilerRole>,
    /// The engines' connection file
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// End when standard input is closed
    #[arg(long, hide = true)]
    tied: bool,
}

#[derive(Debug, Subcommand)]
enum CompilerRole {
    /// Say whether the compile service runs, and what its workers do
    #[command(after_help = "Example:\n  chorus compiler status")]
    Status,
    /// End the compile service; the next cell that is new starts another
    #[command(after_help = "Example:\n  chorus compiler stop")]
    Stop,
    #[command(hide = true)]
    Serve(ServeArgs),
    #[command(hide = true)]
    Worker,
}

#[derive(Debug, Args)]
struct ServeArgs {
    /// Where to listen
    #[arg(long, value_name = "PATH")]
    socket: PathBuf,
    /// How long to stay without connections
    #[arg(long, value_name = "SECONDS")]
    idle: u64,
}

pub(super) fn compiler(arguments: CompilerArgs) -> anyhow::Result<()> {
    let CompilerArgs { role, file, tied } = arguments;
    match role {
        Some(CompilerRole::Status) => block_on(status()),
        Some(CompilerRole::Stop) => block_on(stop()),
        Some(CompilerRole::Serve(ServeArgs { socket, idle })) => {
            log();
            let worker = ["compiler", "worker"].map(Into::into).into();
            let mut arguments = front::Arguments::new(socket, worker);
            arguments.idle = Duration::from_secs(idle);
            Ok(front::main(arguments)?)
        }
        Some(CompilerRole::Worker) => compiling::worker::main(log),
        None => {
            log();
            let file = file.context("--file is missing")?;
            compiling::cluster::main(compile::Arguments { file, tied })
        }
    }
}

/// Says how the services of this user are, those of other versions of this program included.
async fn status() -> anyhow::Result<()> {
    let own = compiling::id(&std::env::current_exe()?);
    let mut runs = false;
    for address in Address::all() {
        let status = match compile_service::status(&address).await {
            Ok(Some(status)) => status,
            Ok(None) => continue,
            Err(error) => {
                eprintln!("chorus: {}", error.chain());
                continue;
            }
        };
        runs = true;
        let whose = match address.id() == own {
            true => "The compile service",
            false => "The compile service of another version of Chorus",
        };
        println!(
            "{whose} runs in process {} since {:.0}.\n  Clients: {}\n  Requests that wait: {}\n  Log: {}",
            status.pid,
            status.started,
            // Without this one.
            status.connections.saturating_sub(1),
            status.queued,
            address.log().display(),
        );
        if status.workers.is_empty() {
            println!("It has no workers. The next cell that is new starts one.\n");
            continue;
        }
        let mut table = table(&["WORKER", "STATE", "FOR", "MEMORY", "ANSWERED"]);
        for worker in status.workers {
            table.add_row([
                worker
                    .pid
                    .map_or_else(|| "-".to_owned(), |pid| pid.to_string()),
                state(worker.state).to_owned(),
                format!("{:.0} s", worker.state_seconds),
                format!("{} MB", worker.memory / 1_000_000),
                worker.served.to_string(),
            ]);
        }
        println!("\n{}\n", table.trim_fmt());
    }
    if !runs {
        println!("No compile service runs. The next cell that is new starts one.");
    }
    Ok(())
}

fn state(state: WorkerState) -> &'static str {
    match state {
        WorkerState::Starting => "starts",
        WorkerState::Idle => "idle",
        WorkerState::Busy => "compiles",
        WorkerState::Ending => "ends",
    }
}

async fn stop() -> anyhow::Result<()> {
    let mut stopped = false;
    for address in Address::all() {
        stopped |= compile_service::stop(&address).await?;
    }
    match stopped {
        true => {
            println!("The compile service has ended. The next cell that is new starts another.")
        }
        false => println!("No compile service runs."),
    }
    Ok(())
}
