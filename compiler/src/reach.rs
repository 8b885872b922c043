//! Selects what a snippet can reach of its namespace.
//!
//! rustc and rust-analyzer see only the selection, so a cell costs the same in a grown notebook as in an empty one. A snippet reaches,
//! transitively, the definitions that it mentions by name, the impls of reached types and traits, and the traits whose methods it
//! mentions. Imports, macros and attributes are always included. A redefinition is checked together with all users of the
//! definition it replaces.
//!
//! The search compares identifiers, so it may include too much. It includes too little when a macro builds a name from parts. The
//! compile then fails and is repeated with [`Reach::everything`].

use crate::facts::bare;
use crate::rewrite::{self, CHECKED_LINE, Macro, Stored};
use crate::sources::newlines;
use crate::statements::{Definition, Statement, code_start};
use crate::summary::{Part, PartKind, Summary, Variable};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

/// The functions that markers call, so that rust-analyzer can check the types. The wrapper replaces the calls by loads from the
/// variable store.
const MARKERS: &str = "fn chorus_carried<T>() -> T { loop {} }\nfn chorus_rebound<T>() -> T { loop {} }\n\
    fn chorus_carried_leaked<T>() -> T { loop {} }\nfn chorus_rebound_leaked<T>() -> T { loop {} }\n";

/// Marks the declaration of a variable that goes back into the store, even after a panic.
pub(crate) const CARRIED: &str = " = chorus_carried();";

/// Marks the declaration of a variable that the snippet shadows at its top level.
pub(crate) const REBOUND: &str = " = chorus_rebound();";

/// Marks, like [`CARRIED`], one that is leaked and declared as a reference to what there is.
pub(crate) const CARRIED_LEAKED: &str = " = chorus_carried_leaked();";

/// Marks, like [`REBOUND`], one that is leaked.
pub(crate) const REBOUND_LEAKED: &str = " = chorus_rebound_leaked();";

/// How the declared type of a leaked variable begins.
pub(crate) const LEAKED: &str = "&'static ";

/// Size in bytes up to which all items are included. They cost less than compiling a wrong cell twice.
const SMALL: usize = 1000;

/// A selection of a namespace's parts and variables.
#[derive(Debug)]
pub(crate) struct Reach<'a> {
    parts: Vec<Candidate<'a>>,
    variables: BTreeMap<&'a str, &'a Variable>,
    rebound: HashSet<String>,
    leaked: &'a BTreeSet<String>,
    /// The variables that are left out.
    hidden: Vec<&'a str>,
    /// Whether it has all items.
    pub(crate) all_items: bool,
    /// Whether it has all items and variables.
    pub(crate) everything: bool,
}

