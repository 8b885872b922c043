//! The C functions that engines call, and what they are called with.
//!
//! The runtime's worker has the same two structures; a change of one of them is a change of both.

use super::Code;
use super::caught::{self, Panicked};
use super::kept;
use crate::codec::{self, CodecError};
use crate::portable::Portable;
use serde::{Deserialize, Serialize};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Bytes that are lent for the length of a call.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Slice {
    /// The first byte.
    pub data: *const u8,
    /// How many there are.
    pub len: usize,
    /// Not 0 if the same bytes come with several calls: whoever sees the number again knows the bytes.
    pub id: u64,
}

/// What a call gave.
#[repr(C)]
#[derive(Debug)]
pub struct Answer {
    /// 0: `data` is the encoded result. 1: the call could not be made, `data` says why. 2: it panicked, `data` is the message. 3: `data` is the
    /// encoded result, in which some of the items have failed.
    pub status: u32,
    /// The first byte.
    pub data: *mut u8,
    /// How many there are.
    pub len: usize,
    /// How many there is room for.
    pub capacity: usize,
    /// Frees the bytes; takes `data`, `len` and `capacity`.
    pub drop: unsafe extern "C" fn(*mut u8, usize, usize),
}

/// A function that an engine calls. The slices are the arguments and then what is shared among calls; the answer's memory is
/// written, not read.
pub type Trampoline = unsafe extern "C" fn(*const Slice, usize, *mut Answer);

const OK: u32 = 0;
const ERROR: u32 = 1;
const PANICKED: u32 = 2;
const PARTLY: u32 = 3;

/// What a call over several items gave: the values of those that went well, in their order, and the others. The failures come
/// first, since they can be read without knowing what the values are.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Chunk<R> {
    pub(crate) failed: Vec<Mark>,
    pub(crate) values: Vec<R>,
}

/// An item whose call panicked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Mark {
    /// Its number within the chunk.
    pub(crate) index: u32,
    pub(crate) message: String,
    /// File and line as the artifact has them; empty and 0 if a hook of the user's hid them.
    pub(crate) file: String,
    pub(crate) line: u32,
}

impl Mark {
    fn new(index: usize, panicked: Panicked) -> Mark {
        Mark {
            // A chunk of more items than that doesn't fit into a frame.
            index: u32::try_from(index).unwrap_or(u32::MAX),
            message: panicked.message,
            file: panicked.file,
            line: panicked.line,
        }
    }
}

unsafe extern "C" fn free(data: *mut u8, len: usize, capacity: usize) {
    // SAFETY: `answer` below took these from a vector.
    drop(unsafe { Vec::from_raw_parts(data, len, capacity) });
}

/// What a trampoline does with its pieces: the status and the encoded result.
type Call<'a> = dyn FnMut(&[Slice]) -> Result<(u32, Vec<u8>), CodecError> + 'a;

/// The part of every trampoline that doesn't depend on types.
///
/// # Safety
/// The arguments are those of a trampoline: `count` slices that can be read, and room for an answer.
unsafe fn answer(slices: *const Slice, count: usize, answer: *mut Answer, call: &mut Call<'_>) {
    let slices = if count == 0 {
        &[]
    } else {
        // SAFETY: the caller's promise.
        unsafe { std::slice::from_raw_parts(slices, count) }
    };
    let (status, bytes) = match catch_unwind(AssertUnwindSafe(|| call(slices))) {
        Ok(Ok(result)) => result,
        Ok(Err(error)) => (
            ERROR,
            format!("the call's values could not be read or written: {error}").into_bytes(),
        ),
        Err(payload) => (PANICKED, caught::message(payload).into_bytes()),
    };
    let mut bytes = std::mem::ManuallyDrop::new(bytes);
    // SAFETY: the caller's promise.
    unsafe {
        answer.write(Answer {
            status,
            data: bytes.as_mut_ptr(),
            len: bytes.len(),
            capacity: bytes.capacity(),
            drop: free,
        });
    }
}

/// The bytes of slice `index`, and its number.
fn piece(slices: &[Slice], index: usize) -> Result<(&[u8], u64), CodecError> {
    match slices.get(index) {
        None => Err(CodecError::Custom(format!("argument {index} was not sent"))),
        Some(Slice { len: 0, id, .. }) => Ok((&[], *id)),
        Some(Slice { data, len, id }) => {
            // SAFETY: the runtime lends it for the length of the call.
            let bytes = unsafe { std::slice::from_raw_parts(*data, *len) };
            Ok((bytes, *id))
        }
    }
}

fn encoded<T: Serialize>(value: &T) -> Result<(u32, Vec<u8>), CodecError> {
    Ok((OK, codec::encode(value)?.into_vec()))
}

fn encoded_chunk<R: Serialize>(chunk: &Chunk<R>) -> Result<(u32, Vec<u8>), CodecError> {
    let status = if chunk.failed.is_empty() { OK } else { PARTLY };
    Ok((status, codec::encode(chunk)?.into_vec()))
}

