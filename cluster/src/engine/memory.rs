//! Files in memory by which engines and programs of one machine give each other what is large.

use std::path::PathBuf;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

use protocol::machine::{SHARED_MEMORY, hostname, shared_memory};
use runtime::{Call, Data, Piece};
use serde::Deserialize;
use uuid::Uuid;

/// A name in memory that nobody else has. It says which process made it, so that others can remove what the dead have left.
pub(super) fn memory_file() -> PathBuf {
    static START: LazyLock<String> = LazyLock::new(|| {
        let (process, noise) = (std::process::id(), Uuid::new_v4().simple());
        format!("{SHARED_MEMORY}/chorus-piece-{process}-{noise}")
    });
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    PathBuf::from(format!("{}-{count}", *START))
}

/// The memory that a request's sender sees, by its name ([`shared_memory`]); nothing if it doesn't say.
#[derive(Debug, Default, Deserialize)]
#[serde(transparent)]
pub(super) struct Memory(Option<String>);

impl Memory {
    /// Whether the sender can open files here.
    pub(super) fn is_here(&self) -> bool {
        self.0.is_some() && self.0.as_deref() == shared_memory()
    }

    fn is_elsewhere(&self) -> bool {
        self.0.is_some() && !self.is_here()
    }

    /// Why a call can't be made here, in words for its sender: something that it needs is on another machine.
    pub(super) fn lacks(&self, call: &Call) -> Option<String> {
        if !self.is_elsewhere() {
            return None;
        }
        if !call.artifact.exists() {
            return Some(format!(
                "This engine runs on {}, where the code of the closure is not: {} is a file of the notebook's machine. Closures go to engines \
                 that see it; leave this one out of the view's targets, or run text on it, with `%px`, `%%px` or `execute`.",
                hostname(),
                call.artifact.display()
            ));
        }
        call.pieces.iter().find_map(|piece| match piece {
            Piece::Once(Data::File { length, .. })
            | Piece::Keep {
                data: Data::File { length, .. },
                ..
            } => Some(self.far(*length)),
            _ => None,
        })
    }

    /// Why a value can't be had here, if that is so.
    pub(super) fn lacks_file(&self, length: Option<u64>) -> Option<String> {
        self.is_elsewhere()
            .then(|| self.far(length.unwrap_or_default()))
    }

    fn far(&self, length: u64) -> String {
        format!(
            "This engine runs on {}, which does not share the memory of the notebook's machine: a value of {length} bytes can't get here. \
             Have the engine read or compute it, with `%px` or inside the closure.",
            hostname()
        )
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU64;

    use runtime::RunId;

    use super::*;

    fn call(artifact: &str, pieces: Vec<Piece>) -> Call {
        Call {
            id: RunId(1),
            artifact: artifact.into(),
            offset: 0,
            pieces,
            answer_file: None,
        }
    }

    #[test]
    fn what_is_on_another_machine_is_said_to_be() {
        let file = || Data::File {
            path: "/dev/shm/x".into(),
            start: 0,
            length: 9,
        };
        let keep = || Piece::Keep {
            id: NonZeroU64::MIN,
            data: file(),
        };
        let here = Memory(shared_memory().map(str::to_owned));
        assert!(here.is_here() && !Memory::default().is_here());
        for memory in [here, Memory::default()] {
            assert_eq!(memory.lacks(&call("/nothing", vec![keep()])), None);
            assert_eq!(memory.lacks_file(Some(9)), None);
        }
        let other = Memory(Some("other".to_owned()));
        assert!(!other.is_here());
        assert_eq!(
            other.lacks(&call("/", vec![Piece::Once(Data::Bytes("x".into()))])),
            None
        );
        let said = other.lacks(&call("/nothing", Vec::new())).unwrap();
        assert!(said.contains("/nothing") && said.contains("%px"), "{said}");
        for piece in [keep(), Piece::Once(file())] {
            let said = other.lacks(&call("/", vec![piece])).unwrap();
            assert!(said.contains("9 bytes"), "{said}");
        }
    }
}
