//! Compiling for a cluster's engines: from (lineage, source) to shared objects and the next lineage, and nothing else.
//!
//! A lineage names a compile-time state by its contents ([`summary`]). What was compiled once is on disk ([`store`]) and
//! is found there without evcxr, by any process. Everything else goes to a thread with evcxr ([`workshop`]), where the states are that
//! were needed last; one that is not is compiled again from the snippets that led to it.

pub(crate) mod commands;
mod local;
mod recent;
mod state;
mod store;
mod workshop;

use crate::activity::Activity;
use crate::bench::{Settings, Toolchain};
use crate::crates::{Crates, Sources};
use crate::diagnostics::{self, Diagnostic};
use crate::inputs;
use crate::sources::{self, Cell, Label};
pub use crate::summary::ROOT;
use crate::support::{self, Support, SupportError};
use crate::{rewrite, toolchain};
use recent::Recent;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::{Duration, Instant};
use store::{Ending, Record, Store};
use workshop::{Fresh, Job};

/// Compile errors that are remembered, and for how long: engines ask for the same snippet one after another.
const FAILURES: usize = 32;
/// Macros that read what may be there the next time.
const READERS: &[&str] = &[
    "include",
    "include_str",
    "include_bytes",
    "env",
    "option_env",
];
const FAILURES_KEPT: Duration = Duration::from_secs(1);

/// What [`Lineages`] needs to know.
#[derive(Clone, Debug)]
pub struct Options {
    /// A folder of this process's own. evcxr works in it (`EVCXR_TMPDIR` names it).
    pub folder: PathBuf,
    /// Where compiled snippets are kept, for other processes too.
    pub store: PathBuf,
    /// How large that may become, in bytes.
    pub limit: u64,
    /// The `chorus` binary.
    pub executable: PathBuf,
    /// The support library's source.
    pub support_source: &'static str,
    /// The crate `chorus`.
    pub crates: Sources,
    /// Tells what the compiler is doing.
    pub activity: Activity,
    /// Kept by evcxr's thread to its end, until which it may write into `folder`.
    pub working: mpsc::Sender<()>,
}

/// Why there is no compiler.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// No support library.
    #[error(transparent)]
    Support(#[from] SupportError),
    /// Compiled snippets can't be kept.
    #[error("failed to keep compiled snippets in {folder}: {source}")]
    Store {
        /// The folder.
        folder: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// No thread.
    #[error("failed to start evcxr's thread: {0}")]
    Thread(io::Error),
}

/// A snippet that was compiled. It has not run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Made {
    /// Shared objects to load and run, in order; none if there is nothing to run.
    pub loads: Vec<PathBuf>,
    /// The function to call in each.
    pub entry: &'static str,
    /// The lineage when it has run to its end.
    pub lineage: String,
    /// What its commands show, by media type.
    pub shown: BTreeMap<String, String>,
    /// Whether its last expression is its result.
    pub ends_in_expression: bool,
    /// Variables that are given up, since the snippet defines anew what their values are made of.
    pub lost: Vec<String>,
    /// Whether the compile read files or the environment, which may change: the same snippet may then come to something else.
    pub reads: bool,
}

/// What is true after a snippet that ended early, by a panic or a `?`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Aftermath {
    /// The lineage then.
    pub lineage: String,
    /// Where the panic is in what was written.
    pub place: Option<Line>,
}

/// A line of a snippet: of the one that was run, or of an earlier one that has defined what panicked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Its number, from 1.
    pub number: usize,
    /// Its text.
    pub text: String,
    /// Whether it is the snippet that was run.
    pub own: bool,
}

/// Why a snippet was not compiled. Nothing has changed.
#[derive(Clone, Debug)]
pub enum Failure {
    /// rustc's errors, or an error in a command.
    Errors(Vec<Diagnostic>),
    /// evcxr's own refusal, in its words.
    Refused(String),
    /// evcxr or rust-analyzer panicked.
    Panicked(String),
    /// Nobody here has ever heard of this lineage.
    UnknownLineage(String),
    /// The way to this lineage can't be gone again.
    LostLineage {
        /// The lineage.
        lineage: String,
        /// What happened on the way.
        why: Option<String>,
    },
}

