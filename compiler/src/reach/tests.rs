//! What is reached, by tables; `tests/python/test_growth.py` compares outcomes on random notebooks.

use super::*;
use crate::statements::statements;

/// A namespace after some cells; `a: T` is a variable.
fn namespace(cells: &[&str], variables: &[(&str, &str)]) -> Summary {
    let mut summary = Summary::default();
    for cell in cells {
        let kinds = variables
            .iter()
            .map(|(name, kind)| (name.to_string(), kind.to_string()));
        summary.apply(&statements(cell), kinds.collect());
    }
    summary
}

/// What a cell is shown, in order.
fn shown(summary: &Summary, cell: &str) -> Vec<String> {
    let found = statements(cell);
    let reach = Reach::search(summary, &found, []);
    let text = reach.before(cell, &found, "").text;
    let text = text.strip_suffix(cell).unwrap().replace(MARKERS, "");
    text.lines().map(str::to_owned).collect()
}

const CELLS: &[&str] = &[
    "use std::fmt;",
    "use std::io::Read as _;",
    "struct P { x: f64 }\nimpl P { fn norm(&self) -> f64 { half(self.x) } }",
    "impl fmt::Display for P { fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result { Ok(()) } }",
    "fn half(x: f64) -> f64 { x / HALF }",
    "const HALF: f64 = 2.0;",
    "trait Area { fn area(&self) -> f64; }",
    "impl Area for P { fn area(&self) -> f64 { 1.0 } }",
    "impl Area for u8 { fn area(&self) -> f64 { 2.0 } }",
    "fn unit() -> P { P { x: 1.0 } }",
    "mod shapes { pub struct Disk; pub trait Round { fn roll(&self) {} } }",
    "use shapes::Disk;",
    "impl fmt::Debug for Disk { fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result { Ok(()) } }",
    "macro_rules! make { () => { unit() } }",
    "fn alone() {}",
];

#[test]
fn what_is_mentioned_is_reached() {
    let summary = namespace(CELLS, &[("p", "P"), ("n", "u8"), ("r#type", "Vec<u8>")]);
    let always = [CELLS[1], "use shapes::Disk;", "use std::fmt;", CELLS[13]];
    let p = [
        "const HALF",
        "struct P",
        "impl P",
        "fn half",
        "impl fmt::Display for P",
    ];
    let shapes = ["impl fmt::Debug for Disk", "mod shapes"];
    let area = ["trait Area", "impl Area for P", "impl Area for u8"];
    for (cell, expected) in [
        ("1 + 1", vec![]),
        ("alone()", vec!["fn alone"]),
        ("x.alone", vec![]),
        ("n + 1", vec!["let n"]),
        ("println!(\"{n}\")", vec!["let n"]),
        ("r#type.len()", vec!["let r#type"]),
        ("half(1.0)", vec!["const HALF", "fn half"]),
        ("fn g() { n }", vec![]),
        ("n.area()", [&area[..], &p, &["let n"]].concat()),
        (
            "unit()",
            [
                &["fn unit"],
                &p[..],
                &["impl Area for P", "trait Area", "impl Area for u8"],
            ]
            .concat(),
        ),
        (
            "make!()",
            [
                &["fn unit"],
                &p[..],
                &["impl Area for P", "trait Area", "impl Area for u8"],
            ]
            .concat(),
        ),
    ] {
        let mut expected: Vec<&str> = expected.into_iter().chain(shapes).collect();
        let found: Vec<String> = shown(&summary, cell)
            .into_iter()
            .filter(|line| !always.contains(&&**line))
            .collect();
        let mut found: Vec<&str> = found.iter().map(String::as_str).collect();
        expected.sort_unstable();
        found.sort_unstable();
        let fits = expected.len() == found.len()
            && found
                .iter()
                .zip(&expected)
                .all(|(found, expected)| found.starts_with(expected));
        assert!(fits, "{cell}: {found:#?}\nexpected {expected:#?}");
        for line in always {
            assert!(
                shown(&summary, cell).iter().any(|shown| shown == line),
                "{line}"
            );
        }
    }
}

