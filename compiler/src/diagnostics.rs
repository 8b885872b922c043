//! Compile errors as a person wants them: rustc's words and colours, lines and columns of the cells.

use crate::reach::Added;
use crate::sources::{Cell, Seen, offset, origin};
use crate::statements::{code_start, is_command, statements};
use annotate_snippets::{AnnotationKind, Group, Level, Patch, Renderer, Snippet};
use evcxr::CompilationError;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::HashSet;
use std::ops::Range;

/// A compile error.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Diagnostic {
    /// rustc's code, such as `E0308`, where it has one.
    pub code: Option<String>,
    /// rustc's words for it.
    pub message: String,
    /// All of it, in rustc's layout, with ANSI colours. `In[3]` is the cell with the execution count 3.
    pub rendered: String,
}

/// An error, as evcxr reports it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Reported {
    message: String,
    /// rustc's own report; null for an error of evcxr's.
    pub(crate) json: Value,
    /// Where an error of evcxr's is.
    spans: Vec<Span>,
    hint: Option<String>,
}

/// A stretch of what evcxr was given: lines and columns (in characters) from 1.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Span {
    start: (usize, usize),
    end: (usize, usize),
    label: String,
    is_primary: bool,
}

impl From<&CompilationError> for Reported {
    fn from(error: &CompilationError) -> Reported {
        let spans = error.spanned_messages().iter().filter_map(|spanned| {
            let span = spanned.span?;
            Some(Span {
                start: (span.start_line, span.start_column),
                end: (span.end_line, span.end_column),
                label: spanned.label.clone(),
                is_primary: spanned.is_primary,
            })
        });
        Reported {
            message: error.message(),
            json: error.json.clone(),
            spans: spans.collect(),
            hint: error.evcxr_extra_hint().map(str::to_owned),
        }
    }
}

impl Reported {
    /// The errors that evcxr reports, given rustc's reports. Where an error's own places are all in what evcxr has generated, as around a cell's last
    /// expression, evcxr passes on one of its notes instead.
    pub(crate) fn all(errors: &[CompilationError], reports: &[Value]) -> Vec<Reported> {
        let mut taken = HashSet::new();
        let errors = errors.iter().map(Reported::from);
        let whole = |mut error: Reported| {
            let is_note = matches!(error.json["level"].as_str(), Some("note" | "help"));
            let has_it = |report: &Value| {
                let children = report["children"].as_array();
                children.is_some_and(|children| children.contains(&error.json))
            };
            // The last of evcxr's attempts is what it reports of.
            let mut found = reports.iter().enumerate().rev();
            let found = found.find(|(at, report)| !taken.contains(at) && has_it(report));
            if is_note
                && let Some((at, report)) = found
                && let Some(message) = report["message"].as_str()
                && !is_internal(message)
            {
                taken.insert(at);
                error.message = message.to_owned();
                error.json = report.clone();
            }
            error
        };
        errors.map(whole).collect()
    }

    /// Adds what a person can do.
    pub(crate) fn add_hint(&mut self, hint: String) {
        self.hint = Some(hint);
    }

    fn code(&self) -> Option<&str> {
        self.json["code"]["code"].as_str()
    }

    /// What `rustc --explain` says of it.
    pub(crate) fn explanation(&self) -> Option<&str> {
        self.json["code"]["explanation"].as_str()
    }
}

/// What evcxr reports of a snippet that did not compile.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    pub(crate) errors: Vec<Reported>,
    /// What evcxr made of the snippet.
    pub(crate) generated: String,
    /// What evcxr counts as lines of the snippet.
    pub(crate) added: Added,
}

impl Report {
    /// The first error's message.
    pub(crate) fn headline(&self) -> Option<String> {
        self.errors.first().map(|error| error.message.clone())
    }

    /// Renders it for the reader of a cell; `earlier` are the cells before it, the latest first.
    pub(crate) fn diagnostics(&self, cell: &Cell, earlier: &[Cell]) -> Vec<Diagnostic> {
        let context = Context {
            cell,
            generated: &self.generated,
            added: self.added,
            earlier: earlier.iter().collect(),
        };
        diagnostics(&self.errors, &context)
    }
}

/// Where errors are looked up.
#[derive(Debug)]
struct Context<'a> {
    /// The cell that did not compile.
    cell: &'a Cell,
    /// What evcxr made of it.
    generated: &'a str,
    /// What evcxr counts as lines of the cell.
    added: Added,
    /// The cells before it, the latest first.
    earlier: Vec<&'a Cell>,
}

