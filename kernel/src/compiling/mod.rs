//! Compiling, as the kernel and the cluster's processes have it done: by compile workers behind the user's compile service.
//!
//! - [`ServiceCompiler`]: asks the service what the store doesn't have.
//! - `worker`: the program as a compile worker, with evcxr on a thread.
//! - `cluster`: a cluster's compiler, which engines ask.
//! - `environment`: which environment variables make a difference to a compile.

pub(crate) mod cluster;
pub(crate) mod environment;
mod service;
pub(crate) mod worker;

pub(crate) use service::{ServiceCompiler, id};

use crate::crates::CRATES;
use compiler::lineages::Options;
use std::path::PathBuf;

/// How large the store of compiled snippets may become, in bytes; `CHORUS_CACHE_MB` (in megabytes) says otherwise.
const STORE_LIMIT_BYTES: u64 = 1_000_000_000;

/// What all compilers of this program have in common.
pub(crate) fn options(executable: PathBuf) -> Options {
    Options {
        store: compiler::folder::cache().join("snippets"),
        limit: store_limit_bytes(),
        executable,
        support_source: runtime::SUPPORT_SOURCE,
        crates: CRATES,
    }
}

fn store_limit_bytes() -> u64 {
    std::env::var("CHORUS_CACHE_MB")
        .ok()
        .and_then(|megabytes| megabytes.parse::<u64>().ok())
        .map_or(STORE_LIMIT_BYTES, |megabytes| {
            megabytes.saturating_mul(1_000_000)
        })
}
