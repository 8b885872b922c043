//! Puts the crate `chorus` into the program, so that an installed one can compile it for cells: its sources without what only
//! stand-alone programs use, and the versions of what it depends on.

use std::collections::BTreeSet;
use std::error::Error;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

/// What marks a module that cells do without.
const FEATURE: &str = "#[cfg(feature = \"client\")]";

/// What the crate depends on without features.
const DEPENDENCIES: [&str; 3] = ["libc", "serde", "typeid"];

fn main() -> Result<(), Box<dyn Error>> {
    let root = Path::new(&std::env::var("CARGO_MANIFEST_DIR")?)
        .join("..")
        .canonicalize()?;
    // What the runtime defines in libc's place (`runtime/src/child/descriptors.rs`), for the libraries that it loads.
    for name in ["close", "close_range", "dup2", "dup3"] {
        println!("cargo::rustc-link-arg-bins=-Wl,--export-dynamic-symbol={name}");
    }
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    let source = root.join("parallel").join("src");
    let lock = root.join("Cargo.lock");
    for path in [&source, &lock] {
        println!("cargo::rerun-if-changed={}", path.display());
    }
    let lib = fs::read_to_string(source.join("lib.rs"))?;
    let left_out = left_out(&lib);
    let mut files = Vec::new();
    collect(&source, &mut files)?;
    files.sort();
    let mut list = String::from("&[\n");
    for file in files {
        let name = file.strip_prefix(&source)?.to_string_lossy().into_owned();
        let module = name.split(['/', '.']).next().unwrap_or_default();
        if !left_out.contains(module) && !name.ends_with("tests.rs") {
            writeln!(
                list,
                "({name:?}, include_str!({:?})),",
                file.display().to_string()
            )?;
        }
    }
    list.push(']');
    fs::write(out.join("chorus_files.rs"), list)?;
    fs::write(out.join("chorus.lock"), needed(&fs::read_to_string(lock)?))?;
    Ok(())
}

/// The modules behind the feature.
fn left_out(lib: &str) -> BTreeSet<&str> {
    let lines = lib.lines().zip(lib.lines().skip(1));
    lines
        .filter(|(line, _)| line.trim() == FEATURE)
        .filter_map(|(_, next)| {
            next.trim_start_matches("pub ")
                .strip_prefix("mod ")?
                .strip_suffix(';')
        })
        .collect()
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> Result<(), Box<dyn Error>> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, files)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    Ok(())
}

/// Of a lock file, what [`DEPENDENCIES`] come to.
fn needed(lock: &str) -> String {
    let mut parts = lock.split("[[package]]");
    let head = parts.next().unwrap_or_default();
    let packages: Vec<&str> = parts.collect();
    let mut wanted: Vec<String> = DEPENDENCIES.map(str::to_owned).into();
    let mut found = BTreeSet::new();
    while let Some(wish) = wanted.pop() {
        // A name, and a version where there are several.
        let (name, version) = wish.split_once(' ').unwrap_or((&wish, ""));
        let fits = |package: &str| {
            package.contains(&format!("\nname = \"{name}\"\n"))
                && (version.is_empty() || package.contains(&format!("\nversion = \"{version}\"\n")))
        };
        for (index, package) in packages.iter().enumerate() {
            if fits(package) && found.insert(index) {
                let listed = package
                    .lines()
                    .filter_map(|line| line.strip_prefix(" \"")?.strip_suffix("\","));
                wanted.extend(listed.map(str::to_owned));
            }
        }
    }
    let packages = found.into_iter().filter_map(|index| packages.get(index));
    packages.fold(head.to_owned(), |all, package| {
        all + "[[package]]" + package
    })
}