#[test]
fn what_is_defined_anew_is_checked_with_its_users() {
    let summary = namespace(CELLS, &[]);
    let users = |cell: &str| {
        let shown = shown(&summary, cell);
        [
            "struct P",
            "fn half",
            "impl P",
            "fn unit",
            "impl Area for u8",
        ]
        .map(|start| shown.iter().any(|line| line.starts_with(start)))
    };
    // A function with another signature is checked with what calls it, and what calls that.
    assert_eq!(
        users("fn half(x: f32) -> f32 { x }"),
        [true, false, true, true, true]
    );
    assert_eq!(users("fn half(x: f64) -> f64 { x * 0.5 }"), [false; 5]);
    assert_eq!(users("const HALF: f64 = 3.0;"), [true; 5]);
    // A type of a new name may hide one that was not of the notebook.
    assert_eq!(users("struct Formatter;"), [false; 5]);
    assert_eq!(users("trait Area {}"), [true, true, true, true, true]);
    assert_eq!(
        users("struct P { x: f32 }"),
        [false, false, false, true, true]
    );
    // Nothing has changed.
    assert_eq!(users("const HALF: f64 = 2.0;"), [false; 5]);
}

#[test]
fn names_that_rustc_would_suggest() {
    for (one, other, similar) in [
        ("count", "cuont", true),
        ("n", "m", true),
        ("Total", "total", true),
        ("of_words_number", "number_of_words", true),
        ("count", "total", false),
        ("ab", "cd", false),
    ] {
        assert_eq!(is_similar(one, other), similar, "{one} {other}");
    }
}

#[test]
fn markers_say_what_becomes_of_variables() {
    let mut summary = namespace(&[], &[]);
    summary.apply(
        &statements("let mut a = 1; let b = 2;"),
        [("a", "i32"), ("b", "i32")]
            .map(|(name, kind)| (name.to_owned(), kind.to_owned()))
            .into(),
    );
    let cell = ":dep x\n// note\nlet b = a + b;";
    let found = statements(cell);
    let preceded = Reach::of(&summary, &found, []).before(cell, &found, "");
    assert_eq!(
        preceded.text,
        format!(
            ":dep x\n// note\n{MARKERS}let mut a: i32 = chorus_carried();\nlet b: i32 = chorus_rebound();\nlet b = a + b;"
        )
    );
    let added = preceded.added;
    assert_eq!(
        [1, 2, 3, 8, 9, 10].map(|line| added.own_line(line)),
        [Some(1), Some(2), None, None, Some(3), Some(4)]
    );
    for own in [0, 14, 15, 20] {
        assert_eq!(added.own_byte(added.byte(own)), own);
    }
    assert_eq!(
        preceded.text.as_bytes()[added.byte(15)],
        cell.as_bytes()[15]
    );
}

#[test]
fn what_is_replaced_unseen_stays_in_the_store() {
    let mut summary = namespace(&[], &[]);
    summary.apply(
        &statements("let a = 1;"),
        [("a".to_owned(), "i32".to_owned())].into(),
    );
    for (cell, is_loaded) in [
        ("let a = f()?;", false),
        ("let a = f(\"a\")?;", false),
        ("let (a, b) = f()?;", false),
        ("let a = a + 1;", true),
        ("let a = format!(\"{a}\");", true),
        ("println!(\"{}\", a); let a = 2;", true),
        ("let a = 2; a + 1", false),
    ] {
        let found = statements(cell);
        let text = Reach::of(&summary, &found, [])
            .before(cell, &found, "")
            .text;
        assert_eq!(text.contains("let a: i32"), is_loaded, "{cell}");
    }
}

#[test]
fn a_grown_namespace_is_searched_quickly() {
    let cells: Vec<String> = (0..2000)
        .map(|n| format!("struct S{n}(u8);\nimpl S{n} {{ fn get(&self) -> u8 {{ self.0 }} }}\nfn make{n}() -> S{n} {{ S{n}(1) }}"))
        .collect();
    let cells: Vec<&str> = cells.iter().map(String::as_str).collect();
    let summary = namespace(&cells, &[]);
    let began = std::time::Instant::now();
    assert_eq!(shown(&summary, "make7()").len(), 3);
    println!("{:?}", began.elapsed());
}

