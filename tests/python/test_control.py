"""Control answers while a cell runs: interrupt, shutdown, kernel_info, subshells. And the heartbeat, and iopub's welcome."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Iterator

import pytest
import zmq
from jupyter_client.session import Session

from chorus_client import Kernel
from live import Live, Request, alive_after, check_states, family

BUSY = 'println!("busy now"); std::thread::sleep(std::time::Duration::from_secs(600));'


@pytest.fixture
def busy(kernel: Kernel) -> Iterator[tuple[Live, Request]]:
    """A cell that runs until it is interrupted, at the end of the test."""
    live = Live(kernel)
    cell = live.submit(BUSY)
    cell.until_output("busy now")
    yield live, cell
    assert not cell.replies, "the cell ended by itself"
    live.interrupt().done()
    assert cell.done().reply["status"] == "error"


@pytest.fixture
def subshell(busy: tuple[Live, Request]) -> Iterator[str]:
    live, _ = busy
    reply = live.ask("create_subshell_request", channel="control").reply
    assert reply["status"] == "ok"
    yield reply["subshell_id"]
    assert live.ask("delete_subshell_request", {"subshell_id": reply["subshell_id"]}, channel="control").reply["status"] == "ok"


def test_kernel_info_on_control_while_a_cell_runs(busy: tuple[Live, Request]) -> None:
    live, _ = busy
    info = live.ask("kernel_info_request", channel="control", timeout=10)
    assert info.reply["protocol_version"] == "5.5"
    check_states(info)


@pytest.mark.alone
def test_control_is_fast_while_a_cell_runs(busy: tuple[Live, Request]) -> None:
    live, _ = busy
    assert statistics.median(live.ask("kernel_info_request", channel="control").seconds for _ in range(7)) < 0.1


@pytest.mark.parametrize("kind, content", [("interrupt_request", {}), ("list_subshell_request", {}), ("delete_subshell_request", {"subshell_id": "none such"}), ("shutdown_nonsense_request", {})])
def test_control_requests_leave_an_idle_kernel_well(kernel: Kernel, kind: str, content: dict) -> None:
    live = Live(kernel)
    kernel.run("let standing = 77;").expect_ok()
    request = live.send(kind, content, channel="control")
    live.settle()
    if "nonsense" not in kind:
        check_states(request)
        assert request.reply["status"] == ("error" if "delete" in kind else "ok")
    assert kernel.run("standing").expect_ok().text.strip() == "77"


def test_subshells_are_created_listed_deleted(kernel: Kernel) -> None:
    live = Live(kernel)

    def listed() -> list[str]:
        return live.ask("list_subshell_request", channel="control").reply["subshell_id"]

    assert listed() == []
    ids = [live.ask("create_subshell_request", channel="control").reply["subshell_id"] for _ in range(3)]
    assert len(set(ids)) == 3
    assert sorted(listed()) == sorted(ids)
    assert live.ask("delete_subshell_request", {"subshell_id": ids[1]}, channel="control").reply["status"] == "ok"
    assert sorted(listed()) == sorted([ids[0], ids[2]])
    assert live.ask("delete_subshell_request", {"subshell_id": ids[1]}, channel="control").reply["status"] == "error"
    for one in (ids[0], ids[2]):
        live.ask("delete_subshell_request", {"subshell_id": one}, channel="control")
    assert listed() == []


@pytest.mark.parametrize("kind, content", [
    ("kernel_info_request", {}),
    ("is_complete_request", {"code": "fn f() {"}),
    ("complete_request", {"code": "std::collections::HashM", "cursor_pos": 23}),
    ("inspect_request", {"code": "Vec", "cursor_pos": 3, "detail_level": 0}),
    ("history_request", {"hist_access_type": "tail", "n": 3, "output": False, "raw": True}),
    ("comm_info_request", {}),
    ("execute_request", {"code": "%checkpoint status", "silent": False, "store_history": False, "allow_stdin": False}),
])
def test_a_subshell_answers_while_the_main_shell_is_busy(busy: tuple[Live, Request], subshell: str, kind: str, content: dict) -> None:
    live, cell = busy
    answered = live.ask(kind, content, subshell=subshell, timeout=20)
    assert answered.reply["status"] in ("ok", "incomplete")
    check_states(answered)
    assert all(e.message["parent_header"]["subshell_id"] == subshell for e in answered.events)
    assert not cell.replies


def test_a_subshell_outlives_an_interrupt_of_the_main_shell(kernel: Kernel) -> None:
    live = Live(kernel)
    subshell = live.ask("create_subshell_request", channel="control").reply["subshell_id"]
    cell = live.submit(BUSY)
    cell.until_output("busy now")
    live.interrupt().done()
    cell.done()
    assert live.ask("kernel_info_request", subshell=subshell).reply["status"] == "ok"
    live.ask("delete_subshell_request", {"subshell_id": subshell}, channel="control")


def test_a_request_to_no_such_subshell_is_no_harm(kernel: Kernel) -> None:
    live = Live(kernel)
    lost = live.send("kernel_info_request", subshell="none such")
    live.settle()
    states = [e.content["execution_state"] for e in lost.of("status")]
    assert states in ([], ["busy", "idle"])
    assert kernel.run("2 + 2").expect_ok().text.strip() == "4"


@pytest.mark.parametrize("restart", [True, False])
def test_shutdown_while_a_cell_runs(fresh_kernel: Kernel, restart: bool) -> None:
    live = Live(fresh_kernel)
    cell = live.submit('println!("endless"); loop { std::hint::spin_loop(); }')
    cell.until_output("endless")
    processes = family(fresh_kernel.pid)
    assert len(processes) > 1
    asked = live.send("shutdown_request", {"restart": restart}, channel="control")
    assert asked.until_reply(timeout=10) == {"status": "ok", "restart": restart}
    assert not alive_after(processes, within=10)


@pytest.mark.alone
def test_heartbeat_echoes_also_while_a_cell_runs(busy: tuple[Live, Request], kernel: Kernel) -> None:
    socket = kernel.client.connect_hb()
    try:
        for payload in (b"ping", b"", bytes(range(256)), b"x" * 1_000_000):
            sent = time.monotonic()
            socket.send(payload)
            assert socket.poll(5000), "no echo"
            assert socket.recv() == payload
            assert time.monotonic() - sent < 2
        socket.send_multipart([b"two", b"frames"])
        assert socket.poll(5000)
        assert socket.recv_multipart() == [b"two", b"frames"]
    finally:
        socket.close(linger=0)


def subscribe(kernel: Kernel, topic: bytes) -> zmq.Socket:
    info = json.loads((kernel.log_path.parent / "connection.json").read_text())
    socket = zmq.Context.instance().socket(zmq.SUB)
    socket.connect(f"{info['transport']}://{info['ip']}:{info['iopub_port']}")
    socket.setsockopt(zmq.SUBSCRIBE, topic)
    return socket


def another_session(kernel: Kernel) -> Session:
    """A second client's; one session takes each signature only once."""
    return Session(key=kernel.client.session.key)


