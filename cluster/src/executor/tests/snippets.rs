//! Snippets of an engine.

use super::*;

fn engine() -> Bench {
    Bench::ready(Config::engine())
}

/// With a snippet that runs: its first load is run 2.
fn running(loads: &[&str]) -> Bench {
    let mut bench = engine();
    bench.evaluate(1, "one");
    let effects = bench.submit(vec![snippet(2, "y")]);
    assert_eq!(effects, ["started 2", "compile 2 of 2 in one: y"]);
    let effects = bench.compiled(2, compiled(loads, "two"));
    assert_eq!(effects, [format!("run 2 {}", loads[0])]);
    bench
}

#[test]
fn a_snippet_is_compiled_run_and_moves_the_lineage() {
    let mut bench = Bench::new(Config::engine());
    let effects = bench.submit(vec![snippet(1, "a"), snippet(2, "b")]);
    assert_eq!(effects, ["started 1", "start namespace"]);
    let effects = bench.started(Ok(()));
    assert_eq!(effects, ["compile 1 of 1 in root: a"]);
    assert!(bench.executor.is_evaluating());
    assert_eq!(
        bench.compiled(1, compiled(&["a.so"], "one")),
        ["run 1 a.so"]
    );
    assert_eq!(bench.lineage(), "root");
    let id = RunId(1);
    let text = "42".to_owned();
    assert!(
        bench
            .reports(runtime::Event::Result { id, text })
            .is_empty()
    );
    assert_eq!(
        bench.finished(1, RunOutcome::Completed),
        ["finished 1: 42", "started 2", "compile 2 of 2 in one: b"]
    );
    assert_eq!(bench.lineage(), "one");
    // Only items: there is nothing to run.
    assert_eq!(
        bench.compiled(2, compiled(&[], "two")),
        ["finished 2: none"]
    );
    assert_eq!(bench.lineage(), "two");
}

#[test]
fn loads_run_one_after_another() {
    let mut bench = running(&["a.so", "b.so", "c.so"]);
    assert_eq!(bench.finished(2, RunOutcome::Completed), ["run 3 b.so"]);
    // What was said of another run is not believed.
    assert!(bench.finished(2, RunOutcome::Completed).is_empty());
    assert_eq!(bench.finished(3, RunOutcome::Completed), ["run 4 c.so"]);
    assert_eq!(bench.lineage(), "one");
    assert_eq!(
        bench.finished(4, RunOutcome::Completed),
        ["finished 2: none"]
    );
    assert_eq!(bench.lineage(), "two");
}

#[test]
fn output_waits_a_moment_and_comes_before_the_end() {
    let mut bench = running(&["a.so"]);
    assert!(bench.executor.deadline().is_none());
    assert!(bench.prints("one ").is_empty());
    let due = bench.executor.deadline().unwrap();
    assert!(bench.prints("two").is_empty());
    assert!(bench.on(Event::Tick).is_empty());
    bench.now = due;
    assert_eq!(bench.on(Event::Tick), ["output 2 Stdout \"one two\""]);
    assert!(bench.executor.deadline().is_none());
    bench.prints("three");
    assert_eq!(
        bench.finished(2, RunOutcome::Completed),
        ["output 2 Stdout \"three\"", "finished 2: none"]
    );
}

#[test]
fn a_result_is_a_value_and_an_earlier_one_a_display() {
    let mut bench = running(&["a.so"]);
    for text in ["1", "2"] {
        let (id, text) = (RunId(2), text.to_owned());
        bench.reports(runtime::Event::Result { id, text });
    }
    bench.prints("EVCXR_BEGIN_CONTENT text/plain\nshown\nEVCXR_END_CONTENT\n");
    assert_eq!(
        bench.finished(2, RunOutcome::Completed),
        ["output 2 display shown", "finished 2: 2"]
    );
    let shows = |ends_in_expression| {
        let mut bench = engine();
        bench.submit(vec![snippet(1, "x")]);
        let mut compiled = compiled(&["a"], "one");
        compiled.artifact.ends_in_expression = ends_in_expression;
        bench.compiled(1, compiled);
        bench.prints("EVCXR_BEGIN_CONTENT text/plain\nshown\nEVCXR_END_CONTENT\n");
        bench.finished(1, RunOutcome::Completed)
    };
    assert_eq!(shows(true), ["finished 1: shown"]);
    assert_eq!(shows(false), ["output 1 display shown", "finished 1: none"]);
}

