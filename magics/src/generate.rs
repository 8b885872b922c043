//! The cells that magics write for the notebook: calls of the crate `chorus`, in which the user's code stays in its lines. Pure. (No line
//! begins with the crate's path as `::chorus`: evcxr would take that for a command.)
//!
//! What a magic adds stands in its own line and behind the user's code, and [`Code::magic`] says what is in that line for the user, so
//! that rustc's errors show what he wrote.

use crate::cell::Code;
use crate::names::{List, Name, Named, Typed};
use crate::options::{GatherArgs, OptionError, ParallelArgs, PushArgs};

/// How to reach engines.
#[derive(Clone, Debug, PartialEq)]
pub struct Reach {
    /// As after `-t`.
    pub targets: String,
    /// Progress is shown after so many seconds; never if they are negative.
    pub progress_after: f64,
}

impl Reach {
    fn arguments(&self) -> String {
        let after = if self.progress_after.is_finite() && self.progress_after >= 0.0 {
            format!("Some({:?})", self.progress_after)
        } else {
            "None".to_owned()
        };
        format!("{:?}, {after}", self.targets)
    }
}

/// The names of `--merge` that need no path.
pub const MERGES: &[(&str, &str)] = &[
    ("sum", "a + b"),
    ("concat", "the first's items, then the second's"),
    ("counts", "numbers by key, added key by key"),
];

/// `%%parallel`. `body` has the cell's place, `magic` is its first line.
pub fn parallel(options: &ParallelArgs, reach: &Reach, magic: &str, body: &Code) -> Code {
    let mut before = String::new();
    if let Some(into) = &options.into {
        before.push_str(&format!("let {into} = {{ let chorus_result = "));
    }
    before.push_str(&format!(
        "chorus::__private::parallel({})",
        reach.arguments()
    ));
    if options.balanced {
        before.push_str(".balanced()");
    }
    if let Some(parts) = options.chunks {
        before.push_str(&format!(".chunks({parts})"));
    }
    let mut part = "()";
    if let Some(over) = &options.over {
        before.push_str(&format!(".over(&{})", over.value()));
        part = &over.name;
    }
    let mut shared = "()".to_owned();
    for with in options.with.iter().flat_map(|List(with)| with) {
        before.push_str(&format!(".with(&{})", with.value()));
        shared = format!("({shared}, {})", with.name);
    }
    let run = if options.over.is_some() {
        "each"
    } else {
        "once"
    };
    before.push_str(&format!(".{run}(|{shared}, {part}| {{"));
    let mut after = "\n})".to_owned();
    match &options.merge {
        None => after.push_str(".all()"),
        Some(merge) => {
            let known = MERGES.iter().any(|(name, _)| name == merge);
            let path = if known { "::chorus::merge::" } else { "" };
            after.push_str(&format!(".merge({path}{merge})"));
        }
    }
    // Not with a `?` for a variable's value: see `chorus::__private`.
    after.push_str(match options.into {
        None => "?",
        Some(_) => {
            "; if chorus_result.is_err() { chorus::__private::stop(&chorus_result)?; } chorus::__private::value(chorus_result) };"
        }
    });
    Code {
        before,
        after,
        magic: magic.to_owned(),
        ..body.clone()
    }
}

/// A cell that is all of a magic's making, in the place of the magic's `line`.
fn instead(text: String, magic: &str, line: usize) -> Code {
    Code {
        before: text,
        magic: magic.to_owned(),
        line: line + 1,
        ..Code::default()
    }
}

fn variables(reach: &Reach) -> String {
    format!("chorus::__private::variables({})?", reach.arguments())
}

/// `%push` and `%scatter`, which is the name of the `method`.
///
/// # Errors
/// When there are not as many names for the other side.
pub fn send(
    method: &str,
    options: &PushArgs,
    reach: &Reach,
    magic: &str,
    line: usize,
) -> Result<Code, OptionError> {
    let List(values) = &options.variables;
    let names = under(
        method,
        values.iter().map(|named| &named.name),
        options.under.as_ref(),
    )?;
    let calls: String = values
        .iter()
        .zip(names)
        .map(|(named, name)| format!(".{method}({name:?}, &{})?", named.value()))
        .collect();
    // No variable of ours, which could have the name of one that is sent.
    let text = format!("{}{calls};", variables(reach));
    Ok(instead(text, magic, line))
}

