//! One notebook's compile-time state: evcxr's command context behind a stub, and the namespace that cells are compiled in.
//!
//! evcxr's own state has the dependencies and settings, and what [`Bench::teach`] has it learn. Definitions and variables are the
//! [`Summary`]'s, of which each cell is shown what it reaches. So a cell that fails when it runs changes nothing but the summary.

mod answers;
mod commands;
mod provide;

use crate::activity::{During, Phase};
use crate::bench::{Bench, NotCompiled, OpenError, Settings, Trouble};
use crate::diagnostics::{Context, diagnostics};
use crate::layouts::Layouts;
use crate::reach::{Added, Preceded, Reach};
use crate::sources::{Cell, Label, Place, Source, Sources};
use crate::statements::{Statement, adds_dependencies, code_start, statements};
use crate::summary::{Found, Summary, Variable};
use crate::support::{self, Support};
use crate::toolchain;
pub use answers::{Compiled, Completion, Completions, Documentation, Failure, Undo};
use commands::Orders;
use evcxr::CommandContext;
use std::collections::{BTreeMap, HashSet};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// So many names that may complete a word are shown to rust-analyzer, which knows more to say of them.
const SHOWN_NAMES: usize = 20;

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
    summary: Summary,
    format: Format,
    layouts: Layouts,
    /// The commands for dependencies on our crates that a cell has named which didn't compile.
    to_depend: String,
    /// What evcxr has found out in the last cell, and knows no more.
    to_teach: Found,
    /// The variables around the last cell, for [`Undo`].
    last: Option<Last>,
}

impl std::fmt::Debug for Notebook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Notebook").finish_non_exhaustive()
    }
}

struct Last {
    /// Before it.
    before: Variables,
    /// After it, had it ended early.
    early: Variables,
}

type Variables = BTreeMap<String, Variable>;

/// The settings of evcxr that act on what it generates.
#[derive(Clone, Debug, Default)]
struct Format {
    changed: bool,
    types: bool,
}

impl Notebook {
    /// Starts evcxr, which compiles something first. Takes about a second.
    pub fn open(settings: Settings) -> Result<Notebook, OpenError> {
        let sources = Sources::new(&settings.folder.join("sources"))?;
        let (evcxr, bench) = Bench::open(settings)?;
        Ok(Notebook {
            context: CommandContext::with_eval_context(evcxr),
            bench,
            sources,
            summary: Summary::default(),
            format: Format::default(),
            layouts: Layouts::default(),
            to_depend: String::new(),
            to_teach: Found::default(),
            last: None,
        })
    }

    /// Has rust-analyzer load the standard library and cargo build with the wrapper once, which the first cell would wait for.
    pub fn warm_up(&mut self) {
        let _during = self.bench.activity.enter(Phase::StandardLibrary);
        self.show_std();
        let context = &mut self.context;
        self.bench.warm_up(|snippet| context.execute(snippet));
    }

    /// See [`Bench::show_std`]. A completion changes no state and compiles nothing.
    fn show_std(&mut self) {
        let context = &mut self.context;
        self.bench.show_std(|_, level| {
            let text = format!(":opt {level}\n()");
            let completed = AssertUnwindSafe(|| context.completions(&text, text.len()).map(drop));
            match catch_unwind(completed) {
                Ok(Ok(())) => Ok(()),
                Ok(Err(error)) => Err(Trouble::Panicked(error.to_string())),
                Err(_) => Err(Trouble::Panicked("no completion".to_owned())),
            }
        });
    }

    /// Does the same for the first completion.
    pub fn warm_up_completion(&mut self) {
        self.complete("String::new().", "String::new().".len());
    }

    /// Says that it has something to do until the guard is dropped.
    pub(crate) fn busy(&self) -> During {
        self.bench.activity.enter(Phase::Snippet)
    }

    /// Compiles a cell that readers know by its execution `count`.
    pub fn compile(&mut self, count: u32, cell: &Source) -> Result<Compiled, Failure> {
        let _during = self.bench.activity.enter(Phase::of(&cell.code));
        let this = self.next_cell(count, cell);
        let orders = Orders::of(&cell.code);
        let before = (!orders.restarts()).then(|| (self.summary.clone(), self.layouts.clone()));
        let compiled = self.compile_all(count, &this, &orders);
        match (&compiled, before) {
            (Ok(_), Some((summary, layouts))) => {
                let lost = layouts.lost(&self.layouts, &summary.kinds());
                if let Some(last) = &mut self.last {
                    last.before = summary.variables;
                    last.before.retain(|name, _| !lost.contains(name));
                }
            }
            (Err(_), Some((summary, layouts))) => {
                self.summary = summary;
                self.layouts = layouts;
            }
            (_, None) => {}
        }
        compiled
    }

