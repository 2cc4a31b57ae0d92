"""What the running kernel has mapped, read from its `ptmap` lines, as a model of its tables."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from .errors import Malformed
from .fields import Record, decode

SLOTS = 512
SHIFTS = (39, 30, 21, 12)
"""What a slot of each level maps, as a power of two: 4 KiB granule, 48 bits."""
GROUP = 16
PAGE = 1 << SHIFTS[3]
HALF = 1 << 48
MOST_PA = (1 << 52) - PAGE
MOST_TABLES = 1 << 17
"""Tables of one level that a run may need: 256 GiB of pages have so many. A picture of more is none."""
MARK = "ptmap "


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

    def mapped_in(self, region: Region) -> tuple[int, int]:
        """Bytes of the region that are mapped, and the number of runs that they are."""
        runs = list(self.runs_in(region.start, region.end))
        return sum(min(run.end, region.end) - max(run.va, region.start) for run in runs), len(runs)

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


def parse(lines: Iterable[str], source: str = "the dump") -> Dump:
    """Reads a dump; other lines are passed over. Raises Malformed with the line of `source` that is wrong."""
    dump = Dump()
    total: int | None = None
    for number, line in enumerate(lines, 1):
        if not line.startswith(MARK + "{"):
            continue
        where = f"{source}: line {number}"
        record = Record(decode(line.removeprefix(MARK), where), where)
        if total is not None:
            raise Malformed(f"{where}: expected nothing behind the number of runs")
        if "region" in record:
            dump.regions.append(read_region(record))
        elif "area" in record:
            dump.areas.append(Area(record.text("area"), record.number("va"), record.number("size", 1), record.text("caller")))
        elif "runs" in record:
            total = record.number("runs")
        else:
            dump.runs.append(read_run(record, dump.runs[-1] if dump.runs else None))
    if total is None:
        raise Malformed(f"{source}: expected a last line with the number of runs: the dump was cut off, or is none")
    if total != len(dump.runs):
        raise Malformed(f"{source}: expected {total} runs, found {len(dump.runs)}")
    if not dump.regions:
        raise Malformed(f"{source}: expected a line that names a region")
    return dump


def read_region(record: Record) -> Region:
    start = record.number("start", multiple_of=1 << SHIFTS[0])
    size = record.number("size", 1, HALF, multiple_of=1 << SHIFTS[0])
    record.check("size", lambda _: start % HALF + size <= HALF, f"at most {HALF - start % HALF:#x}, to the end of the half that {start:#x} is in")
    return Region(record.text("region"), start, size)


def read_run(record: Record, before: Run | None) -> Run:
    level = record.number("level", 1, 3)
    contiguous = record.flag("contiguous")
    leaf = (GROUP if contiguous else 1) << SHIFTS[level]
    record.check("leaf", lambda value: type(value) is int and value == leaf, f"{leaf:#x}, a leaf of level {level}{' with the contiguous bit' if contiguous else ''}")
    va = record.number("va", multiple_of=PAGE)
    size = record.number("size", 1, multiple_of=PAGE)
    record.check("size", lambda _: va % HALF + size <= HALF, f"at most {HALF - va % HALF:#x}, to the end of the half that {va:#x} is in")
    record.check("size", lambda _: size >> SHIFTS[level - 1] <= MOST_TABLES, f"no more than {MOST_TABLES:,} tables of level {level} need")
    record.check("va", lambda _: before is None or va >= before.end, f"{before.end if before else 0:#x} or more, behind the run before it")
    return Run(
        va=va,
        pa=record.number("pa", 0, MOST_PA, multiple_of=PAGE),
        size=size,
        level=level,
        contiguous=contiguous,
        leaf=leaf,
        name=record.text("name"),
        attributes=record.text("attributes"),
        valid=record.flag("valid"),
    )


def format_size(size: int) -> str:
    for shift, unit in ((40, "T"), (30, "G"), (20, "M"), (10, "K")):
        if size and size % (1 << shift) == 0:
            return f"{size >> shift}{unit}"
    return str(size)
