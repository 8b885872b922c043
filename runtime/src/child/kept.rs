//! Values that calls share: sent once, kept by id until there are too many bytes of them.

use std::collections::HashMap;

use crate::memory::Mapping;

/// Bytes that stay where they are.
#[derive(Debug)]
pub(super) enum Held {
    /// In memory of our own, with the number of bytes.
    Copied(Vec<u128>, usize),
    Mapped(Mapping),
}

impl Held {
    fn len(&self) -> usize {
        match self {
            Held::Copied(copy, length) => (*length).min(copy.len() * 16),
            Held::Mapped(mapping) => mapping.len(),
        }
    }

    fn bytes(&self) -> &[u8] {
        match self {
            // SAFETY: any bytes of integers are bytes, and there are at least as many: `length` were copied there.
            Held::Copied(copy, _) => unsafe {
                std::slice::from_raw_parts(copy.as_ptr().cast(), self.len())
            },
            Held::Mapped(mapping) => mapping.as_ref(),
        }
    }
}

#[derive(Debug)]
struct Entry {
    held: Held,
    /// When it was used last, in calls.
    used: u64,
}

/// What is kept.
#[derive(Debug)]
pub(super) struct Kept {
    entries: HashMap<u64, Entry>,
    bytes: u64,
    limit: u64,
    clock: u64,
}

impl Kept {
    pub(super) fn new(limit: u64) -> Kept {
        Kept {
            entries: HashMap::new(),
            bytes: 0,
            limit,
            clock: 0,
        }
    }

    pub(super) fn has(&self, id: u64) -> bool {
        self.entries.contains_key(&id)
    }

    pub(super) fn get(&self, id: u64) -> Option<&[u8]> {
        self.entries.get(&id).map(|entry| entry.held.bytes())
    }

    /// Keeps what is not there yet.
    pub(super) fn keep(&mut self, id: u64, held: Held) {
        let used = self.clock;
        let length = held.len() as u64;
        if self.entries.insert(id, Entry { held, used }).is_none() {
            self.bytes += length;
        }
    }

    /// Notes that a call uses these, and gives up what was used longest ago until the rest is within the limit; never what the
    /// call uses.
    pub(super) fn evict(&mut self, in_use: &[u64]) {
        self.clock += 1;
        for id in in_use {
            if let Some(entry) = self.entries.get_mut(id) {
                entry.used = self.clock;
            }
        }
        while self.bytes > self.limit {
            let oldest = self
                .entries
                .iter()
                .filter(|(_, entry)| entry.used != self.clock)
                .min_by_key(|(_, entry)| entry.used);
            let Some((&oldest, _)) = oldest else { return };
            if let Some(entry) = self.entries.remove(&oldest) {
                self.bytes -= entry.held.len() as u64;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_one_used_longest_ago_goes_first() {
        let mut kept = Kept::new(32);
        let held = || Held::Copied(vec![7], 12);
        kept.keep(1, held());
        kept.evict(&[1]);
        kept.keep(2, held());
        kept.evict(&[2]);
        kept.evict(&[1]);
        kept.keep(3, held());
        kept.evict(&[3]);
        assert!(kept.has(1) && !kept.has(2) && kept.has(3));
        assert_eq!(kept.get(1).unwrap().len(), 12);
        // What one call needs is never given up for itself.
        kept.keep(4, held());
        kept.keep(5, held());
        kept.evict(&[3, 4, 5]);
        assert!(!kept.has(1) && kept.has(3) && kept.has(4) && kept.has(5));
        kept.evict(&[]);
        assert_eq!(kept.entries.len(), 2);
        assert_eq!(kept.bytes, 24);
    }
}
