//! What cells and snippets call that Chorus itself writes: `%%parallel`, `%push` and their like, and the snippets that engines evaluate for
//! `push` and `pull`.
//!
//! What can be wrong with what the user wrote in a magic's line is found by rustc in calls of these functions, so each takes one thing
//! that the user named, and bounds say in words what it has to be.

mod body;
mod parts;
mod pieces;
mod variables;

pub use body::{Over, Parallel, Values, parallel, stop, value};
pub use parts::{Parts, Share};
pub use pieces::{give, take};
pub use variables::{Gather, Scatter, Variables, variables};

use std::time::Duration;

/// Seconds after which progress is shown; never if they are no duration.
fn after(seconds: Option<f64>) -> Option<Duration> {
    Duration::try_from_secs_f64(seconds?).ok()
}
