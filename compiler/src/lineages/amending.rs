//! Compiles a snippet, amended where what it leaves can't be stored as it is.

use super::Failure;
use super::ask::Refused;
use super::workshop::Workshop;
use crate::amendments::{self, Amendments};
use crate::bench::{NotCompiled, Product, Trouble};
use crate::diagnostics::{self, Report, Reported};
use crate::reach::Reach;
use crate::sources::Cell;
use crate::statements::{Statement, statements};
use crate::summary::Summary;
use crate::wrapper::Effort;
use std::ops::Range;

/// A snippet needs an attempt for each variable without a named type, and a few for what is borrowed.
const ATTEMPTS: usize = 12;

/// What compiling a snippet came to.
pub(super) struct Compiled {
    pub(super) product: Product,
    /// The statements that were compiled.
    pub(super) statements: Vec<Statement>,
    pub(super) amendments: Amendments,
}

/// Why a snippet was not compiled, and what to do about it.
pub(super) struct NotAmended {
    pub(super) failure: NotCompiled,
    pub(super) reports: Vec<serde_json::Value>,
    pub(super) generated: String,
    pub(super) hint: Option<String>,
}

impl Workshop {
    /// Compiles a snippet in a namespace, after `commands` of ours.
    pub(super) fn compile_amended(
        &mut self,
        summary: &mut Summary,
        code: &str,
        commands: &str,
    ) -> Result<Compiled, Box<NotAmended>> {
        let mut amendments = Amendments::default();
        let mut first: Option<NotAmended> = None;
        let mut may_move = true;
        let display = self.bench.plan.display;
        for _ in 0..ATTEMPTS {
            let text = amendments.apply(code);
            let found = statements(&text);
            summary.leaked = amendments.stored();
            self.bench.plan.traits.clone_from(&amendments.traits);
            self.bench.plan.display = display && !amendments.has_own_display;
            if self.bench.lacks_std(&found) {
                self.show_std();
            }
            let context = &mut self.evcxr.context;
            let compiled = self
                .bench
                .compile(summary, &text, &found, commands, |text| {
                    context.execute(text)
                });
            let failure = match compiled {
                Ok(product) if !amendments.hold(&product.after.completed) => break,
                Ok(product) => {
                    self.bench.plan.traits.clear();
                    return Ok(Compiled {
                        product,
                        statements: found,
                        amendments,
                    });
                }
                Err(failure) => failure,
            };
            let reports = self.bench.reports();
            let before = amendments.clone();
            self.learn(&mut amendments, &failure, &reports, summary, code);
            let is_stuck = amendments == before;
            match &mut first {
                None => {
                    first = Some(NotAmended {
                        failure,
                        reports,
                        generated: self.bench.generated(),
                        hint: None,
                    });
                }
                Some(first) if is_stuck && first.hint.is_none() => {
                    first.hint = hint(&amendments, &failure);
                }
                Some(_) => {}
            }
            if is_stuck
                && !(std::mem::take(&mut may_move) && amendments.move_into_closures(code, |_| true))
            {
                break;
            }
        }
        summary.leaked.clear();
        self.bench.plan.traits.clear();
        Err(Box::new(first.unwrap_or_else(|| NotAmended {
            failure: NotCompiled::from(Trouble::Refused("there was no attempt".to_owned())),
            reports: Vec::new(),
            generated: String::new(),
            hint: None,
        })))
    }

    /// Learns from a failure what else has to be amended of a snippet.
    fn learn(
        &mut self,
        amendments: &mut Amendments,
        NotCompiled { trouble, .. }: &NotCompiled,
        reports: &[serde_json::Value],
        summary: &Summary,
        code: &str,
    ) {
        match trouble {
            Trouble::Evcxr(evcxr::Error::CompilationErrors(errors)) => {
                // evcxr's check leaves no reports.
                let told = errors.iter().map(|error| &error.json);
                let reports: Vec<serde_json::Value> = reports.iter().chain(told).cloned().collect();
                if amendments::is_about_borrowing(errors) {
                    amendments.learn_borrowing(&reports, code);
                    amendments.move_into_closures(code, |name| {
                        let variable = summary.variables.get(name);
                        variable.is_some_and(|variable| is_copied(&variable.kind))
                    });
                } else if errors.iter().any(|error| error.code() == Some("E0405")) {
                    amendments.learn_traits(&reports);
                } else if reports.iter().any(is_about_display) {
                    amendments.has_own_display = true;
                }
            }
            Trouble::Evcxr(evcxr::Error::Message(message)) => {
                let amended = amendments.apply(code);
                if let Some(name) = amendments::undetermined_variable(message)
                    && let Some(kind) = self.told_by_rustc(summary, &amended, name)
                {
                    amendments.declare(name, kind);
                }
                let Some(name) = amendments::unnamed_variable(message) else {
                    return;
                };
                let kind = self.told_type(summary, &amended, name, name);
                let kind = match kind.as_deref().map(amendments::box_for) {
                    Some(Some(kind)) => Some(kind),
                    // Perhaps an iterator.
                    _ => self
                        .told_type(summary, &amended, name, &amendments::item_of(name))
                        .filter(|item| !item.contains("impl "))
                        .map(|item| format!("Box<dyn Iterator<Item = {item}>>")),
                };
                if let Some(kind) = kind {
                    amendments.put_into_box(name, kind);
                }
            }
            _ => {}
        }
    }

