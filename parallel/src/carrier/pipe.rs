//! The stream to a program: frames in and out, without waiting for it to take them.

use crate::codec;
use crate::wire::{Down, MOST, Up};
use runtime::Watched;
use std::collections::VecDeque;
use std::io::{Error, ErrorKind, Read, Result, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;

/// Most that is read in one go: others want to be served as well.
const BURST: u64 = 1 << 20;

/// So many bytes are much for a program that doesn't read.
const MUCH: usize = 16 << 20;

/// See the module.
#[derive(Debug)]
pub(super) struct Pipe {
    stream: Watched<UnixStream>,
    inbound: Vec<u8>,
    /// How much of `inbound` has been taken.
    taken: usize,
    outbound: VecDeque<Vec<u8>>,
    /// How many bytes `outbound` has.
    waiting: usize,
    /// How much of the first of `outbound` is sent.
    sent: usize,
}

impl Pipe {
    pub(super) fn new(stream: UnixStream) -> Result<Pipe> {
        stream.set_nonblocking(true)?;
        Ok(Pipe {
            stream: Watched::new(stream)?,
            inbound: Vec::new(),
            taken: 0,
            outbound: VecDeque::new(),
            waiting: 0,
            sent: 0,
        })
    }

    /// Resolves when something can be read, or written that waits for that.
    pub(super) async fn ready(&mut self) -> Result<()> {
        self.stream.ready(!self.outbound.is_empty()).await.map(drop)
    }

    /// Takes in what has come. False at the end of the stream.
    pub(super) fn read(&mut self) -> Result<bool> {
        self.inbound.drain(..self.taken);
        self.taken = 0;
        let inbound = &mut self.inbound;
        let read = self
            .stream
            .read(|stream| stream.take(BURST).read_to_end(inbound));
        match read {
            Ok(count) => Ok(count as u64 == BURST),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// The next frame of what has come, if it is whole.
    pub(super) fn next(&mut self) -> Result<Option<Up>> {
        let waiting = self.inbound.get(self.taken..).unwrap_or_default();
        let Some((length, rest)) = waiting.split_first_chunk::<4>() else {
            return Ok(None);
        };
        let length = u32::from_le_bytes(*length) as usize;
        if length > MOST {
            return Err(Error::new(
                ErrorKind::InvalidData,
                "a frame is longer than frames can be",
            ));
        }
        let Some(frame) = rest.get(..length) else {
            return Ok(None);
        };
        let up = codec::decode(frame).map_err(|error| Error::new(ErrorKind::InvalidData, error))?;
        self.taken += 4 + length;
        Ok(Some(up))
    }

    /// Sends a frame as soon as the program takes it.
    pub(super) fn push(&mut self, down: &Down) {
        let mut frame = vec![0; 4];
        let encoded = codec::encode_into(down, &mut frame);
        let length = u32::try_from(frame.len() - 4).unwrap_or(u32::MAX);
        match (encoded, frame.first_chunk_mut::<4>()) {
            (Ok(()), Some(head)) if length as usize <= MOST => *head = length.to_le_bytes(),
            (outcome, _) => {
                return tracing::error!(?outcome, length, "a frame for a program can't be sent");
            }
        }
        self.waiting += frame.len();
        self.outbound.push_back(frame);
    }

    /// As [`Self::push`], for what may be left out: nothing if the program reads so little that much waits.
    pub(super) fn offer(&mut self, down: &Down) {
        if self.waiting < MUCH {
            self.push(down);
        }
    }

    /// Sends what the program takes now.
    pub(super) fn write(&mut self) -> Result<()> {
        while let Some(frame) = self.outbound.front() {
            let rest = frame.get(self.sent..).unwrap_or_default();
            match self.stream.get_ref().write(rest) {
                Ok(count) if count < rest.len() => self.sent += count,
                Ok(_) => {
                    self.waiting -= frame.len();
                    self.sent = 0;
                    self.outbound.pop_front();
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Whether everything that was said is on its way.
    pub(super) fn is_sent(&self) -> bool {
        self.outbound.is_empty()
    }

    /// Whether the program has read everything that was said.
    pub(super) fn is_read(&self) -> bool {
        let mut unread: libc::c_int = 0;
        // SAFETY: this request writes one number. (Of a Unix socket it tells what its peer hasn't read.)
        let asked = unsafe {
            libc::ioctl(
                self.stream.get_ref().as_raw_fd(),
                libc::TIOCOUTQ,
                &raw mut unread,
            )
        };
        self.outbound.is_empty() && asked == 0 && unread == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire;

    #[tokio::test]
    async fn frames_come_whole_and_nothing_waits_for_the_program() {
        let (here, mut program) = UnixStream::pair().unwrap();
        let mut pipe = Pipe::new(here).unwrap();
        let up = Up::Unshare { ids: vec![7; 1000] };
        let mut bytes = Vec::new();
        wire::write(&mut bytes, &up).unwrap();
        let (first, rest) = bytes.split_at(10);
        program.write_all(first).unwrap();
        pipe.ready().await.unwrap();
        assert!(pipe.read().unwrap() && pipe.next().unwrap().is_none());
        program.write_all(rest).unwrap();
        program.write_all(&bytes).unwrap();
        pipe.ready().await.unwrap();
        assert!(pipe.read().unwrap());
        assert_eq!(pipe.next().unwrap(), Some(up.clone()));
        assert_eq!(pipe.next().unwrap(), Some(up));
        assert!(pipe.next().unwrap().is_none() && pipe.is_read());

        // More than a socket holds.
        let down = Down::Gone {
            reason: "x".repeat(1 << 20),
        };
        (0..3).for_each(|_| pipe.push(&down));
        pipe.write().unwrap();
        assert!(!pipe.is_read());
        let reader = std::thread::spawn(move || {
            let mut frames = Vec::new();
            while let Some(down) = wire::read::<Down>(&program).unwrap() {
                frames.push(down);
            }
            frames
        });
        // What may be left out is when much waits already.
        pipe.waiting += MUCH;
        pipe.offer(&down);
        pipe.waiting -= MUCH;
        while !pipe.outbound.is_empty() {
            pipe.ready().await.unwrap();
            pipe.write().unwrap();
        }
        assert_eq!(pipe.waiting, 0);
        pipe.offer(&down);
        while !pipe.outbound.is_empty() {
            pipe.ready().await.unwrap();
            pipe.write().unwrap();
        }
        drop(pipe);
        assert_eq!(reader.join().unwrap(), vec![down; 4]);
    }

    #[tokio::test]
    async fn the_end_and_nonsense_are_told() {
        let (here, mut there) = UnixStream::pair().unwrap();
        let mut pipe = Pipe::new(here).unwrap();
        there.write_all(&[1, 0, 0, 0, 200]).unwrap();
        drop(there);
        pipe.ready().await.unwrap();
        assert!(!pipe.read().unwrap());
        assert!(pipe.next().is_err());
    }
}
