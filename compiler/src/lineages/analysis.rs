//! Completion and documentation, in the state of a lineage.

use super::answers::{Completion, Completions, Documentation};
use super::commands::{At, take_local};
use super::context::Basis;
use super::workshop::{State, Workshop};
use crate::crates::mentioned;
use crate::reach::{Preceded, Reach};
use crate::statements::{code_start, commands, statements};
use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// So many names that may complete a word are shown to rust-analyzer, which knows more to say of them.
const SHOWN_NAMES: usize = 20;
/// What it takes longest to complete for the first time.
const WARM_UP: &str = "String::new().";

impl Workshop {
    /// Has rust-analyzer do what the first completion would wait for.
    pub(super) fn warm_up_completion(&mut self) {
        if let Ok(root) = self.state(crate::summary::ROOT) {
            self.complete(&root, WARM_UP, WARM_UP.len());
        }
    }

    /// Suggestions for the byte `position` of `cell`.
    pub(super) fn complete(&mut self, state: &State, cell: &str, position: usize) -> Completions {
        let cell = &*without_local(cell);
        self.prepare(state, cell);
        let found = statements(cell);
        let names = names_at(state, cell, position);
        let shown = names.iter().take(SHOWN_NAMES).cloned();
        let reach = Reach::of(&state.summary, &found, shown);
        let Preceded { text, added } = reach.before(cell, &found, "");
        let context = &mut self.evcxr.context;
        let found = catch_unwind(AssertUnwindSafe(|| {
            context.completions(&text, added.byte(position))
        }));
        // Where there is no code there is nothing to suggest.
        let Ok(Ok(found)) = found else {
            return Completions {
                items: Vec::new(),
                start: position,
                end: position,
            };
        };
        let items = found.completions.into_iter();
        let mut items: Vec<Completion> = items
            .filter(|item| !item.code.starts_with("chorus_"))
            .map(|item| Completion {
                label: described(state, &names, &item.code).unwrap_or(item.label),
                text: item.code,
                kind: item.kind.to_owned(),
            })
            .collect();
        if !items.is_empty() {
            add_names(state, &names, &mut items);
        }
        Completions {
            items,
            start: added.own_byte(found.start_offset),
            end: added.own_byte(found.end_offset),
        }
    }

    /// What is known of the name that ends at the byte `position` of `cell`.
    pub(super) fn inspect(
        &mut self,
        state: &State,
        cell: &str,
        position: usize,
    ) -> Option<Documentation> {
        let cell = &*without_local(cell);
        self.prepare(state, cell);
        let cell = cell.get(..position)?;
        let found = statements(cell);
        let reach = Reach::of(&state.summary, &found, []);
        // evcxr knows this keyword by itself only.
        let text = match cell {
            "let" => cell.to_owned(),
            _ => reach.before(cell, &found, "").text,
        };
        let context = &mut self.evcxr.context;
        let found = catch_unwind(AssertUnwindSafe(|| context.hover_at(&text, text.len())));
        let (text, html) = found.ok()?.ok()?;
        (text != "No documentation found").then_some(Documentation { text, html })
    }

    /// Shows rust-analyzer the standard library, the state's dependencies, and the crates of ours that a text names, if these take nothing
    /// but files.
    fn prepare(&mut self, state: &State, cell: &str) {
        self.show_std();
        let mut crates = state.crates.clone();
        let mentioned = mentioned(cell);
        let mut asked = commands(cell).filter(|(command, _)| *command == "dep");
        if mentioned.any() && asked.next().is_none() && crates.own.is_empty() {
            match self.bench.crates().wanted(mentioned, &crates) {
                Ok(wanted) => {
                    for (name, config) in wanted {
                        crates.add(name, &config);
                    }
                }
                Err(error) => tracing::debug!(%error, "the crates can't be completed"),
            }
        }
        let basis = Basis::of(&state.summary, &crates);
        if let Err(trouble) = self.evcxr.bring(&mut self.bench, &basis) {
            tracing::info!(?trouble, "rust-analyzer sees another state");
        }
    }
}

/// A cell with spaces where commands are that evcxr is not to carry out.
fn without_local(cell: &str) -> String {
    let mut blank = cell.to_owned();
    for At { range, .. } in take_local(cell).0 {
        let spaces = " ".repeat(range.len());
        blank.replace_range(range, &spaces);
    }
    blank
}

/// The namespace's names that may go on with what is before the cursor.
fn names_at(state: &State, cell: &str, position: usize) -> Vec<String> {
    let before = cell.get(..position).unwrap_or_default();
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let path = before.trim_end_matches(is_word);
    let is_member = path.ends_with("::") || path.ends_with('.') && !path.ends_with("..");
    if is_member || position < code_start(cell) {
        return Vec::new();
    }
    let typed = &before[path.len()..];
    let summary = &state.summary;
    let names = summary.variables.keys().chain(summary.definitions.keys());
    names
        .filter(|name| name.starts_with(typed))
        .cloned()
        .collect()
}

/// Adds names of the namespace that rust-analyzer was not shown.
fn add_names(state: &State, names: &[String], items: &mut Vec<Completion>) {
    let name = |item: &Completion| {
        let end = item.text.find(|c: char| !(c.is_alphanumeric() || c == '_'));
        item.text[..end.unwrap_or(item.text.len())].to_owned()
    };
    let there: HashSet<String> = items.iter().map(name).collect();
    for name in names.iter().filter(|name| !there.contains(*name)) {
        let kind = match state.summary.variables.contains_key(name) {
            true => "instance",
            false => state.summary.kind_of(name),
        };
        items.push(Completion {
            label: described(state, names, name).unwrap_or_else(|| name.clone()),
            text: name.clone(),
            kind: kind.to_owned(),
        });
    }
}

/// One of these names of the namespace with its type or signature, for what completes to `code`.
fn described(state: &State, names: &[String], code: &str) -> Option<String> {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let name = code.split(|c| !is_word(c)).next()?;
    names.iter().find(|known| *known == name)?;
    if let Some(variable) = state.summary.variables.get(name) {
        return Some(format!("{name}: {}", variable.kind));
    }
    let part = state.summary.definitions.get(name)?.first()?;
    signature(&part.text)
}

/// An item's first line of code, without its body.
fn signature(item: &str) -> Option<String> {
    let mut lines = item.lines().map(str::trim);
    let line = lines.find(|line| {
        !(line.is_empty()
            || line.starts_with("//")
            || line.starts_with("#[")
            || line.starts_with("use "))
    })?;
    let end = line.find(['{', ';']).unwrap_or(line.len());
    Some(line[..end].trim_end().to_owned()).filter(|line| !line.is_empty())
}

#[cfg(test)]
mod tests {
    use super::signature;

    #[test]
    fn an_item_is_told_without_its_body() {
        for (item, told) in [
            (
                "/// Twice.\n#[inline]\nfn twice(n: i32) -> i32 { 2 * n }",
                Some("fn twice(n: i32) -> i32"),
            ),
            ("struct P;", Some("struct P")),
            ("const N: usize = 3;", Some("const N: usize = 3")),
            ("use std::fmt;", None),
            ("", None),
        ] {
            assert_eq!(signature(item).as_deref(), told, "{item}");
        }
    }
}
