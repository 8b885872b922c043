//! Dependencies in a snippet's commands, local crates among them: what they are part of a lineage as.
//!
//! A crate of one's own changes without its path changing. So its files' sizes and times are part of the lineage: whoever has
//! changed it says `:dep` again, and gets it.

use super::commands::Change;
use crate::summary::Summary;
use sha2::{Digest, Sha256};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Marks what stands for a crate's files.
const FILES: &str = " # files ";

/// Takes in what changes of dependencies and of the build's environment say.
pub(super) fn note(changes: &[Change], summary: &mut Summary) {
    for change in changes {
        match change {
            Change::Dependency { name, config } => {
                let mut config = config.clone();
                if let Some(path) = path_in(&config) {
                    config.push_str(FILES);
                    config.push_str(&files(&path));
                }
                summary.dependencies.insert(name.clone(), config);
            }
            Change::LocalDependency(path) => {
                let config = format!("{{ path = {path:?} }}{FILES}{}", files(Path::new(path)));
                summary.dependencies.insert(path.clone(), config);
            }
            Change::BuildEnv { key, value } => {
                summary.environment.insert(key.clone(), value.clone());
            }
        }
    }
}

/// Whether a change asks for a local crate.
pub(super) fn is_local(change: &Change) -> bool {
    match change {
        Change::Dependency { config, .. } => path_in(config).is_some(),
        Change::LocalDependency(_) => true,
        Change::BuildEnv { .. } => false,
    }
}

/// What evcxr's `:dep` takes for a dependency of a summary.
pub(super) fn command(name: &str, config: &str) -> String {
    if !name.starts_with(['.', '/']) {
        return format!(":dep {name} = {}\n", shown(config));
    }
    // evcxr takes no path with a space in it.
    match package_name(Path::new(name)) {
        Some(package) => format!(":dep {package} = {{ path = {name:?} }}\n"),
        None => format!(":dep {name}\n"),
    }
}

/// A configuration that has a key which cargo takes no more, with the one that has taken its place.
pub(super) fn with_todays_keys(config: &str) -> Option<String> {
    const OLD: &str = "default_features";
    let parsed: toml::Table = format!("it = {config}").parse().ok()?;
    let it = parsed.get("it")?.as_table()?;
    if !it.contains_key(OLD) || it.contains_key("default-features") {
        return None;
    }
    let is_key = |at: usize| config[at + OLD.len()..].trim_start().starts_with('=');
    let mut found = config.match_indices(OLD);
    let (at, _) = found.find(|(at, _)| is_key(*at))?;
    let (before, after) = (&config[..at], &config[at + OLD.len()..]);
    Some(format!("{before}default-features{after}"))
}

/// A dependency's configuration as it was written.
pub(super) fn shown(config: &str) -> &str {
    config.split(FILES).next().unwrap_or_default()
}

/// The name of the package in a folder.
fn package_name(folder: &Path) -> Option<String> {
    let manifest = std::fs::read_to_string(folder.join("Cargo.toml")).ok()?;
    let manifest: toml::Table = manifest.parse().ok()?;
    let name = manifest.get("package")?.get("name")?.as_str()?;
    Some(name.to_owned())
}

/// Whether a snippet may use local crates. What they come to only cargo knows: a build script can read anything.
pub(super) fn has_local(summary: &Summary) -> bool {
    let mut configs = summary.dependencies.values();
    configs.any(|config| config.contains(FILES))
}

/// The part of the session's cache for snippets that may use these local crates.
pub(super) fn part(summary: &Summary) -> String {
    let local: Vec<&String> = summary
        .dependencies
        .values()
        .filter(|config| config.contains(FILES))
        .collect();
    match local.is_empty() {
        true => "common".to_owned(),
        false => hex::encode(&Sha256::digest(format!("{local:?}"))[..8]),
    }
}

/// The `path` of a dependency's table.
fn path_in(config: &str) -> Option<PathBuf> {
    let rest = config
        .split("path")
        .nth(1)?
        .trim_start()
        .strip_prefix('=')?;
    let path = rest.trim_start().strip_prefix('"')?.split('"').next()?;
    Some(path.into())
}

/// A dependency's configuration with the path of a local crate made absolute.
pub(super) fn absolute(config: &str, folder: &Path) -> String {
    let Some(path) = path_in(config).filter(|path| path.is_relative()) else {
        return config.to_owned();
    };
    let written = format!("\"{}\"", path.display());
    config.replacen(&written, &format!("\"{}\"", folder.join(path).display()), 1)
}

/// Hashes the sizes and times of the files in a crate's folder.
fn files(folder: &Path) -> String {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let Ok(metadata) = entry.metadata() else {
                continue;
            };
            if metadata.is_dir() {
                if name != "target" && !name.to_string_lossy().starts_with('.') {
                    folders.push(entry.path());
                }
            } else {
                let modified = (metadata.mtime(), metadata.mtime_nsec());
                let changed = (metadata.ctime(), metadata.ctime_nsec());
                found.push((entry.path(), metadata.len(), modified, changed));
            }
        }
    }
    found.sort();
    hex::encode(&Sha256::digest(format!("{found:?}"))[..8])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_local_crate_is_known_by_its_files() {
        let folder = tempfile::tempdir().unwrap();
        let config = format!("{{ version = \"1\", path = {:?} }}", folder.path());
        let change = Change::Dependency {
            name: "own".to_owned(),
            config,
        };
        assert!(is_local(&change));
        let noted = || {
            let mut summary = Summary::default();
            note(std::slice::from_ref(&change), &mut summary);
            (summary.dependencies["own"].clone(), part(&summary))
        };
        let before = noted();
        assert_eq!(before, noted());
        std::fs::create_dir(folder.path().join("target")).unwrap();
        std::fs::write(folder.path().join("target").join("x"), "").unwrap();
        assert_eq!(before, noted());
        std::fs::write(folder.path().join("lib.rs"), "fn f() {}").unwrap();
        let after = noted();
        assert_ne!(before.0, after.0);
        assert_ne!(before.1, after.1);
        assert_eq!(part(&Summary::default()), "common");
    }
}
