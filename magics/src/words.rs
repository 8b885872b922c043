//! A magic's line into words, each with its place, as a shell would; brackets keep spaces, so that `-t [0, 1]` is two words.
//!
//! Not a crate: the crates for this give no places, and the code that follows the options of `%px` must stay as it is written.

use std::ops::Range;

/// A word and where it stands in the line, quotes included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Word {
    pub(crate) text: String,
    pub(crate) range: Range<usize>,
}

/// The next word of `line` from byte `from`; `None` at the end. A quote that is not closed closes at the end of the line.
pub(crate) fn next(line: &str, from: usize) -> Option<Word> {
    let rest = line.get(from..)?;
    let start = from + (rest.len() - rest.trim_start().len());
    let mut text = String::new();
    let mut quote = None;
    let mut depth = 0usize;
    let mut end = line.len();
    let mut chars = line.get(start..)?.char_indices();
    while let Some((at, c)) = chars.next() {
        match quote {
            Some(open) if c == open => quote = None,
            Some(_) => text.push(c),
            None if c == '\'' || c == '"' => quote = Some(c),
            None if c == '\\' => text.extend(chars.next().map(|(_, escaped)| escaped)),
            None if c.is_whitespace() && depth == 0 => {
                end = start + at;
                break;
            }
            None => {
                match c {
                    '[' => depth += 1,
                    ']' => depth = depth.saturating_sub(1),
                    _ => {}
                }
                text.push(c);
            }
        }
    }
    (start < line.len()).then_some(Word {
        text,
        range: start..end,
    })
}

/// All words of `line`.
pub(crate) fn all(line: &str) -> Vec<Word> {
    let mut words = Vec::new();
    let mut from = 0;
    while let Some(word) = next(line, from) {
        from = word.range.end;
        words.push(word);
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn words_as_a_shell_has_them() {
        for (line, expected) in [
            ("", &[][..]),
            ("  ", &[]),
            ("-t 0 -o n", &["-t", "0", "-o", "n"]),
            ("-t [0, 1] x", &["-t", "[0, 1]", "x"]),
            ("-t '0, 1' \"a b\"c", &["-t", "0, 1", "a bc"]),
            (r"a\ b", &["a b"]),
            ("'open", &["open"]),
            ("''", &[""]),
        ] {
            let texts: Vec<String> = all(line).into_iter().map(|word| word.text).collect();
            assert_eq!(texts, expected, "{line:?}");
        }
    }

    proptest! {
        #[test]
        fn never_panics_and_goes_on(line in ".{0,40}") {
            let mut end = 0;
            for word in all(&line) {
                prop_assert!(word.range.start >= end && word.range.end > word.range.start);
                end = word.range.end;
            }
        }
    }
}
