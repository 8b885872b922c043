//! How tasks end: from an engine's reply, or the lack of one, to an outcome in words for users.

use super::{Books, FileWork, Kind, LAST_OUTPUT, Out, Task};
use crate::codec;
use crate::controller::{PostMetadata, PostReply};
use crate::wire::{Done, Executed, Failure, FailureKind, News, Outcome, Piece, Place};
use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Map, Value};
use std::path::PathBuf;

/// A reply's content, as `cluster/src/engine/call.rs` and `snippet.rs` tell it.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Content {
    status: String,
    ename: String,
    evalue: String,
    traceback: Vec<String>,
    location: Option<Location>,
    engine_info: Map<String, Value>,
    /// Whether a call that failed has a result all the same, of those of its items that did not.
    partly: bool,
    /// A call's result, if it is in a file.
    file: Option<InFile>,
    chorus: Option<Snippet>,
}

#[derive(Debug, Deserialize)]
struct Location {
    file: String,
    line: u32,
}

#[derive(Debug, Deserialize)]
struct InFile {
    path: PathBuf,
    length: u64,
}

/// What a snippet gave.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Snippet {
    file: Option<InFile>,
    data: Map<String, Value>,
}

pub(super) fn failure(kind: FailureKind, ename: &str, evalue: String) -> Failure {
    Failure {
        kind,
        ename: ename.to_owned(),
        evalue,
        traceback: Vec::new(),
        place: None,
    }
}

pub(super) fn refused(reason: String) -> Failure {
    failure(FailureKind::Refused, "Refused", reason)
}

pub(in super::super) fn too_long(length: usize) -> Failure {
    refused(format!(
        "its outcome of {length} bytes is too long for a message: return less at a time or, if its engine is on this machine, give /dev/shm more room (`--shm-size` of a container)"
    ))
}

/// What a task that isn't known any more is told to be.
pub(super) fn lost() -> Failure {
    failure(
        FailureKind::Lost,
        "ResultLost",
        "its outcome was given to the cell that died, and is not kept any more: run it again"
            .to_owned(),
    )
}

/// Seconds since 1970.
fn seconds(date: Option<&str>) -> f64 {
    let date = date.and_then(|date| date.parse::<jiff::Timestamp>().ok());
    date.map_or(0.0, |date| {
        date.as_second() as f64 + f64::from(date.subsec_nanosecond()) * 1e-9
    })
}

impl Books {
    pub(super) fn on_reply(&mut self, now: f64, id: u64, reply: Box<PostReply>, out: &mut Out) {
        let Some(task) = self.tasks.get_mut(&id) else {
            return;
        };
        let is_idle = task.idle == Some(reply.metadata.attempt);
        if !is_idle && awaits_idle(task.group.kind, &reply) {
            task.reply = Some(reply);
            self.closing.push_back((now + LAST_OUTPUT, id));
            return;
        }
        self.end(id, *reply, out);
    }

