//! Values to bytes and back: serde, in a format of fixed width in which numbers lie as they lie in memory.
//!
//! A vector or slice of numbers, wherever it occurs in a value, is copied in one go and not element by element. That
//! is decided inside the serializer, by the type that serde hands it, so the format has one definition and the bytes are the same
//! whichever way was taken. (A variable-width format such as postcard's can't do that for integers, hence this one.)
//!
//! | what | bytes |
//! |---|---|
//! | integers, floats | as in memory, little endian |
//! | `bool`, the tag of an `Option` | one byte, 0 or 1 |
//! | `char` | its code point in four bytes |
//! | lengths and numbers of variants | one byte below 255; otherwise 255 and eight bytes |
//! | strings, bytes, sequences, maps | their length and what they hold |
//! | structs, tuples, arrays | their fields; unit types: nothing |
//!
//! Nothing in the bytes tells their types: both sides are the same program, or, for messages, have agreed on a version.

/// Hands a macro all types of numbers whose vectors are copied in one go.
macro_rules! numbers {
    ($apply:ident) => {
        $apply!(
            f64, f32, u8, i32, u32, i64, u64, usize, isize, i8, i16, u16, i128, u128
        )
    };
}

mod decode;
mod encode;

use serde::Serialize;
use serde::de::{DeserializeOwned, DeserializeSeed};
use std::fmt;
use std::marker::PhantomData;

/// The first byte of a length that takes eight more.
const LONG: u8 = 255;

/// Why a value could not be turned into bytes, or bytes into a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CodecError {
    /// The type's own implementation of serde's traits says so.
    Custom(String),
    /// The bytes end within the value.
    Short {
        /// How many are missing at least.
        missing: usize,
    },
    /// The value ends before the bytes.
    Excess {
        /// How many are left.
        excess: usize,
    },
    /// These bytes are no value of this kind.
    Invalid {
        /// What was expected.
        kind: &'static str,
    },
    /// The type wants to be told what the bytes hold, as `serde_json::Value` and untagged enums do.
    NotSelfDescribing,
    /// A field is left out of this value.
    Skipped {
        /// Its name.
        field: &'static str,
    },
}

impl fmt::Display for CodecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CodecError::Custom(message) => f.write_str(message),
            CodecError::Short { missing } => {
                write!(f, "the bytes end {missing} bytes too early")
            }
            CodecError::Excess { excess } => {
                write!(f, "{excess} bytes are left over after the value")
            }
            CodecError::Invalid { kind } => write!(f, "the bytes hold no valid {kind}"),
            CodecError::NotSelfDescribing => f.write_str(
                "this type finds out from the data what it holds (an untagged or flattened type, or a JSON value), and \
                 the format doesn't say: use a type with a fixed shape, or send its text",
            ),
            CodecError::Skipped { field } => write!(
                f,
                "the field `{field}` is left out of the value (`skip_serializing_if`), and the format can't say so: let the field be written \
                 always, or send the value's text"
            ),
        }
    }
}

impl std::error::Error for CodecError {}

impl serde::ser::Error for CodecError {
    fn custom<T: std::fmt::Display>(message: T) -> Self {
        CodecError::Custom(message.to_string())
    }
}

impl serde::de::Error for CodecError {
    fn custom<T: std::fmt::Display>(message: T) -> Self {
        CodecError::Custom(message.to_string())
    }
}

/// A value's bytes. Large vectors of numbers are not copied but borrowed.
#[derive(Clone, Debug)]
pub struct Encoded<'a> {
    /// All of the bytes, or those before `bulk`.
    pub head: Vec<u8>,
    /// The rest, within the value.
    pub bulk: &'a [u8],
}

impl Encoded<'_> {
    /// How many bytes there are.
    pub fn len(&self) -> usize {
        self.head.len() + self.bulk.len()
    }

    /// Whether there are none; a unit value has none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes in one piece.
    pub fn into_vec(mut self) -> Vec<u8> {
        self.head.extend_from_slice(self.bulk);
        self.head
    }
}

/// The bytes of `value`, of which a vector or slice of numbers keeps its elements where they are.
///
/// # Errors
/// When the type's implementation of `Serialize` fails.
pub fn encode<T: Serialize + ?Sized>(value: &T) -> Result<Encoded<'_>, CodecError> {
    let mut head = Vec::new();
    if let Some((count, bulk)) = encode::numbers(value) {
        encode::length(&mut head, count);
        return Ok(Encoded { head, bulk });
    }
    encode::into(value, &mut head)?;
    Ok(Encoded { head, bulk: &[] })
}

/// The bytes of `value` behind those that `out` has already.
///
/// # Errors
/// When the type's implementation of `Serialize` fails.
pub fn encode_into<T: Serialize + ?Sized>(value: &T, out: &mut Vec<u8>) -> Result<(), CodecError> {
    encode::into(value, out)
}

/// The value in `bytes`.
///
/// # Errors
/// When the bytes are not exactly one value of this type.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
    decode_with(bytes, PhantomData::<T>)
}

/// What the seed makes of the value in `bytes`.
///
/// # Errors
/// When the bytes are not exactly one value of the seed's kind.
pub fn decode_with<'de, S: DeserializeSeed<'de>>(
    bytes: &'de [u8],
    seed: S,
) -> Result<S::Value, CodecError> {
    decode::whole(bytes, seed)
}

/// The value at the beginning of `bytes`, and what is behind it.
///
/// # Errors
/// When the bytes don't begin with a value of this type.
pub fn decode_front<T: DeserializeOwned>(bytes: &[u8]) -> Result<(T, &[u8]), CodecError> {
    decode::front(bytes, PhantomData::<T>)
}

/// Whether vectors of this type lie in the bytes as they lie in memory.
pub(crate) fn is_number<N>() -> bool {
    decode::is_number(typeid::of::<N>())
}

/// An empty vector with room for so many, in large pages if that is worth it.
pub(crate) fn room_for<N>(count: usize) -> Vec<N> {
    decode::room_for(count)
}

/// The elements of a vector of [numbers](is_number) of `size` bytes each, which is all that the bytes hold.
pub(crate) fn memory(bytes: &[u8], size: usize) -> Result<&[u8], CodecError> {
    decode::memory(bytes, size)
}

#[cfg(test)]
mod tests;
