//! Cells that magics write: those that must compile, and those that must not.
//!
//! The programs are made from the cells below; `CHORUS_UPDATE_CELLS=1` writes them anew. `tests/tests/refused.rs` has rustc compile them
//! against the crate `chorus`.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests are no tests to the linter"
)]

use magics::cell::{Piece, parse};
use magics::generate::{Reach, fetch, parallel, send};
use magics::options::{parse as options, parse_around};
use std::fmt::Write;
use std::path::Path;

/// Name, and the cell.
type Case = (&'static str, &'static str);

/// What the notebook has before each cell, as variables.
const VARIABLES: &str = "\
    let lines: Vec<String> = vec![\"a b a\".to_owned()];\n\
    let stop: HashSet<String> = HashSet::new();\n\
    let numbers: [f64; 4] = [1.0, 2.0, 3.0, 4.0];\n\
    let samples = 0..1000u64;\n\
    let factor = 3u64;\n\
    let text = String::from(\"some text\");\n\
    let points: Vec<Point> = Vec::new();\n\
    let local: Vec<Local> = Vec::new();\n\
    let slice: &'static [u8] = b\"bytes\";\n\
    let shared = Rc::new(1);\n\
    let _ = (&lines, &stop, &numbers, &samples, &factor, &text, &points, &local, &slice, &shared);\n";

