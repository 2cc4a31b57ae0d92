"""Runs inside gdb: `vmw walk`'s engine against the emulator's own `gva2gpa`, for 1,000 addresses mapped and not.

Half of the addresses lie in what is mapped, in each run of leaves alike, edges included; the others anywhere: beside runs, in
gaps, in guard pages, in the other half, and where no half is.
"""

import random

import gdb  # type: ignore  # exists only in gdb

from vmwgdb import walk
from vmwgdb.arch import MASK
from vmwgdb.target import Physical, halves, register, registers

NR_ADDRESSES = 1000


def addresses(seed: int) -> list[int]:
    generator = random.Random(seed)
    state = registers()
    with Physical() as memory:
        runs = [run for half in halves(state) for run in walk.merge(walk.leaves(memory.read, half, 0, MASK))]
    chosen = []
    while len(chosen) < NR_ADDRESSES // 2:
        run = generator.choice(runs)
        chosen.append(run.va + generator.choice((0, run.size - 1, generator.randrange(run.size))))
    while len(chosen) < NR_ADDRESSES:
        run = generator.choice(runs)
        kind = generator.randrange(5)
        if kind == 0:
            chosen.append(run.va - 1 - generator.randrange(1 << generator.randrange(1, 36)) & MASK)
        elif kind == 1:
            chosen.append(run.va + run.size + generator.randrange(1 << generator.randrange(1, 36)) & MASK)
        elif kind == 2:
            chosen.append(generator.randrange(1 << 48))
        elif kind == 3:
            chosen.append(0xFFFF << 48 | generator.randrange(1 << 48))
        else:
            chosen.append(generator.randrange(1 << 64))
    return chosen


def emulator_says(va: int) -> int | None:
    answer = gdb.execute(f"monitor gva2gpa {va:#x}", to_string=True).strip()
    if answer == "Unmapped":
        return None
    if not answer.startswith("gpa: "):
        raise gdb.GdbError(f"gva2gpa {va:#x} says {answer!r}")
    return int(answer.removeprefix("gpa: "), 16)


def compare(seed: int) -> None:
    state = registers()
    mapped = unmapped = differ = 0
    # The emulator asks whether the CPU may read there, as it is now.
    at_el0 = register("cpsr") >> 2 & 3 == 0
    chosen = addresses(seed)
    with Physical() as memory:
        ours = [walk.walk(memory.read, state, va) for va in chosen]
    for va, result in zip(chosen, ours):
        theirs = emulator_says(va)
        mine = result.pa if result.mapped and (not at_el0 or "r" in result.leaf.narrowed(result.narrowed).el0) else None
        mapped += mine is not None
        unmapped += mine is None
        if mine != theirs:
            differ += 1
            print(f"DIFFERS at {va:#x}: vmw walk {mine}, gva2gpa {theirs}: {result.fault}")
    print(f"agreement: {len(chosen)} addresses, {mapped} mapped, {unmapped} unmapped, {differ} differ")


compare(6)
