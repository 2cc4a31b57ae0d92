"""The instrument of `make lines`: what counts as a transfer, and that a figure that rose is told."""

import copy
import subprocess
import tempfile
import unittest
from pathlib import Path

from lib import lines, lines_growth
from lib.bench_boot import Failed

HERE = Path(__file__).resolve().parent


class ThePlugin(unittest.TestCase):
    """The plugin's own code, driven by a host program in the emulator's place."""

    program: Path

    @classmethod
    def setUpClass(cls) -> None:
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.program = Path(folder.name) / "plugin"
        command = ["cc", "-Wall", "-Wextra", "-Werror", "-o", str(cls.program), str(HERE / "lines_plugin.c"), "-lpthread"]
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL)

    def wrote(self, *commands: str) -> list[str]:
        done = subprocess.run([str(self.program)], input="\n".join(commands), capture_output=True, text=True, check=True)
        written = done.stdout.splitlines()
        self.assertEqual(written[-1], "end")
        return written[:-1]

    def counts(self, *commands: str) -> dict[str, int]:
        """What one call on CPU 0 counts, after `before` and with `commands` in it."""
        call = next(line for line in self.wrote(*commands, "e 0 0") if line.startswith("call"))
        return dict(zip(lines.FIELDS, map(int, call.split()[3:]), strict=True))

    def test_a_line_that_only_one_cpu_uses_is_never_a_transfer(self) -> None:
        counts = self.counts("w 0 1000", "b 0 0", "r 0 1000", "w 0 1008", "r 0 2000")
        self.assertEqual((counts["transfers"], counts["loads"], counts["stores"], counts["lines"]), (0, 2, 1, 2))

    def test_a_load_of_what_another_cpu_wrote_is_one_transfer_and_then_shared(self) -> None:
        self.assertEqual(self.counts("w 1 1000", "b 0 0", "r 0 1000", "r 0 1020")["transfers"], 1)

    def test_a_line_that_was_cleaned_by_one_reader_is_shared_by_the_next(self) -> None:
        self.assertEqual(self.counts("w 1 1000", "r 2 1000", "b 0 0", "r 0 1000")["transfers"], 0)

    def test_a_store_to_what_another_cpu_has_read_is_a_transfer(self) -> None:
        self.assertEqual(self.counts("w 0 1000", "r 1 1000", "b 0 0", "w 0 1000", "w 0 1000")["transfers"], 1)

    def test_lines_that_nobody_wrote_come_from_memory(self) -> None:
        self.assertEqual(self.counts("r 1 1000", "b 0 0", "r 0 1000")["transfers"], 0)

    def test_devices_are_no_lines(self) -> None:
        counts = self.counts("b 0 0", "d 0 9000000")
        self.assertEqual((counts["loads"], counts["lines"]), (0, 0))

    def test_another_cpu_in_a_call_of_its_own_is_not_counted_here(self) -> None:
        self.assertEqual(self.counts("b 0 0", "w 1 1000", "w 2 1000", "i 1 d5033b9f")["stores"], 0)

    def test_instructions_are_told_apart(self) -> None:
        words = {
            "dsb": ("d5033b9f", "d5033a9f"),  # dsb ish, dsb ishst
            "dmb": ("d5033bbf",),  # dmb ish
            "isb": ("d5033fdf",),
            "tlbi": ("d508871f", "d50883a2"),  # vmalle1, vaale1is
            # stlxr, cas, casal, swpal, ldaddal
            "rmw": ("c802fc20", "c8a07c41", "c8e0fc41", "f8e08041", "f8e00041"),
        }
        plain = ("d503201f", "c85ffc20", "f9400020", "f8bfc020", "f8206841", "d5380000")  # nop, ldaxr, ldr, ldapr, str, mrs
        for field, encodings in words.items():
            for word in encodings:
                counts = self.counts("b 0 0", f"i 0 {word}")
                self.assertEqual({name for name in lines.HELD if counts[name]}, {field}, word)
        for word in plain:
            counts = self.counts("b 0 0", f"i 0 {word}")
            self.assertEqual((counts["instructions"], sum(counts[name] for name in lines.HELD)), (1, 0), word)

    def test_a_case_is_that_of_the_last_marker(self) -> None:
        written = self.wrote("n 0 0", "b 0 0", "e 0 0", "n 3 0", "b 1 1", "e 1 0")
        self.assertEqual([line.split()[:3] for line in written], [["call", "1", "0"], ["call", "2", "1"]])


CALL = "call 2 {} 100 20 10 5 2 1 0 1 0 {}"


