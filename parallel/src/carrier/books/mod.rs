//! The books of a session: its tasks, its shared values, the files that belong to it, and what a copy of the program might ask for again.
//!
//! What happens goes in, with the time; what is to be done comes out ([`Out`]). No socket, no clock, no file is touched here.
//! How a reply becomes an outcome is `ends`, how a session goes on in a copy `resume`, values that several tasks use are `shared`.

mod ends;
mod resume;
mod shared;
#[cfg(test)]
mod tests;

pub(super) use ends::too_long;

use super::kept::Kept;
use super::texts::{self, Content, Data};
use crate::controller::{Output, Post, PostKind, PostReply, Posted};
use crate::wire::{
    self, Done, FILES, Failure, FailureKind, News, Outcome, Piece, Route, SPARE, Span, Work,
};
use bytes::Bytes;
use protocol::machine::SHARED_MEMORY;
use shared::Shared;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;

/// How long the end of a task's output may be awaited after its reply, in seconds. Engines say it right after.
const LAST_OUTPUT: f64 = 5.0;

/// What is to be done, each list in its order, and the files before everything else.
#[derive(Debug, Default)]
pub(super) struct Out {
    pub(super) files: Vec<FileWork>,
    pub(super) posts: Vec<Post>,
    pub(super) news: Vec<News>,
    pub(super) shown: Vec<Shown>,
    /// Tasks that panicked, and where by the artifact's words: [`Books::on_place`] wants to know what is there.
    pub(super) places: Vec<(u64, String, u32)>,
}

/// Something to do with a file.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum FileWork {
    Remove(PathBuf),
    /// Nobody reads it any more, and it is of a size that programs might want.
    Keep(PathBuf),
    Rename {
        from: PathBuf,
        to: PathBuf,
    },
    Link {
        from: PathBuf,
        to: PathBuf,
    },
}

impl FileWork {
    /// For a file that isn't needed. `over`: nobody reads it any more.
    fn discard(path: PathBuf, length: u64, over: bool) -> FileWork {
        match over && SPARE.contains(&length) {
            true => FileWork::Keep(path),
            false => FileWork::Remove(path),
        }
    }
}

/// What an engine shows for a task.
#[derive(Debug)]
pub(super) struct Shown {
    pub(super) task: u64,
    pub(super) engine: u32,
    pub(super) output: Output,
}

/// What a submission's tasks have in common.
#[derive(Debug)]
pub(super) struct Group {
    content: Content,
    metadata: Bytes,
    shared: Vec<u64>,
    kind: Kind,
    balanced: bool,
    retries: u32,
    submitted: f64,
    /// The cell that submitted it, as it were.
    epoch: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Call,
    /// A snippet whose outcome is what it shows.
    Execute,
    /// A snippet that takes or gives a variable.
    Variable,
}

/// A task that has not ended.
#[derive(Debug)]
struct Task {
    group: Arc<Group>,
    engine: Option<u32>,
    /// Its arguments, if they are in a file, and how many bytes that has.
    file: Option<(PathBuf, u64)>,
    /// Its arguments, if they are a shared value.
    argument: Option<u64>,
    /// The reply, while the end of its output is awaited.
    reply: Option<Box<PostReply>>,
    /// The last attempt of which the engine said that nothing more comes.
    idle: Option<u32>,
    /// Nobody asks for its outcome.
    orphan: bool,
}

/// See the module.
pub(super) struct Books {
    /// The message id of a task.
    id: Box<dyn Fn(u64) -> String + Send>,
    /// The engines there are, by number.
    engines: BTreeMap<u32, String>,
    /// The numbers of all engines there were.
    numbers: HashMap<String, u32>,
    tasks: HashMap<u64, Task>,
    shared: HashMap<u64, Shared>,
    kept: Kept,
    /// The second names of values in files that are being told.
    links: HashMap<u64, PathBuf>,
    /// Tasks whose panic's place is looked up.
    placing: HashMap<u64, Done>,
    /// Tasks whose output's end is awaited, and until when.
    closing: VecDeque<(f64, u64)>,
    /// All numbers that were tasks, in ascending order.
    spans: Vec<Span>,
    /// The next number that nobody has used.
    next: u64,
    epoch: u64,
    /// How the names of files begin, and the number of the next one.
    files: (String, u64),
}

