//! The crate `chorus` as it goes with this program, for cells; `build.rs` puts it here. And its compile ahead of the first use.

use compiler::crates::{CratesError, Sources};

/// See [`compiler::crates`].
pub(crate) const CRATES: Sources = Sources {
    files: include!(concat!(env!("OUT_DIR"), "/chorus_files.rs")),
    lock: include_str!(concat!(env!("OUT_DIR"), "/chorus.lock")),
};

/// Compiles the crates unless that has been done, so that no cell has to wait for it. Calls `begin` before.
pub(crate) fn prepare(begin: impl FnOnce()) -> Result<(), CratesError> {
    let crates = compiler::Crates::new(CRATES, compiler::toolchain::rustc());
    if crates.find()?.is_none() {
        begin();
        crates.ensure()?;
    }
    Ok(())
}
