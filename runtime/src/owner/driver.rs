//! The task that owns the processes' sockets and pipes: whatever happens becomes one event, `Core` says what follows, and it is done.
//!
//! Before anything that a process said is acted on, the pipes are emptied: what it wrote before it spoke is in them. That is
//! how `Finished` is a barrier.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use super::Config;
use super::calls::{self, Prepared};
use super::core::{Core, Effect, Work};
use super::output::{Budget, PromptFilter};
use super::processes::Processes;
use crate::call::CallOutcome;
use crate::event::{Event, RunId, Snippet, Stream};
use crate::wire::{FromSupervisor, FromWorker, Received, ToSupervisor, ToWorker, WINDOW};

/// How long an idle worker has to end by itself.
const GRACE: Duration = Duration::from_millis(500);

/// How long the supervisor has to end everything else.
const LAST: Duration = Duration::from_secs(5);

/// How much else is done before a call is sent.
const POSTPONED: usize = WINDOW;

/// What holders of a handle want.
#[derive(Debug)]
pub(super) enum Order {
    Run(Snippet),
    Call(Prepared),
    Interrupt(RunId),
    Input(Option<String>),
    SetCheckpoint { on: bool, limit: u64 },
    Restart(oneshot::Sender<Result<(), String>>),
    Shutdown(oneshot::Sender<()>),
}

/// Whatever can happen.
#[derive(Debug)]
enum Happening {
    /// `None`: the last handle was dropped.
    Ordered(Option<Order>),
    Worker(Received<FromWorker>),
    Supervisor(FromSupervisor),
    SupervisorGone,
    Output(Stream, Vec<u8>),
    /// Nothing to act on.
    Progress,
}

#[derive(Debug)]
pub(super) struct Driver {
    config: Config,
    core: Core,
    /// None while they cannot be started.
    processes: Option<Processes>,
    orders: mpsc::UnboundedReceiver<Order>,
    events: mpsc::UnboundedSender<Event>,
    waiting: Vec<oneshot::Sender<Result<(), String>>>,
    budget: Arc<Budget>,
    prompts: PromptFilter,
    /// What was read from stdout and stderr, while it is being found out which call wrote it.
    unclaimed: [Vec<u8>; 2],
    /// What was done since a call waits to be sent.
    postponed: usize,
}

impl Driver {
    pub(super) fn new(
        config: Config,
        processes: Processes,
        orders: mpsc::UnboundedReceiver<Order>,
        events: mpsc::UnboundedSender<Event>,
        ready: oneshot::Sender<Result<(), String>>,
    ) -> Driver {
        Driver {
            core: Core::new(0, config.checkpoint, config.checkpoint_limit),
            config,
            processes: Some(processes),
            orders,
            events,
            waiting: vec![ready],
            budget: Arc::default(),
            prompts: PromptFilter::new(),
            unclaimed: [Vec::new(), Vec::new()],
            postponed: 0,
        }
    }

    /// Runs until the processes are shut down.
    pub(super) async fn run(mut self) {
        loop {
            match self.next_or_send().await {
                Happening::Ordered(None) => return self.shut_down(None).await,
                Happening::Ordered(Some(Order::Shutdown(done))) => {
                    return self.shut_down(Some(done)).await;
                }
                Happening::Ordered(Some(order)) => self.on_order(order).await,
                Happening::Worker(received) => {
                    self.on_worker(received).await;
                    self.settle_claims().await;
                }
                Happening::Supervisor(message) => {
                    // The worker is dead, so all that it said is there to be read.
                    self.finish_reading().await;
                    self.emit_waiting_output();
                    let effects = self.core.on_supervisor(message);
                    self.apply(effects).await;
                }
                Happening::SupervisorGone => {
                    self.finish_reading().await;
                    self.emit_waiting_output();
                    if let Some(processes) = self.processes.take() {
                        processes.reap().await;
                    }
                    let effects = self.core.supervisor_gone();
                    self.apply(effects).await;
                }
                Happening::Output(stream, bytes) => self.on_output(stream, bytes).await,
                Happening::Progress => {}
            }
        }
    }

