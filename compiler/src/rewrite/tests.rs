//! The rewriting of sources shaped as evcxr 0.22.0 shapes them.

use super::*;

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
vars_ok &= evcxr_variable_store.check_variable::<Vec<i32>>(stringify!(it));
vars_ok &= evcxr_variable_store.check_variable::<String>(stringify!(r#type));
if !vars_ok {return evcxr_variable_store;}}
let it = evcxr_variable_store.take_variable::<Vec<i32>>(stringify!(it));
let mut r#type = evcxr_variable_store.take_variable::<String>(stringify!(r#type));
match std::panic::catch_unwind(
  std::panic::AssertUnwindSafe(||{
";

const TAIL: &str = "evcxr_variable_store.put_variable::<usize>(stringify!(q), q);
})) { 
  Ok(_) => {}
  Err(_) => {
    println!(\"EVCXR_PANIC_NOTIFICATION\");
}}
evcxr_variable_store.put_variable::<Vec<i32>>(stringify!(it), it);
evcxr_variable_store.put_variable::<String>(stringify!(r#type), r#type);
evcxr_variable_store
}
";

fn source(user: &str) -> String {
    format!("#![allow(dead_code)]\n{STORE}{ENTRY_LINES}{user}{TAIL}")
}

fn lines(text: &str) -> usize {
    text.split('\n').count()
}

#[test]
fn only_what_is_mentioned_moves() {
    let source = source("let q = it.len();\n");
    let Rewritten {
        source: out,
        left_out,
    } = rewrite(&source, Options::default()).unwrap();
    assert!(left_out);
    assert_eq!(lines(&out), lines(&source));
    assert!(out.contains("fn chorus_entry("));
    assert!(out.contains("take_variable::<Vec<i32>>(stringify!(it))"));
    assert!(out.contains("put_variable::<usize>(stringify!(q), q)"));
    assert!(!out.contains("r#type"));
    assert!(!out.contains("EVCXR_PANIC_NOTIFICATION"));
    assert!(!out.contains("pub struct VariableStore"));
    assert_eq!(
        source.lines().position(|line| line == "let q = it.len();"),
        out.lines().position(|line| line == "let q = it.len();"),
    );
}

#[test]
fn a_format_string_mentions() {
    let out = rewrite(
        &source("let q = 1;\nprintln!(\"{type} {it:?}\");\n"),
        Options::default(),
    )
    .unwrap();
    assert!(!out.left_out);
    assert!(out.source.contains("take_variable::<String>"));
}

#[test]
fn everything_moves_when_asked() {
    let options = Options {
        all_variables: true,
        ..Options::default()
    };
    let out = rewrite(&source("1;\n"), options).unwrap();
    assert!(!out.left_out);
    assert!(out.source.contains("take_variable::<Vec<i32>>"));
}

#[test]
fn what_the_user_prints_stays() {
    let user = "    println!(\"EVCXR_PANIC_NOTIFICATION\");\nmod evcxr_internal_runtime {\n}\n";
    let out = rewrite(&source(user), Options::default()).unwrap();
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
    let out = rewrite(&source, Options::default()).unwrap().source;
    assert_eq!(lines(&out), lines(&source));
    assert!(out.contains("::chorus_support::error_returned(&format!(\"{:?}\", error));"));
    assert!(!out.contains("USER_ERROR_OCCURRED"));
}

#[test]
fn source_for_analysis_is_left_alone() {
    assert_eq!(
        rewrite("fn evcxr_analysis_wrapper() {}\n", Options::default()),
        None
    );
}
