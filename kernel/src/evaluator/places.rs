//! Names cells where text that they print names generated sources: `dbg!`, `file!()`, loggers, panics of threads.

use compiler::Lineages;
use std::collections::HashMap;

/// How a generated source's path begins and ends.
const BEGIN: &str = "chorus-";
const END: &str = "/lib.rs";
/// So many places are remembered.
const LIMIT: usize = 10_000;

/// The places that were named so far.
#[derive(Debug, Default)]
pub(super) struct Places {
    known: HashMap<(String, Option<u32>), Option<String>>,
}

impl Places {
    /// The text with `In[3]` for each `chorus-17/lib.rs`, and the cell's line for the source's behind it.
    pub(super) fn named(&mut self, text: &str, lineages: &Lineages) -> Option<String> {
        let mut named = String::new();
        let mut rest = text;
        while let Some(at) = rest.find(BEGIN) {
            let (before, found) = rest.split_at(at);
            named.push_str(before);
            match source(found) {
                Some(source) => {
                    match self.name(source.file, source.line, lineages) {
                        Some(name) => named.push_str(&name),
                        None => named.push_str(&found[..source.length]),
                    }
                    rest = &found[source.length..];
                }
                None => {
                    named.push_str(BEGIN);
                    rest = &found[BEGIN.len()..];
                }
            }
        }
        (rest.len() < text.len()).then(|| named + rest)
    }

    fn name(&mut self, file: &str, line: Option<u32>, lineages: &Lineages) -> Option<String> {
        if self.known.len() >= LIMIT {
            self.known.clear();
        }
        let known = self.known.entry((file.to_owned(), line));
        let name = || match line {
            Some(line) => match lineages.locate(file, line) {
                Some(place) => Some(format!("In[{}]:{}", place.cell, place.line)),
                // By `line!()`, which is the cell's already.
                None => Some(format!("In[{}]:{line}", lineages.cell_of(file)?)),
            },
            None => Some(format!("In[{}]", lineages.cell_of(file)?)),
        };
        known.or_insert_with(name).clone()
    }
}

struct Source<'a> {
    file: &'a str,
    line: Option<u32>,
    /// Of both, in bytes.
    length: usize,
}

/// The generated source that a text begins with.
fn source(text: &str) -> Option<Source<'_>> {
    let number = digits(&text[BEGIN.len()..]);
    let length = BEGIN.len() + number.len() + END.len();
    if number.is_empty() || !text[BEGIN.len() + number.len()..].starts_with(END) {
        return None;
    }
    let line = text[length..]
        .strip_prefix(':')
        .map(digits)
        .unwrap_or_default();
    Some(Source {
        file: &text[..length],
        line: line.parse().ok(),
        length: length + if line.is_empty() { 0 } else { line.len() + 1 },
    })
}

fn digits(text: &str) -> &str {
    let end = text.find(|c: char| !c.is_ascii_digit());
    &text[..end.unwrap_or(text.len())]
}

#[cfg(test)]
mod tests {
    use super::source;

    #[test]
    fn a_source_is_found_with_its_line() {
        for (text, found) in [
            (
                "chorus-12/lib.rs:7:3] x",
                Some(("chorus-12/lib.rs", Some(7), 18)),
            ),
            (
                "chorus-12/lib.rs, and",
                Some(("chorus-12/lib.rs", None, 16)),
            ),
            (
                "chorus-12/lib.rs: and",
                Some(("chorus-12/lib.rs", None, 16)),
            ),
            ("chorus-/lib.rs:7", None),
            ("chorus-session-x/lib.rs", None),
            ("chorus-12/main.rs", None),
        ] {
            let source = source(text).map(|source| (source.file, source.line, source.length));
            assert_eq!(source, found, "{text}");
        }
    }
}
