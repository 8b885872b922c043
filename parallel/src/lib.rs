//! chorus
pub mod codec;
