//! The deserializer.

use super::{CodecError, LONG};
use serde::de::{
    DeserializeSeed, EnumAccess, IntoDeserializer, MapAccess, SeqAccess, VariantAccess, Visitor,
};
use std::any::TypeId;
use std::marker::PhantomData;
use std::mem::MaybeUninit;

pub(super) fn front<'de, S: DeserializeSeed<'de>>(
    bytes: &'de [u8],
    seed: S,
) -> Result<(S::Value, &'de [u8]), CodecError> {
    let mut decoder = Decoder { input: bytes };
    let value = decoder.value(seed)?;
    Ok((value, decoder.input))
}

pub(super) fn whole<'de, S: DeserializeSeed<'de>>(
    bytes: &'de [u8],
    seed: S,
) -> Result<S::Value, CodecError> {
    match front(bytes, seed)? {
        (value, []) => Ok(value),
        (_, rest) => Err(CodecError::Excess { excess: rest.len() }),
    }
}

struct Decoder<'de> {
    input: &'de [u8],
}

impl<'de> Decoder<'de> {
    #[inline(always)]
    fn take(&mut self, length: usize) -> Result<&'de [u8], CodecError> {
        match self.input.split_at_checked(length) {
            Some((taken, rest)) => {
                self.input = rest;
                Ok(taken)
            }
            None => Err(CodecError::Short {
                missing: length - self.input.len(),
            }),
        }
    }

    #[inline(always)]
    fn array<const N: usize>(&mut self) -> Result<[u8; N], CodecError> {
        match self.input.split_first_chunk::<N>() {
            Some((taken, rest)) => {
                self.input = rest;
                Ok(*taken)
            }
            None => Err(CodecError::Short {
                missing: N - self.input.len(),
            }),
        }
    }

    #[inline(always)]
    fn byte(&mut self) -> Result<u8, CodecError> {
        let [byte] = self.array()?;
        Ok(byte)
    }

    #[inline]
    fn length(&mut self) -> Result<usize, CodecError> {
        match self.byte()? {
            LONG => usize::try_from(u64::from_le_bytes(self.array()?))
                .map_err(|_| CodecError::Invalid { kind: "length" }),
            short => Ok(short.into()),
        }
    }

    fn text(&mut self) -> Result<&'de str, CodecError> {
        let length = self.length()?;
        std::str::from_utf8(self.take(length)?).map_err(|_| CodecError::Invalid { kind: "text" })
    }

    /// The next value, by the short way if it is a vector of numbers.
    #[inline(always)]
    fn value<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, CodecError> {
        if size_of::<S>() == 0 && size_of::<S::Value>() == size_of::<Vec<u8>>() {
            let mut value = MaybeUninit::<S::Value>::uninit();
            // SAFETY: room for a value of the seed's type, which for `PhantomData<T>` is `T`.
            if unsafe { self.vector(typeid::of::<S>(), value.as_mut_ptr().cast())? } {
                // SAFETY: it was written.
                return Ok(unsafe { value.assume_init() });
            }
        }
        seed.deserialize(self)
    }

    /// If `kind` is `PhantomData` of a vector of numbers, writes the next value to `room`. Compiled here and not in each program that
    /// decodes something.
    ///
    /// # Safety
    /// `room` is for what `kind` is a seed of.
    unsafe fn vector(&mut self, kind: TypeId, room: *mut u8) -> Result<bool, CodecError> {
        macro_rules! among {
            ($($number:ty),*) => {$(
                if kind == TypeId::of::<PhantomData<Vec<$number>>>() {
                    let vector = self.numbers::<$number>()?;
                    // SAFETY: the caller's promise.
                    unsafe { room.cast::<Vec<$number>>().write(vector) };
                    return Ok(true);
                }
            )*};
        }
        // Of all types that are as large as a vector, the most frequent.
        if kind == TypeId::of::<PhantomData<String>>() {
            return Ok(false);
        }
        numbers!(among);
        Ok(false)
    }

    /// A vector of numbers, in one copy. `N` is a type for which all bytes are values.
    fn numbers<N: Copy>(&mut self) -> Result<Vec<N>, CodecError> {
        let bytes = self.memory(size_of::<N>())?;
        let count = bytes.len() / size_of::<N>();
        let mut vector = room_for::<N>(count);
        // SAFETY: `bytes` are `count` elements long, there is room for as many, and all bytes are values of `N`.
        unsafe {
            std::ptr::copy_nonoverlapping(
                bytes.as_ptr(),
                vector.as_mut_ptr().cast::<u8>(),
                bytes.len(),
            );
            vector.set_len(count);
        }
        Ok(vector)
    }

    /// The elements of a vector of numbers of so many bytes each.
    fn memory(&mut self, size: usize) -> Result<&'de [u8], CodecError> {
        let length = self.length()?.checked_mul(size);
        self.take(length.ok_or(CodecError::Invalid { kind: "length" })?)
    }
}

