//! The few system calls that both supervisor and worker need, made safe, and what `/proc` tells.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

use libc::pid_t;

/// Ends this process at once, without running anything that user code registered.
pub(super) fn leave(status: i32) -> ! {
    // SAFETY: always allowed.
    unsafe { libc::_exit(status) }
}

/// This process's id.
pub(super) fn own_pid() -> pid_t {
    // SAFETY: always allowed.
    unsafe { libc::getpid() }
}

/// Bounds how long receiving from a socket may take.
pub(super) fn receive_within(socket: &OwnedFd, limit: Duration) {
    let limit = libc::timeval {
        tv_sec: libc::time_t::try_from(limit.as_secs()).unwrap_or(libc::time_t::MAX),
        tv_usec: limit.subsec_micros().into(),
    };
    // SAFETY: pointer and length are those of a living structure of the type that the option takes.
    unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_RCVTIMEO,
            (&raw const limit).cast(),
            size_of_val(&limit) as libc::socklen_t,
        );
    }
}

/// The CPU's time that this process has taken, in user code and in the system.
pub(super) fn cpu_times() -> (Duration, Duration) {
    // SAFETY: all zeros are a valid value, and the call writes nothing else.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_SELF, &raw mut usage);
        usage
    };
    let duration = |time: libc::timeval| {
        let (seconds, micros) = (time.tv_sec, time.tv_usec);
        Duration::from_micros(u64::try_from(seconds * 1_000_000 + micros).unwrap_or(0))
    };
    (duration(usage.ru_utime), duration(usage.ru_stime))
}

/// The id of this process's parent.
pub(super) fn parent_pid() -> pid_t {
    // SAFETY: always allowed.
    unsafe { libc::getppid() }
}

/// What `ps` shows for this thread; at most 15 bytes.
pub(super) fn set_name(name: &std::ffi::CStr) {
    // SAFETY: the kernel copies the string.
    unsafe { libc::prctl(libc::PR_SET_NAME, name.as_ptr()) };
}

/// Has the kernel kill this process when its parent dies.
pub(super) fn die_with_parent() {
    // SAFETY: sets an attribute of this process.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
}

/// Has large vectors live in memory of their own, for ever. glibc raises its limit for that with each large one that is freed, and gives the next one the
/// same memory: of which a copy of the namespace may still have the pages, so that writing to it copies them first.
///
/// A fixed limit fixes the other one too: how much at the end of the heap is kept for the next cell rather than given back, only to be asked for
/// again. As little as glibc begins with would cost each call that makes and drops a middling map a page fault for every page of it.
pub(super) fn fresh_memory() {
    const LARGE: libc::c_int = 1 << 20;
    const KEPT: libc::c_int = 8 << 20;
    // SAFETY: sets parameters of the allocator; no other thread exists yet.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE);
        libc::mallopt(libc::M_TRIM_THRESHOLD, KEPT);
    }
}

/// Sends SIGKILL. A process that is gone is as good as killed.
pub(super) fn kill(pid: pid_t) {
    if pid > 1 {
        // SAFETY: signals one process.
        unsafe { libc::kill(pid, libc::SIGKILL) };
    }
}

/// A descriptor that becomes readable when `pid` is dead; `None` on kernels before 5.3.
pub(super) fn pidfd(pid: pid_t) -> Option<OwnedFd> {
    // SAFETY: takes numbers only.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    let fd = RawFd::try_from(fd).ok().filter(|fd| *fd >= 0)?;
    // SAFETY: a new descriptor that nothing else owns.
    Some(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Two connected stream sockets, closed on exec.
pub(super) fn stream_pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let mut fds = [-1; 2];
    // SAFETY: the array has room for two.
    let result = unsafe {
        libc::socketpair(
            libc::AF_UNIX,
            libc::SOCK_STREAM | libc::SOCK_CLOEXEC,
            0,
            fds.as_mut_ptr(),
        )
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: new descriptors that nothing else owns.
    Ok(fds.map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }).into())
}

/// Has a descriptor closed on exec.
pub(super) fn close_on_exec(fd: &OwnedFd) {
    // SAFETY: sets a flag of a descriptor that we own.
    unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETFD, libc::FD_CLOEXEC) };
}

