"""The crates `chorus` and `serde`, which are in every cell and in every engine's snippet that names them, without `:dep`.

They are compiled into the run's cache when the kernelspec is installed (`conftest.kernel_name`), so that only tests with a cache of their
own wait for it. Nothing here needs a cluster but the tests of engines.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import engines
from chorus_client import Kernel
from engines import results
from live import Live, plain

# Without network.
CUT_OFF = "CARGO_NET_OFFLINE"


def said(result) -> str:
    """What a user reads of a failed cell, without colours."""
    assert result.status == "error", f"it went well: {result.text}"
    return plain(result.traceback)


def test_serde_derives_without_a_dependency(kernel: Kernel) -> None:
    kernel.run("#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]\nstruct Point { x: f64, name: String }").expect_ok()
    kernel.run('let point = Point { x: 0.5, name: "p".into() };').expect_ok()
    there_and_back = kernel.run("let copy: Point = { let e = chorus::codec::encode(&point)?; chorus::codec::decode(&[&e.head[..], e.bulk].concat())? };\ncopy == point")
    assert there_and_back.expect_ok().text == "true"
    assert kernel.run("copy").expect_ok().text == 'Point { x: 0.5, name: "p" }', "and the type is known to later cells"


def test_serde_is_the_crates_own_serde(kernel: Kernel) -> None:
    code = "use serde::{Serialize, Deserialize};\n#[derive(Serialize, Deserialize)]\nenum Kind { A, B(u8) }\nfn portable<T: chorus::Portable>() -> usize { std::mem::size_of::<T>() }"
    kernel.run(code).expect_ok()
    assert kernel.run("portable::<Kind>()").expect_ok().text == "2"


def test_variables_of_the_crates_types_live_on(kernel: Kernel) -> None:
    kernel.run("let outcome = chorus::Client::connect();").expect_ok()
    kernel.run("let errors: Vec<Option<chorus::Error>> = vec![None];\nlet nested = (1, errors);").expect_ok()
    assert kernel.run("1 + 1").expect_ok().text == "2", "a cell between them that doesn't use the crate"
    # The type of `message` comes from rust-analyzer: nothing here says it.
    kernel.run("let message = outcome.as_ref().err().map(|error| error.to_string());").expect_ok()
    assert kernel.run("message.is_some() || outcome.is_ok()").expect_ok().text == "true"
    assert kernel.run("nested.1.len()").expect_ok().text == "1"
    listed = kernel.run(":vars").expect_ok()
    assert "Client" in listed.data["text/plain"] and "Error" in listed.data["text/plain"]


def test_types_of_views_are_found(kernel: Kernel) -> None:
    """What no cell can have without a cluster, but rust-analyzer and rustc have to agree on it all the same."""
    code = """fn client() -> Result<chorus::Client, chorus::Error> { chorus::Client::connect() }
