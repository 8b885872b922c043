//! The crates `chorus` and `serde` for cells that name them ([`crate::crates`]).

use super::{Failure, Notebook};
use crate::crates::{Dependencies, mentioned};
use crate::statements::{adds_dependencies, commands};
use crate::wrapper::Effort;

impl Notebook {
    /// Makes sure that what a cell names is there. Returns the commands that add it to evcxr's dependencies, a line each.
    pub(super) fn provide(&mut self, cell: &str) -> Result<String, Failure> {
        let mentioned = mentioned(cell);
        if !mentioned.any() && !adds_dependencies(cell) {
            return Ok(String::new());
        }
        let mut present = self.dependencies();
        add_asked(&mut present, cell);
        match self.bench.provide(mentioned, &present) {
            Ok(wanted) => Ok(commands_for(&wanted)),
            Err(error) => Err(Failure::Refused(error.to_string())),
        }
    }

    /// Shows rust-analyzer the crates that a text names, if that takes nothing but files.
    pub(super) fn show_crates(&mut self, cell: &str) {
        let mentioned = mentioned(cell);
        if !mentioned.any() {
            return;
        }
        let mut present = self.dependencies();
        add_asked(&mut present, cell);
        if !present.own.is_empty() {
            return;
        }
        match self.bench.crates().wanted(mentioned, &present) {
            Ok(wanted) => self.depend(&commands_for(&wanted)),
            Err(error) => tracing::debug!(%error, "the crates can't be completed"),
        }
    }

    /// What evcxr's crate depends on now.
    pub(super) fn dependencies(&mut self) -> Dependencies {
        let mut found = Dependencies::default();
        // It changes nothing and compiles nothing.
        let shown = self.context.execute(":show_deps");
        let shown = shown
            .map(|outputs| outputs.content_by_mime_type)
            .unwrap_or_default();
        for line in shown
            .get("text/plain")
            .into_iter()
            .flat_map(|text| text.lines())
        {
            if let Some((name, config)) = line.split_once(" = ") {
                found.add(name.trim(), config);
            }
        }
        found
    }

    /// Adds our dependencies to evcxr's state, by these commands.
    pub(super) fn depend(&mut self, orders: &str) {
        if orders.is_empty() {
            return;
        }
        let context = &mut self.context;
        let done = self
            .bench
            .tell_evcxr(Effort::DryRun, Vec::new(), || context.execute(orders));
        if let Err(trouble) = done {
            tracing::info!(
                ?trouble,
                "the crates are added again when they are named again"
            );
        }
    }
}

/// evcxr's commands for these dependencies.
fn commands_for(wanted: &[(&str, String)]) -> String {
    let lines = wanted
        .iter()
        .map(|(name, config)| format!(":dep {name} = {config}\n"));
    lines.collect()
}

/// Takes in the dependencies that a cell asks for itself.
fn add_asked(present: &mut Dependencies, cell: &str) {
    for (command, arguments) in commands(cell) {
        let (name, config) = arguments.split_once('=').unwrap_or((arguments, "\"*\""));
        if command == "dep" {
            present.add(name.trim(), config);
        }
    }
}
