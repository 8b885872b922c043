//! Which signatures have been seen: the last so many, in constant time and bounded memory.

use std::collections::{HashSet, VecDeque};

/// The bytes of an HMAC-SHA256.
pub(super) type Digest = [u8; 32];

/// The last signatures. Grows as they come, up to its limit.
pub(super) struct Replays {
    limit: usize,
    seen: HashSet<u128>,
    order: VecDeque<u128>,
}

impl Replays {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            limit,
            seen: HashSet::new(),
            order: VecDeque::new(),
        }
    }

    /// Whether `digest` is not among the last signatures; from now on it is.
    pub(super) fn is_new(&mut self, digest: Digest) -> bool {
        // Half a digest tells messages apart as surely and takes half the memory.
        let [low @ .., _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _] = digest;
        let short = u128::from_le_bytes(low);
        if !self.seen.insert(short) {
            return false;
        }
        if self.order.len() == self.limit
            && let Some(oldest) = self.order.pop_front()
        {
            self.seen.remove(&oldest);
        }
        self.order.push_back(short);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(n: u64) -> Digest {
        let mut digest = Digest::default();
        digest[..8].copy_from_slice(&n.to_le_bytes());
        digest
    }

    #[test]
    fn the_last_ones_are_known_and_no_more() {
        let mut replays = Replays::new(3);
        assert!((0..4).all(|n| replays.is_new(digest(n))));
        assert!((1..4).all(|n| !replays.is_new(digest(n))));
        assert!(replays.is_new(digest(0)), "it was pushed out");
        assert!(replays.is_new(digest(1)), "and so is the next");
        assert_eq!((replays.seen.len(), replays.order.len()), (3, 3));
    }
}
