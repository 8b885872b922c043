//! The core, driven step by step: whatever comes in whatever order, every run ends once, in order.

use super::*;
use crate::event::Snippet;
use crate::owner::calls::Prepared;

const FIRST: Generation = Generation {
    epoch: 0,
    number: 0,
};
const SECOND: Generation = Generation {
    epoch: 0,
    number: 1,
};

fn snippet(id: u64) -> Snippet {
    Snippet {
        id: RunId(id),
        artifact: "/a.so".into(),
        entry: "run".to_owned(),
        checkpoint: true,
    }
}

fn ready_core() -> Core {
    let mut core = Core::new(0, true, 1000);
    let effects = core.on_worker(FromWorker::Ready { generation: FIRST });
    assert!(matches!(effects[..], [Effect::Ready(Ok(()))]));
    core
}

/// A core with run 1 going, its copy made.
fn running_core() -> Core {
    let mut core = ready_core();
    assert!(matches!(
        core.run(Work::Run(snippet(1)))[..],
        [Effect::Worker(ToWorker::Run {
            generation: FIRST,
            ticket: 1,
            checkpoint: Some(1000),
            ..
        })]
    ));
    core.on_worker(FromWorker::Started {
        ticket: 1,
        checkpoint: CheckpointState::Taken,
    });
    core
}

fn died(next: Next) -> FromSupervisor {
    FromSupervisor::Died {
        generation: FIRST,
        status: libc::SIGABRT,
        killed: false,
        overflow: false,
        ticket: 1,
        next,
    }
}

fn took_over() -> FromWorker {
    FromWorker::TookOver {
        generation: FIRST,
        turn: 1,
        threads_lost: 2,
        tokio_lost: true,
        closed: 0,
        of_calls: false,
    }
}

fn finished(effects: &[Effect]) -> Vec<(u64, &Outcome)> {
    let of = |effect| match effect {
        &Effect::Emit(Event::Finished { id, ref outcome }) => Some((id.0, outcome)),
        _ => None,
    };
    effects.iter().filter_map(of).collect()
}

fn restored(effects: &[Effect]) -> &Restored {
    match finished(effects)[..] {
        [
            (
                1,
                Outcome::Died {
                    cause: Cause::Signal(6, "SIGABRT"),
                    restored,
                },
            ),
        ] => restored,
        _ => panic!("{effects:?}"),
    }
}

#[test]
fn death_and_take_over_in_any_order() {
    for swap in [false, true] {
        let mut core = running_core();
        core.run(Work::Run(snippet(2)));
        let effects = if swap {
            assert!(core.on_worker(took_over()).is_empty());
            core.on_supervisor(died(Next::Copy))
        } else {
            assert!(core.on_supervisor(died(Next::Copy)).is_empty());
            core.on_worker(took_over())
        };
        let restored = restored(&effects[..1]);
        assert!(restored.variables && restored.tokio_lost);
        assert_eq!(restored.threads_lost, 2);
        assert!(matches!(
            effects[1..],
            [Effect::Worker(ToWorker::Run { ticket: 2, .. })]
        ));
    }
}

#[test]
fn the_copy_dies_as_well() {
    for swap in [false, true] {
        let mut core = running_core();
        assert!(core.on_supervisor(died(Next::Copy)).is_empty());
        let ready = FromWorker::Ready { generation: SECOND };
        let effects = if swap {
            assert!(core.on_worker(ready).is_empty());
            core.on_supervisor(died(Next::Fresh))
        } else {
            assert!(core.on_supervisor(died(Next::Fresh)).is_empty());
            core.on_worker(ready)
        };
        assert_eq!(restored(&effects).why_not, Some(WhyNot::CopyDied));
        assert!(core.is_idle());
    }
}

