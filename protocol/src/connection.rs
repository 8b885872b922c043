//! Connection files: where a kernel's sockets are and the key that its messages are signed with.
//!
//! Source: <https://jupyter-client.readthedocs.io/en/stable/kernels.html#connection-files>.

use std::io::{self, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::{fmt, fs};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::json::JsonError;

/// The one signature scheme that is spoken here.
pub const SIGNATURE_SCHEME: &str = "hmac-sha256";

/// How sockets are reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// TCP; ports are TCP ports.
    #[default]
    Tcp,
    /// Unix sockets; a port is the number at the end of a file's name.
    Ipc,
}

/// The key that messages are signed with. An empty key means that they are not signed.
///
/// `Debug` does not show it, and nothing here writes it anywhere but into a connection file.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Key(String);

impl Key {
    /// The empty key: messages are neither signed nor checked.
    pub fn none() -> Self {
        Self::default()
    }

    /// A new key of 244 random bits from the operating system, as 64 hexadecimal digits.
    pub fn random() -> Self {
        Self(format!(
            "{}{}",
            Uuid::new_v4().simple(),
            Uuid::new_v4().simple()
        ))
    }

    /// The key itself. Whoever calls this keeps it out of logs, errors and command lines.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether messages go unsigned.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl From<String> for Key {
    fn from(key: String) -> Self {
        Self(key)
    }
}

impl From<&str> for Key {
    fn from(key: &str) -> Self {
        Self(key.to_owned())
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(..hidden..)")
    }
}

/// A kernel's connection file.
#[derive(Clone, Serialize, Deserialize)]
pub struct ConnectionFile {
    /// How the sockets are reached.
    #[serde(default)]
    pub transport: Transport,
    /// The address that the sockets are bound to; with [`Transport::Ipc`] the start of their files' names.
    pub ip: String,
    /// Requests.
    pub shell_port: u16,
    /// Broadcasts.
    pub iopub_port: u16,
    /// Questions to the user.
    pub stdin_port: u16,
    /// Requests that do not wait behind others.
    pub control_port: u16,
    /// Heartbeat.
    pub hb_port: u16,
    /// The key.
    #[serde(default)]
    pub key: Key,
    /// How messages are signed: [`SIGNATURE_SCHEME`].
    #[serde(default = "signature_scheme")]
    pub signature_scheme: String,
    /// The kernelspec's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernel_name: Option<String>,
    /// Fields that are not known here, kept when the file is written again. `Debug` shows their names only: CURVE keys may
    /// be among them.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

fn signature_scheme() -> String {
    SIGNATURE_SCHEME.to_owned()
}

/// Failed to read or write a connection file. No message holds anything of the file's content but the scheme's name.
#[derive(Debug, thiserror::Error)]
pub enum ConnectionError {
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
    /// The file wants messages signed in a way that is not spoken here.
    #[error(
        "use the connection file {path}: its signature scheme is {scheme:?}, only \"{SIGNATURE_SCHEME}\" is supported"
    )]
    SignatureScheme {
        /// The file.
        path: PathBuf,
        /// What it asks for.
        scheme: String,
    },
    /// The file cannot be written.
    #[error("write the connection file {path}")]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl ConnectionFile {
    /// Reads the file at `path`.
    ///
    /// # Errors
    /// When it cannot be read, is no connection file, or asks for a signature scheme other than [`SIGNATURE_SCHEME`].
    pub fn read(path: &Path) -> Result<Self, ConnectionError> {
        let text = fs::read(path).map_err(|source| ConnectionError::Read {
            path: path.to_owned(),
            source,
        })?;
        let file: Self = serde_json::from_slice(&text).map_err(|error| ConnectionError::Parse {
            path: path.to_owned(),
            source: error.into(),
        })?;
        if file.signature_scheme != SIGNATURE_SCHEME {
            return Err(ConnectionError::SignatureScheme {
                path: path.to_owned(),
                scheme: file.signature_scheme,
            });
        }
        Ok(file)
    }

    /// Writes the file at `path`, readable by its owner only. It is there completely or not at all; what was there before is
    /// replaced.
    ///
    /// # Errors
    /// When the folder does not exist or cannot be written to.
    pub fn write(&self, path: &Path) -> Result<(), ConnectionError> {
        self.write_atomically(path)
            .map_err(|source| ConnectionError::Write {
                path: path.to_owned(),
                source,
            })
    }

    fn write_atomically(&self, path: &Path) -> io::Result<()> {
        let folder = match path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        // tempfile creates with mode 0600, so the key is at no moment readable by others.
        let mut file = tempfile::NamedTempFile::new_in(folder)?;
        serde_json::to_writer_pretty(&mut file, self)?;
        file.flush()?;
        file.persist(path).map_err(|error| error.error)?;
        Ok(())
    }

    /// The ZeroMQ endpoint of one of the ports: `tcp://ip:port` or `ipc://ip-port`.
    pub fn endpoint(&self, port: u16) -> String {
        match self.transport {
            // libzmq binds to addresses and interfaces, not to names.
            Transport::Tcp if self.ip == "localhost" => format!("tcp://127.0.0.1:{port}"),
            Transport::Tcp if self.ip.contains(':') && !self.ip.starts_with('[') => {
                format!("tcp://[{}]:{port}", self.ip)
            }
            Transport::Tcp => format!("tcp://{}:{port}", self.ip),
            Transport::Ipc => format!("ipc://{}-{port}", self.ip),
        }
    }

    /// A connection on the loopback address with five ports that are free now, and a random key. For clients that start a
    /// kernel: another process may take a port before the kernel binds it.
    ///
    /// # Errors
    /// When the system has no free ports.
    pub fn local_random() -> io::Result<Self> {
        let mut listeners = Vec::with_capacity(5);
        // All are held until all are known, so that they differ.
        let mut port = || {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
            let port = listener.local_addr()?.port();
            listeners.push(listener);
            io::Result::Ok(port)
        };
        Ok(Self {
            transport: Transport::Tcp,
            ip: Ipv4Addr::LOCALHOST.to_string(),
            shell_port: port()?,
            iopub_port: port()?,
            stdin_port: port()?,
            control_port: port()?,
            hb_port: port()?,
            key: Key::random(),
            signature_scheme: signature_scheme(),
            kernel_name: None,
            extra: Map::new(),
        })
    }
}

