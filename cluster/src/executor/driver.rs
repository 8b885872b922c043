//! An executor with processes: owns its runtimes, its questions to the compiler and its timer, and does what it says.

use std::collections::VecDeque;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use protocol::message::{ErrorInfo, MimeBundle};
use runtime::Runtime;
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::Sleep;

use super::{
    CompileRequest, Compiled, Effect, Ending, Event, Executor, Kept, Outcome, RuntimeId,
    Settlement, StartRuntime, Ticket, WorkId,
};
use crate::Lineage;
use crate::output::Output;

/// A runtime, and what it reports.
pub type Started = (Runtime, mpsc::UnboundedReceiver<runtime::Event>);

/// What a [`Driver`] needs: somebody who starts runtimes and compiles, and takes what comes out.
pub trait Host {
    /// Starts a runtime. If there was one of this name, its processes have gone when the future is polled first.
    fn start_runtime(
        &mut self,
        start: StartRuntime,
    ) -> impl Future<Output = Result<Started, ErrorInfo>> + Send + 'static;

    /// Compiles a snippet. The future is dropped when nobody waits for it any more. What is known resolves at once: nothing waits for
    /// another task then.
    fn compile(
        &mut self,
        id: WorkId,
        request: CompileRequest,
        status: StatusSender,
    ) -> impl Future<Output = Result<Compiled, ErrorInfo>> + Send + 'static;

    /// Finds out which lineage a namespace has.
    fn settle(
        &mut self,
        ending: Ending,
    ) -> impl Future<Output = Option<Settlement>> + Send + 'static;

    /// Asks the user for a line: see [`Effect::AskInput`]. The future is dropped when nobody waits for it any more.
    fn ask(
        &mut self,
        _id: WorkId,
        _prompt: String,
        _password: bool,
    ) -> impl Future<Output = Option<String>> + Send + 'static {
        std::future::ready(None)
    }

    /// Puts values where a snippet finds them.
    ///
    /// # Errors
    /// Why the snippet cannot run.
    fn provide(&mut self, _id: WorkId) -> Result<(), ErrorInfo> {
        Ok(())
    }

    /// Fetches what a snippet left. Takes and returns its result.
    ///
    /// # Errors
    /// Why the snippet has failed after all.
    fn collect(
        &mut self,
        _id: WorkId,
        value: Option<MimeBundle>,
    ) -> Result<Option<MimeBundle>, ErrorInfo> {
        Ok(value)
    }

    /// Keeps something for the next snippet.
    fn keep(&mut self, _kept: Kept) {}

    /// Removes and returns the oldest of what was kept.
    fn take_kept(&mut self) -> Option<Kept> {
        None
    }

    /// See [`Effect::Started`].
    fn started(&mut self, id: WorkId);

    /// See [`Effect::Output`].
    fn output(&mut self, id: Option<WorkId>, output: Output);

    /// See [`Effect::Finished`]. `lineage` is the namespace's then.
    fn finished(&mut self, id: WorkId, outcome: Outcome, lineage: &Lineage);
}

/// Tells what a snippet waits for before it runs.
#[derive(Clone, Debug)]
pub struct StatusSender {
    id: WorkId,
    statuses: mpsc::UnboundedSender<(WorkId, String)>,
}

impl StatusSender {
    /// Shows a line.
    pub fn send(&self, activity: String) {
        // The driver may have ended.
        let _ = self.statuses.send((self.id, activity));
    }
}

/// See the module. The owner waits for [`Driver::next`] beside its own events and passes the outcome to [`Driver::handle`].
pub struct Driver<H> {
    executor: Executor,
    host: H,
    runtimes: Runtimes,
    tasks: JoinSet<Answer>,
    compile: Option<AbortHandle>,
    question: Option<AbortHandle>,
    status_sender: mpsc::UnboundedSender<(WorkId, String)>,
    statuses: mpsc::UnboundedReceiver<(WorkId, String)>,
    alarm: Alarm,
    /// What is still to be done.
    effects: VecDeque<Effect>,
}

impl<H> fmt::Debug for Driver<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Driver");
        debug.field("executor", &self.executor);
        debug.finish_non_exhaustive()
    }
}

/// What a task of the driver's was to find out.
enum Answer {
    Started(RuntimeId, Result<Started, ErrorInfo>),
    Event(Event),
}

/// Something that happened.
pub struct Happening(Cause);

impl fmt::Debug for Happening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Happening").finish_non_exhaustive()
    }
}

enum Cause {
    Event(Event),
    Started(RuntimeId, Result<Started, ErrorInfo>),
    /// A task was cancelled.
    Nothing,
}

