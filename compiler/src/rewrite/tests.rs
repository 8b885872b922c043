//! The rewriting of sources shaped as evcxr 0.22.0 shapes them.

use super::*;

fn style(macros: &[Macro]) -> Style<'_> {
    static NONE: BTreeMap<String, String> = BTreeMap::new();
    Style {
        display: false,
        macros,
        traits: &NONE,
    }
}

const STORE: &str = "mod evcxr_internal_runtime {
pub struct VariableStore {
}

impl VariableStore {
}

pub fn create_variable_store() -> *mut VariableStore {
    Box::into_raw(Box::new(VariableStore::new()))
}
}
";

const ENTRY_LINES: &str = "#[unsafe(no_mangle)]
pub extern \"C\" fn run_user_code_13(
mut evcxr_variable_store: *mut evcxr_internal_runtime::VariableStore)
  -> *mut evcxr_internal_runtime::VariableStore {
{let mut vars_ok = true;
if !vars_ok {return evcxr_variable_store;}}
match std::panic::catch_unwind(
  std::panic::AssertUnwindSafe(||{
let it: Vec<i32> = chorus_carried();
let mut r#type: Box<dyn Fn() -> u8> = chorus_rebound();
";

const TAIL: &str = "evcxr_variable_store.put_variable::<Vec<i32>>(stringify!(it), it);
evcxr_variable_store.put_variable::<String>(stringify!(r#type), r#type);
evcxr_variable_store.put_variable::<usize>(stringify!(q), q);
})) { 
  Ok(_) => {}
  Err(_) => {
    println!(\"EVCXR_PANIC_NOTIFICATION\");
}}
evcxr_variable_store
}
";

fn source(user: &str) -> String {
    format!("#![allow(dead_code)]\n{STORE}{ENTRY_LINES}{user}{TAIL}")
}

fn line_of(text: &str, start: &str) -> usize {
    text.lines()
        .position(|line| line.starts_with(start))
        .unwrap()
}

#[test]
fn variables_are_loaded_before_and_carried_ones_stored_after() {
    let source = source("let r#type = 1; let q = it.len();\n");
    let rewritten = rewrite(&source, &style(&[])).unwrap();
    let out = &rewritten.source;
    assert_eq!(out.lines().count(), source.lines().count());
    assert!(out.contains("fn chorus_entry("));
    assert!(!out.contains("EVCXR_PANIC_NOTIFICATION"));
    assert!(!out.contains("pub struct VariableStore"));
    assert!(!out.contains("chorus_carried") && !out.contains("chorus_rebound"));
    let line = |start| out.lines().nth(line_of(out, start)).unwrap();
    assert_eq!(
        line("{let mut"),
        "{let mut vars_ok = true; \
         vars_ok &= evcxr_variable_store.check_variable::<Vec<i32>>(stringify!(it)); \
         vars_ok &= evcxr_variable_store.check_variable::<Box<dyn Fn() -> u8>>(stringify!(r#type)); "
    );
    assert_eq!(
        line("if !vars_ok"),
        "if !vars_ok {return evcxr_variable_store;}} \
         let it = evcxr_variable_store.take_variable::<Vec<i32>>(stringify!(it)); \
         let mut r#type = evcxr_variable_store.take_variable::<Box<dyn Fn() -> u8>>(stringify!(r#type));"
    );
    for same in [
        "let r#type = 1;",
        "evcxr_variable_store.put_variable::<String>",
    ] {
        assert_eq!(line_of(&source, same), line_of(out, same));
    }
    assert_eq!(
        out.lines().rev().nth(1),
        Some(
            "evcxr_variable_store.put_variable::<Vec<i32>>(stringify!(it), it); evcxr_variable_store"
        )
    );
    let stored: Vec<(&str, &str, bool)> = stored(out)
        .map(|stored| (stored.name, stored.kind, stored.is_carried))
        .collect();
    assert_eq!(
        stored,
        [
            ("r#type", "String", false),
            ("q", "usize", false),
            ("it", "Vec<i32>", true),
        ]
    );
    assert_eq!(rewritten.body, Body::Runs { catches: true });
}

#[test]
fn an_error_at_a_store_that_moved_is_where_evcxr_put_it() {
    let source = source("drop(it);\n");
    let rewritten = rewrite(&source, &style(&[])).unwrap();
    let from = line_of(&source, "evcxr_variable_store.put_variable::<Vec") + 1;
    let to = rewritten.source.lines().count() - 1;
    let error = |line: usize, column: usize| {
        let span =
            format!("{{\"line_start\":{line},\"line_end\":{line},\"column_start\":{column}}}");
        let error = format!("{{\"spans\":[{span}],\"children\":[{{\"spans\":[{span}]}}]}}");
        let told: Value = serde_json::from_str(&rewritten.relocate(&error)).unwrap();
        assert_eq!(told["spans"], told["children"][0]["spans"]);
        told["spans"][0]["line_start"].as_u64().unwrap() as usize
    };
    assert_eq!(error(to, 67), from);
    assert_eq!(error(to, 90), to);
    assert_eq!(error(7, 67), 7);
    assert_eq!(rewritten.relocate("no error"), "no error");
}

#[test]
fn what_the_user_prints_stays() {
    let user = "    println!(\"EVCXR_PANIC_NOTIFICATION\");\nmod evcxr_internal_runtime {\n}\n";
    let out = rewrite(&source(user), &style(&[])).unwrap();
    assert!(out.source.contains(user));
    assert_eq!(
        out.source
            .matches("evcxr_internal_runtime::panicked();")
            .count(),
        1
    );
}

#[test]
fn an_early_return_is_told_by_a_call() {
    let conversion = "
            struct EvcxrUserCodeError {}
            impl<T: std::fmt::Debug> From<T> for EvcxrUserCodeError {
                fn from(error: T) -> Self {
                    eprintln!(\"{:?}\", error);
                    println!(\"{}\", evcxr_internal_runtime::USER_ERROR_OCCURRED);
                    EvcxrUserCodeError {}
                }
            }
";
    let source = format!("#![allow(dead_code)]\n{conversion}{STORE}{ENTRY_LINES}a()?;\n{TAIL}");
    let out = rewrite(&source, &style(&[])).unwrap().source;
    assert_eq!(out.lines().count(), source.lines().count());
    assert!(out.contains("::chorus_support::error_returned(&format!(\"{:?}\", error));"));
    assert!(!out.contains("USER_ERROR_OCCURRED"));
}

#[test]
fn source_for_analysis_is_left_alone() {
    assert_eq!(
        rewrite("fn evcxr_analysis_wrapper() {}\n", &style(&[])),
        None
    );
}

#[test]
fn a_macro_is_known_before_its_definition() {
    let text = "macro_rules! twice { ($x:expr) => {\n    $x + $x // once more\n} }";
    let items = format!("fn four() -> u8 {{ twice!(2) }}\n{text} // note\n");
    let source = items + &source("four();\n");
    let twice = Macro {
        name: "twice".to_owned(),
        text: text.to_owned(),
    };
    let out = rewrite(&source, &style(std::slice::from_ref(&twice)))
        .unwrap()
        .source;
    assert!(out.contains("} } pub(crate) use twice; // note\n"));
    let exported = Macro {
        text: format!("#[macro_export] {text}"),
        ..twice
    };
    let out = rewrite(&source, &style(&[exported])).unwrap().source;
    assert!(!out.contains("use twice"));
}

#[test]
fn variables_that_are_all_moved_are_loaded() {
    let source = "#[unsafe(no_mangle)]
pub extern \"C\" fn run_user_code_2(
evcxr_variable_store: *mut u8) -> *mut u8 {
if std::panic::catch_unwind(||{
let it: Vec<i32> = chorus_carried();
drop(it);
}).is_err() {
    println!(\"EVCXR_PANIC_NOTIFICATION\");
}
evcxr_variable_store
}
";
    let out = rewrite(source, &style(&[])).unwrap().source;
    assert_eq!(out.lines().count(), source.lines().count());
    let line = |start| out.lines().nth(line_of(&out, start)).unwrap();
    let header = line("mut evcxr_variable_store");
    assert!(
        header.contains("let it = evcxr_variable_store.take_variable::<Vec<i32>>(stringify!(it));")
    );
    assert_eq!(
        line("if evcxr_internal_runtime::catch"),
        "if evcxr_internal_runtime::catch_unwind(::std::panic::AssertUnwindSafe(||{"
    );
    assert_eq!(line("}))"), "})).is_err() {");
    let without = source.replace("let it: Vec<i32> = chorus_carried();", "");
    assert!(
        rewrite(&without, &style(&[]))
            .unwrap()
            .source
            .contains("if evcxr_internal_runtime::catch_unwind(||{")
    );
}
