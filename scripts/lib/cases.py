"""Runs one command of `make test` with a time limit, its output kept in a log."""

import os
import re
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from . import processes
from .errors import ScriptError
from .machine import parallel_boots
from .paths import BUILD, ROOT

LOGS = BUILD / "logs"

MACHINE_VARIABLES = ("CPU", "SMP", "MEM", "GIC", "EL2", "FIRMWARE", "BOOTARGS", "INITRD", "IMAGE")
"""A case sets its own: what the caller's environment says of them must not leak in."""

NOT_STARTED = 127
"""The status of a command that is not there, as a shell gives it."""


@dataclass(frozen=True)
class Finished:
    status: int
    seconds: float
    log: Path
    timed_out: bool = False

    @property
    def good(self) -> bool:
        return self.status == 0 and not self.timed_out

    def text(self) -> str:
        return self.log.read_text(errors="replace")

    def last_line(self) -> str:
        return next((line for line in reversed(self.text().splitlines()) if line.strip()), "")


def log_path(name: str) -> Path:
    return LOGS / (re.sub(r"[^A-Za-z0-9.=+-]+", "-", name).strip("-") + ".log")


def clean_environment(variables: dict[str, str]) -> dict[str, str]:
    base = {name: value for name, value in os.environ.items() if name not in MACHINE_VARIABLES}
    return {**base, "CARGO_TERM_COLOR": "never", **variables}


def run_logged(name: str, command: list[str], limit: float, variables: dict[str, str] | None = None) -> Finished:
    """Runs `command` from the project's root; past `limit` seconds all it started is ended."""
    log = log_path(name)
    log.parent.mkdir(parents=True, exist_ok=True)
    with slots():
        return run_now(name, command, limit, variables, log)


@cache
def slots() -> threading.BoundedSemaphore:
    """As many commands run at once as JOBS says, whichever stages want them."""
    return threading.BoundedSemaphore(parallel_boots())


def run_now(name: str, command: list[str], limit: float, variables: dict[str, str] | None, log: Path) -> Finished:
    started = time.monotonic()
    timed_out = False
    with log.open("wb") as output:
        try:
            process = processes.start(
                command,
                politely=True,
                cwd=ROOT,
                env=clean_environment(variables or {}),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        except ScriptError as error:
            output.write(f"{error}\n".encode())
            return Finished(NOT_STARTED, 0.0, log)
        try:
            process.wait(limit)
        except subprocess.TimeoutExpired:
            timed_out = True
        finally:
            processes.end(process)
        if timed_out:
            output.write(f"\n{name}: ended after {limit:g} s\n".encode())
    return Finished(process.returncode, time.monotonic() - started, log, timed_out)


def python() -> str:
    return sys.executable or "python3"
