//! From the bytes that came to values and errors.

use super::Handle;
use crate::batch::Ended;
use crate::codec;
use crate::error::{Error, Location, TaskError};
use crate::function::{Code, Mark};
use crate::link::{Link, Session};
use crate::portable::Portable;
use crate::tally::{self, Tally};
use crate::wire::{Answer, Failure, FailureKind, Place, Question};
use std::collections::HashMap;
use std::mem::MaybeUninit;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

/// How the tasks' bytes make up the result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Each task gives one value.
    Each,
    /// Each task gives a `Chunk`, of as many values as it had inputs.
    Chunks,
    /// Each task gives a vector, and the result is all of them.
    Joined,
    /// The only task gives the result.
    One,
    /// Each task gives a `Chunk` of at most one value, and the result is made of these.
    Reduced,
}

impl Kind {
    /// Whether the result, should it be a vector, is one that the tasks' values have to be made into first.
    pub(super) fn is_whole(self) -> bool {
        matches!(self, Kind::One | Kind::Reduced)
    }

    /// Whether each task gives a `Chunk`.
    fn is_chunked(self) -> bool {
        matches!(self, Kind::Chunks | Kind::Reduced)
    }
}

/// What one task gave, its values still encoded.
#[derive(Debug)]
struct Raw<'a> {
    /// The number of its first input; without inputs, of the task.
    start: usize,
    /// A value ([`Kind::Each`]) or a vector of them; nothing if the task failed.
    values: Option<&'a [u8]>,
    /// By input, in ascending order. Without inputs, by task.
    failed: Vec<(usize, TaskError)>,
}

/// What one task gave.
#[derive(Debug)]
pub(super) struct Part<R> {
    start: usize,
    values: Vec<R>,
    failed: Vec<(usize, TaskError)>,
}

/// So many places are looked up for one result; an error shows fewer.
const PLACES: usize = 32;

/// Asks what is at a panic's place, each only once.
struct Places<'a> {
    link: &'a Link,
    known: HashMap<(String, u32), Location>,
}

impl<'a> Places<'a> {
    fn new(link: &'a Link) -> Places<'a> {
        Places {
            link,
            known: HashMap::new(),
        }
    }

    fn find(&mut self, mark: &Mark) -> Option<Location> {
        if mark.file.is_empty() {
            return None;
        }
        let key = (mark.file.clone(), mark.line);
        if let Some(location) = self.known.get(&key) {
            return Some(location.clone());
        }
        let question = || Question::Locate {
            file: mark.file.clone(),
            line: mark.line,
        };
        let place = match (self.known.len() < PLACES).then(|| self.link.ask(question())) {
            Some(Ok(Answer::Place(Some(place)))) => place,
            _ => Place {
                file: mark.file.clone(),
                line: mark.line,
                text: None,
            },
        };
        let location = Location::from(place);
        self.known.insert(key, location.clone());
        Some(location)
    }
}

impl From<Place> for Location {
    fn from(place: Place) -> Location {
        Location {
            file: place.file,
            line: place.line,
            text: place.text,
        }
    }
}

fn error_of(failure: &Failure, index: Option<usize>, engine: Option<u32>) -> TaskError {
    TaskError {
        kind: failure.kind,
        index,
        part: None,
        engine,
        ename: failure.ename.clone(),
        evalue: failure.evalue.clone(),
        traceback: failure.traceback.clone(),
        location: failure.place.clone().map(Location::from),
    }
}

fn unreadable(source: codec::CodecError) -> Error {
    Error::Codec {
        action: "read a result",
        source,
    }
}

/// What a task that ended gave. The functions without type parameters are most of this file, since the others are compiled in
/// each cell that asks for a result.
fn raw<'a>(
    handle: &Handle,
    index: usize,
    ended: &'a Ended,
    kind: Kind,
    places: &mut Places<'_>,
) -> Result<Raw<'a>, Error> {
    let inputs = handle.batch.inputs(index);
    let (start, failed) = match (&ended.outcome, kind.is_chunked()) {
        (Ok(bytes), true) => {
            let (marks, values) = codec::decode_front::<Vec<Mark>>(bytes).map_err(unreadable)?;
            let failed = marks
                .into_iter()
                .map(|mark| {
                    let input = inputs.start.saturating_add(mark.index as usize);
                    let location = places.find(&mark);
                    let error = TaskError {
                        kind: FailureKind::Panic,
                        index: Some(input),
                        part: None,
                        engine: ended.engine,
                        ename: "panic".to_owned(),
                        evalue: mark.message,
                        traceback: Vec::new(),
                        location,
                    };
                    (input, error)
                })
                .collect();
            return Ok(Raw {
                start: inputs.start,
                values: Some(values),
                failed,
            });
        }
        (Ok(bytes), false) => {
            return Ok(Raw {
                start: index,
                values: Some(bytes),
                failed: Vec::new(),
            });
        }
        (Err(failure), true) => (
            inputs.start,
            inputs
                .map(|input| (input, error_of(failure, Some(input), ended.engine)))
                .collect(),
        ),
        (Err(failure), false) => (index, vec![(index, error_of(failure, None, ended.engine))]),
    };
    Ok(Raw {
        start,
        values: None,
        failed,
    })
}