impl<H: Host> Driver<H> {
    /// A driver of this executor. Must be used within a tokio runtime with I/O and time enabled.
    pub fn new(executor: Executor, host: H) -> Self {
        let (status_sender, statuses) = mpsc::unbounded_channel();
        Self {
            executor,
            host,
            runtimes: Runtimes::default(),
            tasks: JoinSet::new(),
            compile: None,
            question: None,
            status_sender,
            statuses,
            alarm: Alarm::default(),
            effects: VecDeque::new(),
        }
    }

    /// The executor, to be looked at.
    pub fn executor(&self) -> &Executor {
        &self.executor
    }

    /// The host.
    pub fn host(&mut self) -> &mut H {
        &mut self.host
    }

    /// The namespace's runtime, if it is there.
    pub fn runtime(&self) -> Option<&Runtime> {
        self.runtimes.get(RuntimeId::Namespace)
    }

    /// Waits for the next thing to happen. Nothing is lost when this is cancelled.
    pub async fn next(&mut self) -> Happening {
        let deadline = self.executor.deadline();
        Happening(tokio::select! {
            biased;
            Some((id, activity)) = self.statuses.recv() => {
                Cause::Event(Event::CompileStatus { id, activity })
            }
            Some(answer) = self.tasks.join_next(), if !self.tasks.is_empty() => match answer {
                Ok(Answer::Started(runtime, started)) => Cause::Started(runtime, started),
                Ok(Answer::Event(event)) => Cause::Event(event),
                Err(error) => {
                    if error.is_panic() {
                        tracing::error!(%error, "a task of the executor's panicked");
                    }
                    Cause::Nothing
                }
            },
            event = std::future::poll_fn(|context| self.runtimes.poll(context)) => Cause::Event(event),
            () = self.alarm.rings(deadline) => Cause::Event(Event::Tick),
        })
    }

    /// Does what follows from something that happened.
    pub fn handle(&mut self, happening: Happening) {
        match happening.0 {
            Cause::Event(event) => self.send(event),
            Cause::Started(runtime, started) => {
                let result = started.map(|started| self.runtimes.add(runtime, started));
                if let Err(error) = &result {
                    tracing::error!("{}", error.evalue);
                }
                self.send(Event::RuntimeStarted { runtime, result });
            }
            Cause::Nothing => {}
        }
    }

    /// Tells the executor something, and does what follows.
    pub fn send(&mut self, event: Event) {
        self.tell(event);
        while let Some(effect) = self.effects.pop_front() {
            self.perform(effect);
        }
    }

    fn tell(&mut self, event: Event) {
        let effects = self.executor.on_event(Instant::now(), event);
        self.effects.extend(effects);
    }

    /// Ends everything. Returns when all processes have gone.
    pub async fn shutdown(mut self) {
        self.send(Event::Shutdown);
        self.tasks.shutdown().await;
        for running in self.runtimes.all {
            running.runtime.shutdown().await;
        }
    }

    fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::StartRuntime(start) => {
                let runtime = start.runtime();
                let old = self.runtimes.remove(runtime);
                let starting = self.host.start_runtime(start);
                self.tasks.spawn(async move {
                    if let Some(old) = old {
                        old.shutdown().await;
                    }
                    Answer::Started(runtime, starting.await)
                });
            }
            Effect::StopRuntime(runtime) => {
                if let Some(runtime) = self.runtimes.remove(runtime) {
                    tokio::spawn(async move { runtime.shutdown().await });
                }
            }
            Effect::ClearRuntime => {
                if let Some(runtime) = self.runtimes.get(RuntimeId::Namespace).cloned() {
                    self.tasks.spawn(async move {
                        runtime.restart().await;
                        Answer::Event(Event::Cleared)
                    });
                } else {
                    self.tell(Event::Cleared);
                }
            }
            Effect::Run(snippet) => {
                if let Some(runtime) = self.runtimes.get(RuntimeId::Namespace) {
                    runtime.run(snippet);
                }
            }
            Effect::Call { runtime, call } => {
                if let Some(runtime) = self.runtimes.get(runtime) {
                    runtime.call(&call);
                }
            }
            Effect::InterruptRun { runtime, run } => {
                if let Some(runtime) = self.runtimes.get(runtime) {
                    runtime.interrupt(run);
                }
            }
            Effect::AnswerInput { runtime, line } => {
                if let Some(runtime) = self.runtimes.get(runtime) {
                    runtime.input(line);
                }
            }
            Effect::Provide(id) => {
                let result = self.host.provide(id);
                self.tell(Event::Provided { id, result });
            }
            Effect::Collect { id, value } => {
                let result = self.host.collect(id, value);
                self.tell(Event::Collected { id, result });
            }
            Effect::Compile {
                ticket,
                id,
                request,
            } => self.compile(ticket, id, request),
            Effect::CancelCompile(_) => cancel(&mut self.compile),
            Effect::Settle { ticket, ending } => {
                let settling = self.host.settle(ending);
                self.tasks.spawn(async move {
                    let settlement = settling.await;
                    Answer::Event(Event::Settled { ticket, settlement })
                });
            }
            Effect::AskInput {
                id,
                prompt,
                password,
            } => {
                let asking = self.host.ask(id, prompt, password);
                self.question = Some(self.tasks.spawn(async move {
                    let line = asking.await;
                    Answer::Event(Event::Input { id, line })
                }));
            }
            Effect::CancelInput(_) => cancel(&mut self.question),
            Effect::Started(id) => self.host.started(id),
            Effect::Output { id, output } => self.host.output(id, output),
            Effect::Keep(kept) => self.host.keep(kept),
            Effect::ReplayKept => {
                while let Some(kept) = self.host.take_kept() {
                    let now = Instant::now();
                    // At once, since it may be much.
                    for effect in self.executor.on_event(now, Event::Kept(kept)) {
                        self.perform(effect);
                    }
                }
            }
            Effect::Finished { id, outcome } => {
                self.host.finished(id, outcome, self.executor.lineage());
            }
            // `shutdown` does it.
            Effect::Shutdown => {}
        }
    }

    fn compile(&mut self, ticket: Ticket, id: WorkId, request: CompileRequest) {
        let status = StatusSender {
            id,
            statuses: self.status_sender.clone(),
        };
        let mut compiling = Box::pin(self.host.compile(id, request, status));
        let mut context = Context::from_waker(Waker::noop());
        match compiling.as_mut().poll(&mut context) {
            Poll::Ready(result) => self.tell(Event::Compiled { ticket, result }),
            Poll::Pending => {
                self.compile = Some(self.tasks.spawn(async move {
                    let result = compiling.await;
                    Answer::Event(Event::Compiled { ticket, result })
                }));
            }
        }
    }
}

fn cancel(task: &mut Option<AbortHandle>) {
    if let Some(task) = task.take() {
        task.abort();
    }
}

/// The runtimes that are there: few, so that a list is searched in no time.
#[derive(Default)]
struct Runtimes {
    all: Vec<Running>,
    /// Where to look first for an event, so that none is kept waiting by another.
    first: usize,
}

struct Running {
    id: RuntimeId,
    runtime: Runtime,
    events: mpsc::UnboundedReceiver<runtime::Event>,
}

impl Runtimes {
    fn get(&self, id: RuntimeId) -> Option<&Runtime> {
        let running = self.all.iter().find(|running| running.id == id)?;
        Some(&running.runtime)
    }

    fn add(&mut self, id: RuntimeId, (runtime, events): Started) {
        self.all.push(Running {
            id,
            runtime,
            events,
        });
    }

    fn remove(&mut self, id: RuntimeId) -> Option<Runtime> {
        let at = self.all.iter().position(|running| running.id == id)?;
        Some(self.all.remove(at).runtime)
    }

    /// The next event of any runtime.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Event> {
        let count = self.all.len();
        for step in 0..count {
            let at = (self.first + step) % count;
            let Some(running) = self.all.get_mut(at) else {
                continue;
            };
            let runtime = running.id;
            match running.events.poll_recv(context) {
                Poll::Ready(event) => {
                    self.first = at + 1;
                    return Poll::Ready(match event {
                        Some(event) => Event::Runtime { runtime, event },
                        None => {
                            self.all.remove(at);
                            Event::RuntimeGone(runtime)
                        }
                    });
                }
                Poll::Pending => {}
            }
        }
        Poll::Pending
    }
}

/// Rings at a time, or earlier: it is only ever set to an earlier time while it is set. Setting a timer makes tokio wake itself up, which each of
/// a thousand short calls would pay for; so they leave it to ring for nothing once they are over.
#[derive(Default)]
struct Alarm(Option<Pin<Box<Sleep>>>);

impl Alarm {
    /// Never without a time.
    async fn rings(&mut self, due: Option<Instant>) {
        let Some(due) = due.map(tokio::time::Instant::from_std) else {
            return std::future::pending().await;
        };
        let sleep = self
            .0
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(due)));
        if sleep.is_elapsed() || due < sleep.deadline() {
            sleep.as_mut().reset(due);
        }
        sleep.await;
    }
}
