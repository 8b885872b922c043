"""Kernels with engines, for the tests of magics: start one, read what it shows as a page would, look at its processes.

Every kernel started here has a data folder of its own (`XDG_DATA_HOME`), so that its cluster is not another test's, and so that its
processes can be told from all others: they have that folder in their environment. Nothing sleeps but `until`.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from chorus_client import DEADLINE, Kernel, Message, Result, is_compile_status, without_compile_status
from live import Event, Live, Request, error_text, plain

# "A clear error within two seconds": the issue's, for mistakes and for engines that are not there.
SOON = 2.0
PROGRESS = re.compile(r"%px: +\d+%\|.*\| \d+/\d+ engines \[")
# The same line while engines wait for the compiler.
COMPILING = re.compile(r"%px: \D.* \[\d+:\d\d\]$")


@contextmanager
def started(kernel_name: str, folder: Path, engines: int | None, **options: Any) -> Iterator[Kernel]:
    """A kernel with a cluster of so many engines, or with none; afterwards nothing of it may be left."""
    data = folder / "data"
    data.mkdir(parents=True, exist_ok=True)
    environment = {"XDG_DATA_HOME": str(data), **options.pop("env", {})}
    kernel = Kernel.start(kernel_name, folder, env=environment, **options)
    try:
        if engines is not None:
            kernel.run(f"%cluster start -n {engines}").expect_ok()
            # The compiler starts up behind; only the first snippet is to wait for it.
            kernel.run("%px 0").expect_ok()
        yield kernel
        kernel.close()
    finally:
        kernel.kill()
        left = ended(data)
    assert not left, f"left behind: {left}"


def processes(data: Path) -> list[psutil.Process]:
    """Those that were started with this data folder."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("XDG_DATA_HOME") == str(data):
                found.append(process)
        except psutil.Error:
            pass
    return found


def seen_by_others(process: psutil.Process) -> str:
    """Its arguments and its environment; nothing if it has ended by now, as rustc does."""
    with suppress(psutil.NoSuchProcess):
        return "\0".join(process.cmdline()) + str(process.environ())
    return ""


def until(holds: Callable[[], bool], within: float = 20, otherwise: Callable[[], str] = lambda: "it never came to hold") -> None:
    """For what nobody tells: looks again and again."""
    deadline = time.monotonic() + within
    while not holds():
        assert time.monotonic() < deadline, otherwise()
        time.sleep(0.02)


def ended(data: Path, within: float = 15) -> list[str]:
    """Waits for all of them to end, and ends those that don't; says which these were."""
    left = still_there(processes(data), within)
    names = [f"{role(process)} {process.pid}" for process in left]
    for process in left:
        with suppress(psutil.Error):
            process.kill()
    return names


def still_there(those: list[psutil.Process], within: float) -> list[psutil.Process]:
    """Waits for processes to end; those that have not. A zombie has ended, only nobody asked for its status yet."""
    def lives(process: psutil.Process) -> bool:
        try:
            return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
        except psutil.Error:
            return False

    _, left = psutil.wait_procs([process for process in those if lives(process)], timeout=within)
    return [process for process in left if lives(process)]


def role(process: psutil.Process) -> str:
    """`kernel`, `controller`, `engine`, `compiler`, `runtime`, or another program's name."""
    try:
        words = process.cmdline()
    except psutil.Error:
        return ""
    return words[1] if len(words) > 1 and Path(words[0]).name.startswith("chorus") else Path((words or [""])[0]).name


def engine_process(kernel: Kernel, engine: int) -> psutil.Process:
    """The engine itself, above the runtime in which its snippets run."""
    runtime = psutil.Process(int(results(kernel.run(f"%px -t {engine} std::process::id()").expect_ok())[engine]))
    [found] = [parent for parent in runtime.parents() if role(parent) == "engine"]
    return found


# -- what a page shows ---------------------------------------------------------------------------------------------------


