//! Layouts. Those of text, displays and results are what ipyparallel 9.2 showed in an IPython kernel for the same events.

use super::*;
use serde_json::json;

const RED: &str = "\x1b[0;31m";
const PLAIN: &str = "\x1b[0m";

fn targets(ids: &[u32], single: bool) -> Targets {
    Targets {
        ids: ids.iter().copied().map(EngineId).collect(),
        single,
        name: String::new(),
    }
}

fn merger(ids: &[u32], live: bool) -> Merger {
    let grouping = Grouping::Type;
    Merger::new(&targets(ids, false), Layout { live, grouping }, "r")
}

fn out(text: &str) -> EngineEvent {
    EngineEvent::Stream {
        name: StreamName::Stdout,
        text: text.to_owned(),
    }
}

fn err(text: &str) -> EngineEvent {
    EngineEvent::Stream {
        name: StreamName::Stderr,
        text: text.to_owned(),
    }
}

fn html(text: &str) -> EngineEvent {
    EngineEvent::Display {
        data: MimeBundle::from_iter([("text/html".to_owned(), json!(text))]),
        metadata: Map::new(),
        display_id: None,
    }
}

fn value(count: u32, text: &str) -> EngineEvent {
    EngineEvent::Result {
        count,
        data: plain(text),
        metadata: Map::new(),
    }
}

/// What is shown, a line each.
fn short(shown: &[Shown]) -> Vec<String> {
    let data = |data: &MimeBundle| match data.get("text/html").and_then(Value::as_str) {
        Some(html) => html.to_owned(),
        None => text_of(data).to_owned(),
    };
    shown
        .iter()
        .map(|shown| match shown {
            Shown::Stream { name, text } => format!("{}: {text}", name.as_str()),
            Shown::Display {
                data: bundle,
                display_id: Some(id),
                ..
            } => format!("{id}= {}", data(bundle)),
            Shown::Display { data: bundle, .. } => data(bundle),
            Shown::Update {
                data: bundle,
                display_id,
                ..
            } => format!("{display_id}+ {}", data(bundle)),
            Shown::Compiling { activity } => format!("{activity:?}"),
        })
        .collect()
}

/// Two engines print, show and return; the second ends first.
fn all_kinds(merger: &mut Merger) -> Vec<Shown> {
    let mut shown = Vec::new();
    for (engine, event) in [
        (1, out("a\n")),
        (0, out("a")),
        (1, err("e\n")),
        (1, html("<b>x</b>")),
        (1, html("<b>y</b>")),
        (1, value(6, "5")),
        (1, EngineEvent::Done),
        (0, out("\n")),
        (0, err("e\n")),
        (0, html("<b>x</b>")),
        (0, html("<b>y</b>")),
        (0, value(7, "5")),
        (0, EngineEvent::Done),
    ] {
        shown.extend(merger.on_event(EngineId(engine), event));
    }
    shown.extend(merger.finish());
    shown
}

#[test]
fn live_output_comes_as_it_comes_and_results_in_order() {
    let shown = all_kinds(&mut merger(&[0, 1], true));
    assert_eq!(
        short(&shown),
        [
            "r-1-stdout-1= [stdout:1] a\n".to_owned(),
            "r-0-stdout-1= [stdout:0] a".to_owned(),
            "r-1-stderr-1= [stderr:1] e\n".to_owned(),
            "[output:1]".to_owned(),
            "<b>x</b>".to_owned(),
            "[output:1]".to_owned(),
            "<b>y</b>".to_owned(),
            "r-0-stdout-1+ [stdout:0] a\n".to_owned(),
            "r-0-stderr-1= [stderr:0] e\n".to_owned(),
            "[output:0]".to_owned(),
            "<b>x</b>".to_owned(),
            "[output:0]".to_owned(),
            "<b>y</b>".to_owned(),
            format!("{RED}Out[0:7]: {PLAIN}5"),
            format!("{RED}Out[1:6]: {PLAIN}5"),
        ]
    );
    let engine = shown.iter().find_map(|shown| match shown {
        Shown::Display { data, metadata, .. } if data.contains_key("text/html") => {
            metadata.get("engine")
        }
        _ => None,
    });
    assert_eq!(engine, Some(&json!(1)));
}