impl<'a> Reach<'a> {
    /// Selects what a snippet of these statements reaches, and what `also` names.
    pub(crate) fn of(
        summary: &'a Summary,
        statements: &[Statement],
        also: impl IntoIterator<Item = String>,
    ) -> Reach<'a> {
        let mut reach = Reach::search(summary, statements, also);
        let size: usize = summary.parts().map(|part| part.text.len()).sum();
        if size <= SMALL {
            let Reach { parts, .. } = Reach::everything(summary, statements);
            reach.parts = parts;
            reach.all_items = true;
            reach.everything = reach.variables.len() == summary.variables.len();
        }
        reach
    }

    fn search(
        summary: &'a Summary,
        statements: &[Statement],
        also: impl IntoIterator<Item = String>,
    ) -> Reach<'a> {
        let mut search = Search::new(summary, statements);
        let mut variables = BTreeMap::new();
        let mut names: Vec<String> = also.into_iter().collect();
        for facts in statements.iter().map(Statement::facts) {
            names.extend(facts.names);
            search.pending_members.extend(facts.members);
        }
        let replaced = replaced(statements);
        for name in names.iter().filter(|name| !replaced.contains(*name)) {
            if let Some((name, variable)) = summary.variable(name) {
                variables.insert(name, variable);
            }
        }
        search.pending.extend(names);
        for variable in variables.values() {
            let names = crate::facts::words(&variable.kind).map(str::to_owned);
            search.pending.extend(names);
        }
        search.take_users();
        search.run();
        let hidden = summary
            .variables
            .keys()
            .map(String::as_str)
            .filter(|name| !variables.contains_key(name))
            .collect();
        let all_items = search.taken.iter().all(|taken| *taken);
        let everything = all_items && variables.len() == summary.variables.len();
        let parts = search.parts.into_iter().zip(search.taken);
        Reach {
            parts: parts
                .filter(|(_, taken)| *taken)
                .map(|(part, _)| part)
                .collect(),
            variables,
            rebound: rebound(statements),
            leaked: &summary.leaked,
            hidden,
            all_items,
            everything,
        }
    }

    /// Selects all of the namespace, except for what the statements replace.
    pub(crate) fn everything(summary: &'a Summary, statements: &[Statement]) -> Reach<'a> {
        let search = Search::new(summary, statements);
        Reach {
            parts: search.parts,
            variables: summary
                .variables
                .iter()
                .map(|(name, variable)| (name.as_str(), variable))
                .collect(),
            rebound: rebound(statements),
            leaked: &summary.leaked,
            hidden: Vec::new(),
            all_items: true,
            everything: true,
        }
    }

    /// Whether a variable that is left out has this name, or one that rustc would suggest for it.
    pub(crate) fn hides_one_like(&self, name: &str) -> bool {
        self.hidden.iter().any(|hidden| is_similar(hidden, name))
    }

    /// The macros that the selection and the statements define.
    pub(crate) fn macros(&self, statements: &[Statement]) -> Vec<Macro> {
        let of_parts = self.parts.iter().filter_map(|Candidate { part, name }| {
            let name = name.filter(|_| part.kind == PartKind::Macro)?.to_owned();
            let text = part.text.clone();
            Some(Macro { name, text })
        });
        of_parts.chain(macros(statements)).collect()
    }

    /// The variables after the snippet; `source` is the rewritten source that was compiled for it.
    pub(crate) fn after(&self, summary: &Summary, source: &str) -> After {
        let mut early = summary.kinds();
        // Items can't take variables.
        if source.contains(CHECKED_LINE) {
            early.retain(|name, _| !self.variables.contains_key(&**name));
        }
        let mut completed = early.clone();
        for Stored {
            name,
            kind,
            is_carried,
        } in rewrite::stored(source)
        {
            completed.insert(name.to_owned(), kind.to_owned());
            if is_carried {
                early.insert(name.to_owned(), kind.to_owned());
            }
        }
        After { completed, early }
    }

    /// Puts the selection between a snippet's commands and its code, after `commands` to add.
    pub(crate) fn before(
        &self,
        snippet: &str,
        statements: &[Statement],
        commands: &str,
    ) -> Preceded {
        let start = code_start(snippet);
        let mut text = snippet[..start].to_owned();
        if !text.is_empty() && !text.ends_with('\n') {
            text.push('\n');
        }
        let first = newlines(&text) + 1;
        let from = text.len();
        text.push_str(commands);
        // Items can't mention variables.
        let runs = statements.iter().any(Statement::runs);
        let variables = self.variables.iter().filter(|_| runs);
        // evcxr skips comment lines at the top, so a doc comment there would be lost.
        let starts_with_comment = self
            .parts
            .first()
            .is_some_and(|part| part.part.text.starts_with("//"));
        // It would take a path that begins with a colon for a command.
        let starts_with_path = snippet[start..].trim_start().starts_with("::");
        if starts_with_comment || starts_with_path || variables.clone().next().is_some() {
            text.push_str(MARKERS);
        }
        for Candidate { part, .. } in &self.parts {
            text.push_str(&part.text);
            text.push('\n');
        }
        for (name, Variable { kind, mutable }) in variables {
            let mutability = if *mutable { "mut " } else { "" };
            let kind = kind.split_whitespace().collect::<Vec<_>>().join(" ");
            let is_leaked = self.leaked.contains(*name);
            let marker = match (self.rebound.contains(*name), is_leaked) {
                (true, false) => REBOUND,
                (false, false) => CARRIED,
                (true, true) => REBOUND_LEAKED,
                (false, true) => CARRIED_LEAKED,
            };
            let reference = if is_leaked { LEAKED } else { "" };
            text.push_str(&format!(
                "let {mutability}{name}: {reference}{kind}{marker}\n"
            ));
        }
        let added = Added {
            first,
            lines: newlines(&text[from..]),
            from,
            bytes: text.len() - from,
        };
        text.push_str(&snippet[start..]);
        Preceded { text, added }
    }
}

