//! evcxr on its bench: behind a stub that runs nothing and a wrapper around rustc, told by a [`Plan`] what the next compile is for.
//!
//! What a notebook and a cluster's compiler have in common. Which state is compiled in is theirs.

use crate::activity::{Activity, Phase};
use crate::crates::{Crates, CratesError, Dependencies, Mentioned, Sources};
use crate::folder;
use crate::reach::{Added, After, Preceded, Reach};
use crate::statements::{Statement, need_inference};
use crate::stub::Link;
use crate::summary::{Found, Summary};
use crate::support::{self, Support};
use crate::toolchain;
use crate::wrapper::{self, Effort, Kept, Plan};
use evcxr::{EvalContext, EvalOutputs};
use std::io::ErrorKind;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::Command;

/// What evcxr's subprocess prints when user code unwound.
pub(crate) const PANICKED: &str = "EVCXR_PANIC_NOTIFICATION";

/// A crate's name and what Cargo.toml says of it.
pub(crate) type Dependency = (&'static str, &'static str);

/// The dependency that evcxr adds for `.await`. Adding it beforehand saves rust-analyzer one reload of the crate.
pub(crate) const TOKIO: Dependency = (
    "tokio",
    "{version=\"1.34.0\", features=[\"rt\", \"rt-multi-thread\"]}",
);

/// A snippet of which nobody needs more than that evcxr and its compilers have been through it.
const WARM_UP: &str =
    "let chorus_warm_up: Vec<usize> = vec![String::new()].iter().map(|s| s.len()).collect();";

/// What is needed to start evcxr.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// A folder of its own. evcxr works in it (`EVCXR_TMPDIR` names it).
    pub folder: PathBuf,
    /// The `chorus` binary.
    pub executable: PathBuf,
    /// The support library's source.
    pub support_source: &'static str,
    /// The crate `chorus`.
    pub crates: Sources,
    /// Tells what the compiler is doing.
    pub activity: Activity,
}

/// What compiles cells.
#[derive(Clone, Debug)]
pub(crate) struct Toolchain {
    /// The rustc that evcxr uses.
    pub rustc: PathBuf,
    /// The support library for it.
    pub support: Support,
}

