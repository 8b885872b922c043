//! What Chorus changes in the source that evcxr generates for a cell, as a pure function on text.
//!
//! evcxr repeats a variable store in every cell and lets the cell print control lines to stdout. Compiling that costs more than
//! compiling what the user wrote. Here the store becomes a crate that was compiled once (`chorus_support`, see the `runtime`
//! crate), control lines become calls, and the markers of [`reach`](crate::reach) become loads of variables: before the closure
//! that catches panics, and stores after it. No line is added or removed and no user's line is touched, because evcxr finds the
//! origin of an error by its line. A store that moved has the line of its old place in errors ([`Rewritten::relocate`]).
//!
//! The shapes matched here are those of evcxr 0.22.0; Cargo.lock and the `=` in Cargo.toml pin it.

use crate::amendments::with_paths;
use crate::reach::{CARRIED, CARRIED_LEAKED, LEAKED, REBOUND, REBOUND_LEAKED};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::{BTreeMap, HashSet};
use std::ops::Range;

/// The crate that takes the place of evcxr's own runtime module.
const SUPPORT: &str = "chorus_support";

/// How the entry function is called, whatever number evcxr gave it.
pub const ENTRY: &str = "chorus_entry";

const MODULE_START: &str = "mod evcxr_internal_runtime {";
const MODULE_LAST_FN: &str = "pub fn create_variable_store()";
const ENTRY_PREFIX: &str = "pub extern \"C\" fn run_user_code_";
const EMPTY_PREFIX: &str = "mut x: *mut std::os::raw::c_void)";
const NO_MANGLE: &str = "#[unsafe(no_mangle)]";
const PANIC_LINE: &str = "    println!(\"EVCXR_PANIC_NOTIFICATION\");";
const ERROR_LINE: &str = "println!(\"{}\", evcxr_internal_runtime::USER_ERROR_OCCURRED);";
const CHECK_LINE: &str = "{let mut vars_ok = true;";
pub(crate) const CHECKED_LINE: &str = "if !vars_ok {return evcxr_variable_store;}}";
/// Without a store.
const BARE_LINE: &str = "evcxr_variable_store: *mut u8) -> *mut u8 {";
const BARE_CATCH: &str = "if std::panic::catch_unwind(||{";
const CATCH: &str = "match std::panic::catch_unwind(";
const BARE_CATCH_END: &str = "}).is_err() {";
const STORE_LINES: &str = "mut evcxr_variable_store: *mut evcxr_internal_runtime::VariableStore) \
    -> *mut evcxr_internal_runtime::VariableStore { \
    if evcxr_variable_store.is_null() { evcxr_variable_store = evcxr_internal_runtime::create_variable_store(); } \
    let evcxr_variable_store = unsafe {&mut *evcxr_variable_store}; ";
const PUT_PREFIX: &str = "evcxr_variable_store.put_variable::<";
const RETURN_LINE: &str = "evcxr_variable_store";
const SEND_TEXT: &str = "evcxr_send_text_plain(&format!(";

/// A method for all that can be shown with `{:?}`. It is no part of the support library, since rustc would suggest it
/// where it is left out.
const DISPLAY: &str = "trait ChorusDisplay { fn evcxr_display(&self); } \
    impl<T: ::std::fmt::Debug + ?Sized> ChorusDisplay for T { \
    fn evcxr_display(&self) { ::chorus_support::display(&self, ::std::any::type_name::<T>()) } }";

/// The rewritten source, and which statements moved.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Rewritten {
    pub(crate) source: String,
    moved: Vec<Moved>,
    pub(crate) body: Body,
}

/// What the entry function does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Body {
    /// Nothing: there are only items.
    Empty,
    Runs {
        /// Whether panics are caught.
        catches: bool,
    },
}

/// A statement that is in another line than evcxr put it.
#[derive(Debug, PartialEq, Eq)]
struct Moved {
    from_line: usize,
    line: usize,
    /// Characters of that line, from 1.
    columns: Range<usize>,
}

/// How a source is to be rewritten.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Style<'a> {
    /// Whether every `Debug` value gets an `evcxr_display` method, so that evcxr's first try at showing a last expression compiles. Not with
    /// `:fmt` or `:types`, which act on evcxr's second try only.
    pub(crate) display: bool,
    /// They can be used before the lines that define them, since evcxr puts items in no order.
    pub(crate) macros: &'a [Macro],
    /// The paths of traits that have none in the types of variables.
    pub(crate) traits: &'a BTreeMap<String, String>,
}

