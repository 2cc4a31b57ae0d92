#!/usr/bin/env -S python3 -B
"""What the host's reader says of traces: read from the standard input, each behind a line with its length in bytes.

A line for each: the refusal, or what it counts. kernel/trace-replay/tests holds it against what the
kernel's reader says of the same.

    scripts/tests/read_traces.py CPUS < traces
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from lib import replay_trace  # noqa: E402


def read(text: bytes, cpus: int) -> str:
    try:
        trace = replay_trace.parse(text)
    except replay_trace.Refused as refused:
        return str(refused)
    need = replay_trace.need(trace, cpus)
    return (
        f"{len(trace.areas)} areas, {len(trace.events)} events, {trace.nr_cpus} CPUs, {trace.nr_skipped} skipped;"
        f" {need.peak_areas} {need.peak_bytes} {need.peak_ram} {need.free_ram}"
    )


def main() -> None:
    source = sys.stdin.buffer
    traces = []
    while length := source.readline():
        traces.append(source.read(int(length)))
    for text in traces:
        print(read(text, int(sys.argv[1])))


if __name__ == "__main__":
    main()
