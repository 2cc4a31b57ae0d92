"""The tables and the picture of README and docs/NUMBERS.md, of what is committed in scripts/bench-data.

What is committed is held to what the kernel takes by two stages: `bench` (2%) and `lines`.
"""

import math
from collections.abc import Callable
from itertools import chain
from pathlib import Path

from . import bench, bench_svg, lines, lines_growth
from .bench import DATA, Json

LINUX, SERIES = "linux-7.3", "linux-7.3-series"
PAIR = ("map", "unmap")
KINDS = {
    "range": "a physical range, the walk alone",
    "vmap": "an array of pages, `vmap`",
    "ioremap": "`ioremap`",
    "vmalloc": "`vmalloc`, `vmalloc_huge`",
    "vm_map_ram": "`vm_map_ram`",
    "loop": "loops of `test_vmalloc`",
}


def document(folder: Path = DATA) -> Json:
    """The committed baseline beside Linux's figures, as build/bench.json has them."""
    base = bench.read_document(folder / "baseline.json")
    peers = bench.read_linux(folder)

    def beside(case: Json) -> Json:
        return case | {"peers": {peer: rows[case["case"]] for peer, rows in peers.items() if case["case"] in rows}}

    return {"machine": base["machine"], "cases": [beside(case) for case in base["cases"]], "loops": [beside(case) for case in base["loops"]]}


def table(header: list[str], rows: list[list[str]]) -> list[str]:
    return ["| " + " | ".join(cells) + " |" for cells in (header, ["---"] * len(header), *rows)]


def number(value: float) -> str:
    return f"{value:,}"


def pair(entry: Json, ops: tuple[str, ...] = PAIR) -> str:
    return " / ".join(number(entry[op]["instructions"] if isinstance(entry[op], dict) else entry[op]) for op in ops)


def mean(values: list[float]) -> float:
    """The geometric mean."""
    return math.exp(sum(map(math.log, values)) / len(values))


def kind(case: str) -> str | None:
    """Which line of the short table a case counts for."""
    first = case.split()[0]
    if case.endswith("/range-only"):
        return None
    return {"range": "range", "vmap": "vmap", "ioremap": "ioremap", "vmalloc": "vmalloc", "vmalloc_huge": "vmalloc", "vm_map_ram": "vm_map_ram", "test_vmalloc": "loop"}.get(first)


def ratios(peer: str) -> dict[str, list[float]]:
    """By kind: how many times as many instructions the peer takes, of each operation of each case."""
    found: dict[str, list[float]] = {}
    for case in bench.measured(document()):
        theirs = case["peers"].get(peer, {})
        for op in (*PAIR, "loop"):
            if op in theirs and op in case and (name := kind(case["case"])):
                found.setdefault(name, []).append(theirs[op] / case[op]["instructions"])
    return found


def transfers() -> dict[str, tuple[float, float]]:
    """Lines that pass between 8 CPUs in a call and its end: Linux's and ours, where Linux was counted."""
    ours, theirs = lines.read_baseline(DATA / "lines-baseline.json"), lines.linux()
    found = {}
    for case in lines.LINUX_CASES:
        rows = [ours[f"{case}, {op}, 8 CPUs"] for op in lines.KINDS]
        found[case] = (sum(theirs[case, 8, op] for op in lines.KINDS), sum(float(row["transfers"]) for row in rows))  # type: ignore[index]
    return found


def short() -> list[str]:
    """How many times as much Linux takes, by kind of call."""
    base, series = ratios(LINUX), ratios(SERIES)
    rows = []
    for name, words in KINDS.items():
        others = f"{mean(series[name]):.1f}" if name in series else "-"
        rows.append([words, f"**{mean(base[name]):.1f}**", others, f"{min(base[name]):.1f} to {max(base[name]):.1f}"])
    (first, nr, _), (second, _, _) = (bench.advantage(document()["cases"], peer) for peer in (LINUX, SERIES))
    rows.append([f"all {nr} cases that Linux was measured in", f"**{first:.1f}**", f"{second:.1f}", ""])
    passed = transfers().values()
    sums = [sum(column) for column in zip(*passed, strict=True)]
    rows.append([f"cache lines that pass between 8 CPUs, {len(passed)} calls together", f"**{sums[0] / sums[1]:.0f}**", "-", f"{sums[0]:.0f} lines and {sums[1]:.1f}"])
    return table(["Linux / vmwalk, instructions of", "Linux 7.3", "with the 2026 series", "least and most, 7.3"], rows)


