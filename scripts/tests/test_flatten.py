"""The flat image, from ELF files made here."""

import importlib.util
import struct
import unittest
from importlib.machinery import SourceFileLoader
from pathlib import Path

SCRIPT = str(Path(__file__).resolve().parents[1] / "flatten")
LOADER = SourceFileLoader("flatten", SCRIPT)
SPEC = importlib.util.spec_from_loader("flatten", LOADER)
assert SPEC
flatten = importlib.util.module_from_spec(SPEC)
LOADER.exec_module(flatten)

BASE = 0xFFFF_FFFF_8000_0000


def header(image_size: int) -> bytes:
    """A 64-byte arm64 Image header."""
    return struct.pack("<IIQQQQQQ4sI", 0, 0, 0, image_size, 0xA, 0, 0, 0, b"ARM\x64", 0)


def elf(*segments: tuple[int, bytes], machine: int = 183, kind: int = 1) -> bytes:
    """An ELF file with these segments, (physical address, bytes), each followed by 4096 of BSS."""
    at = 64 + 56 * len(segments)
    table, data = b"", b""
    for paddr, content in segments:
        table += struct.pack("<IIQQQQQQ", kind, 5, at + len(data), paddr, paddr, len(content), len(content) + 4096, 4096)
        data += content
    ident = b"\x7fELF\x02\x01\x01" + bytes(9)
    return ident + struct.pack("<HHIQQQIHHHHHH", 2, machine, 1, BASE, 64, 0, 0, 64, 56, len(segments), 0, 0, 0) + table + data


class AFlatImage(unittest.TestCase):
    def test_is_the_segments_at_their_distances_with_zeros_between_and_no_bss(self) -> None:
        image = flatten.flatten(elf((BASE + 0x100, b"data"), (BASE, header(0x2000))))
        self.assertEqual(image, header(0x2000) + bytes(0x100 - 64) + b"data")

    def assert_refused(self, file: bytes, because: str) -> None:
        with self.assertRaisesRegex(flatten.NotAnImage, because):
            flatten.flatten(file)

    def test_is_not_made_of_what_no_loader_would_take(self) -> None:
        self.assert_refused(elf((BASE, bytes(64))), "no arm64 Image header")
        self.assert_refused(elf((BASE, header(0x40) + b"more")), "image_size 0x40 is less than the file's 0x44")

    def test_is_not_made_of_another_machines_file(self) -> None:
        self.assert_refused(b"\x7fELF\x01\x01" + bytes(100), "not a little-endian AArch64")
        self.assert_refused(elf((BASE, header(0x1000)), machine=62), "not a little-endian AArch64")
        self.assert_refused(b"", "not a little-endian AArch64")

    def test_is_not_made_of_nothing(self) -> None:
        self.assert_refused(elf((BASE, header(0x1000)), kind=4), "no loadable segment")

    def test_is_not_made_of_segments_that_overlap_or_lie_far_apart(self) -> None:
        self.assert_refused(elf((BASE, header(0x1000)), (BASE + 32, b"data")), "overlaps")
        self.assert_refused(elf((0, header(0x1000)), (BASE, b"data")), "wrong load address")


if __name__ == "__main__":
    unittest.main()
