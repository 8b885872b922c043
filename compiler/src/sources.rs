//! From generated source back to the cell that somebody wrote.

use crate::statements::statements;
use std::path::{Path, PathBuf};

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

/// A cell as it was run.
#[derive(Clone, Debug)]
pub(crate) struct Cell {
    /// The number of its snippet.
    pub(crate) number: u64,
    /// How its reader knows it.
    pub(crate) label: Label,
    pub(crate) source: String,
}

/// How readers know a cell or a snippet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Label {
    /// A notebook's cell, by its execution count.
    In(u32),
    /// What an engine was just asked to run.
    Snippet,
    /// What it ran before.
    EarlierSnippet,
}

/// The generated sources of a session, kept on disk, and the cells they were made of.
#[derive(Debug)]
pub(crate) struct Sources {
    folder: PathBuf,
    cells: Vec<Cell>,
}

impl Sources {
    pub(crate) fn new(folder: PathBuf) -> std::io::Result<Sources> {
        std::fs::create_dir_all(&folder)?;
        Ok(Sources {
            folder,
            cells: Vec::new(),
        })
    }

    /// Remembers a cell whose generated source is in `generated`.
    pub(crate) fn add(&mut self, cell: Cell, generated: &Path) {
        if let Err(error) = std::fs::copy(generated, self.path(cell.number)) {
            tracing::debug!(%error, "locations in a snippet won't be found");
        }
        self.cells.push(cell);
    }

    fn path(&self, number: u64) -> PathBuf {
        self.folder.join(format!("{number}.rs"))
    }

    /// The line of a cell behind `line` (from 1) of a generated file, named as in a panic's location.
    ///
    /// A snippet contains what its cell says and the items of earlier cells.
    pub(crate) fn locate(&self, file: &str, line: u32) -> Option<Place> {
        let number = number(file)?;
        let generated = std::fs::read_to_string(self.path(number)).ok()?;
        let (cell, line, text) = place(&generated, line, self.latest_first(number))?;
        Some(Place {
            cell: self.count_of(cell, number)?,
            line,
            text: text.to_owned(),
        })
    }

    /// The cells up to snippet `number`.
    pub(crate) fn latest_first(&self, number: u64) -> impl Iterator<Item = &Cell> {
        self.cells
            .iter()
            .rev()
            .skip_while(move |cell| cell.number > number)
    }

    /// A cell that was run again from the same state reuses the snippet of the first time, but its reader
    /// looks at the last.
    fn count_of(&self, cell: &Cell, number: u64) -> Option<u32> {
        let cell = match self.cells.last() {
            Some(last) if cell.number == number && last.source == cell.source => last,
            _ => cell,
        };
        match cell.label {
            Label::In(count) => Some(count),
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
    let at = offset(generated, usize::try_from(line).ok()?, 1)?;
    let (cell, at) = origin(cells, generated, at)?;
    let line = newlines(&cell.source[..at]);
    Some((cell, line + 1, cell.source.lines().nth(line)?))
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
    /// How it is called in messages; a cell as in IPython.
    pub(crate) fn name(&self) -> String {
        match self.label {
            Label::In(count) => format!("In[{count}]"),
            Label::Snippet => "snippet".to_owned(),
            Label::EarlierSnippet => "earlier snippet".to_owned(),
        }
    }

    /// The byte of this cell behind the byte `at` of `generated`, if it comes from this cell.
    pub(crate) fn origin(&self, generated: &str, at: usize) -> Option<usize> {
        statements(&self.source).iter().find_map(|statement| {
            let text = self.source.get(statement.range.clone())?.trim_end();
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

fn newlines(text: &str) -> usize {
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
    fn lines_of_this_cell_and_of_items_of_earlier_ones() {
        let folder = tempfile::tempdir().unwrap();
        let mut sources = Sources::new(folder.path().join("sources")).unwrap();
        let file = folder.path().join("lib.rs");
        let mut add = |number, count, source: &str, generated: &str| {
            std::fs::write(&file, generated).unwrap();
            let cell = Cell {
                number,
                label: Label::In(count),
                source: source.to_owned(),
            };
            sources.add(cell, &file);
        };
        add(
            1,
            4,
            ":dep x\nfn f() {\n    panic!()\n}\n",
            "fn f() {\n    panic!()\n}\nfn entry() {\n}\n",
        );
        add(
            2,
            7,
            "let a = 1;\n\nf()",
            "// head\nfn f() {\n    panic!()\n}\nfn entry() {\n(\nf()\n).show();\n}\n",
        );
        let place = |file, line| {
            let place = sources.locate(file, line)?;
            Some((place.cell, place.line, place.text))
        };
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
        assert_eq!(place("src/main.rs", 1), None);
    }
}
