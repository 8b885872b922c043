"""Every evcxr command, crates by `:dep`, `?` and async: what evcxr can, Chorus can."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from chorus_client import Kernel, Result
from live import Live, alive_after, error_text, family


def said(result: Result) -> str:
    """All that a command told, wherever it told it."""
    texts = [result.stdout, result.stderr, *(str(v) for d in result.displays for v in d.values())]
    return "\n".join(texts + ([error_text(result.error)] if result.error else []))


@pytest.fixture(scope="module", autouse=True)
def variables(module_kernel: Kernel) -> None:
    module_kernel.run('let commanded = 5_i64; let listed = vec![String::from("a")];\n/// Says hello.\nfn hello() {}').expect_ok()


# Each command is on its own, in this order, on one kernel.
TELLING = [
    (":version", r"0\.22\.0"),
    (":help", r"(?s)(?=.*:vars)(?=.*:dep)(?=.*:opt)(?=.*:explain)(?=.*List bound variables)"),
    (":vars", r"(?s)commanded.*i64.*listed|listed.*commanded"),
    (":type commanded", r"commanded: i64"),
    (":t listed", r"listed: (std::vec::|alloc::vec::)?Vec<(std::string::|alloc::string::)?String>"),
    (":opt 0", r"Optimization: 0"),
    (":opt 2", r"Optimization: 2"),
    (":opt", r"Optimization: 0"),
    (":opt 1", r"Optimization: 1"),
    (":fmt {:#?}", r"Output format: \{:#\?\}"),
    (":fmt", r"Output format: \{:\?\}"),
    (":efmt {}", r"Error format: \{\}.*Display"),
    (":efmt {:?}", r"Error format: \{:\?\}.*Debug"),
    (":preserve_vars_on_panic 1", r"Preserve vars on panic: true"),
    (":offline 1", r"Offline mode: true"),
    (":offline 0", r"Offline mode: false"),
    (":allow_static_linking 1", r"Static linking: true"),
    (":sccache 0", r"sccache: false"),
    (":cache 200", r"cache: 200 MiB"),
    (":cache", r"200 MiB"),
    (":cache 0", r"cache: 0 MiB"),
    (":clear_cache", r"Deleted \d+ MiB"),
    (":linker", r"linker: \w+"),
    (":codegen_backend", r"codegen backend: "),
    (":toolchain", r"Toolchain:"),
    (":build_env CHORUS_BUILD=yes", r"Set CHORUS_BUILD=yes for build"),
    (":env CHORUS_RUN=sure", r"Set CHORUS_RUN=sure"),
    (":last_compile_dir", r"/"),
    (":load_config --quiet", r""),
    (":show_deps", r""),
    (":doc hello", r"Says hello"),
]


@pytest.mark.parametrize("command, told", TELLING)
def test_a_command_tells(kernel: Kernel, command: str, told: str) -> None:
    result = kernel.run(command).expect_ok()
    assert re.search(told, said(result)), said(result)
    assert kernel.run("commanded").expect_ok().text.strip() == "5", "and nothing else changes"


@pytest.mark.parametrize("command, told", [(":types", "Types"), (":timing", "Timing"), (":time_passes", "Time passes"), (":internal_debug", "Internals debugging")])
def test_a_toggle_goes_on_and_off(kernel: Kernel, command: str, told: str) -> None:
    assert f"{told}: true" in said(kernel.run(command).expect_ok())
    assert f"{told}: false" in said(kernel.run(command).expect_ok())


def test_vars_is_a_table_in_html(kernel: Kernel) -> None:
    [data] = kernel.run(":vars").expect_ok().displays
    assert "<table>" in data["text/html"]
    assert "commanded: i64" in data["text/plain"]


@pytest.mark.parametrize("command", [":no_such_command", ":type", ":type nobody", ":dep", ":build_env nonsense", ":cache many"])
def test_a_wrong_command_is_an_error(kernel: Kernel, command: str) -> None:
    result = kernel.run(command)
    assert result.status == "error"
    assert result.error["evalue"]


def test_explain_and_last_error_json(kernel: Kernel) -> None:
    assert kernel.run('let x: i32 = "";').status == "error"
    assert "Expected type did not match" in said(kernel.run(":explain").expect_ok())
    assert kernel.run('let x: i32 = "";').status == "error"
    assert "E0308" in said(kernel.run(":last_error_json"))


def test_fmt_is_used(kernel: Kernel) -> None:
    kernel.run(":fmt <{:?}>").expect_ok()
    shown = kernel.run("commanded")
    kernel.run(":fmt").expect_ok()
    assert shown.expect_ok().text.strip() == "<5>"


def test_types_is_used(kernel: Kernel) -> None:
    kernel.run(":types").expect_ok()
    shown = kernel.run("commanded")
    kernel.run(":types").expect_ok()
    assert "i64" in said(shown.expect_ok())


def test_efmt_is_used(kernel: Kernel) -> None:
    kernel.run(":efmt {}").expect_ok()
    failed = kernel.run('"x".parse::<i32>()?')
    kernel.run(":efmt {:?}").expect_ok()
    assert "invalid digit found in string" in failed.error["evalue"]
    assert "ParseIntError" in kernel.run('"x".parse::<i32>()?').error["evalue"]


def test_build_env_is_used(kernel: Kernel) -> None:
    kernel.run(":build_env CHORUS_AT_BUILD=seen").expect_ok()
    assert kernel.run('env!("CHORUS_AT_BUILD")').expect_ok().text.strip() == '"seen"'


def test_commands_and_code_in_one_cell(kernel: Kernel) -> None:
    result = kernel.run(":opt 0\nlet combined = commanded + 1;\ncombined").expect_ok()
    assert result.text.strip() == "6" or "6" in said(result)


def test_dep_of_a_small_crate(kernel: Kernel) -> None:
    result = kernel.run(':dep itoa = "1"\nlet mut buffer = itoa::Buffer::new(); buffer.format(128u64).to_string()', timeout=180).expect_ok()
    assert result.text.strip() == '"128"'
    assert "itoa" in said(kernel.run(":show_deps").expect_ok())
    assert kernel.run("itoa::Buffer::new().format(7u8).len()").expect_ok().text.strip() == "1"


def test_dep_of_a_path_and_of_a_missing_crate(kernel: Kernel, tmp_path) -> None:
    (tmp_path / "src").mkdir()
    (tmp_path / "Cargo.toml").write_text('[package]\nname = "beside"\nversion = "0.1.0"\nedition = "2021"\n')
    (tmp_path / "src/lib.rs").write_text("pub fn answer() -> u8 { 42 }\n")
    assert kernel.run(f':dep beside = {{ path = "{tmp_path}" }}\nbeside::answer()', timeout=180).expect_ok().text.strip() == "42"


def test_a_dep_that_does_not_exist_is_told_and_not_kept(fresh_kernel: Kernel) -> None:
    result = fresh_kernel.run(':dep beside = { path = "/no/such/crate" }\n1', timeout=180)
    assert result.status == "error"
    assert "/no/such/crate" in said(result)
    assert fresh_kernel.run("1 + 1", timeout=180).expect_ok().text.strip() == "2"


def test_question_mark_at_the_top_level(kernel: Kernel) -> None:
    assert kernel.run('let parsed = "41".parse::<i32>()?; parsed + 1').expect_ok().text.strip() == "42"
    assert kernel.run('let first = Some(3).ok_or("none")?; first').expect_ok().text.strip() == "3"


def test_async_at_the_top_level(start_kernel: Callable[..., Kernel]) -> None:
    kernel = start_kernel()
    kernel.run(':dep tokio = { version = "1", features = ["full"] }', timeout=300).expect_ok()
    code = "async fn half(n: u32) -> Result<u32, String> { tokio::time::sleep(std::time::Duration::from_millis(10)).await; if n % 2 == 0 { Ok(n / 2) } else { Err(format!(\"{n} is odd\")) } }"
    kernel.run(code, timeout=300).expect_ok()
    assert kernel.run("half(84).await?").expect_ok().text.strip() == "42"
    assert kernel.run("let both = tokio::join!(half(2), half(4)); both.1").expect_ok().text.strip() == "Ok(2)"
    failed = kernel.run("half(7).await?")
    assert failed.status == "error" and "7 is odd" in failed.error["evalue"]


def test_restart_empties_and_goes_on(fresh_kernel: Kernel) -> None:
    fresh_kernel.run("let lost_by_restart = 1; fn stays() -> i32 { 8 }").expect_ok()
    fresh_kernel.run(":env CHORUS_AT_RUN=seen").expect_ok()
    assert "restarted" in said(fresh_kernel.run(":restart").expect_ok())
    assert fresh_kernel.run("lost_by_restart").status == "error"
    assert fresh_kernel.run('std::env::var("CHORUS_AT_RUN")').expect_ok().text.strip() == 'Ok("seen")'
    assert fresh_kernel.run("let anew = stays(); anew").expect_ok().text.strip() == "8"


def test_clear_forgets_everything(fresh_kernel: Kernel) -> None:
    fresh_kernel.run("let cleared = 1; fn cleared_too() {}").expect_ok()
    fresh_kernel.run(":clear").expect_ok()
    assert fresh_kernel.run("cleared").status == "error"
    assert fresh_kernel.run("cleared_too()").status == "error"
    assert fresh_kernel.run("let cleared = 2; cleared").expect_ok().text.strip() == "2"


def test_settings_outlive_clear(fresh_kernel: Kernel) -> None:
    fresh_kernel.run(":fmt {:#?}\n:types\n:clear").expect_ok()
    shown = fresh_kernel.run("vec![1]").expect_ok().text
    assert "[\n    1,\n]" in shown and "Vec<i32>" in shown, shown


def test_the_environment_reaches_build_scripts(fresh_kernel: Kernel, tmp_path: Path) -> None:
    crate = tmp_path / "with a space"
    (crate / "src").mkdir(parents=True)
    (crate / "Cargo.toml").write_text('[package]\nname = "asks"\nversion = "1.0.0"\nedition = "2021"\n')
    (crate / "build.rs").write_text('fn main() { println!("cargo:rustc-env=SEEN={}", std::env::var("CHORUS_AT_BUILD").unwrap_or_default()); }')
    (crate / "src" / "lib.rs").write_text('pub fn seen() -> &\'static str { env!("SEEN") }')
    fresh_kernel.run(":env CHORUS_AT_BUILD=seen").expect_ok()
    assert fresh_kernel.run(f':dep asks = {{ path = "{crate}" }}\nasks::seen()').expect_ok().text == '"seen"'


def test_a_local_crate_where_the_path_has_a_space(start_kernel: Callable[..., Kernel], tmp_path: Path) -> None:
    folder = tmp_path / "my notebooks"
    crate = folder / "mine"
    (crate / "src").mkdir(parents=True)
    (crate / "Cargo.toml").write_text('[package]\nname = "mine"\nversion = "1.0.0"\nedition = "2021"\n')
    (crate / "src" / "lib.rs").write_text("pub fn answer() -> i32 { 42 }")
    kernel = start_kernel(cwd=folder)
    assert kernel.run(":dep ./mine\nmine::answer()").expect_ok().text == "42"
    assert "mine" in kernel.run(":show_deps").expect_ok().text and "# files" not in kernel.run(":show_deps").text


@pytest.mark.parametrize("cell, line", [("!echo hello\n:type nosuch", ":type nosuch"), (":env A=1\n\n:dep", ":dep"), ("!true\n:env nonsense", ":env nonsense"), ("!exit 3", "!exit 3")])
def test_an_error_marks_the_command(kernel: Kernel, cell: str, line: str) -> None:
    text = re.sub(r"\x1b\[[0-9;]*m", "", error_text(kernel.run(cell).error))
    number = cell.split("\n").index(line) + 1
    shown = re.search(rf"^ *{number} *\| (.*)\n *\| (.*)$", text, re.MULTILINE)
    assert shown and shown[1] == line and shown[2].rstrip() == "^" * len(line), text


def test_what_is_left_without_variables_is_found_again(start_kernel: Callable[..., Kernel]) -> None:
    """A state that began with the loss of all variables, and then with nothing but its definitions."""
    first = start_kernel()
    first.run("%checkpoint off").expect_ok()
    first.run("let lost_for_good = 1;\nfn stays_behind() -> i32 { 7 }").expect_ok()
    assert first.run("std::process::abort()").status == "error"
    assert first.run("stays_behind() + 1").expect_ok().text == "8"
    for number in (2, 3):
        kernel = start_kernel()
        kernel.run("fn stays_behind() -> i32 { 7 }").expect_ok()
        assert kernel.run(f"stays_behind() * {number}").expect_ok().text == str(7 * number)


def test_a_start_up_configuration_can_be_interrupted(start_kernel: Callable[..., Kernel], tmp_path: Path) -> None:
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "evcxr.toml").write_text('[evcxr]\nprelude = "std::thread::sleep(std::time::Duration::from_secs(600));"\n')
    kernel = start_kernel(env={"EVCXR_CONFIG_DIR": str(tmp_path / "config")})
    live = Live(kernel)
    waiting = live.submit("1")
    waiting.until(lambda event: event.type == "execute_input")
    live.interrupt().until_reply()
    assert waiting.done(timeout=20).reply["status"] == "error"
    assert "interrupted" in error_text(waiting.of("error")[0].content)
    after = live.run("2")
    assert after.text == "2"
    live.settle()
    # Told once: with the cell that was interrupted, if its turn had come, or with the next.
    assert (waiting.stream("stderr") + after.stream("stderr")).count("start-up configuration failed") == 1


def test_a_start_up_configuration_that_fails_is_told_first(start_kernel: Callable[..., Kernel], tmp_path: Path) -> None:
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "evcxr.toml").write_text('[evcxr]\nprelude = "no_such_function();"\n')
    live = Live(start_kernel(env={"EVCXR_CONFIG_DIR": str(tmp_path / "config")}))
    cells = [live.submit(f"{number}") for number in (1, 2)]
    for cell in cells:
        cell.done()
    assert "no_such_function" in cells[0].stream("stderr") and not cells[1].stream("stderr")


def test_quit_ends_the_kernel_and_leaves_nothing(start_kernel: Callable[..., Kernel]) -> None:
    kernel = start_kernel()
    kernel.run("1").expect_ok()
    processes = family(kernel.pid)
    live = Live(kernel)
    live.submit(":quit")
    assert not alive_after(processes, within=10)


def test_rust_of_all_kinds(kernel: Kernel) -> None:
    """Items, generics, traits, macros, closures, modules, attributes, shadowing, several values of one cell."""
    kernel.run("mod inner { pub fn f() -> i32 { 3 } }\nuse inner::f as renamed;").expect_ok()
    assert kernel.run("renamed()").expect_ok().text.strip() == "3"
    kernel.run("macro_rules! square { ($x:expr) => { $x * $x } }").expect_ok()
    assert kernel.run("square!(7)").expect_ok().text.strip() == "49"
    kernel.run("trait Loud { fn loud(&self) -> String; }\nimpl<T: std::fmt::Display> Loud for T { fn loud(&self) -> String { self.to_string().to_uppercase() } }").expect_ok()
    assert kernel.run('"quiet".loud()').expect_ok().text.strip() == '"QUIET"'
    kernel.run("#[derive(Debug, Default, Clone)] struct Conf { a: u8, b: Option<String> }\nconst LIMIT: usize = 10; static NAME: &str = \"n\"; type Pair<T> = (T, T); enum E { A, B(i32) }").expect_ok()
    assert kernel.run("Conf { a: LIMIT as u8, ..Default::default() }").expect_ok().text.strip() == "Conf { a: 10, b: None }"
    assert kernel.run("let p: Pair<i32> = (1, 2); let (l, r) = p; match E::B(4) { E::A => 0, E::B(n) => n + l + r }").expect_ok().text.strip() == "7"
    assert kernel.run("let counter = 1; let counter = counter + 1; { let counter = 100; } counter").expect_ok().text.strip() == "2"
    assert kernel.run("let text = String::from(\"owned\"); let borrowed: &str = Box::leak(text.clone().into_boxed_str()); borrowed").expect_ok().text.strip() == '"owned"'
    assert kernel.run("#[derive(Clone)] struct Silent; Silent").status in ("ok", "error"), "no Debug: never a hang"
