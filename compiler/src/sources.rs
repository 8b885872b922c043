//! From generated source back to the cell that somebody wrote.

use crate::statements::{Definition, statements};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A line of a cell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The cell's execution count.
    pub cell: u32,
    /// The line in it, from 1.
    pub line: usize,
    /// That line's text.
    pub text: String,
}

/// A cell to compile.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Source {
    /// What is compiled.
    pub code: String,
    /// What its reader wrote, if that is something else: a magic, of which code was made. Lines that are his own are the same in
    /// both, and have the same numbers.
    pub shown: Option<String>,
}

/// A cell as it was run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Cell {
    /// The number of its snippet.
    pub(crate) number: u64,
    /// How its reader knows it.
    pub(crate) label: Label,
    pub(crate) source: String,
    /// See [`Source::shown`].
    pub(crate) shown: Option<String>,
}

/// A stretch of what a cell's reader sees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) range: Range<usize>,
    /// Whether it is what was compiled, and not what that was made of.
    pub(crate) own: bool,
}

/// How readers know a cell or a snippet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Label {
    /// A notebook's cell, by its execution count.
    In(u32),
    /// What an engine was just asked to run.
    Snippet,
    /// What it ran before.
    EarlierSnippet,
}

/// The cells of a notebook that compiled, in their order.
#[derive(Debug, Default)]
pub(crate) struct Cells(Mutex<Vec<Cell>>);

impl Cells {
    fn all(&self) -> MutexGuard<'_, Vec<Cell>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn add(&self, cell: Cell) {
        self.all().push(cell);
    }

    pub(crate) fn latest_first(&self) -> Vec<Cell> {
        self.all().iter().rev().cloned().collect()
    }

    /// The execution count of the cell that snippet `number` was compiled for last.
    pub(crate) fn count(&self, number: u64) -> Option<u32> {
        let all = self.all();
        let cell = all.iter().rfind(|cell| cell.number == number)?;
        match cell.label {
            Label::In(count) => Some(count),
            Label::Snippet | Label::EarlierSnippet => None,
        }
    }

    /// The line of a cell behind `line` (from 1) of the source that was generated for snippet `number`.
    ///
    /// A snippet contains what its cell says and the items of earlier cells. A cell that was run again from the same state reuses the snippet
    /// of the first time, but its reader looks at the last.
    pub(crate) fn locate(&self, number: u64, generated: &str, line: u32) -> Option<Place> {
        let all = self.all();
        let own = all.iter().rposition(|cell| cell.number == number)?;
        let (cell, line, text) = place(generated, line, all[..=own].iter().rev())?;
        match cell.label {
            Label::In(count) => Some(Place {
                cell: count,
                line,
                text: text.to_owned(),
            }),
            Label::Snippet | Label::EarlierSnippet => None,
        }
    }
}

/// The number in a generated file's name, which a panic's location has: `chorus-17/lib.rs`.
pub(crate) fn number(file: &str) -> Option<u64> {
    file.strip_prefix("chorus-")?
        .strip_suffix("/lib.rs")?
        .parse()
        .ok()
}

/// The line of a cell (the first of `cells` that has it), from 1, and its text behind a line of a generated source.
pub(crate) fn place<'a>(
    generated: &str,
    line: u32,
    cells: impl Iterator<Item = &'a Cell>,
) -> Option<(&'a Cell, usize, &'a str)> {
    let line = usize::try_from(line).ok()?;
    let cells: Vec<&Cell> = cells.collect();
    let found = |line| {
        origin(
            cells.iter().copied(),
            generated,
            offset(generated, line, 1)?,
        )
    };
    // A last expression's begins with the parenthesis that evcxr puts it in, on the line before.
    let is_open = |line: usize| {
        generated
            .lines()
            .nth(line - 1)
            .is_some_and(|text| text.ends_with('('))
    };
    let found = found(line).or_else(|| is_open(line).then(|| found(line + 1))?);
    let (cell, at) = found?;
    let line = newlines(&cell.source[..at]);
    Some((cell, line + 1, cell.text().lines().nth(line)?))
}

/// The first of `cells` that a byte of a generated source comes from, and the byte of it.
pub(crate) fn origin<'a>(
    mut cells: impl Iterator<Item = &'a Cell>,
    generated: &str,
    at: usize,
) -> Option<(&'a Cell, usize)> {
    cells.find_map(|cell| Some((cell, cell.origin(generated, at)?)))
}

impl Cell {
    /// A snippet for an engine.
    pub(crate) fn snippet(number: u64, source: &str) -> Cell {
        Cell {
            number,
            label: Label::Snippet,
            source: source.to_owned(),
            shown: None,
        }
    }

    /// How it is called in messages; a cell as in IPython.
    pub(crate) fn name(&self) -> String {
        match self.label {
            Label::In(count) => format!("In[{count}]"),
            Label::Snippet => "snippet".to_owned(),
            Label::EarlierSnippet => "earlier snippet".to_owned(),
        }
    }