def instructions() -> list[str]:
    """Every case that Linux was measured in."""
    rows = []
    for case in document()["cases"]:
        theirs, series = case["peers"].get(LINUX), case["peers"].get(SERIES)
        if theirs and set(PAIR) <= theirs.keys():
            ratio = mean([theirs[op] / case[op]["instructions"] for op in PAIR])
            rows.append([case["case"], pair(theirs), pair(series) if series else "-", f"**{pair(case)}**", f"{ratio:.1f}"])
    return table(["case", "Linux 7.3", "with the series", "vmwalk", "Linux 7.3 / vmwalk"], rows)


def loops() -> list[str]:
    rows = []
    for case in document()["loops"]:
        theirs, ours = case["peers"][LINUX]["loop"], case["loop"]["instructions"]
        rows.append([case["case"].removeprefix("test_vmalloc "), number(theirs), f"**{number(ours)}**", f"{theirs / ours:.1f}"])
    return table(["test", "Linux 7.3", "vmwalk", "Linux 7.3 / vmwalk"], rows)


def alone() -> list[str]:
    """What Linux has no figure for."""
    rows = []
    for case in document()["cases"]:
        if not case["peers"]:
            rows.append([case["case"], *(number(case[op]["instructions"]) if op in case else "" for op in ("map", "protect", "unmap"))])
    return table(["case", "map", "protect", "unmap"], rows)


def shared() -> list[str]:
    rows = [[case, f"{theirs:.1f}", f"**{ours:.1f}**"] for case, (theirs, ours) in transfers().items()]
    return table(["call and its end, 8 CPUs", "Linux 7.3", "vmwalk"], rows)


def held() -> list[str]:
    """Atomics, barriers and TLBIs of each call on 8 CPUs."""
    rows = []
    for name, row in lines.read_baseline(DATA / "lines-baseline.json").items():
        if name.endswith(", 8 CPUs"):
            rows.append([name.removesuffix(", 8 CPUs"), *(f"{row[column]:g}" for column in lines.HELD)])  # type: ignore[index]
    return table(["call", *lines.HELD], rows)


ENGINE = {
    "range 4K, 4K pa": "a page",
    "range 64K, 64K pa": "64K, one group",
    "range 1M, 64K pa": "1M in groups",
    "range 2M, 2M pa": "2M, one block",
    "range 32M, 2M pa": "32M in blocks",
    "range 1G, 2M pa": "1G in blocks, with its table",
    "vmap 256, order 0/range-only": "an array of 256 pages anywhere",
    "vmap 25600, order 9/range-only": "an array of 25,600 pages in blocks of 2M",
}


def engine() -> list[str]:
    """What the engine costs without anything around it."""
    cases = {case["case"]: case for case in document()["cases"]}
    rows = [[words, pair(cases[name]["peers"][LINUX]), pair(cases[name])] for name, words in ENGINE.items()]
    return table(["instructions, map / unmap", "Linux 7.3", "`paging`"], rows)


def growth() -> list[str]:
    """What a call and its end cost on a few and on many CPUs, by live areas."""
    header = ["call and its end", "live areas", "bytes a live area", *(f"{what}, {cpus} CPUs" for cpus in lines_growth.TABLE_CPUS for what in lines_growth.SHOWN)]
    return table(header, list(lines_growth.pairs(lines_growth.read_csv(DATA / "lines-growth.csv"))))


TABLES: dict[str, Callable[[], list[str]]] = {
    "short": short,
    "instructions": instructions,
    "loops": loops,
    "alone": alone,
    "shared": shared,
    "held": held,
    "growth": growth,
    "engine": engine,
}


def picture() -> str:
    """The bench as a picture, without the part for the curves, which are not committed."""
    drawn, foot = bench_svg.draw(document()), bench_svg.CASES[1] + bench_svg.CASES[3] + 10
    return drawn.replace(f'"{bench_svg.HEIGHT}"', f'"{foot}"').replace(f"{bench_svg.WIDTH} {bench_svg.HEIGHT}", f"{bench_svg.WIDTH} {foot}")


def cases_without_a_table() -> list[str]:
    """Cases of the baseline that no table shows."""
    shown = "\n".join(chain(instructions(), loops(), alone()))
    return [case["case"] for case in bench.measured(document()) if case["case"].removeprefix("test_vmalloc ") not in shown]
