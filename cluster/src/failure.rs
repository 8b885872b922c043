//! Errors of snippets in words: what happened, on which line, what it means for the engine's variables.

use protocol::message::ErrorInfo;
use runtime::{CallOutcome, Cause, Outcome, Panic, Restored};
use serde_json::{Value, json};

use crate::compile::{Diagnostic, Place};

const RED: &str = "\x1b[1;31m";
const GREEN: &str = "\x1b[32m";
const PLAIN: &str = "\x1b[0m";

const KEPT: &str = "Every variable is as it was before the snippet.";

/// An error with nothing to show but its text.
pub fn plain(ename: &str, evalue: impl Into<String>) -> ErrorInfo {
    let evalue = evalue.into();
    ErrorInfo {
        ename: ename.to_owned(),
        traceback: vec![format!("{RED}{ename}{PLAIN}: {evalue}")],
        evalue,
    }
}

/// A snippet that was interrupted before any of it ran.
pub fn interrupted_early() -> ErrorInfo {
    plain(
        "interrupted",
        format!("The snippet was interrupted before it ran. {KEPT}"),
    )
}

/// A snippet that did not compile.
pub fn compile(diagnostics: &[Diagnostic]) -> ErrorInfo {
    let Some((first, others)) = diagnostics.split_first() else {
        return plain("compile error", "the snippet did not compile");
    };
    let headline = match &first.code {
        Some(code) => format!("[{code}] {}", first.message),
        None => first.message.clone(),
    };
    ErrorInfo {
        ename: "compile error".to_owned(),
        evalue: match others.len() {
            0 => headline,
            1 => format!("{headline} (and 1 more error)"),
            count => format!("{headline} (and {count} more errors)"),
        },
        traceback: diagnostics
            .iter()
            .map(|diagnostic| diagnostic.rendered.clone())
            .collect(),
    }
}

/// A snippet that compiled and failed when it ran; `None` when it did not fail. `place` is where it panicked.
pub fn run(outcome: &Outcome, place: Option<&Place>) -> Option<ErrorInfo> {
    Some(match outcome {
        Outcome::Completed => return None,
        Outcome::Panicked(panic) => panicked(panic, place),
        Outcome::Returned { error } => ErrorInfo {
            ename: "error".to_owned(),
            evalue: error.clone(),
            traceback: vec![format!(
                "{RED}error{PLAIN}: the snippet returned early by `?`: {error}"
            )],
        },
        Outcome::LoadFailed { error } => plain(
            "load error",
            format!("The compiled snippet could not be loaded: {error}. {KEPT}"),
        ),
        Outcome::Died { cause, restored } => plain(
            death(cause),
            format!("The snippet's process {}. {}", died(cause), kept(restored)),
        ),
        Outcome::Interrupted { restored } => plain(
            "interrupted",
            format!("The snippet was interrupted. {}", kept(restored)),
        ),
        Outcome::TypesChanged { variables } => plain(
            "types changed",
            format!(
                "The types of {} were redefined, so their values can't be used. {KEPT}",
                variables.join(", ")
            ),
        ),
    })
}

/// A closure's call that failed; `None` when it returned.
pub fn call(outcome: &CallOutcome) -> Option<ErrorInfo> {
    Some(match outcome {
        CallOutcome::Returned(_) => return None,
        CallOutcome::Partly(_) => plain(
            "panic",
            "Some of the items panicked. The result tells which, and has those of the others."
                .to_owned(),
        ),
        CallOutcome::Failed { error } => plain("error", error.clone()),
        CallOutcome::Panicked(panic) => panicked(panic, None),
        CallOutcome::NotRun { error } => plain(
            "not run",
            format!("The closure could not be called: {error}."),
        ),
        CallOutcome::MissingShared { ids } => plain(
            "MissingShared",
            format!(
                "{} of the values that the closure shares with other calls are not on this engine (any more); they have to be sent again.",
                ids.len()
            ),
        ),
        CallOutcome::Died { cause, restored } => plain(
            death(cause),
            format!(
                "The closure's process {}. {}",
                died(cause),
                spared(restored)
            ),
        ),
        CallOutcome::Interrupted { restored } => plain(
            "interrupted",
            format!("The closure was interrupted. {}", spared(restored)),
        ),
    })
}

/// As [`kept`], where nothing is said when there is nothing to tell: closures change no variables.
fn spared(restored: &Restored) -> String {
    let text = kept(restored);
    match text.strip_prefix(KEPT) {
        Some(rest) => format!("The engine's variables are as they were.{rest}"),
        None => text,
    }
}

/// The runtime died between two snippets.
pub fn lost(cause: &Cause, restored: &Restored) -> String {
    format!(
        "Between two snippets the runtime {}: a thread that a snippet left behind did that. {}\n",
        died(cause),
        kept(restored)
    )
}

