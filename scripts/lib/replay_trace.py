"""Traces of a kernel's vmalloc areas, as the host reads them before a boot.

The same as the crate trace-replay, which the kernel reads them by: what is refused, in which words,
and how much RAM a replay needs. The files in scripts/traces/refused hold the two against each other,
and so does each replay.
"""

import gzip
import zlib
from dataclasses import dataclass, field
from pathlib import Path

from .errors import ScriptError

HEADER = "seq,cpu,op,id,size,align,kind"
PAGE = 4096
MAX_BYTES = 1 << 40
MAX_CPUS = 4096
WINDOW = 256
"""How many events the CPUs may be apart."""
MAX_TEXT = 512 << 20
"""Bytes of text at most: what a machine has room for beside what it replays."""
LAZY = 32 << 20
"""Bytes of addresses that the kernel lets wait for a flush."""
HEAP_PER_LINE = 192
PER_AREA = 1 << 10
FIXED = 16 << 20

GUARDED = ("vmalloc", "vmalloc_huge", "stack", "module", "execmem", "bpf_jit", "vmap", "ioremap")
KINDS = (*GUARDED, "percpu", "vm_map_ram", "vmap_block", "vm_map_ram_area")
NO_RAM = ("ioremap", "vmap_block")
CODE = ("module", "execmem", "bpf_jit")
PURGES = ("drain", "unmap_aliases", "reclaim")
BEHIND_CALLS = ("vmap_block", "vm_map_ram_area")


class Refused(ScriptError):
    """A trace that cannot be replayed; the message says where and why."""


@dataclass(frozen=True)
class Area:
    id: int
    kind: str
    size: int
    """Without the guard page."""
    line: int

    @property
    def ram(self) -> int:
        return 0 if self.kind in NO_RAM else self.size


@dataclass(frozen=True)
class Event:
    op: str
    kind: str
    area: Area | None


@dataclass
class Trace:
    nr_cpus: int = 1
    lines: int = 0
    pre: list[Area] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    nr_skipped: int = 0

    @property
    def areas(self) -> list[Area]:
        return self.pre + [event.area for event in self.events if event.op == "alloc" and event.area]

    def calls(self) -> dict[tuple[str, str], int]:
        """How often a replay performs each operation on each kind."""
        calls: dict[tuple[str, str], int] = {}

        def add(op: str, kind: str, nr: int = 1) -> None:
            if nr:
                calls[op, kind] = calls.get((op, kind), 0) + nr

        for op, kind in [("pre", area.kind) for area in self.pre] + [(event.op, event.kind) for event in self.events]:
            add(op, kind)
            if op in ("pre", "alloc") and kind in CODE:
                add("protect", kind)
        for kind in KINDS:
            add("rest", kind, calls.get(("pre", kind), 0) + calls.get(("alloc", kind), 0) - calls.get(("free", kind), 0))
        return calls


@dataclass(frozen=True)
class Need:
    peak_areas: int
    peak_bytes: int
    peak_ram: int
    free_ram: int


def shown(text: bytes) -> str:
    """A bad field: printable, and no longer than a line."""
    words = "".join(chr(byte) if 0x20 <= byte <= 0x7E else f"<{byte:02x}>" for byte in text[:40])
    return f"`{words}{'...' if len(text) > 40 else ''}`"


def number(column: str, text: bytes) -> int:
    """One or more digits, with any number of zeros in front, below 2^64."""
    significant = text.lstrip(b"0")
    # No more digits than 2^64 has: Python's `int` has a limit of its own.
    if text and all(0x30 <= byte <= 0x39 for byte in text) and len(significant) <= len(str(1 << 64)):
        value = int(significant or b"0")
        if value < 1 << 64:
            return value
    raise Refused(f"{column}: expected a number below 2^64, found {shown(text)}")


def parse_row(line: bytes) -> tuple[int, str, int, int, str]:
    """CPU, operation, id, size and kind of one line."""
    columns = line.split(b",")
    if len(columns) != 7:
        raise Refused(f"expected 7 columns, found {len(columns)}")
    number("seq", columns[0])
    cpu = number("cpu", columns[1])
    if cpu >= MAX_CPUS:
        raise Refused(f"cpu: expected 0 to {MAX_CPUS - 1}, found {cpu}")
    op, kind = columns[2].decode("latin-1"), columns[6].decode("latin-1")
    if op in ("pre", "alloc", "free"):
        if kind not in KINDS:
            raise Refused(f"kind: there is no area of kind {shown(columns[6])}")
    elif op == "purge":
        if kind not in PURGES:
            raise Refused(f"kind: expected drain, unmap_aliases or reclaim, found {shown(columns[6])}")
    else:
        raise Refused(f"op: expected pre, alloc, free or purge, found {shown(columns[2])}")
    id, size, align = number("id", columns[3]), number("size", columns[4]), number("align", columns[5])
    if op != "purge":
        check_area(kind, size, align)
    return cpu, op, id, size, kind


