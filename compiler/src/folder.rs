//! The folders on disk: one for each running session, removed at its end or by a later session when its owner
//! was killed; and one cache for all.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

const PREFIX: &str = "chorus-session-";
const LOCK: &str = "lock";

/// Where compiled things are kept across sessions: `chorus` in the user's cache folder
/// (`XDG_CACHE_HOME`), or `CHORUS_CACHE_DIR`.
pub fn cache() -> PathBuf {
    std::env::var_os("CHORUS_CACHE_DIR").map_or_else(
        || {
            dirs::cache_dir()
                .unwrap_or_else(std::env::temp_dir)
                .join("chorus")
        },
        PathBuf::from,
    )
}

/// Where rust-analyzer looks for the source of the standard library first, if it is there.
pub const STD_SOURCE: &str = "RUST_SRC_PATH";

/// The folder that rust-analyzer takes for the standard library's while it is there, in a session's folder.
pub(crate) fn hidden_std(work: &Path) -> PathBuf {
    work.join("library")
}

/// Whether [`STD_SOURCE`] is what a session has set for itself.
pub fn has_hidden_std() -> bool {
    let path = std::env::var_os(STD_SOURCE).unwrap_or_default();
    Path::new(&path)
        .components()
        .any(|part| part.as_os_str().to_string_lossy().starts_with(PREFIX))
}

/// A session's temporary folder. Dropping it removes it.
#[derive(Debug)]
pub struct Folder {
    directory: tempfile::TempDir,
    /// Where evcxr works. What is above it configures cargo.
    work: PathBuf,
    /// Locked while the session lives; the system unlocks it however the session ends.
    _lock: File,
}

impl Folder {
    /// Makes a folder that only this user can read, and removes those that dead sessions of this user left.
    pub fn create() -> io::Result<Folder> {
        Folder::create_in(&std::env::temp_dir())
    }

    /// As [`create`](Folder::create), in another place than that for temporary files.
    pub fn create_in(parent: &Path) -> io::Result<Folder> {
        remove_left(parent);
        loop {
            let directory = tempfile::Builder::new()
                .prefix(PREFIX)
                .permissions(fs::Permissions::from_mode(0o700))
                .tempdir_in(parent)?;
            let lock = File::create(directory.path().join(LOCK))?;
            lock.lock()?;
            // Between its creation and the lock the folder looked like a dead session's.
            if directory.path().join(LOCK).exists() {
                let work = directory.path().join("evcxr");
                // What makes a socket in it checks that nobody else could have.
                fs::DirBuilder::new().mode(0o700).create(&work)?;
                let configuration = directory.path().join(".cargo");
                fs::create_dir(&configuration)?;
                fs::write(configuration.join("config.toml"), crate::crates::PROFILE)?;
                return Ok(Folder {
                    directory,
                    work,
                    _lock: lock,
                });
            }
        }
    }

    /// The environment that evcxr and rust-analyzer need, in the process that they run in. [`STD_SOURCE`] is among it only if a user hasn't set it.
    pub fn environment(&self) -> impl Iterator<Item = (&'static str, PathBuf)> {
        let library = std::env::var_os(STD_SOURCE).is_none();
        let library = library.then(|| (STD_SOURCE, hidden_std(&self.work)));
        std::iter::once(("EVCXR_TMPDIR", self.work.clone())).chain(library)
    }

    /// The path of the folder in it that is the session's to fill.
    pub fn path(&self) -> &Path {
        &self.work
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // evcxr's thread may be in the middle of something. It names files by the folder's old name, so nothing is added to what is
        // removed here; what it makes anew under that name until then goes with `directory`.
        let mut ended = self.directory.path().as_os_str().to_owned();
        ended.push("-ended");
        if fs::rename(self.directory.path(), &ended).is_ok()
            && let Err(error) = fs::remove_dir_all(&ended)
        {
            tracing::debug!(%error, "a later session removes the folder");
        }
    }
}

/// Removes the folders whose owner is gone. What can't be removed is another's, and stays.
fn remove_left(parent: &Path) {
    let Ok(entries) = fs::read_dir(parent) else {
        return;
    };
    for entry in entries.flatten() {
        if !entry.file_name().to_string_lossy().starts_with(PREFIX) {
            continue;
        }
        // A folder without a lock file is being made this very moment, or is of no use to anybody:
        // it goes when it is old enough for that to be sure.
        let orphaned = match File::open(entry.path().join(LOCK)) {
            Ok(lock) => lock.try_lock().is_ok(),
            Err(_) => entry
                .metadata()
                .and_then(|metadata| metadata.modified())
                .is_ok_and(|time| time.elapsed().is_ok_and(|age| age.as_secs() > 60)),
        };
        if orphaned && let Err(error) = fs::remove_dir_all(entry.path()) {
            tracing::debug!(%error, folder = %entry.path().display(), "a left folder stays");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ended_session_leaves_nothing() {
        let parent = tempfile::tempdir().unwrap();
        let folder = Folder::create_in(parent.path()).unwrap();
        let source = folder.path().join("src");
        fs::create_dir(&source).unwrap();
        let ended = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !ended.load(std::sync::atomic::Ordering::Relaxed) {
                    let _ = fs::write(source.join("lib.rs"), "// still at it");
                }
            });
            while !source.join("lib.rs").exists() {
                std::thread::yield_now();
            }
            drop(folder);
            ended.store(true, std::sync::atomic::Ordering::Relaxed);
        });
        assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_left_folder_goes_and_a_used_one_stays() {
        let parent = tempfile::tempdir().unwrap();
        let left = parent.path().join(format!("{PREFIX}left"));
        let used = parent.path().join(format!("{PREFIX}used"));
        let other = parent.path().join("other");
        for folder in [&left, &used, &other] {
            fs::create_dir(folder).unwrap();
            File::create(folder.join(LOCK)).unwrap();
        }
        let lock = File::open(used.join(LOCK)).unwrap();
        lock.lock().unwrap();
        remove_left(parent.path());
        assert!(!left.exists());
        assert!(used.exists());
        assert!(other.exists());
    }
}
