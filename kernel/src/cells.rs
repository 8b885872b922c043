//! Cells with magics in them: their Rust is evaluated here, what their magics ask for is done here or on engines.

use crate::carrier::{Door, Programs};
use crate::engines::{self, Engines};
use crate::evaluator::{Ask, Cell, Evaluator, Interrupts};
use crate::kernel::lock;
use cluster::Lineage;
use cluster::failure::{Subject, interrupted_early, not_ready};
use cluster::output::Output;
use compiler::{Completeness, completeness};
use magics::cell::Code;
use magics::run::{Evaluated, Variable, only_asks};
use magics::{EngineId, Failure, Magics, Notebook, Shown};
use protocol::message::iopub::{
    CompileStatus, DisplayData, Stream, StreamName, Transient, UpdateDisplayData,
};
use protocol::message::{ErrorInfo, MimeBundle};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

/// Where a cell's output goes.
pub(crate) type Emit = Arc<dyn Fn(Output) + Send + Sync>;

/// Runs cells, one at a time.
#[derive(Debug)]
pub(crate) struct Cells {
    evaluator: Evaluator,
    executable: PathBuf,
    /// Held by the cell that runs.
    state: tokio::sync::Mutex<State>,
    engines: engines::Known,
    /// What cells' programs do on engines.
    programs: Programs,
    /// Names of variables, functions and types that snippets gave to engines, as of the last cell.
    names: Mutex<Vec<String>>,
}

#[derive(Debug)]
struct State {
    magics: Magics,
    engines: engines::Shared,
}

/// Whether a statement could begin after `text`.
pub(crate) fn at_boundary(text: &str) -> bool {
    completeness(text) == Completeness::Complete
}

impl Cells {
    /// Cells that `evaluator` evaluates. `executable` is this program, which the processes of a cluster run.
    /// Their programs come in by the door, if there is one.
    pub(crate) fn new(evaluator: Evaluator, executable: PathBuf, door: Option<Door>) -> Cells {
        let (engines, known) = engines::Shared::new(executable.clone());
        Cells {
            programs: Programs::new(evaluator.clone(), engines.clone(), door),
            evaluator,
            executable,
            engines: known,
            state: tokio::sync::Mutex::new(State {
                magics: Magics::new(),
                engines,
            }),
            names: Mutex::default(),
        }
    }

    /// Runs a cell until one of `interrupts` comes, and gives its value. All of its output has been emitted when this returns.
    pub(crate) async fn run(
        &self,
        cell: &Cell,
        emit: Emit,
        ask: &mut impl Ask,
        interrupts: Interrupts,
    ) -> Result<Option<MimeBundle>, ErrorInfo> {
        let mut here = Here {
            evaluator: &self.evaluator,
            count: cell.count,
            emit,
            ask,
            interrupts,
        };
        if only_asks(&cell.code, &at_boundary) {
            let (mut magics, mut engines) = (Magics::new(), Engines::new(self.executable.clone()));
            let outcome = magics.run_cell(&cell.code, &mut engines, &mut here);
            return outcome.await.map_err(error_info);
        }
        let mut state = tokio::select! {
            state = self.state.lock() => state,
            () = here.interrupted() => return Err(interrupted_early(Subject::Cell)),
        };
        let State { magics, engines } = &mut *state;
        let mut programs = self.programs.begin(&here.emit);
        let outcome = magics.run_cell(&cell.code, engines, &mut here).await;
        if outcome.is_ok() {
            programs.settle();
        }
        drop(programs);
        *lock(&self.names) = magics.engine_names().map(str::to_owned).collect();
        outcome.map_err(|failure| named_error(cell, failure))
    }

    /// The compile-time state of an engine; the notebook's own if none has told one.
    pub(crate) fn engine_lineage(&self) -> Lineage {
        let told = self.engines.lineage();
        told.unwrap_or_else(|| self.evaluator.lineage())
    }

    /// The engines there are, also while a cell runs.
    pub(crate) fn engine_ids(&self) -> Vec<EngineId> {
        self.engines.ids().unwrap_or_default()
    }

    /// Names that snippets gave to variables, functions and types of the engines, as of the last cell.
    pub(crate) fn engine_names(&self) -> Vec<String> {
        lock(&self.names).clone()
    }

    /// The interrupts from now on.
    pub(crate) fn interrupts(&self) -> Interrupts {
        self.evaluator.interrupts()
    }