#[test]
fn two_deaths_told_after_both_followers() {
    let mut core = ready_core();
    let third = Generation {
        epoch: 0,
        number: 2,
    };
    for generation in [SECOND, third] {
        assert!(core.on_worker(FromWorker::Ready { generation }).is_empty());
    }
    assert!(core.on_supervisor(died(Next::Fresh)).is_empty());
    let FromSupervisor::Died { status, .. } = died(Next::Fresh);
    let effects = core.on_supervisor(FromSupervisor::Died {
        generation: SECOND,
        status,
        killed: false,
        overflow: false,
        ticket: 1,
        next: Next::Fresh,
    });
    assert!(matches!(effects[..], [Effect::Emit(Event::Lost { .. })]));
    assert!(core.is_idle());
}

#[test]
fn a_run_that_finished_is_not_undone_by_a_death() {
    let mut core = running_core();
    let end = End::Completed;
    let effects = core.on_worker(FromWorker::Finished { ticket: 1, end });
    assert_eq!(finished(&effects), [(1, &Outcome::Completed)]);
    // Its copy was still there: that namespace is the one before the run.
    core.on_supervisor(died(Next::Copy));
    let effects = core.on_worker(took_over());
    assert!(matches!(
        effects[..],
        [
            Effect::Emit(Event::Lost {
                restored: Restored {
                    variables: false,
                    ..
                },
                ..
            }),
            Effect::BeginAnew { epoch: 1 }
        ]
    ));
}

#[test]
fn what_an_earlier_epoch_says_is_ignored() {
    let mut core = running_core();
    core.run(Work::Run(snippet(2)));
    assert!(matches!(
        core.restart()[..],
        [Effect::BeginAnew { epoch: 1 }]
    ));
    core.run(Work::Run(snippet(3)));
    assert!(core.on_supervisor(died(Next::Fresh)).is_empty());
    assert!(core.on_worker(took_over()).is_empty());
    assert!(
        core.on_worker(FromWorker::Ready { generation: SECOND })
            .is_empty()
    );
    assert!(
        core.on_worker(FromWorker::InputWanted { request: 1 })
            .is_empty()
    );
    let end = End::Completed;
    assert!(
        core.on_worker(FromWorker::Finished { ticket: 1, end })
            .is_empty()
    );
    let generation = Generation {
        epoch: 1,
        number: 0,
    };
    let effects = core.on_worker(FromWorker::Ready { generation });
    let ended: Vec<u64> = finished(&effects).into_iter().map(|(id, _)| id).collect();
    assert_eq!(ended, [1, 2]);
    assert!(matches!(
        effects[2..],
        [
            Effect::Ready(Ok(())),
            Effect::Worker(ToWorker::Run { ticket: 2, .. })
        ]
    ));
}

#[test]
fn a_worker_that_cannot_start_ends_every_run_with_its_reason() {
    let mut core = Core::new(0, true, 1000);
    core.run(Work::Run(snippet(1)));
    let reason = "no such library".to_owned();
    core.on_worker(FromWorker::Failed {
        reason: reason.clone(),
    });
    let effects = core.on_supervisor(died(Next::Nobody));
    let error = Outcome::LoadFailed { error: reason };
    assert_eq!(finished(&effects), [(1, &error)]);
    assert!(matches!(effects.last(), Some(Effect::Ready(Err(_)))));
    assert_eq!(finished(&core.run(Work::Run(snippet(2)))), [(2, &error)]);
    // A restart tries again.
    assert!(matches!(
        core.restart()[..],
        [Effect::BeginAnew { epoch: 1 }]
    ));
}

#[test]
fn a_supervisor_that_dies_again_at_once_is_not_started_for_ever() {
    let mut core = running_core();
    let effects = core.supervisor_gone();
    assert!(matches!(
        effects[..],
        [
            Effect::Emit(Event::Finished { .. }),
            Effect::BeginAnew { epoch: 1 }
        ]
    ));
    assert!(matches!(
        core.supervisor_gone()[..],
        [Effect::Ready(Err(_))]
    ));
    assert_eq!(finished(&core.run(Work::Run(snippet(2)))).len(), 1);
}

