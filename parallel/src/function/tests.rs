//! Trampolines, called as an engine would.

use super::trampoline::Chunk;
use super::*;
use crate::codec;
use crate::portable::Portable;
use serde::Serialize;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Calls a trampoline with these pieces; status and bytes of the answer.
fn call(trampoline: Trampoline, pieces: &[(&[u8], u64)]) -> (u32, Vec<u8>) {
    let slices: Vec<Slice> = pieces
        .iter()
        .map(|(bytes, id)| Slice {
            data: bytes.as_ptr(),
            len: bytes.len(),
            id: *id,
        })
        .collect();
    let mut answer = MaybeUninit::<Answer>::uninit();
    // SAFETY: as the runtime does it.
    unsafe {
        trampoline(slices.as_ptr(), slices.len(), answer.as_mut_ptr());
        let answer = answer.assume_init();
        let bytes = std::slice::from_raw_parts(answer.data, answer.len).to_vec();
        (answer.drop)(answer.data, answer.len, answer.capacity);
        (answer.status, bytes)
    }
}

fn bytes<T: Serialize>(value: &T) -> Vec<u8> {
    codec::encode(value).unwrap().into_vec()
}

fn of_apply<F: Fn(A) -> R, A: Portable, R: Portable>(function: F) -> Trampoline {
    Code::take(function);
    apply::<F, A, R>
}

fn of_map<F: Fn(A) -> R, A: Portable, R: Portable>(function: F) -> Trampoline {
    Code::take(function);
    map::<F, A, R>
}

fn twice<T: std::ops::Add<Output = T> + Copy>(value: T) -> T {
    value + value
}

#[test]
fn closures_functions_and_generic_ones() {
    assert_eq!(call(of_apply(|x: u8| x + 1), &[(&[4], 0)]), (0, vec![5]));
    assert_eq!(
        call(of_apply(u16::swap_bytes), &[(&[1, 0], 0)]),
        (0, vec![0, 1])
    );
    assert_eq!(call(of_apply(twice::<u8>), &[(&[4], 0)]), (0, vec![8]));
    assert_eq!(call(of_apply(|()| ()), &[(&[], 0)]), (0, vec![]));
}

#[test]
fn panics_and_bad_bytes_are_answers() {
    let (status, text) = call(of_apply(|x: u8| 10 / x), &[(&[0], 0)]);
    assert_eq!(
        (status, text.as_slice()),
        (2, b"attempt to divide by zero".as_slice())
    );
    let (status, text) = call(of_apply(|x: u8| x), &[(&[], 0)]);
    assert_eq!(status, 1, "{}", String::from_utf8_lossy(&text));
    let (status, _) = call(of_apply(|x: u8| x), &[]);
    assert_eq!(status, 1);
}

#[test]
fn one_item_fails_and_the_others_are_kept() {
    let trampoline = of_map(|x: u32| {
        assert!(x % 3 != 1, "bad {x}");
        x * 10
    });
    let (status, answer) = call(trampoline, &[(&bytes(&vec![0u32, 1, 2, 3, 4]), 0)]);
    assert_eq!(status, 3);
    let chunk: Chunk<u32> = codec::decode(&answer).unwrap();
    assert_eq!(chunk.values, [0, 20, 30]);
    let failed: Vec<_> = chunk
        .failed
        .iter()
        .map(|mark| (mark.index, mark.message.as_str()))
        .collect();
    assert_eq!(failed, [(1, "bad 1"), (4, "bad 4")]);
    assert!(
        chunk.failed[0].file.ends_with("tests.rs") && chunk.failed[0].line > 50,
        "{chunk:?}"
    );
}

#[test]
fn a_shared_value_is_decoded_once() {
    static DECODED: AtomicUsize = AtomicUsize::new(0);
    #[derive(serde::Serialize)]
    struct Costly(u32);
    impl<'de> serde::Deserialize<'de> for Costly {
        fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            DECODED.fetch_add(1, Ordering::SeqCst);
            u32::deserialize(deserializer).map(Costly)
        }
    }
    fn of<F: Fn(&S, A) -> R, S: Portable + Sync, A: Portable, R: Portable>(
        function: F,
    ) -> Trampoline {
        Code::take(function);
        map_with::<F, S, A, R>
    }
    let trampoline = of(|shared: &Costly, x: u32| shared.0 + x);
    let items = bytes(&vec![1u32, 2]);
    let run = |value: u32, id| {
        let (status, answer) = call(trampoline, &[(&items, 0), (&bytes(&value), id)]);
        assert_eq!(status, 0);
        codec::decode::<Chunk<u32>>(&answer).unwrap().values
    };
    assert_eq!(run(100, 7), [101, 102]);
    assert_eq!(run(100, 7), [101, 102]);
    assert_eq!(DECODED.load(Ordering::SeqCst), 1);
    assert_eq!(run(200, 8), [201, 202]);
    assert_eq!(run(300, 0), [301, 302]);
    assert_eq!(DECODED.load(Ordering::SeqCst), 3);
}

#[test]
fn a_place_leads_back_to_the_trampoline() {
    let trampoline = of_apply(|x: u8| x ^ 0x55);
    let place = locate(trampoline).unwrap();
    assert_eq!(place.artifact, std::env::current_exe().unwrap());
    let (_, base) = object(trampoline as usize).unwrap();
    assert_eq!(base as u64 + place.offset, trampoline as usize as u64);
    assert!(Arc::ptr_eq(&place, &locate(trampoline).unwrap()));
}
