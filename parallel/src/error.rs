//! Everything that can go wrong for a user of this crate, in words that a notebook shows as they are.

use crate::codec::CodecError;
use crate::wire::FailureKind;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

/// Why there is no result. `Debug` is `Display`, so that `unwrap()` in a cell shows sentences.
#[derive(Clone)]
pub enum Error {
    /// There is nothing to connect to.
    Connect {
        /// What was tried, and what to do.
        reason: String,
    },
    /// A program's own cluster did not start.
    Start {
        /// What stood in the way, and what to do.
        reason: String,
    },
    /// The connection ended. What has arrived before stays readable.
    Lost {
        /// What the carrier said, or how the connection ended.
        reason: String,
    },
    /// The targets name no engines.
    Targets {
        /// Which, and which engines there are.
        reason: String,
    },
    /// A function's code can't be named to an engine.
    Function {
        /// Why.
        reason: String,
    },
    /// A value can't be turned into bytes, or a result's bytes into a value.
    Codec {
        /// What was being done.
        action: &'static str,
        /// What is wrong with the value or the bytes.
        source: CodecError,
    },
    /// A variable can't be moved to or from an engine.
    Variable {
        /// What was being done.
        action: &'static str,
        /// Its name.
        name: String,
        /// What is in the way.
        reason: String,
    },
    /// A task failed.
    Task(Arc<TaskError>),
    /// Several tasks, or items of a map, failed.
    Composite(Arc<CompositeError>),
    /// It takes longer than the caller wanted to wait. The tasks go on.
    TimedOut {
        /// How long was waited.
        waited: Duration,
        /// Items that are done.
        done: usize,
        /// All items.
        total: usize,
    },
    /// `map_reduce` over nothing has no value.
    Empty,
    /// The cluster refused a request.
    Refused {
        /// In its words.
        reason: String,
    },
}

// Written out, since `thiserror` would be compiled for each user before the first cell that names this crate.
impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Connect { reason } => write!(f, "failed to connect to a cluster: {reason}"),
            Error::Start { reason } => write!(f, "failed to start a cluster: {reason}"),
            Error::Lost { reason } => write!(
                f,
                "lost the connection to the cluster: {reason}. Make a new client with `Client::connect()`"
            ),
            Error::Targets { reason } => f.write_str(reason),
            Error::Function { reason } => {
                write!(f, "failed to find the code of a function: {reason}")
            }
            Error::Codec { action, source } => write!(f, "failed to {action}: {source}"),
            Error::Variable {
                action,
                name,
                reason,
            } => write!(f, "failed to {action} the variable `{name}`: {reason}"),
            Error::Task(task) => write!(f, "{task}"),
            Error::Composite(composite) => write!(f, "{composite}"),
            Error::TimedOut {
                waited,
                done,
                total,
            } => write!(
                f,
                "not done after {waited:?}: {done} of {total} are; the rest goes on, ask again later or `abort()` it"
            ),
            Error::Empty => f.write_str("there is no value, since there were no items to reduce"),
            Error::Refused { reason } => write!(f, "the cluster refused: {reason}"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::Codec { source, .. } => Some(source),
            _ => None,
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Error {
    /// The failures behind this error, each with its input's index and its engine; empty if no task was run.
    pub fn tasks(&self) -> &[TaskError] {
        match self {
            Error::Task(task) => std::slice::from_ref(task),
            Error::Composite(composite) => &composite.failed,
            _ => &[],
        }
    }

    /// The same, of a task whose first input has so many before it.
    pub(crate) fn behind(self, inputs: usize) -> Error {
        match self {
            Error::Task(mut task) => {
                let task_error = Arc::make_mut(&mut task);
                task_error.index = task_error.index.map(|index| index + inputs);
                Error::Task(task)
            }
            other => other,
        }
    }

    /// One error of many. `total` counts what could have failed.
    pub(crate) fn of_tasks(failed: Vec<TaskError>, total: usize) -> Error {
        Error::of(failed, total, true)
    }

    /// One error of many, when the values of the others are nowhere to be had.
    pub(crate) fn of_parts(failed: Vec<TaskError>, total: usize) -> Error {
        Error::of(failed, total, false)
    }

    fn of(mut failed: Vec<TaskError>, total: usize, kept: bool) -> Error {
        match failed.pop() {
            Some(only) if failed.is_empty() => Error::Task(Arc::new(only)),
            Some(last) => {
                failed.push(last);
                Error::Composite(Arc::new(CompositeError {
                    failed,
                    total,
                    kept,
                }))
            }
            None => Error::Refused {
                reason: "a task failed without saying why".to_owned(),
            },
        }
    }
}

/// A task, or an item of a map, that failed.
#[derive(Clone, Debug, PartialEq)]
pub struct TaskError {
    /// What kind of failure it is.
    pub kind: FailureKind,
    /// The number of the input, from 0, if it was one of several.
    pub index: Option<usize>,
    /// Of which inputs it was, if it was for a part of them (`%%parallel`); `index` is then the part's number.
    pub part: Option<Range<usize>>,
    /// The engine it ran on, if it got to one.
    pub engine: Option<u32>,
    /// The error's name: `panic` for a panic.
    pub ename: String,
    /// Its message.
    pub evalue: String,
    /// Its frames, already laid out for a terminal.
    pub traceback: Vec<String>,
    /// Where it happened, as far as that is known.
    pub location: Option<Location>,
}

/// A place in a cell or a source file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Location {
    /// `In[3]`, or a file's name.
    pub file: String,
    /// The line, from 1.
    pub line: u32,
    /// That line's text, if it is known.
    pub text: Option<String>,
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, line {}", self.file, self.line)?;
        match &self.text {
            Some(text) => write!(f, ": {}", text.trim()),
            None => Ok(()),
        }
    }
}

