//! Waiting for a socket without being woken for nothing.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use tokio::io::unix::AsyncFd;
use tokio::io::{Interest, Ready};

/// A socket that is watched for what comes, and for room only while something waits for it.
///
/// Whoever watches a Unix socket for room is woken each time its other end reads: a turn for each message that was sent.
#[derive(Debug)]
pub struct Watched<S: AsRawFd> {
    socket: AsyncFd<S>,
    /// There while something waits for room.
    room: Option<AsyncFd<OwnedFd>>,
}

impl<S: AsFd + AsRawFd> Watched<S> {
    /// Watches a socket whose reads and writes fail rather than wait. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// The system doesn't watch it.
    pub fn new(socket: S) -> io::Result<Watched<S>> {
        // SAFETY: the descriptor is owned by `socket`, and stays open for as long as it is registered.
        let socket = unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) }?;
        Ok(Watched { socket, room: None })
    }

    /// The socket.
    pub fn get_ref(&self) -> &S {
        self.socket.get_ref()
    }

    /// Waits until something can be read or, if `for_room`, written. What can be read is said again until [`Self::read`] finds nothing.
    /// Nothing is lost when the future is dropped.
    ///
    /// # Errors
    /// The system doesn't watch it.
    pub async fn ready(&mut self, for_room: bool) -> io::Result<Ready> {
        if !for_room {
            self.room = None;
        }
        let Watched { socket, room } = self;
        tokio::select! {
            ready = socket.readable() => ready.map(|_| Ready::READABLE),
            ready = has_room(socket, room), if for_room => ready.map(|()| Ready::WRITABLE),
        }
    }

    /// Waits until something can be written. Nothing is lost when the future is dropped.
    ///
    /// # Errors
    /// The system doesn't watch it.
    pub async fn has_room(&mut self) -> io::Result<()> {
        has_room(&self.socket, &mut self.room).await
    }

    /// Reads if something is there, as far as tokio knows; else, or if `read` finds nothing, fails as [`io::ErrorKind::WouldBlock`].
    ///
    /// # Errors
    /// Those of `read`.
    pub fn read<T>(&self, read: impl FnOnce(&S) -> io::Result<T>) -> io::Result<T> {
        self.socket.try_io(Interest::READABLE, read)
    }
}

/// `room` is the same socket once more, watched for this only.
async fn has_room<S: AsFd + AsRawFd>(
    socket: &AsyncFd<S>,
    room: &mut Option<AsyncFd<OwnedFd>>,
) -> io::Result<()> {
    let room = match room {
        Some(room) => room,
        None => {
            let other = socket.get_ref().as_fd().try_clone_to_owned()?;
            // SAFETY: as that of `socket`.
            room.insert(unsafe { AsyncFd::register_with_interest(other, Interest::WRITABLE) }?)
        }
    };
    room.writable().await?.clear_ready();
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;
    use std::time::Duration;

    use super::*;

    fn pair() -> (Watched<UnixStream>, UnixStream) {
        let (here, there) = UnixStream::pair().unwrap();
        here.set_nonblocking(true).unwrap();
        (Watched::new(here).unwrap(), there)
    }

    fn read(watched: &Watched<UnixStream>) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; 100];
        let count = watched.read(|mut socket| socket.read(&mut bytes))?;
        bytes.truncate(count);
        Ok(bytes)
    }

    #[tokio::test]
    async fn what_comes_is_read_and_room_is_waited_for() {
        let (mut here, mut there) = pair();
        there.write_all(b"one").unwrap();
        assert_eq!(here.ready(false).await.unwrap(), Ready::READABLE);
        assert_eq!(read(&here).unwrap(), b"one");
        assert_eq!(read(&here).unwrap_err().kind(), io::ErrorKind::WouldBlock);

        let fill = |mut socket: &UnixStream| while socket.write(&[7; 4096]).is_ok() {};
        assert_eq!(here.ready(true).await.unwrap(), Ready::WRITABLE);
        fill(here.get_ref());
        let full = tokio::time::timeout(Duration::from_millis(50), here.ready(true));
        assert!(full.await.is_err());
        there.write_all(b"two").unwrap();
        assert_eq!(here.ready(true).await.unwrap(), Ready::READABLE);
        assert_eq!(read(&here).unwrap(), b"two");
        let reader = std::thread::spawn(move || {
            let mut bytes = vec![0; 1 << 20];
            while there.read(&mut bytes).unwrap() == bytes.len() {}
            there
        });
        here.has_room().await.unwrap();
        drop(reader.join().unwrap());
        assert_eq!(here.ready(false).await.unwrap(), Ready::READABLE);
        assert_eq!(read(&here).unwrap(), b"");
    }
}