/// What a task that ended gave.
pub(super) fn part<R: Portable>(
    handle: &Handle,
    index: usize,
    ended: &Ended,
    kind: Kind,
) -> Result<Part<R>, Error> {
    let raw = raw(handle, index, ended, kind, &mut Places::new(&handle.link))?;
    let values = match (raw.values, kind) {
        (None, _) => Vec::new(),
        (Some(bytes), Kind::Each) => vec![codec::decode(bytes).map_err(unreadable)?],
        (Some(bytes), _) => codec::decode(bytes).map_err(unreadable)?,
    };
    Ok(Part {
        start: raw.start,
        values,
        failed: raw.failed,
    })
}

/// What failed, for a display: of many failures some, and of a task that failed as a whole one.
pub(super) fn some_failures(handle: &Handle, kind: Kind) -> Vec<TaskError> {
    let mut places = Places::new(&handle.link);
    let mut errors = Vec::new();
    for index in 0..handle.batch.len() {
        if errors.len() >= SOME {
            break;
        }
        let Some(ended) = handle.batch.get(index) else {
            continue;
        };
        match &ended.outcome {
            Err(failure) => {
                let input = kind.is_chunked().then(|| handle.batch.inputs(index).start);
                errors.push(error_of(failure, input, ended.engine));
            }
            Ok(_) => {
                let raw = raw(handle, index, &ended, kind, &mut places);
                let failed = raw.into_iter().flat_map(|raw| raw.failed);
                errors.extend(failed.map(|(_, error)| error));
            }
        }
    }
    errors
}

/// How many inputs (or tasks) of a call that ended failed.
pub(super) fn failures(handle: &Handle, kind: Kind) -> usize {
    (0..handle.batch.len())
        .map(|index| task_failures(handle, kind, index))
        .sum()
}

/// How many inputs of a task failed (1 if it is counted by tasks); none before it has ended.
pub(super) fn task_failures(handle: &Handle, kind: Kind, index: usize) -> usize {
    let Some(ended) = handle.batch.get(index) else {
        return 0;
    };
    match (&ended.outcome, kind.is_chunked()) {
        (Err(_), true) => handle.batch.inputs(index).len(),
        (Err(_), false) => 1,
        (Ok(bytes), true) => {
            codec::decode_front::<Vec<Mark>>(bytes).map_or(1, |(failed, _)| failed.len())
        }
        (Ok(_), false) => 0,
    }
}

/// One error for all that failed; a lost connection is told as such and not a hundred times.
fn failed(handle: &Handle, failed: Vec<TaskError>, kind: Kind) -> Error {
    let total = match kind.is_chunked() {
        true => handle.batch.items(),
        false => handle.batch.len(),
    };
    // What the others gave to a `map_reduce` is nowhere to be had.
    let kept = !kind.is_whole() && failed.len() < total;
    lost(handle, &failed).unwrap_or_else(|| match kept {
        true => Error::of_tasks(failed, total),
        false => Error::of_parts(failed, total),
    })
}

