//! Small Rust programs that show Chorus at work.