impl std::fmt::Debug for Books {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Books")
            .field("tasks", &self.tasks.len())
            .field("shared", &self.shared.len())
            .finish_non_exhaustive()
    }
}

impl Books {
    /// The books of a session whose numbers begin at `first`. `id` gives the message id of a task; `noise` makes the names of files
    /// nobody's.
    pub(super) fn new(
        first: u64,
        id: impl Fn(u64) -> String + Send + 'static,
        noise: &str,
    ) -> Books {
        Books {
            id: Box::new(id),
            engines: BTreeMap::new(),
            numbers: HashMap::new(),
            tasks: HashMap::new(),
            shared: HashMap::new(),
            kept: Kept::default(),
            links: HashMap::new(),
            placing: HashMap::new(),
            closing: VecDeque::new(),
            spans: Vec::new(),
            next: first,
            epoch: 0,
            files: (
                format!("{SHARED_MEMORY}/{FILES}{}-{noise}-", std::process::id()),
                0,
            ),
        }
    }

    /// The next number that nobody has used.
    pub(super) fn next(&self) -> u64 {
        self.next
    }

    /// The engines there are.
    pub(super) fn engines(&self) -> impl Iterator<Item = u32> {
        self.engines.keys().copied()
    }

    /// A new cell begins: its tasks are told from those before.
    pub(super) fn begin(&mut self, epoch: u64) {
        self.epoch = epoch;
    }

    /// Whether there is nothing more to come.
    pub(super) fn is_idle(&self) -> bool {
        self.tasks.is_empty() && self.placing.is_empty()
    }

    fn file(&mut self) -> PathBuf {
        let (begin, number) = &mut self.files;
        *number += 1;
        PathBuf::from(format!("{begin}{number}"))
    }

    /// Makes a file one's own: whoever made it may be gone before it is needed.
    fn adopt(&mut self, from: PathBuf, out: &mut Out) -> PathBuf {
        if !from.starts_with(SHARED_MEMORY) {
            // The carrier's own, made where there was room.
            return from;
        }
        let to = self.file();
        out.files.push(FileWork::Rename {
            from,
            to: to.clone(),
        });
        to
    }

    /// The program used this number.
    pub(super) fn used(&mut self, number: u64) {
        self.next = self.next.max(number.saturating_add(1));
    }

    /// Prepares a submission. The error is that of each of its tasks.
    pub(super) fn open(
        &self,
        now: f64,
        work: &Work,
        shared: Vec<u64>,
        route: &Route,
        label: Option<&str>,
    ) -> Result<Arc<Group>, Box<Failure>> {
        let data = shared
            .iter()
            .map(|id| match self.shared.get(id) {
                Some(shared) => Ok((*id, &shared.data)),
                None => {
                    let reason = format!("the shared value {id} did not come");
                    Err(Box::new(ends::refused(reason)))
                }
            })
            .collect::<Result<Vec<_>, Box<Failure>>>()?;
        let content = Content::of(work, &data);
        let identity = |engine: u32| self.engines.get(&engine).cloned();
        let metadata = texts::metadata(route, label, identity, &self.id)
            .map_err(|engine| Box::new(self.no_engine(engine)))?;
        Ok(Arc::new(Group {
            content,
            metadata,
            shared,
            kind: match work {
                Work::Call { .. } => Kind::Call,
                Work::Snippet {
                    takes: None,
                    gives: None,
                    ..
                } => Kind::Execute,
                Work::Snippet { .. } => Kind::Variable,
            },
            balanced: matches!(route, Route::Balanced { .. }),
            retries: match route {
                Route::Balanced { retries, .. } => *retries,
                Route::Direct => 0,
            },
            submitted: now,
            epoch: self.epoch,
        }))
    }

    fn no_engine(&self, engine: u32) -> Failure {
        let known: Vec<String> = self.engines.keys().map(u32::to_string).collect();
        let known = match known.as_slice() {
            [] => "there are none".to_owned(),
            some => format!("there are {}", some.join(", ")),
        };
        ends::failure(
            FailureKind::Engine,
            "EngineError",
            format!("there is no engine {engine} (any more): {known}"),
        )
    }

