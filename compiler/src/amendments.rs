//! What is changed of a snippet so that the variables it leaves can be stored.
//!
//! A variable that borrows from another one, or whose type has no name, can't be in the store. Rust itself has a way for each: what is
//! borrowed from is leaked (`Box::leak`), so that references to it are `'static`; a closure or an iterator goes into a `Box<dyn ..>`. So a
//! snippet that fails for such a reason alone is compiled again as if its author had written that. No line is added: what is added stands at
//! the end of the statement that introduces the variable.

use crate::statements::{Statement, code_start, statements};
use ra_ap_syntax::ast::{self, AstNode};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

/// Errors about values that are borrowed for longer than they live.
const BORROWED: &[&str] = &[
    "E0373", "E0499", "E0502", "E0503", "E0505", "E0506", "E0597", "E0716",
];

/// The type that goes beside one whose name is asked for, so that evcxr refuses to store the pair.
const UNNAMED: &str = "|| ()";

/// The trait that no type has, by which rustc tells a type.
pub(crate) const ASKED: &str = "ChorusNamed";

/// See the module's page.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Amendments {
    /// What is leaked, and by what it is borrowed.
    leaked: BTreeMap<Owner, String>,
    /// Variables that go into a box, with the type of that.
    boxed: BTreeMap<String, String>,
    /// Variables whose type rust-analyzer does not find, and rustc has told.
    declared: BTreeMap<String, String>,
    /// Closures that take along what they capture, and the variables for which they do.
    moving: BTreeMap<String, BTreeSet<String>>,
    /// Temporary values that are leaked, as bytes of the snippet.
    temporaries: BTreeSet<(usize, usize)>,
    /// The paths of traits that types are written with.
    pub(crate) traits: BTreeMap<String, String>,
    /// Whether values are shown by an `evcxr_display` of the user's, which ours is in the way of.
    pub(crate) has_own_display: bool,
}

/// A variable that another borrows from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Owner {
    name: String,
    /// Whether it was there before the snippet.
    is_stored: bool,
}

/// Whether rustc refuses a snippet for what it borrows alone.
pub(crate) fn is_about_borrowing(errors: &[evcxr::CompilationError]) -> bool {
    !errors.is_empty()
        && errors.iter().all(|error| match error.code() {
            Some(code) => BORROWED.contains(&code),
            None => error.message().contains("non-static lifetime"),
        })
}

impl Amendments {
    /// Learns from rustc's reports of a snippet which borrowed values have to stay.
    pub(crate) fn learn_borrowing(&mut self, reports: &[Value], code: &str) {
        let all = statements(code);
        for report in reports {
            let Some(error) = Borrow::of(report, code, &all) else {
                continue;
            };
            match error {
                // Without a variable that has to be stored it is borrowed for too long in any Rust.
                Borrow::Variable(owner, borrower) => {
                    if let Some(borrower) = borrower {
                        self.leaked.entry(owner).or_insert(borrower);
                    }
                }
                Borrow::Temporary { line, columns } => {
                    if let Some(range) = place(code, &line, columns) {
                        self.temporaries.insert((range.start, range.end));
                    }
                }
            }
        }
    }

    /// Learns the paths of traits that rustc did not find in the types of variables.
    pub(crate) fn learn_traits(&mut self, reports: &[Value]) {
        for report in reports {
            if code_of(report) != "E0405" {
                continue;
            }
            let lines =
                spans(report).flat_map(|span| span["text"].as_array().into_iter().flatten());
            let is_generated = lines.filter_map(|line| line["text"].as_str()).any(|line| {
                let generated = ["evcxr_variable_store", "evcxr_analysis_wrapper"];
                generated.iter().any(|name| line.contains(name))
                    || self.boxed.values().any(|kind| line.contains(&**kind))
            });
            let name = report["message"]
                .as_str()
                .and_then(|message| message.split('`').nth(1));
            let candidates = report["children"]
                .as_array()
                .into_iter()
                .flatten()
                .flat_map(spans);
            let mut paths: Vec<&str> = candidates
                .filter_map(|span| {
                    let text = span["suggested_replacement"].as_str()?.trim();
                    text.strip_prefix("use ")?.strip_suffix(';')
                })
                .collect();
            paths.sort_by_key(|path| (!path.starts_with("std::"), path.len()));
            if is_generated && let (Some(name), Some(path)) = (name, paths.first()) {
                for kind in self.boxed.values_mut() {
                    *kind = with_paths(
                        kind,
                        &BTreeMap::from([(name.to_owned(), (*path).to_owned())]),
                    );
                }
                self.traits
                    .entry(name.to_owned())
                    .or_insert_with(|| (*path).to_owned());
            }
        }
    }