let view = client().map(|client| client.load_balanced_view()).ok();
let result = view.as_ref().map(|view| view.map(0..10u64, |x| x * x));"""
    kernel.run(code).expect_ok()
    assert kernel.run("view.is_some() == result.is_some()").expect_ok().text == "true"
    assert "AsyncResult" in kernel.run(":vars").expect_ok().data["text/plain"]


def test_a_capture_is_refused_with_what_to_do(kernel: Kernel) -> None:
    code = "if let Ok(client) = chorus::Client::connect() {\n    let factor = 3u64;\n    drop(client.load_balanced_view().map_sync(0..10u64, move |x| x * factor));\n}"
    text = said(kernel.run(code))
    assert "captur" in text and "map_with" in text, text


def test_what_cannot_travel_is_refused_with_what_to_do(kernel: Kernel) -> None:
    code = "struct Stays { n: u8 }\nfn stay(client: &chorus::Client) {\n    drop(client.load_balanced_view().map_sync(0..10u8, |n| Stays { n }));\n}"
    text = said(kernel.run(code))
    assert "`Stays` can't travel to an engine and back" in text
    assert "#[derive(serde::Serialize, serde::Deserialize)]" in text
    assert re.search(r"In\[\d+\]:3:", text), f"the line of the cell: {text}"


@pytest.mark.parametrize("call", ['apply_sync(|text: &str| text.len(), "text")', 'map_sync(&["a", "b"], |text| text.len())', 'apply_sync(|n: u8| "text", 1)'])
def test_what_borrows_is_refused_with_what_to_do(kernel: Kernel, call: str) -> None:
    text = said(kernel.run(f"fn borrow(client: &chorus::Client) {{\n    drop(client.all().{call});\n}}"))
    assert "can't borrow: send the owned value (a `String` for a `&str`" in text, text


def test_names_alone_are_no_mention(start_kernel: Callable[..., Kernel], tmp_path: Path) -> None:
    """A variable, a field, a comment, a string: nothing is compiled for them."""
    cache = tmp_path / "cache"
    kernel = start_kernel(env={"CHORUS_CACHE_DIR": str(cache)})
    code = 'struct S { serde: u8 }\nlet chorus = 1; // chorus::Client\nlet s = S { serde: 2 };\nformat!("{chorus}: serde::Serialize {}", s.serde)'
    assert kernel.run(code).expect_ok().text == '"1: serde::Serialize 2"'
    assert not (cache / "crates").exists()


def test_a_new_session_needs_no_network(start_kernel: Callable[..., Kernel]) -> None:
    kernel = start_kernel(env={CUT_OFF: "true"})
    kernel.run("1 + 1").expect_ok()
    first = kernel.run("use chorus::Client;\nlet client = Client::connect();").expect_ok()
    assert "compiling" not in first.stderr, "it was compiled before"
    assert kernel.run("client.is_ok() || client.is_err()").expect_ok().text == "true"


def test_without_network_the_first_use_says_what_to_do(start_kernel: Callable[..., Kernel], tmp_path: Path) -> None:
    home = tmp_path / "cargo"
    home.mkdir()
    kernel = start_kernel(env={CUT_OFF: "true", "CARGO_HOME": str(home), "CHORUS_CACHE_DIR": str(tmp_path / "cache")})
    kernel.run("let x = 20;").expect_ok()
    text = said(kernel.run("use chorus::Client;\nlet client = Client::connect();"))
    assert "connect to the network and try again" in text and "chorus kernelspec install" in text, text
    assert kernel.run("x + 1").expect_ok().text == "21", "the notebook goes on"


def test_the_first_use_tells_what_it_waits_for_and_can_be_interrupted(start_kernel: Callable[..., Kernel], tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    live = Live(start_kernel(env={"CHORUS_CACHE_DIR": str(cache)}))
    assert live.run("let x = 20; x").text == "20"
    cell = live.submit("use chorus::Client;\nlet client = Client::connect();")
    cell.until(lambda event: engines.compile_status(event).startswith("compiling "))
    live.interrupt()
    assert cell.done().reply["ename"] == "interrupted"
    assert live.run("x + 1").text == "21", "the notebook goes on"
    # The same cell again goes on with the compile, while another kernel wants it as well.
    other = Live(start_kernel(env={"CHORUS_CACHE_DIR": str(cache)}))
    cells = [each.submit("let outcome = chorus::Client::connect();\noutcome.is_ok() || outcome.is_err()") for each in (live, other)]
    assert [cell.done(timeout=300).text for cell in cells] == ["true", "true"]
    assert len(list((cache / "crates").iterdir())) == 1


def test_a_users_own_serde_is_left_alone(start_kernel: Callable[..., Kernel], tmp_path: Path) -> None:
    own = tmp_path / "serde"
    (own / "src").mkdir(parents=True)
    (own / "Cargo.toml").write_text('[package]\nname = "serde"\nversion = "0.0.1"\nedition = "2024"\n')
    (own / "src/lib.rs").write_text("pub fn whose() -> &'static str { \"mine\" }\n")
    cache = tmp_path / "cache"
    kernel = start_kernel(env={"CHORUS_CACHE_DIR": str(cache)})
    assert kernel.run(f':dep serde = {{ path = "{own}" }}\nserde::whose()').expect_ok().text == '"mine"'
    assert kernel.run("serde::whose().len()").expect_ok().text == "4"
    assert not (cache / "crates").exists(), "and nothing is compiled for it"


def test_a_notebook_with_dependencies_has_one_serde(start_kernel: Callable[..., Kernel], tmp_path: Path) -> None:
    """A crate of the user's that uses serde has to know what a cell derives, also when it comes after the cell's `derive`."""
    own = tmp_path / "own"
    (own / "src").mkdir(parents=True)
    (own / "Cargo.toml").write_text('[package]\nname = "own"\nversion = "0.0.1"\nedition = "2024"\n[dependencies]\nserde = "1"\n')
    (own / "src/lib.rs").write_text("pub fn takes<T: serde::Serialize>(_: &T) -> &'static str { \"taken\" }\n")
    kernel = start_kernel()
    kernel.run("#[derive(Debug, serde::Serialize, serde::Deserialize)]\nstruct P { n: u8 }\nlet p = P { n: 3 };").expect_ok()
    assert kernel.run(f':dep own = {{ path = "{own}" }}\nown::takes(&p)', timeout=300).expect_ok().text == '"taken"'
    assert kernel.run("chorus::codec::encode(&p)?.head.is_empty()").expect_ok().text == "false"
    assert kernel.run("p.n").expect_ok().text == "3"


def test_dependencies_lose_no_variable(fresh_kernel: Kernel) -> None:
    """The crate is the same with dependencies and without, and is not compiled again."""
    fresh_kernel.run("let targets = vec![chorus::Targets::from(1)];\n#[derive(Clone, serde::Serialize)]\nstruct P { x: u8 }\nlet p = P { x: 2 };").expect_ok()
    added = Live(fresh_kernel).run(':dep smallvec = { version = "1", features = ["serde"] }\nlet few: smallvec::SmallVec<[u8; 4]> = smallvec::smallvec![1, 2];')
    assert added.text is None and "lost" not in added.stream("stderr"), added.stream("stderr")
    assert fresh_kernel.run("(targets.len(), p.x, few.len(), chorus::codec::encode(&few)?.head.len() > 0)").expect_ok().text == "(1, 2, 2, true)"
    fresh_kernel.run(':dep itoa = "1"').expect_ok()
    assert fresh_kernel.run("(targets.len(), p.x, few.len(), itoa::Buffer::new().format(7).len())").expect_ok().text == "(1, 2, 2, 1)"


SERDE_USER = 'smallvec = { version = "1", features = ["serde"] }'
FEW = "let few: smallvec::SmallVec<[u8; 4]> = smallvec::smallvec![1, 2];"


def test_the_crate_loses_no_variable_of_a_dependency(fresh_kernel: Kernel) -> None:
    """A dependency with fewer features of serde than the crate asks for; then one without serde, one with a serde of its own."""
    fresh_kernel.run(f":dep {SERDE_USER}\n{FEW}", timeout=300).expect_ok()
    named = Live(fresh_kernel).run("let target = chorus::Targets::from(1);", timeout=300)
    assert "lost" not in named.stream("stderr")
    assert fresh_kernel.run("few.len()").expect_ok().text == "2"
    fresh_kernel.run(":dep itoa = \"1\"\nlet digits = itoa::Buffer::new();").expect_ok()
    fresh_kernel.run(":dep serde = \"1\"\nlet ignored = serde::de::IgnoredAny;").expect_ok()
    fresh_kernel.run("#[derive(serde::Serialize)]\nstruct P { few: smallvec::SmallVec<[u8; 4]> }\nlet p = P { few: few.clone() };").expect_ok()
    code = "(few.len(), digits.clone().format(7).len(), chorus::codec::encode(&p)?.head.is_empty(), target.clone(), ignored)"
    assert fresh_kernel.run(code).expect_ok().text.startswith("(2, 1, false, ")


def test_the_crate_loses_no_variable_of_a_dependency_with_a_hyphen(fresh_kernel: Kernel) -> None:
    fresh_kernel.run(':dep serde-big-array = "0.5"\nlet pair = serde_big_array::Array([1u8, 2]);', timeout=300).expect_ok()
    fresh_kernel.run("let target = chorus::Targets::from(1);", timeout=300).expect_ok()
    assert fresh_kernel.run("(pair.len(), chorus::codec::encode(&1u8)?.head.is_empty())").expect_ok().text == "(2, false)"


@pytest.mark.parametrize(
    "dependency",
    [
        'libc = "0.2"',
        'thiserror_itself = { package = "thiserror", version = "2" }',
        'num_cpus = "1"',
        'async-trait = "0.1"\n:dep tokio-macros = "2"\n:dep zerofrom = { version = "0.1", features = ["derive"] }',
    ],
)
def test_a_dependency_with_the_usual_features_leaves_the_crate_as_it_is(fresh_kernel: Kernel, dependency: str) -> None:
    """Some ask for features of crates that `chorus` depends on, too."""
    fresh_kernel.run(f":dep {SERDE_USER}\nlet target = chorus::Targets::from(1);\n{FEW}", timeout=300).expect_ok()
    added = Live(fresh_kernel).run(f":dep {dependency}\nlet one = 1;", timeout=300)
    assert "chorus" not in "".join(engines.compile_status(event) for event in added.iopub)
    assert fresh_kernel.run("(few.len(), target.clone() == chorus::Targets::from(1), one)").expect_ok().text == "(2, true, 1)"


def test_procedural_macros_before_the_crate(fresh_kernel: Kernel) -> None:
    """What is compiled for another dependency makes nothing stale that the crate has been compiled to."""
    fresh_kernel.run(':dep thiserror = "1"\n#[derive(Debug, thiserror::Error)]\n#[error("x")]\nstruct E;\nlet e = E;', timeout=300).expect_ok()
    named = Live(fresh_kernel).run("let target = chorus::Targets::from(1);", timeout=300)
    assert "chorus" not in "".join(engines.compile_status(event) for event in named.iopub)
    fresh_kernel.run(f":dep {SERDE_USER}\n{FEW}", timeout=300).expect_ok()
    assert fresh_kernel.run("(e.to_string(), target.clone() == chorus::Targets::from(1), few.len())").expect_ok().text == '("x", true, 2)'


def test_a_dependency_without_serde_and_then_one_with_it(fresh_kernel: Kernel) -> None:
    fresh_kernel.run(":dep itoa = \"1\"\nlet digits = itoa::Buffer::new();").expect_ok()
    fresh_kernel.run("#[derive(serde::Serialize)]\nstruct P { n: u8 }\nlet p = P { n: 3 };").expect_ok()
    fresh_kernel.run(f":dep {SERDE_USER}\n{FEW}", timeout=300).expect_ok()
    assert fresh_kernel.run("(digits.clone().format(7).len(), p.n, few.len())").expect_ok().text == "(1, 3, 2)"


def test_no_variable_is_lost_before_the_crate_is_compiled_either(start_kernel: Callable[..., Kernel], tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    kernel = start_kernel(env={"CHORUS_CACHE_DIR": str(cache)})
    kernel.run(f":dep {SERDE_USER}\n{FEW}", timeout=300).expect_ok()
    assert not list(cache.glob("crates/*/ready.json")), "nothing is compiled for a name that nobody has used"
    kernel.run("let target = chorus::Targets::from(1);", timeout=300).expect_ok()
    assert kernel.run("few.len()").expect_ok().text == "2"


def test_a_dependency_that_fails_leaves_everything(fresh_kernel: Kernel) -> None:
    fresh_kernel.run("let a = 1;").expect_ok()
    text = said(fresh_kernel.run(':dep chorus-no-such-crate = "1"\nlet b = 2;'))
    assert "chorus-no-such-crate" in text or "chorus_no_such_crate" in text, text
    text = said(fresh_kernel.run(f":dep {SERDE_USER}\nlet few = smallvec::no_such_function();"))
    assert "no_such_function" in text and re.search(r"In\[\d+\]:2:", text), f"the line of the cell: {text}"
    text = said(fresh_kernel.run("use chorus::Client;\nlet c = Client::no_such_function();"))
    assert "no_such_function" in text and re.search(r"In\[\d+\]:2:", text), f"the line of the cell: {text}"
    assert fresh_kernel.run("a + 1").expect_ok().text == "2"
    fresh_kernel.run(f":dep {SERDE_USER}\n{FEW}", timeout=300).expect_ok()
    assert fresh_kernel.run("chorus::codec::encode(&few)?.head.is_empty()").expect_ok().text == "false"


def test_equal_cells_and_redefined_functions(kernel: Kernel) -> None:
    """Engines load the file in which a cell's functions are, so it has to stay as it was; and a new definition is another file."""
    kernel.run("fn value() -> u64 { std::mem::size_of::<chorus::Targets>() as u64 * 0 + 1 }").expect_ok()
    # The files that the dynamic linker knows, by their contents.
    code = """let before: std::collections::BTreeMap<String, u64> = {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let maps = std::fs::read_to_string("/proc/self/maps")?;
    let files: std::collections::BTreeSet<&str> = maps.lines().filter_map(|line| line.split(' ').last()).filter(|file| file.contains("/cache/") && file.ends_with(".so")).collect();
    files.into_iter().map(|file| { let mut hash = DefaultHasher::new(); std::fs::read(file)?.hash(&mut hash); Ok((file.to_owned(), hash.finish())) }).collect::<std::io::Result<_>>()?
};
value()"""
    assert kernel.run(code).expect_ok().text == "1"
    assert kernel.run("let earlier = before;").expect_ok()
    assert kernel.run(code).expect_ok().text == "1", "the same text once more"
    kernel.run("fn value() -> u64 { std::mem::size_of::<chorus::Targets>() as u64 * 0 + 2 }").expect_ok()
    assert kernel.run(code).expect_ok().text == "2"
    assert kernel.run("earlier.len() > 0 && earlier.iter().all(|(file, hash)| before.get(file) == Some(hash))").expect_ok().text == "true"


