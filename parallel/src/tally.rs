//! Adding up maps while they are decoded, for [`AsyncResult::counts`](crate::AsyncResult::counts).

use crate::codec::{self, CodecError};
use crate::merge::{AddAt, Counts};
use crate::portable::Portable;
use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use std::any::Any;
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::hash::{BuildHasher, Hash};
use std::ops::AddAssign;

/// Maps from keys to numbers that add up others while these are decoded.
#[diagnostic::on_unimplemented(
    message = "`counts` can't add up results of type `{Self}`",
    label = "`counts` adds numbers by key: a `HashMap` or `BTreeMap` of numbers",
    note = "for other types: `.get()?.into_iter().reduce(merge)` with a function of your own, `fn merge(a: {Self}, b: {Self}) -> {Self}`"
)]
pub trait Tally: Counts + Portable + Default {
    /// Adds the numbers of an encoded map.
    ///
    /// # Errors
    /// When that isn't a map of this type; some of its numbers may have been added then.
    fn add_encoded<'de, D: Deserializer<'de>>(&mut self, encoded: D) -> Result<(), D::Error>;
}

/// Takes a map's entries as they are decoded.
struct Adding<'a, M>(&'a mut M);

impl<'de, M: AddAt<Key: Portable, Number: Portable>> Visitor<'de> for Adding<'_, M> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
        self.0.expect(entries.size_hint().unwrap_or_default());
        while let Some((key, number)) = entries.next_entry()? {
            self.0.add_at(key, number);
        }
        Ok(())
    }
}

/// Adds an encoded map to this one.
struct Encoded<'a, C>(&'a mut C);

impl<'de, C: Tally> DeserializeSeed<'de> for Encoded<'_, C> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, encoded: D) -> Result<(), D::Error> {
        self.0.add_encoded(encoded)
    }
}

/// Adds all maps of an encoded vector to this one.
struct EncodedVec<'a, C>(&'a mut C);

impl<'de, C: Tally> DeserializeSeed<'de> for EncodedVec<'_, C> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, encoded: D) -> Result<(), D::Error> {
        encoded.deserialize_seq(self)
    }
}

impl<'de, C: Tally> Visitor<'de> for EncodedVec<'_, C> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a vector of maps")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut maps: A) -> Result<(), A::Error> {
        while maps.next_element_seed(Encoded(self.0))?.is_some() {}
        Ok(())
    }
}

/// Adds an encoded map, or an encoded vector of maps, to this one.
pub(crate) fn add<C: Tally>(all: &mut C, encoded: &[u8], vector: bool) -> Result<(), CodecError> {
    match add_words(all, encoded, vector) {
        Some(added) => added,
        None => decoded(all, encoded, vector),
    }
}

fn decoded<C: Tally>(all: &mut C, encoded: &[u8], vector: bool) -> Result<(), CodecError> {
    match vector {
        true => codec::decode_with(encoded, EncodedVec(all)),
        false => codec::decode_with(encoded, Encoded(all)),
    }
}

/// The same for counted words, if these are, by code that was optimised with this crate. What a cell compiles of it besides is not run.
fn add_words(all: &mut dyn Any, encoded: &[u8], vector: bool) -> Option<Result<(), CodecError>> {
    macro_rules! among {
        ($($number:ty),*) => {$(
            if let Some(all) = all.downcast_mut::<HashMap<String, $number>>() {
                return Some(decoded(all, encoded, vector));
            }
        )*};
    }
    among!(usize, u64, u32, i64, i32, f64);
    None
}

impl<K, N, S> Tally for HashMap<K, N, S>
where
    K: Portable + Eq + Hash,
    N: Portable + AddAssign,
    S: BuildHasher + Default + Send + 'static,
{
    fn add_encoded<'de, D: Deserializer<'de>>(&mut self, encoded: D) -> Result<(), D::Error> {
        encoded.deserialize_map(Adding(self))
    }
}

impl<K: Portable + Ord, N: Portable + AddAssign> Tally for BTreeMap<K, N> {
    fn add_encoded<'de, D: Deserializer<'de>>(&mut self, encoded: D) -> Result<(), D::Error> {
        encoded.deserialize_map(Adding(self))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn added<C: Tally>(maps: &[C]) -> C {
        let mut all = C::default();
        for map in maps {
            let bytes = codec::encode(map).unwrap().into_vec();
            add(&mut all, &bytes, false).unwrap();
            add(&mut C::default(), &bytes[..bytes.len() - 1], false).unwrap_err();
        }
        let bytes = codec::encode(maps).unwrap().into_vec();
        add(&mut all, &bytes, true).unwrap();
        all
    }

    #[test]
    fn encoded_maps_are_added() {
        let (a, b) = (
            [("x".to_owned(), 1), ("y".to_owned(), 2)],
            [("y".to_owned(), 10)],
        );
        let expected = [("x".to_owned(), 2), ("y".to_owned(), 24)];
        let maps = [
            BTreeMap::from(a.clone()),
            BTreeMap::from(b.clone()),
            BTreeMap::new(),
        ];
        assert_eq!(added(&maps), BTreeMap::from(expected.clone()));
        let maps = [HashMap::from(a), HashMap::from(b), HashMap::new()];
        assert_eq!(added(&maps), HashMap::from(expected));
        let maps = [HashMap::from([(1u8, 1u8)]), HashMap::from([(1, 2)])];
        assert_eq!(added(&maps), HashMap::from([(1, 6)]));
    }
}
