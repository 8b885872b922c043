//! The child's end of a socket to the owner: blocking, a message at a time.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::wire::{Assembler, PACKET, packets};

/// One end of a `SOCK_SEQPACKET` pair.
#[derive(Debug)]
pub(super) struct Channel {
    fd: OwnedFd,
    assembler: Assembler,
    buffer: Vec<u8>,
}

impl Channel {
    pub(super) fn new(fd: OwnedFd) -> Channel {
        Channel {
            fd,
            assembler: Assembler::default(),
            buffer: Vec::new(),
        }
    }

    pub(super) fn raw(&self) -> RawFd {
        self.fd.as_raw_fd()
    }

    /// Sends a message, waiting while the owner is behind.
    pub(super) fn send<M: Serialize>(&self, message: &M) -> io::Result<()> {
        for packet in packets(message)? {
            loop {
                // SAFETY: pointer and length are those of a living buffer.
                let sent = unsafe {
                    libc::send(
                        self.raw(),
                        packet.as_ptr().cast(),
                        packet.len(),
                        libc::MSG_NOSIGNAL,
                    )
                };
                match done_or_again(sent)? {
                    Some(_) => break,
                    None => continue,
                }
            }
        }
        Ok(())
    }

    /// Waits for a message; `None` when the owner closed its end.
    pub(super) fn receive<M: DeserializeOwned>(&mut self) -> io::Result<Option<M>> {
        loop {
            match self.receive_packet(0)? {
                Some(0) => return Ok(None),
                Some(length) => {
                    let packet = self.buffer.get(..length).unwrap_or_default();
                    if let Some(message) = self.assembler.push(packet)? {
                        return Ok(Some(message));
                    }
                }
                None => {}
            }
        }
    }

    /// Throws away what was sent to a worker that is no more.
    pub(super) fn discard(&mut self) {
        while let Ok(Some(1..) | None) = self.receive_packet(libc::MSG_DONTWAIT) {}
        self.assembler = Assembler::default();
    }

    /// The packet's length; 0 at the end; `None` when a signal came between.
    fn receive_packet(&mut self, flags: i32) -> io::Result<Option<usize>> {
        self.buffer.resize(PACKET, 0);
        // SAFETY: pointer and length are those of a living buffer.
        let length = unsafe {
            libc::recv(
                self.fd.as_raw_fd(),
                self.buffer.as_mut_ptr().cast(),
                self.buffer.len(),
                flags,
            )
        };
        done_or_again(length)
    }
}

/// The result of a system call that counts bytes; `None` when a signal interrupted it.
fn done_or_again(result: isize) -> io::Result<Option<usize>> {
    match usize::try_from(result) {
        Ok(length) => Ok(Some(length)),
        Err(_) => match io::Error::last_os_error() {
            error if error.kind() == io::ErrorKind::Interrupted => Ok(None),
            error => Err(error),
        },
    }
}
