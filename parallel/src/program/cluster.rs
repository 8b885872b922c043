//! A cluster that a program starts for itself.

use crate::client::Client;
use crate::error::Error;
use serde::Deserialize;
use std::ffi::OsStr;
use std::fmt;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

/// Names the `chorus` program, if it isn't the one on `PATH`.
const PROGRAM: &str = "CHORUS";

/// A cluster on this machine that ends with this value, and also when the program is killed (ipyparallel's `Cluster`).
///
/// Its processes are those of the program `chorus`, which is found on `PATH` or by the environment variable `CHORUS`.
///
/// A program's closures are functions of its own executable, so engines start that executable anew, and it becomes a worker before its `main`. Hence:
/// the file has to stay where it is and as it is; `static`s have their initial values in closures, whatever `main` has made of them; `chorus` has to be
/// of the version that the program was built with; and what closures print is not on the program's stdout but in
/// [`AsyncResult::output`](crate::AsyncResult::output).
///
/// ```no_run
/// # fn main() -> Result<(), chorus::Error> {
/// let cluster = chorus::Cluster::start(4)?;
/// let squares = cluster.connect()?.load_balanced_view().map_sync(0..1000u64, |x| x * x)?;
/// # drop(squares);
/// # Ok(())
/// # }
/// ```
pub struct Cluster {
    starter: Child,
    file: PathBuf,
    engines: u32,
}

/// The starter's only line.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Line {
    Ready {
        /// The clients' connection file.
        client: PathBuf,
        engines: u32,
    },
    Error(String),
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Cluster({} engines)", self.engines)
    }
}

impl Cluster {
    /// Starts a controller, a compiler and so many engines; returns when they are ready.
    ///
    /// # Errors
    /// When the program `chorus` is not there or fails, in its words.
    pub fn start(engines: u32) -> Result<Cluster, Error> {
        let program = std::env::var_os(PROGRAM)
            .filter(|program| !program.is_empty())
            .unwrap_or_else(|| "chorus".into());
        Cluster::start_by(&program, engines)
    }

    fn start_by(program: &OsStr, engines: u32) -> Result<Cluster, Error> {
        let failed = |reason: String| Error::Start { reason };
        let mut starter = Command::new(program)
            .args(["cluster", "start", "--tied", "--engines"])
            .arg(engines.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| {
                failed(format!(
                    "{} can't be run: {error}. Install it with `cargo install --locked --path kernel` in Chorus's repository, or name it with \
                     the environment variable {PROGRAM}",
                    program.display()
                ))
            })?;
        let mut line = String::new();
        if let Some(stdout) = starter.stdout.take() {
            BufReader::new(stdout)
                .read_line(&mut line)
                .map_err(|error| failed(error.to_string()))?;
        }
        match serde_json::from_str::<Line>(&line) {
            Ok(Line::Ready { client, engines }) => Ok(Cluster {
                starter,
                file: client,
                engines,
            }),
            Ok(Line::Error(reason)) => {
                // It ends by itself; its words are what there is to tell.
                let _ = starter.wait();
                Err(failed(reason))
            }
            Err(_) => {
                drop(starter.stdin.take());
                let status = starter.wait().map_err(|error| failed(error.to_string()))?;
                Err(failed(format!(
                    "{} is no `chorus` that this program could use: it said {:?} and ended with {status}",
                    program.display(),
                    line.trim_end()
                )))
            }
        }
    }

    /// A client of this cluster.
    ///
    /// # Errors
    /// When it has ended meanwhile.
    pub fn connect(&self) -> Result<Client, Error> {
        Client::from_connection_file(&self.file)
    }

    /// The connection file, for clients in other programs, Python's for example.
    pub fn connection_file(&self) -> &std::path::Path {
        &self.file
    }
}

impl Drop for Cluster {
    /// Returns when the cluster's processes have ended.
    fn drop(&mut self) {
        drop(self.starter.stdin.take());
        // There is nobody to tell.
        let _ = self.starter.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_is_no_chorus_is_named() {
        for (program, says) in [
            ("/nowhere/chorus", "cargo install"),
            ("/bin/true", "no `chorus`"),
        ] {
            let error = Cluster::start_by(program.as_ref(), 1)
                .unwrap_err()
                .to_string();
            assert!(error.contains(program) && error.contains(says), "{error}");
        }
    }
}
