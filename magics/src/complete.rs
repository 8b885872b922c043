//! Completion: what the cursor is in (Rust of the notebook, Rust for engines, a magic), and the words that may stand there.

use clap::builder::PossibleValue;
use clap::{Arg, Command};

use crate::cell::{AtBoundary, CellMagic, Code, Piece, parse};
use crate::event::EngineId;
use crate::generate::MERGES;
use crate::options::{SIGNALS, needs_value, options_end};
use crate::table::{self, Follows, Form};
use crate::words;

/// What is at the cursor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// Rust for the notebook.
    Notebook {
        /// As many bytes as the cell, with spaces where magics are, so that places in it are places in the cell.
        code: String,
    },
    /// Rust for the engines.
    Engines {
        /// As many bytes as the cell, with spaces where anything but this code is.
        code: String,
    },
    /// A magic's name, or its options.
    Words {
        /// The byte of the cell where what they replace begins; it ends at the cursor.
        start: usize,
        /// In the order in which they are to be offered.
        items: Vec<Item>,
    },
}

/// What there is, for words that name it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Known<'a> {
    /// The engines.
    pub ids: &'a [EngineId],
    /// Variables of the notebook, with their types.
    pub variables: &'a [(String, String)],
    /// Names that snippets gave to engines.
    pub engine_names: &'a [String],
}

/// A word to offer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// What replaces the begun word.
    pub text: String,
    /// What it means, in a line.
    pub about: String,
}

/// Says what is at byte `cursor` of `cell`.
pub fn place(cell: &str, cursor: usize, at_boundary: AtBoundary<'_>, known: Known<'_>) -> Place {
    let cursor = (0..=cursor.min(cell.len()))
        .rev()
        .find(|at| cell.is_char_boundary(*at))
        .unwrap_or(0);
    let line_start = cell
        .get(..cursor)
        .and_then(|before| before.rfind('\n'))
        .map_or(0, |at| at + 1);
    let pieces = parse(cell, at_boundary);
    // A sign alone is no magic yet, and what was begun may become one.
    let begun = cell.get(line_start..cursor).unwrap_or_default();
    let before_line = cell.get(..line_start).unwrap_or_default();
    if matches!(begun.trim_start(), "%" | "%%")
        && in_notebook_code(&pieces, line_start, cell)
        && begins_statement(before_line, at_boundary)
    {
        let start = cursor - begun.trim_start().len();
        return Place::Words {
            start,
            items: names(begun.trim_start()),
        };
    }
    for piece in &pieces {
        if !piece.range().contains(&cursor) && piece.range().end != cursor {
            continue;
        }
        match piece {
            Piece::Line(magic) if line_of(&magic.range, cell, cursor) => {
                return in_line(cell, cursor, &magic.name, &magic.arguments, known);
            }
            Piece::Cell(magic) if line_of(&magic.range, cell, cursor) => {
                return in_line(cell, cursor, &magic.name, &magic.arguments, known);
            }
            Piece::Cell(magic) => return in_body(cell, cursor, magic, at_boundary, known),
            Piece::Line(_) | Piece::Code(_) => {}
        }
    }
    let kept = pieces.iter().filter_map(|piece| match piece {
        Piece::Code(code) => Some(code.range.clone()),
        Piece::Line(_) | Piece::Cell(_) => None,
    });
    Place::Notebook {
        code: only(cell, kept),
    }
}

/// Whether the cursor is in a magic's own line, before the line's end.
fn line_of(range: &std::ops::Range<usize>, cell: &str, cursor: usize) -> bool {
    let line = cell.get(range.clone()).unwrap_or_default();
    let end = range.start + line.trim_end_matches(['\r', '\n']).len();
    (range.start..=end).contains(&cursor)
}

fn in_notebook_code(pieces: &[Piece], at: usize, cell: &str) -> bool {
    pieces.is_empty()
        || pieces.iter().any(|piece| {
            matches!(piece, Piece::Code(code) if code.range.contains(&at) || code.range.end == cell.len() && at == cell.len())
        })
}

/// Whether a magic would be recognised in the line after `before`.
fn begins_statement(before: &str, at_boundary: AtBoundary<'_>) -> bool {
    let probe = format!("{before}%lsmagic");
    matches!(parse(&probe, at_boundary).last(), Some(Piece::Line(_)))
}