#[test]
fn what_the_compile_found_is_told_before_the_run() {
    let mut bench = engine();
    bench.submit(vec![snippet(1, "x")]);
    let status = |id| Event::CompileStatus {
        id: WorkId(id),
        activity: "busy".to_owned(),
    };
    assert_eq!(bench.on(status(1)), ["output 1 status Some(\"busy\")"]);
    assert!(bench.on(status(2)).is_empty());
    let mut compiled = compiled(&["a"], "one");
    compiled.artifact.shown = bundle("vars");
    compiled.artifact.lost = vec!["x".to_owned(), "y".to_owned()];
    assert_eq!(
        bench.compiled(1, compiled),
        ["output 1 status None", "output 1 display vars", "run 1 a"]
    );
    assert!(bench.on(status(1)).is_empty());
    assert_eq!(
        bench.finished(1, RunOutcome::Completed),
        [
            "output 1 Stderr \"The types of x, y were redefined, so their values are lost.\\n\"",
            "finished 1: none"
        ]
    );
}

#[test]
fn a_compile_error_changes_nothing() {
    let mut bench = engine();
    bench.submit(vec![snippet(1, "x")]);
    let failed = |ticket| Event::Compiled {
        ticket: Ticket(ticket),
        result: Err(plain("compile error", "no")),
    };
    assert!(bench.on(failed(7)).is_empty());
    assert_eq!(bench.on(failed(1)), ["finished 1: compile error: no"]);
    assert_eq!(bench.lineage(), "root");
}

#[test]
fn a_runtime_that_does_not_start_is_told_and_tried_again() {
    let mut bench = Bench::new(Config::engine());
    bench.submit(vec![snippet(1, "a"), snippet(2, "b")]);
    assert_eq!(
        bench.started(Err(not_there())),
        [
            "finished 1: not ready: no processes",
            "started 2",
            "start namespace"
        ]
    );
    assert_eq!(bench.started(Ok(())), ["compile 1 of 2 in root: b"]);
}

#[test]
fn interrupts_before_the_run() {
    let before = "interrupted: The snippet was interrupted before it ran. Every variable is as it was before the snippet.";
    // While the runtime starts.
    let mut bench = Bench::new(Config::engine());
    bench.submit(vec![snippet(1, "a")]);
    assert_eq!(bench.interrupt(), [format!("finished 1: {before}")]);
    assert!(bench.started(Ok(())).is_empty());
    // During the compile: its answer comes too late.
    let effects = bench.submit(vec![snippet(2, "b"), snippet(3, "c")]);
    assert_eq!(effects, ["started 2", "compile 1 of 2 in root: b"]);
    assert_eq!(
        bench.interrupt(),
        [
            "cancel compile 1",
            &format!("finished 2: {before}"),
            "started 3",
            "compile 2 of 3 in root: c"
        ]
    );
    assert!(bench.compiled(1, compiled(&["a"], "one")).is_empty());
    assert_eq!(bench.compiled(2, compiled(&["c"], "one")), ["run 1 c"]);
    // Nothing is under way: nothing is interrupted.
    bench.finished(1, RunOutcome::Completed);
    assert!(bench.interrupt().is_empty());
    assert_eq!(bench.submit(vec![snippet(4, "d")]).len(), 2);
}

#[test]
fn interrupts_during_the_run() {
    let mut bench = running(&["a"]);
    assert_eq!(bench.interrupt(), ["interrupt 2 namespace"]);
    assert_eq!(
        bench.finished(2, interrupted(true)),
        [
            "finished 2: interrupted: The snippet was interrupted. Every variable is as it was before the snippet."
        ]
    );
    assert_eq!(bench.lineage(), "one");
    // Too late: the run has ended.
    let mut bench = running(&["a"]);
    bench.interrupt();
    assert_eq!(
        bench.finished(2, RunOutcome::Completed),
        ["finished 2: none"]
    );
    assert_eq!(bench.lineage(), "two");
    // Without a checkpoint the namespace begins anew.
    let mut bench = running(&["a"]);
    bench.interrupt();
    let effects = bench.finished(2, interrupted(false));
    assert!(effects[0].contains("namespace is lost: checkpoints are off"));
    assert_eq!(bench.lineage(), "root");
}

#[test]
fn an_interrupt_between_two_loads_is_not_lost() {
    let mut bench = running(&["a", "b"]);
    // The runtime has finished the first load when the interrupt comes, and it has not been heard yet.
    assert_eq!(bench.interrupt(), ["interrupt 2 namespace"]);
    assert_eq!(
        bench.finished(2, RunOutcome::Completed),
        ["settle 3 early end in one"]
    );
    let effects = bench.settled(3, "half");
    assert!(effects[0].starts_with("finished 2: interrupted: The snippet was interrupted."));
    assert_eq!(bench.lineage(), "half");
    // Inside the second one: the checkpoint is from after the first.
    let mut bench = running(&["a", "b"]);
    bench.finished(2, RunOutcome::Completed);
    assert_eq!(bench.interrupt(), ["interrupt 3 namespace"]);
    assert_eq!(
        bench.finished(3, interrupted(true)),
        ["settle 3 early end in one"]
    );
}

