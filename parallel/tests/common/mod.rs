//! A cluster of real processes. The program is `cluster`'s example `cluster_process`, or what CHORUS_CLUSTER names.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

fn program() -> PathBuf {
    if let Some(program) = std::env::var_os("CHORUS_CLUSTER") {
        return program.into();
    }
    let test = std::env::current_exe().unwrap();
    let folder = test.parent().and_then(Path::parent).unwrap();
    let program = folder.join("examples/cluster_process");
    assert!(
        program.exists(),
        "{} is missing: build it with `cargo build -p cluster --example cluster_process`, as a release if this is one",
        program.display()
    );
    program
}

/// A cluster that ends when this is dropped: its processes are tied to the one that started them.
pub(crate) struct Cluster {
    starter: Child,
    /// The data folder; not every test looks into it.
    #[allow(dead_code, reason = "each test program has this module of its own")]
    pub(crate) root: tempfile::TempDir,
    /// The clients' connection file.
    pub(crate) file: PathBuf,
}

impl Cluster {
    pub(crate) fn start(engines: u32) -> Self {
        let root = tempfile::tempdir().unwrap();
        let mut starter = Command::new(program())
            .args(["cluster", "start", "-n", &engines.to_string()])
            .env("XDG_DATA_HOME", root.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let stdout = starter.stdout.take().unwrap();
        BufReader::new(stdout).read_line(&mut line).unwrap();
        assert!(!line.trim().is_empty(), "the cluster did not start");
        Self {
            starter,
            root,
            file: line.trim().into(),
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let _ = self.starter.kill();
        let _ = self.starter.wait();
    }
}
