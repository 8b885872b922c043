//! From a call of the user's to frames.

use crate::batch::Batch;
use crate::codec::{self, Encoded};
use crate::error::Error;
use crate::function::{Trampoline, locate};
use crate::link::{Link, Session};
use crate::result::Handle;
use crate::wire::{LARGE, Piece, Question, Route, Stretches, Submission, Task, Up, Work};
use serde::Serialize;
use std::ops::Range;
use std::sync::Arc;

/// A frame with tasks is sent when it has so many bytes, so that engines begin before the last task is encoded.
const FRAME: usize = 1 << 20;
/// Or so many tasks.
const TASKS: usize = 4096;

/// What tasks of one call have in common.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) work: Work,
    pub(crate) route: Route,
    pub(crate) label: Option<String>,
    pub(crate) shared: Vec<u64>,
}

impl Job {
    /// Calls a trampoline.
    pub(crate) fn call(
        trampoline: Trampoline,
        route: Route,
        label: Option<String>,
    ) -> Result<Job, Error> {
        let place = locate(trampoline)?;
        Ok(Job {
            work: Work::Call {
                artifact: place.artifact.clone(),
                executable: place.executable,
                offset: place.offset,
            },
            route,
            label,
            shared: Vec::new(),
        })
    }

    /// Submits tasks for so many inputs each. `make` gives a task's engine and arguments.
    pub(crate) fn submit(
        self,
        link: &Arc<Link>,
        items: Vec<usize>,
        make: &mut dyn FnMut(usize) -> Result<(Option<u32>, Piece), Error>,
    ) -> Result<Handle, Error> {
        let batch = link.with(|session| session.add(items))?;
        let handle = Handle::new(Arc::clone(link), batch, self.label.as_deref());
        let sent = self.send(link, &handle, make);
        if sent.is_err()
            && let Ok(id) = link.with(|session| session.draw(1))
        {
            // Nobody will ask for the results of those that were sent. The answer has no listener.
            let question = Question::Abort {
                tasks: Some(vec![handle.batch().span()]),
            };
            let _ = link.send(&Up::Ask { id, question });
        }
        sent.map(|()| handle)
    }

    /// Submits nothing: tasks for no input are done at once.
    pub(crate) fn done(&self, link: &Arc<Link>) -> Handle {
        let batch = Arc::new(Batch::new(0, Vec::new()));
        Handle::new(Arc::clone(link), batch, self.label.as_deref())
    }

    fn send(
        self,
        link: &Link,
        handle: &Handle,
        make: &mut dyn FnMut(usize) -> Result<(Option<u32>, Piece), Error>,
    ) -> Result<(), Error> {
        let count = handle.batch().len();
        let mut submission = Submission {
            work: self.work,
            shared: self.shared,
            route: self.route,
            label: self.label,
            tasks: Vec::with_capacity(count.min(TASKS)),
        };
        let mut bytes = 0;
        for (index, id) in handle.batch().span().ids().enumerate() {
            let (engine, arguments) = make(index)?;
            bytes += match &arguments {
                Piece::Inline(inline) => inline.len(),
                Piece::Part { length, .. } => usize::try_from(*length).unwrap_or(FRAME),
                Piece::File { .. } | Piece::Shared { .. } => 0,
            };
            submission.tasks.push(Task {
                id,
                engine,
                arguments,
            });
            if bytes >= FRAME || submission.tasks.len() >= TASKS || index + 1 == count {
                submission = flush(link, submission)?;
                bytes = 0;
            }
        }
        Ok(())
    }
}

/// Sends the submission; gives it back without tasks.
fn flush(link: &Link, submission: Submission) -> Result<Submission, Error> {
    let up = Up::Submit(submission);
    let sent = link.send(&up);
    let Up::Submit(mut submission) = up else {
        return Err(Error::Refused {
            reason: "a submission became something else".to_owned(),
        });
    };
    match sent {
        Ok(()) => submission.tasks.clear(),
        Err(error) => {
            submission
                .tasks
                .drain(..)
                .for_each(|task| task.arguments.discard());
            return Err(error);
        }
    }
    Ok(submission)
}

pub(crate) fn encode<T: Serialize + ?Sized>(value: &T) -> Result<Encoded<'_>, Error> {
    codec::encode(value).map_err(|source| Error::Codec {
        action: "encode a value that is to be sent",
        source,
    })
}

/// A value that several tasks use: sent to the carrier once, and by it once to each engine.
#[derive(Debug)]
pub(crate) struct Sent {
    link: Arc<Link>,
    pub(crate) id: u64,
}

impl Sent {
    pub(crate) fn new(link: &Arc<Link>, value: Encoded<'_>) -> Result<Sent, Error> {
        Sent::piece(link, link.piece(value)?)
    }

