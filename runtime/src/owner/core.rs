//! What the owner knows of its processes, and what follows from what they say. No socket, no clock.
//!
//! A worker's death is told twice: by the supervisor (of what it died, who follows) and by the follower itself (an empty worker is ready, or a
//! copy took over). The two come by different sockets in any order; only both together end the run.

use std::collections::VecDeque;

use crate::event::{Cause, CheckpointState, Event, Outcome, Restored, RunId, Snippet, WhyNot};
use crate::wire::{
    Answer, End, FromSupervisor, FromWorker, Generation, Next, ToSupervisor, ToWorker,
};

/// What is to be done, in this order.
#[derive(Debug)]
pub(super) enum Effect {
    Emit(Event),
    /// Ask the user; the prompt is what stdout ends with, if that is `evcxr_input`'s.
    AskInput,
    Worker(ToWorker),
    Supervisor(ToSupervisor),
    Answer(Answer),
    /// Kill everything and start an empty worker of this epoch; the supervisor too, if it is gone.
    BeginAnew {
        epoch: u32,
    },
    /// Tell those who wait for the namespace to be ready, or why it never will be.
    Ready(Result<(), String>),
}

/// The owner's state.
#[derive(Debug)]
pub(super) struct Core {
    phase: Phase,
    queue: VecDeque<Queued>,
    last_ticket: u64,
    epoch: u32,
    /// Why the last worker could not become ready, in its own words.
    failure: Option<String>,
    /// The request that a thread of user code waits for.
    input: Option<u64>,
    checkpoint: bool,
    limit: u64,
}

#[derive(Debug)]
struct Queued {
    snippet: Snippet,
    /// Interrupted while it waited; it is reported when its turn comes.
    interrupted: bool,
}

#[derive(Debug)]
enum Phase {
    /// An empty worker of the current epoch is being started; these runs end when it is ready, and their output is complete.
    Starting {
        ended: Vec<RunId>,
    },
    Idle(Generation),
    Running(Generation, Active),
    /// The worker is dead.
    Recovering(Recovery),
    /// There is no worker and will be none until a restart.
    Gone {
        reason: String,
    },
}

/// The run that was sent to the worker.
#[derive(Debug)]
struct Active {
    id: RunId,
    ticket: u64,
    /// Known when it has started.
    checkpoint: Option<CheckpointState>,
}

#[derive(Debug, Default)]
struct Recovery {
    active: Option<Active>,
    /// The first death; a copy that dies in its turn is a consequence.
    death: Option<Death>,
    /// Of the last death: the dead worker's generation, and who follows.
    next: Option<(Generation, Next)>,
    follower: Option<Follower>,
}

#[derive(Debug, Clone, Copy)]
struct Death {
    cause: Cause,
    killed: bool,
}