    /// Asks evcxr for the type of an expression behind the statement of `code` that introduces `name`.
    fn told_type(
        &mut self,
        summary: &Summary,
        code: &str,
        name: &str,
        expression: &str,
    ) -> Option<String> {
        let questions = amendments::questions(code, name, expression);
        questions
            .iter()
            .find_map(|question| match self.ask(summary, question) {
                Some(evcxr::Error::Message(message)) => {
                    amendments::told_type(&message).map(str::to_owned)
                }
                _ => None,
            })
    }

    /// Asks rustc for the type of the variable `name`.
    fn told_by_rustc(&mut self, summary: &Summary, code: &str, name: &str) -> Option<String> {
        let questions = amendments::questions_to_rustc(code, name);
        questions
            .iter()
            .find_map(|question| match self.ask(summary, question) {
                Some(evcxr::Error::CompilationErrors(errors)) => errors
                    .iter()
                    .find_map(|error| amendments::told_by_rustc(&error.message())),
                _ => None,
            })
    }

    /// Why evcxr refuses a snippet, which has to be one that it refuses: nothing comes of it.
    fn ask(&mut self, summary: &Summary, question: &str) -> Option<evcxr::Error> {
        let found = statements(question);
        let reach = Reach::of(summary, &found, []);
        self.bench.plan.macros = reach.macros(&found);
        let text = reach.before(question, &found, "").text;
        let context = &mut self.evcxr.context;
        let answer = self
            .bench
            .tell_evcxr(Effort::Check, Vec::new(), || context.execute(&text));
        match answer {
            Err(Trouble::Evcxr(error)) => Some(error),
            _ => None,
        }
    }
}

/// Whether a method that shows a value is there twice.
fn is_about_display(report: &serde_json::Value) -> bool {
    report["code"]["code"] == "E0034" && report.to_string().contains("evcxr_display")
}

impl NotAmended {
    /// As the refusal of a cell.
    pub(super) fn refused(self, cell: &Cell) -> Refused {
        let NotCompiled { trouble, added } = self.failure;
        if let Trouble::Evcxr(evcxr::Error::Message(message)) = &trouble
            && let Some(range) = place_of(message, cell)
        {
            return Failure::Errors(vec![diagnostics::of_command(cell, range, message)]).into();
        }
        let failure = match trouble {
            Trouble::Evcxr(evcxr::Error::CompilationErrors(errors)) => {
                let mut errors = Reported::all(&errors, &self.reports);
                // rustc's own help says `move`.
                let is_closure = |error: &Reported| error.json["code"]["code"] == "E0373";
                if let (Some(first), Some(hint)) = (errors.first_mut(), self.hint)
                    && !is_closure(first)
                {
                    first.add_hint(hint);
                }
                let generated = self.generated;
                return Refused::Report(Report {
                    errors,
                    generated,
                    added,
                });
            }
            Trouble::Evcxr(error) => Failure::Refused(error.to_string()),
            Trouble::Refused(message) => Failure::Refused(message),
            Trouble::Panicked(message) => Failure::Panicked(message),
        };
        failure.into()
    }
}

/// Where a cell introduces the variable that evcxr can't store.
fn place_of(message: &str, cell: &Cell) -> Option<Range<usize>> {
    let name = amendments::unnamed_variable(message)
        .or_else(|| amendments::undetermined_variable(message))?;
    let all = statements(&cell.source);
    let is_it = |statement: &&Statement| statement.variables().iter().any(|one| one == name);
    let statement = all.iter().rfind(is_it)?;
    let at = statement.start + cell.source[statement.start..statement.end()].find(name)?;
    Some(at..at + name.len())
}

/// What a person can do where a borrowed variable can't be kept as it is.
fn hint(amendments: &Amendments, NotCompiled { trouble, added }: &NotCompiled) -> Option<String> {
    let (owner, borrower) = amendments.owner()?;
    let Trouble::Evcxr(evcxr::Error::CompilationErrors(errors)) = trouble else {
        return None;
    };
    let error = errors.first()?;
    let place = error
        .spanned_messages()
        .iter()
        .find_map(|message| added.own_line(message.span?.start_line));
    let place = place.map_or(String::new(), |line| format!(" (line {line})"));
    Some(format!(
        "`{borrower}` borrows from `{owner}`, so `{owner}` can be kept only as a `&'static`, which doesn't fit{place}: {}. Let `{borrower}` have a copy \
         (`.to_owned()`, `.clone()`), or put what uses it into the same block: `{{ .. }}`",
        error.message()
    ))
}

/// Whether values of a type are copied, as far as its name tells.
fn is_copied(kind: &str) -> bool {
    const COPIED: &[&str] = &[
        "i8", "i16", "i32", "i64", "i128", "isize", "u8", "u16", "u32", "u64", "u128", "usize",
        "f32", "f64", "bool", "char",
    ];
    COPIED.contains(&kind)
        || kind.starts_with('&') && !kind.starts_with("&mut") && !kind.contains("mut ")
}
