"""Output is exact, whole, in time, in few messages, and never after idle."""

from __future__ import annotations

import hashlib
import statistics
from pathlib import Path

import pytest

from chorus_client import Kernel
from engines import Flag
from live import Live, check_states

# What a client can be expected to draw: "at most a few hundred messages" for 10 MB.
FEW_HUNDRED = 400
MILLIS = "std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis()"


def nap(milliseconds: int) -> str:
    return f"std::thread::sleep(std::time::Duration::from_millis({milliseconds}));"


@pytest.mark.parametrize("code, stdout, stderr", [
    ('print!("no newline");', "no newline", ""),
    ('eprint!("no newline");', "", "no newline"),
    ('print!("a"); print!("b"); println!("c"); print!("d");', "abc\nd", ""),
    ('println!("out"); eprintln!("err");', "out\n", "err\n"),
    ('println!();', "\n", ""),
    ('println!("\\n\\n");', "\n\n\n", ""),
    ('print!("0%\\r50%\\r100%\\n");', "0%\r50%\r100%\n", ""),
    ('print!("\\u{1b}[31mred\\u{1b}[0m");', "\x1b[31mred\x1b[0m", ""),
    ('println!("tab\\tand \\"quotes\\" and \\\\ and \\u{1F980} é");', 'tab\tand "quotes" and \\ and 🦀 é\n', ""),
    ('print!("zero \\0 byte");', "zero \0 byte", ""),
    ('print!("trailing   \\n   leading");', "trailing   \n   leading", ""),
    ('print!("crlf\\r\\n");', "crlf\r\n", ""),
])
def test_exactly_what_was_written(kernel: Kernel, code: str, stdout: str, stderr: str) -> None:
    result = kernel.run(code).expect_ok()
    assert (result.stdout, result.stderr) == (stdout, stderr)
    assert result.text is None


def test_a_value_and_output_of_the_same_cell(kernel: Kernel) -> None:
    result = kernel.run('print!("before"); 6 * 7').expect_ok()
    assert result.stdout == "before"
    assert result.text.strip() == "42"
    kinds = [m["msg_type"] for m in result.outputs]
    assert kinds == ["stream", "execute_result"]


def test_unit_has_no_value(kernel: Kernel) -> None:
    result = kernel.run('println!("shown")').expect_ok()
    assert result.text is None
    assert kernel.run("()").expect_ok().text is None


def test_output_of_child_processes_and_of_libc(kernel: Kernel) -> None:
    result = kernel.run('std::process::Command::new("sh").args(["-c", "echo from a child; echo to stderr >&2"]).status().unwrap();').expect_ok()
    assert result.stdout == "from a child\n"
    assert result.stderr == "to stderr\n"
    result = kernel.run('unsafe extern "C" { fn puts(text: *const std::ffi::c_char) -> i32; }\nunsafe { puts(c"from libc".as_ptr()); }').expect_ok()
    assert result.stdout == "from libc\n"


def test_order_between_stdout_and_stderr(kernel: Kernel) -> None:
    """With time between two writes the order is kept; faster than that two pipes cannot tell."""
    code = f'for n in 0..6 {{ if n % 2 == 0 {{ println!("{{n}}"); }} else {{ eprintln!("{{n}}"); }} {nap(60)} }}'
    result = kernel.run(code).expect_ok()
    assert "".join(m["content"]["text"] for m in result.of_type("stream")) == "0\n1\n2\n3\n4\n5\n"
    names = [m["content"]["name"] for m in result.of_type("stream")]
    assert names == ["stdout", "stderr"] * 3


def test_fast_alternation_keeps_each_stream_whole(kernel: Kernel) -> None:
    result = kernel.run('for n in 0..5000 { println!("o{n}"); eprintln!("e{n}"); }').expect_ok()
    assert result.stdout == "".join(f"o{n}\n" for n in range(5000))
    assert result.stderr == "".join(f"e{n}\n" for n in range(5000))


def test_nothing_after_idle(kernel: Kernel) -> None:
    """kernel.run fails when a barrier finds more; here for sizes around every buffer on the way."""
    for size in (1, 1023, 1024, 4096, 65535, 65536, 65537, 1 << 20, (1 << 20) + 1):
        result = kernel.run(f'print!("{{}}", "x".repeat({size})); eprint!("{{}}", "y".repeat({size}));').expect_ok()
        assert (len(result.stdout), len(result.stderr)) == (size, size)


