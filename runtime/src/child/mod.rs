//! The runtime's own processes: supervisor, worker, copies. Plain blocking system calls, one thread each.

/// The whole life of a process started by [`Runtime::start`](crate::Runtime::start): call it first thing in `main`, before any thread
/// is started.
pub fn child_main() -> ! {
    std::process::exit(2)
}
