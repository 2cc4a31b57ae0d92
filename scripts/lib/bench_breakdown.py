"""Where the instructions of one measured call go, function by function, exactly.

The bench reads the instruction counter before and after each call that it measures. The emulator is
stopped at these reads by its own debugger stub, told to execute one instruction at a time and to log
each while one call runs, and the log is attributed to functions, inlined ones included, by the debug
information of the kernel. Nothing is sampled: the sum must be what the guest's own counter says.
"""

import json
import os
import re
import socket
import struct
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from . import processes
from .bench_boot import Failed
from .errors import reading
from .machine import Machine
from .paths import program

MRS_PMEVCNTR0 = 0xD53BE800
"""MRS Xt, PMEVCNTR0_EL0, with Xt = X0: what a read of the counter is made of."""
BEFORE_CASES = 5
"""Pairs of reads with which the instrument tests itself: an empty one, and loops of known length."""
WARM_UP = 3
OWN = 2
"""Instructions that the pair of reads counts of its own: ISB and MRS of the second."""
LOOPS = 100
"""Loops of test_vmalloc that are measured together."""

LIBRARY = ("core::", "alloc::")

LIMIT = 120.0


@dataclass(frozen=True)
class Window:
    """One measured call: how many instructions the guest counted, and the address of each that was logged."""

    counted: int
    addresses: list[int]


