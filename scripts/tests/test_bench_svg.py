"""The bench's picture: one page, nothing clipped, nothing over something else, axes with units."""

import json
import unittest
from itertools import combinations
from typing import Any
from xml.etree import ElementTree

from lib import bench, bench_svg

SVG = "{http://www.w3.org/2000/svg}"
MACHINE = {"machine": {"build": "release", "midr": 1, "tlbi_range": True, "zva": 64, "empty_pair": 2}}
CURVES = {
    "get_vm_area + free_vm_area of 1 to 16 pages, by live areas": [(0, 245), (100, 248), (1_000, 249), (15_000, 255), (100_000, 262)],
    "get_vm_area + free_vm_area, dearest of 2,000, by live areas": [(0, 617), (100, 784), (1_000, 915), (15_000, 970), (100_000, 1_549)],
    "vmalloc + vfree of 1 page, by live areas": [(0, 1_203), (100, 1_080), (100_000, 1_193)],
    "find_vm_area, by live areas": [(100, 96), (100_000, 148)],
    **{f"map + unmap of {what}, per 1,000 pages": [(1, 2_000_000), (256, 9_000), (262_144, last)] for what, last in (("a range in 4K", 2_500), ("a range in 2M and more", 1), ("an array in 4K", 19_000))},
    "KiB lazy, by areas of 1 to 100 pages freed": [(10 * i, 16_000 * i % 17_000) for i in range(151)],
    bench.BOOT_CURVE: [(128, 1_358_224), (8_192, 1_770_912)],
}


def records(*more: dict[str, Any]) -> list[str]:
    return [bench.MARK + json.dumps(record) for record in (MACHINE, *more)]


def of(case: str, op: str, instructions: int, walker: str = "vmwalk", **more: Any) -> dict[str, Any]:
    return {"case": case, "walker": walker, "op": op, "instructions": instructions, **more}


def document(*more: dict[str, Any], linux: dict[str, dict[str, bench.Json]] | None = None, cpu: str = "max") -> bench.Json:
    return bench.document(bench.parse(records(*more)), linux or {}, {"cpu": cpu})


