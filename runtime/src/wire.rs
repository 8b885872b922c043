//! What owner, supervisor and worker say to each other, and how a message becomes packets. No I/O.
//!
//! The sockets are `SOCK_SEQPACKET`: a packet arrives whole or not at all, so a copy that takes a socket over continues at a
//! packet's border. A message longer than a packet is cut; the first piece is marked, so that a message whose sender died in the middle
//! is forgotten when the next one begins. Bytes that need no encoding follow the message as its payload, and a descriptor may travel
//! with its first packet. Calls go several in one packet, as far as they fit, so that the worker is woken once for all of them.

use std::os::fd::{OwnedFd, RawFd};
use std::time::Duration;

use bytes::Bytes;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::event::{CheckpointState, Panic};

/// Tells the started process the fds of control, link, input and tally: [`fds_text`].
pub(crate) const FDS_VARIABLE: &str = "CHORUS_RUNTIME_FDS";

/// Raised with every change of this module's types. A program may have been built with another version than the engine that starts it.
const VERSION: u32 = 4;

/// What [`FDS_VARIABLE`] says: the version, and the descriptors in their order.
pub(crate) fn fds_text(fds: [RawFd; 4]) -> String {
    format!("{VERSION}:{}", fds.map(|fd| fd.to_string()).join(","))
}

/// The descriptors; nothing if an owner of another version says it.
pub(crate) fn fds_of(text: &str) -> Option<[RawFd; 4]> {
    let (version, fds) = text.split_once(':')?;
    let fds: Vec<RawFd> = fds
        .split(',')
        .map(|fd| fd.parse().ok().filter(|fd| *fd > 2))
        .collect::<Option<_>>()?;
    fds.try_into()
        .ok()
        .filter(|_| version == VERSION.to_string())
}

/// Longest packet, in bytes: well below Linux's default send buffer of 208 kB.
pub(crate) const PACKET: usize = 64 * 1024;

/// Most bytes that a call or its answer brings along in packets; what is longer goes by shared memory.
pub(crate) const INLINE: usize = 256 * 1024;

/// Longest answer, in bytes, that does not go into the file that its call names.
pub(crate) const BESIDE: usize = 32 * 1024;

/// How many calls may be with the worker and not answered.
pub(crate) const WINDOW: usize = 32;

const FIRST: u8 = 1;
const LAST: u8 = 2;
/// Whole messages, each behind its length in bytes (four of them, little-endian).
const SEVERAL: u8 = 4;

/// Names a worker that began with an empty namespace. A copy that took over keeps its parent's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Generation {
    /// Raised by the owner with every restart it asks for.
    pub(crate) epoch: u32,
    /// Raised by the supervisor with every worker it starts within an epoch.
    pub(crate) number: u32,
}

/// Owner to supervisor.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum ToSupervisor {
    /// Sent once, first.
    Start(Start),
    /// Kill the worker if it still runs this ticket.
    Kill { ticket: u64 },
    /// Kill everything and start an empty worker of this epoch.
    Restart { epoch: u32 },
    /// End everything; the worker was told to exit by itself and gets this long.
    Shutdown { grace_ms: u32 },
}

/// What a worker needs to begin. Paths are bytes, as the system has them.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Start {
    pub(crate) epoch: u32,
    /// None where no snippets run.
    pub(crate) support: Option<Vec<u8>>,
    pub(crate) preload: Vec<Vec<u8>>,
    /// How many bytes are kept for later calls.
    pub(crate) keep: u64,
}

/// Supervisor to owner.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum FromSupervisor {
    /// A worker died.
    Died {
        generation: Generation,
        /// As `waitpid` gave it.
        status: i32,
        /// Whether it was killed by a `Kill`.
        killed: bool,
        /// Whether it ran into the end of its stack.
        overflow: bool,
        /// The last ticket that it began to work on, or 0.
        ticket: u64,
        next: Next,
    },
}

/// Who takes a dead worker's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Next {
    /// The copy; `TookOver` comes from it.
    Copy,
    /// An empty worker; `Ready` comes from it.
    Fresh,
    /// Nobody: the dead one had not even become ready.
    Nobody,
}

/// Owner to worker.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum ToWorker {
    /// Run a snippet, if you are still of this generation.
    Run {
        generation: Generation,
        ticket: u64,
        artifact: Vec<u8>,
        entry: String,
        /// Whether to make a copy first, and up to how many resident bytes.
        checkpoint: Option<u64>,
    },
    /// Call a closure, if you are still of this generation and turn. The payload is a [`Request`], and what it has inline.
    Call {
        generation: Generation,
        /// How many copies had taken over in this generation: what was sent to one that died is sent again.
        turn: u32,
        ticket: u64,
        /// As in `Run`, if there is no copy yet for the calls since the last snippet.
        checkpoint: Option<u64>,
    },
    /// Flush and end.
    Exit,
}

