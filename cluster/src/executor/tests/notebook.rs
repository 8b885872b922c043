//! What a notebook's executor does differently.

use super::*;

fn notebook() -> Bench {
    Bench::ready(Config::notebook())
}

/// With a cell that runs as run 2, in the lineage `one`.
fn running(loads: &[&str]) -> Bench {
    let mut bench = notebook();
    bench.evaluate(1, "one");
    bench.submit(vec![snippet(2, "y")]);
    bench.compiled(2, compiled(loads, "two"));
    bench
}

fn input() -> runtime::Event {
    runtime::Event::Input {
        prompt: "name?".to_owned(),
        password: false,
    }
}

fn line(id: u64, line: &str) -> Event {
    Event::Input {
        id: WorkId(id),
        line: Some(line.to_owned()),
    }
}

#[test]
fn input_is_asked_for() {
    let mut bench = running(&["a"]);
    bench.prints("hello");
    assert_eq!(
        bench.reports(input()),
        ["output 2 Stdout \"hello\"", "ask 2 name?"]
    );
    assert!(bench.on(line(1, "x")).is_empty());
    assert_eq!(bench.on(line(2, "Ada")), ["answer Some(\"Ada\")"]);
    assert!(bench.on(line(2, "again")).is_empty());
    assert_eq!(bench.reports(input()), ["ask 2 name?"]);
    // The process dies while it waits.
    let effects = bench.finished(2, died(true));
    assert_eq!(effects[0], "cancel input 2");
    assert_eq!(bench.reports(input()), ["answer None"], "nothing runs");
}

#[test]
fn an_interrupt_takes_the_question_back() {
    let mut bench = running(&["a"]);
    bench.reports(input());
    assert_eq!(
        bench.interrupt(),
        ["cancel input 2", "interrupt 2 namespace"]
    );
    assert!(bench.on(line(2, "late")).is_empty());
    assert_eq!(bench.reports(input()), ["answer None"]);
    assert_eq!(
        bench.finished(2, interrupted(true)),
        [
            "finished 2: interrupted: The cell was interrupted. Every variable is as it was before the cell."
        ]
    );
    let mut bench = running(&["a"]);
    bench.reports(input());
    let effects = bench.on(Event::Shutdown);
    assert_eq!(effects[0], "cancel input 2");
}

#[test]
fn types_that_changed_compile_the_cell_again_once() {
    let changed = |name: &str| RunOutcome::TypesChanged {
        variables: vec![name.to_owned()],
    };
    let mut bench = running(&["a"]);
    assert_eq!(
        bench.finished(2, changed("x")),
        ["compile 3 of 2 in one: y without x"]
    );
    assert_eq!(bench.compiled(3, compiled(&["b"], "three")), ["run 3 b"]);
    assert_eq!(
        bench.finished(3, RunOutcome::Completed),
        [
            "output 2 Stderr \"The type of `x` was redefined, so its value is lost.\\n\"",
            "finished 2: none"
        ]
    );
    assert_eq!(bench.lineage(), "three");
    let mut bench = running(&["a"]);
    bench.finished(2, changed("x"));
    bench.compiled(3, compiled(&["b"], "three"));
    let effects = bench.finished(3, changed("y"));
    assert!(effects[1].starts_with("finished 2: types changed: The types of y were redefined"));
    assert_eq!(bench.lineage(), "one");
    // Should it not compile without them, they are gone all the same.
    let mut bench = running(&["a"]);
    bench.finished(2, changed("x"));
    let effects = bench.fails_to_compile(3);
    assert_eq!(effects[0], "settle 4 lost one: x");
    assert!(effects[2].starts_with("finished 2: "), "{effects:?}");
    bench.settled(4, "half");
    assert_eq!(bench.lineage(), "half");
    // An interrupt that came before is not lost.
    let mut bench = running(&["a"]);
    bench.interrupt();
    let effects = bench.finished(2, changed("x"));
    assert!(
        effects[0].contains("interrupted before it ran"),
        "{effects:?}"
    );
}

fn restarting(libraries: bool) -> Compiled {
    let libraries = libraries.then(|| Libraries {
        support: "other.so".into(),
        preload: Vec::new(),
    });
    Compiled {
        undone: None,
        restart: Some(Restart {
            libraries,
            lineage: named("empty"),
        }),
        ..compiled(&["a"], "two")
    }
}

