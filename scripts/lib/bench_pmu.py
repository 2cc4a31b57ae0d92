"""Benches by the PMU (bench.counters=pmu): what silicon takes, or an emulator's time, with its spread.

Lines of a console go in, from boots of the emulator or a board's log; the contents of
build/bench-pmu.json come out.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

from .bench import MARK, OPS, OURS, Json, parse_work, tlb_entries
from .bench_text import align
from .errors import BadSetting, Malformed
from .fields import Record, decode

STATES = ("warm", "cold")
NS = "ns"
"""Of CNTVCT_EL0: what a line has as `ticks`."""
SPREAD = ("minimum", "first quartile", "median", "third quartile", "maximum")
ACCESSES = ("loads", "stores", "allocated", "freed", "tlbi", "dsb", "isb")

PARTS = {
    0x00: ("an emulator", {0x051: "QEMU's max"}),
    0x41: ("Arm", {
        0xD03: "Cortex-A53", 0xD05: "Cortex-A55", 0xD07: "Cortex-A57", 0xD08: "Cortex-A72", 0xD09: "Cortex-A73", 0xD0A: "Cortex-A75",
        0xD0B: "Cortex-A76", 0xD0C: "Neoverse N1", 0xD0D: "Cortex-A77", 0xD40: "Neoverse V1", 0xD41: "Cortex-A78", 0xD44: "Cortex-X1",
        0xD46: "Cortex-A510", 0xD47: "Cortex-A710", 0xD48: "Cortex-X2", 0xD49: "Neoverse N2", 0xD4D: "Cortex-A715", 0xD4E: "Cortex-X3",
        0xD4F: "Neoverse V2", 0xD80: "Cortex-A520", 0xD81: "Cortex-A720", 0xD82: "Cortex-X4",
    }),
    0x48: ("HiSilicon", {0xD01: "Kunpeng 920"}),
    0x51: ("Qualcomm", {0x001: "Oryon"}),
    0x61: ("Apple", {0x022: "M1 Icestorm", 0x023: "M1 Firestorm", 0x032: "M2 Blizzard", 0x033: "M2 Avalanche"}),
    0xC0: ("Ampere", {0xAC3: "AmpereOne", 0xAC4: "AmpereOne A"}),
}  # fmt: skip
"""By MIDR_EL1's implementer and part."""


def name_of_cpu(midr: int) -> str:
    """What MIDR_EL1 says: "Cortex-A76 r4p0"."""
    implementer, variant, part, revision = midr >> 24 & 0xFF, midr >> 20 & 0xF, midr >> 4 & 0xFFF, midr & 0xF
    maker, parts = PARTS.get(implementer, (f"implementer {implementer:#04x}", {}))
    return f"{parts.get(part, f'{maker}, part {part:#05x}')} r{variant}p{revision}"


# ---- reading ----------------------------------------------------------------------------------


def marked(lines: Iterable[str]) -> Iterator[str]:
    """The lines that are the bench's, of a log that may have something before them (a time) and ends of lines of a terminal."""
    for line in lines:
        at = line.find(MARK + "{")
        if at >= 0:
            yield line[at:].rstrip()


def parse(lines: Iterable[str]) -> Json:
    """Raises Malformed for a line that is none, a case that was measured twice, and for two machines."""
    machine: Json = {}
    cases: dict[str, Json] = {}
    for line in marked(lines):
        where = repr(line) if len(line) < 200 else repr(f"{line[:200]}...")
        record = Record(decode(line.removeprefix(MARK), where), where)
        if "machine" in record:
            said = parse_machine(record.record("machine"))
            if machine and said != machine:
                raise Malformed(f"the log is of two machines, or two images: {where}")
            machine = said
        elif "case" in record:
            if not machine:
                raise Malformed(f"what it was measured with is not said before {where}")
            take(cases, record, machine)
        elif "name" not in record and "work" not in record:
            raise Malformed(f"not understood: {where}")
    if not machine:
        raise Malformed("the kernel did not say what it measures with: no line of mode=bench bench.counters=pmu")
    for name, case in cases.items():
        if OURS not in case["walkers"]:
            raise Malformed(f"{name}: {OURS} itself is missing")
    return {"machine": machine, "cases": list(cases.values())}