    /// Declares a variable to be of this type.
    pub(crate) fn declare(&mut self, name: &str, kind: String) {
        self.declared.insert(name.to_owned(), kind);
    }

    /// Puts a variable into a box of this type.
    pub(crate) fn put_into_box(&mut self, name: &str, kind: String) {
        self.boxed.insert(name.to_owned(), kind);
    }

    /// Has closures take along what they borrow of these variables, rather than that it is leaked. Returns whether there is any.
    pub(crate) fn move_into_closures(&mut self, code: &str, which: impl Fn(&str) -> bool) -> bool {
        let all = statements(code);
        let closures: Vec<String> = all
            .iter()
            .filter(|statement| statement.closure().is_some())
            .flat_map(Statement::variables)
            .collect();
        let before = self.leaked.len();
        let moving = &mut self.moving;
        self.leaked.retain(|owner, borrower| {
            let moves = closures.contains(borrower) && which(&owner.name);
            if moves {
                let with = moving.entry(borrower.clone()).or_default();
                with.insert(owner.name.clone());
            }
            !moves
        });
        self.leaked.len() < before
    }

    /// Whether a snippet that leaves variables of these types means the same as without amendments: a closure that changes what it captures, or
    /// takes along what others still use, must not take it along unasked.
    pub(crate) fn hold(&self, kinds: &BTreeMap<String, String>) -> bool {
        self.moving.iter().all(|(closure, with)| {
            let kind = kinds.get(closure);
            let changes = kind.is_none_or(|kind| !kind.starts_with("Box<dyn Fn("));
            !changes && with.iter().all(|name| kinds.contains_key(name))
        })
    }

    /// The variables from before that are leaked when they are loaded.
    pub(crate) fn stored(&self) -> BTreeSet<String> {
        let stored = self.leaked.keys().filter(|owner| owner.is_stored);
        stored.map(|owner| owner.name.clone()).collect()
    }

    /// The snippet with what is added.
    pub(crate) fn apply(&self, code: &str) -> String {
        let mut inserted: Vec<(usize, String)> = Vec::new();
        for &(start, end) in &self.temporaries {
            inserted.push((
                start,
                "(*::std::boxed::Box::leak(::std::boxed::Box::new(".to_owned(),
            ));
            inserted.push((end, ")))".to_owned()));
        }
        // Those whose names mean what is leaked: `&name` is then a reference to that, not to a reference.
        let mut owners: BTreeSet<String> = self.stored();
        for statement in statements(code) {
            let end = statement.end();
            for (at, name) in statement.references() {
                if owners.contains(&name) {
                    inserted.push((statement.start + at, "*".to_owned()));
                }
            }
            for (name, is_mutable) in statement.bindings() {
                let mutable = if is_mutable { "mut " } else { "" };
                if let Some(kind) = self.declared.get(&name) {
                    inserted.push((end, format!(" let {mutable}{name}: {kind} = {name};")));
                }
                if let Some(kind) = self.boxed.get(&name) {
                    let new = match kind.starts_with("std::pin::") {
                        true => "pin",
                        false => "new",
                    };
                    inserted.push((
                        end,
                        format!(" let {mutable}{name}: {kind} = Box::{new}({name});"),
                    ));
                }
                if self.moving.contains_key(&name)
                    && let Some(start) = statement.closure()
                {
                    inserted.push((statement.start + start, "move ".to_owned()));
                }
                let owner = Owner {
                    name,
                    is_stored: false,
                };
                if self.leaked.contains_key(&owner) {
                    let name = owner.name;
                    owners.insert(name.clone());
                    inserted.push((
                        end,
                        format!(" let {name}: &'static _ = ::std::boxed::Box::leak(::std::boxed::Box::new({name}));"),
                    ));
                }
            }
        }
        inserted.sort_by_key(|(at, _)| *at);
        let mut amended = code.to_owned();
        for (at, text) in inserted.into_iter().rev() {
            amended.insert_str(at, &text);
        }
        amended
    }

