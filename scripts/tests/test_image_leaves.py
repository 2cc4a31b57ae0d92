"""Which leaves the sessions expect of the kernel's text: by sizes made up here, on both sides of each limit."""

import re
import struct
import tempfile
import unittest
from pathlib import Path

from tests.image_leaves import IMAGE_AT, runs_of, section, text_runs

K, M = 1 << 10, 1 << 20
VA = 0xFFFF_FFFF_8000_0000
SECTION_HEADER = "<IIQQQQIIQQ"


def elf(sections: dict[str, tuple[int, int]]) -> bytes:
    """An ELF file of section headers and nothing else."""
    names = b"\0" + b"".join(name.encode() + b"\0" for name in [*sections, ".shstrtab"])
    headers = [struct.pack(SECTION_HEADER, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)]
    headers += [struct.pack(SECTION_HEADER, names.index(f"\0{name}\0".encode()) + 1, 1, 6, va, 0, size, 0, 0, 1, 0) for name, (va, size) in sections.items()]
    headers.append(struct.pack(SECTION_HEADER, names.index(b"\0.shstrtab\0") + 1, 3, 0, 0, 64, len(names), 0, 0, 1, 0))
    header = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    header += struct.pack("<HHIQQQIHHHHHH", 2, 183, 1, VA, 0, 64 + len(names), 0, 64, 0, 0, 64, len(headers), len(headers) - 1)
    return header + names + b"".join(headers)


class TheLeavesOfASection(unittest.TestCase):
    def shown(self, size: int, va: int = VA, pa: int = IMAGE_AT) -> list[tuple[int, int, int, bool]]:
        runs = runs_of(va, pa, size)
        self.assertEqual(sum(run.size for run in runs), size)
        at = 0
        for run in runs:
            self.assertEqual((run.va, run.pa), (va + at, pa + at))
            at += run.size
        return [(run.level, run.size, run.leaf, run.contiguous) for run in runs]

    def test_are_groups_up_to_the_size_of_a_block_and_a_block_from_there_on(self) -> None:
        group, block = (3, 64 * K, True), (2, 2 * M, False)
        for size, expected in (
            (64 * K, [(64 * K, group)]),
            (2 * M - 64 * K, [(2 * M - 64 * K, group)]),
            (2 * M, [(2 * M, block)]),
            (2 * M + 64 * K, [(2 * M, block), (64 * K, group)]),
            (4 * M - 64 * K, [(2 * M, block), (2 * M - 64 * K, group)]),
            (4 * M, [(4 * M, block)]),
        ):
            with self.subTest(size=size):
                self.assertEqual(self.shown(size), [(level, run, leaf, contiguous) for run, (level, leaf, contiguous) in expected])

    def test_are_pages_on_the_other_side_of_a_groups_size(self) -> None:
        self.assertEqual(self.shown(60 * K), [(3, 60 * K, 4 * K, False)])
        self.assertEqual(self.shown(68 * K), [(3, 64 * K, 64 * K, True), (3, 4 * K, 4 * K, False)])

    def test_are_as_large_as_both_addresses_allow(self) -> None:
        self.assertEqual(self.shown(4 * M, pa=IMAGE_AT + 64 * K), [(3, 4 * M, 64 * K, True)])
        self.assertEqual(self.shown(4 * M, va=VA + M, pa=IMAGE_AT + M), [(3, M, 64 * K, True), (2, 2 * M, 2 * M, False), (3, M, 64 * K, True)])
        self.assertEqual(self.shown(32 * M), [(2, 32 * M, 2 * M, False)])
        self.assertEqual(self.shown(32 * M, pa=0x4200_0000), [(2, 32 * M, 32 * M, True)])

    def test_are_told_as_a_dump_tells_them(self) -> None:
        block, groups = runs_of(VA, IMAGE_AT, 2 * M + 320 * K)
        self.assertEqual((block.levels(), groups.levels()), (["0", "1", "2"], ["0", "1", "2", "3"]))
        lines = (
            (block, "0xffffffff80000000-0xffffffff80200000 0x000040200000     2M L2 2M   - r-x Normal-WB"),
            (groups, "0xffffffff80200000-0xffffffff80250000 0x000040400000   320K L3 64K  C r-x Normal-WB"),
        )
        for run, line in lines:
            for other, _ in lines:
                self.assertEqual(re.search(other.dumped("r-x"), line) is not None, other is run)
            for wrong in (line.replace("r-x", "rwx"), line.replace("64K  C", "64K  -").replace("2M   -", "2M   C"), line.replace("00004", "00005")):
                self.assertIsNone(re.search(run.dumped("r-x"), wrong), wrong)


class ASectionOfAnElfFile(unittest.TestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory(prefix="vmwalk-elf-")
        self.addCleanup(folder.cleanup)
        self.path = Path(folder.name) / "vmwalk.elf"

    def test_is_found_by_its_whole_name(self) -> None:
        self.path.write_bytes(elf({".text.more": (1, 2), ".text": (VA, 2 * M - 64 * K), ".data": (3, 4)}))
        self.assertEqual(section(self.path, ".text"), (VA, 2 * M - 64 * K))
        self.assertEqual([(run.pa, run.level) for run in text_runs(self.path)], [(IMAGE_AT, 3)])
        self.path.write_bytes(elf({".text": (VA, 2 * M)}))
        self.assertEqual([(run.pa, run.level) for run in text_runs(self.path)], [(IMAGE_AT, 2)])

    def test_that_there_is_not_is_an_error(self) -> None:
        self.path.write_bytes(elf({".text.more": (1, 2)}))
        with self.assertRaisesRegex(ValueError, "has no section .text"):
            section(self.path, ".text")
        self.path.write_bytes(b"#!/bin/sh\n".ljust(64))
        with self.assertRaisesRegex(ValueError, "no little-endian 64-bit ELF"):
            section(self.path, ".text")


if __name__ == "__main__":
    unittest.main()
