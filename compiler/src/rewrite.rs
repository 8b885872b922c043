//! What Chorus changes in the source that evcxr generates for a cell, as a pure function on text.
//!
//! evcxr repeats a variable store in every cell, moves every variable of the notebook out of it and back
//! in, and lets the cell print control lines to stdout. Compiling that costs more than compiling what
//! the user wrote. Here the store becomes a crate that was compiled once (`chorus_support`, see the
//! `runtime` crate), variables that the cell doesn't mention stay where they are, and control lines
//! become calls. No line is added or removed and no user's line is touched, because evcxr
//! finds the origin of an error by its line.
//!
//! The shapes matched here are those of evcxr 0.22.0; Cargo.lock and the `=` in Cargo.toml pin it.

use std::collections::HashSet;

/// The crate that takes the place of evcxr's own runtime module.
const SUPPORT: &str = "chorus_support";

/// How the entry function is called, whatever number evcxr gave it.
pub const ENTRY: &str = "chorus_entry";

const MODULE_START: &str = "mod evcxr_internal_runtime {";
const MODULE_LAST_FN: &str = "pub fn create_variable_store()";
const ENTRY_PREFIX: &str = "pub extern \"C\" fn run_user_code_";
const NO_MANGLE: &str = "#[unsafe(no_mangle)]";
const PANIC_LINE: &str = "    println!(\"EVCXR_PANIC_NOTIFICATION\");";
const ERROR_LINE: &str = "println!(\"{}\", evcxr_internal_runtime::USER_ERROR_OCCURRED);";
const SEND_TEXT: &str = "evcxr_send_text_plain(&format!(";

/// A method for all that can be shown with `{:?}`. It is no part of the support library, since rustc would suggest it
/// where it is left out.
const DISPLAY: &str = "trait ChorusDisplay { fn evcxr_display(&self); } \
    impl<T: ::std::fmt::Debug + ?Sized> ChorusDisplay for T { \
    fn evcxr_display(&self) { ::chorus_support::display(&self, ::std::any::type_name::<T>()) } }";

/// What to do besides the usual.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Options {
    /// Give every `Debug` value an `evcxr_display` method, so that evcxr's first try at showing a last
    /// expression compiles. Not with `:fmt` or `:types`, which act on evcxr's second try only.
    pub(crate) display: bool,
    /// Move even those variables that the cell doesn't mention.
    pub(crate) all_variables: bool,
}

/// The rewritten source and what was left out.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Rewritten {
    pub(crate) source: String,
    /// Whether some variables were left in the store.
    pub(crate) left_out: bool,
}

/// Rewrites evcxr's generated `source`; `None` when it isn't the source of something to run.
pub(crate) fn rewrite(source: &str, options: Options) -> Option<Rewritten> {
    let lines: Vec<&str> = source.split('\n').collect();
    let entry = lines
        .iter()
        .rposition(|line| line.starts_with(ENTRY_PREFIX))?;
    let module = module_lines(&lines[..entry]);
    let body = &lines[entry + 1..];
    let mentioned = if options.all_variables {
        None
    } else {
        Some(words(
            body.iter()
                .copied()
                .filter(|line| generated(line).is_none()),
        ))
    };
    let panic_line = body
        .iter()
        .rposition(|line| *line == PANIC_LINE)
        .map(|index| index + entry + 1);
    let returned = returned_lines(&lines[..entry]);

    let mut left_out = false;
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
            if options.display {
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
        } else if index > entry
            && let Some(name) = generated(line)
        {
            match &mentioned {
                Some(words) if !words.contains(name) => left_out = true,
                _ => out.push_str(line),
            }
        } else if let Some(rest) = line.strip_prefix(SEND_TEXT) {
            out.push_str("evcxr_internal_runtime::send_text_plain(&format!(");
            out.push_str(rest);
        } else {
            out.push_str(line);
        }
    }
    Some(Rewritten {
        source: out,
        left_out,
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

/// The variable that a generated line loads, checks or stores, if it is such a line of a variable that
/// existed before this cell.
fn generated(line: &str) -> Option<&str> {
    let is_check = line.starts_with("vars_ok &= evcxr_variable_store.check_variable::<");
    let is_load =
        line.starts_with("let ") && line.contains(" = evcxr_variable_store.take_variable::<");
    if is_check || is_load {
        return name(line);
    }
    // The store of an old variable stands after the call that catches panics, that of a new one inside
    // it; keeping both for every mentioned name is right, since a new one's name is mentioned.
    if line.starts_with("evcxr_variable_store.put_variable::<") {
        return name(line);
    }
    None
}

/// The variable in `.. (stringify!(name) ..`, without the `r#` of a raw identifier.
fn name(line: &str) -> Option<&str> {
    let name = line.rsplit_once("(stringify!(")?.1.split(')').next()?;
    Some(name.strip_prefix("r#").unwrap_or(name))
}

/// Every identifier in these lines, those inside strings included: `format!("{x}")` mentions `x`.
fn words<'a>(lines: impl Iterator<Item = &'a str>) -> HashSet<&'a str> {
    lines
        .flat_map(|line| line.split(|c: char| !(c.is_alphanumeric() || c == '_')))
        .filter(|word| !word.is_empty())
        .collect()
}

#[cfg(test)]
mod tests;