def parse_machine(said: Record) -> Json:
    if said.value.get("counters") != "pmu":
        raise Malformed(f"{said.where}: counted by instructions, and not by the PMU (bench.counters=pmu)")
    said.number("hz", 1)
    machine = dict(said.value)
    counted = list(said.record("counted").value)
    machine["counted"] = [NS if name == "ticks" else name for name in counted]
    machine["not_counted"] = said.record("not_counted").value
    machine["midr"] = said.number("midr")
    machine["name"] = name_of_cpu(machine["midr"])
    return machine


def take(cases: dict[str, Json], record: Record, machine: Json) -> None:
    name, walker, op, state = (record.text(key) for key in ("case", "walker", "op", "state"))
    if op not in OPS or state not in STATES:
        raise Malformed(f"{record.where}: neither of {', '.join((*OPS, *STATES))}")
    case = cases.setdefault(name, {"case": name, "walkers": {}})
    measured = case["walkers"].setdefault(walker, {}).setdefault(op, {})
    if state in measured:
        raise Malformed(f"{name}, {walker}: {op}, {state}, was measured twice")
    measured[state] = {"runs": record.number("runs", 1)}
    for counter in machine["counted"]:
        key = "ticks" if counter == NS else counter
        spread = record.array(key)
        if len(spread) != len(SPREAD) or any(type(value) is not int or value < 0 for value in spread) or spread != sorted(spread):
            raise record.refuse(key, ", ".join(SPREAD))
        measured[state][counter] = [round(value * 1e9 / machine["hz"], 1) for value in spread] if counter == NS else spread
    if "loads" in record:
        measured["accesses"] = {key: record.value.get(key) for key in ACCESSES}
    if walker == OURS and op == "map" and "leaves" in record:
        case |= {"leaves": record.text("leaves"), "tlb_entries": tlb_entries(record.text("leaves"))}
    if "note" in record:
        case["note"] = record.text("note")


def check_document(document: Record) -> Json:
    """Returns the result of the PMU. Raises Malformed with the place where it is none."""
    machine = document.record("machine")
    counted = machine.array("counted")
    for case in document.records("cases"):
        case.text("case")
        for walker in case.record("walkers").value:
            ops = case.record("walkers").record(walker)
            for op in ops.value:
                for state in STATES:
                    if state not in ops.record(op):
                        continue
                    figures = ops.record(op).record(state)
                    for counter in counted:
                        spread = figures.array(counter)
                        if len(spread) != len(SPREAD) or any(type(value) not in (int, float) or value < 0 for value in spread):
                            raise figures.refuse(counter, ", ".join(SPREAD))
    return document.value


def rows(document: Json) -> Iterator[tuple[str, str, str, str, Json]]:
    """Case, walker, operation, state and figures of all that was measured."""
    for case in document["cases"]:
        for walker, ops in case["walkers"].items():
            for op, measured in ops.items():
                for state in STATES:
                    if state in measured:
                        yield case["case"], walker, op, state, measured[state]


# ---- showing ----------------------------------------------------------------------------------


def number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:,.1f}"


def median(figures: Json, counter: str) -> float:
    return float(figures[counter][2])


def cell(figures: Json, counter: str) -> str:
    """Median, and half the distance of the quartiles in percent of it."""
    _, low, middle, high, _ = figures[counter]
    return f"{number(middle)} ±{50 * (high - low) / middle:.0f}%" if middle else number(middle)


def ratio(one: float, other: float) -> str:
    return f"{one / other:.2f}x" if other else "-"


CLAIMS = (
    ("ioremap(1 MB)", "range 1M, 64K pa", "3.41 -> 2.53 us", "1.35x"),
    ("vmalloc(1 MB), its mapping", "pages-range 1M, shift 16", "5.00 -> 3.53 us", "1.42x"),
    ("vmap() of 100 MB, order 8", "vmap 25600, order 8/range-only", "1235 -> 149 us", "8.3x"),
)
"""What the series' cover letters say of an RK3588: call, the case here that walks the same, time before and after, how many times."""
BEFORE, AFTER = "rewalk", "series"


