//! Calls of closures: in flight, in order, interrupted and aborted.

use runtime::Call;

use super::*;

fn call_in(id: u64, runtime: RuntimeId, path: &str) -> Work {
    let call = Call {
        id: RunId(0),
        artifact: path.into(),
        offset: 0,
        pieces: Vec::new(),
        answer_file: None,
    };
    work(id, WorkKind::Call(Ok(CallWork { call, runtime })))
}

fn call(id: u64) -> Work {
    call_in(id, RuntimeId::Namespace, "a.so")
}

fn calls(ids: std::ops::RangeInclusive<u64>) -> Vec<Work> {
    ids.map(call).collect()
}

fn back(run: u64, outcome: CallOutcome) -> runtime::Event {
    runtime::Event::Called {
        id: RunId(run),
        outcome,
        span: None,
    }
}

fn ok() -> CallOutcome {
    CallOutcome::Returned(runtime::Value::Bytes("x".into()))
}

fn interrupted_call() -> CallOutcome {
    CallOutcome::Interrupted {
        restored: NOTHING_LOST,
    }
}

impl Bench {
    fn called(&mut self, run: u64, outcome: CallOutcome) -> Vec<String> {
        self.reports(back(run, outcome))
    }

    fn abort(&mut self, id: u64, running: bool) -> Vec<String> {
        self.on(Event::Abort {
            id: WorkId(id),
            running,
        })
    }
}

fn engine() -> Bench {
    Bench::ready(Config::engine())
}

#[test]
fn up_to_32_calls_are_in_flight() {
    let mut bench = engine();
    let effects = bench.submit(calls(1..=40));
    assert_eq!(effects.len(), AHEAD);
    assert_eq!(effects[0], "call 1 namespace");
    assert_eq!(effects[31], "call 32 namespace");
    assert!(bench.executor.is_calling());
    assert_eq!(
        bench.called(1, ok()),
        ["finished 1: ok", "call 33 namespace"]
    );
    assert!(
        bench.called(5, ok()).is_empty(),
        "only the first can be back"
    );
    for run in 2..=40 {
        assert_eq!(bench.called(run, ok())[0], format!("finished {run}: ok"));
    }
    assert!(!bench.executor.is_calling() && bench.executor.deadline().is_none());
}

#[test]
fn calls_and_snippets_wait_for_each_other() {
    let mut bench = engine();
    let effects = bench.submit(vec![call(1), call(2), snippet(3, "x"), call(4)]);
    assert_eq!(effects, ["call 1 namespace", "call 2 namespace"]);
    bench.called(1, ok());
    assert_eq!(
        bench.called(2, ok()),
        ["finished 2: ok", "started 3", "compile 1 of 3 in root: x"]
    );
    assert!(bench.submit(vec![call(5)]).is_empty());
    bench.compiled(1, compiled(&["a"], "one"));
    assert_eq!(
        bench.finished(3, RunOutcome::Completed),
        ["finished 3: none", "call 4 namespace", "call 5 namespace"]
    );
    let effects = bench.submit(vec![work(6, WorkKind::Turn(Ok(())))]);
    assert!(effects.is_empty());
}

#[test]
fn a_request_that_is_no_call_is_answered_without_waiting() {
    let mut bench = engine();
    let bad = WorkKind::Call(Err(plain("bad request", "no")));
    assert_eq!(
        bench.submit(vec![call(1), work(2, bad), call(3)]),
        [
            "call 1 namespace",
            "finished 2: bad request: no",
            "call 2 namespace"
        ]
    );
}

#[test]
fn the_runtime_is_started_for_calls() {
    let mut bench = Bench::new(Config::engine());
    assert_eq!(bench.submit(calls(1..=2)), ["start namespace"]);
    assert!(bench.submit(calls(3..=3)).is_empty());
    assert_eq!(
        bench.started(Err(not_there())),
        ["finished 1: not ready: no processes", "start namespace"]
    );
    // An interrupt and an abort while it starts.
    let effects = bench.interrupt();
    assert!(effects[0].starts_with("finished 2: interrupted: The closure was interrupted."));
    assert_eq!(bench.abort(3, false), ["finished 3: aborted"]);
    bench.submit(calls(4..=4));
    assert_eq!(bench.started(Ok(())), ["call 1 namespace"]);
}

