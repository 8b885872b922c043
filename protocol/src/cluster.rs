//! A cluster's connection files as far as clients need them, in ipyparallel's format.
//!
//! Source: <https://ipyparallel.readthedocs.io/en/stable/reference/connections.html>. Ports are numbers after a colon, also
//! over Unix sockets, where interface and port make a file's name: ipyparallel's clients join the two like that.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::{fmt, fs};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::connection::SIGNATURE_SCHEME;
use crate::{JsonError, Key};

/// An engine's number: what users say with `-t 0`. Not reused while the controller lives, unless its engine asks for it again.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Default,
)]
#[serde(transparent)]
pub struct EngineId(pub u32);

impl fmt::Display for EngineId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Failed to use a cluster's connection file. No message holds anything of the file's content but the name of what is not spoken here.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The file cannot be read.
    #[error("read the connection file {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file's content is no connection file.
    #[error("parse the connection file {path}")]
    Parse {
        /// The file.
        path: PathBuf,
        /// Why.
        source: JsonError,
    },
    /// The file demands what is not there.
    #[error("use the connection file {path}: it asks for {what}, which is not supported")]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// What it asks for.
        what: String,
    },
    /// The file cannot be written.
    #[error("write {path}")]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// What a client needs to know: `ipcontroller[-ID]-client.json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ClientFile {
    /// How and where: `tcp://127.0.0.1`, or `ipc://` and the beginning of the sockets' names.
    pub interface: String,
    /// Questions to the hub.
    pub registration: u16,
    /// Requests that do not wait behind others.
    pub control: u16,
    /// Requests to one engine.
    pub mux: u16,
    /// Load-balanced requests.
    pub task: u16,
    /// How they are balanced.
    pub task_scheme: String,
    /// What engines broadcast.
    pub iopub: u16,
    /// Engines that come and go.
    pub notification: u16,
    /// Requests to many engines.
    pub broadcast: u16,
    /// What is the same for engines.
    #[serde(flatten)]
    pub common: Common,
}

/// The part that both files share.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Common {
    /// A server to tunnel through; empty for none.
    #[serde(default)]
    pub ssh: Option<String>,
    /// The key that messages are signed with.
    pub key: Key,
    /// The controller's public CURVE key, when it has one.
    #[serde(default)]
    pub curve_serverkey: Option<String>,
    /// The controller's host name.
    #[serde(default)]
    pub location: Option<String>,
    /// How messages are packed: `json`.
    pub pack: String,
    /// How they are unpacked: `json`.
    pub unpack: String,
    /// How they are signed: [`SIGNATURE_SCHEME`].
    pub signature_scheme: String,
    /// The cluster's id; empty for the profile's only one.
    #[serde(default)]
    pub cluster_id: String,
}

impl Common {
    /// For a new cluster on this machine.
    pub fn new(key: Key, cluster_id: &str) -> Self {
        Self {
            ssh: Some(String::new()),
            key,
            curve_serverkey: None,
            location: Some(hostname()),
            pack: "json".to_owned(),
            unpack: "json".to_owned(),
            signature_scheme: SIGNATURE_SCHEME.to_owned(),
            cluster_id: cluster_id.to_owned(),
        }
    }

    /// Whether everything that the file at `path` asks for is spoken here.
    ///
    /// # Errors
    /// Names the first thing that is not.
    pub fn check(&self, path: &Path) -> Result<(), FileError> {
        let unsupported = |what: String| {
            Err(FileError::Unsupported {
                path: path.to_owned(),
                what,
            })
        };
        if self.signature_scheme != SIGNATURE_SCHEME {
            return unsupported(format!("the signature scheme {:?}", self.signature_scheme));
        }
        if self.pack != "json" || self.unpack != "json" {
            return unsupported(format!("messages packed as {:?}", self.pack));
        }
        if self
            .curve_serverkey
            .as_deref()
            .is_some_and(|key| !key.is_empty())
        {
            return unsupported("CURVE encryption".to_owned());
        }
        Ok(())
    }
}

impl ClientFile {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// When it is not there, is no client's connection file, or asks for what is not spoken here.
    pub fn read(path: &Path) -> Result<Self, FileError> {
        let file: Self = read(path)?;
        file.common.check(path)?;
        Ok(file)
    }

