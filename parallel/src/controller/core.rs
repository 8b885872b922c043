//! The books of a connection: which engines there are, what is under way, and what is to be told to whom. Messages and moments in, calls
//! of listeners out; no socket and no clock.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use protocol::cluster::EngineId;
use protocol::message::iopub::{ExecutionState, Status};
use protocol::{JsonError, Message};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::Lost;
use super::request::{Event, Listener, Output};

/// The engines there are: number and identity.
pub(super) type Engines = BTreeMap<EngineId, Arc<str>>;

/// How long the end of an engine's output may be awaited after its reply, counted anew with everything it still says. Engines say it right
/// after; only one whose output was lost on the way, by a break of its connection, does not.
const LAST_OUTPUT: Duration = Duration::from_secs(5);

/// A request that was sent.
#[derive(Debug)]
pub(super) struct Entry {
    /// Its message id.
    pub(super) id: String,
    /// The engine that it names, by number and identity.
    pub(super) engine: Option<(EngineId, Arc<str>)>,
    /// See [`super::Request::output`].
    pub(super) output: bool,
}

/// See the module.
#[derive(Default)]
pub(super) struct Core {
    engines: Engines,
    pending: HashMap<String, Pending>,
    groups: HashMap<u64, Group>,
    next_group: u64,
    /// Requests that are answered and whose output may go on, with the moment when that is given up.
    closing: HashMap<String, Instant>,
    /// The controller said that it ends.
    told: bool,
}

struct Pending {
    group: u64,
    /// Its place in its group.
    index: usize,
    engine: Option<EngineId>,
    output: bool,
    /// What is told once the output has ended.
    answer: Option<Event>,
    idle: bool,
}

/// Requests that share a listener.
struct Group {
    listener: Listener,
    /// Those that have not ended.
    open: usize,
}

/// As much of a reply as is needed to see who made it.
#[derive(Deserialize)]
struct Verdict {
    status: String,
    #[serde(default)]
    ename: String,
    #[serde(default)]
    engine_info: Map<String, Value>,
}

#[derive(Deserialize)]
struct News {
    id: EngineId,
    uuid: String,
}

impl Core {
    /// The engines there are.
    pub(super) fn engines(&self) -> &Engines {
        &self.engines
    }

    /// Whether the controller said that it ends.
    pub(super) fn told(&self) -> bool {
        self.told
    }

    /// Takes the hub's word for which engines there are.
    pub(super) fn set_engines(&mut self, engines: Engines) {
        self.engines = engines;
    }

    /// Requests are sent: whose they are, and who hears of them. Says which of them are to be sent at all.
    pub(super) fn on_submit(&mut self, entries: Vec<Entry>, mut listener: Listener) -> Vec<bool> {
        let group = self.next_group;
        self.next_group += 1;
        let mut open = 0;
        let mut send = Vec::with_capacity(entries.len());
        for (index, entry) in entries.into_iter().enumerate() {
            let engine = entry.engine.as_ref().map(|(id, _)| *id);
            // An engine that went since the request was made: not every controller would answer.
            let gone = entry
                .engine
                .filter(|(id, uuid)| self.engines.get(id) != Some(uuid));
            send.push(gone.is_none());
            if let Some((id, _)) = gone {
                listener(index, Event::Lost(Lost::Engine(id)));
                continue;
            }
            open += 1;
            let pending = Pending {
                group,
                index,
                engine,
                output: entry.output,
                answer: None,
                idle: false,
            };
            self.pending.insert(entry.id, pending);
        }
        if open > 0 {
            self.groups.insert(group, Group { listener, open });
        }
        send
    }

    /// Nobody wants to know of these any more.
    pub(super) fn forget(&mut self, ids: &[String]) {
        for id in ids {
            if let Some(pending) = self.pending.remove(id) {
                self.closing.remove(id);
                self.leave_group(pending.group);
            }
        }
    }

    /// A reply of the hub, of an engine, or of the controller in an engine's place.
    pub(super) fn on_reply(&mut self, now: Instant, reply: Message) {
        let Some(parent) = &reply.parent else {
            return tracing::debug!(msg_type = reply.msg_type(), "a reply answers nothing");
        };
        let id = parent.msg_id.clone();
        let Some(pending) = self.pending.get_mut(&id) else {
            return;
        };
        let (event, over) = match verdict(&reply) {
            Some(verdict) if verdict.status == "aborted" => (Event::Reply(Box::new(reply)), true),
            Some(Verdict {
                ename, engine_info, ..
            }) if ename == "EngineError" && engine_info.is_empty() && pending.engine.is_some() => {
                let engine = pending.engine.unwrap_or_default();
                // What it had said before it died is still on its way; the news of its end comes after that.
                let over = !self.engines.contains_key(&engine);
                (Event::Lost(Lost::Engine(engine)), over)
            }
            _ => (Event::Reply(Box::new(reply)), false),
        };
        if over || !pending.output || pending.idle {
            self.end(&id, event);
        } else {
            pending.answer = Some(event);
            self.closing.insert(id, now + LAST_OUTPUT);
        }
    }