    fn piece(link: &Arc<Link>, piece: Piece) -> Result<Sent, Error> {
        let id = link.with(Session::share)?;
        let shared = Sent {
            link: Arc::clone(link),
            id,
        };
        let up = Up::Share { id, piece };
        link.send(&up).inspect_err(|_| {
            if let Up::Share { piece, .. } = up {
                piece.discard();
            }
        })?;
        Ok(shared)
    }

    pub(crate) fn link(&self) -> &Arc<Link> {
        &self.link
    }
}

impl Drop for Sent {
    /// Tasks that were submitted keep it until they are done.
    fn drop(&mut self) {
        let id = self.id;
        // If the connection is lost, the carrier has forgotten it anyway.
        let _ = self.link.with(|session| session.unshare(id));
        let _ = self.link.send(&Up::Unshare { ids: vec![id] });
    }
}

/// The same bytes for several tasks.
pub(crate) enum Same {
    Small(Vec<u8>),
    Large(Sent),
}

impl Same {
    pub(crate) fn new(link: &Arc<Link>, value: Encoded<'_>) -> Result<Same, Error> {
        if value.len() > LARGE {
            Sent::new(link, value).map(Same::Large)
        } else {
            Ok(Same::Small(value.into_vec()))
        }
    }

    pub(crate) fn piece(&self) -> Piece {
        match self {
            Same::Small(bytes) => Piece::Inline(bytes.clone()),
            Same::Large(shared) => Piece::Shared { id: shared.id },
        }
    }
}

/// So many bytes of arguments go into one file: what engines have answered for is free before the last task of a large call is done.
const FILE: u64 = 32 << 20;

/// The arguments of a call's tasks. Large ones go into few files, of which an engine can read the beginning while more is written. Without a link, as by
/// default, each goes into its own.
#[derive(Debug, Default)]
pub struct Arguments {
    tasks: usize,
    /// Where files are sent, which is worth it for several tasks and as long as there is memory.
    link: Option<Arc<Link>>,
    file: Option<(Stretches, Sent)>,
    /// Files that are complete. Tasks that name them may still have to be sent.
    complete: Vec<Sent>,
}

impl Arguments {
    /// For so many tasks.
    pub(crate) fn new(link: &Arc<Link>, tasks: usize) -> Arguments {
        Arguments {
            tasks,
            link: (tasks > 1).then(|| Arc::clone(link)),
            ..Arguments::default()
        }
    }

    /// The next task's.
    pub(crate) fn piece(&mut self, value: Encoded<'_>) -> Result<Piece, Error> {
        let Some(link) = self.link.as_ref().filter(|_| value.len() > LARGE) else {
            return Ok(Piece::of(value));
        };
        let (file, sent) = match &mut self.file {
            Some(file) => file,
            None => {
                let about = (value.len() as u64).saturating_mul(self.tasks as u64);
                let about = about.min(FILE);
                // Without the means, as `Piece::of` without them.
                let Ok((file, piece)) = link.stretches(about)? else {
                    self.link = None;
                    return Ok(Piece::Inline(value.into_vec()));
                };
                self.file.insert((file, Sent::piece(link, piece)?))
            }
        };
        let added = file.add(sent.id, &value);
        let is_full = file.end() >= FILE;
        if (is_full || added.is_err())
            && let Some((_, sent)) = self.file.take()
        {
            self.complete.push(sent);
        }
        Ok(added.unwrap_or_else(|_| {
            self.link = None;
            Piece::Inline(value.into_vec())
        }))
    }

    /// The next task's, if it gets a part of the items as a vector.
    pub(crate) fn part_of<A: Serialize>(
        &mut self,
        items: &[A],
        range: Range<usize>,
    ) -> Result<Piece, Error> {
        let part = items.get(range).unwrap_or_default();
        self.piece(encode(part)?)
    }
}

/// `items` in so many parts of almost equal size; fewer if there are fewer items.
pub(crate) fn parts(items: usize, parts: usize) -> Vec<Range<usize>> {
    let parts = parts.min(items);
    (0..parts)
        .map(|part| part * items / parts..(part + 1) * items / parts)
        .collect()
}

/// `items` in parts of so many; the last may be smaller.
pub(crate) fn chunks(items: usize, size: usize) -> Vec<Range<usize>> {
    let size = size.max(1);
    (0..items)
        .step_by(size)
        .map(|start| start..items.min(start.saturating_add(size)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_cover_all_items() {
        assert_eq!(parts(10, 4), [0..2, 2..5, 5..7, 7..10]);
        assert_eq!(parts(2, 4), [0..1, 1..2]);
        assert_eq!(parts(0, 4), []);
        assert_eq!(chunks(10, 4), [0..4, 4..8, 8..10]);
        assert_eq!(chunks(2, usize::MAX).first(), Some(&(0..2)));
        assert_eq!(chunks(2, 0), [0..1, 1..2]);
    }
}
