//! What the owner knows of its processes, and what follows from what they say. No socket, no clock.
//!
//! A worker's death is told twice: by the supervisor (of what it died, who follows) and by the follower itself (an empty worker is ready, or a
//! copy took over). The two come by different sockets in any order; only both together end the run.
//!
//! Calls are sent ahead, so a worker that dies leaves some behind that it never began: they are sent again to who follows it.

mod recovery;
mod work;

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use bytes::Bytes;

use self::recovery::{Death, Follower, Recovery};
pub(super) use self::work::Work;
use self::work::{Asked, NOTHING_LOST, Queued, Sent, lost};
use crate::call::{CallOutcome, Span};
use crate::event::{Cause, CheckpointState, Event, Outcome, Restored, RunId, WhyNot};
use crate::wire::{
    Answer, End, FromSupervisor, FromWorker, Generation, Next, ToSupervisor, ToWorker, WINDOW,
};

/// What is to be done, in this order.
#[derive(Debug)]
pub(super) enum Effect {
    Emit(Event),
    /// Ask the user; the prompt is what stdout ends with, if that is `evcxr_input`'s.
    AskInput,
    Worker(ToWorker),
    /// As `Worker`, with what goes with a call.
    Call {
        message: ToWorker,
        payload: Bytes,
        memory: Option<Arc<OwnedFd>>,
    },
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
    /// Whether there is a copy for calls, as far as the worker has said so since the last snippet.
    guard: Option<CheckpointState>,
    /// How many copies have taken over in the worker's generation.
    turn: u32,
}

