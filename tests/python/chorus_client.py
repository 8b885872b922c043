"""A Jupyter client for tests: one request in, everything that belongs to it out.

`Kernel.run(code)` sends one execute request and waits for three things: the reply, the `idle` of that request, and
the `idle` of a second request (the barrier) that the kernel can only answer afterwards. So whatever the kernel sends too
late is seen, kept in `Kernel.strays`, and the next call or the end of the test fails because of it. Nothing here sleeps:
every wait is a poll on the sockets with a deadline.
"""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable, Iterable

import zmq
from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.manager import KernelManager

Message = dict[str, Any]

# How long a test waits before it calls an answer missing. Generous, because the machine may be compiling
# something else; a test of speed measures for itself.
DEADLINE = 180.0


def is_compile_status(message: Message) -> bool:
    """Whether this is the line that says what a cell waits for."""
    return message["content"].get("transient", {}).get("display_id", "").endswith("-compile-status")


def without_compile_status(messages: Iterable[Message]) -> list[Message]:
    """What is on a page in the end. It depends on how busy the machine is whether a cell waits long enough to say so; the line is removed, which a test
    of its own sees to."""
    kept, line = [], False
    for message in messages:
        if is_compile_status(message):
            line = True
        elif line and message["msg_type"] == "clear_output":
            line = False
        else:
            kept.append(message)
    return kept


@dataclass
class Result:
    """Everything that one request brought: its reply and its iopub messages in the order of arrival."""

    msg_id: str
    reply: Message
    messages: list[Message]
    # (seconds since the request was sent, message), iopub only, in the same order as `messages`.
    times: list[float] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def content(self) -> dict[str, Any]:
        """The reply's content."""
        return self.reply["content"]

    @property
    def status(self) -> str:
        """`ok`, `error` or `aborted`."""
        return self.content["status"]

    @property
    def ok(self) -> bool:
        return self.status == "ok"

    def of_type(self, *types: str) -> list[Message]:
        """The iopub messages of these types."""
        return [m for m in self.messages if m["msg_type"] in types]

    def stream(self, name: str) -> str:
        """The whole text of one stream, `stdout` or `stderr`."""
        return "".join(m["content"]["text"] for m in self.of_type("stream") if m["content"]["name"] == name)

    @property
    def stdout(self) -> str:
        return self.stream("stdout")

    @property
    def stderr(self) -> str:
        return self.stream("stderr")

    @property
    def outputs(self) -> list[Message]:
        """What a notebook would show: everything but status and execute_input."""
        return [m for m in self.messages if m["msg_type"] not in ("status", "execute_input")]

    @property
    def states(self) -> list[str]:
        """The execution states that were published for this request, in order."""
        return [m["content"]["execution_state"] for m in self.of_type("status")]

    @property
    def data(self) -> dict[str, Any]:
        """The mime bundle of the execute_result (or else of the first display_data); {} without one."""
        for m in self.of_type("execute_result") + self.of_type("display_data"):
            return m["content"]["data"]
        return {}

    @property
    def text(self) -> str | None:
        """The result as text/plain, None without one."""
        return self.data.get("text/plain")

    @property
    def displays(self) -> list[dict[str, Any]]:
        """The mime bundles of all display_data and execute_result messages, in order."""
        return [m["content"]["data"] for m in self.of_type("display_data", "execute_result")]

    @property
    def error(self) -> dict[str, Any] | None:
        """The content of the error message, None without one."""
        errors = self.of_type("error")
        assert len(errors) <= 1, f"{len(errors)} error messages for one request"
        return errors[0]["content"] if errors else None

    @property
    def traceback(self) -> str:
        """The traceback lines of the error, joined; ANSI colours included."""
        return "\n".join(self.error["traceback"]) if self.error else ""

    def expect_ok(self) -> "Result":
        """Itself, or an assertion error that shows what the kernel said instead."""
        assert self.ok, f"status {self.status}: {self.content.get('evalue')}\n{self.traceback}\n{self.stderr}"
        return self


