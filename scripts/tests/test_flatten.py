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


def pe(data_at: int = 0x2000, size: int = 0x3000) -> bytes:
    """The header page of a PE file with code at 0x1000 and data, 0x800 of 0x1000 bytes."""
    head = b"MZ" + bytes(58) + struct.pack("<I", 64) + struct.pack("<4sHH12xHH", b"PE\0\0", 0xAA64, 2, 160, 0x206)
    optional = bytes(56) + struct.pack("<I", size) + bytes(100)
    code = struct.pack("<8sIIII16x", b".text", 0x1000, 0x1000, 0x1000, 0x1000)
    data = struct.pack("<8sIIII16x", b".data", 0x1000, data_at, 0x800, data_at)
    return (head + optional + code + data).ljust(0x1000, b"\0")


def relocations(file: bytes, *types: int) -> bytes:
    """The ELF file with a section of relocations of these types."""
    entries = b"".join(struct.pack("<QQQ", 0x2000, kind, 0x1000) for kind in types)
    section = struct.pack("<IIQQQQIIQQ", 0, 4, 2, 0, len(file), len(entries), 0, 0, 8, 24)
    return file[:40] + struct.pack("<Q", len(file) + len(entries)) + file[48:58] + struct.pack("<HHH", 64, 1, 0) + file[64:] + entries + section


class APeFile(unittest.TestCase):
    def assert_refused(self, file: bytes, because: str) -> None:
        with self.assertRaisesRegex(flatten.NotAnImage, because):
            flatten.flatten(file)

    def test_is_the_loader_as_it_is_in_memory_in_whole_pages(self) -> None:
        file = flatten.flatten(relocations(elf((0, pe() + b"code"), (0x2000, bytes(0x800))), 1027))
        self.assertEqual(len(file), 0x3000)
        self.assertEqual(file[0x1000:0x1004], b"code")

    def test_with_a_relocation_that_its_entry_does_not_know_is_refused(self) -> None:
        self.assert_refused(relocations(elf((0, pe() + b"code"), (0x2000, bytes(0x800))), 1027, 257), "relocations of types 257")

    def test_whose_sections_are_not_where_they_are_in_memory_is_refused(self) -> None:
        self.assert_refused(elf((0, pe(data_at=0x5000) + bytes(0x2000))), "section .data is not where")
        self.assert_refused(elf((0, pe(data_at=0x2800) + bytes(0x2000))), "section .data is not where")
        self.assert_refused(elf((0, pe(size=0x2800)), (0x2000, bytes(0x800))), "section .data is not where")

    def test_for_another_machine_is_refused(self) -> None:
        self.assert_refused(elf((0, pe().replace(b"\x64\xaa", b"\x64\x86", 1))), "no PE header for AArch64")


class AFlatImage(unittest.TestCase):
    def test_says_its_commit_where_it_has_room_for_that(self) -> None:
        field = flatten.COMMIT + flatten.UNKNOWN
        image = header(4096) + b"before" + field + b"behind"
        by = flatten.commit()
        self.assertRegex(by, rb"^([0-9a-f]{40}\+?|unknown) +$")
        self.assertEqual(flatten.stamped(image, by), header(4096) + b"before" + flatten.COMMIT + by + b"behind")
        self.assertEqual(flatten.stamped(b"none", by), b"none")
        self.assertEqual(flatten.stamped(image, by + b"more"), image)

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
