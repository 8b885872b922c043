//! ZeroMQ's own threads, which move bytes between sockets and the system.

use zmq::{Context, SocketType};

/// A context whose threads wait until there is room for them: they take no processor away from a thread that runs.
///
/// A service that sends wakes such a thread with its first message. If that took the service's processor at once, each message would be one
/// change of threads to and fro; so the service says all that it has to say, and the bytes go together. On a processor with nothing to do
/// the thread runs at once as ever (`SCHED_BATCH` in sched(7)).
pub(super) fn patient() -> Context {
    let context = Context::new();
    // The threads start with the first socket. Whether there can be one the next will say.
    as_batch(|| drop(context.socket(SocketType::PAIR)));
    context
}

/// Threads that are started meanwhile inherit this one's policy.
fn as_batch(start: impl FnOnce()) {
    let normal = libc::sched_param { sched_priority: 0 };
    // SAFETY: about the calling thread, with a parameter that lives as long as the calls.
    let set = |policy| unsafe { libc::sched_setscheduler(0, policy, &raw const normal) == 0 };
    // SAFETY: about the calling thread.
    let is_normal = unsafe { libc::sched_getscheduler(0) == libc::SCHED_OTHER };
    let changed = is_normal && set(libc::SCHED_BATCH);
    start();
    if changed && !set(libc::SCHED_OTHER) {
        tracing::warn!("a thread stays one for batch work, and may answer later than it could");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    fn policies() -> HashSet<(libc::pid_t, i32)> {
        let threads = std::fs::read_dir("/proc/self/task").unwrap();
        let ids = threads.map(|thread| thread.unwrap().file_name());
        ids.filter_map(|id| id.to_str()?.parse().ok())
            // SAFETY: asks for a number.
            .map(|id| (id, unsafe { libc::sched_getscheduler(id) }))
            .collect()
    }

    #[test]
    fn only_its_threads_are_patient() {
        // SAFETY: asks for a number.
        let own = unsafe { libc::gettid() };
        let before = policies();
        let context = patient();
        let new = &policies() - &before;
        let patient = new
            .iter()
            .filter(|(_, policy)| *policy == libc::SCHED_BATCH);
        assert!(
            patient.count() >= 2,
            "one that reads and writes, and one that closes: {new:?}"
        );
        assert!(policies().contains(&(own, libc::SCHED_OTHER)));
        drop(context);
    }
}
