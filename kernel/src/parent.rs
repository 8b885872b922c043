//! The processes that a kernel must not outlive: the one that started it, and Jupyter's server.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Names the process of Jupyter's server, or another client's that manages the kernel. ipykernel ends with it, too.
const PARENT: &str = "JPY_PARENT_PID";

/// Returns when a process that manages this kernel has ended: Jupyter's server, or what that has started the kernel by. Never returns for a kernel that nobody manages.
pub(crate) async fn ended() {
    let server = std::env::var(PARENT).ok();
    let Some(server) = server.and_then(|id| id.parse().ok()).filter(|id| *id > 0) else {
        return std::future::pending().await;
    };
    // SAFETY: asks for a number.
    let starter = unsafe { libc::getppid() };
    tokio::select! {
        () = end_of(server) => tracing::info!(server, "Jupyter's server has ended"),
        // One that was adopted by the first process has no starter to lose.
        () = end_of(starter), if starter > 1 => tracing::info!(starter, "the process that started this one has ended"),
    }
}

/// Returns when a process has ended; never, if the system doesn't tell.
async fn end_of(process: libc::pid_t) {
    let watched = open(process).and_then(|file| {
        // SAFETY: the descriptor is owned, and stays open for as long as this has it.
        let watched = unsafe { AsyncFd::register_with_interest(file, Interest::READABLE) };
        watched.map_err(|error| error.into_parts().1)
    });
    match watched {
        // It is ready from the end of the process on.
        Ok(watched) => drop(watched.readable().await),
        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => {}
        Err(error) => {
            tracing::info!(%error, process, "the end of a process is not noticed");
            std::future::pending().await
        }
    }
}

/// A descriptor of a process; pidfd_open(2).
fn open(process: libc::pid_t) -> io::Result<OwnedFd> {
    // SAFETY: takes and gives numbers.
    let descriptor = unsafe { libc::syscall(libc::SYS_pidfd_open, process, 0) };
    match i32::try_from(descriptor) {
        // SAFETY: it is new, so nobody else owns it.
        Ok(descriptor) if descriptor >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(descriptor) }),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};
    use std::time::Duration;
    use tokio::time::timeout;

    #[tokio::test]
    async fn the_end_of_a_process_is_noticed() {
        let mut child = Command::new("cat")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let process = child.id() as libc::pid_t;
        let waits = timeout(Duration::from_millis(50), end_of(process)).await;
        assert!(waits.is_err(), "it runs");
        let watched = tokio::spawn(end_of(process));
        drop(child.stdin.take());
        let patience = Duration::from_secs(20);
        timeout(patience, watched).await.unwrap().unwrap();
        child.wait().unwrap();
        timeout(patience, end_of(process)).await.unwrap();
    }
}
