//! `%px` and its relatives.

use super::super::*;
use super::fakes::*;
use tokio::time::Instant;

async fn run(
    cell: &str,
    magics: &mut Magics,
    engines: &mut FakeEngines,
    notebook: &mut FakeNotebook,
) -> Result<Option<MimeBundle>, Failure> {
    // Nothing hangs: an hour is more than any of these may take.
    let hour = std::time::Duration::from_secs(3600);
    tokio::time::timeout(hour, magics.run_cell(cell, engines, notebook))
        .await
        .unwrap()
}

/// What the cell shows, and its error if it has one.
async fn play(cell: &str, engines: &mut FakeEngines) -> (Vec<String>, Option<Failure>) {
    let mut notebook = FakeNotebook::default();
    let ran = run(cell, &mut Magics::new(), engines, &mut notebook).await;
    (notebook.texts(), ran.err())
}

#[tokio::test(start_paused = true)]
async fn output_is_shown_while_engines_run_and_results_in_order() {
    let mut engines = FakeEngines::with(2)
        .script(
            0,
            vec![say("a\n"), Step::Sleep(1.0), value(1, "10"), done()],
        )
        .script(1, vec![say("b\n"), value(1, "11"), done()]);
    let (texts, error) = play("%px f()", &mut engines).await;
    assert_eq!(error, None);
    assert_eq!(
        texts,
        [
            "[stdout:0] a\n",
            "[stdout:1] b\n",
            "Out[0:1]: 10",
            "Out[1:1]: 11"
        ]
    );
    assert_eq!(
        engines.executed,
        [(vec![0, 1], "    f()".to_owned(), How::default())]
    );
}

