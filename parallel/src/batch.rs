//! The tasks of one call, and what is known of each; no socket here.

use crate::link;
use crate::wire::{Bytes, Done, Failure, FailureKind, Outcome, Span};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

/// Consecutive tasks that belong together.
#[derive(Debug)]
pub(crate) struct Batch {
    first: u64,
    /// Where each task's items begin among the inputs, and at last their number.
    starts: Vec<usize>,
    /// Seconds since 1970.
    pub(crate) created: f64,
    slots: Mutex<Slots>,
}

#[derive(Debug)]
struct Slots {
    list: Vec<Slot>,
    ended: usize,
    items_ended: usize,
    /// Tasks in the order in which they ended.
    order: Vec<usize>,
    output: Vec<Printed>,
    output_bytes: usize,
}

#[derive(Clone, Debug)]
enum Slot {
    Waiting,
    Running { engine: u32, at: f64 },
    Ended(Arc<Ended>),
}

/// How a task ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) engine: Option<u32>,
    pub(crate) submitted: f64,
    pub(crate) started: f64,
    pub(crate) completed: f64,
    pub(crate) outcome: Result<Bytes, Failure>,
}

/// A task that has ended, with its number among the call's.
pub(crate) type Numbered = (usize, Arc<Ended>);

/// Something that a task printed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Printed {
    /// The first of the task's inputs.
    pub index: usize,
    /// Where it ran.
    pub engine: u32,
    /// Whether it was written to stderr.
    pub stderr: bool,
    /// What was written.
    pub text: String,
}

/// What one task did.
#[derive(Clone, Debug, PartialEq)]
pub struct Metadata {
    /// Which of the inputs it was for.
    pub inputs: Range<usize>,
    /// Where it runs or ran.
    pub engine: Option<u32>,
    /// When it was submitted, in seconds since 1970.
    pub submitted: f64,
    /// When an engine began with it.
    pub started: Option<f64>,
    /// When the engine was done.
    pub completed: Option<f64>,
    /// Whether it went well, for each of its inputs, once it ended.
    pub success: Option<bool>,
}

/// Bytes of output that are kept for one call.
const OUTPUT: usize = 1 << 20;

pub(crate) fn now() -> f64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0.0, |since| since.as_secs_f64())
}

fn known(time: f64) -> Option<f64> {
    (time > 0.0).then_some(time)
}

impl Batch {
    /// Tasks `first`, `first + 1` ... for so many items each.
    pub(crate) fn new(first: u64, items: Vec<usize>) -> Batch {
        let mut total = 0;
        let mut starts = vec![0];
        starts.extend(items.iter().map(|count| {
            total += count;
            total
        }));
        Batch {
            first,
            created: now(),
            slots: Mutex::new(Slots {
                list: vec![Slot::Waiting; items.len()],
                ended: 0,
                items_ended: 0,
                order: Vec::new(),
                output: Vec::new(),
                output_bytes: 0,
            }),
            starts,
        }
    }

    fn slots(&self) -> MutexGuard<'_, Slots> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many tasks there are.
    pub(crate) fn len(&self) -> usize {
        self.starts.len() - 1
    }

    /// How many inputs there are.
    pub(crate) fn items(&self) -> usize {
        self.starts.last().copied().unwrap_or_default()
    }

    /// The inputs of a task.
    pub(crate) fn inputs(&self, index: usize) -> Range<usize> {
        match self.starts.get(index..) {
            Some([start, end, ..]) => *start..*end,
            _ => self.items()..self.items(),
        }
    }

    pub(crate) fn span(&self) -> Span {
        Span {
            first: self.first,
            count: self.len() as u64,
        }
    }

    pub(crate) fn contains(&self, task: u64) -> bool {
        self.span().ids().contains(&task)
    }

    fn index(&self, task: u64) -> Option<usize> {
        usize::try_from(task.checked_sub(self.first)?).ok()
    }

