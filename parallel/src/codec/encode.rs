//! The serializer.

use super::{CodecError, LONG};
use serde::Serialize;
use serde::ser::{
    SerializeMap, SerializeSeq, SerializeStruct, SerializeStructVariant, SerializeTuple,
    SerializeTupleStruct, SerializeTupleVariant, Serializer,
};
use std::any::TypeId;

/// If `T` is a vector or slice of numbers: how many there are, and their memory.
#[inline(always)]
pub(super) fn numbers<T: ?Sized>(value: &T) -> Option<(usize, &[u8])> {
    // What is no slice and as large as no vector needs no look at its type.
    if is_sized::<T>() && size_of_val(value) != size_of::<Vec<u8>>() {
        return None;
    }
    let start = std::ptr::from_ref(value).cast::<u8>();
    // SAFETY: pointer and size are those of a value of this type, which is borrowed as long as what comes of it.
    unsafe { memory(typeid::of::<T>(), start, size_of_val(value)) }
}

/// The elements of a vector or slice, by its type. Compiled here and not in each program that encodes something.
///
/// # Safety
/// A value of type `kind`, of so many bytes, is at `start` and borrowed for `'a`.
unsafe fn memory<'a>(kind: TypeId, start: *const u8, size: usize) -> Option<(usize, &'a [u8])> {
    macro_rules! among {
        ($($number:ty),*) => {$(
            if kind == TypeId::of::<Vec<$number>>() {
                // SAFETY: the caller's promise; the type has no lifetime that could have been lost.
                let vector = unsafe { &*start.cast::<Vec<$number>>() };
                let (pointer, bytes) = (vector.as_ptr(), size_of_val(vector.as_slice()));
                // SAFETY: the elements of the vector, which have no padding, borrowed as long as it.
                return Some((vector.len(), unsafe { std::slice::from_raw_parts(pointer.cast(), bytes) }));
            }
            if kind == TypeId::of::<[$number]>() {
                // SAFETY: a slice of numbers, which have no padding, of this size.
                return Some((size / size_of::<$number>(), unsafe { std::slice::from_raw_parts(start, size) }));
            }
        )*};
    }
    // Of all types that are as large as a vector, the most frequent.
    if kind == TypeId::of::<String>() {
        return None;
    }
    numbers!(among);
    None
}

/// Whether references to a `T` are thin.
const fn is_sized<T: ?Sized>() -> bool {
    size_of::<&T>() == size_of::<&u8>()
}

#[inline]
pub(super) fn length(out: &mut Vec<u8>, length: usize) {
    if length < usize::from(LONG) {
        // Below 255, so nothing is cut off.
        out.push(length as u8);
    } else {
        out.push(LONG);
        out.extend_from_slice(&(length as u64).to_le_bytes());
    }
}

#[inline]
pub(super) fn into<T: Serialize + ?Sized>(value: &T, out: &mut Vec<u8>) -> Result<(), CodecError> {
    if let Some((count, bulk)) = numbers(value) {
        length(out, count);
        out.extend_from_slice(bulk);
        return Ok(());
    }
    value.serialize(Encoder { out })
}

struct Encoder<'a> {
    out: &'a mut Vec<u8>,
}

/// Whatever has parts.
struct Parts<'a> {
    out: &'a mut Vec<u8>,
    /// For a length that is known only at the end: where it goes, and the parts so far.
    counted: Option<(usize, u64)>,
}

impl<'a> Parts<'a> {
    fn plain(out: &'a mut Vec<u8>) -> Parts<'a> {
        Parts { out, counted: None }
    }

    fn counted(out: &'a mut Vec<u8>, known: Option<usize>) -> Parts<'a> {
        match known {
            Some(known) => {
                length(out, known);
                Parts::plain(out)
            }
            None => {
                out.push(LONG);
                let at = out.len();
                out.extend_from_slice(&[0; 8]);
                Parts {
                    out,
                    counted: Some((at, 0)),
                }
            }
        }
    }

    #[inline(always)]
    fn part<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), CodecError> {
        into(value, self.out)
    }

    #[inline(always)]
    fn element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), CodecError> {
        if let Some((_, count)) = &mut self.counted {
            *count += 1;
        }
        into(value, self.out)
    }

    fn finish(self) {
        if let Some((at, count)) = self.counted
            && let Some(place) = self.out.get_mut(at..at + 8)
        {
            place.copy_from_slice(&count.to_le_bytes());
        }
    }
}

macro_rules! fixed {
    ($($name:ident $kind:ty),*) => {$(
        #[inline(always)]
        fn $name(self, value: $kind) -> Result<(), CodecError> {
            self.out.extend_from_slice(&value.to_le_bytes());
            Ok(())
        }
    )*};
}

