//! chorus
pub mod codec;
mod error;
mod function;
mod portable;
pub mod wire;
pub use error::{CompositeError, Error, Location, TaskError};
pub use portable::Portable;
pub use serde;