/// The end of the connection, if that is why all of these failed.
fn lost(handle: &Handle, failed: &[TaskError]) -> Option<Error> {
    if failed.iter().any(|task| task.kind != FailureKind::Lost) {
        return None;
    }
    let reason = handle
        .link
        .with(|session: &mut Session| session.lost.clone());
    Some(Error::Lost {
        reason: reason.ok().flatten()?,
    })
}

/// Failures that a display looks at.
const SOME: usize = 1000;

/// Below so many bytes a second thread costs more than it saves.
const LARGE: usize = 64 << 10;

/// What a task that ended gave, by its number.
type RawOf<'f> = &'f mut dyn for<'a> FnMut(usize, &'a Ended) -> Result<Raw<'a>, Error>;

/// Decodes values, given by the numbers of their tasks.
type Decode<'f> = &'f mut dyn FnMut(&[(usize, &[u8])]) -> Result<(), codec::CodecError>;

/// Decodes what the tasks gave, each when it has come: whoever waits for the others has nothing better to do. Gives the errors of those that
/// failed, in their order.
fn as_they_come(
    handle: &Handle,
    raw_of: RawOf<'_>,
    decode: Decode<'_>,
) -> Result<Vec<TaskError>, Error> {
    let mut errors = Vec::new();
    let mut taken = 0;
    loop {
        let ended = handle.ended_beyond(taken)?;
        if ended.is_empty() {
            return Ok(in_order(errors));
        }
        taken += ended.len();
        let mut pieces = Vec::with_capacity(ended.len());
        for (index, ended) in &ended {
            let raw = raw_of(*index, ended)?;
            errors.extend(raw.failed);
            pieces.extend(raw.values.map(|bytes| (*index, bytes)));
        }
        decode(&pieces).map_err(unreadable)?;
    }
}

/// The values of all tasks that didn't fail, and the errors of the others, in their order.
fn decoded<T: Portable>(
    handle: &Handle,
    raw_of: RawOf<'_>,
) -> Result<(Vec<T>, Vec<TaskError>), Error> {
    let mut values: Vec<Option<T>> = (0..handle.batch.len()).map(|_| None).collect();
    let errors = as_they_come(handle, raw_of, &mut |pieces| {
        decode_all(pieces, &mut |index, value| {
            if let Some(slot) = values.get_mut(index) {
                *slot = Some(value);
            }
        })
    })?;
    Ok((values.into_iter().flatten().collect(), errors))
}

/// Errors by their inputs or tasks, which ended in any order.
fn in_order(mut errors: Vec<(usize, TaskError)>) -> Vec<TaskError> {
    errors.sort_by_key(|(at, _)| *at);
    errors.into_iter().map(|(_, error)| error).collect()
}

/// Decodes what has come. Large values are decoded on all cores: the engines that made them are done.
fn decode_all<T: Portable>(
    pieces: &[(usize, &[u8])],
    give: &mut dyn FnMut(usize, T),
) -> Result<(), codec::CodecError> {
    if pieces.len() < 2 || pieces.iter().map(|(_, piece)| piece.len()).sum::<usize>() < LARGE {
        for (index, piece) in pieces {
            give(*index, codec::decode(piece)?);
        }
        return Ok(());
    }
    let slots: Vec<Mutex<Option<Result<T, codec::CodecError>>>> =
        pieces.iter().map(|_| Mutex::new(None)).collect();
    spread(pieces.len(), &|at| {
        if let (Some((_, piece)), Some(slot)) = (pieces.get(at), slots.get(at)) {
            let value = codec::decode(piece);
            *slot.lock().unwrap_or_else(PoisonError::into_inner) = Some(value);
        }
    });
    for ((index, _), slot) in pieces.iter().zip(slots) {
        let slot = slot.into_inner().unwrap_or_else(PoisonError::into_inner);
        if let Some(value) = slot {
            give(*index, value?);
        }
    }
    Ok(())
}

