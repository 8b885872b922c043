//! What a monitored socket tells of its connections.

use bytes::Bytes;
use zmq::SocketEvent;

/// The events that are asked for.
pub(super) const EVENTS: i32 = SocketEvent::HANDSHAKE_SUCCEEDED as i32
    | SocketEvent::DISCONNECTED as i32
    | SocketEvent::CONNECT_RETRIED as i32
    | SocketEvent::HANDSHAKE_FAILED_NO_DETAIL as i32
    | SocketEvent::HANDSHAKE_FAILED_PROTOCOL as i32;

/// Something happened to a connection of a monitored socket. ZeroMQ makes lost connections anew by itself.
///
/// Source: <https://libzmq.readthedocs.io/en/latest/zmq_socket_monitor.html>.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contact {
    /// A peer is there, and both know each other's identities. What a SUB socket subscribes to is on its way to it.
    Made,
    /// A connection was lost.
    Lost,
    /// Nobody answers at the endpoint, or not as ZeroMQ does. The socket tries again.
    Refused,
}

impl Contact {
    /// What `frames`, received from the monitor's socket, tell; nothing if they are something else.
    pub fn from_frames(frames: &[Bytes]) -> Option<Self> {
        // The event in the machine's byte order, its value, and the endpoint.
        let [event, _endpoint] = frames else {
            return None;
        };
        let number = i32::from(u16::from_ne_bytes(event.get(..2)?.try_into().ok()?));
        // `SocketEvent::from_raw` panics at numbers that it does not know.
        [
            (SocketEvent::HANDSHAKE_SUCCEEDED, Self::Made),
            (SocketEvent::DISCONNECTED, Self::Lost),
            (SocketEvent::CONNECT_RETRIED, Self::Refused),
            (SocketEvent::HANDSHAKE_FAILED_NO_DETAIL, Self::Refused),
            (SocketEvent::HANDSHAKE_FAILED_PROTOCOL, Self::Refused),
        ]
        .into_iter()
        .find_map(|(event, contact)| (event as i32 == number).then_some(contact))
    }
}