    /// Ends the cell that runs, and what it does on engines.
    pub(crate) fn interrupt(&self) {
        self.programs.interrupt();
        self.evaluator.interrupt();
    }

    /// Ends what runs, the evaluator, and the cluster if it is the notebook's own.
    pub(crate) async fn shutdown(&self) {
        self.evaluator.shutdown().await;
        self.programs.shutdown().await;
        self.state.lock().await.engines.shutdown().await;
    }
}

/// The notebook, for the magics of one cell.
struct Here<'a, A> {
    evaluator: &'a Evaluator,
    count: u32,
    emit: Emit,
    ask: &'a mut A,
    interrupts: Interrupts,
}

impl<A: Ask> Notebook for Here<'_, A> {
    fn at_boundary(&self, text: &str) -> bool {
        at_boundary(text)
    }

    async fn evaluate(&mut self, code: &Code) -> Result<Evaluated, Failure> {
        let cell = Cell {
            code: code.source(),
            shown: code.shown(),
            count: self.count,
        };
        let emit = Arc::clone(&self.emit);
        self.evaluator
            .evaluate(
                &cell,
                move |output| emit(output),
                self.ask,
                &mut self.interrupts,
            )
            .await
            .map_err(failure_of)
    }

    fn show(&mut self, shown: Shown) {
        (self.emit)(output(shown));
    }

    async fn variables(&mut self) -> Vec<Variable> {
        let variables = self.evaluator.variables().await;
        variables
            .into_iter()
            .map(|(name, type_name)| Variable {
                name,
                type_name,
                summary: None,
            })
            .collect()
    }

    async fn checkpoint(&mut self, on: Option<bool>) -> Result<String, Failure> {
        if let Some(on) = on {
            self.evaluator
                .set_checkpoints(on)
                .await
                .map_err(|message| failure_of(not_ready(Subject::Cell, &message)))?;
        }
        let checkpoints = self.evaluator.checkpoints();
        Ok(if checkpoints.on {
            format!(
                "Checkpoints are on: a cell that dies or is interrupted leaves every variable as it was. \
                 None is made when the variables take more than {} GB.\n",
                checkpoints.limit >> 30
            )
        } else {
            "Checkpoints are off: a cell that dies or is interrupted takes all variables with it.\n"
                .to_owned()
        })
    }

    async fn interrupted(&mut self) {
        if self.interrupts.changed().await.is_err() {
            // The evaluator has gone, and nobody interrupts any more.
            std::future::pending::<()>().await;
        }
    }
}

fn output(shown: Shown) -> Output {
    match shown {
        Shown::Stream { name, text } => Output::Stream(Stream {
            name: match name {
                magics::StreamName::Stdout => StreamName::Stdout,
                magics::StreamName::Stderr => StreamName::Stderr,
            },
            text,
        }),
        Shown::Display {
            data,
            metadata,
            display_id,
        } => Output::Display(DisplayData {
            data,
            metadata,
            transient: display_id
                .as_deref()
                .map(Transient::named)
                .unwrap_or_default(),
        }),
        Shown::Compiling { activity } => Output::CompileStatus(CompileStatus { activity }),
        Shown::Update {
            data,
            metadata,
            display_id,
        } => Output::Update(UpdateDisplayData {
            data,
            metadata,
            transient: Transient::named(&display_id),
        }),
    }
}

fn failure_of(error: ErrorInfo) -> Failure {
    Failure {
        ename: error.ename,
        evalue: error.evalue,
        traceback: error.traceback,
    }
}

/// An error of a cell that has run its own code on engines: these know that as a snippet, with the cell's lines.
fn named_error(cell: &Cell, mut failure: Failure) -> ErrorInfo {
    let runs_its_own = cell.code.contains("%px") && !cell.code.contains("%pxresult");
    for text in failure.traceback.iter_mut().filter(|_| runs_its_own) {
        for arrow in ["--> ", "--> \u{1b}[0m"] {
            *text = text.replace(
                &format!("{arrow}snippet:"),
                &format!("{arrow}In[{}]:", cell.count),
            );
        }
    }
    error_info(failure)
}

fn error_info(failure: Failure) -> ErrorInfo {
    ErrorInfo {
        ename: failure.ename,
        evalue: failure.evalue,
        traceback: failure.traceback,
    }
}
