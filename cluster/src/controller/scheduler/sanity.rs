//! What holds between all events, looked at by the tests after each.

use std::collections::BTreeSet;

use super::*;

impl<P: Clone> Scheduler<P> {
    pub(super) fn sanity_check(&self) {
        self.engines.sanity_check();
        self.queues.sanity_check();
        assert!(self.ends.is_empty());
        assert_eq!(self.tasks.len(), self.by_id.len());
        assert_eq!(self.tasks.len(), self.queues.count());
        let mut running = 0;
        let mut timeouts = BTreeSet::new();
        for (number, task) in &self.tasks {
            assert_eq!(self.by_id.get(&task.id), Some(number));
            for dependent in &task.dependents {
                let limits = self.tasks[dependent].limits.as_ref().unwrap();
                assert!(limits.open().any(|open| open == *number));
            }
            let limits = task.limits.as_ref();
            for open in limits.iter().flat_map(|limits| limits.open()) {
                assert!(self.tasks[&open].dependents.contains(number));
            }
            if let Some(due) = limits.and_then(|limits| limits.due) {
                assert!(!matches!(task.state, State::Running { .. }));
                timeouts.insert((due, *number));
            }
            match &task.state {
                State::Blocked => {
                    let limits = limits.unwrap();
                    assert!(limits.open().next().is_some(), "blocked by nothing");
                }
                State::Ready(places) => {
                    let may_run = |key: &EngineKey| match places {
                        Where::Anywhere => true,
                        Where::Among(some) => some.contains(key),
                    };
                    let idle = |key: &EngineKey| self.engines.has_room(*key);
                    let mut keys = self.engines.keys();
                    assert!(!keys.any(|key| may_run(&key) && idle(&key)), "{number:?}");
                    if let Where::Among(some) = places {
                        assert!(!some.is_empty());
                        assert!(some.iter().all(|key| self.engines.get(*key).is_some()));
                        let roams = limits.unwrap().may_roam();
                        assert_eq!(roams, self.roaming.contains(number));
                    }
                }
                State::Running { engine, .. } => {
                    running += 1;
                    assert!(self.engines.get(*engine).unwrap().running.contains(number));
                }
            }
        }
        assert_eq!(timeouts, self.timeouts);
        assert_eq!(running, self.running);
        let loads = self.engines.keys().filter_map(|key| self.engines.get(key));
        assert_eq!(loads.map(|it| it.running.len()).sum::<usize>(), running);
        let bytes: u64 = self.tasks.values().map(|task| task.bytes).sum();
        assert_eq!(bytes, self.bytes());
    }
}