pub(super) fn memory(bytes: &[u8], size: usize) -> Result<&[u8], CodecError> {
    let mut decoder = Decoder { input: bytes };
    match (decoder.memory(size)?, decoder.input) {
        (memory, []) => Ok(memory),
        (_, rest) => Err(CodecError::Excess { excess: rest.len() }),
    }
}

/// Whether this is the type of a number whose vectors are copied in one go.
pub(super) fn is_number(kind: TypeId) -> bool {
    macro_rules! among {
        ($($number:ty),*) => { [$(TypeId::of::<$number>()),*].contains(&kind) };
    }
    numbers!(among)
}

/// An empty vector with room for so many.
pub(super) fn room_for<N>(count: usize) -> Vec<N> {
    let mut vector = Vec::<N>::with_capacity(count);
    let length = size_of_val(vector.spare_capacity_mut());
    prefer_huge_pages(vector.as_mut_ptr().cast(), length);
    vector
}

/// Asks for large pages where there is room for them: most of the time that copying to fresh memory takes is spent on its pages.
fn prefer_huge_pages(start: *mut u8, length: usize) {
    const HUGE: usize = 2 << 20;
    if length < 2 * HUGE {
        return;
    }
    let skipped = start.align_offset(HUGE);
    if let Some(rest) = length.checked_sub(skipped) {
        // SAFETY: within fresh memory of this length; advice changes no contents, and that it isn't taken does no harm.
        unsafe {
            libc::madvise(
                start.add(skipped).cast(),
                rest & !(HUGE - 1),
                libc::MADV_HUGEPAGE,
            )
        };
    }
}

macro_rules! fixed {
    ($($name:ident $visit:ident $kind:ty),*) => {$(
        #[inline(always)]
        fn $name<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CodecError> {
            visitor.$visit(<$kind>::from_le_bytes(self.array()?))
        }
    )*};
}

