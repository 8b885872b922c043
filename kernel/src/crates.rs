//! The crate `chorus` as it goes with this program, for cells; `build.rs` puts it here. And its compile ahead of the first use.

use compiler::crates::{CratesError, Sources};
use std::time::Duration;

/// See [`compiler::crates`].
pub(crate) const CRATES: Sources = Sources {
    files: include!(concat!(env!("OUT_DIR"), "/chorus_files.rs")),
    lock: include_str!(concat!(env!("OUT_DIR"), "/chorus.lock")),
};

/// Compiles the crates unless that has been done, so that no cell has to wait for it. Tells of it as soon as it begins.
pub(crate) fn prepare(tell: &dyn Fn(String)) -> Result<(), CratesError> {
    let rustc = compiler::toolchain::rustc();
    compiler::Crates::new(CRATES, rustc)
        .ensure(Duration::ZERO, tell)
        .map(drop)
}
