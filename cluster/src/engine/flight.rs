//! Calls under way: while one runs the next ones are with the runtime already.

use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use protocol::message::iopub::ExecutionState;
use runtime::{CallOutcome, Event, RunId, Span};
use serde_json::{Map, Value, json};
use tokio::time::{Instant, Sleep};

use super::Job;
use super::call;
use super::memory::memory_file;
use super::worker::{Worker, emitter};
use crate::failure;
use crate::output::{Gatherer, text_bundle};

/// How many calls may be with the runtime: short ones follow each other without anybody having to wake up in between. Those
/// that have not begun can still be aborted.
const AHEAD: usize = 32;

/// A call that takes longer is told to have begun: for those who watch. The short ones are over before anybody could look.
const LONG: Duration = Duration::from_millis(100);

/// A call that is with the runtime.
#[derive(Debug)]
pub(super) struct Flight {
    job: Job,
    id: RunId,
    sent: jiff::Timestamp,
    /// Where a long result may be.
    file: Option<PathBuf>,
    /// There when it has printed something.
    gatherer: Option<Gatherer>,
    aborted: bool,
    /// Since when it is the first of all, or its turn was told.
    turn: Turn,
}

#[derive(Clone, Copy, Debug)]
enum Turn {
    NotYet,
    Since(Instant),
    Told,
}

/// Rings at a time, or earlier: it is only ever set to an earlier time while it is set. Setting a timer makes tokio wake itself up, which each of
/// a thousand short calls would pay for; so they leave it to ring for nothing once they are over.
#[derive(Debug, Default)]
pub(super) struct Alarm(Option<Pin<Box<Sleep>>>);

