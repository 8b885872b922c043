//! Results one by one, as they come.

use super::{AsyncResult, read};
use crate::error::Error;
use crate::portable::Portable;
use std::collections::VecDeque;

/// The results of a call, in the order of its inputs, each as soon as it is there. Each step waits as long as it has to.
///
/// Of a chunk of inputs the results come together.
#[derive(Debug)]
pub struct Iter<R> {
    /// Nothing when there is no more to come.
    result: Option<AsyncResult<Vec<R>>>,
    /// Tasks that were taken.
    taken: usize,
    /// As they end, and not in the order of the inputs.
    unordered: bool,
    ready: VecDeque<(usize, Result<R, Error>)>,
}

impl<R: Portable> Iter<R> {
    pub(crate) fn new(result: AsyncResult<Vec<R>>) -> Iter<R> {
        Iter {
            result: Some(result),
            taken: 0,
            unordered: false,
            ready: VecDeque::new(),
        }
    }

    /// The results in the order in which they come.
    #[must_use = "this makes another iterator of it"]
    pub fn unordered(mut self) -> Iter<R> {
        self.unordered = true;
        self
    }

    /// The next result with its input's number.
    fn numbered(&mut self) -> Option<(usize, Result<R, Error>)> {
        loop {
            if let Some(ready) = self.ready.pop_front() {
                return Some(ready);
            }
            let result = self.result.take()?;
            if result.kind.is_whole() {
                match result.get() {
                    Ok(values) => self.ready.extend(values.into_iter().map(Ok).enumerate()),
                    Err(error) => return Some((0, Err(error))),
                }
                continue;
            }
            let handle = match result.handle() {
                Ok(handle) => handle,
                Err(error) => return Some((0, Err(error))),
            };
            let batch = handle.batch();
            if self.taken >= batch.len() {
                return None;
            }
            let waited = handle.wait_until(|| {
                let index = if self.unordered {
                    batch.nth_ended(self.taken)?
                } else {
                    self.taken
                };
                Some((index, batch.get(index)?))
            });
            let (index, ended) = match waited {
                Ok(found) => found,
                Err(error) => return Some((0, Err(error))),
            };
            match read::part(handle, index, &ended, result.kind) {
                Ok(part) => read::weave(part, &mut |at, result| self.ready.push_back((at, result))),
                Err(error) => self
                    .ready
                    .push_back((batch.inputs(index).start, Err(error))),
            }
            self.taken += 1;
            self.result = Some(result);
        }
    }
}

impl<R: Portable> Iterator for Iter<R> {
    type Item = Result<R, Error>;

    fn next(&mut self) -> Option<Result<R, Error>> {
        self.numbered().map(|(_, result)| result)
    }
}

/// The results of a call in the order in which they come, each with its input's number.
#[derive(Debug)]
pub struct Completed<R>(pub(super) Iter<R>);

impl<R: Portable> Iterator for Completed<R> {
    type Item = (usize, Result<R, Error>);

    fn next(&mut self) -> Option<(usize, Result<R, Error>)> {
        self.0.numbered()
    }
}
