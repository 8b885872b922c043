//! Which rustc evcxr uses.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The rustc that evcxr will use: the one that rustup would run, or the one on PATH.
///
/// Asking rustup once saves its proxy's start in every later call.
pub fn rustc() -> PathBuf {
    Command::new("rustup")
        .args(["which", "rustc"])
        .output()
        .ok()
        .filter(|output| output.status.success())
        .and_then(|output| String::from_utf8(output.stdout).ok())
        .map_or_else(|| PathBuf::from("rustc"), |path| PathBuf::from(path.trim()))
}

/// What `rustc -vV` prints: its version, commit and host.
pub(crate) fn version(rustc: &Path) -> io::Result<String> {
    let output = Command::new(rustc).arg("-vV").output()?;
    if !output.status.success() {
        return Err(io::Error::other(
            String::from_utf8_lossy(&output.stderr).into_owned(),
        ));
    }
    String::from_utf8(output.stdout).map_err(io::Error::other)
}