class Reading(unittest.TestCase):
    PRINTED = ['lines {"number":2,"case":"vmalloc 1","cpus":8}']

    def test_figures_are_means_and_the_warm_up_is_left_out(self) -> None:
        counted = ["call 1 0 999 9 9 9 9 9 9 9 9 9", CALL.format(0, 1), "transfer 2 0 0x40 0x1000", CALL.format(0, 2), CALL.format(1, 0), "end"]
        (case,) = lines.parse(self.PRINTED, counted)
        means = case.means()
        self.assertEqual((means["map"]["transfers"], means["unmap"]["transfers"]), (1.5, 0))  # type: ignore[index]
        self.assertEqual(case.sites[0], {0x40: 1})

    def test_a_plugin_that_did_not_end_leaves_no_figure(self) -> None:
        with self.assertRaisesRegex(Failed, "did not come to its end"):
            lines.parse(self.PRINTED, [CALL.format(0, 1)])

    def test_a_case_without_a_counted_call_is_an_error(self) -> None:
        (case,) = lines.parse(self.PRINTED, [CALL.format(0, 1), "end"])
        with self.assertRaisesRegex(Failed, "no unmap was counted"):
            case.means()

    def test_linux_has_every_case_that_is_shown_beside_it(self) -> None:
        peers = lines.linux()
        self.assertAlmostEqual(peers["vmalloc 1", 8, "map"] + peers["vmalloc 1", 8, "unmap"], 26.59)
        self.assertAlmostEqual(sum(peers["vmalloc 1, freed by another", 8, kind] for kind in lines.KINDS), 28.24)

    def test_the_interface_follows_from_the_version(self) -> None:
        versions = {"7.2.22": 1, "8.2.2": 1, "9.0.0": 2, "9.1.0": 3, "10.0.2": 3, "11.1.3": 3}
        for version, api in versions.items():
            self.assertEqual(lines.api_of(f"QEMU emulator version {version} (Debian)"), api)
        with self.assertRaises(Failed):
            lines.api_of("something else")


class Judging(unittest.TestCase):
    BASE: lines.Json = {"vmalloc 1, map, 8 CPUs": {"rmw": 5, "dsb": 1, "dmb": 0, "isb": 1, "tlbi": 0, "transfers": 26.58}}

    def risen(self, name: str, by: float) -> list[str]:
        now = copy.deepcopy(self.BASE)
        now["vmalloc 1, map, 8 CPUs"][name] += by  # type: ignore[index]
        return lines.regressions(self.BASE, now)

    def test_each_figure_that_rises_is_told(self) -> None:
        for name in lines.HELD:
            with self.subTest(name):
                self.assertEqual(len(self.risen(name, 1)), 1)
                self.assertEqual(self.risen(name, -1), [])

    def test_a_row_that_is_gone_or_new_is_told(self) -> None:
        self.assertEqual(len(lines.regressions(self.BASE, {})), 1)
        self.assertEqual(len(lines.regressions({}, self.BASE)), 1)


class Growth(unittest.TestCase):
    """Curves by CPUs and by areas, of what boots printed and the plugin wrote."""

    def cases(self, cpus: int, areas: int, instructions: int) -> list[lines.Case]:
        printed = ['areas {"areas":%d,"cpus":%d,"bytes":%d}' % (areas, cpus, 100 * areas)] if areas else []
        printed.append('lines {"number":2,"case":"vmalloc 1","cpus":%d}' % cpus)
        rows = [f"call 2 {kind} {instructions} 10 10 {5 + kind} 0 0 0 0 0 {cpus - 1}" for kind in (0, 1)]
        return lines.parse(printed, [*rows, "end"])

    def points(self) -> list[lines_growth.Point]:
        boots = [(cpus, areas) for cpus in (1, 8) for areas in (0, 1000)]
        return [point for cpus, areas in boots for point in lines_growth.points(self.cases(cpus, areas, 100 * cpus + areas))]

    def test_a_call_and_its_end_are_added_up(self) -> None:
        self.assertEqual(lines_growth.curve(self.points(), "instructions", "cpus", 0), {"vmalloc 1": [[1, 200], [8, 1600]]})
        self.assertEqual(lines_growth.curve(self.points(), "lines", "areas", 8), {"vmalloc 1": [[0, 11], [1000, 11]]})

    def test_bytes_an_area_are_those_of_the_boot(self) -> None:
        self.assertEqual([point.bytes_an_area for point in self.points()], [0, 0, 100, 100] * 2)

    def test_the_table_has_what_was_measured_and_says_what_was_not(self) -> None:
        table = lines_growth.table(self.points())
        self.assertEqual(len(table), 1 + 4)
        self.assertRegex(table[-1], r"^vmalloc 1, unmap +1,000 +1,800 +6 +7 +- +- +-$")

    def test_the_picture_has_a_line_for_each_curve(self) -> None:
        picture = lines_growth.draw(self.points(), "max")
        # By CPUs, and by areas with 8; none with 64 was measured.
        self.assertEqual(picture.count("<polyline"), 6)

    def test_the_file_has_a_row_for_each_call(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "growth.csv"
            lines_growth.write_csv(self.points(), path)
            rows = path.read_text().splitlines()
        self.assertEqual(len(rows), 1 + 8)
        self.assertEqual(rows[0].split(",")[:5], ["case", "kind", "cpus", "areas", "instructions"])



if __name__ == "__main__":
    unittest.main()