#[test]
fn an_interrupt_hits_the_first() {
    let mut bench = engine();
    bench.submit(calls(1..=3));
    assert_eq!(bench.interrupt(), ["interrupt 1 namespace"]);
    assert_eq!(
        bench.called(1, interrupted_call()),
        ["finished 1: interrupted"]
    );
    assert_eq!(bench.called(2, ok()), ["finished 2: ok"]);
    assert_eq!(bench.interrupt(), ["interrupt 3 namespace"]);
}

#[test]
fn those_behind_the_first_can_be_aborted() {
    let mut bench = engine();
    bench.submit(calls(1..=34));
    assert!(bench.abort(1, false).is_empty(), "it runs");
    assert_eq!(bench.abort(1, true), ["interrupt 1 namespace"]);
    assert_eq!(bench.abort(3, false), ["interrupt 3 namespace"]);
    assert!(bench.abort(34, false).is_empty(), "it is not in flight");
    assert!(bench.abort(40, false).is_empty(), "it has not come");
    // Before its call is handed over, one that waits is told to be aborted.
    assert_eq!(
        bench.called(1, interrupted_call()),
        ["finished 1: interrupted", "call 33 namespace"]
    );
    assert_eq!(
        bench.called(2, ok()),
        ["finished 2: ok", "finished 34: aborted"]
    );
    assert_eq!(
        bench.called(3, interrupted_call()),
        ["finished 3: interrupted aborted"]
    );
    // It had come to its end before.
    bench.abort(5, false);
    bench.called(4, ok());
    assert_eq!(bench.called(5, ok()), ["finished 5: ok"]);
    assert_eq!(
        bench.submit(calls(40..=41)),
        ["finished 40: aborted", "call 34 namespace"]
    );
}

#[test]
fn what_a_call_prints_is_its_own() {
    let mut bench = engine();
    bench.submit(calls(1..=2));
    assert!(bench.prints("one").is_empty());
    let due = bench.executor.deadline().unwrap();
    bench.now = due;
    assert_eq!(bench.on(Event::Tick), ["output 1 Stdout \"one\""]);
    bench.prints("more");
    let (id, text) = (RunId(1), "shown".to_owned());
    assert_eq!(
        bench.reports(runtime::Event::Result { id, text }),
        ["output 1 Stdout \"more\"", "output 1 display shown"]
    );
    bench.prints("rest");
    assert_eq!(
        bench.called(1, ok()),
        ["output 1 Stdout \"rest\"", "finished 1: ok printed"]
    );
    assert_eq!(bench.called(2, ok()), ["finished 2: ok"]);
    assert_eq!(bench.prints("late"), ["output idle Stdout \"late\""]);
}

#[test]
fn a_long_call_is_announced() {
    let mut bench = engine();
    bench.submit(calls(1..=2));
    let due = bench.executor.deadline().unwrap();
    assert_eq!(due - bench.now, LONG_CALL);
    assert!(bench.after(99).on(Event::Tick).is_empty());
    assert_eq!(bench.after(1).on(Event::Tick), ["started 1"]);
    assert!(bench.executor.deadline().is_none());
    assert_eq!(bench.called(1, ok()), ["finished 1: ok announced"]);
    // The turn of the second begins with the end of the first.
    assert_eq!(bench.executor.deadline(), Some(bench.now + LONG_CALL));
    assert_eq!(bench.called(2, ok()), ["finished 2: ok"]);
}

#[test]
fn calls_read_the_end_of_input() {
    let mut bench = Bench::ready(Config::notebook());
    bench.submit(calls(1..=1));
    let input = runtime::Event::Input {
        prompt: String::new(),
        password: false,
    };
    assert_eq!(bench.reports(input), ["answer None"]);
}

#[test]
fn a_death_may_take_the_variables_with_it() {
    let died = |variables| CallOutcome::Died {
        cause: runtime::Cause::StackOverflow,
        restored: restored(variables),
    };
    let mut bench = engine();
    bench.evaluate(1, "one");
    bench.submit(calls(2..=4));
    assert_eq!(bench.called(2, died(true)), ["finished 2: stack overflow"]);
    assert_eq!(bench.lineage(), "one");
    bench.called(3, died(false));
    assert_eq!(bench.lineage(), "root");
    let effects = bench.reports(lost(false));
    assert!(effects.is_empty());
    let effects = bench.called(4, ok());
    assert!(effects[0].starts_with("output 4 Stderr \"Between two snippets"));
    assert_eq!(effects[1], "finished 4: ok printed");
}

