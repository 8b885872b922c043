//! What is asked of a runtime, and the ways in which it ends without an answer of the worker's.

use super::super::calls::Prepared;
use super::Effect;
use crate::call::CallOutcome;
use crate::event::{Cause, Event, Outcome, Restored, RunId, Snippet, WhyNot};

/// What is asked for.
#[derive(Debug)]
pub(in crate::owner) enum Work {
    Run(Snippet),
    Call(Prepared),
}

impl Work {
    pub(super) fn asked(&self) -> Asked {
        match self {
            Work::Run(snippet) => Asked::Run(snippet.id),
            Work::Call(call) => Asked::Call(call.id),
        }
    }
}

/// What is to be told of in the end.
#[derive(Debug, Clone, Copy)]
pub(super) enum Asked {
    Run(RunId),
    Call(RunId),
}

impl Asked {
    pub(super) fn id(self) -> RunId {
        match self {
            Asked::Run(id) | Asked::Call(id) => id,
        }
    }

    pub(super) fn not_run(self, reason: &str) -> Effect {
        let error = reason.to_owned();
        Effect::Emit(match self {
            Asked::Run(id) => Event::Finished {
                id,
                outcome: Outcome::LoadFailed { error },
            },
            Asked::Call(id) => called(id, CallOutcome::NotRun { error }),
        })
    }

    pub(super) fn interrupted(self, restored: Restored) -> Effect {
        Effect::Emit(match self {
            Asked::Run(id) => Event::Finished {
                id,
                outcome: Outcome::Interrupted { restored },
            },
            Asked::Call(id) => called(id, CallOutcome::Interrupted { restored }),
        })
    }

    pub(super) fn died(self, cause: Cause, restored: Restored) -> Effect {
        Effect::Emit(match self {
            Asked::Run(id) => Event::Finished {
                id,
                outcome: Outcome::Died { cause, restored },
            },
            Asked::Call(id) => called(id, CallOutcome::Died { cause, restored }),
        })
    }
}

fn called(id: RunId, outcome: CallOutcome) -> Event {
    let span = None;
    Event::Called { id, outcome, span }
}

#[derive(Debug)]
pub(super) struct Queued {
    pub(super) work: Work,
    /// Interrupted while it waited; it is reported when its turn comes.
    pub(super) interrupted: bool,
}

/// A call that was sent to the worker.
#[derive(Debug)]
pub(super) struct Sent {
    pub(super) ticket: u64,
    pub(super) call: Prepared,
    /// Not to begin, should it be sent again.
    pub(super) interrupted: bool,
}

impl Sent {
    pub(super) fn asked(&self) -> Asked {
        Asked::Call(self.call.id)
    }
}

pub(super) const NOTHING_LOST: Restored = Restored {
    variables: true,
    threads_lost: 0,
    tokio_lost: false,
    closed: 0,
    why_not: None,
};

pub(super) fn lost(why_not: WhyNot) -> Restored {
    Restored {
        variables: false,
        threads_lost: 0,
        tokio_lost: false,
        closed: 0,
        why_not: Some(why_not),
    }
}
