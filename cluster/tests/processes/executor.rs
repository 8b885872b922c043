//! An executor of a notebook, with a real runtime and a real compile service: what engines do not use.

use std::collections::VecDeque;
use std::process::Command;
use std::sync::{Arc, Mutex};

use cluster::compile::{Client, Ended};
use cluster::connection::EngineFile;
use cluster::executor::{
    CompileRequest, Compiled, Config, Driver, Ending, Event, Executor, Host, Kept, Outcome,
    Restart, Settlement, StartRuntime, Started, StatusSender, Work, WorkId, WorkKind,
};
use cluster::failure::{self, PanicLocations, Subject};
use cluster::output::Output;
use cluster::{Lineage, launcher};
use protocol::message::{ErrorInfo, MimeBundle};
use runtime::Runtime;
use tokio::time::timeout;

use crate::client::PATIENCE;
use crate::{options, program};

/// Takes what comes out as lines of text.
struct Notebook {
    compiler: Client,
    /// The answers to questions; without one the question stays open.
    answers: VecDeque<String>,
    kept: VecDeque<Kept>,
    lines: Vec<String>,
    /// Questions that are open.
    open: Arc<Mutex<u32>>,
}

/// Closes a question when it is dropped.
struct Open(Arc<Mutex<u32>>);

impl Drop for Open {
    fn drop(&mut self) {
        *self.0.lock().unwrap() -= 1;
    }
}

fn error(trouble: &impl std::fmt::Debug) -> ErrorInfo {
    failure::plain("error", format!("{trouble:?}"))
}

impl Host for Notebook {
    fn start_runtime(
        &mut self,
        start: StartRuntime,
    ) -> impl Future<Output = Result<Started, ErrorInfo>> + Send + 'static {
        let compiler = self.compiler.clone();
        async move {
            let StartRuntime::Namespace { libraries: None } = start else {
                return Err(error(&start));
            };
            let libraries = compiler.libraries().await.map_err(|it| error(&it))?;
            let mut command = Command::new(program());
            command.arg("runtime");
            let mut config = runtime::Config::new(command, libraries.support);
            config.preload = libraries.preload;
            let started = Runtime::start(config).await;
            started.map_err(|error| failure::not_ready(Subject::Cell, &error.to_string()))
        }
    }

    fn compile(
        &mut self,
        _id: WorkId,
        request: CompileRequest,
        status: StatusSender,
    ) -> impl Future<Output = Result<Compiled, ErrorInfo>> + Send + 'static {
        let compiler = self.compiler.clone();
        async move {
            status.send("rustc".to_owned());
            let artifact = compiler.compile(&request.request, drop).await;
            let mut compiled = Compiled::from(artifact.map_err(|it| error(&it))?);
            if request.request.source.starts_with("// restart") {
                compiled.restart = Some(Restart {
                    libraries: None,
                    lineage: Lineage::root(),
                });
            }
            Ok(compiled)
        }
    }

    fn settle(
        &mut self,
        ending: Ending,
    ) -> impl Future<Output = Option<Settlement>> + Send + 'static {
        let compiler = self.compiler.clone();
        async move {
            let (lineage, panic) = match ending {
                Ending::Early { request, panic } => {
                    let location = panic.and_then(|panic| panic.location);
                    let ended = Ended {
                        request: request.request,
                        location: location.map(|at| (at.file, at.line)),
                    };
                    let aftermath = compiler.after_early_end(&ended).await.ok()?;
                    (aftermath.lineage, aftermath.place.map(Into::into))
                }
                Ending::VariablesLost { .. } => (Lineage::root(), None),
            };
            let frames = Vec::new();
            let locations = PanicLocations { panic, frames };
            Some(Settlement { lineage, locations })
        }
    }

    fn ask(
        &mut self,
        id: WorkId,
        prompt: String,
        _password: bool,
    ) -> impl Future<Output = Option<String>> + Send + 'static {
        self.lines.push(format!("{} asks {prompt:?}", id.0));
        let answer = self.answers.pop_front();
        *self.open.lock().unwrap() += 1;
        let open = Open(Arc::clone(&self.open));
        async move {
            let _open = open;
            match answer {
                Some(answer) => Some(answer),
                None => std::future::pending().await,
            }
        }
    }

    fn keep(&mut self, kept: Kept) {
        self.kept.push_back(kept);
    }

    fn take_kept(&mut self) -> Option<Kept> {
        self.kept.pop_front()
    }

    fn started(&mut self, _id: WorkId) {}

    fn output(&mut self, id: Option<WorkId>, output: Output) {
        let id = id.unwrap().0;
        self.lines.push(match output {
            Output::Stream(stream) => format!("{id} prints {}", stream.text.trim_end()),
            Output::CompileStatus(status) => format!("{id} waits {:?}", status.activity),
            other => format!("{id} {other:?}"),
        });
    }

    fn finished(&mut self, id: WorkId, outcome: Outcome, _lineage: &Lineage) {
        let text = |bundle: MimeBundle| bundle["text/plain"].to_string();
        self.lines.push(match outcome {
            Outcome::Evaluated { value, times } => {
                assert!(times.wall.as_secs() < 60 && times.compile.as_secs() < 60);
                format!("{} ends {}", id.0, value.map(text).unwrap_or_default())
            }
            Outcome::Failed { error, .. } => {
                format!("{} fails {}", id.0, error.traceback.join("\n"))
            }
            other => format!("{} {other:?}", id.0),
        });
    }
}

