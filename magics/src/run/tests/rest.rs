//! Timing, the cluster, lists, and cells of several pieces.

use std::time::Duration;

use super::super::*;
use super::fakes::*;
use crate::event::plain;
use crate::timeit::Times;

async fn run(
    cell: &str,
    engines: &mut FakeEngines,
    notebook: &mut FakeNotebook,
) -> Result<Option<MimeBundle>, Failure> {
    Magics::new().run_cell(cell, engines, notebook).await
}

fn evaluated(text: &str, wall: Duration) -> Result<Evaluated, Failure> {
    Ok(Evaluated {
        value: Some(plain(text)),
        times: Times {
            compile: Duration::from_millis(250),
            wall,
            cpu: Some((wall, Duration::ZERO)),
        },
    })
}

#[tokio::test]
async fn pieces_run_in_their_order() {
    let mut notebook = FakeNotebook::default();
    notebook.values.push_back(Ok(Evaluated::default()));
    notebook
        .values
        .push_back(evaluated("2", Duration::from_millis(1)));
    let value = run(
        "let a = 1;\n%checkpoint off\na + 1",
        &mut FakeEngines::default(),
        &mut notebook,
    )
    .await
    .unwrap();
    assert_eq!(value, Some(plain("2")));
    assert_eq!(notebook.evaluated, ["let a = 1;\n", "\n\na + 1"]);
    assert_eq!(notebook.texts(), ["checkpoint Some(false)\n"]);
    notebook
        .values
        .push_back(Err(Failure::new("panic", "boom")));
    let error = run("f();\n%who", &mut FakeEngines::default(), &mut notebook).await;
    assert_eq!(error.unwrap_err().ename, "panic");
    assert_eq!(notebook.texts().len(), 1);
}

#[tokio::test]
async fn time_tells_the_compiler_apart() {
    for cell in ["%time f()", "%%time\nf()"] {
        let mut notebook = FakeNotebook::default();
        notebook
            .values
            .push_back(evaluated("4", Duration::from_millis(200)));
        let value = run(cell, &mut FakeEngines::default(), &mut notebook)
            .await
            .unwrap();
        assert_eq!(value, Some(plain("4")));
        assert_eq!(
            notebook.texts(),
            [
                "CPU times: user 200 ms, sys: 0 ns, total: 200 ms\nWall time: 200 ms\nCompiler : 250 ms\n"
            ]
        );
    }
    let mut notebook = FakeNotebook::default();
    let error = run(
        "%%time f()\ng()",
        &mut FakeEngines::default(),
        &mut notebook,
    )
    .await
    .unwrap_err();
    assert_eq!(
        error.evalue,
        "%%time takes only options in its line, `f()` is none of them: the code goes in the lines below."
    );
    for cell in ["%time", "%%timeit", "%timeit -n 1"] {
        let error = run(cell, &mut FakeEngines::default(), &mut notebook)
            .await
            .unwrap_err();
        assert!(
            error.evalue.contains("needs code to run"),
            "{cell}: {error:?}"
        );
    }
}

#[tokio::test]
async fn timeit_is_one_snippet() {
    let mut notebook = FakeNotebook::default();
    notebook
        .values
        .push_back(evaluated("[10, 1000000, 1000000]", Duration::from_secs(1)));
    let value = run(
        "%timeit -o -r 2 -v runs f()",
        &mut FakeEngines::default(),
        &mut notebook,
    )
    .await
    .unwrap();
    let line = "100 μs ± 0 ns per loop (mean ± std. dev. of 2 runs, 10 loops each)";
    assert_eq!(
        notebook.texts(),
        [format!("{line}\nCompiler time: 0.25 s\n")]
    );
    assert_eq!(value, Some(plain(format!("<TimeitResult : {line}>"))));
    let [snippet, bound] = notebook.evaluated.as_slice() else {
        panic!("{:?}", notebook.evaluated);
    };
    assert!(snippet.contains("black_box({ f()\n}"), "{snippet}");
    assert_eq!(bound, "let runs: Vec<f64> = vec![0.0001, 0.0001];");

    let mut notebook = FakeNotebook::default();
    notebook.values.push_back(evaluated("()", Duration::ZERO));
    let error = run(
        "%%timeit -q let a = 1\nf(a)",
        &mut FakeEngines::default(),
        &mut notebook,
    )
    .await
    .unwrap_err();
    assert!(error.evalue.contains("`()`"));
    assert!(notebook.evaluated[0].contains("loop { let a = 1; let __start"));
    assert!(notebook.evaluated[0].contains("black_box({\nf(a)\n}"));
}

