//! The thread that owns evcxr and the states in memory: compiles what the store doesn't have.

use super::Failure;
use super::commands::{self, Change, Orders, Refusal};
use super::local;
use super::recent::Recent;
use super::state::{self, Eval, State, Stopped};
use super::store::{Ending, Record, Step, Store};
use crate::activity::Phase;
use crate::bench::{Bench, NotCompiled, OpenError, Product, Settings, Trouble};
use crate::crates::{Dependencies, mentioned};
use crate::diagnostics::{self, Context, diagnostics};
use crate::inputs::Inputs;
use crate::layouts::Layouts;
use crate::reach::Added;
use crate::sources::{Cell, Label};
use crate::statements::{Statement, statements};
use crate::summary::{Found, ROOT, Summary};
use crate::wrapper::Effort;
use evcxr::{EvalContext, EvalOutputs};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::mpsc;
use std::time::Duration;

/// States in memory. Others are compiled again when they are needed.
const STATES: usize = 64;
/// After this many compiles the wrapper's cache, which is this session's own, begins anew.
const SESSION_CACHE: u64 = 500;
/// After this many compiles the store is brought under its limit.
const SWEEP: u64 = 50;

/// Who has just asked may ask again at once: so long he is not made to wait for a step of the warm-up.
const PAUSE: Duration = Duration::from_millis(300);

/// Takes every value out of the store of an engine's runtime. Without a variable there would be no store.
const CLEAR: &str = "let chorus_cleared = (); *evcxr_variable_store = Default::default();";

/// Something to compile.
pub(super) struct Job {
    pub(super) lineage: String,
    /// As it was written.
    pub(super) source: String,
    pub(super) ending: Ending,
    pub(super) answer: mpsc::Sender<Result<Fresh, Failure>>,
}

/// What was compiled.
#[derive(Clone, Debug)]
pub(super) struct Fresh {
    pub(super) record: Record,
    pub(super) loads: Vec<PathBuf>,
}

struct Workshop {
    evcxr: EvalContext,
    bench: Bench,
    store: Store,
    root: Rc<State>,
    states: Recent<Rc<State>>,
    compiles: u64,
    /// The wrapper's cache, in parts.
    cache: PathBuf,
    /// Where cargo runs.
    folder: PathBuf,
}

/// How it is found what a snippet leads to.
#[derive(Clone, Copy, Debug)]
enum Way<'a> {
    /// By compiling it, for one that ends like this.
    New(Ending),
    /// It has been compiled before.
    Known(&'a Step),
}

/// What a snippet leads to.
struct Outcome {
    lineage: String,
    state: Rc<State>,
    artifact: Option<PathBuf>,
    /// What its compile read; `None` if that can't be told.
    inputs: Option<Inputs>,
    /// The source that was generated for it.
    source: String,
    shown: std::collections::BTreeMap<String, String>,
    lost: Vec<String>,
    ends_in_expression: bool,
    /// Whether it leads there every time: what a local crate is may have changed the next time.
    lasting: bool,
}

/// Serves jobs until nobody can send any. What the first of them would wait for is done before, as long as there is none.
pub(super) fn serve(
    settings: Settings,
    stores: &mpsc::Receiver<Store>,
    jobs: &mpsc::Receiver<Job>,
) {
    let mut workshop = match Workshop::open(settings, stores) {
        Ok(workshop) => workshop,
        Err(error) => {
            tracing::error!(%error, "failed to open the compiler");
            for job in jobs {
                // Nobody waits when the service ends.
                let _ = job.answer.send(Err(Failure::Refused(error.to_string())));
            }
            return;
        }
    };
    tracing::info!("evcxr is open");
    let mut warming: Vec<fn(&mut Workshop)> =
        vec![Workshop::sweep, Workshop::warm_up, Workshop::warm_up_build];
    let mut pause = Duration::ZERO;
    loop {
        let job = match warming.last() {
            None => jobs.recv().ok(),
            Some(step) => match jobs.recv_timeout(pause) {
                Ok(job) => Some(job),
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    step(&mut workshop);
                    warming.pop();
                    continue;
                }
                Err(mpsc::RecvTimeoutError::Disconnected) => None,
            },
        };
        let Some(job) = job else { return };
        let _during = workshop.bench.activity.enter(Phase::of(&job.source));
        let answer = catch_unwind(AssertUnwindSafe(|| workshop.compile(&job)))
            .unwrap_or_else(|_| Err(Failure::Panicked("no answer".to_owned())));
        let _ = job.answer.send(answer);
        workshop.tidy_up();
        pause = PAUSE;
    }
}