    /// A task ends with this reply.
    pub(super) fn end(&mut self, id: u64, reply: PostReply, out: &mut Out) {
        let Some(task) = self.tasks.remove(&id) else {
            return;
        };
        let PostReply {
            metadata,
            content,
            buffers,
        } = reply;
        let well = metadata.status.as_deref() == Some("ok");
        let engine = metadata
            .engine
            .as_ref()
            .and_then(|identity| self.numbers.get(identity).copied())
            .or(task.engine);
        let content = match well && &content[..] == br#"{"status":"ok"}"# {
            true => Content {
                status: "ok".to_owned(),
                ..Content::default()
            },
            false => serde_json::from_slice(&content).unwrap_or_default(),
        };
        // An engine that was given up may read still, if another one was given the task then: for want of its life or of success, of which the
        // scheduler makes retries. One that refused the task or gave it back never began.
        let only = !task.group.balanced || task.group.retries == 0;
        self.release(&task, (well || content.partly) && only, out);
        let mut location = None;
        let outcome = match content.status.as_str() {
            status if status == "ok" || content.partly => {
                self.value(task.group.kind, content, buffers, out)
            }
            "aborted" => Outcome::Failed(failure(
                FailureKind::Aborted,
                "TaskAborted",
                "it was aborted before it began".to_owned(),
            )),
            _ => {
                location = content
                    .location
                    .as_ref()
                    .map(|at| (at.file.clone(), at.line));
                Outcome::Failed(failed(content, engine, task.group.retries))
            }
        };
        let done = Done {
            id,
            engine,
            submitted: task.group.submitted,
            started: seconds(metadata.started.as_deref()),
            completed: completed(&metadata),
            outcome,
        };
        if task.orphan {
            if let Outcome::Value(Piece::File { path, .. }) = done.outcome {
                out.files.push(FileWork::Remove(path));
            }
            return;
        }
        match location {
            Some((file, line)) => {
                self.placing.insert(id, done);
                out.places.push((id, file, line));
            }
            None => self.tell(done, out),
        }
    }

    fn value(
        &mut self,
        kind: Kind,
        content: Content,
        buffers: Vec<Bytes>,
        out: &mut Out,
    ) -> Outcome {
        let snippet = content.chorus.unwrap_or_default();
        if kind == Kind::Execute {
            let data = snippet.data.into_iter();
            let executed = Executed {
                data: data
                    .map(|(mime, value)| match value {
                        Value::String(text) => (mime, text),
                        other => (mime, other.to_string()),
                    })
                    .collect(),
            };
            return match codec::encode(&executed) {
                Ok(encoded) => Outcome::Value(Piece::Inline(encoded.into_vec())),
                Err(error) => {
                    Outcome::Failed(refused(format!("its result can't be passed on: {error}")))
                }
            };
        }
        Outcome::Value(match content.file.or(snippet.file) {
            Some(InFile { path, length }) => Piece::File {
                path: self.adopt(path, out),
                length,
            },
            None => Piece::Inline(
                buffers
                    .into_iter()
                    .next()
                    .map(Vec::from)
                    .unwrap_or_default(),
            ),
        })
    }

    /// The place of a task's panic, in words for users; nothing if it is none that a user would know.
    pub(in super::super) fn on_place(&mut self, id: u64, place: Option<Place>, out: &mut Out) {
        let Some(mut done) = self.placing.remove(&id) else {
            return;
        };
        if let (Outcome::Failed(failure), Some(place)) = (&mut done.outcome, place) {
            failure.place = Some(place);
        }
        self.tell(done, out);
    }

    /// A task's engine has gone, and no reply will come.
    pub(super) fn lose_with_engine(&mut self, id: u64, out: &mut Out) {
        let reply = self.tasks.get_mut(&id).and_then(|task| task.reply.take());
        if let Some(reply) = reply {
            return self.end(id, *reply, out);
        }
        let Some(task) = self.tasks.remove(&id) else {
            return;
        };
        self.release(&task, false, out);
        if task.orphan {
            return;
        }
        let done = Done {
            id,
            engine: task.engine,
            submitted: task.group.submitted,
            started: 0.0,
            completed: 0.0,
            outcome: Outcome::Failed(died(task.engine, task.group.retries)),
        };
        self.tell(done, out);
    }

    /// What a task had is free. `over`: its engine reads it no more.
    fn release(&mut self, task: &Task, over: bool, out: &mut Out) {
        if let Some((path, length)) = &task.file {
            let work = FileWork::discard(path.clone(), *length, over);
            out.files.push(work);
        }
        for id in task.group.shared.iter().chain(&task.argument) {
            self.leave(*id, over, out);
        }
    }

    /// Tells the program. A value in a file gets a second name first, for copies of the program.
    pub(super) fn tell(&mut self, done: Done, out: &mut Out) {
        if let Outcome::Value(Piece::File { path, .. }) = &done.outcome {
            let to = self.file();
            out.files.push(FileWork::Link {
                from: path.clone(),
                to: to.clone(),
            });
            self.links.insert(done.id, to);
        }
        out.news.push(News::Done(done));
    }

    /// The program was told: that is kept for copies of it.
    pub(in super::super) fn told(&mut self, news: Vec<News>, out: &mut Out) {
        for news in news {
            let News::Done(mut done) = news else {
                continue;
            };
            if let Outcome::Value(Piece::File { path, .. }) = &mut done.outcome {
                match self.links.remove(&done.id) {
                    Some(link) => *path = link,
                    None => continue,
                }
            }
            let gone = self.kept.add(done);
            out.files.extend(gone.into_iter().map(FileWork::Remove));
        }
    }
}

/// Whether the engine says after this reply when all of the task's output has come.
fn awaits_idle(kind: Kind, reply: &PostReply) -> bool {
    match kind {
        Kind::Call if reply.metadata.printed => true,
        Kind::Variable => false,
        // Nothing was printed, or nobody but the engine says so.
        _ if reply.metadata.status.as_deref() == Some("ok") => kind == Kind::Execute,
        _ => {
            let content: Content = serde_json::from_slice(&reply.content).unwrap_or_default();
            content.status == "error" && !content.engine_info.is_empty()
        }
    }
}

fn completed(metadata: &PostMetadata) -> f64 {
    seconds(metadata.completed.as_deref())
}

/// A failure, by what the engine or the controller says.
fn failed(content: Content, engine: Option<u32>, retries: u32) -> Failure {
    let kind = match content.ename.as_str() {
        "EngineError" => return died(engine, retries),
        "panic" => FailureKind::Panic,
        "TaskAborted" => FailureKind::Aborted,
        "TaskTimeout" | "DependencyTimeout" => FailureKind::Timeout,
        "ImpossibleDependency" | "InvalidDependency" => FailureKind::Dependency,
        "QueueFull" => FailureKind::Refused,
        _ => FailureKind::Error,
    };
    Failure {
        kind,
        place: content.location.map(|at| Place {
            file: at.file,
            line: at.line,
            text: None,
        }),
        ename: content.ename,
        evalue: content.evalue,
        traceback: content.traceback,
    }
}

fn died(engine: Option<u32>, retries: u32) -> Failure {
    let engine = engine.map_or_else(
        || "its engine".to_owned(),
        |engine| format!("engine {engine}"),
    );
    let what = match retries {
        0 => {
            "it may have run in part, and is not tried again without `retries` of a load-balanced view"
        }
        _ => "its retries are used up",
    };
    failure(
        FailureKind::Engine,
        "EngineError",
        format!("{engine} died while it had the task: {what}"),
    )
}
