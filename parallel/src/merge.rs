//! Making one value of two, for `map_reduce` and `%%parallel --merge`.
//!
//! ```no_run
//! # fn main() -> Result<(), chorus::Error> {
//! # let client = chorus::Client::connect()?;
//! use chorus::merge;
//!
//! let view = client.load_balanced_view();
//! let sum = view.map_reduce(0..1000u64, |n| n * n, merge::sum).get()?;
//! # drop(sum);
//! # Ok(())
//! # }
//! ```

pub use crate::tally::Tally;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque, btree_map, hash_map};
use std::hash::{BuildHasher, Hash};
use std::ops::{Add, AddAssign};

/// `a + b`.
pub fn sum<T: Add<Output = T>>(a: T, b: T) -> T {
    a + b
}

/// What is in `a`, and then what is in `b`. Of a key that both maps have, `b`'s value stays.
pub fn concat<C: Concat>(a: C, b: C) -> C {
    a.concat(b)
}

/// Numbers by key, added key by key.
pub fn counts<C: Counts>(a: C, b: C) -> C {
    a.count(b)
}

/// Collections that [`concat()`] joins.
#[diagnostic::on_unimplemented(
    message = "`concat` can't join two `{Self}`",
    label = "`concat` joins vectors, strings, sets and maps",
    note = "give a function of your own: `fn merge(a: {Self}, b: {Self}) -> {Self}`"
)]
pub trait Concat: Sized {
    /// Both in one.
    #[must_use]
    fn concat(self, other: Self) -> Self;
}

impl<T> Concat for Vec<T> {
    fn concat(mut self, mut other: Self) -> Self {
        self.append(&mut other);
        self
    }
}

impl Concat for String {
    fn concat(mut self, other: Self) -> Self {
        self.push_str(&other);
        self
    }
}

macro_rules! extend {
    ($($kind:ty => [$($bounds:tt)*];)*) => {$(
        impl<$($bounds)*> Concat for $kind {
            fn concat(mut self, other: Self) -> Self {
                self.extend(other);
                self
            }
        }
    )*};
}

extend! {
    VecDeque<T> => [T];
    BTreeSet<T> => [T: Ord];
    BTreeMap<K, V> => [K: Ord, V];
    HashSet<T, S> => [T: Eq + Hash, S: BuildHasher];
    HashMap<K, V, S> => [K: Eq + Hash, V, S: BuildHasher];
}

/// Maps from keys to numbers, which [`counts`] adds.
#[diagnostic::on_unimplemented(
    message = "`counts` can't add two `{Self}`",
    label = "`counts` adds numbers by key: a `HashMap` or `BTreeMap` of numbers",
    note = "give a function of your own: `fn merge(a: {Self}, b: {Self}) -> {Self}`"
)]
pub trait Counts: Sized {
    /// Both in one.
    #[must_use]
    fn count(self, other: Self) -> Self;
}

impl<K: Eq + Hash, N: AddAssign, S: BuildHasher> Counts for HashMap<K, N, S> {
    fn count(self, other: Self) -> Self {
        // The larger one takes the smaller one's.
        let (mut all, rest) = if self.len() < other.len() {
            (other, self)
        } else {
            (self, other)
        };
        for (key, number) in rest {
            all.add_at(key, number);
        }
        all
    }
}

impl<K: Ord, N: AddAssign> Counts for BTreeMap<K, N> {
    fn count(mut self, other: Self) -> Self {
        for (key, number) in other {
            self.add_at(key, number);
        }
        self
    }
}

/// A map in which one key's number grows.
pub(crate) trait AddAt {
    type Key;
    type Number;

    /// So many entries are to come, if what came is to be believed.
    fn expect(&mut self, entries: usize);

    fn add_at(&mut self, key: Self::Key, number: Self::Number);
}

/// Bytes of room that are made for what is only announced.
const ANNOUNCED: usize = 1 << 20;

impl<K: Eq + Hash, N: AddAssign, S: BuildHasher> AddAt for HashMap<K, N, S> {
    type Key = K;
    type Number = N;

    fn expect(&mut self, entries: usize) {
        // Later maps have many of the first one's keys.
        if self.is_empty() {
            self.reserve(entries.min(ANNOUNCED / size_of::<(K, N)>().max(1)));
        }
    }

    fn add_at(&mut self, key: K, number: N) {
        match self.entry(key) {
            hash_map::Entry::Occupied(mut sum) => *sum.get_mut() += number,
            hash_map::Entry::Vacant(place) => drop(place.insert(number)),
        }
    }
}

impl<K: Ord, N: AddAssign> AddAt for BTreeMap<K, N> {
    type Key = K;
    type Number = N;

    fn expect(&mut self, _: usize) {}

    fn add_at(&mut self, key: K, number: N) {
        match self.entry(key) {
            btree_map::Entry::Occupied(mut sum) => *sum.get_mut() += number,
            btree_map::Entry::Vacant(place) => drop(place.insert(number)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_become_one() {
        assert_eq!(sum(2, 3), 5);
        assert_eq!(concat(vec![1], vec![2, 3]), [1, 2, 3]);
        assert_eq!(concat("a".to_owned(), "b".to_owned()), "ab");
        assert_eq!(concat(BTreeSet::from([2]), BTreeSet::from([1, 2])).len(), 2);
        let (a, b) = ([("x", 1), ("y", 2)], [("y", 10), ("z", 20), ("w", 5)]);
        let expected = [("w", 5), ("x", 1), ("y", 12), ("z", 20)];
        assert_eq!(
            counts(BTreeMap::from(a), BTreeMap::from(b)),
            BTreeMap::from(expected)
        );
        assert_eq!(
            counts(HashMap::from(a), HashMap::from(b)),
            HashMap::from(expected)
        );
        let maps = concat(BTreeMap::from(a), BTreeMap::from(b));
        assert_eq!(maps["y"], 10);
    }
}