impl Workshop {
    fn open(settings: Settings, stores: &mpsc::Receiver<Store>) -> Result<Workshop, OpenError> {
        let folder = settings.folder.clone();
        let (evcxr, bench) = Bench::open(settings)?;
        let store = stores.recv().map_err(|_| OpenError::Toolchain)?;
        let root = Rc::new(State {
            eval: state::snapshot(&evcxr),
            summary: Summary::root(state::settings(&evcxr)),
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
            compiles: 0,
        })
    }

    /// cargo's first build with the wrapper.
    fn warm_up_build(&mut self) {
        let (evcxr, eval) = (&mut self.evcxr, &self.root.eval);
        let built = self
            .bench
            .tell_evcxr(Effort::DryRun, Vec::new(), || eval(evcxr, &[], "()"));
        if let Err(trouble) = built {
            tracing::warn!(?trouble, "the first build was not gone through");
        }
    }

    /// rust-analyzer's standard library.
    fn warm_up(&mut self) {
        let _during = self.bench.activity.enter(Phase::StandardLibrary);
        self.show_std();
        let (evcxr, eval) = (&mut self.evcxr, &self.root.eval);
        self.bench.warm_up(|snippet| eval(evcxr, &[], snippet));
        tracing::info!("the compiler is warm");
    }

    fn show_std(&mut self) {
        let (evcxr, eval) = (&mut self.evcxr, &self.root.eval);
        self.bench.show_std(|bench, level| {
            let level = [Change::OptLevel(level.to_owned())];
            bench.compile_text(|| eval(evcxr, &level, "()")).map(drop)
        });
    }

    fn sweep(&mut self) {
        match self.store.sweep() {
            Ok(swept) => tracing::info!(?swept, "the cache has its size"),
            Err(error) => tracing::warn!(%error, "the cache can't be kept small"),
        }
    }

    fn tidy_up(&mut self) {
        if self.compiles > 0 && self.compiles.is_multiple_of(SWEEP) {
            self.sweep();
        }
        if self.compiles > 0 && self.compiles.is_multiple_of(SESSION_CACHE) {
            // It isn't there when nothing was compiled that could be kept.
            let _ = std::fs::remove_dir_all(&self.cache);
        }
    }

