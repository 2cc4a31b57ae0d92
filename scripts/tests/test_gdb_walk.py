"""What the gdb commands make of tables and registers, on tables made up here."""

import struct
import sys
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "gdb"))

from vmwgdb import events, walk  # noqa: E402
from vmwgdb.arch import CONTIGUOUS, Descriptor, Geometry, NotWalkable, Registers  # noqa: E402
from vmwgdb.arch import address_map, attribute_meaning, describe_registers, show_size  # noqa: E402
from vmwgdb.elf import demangle_legacy, plain_name, without_generics  # noqa: E402

TCR = 0x5_B510_3510
MAIR = 0xBB_FF44_0400
REGISTERS = Registers(ttbr0=0x2000, ttbr1=0x1000, tcr=TCR, mair=MAIR, sctlr=0x30DD_199D)
DATA = 0x60_0000_0000_070C
"""rw- Normal-WB, without type bits."""
TEXT = 0x40_0000_0000_078C
"""r-x Normal-WB."""
PAGE, BLOCK = 0b11, 0b01
K4 = Geometry("4K")


LAYOUT = (Path(__file__).resolve().parents[2] / "kernel" / "src" / "layout.rs").read_text()


class AddressMap(unittest.TestCase):
    def test_has_each_region_with_every_granule_and_number_of_bits(self) -> None:
        tib = 1 << 40
        for granule, bits, linear, vmalloc in (
            ("4K", 39, tib // 4, tib // 8), ("16K", 47, 64 * tib, 32 * tib), ("64K", 42, 2 * tib, tib),
            *((granule, 48, 192 * tib, 60 * tib) for granule in ("4K", "16K", "64K")),
            *((granule, 52, 2048 * tib, 60 * tib) for granule in ("4K", "16K", "64K")),
        ):
            with self.subTest(granule=granule, bits=bits):
                found = address_map(LAYOUT, bits, Geometry(granule))
                sizes = {name: last + 1 - first for name, (first, last) in found.items()}
                self.assertEqual({"linear": linear, "vmalloc": vmalloc, "image": 1 << 30}, {name: sizes[name] for name in ("linear", "vmalloc", "image")})
                self.assertEqual((found["linear"][0], found["vmalloc"][0]), ((1 << 64) - (1 << bits), found["linear"][1] + 1))
                self.assertLess(found["vmalloc"][1], found["fixed"][0])
                self.assertLess(found["fixed"][1], found["image"][0])


class Memory:
    """Tables at 4 KiB each; everything else is not there."""

    def __init__(self) -> None:
        self.tables: dict[int, list[int]] = {}

    def table(self, pa: int, entries: dict[int, int]) -> None:
        self.tables.setdefault(pa, [0] * 512)
        for index, value in entries.items():
            self.tables[pa][index] = value

    def read(self, pa: int, size: int) -> bytes:
        table, offset = self.tables[pa & ~0xFFF], pa & 0xFFF
        return struct.pack("<512Q", *table)[offset : offset + size]


def link(pa: int) -> int:
    return pa | 0b11


def group(pa: int, template: int, level: int) -> list[int]:
    return [pa + i * K4.size(level) | template | CONTIGUOUS for i in range(16)]


def example() -> Memory:
    """Upper half: level 3 at 0x4000 with a group at [16..31] and a page at [40]; a 2M block; a 1G block."""
    memory = Memory()
    memory.table(0x1000, {0: link(0x3000)})
    memory.table(0x2000, {})
    memory.table(0x3000, {0: link(0x5000), 1: 0x4000_0000 | DATA | BLOCK})
    memory.table(0x5000, {0: link(0x4000), 1: 0x8020_0000 | TEXT | BLOCK})
    memory.table(0x4000, {40: 0x9_9000 | DATA | PAGE} | dict(enumerate(group(0x7_0000, DATA | PAGE, 3), 16)))
    return memory


def upper(offset: int) -> int:
    return 0xFFFF_0000_0000_0000 + offset


class Walks(unittest.TestCase):
    def setUp(self) -> None:
        self.memory = example()

    def walk(self, va: int, registers: Registers = REGISTERS, root: int | None = None) -> walk.Walk:
        return walk.walk(self.memory.read, registers, va, root)

    def text(self, va: int) -> str:
        return "\n".join(walk.describe_walk(self.walk(va), REGISTERS))

    def test_a_page_a_group_and_blocks_translate(self) -> None:
        cases = {40 << 12 | 0x123: 0x9_9123, 18 << 12 | 8: 0x7_2008, 0x21_2345: 0x8021_2345, (1 << 30) + 5: 0x4000_0005}
        for offset, pa in cases.items():
            found = self.walk(upper(offset))
            self.assertEqual((found.mapped, found.pa), (True, pa), hex(offset))

    def test_every_level_is_named_with_its_table_and_index(self) -> None:
        text = self.text(upper(18 << 12))
        for level, table, index in ((0, "0x1000", 0), (1, "0x3000", 0), (2, "0x5000", 0), (3, "0x4000", 18)):
            table = f"{int(table, 16):#014x}"
            self.assertRegex(text, rf"level {level}  {table}\[ *{index}\] = 0x[0-9a-f]{{16}}  (table|page)")

    def test_a_leaf_is_decoded_with_what_mair_says(self) -> None:
        text = self.text(upper(18 << 12))
        self.assertIn("AP=00 (EL1 rw) UXN=1 PXN=1 SH=11 (inner) AttrIndx=3 (Normal, write-back RA WA) AF=1 nG=0 CONT=1 sw=0x0", text)

    def test_a_vacant_descriptor_faults_at_its_level(self) -> None:
        self.assertEqual(self.walk(upper(0)).fault, "translation fault, level 3: the descriptor is vacant")
        self.assertEqual(self.walk(upper(2 << 30)).fault, "translation fault, level 1: the descriptor is vacant")
        self.assertEqual(self.walk(0x1000).fault, "translation fault, level 0: the descriptor is vacant")

    def test_an_address_outside_of_its_half_faults(self) -> None:
        self.assertIn("outside of the 48-bit upper half", self.walk(0xFFF0_0000_0000_0000).fault)
        self.assertIn("outside of the 48-bit lower half", self.walk(1 << 48).fault)

    def test_a_disabled_half_faults_and_a_given_root_does_not_ask(self) -> None:
        disabled = Registers(**{**REGISTERS.__dict__, "tcr": TCR | 1 << 7})
        self.assertIn("EPD0", self.walk(40 << 12, disabled).fault)
        self.assertTrue(self.walk(40 << 12, disabled, root=0x1000).mapped)

    def test_the_access_flag_faults_unless_hardware_sets_it(self) -> None:
        self.memory.tables[0x4000][40] &= ~(1 << 10)
        self.assertEqual(self.walk(upper(40 << 12)).fault, "access flag fault, level 3")
        self.assertTrue(self.walk(upper(40 << 12), Registers(**{**REGISTERS.__dict__, "tcr": TCR | 1 << 39})).mapped)

    def test_a_block_where_none_may_be_is_reserved(self) -> None:
        self.memory.tables[0x1000][1] = 0x8_0000_0000 | DATA | BLOCK
        self.assertIn("level 0: the descriptor is reserved", self.walk(upper(1 << 39)).fault)
        self.memory.tables[0x4000][41] = 0x8000 | DATA | BLOCK
        self.assertIn("level 3: the descriptor is reserved", self.walk(upper(41 << 12)).fault)

    def test_a_short_address_begins_at_a_lower_level(self) -> None:
        registers = Registers(**{**REGISTERS.__dict__, "ttbr1": 0x3000, "tcr": TCR & ~(0x3F << 16) | 25 << 16})
        found = self.walk(0xFFFF_FFFF_FFFF_FFFF & ~((1 << 39) - 1) | 40 << 12, registers)
        self.assertEqual(([step.level for step in found.steps], found.pa), ([1, 2, 3], 0x9_9000))

    def test_52_bits_with_ds_are_walked_from_level_minus_1(self) -> None:
        registers = Registers(**{**REGISTERS.__dict__, "tcr": TCR & ~(0x3F << 16 | 0x3F | 7 << 32) | 12 << 16 | 12 | 6 << 32 | 1 << 59})
        # What is SH without DS is OA[51:50].
        self.memory.table(0x6000, {8: link(0x1000)})
        self.memory.tables[0x1000][3] = 2 << 48 | DATA & ~0x300 | 2 << 8 | BLOCK
        self.memory.tables[0x4000][40] = 0x9_9000 | DATA | PAGE
        registers = Registers(**{**registers.__dict__, "ttbr1": 0x6000})
        base = 0xFFF8_0000_0000_0000
        found = self.walk(base | 40 << 12 | 8, registers)
        self.assertEqual(([step.level for step in found.steps], found.pa), ([-1, 0, 1, 2, 3], 3 << 50 | 0x9_9008))
        self.assertIn("52-bit addresses, 4K granule", walk.describe_walk(found, registers)[0])
        found = self.walk(base | 3 << 39 | 5, registers)
        self.assertEqual((found.pa, found.leaf.level, found.leaf.attributes()), (0xA << 48 | 5, 0, "rw- Normal-WB"))

    def test_52_bits_of_64k_pages_have_four_below_the_page(self) -> None:
        wide = Geometry("64K", 52)
        self.assertEqual(Descriptor(0x1234_0000 | 0xA << 12 | DATA & 0xFFF | PAGE, 3, wide).address, 0xA << 48 | 0x1234_0000)
        self.assertEqual(wide.leaf_sizes()[0], (1, False, 4 << 40))
        tcr = TCR & ~(3 << 30 | 0x3F << 16 | 7 << 32) | 3 << 30 | 12 << 16 | 6 << 32
        half = Registers(**{**REGISTERS.__dict__, "tcr": tcr, "ttbr1": 0x10000 | 0b1010 << 2}).half(1)
        self.assertEqual((half.start_level, half.entries(1), half.root), (1, 1024, 0xA << 48 | 0x10000))

    def test_how_full_a_table_is_is_said(self) -> None:
        self.assertIn("table -> 0x4000, 17 in use", self.text(upper(40 << 12)))

    def test_what_tables_and_wxn_take_away_is_shown(self) -> None:
        self.memory.tables[0x3000][0] |= 1 << 62
        self.assertIn("EL1 r--, rw- Normal-WB", self.text(upper(40 << 12)))
        self.memory.tables[0x4000][41] = 0x8000 | DATA & ~(1 << 53) | PAGE
        self.memory.tables[0x3000][0] &= ~(1 << 62)
        self.assertIn("EL1 rw- (not executable by SCTLR_EL1.WXN)", self.text(upper(41 << 12)))

    def test_unprogrammed_registers_are_no_walk(self) -> None:
        with self.assertRaisesRegex(NotWalkable, "T1SZ is 0"):
            self.walk(upper(0), Registers(0, 0, 0, 0, 0))


class Groups(unittest.TestCase):
    """DESIGN rule 1: equal but for consecutive addresses, aligned, all or nothing."""

    def verdict(self, entries: list[int], index: int = 18) -> list[str]:
        memory = example()
        memory.tables[0x4000][16:32] = entries
        found = walk.walk(memory.read, REGISTERS, upper(index << 12)).group
        assert found
        return walk.describe_group(found)

    def test_a_whole_group_is_whole(self) -> None:
        lines = self.verdict(group(0x7_0000, DATA | PAGE, 3))
        self.assertIn("WHOLE: 16 equal descriptors, consecutive, aligned to 64K", lines[-1])
        self.assertEqual(lines[1], "    [16..31] C pa 0x70000.. rw- Normal-WB")

    def test_each_way_to_break_one_is_called_out(self) -> None:
        whole = group(0x7_0000, DATA | PAGE, 3)
        cases = {
            "CONT clear": (5, whole[5] & ~CONTIGUOUS),
            "vacant": (5, 0),
            "output address 0x99000": (5, 0x9_9000 | DATA | PAGE | CONTIGUOUS),
            "bits 7 differ": (5, whole[5] | 1 << 7),
            "bits 0 differ": (15, whole[15] & ~1),
        }
        for reason, (member, value) in cases.items():
            entries = [*whole[:member], value, *whole[member + 1 :]]
            lines = self.verdict(entries)
            self.assertIn("BROKEN GROUP", "\n".join(lines), reason)
            self.assertIn(f"[{16 + member}] at {upper((16 + member) << 12):#x}", lines[-1])
            self.assertIn(reason, lines[-1])
            # The broken member itself, too, is told that it stands in a broken group.
            self.assertIn("BROKEN GROUP", "\n".join(self.verdict(entries, 16 + member)), reason)

    def test_a_misaligned_group_is_broken(self) -> None:
        lines = self.verdict(group(0x7_1000, DATA | PAGE, 3))
        self.assertIn("output address 0x71000 is not a multiple of 64K", lines[-1])

    def test_single_pages_are_no_group(self) -> None:
        lines = self.verdict([value & ~CONTIGUOUS for value in group(0x7_0000, DATA | PAGE, 3)])
        self.assertEqual(len(lines), 1)
        self.assertIn("no CONT among them, 16 mapped: no group", lines[0])


class Dumps(unittest.TestCase):
    def runs(self, memory: Memory, start: int = 0, last: int = (1 << 64) - 1) -> list[str]:
        half = REGISTERS.half(1)
        return [run.show() for run in walk.merge(walk.leaves(memory.read, half, start, last), start, last)]

    def test_runs_are_as_the_kernel_prints_them(self) -> None:
        self.assertEqual(
            self.runs(example()),
            [
                "0xffff000000010000-0xffff000000020000 0x000000070000    64K L3 64K  C rw- Normal-WB     UXN PXN ISH AF",
                "0xffff000000028000-0xffff000000029000 0x000000099000     4K L3 4K   - rw- Normal-WB     UXN PXN ISH AF",
                "0xffff000000200000-0xffff000000400000 0x000080200000     2M L2 2M   - r-x Normal-WB     UXN --- ISH AF",
                "0xffff000040000000-0xffff000080000000 0x000040000000     1G L1 1G   - rw- Normal-WB     UXN PXN ISH AF",
            ],
        )

    def test_equal_neighbours_become_one_run(self) -> None:
        memory = example()
        memory.table(0x4000, {41: 0x9_A000 | DATA | PAGE, 42: 0x9_B000 | TEXT | PAGE})
        memory.table(0x4000, dict(enumerate(group(0x8_0000, DATA | PAGE, 3), 32)))
        self.assertEqual([line.split()[2:4] for line in self.runs(memory)][:2], [["128K", "L3"], ["2M", "L2"]])

    def test_a_range_cuts_runs_at_both_ends(self) -> None:
        lines = self.runs(example(), upper(0x1_3000), upper(0x1_4FFF))
        self.assertEqual(lines, ["0xffff000000013000-0xffff000000015000 0x000000073000     8K L3 64K  C rw- Normal-WB     UXN PXN ISH AF"])

    def test_a_broken_group_is_shown_member_by_member(self) -> None:
        memory = example()
        memory.tables[0x4000][20] &= ~CONTIGUOUS
        lines = self.runs(memory)
        self.assertEqual([line.split()[2] for line in lines[:3]], ["16K", "4K", "44K"])
        self.assertTrue(all(line.endswith("BROKEN GROUP") for line in lines[:3]))

    def test_the_last_page_of_the_address_space_ends_at_0(self) -> None:
        memory = example()
        memory.table(0x1000, {511: link(0x6000)})
        memory.table(0x6000, {511: 0x4000_0000 | DATA | BLOCK})
        self.assertIn("0xffffffffc0000000-0x0000000000000000", self.runs(memory)[-1])


class Diffs(unittest.TestCase):
    def diff(self, change: "Memory") -> list[str]:
        halves = [REGISTERS.half(0), REGISTERS.half(1)]
        old = walk.snapshot(example().read, halves, 100)
        new = walk.snapshot(change.read, halves, 100)
        return walk.describe_diff(old, new, REGISTERS.half(1))

    def test_nothing_changed(self) -> None:
        self.assertEqual(self.diff(example()), [])

    def test_a_group_that_came_and_a_page_that_went(self) -> None:
        memory = example()
        memory.tables[0x5000][0] |= 1 << 59
        memory.table(0x4000, dict(enumerate(group(0xA_0000, DATA | PAGE, 3), 64)) | {40: 0})
        self.assertEqual(
            self.diff(memory),
            [
                "  level 2 link [0] at 0xffff000000000000: 0x4003 -> 0x800000000004003",
                "- 0xffff000000028000-0xffff000000029000 0x000000099000     4K L3 4K   - rw- Normal-WB     UXN PXN ISH AF",
                "+ 0xffff000000040000-0xffff000000050000 0x0000000a0000    64K L3 64K  C rw- Normal-WB     UXN PXN ISH AF",
            ],
        )

    def test_a_new_table_and_what_it_replaces(self) -> None:
        memory = example()
        memory.table(0x5000, {1: link(0x6000)})
        memory.table(0x6000, {3: 0x8020_3000 | TEXT | PAGE})
        self.assertEqual(
            [line[:46] for line in self.diff(memory)],
            [
                "+ level 3 table 0x6000 at 0xffff000000200000, ",
                "- 0xffff000000200000-0xffff000000400000 0x0000",
                "+ 0xffff000000203000-0xffff000000204000 0x0000",
            ],
        )


class Words(unittest.TestCase):
    def test_registers_are_spelled_out(self) -> None:
        text = "\n".join(describe_registers(REGISTERS))
        for words in (
            *("MMU on", "WXN=1", "T0SZ=16 (48-bit addresses) EPD0=0 TG0=4K", "T1SZ=16 (48-bit addresses) EPD1=0 TG1=4K"),
            *("output addresses of 48 bits", "Attr1 0x04 Device-nGnRE", "Attr3 0xff Normal, write-back RA WA"),
        ):
            self.assertIn(words, text)

    def test_attributes_of_mair(self) -> None:
        meanings = {
            0x00: "Device-nGnRnE",
            0x0C: "Device-GRE",
            0x44: "Normal, non-cacheable",
            0xBB: "Normal, write-through RA WA",
            0x4F: "Normal, outer non-cacheable, inner write-back RA WA",
            0x02: "reserved (0x02)",
        }
        for attribute, words in meanings.items():
            self.assertEqual(attribute_meaning(attribute), words)

    def test_sizes(self) -> None:
        self.assertEqual([show_size(size) for size in (4096, 65536, 2 << 20, 16 << 30, 0x1001)], ["4K", "64K", "2M", "16G", "4097"])

    def test_geometries_have_the_architectures_leaf_sizes(self) -> None:
        sizes = {name: [show_size(size) for _, _, size in Geometry(name).leaf_sizes()] for name in ("4K", "16K", "64K")}
        self.assertEqual(sizes["4K"], ["16G", "1G", "32M", "2M", "64K", "4K"])
        self.assertEqual(sizes["16K"], ["1G", "32M", "2M", "16K"])
        self.assertEqual(sizes["64K"], ["16G", "512M", "2M", "64K"])

    def test_a_leaf_choice_says_why_no_larger_one(self) -> None:
        event = events.leaf_event(K4, 3, 1, 0xFFFF_8000_0001_0000, 0x4801_0000, 0x2_0000, 0x10_0000, 0b1111_1100)
        place = "va 0xffff800000010000 -> pa 0x48010000, run 128K, remaining 1M"
        self.assertEqual(event.lines[0], f"leaf 64K (L3C = 16 x 4K contiguous): {place}")
        misaligned = "va is 64K past a multiple of 2M; pa is 64K past a multiple of 2M"
        self.assertEqual(event.lines[-1], f"  not 2M   {misaligned}; the run covers only 128K; only 1M remain")
        self.assertEqual(len(event.lines), 5)

    def test_a_size_that_is_not_allowed_is_the_reason(self) -> None:
        event = events.leaf_event(K4, 3, 0, 0x1_0000, 0x1_0000, 0x1_0000, 0x1_0000, 0b0100_0000)
        self.assertEqual(event.lines[-1], "  not 64K  64K leaves are not allowed")

    def test_a_larger_leaf_without_a_reason_is_called_out(self) -> None:
        event = events.leaf_event(K4, 3, 0, 0x1_0000, 0x1_0000, 0x1_0000, 0x1_0000, 0b1100_0000)
        self.assertIn("the walker should have taken it", event.lines[-1])

    def test_stores_are_told_by_what_they_make(self) -> None:
        values = group(0x7_0000, DATA | PAGE, 3)
        event = events.store_event(K4, 3, 1, 0x4000, 16, values, 0x1000)
        made = "[16..31] 0x007000000007070f.. pa 0x70000 C rw- Normal-WB: 1 x 64K group"
        self.assertEqual(event.lines, ("store level 3 table 0x4000[16..31]: 16 descriptors", f"  {made}"))
        links = {
            (0, link(0x4000)): "links table 0x4000",
            (link(0x4000), 0): "unlinks table 0x4000",
            (link(0x4000), link(0x6000)): "links table 0x6000 in place of 0x4000",
        }
        for (old, new), words in links.items():
            line = events.store_event(K4, 2, 4, 0x5000, 0, [new], old).lines[0]
            self.assertTrue(line.endswith(words), line)
        self.assertEqual(events.store_event(K4, 3, 3, 0x4000, 0, [0] * 16, 0).lines, ("store level 3 table 0x4000[0..15]: 16 x vacant",))

    def test_descriptor_kinds(self) -> None:
        places = ((0, 3), (0b11, 2), (0b11, 3), (0b01, 2), (0b01, 3), (0b01, 0), (0x1000, 3))
        kinds = [Descriptor(value, level, K4).kind for value, level in places]
        self.assertEqual(kinds, ["vacant", "table", "page", "block", "reserved", "reserved", "invalid"])

    def test_names_lose_their_type_arguments(self) -> None:
        for name, plain in (
            ("a::T<B, C<D>>::f<E>", "a::T::f"),
            ("m::<impl a::T<G,T,M>>::f", "a::T::f"),
            ("<a::T<B> as c::Trait<Q>>::f", "a::T::f"),
            ("m::<impl c::Trait for a::T>::f::h0123456789abcdef", "a::T::f"),
            ("a::f::<B>::g", "a::f::g"),
        ):
            self.assertEqual(without_generics(name), plain)

    def test_mangled_names_are_read(self) -> None:
        mangled = "_ZN6paging3map45_$LT$impl$u20$paging..tree..Tree$LT$G$GT$$GT$3map17h0123456789abcdefE"
        self.assertEqual(without_generics(demangle_legacy(mangled)), "paging::tree::Tree::map")
        self.assertEqual(demangle_legacy("kernel_main"), "kernel_main")

    def test_names_in_the_newer_mangling_are_read(self) -> None:
        names = {
            "_RNvNtNtCs1234_6paging5trace4hook11leaf_chosen": "paging::trace::hook::leaf_chosen",
            # B5_ is the crate, which stands five characters behind the `_R`.
            "_RINvMNtCs1_6paging3mapINtNtB5_4tree4TreehE3mapjEB5_": "paging::tree::Tree::map",
            "_RNvXs_NtCs1_6paging4addrNtB4_8VirtAddrNtNtCs2_4core3fmt5Debug3fmt": "paging::addr::VirtAddr::fmt",
            "_RNCNvCs1_6kernel4boot0B5_": "kernel::boot::{closure}",
            "_Rx": "_Rx",
            "kernel_main": "kernel_main",
        }
        for mangled, plain in names.items():
            self.assertEqual(plain_name(mangled), plain)


if __name__ == "__main__":
    unittest.main()
