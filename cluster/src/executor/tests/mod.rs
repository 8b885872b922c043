//! Every transition of the executor: events in, effects out as lines of text.

mod calls;
mod notebook;
mod property;
mod snippets;

use std::time::{Duration, Instant};

use protocol::message::{ErrorInfo, MimeBundle};
use runtime::{Outcome as RunOutcome, Panic, Restored, RunId, Stream, WhyNot};

use super::*;
use crate::compile::Artifact;
use crate::connection::Libraries;
use crate::failure::{PanicLocations, SourceLocation, plain};
use crate::output::text_bundle;

/// An executor with a clock that its test sets.
struct Bench {
    executor: Executor,
    now: Instant,
}

impl Bench {
    fn new(config: Config) -> Self {
        Self {
            executor: Executor::new(config),
            now: Instant::now(),
        }
    }

    /// With a runtime.
    fn ready(config: Config) -> Self {
        let mut bench = Self::new(config);
        assert_eq!(bench.on(Event::Start), ["start namespace"]);
        assert!(bench.started(Ok(())).is_empty());
        bench
    }

    fn on(&mut self, event: Event) -> Vec<String> {
        let effects = self.executor.on_event(self.now, event);
        effects.into_iter().map(show).collect()
    }

    fn after(&mut self, milliseconds: u64) -> &mut Self {
        self.now += Duration::from_millis(milliseconds);
        self
    }

    fn submit(&mut self, works: Vec<Work>) -> Vec<String> {
        self.on(Event::Submit(works))
    }

    fn started(&mut self, result: Result<(), ErrorInfo>) -> Vec<String> {
        self.on(Event::RuntimeStarted {
            runtime: RuntimeId::Namespace,
            result,
        })
    }

    fn compiled(&mut self, ticket: u64, compiled: Compiled) -> Vec<String> {
        self.on(Event::Compiled {
            ticket: Ticket(ticket),
            result: Ok(compiled),
        })
    }

    fn fails_to_compile(&mut self, ticket: u64) -> Vec<String> {
        self.on(Event::Compiled {
            ticket: Ticket(ticket),
            result: Err(failure::plain("compile error", "unknown")),
        })
    }

    fn settled(&mut self, ticket: u64, lineage: &str) -> Vec<String> {
        self.on(Event::Settled {
            ticket: Ticket(ticket),
            settlement: Some(Settlement {
                lineage: named(lineage),
                locations: PanicLocations {
                    panic: Some(SourceLocation {
                        cell: None,
                        line: 3,
                        text: "panic!()".to_owned(),
                    }),
                    frames: Vec::new(),
                },
            }),
        })
    }

    fn reports(&mut self, event: runtime::Event) -> Vec<String> {
        self.on(Event::Runtime {
            runtime: RuntimeId::Namespace,
            event,
        })
    }

    fn finished(&mut self, run: u64, outcome: RunOutcome) -> Vec<String> {
        let id = RunId(run);
        self.reports(runtime::Event::Finished { id, outcome })
    }

    fn prints(&mut self, text: &'static str) -> Vec<String> {
        self.reports(printed(text))
    }

    fn interrupt(&mut self) -> Vec<String> {
        self.on(Event::Interrupt { waiting: false })
    }

    fn lineage(&self) -> &str {
        &self.executor.lineage().0
    }

    /// Runs a snippet that leaves the lineage `to`, from its submission to its end.
    fn evaluate(&mut self, id: u64, to: &str) {
        let effects = self.submit(vec![snippet(id, "x")]);
        let ticket = ticket(&effects);
        let effects = self.compiled(ticket, compiled(&["a"], to));
        let run = run(&effects);
        let effects = self.finished(run, RunOutcome::Completed);
        assert_eq!(effects, [format!("finished {id}: none")]);
    }
}

/// The number that follows a word in the effects.
fn number(effects: &[String], word: &str) -> u64 {
    let mut found = effects.iter().filter_map(|line| line.strip_prefix(word));
    let rest = found.next().unwrap();
    rest.split(' ').next().unwrap().parse().unwrap()
}

fn ticket(effects: &[String]) -> u64 {
    number(effects, "compile ")
}

fn run(effects: &[String]) -> u64 {
    number(effects, "run ")
}

fn named(lineage: &str) -> Lineage {
    Lineage(lineage.to_owned())
}

fn work(id: u64, kind: WorkKind) -> Work {
    Work {
        id: WorkId(id),
        kind,
        group: None,
        stop_on_error: false,
    }
}

fn snippet(id: u64, source: &str) -> Work {
    let source = source.to_owned();
    work(
        id,
        WorkKind::Snippet {
            source,
            exchanges: false,
        },
    )
}

fn compiled(loads: &[&str], lineage: &str) -> Compiled {
    Compiled::from(Artifact {
        loads: loads.iter().map(Into::into).collect(),
        entry: "entry".to_owned(),
        lineage: named(lineage),
        shown: MimeBundle::new(),
        ends_in_expression: true,
        lost: Vec::new(),
        notes: Vec::new(),
        reads: false,
    })
}

fn printed(text: &'static str) -> runtime::Event {
    runtime::Event::Output {
        stream: Stream::Stdout,
        bytes: text.into(),
    }
}

fn panic() -> RunOutcome {
    RunOutcome::Panicked(Panic {
        message: "boom".to_owned(),
        location: None,
        frames: Vec::new(),
    })
}

