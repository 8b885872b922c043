//! Compiling: from (lineage, source) to shared objects and the next lineage, and nothing else.
//!
//! A lineage names a compile-time state by its contents ([`summary`](crate::summary)). What was compiled once is on disk ([`store`]) and
//! is found there without evcxr, by any process. Everything else goes to a thread with evcxr ([`workshop`]), where the states are that
//! were needed last; others are restored from the snippets that led to them.

mod analysis;
mod answers;
pub(crate) mod commands;
mod configuration;
mod context;
mod local;
mod recent;
mod store;
mod ticket;
mod workshop;

use crate::activity::{Activity, Phase};
use crate::bench::{Settings, Toolchain};
use crate::crates::{Crates, Sources};
use crate::diagnostics::{self, Diagnostic};
use crate::inputs;
use crate::sources::{self, Cell, Cells, Label, Place, Source};
pub use crate::summary::ROOT;
use crate::support::{self, Support, SupportError};
use crate::{rewrite, toolchain};
pub use answers::{Completion, Completions, Documentation};
pub use configuration::{configuration, has_configuration};
use recent::Recent;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, mpsc};
use std::time::{Duration, Instant};
use store::Store;
pub use store::{Next, Owner};
pub use ticket::Ticket;
use workshop::{Fresh, Job, Task, Told, Workshop};

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
    /// Whose snippets these are.
    pub owner: Owner,
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

/// A snippet to compile.
#[derive(Clone, Debug)]
pub struct Request {
    /// The state to compile it in.
    pub lineage: String,
    /// Its text.
    pub source: Source,
    /// The execution count of a notebook's cell.
    pub count: Option<u32>,
}

/// A snippet that was compiled. It has not run.
#[derive(Clone, Debug)]
pub struct Made {
    /// The shared object to load and run, if there is something to run.
    pub load: Option<PathBuf>,
    /// The function to call in it.
    pub entry: &'static str,
    /// The lineages that it can lead to.
    pub next: Next,
    /// What its commands show, by media type.
    pub shown: BTreeMap<String, String>,
    /// Whether its last expression is its result.
    pub ends_in_expression: bool,
    /// Variables that are given up, since the snippet defines anew what their values are made of.
    pub lost: Vec<String>,
    /// Whether the runtime has to begin anew before it.
    pub restarts: bool,
    /// For another toolchain the runtime has to begin anew with this.
    pub support: Option<Support>,
    /// Whether the same snippet may come to something else the next time: its compile read files or the environment, or a command acts on the outside.
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

/// A line of a snippet for engines: of the one that was run, or of an earlier one that has defined what panicked.
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

/// A handle; clones share the compiler. Its methods block for as long as a compile takes.
#[derive(Clone, Debug)]
pub struct Lineages {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    owner: Owner,
    store: Store,
    support: Support,
    jobs: mpsc::Sender<Job>,
    failures: Mutex<Recent<(Instant, Failure)>>,
    cells: Arc<Cells>,
    /// Where a notebook has its shared objects by other names: closures of its cells are loaded from them for as long as it lives.
    pinned: Option<PathBuf>,
    completes: Arc<AtomicBool>,
    failed: Arc<OnceLock<String>>,
    activity: Activity,
}

impl Lineages {
    /// Prepares the toolchain, and has evcxr start behind it: what was compiled before does not wait for evcxr.
    ///
    /// # Errors
    /// When there is no toolchain, or no place to keep anything.
    pub fn open(options: Options) -> Result<Lineages, StartError> {
        let (found, toolchain) = mpsc::channel();
        let settings = Settings {
            folder: options.folder.clone(),
            executable: options.executable.clone(),
            toolchain,
            support_source: options.support_source,
            crates: options.crates,
            activity: options.activity.clone(),
        };
        let (stores, opened) = mpsc::channel::<Store>();
        let (jobs, queue) = mpsc::channel();
        let completes = Arc::new(AtomicBool::new(false));
        let failed = Arc::new(OnceLock::new());
        let told = Told {
            completes: Arc::clone(&completes),
            failed: Arc::clone(&failed),
        };
        let is_notebook = options.owner == Owner::Notebook;
        // evcxr starts while the toolchain is looked at.
        std::thread::Builder::new()
            .name("evcxr".into())
            // rust-analyzer recurses deeply on deeply nested code.
            .stack_size(64 << 20)
            .spawn(move || {
                workshop::serve(settings, &opened, &queue, is_notebook, &told);
                drop(options.working);
            })
            .map_err(StartError::Thread)?;
        let rustc = toolchain::rustc();
        let support = support::ensure(&rustc, options.support_source)?;
        let crates = Crates::new(options.crates, rustc.clone());
        let identity = identity(&support, &options.executable, &crates);
        let open = |folder: PathBuf| {
            Store::open(folder.clone(), &identity, options.limit)
                .map_err(|source| StartError::Store { folder, source })
        };
        let store = open(options.store).or_else(|error| {
            tracing::warn!(%error, "compiled snippets are kept for this session only");
            open(options.folder.join("snippets"))
        })?;
        // Should the thread have ended already, the first snippet says why.
        let _ = stores.send(store.clone());
        let _ = found.send(Toolchain {
            rustc,
            support: support.clone(),
        });
        Ok(Lineages {
            shared: Arc::new(Shared {
                owner: options.owner,
                store,
                support,
                jobs,
                failures: Mutex::new(Recent::new(FAILURES)),
                cells: Arc::default(),
                pinned: is_notebook.then(|| options.folder.join("loads")),
                completes,
                failed,
                activity: options.activity,
            }),
        })
    }

