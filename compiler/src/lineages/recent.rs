//! A table that forgets what was not used for the longest time.

use std::collections::HashMap;

/// At most `capacity` values by name.
#[derive(Debug)]
pub(crate) struct Recent<V> {
    capacity: usize,
    clock: u64,
    values: HashMap<String, (u64, V)>,
}

impl<V: Clone> Recent<V> {
    pub(crate) fn new(capacity: usize) -> Recent<V> {
        Recent {
            capacity,
            clock: 0,
            values: HashMap::new(),
        }
    }

    /// The value, which counts as a use of it.
    pub(crate) fn get(&mut self, name: &str) -> Option<V> {
        self.clock += 1;
        let (used, value) = self.values.get_mut(name)?;
        *used = self.clock;
        Some(value.clone())
    }

    /// Puts a value in; one that was there is replaced.
    pub(crate) fn insert(&mut self, name: String, value: V) {
        self.clock += 1;
        self.values.insert(name, (self.clock, value));
        if self.values.len() > self.capacity
            && let Some(oldest) = self
                .values
                .iter()
                .min_by_key(|(_, (used, _))| *used)
                .map(|(name, _)| name.clone())
        {
            self.values.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_used_goes() {
        let mut recent = Recent::new(2);
        recent.insert("a".to_owned(), 1);
        recent.insert("b".to_owned(), 2);
        assert_eq!(recent.get("a"), Some(1));
        recent.insert("c".to_owned(), 3);
        assert_eq!(recent.get("b"), None);
        assert_eq!(recent.get("a"), Some(1));
        assert_eq!(recent.get("c"), Some(3));
    }
}