    /// Something that an engine broadcasts; other clients' requests are among what it is about.
    pub(super) fn on_iopub(&mut self, now: Instant, message: &Message) {
        let Some(parent) = &message.parent else {
            return;
        };
        let id = parent.msg_id.as_str();
        let Some(pending) = self.pending.get_mut(id) else {
            return;
        };
        if !pending.output {
            return;
        }
        if message.msg_type() == "status" {
            let idle = message
                .parse::<Status>()
                .is_ok_and(|status| status.execution_state == ExecutionState::Idle);
            pending.idle |= idle;
            if idle && let Some(answer) = pending.answer.take() {
                let id = id.to_owned();
                self.end(&id, answer);
            }
            return;
        }
        match output(message) {
            None => {}
            Some(Err(error)) => {
                tracing::warn!(msg_type = message.msg_type(), %error, "an output is dropped");
            }
            Some(Ok(output)) => {
                if let Some(group) = self.groups.get_mut(&pending.group) {
                    (group.listener)(pending.index, Event::Output(output));
                }
                if let Some(until) = self.closing.get_mut(id) {
                    *until = now + LAST_OUTPUT;
                }
            }
        }
    }

    /// News of the cluster. Says whether there are other engines now.
    pub(super) fn on_news(&mut self, message: &Message) -> bool {
        let (comes, news) = match message.msg_type() {
            "registration_notification" => (true, message.parse::<News>()),
            "unregistration_notification" => (false, message.parse::<News>()),
            "shutdown_notification" => {
                self.told = true;
                return false;
            }
            _ => return false,
        };
        match news {
            Ok(News { id, uuid }) if comes => {
                let old = self.engines.insert(id, uuid.as_str().into());
                old.as_deref() != Some(&*uuid)
            }
            Ok(News { id, uuid }) => {
                let is_there = self.engines.get(&id).is_some_and(|it| **it == *uuid);
                if is_there {
                    self.engines.remove(&id);
                    self.on_engine_gone(id);
                }
                is_there
            }
            Err(error) => {
                tracing::warn!(%error, "news of the cluster is dropped");
                false
            }
        }
    }

    fn on_engine_gone(&mut self, engine: EngineId) {
        let waiting = self.pending.iter();
        let waiting: Vec<String> = waiting
            .filter(|(_, pending)| pending.engine == Some(engine))
            .map(|(id, _)| id.clone())
            .collect();
        for id in waiting {
            let pending = self.pending.get_mut(&id);
            let answer = pending.and_then(|pending| pending.answer.take());
            self.end(&id, answer.unwrap_or(Event::Lost(Lost::Engine(engine))));
        }
    }

    /// The controller has gone: there will be nothing more.
    pub(super) fn on_lost(&mut self, lost: &Lost) {
        let waiting: Vec<String> = self.pending.keys().cloned().collect();
        for id in waiting {
            let pending = self.pending.get_mut(&id);
            let answer = pending.and_then(|pending| pending.answer.take());
            self.end(&id, answer.unwrap_or_else(|| Event::Lost(lost.clone())));
        }
        self.engines.clear();
    }

    /// When [`Self::on_time`] is to be called at the latest.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.closing.values().min().copied()
    }

    /// Gives up waiting for the end of outputs that are overdue.
    pub(super) fn on_time(&mut self, now: Instant) {
        let overdue = self.closing.iter().filter(|(_, until)| **until <= now);
        let overdue: Vec<String> = overdue.map(|(id, _)| id.clone()).collect();
        for id in overdue {
            let pending = self.pending.get_mut(&id);
            if let Some(answer) = pending.and_then(|pending| pending.answer.take()) {
                tracing::warn!(id, "the end of a request's output did not come");
                self.end(&id, answer);
            }
        }
    }

    fn end(&mut self, id: &str, event: Event) {
        self.closing.remove(id);
        let Some(pending) = self.pending.remove(id) else {
            return;
        };
        if let Some(group) = self.groups.get_mut(&pending.group) {
            (group.listener)(pending.index, event);
        }
        self.leave_group(pending.group);
    }

    fn leave_group(&mut self, id: u64) {
        if let Some(group) = self.groups.get_mut(&id) {
            group.open -= 1;
            if group.open == 0 {
                self.groups.remove(&id);
            }
        }
    }
}

/// Nothing for replies of which the metadata say that all is well: those need not be read to be passed on.
fn verdict(reply: &Message) -> Option<Verdict> {
    if reply.metadata.get("status").is_some_and(|it| it == "ok") {
        return None;
    }
    reply.parse().ok()
}

pub(super) fn output(message: &Message) -> Option<Result<Output, JsonError>> {
    Some(match message.msg_type() {
        "stream" => message.parse().map(Output::Stream),
        "display_data" => message.parse().map(Output::Display),
        "update_display_data" => message.parse().map(Output::Update),
        "clear_output" => message.parse().map(Output::Clear),
        "execute_result" => message.parse().map(Output::Result),
        "compile_status" => message.parse().map(Output::CompileStatus),
        _ => return None,
    })
}

impl fmt::Debug for Core {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Core")
            .field("engines", &self.engines)
            .field("pending", &self.pending.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
