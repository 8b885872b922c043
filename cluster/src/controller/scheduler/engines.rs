//! The engines, how much each of them has to do, and which one is next by the scheme.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use bytes::Bytes;

use super::task::TaskNumber;
use crate::profile::Scheme;

/// An engine, as long as it is there. One that comes back has another key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct EngineKey(pub(super) u32);

/// An engine and its tasks.
#[derive(Debug)]
pub(super) struct Engine {
    /// Its ROUTER identity, which is its uuid.
    pub(super) identity: Bytes,
    pub(super) running: BTreeSet<TaskNumber>,
    /// Since when it is at the task that it runs: it was given that one, or ended the one before.
    since: Duration,
    /// That task is long: none is given in advance, to wait behind it, before it has ended.
    slow: bool,
    /// When it was given its last task, in tasks: engines are used in turn by this.
    used: u64,
}

impl Engine {
    fn has_room(&self, depth: usize) -> bool {
        self.running.len() < depth && !self.slow
    }

    fn is_at_long_task(&self, long: Option<Duration>, now: Duration) -> bool {
        let long = long.is_some_and(|long| now.saturating_sub(self.since) >= long);
        long && !self.running.is_empty()
    }
}

/// The place of an engine among those with room: the load where the scheme goes by it, then who was used longest ago.
type Place = (usize, u64, EngineKey);

/// All engines.
#[derive(Debug)]
pub(super) struct Engines {
    scheme: Scheme,
    generator: fastrand::Rng,
    all: BTreeMap<EngineKey, Engine>,
    by_identity: HashMap<Bytes, EngineKey>,
    /// Those with room, in the order in which they are used.
    free: BTreeSet<Place>,
    depth: usize,
    /// From when on a task is long, if that matters.
    long: Option<Duration>,
    given: u64,
    next: u32,
}