    /// What happens next. Calls are sent when there is nothing else to do, so that those that come together go in one packet; or after
    /// [`POSTPONED`] other things, since output may come without end.
    async fn next_or_send(&mut self) -> Happening {
        let joined = |processes: &Processes| processes.control.has_joined();
        if !self.processes.as_ref().is_some_and(joined) {
            return self.next().await;
        }
        let happening = tokio::select! {
            biased;
            happening = self.next() => Some(happening),
            () = std::future::ready(()) => None,
        };
        self.postponed += 1;
        if happening.is_none() || self.postponed >= POSTPONED {
            self.postponed = 0;
            self.send(|processes| processes.control.send_joined());
        }
        match happening {
            Some(happening) => happening,
            None => self.next().await,
        }
    }

    async fn next(&mut self) -> Happening {
        let Some(processes) = &mut self.processes else {
            return Happening::Ordered(self.orders.recv().await);
        };
        let Processes {
            control,
            link,
            input,
            stdout,
            stderr,
            ..
        } = processes;
        let may_read = self.budget.is_left();
        tokio::select! {
            order = self.orders.recv() => Happening::Ordered(order),
            message = link.next() => match message {
                Ok(Some(received)) => Happening::Supervisor(received.message),
                Ok(None) => Happening::SupervisorGone,
                Err(error) => broken("the runtime's supervisor", &error),
            },
            message = control.next() => match message {
                Ok(Some(received)) => Happening::Worker(received),
                // The supervisor holds it open too, so it is going as well.
                Ok(None) => Happening::SupervisorGone,
                // User code can write anything to any descriptor.
                Err(error) => {
                    broken("the runtime", &error);
                    Happening::Progress
                }
            },
            bytes = stdout.read(), if may_read && stdout.is_open() => output(Stream::Stdout, bytes),
            bytes = stderr.read(), if may_read && stderr.is_open() => output(Stream::Stderr, bytes),
            () = self.budget.dropped(), if !may_read => Happening::Progress,
            result = input.flush(), if input.has_queued() => sent(result),
        }
    }

    async fn on_order(&mut self, order: Order) {
        let effects = match order {
            Order::Run(snippet) => self.core.run(Work::Run(snippet)),
            Order::Call(call) => self.core.run(Work::Call(call)),
            Order::Interrupt(run) => self.core.interrupt(run),
            Order::Input(line) => self.core.input(line),
            Order::SetCheckpoint { on, limit } => {
                self.core.set_checkpoint(on, limit);
                Vec::new()
            }
            Order::Restart(done) => {
                self.waiting.push(done);
                self.core.restart()
            }
            // Ends the loop, see there.
            Order::Shutdown(_) => Vec::new(),
        };
        self.apply(effects).await;
    }

    /// The worker says `Started` before its snippet writes anything, but by another way: it is to come out first.
    async fn on_output(&mut self, stream: Stream, bytes: Vec<u8>) {
        if self.core.is_calling() {
            let [stdout, stderr] = &mut self.unclaimed;
            match stream {
                Stream::Stdout => stdout.extend(bytes),
                Stream::Stderr => stderr.extend(bytes),
            }
            return self.settle_claims().await;
        }
        let mut message = None;
        if self.core.awaits_start()
            && let Some(processes) = &mut self.processes
        {
            message = processes.control.try_next().unwrap_or_else(|error| {
                broken("the runtime", &error);
                None
            });
        }
        match message {
            Some(started) if matches!(started.message, FromWorker::Started { .. }) => {
                self.on_worker(started).await;
                self.emit_output(stream, bytes);
            }
            Some(other) => {
                self.emit_output(stream, bytes);
                self.on_worker(other).await;
            }
            None => self.emit_output(stream, bytes),
        }
    }

    async fn on_worker(&mut self, received: Received<FromWorker>) {
        let effects = match received.message {
            FromWorker::Called {
                ticket,
                span,
                written,
                end,
                partly,
            } => {
                self.claim(written);
                let outcome = match calls::outcome(end, received.payload, received.passed) {
                    Some(CallOutcome::Returned(value)) if partly => {
                        Some(CallOutcome::Partly(value))
                    }
                    outcome => outcome,
                };
                self.core.on_called(ticket, outcome, calls::span(span))
            }
            message => {
                match message {
                    // What is in the pipes may have been written after it, by a call that `claim` will know.
                    FromWorker::Started { .. }
                    | FromWorker::Spent { .. }
                    | FromWorker::Guarded { .. } => {}
                    // At the end a line that looks like a question was none.
                    FromWorker::Finished { .. } => self.emit_waiting_output(),
                    _ => self.drain(),
                }
                self.core.on_worker(message)
            }
        };
        self.apply(effects).await;
    }

