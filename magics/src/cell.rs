//! A cell into pieces, in their order: Rust, line magics, and a cell magic that takes the rest of the cell.
//!
//! In Rust `%` is also the remainder operator, and a line may begin with it. So a line is a magic only where a statement could begin, and
//! only when a letter follows the sign at once (`% b` is never one).

use std::ops::Range;

/// Says whether a statement could begin after this text: nothing is open in it and its last expression is finished. The compiler's
/// judge of completeness is meant; it is asked only for text that ends in `;` or `}`, or whose last line looks like a command.
pub type AtBoundary<'a> = &'a dyn Fn(&str) -> bool;

/// A part of a cell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// Rust and evcxr's commands.
    Code(Code),
    /// `%name arguments`.
    Line(LineMagic),
    /// `%%name arguments` and all lines after it.
    Cell(CellMagic),
}

impl Piece {
    /// The bytes of the text that the piece is. Those of all pieces, one after the other, are the whole text.
    pub fn range(&self) -> Range<usize> {
        match self {
            Piece::Code(code) => code.range.clone(),
            Piece::Line(magic) => magic.range.clone(),
            Piece::Cell(magic) => magic.range.start..magic.body.range.end,
        }
    }
}

/// Rust from a cell, with its place in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Code {
    /// What a magic puts before it: one line without its end, or nothing.
    pub before: String,
    /// The user's text.
    pub text: String,
    /// What a magic puts after it.
    pub after: String,
    /// The magic's own line as the user wrote it, if `before` stands in its place.
    pub magic: String,
    /// The line of the cell in which `text` begins, from 1.
    pub line: usize,
    /// The characters of that line before `text`.
    pub column: usize,
    /// The bytes of the parsed text that `text` is.
    pub range: Range<usize>,
}

impl Code {
    /// What to compile. The user's text stands in the lines and columns that it has in the cell, so that errors point into the cell.
    ///
    /// One exception: what a magic puts before code in the cell's first line shifts that line's columns.
    pub fn source(&self) -> String {
        let mut source = String::new();
        if self.before.is_empty() || self.line > 1 {
            let empty = self.line - 1 - usize::from(!self.before.is_empty());
            source.extend(std::iter::repeat_n('\n', empty));
            if !self.before.is_empty() {
                source.push_str(&self.before);
                source.push('\n');
            }
            if !self.is_command() {
                source.extend(std::iter::repeat_n(' ', self.column));
            }
        } else {
            source.push_str(&self.before);
            source.push(' ');
        }
        source.push_str(&self.text);
        source.push_str(&self.after);
        source
    }

    /// What the user sees in the lines of [`source`](Code::source): his own, and nothing that a magic adds. `None` if that is the same.
    pub fn shown(&self) -> Option<String> {
        if self.magic.is_empty() {
            return None;
        }
        let shown = Code {
            before: self.magic.clone(),
            after: String::new(),
            ..self.clone()
        };
        Some(shown.source())
    }

    /// Whether there is nothing in it to run.
    pub fn is_blank(&self) -> bool {
        self.text.trim().is_empty()
    }

    // evcxr knows a command by its sign at the very start of a line.
    fn is_command(&self) -> bool {
        self.text.trim_start().starts_with([':', '!'])
    }

    /// The part of the code from this byte of `text` on.
    pub fn from_byte(&self, at: usize) -> Code {
        let (head, text) = self.text.split_at_checked(at).unwrap_or((&self.text, ""));
        let lines = head.matches('\n').count();
        let last = head.rsplit('\n').next().unwrap_or_default().chars().count();
        Code {
            text: text.to_owned(),
            line: self.line + lines,
            column: if lines == 0 { self.column + last } else { last },
            range: (self.range.start + head.len())..self.range.end,
            ..Code::default()
        }
    }
}

/// `%name arguments`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LineMagic {
    /// With its `%`.
    pub name: String,
    /// The rest of the line, without space at its ends.
    pub arguments: Code,
    /// The whole line as it is written, without its end.
    pub written: String,
    /// The bytes of the parsed text that the magic is, the line's end included.
    pub range: Range<usize>,
}

