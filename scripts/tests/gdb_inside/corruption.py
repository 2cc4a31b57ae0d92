"""Runs inside gdb: breaks a live contiguous group in each way, has it walked and dumped, and mends it again.

Everything is written to physical memory behind the kernel's back and taken back before it goes on.
"""

import struct

import gdb  # type: ignore  # exists only in gdb

from vmwgdb import walk
from vmwgdb.arch import CONTIGUOUS, Descriptor
from vmwgdb.target import Physical, registers


def first_group(level: int) -> walk.Group:
    state = registers()
    half = state.half(1)
    with Physical() as memory:
        for leaf in walk.leaves(memory.read, half, half.start, half.start + half.size - 1):
            if leaf.contiguous and leaf.level == level and not leaf.broken:
                found = walk.walk(memory.read, state, leaf.va).group
                assert found
                return found
    raise gdb.GdbError(f"nothing is mapped by a level {level} group")


def write(group: walk.Group, member: int, value: int) -> None:
    with Physical() as memory:
        memory.write(group.table + 8 * (group.first + member), struct.pack("<Q", value))


def break_it(level: int) -> None:
    group = first_group(level)
    values = [descriptor.value for descriptor in group.descriptors]
    step = Descriptor(values[0], level, group.descriptors[0].geometry).geometry.size(level)
    ways = {
        "without CONT": (5, values[5] & ~CONTIGUOUS),
        "vacant": (9, 0),
        "another address": (15, values[15] + step),
        "read-only": (0, values[0] ^ 1 << 7),
    }
    for way, (member, value) in ways.items():
        write(group, member, value)
        print(f"== level {level} {way}: member {group.first + member}")
        gdb.execute(f"vmw walk {group.va + 3 * step:#x}")
        gdb.execute(f"vmw ptdump {group.va:#x}+{16 * step:#x}")
        write(group, member, values[member])
    print(f"== level {level} mended")
    gdb.execute(f"vmw walk {group.va + 3 * step:#x}")
    gdb.execute(f"vmw ptdump {group.va:#x}+{16 * step:#x}")


break_it(3)
break_it(2)
