//! The core, driven step by step: whatever comes in whatever order, every run ends once, in order.

use super::*;

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
        core.run(snippet(1))[..],
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
        next,
    }
}

fn took_over() -> FromWorker {
    FromWorker::TookOver {
        generation: FIRST,
        threads_lost: 2,
        tokio_lost: true,
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
        core.run(snippet(2));
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
    core.run(snippet(2));
    assert!(matches!(
        core.restart()[..],
        [Effect::BeginAnew { epoch: 1 }]
    ));
    core.run(snippet(3));
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
    core.run(snippet(1));
    let reason = "no such library".to_owned();
    core.on_worker(FromWorker::Failed {
        reason: reason.clone(),
    });
    let effects = core.on_supervisor(died(Next::Nobody));
    let error = Outcome::LoadFailed { error: reason };
    assert_eq!(finished(&effects), [(1, &error)]);
    assert!(matches!(effects.last(), Some(Effect::Ready(Err(_)))));
    assert_eq!(finished(&core.run(snippet(2))), [(2, &error)]);
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
    assert_eq!(finished(&core.run(snippet(2))).len(), 1);
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
