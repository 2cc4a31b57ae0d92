"""The bench as a picture on one page: how far ahead, over all and case by case, and how costs grow."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from xml.sax.saxutils import escape

from .bench import BadOutput, Json, RELEASE, advantage, measured
from .bench_text import COLUMNS, walkers

WIDTH, HEIGHT = 1200, 900
MARGIN = 24
OURS, PEER, SERIES, PALE, INK, SOFT = "#1f6fb2", "#8a97a6", "#d9a441", "#e6e9ee", "#1b2733", "#5b6875"
SHADES = (OURS, "#c26d3a", "#4f9d69", "#8f6bb3")
LINUX = "linux-7.3"
EM = 0.56
"""Width of a letter in sizes of its font, at most on average: what room for a label is reckoned with."""

CASES = (24, 270, 1152, 356)
"""Left, top, width and height of the panel of cases."""
CASE_COLUMNS = 3
PLOTS = 4


@dataclass(frozen=True)
class Scale:
    """Places of values on an axis from `at` to `at + length`; negative lengths go up the page."""

    low: float
    high: float
    at: float
    length: float
    logarithmic: bool = True

    def __call__(self, value: float) -> float:
        low, high = self.low, self.high
        if self.logarithmic:
            low, high, value = math.log10(low), math.log10(high), math.log10(max(value, low))
        return self.at + self.length * (min(value, high) - low) / (high - low)

    def ticks(self) -> Iterator[float]:
        """Powers of ten, or four steps of a round number."""
        if self.logarithmic:
            first = math.ceil(math.log10(self.low) - 1e-9)
            every = max(1, math.ceil((math.log10(self.high) - first) / 6))
            yield from (10.0**power for power in range(first, math.floor(math.log10(self.high) + 1e-9) + 1, every))
        else:
            step = round_up((self.high - self.low) / 4)
            yield from (self.low + i * step for i in range(5) if self.low + i * step <= self.high)


def round_up(value: float) -> float:
    """The next of 1, 2, 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(max(value, 1e-9)))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= value * (1 - 1e-9))


def decades(values: list[float]) -> tuple[float, float]:
    """The powers of ten around the values: at least one decade."""
    low = 10.0 ** math.floor(math.log10(max(1.0, min(values))))
    return low, max(10 * low, 10.0 ** math.ceil(math.log10(max(1.0, *values))))


def short(value: float) -> str:
    """A number in a few characters: 1.9M, 340k, 12."""
    for size, unit in ((1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g}{unit}"
    return f"{value:.3g}"


def text(x: float, y: float, words: str, anchor: str = "start", size: float = 10, colour: str = INK, bold: bool = False) -> str:
    weight = ' font-weight="bold"' if bold else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size:g}" fill="{colour}"{weight}>{escape(words)}</text>'


def line(x1: float, y1: float, x2: float, y2: float, colour: str = PALE, width: float = 1) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}" stroke-width="{width:g}"/>'


def rectangle(x: float, y: float, width: float, height: float, colour: str, title: str = "", kind: str = "bar") -> str:
    inside = f"<title>{escape(title)}</title>" if title else ""
    return f'<rect class="{kind}" x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" fill="{colour}">{inside}</rect>'


def dot(x: float, y: float, colour: str, title: str, radius: float = 3) -> str:
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius:g}" fill="{colour}" fill-opacity="0.75"><title>{escape(title)}</title></circle>'


def fit(words: str, room: float, size: float) -> str:
    """The words, cut to the room that there is."""
    most = int(room / (EM * size))
    return words if len(words) <= most else words[: max(0, most - 1)] + "…"