    /// Writes the file, readable by its owner only.
    ///
    /// # Errors
    /// When the folder is not there or not writable.
    pub fn write(&self, path: &Path) -> Result<(), FileError> {
        write_private(path, self)
    }

    /// The ZeroMQ endpoint of one of the ports.
    pub fn endpoint(&self, port: u16) -> String {
        endpoint(&self.interface, port, self.common.location.as_deref())
    }
}

/// Where to connect to. An interface that stands for all addresses of the controller's machine becomes one that can be connected
/// to: loopback on that machine, its name elsewhere.
pub fn endpoint(interface: &str, port: u16, location: Option<&str>) -> String {
    let everywhere = ["tcp://0.0.0.0", "tcp://*"].contains(&interface);
    if !everywhere {
        return format!("{interface}:{port}");
    }
    match location {
        Some(location) if !location.is_empty() && location != hostname() => {
            format!("tcp://{location}:{port}")
        }
        _ => format!("tcp://127.0.0.1:{port}"),
    }
}

/// This machine's name; empty if the system does not tell.
pub fn hostname() -> String {
    fs::read_to_string("/proc/sys/kernel/hostname")
        .map(|name| name.trim().to_owned())
        .unwrap_or_default()
}

/// Reads a file of JSON.
///
/// # Errors
/// When it is not there, or has not the shape of a `T`.
pub fn read<T: DeserializeOwned>(path: &Path) -> Result<T, FileError> {
    let text = fs::read(path).map_err(|source| FileError::Read {
        path: path.to_owned(),
        source,
    })?;
    serde_json::from_slice(&text).map_err(|error| FileError::Parse {
        path: path.to_owned(),
        // Without what the file says: there is a key in it.
        source: error.into(),
    })
}

/// Writes JSON so that it is there completely or not at all, and at no moment readable by others.
///
/// # Errors
/// When the folder is not there or not writable.
pub fn write_private<T: Serialize>(path: &Path, value: &T) -> Result<(), FileError> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let write = || -> io::Result<()> {
        let mut file = tempfile::NamedTempFile::new_in(folder)?;
        serde_json::to_writer_pretty(&mut file, value)?;
        file.flush()?;
        file.persist(path).map_err(|error| error.error)?;
        Ok(())
    };
    write().map_err(|source| FileError::Write {
        path: path.to_owned(),
        source,
    })
}

/// The profile that is used when none is named. It need not be created.
pub const DEFAULT_PROFILE: &str = "default";

/// The folder with all profiles, which has a folder for each by its name; none if the user has no data folder.
pub fn profiles() -> Option<PathBuf> {
    dirs::data_dir().map(|data| data.join("chorus").join("profiles"))
}

/// Where a profile's connection files are.
pub fn security(profile: &Path) -> PathBuf {
    profile.join("security")
}

/// The two files of a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paths {
    /// The clients' file, a [`ClientFile`].
    pub client: PathBuf,
    /// The engines' file.
    pub engine: PathBuf,
}

impl Paths {
    /// Their names in a profile's `security` folder.
    pub fn new(security: &Path, cluster_id: &str) -> Self {
        let name = |role| match cluster_id {
            "" => format!("ipcontroller-{role}.json"),
            id => format!("ipcontroller-{id}-{role}.json"),
        };
        Self {
            client: security.join(name("client")),
            engine: security.join(name("engine")),
        }
    }
}

impl fmt::Display for Paths {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.client.display())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints() {
        for (interface, location, endpoint) in [
            ("ipc:///run/x/s", None, "ipc:///run/x/s:7"),
            ("tcp://0.0.0.0", Some("elsewhere"), "tcp://elsewhere:7"),
            ("tcp://*", None, "tcp://127.0.0.1:7"),
            ("tcp://10.0.0.1", Some("elsewhere"), "tcp://10.0.0.1:7"),
        ] {
            assert_eq!(super::endpoint(interface, 7, location), endpoint);
        }
        assert_eq!(
            super::endpoint("tcp://*", 7, Some(&hostname())),
            "tcp://127.0.0.1:7"
        );
    }

    #[test]
    fn names() {
        let paths = Paths::new(Path::new("/s"), "");
        assert_eq!(paths.client, Path::new("/s/ipcontroller-client.json"));
        let paths = Paths::new(Path::new("/s"), "big");
        assert_eq!(paths.engine, Path::new("/s/ipcontroller-big-engine.json"));
    }
}
