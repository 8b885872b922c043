//! The runtime's own processes: supervisor, worker, copies. Plain blocking system calls, one thread each.

mod calls;
mod channel;
mod checkpoint;
mod crash;
mod descriptors;
mod frames;
mod gate;
mod host;
mod kept;
mod stdin;
mod supervisor;
mod system;
mod worker;

use std::os::fd::{FromRawFd, OwnedFd};

use crate::wire::{FDS_VARIABLE, fds_of};

/// Whether this process was started by [`Runtime::start`](crate::Runtime::start), so that [`child_main`] is to be called.
pub fn is_child() -> bool {
    std::env::var_os(FDS_VARIABLE).is_some()
}

/// The whole life of a process started by [`Runtime::start`](crate::Runtime::start): call it first thing in `main`, before any thread
/// is started.
pub fn child_main() -> ! {
    let Some([control, link, input, tally]) = inherited() else {
        eprintln!(
            "this command is for chorus itself: a kernel or an engine of the same version starts it"
        );
        std::process::exit(2)
    };
    supervisor::main(control, link, input, &tally)
}

/// The sockets that the owner left open for us.
fn inherited() -> Option<[OwnedFd; 4]> {
    let variable = std::env::var(FDS_VARIABLE).ok()?;
    // SAFETY: no other thread exists yet.
    unsafe { std::env::remove_var(FDS_VARIABLE) };
    let fds = fds_of(&variable)?.map(|fd| {
        // SAFETY: the owner made them for us, and nothing else in this process knows them.
        unsafe { OwnedFd::from_raw_fd(fd) }
    });
    for fd in &fds {
        system::close_on_exec(fd);
    }
    Some(fds)
}