/// `%pull` and `%gather`, which is the name of the `method`. All have types.
///
/// # Errors
/// When there are not as many names for this side, or a type is missing.
pub fn fetch(
    method: &str,
    options: &GatherArgs,
    reach: &Reach,
    magic: &str,
    line: usize,
) -> Result<Code, OptionError> {
    let List(values) = &options.engine_variables;
    let names = under(
        method,
        values.iter().map(|typed| &typed.name),
        options.under.as_ref(),
    )?;
    let mut text = String::new();
    for (Typed { name, type_name }, own) in values.iter().zip(names) {
        let type_name = type_name
            .as_ref()
            .ok_or_else(|| no_type(method, name, None))?;
        let bound = match method {
            "gather" => type_name.clone(),
            _ => format!("Vec<{type_name}>"),
        };
        text.push_str(&format!(
            "let {own}: {bound} = {}.{method}::<{type_name}>({name:?})?; ",
            variables(reach)
        ));
    }
    text.truncate(text.trim_end().len());
    Ok(instead(text, magic, line))
}

/// What to write when a type is missing; `known` is the type of a variable of that name in the notebook.
pub fn no_type(method: &str, name: &str, known: Option<&str>) -> OptionError {
    let type_name = known.unwrap_or(match method {
        "gather" => "Vec<f64>",
        _ => "f64",
    });
    let gives = match method {
        "gather" => format!("binds all engines' vectors in one, a `{type_name}`"),
        _ => format!("binds one value an engine, a `Vec<{type_name}>`"),
    };
    OptionError {
        magic: format!("%{method}"),
        message: format!(
            "write the type that `{name}` has on the engines: `%{method} {name}: {type_name}` {gives}"
        ),
    }
}

/// The names on the other side: those after `--as`, or the same.
fn under<'a>(
    method: &str,
    own: impl Iterator<Item = &'a String>,
    under: Option<&'a List<Name>>,
) -> Result<Vec<&'a String>, OptionError> {
    let own: Vec<&String> = own.collect();
    match under {
        None => Ok(own),
        Some(List(names)) if names.len() == own.len() => {
            Ok(names.iter().map(|Name(name)| name).collect())
        }
        Some(List(names)) => Err(OptionError {
            magic: format!("%{method}"),
            message: format!(
                "--as has {} for {}: write one for each",
                counted(names.len()),
                counted(own.len())
            ),
        }),
    }
}

fn counted(count: usize) -> String {
    match count {
        1 => "1 name".to_owned(),
        count => format!("{count} names"),
    }
}

/// Variables of the notebook that the body of a `%%parallel` mentions, and that it isn't given: the line of the cell, and the name.
pub fn captured<'a>(
    options: &ParallelArgs,
    body: &Code,
    variables: impl Iterator<Item = &'a str>,
) -> Vec<(usize, &'a str)> {
    let given: Vec<&str> = (options.over.iter())
        .chain(options.with.iter().flat_map(|List(with)| with))
        .map(|named: &Named| named.name.as_str())
        .collect();
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let mut found: Vec<(usize, &str)> = variables
        .filter(|name| !given.contains(name))
        .filter_map(|name| {
            let line = body.text.lines().position(|line| {
                let code = line.split("//").next().unwrap_or_default();
                code.match_indices(name).any(|(at, _)| {
                    let before = code.get(..at).and_then(|before| before.chars().last());
                    let after = code
                        .get(at + name.len()..)
                        .and_then(|after| after.chars().next());
                    // A field or a method of that name is something else.
                    !before.is_some_and(|c| is_word(c) || c == '.') && !after.is_some_and(is_word)
                })
            })?;
            Some((body.line + line, name))
        })
        .collect();
    found.sort_unstable();
    found
}

#[cfg(test)]
mod tests;