/// `%%name arguments`, and its body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CellMagic {
    /// With its `%%`.
    pub name: String,
    /// The rest of the line, without space at its ends.
    pub arguments: Code,
    /// The whole line as it is written, without its end.
    pub written: String,
    /// All lines after it.
    pub body: Code,
    /// The bytes of the parsed text that the magic's own line is, the line's end included.
    pub range: Range<usize>,
}

/// Takes a cell apart.
pub fn parse(cell: &str, at_boundary: AtBoundary<'_>) -> Vec<Piece> {
    parse_code(
        &Code {
            text: cell.to_owned(),
            line: 1,
            range: 0..cell.len(),
            ..Code::default()
        },
        at_boundary,
    )
}

/// Takes apart what stands somewhere in a cell, such as the body of a `%%time`.
pub fn parse_code(code: &Code, at_boundary: AtBoundary<'_>) -> Vec<Piece> {
    let text = code.text.as_str();
    let mut pieces = Vec::new();
    let mut code_start = 0;
    let mut line_start = 0;
    for line in text.split_inclusive('\n') {
        let line_end = line_start + line.len();
        let before = text.get(code_start..line_start).unwrap_or_default();
        if let Some(found) = magic_in(line)
            && may_begin_after(before, at_boundary)
        {
            let cut = |from: usize, to: usize| {
                let mut part = code.from_byte(from);
                part.text.truncate(to - from);
                part.range.end = part.range.start + (to - from);
                part
            };
            if line_start > code_start {
                pieces.push(Piece::Code(cut(code_start, line_start)));
            }
            let name = line.get(found.name.clone()).unwrap_or_default().to_owned();
            let arguments = cut(
                line_start + found.arguments.start,
                line_start + found.arguments.end,
            );
            let written = line.trim_end().to_owned();
            let start = code.range.start;
            let range = start + line_start..start + line_end;
            if name.starts_with("%%") {
                let body = code.from_byte(line_end);
                pieces.push(Piece::Cell(CellMagic {
                    name,
                    arguments,
                    written,
                    body,
                    range,
                }));
                return pieces;
            }
            pieces.push(Piece::Line(LineMagic {
                name,
                arguments,
                written,
                range,
            }));
            code_start = line_end;
        }
        line_start = line_end;
    }
    if code_start < text.len() {
        pieces.push(Piece::Code(code.from_byte(code_start)));
    }
    pieces
}

/// Where a line's magic and its arguments stand.
struct Found {
    name: Range<usize>,
    arguments: Range<usize>,
}

fn magic_in(line: &str) -> Option<Found> {
    let line = line.trim_end();
    let start = line.len() - line.trim_start().len();
    let rest = line.get(start..)?;
    let letters = rest.strip_prefix("%%").or_else(|| rest.strip_prefix('%'))?;
    if !letters.starts_with(|c: char| c.is_ascii_alphabetic()) {
        return None;
    }
    let end = start + rest.find(char::is_whitespace).unwrap_or(rest.len());
    let after = line.get(end..)?;
    let arguments_start = end + (after.len() - after.trim_start().len());
    Some(Found {
        name: start..end,
        arguments: arguments_start..line.len(),
    })
}

/// Whether a statement could begin after `code`.
fn may_begin_after(code: &str, at_boundary: AtBoundary<'_>) -> bool {
    let is_command = |line: &str| line.starts_with([':', '!']) && !line.starts_with("::");
    let last = code
        .lines()
        .rev()
        .map(without_comment)
        .find(|line| !line.is_empty());
    match last {
        None => true,
        // It may be a line of a string.
        Some(line) if is_command(line.trim_start()) => at_boundary(code),
        Some(line) => line.ends_with([';', '}']) && at_boundary(code),
    }
}

/// A line up to its comment. A `//` in a string is taken for one too; then the judge decides.
fn without_comment(line: &str) -> &str {
    let line = line.split("//").next().unwrap_or_default().trim_end();
    match line
        .strip_suffix("*/")
        .and_then(|line| line.rsplit_once("/*"))
    {
        Some((code, _)) => code.trim_end(),
        None => line,
    }
}

#[cfg(test)]
mod tests;
