//! Errors in words: what happened, in which line of the cell, what it means for the variables, what to do next.

use cluster::failure::{died, plain};
use compiler::{Diagnostic, Failure, Place};
use protocol::message::ErrorInfo;
use runtime::{Cause, Frame, Outcome, Panic, Restored};

const RED: &str = "\x1b[1;31m";
const GREEN: &str = "\x1b[32m";
const PLAIN: &str = "\x1b[0m";

const KEPT: &str = "Every variable is as it was before the cell.";

/// A cell that was interrupted before any of it ran.
pub(crate) fn interrupted_early() -> ErrorInfo {
    plain(
        "interrupted",
        format!("The cell was interrupted before it ran. {KEPT}"),
    )
}

/// A cell that was interrupted in a command.
pub(crate) fn interrupted() -> ErrorInfo {
    plain("interrupted", format!("The cell was interrupted. {KEPT}"))
}

/// evcxr or the runtime did not come up.
pub(crate) fn not_ready(message: &str) -> ErrorInfo {
    plain("not ready", format!("No cell can be evaluated: {message}"))
}

/// A cell that did not compile.
pub(crate) fn compile(failure: Failure) -> ErrorInfo {
    match failure {
        Failure::Errors(diagnostics) => {
            let evalue = diagnostics
                .first()
                .map(headline)
                .unwrap_or_else(|| "the cell did not compile".to_owned());
            let others = diagnostics.len().saturating_sub(1);
            ErrorInfo {
                ename: "compile error".to_owned(),
                evalue: match others {
                    0 => evalue,
                    1 => format!("{evalue} (and 1 more error)"),
                    _ => format!("{evalue} (and {others} more errors)"),
                },
                traceback: diagnostics
                    .into_iter()
                    .map(|diagnostic| diagnostic.rendered)
                    .collect(),
            }
        }
        Failure::Refused(message) => plain("compile error", message),
        Failure::Panicked(message) => plain(
            "compile error",
            format!(
                "evcxr could not deal with this cell ({message}). Nothing has changed; try to write it another way, \
                 or in smaller cells."
            ),
        ),
        Failure::UnknownLineage(_) => plain(
            "compile error",
            "What earlier cells have defined was kept in Chorus's cache, and is gone from there. `:clear` begins anew.".to_owned(),
        ),
        Failure::LostLineage { why, .. } => plain(
            "compile error",
            format!(
                "What earlier cells have defined can't be restored ({}). `:clear` begins anew.",
                why.as_deref().unwrap_or("it comes to something else now")
            ),
        ),
    }
}

fn headline(diagnostic: &Diagnostic) -> String {
    match &diagnostic.code {
        Some(code) => format!("[{code}] {}", diagnostic.message),
        None => diagnostic.message.clone(),
    }
}

/// A cell that compiled and failed when it ran.
pub(crate) fn run(outcome: &Outcome, places: &Places) -> ErrorInfo {
    match outcome {
        Outcome::Panicked(panic) => panicked(panic, places),
        Outcome::Returned { error } => ErrorInfo {
            ename: "error".to_owned(),
            evalue: error.clone(),
            traceback: vec![format!(
                "{RED}error{PLAIN}: the cell returned early by `?`: {error}"
            )],
        },
        Outcome::LoadFailed { error } => plain(
            "load error",
            format!("The compiled cell could not be loaded: {error}. {KEPT}"),
        ),
        Outcome::Died { cause, restored } => {
            let ename = match cause {
                Cause::Signal(_, name) => (*name).to_owned(),
                Cause::StackOverflow => "stack overflow".to_owned(),
                Cause::Exited(_) => "exit".to_owned(),
                Cause::SupervisorGone => "runtime gone".to_owned(),
            };
            plain(
                &ename,
                format!("The cell's process {}. {}", died(cause), kept(restored)),
            )
        }
        Outcome::Interrupted { restored } => plain(
            "interrupted",
            format!("The cell was interrupted. {}", kept(restored)),
        ),
        Outcome::TypesChanged { variables } => types_changed(variables),
        Outcome::Completed => ErrorInfo::default(),
    }
}

/// What is left of the variables.
fn kept(restored: &Restored) -> String {
    let mut text = if restored.variables {
        KEPT.to_owned()
    } else {
        let why = restored
            .why_not
            .as_ref()
            .map(|why| format!(": {why}"))
            .unwrap_or_default();
        format!("All variables are lost{why}. Functions and types are kept.")
    };
    match restored.threads_lost {
        0 => {}
        1 => text.push_str(" A thread that earlier cells had started is gone."),
        count => text.push_str(&format!(
            " {count} threads that earlier cells had started are gone."
        )),
    }
    if restored.tokio_lost {
        text.push_str(
            " The tokio runtime and its tasks are gone; the next async cell makes another.",
        );
    }
    text
}

/// Where a panic is in the cells, as far as it is in them.
#[derive(Debug, Default)]
pub(crate) struct Places {
    pub(crate) panic: Option<Place>,
    /// One for each of the panic's frames.
    pub(crate) frames: Vec<Option<Place>>,
}

fn panicked(panic: &Panic, places: &Places) -> ErrorInfo {
    let mut traceback = Vec::new();
    let at = match (&places.panic, &panic.location) {
        (Some(place), _) => format!(" at {}", named(place)),
        (None, Some(location)) if !location.file.starts_with("chorus-") => {
            format!(" at {}:{}", location.file, location.line)
        }
        _ => String::new(),
    };
    traceback.push(format!("{RED}panic{PLAIN}{at}: {}", panic.message));
    if let Some(place) = &places.panic {
        traceback.push(arrow(place));
    }
    let mut last = places.panic.as_ref();
    for (frame, place) in panic.frames.iter().zip(&places.frames) {
        if let Some(name) = function(frame) {
            let at = place.as_ref().map(|place| format!(" at {}", named(place)));
            traceback.push(format!("      in {name}{}", at.unwrap_or_default()));
        }
        if let Some(place) = place
            && last != Some(place)
        {
            traceback.push(arrow(place));
            last = Some(place);
        }
    }
    ErrorInfo {
        ename: "panic".to_owned(),
        evalue: panic.message.clone(),
        traceback,
    }
}

fn named(place: &Place) -> String {
    format!("In[{}], line {}", place.cell, place.line)
}

fn arrow(place: &Place) -> String {
    format!("{GREEN}----> {}{PLAIN} {}", place.line, place.text)
}

/// A frame's function as the user wrote it; `None` for the cell itself and for closures, whose lines say enough.
fn function(frame: &Frame) -> Option<String> {
    let name = frame.function.replace("ctx::", "");
    let own = name.trim_start_matches('<');
    (!own.starts_with(compiler::ENTRY) && !own.contains("{closure") && !own.contains("{{closure}}"))
        .then_some(name)
}

/// Variables whose types a cell has redefined.
pub(crate) fn types_changed(variables: &[String]) -> ErrorInfo {
    plain(
        "types changed",
        format!(
            "The types of {} were redefined, so their values can't be used. {KEPT}",
            variables.join(", ")
        ),
    )
}

/// Said while the cell goes on without these variables.
pub(crate) fn redefined(variables: &[String]) -> String {
    match variables {
        [one] => format!("The type of `{one}` was redefined, so its value is lost.\n"),
        _ => format!(
            "The types of {} were redefined, so their values are lost.\n",
            variables.join(", ")
        ),
    }
}

/// The runtime died between two cells.
pub(crate) fn lost(cause: &Cause, restored: &Restored) -> String {
    format!(
        "Between two cells the runtime {}: a thread that a cell left behind did that. {}\n",
        died(cause),
        kept(restored)
    )
}
