"""Adds a memory node to a device tree blob, for RAM that the emulator has and does not list: it tells of a pc-dimm by ACPI alone."""

import struct

from .errors import ScriptError

BEGIN_NODE, END_NODE, PROP, END = 1, 2, 3, 9
HEADER = struct.Struct(">10I")
"""Magic, size, offsets of structure, strings and reservations, two versions, CPU, sizes of strings and structure."""


def with_memory(blob: bytes, start: int, size: int) -> bytes:
    """The tree with one node more below its root, whose addresses and sizes have two cells, as those of `virt` have."""
    magic, _, structs_at, strings_at, reserved_at, version, compatible, cpu, strings_size, structs_size = HEADER.unpack_from(blob)
    structs, strings = blob[structs_at : structs_at + structs_size], blob[strings_at : strings_at + strings_size]
    close = struct.pack(">II", END_NODE, END)
    if magic != 0xD00D_FEED or not structs.endswith(close) or strings_at < structs_at:
        raise ScriptError("a device tree with its strings behind its structure is expected")
    names = b"device_type\0reg\0"
    device_type, reg = strings_size, strings_size + len(b"device_type\0")
    node = struct.pack(">I", BEGIN_NODE) + padded(f"memory@{start:x}".encode() + b"\0")
    node += prop(device_type, b"memory\0") + prop(reg, struct.pack(">QQ", start, size)) + struct.pack(">I", END_NODE)
    structs, strings = structs[: -len(close)] + node + close, strings + names
    at = structs_at + len(structs)
    header = HEADER.pack(magic, at + len(strings), structs_at, at, reserved_at, version, compatible, cpu, len(strings), len(structs))
    return header + blob[HEADER.size : structs_at] + structs + strings


def prop(name: int, value: bytes) -> bytes:
    return struct.pack(">III", PROP, len(value), name) + padded(value)


def padded(text: bytes) -> bytes:
    return text + bytes(-len(text) % 4)
