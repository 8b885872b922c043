//! Whose output it is: how the worker knows, at the end of a call, how much has been written so far.
//!
//! The next call may be running before the owner has heard of the end of the last one, so the bytes in a pipe may be of both. What was
//! written is what was read plus what is in the pipe. The first the owner tells here, in memory that both see; the second the system
//! tells the worker, which puts the sum into its message.

use std::io;
use std::ops::Deref;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

/// How often to look again while the owner is in the middle of a read, which takes it some microseconds.
const ATTEMPTS: u32 = 10_000;

/// What is in the shared memory: only atomics, all zero at first.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// Odd while the owner reads.
    reading: AtomicU64,
    /// Bytes that were read from stdout and stderr since the pipes were made.
    read: [AtomicU64; 2],
}

/// One of the two pipes.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Which {
    Stdout,
    Stderr,
}

impl Tally {
    /// Owner: counts what `read` reads.
    pub(crate) fn count(
        &self,
        which: Which,
        read: impl FnOnce() -> io::Result<usize>,
    ) -> io::Result<usize> {
        self.reading.fetch_add(1, SeqCst);
        let outcome = read();
        if let Ok(length) = outcome {
            let [stdout, stderr] = &self.read;
            let read = match which {
                Which::Stdout => stdout,
                Which::Stderr => stderr,
            };
            read.fetch_add(length as u64, SeqCst);
        }
        self.reading.fetch_add(1, SeqCst);
        outcome
    }

    /// Worker: how many bytes were ever written to the pipes that these are the writing ends of.
    pub(crate) fn written(&self, pipes: [RawFd; 2]) -> [u64; 2] {
        let mut attempts = 0;
        loop {
            let before = self.reading.load(SeqCst);
            let read = self.read.each_ref().map(|read| read.load(SeqCst));
            let waiting = pipes.map(waiting);
            let quiet = before.is_multiple_of(2) && self.reading.load(SeqCst) == before;
            attempts += 1;
            if quiet || attempts > ATTEMPTS {
                let [stdout, stderr] = read;
                let [more_stdout, more_stderr] = waiting;
                return [stdout + more_stdout, stderr + more_stderr];
            }
            // SAFETY: lets the owner go on, should it wait for this processor.
            unsafe { libc::sched_yield() };
        }
    }
}

/// How many bytes are in a pipe.
pub(crate) fn waiting(pipe: RawFd) -> u64 {
    let mut bytes: libc::c_int = 0;
    // SAFETY: FIONREAD writes an int.
    unsafe { libc::ioctl(pipe, libc::FIONREAD, &raw mut bytes) };
    u64::try_from(bytes).unwrap_or(0)
}

/// A tally in shared memory.
#[derive(Debug)]
pub(crate) struct Shared(NonNull<Tally>);

// SAFETY: a tally is made of atomics.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

impl Shared {
    /// A new one, and the descriptor by which another process can map it.
    pub(crate) fn new() -> io::Result<(Shared, OwnedFd)> {
        // SAFETY: the name is a C string; the descriptor is new and owned by nobody.
        let memory = unsafe {
            let fd = libc::memfd_create(c"chorus-tally".as_ptr(), libc::MFD_CLOEXEC);
            if fd < 0 {
                return Err(io::Error::last_os_error());
            }
            OwnedFd::from_raw_fd(fd)
        };
        let file = std::fs::File::from(memory);
        file.set_len(size_of::<Tally>() as u64)?;
        let memory = OwnedFd::from(file);
        Ok((Shared::map(&memory)?, memory))
    }

    /// The one behind a descriptor.
    pub(crate) fn map(memory: &impl AsFd) -> io::Result<Shared> {
        // SAFETY: a new mapping, of memory that is used as a `Tally` only.
        let page = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                size_of::<Tally>(),
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                memory.as_fd().as_raw_fd(),
                0,
            )
        };
        match NonNull::new(page.cast()) {
            Some(tally) if page != libc::MAP_FAILED => Ok(Shared(tally)),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

impl Deref for Shared {
    type Target = Tally;

    fn deref(&self) -> &Tally {
        // SAFETY: mapped as long as `self` lives, page-aligned, and any bits are a tally.
        unsafe { self.0.as_ref() }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // SAFETY: our own mapping, which nothing refers to any more.
        unsafe { libc::munmap(self.0.as_ptr().cast(), size_of::<Tally>()) };
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    #[test]
    fn what_was_written_is_known_while_it_is_read() {
        const ALL: usize = 2_000_000;
        let (owners, memory) = Shared::new().unwrap();
        let workers = Shared::map(&memory).unwrap();
        let (mut reader, mut writer) = io::pipe().unwrap();
        let (_reader, other) = io::pipe().unwrap();
        // As the owner's: a read that waits would look like one that never ends.
        // SAFETY: sets a flag of a descriptor that we own.
        unsafe { libc::fcntl(reader.as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK) };
        std::thread::scope(|scope| {
            scope.spawn(move || {
                let mut buffer = [0; 777];
                let mut left = ALL;
                while left > 0 {
                    match owners.count(Which::Stdout, || reader.read(&mut buffer)) {
                        Ok(length) => left -= length,
                        Err(_) => std::thread::yield_now(),
                    }
                }
            });
            let mut written = 0;
            while written < ALL as u64 {
                writer.write_all(&[1; 1000]).unwrap();
                written += 1000;
                let pipes = [writer.as_raw_fd(), other.as_raw_fd()];
                assert_eq!(workers.written(pipes), [written, 0]);
            }
        });
    }
}
