"""The model of a dump, and the picture of it, from a dump that is written here."""

import json
import unittest
from xml.etree import ElementTree

from lib.errors import Malformed
from lib.ptmap import Table, format_size, parse
from lib.ptmap_svg import COLOURS, LEFT, MAX_TABLES, STRIP, draw

LINEAR, VMALLOC = 0xFFFF_0000_0000_0000, 0xFFFF_8000_0000_0000
K, M, G, T = 1 << 10, 1 << 20, 1 << 30, 1 << 40
SVG = "{http://www.w3.org/2000/svg}"


def run(va: int, size: int, leaf: int, attributes: str = "rw- Normal-WB", valid: str = "true") -> str:
    level = {4 * K: 3, 64 * K: 3, 2 * M: 2, 32 * M: 2, G: 1, 16 * G: 1}[leaf]
    contiguous = "true" if leaf in (64 * K, 32 * M, 16 * G) else "false"
    return (
        f'ptmap {{"va":{va},"pa":{0x4000_0000},"size":{size},"level":{level},"contiguous":{contiguous},"leaf":{leaf},'
        f'"name":"{format_size(leaf)}","attributes":"{attributes}","valid":{valid}}}'
    )


RUNS = [
    run(LINEAR + G, 2 * M, 64 * K, "r-- Normal-WB"),
    run(LINEAR + G + 2 * M, 30 * M, 2 * M),
    run(LINEAR + G + 32 * M, 64 * M, 32 * M),
    run(VMALLOC, 4 * K, 4 * K, "rw- Device-nGnRE"),
    run(VMALLOC + 64 * K, 256 * K, 64 * K),
    run(VMALLOC + 4 * M, 64 * K, 4 * K, "r-x Normal-WB"),
]
LINES = [
    f'ptmap {{"region":"linear","start":{LINEAR},"size":{128 * T}}}',
    f'ptmap {{"region":"vmalloc","start":{VMALLOC},"size":{64 * T}}}',
    f'ptmap {{"area":"Ioremap","va":{VMALLOC + 0xFFC},"size":4,"caller":"c.rs:3:4"}}',
    f'ptmap {{"area":"Vmap","va":{VMALLOC + 64 * K},"size":{256 * K},"caller":"a<b.rs:1:2"}}',
    "vmwalk: something else on the console",
    *RUNS,
    f'ptmap {{"runs":{len(RUNS)}}}',
]


def with_runs(*runs: str) -> list[str]:
    return [*LINES[:4], *runs, f'ptmap {{"runs":{len(runs)}}}']


class ADump(unittest.TestCase):
    def test_has_the_tables_that_its_leaves_need_and_no_more(self) -> None:
        dump = parse(LINES)
        level1 = dump.children(Table(0, LINEAR))
        self.assertEqual(level1, [Table(1, LINEAR), Table(1, VMALLOC)])
        level2 = dump.children(level1[0])
        self.assertEqual(level2, [Table(2, LINEAR + G)])
        self.assertEqual(dump.children(level2[0]), [Table(3, LINEAR + G)])
        self.assertEqual(dump.children(Table(2, VMALLOC)), [Table(3, VMALLOC), Table(3, VMALLOC + 4 * M)])

    def test_knows_the_area_of_an_address(self) -> None:
        dump = parse(LINES)
        area = dump.area_at(VMALLOC + 300 * K)
        assert area
        self.assertEqual(area.kind, "Vmap")
        self.assertIsNone(dump.area_at(VMALLOC + 320 * K))
        area = dump.area_at(VMALLOC)
        assert area
        self.assertEqual((area.kind, area.va), ("Ioremap", VMALLOC + 0xFFC))

    def test_that_is_not_whole_is_refused(self) -> None:
        for lines, message in (
            (LINES[:-1], "a last line"),
            ([*LINES[:-2], LINES[-1]], "expected 6 runs, found 5"),
            (LINES[2:], "a line that names a region"),
            ([*LINES[:-1], 'ptmap {"va":1}'], "line 12: level: expected"),
            ([*LINES, "ptmap {oops"], "line 13: expected JSON, at line 1, column 2"),
            ([], "a last line"),
        ):
            with self.subTest(message), self.assertRaisesRegex(Malformed, message):
                parse(lines)


