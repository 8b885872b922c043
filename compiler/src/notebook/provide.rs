//! The crates `chorus` and `serde` for cells that name them ([`crate::crates`]).

use super::{Failure, Notebook};
use crate::bench::Trouble;
use crate::crates::{Dependencies, mentioned};
use crate::statements::commands;
use crate::wrapper::Effort;

impl Notebook {
    /// Makes sure that what a cell names is there, before evcxr has the cell.
    pub(super) fn provide(&mut self, cell: &str) -> Result<(), Failure> {
        let mentioned = mentioned(cell);
        // With a first dependency of the user's own, ours become ordinary ones.
        let depends = commands(cell).any(|(command, _)| command == "dep");
        if !mentioned.any() && !depends {
            return Ok(());
        }
        let mut present = self.dependencies();
        add_asked(&mut present, cell);
        let refused = |error: crate::crates::CratesError| Failure::Refused(error.to_string());
        let mine = self.bench.crates();
        let wanted = mine.wanted(mentioned, &present).map_err(refused)?;
        if !wanted.is_empty() || present.own.is_empty() {
            self.bench.tell_of_crates().map_err(refused)?;
        }
        if !wanted.is_empty() {
            self.bench.activity.note_dependencies();
        }
        if !wanted.is_empty() && !present.own.is_empty() {
            self.bench.spare_cargo_the_crates();
        }
        self.depend(&wanted)
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
            Ok(wanted) => {
                if let Err(failure) = self.depend(&wanted) {
                    tracing::debug!(?failure, "the crates can't be completed");
                }
            }
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

    /// Adds dependencies to evcxr's state.
    fn depend(&mut self, wanted: &[(&str, String)]) -> Result<(), Failure> {
        if wanted.is_empty() {
            return Ok(());
        }
        let lines = wanted
            .iter()
            .map(|(name, config)| format!(":dep {name} = {config}"));
        let orders = lines.collect::<Vec<_>>().join("\n");
        let context = &mut self.context;
        let done = self
            .bench
            .tell_evcxr(Effort::DryRun, Vec::new(), || context.execute(&orders));
        done.map(drop).map_err(|trouble| match trouble {
            Trouble::Evcxr(error) => Failure::Refused(error.to_string()),
            Trouble::Panicked(message) => Failure::Panicked(message),
        })
    }
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
