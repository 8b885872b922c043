//! The example notebooks' cells, read from the cells files beside the notebooks, and the notebooks made of them.
//!
//! A cells file is Rust with marked cells, as several editors know it: a line `// %%` begins a code cell, `// %% [markdown]` a cell of text
//! whose lines are comments, and `tags=["a", "b"]` after `%%` gives tags. What stands before the first marker is no cell.

use serde_json::{Value, json};

/// The cells file of wordcount.ipynb.
pub const WORDCOUNT: &str = include_str!("../wordcount.rs");

/// The notebook itself.
pub const WORDCOUNT_NOTEBOOK: &str = include_str!("../wordcount.ipynb");

/// The cells file of tour.ipynb.
pub const TOUR: &str = include_str!("../tour.rs");

/// The cells file of forestfire.ipynb.
pub const FORESTFIRE: &str = include_str!("../forestfire.rs");

/// The code cells of the word count, in order, as `chorus demo` evaluates them.
pub fn wordcount_cells() -> Vec<&'static str> {
    cells(WORDCOUNT)
        .into_iter()
        .filter(|cell| cell.kind == Kind::Code)
        .map(|cell| cell.body)
        .collect()
}

/// What a cell holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Rust, commands or magics.
    Code,
    /// Text; in the cells file each line is a comment.
    Markdown,
}

/// A cell of a cells file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cell<'a> {
    /// Code or text.
    pub kind: Kind,
    /// The cell's tags, for example `raises-exception`.
    pub tags: Vec<&'a str>,
    /// Its lines as they stand in the file, without blank lines at the start and the end.
    pub body: &'a str,
}

impl Cell<'_> {
    /// The source as a notebook has it: code as it is, text without its comment marks.
    pub fn source(&self) -> String {
        match self.kind {
            Kind::Code => self.body.to_owned(),
            Kind::Markdown => {
                let lines: Vec<&str> = self
                    .body
                    .lines()
                    .map(|line| {
                        let text = line.strip_prefix("//").unwrap_or(line);
                        text.strip_prefix(' ').unwrap_or(text)
                    })
                    .collect();
                lines.join("\n")
            }
        }
    }
}

/// The cells of a cells file, in order.
pub fn cells(file: &str) -> Vec<Cell<'_>> {
    const MARKER: &str = "// %%";
    let mut cells = Vec::new();
    let mut rest = file;
    while let Some(start) = find_line(rest, MARKER) {
        let after = &rest[start + MARKER.len()..];
        let (marker, tail) = after.split_once('\n').unwrap_or((after, ""));
        let end = find_line(tail, MARKER).unwrap_or(tail.len());
        let kind = if marker.contains("[markdown]") {
            Kind::Markdown
        } else {
            Kind::Code
        };
        let tags = marker
            .split_once("tags=[")
            .and_then(|(_, list)| list.split_once(']'))
            .map(|(list, _)| list.split(',').map(|tag| tag.trim().trim_matches('"')))
            .map(|tags| tags.filter(|tag| !tag.is_empty()).collect())
            .unwrap_or_default();
        cells.push(Cell {
            kind,
            tags,
            body: tail[..end].trim_matches('\n'),
        });
        rest = &tail[end..];
    }
    cells
}

/// Where the first line that begins with `start` begins.
fn find_line(text: &str, start: &str) -> Option<usize> {
    let mut at = 0;
    for line in text.split_inclusive('\n') {
        if line.starts_with(start) {
            return Some(at);
        }
        at += line.len();
    }
    None
}

/// The notebook of a cells file: format 4.5 (<https://nbformat.readthedocs.io/en/latest/format_description.html>), for the
/// kernelspec `chorus`, without outputs.
pub fn notebook(file: &str) -> Value {
    let cells: Vec<Value> = cells(file)
        .iter()
        .enumerate()
        .map(|(index, cell)| {
            let source = cell.source();
            let lines: Vec<&str> = source.split_inclusive('\n').collect();
            let metadata = if cell.tags.is_empty() {
                json!({})
            } else {
                json!({ "tags": cell.tags })
            };
            match cell.kind {
                Kind::Markdown => {
                    json!({"cell_type": "markdown", "id": format!("text-{index}"), "metadata": metadata, "source": lines})
                }
                Kind::Code => {
                    json!({"cell_type": "code", "id": format!("code-{index}"), "metadata": metadata, "source": lines,
                           "execution_count": null, "outputs": []})
                }
            }
        })
        .collect();
    json!({
        "cells": cells,
        "metadata": {
            "kernelspec": {"display_name": "Rust (Chorus)", "language": "rust", "name": "chorus"},
            "language_info": {"name": "rust", "file_extension": ".rs"},
        },
        "nbformat": 4,
        "nbformat_minor": 5,
    })
}

#[cfg(test)]
mod tests;