    /// What runtimes load first.
    pub fn support(&self) -> &Support {
        &self.shared.support
    }

    /// Compiles a snippet, if that has not been done. Whoever gives the ticket up gets an error that nobody is to see.
    ///
    /// # Errors
    /// Says why the snippet does not compile. Nothing has changed.
    pub fn compile(&self, request: &Request, ticket: &Ticket) -> Result<Made, Failure> {
        let Fresh {
            record,
            made,
            support,
        } = self.find_or_make(request, ticket)?;
        let load = match &record.artifact {
            Some(name) => Some(self.pin(name)),
            None => made,
        };
        if let Some(count) = request.count {
            self.shared.cells.add(self.cell(request, Label::In(count)));
        }
        Ok(Made {
            load,
            entry: rewrite::ENTRY,
            next: record.next,
            shown: record.shown,
            ends_in_expression: record.ends_in_expression,
            lost: record.lost,
            restarts: record.restarts,
            support,
            reads: record.reads,
        })
    }

    /// Where a shared object of the store is loaded from, so that it is not swept from there.
    fn pin(&self, name: &str) -> PathBuf {
        let load = self.shared.store.artifact(name);
        let Some(pinned) = &self.shared.pinned else {
            return load;
        };
        let path = pinned.join(name).with_extension("so");
        let pin = || {
            std::fs::create_dir_all(pinned)?;
            // The temporary folder may be on another disk.
            std::fs::hard_link(&load, &path).or_else(|_| std::fs::copy(&load, &path).map(drop))
        };
        if !path.exists()
            && let Err(error) = pin()
        {
            tracing::warn!(%error, "a shared object may be swept while it is used");
            return load;
        }
        path
    }

    /// What is true after an engine's snippet that was compiled ended early; `location` is the panic's: file and line.
    ///
    /// # Errors
    /// See [`compile`](Lineages::compile).
    pub fn after_early_end(
        &self,
        request: &Request,
        location: Option<(&str, u32)>,
    ) -> Result<Aftermath, Failure> {
        let fresh = self.find_or_make(request, &Ticket::default())?;
        Ok(Aftermath {
            lineage: fresh.record.next.early,
            place: location.and_then(|(file, line)| self.locate_on_engine(request, file, line)),
        })
    }

    /// The lineage of a state without these variables, or without any.
    ///
    /// # Errors
    /// When the lineage is not known.
    pub fn without(&self, lineage: &str, variables: Option<&[String]>) -> Result<String, Failure> {
        let (from, variables) = (lineage.to_owned(), variables.map(<[String]>::to_vec));
        self.ask(Phase::Snippet, &Ticket::default(), move |workshop| {
            workshop.without(&from, variables.as_deref())
        })?
    }

    /// The variables of a state and their types. What is in the store takes no evcxr.
    pub fn variables(&self, lineage: &str) -> BTreeMap<String, String> {
        if let Some(step) = self.shared.store.step(lineage) {
            let variables = step.variables.into_iter();
            return variables
                .map(|(name, variable)| (name, variable.kind))
                .collect();
        }
        // The root has none.
        if lineage == ROOT {
            return BTreeMap::new();
        }
        let lineage = lineage.to_owned();
        let asked = self.ask(Phase::Snippet, &Ticket::default(), move |workshop| {
            workshop.state(&lineage).map(|state| state.summary.kinds())
        });
        asked.ok().and_then(Result::ok).unwrap_or_default()
    }

    /// Suggestions for the byte `position` of a text in the state of a lineage.
    ///
    /// # Errors
    /// When the lineage is not known.
    pub fn complete(
        &self,
        lineage: &str,
        text: &str,
        position: usize,
        ticket: &Ticket,
    ) -> Result<Completions, Failure> {
        let (lineage, text) = (lineage.to_owned(), text.to_owned());
        self.ask(Phase::Snippet, ticket, move |workshop| {
            let state = workshop.state(&lineage)?;
            Ok(workshop.complete(&state, &text, position))
        })?
    }