fn diagnostics(errors: &[Reported], context: &Context<'_>) -> Vec<Diagnostic> {
    if let Some(foreign) = foreign(context.cell) {
        return vec![foreign];
    }
    // What accompanies errors (warnings, where an assertion of a constant was met) is no error, and means nothing without one.
    let is_error = |error: &&Reported| match error.json["level"].as_str() {
        Some(level) => level.starts_with("error"),
        None => true,
    };
    // What else rustc says then is of what evcxr has added.
    if let Some(unfinished) = errors.iter().find_map(|error| unfinished(error, context)) {
        return vec![unfinished];
    }
    let any = errors.iter().any(|error| is_error(&error));
    let mut found: Vec<Diagnostic> = errors
        .iter()
        .filter(|error| !any || is_error(error))
        .map(|error| {
            if let Some(captured) = captured(error, context) {
                return captured;
            }
            let code = error.code().map(str::to_owned);
            let message = error.message.clone();
            Diagnostic {
                rendered: render(error, &message, code.as_deref(), context),
                code,
                message,
            }
        })
        .collect();
    if context.cell.shown.is_some() {
        // rustc says it of several places that are one to the reader.
        let mut seen = HashSet::new();
        found.retain(|diagnostic| {
            seen.insert((diagnostic.code.clone(), diagnostic.message.clone()))
        });
    }
    found
}

/// What people write who come from Python, and what Rust has for it.
const FOREIGN: &[(&str, &str)] = &[
    (
        "import",
        "a crate is added by `:dep name = \"version\"`, and what it has is named by `use name::thing;`",
    ),
    (
        "from",
        "a crate is added by `:dep name = \"version\"`, and what it has is named by `use name::thing;`",
    ),
    ("def", "a function is `fn name(x: i32) -> i32 { .. }`"),
    (
        "class",
        "a type is `struct Name { field: i32 }`, its methods are in `impl Name { .. }`",
    ),
];

/// The error of a cell that begins as in another language: `import numpy`.
fn foreign(cell: &Cell) -> Option<Diagnostic> {
    let code = &cell.source[code_start(&cell.source)..];
    let mut words = code.split_whitespace();
    let (first, second) = (words.next()?, words.next()?);
    let (word, help) = FOREIGN.iter().find(|(word, _)| *word == first)?;
    second
        .starts_with(|c: char| c.is_alphabetic() || c == '_')
        .then_some(())?;
    let at = code_start(&cell.source) + code.find(first)?;
    let message = format!("`{word}` is no word of Rust's");
    let mut diagnostic = of_command(cell, at..at + word.len(), &message);
    diagnostic.rendered.push_str(&format!("\n  = help: {help}"));
    Some(diagnostic)
}

/// The error of a closure for engines that captures variables, which constant evaluation finds somewhere in the crate `chorus`.
fn captured(error: &Reported, context: &Context<'_>) -> Option<Diagnostic> {
    const MESSAGE: &str = "this closure captures variables";
    let (_, help) = error.message.split_once(MESSAGE)?;
    // A magic has words of its own.
    context.cell.shown.is_none().then_some(())?;
    let report = error.json.to_string();
    let place = report.split("{closure@").nth(1)?.split('}').next()?;
    let place = place.split_once("lib.rs:")?.1.replace(' ', "");
    // Its line is of a source that evcxr has replaced since; the columns of a statement are the same in all.
    let column: usize = place.split(':').nth(1)?.parse().ok()?;
    let source = &context.cell.source;
    let all = statements(source);
    let mut closures = all.iter().flat_map(|statement| {
        statement.closures().filter(move |closure| {
            let line = source[..closure.range.start]
                .rfind('\n')
                .map_or(0, |end| end + 1);
            let start = line.max(statement.start);
            source[start..closure.range.start].chars().count() + 1 == column
        })
    });
    let closure = closures.find(|closure| !closure.captured.is_empty())?;
    let names: Vec<String> = closure
        .captured
        .iter()
        .map(|name| format!("`{name}`"))
        .collect();
    let what = names.join(", ");
    let message = format!("this closure captures {what}, so it can't be sent to an engine");
    let mut diagnostic = of_command(context.cell, closure.range, &message);
    let help = help.split_once(". ").map_or(help, |(_, help)| help);
    diagnostic.rendered.push_str(&format!("\n  = help: {help}"));
    Some(diagnostic)
}

