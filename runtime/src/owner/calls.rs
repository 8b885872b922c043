//! A call on its way out and back: pieces are put into packets or shared memory, results are taken from there.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;

use crate::call::{Call, CallOutcome, Data, Piece, Span, Value};
use crate::event::RunId;
use crate::memory::{self, Mapping};
use crate::wire::{CallEnd, INLINE, Place, Request};

/// A call that is ready to be sent, as often as it takes.
#[derive(Debug, Clone)]
pub(super) struct Prepared {
    pub(super) id: RunId,
    /// A [`Request`], and what it has inline; or why there is none.
    pub(super) payload: Result<Bytes, String>,
    pub(super) memory: Option<Arc<OwnedFd>>,
}

/// Takes a call apart. Long pieces are copied into shared memory here.
pub(super) fn prepare(call: &Call) -> Prepared {
    let id = call.id;
    match pack(call) {
        Ok((payload, memory)) => Prepared {
            id,
            payload: Ok(payload.into()),
            memory: memory.map(Arc::new),
        },
        Err(error) => Prepared {
            id,
            payload: Err(format!("the call cannot be sent: {error}")),
            memory: None,
        },
    }
}

fn pack(call: &Call) -> io::Result<(Vec<u8>, Option<OwnedFd>)> {
    let path = |path: &Path| path.as_os_str().as_bytes().to_vec();
    let (mut inline, mut long): (Vec<&[u8]>, Vec<&[u8]>) = (Vec::new(), Vec::new());
    let mut inline_bytes = 0;
    let mut pieces = Vec::with_capacity(call.pieces.len());
    for piece in &call.pieces {
        let (id, data) = match piece {
            Piece::Once(data) => (0, Some(data)),
            Piece::Keep { id, data } => (id.get(), Some(data)),
            Piece::Kept { id } => (id.get(), None),
        };
        let place = match data {
            None => Place::Kept,
            Some(Data::File {
                path: at,
                start,
                length,
            }) => Place::File {
                path: path(at),
                start: *start,
                length: *length,
            },
            Some(Data::Bytes(bytes)) => {
                let length = bytes.len() as u64;
                if inline_bytes + bytes.len() <= INLINE {
                    inline_bytes += bytes.len();
                    inline.push(bytes);
                    Place::Inline { length }
                } else {
                    long.push(bytes);
                    Place::Memory { start: 0, length }
                }
            }
        };
        pieces.push(crate::wire::Piece { id, place });
    }
    let mut memory = None;
    if !long.is_empty() {
        let (made, starts) = memory::sealed(&long)?;
        memory = Some(made);
        let places = pieces
            .iter_mut()
            .filter_map(|piece| match &mut piece.place {
                Place::Memory { start, .. } => Some(start),
                _ => None,
            });
        for (place, start) in places.zip(starts) {
            *place = start;
        }
    }
    let request = Request {
        artifact: path(&call.artifact),
        offset: call.offset,
        pieces,
        answer_file: call.answer_file.as_deref().map(path),
    };
    let mut payload = postcard::to_extend(&request, Vec::with_capacity(inline_bytes + 256))
        .map_err(io::Error::other)?;
    for bytes in inline {
        payload.extend_from_slice(bytes);
    }
    Ok((payload, memory))
}

/// How a call ended, by what the worker says; `None` when it was cancelled before it began.
pub(super) fn outcome(
    end: CallEnd,
    payload: Bytes,
    memory: Option<OwnedFd>,
) -> Option<CallOutcome> {
    Some(match end {
        CallEnd::Returned => CallOutcome::Returned(Value::Bytes(payload)),
        CallEnd::InMemory { length } => {
            let mapped = match memory {
                Some(memory) => Mapping::of_sealed(&memory, 0, length),
                None => Err(io::Error::other("it did not come along")),
            };
            match mapped {
                Ok(mapping) => CallOutcome::Returned(Value::Bytes(Bytes::from_owner(mapping))),
                Err(error) => CallOutcome::Failed {
                    error: format!("its result of {length} bytes cannot be mapped: {error}"),
                },
            }
        }
        CallEnd::InFile { length } => CallOutcome::Returned(Value::File { length }),
        CallEnd::Failed { error } => CallOutcome::Failed { error },
        CallEnd::Panicked(panic) => CallOutcome::Panicked(panic),
        CallEnd::NotRun { error } => CallOutcome::NotRun { error },
        CallEnd::Missing { ids } => CallOutcome::MissingShared {
            ids: ids
                .into_iter()
                .filter_map(|id| id.try_into().ok())
                .collect(),
        },
        CallEnd::Cancelled => return None,
    })
}

/// The worker's two points in time.
pub(super) fn span([began, ended]: [u64; 2]) -> Option<Span> {
    let at = |nanoseconds| SystemTime::UNIX_EPOCH + Duration::from_nanos(nanoseconds);
    (began != 0 && ended != 0).then(|| Span {
        began: at(began),
        ended: at(ended),
    })
}