def check_area(kind: str, size: int, align: int) -> None:
    if size == 0 or size > MAX_BYTES or size % PAGE:
        raise Refused(f"size: expected a multiple of {PAGE} from {PAGE} to {MAX_BYTES}, found {size}")
    if kind in GUARDED and size == PAGE:
        raise Refused(f"size: {size} bytes are the guard page and nothing else")
    if align > MAX_BYTES or align == 0 or align & (align - 1):
        raise Refused(f"align: expected a power of two from 1 to {MAX_BYTES}, found {align}")


def parse(text: bytes) -> Trace:
    """Reads a whole trace. Raises Refused for the first line that cannot be performed."""
    *lines, rest = text.split(b"\n")
    header = lines[0] if lines else b""
    if not lines and rest:
        raise Refused("line 1: the line does not end: the file was cut off")
    if header != HEADER.encode():
        raise Refused(f"line 1: expected the header {HEADER}, found {shown(header)}")
    trace = Trace(lines=len(lines))
    known: dict[int, Area] = {}
    freed: dict[int, int] = {}
    for at, line in enumerate(lines[1:], 2):
        try:
            take(trace, at, parse_row(line), known, freed)
        except Refused as problem:
            raise Refused(f"line {at}: {problem}") from None
    if rest:
        raise Refused(f"line {len(lines) + 1}: the line does not end: the file was cut off")
    if any(area.kind == "vm_map_ram" for area in known.values()):
        leave_out(trace)
    return trace


def take(trace: Trace, at: int, row: tuple[int, str, int, int, str], known: dict[int, Area], freed: dict[int, int]) -> None:
    cpu, op, id, size, kind = row
    trace.nr_cpus = max(trace.nr_cpus, cpu + 1)
    area = None
    if op in ("pre", "alloc"):
        if id in known:
            raise Refused(f"id: {id} is that of line {known[id].line}")
        area = known[id] = Area(id, kind, size - (PAGE if kind in GUARDED else 0), at)
        if op == "pre":
            if trace.events:
                raise Refused("op: pre comes after the first event")
            trace.pre.append(area)
            return
    elif op == "free":
        if id not in known:
            raise Refused(f"id: {id} was never allocated")
        if id in freed:
            raise Refused(f"id: {id} was freed on line {freed[id]}")
        freed[id] = at
        area = known[id]
        kind = area.kind
    trace.events.append(Event(op, kind, area))


def leave_out(trace: Trace) -> None:
    """Blocks and areas that Linux makes for calls of vm_map_ram say the same as the calls."""
    before = len(trace.pre) + len(trace.events)
    trace.pre = [area for area in trace.pre if area.kind not in BEHIND_CALLS]
    trace.events = [event for event in trace.events if event.kind not in BEHIND_CALLS]
    trace.nr_skipped = before - len(trace.pre) - len(trace.events)


def most_ram(trace: Trace, window: int) -> int:
    """The most RAM in areas, when a CPU may be `window` events ahead of the last that is not done."""
    made = [event.area.ram if event.op == "alloc" and event.area else 0 for event in trace.events]
    gone = [event.area.ram if event.op == "free" and event.area else 0 for event in trace.events]
    done = sum(area.ram for area in trace.pre)
    ahead = sum(made[:window])
    most = done + ahead
    for index in range(len(made)):
        done += made[index] - gone[index]
        ahead += (made[index + window] if index + window < len(made) else 0) - made[index]
        most = max(most, done + ahead)
    return most


def need(trace: Trace, cpus: int) -> Need:
    """What a replay on `cpus` CPUs takes."""
    areas = len(trace.pre)
    size = sum(area.size for area in trace.pre)
    peak_areas, peak_bytes = areas, size
    for event in trace.events:
        if event.area:
            sign = 1 if event.op == "alloc" else -1
            areas += sign
            size += sign * event.area.size
            peak_areas, peak_bytes = max(peak_areas, areas), max(peak_bytes, size)
    every = trace.areas
    largest = max((area.ram for area in every), default=0)
    held = most_ram(trace, WINDOW if cpus > 1 else 1) + LAZY + cpus * largest
    tables = (peak_bytes + LAZY) // 512 * 2 + held // 64
    free = held + tables + trace.lines * HEAP_PER_LINE + len(every) * PER_AREA + FIXED
    return Need(peak_areas, peak_bytes, most_ram(trace, 1), -(-free // PAGE) * PAGE)


def read(path: Path) -> bytes:
    """The text of a trace, unpacked if it is gzip. Raises Refused for one that is too long."""
    with path.open("rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    try:
        with gzip.open(path) if packed else path.open("rb") as file:
            text = file.read(MAX_TEXT + 1)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise Refused(f"{path}: not a whole gzip file ({error})") from None
    if len(text) > MAX_TEXT:
        raise Refused(f"{path}: more than {MAX_TEXT >> 20} MiB of text")
    return text
