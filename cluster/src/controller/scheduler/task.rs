//! A load-balanced task: what is asked of it, what stage it is in, and what can become of it.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;

use super::dependency::Dependency;
use super::engines::EngineKey;
use super::limits::Limits;
use super::queue::{ClientKey, Where};
use crate::MessageId;

/// A task, by the order in which it came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct TaskNumber(pub(super) u64);

/// A task as it is submitted. `P` is what an engine needs to run it; the scheduler does not look into it.
#[derive(Clone, Debug)]
pub struct Submission<P> {
    /// Its request's id.
    pub id: MessageId,
    /// Who asked for it: the ROUTER identity that a reply goes to.
    pub client: Bytes,
    /// What it takes of memory while it has not ended, in bytes.
    pub bytes: u64,
    /// How often it may be tried again, after it failed or its engine died.
    pub retries: u32,
    /// Where and when it may run; anywhere and at once if there are none.
    pub conditions: Option<Box<Conditions>>,
    /// What an engine needs.
    pub payload: P,
}

/// Where and when a task may run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Conditions {
    /// The identities of the engines that may run it; all if there are none.
    pub targets: Vec<Bytes>,
    /// It runs after these.
    pub after: Dependency,
    /// It runs where these ran.
    pub follow: Dependency,
    /// It fails when it has waited so long for an engine.
    pub timeout: Option<Duration>,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision<P> {
    /// Send it to this engine.
    Run {
        /// The engine's identity.
        engine: Bytes,
        /// Which task.
        id: MessageId,
        /// How often it was given to an engine before.
        attempt: u32,
        /// What the engine needs.
        payload: P,
    },
    /// Tell its client that no engine answers for it.
    Fail {
        /// Which task.
        id: MessageId,
        /// What an engine would have needed.
        payload: P,
        /// Why.
        why: WhyNot,
    },
}

/// Why a task fails that no engine answers for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WhyNot {
    /// The engine that had it is gone.
    #[error(
        "the engine {:?} died while it had the task, which may have run in part; with `retries` it would be tried elsewhere", 
        String::from_utf8_lossy(.0)
    )]
    EngineDied(Bytes),
    /// None of its targets is there.
    #[error("none of the task's target engines is there any more; give it others, or none")]
    NoTarget,
    /// All engines that may run it said that their namespace does not have what it needs.
    #[error(
        "no engine meets the task's requirements: each that may run it has refused it; run what defines them on the engines first"
    )]
    Refused,
    /// What it was to run after did not end as demanded.
    #[error(
        "the task's `after` can never be met: a task that it names has ended otherwise than demanded"
    )]
    After,
    /// There is no engine where all ran that it was to follow.
    #[error(
        "the task's `follow` can never be met: the tasks that it names ended otherwise than demanded, on different engines, or on \
         engines that are gone"
    )]
    Follow,
    /// It names a task that is not known.
    #[error(
        "the task depends on {0}, which is not a load-balanced task that this controller knows: it may be the task itself, one \
         submitted by a direct view or to another controller, or one that ended more than {remembered} tasks ago", remembered = super::REMEMBERED
    )]
    UnknownDependency(MessageId),
    /// It waited longer than it was to.
    #[error("the task waited {0:?} without being given to an engine, which is its `timeout`")]
    Timeout(Duration),
    /// A client wanted it so.
    #[error("the task was aborted before it ran")]
    Aborted,
    /// The client has too much waiting.
    #[error(
        "this client's tasks take {held} bytes of the controller's memory and this one would add {bytes}, but a client may have no \
         more than {limit} bytes waiting (`queue_mb` under [limits] in the profile): submit it again when others have ended"
    )]
    QueueFull {
        /// Bytes of the client's other tasks.
        held: u64,
        /// Bytes of this one.
        bytes: u64,
        /// The limit.
        limit: u64,
    },
}

impl WhyNot {
    /// The error's name as ipyparallel's clients know it.
    pub fn ename(&self) -> &'static str {
        match self {
            Self::EngineDied(_) => "EngineError",
            Self::NoTarget | Self::Refused | Self::After | Self::Follow => "ImpossibleDependency",
            Self::UnknownDependency(_) => "InvalidDependency",
            Self::Timeout(_) => "TaskTimeout",
            Self::Aborted => "TaskAborted",
            Self::QueueFull { .. } => "QueueFull",
        }
    }
}

/// What an engine answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The task succeeded.
    Succeeded,
    /// It failed.
    Failed,
    /// It did not run, since the engine's namespace lacks what it needs.
    Unmet,
    /// It did not run, since the engine dropped what waited there.
    Aborted,
}

/// What is to be done with an engine's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is for the client.
    Deliver,
    /// The task is not at its end: nobody needs this answer.
    Again,
    /// The engine did not have this task, so its client has been answered.
    Unknown,
}

/// Its stages. A task that has ended is none any more.
#[derive(Debug)]
pub(super) enum State {
    /// Its dependencies are open.
    Blocked,
    /// It waits for room.
    Ready(Where),
    Running {
        engine: EngineKey,
        since: Duration,
    },
}

#[derive(Debug)]
pub(super) struct Task<P> {
    pub(super) id: MessageId,
    pub(super) client: ClientKey,
    pub(super) bytes: u64,
    pub(super) retries: u32,
    /// How often it was given to an engine.
    pub(super) attempts: u32,
    pub(super) payload: P,
    pub(super) state: State,
    /// A client wants it not to run, or not again.
    pub(super) aborted: bool,
    /// None for a task that may run anywhere and at once.
    pub(super) limits: Option<Box<Limits>>,
    /// The tasks that wait for its end.
    pub(super) dependents: BTreeSet<TaskNumber>,
}