    fn compile(&mut self, job: &Job) -> Result<Fresh, Failure> {
        let began = std::time::Instant::now();
        let source = super::normalised(&job.source);
        let this = Cell {
            number: self.store.number(&job.lineage, source, job.ending),
            label: Label::Snippet,
            source: job.source.clone(),
            shown: None,
        };
        let base = match self.state(&job.lineage) {
            Ok(base) => base,
            // Whatever there was, it is given up.
            Err(_) if is_clear(&job.source) => Rc::clone(&self.root),
            Err(failure) => return Err(failure),
        };
        self.compiles += 1;
        let outcome = self.go(&job.lineage, &base, &this, Way::New(job.ending))?;
        let mut record = Record {
            lineage: job.lineage.clone(),
            source: source.to_owned(),
            ending: job.ending,
            artifacts: Vec::new(),
            next: outcome.lineage,
            shown: outcome.shown,
            ends_in_expression: outcome.ends_in_expression,
            lost: outcome.lost,
            reads: !outcome.inputs.as_ref().is_some_and(Inputs::is_empty)
                || local::has_local(&base.summary),
            inputs: Inputs::default(),
        };
        let state = outcome.state;
        if record.next == job.lineage && !Rc::ptr_eq(&state, &base) {
            match record.next == ROOT {
                true => self.root = state,
                false => self.states.insert(record.next.clone(), state),
            }
        } else if record.next != job.lineage && record.next != ROOT {
            let step = Step {
                lineage: record.next.clone(),
                parent: job.lineage.clone(),
                source: source.to_owned(),
                ending: job.ending,
                variables: state.summary.kinds(),
                found: state.summary.found,
            };
            self.keep(|store| store.keep_step(&step));
            self.states.insert(record.next.clone(), state);
        }
        // How a snippet ends early is asked of one that has been handed out.
        let artifact = outcome.artifact.filter(|_| job.ending == Ending::Completed);
        let generated = artifact.as_ref().map(|_| outcome.source.as_str());
        let kept = artifact
            .as_ref()
            .map(|artifact| self.keep(|store| store.keep_artifact(artifact)));
        let loads = match (kept, artifact) {
            // What can't be kept is run from where it was made.
            (Some(None), Some(artifact)) => vec![artifact],
            (kept, _) => {
                record.artifacts = kept.flatten().into_iter().collect();
                let inputs = outcome.inputs.filter(|_| outcome.lasting);
                if let Some(inputs) = inputs.and_then(|inputs| self.lasting(inputs, &base.summary))
                {
                    record.inputs = inputs;
                    self.keep(|store| store.keep(&record, generated));
                }
                let names = record.artifacts.iter();
                names.map(|name| self.store.artifact(name)).collect()
            }
        };
        tracing::info!(
            lineage = job.lineage,
            ending = ?job.ending,
            milliseconds = began.elapsed().as_millis(),
            "compiled a snippet"
        );
        Ok(Fresh { record, loads })
    }

