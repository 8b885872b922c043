//! Values that many calls share, decoded once in each process.

use crate::codec::{self, CodecError};
use crate::portable::Portable;
use std::any::Any;
use std::sync::{Arc, Mutex, PoisonError};

/// How many bytes of encoded values are kept decoded, besides the last one.
const ENOUGH: usize = 256 << 20;

struct Entry {
    id: u64,
    /// The function that decoded it. To rustc, a type that a later cell defines anew is the same type, but its functions are others.
    decoder: usize,
    length: usize,
    value: Arc<dyn Any + Send + Sync>,
}

static KEPT: Mutex<Vec<Entry>> = Mutex::new(Vec::new());

/// The value in `bytes`, decoded now or, if `id` isn't 0, before.
pub(super) fn decoded<S: Portable + Sync>(bytes: &[u8], id: u64) -> Result<Arc<S>, CodecError> {
    let decoder = codec::decode::<S> as fn(&[u8]) -> Result<S, CodecError> as usize;
    // Held while decoding: other threads would only do the same work.
    let mut kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
    if id != 0
        && let Some(at) = kept
            .iter()
            .position(|entry| entry.id == id && entry.decoder == decoder)
    {
        let entry = kept.remove(at);
        let value = Arc::clone(&entry.value);
        kept.push(entry);
        if let Ok(value) = value.downcast() {
            return Ok(value);
        }
    }
    let value = Arc::new(codec::decode::<S>(bytes)?);
    if id != 0 {
        let mut total = bytes.len();
        let within = kept.iter().rev().take_while(|entry| {
            total = total.saturating_add(entry.length);
            total <= ENOUGH
        });
        let old = kept.len() - within.count();
        kept.drain(..old);
        kept.push(Entry {
            id,
            decoder,
            length: bytes.len(),
            value: Arc::<S>::clone(&value),
        });
    }
    Ok(value)
}