#[derive(Debug)]
enum Follower {
    Copy {
        generation: Generation,
        threads_lost: u32,
        tokio_lost: bool,
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

const NOTHING_LOST: Restored = Restored {
    variables: true,
    threads_lost: 0,
    tokio_lost: false,
    why_not: None,
};

fn lost(why_not: WhyNot) -> Restored {
    Restored {
        variables: false,
        threads_lost: 0,
        tokio_lost: false,
        why_not: Some(why_not),
    }
}

impl Core {
    /// A core whose first worker is being started.
    pub(super) fn new(epoch: u32, checkpoint: bool, limit: u64) -> Core {
        Core {
            phase: Phase::Starting { ended: Vec::new() },
            queue: VecDeque::new(),
            last_ticket: 0,
            epoch,
            failure: None,
            input: None,
            checkpoint,
            limit,
        }
    }

    /// Whether no user code runs but in background threads.
    pub(super) fn is_idle(&self) -> bool {
        matches!(self.phase, Phase::Idle(_))
    }

    /// Whether a run was sent that has not started yet.
    pub(super) fn awaits_start(&self) -> bool {
        matches!(&self.phase, Phase::Running(_, active) if active.checkpoint.is_none())
    }

    pub(super) fn set_checkpoint(&mut self, on: bool, limit: u64) {
        (self.checkpoint, self.limit) = (on, limit);
    }

    pub(super) fn run(&mut self, snippet: Snippet) -> Vec<Effect> {
        self.queue.push_back(Queued {
            snippet,
            interrupted: false,
        });
        self.next()
    }

    pub(super) fn interrupt(&mut self, id: RunId) -> Vec<Effect> {
        if let Phase::Running(_, active) = &self.phase
            && active.id == id
        {
            let ticket = active.ticket;
            return vec![Effect::Supervisor(ToSupervisor::Kill { ticket })];
        }
        for queued in &mut self.queue {
            queued.interrupted |= queued.snippet.id == id;
        }
        Vec::new()
    }

    pub(super) fn input(&mut self, line: Option<String>) -> Vec<Effect> {
        let answer = self.input.take().map(|request| Answer { request, line });
        answer.map(Effect::Answer).into_iter().collect()
    }

    /// Begins anew; what was going or queued ends when the new worker is ready.
    pub(super) fn restart(&mut self) -> Vec<Effect> {
        self.begin_anew();
        vec![Effect::BeginAnew { epoch: self.epoch }]
    }

    /// The supervisor is gone, and all its descendants with it.
    pub(super) fn supervisor_gone(&mut self) -> Vec<Effect> {
        let cause = Cause::SupervisorGone;
        let mut effects = Vec::new();
        let active = match std::mem::replace(&mut self.phase, Phase::Idle(NO_GENERATION)) {
            Phase::Starting { ended } => {
                // Twice in a row is a reason not to try again and again.
                effects
                    .extend(self.give_up(ended, "the runtime ended while it started".to_owned()));
                return effects;
            }
            Phase::Gone { reason } => {
                self.phase = Phase::Gone { reason };
                return effects;
            }
            Phase::Running(_, active) => Some(active),
            Phase::Recovering(recovery) => recovery.active,
            Phase::Idle(_) => None,
        };
        let restored = lost(WhyNot::CopyDied);
        effects.push(Effect::Emit(match active {
            Some(active) => Event::Finished {
                id: active.id,
                outcome: Outcome::Died { cause, restored },
            },
            None => Event::Lost { cause, restored },
        }));
        self.phase = Phase::Starting { ended: Vec::new() };
        self.input = None;
        self.epoch += 1;
        effects.push(Effect::BeginAnew { epoch: self.epoch });
        effects
    }

    /// The processes could not be started.
    pub(super) fn spawn_failed(&mut self, reason: String) -> Vec<Effect> {
        let ended = self.take_unfinished();
        self.give_up(ended, reason)
    }

    /// Everything is gone for good: ends what has not ended.
    pub(super) fn shut_down(&mut self) -> Vec<Effect> {
        let ended = self.take_unfinished();
        self.phase = Phase::Gone {
            reason: "the runtime was shut down".to_owned(),
        };
        ended.into_iter().map(interrupted).collect()
    }

    /// A message from the worker, after everything that it wrote before was emitted.
    pub(super) fn on_worker(&mut self, message: FromWorker) -> Vec<Effect> {
        match message {
            FromWorker::Ready { generation } => self.on_ready(generation),
            FromWorker::Failed { reason } => {
                self.failure = Some(reason);
                Vec::new()
            }
            FromWorker::Started { ticket, checkpoint } => match &mut self.phase {
                Phase::Running(_, active) if active.ticket == ticket => {
                    active.checkpoint = Some(checkpoint.clone());
                    let id = active.id;
                    vec![Effect::Emit(Event::Started { id, checkpoint })]
                }
                _ => Vec::new(),
            },
            FromWorker::Result { ticket, text } => match &self.phase {
                Phase::Running(_, active) if active.ticket == ticket => {
                    let id = active.id;
                    vec![Effect::Emit(Event::Result { id, text })]
                }
                _ => Vec::new(),
            },
            FromWorker::InputWanted { request } => match self.phase {
                Phase::Running(..) | Phase::Idle(_) => {
                    self.input = Some(request);
                    vec![Effect::AskInput]
                }
                _ => Vec::new(),
            },
            FromWorker::Finished { ticket, end } => match &self.phase {
                Phase::Running(generation, active) if active.ticket == ticket => {
                    let (generation, id) = (*generation, active.id);
                    self.phase = Phase::Idle(generation);
                    let outcome = match end {
                        End::Completed => Outcome::Completed,
                        End::Panicked(panic) => Outcome::Panicked(panic),
                        End::Returned { error } => Outcome::Returned { error },
                        End::TypesChanged { variables } => Outcome::TypesChanged { variables },
                        End::LoadFailed { error } => Outcome::LoadFailed { error },
                        End::Cancelled => Outcome::Interrupted {
                            restored: NOTHING_LOST,
                        },
                    };
                    let mut effects = vec![Effect::Emit(Event::Finished { id, outcome })];
                    effects.extend(self.next());
                    effects
                }
                _ => Vec::new(),
            },
            FromWorker::TookOver {
                generation,
                threads_lost,
                tokio_lost,
            } => {
                if generation.epoch != self.epoch {
                    return Vec::new();
                }
                self.on_follower(Follower::Copy {
                    generation,
                    threads_lost,
                    tokio_lost,
                })
            }
        }
    }

    /// A message from the supervisor, after everything that the dead worker sent and wrote.
    pub(super) fn on_supervisor(&mut self, message: FromSupervisor) -> Vec<Effect> {
        let FromSupervisor::Died {
            generation,
            status,
            killed,
            overflow,
            next,
        } = message;
        if generation.epoch != self.epoch {
            return Vec::new();
        }
        let cause = Cause::from_status(status, overflow);
        if next == Next::Nobody {
            let reason = self.failure.take();
            let reason = reason.unwrap_or_else(|| format!("the runtime did not start: {cause}"));
            let ended = self.take_unfinished();
            return self.give_up(ended, reason);
        }
        if matches!(self.phase, Phase::Starting { .. }) {
            return Vec::new();
        }
        self.recover(|recovery| {
            recovery.death.get_or_insert(Death { cause, killed });
            recovery.next = Some((generation, next));
        })
    }

    fn on_ready(&mut self, generation: Generation) -> Vec<Effect> {
        if generation.epoch != self.epoch {
            return Vec::new();
        }
        if let Phase::Starting { ended } = &mut self.phase {
            let ended = std::mem::take(ended);
            self.phase = Phase::Idle(generation);
            let mut effects: Vec<Effect> = ended.into_iter().map(interrupted).collect();
            effects.push(Effect::Ready(Ok(())));
            effects.extend(self.next());
            return effects;
        }
        self.on_follower(Follower::Empty(generation))
    }

    fn on_follower(&mut self, follower: Follower) -> Vec<Effect> {
        match self.phase {
            Phase::Idle(_) | Phase::Running(..) | Phase::Recovering(_) => {
                self.recover(|recovery| recovery.follower = Some(follower))
            }
            Phase::Starting { .. } | Phase::Gone { .. } => Vec::new(),
        }
    }

    /// Notes a part of the story, and acts when it is complete.
    fn recover(&mut self, note: impl FnOnce(&mut Recovery)) -> Vec<Effect> {
        self.input = None;
        let mut recovery = match std::mem::replace(&mut self.phase, Phase::Idle(NO_GENERATION)) {
            Phase::Recovering(recovery) => recovery,
            Phase::Running(_, active) => Recovery {
                active: Some(active),
                ..Recovery::default()
            },
            Phase::Idle(_) | Phase::Starting { .. } | Phase::Gone { .. } => Recovery::default(),
        };
        note(&mut recovery);
        let (Some(death), Some(follower)) = (recovery.death, recovery.expected_follower()) else {
            self.phase = Phase::Recovering(recovery);
            return Vec::new();
        };
        let mut effects = Vec::new();
        match (&recovery.active, follower) {
            (Some(active), follower) => {
                let (generation, restored) = match *follower {
                    Follower::Copy {
                        generation,
                        threads_lost,
                        tokio_lost,
                    } => (
                        generation,
                        Restored {
                            threads_lost: threads_lost as usize,
                            tokio_lost,
                            ..NOTHING_LOST
                        },
                    ),
                    Follower::Empty(generation) => {
                        (generation, lost(why_not(active.checkpoint.clone())))
                    }
                };
                self.phase = Phase::Idle(generation);
                let outcome = if death.killed {
                    Outcome::Interrupted { restored }
                } else {
                    Outcome::Died {
                        cause: death.cause,
                        restored,
                    }
                };
                let id = active.id;
                effects.push(Effect::Emit(Event::Finished { id, outcome }));
            }
            (None, Follower::Empty(generation)) => {
                self.phase = Phase::Idle(*generation);
                effects.push(lost_between_runs(death.cause));
            }
            (None, Follower::Copy { .. }) => {
                // The worker died after it had reported the end of its run and before it let the copy go: what the copy has is
                // the namespace before that run, of which the owner thinks that it completed.
                effects.push(lost_between_runs(death.cause));
                effects.extend(self.restart());
                return effects;
            }
        }
        effects.extend(self.next());
        effects
    }

    /// Sends the next run, if it is time.
    fn next(&mut self) -> Vec<Effect> {
        let mut effects = Vec::new();
        loop {
            match &self.phase {
                Phase::Idle(generation) => {
                    let generation = *generation;
                    let Some(Queued {
                        snippet,
                        interrupted: cancelled,
                    }) = self.queue.pop_front()
                    else {
                        return effects;
                    };
                    if cancelled {
                        let id = snippet.id;
                        effects.push(Effect::Emit(Event::Finished {
                            id,
                            outcome: Outcome::Interrupted {
                                restored: NOTHING_LOST,
                            },
                        }));
                        continue;
                    }
                    self.last_ticket += 1;
                    let ticket = self.last_ticket;
                    self.phase = Phase::Running(
                        generation,
                        Active {
                            id: snippet.id,
                            ticket,
                            checkpoint: None,
                        },
                    );
                    effects.push(Effect::Worker(ToWorker::Run {
                        generation,
                        ticket,
                        artifact: snippet.artifact.into_os_string().into_encoded_bytes(),
                        entry: snippet.entry,
                        checkpoint: (self.checkpoint && snippet.checkpoint).then_some(self.limit),
                    }));
                    return effects;
                }
                Phase::Gone { reason } => {
                    let Some(Queued { snippet, .. }) = self.queue.pop_front() else {
                        return effects;
                    };
                    effects.push(load_failed(snippet.id, reason));
                }
                Phase::Starting { .. } | Phase::Running(..) | Phase::Recovering(_) => {
                    return effects;
                }
            }
        }
    }

    fn begin_anew(&mut self) {
        let ended = self.take_unfinished();
        self.epoch += 1;
        self.failure = None;
        self.phase = Phase::Starting { ended };
    }

    /// Everything that was asked for and has not ended, in order.
    fn take_unfinished(&mut self) -> Vec<RunId> {
        self.input = None;
        let phase = std::mem::replace(&mut self.phase, Phase::Starting { ended: Vec::new() });
        let mut ended = match phase {
            Phase::Starting { ended } => ended,
            Phase::Running(_, active) => vec![active.id],
            Phase::Recovering(recovery) => recovery.active.iter().map(|active| active.id).collect(),
            Phase::Idle(_) | Phase::Gone { .. } => Vec::new(),
        };
        ended.extend(self.queue.drain(..).map(|queued| queued.snippet.id));
        ended
    }

    fn give_up(&mut self, ended: Vec<RunId>, reason: String) -> Vec<Effect> {
        let mut effects: Vec<Effect> = ended
            .into_iter()
            .map(|id| load_failed(id, &reason))
            .collect();
        effects.push(Effect::Ready(Err(reason.clone())));
        self.phase = Phase::Gone { reason };
        effects.extend(self.next());
        effects
    }
}

/// Stands in while a phase is taken out of its place.
const NO_GENERATION: Generation = Generation {
    epoch: 0,
    number: 0,
};

fn interrupted(id: RunId) -> Effect {
    let restored = lost(WhyNot::Restarted);
    Effect::Emit(Event::Finished {
        id,
        outcome: Outcome::Interrupted { restored },
    })
}

fn load_failed(id: RunId, reason: &str) -> Effect {
    let error = reason.to_owned();
    Effect::Emit(Event::Finished {
        id,
        outcome: Outcome::LoadFailed { error },
    })
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

#[cfg(test)]
mod tests;