/// How a process ended, as an error's name.
fn death(cause: &Cause) -> &'static str {
    match cause {
        Cause::Signal(_, name) => name,
        Cause::StackOverflow => "stack overflow",
        Cause::Exited(_) => "exit",
        Cause::SupervisorGone => "runtime gone",
    }
}

/// How a process ended, as a clause.
pub fn died(cause: &Cause) -> String {
    match cause {
        Cause::Signal(..) => format!("was {cause}"),
        Cause::StackOverflow => format!("ran into a {cause}"),
        Cause::Exited(_) => cause.to_string(),
        Cause::SupervisorGone => "went down, since the runtime's supervisor was killed".to_owned(),
    }
}

/// What is left of the namespace.
fn kept(restored: &Restored) -> String {
    let mut text = if restored.variables {
        KEPT.to_owned()
    } else {
        let why = restored
            .why_not
            .as_ref()
            .map(|why| format!(": {why}"))
            .unwrap_or_default();
        format!(
            "This engine's namespace is lost{why}. It begins anew, without variables, functions and types."
        )
    };
    match restored.threads_lost {
        0 => {}
        1 => text.push_str(" A thread that earlier snippets had started is gone."),
        count => text.push_str(&format!(
            " {count} threads that earlier snippets had started are gone."
        )),
    }
    if restored.tokio_lost {
        text.push_str(
            " The tokio runtime and its tasks are gone; the next async snippet makes another.",
        );
    }
    text
}

fn panicked(panic: &Panic, place: Option<&Place>) -> ErrorInfo {
    let at = match (place, &panic.location) {
        (Some(place), _) => format!(" at line {}", place.line),
        (None, Some(location)) if !location.file.starts_with("chorus-") => {
            format!(" at {}:{}", location.file, location.line)
        }
        _ => String::new(),
    };
    let mut traceback = vec![format!("{RED}panic{PLAIN}{at}: {}", panic.message)];
    if let Some(place) = place {
        traceback.push(format!("{GREEN}----> {}{PLAIN} {}", place.line, place.text));
    }
    for frame in &panic.frames {
        let name = frame.function.replace("ctx::", "");
        // The snippet's own entry function is nothing that a user wrote.
        if !name.trim_start_matches('<').starts_with("chorus_entry") {
            traceback.push(format!("      in {name}"));
        }
    }
    ErrorInfo {
        ename: "panic".to_owned(),
        evalue: panic.message.clone(),
        traceback,
    }
}

/// The content of an error reply that no engine made. Clients expect output from engines that are named in it, so none is.
pub(crate) fn hub_error(ename: &str, evalue: impl Into<String>) -> Value {
    let evalue = evalue.into();
    json!({
        "status": "error",
        "ename": ename,
        "evalue": evalue,
        "traceback": [format!("{ename}: {evalue}")],
        "engine_info": {},
    })
}

#[cfg(test)]
mod tests {
    use runtime::{Location, WhyNot};

    use super::*;

    #[test]
    fn a_death_names_its_signal_and_what_is_left() {
        let mut restored = Restored {
            variables: true,
            threads_lost: 1,
            tokio_lost: false,
            why_not: None,
        };
        let died = |restored| Outcome::Died {
            cause: Cause::Signal(11, "SIGSEGV"),
            restored,
        };
        let error = run(&died(restored.clone()), None).unwrap();
        assert_eq!(error.ename, "SIGSEGV");
        assert!(error.evalue.contains("as it was") && error.evalue.contains("A thread"));
        restored.variables = false;
        restored.why_not = Some(WhyNot::CheckpointOff);
        let error = run(&died(restored), None).unwrap();
        assert!(error.evalue.contains("lost: checkpoints are off"));
        assert_eq!(run(&Outcome::Completed, None), None);
    }

    #[test]
    fn a_panic_shows_its_line() {
        let panic = Outcome::Panicked(Panic {
            message: "boom".to_owned(),
            location: Some(Location {
                file: "chorus-1/lib.rs".to_owned(),
                line: 9,
                column: 1,
            }),
            frames: Vec::new(),
        });
        let place = Place {
            line: 2,
            text: "deep();".to_owned(),
        };
        let error = run(&panic, Some(&place)).unwrap();
        assert_eq!(error.ename, "panic");
        assert_eq!(error.traceback.len(), 2);
        assert!(error.traceback.concat().contains("deep();"));
        let bare = run(&panic, None).unwrap();
        assert!(!bare.traceback.concat().contains("chorus-1"));
    }

    #[test]
    fn compile_errors_are_counted() {
        let diagnostic = Diagnostic {
            code: Some("E0308".to_owned()),
            message: "mismatched types".to_owned(),
            rendered: "error[E0308]: ..".to_owned(),
        };
        let error = compile(&[diagnostic.clone(), diagnostic]);
        assert_eq!(error.evalue, "[E0308] mismatched types (and 1 more error)");
        assert_eq!(error.traceback.len(), 2);
    }
}
