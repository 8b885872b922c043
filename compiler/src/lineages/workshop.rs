//! The thread that owns evcxr and the states in memory: compiles what the store doesn't have.

use super::Failure;
use super::commands::{self, Change, Refusal};
use super::local;
use super::recent::Recent;
use super::state::{self, Eval, State, Stopped};
use super::store::{Ending, Record, Step, Store};
use super::summary::{Found, ROOT, Summary};
use crate::bench::{self, Bench, OpenError, Settings, Trouble};
use crate::crates::{CratesError, Dependencies, mentioned};
use crate::diagnostics::{self, Context, diagnostics};
use crate::layouts::Layouts;
use crate::sources::{Cell, Label};
use crate::statements::{Statement, statements};
use crate::stub::Load;
use crate::wrapper::Effort;
use evcxr::EvalContext;
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

/// Takes every value out of the store of an engine's runtime.
const CLEAR: &str = "*evcxr_variable_store = Default::default();";

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
}

/// What a snippet leads to.
struct Outcome {
    lineage: String,
    state: Rc<State>,
    loads: Vec<Load>,
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
        let answer = catch_unwind(AssertUnwindSafe(|| workshop.compile(&job)))
            .unwrap_or_else(|_| Err(Failure::Panicked("no answer".to_owned())));
        let _ = job.answer.send(answer);
        workshop.tidy_up();
        pause = PAUSE;
    }
}

impl Workshop {
    fn open(settings: Settings, stores: &mpsc::Receiver<Store>) -> Result<Workshop, OpenError> {
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
        self.bench
            .pretend(bench::panics(), || eval(evcxr, &[], "()"));
    }

