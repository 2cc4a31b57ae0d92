"""What `mode=bench` prints, put beside what Linux costs on the same emulator.

Everything here is pure: lines of the console and the CSV files of scripts/bench-data go in, the
contents of build/bench.json come out.
"""

import csv
import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from .errors import Malformed
from .fields import Record, decode

DATA = Path(__file__).resolve().parents[1] / "bench-data"
OURS = "vmwalk"
MARK = "bench "
OPS = ("map", "unmap", "lazy", "protect", "loop")
"""What is measured of a case: most have map and unmap, those of test_vmalloc have a loop of both."""
LINUX = {"linux-7.3": "linux-7.3-icount.csv", "linux-7.3-series": "linux-7.3-series-icount.csv"}
LOOPS = "test_vmalloc-linux-7.3.csv"

CPUS = "cpus: "
"""What the names of work on several CPUs begin with."""
RELEASE = "release"
"""What a kernel says it was built as, if its figures are comparable with others."""
BOOT_CURVE = "boot to first self-test, by MiB of RAM"

Json = dict[str, Any]


BadOutput = Malformed
"""What the kernel printed is not a complete bench, or a file is none; the message says where."""


@dataclass
class Output:
    """What one boot measured: by case, by walker, by operation, in the order of the boot."""

    machine: Json = field(default_factory=dict)
    cases: dict[str, dict[str, dict[str, Json]]] = field(default_factory=dict)
    curves: dict[str, list[tuple[int, int]]] = field(default_factory=dict)


def parse(lines: Iterable[str]) -> Output:
    """Reads the console's lines; those without the mark are somebody else's."""
    output = Output()
    for line in lines:
        if not line.startswith(MARK):
            continue
        take(output, decode(line.removeprefix(MARK), repr(line)), line)
    if not output.machine:
        raise BadOutput("the kernel did not say what it measures with")
    for case, walkers in output.cases.items():
        if OURS not in walkers:
            raise BadOutput(f"{case}: {OURS} itself is missing")
    return output


def parse_name(line: str) -> str:
    """The name in a line of `bench=list`."""
    where = repr(line)
    return Record(decode(line.removeprefix(MARK), where), where).text("name")


def name_of(line: str) -> str:
    """The case or the curve that a line is about."""
    where = repr(line)
    record = Record(decode(line.removeprefix(MARK), where), where)
    return record.text("case" if "case" in record else "curve")


def take(output: Output, record: Json, line: str) -> None:
    match record:
        case {"machine": dict(machine)}:
            output.machine = machine
        case {"case": str(case), "walker": str(walker), "op": str(op), "instructions": int()} if op in OPS:
            ops = output.cases.setdefault(case, {}).setdefault(walker, {})
            if op in ops:
                raise BadOutput(f"{case}, {walker}: {op} was measured twice")
            ops[op] = {key: value for key, value in record.items() if key not in ("case", "walker", "op")}
        case {"curve": str(curve), "x": int(x), "y": int(y)}:
            output.curves.setdefault(curve, []).append((x, y))
        case _:
            raise BadOutput(f"not understood: {line!r}")


def parse_work(lines: Iterable[str], cpus: int) -> list[Json]:
    """What several CPUs did together: one record for each kind of work.

    Raises BadOutput if one of them did less than its share, or if a CPU waited for itself.
    """
    found = []
    for line in lines:
        record = decode(line.removeprefix(MARK), repr(line))
        match record:
            case {"work": str(work), "cpus": int(nr), "operations": int(), "waits": int(waits)}:
                if nr != cpus:
                    raise BadOutput(f"{work}: {nr} of {cpus} CPUs took part")
                if nr == 1 and waits:
                    raise BadOutput(f"{work}: one CPU alone waited {waits} times for a lock")
                found.append(record)
            case _:
                raise BadOutput(f"not understood: {line!r}")
    return found


def measured(document: Json) -> list[Json]:
    """Everything that was measured: the cases, each of which has a map and an unmap, and the loops, which have both in one."""
    return [*document.get("cases", []), *document.get("loops", [])]


def too_steep(document: Json) -> list[str]:
    """Curves that rise more than they may.

    By live areas: in proportion to the logarithm of their number, from 100 on, and a tenth more. Per
    page: not at all, but for a twentieth between one size and the next.
    """
    complaints = []
    for name, points in document.get("curves", {}).items():
        if name.endswith("by live areas"):
            first_x, first_y = next((x, y) for x, y in points if x >= 100)
            for x, y in points:
                if x > first_x and y > 1.1 * first_y * math.log(x) / math.log(first_x):
                    complaints.append(f"{name}: {y:,} at {x:,} is more than logarithmic growth from {first_y:,} at {first_x:,}")
        elif name.endswith("per 1,000 pages"):
            for (before_x, before), (x, y) in pairwise(points):
                if y > 1.05 * before:
                    complaints.append(f"{name}: {y:,} at {x:,} is more than {before:,} at {before_x:,}")
    return complaints