def draw(document: Json) -> str:
    """The whole picture. Raises BadOutput for a curve that has no points."""
    parts = [*heading(document), *families(document), *means(document), *cases(document), *curves(document.get("curves", {}))]
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="DejaVu Sans, Verdana, sans-serif">'
    return "\n".join([head, f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>', *parts, "</svg>", ""])


def heading(document: Json) -> Iterator[str]:
    machine = document["machine"]
    yield text(MARGIN, 36, "vmwalk: guest instructions per call, beside Linux 7.3", size=19, bold=True)
    build = machine.get("build", RELEASE)
    cpu = machine.get("cpu", "max")
    words = f"-cpu {cpu}, one CPU, -icount shift=0, medians, flushes included (Linux on -cpu max); all scales of instructions and ratios are logarithmic; fewer is better"
    yield text(MARGIN, 56, fit(words, WIDTH - 2 * MARGIN, 11), size=11, colour=SOFT)
    if build != RELEASE:
        yield text(WIDTH - MARGIN, 36, f"of a {build} build: not the release's figures", "end", 13, "#b3261e", True)


# ---- how far ahead -----------------------------------------------------------------------------


def family(case: str) -> str:
    """What a case is of, for the summary: `vmap 256, order 8` is of vmap."""
    name = case.split(" ")[0]
    return "the walk of an array" if case.endswith("/range-only") else {"range": "the walk of a range", "test_vmalloc": "loops of test_vmalloc"}.get(name, name)


def ratios(document: Json) -> dict[str, list[tuple[str, str, float]]]:
    """By family: case, operation, and how many times as many instructions Linux takes."""
    found: dict[str, list[tuple[str, str, float]]] = {}
    for case in measured(document):
        theirs = case["peers"].get(LINUX, {})
        for op in ("map", "unmap", "loop"):
            if op in case and op in theirs:
                ratio = max(1, theirs[op]) / max(1, case[op]["instructions"])
                found.setdefault(family(case["case"]), []).append((case["case"], op, ratio))
    return found


def families(document: Json) -> Iterator[str]:
    """A line for each family of cases, a dot for each operation, a mark at their geometric mean."""
    left, top, width, height = MARGIN + 150, 96, 470, 128
    yield text(MARGIN, top - 10, "Linux 7.3 / vmwalk: how many times as many instructions, every operation of every case", size=12, bold=True)
    found = ratios(document)
    if not found:
        yield text(MARGIN, top + 20, "Linux was not measured in these cases", colour=SOFT)
        return
    values = [ratio for entries in found.values() for _, _, ratio in entries]
    scale = Scale(min(0.5, min(values)), max(100.0, max(values)), left, width)
    for tick in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000):
        if scale.low <= tick <= scale.high:
            yield line(scale(tick), top, scale(tick), top + height, INK if tick == 1 else PALE)
            yield text(scale(tick), top + height + 12, f"{tick:g}", "middle", 9, SOFT)
    step = min(13.0, height / len(found))
    for i, (name, entries) in enumerate(found.items()):
        y = top + step * (i + 0.5)
        yield text(left - 8, y + 3, fit(name, 142, 9.5), "end", 9.5)
        yield line(left, y, left + width, y)
        yield from (dot(scale(ratio), y, PEER if op == "unmap" else OURS, f"{case}, {op}: {ratio:.1f}") for case, op, ratio in entries)
        mean = math.exp(sum(math.log(ratio) for _, _, ratio in entries) / len(entries))
        yield rectangle(scale(mean) - 1, y - step / 2 + 1, 2, step - 2, INK, f"{name}: geometric mean {mean:.1f}", "mean")
    x = left + width + 12
    for y, colour, words in ((top + 8, OURS, "map, loop"), (top + 24, PEER, "unmap")):
        yield dot(x, y, colour, words)
        yield text(x + 7, y + 3, words, size=9, colour=SOFT)
    yield rectangle(x - 1, top + 34, 2, 11, INK, kind="key")
    yield text(x + 7, top + 43, "mean", size=9, colour=SOFT)


def means(document: Json) -> Iterator[str]:
    """Geometric means over all cases, a bar for each peer."""
    left, top, width = 900, 96, 200
    yield text(left - 150, top - 10, "Geometric means, peer / vmwalk", size=12, bold=True)
    rows = []
    for name in [name for name, _ in COLUMNS] + walkers(document):
        mean, nr, slower = advantage(document["cases"], name)
        if nr:
            rows.append((dict(COLUMNS).get(name, name), mean, nr, len(slower)))
    mean, nr, slower = advantage(document.get("loops", []), LINUX, ("loop",))
    if nr:
        rows.append(("Linux 7.3, loops", mean, nr, len(slower)))
    if not rows:
        yield text(left - 150, top + 20, "no peer was measured in these cases", colour=SOFT)
        return
    most = max(mean for _, mean, _, _ in rows)
    step = min(26.0, 140 / len(rows))
    for i, (name, mean, nr, dearer) in enumerate(rows):
        y = top + step * i
        words = f"{mean:.1f}  over {nr} cases" + (f", {dearer} dearer" if dearer else "")
        yield text(left - 8, y + step / 2 + 3, fit(name, 142, 10), "end", 10)
        yield rectangle(left, y + step * 0.2, 90 * mean / most, step * 0.6, SERIES if "series" in name else PEER, f"{name}: {words}")
        yield text(left + 90 * mean / most + 6, y + step / 2 + 3, fit(words, width, 10), size=10)


# ---- case by case ------------------------------------------------------------------------------


def totals(case: Json, ops: tuple[str, ...], of: str) -> int:
    """Instructions of the operations together: vmwalk's, or a peer's."""
    return sum(case[op]["instructions"] if of == "vmwalk" else case["peers"][of][op] for op in ops)


def cases(document: Json) -> Iterator[str]:
    """A row for each case that Linux has: both together, map and unmap in one."""
    left, top, width, height = CASES
    rows = []
    for case in measured(document):
        theirs = case["peers"].get(LINUX, {})
        if ops := tuple(op for op in ("map", "unmap", "loop") if op in case and op in theirs):
            rows.append((case, ops))
    yield text(left, top - 12, "Map and unmap together (a loop: both), instructions", size=12, bold=True)
    others = len(measured(document)) - len(rows)
    if others:
        yield text(left + width, top - 12, f"{others} cases without a counterpart are in bench.json", "end", 10, SOFT)
    x = left + 400
    for colour, words in ((PEER, "Linux 7.3"), (OURS, "vmwalk")):
        yield rectangle(x, top - 21, 10, 9, colour, kind="key")
        yield text(x + 14, top - 13, words, size=10, colour=SOFT)
        x += 96
    if not rows:
        yield text(left, top + 20, "Linux was not measured in these cases", colour=SOFT)
        return
    low, high = decades([float(totals(case, ops, of)) for case, ops in rows for of in ("vmwalk", LINUX)])
    per_column = -(-len(rows) // CASE_COLUMNS)
    step = min(20.0, (height - 14) / per_column)
    room = (width - 18 * (CASE_COLUMNS - 1)) / CASE_COLUMNS
    for column in range(-(-len(rows) // per_column)):
        shown = rows[column * per_column : (column + 1) * per_column]
        at = left + column * (room + 18)
        scale = Scale(low, high, at + 192, room - 192 - 40)
        for tick in scale.ticks():
            yield line(scale(tick), top, scale(tick), top + step * len(shown))
            yield text(scale(tick), top + step * len(shown) + 11, short(tick), "middle", 8.5, SOFT)
        for i, (case, ops) in enumerate(shown):
            yield from case_row(case, ops, scale, at, top + step * i, step, room)


def case_row(case: Json, ops: tuple[str, ...], scale: Scale, at: float, y: float, step: float, room: float) -> Iterator[str]:
    ours, theirs = totals(case, ops, "vmwalk"), totals(case, ops, LINUX)
    size = min(9.0, step - 2.5)
    name = case["case"].removeprefix("test_vmalloc ").removesuffix("/range-only")
    name += ", walk alone" if case["case"].endswith("/range-only") else ""
    each = "; ".join(f"{op} {case['peers'][LINUX][op]:,} and {case[op]['instructions']:,}" for op in ops)
    title = f"{case['case']}: Linux and vmwalk: {each}"
    yield text(at + 186, y + step / 2 + size * 0.35, fit(name, 186, size), "end", size)
    for nr, (value, colour) in enumerate(((theirs, PEER), (ours, OURS))):
        yield rectangle(scale.at, y + step * (0.1 + 0.4 * nr), max(scale(value) - scale.at, 0.5), step * 0.38, colour, title)
    yield text(at + room, y + step / 2 + size * 0.35, f"{max(1, theirs) / max(1, ours):.1f}×", "end", size, SOFT if theirs >= ours else "#b3261e")


# ---- curves ------------------------------------------------------------------------------------

GROUPS = (
    # How the names end; the title; the axes; whether they are logarithmic.
    (", by live areas", "By the number of live areas", "live areas", "instructions", True),
    (", per 1,000 pages", "A mapping, by its size", "pages", "instructions per 1,000 pages", True),
    (", by MiB of RAM", "Boot to the first self-test", "MiB of RAM", "instructions", True),
)
LAZY = ("What waits for a lazy purge", "areas freed", "KiB", False)


def curves(found: Json) -> Iterator[str]:
    """Curves of one kind in one plot."""
    plots: dict[tuple[str, str, str, bool], dict[str, list[list[int]]]] = {}
    for name, points in found.items():
        if not points:
            raise BadOutput(f"curve {name!r}: expected points, found none")
        for end, *what in GROUPS:
            if name.endswith(end):
                plots.setdefault(tuple(what), {})[name.removesuffix(end)] = points  # type: ignore[arg-type]
                break
        else:
            plots.setdefault(LAZY if name.startswith("KiB lazy") else (name, "", "", False), {})[""] = points
    room = (WIDTH - 2 * MARGIN) / PLOTS
    for i, (what, lines) in enumerate(list(plots.items())[:PLOTS]):
        yield from plot(*what, lines, MARGIN + i * room, room)


def plot(title: str, x_axis: str, y_axis: str, logarithmic: bool, lines: dict[str, list[list[int]]], left: float, room: float) -> Iterator[str]:
    """One plot, with both axes, their units, and a key."""
    x0, y0, width, height = left + 44, 690.0, room - 44 - 20, 118.0
    every = [point for points in lines.values() for point in points]
    xs, ys = [float(x) for x, _ in every], [float(y) for _, y in every]
    if logarithmic:
        low, high = decades([x for x in xs if x > 0] or [1.0])
        # A logarithm has no zero: it stands a decade left of the least.
        zero = low / 10 if 0 in xs else None
        x_scale = Scale(zero or low, high, x0, width)
        y_scale = Scale(*decades(ys), y0 + height, -height)
    else:
        zero = None
        x_scale = Scale(0, 4 * round_up(max(max(xs), 1) / 4), x0, width, False)
        y_scale = Scale(0, 4 * round_up(max(max(ys), 1) / 4), y0 + height, -height, False)
    yield text(left, y0 - 26, fit(title, room - 10, 12), size=12, bold=True)
    yield text(left, y0 - 10, fit(y_axis + (" (log-log)" if logarithmic else ""), room - 10, 9), size=9, colour=SOFT)
    for tick in x_scale.ticks():
        yield line(x_scale(tick), y0, x_scale(tick), y0 + height)
        yield text(x_scale(tick), y0 + height + 12, "0" if zero is not None and tick == zero else short(tick), "middle", 9, SOFT)
    for tick in y_scale.ticks():
        yield line(x0, y_scale(tick), x0 + width, y_scale(tick))
        yield text(x0 - 4, y_scale(tick) + 3, short(tick), "end", 9, SOFT)
    yield text(x0 + width / 2, y0 + height + 25, x_axis, "middle", 9, SOFT)
    for nr, (name, points) in enumerate(lines.items()):
        colour = SHADES[nr % len(SHADES)]
        places = [(x_scale(x), y_scale(y)) for x, y in points]
        yield f'<polyline points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in places)}" fill="none" stroke="{colour}" stroke-width="1.5"/>'
        if len(points) <= 20:
            yield from (dot(x, y, colour, f"{name} {value_x:,}: {value_y:,}".strip(), 2.5) for (x, y), (value_x, value_y) in zip(places, points, strict=True))
        if name:
            y = y0 + height + 40 + 11 * nr
            yield line(left, y - 3, left + 12, y - 3, colour, 2)
            yield text(left + 16, y, fit(name, room - 30, 8.5), size=8.5, colour=SOFT)