def executable_words(elf: bytes) -> list[tuple[int, int]]:
    """Address and value of each word in the file's executable sections."""
    offset, = struct.unpack_from("<Q", elf, 0x28)
    size, number = struct.unpack_from("<HH", elf, 0x3A)
    words = []
    for i in range(number):
        kind, flags, address, at, length = struct.unpack_from("<4xIQQQQ", elf, offset + i * size)
        if kind == 1 and flags & 4:
            words += zip(range(address, address + length, 4), (word for (word,) in struct.iter_unpack("<I", elf[at : at + length // 4 * 4])), strict=False)
    return words


def reads_of_the_counter(elf: bytes) -> dict[int, int]:
    """Where the kernel reads the counter: address, and number of the register that it is read to."""
    found = {address: word & 31 for address, word in executable_words(elf) if word & ~31 == MRS_PMEVCNTR0}
    if not found:
        raise Failed("the kernel reads no instruction counter anywhere")
    return found


class Stub:
    """The emulator's debugger stub: the few packets of gdb's remote protocol that are needed."""

    def __init__(self, path: Path) -> None:
        deadline = time.monotonic() + 20
        self._socket = socket.socket(socket.AF_UNIX)
        while True:
            try:
                self._socket.connect(str(path))
                break
            except OSError:
                if time.monotonic() > deadline:
                    raise Failed("the emulator opens no debugger stub") from None
                time.sleep(0.02)
        self._socket.settimeout(LIMIT)
        self._read = b""
        # The stub gives single registers only to those who have asked what there are.
        self.ask("qXfer:features:read:target.xml:0,1")
        self._at_breakpoint = False

    def ask(self, packet: str) -> str:
        """Sends a packet and gives the answer."""
        data = packet.encode()
        self._socket.sendall(b"$" + data + b"#" + f"{sum(data) % 256:02x}".encode())
        return self._packet()

    def _packet(self) -> str:
        while (match := re.search(rb"\$([^#]*)#..", self._read)) is None:
            try:
                more = self._socket.recv(65536)
            except TimeoutError:
                raise Failed("the emulator does not come to the next measured call") from None
            if not more:
                raise Failed("the emulator ended before the measured call")
            self._read += more
        self._read = self._read[match.end() :]
        self._socket.sendall(b"+")
        return match[1].decode()

    def monitor(self, command: str) -> None:
        """Has the emulator's monitor do something. Raises Failed with what it says: these commands are silent where they work."""
        said = b""
        answer = self.ask("qRcmd," + command.encode().hex())
        while answer.startswith("O") and answer != "OK":
            said += bytes.fromhex(answer[1:])
            answer = self._packet()
        if said.strip() or answer != "OK":
            raise Failed(f"the emulator's monitor, asked for {command!r}: {said.decode(errors='replace').strip() or answer}")

    def one_instruction_at_a_time(self, switch: str) -> None:
        """The command has one name from QEMU 8.1 on, and had another up to 8.2."""
        try:
            self.monitor(f"one-insn-per-tb {switch}")
        except Failed:
            self.monitor(f"singlestep {switch}")

    def break_at(self, address: int) -> None:
        if (answer := self.ask(f"Z1,{address:x},4")) != "OK":
            raise Failed(f"no breakpoint at {address:#x}: {answer}")

    def run(self) -> None:
        """To the next breakpoint. The stub would stop at the one where the guest is, so that is stepped over."""
        if self._at_breakpoint:
            self.step()
        answer = self.ask("c")
        self._at_breakpoint = True
        if not answer.startswith(("T05", "S05")):
            raise Failed(f"the emulator stopped otherwise than at a breakpoint: {answer}")

    def step(self) -> None:
        self.ask("s")
        self._at_breakpoint = False

    def register(self, number: int) -> int:
        """General register 0 to 30; 32 is the program counter."""
        return int.from_bytes(bytes.fromhex(self.ask(f"p{number:x}")), "little")


def trace(machine: Machine, elf: Path, wanted: list[int]) -> list[Window]:
    """The measured calls with these numbers, counted from 0 behind the instrument's test of itself."""
    with reading(elf):
        reads = reads_of_the_counter(elf.read_bytes())
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        stub_path = Path(folder) / "stub"
        command = [*machine.command(), "-S", "-D", str(log), "-gdb", f"unix:{stub_path},server=on,wait=off"]
        process = processes.start(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            stub = Stub(stub_path)
            for address in reads:
                stub.break_at(address)
            windows = []
            next_window = -BEFORE_CASES
            for number in wanted:
                for _ in range(number - next_window):
                    stub.run()
                    stub.run()
                next_window = number + 1
                windows.append(one_window(stub, reads, log))
            return windows
        finally:
            processes.end(process)


def read_counter(stub: Stub, reads: dict[int, int]) -> int:
    """Executes the read that the guest is stopped at."""
    register = reads.get(stub.register(32))
    if register is None:
        raise Failed(f"stopped at {stub.register(32):#x}, which is no read of the counter")
    stub.step()
    return stub.register(register) & 0xFFFF_FFFF


def one_window(stub: Stub, reads: dict[int, int], log: Path) -> Window:
    stub.run()
    before = read_counter(stub, reads)
    start = log.stat().st_size if log.exists() else 0
    stub.one_instruction_at_a_time("on")
    stub.monitor("log exec,nochain")
    stub.run()
    stub.monitor("log none")
    stub.one_instruction_at_a_time("off")
    after = read_counter(stub, reads)
    with log.open() as file:
        file.seek(start)
        addresses = logged(file)
    # The ISB before the second read is in the log, the read itself is not.
    return Window((after - before - OWN) & 0xFFFF_FFFF, addresses[:-1])


def logged(lines: Iterable[str]) -> list[int]:
    """The addresses of the instructions that were executed, in order."""
    addresses: list[int] = []
    for line in lines:
        if match := re.match(r"Trace \d+: \S+ \[[0-9a-f]+/([0-9a-f]+)/", line):
            addresses.append(int(match[1], 16))
        elif line.startswith("Stopped execution of TB chain before") and addresses:
            # Entered, and left again before its instruction.
            addresses.pop()
    return addresses


INSIDE_GDB = Path(__file__).resolve().with_name("bench_functions.py")


class Place(NamedTuple):
    """Where an instruction is from: the innermost of the inlined functions, the one whose code it became part of, the line."""

    inner: str
    outer: str
    line: str


def functions_of(elf: Path, addresses: set[int]) -> dict[int, Place]:
    """Where the instruction at each address is from, by gdb."""
    with tempfile.TemporaryDirectory() as folder:
        asked, answer = Path(folder) / "asked", Path(folder) / "answer"
        asked.write_text(json.dumps(sorted(addresses)))
        env = {**os.environ, "BREAKDOWN_ASKED": str(asked), "BREAKDOWN_ANSWER": str(answer)}
        command = [program("gdb-multiarch"), "-nx", "-batch", "-ex", f"file {elf}", "-x", str(INSIDE_GDB)]
        try:
            done = subprocess.run(command, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=LIMIT)
        except FileNotFoundError:
            raise Failed("attributing instructions to functions takes gdb-multiarch (scripts/setup gdb)") from None
        if not answer.is_file():
            raise Failed(f"gdb attributed nothing: {done.stderr.strip()}")
        found = json.loads(answer.read_text())
    return {int(address): Place(short(innermost(names)), short(names[-1]), line) for address, (names, line) in found.items()}


def innermost(names: list[str]) -> str:
    """The innermost function that somebody wrote here: what it calls of Rust's library is its own doing."""
    return next((name for name in names if not name.startswith(LIBRARY)), names[0])


def short(name: str) -> str:
    """A path without its type arguments: `a::b<c<d>>::e` is `a::b::e`."""
    depth, kept = 0, []
    for i, letter in enumerate(name):
        if letter == "<":
            depth += 1
        elif letter == ">" and name[i - 1] != "-":
            depth -= 1
        elif depth == 0:
            kept.append(letter)
    return "".join(kept)


def table(title: str, window: Window, reported: int, functions: dict[int, Place], loops: int = 1) -> list[str]:
    """Functions by what they cost themselves, grouped by the function whose code they became part of.

    Raises Failed if the log is not what was counted.
    """
    total = len(window.addresses)
    if total != window.counted:
        raise Failed(f"{title}: {total} instructions are in the log, and {window.counted} were counted")
    outer: Counter[str] = Counter()
    inner: Counter[tuple[str, str]] = Counter()
    for address, nr in Counter(window.addresses).items():
        innermost, around, _ = functions.get(address, Place("?", "?", "?"))
        outer[around] += nr
        inner[around, innermost] += nr
    what = f"{title}: {total:,} instructions" + (f" in {loops} loops, {total / loops:,.1f} each" if loops > 1 else "")
    lines = [f"{what} (the median that the bench reports: {reported:,})"]
    for name, nr in outer.most_common():
        lines.append(f"{nr / loops:>10,.6g} {100 * nr / total:5.1f}%  {name}")
        parts = [(part, count) for (around, part), count in inner.most_common() if around == name]
        if len(parts) > 1:
            shown = [(part, count) for part, count in parts if 200 * count >= total]
            lines += [f"{count / loops:>10,.6g} {100 * count / total:5.1f}%      {'itself' if part == name else part}" for part, count in shown]
            if rest := nr - sum(count for _, count in shown):
                lines.append(f"{rest / loops:>10,.6g} {100 * rest / total:5.1f}%      {len(parts) - len(shown)} of less than 0.5% each")
    return lines
