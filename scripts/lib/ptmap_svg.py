"""The picture of the tables: each table is a strip of its slots, to scale, in the order of a walk."""

from collections.abc import Callable, Iterator
from xml.sax.saxutils import escape

from .ptmap import GROUP, SHIFTS, SLOTS, Dump, Region, Run, Table, format_size

STRIP = 1024
STRIP_HEIGHT = 26
LEFT = 250
RIGHT = 190
ROW = 46
INDENT = 14
MAX_TABLES = 24
"""Tables of the last level that are drawn in each region; the rest is told."""

COLOURS = {"4K": "#8ecae6", "64K": "#219ebc", "2M": "#ffd166", "32M": "#f79d3c", "1G": "#ef6f6c", "16G": "#9d4edd"}
LINK = "#ccd2dc"
BANDS = {"r--": "#5c677d", "r-x": "#d00000"}
DEVICE = "#2d6a4f"


def draw(dump: Dump, title: str = "what the kernel has mapped") -> str:
    """The whole picture."""
    body: list[str] = []
    y = 92
    for region in dump.regions:
        y = draw_region(dump, region, y, body)
    width = LEFT + STRIP + RIGHT
    head = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{y + 10}" viewBox="0 0 {width} {y + 10}" font-family="DejaVu Sans Mono, Menlo, Consolas, monospace" font-size="12">',
        f"<title>{escape(title)}</title>",
        f'<rect width="{width}" height="{y + 10}" fill="#ffffff"/>',
        f'<text x="16" y="28" font-size="17" font-weight="bold">vmwalk: {escape(title)}</text>',
        *legend(),
    ]
    return "\n".join([*head, *body, "</svg>", ""])


def legend() -> Iterator[str]:
    x = 16.0
    yield f'<text x="{x}" y="50" fill="#555">each strip is one table, its 512 slots to scale; grey slots link to the table below; hover for attributes</text>'
    entries = [(name, f'<rect x="{{x}}" y="60" width="14" height="14" fill="{colour}"{stroke(name in ("64K", "32M", "16G"))}/>') for name, colour in COLOURS.items()]
    entries.append(("table", f'<rect x="{{x}}" y="60" width="14" height="14" fill="{LINK}"/>'))
    entries += [(f"{name} below", f'<rect x="{{x}}" y="70" width="14" height="4" fill="{colour}"/>') for name, colour in BANDS.items()]
    entries.append(("device above", f'<rect x="{{x}}" y="60" width="14" height="4" fill="{DEVICE}"/>'))
    for name, mark in entries:
        yield mark.format(x=x)
        what = f"{name} group" if name in ("64K", "32M", "16G") else name
        yield f'<text x="{x + 19}" y="72">{what}</text>'
        x += 40 + 7.4 * len(what)


def stroke(outlined: bool) -> str:
    return ' stroke="#1d3557" stroke-width="1"' if outlined else ""


def draw_region(dump: Dump, region: Region, y: int, body: list[str]) -> int:
    mapped, nr_runs = dump.mapped_in(region)
    y += 22
    body.append(f'<text x="16" y="{y}" font-size="15" font-weight="bold">{escape(region.name)}</text>')
    span = f"{region.start:#x}..{region.end:#x}, {format_size(region.size)}: {format_size(mapped)} mapped in {nr_runs} runs"
    body.append(f'<text x="{LEFT}" y="{y}" fill="#555">{span}</text>')
    y += 12
    # The slots of the root that are the region's, as a strip of their own.
    slots = region.size >> SHIFTS[0]
    body += strip(dump, 0, region.start, slots, y, f"{format_size(region.size)}, {format_size(1 << SHIFTS[0])} a slot")
    left_out = 0
    drawn = 0
    stack = [(table, y) for table in reversed(children_of_region(dump, region))]
    y += ROW
    while stack:
        table, above = stack.pop()
        if table.level == 3:
            drawn += 1
            if drawn > MAX_TABLES:
                left_out += 1
                continue
        body.append(zoom(region, table, above, y))
        body += strip(dump, table.level, table.start, SLOTS, y, f"{format_size(table.size)}, {format_size(table.slot)} a slot")
        stack += [(child, y) for child in reversed(dump.children(table))]
        y += ROW
    if left_out:
        body.append(f'<text x="{LEFT}" y="{y + 8}" fill="#555">and {left_out} more tables of level 3</text>')
        y += 20
    return y


def children_of_region(dump: Dump, region: Region) -> list[Table]:
    root = Table(0, region.start >> 48 << 48)
    return [table for table in dump.children(root) if region.start <= table.start < region.end]