class AMalformedDump(unittest.TestCase):
    """Each is refused at once, with its line: none is drawn, and none is drawn for ever."""

    RUN: dict[str, object] = {"va": VMALLOC, "pa": G, "size": 4096, "level": 3, "contiguous": False, "leaf": 4096, "name": "4K", "attributes": "rw- Normal-WB", "valid": True}

    def assert_refused(self, message: str, *records: object) -> None:
        lines = [f"ptmap {record if isinstance(record, str) else json.dumps(record)}" for record in records]
        with self.assertRaisesRegex(Malformed, message):
            parse([*LINES[:2], *lines, f'ptmap {{"runs":{len(lines)}}}'], "file")

    def test_is_refused_field_by_field(self) -> None:
        for field, value, message in (
            ("leaf", -65536, "leaf: expected 0x1000, a leaf of level 3, found -65536"),
            ("leaf", 0, "leaf: expected 0x1000"),
            ("leaf", 1, "leaf: expected 0x1000"),
            ("leaf", 4096.0, "leaf: expected 0x1000"),
            ("level", 7, "level: expected a whole number from 0x1 to 0x3, found 7"),
            ("level", 0, "level: expected a whole number"),
            ("level", True, "level: expected a whole number from 0x1 to 0x3, found true"),
            ("contiguous", 1, "contiguous: expected true or false, found 1"),
            ("contiguous", True, "leaf: expected 0x10000, a leaf of level 3 with the contiguous bit, found 4096"),
            ("size", 0, "size: expected a multiple of 0x1000 from 0x1"),
            ("size", 4097, "size: expected a multiple of 0x1000"),
            ("size", "4096", 'size: expected a multiple of 0x1000 .*, found "4096"'),
            ("size", 64 * T, "size: expected no more than 131,072 tables of level 3 need"),
            ("size", 1 << 48, "size: expected at most 0x800000000000, to the end of the half"),
            ("va", VMALLOC + 1, "va: expected a multiple of 0x1000"),
            ("va", 1 << 64, "va: expected a multiple of 0x1000 from 0x0 to 0xffffffffffffffff"),
            ("va", -4096, "va: expected"),
            ("pa", 1 << 52, "pa: expected a multiple of 0x1000 from 0x0 to 0xffffffffff000"),
            ("attributes", None, "attributes: expected printable text, found nothing"),
            ("attributes", "a\0b", "attributes: expected printable text"),
            ("name", 4, "name: expected printable text, found 4"),
            ("valid", "yes", 'valid: expected true or false, found "yes"'),
        ):
            with self.subTest(field=field, value=value):
                self.assert_refused(f"^file: line 3: {message}", self.RUN | {field: value})

    def test_has_its_runs_in_order(self) -> None:
        self.assert_refused(f"file: line 4: va: expected {VMALLOC + 4096:#x} or more, behind the run before it", self.RUN, self.RUN)

    def test_of_regions_that_are_none_is_refused(self) -> None:
        for region, message in (
            ({"region": "x", "start": "0", "size": "4096"}, 'start: expected a multiple of 0x8000000000 .*, found "0"'),
            ({"region": "x", "start": 0, "size": 4096}, "size: expected a multiple of 0x8000000000"),
            ({"region": "x", "start": VMALLOC, "size": 1 << 48}, "size: expected at most"),
            ({"region": None, "start": 0, "size": T}, "region: expected printable text"),
        ):
            with self.subTest(region):
                self.assert_refused(f"file: line 3: {message}", region)

    def test_that_is_no_json_is_refused(self) -> None:
        self.assert_refused("file: line 3: expected JSON", '{"a":' + "[" * 100_000)
        self.assert_refused("file: line 3: expected JSON", '{"a":' + "1" * 5_000 + "}")
        self.assert_refused("file: line 3: level: expected", '{"a":Infinity}'.replace("Infinity", "1"))

    def test_goes_on_behind_its_last_line(self) -> None:
        with self.assertRaisesRegex(Malformed, f"line {len(LINES) + 1}: expected nothing behind the number of runs"):
            parse([*LINES, LINES[-1]])