    /// A task of a submission.
    pub(super) fn submit(&mut self, group: &Arc<Group>, task: wire::Task, out: &mut Out) {
        let wire::Task {
            id,
            engine,
            arguments,
        } = task;
        self.used(id);
        self.note(id);
        let identity = match (group.balanced, engine) {
            (true, _) => None,
            (false, Some(engine)) => match self.engines.get(&engine) {
                Some(identity) => Some(Bytes::from(identity.clone())),
                None => {
                    let failure = self.no_engine(engine);
                    return self.refuse(id, Some(engine), arguments, failure, out);
                }
            },
            (false, None) => {
                let failure = ends::refused("the task names no engine".to_owned());
                return self.refuse(id, None, arguments, failure, out);
            }
        };
        let (mut file, mut argument) = (None, None);
        let data = match arguments {
            Piece::Inline(bytes) => Ok(Data::Bytes(bytes.into())),
            Piece::File { path, length } => {
                let path = self.adopt(path, out);
                file = Some((path.clone(), length));
                Ok(Data::File {
                    path,
                    start: 0,
                    length,
                })
            }
            Piece::Shared { id: shared } => {
                argument = Some(shared);
                self.whole(shared)
            }
            Piece::Part {
                id: shared,
                start,
                length,
            } => {
                argument = Some(shared);
                self.stretch(shared, start, length, group.kind)
            }
        };
        let data = match data {
            Ok(data) => data,
            Err(reason) => {
                let nothing = Piece::Inline(Vec::new());
                return self.refuse(id, engine, nothing, ends::refused(reason), out);
            }
        };
        for id in group.shared.iter().chain(&argument) {
            if let Some(shared) = self.shared.get_mut(id) {
                shared.users += 1;
            }
        }
        let (content, buffers) = group.content.with(&data);
        out.posts.push(Post {
            number: id,
            engine: identity,
            kind: match group.kind {
                Kind::Call => PostKind::Apply,
                Kind::Execute | Kind::Variable => PostKind::Execute,
            },
            metadata: group.metadata.clone(),
            content,
            buffers,
        });
        let task = Task {
            group: Arc::clone(group),
            engine: engine.filter(|_| !group.balanced),
            file,
            argument,
            reply: None,
            idle: None,
            orphan: false,
        };
        self.tasks.insert(id, task);
    }

    /// A task ends before it began.
    pub(super) fn refuse(
        &mut self,
        id: u64,
        engine: Option<u32>,
        arguments: Piece,
        failure: Failure,
        out: &mut Out,
    ) {
        self.used(id);
        self.note(id);
        if let Piece::File { path, .. } = arguments {
            out.files.push(FileWork::Remove(path));
        }
        let done = Done {
            id,
            engine,
            submitted: 0.0,
            started: 0.0,
            completed: 0.0,
            outcome: Outcome::Failed(failure),
        };
        self.tell(done, out);
    }

    /// The number is a task's.
    fn note(&mut self, id: u64) {
        match self.spans.last_mut() {
            Some(last) if last.first + last.count == id => last.count += 1,
            Some(last) if last.ids().contains(&id) => {}
            _ => self.spans.push(Span {
                first: id,
                count: 1,
            }),
        }
    }

    /// Something came from the cluster.
    pub(super) fn on_posted(&mut self, now: f64, posted: Posted, out: &mut Out) {
        match posted {
            Posted::Reply { number, reply } => self.on_reply(now, number, reply, out),
            Posted::Busy { number, engine } => {
                let engine = self.numbers.get(&engine).copied();
                if let (Some(task), Some(engine)) = (self.tasks.get(&number), engine)
                    && !task.orphan
                {
                    out.news.push(News::Started {
                        id: number,
                        engine,
                        at: now,
                    });
                }
            }
            Posted::Idle { number, attempt } => {
                let Some(task) = self.tasks.get_mut(&number) else {
                    return;
                };
                // Attempts are on different engines, whose messages have no order.
                task.idle = task.idle.max(Some(attempt));
                if let Some(reply) = task.reply.take_if(|it| it.metadata.attempt == attempt) {
                    self.end(number, *reply, out);
                }
            }
            Posted::Output {
                number,
                engine,
                output,
            } => {
                let Some(task) = self.tasks.get(&number) else {
                    return;
                };
                let engine = self.numbers.get(&engine).copied().or(task.engine);
                out.shown.push(Shown {
                    task: number,
                    engine: engine.unwrap_or_default(),
                    output,
                });
            }
        }
    }

