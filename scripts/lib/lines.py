"""What `make lines` counts: boots with the emulator's plugin, and the figures of each case."""

import csv
import os
import re
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from . import emulator, processes
from .bench_boot import ICOUNT, Failed
from .bench_breakdown import functions_of
from .bench_text import align
from .errors import Malformed, reading
from .fields import Record, decode
from .machine import Machine

Json = dict[str, object]

PLUGIN = Path(__file__).resolve().parent.parent / "lines-plugin"
LINUX = Path(__file__).resolve().parent.parent / "bench-data" / "linux-7.3-lines-8cpus.csv"

FIELDS = ("instructions", "loads", "stores", "lines", "rmw", "dsb", "dmb", "isb", "tlbi", "transfers")
"""The columns of the plugin's rows, in its order."""
HELD = ("rmw", "dsb", "dmb", "isb", "tlbi", "transfers")
"""What a committed baseline holds a case to. Instructions are the bench's."""
KINDS = ("map", "unmap")
READS = ("find_vm_area", "vmalloc_to_pfn", "vread of a page")
"""Cases of one call, which reads."""
CPUS = (1, 2, 4, 8, 32)

LINUX_CASES = (
    *("vmalloc 1", "vmalloc 16", "vmalloc 256", "vmap 16", "vm_map_ram 16", "ioremap 16"),
    "vmalloc 1, freed by another",
)
"""Linux's cases, in the order of its file: each on one CPU and then on eight, but the last, on eight."""


@dataclass
class Case:
    """The calls of one case: a row of counts each, by kind, and where transfers happened."""

    name: str
    cpus: int
    calls: tuple[list[list[int]], list[list[int]]] = field(default_factory=lambda: ([], []))
    sites: tuple["Counter[int]", "Counter[int]"] = field(default_factory=lambda: (Counter(), Counter()))
    """Transfers by the address of the instruction."""
    live: int = 0
    """Areas that were there throughout."""
    live_bytes: int = 0
    """What the subsystem took to know of them."""

    def means(self) -> Json:
        kinds = ("read",) if self.name in READS else KINDS
        entry: Json = {"case": self.name, "cpus": self.cpus}
        for kind, rows in zip(kinds, self.calls, strict=False):
            if not rows:
                raise Failed(f"{self.name} on {self.cpus} CPUs: no {kind} was counted")
            entry[kind] = {name: round(sum(row[i] for row in rows) / len(rows), 2) for i, name in enumerate(FIELDS)}
        return entry


def api_of(version: str) -> int:
    """The version of the plugin interface that this emulator loads, by what `--version` prints."""
    match = re.search(r"version (\d+)\.(\d+)", version)
    if not match:
        raise Failed(f"this emulator does not say its version: {version.strip()!r}")
    release = int(match[1]), int(match[2])
    return 1 if release < (9, 0) else 2 if release < (9, 1) else 3


