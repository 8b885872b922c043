//! A value that stays on the engines from call to call.

use crate::error::Error;
use crate::link::Link;
use crate::portable::Portable;
use crate::submit::{self, Sent};
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

/// A value that was sent for any number of calls, made by [`Client::share`](crate::Client::share) and used by `map_shared`. Each engine gets it
/// with its first call and keeps it, decoded, until the last clone of this is dropped (or until it needs the memory; then it gets it again).
pub struct Shared<S> {
    sent: Arc<Sent>,
    bytes: usize,
    value: PhantomData<fn() -> S>,
}

impl<S> Clone for Shared<S> {
    fn clone(&self) -> Shared<S> {
        Shared {
            sent: Arc::clone(&self.sent),
            bytes: self.bytes,
            value: PhantomData,
        }
    }
}

impl<S> fmt::Debug for Shared<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = std::any::type_name::<S>();
        write!(f, "Shared<{name}>({} bytes)", self.bytes)
    }
}

impl<S: Portable + Sync> Shared<S> {
    pub(crate) fn new(link: &Arc<Link>, value: &S) -> Result<Shared<S>, Error> {
        let encoded = submit::encode(value)?;
        Ok(Shared {
            bytes: encoded.len(),
            sent: Arc::new(Sent::new(link, encoded)?),
            value: PhantomData,
        })
    }
}

impl<S> Shared<S> {
    /// Its number, if it was sent over this connection.
    pub(super) fn id_for(&self, link: &Arc<Link>) -> Result<u64, Error> {
        if Arc::ptr_eq(self.sent.link(), link) {
            return Ok(self.sent.id);
        }
        Err(Error::Refused {
            reason: "the shared value belongs to another client: share it with the client whose view is called"
                .to_owned(),
        })
    }
}
