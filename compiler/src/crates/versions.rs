//! The versions that cargo chooses for a session's dependencies (`Cargo.lock`).

use std::fs;
use std::io;
use std::path::Path;
use toml::{Table, Value};

/// Adds the packages of one lock file to another that has no compatible versions of them: cargo then chooses these if it needs them.
pub(super) fn prefer(ours: &str, lock: &Path) -> io::Result<()> {
    let mut chosen = match fs::read_to_string(lock) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return fs::write(lock, ours),
        text => parse(&text?)?,
    };
    let ours = parse(ours)?;
    let there: Vec<(&str, String)> = packages(&chosen).map(compatible).collect();
    let missing: Vec<Value> = packages(&ours)
        .filter(|package| package.contains_key("source"))
        .filter(|package| !there.contains(&compatible(package)))
        .map(|package| Value::Table(package.clone()))
        .collect();
    let all = chosen
        .entry("package")
        .or_insert_with(|| Value::Array(Vec::new()));
    if let Value::Array(all) = all {
        all.extend(missing);
    }
    fs::write(lock, chosen.to_string())
}

/// A package's name, and what its version has in common with those that are compatible.
fn compatible(package: &Table) -> (&str, String) {
    let text = |key| package.get(key).and_then(Value::as_str).unwrap_or_default();
    let version = text("version");
    let parts = version.split('.').take_while(|part| *part == "0").count() + 1;
    let common: Vec<&str> = version.split('.').take(parts).collect();
    (text("name"), common.join("."))
}

fn parse(lock: &str) -> io::Result<Table> {
    lock.parse().map_err(io::Error::other)
}

fn packages(lock: &Table) -> impl Iterator<Item = &Table> {
    let packages = lock.get("package").and_then(Value::as_array);
    packages.into_iter().flatten().filter_map(Value::as_table)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_that_are_chosen_stay() {
        let folder = tempfile::tempdir().unwrap();
        let lock = folder.path().join("lock");
        let package = |name: &str, version: &str| {
            format!(
                "[[package]]\nname = \"{name}\"\nversion = \"{version}\"\nsource = \"registry\"\n"
            )
        };
        let root = "version = 4\n[[package]]\nname = \"ctx\"\nversion = \"1.0.0\"\n";
        let ours = root.to_owned() + &package("libc", "0.2.1") + &package("serde", "1.0.0");
        let versions = || {
            let chosen = parse(&fs::read_to_string(&lock).unwrap()).unwrap();
            let texts = packages(&chosen).map(|package| {
                format!("{} {}", package["name"], package["version"]).replace('"', "")
            });
            texts.collect::<Vec<String>>()
        };
        prefer(&ours, &lock).unwrap();
        assert_eq!(versions(), ["ctx 1.0.0", "libc 0.2.1", "serde 1.0.0"]);
        let chosen = package("libc", "0.2.9") + &package("serde", "0.9.0");
        fs::write(&lock, root.to_owned() + &chosen).unwrap();
        prefer(&ours, &lock).unwrap();
        assert_eq!(
            versions(),
            ["ctx 1.0.0", "libc 0.2.9", "serde 0.9.0", "serde 1.0.0"]
        );
    }
}
