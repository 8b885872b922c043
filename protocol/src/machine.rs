//! Which machine this is.

use std::os::unix::fs::MetadataExt;
use std::sync::LazyLock;

/// Where files in shared memory are.
pub const SHARED_MEMORY: &str = "/dev/shm";

/// Names the shared memory that this process sees at [`SHARED_MEMORY`]: processes with the same name can open each other's files there. Nothing where
/// there is none. Containers on one machine have one boot but mounts of their own, so that both are in it.
pub fn shared_memory() -> Option<&'static str> {
    static NAME: LazyLock<Option<String>> = LazyLock::new(|| {
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
        let mount = std::fs::metadata(SHARED_MEMORY).ok()?.dev();
        Some(format!("{}-{mount:x}", boot.trim()))
    });
    NAME.as_deref()
}

/// The machine's name, as its users know it.
pub fn hostname() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname");
    name.map_or_else(
        |_| "another machine".to_owned(),
        |name| name.trim().to_owned(),
    )
}
