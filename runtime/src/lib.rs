//! The process user code runs in: load, run, flush, checkpoint; and its owner's handle.
