//! Which engine runs which load-balanced task, and when. A synchronous core: no socket and no clock in it.
//!
//! A task is blocked (by its dependencies), ready (it waits for room) or running (an engine has it); then it ends, once. How tasks
//! wait is `queue`, how engines are chosen `engines`, how many tasks an engine holds `prefetch`, what restricts a task `limits`,
//! what it waits for `dependency`, what is remembered of those that ended `done`. Here are the events and what holds between them:
//!
//! - no engine has room while a task is ready that it may run (one that was seen to be at a long task has none);
//! - a step costs at most the logarithm of the number of tasks, plus what it changes: a task's own engines and dependents.
//!
//! Source: <https://ipyparallel.readthedocs.io/en/stable/tutorial/task.html>. It differs from ipyparallel's in this: a task that
//! failed on all engines where it may run is tried there again while it has retries; one that all engines refuse fails at once;
//! one whose engine died is tried elsewhere; one that an engine dropped, though nobody asked for that, is given out again.

mod dependency;
mod done;
mod engines;
mod limits;
mod prefetch;
mod queue;
mod status;
mod task;

#[cfg(test)]
mod properties;
#[cfg(test)]
mod sanity;
#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;

pub use dependency::Dependency;
pub use prefetch::HighWater;
pub use task::{Answer, Conditions, Decision, Submission, Verdict, WhyNot};

use crate::MessageId;
use crate::profile::Scheme;
use dependency::{Ended, Progress};
use done::Done;
use engines::{EngineKey, Engines};
use limits::{Chance, Limits};
use prefetch::Prefetch;
use queue::{Queues, Where};
use task::{State, Task, TaskNumber};

/// How many ended tasks can be named as dependencies.
pub const REMEMBERED: usize = 1 << 18;

/// How a scheduler works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// How engines are chosen.
    pub scheme: Scheme,
    /// How many tasks an engine holds.
    pub high_water: HighWater,
    /// Bytes of tasks that have not ended, for each client.
    pub limit: u64,
}

/// The engines, and the tasks that have not ended.
#[derive(Debug)]
pub struct Scheduler<P> {
    limit: u64,
    prefetch: Prefetch,
    engines: Engines,
    queues: Queues,
    tasks: HashMap<TaskNumber, Task<P>>,
    by_id: HashMap<MessageId, TaskNumber>,
    running: usize,
    /// Ready tasks that an engine which comes may run, but not all that are there.
    roaming: BTreeSet<TaskNumber>,
    timeouts: BTreeSet<(Duration, TaskNumber)>,
    done: Done,
    /// Tasks that have ended, and those whose dependencies this changes.
    ends: VecDeque<(TaskNumber, Ended, BTreeSet<TaskNumber>)>,
    next: u64,
}

impl<P: Clone> Scheduler<P> {
    /// A scheduler without engines. The random schemes take their chances from `generator`.
    pub fn new(config: Config, generator: fastrand::Rng) -> Self {
        let prefetch = Prefetch::new(config.high_water);
        Self {
            limit: config.limit,
            engines: Engines::new(config.scheme, prefetch.depth(), prefetch.long(), generator),
            prefetch,
            queues: Queues::default(),
            tasks: HashMap::new(),
            by_id: HashMap::new(),
            running: 0,
            roaming: BTreeSet::new(),
            timeouts: BTreeSet::new(),
            done: Done::new(REMEMBERED),
            ends: VecDeque::new(),
            next: 0,
        }
    }

    /// A task came in. Nothing happens if one of this id has not ended: says whether it was taken.
    pub fn submit(
        &mut self,
        now: Duration,
        submission: Submission<P>,
        out: &mut Vec<Decision<P>>,
    ) -> bool {
        let Submission {
            id,
            client,
            bytes,
            retries,
            conditions,
            payload,
        } = submission;
        if self.by_id.contains_key(&id) {
            return false;
        }
        let number = TaskNumber(self.next);
        self.next += 1;
        let held = self.queues.held(&client);
        let limits = match conditions.map(|it| self.limits(number, &id, *it)) {
            // One task alone may be as large as it likes: it is bounded by what fits into a message.
            _ if held > 0 && held.saturating_add(bytes) > self.limit => Err(WhyNot::QueueFull {
                held,
                bytes,
                limit: self.limit,
            }),
            Some(limits) => limits.map(Some),
            None => Ok(None),
        };
        let limits = match limits {
            Ok(limits) => limits,
            Err(why) => {
                let failed = Ended {
                    success: false,
                    engine: None,
                };
                self.done.add(&id, failed);
                out.push(Decision::Fail { id, payload, why });
                return true;
            }
        };
        for other in limits.iter().flat_map(|limits| limits.open()) {
            if let Some(other) = self.tasks.get_mut(&other) {
                other.dependents.insert(number);
            }
        }
        let task = Task {
            client: self.queues.enter(&client, bytes),
            id: id.clone(),
            bytes,
            retries,
            attempts: 0,
            payload,
            state: State::Blocked,
            aborted: false,
            limits,
            dependents: BTreeSet::new(),
        };
        self.by_id.insert(id, number);
        self.tasks.insert(number, task);
        self.settle(now, number, out);
        self.spread(now, out);
        true
    }

