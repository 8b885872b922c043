//! The bytes of a value on their way: in the frame, or beside it in a file that lives in memory.

use crate::codec::Encoded;
use serde::{Deserialize, Serialize};
use std::fs::{File, OpenOptions};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{self, Read};
use std::ops::RangeInclusive;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf, absolute};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

/// More bytes than that go beside the frame. On the way through a controller, bytes are copied and hashed at every hop; a file costs as much as that
/// for some 20 kB.
pub const LARGE: usize = 32 * 1024;
/// How the files' names begin; the process id of the maker and a `-` follow.
pub const FILES: &str = "chorus-piece-";

/// Files of up to so many bytes are read and not mapped: reading is one run through memory that another processor has just written, while a decoder
/// would wait for each line of it, and a mapping is made and undone at the price of reading as much.
const READ: u64 = 256 << 10;

/// Files of so many bytes are worth being used again.
pub const SPARE: RangeInclusive<u64> = 1 << 20..=64 << 20;

/// Where stretches of a file may begin: whatever the page size, this is a multiple of it.
const BORDER: u64 = 64 << 10;

/// Where such files are: memory, whatever else is true of the machine's disks.
const FOLDER: &str = "/dev/shm";

/// A value's bytes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Piece {
    /// Here they are.
    Inline(Vec<u8>),
    /// They are a file of the machine; it belongs to the receiver.
    File {
        /// Its path.
        path: PathBuf,
        /// How many there are, from the beginning.
        length: u64,
    },
    /// They came before, as the shared value of this number.
    Shared {
        /// The value's number.
        id: u64,
    },
    /// They are a stretch of the file that came before as the shared value of this number. Only for the arguments of a call.
    Part {
        /// The value's number.
        id: u64,
        /// Where they begin in the file; stretches begin at multiples of 64 kB, so that each can be mapped for itself.
        start: u64,
        /// How many there are.
        length: u64,
    },
}

impl Piece {
    /// Large values are put into a file, if the machine has the means; otherwise they are copied.
    pub fn of(value: Encoded<'_>) -> Piece {
        Piece::with_spare(value, None)
    }

    /// As [`Piece::of`], in the file at `spare` if there is one.
    pub fn with_spare(value: Encoded<'_>, spare: Option<&Path>) -> Piece {
        let spare = spare.filter(|_| SPARE.contains(&(value.len() as u64)));
        if value.len() > LARGE
            && let Ok(piece) = Piece::file(&value, spare)
        {
            return piece;
        }
        Piece::Inline(value.into_vec())
    }

    /// Bytes that came in a message, in a file: in memory, or in the folder for temporary files if that is full.
    pub fn in_file(self) -> Piece {
        let Piece::Inline(head) = self else {
            return self;
        };
        let value = Encoded { head, bulk: &[] };
        let elsewhere = || Piece::file_at(&value, create(&absolute(std::env::temp_dir())?)?);
        Piece::file(&value, None)
            .or_else(|error| match error.kind() {
                io::ErrorKind::StorageFull => elsewhere(),
                _ => Err(error),
            })
            .unwrap_or(Piece::Inline(value.head))
    }

    fn file(value: &Encoded<'_>, spare: Option<&Path>) -> io::Result<Piece> {
        Piece::file_at(value, open(value.len() as u64, spare)?)
    }

    fn file_at(value: &Encoded<'_>, (path, file): (PathBuf, File)) -> io::Result<Piece> {
        let length = value.len() as u64;
        // If that fails the memory is full, most likely; the file would keep it so.
        write(&file, 0, value).inspect_err(|_| drop(std::fs::remove_file(&path)))?;
        Ok(Piece::File { path, length })
    }

    /// Takes the bytes. A file is removed; a large one is mapped before, not copied, and its memory is free when the bytes are dropped.
    ///
    /// # Errors
    /// When the file can't be read or mapped, or the piece is of a shared value.
    pub fn take(self) -> io::Result<Bytes> {
        match self {
            Piece::Inline(bytes) => Ok(Bytes::Owned(bytes)),
            Piece::File { path, length } => {
                let bytes = Bytes::of_file(&path, length);
                let removed = std::fs::remove_file(&path);
                let bytes = bytes?;
                removed?;
                Ok(bytes)
            }
            Piece::Shared { id } | Piece::Part { id, .. } => Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("the shared value {id} came where its bytes should be"),
            )),
        }
    }

    /// Removes what the piece has besides itself.
    pub fn discard(self) {
        if let Piece::File { path, .. } = self {
            // Nobody is left who could be told.
            let _ = std::fs::remove_file(path);
        }
    }
}

/// A file that is written while it is read: the pieces of several tasks, one behind the other. Its receiver may give it another name meanwhile.
#[derive(Debug)]
pub(crate) struct Stretches {
    file: File,
    end: u64,
}

