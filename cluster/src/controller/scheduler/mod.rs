//! Which engine runs which load-balanced task. Plain: the engine with the fewest tasks, and no more than so many at a time.
//!
//! No socket and no clock in it. Dependencies between tasks (`after`, `follow`) are not known here.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use protocol::Header;

use crate::MessageId;

/// A task that was submitted.
#[derive(Clone, Debug)]
pub struct Task {
    /// Its request's id.
    pub id: MessageId,
    /// Who asked for it: the identity that a reply goes to.
    pub client: Bytes,
    /// Its request's header, for a reply that no engine makes.
    pub header: Header,
    /// The request as it came, from the delimiter on.
    pub frames: Vec<Bytes>,
    /// The uuids of the engines that may run it; all if there are none.
    pub targets: Vec<String>,
    /// How often it may fail and be tried elsewhere.
    pub retries: u32,
    /// Where it failed.
    pub tried: Vec<String>,
}

impl Task {
    fn may_run_on(&self, uuid: &str) -> bool {
        (self.targets.is_empty() || self.targets.iter().any(|target| target == uuid))
            && !self.tried.iter().any(|tried| tried == uuid)
    }
}

/// What is to be done.
#[derive(Debug)]
pub enum Decision {
    /// Send it to this engine.
    Run {
        /// The engine's uuid.
        engine: String,
        /// Which task.
        id: MessageId,
        /// Client, delimiter and the rest.
        frames: Vec<Bytes>,
    },
    /// Tell its client that it will not run.
    Fail {
        /// The task.
        task: Box<Task>,
        /// Why.
        why: WhyNot,
    },
}

/// Why a task does not run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WhyNot {
    /// The engine that ran it died.
    EngineDied(String),
    /// None of its targets is there, or it failed on all of them.
    NoTarget,
}

#[derive(Debug, Default)]
struct Engine {
    running: BTreeMap<MessageId, Task>,
    /// When it was given its last task, in tasks.
    used: u64,
}

/// The engines and the tasks that wait for them.
#[derive(Debug)]
pub struct Scheduler {
    in_flight: usize,
    engines: BTreeMap<String, Engine>,
    queue: VecDeque<Task>,
    given: u64,
}

impl Scheduler {
    /// An engine holds at most `in_flight` tasks.
    pub fn new(in_flight: usize) -> Self {
        Self {
            in_flight: in_flight.max(1),
            engines: BTreeMap::new(),
            queue: VecDeque::new(),
            given: 0,
        }
    }

    /// A task came in.
    pub fn submit(&mut self, task: Task) -> Vec<Decision> {
        if self.queue.is_empty() || !task.targets.is_empty() {
            return match self.place(task) {
                Placed::Now(decision) => vec![decision],
                Placed::Later(task) => {
                    self.queue.push_back(*task);
                    Vec::new()
                }
            };
        }
        self.queue.push_back(task);
        Vec::new()
    }

    /// An engine is there.
    pub fn join(&mut self, engine: &str) -> Vec<Decision> {
        self.engines.entry(engine.to_owned()).or_default();
        self.place_waiting()
    }

    /// An engine is gone, with the tasks it had: they are tried elsewhere as often as they may be.
    pub fn leave(&mut self, engine: &str) -> Vec<Decision> {
        let Some(gone) = self.engines.remove(engine) else {
            return Vec::new();
        };
        let mut decisions = Vec::new();
        for mut task in gone.running.into_values().rev() {
            if task.retries == 0 {
                decisions.push(Decision::Fail {
                    task: Box::new(task),
                    why: WhyNot::EngineDied(engine.to_owned()),
                });
            } else {
                task.retries -= 1;
                self.queue.push_front(task);
            }
        }
        for task in std::mem::take(&mut self.queue) {
            if self.is_possible(&task) {
                self.queue.push_back(task);
            } else {
                decisions.push(Decision::Fail {
                    task: Box::new(task),
                    why: WhyNot::NoTarget,
                });
            }
        }
        decisions.extend(self.place_waiting());
        decisions
    }

    /// Whether some engine that is there may run it, or one that comes.
    fn is_possible(&self, task: &Task) -> bool {
        let restricted = !task.targets.is_empty() || !task.tried.is_empty();
        !restricted || self.engines.keys().any(|uuid| task.may_run_on(uuid))
    }

    /// An engine answered. Says whether the answer is for the client; otherwise the task is tried again.
    pub fn finish(&mut self, engine: &str, id: &MessageId, success: bool) -> (bool, Vec<Decision>) {
        let ended = self
            .engines
            .get_mut(engine)
            .and_then(|engine| engine.running.remove(id));
        let Some(mut task) = ended else {
            return (false, Vec::new());
        };
        let again = !success && task.retries > 0;
        if again {
            task.retries -= 1;
            task.tried.push(engine.to_owned());
            self.queue.push_front(task);
        }
        (!again, self.place_waiting())
    }

    /// The tasks that no engine has yet.
    pub fn unassigned(&self) -> impl Iterator<Item = &MessageId> {
        self.queue.iter().map(|task| &task.id)
    }

    /// The tasks that an engine has.
    pub fn running(&self, engine: &str) -> impl Iterator<Item = &MessageId> {
        self.engines
            .get(engine)
            .into_iter()
            .flat_map(|engine| engine.running.keys())
    }

    fn place_waiting(&mut self) -> Vec<Decision> {
        let mut decisions = Vec::new();
        let mut waiting = VecDeque::new();
        while let Some(task) = self.queue.pop_front() {
            // Whoever may run anywhere waits only for room, and so does everyone behind.
            if !self.has_room() {
                self.queue.push_front(task);
                break;
            }
            match self.place(task) {
                Placed::Now(decision) => decisions.push(decision),
                Placed::Later(task) => waiting.push_back(*task),
            }
        }
        waiting.append(&mut self.queue);
        self.queue = waiting;
        decisions
    }

