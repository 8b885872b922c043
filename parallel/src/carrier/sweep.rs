//! Files that nobody needs any more: removed by a thread, since memory that a large one has takes its time to be given back.

use crate::wire::FILES;
use protocol::machine::SHARED_MEMORY;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use tokio::sync::oneshot;

#[derive(Debug)]
enum Job {
    Remove(PathBuf),
    Sweep,
    Finish(oneshot::Sender<()>),
}

/// The thread's handle. It ends when this is dropped.
#[derive(Debug)]
pub(super) struct Sweeper(Option<mpsc::Sender<Job>>);

impl Sweeper {
    pub(super) fn start() -> Sweeper {
        let (sender, jobs) = mpsc::channel();
        let thread = std::thread::Builder::new()
            .name("carrier files".to_owned())
            .spawn(move || {
                while let Ok(job) = jobs.recv() {
                    perform(job);
                }
            });
        match thread {
            Ok(_) => Sweeper(Some(sender)),
            Err(error) => {
                tracing::warn!(%error, "failed to start a thread; files are removed without it");
                Sweeper(None)
            }
        }
    }

    fn give(&self, job: Job) {
        match &self.0 {
            // The thread lives as long as this.
            Some(sender) => drop(sender.send(job)),
            None => perform(job),
        }
    }

    pub(super) fn remove(&self, path: PathBuf) {
        self.give(Job::Remove(path));
    }

    /// Removes the files of programs, engines and carriers that are dead.
    pub(super) fn sweep(&self) {
        self.give(Job::Sweep);
    }

    /// Resolves when all that was asked for is done.
    pub(super) async fn finish(&self) {
        let (done, finished) = oneshot::channel();
        self.give(Job::Finish(done));
        let _ = finished.await;
    }
}

fn perform(job: Job) {
    match job {
        Job::Remove(path) => match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                tracing::warn!(%error, path = %path.display(), "failed to remove a file");
            }
            _ => {}
        },
        Job::Sweep => sweep(Path::new(SHARED_MEMORY)),
        Job::Finish(done) => drop(done.send(())),
    }
}

fn sweep(folder: &Path) {
    let entries = std::fs::read_dir(folder);
    for entry in entries.into_iter().flatten().flatten() {
        let name = entry.file_name();
        if let Some(maker) = name.to_str().and_then(maker)
            && !is_alive(maker)
        {
            let is_folder = entry.file_type().is_ok_and(|it| it.is_dir());
            // Another user's, or another sweeper was faster.
            let _ = match is_folder {
                true => std::fs::remove_dir_all(entry.path()),
                false => std::fs::remove_file(entry.path()),
            };
        }
    }
}

/// The process that made a file of this name.
fn maker(name: &str) -> Option<libc::pid_t> {
    let (pid, _) = name.strip_prefix(FILES)?.split_once('-')?;
    pid.parse().ok().filter(|pid| *pid > 0)
}

fn is_alive(pid: libc::pid_t) -> bool {
    // SAFETY: signal 0 is not sent; this only asks whether it could be.
    let asked = unsafe { libc::kill(pid, 0) };
    asked == 0 || std::io::Error::last_os_error().raw_os_error() != Some(libc::ESRCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_files_of_the_dead_go() {
        let folder = tempfile::tempdir().unwrap();
        let own = format!("{FILES}{}-1", std::process::id());
        let mut child = std::process::Command::new("true").spawn().unwrap();
        child.wait().unwrap();
        let dead = format!("{FILES}{}-1", child.id());
        let names = [own.as_str(), &dead, "chorus-piece-x", "other"];
        for name in names {
            std::fs::write(folder.path().join(name), "x").unwrap();
        }
        sweep(folder.path());
        let left = names.map(|name| folder.path().join(name).exists());
        assert_eq!(left, [true, false, true, true]);
    }
}
