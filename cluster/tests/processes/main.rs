//! Clusters of real processes: started, used, broken, stopped. The program is the example `cluster_process`.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod calls;
mod client;
mod executor;
mod launching;
mod running;

use std::path::{Path, PathBuf};

use cluster::launcher::Options;
use cluster::profile::Profile;

fn program() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let folder = test.parent().and_then(Path::parent).unwrap();
    let program = folder.join("examples/cluster_process");
    assert!(
        program.exists(),
        "{} is missing: run `cargo test` without --test, or build the examples first",
        program.display()
    );
    program
}

/// A profile of its own for each test.
fn options(root: &tempfile::TempDir, engines: u32) -> Options {
    let profile = Profile::under(root.path(), "default").unwrap();
    let mut options = Options::new(profile).unwrap();
    options.program = program();
    options.engines = Some(engines);
    options
}