/// And as items.
const ITEMS: &str = "\
#![allow(warnings)]
use chorus::serde::{Deserialize, Serialize};
use std::collections::*;
use std::rc::Rc;

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(crate = \"chorus::serde\")]
struct Point {
    x: f64,
}

#[derive(Debug)]
struct Local(u8);

const LIMIT: u64 = 10;

fn square(n: u64) -> u64 {
    n * n
}

fn larger(a: Point, b: Point) -> Point {
    if a.x > b.x { a } else { b }
}
";

const ACCEPTED: &[Case] = &[
    (
        "word_count",
        "%%parallel --over lines --with stop --merge counts --into total\n\
         let mut counts = HashMap::new();\n\
         for word in lines.iter().flat_map(|line| line.split(' ')).filter(|word| !stop.contains(*word)) {\n    \
             *counts.entry(word.to_owned()).or_insert(0u64) += 1;\n\
         }\n\
         counts",
    ),
    (
        "sum_of_a_range",
        "%%parallel --over samples --merge sum\nsamples.map(square).sum::<u64>()",
    ),
    (
        "inclusive_range",
        "%%parallel --over n=1..=6u8\nn.map(u32::from).sum::<u32>()",
    ),
    (
        "array",
        "%%parallel --over numbers --merge concat\nnumbers.iter().map(|x| x * x).collect::<Vec<f64>>()",
    ),
    ("slice", "%%parallel --over slice --merge sum\nslice.len()"),
    (
        "owned_parts",
        "%%parallel --over lines --merge concat\nlines.into_iter().map(|line| line + \"!\").collect::<Vec<_>>()",
    ),
    (
        "all_results",
        "%%parallel --over lines --into lengths\nlines.len()",
    ),
    (
        "two_shared",
        "%%parallel --over samples --with factor,text --merge sum\nsamples.map(|n| n * factor + text.len() as u64).sum::<u64>()",
    ),
    (
        "shared_twice",
        "%%parallel --over samples --with factor --with text\n(*factor, text.clone())",
    ),
    (
        "shared_expression",
        "%%parallel --over samples --with 'most=factor + 1, half=numbers.len() / 2'\nsamples.end.min(*most) + *half as u64",
    ),
    (
        "user_function",
        "%%parallel --over points --merge larger\npoints.into_iter().reduce(larger).unwrap_or(Point { x: 0.0 })",
    ),
    (
        "closure_merge",
        "%%parallel --over numbers --merge '|a: f64, b| a.max(b)'\nnumbers.into_iter().fold(f64::MIN, f64::max)",
    ),
    (
        "path_merge",
        "%%parallel --over samples --merge std::cmp::max\nsamples.max().unwrap_or_default()",
    ),
    (
        "capturing_merge",
        "%%parallel --over samples --merge '|a, b| a + b * factor'\nsamples.sum::<u64>()",
    ),
    (
        "balanced",
        "%%parallel --over samples --balanced --chunks 16 --merge sum -t ::2\nsamples.map(square).map(|n| n % LIMIT).sum::<u64>()",
    ),
    ("everywhere", "%%parallel\nstd::process::id()"),
    (
        "everywhere_shared",
        "%%parallel --with text --merge concat\nvec![text.len()]",
    ),
    (
        "nothing",
        "%%parallel --over lines\nfor line in &lines {\n    println!(\"{line}\");\n}",
    ),
    (
        "items_in_the_body",
        "%%parallel --over samples\nuse std::fmt::Write as _;\nfn half(n: u64) -> u64 { n / 2 }\nsamples.map(half).collect::<VecDeque<_>>() // all",
    ),
    (
        "question_mark",
        "%%parallel --over lines\nlet read = || -> Result<u64, std::num::ParseIntError> { lines[0].parse::<u64>()?.checked_add(1).map_or(Ok(0), Ok) };\nread().map_err(|error| error.to_string())",
    ),
    (
        "early_return",
        "%%parallel --over lines --merge sum\nif lines.is_empty() {\n    return 0;\n}\nlines.len()",
    ),
    (
        "concat_texts",
        "%%parallel --over lines --merge concat\nlines.join(\"\\n\")",
    ),
    ("push", "%push lines, n = factor + 1, points -t 0"),
    ("push_renamed", "%push lines --as other"),
    ("scatter", "%scatter numbers, slice, parts = vec![1, 2, 3]"),
    ("pull", "%pull mean: f64, seen: HashMap<String, Vec<u64>>"),
    ("pull_renamed", "%pull -t 1 mean: f64 --as means"),
    ("gather", "%gather points: Vec<Point>"),
];

const REFUSED: &[Case] = &[
    (
        "no_such_variable",
        "%%parallel --over liens --merge sum\nliens.len()",
    ),
    ("not_cut", "%%parallel --over factor --merge sum\nfactor"),
    ("set", "%%parallel --over stop\nstop.len()"),
    ("local_items", "%%parallel --over local\nlocal.len()"),
    (
        "local_shared",
        "%%parallel --over lines --with shared\nlines.len() + **shared",
    ),
    (
        "local_result",
        "%%parallel --over lines\nLocal(lines.len() as u8)",
    ),
    (
        "captured",
        "%%parallel --over samples --merge sum\nsamples.map(|n| n * factor).sum::<u64>()",
    ),
    (
        "captured_by_move",
        "%%parallel --over samples\nlet own = text;\nown.len()",
    ),
    (
        "error_in_body",
        "%%parallel --over lines --merge sum\nlet n: u32 = lines.len();\nn",
    ),
    (
        "no_merge_of_that_name",
        "%%parallel --over lines --merge smu\nlines.len()",
    ),
    (
        "merge_of_another_type",
        "%%parallel --over lines --merge larger\nlines.len()",
    ),
    (
        "sum_of_maps",
        "%%parallel --over lines --merge sum\nHashMap::from([(lines.len(), 1)])",
    ),
    (
        "counts_of_numbers",
        "%%parallel --over lines --merge counts\nlines.len()",
    ),
    (
        "concat_of_numbers",
        "%%parallel --over lines --merge concat\nlines.len()",
    ),
    (
        "twice_the_name",
        "%%parallel --over lines --with lines\nlines.len()",
    ),
    ("push_what_is_not_there", "%push liens"),
    ("push_local", "%push local"),
    ("scatter_a_number", "%scatter factor"),
    ("gather_a_number", "%gather n: u64"),
    ("pull_of_no_type", "%pull n: u46"),
];

/// What the notebook compiles of a cell.
fn generated(cell: &str) -> String {
    let reach = Reach {
        targets: "all".to_owned(),
        progress_after: 2.0,
    };
    match parse(cell, &|_| true).as_slice() {
        [Piece::Cell(magic)] => {
            let options = options(&magic.name, &magic.arguments.text).unwrap();
            parallel(&options, &reach, &magic.written, &magic.body).source()
        }
        [Piece::Line(magic)] => {
            let (method, line) = (
                magic.name.trim_start_matches('%'),
                magic.arguments.text.as_str(),
            );
            let code = match method {
                "push" | "scatter" => send(
                    method,
                    &parse_around(&magic.name, line).unwrap(),
                    &reach,
                    &magic.written,
                    1,
                ),
                _ => fetch(
                    method,
                    &parse_around(&magic.name, line).unwrap(),
                    &reach,
                    &magic.written,
                    1,
                ),
            };
            code.unwrap().source()
        }
        pieces => panic!("{pieces:?}"),
    }
}

/// A function with the cell in it, as evcxr makes one: its value is shown.
fn function(name: &str, cell: &str) -> String {
    format!(
        "\nfn {name}() -> Result<(), Box<dyn std::error::Error>> {{\n{VARIABLES}let shown = {{\n{}\n}};\nshow(&shown);\nOk(())\n}}\n",
        generated(cell)
    )
}

const SHOW: &str = "\nfn show<T: std::fmt::Debug>(_: &T) {}\n";

fn check(path: &Path, program: &str) {
    if std::env::var_os("CHORUS_UPDATE_CELLS").is_some() {
        std::fs::write(path, program).unwrap();
    }
    let kept = std::fs::read_to_string(path).unwrap_or_default();
    assert_eq!(
        kept,
        program,
        "{} is not what the magic writes",
        path.display()
    );
}

#[test]
fn the_programs_are_what_magics_write() {
    let folder = Path::new("../tests/tests");
    let mut accepted = format!("//! Generated by `magics/tests/cells.rs`.\n\n{ITEMS}{SHOW}");
    let mut calls = String::new();
    for (name, cell) in ACCEPTED {
        accepted.push_str(&function(name, cell));
        writeln!(calls, "    let _ = {name}();").unwrap();
    }
    write!(accepted, "\nfn main() {{\n{calls}}}\n").unwrap();
    check(&folder.join("accepted/magics.rs"), &accepted);
    for (name, cell) in REFUSED {
        let program = format!(
            "//! Generated by `magics/tests/cells.rs`.\n\n{ITEMS}{SHOW}{}\nfn main() {{\n    let _ = cell();\n}}\n",
            function("cell", cell)
        );
        check(
            &folder.join("refused/magics").join(format!("{name}.rs")),
            &program,
        );
    }
}