    fn compile_all(
        &mut self,
        count: u32,
        cell: &Cell,
        orders: &Orders,
    ) -> Result<Compiled, Failure> {
        let ours = self.provide(&cell.source)?;
        let mut compiled = Compiled::default();
        self.last = Some(Last {
            before: self.summary.variables.clone(),
            early: self.summary.variables.clone(),
        });
        self.do_at_once(cell, orders, &mut compiled)?;
        for code in orders.configuration()? {
            let source = Source { code, shown: None };
            compiled.add(self.compile(count, &source)?);
        }
        let done = self.compile_code(cell, orders, &ours, &mut compiled);
        // What goes with a dependency goes when that does.
        if done.is_err() && !adds_dependencies(&cell.source) {
            self.to_depend.clone_from(&ours);
        }
        done?;
        self.settle(cell, orders, &ours, &mut compiled)?;
        Ok(compiled)
    }

    /// Compiles the last cell again after its run has found that these variables' types were redefined: they
    /// leave the namespace.
    pub fn compile_without(
        &mut self,
        count: u32,
        cell: &Source,
        variables: &[String],
    ) -> Result<Compiled, Failure> {
        let _during = self.bench.activity.enter(Phase::Snippet);
        self.undo(Undo::Everything);
        self.summary
            .variables
            .retain(|name, _| !variables.contains(name));
        let this = self.next_cell(count, cell);
        let mut compiled = Compiled::default();
        // Its commands have been done.
        self.compile_code(&this, &Orders::none(&cell.code), "", &mut compiled)?;
        Ok(compiled)
    }

    fn next_cell(&mut self, count: u32, cell: &Source) -> Cell {
        self.bench.plan.number += 1;
        Cell {
            number: self.bench.plan.number,
            label: Label::In(count),
            source: cell.code.clone(),
            shown: cell.shown.clone(),
        }
    }

    /// Compiles a cell's Rust, with those of its commands in force that change evcxr's state, and `ours`.
    fn compile_code(
        &mut self,
        cell: &Cell,
        orders: &Orders,
        ours: &str,
        compiled: &mut Compiled,
    ) -> Result<(), Failure> {
        let found = statements(&cell.source);
        if found.is_empty() {
            return Ok(());
        }
        let layouts = self.layouts.after(&found);
        let lost = self.layouts.lost(&layouts, &self.summary.kinds());
        let mut summary = self.summary.clone();
        summary.variables.retain(|name, _| !lost.contains(name));
        let format = orders.format(&self.format);
        self.bench.plan.display = !format.changed && !format.types;
        let catches = self.bench.plan.catches;
        self.bench.plan.catches = orders.catches().unwrap_or(catches);
        if self.bench.lacks_std(&found) {
            self.show_std();
        }
        let context = &mut self.context;
        let product = self
            .bench
            .compile(&summary, &orders.code, &found, ours, |text| {
                context.execute(text)
            });
        // Until evcxr is told to remember it.
        self.bench.plan.catches = catches;
        let product =
            product.map_err(|NotCompiled { trouble, added }| self.failed(cell, added, trouble))?;
        let before = std::mem::take(&mut self.summary.variables);
        summary.apply(&found, product.after.completed);
        let early = product.after.early;
        self.last = Some(Last {
            early: before
                .clone()
                .into_iter()
                .filter(|(name, variable)| early.get(name) == Some(&variable.kind))
                .collect(),
            before,
        });
        self.summary = summary;
        self.layouts = layouts;
        let introduced = self.introduced(cell);
        compiled
            .lost
            .extend(lost.into_iter().filter(|name| !introduced.contains(name)));
        self.sources.add(cell.clone(), &product.source);
        if let Some(kept) = product.kept.filter(|_| found.iter().any(Statement::runs)) {
            compiled.artifacts.push(kept.artifact);
            let found = Found::within(&product.source);
            self.to_teach = found.beyond(self.summary.found);
            self.summary.found = self.summary.found.and(found);
        }
        Ok(())
    }

    /// The variables that a cell introduces.
    fn introduced(&self, cell: &Cell) -> Vec<String> {
        let found = statements(&cell.source);
        found.iter().flat_map(Statement::variables).collect()
    }

    fn failed(&self, cell: &Cell, added: Added, trouble: Trouble) -> Failure {
        match trouble {
            Trouble::Evcxr(evcxr::Error::CompilationErrors(errors)) => {
                Failure::Errors(diagnostics(
                    &errors,
                    &Context {
                        cell,
                        generated: &self.bench.generated(),
                        added,
                        earlier: self.sources.latest_first(cell.number).collect(),
                    },
                ))
            }
            Trouble::Evcxr(error) => Failure::Refused(error.to_string()),
            Trouble::Panicked(message) => Failure::Panicked(message),
        }
    }

    /// Has evcxr remember what it had to find out in the last cell, and what that has named. Takes a moment, for which nobody should wait.
    pub fn teach(&mut self) {
        let ours = std::mem::take(&mut self.to_depend);
        self.depend(&ours);
        let found = std::mem::take(&mut self.to_teach);
        if found == Found::default() {
            return;
        }
        let present = self.dependencies().own;
        let context = &mut self.context;
        self.bench.teach(found, (), |(), dependency, snippet| {
            let missing = dependency.filter(|(name, _)| !present.contains_key(*name));
            let orders = missing.map(|(name, config)| format!(":dep {name} = {config}\n"));
            let cell = orders.unwrap_or_default() + snippet;
            context.execute(&cell).map(drop)
        });
    }

