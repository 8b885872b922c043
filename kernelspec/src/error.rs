//! What can go wrong with a kernelspec. Each message completes "failed to .. the kernelspec: " and says what to do next.

use std::io;
use std::path::PathBuf;

/// Why a kernelspec could not be installed, removed or shown.
#[derive(Debug, thiserror::Error)]
pub enum KernelspecError {
    /// The name cannot be a kernelspec's.
    #[error(
        "the name {name:?} is not one Jupyter accepts: use ASCII letters, digits, `.`, `_` and `-`, for example `chorus`"
    )]
    Name {
        /// The name as given.
        name: String,
    },

    /// The program that the kernelspec should start is not there.
    #[error("the program {} does not exist", .path.display())]
    ProgramMissing {
        /// The program's path as given.
        path: PathBuf,
    },

    /// kernel.json is Unicode, this path is not.
    #[error("the path {} is not valid Unicode, and kernel.json cannot name it: move the program", .path.display())]
    ProgramNotUnicode {
        /// The program's path as given.
        path: PathBuf,
    },

    /// No home directory, so no folder of the user's.
    #[error(
        "this user has no home directory: set JUPYTER_DATA_DIR, or name a folder with --prefix DIR"
    )]
    NoHome,

    /// No active Python environment and no python3.
    #[error(
        "no Python environment found ({reason}): activate one, or use --user, or name a folder with --prefix DIR"
    )]
    NoPython {
        /// What python3 said, or why it could not be started.
        reason: String,
    },

    /// We may not write there.
    #[error("no permission to write to {}: {hint}", .path.display())]
    Permission {
        /// The file or folder in question.
        path: PathBuf,
        /// What to do instead.
        hint: &'static str,
        /// The system's word.
        #[source]
        source: io::Error,
    },

    /// Another program's kernelspec has this name.
    #[error(
        "{} belongs to another kernel: choose another name with --name, or remove it with `jupyter kernelspec remove {name}`",
        .folder.display()
    )]
    NotOurs {
        /// The folder of the other kernelspec.
        folder: PathBuf,
        /// Its name.
        name: String,
    },

    /// There is none to remove.
    #[error("there is none at {}: `chorus kernelspec show` tells where one is installed", .folder.display())]
    NotInstalled {
        /// Where it would be.
        folder: PathBuf,
    },

    /// kernel.json is there and is not JSON.
    #[error("{} is not valid JSON: install again to write a new one", .path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Where it stops being JSON.
        #[source]
        source: serde_json::Error,
    },

    /// Any other trouble with a file or folder.
    #[error("cannot {action} {}: {source}", .path.display())]
    Io {
        /// What was tried, for example `create`.
        action: &'static str,
        /// The file or folder in question.
        path: PathBuf,
        /// The system's word.
        #[source]
        source: io::Error,
    },
}

impl KernelspecError {
    /// The error of a file operation; a refusal becomes [`KernelspecError::Permission`] with `hint`.
    pub(crate) fn from_io(
        action: &'static str,
        path: impl Into<PathBuf>,
        hint: &'static str,
        source: io::Error,
    ) -> Self {
        let path = path.into();
        match source.kind() {
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                Self::Permission { path, hint, source }
            }
            _ => Self::Io {
                action,
                path,
                source,
            },
        }
    }
}
