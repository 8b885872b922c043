//! What a function can be mapped over.

use crate::portable::Portable;
use std::ops::{Range, RangeInclusive};

/// Vectors, slices, arrays and ranges of whole numbers, owned or borrowed. What is borrowed is not copied but for sending.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is nothing that can be mapped over",
    label = "give a vector, a slice, an array or a range of whole numbers",
    note = "collect an iterator first: `.collect::<Vec<_>>()`, or use `imap`, which takes any iterator"
)]
pub trait Items {
    /// What the function is given.
    type Item: Portable;

    /// Lends all items.
    fn with<T>(self, use_items: impl FnOnce(&[Self::Item]) -> T) -> T;
}

impl<A: Portable> Items for &[A] {
    type Item = A;

    fn with<T>(self, use_items: impl FnOnce(&[A]) -> T) -> T {
        use_items(self)
    }
}

impl<A: Portable> Items for &Vec<A> {
    type Item = A;

    fn with<T>(self, use_items: impl FnOnce(&[A]) -> T) -> T {
        use_items(self)
    }
}

impl<A: Portable, const N: usize> Items for &[A; N] {
    type Item = A;

    fn with<T>(self, use_items: impl FnOnce(&[A]) -> T) -> T {
        use_items(self)
    }
}

impl<A: Portable> Items for Vec<A> {
    type Item = A;

    fn with<T>(self, use_items: impl FnOnce(&[A]) -> T) -> T {
        use_items(&self)
    }
}

impl<A: Portable, const N: usize> Items for [A; N] {
    type Item = A;

    fn with<T>(self, use_items: impl FnOnce(&[A]) -> T) -> T {
        use_items(&self)
    }
}

macro_rules! ranges {
    ($($number:ty),*) => {$(
        impl Items for Range<$number> {
            type Item = $number;

            fn with<T>(self, use_items: impl FnOnce(&[$number]) -> T) -> T {
                use_items(&self.collect::<Vec<_>>())
            }
        }

        impl Items for RangeInclusive<$number> {
            type Item = $number;

            fn with<T>(self, use_items: impl FnOnce(&[$number]) -> T) -> T {
                use_items(&self.collect::<Vec<_>>())
            }
        }
    )*};
}

ranges!(u8, u16, u32, u64, usize, i8, i16, i32, i64, isize);