    /// There are these engines now. What those that have gone were sent directly has gone with them.
    pub(super) fn on_engines(&mut self, now: BTreeMap<u32, String>, out: &mut Out) {
        let gone: Vec<u32> = self
            .engines
            .iter()
            .filter(|(id, identity)| now.get(id) != Some(identity))
            .map(|(id, _)| *id)
            .collect();
        for (id, identity) in &now {
            self.numbers.insert(identity.clone(), *id);
        }
        self.engines = now;
        if gone.is_empty() {
            return;
        }
        let mut lost: Vec<u64> = self
            .tasks
            .iter()
            .filter(|(_, task)| task.engine.is_some_and(|engine| gone.contains(&engine)))
            .map(|(id, _)| *id)
            .collect();
        lost.sort_unstable();
        for id in lost {
            self.lose_with_engine(id, out);
        }
    }

    /// What is open, or what of these is: balanced tasks, and direct ones with their engines.
    pub(super) fn open_tasks(&self, of: Option<&[Span]>) -> Vec<(u64, Option<u32>)> {
        let one = |id: u64| Some((id, self.tasks.get(&id)?.engine));
        let mut open: Vec<_> = match of {
            Some(spans) => spans
                .iter()
                .flat_map(|span| {
                    // A span may be longer than anything there is.
                    let ids = span.first..span.ids().end.min(self.next);
                    ids.filter_map(one)
                })
                .collect(),
            None => self.tasks.keys().copied().filter_map(one).collect(),
        };
        open.sort_unstable();
        open
    }

    /// What is open of the tasks that were submitted since the last cell began.
    pub(super) fn open_of_this_cell(&self) -> Vec<(u64, Option<u32>)> {
        let mut open: Vec<_> = self
            .tasks
            .iter()
            .filter(|(_, task)| task.group.epoch == self.epoch)
            .map(|(id, task)| (*id, task.engine))
            .collect();
        open.sort_unstable();
        open
    }

    /// Tasks that have ended, or those of these that have.
    pub(super) fn ended_tasks(&self, of: Option<&[Span]>) -> Vec<u64> {
        let ids = of.unwrap_or(&self.spans).iter().flat_map(|span| {
            let ids = span.first..span.ids().end.min(self.next);
            ids.filter(|id| !self.tasks.contains_key(id))
        });
        ids.collect()
    }

    /// When [`Self::on_time`] is to be called.
    pub(super) fn deadline(&self) -> Option<f64> {
        self.closing.front().map(|(until, _)| *until)
    }

    /// Gives up waiting for the end of outputs that are overdue.
    pub(super) fn on_time(&mut self, now: f64, out: &mut Out) {
        while let Some((until, id)) = self.closing.front().copied()
            && until <= now
        {
            self.closing.pop_front();
            let reply = self.tasks.get_mut(&id).and_then(|task| task.reply.take());
            if let Some(reply) = reply {
                tracing::warn!(id, "the end of a task's output did not come");
                self.end(id, *reply, out);
            }
        }
    }

    /// Everything that the session has besides its memory.
    pub(super) fn close(&mut self, out: &mut Out) {
        let tasks = self.tasks.drain();
        let files = tasks.filter_map(|(_, task)| Some(task.file?.0));
        let shared = self.shared.drain().filter_map(|(_, it)| match it.data {
            Data::File { path, .. } => Some(path),
            Data::Bytes(_) => None,
        });
        let links = self.links.drain().map(|(_, path)| path);
        let kept = self.kept.clear();
        let all = files.chain(shared).chain(links).chain(kept);
        out.files.extend(all.map(FileWork::Remove));
        self.placing.clear();
        self.closing.clear();
    }
}
