"""A session with the kernel's shell: what is typed goes to the UART, what comes back is cut at the prompt."""

import dataclasses
import subprocess
import threading
from collections.abc import Iterable
from types import TracebackType

from . import processes
from .errors import ScriptError
from .machine import Machine

PROMPT = b"vmwalk> "
ENTER = b"\r"


class ShellError(ScriptError):
    """The kernel ended, or fell silent; the message has what it said last."""


def shell_machine(machine: Machine) -> Machine:
    """The same machine, booting to the prompt."""
    return dataclasses.replace(machine, bootargs=f"{machine.bootargs} mode=shell".strip())


class Session:
    """A booted kernel at its prompt. Leaving the context ends the emulator, however it stands."""

    def __init__(self, machine: Machine, limit: float = 60.0) -> None:
        self.limit = limit
        self.boot_log = ""
        self._output = bytearray()
        self._ended = False
        self._news = threading.Condition()
        command = shell_machine(machine).command()
        self._emulator = processes.start(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> "Session":
        try:
            self.boot_log = self.wait_for(PROMPT)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        processes.end(self._emulator)
        self._reader.join()
        for stream in (self._emulator.stdin, self._emulator.stdout):
            if stream:
                try:
                    stream.close()
                except BrokenPipeError:
                    pass

    def _read(self) -> None:
        assert self._emulator.stdout
        while data := self._emulator.stdout.read1(65536):
            with self._news:
                self._output += data
                self._news.notify_all()
        with self._news:
            self._ended = True
            self._news.notify_all()

    def type(self, data: bytes) -> None:
        """Types, without waiting for what comes of it."""
        assert self._emulator.stdin
        try:
            self._emulator.stdin.write(data)
            self._emulator.stdin.flush()
        except BrokenPipeError:
            raise ShellError(f"the kernel ended: {self._tail()}") from None

    def wait_for(self, mark: bytes) -> str:
        """What came before the next `mark`, which is taken out of the stream with it."""
        seen = 0
        with self._news:
            while (at := self._output.find(mark, seen)) < 0:
                if self._ended:
                    raise ShellError(f"the kernel ended: {self._tail()}")
                seen = max(0, len(self._output) - len(mark))
                if not self._news.wait(self.limit):
                    raise ShellError(f"nothing for {self.limit:g} s, waiting for {mark!r}: {self._tail()}")
            text = bytes(self._output[:at])
            del self._output[: at + len(mark)]
        return text.decode(errors="replace").replace("\r\n", "\n")

    def _tail(self) -> str:
        return bytes(self._output[-600:]).decode(errors="replace")

    def ask(self, line: str) -> str:
        """What the kernel answers to a line, without the echo of it."""
        self.type(line.encode() + ENTER)
        return self.wait_for(PROMPT).partition("\n")[2]

    def type_lines(self, lines: Iterable[bytes], number: int) -> str:
        """Types lines of any bytes at once, and waits until all are done; `number` tells one call from the next."""
        # The letter ends whatever sequence the last line left open, so that the mark is read as it
        # is.
        mark = f"mark{number}"
        self.type(b"".join(line + ENTER for line in lines) + b"a" + ENTER + f"help {mark}".encode() + ENTER)
        text = self.wait_for(f"`{mark}` is no command".encode())
        self.wait_for(PROMPT)
        return text

    def off(self) -> int:
        """Turns the machine off; the emulator's exit status."""
        self.type(b"off" + ENTER)
        return self.wait_for_end()

    def wait_for_end(self) -> int:
        """Waits until the machine is off; the emulator's exit status."""
        try:
            return self._emulator.wait(self.limit)
        except subprocess.TimeoutExpired:
            raise ShellError("the machine does not turn off") from None