fn restored(variables: bool) -> Restored {
    Restored {
        variables,
        why_not: (!variables).then_some(WhyNot::CheckpointOff),
        ..NOTHING_LOST
    }
}

fn died(variables: bool) -> RunOutcome {
    RunOutcome::Died {
        cause: runtime::Cause::Signal(11, "SIGSEGV"),
        restored: restored(variables),
    }
}

fn interrupted(variables: bool) -> RunOutcome {
    RunOutcome::Interrupted {
        restored: restored(variables),
    }
}

fn lost(variables: bool) -> runtime::Event {
    runtime::Event::Lost {
        cause: runtime::Cause::Exited(1),
        restored: restored(variables),
    }
}

fn text(bundle: Option<&MimeBundle>) -> String {
    let text = bundle.map(|bundle| bundle["text/plain"].as_str().unwrap().to_owned());
    text.unwrap_or_else(|| "none".to_owned())
}

fn place(runtime: RuntimeId) -> &'static str {
    match runtime {
        RuntimeId::Namespace => "namespace",
        RuntimeId::Program(_) => "program",
    }
}

fn show_output(output: &Output) -> String {
    match output {
        Output::Stream(stream) => format!("{:?} {:?}", stream.name, stream.text),
        Output::Display(display) => format!("display {}", text(Some(&display.data))),
        Output::CompileStatus(status) => format!("status {:?}", status.activity),
        Output::Update(_) | Output::Clear(_) => format!("{output:?}"),
    }
}

fn show_outcome(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Evaluated { value, .. } => text(value.as_ref()),
        Outcome::Failed { error, .. } => format!("{}: {}", error.ename, error.evalue),
        Outcome::Called(report) => {
            let flags = [
                (report.printed, " printed"),
                (report.announced, " announced"),
                (report.aborted, " aborted"),
            ];
            let flags = flags.iter().filter(|(set, _)| *set).map(|(_, text)| *text);
            let error = failure::call(&report.outcome);
            let error = error.map_or_else(|| "ok".to_owned(), |error| error.ename);
            format!("{error}{}", flags.collect::<String>())
        }
        Outcome::Aborted => "aborted".to_owned(),
        Outcome::Done => "done".to_owned(),
    }
}

fn show(effect: Effect) -> String {
    match effect {
        Effect::StartRuntime(StartRuntime::Namespace { libraries }) => match libraries {
            Some(libraries) => format!("start namespace with {}", libraries.support.display()),
            None => "start namespace".to_owned(),
        },
        Effect::StartRuntime(StartRuntime::Program { path, .. }) => {
            format!("start {}", path.display())
        }
        Effect::StopRuntime(runtime) => format!("stop {}", place(runtime)),
        Effect::ClearRuntime => "clear runtime".to_owned(),
        Effect::Run(snippet) => format!("run {} {}", snippet.id.0, snippet.artifact.display()),
        Effect::Call { runtime, call } => format!("call {} {}", call.id.0, place(runtime)),
        Effect::InterruptRun { runtime, run } => format!("interrupt {} {}", run.0, place(runtime)),
        Effect::AnswerInput { line, .. } => format!("answer {line:?}"),
        Effect::Provide(id) => format!("provide {}", id.0),
        Effect::Collect { id, value } => format!("collect {} {}", id.0, text(value.as_ref())),
        Effect::Compile {
            ticket,
            id,
            request: CompileRequest { request, without },
        } => {
            let without = match without.is_empty() {
                true => String::new(),
                false => format!(" without {}", without.join(", ")),
            };
            let Ticket(ticket) = ticket;
            format!(
                "compile {ticket} of {} in {}: {}{without}",
                id.0, request.lineage, request.source
            )
        }
        Effect::CancelCompile(Ticket(ticket)) => format!("cancel compile {ticket}"),
        Effect::Settle {
            ticket: Ticket(ticket),
            ending,
        } => match ending {
            Ending::Early { request, panic } => {
                let how = panic.map_or_else(|| "early end".to_owned(), |panic| panic.message);
                format!("settle {ticket} {how} in {}", request.request.lineage)
            }
            Ending::VariablesLost { lineage, variables } => match variables {
                None => format!("settle {ticket} lost {lineage}"),
                Some(variables) => {
                    format!("settle {ticket} lost {lineage}: {}", variables.join(" "))
                }
            },
        },
        Effect::AskInput { id, prompt, .. } => format!("ask {} {prompt}", id.0),
        Effect::CancelInput(id) => format!("cancel input {}", id.0),
        Effect::Started(id) => format!("started {}", id.0),
        Effect::Output { id, output } => {
            let id = id.map_or_else(|| "idle".to_owned(), |id| id.0.to_string());
            format!("output {id} {}", show_output(&output))
        }
        Effect::Keep(Kept::Output { bytes, .. }) => format!("keep {bytes:?}"),
        Effect::Keep(Kept::Note(text)) => format!("keep note {text:?}"),
        Effect::ReplayKept => "replay".to_owned(),
        Effect::Finished { id, outcome } => {
            format!("finished {}: {}", id.0, show_outcome(&outcome))
        }
        Effect::Shutdown => "shutdown".to_owned(),
    }
}

fn not_there() -> ErrorInfo {
    plain("not ready", "no processes")
}

fn bundle(text: &str) -> MimeBundle {
    text_bundle(text)
}
