//! The processes of a cluster that was started here, on file: who they are, and whether they are still they.

use std::fs::{self, File};
use std::io;
use std::os::fd::{FromRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::timeout;

use crate::connection::write_private;
use crate::profile::Profile;
use crate::{EngineId, Error};

/// A process, told from another one that has its number later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Its number.
    pub pid: u32,
    /// When it began, in ticks since the machine's start.
    pub began: u64,
}

impl Process {
    /// The process that has this number now, if there is one.
    pub fn of(pid: u32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The program's name, in parentheses, may hold anything.
        let (_, fields) = stat.rsplit_once(')')?;
        let mut fields = fields.split_whitespace();
        let state = fields.next()?;
        if state == "Z" || state == "X" {
            return None;
        }
        // The 22nd field; this counts from the fourth.
        let began = fields.nth(18)?.parse().ok()?;
        Some(Self { pid, began })
    }

    /// Whether it runs.
    pub fn is_alive(self) -> bool {
        Self::of(self.pid) == Some(self)
    }

    /// Sends it a signal, if it runs.
    pub(super) fn signal(self, signal: i32) {
        if self.is_alive()
            && let Ok(pid) = libc::pid_t::try_from(self.pid)
        {
            // SAFETY: sends a signal to a process that was found to be the one meant.
            unsafe { libc::kill(pid, signal) };
        }
    }

    /// Waits for its end, within a tokio runtime. Says whether it has ended.
    pub async fn wait(self, patience: Duration) -> bool {
        if !self.is_alive() {
            return true;
        }
        let Ok(pidfd) = pidfd(self.pid) else {
            return !self.is_alive();
        };
        // SAFETY: the descriptor is open, and stays so for as long as the value that owns it.
        let Ok(ended) = (unsafe { AsyncFd::register_with_interest(pidfd, Interest::READABLE) })
        else {
            return !self.is_alive();
        };
        // It may have ended before it was looked at.
        timeout(patience, ended.readable()).await.is_ok() || !self.is_alive()
    }
}

fn pidfd(pid: u32) -> io::Result<OwnedFd> {
    let pid = libc::pid_t::try_from(pid).map_err(io::Error::other)?;
    // SAFETY: takes numbers and gives a new descriptor or an error.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    let fd = i32::try_from(fd).map_err(io::Error::other)?;
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a new descriptor that nothing else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// An engine's process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EngineProcess {
    /// The process.
    pub process: Process,
    /// The engine's number.
    pub id: EngineId,
    /// The identity that it has at the controller.
    pub uuid: String,
}

/// A cluster's processes: `cluster[-ID].json` in the profile's folder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// Empty for the profile's only one.
    pub cluster_id: String,
    /// The program that all of them run.
    pub program: PathBuf,
    /// The process that the controller is, or is in.
    pub controller: Process,
    /// There if the controller is in a process that does more than that, which isn't ended with the cluster: tells it from others in the same
    /// process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hosted: Option<String>,
    /// The compiler, if one was started.
    pub compiler: Option<Process>,
    /// The engines.
    pub engines: Vec<EngineProcess>,
}

impl State {
    pub(super) fn path(profile: &Profile, cluster_id: &str) -> PathBuf {
        let name = match cluster_id {
            "" => "cluster.json".to_owned(),
            id => format!("cluster-{id}.json"),
        };
        profile.folder().join(name)
    }

    /// Reads a cluster's file; `None` if there is none, or none that can be understood.
    pub fn read(profile: &Profile, cluster_id: &str) -> Option<Self> {
        let text = fs::read(Self::path(profile, cluster_id)).ok()?;
        serde_json::from_slice(&text).ok()
    }

    /// The ids of all clusters of a profile that have a file.
    pub(super) fn ids(profile: &Profile) -> Vec<String> {
        let entries = fs::read_dir(profile.folder()).into_iter().flatten();
        let mut ids: Vec<String> = entries
            .flatten()
            .filter_map(|entry| {
                let name = entry.file_name().into_string().ok()?;
                let id = name.strip_prefix("cluster")?.strip_suffix(".json")?;
                match id {
                    "" => Some(String::new()),
                    id => id.strip_prefix('-').map(str::to_owned),
                }
            })
            .collect();
        ids.sort();
        ids
    }

    pub(super) fn write(&self, profile: &Profile) -> Result<(), Error> {
        write_private(&Self::path(profile, &self.cluster_id), self)
    }

    /// A hosted controller has ended: ends what is left of its cluster, and removes the file, unless it is another one's by now.
    pub(super) fn remove_hosted(profile: &Profile, cluster_id: &str, hosted: &str) {
        let path = Self::path(profile, cluster_id);
        let state = Self::read(profile, cluster_id);
        let Some(state) = state.filter(|state| state.hosted.as_deref() == Some(hosted)) else {
            return;
        };
        // Without the file nobody would know of them.
        state.processes().for_each(|it| it.signal(libc::SIGTERM));
        if let Err(error) = fs::remove_file(&path) {
            tracing::debug!(path = %path.display(), %error, "failed to remove a cluster's file");
        }
    }

    /// All processes that are the cluster's alone, engines first.
    pub fn processes(&self) -> impl Iterator<Item = Process> {
        let engines = self.engines.iter().map(|engine| engine.process);
        let controller = self.hosted.is_none().then_some(self.controller);
        engines.chain(self.compiler).chain(controller)
    }
}

/// Held while a cluster's processes are changed, so that two commands at a time do not.
#[derive(Debug)]
pub(super) struct Lock(#[expect(dead_code, reason = "unlocked when closed")] File);

impl Lock {
    /// Waits for whoever has it.
    pub(super) fn take(profile: &Profile, cluster_id: &str) -> Result<Self, Error> {
        let path = State::path(profile, cluster_id).with_extension("lock");
        let open = |path: &Path| {
            let file = File::options()
                .create(true)
                .truncate(false)
                .write(true)
                .open(path)?;
            file.lock()?;
            Ok(file)
        };
        open(&path).map(Self).map_err(Error::file("lock", &path))
    }
}
