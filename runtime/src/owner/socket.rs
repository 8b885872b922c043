//! The owner's end of a socket to a child: messages in and out, never blocking.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::packet;
use crate::watch::Watched;
use crate::wire::{Assembler, Joined, PACKET, Received, packets};

/// One end of a `SOCK_SEQPACKET` pair. What cannot be sent at once waits in a queue.
#[derive(Debug)]
pub(super) struct Socket {
    fd: Watched<OwnedFd>,
    assembler: Assembler,
    buffer: Vec<u8>,
    outbox: VecDeque<Packet>,
    /// Behind all that is in the outbox.
    joined: Joined,
}

/// A packet that is to be sent, and the descriptor that goes with it.
#[derive(Debug)]
struct Packet {
    bytes: Vec<u8>,
    passed: Option<Arc<OwnedFd>>,
}

impl Packet {
    fn plain(bytes: Vec<u8>) -> Packet {
        Packet {
            bytes,
            passed: None,
        }
    }
}

/// A connected pair: the owner's end, and the one that the child inherits.
pub(super) fn pair() -> io::Result<(Socket, OwnedFd)> {
    let mut fds = [-1; 2];
    // SAFETY: the array has room for two.
    let result = unsafe {
        libc::socketpair(
            libc::AF_UNIX,
            libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC,
            0,
            fds.as_mut_ptr(),
        )
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: new descriptors that nothing else owns.
    let [ours, theirs] = fds.map(|fd| unsafe { OwnedFd::from_raw_fd(fd) });
    set_nonblocking(&ours)?;
    let socket = Socket {
        fd: Watched::new(ours)?,
        assembler: Assembler::default(),
        buffer: vec![0; PACKET],
        outbox: VecDeque::new(),
        joined: Joined::default(),
    };
    Ok((socket, theirs))
}

/// Has reads and writes fail rather than wait.
pub(super) fn set_nonblocking(fd: &OwnedFd) -> io::Result<()> {
    // SAFETY: changes flags of a descriptor that we own.
    unsafe {
        let flags = libc::fcntl(fd.as_raw_fd(), libc::F_GETFL);
        if flags < 0 || libc::fcntl(fd.as_raw_fd(), libc::F_SETFL, flags | libc::O_NONBLOCK) < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

impl Socket {
    /// Waits for a message, and sends meanwhile what is queued; `None` when the other end is closed. Nothing is lost when
    /// the future is dropped.
    pub(super) async fn next<M: DeserializeOwned>(&mut self) -> io::Result<Option<Received<M>>> {
        loop {
            if self.fd.ready(self.has_queued()).await?.is_writable() {
                send_queued(self.fd.get_ref(), &mut self.outbox)?;
                continue;
            }
            let buffer = &mut self.buffer;
            let received = self
                .fd
                .read(|fd| packet::receive(fd.as_raw_fd(), buffer, 0));
            let (packet, passed) = match received {
                Ok((0, _)) => return Ok(None),
                Ok((length, passed)) => (self.buffer.get(..length).unwrap_or_default(), passed),
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
                    ) =>
                {
                    continue;
                }
                Err(error) if is_closed(&error) => return Ok(None),
                Err(error) => return Err(error),
            };
            if let Some(message) = self.assembler.push(packet, passed)? {
                return Ok(Some(message));
            }
        }
    }

    /// A message that is already there.
    pub(super) fn try_next<M: DeserializeOwned>(&mut self) -> io::Result<Option<Received<M>>> {
        loop {
            match packet::receive(self.fd.get_ref().as_raw_fd(), &mut self.buffer, 0) {
                Ok((0, _)) => return Ok(None),
                Ok((length, passed)) => {
                    let packet = self.buffer.get(..length).unwrap_or_default();
                    if let Some(message) = self.assembler.push(packet, passed)? {
                        return Ok(Some(message));
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock || is_closed(&error) => {
                    return Ok(None);
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Sends, or queues for [`Self::flush`] what does not fit.
    pub(super) fn send<M: Serialize>(&mut self, message: &M) -> io::Result<()> {
        self.send_with(message, &[], None)
    }

    /// As [`Self::send`], with a payload and a descriptor.
    pub(super) fn send_with<M: Serialize>(
        &mut self,
        message: &M,
        payload: &[u8],
        mut passed: Option<Arc<OwnedFd>>,
    ) -> io::Result<()> {
        self.outbox.extend(self.joined.take().map(Packet::plain));
        let packets = packets(message, payload)?.into_iter();
        self.outbox.extend(packets.map(|bytes| Packet {
            bytes,
            passed: passed.take(),
        }));
        send_queued(self.fd.get_ref(), &mut self.outbox)
    }

    /// As [`Self::send`], but with other messages in one packet, which is sent by [`Self::send_joined`], or before a message that goes alone, as does
    /// one that finds no room. Only for messages that name their turn: a copy of their reader may have them a second time.
    pub(super) fn join<M: Serialize>(&mut self, message: &M, payload: &[u8]) -> io::Result<()> {
        if self.joined.push(message, payload)? {
            return Ok(());
        }
        self.send_with(message, payload, None)
    }

    /// Whether [`Self::send_joined`] has something to do.
    pub(super) fn has_joined(&self) -> bool {
        !self.joined.is_empty()
    }

    /// Sends what was joined, or queues what does not fit.
    pub(super) fn send_joined(&mut self) -> io::Result<()> {
        self.outbox.extend(self.joined.take().map(Packet::plain));
        send_queued(self.fd.get_ref(), &mut self.outbox)
    }

    /// Whether [`Self::flush`] has something to do.
    pub(super) fn has_queued(&self) -> bool {
        !self.outbox.is_empty()
    }

    /// Waits until some of what is queued could be sent.
    pub(super) async fn flush(&mut self) -> io::Result<()> {
        self.fd.has_room().await?;
        send_queued(self.fd.get_ref(), &mut self.outbox)
    }
}

fn send_queued(fd: &OwnedFd, outbox: &mut VecDeque<Packet>) -> io::Result<()> {
    while let Some(Packet { bytes, passed }) = outbox.front() {
        let passed = passed.as_ref().map(|passed| passed.as_raw_fd());
        match packet::send(fd.as_raw_fd(), bytes, passed) {
            Ok(()) => {
                outbox.pop_front();
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => {
                outbox.clear();
                return Err(error);
            }
        }
    }
    Ok(())
}

fn is_closed(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::ConnectionReset
}
