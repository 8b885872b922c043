//! The child's end of a socket to the owner: blocking, a message at a time.

use std::io;
use std::ops::Range;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::packet;
use crate::wire::{Assembler, PACKET, Received, first_of, joined, packets};

/// One end of a `SOCK_SEQPACKET` pair.
#[derive(Debug)]
pub(super) struct Channel {
    fd: OwnedFd,
    assembler: Assembler,
    buffer: Vec<u8>,
    /// Messages in the buffer that nobody has taken.
    waiting: Range<usize>,
}

impl Channel {
    pub(super) fn new(fd: OwnedFd) -> Channel {
        Channel {
            fd,
            assembler: Assembler::default(),
            buffer: Vec::new(),
            waiting: 0..0,
        }
    }

    pub(super) fn raw(&self) -> RawFd {
        self.fd.as_raw_fd()
    }

    /// Sends a message, waiting while the owner is behind.
    pub(super) fn send<M: Serialize>(&self, message: &M) -> io::Result<()> {
        self.send_with(message, &[], None)
    }

    /// As [`Self::send`], with a payload and a descriptor.
    pub(super) fn send_with<M: Serialize>(
        &self,
        message: &M,
        payload: &[u8],
        passed: Option<&OwnedFd>,
    ) -> io::Result<()> {
        let mut passed = passed.map(AsRawFd::as_raw_fd);
        for packet in packets(message, payload)? {
            while done_or_again(packet::send(self.raw(), &packet, passed))?.is_none() {}
            passed = None;
        }
        Ok(())
    }

    /// Whether a message came with an earlier one, so that there is nothing to wait for.
    pub(super) fn has_more(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Waits for a message; `None` when the owner closed its end.
    pub(super) fn receive<M: DeserializeOwned>(&mut self) -> io::Result<Option<Received<M>>> {
        loop {
            if self.has_more() {
                let messages = self.buffer.get(self.waiting.clone()).unwrap_or_default();
                // Where the next one begins is not known if this one can't be read.
                let (received, taken) = first_of(messages).inspect_err(|_| self.waiting = 0..0)?;
                self.waiting.start += taken;
                return Ok(Some(received));
            }
            match self.receive_packet(0)? {
                Some((0, _)) => return Ok(None),
                Some((length, passed)) => {
                    let packet = self.buffer.get(..length).unwrap_or_default();
                    if let Some(messages) = joined(packet) {
                        self.waiting = length - messages.len()..length;
                    } else if let Some(received) = self.assembler.push(packet, passed)? {
                        return Ok(Some(received));
                    }
                }
                None => {}
            }
        }
    }

    /// Throws away what was sent to a worker that is no more.
    pub(super) fn discard(&mut self) {
        while let Ok(Some((1.., _)) | None) = self.receive_packet(libc::MSG_DONTWAIT) {}
        self.forget();
    }

    /// Throws away what was read and not taken.
    pub(super) fn forget(&mut self) {
        self.assembler = Assembler::default();
        self.waiting = 0..0;
    }

    /// The packet's length and what came with it; 0 at the end; `None` when a signal came between.
    fn receive_packet(&mut self, flags: i32) -> io::Result<Option<(usize, Option<OwnedFd>)>> {
        self.buffer.resize(PACKET, 0);
        done_or_again(packet::receive(
            self.fd.as_raw_fd(),
            &mut self.buffer,
            flags,
        ))
    }
}

/// `None` when a signal interrupted the system call.
fn done_or_again<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(done) => Ok(Some(done)),
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(None),
        Err(error) => Err(error),
    }
}
