//! Compile errors as a person wants them: rustc's words and colours, lines and columns of the cell.

use annotate_snippets::{AnnotationKind, Group, Level, Patch, Renderer, Snippet};
use evcxr::CompilationError;
use std::ops::Range;

/// A compile error that points into a cell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// rustc's code, such as `E0308`, where it has one.
    pub code: Option<String>,
    /// rustc's words for it.
    pub message: String,
    /// Where it is in the cell: line and column, both from 1, the column in characters.
    pub place: Option<(usize, usize)>,
    /// All of it, in rustc's layout, with ANSI colours.
    pub rendered: String,
}

/// Renders what evcxr reports for `cell`, which readers know as `name`.
pub(crate) fn diagnostics(errors: &[CompilationError], cell: &str, name: &str) -> Vec<Diagnostic> {
    errors
        .iter()
        .map(|error| diagnostic(error, cell, name))
        .collect()
}

fn diagnostic(error: &CompilationError, cell: &str, name: &str) -> Diagnostic {
    let message = error.message();
    let code = error.code().map(str::to_owned);
    let place = error
        .primary_spanned_message()
        .and_then(|primary| primary.span)
        .map(|span| (span.start_line, span.start_column));
    Diagnostic {
        rendered: render(error, &message, code.as_deref(), cell, name),
        code,
        message,
        place,
    }
}

fn render(
    error: &CompilationError,
    message: &str,
    code: Option<&str>,
    cell: &str,
    name: &str,
) -> String {
    let mut title = Level::ERROR.primary_title(message);
    if let Some(code) = code {
        title = title.id(code);
    }
    let unlabelled = format!("error: {message}");
    let annotations: Vec<_> = error
        .spanned_messages()
        .iter()
        .filter_map(|spanned| {
            let span = spanned.span?;
            let range = bytes(
                cell,
                (span.start_line, span.start_column),
                (span.end_line, span.end_column),
            )?;
            let kind = if spanned.is_primary {
                AnnotationKind::Primary
            } else {
                AnnotationKind::Context
            };
            let label = Some(spanned.label.as_str())
                .filter(|label| !label.is_empty() && *label != unlabelled);
            Some(kind.span(range).label(label))
        })
        .collect();
    if annotations.is_empty() && !error.rendered().is_empty() {
        // It is about code of an earlier cell, or about what evcxr generated.
        return error.rendered().trim_end().to_owned();
    }
    let mut group = Group::with_title(title);
    if !annotations.is_empty() {
        group = group.element(Snippet::source(cell).path(name).annotations(annotations));
    }
    let mut groups = Vec::new();
    for note in notes(error, cell) {
        match note {
            Note::Plain { level, text } => group = group.element(level.message(text)),
            Note::Suggestion {
                text,
                range,
                replacement,
            } => groups.push(
                Level::HELP.secondary_title(text).element(
                    Snippet::source(cell)
                        .path(name)
                        .patch(Patch::new(range, replacement)),
                ),
            ),
            Note::There { level, text, range } => groups.push(
                level.secondary_title(text).element(
                    Snippet::source(cell)
                        .path(name)
                        .annotation(AnnotationKind::Primary.span(range)),
                ),
            ),
        }
    }
    groups.insert(0, group);
    Renderer::styled().render(&groups)
}

/// What rustc says beside the error itself.
enum Note {
    Plain {
        level: Level<'static>,
        text: String,
    },
    Suggestion {
        text: String,
        range: Range<usize>,
        replacement: String,
    },
    There {
        level: Level<'static>,
        text: String,
        range: Range<usize>,
    },
}

fn notes(error: &CompilationError, cell: &str) -> Vec<Note> {
    let mut notes = Vec::new();
    // evcxr maps the spans of those children that have just one, in their order.
    let mut spanned = error.help_spanned().iter();
    let none = Vec::new();
    for child in error.json["children"].as_array().unwrap_or(&none) {
        let single = child["spans"]
            .as_array()
            .is_some_and(|spans| spans.len() == 1);
        let span = if single {
            spanned.next().and_then(|message| {
                let span = message.span?;
                bytes(
                    cell,
                    (span.start_line, span.start_column),
                    (span.end_line, span.end_column),
                )
            })
        } else {
            None
        };
        let text = child["message"].as_str().unwrap_or_default().to_owned();
        let level = match child["level"].as_str() {
            Some("help") => Level::HELP,
            Some("note") => Level::NOTE,
            _ => continue,
        };
        notes.push(
            match (span, child["spans"][0]["suggested_replacement"].as_str()) {
                (Some(range), Some(replacement)) => Note::Suggestion {
                    text,
                    range,
                    replacement: replacement.to_owned(),
                },
                (Some(range), None) => Note::There { level, text, range },
                // What it says lies in code that nobody wrote.
                (None, Some(_)) => continue,
                (None, None) => Note::Plain { level, text },
            },
        );
    }
    let hint = match error.code() {
        Some("E0384" | "E0596") => {
            Some("a variable of an earlier cell becomes mutable by `let mut name = name;`")
        }
        _ => error.evcxr_extra_hint(),
    };
    if let Some(hint) = hint {
        notes.push(Note::Plain {
            level: Level::HELP,
            text: hint.to_owned(),
        });
    }
    notes
}

/// The bytes of `cell` from one line and column to another.
fn bytes(cell: &str, from: (usize, usize), to: (usize, usize)) -> Option<Range<usize>> {
    let start = offset(cell, from.0, from.1)?;
    let end = offset(cell, to.0, to.1)?;
    Some(start..end.max(start))
}

/// The byte at a line and a column, both from 1; past a line's end it is that end.
fn offset(cell: &str, line: usize, column: usize) -> Option<usize> {
    let start = cell
        .split_inclusive('\n')
        .take(line.checked_sub(1)?)
        .map(str::len)
        .sum::<usize>();
    let rest = cell.get(start..)?;
    let text = rest.split('\n').next()?;
    Some(
        start
            + text
                .char_indices()
                .nth(column.checked_sub(1)?)
                .map_or(text.len(), |(at, _)| at),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_count_characters() {
        let cell = "é = 1;\nß + x";
        assert_eq!(offset(cell, 1, 1), Some(0));
        assert_eq!(offset(cell, 1, 2), Some(2));
        assert_eq!(offset(cell, 2, 5), Some(13));
        assert_eq!(offset(cell, 2, 99), Some(14));
        assert_eq!(offset(cell, 0, 1), None);
    }
}
