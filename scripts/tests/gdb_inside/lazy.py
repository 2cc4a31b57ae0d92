"""Runs inside gdb, when the vmalloc subsystem is set up: makes its policy lazier than that of any boot."""

import struct

import gdb  # type: ignore  # exists only in gdb

from vmwgdb.vmalloc import Subsystem

AREAS, PAGES = 1000, 1 << 20


def write_policy() -> None:
    subsystem = Subsystem().value
    kind = gdb.lookup_type("vmalloc::policy::FlushPolicy::Lazy")
    places = {field.name: field.bitpos // 8 for field in kind.fields()}
    for policy in (subsystem["config"]["flush"], subsystem["share"]):
        data = bytearray(policy.type.sizeof)
        struct.pack_into("<Q", data, 0, 1)
        struct.pack_into("<Q", data, places["areas"], AREAS)
        struct.pack_into("<Q", data, places["pages"], PAGES)
        gdb.selected_inferior().write_memory(int(policy.address), bytes(data))


write_policy()
