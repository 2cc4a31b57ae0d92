"""Runs one command of `make test` with a time limit, its output kept in a log."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from .paths import BUILD, ROOT

LOGS = BUILD / "logs"

MACHINE_VARIABLES = ("CPU", "SMP", "MEM", "GIC", "EL2", "BOOTARGS", "INITRD", "IMAGE")
"""A case sets its own: what the caller's environment says of them must not leak in."""

_running: set["subprocess.Popen[bytes]"] = set()
_running_lock = threading.Lock()


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
    started = time.monotonic()
    timed_out = False
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=clean_environment(variables or {}),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        with _running_lock:
            _running.add(process)
        try:
            process.wait(limit)
        except subprocess.TimeoutExpired:
            timed_out = True
        finally:
            end(process)
        if timed_out:
            output.write(f"\n{name}: ended after {limit:g} s\n".encode())
    return Finished(process.returncode, time.monotonic() - started, log, timed_out)


def end(process: "subprocess.Popen[bytes]") -> None:
    """Ends the process's whole group, politely first: scripts/run ends its emulator itself."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
            process.wait(5)
            break
        except ProcessLookupError:
            break
        except subprocess.TimeoutExpired:
            continue
    process.wait()
    with _running_lock:
        _running.discard(process)


def end_all() -> None:
    """For an interrupted `make test`: nothing that it started goes on."""
    with _running_lock:
        left = list(_running)
    for process in left:
        end(process)


def end_all_on_signals() -> None:
    def stop(number: int, _frame: object) -> None:
        end_all()
        os._exit(128 + number)  # worker threads wait for processes that are gone; do not join them

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, stop)


def python() -> str:
    return sys.executable or "python3"