    pub(crate) fn started(&self, task: u64, engine: u32, at: f64) {
        let mut slots = self.slots();
        if let Some(slot @ (Slot::Waiting | Slot::Running { .. })) =
            self.index(task).and_then(|index| slots.list.get_mut(index))
        {
            *slot = Slot::Running { engine, at };
        }
    }

    /// The first end of a task counts; a copied process is told some of them again.
    pub(crate) fn ended(&self, done: Done) {
        let Some(index) = self.index(done.id) else {
            return link::discard(done);
        };
        let mut slots = self.slots();
        match slots.list.get(index) {
            Some(Slot::Waiting | Slot::Running { .. }) => {}
            _ => return link::discard(done),
        }
        let outcome = match done.outcome {
            Outcome::Value(piece) => piece.take().map_err(|error| Failure {
                kind: FailureKind::Lost,
                ename: "ResultLost".to_owned(),
                evalue: format!("the task was done, but its result can't be read: {error}"),
                traceback: Vec::new(),
                place: None,
            }),
            Outcome::Failed(failure) => Err(failure),
        };
        self.end(
            &mut slots,
            index,
            Ended {
                engine: done.engine,
                submitted: done.submitted,
                started: done.started,
                completed: done.completed,
                outcome,
            },
        );
    }

    fn end(&self, slots: &mut Slots, index: usize, ended: Ended) {
        if let Some(slot) = slots.list.get_mut(index) {
            *slot = Slot::Ended(Arc::new(ended));
            slots.ended += 1;
            slots.items_ended += self.inputs(index).len();
            slots.order.push(index);
        }
    }

    /// Whatever has not ended fails, because the connection did.
    pub(crate) fn lose(&self, reason: &str) {
        let mut slots = self.slots();
        for index in 0..self.len() {
            let engine = match slots.list.get(index) {
                Some(Slot::Waiting) => None,
                Some(Slot::Running { engine, .. }) => Some(*engine),
                _ => continue,
            };
            let failure = Failure {
                kind: FailureKind::Lost,
                ename: "ConnectionLost".to_owned(),
                evalue: format!("{reason}, so its result can't arrive"),
                traceback: Vec::new(),
                place: None,
            };
            self.end(
                &mut slots,
                index,
                Ended {
                    engine,
                    submitted: 0.0,
                    started: 0.0,
                    completed: 0.0,
                    outcome: Err(failure),
                },
            );
        }
    }

    pub(crate) fn printed(&self, task: u64, engine: u32, stderr: bool, text: String) {
        let Some(index) = self.index(task) else {
            return;
        };
        let mut slots = self.slots();
        slots.output_bytes = slots.output_bytes.saturating_add(text.len());
        if slots.output_bytes <= OUTPUT {
            let index = self.inputs(index).start;
            slots.output.push(Printed {
                index,
                engine,
                stderr,
                text,
            });
        }
    }

    pub(crate) fn output(&self) -> Vec<Printed> {
        self.slots().output.clone()
    }

    pub(crate) fn is_done(&self) -> bool {
        self.slots().ended == self.len()
    }

    /// Tasks that have ended, and inputs that have.
    pub(crate) fn progress(&self) -> (usize, usize) {
        let slots = self.slots();
        (slots.ended, slots.items_ended)
    }

    /// How a task ended, if it did.
    pub(crate) fn get(&self, index: usize) -> Option<Arc<Ended>> {
        match self.slots().list.get(index) {
            Some(Slot::Ended(ended)) => Some(Arc::clone(ended)),
            _ => None,
        }
    }

    /// The task that was the `nth` to end.
    pub(crate) fn nth_ended(&self, nth: usize) -> Option<usize> {
        self.slots().order.get(nth).copied()
    }

    /// All that have ended besides the first so many, in that order.
    pub(crate) fn ended_beyond(&self, taken: usize) -> Vec<Numbered> {
        let slots = self.slots();
        let fresh = slots.order.get(taken..).unwrap_or_default();
        let ended = fresh.iter().map(|index| match slots.list.get(*index) {
            Some(Slot::Ended(ended)) => Some((*index, Arc::clone(ended))),
            _ => None,
        });
        ended.flatten().collect()
    }

