"""Two results of a bench, side by side: the ratio of medians, with its spread."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from . import bench_pmu
from .bench import Json, changes, check_document, kind, open_document
from .bench_text import align, difference
from .errors import Malformed

KINDS = {"instructions": "exact instructions under -icount", "pmu": "counters of a machine, with a spread"}
ABOUT = ("name", "midr", "cpu", "build", "accelerator", "emulator", "pmu", "hz", "granule", "evict", "counted", "commit")
"""What a difference of figures may come from."""


def read(path: Path) -> Json:
    """A result of either kind. Raises Malformed with the place where it is neither."""
    document = open_document(path)
    if kind(document.value) not in KINDS:
        raise document.record("machine").refuse("counters", " or ".join(KINDS))
    return bench_pmu.check_document(document) if kind(document.value) == "pmu" else check_document(document)


def machines(one: Json, other: Json) -> list[str]:
    """What differs between the two machines and images, where both say it."""
    return [
        f"{key}: {one['machine'][key]} and {other['machine'][key]}"
        for key in ABOUT
        if key in one["machine"] and key in other["machine"] and one["machine"][key] != other["machine"][key]
    ]


@dataclass(frozen=True)
class Ratio:
    """How many times as much the second took. The range is that of its quartiles over the other's."""

    middle: float
    low: float
    high: float
    inside: bool
    """Each median lies between the quartiles of the other: no difference to speak of."""

    @staticmethod
    def of(one: list[float], other: list[float]) -> "Ratio | None":
        """None where a median is 0."""
        _, low1, middle1, high1, _ = one
        _, low2, middle2, high2, _ = other
        if not middle1 or not middle2:
            return None
        inside = low1 <= middle2 <= high1 or low2 <= middle1 <= high2
        return Ratio(middle2 / middle1, low2 / high1, high2 / low1 if low1 else math.inf, inside)

    def __str__(self) -> str:
        return f"{self.middle:.2f} ({self.low:.2f}-{self.high:.2f})" + (" ~" if self.inside else "")


def ratios(one: Json, other: Json) -> Iterator[tuple[tuple[str, str, str, str], dict[str, Ratio | None]]]:
    """What both measured, with the counters that both have."""
    counted = [counter for counter in one["machine"]["counted"] if counter in other["machine"]["counted"]]
    there = {(case, walker, op, state): figures for case, walker, op, state, figures in bench_pmu.rows(other)}
    for case, walker, op, state, figures in bench_pmu.rows(one):
        key = case, walker, op, state
        if key in there:
            yield key, {counter: Ratio.of(figures[counter], there[key][counter]) for counter in counted}


def by_pmu(one: Json, other: Json) -> list[str]:
    found = list(ratios(one, other))
    if not found:
        raise Malformed("the two files have no case in common")
    counted = list(found[0][1])
    table = [["B / A: medians (quartiles)", "walker", "op", "state", *counted]]
    table += [[*key, *(str(ratio) if ratio else "-" for ratio in of_key.values())] for key, of_key in found]
    lines = align(table, left=4)
    lines.append("~ inside the spread: each median is between the other's quartiles, or one of them is")
    for counter in counted:
        both = [ratio for _, of_key in found if (ratio := of_key[counter])]
        if both:
            mean = math.exp(sum(math.log(ratio.middle) for ratio in both) / len(both))
            lines.append(f"{counter}: {mean:.2f} (geometric mean of {len(both)}), {sum(ratio.inside for ratio in both)} of them inside the spread")
    return lines


def compare(one: Json, other: Json, names: tuple[str, str]) -> list[str]:
    """Raises Malformed for results of different kinds."""
    if kind(one) != kind(other):
        said = [f"{name} has {KINDS.get(kind(document), kind(document))}" for name, document in zip(names, (one, other), strict=True)]
        raise Malformed(f"these cannot be compared: {said[0]}, {said[1]}")
    lines = [f"A: {names[0]}", f"B: {names[1]}"]
    if differences := machines(one, other):
        lines.append(f"not of one machine and image: {'; '.join(differences)}")
    if kind(one) == "pmu":
        return [*lines, *by_pmu(one, other)]
    found = changes(one, other)
    if not found:
        raise Malformed("the two files have no case in common")
    return [*lines, *difference(found)]
