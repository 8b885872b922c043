//! What happens between two cells: the next one shows it.

use cluster::output::Gatherer;

/// What happened between two cells.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    /// Output in its order; large amounts of it in a file.
    output: Option<tempfile::SpooledTempFile>,
    pieces: Vec<(runtime::Stream, usize)>,
    pub(super) notes: Vec<String>,
}

/// Output between two cells that is kept in memory, in bytes.
const BACKLOG_IN_MEMORY: usize = 8 << 20;

impl Backlog {
    pub(super) fn add(&mut self, stream: runtime::Stream, bytes: &[u8]) {
        use std::io::Write;
        let file = self
            .output
            .get_or_insert_with(|| tempfile::SpooledTempFile::new(BACKLOG_IN_MEMORY));
        if let Err(error) = file.write_all(bytes) {
            self.notes.push(format!(
                "Output between two cells is lost, since it could not be kept: {error}\n"
            ));
            return;
        }
        match self.pieces.last_mut() {
            Some((last, length)) if *last == stream => *length += bytes.len(),
            _ => self.pieces.push((stream, bytes.len())),
        }
    }

    pub(super) fn pass_on(self, gatherer: &mut Gatherer) {
        use std::io::{Read, Seek};
        if let Some(mut file) = self.output
            && file.rewind().is_ok()
        {
            let mut buffer = vec![0; 1 << 20];
            for (stream, mut length) in self.pieces {
                while length > 0 {
                    let part = length.min(buffer.len());
                    if file.read_exact(&mut buffer[..part]).is_err() {
                        break;
                    }
                    gatherer.bytes(stream, &buffer[..part]);
                    length -= part;
                }
            }
        }
        for note in self.notes {
            gatherer.note(note);
        }
    }
}
