//! The notebook's carrier: a socket that the programs in its cells find in their environment, and what the carrier has to know of
//! the notebook.

use crate::cells::Emit;
use crate::engines::Shared as Engines;
use crate::evaluator::Evaluator;
use crate::kernel::lock;
use chorus::carrier::{Carrier, Found, Host};
use chorus::controller;
use chorus::wire::Place;
use cluster::output::Output;
use compiler::folder::Folder;
use protocol::message::MimeBundle;
use protocol::message::iopub::{DisplayData, Stream, StreamName};
use serde_json::{Map, json};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use tokio::net::UnixListener;
use tokio::task::JoinHandle;

/// Most bytes of a Unix socket's path, the zero behind it not counted.
const PATH_LIMIT: usize = 107;
const NAME: &str = "socket";

/// Where programs find the carrier. It goes with this.
#[derive(Debug)]
pub(crate) struct Door {
    listener: UnixListener,
    folder: Folder,
}

impl Door {
    /// Opens a socket that only this user's processes can reach.
    pub(crate) fn open() -> std::io::Result<Door> {
        let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
        let places = runtime
            .into_iter()
            .chain([std::env::temp_dir(), PathBuf::from("/tmp")]);
        let mut failed = None;
        for place in places {
            match Door::open_in(&place) {
                Ok(door) => return Ok(door),
                Err(error) => failed = Some(error),
            }
        }
        Err(failed.unwrap_or_else(|| std::io::Error::other("there is no folder for it")))
    }

    fn open_in(place: &Path) -> std::io::Result<Door> {
        let folder = Folder::create_in(place)?;
        let path = folder.path().join(NAME);
        if path.as_os_str().len() > PATH_LIMIT {
            return Err(std::io::Error::other(format!(
                "the path {} is too long for a socket",
                path.display()
            )));
        }
        let listener = UnixListener::bind(&path)?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
        Ok(Door { listener, folder })
    }

    /// The socket's path.
    pub(crate) fn path(&self) -> PathBuf {
        self.folder.path().join(NAME)
    }

    /// Lets programs in until the task is aborted.
    fn watch(self, carrier: Carrier<Notebook>) -> JoinHandle<()> {
        tokio::spawn(async move {
            // The folder lives as long as the task.
            let Door {
                listener,
                folder: _folder,
            } = self;
            loop {
                let stream = match listener.accept().await {
                    Ok((stream, _)) => stream,
                    Err(error) => {
                        tracing::warn!(%error, "failed to let a program in");
                        // Too many open files, most likely: some may be closed by and by.
                        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                        continue;
                    }
                };
                // SAFETY: asks for a number.
                let own = unsafe { libc::geteuid() };
                match stream.peer_cred() {
                    Ok(peer) if peer.uid() == own => {
                        let carrier = carrier.clone();
                        match stream.into_std() {
                            Ok(stream) => {
                                tokio::spawn(async move { carrier.serve(stream).await });
                            }
                            Err(error) => tracing::warn!(%error, "failed to let a program in"),
                        }
                    }
                    _ => tracing::warn!("another user's process is turned away"),
                }
            }
        })
    }
}

/// The carrier of a notebook, and who lets programs in.
#[derive(Debug)]
pub(crate) struct Programs {
    carrier: Carrier<Notebook>,
    doorkeeper: Option<JoinHandle<()>>,
}

impl Programs {
    /// Serves whoever comes through the door; nobody without one.
    pub(crate) fn new(evaluator: Evaluator, engines: Engines, door: Option<Door>) -> Programs {
        let carrier = Carrier::new(
            Notebook {
                evaluator,
                engines,
                cell: Mutex::default(),
            },
            true,
        );
        let doorkeeper = door.map(|door| door.watch(carrier.clone()));
        Programs {
            carrier,
            doorkeeper,
        }
    }

    /// A cell begins, whose output goes there.
    pub(crate) fn begin(&self, emit: &Emit) -> Cell<'_> {
        *lock(&self.carrier.host().cell) = Some(Page {
            emit: Arc::clone(emit),
            line: None,
        });
        self.carrier.begin();
        Cell {
            programs: self,
            settled: false,
        }
    }

    /// The cell that runs is interrupted.
    pub(crate) fn interrupt(&self) {
        self.carrier.interrupt();
    }

    /// Ends what programs began.
    pub(crate) async fn shutdown(&self) {
        self.carrier.shutdown().await;
        if let Some(doorkeeper) = &self.doorkeeper {
            // The socket's folder goes with the task.
            doorkeeper.abort();
        }
    }
}

/// A cell that runs.
pub(crate) struct Cell<'a> {
    programs: &'a Programs,
    settled: bool,
}

impl Cell<'_> {
    /// The cell has ended well, and the process that it ran in lives on.
    pub(crate) fn settle(&mut self) {
        self.settled = true;
    }
}

