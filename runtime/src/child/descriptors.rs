//! Descriptors that a cell closes while a copy waits: the copy lets go of them as well, before the call returns.
//!
//! A copy has a duplicate of every descriptor. A pipe's reader would wait for an end of file that never comes, and a listener's port would
//! stay taken, until the copy is gone. So this program defines `close` and its kin in libc's place: its symbols come before those of the
//! libraries that it loads, and libstd calls libc's through the dynamic linker. Each tells the copy, which lets go of the descriptor if it
//! has it. Another one, which refuses everything, takes the number: a restored value may close it, and must not close a new file.
//!
//! Calls within libc itself (`fclose`) don't come here.

use std::collections::HashSet;
use std::ffi::{c_int, c_uint};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use libc::pid_t;

use super::host::lock;
use super::system;

/// How long a copy may take to answer. One that can't any more has been stopped by somebody.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// What the parent writes to a copy: that it is not needed, or that it shall let go of the descriptor whose number follows.
pub(super) const DISMISSED: u8 = 0;
const CLOSED: u8 = 1;

/// Standard input, output and error belong to the runtime, whatever a cell does to them.
const STANDARD: RawFd = 2;

/// The parent's end of the socket to the copy, or -1.
static SOCKET: AtomicI32 = AtomicI32::new(-1);
/// The process whose calls count: what it forks may close what it likes.
static PROCESS: AtomicI32 = AtomicI32::new(0);
static FOLLOWER: Mutex<Option<Follower>> = Mutex::new(None);

/// The copy that follows.
pub(super) struct Follower {
    pid: pid_t,
    /// What it has of the descriptors from before the fork; known from the first call on.
    open: Option<HashSet<RawFd>>,
}

impl Follower {
    /// Whether the copy has this one; it is told only once.
    fn take(&mut self, fd: RawFd) -> bool {
        let pid = self.pid;
        let open = self.open.get_or_insert_with(|| descriptors_of(pid));
        open.remove(&fd)
    }
}

fn descriptors_of(pid: pid_t) -> HashSet<RawFd> {
    let Ok(entries) = std::fs::read_dir(format!("/proc/{pid}/fd")) else {
        return HashSet::new();
    };
    let number =
        |entry: std::io::Result<std::fs::DirEntry>| entry.ok()?.file_name().to_str()?.parse().ok();
    entries.filter_map(number).collect()
}

/// From now on a copy follows what this process closes; `socket` leads to it.
pub(super) fn follow(pid: pid_t, socket: &OwnedFd) {
    *lock(&FOLLOWER) = Some(Follower { pid, open: None });
    system::receive_within(socket, ANSWER_TIMEOUT);
    PROCESS.store(system::own_pid(), Ordering::Relaxed);
    SOCKET.store(socket.as_raw_fd(), Ordering::Release);
}

/// Keeps others from telling a copy while this process is forked, so that nobody holds the lock in the next copy.
pub(super) fn hold() -> MutexGuard<'static, Option<Follower>> {
    lock(&FOLLOWER)
}

/// No copy follows any more.
pub(super) fn unfollow() {
    SOCKET.store(-1, Ordering::Release);
    *lock(&FOLLOWER) = None;
}

/// In a copy: what the parent's fork left here of all this is not this process's.
pub(super) fn forget() {
    SOCKET.store(-1, Ordering::Release);
}

/// Tells the copy that `fd` is closed, and waits until it is closed there.
fn tell(fd: RawFd) {
    let socket = SOCKET.load(Ordering::Acquire);
    if socket < 0
        || fd <= STANDARD
        || fd == socket
        || system::own_pid() != PROCESS.load(Ordering::Relaxed)
    {
        return;
    }
    let before = errno();
    let mut follower = lock(&FOLLOWER);
    if follower.as_mut().is_some_and(|follower| follower.take(fd)) {
        let [a, b, c, d] = fd.to_le_bytes();
        let message = [CLOSED, a, b, c, d];
        let mut answer = [0_u8; 1];
        // SAFETY: both arrays live through the calls. A copy that is gone makes them fail, and has closed everything.
        unsafe {
            let sent = libc::send(
                socket,
                message.as_ptr().cast(),
                message.len(),
                libc::MSG_NOSIGNAL,
            );
            if sent == 5 {
                libc::recv(socket, answer.as_mut_ptr().cast(), 1, 0);
            }
        }
    }
    drop(follower);
    set_errno(before);
}

