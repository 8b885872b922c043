//! Opening a controller's sockets and telling where they are.

use std::fs;
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use protocol::{
    Key, OpenSockets, Session, SocketId, SocketOptions, SocketType, Sockets, SocketsBuilder,
};

use super::core::{Channel, Core};
use super::{Config, driver};
use crate::Error;
use crate::connection::{ClientFile, Common, EngineFile, Paths};
use crate::profile::{TransportSetting, private_folder};

/// The longest path of a Unix socket, in bytes, without the end of a C string.
const PATH_LIMIT: usize = 107;
/// The start of the sockets' names in their folder.
const PREFIX: &str = "s";

/// All sockets with their types.
pub(super) const SOCKETS: [(Channel, SocketType); 14] = [
    (Channel::Query, SocketType::ROUTER),
    (Channel::Notification, SocketType::XPUB),
    (Channel::MuxClient, SocketType::ROUTER),
    (Channel::MuxEngine, SocketType::ROUTER),
    (Channel::TaskClient, SocketType::ROUTER),
    (Channel::TaskEngine, SocketType::ROUTER),
    (Channel::ControlClient, SocketType::ROUTER),
    (Channel::ControlEngine, SocketType::ROUTER),
    (Channel::BroadcastClient, SocketType::ROUTER),
    (Channel::BroadcastEngine, SocketType::ROUTER),
    (Channel::IopubClient, SocketType::XPUB),
    (Channel::IopubEngine, SocketType::SUB),
    (Channel::Ping, SocketType::PUB),
    (Channel::Pong, SocketType::ROUTER),
];

impl Channel {
    pub(super) fn socket(self) -> SocketId {
        let index = SOCKETS.iter().position(|(channel, _)| *channel == self);
        SocketId(
            index
                .and_then(|index| u16::try_from(index).ok())
                .unwrap_or(0),
        )
    }

    pub(super) fn of(socket: SocketId) -> Option<Self> {
        SOCKETS
            .get(usize::from(socket.0))
            .map(|(channel, _)| *channel)
    }
}

/// A controller's connection files. Removed when the controller ends, unless others are there by then.
pub type Files = Paths;

/// A controller whose sockets are open.
#[derive(Debug)]
pub struct Open {
    sockets: OpenSockets,
    session: Session,
    core: Core,
    files: Files,
    written: Vec<u8>,
    /// The Unix sockets' folder.
    folder: Option<PathBuf>,
    keep: bool,
}

impl Open {
    /// Opens the sockets and writes the connection files.
    ///
    /// # Errors
    /// When that cannot be done, or would make the controller reachable by others who should not.
    pub fn new(config: Config) -> Result<Self, Error> {
        config.settings.network.check()?;
        private_folder(&config.security)?;
        let files = Paths::new(&config.security, &config.cluster_id);
        let left = match config.reuse && files.engine.exists() && files.client.exists() {
            true => Some((
                ClientFile::read(&files.client)?,
                EngineFile::read(&files.engine)?,
            )),
            false => None,
        };
        let key = left
            .as_ref()
            .map_or_else(Key::random, |(client, _)| client.common.key.clone());
        let (interface, folder) = match &left {
            Some((client, _)) => (
                client.interface.clone(),
                socket_folder(&client.interface).map(Path::to_owned),
            ),
            None => new_interface(&config)?,
        };
        if let Some(folder) = &folder {
            private_folder(folder)?;
        }
        let ipc = folder.is_some();
        let mut builder = SocketsBuilder::new();
        for (number, (channel, socket_type)) in SOCKETS.into_iter().enumerate() {
            let port = match &left {
                Some((client, engine)) => port_of(channel, client, engine),
                // Numbers of Unix sockets are names. TCP's are the system's choice.
                None if ipc => u16::try_from(number + 1).unwrap_or(0),
                None => 0,
            };
            let options = SocketOptions {
                identity: channel
                    .identity()
                    .map(|name| Bytes::from_static(name.as_bytes())),
                ..SocketOptions::default()
            };
            builder = builder
                .bind(channel.socket(), socket_type, format!("{interface}:{port}"))
                .options(channel.socket(), options);
        }
        let sockets = builder.open()?;
        let port = |channel: Channel| {
            let endpoint = sockets.endpoint(channel.socket());
            let port = endpoint.and_then(|endpoint| endpoint.rsplit_once(':'));
            port.and_then(|(_, port)| port.parse().ok()).unwrap_or(0)
        };
        let common = match left.as_ref() {
            Some((client, _)) => client.common.clone(),
            None => Common::new(key.clone(), &config.cluster_id),
        };
        let compile = match &left {
            Some((_, engine)) => engine.compile,
            None if ipc => u16::try_from(SOCKETS.len() + 1).ok(),
            None => free_port(&config.settings.network.address),
        };
        let client = ClientFile {
            interface: interface.clone(),
            registration: port(Channel::Query),
            control: port(Channel::ControlClient),
            mux: port(Channel::MuxClient),
            task: port(Channel::TaskClient),
            task_scheme: config.settings.scheduler.scheme.as_str().to_owned(),
            iopub: port(Channel::IopubClient),
            notification: port(Channel::Notification),
            broadcast: port(Channel::BroadcastClient),
            common: common.clone(),
        };
        let engine = EngineFile {
            interface,
            registration: port(Channel::Query),
            control: port(Channel::ControlEngine),
            mux: port(Channel::MuxEngine),
            task: port(Channel::TaskEngine),
            iopub: port(Channel::IopubEngine),
            hb_ping: port(Channel::Ping),
            hb_pong: port(Channel::Pong),
            broadcast: vec![port(Channel::BroadcastEngine)],
            compile,
            libraries: config.libraries,
            common,
        };
        engine.write(&files.engine)?;
        client.write(&files.client)?;
        let written = fs::read(&files.client).map_err(Error::file("read", &files.client))?;
        Ok(Self {
            sockets,
            session: Session::new(&key),
            core: Core::new(&config.settings, fastrand::Rng::new()),
            files,
            written,
            folder,
            keep: config.reuse,
        })
    }

