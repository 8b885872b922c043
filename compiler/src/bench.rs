//! evcxr on its bench: behind a stub that runs nothing and a wrapper around rustc, told by a [`Plan`] what the next compile is for.
//!
//! What a notebook and a cluster's compiler have in common. Which state is compiled in is theirs.

use crate::crates::{Crates, CratesError, Sources};
use crate::stub::{Link, Load};
use crate::support::Support;
use crate::wrapper::{self, Effort, Plan};
use evcxr::{EvalContext, EvalOutputs};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::process::Command;
use std::sync::mpsc;
use std::time::Duration;

/// After so long people are told what they wait for.
const PATIENCE: Duration = Duration::from_secs(2);

/// What evcxr's subprocess prints when user code unwound.
pub(crate) const PANICKED: &str = "EVCXR_PANIC_NOTIFICATION";

/// A snippet of which nobody needs more than that evcxr and its compilers have been through it.
const WARM_UP: &str =
    "let chorus_warm_up: Vec<usize> = vec![String::new()].iter().map(|s| s.len()).collect();";

/// What is needed to start evcxr.
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
    /// The crate `chorus`.
    pub crates: Sources,
}

/// What compiles cells.
#[derive(Clone, Debug)]
pub struct Toolchain {
    /// The rustc that evcxr uses.
    pub rustc: PathBuf,
    /// The support library for it.
    pub support: Support,
}

/// Why evcxr could not be started.
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

/// Why evcxr did not do as it was asked.
#[derive(Debug)]
pub(crate) enum Trouble {
    Evcxr(evcxr::Error),
    Panicked(String),
}

impl From<evcxr::Error> for Trouble {
    fn from(error: evcxr::Error) -> Trouble {
        Trouble::Evcxr(error)
    }
}

/// What one go through evcxr gave.
#[derive(Debug)]
pub(crate) struct Pressed {
    pub(crate) outputs: EvalOutputs,
    /// What is to be run; nothing if it was for the books only.
    pub(crate) loads: Vec<Load>,
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
}

impl Bench {
    /// Starts evcxr, which compiles something first. Takes about a second.
    pub(crate) fn open(settings: Settings) -> Result<(EvalContext, Bench), OpenError> {
        let Settings {
            folder,
            executable,
            toolchain,
            support_source,
            crates: sources,
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
            effort: Effort::Pretend,
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
        let bench = Bench {
            link,
            plan,
            plan_path,
            generated: folder.join("src").join("lib.rs"),
            sources,
        };
        Ok((evcxr, bench))
    }

    /// Has evcxr do something that compiles at most one snippet. `answers` are the control lines that the stub gives, load by load.
    pub(crate) fn press<E: Into<Trouble>>(
        &mut self,
        effort: Effort,
        answers: Vec<Vec<String>>,
        work: impl FnOnce() -> Result<EvalOutputs, E>,
    ) -> Result<Pressed, Trouble> {
        self.plan.effort = effort;
        self.link.take();
        self.link.answer_with(answers);
        if let Err(error) = self.plan.write(&self.plan_path) {
            return Err(Trouble::Evcxr(error.into()));
        }
        let outcome = catch_unwind(AssertUnwindSafe(work));
        let (nothing, loads): (Vec<Load>, Vec<Load>) = self
            .link
            .take()
            .loads
            .into_iter()
            .partition(|load| load.answered || effort != Effort::Compile);
        remove(&nothing);
        match outcome {
            Ok(outcome) => Ok(Pressed {
                outputs: outcome.map_err(Into::into)?,
                loads,
            }),
            Err(payload) => Err(Trouble::Panicked(panic_message(&*payload))),
        }
    }

    /// The crates that cells may name, for the present toolchain.
    pub(crate) fn crates(&self) -> Crates {
        Crates::new(self.sources, self.plan.rustc.clone())
    }

    /// Has the wrapper tell rustc of the crates, compiling them if that has not been done.
    pub(crate) fn tell_of_crates(&mut self, tell: &dyn Fn(String)) -> Result<(), CratesError> {
        if self.plan.crates.is_none() {
            self.plan.crates = Some(self.crates().ensure(PATIENCE, tell)?);
        }
        Ok(())
    }

    /// Puts what cargo would make of the crates as ordinary dependencies where it would have put it.
    pub(crate) fn spare_cargo_the_crates(&self) {
        let folder = self.generated.ancestors().nth(2);
        // Without it cargo compiles them once more.
        if let Some(folder) = folder
            && let Err(error) = self.crates().seed(folder)
        {
            tracing::info!(%error, "the crates are compiled for this session");
        }
    }

    /// Has evcxr go through a snippet for its books only. It is to be one that compiles.
    pub(crate) fn pretend<E: Into<Trouble>>(
        &mut self,
        answers: Vec<Vec<String>>,
        work: impl FnOnce() -> Result<EvalOutputs, E>,
    ) {
        if let Err(trouble) = self.press(Effort::Pretend, answers, work) {
            tracing::error!(?trouble, "evcxr's state may differ from the runtime's");
        }
    }

    /// Has rust-analyzer load the standard library and cargo build with the wrapper once, which the first snippet would wait for.
    /// `work` is to evaluate what it is given, and to leave no trace of it in a state.
    pub(crate) fn warm_up<E: Into<Trouble>>(
        &mut self,
        work: impl FnOnce(&str) -> Result<EvalOutputs, E>,
    ) {
        self.pretend(panics(), || work(WARM_UP));
    }

    /// The source that evcxr generated last.
    pub(crate) fn generated(&self) -> String {
        std::fs::read_to_string(&self.generated).unwrap_or_default()
    }
}

/// Removes what nobody will run.
pub(crate) fn remove(loads: &[Load]) -> Vec<Load> {
    for load in loads {
        // The session's folder goes anyway.
        let _ = std::fs::remove_file(&load.artifact);
    }
    Vec::new()
}

/// The stub's answer by which a snippet stores nothing new.
pub(crate) fn panics() -> Vec<Vec<String>> {
    vec![vec![PANICKED.to_owned()]]
}

/// A snippet that leaves none of these variables if it [`panics`].
pub(crate) fn forgetting(names: &[String]) -> String {
    let lets: Vec<String> = names
        .iter()
        .map(|name| format!("let {name} = 0;"))
        .collect();
    lets.join("\n")
}

fn panic_message(payload: &(dyn std::any::Any + Send)) -> String {
    payload
        .downcast_ref::<&str>()
        .map(|message| (*message).to_owned())
        .or_else(|| payload.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no message".to_owned())
}