def unmatched(document: Json, folder: Path = DATA) -> list[str]:
    """Cases that Linux was measured in, and that are not in the document."""
    ours = {case["case"] for case in measured(document)}
    return [case for rows in read_linux(folder).values() for case in rows if case not in ours]


def read_csv(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file whose comments begin with #."""
    with path.open() as file:
        return list(csv.DictReader(line for line in file if not line.startswith("#")))


DEFERRED = ", deferred"
"""What ends the name of a case whose unmap is not flushed before it returns."""


def read_linux(folder: Path = DATA) -> dict[str, dict[str, Json]]:
    """Per peer, per case: map, unmap, and what lazy purge owes."""
    peers: dict[str, dict[str, Json]] = {}
    for peer, file in LINUX.items():
        peers[peer] = {
            row["case"]: {"map": int(row["map"]), "unmap": int(row["unmap"]), "lazy": int(row["lazy_purge"])} | linux_entries(row["leaves"] or "")
            for row in read_csv(folder / file)
        }
    peers["linux-7.3"] |= read_loops(folder)
    for cases in peers.values():
        # It defers always: its row stands beside both of ours.
        cases |= {f"{case}{DEFERRED}": cases[case] for case in ("vmap 16, order 0", "vm_map_ram 16") if case in cases}
    return peers


def linux_entries(leaves: str) -> Json:
    """How many TLB entries the leaves need that Linux wrote, where any were counted.

    Descriptors are counted, by kind: "pud=0 pmd=0 contpte=16 pte=1 none=0", or "16xcont 1x4K". Of those with the contiguous
    bit, 16 are one entry.
    """
    kinds = {kind: int(nr) for kind, nr in re.findall(r"(\w+)=(\d+)", leaves)} | {kind: int(nr) for nr, kind in re.findall(r"(\d+)x(\w+)", leaves)}
    entries = sum(nr // 16 if kind.startswith("cont") else nr for kind, nr in kinds.items() if kind != "none")
    return {"tlb_entries": entries} if entries else {}


def tlb_entries(leaves: str) -> int:
    """How many TLB entries our leaves need ("3x4K 16x64K"): a whole contiguous group is one leaf, and one entry."""
    return sum(int(count) for count in re.findall(r"(\d+)x", leaves))


def read_loops(folder: Path = DATA) -> dict[str, Json]:
    """Loops of test_vmalloc: one number each, allocation and release together."""
    return {
        f"test_vmalloc {row['test']}, {row['nr_pages']} pages" + (", huge" if row["use_huge"] == "1" else ""): {
            "loop": int(row["instructions_per_loop"])
        }
        for row in read_csv(folder / LOOPS)
    }


def figures(op: Mapping[str, Any]) -> Json:
    """One operation as build/bench.json has it."""
    result: Json = {"instructions": op["instructions"]}
    if "steady" in op:
        result["steady"] = op["steady"]
    if "loads" in op:
        result |= {key: op[key] for key in ("loads", "stores")}
        result["tables"] = round(op["allocated"] + op["freed"], 3)
        result |= {key: op[key] for key in ("tlbi", "dsb", "isb")}
    return result


def document(output: Output, linux: Mapping[str, Mapping[str, Json]], machine: Json) -> Json:
    """The contents of build/bench.json."""
    cases: list[Json] = []
    loops: list[Json] = []
    for name, walkers in output.cases.items():
        ours = walkers[OURS]
        case: Json = {"case": name} | {op: figures(ours[op]) for op in OPS if op in ours}
        if leaves := ours.get("map", {}).get("leaves"):
            case |= {"leaves": leaves, "tlb_entries": tlb_entries(leaves)}
        peers: Json = {peer: rows[name] for peer, rows in linux.items() if name in rows}
        for walker, ops in walkers.items():
            if walker != OURS:
                peers[walker] = {op: ops[op]["instructions"] for op in OPS if op in ops}
                peers[walker]["counts"] = {op: figures(ops[op]) for op in OPS if op in ops}
                if note := ops.get("map", {}).get("note"):
                    peers[walker]["note"] = note
        (loops if "loop" in ours else cases).append(case | {"peers": peers})
    result = {"machine": machine | output.machine, "cases": cases}
    if loops:
        result["loops"] = loops
    if output.curves:
        result["curves"] = {name: [list(point) for point in points] for name, points in output.curves.items()}
    return result


def advantage(cases: Iterable[Json], peer: str, ops: tuple[str, ...] = ("map", "unmap")) -> tuple[float, int, list[str]]:
    """Geometric mean of peer / ours over `ops`, the number of cases that have one, and those where ours is dearer."""
    logs: list[float] = []
    slower: list[str] = []
    nr = 0
    for case in cases:
        theirs = case["peers"].get(peer)
        if not theirs or "note" in theirs or not any(op in theirs and op in case for op in ops):
            continue
        nr += 1
        for op in ops:
            if op in theirs and op in case:
                ours = max(1, case[op]["instructions"])
                logs.append(math.log(max(1, theirs[op]) / ours))
                if ours > theirs[op]:
                    slower.append(f"{case['case']} ({op}: {ours} > {theirs[op]})")
    return (math.exp(sum(logs) / len(logs)) if logs else 0.0), nr, slower


def open_document(path: Path) -> Record:
    """A result of whatever kind, looked at no further than its machine."""
    try:
        text = path.read_bytes()
    except OSError as error:
        raise BadOutput(f"{path}: {error.strerror}") from None
    document = Record(decode(text, str(path)), str(path))
    document.record("machine")
    return document


def kind(document: Json) -> str:
    """What was counted: `instructions`, exactly, or what the `pmu` of a machine has."""
    return str(document["machine"].get("counters", "instructions"))


def read_document(path: Path) -> Json:
    """A bench.json or a baseline. Raises BadOutput with the place where it is neither."""
    document = open_document(path)
    if kind(document.value) != "instructions":
        raise BadOutput(f"{path}: has counters of the PMU, and no exact instructions (make compare A=FILE B=FILE compares two such files)")
    return check_document(document)


def check_document(document: Record) -> Json:
    """Returns the document of exact instructions, if it is one."""
    for part in ("cases", "loops"):
        for case in document.records(part) if part == "cases" or part in document else []:
            case.text("case")
            ops = [op for op in OPS if op in case]
            if not ops:
                raise BadOutput(f"{case.where}: expected one of {', '.join(OPS)}")
            for op in ops:
                case.record(op).number("instructions")
    return document.value


def unlike(base: Json, new: Json) -> list[str]:
    """What differs between two machines that figures depend on, where both say it."""
    return [f"{key} is {new[key]!r}, not {base[key]!r}" for key in ("cpu", "build") if key in base and key in new and base[key] != new[key]]


@dataclass(frozen=True)
class Change:
    """An operation's instructions before and after."""

    case: str
    op: str
    before: int
    after: int

    @property
    def percent(self) -> float:
        return 100.0 * (self.after - self.before) / max(1, self.before)


def changes(base: Json, new: Json) -> list[Change]:
    """Every operation that both documents have."""
    after = {case["case"]: case for case in measured(new)}
    return [
        Change(case["case"], op, case[op]["instructions"], after[case["case"]][op]["instructions"])
        for case in measured(base)
        if case["case"] in after
        for op in OPS
        if op in case and op in after[case["case"]]
    ]


ACCESSES = ("loads", "stores", "tables", "tlbi", "dsb", "isb")
"""What an operation does to tables and TLBs, whatever instructions it takes."""


def other_accesses(base: Json, new: Json) -> list[str]:
    """Where two builds of the same kernel did something else to the tables: which case, and what.

    Not in loops: what one of random sizes takes depends on what the heap and the caches have of what came before.
    """
    after = {case["case"]: case for case in new["cases"]}
    found = [f"{case['case']} did not run" for case in base["cases"] if case["case"] not in after]
    for case in base["cases"]:
        other = after.get(case["case"], {})
        if other and case.get("leaves") != other.get("leaves"):
            found.append(f"{case['case']}: leaves {case.get('leaves')}, then {other.get('leaves')}")
        for op in OPS:
            for key in ACCESSES:
                one, two = (side.get(op, {}).get(key) for side in (case, other))
                if other and one != two:
                    found.append(f"{case['case']} ({op}): {key} {one}, then {two}")
    return found


def missing(base: Json, new: Json) -> list[str]:
    """Operations that the base has and the new document has not."""
    after = {case["case"]: case for case in measured(new)}
    return [
        f"{case['case']} ({op})"
        for case in measured(base)
        for op in OPS
        if op in case and op not in after.get(case["case"], {})
    ]


def regressions(base: Json, new: Json, percent: float) -> list[Change]:
    """Operations that became dearer by more than `percent`."""
    return [change for change in changes(base, new) if change.percent > percent]


PROVENANCE = ("command", "counters", "name", "accelerator", "emulator", "commit")
"""What a baseline has no use for."""


def baseline(new: Json) -> Json:
    """What is committed of a document: enough to notice a regression."""
    parts = {
        part: [
            {"case": case["case"]} | {op: {"instructions": case[op]["instructions"]} for op in OPS if op in case}
            for case in new[part]
        ]
        for part in ("cases", "loops")
        if part in new
    }
    return {"machine": {key: value for key, value in new["machine"].items() if key not in PROVENANCE}} | parts


def extended(base: Json, new: Json) -> Json:
    """A baseline with the cases that it lacked, in the order of the new document; what it had stays as it was."""
    known = {case["case"]: case for case in measured(base)}
    there = {case["case"] for case in measured(new)}
    result = dict(base)
    for part, fresh in baseline(new).items():
        if part != "machine":
            gone = [case for case in base.get(part, []) if case["case"] not in there]
            result[part] = [known.get(case["case"], case) for case in fresh] + gone
    return result
