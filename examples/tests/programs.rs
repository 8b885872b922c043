//! The example programs, run as a user runs them. They start clusters with the release build's `chorus`, or what CHORUS names.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::path::{Path, PathBuf};
use std::process::Command;

/// Where cargo puts what it builds for this profile.
fn folder() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    test.parent().and_then(Path::parent).unwrap().to_owned()
}

fn run(example: &str, arguments: &[&str]) -> String {
    let chorus = std::env::var_os("CHORUS").map_or_else(|| folder().join("chorus"), PathBuf::from);
    assert!(
        chorus.exists(),
        "{} is missing: build it with `cargo build --release`",
        chorus.display()
    );
    let data = tempfile::tempdir().unwrap();
    let output = Command::new(folder().join("examples").join(example))
        .args(arguments)
        .env("CHORUS", chorus)
        .env("XDG_DATA_HOME", data.path())
        .output()
        .unwrap();
    let stdout = String::from_utf8(output.stdout).unwrap();
    if !output.status.success() {
        panic!("{stdout}{}", String::from_utf8_lossy(&output.stderr));
    }
    stdout
}

#[test]
fn mandelbrot_is_drawn_by_both_engines() {
    let shown = run("mandelbrot", &["2"]);
    let lines: Vec<&str> = shown.lines().collect();
    assert_eq!(lines.len(), 36 + 4, "{shown}");
    assert!(lines[18].contains("######"), "{shown}");
    let drawn: Vec<u32> = lines[38..]
        .iter()
        .enumerate()
        .map(|(engine, line)| {
            let rest = line
                .strip_prefix(&format!("engine {engine} drew "))
                .unwrap();
            rest.strip_suffix(" lines").unwrap().parse().unwrap()
        })
        .collect();
    assert_eq!(drawn.iter().sum::<u32>(), 36, "{shown}");
    // The lines are uneven, but nobody draws all of them.
    assert!(drawn.iter().all(|lines| *lines > 5), "{shown}");
}
