//! A session that goes on in a copy of the program, or without one.

use super::ends::lost;
use super::{Books, Out};
use crate::wire::{Done, News, Outcome, Resume, Span};
use std::collections::HashSet;

impl Books {
    /// A copy of the program goes on with the session. Gives the tasks that it doesn't know, which are to be aborted where they wait.
    pub(in super::super) fn resume(
        &mut self,
        resume: &Resume,
        out: &mut Out,
    ) -> Vec<(u64, Option<u32>)> {
        // The copy may have used numbers that never came here.
        for span in &resume.open {
            self.next = self.next.max(span.ids().end);
        }
        let listed = |id: u64| {
            resume
                .open
                .iter()
                .any(|span: &Span| span.ids().contains(&id))
        };
        let mut unknown = Vec::new();
        for (id, task) in &mut self.tasks {
            task.orphan = !listed(*id);
            if task.orphan {
                unknown.push((*id, task.engine));
            }
        }
        self.placing.retain(|id, _| listed(*id));
        for id in resume.open.iter().flat_map(|span| span.ids()) {
            if self.tasks.contains_key(&id) || self.placing.contains_key(&id) {
                continue;
            }
            match self.kept.take(id) {
                // It is kept again: this copy may have copies of its own.
                Some(done) => self.tell(done, out),
                None => out.news.push(News::Done(Done {
                    id,
                    engine: None,
                    submitted: 0.0,
                    started: 0.0,
                    completed: 0.0,
                    outcome: Outcome::Failed(lost()),
                })),
            }
        }
        let wanted: HashSet<u64> = resume.shared.iter().copied().collect();
        let forgotten: Vec<u64> = self
            .shared
            .keys()
            .copied()
            .filter(|id| !wanted.contains(id))
            .collect();
        for id in forgotten {
            self.give_up(id, out);
        }
        unknown.sort_unstable();
        unknown
    }

    /// Nobody will ask for anything any more. Gives the tasks that are open, which are to be aborted where they wait.
    pub(in super::super) fn abandon(&mut self, out: &mut Out) -> Vec<(u64, Option<u32>)> {
        let nobody = Resume {
            session: String::new(),
            open: Vec::new(),
            shared: Vec::new(),
        };
        let open = self.resume(&nobody, out);
        self.settle(out);
        open
    }

    /// No copy that was made before now will go on: what was told need not be kept.
    pub(in super::super) fn settle(&mut self, out: &mut Out) {
        let files = self.kept.clear();
        out.files
            .extend(files.into_iter().map(super::FileWork::Remove));
    }
}
