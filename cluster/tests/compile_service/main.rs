//! A compile service of real processes: started, used, broken, stopped. The program is the example `compile_service_process`.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod breaking;
mod ending;
mod starting;
mod working;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use cluster::compile_service::{
    Address, Client, Request, ServiceConfig, ServiceError, Status, status,
};
use cluster::launcher::Process;
use serde_json::{Value, json};

/// Far more than anything here takes.
const PATIENCE: Duration = Duration::from_secs(60);
const VARIABLE: &str = "CHORUS_TEST_VARIABLE";

fn program() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let folder = test.parent().and_then(Path::parent).unwrap();
    let program = folder.join("examples/compile_service_process");
    assert!(
        program.exists(),
        "{} is missing: run `cargo test` without --test, or build the examples first",
        program.display()
    );
    program
}

/// The folders and the service of a test.
struct Place {
    root: tempfile::TempDir,
    config: ServiceConfig,
}

impl Place {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        for folder in ["run", "tmp"] {
            std::fs::create_dir(root.path().join(folder)).unwrap();
        }
        let config = ServiceConfig {
            id: "test".to_owned(),
            program: program(),
            arguments: ["service", "--idle-ms", "60000"].map(Into::into).to_vec(),
            environment: vec![(VARIABLE.into(), Some("given".into()))],
        };
        Self { root, config }
    }

    fn address(&self) -> Address {
        let (runtime, temp) = (self.path("run"), self.path("tmp"));
        Address::find_in(Some(&runtime), &temp, &self.config.id).unwrap()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    async fn open(&self) -> Result<Client, ServiceError> {
        Client::open_at(self.address(), self.config.clone()).await
    }

    async fn client(&self) -> Client {
        self.open().await.unwrap()
    }

    async fn status(&self) -> Status {
        status(&self.address()).await.unwrap().unwrap()
    }

    /// Waits until the status is so.
    async fn until(&self, is_so: impl Fn(&Status) -> bool) -> Status {
        let began = Instant::now();
        loop {
            let status = self.status().await;
            if is_so(&status) {
                return status;
            }
            assert!(began.elapsed() < PATIENCE, "{status:?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    fn hold(&self, name: &str) -> Hold {
        Hold(self.path(name))
    }

    async fn stop(self) {
        let stopped = cluster::compile_service::stop(&self.address()).await;
        assert!(stopped.unwrap());
    }
}

fn request(key: &str, affinity: &str, payload: Value) -> Request {
    Request {
        key: key.to_owned(),
        affinity: affinity.to_owned(),
        is_minor: false,
        payload,
    }
}

fn echo(affinity: &str, value: Value) -> Request {
    request("a", affinity, json!({"do": "echo", "value": value}))
}

/// A request that goes on until it is released.
struct Hold(PathBuf);

impl Hold {
    fn request(&self, affinity: &str) -> Request {
        request("a", affinity, json!({"do": "hold", "path": self.0}))
    }

    fn deaf_request(&self, affinity: &str) -> Request {
        let payload = json!({"do": "hold", "path": self.0, "deaf": true});
        request("a", affinity, payload)
    }

    /// Waits until a worker holds it: that process, and its child. Forgets it then, so that the next call waits for another one.
    async fn taken(&self) -> [Process; 2] {
        let path = self.0.with_extension("pid");
        appears(&path).await;
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        let pids: Vec<u32> = text.split(' ').map(|pid| pid.parse().unwrap()).collect();
        let [worker, child] = pids.as_slice() else {
            panic!("{text}")
        };
        [*worker, *child].map(|pid| Process::of(pid).unwrap())
    }

    async fn cancelled(&self) {
        appears(&self.0.with_extension("cancelled")).await;
    }

    fn release(&self) {
        std::fs::write(&self.0, "").unwrap();
    }
}

async fn appears(path: &Path) {
    let began = Instant::now();
    while !path.exists() {
        assert!(began.elapsed() < PATIENCE, "{} is missing", path.display());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn ended(processes: impl IntoIterator<Item = Process>) {
    for process in processes {
        assert!(process.wait(PATIENCE).await, "{process:?} goes on");
    }
}

fn signal(pid: u32, signal: &str) {
    let sent = std::process::Command::new("kill")
        .args([signal, &pid.to_string()])
        .status();
    assert!(sent.unwrap().success());
}
