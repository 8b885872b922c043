//! What there is to compile and who waits for it: equal requests in flight are one. No thread and no socket in it.

use std::collections::HashMap;

use serde::Serialize;

use super::{Ended, Request};

/// One thing to ask the compiler.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub enum Job {
    /// [`super::Compiler::libraries`].
    Libraries,
    /// [`super::Compiler::compile`].
    Compile(Request),
    /// [`super::Compiler::after_early_end`].
    Aftermath(Ended),
}

/// Jobs in flight, each with those that wait for it.
#[derive(Debug)]
pub struct Queue<W>(HashMap<Job, Vec<W>>);

impl<W> Default for Queue<W> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<W> Queue<W> {
    /// Somebody waits for a job. Says whether it is to be done, because nobody waited before.
    pub fn submit(&mut self, job: Job, who: W) -> bool {
        let waiting = self.0.entry(job).or_default();
        waiting.push(who);
        waiting.len() == 1
    }

    /// A job is done: who waited for it.
    pub fn done(&mut self, job: &Job) -> Vec<W> {
        self.0.remove(job).unwrap_or_default()
    }

    /// Everybody who waits.
    pub fn waiting(&self) -> impl Iterator<Item = &W> {
        self.0.values().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Lineage;

    #[test]
    fn equal_requests_in_flight_are_one() {
        let job = |source: &str| {
            Job::Compile(Request {
                lineage: Lineage::root(),
                source: source.to_owned(),
            })
        };
        let mut queue = Queue::default();
        assert!(queue.submit(job("1"), 'a'));
        assert!(!queue.submit(job("1"), 'b'));
        assert!(queue.submit(job("2"), 'c'));
        assert_eq!(queue.waiting().count(), 3);
        assert_eq!(queue.done(&job("1")), ['a', 'b']);
        assert_eq!(queue.done(&job("1")), []);
        assert!(queue.submit(job("1"), 'd'), "it was done");
    }
}