/// An error about what evcxr has put behind a cell that ends in the middle of an expression.
fn unfinished(error: &Reported, context: &Context<'_>) -> Option<Diagnostic> {
    const END: &str = "<end of input>";
    let message = &error.message;
    let is_one = message.contains(END) || message.ends_with("found `)`");
    if !is_one || !marks(error, context).is_empty() {
        return None;
    }
    let code = context.cell.source.trim_end();
    let last = code.chars().next_back()?;
    let message = match message.contains(END) {
        true => "expected a name, found the end of the cell".to_owned(),
        false => message.replace("found `)`", "found the end of the cell"),
    };
    let end = code.len();
    Some(of_command(
        context.cell,
        end - last.len_utf8()..end,
        &message,
    ))
}

/// An error in a command of a cell.
pub(crate) fn of_command(cell: &Cell, range: Range<usize>, message: &str) -> Diagnostic {
    let group = Group::with_title(Level::ERROR.primary_title(message)).element(
        Snippet::source(cell.text())
            .path(cell.name())
            .annotation(AnnotationKind::Primary.span(cell.seen(range).range)),
    );
    Diagnostic {
        code: None,
        message: message.to_owned(),
        rendered: Renderer::styled().render(&[group]),
    }
}

/// An error that concerns no line of a cell.
pub(crate) fn plain(message: &str) -> Diagnostic {
    let group = Group::with_title(Level::ERROR.primary_title(message));
    Diagnostic {
        code: None,
        message: message.to_owned(),
        rendered: Renderer::styled().render(&[group]),
    }
}

fn render(error: &Reported, message: &str, code: Option<&str>, context: &Context<'_>) -> String {
    let mut title = Level::ERROR.primary_title(message);
    if let Some(code) = code {
        title = title.id(code);
    }
    let mut group = Group::with_title(title);
    for (cell, marks) in by_cell(marks(error, context)) {
        let annotations = marks.into_iter().map(|mark| {
            let kind = if mark.primary {
                AnnotationKind::Primary
            } else {
                AnnotationKind::Context
            };
            kind.span(mark.range).label(mark.label)
        });
        group = group.element(
            Snippet::source(cell.text())
                .path(cell.name())
                .annotations(annotations.collect::<Vec<_>>()),
        );
    }
    let elsewhere = elsewhere(error);
    if let Some(Elsewhere {
        file,
        line,
        text,
        range,
        label,
    }) = &elsewhere
        && marks(error, context).is_empty()
    {
        group = group.element(
            Snippet::source(text.as_str())
                .path(file.as_str())
                .line_start(*line)
                .annotation(
                    AnnotationKind::Primary
                        .span(range.clone())
                        .label(label.as_deref()),
                ),
        );
    }
    let mut groups = Vec::new();
    for note in notes(error, context) {
        match note {
            Note::Plain { level, text } => group = group.element(level.message(text)),
            Note::Suggestion {
                text,
                cell,
                range,
                replacement,
            } => groups.push(
                Level::HELP.secondary_title(text).element(
                    Snippet::source(cell.text())
                        .path(cell.name())
                        .patch(Patch::new(range, replacement)),
                ),
            ),
            Note::There {
                level,
                text,
                cell,
                range,
            } => groups.push(
                level.secondary_title(text).element(
                    Snippet::source(cell.text())
                        .path(cell.name())
                        .annotation(AnnotationKind::Primary.span(range)),
                ),
            ),
        }
    }
    groups.insert(0, group);
    Renderer::styled().render(&groups)
}

/// A stretch of a file of the user's, as of a crate in a folder.
struct Elsewhere {
    file: String,
    line: usize,
    /// From that line on.
    text: String,
    range: Range<usize>,
    label: Option<String>,
}

/// The place of an error that is in no cell.
fn elsewhere(error: &Reported) -> Option<Elsewhere> {
    let spans = error.json["spans"].as_array()?;
    let span = spans.iter().find(|span| span["is_primary"] == true)?;
    let file = span["file_name"].as_str()?;
    // Others are generated, or nobody's here.
    let others = ["/rustlib/", "/rustc/", "/registry/src/", "/git/checkouts/"];
    let is_users = !file.starts_with("src/lib.rs")
        && !file.starts_with("chorus-")
        && !others.iter().any(|other| file.contains(other));
    let lines = span["text"]
        .as_array()
        .filter(|lines| !lines.is_empty() && is_users)?;
    let texts: Vec<&str> = lines
        .iter()
        .filter_map(|line| line["text"].as_str())
        .collect();
    let column = |line: &Value, key: &str| usize::try_from(line[key].as_u64()?).ok();
    let text = texts.join("\n");
    let start = offset(&text, 1, column(lines.first()?, "highlight_start")?)?;
    let end = offset(&text, texts.len(), column(lines.last()?, "highlight_end")?)?;
    Some(Elsewhere {
        file: file.to_owned(),
        line: usize::try_from(span["line_start"].as_u64()?).ok()?,
        range: start..end.max(start),
        text,
        label: span["label"].as_str().map(readable),
    })
}