/// Rewrites evcxr's generated `source`; `None` when it isn't the source of something to run.
pub(crate) fn rewrite(source: &str, style: &Style<'_>) -> Option<Rewritten> {
    let display = style.display;
    let source = &importing(source, style.macros);
    let lines: Vec<&str> = source.split('\n').collect();
    let entry = lines
        .iter()
        .rposition(|line| line.starts_with(ENTRY_PREFIX))?;
    let module = module_lines(&lines[..entry]);
    let body = &lines[entry + 1..];
    let last = |text: &str| {
        let index = body.iter().rposition(|line| *line == text)?;
        Some(index + entry + 1)
    };
    let panic_line = last(PANIC_LINE);
    let return_line = last(RETURN_LINE);
    let variables: Vec<Variable<'_>> = body.iter().filter_map(|line| variable(line)).collect();
    let bare_end = last(BARE_CATCH_END).filter(|_| !variables.is_empty());
    let returned = returned_lines(&lines[..entry]);
    let carried: HashSet<&str> = variables
        .iter()
        .filter(|variable| variable.is_carried)
        .map(|variable| variable.name)
        .collect();

    let mut puts: Vec<(usize, &str)> = Vec::new();
    let mut moved = Vec::new();
    let mut out = String::with_capacity(source.len());
    for (index, line) in lines.iter().enumerate() {
        if index > 0 {
            out.push('\n');
        }
        if module
            .as_ref()
            .is_some_and(|module| module.contains(&index))
        {
            continue;
        }
        if index + 1 == entry && line.ends_with(NO_MANGLE) {
            out.push_str(&format!("use ::{SUPPORT} as evcxr_internal_runtime; "));
            if display {
                out.push_str(DISPLAY);
                out.push(' ');
            }
            out.push_str(line);
        } else if index == entry {
            out.push_str(&format!("pub extern \"C\" fn {ENTRY}("));
        } else if Some(index) == panic_line {
            out.push_str("evcxr_internal_runtime::panicked();");
        } else if Some(index) == returned.map(|(print, _)| print) {
            let format = line
                .trim()
                .trim_start_matches("eprintln!(")
                .trim_end_matches(';');
            out.push_str("::");
            out.push_str(SUPPORT);
            out.push_str("::error_returned(&format!(");
            out.push_str(format);
            out.push_str(");");
        } else if Some(index) == returned.map(|(_, mark)| mark) {
        } else if index <= entry {
            out.push_str(line);
        } else if *line == BARE_LINE && !variables.is_empty() {
            // evcxr sees no need for a store when the cell moves all variables out of it.
            out.push_str(STORE_LINES);
            out.push_str(CHECK_LINE);
            out.push(' ');
            push_checks(&mut out, &variables);
            out.push_str(CHECKED_LINE);
            push_loads(&mut out, &variables);
        } else if *line == BARE_CATCH && !variables.is_empty() {
            out.push_str(
                "if evcxr_internal_runtime::catch_unwind(::std::panic::AssertUnwindSafe(||{",
            );
        } else if *line == BARE_CATCH {
            out.push_str("if evcxr_internal_runtime::catch_unwind(||{");
        } else if *line == CATCH {
            out.push_str("match evcxr_internal_runtime::catch_unwind(");
        } else if Some(index) == bare_end {
            out.push_str("})).is_err() {");
        } else if *line == CHECK_LINE {
            out.push_str(line);
            out.push(' ');
            push_checks(&mut out, &variables);
        } else if *line == CHECKED_LINE {
            out.push_str(line);
            push_loads(&mut out, &variables);
        } else if variable(line).is_some() {
        } else if put_name(line).is_some_and(|name| carried.contains(name)) {
            puts.push((index + 1, line));
        } else if !style.traits.is_empty() && put_name(line).is_some() {
            out.push_str(&with_paths(line, style.traits));
        } else if Some(index) == return_line {
            let mut column = 1;
            for (from_line, put) in &puts {
                let end = column + put.chars().count();
                moved.push(Moved {
                    from_line: *from_line,
                    line: index + 1,
                    columns: column..end + 1,
                });
                out.push_str(put);
                out.push(' ');
                column = end + 1;
            }
            out.push_str(line);
        } else if let Some(rest) = line.strip_prefix(SEND_TEXT) {
            out.push_str("evcxr_internal_runtime::send_text_plain(&format!(");
            out.push_str(rest);
        } else {
            out.push_str(line);
        }
    }
    Some(Rewritten {
        source: out,
        moved,
        body: match body.first() {
            Some(line) if line.starts_with(EMPTY_PREFIX) => Body::Empty,
            _ => Body::Runs {
                catches: panic_line.is_some(),
            },
        },
    })
}