#[test]
fn grouped_layouts() {
    let text = [
        "stdout: [stdout:0] \na\n[stdout:1] \na\n",
        "stderr: [stderr:0] \ne\n[stderr:1] \ne\n",
    ];
    let by_type = [
        "[output:0]",
        "<b>x</b>",
        "<b>y</b>",
        "[output:1]",
        "<b>x</b>",
        "<b>y</b>",
    ];
    let in_order = [
        "[output:0]",
        "<b>x</b>",
        "[output:1]",
        "<b>x</b>",
        "[output:0]",
        "<b>y</b>",
        "[output:1]",
        "<b>y</b>",
    ];
    let results = [
        format!("{RED}Out[0:7]: {PLAIN}5"),
        format!("{RED}Out[1:6]: {PLAIN}5"),
    ];
    let owned = |parts: &[&str]| {
        parts
            .iter()
            .map(|part| (*part).to_owned())
            .collect::<Vec<_>>()
    };
    let by_engine = |engine: usize| {
        let mut all = owned(&[
            &format!("stdout: [stdout:{engine}] \na\n"),
            &format!("stderr: [stderr:{engine}] \ne\n"),
            &format!("[output:{engine}]"),
            "<b>x</b>",
            "<b>y</b>",
        ]);
        all.push(results[engine].clone());
        all
    };
    for (grouping, expected) in [
        (
            Grouping::Type,
            [owned(&text), owned(&by_type), results.to_vec()].concat(),
        ),
        (
            Grouping::Order,
            [owned(&text), owned(&in_order), results.to_vec()].concat(),
        ),
        (Grouping::Engine, [by_engine(0), by_engine(1)].concat()),
    ] {
        let layout = Layout {
            live: false,
            grouping,
        };
        let mut merger = Merger::new(&targets(&[0, 1], false), layout, "r");
        assert_eq!(short(&all_kinds(&mut merger)), expected, "{grouping:?}");
        assert_eq!(short(&merger.all_again(grouping)), expected);
    }
}

#[test]
fn a_single_target_has_no_labels_and_unended_lines_are_ended() {
    let layout = Layout {
        live: false,
        grouping: Grouping::Type,
    };
    let mut merger = Merger::new(&targets(&[1], true), layout, "r");
    merger.on_event(EngineId(1), out("a"));
    merger.on_event(EngineId(1), value(17, "6"));
    merger.on_event(EngineId(1), EngineEvent::Done);
    assert_eq!(
        short(&merger.finish()),
        ["stdout: a".to_owned(), format!("{RED}Out[1:17]: {PLAIN}6")]
    );
    let mut merger = Merger::new(&targets(&[0, 2], false), layout, "r");
    merger.on_event(EngineId(2), out("b\n"));
    merger.on_event(EngineId(0), out("a"));
    assert_eq!(
        short(&merger.finish()),
        ["stdout: [stdout:0] \na\n[stdout:2] \nb\n"]
    );
}

#[test]
fn results_of_several_lines_and_of_other_types() {
    let mut merger = merger(&[0], true);
    merger.on_event(EngineId(0), value(2, "a\nb"));
    let shown = merger.on_event(EngineId(0), EngineEvent::Done);
    assert_eq!(short(&shown), [format!("{RED}Out[0:2]: {PLAIN}\na\nb")]);
    assert_eq!(merger.results(), ["a\nb"]);
    let mut merger = super::tests::merger(&[0], true);
    let mut data = plain("text");
    data.insert("text/html".to_owned(), json!("<i>"));
    merger.on_event(
        EngineId(0),
        EngineEvent::Result {
            count: 1,
            data,
            metadata: Map::new(),
        },
    );
    let shown = merger.on_event(EngineId(0), EngineEvent::Done);
    assert_eq!(short(&shown), ["[output:0]", "<i>"]);
}

