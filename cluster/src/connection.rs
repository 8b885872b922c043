//! Connection files: where a controller's sockets are, for clients and for engines, in ipyparallel's format.
//!
//! What clients need is in [`protocol::cluster`], and found here too; what only engines know is here.

use std::path::{Path, PathBuf};

pub use protocol::cluster::{ClientFile, Common, Paths};
use serde::{Deserialize, Serialize};

use crate::Error;

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

/// Shared objects that a runtime loads before any snippet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Libraries {
    /// `libchorus_support.so`.
    pub support: PathBuf,
    /// What it needs in turn: the toolchain's `libstd-*.so`.
    pub preload: Vec<PathBuf>,
}

impl EngineFile {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// When it is not there, is no engine's connection file, or asks for what is not spoken here.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let file: Self = protocol::cluster::read(path)?;
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
        protocol::cluster::endpoint(&self.interface, port, self.common.location.as_deref())
    }
}

/// Writes JSON so that it is there completely or not at all, and at no moment readable by others.
pub(crate) fn write_private<T: Serialize>(path: &Path, value: &T) -> Result<(), Error> {
    Ok(protocol::cluster::write_private(path, value)?)
}

#[cfg(test)]
mod tests {
    use std::fs;
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
}