def test_a_panic_in_a_cell_with_the_crate_names_its_line(kernel: Kernel) -> None:
    text = said(kernel.run('let targets = chorus::Targets::from(0);\n\npanic!("here");'))
    assert re.search(r"In\[\d+\], line 3", text), text


def test_completion_knows_the_crate(kernel: Kernel) -> None:
    kernel.run("use chorus::Client;").expect_ok()
    code = "Client::conn"
    reply = kernel.request("complete_request", {"code": code, "cursor_pos": len(code)}).content
    assert any(match.startswith("connect") for match in reply["matches"]), reply


# -- engines ---------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def fanned(kernel_name: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kernel]:
    with engines.started(kernel_name, tmp_path_factory.mktemp("crate"), 2, env={CUT_OFF: "true"}) as kernel:
        yield kernel


def test_engines_have_the_crates(fanned: Kernel) -> None:
    fanned.run("%%px\n#[derive(Debug, serde::Serialize, serde::Deserialize)]\nstruct P { n: u8 }\nlet p = P { n: 5 };").expect_ok()
    size = "%px { let e = ::chorus::codec::encode(&p)?; ::chorus::codec::decode::<P>(&e.head)? }"
    assert results(fanned.run(size).expect_ok()) == {0: "P { n: 5 }", 1: "P { n: 5 }"}
    fanned.run("%px let outcome = chorus::Client::connect();").expect_ok()
    assert set(results(fanned.run("%px outcome.is_ok() || outcome.is_err()").expect_ok()).values()) == {"true"}