#[derive(Debug)]
enum Phase {
    /// An empty worker of the current epoch is being started; these runs end when it is ready, and their output is complete.
    Starting {
        ended: Vec<Asked>,
    },
    Idle(Generation),
    Running(Generation, Active),
    /// These calls were sent and are not answered, at least one.
    Calling(Generation, VecDeque<Sent>),
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
            guard: None,
            turn: 0,
        }
    }

    /// Whether no user code runs but in background threads.
    pub(super) fn is_idle(&self) -> bool {
        matches!(self.phase, Phase::Idle(_))
    }

    /// Whether calls are under way.
    pub(super) fn is_calling(&self) -> bool {
        matches!(self.phase, Phase::Calling(..))
    }

    /// Whether a run was sent that has not started yet.
    pub(super) fn awaits_start(&self) -> bool {
        matches!(&self.phase, Phase::Running(_, active) if active.checkpoint.is_none())
    }

    pub(super) fn set_checkpoint(&mut self, on: bool, limit: u64) {
        (self.checkpoint, self.limit) = (on, limit);
    }

    pub(super) fn run(&mut self, work: Work) -> Vec<Effect> {
        self.queue.push_back(Queued {
            work,
            interrupted: false,
        });
        self.next()
    }

    pub(super) fn interrupt(&mut self, id: RunId) -> Vec<Effect> {
        let sent = match &mut self.phase {
            Phase::Running(_, active) if active.id == id => {
                let ticket = active.ticket;
                return vec![Effect::Supervisor(ToSupervisor::Kill { ticket })];
            }
            Phase::Calling(_, sent) => Some(sent),
            Phase::Recovering(recovery) => Some(&mut recovery.sent),
            _ => None,
        };
        let mut sent = sent.into_iter().flatten();
        if let Some(sent) = sent.find(|sent| sent.call.id == id) {
            sent.interrupted = true;
            let ticket = sent.ticket;
            return vec![Effect::Supervisor(ToSupervisor::Kill { ticket })];
        }
        for queued in &mut self.queue {
            queued.interrupted |= queued.work.asked().id() == id;
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
        let mut sent = VecDeque::new();
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
            Phase::Running(_, active) => Some(Asked::Run(active.id)),
            Phase::Calling(_, calls) => {
                sent = calls;
                None
            }
            Phase::Recovering(recovery) => {
                sent = recovery.sent;
                recovery.active.map(|active| Asked::Run(active.id))
            }
            Phase::Idle(_) => None,
        };
        let restored = lost(WhyNot::CopyDied);
        // Which call was going is not known: the oldest was, most likely, and none runs twice.
        let active = active.or_else(|| sent.pop_front().map(|sent| Asked::Call(sent.call.id)));
        effects.push(match active {
            Some(asked) => asked.died(cause, restored),
            None => Effect::Emit(Event::Lost { cause, restored }),
        });
        self.send_again(sent);
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
        ended.into_iter().map(restarted).collect()
    }

    /// A call's answer, after everything that the call wrote was emitted; no outcome when it was cancelled.
    pub(super) fn on_called(
        &mut self,
        ticket: u64,
        outcome: Option<CallOutcome>,
        span: Option<Span>,
    ) -> Vec<Effect> {
        let Phase::Calling(generation, sent) = &mut self.phase else {
            return Vec::new();
        };
        let generation = *generation;
        let Some(Sent { call, .. }) = sent.pop_front_if(|first| first.ticket == ticket) else {
            return Vec::new();
        };
        if sent.is_empty() {
            self.phase = Phase::Idle(generation);
        }
        let mut effects = vec![match outcome {
            Some(outcome) => Effect::Emit(Event::Called {
                id: call.id,
                outcome,
                span,
            }),
            None => Asked::Call(call.id).interrupted(NOTHING_LOST),
        }];
        effects.extend(self.next());
        effects
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
                Phase::Calling(_, sent) => {
                    let sent = sent.iter().find(|sent| sent.ticket == ticket);
                    let id = sent.map(|sent| sent.call.id);
                    id.map(|id| Effect::Emit(Event::Result { id, text }))
                        .into_iter()
                        .collect()
                }
                _ => Vec::new(),
            },
            FromWorker::Spent {
                ticket,
                user,
                system,
            } => match &self.phase {
                Phase::Running(_, active) if active.ticket == ticket => {
                    let id = active.id;
                    vec![Effect::Emit(Event::Spent { id, user, system })]
                }
                _ => Vec::new(),
            },
            FromWorker::InputWanted { request } => match self.phase {
                Phase::Running(..) | Phase::Calling(..) | Phase::Idle(_) => {
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
            FromWorker::Guarded { checkpoint } => {
                self.guard = Some(checkpoint);
                Vec::new()
            }
            // Comes by `on_called`.
            FromWorker::Called { .. } => Vec::new(),
            FromWorker::TookOver {
                generation,
                turn,
                threads_lost,
                tokio_lost,
                closed,
                of_calls,
            } => {
                if generation.epoch != self.epoch {
                    return Vec::new();
                }
                self.on_follower(Follower::Copy {
                    generation,
                    turn,
                    restored: Restored {
                        threads_lost: threads_lost as usize,
                        tokio_lost,
                        closed: closed as usize,
                        ..NOTHING_LOST
                    },
                    of_calls,
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
            ticket,
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
            recovery.death.get_or_insert(Death {
                cause,
                killed,
                ticket,
            });
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
            self.turn = 0;
            let mut effects: Vec<Effect> = ended.into_iter().map(restarted).collect();
            effects.push(Effect::Ready(Ok(())));
            effects.extend(self.next());
            return effects;
        }
        self.on_follower(Follower::Empty(generation))
    }

    fn on_follower(&mut self, follower: Follower) -> Vec<Effect> {
        match self.phase {
            Phase::Idle(_) | Phase::Running(..) | Phase::Calling(..) | Phase::Recovering(_) => {
                self.recover(|recovery| recovery.follower = Some(follower))
            }
            Phase::Starting { .. } | Phase::Gone { .. } => Vec::new(),
        }
    }

    /// Sends what can be sent: one run, or as many calls as may wait.
    fn next(&mut self) -> Vec<Effect> {
        let mut effects = Vec::new();
        loop {
            // Whatever is told without being sent waits until what was sent before is answered.
            let may_join = match self.queue.front() {
                Some(Queued { work, interrupted }) => {
                    matches!(work, Work::Call(call) if call.payload.is_ok() && !interrupted)
                }
                None => return effects,
            };
            let generation = match &self.phase {
                Phase::Idle(generation) => Some(*generation),
                Phase::Calling(generation, sent) if may_join && sent.len() < WINDOW => {
                    Some(*generation)
                }
                Phase::Gone { .. } => None,
                _ => return effects,
            };
            let Some(Queued { work, interrupted }) = self.queue.pop_front() else {
                return effects;
            };
            effects.push(match (generation, &self.phase) {
                (None, Phase::Gone { reason }) => work.asked().not_run(reason),
                (Some(generation), _) if !interrupted => self.send(generation, work),
                _ => work.asked().interrupted(NOTHING_LOST),
            });
        }
    }

    fn send(&mut self, generation: Generation, work: Work) -> Effect {
        self.last_ticket += 1;
        let ticket = self.last_ticket;
        match work {
            Work::Run(snippet) => {
                self.guard = None;
                self.phase = Phase::Running(
                    generation,
                    Active {
                        id: snippet.id,
                        ticket,
                        checkpoint: None,
                    },
                );
                Effect::Worker(ToWorker::Run {
                    generation,
                    ticket,
                    artifact: snippet.artifact.into_os_string().into_encoded_bytes(),
                    entry: snippet.entry,
                    checkpoint: (self.checkpoint && snippet.checkpoint).then_some(self.limit),
                })
            }
            Work::Call(call) => {
                let payload = match &call.payload {
                    Ok(payload) => payload.clone(),
                    Err(reason) => return Asked::Call(call.id).not_run(reason),
                };
                let memory = call.memory.clone();
                let sent = Sent {
                    ticket,
                    call,
                    interrupted: false,
                };
                match &mut self.phase {
                    Phase::Calling(_, all) => all.push_back(sent),
                    phase => *phase = Phase::Calling(generation, VecDeque::from([sent])),
                }
                Effect::Call {
                    message: ToWorker::Call {
                        generation,
                        turn: self.turn,
                        ticket,
                        checkpoint: self.checkpoint.then_some(self.limit),
                    },
                    payload,
                    memory,
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
    fn take_unfinished(&mut self) -> Vec<Asked> {
        self.input = None;
        let phase = std::mem::replace(&mut self.phase, Phase::Starting { ended: Vec::new() });
        let mut ended = match phase {
            Phase::Starting { ended } => ended,
            Phase::Running(_, active) => vec![Asked::Run(active.id)],
            Phase::Calling(_, sent) => sent.iter().map(Sent::asked).collect(),
            Phase::Recovering(recovery) => {
                let active = recovery.active.iter().map(|active| Asked::Run(active.id));
                active
                    .chain(recovery.sent.iter().map(Sent::asked))
                    .collect()
            }
            Phase::Idle(_) | Phase::Gone { .. } => Vec::new(),
        };
        ended.extend(self.queue.drain(..).map(|queued| queued.work.asked()));
        ended
    }

    fn give_up(&mut self, ended: Vec<Asked>, reason: String) -> Vec<Effect> {
        let mut effects: Vec<Effect> = ended
            .into_iter()
            .map(|asked| asked.not_run(&reason))
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

fn restarted(asked: Asked) -> Effect {
    asked.interrupted(lost(WhyNot::Restarted))
}

#[cfg(test)]
mod tests;
