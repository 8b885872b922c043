//! What restricts a task, and what that leaves: it may run at some engines, must wait, or can never run.

use std::collections::BTreeSet;
use std::time::Duration;

use super::dependency::{Dependency, Progress, Standing};
use super::engines::{EngineKey, Engines};
use super::queue::Where;
use super::task::{TaskNumber, WhyNot};

/// What can be done with a task that no engine has.
pub(super) enum Chance {
    Wait,
    Go(Where),
    Never(WhyNot),
}

/// What restricts a task.
#[derive(Debug)]
pub(super) struct Limits {
    /// Those that were there when it came; any if none were named.
    pub(super) targets: Option<BTreeSet<EngineKey>>,
    pub(super) after: Progress,
    pub(super) follow: Progress,
    pub(super) timeout: Option<Duration>,
    /// When it times out, while it waits.
    pub(super) due: Option<Duration>,
    /// Others are tried first.
    pub(super) failed_on: BTreeSet<EngineKey>,
    /// Never tried again.
    pub(super) refused_by: BTreeSet<EngineKey>,
}

impl Default for Limits {
    fn default() -> Self {
        let none = Dependency::default();
        Self {
            targets: None,
            after: Progress::new(&none),
            follow: Progress::new(&none),
            timeout: None,
            due: None,
            failed_on: BTreeSet::new(),
            refused_by: BTreeSet::new(),
        }
    }
}

impl Limits {
    /// Tasks that have not ended and that this one depends on; some of them twice.
    pub(super) fn open(&self) -> impl Iterator<Item = TaskNumber> + use<> {
        let open: Vec<_> = self.after.open.iter().chain(&self.follow.open).collect();
        let open: Vec<TaskNumber> = open.into_iter().copied().collect();
        open.into_iter()
    }

    /// Whether an engine that comes may run it.
    pub(super) fn may_roam(&self) -> bool {
        self.targets.is_none() && !self.follow.is_real()
    }

    /// Where it may run now, if anywhere.
    pub(super) fn chance(&mut self, engines: &Engines) -> Chance {
        match self.after.in_time() {
            Standing::Open => return Chance::Wait,
            Standing::Impossible => return Chance::Never(WhyNot::After),
            Standing::Met => {}
        }
        match self.follow.in_place() {
            Standing::Open => return Chance::Wait,
            Standing::Impossible => return Chance::Never(WhyNot::Follow),
            Standing::Met => {}
        }
        let follows = self.follow.is_real();
        let is_free = self.failed_on.is_empty() && self.refused_by.is_empty();
        if self.may_roam() && (is_free || engines.is_empty()) {
            return Chance::Go(Where::Anywhere);
        }
        let targets = |key: &EngineKey| self.targets.as_ref().is_none_or(|it| it.contains(key));
        if !engines.keys().any(|key| targets(&key)) {
            return Chance::Never(WhyNot::NoTarget);
        }
        let mut places: BTreeSet<EngineKey> = engines
            .keys()
            .filter(|key| targets(key) && (!follows || self.follow.engines.contains(key)))
            .collect();
        if places.is_empty() {
            return match self.follow.may_widen() {
                true => Chance::Wait,
                false => Chance::Never(WhyNot::Follow),
            };
        }
        places.retain(|key| !self.refused_by.contains(key));
        if places.is_empty() {
            return match self.follow.may_widen() {
                true => Chance::Wait,
                false => Chance::Never(WhyNot::Refused),
            };
        }
        if places.iter().all(|key| self.failed_on.contains(key)) {
            self.failed_on.clear();
        }
        places.retain(|key| !self.failed_on.contains(key));
        Chance::Go(Where::Among(places))
    }
}