/// Calls `F` once.
pub(crate) unsafe extern "C" fn apply<F, A, R>(slices: *const Slice, count: usize, out: *mut Answer)
where
    F: Fn(A) -> R,
    A: Portable,
    R: Portable,
{
    let mut call = |slices: &[Slice]| {
        let argument = codec::decode::<A>(piece(slices, 0)?.0)?;
        // SAFETY: whoever asks for this call gave the function away.
        let function = unsafe { Code::<F>::get() };
        encoded(&function(argument))
    };
    // SAFETY: the caller's promise.
    unsafe { answer(slices, count, out, &mut call) }
}

/// Calls `F`, the body of a `%%parallel`, once, with the value in the second slice besides the argument in the first. A value without bytes isn't sent.
pub(crate) unsafe extern "C" fn apply_with<F, S, A, R>(
    slices: *const Slice,
    count: usize,
    out: *mut Answer,
) where
    F: Fn(&S, A) -> R,
    S: Portable + Sync,
    A: Portable,
    R: Portable,
{
    let mut call = |slices: &[Slice]| {
        let argument = codec::decode::<A>(piece(slices, 0)?.0)?;
        let (bytes, id) = match slices.len() {
            0 | 1 => (&[][..], 0),
            _ => piece(slices, 1)?,
        };
        let shared = kept::decoded::<S>(bytes, id)?;
        // SAFETY: whoever asks for this call gave the body away.
        let function = unsafe { Code::<F>::get_body() };
        encoded(&function(&shared, argument))
    };
    // SAFETY: the caller's promise.
    unsafe { answer(slices, count, out, &mut call) }
}

/// Calls `call` for each item; a panic costs its own item only.
fn each<A, R>(items: Vec<A>, call: impl Fn(A) -> R) -> Chunk<R> {
    let mut chunk = Chunk {
        values: Vec::with_capacity(items.len()),
        failed: Vec::new(),
    };
    let catching = caught::catching();
    for (index, item) in items.into_iter().enumerate() {
        match catch_unwind(AssertUnwindSafe(|| call(item))) {
            Ok(value) => chunk.values.push(value),
            Err(payload) => chunk
                .failed
                .push(Mark::new(index, catching.panicked(payload))),
        }
    }
    chunk
}

/// Calls `F` for each of the items in the first slice.
pub(crate) unsafe extern "C" fn map<F, A, R>(slices: *const Slice, count: usize, out: *mut Answer)
where
    F: Fn(A) -> R,
    A: Portable,
    R: Portable,
{
    let mut call = |slices: &[Slice]| {
        let items = codec::decode::<Vec<A>>(piece(slices, 0)?.0)?;
        // SAFETY: as in `apply`.
        let function = unsafe { Code::<F>::get() };
        encoded_chunk(&each(items, function))
    };
    // SAFETY: the caller's promise.
    unsafe { answer(slices, count, out, &mut call) }
}

/// Calls `F` for each of the items in the first slice, together with the value in the second.
pub(crate) unsafe extern "C" fn map_with<F, S, A, R>(
    slices: *const Slice,
    count: usize,
    out: *mut Answer,
) where
    F: Fn(&S, A) -> R,
    S: Portable + Sync,
    A: Portable,
    R: Portable,
{
    let mut call = |slices: &[Slice]| {
        let items = codec::decode::<Vec<A>>(piece(slices, 0)?.0)?;
        let (bytes, id) = piece(slices, 1)?;
        let shared = kept::decoded::<S>(bytes, id)?;
        // SAFETY: as in `apply`.
        let function = unsafe { Code::<F>::get() };
        encoded_chunk(&each(items, |item| function(&shared, item)))
    };
    // SAFETY: the caller's promise.
    unsafe { answer(slices, count, out, &mut call) }
}

/// Calls `F` for each of the items and `M` to make one value of the results, in the items' order. The chunk has that value, or none if
/// there were no items or all of them failed.
pub(crate) unsafe extern "C" fn map_reduce<F, M, A, R>(
    slices: *const Slice,
    count: usize,
    out: *mut Answer,
) where
    F: Fn(A) -> R,
    M: Fn(R, R) -> R,
    A: Portable,
    R: Portable,
{
    let mut call = |slices: &[Slice]| {
        let items = codec::decode::<Vec<A>>(piece(slices, 0)?.0)?;
        // SAFETY: as in `apply`, for both.
        let (function, merge) = unsafe { (Code::<F>::get(), Code::<M>::get()) };
        let mut merged: Option<R> = None;
        let mut failed = Vec::new();
        let catching = caught::catching();
        for (index, item) in items.into_iter().enumerate() {
            match catch_unwind(AssertUnwindSafe(|| function(item))) {
                Ok(value) => {
                    // A panic of `M` is the whole call's: what it merged so far is lost with it.
                    merged = Some(match merged.take() {
                        Some(before) => catching.paused(|| merge(before, value)),
                        None => value,
                    });
                }
                Err(payload) => failed.push(Mark::new(index, catching.panicked(payload))),
            }
        }
        encoded_chunk(&Chunk {
            values: merged.into_iter().collect(),
            failed,
        })
    };
    // SAFETY: the caller's promise.
    unsafe { answer(slices, count, out, &mut call) }
}
