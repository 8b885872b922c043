//! Frames on a stream.

use crate::codec;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::io::{Error, ErrorKind, Read, Result, Write};

/// The longest frame, in bytes.
pub const MOST: usize = 1 << 30;

/// How much is read before memory for more is asked for: a length alone takes no memory.
const STEP: u64 = 1 << 20;

/// Writes one frame.
///
/// # Errors
/// Those of the stream, and a frame longer than [`MOST`].
pub fn write<T: Serialize>(mut stream: impl Write, message: &T) -> Result<()> {
    let mut frame = vec![0; 4];
    codec::encode_into(message, &mut frame)
        .map_err(|error| Error::new(ErrorKind::InvalidInput, error))?;
    let length = frame.len() - 4;
    if length > MOST {
        return Err(Error::new(
            ErrorKind::InvalidInput,
            format!(
                "a message of {length} bytes is longer than the {MOST} bytes that can be sent at once"
            ),
        ));
    }
    for (to, from) in frame.iter_mut().zip((length as u32).to_le_bytes()) {
        *to = from;
    }
    stream.write_all(&frame)
}

/// Reads one frame; nothing at the end of the stream.
///
/// # Errors
/// Those of the stream, and what is no frame.
pub fn read<T: DeserializeOwned>(mut stream: impl Read) -> Result<Option<T>> {
    let mut length = [0; 4];
    match stream.read_exact(&mut length) {
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(None),
        done => done?,
    }
    let length = u32::from_le_bytes(length);
    if length as usize > MOST {
        return Err(Error::new(
            ErrorKind::InvalidData,
            "a frame is longer than frames can be",
        ));
    }
    let mut frame = Vec::with_capacity(u64::from(length).min(STEP) as usize);
    let got = stream.take(length.into()).read_to_end(&mut frame)?;
    if got < length as usize {
        return Err(ErrorKind::UnexpectedEof.into());
    }
    codec::decode(&frame)
        .map(Some)
        .map_err(|error| Error::new(ErrorKind::InvalidData, error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{Down, News, Up};

    #[test]
    fn frames_follow_each_other() {
        let frames = [
            Down::Engines(vec![0, 1, 7]),
            Down::Tasks(vec![News::Started {
                id: 3,
                engine: 1,
                at: 1.5,
            }]),
        ];
        let mut bytes = Vec::new();
        for frame in &frames {
            write(&mut bytes, frame).unwrap();
        }
        let mut stream = bytes.as_slice();
        for frame in frames {
            assert_eq!(read::<Down>(&mut stream).unwrap(), Some(frame));
        }
        assert_eq!(read::<Down>(&mut stream).unwrap(), None);
    }

    #[test]
    fn what_is_no_frame_is_an_error() {
        assert!(read::<Up>([1, 0, 0, 0, 200].as_slice()).is_err());
        assert!(read::<Up>([9, 0, 0, 0, 0].as_slice()).is_err());
        assert!(read::<Up>([255, 255, 255, 255].as_slice()).is_err());
    }
}
