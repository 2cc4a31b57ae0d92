"""What the running kernel has mapped, read from its `ptmap` lines, as a model of its tables."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

SLOTS = 512
SHIFTS = (39, 30, 21, 12)
"""What a slot of each level maps, as a power of two: 4 KiB granule, 48 bits."""
GROUP = 16


class BadDump(Exception):
    """The lines are no whole dump; the message says what is missing."""


@dataclass(frozen=True)
class Region:
    name: str
    start: int
    size: int

    @property
    def end(self) -> int:
        return self.start + self.size


@dataclass(frozen=True)
class Area:
    kind: str
    va: int
    size: int
    caller: str


@dataclass(frozen=True)
class Run:
    """Leaves of one size and one set of attributes, consecutive in VA and PA."""

    va: int
    pa: int
    size: int
    level: int
    contiguous: bool
    leaf: int
    name: str
    attributes: str
    valid: bool

    @property
    def end(self) -> int:
        return self.va + self.size


@dataclass(frozen=True)
class Table:
    """A table: its level, and the first address that it translates."""

    level: int
    start: int

    @property
    def slot(self) -> int:
        return 1 << SHIFTS[self.level]

    @property
    def size(self) -> int:
        return self.slot * SLOTS

    @property
    def end(self) -> int:
        return self.start + self.size


@dataclass
class Dump:
    regions: list[Region] = field(default_factory=list)
    areas: list[Area] = field(default_factory=list)
    runs: list[Run] = field(default_factory=list)

    def area_at(self, va: int) -> Area | None:
        return next((area for area in self.areas if area.va & -4096 <= va < area.va + area.size), None)

    def runs_in(self, start: int, end: int) -> Iterator[Run]:
        return (run for run in self.runs if run.va < end and run.end > start)

    def children(self, table: Table) -> list[Table]:
        """The tables that `table` links to: whatever has leaves further down."""
        shift = SHIFTS[table.level]
        starts: set[int] = set()
        for run in self.runs_in(table.start, table.end):
            if run.level > table.level:
                first, last = max(run.va, table.start) >> shift, (min(run.end, table.end) - 1) >> shift
                starts.update(slot << shift for slot in range(first, last + 1))
        return [Table(table.level + 1, start) for start in sorted(starts)]


def parse(lines: Iterable[str]) -> Dump:
    """Reads a dump; other lines are passed over."""
    dump = Dump()
    total: int | None = None
    for line in lines:
        if not line.startswith("ptmap {"):
            continue
        try:
            values = json.loads(line.removeprefix("ptmap "))
            if "region" in values:
                dump.regions.append(Region(values["region"], values["start"], values["size"]))
            elif "area" in values:
                dump.areas.append(Area(values["area"], values["va"], values["size"], values["caller"]))
            elif "runs" in values:
                total = values["runs"]
            else:
                dump.runs.append(Run(**values))
        except (ValueError, KeyError, TypeError) as error:
            raise BadDump(f"{line.strip()!r}: {error}") from None
    if total is None:
        raise BadDump("the dump has no last line")
    if total != len(dump.runs):
        raise BadDump(f"{len(dump.runs)} runs of {total}")
    if not dump.regions:
        raise BadDump("the dump names no region")
    return dump


def format_size(size: int) -> str:
    for shift, unit in ((40, "T"), (30, "G"), (20, "M"), (10, "K")):
        if size and size % (1 << shift) == 0:
            return f"{size >> shift}{unit}"
    return str(size)
