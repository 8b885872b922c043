//! Outcomes that a program has been told. A copy of it, made before it took them, may ask for them again.

use crate::wire::{Done, Outcome, Piece};
use std::collections::{HashMap, VecDeque};
use std::path::PathBuf;

/// So many bytes are kept; the oldest go first. What a cell takes from its beginning to its end is rarely more, and what is gone is
/// told as lost.
const MOST: u64 = 256 << 20;
/// What an outcome takes besides its value, in bytes, roughly.
const BOOKS: u64 = 200;

/// See the module. Values in files are further links to them, which belong to this.
#[derive(Debug, Default)]
pub(super) struct Kept {
    outcomes: HashMap<u64, Done>,
    order: VecDeque<u64>,
    bytes: u64,
}

fn bytes(done: &Done) -> u64 {
    BOOKS
        + match &done.outcome {
            Outcome::Value(Piece::Inline(bytes)) => bytes.len() as u64,
            Outcome::Value(Piece::File { length, .. }) => *length,
            _ => 0,
        }
}

fn file(done: Done) -> Option<PathBuf> {
    match done.outcome {
        Outcome::Value(Piece::File { path, .. }) => Some(path),
        _ => None,
    }
}

impl Kept {
    /// Keeps an outcome; gives the files of those that have to go for it.
    pub(super) fn add(&mut self, done: Done) -> Vec<PathBuf> {
        self.bytes += bytes(&done);
        self.order.push_back(done.id);
        let before = self.outcomes.insert(done.id, done);
        let mut gone: Vec<PathBuf> = before.into_iter().filter_map(|it| self.leave(it)).collect();
        while self.bytes > MOST
            && let Some(oldest) = self.order.pop_front()
        {
            gone.extend(self.take(oldest).and_then(file));
        }
        gone
    }

    fn leave(&mut self, done: Done) -> Option<PathBuf> {
        self.bytes -= bytes(&done);
        file(done)
    }

    /// An outcome that is told again.
    pub(super) fn take(&mut self, id: u64) -> Option<Done> {
        let done = self.outcomes.remove(&id)?;
        self.bytes -= bytes(&done);
        Some(done)
    }

    /// Forgets all; gives their files.
    pub(super) fn clear(&mut self) -> Vec<PathBuf> {
        let all = std::mem::take(self);
        all.outcomes.into_values().filter_map(file).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn done(id: u64, length: u64) -> Done {
        Done {
            id,
            engine: None,
            submitted: 0.0,
            started: 0.0,
            completed: 0.0,
            outcome: Outcome::Value(Piece::File {
                path: format!("/dev/shm/{id}").into(),
                length,
            }),
        }
    }

    #[test]
    fn the_oldest_go_first() {
        let mut kept = Kept::default();
        assert!(kept.add(done(1, MOST / 2)).is_empty());
        assert!(kept.add(done(2, MOST / 4)).is_empty());
        assert_eq!(kept.add(done(3, MOST / 2)), [PathBuf::from("/dev/shm/1")]);
        assert!(kept.take(1).is_none() && kept.take(2).is_some() && kept.take(2).is_none());
        assert_eq!(kept.add(done(3, 5)), [PathBuf::from("/dev/shm/3")]);
        assert_eq!(kept.bytes, BOOKS + 5);
        assert_eq!(kept.clear(), [PathBuf::from("/dev/shm/3")]);
        assert_eq!(kept.bytes, 0);
    }
}
