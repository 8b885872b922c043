"""What a user prints is text: it never ends a cell and never puts the kernel out of step, evcxr's own markers included."""

from __future__ import annotations

import pytest

from chorus_client import Kernel

# Lines that mean something between evcxr and its subprocess, or between this kernel and its runtime.
MARKERS = [
    "EVCXR_EXECUTION_COMPLETE",
    "EVCXR_PANIC_NOTIFICATION",
    "EVCXR_ERROR_OCCURRED",
    "EVCXR_VARIABLE_CHANGED_TYPE:kept",
    "EVCXR_VARIABLE_CHANGED_TYPE:",
    "EVCXR_END_CONTENT",
    "EVCXR_VARIABLE_STORE",
    "LOAD_AND_RUN /tmp/nothing.so run_user_code_0",
    "EVCXR_BEGIN_CONTENTtext/plain",
    "  EVCXR_BEGIN_CONTENT text/plain",
    "said EVCXR_BEGIN_CONTENT text/plain",
    "<IDS|MSG>",
    '{"Finished": {"id": 1, "outcome": "Completed"}}',
    "thread 'main' panicked at src/lib.rs:1:1:",
    "error[E0308]: mismatched types",
]


@pytest.fixture(scope="module")
def kept(module_kernel: Kernel) -> None:
    module_kernel.run("let kept = vec![1, 2, 3];").expect_ok()


@pytest.mark.parametrize("macro, stream", [("println!", "stdout"), ("eprintln!", "stderr")])
@pytest.mark.parametrize("marker", MARKERS)
def test_a_marker_is_text(kernel: Kernel, kept: None, marker: str, macro: str, stream: str) -> None:
    text = marker.replace('"', '\\"').replace("{", "{{").replace("}", "}}")
    result = kernel.run(f'{macro}("{text}"); {macro}("after"); kept.len()').expect_ok()
    assert result.stream(stream) == f"{marker}\nafter\n"
    assert result.text.strip() == "3", "the cell went on to its end"


def test_all_markers_a_thousand_times_and_still_in_step(kernel: Kernel, kept: None) -> None:
    body = "\n".join(m for m in MARKERS if '"' not in m)
    result = kernel.run(f'for _ in 0..1000 {{ println!("{{}}", {body!r}); }} "through"'.replace(repr(body), f'r#"{body}"#')).expect_ok()
    assert result.stdout == f"{body}\n" * 1000
    assert result.text.strip() == '"through"'
    for n in range(5):
        assert kernel.run(f"kept.len() + {n}").expect_ok().text.strip() == str(3 + n)


def test_a_marker_without_its_newline(kernel: Kernel, kept: None) -> None:
    for marker in ("EVCXR_EXECUTION_COMPLETE", "EVCXR_PANIC_NOTIFICATION", "EVCXR_END_CONTENT"):
        result = kernel.run(f'print!("{marker}"); kept.len()').expect_ok()
        assert result.stdout == marker
        assert result.text.strip() == "3"


@pytest.mark.parametrize("opening", ["EVCXR_BEGIN_CONTENT text/html", "EVCXR_BEGIN_CONTENT", "EVCXR_BEGIN_CONTENT "])
def test_a_block_that_never_ends_swallows_no_later_cell(kernel: Kernel, kept: None, opening: str) -> None:
    result = kernel.run(f'println!("before"); println!("{opening}"); println!("inside"); kept.len()').expect_ok()
    assert result.text.strip() == "3"
    assert result.stdout.startswith("before\n")
    assert "inside" in result.stdout + str(result.displays), "text was lost"
    after = kernel.run('println!("EVCXR_END_CONTENT"); println!("next cell"); kept.len()').expect_ok()
    assert after.stdout == "EVCXR_END_CONTENT\nnext cell\n"
    assert after.text.strip() == "3"


def test_a_block_on_stderr_is_text(kernel: Kernel) -> None:
    result = kernel.run('eprintln!("EVCXR_BEGIN_CONTENT text/html\\n<b>x</b>\\nEVCXR_END_CONTENT");').expect_ok()
    assert result.stderr == "EVCXR_BEGIN_CONTENT text/html\n<b>x</b>\nEVCXR_END_CONTENT\n"
    assert not result.displays


def test_a_value_that_looks_like_a_marker(kernel: Kernel, kept: None) -> None:
    result = kernel.run('struct Odd; impl std::fmt::Debug for Odd { fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result { f.write_str("EVCXR_END_CONTENT\\nEVCXR_EXECUTION_COMPLETE\\nEVCXR_BEGIN_CONTENT text/html") } }\nOdd').expect_ok()
    assert result.text.strip() == "EVCXR_END_CONTENT\nEVCXR_EXECUTION_COMPLETE\nEVCXR_BEGIN_CONTENT text/html"
    assert set(result.data) == {"text/plain"}
    assert kernel.run("kept.len()").expect_ok().text.strip() == "3"


def test_writing_to_other_descriptors_is_no_harm(kernel: Kernel, kept: None) -> None:
    """Descriptors the runtime may use for itself: closing or writing to them may fail, but the next cell works."""
    kernel.run('use std::os::fd::FromRawFd; use std::io::Write; for fd in 3..20 { let mut f = std::mem::ManuallyDrop::new(unsafe { std::fs::File::from_raw_fd(fd) }); let _ = f.write_all(b"EVCXR_EXECUTION_COMPLETE\\n"); }')
    assert kernel.run('println!("in step"); 1 + 1').expect_ok().stdout == "in step\n"
