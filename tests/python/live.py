"""Several requests at a time: send without waiting, then wait for exactly what a test is about.

`chorus_client.Kernel.run` sends one request and gathers it. `Live` sits on the same kernel and the same sockets and files
every message by the request that caused it, with the time of its arrival, so that a test can interrupt, complete or
shut down while a cell runs. Also here: looking at the kernel's processes. Nothing sleeps: every wait is for a
message or for a process, with a deadline.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import psutil
import zmq

from chorus_client import DEADLINE, Kernel


@dataclass
class Event:
    """One message as the client saw it; `at` is monotonic, `wall` the clock that cells can read as well."""

    at: float
    wall: float
    channel: str
    message: dict[str, Any]

    @property
    def type(self) -> str:
        return self.message["msg_type"]

    @property
    def content(self) -> dict[str, Any]:
        return self.message["content"]


@dataclass
class Request:
    """One request and every message whose parent it is, in the order of arrival."""

    live: Live
    id: str
    type: str
    sent: float
    events: list[Event] = field(default_factory=list)

    def until(self, wanted: Callable[[Event], bool], timeout: float = DEADLINE) -> Event:
        """The first wanted event, waiting for it if it has not come yet."""
        seen = 0
        deadline = time.monotonic() + timeout
        while True:
            while seen < len(self.events):
                seen += 1
                if wanted(self.events[seen - 1]):
                    return self.events[seen - 1]
            if not self.live.pump(deadline):
                got = [f"{e.channel}:{e.type}" for e in self.events]
                raise TimeoutError(f"{self.type}: not within {timeout} s; {len(got)} messages: {got[:20]}\n{self.live.kernel.log()[-2000:]}")

    def until_reply(self, timeout: float = DEADLINE) -> dict[str, Any]:
        return self.until(lambda e: e.channel in ("shell", "control"), timeout).content

    def until_idle(self, timeout: float = DEADLINE) -> Event:
        return self.until(lambda e: e.type == "status" and e.content["execution_state"] == "idle", timeout)

    def until_output(self, text: str, timeout: float = DEADLINE) -> Event:
        """The stream message with which `text` is complete on stdout or on stderr."""
        heard = {"stdout": "", "stderr": ""}

        def has_it(event: Event) -> bool:
            if event.type != "stream":
                return False
            heard[event.content["name"]] += event.content["text"]
            return text in heard[event.content["name"]]

        return self.until(has_it, timeout)

    def until_input(self, timeout: float = DEADLINE) -> dict[str, Any]:
        return self.until(lambda e: e.channel == "stdin", timeout).content

    def done(self, timeout: float = DEADLINE) -> Request:
        """Waits for the reply and for idle."""
        self.until_reply(timeout)
        self.until_idle(timeout)
        return self

    @property
    def iopub(self) -> list[Event]:
        return [e for e in self.events if e.channel == "iopub"]

    def of(self, *types: str) -> list[Event]:
        return [e for e in self.iopub if e.type in types]

    def stream(self, name: str) -> str:
        return "".join(e.content["text"] for e in self.of("stream") if e.content["name"] == name)

    @property
    def stdout(self) -> str:
        return self.stream("stdout")

    @property
    def replies(self) -> list[Event]:
        return [e for e in self.events if e.channel in ("shell", "control")]

    @property
    def reply(self) -> dict[str, Any]:
        assert len(self.replies) == 1, f"{self.type}: {len(self.replies)} replies"
        return self.replies[0].content

    @property
    def text(self) -> str | None:
        """The plain text of the cell's value."""
        results = self.of("execute_result")
        return results[0].content["data"].get("text/plain") if results else None

    @property
    def seconds(self) -> float:
        """From sending to the reply."""
        self.until_reply()
        return self.replies[0].at - self.sent


