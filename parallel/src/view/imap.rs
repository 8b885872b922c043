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
    /// Tasks, each with the number of its first input.
    under_way: VecDeque<(usize, Result<Handle, Error>)>,
    ready: Option<(usize, Iter<R>)>,
    inputs: usize,
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
            inputs: 0,
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
            && let Some((inputs, tasks)) = (self.feed)()
        {
            let failed = tasks.is_err();
            self.under_way.push_back((self.inputs, tasks));
            self.inputs += inputs;
            if failed {
                // Nothing more can be submitted.
                self.feed = Box::new(|| None);
            }
        }
    }

    /// The task whose results come next.
    fn take(&mut self) -> Option<(usize, Result<Handle, Error>)> {
        if !self.unordered {
            return self.under_way.pop_front();
        }
        let done = |(_, tasks): &(usize, Result<Handle, Error>)| {
            tasks
                .as_ref()
                .map_or(true, |handle| handle.batch().is_done())
        };
        let first = self
            .under_way
            .iter()
            .find_map(|(_, tasks)| tasks.as_ref().ok())
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
            if let Some((before, results)) = &mut self.ready
                && let Some(result) = results.next()
            {
                return Some(result.map_err(|error| error.behind(*before)));
            }
            self.fill();
            let (before, tasks) = self.take()?;
            let next = AsyncResult::new("imap", tasks, Kind::Chunks, result::chunks);
            self.ready = Some((before, next.iter()));
        }
    }
}
