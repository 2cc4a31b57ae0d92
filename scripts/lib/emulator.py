"""Runs the emulator, shows its serial output as it comes, and never leaves it behind."""

import os
import selectors
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO

from . import processes
from .ktap import End, EndKind, Reader, Transcript

POWER_OFF_GRACE = 10.0
"""Seconds that the emulator has to exit after the kernel's last line."""


@dataclass(frozen=True)
class Limits:
    silence: float = 60.0
    """Seconds without a byte of output after which the kernel counts as hung."""
    total: float = 900.0
    """Seconds for the whole run, for a kernel that prints for ever."""


class LineSplitter:
    """Cuts a byte stream into lines for `take`; the rest at the end counts as a line."""

    def __init__(self, take: Callable[[str], None]) -> None:
        self._take = take
        self._rest = b""

    def feed(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._take(line.decode(errors="replace"))

    def finish(self) -> None:
        if self._rest:
            self._take(self._rest.decode(errors="replace"))
        self._rest = b""


class Outlet:
    """Standard output and the log file, both written through at once.

    A reader that went away (`make run | head`) ends the showing, not the run.
    """

    def __init__(self, log: BinaryIO | None, quiet: bool) -> None:
        self._sinks = ([] if quiet else [sys.stdout.buffer]) + ([log] if log else [])
        self._mid_line = False

    def say(self, text: str) -> None:
        """A line of the runner's own, apart from a line that the kernel left unfinished."""
        self.write(("\n" if self._mid_line else "").encode() + f"run: {text}\n".encode())

    def write(self, data: bytes) -> None:
        self._mid_line = not data.endswith(b"\n")
        for sink in list(self._sinks):
            try:
                sink.write(data)
                sink.flush()
            except BrokenPipeError:
                self._sinks.remove(sink)
                if sink is sys.stdout.buffer:
                    # Keeps the interpreter from failing again when it flushes at exit.
                    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def run(command: list[str], limits: Limits, outlet: Outlet) -> tuple[Transcript, End]:
    """Boots `command` and reads it to its end, which is always also the process's end."""
    # No standard input: a runner in the background must not be stopped for reading it.
    process = processes.start(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    reader = Reader()
    try:
        end = follow(process, reader, limits, outlet)
    finally:
        processes.end(process)
    return reader.transcript, end


def follow(process: "subprocess.Popen[bytes]", reader: Reader, limits: Limits, outlet: Outlet) -> End:
    """Streams both outputs until they close or a limit is reached."""
    assert process.stdout and process.stderr
    serial = LineSplitter(reader.take)
    complaints: list[str] = []
    errors = LineSplitter(complaints.append)
    started = last_output = time.monotonic()
    done_at: float | None = None
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        selector.register(process.stderr, selectors.EVENT_READ)
        while selector.get_map():
            now = time.monotonic()
            deadlines = [
                (last_output + limits.silence, End(EndKind.SILENT, detail=f"{limits.silence:g} s")),
                (started + limits.total, End(EndKind.OVERLONG, detail=f"{limits.total:g} s")),
            ]
            if done_at is not None:
                deadlines.append((done_at + POWER_OFF_GRACE, End(EndKind.LINGERED, detail=f"{POWER_OFF_GRACE:g} s")))
            due, end = min(deadlines, key=lambda deadline: deadline[0])
            if now >= due:
                serial.finish()
                return end
            for key, _ in selector.select(due - now):
                data = os.read(key.fd, 65536)
                if not data:
                    selector.unregister(key.fileobj)
                    continue
                outlet.write(data)
                if key.fileobj is process.stdout:
                    last_output = time.monotonic()
                    serial.feed(data)
                else:
                    errors.feed(data)
            if done_at is None and reader.transcript.done:
                done_at = time.monotonic()
    serial.finish()
    errors.finish()
    return wait_for_exit(process, next((line.strip() for line in reversed(complaints) if line.strip()), ""))


def wait_for_exit(process: "subprocess.Popen[bytes]", complaint: str) -> End:
    """Both outputs are closed: the process is as good as gone, or hangs without them."""
    try:
        return End(EndKind.EXITED, process.wait(POWER_OFF_GRACE), complaint)
    except subprocess.TimeoutExpired:
        return End(EndKind.SILENT, detail=f"{POWER_OFF_GRACE:g} s with its output closed")
