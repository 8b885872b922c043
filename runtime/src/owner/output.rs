//! What user code writes to stdout and stderr: read, counted, and searched for `evcxr_input`'s requests.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use tokio::io::unix::AsyncFd;
use tokio::sync::Notify;

use super::socket::set_nonblocking;
use crate::packet::count;
use crate::tally::{self, Shared, Which};

/// Longest read, and the size asked for a pipe, in bytes.
const PIPE: usize = 1024 * 1024;

/// How many bytes may be read and not yet dropped by whoever shows them.
const BUDGET: usize = 64 * 1024 * 1024;

/// The bytes that are alive in `Event::Output`.
#[derive(Debug, Default)]
pub(super) struct Budget {
    alive: AtomicUsize,
    dropped: Notify,
}

impl Budget {
    /// Whether more may be read.
    pub(super) fn is_left(&self) -> bool {
        self.alive.load(Ordering::SeqCst) < BUDGET
    }

    /// Waits for some to be dropped.
    pub(super) async fn dropped(&self) {
        self.dropped.notified().await;
    }

    /// Counts these bytes for as long as they live.
    pub(super) fn count(self: &Arc<Self>, bytes: Vec<u8>) -> Bytes {
        self.alive.fetch_add(bytes.len(), Ordering::SeqCst);
        let budget = Arc::clone(self);
        Bytes::from_owner(Counted { bytes, budget })
    }
}

struct Counted {
    bytes: Vec<u8>,
    budget: Arc<Budget>,
}

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let alive = &self.budget.alive;
        alive.fetch_sub(self.bytes.len(), Ordering::SeqCst);
        self.budget.dropped.notify_one();
    }
}

/// The reading end of a pipe.
#[derive(Debug)]
pub(super) struct Pipe {
    fd: AsyncFd<OwnedFd>,
    counter: Counter,
    is_open: bool,
}

/// Counts what is read from a pipe.
#[derive(Debug)]
struct Counter {
    which: Which,
    tally: Arc<Shared>,
    total: u64,
}

impl Pipe {
    pub(super) fn new(fd: OwnedFd, which: Which, tally: Arc<Shared>) -> io::Result<Pipe> {
        set_nonblocking(&fd)?;
        // A refusal (the user has many pipes) costs speed only.
        // SAFETY: changes the size of a pipe that we own.
        unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETPIPE_SZ, PIPE as libc::c_int) };
        Ok(Pipe {
            // SAFETY: the descriptor is owned and stays open for as long as it is registered.
            fd: unsafe { AsyncFd::register(fd) }?,
            counter: Counter {
                which,
                tally,
                total: 0,
            },
            is_open: true,
        })
    }

    /// How many bytes were read so far.
    pub(super) fn total(&self) -> u64 {
        self.counter.total
    }

    /// False when nobody can write any more.
    pub(super) fn is_open(&self) -> bool {
        self.is_open
    }

    /// Waits for bytes; none at the end.
    pub(super) async fn read(&mut self) -> io::Result<Vec<u8>> {
        loop {
            let mut ready = self.fd.readable().await?;
            let Ok(read) = ready.try_io(|fd| self.counter.read_some(fd.get_ref(), PIPE)) else {
                continue;
            };
            let bytes = read?;
            self.is_open = !bytes.is_empty();
            return Ok(bytes);
        }
    }

    /// What is in the pipe now, and nothing that is written later: there may be no end to that.
    pub(super) fn drain(&mut self) -> Vec<u8> {
        let mut left = waiting(self.fd.as_raw_fd());
        let mut drained = Vec::new();
        while left > 0 {
            match self.counter.read_some(self.fd.get_ref(), left) {
                Ok(bytes) if !bytes.is_empty() => {
                    left = left.saturating_sub(bytes.len());
                    if drained.is_empty() {
                        drained = bytes;
                    } else {
                        drained.extend(bytes);
                    }
                }
                _ => break,
            }
        }
        drained
    }
}

fn waiting(pipe: RawFd) -> usize {
    usize::try_from(tally::waiting(pipe)).unwrap_or(0)
}