def everything() -> bench.Json:
    """A document with every case that Linux has figures of, two walkers, and every curve."""
    linux = bench.read_linux()
    rows: list[dict[str, Any]] = []
    for i, (case, ops) in enumerate(linux["linux-7.3"].items()):
        for op in ("map", "unmap", "loop"):
            if op in ops:
                rows.append(of(case, op, max(1, ops[op] // (2 + i % 20))))
                rows += [of(case, op, ops[op], walker) for walker in ("rewalk", "series", "a-walker-with-a-long-name") if op != "loop"]
    rows += [{"curve": name, "x": x, "y": y} for name, points in CURVES.items() for x, y in points]
    return document(*rows, linux=linux)


class ThePicture(unittest.TestCase):
    def picture(self, figures: bench.Json) -> ElementTree.Element:
        return ElementTree.fromstring(bench_svg.draw(figures))

    def words(self, figures: bench.Json) -> list[str]:
        return [element.text or "" for element in self.picture(figures).iter(f"{SVG}text")]

    def bars(self, figures: bench.Json, title: str) -> list[float]:
        """Widths of the bars with this in what they say to whoever hovers."""
        found = [rect for rect in self.picture(figures).iter(f"{SVG}rect") if title in (rect.findtext(f"{SVG}title") or "")]
        return [float(rect.get("width", "")) for rect in found]

    def boxes(self, figures: bench.Json) -> list[tuple[str, float, float, float, float]]:
        """Each label with its left, top, right and bottom, at the width that room is reckoned with."""
        found = []
        for element in self.picture(figures).iter(f"{SVG}text"):
            size, words = float(element.get("font-size", "")), element.text or ""
            width = len(words) * size * bench_svg.EM
            left = float(element.get("x", "")) - width * {"start": 0.0, "middle": 0.5, "end": 1.0}[element.get("text-anchor", "")]
            y = float(element.get("y", ""))
            found.append((words, left, y - 0.75 * size, left + width, y + 0.1 * size))
        return found

    def pictures(self) -> dict[str, bench.Json]:
        linux = {"linux-7.3": {"a & b": {"map": 390, "unmap": 219}}}
        rows = (of("a & b", "map", 100), of("a & b", "unmap", 90))
        return {
            "everything": everything(),
            "one case": document(*rows, linux=linux),
            "a case that Linux has not": document(*rows),
            "a case that is dearer than Linux's": document(of("a", "map", 5_000), of("a", "unmap", 1), linux={"linux-7.3": {"a": {"map": 1, "unmap": 1}}}),
            "a case that costs nothing": document(of("a", "map", 0), of("a", "unmap", 0), linux={"linux-7.3": {"a": {"map": 1, "unmap": 0}}}),
            "a long name": document(of("x" * 200, "map", 1), linux={"linux-7.3": {"x" * 200: {"map": 9}}}),
            "a curve alone": document({"curve": "find_vm_area, by live areas", "x": 0, "y": 0}),
            "a curve of another kind": document({"curve": "something else", "x": 3, "y": 0}),
            "nothing": document(),
        }

    def test_is_one_page_with_every_label_on_it(self) -> None:
        for name, figures in self.pictures().items():
            with self.subTest(name):
                root = self.picture(figures)
                self.assertEqual((root.get("width"), root.get("height")), ("1200", "900"))
                for words, left, top, right, bottom in self.boxes(figures):
                    self.assertTrue(0 <= left and right <= 1200 and 0 <= top and bottom <= 900, f"{words!r} at {left:.0f}..{right:.0f}, {top:.0f}..{bottom:.0f}")

    def test_has_no_label_over_another(self) -> None:
        for name, figures in self.pictures().items():
            with self.subTest(name):
                for (one, *a), (two, *b) in combinations(self.boxes(figures), 2):
                    apart = a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]
                    self.assertTrue(apart, f"{one!r} and {two!r}: {a}, {b}")

    def test_has_its_marks_inside_the_page(self) -> None:
        for name, figures in self.pictures().items():
            with self.subTest(name):
                for rect in self.picture(figures).iter(f"{SVG}rect"):
                    x, y, width, height = (float(rect.get(key, "0")) for key in ("x", "y", "width", "height"))
                    self.assertTrue(0 <= x and x + width <= 1200 and 0 <= y and y + height <= 900 and width >= 0, rect.attrib)
                for circle in self.picture(figures).iter(f"{SVG}circle"):
                    self.assertTrue(0 <= float(circle.get("cx", "")) <= 1200 and 0 <= float(circle.get("cy", "")) <= 900)

    def test_begins_with_how_far_ahead_it_is(self) -> None:
        figures = everything()
        words = self.words(figures)
        mean = bench.advantage(figures["cases"], "linux-7.3")[0]
        self.assertIn(f"{mean:.1f}  over 66 cases", words)
        self.assertLess(words.index(f"{mean:.1f}  over 66 cases"), words.index("range 4K, 4K pa"))
        for family in ("the walk of a range", "ioremap", "vmap", "the walk of an array", "pages-range", "vm_map_ram", "vmalloc_huge", "vmalloc", "get_vm_area", "loops of test_vmalloc"):
            self.assertIn(family, words)

    def test_has_a_row_for_every_case_of_linux_with_its_whole_name(self) -> None:
        words = self.words(everything())
        for case in bench.read_linux()["linux-7.3"]:
            shown = case.removeprefix("test_vmalloc ").replace("/range-only", ", walk alone")
            self.assertIn(shown, words)
        self.assertFalse([word for word in words if word.endswith("…")])

    def test_has_longer_bars_for_larger_figures(self) -> None:
        linux = {"linux-7.3": {"a": {"map": 3_900, "unmap": 100}}}
        theirs, ours = self.bars(document(of("a", "map", 30), of("a", "unmap", 10), linux=linux), "a: Linux and vmwalk")
        self.assertGreater(theirs, ours)

    def test_tells_each_figure_to_whoever_hovers(self) -> None:
        linux = {"linux-7.3": {"a & b": {"map": 390, "unmap": 219}}}
        figures = document(of("a & b", "map", 100), of("a & b", "unmap", 90), linux=linux)
        titles = [title.text for title in self.picture(figures).iter(f"{SVG}title")]
        self.assertIn("a & b: Linux and vmwalk: map 390 and 100; unmap 219 and 90", titles)
        self.assertIn("a & b, map: 3.9", titles)

    def test_marks_what_is_dearer_than_linux(self) -> None:
        figures = document(of("a", "map", 200), linux={"linux-7.3": {"a": {"map": 100}}})
        (ratio,) = [element for element in self.picture(figures).iter(f"{SVG}text") if element.text == "0.5×"]
        self.assertEqual(ratio.get("fill"), "#b3261e")

    def test_has_curves_with_units_on_both_axes_and_a_key(self) -> None:
        figures = everything()
        words = self.words(figures)
        for unit in ("live areas", "pages", "areas freed", "MiB of RAM", "KiB", "instructions (log-log)", "instructions per 1,000 pages (log-log)"):
            self.assertIn(unit, words)
        for curve in CURVES:
            if not curve.startswith("KiB"):
                self.assertIn(curve.removesuffix(", by live areas").removesuffix(", per 1,000 pages").removesuffix(", by MiB of RAM"), words)
        self.assertEqual(len(self.picture(figures).findall(f"{SVG}polyline")), len(CURVES))

    def test_refuses_a_curve_without_points(self) -> None:
        with self.assertRaisesRegex(bench.BadOutput, "curve 'x': expected points, found none"):
            bench_svg.draw(document() | {"curves": {"x": []}})

    def test_says_of_which_build_and_cpu_it_is(self) -> None:
        figures = document(cpu="cortex-a53")
        figures["machine"]["build"] = "dev"
        words = self.words(figures)
        self.assertIn("of a dev build: not the release's figures", words)
        self.assertTrue(any("-cpu cortex-a53" in word for word in words))
        self.assertFalse(any("build" in word for word in self.words(document())))


if __name__ == "__main__":
    unittest.main()
