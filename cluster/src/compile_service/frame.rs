//! Frames: a length (four bytes, big-endian), then that many bytes of JSON.

use std::io::{self, Read};

use bytes::{Buf, BytesMut};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// The longest message, in bytes.
pub const FRAME_LIMIT_BYTES: usize = 64 << 20;
/// How much longer a message may be when it is read: the front passes payloads on with ids of its own.
const READ_ALLOWANCE_BYTES: usize = 4096;
const PREFIX_BYTES: usize = 4;
/// How much room there is for what is read next, at least and at most.
const READ_BYTES: std::ops::RangeInclusive<usize> = 8 << 10..=1 << 20;

/// A frame that cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The system's error; `UnexpectedEof` for a connection that ends within a frame.
    #[error("the connection is broken")]
    Io(#[from] io::Error),
    /// The message is too long.
    #[error("a message has {bytes} bytes, but {FRAME_LIMIT_BYTES} is the limit")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// The message is not what it should be.
    #[error("a message cannot be understood")]
    Json(#[from] serde_json::Error),
}

/// Renders a message with its length.
pub(super) fn encode<T: Serialize>(message: &T) -> Result<Vec<u8>, FrameError> {
    let mut frame = vec![0; PREFIX_BYTES];
    serde_json::to_writer(&mut frame, message)?;
    let bytes = frame.len() - PREFIX_BYTES;
    let length = u32::try_from(bytes)
        .ok()
        .filter(|_| bytes <= FRAME_LIMIT_BYTES)
        .ok_or(FrameError::TooLong { bytes })?;
    for (to, from) in frame.iter_mut().zip(length.to_be_bytes()) {
        *to = from;
    }
    Ok(frame)
}

fn check_length(prefix: [u8; PREFIX_BYTES]) -> Result<usize, FrameError> {
    // Does not fail where pointers have 32 bits.
    let bytes = usize::try_from(u32::from_be_bytes(prefix)).unwrap_or(usize::MAX);
    if bytes > FRAME_LIMIT_BYTES + READ_ALLOWANCE_BYTES {
        return Err(FrameError::TooLong { bytes });
    }
    Ok(bytes)
}

/// Reads a message; `None` at the end of the stream.
pub(super) fn read_blocking<T: DeserializeOwned>(
    source: &mut impl Read,
) -> Result<Option<T>, FrameError> {
    let mut prefix = [0; PREFIX_BYTES];
    if source.read(&mut prefix[..1])? == 0 {
        return Ok(None);
    }
    source.read_exact(&mut prefix[1..])?;
    let length = check_length(prefix)?;
    let mut frame = Vec::new();
    source.take(length as u64).read_to_end(&mut frame)?;
    if frame.len() < length {
        return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
    }
    Ok(Some(serde_json::from_slice(&frame)?))
}

/// Reads messages from a stream.
#[derive(Debug)]
pub(super) struct FrameReader<R> {
    source: R,
    buffer: BytesMut,
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    pub(super) fn new(source: R) -> Self {
        Self {
            source,
            buffer: BytesMut::new(),
        }
    }

    /// Reads a message; `None` at the end of the stream. Nothing is lost when the future is dropped.
    pub(super) async fn next<T: DeserializeOwned>(&mut self) -> Result<Option<T>, FrameError> {
        loop {
            let mut missing = 0;
            if let Some((prefix, rest)) = self.buffer.split_first_chunk::<PREFIX_BYTES>() {
                let length = check_length(*prefix)?;
                if let Some(frame) = rest.get(..length) {
                    let message = serde_json::from_slice(frame);
                    self.buffer.advance(PREFIX_BYTES + length);
                    return Ok(Some(message?));
                }
                missing = length - rest.len();
            }
            let room = missing.clamp(*READ_BYTES.start(), *READ_BYTES.end());
            self.buffer.reserve(room);
            if self.source.read_buf(&mut self.buffer).await? == 0 {
                if self.buffer.is_empty() {
                    return Ok(None);
                }
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
        }
    }
}

/// Takes frames for a stream that a task writes. The task ends when the sender is dropped and everything is written, or when
/// the stream is broken, which its reader notices too.
pub(super) fn spawn_writer(
    mut stream: impl AsyncWrite + Unpin + Send + 'static,
) -> (mpsc::UnboundedSender<Vec<u8>>, JoinHandle<()>) {
    let (sender, mut frames) = mpsc::unbounded_channel::<Vec<u8>>();
    let task = tokio::spawn(async move {
        while let Some(frame) = frames.recv().await {
            if let Err(error) = stream.write_all(&frame).await {
                tracing::debug!(%error, "failed to write to a peer");
                return;
            }
        }
    });
    (sender, task)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[tokio::test]
    async fn messages_come_as_they_were_sent() {
        let mut bytes = encode(&json!({"a": 1})).unwrap();
        bytes.extend(encode(&json!("b")).unwrap());
        // One byte at a time.
        let (mut to, from) = tokio::io::duplex(1);
        let mut reader = FrameReader::new(from);
        let mut blocking = bytes.as_slice();
        for expected in [json!({"a": 1}), json!("b")] {
            let read: Option<Value> = read_blocking(&mut blocking).unwrap();
            assert_eq!(read.as_ref(), Some(&expected));
        }
        assert!(read_blocking::<Value>(&mut blocking).unwrap().is_none());
        let sent = bytes.clone();
        let writer = tokio::spawn(async move { to.write_all(&sent).await });
        assert_eq!(reader.next().await.unwrap(), Some(json!({"a": 1})));
        assert_eq!(reader.next().await.unwrap(), Some(json!("b")));
        writer.await.unwrap().unwrap();
        assert!(reader.next::<Value>().await.unwrap().is_none());
    }

    #[tokio::test]
    async fn what_is_no_message_is_an_error() {
        let cases: [&[u8]; 5] = [
            b"\xff\xff\xff\xff",
            b"GET / HTTP/1.1\r\n\r\n",
            b"\0\0\0\x02{",
            b"\0\0",
            b"\0\0\0\x02{]",
        ];
        for bytes in cases {
            let mut reader = FrameReader::new(bytes);
            assert!(reader.next::<Value>().await.is_err(), "{bytes:?}");
            let mut blocking = bytes;
            assert!(read_blocking::<Value>(&mut blocking).is_err(), "{bytes:?}");
        }
    }

    #[test]
    fn a_long_message_is_refused() {
        let text = "x".repeat(FRAME_LIMIT_BYTES);
        assert!(matches!(encode(&text), Err(FrameError::TooLong { .. })));
        assert!(encode(&&text[2..]).is_ok());
    }
}
