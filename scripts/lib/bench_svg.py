"""The bench as a picture: bars per case on a logarithmic scale, curves below them."""

import math
from xml.sax.saxutils import escape

from .bench import Json, measured
from .bench_text import COLUMNS, walkers

COLOURS = ("#9aa5b1", "#627d98", "#d9a441", "#c26d3a", "#8f6bb3", "#4f9d69")
OURS_COLOUR = "#1f6fb2"

LEFT, WIDTH, BAR, GAP, TITLE = 270, 560, 7, 8, 40
PLOT_WIDTH, PLOT_HEIGHT = 380, 200
MANY = 20
"""Points of a curve that are too many for a figure at each: such a curve is one over time, and its axes are linear."""


def draw(document: Json) -> str:
    """The whole picture."""
    parts: list[str] = []
    bottom = bars(document, parts)
    bottom = curves(document.get("curves", {}), parts, bottom)
    width = LEFT + WIDTH + 90
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{bottom}" font-family="sans-serif" font-size="10">'
    return "\n".join([head, f'<rect width="{width}" height="{bottom}" fill="white"/>', *parts, "</svg>", ""])


def text(x: float, y: float, words: str, anchor: str = "start", size: int = 10) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}">{escape(words)}</text>'


def bars(document: Json, parts: list[str]) -> int:
    """Bars for map and unmap of every case, ours last."""
    peers = [*(name for name, _ in COLUMNS), *walkers(document)]
    colours = {name: COLOURS[i % len(COLOURS)] for i, name in enumerate(peers)}
    groups: list[tuple[str, list[tuple[str, str, int]]]] = []
    for case in measured(document):
        for op in ("map", "protect", "unmap", "loop"):
            if op not in case:
                continue
            entries = [(name, colours[name], case["peers"][name][op]) for name in peers if op in case["peers"].get(name, {})]
            entries.append(("vmwalk", OURS_COLOUR, case[op]["instructions"]))
            groups.append((f"{case['case']}: {op}", entries))
    top = max((value for _, entries in groups for _, _, value in entries), default=10)
    decades = max(1, math.ceil(math.log10(max(top, 10))))
    scale = WIDTH / decades

    parts.append(text(10, 18, "Instructions per call (logarithmic)", size=14))
    x = 10.0
    for name, colour in [*colours.items(), ("vmwalk", OURS_COLOUR)]:
        parts.append(f'<rect x="{x:.1f}" y="26" width="10" height="8" fill="{colour}"/>')
        parts.append(text(x + 14, 34, name))
        x += 30 + 6.2 * len(name)
    y = TITLE + 10
    first = y
    marks: list[str] = []
    for label, entries in groups:
        marks.append(text(LEFT - 6, y + BAR * len(entries) / 2 + 3, label, "end"))
        for _, colour, value in entries:
            length = scale * math.log10(max(value, 1))
            marks.append(f'<rect x="{LEFT}" y="{y}" width="{length:.1f}" height="{BAR - 1}" fill="{colour}"/>')
            marks.append(text(LEFT + length + 3, y + BAR - 1, f"{value:,}", size=7))
            y += BAR
        y += GAP
    for decade in range(decades + 1):
        x = LEFT + decade * scale
        parts.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{first - 6}" y2="{y}" stroke="#ddd"/>')
        parts.append(text(x, y + 10, f"{10**decade:,}", "middle", 8))
    parts.extend(marks)
    return y + 24


def curves(found: Json, parts: list[str], top: int) -> int:
    """Each curve in a plot of its own: both axes logarithmic, unless it has more points than powers of ten or of four need."""
    for i, (name, points) in enumerate(found.items()):
        x0 = 60 + (i % 2) * (PLOT_WIDTH + 70)
        y0 = top + 30 + (i // 2) * (PLOT_HEIGHT + 60)
        plot(name, points, parts, x0, y0)
    rows = (len(found) + 1) // 2
    return top + rows * (PLOT_HEIGHT + 60) + 20


def plot(name: str, points: list[list[int]], parts: list[str], x0: int, y0: int) -> None:
    if linear := len(points) > MANY:
        places = [(float(x), float(y)) for x, y in points]
        upper = max(1.0, 1.1 * max(place[1] for place in places))
    else:
        places = [(math.log10(x + 1), math.log10(max(y, 1))) for x, y in points]
        upper = max(1.0, math.ceil(max(place[1] for place in places)))
    right = max(place[0] for place in places) or 1.0
    parts.append(text(x0, y0 - 8, name, size=11))
    parts.append(f'<rect x="{x0}" y="{y0}" width="{PLOT_WIDTH}" height="{PLOT_HEIGHT}" fill="none" stroke="#999"/>')
    at = [(x0 + PLOT_WIDTH * x / right, y0 + PLOT_HEIGHT * (1 - y / upper)) for x, y in places]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in at)
    parts.append(f'<polyline points="{path}" fill="none" stroke="{OURS_COLOUR}" stroke-width="1.5"/>')
    highest = max(y for _, y in points)
    for i, ((x, y), (value_x, value_y)) in enumerate(zip(at, points, strict=True)):
        if linear and i % (len(points) // 5) and value_y != highest:
            continue
        parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.5" fill="{OURS_COLOUR}"/>')
        parts.append(text(x, y - 6, f"{value_y:,}", "middle", 7))
        parts.append(text(x, y0 + PLOT_HEIGHT + 10, f"{value_x:,}", "middle", 7))
