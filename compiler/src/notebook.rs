//! One notebook's compile-time state: evcxr's command context behind a stub, and how it is moved.
//!
//! evcxr commits a cell's state when the stub says that it ran, before it is run. When it then fails, [`Undo`] tells
//! how, and the state is mended by snippets that are compiled for evcxr's books only (`Plan::pretend`).

use crate::diagnostics::{Context, Diagnostic, diagnostics};
use crate::layouts::Layouts;
use crate::sources::{Cell, Place, Sources};
use crate::statements::{Statement, commands, statements};
use crate::stub::{Link, Load};
use crate::support::{self, Support};
use crate::toolchain;
use crate::wrapper::{self, Plan};
use evcxr::{CommandContext, EvalContext};
use std::collections::{BTreeMap, HashSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::process::Command;
use std::sync::mpsc;

/// What evcxr's subprocess prints when user code unwound.
const PANICKED: &str = "EVCXR_PANIC_NOTIFICATION";
/// What it prints, with a variable's name, when the stored value is of another type.
const CHANGED_TYPE: &str = "EVCXR_VARIABLE_CHANGED_TYPE:";

/// What a notebook needs to know.
#[derive(Debug)]
pub struct Settings {
    /// A folder of its own. evcxr works in it (`EVCXR_TMPDIR` names it).
    pub folder: PathBuf,
    /// The `chorus` binary.
    pub executable: PathBuf,
    /// Gives the toolchain once it is known: evcxr starts meanwhile.
    pub toolchain: mpsc::Receiver<Toolchain>,
    /// The support library's source.
    pub support_source: &'static str,
}

/// What compiles cells.
#[derive(Clone, Debug)]
pub struct Toolchain {
    /// The rustc that evcxr uses.
    pub rustc: PathBuf,
    /// The support library for it.
    pub support: Support,
}

/// Why a notebook could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The file system refused something.
    #[error("failed to prepare the folder for compiled cells: {0}")]
    Io(#[from] std::io::Error),
    /// There is no usable toolchain, which its finder has told.
    #[error("failed to find a toolchain")]
    Toolchain,
    /// evcxr refused to start.
    #[error("failed to start evcxr: {0}")]
    Evcxr(#[from] evcxr::Error),
}

/// A cell that compiled.
#[derive(Clone, Debug, Default)]
pub struct Compiled {
    /// What is to be loaded and run, in order. Empty for a cell of commands, or of items only.
    pub loads: Vec<Load>,
    /// What its commands print, by media type.
    pub shown: BTreeMap<String, String>,
    /// A command emptied the namespace (`:clear`, `:restart`): the runtime has to begin anew before `loads`.
    pub restarted: bool,
    /// Variables that are given up, since the cell defines anew what their values are made of.
    pub lost: Vec<String>,
    /// `:toolchain` was used: the runtime has to begin anew with this support library.
    pub support: Option<Support>,
}

/// A cell that did not compile. Nothing has changed.
#[derive(Clone, Debug)]
pub enum Failure {
    /// rustc's errors, or an error in a command.
    Errors(Vec<Diagnostic>),
    /// evcxr's own refusal, in its words.
    Refused(String),
    /// evcxr or rust-analyzer panicked.
    Panicked(String),
}

/// How a cell that had compiled failed when it ran.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Undo {
    /// It unwound, or returned early by `?`: its new variables were never stored.
    NewVariables,
    /// A checkpoint brought back every variable as it was before.
    Everything,
    /// Every variable is lost.
    Lost,
}

/// A suggestion for the text at the cursor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Completion {
    /// What to put in.
    pub text: String,
    /// What to show.
    pub label: String,
    /// Jupyter's word for its kind: `function`, `instance`, `module`, ...
    pub kind: &'static str,
}

/// Suggestions, with the bytes of the cell that they would replace.
#[derive(Clone, Debug, Default)]
pub struct Completions {
    /// In the order of usefulness.
    pub items: Vec<Completion>,
    /// First byte.
    pub start: usize,
    /// Past the last byte.
    pub end: usize,
}

/// What is known of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Documentation {
    /// Plain text.
    pub text: String,
    /// The same as HTML.
    pub html: String,
}