    /// Tasks that have not ended, as few spans as possible.
    pub(crate) fn open(&self) -> Vec<Span> {
        let mut spans: Vec<Span> = Vec::new();
        for (id, slot) in (self.first..).zip(&self.slots().list) {
            if matches!(slot, Slot::Ended(_)) {
                continue;
            }
            match spans.last_mut() {
                Some(last) if last.first + last.count == id => last.count += 1,
                _ => spans.push(Span {
                    first: id,
                    count: 1,
                }),
            }
        }
        spans
    }

    pub(crate) fn metadata(&self) -> Vec<Metadata> {
        let slots = self.slots();
        slots
            .list
            .iter()
            .enumerate()
            .map(|(index, slot)| {
                let (engine, submitted, started, completed, success) = match slot {
                    Slot::Waiting => (None, 0.0, None, None, None),
                    Slot::Running { engine, at } => (Some(*engine), 0.0, known(*at), None, None),
                    Slot::Ended(ended) => (
                        ended.engine,
                        ended.submitted,
                        known(ended.started),
                        known(ended.completed),
                        Some(ended.outcome.is_ok()),
                    ),
                };
                Metadata {
                    inputs: self.inputs(index),
                    engine,
                    submitted: known(submitted).unwrap_or(self.created),
                    started,
                    completed,
                    success,
                }
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Piece;

    fn done(id: u64) -> Done {
        Done {
            id,
            engine: Some(1),
            submitted: 1.0,
            started: 2.0,
            completed: 3.0,
            outcome: Outcome::Value(Piece::Inline(vec![id as u8])),
        }
    }

    #[test]
    fn each_task_ends_once() {
        let batch = Batch::new(10, vec![3, 3, 1]);
        assert_eq!((batch.len(), batch.items(), batch.inputs(1)), (3, 7, 3..6));
        batch.started(12, 4, 1.5);
        batch.ended(done(11));
        batch.ended(done(11));
        batch.started(11, 9, 9.0);
        assert_eq!(batch.progress(), (1, 3));
        assert_eq!(
            batch.open(),
            [
                Span {
                    first: 10,
                    count: 1
                },
                Span {
                    first: 12,
                    count: 1
                }
            ]
        );
        let metadata = batch.metadata();
        assert_eq!(metadata[1].engine, Some(1));
        assert_eq!(
            (metadata[2].engine, metadata[2].started),
            (Some(4), Some(1.5))
        );
        batch.lose("the cable broke");
        assert!(batch.is_done());
        let reason = |index| {
            batch
                .get(index)
                .unwrap()
                .outcome
                .as_ref()
                .err()
                .map(|failure| failure.kind)
        };
        assert_eq!(
            [reason(0), reason(1), reason(2)],
            [Some(FailureKind::Lost), None, Some(FailureKind::Lost)]
        );
        assert_eq!(
            (batch.nth_ended(0), batch.nth_ended(1), batch.nth_ended(3)),
            (Some(1), Some(0), None)
        );
        let beyond = |taken| -> Vec<usize> {
            let ended = batch.ended_beyond(taken).into_iter();
            ended.map(|(index, _)| index).collect()
        };
        assert_eq!((beyond(0)[..2].to_vec(), beyond(1)[0]), (vec![1, 0], 0));
        assert!(beyond(3).is_empty());
    }

    #[test]
    fn what_is_printed_is_bounded() {
        let batch = Batch::new(0, vec![2, 2]);
        batch.printed(1, 3, false, "text".to_owned());
        batch.printed(1, 3, false, "x".repeat(OUTPUT));
        let output = batch.output();
        assert_eq!(
            (output.len(), output[0].index, output[0].text.as_str()),
            (1, 2, "text")
        );
    }
}
