//! Describing a set of sockets, opening them, and starting the task that owns them.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use zmq::SocketType;

use super::outgoing::Outgoing;
use super::worker::{Owned, Worker};
use super::{Received, Service, SocketError, SocketId, Sockets, contact};

/// What can be set for each socket. High-water marks are not among them: they are always 0, so that nothing is dropped and
/// nothing blocks; whoever sends bounds what he sends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SocketOptions {
    /// The name under which ROUTER peers address this socket, at most 255 bytes; ZeroMQ invents one if there is none.
    pub identity: Option<Bytes>,
    /// ROUTER: a message for a peer that is not there is an error instead of nothing.
    pub router_mandatory: bool,
    /// ROUTER: a peer that comes back under its identity takes its old connection's place. Without it a client that
    /// reconnects may be deaf, see <https://github.com/ipython/ipykernel/issues/270>.
    pub router_handover: bool,
    /// SUB: the topics' beginnings; an empty one is everything.
    pub subscriptions: Vec<Bytes>,
    /// How long closing waits for what is sent but not yet taken by peers.
    pub linger: Duration,
    /// After how long without a sign of life a TCP peer counts as gone: ZeroMQ then closes the connection. `None`: when the system
    /// says so, which takes hours if the peer's machine has vanished.
    pub heartbeat: Option<Duration>,
}

impl Default for SocketOptions {
    /// No identity, ROUTER mandatory with handover, SUB to everything, one second of linger, no heartbeat.
    fn default() -> Self {
        Self {
            identity: None,
            router_mandatory: true,
            router_handover: true,
            subscriptions: vec![Bytes::new()],
            linger: Duration::from_secs(1),
            heartbeat: None,
        }
    }
}

/// A set of sockets to be opened.
#[derive(Debug)]
pub struct SocketsBuilder {
    sockets: Vec<Wanted>,
    options: HashMap<SocketId, SocketOptions>,
    monitors: HashMap<SocketId, SocketId>,
}

#[derive(Debug)]
struct Wanted {
    id: SocketId,
    socket_type: SocketType,
    endpoint: String,
    bind: bool,
}

impl Default for SocketsBuilder {
    fn default() -> Self {
        Self::new()
    }
}

impl SocketsBuilder {
    /// An empty set.
    pub fn new() -> Self {
        Self {
            sockets: Vec::new(),
            options: HashMap::new(),
            monitors: HashMap::new(),
        }
    }

    /// Binds a socket. Port 0 or `ipc://*` lets the system choose, see [`Sockets::endpoint`]. A socket that is named again
    /// gets one more endpoint.
    #[must_use]
    pub fn bind(self, id: SocketId, socket_type: SocketType, endpoint: impl Into<String>) -> Self {
        self.want(id, socket_type, endpoint.into(), true)
    }

    /// Connects a socket. A socket that is named again gets one more endpoint.
    #[must_use]
    pub fn connect(
        self,
        id: SocketId,
        socket_type: SocketType,
        endpoint: impl Into<String>,
    ) -> Self {
        self.want(id, socket_type, endpoint.into(), false)
    }

    /// Sets a socket's options, before or after naming its endpoints.
    #[must_use]
    pub fn options(mut self, id: SocketId, options: SocketOptions) -> Self {
        self.options.insert(id, options);
        self
    }

    /// Tells of the connections of socket `of`, before or after naming its endpoints: what is received from the socket `news`, which
    /// nobody sends to, is read by [`super::Contact::from_frames`].
    #[must_use]
    pub fn monitor(mut self, of: SocketId, news: SocketId) -> Self {
        self.monitors.insert(of, news);
        self
    }

    fn want(mut self, id: SocketId, socket_type: SocketType, endpoint: String, bind: bool) -> Self {
        self.sockets.push(Wanted {
            id,
            socket_type,
            endpoint,
            bind,
        });
        self
    }

    /// Opens the sockets, and has a task own them, see [`OpenSockets::serve`]. What they receive comes out of the receiver, in order for each socket;
    /// if it is dropped, what they receive is thrown away.
    ///
    /// # Errors
    /// When a socket cannot be opened; then none is.
    pub fn start(self) -> Result<(Sockets, mpsc::UnboundedReceiver<Received>), SocketError> {
        let (sender, receiver) = mpsc::unbounded_channel();
        Ok((self.open()?.serve(sender)?, receiver))
    }

    /// Opens the sockets.
    ///
    /// # Errors
    /// When a socket cannot be opened; then none is.
    pub fn open(mut self) -> Result<OpenSockets, SocketError> {
        let context = zmq::Context::new();
        let mut owned: Vec<Owned> = Vec::new();
        let mut endpoints = HashMap::new();
        for wanted in &self.sockets {
            let known = owned.iter().position(|owned| owned.id == wanted.id);
            let index = known.unwrap_or(owned.len());
            if known.is_none() {
                let options = self.options.remove(&wanted.id).unwrap_or_default();
                let socket = open(&context, wanted.socket_type, &options)?;
                let news = self.monitors.remove(&wanted.id);
                let news = news.map(|news| (news, monitored(&context, &socket, wanted)));
                owned.push(Owned::new(wanted.id, wanted.socket_type, socket));
                if let Some((id, monitor)) = news {
                    owned.push(Owned::new(id, SocketType::PAIR, monitor?));
                }
            }
            let Some(Owned {
                socket,
                socket_type,
                ..
            }) = owned.get(index)
            else {
                continue;
            };
            if *socket_type != wanted.socket_type {
                return Err(SocketError::Inconsistent(wanted.id));
            }
            endpoints.insert(wanted.id, attach(socket, wanted)?);
        }
        if let Some(id) = self
            .options
            .into_keys()
            .chain(self.monitors.into_keys())
            .next()
        {
            return Err(SocketError::Inconsistent(id));
        }

        Ok(OpenSockets { owned, endpoints })
    }
}