    /// What a person is told of it, a line each. `kinds` are the types of the variables afterwards.
    pub(crate) fn notes(&self, kinds: &BTreeMap<String, String>) -> Vec<String> {
        let mut notes = Vec::new();
        for (Owner { name, .. }, borrower) in &self.leaked {
            // A new variable may have taken the name.
            let Some(kind) = kinds.get(name).filter(|kind| kind.starts_with('&')) else {
                continue;
            };
            let kind = match kind.strip_prefix('&').map(str::trim_start) {
                Some(rest) if !rest.starts_with("'static") => format!("&'static {rest}"),
                _ => kind.clone(),
            };
            notes.push(format!(
                "`{name}` is now `{kind}`, because `{borrower}` borrows from it."
            ));
        }
        for (name, kind) in &self.boxed {
            notes.push(format!("`{name}` is kept as `{kind}`."));
        }
        if !self.temporaries.is_empty() {
            notes.push(
                "A value that has no name is kept, because a variable borrows from it.".to_owned(),
            );
        }
        notes
    }

    /// An owner that is leaked, for the words of an error, and what borrows from it.
    pub(crate) fn owner(&self) -> Option<(&str, &str)> {
        let (owner, borrower) = self.leaked.first_key_value()?;
        Some((&owner.name, borrower))
    }
}

/// The variable that evcxr can't store because of its type.
pub(crate) fn unnamed_variable(message: &str) -> Option<&str> {
    let is_one = message.contains("cannot be persisted");
    message
        .strip_prefix("The variable `")?
        .split('`')
        .next()
        .filter(|_| is_one)
}

/// The variable whose type rust-analyzer does not find.
pub(crate) fn undetermined_variable(message: &str) -> Option<&str> {
    let rest = message.strip_prefix("Couldn't automatically determine type of variable `")?;
    rest.split('`').next()
}

/// Snippets by which evcxr tells, refusing them, the type of an expression with the variable `name`: behind the statement that
/// introduces it, and where all is known of it.
pub(crate) fn questions(code: &str, name: &str, expression: &str) -> Vec<String> {
    let start = code_start(code);
    let question = |end: usize| {
        let (head, upto) = (&code[..start], &code[start..end]);
        format!("{head}let chorus_asked = {{ {upto};\n({expression}, {UNNAMED}) }};")
    };
    ends(code, name).into_iter().map(question).collect()
}

/// The same for the type of the variable as rustc tells it.
pub(crate) fn questions_to_rustc(code: &str, name: &str) -> Vec<String> {
    let question = |end: usize| {
        format!(
            "{};\ntrait {ASKED} {{}}\nfn chorus_ask<T: {ASKED}>(_: &T) {{}}\nchorus_ask(&{name});",
            &code[..end]
        )
    };
    ends(code, name).into_iter().map(question).collect()
}

/// Where a snippet's statement ends that introduces `name`, and where its last one does.
fn ends(code: &str, name: &str) -> Vec<usize> {
    let all = statements(code);
    let introduces = |statement: &Statement| statement.variables().iter().any(|one| one == name);
    let Some(at) = all.iter().rposition(introduces) else {
        return Vec::new();
    };
    let last = all.len() - 1;
    let mut ends = vec![all[at].end()];
    if last > at {
        ends.push(all[last].end());
    }
    ends
}

