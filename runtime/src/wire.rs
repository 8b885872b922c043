//! What owner, supervisor and worker say to each other, and how a message becomes packets. No I/O.
//!
//! The sockets are `SOCK_SEQPACKET`: a packet arrives whole or not at all, so a copy that takes a socket over continues at a
//! packet's border. A message longer than a packet is cut; the first piece is marked, so that a message whose sender died in the middle
//! is forgotten when the next one begins.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::event::{CheckpointState, Panic};

/// Names the fds of control, link and input, in this order, separated by commas, for the started process.
pub(crate) const FDS_VARIABLE: &str = "CHORUS_RUNTIME_FDS";

/// Longest packet, in bytes: well below Linux's default send buffer of 208 kB.
pub(crate) const PACKET: usize = 64 * 1024;

const FIRST: u8 = 1;
const LAST: u8 = 2;

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
    pub(crate) support: Vec<u8>,
    pub(crate) preload: Vec<Vec<u8>>,
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
    /// Flush and end.
    Exit,
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
    Finished {
        ticket: u64,
        end: End,
    },
    TookOver {
        generation: Generation,
        threads_lost: u32,
        tokio_lost: bool,
    },
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

/// Cuts a message into packets of at most [`PACKET`] bytes.
pub(crate) fn packets<M: Serialize>(message: &M) -> Result<Vec<Vec<u8>>, Malformed> {
    let body = postcard::to_stdvec(message).map_err(Malformed)?;
    // Every enum has a tag: a body is never empty.
    let mut packets: Vec<Vec<u8>> = body
        .chunks(PACKET - 1)
        .map(|piece| {
            let mut packet = Vec::with_capacity(piece.len() + 1);
            packet.push(0);
            packet.extend_from_slice(piece);
            packet
        })
        .collect();
    if let Some([flags, ..]) = packets.first_mut().map(Vec::as_mut_slice) {
        *flags |= FIRST;
    }
    if let Some([flags, ..]) = packets.last_mut().map(Vec::as_mut_slice) {
        *flags |= LAST;
    }
    Ok(packets)
}

/// Puts packets together again.
#[derive(Debug, Default)]
pub(crate) struct Assembler {
    body: Vec<u8>,
}

impl Assembler {
    /// Takes the next packet; gives the message that it completes.
    pub(crate) fn push<M: DeserializeOwned>(
        &mut self,
        packet: &[u8],
    ) -> Result<Option<M>, Malformed> {
        let [flags, piece @ ..] = packet else {
            return Ok(None);
        };
        if flags & FIRST != 0 {
            self.body.clear();
        }
        if flags & LAST == 0 {
            self.body.extend_from_slice(piece);
            return Ok(None);
        }
        if self.body.is_empty() {
            return postcard::from_bytes(piece).map(Some).map_err(Malformed);
        }
        self.body.extend_from_slice(piece);
        let body = std::mem::take(&mut self.body);
        postcard::from_bytes(&body).map(Some).map_err(Malformed)
    }
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
    fn messages_of_any_length_come_back_whole() {
        for length in [0, 1, PACKET - 8, PACKET - 1, PACKET, PACKET + 1, 5 * PACKET] {
            let mut assembler = Assembler::default();
            let mut got = None;
            for packet in packets(&result(length)).unwrap() {
                assert!(packet.len() <= PACKET);
                assert!(got.is_none());
                got = assembler.push::<FromWorker>(&packet).unwrap();
            }
            match got {
                Some(FromWorker::Result { ticket: 7, text }) => assert_eq!(text.len(), length),
                other => panic!("{length}: {other:?}"),
            }
        }
    }

    #[test]
    fn a_message_cut_off_by_death_is_forgotten() {
        let mut assembler = Assembler::default();
        let cut = packets(&result(3 * PACKET)).unwrap();
        for packet in cut.iter().take(2) {
            assert!(assembler.push::<FromWorker>(packet).unwrap().is_none());
        }
        let [next] = &packets(&FromWorker::InputWanted { request: 3 }).unwrap()[..] else {
            panic!("one packet");
        };
        assert!(matches!(
            assembler.push(next).unwrap(),
            Some(FromWorker::InputWanted { request: 3 })
        ));
    }

    #[test]
    fn noise_is_an_error() {
        let mut assembler = Assembler::default();
        assert!(assembler.push::<FromWorker>(&[]).unwrap().is_none());
        assert!(assembler.push::<FromWorker>(&[3, 255, 255]).is_err());
    }
}