#[test]
fn commands_may_ask_for_a_new_runtime() {
    for (libraries, start) in [
        (false, "start namespace"),
        (true, "start namespace with other.so"),
    ] {
        let mut bench = notebook();
        bench.evaluate(1, "one");
        bench.submit(vec![snippet(2, "y")]);
        assert_eq!(bench.compiled(2, restarting(libraries)), [start]);
        assert_eq!(bench.lineage(), "empty");
        assert_eq!(bench.started(Ok(())), ["run 2 a"]);
        assert_eq!(
            bench.finished(2, RunOutcome::Completed),
            ["finished 2: none"]
        );
        assert_eq!(bench.lineage(), "two");
    }
}

#[test]
fn a_new_runtime_that_fails_or_is_interrupted() {
    let mut bench = notebook();
    bench.submit(vec![snippet(1, "y"), snippet(2, "z")]);
    bench.compiled(1, restarting(false));
    assert_eq!(
        bench.started(Err(not_there())),
        [
            "finished 1: not ready: no processes",
            "started 2",
            "settle 2 lost empty",
            "start namespace"
        ]
    );
    assert!(bench.settled(2, "items").is_empty());
    let effects = bench.started(Ok(()));
    let asked = ticket(&effects);
    bench.compiled(asked, restarting(false));
    let effects = bench.interrupt();
    assert!(
        effects[0].contains("All variables are lost: the runtime was restarted"),
        "{effects:?}"
    );
    assert_eq!(bench.submit(vec![snippet(3, "z")]), ["started 3"]);
    assert!(bench.started(Ok(()))[0].ends_with("of 3 in empty: z"));
}

#[test]
fn what_commands_show_is_the_result_if_nothing_runs() {
    for (loads, expected) in [
        (&[][..], &["finished 1: vars"][..]),
        (&["a"], &["output 1 display vars", "run 1 a"]),
    ] {
        let mut bench = notebook();
        bench.submit(vec![snippet(1, "x")]);
        let mut compiled = compiled(loads, "one");
        compiled.artifact.shown = bundle("vars");
        assert_eq!(bench.compiled(1, compiled), expected);
    }
}

#[test]
fn what_happens_between_two_cells_is_shown_by_the_next() {
    let mut bench = notebook();
    assert_eq!(bench.prints("late"), ["keep b\"late\""]);
    let effects = bench.reports(lost(true));
    assert!(effects[0].starts_with("keep note \"Between two cells the runtime exited"));
    assert_eq!(
        bench.submit(vec![snippet(1, "x")]),
        ["started 1", "replay", "compile 1 of 1 in root: x"]
    );
    let bytes = "late".into();
    let stream = Stream::Stdout;
    bench.on(Event::Kept(Kept::Output { stream, bytes }));
    bench.on(Event::Kept(Kept::Note("note".to_owned())));
    // Also what comes during the compile.
    bench.prints("more");
    bench.compiled(1, compiled(&[], "one"));
    let effects = bench.submit(vec![snippet(2, "x")]);
    assert_eq!(effects.len(), 2, "it is replayed once: {effects:?}");
    let mut bench = notebook();
    bench.prints("late");
    bench.submit(vec![snippet(1, "x")]);
    bench.on(Event::Kept(Kept::Note("note".to_owned())));
    bench.prints("more");
    assert_eq!(
        bench.compiled(1, compiled(&[], "one")),
        [
            "output 1 Stderr \"note\"",
            "output 1 Stdout \"more\"",
            "finished 1: none"
        ]
    );
}

#[test]
fn functions_outlive_the_variables() {
    let mut bench = running(&["a"]);
    let effects = bench.finished(2, died(false));
    assert_eq!(effects[0], "settle 3 lost one");
    assert!(effects[1].contains("All variables are lost"));
    assert_eq!(bench.submit(vec![snippet(3, "z")]), ["started 3"]);
    let effects = bench.settled(3, "items");
    assert!(effects[0].ends_with("of 3 in items: z"), "{effects:?}");
    // Twice: only the last question counts.
    let mut bench = running(&["a"]);
    bench.finished(2, died(false));
    assert_eq!(bench.reports(lost(false))[1], "settle 4 lost one");
    bench.settled(3, "stale");
    assert_eq!(bench.lineage(), "one");
    bench.settled(4, "items");
    assert_eq!(bench.lineage(), "items");
}

#[test]
fn an_interrupt_may_end_the_cells_that_wait() {
    let mut bench = running(&["a"]);
    bench.submit(vec![snippet(3, "b"), snippet(4, "c")]);
    let effects = bench.on(Event::Interrupt { waiting: true });
    assert_eq!(effects[0], "interrupt 2 namespace");
    for (effect, id) in effects[1..].iter().zip([3, 4]) {
        assert!(effect.starts_with(&format!(
            "finished {id}: interrupted: The cell was interrupted before it ran"
        )));
    }
    assert_eq!(effects.len(), 3);
    assert_eq!(bench.finished(2, interrupted(true)).len(), 1);
}