/// The variables after a snippet, name to type.
#[derive(Debug)]
pub(crate) struct After {
    /// After it has run to its end.
    pub(crate) completed: BTreeMap<String, String>,
    /// After a panic or an early return by `?`.
    pub(crate) early: BTreeMap<String, String>,
}

/// A snippet and the selection in front of its code.
#[derive(Debug)]
pub(crate) struct Preceded {
    pub(crate) text: String,
    pub(crate) added: Added,
}

/// The lines and bytes that were added to a snippet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Added {
    /// The first line that was added, from 1.
    first: usize,
    lines: usize,
    from: usize,
    bytes: usize,
}

impl Added {
    /// The snippet's line behind a line of the text.
    pub(crate) fn own_line(&self, line: usize) -> Option<usize> {
        match line.checked_sub(self.first) {
            None => Some(line),
            Some(beyond) if beyond < self.lines => None,
            Some(_) => Some(line - self.lines),
        }
    }

    /// The byte of the text behind a byte of the snippet.
    pub(crate) fn byte(&self, own: usize) -> usize {
        if own < self.from {
            own
        } else {
            own + self.bytes
        }
    }

    /// The byte of the snippet behind a byte of the text.
    pub(crate) fn own_byte(&self, byte: usize) -> usize {
        match byte.checked_sub(self.from) {
            None => byte,
            Some(beyond) => self.from + beyond.saturating_sub(self.bytes),
        }
    }
}

/// Whether rustc may suggest one name for the other. Follows `find_best_match_for_name` in rustc's `rustc_span::edit_distance`, and is
/// true in doubt.
fn is_similar(one: &str, other: &str) -> bool {
    let length = one.chars().count().max(other.chars().count());
    let sorted = |name: &str| {
        let mut words: Vec<String> = name.to_lowercase().split('_').map(str::to_owned).collect();
        words.sort();
        words
    };
    strsim::damerau_levenshtein(one, other) <= length.max(3) / 3 || sorted(one) == sorted(other)
}

/// The macros that statements define.
fn macros(statements: &[Statement]) -> impl Iterator<Item = Macro> {
    let macro_of = |statement: &Statement| match statement.definition() {
        Definition::Macro(name) => Some(Macro {
            name,
            text: statement.text(),
        }),
        _ => None,
    };
    statements.iter().filter_map(macro_of)
}

/// The names that statements introduce before they mention one that is there already. What has that name stays in the store until the new one
/// takes its place, so it is not lost when the snippet fails before.
fn replaced(statements: &[Statement]) -> HashSet<String> {
    let mut mentioned = HashSet::new();
    let mut replaced = HashSet::new();
    for statement in statements {
        mentioned.extend(statement.mentions());
        let new = statement.variables().into_iter();
        replaced.extend(
            new.map(|name| bare(&name).to_owned())
                .filter(|name| !mentioned.contains(name)),
        );
    }
    replaced
}

fn rebound(statements: &[Statement]) -> HashSet<String> {
    statements.iter().flat_map(Statement::variables).collect()
}

impl Summary {
    fn variable(&self, name: &str) -> Option<(&str, &Variable)> {
        self.variables
            .get_key_value(name)
            .or_else(|| self.variables.get_key_value(&format!("r#{name}")))
            .map(|(name, variable)| (name.as_str(), variable))
    }
}