impl Counter {
    fn read_some(&mut self, fd: &OwnedFd, most: usize) -> io::Result<Vec<u8>> {
        // At least one byte, so that the end of the pipe is seen.
        let mut buffer = vec![0; waiting(fd.as_raw_fd()).clamp(1, most.min(PIPE))];
        loop {
            let read = self.tally.count(self.which, || {
                // SAFETY: pointer and length are those of a living buffer.
                count(unsafe {
                    libc::read(fd.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len())
                })
            });
            match read {
                Ok(length) => {
                    buffer.truncate(length);
                    self.total += length as u64;
                    return Ok(buffer);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// What `evcxr_input` prints before it reads a line.
const REQUEST: &str = "EVCXR_INPUT_REQUEST";
const PASSWORD: &str = "_PASSWORD";

/// A question found at the end of stdout.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Prompt {
    pub(super) text: String,
    pub(super) password: bool,
}

/// Holds back a last line that looks like `evcxr_input`'s, until it is known whether somebody reads now. If anything else
/// happens first, the line is output like any other.
#[derive(Debug)]
pub(super) struct PromptFilter {
    held: Vec<u8>,
    at_line_start: bool,
}

impl PromptFilter {
    pub(super) fn new() -> PromptFilter {
        PromptFilter {
            held: Vec::new(),
            at_line_start: true,
        }
    }

    /// What can be shown of these bytes and what was held back before.
    pub(super) fn push(&mut self, bytes: Vec<u8>) -> Vec<u8> {
        let mut bytes = if self.held.is_empty() {
            bytes
        } else {
            let mut both = std::mem::take(&mut self.held);
            both.extend(bytes);
            both
        };
        let Some((_, before_last)) = bytes.split_last() else {
            return bytes;
        };
        let last_line = match before_last.iter().rposition(|byte| *byte == b'\n') {
            Some(newline) => Some(newline + 1),
            None => self.at_line_start.then_some(0),
        };
        if let Some(start) = last_line
            && bytes
                .get(start..)
                .is_some_and(|line| line.starts_with(REQUEST.as_bytes()))
        {
            self.held = bytes.split_off(start);
        }
        if let Some(last) = bytes.last() {
            self.at_line_start = *last == b'\n';
        }
        bytes
    }

    /// The line that was held back: no question after all.
    pub(super) fn release(&mut self) -> Vec<u8> {
        if let Some(last) = self.held.last() {
            self.at_line_start = *last == b'\n';
        }
        std::mem::take(&mut self.held)
    }

    /// The question, if the line that was held back is one, now that somebody reads.
    pub(super) fn take_prompt(&mut self) -> Option<Prompt> {
        let line = String::from_utf8_lossy(&self.held).into_owned();
        let rest = line.strip_suffix('\n')?.strip_prefix(REQUEST)?;
        let (password, rest) = match rest.strip_prefix(PASSWORD) {
            Some(rest) => (true, rest),
            None => (false, rest),
        };
        let text = rest.strip_prefix(':')?.to_owned();
        self.held.clear();
        self.at_line_start = true;
        Some(Prompt { text, password })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn push(filter: &mut PromptFilter, text: &str) -> String {
        String::from_utf8(filter.push(text.as_bytes().to_vec())).unwrap()
    }

    #[test]
    fn a_request_at_the_end_is_held_back() {
        let mut filter = PromptFilter::new();
        assert_eq!(push(&mut filter, "a\nEVCXR_INPUT_REQUEST:Name?\n"), "a\n");
        let prompt = filter.take_prompt().unwrap();
        assert_eq!((prompt.text.as_str(), prompt.password), ("Name?", false));
        assert_eq!(push(&mut filter, "EVCXR_INPUT_REQUEST_PASSWORD:a:b\n"), "");
        let prompt = filter.take_prompt().unwrap();
        assert_eq!((prompt.text.as_str(), prompt.password), ("a:b", true));
        assert_eq!(filter.take_prompt(), None);
    }

    #[test]
    fn what_is_no_request_comes_out_whole() {
        for pieces in [
            &["EVCXR_INPUT_REQUEST:a\n", "b\n"][..],
            &["x", "EVCXR_INPUT_REQUEST:a\n"],
            &["EVCXR_INPUT_REQUEST", ":a", "\nb"],
            &["EVCXR_INPUT_REQUESTED\n"],
            &["", "\n", "EVCXR_INPUT", "_REQUEST:a\n"],
            &["EVCXR_INPUT_REQUEST:a\nEVCXR_INPUT_REQUEST:b\n", "\n"],
        ] {
            let mut filter = PromptFilter::new();
            let mut out: String = pieces
                .iter()
                .map(|piece| push(&mut filter, piece))
                .collect();
            out.push_str(&String::from_utf8(filter.release()).unwrap());
            assert_eq!(out, pieces.concat());
        }
    }

    #[tokio::test]
    async fn bytes_count_while_they_live() {
        let budget = Arc::new(Budget::default());
        let bytes = budget.count(vec![0; BUDGET]);
        let part = bytes.slice(1..2);
        assert!(!budget.is_left());
        drop(bytes);
        assert!(!budget.is_left());
        drop(part);
        assert!(budget.is_left());
        budget.dropped().await;
    }
}
