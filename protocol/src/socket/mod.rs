//! Tasks that own ZeroMQ sockets, and the handles that everyone else has.
//!
//! A ZeroMQ socket must not be used by two threads at a time. [`SocketsBuilder`] gives a set of them to a task of their own, which hands what
//! arrives to a [`Service`] (a channel's sender is one) and sends what [`Sockets`] is given. The task sleeps until the runtime tells of
//! a socket's descriptor, of outgoing work, or of the service's deadline. Nothing here looks into a message, see [`crate::wire`] for that.

mod builder;
mod contact;
mod frames;
mod handle;
mod heartbeat;
mod outgoing;
mod service;
mod visitors;
mod worker;

#[cfg(test)]
mod tests;

use bytes::Bytes;
pub use zmq::SocketType;

pub use builder::{OpenSockets, SocketOptions, SocketsBuilder};
pub use contact::Contact;
pub use handle::Sockets;
pub use heartbeat::{Heartbeat, heartbeat};
pub use service::{Outlet, Service};

/// Names one socket of a set. The numbers are the caller's.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct SocketId(pub u16);

/// One multipart message as it came from a socket.
///
/// On an XPUB socket these are the subscriptions, see [`Subscription`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Received {
    /// The socket it came from.
    pub socket: SocketId,
    /// Its frames, at least one. Large ones are ZeroMQ's own memory.
    pub frames: Vec<Bytes>,
}

/// What a SUB socket told an XPUB socket.
///
/// Source: <https://rfc.zeromq.org/spec/29/>.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Subscription {
    /// Whether it subscribes; otherwise it unsubscribes.
    pub subscribes: bool,
    /// To which topic; empty for everything.
    pub topic: Bytes,
}

impl Subscription {
    /// The subscription that `frames`, received on an XPUB socket, are; none if they are something else.
    pub fn from_frames(frames: &[Bytes]) -> Option<Self> {
        let [frame] = frames else { return None };
        let subscribes = match frame.first()? {
            0 => false,
            1 => true,
            _ => return None,
        };
        Some(Self {
            subscribes,
            topic: frame.slice(1..),
        })
    }
}

/// Failed to set sockets up.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// A socket cannot be made.
    #[error("create a {socket_type:?} socket")]
    Create {
        /// Its type.
        socket_type: SocketType,
        /// Why.
        source: zmq::Error,
    },
    /// A socket does not take one of its options.
    #[error("set the option {option} of the {socket_type:?} socket")]
    SetOption {
        /// The socket's type.
        socket_type: SocketType,
        /// The option.
        option: &'static str,
        /// Why.
        source: zmq::Error,
    },
    /// A socket cannot be bound.
    #[error("bind to {endpoint}")]
    Bind {
        /// Where to.
        endpoint: String,
        /// Why.
        source: zmq::Error,
    },
    /// A socket cannot be connected. That nobody listens is no reason: ZeroMQ waits for a peer to appear.
    #[error("connect to {endpoint}")]
    Connect {
        /// Where to.
        endpoint: String,
        /// Why.
        source: zmq::Error,
    },
    /// One id was given two types of socket, or options without a socket.
    #[error("set up socket {}: it has two types, or options but no endpoint", .0.0)]
    Inconsistent(SocketId),
    /// The system does not tell when messages come.
    #[error("watch the sockets")]
    Watch(#[source] std::io::Error),
    /// The system gives no thread or no pipe.
    #[error("start the thread of a heartbeat")]
    Thread(#[source] std::io::Error),
}

/// Failed to send a message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// The set has no such socket.
    #[error("send: there is no socket {}", .0.0)]
    UnknownSocket(SocketId),
    /// The task that owns the sockets has ended.
    #[error("send: the sockets are closed")]
    Closed,
    /// No peer has the identity in the first frame.
    #[error("send: no peer has this identity")]
    Unroutable,
    /// A socket that waits for peers has none yet.
    #[error("send: no peer is connected")]
    NoPeer,
    /// ZeroMQ refused the message.
    #[error("send")]
    Refused(#[source] zmq::Error),
}
