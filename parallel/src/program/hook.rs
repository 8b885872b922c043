//! What happens before a program's `main`: nothing, unless an engine started it to run its closures.
//!
//! Closures of a program are functions of its executable, and the dynamic linker loads no executable into another process
//! (glibc: "cannot dynamically load position-independent executable"; its thread-local variables and copied symbols have places that only
//! the program itself can give them). So the program is its own worker: an engine starts it anew, and it becomes the engine's runtime before
//! any code of the user's runs.

/// Called by the C library at the program's start, on the only thread that there is.
extern "C" fn before_main() {
    if runtime::is_child() {
        // As `std` does before `main`: a closed pipe is an error to whoever writes, not the process's end.
        // SAFETY: ignoring a signal runs no code.
        unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
        runtime::child_main();
    }
}

/// The C library's list of such functions.
#[used]
#[unsafe(link_section = ".init_array")]
static BEFORE_MAIN: extern "C" fn() = before_main;

/// Makes sure that the linker takes this file into the program.
pub(super) fn link() {
    std::hint::black_box(&BEFORE_MAIN);
}
