//! `%%parallel`, `%push` and their like: what is evaluated, and what is said when it fails.

use super::super::*;
use super::fakes::*;
use crate::event::plain;

async fn run(
    cell: &str,
    engines: &mut FakeEngines,
    notebook: &mut FakeNotebook,
) -> Result<Option<MimeBundle>, Failure> {
    Magics::new().run_cell(cell, engines, notebook).await
}

fn variable(name: &str, type_name: &str) -> Variable {
    Variable {
        name: name.to_owned(),
        type_name: type_name.to_owned(),
        summary: None,
    }
}

async fn error(cell: &str, failure: Failure) -> (Failure, FakeEngines) {
    let mut engines = FakeEngines::with(2);
    let mut notebook = FakeNotebook {
        variables: vec![variable("factor", "u64"), variable("mean", "f64")],
        ..FakeNotebook::default()
    };
    notebook.values.push_back(Err(failure));
    let failure = run(cell, &mut engines, &mut notebook).await.unwrap_err();
    (failure, engines)
}

#[tokio::test]
async fn the_value_is_the_cells() {
    let mut notebook = FakeNotebook::default();
    notebook.values.push_back(Ok(Evaluated {
        value: Some(plain("42")),
        ..Evaluated::default()
    }));
    let mut engines = FakeEngines::default();
    let value = run(
        "%%parallel --over xs -t 1 --merge sum\nxs.len()",
        &mut engines,
        &mut notebook,
    );
    assert_eq!(value.await.unwrap(), Some(plain("42")));
    assert_eq!(
        notebook.evaluated,
        [
            "chorus::__private::parallel(\"1\", Some(2.0)).over(&xs).each(|(), xs| {\nxs.len()\n}).merge(::chorus::merge::sum)?"
        ]
    );
    assert_eq!(engines.commands, ["start None"]);
}

#[tokio::test]
async fn settings_hold() {
    let mut notebook = FakeNotebook::default();
    let mut magics = Magics::new();
    for cell in [
        "%pxconfig -t 0 --progress-after -1",
        "%%parallel\nf()",
        "%push a, b=2 --as x,y",
    ] {
        magics
            .run_cell(cell, &mut FakeEngines::with(2), &mut notebook)
            .await
            .unwrap();
    }
    assert_eq!(notebook.evaluated.len(), 2);
    assert!(
        notebook
            .evaluated
            .iter()
            .all(|cell| cell.contains("(\"0\", None)")),
        "{:?}",
        notebook.evaluated
    );
    assert_eq!(magics.engine_names().collect::<Vec<_>>(), ["x", "y"]);
}

#[tokio::test]
async fn failures_are_the_magics() {
    let (failure, _) = error(
        "%%parallel\nf()",
        Failure::new("error", "[engine 1] panicked: no"),
    )
    .await;
    assert_eq!(failure.ename, "parallel error");
    assert_eq!(
        failure.traceback,
        ["\x1b[1;31m%%parallel failed\x1b[0m: [engine 1] panicked: no"]
    );
    let (failure, engines) = error(
        "%%parallel -t 1\nf()",
        Failure::new("interrupted", "The cell was interrupted."),
    )
    .await;
    assert_eq!(failure.ename, "interrupted");
    assert!(engines.signals.is_empty(), "others may use the engines");
    let (failure, _) = error(
        "%%parallel --with mean\nlet a = 1;\na * factor",
        Failure::new("compile error", "can't be captured"),
    )
    .await;
    assert_eq!(
        failure.traceback[1..],
        [
            "\x1b[32m----> 3\x1b[0m a * factor",
            "`factor` is a variable of the notebook, and the body runs in other processes.",
            "If it is meant, give it to the body: `--with mean,factor`."
        ]
    );
    let (failure, _) = error(
        "%%parallel\nfactor",
        Failure::new("compile error", "mismatched types"),
    )
    .await;
    assert_eq!(failure.traceback, ["mismatched types"]);
}

#[tokio::test]
async fn wrong_lines_are_told_before_anything_runs() {
    for (cell, expected) in [
        (
            "f();\n%%parallel --ovr xs\nxs",
            "%%parallel: there is no option `--ovr`. Did you mean `--over`?",
        ),
        (
            "f();\n%%parallel --over 2x\nxs",
            "%%parallel: invalid value '2x' for '--over <NAME[=EXPR]>': `2x` is no name of a variable.",
        ),
        (
            "f();\n%%parallel --with a,b c\nxs",
            "%%parallel: `c` is one word too many.",
        ),
        (
            "f();\n%%parallel --balanced\nf()",
            "%%parallel: the following required arguments were not provided:; --over <NAME[=EXPR]>.",
        ),
        (
            "f();\n%parallel\nf()",
            "There is no magic %parallel (line 2). Did you mean %%parallel? %lsmagic lists those there are.",
        ),
        (
            "f();\n%push",
            "%push: the following required arguments were not provided:; <NAME[=EXPR],..>.",
        ),
        (
            "f();\n%push a b",
            "%push: invalid value 'a b' for '<NAME[=EXPR],..>': `a b` is no name of a variable; names have commas between them.",
        ),
        (
            "f();\n%gather a: Vec<u8> --target 0",
            "%gather: there is no option `--target`. Did you mean `--targets`?",
        ),
        (
            "%%parallel --over xs",
            "%%parallel needs code to run: write it in the lines below.",
        ),
        (
            "%pull mean",
            "%pull: write the type that `mean` has on the engines: `%pull mean: f64` binds one value an engine, a `Vec<f64>`.",
        ),
        (
            "%push a -t 9",
            "%push: there is no engine 9 (there are engines 0,1)",
        ),
    ] {
        let mut notebook = FakeNotebook::default();
        let failure = run(cell, &mut FakeEngines::with(2), &mut notebook).await;
        assert_eq!(failure.unwrap_err().evalue, expected, "{cell}");
        assert_eq!(notebook.evaluated, [""; 0], "{cell}");
    }
}

#[tokio::test]
async fn it_can_be_timed() {
    let mut notebook = FakeNotebook::default();
    notebook.values.push_back(Ok(Evaluated {
        value: Some(plain("42")),
        times: crate::timeit::Times {
            wall: std::time::Duration::from_millis(200),
            ..Default::default()
        },
    }));
    let value = run(
        "%%time\n%%parallel --over xs\nxs.len()",
        &mut FakeEngines::with(2),
        &mut notebook,
    )
    .await;
    assert_eq!(value.unwrap(), Some(plain("42")));
    assert!(
        notebook.evaluated[0].starts_with("\nchorus::__private::parallel"),
        "{:?}",
        notebook.evaluated
    );
    assert!(
        notebook.texts()[0].contains("Wall time: 200 ms"),
        "{:?}",
        notebook.texts()
    );
}

#[test]
fn everything_is_in_the_table() {
    for name in ["%%parallel", "%push", "%pull", "%scatter", "%gather"] {
        assert!(crate::table::list().contains(name), "{name}");
        let help = crate::table::help(&format!("{name}?")).unwrap();
        assert!(help.contains("--targets"), "{help}");
    }
}
