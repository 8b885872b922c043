"""A cell that reads files, the environment or local crates while it is compiled gets their present contents, also after earlier compiles."""

from __future__ import annotations

from pathlib import Path
from typing import Callable

import pytest

from chorus_client import Kernel
from engines import results, started


def check_file(run: Callable[[str], str], file: Path) -> None:
    """`run` gives what a cell shows."""
    file.write_text("one")
    direct = f'include_str!("{file}").len()'
    assert run(direct) == "3"
    run(f'const TEXT: &str = include_str!("{file}");\nfn text() -> String {{ TEXT.to_uppercase() }}')
    assert run("text()") == '"ONE"'
    for text in ("three", "seven", "one"):
        file.write_text(text)
        assert run(direct) == str(len(text))
        assert run("text()") == f'"{text.upper()}"'
        # A second time it is the same.
        assert run("text()") == f'"{text.upper()}"'


def test_a_file_of_a_cell(kernel: Kernel, tmp_path: Path) -> None:
    check_file(lambda code: kernel.run(code).expect_ok().text, tmp_path / "data.txt")


def test_bytes_and_source_of_a_cell(kernel: Kernel, tmp_path: Path) -> None:
    data, source = tmp_path / "a.bin", tmp_path / "a.rs"
    for number in (1, 2):
        data.write_bytes(bytes([number]))
        source.write_text(f"{number} + 10")
        assert kernel.run(f'include_bytes!("{data}")[0]').expect_ok().text == str(number)
        assert kernel.run(f'include!("{source}")').expect_ok().text == str(number + 10)


def test_a_file_that_was_missing(kernel: Kernel, tmp_path: Path) -> None:
    file = tmp_path / "late.txt"
    code = f'include_str!("{file}")'
    assert "late.txt" in kernel.run(code).error["evalue"]
    file.write_text("there")
    assert kernel.run(code).expect_ok().text == '"there"'
    file.unlink()
    assert "late.txt" in kernel.run(code).error["evalue"]


def test_the_environment_of_the_build(kernel: Kernel) -> None:
    for value in ("1", "2", "1"):
        kernel.run(f":build_env CHORUS_TEST_X={value}").expect_ok()
        assert kernel.run('env!("CHORUS_TEST_X")').expect_ok().text == f'"{value}"'
        assert kernel.run('option_env!("CHORUS_TEST_X")').expect_ok().text == f'Some("{value}")'
    assert kernel.run('option_env!("CHORUS_TEST_Y")').expect_ok().text == "None"
    kernel.run(":env CHORUS_TEST_Y=yes").expect_ok()
    assert kernel.run('option_env!("CHORUS_TEST_Y")').expect_ok().text == 'Some("yes")'


def write_crate(folder: Path, manifest: str, source: str) -> None:
    (folder / "src").mkdir(parents=True, exist_ok=True)
    (folder / "Cargo.toml").write_text(f'[package]\nname = "{folder.name}"\nversion = "0.1.0"\nedition = "2024"\n{manifest}')
    (folder / "src" / "lib.rs").write_text(source)


def test_crates_of_ones_own(fresh_kernel: Kernel, tmp_path: Path) -> None:
    """A library with a build script, and a procedural macro."""
    own, mac = tmp_path / "own_crate", tmp_path / "own_macro"

    def write(number: int) -> None:
        write_crate(own, "", f'pub fn number() -> u32 {{ {number} }}\npub const BUILT: &str = env!("BUILT");')
        (own / "build.rs").write_text(f'fn main() {{ println!("cargo:rustc-env=BUILT=built {number}"); }}')
        write_crate(mac, "[lib]\nproc-macro = true\n",
                    f'#[proc_macro]\npub fn number(_: proc_macro::TokenStream) -> proc_macro::TokenStream {{ "{number}u32".parse().unwrap() }}')

    write(1)
    fresh_kernel.run(f':dep own_crate = {{ path = "{own}" }}\n:dep own_macro = {{ path = "{mac}" }}\n1', timeout=300).expect_ok()
    code = "(own_crate::number(), own_crate::BUILT, own_macro::number!())"
    assert fresh_kernel.run(code).expect_ok().text == '(1, "built 1", 1)'
    for number in (2, 1):
        write(number)
        assert fresh_kernel.run(code, timeout=300).expect_ok().text == f'({number}, "built {number}", {number})'


def test_on_engines_and_in_later_sessions(kernel_name: str, tmp_path: Path) -> None:
    file = tmp_path / "data.txt"

    def px(kernel: Kernel) -> Callable[[str], str]:
        def run(code: str) -> str:
            found = set(results(kernel.run(f"%%px\n{code}", timeout=300).expect_ok()).values())
            assert len(found) <= 1, found
            return found.pop() if found else ""
        return run

    with started(kernel_name, tmp_path / "first", 2) as kernel:
        check_file(px(kernel), file)
        assert "late.txt" in (kernel.run(f'%px include_str!("{tmp_path}/late.txt")').error or {}).get("evalue", "")
        (tmp_path / "late.txt").write_text("there")
        assert px(kernel)(f'include_str!("{tmp_path}/late.txt")') == '"there"'
    file.write_text("other")
    with started(kernel_name, tmp_path / "second", 2) as kernel:
        run = px(kernel)
        assert run(f'include_str!("{file}").len()') == "5"
        for value in ("1", "2"):
            run(f":build_env CHORUS_TEST_X={value}")
            assert run('env!("CHORUS_TEST_X")') == f'"{value}"'


def test_crates_of_ones_own_on_engines(kernel_name: str, tmp_path: Path) -> None:
    """The build script reads a file that is not the crate's."""
    own, data = tmp_path / "own_crate", tmp_path / "data.txt"

    def write(number: int) -> None:
        data.write_text(str(number))
        write_crate(own, "", f'pub fn number() -> u32 {{ {number} }}\npub const BUILT: &str = env!("BUILT");')

    write(1)
    (own / "build.rs").write_text(f"""fn main() {{
        println!("cargo:rerun-if-changed={data}");
        println!("cargo:rustc-env=BUILT={{}}", std::fs::read_to_string("{data}").unwrap());
    }}""")
    code = "%px (own_crate::number(), own_crate::BUILT)"
    with started(kernel_name, tmp_path / "kernel", 2) as kernel:
        kernel.run(f'%%px\n:dep own_crate = {{ path = "{own}" }}\n1', timeout=300).expect_ok()
        assert set(results(kernel.run(code).expect_ok()).values()) == {'(1, "1")'}
        data.write_text("2")
        assert set(results(kernel.run(code, timeout=300).expect_ok()).values()) == {'(1, "2")'}
        for number in (3, 1):
            write(number)
            assert set(results(kernel.run(code, timeout=300).expect_ok()).values()) == {f'({number}, "{number}")'}


@pytest.mark.parametrize("code", ['env!("CARGO_MANIFEST_DIR").len() > 0'])
def test_what_cargo_says_of_this_session(kernel: Kernel, code: str) -> None:
    assert kernel.run(code).expect_ok().text == "true"