class ThePicture(unittest.TestCase):
    def picture(self, lines: list[str]) -> ElementTree.Element:
        return ElementTree.fromstring(draw(parse(lines)))

    def rects(self, root: ElementTree.Element, kind: str) -> list[ElementTree.Element]:
        return [rect for rect in root.iter(f"{SVG}rect") if rect.get("class") == kind]

    def test_has_a_strip_for_each_table_of_each_region(self) -> None:
        # linear: a root strip, L1, L2, L3; vmalloc: a root strip, L1, L2, two L3.
        self.assertEqual(len(self.rects(self.picture(LINES), "table")), 4 + 5)

    def test_outlines_each_group_and_nothing_else(self) -> None:
        root = self.picture(LINES)
        groups = self.rects(root, "group")
        self.assertEqual(len(groups), 32 + 2 + 4)
        self.assertTrue(all(rect.get("stroke") for rect in groups))
        leaves = self.rects(root, "leaf")
        self.assertEqual(len(leaves), 3)
        self.assertFalse(any(rect.get("stroke") for rect in leaves))

    def test_is_to_scale(self) -> None:
        root = self.picture(with_runs(run(VMALLOC + 512 * K, 256 * K, 4 * K)))
        (leaf,) = self.rects(root, "leaf")
        self.assertAlmostEqual(float(leaf.get("x", "")), LEFT + STRIP / 4)
        self.assertAlmostEqual(float(leaf.get("width", "")), STRIP / 8)

    def test_has_a_colour_for_each_leaf_size(self) -> None:
        sizes = (4 * K, 64 * K, 2 * M, 32 * M, G, 16 * G)
        root = self.picture(with_runs(*(run(VMALLOC + 32 * G * i, size, size) for i, size in enumerate(sizes))))
        found = {rect.get("fill") for kind in ("leaf", "group") for rect in self.rects(root, kind)}
        self.assertEqual(found, set(COLOURS.values()))

    def test_tells_the_attributes_to_whoever_hovers(self) -> None:
        titles = [title.text or "" for title in self.picture(LINES).iter(f"{SVG}title")]
        expected = f"{VMALLOC + 64 * K:#018x}..{VMALLOC + 320 * K:#018x} (256K)\nPA 0x40000000\nL3 64K: 4 groups of 16\nrw- Normal-WB\nVmap of 256K, made by a<b.rs:1:2"
        self.assertIn(expected, titles)
        inside = f"Ioremap of 4 at {VMALLOC + 0xFFC:#018x}, made by c.rs:3:4"
        self.assertIn(f"{VMALLOC:#018x}..{VMALLOC + 4 * K:#018x} (4K)\nPA 0x40000000\nL3 4K: 1 leaves\nrw- Device-nGnRE\n{inside}", titles)

    def test_draws_no_more_tables_than_a_person_can_read_and_says_so(self) -> None:
        root = self.picture(with_runs(run(VMALLOC, 100 * M, 4 * K)))
        self.assertEqual(len(self.rects(root, "table")), 1 + 3 + MAX_TABLES)
        self.assertIn("and 26 more tables of level 3", "".join(root.itertext()))

    def test_shows_what_is_not_valid_faintly(self) -> None:
        (leaf,) = self.rects(self.picture(with_runs(run(VMALLOC, 4 * K, 4 * K, valid="false"))), "leaf")
        self.assertEqual(leaf.get("fill-opacity"), "0.3")


if __name__ == "__main__":
    unittest.main()