/// Whether evcxr's start-up configuration exists: `evcxr.toml` in the current folder or evcxr's own, or `init.evcxr` or
/// `prelude.rs` there.
pub fn has_configuration() -> bool {
    let folder = evcxr::config_dir();
    let named = |name: &str| {
        folder
            .as_ref()
            .is_some_and(|folder| folder.join(name).exists())
    };
    std::path::Path::new("evcxr.toml").exists()
        || ["evcxr.toml", "init.evcxr", "prelude.rs"]
            .into_iter()
            .any(named)
}

/// See the module's page.
pub struct Notebook {
    context: CommandContext,
    link: Link,
    plan: Plan,
    plan_path: PathBuf,
    generated: PathBuf,
    sources: Sources,
    format: Format,
    layouts: Layouts,
    /// The state before the last cell, for [`Undo`].
    last: Option<Last>,
}

impl std::fmt::Debug for Notebook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Notebook").finish_non_exhaustive()
    }
}

#[derive(Default)]
struct Last {
    before: BTreeMap<String, String>,
    introduced: HashSet<String>,
}

/// The settings of evcxr that act on how a last expression is shown.
#[derive(Debug)]
struct Format {
    changed: bool,
    types: bool,
}

impl Format {
    /// Follows `:fmt` and `:types`.
    fn follow(&mut self, cell: &str) {
        for (command, arguments) in commands(cell) {
            match command {
                "fmt" => self.changed = !matches!(arguments.trim(), "" | "{:?}"),
                "types" => self.types = !self.types,
                _ => {}
            }
        }
    }

    fn usual(&self) -> bool {
        !self.changed && !self.types
    }
}

impl Notebook {
    /// Starts evcxr, which compiles something first. Takes about a second.
    pub fn open(settings: Settings) -> Result<Notebook, OpenError> {
        let Settings {
            folder,
            executable,
            toolchain,
            support_source,
        } = settings;
        let wrapper = folder.join(wrapper::NAME);
        std::os::unix::fs::symlink(&executable, &wrapper)?;
        let source = folder.join("support.rs");
        std::fs::write(&source, support_source)?;
        let mut stub = Command::new(&executable);
        stub.arg("stub");
        let link = Link::attach(&mut stub)?;
        let (mut evcxr, outputs) = EvalContext::with_subprocess_command(stub)?;
        // The stub prints nothing of its own, so there is nothing to read.
        drop(outputs);
        let Toolchain { rustc, support } = toolchain.recv().map_err(|_| OpenError::Toolchain)?;
        let plan_path = folder.join("plan.json");
        let plan = Plan {
            pretend: true,
            cache: folder.join("cache"),
            support: support.folder,
            rustc,
            support_source: source,
            ..Plan::default()
        };
        plan.write(&plan_path)?;
        let mut state = evcxr.state();
        state.set_build_env("RUSTC_WORKSPACE_WRAPPER", &wrapper.to_string_lossy());
        state.set_build_env(wrapper::PLAN, &plan_path.to_string_lossy());
        evcxr.eval_with_state("", state)?;
        Ok(Notebook {
            context: CommandContext::with_eval_context(evcxr),
            link,
            plan,
            plan_path,
            generated: folder.join("src").join("lib.rs"),
            sources: Sources::new(folder.join("sources"))?,
            format: Format {
                changed: false,
                types: false,
            },
            layouts: Layouts::default(),
            last: None,
        })
    }

    /// Has rust-analyzer load the standard library and cargo build with the wrapper once, which the first cell would wait for.
    pub fn warm_up(&mut self) {
        self.pretend(
            "let chorus_warm_up: Vec<usize> = vec![String::new()].iter().map(|s| s.len()).collect();",
            vec![vec![PANICKED.to_owned()]],
        );
    }

    /// Does the same for the first completion.
    pub fn warm_up_completion(&mut self) {
        self.complete("String::new().", "String::new().".len());
    }

    /// Compiles a cell that readers know by its execution `count`.
    pub fn compile(&mut self, count: u32, cell: &str) -> Result<Compiled, Failure> {
        self.compile_answering(count, cell, Vec::new())
    }

