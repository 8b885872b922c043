"""The compile service of a run: its log, and its end."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import psutil

# What a worker logs, at the level `info`, when it has nothing left to prepare.
WARM = "the compiler is warm"


def stop_workers(chorus: Path, **environment: str) -> None:
    """Ends the compile service with its workers."""
    subprocess.run([chorus, "compiler", "stop"], check=True, stdout=subprocess.DEVNULL, timeout=60, env={**os.environ, **environment})


def workers_log(folder: Path | None = None) -> str:
    """What the compile service (of another runtime folder) and its workers have logged since its last start."""
    folder = folder or Path(os.environ["XDG_RUNTIME_DIR"])
    return "".join(log.read_text() for log in folder.glob("chorus/compiler-*.log"))


def workers_with(temporary: Path) -> list[psutil.Process]:
    """The compile workers that have their temporary files there."""
    found = set()
    for process in psutil.process_iter():
        try:
            # A worker's own environment is set too late to be seen, but not that of what it starts.
            if process.environ().get("EVCXR_TMPDIR", "").startswith(str(temporary)) and "stub" in process.cmdline():
                found.add(process.parent())
        except psutil.Error:
            pass
    return list(found)
