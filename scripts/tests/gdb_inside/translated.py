"""Runs inside gdb: the whole of `vmw ptdump` against the CPU's own AT instructions, on whatever kernel is stopped.

At the edges of each run, and beside them, AT S1E1R, S1E1W, S1E0R and S1E0W are executed in place of the code at the PC: PAR_EL1 has
the address, the byte of MAIR_EL1 and the shareability, or a fault. Code and registers are put back.
"""

import struct

import gdb  # type: ignore  # exists only in gdb

from vmwgdb import walk
from vmwgdb.arch import MASK
from vmwgdb.memory_types import type_name
from vmwgdb.target import Physical, halves, registers

ISB = 0xD503_3FDF
KINDS = ("S1E1R", "S1E1W", "S1E0R", "S1E0W")
CODE = [word for kind in range(4) for word in (0xD508_7800 | kind << 5, ISB, 0xD538_7401 + kind)]
"""For each kind: AT X0; ISB; MRS of PAR_EL1 to X1 and on."""


class Translator:
    """The code at the PC, made to translate."""

    def __init__(self) -> None:
        self.names = ("pc", *(f"x{i}" for i in range(5)))
        self.saved = {name: int(gdb.parse_and_eval(f"${name}")) & MASK for name in self.names}
        with Physical() as memory:
            found = walk.walk(memory.read, registers(), self.saved["pc"])
            # The page of the PC has room for it somewhere, which runs the same.
            self.at = found.pa & ~0xFFF
            self.code = self.saved["pc"] & ~0xFFF
            self.before = memory.read(self.at, 4 * len(CODE))
            memory.write(self.at, struct.pack(f"<{len(CODE)}I", *CODE))

    def put_back(self) -> None:
        with Physical() as memory:
            memory.write(self.at, self.before)
        for name, value in self.saved.items():
            gdb.execute(f"set ${name} = {value:#x}")

    def translate(self, va: int) -> list[int]:
        """PAR_EL1 of each kind."""
        gdb.execute(f"set $pc = {self.code:#x}")
        gdb.execute(f"set $x0 = {va:#x}")
        gdb.execute(f"stepi {len(CODE)}", to_string=True)
        return [int(gdb.parse_and_eval(f"$x{i}")) & MASK for i in range(1, 5)]


def expected(leaf: walk.Leaf, va: int) -> tuple[tuple[int, str, int], list[bool]]:
    """Page, type and shareability, and for each kind whether it is allowed."""
    descriptor = leaf.descriptor
    may = ["r" in descriptor.el1, "w" in descriptor.el1, "r" in descriptor.el0, "w" in descriptor.el0]
    what = ((leaf.pa + va - leaf.va) & ~0xFFF, descriptor.memory_type, descriptor.shareability)
    return comparable(*what), may


def comparable(page: int, memory_type: str, shareability: int) -> tuple[int, str, int]:
    """Memory that is not cacheable is outer shareable whatever SH says: a CPU may report either."""
    return page, memory_type, 2 if memory_type.startswith(("Device", "Normal-NC")) else shareability


def said(par: int) -> tuple[int, str, int]:
    return comparable(par & 0x000F_FFFF_FFFF_F000, type_name(par >> 56), par >> 7 & 3)


def compare() -> None:
    state = registers()
    with Physical() as memory:
        runs = [run for half in halves(state) for run in walk.merge(walk.leaves(memory.read, half, 0, MASK)) if run.valid]
    addresses = sorted({va & MASK for run in runs for va in (run.va - 1, run.va, run.va + run.size - 1, run.va + run.size)})
    translator = Translator()
    mapped = differ = 0
    try:
        for va in addresses:
            answers = [None if par & 1 else said(par) for par in translator.translate(va)]
            leaf = next((run for run in runs if run.va <= va < run.va + run.size), None)
            mapped += leaf is not None
            what, may = expected(leaf, va) if leaf else (None, [False] * 4)
            for kind, answer, allowed in zip(KINDS, answers, may, strict=True):
                if answer != (what if allowed else None):
                    differ += 1
                    print(f"DIFFERS at {va:#x}: AT {kind} says {answer}, the dump {what if allowed else None}")
    finally:
        translator.put_back()
    print(f"translated: {len(runs)} runs, {mapped} addresses in them and {len(addresses) - mapped} beside them, {differ} answers differ")


compare()