#[tokio::test(start_paused = true)]
async fn the_fan_out_is_timed() {
    let slow = || FakeEngines::with(2).script(1, vec![Step::Sleep(0.3), done()]);
    let line = "300 ms ± 0 ns per loop (mean ± std. dev. of 7 runs, 1 loop each)\n";
    for cell in [
        "%timeit %px f()",
        "%%timeit\n%%px\nf()",
        "%%timeit\n%px f()",
    ] {
        let mut engines = slow();
        let mut notebook = FakeNotebook::default();
        run(cell, &mut engines, &mut notebook).await.unwrap();
        // The paused clock moves by whole milliseconds.
        let texts = notebook.texts();
        let [text] = texts.as_slice() else {
            panic!("{texts:?}")
        };
        assert!(
            text.starts_with("30") && text.ends_with(&line[line.len() - 24..]),
            "{text}"
        );
        assert_eq!(engines.executed.len(), 9, "{cell}");
        assert!(engines.executed.iter().all(|(_, _, how)| how.silent));
    }
    let mut notebook = FakeNotebook::default();
    run("%time %px -t 1 f()", &mut slow(), &mut notebook)
        .await
        .unwrap();
    assert!(
        notebook.texts()[0].starts_with("Wall time: 30"),
        "{:?}",
        notebook.texts()
    );
    let mut notebook = FakeNotebook::default();
    let mut engines = FakeEngines::with(1).script(0, vec![fails("panic", "boom")]);
    let error = run("%timeit %px f()", &mut engines, &mut notebook)
        .await
        .unwrap_err();
    assert_eq!(error.ename, "panic");
    let mut notebook = FakeNotebook::default();
    notebook.interrupt_after(1.0);
    let mut engines = FakeEngines::with(1).script(0, vec![Step::Hang]);
    let error = run("%timeit %px f()", &mut engines, &mut notebook)
        .await
        .unwrap_err();
    assert_eq!(error.ename, "interrupted");
    assert_eq!(engines.signals, [(vec![0], 2)]);
}

#[tokio::test]
async fn engines_take_no_setup() {
    let mut notebook = FakeNotebook::default();
    let mut engines = FakeEngines::with(1);
    for cell in [
        "%%timeit let a = 1;\n%px f(a)",
        "%autopx\n%%timeit let a = 1;\nf(a)",
    ] {
        let error = run(cell, &mut engines, &mut notebook).await.unwrap_err();
        assert!(error.evalue.contains("`let a = 1;`"), "{error:?}");
    }
    assert!(engines.executed.is_empty() && notebook.evaluated.is_empty());
}

#[tokio::test]
async fn clusters() {
    let mut engines = FakeEngines::default();
    let mut notebook = FakeNotebook::default();
    for cell in [
        "%cluster",
        "%cluster start -n 4",
        "%cluster scale 1",
        "%cluster restart",
        "%cluster stop",
    ] {
        run(cell, &mut engines, &mut notebook).await.unwrap();
    }
    assert_eq!(
        engines.commands,
        ["start Some(4)", "scale 1", "restart", "stop"]
    );
    assert_eq!(
        notebook.texts(),
        [
            "There is no cluster. `%cluster start [-n N]` starts one, and so does the first %px.\n",
            "Cluster \"default\" is up, 4 engines: 0-3.\n  transport ipc\n",
            "Cluster \"default\" is up, 1 engine: 0.\n  transport ipc\n",
            "Cluster \"default\" is up, 1 engine: 0.\n  transport ipc\n",
            "The cluster is stopped.\n"
        ]
    );
    for cell in ["%cluster scale 2", "%cluster stop", "%cluster restart"] {
        let error = run(cell, &mut engines, &mut notebook).await.unwrap_err();
        assert_eq!(error.ename, "no engines", "{cell}");
    }
}

#[tokio::test]
async fn lists_of_variables() {
    let variable = |name: &str, type_name: &str, summary: Option<&str>| Variable {
        name: name.to_owned(),
        type_name: type_name.to_owned(),
        summary: summary.map(str::to_owned),
    };
    let mut notebook = FakeNotebook::default();
    let mut engines = FakeEngines::default();
    run("%whos", &mut engines, &mut notebook).await.unwrap();
    notebook.variables = vec![
        variable("a", "i32", Some("1")),
        variable("counts", "std::collections::HashMap<String, usize>", None),
    ];
    for cell in ["%who", "%who HashMap", "%who f64", "%whos"] {
        run(cell, &mut engines, &mut notebook).await.unwrap();
    }
    notebook.variables.truncate(1);
    notebook.variables[0].summary = None;
    run("%whos", &mut engines, &mut notebook).await.unwrap();
    assert_eq!(
        notebook.texts(),
        [
            "Interactive namespace is empty.\n",
            "a\t counts\n",
            "counts\n",
            "No variables match your requested type.\n",
            "Variable   Type                                        Data/Info\n\
             ----------------------------------------------------------------\n\
             a          i32                                         1\n\
             counts     std::collections::HashMap<String, usize>\n",
            "Variable   Type   \n------------------\na          i32\n"
        ]
    );
}

#[tokio::test]
async fn help() {
    let mut notebook = FakeNotebook::default();
    let mut engines = FakeEngines::default();
    run("%lsmagic\n%px?", &mut engines, &mut notebook)
        .await
        .unwrap();
    let texts = notebook.texts();
    assert!(
        texts[0].contains("%timeit, %%timeit  run Rust many times"),
        "{}",
        texts[0]
    );
    assert!(texts[1].starts_with("%px [OPTIONS] CODE"), "{}", texts[1]);
    let error = run("%nothing?", &mut engines, &mut notebook).await;
    assert_eq!(error.unwrap_err().ename, "unknown magic");
}

#[test]
fn cells_that_only_ask_are_told_from_others() {
    for (cell, asks) in [
        ("%checkpoint status", true),
        ("%lsmagic\n%whos\n\n%px?", true),
        ("%px 1", false),
        ("%who\n1 + 1", false),
        ("%%time\n1", false),
        ("%nothing", false),
        ("", false),
    ] {
        assert_eq!(crate::run::only_asks(cell, &|_| true), asks, "{cell}");
    }
}
