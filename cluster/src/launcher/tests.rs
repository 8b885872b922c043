//! Refusals, and files that were left behind.
