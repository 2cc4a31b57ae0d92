"""Which of the leaves are shown, where a region begins, what each has in all, and who maps a physical address. Knows nothing of gdb."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from .arch import MASK, Half, show_size
from .walk import LAST_LEVEL, Leaf, Read, Snapshot

OTHER = "other"
"""What lies in no region."""


class BadFilter(Exception):
    """A filter that no leaf can pass; the message says why."""


@dataclass(frozen=True)
class Filter:
    """What a leaf has to be."""

    el1: str = ""
    """Letters of `rwx` that EL1 may do at least; or all three places, `-` for what it may not."""
    el0: str = ""
    sizes: tuple[int, ...] = ()
    memory_type: str = ""
    """How the name of its type begins, in any case."""

    def check(self, halves: Iterable[Half]) -> None:
        for name, wanted in (("perm", self.el1), ("el0", self.el0)):
            if not re.fullmatch(r"[rwx]*|[r-][w-][x-]", wanted):
                raise BadFilter(f"{name}={wanted}: letters of rwx that are allowed, as w or wx; or all three places, as r-x")
        known = {size for half in halves for _, _, size in half.geometry.leaf_sizes()}
        for size in self.sizes:
            if known and size not in known:
                raise BadFilter(f"size={show_size(size)}: leaves here are of {', '.join(show_size(one) for one in sorted(known))}")

    def takes(self, leaf: Leaf) -> bool:
        descriptor = leaf.descriptor
        return (
            (not self.sizes or leaf.unit in self.sizes)
            and allowed(self.el1, descriptor.el1)
            and allowed(self.el0, descriptor.el0)
            and descriptor.memory_type.lower().startswith(self.memory_type.lower())
        )


def allowed(wanted: str, may: str) -> bool:
    """Whether `may` is what is wanted, if that has a `-` or all letters; else whether it has those letters."""
    return wanted == may if "-" in wanted else set(wanted) <= set(may)


@dataclass(frozen=True)
class Region:
    """A stretch of addresses with a name."""

    name: str
    start: int
    last: int
    note: str = ""

    def mark(self) -> str:
        note = f": {self.note}" if self.note else ""
        return f"-- {self.name} {self.start:#018x}-{(self.last + 1) & MASK:#018x}{note}"


def deduced(runs: list[Leaf], kernel: int | None) -> list[Region]:
    """The regions that the tables of any kernel show: runs of the lower half, the linear map, and the image that has `kernel`.

    The linear map is what keeps the one distance between VA and PA that most bytes of normal memory have, some of them writable.
    """
    found = []
    lower = [run for run in runs if not run.va >> 55 & 1]
    if lower:
        found.append(Region("user", lower[0].va, lower[-1].va + lower[-1].size - 1, "the half of TTBR0"))
    by_distance: dict[int, list[Leaf]] = {}
    for run in runs:
        if run.va >> 55 & 1 and run.valid and run.descriptor.memory_type.startswith("Normal"):
            by_distance.setdefault(run.va - run.pa & MASK, []).append(run)
    if not by_distance:
        return found
    sizes = {distance: sum(run.size for run in same) for distance, same in by_distance.items() if any("w" in run.descriptor.el1 for run in same)}
    linear = max(sizes, key=lambda distance: sizes[distance], default=None)
    image = next((distance for distance, same in by_distance.items() for run in same if kernel is not None and run.va <= kernel < run.va + run.size), None)
    for name, distance, what in (("linear", linear, "the most of what is mapped"), ("image", image, "it has the vectors")):
        if distance is not None and (name == "linear" or distance != linear):
            same = by_distance[distance]
            found.append(Region(name, same[0].va, same[-1].va + same[-1].size - 1, f"VA is PA + {distance:#x}, {what}"))
    return sorted(found, key=lambda region: region.start)


def region_of(regions: list[Region], va: int) -> Region | None:
    return next((region for region in regions if region.start <= va <= region.last), None)


def marked(runs: Iterable[Leaf], regions: list[Region]) -> Iterator[str]:
    """A line for each run, with a mark where another region begins, and what each region has at the end."""
    sizes: dict[str, Counter[int]] = {}
    before: str | None = None if regions else OTHER
    for whole in runs:
        for run in cut(whole, regions):
            region = region_of(regions, run.va)
            name = region.name if region else OTHER
            if name != before:
                yield region.mark() if region else f"-- {OTHER}"
                before = name
            yield run.show()
            sizes.setdefault(name, Counter())[run.unit] += run.size
    if not regions:
        return
    for name, of_unit in sizes.items():
        leaves = " ".join(f"{-(-size // unit)}x{show_size(unit)}" for unit, size in sorted(of_unit.items(), reverse=True))
        yield f"total {name}: {show_bytes(sum(of_unit.values()))}, {leaves}"


def show_bytes(size: int) -> str:
    """As `show_size`, and where that is long, also about how much it is."""
    text = show_size(size)
    unit = next((at for at in (40, 30, 20) if size >> at), 0)
    return f"{text} ({size / (1 << unit):.1f}{'T' if unit == 40 else 'G' if unit == 30 else 'M'})" if unit and len(text) > 5 else text


def cut(run: Leaf, regions: list[Region]) -> Iterator[Leaf]:
    """The run in pieces that each lie in one region, or in none."""
    edges = sorted({edge for region in regions for edge in (region.start, region.last + 1) if run.va < edge < run.va + run.size})
    for start, end in zip([run.va, *edges], [*edges, run.va + run.size], strict=True):
        yield replace(run, va=start, pa=run.pa + (start - run.va if run.valid else 0), size=end - start)


def reverse(runs: Iterable[Leaf], pa: int) -> Iterator[tuple[int, Leaf]]:
    """The addresses that translate to `pa`, each with the run it lies in."""
    for run in runs:
        if run.valid and run.pa <= pa < run.pa + run.size:
            yield run.va + pa - run.pa, run


def tables_at(tables: Snapshot, half_of: "dict[int, Half]", pa: int) -> Iterator[str]:
    """The tables that `pa` lies in, in words. One table may stand in several places."""
    for (va, level), (table, data) in sorted(tables.items()):
        if table <= pa < table + len(data):
            half = half_of[va >> 55 & 1]
            index = (pa - table) // 8
            size = half.geometry.size(level)
            start = va + index * size & MASK
            what = "a page table" if level == LAST_LEVEL else "a table"
            yield f"{what} of level {level}, TTBR{half.number}_EL{half.level}: descriptor [{index}] translates {start:#018x}+{show_size(size)}"