def zoom(region: Region, table: Table, above: int, y: int) -> str:
    """From the slot to the table that it links to: filled where that is the next strip, else nothing but the label says so."""
    if y - above != ROW:
        return ""
    if table.level == 1:
        start, size = region.start, region.size
    else:
        parent = Table(table.level - 1, table.start & -(1 << SHIFTS[table.level - 1] + 9))
        start, size = parent.start, parent.size
    x = LEFT + STRIP * (table.start - start) / size
    width = STRIP * table.size / size
    low = above + STRIP_HEIGHT
    points = f"{x:.2f},{low} {x + max(width, 1):.2f},{low} {LEFT + STRIP},{y} {LEFT},{y}"
    return f'<polygon points="{points}" fill="{LINK}" opacity="0.35"/>'


def strip(dump: Dump, level: int, start: int, slots: int, y: int, scale: str) -> Iterator[str]:
    size = slots << SHIFTS[level]
    x = 16 + INDENT * level
    yield f'<text x="{x}" y="{y + 17}">L{level} {start:#018x}</text>'
    yield f'<text x="{LEFT + STRIP + 10}" y="{y + 17}" fill="#555">{scale}</text>'
    yield f'<rect class="table" x="{LEFT}" y="{y}" width="{STRIP}" height="{STRIP_HEIGHT}" fill="#f6f7f9" stroke="#9aa3b2" stroke-width="0.6"/>'

    def place(va: int, length: int) -> tuple[float, float]:
        return LEFT + STRIP * (va - start) / size, STRIP * length / size

    for child in dump.children(Table(level, start)) if slots == SLOTS else root_links(dump, start, size):
        x, width = place(child.start, child.size)
        text = f"L{level} slot of {child.start:#x}: a table of level {child.level}"
        yield f'<rect class="link" x="{x:.2f}" y="{y}" width="{max(width, 1):.2f}" height="{STRIP_HEIGHT}" fill="{LINK}"><title>{text}</title></rect>'
    for run in dump.runs_in(start, start + size):
        if run.level == level:
            yield from leaves(dump, run, max(run.va, start), min(run.end, start + size), place, y)


def root_links(dump: Dump, start: int, size: int) -> list[Table]:
    root = Table(0, start >> 48 << 48)
    return [child for child in dump.children(root) if start <= child.start < start + size]


def leaves(dump: Dump, run: Run, start: int, end: int, place: Callable[[int, int], tuple[float, float]], y: int) -> Iterator[str]:
    """A run, in one piece; or each of its contiguous groups with an outline."""
    text = escape(hover(dump, run))
    colour = COLOURS.get(run.name, "#888888")
    step = run.leaf if run.contiguous else end - start
    faint = "" if run.valid else ' fill-opacity="0.3"'
    # A run may be cut to the range of a dump, so its first group may begin before it.
    at = start
    while at < end:
        piece = min(end, (at & -step) + step if run.contiguous else end)
        x, width = place(at, piece - at)
        kind = "group" if run.contiguous else "leaf"
        yield f'<rect class="{kind}" x="{x:.2f}" y="{y}" width="{max(width, 1):.2f}" height="{STRIP_HEIGHT}" fill="{colour}"{stroke(run.contiguous)}{faint}><title>{text}</title></rect>'
        at = piece
    x, width = place(start, end - start)
    if band := BANDS.get(run.attributes[:3]):
        yield f'<rect x="{x:.2f}" y="{y + STRIP_HEIGHT - 5}" width="{max(width, 1):.2f}" height="5" fill="{band}" pointer-events="none"/>'
    if "Device" in run.attributes:
        yield f'<rect x="{x:.2f}" y="{y}" width="{max(width, 1):.2f}" height="5" fill="{DEVICE}" pointer-events="none"/>'


def hover(dump: Dump, run: Run) -> str:
    nr = -(-run.size // run.leaf)
    shape = f"{nr} groups of {GROUP}" if run.contiguous else f"{nr} leaves"
    lines = [
        f"{run.va:#018x}..{run.end:#018x} ({format_size(run.size)})",
        f"PA {run.pa:#x}",
        f"L{run.level} {run.name}: {shape}",
        run.attributes + ("" if run.valid else ", invalid"),
    ]
    if area := dump.area_at(run.va):
        inside = f" at {area.va:#018x}" if area.va & 0xFFF else ""
        lines.append(f"{area.kind} of {format_size(area.size)}{inside}, made by {area.caller}")
    return "\n".join(lines)
