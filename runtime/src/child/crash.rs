//! Tells the end of a stack from any other segmentation fault, and lets the process die of the signal it got.

use std::ptr::null_mut;
use std::sync::atomic::{AtomicPtr, Ordering};

use super::gate::Gate;

const HANDLER_STACK: usize = 64 * 1024;

/// How far below the stack pointer a function's first access to its frame may be: rustc probes every page of larger
/// frames, C compilers often don't.
const LARGEST_FRAME: usize = 1024 * 1024;

static GATE: AtomicPtr<Gate> = AtomicPtr::new(null_mut());

/// Takes SIGSEGV from Rust's own handler, which prints and aborts, and which knows nothing of the libstd that user code has.
pub(super) fn watch(gate: &'static Gate) {
    GATE.store(std::ptr::from_ref(gate).cast_mut(), Ordering::SeqCst);
    // The handler needs a stack when the usual one is at its end. Never freed.
    let stack: &'static mut [u8] = vec![0; HANDLER_STACK].leak();
    // SAFETY: the stack lives for ever; the handler has the signature that SA_SIGINFO asks for and calls only what is
    // allowed in one; a zeroed `sigaction` is a valid one.
    unsafe {
        let stack = libc::stack_t {
            ss_sp: stack.as_mut_ptr().cast(),
            ss_flags: 0,
            ss_size: stack.len(),
        };
        libc::sigaltstack(&raw const stack, null_mut());
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = on_fault as *const () as usize;
        // Reset first: whatever happens next, the second fault is the last.
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_RESETHAND;
        libc::sigaction(libc::SIGSEGV, &raw const action, null_mut());
        libc::signal(libc::SIGBUS, libc::SIG_DFL);
    }
}

extern "C" fn on_fault(
    signal: libc::c_int,
    info: *mut libc::siginfo_t,
    context: *mut libc::c_void,
) {
    // SAFETY: the kernel passes pointers to both structures.
    let (from_kernel, address, stack) = unsafe {
        (
            (*info).si_code > 0,
            (*info).si_addr().addr(),
            stack_pointer(&*context.cast()),
        )
    };
    if from_kernel {
        // Returning repeats the access, which now ends the process.
        let below = stack.saturating_sub(LARGEST_FRAME);
        if (below..stack.saturating_add(LARGEST_FRAME / 16)).contains(&address)
            // SAFETY: set before this handler was installed, to something that lives for ever.
            && let Some(gate) = unsafe { GATE.load(Ordering::SeqCst).as_ref() }
        {
            gate.set_overflow();
        }
    } else {
        // Sent by a process: nothing will repeat it.
        // SAFETY: allowed in a handler; delivered when it returns.
        unsafe { libc::raise(signal) };
    }
}

#[cfg(target_arch = "x86_64")]
fn stack_pointer(context: &libc::ucontext_t) -> usize {
    usize::try_from(context.uc_mcontext.gregs[libc::REG_RSP as usize]).unwrap_or(0)
}

#[cfg(target_arch = "aarch64")]
fn stack_pointer(context: &libc::ucontext_t) -> usize {
    usize::try_from(context.uc_mcontext.sp).unwrap_or(0)
}
