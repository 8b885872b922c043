//! Values that several tasks use.

use super::{Books, Data, FileWork, Kind, Out};
use crate::wire::Piece;
use std::collections::hash_map::Entry;

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) data: Data,
    /// Tasks that have not ended and use it.
    pub(super) users: usize,
    /// An engine may read it even after the last of them has ended, or the program write it.
    in_use: bool,
    /// No further task will.
    dropped: bool,
}

impl Books {
    /// A value for several tasks.
    pub(in super::super) fn share(&mut self, id: u64, piece: Piece, out: &mut Out) {
        self.used(id);
        let data = match piece {
            Piece::Inline(bytes) => Data::Bytes(bytes.into()),
            Piece::File { path, length } => Data::File {
                path: self.adopt(path, out),
                start: 0,
                length,
            },
            Piece::Shared { id } | Piece::Part { id, .. } => {
                tracing::warn!(id, "a shared value is said to be another one");
                return;
            }
        };
        let shared = Shared {
            data,
            users: 0,
            in_use: false,
            dropped: false,
        };
        self.shared.insert(id, shared);
    }

    fn came(&mut self, id: u64) -> Result<&mut Shared, String> {
        let shared = self.shared.get_mut(&id);
        shared.ok_or_else(|| format!("the shared value {id} did not come"))
    }

    /// A task's arguments, if they are a shared value; or why it has none.
    pub(super) fn whole(&mut self, id: u64) -> Result<Data, String> {
        self.came(id).map(|shared| shared.data.clone())
    }

    /// A task's arguments, if they are a stretch of a shared value's file; or why it has none. The file is as long as its stretches
    /// reach: when it came, the program had just begun to write it.
    pub(super) fn stretch(
        &mut self,
        id: u64,
        start: u64,
        length: u64,
        kind: Kind,
    ) -> Result<Data, String> {
        match &mut self.came(id)?.data {
            Data::File {
                path, length: all, ..
            } if kind == Kind::Call => {
                *all = (*all).max(start.saturating_add(length));
                Ok(Data::File {
                    path: path.clone(),
                    start,
                    length,
                })
            }
            _ => Err(format!(
                "the shared value {id} has no stretches for this task"
            )),
        }
    }

    /// No task uses it from now on.
    pub(in super::super) fn unshare(&mut self, id: u64, out: &mut Out) {
        if let Some(shared) = self.shared.get_mut(&id) {
            shared.dropped = true;
            self.forget(id, out);
        }
    }

    /// As [`Self::unshare`], for one whose program has gone, or so it seems: it may be writing it still.
    pub(super) fn give_up(&mut self, id: u64, out: &mut Out) {
        if let Some(shared) = self.shared.get_mut(&id) {
            shared.in_use = true;
        }
        self.unshare(id, out);
    }

    /// A task less uses a shared value. `over`: its engine reads it no more.
    pub(super) fn leave(&mut self, id: u64, over: bool, out: &mut Out) {
        if let Some(shared) = self.shared.get_mut(&id) {
            shared.users = shared.users.saturating_sub(1);
            shared.in_use |= !over;
            self.forget(id, out);
        }
    }

    /// Forgets a shared value that no task uses or will use.
    fn forget(&mut self, id: u64, out: &mut Out) {
        if let Entry::Occupied(entry) = self.shared.entry(id)
            && entry.get().users == 0
            && entry.get().dropped
        {
            let Shared { data, in_use, .. } = entry.remove();
            if let Data::File { path, length, .. } = data {
                out.files.push(FileWork::discard(path, length, !in_use));
            }
        }
    }
}