    /// rust-analyzer's standard library.
    fn warm_up(&mut self) {
        let (evcxr, eval) = (&mut self.evcxr, &self.root.eval);
        self.bench.warm_up(|snippet| eval(evcxr, &[], snippet));
        tracing::info!("the compiler is warm");
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
        let (effort, answers) = match job.ending {
            Ending::Completed => (Effort::Compile, Vec::new()),
            Ending::Early => (Effort::Check, bench::panics()),
        };
        let base = match self.state(&job.lineage) {
            Ok(base) => base,
            // Whatever there was, it is given up.
            Err(_) if is_clear(&job.source) => Rc::clone(&self.root),
            Err(failure) => return Err(failure),
        };
        self.compiles += 1;
        let outcome = self.go(&job.lineage, &base, &this, effort, answers)?;
        let mut record = Record {
            lineage: job.lineage.clone(),
            source: source.to_owned(),
            ending: job.ending,
            artifacts: Vec::new(),
            next: outcome.lineage,
            shown: outcome.shown,
            ends_in_expression: outcome.ends_in_expression,
            lost: outcome.lost,
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
            };
            self.keep(|store| store.keep_step(&step));
            self.states.insert(record.next.clone(), state);
        }
        let loads: Vec<PathBuf> = outcome
            .loads
            .into_iter()
            .map(|load| load.artifact)
            .collect();
        let generated = (!loads.is_empty()).then(|| self.bench.generated());
        let names: Option<Vec<String>> = loads
            .iter()
            .map(|load| self.keep(|store| store.keep_artifact(load)))
            .collect();
        // What can't be kept is run from where evcxr has put it.
        let loads = match names {
            Some(names) => {
                record.artifacts = names;
                if outcome.lasting {
                    self.keep(|store| store.keep(&record, generated.as_deref()));
                }
                for load in &loads {
                    // The session's folder goes anyway.
                    let _ = std::fs::remove_file(load);
                }
                record
                    .artifacts
                    .iter()
                    .map(|name| self.store.artifact(name))
                    .collect()
            }
            None => loads,
        };
        tracing::info!(
            lineage = job.lineage,
            ending = ?job.ending,
            milliseconds = began.elapsed().as_millis(),
            "compiled a snippet"
        );
        Ok(Fresh { record, loads })
    }

    fn keep<T>(&self, keep: impl FnOnce(&Store) -> std::io::Result<T>) -> Option<T> {
        keep(&self.store)
            .inspect_err(|error| tracing::warn!(%error, "failed to keep a compiled snippet"))
            .ok()
    }

    /// The state of a lineage. One that is not in memory is compiled again, which runs nothing.
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
            let answers = match step.ending {
                Ending::Completed => Vec::new(),
                Ending::Early => bench::panics(),
            };
            let outcome = self.go(&step.parent, &base, &cell, Effort::Check, answers);
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

    /// Takes a snippet through evcxr.
    fn go(
        &mut self,
        lineage: &str,
        base: &Rc<State>,
        cell: &Cell,
        effort: Effort,
        answers: Vec<Vec<String>>,
    ) -> Result<Outcome, Failure> {
        let orders = commands::interpret(&cell.source, &base.summary)
            .map_err(|refusal| refused(cell, &refusal))?;
        if orders.clear {
            return self.clear(base, cell, effort);
        }
        let found = statements(&orders.code);
        let changes: Vec<Change> = orders
            .changes
            .iter()
            .map(|(_, change)| change.clone())
            .collect();
        let unchanged = Outcome {
            lineage: lineage.to_owned(),
            state: Rc::clone(base),
            loads: Vec::new(),
            shown: orders.shown.clone(),
            lost: Vec::new(),
            ends_in_expression: found.last().is_some_and(Statement::is_expression),
            lasting: !changes.iter().any(local::is_local),
        };
        if found.is_empty() && changes.is_empty() {
            return Ok(unchanged);
        }
        let layouts = base.layouts.after(&found);
        let lost = base.layouts.lost(&layouts, &base.summary.kinds());
        let eval = match lost.is_empty() {
            true => Rc::clone(&base.eval),
            false => self.without(&base.eval, &lost)?,
        };
        let mut summary = base.summary.clone();
        local::note(&changes, &mut summary);
        let mut crates = base.crates.clone();
        let provided = self.provide(&cell.source, &summary, &mut crates)?;
        let is_provided = !provided.is_empty();
        let changes: Vec<Change> = changes.into_iter().chain(provided).collect();
        self.bench.plan.number = cell.number;
        self.bench.plan.display = shows_usually(&summary, &changes);
        self.bench.plan.cache = self.cache.join(local::part(&summary));
        let runs = found.iter().any(Statement::runs);
        // Without code, only dependencies are there to be compiled.
        let effort = match found.is_empty() {
            true => Effort::Pretend,
            false => effort,
        };
        let evcxr = &mut self.evcxr;
        let mut stopped_at = None;
        let pressed = self.bench.press(effort, answers, || {
            eval(evcxr, &changes, &orders.code).inspect_err(|stopped| {
                if let Stopped::Change(index, _) = stopped {
                    stopped_at = Some(*index);
                }
            })
        });
        let pressed = match pressed {
            Ok(pressed) => pressed,
            Err(Trouble::Panicked(message)) => return Err(Failure::Panicked(message)),
            Err(Trouble::Evcxr(error)) => {
                if let Some((range, _)) = stopped_at.and_then(|index| orders.changes.get(index)) {
                    let refusal = Refusal {
                        range: range.clone(),
                        message: error.to_string(),
                    };
                    return Err(refused(cell, &refusal));
                }
                return Err(self.failed(lineage, cell, error));
            }
        };
        summary.apply(&found, state::kinds(&self.evcxr));
        summary.settings = state::settings(&self.evcxr);
        if runs {
            summary.found = summary.found.and(Found::within(&self.bench.generated()));
        }
        let next = summary.lineage(&self.root.summary);
        let loads = if runs {
            pressed.loads
        } else {
            bench::remove(&pressed.loads)
        };
        let introduced: Vec<String> = found.iter().flat_map(Statement::variables).collect();
        let lost = lost
            .into_iter()
            .filter(|name| !introduced.contains(name))
            .collect();
        Ok(Outcome {
            // A lineage doesn't tell who has named the crates, but whoever does it next is not to wait for rust-analyzer again.
            state: match next == lineage && !is_provided {
                true => Rc::clone(base),
                false => Rc::new(State {
                    eval: state::snapshot(&self.evcxr),
                    summary,
                    layouts,
                    crates,
                }),
            },
            lineage: next,
            loads,
            lost,
            ..unchanged
        })
    }

    /// What evcxr's crate is to depend on besides, for a snippet in a state with these dependencies. rustc is told of the crates
    /// that it names; see [`crate::crates`].
    fn provide(
        &mut self,
        source: &str,
        summary: &Summary,
        present: &mut Dependencies,
    ) -> Result<Vec<Change>, Failure> {
        let mentioned = mentioned(source);
        for (name, config) in &summary.dependencies {
            present.add(name, config);
        }
        let depends = !present.own.is_empty() && !present.ours.is_empty();
        if !mentioned.any() && !depends {
            return Ok(Vec::new());
        }
        let refused = |error: CratesError| Failure::Refused(error.to_string());
        let wanted = self.bench.crates().wanted(mentioned, present);
        let wanted = wanted.map_err(refused)?;
        if !wanted.is_empty() || present.own.is_empty() {
            let tell = |sentence: String| tracing::info!("{sentence}");
            self.bench.tell_of_crates(&tell).map_err(refused)?;
        }
        if !wanted.is_empty() && !present.own.is_empty() {
            self.bench.spare_cargo_the_crates();
        }
        let changes = wanted.into_iter().map(|(name, config)| {
            present.add(name, &config);
            Change::Dependency {
                name: name.to_owned(),
                config,
            }
        });
        Ok(changes.collect())
    }

    /// The state without some variables.
    fn without(&mut self, eval: &Eval, names: &[String]) -> Result<Eval, Failure> {
        let evcxr = &mut self.evcxr;
        let forgetting = bench::forgetting(names);
        let work = || eval(evcxr, &[], &forgetting);
        match self.bench.press(Effort::Pretend, bench::panics(), work) {
            Ok(_) => Ok(state::snapshot(&self.evcxr)),
            Err(Trouble::Panicked(message)) => Err(Failure::Panicked(message)),
            Err(Trouble::Evcxr(error)) => Err(Failure::Refused(error.to_string())),
        }
    }

    /// Back to the root, with a snippet that drops what the runtime has.
    fn clear(&mut self, base: &Rc<State>, cell: &Cell, effort: Effort) -> Result<Outcome, Failure> {
        let mut outcome = Outcome {
            lineage: ROOT.to_owned(),
            state: Rc::clone(&self.root),
            loads: Vec::new(),
            shown: Default::default(),
            lost: Vec::new(),
            ends_in_expression: false,
            lasting: true,
        };
        // A snippet has a store if there is something to store.
        let has_store =
            !base.summary.variables.is_empty() || base.summary.found != Found::default();
        if !has_store || effort != Effort::Compile {
            return Ok(outcome);
        }
        self.bench.plan.number = cell.number;
        let (evcxr, eval) = (&mut self.evcxr, &base.eval);
        match self
            .bench
            .press(effort, Vec::new(), || eval(evcxr, &[], CLEAR))
        {
            Ok(pressed) => outcome.loads = pressed.loads,
            // The state is the root's all the same: nothing looks at old values any more.
            Err(trouble) => tracing::warn!(?trouble, "old values stay until their engine ends"),
        }
        Ok(outcome)
    }

    fn failed(&self, lineage: &str, cell: &Cell, error: evcxr::Error) -> Failure {
        let evcxr::Error::CompilationErrors(errors) = error else {
            return Failure::Refused(error.to_string());
        };
        let earlier = self.store.earlier(lineage);
        Failure::Errors(diagnostics(
            &errors,
            &Context {
                cell,
                generated: &self.bench.generated(),
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

/// Whether a last expression is shown as it usually is; see [`crate::rewrite::Options::display`].
fn shows_usually(summary: &Summary, changes: &[Change]) -> bool {
    let (mut format, mut types) = (summary.settings.format.clone(), summary.settings.types);
    for change in changes {
        match change {
            Change::Format(other) => format.clone_from(other),
            Change::Types(on) => types = *on,
            _ => {}
        }
    }
    format == "{:?}" && !types
}

fn is_clear(source: &str) -> bool {
    commands::interpret(source, &Summary::default()).is_ok_and(|orders| orders.clear)
}
