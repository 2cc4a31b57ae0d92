"""Runs inside gdb: changes a bit that hardware ignores in one page's descriptor; a second time changes it back."""

import struct

import gdb  # type: ignore  # exists only in gdb

from vmwgdb import walk
from vmwgdb.target import Physical, registers


def flip() -> None:
    half = registers().half(1)
    with Physical() as memory:
        leaf = next(leaf for leaf in walk.leaves(memory.read, half, half.start, half.start + half.size - 1) if leaf.level == 3 and not leaf.contiguous)
        step = walk.walk(memory.read, registers(), leaf.va).steps[-1]
        memory.write(step.table + 8 * step.index, struct.pack("<Q", step.descriptor.value ^ 1 << 58))


flip()