    /// Compiles the last cell again after its run has found that these variables' types were redefined: they
    /// leave the namespace.
    pub fn compile_without(
        &mut self,
        count: u32,
        cell: &str,
        variables: &[String],
    ) -> Result<Compiled, Failure> {
        self.undo(Undo::NewVariables);
        let lines = variables.iter().map(|name| format!("{CHANGED_TYPE}{name}"));
        self.compile_answering(count, cell, vec![lines.collect()])
    }

    fn compile_answering(
        &mut self,
        count: u32,
        cell: &str,
        answers: Vec<Vec<String>>,
    ) -> Result<Compiled, Failure> {
        let found = statements(cell);
        let introduced: HashSet<String> = found.iter().flat_map(Statement::variables).collect();
        let layouts = self.layouts.after(&found);
        let variables = self.variables();
        let lost = self.layouts.lost(&layouts, &variables);
        self.forget(&lost);
        self.format.follow(cell);
        self.plan.number += 1;
        self.plan.pretend = false;
        self.plan.display = self.format.usual();
        let this = Cell {
            number: self.plan.number,
            count,
            source: cell.to_owned(),
        };
        let outcome = self.execute(cell, answers);
        let traffic = self.link.take();
        let outputs = match outcome {
            Ok(outputs) => outputs,
            Err(trouble) => {
                self.bring_back(variables.iter().filter(|(name, _)| lost.contains(name)));
                return Err(match trouble {
                    Trouble::Evcxr(evcxr::Error::CompilationErrors(errors)) => {
                        let generated =
                            std::fs::read_to_string(&self.generated).unwrap_or_default();
                        Failure::Errors(diagnostics(
                            &errors,
                            &Context {
                                cell: &this,
                                generated: &generated,
                                sources: &self.sources,
                            },
                        ))
                    }
                    Trouble::Evcxr(error) => Failure::Refused(error.to_string()),
                    Trouble::Panicked(message) => Failure::Panicked(message),
                });
            }
        };
        self.layouts = layouts;
        self.last = Some(Last {
            before: variables
                .into_iter()
                .filter(|(name, _)| !lost.contains(name))
                .collect(),
            introduced: introduced.clone(),
        });
        let loads: Vec<Load> = traffic
            .loads
            .into_iter()
            .filter(|load| !load.answered)
            .collect();
        if !loads.is_empty() {
            self.sources.add(this, &self.generated);
        }
        let support = self.follow_toolchain(cell)?;
        // evcxr starts its subprocess anew, and puts the variables back into its books at the end of the cell.
        let restarted = support.is_some()
            || commands(cell).any(|(command, _)| ["restart", "clear"].contains(&command));
        if restarted {
            let gone: Vec<String> = self
                .variables()
                .into_keys()
                .filter(|name| !introduced.contains(name))
                .collect();
            self.forget(&gone);
        }
        Ok(Compiled {
            loads,
            shown: outputs.content_by_mime_type.into_iter().collect(),
            restarted,
            lost: lost
                .into_iter()
                .filter(|name| !introduced.contains(name))
                .collect(),
            support,
        })
    }

    /// After `:toolchain`, prepares the support library of the new one. No value survives the change, since no two
    /// toolchains agree on what a value looks like.
    fn follow_toolchain(&mut self, cell: &str) -> Result<Option<Support>, Failure> {
        let Some((_, name)) = commands(cell)
            .filter(|(command, name)| *command == "toolchain" && !name.trim().is_empty())
            .last()
        else {
            return Ok(None);
        };
        let rustc = toolchain::rustc_of(name.trim());
        let source = std::fs::read_to_string(&self.plan.support_source)
            .map_err(|error| Failure::Refused(error.to_string()))?;
        let support = support::ensure(&rustc, &source)
            .map_err(|error| Failure::Refused(error.to_string()))?;
        self.plan.rustc = rustc;
        self.plan.support = support.folder.clone();
        Ok(Some(support))
    }

