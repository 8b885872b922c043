//! What magics are run against: the two traits that a kernel implements, and the plain types they speak.
//!
//! [`Magics`] holds what lasts from cell to cell and runs cells; one file a family of magics beside it.

mod cell;
mod cluster;
mod names;
mod parallel;
mod px;
mod time;
mod wait;
mod who;

#[cfg(test)]
mod tests;

pub use cell::only_asks;
pub use cluster::up;

use std::collections::BTreeSet;

use tokio::sync::mpsc;

use crate::cell::Code;
use crate::event::{EngineEvent, EngineId, Failure, MimeBundle, Shown};
use crate::options::Signal;
use crate::timeit::Times;

/// The notebook: evaluates Rust, shows.
pub trait Notebook: Send {
    /// See [`crate::cell::AtBoundary`].
    fn at_boundary(&self, text: &str) -> bool;

    /// Evaluates [`Code::source`] and shows its output, all of it before this returns; but not its value.
    ///
    /// An interrupt ends it with a failure.
    fn evaluate(&mut self, code: &Code) -> impl Future<Output = Result<Evaluated, Failure>> + Send;

    /// Broadcasts, in the order of the calls.
    fn show(&mut self, shown: Shown);

    /// The variables there are, in the order of their names.
    fn variables(&mut self) -> impl Future<Output = Vec<Variable>> + Send;

    /// Switches checkpoints, if `on` is given; says in a sentence with its line end what holds now.
    fn checkpoint(
        &mut self,
        on: Option<bool>,
    ) -> impl Future<Output = Result<String, Failure>> + Send;

    /// Completes when the user interrupts, once an interrupt; also for one since the cell began that nobody has seen. Dropping the future
    /// loses none.
    fn interrupted(&mut self) -> impl Future<Output = ()> + Send;
}

/// What came of evaluated code.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Evaluated {
    /// The value of its last expression, if it has one.
    pub value: Option<MimeBundle>,
    /// How long it took.
    pub times: Times,
}

/// A variable of the notebook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Variable {
    /// Its name.
    pub name: String,
    /// Its type, as Rust spells it.
    pub type_name: String,
    /// Its value in few words, if it is known without running anything.
    pub summary: Option<String>,
}

/// The engines, and the cluster they belong to.
///
/// Methods answer from what is known, or fail soon: [`Engines::ids`] and [`Engines::status`] are given two seconds. An interrupt drops the
/// future of any of them.
pub trait Engines: Send {
    /// The engines there are, ascending; `None` without a cluster.
    fn ids(&mut self) -> impl Future<Output = Result<Option<Vec<EngineId>>, Failure>> + Send;

    /// Has `targets` run [`Code::source`]. Returns when it was sent, not when it has run.
    fn execute(
        &mut self,
        targets: &[EngineId],
        code: &Code,
        how: How,
    ) -> impl Future<Output = Result<Run, Failure>> + Send;

    /// Sends a signal to what runs on `targets`. Signal 0 is never sent.
    fn signal(
        &mut self,
        targets: &[EngineId],
        signal: Signal,
    ) -> impl Future<Output = Result<(), Failure>> + Send;

    /// Starts a cluster on this machine, with one engine a core if `n` is not given, and waits until its engines are there. If there is
    /// one already, says so by failing.
    fn start(&mut self, n: Option<u32>) -> impl Future<Output = Result<Cluster, Failure>> + Send;

    /// Stops the cluster with all its engines. Says in a sentence what it did, since others may have used that cluster.
    fn stop(&mut self) -> impl Future<Output = Result<String, Failure>> + Send;

    /// Starts or stops engines until there are `n`.
    fn scale(&mut self, n: u32) -> impl Future<Output = Result<Cluster, Failure>> + Send;

    /// Stops the cluster and starts it with as many engines.
    fn restart(&mut self) -> impl Future<Output = Result<Cluster, Failure>> + Send;

    /// The cluster there is.
    fn status(&mut self) -> impl Future<Output = Result<Option<Cluster>, Failure>> + Send;
}

/// How a snippet is to be run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct How {
    /// Nothing is asked for but the ending: no output, no result, no count.
    pub silent: bool,
}

/// A snippet on its way through engines.
#[derive(Debug)]
pub struct Run {
    /// Unique in the life of the page, such as the request's message id; begins the names of displays.
    pub id: String,
    /// What the targets say. An engine's [ending](EngineEvent::is_end) comes after all of its output. When the channel closes, engines that
    /// have not ended are lost. If the receiver goes, nobody wants to know any more.
    pub events: mpsc::UnboundedReceiver<(EngineId, EngineEvent)>,
}

/// A cluster as `%cluster status` tells of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cluster {
    /// Its profile or id.
    pub name: String,
    /// Its engines, ascending.
    pub ids: Vec<EngineId>,
    /// What else there is to say, a line each.
    pub details: Vec<String>,
}

/// What lasts from cell to cell: the defaults of `%px`, the last result, whether `%autopx` is on.
#[derive(Debug, Default)]
pub struct Magics {
    defaults: px::Defaults,
    autopx: bool,
    last: Option<px::Last>,
    names: BTreeSet<String>,
}

impl Magics {
    /// As a notebook begins.
    pub fn new() -> Magics {
        Magics::default()
    }

    /// Whether Rust of cells goes to the engines.
    pub fn autopx(&self) -> bool {
        self.autopx
    }

    /// Names that snippets gave to variables, functions and types of the engines, in order; for completion.
    pub fn engine_names(&self) -> impl Iterator<Item = &str> {
        self.names.iter().map(String::as_str)
    }
}
