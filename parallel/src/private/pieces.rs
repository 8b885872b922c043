//! What snippets that Chorus itself writes call: values come to and go from an engine's namespace as files of a folder that the engine
//! names.

use crate::codec;
use crate::error::Error;
use crate::portable::Portable;
use crate::wire::{PIECES, Piece};
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

fn slot(action: &'static str, name: &str) -> Result<PathBuf, Error> {
    match std::env::var_os(PIECES) {
        Some(folder) => Ok(PathBuf::from(folder).join(name)),
        None => Err(Error::Variable {
            action,
            name: name.to_owned(),
            reason: format!("this process is no engine ({PIECES} is not set)"),
        }),
    }
}

/// The value that was put under a name.
///
/// # Errors
/// When there is none, or it has another type.
pub fn take<T: Portable>(name: &str) -> Result<T, Error> {
    let path = slot("push", name)?;
    let failed = |reason: String| Error::Variable {
        action: "push",
        name: name.to_owned(),
        reason,
    };
    let length = std::fs::metadata(&path)
        .map_err(|error| failed(error.to_string()))?
        .len();
    let bytes = Piece::File { path, length }
        .take()
        .map_err(|error| failed(error.to_string()))?;
    codec::decode(&bytes).map_err(|error| failed(error.to_string()))
}

/// Puts a value under a name.
///
/// # Errors
/// When it can't be encoded or written.
pub fn give<T: Portable>(name: &str, value: &T) -> Result<(), Error> {
    let path = slot("pull", name)?;
    let failed = |reason: String| Error::Variable {
        action: "pull",
        name: name.to_owned(),
        reason,
    };
    let encoded = codec::encode(value).map_err(|error| failed(error.to_string()))?;
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .and_then(|mut file| {
            file.write_all(&encoded.head)?;
            file.write_all(encoded.bulk)
        })
        .map_err(|error| {
            failed(match error.kind() {
                io::ErrorKind::StorageFull => format!(
                    "{error}. The shared memory of the engine's machine is full: give /dev/shm more room (`--shm-size` of a container), or fetch less at a time"
                ),
                _ => error.to_string(),
            })
        })
}