    /// Makes the state true again after the last cell has failed.
    pub fn undo(&mut self, undo: Undo) {
        let now = self.variables();
        let Some(last) = self
            .last
            .take()
            .or_else(|| (undo == Undo::Lost).then(Last::default))
        else {
            return;
        };
        match undo {
            Undo::NewVariables => {
                let gone: Vec<String> = now
                    .into_keys()
                    .filter(|name| last.introduced.contains(name))
                    .collect();
                self.forget(&gone);
            }
            Undo::Everything => {
                let gone: Vec<String> = now
                    .keys()
                    .filter(|name| !last.before.contains_key(*name))
                    .cloned()
                    .collect();
                self.forget(&gone);
                self.bring_back(
                    last.before
                        .iter()
                        .filter(|(name, kind)| now.get(*name) != Some(kind)),
                );
            }
            Undo::Lost => self.forget(&now.into_keys().collect::<Vec<_>>()),
        }
    }

    /// Removes variables from the state: a snippet that introduces them and panics stores nothing under their names.
    fn forget(&mut self, names: &[String]) {
        if names.is_empty() {
            return;
        }
        let snippet: Vec<String> = names
            .iter()
            .map(|name| format!("let {name} = 0;"))
            .collect();
        self.pretend(&snippet.join("\n"), vec![vec![PANICKED.to_owned()]]);
    }

    /// Puts variables (name and type) into the state that are in the runtime's store.
    fn bring_back<'a>(&mut self, variables: impl Iterator<Item = (&'a String, &'a String)>) {
        let snippet: Vec<String> = variables
            .map(|(name, kind)| format!("let mut {name}: {kind} = todo!();"))
            .collect();
        if !snippet.is_empty() {
            self.pretend(&snippet.join("\n"), Vec::new());
        }
    }

    /// Has evcxr go through a snippet for its books only.
    fn pretend(&mut self, snippet: &str, answers: Vec<Vec<String>>) {
        self.plan.pretend = true;
        if let Err(trouble) = self.execute(snippet, answers) {
            tracing::error!(?trouble, "evcxr's state may differ from the runtime's");
        }
        self.link.take();
    }

    fn execute(
        &mut self,
        snippet: &str,
        answers: Vec<Vec<String>>,
    ) -> Result<evcxr::EvalOutputs, Trouble> {
        self.link.take();
        self.link.answer_with(answers);
        if let Err(error) = self.plan.write(&self.plan_path) {
            return Err(Trouble::Evcxr(error.into()));
        }
        match catch_unwind(AssertUnwindSafe(|| self.context.execute(snippet))) {
            Ok(outcome) => outcome.map_err(Trouble::Evcxr),
            Err(payload) => Err(Trouble::Panicked(panic_message(&*payload))),
        }
    }

    /// The variables and their types.
    pub fn variables(&self) -> BTreeMap<String, String> {
        self.context
            .variables_and_types()
            .map(|(name, kind)| (name.to_owned(), kind.to_owned()))
            .collect()
    }

    /// The line of a cell behind a location in generated code.
    pub fn locate(&self, file: &str, line: u32) -> Option<Place> {
        self.sources.locate(file, line)
    }

    /// Suggestions for the byte `position` of `cell`.
    pub fn complete(&mut self, cell: &str, position: usize) -> Completions {
        let found = catch_unwind(AssertUnwindSafe(|| {
            self.context.completions(cell, position)
        }));
        match found {
            Ok(Ok(found)) => Completions {
                items: found
                    .completions
                    .into_iter()
                    .map(|item| Completion {
                        text: item.code,
                        label: item.label,
                        kind: item.kind,
                    })
                    .collect(),
                start: found.start_offset,
                end: found.end_offset,
            },
            // Where there is no code there is nothing to suggest.
            Ok(Err(_)) | Err(_) => Completions {
                items: Vec::new(),
                start: position,
                end: position,
            },
        }
    }

    /// What is known of the name that ends at the byte `position` of `cell`.
    pub fn inspect(&mut self, cell: &str, position: usize) -> Option<Documentation> {
        let found = catch_unwind(AssertUnwindSafe(|| self.context.hover_at(cell, position)));
        let (text, html) = found.ok()?.ok()?;
        (text != "No documentation found").then_some(Documentation { text, html })
    }
}

/// Why evcxr did not do as it was asked.
#[derive(Debug)]
enum Trouble {
    Evcxr(evcxr::Error),
    Panicked(String),
}

fn panic_message(payload: &(dyn std::any::Any + Send)) -> String {
    payload
        .downcast_ref::<&str>()
        .map(|message| (*message).to_owned())
        .or_else(|| payload.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no message".to_owned())
}
