//! The files from which the crates are compiled, and the signposts.
//!
//! In a folder of its own: `chorus/`, the crate as it is; `features/`, an empty one that asks for features; `build/`, which depends on
//! all of them in the way that evcxr's crate would; and `signposts/`, what rust-analyzer reads instead. To rustc a signpost is empty, so that cargo has next to nothing to do for it.

use super::Sources;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// What the crate `chorus` depends on: what `parallel/Cargo.toml` says, and features that other crates often ask for. A crate with other features is
/// another one, and `chorus` is compiled again for it.
const DEPENDENCIES: &str = r#"[dependencies]
libc = "0.2"
serde = { version = "1", features = ["derive", "alloc"] }
typeid = "1"
"#;

/// Asks for the features that procedural macros often want of syn 3, which serde's derive consists of: with others, serde and `chorus` would be
/// other crates. Nothing is compiled for build dependencies, since there is no build script.
const MACROS: &str = r#"[build-dependencies]
proc-macro2 = "1"
quote = "1"
syn = { version = "3", features = ["full", "extra-traits", "fold", "visit", "visit-mut"] }
"#;

/// cargo's configuration for the crate `chorus`: optimised, in the way that takes rustc the least time (`tests/bench_tasks.py` finds no
/// difference). It goes to a folder above the packages that depend on the crate: evcxr writes its manifest itself. What is compiled under the same
/// profile is the same crate to rustc.
pub(crate) const PROFILE: &str = "[profile.dev.package.chorus]\nopt-level = \"s\"\ncodegen-units = 2\nincremental = false\ndebug-assertions = false\n";

/// As evcxr writes it, so that cargo compiles the dependencies in the same way.
const BUILD: &str = r#"[package]
name = "ctx"
version = "1.0.0"
edition = "2024"

[lib]
path = "lib.rs"

[profile.dev]
opt-level = 2
debug = false
strip = "debuginfo"
rpath = true
lto = false
debug-assertions = true
codegen-units = 16
panic = 'unwind'
incremental = true
overflow-checks = true

[dependencies]
chorus = { path = "../chorus" }
chorus_features = { path = "../features" }
serde = { version = "1", features = ["derive"] }

[workspace]
"#;

/// How the packages of signposts are called before their crate's name.
pub(crate) const SIGNPOST: &str = "chorus_signpost_";

/// What makes a crate empty for everybody but rust-analyzer.
const FOR_READERS: &str = "#![cfg(rust_analyzer)]\n";

/// What a manifest says to depend on serde itself.
pub(super) const SERDE_ITSELF: &str = "{ version = \"1\", features = [\"derive\"] }";

/// An empty crate that asks for the features that other crates often ask for.
pub(super) const FEATURES: &str = "chorus_features";

const SERDE: &str = include_str!("../../signposts/serde.rs");

/// A signpost's manifest. It announces the condition in [`FOR_READERS`], since evcxr takes cargo's warnings for errors of the cell.
fn signpost(name: &str, dependencies: &str) -> String {
    format!(
        "[package]\nname = \"{SIGNPOST}{name}\"\nversion = \"1.0.0\"\nedition = \"2024\"\n\n\
         [lib]\npath = \"src/lib.rs\"\n\n[dependencies]\n{dependencies}\n\
         [lints.rust]\nunexpected_cfgs = {{ level = \"warn\", check-cfg = [\"cfg(rust_analyzer)\"] }}\n\n[workspace]\n"
    )
}

/// What a manifest says to depend on a signpost in `folder`.
fn dependency(name: &str, folder: &Path) -> String {
    format!(
        "{{ package = \"{SIGNPOST}{name}\", path = {:?} }}",
        folder.join(name)
    )
}

/// The manifest of a crate that depends on what `chorus` depends on, with `more` sections.
fn manifest(name: &str, more: &str) -> String {
    format!(
        "[package]\nname = \"{name}\"\nversion = \"0.1.0\"\nedition = \"2024\"\n\n{DEPENDENCIES}\n{more}\n[workspace]\n"
    )
}

