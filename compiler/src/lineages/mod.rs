//! Compiling: from (lineage, source) to shared objects and the next lineage, and nothing else.
//!
//! A lineage names a compile-time state by its contents ([`summary`](crate::summary)). What was compiled once is on disk ([`store`]) and
//! is found there without evcxr, by any process. Everything else goes to whoever has evcxr ([`Compiler`]): a thread ([`thread`]), of this process or of
//! another. There ([`workshop`]) the states are that were needed last; others are restored from the snippets that led to them.

mod amending;
mod analysis;
mod answers;
mod ask;
pub(crate) mod commands;
mod configuration;
mod context;
mod local;
mod recent;
mod store;
mod thread;
mod ticket;
mod workshop;

use crate::crates::{Crates, Sources};
use crate::diagnostics::{self, Diagnostic, Reported};
use crate::inputs;
use crate::sources::{self, Cell, Cells, Label, Place, Source};
pub use crate::summary::ROOT;
use crate::support::{self, Support, SupportError};
use crate::{rewrite, toolchain};
pub use answers::{Completion, Completions, Documentation};
use ask::Text;
pub use ask::{Answer, Ask, Fresh, Refused, Task};
pub use commands::{At, Local, take_local};
pub use configuration::{configuration, has_configuration};
use recent::Recent;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};
pub use store::{Next, Owner};
use store::{Record, Store};
pub use thread::{Compiler, Thread};
pub use ticket::Ticket;

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

/// What all compilers of a program have in common.
#[derive(Clone, Debug)]
pub struct Options {
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
}

/// The toolchain, and what was compiled by it. Other processes can be given it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Base {
    rustc: PathBuf,
    support: Support,
    store: Store,
}

impl Base {
    /// Prepares the toolchain, and opens the store; one in `session` if the user's cannot be written to. It takes no evcxr.
    ///
    /// # Errors
    /// When there is no toolchain, or no place to keep anything.
    pub fn prepare(options: &Options, session: &Path) -> Result<Base, StartError> {
        Base::prepare_in(options).or_else(|error| match error {
            StartError::Store { .. } => {
                tracing::warn!(%error, "compiled snippets are kept for this session only");
                Base::prepare_in(&Options {
                    store: session.join("snippets"),
                    ..options.clone()
                })
            }
            error => Err(error),
        })
    }

    fn prepare_in(options: &Options) -> Result<Base, StartError> {
        let rustc = toolchain::rustc();
        let support = support::ensure(&rustc, options.support_source)?;
        let crates = Crates::new(options.crates, rustc.clone());
        let identity = identity(&support, &options.executable, &crates);
        let folder = options.store.clone();
        let store = Store::open(folder.clone(), &identity, options.limit)
            .map_err(|source| StartError::Store { folder, source })?;
        Ok(Base {
            rustc,
            support,
            store,
        })
    }
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
    /// Environment variables that differ from this process's.
    pub environment: BTreeMap<String, String>,
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
    /// What a person is told of how it was compiled, a line each.
    pub notes: Vec<String>,
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
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Failure {
    /// rustc's errors, or an error in a command.
    Errors(Vec<Diagnostic>),
    /// evcxr's own refusal, in its words.
    Refused(String),
    /// evcxr or rust-analyzer panicked.
    Panicked(String),
    /// The compiler can't be asked.
    Unavailable(String),
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
            Failure::Unavailable(reason) => format!("there is no compiler: {reason}"),
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
    base: Base,
    compiler: Arc<dyn Compiler>,
    /// Where paths in commands begin.
    folder: PathBuf,
    failures: Mutex<Recent<(Instant, Failure)>>,
    /// A notebook's cells.
    cells: Cells,
    /// What was reported of the last of them that did not compile.
    last_errors: Mutex<Vec<Reported>>,
    /// Where shared objects have other names, which nobody sweeps: closures are loaded from them for as long as their owner lives.
    pinned: PathBuf,
}

impl Lineages {
    /// Lineages of an owner, who asks `compiler` for what the base's store doesn't have. Shared objects are kept in a folder of its session, too.
    pub fn new(owner: Owner, base: Base, compiler: Arc<dyn Compiler>, session: &Path) -> Lineages {
        Lineages {
            shared: Arc::new(Shared {
                owner,
                base,
                compiler,
                folder: std::env::current_dir().unwrap_or_default(),
                failures: Mutex::new(Recent::new(FAILURES)),
                cells: Cells::default(),
                last_errors: Mutex::default(),
                pinned: session.join("cache"),
            }),
        }
    }

    fn store(&self) -> &Store {
        &self.shared.base.store
    }

