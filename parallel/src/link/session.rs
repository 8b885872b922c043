//! What a client knows, and how news changes it; no socket here.

use crate::batch::Batch;
use crate::wire::{Answer, Done, Down, News, Outcome, Resume, Span, Welcome};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::{Arc, Weak};

/// One client's view of its cluster.
#[derive(Debug)]
pub(crate) struct Session {
    name: String,
    pub(crate) cluster: String,
    /// In ascending order.
    pub(crate) engines: Vec<u32>,
    /// Why there is no connection any more.
    pub(crate) lost: Option<String>,
    /// Where a file may lie that can be written over.
    pub(super) spare: Option<PathBuf>,
    next: u64,
    /// By the number of the first task. Batches that nobody holds any more are swept away from time to time.
    batches: BTreeMap<u64, Weak<Batch>>,
    sweep_at: usize,
    questions: HashMap<u64, Option<Answer>>,
    shared: BTreeSet<u64>,
}

const SWEEP: usize = 64;

impl Session {
    pub(super) fn new(welcome: Welcome) -> Session {
        Session {
            name: welcome.session,
            cluster: welcome.cluster,
            engines: welcome.engines,
            lost: None,
            spare: welcome.spare,
            next: welcome.first,
            batches: BTreeMap::new(),
            sweep_at: SWEEP,
            questions: HashMap::new(),
            shared: BTreeSet::new(),
        }
    }

    /// Draws `count` numbers; gives the first.
    pub(crate) fn draw(&mut self, count: u64) -> u64 {
        let first = self.next;
        self.next += count;
        first
    }

    pub(crate) fn share(&mut self) -> u64 {
        let id = self.draw(1);
        self.shared.insert(id);
        id
    }

    pub(crate) fn unshare(&mut self, id: u64) {
        self.shared.remove(&id);
    }

    /// Tasks that will be submitted.
    pub(crate) fn add(&mut self, items: Vec<usize>) -> Arc<Batch> {
        if self.batches.len() >= self.sweep_at {
            self.batches.retain(|_, batch| batch.strong_count() > 0);
            self.sweep_at = SWEEP.max(2 * self.batches.len());
        }
        let first = self.draw(items.len() as u64);
        let batch = Arc::new(Batch::new(first, items));
        if let Some(reason) = &self.lost {
            batch.lose(reason);
        }
        self.batches.insert(first, Arc::downgrade(&batch));
        batch
    }

    pub(super) fn ask(&mut self) -> u64 {
        let id = self.draw(1);
        self.questions.insert(id, None);
        id
    }

    pub(super) fn answer(&mut self, id: u64) -> Option<Answer> {
        let answer = self.questions.get_mut(&id)?.take()?;
        self.questions.remove(&id);
        Some(answer)
    }

    pub(super) fn forget(&mut self, id: u64) {
        self.questions.remove(&id);
    }

    pub(super) fn heard(&mut self, down: Down) {
        match down {
            Down::Tasks(news) => {
                for news in news {
                    self.news(news);
                }
            }
            Down::Engines(engines) => self.engines = engines,
            Down::Output {
                task,
                engine,
                stderr,
                text,
            } => {
                if let Some(batch) = self.batch(task) {
                    batch.printed(task, engine, stderr, text);
                }
            }
            Down::Reply { id, answer } => {
                if let Some(place) = self.questions.get_mut(&id) {
                    *place = Some(answer);
                }
            }
            Down::Gone { reason } | Down::Refused { reason } => self.lose(&reason),
            Down::Welcome(_) => self.lose("the carrier greeted twice"),
        }
    }

    fn news(&mut self, news: News) {
        match news {
            News::Started { id, engine, at } => {
                if let Some(batch) = self.batch(id) {
                    batch.started(id, engine, at);
                }
            }
            News::Done(done) => match self.batch(done.id) {
                Some(batch) => batch.ended(done),
                None => discard(done),
            },
        }
    }

    fn batch(&self, task: u64) -> Option<Arc<Batch>> {
        let (_, batch) = self.batches.range(..=task).next_back()?;
        batch.upgrade().filter(|batch| batch.contains(task))
    }

    /// The connection ended: what is open fails.
    pub(super) fn lose(&mut self, reason: &str) {
        self.lost.get_or_insert_with(|| reason.to_owned());
        for batch in self.batches.values().filter_map(Weak::upgrade) {
            batch.lose(reason);
        }
        self.batches.clear();
    }

    /// What a copy of this process tells when it connects.
    pub(super) fn resume(&self) -> Resume {
        Resume {
            session: self.name.clone(),
            open: self
                .batches
                .values()
                .filter_map(Weak::upgrade)
                .flat_map(|batch| batch.open())
                .collect::<Vec<Span>>(),
            shared: self.shared.iter().copied().collect(),
        }
    }

    pub(super) fn resumed(&mut self, welcome: Welcome) {
        self.name = welcome.session;
        self.cluster = welcome.cluster;
        self.engines = welcome.engines;
        self.spare = welcome.spare;
        self.next = self.next.max(welcome.first);
        self.questions.clear();
    }
}

/// Nobody wants it any more.
pub(crate) fn discard(done: Done) {
    if let Outcome::Value(piece) = done.outcome {
        piece.discard();
    }
}
