//! What happens between two cells: the next one shows it.

use cluster::executor::Kept;
use runtime::Stream;
use std::collections::VecDeque;
use std::io::{Read, Seek, Write};
use tempfile::SpooledTempFile;

/// Output between two cells that is kept in memory, in bytes.
const IN_MEMORY: usize = 8 << 20;
/// Output that is read back at a time, in bytes.
const CHUNK: usize = 1 << 20;

/// What happened between two cells, oldest first.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    /// Output in its order; large amounts of it in a file.
    output: Option<SpooledTempFile>,
    pieces: VecDeque<(Stream, usize)>,
    /// Shown after the output.
    notes: VecDeque<String>,
    is_read: bool,
}

impl Backlog {
    pub(super) fn add(&mut self, kept: Kept) {
        match kept {
            Kept::Output { stream, bytes } => self.write(stream, &bytes),
            Kept::Note(text) => self.notes.push_back(text),
        }
    }

    fn write(&mut self, stream: Stream, bytes: &[u8]) {
        let file = self
            .output
            .get_or_insert_with(|| SpooledTempFile::new(IN_MEMORY));
        if let Err(error) = file.write_all(bytes) {
            self.notes.push_back(format!(
                "Output between two cells is lost, since it could not be kept: {error}\n"
            ));
            return;
        }
        match self.pieces.back_mut() {
            Some((last, length)) if *last == stream => *length += bytes.len(),
            _ => self.pieces.push_back((stream, bytes.len())),
        }
    }

    /// Removes and returns the oldest. Nothing is added between the first call and the one that returns `None`.
    pub(super) fn take(&mut self) -> Option<Kept> {
        if let Some(output) = self.read() {
            return Some(output);
        }
        if let Some(note) = self.notes.pop_front() {
            return Some(Kept::Note(note));
        }
        *self = Backlog::default();
        None
    }

    fn read(&mut self) -> Option<Kept> {
        let file = self.output.as_mut()?;
        if !std::mem::replace(&mut self.is_read, true) {
            file.rewind().ok()?;
        }
        let (stream, left) = self.pieces.front_mut()?;
        let stream = *stream;
        let mut bytes = vec![0; CHUNK.min(*left)];
        file.read_exact(&mut bytes).ok()?;
        *left -= bytes.len();
        if *left == 0 {
            self.pieces.pop_front();
        }
        let bytes = bytes.into();
        Some(Kept::Output { stream, bytes })
    }
}