/// What to call, and with what.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Request {
    pub(crate) artifact: Vec<u8>,
    pub(crate) offset: u64,
    pub(crate) pieces: Vec<Piece>,
    /// The file for a result that is longer than [`BESIDE`].
    pub(crate) answer_file: Option<Vec<u8>>,
}

/// A piece of what a closure gets.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Piece {
    /// The name under which it is kept, or 0.
    pub(crate) id: u64,
    pub(crate) place: Place,
}

/// Where a piece is; lengths and starts in bytes.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Place {
    /// Behind the request, after those before it.
    Inline { length: u64 },
    /// In the memory that came along.
    Memory { start: u64, length: u64 },
    /// In a file.
    File {
        path: Vec<u8>,
        start: u64,
        length: u64,
    },
    /// With the worker, from an earlier call.
    Kept,
}

/// Worker to owner.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum FromWorker {
    Ready {
        generation: Generation,
    },
    Failed {
        reason: String,
    },
    Started {
        ticket: u64,
        checkpoint: CheckpointState,
    },
    Result {
        ticket: u64,
        text: String,
    },
    InputWanted {
        request: u64,
    },
    /// The CPU's time in a snippet, before its `Finished`.
    Spent {
        ticket: u64,
        user: Duration,
        system: Duration,
    },
    Finished {
        ticket: u64,
        end: End,
    },
    TookOver {
        generation: Generation,
        /// How many copies have taken over in this generation.
        turn: u32,
        threads_lost: u32,
        tokio_lost: bool,
        /// How many descriptors the snippet or call had closed.
        closed: u32,
        /// Whether the copy was made for calls, so that no snippet has run since.
        of_calls: bool,
    },
    /// Whether there is a copy for the calls until the next snippet. Said before the first of them.
    Guarded {
        checkpoint: CheckpointState,
    },
    Called {
        ticket: u64,
        /// When it began and ended, in nanoseconds since the Unix epoch; zeros if it did not begin.
        span: [u64; 2],
        /// How many bytes went to stdout and stderr before it ended, since the pipes were made.
        written: [u64; 2],
        end: CallEnd,
        /// Whether the result is one of which some failed.
        partly: bool,
    },
}

/// How a call ended that did not take its process with it.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum CallEnd {
    /// The result is the payload.
    Returned,
    /// The result is at the start of the memory that came along.
    InMemory {
        length: u64,
    },
    /// The result is in the file that was asked for.
    InFile {
        length: u64,
    },
    Failed {
        error: String,
    },
    Panicked(Panic),
    NotRun {
        error: String,
    },
    Missing {
        ids: Vec<u64>,
    },
    /// It was interrupted before it began.
    Cancelled,
}

/// How a snippet ended that did not take its process with it.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum End {
    Completed,
    Panicked(Panic),
    Returned {
        error: String,
    },
    TypesChanged {
        variables: Vec<String>,
    },
    LoadFailed {
        error: String,
    },
    /// It was interrupted before it began.
    Cancelled,
}

/// Owner to worker on the input socket: the answer to `InputWanted`.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Answer {
    pub(crate) request: u64,
    /// Without its end; `None` is the end of input.
    pub(crate) line: Option<String>,
}