    /// An engine is there.
    pub fn join(&mut self, now: Duration, engine: Bytes, out: &mut Vec<Decision<P>>) {
        let Some(key) = self.engines.join(engine, now) else {
            return;
        };
        for number in std::mem::take(&mut self.roaming) {
            self.settle(now, number, out);
        }
        self.pull(now, key, out);
        self.spread(now, out);
    }

    /// An engine is gone, with the tasks it had: they are tried elsewhere as often as they may be.
    pub fn leave(&mut self, now: Duration, engine: &[u8], out: &mut Vec<Decision<P>>) {
        let Some(key) = self.engines.key(engine) else {
            return;
        };
        let waiting = self.queues.waiting_at(key);
        let Some(gone) = self.engines.leave(key) else {
            return;
        };
        let mut again = Vec::new();
        for number in gone.running {
            self.running -= 1;
            let Some(task) = self.tasks.get_mut(&number) else {
                continue;
            };
            task.state = State::Blocked;
            if task.aborted {
                self.fail(number, WhyNot::Aborted, out);
            } else if task.retries == 0 {
                self.fail(number, WhyNot::EngineDied(gone.identity.clone()), out);
            } else {
                task.retries -= 1;
                again.push(number);
            }
        }
        for number in again.into_iter().chain(waiting) {
            self.settle(now, number, out);
        }
        self.spread(now, out);
    }

    /// An engine answered. `took` is how long the task ran, where that is known.
    pub fn finish(
        &mut self,
        now: Duration,
        engine: &[u8],
        id: &str,
        answer: Answer,
        took: Option<Duration>,
        out: &mut Vec<Decision<P>>,
    ) -> Verdict {
        let number = self.by_id.get(id).copied();
        let task = number.and_then(|number| Some((number, self.tasks.get_mut(&number)?)));
        let (Some((number, task)), Some(key)) = (task, self.engines.key(engine)) else {
            return Verdict::Unknown;
        };
        let since = match task.state {
            State::Running { engine, since } if engine == key => since,
            _ => return Verdict::Unknown,
        };
        task.state = State::Blocked;
        self.running -= 1;
        let ran = matches!(answer, Answer::Succeeded | Answer::Failed);
        let began = self.engines.take(key, number, ran, now);
        let tried_again = match answer {
            Answer::Succeeded => false,
            _ if task.aborted => false,
            Answer::Failed if task.retries == 0 => false,
            Answer::Failed => {
                task.retries -= 1;
                let limits = task.limits.get_or_insert_default();
                limits.failed_on.insert(key);
                true
            }
            Answer::Unmet => {
                let limits = task.limits.get_or_insert_default();
                limits.refused_by.insert(key);
                true
            }
            Answer::Aborted => true,
        };
        if ran {
            // It may have waited there for the one before.
            let took = took.unwrap_or_else(|| now.saturating_sub(since.max(began)));
            if self.prefetch.observe(took) {
                for free in self.engines.set_depth(self.prefetch.depth(), now) {
                    self.pull(now, free, out);
                }
            }
        }
        if tried_again {
            self.settle(now, number, out);
        } else {
            let ended = Ended {
                success: answer == Answer::Succeeded,
                engine: Some(key),
            };
            self.end(number, ended);
        }
        self.pull(now, key, out);
        self.spread(now, out);
        match tried_again {
            true => Verdict::Again,
            false => Verdict::Deliver,
        }
    }

