"""Processes that a script starts. None outlives the script, however it ends.

Each is ended when the system ends the script (PR_SET_PDEATHSIG, by setpriv), and all are ended by
`end_all`, which `script.run` calls. A process leads a session of its own, and its group is ended as
a whole: an emulator may be a shell script around the emulator.
"""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import ScriptError

GRACE = 5.0
"""Seconds that a process has after SIGTERM, if it is ended politely."""

_lock = threading.RLock()
_started: dict["subprocess.Popen[bytes]", "Ending"] = {}
_closed = False
_starting: int | None = None
"""The thread that is between the start of a process and its note of that."""
_put_off: list[Callable[[], None]] = []


@dataclass(frozen=True)
class Ending:
    """How a process is ended."""

    politely: bool
    grouped: bool

    def signal(self, process: "subprocess.Popen[bytes]", number: int) -> None:
        """Sends a signal to the process, or to its group: what it left behind in that is ended as well."""
        try:
            if self.grouped:
                os.killpg(process.pid, number)
            else:
                process.send_signal(number)
        except (ProcessLookupError, PermissionError):
            pass


def find(program: str, folder: Path | None = None) -> str:
    """The program's path. Raises ScriptError if there is none that can be executed."""
    path = str((folder or Path()) / program) if os.sep in program else program
    found = shutil.which(path)
    if not found:
        what = "is not executable" if os.sep in program and os.path.exists(path) else "no such program"
        raise ScriptError(f"{program}: {what}")
    return found if os.sep not in program else os.path.abspath(found)


def start(command: list[str], politely: bool = False, terminal: bool = False, **options: Any) -> "subprocess.Popen[bytes]":
    """Starts a process.

    One that is ended `politely` gets SIGTERM first: it may have processes of its own. One that uses the
    `terminal` stays in the group of the script, which is the terminal's foreground job.
    """
    global _starting
    program = find(command[0], options.get("cwd"))
    # Other systems than Linux have no such tie.
    tie = [find("setpriv"), "--pdeathsig", "TERM" if politely else "KILL", "--"] if sys.platform == "linux" else []
    # A session has a group, and no terminal that could stop it.
    apart = {} if terminal else {"start_new_session": True}
    with _lock:
        if _closed:
            raise ScriptError("ended before it was done")
        _starting = threading.get_ident()
        try:
            process = subprocess.Popen([*tie, program, *command[1:]], **apart, **options)
            _started[process] = Ending(politely, not terminal)
        finally:
            _starting = None
    while _put_off:
        _put_off.pop()()
    return process


def when_noted(action: Callable[[], None]) -> None:
    """Runs the action of a signal handler: when this thread is starting a process, as soon as that is noted."""
    if _starting == threading.get_ident():
        _put_off.append(action)
    else:
        action()


def end(*processes: "subprocess.Popen[bytes]") -> None:
    """Ends the processes with all that they started in their groups."""
    with _lock:
        endings = {process: _started.pop(process) for process in processes if process in _started}
    polite = [process for process, ending in endings.items() if ending.politely]
    for process in polite:
        endings[process].signal(process, signal.SIGTERM)
    deadline = time.monotonic() + GRACE
    for process in polite:
        try:
            process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            pass
    for process, ending in endings.items():
        ending.signal(process, signal.SIGKILL)
        process.wait()


def ask_all_to_end() -> None:
    """Signals whatever is left, and has nothing started any more. For a signal handler: it waits for nothing."""
    global _closed
    with _lock:
        _closed = True
        left = dict(_started)
    for process, ending in left.items():
        ending.signal(process, signal.SIGTERM if ending.politely else signal.SIGKILL)
    killer = threading.Timer(GRACE, kill_all)
    killer.daemon = True
    killer.start()


def kill_all() -> None:
    """Kills what has not ended by itself."""
    with _lock:
        left = dict(_started)
    for process, ending in left.items():
        ending.signal(process, signal.SIGKILL)


def end_all() -> None:
    """Ends whatever is left, and has nothing started any more."""
    global _closed
    with _lock:
        _closed = True
        left = list(_started)
    end(*left)
