//! Stand-alone programs, whose closures run in runtimes of their own.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::{Effect, RuntimeId, RuntimeState, StartRuntime};

/// Programs that are kept running, so that those who use several by turns do not wait for each anew.
const PROGRAM_LIMIT: usize = 4;

/// A version of a stand-alone program: built anew, it is another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Program {
    device: u64,
    inode: u64,
    /// When it was written, in seconds and nanoseconds.
    modified: (i64, i64),
}

impl Program {
    /// Returns the program at this path.
    ///
    /// # Errors
    /// When there is no such file.
    pub fn at(path: &Path) -> io::Result<Self> {
        let metadata = std::fs::metadata(path)?;
        Ok(Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
        })
    }
}

/// The programs that have a runtime or wait for one.
#[derive(Debug, Default)]
pub(super) struct Programs {
    /// The last used one is the last.
    runtimes: Vec<(Program, RuntimeState)>,
}

impl Programs {
    fn position(&self, program: Program) -> Option<usize> {
        let mut runtimes = self.runtimes.iter();
        runtimes.position(|(known, _)| *known == program)
    }

    /// Whether the program's runtime is there. Otherwise it is started, in the place of the one that was used least lately.
    pub(super) fn is_ready(
        &mut self,
        program: Program,
        path: &Path,
        effects: &mut Vec<Effect>,
    ) -> bool {
        match self.position(program) {
            Some(at) => {
                if at + 1 < self.runtimes.len() {
                    let used = self.runtimes.remove(at);
                    self.runtimes.push(used);
                }
            }
            None => {
                if self.runtimes.len() == PROGRAM_LIMIT {
                    let (oldest, _) = self.runtimes.remove(0);
                    effects.push(Effect::StopRuntime(RuntimeId::Program(oldest)));
                }
                self.runtimes.push((program, RuntimeState::Starting));
                effects.push(Effect::StartRuntime(StartRuntime::Program {
                    program,
                    path: path.to_owned(),
                }));
            }
        }
        let last = self.runtimes.last();
        last.is_some_and(|(_, state)| *state == RuntimeState::Ready)
    }

    /// The program's runtime was started. False if others have taken its place meanwhile.
    pub(super) fn started(&mut self, program: Program) -> bool {
        let at = self.position(program);
        match at.and_then(|at| self.runtimes.get_mut(at)) {
            Some((_, state)) => {
                *state = RuntimeState::Ready;
                true
            }
            None => false,
        }
    }

    /// Its processes have gone, or did not start.
    pub(super) fn forget(&mut self, program: Program) {
        self.runtimes.retain(|(known, _)| *known != program);
    }
}
