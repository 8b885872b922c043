//! A state of evcxr's that snippets can be compiled in again and again.
//!
//! evcxr's `ContextState` is public but its name is not exported, so it lives in a closure.

use super::commands::Change;
use crate::bench::Trouble;
use crate::crates::Dependencies;
use crate::layouts::Layouts;
use crate::summary::{Settings, Summary};
use evcxr::{EvalContext, EvalOutputs};
use std::rc::Rc;

/// Evaluates code in a state, after some changes of it.
pub(crate) type Eval =
    Rc<dyn Fn(&mut EvalContext, &[Change], &str) -> Result<EvalOutputs, Stopped>>;

/// Why an evaluation stopped.
#[derive(Debug)]
pub(crate) enum Stopped {
    /// This change (by its index) can't be made.
    Change(usize, evcxr::Error),
    Evcxr(evcxr::Error),
}

impl From<Stopped> for Trouble {
    fn from(stopped: Stopped) -> Trouble {
        match stopped {
            Stopped::Change(_, error) | Stopped::Evcxr(error) => Trouble::Evcxr(error),
        }
    }
}

/// A state and what is known of it.
pub(crate) struct State {
    pub(crate) eval: Eval,
    pub(crate) summary: Summary,
    pub(crate) layouts: Layouts,
    /// What evcxr's crate depends on.
    pub(crate) crates: Dependencies,
}

/// The present state of evcxr.
pub(crate) fn snapshot(evcxr: &EvalContext) -> Eval {
    let snapshot = evcxr.state();
    Rc::new(move |evcxr, changes, code| {
        let mut state = snapshot.clone();
        for (index, change) in changes.iter().enumerate() {
            let stopped = |error| Stopped::Change(index, error);
            match change {
                Change::Dependency { name, config } => {
                    state.add_dep(name, config).map_err(stopped)?;
                }
                Change::LocalDependency(path) => state.add_local_dep(path).map_err(stopped)?,
                Change::OptLevel(level) => state.set_opt_level(level).map_err(stopped)?,
                Change::Format(format) => state.set_output_format(format.clone()),
                Change::Types(on) => state.set_display_types(*on),
                Change::ErrorFormat(format) => state.set_error_format(format).map_err(stopped)?,
                Change::Offline(on) => state.set_offline_mode(*on),
                Change::Sccache(on) => state.set_sccache(*on).map_err(stopped)?,
                Change::CacheBytes(bytes) => state.set_cache_bytes(*bytes),
                Change::Linker(linker) => state.set_linker(linker.clone()),
                Change::CodegenBackend(backend) => state.set_codegen_backend(backend.clone()),
                Change::PreserveVarsOnPanic(on) => state.set_preserve_vars_on_panic(*on),
                Change::BuildEnv { key, value } => state.set_build_env(key, value),
            }
        }
        evcxr.eval_with_state(code, state).map_err(Stopped::Evcxr)
    })
}

/// evcxr's present settings.
pub(crate) fn settings(evcxr: &EvalContext) -> Settings {
    let mut state = evcxr.state();
    Settings {
        opt_level: state.opt_level().to_owned(),
        format: state.output_format().to_owned(),
        types: state.display_types(),
        error_format: state.error_format().to_owned(),
        linker: state.linker().to_owned(),
        codegen_backend: state.codegen_backend().to_owned(),
        offline: state.offline_mode(),
        sccache: state.sccache(),
        cache_bytes: state.cache_bytes(),
        preserve_vars_on_panic: state.preserve_vars_on_panic(),
    }
}
