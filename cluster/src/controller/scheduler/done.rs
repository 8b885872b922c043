//! How the last tasks ended, for tasks that name them as dependencies later.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, RandomState};

use super::dependency::Ended;
use crate::MessageId;

/// The last so many ends, in constant time and bounded memory: at most about 60 bytes each, grown as they come.
pub(super) struct Done {
    limit: usize,
    // Two keyed hashes of 64 bits stand for an id: they are shorter, and nobody can choose ids that meet.
    hashers: [RandomState; 2],
    ended: HashMap<u128, Ended>,
    order: VecDeque<u128>,
}

impl Done {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            limit,
            hashers: [RandomState::new(), RandomState::new()],
            ended: HashMap::new(),
            order: VecDeque::new(),
        }
    }

    fn key(&self, id: &MessageId) -> u128 {
        let [high, low] = self.hashers.each_ref().map(|hasher| hasher.hash_one(id));
        u128::from(high) << 64 | u128::from(low)
    }

    pub(super) fn get(&self, id: &MessageId) -> Option<Ended> {
        self.ended.get(&self.key(id)).copied()
    }

    /// A task ended. One that is done again under its id counts by its last end.
    pub(super) fn add(&mut self, id: &MessageId, ended: Ended) {
        let key = self.key(id);
        if self.ended.insert(key, ended).is_some() {
            return;
        }
        if self.order.len() == self.limit
            && let Some(oldest) = self.order.pop_front()
        {
            self.ended.remove(&oldest);
        }
        self.order.push_back(key);
    }
}

impl std::fmt::Debug for Done {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Done")
            .field("remembered", &self.order.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_ends_are_known_and_no_more() {
        let mut done = Done::new(2);
        let end = |success| Ended {
            success,
            engine: None,
        };
        let id = |name: &str| MessageId::from(name);
        done.add(&id("a"), end(true));
        done.add(&id("b"), end(true));
        done.add(&id("b"), end(false));
        assert_eq!(done.get(&id("a")), Some(end(true)));
        done.add(&id("c"), end(true));
        assert_eq!(done.get(&id("a")), None);
        assert_eq!(done.get(&id("b")), Some(end(false)));
        assert_eq!((done.ended.len(), done.order.len()), (2, 2));
    }
}
