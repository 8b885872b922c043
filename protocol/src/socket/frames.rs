//! Frames between `Bytes` and ZeroMQ's messages, with no copy of bulk data where either side can lend its memory.

use std::ffi::c_void;

use bytes::Bytes;
use zmq::{DONTWAIT, SNDMORE};

/// Frames below this many bytes are copied: cheaper than sharing, and a small frame does not pin ZeroMQ's 8 KiB receive buffer.
const BULK: usize = 8192;

/// Receives messages; keeps memory for the next one.
#[derive(Default)]
pub(super) struct Receiver {
    /// The small frames of a message, one after the other.
    small: Vec<u8>,
    /// Which frame of the message ends where.
    ends: Vec<(usize, usize)>,
}

impl Receiver {
    /// Receives one multipart message. Its small frames share one allocation, up to [`BULK`] bytes of them: a message has eight or
    /// more, and an allocation for each would be most of what a message costs.
    ///
    /// # Errors
    /// `EAGAIN` when there is none.
    pub(super) fn receive(&mut self, socket: &zmq::Socket) -> zmq::Result<Vec<Bytes>> {
        let mut frames = Vec::with_capacity(12);
        self.small.clear();
        self.ends.clear();
        loop {
            let message = retried(|| socket.recv_msg(DONTWAIT))?;
            let more = message.get_more();
            frames.push(if message.len() >= BULK {
                Bytes::from_owner(Lent(message))
            } else if self.small.len() + message.len() > BULK {
                Bytes::copy_from_slice(&message)
            } else {
                self.small.extend_from_slice(&message);
                self.ends.push((frames.len(), self.small.len()));
                Bytes::new()
            });
            if !more {
                break;
            }
        }
        let all = Bytes::copy_from_slice(&self.small);
        let mut start = 0;
        for (index, end) in &self.ends {
            if let Some(frame) = frames.get_mut(*index) {
                *frame = all.slice(start..*end);
            }
            start = *end;
        }
        Ok(frames)
    }
}

/// Sends one multipart message, without waiting.
///
/// # Errors
/// `EHOSTUNREACH` when the identity in the first frame is nobody's, `EAGAIN` when there is no peer.
pub(super) fn send(socket: &mut zmq::Socket, frames: Vec<Bytes>) -> zmq::Result<()> {
    let mut frames = frames.into_iter().peekable();
    while let Some(frame) = frames.next() {
        let flags = if frames.peek().is_some() {
            DONTWAIT | SNDMORE
        } else {
            DONTWAIT
        };
        // A refused first frame means that the others must not follow; ZeroMQ refuses no later ones.
        if frame.len() < BULK {
            socket.send(&frame[..], flags)?;
        } else {
            lend(socket, frame, flags)?;
        }
    }
    Ok(())
}

/// Sends a frame from its own memory, which the frame keeps alive until ZeroMQ is done with it. The `zmq` crate can do so only
/// with memory that nobody else has, but the same bulk goes to many engines.
fn lend(socket: &mut zmq::Socket, frame: Bytes, flags: i32) -> zmq::Result<()> {
    let (data, length) = (frame.as_ptr().cast_mut().cast(), frame.len());
    let owner = Box::into_raw(Box::new(frame)).cast();
    let mut message = zmq_sys::zmq_msg_t::default();
    // SAFETY: `data` is `length` bytes that `owner` keeps alive and unmoved until `give_back` drops it. ZeroMQ only reads what it
    // sends, over any transport that is used here. `message` is fresh.
    let made = unsafe {
        zmq_sys::zmq_msg_init_data(&raw mut message, data, length, Some(give_back), owner)
    };
    if made == -1 {
        let error = last_error();
        // SAFETY: ZeroMQ took nothing, so `owner` is still ours and was made by `Box::into_raw` above.
        drop(unsafe { Box::from_raw(owner.cast::<Bytes>()) });
        return Err(error);
    }
    let sent = retried(|| {
        // SAFETY: `message` is initialised and the socket is open. It is used by this thread only, for it is borrowed mutably.
        let sent = unsafe { zmq_sys::zmq_msg_send(&raw mut message, socket.as_mut_ptr(), flags) };
        if sent == -1 {
            Err(last_error())
        } else {
            Ok(())
        }
    });
    if sent.is_err() {
        // SAFETY: a message that was not sent is still ours; closing it calls `give_back`.
        unsafe { zmq_sys::zmq_msg_close(&raw mut message) };
    }
    sent
}

/// Drops a frame that ZeroMQ was lent; it calls this once, from one of its threads.
unsafe extern "C" fn give_back(_data: *mut c_void, owner: *mut c_void) {
    // SAFETY: `owner` is the box that `lend` made, and ZeroMQ passes it once. `Bytes` may be dropped by any thread.
    drop(unsafe { Box::from_raw(owner.cast::<Bytes>()) });
}

pub(super) fn last_error() -> zmq::Error {
    // SAFETY: reads the calling thread's error number.
    zmq::Error::from_raw(unsafe { zmq_sys::zmq_errno() })
}

/// ZeroMQ's memory, lent to `Bytes`.
struct Lent(zmq::Message);

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// Does it again when a signal came in between.
pub(super) fn retried<T>(mut call: impl FnMut() -> zmq::Result<T>) -> zmq::Result<T> {
    loop {
        match call() {
            Err(zmq::Error::EINTR) => {}
            result => return result,
        }
    }
}
