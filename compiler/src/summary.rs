//! What a compile-time state consists of, as far as it matters to what is compiled in it; its hash is the state's lineage.
//!
//! Two namespaces with the same variables, definitions, dependencies and settings have the same lineage, however they came by them
//! and whichever process computed it. A snippet that changes none of these leaves the lineage as it is.

use crate::facts::Facts;
use crate::implementations;
use crate::statements::{Definition, Statement};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// The name of the lineage in which nothing has been compiled.
pub const ROOT: &str = "root";

/// See the module's page.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Summary {
    pub(crate) variables: BTreeMap<String, Variable>,
    /// Named items and imports, each with the unnamed items that belong to it.
    pub(crate) definitions: BTreeMap<String, Vec<Part>>,
    /// Everything else that is defined.
    pub(crate) others: BTreeSet<Part>,
    /// Crates by name, with what Cargo.toml says of each.
    pub(crate) dependencies: BTreeMap<String, String>,
    /// What the user's own crates were compiled to when the variables were stored, by name.
    pub(crate) local_crates: BTreeMap<String, String>,
    /// Environment variables of the build.
    pub(crate) environment: BTreeMap<String, String>,
    pub(crate) settings: Settings,
    pub(crate) found: Found,
    /// During a compile: what is implemented anew, whose users are to be checked.
    #[serde(skip)]
    pub(crate) reimplemented: BTreeSet<String>,
    /// During a compile: the variables that are leaked when they are loaded.
    #[serde(skip)]
    pub(crate) leaked: BTreeSet<String>,
}

/// An item, import or attribute, as evcxr keeps it.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Part {
    pub(crate) text: String,
    #[serde(skip)]
    pub(crate) kind: PartKind,
    #[serde(skip)]
    pub(crate) facts: Arc<Facts>,
}

/// How a [`Part`] is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PartKind {
    /// By its name.
    Item,
    Macro,
    Import,
    /// By what it implements.
    Unnamed,
    /// It concerns all of the crate.
    Attribute,
}

impl Part {
    fn new(text: String, kind: PartKind, facts: Facts) -> Part {
        Part {
            text,
            kind,
            facts: Arc::new(facts),
        }
    }
}

// The text decides the rest.
impl PartialEq for Part {
    fn eq(&self, other: &Part) -> bool {
        self.text == other.text
    }
}

impl Eq for Part {}

impl PartialOrd for Part {
    fn partial_cmp(&self, other: &Part) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Part {
    fn cmp(&self, other: &Part) -> Ordering {
        self.text.cmp(&other.text)
    }
}

/// A variable that is stored between snippets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Variable {
    /// Its type.
    pub(crate) kind: String,
    pub(crate) mutable: bool,
}

/// evcxr's settings that commands change.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Settings {
    pub(crate) opt_level: String,
    /// How a last expression is shown.
    pub(crate) format: String,
    /// Whether its type is shown.
    pub(crate) types: bool,
    /// How an error that `?` returned is shown.
    pub(crate) error_format: String,
    pub(crate) linker: String,
    pub(crate) codegen_backend: String,
    pub(crate) offline: bool,
    pub(crate) sccache: bool,
    pub(crate) cache_bytes: u64,
    pub(crate) preserve_vars_on_panic: bool,
    pub(crate) allow_static_linking: bool,
    pub(crate) time_passes: bool,
    /// Empty for rustup's default.
    pub(crate) toolchain: String,
}

/// What evcxr finds out about a namespace's code, and then keeps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Found {
    pub(crate) asynchronous: bool,
    pub(crate) question_mark: bool,
}

impl Found {
    /// What is to be seen in a generated source.
    pub(crate) fn within(generated: &str) -> Found {
        Found {
            asynchronous: generated.contains(".block_on(async {"),
            question_mark: generated.contains("struct EvcxrUserCodeError {}"),
        }
    }

    /// What of it the other has not.
    pub(crate) fn beyond(self, other: Found) -> Found {
        Found {
            asynchronous: self.asynchronous && !other.asynchronous,
            question_mark: self.question_mark && !other.question_mark,
        }
    }

    pub(crate) fn and(self, other: Found) -> Found {
        Found {
            asynchronous: self.asynchronous || other.asynchronous,
            question_mark: self.question_mark || other.question_mark,
        }
    }
}

impl Summary {
    /// The state in which nothing has been compiled.
    pub(crate) fn root(settings: Settings) -> Summary {
        Summary {
            settings,
            ..Summary::default()
        }
    }

    /// All items, imports and attributes.
    pub(crate) fn parts(&self) -> impl Iterator<Item = &Part> {
        self.others
            .iter()
            .chain(self.definitions.values().flatten())
    }