#[test]
fn an_answer_goes_to_a_question_once() {
    let mut core = running_core();
    assert!(core.input(Some("early".to_owned())).is_empty());
    assert!(matches!(
        core.on_worker(FromWorker::InputWanted { request: 9 })[..],
        [Effect::AskInput]
    ));
    assert!(matches!(
        core.input(None)[..],
        [Effect::Answer(Answer {
            request: 9,
            line: None
        })]
    ));
    assert!(core.input(None).is_empty());
    core.on_worker(FromWorker::InputWanted { request: 10 });
    core.on_supervisor(died(Next::Copy));
    assert!(core.input(Some("late".to_owned())).is_empty());
}

#[test]
fn causes() {
    assert_eq!(Cause::from_status(3 << 8, false), Cause::Exited(3));
    assert_eq!(
        Cause::from_status(libc::SIGSEGV, true),
        Cause::StackOverflow
    );
    assert_eq!(
        Cause::from_status(libc::SIGSEGV, false).to_string(),
        "killed by SIGSEGV (signal 11)"
    );
    assert!(
        Cause::from_status(libc::SIGKILL, false)
            .to_string()
            .contains("memory")
    );
}

fn call(id: u64) -> Work {
    Work::Call(Prepared {
        id: RunId(id),
        payload: Ok(Bytes::new()),
        memory: None,
    })
}

/// Tickets and turns of the calls that are sent.
fn sent(effects: &[Effect]) -> Vec<(u64, u32)> {
    let of = |effect: &Effect| match effect {
        Effect::Call {
            message: ToWorker::Call { ticket, turn, .. },
            ..
        } => Some((*ticket, *turn)),
        _ => None,
    };
    effects.iter().filter_map(of).collect()
}

fn ended(effects: &[Effect]) -> Vec<(u64, &CallOutcome)> {
    let of = |effect| match effect {
        &Effect::Emit(Event::Called {
            id, ref outcome, ..
        }) => Some((id.0, outcome)),
        _ => None,
    };
    effects.iter().filter_map(of).collect()
}

fn nothing() -> Option<CallOutcome> {
    Some(CallOutcome::Returned(crate::Value::Bytes(Bytes::new())))
}

fn call_copy_took_over() -> FromWorker {
    FromWorker::TookOver {
        generation: FIRST,
        turn: 1,
        threads_lost: 0,
        tokio_lost: false,
        closed: 0,
        of_calls: true,
    }
}

/// A core with calls 1 to 3 sent, and their copy made.
fn calling_core() -> Core {
    let mut core = ready_core();
    for id in 1..=3 {
        assert_eq!(sent(&core.run(call(id))), [(id, 0)]);
    }
    core.on_worker(FromWorker::Guarded {
        checkpoint: CheckpointState::Taken,
    });
    core
}

#[test]
fn calls_are_sent_ahead_and_snippets_wait_for_them() {
    let mut core = ready_core();
    let window = WINDOW as u64;
    for id in 1..=window {
        assert_eq!(sent(&core.run(call(id))), [(id, 0)]);
    }
    assert!(core.run(call(window + 1)).is_empty());
    assert!(core.run(Work::Run(snippet(100))).is_empty());
    assert!(core.run(call(101)).is_empty());
    let effects = core.on_called(1, nothing(), None);
    assert_eq!(ended(&effects).len(), 1);
    assert_eq!(sent(&effects), [(window + 1, 0)]);
    for ticket in 2..=window {
        assert!(sent(&core.on_called(ticket, nothing(), None)).is_empty());
    }
    // An answer that nobody waits for changes nothing.
    assert!(core.on_called(1, nothing(), None).is_empty());
    let effects = core.on_called(window + 1, nothing(), None);
    assert!(matches!(
        effects[1..],
        [Effect::Worker(ToWorker::Run { .. })]
    ));
    let end = End::Completed;
    let ticket = window + 2;
    let effects = core.on_worker(FromWorker::Finished { ticket, end });
    assert_eq!(sent(&effects), [(window + 3, 0)]);
}