    /// Tasks are not to run. Those that an engine has are left to it, but not tried again. Says how many had not been given to an
    /// engine, and so have ended.
    pub fn abort<'a>(
        &mut self,
        now: Duration,
        ids: impl IntoIterator<Item = &'a str>,
        out: &mut Vec<Decision<P>>,
    ) -> usize {
        let ids = ids.into_iter();
        let numbers: Vec<_> = ids.filter_map(|id| self.by_id.get(id).copied()).collect();
        let mut aborted = 0;
        for number in numbers {
            let Some(task) = self.tasks.get_mut(&number) else {
                continue;
            };
            task.aborted = true;
            if !matches!(task.state, State::Running { .. }) {
                self.fail(number, WhyNot::Aborted, out);
                aborted += 1;
            }
        }
        self.spread(now, out);
        aborted
    }

    /// The engine that has a task.
    pub fn engine_of(&self, id: &str) -> Option<&Bytes> {
        match self.tasks.get(self.by_id.get(id)?)?.state {
            State::Running { engine, .. } => Some(&self.engines.get(engine)?.identity),
            State::Blocked | State::Ready(_) => None,
        }
    }

    /// As [`Self::abort`], of all tasks of a client that no engine has.
    pub fn abort_all_of(
        &mut self,
        now: Duration,
        client: &[u8],
        out: &mut Vec<Decision<P>>,
    ) -> usize {
        let waiting = self.queues.waiting_of(client);
        for number in &waiting {
            self.fail(*number, WhyNot::Aborted, out);
        }
        self.spread(now, out);
        waiting.len()
    }

    /// An engine is told to drop what waits there: what it drops is not given out again.
    pub fn abort_at(&mut self, engine: &[u8]) {
        let key = self.engines.key(engine);
        let engine = key.and_then(|key| self.engines.get(key));
        for number in engine.into_iter().flat_map(|engine| &engine.running) {
            if let Some(task) = self.tasks.get_mut(number) {
                task.aborted = true;
            }
        }
    }

    /// When [`Self::on_time`] is to be called.
    pub fn deadline(&self) -> Option<Duration> {
        self.timeouts.first().map(|(due, _)| *due)
    }

    /// Fails those that have waited too long.
    pub fn on_time(&mut self, now: Duration, out: &mut Vec<Decision<P>>) {
        while let Some((due, number)) = self.timeouts.first().copied()
            && due <= now
        {
            let limits = self.tasks.get(&number).and_then(|it| it.limits.as_ref());
            let timeout = limits.and_then(|limits| limits.timeout).unwrap_or_default();
            self.fail(number, WhyNot::Timeout(timeout), out);
        }
        self.spread(now, out);
    }

    fn limits(
        &self,
        number: TaskNumber,
        id: &MessageId,
        conditions: Conditions,
    ) -> Result<Box<Limits>, WhyNot> {
        debug_assert!(!self.tasks.contains_key(&number), "{number:?} is new");
        let progress = |dependency: Dependency| {
            let mut progress = Progress::new(&dependency);
            let ids: BTreeSet<&MessageId> = dependency.ids.iter().collect();
            for other in ids {
                match (self.by_id.get(other), self.done.get(other)) {
                    _ if other == id => return Err(WhyNot::UnknownDependency(other.clone())),
                    (Some(number), _) => drop(progress.open.insert(*number)),
                    (None, Some(ended)) => progress.on_end(ended),
                    (None, None) => return Err(WhyNot::UnknownDependency(other.clone())),
                }
            }
            Ok(progress)
        };
        let targets = conditions.targets;
        let there = targets
            .iter()
            .filter_map(|identity| self.engines.key(identity));
        Ok(Box::new(Limits {
            targets: (!targets.is_empty()).then(|| there.collect()),
            after: progress(conditions.after)?,
            follow: progress(conditions.follow)?,
            timeout: conditions.timeout,
            ..Limits::default()
        }))
    }

    /// Takes a task out of where it waits, if it does.
    fn unqueue(&mut self, number: TaskNumber) {
        let Some(task) = self.tasks.get_mut(&number) else {
            return;
        };
        match std::mem::replace(&mut task.state, State::Blocked) {
            State::Blocked => self.queues.unblock(task.client, number),
            State::Ready(places) => {
                self.queues.remove(task.client, number, &places);
                if task.limits.is_some() {
                    self.roaming.remove(&number);
                }
            }
            running @ State::Running { .. } => task.state = running,
        }
    }

    /// Gives a task that no engine has to one, or lets it wait, or fails it.
    fn settle(&mut self, now: Duration, number: TaskNumber, out: &mut Vec<Decision<P>>) {
        self.unqueue(number);
        let Some(task) = self.tasks.get_mut(&number) else {
            return;
        };
        let chance = match &mut task.limits {
            Some(limits) => limits.chance(&self.engines),
            None => Chance::Go(Where::Anywhere),
        };
        match chance {
            Chance::Never(why) => return self.fail(number, why, out),
            Chance::Wait => self.queues.block(task.client, number),
            Chance::Go(places) => {
                let engine = match &places {
                    Where::Anywhere => self.engines.choose(now),
                    Where::Among(some) => self.engines.choose_among(some, now),
                };
                if let Some(engine) = engine {
                    return self.run(now, number, engine, out);
                }
                self.queues.push(task.client, number, &places);
                if let (Some(limits), Where::Among(_)) = (&task.limits, &places)
                    && limits.may_roam()
                {
                    self.roaming.insert(number);
                }
                task.state = State::Ready(places);
            }
        }
        if let Some(limits) = &mut task.limits
            && let (Some(timeout), None) = (limits.timeout, limits.due)
        {
            let due = now.saturating_add(timeout);
            limits.due = Some(due);
            self.timeouts.insert((due, number));
        }
    }

    /// Gives an engine tasks until it is full or nobody waits for it.
    fn pull(&mut self, now: Duration, engine: EngineKey, out: &mut Vec<Decision<P>>) {
        while self.engines.has_room(engine)
            && let Some(number) = self.queues.next_for(engine)
        {
            self.unqueue(number);
            self.run(now, number, engine, out);
        }
    }

    /// Gives a task, which waits nowhere, to an engine.
    fn run(
        &mut self,
        now: Duration,
        number: TaskNumber,
        engine: EngineKey,
        out: &mut Vec<Decision<P>>,
    ) {
        self.forget_timeout(number);
        let (Some(task), Some(target)) = (self.tasks.get_mut(&number), self.engines.get(engine))
        else {
            return;
        };
        out.push(Decision::Run {
            engine: target.identity.clone(),
            id: task.id.clone(),
            attempt: task.attempts,
            payload: task.payload.clone(),
        });
        task.attempts = task.attempts.saturating_add(1);
        task.state = State::Running { engine, since: now };
        self.engines.give(engine, number, now);
        self.queues.serve(task.client);
        self.running += 1;
    }

    fn forget_timeout(&mut self, number: TaskNumber) {
        let limits = self
            .tasks
            .get_mut(&number)
            .and_then(|it| it.limits.as_mut());
        if let Some(due) = limits.and_then(|limits| limits.due.take()) {
            self.timeouts.remove(&(due, number));
        }
    }

    /// Ends a task that no engine has.
    fn fail(&mut self, number: TaskNumber, why: WhyNot, out: &mut Vec<Decision<P>>) {
        self.unqueue(number);
        self.forget_timeout(number);
        let failed = Ended {
            success: false,
            engine: None,
        };
        if let Some(task) = self.end(number, failed) {
            let Task { id, payload, .. } = task;
            out.push(Decision::Fail { id, payload, why });
        }
    }

    /// Forgets a task that waits nowhere, but for how it ended.
    fn end(&mut self, number: TaskNumber, ended: Ended) -> Option<Task<P>> {
        let mut task = self.tasks.remove(&number)?;
        self.by_id.remove(&task.id);
        self.done.add(&task.id, ended);
        self.queues.exit(task.client, task.bytes);
        for other in task.limits.iter().flat_map(|limits| limits.open()) {
            if let Some(other) = self.tasks.get_mut(&other) {
                other.dependents.remove(&number);
            }
        }
        let dependents = std::mem::take(&mut task.dependents);
        if !dependents.is_empty() {
            self.ends.push_back((number, ended, dependents));
        }
        Some(task)
    }

    /// Tells those who wait for tasks that have ended. That may end them, too.
    fn spread(&mut self, now: Duration, out: &mut Vec<Decision<P>>) {
        while let Some((number, ended, dependents)) = self.ends.pop_front() {
            for dependent in dependents {
                let Some(task) = self.tasks.get_mut(&dependent) else {
                    continue;
                };
                // Whoever runs needs nothing any more, but may have to wait again.
                let running = matches!(task.state, State::Running { .. });
                if let Some(limits) = &mut task.limits {
                    for progress in [&mut limits.after, &mut limits.follow] {
                        if progress.open.remove(&number) {
                            progress.on_end(ended);
                        }
                    }
                }
                if !running {
                    self.settle(now, dependent, out);
                }
            }
        }
    }
}
