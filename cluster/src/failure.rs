//! Errors of cells, snippets and closures in words: what happened, on which line, what it means for the variables.

use protocol::message::ErrorInfo;
use runtime::{CallOutcome, Cause, Frame, Outcome, Panic, Restored};
use serde_json::{Value, json};

use crate::compile::{Diagnostic, Place};

const RED: &str = "\x1b[1;31m";
const GREEN: &str = "\x1b[32m";
const PLAIN: &str = "\x1b[0m";

/// The snippet's own entry function, which no user wrote.
const ENTRY: &str = "chorus_entry";

/// What an error is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// A notebook's cell.
    Cell,
    /// A snippet on an engine.
    Snippet,
    /// A closure on an engine.
    Closure,
}

impl Subject {
    fn noun(self) -> &'static str {
        match self {
            Subject::Cell => "cell",
            Subject::Snippet => "snippet",
            Subject::Closure => "closure",
        }
    }

    /// What filled the namespace: a closure runs in what snippets left.
    fn earlier(self) -> &'static str {
        match self {
            Subject::Cell => "cell",
            Subject::Snippet | Subject::Closure => "snippet",
        }
    }

    fn variables_kept(self) -> String {
        match self {
            Subject::Closure => "The engine's variables are as they were.".to_owned(),
            Subject::Cell | Subject::Snippet => {
                format!("Every variable is as it was before the {}.", self.noun())
            }
        }
    }

    fn variables_lost(self, why: &str) -> String {
        match self {
            Subject::Cell => {
                format!("All variables are lost{why}. Functions and types are kept.")
            }
            Subject::Snippet | Subject::Closure => format!(
                "This engine's namespace is lost{why}. It begins anew, without variables, functions and types."
            ),
        }
    }
}

/// A line that a user wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceLocation {
    /// The execution count of its cell; `None` in the snippet that failed.
    pub cell: Option<u32>,
    /// Its number, from 1.
    pub line: usize,
    /// Its text.
    pub text: String,
}

impl From<Place> for SourceLocation {
    fn from(place: Place) -> Self {
        Self {
            cell: None,
            line: place.line,
            text: place.text,
        }
    }
}

impl SourceLocation {
    fn name(&self) -> String {
        match self.cell {
            Some(cell) => format!("In[{cell}], line {}", self.line),
            None => format!("line {}", self.line),
        }
    }

    fn arrow(&self) -> String {
        format!("{GREEN}----> {}{PLAIN} {}", self.line, self.text)
    }
}

/// Where a panic and the functions that it went through are in the user's source, as far as they are in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PanicLocations {
    /// Where it was raised.
    pub panic: Option<SourceLocation>,
    /// One for each of the panic's frames; none where the frames' lines are not known.
    pub frames: Vec<Option<SourceLocation>>,
}

/// An error with nothing to show but its text.
pub fn plain(ename: &str, evalue: impl Into<String>) -> ErrorInfo {
    let evalue = evalue.into();
    ErrorInfo {
        ename: ename.to_owned(),
        traceback: vec![format!("{RED}{ename}{PLAIN}: {evalue}")],
        evalue,
    }
}

/// It was interrupted before any of it ran.
pub fn interrupted_early(subject: Subject) -> ErrorInfo {
    plain(
        "interrupted",
        format!(
            "The {} was interrupted before it ran. {}",
            subject.noun(),
            subject.variables_kept()
        ),
    )
}

/// There is no runtime or no compiler: `reason` says why.
pub fn not_ready(subject: Subject, reason: &str) -> ErrorInfo {
    let text = match subject {
        Subject::Cell => "No cell can be evaluated",
        Subject::Snippet | Subject::Closure => "No snippet can run",
    };
    plain("not ready", format!("{text}: {reason}"))
}

