//! evcxr and the states in memory: compiles what the store doesn't have, and completes code.

use super::amending::{Compiled, NotAmended};
use super::ask::{Answer, Ask, Fresh, Refused, Task, Text};
use super::commands::{self, Orders, Refusal, Reset, Said};
use super::context::{Basis, Evcxr};
use super::local;
use super::recent::Recent;
use super::store::{self, Next, Owner, Record, Store};
use super::{Base, Failure};
use crate::activity::Phase;
use crate::bench::{Bench, NotCompiled, OpenError, Product, Settings, Toolchain, Trouble};
use crate::crates::{Dependencies, mentioned};
use crate::diagnostics;
use crate::inputs::Inputs;
use crate::layouts::Layouts;
use crate::reach::Added;
use crate::sources::{Cell, newlines, with_line_numbers};
use crate::statements::{Statement, code_start, is_command, statements, without_commands};
use crate::summary::{Found, ROOT, Summary, Variable};
use crate::support::Support;
use crate::wrapper::{self, Effort, Kept};
use std::collections::{BTreeMap, HashSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::rc::Rc;

/// States in memory. Others are restored when they are needed.
const STATES: usize = 64;
/// After this many compiles the wrapper's cache, which is this session's own, begins anew.
const SESSION_CACHE: u64 = 500;
/// After this many compiles the store is brought under its limit.
const SWEEP: u64 = 50;

/// Takes every value out of the store of an engine's runtime. Without a variable there would be no store.
const CLEAR: &str = "let chorus_cleared = (); *evcxr_variable_store = Default::default();";

/// A state of a namespace, and what is known of it.
#[derive(Clone)]
pub(super) struct State {
    pub(super) summary: Summary,
    layouts: Layouts,
    /// What evcxr's crate depends on.
    pub(super) crates: Dependencies,
}

impl State {
    fn basis(&self) -> Basis {
        Basis::of(&self.summary, &self.crates)
    }

    fn with_variables(&self, variables: BTreeMap<String, Variable>) -> State {
        let mut state = self.clone();
        state.summary.variables = variables;
        state.forget_crates();
        state
    }

    /// What the user's own crates were compiled to matters for the variables that are made of them.
    fn forget_crates(&mut self) {
        let kinds = self.summary.kinds();
        let layouts = &self.layouts;
        let matters = |name: &str| !layouts.made_of(&HashSet::from([name]), &kinds).is_empty();
        self.summary.local_crates.retain(|name, _| matters(name));
    }
}

pub(super) struct Workshop {
    pub(super) evcxr: Evcxr,
    pub(super) bench: Bench,
    store: Store,
    root: Rc<State>,
    states: Recent<Rc<State>>,
    /// What the last snippet leads to, if evcxr has not been brought there.
    ahead: Option<Rc<State>>,
    compiles: u64,
    /// The wrapper's cache, in parts.
    cache: PathBuf,
    /// Where cargo runs.
    folder: PathBuf,
}

/// How it is found what a snippet leads to.
#[derive(Clone, Copy, Debug)]
enum Way<'a> {
    /// By compiling it.
    New,
    /// It has been compiled before.
    Known(&'a store::Step),
}

/// What a snippet leads to.
struct Outcome {
    completed: Rc<State>,
    early: Rc<State>,
    undone: Rc<State>,
    artifact: Option<PathBuf>,
    /// What its compile read; `None` if that can't be told.
    inputs: Option<Inputs>,
    /// The source that was generated for it.
    source: String,
    shown: BTreeMap<String, String>,
    lost: Vec<String>,
    notes: Vec<String>,
    ends_in_expression: bool,
    /// Whether it leads there every time: what a local crate is may have changed the next time.
    lasting: bool,
    restarts: bool,
    support: Option<Support>,
}

impl Outcome {
    /// Of a snippet with which nothing is compiled.
    fn to(state: Rc<State>) -> Outcome {
        Outcome {
            early: Rc::clone(&state),
            undone: Rc::clone(&state),
            completed: state,
            artifact: None,
            inputs: Some(Inputs::default()),
            source: String::new(),
            shown: BTreeMap::new(),
            lost: Vec::new(),
            notes: Vec::new(),
            ends_in_expression: false,
            lasting: true,
            restarts: false,
            support: None,
        }
    }

    fn show(&mut self, kind: &str, text: &str) {
        self.shown
            .entry(kind.to_owned())
            .or_default()
            .push_str(text);
    }
}

/// What the first who asks would wait for.
type Step = fn(&mut Workshop);

impl Workshop {
    pub(super) fn open(settings: Settings, base: Base) -> Result<Workshop, OpenError> {
        let folder = settings.folder.clone();
        let Base {
            rustc,
            support,
            store,
        } = base;
        let (evcxr, bench) = Bench::open(settings, Toolchain { rustc, support })?;
        let evcxr = Evcxr::new(evcxr);
        let root = Rc::new(State {
            summary: Summary::root(evcxr.initial().clone()),
            layouts: Layouts::default(),
            crates: Dependencies::default(),
        });
        Ok(Workshop {
            cache: bench.plan.cache.clone(),
            folder,
            evcxr,
            bench,
            store,
            root,
            states: Recent::new(STATES),
            ahead: None,
            compiles: 0,
        })
    }

    /// The steps that make it warm, the last one first. A snippet that needs no types doesn't wait for the standard library, and a compile not for
    /// the first completion.
    pub(super) fn warming() -> Vec<Step> {
        vec![
            Workshop::sweep,
            Workshop::warm_up_completion,
            Workshop::warm_up,
            Workshop::warm_up_build,
        ]
    }

    /// Answers a question.
    pub(super) fn answer(&mut self, ask: Ask) -> Result<Answer, Refused> {
        match ask {
            Ask::Compile(task) => {
                let fresh = self.compile(&task)?;
                Ok(Answer::Compiled(Box::new(fresh)))
            }
            Ask::Without { lineage, variables } => {
                let next = self.without(&lineage, variables.as_deref())?;
                Ok(Answer::Lineage(next))
            }
            Ask::Variables { lineage } => {
                let state = self.state(&lineage)?;
                Ok(Answer::Variables(state.summary.kinds()))
            }
            Ask::Complete(Text {
                lineage,
                text,
                position,
            }) => {
                let state = self.state(&lineage)?;
                Ok(Answer::Completions(self.complete(&state, &text, position)))
            }
            Ask::Inspect(Text {
                lineage,
                text,
                position,
            }) => {
                let state = self.state(&lineage)?;
                Ok(Answer::Documentation(self.inspect(&state, &text, position)))
            }
        }
    }

    /// cargo's first build with the wrapper.
    fn warm_up_build(&mut self) {
        let context = &mut self.evcxr.context;
        let built = self
            .bench
            .tell_evcxr(Effort::DryRun, Vec::new(), || context.execute("()"));
        if let Err(trouble) = built {
            tracing::warn!(?trouble, "the first build was not gone through");
        }
    }

    /// rust-analyzer's standard library.
    fn warm_up(&mut self) {
        let _during = self.bench.activity.enter(Phase::StandardLibrary);
        self.show_std();
        let context = &mut self.evcxr.context;
        self.bench.warm_up(|snippet| context.execute(snippet));
        tracing::info!("the compiler is warm");
    }

    fn sweep(&mut self) {
        match self.store.sweep() {
            Ok(swept) => tracing::info!(?swept, "the cache has its size"),
            Err(error) => tracing::warn!(%error, "the cache can't be kept small"),
        }
    }

    /// What is better done now, when nobody waits, than before the next snippet.
    pub(super) fn tidy_up(&mut self) {
        if let Some(state) = self.ahead.take()
            && let Err(trouble) = self.evcxr.bring(&mut self.bench, &state.basis())
        {
            tracing::warn!(?trouble, "evcxr is brought there with the next snippet");
        }
        if self.compiles > 0 && self.compiles.is_multiple_of(SWEEP) {
            self.sweep();
        }
        if self.compiles > 0 && self.compiles.is_multiple_of(SESSION_CACHE) {
            // It isn't there when nothing was compiled that could be kept.
            let _ = std::fs::remove_dir_all(&self.cache);
        }
    }

    /// See [`Bench::show_std`]. A completion changes no state and compiles nothing.
    pub(super) fn show_std(&mut self) {
        let context = &mut self.evcxr.context;
        self.bench.show_std(|_, level| {
            let text = format!(":opt {level}\n()");
            let completed = AssertUnwindSafe(|| context.completions(&text, text.len()).map(drop));
            match catch_unwind(completed) {
                Ok(Ok(())) => Ok(()),
                Ok(Err(error)) => Err(Trouble::Refused(error.to_string())),
                Err(_) => Err(Trouble::Panicked("no completion".to_owned())),
            }
        });
    }

    fn compile(&mut self, task: &Task) -> Result<Fresh, Refused> {
        let source = super::normalised(&task.cell.source);
        let base = match self.state(&task.lineage) {
            Ok(base) => base,
            // Whatever there was, it is given up.
            Err(_) if commands::clears(&task.cell.source, task.owner) => Rc::clone(&self.root),
            Err(failure) => return Err(failure.into()),
        };
        self.compiles += 1;
        self.bench.keep_support();
        let outcome = self.go(task, &base, Way::New)?;
        let states = [&outcome.completed, &outcome.early, &outcome.undone];
        let next: Next = states.map(|state| self.lineage(state)).into();
        for (lineage, state) in next.all().into_iter().zip(states) {
            self.keep_state(lineage, state, task, source);
        }
        self.ahead = Some(Rc::clone(&outcome.completed));
        let mut record = Record {
            lineage: task.lineage.clone(),
            source: source.to_owned(),
            owner: task.owner.of(source),
            artifact: None,
            next,
            shown: outcome.shown,
            ends_in_expression: outcome.ends_in_expression,
            lost: outcome.lost,
            notes: outcome.notes,
            restarts: outcome.restarts,
            reads: !outcome.inputs.as_ref().is_some_and(Inputs::is_empty)
                || local::has_local(&base.summary)
                || !outcome.lasting,
            inputs: Inputs::default(),
        };
        let kept = match &outcome.artifact {
            Some(artifact) => {
                self.keep(|store| store.keep_generated(task.cell.number, &outcome.source));
                self.keep(|store| store.keep_artifact(artifact))
            }
            None => None,
        };
        // What can't be kept is run from where it was made.
        let can_be_kept = kept.is_some() == outcome.artifact.is_some();
        let made = outcome.artifact.clone().filter(|_| kept.is_none());
        record.artifact = kept;
        if can_be_kept
            && outcome.lasting
            && let Some(inputs) = outcome.inputs
            && let Some(inputs) = self.lasting(inputs, &base.summary, task)
        {
            record.inputs = inputs;
            // From now on it is found in the store.
            if self.keep(|store| store.keep(&record)).is_some()
                && let Some(artifact) = &outcome.artifact
            {
                wrapper::forget(artifact);
            }
        }
        Ok(Fresh {
            record,
            made,
            support: outcome.support,
        })
    }

    fn lineage(&self, state: &State) -> String {
        state.summary.lineage(&self.root.summary)
    }

    /// Keeps a state that a snippet leads to, and the way to it.
    fn keep_state(&mut self, lineage: &str, state: &Rc<State>, task: &Task, source: &str) {
        if lineage == ROOT {
            self.root = Rc::clone(state);
            return;
        }
        if lineage != task.lineage {
            let step = store::Step {
                lineage: lineage.to_owned(),
                parent: task.lineage.clone(),
                source: source.to_owned(),
                owner: task.owner.of(source),
                folder: task.folder.clone(),
                variables: state.summary.variables.clone(),
                found: state.summary.found,
                local_crates: state.summary.local_crates.clone(),
            };
            self.keep(|store| store.keep_step(&step));
        }
        self.states.insert(lineage.to_owned(), Rc::clone(state));
    }

    /// The lineage of a state without these variables, or without any.
    fn without(&mut self, lineage: &str, variables: Option<&[String]>) -> Result<String, Failure> {
        let base = self.state(lineage)?;
        let mut left = base.summary.variables.clone();
        left.retain(|name, _| variables.is_some_and(|lost| !lost.contains(name)));
        let state = Rc::new(base.with_variables(left));
        let next = self.lineage(&state);
        let task = Task {
            lineage: lineage.to_owned(),
            owner: Owner::Engine,
            cell: Cell::snippet(0, ""),
            environment: BTreeMap::new(),
            folder: PathBuf::new(),
        };
        self.keep_state(&next, &state, &task, "");
        Ok(next)
    }

    /// What other sessions have to compare before they use what was compiled in a state; `None` if they can't.
    fn lasting(&self, mut inputs: Inputs, summary: &Summary, task: &Task) -> Option<Inputs> {
        if local::has_local(summary) {
            return None;
        }
        // The state's own variables are part of its lineage.
        inputs
            .environment
            .retain(|name, _| !summary.environment.contains_key(name));
        // What only cargo sets, it sets for this session.
        let is_ours = |(name, value): (&String, &Option<String>)| {
            let given = task.environment.get(name).cloned();
            given.or_else(|| std::env::var(name).ok()) == *value
        };
        if !inputs.environment.iter().all(is_ours) {
            return None;
        }
        inputs
            .add_toolchain(&self.bench.plan.rustc, &self.folder)
            .ok()?;
        Some(inputs)
    }

    fn keep<T>(&self, keep: impl FnOnce(&Store) -> std::io::Result<T>) -> Option<T> {
        keep(&self.store)
            .inspect_err(|error| tracing::warn!(%error, "failed to keep a compiled snippet"))
            .ok()
    }

    /// Returns the state of a lineage. One that is not in memory is restored from its steps, for which nothing is compiled.
    pub(super) fn state(&mut self, lineage: &str) -> Result<Rc<State>, Failure> {
        if lineage == ROOT {
            return Ok(Rc::clone(&self.root));
        }
        if let Some(state) = self.states.get(lineage) {
            return Ok(state);
        }
        let steps = self
            .store
            .way(lineage, |at| self.states.contains(at))
            .ok_or_else(|| Failure::UnknownLineage(lineage.to_owned()))?;
        let first = steps.first().map_or(ROOT, |step| &step.parent);
        let mut base = match first {
            ROOT => Rc::clone(&self.root),
            known => self
                .states
                .get(known)
                .ok_or_else(|| Failure::UnknownLineage(lineage.to_owned()))?,
        };
        tracing::info!(lineage, steps = steps.len(), "a state is compiled again");
        for step in steps {
            let task = Task {
                lineage: step.parent.clone(),
                owner: step.owner,
                cell: Cell::snippet(0, &step.source),
                environment: BTreeMap::new(),
                folder: step.folder.clone(),
            };
            let outcome = self.go(&task, &base, Way::Known(&step));
            base = match outcome {
                Ok(outcome) if self.lineage(&outcome.completed) == step.lineage => {
                    outcome.completed
                }
                other => {
                    let why = other.err().map(|refused| refused.headline());
                    tracing::warn!(?why, lineage, "a state can't be compiled again");
                    return Err(Failure::LostLineage {
                        lineage: lineage.to_owned(),
                        why,
                    });
                }
            };
            self.states.insert(step.lineage, Rc::clone(&base));
        }
        Ok(base)
    }

    /// Finds what a snippet leads to.
    fn go(&mut self, task: &Task, base: &Rc<State>, way: Way<'_>) -> Result<Outcome, Refused> {
        let cell = &task.cell;
        let orders = commands::interpret(&cell.source, &base.summary, task.owner, &task.folder)
            .map_err(|refusal| refused(cell, &refusal))?;
        if orders.reset == Some(Reset::All) && task.owner == Owner::Engine {
            return Ok(self.clear(base, cell));
        }
        let base = match orders.reset {
            None => Rc::clone(base),
            Some(Reset::Variables) => Rc::new(base.with_variables(BTreeMap::new())),
            Some(Reset::All) => {
                let mut state = (*self.root).clone();
                // As evcxr does it.
                state.summary.settings = base.summary.settings.clone();
                state.summary.environment = base.summary.environment.clone();
                Rc::new(state)
            }
        };
        let code = &*with_line_numbers(&orders.code);
        let mut found = statements(code);
        let mut outcome = Outcome::to(Rc::clone(&base));
        outcome.restarts = orders.reset.is_some();
        outcome.ends_in_expression = found.last().is_some_and(Statement::is_expression);
        outcome.lasting = orders.are_lasting() && !orders.changes.iter().any(local::is_local);
        if let Way::New = way {
            self.say(task, &base, &orders, &mut outcome)?;
            if found.is_empty() && !orders.change(&base.summary) {
                return Ok(outcome);
            }
        }
        let layouts = base.layouts.after(&found);
        let mut lost = base.layouts.lost(&layouts, &base.summary.kinds());
        let mut summary = base.summary.clone();
        summary.variables.retain(|name, _| !lost.contains(name));
        let mut before = summary.variables.clone();
        summary.give_up_implementations(&found);
        local::note(&orders.changes, &mut summary);
        summary.settings.clone_from(&orders.settings);
        let mut crates = base.crates.clone();
        let ours = self.provide(&orders, &cell.source, &summary, &mut crates)?;
        let other_toolchain = summary.settings.toolchain != base.summary.settings.toolchain;
        if other_toolchain {
            // No two toolchains agree on what a value looks like.
            summary.variables.clear();
            outcome.restarts = true;
            outcome.lasting = false;
        }
        self.bench.plan.number = cell.number;
        self.bench.plan.cache = self.cache.join(local::part(&summary));
        self.bench.plan.display = summary.settings.format == "{:?}" && !summary.settings.types;
        self.bench.plan.catches = summary.settings.preserve_vars_on_panic;
        self.bench.plan.has_local = local::has_local(&summary);
        let mut early = None;
        match way {
            Way::New => {
                let basis = base.basis().given(&task.environment);
                let changed = Basis::of(&summary, &crates).given(&task.environment);
                let brought = self.evcxr.bring(&mut self.bench, &basis);
                brought.map_err(|trouble| self.failed(Added::default(), trouble))?;
                if found.is_empty() || other_toolchain {
                    let done =
                        self.evcxr
                            .apply(&mut self.bench, &setting(&orders, &ours), &changed);
                    done.map_err(|trouble| self.failed(Added::default(), trouble))?;
                }
                if other_toolchain {
                    outcome.support = Some(self.bench.support.clone());
                }
                if !found.is_empty() {
                    let code = match other_toolchain {
                        // Its commands have been done.
                        true => &without_commands(code),
                        false => code,
                    };
                    let mut compiled = self.compile_amended(&mut summary, code, &ours);
                    if let Ok(Compiled {
                        product:
                            Product {
                                kept: Some(kept), ..
                            },
                        ..
                    }) = &compiled
                    {
                        let changed = changed_crates(&summary, kept);
                        let outdated = layouts.made_of(&changed, &summary.kinds());
                        if !outdated.is_empty() {
                            summary.variables.retain(|name, _| !outdated.contains(name));
                            before.clone_from(&summary.variables);
                            let gone = outdated.join(", ");
                            lost.extend(outdated);
                            compiled = self.compile_amended(&mut summary, code, &ours);
                            if let Err(failed) = &mut compiled {
                                failed.hint = Some(format!(
                                    "a crate was changed: the types of {gone} were redefined, so their values are lost"
                                ));
                            }
                        }
                    }
                    let Compiled {
                        product,
                        statements,
                        amendments,
                    } = compiled.map_err(|failed| failed.refused(cell))?;
                    found = statements;
                    outcome.notes = amendments.notes(&product.after.completed);
                    let stays = |(name, variable): &(&String, &Variable)| {
                        product.after.early.get(*name) == Some(&variable.kind)
                    };
                    let left = before.iter().filter(stays);
                    early = Some(
                        left.map(|(name, variable)| (name.clone(), variable.clone()))
                            .collect(),
                    );
                    summary.apply(&found, product.after.completed);
                    if product.kept.is_none() {
                        // evcxr has had nothing to compile, and so is there already.
                        let noted = self.evcxr.apply(&mut self.bench, "", &changed);
                        noted.map_err(|trouble| self.failed(Added::default(), trouble))?;
                    }
                    if let Some(kept) = product.kept {
                        outcome.inputs = kept.inputs;
                        summary.local_crates.extend(kept.local);
                        if found.iter().any(Statement::runs) {
                            summary.found = summary.found.and(Found::within(&product.source));
                            outcome.artifact = Some(kept.artifact);
                            outcome.source = product.source;
                        }
                    }
                }
            }
            Way::Known(step) => {
                summary.apply(&found, BTreeMap::new());
                summary.variables.clone_from(&step.variables);
                summary.found = step.found;
                summary.local_crates.clone_from(&step.local_crates);
            }
        }
        let introduced: Vec<String> = found.iter().flat_map(Statement::variables).collect();
        outcome.lost = lost;
        outcome.lost.retain(|name| !introduced.contains(name));
        let mut state = State {
            summary,
            layouts,
            crates,
        };
        state.forget_crates();
        // Most snippets lead to the same state however they end.
        let other =
            |variables: BTreeMap<String, Variable>| Rc::new(state.with_variables(variables));
        outcome.early = other(early.unwrap_or_else(|| before.clone()));
        outcome.undone = other(if other_toolchain {
            BTreeMap::new()
        } else {
            before
        });
        outcome.completed = Rc::new(state);
        Ok(outcome)
    }

    /// Collects what a snippet's commands say.
    fn say(
        &mut self,
        task: &Task,
        base: &State,
        orders: &Orders,
        outcome: &mut Outcome,
    ) -> Result<(), Refused> {
        for said in &orders.said {
            match said {
                Said::Shown(shown) => {
                    for (kind, text) in shown {
                        outcome.show(kind, text);
                    }
                }
                Said::Evcxr(range) => {
                    // All others tell nothing of the state.
                    if task.cell.source[range.clone()].starts_with(":cache")
                        && let Err(trouble) = self.evcxr.bring(&mut self.bench, &base.basis())
                    {
                        tracing::info!(?trouble, "evcxr answers in another state");
                    }
                    let lines = "\n".repeat(newlines(&task.cell.source[..range.start]));
                    let text = lines + &task.cell.source[range.clone()];
                    let context = &mut self.evcxr.context;
                    let done = self
                        .bench
                        .tell_evcxr(Effort::DryRun, Vec::new(), || context.execute(&text));
                    let outputs = done.map_err(|trouble| self.failed(Added::default(), trouble))?;
                    for (kind, text) in outputs.content_by_mime_type {
                        outcome.show(&kind, &text);
                    }
                }
                Said::Documentation { range, name } => {
                    let found = self.inspect(base, name, name.len());
                    let found = found.ok_or_else(|| {
                        let message = "there is no documentation of it".to_owned();
                        let range = range.clone();
                        refused(&task.cell, &Refusal { range, message })
                    })?;
                    outcome.show("text/plain", &found.text);
                    outcome.show("text/html", &found.html);
                }
            }
        }
        Ok(())
    }

    /// Returns the commands that add to `present` what a snippet needs of our crates. rustc learns of the crates that the snippet names; see [`crate::crates`].
    fn provide(
        &mut self,
        orders: &Orders,
        source: &str,
        summary: &Summary,
        present: &mut Dependencies,
    ) -> Result<String, Failure> {
        let mentioned = mentioned(source);
        for (name, config) in &summary.dependencies {
            present.add(name, config);
        }
        let depends = orders
            .changes
            .iter()
            .any(|change| !matches!(change, commands::Change::BuildEnv { .. }));
        if !mentioned.any() && !depends {
            return Ok(String::new());
        }
        let wanted = self.bench.provide(mentioned, present);
        let wanted = wanted.map_err(|error| Failure::Refused(error.to_string()))?;
        let commands = wanted.into_iter().map(|(name, config)| {
            present.add(name, &config);
            local::command(name, &config)
        });
        Ok(commands.collect())
    }

    /// Back to the root, with a snippet that drops what an engine's runtime has.
    fn clear(&mut self, base: &Rc<State>, cell: &Cell) -> Outcome {
        let mut outcome = Outcome::to(Rc::clone(&self.root));
        if base.summary.variables.is_empty() && base.summary.found == Found::default() {
            return outcome;
        }
        self.bench.plan.number = cell.number;
        let brought = self.evcxr.bring(&mut self.bench, &base.basis());
        let context = &mut self.evcxr.context;
        let found = statements(CLEAR);
        let compiled = brought.map_err(NotCompiled::from).and_then(|()| {
            self.bench
                .compile(&Summary::default(), CLEAR, &found, "", |text| {
                    context.execute(text)
                })
        });
        match compiled {
            Ok(product) => {
                outcome.artifact = product.kept.map(|kept| kept.artifact);
                outcome.source = product.source;
            }
            // The state is the root's all the same: nothing looks at old values any more.
            Err(failed) => tracing::warn!(?failed, "old values stay until their engine ends"),
        }
        outcome
    }

    fn failed(&self, added: Added, trouble: Trouble) -> Refused {
        let unamended = NotAmended {
            failure: NotCompiled { trouble, added },
            reports: self.bench.reports(),
            generated: self.bench.generated(),
            hint: None,
        };
        unamended.refused(&Cell::snippet(0, ""))
    }
}

/// The user's own crates that are others than those that the variables were made with.
fn changed_crates<'a>(summary: &'a Summary, kept: &Kept) -> HashSet<&'a str> {
    let known = summary.local_crates.iter();
    known
        .filter(|(name, hash)| kept.local.get(*name).is_some_and(|now| now != *hash))
        .map(|(name, _)| name.as_str())
        .collect()
}

/// Those of a snippet's commands that change something, on their lines, and `ours`.
fn setting(orders: &Orders, ours: &str) -> String {
    let head = &orders.code[..code_start(&orders.code)];
    let mut text = String::new();
    for line in head.lines() {
        if is_command(line) {
            text.push_str(line);
        }
        text.push('\n');
    }
    text + ours
}

fn refused(cell: &Cell, refusal: &Refusal) -> Refused {
    let failure = Failure::Errors(vec![diagnostics::of_command(
        cell,
        refusal.range.clone(),
        &refusal.message,
    )]);
    failure.into()
}