const UNKNOWN_TYPE: &str = "\n    Engines know the types of std and those that were defined on them: define this one there too, in a \
    cell that begins with `%%px --local`, which runs on the engines and in the notebook";

impl TaskError {
    /// Its place among the inputs and engines, for a list: `[item 7, engine 1]`.
    fn origin(&self) -> String {
        if let (Some(part), Some(index)) = (&self.part, self.index) {
            let items = match part.len() {
                1 => format!("item {}", part.start),
                _ => format!("items {} to {}", part.start, part.end.saturating_sub(1)),
            };
            let engine = self.engine.map(|engine| format!(", engine {engine}"));
            return format!("[part {index}: {items}{}] ", engine.unwrap_or_default());
        }
        match (self.index, self.engine) {
            (Some(index), Some(engine)) => format!("[item {index}, engine {engine}] "),
            (Some(index), None) => format!("[item {index}] "),
            (None, Some(engine)) => format!("[engine {engine}] "),
            (None, None) => String::new(),
        }
    }

    /// Whether an engine's compiler doesn't know a type, as when a variable is pushed whose type only the notebook defines.
    fn is_unknown_type(&self) -> bool {
        let codes = ["[E0412]", "[E0433]", "[E0425] cannot find type"];
        self.ename == "compile error" && codes.iter().any(|code| self.evalue.contains(code))
    }

    /// What happened, without where it ran.
    fn what(&self) -> String {
        let mut text = match self.kind {
            FailureKind::Panic => format!("panicked: {}", self.evalue),
            _ if self.ename.is_empty() => self.evalue.clone(),
            _ => format!("{}: {}", self.ename, self.evalue),
        };
        if let Some(location) = &self.location {
            text.push_str(&format!("\n    at {location}"));
        }
        if self.is_unknown_type() {
            text.push_str(UNKNOWN_TYPE);
        }
        text
    }
}

impl fmt::Display for TaskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.origin(), self.what())
    }
}

impl std::error::Error for TaskError {}

