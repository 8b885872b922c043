//! The Jupyter message protocol: frames, signing, typed messages, and the tasks that own ZeroMQ sockets.
//!
//! The protocol is version 5.5 of <https://jupyter-client.readthedocs.io/en/stable/messaging.html>. Nothing here knows
//! whether it serves a kernel, a controller, an engine or a client: which messages are answered, and how, is theirs.
//!
//! - [`message`]: what is said. Values and their JSON, no I/O.
//! - [`wire`]: messages to frames and back, signed and checked. No I/O.
//! - [`connection`]: a kernel's connection files, and keys. [`cluster`]: a cluster's, for its clients.
//! - [`machine`]: whether two processes share memory.
//! - [`socket`]: tasks that own ZeroMQ sockets, and the handles to them. The only place with sockets in it.

pub mod cluster;
pub mod connection;
pub mod json;
pub mod machine;
pub mod message;
pub mod socket;
pub mod wire;

pub use connection::{ConnectionError, ConnectionFile, Key, Transport};
pub use json::{JsonError, RawJson};
pub use message::{Content, Header, Message, Reply};
pub use socket::{
    Contact, Heartbeat, OpenSockets, Outlet, Received, SendError, Service, SocketError, SocketId,
    SocketOptions, SocketType, Sockets, SocketsBuilder, Subscription, heartbeat,
};
pub use wire::{Headers, Session, WireError};

/// An error and its causes in one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(": ")
}
