//! Generated cells, line by line.

use super::*;
use crate::cell::{Piece, parse};
use crate::options::{parse as options, parse_around};

fn reach() -> Reach {
    Reach {
        targets: "all".to_owned(),
        progress_after: 2.0,
    }
}

fn of_cell(cell: &str) -> Code {
    match parse(cell, &|_| true).pop() {
        Some(Piece::Cell(magic)) => {
            let options = options(&magic.name, &magic.arguments.text).unwrap();
            parallel(&options, &reach(), &magic.written, &magic.body)
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_body_keeps_its_lines() {
    let code = of_cell(
        "let a = 1;\n  %%parallel --over lines --with stop,n --merge counts --into all\nlet b = 2;\n  lines.len() // all",
    );
    assert_eq!(
        code.source(),
        "\nlet all = { let chorus_result = chorus::__private::parallel(\"all\", Some(2.0)).over(&lines).with(&stop).with(&n).each(|(((), stop), n), lines| {\n\
         let b = 2;\n  lines.len() // all\n}).merge(::chorus::merge::counts); if chorus_result.is_err() { chorus::__private::stop(&chorus_result)?; } chorus::__private::value(chorus_result) };"
    );
    assert_eq!(
        code.shown().unwrap(),
        "\n  %%parallel --over lines --with stop,n --merge counts --into all\nlet b = 2;\n  lines.len() // all"
    );
    let code = of_cell("%%parallel --over xs=0..9u8 --balanced --chunks 4\nxs.len()");
    assert_eq!(
        code.source(),
        "chorus::__private::parallel(\"all\", Some(2.0)).balanced().chunks(4).over(&(0..9u8)).each(|(), xs| {\nxs.len()\n}).all()?"
    );
    let code = of_cell("%%parallel --merge f64::max\nf()");
    assert_eq!(
        code.source(),
        "chorus::__private::parallel(\"all\", Some(2.0)).once(|(), ()| {\nf()\n}).merge(f64::max)?"
    );
}

#[test]
fn variables_move() {
    let of = |method: &str, line: &str| {
        let magic = format!("%{method}");
        let code = match method {
            "push" | "scatter" => send(
                method,
                &parse_around(&magic, line).unwrap(),
                &reach(),
                &format!("{magic} {line}"),
                2,
            ),
            _ => fetch(
                method,
                &parse_around(&magic, line).unwrap(),
                &reach(),
                &format!("{magic} {line}"),
                2,
            ),
        };
        code.map(|code| (code.source(), code.shown().unwrap_or_default()))
            .map_err(|error| error.to_string())
    };
    let engines = "chorus::__private::variables(\"all\", Some(2.0))?";
    assert_eq!(
        of("push", "a, b = \"x, y\" --as c,d").unwrap(),
        (
            "\nchorus::__private::variables(\"all\", Some(2.0))?.push(\"c\", &a)?.push(\"d\", &(\"x, y\"))?;\n"
                .to_owned(),
            "\n%push a, b = \"x, y\" --as c,d\n".to_owned()
        )
    );
    assert_eq!(
        of("gather", "-t 0 a: Vec<u8>").unwrap().0,
        format!("\nlet a: Vec<u8> = {engines}.gather::<Vec<u8>>(\"a\")?;\n")
    );
    assert_eq!(
        of("pull", "a: u8, b: (u8, u8)").unwrap().0,
        format!(
            "\nlet a: Vec<u8> = {engines}.pull::<u8>(\"a\")?; let b: Vec<(u8, u8)> = {engines}.pull::<(u8, u8)>(\"b\")?;\n"
        )
    );
    assert_eq!(
        of("push", "a --as c,d").unwrap_err(),
        "%push: --as has 2 names for 1 name: write one for each"
    );
    assert_eq!(
        of("pull", "mean").unwrap_err(),
        "%pull: write the type that `mean` has on the engines: `%pull mean: f64` binds one value an engine, a `Vec<f64>`"
    );
}

#[test]
fn what_the_body_captures() {
    let cell = "%%parallel --over lines --with stop\nlines.len() // factor\n+ text.lines + factor\n+ factors.text + my_factor";
    let (code, options) = match parse(cell, &|_| true).pop() {
        Some(Piece::Cell(magic)) => (
            magic.body.clone(),
            options::<ParallelArgs>(&magic.name, &magic.arguments.text).unwrap(),
        ),
        other => panic!("{other:?}"),
    };
    let variables = ["factor", "lines", "stop", "text", "n"];
    assert_eq!(
        captured(&options, &code, variables.into_iter()),
        [(3, "factor"), (3, "text")]
    );
}
