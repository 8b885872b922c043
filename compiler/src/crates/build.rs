//! Compiling the crates into the cache: cargo does it, and its lock keeps two who want it at the same time from doing it twice.

use super::{Externs, Sources, files, versions};
use serde_json::Value;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

/// Says where the compiled crates are; written last.
const READY: &str = "ready.json";

/// How long what was compiled for another version is kept after it was used last.
const KEPT: Duration = Duration::from_secs(60 * 24 * 3600);

/// Signs of a network that is not there in what cargo says.
const NETWORK: [&str; 6] = [
    "failed to download",
    "failed to fetch",
    "offline",
    "resolve host",
    "network",
    "failed to query replaced source",
];

/// Why the crates could not be compiled.
#[derive(Debug, thiserror::Error)]
pub enum CratesError {
    /// No folder to keep them in, or no right to write there.
    #[error("failed to keep the crates `chorus` and `serde` in {folder}: {source}")]
    Folder {
        /// The folder.
        folder: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// cargo or rustc could not be started.
    #[error("failed to run {program}: {source}; install Rust from https://rustup.rs")]
    Run {
        /// The program.
        program: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// What they depend on is not on this machine, and can't be fetched.
    #[error(
        "failed to fetch what the crates `chorus` and `serde` depend on:\n{message}\nThat is needed once, before they are used for the \
         first time with this version of Chorus and of Rust: connect to the network and try again (`chorus kernelspec install` does \
         it as well). Cells that don't use them need nothing of this."
    )]
    Network {
        /// What cargo said.
        message: String,
    },
    /// They did not compile.
    #[error(
        "failed to compile the crates `chorus` and `serde`:\n{message}\nCells that don't use them need nothing of this."
    )]
    Compile {
        /// What cargo said.
        message: String,
    },
    /// Somebody ended the compile.
    #[error(
        "the compile of the crates `chorus` and `serde` was interrupted; it goes on when they are used again"
    )]
    Stopped,
}

/// Where they are, if they have been compiled.
pub(super) fn find(home: &Path) -> Option<Externs> {
    let ready = home.join(READY);
    let externs: Externs = serde_json::from_slice(&fs::read(&ready).ok()?).ok()?;
    // Says that they are used; only the age of what nobody uses matters.
    if let Ok(file) = fs::File::open(&ready) {
        let _ = file.set_modified(SystemTime::now());
    }
    (externs.chorus.exists() && externs.serde.exists()).then_some(externs)
}

/// Compiles them, which takes some 12 seconds.
pub(super) fn build(
    sources: &Sources,
    rustc: &Path,
    version: &str,
    home: &Path,
) -> Result<Externs, CratesError> {
    let folder = |source| CratesError::Folder {
        folder: home.to_owned(),
        source,
    };
    let host = version
        .lines()
        .find_map(|line| line.strip_prefix("host: "))
        .unwrap_or_default();
    let files = home.join("files");
    files::write(sources, &files).map_err(folder)?;
    let cargo = cargo(rustc);
    let mut command = Command::new(&cargo);
    command
        .args([
            "build",
            "--message-format=json-render-diagnostics",
            "--target",
            host,
        ])
        .current_dir(files.join("build"))
        .env("CARGO_TARGET_DIR", home.join("target"))
        .env("CARGO_BUILD_BUILD_DIR", home.join("target"))
        .env("RUSTC", rustc)
        .env("RUSTFLAGS", "-Cprefer-dynamic")
        .stdin(Stdio::null());
    for other in [
        "CARGO_ENCODED_RUSTFLAGS",
        "RUSTC_WRAPPER",
        "RUSTC_WORKSPACE_WRAPPER",
    ] {
        command.env_remove(other);
    }
    let run = |source| CratesError::Run {
        program: cargo.clone(),
        source,
    };
    let output = command.output().map_err(run)?;
    if output.status.signal().is_some() {
        return Err(CratesError::Stopped);
    }
    if !output.status.success() {
        return Err(failed(&String::from_utf8_lossy(&output.stderr)));
    }
    let externs = keep(home, &output.stdout).map_err(folder)?;
    tidy_up(home);
    remove_notes(home, host);
    Ok(externs)
}

/// The cargo that goes with a rustc.
fn cargo(rustc: &Path) -> PathBuf {
    let beside = rustc.with_file_name("cargo");
    if rustc.is_absolute() && beside.exists() {
        beside
    } else {
        "cargo".into()
    }
}

/// What cargo's messages come to.
fn failed(said: &str) -> CratesError {
    let from = said.find("error").unwrap_or_default();
    let message: Vec<&str> = said[from..].lines().take(20).collect();
    let message = message.join("\n").trim_end().to_owned();
    let lower = message.to_lowercase();
    if NETWORK.iter().any(|sign| lower.contains(sign)) {
        CratesError::Network { message }
    } else {
        CratesError::Compile { message }
    }
}