impl Failure {
    /// What happened, in a line without colours.
    fn headline(&self) -> String {
        match self {
            Failure::Errors(errors) => errors
                .first()
                .map(|error| error.message.clone())
                .unwrap_or_else(|| "the snippet did not compile".to_owned()),
            Failure::Refused(message) => message.clone(),
            Failure::Panicked(message) => format!(
                "evcxr could not deal with this snippet ({message}); try to write it another way, or in smaller snippets"
            ),
            Failure::UnknownLineage(_) => {
                "the compiler does not know what this engine has run: what was kept of it is gone, or another \
                 version of Chorus compiled it; begin anew with `%px :clear`"
                    .to_owned()
            }
            Failure::LostLineage { why, .. } => format!(
                "what this engine has run can't be compiled again ({}); begin anew with `%px :clear`",
                why.as_deref().unwrap_or("it comes to something else now")
            ),
        }
    }

    /// The same as compile errors.
    pub fn into_diagnostics(self) -> Vec<Diagnostic> {
        match self {
            Failure::Errors(errors) => errors,
            other => vec![diagnostics::plain(&other.headline())],
        }
    }
}

/// See the module's page.
#[derive(Debug)]
pub struct Lineages {
    store: Store,
    support: Support,
    jobs: mpsc::Sender<Job>,
    failures: Recent<(Instant, Failure)>,
}

impl Lineages {
    /// Prepares the toolchain, and has evcxr start behind it: what was compiled before does not wait for evcxr.
    pub fn open(options: Options) -> Result<Lineages, StartError> {
        let (found, toolchain) = mpsc::channel();
        let settings = Settings {
            folder: options.folder,
            executable: options.executable.clone(),
            toolchain,
            support_source: options.support_source,
            crates: options.crates,
            activity: options.activity,
        };
        let (stores, opened) = mpsc::channel::<Store>();
        let (jobs, queue) = mpsc::channel();
        // evcxr starts while the toolchain is looked at.
        std::thread::Builder::new()
            .name("evcxr".into())
            // rust-analyzer recurses deeply on deeply nested code.
            .stack_size(64 << 20)
            .spawn(move || {
                workshop::serve(settings, &opened, &queue);
                drop(options.working);
            })
            .map_err(StartError::Thread)?;
        let rustc = toolchain::rustc();
        let support = support::ensure(&rustc, options.support_source)?;
        let crates = Crates::new(options.crates, rustc.clone());
        let identity = identity(&support, &options.executable, &crates);
        let store =
            Store::open(options.store.clone(), &identity, options.limit).map_err(|source| {
                StartError::Store {
                    folder: options.store,
                    source,
                }
            })?;
        // Should the thread have ended already, the first snippet says why.
        let _ = stores.send(store.clone());
        let _ = found.send(Toolchain {
            rustc,
            support: support.clone(),
        });
        Ok(Lineages {
            store,
            support,
            jobs,
            failures: Recent::new(FAILURES),
        })
    }

    /// What runtimes load first.
    pub fn support(&self) -> &Support {
        &self.support
    }

    /// Compiles a snippet in the state of a lineage, if that has not been done.
    pub fn compile(&mut self, lineage: &str, source: &str) -> Result<Made, Failure> {
        let fresh = self.find_or_make(lineage, source, Ending::Completed)?;
        let Record {
            next,
            shown,
            ends_in_expression,
            lost,
            reads,
            ..
        } = fresh.record;
        Ok(Made {
            loads: fresh.loads,
            entry: rewrite::ENTRY,
            lineage: next,
            shown,
            ends_in_expression,
            lost,
            reads,
        })
    }

