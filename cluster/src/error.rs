//! What can go wrong with a cluster, each with what to do about it.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use protocol::cluster::FileError;

/// Failed to do something with a cluster.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or folder cannot be used.
    #[error("{doing} {path}")]
    File {
        /// What was tried, in the infinitive.
        doing: &'static str,
        /// With what.
        path: PathBuf,
        /// The system's words.
        source: io::Error,
    },
    /// There is no connection file.
    #[error(
        "find the connection file {path}: no cluster is running there, or it uses another profile or id; `chorus cluster list` shows \
         those that run, `chorus cluster start` starts one"
    )]
    NoConnectionFile {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// A file is not a connection file.
    #[error("read the connection file {path}: {reason}; `chorus cluster clean` removes stale ones")]
    ConnectionFile {
        /// The file.
        path: PathBuf,
        /// Names our fields, never the file's content.
        reason: String,
    },
    /// The name of a profile or cluster cannot be part of a file's name.
    #[error(
        "use the name {name:?}: only letters, digits, `_`, `-` and `.` are allowed, and it must not begin with a dot"
    )]
    Name {
        /// The name.
        name: String,
    },
    /// There is no such profile.
    #[error(
        "find the profile {name:?} ({path} does not exist); `chorus profile create {name}` makes it"
    )]
    NoProfile {
        /// Its name.
        name: String,
        /// Its folder.
        path: PathBuf,
    },
    /// The profile exists.
    #[error("create the profile {name:?}: {path} exists; edit that file, or take another name")]
    ProfileExists {
        /// Its name.
        name: String,
        /// Its file.
        path: PathBuf,
    },
    /// A profile's file cannot be understood.
    #[error("read the settings in {path}: {reason}")]
    Settings {
        /// The file.
        path: PathBuf,
        /// Line, and what is wrong with it.
        reason: String,
    },
    /// The controller was asked to listen where everybody can reach it.
    #[error(
        "listen on {address}: messages are signed but not encrypted, so only loopback addresses are used. Tunnel with ssh, or set \
         `insecure = true` under [network] if the network is trusted"
    )]
    NotLoopback {
        /// The address.
        address: String,
    },
    /// A Unix socket's path must be short.
    #[error(
        "use the socket folder {path}: its path is longer than {limit} bytes; set TMPDIR or XDG_RUNTIME_DIR to a shorter one"
    )]
    LongPath {
        /// The folder.
        path: PathBuf,
        /// Bytes.
        limit: usize,
    },
    /// A socket cannot be opened.
    #[error(
        "open the cluster's sockets; if an address is in use, another cluster has it: `chorus cluster list` shows those that run"
    )]
    Socket(#[from] protocol::SocketError),
    /// The connection file demands what is not there.
    #[error("use the connection file {path}: it asks for {what}, which is not supported")]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// What it asks for.
        what: String,
    },
    /// The controller refused to register an engine.
    #[error("register with the controller: {reason}")]
    Refused {
        /// Its words.
        reason: String,
    },
    /// Nobody answered.
    #[error(
        "get an answer from the controller at {endpoint} within {waited:?}; if it has died, `chorus cluster clean` removes what it left"
    )]
    NoAnswer {
        /// Where it should be.
        endpoint: String,
        /// How long it was given.
        waited: Duration,
    },
    /// The controller answered with an error.
    #[error("have the controller do that: {ename}: {evalue}")]
    Hub {
        /// The error's name.
        ename: String,
        /// What it says.
        evalue: String,
    },
    /// A cluster of this name runs.
    #[error(
        "start the cluster {name}: it is running already (its controller is in process {pid}); `chorus cluster stop{stop}` stops it, \
         `--cluster-id` starts another one beside it"
    )]
    AlreadyRunning {
        /// Profile and id, for people.
        name: String,
        /// The process that its controller is, or is in.
        pid: u32,
        /// The options that name it, after a space each.
        stop: String,
    },
    /// No cluster of this name runs.
    #[error(
        "find the cluster {name}: it is not running; `chorus cluster start{options}` starts it"
    )]
    NotRunning {
        /// Profile and id, for people.
        name: String,
        /// The options that name it, after a space each.
        options: String,
    },
    /// There is no such engine.
    #[error("find engine {id}: there are {known}")]
    NoEngine {
        /// What was asked for.
        id: crate::EngineId,
        /// Those there are, for people.
        known: String,
    },
    /// A process of the cluster ended while it started.
    #[error("start the {role}: {reason}; its log is {log}")]
    Process {
        /// Which.
        role: &'static str,
        /// Its last words.
        reason: String,
        /// Where the rest of them is.
        log: PathBuf,
    },
    /// The system refused.
    #[error("{doing}")]
    System {
        /// What was tried, in the infinitive.
        doing: &'static str,
        /// The system's words.
        source: io::Error,
    },
    /// The runtime that user code runs in cannot start.
    #[error("start the engine's runtime: {reason}")]
    Runtime {
        /// Why.
        reason: String,
    },
}

impl From<FileError> for Error {
    fn from(error: FileError) -> Self {
        match error {
            FileError::Read { path, source } if source.kind() == io::ErrorKind::NotFound => {
                Self::NoConnectionFile { path }
            }
            FileError::Read { path, source } => Self::File {
                doing: "read the connection file",
                path,
                source,
            },
            FileError::Parse { path, source } => Self::ConnectionFile {
                path,
                reason: source.to_string(),
            },
            FileError::Unsupported { path, what } => Self::Unsupported { path, what },
            FileError::Write { path, source } => Self::File {
                doing: "write",
                path,
                source,
            },
        }
    }
}

impl Error {
    /// An error of the file system, for `map_err`.
    pub(crate) fn file(
        doing: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File {
            doing,
            path,
            source,
        }
    }

    /// An error of the system, for `map_err`.
    pub(crate) fn system(doing: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::System { doing, source }
    }

    /// The error and its causes in one line.
    pub fn chain(&self) -> String {
        format!("failed to {}", protocol::chain(self))
    }
}
