//! What `%%parallel --over` can cut, and what `--with` can share.

use crate::codec::{self, CodecError};
use crate::error::Error;
use crate::portable::Portable;
use crate::submit::{self, Arguments};
use crate::wire::Piece;
use std::ops::{Range, RangeInclusive};

/// What can be cut into parts, each of which an engine gets. A part of a vector, a slice or an array is a vector; a part of a range is a range.
#[diagnostic::on_unimplemented(
    message = "`{Self}` can't be cut into parts",
    label = "`--over` takes a vector, a slice, an array or a range of whole numbers",
    note = "collect it first: `let items: Vec<_> = .. .collect();`"
)]
pub trait Parts {
    /// What the body is given.
    type Part: Portable;

    /// How many items there are.
    fn count(&self) -> usize;

    /// Some of them, encoded as a `Part`.
    ///
    /// # Errors
    /// When an item's own serialization fails.
    fn part(&self, range: Range<usize>, arguments: &mut Arguments) -> Result<Piece, Error>;
}

impl<T: Portable> Parts for [T] {
    type Part = Vec<T>;

    fn count(&self) -> usize {
        self.len()
    }

    fn part(&self, range: Range<usize>, arguments: &mut Arguments) -> Result<Piece, Error> {
        arguments.part_of(self, range)
    }
}

impl<T: Portable> Parts for Vec<T> {
    type Part = Vec<T>;

    fn count(&self) -> usize {
        self.len()
    }

    fn part(&self, range: Range<usize>, arguments: &mut Arguments) -> Result<Piece, Error> {
        arguments.part_of(self, range)
    }
}

impl<T: Portable, const N: usize> Parts for [T; N] {
    type Part = Vec<T>;

    fn count(&self) -> usize {
        N
    }

    fn part(&self, range: Range<usize>, arguments: &mut Arguments) -> Result<Piece, Error> {
        arguments.part_of(self, range)
    }
}

impl<V: Parts + ?Sized> Parts for &V {
    type Part = V::Part;

    fn count(&self) -> usize {
        (**self).count()
    }

    fn part(&self, range: Range<usize>, arguments: &mut Arguments) -> Result<Piece, Error> {
        (**self).part(range, arguments)
    }
}

macro_rules! ranges {
    ($($number:ty),*) => {$(
        impl Parts for Range<$number> {
            type Part = Range<$number>;

            fn count(&self) -> usize {
                usize::try_from(i128::from_number(self.end) - i128::from_number(self.start)).unwrap_or(0)
            }

            fn part(&self, range: Range<usize>, arguments: &mut Arguments) -> Result<Piece, Error> {
                // No number overflows: both are between the ends.
                let at = |index: usize| (i128::from_number(self.start) + index as i128) as $number;
                arguments.piece(submit::encode(&(at(range.start)..at(range.end)))?)
            }
        }

        impl Parts for RangeInclusive<$number> {
            type Part = RangeInclusive<$number>;

            fn count(&self) -> usize {
                usize::try_from(i128::from_number(*self.end()) - i128::from_number(*self.start()) + 1).unwrap_or(0)
            }

            fn part(&self, range: Range<usize>, arguments: &mut Arguments) -> Result<Piece, Error> {
                let at = |index: usize| (i128::from_number(*self.start()) + index as i128) as $number;
                // A part has at least one item.
                arguments.piece(submit::encode(&(at(range.start)..=at(range.end - 1)))?)
            }
        }

        impl Number<$number> for i128 {
            fn from_number(number: $number) -> i128 {
                number as i128
            }
        }
    )*};
}

/// `i128::from`, for `usize` and `isize` too.
trait Number<N> {
    fn from_number(number: N) -> i128;
}

ranges!(u8, u16, u32, u64, usize, i8, i16, i32, i64, isize);

/// What `%%parallel --with` can give to the body: the same value for all of its runs in a process.
#[diagnostic::on_unimplemented(
    message = "`{Self}` can't be shared with other processes",
    label = "`--with` sends this to each engine",
    note = "if `{Self}` is a type of yours, or holds one, derive its serialization: \
            `#[derive(serde::Serialize, serde::Deserialize)]`",
    note = "what belongs to one process or one thread stays where it is (files, sockets, `Rc`, `RefCell`): make it in the body"
)]
pub trait Share {
    /// The type itself.
    type Own;

    /// Encodes it behind others.
    ///
    /// # Errors
    /// When its own serialization fails.
    fn put(&self, bytes: &mut Vec<u8>) -> Result<(), CodecError>;
}

#[diagnostic::do_not_recommend]
impl<A: Portable + Sync> Share for A {
    type Own = A;

    fn put(&self, bytes: &mut Vec<u8>) -> Result<(), CodecError> {
        codec::encode_into(self, bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts<V: Parts>(all: V, ranges: &[Range<usize>]) -> (usize, Vec<V::Part>) {
        let part = |range: &Range<usize>| {
            let bytes = all.part(range.clone(), &mut Arguments::default()).unwrap();
            let bytes = bytes.take().unwrap();
            codec::decode(&bytes).unwrap()
        };
        (all.count(), ranges.iter().map(part).collect())
    }

    #[test]
    fn parts_of_everything() {
        let words = ["a".to_owned(), "b".to_owned(), "c".to_owned()];
        let expected = (3, vec![vec!["a".to_owned()], words[1..].to_vec()]);
        assert_eq!(parts(&words, &[0..1, 1..3]), expected);
        assert_eq!(parts(words.to_vec(), &[0..1, 1..3]), expected);
        assert_eq!(parts(words.as_slice(), &[0..1, 1..3]), expected);
        assert_eq!(parts(-3i8..4, &[0..3, 3..7]), (7, vec![-3..0, 0..4]));
        assert_eq!(
            parts(250..=255u8, &[0..5, 5..6]),
            (6, vec![250..=254, 255..=255])
        );
        #[expect(clippy::reversed_empty_ranges, reason = "an empty range is meant")]
        let empty = parts(5..2usize, &[]);
        assert_eq!(empty, (0, Vec::new()));
    }
}
