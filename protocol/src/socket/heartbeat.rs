//! The heartbeat: a thread that sends back whatever it is sent, however busy everything else is.
//!
//! Source: <https://jupyter-client.readthedocs.io/en/stable/messaging.html#heartbeat-for-kernels>.

use std::io::{self, PipeReader, PipeWriter};
use std::os::fd::AsRawFd;
use std::thread::JoinHandle;

use zmq::{DONTWAIT, POLLIN, SNDMORE, SocketType};

use super::SocketError;
use super::frames::retried;

/// A running heartbeat. It ends when this is dropped.
#[derive(Debug)]
pub struct Heartbeat {
    endpoint: String,
    // Closing the pipe is what ends the thread.
    stop: Option<PipeWriter>,
    thread: Option<JoinHandle<()>>,
}

/// Starts a heartbeat at `endpoint`.
///
/// # Errors
/// When the endpoint cannot be bound.
pub fn heartbeat(endpoint: &str) -> Result<Heartbeat, SocketError> {
    // A context of its own, so that bulk data elsewhere does not occupy the I/O thread that carries the beats.
    let context = zmq::Context::new();
    // A ROUTER, unlike a REP, takes several clients' beats without waiting for any of them.
    let socket_type = SocketType::ROUTER;
    let socket = context
        .socket(socket_type)
        .map_err(|source| SocketError::Create {
            socket_type,
            source,
        })?;
    let failed = |source| SocketError::Bind {
        endpoint: endpoint.to_owned(),
        source,
    };
    // A beat that nobody waits for is not worth a delay at the end.
    socket.set_linger(0).map_err(failed)?;
    socket.set_router_handover(true).map_err(failed)?;
    socket.set_ipv6(endpoint.contains('[')).map_err(failed)?;
    if endpoint.contains('\0') {
        return Err(failed(zmq::Error::EINVAL));
    }
    socket.bind(endpoint).map_err(failed)?;
    let bound = socket
        .get_last_endpoint()
        .map_err(failed)?
        .unwrap_or_else(|_| endpoint.to_owned());

    let (stopped, stop) = io::pipe().map_err(SocketError::Thread)?;
    let thread = std::thread::Builder::new().name("heartbeat".to_owned());
    let thread = thread
        .spawn(move || beat(&socket, &stopped))
        .map_err(SocketError::Thread)?;
    Ok(Heartbeat {
        endpoint: bound,
        stop: Some(stop),
        thread: Some(thread),
    })
}

impl Heartbeat {
    /// Where it listens, with the port that the system chose.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }
}

impl Drop for Heartbeat {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the heartbeat's thread panicked");
        }
    }
}

fn beat(socket: &zmq::Socket, stopped: &PipeReader) {
    loop {
        let mut items = [
            socket.as_poll_item(POLLIN),
            zmq::PollItem::from_fd(stopped.as_raw_fd(), POLLIN),
        ];
        if let Err(error) = retried(|| zmq::poll(&mut items, -1)) {
            tracing::error!(%error, "failed to wait for a heartbeat; there will be none");
            return;
        }
        let [_, stop] = &items;
        // The end of a pipe is readable or an error, depending on the system.
        if stop.is_readable() || stop.is_error() {
            return;
        }
        if let Err(error) = echo(socket)
            && error != zmq::Error::EAGAIN
        {
            tracing::debug!(%error, "failed to echo a heartbeat");
        }
    }
}

/// Sends back all there is, frame by frame.
///
/// # Errors
/// `EAGAIN` when there is no more.
fn echo(socket: &zmq::Socket) -> zmq::Result<()> {
    loop {
        let frame = retried(|| socket.recv_msg(DONTWAIT))?;
        let more = if frame.get_more() { SNDMORE } else { 0 };
        socket.send(frame, DONTWAIT | more)?;
    }
}
