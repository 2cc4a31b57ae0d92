"""The bench as aligned text: the table, and the difference of two."""

from collections.abc import Iterable

from .bench import RELEASE, Change, Json, advantage, measured

COLUMNS = (("linux-7.3", "Linux 7.3"), ("linux-7.3-series", "with the series"))
PAIR = ("map", "unmap")


def align(rows: list[list[str]], left: int = 1) -> list[str]:
    """Columns of equal width, the first `left` to the left and numbers to the right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [cell.ljust(width) if i < left else cell.rjust(width) for i, (cell, width) in enumerate(zip(row, widths, strict=True))]
        lines.append("  ".join(cells).rstrip())
    return lines


def number(value: float | None) -> str:
    return "-" if value is None else f"{value:,}"


def pair(entry: Json | None) -> str:
    """Map and unmap of a peer."""
    if not entry:
        return "-"
    text = " / ".join(number(entry[op]) for op in PAIR if op in entry)
    return text + (" *" if "note" in entry else "")


def walkers(document: Json) -> list[str]:
    """The walkers that ran beside ours, in the order in which they are registered."""
    names: dict[str, None] = {}
    for case in document["cases"]:
        names |= dict.fromkeys(peer for peer in case["peers"] if peer not in dict(COLUMNS))
    return list(names)


def table(document: Json) -> list[str]:
    """Instructions per call, map / unmap, and TLB entries, beside the peers; then what the calls did to the tables."""
    peers = [*COLUMNS, *((name, name) for name in walkers(document))]
    rows = [["instructions, map / unmap", *(title for _, title in peers), "vmwalk", "lazy", "TLB entries", *(title for _, title in COLUMNS)]]
    for case in document["cases"]:
        if "protect" in case:
            continue
        ours = " / ".join(number(case[op]["instructions"]) for op in PAIR if op in case)
        lazy = number(case["lazy"]["instructions"]) if "lazy" in case else "-"
        entries = [side.get("tlb_entries") for side in (case, *(case["peers"].get(name) or {} for name, _ in COLUMNS))]
        rows.append([case["case"], *(pair(case["peers"].get(name)) for name, _ in peers), ours, lazy, *map(number, entries)])
    lines = align(rows) if len(rows) > 1 else []
    notes = sorted({entry["note"] for case in document["cases"] for entry in case["peers"].values() if "note" in entry})
    lines += [f"* {note}" for note in notes]
    if (cpu := document["machine"].get("cpu", "max")) != "max":
        lines.append(f"Linux was measured on -cpu max, the rest here on -cpu {cpu}")
    if (build := document["machine"].get("build", RELEASE)) != RELEASE:
        lines.insert(0, f"of a {build} build: these are not the figures of the release kernel, and Linux's are of a release")
    parts = [lines, loops(document), protects(document), accesses(document), growth(document), cpus(document), closing(document)]
    return [line for part in parts if part for line in ("", *part)][1:]


def loops(document: Json) -> list[str]:
    """Loops of test_vmalloc, with what comes before and after them, and without."""
    rows = [["instructions per loop", "Linux 7.3", "vmwalk", "the loop alone"]]
    for case in document.get("loops", []):
        theirs = case["peers"].get("linux-7.3", {}).get("loop")
        rows.append([case["case"], number(theirs), number(case["loop"]["instructions"]), number(case["loop"].get("steady"))])
    return align(rows) if len(rows) > 1 else []


def protects(document: Json) -> list[str]:
    """Changes of permissions, between map and unmap."""
    ops = ("map", "protect", "unmap")
    rows = [["instructions, tables and neighbours come and go", *ops]]
    rows += [[case["case"], *(number(case[op]["instructions"]) for op in ops)] for case in document["cases"] if "protect" in case]
    return align(rows) if len(rows) > 1 else []


def cpus(document: Json) -> list[str]:
    """Several CPUs: how many operations a million instructions are worth, and how often a lock was waited for."""
    found = document.get("cpus")
    if not found:
        return []
    numbers = sorted({record["cpus"] for record in found["in turn"]})
    rows = [["CPUs", *map(str, numbers)]]
    for work in dict.fromkeys(record["work"] for record in found["in turn"]):
        turns = {record["cpus"]: record for record in found["in turn"] if record["work"] == work}
        rows.append([f"{work}: operations per million instructions", *(number(1_000_000 * turns[nr]["operations"] // turns[nr]["instructions"]) for nr in numbers)])
        for how in ("in turn", "at once"):
            there = {record["cpus"]: record for record in found[how] if record["work"] == work}
            rows.append([f"  waits for a lock per 1,000 operations, CPUs {how}", *(number(1_000 * there[nr]["waits"] // there[nr]["operations"] if nr in there else None) for nr in numbers)])
    return [*align(rows), *found.get("unfinished", [])]


def growth(document: Json) -> list[str]:
    """The curves, each as a line of its points; of a long one only some."""
    lines = []
    for name, points in document.get("curves", {}).items():
        shown = points if len(points) <= 12 else points[:: len(points) // 10]
        lines.append(f"{name}: " + ", ".join(f"{x:,}: {y:,}" for x, y in shown))
    return lines


def accesses(document: Json) -> list[str]:
    """Table loads and stores, table pages, TLBIs and barriers."""
    keys = ("loads", "stores", "tables", "tlbi", "dsb", "isb")
    rows = [["vmwalk, map / unmap (map / protect / unmap)", *keys]]
    for case in measured(document):
        ops = [case[op] for op in ("map", "protect", "unmap", "loop") if op in case and "loads" in case[op]]
        if ops:
            rows.append([case["case"], *(" / ".join(number(op[key]) for op in ops) for key in keys)])
    return align(rows) if len(rows) > 1 else []


def closing(document: Json) -> list[str]:
    """How far ahead, over all cases, and where not."""
    lines = []
    for peer in [name for name, _ in COLUMNS] + walkers(document):
        mean, nr, slower = advantage(document["cases"], peer)
        if nr:
            lines.append(f"{peer} / vmwalk: {mean:.2f} (geometric mean of {nr} cases, map and unmap)")
            lines += [f"  dearer than {peer}: {case}" for case in slower]
    mean, nr, slower = advantage(document.get("loops", []), "linux-7.3", ("loop",))
    if nr:
        lines.append(f"linux-7.3 / vmwalk: {mean:.2f} (geometric mean of {nr} loops of test_vmalloc)")
        lines += [f"  dearer than linux-7.3: {case}" for case in slower]
    return lines


def difference(found: Iterable[Change]) -> list[str]:
    """What a change did, operation by operation; those that it left alone are only counted."""
    rows = [["case", "op", "before", "after", "change"]]
    same = 0
    for change in found:
        if change.before == change.after:
            same += 1
        else:
            rows.append([change.case, change.op, number(change.before), number(change.after), f"{change.percent:+.1f}%"])
    lines = align(rows, left=2) if len(rows) > 1 else []
    return [*lines, f"{same} of {same + len(rows) - 1} operations cost the same"]


def without_ranges(document: Json) -> list[str]:
    """Unmapping on a CPU without TLBI by range, beside the same on one with it."""
    there = {case["case"]: case for case in document["without range TLBI"]["cases"]}
    rows = [["unmap", "instructions", "without", "TLBIs", "without"]]
    for case in document["cases"]:
        unmap, other = case.get("unmap", {}), there.get(case["case"], {}).get("unmap", {})
        if "tlbi" in unmap and "tlbi" in other and unmap["tlbi"] != other["tlbi"]:
            rows.append([case["case"], *(number(op[key]) for key in ("instructions", "tlbi") for op in (unmap, other))])
    return align(rows)