impl<'de> serde::Deserializer<'de> for &mut Decoder<'de> {
    type Error = CodecError;

    fixed!(
        deserialize_i8 visit_i8 i8, deserialize_i16 visit_i16 i16, deserialize_i32 visit_i32 i32,
        deserialize_i64 visit_i64 i64, deserialize_i128 visit_i128 i128, deserialize_u8 visit_u8 u8,
        deserialize_u16 visit_u16 u16, deserialize_u32 visit_u32 u32, deserialize_u64 visit_u64 u64,
        deserialize_u128 visit_u128 u128, deserialize_f32 visit_f32 f32, deserialize_f64 visit_f64 f64
    );

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, CodecError> {
        Err(CodecError::NotSelfDescribing)
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, CodecError> {
        Err(CodecError::NotSelfDescribing)
    }

    #[inline(always)]
    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CodecError> {
        match self.byte()? {
            0 => visitor.visit_bool(false),
            1 => visitor.visit_bool(true),
            _ => Err(CodecError::Invalid { kind: "bool" }),
        }
    }

    fn deserialize_char<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CodecError> {
        match char::from_u32(u32::from_le_bytes(self.array()?)) {
            Some(char) => visitor.visit_char(char),
            None => Err(CodecError::Invalid { kind: "char" }),
        }
    }

    #[inline]
    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CodecError> {
        visitor.visit_borrowed_str(self.text()?)
    }

    #[inline]
    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CodecError> {
        visitor.visit_borrowed_str(self.text()?)
    }

    fn deserialize_bytes<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CodecError> {
        let length = self.length()?;
        visitor.visit_borrowed_bytes(self.take(length)?)
    }

    fn deserialize_byte_buf<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CodecError> {
        self.deserialize_bytes(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CodecError> {
        match self.byte()? {
            0 => visitor.visit_none(),
            1 => visitor.visit_some(self),
            _ => Err(CodecError::Invalid { kind: "option" }),
        }
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CodecError> {
        visitor.visit_unit()
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, CodecError> {
        visitor.visit_unit()
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, CodecError> {
        visitor.visit_newtype_struct(self)
    }

    #[inline]
    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CodecError> {
        let left = self.length()?;
        visitor.visit_seq(Parts {
            decoder: self,
            left,
        })
    }

    #[inline(always)]
    fn deserialize_tuple<V: Visitor<'de>>(
        self,
        left: usize,
        visitor: V,
    ) -> Result<V::Value, CodecError> {
        visitor.visit_seq(Parts {
            decoder: self,
            left,
        })
    }

    #[inline]
    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        left: usize,
        visitor: V,
    ) -> Result<V::Value, CodecError> {
        self.deserialize_tuple(left, visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CodecError> {
        let left = self.length()?;
        visitor.visit_map(Parts {
            decoder: self,
            left,
        })
    }

    #[inline]
    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, CodecError> {
        self.deserialize_tuple(fields.len(), visitor)
    }

    #[inline]
    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, CodecError> {
        visitor.visit_enum(self)
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, _: V) -> Result<V::Value, CodecError> {
        Err(CodecError::NotSelfDescribing)
    }

    fn is_human_readable(&self) -> bool {
        false
    }
}

struct Parts<'a, 'de> {
    decoder: &'a mut Decoder<'de>,
    left: usize,
}

impl<'de> SeqAccess<'de> for Parts<'_, 'de> {
    type Error = CodecError;

    #[inline(always)]
    fn next_element_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, CodecError> {
        match self.left.checked_sub(1) {
            Some(left) => {
                self.left = left;
                self.decoder.value(seed).map(Some)
            }
            None => Ok(None),
        }
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.left)
    }
}

impl<'de> MapAccess<'de> for Parts<'_, 'de> {
    type Error = CodecError;

    #[inline]
    fn next_key_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, CodecError> {
        self.next_element_seed(seed)
    }

    #[inline]
    fn next_value_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<S::Value, CodecError> {
        self.decoder.value(seed)
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.left)
    }
}

impl<'de> EnumAccess<'de> for &mut Decoder<'de> {
    type Error = CodecError;
    type Variant = Self;

    fn variant_seed<S: DeserializeSeed<'de>>(
        self,
        seed: S,
    ) -> Result<(S::Value, Self), CodecError> {
        let index =
            u32::try_from(self.length()?).map_err(|_| CodecError::Invalid { kind: "variant" })?;
        let value = seed.deserialize(IntoDeserializer::<CodecError>::into_deserializer(index))?;
        Ok((value, self))
    }
}

impl<'de> VariantAccess<'de> for &mut Decoder<'de> {
    type Error = CodecError;

    fn unit_variant(self) -> Result<(), CodecError> {
        Ok(())
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(
        self,
        seed: S,
    ) -> Result<S::Value, CodecError> {
        self.value(seed)
    }

    fn tuple_variant<V: Visitor<'de>>(
        self,
        left: usize,
        visitor: V,
    ) -> Result<V::Value, CodecError> {
        serde::Deserializer::deserialize_tuple(self, left, visitor)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, CodecError> {
        serde::Deserializer::deserialize_tuple(self, fields.len(), visitor)
    }
}