def claims(document: Json) -> list[str]:
    """The series' table, with this machine's figures: the walk of Linux 7.3, that of the series, and the engine's."""
    cases = {case["case"]: case["walkers"] for case in document["cases"]}
    counters = [counter for counter in (NS, "cycles") if counter in document["machine"]["counted"]]
    table = [["the series' table", "it says", "", "here", "state", "before", "after", "before / after", "vmwalk", "before / vmwalk"]]
    for call, name, times, claimed in CLAIMS:
        walkers = cases.get(name, {})
        for counter in counters:
            for state in STATES:
                found = [walkers.get(walker, {}).get("map", {}).get(state) for walker in (BEFORE, AFTER, OURS)]
                if all(found):
                    before, after, ours = (median(figures, counter) for figures in found)
                    table.append([call, times, claimed, counter, state, number(before), number(after), ratio(before, after), number(ours), ratio(before, ours)])
    return align(table, left=5) if len(table) > 1 else []


def table(document: Json) -> list[str]:
    """Every operation of the engine with each counter, then how many times as much the other walkers take."""
    counted = document["machine"]["counted"]
    mine = [["vmwalk: median ± half the distance of the quartiles", "op", "state", *counted]]
    names = list(dict.fromkeys(walker for case in document["cases"] for walker in case["walkers"] if walker != OURS))
    main = "cycles" if "cycles" in counted else NS
    others = [[f"{main}, walker / vmwalk", "op", "state", *names]]
    for case in document["cases"]:
        for op, measured in case["walkers"][OURS].items():
            for state in STATES:
                if state not in measured:
                    continue
                mine.append([case["case"], op, state, *(cell(measured[state], counter) for counter in counted)])
                theirs = [case["walkers"].get(walker, {}).get(op, {}).get(state) for walker in names]
                if any(theirs):
                    ours = median(measured[state], main)
                    mark = " *" if "note" in case else ""
                    others.append([case["case"] + mark, op, state, *(ratio(median(figures, main), ours) if figures else "-" for figures in theirs)])
    notes = sorted({f"* {case['note']}" for case in document["cases"] if "note" in case})
    parts = [
        about(document["machine"]),
        align(mine, left=3) if len(mine) > 1 else [],
        [*align(others, left=3), *notes] if len(others) > 1 else [],
        claims(document),
        cpus(document),
    ]
    return [line for part in parts if part for line in ("", *part)][1:]


def about(machine: Json) -> list[str]:
    """What it was measured on, and what this machine does not count."""
    lines = [
        f"{machine['name']} (MIDR {machine['midr']:#010x}), {machine['pmu']} with {machine['event_counters']} event counters,"
        f" CNTFRQ {machine['hz']:,} Hz, pages of {machine['granule'] // 1024}K, {machine['evict']} MiB read before a cold call"
    ]
    if missing := machine["not_counted"]:
        lines.append("not counted: " + ", ".join(f"{name} ({why})" for name, why in missing.items()))
    if machine.get("accelerator") == "tcg":
        lines.append("of an emulator that translates: its time, and cycles that it makes of time, say nothing of silicon")
    return lines


def cpus(document: Json) -> list[str]:
    """Several CPUs at once: operations per millisecond, all together."""
    found = document.get("cpus")
    if not found:
        return []
    numbers = sorted({record["cpus"] for record in found})
    result = [["operations per ms, CPUs together", *map(str, numbers)]]
    for work in dict.fromkeys(record["work"] for record in found):
        of_work = {record["cpus"]: record for record in found if record["work"] == work}
        result.append([work, *(number(1e6 * of_work[nr]["operations"] / max(1, of_work[nr]["ns"])) if nr in of_work else "-" for nr in numbers)])
    return align(result)


def parse_cpus(lines: list[str], nr: int) -> list[Json]:
    records = parse_work(lines, nr)
    for record in records:
        Record(record, repr(record.get("work"))).number("ns")
    return records


def read_log(path: Path) -> list[str]:
    """The lines of a console's log; what else is in it need not be text."""
    try:
        return path.read_bytes().decode(errors="replace").splitlines()
    except OSError as error:
        raise BadSetting(f"{path}: {error.strerror}") from None
