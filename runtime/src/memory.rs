//! Memory that owner and worker share: made and filled by one, sealed, mapped for reading by the other.

use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::ptr::NonNull;

/// Where pieces may begin: whatever the page size, this is a multiple of it.
const BORDER: u64 = 64 * 1024;

/// What must hold for memory that another process made: it cannot be taken away under the one who reads it.
const SEALS: libc::c_int = libc::F_SEAL_SHRINK | libc::F_SEAL_WRITE;

/// Fills new memory with these bytes, which nobody can change any more; gives where each piece begins.
pub(crate) fn sealed(pieces: &[&[u8]]) -> io::Result<(OwnedFd, Vec<u64>)> {
    // SAFETY: the name is a C string; the descriptor is new and owned by nobody.
    let file = unsafe {
        let fd = libc::memfd_create(
            c"chorus".as_ptr(),
            libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING,
        );
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        File::from_raw_fd(fd)
    };
    let mut starts = Vec::with_capacity(pieces.len());
    let mut start = 0;
    for piece in pieces {
        file.write_all_at(piece, start)?;
        starts.push(start);
        start = (start + piece.len() as u64).next_multiple_of(BORDER);
    }
    // SAFETY: acts on a descriptor that we own.
    if unsafe { libc::fcntl(file.as_raw_fd(), libc::F_ADD_SEALS, SEALS) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok((file.into(), starts))
}

/// Writes a file that was not there before; on failure it is not there afterwards.
pub(crate) fn write_file(path: &OsStr, bytes: &[u8]) -> io::Result<()> {
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all_at(bytes, 0)
        .inspect_err(|_| drop(std::fs::remove_file(path)))
}

/// Memory mapped for reading.
#[derive(Debug)]
pub(crate) struct Mapping {
    start: NonNull<u8>,
    length: usize,
}

// SAFETY: nobody writes to it while it is read.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// A piece of what [`sealed`] made in another process.
    pub(crate) fn of_sealed(memory: &OwnedFd, start: u64, length: u64) -> io::Result<Mapping> {
        // SAFETY: asks for a number.
        let seals = unsafe { libc::fcntl(memory.as_raw_fd(), libc::F_GET_SEALS) };
        if seals < 0 || seals & SEALS != SEALS {
            return Err(io::Error::other("the memory is not sealed"));
        }
        Mapping::map(memory.as_fd(), start, length)
    }

    /// `length` bytes of a regular file. Whoever shortens it ends the process that reads there.
    pub(crate) fn of_file(path: &OsStr, start: u64, length: u64) -> io::Result<Mapping> {
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(path)?;
        if !file.metadata()?.is_file() {
            return Err(io::Error::other("this is not a regular file"));
        }
        Mapping::map(file.as_fd(), start, length)
    }

    /// In bytes; without looking at them, which may be others' by now.
    pub(crate) fn len(&self) -> usize {
        self.length
    }

    fn map(file: BorrowedFd<'_>, start: u64, length: u64) -> io::Result<Mapping> {
        let size = File::from(file.try_clone_to_owned()?).metadata()?.size();
        if start.checked_add(length).is_none_or(|end| end > size) {
            return Err(io::Error::other(format!(
                "it has {size} bytes, not {length} from byte {start}"
            )));
        }
        let range = usize::try_from(length).ok().zip(start.try_into().ok());
        let (length, start) = range.ok_or_else(|| io::Error::other("it is too large"))?;
        if length == 0 {
            let start = NonNull::<u128>::dangling().cast();
            return Ok(Mapping { start, length });
        }
        // SAFETY: a new mapping that aliases nothing of ours.
        let address = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                length,
                libc::PROT_READ,
                libc::MAP_SHARED | libc::MAP_POPULATE,
                file.as_raw_fd(),
                start,
            )
        };
        match NonNull::new(address.cast()) {
            Some(start) if address != libc::MAP_FAILED => Ok(Mapping { start, length }),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

impl AsRef<[u8]> for Mapping {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: mapped for reading for as long as `self` lives; sealed, or promised not to change.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.length) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        if self.length > 0 {
            // SAFETY: our own mapping, which nothing refers to any more.
            unsafe { libc::munmap(self.start.as_ptr().cast(), self.length) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_where_they_are_said_to_be() {
        let long = vec![7_u8; 100_000];
        let (memory, starts) = sealed(&[b"abc", &long, b"", b"end"]).unwrap();
        for (piece, start) in [&b"abc"[..], &long, b"", b"end"].into_iter().zip(starts) {
            let mapping = Mapping::of_sealed(&memory, start, piece.len() as u64).unwrap();
            assert_eq!(mapping.as_ref(), piece);
            assert_eq!(mapping.as_ref().as_ptr().addr() % 16, 0);
        }
        let beyond = Mapping::of_sealed(&memory, 0, 1 << 40).unwrap_err();
        assert!(beyond.to_string().contains("bytes"), "{beyond}");
        assert!(File::from(memory).write_all_at(b"x", 0).is_err());
    }

    #[test]
    fn memory_that_could_shrink_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        write_file(path.as_os_str(), b"text").unwrap();
        assert!(write_file(path.as_os_str(), b"other").is_err());
        let mapping = Mapping::of_file(path.as_os_str(), 0, 2).unwrap();
        assert_eq!(mapping.as_ref(), b"te");
        assert!(Mapping::of_file(path.as_os_str(), 0, 5).is_err());
        assert!(Mapping::of_file(folder.path().as_os_str(), 0, 0).is_err());
        let long = folder.path().join("b");
        write_file(
            long.as_os_str(),
            &[vec![1; BORDER as usize], vec![2; 9]].concat(),
        )
        .unwrap();
        let mapping = Mapping::of_file(long.as_os_str(), BORDER, 9).unwrap();
        assert_eq!(mapping.as_ref(), [2; 9]);
        assert!(Mapping::of_file(long.as_os_str(), BORDER, 10).is_err());
        assert!(Mapping::of_file(long.as_os_str(), 1, 9).is_err());
        let file: OwnedFd = File::open(&path).unwrap().into();
        assert!(Mapping::of_sealed(&file, 0, 4).is_err());
    }
}
