//! What a snippet takes from whoever sent it, and gives back, besides text.
//!
//! An `execute_request` whose content has `chorus` comes from a program that moves variables:
//!
//! ```json
//! {"code": "..", "silent": true, "chorus": {
//!     "takes": {"name": "data", "buffer": 0},
//!     "gives": "sums",
//!     "shm": "2f1c..-1a"
//! }}
//! ```
//!
//! `takes`: one of the message's buffers, by index, or `"file": "/dev/shm/name", "length": 1000000` is put under this name into the folder
//! that the runtime's environment calls `CHORUS_PIECES`, before the snippet runs. `gives`: what is found there under that name
//! afterwards goes with the reply. `shm` names the memory that the sender sees, see
//! [`protocol::machine::shared_memory`]: an engine that sees another one gives no files.
//! Any of them may be absent. Files remain the sender's; the reply must be there before it removes them or writes over them.
//!
//! The content of a reply of status `ok` has a `chorus` then:
//! - with `gives`: `{}`, and the value is the one buffer; or, only with `shm`, `{"file": {"path": .., "length": ..}}`, which the receiver
//!   removes;
//! - otherwise `{"data": {..}}`, the snippet's result by MIME type, whether it was silent or not; empty if there is none.

use std::fs::{DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use protocol::Message;
use serde::Deserialize;
use serde_json::{Value, json};

use super::memory::{Memory, memory_file};

/// Values of more bytes than that go by files, where that is possible.
const LARGE: u64 = 256 * 1024;

/// What is of interest in an `execute_request`'s content.
#[derive(Debug, Deserialize)]
struct Content {
    chorus: Option<Exchange>,
}

/// What a snippet takes and gives.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Exchange {
    takes: Option<Takes>,
    gives: Option<String>,
    shm: Memory,
}

#[derive(Debug, Deserialize)]
struct Takes {
    name: String,
    buffer: Option<usize>,
    file: Option<PathBuf>,
    length: Option<u64>,
}

impl Exchange {
    /// What a request says of it, if it does.
    ///
    /// # Errors
    /// With what is wrong with the request, in words for its sender.
    pub(super) fn of(request: &Message) -> Result<Option<Self>, String> {
        let content: Content = request
            .parse()
            .map_err(|error| format!("the snippet's content has {error}"))?;
        let Some(exchange) = content.chorus else {
            return Ok(None);
        };
        let names = exchange.takes.iter().map(|takes| &takes.name);
        for name in names.chain(&exchange.gives) {
            if name.is_empty() || name.starts_with('.') || name.contains(['/', '\0']) {
                return Err(format!("{name:?} is no name of a variable"));
            }
        }
        Ok(Some(exchange))
    }

    /// Puts there what the snippet takes.
    ///
    /// # Errors
    /// With what is in the way, in words for the request's sender.
    pub(super) fn put(&self, request: &Message, folder: &Pieces) -> Result<(), String> {
        let Some(takes) = &self.takes else {
            return Ok(());
        };
        let to = folder.0.join(&takes.name);
        // The one before may not have taken it.
        let _ = std::fs::remove_file(&to);
        let put = match (&takes.file, takes.buffer) {
            (Some(file), None) => {
                if let Some(reason) = self.shm.lacks_file(takes.length) {
                    return Err(reason);
                }
                std::fs::hard_link(file, &to).or_else(|_| std::os::unix::fs::symlink(file, &to))
            }
            (None, Some(at)) => match request.buffers.get(at) {
                Some(bytes) => {
                    write_private(&to, bytes).inspect_err(|_| drop(std::fs::remove_file(&to)))
                }
                None => return Err("the snippet names a buffer that did not come".to_owned()),
            },
            _ => return Err("the snippet takes neither a buffer nor a file".to_owned()),
        };
        put.map_err(|error| {
            let remedy = match error.kind() {
                io::ErrorKind::StorageFull => {
                    ". The shared memory of the engine's machine is full: give /dev/shm more room (`--shm-size` of a container), or send less at a time"
                }
                _ => "",
            };
            format!(
                "the value of `{}` could not be put where the snippet takes it: {error}{remedy}",
                takes.name
            )
        })
    }

    /// Removes what the snippet left.
    pub(super) fn clear(&self, folder: &Pieces) {
        let names = self.takes.iter().map(|takes| &takes.name);
        for name in names.chain(&self.gives) {
            // It has taken what it was to take, if all went well.
            let _ = std::fs::remove_file(folder.0.join(name));
        }
    }