impl Stretches {
    /// An empty one, to be sent as a shared value; about so many bytes will be written. It may lie where a file at `spare` did.
    pub(crate) fn new(about: u64, spare: Option<&Path>) -> io::Result<(Stretches, Piece)> {
        let spare = spare.filter(|_| SPARE.contains(&about));
        let (path, file) = open(about, spare)?;
        Ok((Stretches { file, end: 0 }, Piece::File { path, length: 0 }))
    }

    /// How long it is.
    pub(crate) fn end(&self) -> u64 {
        self.end
    }

    /// Adds a value, as a stretch of the shared value `id`.
    pub(crate) fn add(&mut self, id: u64, value: &Encoded<'_>) -> io::Result<Piece> {
        let (start, length) = (self.end, value.len() as u64);
        // The memory is full, most likely, and what was written of the value would keep it so.
        write(&self.file, start, value).inspect_err(|_| drop(self.file.set_len(start)))?;
        self.end = (start + length).next_multiple_of(BORDER);
        Ok(Piece::Part { id, start, length })
    }
}

/// A file of a name that nobody else has, empty or with anything in it: the one at `spare`, if it is still there.
fn open(length: u64, spare: Option<&Path>) -> io::Result<(PathBuf, File)> {
    if let Some(spare) = spare {
        let path = new_path(Path::new(FOLDER));
        // Whoever renames it first has it.
        if std::fs::rename(spare, &path).is_ok() {
            match open_old(&path, length) {
                Ok(file) => return Ok((path, file)),
                Err(_) => drop(std::fs::remove_file(&path)),
            }
        }
    }
    create(Path::new(FOLDER))
}

/// A path that nobody else has.
fn new_path(folder: &Path) -> PathBuf {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let noise = RandomState::new().build_hasher().finish();
    folder.join(format!(
        "{FILES}{}-{count}-{noise:016x}",
        std::process::id()
    ))
}

/// An empty file.
fn create(folder: &Path) -> io::Result<(PathBuf, File)> {
    let path = new_path(folder);
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&path)?;
    Ok((path, file))
}

/// What is no file of this user's is an error: the folder is everybody's.
fn open_old(path: &Path, length: u64) -> io::Result<File> {
    let file = OpenOptions::new()
        .write(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(path)?;
    let metadata = file.metadata()?;
    // SAFETY: always succeeds.
    if !metadata.is_file() || metadata.uid() != unsafe { libc::geteuid() } {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    file.set_len(metadata.len().min(length))?;
    Ok(file)
}

fn write(file: &File, start: u64, value: &Encoded<'_>) -> io::Result<()> {
    file.write_all_at(&value.head, start)?;
    file.write_all_at(value.bulk, start + value.head.len() as u64)
}

/// Bytes that were taken. `Deref` gives them.
#[derive(Debug)]
pub enum Bytes {
    /// In the program's memory.
    Owned(Vec<u8>),
    /// In memory that is shared with whoever wrote them.
    Mapped(Mapping),
}

impl Bytes {
    fn of_file(path: &Path, length: u64) -> io::Result<Bytes> {
        let file = File::open(path)?;
        if length > READ {
            return Mapping::of(&file, length).map(Bytes::Mapped);
        }
        let mut bytes = Vec::with_capacity(length as usize);
        file.take(length).read_to_end(&mut bytes)?;
        match bytes.len() as u64 == length {
            true => Ok(Bytes::Owned(bytes)),
            false => Err(cut()),
        }
    }
}

fn cut() -> io::Error {
    io::Error::new(
        io::ErrorKind::UnexpectedEof,
        "a piece's file is shorter than was said",
    )
}

impl std::ops::Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Bytes::Owned(bytes) => bytes,
            Bytes::Mapped(mapping) => mapping.bytes(),
        }
    }
}

/// A file in memory, read only.
#[derive(Debug)]
pub struct Mapping {
    start: NonNull<u8>,
    length: usize,
}