/// It did not compile.
pub fn compile(subject: Subject, diagnostics: &[Diagnostic]) -> ErrorInfo {
    let Some((first, others)) = diagnostics.split_first() else {
        return plain(
            "compile error",
            format!("the {} did not compile", subject.noun()),
        );
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

/// It compiled and failed when it ran; `None` when it did not fail.
pub fn run(subject: Subject, outcome: &Outcome, locations: &PanicLocations) -> Option<ErrorInfo> {
    let (noun, unchanged) = (subject.noun(), || subject.variables_kept());
    Some(match outcome {
        Outcome::Completed => return None,
        Outcome::Panicked(panic) => panicked(subject, panic, locations),
        Outcome::Returned { error } => ErrorInfo {
            ename: "error".to_owned(),
            evalue: error.clone(),
            traceback: vec![format!(
                "{RED}error{PLAIN}: the {noun} returned early by `?`: {error}"
            )],
        },
        Outcome::LoadFailed { error } => plain(
            "load error",
            format!(
                "The compiled {noun} could not be loaded: {error}. {}",
                unchanged()
            ),
        ),
        Outcome::Died { cause, restored } => death(subject, cause, restored),
        Outcome::Interrupted { restored } => interrupted(subject, restored),
        Outcome::TypesChanged { variables } => plain(
            "types changed",
            format!(
                "The types of {} were redefined, so their values can't be used. {}",
                variables.join(", "),
                unchanged()
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
        CallOutcome::Panicked(panic) => {
            panicked(Subject::Closure, panic, &PanicLocations::default())
        }
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
        CallOutcome::Died { cause, restored } => death(Subject::Closure, cause, restored),
        CallOutcome::Interrupted { restored } => interrupted(Subject::Closure, restored),
    })
}

fn death(subject: Subject, cause: &Cause, restored: &Restored) -> ErrorInfo {
    let ename = match cause {
        Cause::Signal(_, name) => name,
        Cause::StackOverflow => "stack overflow",
        Cause::Exited(_) => "exit",
        Cause::SupervisorGone => "runtime gone",
    };
    plain(
        ename,
        format!(
            "The {}'s process {}. {}",
            subject.noun(),
            died(cause),
            kept(subject, restored)
        ),
    )
}

fn interrupted(subject: Subject, restored: &Restored) -> ErrorInfo {
    plain(
        "interrupted",
        format!(
            "The {} was interrupted. {}",
            subject.noun(),
            kept(subject, restored)
        ),
    )
}

/// The runtime died between two cells or snippets.
pub fn lost(subject: Subject, cause: &Cause, restored: &Restored) -> String {
    let noun = subject.earlier();
    format!(
        "Between two {noun}s the runtime {}: a thread that a {noun} left behind did that. {}\n",
        died(cause),
        kept(subject, restored)
    )
}

/// A cell or snippet goes on without these variables, since it redefined their types.
pub fn redefined(subject: Subject, variables: &[String]) -> String {
    match variables {
        [one] if subject == Subject::Cell => {
            format!("The type of `{one}` was redefined, so its value is lost.\n")
        }
        _ => format!(
            "The types of {} were redefined, so their values are lost.\n",
            variables.join(", ")
        ),
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
fn kept(subject: Subject, restored: &Restored) -> String {
    let mut text = if restored.variables {
        subject.variables_kept()
    } else {
        let why = restored
            .why_not
            .as_ref()
            .map(|why| format!(": {why}"))
            .unwrap_or_default();
        subject.variables_lost(&why)
    };
    let noun = subject.earlier();
    match restored.threads_lost {
        0 => {}
        1 => text.push_str(&format!(
            " A thread that earlier {noun}s had started is gone."
        )),
        count => text.push_str(&format!(
            " {count} threads that earlier {noun}s had started are gone."
        )),
    }
    match restored.closed {
        0 => {}
        1 => text.push_str(" A file or connection that was closed meanwhile stays closed."),
        count => text.push_str(&format!(
            " {count} files and connections that were closed meanwhile stay closed."
        )),
    }
    if restored.tokio_lost {
        text.push_str(&format!(
            " The tokio runtime and its tasks are gone; the next async {noun} makes another."
        ));
    }
    text
}

fn panicked(subject: Subject, panic: &Panic, locations: &PanicLocations) -> ErrorInfo {
    let at = match (&locations.panic, &panic.location) {
        (Some(location), _) => format!(" at {}", location.name()),
        (None, Some(location)) if !location.file.starts_with("chorus-") => {
            format!(" at {}:{}", location.file, location.line)
        }
        _ => String::new(),
    };
    let mut traceback = vec![format!("{RED}panic{PLAIN}{at}: {}", panic.message)];
    traceback.extend(locations.panic.as_ref().map(SourceLocation::arrow));
    let mut last = locations.panic.as_ref();
    // A cell's frames are shown where their lines were asked for.
    let shown = match subject {
        Subject::Cell => locations.frames.len(),
        Subject::Snippet | Subject::Closure => panic.frames.len(),
    };
    let mut of_frames = locations.frames.iter();
    let mut repeated = 0;
    for frame in panic.frames.iter().take(shown) {
        let location = of_frames.next().and_then(Option::as_ref);
        if let Some(name) = function(subject, frame) {
            let at = location.map(|location| format!(" at {}", location.name()));
            let line = format!("      in {name}{}", at.unwrap_or_default());
            if traceback
                .last()
                .is_some_and(|last| last.split(REPEATED).next() == Some(&line))
            {
                repeated += 1;
                traceback.pop();
                traceback.push(format!("{line}{REPEATED}{repeated} more)"));
            } else {
                repeated = 0;
                traceback.push(line);
            }
        }
        if let Some(location) = location
            && last != Some(location)
        {
            traceback.push(location.arrow());
            last = Some(location);
        }
    }
    ErrorInfo {
        ename: "panic".to_owned(),
        evalue: panic.message.clone(),
        traceback,
    }
}

/// Follows a frame that stands for several.
const REPEATED: &str = " (and ";

/// A frame's function as the user wrote it; `None` for the entry, and for closures of a cell, whose lines say enough.
fn function(subject: Subject, frame: &Frame) -> Option<String> {
    let name = frame.function.replace("ctx::", "");
    let closure = name.contains("{closure") && subject == Subject::Cell;
    (!name.trim_start_matches('<').starts_with(ENTRY) && !closure).then_some(name)
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

    fn run(outcome: &Outcome, place: Option<&Place>) -> Option<ErrorInfo> {
        let locations = PanicLocations {
            panic: place.cloned().map(SourceLocation::from),
            frames: Vec::new(),
        };
        super::run(Subject::Snippet, outcome, &locations)
    }

    fn compile(diagnostics: &[Diagnostic]) -> ErrorInfo {
        super::compile(Subject::Snippet, diagnostics)
    }

    #[test]
    fn a_death_names_its_signal_and_what_is_left() {
        let mut restored = Restored {
            variables: true,
            threads_lost: 1,
            tokio_lost: false,
            closed: 0,
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

    /// Every text, as its users know it.
    #[test]
    fn each_subject_has_its_words() {
        let interrupted = |variables| Outcome::Interrupted {
            restored: Restored {
                variables,
                threads_lost: 2,
                tokio_lost: true,
                closed: 0,
                why_not: (!variables).then_some(WhyNot::CheckpointOff),
            },
        };
        let text = |subject, variables| {
            let outcome = interrupted(variables);
            super::run(subject, &outcome, &PanicLocations::default())
                .unwrap()
                .evalue
        };
        assert_eq!(
            text(Subject::Cell, true),
            "The cell was interrupted. Every variable is as it was before the cell. 2 threads that earlier cells had started are gone. \
             The tokio runtime and its tasks are gone; the next async cell makes another."
        );
        assert_eq!(
            text(Subject::Cell, false),
            "The cell was interrupted. All variables are lost: checkpoints are off. Functions and types are kept. 2 threads that earlier \
             cells had started are gone. The tokio runtime and its tasks are gone; the next async cell makes another."
        );
        assert_eq!(
            text(Subject::Snippet, false),
            "The snippet was interrupted. This engine's namespace is lost: checkpoints are off. It begins anew, without variables, \
             functions and types. 2 threads that earlier snippets had started are gone. The tokio runtime and its tasks are gone; the \
             next async snippet makes another."
        );
        let Outcome::Interrupted { restored } = interrupted(true) else {
            unreachable!()
        };
        assert_eq!(
            call(&CallOutcome::Interrupted {
                restored: restored.clone()
            })
            .unwrap()
            .evalue,
            "The closure was interrupted. The engine's variables are as they were. 2 threads that earlier snippets had started are gone. \
             The tokio runtime and its tasks are gone; the next async snippet makes another."
        );
        assert!(
            lost(Subject::Cell, &Cause::Exited(3), &restored).starts_with(
                "Between two cells the runtime exited with status 3: a thread that a cell left behind did that. Every"
            )
        );
        let names = |names: &[&str]| names.iter().map(|it| (*it).to_owned()).collect::<Vec<_>>();
        for (subject, variables, expected) in [
            (
                Subject::Cell,
                names(&["x"]),
                "The type of `x` was redefined, so its value is lost.\n",
            ),
            (
                Subject::Cell,
                names(&["x", "y"]),
                "The types of x, y were redefined, so their values are lost.\n",
            ),
            (
                Subject::Snippet,
                names(&["x"]),
                "The types of x were redefined, so their values are lost.\n",
            ),
        ] {
            assert_eq!(redefined(subject, &variables), expected);
        }
    }

    #[test]
    fn a_panic_of_a_cell_names_the_lines_that_it_went_through() {
        let frame = |function: &str| Frame {
            function: function.to_owned(),
            location: None,
        };
        let panic = Panic {
            message: "boom".to_owned(),
            location: None,
            frames: vec![
                frame("ctx::deep"),
                frame("ctx::run::{closure#0}"),
                frame("chorus_entry"),
            ],
        };
        let at = |cell, line, text: &str| SourceLocation {
            cell: Some(cell),
            line,
            text: text.to_owned(),
        };
        let locations = PanicLocations {
            panic: Some(at(1, 2, "panic!()")),
            frames: vec![Some(at(1, 2, "panic!()")), None, Some(at(3, 1, "deep()"))],
        };
        let error = super::run(Subject::Cell, &Outcome::Panicked(panic.clone()), &locations);
        assert_eq!(
            error.unwrap().traceback,
            [
                format!("{RED}panic{PLAIN} at In[1], line 2: boom"),
                format!("{GREEN}----> 2{PLAIN} panic!()"),
                "      in deep at In[1], line 2".to_owned(),
                format!("{GREEN}----> 1{PLAIN} deep()"),
            ]
        );
        let error = run(&Outcome::Panicked(panic), None).unwrap();
        assert_eq!(
            error.traceback[1..],
            ["      in deep", "      in run::{closure#0}"]
        );
    }
}
