"""How calls grow with the number of CPUs and of live areas: boots of `make lines`, a table and a picture."""

import csv
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from . import emulator, lines
from .bench_svg import INK, SOFT, plot, text
from .bench_text import align

CPUS = (1, 2, 4, 8, 32, 64)
AREAS = (0, 1_000, 100_000, 1_000_000)
CASES = ("vmalloc 1", "vmalloc 16", "vm_map_ram 16", "ioremap 16", "find_vm_area")
SHOWN = ("instructions", "lines", "transfers")
"""What is plotted, and told in the table."""
COLUMNS = ("case", "kind", "cpus", "areas", *lines.FIELDS, "bytes_an_area")
TABLE_CPUS = (8, 64)
"""For how many CPUs the table is."""

WIDTH, ROW = 1200, 225
TOP = 640
"""Where `plot` begins to draw, on its own page."""


@dataclass(frozen=True)
class Point:
    """The means of one kind of call, in one boot."""

    case: str
    kind: str
    cpus: int
    areas: int
    counts: dict[str, float]
    bytes_an_area: float
    """0 where there are no areas but those of the calls."""


def points(cases: Iterable[lines.Case]) -> Iterator[Point]:
    for case in cases:
        size = case.live_bytes / case.live if case.live else 0.0
        for kind, counts in case.means().items():
            if isinstance(counts, dict):
                yield Point(case.name, kind, case.cpus, case.live, counts, round(size, 1))


def measure(cpu: str, numbers: Iterable[int], areas: Iterable[int], out: Path, limits: emulator.Limits) -> list[Point]:
    """Boots with each number of CPUs and of areas."""
    found: list[Point] = []
    areas = tuple(areas)
    for smp in numbers:
        for live in areas:
            cases = lines.boot(cpu, smp, "*", out, limits, live)
            found += points(case for case in cases if case.name in CASES)
    return found


def write_csv(found: Iterable[Point], path: Path) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for point in found:
            writer.writerow([point.case, point.kind, point.cpus, point.areas, *(point.counts[name] for name in lines.FIELDS), point.bytes_an_area])


def read_csv(path: Path) -> list[Point]:
    """What `write_csv` wrote."""
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    return [
        Point(row["case"], row["kind"], int(row["cpus"]), int(row["areas"]), {name: float(row[name]) for name in lines.FIELDS}, float(row["bytes_an_area"]))
        for row in rows
    ]


def pairs(found: list[Point]) -> Iterator[list[str]]:
    """Of each call and its end together, by live areas: what is plotted, on a few and on many CPUs."""
    curves = {(what, cpus): curve(found, what, "areas", cpus) for cpus in TABLE_CPUS for what in SHOWN}
    for case in dict.fromkeys(point.case for point in found):
        columns = [dict(map(tuple, curves[what, cpus].get(case, []))) for cpus in TABLE_CPUS for what in SHOWN]  # type: ignore[arg-type]
        for areas in sorted({areas for column in columns for areas in column}):
            size = max((point.bytes_an_area for point in found if (point.case, point.areas) == (case, areas)), default=0.0)
            yield [case, f"{areas:,}", f"{size:g}" if size else "-", *(f"{column[areas]:,.10g}" if areas in column else "-" for column in columns)]


def table(found: list[Point]) -> list[str]:
    """A row for each call and number of areas: instructions, lines and transfers on a few and on many CPUs."""
    rows = [["call", "areas", *(f"{name}, {cpus} CPUs" for cpus in TABLE_CPUS for name in SHOWN)]]
    by_place = {(point.case, point.kind, point.areas, point.cpus): point for point in found}
    for case, kind, areas in dict.fromkeys((point.case, point.kind, point.areas) for point in found):
        cells = [by_place.get((case, kind, areas, cpus)) for cpus in TABLE_CPUS]
        if any(cells):
            rows.append([f"{case}, {kind}", f"{areas:,}", *(f"{point.counts[name]:,.10g}" if point else "-" for point in cells for name in SHOWN)])
    return align(rows)


def curve(found: Iterable[Point], what: str, by: str, fixed: int) -> dict[str, list[list[float]]]:
    """Of each call and its end together: `what` by the number of CPUs or of areas, the other being `fixed`."""
    other = "areas" if by == "cpus" else "cpus"
    sums: dict[str, dict[int, float]] = {}
    for point in found:
        if getattr(point, other) == fixed:
            places = sums.setdefault(point.case, {})
            x = getattr(point, by)
            places[x] = round(places.get(x, 0.0) + point.counts[what], 2)
    return {case: [[x, y] for x, y in sorted(places.items())] for case, places in sums.items()}


def draw(found: list[Point], cpu: str) -> str:
    """The picture: a row by CPUs, and a row by areas for each number of CPUs of the table."""
    rows = [("cpus", 0, "CPUs that take turns; no other areas"), *(("areas", cpus, f"live areas; {cpus} CPUs that take turns") for cpus in TABLE_CPUS)]
    parts = []
    for nr, (by, fixed, axis) in enumerate(rows):
        inner: list[str] = []
        for i, what in enumerate(SHOWN):
            drawn = curve(found, what, by, fixed)
            if drawn:
                # Transfers are fractions, mostly: no logarithm.
                inner += plot(f"{what} of a call and its end", axis, what, what != "transfers", drawn, 24 + 390 * i, 370)
        parts += [f'<g transform="translate(0,{50 + ROW * nr - TOP})">', *inner, "</g>"]
    height = 60 + ROW * len(rows)
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}" font-family="DejaVu Sans, Verdana, sans-serif">'
    title = [
        text(24, 30, "vmwalk: what a call costs by CPUs and by areas", size=17, bold=True, colour=INK),
        text(WIDTH - 24, 30, f"-cpu {cpu}, -icount shift=0, means of 256 calls of each CPU", "end", 9, SOFT),
    ]
    return "\n".join([head, f'<rect width="{WIDTH}" height="{height}" fill="white"/>', *title, *parts, "</svg>", ""])
