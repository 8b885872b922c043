//! Runtimes of stand-alone programs: a closure of a program's own executable can run nowhere else, since no other process can load that
//! file. So the engine starts the program anew, as a runtime: the crate `chorus` in it sees to that before its `main`.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

use protocol::message::ErrorInfo;
use runtime::{Event, Runtime};

use super::namespace::Running;
use crate::failure;

/// Programs that are kept running: who works with several by turns doesn't wait for each anew.
const MOST: usize = 4;

/// A version of a program: built anew, it is another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Program {
    device: u64,
    inode: u64,
    /// When it was written, in seconds and nanoseconds.
    modified: (i64, i64),
}

impl Program {
    /// The one at this path.
    pub(super) fn at(path: &Path) -> Result<Self, ErrorInfo> {
        let metadata = std::fs::metadata(path).map_err(|error| {
            failure::plain(
                "not run",
                format!(
                    "The program {} cannot be started as an engine's runtime: {error}. Was it moved or built anew since it started?",
                    path.display()
                ),
            )
        })?;
        Ok(Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
        })
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Programs {
    /// The last used one is the last.
    running: Vec<(Program, Running)>,
}

impl Programs {
    /// The program's runtime, if it is there.
    pub(super) fn get(&mut self, program: Program) -> Option<&mut Running> {
        let mut running = self.running.iter_mut();
        let (_, found) = running.find(|(known, _)| *known == program)?;
        Some(found)
    }

    /// Starts the program's runtime, if it isn't there. `command` runs the program.
    pub(super) async fn start(
        &mut self,
        program: Program,
        command: Command,
        checkpoint_limit: u64,
    ) -> Result<(), ErrorInfo> {
        if let Some(at) = self.running.iter().position(|(known, _)| *known == program) {
            let last = self.running.remove(at);
            self.running.push(last);
            return Ok(());
        }
        let name = command.get_program().to_owned();
        let mut config = runtime::Config::of_program(command);
        config.checkpoint_limit = checkpoint_limit;
        let started = Runtime::start(config).await;
        let (runtime, events) = started.map_err(|error| {
            failure::plain(
                "not run",
                format!(
                    "The program {} did not start as an engine's runtime: {error}. It has to be linked to the crate `chorus` with the feature \
                     `client`, in the version that the engine is of ({}), and to run on this machine.",
                    Path::new(&name).display(),
                    env!("CARGO_PKG_VERSION")
                ),
            )
        })?;
        if self.running.len() == MOST {
            let (_, oldest) = self.running.remove(0);
            oldest.runtime.shutdown().await;
        }
        self.running.push((program, Running { runtime, events }));
        Ok(())
    }

    /// Forgets one whose processes have gone.
    pub(super) fn forget(&mut self, program: Program) {
        self.running.retain(|(known, _)| *known != program);
    }

    /// What happens while no call runs, threads' output for the most part; never resolves if there is no program.
    pub(super) async fn idle(&mut self) -> Event {
        std::future::poll_fn(|context| {
            let mut at = 0;
            while let Some((_, running)) = self.running.get_mut(at) {
                match running.events.poll_recv(context) {
                    std::task::Poll::Ready(Some(event)) => return std::task::Poll::Ready(event),
                    std::task::Poll::Ready(None) => drop(self.running.remove(at)),
                    std::task::Poll::Pending => at += 1,
                }
            }
            std::task::Poll::Pending
        })
        .await
    }

    pub(super) async fn shutdown(self) {
        for (_, running) in self.running {
            running.runtime.shutdown().await;
        }
    }
}
