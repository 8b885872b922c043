//! Chorus for people who write Rust: a cluster's engines as views on which closures run.
//!
//! ```no_run
//! use chorus::Client;
//!
//! # fn main() -> Result<(), chorus::Error> {
//! let client = Client::connect()?;
//! let squares = client.load_balanced_view().map_sync(0..1000u64, |x| x * x)?;
//! let everywhere = client.all().apply_sync(|name: String| format!("{name} from {}", std::process::id()), "hello".to_owned())?;
//! # drop((squares, everywhere));
//! # Ok(())
//! # }
//! ```
//!
//! Names are ipyparallel's: [`Client`], [`DirectView`] (each of these engines), [`LoadBalancedView`] (any engine), [`AsyncResult`].
//! What may travel is [`Portable`]: whatever serde can serialize and deserialize and that borrows nothing. Closures travel as a
//! place in the file that rustc made of them ([`wire::Work::Call`]), so they must not capture anything.
//!
//! | module | owns |
//! |---|---|
//! | [`wire`] | what a program and its carrier (the notebook's kernel) say to each other |
//! | [`codec`] | values to bytes: serde, with vectors of numbers in one copy |
//! | `function` | closures to places in files, and the C functions that engines call |
//! | `link` | the connection: who waits, reads; there is no thread |
//! | `batch`, `result` | the tasks of a call, and the promise of its result |
//! | `view`, `submit` | calls to tasks |
//! | [`merge`], `tally` | functions that make one result of two; maps that are added while they are decoded |
//! | `private` | what magics' cells call |
//! | `controller` | feature `client`: a connection to a controller over ZeroMQ |
//! | `carrier` | feature `client`: what speaks to clusters on behalf of programs |
//!
//! The crate is linked to notebook cells, so it is small and knows neither ZeroMQ nor an async runtime; whoever speaks to the cluster is
//! at the other end of a Unix socket.

mod batch;
#[cfg(feature = "client")]
pub mod carrier;
mod client;
pub mod codec;
#[cfg(feature = "client")]
pub mod controller;
mod error;
mod function;
mod items;
mod link;
pub mod merge;
mod names;
mod portable;
mod private;
#[cfg(feature = "client")]
mod program;
mod result;
mod submit;
mod tally;
mod targets;
mod view;
pub mod wire;

pub use batch::{Metadata, Printed};
pub use client::Client;
pub use error::{CompositeError, Error, Location, TaskError};
pub use items::Items;
pub use portable::Portable;
#[cfg(feature = "client")]
pub use program::Cluster;
pub use result::{AsyncResult, Completed, Iter};
pub use serde;
pub use targets::Targets;
pub use view::{
    After, DirectView, Imap, LoadBalancedView, ParallelFunction, RemoteFunction, Shared,
};
pub use wire::{EngineQueue, Executed, FailureKind, QueueStatus};

/// For code that Chorus itself generates; may change with every version.
#[doc(hidden)]
pub mod __private {
    pub use crate::function::{Answer, Slice, Trampoline};
    pub use crate::private::{
        Gather, Over, Parallel, Parts, Scatter, Share, Values, Variables, give, parallel, stop,
        take, value, variables,
    };
}