    /// After `:toolchain`, prepares the support library of the new one. No value survives the change, since no two
    /// toolchains agree on what a value looks like.
    fn follow_toolchain(&mut self, name: &str) -> Result<Support, Failure> {
        let rustc = toolchain::rustc_of(name);
        let source = std::fs::read_to_string(&self.bench.plan.support_source)
            .map_err(|error| Failure::Refused(error.to_string()))?;
        let support = support::ensure(&rustc, &source)
            .map_err(|error| Failure::Refused(error.to_string()))?;
        self.bench.plan.rustc = rustc;
        self.bench.plan.crates = None;
        self.bench.is_seeded = false;
        self.bench.plan.support = support.folder.clone();
        Ok(support)
    }

    /// Makes the state true again after the last cell has failed.
    pub fn undo(&mut self, undo: Undo) {
        match (undo, self.last.take()) {
            (Undo::Lost, _) => self.summary.variables.clear(),
            (Undo::NewVariables, Some(last)) => self.summary.variables = last.early,
            (Undo::Everything, Some(last)) => self.summary.variables = last.before,
            (Undo::NewVariables | Undo::Everything, None) => {}
        }
    }

    /// The variables and their types.
    pub fn variables(&self) -> BTreeMap<String, String> {
        self.summary.kinds()
    }

    /// The line of a cell behind a location in generated code.
    pub fn locate(&self, file: &str, line: u32) -> Option<Place> {
        self.sources.locate(file, line)
    }

    /// Suggestions for the byte `position` of `cell`.
    pub fn complete(&mut self, cell: &str, position: usize) -> Completions {
        self.show_std();
        self.show_crates(cell);
        let found = statements(cell);
        let names = self.names_at(cell, position);
        let shown = names.iter().take(SHOWN_NAMES).cloned();
        let reach = Reach::of(&self.summary, &found, shown);
        let Preceded { text, added } = reach.before(cell, &found, "");
        let found = catch_unwind(AssertUnwindSafe(|| {
            self.context.completions(&text, added.byte(position))
        }));
        match found {
            Ok(Ok(found)) => {
                let mut items: Vec<Completion> = found
                    .completions
                    .into_iter()
                    .filter(|item| !item.code.starts_with("chorus_"))
                    .map(|item| Completion {
                        text: item.code,
                        label: item.label,
                        kind: item.kind,
                    })
                    .collect();
                if !items.is_empty() {
                    self.add_names(&names, &mut items);
                }
                Completions {
                    items,
                    start: added.own_byte(found.start_offset),
                    end: added.own_byte(found.end_offset),
                }
            }
            // Where there is no code there is nothing to suggest.
            Ok(Err(_)) | Err(_) => Completions {
                items: Vec::new(),
                start: position,
                end: position,
            },
        }
    }

    /// The namespace's names that may go on with what is before the cursor.
    fn names_at(&self, cell: &str, position: usize) -> Vec<String> {
        let before = cell.get(..position).unwrap_or_default();
        let is_word = |c: char| c.is_alphanumeric() || c == '_';
        let path = before.trim_end_matches(is_word);
        let is_member = path.ends_with("::") || path.ends_with('.') && !path.ends_with("..");
        if is_member || position < code_start(cell) {
            return Vec::new();
        }
        let typed = &before[path.len()..];
        let names = self
            .summary
            .variables
            .keys()
            .chain(self.summary.definitions.keys());
        names
            .filter(|name| name.starts_with(typed))
            .cloned()
            .collect()
    }

    /// Adds names of the namespace that rust-analyzer was not shown.
    fn add_names(&self, names: &[String], items: &mut Vec<Completion>) {
        let name = |item: &Completion| {
            let end = item.text.find(|c: char| !(c.is_alphanumeric() || c == '_'));
            item.text[..end.unwrap_or(item.text.len())].to_owned()
        };
        let there: HashSet<String> = items.iter().map(name).collect();
        for name in names.iter().filter(|name| !there.contains(*name)) {
            let (label, kind) = match self.summary.variables.get(name) {
                Some(variable) => (format!("{name}: {}", variable.kind), "instance"),
                None => (name.clone(), self.summary.kind_of(name)),
            };
            items.push(Completion {
                text: name.clone(),
                label,
                kind,
            });
        }
    }

    /// What is known of the name that ends at the byte `position` of `cell`.
    pub fn inspect(&mut self, cell: &str, position: usize) -> Option<Documentation> {
        self.show_std();
        self.show_crates(cell);
        let cell = cell.get(..position)?;
        let found = statements(cell);
        let reach = Reach::of(&self.summary, &found, []);
        // evcxr knows this keyword by itself only.
        let text = match cell {
            "let" => cell.to_owned(),
            _ => reach.before(cell, &found, "").text,
        };
        let found = catch_unwind(AssertUnwindSafe(|| {
            self.context.hover_at(&text, text.len())
        }));
        let (text, html) = found.ok()?.ok()?;
        (text != "No documentation found").then_some(Documentation { text, html })
    }
}