#[test]
fn the_call_that_was_begun_dies_and_the_others_are_sent_again() {
    for begun in [true, false] {
        let mut core = calling_core();
        assert_eq!(ended(&core.on_called(1, nothing(), None)).len(), 1);
        let FromSupervisor::Died { status, .. } = died(Next::Copy);
        assert!(core.on_worker(call_copy_took_over()).is_empty());
        let effects = core.on_supervisor(FromSupervisor::Died {
            generation: FIRST,
            status,
            killed: false,
            overflow: false,
            ticket: if begun { 2 } else { 1 },
            next: Next::Copy,
        });
        if begun {
            let restored = NOTHING_LOST;
            let cause = Cause::Signal(6, "SIGABRT");
            let outcome = CallOutcome::Died { cause, restored };
            assert_eq!(ended(&effects), [(2, &outcome)]);
            assert_eq!(sent(&effects), [(4, 1)]);
        } else {
            assert!(matches!(
                &effects[0],
                Effect::Emit(Event::Lost { restored, .. }) if *restored == NOTHING_LOST
            ));
            assert_eq!(sent(&effects), [(4, 1), (5, 1)]);
        }
    }
}

#[test]
fn a_call_without_a_copy_takes_the_namespace_with_it() {
    let mut core = calling_core();
    core.on_worker(FromWorker::Guarded {
        checkpoint: CheckpointState::Off,
    });
    core.on_supervisor(died(Next::Fresh));
    let effects = core.on_worker(FromWorker::Ready { generation: SECOND });
    let [(1, CallOutcome::Died { restored, .. })] = ended(&effects)[..] else {
        panic!("{effects:?}");
    };
    assert_eq!(restored.why_not, Some(WhyNot::CheckpointOff));
    // The others need no variables.
    assert_eq!(sent(&effects), [(4, 0), (5, 0)]);
}

#[test]
fn an_interrupted_call_is_not_sent_again() {
    let mut core = calling_core();
    for id in [3, 1] {
        assert!(matches!(
            core.interrupt(RunId(id))[..],
            [Effect::Supervisor(ToSupervisor::Kill { ticket })] if ticket == id
        ));
    }
    core.on_worker(call_copy_took_over());
    let FromSupervisor::Died { status, .. } = died(Next::Copy);
    let effects = core.on_supervisor(FromSupervisor::Died {
        generation: FIRST,
        status,
        killed: true,
        overflow: false,
        ticket: 1,
        next: Next::Copy,
    });
    let interrupted = CallOutcome::Interrupted {
        restored: NOTHING_LOST,
    };
    // The third is told of in its turn.
    assert_eq!(ended(&effects), [(1, &interrupted)]);
    assert_eq!(sent(&effects), [(4, 1)]);
    let effects = core.on_called(4, nothing(), None);
    assert_eq!(ended(&effects).last(), Some(&(3, &interrupted)));
}

#[test]
fn calls_end_with_the_runtime() {
    let mut core = calling_core();
    core.run(call(4));
    let effects = core.supervisor_gone();
    assert!(matches!(
        ended(&effects)[..],
        [(1, CallOutcome::Died { .. })]
    ));
    let ready = FromWorker::Ready {
        generation: Generation {
            epoch: 1,
            number: 0,
        },
    };
    assert_eq!(sent(&core.on_worker(ready)), [(5, 0), (6, 0), (7, 0)]);
    let effects = core.shut_down();
    let ids: Vec<u64> = ended(&effects).into_iter().map(|(id, _)| id).collect();
    assert_eq!(ids, [2, 3, 4]);
    let effects = core.run(call(5));
    assert!(matches!(
        ended(&effects)[..],
        [(5, CallOutcome::NotRun { .. })]
    ));
}

#[test]
fn a_copy_of_the_snippet_before_does_not_serve_calls() {
    let mut core = running_core();
    let end = End::Completed;
    core.on_worker(FromWorker::Finished { ticket: 1, end });
    core.run(call(7));
    core.on_supervisor(died(Next::Copy));
    let effects = core.on_worker(took_over());
    assert!(matches!(
        effects[..],
        [
            Effect::Emit(Event::Lost { .. }),
            Effect::BeginAnew { epoch: 1 }
        ]
    ));
}