    /// What its reader sees.
    pub(crate) fn text(&self) -> &str {
        self.shown.as_deref().unwrap_or(&self.source)
    }

    /// Where a stretch of the compiled source is in [`text`](Cell::text). What a magic made of its own line is where that line has the same
    /// word, or all of that line.
    pub(crate) fn seen(&self, range: Range<usize>) -> Seen {
        if self.shown.is_none() {
            return Seen { range, own: true };
        }
        match (self.own(range.start), self.own(range.end)) {
            (Some(start), Some(end)) => Seen {
                range: start..end.max(start),
                own: true,
            },
            // It goes on into what the magic adds behind the reader's code.
            (Some(start), None) => Seen {
                range: start..self.text().trim_end().len().max(start),
                own: false,
            },
            _ => Seen {
                range: self.of_magic(self.source.get(range).unwrap_or_default()),
                own: false,
            },
        }
    }

    /// The byte of the text behind a byte of the source, if that is in a line of the reader's.
    fn own(&self, at: usize) -> Option<usize> {
        let before = self.source.get(..at)?;
        let start = before.rfind('\n').map_or(0, |end| end + 1);
        let line = self.source.get(start..)?.split('\n').next()?;
        let number = newlines(before);
        let seen = offset(self.text(), number + 1, 1)?;
        let seen_line = self.text().get(seen..)?.split('\n').next()?;
        let behind = at - start;
        let is_there = match seen_line == line {
            true => true,
            // What a magic puts before the reader's code is in the place of its own name and options.
            false => is_own_end(line, seen_line, behind),
        };
        let place = seen + (behind + seen_line.len()).checked_sub(line.len())?;
        (is_there && newlines(self.text()) >= number).then_some(place)
    }

    /// The stretch of the magic's line that has a word like `code`.
    fn of_magic(&self, code: &str) -> Range<usize> {
        let text = self.text();
        let mut lines = self.source.split('\n');
        let mut start = 0;
        let line = text
            .split_inclusive('\n')
            .find(|line| {
                let differs = lines.next() != Some(line.trim_end_matches('\n'));
                start += if differs { 0 } else { line.len() };
                differs
            })
            .unwrap_or_default();
        let end = line.trim_end().len();
        let begin = line.len() - line.trim_start().len();
        let name_ends = line
            .get(begin..)
            .and_then(|magic| magic.find(char::is_whitespace))
            .map_or(end, |at| begin + at);
        let word = code
            .trim_start_matches('&')
            .trim_start_matches("::chorus::merge::")
            .trim_matches(['(', ')']);
        let is_word = |c: char| c.is_alphanumeric() || c == '_';
        let found = line.match_indices(word).find(|(at, _)| {
            let edge = |side: Option<&str>, last: bool| {
                let c = side.and_then(|side| {
                    if last {
                        side.chars().last()
                    } else {
                        side.chars().next()
                    }
                });
                !c.is_some_and(is_word)
            };
            *at >= name_ends
                && edge(line.get(..*at), true)
                && edge(line.get(at + word.len()..), false)
        });
        match found.filter(|_| !word.is_empty()) {
            Some((at, _)) => start + at..start + at + word.len(),
            None => start + begin..start + end.max(begin),
        }
    }

    /// The byte of this cell behind the byte `at` of `generated`, if it comes from this cell.
    pub(crate) fn origin(&self, generated: &str, at: usize) -> Option<usize> {
        let source = &*with_line_numbers(&self.source);
        statements(source).iter().find_map(|statement| {
            let text = source.get(statement.range.clone())?.trim_end();
            generated.match_indices(text).find_map(|(from, _)| {
                // evcxr begins each statement on a line of its own.
                let whole = from == 0 || generated.as_bytes().get(from - 1) == Some(&b'\n');
                let within = at
                    .checked_sub(from)
                    .filter(|within| *within <= text.len())?;
                whole.then_some(statement.range.start + within)
            })
        })
    }
}

/// Whether two lines are the same, for a word at least, from byte `at` of the first to their ends.
fn is_own_end(line: &str, other: &str, at: usize) -> bool {
    let end = line.get(at..).unwrap_or_default();
    let has_word = end.contains(|c: char| c.is_alphanumeric())
        || at == line.len() && line.ends_with(other.rsplit(' ').next().unwrap_or(other));
    has_word && other.ends_with(end)
}

/// A cell with the number of its line, in the same number of characters, for each `line!()`: rustc counts lines of what evcxr makes of the cell.
pub(crate) fn with_line_numbers(cell: &str) -> Cow<'_, str> {
    const LINE: &str = "line!()";
    if !cell.contains(LINE) {
        return Cow::Borrowed(cell);
    }
    let mut numbered = cell.to_owned();
    for statement in statements(cell) {
        // A macro's is that of its call.
        if matches!(statement.definition(), Definition::Macro(_)) {
            continue;
        }
        for at in statement.calls_of("line") {
            let number = format!("{}u32", newlines(&cell[..at]) + 1);
            if number.len() <= LINE.len() && cell[at..].starts_with(LINE) {
                numbered.replace_range(at..at + LINE.len(), &format!("{number:7}"));
            }
        }
    }
    Cow::Owned(numbered)
}