def test_10_mb_in_one_line(kernel: Kernel) -> None:
    result = kernel.run('let big: String = (0..10_000_000u32).map(|n| (b\'a\' + (n % 23) as u8) as char).collect(); println!("{big}");').expect_ok()
    wanted = ("abcdefghijklmnopqrstuvw" * (10_000_000 // 23 + 1))[:10_000_000] + "\n"
    assert len(result.stdout) == len(wanted)
    assert hashlib.sha256(result.stdout.encode()).digest() == hashlib.sha256(wanted.encode()).digest()
    assert len(result.of_type("stream")) <= FEW_HUNDRED


@pytest.mark.parametrize("macro, stream", [("println!", "stdout"), ("eprintln!", "stderr")])
def test_100_000_lines(kernel: Kernel, macro: str, stream: str) -> None:
    result = kernel.run(f'for n in 0..100_000 {{ {macro}("line {{n}} é"); }}').expect_ok()
    assert result.stream(stream) == "".join(f"line {n} é\n" for n in range(100_000))
    assert len(result.of_type("stream")) <= FEW_HUNDRED


def test_a_slow_trickle_is_few_messages_too(kernel: Kernel) -> None:
    """A million small writes, unbuffered: coalesced by time and size."""
    result = kernel.run('use std::io::Write; let mut out = std::io::stderr(); for _ in 0..200_000 { out.write_all(b"z").unwrap(); }').expect_ok()
    assert result.stderr == "z" * 200_000
    assert len(result.of_type("stream")) <= FEW_HUNDRED


def test_a_debug_value_of_10_mb_arrives_whole(kernel: Kernel) -> None:
    result = kernel.run('"v".repeat(10_000_000)').expect_ok()
    assert result.text.strip() == '"' + "v" * 10_000_000 + '"'


@pytest.mark.alone
def test_first_line_of_a_long_cell_within_100_ms(kernel: Kernel, tmp_path: Path) -> None:
    live = Live(kernel)
    delays = []
    for n in range(5):
        # The cell ends only when its line was seen.
        flag = Flag(tmp_path / f"flag-{n}")
        cell = live.submit(f'println!("at {{}};", {MILLIS}); {flag.wait()}')
        first = cell.until_output(";\n")
        printed = int(cell.stdout.removeprefix("at ").split(";")[0]) / 1000
        delays.append(first.wall - printed)
        flag.raise_()
        cell.done()
    assert statistics.median(delays) < 0.1, delays


@pytest.mark.alone
def test_output_streams_while_the_cell_runs(kernel: Kernel) -> None:
    """Each of ten lines arrives soon after it was printed, also without a newline."""
    live = Live(kernel)
    cell = live.run(f'use std::io::Write; for _ in 0..10 {{ print!("{{}};", {MILLIS}); std::io::stdout().flush().unwrap(); {nap(150)} }}')
    events = cell.of("stream")
    assert len(events) >= 8, "lines 150 ms apart were put together"
    delays = [event.wall - int(event.content["text"].strip(";").split(";")[0]) / 1000 for event in events]
    assert statistics.median(delays) < 0.1, delays


def test_large_output_streams_while_the_cell_runs(kernel: Kernel, flag: Flag) -> None:
    live = Live(kernel)
    cell = live.submit(f'print!("{{}}", "q".repeat(5_000_000)); println!("end"); {flag.wait()}')
    cell.until_output("qqqend\n")
    flag.raise_()
    cell.done()
    assert len(cell.stdout) == 5_000_004


def test_characters_split_between_writes_arrive_whole(kernel: Kernel) -> None:
    code = f'use std::io::Write; let mut o = std::io::stdout(); for b in "🦀é".bytes() {{ o.write_all(&[b]).unwrap(); o.flush().unwrap(); {nap(40)} }}'
    assert kernel.run(code).expect_ok().stdout == "🦀é"


def test_bytes_that_are_no_text_are_replaced_and_harm_nothing(kernel: Kernel) -> None:
    result = kernel.run('use std::io::Write; std::io::stdout().write_all(b"good \\xff\\xfe bad \\xc3").unwrap();').expect_ok()
    assert result.stdout.startswith("good ")
    assert "\ufffd" in result.stdout
    assert " bad " in result.stdout
    assert kernel.run("1 + 1").expect_ok().text.strip() == "2"


# Background threads -----------------------------------------------------------------------------------------------------

def all_output(live: Live, name: str = "stdout") -> str:
    requests = list(live.requests.values())
    return "".join(e.content["text"] for r in requests for e in r.events if e.type == "stream" and e.content["name"] == name)


def test_a_thread_that_prints_after_its_cell_is_heard(start_kernel) -> None:
    """In that cell's output or in the next one's; without any other request in between."""
    live = Live(start_kernel())
    cell = live.submit(f'let t = std::thread::spawn(|| {{ {nap(700)} println!("late line"); }}); println!("cell over");').done()
    assert cell.stdout == "cell over\n", "the cell did not wait for the thread"
    heard = live.submit("t.join().unwrap(); 5").done()
    assert heard.text.strip() == "5"
    live.settle()
    assert all_output(live) == "cell over\nlate line\n"


def test_a_thread_that_prints_much_is_never_blocked(start_kernel) -> None:
    """More than any pipe holds, while no cell runs."""
    live = Live(start_kernel())
    live.run('let t = std::thread::spawn(|| { for n in 0..100_000 { println!("background {n}"); } 1234 });')
    joined = live.run("t.join().unwrap()")
    assert joined.text.strip() == "1234"
    live.settle()
    assert all_output(live) == "".join(f"background {n}\n" for n in range(100_000))


def test_a_thread_that_prints_across_cells_loses_nothing(start_kernel) -> None:
    live = Live(start_kernel())
    live.run(f'let t = std::thread::spawn(|| {{ for n in 0..200 {{ println!("tick {{n}}"); {nap(10)} }} }});')
    for n in range(4):
        assert live.run(f"{n} + 1").text.strip() == str(n + 1)
    live.run("t.join().unwrap();")
    live.settle()
    assert all_output(live) == "".join(f"tick {n}\n" for n in range(200))


def test_idle_comes_last_for_every_cell_of_this_kernel(kernel: Kernel) -> None:
    live = Live(kernel)
    cells = [live.submit('print!("{}", "w".repeat(300_000)); eprint!("{}", "w".repeat(300_000));') for _ in range(5)]
    live.settle()
    for cell in cells:
        check_states(cell)
        assert len(cell.stdout) == 300_000
