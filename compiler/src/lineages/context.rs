//! evcxr, and the state that it is in.
//!
//! evcxr keeps dependencies, settings and two modes; variables and definitions are shown to it with each snippet. Only its command interpreter
//! completes code, and that has no states to go back to. So it is brought to a state by commands, in most cases by none at all.

use super::local;
use crate::bench::{Bench, TOKIO, Trouble};
use crate::crates::Dependencies;
use crate::summary::{Found, Settings, Summary};
use crate::wrapper::Effort;
use evcxr::{CommandContext, EvalContext};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

/// What evcxr's own state consists of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Basis {
    /// Crates that users asked for: name, and what Cargo.toml says of it.
    dependencies: BTreeMap<String, String>,
    /// Crates of ours, which lineages don't know of.
    ours: BTreeSet<(String, String)>,
    /// Environment variables of the build.
    environment: BTreeMap<String, String>,
    /// Those of whoever asks. `:build_env` comes before them.
    given: BTreeMap<String, String>,
    settings: Settings,
    found: Found,
}

impl Basis {
    /// What is needed to compile in a state, with crates of ours.
    pub(super) fn of(summary: &Summary, crates: &Dependencies) -> Basis {
        Basis {
            dependencies: summary.dependencies.clone(),
            ours: crates.ours.clone(),
            environment: summary.environment.clone(),
            given: BTreeMap::new(),
            settings: summary.settings.clone(),
            found: summary.found,
        }
    }

    /// The same for somebody with these environment variables.
    pub(super) fn given(mut self, variables: &BTreeMap<String, String>) -> Basis {
        self.given.clone_from(variables);
        self
    }

    /// Whether something has to go on the way to `wanted`. Crates of ours may stay: nobody sees those that he doesn't name.
    fn has_more_than(&self, wanted: &Basis) -> bool {
        let is_other = |name: &String| !wanted.dependencies.contains_key(name);
        self.dependencies.keys().any(is_other)
            || self.found.beyond(wanted.found) != Found::default()
    }

    /// Whether that is something which only evcxr's initial configuration doesn't have.
    fn is_configured_beyond(&self, wanted: &Basis) -> bool {
        let is_other = |name: &String| !wanted.environment.contains_key(name);
        self.environment.keys().any(is_other)
            || self.settings.toolchain != wanted.settings.toolchain
    }

    /// The commands that lead from here to `wanted`, a line each.
    fn commands_to(&self, wanted: &Basis) -> String {
        let mut commands = String::new();
        let own = wanted.environment.iter();
        let given = wanted.given.iter();
        let given = given.filter(|(name, _)| !wanted.environment.contains_key(*name));
        for (name, value) in own.chain(given) {
            let present = self.environment.get(name).or_else(|| self.given.get(name));
            if present != Some(value) {
                commands += &build_environment(name, value);
            }
        }
        let (from, to) = (&self.settings, &wanted.settings);
        let mut set = |command: &str, from: &str, to: &str| {
            if from != to {
                // Writing to a string does not fail.
                let _ = writeln!(commands, ":{command} {to}");
            }
        };
        let number = |on: bool| if on { "1" } else { "0" };
        set("toolchain", &from.toolchain, &to.toolchain);
        set("opt", &from.opt_level, &to.opt_level);
        set("fmt", &from.format, &to.format);
        set("efmt", &from.error_format, &to.error_format);
        set("linker", &from.linker, &to.linker);
        set(
            "codegen_backend",
            &from.codegen_backend,
            &to.codegen_backend,
        );
        set("offline", number(from.offline), number(to.offline));
        set("sccache", number(from.sccache), number(to.sccache));
        let mebibytes = |bytes: u64| (bytes >> 20).to_string();
        set(
            "cache",
            &mebibytes(from.cache_bytes),
            &mebibytes(to.cache_bytes),
        );
        set(
            "preserve_vars_on_panic",
            number(from.preserve_vars_on_panic),
            number(to.preserve_vars_on_panic),
        );
        set(
            "allow_static_linking",
            number(from.allow_static_linking),
            number(to.allow_static_linking),
        );
        // These are switched, whatever they are given.
        set("types", number(from.types), number(to.types));
        set(
            "time_passes",
            number(from.time_passes),
            number(to.time_passes),
        );
        let ours = wanted.ours.difference(&self.ours);
        let dependencies = wanted.dependencies.iter();
        let missing = dependencies
            .filter(|(name, config)| self.dependencies.get(*name) != Some(config))
            .chain(ours.map(|(name, config)| (name, config)));
        for (name, config) in missing {
            commands += &local::command(name, config);
        }
        commands
    }
}