/// A random cell: a definition, often one that was there before in another form, or something that runs.
fn random_cell(random: &mut fastrand::Rng) -> String {
    let mut name = |kind: &str| format!("{kind}{}", random.u8(..3));
    let [s, other, t, f, g, c, m, e] = ["S", "S", "T", "f", "f", "C", "m", "E"].map(&mut name);
    let kind = name("u").replace('u', "").parse::<usize>().unwrap();
    let number = ["u8", "i64", "f32"][kind];
    let cells = [
        format!("#[derive(Clone, Debug, Default)] struct {s} {{ x: {number} }}"),
        format!(
            "#[derive(Clone, Debug, Default)] struct {s} {{ x: {number} }} impl {s} {{ fn get(&self) -> {number} {{ self.x }} }}"
        ),
        format!(
            "#[derive(Clone, Debug, Default)] struct {s} {{ x: {number}, inner: Option<Box<{other}>> }}"
        ),
        format!(
            "impl {s} {{ fn more{kind}(&self) -> String {{ format!(\"{{:?}} {{}}\", self, {c}) }} }}"
        ),
        format!("trait {t} {{ fn name{t}(&self) -> {number} {{ 1 as {number} }} }}"),
        format!("trait {t} {{ fn name{t}(&self) -> {number}; }}"),
        format!("impl {t} for {s} {{ fn name{t}(&self) -> {number} {{ 2 as {number} }} }}"),
        format!("impl {t} for {number} {{}}"),
        format!("impl<X: std::fmt::Debug> {t} for Vec<X> {{}}"),
        format!(
            "impl From<{s}> for {number} {{ fn from(s: {s}) -> {number} {{ s.x as {number} }} }}"
        ),
        format!(
            "impl std::ops::Add for {s} {{ type Output = {number}; fn add(self, other: {s}) -> {number} {{ (self.x + other.x) as {number} }} }}"
        ),
        format!("impl Drop for {s} {{ fn drop(&mut self) {{ println!(\"drop {s}\"); }} }}"),
        format!("fn {f}(n: {number}) -> {number} {{ n + {c} as {number} }}"),
        format!(
            "fn {f}(n: {number}) -> {number} {{ {g}2(n) }} fn {g}2(n: {number}) -> {number} {{ n }}"
        ),
        format!("fn {f}(n: {number}) -> {s} {{ let mut s = {s}::default(); s.x = n as _; s }}"),
        format!("fn {f}(n: {number}) -> impl std::fmt::Debug {{ {g}(n) }}"),
        format!("fn {f}<X: {t}>(x: &X) -> String {{ format!(\"{{}}\", x.name{t}()) }}"),
        format!("const {c}: {number} = 3 as {number};"),
        format!("const {c}: usize = 2;"),
        format!("static {c}: {number} = 4 as {number};"),
        format!("macro_rules! {m} {{ ($x:expr) => {{ {f}($x) }} }}"),
        format!(
            "macro_rules! {m} {{ ($x:expr) => {{ {s} {{ x: $x as _, ..Default::default() }} }} }}"
        ),
        format!("enum {e} {{ A, B({number}) }} use {e}::*;"),
        format!("#[derive(Debug)] enum {e} {{ A{kind}, B }}"),
        format!("use {e}::A{kind};"),
        format!(
            "mod {m} {{ pub fn {f}() -> {number} {{ 5 as {number} }} pub trait Deep {{ fn deep(&self) -> u8 {{ 9 }} }} impl Deep for {number} {{}} }}"
        ),
        format!("use {m}::Deep as _;"),
        format!("use {m}::{f};"),
        format!("type {t}Alias = {s};"),
        format!("impl Drop for {t}Alias {{ fn drop(&mut self) {{ println!(\"alias\"); }} }}"),
        format!("fn {f}(n: {t}Alias) -> {number} {{ n.x as {number} }}"),
        "struct String;".to_owned(),
        "use std::fmt::Write;".to_owned(),
        format!("println!(\"{{:?}}\", {f}(1 as {number}))"),
        format!("println!(\"{{:?}}\", {m}!(1))"),
        format!("println!(\"{{:?}}\", {s}::default())"),
        format!("println!(\"{{:?}}\", {s}::default().get())"),
        format!("println!(\"{{}}\", {s}::default().more{kind}())"),
        format!("println!(\"{{:?}}\", (1 as {number}).name{t}())"),
        format!("println!(\"{{:?}}\", vec![{s}::default()].name{t}())"),
        format!("println!(\"{{:?}}\", {number}::from({s}::default()))"),
        format!("println!(\"{{:?}}\", {s}::default() + {s}::default())"),
        format!("println!(\"{{}}\", (7 as {number}).deep())"),
        format!("println!(\"{{:?}}\", A{kind})"),
        format!("println!(\"{{:?}}\", [0u8; {c} as usize])"),
        format!("let s: {t}Alias = Default::default(); println!(\"{{s:?}} {{}}\", {f}(s.clone()))"),
        format!("fn {f}() {{}} {f}()"),
    ];
    random.choice(cells).unwrap()
}

