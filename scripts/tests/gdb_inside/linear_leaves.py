"""Runs inside gdb: steps through every leaf that the build of the linear map chooses, call by call.

Each choice is compared with one made here, by trying the sizes from the largest down; and at the end all of them together with
what the tables map.
"""

import re

import gdb  # type: ignore  # exists only in gdb

from vmwgdb import walk
from vmwgdb.arch import Geometry, show_size
from vmwgdb.target import Physical, registers, regions

PLACE = r"va (0x[0-9a-f]+) -> pa (0x[0-9a-f]+), run (\S+), remaining (\S+)"
LEAF = re.compile(rf"^leaf (\S+) \(L\dC?[^)]*\): {PLACE}$", re.MULTILINE)
UNITS = {"K": 10, "M": 20, "G": 30, "T": 40}
GEOMETRY = Geometry("4K")


def size_of(text: str) -> int:
    return int(text[:-1]) << UNITS[text[-1]] if text[-1] in UNITS else int(text)


def largest(va: int, pa: int, run: int, remaining: int) -> int:
    sizes = [size for _, _, size in GEOMETRY.leaf_sizes()]
    return next(size for size in sizes if va % size == pa % size == 0 and size <= min(run, remaining))


def run_through(function: str, end: str) -> None:
    """Traces each call of `function` until `end` is reached."""
    gdb.execute(f"tbreak {end}", to_string=True)
    chosen: list[tuple[int, int, int]] = []
    calls = stops = 0
    while True:
        try:
            text = gdb.execute(f"vmw trace-walk {function}", to_string=True)
        except gdb.error as error:
            assert "stopped elsewhere" in str(error), error
            break
        calls += 1
        while "has returned" not in text:
            text = gdb.execute("vmw step-leaf", to_string=True)
            found = LEAF.findall(text)
            assert len(found) == ("has returned" not in text), text
            for size, va, pa, run, remaining in found:
                stops += 1
                leaf = int(va, 16), int(pa, 16), size_of(size)
                assert leaf[2] == largest(leaf[0], leaf[1], size_of(run), size_of(remaining)), text
                assert text.count("  not ") == sum(size > leaf[2] for _, _, size in GEOMETRY.leaf_sizes()), text
                assert "no reason found" not in text, text
                chosen.append(leaf)
    start, last = regions()["linear"]
    with Physical() as memory:
        half = registers().half(1)
        mapped = [(leaf.va, leaf.pa, leaf.size) for leaf in walk.leaves(memory.read, half, start, last)]
    in_linear = sorted(leaf for leaf in chosen if start <= leaf[0] <= last)
    verdict = "equal" if in_linear == mapped else "DIFFERENT"
    print(f"leaves: {calls} calls, {stops} stops, {len(in_linear)} leaves chosen, {len(mapped)} mapped, {verdict}")
    sizes = sorted({leaf[2] for leaf in in_linear})
    print("sizes:", " ".join(show_size(size) for size in sizes))


run_through("vmap_range_noflush", "kernel::mm::areas::init")
