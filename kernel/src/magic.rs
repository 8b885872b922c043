//! Magics: lines that begin with `%` and are for the kernel, not for Rust.
//!
//! In Rust `%` is also the remainder operator and a line may begin with it, so a magic is recognised only where a
//! statement could begin.

use compiler::{Completeness, completeness};

/// What a magic does, for help and completion.
#[derive(Debug)]
pub(crate) struct Magic {
    /// With its `%`.
    pub(crate) name: &'static str,
    /// One line.
    pub(crate) summary: &'static str,
    /// How it is called, and what its arguments mean.
    pub(crate) help: &'static str,
    /// The words that may follow it.
    pub(crate) arguments: &'static [&'static str],
}

/// All magics, the only list of them.
pub(crate) const MAGICS: &[Magic] = &[
    Magic {
        name: "%checkpoint",
        summary: "keep variables when a cell dies",
        help: "%checkpoint on|off|status\n\n\
               Before a cell runs, its variables are set aside. When the cell dies by a signal, calls exit or is\n\
               interrupted, they come back as they were.\n\n\
               on      from the next cell on (the default)\n\
               off     saves the time and the memory that large variables cost\n\
               status  says what holds now (also without an argument)",
        arguments: &["on", "off", "status"],
    },
    Magic {
        name: "%lsmagic",
        summary: "list the magics",
        help: "%lsmagic\n\nLists the magics, a line each.",
        arguments: &[],
    },
];

/// A magic as a cell calls it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Call {
    /// With its `%` or `%%`.
    pub(crate) name: String,
    /// The rest of the line, trimmed.
    pub(crate) arguments: String,
    /// The line in the cell, from 1.
    pub(crate) line: usize,
}

/// Takes the magics out of a cell. The code keeps its lines: where a magic was is an empty one.
pub(crate) fn split(cell: &str) -> (Vec<Call>, String) {
    if !cell.lines().any(begins_like_magic) {
        return (Vec::new(), cell.to_owned());
    }
    let mut calls = Vec::new();
    let mut code = String::with_capacity(cell.len());
    for (index, line) in cell.split_inclusive('\n').enumerate() {
        if begins_like_magic(line) && at_boundary(&code) {
            let text = line.trim();
            let (name, arguments) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
            calls.push(Call {
                name: name.to_owned(),
                arguments: arguments.trim().to_owned(),
                line: index + 1,
            });
            code.push_str(if line.ends_with('\n') { "\n" } else { "" });
        } else {
            code.push_str(line);
        }
    }
    (calls, code)
}

fn begins_like_magic(line: &str) -> bool {
    let Some(rest) = line.trim_start().strip_prefix('%') else {
        return false;
    };
    rest.trim_start_matches('%')
        .starts_with(|c: char| c.is_ascii_alphabetic())
}

/// Whether a statement could begin after `code`.
fn at_boundary(code: &str) -> bool {
    let last_code = code
        .lines()
        .rev()
        .map(str::trim_end)
        .find(|line| !line.is_empty() && !line.trim_start().starts_with("//"));
    match last_code {
        None => true,
        Some(line) if line.trim_start().starts_with([':', '!']) => true,
        Some(line) => line.ends_with([';', '}']) && completeness(code) == Completeness::Complete,
    }
}

/// The magic of that name.
pub(crate) fn find(name: &str) -> Option<&'static Magic> {
    MAGICS.iter().find(|magic| magic.name == name)
}

/// The magic whose name is most like `name`, if one is like it.
pub(crate) fn nearest(name: &str) -> Option<&'static str> {
    MAGICS
        .iter()
        .map(|magic| (strsim::jaro_winkler(name, magic.name), magic.name))
        .filter(|(likeness, _)| *likeness > 0.8)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, name)| name)
}

/// Suggestions for a line of a magic up to the cursor: what they replace begins at this byte of it.
pub(crate) fn complete(line: &str) -> Option<(usize, Vec<&'static str>)> {
    let start = line.len() - line.trim_start().len();
    let text = &line[start..];
    if !text.starts_with('%') {
        return None;
    }
    match text.split_once(char::is_whitespace) {
        None => Some((
            start,
            MAGICS
                .iter()
                .map(|magic| magic.name)
                .filter(|name| name.starts_with(text))
                .collect(),
        )),
        Some((name, _)) => {
            let word = line.rfind(char::is_whitespace).map_or(start, |at| at + 1);
            let matches = find(name)?
                .arguments
                .iter()
                .copied()
                .filter(|argument| argument.starts_with(&line[word..]))
                .collect();
            Some((word, matches))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_magic_stands_where_a_statement_could() {
        for (cell, names, code) in [
            ("%checkpoint off", &["%checkpoint"][..], ""),
            ("1 + 1", &[], "1 + 1"),
            ("let a = 7\n  % b;", &[], "let a = 7\n  % b;"),
            ("a\n% b", &[], "a\n% b"),
            ("f(a\n%b)", &[], "f(a\n%b)"),
            ("a\n%b", &[], "a\n%b"),
            (
                "let a = 1;\n%checkpoint on\na",
                &["%checkpoint"],
                "let a = 1;\n\na",
            ),
            ("fn f() {\n%checkpoint\n}", &[], "fn f() {\n%checkpoint\n}"),
            (
                "// note\n%lsmagic\n%checkpoint\n",
                &["%lsmagic", "%checkpoint"],
                "// note\n\n\n",
            ),
            (":dep x\n%lsmagic\n", &["%lsmagic"], ":dep x\n\n"),
            (
                "let s = \"\n%checkpoint\n\";",
                &[],
                "let s = \"\n%checkpoint\n\";",
            ),
            ("%%px\n1", &["%%px"], "\n1"),
        ] {
            let (calls, rest) = split(cell);
            let found: Vec<&str> = calls.iter().map(|call| call.name.as_str()).collect();
            assert_eq!(found, names, "{cell:?}");
            assert_eq!(rest, code, "{cell:?}");
        }
    }

    #[test]
    fn suggestions() {
        assert_eq!(complete("%ch"), Some((0, vec!["%checkpoint"])));
        assert_eq!(complete("%checkpoint o"), Some((12, vec!["on", "off"])));
        assert_eq!(complete("a % b"), None);
        assert_eq!(nearest("%chekpoint"), Some("%checkpoint"));
        assert_eq!(nearest("%timeit"), None);
    }
}
