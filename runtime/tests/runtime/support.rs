//! Compiles cells and runs them.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use runtime::{CheckpointState, Config, Event, Outcome, Restored, RunId, Runtime, Snippet, Stream};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::timeout;

/// No test waits longer for one event.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Library {
    pub(crate) support: PathBuf,
    pub(crate) libstd: PathBuf,
}

fn rustc() -> Command {
    Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()))
}

fn folder() -> &'static Path {
    Path::new(env!("CARGO_TARGET_TMPDIR"))
}

/// Compiles to a temporary name, so that tests which need the same file at once don't meet.
fn compile(source: &str, extension: &str, arguments: &[&str]) -> PathBuf {
    let mut hasher = DefaultHasher::new();
    (source, arguments, runtime::SUPPORT_SOURCE).hash(&mut hasher);
    let name = format!("{:016x}", hasher.finish());
    let path = folder().join(format!("{name}.{extension}"));
    if path.exists() {
        return path;
    }
    let scratch = tempfile::tempdir_in(folder()).unwrap();
    let input = scratch.path().join("src.rs");
    std::fs::write(&input, source).unwrap();
    let output = scratch.path().join(format!("out.{extension}"));
    let made = rustc()
        .current_dir(scratch.path())
        .args([
            "--edition",
            "2024",
            "-C",
            "prefer-dynamic",
            "-C",
            "debuginfo=1",
        ])
        .args(arguments)
        .arg("-o")
        .args([&output, Path::new("src.rs")])
        .output()
        .unwrap();
    assert!(
        made.status.success(),
        "{}",
        String::from_utf8_lossy(&made.stderr)
    );
    std::fs::rename(output, &path).unwrap();
    path
}

pub(crate) fn library() -> &'static Library {
    static LIBRARY: OnceLock<Library> = OnceLock::new();
    LIBRARY.get_or_init(|| {
        let made = compile(
            runtime::SUPPORT_SOURCE,
            "so",
            &[
                "--crate-name",
                "chorus_support",
                "--crate-type",
                "dylib",
                "-C",
                "opt-level=2",
            ],
        );
        let scratch = tempfile::tempdir_in(folder()).unwrap();
        let support = folder().join("libchorus_support.so");
        let copy = scratch.path().join("copy.so");
        std::fs::copy(made, &copy).unwrap();
        std::fs::rename(copy, &support).unwrap();
        let printed = rustc().args(["--print", "target-libdir"]).output().unwrap();
        let libdir = String::from_utf8(printed.stdout).unwrap();
        let libstd = std::fs::read_dir(libdir.trim())
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .find(|path| {
                let name = path.file_name().unwrap().to_str().unwrap();
                name.starts_with("libstd-") && name.ends_with(".so")
            })
            .unwrap();
        Library { support, libstd }
    })
}

/// Compiles a crate that has a function `run`.
pub(crate) fn artifact(source: &str) -> PathBuf {
    let support = format!("chorus_support={}", library().support.display());
    let arguments = [
        "--crate-name",
        "ctx",
        "--crate-type",
        "cdylib",
        "--extern",
        &support,
    ];
    compile(source, "so", &arguments)
}

/// What evcxr generates around a cell: `items` beside the function, `body` within; the store is `store`.
pub(crate) fn cell_with(items: &str, body: &str) -> PathBuf {
    artifact(&format!(
        "#![allow(unused, unreachable_code, unconditional_recursion)]
use ::chorus_support as evcxr_internal_runtime;
use evcxr_internal_runtime::*;
use std::sync::Arc;
use std::time::Duration;
{items}
#[unsafe(no_mangle)]
pub extern \"C\" fn run(mut store: *mut VariableStore) -> *mut VariableStore {{
    if store.is_null() {{ store = create_variable_store(); }}
    let store = unsafe {{ &mut *store }};
    match std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {{
        {body}
    }})) {{
        Ok(_) => {{}}
        Err(_) => panicked(),
    }}
    store
}}
"
    ))
}

pub(crate) fn cell(body: &str) -> PathBuf {
    cell_with("", body)
}

pub(crate) fn child_program() -> PathBuf {
    example("runtime_process")
}

pub(crate) fn example(name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let program = test
        .parent()
        .and_then(Path::parent)
        .unwrap()
        .join("examples")
        .join(name);
    assert!(
        program.exists(),
        "{} is missing: run `cargo test` without --test, or build the examples first",
        program.display()
    );
    program
}

