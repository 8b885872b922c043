//! One notebook's compile-time state: evcxr's command context behind a stub, and how it is moved.
//!
//! evcxr commits a cell's state when the stub says that it ran, before it is run. When it then fails, [`Undo`] tells
//! how, and the state is mended by snippets that are compiled for the books only (`Effort::Pretend`).

mod answers;
mod provide;

use crate::bench::{self, Bench, OpenError, Settings, Trouble};
use crate::diagnostics::{Context, diagnostics};
use crate::layouts::Layouts;
use crate::sources::{Cell, Label, Place, Source, Sources};
use crate::statements::{Statement, commands, statements};
use crate::support::{self, Support};
use crate::toolchain;
use crate::wrapper::Effort;
pub use answers::{Compiled, Completion, Completions, Documentation, Failure, Undo};
use evcxr::CommandContext;
use std::collections::{BTreeMap, HashSet};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// What it prints, with a variable's name, when the stored value is of another type.
const CHANGED_TYPE: &str = "EVCXR_VARIABLE_CHANGED_TYPE:";

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
    bench: Bench,
    sources: Sources,
    format: Format,
    layouts: Layouts,
    /// Whether a cell has named one of the crates that are there without asking.
    uses_crates: bool,
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
        let sources = Sources::new(settings.folder.join("sources"))?;
        let (evcxr, bench) = Bench::open(settings)?;
        Ok(Notebook {
            context: CommandContext::with_eval_context(evcxr),
            bench,
            sources,
            format: Format {
                changed: false,
                types: false,
            },
            layouts: Layouts::default(),
            uses_crates: false,
            last: None,
        })
    }

    /// Has rust-analyzer load the standard library and cargo build with the wrapper once, which the first cell would wait for.
    pub fn warm_up(&mut self) {
        let context = &mut self.context;
        self.bench.warm_up(|snippet| context.execute(snippet));
    }

    /// Does the same for the first completion.
    pub fn warm_up_completion(&mut self) {
        self.complete("String::new().", "String::new().".len());
    }

    /// Compiles a cell that readers know by its execution `count`. If that takes long for a reason that they can't know, `tell` gets
    /// a sentence about it.
    pub fn compile(
        &mut self,
        count: u32,
        cell: &Source,
        tell: &dyn Fn(String),
    ) -> Result<Compiled, Failure> {
        self.provide(&cell.code, tell)?;
        self.compile_answering(count, cell, Vec::new())
    }

    /// Compiles the last cell again after its run has found that these variables' types were redefined: they
    /// leave the namespace.
    pub fn compile_without(
        &mut self,
        count: u32,
        cell: &Source,
        variables: &[String],
    ) -> Result<Compiled, Failure> {
        self.undo(Undo::NewVariables);
        let lines = variables.iter().map(|name| format!("{CHANGED_TYPE}{name}"));
        self.compile_answering(count, cell, vec![lines.collect()])
    }

    fn compile_answering(
        &mut self,
        count: u32,
        cell: &Source,
        answers: Vec<Vec<String>>,
    ) -> Result<Compiled, Failure> {
        let Source { code: cell, shown } = cell;
        let found = statements(cell);
        let introduced: HashSet<String> = found.iter().flat_map(Statement::variables).collect();
        let layouts = self.layouts.after(&found);
        let variables = self.variables();
        let lost = self.layouts.lost(&layouts, &variables);
        self.forget(&lost);
        self.format.follow(cell);
        self.bench.plan.number += 1;
        self.bench.plan.display = self.format.usual();
        let this = Cell {
            number: self.bench.plan.number,
            label: Label::In(count),
            source: cell.clone(),
            shown: shown.clone(),
        };
        let context = &mut self.context;
        let pressed = self
            .bench
            .press(Effort::Compile, answers, || context.execute(cell));
        let pressed = match pressed {
            Ok(pressed) => pressed,
            Err(trouble) => {
                self.bring_back(variables.iter().filter(|(name, _)| lost.contains(name)));
                return Err(match trouble {
                    Trouble::Evcxr(evcxr::Error::CompilationErrors(errors)) => {
                        Failure::Errors(diagnostics(
                            &errors,
                            &Context {
                                cell: &this,
                                generated: &self.bench.generated(),
                                earlier: self.sources.latest_first(this.number).collect(),
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
        if !pressed.loads.is_empty() {
            self.sources.add(this, &self.bench.generated);
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
            loads: pressed.loads,
            shown: pressed.outputs.content_by_mime_type.into_iter().collect(),
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
        let source = std::fs::read_to_string(&self.bench.plan.support_source)
            .map_err(|error| Failure::Refused(error.to_string()))?;
        let support = support::ensure(&rustc, &source)
            .map_err(|error| Failure::Refused(error.to_string()))?;
        self.bench.plan.rustc = rustc;
        self.bench.plan.crates = None;
        self.bench.plan.support = support.folder.clone();
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
        if !names.is_empty() {
            self.pretend(&bench::forgetting(names), bench::panics());
        }
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
        let context = &mut self.context;
        self.bench.pretend(answers, || context.execute(snippet));
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
        self.show_crates(cell);
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
        self.show_crates(cell);
        let found = catch_unwind(AssertUnwindSafe(|| self.context.hover_at(cell, position)));
        let (text, html) = found.ok()?.ok()?;
        (text != "No documentation found").then_some(Documentation { text, html })
    }
}
