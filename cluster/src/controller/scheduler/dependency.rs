//! What a task waits for: `after` (when) and `follow` (where), as ipyparallel's `Dependency` defines them.
//!
//! Source: <https://ipyparallel.readthedocs.io/en/stable/tutorial/task.html#dependencies>.

use std::collections::BTreeSet;

use super::engines::EngineKey;
use super::task::TaskNumber;
use crate::MessageId;

/// Other tasks that must have ended before this one may run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dependency {
    /// The requests' ids; none of them is no dependency.
    pub ids: Vec<MessageId>,
    /// Whether all of them are needed; otherwise one is enough.
    pub all: bool,
    /// Whether a task that succeeded counts.
    pub success: bool,
    /// Whether a task that failed counts.
    pub failure: bool,
}

impl Default for Dependency {
    fn default() -> Self {
        Self {
            ids: Vec::new(),
            all: true,
            success: true,
            failure: false,
        }
    }
}

/// How a task ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ended {
    pub(super) success: bool,
    /// Where; nowhere when no engine answered for it.
    pub(super) engine: Option<EngineKey>,
}

/// Where a dependency stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    Open,
    Met,
    /// It can never be met.
    Impossible,
}

/// A dependency and what has become of its tasks so far.
#[derive(Debug)]
pub(super) struct Progress {
    all: bool,
    success: bool,
    failure: bool,
    /// Those that have not ended.
    pub(super) open: BTreeSet<TaskNumber>,
    /// Where those ended that count.
    pub(super) engines: BTreeSet<EngineKey>,
    counted: usize,
    refused: usize,
    /// One that counts ended nowhere, so nobody can follow it.
    nowhere: bool,
}

impl Progress {
    pub(super) fn new(dependency: &Dependency) -> Self {
        Self {
            all: dependency.all,
            success: dependency.success,
            failure: dependency.failure,
            open: BTreeSet::new(),
            engines: BTreeSet::new(),
            counted: 0,
            refused: 0,
            nowhere: false,
        }
    }

    /// One of the tasks has ended.
    pub(super) fn on_end(&mut self, ended: Ended) {
        if !(ended.success && self.success || !ended.success && self.failure) {
            self.refused += 1;
            return;
        }
        self.counted += 1;
        match ended.engine {
            Some(engine) => drop(self.engines.insert(engine)),
            None => self.nowhere = true,
        }
    }

    /// As a matter of time: `after`.
    pub(super) fn in_time(&self) -> Standing {
        let none_left = self.open.is_empty();
        match self.all {
            true if self.refused > 0 => Standing::Impossible,
            true if none_left => Standing::Met,
            false if self.counted > 0 => Standing::Met,
            false if none_left && self.refused > 0 => Standing::Impossible,
            false if none_left => Standing::Met,
            _ => Standing::Open,
        }
    }

    /// As a matter of place: `follow`. When it is met, [`Self::engines`] are the places; of "any" there may be more later.
    pub(super) fn in_place(&self) -> Standing {
        let scattered = self.engines.len() > 1 || self.nowhere;
        match self.in_time() {
            _ if self.all && scattered => Standing::Impossible,
            Standing::Met if !self.all && self.engines.is_empty() && self.is_real() => {
                match self.open.is_empty() {
                    true => Standing::Impossible,
                    false => Standing::Open,
                }
            }
            standing => standing,
        }
    }

    /// Whether it names any task.
    pub(super) fn is_real(&self) -> bool {
        self.counted + self.refused + self.open.len() > 0
    }

    /// Whether another place may become possible.
    pub(super) fn may_widen(&self) -> bool {
        !self.all && !self.open.is_empty()
    }
}