/// A kernel spawns what serves a cell.
#[tokio::test]
async fn a_cell_can_be_spawned() {
    let cell = async {
        let mut magics = Magics::new();
        let mut notebook = FakeNotebook::default();
        let cell = "%px 1\n%time %px 1\n%timeit %px 1\n%cluster\n%pxresult\n%pxconfig -t 0\n%whos";
        magics
            .run_cell(cell, &mut FakeEngines::with(1), &mut notebook)
            .await
    };
    tokio::spawn(cell).await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_sent_can_be_interrupted() {
    for cell in ["%px f()", "%timeit %px f()"] {
        let mut engines = FakeEngines {
            stuck: true,
            ..FakeEngines::with(1)
        };
        let mut notebook = FakeNotebook::default();
        notebook.interrupt_after(1.0);
        let error = run(cell, &mut Magics::new(), &mut engines, &mut notebook)
            .await
            .unwrap_err();
        assert_eq!(error.evalue, "Interrupted.");
    }
}

#[tokio::test(start_paused = true)]
async fn targets_and_code_and_commands() {
    for (cell, targets, code) in [
        ("%px -t 0 let a = 1;", &[0][..], "         let a = 1;"),
        ("%%px -t ::2\na\nb", &[0, 2], "\na\nb"),
        (
            "let x = 1;\n%%px\n:dep rand = \"0.8\"\nf()",
            &[0, 1, 2],
            "\n\n:dep rand = \"0.8\"\nf()",
        ),
        ("%px -t [0, 1] :vars", &[0, 1], ":vars"),
    ] {
        let mut engines = FakeEngines::with(3);
        let (_, error) = play(cell, &mut engines).await;
        assert_eq!(error, None, "{cell}");
        assert_eq!(
            engines.executed,
            [(targets.to_vec(), code.to_owned(), How::default())],
            "{cell}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn what_cannot_run_is_said_and_nothing_runs() {
    let two = "there are engines 0,1)";
    for (cell, ename, evalue) in [
        ("%px -t 9 1", "bad target", format!("%px: there is no engine 9 ({two}")),
        ("%%px -t foo\n1", "bad target", format!("%%px: `foo` names no engines: write an id (`0`), a list (`0,3` or `[0,3]`), a slice of the ids (`0:4`, `::2`) or `all` ({two}")),
        ("%px --taget 0 1", "bad option", "%px: there is no option `--taget`. Did you mean `--targets`?".to_owned()),
        ("%px", "usage", "%px needs code to run: write it in the same line.".to_owned()),
        ("%%px -a", "usage", "%%px needs code to run: write it in the lines below.".to_owned()),
        ("let a = 1;\n%pz 1", "unknown magic", "There is no magic %pz (line 2). %lsmagic lists those there are.".to_owned()),
        ("%clutser start", "unknown magic", "There is no magic %clutser (line 1). Did you mean %cluster? %lsmagic lists those there are.".to_owned()),
        ("%pxresult", "usage", "%pxresult shows the result of the last %px, and there was none yet.".to_owned()),
    ] {
        let mut notebook = FakeNotebook::default();
        let mut engines = FakeEngines::with(2);
        let error = run(cell, &mut Magics::new(), &mut engines, &mut notebook)
            .await
            .unwrap_err();
        assert_eq!((error.ename.as_str(), &error.evalue), (ename, &evalue), "{cell}");
        assert!(engines.executed.is_empty() && notebook.evaluated.is_empty(), "{cell}");
    }
}

#[tokio::test(start_paused = true)]
async fn no_cluster_no_engines_no_answer() {
    let mut engines = FakeEngines::default();
    let (texts, error) = play("%px 1", &mut engines).await;
    assert_eq!(error, None);
    assert_eq!(
        texts,
        [
            "No cluster is running: starting one on this machine, with one engine a core.\n",
            "Cluster \"default\" is up, 2 engines: 0,1. `%cluster stop` ends it.\n"
        ]
    );
    assert_eq!(engines.executed.len(), 1);

    let mut engines = FakeEngines::with(0);
    let (_, error) = play("%px 1", &mut engines).await;
    assert_eq!(error.unwrap().ename, "no engines");

    let mut engines = FakeEngines {
        silent: true,
        ..FakeEngines::with(1)
    };
    let started = Instant::now();
    let (_, error) = play("%px 1", &mut engines).await;
    assert!(error.unwrap().evalue.contains("did not answer within 2 s"));
    assert_eq!(started.elapsed().as_secs(), 2);
}

#[tokio::test(start_paused = true)]
async fn failures_of_some_engines_do_not_hide_the_others() {
    let mut engines = FakeEngines::with(3)
        .script(0, vec![fails("panic", "boom")])
        .script(1, vec![say("b\n"), value(1, "11"), done()])
        .script(
            2,
            vec![
                say("c"),
                Step::Sleep(0.5),
                Step::Say(EngineEvent::Lost {
                    reason: "it was killed by SIGKILL".to_owned(),
                }),
            ],
        );
    let (texts, error) = play("%px -o all f()", &mut engines).await;
    assert_eq!(texts, ["[stdout:1] b\n", "Out[1:1]: 11", "[stdout:2] c"]);
    let error = error.unwrap();
    assert_eq!(error.ename, "CompositeError");
    assert_eq!(
        error.traceback,
        [
            "[0:execute]:",
            "boom",
            "",
            "[2:execute]:",
            "engine 2 is gone: it was killed by SIGKILL. What it ran has no result; `%cluster status` lists the engines there are",
            "",
            "`all` is not bound, since not every engine has a result."
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn engines_that_vanish_without_a_word_are_lost() {
    let mut engines = FakeEngines::with(2).script(1, vec![say("x")]);
    let (_, error) = play("%px f()", &mut engines).await;
    let error = error.unwrap();
    assert!(
        error
            .evalue
            .contains("[1:execute]engine lost: engine 1 is gone: the connection to it ended"),
        "{error:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn results_are_bound_as_rust() {
    let mut engines = FakeEngines::with(3)
        .script(0, vec![value(1, "{\"a\\n\": 1}\n\u{1b}é'"), done()])
        .script(1, vec![Step::Sleep(1.0), value(1, "2"), done()]);
    let mut notebook = FakeNotebook::default();
    run(
        "%px -o counts f()",
        &mut Magics::new(),
        &mut engines,
        &mut notebook,
    )
    .await
    .unwrap();
    assert_eq!(
        notebook.evaluated,
        [
            r#"let counts: Vec<String> = vec!["{\"a\\n\": 1}\n\u{1b}é'".to_owned(), "2".to_owned(), "".to_owned()];"#
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn a_progress_line_after_two_seconds() {
    let slow = |seconds| vec![Step::Sleep(seconds), done()];
    let script = || {
        FakeEngines::with(2)
            .script(0, slow(1.0))
            .script(1, slow(3.5))
    };
    let (texts, _) = play("%px f()", &mut script()).await;
    assert_eq!(
        texts,
        [
            "%px:  50%|█████     | 1/2 engines [00:02]",
            "%px:  50%|█████     | 1/2 engines [00:03]",
            "%px: 100%|██████████| 2/2 engines [00:03]"
        ]
    );
    let (texts, _) = play("%px --progress-after -1 f()", &mut script()).await;
    assert!(texts.is_empty());
    let (texts, _) = play("%px --progress-after 0 f()", &mut script()).await;
    assert_eq!(texts[0], "%px:   0%|          | 0/2 engines [00:00]");
    let (texts, _) = play("%px f()", &mut FakeEngines::with(2).script(0, slow(1.9))).await;
    assert!(texts.is_empty());
}

#[tokio::test(start_paused = true)]
async fn engines_that_wait_for_the_compiler_say_so() {
    let compiling = |activity: Option<&str>| {
        let activity = activity.map(str::to_owned);
        Step::Say(EngineEvent::Compiling { activity })
    };
    let waits = |seconds, run| {
        let (start, read) = (
            "starting the compiler".into(),
            "reading the standard library".into(),
        );
        vec![
            Step::Sleep(1.0),
            compiling(start),
            Step::Sleep(0.5),
            compiling(read),
            Step::Sleep(seconds),
            compiling(None),
            Step::Sleep(run),
            done(),
        ]
    };
    let two = |seconds| {
        FakeEngines::with(2)
            .script(0, waits(seconds, 0.1))
            .script(1, waits(seconds, 0.2))
    };
    let (texts, _) = play("%px f()", &mut two(0.2)).await;
    assert_eq!(
        texts,
        ["starting the compiler", "reading the standard library", ""],
        "the line is gone afterwards"
    );
    let (texts, _) = play("%px f()", &mut two(2.0)).await;
    assert_eq!(
        texts,
        [
            "starting the compiler",
            "reading the standard library",
            "",
            "%px: reading the standard library [00:02]",
            "%px: reading the standard library [00:03]",
            "%px:   0%|          | 0/2 engines [00:03]",
            "%px:  50%|█████     | 1/2 engines [00:03]",
            "%px: 100%|██████████| 2/2 engines [00:03]",
        ]
    );
    // One of them runs.
    let mut engines = FakeEngines::with(2).script(0, waits(1.0, 0.1));
    let (texts, _) = play("%px f()", &mut engines).await;
    assert_eq!(
        texts[2..],
        [
            "",
            "%px: reading the standard library [00:02]",
            "%px:  50%|█████     | 1/2 engines [00:02]",
            "%px: 100%|██████████| 2/2 engines [00:02]",
        ]
    );
    let (texts, _) = play("%px --progress-after -1 f()", &mut two(2.0)).await;
    assert!(texts.is_empty());
}

#[tokio::test(start_paused = true)]
async fn an_interrupt_goes_to_the_engines_that_run() {
    let mut engines = FakeEngines::with(2).script(1, vec![say("b"), Step::AwaitSignal]);
    let mut notebook = FakeNotebook::default();
    notebook.interrupt_after(1.0);
    let error = run("%px f()", &mut Magics::new(), &mut engines, &mut notebook)
        .await
        .unwrap_err();
    assert_eq!(engines.signals, [(vec![1], 2)]);
    assert_eq!(
        notebook.texts(),
        [
            "[stdout:1] b",
            "Received Keyboard Interrupt. Sending signal SIGINT to engines...\n"
        ]
    );
    assert!(error.evalue.contains("[1:execute]interrupted"), "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn engines_that_ignore_an_interrupt_do_not_hold_the_notebook() {
    // Seconds until the first and, if any, the second interrupt; seconds until the cell ends.
    for (options, interrupts, ends, signals) in [
        ("", &[1.0][..], 6, &[(vec![0], 2)][..]),
        ("", &[1.0, 2.0], 2, &[(vec![0], 2)]),
        ("--signal-on-interrupt SIGKILL", &[1.0], 6, &[(vec![0], 9)]),
        ("--signal-on-interrupt 0", &[1.0], 1, &[]),
    ] {
        let mut engines = FakeEngines::with(1).script(0, vec![Step::Hang]);
        let mut notebook = FakeNotebook::default();
        for seconds in interrupts {
            notebook.interrupt_after(*seconds);
        }
        let started = Instant::now();
        let error = run(
            &format!("%px {options} f()"),
            &mut Magics::new(),
            &mut engines,
            &mut notebook,
        )
        .await
        .unwrap_err();
        assert_eq!(error.ename, "interrupted");
        assert!(error.evalue.contains("Still running on 0"), "{error:?}");
        assert_eq!(
            started.elapsed().as_secs(),
            ends,
            "{options} {interrupts:?}"
        );
        assert_eq!(engines.signals, signals, "{options}");
    }
}

#[tokio::test(start_paused = true)]
async fn not_waiting_and_the_result_later() {
    let mut magics = Magics::new();
    let mut notebook = FakeNotebook::default();
    let mut engines =
        FakeEngines::with(2).script(0, vec![say("a\n"), Step::Sleep(5.0), value(3, "7"), done()]);
    let started = Instant::now();
    let stands = run("%px -a f()", &mut magics, &mut engines, &mut notebook)
        .await
        .unwrap();
    assert_eq!(started.elapsed().as_secs(), 0);
    assert_eq!(
        stands,
        Some(crate::event::plain("<AsyncResult(%px): pending>"))
    );
    assert!(notebook.shown.is_empty());
    run("%pxresult", &mut magics, &mut engines, &mut notebook)
        .await
        .unwrap();
    let texts = notebook.texts();
    assert_eq!(started.elapsed().as_secs(), 5);
    assert_eq!(
        texts[texts.len() - 2..],
        ["[stdout:0] \na\n", "Out[0:3]: 7"]
    );
    // It can be recalled as often as one likes.
    run("%pxresult -e", &mut magics, &mut engines, &mut notebook)
        .await
        .unwrap();
    run("%pxresult -o r", &mut magics, &mut engines, &mut notebook)
        .await
        .unwrap();
    assert_eq!(
        notebook.evaluated,
        [r#"let r: Vec<String> = vec!["7".to_owned(), "".to_owned()];"#]
    );
}

#[tokio::test(start_paused = true)]
async fn an_interrupted_pxresult_leaves_the_engines_alone() {
    let mut magics = Magics::new();
    let mut notebook = FakeNotebook::default();
    let mut engines = FakeEngines::with(1).script(0, vec![Step::Sleep(9.0), value(1, "7"), done()]);
    run("%px -a f()", &mut magics, &mut engines, &mut notebook)
        .await
        .unwrap();
    notebook.interrupt_after(1.0);
    let error = run("%pxresult", &mut magics, &mut engines, &mut notebook)
        .await
        .unwrap_err();
    assert_eq!(error.ename, "interrupted");
    assert!(engines.signals.is_empty());
    run("%pxresult", &mut magics, &mut engines, &mut notebook)
        .await
        .unwrap();
    assert!(notebook.texts().contains(&"Out[0:1]: 7".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn settings_last() {
    let mut magics = Magics::new();
    let mut notebook = FakeNotebook::default();
    let mut engines = FakeEngines::with(3).script(0, vec![say("x\n"), done()]);
    let error = run("%pxconfig -t 9", &mut magics, &mut engines, &mut notebook)
        .await
        .unwrap_err();
    assert_eq!(error.ename, "bad target");
    for cell in [
        "%pxconfig --verbose -t 0:2 --no-stream",
        "%px f()",
        "%%px -t 1 -a\nf()",
        "%pxconfig",
    ] {
        run(cell, &mut magics, &mut engines, &mut notebook)
            .await
            .unwrap();
    }
    assert_eq!(
        notebook.texts(),
        [
            "Parallel execution on engine(s): [0, 1]\n",
            "[stdout:0] \nx\n",
            "Async parallel execution on engine(s): 1\n",
            "--targets 0:2 --block --no-stream --verbose --progress-after 2 --signal-on-interrupt SIGINT\n"
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn a_layout_asked_for_is_given_when_all_have_ended() {
    let script = || {
        FakeEngines::with(2)
            .script(0, vec![Step::Sleep(1.0), say("a\n"), value(1, "1"), done()])
            .script(1, vec![say("b\n"), value(1, "2"), done()])
    };
    let (texts, _) = play("%%px --group-outputs engine\nf()", &mut script()).await;
    assert_eq!(
        texts,
        [
            "[stdout:0] \na\n",
            "[output:0]",
            "Out[0:1]: 1",
            "[stdout:1] \nb\n",
            "[output:1]",
            "Out[1:1]: 2"
        ]
    );
    let (texts, _) = play("%%px -e --stream\nf()", &mut script()).await;
    assert_eq!(texts[0], "[stdout:1] b\n");
}

#[tokio::test(start_paused = true)]
async fn here_too() {
    let mut magics = Magics::new();
    let mut notebook = FakeNotebook::default();
    notebook.values.push_back(Ok(Evaluated {
        value: Some(crate::event::plain("3")),
        ..Evaluated::default()
    }));
    let mut engines = FakeEngines::with(1).script(0, vec![value(1, "3"), done()]);
    run(
        "%%px --local\nf()",
        &mut magics,
        &mut engines,
        &mut notebook,
    )
    .await
    .unwrap();
    assert_eq!(notebook.evaluated, ["\nf()"]);
    assert_eq!(notebook.texts(), ["3", "Out[0:1]: 3"]);
    // What fails here does not keep the engines' outputs back.
    notebook
        .values
        .push_back(Err(Failure::new("panic", "boom")));
    notebook.shown.clear();
    let error = run(
        "%%px --local\nf()",
        &mut magics,
        &mut engines,
        &mut notebook,
    )
    .await
    .unwrap_err();
    assert_eq!(error.ename, "panic");
    assert_eq!(notebook.texts(), ["Out[0:1]: 3"]);
}

#[tokio::test(start_paused = true)]
async fn autopx_sends_rust_to_the_engines() {
    let mut magics = Magics::new();
    let mut notebook = FakeNotebook::default();
    let mut engines = FakeEngines::with(1);
    for cell in ["%autopx", "let a = 5;", "%autopx\nlet b = 6;"] {
        run(cell, &mut magics, &mut engines, &mut notebook)
            .await
            .unwrap();
    }
    assert_eq!(
        notebook.texts(),
        ["%autopx enabled\n", "%autopx disabled\n"]
    );
    assert_eq!(engines.executed.len(), 1);
    assert_eq!(notebook.evaluated, ["\nlet b = 6;"]);
    assert_eq!(magics.engine_names().collect::<Vec<_>>(), ["a"]);
}

#[tokio::test(start_paused = true)]
async fn much_output_is_merged_before_it_is_shown() {
    let mut steps: Vec<Step> = (0..20_000).map(|line| say(&format!("{line}\n"))).collect();
    steps.push(done());
    let mut engines = FakeEngines::with(1).script(0, steps);
    let (texts, _) = play("%px f()", &mut engines).await;
    assert!(texts.len() < 100, "{}", texts.len());
    assert!(texts.last().unwrap().ends_with("19999\n"));
}
