"""What the gdb commands make of the tables of other kernels, of each granule with 48 and 52 bits, on tables made up here."""

import struct
import sys
import unittest
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "gdb"))

from vmwgdb import dump, walk  # noqa: E402
from vmwgdb.arch import ACCESSED, AP_READ_ONLY, AP_USER, CONTIGUOUS, DIRTY_MODIFIER, MASK, NOT_GLOBAL, PXN, UXN  # noqa: E402
from vmwgdb.arch import Descriptor, Half, NotWalkable, Registers, describe_registers, show_size  # noqa: E402
from vmwgdb.memory_types import type_name  # noqa: E402

LINUX_MAIR = 0x4_0044_FFFF
NORMAL, DEVICE = 0 << 2, 4 << 2
INNER, OUTER = 0b11 << 8, 0b10 << 8
RW = UXN | PXN | ACCESSED | NORMAL
ROOT = 0x4000_0000
BITS = {"4K": (0b10, 0b00), "16K": (0b01, 0b10), "64K": (0b11, 0b01)}
"""TG1 and TG0."""
GRANULES = [(name, bits) for name in BITS for bits in (48, 52)]


def tcr(granule: str, bits: int, **fields: int) -> int:
    """TCR_EL1 with both halves alike; `fields` are bits by their names."""
    tg1, tg0 = BITS[granule]
    size = 64 - bits
    value = size | size << 16 | tg0 << 14 | tg1 << 30 | 0b11 << 12 | 0b11 << 28 | (6 if bits == 52 else 5) << 32
    value |= (bits == 52 and granule != "64K") << 59
    for name, bit in (("AS", 36), ("A1", 22), ("HA", 39), ("HD", 40)):
        value |= fields.get(name, 0) << bit
    return value


def machine(granule: str, bits: int, **fields: int) -> Registers:
    return Registers(ttbr0=0x5000_0000, ttbr1=ROOT, tcr=tcr(granule, bits, **fields), mair=LINUX_MAIR, sctlr=1)


