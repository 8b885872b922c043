//! The kernel's entry in Jupyter: kernel.json, logos, install and uninstall.