def test_engines_take_and_give(fanned: Kernel, tmp_path: Path) -> None:
    """The snippets of push and pull, with a folder in the place of the engine's own."""
    folder = tmp_path / "pieces"
    folder.mkdir()
    fanned.run(f'%px -t 0 unsafe {{ std::env::set_var("CHORUS_PIECES", "{folder}") }}').expect_ok()
    fanned.run('%px -t 0 let () = ::chorus::__private::give::<::std::vec::Vec<u32>>("data", &::std::vec![1, 2, 3])?;').expect_ok()
    fanned.run('%px -t 0 let mut data: ::std::vec::Vec<u32> = ::chorus::__private::take("data")?;').expect_ok()
    assert results(fanned.run("%px -t 0 data.iter().sum::<u32>()").expect_ok()) == {0: "6"}


def test_the_crate_loses_no_variable_of_an_engine(kernel_name: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    with engines.started(kernel_name, tmp_path_factory.mktemp("engines"), 2) as kernel:
        kernel.run(f"%%px\n:dep {SERDE_USER}\n{FEW}", timeout=300).expect_ok()
        kernel.run("%px let target = chorus::Targets::from(1);", timeout=300).expect_ok()
        kernel.run('%%px\n:dep itoa = "1"\nlet digits = itoa::Buffer::new();', timeout=300).expect_ok()
        shown = results(kernel.run("%px (few.len(), chorus::codec::encode(&few)?.head.is_empty(), digits.clone().format(7).len())").expect_ok())
        assert set(shown.values()) == {"(2, false, 1)"}


def test_an_engines_capture_is_refused_too(fanned: Kernel) -> None:
    code = "%%px -t 0\nif let Ok(client) = chorus::Client::connect() {\n    let factor = 3u64;\n    drop(client.all().apply_sync(move |x: u64| x * factor, 1));\n}"
    assert "captur" in engines.said(fanned.run(code))