fn build_environment(name: &str, value: &str) -> String {
    format!(":build_env {name}={value}\n")
}

/// See the module's page.
pub(super) struct Evcxr {
    pub(super) context: CommandContext,
    present: Basis,
    initial: Settings,
}

impl Evcxr {
    pub(super) fn new(evcxr: EvalContext) -> Evcxr {
        let mut state = evcxr.state();
        let initial = Settings {
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
            allow_static_linking: true,
            time_passes: state.time_passes(),
            toolchain: state.toolchain().to_owned(),
        };
        Evcxr {
            context: CommandContext::with_eval_context(evcxr),
            present: Basis {
                settings: initial.clone(),
                ..Basis::default()
            },
            initial,
        }
    }

    /// The settings of a state in which nothing has been compiled.
    pub(super) fn initial(&self) -> &Settings {
        &self.initial
    }

    /// Brings evcxr to a state.
    pub(super) fn bring(&mut self, bench: &mut Bench, wanted: &Basis) -> Result<(), Trouble> {
        // rust-analyzer reads everything again.
        if self.present.dependencies != wanted.dependencies {
            bench.activity.note_move();
        }
        if self.present.has_more_than(wanted) || self.present.is_configured_beyond(wanted) {
            self.clear(bench, self.present.is_configured_beyond(wanted))?;
        }
        let commands = self.present.commands_to(wanted);
        self.apply(bench, &commands, wanted)?;
        let new = wanted.found.beyond(self.present.found);
        if new != Found::default() {
            let (present, context) = (&self.present, &mut self.context);
            bench.teach(new, |dependency, snippet| {
                let (name, config) = dependency.unwrap_or(TOKIO);
                let is_missing = dependency.is_some() && !present.dependencies.contains_key(name);
                let command = is_missing.then(|| local::command(name, config));
                context
                    .execute(&(command.unwrap_or_default() + snippet))
                    .map(drop)
            });
            self.present.found = wanted.found;
        }
        Ok(())
    }

    /// Runs commands that lead to a state, but for what evcxr finds out there.
    pub(super) fn apply(
        &mut self,
        bench: &mut Bench,
        commands: &str,
        reached: &Basis,
    ) -> Result<(), Trouble> {
        let name = &reached.settings.toolchain;
        let other = self.present.settings.toolchain != *name;
        let toolchain = other.then(|| bench.toolchain(name)).transpose()?;
        if !commands.is_empty() {
            let context = &mut self.context;
            bench.tell_evcxr(Effort::DryRun, Vec::new(), || context.execute(commands))?;
        }
        if let Some(toolchain) = toolchain {
            bench.use_toolchain(toolchain);
        }
        let found = self.present.found;
        let mut given = std::mem::take(&mut self.present.given);
        let mut ours = std::mem::take(&mut self.present.ours);
        ours.retain(|(name, _)| !reached.ours.iter().any(|(other, _)| other == name));
        self.present = reached.clone();
        self.present.found = found;
        self.present.ours.append(&mut ours);
        given.append(&mut self.present.given);
        self.present.given = given;
        Ok(())
    }

    /// Gives up everything but the configuration, and that as well if told so.
    fn clear(&mut self, bench: &mut Bench, configuration: bool) -> Result<(), Trouble> {
        let mut commands = ":clear\n".to_owned();
        let mut reached = Basis {
            settings: self.present.settings.clone(),
            environment: self.present.environment.clone(),
            ..Basis::default()
        };
        if configuration {
            self.context.reset_config();
            for (name, value) in bench.environment() {
                commands += &build_environment(name, &value);
            }
            reached.settings.clone_from(&self.initial);
            reached.environment.clear();
            self.present.given.clear();
        }
        self.present.found = Found::default();
        self.present.ours.clear();
        self.apply(bench, &commands, &reached)
    }
}