/// Sockets that peers can connect to, and that nobody reads yet.
#[derive(Debug)]
pub struct OpenSockets {
    owned: Vec<Owned>,
    endpoints: HashMap<SocketId, String>,
}

impl OpenSockets {
    /// As [`Sockets::endpoint`].
    pub fn endpoint(&self, socket: SocketId) -> Option<&str> {
        self.endpoints.get(&socket).map(String::as_str)
    }

    /// Has a task own the sockets, in which the service handles what they receive. What the runtime's other tasks send and receive
    /// wakes no thread then; but none of them may block, or nothing is heard. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// The system does not watch the sockets.
    pub fn serve(self, service: impl Service) -> Result<Sockets, SocketError> {
        let outgoing = Arc::new(Outgoing::default());
        let worker = Worker::new(self.owned, Arc::clone(&outgoing), service);
        let descriptors = worker.descriptors().map_err(SocketError::Watch)?;
        tokio::spawn(worker.run(descriptors));
        Ok(Sockets::new(outgoing, self.endpoints))
    }
}

fn open(
    context: &zmq::Context,
    socket_type: SocketType,
    options: &SocketOptions,
) -> Result<zmq::Socket, SocketError> {
    let socket = context
        .socket(socket_type)
        .map_err(|source| SocketError::Create {
            socket_type,
            source,
        })?;
    let set = |option, result: zmq::Result<()>| {
        result.map_err(|source| SocketError::SetOption {
            socket_type,
            option,
            source,
        })
    };
    set("sndhwm", socket.set_sndhwm(0))?;
    set("rcvhwm", socket.set_rcvhwm(0))?;
    set(
        "linger",
        socket.set_linger(i32::try_from(options.linger.as_millis()).unwrap_or(i32::MAX)),
    )?;
    if let Some(silence) = options.heartbeat {
        let milliseconds = i32::try_from(silence.as_millis()).unwrap_or(i32::MAX);
        set(
            "heartbeat_ivl",
            socket.set_heartbeat_ivl((milliseconds / 3).max(1)),
        )?;
        set(
            "heartbeat_timeout",
            socket.set_heartbeat_timeout(milliseconds),
        )?;
    }
    if let Some(identity) = &options.identity {
        set("identity", socket.set_identity(identity))?;
    }
    match socket_type {
        SocketType::ROUTER => {
            set(
                "router_mandatory",
                socket.set_router_mandatory(options.router_mandatory),
            )?;
            set(
                "router_handover",
                socket.set_router_handover(options.router_handover),
            )?;
        }
        SocketType::SUB => {
            for topic in &options.subscriptions {
                set("subscribe", socket.set_subscribe(topic))?;
            }
        }
        // Otherwise a second client that subscribes to what a first one has would go unnoticed.
        SocketType::XPUB => set("xpub_verbose", socket.set_xpub_verbose(true))?,
        _ => {}
    }
    Ok(socket)
}

/// A socket that hears of another one's connections from now on.
fn monitored(
    context: &zmq::Context,
    socket: &zmq::Socket,
    wanted: &Wanted,
) -> Result<zmq::Socket, SocketError> {
    let endpoint = format!("inproc://monitor-{}", wanted.id.0);
    let monitor = || {
        socket.monitor(&endpoint, contact::EVENTS)?;
        let monitor = context.socket(SocketType::PAIR)?;
        monitor.set_linger(0)?;
        monitor.connect(&endpoint)?;
        Ok(monitor)
    };
    monitor().map_err(|source| SocketError::SetOption {
        socket_type: wanted.socket_type,
        option: "monitor",
        source,
    })
}

/// Binds or connects, and tells the endpoint in use.
fn attach(socket: &zmq::Socket, wanted: &Wanted) -> Result<String, SocketError> {
    let endpoint = wanted.endpoint.clone();
    let failed = |source| match wanted.bind {
        true => SocketError::Bind {
            endpoint: wanted.endpoint.clone(),
            source,
        },
        false => SocketError::Connect {
            endpoint: wanted.endpoint.clone(),
            source,
        },
    };
    if endpoint.contains('\0') {
        return Err(failed(zmq::Error::EINVAL));
    }
    if endpoint.contains('[') {
        socket.set_ipv6(true).map_err(failed)?;
    }
    if !wanted.bind {
        socket.connect(&endpoint).map_err(failed)?;
        return Ok(endpoint);
    }
    socket.bind(&endpoint).map_err(failed)?;
    let bound = socket.get_last_endpoint().map_err(failed)?;
    Ok(bound.unwrap_or(endpoint))
}