def pieces(messages: Iterable[Message]) -> list[dict[str, Any]]:
    """The outputs as a page has them in the end: text of one stream joined, displays in their last state. Errors are left out, and so
    is the progress line: it depends on how busy the machine is whether there is one."""
    outputs: list[dict[str, Any]] = []
    for message in without_compile_status(messages):
        kind, content = message["msg_type"], message["content"]
        if kind == "stream":
            if outputs and outputs[-1].get("stream") == content["name"]:
                outputs[-1]["data"]["text/plain"] += content["text"]
            else:
                outputs.append({"stream": content["name"], "data": {"text/plain": content["text"]}})
        elif kind in ("display_data", "execute_result"):
            outputs.append({"id": content.get("transient", {}).get("display_id"), "data": content["data"], "metadata": content["metadata"]})
        elif kind == "update_display_data":
            for output in outputs:
                if output.get("id") == content["transient"]["display_id"]:
                    output["data"] = content["data"]
    lines = (PROGRESS, COMPILING)
    return [output for output in outputs if not any(line.match(output["data"].get("text/plain", "")) for line in lines)]


def texts(messages: Iterable[Message]) -> list[str]:
    """The plain text of each of these, without colours."""
    return [plain(output["data"].get("text/plain", "")) for output in pieces(messages)]


def shown(result: Result) -> list[str]:
    """The plain text of each output of a cell that has ended, as a page has it then; without colours."""
    return texts(result.messages)


def page(result: Result) -> str:
    """All that a page shows of a cell, its error included."""
    return "\n".join([*shown(result), error_text(result.error) if result.error else ""])


def progress(result: Result) -> list[tuple[float, str, str]]:
    """Each state of the progress line: seconds since the request, the message's type, the text."""
    found = []
    for at, message in zip(result.times, result.messages):
        text = message["content"].get("data", {}).get("text/plain", "")
        if PROGRESS.match(text):
            found.append((at, message["msg_type"], text))
    return found


def results(result: Result) -> dict[int, str]:
    """The engines' results: what stands behind `Out[engine:count]: `."""
    found = (re.fullmatch(r"(?s)Out\[(\d+):\d+\]: \n?(.*)", text) for text in shown(result))
    return {int(match[1]): match[2] for match in found if match}


def said(result: Result) -> str:
    """All that a user reads of a failed cell's error, without colours."""
    assert result.error, f"no error, but {shown(result)}"
    return error_text(result.error)


def until_shown(request: Request, pattern: str, timeout: float = DEADLINE) -> Event:
    """The event with which the page shows text that matches, somewhere in one output, of a request that may still run."""
    seen: list[Message] = []

    def matches(event: Event) -> bool:
        if event.channel != "iopub":
            return False
        seen.append(event.message)
        return any(re.search(pattern, text) for text in texts(seen))

    return request.until(matches, timeout)


@dataclass
class Flag:
    """A file that a snippet waits for, so that a test decides how long the snippet runs."""

    path: Path

    def wait(self) -> str:
        """Rust that ends when the flag is raised."""
        return f'while !std::path::Path::new("{self.path}").exists() {{ std::thread::sleep(std::time::Duration::from_millis(10)); }}'

    def raise_(self) -> None:
        self.path.touch()


def write_crate(folder: Path, dependencies: str = "", build: str = "") -> None:
    """A library with a function `number`, and perhaps a build script."""
    (folder / "src").mkdir(parents=True)
    (folder / "Cargo.toml").write_text(
        f'[package]\nname = "{folder.name}"\nversion = "0.1.0"\nedition = "2024"\n[dependencies]\n{dependencies}'
    )
    (folder / "src" / "lib.rs").write_text("pub fn number() -> u32 { 7 }\n")
    if build:
        (folder / "build.rs").write_text(f"fn main() {{ {build} }}")


def compile_status(event: Event) -> str:
    """What a cell's waiting line says now; empty for any other message."""
    return event.content["data"]["text/plain"] if is_compile_status(event.message) else ""


def interrupted(kernel: Kernel, code: str, *when: str) -> Request:
    """A cell that is interrupted when the page shows all of `when`; has ended when this returns."""
    live = Live(kernel)
    request = live.submit(code)
    for pattern in when:
        until_shown(request, pattern)
    live.interrupt().until_reply()
    request.done()
    live.settle()
    return request
