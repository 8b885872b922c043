//! What can be asked of the scheduler.

use super::Scheduler;
use super::task::State;
use crate::MessageId;

impl<P: Clone> Scheduler<P> {
    /// How many tasks no engine has.
    pub fn unassigned_count(&self) -> usize {
        self.tasks.len() - self.running
    }

    /// The tasks that no engine has, in the order in which they came.
    pub fn unassigned(&self) -> Vec<&MessageId> {
        let tasks = self.tasks.iter();
        let waiting = tasks.filter(|(_, task)| !matches!(task.state, State::Running { .. }));
        let mut waiting: Vec<_> = waiting.map(|(number, task)| (*number, &task.id)).collect();
        waiting.sort_unstable();
        waiting.into_iter().map(|(_, id)| id).collect()
    }

    /// The tasks that an engine has, in the order in which they came.
    pub fn running(&self, engine: &[u8]) -> impl ExactSizeIterator<Item = &MessageId> {
        let key = self.engines.key(engine);
        let engine = key.and_then(|key| self.engines.get(key));
        let numbers = engine.map(|engine| &engine.running);
        let ids = numbers.into_iter().flatten();
        let ids = ids.filter_map(|number| self.tasks.get(number).map(|task| &task.id));
        ids.collect::<Vec<_>>().into_iter()
    }

    /// How many tasks an engine has.
    pub fn load(&self, engine: &[u8]) -> usize {
        let engine = self.engines.key(engine);
        engine
            .and_then(|key| self.engines.get(key))
            .map_or(0, |engine| engine.running.len())
    }

    /// Bytes of all tasks that have not ended.
    pub fn bytes(&self) -> u64 {
        self.queues.bytes
    }

    /// The most tasks that an engine is given at present; `usize::MAX` without a limit.
    pub fn depth(&self) -> usize {
        self.prefetch.depth()
    }
}