#[derive(Debug)]
struct Candidate<'a> {
    part: &'a Part,
    /// The name that it defines.
    name: Option<&'a str>,
}

struct Search<'a> {
    parts: Vec<Candidate<'a>>,
    taken: Vec<bool>,
    named: HashMap<&'a str, usize>,
    implementing: HashMap<&'a str, Vec<usize>>,
    with_trait_item: HashMap<&'a str, Vec<usize>>,
    /// Names whose users must be checked again.
    changed: HashSet<String>,
    pending: Vec<String>,
    pending_members: Vec<String>,
    seen: HashSet<String>,
    seen_members: HashSet<String>,
}

impl<'a> Search<'a> {
    fn new(summary: &'a Summary, statements: &[Statement]) -> Search<'a> {
        let mut replaced = HashSet::new();
        let mut changed: HashSet<String> = summary.reimplemented.iter().cloned().collect();
        let mut local = HashSet::new();
        for statement in statements {
            match statement.definition() {
                Definition::Item(name) | Definition::Macro(name) => {
                    let bare = bare(&name).to_owned();
                    if is_changed(summary, &name, &statement.facts().interface) {
                        changed.insert(bare.clone());
                    }
                    local.insert(bare);
                    replaced.insert(name);
                }
                Definition::Imports(imports) => {
                    for import in imports {
                        let Some(name) = import.name else { continue };
                        let old = summary
                            .definitions
                            .get(&name)
                            .and_then(|parts| parts.first());
                        if old.is_some_and(|old| old.text != import.code) {
                            changed.insert(bare(&name).to_owned());
                        }
                        replaced.insert(name);
                    }
                }
                Definition::None | Definition::Attribute | Definition::Unnamed => {}
            }
        }
        let owned = summary
            .definitions
            .iter()
            .filter(|(name, _)| !replaced.contains(*name))
            .flat_map(|(name, parts)| {
                parts.iter().map(move |part| Candidate {
                    part,
                    name: (part.kind != PartKind::Unnamed).then(|| bare(name)),
                })
            });
        let others = summary
            .others
            .iter()
            .map(|part| Candidate { part, name: None });
        let mut parts: Vec<Candidate<'a>> = others.chain(owned).collect();
        // Macros are there for what follows them.
        parts.sort_by_key(|part| match part.part.kind {
            PartKind::Attribute => 0,
            PartKind::Import => 1,
            PartKind::Macro => 2,
            PartKind::Item | PartKind::Unnamed => 3,
        });
        let mut search = Search {
            taken: vec![false; parts.len()],
            named: HashMap::new(),
            implementing: HashMap::new(),
            with_trait_item: HashMap::new(),
            changed,
            pending: Vec::new(),
            pending_members: Vec::new(),
            seen: HashSet::new(),
            seen_members: HashSet::new(),
            parts,
        };
        search.index(&local);
        search
    }

    /// `local` are the names of items that the snippet defines.
    fn index(&mut self, local: &HashSet<String>) {
        let is_item = |part: &Candidate<'_>| part.part.kind == PartKind::Item;
        let items: HashSet<&str> = self
            .parts
            .iter()
            .filter(|part| is_item(part))
            .filter_map(|part| part.name)
            .chain(local.iter().map(String::as_str))
            .collect();
        // An import from a module or enum of the namespace names an item, too.
        let imported: HashSet<&str> = self
            .parts
            .iter()
            .filter(|part| part.part.kind == PartKind::Import)
            .filter(|part| {
                part.part
                    .facts
                    .names
                    .iter()
                    .any(|name| items.contains(&**name))
            })
            .filter_map(|part| part.name)
            .collect();
        let aliases: HashMap<&str, &HashSet<String>> = self
            .parts
            .iter()
            .filter(|part| part.part.facts.is_alias)
            .filter_map(|part| Some((part.name?, &part.part.facts.names)))
            .collect();
        for (index, Candidate { part, name }) in self.parts.iter().enumerate() {
            if let Some(name) = name {
                self.named.insert(name, index);
            }
            for name in &part.facts.trait_items {
                self.with_trait_item.entry(name).or_default().push(index);
            }
            let mut belongs = false;
            for name in through_aliases(&part.facts.implements, &aliases) {
                if items.contains(name) || imported.contains(name) {
                    belongs = true;
                    self.implementing.entry(name).or_default().push(index);
                }
            }
            let always = match part.kind {
                PartKind::Attribute | PartKind::Import => true,
                PartKind::Unnamed => !belongs,
                PartKind::Item | PartKind::Macro => false,
            };
            if always {
                self.pending.extend(part.facts.names.iter().cloned());
            }
            // A macro is always included, but reaches what its body names only when it is called.
            self.taken[index] = always || part.kind == PartKind::Macro;
        }
    }

    /// Takes the direct and indirect users of changed names.
    fn take_users(&mut self) {
        let mut checked = vec![false; self.parts.len()];
        let mut before = 0;
        while self.changed.len() > before {
            before = self.changed.len();
            for (index, Candidate { part, name }) in self.parts.iter().enumerate() {
                if checked[index] || part.facts.names.is_disjoint(&self.changed) {
                    continue;
                }
                checked[index] = true;
                match name {
                    Some(name) => drop(self.changed.insert((*name).to_owned())),
                    None => self.changed.extend(part.facts.implements.iter().cloned()),
                }
                self.taken[index] = true;
                self.pending.extend(part.facts.names.iter().cloned());
                self.pending_members
                    .extend(part.facts.members.iter().cloned());
            }
        }
    }

    fn run(&mut self) {
        loop {
            if let Some(name) = self.pending.pop() {
                if self.seen.insert(name.clone()) {
                    if let Some(index) = self.named.get(&*name).copied() {
                        self.take(index);
                    }
                    for index in self.implementing.get(&*name).cloned().unwrap_or_default() {
                        self.take(index);
                    }
                    self.pending_members.push(name);
                }
            } else if let Some(member) = self.pending_members.pop() {
                for index in self
                    .with_trait_item
                    .get(&*member)
                    .cloned()
                    .unwrap_or_default()
                {
                    self.take(index);
                }
                self.seen_members.insert(member);
            } else {
                return;
            }
        }
    }

    fn take(&mut self, index: usize) {
        let Candidate { part, name } = &self.parts[index];
        let is_new = !self.taken[index] || part.kind == PartKind::Macro;
        self.taken[index] = true;
        if !is_new {
            return;
        }
        self.pending.extend(name.map(str::to_owned));
        let facts = &part.facts;
        self.pending.extend(
            facts
                .names
                .iter()
                .filter(|name| !self.seen.contains(*name))
                .cloned(),
        );
        let members = facts
            .members
            .iter()
            .filter(|name| !self.seen_members.contains(*name));
        self.pending_members.extend(members.cloned());
    }
}

/// Adds the names of the types that aliases stand for.
fn through_aliases<'a>(
    names: &'a HashSet<String>,
    aliases: &HashMap<&str, &'a HashSet<String>>,
) -> HashSet<&'a str> {
    let mut found = HashSet::new();
    let mut pending: Vec<&str> = names.iter().map(String::as_str).collect();
    while let Some(name) = pending.pop() {
        if found.insert(name)
            && let Some(others) = aliases.get(name)
        {
            pending.extend(others.iter().map(String::as_str));
        }
    }
    found
}

/// Whether the users of a name must be checked again when it is defined with this interface. A new name affects earlier definitions only
/// when it hides another, such as a type of the standard library; those begin in upper case.
fn is_changed(summary: &Summary, name: &str, interface: &str) -> bool {
    match summary
        .definitions
        .get(name)
        .and_then(|parts| parts.first())
    {
        Some(old) => old.facts.interface != interface,
        None => bare(name).starts_with(char::is_uppercase),
    }
}

#[cfg(test)]
mod tests;