def test_iopub_welcomes_every_new_subscriber(kernel: Kernel) -> None:
    for topic in (b"", b"", b"iopub_welcome"):
        socket = subscribe(kernel, topic)
        try:
            assert socket.poll(5000), f"no welcome for {topic}"
            _, message = another_session(kernel).recv(socket, mode=0)
            assert message["msg_type"] == "iopub_welcome"
            assert message["content"] == {"subscription": topic.decode()}
            assert message["parent_header"] == {}
        finally:
            socket.close(linger=0)
    # Whoever has subscribed to everything gets the others' welcomes too.
    kernel.barrier()
    assert {m["msg_type"] for m in kernel.take_strays()} <= {"iopub_welcome"}


def test_starting_is_published_once(start_kernel) -> None:
    """A client that subscribes first sees `starting` exactly once in a kernel's life."""
    kernel = start_kernel()
    live = Live(kernel)
    live.run("1 + 1")
    second, session = subscribe(kernel, b""), another_session(kernel)
    try:
        assert second.poll(5000)
        live.run("1 + 1")
        live.settle()
        states = [m["content"]["execution_state"] for m in kernel.opening if m["msg_type"] == "status"]
        states += [e.content["execution_state"] for e in live.strays if e.type == "status"]
        while second.poll(0):
            _, message = session.recv(second, mode=0)
            if message["msg_type"] == "status" and message["content"]["execution_state"] == "starting":
                assert states.count("starting") == 0, "the first client had it already"
                states.append("starting")
        assert states.count("starting") == 1
    finally:
        second.close(linger=0)