#[test]
fn the_compiler_says_what_is_left_after_a_panic() {
    let mut bench = running(&["a"]);
    bench.prints("before");
    assert_eq!(bench.finished(2, panic()), ["settle 3 boom in one"]);
    assert_eq!(bench.lineage(), "one");
    assert_eq!(
        bench.settled(3, "after"),
        ["output 2 Stdout \"before\"", "finished 2: panic: boom"]
    );
    assert_eq!(bench.lineage(), "after");
    let error = "no".to_owned();
    let effects = bench.submit(vec![snippet(3, "z")]);
    assert_eq!(effects, ["started 3", "compile 4 of 3 in after: z"]);
    bench.compiled(4, compiled(&["a"], "three"));
    assert_eq!(
        bench.finished(3, RunOutcome::Returned { error }),
        ["settle 5 early end in after"]
    );
    // Nobody can tell: the lineage stays.
    let unknown = Event::Settled {
        ticket: Ticket(5),
        settlement: None,
    };
    assert_eq!(bench.on(unknown), ["finished 3: error: no"]);
    assert_eq!(bench.lineage(), "after");
}

#[test]
fn an_interrupt_does_not_wait_for_what_is_left() {
    let mut bench = running(&["a"]);
    bench.finished(2, panic());
    assert_eq!(bench.interrupt(), ["finished 2: panic: boom"]);
    // The next snippet does, since it is compiled for it.
    assert_eq!(bench.submit(vec![snippet(3, "z")]), ["started 3"]);
    assert_eq!(bench.settled(3, "after"), ["compile 4 of 3 in after: z"]);
    // One that waits for it can be interrupted.
    let mut bench = running(&["a"]);
    bench.finished(2, panic());
    bench.interrupt();
    bench.submit(vec![snippet(3, "z")]);
    let effects = bench.interrupt();
    assert!(
        effects[0].contains("interrupted before it ran"),
        "{effects:?}"
    );
    assert!(bench.settled(3, "after").is_empty());
    assert_eq!(bench.lineage(), "after");
}

#[test]
fn a_death_restores_the_checkpoint_or_begins_anew() {
    let mut bench = running(&["a"]);
    let effects = bench.finished(2, died(true));
    assert!(
        effects[0].starts_with("finished 2: SIGSEGV:"),
        "{effects:?}"
    );
    assert_eq!(bench.lineage(), "one");
    let mut bench = running(&["a"]);
    bench.finished(2, died(false));
    assert_eq!(bench.lineage(), "root");
    let effects = bench.submit(vec![snippet(3, "z")]);
    assert_eq!(effects, ["started 3", "compile 3 of 3 in root: z"]);
}

#[test]
fn a_load_that_fails_changes_nothing() {
    let error = "no such file".to_owned();
    let variables = vec!["x".to_owned()];
    for (outcome, ename) in [
        (RunOutcome::LoadFailed { error }, "load error"),
        (RunOutcome::TypesChanged { variables }, "types changed"),
    ] {
        let mut bench = running(&["a"]);
        let effects = bench.finished(2, outcome);
        assert!(effects[0].starts_with(&format!("finished 2: {ename}:")));
        assert_eq!(bench.lineage(), "one");
    }
}

#[test]
fn a_runtime_that_goes_fails_the_snippet_and_is_started_again() {
    let gone = || Event::RuntimeGone(RuntimeId::Namespace);
    let mut bench = running(&["a"]);
    let effects = bench.on(gone());
    assert!(
        effects[0].starts_with("finished 2: load error:"),
        "{effects:?}"
    );
    assert_eq!(
        bench.submit(vec![snippet(3, "z")]),
        ["started 3", "start namespace"]
    );
    assert_eq!(bench.started(Ok(())), ["compile 3 of 3 in root: z"]);
    // During the compile.
    let effects = bench.on(gone());
    assert_eq!(effects[0], "cancel compile 3");
    assert!(effects[1].contains("the runtime has gone"));
    // Between two snippets.
    let mut bench = engine();
    bench.evaluate(1, "one");
    assert!(bench.on(gone()).is_empty());
    bench.submit(vec![snippet(2, "z")]);
    assert_eq!(bench.lineage(), "root");
}

