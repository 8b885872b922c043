//! A worker's death and its follower, as they are told piece by piece; and what follows when both are known.

use std::collections::VecDeque;

use super::work::{Asked, Queued, Sent, Work, lost};
use super::{Active, Core, Effect, NO_GENERATION, Phase};
use crate::event::{Cause, CheckpointState, Event, Restored, WhyNot};
use crate::wire::{Generation, Next};

#[derive(Debug, Default)]
pub(super) struct Recovery {
    pub(super) active: Option<Active>,
    /// The calls that were not answered.
    pub(super) sent: VecDeque<Sent>,
    /// The first death; a copy that dies in its turn is a consequence.
    pub(super) death: Option<Death>,
    /// Of the last death: the dead worker's generation, and who follows.
    pub(super) next: Option<(Generation, Next)>,
    pub(super) follower: Option<Follower>,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Death {
    pub(super) cause: Cause,
    pub(super) killed: bool,
    /// What the worker had begun last.
    pub(super) ticket: u64,
}

#[derive(Debug)]
pub(super) enum Follower {
    Copy {
        generation: Generation,
        turn: u32,
        restored: Restored,
        of_calls: bool,
    },
    Empty(Generation),
}

impl Recovery {
    /// The follower, if it is the one that the last death announced: an earlier one may be dead by now.
    fn expected_follower(&self) -> Option<&Follower> {
        let (dead, next) = self.next?;
        self.follower.as_ref().filter(|follower| match follower {
            Follower::Copy { generation, .. } => next == Next::Copy && *generation == dead,
            Follower::Empty(generation) => {
                next == Next::Fresh && generation.number == dead.number + 1
            }
        })
    }
}

impl Core {
    /// Notes a part of the story, and acts when it is complete.
    pub(super) fn recover(&mut self, note: impl FnOnce(&mut Recovery)) -> Vec<Effect> {
        self.input = None;
        let mut recovery = match std::mem::replace(&mut self.phase, Phase::Idle(NO_GENERATION)) {
            Phase::Recovering(recovery) => recovery,
            Phase::Running(_, active) => Recovery {
                active: Some(active),
                ..Recovery::default()
            },
            Phase::Calling(_, sent) => Recovery {
                sent,
                ..Recovery::default()
            },
            Phase::Idle(_) | Phase::Starting { .. } | Phase::Gone { .. } => Recovery::default(),
        };
        note(&mut recovery);
        let (Some(death), Some(follower)) = (recovery.death, recovery.expected_follower()) else {
            self.phase = Phase::Recovering(recovery);
            return Vec::new();
        };
        let checkpoint = match &recovery.active {
            Some(active) => active.checkpoint.clone(),
            None => self.guard.take(),
        };
        let (generation, turn, restored) = match follower {
            Follower::Copy {
                generation,
                turn,
                restored,
                of_calls,
            } if *of_calls || recovery.active.is_some() => (*generation, *turn, restored.clone()),
            Follower::Empty(generation) => (*generation, 0, lost(why_not(checkpoint))),
            Follower::Copy { .. } => {
                // The worker died after it had reported the end of its run and before it let the copy go: what the copy has is
                // the namespace before that run, of which the owner thinks that it completed.
                self.send_again(recovery.sent);
                let mut effects = vec![lost_between_runs(death.cause)];
                effects.extend(self.restart());
                return effects;
            }
        };
        self.phase = Phase::Idle(generation);
        self.turn = turn;
        self.guard = None;
        let mut sent = recovery.sent;
        let active = match recovery.active {
            Some(active) => Some(Asked::Run(active.id)),
            None => sent
                .pop_front_if(|first| first.ticket == death.ticket)
                .map(|sent| Asked::Call(sent.call.id)),
        };
        let cause = death.cause;
        let mut effects = vec![match active {
            Some(asked) if death.killed => asked.interrupted(restored),
            Some(asked) => asked.died(cause, restored),
            None => Effect::Emit(Event::Lost { cause, restored }),
        }];
        self.send_again(sent);
        effects.extend(self.next());
        effects
    }

    /// Puts calls that were not begun back in front of the queue.
    pub(super) fn send_again(&mut self, sent: VecDeque<Sent>) {
        for sent in sent.into_iter().rev() {
            self.queue.push_front(Queued {
                work: Work::Call(sent.call),
                interrupted: sent.interrupted,
            });
        }
    }
}

fn lost_between_runs(cause: Cause) -> Effect {
    let restored = lost(WhyNot::BetweenRuns);
    Effect::Emit(Event::Lost { cause, restored })
}

fn why_not(checkpoint: Option<CheckpointState>) -> WhyNot {
    match checkpoint {
        None => WhyNot::BetweenRuns,
        Some(CheckpointState::Off) => WhyNot::CheckpointOff,
        Some(CheckpointState::TooLarge { bytes, limit }) => WhyNot::TooLarge { bytes, limit },
        Some(CheckpointState::Failed { error }) => WhyNot::CheckpointFailed { error },
        Some(CheckpointState::Taken) => WhyNot::CopyDied,
    }
}