fn push_checks(out: &mut String, variables: &[Variable<'_>]) {
    for Variable { name, kind, .. } in variables {
        out.push_str(&format!(
            "vars_ok &= evcxr_variable_store.check_variable::<{kind}>(stringify!({name})); "
        ));
    }
}

fn push_loads(out: &mut String, variables: &[Variable<'_>]) {
    for Variable {
        name,
        kind,
        mutability,
        is_leaked,
        ..
    } in variables
    {
        let load = format!("evcxr_variable_store.take_variable::<{kind}>(stringify!({name}))");
        let load = match is_leaked {
            true => format!("&*::std::boxed::Box::leak(::std::boxed::Box::new({load}))"),
            false => load,
        };
        out.push_str(&format!(" let {mutability}{name} = {load};"));
    }
}

/// A macro by example that is defined at the top.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Macro {
    pub(crate) name: String,
    pub(crate) text: String,
}

/// The source with macros that are known by their path as well.
pub(crate) fn importing(source: &str, macros: &[Macro]) -> String {
    let mut source = source.to_owned();
    for Macro { name, text } in macros {
        // An exported one is already.
        if text.contains("macro_export") {
            continue;
        }
        let found = source
            .match_indices(&**text)
            .map(|(at, _)| at)
            .find(|at| *at == 0 || source.as_bytes().get(at - 1) == Some(&b'\n'));
        if let Some(at) = found {
            source.insert_str(at + text.len(), &format!(" pub(crate) use {name};"));
        }
    }
    source
}

impl Rewritten {
    /// One line of rustc's errors, with the lines that evcxr knows.
    pub(crate) fn relocate(&self, error: &str) -> String {
        if self.moved.is_empty() {
            return error.to_owned();
        }
        match serde_json::from_str::<Value>(error) {
            Ok(mut error) => {
                self.relocate_spans(&mut error);
                error.to_string()
            }
            Err(_) => error.to_owned(),
        }
    }

    fn relocate_spans(&self, message: &mut Value) {
        let spans = message["spans"].as_array_mut().into_iter().flatten();
        for span in spans {
            let number = |key: &str| span[key].as_u64().and_then(|n| usize::try_from(n).ok());
            let found = self.moved.iter().find(|moved| {
                number("line_start") == Some(moved.line)
                    && number("column_start").is_some_and(|at| moved.columns.contains(&at))
            });
            if let Some(moved) = found {
                span["line_start"] = moved.from_line.into();
                span["line_end"] = moved.from_line.into();
            }
        }
        for child in message["children"].as_array_mut().into_iter().flatten() {
            self.relocate_spans(child);
        }
    }
}

/// A variable that a marker declares.
struct Variable<'a> {
    name: &'a str,
    kind: &'a str,
    mutability: &'a str,
    is_carried: bool,
    /// Whether its type is a reference's to what the store has, which is leaked.
    is_leaked: bool,
}

fn variable(line: &str) -> Option<Variable<'_>> {
    let rest = line.strip_prefix("let ")?;
    let (declared, is_carried, is_leaked) = [
        (CARRIED, true, false),
        (REBOUND, false, false),
        (CARRIED_LEAKED, true, true),
        (REBOUND_LEAKED, false, true),
    ]
    .into_iter()
    .find_map(|(marker, is_carried, is_leaked)| {
        Some((rest.strip_suffix(marker)?, is_carried, is_leaked))
    })?;
    let (mutability, declared) = match declared.strip_prefix("mut ") {
        Some(declared) => ("mut ", declared),
        None => ("", declared),
    };
    let (name, kind) = declared.split_once(": ")?;
    let kind = match is_leaked {
        true => kind.strip_prefix(LEAKED)?,
        false => kind,
    };
    Some(Variable {
        name,
        kind,
        mutability,
        is_carried,
        is_leaked,
    })
}

/// A variable that a snippet stores.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Stored<'a> {
    pub(crate) name: &'a str,
    pub(crate) kind: &'a str,
    /// Whether it was there before, and is stored however the snippet ends.
    pub(crate) is_carried: bool,
}

/// The variables that a rewritten source stores.
pub(crate) fn stored(rewritten: &str) -> impl Iterator<Item = Stored<'_>> {
    let entry = rewritten.rfind(&format!(" fn {ENTRY}("));
    let body = &rewritten[entry.unwrap_or(rewritten.len())..];
    let lines = body.lines().filter(|line| line.starts_with(PUT_PREFIX));
    lines.flat_map(|line| {
        let is_carried = line.ends_with(RETURN_LINE);
        line.split(PUT_PREFIX).filter_map(move |put| {
            let (kind, rest) = put.rsplit_once(">(stringify!(")?;
            let name = rest.split(')').next()?;
            Some(Stored {
                name,
                kind,
                is_carried,
            })
        })
    })
}

/// The lines of evcxr's runtime module, if it's there.
fn module_lines(lines: &[&str]) -> Option<std::ops::Range<usize>> {
    // The module is the last thing before the entry, so a line of the user's that looks the same can
    // only stand before it.
    let start = lines.iter().rposition(|line| *line == MODULE_START)?;
    let last = start
        + lines[start..]
            .iter()
            .position(|line| line.starts_with(MODULE_LAST_FN))?;
    let ends = lines[last..]
        .iter()
        .enumerate()
        .filter(|(_, line)| **line == "}")
        .nth(1)?;
    Some(start..last + ends.0 + 1)
}

/// In the conversion that evcxr generates for `?`: the line that prints the error and the one that marks it.
fn returned_lines(lines: &[&str]) -> Option<(usize, usize)> {
    let mark = lines.iter().rposition(|line| line.trim() == ERROR_LINE)?;
    let print = mark.checked_sub(1)?;
    lines[print]
        .trim()
        .starts_with("eprintln!(\"{")
        .then_some((print, mark))
}

/// The variable that a generated line puts into the store.
fn put_name(line: &str) -> Option<&str> {
    let rest = line.strip_prefix(PUT_PREFIX)?;
    rest.rsplit_once(">(stringify!(")?.1.split(')').next()
}

#[cfg(test)]
mod tests;