    /// Emits what was written before a call ended, and reads it first if need be; what is behind it is not the call's.
    fn claim(&mut self, written: [u64; 2]) {
        let Some(processes) = &mut self.processes else {
            return;
        };
        let pipes = [&mut processes.stdout, &mut processes.stderr];
        let mut claimed = [Vec::new(), Vec::new()];
        let unclaimed = self.unclaimed.iter_mut();
        for (((pipe, bytes), until), claimed) in pipes
            .into_iter()
            .zip(unclaimed)
            .zip(written)
            .zip(&mut claimed)
        {
            if pipe.total() < until {
                bytes.extend(pipe.drain());
            }
            let behind = usize::try_from(pipe.total().saturating_sub(until)).unwrap_or(usize::MAX);
            let theirs = bytes.len().saturating_sub(behind);
            *claimed = bytes.drain(..theirs).collect();
        }
        let [stdout, stderr] = claimed;
        self.emit_output(Stream::Stdout, stdout);
        self.emit_output(Stream::Stderr, stderr);
        self.release_prompt();
    }

    /// What was read before anything else is heard from the worker was written by the call that is running now.
    async fn settle_claims(&mut self) {
        while self.unclaimed.iter().any(|bytes| !bytes.is_empty()) {
            let Some(processes) = &mut self.processes else {
                return;
            };
            match processes.control.try_next() {
                Ok(Some(message)) => self.on_worker(message).await,
                Ok(None) => self.emit_unclaimed(),
                Err(error) => {
                    broken("the runtime", &error);
                    self.emit_unclaimed();
                }
            }
        }
    }

    fn emit_unclaimed(&mut self) {
        let [stdout, stderr] = std::mem::take(&mut self.unclaimed);
        self.emit_output(Stream::Stdout, stdout);
        self.emit_output(Stream::Stderr, stderr);
    }

    /// Handles what is left to read on the control socket.
    async fn finish_reading(&mut self) {
        while let Some(processes) = &mut self.processes {
            match processes.control.try_next() {
                Ok(Some(message)) => self.on_worker(message).await,
                Ok(None) => return,
                Err(error) => {
                    broken("the runtime", &error);
                    return;
                }
            }
        }
    }

    async fn apply(&mut self, effects: Vec<Effect>) {
        let mut to_do = std::collections::VecDeque::from(effects);
        while let Some(effect) = to_do.pop_front() {
            match effect {
                Effect::Emit(event) => self.emit(event),
                Effect::AskInput => {
                    let prompt = self.prompts.take_prompt();
                    if prompt.is_none() {
                        self.release_prompt();
                    }
                    let prompt = prompt.unwrap_or_default();
                    self.emit(Event::Input {
                        prompt: prompt.text,
                        password: prompt.password,
                    });
                }
                Effect::Worker(message) => self.send(|processes| processes.control.send(&message)),
                Effect::Call {
                    message,
                    payload,
                    memory,
                } => self.send(|processes| match memory {
                    None => processes.control.join(&message, &payload),
                    memory => processes.control.send_with(&message, &payload, memory),
                }),
                Effect::Supervisor(message) => self.send(|processes| processes.link.send(&message)),
                Effect::Answer(answer) => self.send(|processes| processes.input.send(&answer)),
                Effect::BeginAnew { epoch } if self.processes.is_some() => {
                    self.send(|processes| processes.link.send(&ToSupervisor::Restart { epoch }));
                }
                Effect::BeginAnew { epoch } => match Processes::spawn(&self.config, epoch) {
                    Ok(processes) => self.processes = Some(processes),
                    Err(error) => {
                        let reason = format!("the runtime could not be started: {error}");
                        to_do.extend(self.core.spawn_failed(reason));
                    }
                },
                Effect::Ready(result) => {
                    for waiting in self.waiting.drain(..) {
                        let _ = waiting.send(result.clone());
                    }
                }
            }
        }
    }

    /// A process that cannot be written to is dead, which its supervisor (or the end of the link) tells.
    fn send(&mut self, send: impl FnOnce(&mut Processes) -> io::Result<()>) {
        if let Some(processes) = &mut self.processes
            && let Err(error) = send(processes)
        {
            tracing::debug!(%error, "failed to send to the runtime");
        }
    }