class Live:
    """The client's end of one kernel, for several requests at a time."""

    def __init__(self, kernel: Kernel):
        self.kernel = kernel
        client = kernel.client
        self.session = client.session
        self.sockets = {name: getattr(client, f"{name}_channel").socket for name in ("shell", "control", "stdin", "iopub")}
        self.requests: dict[str, Request] = {}
        self.strays: list[Event] = []

    def send(self, type: str, content: Any = None, *, channel: str = "shell", subshell: str | None = None,
             buffers: list[bytes] | None = None) -> Request:
        message = self.session.msg(type, {} if content is None else content)
        if subshell is not None:
            message["header"]["subshell_id"] = subshell
        request = Request(self, message["header"]["msg_id"], type, time.monotonic())
        self.requests[request.id] = request
        self.session.send(self.sockets[channel], message, buffers=buffers)
        return request

    def submit(self, code: str, *, subshell: str | None = None, **options: Any) -> Request:
        """Sends a cell and does not wait."""
        content = {"code": code, "silent": False, "store_history": True, "user_expressions": {}, "allow_stdin": False,
                   "stop_on_error": True, **options}
        return self.send("execute_request", content, subshell=subshell)

    def run(self, code: str, timeout: float = DEADLINE, **options: Any) -> Request:
        return self.submit(code, **options).done(timeout)

    def ask(self, type: str, content: Any = None, timeout: float = DEADLINE, **where: Any) -> Request:
        return self.send(type, content, **where).done(timeout)

    def interrupt(self) -> Request:
        return self.send("interrupt_request", channel="control")

    def answer(self, value: str) -> None:
        """Types an answer to the pending input_request."""
        self.session.send(self.sockets["stdin"], "input_reply", {"value": value})

    def pump(self, deadline: float) -> bool:
        """Files one message; false when none came before the deadline, or none will because the kernel has died."""
        poller = zmq.Poller()
        for socket in self.sockets.values():
            poller.register(socket, zmq.POLLIN)
        while (left := deadline - time.monotonic()) > 0:
            # One second a turn only to notice a dead kernel before the deadline.
            ready = dict(poller.poll(min(left, 1.0) * 1000))
            for channel, socket in self.sockets.items():
                if socket in ready:
                    # Raises for a wrong signature, so every message of every test is checked.
                    _, message = self.session.recv(socket, mode=zmq.NOBLOCK)
                    event = Event(time.monotonic(), time.time(), channel, message)
                    request = self.requests.get(message["parent_header"].get("msg_id", ""))
                    (request.events if request else self.strays).append(event)
                    return True
            if not ready and not self.kernel.manager.is_alive():
                return False
        return False

    def settle_control(self) -> None:
        """A barrier on the control channel alone, for while a cell runs."""
        self.ask("kernel_info_request", channel="control")

    def settle_queue(self) -> None:
        """A barrier for while a cell runs, after which the kernel has read what was sent before, on both channels: a subshell answers
        what comes behind it on the shell's socket."""
        subshell = self.ask("create_subshell_request", channel="control").reply["subshell_id"]
        self.ask("kernel_info_request", subshell=subshell)
        self.ask("delete_subshell_request", {"subshell_id": subshell}, channel="control")

    def settle(self) -> None:
        """A barrier on both channels, after which every message of the requests before it has been filed."""
        self.settle_control()
        self.ask("kernel_info_request")


def check_states(request: Request) -> None:
    """Busy comes first and idle last on iopub, each exactly once. Call after `settle`."""
    kinds = [(e.type, e.content.get("execution_state")) for e in request.iopub]
    assert kinds, f"{request.type}: nothing on iopub"
    assert kinds[0] == ("status", "busy"), f"{request.type} began with {kinds[:3]}"
    assert kinds[-1] == ("status", "idle"), f"{request.type} ended with {kinds[-3:]}"
    assert [s for kind, s in kinds if kind == "status"] == ["busy", "idle"], request.type


def family(pid: int) -> list[psutil.Process]:
    """The process and all that descend from it."""
    process = psutil.Process(pid)
    return [process, *process.children(recursive=True)]


def alive_after(processes: list[psutil.Process], within: float) -> list[psutil.Process]:
    """Waits for processes to end; those that have not. A zombie has ended, only nobody asked for its status yet."""
    _, left = psutil.wait_procs([p for p in processes if p.is_running() and p.status() != psutil.STATUS_ZOMBIE], timeout=within)
    return [p for p in left if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]


def plain(text: str) -> str:
    """The text without ANSI colours."""
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def error_text(error: dict[str, Any]) -> str:
    """All that an error tells the user, without colours."""
    return plain("\n".join([error["ename"], error["evalue"], *error["traceback"]]))
