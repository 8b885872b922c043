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
    /// Its execution count.
    pub(crate) count: u32,
    pub(crate) source: String,
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
        let number: u64 = file
            .strip_prefix("chorus-")?
            .strip_suffix("/lib.rs")?
            .parse()
            .ok()?;
        let generated = std::fs::read_to_string(self.path(number)).ok()?;
        let at = offset(&generated, usize::try_from(line).ok()?, 1)?;
        let (cell, at) = self.origin(number, &generated, at)?;
        let line = newlines(&cell.source[..at]);
        Some(Place {
            cell: self.count_of(cell, number),
            line: line + 1,
            text: cell.source.lines().nth(line)?.to_owned(),
        })
    }

    /// The cell, up to snippet `number`, and the byte of it behind a byte of a generated source. The latest one wins.
    pub(crate) fn origin(&self, number: u64, generated: &str, at: usize) -> Option<(&Cell, usize)> {
        self.cells
            .iter()
            .rev()
            .skip_while(|cell| cell.number > number)
            .find_map(|cell| Some((cell, cell.origin(generated, at)?)))
    }

    /// A cell that was run again from the same state reuses the snippet of the first time, but its reader
    /// looks at the last.
    fn count_of(&self, cell: &Cell, number: u64) -> u32 {
        match self.cells.last() {
            Some(last) if cell.number == number && last.source == cell.source => last.count,
            _ => cell.count,
        }
    }
}

impl Cell {
    /// How it is called in messages, as in IPython.
    pub(crate) fn name(&self) -> String {
        format!("In[{}]", self.count)
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
                count,
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