/// The type in rustc's refusal of a question.
pub(crate) fn told_by_rustc(message: &str) -> Option<String> {
    let rest = message.strip_prefix("the trait bound `")?;
    let kind = rest
        .split(&format!(": {ASKED}` is not satisfied"))
        .next()
        .filter(|kind| kind.len() < rest.len())?;
    let kind = kind.replace("{float}", "f64").replace("{integer}", "i32");
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let is_whole = !kind.split(|c| !is_word(c)).any(|word| word == "_");
    let is_named = is_whole && !kind.contains(['{', '#']) && !kind.contains("impl ");
    is_named.then_some(kind)
}

/// What evcxr's refusal of a [`question`] tells.
pub(crate) fn told_type(message: &str) -> Option<&str> {
    let rest = message.strip_prefix("The variable `chorus_asked` has type `(")?;
    let end = rest.rfind(", impl Fn())` which")?;
    Some(&rest[..end])
}

/// An expression that has the type of an iterator's items.
pub(crate) fn item_of(name: &str) -> String {
    format!("{{ fn item<I: Iterator>(_: &I) -> I::Item {{ loop {{}} }} item(&{name}) }}")
}

/// The type of a box for a value of a type without a name.
pub(crate) fn box_for(kind: &str) -> Option<String> {
    let traits = kind.strip_prefix("impl ")?;
    if traits.contains("impl ") {
        return None;
    }
    Some(match traits.starts_with("Future<") {
        true => format!("std::pin::Pin<Box<dyn {traits}>>"),
        false => format!("Box<dyn {traits}>"),
    })
}

/// A type with the paths of traits that have none in it.
pub(crate) fn with_paths(kind: &str, traits: &BTreeMap<String, String>) -> String {
    let mut text = kind.to_owned();
    for (name, path) in traits {
        for before in ["dyn ", "+ "] {
            let mut from = 0;
            while let Some(at) = text[from..].find(&format!("{before}{name}")) {
                let start = from + at + before.len();
                let end = start + name.len();
                let is_whole =
                    !text[end..].starts_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':');
                if is_whole {
                    text.replace_range(start..end, path);
                }
                from = start;
            }
        }
    }
    text
}

/// An error about a value that is borrowed for too long.
enum Borrow {
    Variable(Owner, Option<String>),
    Temporary {
        line: String,
        /// Characters of the line, from 0.
        columns: Range<usize>,
    },
}

impl Borrow {
    /// `all` are the statements of the snippet.
    fn of(report: &Value, code: &str, all: &[Statement]) -> Option<Borrow> {
        let children = report["children"].as_array().into_iter().flatten();
        let is_stored = spans(report)
            .chain(children.flat_map(spans))
            .any(|span| line(span).contains("put_variable"));
        if code_of(report) == "E0716" && is_stored {
            let span = spans(report).find(|span| span["is_primary"] == true)?;
            let line = line(span).to_owned();
            let columns = columns(span)?;
            return Some(Borrow::Temporary { line, columns });
        }
        let name = report["message"].as_str()?.split('`').nth(1)?;
        if !BORROWED.contains(&code_of(report))
            || name.contains(|c: char| !(c.is_alphanumeric() || c == '_'))
        {
            return None;
        }
        let declared = spans(report).find(|span| label(span).starts_with("binding `"));
        let is_stored = match declared {
            Some(span) => line(span).contains("evcxr_variable_store"),
            None => !all
                .iter()
                .flat_map(Statement::variables)
                .any(|one| one == name),
        };
        let primary = spans(report).find(|span| span["is_primary"] == true);
        let borrower = match code_of(report) {
            // The primary place is a closure's.
            "E0373" => primary.and_then(|span| {
                let (text, columns) = (line(span), columns(span)?);
                let at = place(code, text, columns)?.start;
                let statement = all.iter().find(|statement| statement.range.contains(&at))?;
                let closure = statement.start + statement.closure()?;
                statement
                    .variables()
                    .into_iter()
                    .next()
                    .filter(|_| closure == at)
            }),
            _ => spans(report).find_map(|span| {
                let text = highlighted(span)?;
                let stored = text.split("stringify!(").nth(1);
                match stored.filter(|_| text.contains("put_variable")) {
                    Some(rest) => rest.split(')').next().map(str::to_owned),
                    // An argument of that call.
                    None => {
                        let is_put =
                            line(span).contains("put_variable") && !label(span).contains("move");
                        let is_name = text.chars().all(|c| c.is_alphanumeric() || c == '_');
                        (is_put && is_name).then_some(text)
                    }
                }
            }),
        };
        let name = name.to_owned();
        Some(Borrow::Variable(Owner { name, is_stored }, borrower))
    }
}

