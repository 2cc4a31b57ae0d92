"""Runs inside gdb: a value of each type that has a pretty-printer, made of bytes, as `print` shows it."""

import struct

import gdb  # type: ignore  # exists only in gdb


def show(name: str, data: bytes) -> None:
    kind = gdb.lookup_type(name)
    data = data.ljust(kind.sizeof, b"\0")
    assert len(data) == kind.sizeof, f"{name} has {kind.sizeof} bytes"
    print(f"{name.rsplit('::', 1)[-1]} = {gdb.Value(data, kind).format_string()}")


def word(value: int) -> bytes:
    return struct.pack("<Q", value)


def leaf_size(level: int, contiguous: bool) -> bytes:
    """By the fields' places, which the compiler chooses."""
    places = {field.name: field.bitpos // 8 for field in gdb.lookup_type("paging::outcome::LeafSize").fields()}
    data = bytearray(2)
    data[places["level"]], data[places["contiguous"]] = level, contiguous
    return bytes(data)


def virt_range(start: int, size: int) -> bytes:
    places = {field.name: field.bitpos // 8 for field in gdb.lookup_type("paging::addr::VirtRange").fields()}
    data = bytearray(16)
    struct.pack_into("<Q", data, places["start"], start)
    struct.pack_into("<Q", data, places["size"], size)
    return bytes(data)


show("paging::addr::VirtAddr", word(0xFFFF_8000_0000_1000))
show("paging::addr::PhysAddr", word(0x4020_0000))
show("paging::addr::Pfn", word(0x40200))
show("paging::addr::VirtRange", virt_range(0xFFFF_8000_0000_0000, 1 << 20))
show("paging::descriptor::Descriptor", word(0))
show("paging::descriptor::Descriptor", word(0x0060_0000_4000_070D))
show("paging::descriptor::Descriptor", word(0x0070_0000_4000_070F))
show("paging::descriptor::Attributes", word(0x0060_0000_0000_070C))
show("paging::outcome::LeafSize", leaf_size(3, True))
show("paging::outcome::LeafSize", leaf_size(1, False))
show("paging::outcome::LeafSet", bytes([0b1100_0000]))
show("paging::outcome::LevelMask", bytes([0b1100]))
show("paging::outcome::LeafCounts", struct.pack("<8I", 0, 0, 0, 0, 3, 0, 5, 16))