    /// What runtimes load first.
    pub fn support(&self) -> &Support {
        &self.shared.base.support
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
        let kept = record.artifact.as_ref();
        let load = kept.map(|name| self.store().artifact(name)).or(made);
        let load = load.map(|load| self.pin(load));
        if request.count.is_some() {
            self.shared.cells.add(self.cell(request));
        }
        Ok(Made {
            load,
            entry: rewrite::ENTRY,
            next: record.next,
            shown: record.shown,
            ends_in_expression: record.ends_in_expression,
            lost: record.lost,
            notes: record.notes,
            restarts: record.restarts,
            support,
            reads: record.reads,
        })
    }

    /// Where a shared object is loaded from, so that nobody removes it from there.
    fn pin(&self, load: PathBuf) -> PathBuf {
        let pinned = &self.shared.pinned;
        let Some(name) = load.file_name() else {
            return load;
        };
        let path = pinned.join(name);
        let pin = || {
            std::fs::create_dir_all(pinned)?;
            // The temporary folder may be on another disk.
            std::fs::hard_link(&load, &path).or_else(|_| std::fs::copy(&load, &path).map(drop))
        };
        if !path.exists()
            && let Err(error) = pin()
        {
            tracing::warn!(%error, "a shared object may be removed while it is used");
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
        let ask = Ask::Without {
            lineage: lineage.to_owned(),
            variables: variables.map(<[String]>::to_vec),
        };
        match self.ask(ask, &Ticket::default())? {
            Answer::Lineage(lineage) => Ok(lineage),
            other => Err(unexpected(&other)),
        }
    }

    /// The variables of a state and their types. What is in the store takes no evcxr.
    pub fn variables(&self, lineage: &str) -> BTreeMap<String, String> {
        if let Some(step) = self.store().step(lineage) {
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
        match self.ask(Ask::Variables { lineage }, &Ticket::default()) {
            Ok(Answer::Variables(variables)) => variables,
            _ => BTreeMap::new(),
        }
    }

    /// Has the compiler start, so that the first question doesn't wait for that.
    ///
    /// # Errors
    /// When there is none to be had.
    pub fn warm_up(&self) -> Result<(), Failure> {
        let lineage = ROOT.to_owned();
        self.ask(Ask::Variables { lineage }, &Ticket::default())
            .map(drop)
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
        let text = Text {
            lineage: lineage.to_owned(),
            text: text.to_owned(),
            position,
        };
        match self.ask(Ask::Complete(text), ticket)? {
            Answer::Completions(completions) => Ok(completions),
            other => Err(unexpected(&other)),
        }
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
        let text = Text {
            lineage: lineage.to_owned(),
            text: text.to_owned(),
            position,
        };
        match self.ask(Ask::Inspect(text), ticket)? {
            Answer::Documentation(documentation) => Ok(documentation),
            other => Err(unexpected(&other)),
        }
    }

    /// What `rustc --explain` says of the errors of the notebook's last cell that did not compile; `None` if there was none, or rustc says nothing.
    pub fn explain(&self) -> Option<String> {
        let errors = self.last_errors();
        let explained: Option<String> = errors.iter().map(Reported::explanation).collect();
        explained.filter(|_| !errors.is_empty())
    }

    /// What rustc reported of the notebook's last cell that did not compile, as JSON, a line each.
    pub fn last_errors_as_json(&self) -> String {
        let errors = self.last_errors();
        errors
            .iter()
            .map(|error| format!("{}\n", error.json))
            .collect()
    }

    fn last_errors(&self) -> std::sync::MutexGuard<'_, Vec<Reported>> {
        let errors = self.shared.last_errors.lock();
        errors.unwrap_or_else(PoisonError::into_inner)
    }

    /// The execution count of the notebook's cell that a generated file was made for.
    pub fn cell_of(&self, file: &str) -> Option<u32> {
        self.shared.cells.count(sources::number(file)?)
    }

    /// The line of a notebook's cell behind a location in generated code.
    pub fn locate(&self, file: &str, line: u32) -> Option<Place> {
        let number = sources::number(file)?;
        let generated = self.store().generated(number)?;
        self.shared.cells.locate(number, &generated, line)
    }

    fn locate_on_engine(&self, request: &Request, file: &str, line: u32) -> Option<Line> {
        let number = sources::number(file)?;
        let generated = self.store().generated(number)?;
        let mut own = self.cell(request);
        own.number = number;
        let cells = std::iter::once(own).chain(self.store().earlier(&request.lineage));
        let cells: Vec<Cell> = cells.collect();
        let (cell, number, text) = sources::place(&generated, line, cells.iter())?;
        Some(Line {
            number,
            text: text.to_owned(),
            own: cell.label == Label::Snippet,
        })
    }

    /// An error in the bytes of a cell's command.
    pub fn refusal(
        &self,
        source: &Source,
        count: u32,
        range: Range<usize>,
        message: &str,
    ) -> Failure {
        let cell = Cell {
            number: 0,
            label: Label::In(count),
            source: source.code.clone(),
            shown: source.shown.clone(),
        };
        Failure::Errors(vec![diagnostics::of_command(&cell, range, message)])
    }

    fn cell(&self, request: &Request) -> Cell {
        let code = normalised(&request.source.code);
        let owner = self.shared.owner.of(code);
        Cell {
            number: self.store().number(&request.lineage, code, owner),
            label: match request.count {
                Some(count) => Label::In(count),
                None => Label::Snippet,
            },
            source: request.source.code.clone(),
            shown: request.source.shown.clone(),
        }
    }

    fn find_or_make(&self, request: &Request, ticket: &Ticket) -> Result<Fresh, Failure> {
        let owner = self.shared.owner;
        let Request {
            lineage,
            source: Source { code, .. },
            environment,
            ..
        } = request;
        let bare = normalised(code);
        if bare.is_empty() {
            return Ok(Fresh {
                record: Record::of_nothing(lineage),
                made: None,
                support: None,
            });
        }
        let known = self
            .store()
            .record(lineage, bare, owner.of(bare), environment);
        if let Some(record) = known {
            return Ok(Fresh {
                record,
                made: None,
                support: None,
            });
        }
        let name = format!("{lineage}\0{code}");
        if let Some((when, failure)) = self.failures().get(&name)
            && when.elapsed() < FAILURES_KEPT
        {
            return Err(failure);
        }
        let cell = self.cell(request);
        let task = Task {
            lineage: lineage.clone(),
            owner,
            cell: cell.clone(),
            environment: environment.clone(),
            folder: self.shared.folder.clone(),
        };
        let began = Instant::now();
        let report = match self.shared.compiler.ask(Ask::Compile(task), ticket) {
            Ok(Answer::Compiled(fresh)) => {
                let milliseconds = began.elapsed().as_millis();
                tracing::info!(lineage, milliseconds, "compiled a snippet");
                return Ok(*fresh);
            }
            Ok(other) => return Err(unexpected(&other)),
            Err(Refused::Failure(failure)) => return Err(failure),
            Err(Refused::Report(report)) => report,
        };
        let earlier = match owner {
            Owner::Notebook => self.shared.cells.latest_first(),
            Owner::Engine => self.store().earlier(lineage),
        };
        let failure = Failure::Errors(report.diagnostics(&cell, &earlier));
        match owner {
            Owner::Notebook => *self.last_errors() = report.errors,
            // What a command does, or reads, may go well the next time.
            Owner::Engine
                if crate::statements::code_start(bare) == 0
                    && !crate::facts::words(code).any(|word| READERS.contains(&word)) =>
            {
                let now = Instant::now();
                self.failures().insert(name, (now, failure.clone()));
            }
            Owner::Engine => {}
        }
        Err(failure)
    }

    fn failures(&self) -> std::sync::MutexGuard<'_, Recent<(Instant, Failure)>> {
        let failures = self.shared.failures.lock();
        failures.unwrap_or_else(PoisonError::into_inner)
    }

    fn ask(&self, ask: Ask, ticket: &Ticket) -> Result<Answer, Failure> {
        self.shared
            .compiler
            .ask(ask, ticket)
            .map_err(|refused| match refused {
                Refused::Failure(failure) => failure,
                report => Failure::Refused(report.headline()),
            })
    }
}

fn unexpected(answer: &Answer) -> Failure {
    Failure::Refused(format!(
        "the compiler has answered another question: {answer:?}"
    ))
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
    hash.update(format!("{:?}", size_and_time(executable)));
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

fn size_and_time(file: &Path) -> Option<(u64, SystemTime)> {
    let metadata = std::fs::metadata(file).ok()?;
    Some((metadata.len(), metadata.modified().ok()?))
}

/// Names a program's file: another version of it has another name. 16 hexadecimal digits.
pub fn program_id(executable: &Path) -> String {
    let mut hash = Sha256::new();
    hash.update(executable.as_os_str().as_encoded_bytes());
    hash.update(format!("{:?}", size_and_time(executable)));
    let mut id = hex::encode(hash.finalize());
    id.truncate(16);
    id
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
