//! The envelope and contents against JSON as real clients write it.