    /// What is known of the name that ends at the byte `position` of a text in the state of a lineage.
    ///
    /// # Errors
    /// When the lineage is not known.
    pub fn inspect(
        &self,
        lineage: &str,
        text: &str,
        position: usize,
        ticket: &Ticket,
    ) -> Result<Option<Documentation>, Failure> {
        let (lineage, text) = (lineage.to_owned(), text.to_owned());
        self.ask(Phase::Snippet, ticket, move |workshop| {
            let state = workshop.state(&lineage)?;
            Ok(workshop.inspect(&state, &text, position))
        })?
    }

    /// Whether completions come as fast as they will; the first of all takes longer.
    pub fn completes(&self) -> bool {
        self.shared.completes.load(Ordering::Relaxed)
    }

    /// What the compiler is doing.
    pub fn activity(&self) -> &Activity {
        &self.shared.activity
    }

    /// The line of a notebook's cell behind a location in generated code.
    pub fn locate(&self, file: &str, line: u32) -> Option<Place> {
        let number = sources::number(file)?;
        let generated = self.shared.store.generated(number)?;
        self.shared.cells.locate(number, &generated, line)
    }

    fn locate_on_engine(&self, request: &Request, file: &str, line: u32) -> Option<Line> {
        let number = sources::number(file)?;
        let store = &self.shared.store;
        let generated = store.generated(number)?;
        let mut own = self.cell(request, Label::Snippet);
        own.number = number;
        let cells = std::iter::once(own).chain(store.earlier(&request.lineage));
        let cells: Vec<Cell> = cells.collect();
        let (cell, number, text) = sources::place(&generated, line, cells.iter())?;
        Some(Line {
            number,
            text: text.to_owned(),
            own: cell.label == Label::Snippet,
        })
    }

    fn cell(&self, request: &Request, label: Label) -> Cell {
        let code = normalised(&request.source.code);
        let Shared { store, owner, .. } = &*self.shared;
        Cell {
            number: store.number(&request.lineage, code, owner.of(code)),
            label,
            source: request.source.code.clone(),
            shown: request.source.shown.clone(),
        }
    }

    fn find_or_make(&self, request: &Request, ticket: &Ticket) -> Result<Fresh, Failure> {
        let Shared { store, owner, .. } = &*self.shared;
        let source = &request.source.code;
        let key = owner.of(source);
        if let Some(record) = store.record(&request.lineage, normalised(source), key) {
            return Ok(Fresh {
                record,
                made: None,
                support: None,
            });
        }
        let name = format!("{}\0{source}", request.lineage);
        if let Some((when, failure)) = self.failures().get(&name)
            && when.elapsed() < FAILURES_KEPT
        {
            return Err(failure);
        }
        let is_notebook = *owner == Owner::Notebook;
        let label = match request.count {
            Some(count) => Label::In(count),
            None => Label::Snippet,
        };
        let task = Task {
            lineage: request.lineage.clone(),
            owner: *owner,
            cell: self.cell(request, label),
            cells: is_notebook.then(|| Arc::clone(&self.shared.cells)),
        };
        let outcome = self.ask(Phase::of(source), ticket, move |workshop| {
            workshop.compile(&task)
        })?;
        // What a command does, or reads, may go well the next time. A notebook's errors name the cell.
        if let Err(failure @ Failure::Errors(_)) = &outcome
            && !is_notebook
            && crate::statements::code_start(normalised(source)) == 0
            && !crate::facts::words(source).any(|word| READERS.contains(&word))
        {
            let now = Instant::now();
            self.failures().insert(name, (now, failure.clone()));
        }
        outcome
    }

    fn failures(&self) -> std::sync::MutexGuard<'_, Recent<(Instant, Failure)>> {
        let failures = self.shared.failures.lock();
        failures.unwrap_or_else(PoisonError::into_inner)
    }

    /// Has the thread of evcxr do something, and waits for it.
    fn ask<T: Send + 'static>(
        &self,
        phase: Phase,
        ticket: &Ticket,
        work: impl FnOnce(&mut Workshop) -> T + Send + 'static,
    ) -> Result<T, Failure> {
        let (answer, answered) = mpsc::channel();
        let job = Job {
            phase,
            ticket: ticket.clone(),
            // Nobody waits when the compiler ends.
            work: Box::new(move |workshop| drop(answer.send(work(workshop)))),
        };
        let sent = self.shared.jobs.send(job).is_ok();
        match answered.recv() {
            Ok(answer) => Ok(answer),
            Err(_) => Err(match self.shared.failed.get() {
                Some(reason) => Failure::Refused(reason.clone()),
                None if sent => Failure::Panicked("no answer".to_owned()),
                None => Failure::Refused("the compiler's thread has ended".to_owned()),
            }),
        }
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
