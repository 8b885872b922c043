"""Noise on the sockets: whatever is not a signed, well-formed message is dropped with one log line, and the kernel goes on.

Raw frames go straight to the shell and control sockets. After each attempt a real request must be answered, nothing must
have been answered to the attempt, and the log must have grown by one line that gives away neither payload nor key.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os

import pytest

from chorus_client import Kernel
from engines import Flag
from live import Live

DELIMITER = b"<IDS|MSG>"
SECRET = "payload-that-no-log-may-show"


def parts(live: Live, code: str = f"println!(\"{SECRET}\");", msg_type: str = "execute_request") -> list[bytes]:
    """The four signed frames of a valid request."""
    content = {"code": code, "silent": False, "store_history": False, "user_expressions": {}, "allow_stdin": False}
    message = live.session.msg(msg_type, content)
    return [json.dumps(message[part], default=str).encode() for part in ("header", "parent_header", "metadata", "content")]


def sign(live: Live, frames: list[bytes], key: bytes | None = None) -> bytes:
    return hmac.new(live.session.key if key is None else key, b"".join(frames), hashlib.sha256).hexdigest().encode()


def flipped(signature: bytes) -> bytes:
    return signature[:-1] + (b"0" if signature[-1:] != b"0" else b"1")


def signed(live: Live, frames: list[bytes]) -> list[bytes]:
    return [DELIMITER, sign(live, frames), *frames]


def tampered(live: Live, index: int) -> list[bytes]:
    """One of the four frames changed after signing."""
    frames = parts(live)
    signature = sign(live, frames)
    frames[index] = frames[index].replace(b"{", b'{"x": 1, ' if frames[index] != b"{}" else b'{"x": 1', 1)
    return [DELIMITER, signature, *frames]


def replaced(live: Live, index: int, frame: bytes) -> list[bytes]:
    """One of the four frames replaced and signed properly."""
    frames = parts(live)
    frames[index] = frame
    return signed(live, frames)


ATTEMPTS = {
    "bad signature": lambda live: [DELIMITER, flipped(sign(live, parts(live))), *parts(live)],
    "signed with another key": lambda live: (lambda f: [DELIMITER, sign(live, f, b"not the key"), *f])(parts(live)),
    "empty signature": lambda live: [DELIMITER, b"", *parts(live)],
    "bad hex": lambda live: [DELIMITER, b"zz" * 32, *parts(live)],
    "odd hex": lambda live: [DELIMITER, b"a" * 63, *parts(live)],
    "short hex": lambda live: (lambda f: [DELIMITER, sign(live, f)[:32], *f])(parts(live)),
    "signature over the buffers too": lambda live: (lambda f: [DELIMITER, sign(live, [*f, b"buffer"]), *f, b"buffer"])(parts(live)),
    "header changed": lambda live: tampered(live, 0),
    "parent changed": lambda live: tampered(live, 1),
    "metadata changed": lambda live: tampered(live, 2),
    "content changed": lambda live: tampered(live, 3),
    "no delimiter": lambda live: [sign(live, parts(live)), *parts(live)],
    "one empty frame": lambda live: [b""],
    "delimiter alone": lambda live: [DELIMITER],
    "signature alone": lambda live: [DELIMITER, b"ab" * 32],
    "one frame missing": lambda live: (lambda f: [DELIMITER, sign(live, f[:3]), *f[:3]])(parts(live)),
    "three frames missing": lambda live: (lambda f: [DELIMITER, sign(live, f[:1]), *f[:1]])(parts(live)),
    "bad json header": lambda live: replaced(live, 0, b"{" + SECRET.encode()),
    "bad json parent": lambda live: replaced(live, 1, b"nonsense " + SECRET.encode()),
    "bad json metadata": lambda live: replaced(live, 2, b"[" + SECRET.encode()),
    "bad json content": lambda live: replaced(live, 3, b'{"code": "' + SECRET.encode()),
    "header is a list": lambda live: replaced(live, 0, b"[1, 2]"),
    "header without fields": lambda live: replaced(live, 0, b"{}"),
    "metadata is a number": lambda live: replaced(live, 2, b"7"),
    "json too deep": lambda live: replaced(live, 3, b"[" * 100_000),
    "not utf-8": lambda live: replaced(live, 0, b"\xff\xfe\x00"),
    "unknown type": lambda live: signed(live, parts(live, msg_type="make_coffee_request")),
    "random bytes": lambda live: [os.urandom(100) for _ in range(8)],
    "a thousand frames": lambda live: [b"x"] * 1000,
    "100 MB of noise": lambda live: [os.urandom(1 << 20) * 100],
    "100 MB of noise after the delimiter": lambda live: [DELIMITER, b"ab" * 32, os.urandom(1 << 20) * 100, b"{}", b"{}", b"{}"],
}


@pytest.mark.parametrize("channel", ["shell", "control"])
@pytest.mark.parametrize("attempt", ATTEMPTS)
def test_is_dropped_with_one_log_line(kernel: Kernel, attempt: str, channel: str) -> None:
    live = Live(kernel)
    live.settle()
    before = kernel.log()
    live.sockets[channel].send_multipart(ATTEMPTS[attempt](live))
    live.settle()
    check_one_line(kernel, before)
    replies = [e for e in live.strays if e.channel in ("shell", "control") or e.type not in ("status",)]
    assert not replies, f"answered: {[e.message for e in replies]}"


def check_one_line(kernel: Kernel, before: str) -> None:
    new = kernel.log().removeprefix(before)
    assert len([line for line in new.splitlines() if line.strip()]) == 1, f"expected one log line, got {new[:3000]!r}"
    assert len(new) < 1000, "a log line as long as the noise"
    assert SECRET not in new
    assert kernel.client.session.key.decode() not in new


@pytest.mark.parametrize("channel", ["shell", "control"])
def test_replay_is_dropped(kernel: Kernel, channel: str) -> None:
    live = Live(kernel)
    live.settle()
    frames = signed(live, parts(live, msg_type="kernel_info_request"))
    live.sockets[channel].send_multipart(frames)
    live.settle()
    first = [e for e in live.strays if e.type == "kernel_info_reply"]
    assert len(first) == 1, "the original is answered"
    before = kernel.log()
    live.sockets[channel].send_multipart(frames)
    live.settle()
    assert [e for e in live.strays if e.type == "kernel_info_reply"] == first, "the replay is not"
    check_one_line(kernel, before)


def test_noise_on_the_other_sockets(kernel: Kernel) -> None:
    """stdin expects replies only when it asked, iopub subscriptions only."""
    live = Live(kernel)
    live.settle()
    for frames in ([b"noise"], [DELIMITER, b"zz", b"{}"], signed(live, parts(live)), [os.urandom(1 << 20) * 10]):
        live.sockets["stdin"].send_multipart(frames)
    live.session.send(live.sockets["stdin"], "input_reply", {"value": "nobody asked"})
    live.settle()
    assert kernel.run("1 + 1").expect_ok().text.strip() == "2"


def test_noise_while_a_cell_runs(kernel: Kernel, flag: Flag) -> None:
    live = Live(kernel)
    cell = live.submit(f'println!("on"); {flag.wait()} println!("off");')
    cell.until_output("on")
    for name, attempt in ATTEMPTS.items():
        if "100 MB" not in name:
            live.sockets["shell"].send_multipart(attempt(live))
            live.sockets["control"].send_multipart(attempt(live))
    live.settle_queue()
    flag.raise_()
    cell.done()
    assert cell.reply["status"] == "ok"
    assert cell.stdout == "on\noff\n"


@pytest.mark.parametrize("content", [[], "text", 7, {}, {"code": 5}, {"code": "1", "user_expressions": 3}, {"code": None}])
def test_wrong_content_is_survived(kernel: Kernel, content: object) -> None:
    """Valid JSON that is no execute_request: an error or a log line, never a dead kernel, and busy never without idle."""
    live = Live(kernel)
    # As bytes, because jupyter_client itself refuses to send what is no object.
    request = live.send("execute_request", json.dumps(content).encode())
    live.settle()
    states = [e.content["execution_state"] for e in request.of("status")]
    assert states in ([], ["busy", "idle"])
    if request.replies:
        assert request.reply["status"] == "error"
    assert kernel.run("1 + 1").expect_ok().text.strip() == "2"


def test_extra_buffers_and_unknown_fields_are_carried(kernel: Kernel) -> None:
    """Buffers are not signed; a client may send them, and fields of a later protocol, with any request."""
    live = Live(kernel)
    frames = parts(live, "6 * 7")
    header = json.loads(frames[0]) | {"from_the_future": {"a": [1]}}
    content = json.loads(frames[3]) | {"also_new": True}
    frames[0], frames[3] = json.dumps(header).encode(), json.dumps(content).encode()
    live.sockets["shell"].send_multipart([*signed(live, frames), b"", os.urandom(1 << 20), b"tail"])
    live.settle()
    [result] = [e for e in live.strays if e.type == "execute_result"]
    assert result.content["data"]["text/plain"].strip() == "42"
    assert result.message["parent_header"]["msg_id"] == header["msg_id"]


def test_unsigned_kernel_takes_unsigned_messages(start_unsigned) -> None:
    """An empty key turns signing off, as the protocol says."""
    live = start_unsigned()
    assert live.ask("kernel_info_request").reply["status"] == "ok"


@pytest.fixture
def start_unsigned(kernel_name: str, tmp_path, monkeypatch: pytest.MonkeyPatch):
    kernels: list[Kernel] = []

    def start() -> Live:
        from jupyter_client.manager import KernelManager
        from jupyter_client.session import Session

        class Unsigned(KernelManager):
            def _session_default(self) -> Session:
                return Session(parent=self, key=b"")

        monkeypatch.setattr("chorus_client.KernelManager", Unsigned)
        kernels.append(Kernel.start(kernel_name, tmp_path / "unsigned"))
        assert json.loads((tmp_path / "unsigned" / "connection.json").read_text())["key"] == ""
        return Live(kernels[0])

    yield start
    for kernel in kernels:
        kernel.kill()