/// How a reaped child ended.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reaped {
    pub(super) pid: pid_t,
    /// As `waitpid` gave it.
    pub(super) status: i32,
}

/// Reaps a child (`pid` -1: any). `None` when there is none, or none has ended and `block` is false.
pub(super) fn reap(pid: pid_t, block: bool) -> Option<Reaped> {
    let flags = if block { 0 } else { libc::WNOHANG };
    loop {
        let mut status = 0;
        // SAFETY: the status is written to a local.
        let reaped = unsafe { libc::waitpid(pid, &raw mut status, flags) };
        if reaped > 0 {
            return Some(Reaped {
                pid: reaped,
                status,
            });
        }
        if reaped == 0 || io::Error::last_os_error().kind() != io::ErrorKind::Interrupted {
            return None;
        }
    }
}

/// Which of these descriptors can be read (or are closed at the other end). Waits for at most `timeout_ms`, -1 for ever.
pub(super) fn wait_readable<const N: usize>(fds: [RawFd; N], timeout_ms: i32) -> [bool; N] {
    let mut polled = fds.map(pollfd);
    wait_readable_in(&mut polled, timeout_ms);
    polled.map(|entry| entry.revents != 0)
}

/// An entry for [`wait_readable_in`]; a negative descriptor is never ready.
pub(super) fn pollfd(fd: RawFd) -> libc::pollfd {
    libc::pollfd {
        fd,
        events: libc::POLLIN,
        revents: 0,
    }
}

/// As [`wait_readable`], for any number; the answers are in `revents`.
pub(super) fn wait_readable_in(polled: &mut [libc::pollfd], timeout_ms: i32) {
    // SAFETY: pointer and length are those of a living slice.
    let ready = unsafe { libc::poll(polled.as_mut_ptr(), polled.len() as _, timeout_ms) };
    if ready < 0 {
        for entry in polled {
            entry.revents = 0;
        }
    }
}

/// What `/proc/<pid>/stat` says.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stat {
    pub(super) pid: pid_t,
    pub(super) parent: pid_t,
    pub(super) threads: u32,
    /// In clock ticks since boot.
    pub(super) started: u64,
    /// Resident memory, in bytes.
    pub(super) resident: u64,
}

impl Stat {
    /// `None` when there is no such process (any more).
    pub(super) fn of(pid: &str) -> Option<Stat> {
        let text = std::fs::read(format!("/proc/{pid}/stat")).ok()?;
        Stat::parse(&String::from_utf8_lossy(&text))
    }

    /// Fields are counted from 1 in proc(5); the second is a name in parentheses that may contain anything.
    fn parse(text: &str) -> Option<Stat> {
        let (head, tail) = text.rsplit_once(')')?;
        let fields: Vec<&str> = tail.split_ascii_whitespace().collect();
        let field = |number: usize| fields.get(number - 3).copied();
        // SAFETY: always allowed.
        let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
        Some(Stat {
            pid: head.split_once(' ')?.0.parse().ok()?,
            parent: field(4)?.parse().ok()?,
            threads: field(20)?.parse().ok()?,
            started: field(22)?.parse().ok()?,
            resident: field(24)?.parse::<u64>().ok()? * u64::try_from(page).ok()?,
        })
    }
}

/// All processes below this one.
pub(super) fn descendants() -> Vec<Stat> {
    let all: Vec<Stat> = std::fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| Stat::of(entry.file_name().to_str()?))
        .collect();
    let mut found = Vec::new();
    let mut parents = vec![own_pid()];
    while let Some(parent) = parents.pop() {
        for process in all.iter().filter(|process| process.parent == parent) {
            found.push(*process);
            parents.push(process.pid);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_of_a_process_with_an_odd_name() {
        let text = "42 (a) b (c)) S 7 42 42 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 3 0 9876 1000000 12 18446744073709551615";
        let stat = Stat::parse(text).unwrap();
        assert_eq!((stat.pid, stat.parent), (42, 7));
        assert_eq!((stat.threads, stat.started), (3, 9876));
        assert_eq!(stat.resident % 12, 0);
        assert!(Stat::parse("42 (a S 7").is_none());
    }

    #[test]
    fn this_process_is_there() {
        let stat = Stat::of("self").unwrap();
        assert_eq!(stat.pid, own_pid());
        assert!(stat.threads >= 1 && stat.resident > 0);
    }
}