    /// Jupyter's word for the kind of a definition.
    pub(crate) fn kind_of(&self, name: &str) -> &'static str {
        let part = self.definitions.get(name).and_then(|parts| parts.first());
        part.map_or("instance", |part| part.facts.kind)
    }

    /// The types of the variables.
    pub(crate) fn kinds(&self) -> BTreeMap<String, String> {
        let kind = |(name, variable): (&String, &Variable)| (name.clone(), variable.kind.clone());
        self.variables.iter().map(kind).collect()
    }

    /// Gives up the implementations that a snippet with these statements puts others in the place of.
    pub(crate) fn give_up_implementations(&mut self, statements: &[Statement]) {
        let new = implementations::New::among(statements);
        let left_of = |part: &Part| match part.kind {
            PartKind::Unnamed => new.left_of(&part.text),
            _ => None,
        };
        let changed = |text: String| {
            let facts = Facts::of_items(&text);
            (!text.is_empty()).then(|| Part::new(text, PartKind::Unnamed, facts))
        };
        for parts in self.definitions.values_mut() {
            for at in (0..parts.len()).rev() {
                if let Some(text) = left_of(&parts[at]) {
                    self.reimplemented
                        .extend(parts[at].facts.implements.iter().cloned());
                    parts.splice(at..=at, changed(text));
                }
            }
        }
        let others: Vec<(Part, String)> = self
            .others
            .iter()
            .filter_map(|part| Some((part.clone(), left_of(part)?)))
            .collect();
        for (part, text) in others {
            self.reimplemented
                .extend(part.facts.implements.iter().cloned());
            self.others.remove(&part);
            self.others.extend(changed(text));
        }
    }

    /// Takes in what a snippet with these statements defined, and the variables (name to type) that there are now.
    pub(crate) fn apply(&mut self, statements: &[Statement], kinds: BTreeMap<String, String>) {
        self.reimplemented.clear();
        self.leaked.clear();
        let bound: BTreeMap<String, bool> =
            statements.iter().flat_map(Statement::bindings).collect();
        let old = std::mem::take(&mut self.variables);
        let variable = |(name, kind): (String, String)| {
            let before = old.get(&name).is_some_and(|variable| variable.mutable);
            let mutable = bound.get(&name).copied().unwrap_or(before);
            (name, Variable { kind, mutable })
        };
        self.variables = kinds.into_iter().map(variable).collect();
        // What has no name belongs to the last item that has one, as in evcxr.
        let mut last: Option<String> = None;
        for statement in statements {
            let part = |kind| Part::new(statement.text(), kind, statement.facts());
            match statement.definition() {
                Definition::None => {}
                Definition::Item(name) => {
                    let part = part(PartKind::Item);
                    self.definitions.insert(name.clone(), vec![part]);
                    last = Some(name);
                }
                Definition::Macro(name) => {
                    let part = part(PartKind::Macro);
                    self.definitions.insert(name, vec![part]);
                }
                Definition::Imports(imports) => {
                    for import in imports {
                        let facts = Facts::of_items(&import.code);
                        let part = Part::new(import.code, PartKind::Import, facts);
                        match import.name {
                            Some(name) => drop(self.definitions.insert(name, vec![part])),
                            None => drop(self.others.insert(part)),
                        }
                    }
                }
                Definition::Attribute => {
                    self.others.insert(part(PartKind::Attribute));
                }
                Definition::Unnamed => {
                    let part = part(PartKind::Unnamed);
                    let owner = last
                        .as_ref()
                        .and_then(|name| self.definitions.get_mut(name));
                    match owner {
                        Some(owner) => owner.push(part),
                        None => drop(self.others.insert(part)),
                    }
                }
            }
        }
    }

    /// The state's identity, given that of the beginning.
    pub(crate) fn lineage(&self, root: &Summary) -> String {
        if self == root {
            return ROOT.to_owned();
        }
        // A map of texts always renders.
        let text = serde_json::to_vec(self).unwrap_or_default();
        hex::encode(Sha256::digest(text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::statements::statements;

    fn after(state: &Summary, source: &str, variables: &[(&str, &str)]) -> Summary {
        let mut next = state.clone();
        let kinds = variables
            .iter()
            .map(|(name, kind)| (name.to_string(), kind.to_string()));
        next.apply(&statements(source), kinds.collect());
        next
    }

    #[test]
    fn what_changes_nothing_keeps_the_lineage() {
        let root = Summary::root(Settings::default());
        assert_eq!(root.lineage(&root), ROOT);
        let x: &[_] = &[("x", "i32")];
        let state = after(
            &root,
            "use std::fmt::{self, Debug};\nuse a::*;\nstruct P;\nimpl P {}\nlet x = 1;",
            x,
        );
        let lineage = state.lineage(&root);
        assert_eq!(lineage.len(), 64);
        for same in [
            "",
            "x + 1",
            "let x = 2;",
            "struct P;\nimpl P {}",
            "use std::fmt::{self, Debug};",
            "use a::*;",
        ] {
            assert_eq!(after(&state, same, x).lineage(&root), lineage, "{same}");
        }
        for other in [
            "let mut x = 2;",
            "struct P;",
            "struct P(u8);",
            "use b::Debug;",
            "use b::*;",
            "impl P {}",
            "fn f() {}",
        ] {
            assert_ne!(after(&state, other, x).lineage(&root), lineage, "{other}");
        }
        assert_ne!(
            after(&state, "let x = 2u8;", &[("x", "u8")]).lineage(&root),
            lineage
        );
        assert_eq!(
            after(&after(&root, "let x = 1;", x), "drop(x)", &[]).lineage(&root),
            ROOT
        );
    }

    #[test]
    fn the_way_to_a_state_does_not_matter() {
        let root = Summary::root(Settings::default());
        let a = after(
            &after(&root, "let a = 1;", &[("a", "i32")]),
            "fn f() {}",
            &[("a", "i32")],
        );
        let b = after(
            &after(&root, "fn f() {}", &[]),
            "let a = 1;",
            &[("a", "i32")],
        );
        assert_eq!(a.lineage(&root), b.lineage(&root));
    }
}
