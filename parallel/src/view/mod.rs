//! Views: some engines, and a way to have them work.

mod balanced;
mod direct;
mod imap;
mod remote;
mod shared;
mod split;

pub use balanced::{After, LoadBalancedView};
pub use direct::DirectView;
pub use imap::Imap;
pub use remote::{ParallelFunction, RemoteFunction};
pub use shared::Shared;
pub(crate) use split::{Common, Deal, Split, split_into};