#[test]
fn a_runtime_that_goes_ends_its_calls() {
    let mut bench = engine();
    bench.submit(calls(1..=34));
    let effects = bench.on(Event::RuntimeGone(RuntimeId::Namespace));
    assert_eq!(effects[0], "finished 1: not run");
    assert_eq!(effects[31], "finished 32: not run");
    assert_eq!(effects[32..], ["start namespace"]);
    assert_eq!(
        bench.started(Ok(())),
        ["call 33 namespace", "call 34 namespace"]
    );
    let effects = bench.on(Event::Shutdown);
    assert_eq!(
        effects,
        [
            "finished 33: interrupted",
            "finished 34: interrupted",
            "shutdown"
        ]
    );
}

/// Programs of different files.
fn programs(count: usize) -> Vec<(RuntimeId, tempfile::NamedTempFile)> {
    let program = |_| {
        let file = tempfile::NamedTempFile::new().unwrap();
        let program = Program::at(file.path()).unwrap();
        (RuntimeId::Program(program), file)
    };
    (0..count).map(program).collect()
}

#[test]
fn calls_are_in_one_runtime_at_a_time() {
    let mut bench = engine();
    let programs = programs(1);
    let program = programs[0].0;
    assert!(Program::at(std::path::Path::new("/nothing/there")).is_err());
    let effects = bench.submit(vec![
        call(1),
        call_in(2, program, "/program"),
        call_in(3, program, "/program"),
        call(4),
    ]);
    assert_eq!(effects, ["call 1 namespace"]);
    assert_eq!(bench.called(1, ok()), ["finished 1: ok", "start /program"]);
    let started = |result| Event::RuntimeStarted {
        runtime: program,
        result,
    };
    assert_eq!(
        bench.on(started(Ok(()))),
        ["call 2 program", "call 3 program"]
    );
    // The namespace's threads go on meanwhile.
    assert_eq!(bench.prints("late"), ["output idle Stdout \"late\""]);
    let from_program = |event| Event::Runtime {
        runtime: program,
        event,
    };
    assert_eq!(bench.interrupt(), ["interrupt 2 program"]);
    bench.on(from_program(back(2, ok())));
    bench.on(from_program(lost(false)));
    let effects = bench.on(from_program(back(3, ok())));
    assert_eq!(effects[1..], ["finished 3: ok printed", "call 4 namespace"]);
    bench.called(4, ok());
    assert!(bench.on(from_program(lost(false))).is_empty());
    // It is there still; until it goes.
    let again = |id| vec![call_in(id, program, "/program")];
    assert_eq!(bench.submit(again(5)), ["call 5 program"]);
    assert_eq!(
        bench.on(Event::RuntimeGone(program)),
        ["finished 5: not run"]
    );
    assert_eq!(bench.submit(again(6)), ["start /program"]);
    assert_eq!(
        bench.on(started(Err(not_there()))),
        ["finished 6: not ready: no processes"]
    );
}

#[test]
fn only_some_programs_are_kept_running() {
    let mut bench = engine();
    let programs = programs(5);
    for (id, (program, _)) in (1..).zip(&programs) {
        let effects = bench.submit(vec![call_in(id, *program, "/program")]);
        let expected: &[&str] = match id {
            5 => &["stop program", "start /program"],
            _ => &["start /program"],
        };
        assert_eq!(effects, expected);
        let (runtime, result) = (*program, Ok(()));
        bench.on(Event::RuntimeStarted { runtime, result });
        let event = back(id, ok());
        bench.on(Event::Runtime { runtime, event });
    }
    // The first one has gone, the second is there.
    let (first, second) = (programs[0].0, programs[1].0);
    assert_eq!(
        bench.submit(vec![call_in(6, second, "/program")]),
        ["call 6 program"]
    );
    let (runtime, event) = (second, back(6, ok()));
    bench.on(Event::Runtime { runtime, event });
    assert_eq!(
        bench.submit(vec![call_in(7, first, "/program")]),
        ["stop program", "start /program"]
    );
    // It took too long: there are others in its place by then.
    bench.interrupt();
    let others: Vec<Work> = (8..)
        .zip(self::programs(4).iter())
        .map(|(id, (program, _))| call_in(id, *program, "/other"))
        .collect();
    for other in others {
        bench.submit(vec![other]);
        bench.interrupt();
    }
    let (runtime, result) = (first, Ok(()));
    assert_eq!(
        bench.on(Event::RuntimeStarted { runtime, result }),
        ["stop program"]
    );
}