    /// Emits what is in the pipes; a line that may be a question is held back.
    fn drain(&mut self) {
        self.emit_unclaimed();
        let Some(processes) = &mut self.processes else {
            return;
        };
        let drained = [
            (Stream::Stdout, processes.stdout.drain()),
            (Stream::Stderr, processes.stderr.drain()),
        ];
        for (stream, bytes) in drained {
            self.emit_output(stream, bytes);
        }
    }

    fn emit_waiting_output(&mut self) {
        self.drain();
        self.release_prompt();
    }

    fn release_prompt(&mut self) {
        let held = self.prompts.release();
        self.emit_bytes(Stream::Stdout, held);
    }

    fn emit_output(&mut self, stream: Stream, bytes: Vec<u8>) {
        if bytes.is_empty() {
            return;
        }
        let bytes = match stream {
            Stream::Stdout => self.prompts.push(bytes),
            Stream::Stderr => bytes,
        };
        self.emit_bytes(stream, bytes);
    }

    fn emit_bytes(&mut self, stream: Stream, bytes: Vec<u8>) {
        if !bytes.is_empty() {
            let bytes = self.budget.count(bytes);
            self.emit(Event::Output { stream, bytes });
        }
    }

    fn emit(&mut self, event: Event) {
        // Nobody listens any more: the runtime goes on until its handles are gone too.
        let _ = self.events.send(event);
    }

    async fn shut_down(mut self, done: Option<oneshot::Sender<()>>) {
        let grace = if self.core.is_idle() && done.is_some() {
            self.send(|processes| processes.control.send(&ToWorker::Exit));
            GRACE
        } else {
            Duration::ZERO
        };
        let grace_ms = u32::try_from(grace.as_millis()).unwrap_or(0);
        self.send(|processes| processes.link.send(&ToSupervisor::Shutdown { grace_ms }));
        self.orders.close();
        if tokio::time::timeout(grace + LAST, self.read_to_the_end())
            .await
            .is_err()
        {
            tracing::warn!("the runtime's supervisor did not end in time and is killed");
        }
        self.emit_waiting_output();
        if let Some(processes) = self.processes.take() {
            processes.reap().await;
        }
        let effects = self.core.shut_down();
        self.apply(effects).await;
        drop(self.events);
        if let Some(done) = done {
            let _ = done.send(());
        }
    }

    /// Emits output until the supervisor is gone.
    async fn read_to_the_end(&mut self) {
        loop {
            match self.next().await {
                Happening::SupervisorGone => return,
                Happening::Output(stream, bytes) => self.emit_output(stream, bytes),
                // Came in before the orders were closed; it ends with the others.
                Happening::Ordered(Some(Order::Run(snippet))) => {
                    let _ = self.core.run(Work::Run(snippet));
                }
                Happening::Ordered(Some(Order::Call(call))) => {
                    let _ = self.core.run(Work::Call(call));
                }
                Happening::Ordered(None) => {
                    // The branch would be ready for ever.
                    return self.read_without_orders().await;
                }
                _ => {}
            }
        }
    }

    async fn read_without_orders(&mut self) {
        while let Some(processes) = &mut self.processes {
            let Processes {
                link,
                stdout,
                stderr,
                ..
            } = processes;
            let (stream, bytes) = tokio::select! {
                message = link.next::<FromSupervisor>() => match message {
                    Ok(Some(_)) => continue,
                    Ok(None) | Err(_) => return,
                },
                bytes = stdout.read(), if stdout.is_open() => (Stream::Stdout, bytes),
                bytes = stderr.read(), if stderr.is_open() => (Stream::Stderr, bytes),
            };
            self.emit_output(stream, bytes.unwrap_or_default());
        }
    }
}

fn output(stream: Stream, bytes: io::Result<Vec<u8>>) -> Happening {
    match bytes {
        Ok(bytes) => Happening::Output(stream, bytes),
        Err(error) => {
            tracing::warn!(%error, ?stream, "failed to read what the runtime wrote");
            Happening::Progress
        }
    }
}

fn sent(result: io::Result<()>) -> Happening {
    if let Err(error) = result {
        tracing::debug!(%error, "failed to send to the runtime");
    }
    Happening::Progress
}

/// A message that cannot be read.
fn broken(who: &str, error: &io::Error) -> Happening {
    tracing::warn!(%error, "{who} sent something that cannot be understood");
    Happening::SupervisorGone
}