struct Cells {
    driver: Driver<Notebook>,
    count: u64,
}

impl Cells {
    fn submit(&mut self, source: &str) {
        self.count += 1;
        let work = Work {
            id: WorkId(self.count),
            kind: WorkKind::Snippet {
                source: source.to_owned(),
                exchanges: false,
            },
            group: None,
            stop_on_error: false,
        };
        self.driver.send(Event::Submit(vec![work]));
    }

    async fn until(&mut self, mut done: impl FnMut(&Notebook) -> bool) {
        let events = async {
            while !done(self.driver.host()) {
                let happening = self.driver.next().await;
                self.driver.handle(happening);
            }
        };
        timeout(PATIENCE, events).await.unwrap();
    }

    /// What the cell that was submitted last shows, status lines left out.
    async fn end(&mut self) -> Vec<String> {
        let ends = [" ends", " fails"].map(|word| format!("{}{word}", self.count));
        self.until(|notebook| {
            let last = notebook.lines.last();
            last.is_some_and(|line| ends.iter().any(|end| line.starts_with(end)))
        })
        .await;
        let mut lines = std::mem::take(&mut self.driver.host().lines);
        lines.retain(|line| !line.contains(" waits "));
        lines
    }

    async fn run(&mut self, source: &str) -> Vec<String> {
        self.submit(source);
        self.end().await
    }
}

const READ: &str = "let mut line = String::new(); std::io::stdin().read_line(&mut line).unwrap(); print!(\"got {line}\");";

#[tokio::test(flavor = "multi_thread")]
async fn a_notebook_s_executor_asks_keeps_and_begins_anew() {
    let root = tempfile::tempdir().unwrap();
    let cluster = launcher::start(options(&root, 0)).await.unwrap();
    let file = EngineFile::read(&cluster.files().engine).unwrap();
    let endpoint = file.endpoint(file.compile.unwrap());
    let open = Arc::new(Mutex::new(0));
    let notebook = Notebook {
        compiler: Client::connect(&endpoint, &file.common.key).unwrap(),
        answers: VecDeque::new(),
        kept: VecDeque::new(),
        lines: Vec::new(),
        open: Arc::clone(&open),
    };
    let executor = Executor::new(Config::notebook());
    let mut cells = Cells {
        driver: Driver::new(executor, notebook),
        count: 0,
    };

    // What is waited for is told until it comes.
    cells.submit("6 * 7");
    cells
        .until(|notebook| notebook.lines.iter().any(|it| it == "1 waits None"))
        .await;
    let said = cells.driver.host().lines.clone();
    assert_eq!(said, ["1 waits Some(\"rustc\")", "1 waits None"]);
    assert_eq!(cells.end().await, ["1 ends \"42\""]);

    // A line of input; and an interrupt instead of one.
    cells.driver.host().answers.push_back("Ada".to_owned());
    assert_eq!(
        cells.run(READ).await,
        ["2 asks \"\"", "2 prints got Ada", "2 ends "]
    );
    cells.submit(READ);
    cells
        .until(|notebook| notebook.lines.iter().any(|it| it == "3 asks \"\""))
        .await;
    assert_eq!(*open.lock().unwrap(), 1);
    cells.driver.send(Event::Interrupt { waiting: false });
    let said = cells.end().await;
    assert!(
        said[1].contains("The cell was interrupted. Every"),
        "{said:?}"
    );
    cells.until(|_| *open.lock().unwrap() == 0).await;

    // A thread prints between two cells.
    let flag = root.path().join("flag");
    let late = format!(
        "std::thread::spawn(|| {{ while !std::path::Path::new({flag:?}).exists() {{ std::thread::yield_now(); }} println!(\"late\"); }});"
    );
    assert_eq!(cells.run(&late).await, ["4 ends "]);
    std::fs::write(&flag, "").unwrap();
    cells.until(|notebook| !notebook.kept.is_empty()).await;
    assert_eq!(cells.run("1").await, ["5 prints late", "5 ends \"1\""]);

    // A panic leaves the runtime as it is; a restart does not.
    let said = cells.run("panic!(\"boom\");").await;
    assert!(said[0].contains("at line 1: boom"), "{said:?}");
    let before = cells.run("std::process::id()").await;
    let after = cells.run("// restart\nstd::process::id()").await;
    let pid = |said: &[String]| said[0].rsplit(' ').next().unwrap().to_owned();
    assert_ne!(pid(&before), pid(&after));
    assert!(cells.driver.runtime().is_some());
    cells.driver.shutdown().await;
    cluster.stop().await.unwrap();
}