#[test]
fn variables_that_a_thread_took_with_it() {
    // While nothing runs.
    let mut bench = engine();
    bench.evaluate(1, "one");
    let effects = bench.reports(lost(true));
    assert!(effects[0].starts_with("output idle Stderr \"Between two snippets"));
    assert_eq!(bench.lineage(), "one");
    bench.reports(lost(false));
    assert_eq!(bench.lineage(), "root");
    // During the compile: it is repeated for what is left.
    bench.evaluate(2, "two");
    let effects = bench.submit(vec![snippet(3, "z")]);
    let first = ticket(&effects);
    let effects = bench.reports(lost(false));
    assert_eq!(effects[0], format!("cancel compile {first}"));
    assert!(effects[1].ends_with("of 3 in root: z"));
    // The runtime was told to run it already.
    let mut bench = running(&["a"]);
    bench.reports(lost(false));
    bench.finished(2, RunOutcome::Completed);
    assert_eq!(bench.lineage(), "root");
}

#[test]
fn engines_have_nobody_to_ask() {
    let input = || runtime::Event::Input {
        prompt: "name?".to_owned(),
        password: false,
    };
    let mut bench = engine();
    assert_eq!(bench.reports(input()), ["answer None"]);
    let mut bench = running(&["a"]);
    assert_eq!(bench.reports(input()), ["answer None"]);
}

#[test]
fn output_between_two_snippets_goes_out_at_once() {
    let mut bench = engine();
    assert_eq!(bench.prints("late"), ["output idle Stdout \"late\""]);
}

#[test]
fn values_are_provided_before_the_compile_and_collected_after_the_run() {
    let mut bench = engine();
    let exchange = |id| {
        let source = "x".to_owned();
        work(
            id,
            WorkKind::Snippet {
                source,
                exchanges: true,
            },
        )
    };
    let provided = |id, result| Event::Provided {
        id: WorkId(id),
        result,
    };
    let collected = |id, result| Event::Collected {
        id: WorkId(id),
        result,
    };
    assert_eq!(bench.submit(vec![exchange(1)]), ["started 1", "provide 1"]);
    assert!(bench.on(provided(2, Ok(()))).is_empty());
    let effects = bench.on(provided(1, Ok(())));
    let ticket = ticket(&effects);
    bench.compiled(ticket, compiled(&["a"], "one"));
    bench.prints("text");
    assert_eq!(
        bench.finished(1, RunOutcome::Completed),
        ["output 1 Stdout \"text\"", "collect 1 none"]
    );
    assert!(bench.interrupt().is_empty());
    let value = Some(bundle("7"));
    assert_eq!(bench.on(collected(1, Ok(value))), ["finished 1: 7"]);
    // What cannot be provided does not run; what cannot be collected has failed.
    bench.submit(vec![exchange(2)]);
    let effects = bench.on(provided(2, Err(plain("bad request", "no buffer"))));
    assert_eq!(effects, ["finished 2: bad request: no buffer"]);
    bench.submit(vec![exchange(3)]);
    let effects = bench.on(provided(3, Ok(())));
    let ticket = self::ticket(&effects);
    bench.compiled(ticket, compiled(&[], "one"));
    let effects = bench.on(collected(3, Err(plain("no value", "of y"))));
    assert_eq!(effects, ["finished 3: no value: of y"]);
}

#[test]
fn those_that_wait_behind_one_that_failed_are_aborted() {
    let of_group = |id, group: &str, stop_on_error| Work {
        group: Some(group.into()),
        stop_on_error,
        ..snippet(id, "x")
    };
    let mut bench = engine();
    bench.submit(vec![
        of_group(1, "a", true),
        of_group(2, "b", true),
        of_group(3, "a", false),
        work(4, WorkKind::Turn(Ok(()))),
    ]);
    let failed = |ticket| Event::Compiled {
        ticket: Ticket(ticket),
        result: Err(plain("compile error", "no")),
    };
    assert_eq!(
        bench.on(failed(1)),
        [
            "finished 1: compile error: no",
            "finished 3: aborted",
            "started 2",
            "compile 2 of 2 in root: x"
        ]
    );
    assert_eq!(
        bench.on(failed(2)),
        [
            "finished 2: compile error: no",
            "started 4",
            "finished 4: done"
        ]
    );
    // It does not want that; and one that fails without running.
    bench.submit(vec![of_group(5, "a", false), of_group(6, "a", false)]);
    assert_eq!(bench.on(failed(3)).len(), 3);
    bench.on(failed(4));
    let turn = |id, stop_on_error| Work {
        kind: WorkKind::Turn(Err(plain("bad request", "no"))),
        ..of_group(id, "a", stop_on_error)
    };
    assert_eq!(
        bench.submit(vec![turn(7, true), of_group(8, "a", true)]),
        [
            "started 7",
            "finished 7: bad request: no",
            "finished 8: aborted"
        ]
    );
}