class Kernel:
    """One kernel process, its client, and what has been left unread."""

    def __init__(self, manager: KernelManager, client: BlockingKernelClient, log_path: Path):
        self.manager = manager
        self.client = client
        self.log_path = log_path
        self.strays: list[Message] = []
        self.opening: list[Message] = []

    # -- starting and stopping ---------------------------------------------------------------------------------------

    @classmethod
    def start(cls, kernel_name: str, folder: Path, *, cwd: Path | None = None, env: dict[str, str] | None = None,
              wait: bool = True) -> "Kernel":
        """Start a kernel and connect to it. `folder` gets the connection file and the log; `env` adds to the environment."""
        folder.mkdir(parents=True, exist_ok=True)
        log_path = folder / "kernel.log"
        manager = KernelManager(kernel_name=kernel_name, connection_file=str(folder / "connection.json"))
        with log_path.open("ab") as log:
            manager.start_kernel(stdout=log, stderr=log, cwd=str(cwd or folder), env={**os.environ, **(env or {})})
        kernel = cls(manager, manager.client(), log_path)
        try:
            kernel.client.start_channels(hb=False)
            if wait:
                kernel.wait_until_ready()
        except BaseException:
            kernel.kill()
            raise
        return kernel

    def wait_until_ready(self, timeout: float = DEADLINE) -> Message:
        """Wait for iopub_welcome (so that no message is missed), then for a kernel_info_reply; gives the reply."""
        deadline = time.monotonic() + timeout
        while True:
            message = self.next_iopub(deadline)
            self.opening.append(message)
            if message["msg_type"] == "iopub_welcome":
                break
        self._start_barrier(deadline)
        reply = self.request("kernel_info_request", timeout=deadline - time.monotonic()).reply
        return reply

    def _start_barrier(self, deadline: float) -> None:
        # What was published before the first request (`starting`) is not left over from a test.
        msg_id = self.send("kernel_info_request")
        while True:
            message = self.next_iopub(deadline)
            if message["parent_header"].get("msg_id") == msg_id:
                if message["msg_type"] == "status" and message["content"]["execution_state"] == "idle":
                    break
            else:
                self.opening.append(message)
        self._receive(self.client.shell_channel, deadline)

    def close(self) -> None:
        """Check that nothing is left over and shut the kernel down."""
        try:
            if self.manager.is_alive():
                self.barrier()
                self.assert_clean()
        finally:
            self.kill()

    def kill(self) -> None:
        """Stop the kernel without asking for anything; what was left over does not matter."""
        self.client.stop_channels()
        if self.manager.has_kernel:
            self.manager.shutdown_kernel(now=not self.manager.is_alive())
        self.manager.cleanup_resources()

    @property
    def pid(self) -> int:
        """The process id of the kernel."""
        return self.manager.provisioner.pid

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the kernel's process alone."""
        os.kill(self.pid, number)

    def log(self) -> str:
        """What the kernel has written to its stdout and stderr so far."""
        return self.log_path.read_text(errors="replace")

    # -- requests ----------------------------------------------------------------------------------------------------

    def send(self, msg_type: str, content: dict[str, Any] | None = None, *, channel: str = "shell",
             buffers: list[bytes] | None = None, subshell_id: str | None = None) -> str:
        """Send a request and return its id without waiting for anything."""
        session = self.client.session
        message = session.msg(msg_type, content or {})
        if subshell_id is not None:
            message["header"]["subshell_id"] = subshell_id
        session.send(getattr(self.client, f"{channel}_channel").socket, message, buffers=buffers)
        return message["header"]["msg_id"]

    def send_execute(self, code: str, **options: Any) -> str:
        """Send an execute_request (options: silent, store_history, user_expressions, allow_stdin, stop_on_error)."""
        subshell_id = options.pop("subshell_id", None)
        content = {
            "code": code,
            "silent": False,
            "store_history": not options.get("silent", False),
            "user_expressions": {},
            "allow_stdin": False,
            "stop_on_error": True,
            **options,
        }
        return self.send("execute_request", content, subshell_id=subshell_id)

    def run(self, code: str, *, timeout: float = DEADLINE, answers: Iterable[str] = (), strays: str = "fail",
            on_message: Callable[[Message], None] | None = None, **options: Any) -> Result:
        """Execute `code` and gather its reply and all its output.

        answers: what to type when the kernel asks (sets allow_stdin). on_message: called with each iopub message as it
        arrives. strays: "fail" (what arrives after idle fails the next call or the end of the test) or "keep"
        (it stays in `strays` for the test to take). Raises TimeoutError when an answer is missing.
        """
        self.assert_clean()
        answers = list(answers)
        if answers:
            options.setdefault("allow_stdin", True)
        started = time.monotonic()
        msg_id = self.send_execute(code, **options)
        result = self.gather(msg_id, timeout=timeout, answers=answers, on_message=on_message, started=started)
        assert not answers, f"the kernel did not ask for {answers}"
        self.barrier()
        if strays == "fail":
            self.assert_clean()
        return result

    def request(self, msg_type: str, content: dict[str, Any] | None = None, *, channel: str = "shell",
                timeout: float = DEADLINE, **options: Any) -> Result:
        """Send any request and gather its reply and its iopub messages until idle."""
        started = time.monotonic()
        msg_id = self.send(msg_type, content, channel=channel, **options)
        return self.gather(msg_id, timeout=timeout, channel=channel, started=started)

    def gather(self, msg_id: str, *, timeout: float = DEADLINE, channel: str = "shell", answers: list[str] | None = None,
               on_message: Callable[[Message], None] | None = None, started: float | None = None) -> Result:
        """Wait for the reply and the idle of a request that was sent before. Other requests' messages go to `strays`."""
        started = time.monotonic() if started is None else started
        deadline = time.monotonic() + timeout
        channels = [getattr(self.client, f"{channel}_channel"), self.client.iopub_channel, self.client.stdin_channel]
        reply: Message | None = None
        messages: list[Message] = [m for m in self.strays if m["parent_header"].get("msg_id") == msg_id]
        self.strays = [m for m in self.strays if m["parent_header"].get("msg_id") != msg_id]
        idle = False
        for early in list(messages):
            if early["channel"] != "iopub":
                reply = early
                messages.remove(early)
            elif early["msg_type"] == "status" and early["content"]["execution_state"] == "idle":
                idle = True
        times = [0.0] * len(messages)
        while reply is None or not idle:
            ready = self._poll(channels, deadline, waiting_for=f"{'idle' if reply else 'the reply'} of {msg_id}")
            for source in ready:
                message = self._receive(source, deadline)
                mine = message["parent_header"].get("msg_id") == msg_id
                if not mine:
                    self.strays.append(message)
                elif source is self.client.stdin_channel:
                    if message["msg_type"] == "input_request":
                        assert answers, f"the kernel asked {message['content']} and the test has no answer left"
                        self.client.input(answers.pop(0))
                elif source is not self.client.iopub_channel:
                    assert reply is None, f"two replies to one request: {reply} and {message}"
                    reply = message
                else:
                    assert not idle, f"{message['msg_type']} after idle: {message['content']}"
                    messages.append(message)
                    times.append(time.monotonic() - started)
                    if message["msg_type"] == "status" and message["content"]["execution_state"] == "idle":
                        idle = True
                    if on_message:
                        on_message(message)
        stays = without_compile_status(messages)
        kept = [(message, at) for message, at in zip(messages, times) if any(message is other for other in stays)]
        return Result(msg_id, reply, [message for message, _ in kept], [at for _, at in kept], time.monotonic() - started)

    # -- what is left over -------------------------------------------------------------------------------------------

    def barrier(self, timeout: float = DEADLINE) -> None:
        """A request that is answered after everything before it; what else arrives meanwhile goes to `strays`."""
        self.request("kernel_info_request", timeout=timeout)

    def take_strays(self) -> list[Message]:
        """The messages that belonged to no gathered request, for a test that expects them."""
        strays, self.strays = self.strays, []
        return strays

    def assert_clean(self) -> None:
        """Fail if any message was left unread."""
        strays = self.take_strays()
        assert not strays, "left over: " + "; ".join(
            f"{m['msg_type']} for {m['parent_header'].get('msg_type')}: {m['content']}" for m in strays)

    # -- single messages ---------------------------------------------------------------------------------------------

    def next_iopub(self, deadline: float) -> Message:
        """The next iopub message, whatever it belongs to. `deadline` is a time.monotonic()."""
        channel = self.client.iopub_channel
        self._poll([channel], deadline, waiting_for="an iopub message")
        return self._receive(channel, deadline)

    def wait_for_output(self, msg_id: str, text: str, timeout: float = DEADLINE) -> list[Message]:
        """Read iopub until the streams of a running request contain `text`; the messages read are given back and also
        kept for a later `gather` of the same request."""
        deadline = time.monotonic() + timeout
        seen: list[Message] = []
        while text not in "".join(m["content"]["text"] for m in seen if m["msg_type"] == "stream"):
            message = self.next_iopub(deadline)
            self.strays.append(message)
            if message["parent_header"].get("msg_id") == msg_id:
                seen.append(message)
        return seen

    def _poll(self, channels: list[Any], deadline: float, *, waiting_for: str) -> list[Any]:
        poller = zmq.Poller()
        for channel in channels:
            poller.register(channel.socket, zmq.POLLIN)
        while True:
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError(f"no {waiting_for}; the kernel's log ends:\n{self.log()[-3000:]}")
            # One second a turn only to notice a dead kernel before the deadline.
            ready = dict(poller.poll(min(left, 1.0) * 1000))
            if ready:
                return [c for c in channels if c.socket in ready]
            if not self.manager.is_alive():
                raise TimeoutError(f"the kernel died while waiting for {waiting_for}; its log ends:\n{self.log()[-3000:]}")

    def _receive(self, channel: Any, deadline: float) -> Message:
        message = channel.get_msg(timeout=max(0.0, deadline - time.monotonic()))
        message["channel"] = "iopub" if channel is self.client.iopub_channel else "other"
        return message