class Tables:
    """Translation tables that are built by mapping leaves, as an independent reading of the formats has them."""

    def __init__(self, granule: str, bits: int) -> None:
        self.granule, self.bits = granule, bits
        self.page = {"4K": 12, "16K": 14, "64K": 16}[granule]
        self.per_level = self.page - 3
        self.levels = -(-(bits - self.page) // self.per_level)
        self.memory: dict[int, dict[int, int]] = {ROOT: {}}
        self.next = ROOT + (1 << 20)

    def shift(self, level: int) -> int:
        return self.page + (3 - level) * self.per_level

    def coded(self, pa: int) -> int:
        """An output address as a descriptor has it."""
        if self.bits == 48:
            return pa
        if self.granule == "64K":
            return pa & (1 << 48) - 1 | pa >> 48 << 12
        return pa & (1 << 50) - 1 | pa >> 50 << 8

    def index(self, va: int, level: int) -> int:
        offset = va & (1 << self.bits) - 1
        return offset >> self.shift(level) if level == 4 - self.levels else offset >> self.shift(level) & (1 << self.per_level) - 1

    def map(self, va: int, pa: int, level: int, attributes: int) -> None:
        table = ROOT
        for at in range(4 - self.levels, level):
            slot = self.memory[table]
            index = self.index(va, at)
            if index not in slot:
                slot[index] = self.coded(self.next) | 0b11
                self.memory[self.next] = {}
                self.next += 1 << self.page
            table = self.address(slot[index])
        self.memory[table][self.index(va, level)] = self.coded(pa) | attributes | (0b11 if level == 3 else 0b01)

    def address(self, link: int) -> int:
        return link & (1 << 48) - 1 & ~0xFFFF if self.granule == "64K" else link & (1 << 48) - 1 & ~0xFFF

    def change(self, va: int, level: int, bits: int) -> None:
        """Flips bits of a leaf."""
        table = ROOT
        for at in range(4 - self.levels, level):
            table = self.address(self.memory[table][self.index(va, at)])
        self.memory[table][self.index(va, level)] ^= bits

    def read(self, pa: int, size: int) -> bytes:
        data = [0] * (size // 8)
        for index, value in self.memory[pa].items():
            data[index] = value
        return struct.pack(f"<{len(data)}Q", *data)

    def shareable(self) -> int:
        """SH of a leaf, where it has one."""
        return 0 if self.bits == 52 and self.granule != "64K" else INNER

    def group(self, va: int, pa: int, level: int, nr: int, attributes: int) -> None:
        for i in range(nr):
            self.map(va + (i << self.shift(level)), pa + (i << self.shift(level)), level, attributes | CONTIGUOUS)


GROUPS = {("4K", 3): 16, ("4K", 2): 16, ("4K", 1): 16, ("16K", 3): 128, ("16K", 2): 32, ("64K", 3): 32, ("64K", 2): 32}
LEAVES = {
    ("4K", 48): "4K 64K 2M 32M 1G 16G",
    ("16K", 48): "16K 2M 32M 1G",
    ("64K", 48): "64K 2M 512M 16G",
    ("4K", 52): "4K 64K 2M 32M 1G 16G 512G",
    ("16K", 52): "16K 2M 32M 1G 64G",
    ("64K", 52): "64K 2M 512M 16G 4T",
}


def upper(bits: int) -> int:
    return MASK + 1 - (1 << bits)


def cases() -> Iterator[tuple[str, int, Tables, Registers, int]]:
    for granule, bits in GRANULES:
        yield granule, bits, Tables(granule, bits), machine(granule, bits), upper(bits)


class EachGranule(unittest.TestCase):
    def test_has_the_leaves_of_the_architecture(self) -> None:
        for granule, bits, _, registers, _ in cases():
            sizes = [show_size(size) for _, _, size in reversed(registers.half(1).geometry.leaf_sizes())]
            self.assertEqual(" ".join(sizes), LEAVES[granule, bits])

    def test_translates_leaves_of_every_level_to_all_bits_of_address(self) -> None:
        for granule, bits, tables, registers, base in cases():
            high = 0xA << 48 if bits == 52 else 0xA << 44
            for level in range(4):
                if not registers.half(1).geometry.leaf_allowed(level):
                    continue
                va = base + (3 + level << max(tables.shift(1), tables.shift(level)))
                size = 1 << tables.shift(level)
                pa = high + 5 * size & (1 << bits) - 1
                tables.map(va, pa, level, RW | tables.shareable())
                found = walk.walk(tables.read, registers, va + size - 7)
                self.assertEqual((found.fault, found.pa, found.leaf.level), ("", pa + size - 7, level), (granule, bits, level))
                self.assertEqual(len(found.steps), tables.levels - 3 + level)
                self.assertFalse(walk.walk(tables.read, registers, va + size).mapped)
                self.assertEqual(found.leaf.columns(), "rw- Normal-WB     UXN PXN ISH AF")

    def test_judges_its_contiguous_groups(self) -> None:
        for granule, bits, tables, registers, base in cases():
            for (name, level), nr in GROUPS.items():
                if name != granule:
                    continue
                size = 1 << tables.shift(level)
                va, pa = base + (level << 40), 0x8_0000_0000 * (nr * size >> 35 or 1)
                tables.group(va, pa, level, nr, RW | tables.shareable())
                at = va + 5 * size + 3

                def verdict() -> str:
                    group = walk.walk(tables.read, registers, at).group
                    assert group
                    return "\n".join(walk.describe_group(group))

                where = (granule, bits, level)
                self.assertIn(f"WHOLE: {nr} equal descriptors, consecutive, aligned to {show_size(nr * size)} in VA and PA", verdict(), where)
                (leaf,) = walk.leaves(tables.read, registers.half(1), va, va + nr * size - 1)
                self.assertEqual((leaf.va, leaf.pa, leaf.size, leaf.contiguous), (va, pa, nr * size, True), where)
                for member, flipped, reason in (
                    (7, CONTIGUOUS, "CONT clear"),
                    (nr - 1, size, "output address"),
                    (1, AP_READ_ONLY, "bits 7 differ"),
                    (2, DEVICE, "bits 4 differ"),
                    (3, 1, "bits 0 differ"),
                ):
                    tables.change(va + member * size, level, flipped)
                    self.assertRegex(verdict(), rf"BROKEN GROUP:\n +\[\d+\] at {va + member * size:#x} is .*{reason}", where)
                    tables.change(va + member * size, level, flipped)
                self.assertIn("WHOLE", verdict())
                for member in range(nr):
                    tables.map(va + member * size, pa + size + member * size, level, RW | tables.shareable() | CONTIGUOUS)
                self.assertIn(f"output address {pa + size:#x} is not a multiple of {show_size(nr * size)}", verdict(), where)

    def test_may_have_members_that_differ_in_what_hardware_writes(self) -> None:
        for granule, bits in GRANULES:
            nr = GROUPS[granule, 3]
            for fields, flipped, whole in (
                ({}, ACCESSED, False),
                ({"HA": 1}, ACCESSED, True),
                ({"HA": 1}, AP_READ_ONLY, False),
                ({"HA": 1, "HD": 1}, AP_READ_ONLY | ACCESSED, True),
                ({}, 1 << 55, True),
            ):
                tables, registers = Tables(granule, bits), machine(granule, bits, **fields)
                tables.group(upper(bits), 0x8000_0000, 3, nr, RW | DIRTY_MODIFIER | tables.shareable())
                tables.change(upper(bits) + (6 << tables.page), 3, flipped)
                group = walk.walk(tables.read, registers, upper(bits)).group
                assert group
                self.assertEqual(group.whole, whole, (granule, bits, fields, hex(flipped)))

    def test_takes_shareability_from_tcr_where_descriptors_have_none(self) -> None:
        for granule, bits, tables, registers, base in cases():
            registers = replace(registers, tcr=registers.tcr & ~(0b11 << 28) | 0b10 << 28)
            tables.map(base, 0x9000_0000, 3, RW | tables.shareable())
            leaf = walk.walk(tables.read, registers, base).leaf
            by_tcr = bits == 52 and granule != "64K"
            self.assertEqual(leaf.columns().split()[-2], "OSH" if by_tcr else "ISH")
            self.assertIn("TCR.SH=10 (outer)" if by_tcr else " SH=11 (inner)", leaf.fields())

    def test_has_no_output_address_beyond_ips(self) -> None:
        for granule, bits, tables, registers, base in cases():
            registers = replace(registers, tcr=registers.tcr & ~(7 << 32) | 2 << 32)
            tables.bits = 48 if granule == "64K" else bits  # with IPS less than 6 a page of 64K has 48 bits
            tables.map(base, 1 << 41, 3, RW)
            self.assertRegex(walk.walk(tables.read, registers, base).fault, "address size fault, level 3: 0x20000000000 has more than the 40 bits")


class Registers_(unittest.TestCase):
    def half(self, registers: Registers, root: int | None = None) -> Half:
        return registers.half(1, root)

    def test_the_asid_is_that_of_the_ttbr_that_a1_names(self) -> None:
        for fields, asid in (({}, 0x34), ({"AS": 1}, 0x1234), ({"A1": 1}, 0x78), ({"A1": 1, "AS": 1}, 0x5678)):
            registers = replace(machine("4K", 48, **fields), ttbr0=0x1234 << 48 | 0x5000_0000, ttbr1=0x5678 << 48 | ROOT)
            self.assertEqual(registers.asid, asid)
            self.assertIn(f"TTBR1_EL1 {ROOT:#x}, ASID {asid}, 48-bit", registers.half(1).describe())

    def test_a_root_may_be_the_value_of_a_ttbr_with_its_asid(self) -> None:
        for granule, bits in GRANULES:
            for asid in (0, 1, 0x1F0):
                self.assertEqual(self.half(machine(granule, bits), asid << 48 | ROOT | 1).root, ROOT, (granule, bits, asid))
        self.assertEqual(self.half(machine("4K", 48), 1 << 48 | ROOT).root, ROOT)
        self.assertEqual(self.half(machine("4K", 52), 0x3 << 48 | ROOT).root, 0x3 << 48 | ROOT)
        self.assertEqual(self.half(machine("64K", 52), 7 << 48 | ROOT | 0b1010 << 2).root, 0xA << 48 | ROOT)

    def test_a_half_may_be_chosen_against_bit_55(self) -> None:
        tables = Tables("4K", 48)
        tables.map(0x40_0000, 0x9000_0000, 3, RW | tables.shareable())
        registers = machine("4K", 48)
        self.assertEqual(walk.walk(tables.read, registers, 0x40_0008, root=ROOT, number=0).pa, 0x9000_0008)
        self.assertIn("outside of the 48-bit upper half", walk.walk(tables.read, registers, 0x40_0008, number=1).fault)

    def test_at_el2_they_have_other_names(self) -> None:
        registers = replace(machine("16K", 48), level=2)
        text = "\n".join(describe_registers(registers))
        for name in ("SCTLR_EL2", "TCR_EL2", "TTBR0_EL2", "TTBR1_EL2", "MAIR_EL2"):
            self.assertIn(name, text)
        self.assertNotIn("EL1", text)
        self.assertTrue(registers.half(1).describe().startswith("TTBR1_EL2 "))


class Types(unittest.TestCase):
    def test_are_named_by_mair_and_not_by_index(self) -> None:
        tables = Tables("4K", 48)
        tables.map(upper(48), 0x900_0000, 3, UXN | PXN | ACCESSED | DEVICE | INNER)
        leaf = walk.walk(tables.read, machine("4K", 48), upper(48)).leaf
        self.assertEqual(leaf.attributes(), "rw- Device-nGnRE")
        self.assertIn("AttrIndx=4 (Device-nGnRE)", leaf.fields())

    def test_every_kind_of_byte_has_a_name(self) -> None:
        names = {
            **{0x00: "Device-nGnRnE", 0x04: "Device-nGnRE", 0x08: "Device-nGRE", 0x0C: "Device-GRE", 0x01: "Device-nGnRnE,XS=0"},
            **{0x44: "Normal-NC", 0xFF: "Normal-WB", 0xEE: "Normal-WB", 0xBB: "Normal-WT", 0xAA: "Normal-WT", 0x77: "Normal-WBt", 0x33: "Normal-WTt"},
            **{0x4F: "Normal-oNC-iWB", 0xF4: "Normal-oWB-iNC", 0x40: "Normal-NC,XS=0", 0xA0: "Normal-WT,XS=0", 0xF0: "Normal-Tagged"},
            **{0x02: "reserved-0x02", 0x50: "reserved-0x50"},
        }
        self.assertEqual({byte: type_name(byte) for byte in names}, names)


class Permissions(unittest.TestCase):
    def leaf(self, bits: int, **fields: int) -> Descriptor:
        return Descriptor(bits, 3, machine("4K", 48, **fields).half(1).geometry)

    def test_are_those_of_each_exception_level(self) -> None:
        for bits, el1, el0 in (
            (UXN | PXN, "rw-", "---"),
            (UXN | AP_READ_ONLY, "r-x", "---"),
            (PXN | AP_USER | AP_READ_ONLY, "r--", "r-x"),
            (PXN, "rw-", "--x"),
            (AP_USER, "rw-", "rwx"),  # what EL0 writes EL1 does not execute
            (AP_USER | UXN | PXN, "rw-", "rw-"),
        ):
            self.assertEqual((self.leaf(bits).el1, self.leaf(bits).el0), (el1, el0), hex(bits))

    def test_a_clean_page_is_writable_where_hardware_marks_it_dirty(self) -> None:
        bits = UXN | PXN | AP_READ_ONLY | DIRTY_MODIFIER
        self.assertEqual((self.leaf(bits).el1, self.leaf(bits, HA=1, HD=1).el1), ("r--", "rw-"))

    def test_are_those_of_pir_where_they_are_indirect(self) -> None:
        # By the index: 0 nothing, 1 r, 3 rx, 5 rw, 6 rw (x is lost), 7 rwx, 10 rx, 12 rw.
        fields = [0, 1, 3, 5, 6, 7, 10, 12, 0, 0, 0, 0, 0, 0, 0, 0xE]
        pir = sum(field << 4 * index for index, field in enumerate(fields))
        registers = replace(machine("4K", 48), tcr2=2, pir=pir, pire0=pir >> 4)
        geometry = registers.half(1).geometry
        wanted = ["---", "r--", "r-x", "rw-", "rw-", "rwx", "r-x", "rw-", *["---"] * 7, "rwx"]
        for index, el1 in enumerate(wanted):
            bits = (index >> 2) << 53 | (index >> 1 & 1) << 51 | (index & 1) << 6 | ACCESSED
            leaf = Descriptor(bits, 3, geometry)
            self.assertEqual((leaf.permission_index, leaf.el1), (index, el1))
            self.assertEqual(leaf.el0, wanted[index + 1] if index < 15 else "---")
            self.assertEqual(Descriptor(bits | AP_READ_ONLY, 3, geometry).el1, el1.replace("w", "-"), "not dirty, and HD clear")
            dirty = replace(registers, tcr=registers.tcr | 1 << 40).half(1).geometry
            self.assertEqual(Descriptor(bits | AP_READ_ONLY, 3, dirty).el1, el1)
        self.assertFalse(registers.half(1).hierarchical)
        with self.assertRaisesRegex(NotWalkable, "TCR2_EL1.D128"):
            replace(registers, tcr2=1 << 5).half(1)

    def test_are_narrowed_by_the_tables_above(self) -> None:
        tables, registers = Tables("4K", 48), machine("4K", 48)
        tables.map(upper(48), 0x9000_0000, 3, ACCESSED | INNER | AP_USER)
        for bit, shown in ((59, "PXN"), (60, "UXN"), (61, "rwx"), (62, "r-x")):
            tables.memory[ROOT][0] ^= 1 << bit
            (leaf,) = walk.leaves(tables.read, registers.half(1), 0, MASK)
            self.assertIn(shown, leaf.show())
            self.assertEqual(bit == 61, "user" not in leaf.show())
            # HPD1: they do not count.
            (leaf,) = walk.leaves(tables.read, replace(registers, tcr=registers.tcr | 1 << 42).half(1), 0, MASK)
            self.assertIn("rw- Normal-WB     --- --- ISH AF user", leaf.show())
            tables.memory[ROOT][0] ^= 1 << bit


class Dump(unittest.TestCase):
    """A kernel with a linear map, an image, a device twice, and a user page."""

    def setUp(self) -> None:
        self.tables = Tables("4K", 48)
        self.registers = machine("4K", 48)
        base = upper(48)
        shared = INNER
        for i in range(4):
            self.tables.map(base + (i << 21), 0x4000_0000 + (i << 21), 2, RW | shared)
        self.image = 0xFFFF_A000_0000_0000
        self.tables.group(self.image, 0x4020_0000, 3, 16, UXN | AP_READ_ONLY | ACCESSED | shared)
        self.tables.map(self.image + 0x1_0000, 0x4021_0000, 3, RW | shared)
        for va in (0xFFFF_8000_0000_0000, 0xFFFF_F000_0000_0000):
            self.tables.map(va, 0x900_0000, 3, UXN | PXN | ACCESSED | DEVICE | shared)
        self.lower = Tables("4K", 48)
        self.lower.map(0x40_0000, 0x4030_0000, 3, PXN | AP_USER | AP_READ_ONLY | ACCESSED | NOT_GLOBAL | shared)
        self.halves = [self.registers.half(1)]
        user = walk.merge(walk.leaves(self.lower.read, self.registers.half(0, ROOT), 0, MASK))
        self.runs = [*user, *walk.merge(walk.leaves(self.tables.read, self.registers.half(1), 0, MASK))]
        self.regions = dump.deduced(self.runs, self.image + 0x800)

    def filtered(self, **wanted: object) -> list[str]:
        chosen = dump.Filter(**wanted)  # type: ignore[arg-type]
        chosen.check(self.halves)
        return [f"{run.va:#x}" for run in self.runs if chosen.takes(run)]

    def test_regions_are_deduced(self) -> None:
        self.assertEqual(
            [(region.name, region.start, region.last) for region in self.regions],
            [
                ("user", 0x40_0000, 0x40_0FFF),
                ("linear", upper(48), upper(48) + (8 << 20) - 1),
                ("image", self.image, self.image + 0x1_0FFF),
            ],
        )
        self.assertIn("VA is PA + 0xfffeffffc0000000", self.regions[1].note)

    def test_neither_a_large_device_nor_a_trampoline_is_a_linear_map(self) -> None:
        device = 0xFFFF_9000_0000_0000
        for i in range(8):
            self.tables.map(device + (i << 21), 0x40_1000_0000 + (i << 21), 2, UXN | PXN | ACCESSED | DEVICE | INNER)
        runs = list(walk.merge(walk.leaves(self.tables.read, self.registers.half(1), 0, MASK)))
        self.assertEqual([(region.name, region.start) for region in dump.deduced(runs, self.image + 0x800)], [("linear", upper(48)), ("image", self.image)])
        only = [run for run in runs if run.va == self.image]
        self.assertEqual([region.name for region in dump.deduced(only, self.image + 0x800)], ["image"])

    def test_marks_stand_where_a_region_begins_and_totals_at_the_end(self) -> None:
        lines = list(dump.marked(self.runs, self.regions))
        marks = [" ".join(line.split()[:2]) for line in lines if line.startswith("--")]
        self.assertEqual(marks, ["-- user", "-- linear", "-- other", "-- image", "-- other"])
        self.assertEqual(lines[-4:], ["total user: 4K, 1x4K", "total linear: 8M, 4x2M", "total other: 8K, 2x4K", "total image: 68K, 1x64K 1x4K"])
        self.assertEqual(len(lines), len(self.runs) + 5 + 4)

    def test_a_run_that_goes_on_into_a_region_is_cut(self) -> None:
        edge = upper(48) + (4 << 20)
        regions = [dump.Region("one", upper(48), edge - 1), dump.Region("two", edge, edge + (4 << 20) - 1)]
        (run,) = (run for run in self.runs if run.va == upper(48))
        self.assertEqual([(part.va, part.pa, part.size) for part in dump.cut(run, regions)], [(upper(48), 0x4000_0000, 4 << 20), (edge, 0x4040_0000, 4 << 20)])
        self.assertEqual(list(dump.marked([run], regions))[-2:], ["total one: 4M, 2x2M", "total two: 4M, 2x2M"])

    def test_filters_choose_by_permission_size_and_type(self) -> None:
        devices = ["0xffff800000000000", "0xfffff00000000000"]
        image, linear, user = f"{self.image:#x}", "0xffff000000000000", "0x400000"
        data = f"{self.image + 0x1_0000:#x}"
        for wanted, found in (
            ({}, [user, linear, devices[0], image, data, devices[1]]),
            ({"el1": "w"}, [linear, devices[0], data, devices[1]]),
            ({"el1": "x"}, [image]),
            ({"el1": "wx"}, []),
            ({"el1": "r--"}, [user]),
            ({"el0": "r"}, [user]),
            ({"el0": "r-x"}, [user]),
            ({"el0": "---"}, [linear, devices[0], image, data, devices[1]]),
            ({"sizes": (2 << 20, 64 << 10)}, [linear, image]),
            ({"memory_type": "device"}, devices),
            ({"memory_type": "Normal", "sizes": (4096,)}, [user, data]),
        ):
            self.assertEqual(self.filtered(**wanted), found, wanted)
        for bad in ({"sizes": (3 << 20,)}, {"el1": "w-"}, {"el0": "q"}):
            with self.assertRaises(dump.BadFilter):
                self.filtered(**bad)

    def test_a_physical_address_leads_back_to_all_that_map_it(self) -> None:
        self.assertEqual([va for va, _ in dump.reverse(self.runs, 0x900_0123)], [0xFFFF_8000_0000_0123, 0xFFFF_F000_0000_0123])
        self.assertEqual([va for va, _ in dump.reverse(self.runs, 0x4020_5008)], [upper(48) + 0x20_5008, self.image + 0x5008])
        self.assertEqual(list(dump.reverse(self.runs, 0x8000_0000)), [])

    def test_a_physical_address_in_a_table_is_told_as_that(self) -> None:
        half = self.registers.half(1)
        tables = walk.snapshot(self.tables.read, [half], 100)
        (first,) = dump.tables_at(tables, {1: half}, ROOT + 8 * 3)
        self.assertEqual(first, "a table of level 0, TTBR1_EL1: descriptor [3] translates 0xffff018000000000+512G")
        pages = next(table for (_, level), (table, _) in tables.items() if level == 3)
        self.assertIn("a page table of level 3", next(dump.tables_at(tables, {1: half}, pages)))


if __name__ == "__main__":
    unittest.main()