fn spans(report: &Value) -> impl Iterator<Item = &Value> {
    report["spans"].as_array().into_iter().flatten()
}

fn code_of(report: &Value) -> &str {
    report["code"]["code"].as_str().unwrap_or_default()
}

fn label(span: &Value) -> &str {
    span["label"].as_str().unwrap_or_default()
}

/// The first line that a span is in.
fn line(span: &Value) -> &str {
    span["text"][0]["text"].as_str().unwrap_or_default()
}

/// The characters of its line, from 0, that a span of one line has.
fn columns(span: &Value) -> Option<Range<usize>> {
    let text = span["text"]
        .as_array()
        .filter(|lines| lines.len() == 1)?
        .first()?;
    let column = |key: &str| usize::try_from(text[key].as_u64()?).ok()?.checked_sub(1);
    Some(column("highlight_start")?..column("highlight_end")?)
}

/// The text of a span of one line.
fn highlighted(span: &Value) -> Option<String> {
    let columns = columns(span)?;
    let characters = line(span).chars().skip(columns.start);
    Some(characters.take(columns.len()).collect())
}

/// Where a stretch of a generated line is in the snippet: evcxr leaves each statement's lines as they are, but puts statements on lines of their own.
fn place(code: &str, line: &str, columns: Range<usize>) -> Option<Range<usize>> {
    let text = line.trim();
    let indent = line.len() - line.trim_start().len();
    let mut found = code.match_indices(text);
    let (start, _) = found.next().filter(|_| !text.is_empty())?;
    if found.next().is_some() {
        return None;
    }
    let byte = |column: usize| {
        line.char_indices()
            .nth(column)
            .map_or(line.len(), |(at, _)| at)
    };
    let within = |column: usize| {
        byte(column)
            .checked_sub(indent)
            .filter(|at| *at <= text.len())
    };
    Some(start + within(columns.start)?..start + within(columns.end)?)
}

impl Statement {
    /// The names of which it takes a shared reference, and where they begin in it.
    fn references(&self) -> Vec<(usize, String)> {
        let references = self.node().descendants().filter_map(ast::RefExpr::cast);
        references
            .filter(|reference| reference.mut_token().is_none())
            .filter_map(|reference| {
                let ast::Expr::PathExpr(path) = reference.expr()? else {
                    return None;
                };
                let at = path.syntax().text_range().start() - self.node().text_range().start();
                Some((usize::from(at), path.syntax().text().to_string()))
            })
            .collect()
    }