pub(crate) fn config() -> Config {
    let library = library();
    let mut config = Config::new(Command::new(child_program()), library.support.clone());
    config.preload.push(library.libstd.clone());
    config
}

/// What came of one run.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) outcome: Outcome,
    pub(crate) checkpoint: Option<CheckpointState>,
    /// The CPU's time, if the cell came to its end.
    pub(crate) cpu: Option<Duration>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) results: Vec<String>,
    /// How many output events there were.
    pub(crate) chunks: usize,
}

/// A runtime and its events.
#[derive(Debug)]
pub(crate) struct Namespace {
    pub(crate) runtime: Runtime,
    pub(crate) events: UnboundedReceiver<Event>,
    pub(crate) last: u64,
}

impl Namespace {
    pub(crate) async fn start() -> Namespace {
        Namespace::start_with(config()).await
    }

    pub(crate) async fn start_with(config: Config) -> Namespace {
        let (runtime, events) = Runtime::start(config).await.unwrap();
        Namespace {
            runtime,
            events,
            last: 0,
        }
    }

    pub(crate) fn send(&mut self, artifact: PathBuf) -> RunId {
        self.last += 1;
        let id = RunId(self.last);
        self.runtime.run(Snippet {
            id,
            artifact,
            entry: "run".to_owned(),
            checkpoint: true,
        });
        id
    }

    pub(crate) async fn event(&mut self) -> Event {
        let event = timeout(PATIENCE, self.events.recv()).await;
        event.expect("an event in time").expect("an event")
    }

    /// Collects events until this run ends.
    pub(crate) async fn finish(&mut self, run: RunId) -> Ran {
        self.finish_with(run, |_, event| panic!("unexpected {event:?}"))
            .await
    }

    /// As `finish`; events that are neither output nor the run's own go to `other`.
    pub(crate) async fn finish_with(
        &mut self,
        run: RunId,
        mut other: impl FnMut(&Runtime, Event),
    ) -> Ran {
        let (mut stdout, mut stderr, mut results) = (Vec::new(), Vec::new(), Vec::new());
        let (mut checkpoint, mut cpu, mut chunks) = (None, None, 0);
        loop {
            match self.event().await {
                Event::Output { stream, bytes } => {
                    chunks += 1;
                    match stream {
                        Stream::Stdout => stdout.extend(&bytes[..]),
                        Stream::Stderr => stderr.extend(&bytes[..]),
                    }
                }
                Event::Started {
                    id,
                    checkpoint: state,
                } if id == run => checkpoint = Some(state),
                Event::Spent { id, user, system } if id == run => cpu = Some(user + system),
                Event::Result { id, text } if id == run => results.push(text),
                Event::Finished { id, outcome } if id == run => {
                    return Ran {
                        outcome,
                        checkpoint,
                        cpu,
                        stdout: String::from_utf8(stdout).unwrap(),
                        stderr: String::from_utf8(stderr).unwrap(),
                        results,
                        chunks,
                    };
                }
                event => other(&self.runtime, event),
            }
        }
    }

    pub(crate) async fn run(&mut self, body: &str) -> Ran {
        let run = self.send(cell(body));
        self.finish(run).await
    }

    /// Runs a cell that must complete.
    pub(crate) async fn good(&mut self, body: &str) -> Ran {
        let ran = self.run(body).await;
        assert_eq!(ran.outcome, Outcome::Completed, "{ran:?}");
        ran
    }

    /// Puts `x: String` and `v: Vec<u64>` into the namespace.
    pub(crate) async fn fill(&mut self) {
        self.good(FILL).await;
    }

    /// The namespace is as `fill` left it, and goes on.
    pub(crate) async fn assert_filled(&mut self) {
        let ran = self.good(LOOK).await;
        assert_eq!(ran.stdout, "kept 499500\n");
    }
}

pub(crate) const FILL: &str = r#"store.put_variable("x", "kept".to_owned());
    store.put_variable("v", (0..1000).collect::<Vec<u64>>());"#;

pub(crate) const LOOK: &str = r#"assert!(store.check_variable::<String>("x"));
    let x: String = store.take_variable("x");
    let v: Vec<u64> = store.take_variable("v");
    println!("{x} {}", v.iter().sum::<u64>());
    store.put_variable("x", x);
    store.put_variable("v", v);"#;

/// Nothing was lost but the run itself.
pub(crate) const ALL_RESTORED: Restored = Restored {
    variables: true,
    threads_lost: 0,
    tokio_lost: false,
    closed: 0,
    why_not: None,
};