    /// What other sessions have to compare before they use what was compiled in a state; `None` if they can't.
    fn lasting(&self, mut inputs: Inputs, summary: &Summary) -> Option<Inputs> {
        if local::has_local(summary) {
            return None;
        }
        // The state's own variables are part of its lineage.
        inputs
            .environment
            .retain(|name, _| !summary.environment.contains_key(name));
        // What only cargo sets, it sets for this session.
        let is_ours =
            |(name, value): (&String, &Option<String>)| std::env::var(name).ok() == *value;
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

    /// Returns the state of a lineage. One that is not in memory is restored from its steps; of these, only dependencies are compiled.
    fn state(&mut self, lineage: &str) -> Result<Rc<State>, Failure> {
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
            let cell = Cell {
                number: self.store.number(&step.parent, &step.source, step.ending),
                label: Label::EarlierSnippet,
                source: step.source.clone(),
                shown: None,
            };
            let outcome = self.go(&step.parent, &base, &cell, Way::Known(&step));
            base = match outcome {
                Ok(outcome) if outcome.lineage == step.lineage => outcome.state,
                other => {
                    let why = other.err().map(|failure| failure.headline());
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
    fn go(
        &mut self,
        lineage: &str,
        base: &Rc<State>,
        cell: &Cell,
        way: Way<'_>,
    ) -> Result<Outcome, Failure> {
        let orders = commands::interpret(&cell.source, &base.summary)
            .map_err(|refusal| refused(cell, &refusal))?;
        if orders.clear {
            return Ok(self.clear(base, cell));
        }
        let found = statements(&orders.code);
        let changes: Vec<Change> = orders
            .changes
            .iter()
            .map(|(_, change)| change.clone())
            .collect();
        let mut unchanged = Outcome {
            lineage: lineage.to_owned(),
            state: Rc::clone(base),
            artifact: None,
            inputs: Some(Inputs::default()),
            source: String::new(),
            shown: orders.shown.clone(),
            lost: Vec::new(),
            ends_in_expression: found.last().is_some_and(Statement::is_expression),
            lasting: !changes.iter().any(local::is_local),
        };
        if found.is_empty() && changes.is_empty() {
            return Ok(unchanged);
        }
        if matches!(way, Way::New(_)) && self.bench.lacks_std(&found) {
            self.show_std();
        }
        let layouts = base.layouts.after(&found);
        let lost = base.layouts.lost(&layouts, &base.summary.kinds());
        let mut summary = base.summary.clone();
        summary.variables.retain(|name, _| !lost.contains(name));
        local::note(&changes, &mut summary);
        let mut crates = base.crates.clone();
        let depends = changes.iter().any(Change::is_dependency);
        let provided = self.provide(&cell.source, depends, &summary, &mut crates)?;
        let is_provided = !provided.is_empty();
        let changes: Vec<Change> = changes.into_iter().chain(provided).collect();
        self.bench.plan.number = cell.number;
        self.bench.plan.cache = self.cache.join(local::part(&summary));
        local::set(&changes, &mut summary.settings);
        self.bench.plan.display = summary.settings.format == "{:?}" && !summary.settings.types;
        self.bench.plan.catches = summary.settings.preserve_vars_on_panic;
        let mut product = None;
        let mut eval = Rc::clone(&base.eval);
        let mut new = Found::default();
        match way {
            Way::New(ending) if !found.is_empty() => {
                let Product {
                    kept,
                    source,
                    after,
                } = self.evaluate(
                    lineage,
                    &eval,
                    cell,
                    &orders,
                    &changes,
                    |bench, evaluate| bench.compile(&summary, &orders.code, &found, "", evaluate),
                )?;
                summary.apply(
                    &found,
                    match ending {
                        Ending::Completed => after.completed,
                        Ending::Early => after.early,
                    },
                );
                if let Some(kept) = kept {
                    unchanged.inputs = kept.inputs;
                    if found.iter().any(Statement::runs) {
                        new = Found::within(&source).beyond(summary.found);
                        product = Some((kept.artifact, source));
                    }
                }
            }
            Way::New(_) => {}
            Way::Known(step) => {
                summary.apply(&found, step.variables.clone());
                new = step.found.beyond(summary.found);
            }
        }
        if !changes.is_empty() {
            self.evaluate(
                lineage,
                &eval,
                cell,
                &orders,
                &changes,
                |bench, evaluate| {
                    let done = bench.tell_evcxr(Effort::DryRun, Vec::new(), || evaluate(""));
                    done.map_err(NotCompiled::from)
                },
            )?;
            eval = state::snapshot(&self.evcxr);
            summary.settings = state::settings(&self.evcxr);
        }
        if new != Found::default() {
            let (evcxr, bench) = (&mut self.evcxr, &mut self.bench);
            let has = |name| summary.dependencies.contains_key(name);
            eval = bench.teach(new, eval, |eval, dependency, snippet| {
                let missing = dependency.filter(|(name, _)| !has(*name));
                let changes: Vec<Change> = missing.map(Change::dependency).into_iter().collect();
                eval(evcxr, &changes, snippet).map(|_| state::snapshot(evcxr))
            });
            summary.found = summary.found.and(new);
        }
        let next = summary.lineage(&self.root.summary);
        let introduced: Vec<String> = found.iter().flat_map(Statement::variables).collect();
        let lost = lost
            .into_iter()
            .filter(|name| !introduced.contains(name))
            .collect();
        let (artifact, source) = product.unzip();
        Ok(Outcome {
            // A lineage doesn't tell who has named the crates, but whoever does it next is not to wait for rust-analyzer again.
            state: match next == lineage && !is_provided {
                true => Rc::clone(base),
                false => Rc::new(State {
                    eval,
                    summary,
                    layouts,
                    crates,
                }),
            },
            lineage: next,
            artifact,
            source: source.unwrap_or_default(),
            lost,
            ..unchanged
        })
    }

    /// Has the bench do something with evcxr in this state, after some changes of it.
    fn evaluate<T>(
        &mut self,
        lineage: &str,
        eval: &Eval,
        cell: &Cell,
        orders: &Orders,
        changes: &[Change],
        work: impl FnOnce(
            &mut Bench,
            &mut dyn FnMut(&str) -> Result<EvalOutputs, Stopped>,
        ) -> Result<T, NotCompiled>,
    ) -> Result<T, Failure> {
        let evcxr = &mut self.evcxr;
        let mut stopped_at = None;
        let done = work(&mut self.bench, &mut |text| {
            eval(evcxr, changes, text).inspect_err(|stopped| {
                if let Stopped::Change(index, _) = stopped {
                    stopped_at = Some(*index);
                }
            })
        });
        done.map_err(|NotCompiled { trouble, added }| match trouble {
            Trouble::Panicked(message) => Failure::Panicked(message),
            Trouble::Evcxr(error) => match stopped_at.and_then(|index| orders.changes.get(index)) {
                Some((range, _)) => {
                    let refusal = Refusal {
                        range: range.clone(),
                        message: error.to_string(),
                    };
                    refused(cell, &refusal)
                }
                None => self.failed(lineage, cell, added, error),
            },
        })
    }

    /// Returns the dependencies on our crates that a snippet needs in a state with `present` ones; `depends` says that the snippet
    /// adds some of its own. rustc learns of the crates that the snippet names; see [`crate::crates`].
    fn provide(
        &mut self,
        source: &str,
        depends: bool,
        summary: &Summary,
        present: &mut Dependencies,
    ) -> Result<Vec<Change>, Failure> {
        let mentioned = mentioned(source);
        for (name, config) in &summary.dependencies {
            present.add(name, config);
        }
        if !mentioned.any() && !depends {
            return Ok(Vec::new());
        }
        let wanted = self.bench.provide(mentioned, present);
        let wanted = wanted.map_err(|error| Failure::Refused(error.to_string()))?;
        let changes = wanted.into_iter().map(|(name, config)| {
            present.add(name, &config);
            Change::Dependency {
                name: name.to_owned(),
                config,
            }
        });
        Ok(changes.collect())
    }

    /// Back to the root, with a snippet that drops what the runtime has.
    fn clear(&mut self, base: &Rc<State>, cell: &Cell) -> Outcome {
        let mut outcome = Outcome {
            lineage: ROOT.to_owned(),
            state: Rc::clone(&self.root),
            artifact: None,
            inputs: Some(Inputs::default()),
            source: String::new(),
            shown: Default::default(),
            lost: Vec::new(),
            ends_in_expression: false,
            lasting: true,
        };
        if base.summary.variables.is_empty() && base.summary.found == Found::default() {
            return outcome;
        }
        self.bench.plan.number = cell.number;
        let (evcxr, eval) = (&mut self.evcxr, &base.eval);
        let evaluate = |text: &str| eval(evcxr, &[], text);
        let found = statements(CLEAR);
        match self
            .bench
            .compile(&Summary::default(), CLEAR, &found, "", evaluate)
        {
            Ok(product) => {
                outcome.artifact = product.kept.map(|kept| kept.artifact);
                outcome.source = product.source;
            }
            // The state is the root's all the same: nothing looks at old values any more.
            Err(failed) => tracing::warn!(?failed, "old values stay until their engine ends"),
        }
        outcome
    }

    fn failed(&self, lineage: &str, cell: &Cell, added: Added, error: evcxr::Error) -> Failure {
        let evcxr::Error::CompilationErrors(errors) = error else {
            return Failure::Refused(error.to_string());
        };
        let earlier = self.store.earlier(lineage);
        Failure::Errors(diagnostics(
            &errors,
            &Context {
                cell,
                generated: &self.bench.generated(),
                added,
                earlier: earlier.iter().collect(),
            },
        ))
    }
}

fn refused(cell: &Cell, refusal: &Refusal) -> Failure {
    Failure::Errors(vec![diagnostics::of_command(
        cell,
        refusal.range.clone(),
        &refusal.message,
    )])
}

fn is_clear(source: &str) -> bool {
    commands::interpret(source, &Summary::default()).is_ok_and(|orders| orders.clear)
}