impl fmt::Debug for ConnectionFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectionFile")
            .field("transport", &self.transport)
            .field("ip", &self.ip)
            .field("shell_port", &self.shell_port)
            .field("iopub_port", &self.iopub_port)
            .field("stdin_port", &self.stdin_port)
            .field("control_port", &self.control_port)
            .field("hb_port", &self.hb_port)
            .field("key", &self.key)
            .field("signature_scheme", &self.signature_scheme)
            .field("kernel_name", &self.kernel_name)
            .field("extra", &self.extra.keys().collect::<Vec<_>>())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const FILE: &str = r#"{"shell_port": 1, "iopub_port": 2, "stdin_port": 3, "control_port": 4, "hb_port": 5,
        "ip": "127.0.0.1", "key": "hunter2", "transport": "tcp", "signature_scheme": "hmac-sha256",
        "kernel_name": "rust", "jupyter_session": "a.ipynb", "curve_secretkey": "hunter3"}"#;

    fn file_with(text: &str) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), text).unwrap();
        file
    }

    #[test]
    fn a_file_is_read_written_and_read_again() {
        let file = ConnectionFile::read(file_with(FILE).path()).unwrap();
        let ports = [
            file.shell_port,
            file.iopub_port,
            file.stdin_port,
            file.control_port,
            file.hb_port,
        ];
        assert_eq!(ports, [1, 2, 3, 4, 5]);
        assert_eq!(file.key.expose(), "hunter2");
        assert_eq!(file.kernel_name.as_deref(), Some("rust"));

        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("kernel.json");
        fs::write(&path, "readable by all").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        file.write(&path).unwrap();
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        let old: Value = serde_json::from_str(FILE).unwrap();
        let new: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        assert_eq!(old, new);
        assert_eq!(
            fs::read_dir(folder.path()).unwrap().count(),
            1,
            "a temporary file is left behind"
        );
    }

    #[test]
    fn keys_stay_hidden() {
        let file = ConnectionFile::read(file_with(FILE).path()).unwrap();
        let shown = format!("{file:?} {:?} {:#?}", file.key, file);
        assert!(!shown.contains("hunter"), "{shown}");
        let broken = FILE
            .replace("\"hunter2\"", "[\"hunter2\"]")
            .replace("\"tcp\"", "\"hunter4\"");
        let error = ConnectionFile::read(file_with(&broken).path()).unwrap_err();
        assert!(
            !format!("{error} {error:?}").contains("hunter"),
            "{error:?}"
        );
    }

    #[test]
    fn what_cannot_be_spoken_is_refused() {
        let md5 = file_with(&FILE.replace("hmac-sha256", "hmac-md5"));
        let error = ConnectionFile::read(md5.path()).unwrap_err();
        assert!(
            matches!(&error, ConnectionError::SignatureScheme { scheme, .. } if scheme == "hmac-md5")
        );
        assert!(error.to_string().contains("hmac-sha256"));
        assert!(matches!(
            ConnectionFile::read(Path::new("/nowhere/at/all")),
            Err(ConnectionError::Read { .. })
        ));
        assert!(matches!(
            ConnectionFile::read(file_with("{").path()),
            Err(ConnectionError::Parse { .. })
        ));
        let unbound = FILE.replace("\"hb_port\"", "\"heart_port\"");
        let error = ConnectionFile::read(file_with(&unbound).path()).unwrap_err();
        let ConnectionError::Parse { source, .. } = error else {
            panic!("{error:?}")
        };
        assert!(source.to_string().contains("`hb_port`"), "{source}");
    }

    #[test]
    fn endpoints() {
        let mut file = ConnectionFile::read(file_with(FILE).path()).unwrap();
        for (transport, ip, endpoint) in [
            (Transport::Tcp, "127.0.0.1", "tcp://127.0.0.1:7"),
            (Transport::Tcp, "localhost", "tcp://127.0.0.1:7"),
            (Transport::Tcp, "*", "tcp://*:7"),
            (Transport::Tcp, "::1", "tcp://[::1]:7"),
            (Transport::Tcp, "[::1]", "tcp://[::1]:7"),
            (Transport::Ipc, "/run/kernel", "ipc:///run/kernel-7"),
        ] {
            (file.transport, file.ip) = (transport, ip.to_owned());
            assert_eq!(file.endpoint(7), endpoint);
        }
    }

    #[test]
    fn random_connections_differ() {
        let (one, two) = (
            ConnectionFile::local_random().unwrap(),
            ConnectionFile::local_random().unwrap(),
        );
        assert_ne!(one.key.expose(), two.key.expose());
        let ports = [
            one.shell_port,
            one.iopub_port,
            one.stdin_port,
            one.control_port,
            one.hb_port,
        ];
        assert_eq!(BTreeSet::from(ports).len(), 5);
    }
}