/// A message that is not one.
#[derive(Debug, thiserror::Error)]
#[error("failed to read a message")]
pub(crate) struct Malformed(#[source] postcard::Error);

impl From<Malformed> for std::io::Error {
    fn from(error: Malformed) -> Self {
        std::io::Error::new(std::io::ErrorKind::InvalidData, error)
    }
}

/// Cuts a message and its payload into packets of at most [`PACKET`] bytes.
pub(crate) fn packets<M: Serialize>(
    message: &M,
    payload: &[u8],
) -> Result<Vec<Vec<u8>>, Malformed> {
    // The first byte is for the flags.
    let mut whole = postcard::to_extend(message, vec![0]).map_err(Malformed)?;
    whole.extend_from_slice(payload);
    let mut packets = if whole.len() <= PACKET {
        vec![whole]
    } else {
        let body = whole.get(1..).unwrap_or_default();
        body.chunks(PACKET - 1)
            .map(|piece| {
                let mut packet = Vec::with_capacity(piece.len() + 1);
                packet.push(0);
                packet.extend_from_slice(piece);
                packet
            })
            .collect()
    };
    if let Some([flags, ..]) = packets.first_mut().map(Vec::as_mut_slice) {
        *flags |= FIRST;
    }
    if let Some([flags, ..]) = packets.last_mut().map(Vec::as_mut_slice) {
        *flags |= LAST;
    }
    Ok(packets)
}

/// Messages that are to go in one packet.
#[derive(Debug, Default)]
pub(crate) struct Joined {
    /// A packet, if there is a message.
    packet: Vec<u8>,
    /// Empty; its room is used for each message.
    head: Vec<u8>,
}

impl Joined {
    /// Adds a message and its payload; if both have no room, nothing.
    pub(crate) fn push<M: Serialize>(
        &mut self,
        message: &M,
        payload: &[u8],
    ) -> Result<bool, Malformed> {
        let before = self.packet.len();
        let head = postcard::to_extend(message, std::mem::take(&mut self.head));
        self.head = head.map_err(Malformed)?;
        let length = self.head.len() + payload.len();
        let fits = before.max(1) + size_of::<u32>() + length <= PACKET;
        if fits {
            if before == 0 {
                self.packet.push(SEVERAL);
            }
            self.packet.extend((length as u32).to_le_bytes());
            self.packet.extend_from_slice(&self.head);
            self.packet.extend_from_slice(payload);
        }
        self.head.clear();
        Ok(fits)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.packet.is_empty()
    }

    /// The packet, if there is a message.
    pub(crate) fn take(&mut self) -> Option<Vec<u8>> {
        (!self.packet.is_empty()).then(|| std::mem::take(&mut self.packet))
    }
}

/// What of a packet holds whole messages, if it does.
pub(crate) fn joined(packet: &[u8]) -> Option<&[u8]> {
    let (flags, messages) = packet.split_first()?;
    (flags & SEVERAL != 0).then_some(messages)
}

/// The first of several messages, and how many bytes it takes.
pub(crate) fn first_of<M: DeserializeOwned>(
    messages: &[u8],
) -> Result<(Received<M>, usize), Malformed> {
    let cut = || Malformed(postcard::Error::DeserializeUnexpectedEnd);
    let (length, rest) = messages.split_first_chunk().ok_or_else(cut)?;
    let length = u32::from_le_bytes(*length) as usize;
    let body = rest.get(..length).ok_or_else(cut)?;
    let taken = size_of::<u32>() + length;
    Ok((Received::borrowed(body, None)?, taken))
}

/// A message with what came along.
#[derive(Debug)]
pub(crate) struct Received<M> {
    pub(crate) message: M,
    pub(crate) payload: Bytes,
    pub(crate) passed: Option<OwnedFd>,
}

impl<M: DeserializeOwned> Received<M> {
    /// From a body that is one packet's: the payload is copied out of it.
    fn borrowed(body: &[u8], passed: Option<OwnedFd>) -> Result<Self, Malformed> {
        let (message, payload) = postcard::take_from_bytes(body).map_err(Malformed)?;
        Ok(Self {
            message,
            payload: Bytes::copy_from_slice(payload),
            passed,
        })
    }

    fn owned(body: Vec<u8>, passed: Option<OwnedFd>) -> Result<Self, Malformed> {
        let (message, payload) = postcard::take_from_bytes(&body).map_err(Malformed)?;
        let start = body.len() - payload.len();
        Ok(Self {
            message,
            payload: Bytes::from(body).split_off(start),
            passed,
        })
    }
}

/// Puts packets together again.
#[derive(Debug, Default)]
pub(crate) struct Assembler {
    /// Not empty between a message's first packet and its last.
    body: Vec<u8>,
    passed: Option<OwnedFd>,
}

impl Assembler {
    /// Takes the next packet and the descriptor that came with it; gives the message that it completes.
    pub(crate) fn push<M: DeserializeOwned>(
        &mut self,
        packet: &[u8],
        passed: Option<OwnedFd>,
    ) -> Result<Option<Received<M>>, Malformed> {
        let [flags, piece @ ..] = packet else {
            return Ok(None);
        };
        if flags & FIRST != 0 {
            self.body.clear();
            self.passed = passed;
        } else if self.body.is_empty() {
            // Its first packet went to a reader that died.
            return Ok(None);
        }
        if flags & LAST == 0 {
            self.body.extend_from_slice(piece);
            return Ok(None);
        }
        let passed = self.passed.take();
        if self.body.is_empty() {
            return Received::borrowed(piece, passed).map(Some);
        }
        self.body.extend_from_slice(piece);
        Received::owned(std::mem::take(&mut self.body), passed).map(Some)
    }
}

/// A request that a call's payload begins with, and what it has inline.
pub(crate) fn request(payload: &Bytes) -> Result<(Request, Bytes), Malformed> {
    let (request, inline) = postcard::take_from_bytes(payload).map_err(Malformed)?;
    let start = payload.len() - inline.len();
    Ok((request, payload.slice(start..)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn result(length: usize) -> FromWorker {
        FromWorker::Result {
            ticket: 7,
            text: "x".repeat(length),
        }
    }

    #[test]
    fn descriptors_are_for_a_child_of_the_same_version() {
        let text = fds_text([3, 14, 5, 6]);
        assert_eq!(fds_of(&text), Some([3, 14, 5, 6]));
        let (version, fds) = text.split_once(':').unwrap();
        for other in [
            fds.to_owned(),
            format!("{version}9:{fds}"),
            format!("{version}:3,4,5"),
            format!("{version}:2,4,5,6"),
        ] {
            assert_eq!(fds_of(&other), None, "{other}");
        }
    }

    #[test]
    fn messages_of_any_length_come_back_whole() {
        for length in [0, 1, PACKET - 8, PACKET - 1, PACKET, PACKET + 1, 5 * PACKET] {
            let mut assembler = Assembler::default();
            let mut got = None;
            for packet in packets(&result(length), b"").unwrap() {
                assert!(packet.len() <= PACKET);
                assert!(got.is_none());
                got = assembler.push::<FromWorker>(&packet, None).unwrap();
            }
            let got = got.unwrap();
            assert!(got.payload.is_empty());
            match got.message {
                FromWorker::Result { ticket: 7, text } => assert_eq!(text.len(), length),
                other => panic!("{length}: {other:?}"),
            }
        }
    }

    #[test]
    fn a_payload_and_a_descriptor_come_along() {
        for length in [0, 1, PACKET, 5 * PACKET] {
            let payload: Vec<u8> = (0..length).map(|at| at as u8).collect();
            let mut memory = Some(OwnedFd::from(std::fs::File::open("/dev/null").unwrap()));
            let mut assembler = Assembler::default();
            let mut got = None;
            for packet in packets(&result(3), &payload).unwrap() {
                got = assembler
                    .push::<FromWorker>(&packet, memory.take())
                    .unwrap();
            }
            let got = got.unwrap();
            assert_eq!(got.payload, payload);
            assert!(got.passed.is_some());
        }
    }

    #[test]
    fn short_messages_share_a_packet() {
        let mut messages = Joined::default();
        assert!(messages.is_empty() && messages.take().is_none());
        let large = vec![5; PACKET - 20];
        assert!(messages.push(&result(3), b"payload").unwrap());
        assert!(messages.push(&result(0), b"").unwrap());
        for (text, payload) in [(0, &large[..]), (PACKET, b""), (0, &[0; PACKET])] {
            assert!(!messages.push(&result(text), payload).unwrap());
        }
        assert!(messages.push(&result(1), b"x").unwrap());
        let packet = messages.take().unwrap();
        assert!(messages.is_empty());

        let mut rest = joined(&packet).unwrap();
        for (length, payload) in [(3, &b"payload"[..]), (0, b""), (1, b"x")] {
            let (received, taken) = first_of::<FromWorker>(rest).unwrap();
            assert_eq!(received.payload, payload);
            assert!(
                matches!(received.message, FromWorker::Result { text, .. } if text.len() == length)
            );
            rest = &rest[taken..];
        }
        assert!(rest.is_empty());
        assert!(first_of::<FromWorker>(&packet[1..9]).is_err());
        let [alone] = &packets(&result(3), b"").unwrap()[..] else {
            panic!("one packet");
        };
        assert!(joined(alone).is_none());
        assert!(messages.push(&result(0), &large).unwrap());
        assert!(!messages.push(&result(0), &large).unwrap());
    }

    #[test]
    fn a_message_cut_off_by_death_is_forgotten() {
        let mut assembler = Assembler::default();
        let cut = packets(&result(3 * PACKET), b"").unwrap();
        for packet in cut.iter().take(2) {
            assert!(
                assembler
                    .push::<FromWorker>(packet, None)
                    .unwrap()
                    .is_none()
            );
        }
        let [next] = &packets(&FromWorker::InputWanted { request: 3 }, b"").unwrap()[..] else {
            panic!("one packet");
        };
        let next = assembler.push::<FromWorker>(next, None).unwrap().unwrap();
        assert!(matches!(
            next.message,
            FromWorker::InputWanted { request: 3 }
        ));
    }

    #[test]
    fn a_message_whose_beginning_went_to_another_reader_is_forgotten() {
        let mut assembler = Assembler::default();
        for packet in packets(&result(3 * PACKET), b"").unwrap().iter().skip(1) {
            let received = assembler.push::<FromWorker>(packet, None).unwrap();
            assert!(received.is_none());
        }
        let next = packets(&result(3), b"").unwrap();
        assert!(
            assembler
                .push::<FromWorker>(&next[0], None)
                .unwrap()
                .is_some()
        );
    }

    #[test]
    fn noise_is_an_error() {
        let mut assembler = Assembler::default();
        assert!(assembler.push::<FromWorker>(&[], None).unwrap().is_none());
        assert!(assembler.push::<FromWorker>(&[3, 255, 255], None).is_err());
    }
}
