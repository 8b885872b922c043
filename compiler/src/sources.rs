//! From a line of generated source back to the line of the cell that somebody wrote.

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

/// The generated sources of a session, kept on disk, and the cells they were made of.
#[derive(Debug)]
pub(crate) struct Sources {
    folder: PathBuf,
    /// The cells that were compiled, with the number of their snippet.
    cells: Vec<Cell>,
}

#[derive(Debug)]
struct Cell {
    number: u64,
    count: u32,
    source: String,
}

impl Sources {
    pub(crate) fn new(folder: PathBuf) -> std::io::Result<Sources> {
        std::fs::create_dir_all(&folder)?;
        Ok(Sources {
            folder,
            cells: Vec::new(),
        })
    }

    /// Remembers that the cell became snippet `number`, whose generated source is in `generated`.
    pub(crate) fn add(&mut self, number: u64, count: u32, source: &str, generated: &Path) {
        self.cells.push(Cell {
            number,
            count,
            source: source.to_owned(),
        });
        if let Err(error) = std::fs::copy(generated, self.path(number)) {
            tracing::debug!(%error, "locations in a snippet won't be found");
        }
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
        let wanted = usize::try_from(line).ok()?.checked_sub(1)?;
        self.cells
            .iter()
            .rev()
            .skip_while(|cell| cell.number > number)
            .find_map(|cell| cell.line_of(&generated, wanted))
            .map(|place| self.newest_of_same_text(place, number))
    }

    /// A cell that was run again from the same state reuses the snippet of the first time, but its reader
    /// looks at the last.
    fn newest_of_same_text(&self, place: Place, number: u64) -> Place {
        let Some(own) = self.cells.iter().find(|cell| cell.number == number) else {
            return place;
        };
        match self.cells.last() {
            Some(last) if own.count == place.cell && last.source == own.source => Place {
                cell: last.count,
                ..place
            },
            _ => place,
        }
    }
}

impl Cell {
    /// The place behind the line `wanted` (from 0) of `generated`, if it comes from this cell.
    fn line_of(&self, generated: &str, wanted: usize) -> Option<Place> {
        statements(&self.source).iter().find_map(|statement| {
            let text = self.source.get(statement.range.clone())?.trim_end();
            generated.match_indices(text).find_map(|(at, _)| {
                let first = newlines(&generated[..at]);
                let offset = wanted.checked_sub(first)?;
                if offset > newlines(text) {
                    return None;
                }
                let line = newlines(&self.source[..statement.range.start]) + offset;
                Some(Place {
                    cell: self.count,
                    line: line + 1,
                    text: self.source.lines().nth(line)?.to_owned(),
                })
            })
        })
    }
}

fn newlines(text: &str) -> usize {
    text.bytes().filter(|byte| *byte == b'\n').count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_this_cell_and_of_items_of_earlier_ones() {
        let folder = tempfile::tempdir().unwrap();
        let mut sources = Sources::new(folder.path().join("sources")).unwrap();
        let file = folder.path().join("lib.rs");
        std::fs::write(&file, "fn f() {\n    panic!()\n}\nfn entry() {\n}\n").unwrap();
        sources.add(1, 4, ":dep x\nfn f() {\n    panic!()\n}\n", &file);
        std::fs::write(
            &file,
            "// head\nfn f() {\n    panic!()\n}\nfn entry() {\n(\nf()\n).show();\n}\n",
        )
        .unwrap();
        sources.add(2, 7, "let a = 1;\n\nf()", &file);
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