    /// Where the connection files are.
    pub fn files(&self) -> &Files {
        &self.files
    }

    /// Serves until `stop`, or until a client asks for the end.
    ///
    /// # Errors
    /// The system does not watch the sockets.
    pub async fn serve(self, stop: impl Future<Output = ()>) -> Result<(), Error> {
        self.serve_with(|_| {}, stop).await
    }

    /// As [`Self::serve`]; `started` is given the sockets when they are served.
    pub(super) async fn serve_with(
        self,
        started: impl FnOnce(&Sockets),
        stop: impl Future<Output = ()>,
    ) -> Result<(), Error> {
        let Self {
            sockets,
            session,
            core,
            ..
        } = self;
        let outcome = driver::drive(sockets, session, core, started, stop).await;
        if self.keep {
            return outcome;
        }
        // Another controller may have written its own by now.
        if fs::read(&self.files.client).is_ok_and(|text| text == self.written) {
            for path in [&self.files.client, &self.files.engine] {
                if let Err(error) = fs::remove_file(path) {
                    tracing::warn!(path = %path.display(), %error, "failed to remove a connection file");
                }
            }
        }
        if let Some(folder) = self.folder
            && let Err(error) = fs::remove_dir_all(&folder)
        {
            tracing::debug!(path = %folder.display(), %error, "failed to remove the socket folder");
        }
        outcome
    }
}

/// Removes the Unix sockets of a controller at which nobody listens, and their folder if nothing else is in it.
pub(crate) fn remove_sockets(interface: &str) {
    let Some(folder) = socket_folder(interface) else {
        return;
    };
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let ours = name
            .to_str()
            .and_then(|name| name.strip_prefix(PREFIX)?.strip_prefix(':'))
            .is_some_and(|number| number.parse::<u16>().is_ok());
        let nobody = || {
            let connected = UnixStream::connect(entry.path());
            connected.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
        };
        if ours
            && entry.file_type().is_ok_and(|it| it.is_socket())
            && nobody()
            && let Err(error) = fs::remove_file(entry.path())
        {
            tracing::debug!(path = %entry.path().display(), %error, "failed to remove a socket");
        }
    }
    // Others' folders are not empty.
    if let Err(error) = fs::remove_dir(folder) {
        tracing::debug!(path = %folder.display(), %error, "failed to remove a folder of sockets");
    }
}

/// The folder of the Unix sockets that an interface of a controller's names.
fn socket_folder(interface: &str) -> Option<&Path> {
    Path::new(interface.strip_prefix("ipc://")?).parent()
}

fn new_interface(config: &Config) -> Result<(String, Option<PathBuf>), Error> {
    let network = &config.settings.network;
    if network.transport == TransportSetting::Tcp {
        let address = match network.address.as_str() {
            "localhost" => "127.0.0.1",
            "*" => "0.0.0.0",
            address => address,
        };
        let address = match address.contains(':') && !address.starts_with('[') {
            true => format!("[{address}]"),
            false => address.to_owned(),
        };
        return Ok((format!("tcp://{address}"), None));
    }
    let parent = dirs::runtime_dir().filter(|folder| folder.is_dir());
    let parent = parent.unwrap_or_else(std::env::temp_dir);
    let made = tempfile::Builder::new()
        .prefix("chorus-")
        .rand_bytes(8)
        .tempdir_in(&parent)
        .map_err(Error::file("make a folder for sockets in", &parent))?;
    let folder = made.keep();
    let longest = format!("{}/{PREFIX}:65535", folder.display());
    if longest.len() > PATH_LIMIT {
        return Err(Error::LongPath {
            path: folder,
            limit: PATH_LIMIT,
        });
    }
    Ok((format!("ipc://{}/{PREFIX}", folder.display()), Some(folder)))
}

fn port_of(channel: Channel, client: &ClientFile, engine: &EngineFile) -> u16 {
    match channel {
        Channel::Query => client.registration,
        Channel::Notification => client.notification,
        Channel::MuxClient => client.mux,
        Channel::MuxEngine => engine.mux,
        Channel::TaskClient => client.task,
        Channel::TaskEngine => engine.task,
        Channel::ControlClient => client.control,
        Channel::ControlEngine => engine.control,
        Channel::BroadcastClient => client.broadcast,
        Channel::BroadcastEngine => engine.broadcast.first().copied().unwrap_or(0),
        Channel::IopubClient => client.iopub,
        Channel::IopubEngine => engine.iopub,
        Channel::Ping => engine.hb_ping,
        Channel::Pong => engine.hb_pong,
    }
}

/// A port that the compile service can bind: free now, and the system gives it to nobody else soon.
fn free_port(address: &str) -> Option<u16> {
    let address = match address {
        "*" => "0.0.0.0",
        address => address.trim_matches(['[', ']']),
    };
    let listener = std::net::TcpListener::bind((address, 0)).ok()?;
    Some(listener.local_addr().ok()?.port())
}
