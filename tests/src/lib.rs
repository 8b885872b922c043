//! Rules of the house that no compiler checks.
//!
//! The end-to-end tests are Python programs in `python/`, run by `tests/run`.

#[cfg(test)]
mod house {
    use std::collections::{BTreeMap, BTreeSet};
    use std::path::{Path, PathBuf};

    fn root() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
    }

    /// A crate's folder: its name, but for what users call `chorus` and the tree `parallel`.
    fn folder(name: &str) -> PathBuf {
        root().join(if name == "chorus" { "parallel" } else { name })
    }

    /// The Rust files of all crates, with their texts.
    fn sources() -> Vec<(PathBuf, String)> {
        let mut files = Vec::new();
        let mut folders: Vec<PathBuf> = crates().into_keys().map(|name| folder(&name)).collect();
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(&folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else if path.extension().is_some_and(|extension| extension == "rs") {
                    let text = std::fs::read_to_string(&path).unwrap();
                    files.push((path, text));
                }
            }
        }
        assert!(files.len() > 20, "the sources were not found");
        files
    }

    /// The workspace's crates with what each depends on among them.
    fn crates() -> BTreeMap<String, Vec<String>> {
        let output = std::process::Command::new(env!("CARGO"))
            .args([
                "metadata",
                "--no-deps",
                "--format-version",
                "1",
                "--offline",
            ])
            .current_dir(root())
            .output()
            .unwrap();
        let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let packages = metadata["packages"].as_array().unwrap();
        let name = |value: &serde_json::Value| value["name"].as_str().unwrap().to_owned();
        let all: Vec<String> = packages.iter().map(name).collect();
        packages
            .iter()
            .map(|package| {
                let dependencies = package["dependencies"].as_array().unwrap();
                let own = dependencies
                    .iter()
                    .map(name)
                    .filter(|dependency| all.contains(dependency))
                    .collect();
                (name(package), own)
            })
            .collect()
    }

    #[test]
    fn every_file_says_what_it_owns() {
        let silent: Vec<PathBuf> = sources()
            .into_iter()
            .filter(|(_, text)| !text.starts_with("//!"))
            .map(|(path, _)| path)
            .collect();
        assert_eq!(silent, Vec::<PathBuf>::new());
    }

    #[test]
    fn arrows_point_one_way() {
        let allowed = |from: &str, to: &str| match from {
            "protocol" | "runtime" | "compiler" | "kernelspec" | "magics" => false,
            "cluster" | "chorus" => ["protocol", "runtime"].contains(&to),
            "examples" | "tests" => to == "chorus",
            "kernel" => true,
            _ => panic!("{from} is a new crate: give it a line here and in ARCHITECTURE.md"),
        };
        for (from, dependencies) in crates() {
            for to in dependencies {
                assert!(allowed(&from, &to), "{from} depends on {to}");
            }
        }
    }

    #[test]
    fn only_the_compiler_knows_evcxr() {
        for name in crates().into_keys() {
            let manifest = std::fs::read_to_string(folder(&name).join("Cargo.toml")).unwrap();
            assert_eq!(manifest.contains("evcxr"), name == "compiler", "{name}");
        }
    }

    /// What cargo compiles for these arguments: each package with its features.
    fn packages(arguments: &[&str]) -> BTreeSet<String> {
        let output = std::process::Command::new(env!("CARGO"))
            .args([
                "tree",
                "--offline",
                "--prefix",
                "none",
                "--format",
                "{p} [{f}]",
            ])
            .args(arguments)
            .current_dir(root())
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let found: BTreeSet<String> = text
            .lines()
            .map(|line| line.trim_end_matches(" (*)").to_owned())
            .filter(|line| !line.is_empty())
            .collect();
        assert!(
            found.len() > 100,
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        found
    }

    #[test]
    fn tests_compile_no_dependency_anew() {
        let program = packages(&["--package", "kernel", "--edges", "normal,build"]);
        let tests = packages(&["--workspace", "--edges", "normal,build,dev"]);
        let twice: Vec<&String> = program.difference(&tests).collect();
        assert!(
            twice.is_empty(),
            "tests want other features of these, so they are compiled twice; kernel/Cargo.toml says what to do: {twice:#?}"
        );
    }

    #[test]
    fn nothing_sleeps_outside_tests() {
        for (path, text) in sources() {
            let is_test = path.components().any(|part| {
                ["tests", "examples", "tests.rs"].contains(&&*part.as_os_str().to_string_lossy())
            });
            let code = text.split("#[cfg(test)]").next().unwrap();
            assert!(
                is_test || !code.contains("thread::sleep("),
                "{} sleeps",
                path.display()
            );
        }
    }
}
