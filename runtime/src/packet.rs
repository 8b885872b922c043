//! One packet on a `SOCK_SEQPACKET` socket, and the descriptor that may travel with it.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

/// Descriptors are four bytes.
const FD: u32 = size_of::<RawFd>() as u32;

/// Room for the control message that carries one descriptor; it is aligned as its header has to be.
type Control = [usize; 8];

/// Sends a packet; a peer that is gone is an error and no signal.
pub(crate) fn send(socket: RawFd, packet: &[u8], passed: Option<RawFd>) -> io::Result<()> {
    let sent = match passed {
        // SAFETY: pointer and length are those of a living slice.
        None => unsafe {
            libc::send(
                socket,
                packet.as_ptr().cast(),
                packet.len(),
                libc::MSG_NOSIGNAL,
            )
        },
        Some(passed) => send_with(socket, packet, passed),
    };
    count(sent).map(drop)
}

fn send_with(socket: RawFd, packet: &[u8], passed: RawFd) -> isize {
    let mut part = libc::iovec {
        iov_base: packet.as_ptr().cast_mut().cast(),
        iov_len: packet.len(),
    };
    let mut control: Control = [0; 8];
    // SAFETY: a zeroed `msghdr` is a valid one. All pointers are to locals that outlive the call, the control message fits its
    // room, and what is sent is only read.
    unsafe {
        let mut message: libc::msghdr = MaybeUninit::zeroed().assume_init();
        message.msg_iov = &raw mut part;
        message.msg_iovlen = 1;
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = libc::CMSG_SPACE(FD) as _;
        let header = libc::CMSG_FIRSTHDR(&raw const message);
        (*header).cmsg_level = libc::SOL_SOCKET;
        (*header).cmsg_type = libc::SCM_RIGHTS;
        (*header).cmsg_len = libc::CMSG_LEN(FD) as _;
        libc::CMSG_DATA(header).cast::<RawFd>().write(passed);
        libc::sendmsg(socket, &raw const message, libc::MSG_NOSIGNAL)
    }
}

/// Receives a packet; its length is 0 when the other end is closed.
pub(crate) fn receive(
    socket: RawFd,
    buffer: &mut [u8],
    flags: i32,
) -> io::Result<(usize, Option<OwnedFd>)> {
    let mut part = libc::iovec {
        iov_base: buffer.as_mut_ptr().cast(),
        iov_len: buffer.len(),
    };
    let mut control: Control = [0; 8];
    // SAFETY: a zeroed `msghdr` is a valid one, and all pointers are to locals that outlive the call.
    let (length, message) = unsafe {
        let mut message: libc::msghdr = MaybeUninit::zeroed().assume_init();
        message.msg_iov = &raw mut part;
        message.msg_iovlen = 1;
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = libc::CMSG_SPACE(FD) as _;
        let length = libc::recvmsg(socket, &raw mut message, flags | libc::MSG_CMSG_CLOEXEC);
        (length, message)
    };
    let length = count(length)?;
    if message.msg_controllen == 0 {
        return Ok((length, None));
    }
    // SAFETY: the kernel has filled `msg_controllen` bytes of the room, which is still there. There is room for one descriptor only, and
    // it belongs to nobody yet.
    let passed = unsafe {
        let header = libc::CMSG_FIRSTHDR(&raw const message);
        (!header.is_null()
            && (*header).cmsg_level == libc::SOL_SOCKET
            && (*header).cmsg_type == libc::SCM_RIGHTS)
            .then(|| OwnedFd::from_raw_fd(libc::CMSG_DATA(header).cast::<RawFd>().read()))
    };
    Ok((length, passed))
}

/// The result of a system call that counts bytes.
pub(crate) fn count(result: isize) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}