    /// What goes with the reply: its `chorus`, and buffers.
    ///
    /// # Errors
    /// When there is no value to give, in words for the request's sender.
    pub(super) fn give(
        &self,
        folder: &Pieces,
        data: Option<protocol::message::MimeBundle>,
    ) -> Result<(Value, Vec<Bytes>), String> {
        let Some(name) = &self.gives else {
            return Ok((json!({"data": data.unwrap_or_default()}), Vec::new()));
        };
        let from = folder.0.join(name);
        let taken = || -> io::Result<(Value, Vec<Bytes>)> {
            let length = std::fs::metadata(&from)?.len();
            if length > LARGE && self.shm.is_here() {
                let path = memory_file();
                // Elsewhere than in memory it is read.
                if std::fs::rename(&from, &path).is_ok() {
                    return Ok((
                        json!({"file": {"path": path, "length": length}}),
                        Vec::new(),
                    ));
                }
            }
            let bytes = std::fs::read(&from)?;
            std::fs::remove_file(&from)?;
            Ok((json!({}), vec![bytes.into()]))
        };
        taken().map_err(|error| format!("the snippet gave no value of `{name}`: {error}"))
    }
}

/// Writes a file that only this user can open.
fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?
        .write_all(bytes)
}

/// The folder through which a runtime's snippets take and give. It is removed with this.
#[derive(Debug)]
pub(super) struct Pieces(PathBuf);

impl Pieces {
    /// A private folder, in memory if there is such a place.
    ///
    /// # Errors
    /// When there is no place for it.
    pub(super) fn make() -> io::Result<Self> {
        let made = |path: PathBuf| DirBuilder::new().mode(0o700).create(&path).map(|()| path);
        let path = memory_file();
        let name = path.file_name().unwrap_or_default().to_owned();
        made(path)
            .or_else(|_| made(std::env::temp_dir().join(name)))
            .map(Self)
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Pieces {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            tracing::debug!(%error, "failed to remove a folder of pieces");
        }
    }
}

#[cfg(test)]
mod tests {
    use protocol::connection::Key;
    use protocol::machine::shared_memory;
    use protocol::{RawJson, Session};

    use super::*;

    fn request(chorus: Value) -> Message {
        let content = json!({"code": "1", "chorus": chorus});
        Session::new(&Key::none())
            .raw_message(
                "execute_request",
                RawJson::from_value(&content).unwrap(),
                None,
            )
            .with_buffers(vec![Bytes::from_static(b"value")])
    }

    #[test]
    fn values_come_and_go() {
        let folder = Pieces::make().unwrap();
        let path = folder.path().to_owned();
        let message = request(
            json!({"takes": {"name": "x", "buffer": 0}, "gives": "y", "shm": shared_memory()}),
        );
        let exchange = Exchange::of(&message).unwrap().unwrap();
        for _ in 0..2 {
            exchange.put(&message, &folder).unwrap();
            assert_eq!(std::fs::read(path.join("x")).unwrap(), b"value");
        }
        assert!(exchange.give(&folder, None).is_err());
        std::fs::write(path.join("y"), b"small").unwrap();
        let (chorus, buffers) = exchange.give(&folder, None).unwrap();
        assert_eq!(
            (chorus, &buffers[..]),
            (json!({}), &[Bytes::from_static(b"small")][..])
        );
        exchange.clear(&folder);
        assert_eq!(std::fs::read_dir(&path).unwrap().count(), 0);
        drop(folder);
        assert!(!path.exists());
    }

    #[test]
    fn large_values_are_not_copied() {
        let (folder, other) = (Pieces::make().unwrap(), memory_file());
        std::fs::write(&other, vec![7; 300_000]).unwrap();
        let message = request(
            json!({"takes": {"name": "x", "file": other, "length": 300_000}, "gives": "x", "shm": shared_memory()}),
        );
        let exchange = Exchange::of(&message).unwrap().unwrap();
        exchange.put(&message, &folder).unwrap();
        std::fs::remove_file(&other).unwrap();
        let (chorus, buffers) = exchange.give(&folder, None).unwrap();
        assert!(buffers.is_empty());
        assert_eq!(chorus["file"]["length"], 300_000);
        let given = chorus["file"]["path"].as_str().unwrap();
        assert_eq!(std::fs::read(given).unwrap(), vec![7; 300_000]);
        std::fs::remove_file(given).unwrap();
    }

    #[test]
    fn what_is_no_exchange_and_what_is_a_bad_one() {
        let folder = Pieces::make().unwrap();
        let plain = Exchange::of(&request(Value::Null)).unwrap();
        assert!(plain.is_none());
        for name in ["", "../x", "/x", ".x"] {
            assert!(
                Exchange::of(&request(json!({"gives": name}))).is_err(),
                "{name}"
            );
        }
        for takes in [
            json!({"name": "x"}),
            json!({"name": "x", "buffer": 3}),
            json!({"name": "x", "buffer": 0, "file": "/x"}),
        ] {
            let message = request(json!({"takes": takes}));
            let exchange = Exchange::of(&message).unwrap().unwrap();
            assert!(exchange.put(&message, &folder).is_err());
        }
        let (chorus, _) = Exchange::default().give(&folder, None).unwrap();
        assert_eq!(chorus, json!({"data": {}}));
    }
}