    /// Where in it the closure begins that it binds, if that takes nothing along yet.
    fn closure(&self) -> Option<usize> {
        let this = ast::LetStmt::cast(self.node().clone())?;
        let ast::Expr::ClosureExpr(closure) = this.initializer()? else {
            return None;
        };
        let start = closure.syntax().text_range().start() - self.node().text_range().start();
        closure.move_token().is_none().then_some(usize::from(start))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn leaking(name: &str, is_stored: bool) -> Amendments {
        let owner = Owner {
            name: name.to_owned(),
            is_stored,
        };
        Amendments {
            leaked: BTreeMap::from([(owner, "r".to_owned())]),
            ..Amendments::default()
        }
    }

    #[test]
    fn what_is_added_stands_behind_its_statement() {
        let code = "// note\nlet s = f(); let r = &s;\ng(&s, &mut s)";
        assert_eq!(
            leaking("s", false).apply(code),
            "// note\nlet s = f(); let s: &'static _ = ::std::boxed::Box::leak(::std::boxed::Box::new(s)); let r = &*s;\ng(&*s, &mut s)"
        );
        assert_eq!(leaking("s", true).apply("let r = &s;"), "let r = &*s;");
        let mut boxed = Amendments::default();
        boxed.put_into_box("g", "Box<dyn FnMut()>".to_owned());
        assert_eq!(
            boxed.apply("let mut g = || n();"),
            "let mut g = || n(); let mut g: Box<dyn FnMut()> = Box::new(g);"
        );
    }

    #[test]
    fn only_the_stores_own_requirement_counts() {
        let span = |text: &str, label: &str, is_primary: bool| {
            json!({ "label": label, "is_primary": is_primary,
                "text": [{ "text": text, "highlight_start": 1, "highlight_end": text.len() + 1 }] })
        };
        let report = |last: Value| {
            json!({ "code": { "code": "E0597" }, "message": "`s` does not live long enough",
                "spans": [span("let s = f();", "binding `s` declared here", false), last] })
        };
        let mut amendments = Amendments::default();
        let user = span(
            "need(&s);",
            "argument requires that `s` is borrowed for `'static`",
            false,
        );
        amendments.learn_borrowing(&[report(user)], "let s = f();\nneed(&s);");
        assert_eq!(amendments, Amendments::default());
        let put = "evcxr_variable_store.put_variable::<&u8>(stringify!(r), r)";
        let put = span(
            put,
            "argument requires that `s` is borrowed for `'static`",
            false,
        );
        amendments.learn_borrowing(&[report(put)], "let s = f();\nlet r = &s;");
        assert_eq!(amendments, leaking("s", false));
    }

    #[test]
    fn types_are_told_and_boxed() {
        let refusal = |kind: &str| {
            format!(
                "The variable `chorus_asked` has type `({kind}, impl Fn())` which cannot be persisted.\n.."
            )
        };
        for (kind, boxed) in [
            ("impl Fn(i32) -> i32", Some("Box<dyn Fn(i32) -> i32>")),
            (
                "impl Iterator<Item = u8> + Send",
                Some("Box<dyn Iterator<Item = u8> + Send>"),
            ),
            (
                "impl Future<Output = u8>",
                Some("std::pin::Pin<Box<dyn Future<Output = u8>>>"),
            ),
            ("impl Fn(impl Clone)", None),
            ("std::ops::Range<i32>", None),
        ] {
            let refusal = refusal(kind);
            assert_eq!(told_type(&refusal), Some(kind));
            assert_eq!(box_for(kind).as_deref(), boxed);
        }
        assert_eq!(told_type("The variable `x` has type `u8` which .."), None);
    }

    #[test]
    fn rustc_tells_types() {
        for (kind, told) in [
            (
                "nalgebra::Matrix<{float}, nalgebra::Const<3>>",
                Some("nalgebra::Matrix<f64, nalgebra::Const<3>>"),
            ),
            ("{closure@src/lib.rs:3:9: 3:12}", None),
            ("std::vec::Vec<_>", None),
        ] {
            let message = format!("the trait bound `{kind}: {ASKED}` is not satisfied");
            assert_eq!(told_by_rustc(&message).as_deref(), told);
        }
        assert_eq!(
            told_by_rustc("the trait bound `u8: Clone` is not satisfied"),
            None
        );
    }

    #[test]
    fn traits_get_their_paths() {
        let traits = BTreeMap::from([("Any".to_owned(), "std::any::Any".to_owned())]);
        for (kind, with) in [
            ("Box<dyn Any + Send>", "Box<dyn std::any::Any + Send>"),
            ("Box<dyn Send + Any>", "Box<dyn Send + std::any::Any>"),
            ("Box<dyn Anything>", "Box<dyn Anything>"),
            ("Box<dyn Any::Other>", "Box<dyn Any::Other>"),
        ] {
            assert_eq!(with_paths(kind, &traits), with);
        }
    }

    #[test]
    fn a_stretch_of_a_statement_is_found_in_the_snippet() {
        let code = "let a = 1; let q = &f()[1..];\n";
        assert_eq!(place(code, "let q = &f()[1..];", 9..12), Some(20..23));
        assert_eq!(place(code, "let b = 1;", 0..3), None);
        assert_eq!(place("a(); a();", "a();", 0..1), None);
    }
}