impl<'a> Serializer for Encoder<'a> {
    type Ok = ();
    type Error = CodecError;
    type SerializeSeq = Parts<'a>;
    type SerializeTuple = Parts<'a>;
    type SerializeTupleStruct = Parts<'a>;
    type SerializeTupleVariant = Parts<'a>;
    type SerializeMap = Parts<'a>;
    type SerializeStruct = Parts<'a>;
    type SerializeStructVariant = Parts<'a>;

    fixed!(
        serialize_i8 i8, serialize_i16 i16, serialize_i32 i32, serialize_i64 i64, serialize_i128 i128,
        serialize_u8 u8, serialize_u16 u16, serialize_u32 u32, serialize_u64 u64, serialize_u128 u128,
        serialize_f32 f32, serialize_f64 f64
    );

    #[inline(always)]
    fn serialize_bool(self, value: bool) -> Result<(), CodecError> {
        self.serialize_u8(value.into())
    }

    fn serialize_char(self, value: char) -> Result<(), CodecError> {
        self.serialize_u32(value.into())
    }

    #[inline]
    fn serialize_str(self, value: &str) -> Result<(), CodecError> {
        self.serialize_bytes(value.as_bytes())
    }

    #[inline]
    fn serialize_bytes(self, value: &[u8]) -> Result<(), CodecError> {
        length(self.out, value.len());
        self.out.extend_from_slice(value);
        Ok(())
    }

    fn serialize_none(self) -> Result<(), CodecError> {
        self.serialize_u8(0)
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), CodecError> {
        self.out.push(1);
        into(value, self.out)
    }

    fn serialize_unit(self) -> Result<(), CodecError> {
        Ok(())
    }

    fn serialize_unit_struct(self, _: &'static str) -> Result<(), CodecError> {
        Ok(())
    }

    fn serialize_unit_variant(
        self,
        _: &'static str,
        index: u32,
        _: &'static str,
    ) -> Result<(), CodecError> {
        length(self.out, index as usize);
        Ok(())
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        value: &T,
    ) -> Result<(), CodecError> {
        into(value, self.out)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        index: u32,
        _: &'static str,
        value: &T,
    ) -> Result<(), CodecError> {
        length(self.out, index as usize);
        into(value, self.out)
    }

    fn serialize_seq(self, known: Option<usize>) -> Result<Parts<'a>, CodecError> {
        Ok(Parts::counted(self.out, known))
    }

    #[inline]
    fn serialize_tuple(self, _: usize) -> Result<Parts<'a>, CodecError> {
        Ok(Parts::plain(self.out))
    }

    #[inline]
    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Parts<'a>, CodecError> {
        Ok(Parts::plain(self.out))
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        index: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Parts<'a>, CodecError> {
        length(self.out, index as usize);
        Ok(Parts::plain(self.out))
    }

    fn serialize_map(self, known: Option<usize>) -> Result<Parts<'a>, CodecError> {
        Ok(Parts::counted(self.out, known))
    }

    #[inline]
    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Parts<'a>, CodecError> {
        Ok(Parts::plain(self.out))
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        index: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Parts<'a>, CodecError> {
        length(self.out, index as usize);
        Ok(Parts::plain(self.out))
    }

    fn is_human_readable(&self) -> bool {
        false
    }
}

impl SerializeSeq for Parts<'_> {
    type Ok = ();
    type Error = CodecError;

    #[inline(always)]
    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), CodecError> {
        self.element(value)
    }

    fn end(self) -> Result<(), CodecError> {
        self.finish();
        Ok(())
    }
}

impl SerializeTuple for Parts<'_> {
    type Ok = ();
    type Error = CodecError;

    #[inline(always)]
    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), CodecError> {
        self.part(value)
    }

    #[inline(always)]
    fn end(self) -> Result<(), CodecError> {
        Ok(())
    }
}

impl SerializeMap for Parts<'_> {
    type Ok = ();
    type Error = CodecError;

    #[inline]
    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), CodecError> {
        self.element(key)
    }

    #[inline]
    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), CodecError> {
        self.part(value)
    }

    fn end(self) -> Result<(), CodecError> {
        self.finish();
        Ok(())
    }
}

macro_rules! fields {
    ($($kind:ident $method:ident ($($key:ty)?)),*) => {$(
        impl $kind for Parts<'_> {
            type Ok = ();
            type Error = CodecError;

            #[inline(always)]
            fn $method<T: Serialize + ?Sized>(&mut self, $(_: $key,)? value: &T) -> Result<(), CodecError> {
                self.part(value)
            }

            // Fields have no names in the bytes: whoever reads would take the next one for it.
            $(fn skip_field(&mut self, field: $key) -> Result<(), CodecError> {
                Err(CodecError::Skipped { field })
            })?

            #[inline(always)]
            fn end(self) -> Result<(), CodecError> {
                Ok(())
            }
        }
    )*};
}

fields!(
    SerializeTupleStruct serialize_field (),
    SerializeTupleVariant serialize_field (),
    SerializeStruct serialize_field (&'static str),
    SerializeStructVariant serialize_field (&'static str)
);