    /// What is true after a snippet that was compiled ended early; `location` is the panic's: file and line.
    pub fn after_early_end(
        &mut self,
        lineage: &str,
        source: &str,
        location: Option<(&str, u32)>,
    ) -> Result<Aftermath, Failure> {
        let fresh = self.find_or_make(lineage, source, Ending::Early)?;
        Ok(Aftermath {
            lineage: fresh.record.next,
            place: location.and_then(|(file, line)| self.locate(lineage, source, file, line)),
        })
    }

    fn locate(&self, lineage: &str, source: &str, file: &str, line: u32) -> Option<Line> {
        let number = sources::number(file)?;
        let generated = self.store.generated(number)?;
        let own = Cell {
            number,
            label: Label::Snippet,
            source: source.to_owned(),
            shown: None,
        };
        let cells = std::iter::once(own).chain(self.store.earlier(lineage));
        let cells: Vec<Cell> = cells.collect();
        let (cell, number, text) = sources::place(&generated, line, cells.iter())?;
        Some(Line {
            number,
            text: text.to_owned(),
            own: cell.label == Label::Snippet,
        })
    }

    fn find_or_make(
        &mut self,
        lineage: &str,
        source: &str,
        ending: Ending,
    ) -> Result<Fresh, Failure> {
        if let Some(record) = self.store.record(lineage, normalised(source), ending) {
            let loads = record
                .artifacts
                .iter()
                .map(|name| self.store.artifact(name))
                .collect();
            return Ok(Fresh { record, loads });
        }
        let name = format!("{lineage}\0{ending:?}\0{source}");
        if let Some((when, failure)) = self.failures.get(&name)
            && when.elapsed() < FAILURES_KEPT
        {
            return Err(failure);
        }
        let (answer, answered) = mpsc::channel();
        let job = Job {
            lineage: lineage.to_owned(),
            source: source.to_owned(),
            ending,
            answer,
        };
        let ended = || Failure::Refused("the compiler's thread has ended".to_owned());
        self.jobs.send(job).map_err(|_| ended())?;
        let outcome = answered.recv().unwrap_or_else(|_| Err(ended()));
        // What a command does, or reads, may go well the next time.
        if let Err(failure @ Failure::Errors(_)) = &outcome
            && crate::statements::code_start(normalised(source)) == 0
            && !crate::facts::words(source).any(|word| READERS.contains(&word))
        {
            let now = Instant::now();
            self.failures.insert(name, (now, failure.clone()));
        }
        outcome
    }
}

/// Without blank lines around it, which change nothing.
fn normalised(source: &str) -> &str {
    let start = source
        .split_inclusive('\n')
        .take_while(|line| line.trim().is_empty())
        .map(str::len)
        .sum();
    source.get(start..).unwrap_or_default().trim_end()
}

/// All that decides what a compile gives, besides lineage and source: toolchain and support library, this program, the crates that go
/// with it, and evcxr's configuration.
fn identity(support: &Support, executable: &Path, crates: &Crates) -> String {
    let mut hash = Sha256::new();
    // Its name says which toolchain it is for.
    let toolchain = support.folder.to_string_lossy();
    hash.update(&*toolchain);
    hash.update(crates.identity(&toolchain));
    let about = |path: &Path| {
        let metadata = std::fs::metadata(path).ok()?;
        Some((metadata.len(), metadata.modified().ok()?))
    };
    hash.update(format!("{:?}", about(executable)));
    hash.update(format!("{:?}", inputs::cargo_environment()));
    let configured = evcxr::config_dir().map(|folder| folder.join("evcxr.toml"));
    for path in [Some("evcxr.toml".into()), configured]
        .into_iter()
        .flatten()
    {
        hash.update(std::fs::read(path).unwrap_or_default());
        hash.update([0]);
    }
    hex::encode(hash.finalize())
}

#[cfg(test)]
mod tests {
    use super::normalised;

    #[test]
    fn blank_lines_around_do_not_matter() {
        for (source, bare) in [
            ("\n  \n  1 + 1\n\n2\n \n", "  1 + 1\n\n2"),
            ("1", "1"),
            ("", ""),
            ("\n \n", ""),
        ] {
            assert_eq!(normalised(source), bare);
        }
    }
}