#[test]
fn a_clear_empties_the_runtime_and_keeps_its_place() {
    let mut bench = Bench::new(Config::engine());
    let clear = |id| work(id, WorkKind::Clear);
    assert_eq!(
        bench.submit(vec![clear(1)]),
        ["started 1", "finished 1: done"]
    );
    let mut bench = running(&["a"]);
    bench.submit(vec![clear(3), snippet(4, "z")]);
    assert_eq!(
        bench.finished(2, RunOutcome::Completed),
        ["finished 2: none", "started 3", "clear runtime"]
    );
    assert!(bench.interrupt().is_empty());
    assert_eq!(
        bench.on(Event::Cleared),
        ["finished 3: done", "started 4", "compile 3 of 4 in root: z"]
    );
    assert!(bench.on(Event::Cleared).is_empty());
}

#[test]
fn snippets_are_aborted_while_they_wait() {
    let mut bench = running(&["a"]);
    let abort = |id, running| Event::Abort {
        id: WorkId(id),
        running,
    };
    bench.submit(vec![snippet(3, "b"), snippet(4, "c")]);
    for id in [3, 2, 6] {
        assert!(bench.on(abort(id, false)).is_empty());
    }
    assert_eq!(bench.on(abort(2, true)), ["interrupt 2 namespace"]);
    let effects = bench.finished(2, interrupted(true));
    assert_eq!(effects[1..3], ["finished 3: aborted", "started 4"]);
    // One that came after it was aborted.
    bench.submit(vec![snippet(5, "d"), snippet(6, "e")]);
    bench.interrupt();
    let effects = bench.interrupt();
    assert_eq!(effects[2..], ["finished 6: aborted"], "{effects:?}");
}

#[test]
fn a_shutdown_ends_everything_at_once() {
    let mut bench = running(&["a"]);
    bench.prints("text");
    bench.submit(vec![snippet(3, "b"), work(4, WorkKind::Clear)]);
    let effects = bench.on(Event::Shutdown);
    assert_eq!(effects[0], "output 2 Stdout \"text\"");
    assert!(effects[1].starts_with("finished 2: interrupted:") && effects[1].contains("restarted"));
    assert_eq!(
        effects[2..],
        ["finished 3: aborted", "finished 4: aborted", "shutdown"]
    );
    assert_eq!(bench.submit(vec![snippet(5, "c")]), ["finished 5: aborted"]);
    assert!(bench.finished(2, interrupted(false)).is_empty());
    // During the compile, and while nothing runs.
    let mut bench = engine();
    bench.submit(vec![snippet(1, "a")]);
    let effects = bench.on(Event::Shutdown);
    assert_eq!(effects[0], "cancel compile 1");
    assert!(effects[1].contains("before it ran"));
    assert_eq!(engine().on(Event::Shutdown), ["shutdown"]);
    // While the namespace is emptied.
    let mut bench = engine();
    bench.submit(vec![work(1, WorkKind::Clear), snippet(2, "a")]);
    assert!(bench.interrupt().is_empty());
    assert_eq!(
        bench.on(Event::Shutdown),
        ["finished 1: aborted", "finished 2: aborted", "shutdown"]
    );
}

#[test]
fn times_are_added_up() {
    let mut bench = engine();
    bench.submit(vec![snippet(1, "x")]);
    let second = |count| Duration::from_secs(count);
    bench.after(2_000).compiled(1, compiled(&["a", "b"], "one"));
    bench.after(3_000);
    for run in [1, 2] {
        let (id, user, system) = (RunId(run), second(1), second(2));
        bench.reports(runtime::Event::Spent { id, user, system });
        let outcome = RunOutcome::Completed;
        let event = runtime::Event::Finished { id, outcome };
        let now = bench.after(1_000).now;
        let runtime = RuntimeId::Namespace;
        let effects = bench
            .executor
            .on_event(now, Event::Runtime { runtime, event });
        let times = match &effects[..] {
            [Effect::Finished { outcome, .. }] => match outcome {
                Outcome::Evaluated { times, .. } => times,
                other => panic!("{other:?}"),
            },
            _ => continue,
        };
        assert_eq!(
            *times,
            Times {
                compile: second(2),
                wall: second(5),
                cpu: Some((second(2), second(4))),
            }
        );
        return;
    }
    panic!("it has not finished");
}
