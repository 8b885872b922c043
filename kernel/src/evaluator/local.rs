//! The commands of a cell that need no evcxr.

use crate::failure;
use crate::kernel::lock;
use compiler::Source;
use compiler::lineages::{self, At, Lineages, Local};
use protocol::message::ErrorInfo;
use std::collections::BTreeMap;
use std::process::Stdio;
use std::sync::Mutex;
use tokio::process::Command;

/// Variables of the environment that `:env` has set.
pub(super) type Environment = Mutex<BTreeMap<String, String>>;

/// A copy of these variables.
pub(super) fn variables(environment: &Environment) -> BTreeMap<String, String> {
    lock(environment).clone()
}

/// Does these commands of a cell, and takes them out of it. Returns what they show.
pub(super) async fn perform(
    source: &mut Source,
    count: u32,
    lineages: &Lineages,
    environment: &Environment,
) -> Result<String, ErrorInfo> {
    let (commands, rest) = lineages::take_local(&source.code);
    if commands.is_empty() {
        return Ok(String::new());
    }
    let whole = source.clone();
    // What is said of the rest of the cell is said of all of it.
    source.code = rest;
    source.shown.get_or_insert_with(|| whole.code.clone());
    let mut shown = String::new();
    for At { command, range } in commands {
        let done = match command {
            Some(Local::Shell(command)) => shell(&command, environment).await,
            Some(Local::Environment { name, value }) => {
                let said =
                    format!("Set {name}={value} (use :restart command to reload child process)");
                lock(environment).insert(name, value);
                Ok(said)
            }
            Some(Local::Explain) => lineages
                .explain()
                .ok_or_else(|| "there is no last error that rustc explains".to_owned()),
            Some(Local::LastErrors) => Err(lineages.last_errors_as_json()),
            None => Err("`:env` takes KEY=VALUE".to_owned()),
        };
        let said = done.map_err(|message| {
            failure::compile(lineages.refusal(&whole, count, range, &message))
        })?;
        shown.push_str(said.trim_end_matches('\n'));
        shown.push('\n');
    }
    Ok(shown)
}

/// Runs a command of the shell. Returns what it prints, or says how it failed. When the future is dropped it is killed, with all that it has
/// started.
async fn shell(command: &str, environment: &Environment) -> Result<String, String> {
    let failed = |error: std::io::Error| format!("failed to run the shell: {error}");
    let mut shell = Command::new("sh");
    shell.arg("-c").arg(command).stdin(Stdio::null());
    shell.stdout(Stdio::piped()).stderr(Stdio::piped());
    shell.envs(variables(environment));
    shell.process_group(0);
    let shell = shell.spawn().map_err(failed)?;
    let group = Group(shell.id().and_then(|id| i32::try_from(id).ok()));
    let output = shell.wait_with_output().await.map_err(failed)?;
    std::mem::forget(group);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let errors = text(&output.stderr);
    match output.status.success() {
        true => Ok(text(&output.stdout) + &errors),
        false => Err(format!("the command failed ({}): {errors}", output.status)),
    }
}

/// A process group whose first process has not been waited for. Killed when dropped.
struct Group(Option<i32>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            // SAFETY: sends a signal, touches no memory.
            unsafe { libc::killpg(group, libc::SIGKILL) };
        }
    }
}
