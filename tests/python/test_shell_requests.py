"""The shell's requests other than execute: kernel_info, is_complete, comm, shutdown for old clients; busy and idle for all."""

from __future__ import annotations

import re

import pytest

from chorus_client import Kernel
from live import Live, alive_after, check_states, family


def test_kernel_info_tells_all_that_the_protocol_asks(kernel: Kernel) -> None:
    info = kernel.request("kernel_info_request").content
    assert info["status"] == "ok"
    assert info["protocol_version"] == "5.5"
    assert info["implementation"].lower() == "chorus"
    assert re.fullmatch(r"\d+\.\d+\.\d+.*", info["implementation_version"])
    language = info["language_info"]
    assert language["name"].lower() == "rust"
    assert re.match(r"1\.\d+", language["version"]), "a version of Rust"
    assert language["mimetype"] in ("text/rust", "text/x-rust", "text/x-rustsrc")
    assert language["file_extension"] == ".rs"
    assert language["pygments_lexer"] == "rust"
    assert language["codemirror_mode"] in ("rust", {"name": "rust"})
    assert "Chorus" in info["banner"]
    assert "kernel subshells" in info["supported_features"]
    assert "debugger" not in info["supported_features"]
    assert info.get("debugger", False) is False
    assert all(set(link) == {"text", "url"} for link in info.get("help_links", []))


IS_COMPLETE = [
    ("", "complete"),
    ("1 + 1", "complete"),
    ("let x = 5;", "complete"),
    ("let x = vec![1, 2, 3];\nx.len()", "complete"),
    ("fn f() -> i32 {\n    4\n}", "complete"),
    ('let s = "{ [ ( //";', "complete"),
    ("// { an open brace in a comment", "complete"),
    ("/* { */ 1", "complete"),
    ("let c = '{';", "complete"),
    ("fn f<'a>(x: &'a str) -> &'a str { x }", "complete"),
    ('let s = r#"a " quote"#;', "complete"),
    ("struct P { x: i32 }", "complete"),
    ("use std::collections::HashMap;", "complete"),
    ("async fn f() -> i32 { 1 }", "complete"),
    ("let v: Vec<u8> = Vec::new(); v.iter().map(|x| x + 1).collect::<Vec<_>>()", "complete"),
    (':dep regex = "1"', "complete"),
    (":vars", "complete"),
    ("%checkpoint status", "complete"),
    ("%checkpoint off\nlet x = 1;", "complete"),
    ("fn f() {", "incomplete"),
    ("fn f() {\n    if true {\n        1", "incomplete"),
    ("let x = (1 +", "incomplete"),
    ("let x =", "incomplete"),
    ("1 +", "incomplete"),
    ("vec![1, 2", "incomplete"),
    ('let s = "unfinished', "incomplete"),
    ('let s = r#"unfinished"', "incomplete"),
    ("/* unfinished", "incomplete"),
    ("struct P {\n    x: i32,", "incomplete"),
    ("match 1 {\n    1 => 2,", "incomplete"),
    ("impl P {", "incomplete"),
    ("%checkpoint off\nfn f() {", "incomplete"),
    (":dep itoa\nlet x = (", "incomplete"),
    ("let x = );", "invalid"),
    ("}", "invalid"),
    ("fn f) { }", "invalid"),
    ("let = 1;", "invalid"),
    ("1 + ] 2", "invalid"),
    ("struct 7;", "invalid"),
]


@pytest.mark.parametrize("code, status", IS_COMPLETE)
def test_is_complete(kernel: Kernel, code: str, status: str) -> None:
    reply = kernel.request("is_complete_request", {"code": code}).content
    assert reply["status"] == status
    assert ("indent" in reply) == (status == "incomplete")


@pytest.mark.parametrize("code, indent", [("fn f() {", "    "), ("fn f() {\n    if true {", "        "), ("fn f() {\n    let x = 1;", "    ")])
def test_is_complete_indents_by_open_blocks(kernel: Kernel, code: str, indent: str) -> None:
    assert kernel.request("is_complete_request", {"code": code}).content["indent"] == indent