impl Drop for Cell<'_> {
    fn drop(&mut self) {
        *lock(&self.programs.carrier.host().cell) = None;
        self.programs.carrier.end(self.settled);
    }
}

/// What the carrier knows of the notebook.
struct Notebook {
    evaluator: Evaluator,
    engines: Engines,
    cell: Mutex<Option<Page>>,
}

/// Where a cell's output goes.
struct Page {
    emit: Emit,
    /// Whose line is not ended: an engine, and whether it is of stderr.
    line: Option<(u32, bool)>,
}

impl Page {
    fn say(&self, stderr: bool, text: String) {
        let name = match stderr {
            true => StreamName::Stderr,
            false => StreamName::Stdout,
        };
        (self.emit)(Output::Stream(Stream { name, text }));
    }

    /// Shows text of a task with a label before each line, as several engines write at once.
    fn write(&mut self, engine: u32, stderr: bool, text: &str) {
        let (labelled, open) = labelled(self.line, engine, stderr, text);
        self.line = open;
        self.say(stderr, labelled);
    }

    fn display(&mut self, engine: u32, data: MimeBundle) {
        let metadata = Map::from_iter([("engine".to_owned(), json!(engine))]);
        let label =
            MimeBundle::from_iter([("text/plain".to_owned(), json!(format!("[output:{engine}]")))]);
        for data in [label, data] {
            (self.emit)(Output::Display(DisplayData {
                data,
                metadata: metadata.clone(),
                ..DisplayData::default()
            }));
        }
    }
}

/// Text with labels, and whose line is not ended behind it. `open`: whose was not before.
fn labelled(
    open: Option<(u32, bool)>,
    engine: u32,
    stderr: bool,
    text: &str,
) -> (String, Option<(u32, bool)>) {
    let stream = match stderr {
        true => "stderr",
        false => "stdout",
    };
    let voice = (engine, stderr);
    let mut labelled = String::with_capacity(text.len() + 16);
    let mut continued = open == Some(voice);
    if open.is_some_and(|other| other != voice) {
        labelled.push('\n');
    }
    for line in text.split_inclusive('\n') {
        if !std::mem::take(&mut continued) {
            labelled.push_str(&format!("[{stream}:{engine}] "));
        }
        labelled.push_str(line);
    }
    (labelled, (!text.ends_with('\n')).then_some(voice))
}

impl Host for Notebook {
    async fn find(&self, profile: Option<&str>, cluster_id: Option<&str>) -> Result<Found, String> {
        let say = |text: String| {
            if let Some(page) = &*lock(&self.cell) {
                page.say(false, text);
            }
        };
        let found = match (profile, cluster_id) {
            (None, None) => self.engines.for_programs(say).await,
            (profile, cluster_id) => self.engines.named(profile, cluster_id).await,
        };
        let (connection, name) = found.map_err(|failure| failure.evalue)?;
        Ok(Found { connection, name })
    }

    async fn locate(&self, file: &str, line: u32) -> Option<Place> {
        // A file is known by its name within the session's folder.
        let file = file.get(file.rfind("chorus-").unwrap_or(0)..)?.to_owned();
        let place = self.evaluator.locate(file, line).await?;
        Some(Place {
            file: format!("In[{}]", place.cell),
            line: u32::try_from(place.line).ok()?,
            text: Some(place.text),
        })
    }

    fn show(&self, engine: u32, output: &controller::Output) {
        let mut cell = lock(&self.cell);
        let Some(page) = &mut *cell else {
            return;
        };
        match output {
            controller::Output::Stream(stream) => {
                page.write(engine, stream.name == StreamName::Stderr, &stream.text);
            }
            controller::Output::Display(shown) => page.display(engine, shown.data.clone()),
            controller::Output::Result(result) => page.display(engine, result.data.clone()),
            // What an engine showed is among what others did.
            controller::Output::Update(_)
            | controller::Output::Clear(_)
            | controller::Output::CompileStatus(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_says_whose_it_is() {
        let mut open = None;
        let mut all = String::new();
        for (engine, stderr, text) in [
            (0, false, "one\ntwo\nth"),
            (0, false, "ree\n"),
            (1, true, "half"),
            (0, false, "x\n"),
        ] {
            let (text, now) = labelled(open, engine, stderr, text);
            all.push_str(&text);
            open = now;
        }
        assert_eq!(
            all,
            "[stdout:0] one\n[stdout:0] two\n[stdout:0] three\n[stderr:1] half\n[stdout:0] x\n"
        );
        assert_eq!(open, None);
    }

    #[tokio::test]
    async fn the_door_is_private_and_goes() {
        let door = Door::open().unwrap();
        let path = door.path();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
        assert!(path.as_os_str().len() <= PATH_LIMIT);
        drop(door);
        assert!(!path.parent().unwrap().exists());
    }
}