/// Puts what rustc needs of cargo's products into a folder: it searches the whole of it for each cell.
fn keep(home: &Path, messages: &[u8]) -> io::Result<Externs> {
    let folder = home.join("lib");
    let new = tempfile::tempdir_in(home)?;
    let (mut chorus, mut serde) = (None, None);
    for line in String::from_utf8_lossy(messages).lines() {
        let Ok(message) = serde_json::from_str::<Value>(line) else {
            continue;
        };
        if message["reason"] != "compiler-artifact" || message["target"]["name"] == "ctx" {
            continue;
        }
        for file in message["filenames"].as_array().into_iter().flatten() {
            let Some(file) = file.as_str().map(Path::new).filter(|file| is_needed(file)) else {
                continue;
            };
            let Some(name) = file.file_name() else {
                continue;
            };
            fs::copy(file, new.path().join(name))?;
            let kept =
                Some(folder.join(name)).filter(|_| file.extension() == Some(OsStr::new("rlib")));
            match message["target"]["name"].as_str() {
                Some("chorus") => chorus = kept,
                Some("serde") => serde = kept,
                _ => {}
            }
        }
    }
    let missing = || io::Error::other("cargo did not say where it has put them");
    let externs = Externs {
        chorus: chorus.ok_or_else(missing)?,
        serde: serde.ok_or_else(missing)?,
        folder: folder.clone(),
    };
    // Somebody who waited for the same build may have been faster, and has put the same there.
    if fs::rename(new.path(), &folder).is_err()
        && !(externs.chorus.exists() && externs.serde.exists())
    {
        let _ = fs::remove_dir_all(&folder);
        fs::rename(new.path(), &folder)?;
    }
    let mut ready = tempfile::NamedTempFile::new_in(home)?;
    io::Write::write_all(&mut ready, &serde_json::to_vec(&externs)?)?;
    ready.persist(home.join(READY))?;
    Ok(externs)
}

/// Libraries for cells, and procedural macros; not what only the macros consist of.
fn is_needed(file: &Path) -> bool {
    let has = |extension: &str| file.extension() == Some(OsStr::new(extension));
    let host = file
        .components()
        .rev()
        .nth(3)
        .is_some_and(|part| part.as_os_str() == "target");
    has("so") || has("rlib") && !host
}

/// What rustc keeps for the next compile of the same crate, which will not come.
fn remove_notes(home: &Path, host: &str) {
    let notes = home
        .join("target")
        .join(host)
        .join("debug")
        .join("incremental");
    if let Err(error) = fs::remove_dir_all(notes) {
        tracing::debug!(%error, "rustc's notes stay");
    }
}

/// See [`super::Crates::seed`].
pub(super) fn seed(home: &Path, folder: &Path, sources: &Sources) -> io::Result<()> {
    versions::prefer(sources.lock, &folder.join("Cargo.lock"))?;
    match find(home) {
        Some(_) => copy(&home.join("target"), &folder.join("target")),
        None => Ok(()),
    }
}

/// Copies a folder into another; files that are there stay. Times are kept, since cargo goes by them.
fn copy(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (name, target) = (entry.file_name(), to.join(entry.file_name()));
        let metadata = entry.metadata()?;
        // cargo's locks, rustc's notes for a next time, and the package that only depends on the crates.
        let text = name.to_string_lossy();
        if text.starts_with(".cargo")
            || text == "incremental"
            || text.starts_with("ctx")
            || text.starts_with("libctx")
        {
            continue;
        }
        if metadata.is_dir() {
            copy(&entry.path(), &target)?;
        } else if !target.exists() {
            fs::copy(entry.path(), &target)?;
            fs::File::open(&target)?.set_modified(metadata.modified()?)?;
        }
    }
    Ok(())
}

/// Removes what was compiled for versions that nobody uses any more.
fn tidy_up(home: &Path) {
    let Some(entries) = home.parent().and_then(|all| fs::read_dir(all).ok()) else {
        return;
    };
    for entry in entries.flatten() {
        let used = fs::metadata(entry.path().join(READY)).and_then(|metadata| metadata.modified());
        let old = used.is_ok_and(|used| used.elapsed().is_ok_and(|age| age > KEPT));
        if old && let Err(error) = fs::remove_dir_all(entry.path()) {
            tracing::debug!(%error, folder = %entry.path().display(), "an old folder stays");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_network_is_told_from_errors_in_code() {
        let said = "    Updating crates.io index\nerror: failed to get `libc` as a dependency\n\nCaused by:\n  failed to download from registry";
        assert!(
            matches!(failed(said), CratesError::Network { message } if message.starts_with("error: failed to get"))
        );
        let said = "   Compiling chorus\nerror[E0308]: mismatched types";
        assert!(matches!(failed(said), CratesError::Compile { .. }));
    }

    #[test]
    fn libraries_for_the_compiler_itself_are_not_needed() {
        for (path, needed) in [
            (
                "/c/target/x86_64-unknown-linux-gnu/debug/deps/libserde-1.rlib",
                true,
            ),
            (
                "/c/target/x86_64-unknown-linux-gnu/debug/deps/libserde-1.rmeta",
                false,
            ),
            ("/c/target/debug/deps/libserde_derive-1.so", true),
            ("/c/target/debug/deps/libsyn-1.rlib", false),
        ] {
            assert_eq!(is_needed(Path::new(path)), needed, "{path}");
        }
    }
}