#[test]
fn a_live_display_does_not_grow_for_ever() {
    let mut merger = merger(&[0], true);
    let line = "x".repeat(1023) + "\n";
    let mut ids = std::collections::BTreeSet::new();
    let mut longest = 0;
    for _ in 0..64 {
        for shown in merger.on_event(EngineId(0), out(&line)) {
            if let Shown::Display {
                data, display_id, ..
            } = &shown
            {
                ids.insert(display_id.clone());
                longest = longest.max(text_of(data).len());
            }
            if let Shown::Update { data, .. } = &shown {
                longest = longest.max(text_of(data).len());
            }
        }
    }
    assert_eq!(ids.len(), 4);
    assert!(longest < 18 << 10, "{longest}");
}

#[test]
fn displays_of_engines_are_updated_apart() {
    let mut merger = merger(&[0, 1], true);
    let display = |text: &str| EngineEvent::Display {
        data: plain(text),
        metadata: Map::new(),
        display_id: Some("d".to_owned()),
    };
    let update = |text: &str| EngineEvent::Update {
        data: plain(text),
        metadata: Map::new(),
        display_id: "d".to_owned(),
    };
    let mut shown = merger.on_event(EngineId(0), display("1"));
    shown.extend(merger.on_event(EngineId(1), display("1")));
    shown.extend(merger.on_event(EngineId(1), update("2")));
    assert_eq!(
        short(&shown),
        [
            "[output:0]",
            "engine-0-d= 1",
            "[output:1]",
            "engine-1-d= 1",
            "engine-1-d+ 2"
        ]
    );
    let again = merger.all_again(Grouping::Type);
    assert_eq!(
        short(&again),
        ["[output:0]", "engine-0-d= 1", "[output:1]", "engine-1-d= 2"]
    );
}

#[test]
fn the_order_of_endings_changes_nothing_that_is_grouped() {
    let events = |engine: u32| {
        vec![
            out(&format!("{engine}\n")),
            value(1, &engine.to_string()),
            if engine == 1 {
                EngineEvent::Failed(Failure::new("panic", "no"))
            } else {
                EngineEvent::Done
            },
        ]
    };
    let run = |order: &[u32]| {
        let mut merger = merger(&[0, 1, 2], false);
        for engine in order {
            for event in events(*engine) {
                assert!(merger.on_event(EngineId(*engine), event).is_empty());
            }
        }
        assert!(merger.is_done());
        (merger.finish(), merger.failure(), merger.results())
    };
    let first = run(&[0, 1, 2]);
    assert_eq!(first, run(&[2, 1, 0]));
    assert_eq!(first, run(&[1, 0, 2]));
    assert_eq!(first.2, ["0", "1", "2"]);
}

fn failure_of(ends: Vec<EngineEvent>) -> Option<Failure> {
    let ids: Vec<u32> = (0..).take(ends.len()).collect();
    let mut merger = merger(&ids, true);
    for (id, end) in ids.into_iter().zip(ends) {
        merger.on_event(EngineId(id), end);
    }
    merger.failure()
}

