"""What `mode=replay` prints, made into build/replay.json and into a table.

Everything here is pure: lines of the console go in.
"""

from collections.abc import Iterable
from typing import Any

from .errors import Malformed
from .fields import decode
from .replay_trace import Need, Trace

MARK = "replay {"
PARTS = ("machine", "trace", "peak", "verified", "space")
REQUIRED = ("machine", "trace", "peak", "verified")

Json = dict[str, Any]


BadOutput = Malformed
"""The kernel's output is not what a complete replay prints; the message says where."""


def parse(lines: Iterable[str]) -> Json:
    """One boot's replay: its parts, a row for each operation and kind, and what went wrong."""
    run: Json = {"rows": [], "failures": []}
    for line in lines:
        if not line.startswith(MARK):
            continue
        record = decode(line.removeprefix("replay "), repr(line))
        match record:
            case {"op": str(), "kind": str(), "count": int(), "tlbi": int(), "dsb": int(), "isb": int()}:
                run["rows"].append(record)
            case {"failure": str(text)}:
                run["failures"].append(text)
            case {"failures": int(nr)}:
                run["nr_failures"] = nr
            case dict() if len(record) == 1 and (part := next(iter(record))) in PARTS and part not in run:
                run[part] = record[part]
            case _:
                raise BadOutput(f"not understood: {line!r}")
    if missing := [part for part in (*REQUIRED, "nr_failures") if part not in run]:
        raise BadOutput(f"the replay is not complete: no {', '.join(missing)}")
    return run


def check(run: Json, trace: Trace, need: Need) -> None:
    """Whether the kernel has performed what the host has read."""
    expected = trace.calls()
    found = {(row["op"], row["kind"]): row["count"] for row in run["rows"]}
    if not run["failures"] and found != expected:
        wrong = sorted(key for key in {*expected, *found} if expected.get(key) != found.get(key))
        told = ", ".join(f"{op} {kind}: {found.get((op, kind), 0)} of {expected.get((op, kind), 0)}" for op, kind in wrong)
        raise BadOutput(f"the kernel has not performed the trace: {told}")
    told = run["trace"]
    ours = {"needs": need.free_ram, "peak_areas": need.peak_areas, "peak_bytes": need.peak_bytes, "peak_ram": need.peak_ram, "skipped": trace.nr_skipped}
    for name, value in ours.items():
        if told.get(name) != value:
            raise BadOutput(f"host and kernel do not read the same trace: {name} {value} here, {told.get(name)} there")


def mib(size: int) -> str:
    return f"{size / (1 << 20):.1f} MiB"


def table(run: Json) -> list[str]:
    """The report for people."""
    counted = run["machine"]["instructions"]
    head = f"{'op':<8} {'kind':<16} {'calls':>6}"
    if counted:
        head += f" {'median':>8} {'p99':>8} {'max':>8} {'instructions':>13}"
    lines = [f"{head} {'TLBI':>6} {'DSB':>6} {'ISB':>6}"]
    for row in run["rows"]:
        line = f"{row['op']:<8} {row['kind']:<16} {row['count']:>6,}"
        if counted:
            values = row["instructions"]
            line += f" {values['median']:>8,} {values['p99']:>8,} {values['max']:>8,} {values['total']:>13,}"
        lines.append(f"{line} {row['tlbi']:>6,} {row['dsb']:>6,} {row['isb']:>6,}")
    of_trace = [row for row in run["rows"] if row["op"] not in ("pre", "rest")]
    line = f"{'the trace, in all':<25} {sum(row['count'] for row in of_trace):>6,}"
    if counted:
        line += f" {'':>26} {sum(row['instructions']['total'] for row in of_trace):>13,}"
    lines.append(line + "".join(f" {sum(row[key] for row in of_trace):>6,}" for key in ("tlbi", "dsb", "isb")))
    return lines + summary(run)


def summary(run: Json) -> list[str]:
    peak, verified = run["peak"], run["verified"]
    lines = [
        f"peak      {peak['live_areas']:,} areas in use, {mib(peak['live_bytes'])} with guards; {mib(peak['ram_bytes'])} of RAM; {peak['tables']:,} table pages",
        f"lazy      at most {peak['lazy_areas']:,} areas, {mib(peak['lazy_bytes'])}",
    ]
    if space := run.get("space"):
        used = space["span"] - space["hole_bytes"]
        lines += [
            f"space     at the end {space['areas']:,} areas in {mib(space['span'])}, {100 * used / max(1, space['span']):.0f}% in use;"
            f" {space['holes']:,} holes, {mib(space['hole_bytes'])}, the largest {mib(space['largest_hole'])};"
            f" {mib(space['kept'])} of them kept for the next of a size, {mib(space['lazy'])} lazy",
            f"          free ranges of the allocator: {space['gaps']:,}, at most {space['most_gaps']:,}; the largest {space['largest_gap'] / (1 << 40):.1f} TiB",
        ]
    lines.append(
        f"verified  {verified['pages']:,} pages of RAM ({verified['code_pages']:,} of code), {verified['device_pages']:,} of devices,"
        f" {verified['guards']:,} guards, {verified['gone']:,} mappings gone"
    )
    return lines