// SAFETY: nobody writes through it.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Not of length 0, of which there are no mappings.
    fn of(file: &File, length: u64) -> io::Result<Mapping> {
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        if file.metadata()?.len() < length as u64 {
            return Err(cut());
        }
        // SAFETY: a new mapping of a file that is as long, at a place that the system chooses.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                length,
                libc::PROT_READ,
                libc::MAP_SHARED | libc::MAP_POPULATE,
                file.as_raw_fd(),
                0,
            )
        };
        match NonNull::new(start.cast::<u8>()) {
            Some(start) if start.as_ptr().cast() != libc::MAP_FAILED => {
                Ok(Mapping { start, length })
            }
            _ => Err(io::Error::last_os_error()),
        }
    }

    fn bytes(&self) -> &[u8] {
        // SAFETY: mapped as long as this lives; by the protocol its maker writes no more while it is read.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.length) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: mapped by `of` with this length; nobody has a reference any more.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.length) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec;

    #[test]
    fn small_values_stay_in_the_frame() {
        let piece = Piece::of(codec::encode(&vec![1u8, 2]).unwrap());
        assert_eq!(piece, Piece::Inline(vec![2, 1, 2]));
        assert_eq!(&*piece.take().unwrap(), [2, 1, 2]);
    }

    #[test]
    fn large_values_lie_in_a_private_file_until_they_are_taken() {
        for (count, is_mapped) in [(8_000, false), (100_000, true)] {
            let value: Vec<f64> = (0..count).map(f64::from).collect();
            let piece = Piece::of(codec::encode(&value).unwrap());
            let Piece::File { path, length } = piece.clone() else {
                panic!("{piece:?}");
            };
            let metadata = std::fs::metadata(&path).unwrap();
            assert_eq!((metadata.mode() & 0o777, metadata.len()), (0o600, length));
            let bytes = piece.take().unwrap();
            assert!(!path.exists());
            assert_eq!(matches!(bytes, Bytes::Mapped(_)), is_mapped);
            assert_eq!(codec::decode::<Vec<f64>>(&bytes).unwrap(), value);
        }
    }

    #[test]
    fn a_spare_file_is_written_over() {
        let spare = Path::new(FOLDER).join(format!("{FILES}{}-test-spare", std::process::id()));
        std::fs::write(&spare, vec![1; 3 << 20]).unwrap();
        let inode = std::fs::metadata(&spare).unwrap().ino();
        let value = vec![2u8; 2 << 20];
        let encoded = || codec::encode(&value).unwrap();
        let small = Piece::with_spare(codec::encode(&vec![2u8; 2 * LARGE]).unwrap(), Some(&spare));
        small.discard();
        assert!(spare.exists(), "too small to be worth it");
        for reused in [true, false] {
            let piece = Piece::with_spare(encoded(), Some(&spare));
            let Piece::File { path, length } = &piece else {
                panic!("{piece:?}");
            };
            let metadata = std::fs::metadata(path).unwrap();
            assert_eq!((metadata.ino() == inode, metadata.len()), (reused, *length));
            let bytes = piece.clone().take().unwrap();
            assert!(codec::decode::<Vec<u8>>(&bytes).unwrap() == value);
        }
    }

    #[test]
    fn what_somebody_put_in_the_place_of_a_spare_file_is_not_written_to() {
        let folder = tempfile::tempdir_in(FOLDER).unwrap();
        let (spare, target) = (folder.path().join("spare"), folder.path().join("target"));
        std::fs::write(&target, "precious").unwrap();
        std::os::unix::fs::symlink(&target, &spare).unwrap();
        let value = vec![2u8; 2 << 20];
        let piece = Piece::with_spare(codec::encode(&value).unwrap(), Some(&spare));
        assert!(matches!(piece, Piece::File { .. }));
        assert!(codec::decode::<Vec<u8>>(&piece.take().unwrap()).unwrap() == value);
        assert_eq!(std::fs::read(&target).unwrap(), b"precious");
    }

    #[test]
    fn stretches_are_written_one_behind_the_other() {
        let spare = Path::new(FOLDER).join(format!("{FILES}{}-test-old", std::process::id()));
        std::fs::write(&spare, vec![1; 3 << 20]).unwrap();
        let values = [vec![2u8; 70_000], vec![3; 40_000]];
        for spare in [None, Some(spare.as_path())] {
            let (mut stretches, piece) = Stretches::new(2 << 20, spare).unwrap();
            let Piece::File { path, length: 0 } = piece else {
                panic!("{piece:?}");
            };
            for value in &values {
                let encoded = codec::encode(value).unwrap();
                let piece = stretches.add(7, &encoded).unwrap();
                let Piece::Part {
                    id: 7,
                    start,
                    length,
                } = piece
                else {
                    panic!("{piece:?}");
                };
                assert!(start.is_multiple_of(BORDER) && length == encoded.len() as u64);
                let mut bytes = vec![0; encoded.len()];
                let file = File::open(&path).unwrap();
                file.read_exact_at(&mut bytes, start).unwrap();
                assert!(codec::decode::<Vec<u8>>(&bytes).unwrap() == *value);
                assert!(piece.take().is_err());
            }
            let all = std::fs::read(&path).unwrap();
            let first = codec::encode(&values[0]).unwrap().into_vec();
            assert!(all.starts_with(&first));
            assert_eq!(stretches.end(), 3 * BORDER);
            // As when the memory is full.
            stretches.file = File::open(&path).unwrap();
            assert!(
                stretches
                    .add(7, &codec::encode(&values[0]).unwrap())
                    .is_err()
            );
            assert_eq!(stretches.end(), 3 * BORDER);
            std::fs::remove_file(path).unwrap();
        }
        assert!(!spare.exists());
    }

    #[test]
    fn a_file_that_is_cut_or_gone_is_an_error() {
        for bytes in [2 * LARGE, 2 * READ as usize] {
            let value = vec![0u8; bytes];
            let Piece::File { path, length } = Piece::of(codec::encode(&value).unwrap()) else {
                panic!("not in a file");
            };
            let longer = Piece::File {
                path,
                length: length + 1,
            };
            for kind in [io::ErrorKind::UnexpectedEof, io::ErrorKind::NotFound] {
                assert_eq!(longer.clone().take().unwrap_err().kind(), kind);
            }
        }
    }
}
