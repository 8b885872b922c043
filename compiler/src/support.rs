//! The support library that cells link: compiled once for each toolchain and kept.

use crate::toolchain;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Why there is no support library.
#[derive(Debug, thiserror::Error)]
pub enum SupportError {
    /// No folder to keep it in, or no right to write there.
    #[error("failed to keep the support library in {folder}: {source}")]
    Folder {
        /// The folder.
        folder: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// rustc could not be started.
    #[error(
        "failed to run {rustc}: {source}; install Rust from https://rustup.rs or put rustc on PATH"
    )]
    Rustc {
        /// The compiler.
        rustc: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// rustc refused it.
    #[error("failed to compile the support library with {rustc}: {message}")]
    Compile {
        /// The compiler.
        rustc: PathBuf,
        /// What it said.
        message: String,
    },
}

/// The support library for one toolchain.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Support {
    /// The folder it lies in.
    pub folder: PathBuf,
    /// The shared object itself.
    pub library: PathBuf,
    /// The toolchain's own `libstd-*.so`, which it needs.
    pub std: PathBuf,
}

/// Gives the support library for `rustc`, compiling `source` if that has not been done.
pub fn ensure(rustc: &Path, source: &str) -> Result<Support, SupportError> {
    let version = toolchain::version(rustc).map_err(|source| SupportError::Rustc {
        rustc: rustc.into(),
        source,
    })?;
    let mut hash = Sha256::new();
    hash.update(&version);
    hash.update(source);
    let folder = crate::folder::cache()
        .join("support")
        .join(&hex::encode(hash.finalize())[..16]);
    let library = folder.join("libchorus_support.so");
    let std = toolchain::std(rustc).map_err(|source| SupportError::Rustc {
        rustc: rustc.into(),
        source,
    })?;
    let support = Support {
        folder,
        library,
        std,
    };
    if support.library.exists() {
        return Ok(support);
    }
    compile(rustc, source, &support)?;
    Ok(support)
}

/// Compiles into a folder of its own and moves the result into place, so that kernels that start
/// at the same time don't see half of it.
fn compile(rustc: &Path, source: &str, support: &Support) -> Result<(), SupportError> {
    let folder = |source| SupportError::Folder {
        folder: support.folder.clone(),
        source,
    };
    std::fs::create_dir_all(&support.folder).map_err(folder)?;
    let work = tempfile::tempdir_in(&support.folder).map_err(folder)?;
    let file = work.path().join("lib.rs");
    std::fs::write(&file, source).map_err(folder)?;
    let output = Command::new(rustc)
        .args(["--crate-name", "chorus_support", "--crate-type", "dylib"])
        .args(["--edition", "2024", "-Copt-level=2", "-Cprefer-dynamic"])
        .args(["-Cstrip=debuginfo", "-Crpath"])
        .arg("--out-dir")
        .arg(work.path())
        .arg(&file)
        .output()
        .map_err(|source| SupportError::Rustc {
            rustc: rustc.into(),
            source,
        })?;
    if !output.status.success() {
        return Err(SupportError::Compile {
            rustc: rustc.into(),
            message: String::from_utf8_lossy(&output.stderr).into_owned(),
        });
    }
    std::fs::rename(work.path().join("libchorus_support.so"), &support.library).map_err(folder)
}