/// All files with their paths in the folder.
pub(super) fn all(sources: &Sources) -> Vec<(PathBuf, String)> {
    let mut files: Vec<(PathBuf, String)> = [
        (".cargo/config.toml", PROFILE.to_owned()),
        (
            "chorus/Cargo.toml",
            manifest("chorus", "[features]\nclient = []\n"),
        ),
        ("features/Cargo.toml", manifest(FEATURES, MACROS)),
        ("features/src/lib.rs", String::new()),
        ("build/Cargo.toml", BUILD.to_owned()),
        ("build/Cargo.lock", sources.lock.to_owned()),
        ("build/lib.rs", String::new()),
        (
            "signposts/chorus/Cargo.toml",
            signpost(
                "chorus",
                &format!("serde = {}\n", dependency("serde", Path::new(".."))),
            ),
        ),
        ("signposts/serde/Cargo.toml", signpost("serde", "")),
        (
            "signposts/serde/src/lib.rs",
            format!("{FOR_READERS}{SERDE}"),
        ),
    ]
    .map(|(path, text)| (path.into(), text))
    .into();
    for (name, text) in sources.files {
        files.push((Path::new("chorus/src").join(name), (*text).to_owned()));
        let head = if *name == "lib.rs" { FOR_READERS } else { "" };
        let path = Path::new("signposts/chorus/src").join(name);
        files.push((path, format!("{head}{text}")));
    }
    files
}

/// Writes the files to `folder`, unless they are there; never half of them.
pub(super) fn write(sources: &Sources, folder: &Path) -> io::Result<()> {
    if folder.exists() {
        return Ok(());
    }
    let home = folder.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(home)?;
    let new = tempfile::tempdir_in(home)?;
    for (path, text) in all(sources) {
        let path = new.path().join(path);
        fs::create_dir_all(path.parent().unwrap_or(Path::new(".")))?;
        fs::write(path, text)?;
    }
    match fs::rename(new.path(), folder) {
        // Somebody else was faster.
        Err(_) if folder.exists() => Ok(()),
        outcome => outcome,
    }
}

/// Name and configuration of both crates as dependencies of evcxr's crate, as signposts.
pub(super) fn signposts(folder: &Path) -> [(&'static str, String); 2] {
    let folder = folder.join("signposts");
    ["chorus", "serde"].map(|name| (name, dependency(name, &folder)))
}

/// Name and configuration of the crate `chorus` itself.
pub(super) fn chorus(folder: &Path) -> (&'static str, String) {
    ("chorus", local(&folder.join("chorus")))
}

/// Name and configuration of serde itself.
pub(super) fn serde() -> (&'static str, String) {
    ("serde", SERDE_ITSELF.to_owned())
}

/// Name and configuration of [`FEATURES`].
pub(super) fn features(folder: &Path) -> (&'static str, String) {
    (FEATURES, local(&folder.join("features")))
}

fn local(folder: &Path) -> String {
    format!("{{ path = {folder:?} }}")
}

#[cfg(test)]
mod tests {
    /// The features are asked of the syn that serde's derive uses.
    #[test]
    fn serdes_derive_has_all_of_syn() {
        let lock = include_str!("../../../Cargo.lock");
        let derive = lock
            .split("[[package]]")
            .find(|package| package.contains("name = \"serde_derive\""));
        assert!(derive.unwrap().contains("\"syn 3."));
        assert!(super::MACROS.contains("syn = { version = \"3\""));
    }

    /// The manifest for cells says what the workspace's says.
    #[test]
    fn the_crate_needs_what_its_manifest_says() {
        let manifest = include_str!("../../../parallel/Cargo.toml");
        let section = manifest
            .split("[dependencies]")
            .nth(1)
            .and_then(|rest| rest.split("\n[").next())
            .unwrap();
        let needed = |text: &str| -> Vec<String> {
            text.lines()
                .filter(|line| !line.contains("optional = true"))
                .filter_map(|line| line.split(['.', ' ']).next())
                .filter(|name| !name.is_empty())
                .map(str::to_owned)
                .collect()
        };
        let own = super::DEPENDENCIES.replace("[dependencies]", "");
        assert_eq!(needed(&own), needed(section));
    }
}
