//! Frames between `Bytes` and ZeroMQ's messages, with no copy of bulk data where either side can lend its memory.

use bytes::Bytes;
use zmq::{DONTWAIT, SNDMORE};

/// Frames below this many bytes are copied: cheaper than sharing, and a small frame does not pin ZeroMQ's 8 KiB receive buffer.
const BULK: usize = 8192;

/// Receives one multipart message.
///
/// # Errors
/// `EAGAIN` when there is none.
pub(super) fn receive(socket: &zmq::Socket) -> zmq::Result<Vec<Bytes>> {
    let mut frames = Vec::with_capacity(8);
    loop {
        let message = retried(|| socket.recv_msg(DONTWAIT))?;
        let more = message.get_more();
        frames.push(if message.len() < BULK {
            Bytes::copy_from_slice(&message)
        } else {
            Bytes::from_owner(Lent(message))
        });
        if !more {
            return Ok(frames);
        }
    }
}

/// Sends one multipart message, without waiting.
///
/// # Errors
/// `EHOSTUNREACH` when the identity in the first frame is nobody's, `EAGAIN` when there is no peer.
pub(super) fn send(socket: &zmq::Socket, frames: Vec<Bytes>) -> zmq::Result<()> {
    let mut frames = frames.into_iter().peekable();
    while let Some(frame) = frames.next() {
        let more = if frames.peek().is_some() { SNDMORE } else { 0 };
        // A refused first frame means that the others must not follow; ZeroMQ refuses no later ones.
        socket.send(message(frame), DONTWAIT | more)?;
    }
    Ok(())
}

fn message(frame: Bytes) -> zmq::Message {
    // Memory that is nobody else's goes to ZeroMQ as it is.
    if frame.len() >= BULK && frame.is_unique() {
        Vec::from(frame).into()
    } else {
        (&frame[..]).into()
    }
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
