//! Large values into a file in memory, by several threads.
//!
//! For such a file the kernel has to make pages, which takes longer than filling them; and of one file it makes them for one `write` at a time.
//! Into a mapping of the file each thread has its own made.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::ptr::NonNull;

/// Fewer bytes are written by one thread.
const WIDE: usize = 8 << 20;
/// More threads than that wait for memory, not for a processor.
const MOST_THREADS: usize = 4;
const PAGE: usize = 4096;

/// Puts `bytes` at `offset` of a file that is open for reading and writing; whether it did. If not, nothing is wrong yet: it was not worth it, the system
/// can't, or memory is full, which a `write` tells.
pub(super) fn put(file: &File, offset: usize, bytes: &[u8]) -> bool {
    let threads =
        std::thread::available_parallelism().map_or(1, |count| count.get().min(MOST_THREADS));
    bytes.len() >= WIDE && threads > 1 && copy(file, offset, bytes, threads).is_ok()
}

/// A mapping of a whole file.
struct Target {
    start: NonNull<u8>,
    length: usize,
}

// SAFETY: threads write to parts of it that don't overlap.
unsafe impl Sync for Target {}

fn copy(file: &File, offset: usize, bytes: &[u8], threads: usize) -> io::Result<()> {
    let length = offset + bytes.len();
    file.set_len(length as u64)?;
    // SAFETY: a new mapping of a file that is as long, at a place that the system chooses.
    let start = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            length,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED,
            file.as_raw_fd(),
            0,
        )
    };
    if start == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    let start = NonNull::new(start.cast::<u8>()).ok_or(io::ErrorKind::Other)?;
    let target = Target { start, length };
    let part = bytes.len().div_ceil(threads).next_multiple_of(PAGE);
    std::thread::scope(|scope| {
        let mut others = Vec::new();
        let mut parts = bytes.chunks(part).zip((offset..).step_by(part));
        let own = parts.next();
        for (bytes, at) in parts {
            let target = &target;
            let fill = move || target.fill(at, bytes);
            others.push(std::thread::Builder::new().spawn_scoped(scope, fill)?);
        }
        own.map_or(Ok(()), |(bytes, at)| target.fill(at, bytes))?;
        let failed = || Err(io::Error::other("a thread panicked"));
        others
            .into_iter()
            .try_for_each(|other| other.join().unwrap_or_else(|_| failed()))
    })
}

impl Target {
    /// Writes within the mapping; `at` is a place of the file.
    fn fill(&self, at: usize, bytes: &[u8]) -> io::Result<()> {
        let first = at - at % PAGE;
        if at + bytes.len() > self.length {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        // SAFETY: `first` is within the mapping, whose start is a page's.
        let page = unsafe { self.start.add(first) };
        // Without this, a full memory would be a signal in the middle of the copy.
        // SAFETY: makes pages of our own mapping.
        let made = unsafe {
            libc::madvise(
                page.as_ptr().cast(),
                at + bytes.len() - first,
                libc::MADV_POPULATE_WRITE,
            )
        };
        if made != 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: within the mapping by the check above; nobody else writes to this part, and nobody reads.
        unsafe {
            self.start
                .add(at)
                .as_ptr()
                .copy_from_nonoverlapping(bytes.as_ptr(), bytes.len());
        }
        Ok(())
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        // SAFETY: mapped by `copy` with this length; the threads have ended.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.length) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Seek};

    #[test]
    fn what_is_put_lies_there() {
        let mut file = tempfile::tempfile_in("/dev/shm").unwrap();
        let bytes: Vec<u8> = (0..WIDE + 12_345).map(|n| (n % 251) as u8).collect();
        if !put(&file, 9, &bytes) {
            // One processor, or a system that can't: `write` does it.
            assert!(std::thread::available_parallelism().is_ok_and(|count| count.get() == 1));
            return;
        }
        let mut found = Vec::new();
        file.rewind().unwrap();
        file.read_to_end(&mut found).unwrap();
        assert!(found[9..] == bytes && found[..9] == [0; 9]);
        assert!(!put(&file, 9, &bytes[..1000]));
    }
}
