//! A map whose inputs are taken as its results are.

use crate::error::Error;
use crate::portable::Portable;
use crate::result::{self, AsyncResult, Handle, Iter, Kind};
use std::collections::VecDeque;
use std::fmt;

/// Takes the next inputs and submits them: how many they are, and their task.
type Feed<'a> = dyn FnMut() -> Option<(usize, Result<Handle, Error>)> + 'a;

/// The results of [`LoadBalancedView::imap`](super::LoadBalancedView::imap). Each step waits as long as it has to, and keeps so many tasks on
/// their way that the engines don't wait.
pub struct Imap<'a, R> {
    feed: Box<Feed<'a>>,
    most: usize,
    unordered: bool,
    under_way: VecDeque<Result<Handle, Error>>,
    ready: Option<Iter<R>>,
}

impl<R> fmt::Debug for Imap<'_, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Imap({} tasks on their way)", self.under_way.len())
    }
}

impl<'a, R: Portable> Imap<'a, R> {
    pub(super) fn new(
        most: usize,
        feed: impl FnMut() -> Option<(usize, Result<Handle, Error>)> + 'a,
    ) -> Imap<'a, R> {
        Imap {
            feed: Box::new(feed),
            most: most.max(4),
            unordered: false,
            under_way: VecDeque::new(),
            ready: None,
        }
    }

    /// The results in the order in which they come.
    #[must_use = "this makes another iterator of it"]
    pub fn unordered(mut self) -> Imap<'a, R> {
        self.unordered = true;
        self
    }

    /// At most so many tasks on their way at a time.
    #[must_use = "this makes another iterator of it"]
    pub fn max_outstanding(mut self, tasks: usize) -> Imap<'a, R> {
        self.most = tasks.max(1);
        self
    }

    fn fill(&mut self) {
        while self.under_way.len() < self.most
            && let Some((_, tasks)) = (self.feed)()
        {
            let failed = tasks.is_err();
            self.under_way.push_back(tasks);
            if failed {
                // Nothing more can be submitted.
                self.feed = Box::new(|| None);
            }
        }
    }

    /// The task whose results come next.
    fn take(&mut self) -> Option<Result<Handle, Error>> {
        if !self.unordered {
            return self.under_way.pop_front();
        }
        let done = |tasks: &Result<Handle, Error>| {
            tasks
                .as_ref()
                .map_or(true, |handle| handle.batch().is_done())
        };
        let first = self
            .under_way
            .iter()
            .find_map(|tasks| tasks.as_ref().ok())
            .cloned();
        let at = match first {
            // One connection tells of all.
            Some(handle) => handle
                .wait_until(|| self.under_way.iter().position(done))
                .unwrap_or(0),
            None => 0,
        };
        self.under_way.remove(at)
    }
}

impl<R: Portable> Iterator for Imap<'_, R> {
    type Item = Result<R, Error>;

    fn next(&mut self) -> Option<Result<R, Error>> {
        loop {
            if let Some(result) = self.ready.as_mut().and_then(Iterator::next) {
                return Some(result);
            }
            self.fill();
            let next = AsyncResult::new("imap", self.take()?, Kind::Chunks, result::chunks);
            self.ready = Some(next.iter());
        }
    }
}
