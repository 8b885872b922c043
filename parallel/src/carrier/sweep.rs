//! What is done with files. Those that nobody needs any more are removed by a thread, since memory that a large one has takes its time to
//! be given back; one is kept for programs to write over.

use super::books::FileWork;
use crate::wire::FILES;
use protocol::machine::SHARED_MEMORY;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;
use tokio::sync::oneshot;
use uuid::Uuid;

/// How long there is a spare file that nobody wants.
const REST: Duration = Duration::from_secs(5);

#[derive(Debug)]
enum Job {
    Remove(PathBuf),
    /// There may be a spare file, which is removed when nobody wants it for a while.
    Rest,
    Sweep,
    Finish(oneshot::Sender<()>),
}

/// The thread's handle. It ends when this is dropped.
#[derive(Debug)]
pub(super) struct Sweeper {
    thread: Option<mpsc::Sender<Job>>,
    spare: Option<PathBuf>,
}

impl Sweeper {
    /// `spare`: whether a file is kept.
    pub(super) fn start(spare: bool) -> Sweeper {
        let (process, noise) = (std::process::id(), Uuid::new_v4().simple());
        let name = format!("{FILES}{process}-{noise}");
        let spare = spare.then(|| Path::new(SHARED_MEMORY).join(name));
        let (sender, jobs) = mpsc::channel();
        let unwanted = spare.clone();
        let thread = std::thread::Builder::new()
            .name("carrier files".to_owned())
            .spawn(move || work(&jobs, unwanted));
        let thread = match thread {
            Ok(_) => Some(sender),
            Err(error) => {
                tracing::warn!(%error, "failed to start a thread; files are removed without it");
                None
            }
        };
        Sweeper { thread, spare }
    }

    /// Where the file lies that programs may write over, when there is one; nothing if there never is.
    pub(super) fn spare(&self) -> Option<&Path> {
        self.spare.as_deref()
    }

    fn give(&self, job: Job) {
        match &self.thread {
            // The thread lives as long as this.
            Some(sender) => drop(sender.send(job)),
            None => perform(job),
        }
    }

    fn remove(&self, path: PathBuf) {
        self.give(Job::Remove(path));
    }

    /// Does what is to be done with a file. What can't be done is told by whoever misses the file.
    pub(super) fn carry_out(&self, work: FileWork) {
        let outcome = match &work {
            FileWork::Remove(path) => {
                self.remove(path.clone());
                return;
            }
            FileWork::Keep(path) => {
                if let Some(spare) = &self.spare {
                    // Unlike a renaming this fails if there is one.
                    let _ = std::fs::hard_link(path, spare);
                    self.give(Job::Rest);
                }
                self.remove(path.clone());
                return;
            }
            FileWork::Rename { from, to } => std::fs::rename(from, to),
            FileWork::Link { from, to } => std::fs::hard_link(from, to),
        };
        if let Err(error) = outcome {
            tracing::debug!(%error, ?work, "failed to do something with a file");
        }
    }

    /// Removes the files of programs, engines and carriers that are dead.
    pub(super) fn sweep(&self) {
        self.give(Job::Sweep);
    }

    /// Resolves when all that was asked for is done. There is no spare file then.
    pub(super) async fn finish(&self) {
        if let Some(spare) = &self.spare {
            self.remove(spare.clone());
        }
        let (done, finished) = oneshot::channel();
        self.give(Job::Finish(done));
        let _ = finished.await;
    }
}

/// The thread's whole life.
fn work(jobs: &mpsc::Receiver<Job>, spare: Option<PathBuf>) {
    let mut rests = false;
    loop {
        let job = match rests {
            true => jobs.recv_timeout(REST),
            false => jobs.recv().map_err(RecvTimeoutError::from),
        };
        match job {
            Ok(Job::Rest) => rests = true,
            Ok(job) => perform(job),
            Err(why) => {
                rests = false;
                if let Some(spare) = &spare {
                    perform(Job::Remove(spare.clone()));
                }
                if why == RecvTimeoutError::Disconnected {
                    return;
                }
            }
        }
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
        // Without the thread the spare file stays until the end.
        Job::Rest => {}
        Job::Sweep => {
            sweep(Path::new(SHARED_MEMORY));
            sweep(&std::env::temp_dir());
        }
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

    #[tokio::test]
    async fn one_file_is_kept() {
        let sweeper = Sweeper::start(true);
        let spare = sweeper.spare().unwrap().to_owned();
        let paths = ["first", "second"].map(|name| spare.with_extension(name));
        for path in &paths {
            std::fs::write(path, path.as_os_str().as_encoded_bytes()).unwrap();
            sweeper.carry_out(FileWork::Keep(path.clone()));
        }
        let kept = std::fs::read(&spare).unwrap();
        assert_eq!(kept, paths[0].as_os_str().as_encoded_bytes());
        sweeper.finish().await;
        assert!(paths.iter().all(|path| !path.exists()) && !spare.exists());
    }

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