/// A stretch of a cell that an error speaks of.
struct Mark<'a> {
    cell: &'a Cell,
    range: Range<usize>,
    label: Option<String>,
    primary: bool,
}

fn marks<'a>(error: &Reported, context: &Context<'a>) -> Vec<Mark<'a>> {
    if let Some(spans) = error.json["spans"].as_array() {
        return spans
            .iter()
            .filter_map(|span| {
                let (cell, seen) = resolve(span, context)?;
                Some(Mark {
                    cell,
                    range: seen.range,
                    label: span["label"].as_str().map(readable),
                    primary: span["is_primary"] == true,
                })
            })
            .collect();
    }
    // An error of evcxr's own, about a command or a variable.
    error
        .spans
        .iter()
        .filter_map(|span| {
            let source = &context.cell.source;
            let line = |line| context.added.own_line(line);
            let range = offset(source, line(span.start.0)?, span.start.1)?
                ..offset(source, line(span.end.0)?, span.end.1)?;
            let range = command_at(source, range.start).unwrap_or(range);
            Some(Mark {
                cell: context.cell,
                range: context.cell.seen(range).range,
                label: Some(span.label.clone()).filter(|label| !label.is_empty()),
                primary: span.is_primary,
            })
        })
        .collect()
}

/// The whole command that a byte is in.
fn command_at(source: &str, at: usize) -> Option<Range<usize>> {
    let start = source.get(..at)?.rfind('\n').map_or(0, |end| end + 1);
    let line = source.get(start..)?.split('\n').next()?;
    let is_one = at < code_start(source) && is_command(line);
    let begin = start + line.len() - line.trim_start().len();
    is_one.then(|| begin..start + line.trim_end().len())
}

/// Brings the marks of each cell together, the cell of the first mark first.
fn by_cell(marks: Vec<Mark<'_>>) -> Vec<(&Cell, Vec<Mark<'_>>)> {
    let mut groups: Vec<(&Cell, Vec<Mark<'_>>)> = Vec::new();
    for mark in marks {
        match groups
            .iter_mut()
            .find(|(cell, _)| std::ptr::eq(*cell, mark.cell))
        {
            Some((_, group)) => group.push(mark),
            None => groups.push((mark.cell, vec![mark])),
        }
    }
    groups
}

/// The cell, and what its reader sees behind one of rustc's spans.
fn resolve<'a>(span: &Value, context: &Context<'a>) -> Option<(&'a Cell, Seen)> {
    let (cell, range) = compiled(span, context)?;
    Some((cell, cell.seen(range)))
}

/// The cell and the bytes of its source behind one of rustc's spans.
fn compiled<'a>(span: &Value, context: &Context<'a>) -> Option<(&'a Cell, Range<usize>)> {
    let in_generated = span["file_name"]
        .as_str()
        .is_some_and(|name| name.ends_with("lib.rs") && !name.starts_with('/'));
    if in_generated {
        let number = |name: &str| usize::try_from(span[name].as_u64()?).ok();
        let generated = context.generated;
        let start = offset(generated, number("line_start")?, number("column_start")?)?;
        let end = offset(generated, number("line_end")?, number("column_end")?)?;
        let found = context
            .cell
            .origin(generated, start)
            .map(|at| (context.cell, at))
            .or_else(|| origin(context.earlier.iter().copied(), generated, start));
        if let Some((cell, from)) = found {
            // Something that isn't closed goes on to the end of all.
            let to = cell
                .origin(generated, end)
                .filter(|to| *to >= from)
                .unwrap_or(cell.source.trim_end().len());
            return Some((cell, from..to.max(from)));
        }
        // It may begin or end around the cell's text, as that of a last expression does.
        for line in number("line_start")? + 1..=number("line_end")? {
            let start = offset(generated, line, 1)?;
            if let Some(from) = context.cell.origin(generated, start) {
                let text = context.cell.source.get(from..)?;
                let to = from + text.find('\n').unwrap_or(text.len());
                return Some((context.cell, from..to));
            }
        }
        if let Some(range) = in_import(generated, start..end, context.cell) {
            return Some((context.cell, range));
        }
        if let Some(range) = by_text(span, context.cell) {
            return Some((context.cell, range));
        }
    }
    match &span["expansion"]["span"] {
        Value::Null => None,
        outer => compiled(outer, context),
    }
}

