//! A client of a controller, Chorus's or ipyparallel's (9.x): requests out, replies and output back.
//!
//! [`Connection`] is a cheap handle. One task owns the sockets and the books of what is under way; the books are a synchronous core that
//! knows neither sockets nor clocks. Whoever asks gives a listener, which that task calls with every [`Event`]; a request's last event is its
//! reply, or that there will be none. When a request asks for output, all of it comes before.
//!
//! Nothing here hangs: an engine that dies and a controller that goes away are events to everyone who waits for them. A connection that was
//! lost is over; whoever wants another one makes it.
//!
//! Source: <https://ipyparallel.readthedocs.io/en/stable/reference/messages.html>.

mod connection;
mod core;
mod driver;
mod error;
mod post;
mod request;

pub use connection::{Connection, State};
pub use error::{Error, Lost};
pub use post::{Post, PostKind, PostMetadata, PostReply, Posted, Posts};
pub use protocol::cluster::{ClientFile, EngineId};
pub use request::{Ending, Event, Listener, Output, Request, Said, To};