#[test]
fn compile_errors_once_panics_each() {
    assert_eq!(failure_of(vec![EngineEvent::Done, EngineEvent::Done]), None);
    let rejected = EngineEvent::Rejected(Failure::new("compile error", "no `x`"));
    let panicked = EngineEvent::error(Failure::new("panic", "boom"));
    let same = failure_of(vec![rejected.clone(); 8]).unwrap();
    assert_eq!(same.ename, "CompositeError");
    assert_eq!(
        same.evalue,
        "one or more exceptions raised in: %px\n[0-7:execute]compile error: no `x`"
    );
    assert_eq!(same.traceback, ["[0-7:execute]:", "no `x`", ""]);
    let mixed = failure_of(vec![
        rejected.clone(),
        panicked.clone(),
        rejected.clone(),
        panicked,
        EngineEvent::Lost {
            reason: "it was killed by SIGKILL".to_owned(),
        },
    ])
    .unwrap();
    assert_eq!(
        mixed.traceback,
        [
            "[0,2:execute]:",
            "no `x`",
            "",
            "[1:execute]:",
            "boom",
            "",
            "[3:execute]:",
            "boom",
            "",
            "[4:execute]:",
            "engine 4 is gone: it was killed by SIGKILL. What it ran has no result; `%cluster status` lists the engines there are",
            "",
        ]
    );
    let alone = failure_of(vec![rejected]).unwrap();
    assert_eq!(alone.ename, "compile error");
    assert_eq!(alone.evalue, "no `x`");
    assert_eq!(alone.traceback, ["[0:execute]:", "no `x`"]);
}

#[test]
fn many_panics_are_all_named() {
    let ends = (0..7)
        .map(|id| EngineEvent::Failed(Failure::new("panic", format!("boom {id}"))))
        .collect();
    let failure = failure_of(ends).unwrap();
    assert!(
        failure
            .evalue
            .ends_with("[3:execute]panic: boom 3\n.... 3 more exceptions ...")
    );
    assert_eq!(
        failure.traceback[12..],
        [
            "[4:execute]panic: boom 4",
            "[5:execute]panic: boom 5",
            "[6:execute]panic: boom 6"
        ]
    );
}

#[test]
fn strangers_and_late_words() {
    let mut merger = merger(&[0], true);
    assert!(merger.on_event(EngineId(9), out("x")).is_empty());
    merger.on_event(EngineId(0), EngineEvent::Done);
    assert!(merger.on_event(EngineId(0), value(1, "late")).is_empty());
    merger.on_event(
        EngineId(0),
        EngineEvent::Lost {
            reason: String::new(),
        },
    );
    assert_eq!(merger.failure(), None);
    assert_eq!(merger.on_event(EngineId(0), out("thread\n")).len(), 1);
}

#[test]
fn progress_lines() {
    for (ended, total, seconds, failed, line) in [
        (
            0,
            2,
            2,
            &[][..],
            "%px:   0%|          | 0/2 engines [00:02]",
        ),
        (1, 2, 65, &[], "%px:  50%|█████     | 1/2 engines [01:05]"),
        (
            1,
            3,
            2,
            &[EngineId(1)],
            "%px:  33%|███▎      | 1/3 engines [00:02], failed: 1",
        ),
        (
            2,
            2,
            3_700,
            &[],
            "%px: 100%|██████████| 2/2 engines [1:01:40]",
        ),
        (0, 0, 0, &[], "%px:   0%|          | 0/1 engines [00:00]"),
    ] {
        assert_eq!(progress_line(ended, total, seconds, failed), line);
    }
}

#[test]
fn a_long_result_that_has_a_name_is_shortened() {
    let text = format!("[{}]", "1234, ".repeat(500));
    for brief in [false, true] {
        let mut merger = merger(&[0], true);
        if brief {
            merger.be_brief();
        }
        let result = EngineEvent::Result {
            count: 1,
            data: plain(text.clone()),
            metadata: Map::new(),
        };
        merger.on_event(EngineId(0), result);
        let shown = merger.on_event(EngineId(0), EngineEvent::Done);
        let [Shown::Display { data, .. }] = &shown[..] else {
            panic!("{shown:?}");
        };
        assert_eq!(text_of(data).contains("<.. 2702 characters ..>"), brief);
        assert_eq!(text_of(data).len() > text.len(), !brief);
        assert_eq!(merger.results(), std::slice::from_ref(&text));
    }
}