pub(crate) fn newlines(text: &str) -> usize {
    text.bytes().filter(|byte| *byte == b'\n').count()
}

/// The byte at a line and a column (in characters), both from 1; past a line's end it is that end.
pub(crate) fn offset(text: &str, line: usize, column: usize) -> Option<usize> {
    let start = text
        .split_inclusive('\n')
        .take(line.checked_sub(1)?)
        .map(str::len)
        .sum::<usize>();
    let line = text.get(start..)?.split('\n').next()?;
    Some(
        start
            + line
                .char_indices()
                .nth(column.checked_sub(1)?)
                .map_or(line.len(), |(at, _)| at),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_count_characters() {
        let text = "é = 1;\nß + x";
        assert_eq!(offset(text, 1, 1), Some(0));
        assert_eq!(offset(text, 1, 2), Some(2));
        assert_eq!(offset(text, 2, 5), Some(13));
        assert_eq!(offset(text, 2, 99), Some(14));
        assert_eq!(offset(text, 0, 1), None);
    }

    #[test]
    fn a_line_knows_its_number() {
        for (cell, numbered) in [
            ("let a = 1;\nline!()", "let a = 1;\n2u32   "),
            (
                "println!(\"{} line!()\", line!());",
                "println!(\"{} line!()\", 1u32   );",
            ),
            (
                "macro_rules! m { () => { line!() } }",
                "macro_rules! m { () => { line!() } }",
            ),
            (
                "fn f() -> u32 {\n    line!()\n}",
                "fn f() -> u32 {\n    2u32   \n}",
            ),
            ("my_line!()", "my_line!()"),
        ] {
            assert_eq!(with_line_numbers(cell), numbered);
        }
    }

    #[test]
    fn what_a_magic_made_is_shown_as_the_magic() {
        let source = "let a = 1;\nmake(\"all\").over(&lines).with(&(n + 1)).each(|n, lines| {\n    lines.len()\n}).merge(::chorus::merge::sum);";
        let shown =
            "let a = 1;\n%%parallel --over lines --with 'n=n + 1' --merge sum\n    lines.len()";
        let cell = Cell {
            number: 1,
            label: Label::In(1),
            source: source.to_owned(),
            shown: Some(shown.to_owned()),
        };
        let seen = |part: &str| {
            let start = source.find(part).unwrap();
            let seen = cell.seen(start..start + part.len());
            (&shown[seen.range], seen.own)
        };
        assert_eq!(seen("a = 1"), ("a = 1", true));
        assert_eq!(seen("len()"), ("len()", true));
        assert_eq!(seen("&lines"), ("lines", false));
        assert_eq!(seen("&(n + 1)"), ("n + 1", false));
        assert_eq!(seen("::chorus::merge::sum"), ("sum", false));
        assert_eq!(seen("over"), ("over", false));
        let line = "%%parallel --over lines --with 'n=n + 1' --merge sum";
        assert_eq!(seen("|n, lines|"), (line, false));
        assert_eq!(seen("    lines.len()\n})"), ("    lines.len()", false));
        let plain = Cell {
            shown: None,
            ..cell.clone()
        };
        assert_eq!(
            plain.seen(3..7),
            Seen {
                range: 3..7,
                own: true
            }
        );
    }

    #[test]
    fn lines_of_this_cell_and_of_items_of_earlier_ones() {
        let cells = Cells::default();
        let add = |number, count, source: &str| {
            cells.add(Cell {
                label: Label::In(count),
                ..Cell::snippet(number, source)
            });
        };
        let first = "fn f() {\n    panic!()\n}\nfn entry() {\n}\n";
        let second = "// head\nfn f() {\n    panic!()\n}\nfn entry() {\n(\nf()\n).show();\n}\n";
        let place = |file, line| {
            let number = number(file)?;
            let generated = if number == 1 { first } else { second };
            let place = cells.locate(number, generated, line)?;
            Some((place.cell, place.line, place.text))
        };
        add(1, 4, ":dep x\nfn f() {\n    panic!()\n}\n");
        add(2, 7, "let a = 1;\n\nf()");
        assert_eq!(
            place("chorus-2/lib.rs", 3),
            Some((4, 3, "    panic!()".into()))
        );
        assert_eq!(place("chorus-2/lib.rs", 7), Some((7, 3, "f()".into())));
        assert_eq!(
            place("chorus-1/lib.rs", 2),
            Some((4, 3, "    panic!()".into()))
        );
        assert_eq!(place("chorus-2/lib.rs", 9), None);
        add(2, 8, "let a = 1;\n\nf()");
        assert_eq!(place("chorus-2/lib.rs", 7), Some((8, 3, "f()".into())));
        assert_eq!(place("chorus-3/lib.rs", 7), None);
        assert_eq!(place("src/main.rs", 1), None);
    }
}
