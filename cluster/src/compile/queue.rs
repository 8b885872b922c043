//! What there is to compile and who waits for it: equal requests in flight are one. No thread and no socket in it.

use std::collections::HashMap;

use serde::Serialize;

use super::{Ended, Request};

/// One thing to ask the compiler.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub(super) enum Job {
    /// [`super::Compiler::libraries`].
    Libraries,
    /// [`super::Compiler::compile`].
    Compile(Request),
    /// [`super::Compiler::after_early_end`].
    Aftermath(Ended),
}

/// One attempt at a job: what is cancelled may be asked for again before it has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct RunId(u64);

/// Jobs in flight, each with those that wait for it.
#[derive(Debug)]
pub(super) struct Queue<W> {
    jobs: HashMap<Job, (RunId, Vec<W>)>,
    runs: u64,
}

impl<W> Default for Queue<W> {
    fn default() -> Self {
        Self {
            jobs: HashMap::new(),
            runs: 0,
        }
    }
}

impl<W> Queue<W> {
    /// Somebody waits for a job. Says which run is to begin, if nobody waited before.
    pub(super) fn submit(&mut self, job: Job, who: W) -> Option<RunId> {
        if let Some((_, waiting)) = self.jobs.get_mut(&job) {
            waiting.push(who);
            return None;
        }
        self.runs += 1;
        let run = RunId(self.runs);
        self.jobs.insert(job, (run, vec![who]));
        Some(run)
    }

    /// A run of a job is done: who waited for it.
    pub(super) fn done(&mut self, job: &Job, run: RunId) -> Vec<W> {
        match self.jobs.get(job) {
            Some((present, _)) if *present == run => self
                .jobs
                .remove(job)
                .map(|(_, waiting)| waiting)
                .unwrap_or_default(),
            _ => Vec::new(),
        }
    }

    /// Removes the waiters for which `is_gone` holds. Returns the runs that nobody waits for.
    pub(super) fn withdraw(&mut self, is_gone: impl Fn(&W) -> bool) -> Vec<RunId> {
        let mut unwanted = Vec::new();
        self.jobs.retain(|_, (run, waiting)| {
            waiting.retain(|who| !is_gone(who));
            if waiting.is_empty() {
                unwanted.push(*run);
            }
            !waiting.is_empty()
        });
        unwanted
    }

    /// Everybody who waits.
    pub(super) fn waiting(&self) -> impl Iterator<Item = &W> {
        self.jobs.values().flat_map(|(_, waiting)| waiting)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Lineage;

    fn job(source: &str) -> Job {
        Job::Compile(Request {
            lineage: Lineage::root(),
            source: source.to_owned(),
        })
    }

    #[test]
    fn equal_requests_in_flight_are_one() {
        let mut queue = Queue::default();
        let one = queue.submit(job("1"), 'a').unwrap();
        assert_eq!(queue.submit(job("1"), 'b'), None);
        let two = queue.submit(job("2"), 'c').unwrap();
        assert_ne!(one, two);
        assert_eq!(queue.waiting().count(), 3);
        assert_eq!(queue.done(&job("1"), one), ['a', 'b']);
        assert_eq!(queue.done(&job("1"), one), []);
        assert!(queue.submit(job("1"), 'd').is_some(), "it was done");
    }

    #[test]
    fn a_run_is_unwanted_when_nobody_waits_for_it() {
        let mut queue = Queue::default();
        let first = queue.submit(job("1"), 'a').unwrap();
        queue.submit(job("1"), 'b');
        assert_eq!(queue.withdraw(|who| *who == 'a'), []);
        assert_eq!(queue.withdraw(|who| *who == 'b'), [first]);
        let second = queue.submit(job("1"), 'c').unwrap();
        assert_eq!(queue.done(&job("1"), first), [], "it was cancelled");
        assert_eq!(queue.done(&job("1"), second), ['c']);
    }
}