    fn has_room(&self) -> bool {
        let mut engines = self.engines.values();
        // Without engines, targets that are gone are still to be found out.
        self.engines.is_empty() || engines.any(|engine| engine.running.len() < self.in_flight)
    }

    fn place(&mut self, task: Task) -> Placed {
        let best = self
            .engines
            .iter()
            .filter(|(uuid, engine)| engine.running.len() < self.in_flight && task.may_run_on(uuid))
            .min_by_key(|(_, engine)| (engine.running.len(), engine.used))
            .map(|(uuid, _)| uuid.clone());
        if let Some(uuid) = best
            && let Some(engine) = self.engines.get_mut(&uuid)
        {
            self.given += 1;
            engine.used = self.given;
            let mut frames = vec![task.client.clone()];
            frames.extend(task.frames.iter().cloned());
            let id = task.id.clone();
            engine.running.insert(id.clone(), task);
            return Placed::Now(Decision::Run {
                engine: uuid,
                id,
                frames,
            });
        }
        if !self.is_possible(&task) {
            return Placed::Now(Decision::Fail {
                task: Box::new(task),
                why: WhyNot::NoTarget,
            });
        }
        Placed::Later(Box::new(task))
    }
}

enum Placed {
    Now(Decision),
    Later(Box<Task>),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(id: &str) -> Task {
        let header = format!(r#"{{"msg_id": "{id}", "msg_type": "apply_request"}}"#);
        Task {
            id: MessageId(id.to_owned()),
            client: Bytes::from_static(b"client"),
            header: serde_json::from_str(&header).unwrap(),
            frames: vec![Bytes::from_static(b"<IDS|MSG>")],
            targets: Vec::new(),
            retries: 0,
            tried: Vec::new(),
        }
    }

    fn id(id: &str) -> MessageId {
        MessageId(id.to_owned())
    }

    /// `a>x` for task a on engine x, `a!` for a task that fails.
    fn shown(decisions: Vec<Decision>) -> String {
        let shown = decisions.into_iter().map(|decision| match decision {
            Decision::Run {
                engine, id, frames, ..
            } => {
                assert_eq!(frames.first().unwrap(), "client");
                format!("{id}>{engine}")
            }
            Decision::Fail { task, .. } => format!("{}!", task.id),
        });
        shown.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn tasks_wait_for_engines_and_go_where_there_is_least_to_do() {
        let mut scheduler = Scheduler::new(1);
        assert_eq!(shown(scheduler.submit(task("a"))), "");
        assert_eq!(shown(scheduler.join("x")), "a>x");
        assert_eq!(shown(scheduler.join("y")), "");
        assert_eq!(shown(scheduler.submit(task("b"))), "b>y");
        assert_eq!(shown(scheduler.submit(task("c"))), "");
        assert_eq!(shown(scheduler.submit(task("d"))), "");
        assert_eq!(scheduler.unassigned().count(), 2);
        let (deliver, next) = scheduler.finish("y", &id("b"), true);
        assert!(deliver);
        assert_eq!(shown(next), "c>y");
        assert_eq!(scheduler.running("y").next(), Some(&id("c")));
        assert_eq!(shown(scheduler.finish("x", &id("a"), false).1), "d>x");
        assert!(!scheduler.finish("x", &id("a"), true).0, "answered twice");
    }

    #[test]
    fn equal_loads_take_turns() {
        let mut scheduler = Scheduler::new(2);
        scheduler.join("x");
        scheduler.join("y");
        let placed: Vec<_> = ["a", "b", "c", "d", "e"]
            .map(|name| shown(scheduler.submit(task(name))))
            .to_vec();
        assert_eq!(placed, ["a>x", "b>y", "c>x", "d>y", ""]);
    }

    #[test]
    fn retries_go_elsewhere() {
        let mut scheduler = Scheduler::new(1);
        scheduler.join("x");
        scheduler.join("y");
        let mut again = task("a");
        again.retries = 2;
        assert_eq!(shown(scheduler.submit(again)), "a>x");
        let (deliver, next) = scheduler.finish("x", &id("a"), false);
        assert!(!deliver);
        assert_eq!(shown(next), "a>y");
        assert_eq!(shown(scheduler.finish("y", &id("a"), false).1), "a!");
    }

    #[test]
    fn a_dead_engines_tasks_fail_or_move() {
        let mut scheduler = Scheduler::new(2);
        scheduler.join("x");
        let mut again = task("a");
        again.retries = 1;
        scheduler.submit(again);
        scheduler.submit(task("b"));
        assert_eq!(shown(scheduler.leave("x")), "b!");
        assert_eq!(shown(scheduler.join("y")), "a>y");
        assert_eq!(shown(scheduler.leave("unknown")), "");
    }

    #[test]
    fn targets_are_kept_to() {
        let mut scheduler = Scheduler::new(1);
        scheduler.join("x");
        scheduler.join("y");
        let to = |name, target: &str| Task {
            targets: vec![target.to_owned()],
            ..task(name)
        };
        assert_eq!(shown(scheduler.submit(to("a", "y"))), "a>y");
        assert_eq!(shown(scheduler.submit(to("b", "y"))), "");
        assert_eq!(shown(scheduler.submit(to("c", "z"))), "c!");
        // It waits behind nobody whom another engine could serve.
        assert_eq!(shown(scheduler.submit(to("d", "x"))), "d>x");
        assert_eq!(shown(scheduler.submit(task("e"))), "");
        assert_eq!(shown(scheduler.finish("x", &id("d"), true).1), "e>x");
        assert_eq!(shown(scheduler.leave("y")), "a! b!");
    }
}