fn in_body(
    cell: &str,
    cursor: usize,
    magic: &CellMagic,
    at_boundary: AtBoundary<'_>,
    known: Known<'_>,
) -> Place {
    let engines = table::find(&magic.name).is_some_and(|row| row.follows == Follows::Engines);
    if engines {
        return Place::Engines {
            code: only(cell, [magic.body.range.clone()]),
        };
    }
    // The body of `%%time` is a cell again, at another place.
    let offset = magic.body.range.start;
    match place(&magic.body.text, cursor - offset, at_boundary, known) {
        Place::Notebook { code } => Place::Notebook {
            code: format!("{}{code}", blank(cell.get(..offset).unwrap_or_default())),
        },
        Place::Engines { code } => Place::Engines {
            code: format!("{}{code}", blank(cell.get(..offset).unwrap_or_default())),
        },
        Place::Words { start, items } => Place::Words {
            start: start + offset,
            items,
        },
    }
}

fn in_line(cell: &str, cursor: usize, name: &str, arguments: &Code, known: Known<'_>) -> Place {
    let start = arguments.range.start;
    let row = table::find(name);
    let line = cell.get(start..).unwrap_or_default();
    let line = line.split('\n').next().unwrap_or_default();
    let name_ended = cell
        .get(..cursor)
        .is_some_and(|before| before.ends_with(char::is_whitespace))
        || cursor > start
        || (cursor == start && !arguments.text.is_empty());
    let Some(row) = row.filter(|_| name_ended) else {
        let begun = cell.get(..cursor).unwrap_or_default();
        let begun_at = begun.rfind('%').map_or(cursor, |at| {
            at - begun.get(..at).unwrap_or_default().len()
                + begun
                    .get(..at)
                    .unwrap_or_default()
                    .trim_end_matches('%')
                    .len()
        });
        return Place::Words {
            start: begun_at,
            items: names(begun.get(begun_at..).unwrap_or_default()),
        };
    };
    let is_cell = name.starts_with("%%");
    let command = row.command();
    let upto = cell.get(start.min(cursor)..cursor).unwrap_or_default();
    let follows = match row.follows {
        Follows::Engines if is_cell => Follows::Nothing,
        _ if row.form == Form::Cell => Follows::Nothing,
        other => other,
    };
    if follows != Follows::Nothing {
        let (_, code) = options_end(&command, line);
        let in_code = start + code < cursor || (start + code == cursor && code < line.len());
        if in_code {
            let range = start + code..start + line.len();
            let inner = line.get(code..).unwrap_or_default();
            if follows == Follows::Engines {
                return Place::Engines {
                    code: only(cell, [range]),
                };
            }
            return match place(inner, cursor - range.start, &|_| true, known) {
                Place::Notebook { .. } => Place::Notebook {
                    code: only(cell, [range]),
                },
                Place::Engines { code } => Place::Engines {
                    code: format!(
                        "{}{code}{}",
                        blank(cell.get(..range.start).unwrap_or_default()),
                        blank(cell.get(range.end..).unwrap_or_default())
                    ),
                },
                Place::Words { start, items } => Place::Words {
                    start: start + range.start,
                    items,
                },
            };
        }
    }
    let (begun_at, items) = in_options(&command, upto, known);
    Place::Words {
        start: start.min(cursor) + begun_at,
        items,
    }
}

/// What may stand at the end of the options begun in `upto`, and where the begun word begins in it.
fn in_options(command: &Command, upto: &str, known: Known<'_>) -> (usize, Vec<Item>) {
    let mut before = words::all(upto);
    let begun = match before.last() {
        Some(word) if word.range.end == upto.len() && !upto.ends_with(char::is_whitespace) => {
            before.pop()
        }
        _ => None,
    };
    let (at, text) = begun.map_or((upto.len(), String::new()), |word| {
        (word.range.start, word.text)
    });
    let option = before
        .last()
        .filter(|word| word.text.starts_with('-') && needs_value(command, &word.text));
    if let Some(option) = option {
        let Some(argument) = argument(command, &option.text) else {
            return (at, Vec::new());
        };
        return in_value(argument, at, &text, known);
    }
    if let Some((option, value)) = text.split_once('=')
        && let Some(argument) = argument(command, option)
    {
        return in_value(argument, at + option.len() + 1, value, known);
    }
    let positional = command.get_positionals().next();
    if let Some(positional) = positional
        && text.contains(',')
        && is_list(positional)
    {
        return in_value(positional, at, &text, known);
    }
    let mut items = Vec::new();
    if before.is_empty() {
        items.extend(command.get_subcommands().map(|sub| {
            Item {
                text: sub.get_name().to_owned(),
                about: sub
                    .get_about()
                    .map(|about| about.to_string())
                    .unwrap_or_default(),
            }
        }));
    }
    let command = before
        .first()
        .and_then(|word| command.find_subcommand(&word.text))
        .unwrap_or(command);
    if !text.starts_with('-') {
        items.extend(
            command
                .get_positionals()
                .flat_map(|positional| values(positional, known)),
        );
    }
    let options: Vec<&Arg> = command.get_opts().chain(flags(command)).collect();
    for argument in options {
        let about = argument.get_help().map(|help| help.to_string());
        let written = argument
            .get_long()
            .map(|long| format!("--{long}"))
            .or_else(|| argument.get_short().map(|short| format!("-{short}")));
        if let Some(text) = written {
            items.push(Item {
                text,
                about: about.unwrap_or_default(),
            });
        }
    }
    (at, beginning(items, &text))
}

