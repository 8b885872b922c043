//! Which rustc evcxr uses.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The rustc that evcxr will use: the one that rustup would run, or the one on PATH.
///
/// Asking rustup once saves its proxy's start in every later call.
pub fn rustc() -> PathBuf {
    which(&["which", "rustc"])
}

/// The rustc of one of rustup's toolchains.
pub(crate) fn rustc_of(toolchain: &str) -> PathBuf {
    which(&[&format!("+{toolchain}"), "which", "rustc"])
}

fn which(arguments: &[&str]) -> PathBuf {
    Command::new("rustup")
        .args(arguments)
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

/// The shared object of the standard library that code compiled with `-C prefer-dynamic` links to.
pub(crate) fn std(rustc: &Path) -> io::Result<PathBuf> {
    let output = Command::new(rustc)
        .args(["--print", "target-libdir"])
        .output()?;
    let folder = String::from_utf8(output.stdout).map_err(io::Error::other)?;
    std::fs::read_dir(folder.trim())?
        .flatten()
        .find(|entry| {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            name.starts_with("libstd-") && name.ends_with(".so")
        })
        .map(|entry| entry.path())
        .ok_or_else(|| io::Error::other(format!("no libstd-*.so in {}", folder.trim())))
}

/// Kills the compiles that this process has started, so that evcxr comes back with an error. What rust-analyzer asks cargo goes on: it asks
/// once and would keep half an answer. Without the standard library it finds no types for the rest of the session.
pub(crate) fn interrupt_compiles() {
    kill(|cargo| !is_asked_by_rust_analyzer(cargo));
}

/// Kills everything that evcxr has started in this process, which is about to end.
pub fn stop_compiles() {
    kill(|_| true);
}

fn kill(is_meant: impl Fn(u32) -> bool) {
    let processes = processes();
    let cargos = own_cargos(&processes).filter(|id| is_meant(*id)).collect();
    for id in with_descendants(&processes, cargos) {
        if let Ok(id) = i32::try_from(id) {
            // SAFETY: sends a signal, touches no memory.
            unsafe { libc::kill(id, libc::SIGKILL) };
        }
    }
}

/// Whether cargo was started by rust-analyzer, which says that nothing is to be installed (`ra_ap_toolchain::command`). Whatever builds says
/// where to: that is evcxr's or ours. One that is about to start shows no environment yet, so that it can't be told.
fn is_asked_by_rust_analyzer(cargo: u32) -> bool {
    let environment = std::fs::read(format!("/proc/{cargo}/environ")).unwrap_or_default();
    let has = |start: &[u8]| {
        let mut variables = environment.split(|byte| *byte == 0);
        variables.any(|variable| variable.starts_with(start))
    };
    environment.is_empty() || has(b"RUSTUP_AUTO_INSTALL=0") && !has(b"CARGO_BUILD_BUILD_DIR=")
}

/// The runs of cargo that this process has started.
pub(crate) fn own_cargos(processes: &[Process]) -> impl Iterator<Item = u32> {
    let own = std::process::id();
    processes
        .iter()
        .filter(move |process| process.parent == own && process.name == "cargo")
        .map(|process| process.id)
}

/// These processes and all below them, parents before their children.
pub(crate) fn with_descendants(processes: &[Process], mut ids: Vec<u32>) -> Vec<u32> {
    let mut next = 0;
    while let Some(parent) = ids.get(next).copied() {
        let children = processes.iter().filter(|process| process.parent == parent);
        ids.extend(children.map(|process| process.id));
        next += 1;
    }
    ids
}

/// A process of this machine.
pub(crate) struct Process {
    pub(crate) id: u32,
    pub(crate) parent: u32,
    pub(crate) name: String,
}

/// The processes that `/proc` shows.
pub(crate) fn processes() -> Vec<Process> {
    let Ok(entries) = std::fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| {
            let id = entry.file_name().to_str()?.parse().ok()?;
            let stat = std::fs::read_to_string(entry.path().join("stat")).ok()?;
            // The name stands in brackets and may contain anything.
            let (head, tail) = stat.rsplit_once(") ")?;
            Some(Process {
                id,
                parent: tail.split(' ').nth(1)?.parse().ok()?,
                name: head.split_once('(')?.1.to_owned(),
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::process::Stdio;

    /// In place of cargo: it says that it is there, and waits for the end of its input.
    fn is_spared(environment: &[(&str, &str)]) -> bool {
        let mut cargo = Command::new("sh")
            .args(["-c", "echo; read line"])
            .env_remove("RUSTUP_AUTO_INSTALL")
            .env_remove("CARGO_BUILD_BUILD_DIR")
            .envs(environment.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = [0];
        cargo.stdout.take().unwrap().read_exact(&mut said).unwrap();
        let spared = is_asked_by_rust_analyzer(cargo.id());
        drop(cargo.stdin.take());
        cargo.wait().unwrap();
        spared
    }

    #[test]
    fn rust_analyzers_questions_are_told_from_builds() {
        let mark = ("RUSTUP_AUTO_INSTALL", "0");
        let build = ("CARGO_BUILD_BUILD_DIR", "target");
        assert!(is_spared(&[mark]));
        assert!(!is_spared(&[]));
        assert!(!is_spared(&[build]));
        // Who sets the variable himself can interrupt builds all the same.
        assert!(!is_spared(&[mark, build]));
    }
}