/// In a copy: lets go of the descriptor whose number comes next on the socket, and says so. `own` are those that the copy itself needs.
pub(super) fn let_go(socket: &OwnedFd, own: &[RawFd]) -> bool {
    let mut number = [0_u8; 4];
    // SAFETY: pointer and length are those of a living array.
    let received = unsafe {
        libc::recv(
            socket.as_raw_fd(),
            number.as_mut_ptr().cast(),
            number.len(),
            libc::MSG_WAITALL,
        )
    };
    if received != 4 {
        return false;
    }
    let fd = RawFd::from_le_bytes(number);
    let is_own = own.contains(&fd);
    // SAFETY: the path is a C string; `dup3` closes what had the number. No call has memory of ours but one byte of a living array.
    unsafe {
        if !is_own {
            let refusing = libc::open(c"/".as_ptr(), libc::O_PATH | libc::O_CLOEXEC);
            libc::syscall(libc::SYS_dup3, refusing, fd, libc::O_CLOEXEC);
            libc::syscall(libc::SYS_close, if refusing < 0 { fd } else { refusing });
        }
        let done = [0_u8];
        libc::send(
            socket.as_raw_fd(),
            done.as_ptr().cast(),
            1,
            libc::MSG_NOSIGNAL,
        );
    }
    !is_own
}

fn errno() -> c_int {
    // SAFETY: a thread's own.
    unsafe { *libc::__errno_location() }
}

fn set_errno(value: c_int) {
    // SAFETY: a thread's own.
    unsafe { *libc::__errno_location() = value };
}

/// libc's `close`.
#[unsafe(no_mangle)]
extern "C" fn close(fd: c_int) -> c_int {
    // SAFETY: the system call has no memory of ours.
    let closed = unsafe { libc::syscall(libc::SYS_close, fd) };
    tell(fd);
    as_int(closed)
}

/// libc's `dup2`, which closes what had the number `new`.
#[unsafe(no_mangle)]
extern "C" fn dup2(old: c_int, new: c_int) -> c_int {
    if old == new {
        // SAFETY: asks whether there is such a descriptor.
        return match unsafe { libc::fcntl(old, libc::F_GETFD) } {
            -1 => -1,
            _ => new,
        };
    }
    dup3(old, new, 0)
}

/// libc's `dup3`.
#[unsafe(no_mangle)]
extern "C" fn dup3(old: c_int, new: c_int, flags: c_int) -> c_int {
    // SAFETY: the system call has no memory of ours.
    let made = unsafe { libc::syscall(libc::SYS_dup3, old, new, flags) };
    if made >= 0 {
        tell(new);
    }
    as_int(made)
}

/// libc's `close_range`.
#[unsafe(no_mangle)]
extern "C" fn close_range(first: c_uint, last: c_uint, flags: c_int) -> c_int {
    // SAFETY: the system call has no memory of ours.
    let closed = unsafe { libc::syscall(libc::SYS_close_range, first, last, flags) };
    // Flags leave open what there is, or make a table of this thread's own.
    if closed == 0 && flags == 0 && SOCKET.load(Ordering::Acquire) >= 0 {
        let known = lock(&FOLLOWER).as_mut().map(|follower| {
            let pid = follower.pid;
            let open = follower.open.get_or_insert_with(|| descriptors_of(pid));
            open.iter().copied().collect::<Vec<RawFd>>()
        });
        for fd in known.unwrap_or_default() {
            if c_uint::try_from(fd).is_ok_and(|fd| (first..=last).contains(&fd)) {
                tell(fd);
            }
        }
    }
    as_int(closed)
}

fn as_int(result: libc::c_long) -> c_int {
    c_int::try_from(result).unwrap_or(-1)
}