def build_plugin(qemu: str, out: Path) -> Path:
    """The plugin, built for this emulator."""
    version = subprocess.run([processes.find(qemu), "--version"], stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", timeout=60)
    api = api_of(version.stdout)
    path = (out / f"lines-{api}.so").resolve()
    built = subprocess.run([str(PLUGIN / "build"), str(api), str(path)], stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if built.returncode:
        raise Failed(f"the plugin does not build: {built.stderr.strip()}")
    return path


def boot(cpu: str, smp: int, glob: str, out: Path, limits: emulator.Limits, areas: int = 0) -> list[Case]:
    """The cases of one boot with `smp` CPUs, which take turns: two boots count the same. `areas` are there beside those of the calls."""
    env = {**os.environ, "CPU": cpu, "SMP": str(smp), "MEM": "1024", "GIC": "3", "EL2": ""}
    env["BOOTARGS"] = f"mode=lines log=warn bench={glob}" + (f" lines.areas={areas}" if areas else "")
    plain = Machine.from_environment(env)
    plugin = build_plugin(plain.qemu, out)
    with tempfile.TemporaryDirectory() as folder:
        rows = Path(folder) / "rows"
        machine = Machine(**{**vars(plain), "extra": (*ICOUNT, "-plugin", f"{plugin},out={rows}")})
        log = out / "lines.log"
        with log.open("wb") as sink:
            transcript, end = emulator.run(machine.command(), limits, emulator.Outlet(sink, quiet=True))
        if transcript.alarms:
            raise Failed(transcript.alarms[0])
        if not transcript.done or end.defect():
            raise Failed(f"{smp} CPUs: {end.defect() or 'powered off early'}; the last line was {transcript.last_line!r}")
        with rows.open() as counted, reading("what the plugin wrote"):
            return parse(log.read_text(errors="replace").splitlines(), counted)


def parse(printed: Iterable[str], counted: Iterable[str]) -> list[Case]:
    """The cases that the kernel named, with the rows that the plugin wrote while each ran."""
    cases: dict[int, Case] = {}
    live = live_bytes = 0
    for line in printed:
        if line.startswith("areas {"):
            areas = Record(decode(line.removeprefix("areas "), repr(line)), repr(line))
            live, live_bytes = areas.number("areas", 1), areas.number("bytes")
        if line.startswith("lines {"):
            named = Record(decode(line.removeprefix("lines "), repr(line)), repr(line))
            cases[named.number("number")] = Case(named.text("case"), named.number("cpus", 1), live=live, live_bytes=live_bytes)
    ended = False
    for line in counted:
        word, *rest = line.split()
        ended = word == "end"
        if ended:
            continue
        case = cases.get(int(rest[0]))
        if case is None:
            # The rounds before those that count.
            continue
        kind = int(rest[1])
        if word == "call":
            case.calls[kind].append([int(number) for number in rest[2:]])
        elif word == "transfer":
            case.sites[kind][int(rest[2], 16)] += 1
        else:
            raise Failed(f"the plugin wrote {line.strip()!r}")
    if not ended:
        raise Failed("the plugin did not come to its end")
    return list(cases.values())


def linux() -> dict[tuple[str, int, str], float]:
    """Linux's transfers: by case, number of CPUs and kind, the mean over the measured calls."""
    with LINUX.open() as file:
        rows = {(int(row["case"]), row["kind"]): float(row["xfer_mean"]) for row in csv.DictReader(file)}
    cases = [(name, cpus) for name in LINUX_CASES[:-1] for cpus in (1, 8)] + [(LINUX_CASES[-1], 8)]
    found = {}
    for number, (name, cpus) in enumerate(cases, 1):
        for letter, kind in zip("AB", KINDS, strict=True):
            # Two markers a case: the warm-up has the odd number.
            found[name, cpus, kind] = rows[2 * number, letter]
    return found


def document(cases: Iterable[Case], cpu: str) -> Json:
    return {"machine": {"cpu": cpu}, "cases": [case.means() for case in cases]}


def table(document: Json) -> list[str]:
    """A row for each call, its means; beside it Linux's transfers where it was measured."""
    peers = linux()
    rows = [["call", "CPUs", *FIELDS, "Linux's transfers"]]
    for case in document["cases"]:  # type: ignore[attr-defined]
        for kind in ("map", "unmap", "read"):
            if counts := case.get(kind):
                peer = peers.get((case["case"], case["cpus"], kind))
                cells = [f"{counts[name]:,.10g}" for name in FIELDS]
                rows.append([f"{case['case']}, {kind}", str(case["cpus"]), *cells, "-" if peer is None else f"{peer:g}"])
    return align(rows)


def pairs(document: Json) -> list[str]:
    """Transfers of a call and its end together, on eight CPUs beside Linux's."""
    peers = linux()
    rows = [["transfers, call and end, 8 CPUs", "Linux 7.3", "vmwalk"]]
    for case in document["cases"]:  # type: ignore[attr-defined]
        if case["cpus"] == 8 and "map" in case:
            ours = case["map"]["transfers"] + case["unmap"]["transfers"]
            theirs = [peers.get((case["case"], 8, kind)) for kind in KINDS]
            rows.append([case["case"], "-" if None in theirs else f"{sum(theirs):.1f}", f"{ours:.1f}"])  # type: ignore[arg-type]
    return align(rows) if len(rows) > 1 else []


def sites(cases: Iterable[Case], elf: Path, most: int = 12) -> list[str]:
    """Which functions and lines the transfers happen in: what is left to remove, case by case."""
    cases = [case for case in cases if any(case.sites)]
    if not cases:
        return []
    found = functions_of(elf, {address for case in cases for kind in case.sites for address in kind})
    lines = []
    for case in cases:
        for kind, counter, rows in zip(KINDS, case.sites, case.calls, strict=True):
            places: Counter[str] = Counter()
            for address, nr in counter.items():
                where = found[address]
                places[f"{where.inner} ({where.line})"] += nr
            if not places:
                continue
            lines += ["", f"{case.name}, {'read' if case.name in READS else kind}, {case.cpus} CPUs: transfers a call"]
            lines += [f"{nr / len(rows):>8.2f}  {place}" for place, nr in places.most_common(most)]
            if rest := sum(nr for _, nr in places.most_common()[most:]):
                lines.append(f"{rest / len(rows):>8.2f}  elsewhere")
    return lines[1:]


def baseline(document: Json) -> Json:
    """What is committed: the figures that a case is held to."""
    return {
        f"{case['case']}, {kind}, {case['cpus']} CPUs": {name: case[kind][name] for name in HELD}
        for case in document["cases"]  # type: ignore[attr-defined]
        for kind in ("map", "unmap", "read")
        if kind in case
    }


def read_baseline(path: Path) -> Json:
    """What `baseline` gave and a file kept. Raises Malformed with the place where it is none."""
    rows = Record(decode(path.read_bytes(), str(path)), str(path))
    for name in rows.value:
        row = rows.record(name)
        for what in HELD:
            if type(value := row.value.get(what)) not in (int, float):
                raise Malformed(f"{row.where}: {what}: expected a number, found {value!r}")
    return rows.value


def regressions(base: Json, now: Json, slack: float = 0.05) -> list[str]:
    """Rows that count more than the baseline says, or are gone. Less is no complaint."""
    complaints = [f"{row} is missing" for row in base if row not in now]
    for row, figures in now.items():
        if row not in base:
            complaints.append(f"{row} is not in the baseline")
            continue
        for name in HELD:
            before, after = base[row][name], figures[name]  # type: ignore[index]
            if after > before + slack:
                complaints.append(f"{row}: {name} {before:g} -> {after:g}")
    return complaints