def test_comm_info_knows_of_none(kernel: Kernel) -> None:
    for content in ({}, {"target_name": "jupyter.widget"}):
        assert kernel.request("comm_info_request", content).content == {"status": "ok", "comms": {}}


def test_comm_of_an_unknown_target_is_closed_politely(kernel: Kernel) -> None:
    live = Live(kernel)
    opened = live.send("comm_open", {"comm_id": "c-1", "target_name": "nobody", "data": {"a": 1}}, buffers=[b"one", b"", b"\x00" * 100_000])
    opened.until_idle()
    [closed] = opened.of("comm_close")
    assert closed.content["comm_id"] == "c-1"
    live.settle()
    check_states(opened)
    assert not opened.replies, "comm messages have no reply"


@pytest.mark.parametrize("kind, content", [("comm_msg", {"comm_id": "never opened", "data": {}}), ("comm_close", {"comm_id": "never opened", "data": {}})])
def test_messages_of_unknown_comms_are_ignored(kernel: Kernel, kind: str, content: dict) -> None:
    live = Live(kernel)
    message = live.send(kind, content, buffers=[b"x" * 1000])
    message.until_idle()
    live.settle()
    check_states(message)
    assert not message.of("error", "comm_close")


REQUESTS = {
    "kernel_info_request": {},
    "complete_request": {"code": "std::", "cursor_pos": 5},
    "inspect_request": {"code": "Vec", "cursor_pos": 2, "detail_level": 0},
    "is_complete_request": {"code": "1"},
    "history_request": {"hist_access_type": "tail", "n": 1, "output": False, "raw": True},
    "comm_info_request": {},
}
# What a client may get wrong inside valid JSON.
ODD_REQUESTS = [
    ("complete_request", {"code": "Vec", "cursor_pos": 10_000}),
    ("complete_request", {"code": "", "cursor_pos": 0}),
    ("complete_request", {"code": "🦀🦀", "cursor_pos": 1}),
    ("inspect_request", {"code": "Vec", "cursor_pos": 10_000, "detail_level": 0}),
    ("inspect_request", {"code": "", "cursor_pos": 0, "detail_level": 1}),
    ("inspect_request", {"code": "let let let (", "cursor_pos": 3, "detail_level": 0}),
    ("is_complete_request", {"code": "\x00\x01"}),
    ("history_request", {"hist_access_type": "range", "session": -999, "start": 5, "stop": 1, "output": True, "raw": False}),
    ("history_request", {"hist_access_type": "search", "pattern": "[", "n": 3, "output": False, "raw": True}),
    ("history_request", {"hist_access_type": "tail", "n": 0, "output": False, "raw": True}),
]


@pytest.mark.parametrize("kind, content", [*REQUESTS.items(), *ODD_REQUESTS], ids=str)
def test_busy_reply_idle_for_every_request(kernel: Kernel, kind: str, content: dict) -> None:
    live = Live(kernel)
    request = live.ask(kind, content)
    live.settle()
    check_states(request)
    assert request.reply["status"] in ("ok", "complete", "incomplete", "invalid", "unknown")
    assert request.replies[0].type == kind.replace("_request", "_reply")


@pytest.mark.parametrize("code", ["1", 'panic!("x")', "nonsense nonsense", "std::process::exit(1)", "%no_such_magic", ":no_such_command", "loop { break }", "%checkpoint status", ":vars"])
def test_busy_and_idle_for_every_kind_of_cell(kernel: Kernel, code: str) -> None:
    live = Live(kernel)
    cell = live.run(code)
    live.settle()
    check_states(cell)


def test_shutdown_on_the_shell_for_old_clients(fresh_kernel: Kernel) -> None:
    """Before protocol 5.4 shutdown_request came on the shell."""
    fresh_kernel.run("1").expect_ok()
    processes = family(fresh_kernel.pid)
    live = Live(fresh_kernel)
    assert live.send("shutdown_request", {"restart": False}).until_reply() == {"status": "ok", "restart": False}
    assert not alive_after(processes, within=10)