/// Targets that stand alone and not in a list.
const WHOLE_TARGETS: [(&str, &str); 2] = [("all", "every engine"), ("::2", "every second engine")];

/// What may stand at the end of an argument's value, which begins at `at` with `text`. Of a list it is one that isn't there yet.
fn in_value(argument: &Arg, at: usize, text: &str, known: Known<'_>) -> (usize, Vec<Item>) {
    let mut items = values(argument, known);
    let Some((before, begun)) = text.rsplit_once(',').filter(|_| is_list(argument)) else {
        return (at, beginning(items, text));
    };
    items.retain(|item| {
        let is_whole = WHOLE_TARGETS.iter().any(|(text, _)| *text == item.text);
        !is_whole && before.split(',').all(|other| other.trim() != item.text)
    });
    (at + before.len() + 1, beginning(items, begun))
}

/// Whether its value is a list with commas.
fn is_list(argument: &Arg) -> bool {
    matches!(
        argument.get_id().as_str(),
        "with" | "variables" | "engine_variables" | "targets"
    )
}

fn flags(command: &Command) -> impl Iterator<Item = &Arg> {
    command
        .get_arguments()
        .filter(|arg| !arg.is_positional() && !arg.get_action().takes_values())
}

/// The option that is written so.
fn argument<'a>(command: &'a Command, written: &str) -> Option<&'a Arg> {
    command
        .get_arguments()
        .find(|arg| match written.strip_prefix("--") {
            Some(long) => arg.get_long() == Some(long),
            None => written
                .strip_prefix('-')
                .and_then(|shorts| shorts.chars().last())
                .is_some_and(|short| arg.get_short() == Some(short)),
        })
}

fn values(argument: &Arg, known: Known<'_>) -> Vec<Item> {
    let item = |text: String, about: &str| Item {
        text,
        about: about.to_owned(),
    };
    match argument.get_id().as_str() {
        "targets" => WHOLE_TARGETS
            .iter()
            .map(|(text, about)| item((*text).to_owned(), about))
            .chain(known.ids.iter().map(|id| item(id.to_string(), "engine")))
            .collect(),
        "over" | "with" | "into" | "variables" => known
            .variables
            .iter()
            .map(|(name, type_name)| item(name.clone(), type_name))
            .collect(),
        "engine_variables" => known
            .engine_names
            .iter()
            .map(|name| item(name.clone(), "on the engines"))
            .collect(),
        "merge" => MERGES
            .iter()
            .map(|(name, about)| item((*name).to_owned(), about))
            .collect(),
        "signal_on_interrupt" => SIGNALS
            .iter()
            .map(|(name, _)| item((*name).to_owned(), "signal"))
            .collect(),
        _ => argument
            .get_possible_values()
            .iter()
            .filter(|_| argument.get_action().takes_values())
            .map(|value: &PossibleValue| {
                let about = value.get_help().map(|help| help.to_string());
                item(value.get_name().to_owned(), &about.unwrap_or_default())
            })
            .collect(),
    }
}

fn names(begun: &str) -> Vec<Item> {
    let items = table::names().map(|(name, magic)| Item {
        text: name.to_owned(),
        about: magic.summary.to_owned(),
    });
    beginning(items.collect(), begun)
}

fn beginning(items: Vec<Item>, begun: &str) -> Vec<Item> {
    items
        .into_iter()
        .filter(|item| item.text.starts_with(begun))
        .collect()
}

/// The cell with spaces everywhere but in `kept`, line ends staying.
fn only(cell: &str, kept: impl IntoIterator<Item = std::ops::Range<usize>>) -> String {
    let mut text = String::with_capacity(cell.len());
    for range in kept {
        let gap = cell.get(text.len()..range.start).unwrap_or_default();
        text.push_str(&blank(gap));
        text.push_str(cell.get(range).unwrap_or_default());
    }
    let rest = cell.get(text.len()..).unwrap_or_default();
    text.push_str(&blank(rest));
    text
}

/// As many bytes of space, line ends staying.
fn blank(text: &str) -> String {
    text.bytes()
        .map(|byte| if byte == b'\n' { '\n' } else { ' ' })
        .collect()
}

#[cfg(test)]
mod tests;
