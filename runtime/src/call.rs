//! Closures that are called in a runtime: what goes in, what comes back.
//!
//! A closure without captures is a function of its cell's shared object. The owner names object and offset; the worker calls
//!
//! ```c
//! void trampoline(const Slice *pieces, size_t count, Answer *answer);
//!
//! typedef struct { const uint8_t *data; size_t len; uint64_t id; } Slice;
//! typedef struct {
//!     uint32_t status;    // 0: data is the result. 1: data is an error's text. 2: it panicked. 3: data is the result, but some of it failed
//!     uint8_t *data; size_t len; size_t capacity;
//!     void (*drop)(uint8_t *data, size_t len, size_t capacity);   // null when there is nothing to give back
//! } Answer;
//! ```
//!
//! Pieces are aligned to 16 bytes and live until the trampoline returns. A piece with an id other than 0 is kept: as long as it is, the
//! trampoline gets it at the same place with the same bytes, so it may cache what it decoded by id. The trampoline lets no panic out. The
//! hook of the support library reports one; `data` is its message only where that hook was not there to see it.

use std::num::NonZeroU64;
use std::path::PathBuf;
use std::time::SystemTime;

use bytes::Bytes;

use crate::event::{Cause, Panic, Restored, RunId};

/// A function of an artifact that is to be called.
#[derive(Debug, Clone)]
pub struct Call {
    /// Names this call; no run or other call of this [`Runtime`](crate::Runtime) has the same.
    pub id: RunId,
    /// The shared object, loaded when it has not been. It must stay as it is for as long as the runtime lives.
    pub artifact: PathBuf,
    /// Where the trampoline begins, in bytes from where the object is loaded. It must lie in the object's code.
    pub offset: u64,
    /// What it gets, in this order; by convention the arguments first and then what calls share.
    pub pieces: Vec<Piece>,
    /// Where to put a result of more than 32 kB: a file that does not exist yet, by preference in `/dev/shm`. Whoever reads it removes
    /// it. Without, or when that finds no room, results of any length come back as bytes.
    pub answer_file: Option<PathBuf>,
}

/// A piece of what a closure gets.
#[derive(Debug, Clone)]
pub enum Piece {
    /// For this call only.
    Once(Data),
    /// For this call and later ones that name it. Whoever makes ids takes care that they are unique (random, say): a piece that comes
    /// under an id that is there already is not looked at.
    Keep {
        /// Its name.
        id: NonZeroU64,
        /// Its bytes.
        data: Data,
    },
    /// What an earlier call left here, if it still is: see [`CallOutcome::MissingShared`].
    Kept {
        /// Its name.
        id: NonZeroU64,
    },
}

/// Where bytes are.
#[derive(Debug, Clone)]
pub enum Data {
    /// Here. More than 256 kB in a call go by shared memory, into which [`Runtime::call`](crate::Runtime::call) copies them.
    Bytes(Bytes),
    /// In a file that the worker maps, by preference in `/dev/shm`. It may be removed when the call has ended, also if it is kept;
    /// or written over, if no call will name what is kept again.
    File {
        /// A regular file that nobody shortens.
        path: PathBuf,
        /// Where it begins there: a multiple of the page size.
        start: u64,
        /// In bytes.
        length: u64,
    },
}

/// How a call ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CallOutcome {
    /// With this result.
    Returned(Value),
    /// With this result of what went well; what did not is told in it, in the trampoline's own way.
    Partly(Value),
    /// The trampoline could not decode what it got or encode what came out, or the closure returned an error.
    Failed {
        /// In its own words.
        error: String,
    },
    /// The closure unwound.
    Panicked(Panic),
    /// It was not called: its artifact could not be loaded or has no code at the offset, or a piece could not be had.
    NotRun {
        /// What stands in the way.
        error: String,
    },
    /// It was not called: pieces of these ids are not kept (any more, or since the worker died). Pieces that came with the call and
    /// were to be kept are.
    MissingShared {
        /// In the order in which the call names them.
        ids: Vec<NonZeroU64>,
    },
    /// The process died of it. The namespace is as it was, unless `restored` says otherwise.
    Died {
        /// Of what.
        cause: Cause,
        /// What is left of the namespace.
        restored: Restored,
    },
    /// It was interrupted, or the runtime was restarted or shut down before it ended.
    Interrupted {
        /// What is left of the namespace.
        restored: Restored,
    },
}

/// A closure's result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// These bytes; long ones are mapped memory, which is given back when the last clone is dropped.
    Bytes(Bytes),
    /// In [`Call::answer_file`].
    File {
        /// In bytes.
        length: u64,
    },
}

/// When a call ran, by the worker's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// Its pieces were there, and the artifact's function was about to be called.
    pub began: SystemTime,
    /// It had returned, and its result was ready to be sent.
    pub ended: SystemTime,
}