impl Alarm {
    /// Never without a time.
    async fn rings(&mut self, due: Option<Instant>) {
        let Some(due) = due else {
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

impl Worker {
    /// Hands over the calls that are next in line. Everything else waits until they are back.
    pub(super) async fn depart(&mut self) {
        while self.flights.len() < AHEAD {
            let job = match self.waiting.pop_front() {
                Some(job) => job,
                None => match self.queue.try_recv() {
                    Ok(job) => job,
                    Err(_) => return,
                },
            };
            if job.message.msg_type() != "apply_request" {
                return self.waiting.push_front(job);
            }
            let id = self.namespace.new_id();
            let parsed = match call::parse(&job.message, id, memory_file) {
                Ok(Some((call, executable, memory))) => match memory.lacks(&call) {
                    None => Ok((call, executable)),
                    Some(reason) => Err(failure::plain("another machine", reason)),
                },
                Ok(None) => return self.waiting.push_front(job),
                Err(reason) => Err(failure::plain("bad request", reason)),
            };
            let (call, executable) = match parsed {
                Ok(call) => call,
                Err(error) => {
                    let content = self.error(error, "apply");
                    self.reply(&job, content, jiff::Timestamp::now());
                    self.status(&job.message, ExecutionState::Idle);
                    continue;
                }
            };
            if self.is_aborted(&job) {
                self.reply(&job, json!({"status": "aborted"}), jiff::Timestamp::now());
                continue;
            }
            let boarded = match self.namespace.home(&call, executable) {
                // Calls come back in their order only from one runtime.
                Ok(home) if !self.flights.is_empty() && !self.namespace.calls_go_to(home) => {
                    return self.waiting.push_front(job);
                }
                Ok(home) => self.namespace.start_calls(&call, home).await,
                Err(error) => Err(error),
            };
            if let Err(error) = boarded {
                let content = self.error(error, "apply");
                self.reply(&job, content, jiff::Timestamp::now());
                self.status(&job.message, ExecutionState::Idle);
                continue;
            }
            if self.flights.is_empty() {
                self.interrupts.mark_unchanged();
            }
            self.namespace.call(&call);
            self.flights.push_back(Flight {
                job,
                id,
                sent: jiff::Timestamp::now(),
                file: call.answer_file,
                gatherer: None,
                aborted: false,
                turn: Turn::NotYet,
            });
            self.note_turn();
        }
    }

    /// It is the first one's turn.
    fn note_turn(&mut self) {
        if let Some(first) = self.flights.front_mut()
            && let Turn::NotYet = first.turn
        {
            first.turn = Turn::Since(Instant::now());
        }
    }

    /// Says that a call has begun.
    fn tell_turn(&mut self) {
        if let Some(first) = self.flights.front_mut()
            && let Turn::Since(since) = first.turn
            && since + LONG <= Instant::now()
        {
            first.turn = Turn::Told;
            let request = first.job.message.clone();
            self.status(&request, ExecutionState::Busy);
        }
    }

    /// Waits for something to happen while calls are under way. False when there will be no further jobs.
    pub(super) async fn attend(&mut self) -> bool {
        let first = self.flights.front();
        let text = first.and_then(|flight| Some(flight.gatherer.as_ref()?.deadline()?.into()));
        let turn = first.and_then(|flight| match flight.turn {
            Turn::Since(since) => Some(since + LONG),
            Turn::NotYet | Turn::Told => None,
        });
        let due = [text, turn].into_iter().flatten().min();
        tokio::select! {
            biased;
            _ = self.interrupts.changed() => {
                if let Some(first) = self.flights.front() {
                    self.namespace.interrupt(first.id);
                }
            }
            _ = self.aborts.changed() => self.abort_flights(),
            event = self.namespace.event() => self.on_event(event),
            job = self.queue.recv() => match job {
                Some(job) => self.waiting.push_back(job),
                None => return false,
            },
            () = self.alarm.rings(due) => {
                self.tell_turn();
                if let Some(gatherer) = self.flights.front_mut().and_then(|it| it.gatherer.as_mut())
                    && gatherer.deadline().is_some_and(|deadline| deadline <= Instant::now().into_std())
                {
                    gatherer.send();
                }
            }
        }
        true
    }

    /// The first is running; those behind it can still be stopped.
    fn abort_flights(&mut self) {
        let stopped = self.shared.stopped();
        if let Some(first) = self.flights.front()
            && stopped.contains(&first.job.message.header.msg_id)
        {
            self.namespace.interrupt(first.id);
        }
        drop(stopped);
        let aborted = self.shared.aborted();
        for flight in self.flights.iter_mut().skip(1) {
            if aborted.contains(&flight.job.message.header.msg_id) {
                flight.aborted = true;
                self.namespace.interrupt(flight.id);
            }
        }
    }

    fn on_event(&mut self, event: Option<Event>) {
        match event {
            Some(Event::Called { id, outcome, span }) => {
                if let Some(flight) = self.flights.pop_front_if(|flight| flight.id == id) {
                    self.note_turn();
                    self.land(flight, outcome, span);
                }
            }
            Some(Event::Output { stream, bytes }) => {
                if let Some(gatherer) = self.gatherer() {
                    gatherer.bytes(stream, &bytes);
                }
            }
            Some(Event::Result { text, .. }) => {
                if let Some(gatherer) = self.gatherer() {
                    gatherer.display(text_bundle(text));
                }
            }
            Some(Event::Lost { cause, restored }) => {
                if let Some(gatherer) = self.gatherer() {
                    gatherer.note(failure::lost(failure::Subject::Snippet, &cause, &restored));
                }
            }
            Some(
                Event::Input { .. }
                | Event::Started { .. }
                | Event::Spent { .. }
                | Event::Finished { .. },
            ) => {}
            None => {
                for flight in std::mem::take(&mut self.flights) {
                    let error = "the runtime has gone".to_owned();
                    self.land(flight, CallOutcome::NotRun { error }, None);
                }
            }
        }
    }

    /// What the call that is running prints goes here.
    fn gatherer(&mut self) -> Option<&mut Gatherer> {
        let flight = self.flights.front_mut()?;
        let parent = &flight.job.message.header;
        let emit = || emitter(Arc::clone(&self.shared), parent.clone());
        Some(flight.gatherer.get_or_insert_with(|| Gatherer::new(emit())))
    }

    /// Sends the reply.
    fn land(&mut self, flight: Flight, outcome: CallOutcome, span: Option<Span>) {
        let Flight {
            job,
            sent,
            file,
            gatherer,
            aborted,
            turn,
            ..
        } = flight;
        self.is_aborted(&job);
        let printed = gatherer.is_some();
        if let Some(gatherer) = gatherer {
            self.last = Some(job.message.header.clone());
            gatherer.finish(false);
        }
        self.namespace.note_outcome(&outcome);
        let aborted = aborted && matches!(outcome, CallOutcome::Interrupted { .. });
        let (mut content, buffers) = match aborted {
            true => (json!({"status": "aborted"}), Vec::new()),
            false => {
                let retries = job.message.metadata.get("retries");
                let outcome = match retries.and_then(Value::as_u64) {
                    None | Some(0) => outcome,
                    Some(_) => call::out_of_file(outcome, file.as_deref()),
                };
                let error = failure::call(&outcome);
                call::reply(outcome, error, file.as_deref())
            }
        };
        let failed = content["status"] == "error";
        if failed {
            self.name_engine(&mut content, "apply");
        }
        let (began, ended) = match span {
            Some(span) => (time(span.began, sent), time(span.ended, sent)),
            None => (sent, jiff::Timestamp::now()),
        };
        let extra = [
            ("completed".to_owned(), json!(format!("{ended:.6}"))),
            ("printed".to_owned(), json!(printed)),
        ];
        self.answer(&job, content, began, Map::from_iter(extra), buffers, file);
        if printed || failed || matches!(turn, Turn::Told) {
            self.status(&job.message, ExecutionState::Idle);
        }
    }

    /// Sends a call's reply; a result in a file that nobody hears of is removed.
    fn answer(
        &self,
        job: &Job,
        content: Value,
        began: jiff::Timestamp,
        extra: Map<String, Value>,
        buffers: Vec<Bytes>,
        file: Option<PathBuf>,
    ) {
        let in_file = !content["file"].is_null();
        let sent = self.reply_with(job, content, began, extra, buffers);
        if !sent
            && in_file
            && let Some(file) = file
            && let Err(error) = std::fs::remove_file(&file)
        {
            tracing::warn!(%error, file = %file.display(), "failed to remove a result that nobody takes");
        }
    }
}

fn time(at: std::time::SystemTime, otherwise: jiff::Timestamp) -> jiff::Timestamp {
    jiff::Timestamp::try_from(at).unwrap_or(otherwise)
}
