//! How Jupyter finds Chorus: the kernelspec (kernel.json and logos), where it goes, and a JupyterLab to open it in.
//!
//! - [`spec`]: what is in the kernelspec, as values and bytes; touches no file.
//! - [`place`]: which folders Jupyter searches; reads the environment, touches no file.
//! - [`install`](mod@install): puts a kernelspec there, removes it, tells what is there.
//! - [`lab`]: finds or makes a JupyterLab and starts it with this kernel, leaving the user's own Jupyter as it is.
//!
//! Command-line options and printing belong to the `kernel` crate.
//!
//! Facts about folders and file names are from
//! <https://jupyter-client.readthedocs.io/en/stable/kernels.html> and
//! <https://docs.jupyter.org/en/latest/use/jupyter-directories.html>.

mod error;
pub mod install;
pub mod lab;
pub mod place;
pub mod spec;

pub use error::KernelspecError;
pub use install::{InstallOptions, Installed, install, show, uninstall};
pub use place::Target;
pub use spec::{DEFAULT_DISPLAY_NAME, DEFAULT_NAME, Spec};

/// Held by tests that start programs or write some to start: a program that another thread's fork still has open for
/// writing cannot be started ("text file busy").
#[cfg(test)]
pub(crate) static STARTING_PROGRAMS: std::sync::Mutex<()> = std::sync::Mutex::new(());
