//! Connection files: where a controller's sockets are, for clients and for engines, in ipyparallel's format.
//!
//! Source: <https://ipyparallel.readthedocs.io/en/stable/reference/connections.html>. Ports are numbers after a colon, also
//! over Unix sockets, where interface and port make a file's name: ipyparallel's clients join the two like that.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::{fmt, fs, io};

use protocol::Key;
use protocol::connection::SIGNATURE_SCHEME;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::Error;

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

/// What an engine needs to know: `ipcontroller[-ID]-engine.json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct EngineFile {
    /// As [`ClientFile::interface`].
    pub interface: String,
    /// Registration.
    pub registration: u16,
    /// Control requests.
    pub control: u16,
    /// Requests to this engine.
    pub mux: u16,
    /// Load-balanced requests.
    pub task: u16,
    /// Where to broadcast.
    pub iopub: u16,
    /// Where the controller's heart beats.
    pub hb_ping: u16,
    /// Where beats are sent back to.
    pub hb_pong: u16,
    /// Requests to many engines; an engine uses one of these.
    pub broadcast: Vec<u16>,
    /// The compile service, on the same interface. Chorus controllers have one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compile: Option<u16>,
    /// What a runtime on the controller's machine loads first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub libraries: Option<Libraries>,
    /// What is the same for clients.
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

/// Shared objects that a runtime loads before any snippet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Libraries {
    /// `libchorus_support.so`.
    pub support: PathBuf,
    /// What it needs in turn: the toolchain's `libstd-*.so`.
    pub preload: Vec<PathBuf>,
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

    fn check(&self, path: &Path) -> Result<(), Error> {
        let unsupported = |what: String| {
            Err(Error::Unsupported {
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
    pub fn read(path: &Path) -> Result<Self, Error> {
        let file: Self = read(path)?;
        file.common.check(path)?;
        Ok(file)
    }

    /// Writes the file, readable by its owner only.
    ///
    /// # Errors
    /// When the folder is not there or not writable.
    pub fn write(&self, path: &Path) -> Result<(), Error> {
        write_private(path, self)
    }

    /// The ZeroMQ endpoint of one of the ports.
    pub fn endpoint(&self, port: u16) -> String {
        endpoint(&self.interface, port, self.common.location.as_deref())
    }
}

impl EngineFile {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// When it is not there, is no engine's connection file, or asks for what is not spoken here.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let file: Self = read(path)?;
        file.common.check(path)?;
        Ok(file)
    }

    /// Writes the file, readable by its owner only.
    ///
    /// # Errors
    /// When the folder is not there or not writable.
    pub fn write(&self, path: &Path) -> Result<(), Error> {
        write_private(path, self)
    }

    /// The ZeroMQ endpoint of one of the ports.
    pub fn endpoint(&self, port: u16) -> String {
        endpoint(&self.interface, port, self.common.location.as_deref())
    }
}

/// Where to connect to. An interface that stands for all addresses of the controller's machine becomes one that can be connected
/// to: loopback on that machine, its name elsewhere.
fn endpoint(interface: &str, port: u16, location: Option<&str>) -> String {
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
pub(crate) fn hostname() -> String {
    fs::read_to_string("/proc/sys/kernel/hostname")
        .map(|name| name.trim().to_owned())
        .unwrap_or_default()
}

fn read<T: DeserializeOwned>(path: &Path) -> Result<T, Error> {
    let text = fs::read(path).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => Error::NoConnectionFile {
            path: path.to_owned(),
        },
        _ => Error::file("read the connection file", path)(source),
    })?;
    serde_json::from_slice(&text).map_err(|error| Error::ConnectionFile {
        path: path.to_owned(),
        // Without what the file says: there is a key in it.
        reason: protocol::JsonError::from(error).to_string(),
    })
}

/// Writes JSON so that it is there completely or not at all, and at no moment readable by others.
pub(crate) fn write_private<T: Serialize>(path: &Path, value: &T) -> Result<(), Error> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let write = || -> io::Result<()> {
        let mut file = tempfile::NamedTempFile::new_in(folder)?;
        serde_json::to_writer_pretty(&mut file, value)?;
        file.flush()?;
        file.persist(path).map_err(|error| error.error)?;
        Ok(())
    };
    write().map_err(Error::file("write", path))
}

/// The two files of a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paths {
    /// [`ClientFile`].
    pub client: PathBuf,
    /// [`EngineFile`].
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
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const ENGINE: &str = r#"{"ssh": "", "interface": "tcp://127.0.0.1", "registration": 1, "control": 2, "mux": 3, "task": 4,
        "iopub": 5, "hb_ping": 6, "hb_pong": 7, "broadcast": [8, 9], "key": "hunter2", "curve_serverkey": null,
        "location": "elsewhere", "pack": "json", "unpack": "json", "signature_scheme": "hmac-sha256"}"#;

    fn folder_with(text: &str) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file.json");
        fs::write(&path, text).unwrap();
        (folder, path)
    }

    #[test]
    fn a_file_of_ipcontroller_is_read_and_written_privately() {
        let (_folder, path) = folder_with(ENGINE);
        let file = EngineFile::read(&path).unwrap();
        assert_eq!(file.broadcast, [8, 9]);
        assert_eq!(file.compile, None);
        assert_eq!(file.endpoint(3), "tcp://127.0.0.1:3");
        assert!(!format!("{file:?}").contains("hunter2"));
        file.write(&path).unwrap();
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        assert_eq!(
            EngineFile::read(&path).unwrap().common.key.expose(),
            "hunter2"
        );
    }

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
    fn what_cannot_be_used_says_so_without_the_key() {
        let missing = EngineFile::read(Path::new("/nowhere/at/all")).unwrap_err();
        assert!(missing.to_string().contains("chorus cluster start"));
        for (from, to, says) in [
            ("\"mux\"", "\"xum\"", "`mux`"),
            ("hmac-sha256", "hmac-md5", "hmac-md5"),
            ("null", "\"abc\"", "CURVE"),
            ("\"pack\": \"json\"", "\"pack\": \"pickle\"", "pickle"),
            ("\"hunter2\"", "[\"hunter2\"]", "shape"),
        ] {
            let (_folder, path) = folder_with(&ENGINE.replace(from, to));
            let error = EngineFile::read(&path).unwrap_err();
            assert!(error.to_string().contains(says), "{error}");
            assert!(!format!("{error} {error:?}").contains("hunter2"));
        }
    }

    #[test]
    fn names() {
        let paths = Paths::new(Path::new("/s"), "");
        assert_eq!(paths.client, Path::new("/s/ipcontroller-client.json"));
        let paths = Paths::new(Path::new("/s"), "big");
        assert_eq!(paths.engine, Path::new("/s/ipcontroller-big-engine.json"));
    }
}
