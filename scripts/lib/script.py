"""How a script of this project runs: whatever is wrong with its input is one line, and whatever ends it ends what it started.

The exit status is the script's own, 1 or 2 for what it refuses (a setting is 2), and 128 and the
number for a signal.
"""

import ctypes
import os
import select
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from types import FrameType
from typing import NoReturn

from . import processes
from .errors import ScriptError

INTERNAL = 70
"""The exit status for a fault of the script itself (EX_SOFTWARE)."""
BROKEN_PIPE = 128 + signal.SIGPIPE
ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
PR_SET_PDEATHSIG = 1
HANGUP_POLL_MS = 500


class Ended(BaseException):
    """A signal asks the script to end."""

    def __init__(self, number: int) -> None:
        self.number = number


def run(name: str, main: Callable[[list[str]], int]) -> NoReturn:
    """Runs `main` with the command line's arguments, and exits with what it returns."""
    end_with_make()
    for number in ENDING:
        # nohup's choice is kept; a shell's background job has SIGINT ignored.
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, stop)
    watch_terminal()
    try:
        try:
            status = main(sys.argv[1:])
            sys.stdout.flush()
        finally:
            processes.end_all()
    except Ended as ended:
        status = 128 + ended.number
    except ScriptError as error:
        status = complain(name, str(error), error.status)
    except BrokenPipeError:
        status = BROKEN_PIPE
    except OSError as error:
        status = complain(name, describe(error), 1)
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{os.path.basename(last.filename)}:{last.lineno}"
        status = complain(name, f"a fault of this script: {type(error).__name__} at {where}: {error}", INTERNAL)
    leave(status)


def leave(status: int) -> NoReturn:
    """Exits, whatever has become of the standard output."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(status)


def complain(name: str, message: str, status: int) -> int:
    """Says in one line why the script fails; returns `status`."""
    line = " ".join(message.split())
    try:
        print(f"{name}: {line}", file=sys.stderr, flush=True)
    except OSError:
        pass  # the terminal is gone, and with it whoever would read this
    return status


def describe(error: OSError) -> str:
    """A system error without Python's brackets: the file, and what is wrong with it."""
    what = error.strerror or str(error)
    return f"{error.filename}: {what}" if error.filename is not None else what


def stop(number: int, _frame: FrameType | None) -> None:
    """Asks what was started to end, and unwinds. A second signal changes nothing about that."""
    for other in ENDING:
        signal.signal(other, signal.SIG_IGN)

    def end() -> None:
        processes.ask_all_to_end()
        raise Ended(number)

    processes.when_noted(end)


def end_with_make() -> None:
    """Has the system send SIGTERM when make ends, which hands on a SIGTERM, but no other signal that kills it."""
    if "MAKELEVEL" in os.environ:
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def watch_terminal() -> None:
    """Turns the end of the terminal into SIGHUP.

    The system sends that to the leader of the session only. Where that is make, it waits for this script.
    """
    poll = select.poll()
    watched = [fd for fd in (0, 1) if in_foreground_of(fd)]
    if not watched or signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        return
    for fd in watched:
        # A copy: what becomes of the descriptor itself is the script's business.
        poll.register(os.dup(fd), 0)

    def watch() -> None:
        while not any(event & (select.POLLHUP | select.POLLERR) for _, event in poll.poll(HANGUP_POLL_MS)):
            pass
        os.kill(os.getpid(), signal.SIGHUP)

    threading.Thread(target=watch, daemon=True).start()


def in_foreground_of(fd: int) -> bool:
    """Whether `fd` is a terminal, and this process belongs to its foreground job."""
    try:
        return os.tcgetpgrp(fd) == os.getpgrp()
    except OSError:
        return False