/// Where the cell has a line that a span is in, if only one has its text. evcxr has tried several sources, and reports may be of any.
fn by_text(span: &Value, cell: &Cell) -> Option<Range<usize>> {
    let lines = span["text"].as_array()?;
    lines.iter().find_map(|line| {
        let text = line["text"].as_str()?;
        let column = |key: &str| usize::try_from(line[key].as_u64()?).ok();
        let mut found = cell.source.match_indices(text).map(|(at, _)| at);
        let at = found
            .next()
            .filter(|_| !text.trim().is_empty() && found.next().is_none())?;
        let within = |column| offset(text, 1, column);
        Some(at + within(column("highlight_start")?)?..at + within(column("highlight_end")?)?)
    })
}

/// evcxr takes `use` declarations apart: the name that rustc points at, where the cell has it.
fn in_import(generated: &str, range: Range<usize>, cell: &Cell) -> Option<Range<usize>> {
    let line = generated[..range.start].rsplit('\n').next()?;
    line.starts_with("use ").then_some(())?;
    let name = generated.get(range)?;
    statements(&cell.source)
        .iter()
        .filter(|statement| statement.is_import())
        .find_map(|statement| {
            let text = &cell.source[statement.range.clone()];
            let at = statement.range.start + text.find(name)?;
            Some(at..at + name.len())
        })
}

/// What rustc says beside the error itself.
enum Note<'a> {
    Plain {
        level: Level<'static>,
        text: String,
    },
    Suggestion {
        text: String,
        cell: &'a Cell,
        range: Range<usize>,
        replacement: String,
    },
    There {
        level: Level<'static>,
        text: String,
        cell: &'a Cell,
        range: Range<usize>,
    },
}

fn notes<'a>(error: &Reported, context: &Context<'a>) -> Vec<Note<'a>> {
    let mut notes = Vec::new();
    let none = Vec::new();
    for child in error.json["children"].as_array().unwrap_or(&none) {
        let level = match child["level"].as_str() {
            Some("help") => Level::HELP,
            Some("note") => Level::NOTE,
            _ => continue,
        };
        let text = readable(child["message"].as_str().unwrap_or_default());
        let spans = child["spans"].as_array().unwrap_or(&none);
        let primary = spans.iter().find(|span| span["is_primary"] == true);
        let span = primary.or(spans.first()).unwrap_or(&Value::Null);
        let replacement = span["suggested_replacement"].as_str();
        notes.push(match (resolve(span, context), replacement) {
            // Nobody can follow a suggestion for what a magic wrote.
            (Some((_, Seen { own: false, .. })), Some(_)) => continue,
            (Some((cell, seen)), Some(replacement)) => Note::Suggestion {
                text,
                cell,
                range: seen.range,
                replacement: replacement.to_owned(),
            },
            (Some(_), None) if is_internal(&text) => continue,
            (Some((cell, seen)), None) => Note::There {
                level,
                text,
                cell,
                range: seen.range,
            },
            // It belongs where nobody wrote anything, as a `use` at the top does.
            (None, Some(replacement)) if !is_internal(replacement) => Note::Plain {
                level,
                text: format!("{text}: `{}`", replacement.trim()),
            },
            (None, Some(_)) => continue,
            (None, None) if is_internal(&text) => continue,
            (None, None) => Note::Plain { level, text },
        });
    }
    let hint = match error.code() {
        Some("E0596") if error.message.contains("behind a `&` reference") => Some(
            "a variable that another one borrows from is kept as it is: `let mut name = name.clone();` makes one that can be changed",
        ),
        Some("E0384" | "E0596") => {
            Some("a variable of an earlier cell becomes mutable by `let mut name = name;`")
        }
        // All that rustc says of a type that would be `chorus::Portable` but for its lifetime.
        None if error
            .message
            .starts_with("implementation of `Deserialize` is not general") =>
        {
            Some(
                "what goes to an engine and comes back can't borrow: send the owned value (a `String` for a `&str`, a `Vec<T>` for a `&[T]`)",
            )
        }
        _ => error.hint.as_deref(),
    };
    if let Some(hint) = hint {
        notes.push(Note::Plain {
            level: Level::HELP,
            text: hint.to_owned(),
        });
    }
    notes
}

/// Whether a text speaks of what nobody wrote.
fn is_internal(text: &str) -> bool {
    [
        "evcxr_",
        "chorus_",
        "ChorusDisplay",
        "__private",
        "chorus::private",
        "the above error was encountered while instantiating",
        "erroneous constant encountered",
    ]
    .iter()
    .any(|name| text.contains(name))
}

/// rustc's words without generated names.
fn readable(text: &str) -> String {
    text.replace("`evcxr_variable_store`", "the end of the cell")
}