/// Does a job for each number below `count`, on as many threads as there are cores.
fn spread(count: usize, job: &(dyn Fn(usize) + Sync)) {
    static CORES: OnceLock<usize> = OnceLock::new();
    let cores = *CORES.get_or_init(|| std::thread::available_parallelism().map_or(1, usize::from));
    let next = AtomicUsize::new(0);
    let work = || {
        loop {
            match next.fetch_add(1, Ordering::Relaxed) {
                index if index < count => job(index),
                _ => return,
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..cores.min(count) {
            // Without another thread this one does it all.
            if std::thread::Builder::new()
                .spawn_scoped(scope, work)
                .is_err()
            {
                break;
            }
        }
        work();
    });
}

/// The only task's value.
pub(crate) fn one<R: Portable>(handle: &Handle) -> Result<R, Error> {
    each(handle)?.pop().ok_or(Error::Empty)
}

/// The values of all tasks, or the error that it all is if one of them failed.
fn all<T: Portable>(handle: &Handle, kind: Kind) -> Result<Vec<T>, Error> {
    let mut places = Places::new(&handle.link);
    let (values, errors) = decoded(handle, &mut |index, ended| {
        raw(handle, index, ended, kind, &mut places)
    })?;
    match errors.is_empty() {
        true => Ok(values),
        false => Err(failed(handle, errors, kind)),
    }
}

/// Each task's value.
pub(crate) fn each<R: Portable>(handle: &Handle) -> Result<Vec<R>, Error> {
    all(handle, Kind::Each)
}

/// Each part's value; a part is named by its inputs, if `named`.
pub(crate) fn parts<R: Portable>(handle: &Handle, named: bool) -> Result<Vec<R>, Error> {
    let batch = handle.batch();
    let (values, errors) = decoded(handle, &mut |index, ended| {
        let error = |failure| TaskError {
            part: named.then(|| batch.inputs(index)),
            ..error_of(failure, named.then_some(index), ended.engine)
        };
        let failed = ended.outcome.as_ref().err();
        Ok(Raw {
            start: index,
            values: ended.outcome.as_deref().ok(),
            failed: failed
                .map(|failure| (index, error(failure)))
                .into_iter()
                .collect(),
        })
    })?;
    if errors.is_empty() {
        return Ok(values);
    }
    Err(lost(handle, &errors).unwrap_or_else(|| Error::of_parts(errors, batch.len())))
}

fn vectors<R: Portable>(handle: &Handle, kind: Kind) -> Result<Vec<R>, Error> {
    let mut parts = all::<Vec<R>>(handle, kind)?.into_iter();
    let mut values = parts.next().unwrap_or_default();
    values.reserve_exact(parts.as_slice().iter().map(Vec::len).sum());
    parts.for_each(|mut part| values.append(&mut part));
    Ok(values)
}

/// The values of all chunks.
pub(crate) fn chunks<R: Portable>(handle: &Handle) -> Result<Vec<R>, Error> {
    if !codec::is_number::<R>() {
        return vectors(handle, Kind::Chunks);
    }
    let mut values = codec::room_for::<R>(handle.batch.items());
    let inputs = values.capacity().min(handle.batch.items());
    let room = values.as_mut_ptr().cast::<MaybeUninit<u8>>();
    // SAFETY: the vector's own memory, which nothing else uses meanwhile; what may be uninitialised has no rules but its length.
    let room = unsafe { std::slice::from_raw_parts_mut(room, inputs * size_of::<R>()) };
    numbers(handle, size_of::<R>(), room)?;
    // SAFETY: all of it was written, and all bytes are numbers.
    unsafe { values.set_len(inputs) };
    Ok(values)
}

/// Puts the numbers that all chunks hold, of `size` bytes each, where they belong, each chunk's when it has come. Without an error all of the room is
/// written.
fn numbers(handle: &Handle, size: usize, room: &mut [MaybeUninit<u8>]) -> Result<(), Error> {
    let mut places = Places::new(&handle.link);
    let mut written = 0;
    let errors = as_they_come(
        handle,
        &mut |index, ended| raw(handle, index, ended, Kind::Chunks, &mut places),
        &mut |pieces| {
            for (index, bytes) in pieces {
                let numbers = codec::memory(bytes, size)?;
                let Range { start, end } = handle.batch.inputs(*index);
                // A chunk in which some failed is shorter, and no part of the result.
                if let Some(room) = room.get_mut(start * size..end * size)
                    && room.len() == numbers.len()
                {
                    room.write_copy_of_slice(numbers);
                    written += numbers.len();
                }
            }
            Ok(())
        },
    )?;
    match (errors.is_empty(), written == room.len()) {
        (true, true) => Ok(()),
        (true, false) => Err(unreadable(codec::CodecError::Invalid {
            kind: "number of results",
        })),
        (false, _) => Err(failed(handle, errors, Kind::Chunks)),
    }
}

/// The values of all tasks' vectors.
pub(crate) fn joined<R: Portable>(handle: &Handle) -> Result<Vec<R>, Error> {
    vectors(handle, Kind::Joined)
}

/// For tasks whose value is that they went well.
pub(crate) fn nothing(handle: &Handle) -> Result<(), Error> {
    handle.wait(None)?;
    let batch = handle.batch();
    let errors: Vec<TaskError> = (0..batch.len())
        .filter_map(|index| batch.get(index))
        .filter_map(|ended| Some(error_of(ended.outcome.as_ref().err()?, None, ended.engine)))
        .collect();
    if errors.is_empty() {
        Ok(())
    } else {
        Err(lost(handle, &errors).unwrap_or_else(|| Error::of_parts(errors, batch.len())))
    }
}

/// The chunks' values made into one.
pub(crate) fn reduced<M: Fn(R, R) -> R, R: Portable>(handle: &Handle) -> Result<R, Error> {
    let values: Vec<R> = vectors(handle, Kind::Reduced)?;
    // SAFETY: the call that this is the result of was given an `M`.
    let merge = unsafe { Code::<M>::get() };
    values.into_iter().reduce(merge).ok_or(Error::Empty)
}

/// The sum of the tasks' maps, in one map.
pub(super) fn counts<C: Tally>(handle: &Handle, kind: Kind) -> Result<C, Error> {
    let mut places = Places::new(&handle.link);
    let mut all = C::default();
    let errors = as_they_come(
        handle,
        &mut |index, ended| raw(handle, index, ended, kind, &mut places),
        &mut |pieces| {
            pieces
                .iter()
                .try_for_each(|(_, bytes)| tally::add(&mut all, bytes, kind != Kind::Each))
        },
    )?;
    match errors.is_empty() {
        true => Ok(all),
        false => Err(failed(handle, errors, kind)),
    }
}

/// Each input's result.
pub(super) fn results<R: Portable>(
    handle: &Handle,
    kind: Kind,
) -> Result<Vec<Result<R, Error>>, Error> {
    let mut all = Vec::with_capacity(handle.batch.items());
    for index in 0..handle.batch.len() {
        if let Some(ended) = handle.batch.get(index) {
            let part = part(handle, index, &ended, kind)?;
            weave(part, &mut |_, result| all.push(result));
        }
    }
    Ok(all)
}

/// A part's values and failures in the order of its inputs, each with its number.
pub(super) fn weave<R>(part: Part<R>, give: &mut dyn FnMut(usize, Result<R, Error>)) {
    let mut values = part.values.into_iter();
    let mut at = part.start;
    for (input, error) in part.failed {
        for value in values.by_ref().take(input.saturating_sub(at)) {
            give(at, Ok(value));
            at += 1;
        }
        give(input, Err(Error::of_tasks(vec![error], 1)));
        at = input + 1;
    }
    for value in values {
        give(at, Ok(value));
        at += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_and_failures_are_woven() {
        let error = |index| TaskError {
            kind: FailureKind::Panic,
            index: Some(index),
            part: None,
            engine: None,
            ename: String::new(),
            evalue: index.to_string(),
            traceback: Vec::new(),
            location: None,
        };
        let part = Part {
            start: 10,
            values: vec!['a', 'b', 'c'],
            failed: vec![(10, error(10)), (12, error(12)), (13, error(13))],
        };
        let mut all = Vec::new();
        weave(part, &mut |at, result| all.push((at, result.ok())));
        assert_eq!(
            all,
            [
                (10, None),
                (11, Some('a')),
                (12, None),
                (13, None),
                (14, Some('b')),
                (15, Some('c')),
            ]
        );
    }
}