/// Several failures; equal ones are shown once.
#[derive(Clone, Debug, PartialEq)]
pub struct CompositeError {
    /// All of them, in the order of the inputs.
    pub failed: Vec<TaskError>,
    /// How many could have failed.
    pub total: usize,
    /// Whether [`AsyncResult::results`](crate::AsyncResult::results) has the others.
    pub kept: bool,
}

/// Different failures that are shown.
const SHOWN: usize = 8;

impl fmt::Display for CompositeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} failed", self.failed.len(), self.total)?;
        if self.kept {
            f.write_str("; `results()` has the others")?;
        }
        listed(f, &self.failed, 0)
    }
}

/// Failures, below each other. There are so many `more` of which nothing is said.
pub(crate) fn listed(
    out: &mut impl fmt::Write,
    failed: &[TaskError],
    mut more: usize,
) -> fmt::Result {
    let mut different: Vec<(String, &TaskError, usize)> = Vec::new();
    for task in failed {
        let what = task.what();
        if let Some((.., times)) = different.iter_mut().find(|(known, ..)| *known == what) {
            *times += 1;
        } else if different.len() < SHOWN {
            different.push((what, task, 1));
        } else {
            more += 1;
        }
    }
    for (what, first, times) in different {
        write!(out, "\n  {}{what}", first.origin())?;
        if times > 1 {
            write!(out, "\n    and {} more like it", times - 1)?;
        }
    }
    match more {
        0 => Ok(()),
        more => write!(out, "\n  and {more} others"),
    }
}

impl std::error::Error for CompositeError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn panic(index: usize, message: &str) -> TaskError {
        TaskError {
            kind: FailureKind::Panic,
            index: Some(index),
            part: None,
            engine: Some(1),
            ename: "panic".to_owned(),
            evalue: message.to_owned(),
            traceback: Vec::new(),
            location: Some(Location {
                file: "In[3]".to_owned(),
                line: 2,
                text: Some("    panic!()".to_owned()),
            }),
        }
    }

    #[test]
    fn one_failure_says_where() {
        let error = Error::of_tasks(vec![panic(7, "no")], 10);
        assert_eq!(
            format!("{error:?}"),
            "[item 7, engine 1] panicked: no\n    at In[3], line 2: panic!()"
        );
        assert_eq!(error.tasks().len(), 1);
    }

    #[test]
    fn a_part_says_which() {
        let mut one = panic(3, "no");
        one.part = Some(300..400);
        let mut other = panic(4, "no");
        other.part = Some(400..401);
        assert_eq!(
            Error::of_parts(vec![one, other], 8).to_string(),
            "2 of 8 failed\n  [part 3: items 300 to 399, engine 1] panicked: no\n    at In[3], line 2: panic!()\n    \
             and 1 more like it"
        );
    }

    #[test]
    fn a_type_that_engines_do_not_know() {
        let mut error = panic(0, "[E0425] cannot find type `Point` in this scope");
        error.kind = FailureKind::Error;
        error.ename = "compile error".to_owned();
        assert!(error.to_string().contains("`%%px --local`"), "{error}");
    }

    #[test]
    fn equal_failures_are_told_once() {
        let failed = (0..20)
            .map(|n| panic(n, if n < 5 { "a" } else { "b" }))
            .collect();
        let error = Error::of_tasks(failed, 30);
        assert_eq!(
            error.to_string(),
            "20 of 30 failed; `results()` has the others\n  \
             [item 0, engine 1] panicked: a\n    at In[3], line 2: panic!()\n    and 4 more like it\n  \
             [item 5, engine 1] panicked: b\n    at In[3], line 2: panic!()\n    and 14 more like it"
        );
        let mut list = String::new();
        listed(&mut list, &error.tasks()[..1], 5).unwrap();
        assert_eq!(
            list,
            "\n  [item 0, engine 1] panicked: a\n    at In[3], line 2: panic!()\n  and 5 others"
        );
    }
}