impl Engines {
    pub(super) fn new(
        scheme: Scheme,
        depth: usize,
        long: Option<Duration>,
        generator: fastrand::Rng,
    ) -> Self {
        Self {
            scheme,
            generator,
            all: BTreeMap::new(),
            by_identity: HashMap::new(),
            free: BTreeSet::new(),
            depth,
            long,
            given: 0,
            next: 0,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = EngineKey> {
        self.all.keys().copied()
    }

    pub(super) fn key(&self, identity: &[u8]) -> Option<EngineKey> {
        self.by_identity.get(identity).copied()
    }

    pub(super) fn get(&self, key: EngineKey) -> Option<&Engine> {
        self.all.get(&key)
    }

    /// Nothing if it is there already.
    pub(super) fn join(&mut self, identity: Bytes, now: Duration) -> Option<EngineKey> {
        if self.by_identity.contains_key(&identity) {
            return None;
        }
        let key = EngineKey(self.next);
        self.next += 1;
        let engine = Engine {
            identity: identity.clone(),
            running: BTreeSet::new(),
            since: now,
            slow: false,
            used: 0,
        };
        self.free.insert(place(self.scheme, key, &engine));
        self.all.insert(key, engine);
        self.by_identity.insert(identity, key);
        Some(key)
    }

    pub(super) fn leave(&mut self, key: EngineKey) -> Option<Engine> {
        let engine = self.all.remove(&key)?;
        self.by_identity.remove(&engine.identity);
        self.free.remove(&place(self.scheme, key, &engine));
        Some(engine)
    }

    pub(super) fn has_room(&self, key: EngineKey) -> bool {
        let engine = self.all.get(&key);
        engine.is_some_and(|engine| engine.has_room(self.depth))
    }

    pub(super) fn give(&mut self, key: EngineKey, task: TaskNumber, now: Duration) {
        self.given += 1;
        let given = self.given;
        self.change(key, |engine| {
            engine.used = given;
            if engine.running.is_empty() {
                engine.since = now;
            }
            engine.running.insert(task);
        });
    }

    /// An engine has ended one of its tasks; `ran`: not one that it dropped while it was at another. Gives since when it was at one.
    pub(super) fn take(
        &mut self,
        key: EngineKey,
        task: TaskNumber,
        ran: bool,
        now: Duration,
    ) -> Duration {
        let mut since = now;
        self.change(key, |engine| {
            engine.running.remove(&task);
            since = engine.since;
            if ran || engine.running.is_empty() {
                engine.since = now;
                engine.slow = false;
            }
        });
        since
    }

    /// Engines may hold so many tasks now. Gives those that have room.
    pub(super) fn set_depth(&mut self, depth: usize, now: Duration) -> Vec<EngineKey> {
        self.depth = depth;
        self.free.clear();
        for (key, engine) in &mut self.all {
            engine.slow = engine.is_at_long_task(self.long, now);
            if engine.has_room(depth) {
                self.free.insert(place(self.scheme, *key, engine));
            }
        }
        self.free.iter().map(|(_, _, key)| *key).collect()
    }

    /// The next engine by the scheme, of those with room.
    pub(super) fn choose(&mut self, now: Duration) -> Option<EngineKey> {
        if !matches!(self.scheme, Scheme::Leastload | Scheme::Lru) {
            // These schemes go through all of them anyway.
            let keys = self.free.iter().map(|(_, _, key)| *key);
            let slow: Vec<_> = keys.filter(|key| self.is_at_long_task(*key, now)).collect();
            for key in slow {
                self.look(key, now);
            }
            return self.choose_free();
        }
        loop {
            let key = self.choose_free()?;
            self.look(key, now);
            if self.has_room(key) {
                return Some(key);
            }
        }
    }

    fn choose_free(&mut self) -> Option<EngineKey> {
        let count = self.free.len();
        let (_, _, key) = match self.scheme {
            _ if count <= 1 => self.free.first(),
            Scheme::Leastload | Scheme::Lru => self.free.first(),
            Scheme::Plainrandom => self.free.iter().nth(self.generator.usize(..count)),
            Scheme::Twobin => {
                let two = [0; 2].map(|_| self.generator.usize(..count));
                let [one, other] = two;
                self.free.iter().nth(one.min(other))
            }
            Scheme::Weighted => {
                let among: Vec<_> = self.free.iter().copied().collect();
                return self.weigh(&among);
            }
        }?;
        Some(*key)
    }

    /// The same of some engines; those without room, or that are gone, do not count.
    pub(super) fn choose_among(
        &mut self,
        some: &BTreeSet<EngineKey>,
        now: Duration,
    ) -> Option<EngineKey> {
        for key in some {
            self.look(*key, now);
        }
        let with_room = some.iter().filter_map(|key| {
            let engine = self.all.get(key)?;
            let has_room = engine.has_room(self.depth);
            has_room.then(|| place(self.scheme, *key, engine))
        });
        let mut among: Vec<Place> = with_room.collect();
        among.sort_unstable();
        let count = among.len();
        let at = match self.scheme {
            _ if count <= 1 => 0,
            Scheme::Leastload | Scheme::Lru => 0,
            Scheme::Plainrandom => self.generator.usize(..count),
            Scheme::Twobin => {
                let one = self.generator.usize(..count);
                one.min(self.generator.usize(..count))
            }
            Scheme::Weighted => return self.weigh(&among),
        };
        among.get(at).map(|(_, _, key)| *key)
    }

    /// Two at random, an idle one a million times as likely as one with a task; the less loaded of the two.
    fn weigh(&mut self, among: &[Place]) -> Option<EngineKey> {
        let load = |(_, _, key): &Place| self.all.get(key).map_or(0, |it| it.running.len());
        let weights: Vec<f64> = among
            .iter()
            .map(|place| 1.0 / (1e-6 + f64::from(u32::try_from(load(place)).unwrap_or(u32::MAX))))
            .collect();
        let total: f64 = weights.iter().sum();
        let two = [0; 2].map(|_| {
            let mut left = self.generator.f64() * total;
            let at = weights.iter().position(|weight| {
                left -= weight;
                left <= 0.0
            });
            at.unwrap_or(0)
        });
        let [one, other] = two.map(|at| weights.get(at).map(|weight| (*weight, at)));
        let (_, at) = match (one?, other?) {
            (one, other) if other.0 > one.0 => other,
            (one, _) => one,
        };
        among.get(at).map(|(_, _, key)| *key)
    }

    /// Notices that an engine is at a long task.
    fn look(&mut self, key: EngineKey, now: Duration) {
        if self.is_at_long_task(key, now) {
            self.change(key, |engine| engine.slow = true);
        }
    }

    fn is_at_long_task(&self, key: EngineKey, now: Duration) -> bool {
        let engine = self.all.get(&key);
        engine.is_some_and(|engine| engine.is_at_long_task(self.long, now))
    }

    fn change(&mut self, key: EngineKey, change: impl FnOnce(&mut Engine)) {
        let Some(engine) = self.all.get_mut(&key) else {
            return;
        };
        self.free.remove(&place(self.scheme, key, engine));
        change(engine);
        if engine.has_room(self.depth) {
            self.free.insert(place(self.scheme, key, engine));
        }
    }

    #[cfg(test)]
    pub(super) fn sanity_check(&self) {
        assert_eq!(self.all.len(), self.by_identity.len());
        let with_room = self.all.iter().filter(|(key, _)| self.has_room(**key));
        let free: BTreeSet<_> = with_room
            .map(|(key, engine)| place(self.scheme, *key, engine))
            .collect();
        assert_eq!(free, self.free);
        for engine in self.all.values().filter(|engine| engine.slow) {
            assert!(self.long.is_some() && !engine.running.is_empty());
        }
    }
}

fn place(scheme: Scheme, key: EngineKey, engine: &Engine) -> Place {
    let load = match scheme {
        Scheme::Leastload => engine.running.len(),
        _ => 0,
    };
    (load, engine.used, key)
}