/// What a cell prints, or the codes of its errors.
fn outcome(
    folder: &std::path::Path,
    name: &str,
    text: &str,
    found: &[Statement],
) -> Result<String, Vec<String>> {
    use std::process::Command;
    // What runs goes into a function, as with evcxr.
    let code = code_start(text);
    let (mut items, mut body) = (String::new(), String::new());
    for statement in statements(&text[code..]) {
        let is_code = statement.runs();
        let target = if is_code { &mut body } else { &mut items };
        target.push_str(&statement.text());
        target.push('\n');
    }
    let macros: Vec<Macro> = macros(&statements(text)).collect();
    let items = rewrite::importing(&items, &macros);
    let source = folder.join(format!("{name}.rs"));
    let program = folder.join(name);
    std::fs::write(
        &source,
        format!("#![allow(warnings)]\n{items}\nfn main() {{\n{body}\n}}\n"),
    )
    .unwrap();
    let emit = match found.iter().any(Statement::runs) {
        true => "link",
        false => "metadata",
    };
    let compiled = Command::new("rustc")
        .args(["--edition=2024", "--error-format=short", "-Copt-level=0"])
        .arg(format!("--emit={emit}"))
        .arg("-o")
        .arg(&program)
        .arg(&source)
        .output()
        .unwrap();
    if compiled.status.success() {
        if emit == "metadata" {
            return Ok(String::new());
        }
        let ran = Command::new(&program).output().unwrap();
        return Ok(String::from_utf8_lossy(&ran.stdout).into_owned());
    }
    let errors = String::from_utf8_lossy(&compiled.stderr);
    let mut codes: Vec<String> = errors
        .lines()
        .filter_map(|line| Some(line.split_once("error")?.1.to_owned()))
        .filter(|line| !line.contains("aborting"))
        .collect();
    codes.sort();
    Err(codes)
}

/// In random notebooks, a cell with what it reaches does the same as one with everything. Where it doesn't compile, everything is tried.
#[test]
fn what_is_left_out_makes_no_difference() {
    let folder = tempfile::tempdir().unwrap();
    let seed = std::env::var("CHORUS_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
        .unwrap_or(13);
    let rounds = std::env::var("CHORUS_ROUNDS")
        .ok()
        .and_then(|rounds| rounds.parse().ok())
        .unwrap_or(120);
    let mut random = fastrand::Rng::with_seed(seed);
    let mut summary = Summary::default();
    let mut cells: Vec<String> = Vec::new();
    let (mut ran, mut left_out) = (0, 0);
    for _ in 0..rounds {
        if cells.len() > 25 {
            summary = Summary::default();
            cells.clear();
        }
        let cell = random_cell(&mut random);
        let found = statements(&cell);
        let reach = Reach::search(&summary, &found, []);
        let everything = Reach::everything(&summary, &found);
        let whole = outcome(
            folder.path(),
            "whole",
            &everything.before(&cell, &found, "").text,
            &found,
        );
        if !reach.everything {
            left_out += 1;
            let pruned = outcome(
                folder.path(),
                "pruned",
                &reach.before(&cell, &found, "").text,
                &found,
            );
            // It would be compiled again with everything.
            if pruned.is_ok() || whole.is_ok() {
                assert_eq!(pruned, whole, "seed {seed}: {cell}\nafter {cells:#?}");
            }
        }
        if whole.is_ok() {
            ran += 1;
            summary.apply(&found, BTreeMap::new());
            cells.push(cell);
        }
    }
    assert!(
        ran > rounds / 5 && left_out > rounds / 5,
        "{ran} {left_out}"
    );
}