/// Why evcxr could not be started.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenError {
    /// The file system refused something.
    #[error("failed to prepare the folder for compiled cells: {0}")]
    Io(#[from] std::io::Error),
    /// evcxr refused to start.
    #[error("failed to start evcxr: {0}")]
    Evcxr(#[from] evcxr::Error),
}

/// Why evcxr did not do as it was asked.
#[derive(Debug)]
pub(crate) enum Trouble {
    Evcxr(evcxr::Error),
    /// By something else than evcxr, which says why.
    Refused(String),
    Panicked(String),
}

impl From<evcxr::Error> for Trouble {
    fn from(error: evcxr::Error) -> Trouble {
        Trouble::Evcxr(error)
    }
}

/// A snippet that was compiled.
#[derive(Debug)]
pub(crate) struct Product {
    /// The shared object, if there was something to compile.
    pub(crate) kept: Option<Kept>,
    /// The source that evcxr generated, as the wrapper left it.
    pub(crate) source: String,
    pub(crate) after: After,
}

/// A snippet that was not compiled.
#[derive(Debug)]
pub(crate) struct NotCompiled {
    pub(crate) trouble: Trouble,
    /// The lines in front of the snippet's own, which evcxr's errors count.
    pub(crate) added: Added,
}

impl From<Trouble> for NotCompiled {
    fn from(trouble: Trouble) -> NotCompiled {
        NotCompiled {
            trouble,
            added: Added::default(),
        }
    }
}

/// rustc's error code for an unknown name of a value.
const UNKNOWN_VALUE: &str = "E0425";

/// Errors of rustc's borrow checker. It runs only after all names have been resolved.
const CERTAIN: &[&str] = &[
    "E0373", "E0381", "E0382", "E0384", "E0499", "E0502", "E0503", "E0505", "E0506", "E0507",
    "E0509", "E0515", "E0521", "E0594", "E0596", "E0597", "E0713", "E0716",
];

/// Whether a larger selection could compile, or change the error's text.
fn may_lack_something(trouble: &Trouble, reach: &Reach<'_>) -> bool {
    let Trouble::Evcxr(evcxr::Error::CompilationErrors(errors)) = trouble else {
        return !reach.everything;
    };
    let any = |codes: &[&str]| {
        let mut found = errors.iter().filter_map(|error| error.code());
        found.any(|code| codes.contains(&code))
    };
    match (reach.everything, reach.all_items) {
        (true, _) => false,
        (false, true) => errors
            .iter()
            .filter(|error| error.code() == Some(UNKNOWN_VALUE))
            .any(|error| reach.hides_one_like(quoted(&error.message()))),
        (false, false) => !any(CERTAIN),
    }
}

/// The first name in a message of rustc's.
fn quoted(message: &str) -> &str {
    message.split('`').nth(1).unwrap_or_default()
}

/// See the module's page.
#[derive(Debug)]
pub(crate) struct Bench {
    link: Link,
    /// What the next compiles are for.
    pub(crate) plan: Plan,
    plan_path: PathBuf,
    /// The source that evcxr generated last, as the wrapper left it.
    pub(crate) generated: PathBuf,
    /// The crates that cells may name without asking.
    sources: Sources,
    /// Whether cargo has been given what they were compiled to, or can't be any more.
    pub(crate) is_seeded: bool,
    pub(crate) activity: Activity,
    /// What hides the standard library from rust-analyzer, while it does.
    hidden: Option<PathBuf>,
    opt_level: String,
    /// What goes with [`plan`](Bench::plan)'s toolchain.
    pub(crate) support: Support,
    /// The toolchain at the beginning.
    first: Toolchain,
    wrapper: PathBuf,
}

impl Bench {
    /// Starts evcxr, which compiles something first. Takes about a second.
    pub(crate) fn open(
        settings: Settings,
        first: Toolchain,
    ) -> Result<(EvalContext, Bench), OpenError> {
        let Settings {
            folder,
            executable,
            support_source,
            crates: sources,
            activity,
        } = settings;
        let start = activity.enter(Phase::Start);
        let wrapper = folder.join(wrapper::NAME);
        match std::os::unix::fs::symlink(&executable, &wrapper) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error.into()),
            _ => {}
        }
        let source = folder.join("support.rs");
        std::fs::write(&source, support_source)?;
        // evcxr evaluates something when it starts, for which rust-analyzer would read the standard library: most of the start.
        let named = std::env::var_os(folder::STD_SOURCE);
        let hidden = Some(folder::hidden_std(&folder))
            .filter(|library| named.is_some_and(|named| *library == named));
        if let Some(library) = &hidden {
            std::fs::create_dir_all(library.join("core"))?;
            activity.note_hidden_std(true);
        }
        let mut stub = Command::new(&executable);
        stub.arg("stub");
        let link = Link::attach(&mut stub)?;
        let (mut evcxr, outputs) = EvalContext::with_subprocess_command(stub)?;
        // The stub prints nothing of its own, so there is nothing to read.
        drop(outputs);
        let Toolchain { rustc, support } = first.clone();
        let plan_path = folder.join("plan.json");
        let mut plan = Plan {
            effort: Effort::DryRun,
            product: folder.join("product"),
            cache: folder.join("compiled"),
            support: support.folder.clone(),
            rustc,
            support_source: source,
            ..Plan::default()
        };
        let mut state = evcxr.state();
        let opt_level = state.opt_level().to_owned();
        plan.catches = state.preserve_vars_on_panic();
        plan.write(&plan_path)?;
        let bench = Bench {
            link,
            plan,
            plan_path,
            generated: folder.join("src").join("lib.rs"),
            sources,
            is_seeded: false,
            activity,
            hidden,
            opt_level,
            support,
            first,
            wrapper,
        };
        for (name, value) in bench.environment() {
            state.set_build_env(name, &value);
        }
        evcxr.eval_with_state("", state)?;
        drop(start);
        Ok((evcxr, bench))
    }

    /// The build's environment variables that connect evcxr with the bench.
    pub(crate) fn environment(&self) -> [(&'static str, String); 3] {
        let text = |path: &Path| path.to_string_lossy().into_owned();
        [
            ("RUSTC_WORKSPACE_WRAPPER", text(&self.wrapper)),
            (wrapper::PLAN, text(&self.plan_path)),
            // evcxr repeats cargo's lines on this process's stderr, which is Jupyter's terminal.
            ("CARGO_TERM_QUIET", "true".to_owned()),
        ]
    }

    /// Prepares a toolchain; the first one if `name` is empty.
    pub(crate) fn toolchain(&self, name: &str) -> Result<Toolchain, Trouble> {
        if name.is_empty() {
            return Ok(self.first.clone());
        }
        let refused = |error: String| Trouble::Refused(error);
        let rustc = toolchain::rustc_of(name);
        let source = std::fs::read_to_string(&self.plan.support_source)
            .map_err(|error| refused(error.to_string()))?;
        let support =
            support::ensure(&rustc, &source).map_err(|error| refused(error.to_string()))?;
        Ok(Toolchain { rustc, support })
    }

    /// Compiles the support library again, if somebody has removed it.
    pub(crate) fn keep_support(&self) {
        if self.plan.support.is_dir() {
            return;
        }
        let source = std::fs::read_to_string(&self.plan.support_source);
        let made = source.map(|source| support::ensure(&self.plan.rustc, &source));
        if !matches!(made, Ok(Ok(_))) {
            tracing::warn!(?made, "there is no support library");
        }
    }

    /// Compiles with another toolchain from now on.
    pub(crate) fn use_toolchain(&mut self, toolchain: Toolchain) {
        let Toolchain { rustc, support } = toolchain;
        self.plan.rustc = rustc;
        self.plan.crates = None;
        self.is_seeded = false;
        self.plan.support.clone_from(&support.folder);
        self.support = support;
    }

    /// Whether these statements have types that can't be found before [`show_std`](Bench::show_std).
    pub(crate) fn lacks_std(&self, statements: &[Statement]) -> bool {
        self.hidden.is_some() && need_inference(statements)
    }

    /// Has rust-analyzer read the standard library with the next evaluation. It reads everything again whenever the manifest has
    /// changed. So `reload` shows it one with the optimization level that it is given, which the next evaluation's differs from.
    pub(crate) fn show_std(
        &mut self,
        reload: impl FnOnce(&mut Bench, &str) -> Result<(), Trouble>,
    ) {
        let Some(library) = self.hidden.clone() else {
            return;
        };
        // A comment to cargo.
        let level = format!("{}#", self.opt_level);
        match reload(self, &level) {
            Ok(()) => {
                self.hidden = None;
                self.activity.note_hidden_std(false);
            }
            // Whoever needs types next tries again.
            Err(trouble) => tracing::info!(?trouble, "rust-analyzer may not have seen a change"),
        }
        match std::fs::remove_dir_all(&library) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                tracing::warn!(%error, "no types are found");
            }
            _ => {}
        }
    }

    /// Compiles a snippet in a namespace, after `commands` of ours. `evaluate` passes its argument to evcxr, whose state stays unchanged.
    pub(crate) fn compile<E: Into<Trouble>>(
        &mut self,
        summary: &Summary,
        snippet: &str,
        statements: &[Statement],
        commands: &str,
        mut evaluate: impl FnMut(&str) -> Result<EvalOutputs, E>,
    ) -> Result<Product, NotCompiled> {
        let mut reach = Reach::of(summary, statements, []);
        loop {
            let Preceded { text, added } = reach.before(snippet, statements, commands);
            self.plan.decisive = reach.all_items;
            self.plan.macros = reach.macros(statements);
            let compiled = self.compile_text(|| evaluate(&text));
            let mut variables = statements.iter().flat_map(Statement::variables);
            if self.hidden.is_none() && variables.next().is_some() {
                self.activity.note_types();
            }
            match compiled {
                Ok(kept) => {
                    let source = kept.as_ref().map(|_| self.generated()).unwrap_or_default();
                    return Ok(Product {
                        after: reach.after(summary, &source),
                        kept,
                        source,
                    });
                }
                Err(trouble) if !may_lack_something(&trouble, &reach) => {
                    return Err(NotCompiled { trouble, added });
                }
                Err(_) => reach = Reach::everything(summary, statements),
            }
        }
    }

    /// Compiles one text; `None` if it has nothing to compile.
    pub(crate) fn compile_text<E: Into<Trouble>>(
        &mut self,
        work: impl FnOnce() -> Result<EvalOutputs, E>,
    ) -> Result<Option<Kept>, Trouble> {
        // cargo would not compile a source that it finds unchanged.
        for file in [&self.plan.product, &self.generated, &self.plan.reports()] {
            match std::fs::remove_file(file) {
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    return Err(Trouble::Evcxr(error.into()));
                }
                _ => {}
            }
        }
        let outcome = self.tell_evcxr(Effort::Compile, Vec::new(), work);
        match std::fs::read(&self.plan.product) {
            Ok(kept) => match serde_json::from_slice(&kept) {
                Ok(kept) => Ok(Some(kept)),
                Err(error) => Err(Trouble::Evcxr(std::io::Error::from(error).into())),
            },
            Err(_) => outcome.map(|_| None),
        }
    }

    /// Runs `work`, which changes evcxr's state: commands, or a snippet. `answers` are the control lines that the stub prints for it.
    pub(crate) fn tell_evcxr<T, E: Into<Trouble>>(
        &mut self,
        effort: Effort,
        answers: Vec<Vec<String>>,
        work: impl FnOnce() -> Result<T, E>,
    ) -> Result<T, Trouble> {
        self.plan.effort = effort;
        self.link.take();
        self.link.answer_with(answers);
        if let Err(error) = self.plan.write(&self.plan_path) {
            return Err(Trouble::Evcxr(error.into()));
        }
        let outcome = catch_unwind(AssertUnwindSafe(work));
        for load in self.link.take().loads {
            // The session's folder goes anyway.
            let _ = std::fs::remove_file(load);
        }
        match outcome {
            Ok(outcome) => outcome.map_err(Into::into),
            Err(payload) => Err(Trouble::Panicked(panic_message(&*payload))),
        }
    }

    /// The crates that cells may name, for the present toolchain.
    pub(crate) fn crates(&self) -> Crates {
        Crates::new(self.sources, self.plan.rustc.clone())
    }

    /// Has the wrapper tell rustc of the crates, compiling them if that has not been done.
    fn tell_of_crates(&mut self) -> Result<(), CratesError> {
        if self.plan.crates.is_none() {
            self.plan.crates = Some(self.crates().ensure()?);
        }
        Ok(())
    }

    /// Returns what our crates add to `present` dependencies for a snippet that mentions them. Prepares cargo and rustc for them. See
    /// [`crate::crates`].
    pub(crate) fn provide(
        &mut self,
        mentioned: Mentioned,
        present: &Dependencies,
    ) -> Result<Vec<(&'static str, String)>, CratesError> {
        let wanted = self.crates().wanted(mentioned, present)?;
        if !wanted.is_empty() {
            self.activity.note_dependencies();
        }
        let cargo_tells = !present.own.is_empty();
        // What cargo has compiled itself doesn't go with what is put beside it.
        if present.are_ours(mentioned) && !(cargo_tells && self.is_seeded) {
            self.tell_of_crates()?;
        }
        if cargo_tells && !std::mem::replace(&mut self.is_seeded, true)
            // The source is in a folder of evcxr's.
            && let Some(folder) = self.generated.ancestors().nth(2)
            && let Err(error) = self.crates().seed(folder)
        {
            tracing::info!(%error, "the crates are compiled for this session");
        }
        Ok(wanted)
    }

    /// Has rust-analyzer load the standard library and cargo build with the wrapper once, which the first snippet would wait for.
    /// `work` is to evaluate what it is given.
    pub(crate) fn warm_up<E: Into<Trouble>>(
        &mut self,
        work: impl FnOnce(&str) -> Result<EvalOutputs, E>,
    ) {
        let _during = self.activity.enter(Phase::StandardLibrary);
        if let Err(trouble) = self.tell_evcxr(Effort::DryRun, panics(), || work(WARM_UP)) {
            tracing::warn!(?trouble, "the compiler is not warm");
        }
        self.activity.note_types();
    }

    /// Sets evcxr's modes for `?` and `.await`, which it otherwise enters by a failed compile in every cell. `evaluate` takes a
    /// dependency to add, and a snippet.
    pub(crate) fn teach<E: Into<Trouble>>(
        &mut self,
        found: Found,
        mut evaluate: impl FnMut(Option<Dependency>, &str) -> Result<(), E>,
    ) {
        for (is_found, dependency, snippet) in [
            (
                found.question_mark,
                None,
                "Err::<(), String>(String::new())?;",
            ),
            (found.asynchronous, Some(TOKIO), "async {}.await;"),
        ] {
            if is_found
                && let Err(trouble) =
                    self.tell_evcxr(Effort::Check, panics(), || evaluate(dependency, snippet))
            {
                tracing::warn!(?trouble, "evcxr will find it out again");
            }
        }
    }

    /// What rustc has reported of the last text that did not compile, for all of evcxr's attempts.
    pub(crate) fn reports(&self) -> Vec<serde_json::Value> {
        let reports = std::fs::read_to_string(self.plan.reports()).unwrap_or_default();
        let reports = reports.lines().map(serde_json::from_str);
        reports.filter_map(Result::ok).collect()
    }

    /// The source that evcxr generated last.
    pub(crate) fn generated(&self) -> String {
        std::fs::read_to_string(&self.generated).unwrap_or_default()
    }
}

/// The stub's answer by which a snippet stores nothing new.
fn panics() -> Vec<Vec<String>> {
    vec![vec![PANICKED.to_owned()]]
}

fn panic_message(payload: &(dyn std::any::Any + Send)) -> String {
    payload
        .downcast_ref::<&str>()
        .map(|message| (*message).to_owned())
        .or_else(|| payload.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no message".to_owned())
}
