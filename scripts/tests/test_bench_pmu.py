"""Benches by the PMU: what is read of a console, and what two results have in common."""

import json
import subprocess
import tempfile
import unittest
from pathlib import Path

from lib import bench, bench_compare, bench_pmu
from lib.errors import Malformed
from lib.paths import ROOT

MACHINE = {
    "build": "release",
    "midr": 0x414FD0B1,
    "counters": "pmu",
    "pmu": "PMUv3p1",
    "event_counters": 6,
    "hz": 24_000_000,
    "evict": 32,
    "granule": 4096,
    "counted": {"ticks": "", "cycles": ""},
    "not_counted": {"dtlb_walk": "PMCEID lacks it"},
}


def machine(**other: object) -> str:
    return f"bench {json.dumps({'machine': MACHINE | other})}"


def line(case: str, op: str = "map", state: str = "warm", walker: str = "vmwalk", cycles: object = (90, 95, 100, 110, 400), **other: object) -> str:
    record = {"case": case, "walker": walker, "op": op, "state": state, "runs": 101, "ticks": [22, 23, 24, 25, 90], "cycles": cycles, **other}
    return f"bench {json.dumps(record)}"


def made(*lines: str, **other: object) -> bench.Json:
    return bench_pmu.parse([machine(**other), *lines])


class ALog(unittest.TestCase):
    def test_of_a_serial_line_is_read_whatever_stands_around(self) -> None:
        log = ["U-Boot 2026.01\r", f"[  0.000000] {machine()}\r", "vmwalk: hello\r", f"{line('a')}\r", "benchmark {", line("a", "unmap")]
        document = bench_pmu.parse(log)
        (case,) = document["cases"]
        self.assertEqual(case["walkers"]["vmwalk"]["map"]["warm"]["ns"], [916.7, 958.3, 1000.0, 1041.7, 3750.0])
        self.assertEqual(list(case["walkers"]["vmwalk"]), ["map", "unmap"])
        self.assertEqual(document["machine"]["name"], "Cortex-A76 r4p1")
        self.assertEqual(document["machine"]["counted"], ["ns", "cycles"])

    def test_that_is_none_is_refused_with_the_place(self) -> None:
        for lines, says in (
            ([], "did not say what it measures with"),
            ([line("a")], "what it was measured with is not said before"),
            (['bench {"machine":{"build":"release"}}'], "counted by instructions"),
            ([machine(hz=0)], "hz: expected a whole number from 0x1"),
            ([machine(), machine(midr=1)], "of two machines, or two images"),
            ([machine(), line("a"), line("a")], "a, vmwalk: map, warm, was measured twice"),
            ([machine(), line("a", state="hot")], "neither of"),
            ([machine(), line("a", op="fly")], "neither of"),
            ([machine(), line("a", walker="series")], "a: vmwalk itself is missing"),
            ([machine(), line("a", cycles=[1, 2, 3])], "cycles: expected minimum"),
            ([machine(), line("a", cycles=[5, 4, 3, 2, 1])], "cycles: expected minimum"),
            ([machine(), line("a", cycles=[1, 2, 3, 4, -5])], "cycles: expected minimum"),
            ([machine(), line("a")[:-9]], "expected JSON"),
            ([machine(), 'bench {"curve":"a","x":1,"y":2}'], "not understood"),
        ):
            with self.subTest(says), self.assertRaisesRegex(Malformed, says):
                bench_pmu.parse(lines)

    def test_of_several_boots_is_one_result(self) -> None:
        document = bench_pmu.parse([machine(), line("a"), machine(), line("b")])
        self.assertEqual([case["case"] for case in document["cases"]], ["a", "b"])

    def test_goes_through_the_script(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            log = Path(folder) / "console.log"
            log.write_bytes(b"\xff\xfe\n" + "\n".join([machine(), line("a")]).encode())
            done = subprocess.run([ROOT / "scripts/bench", "--from", log], env={"PATH": "/usr/bin:/bin", "OUT": folder}, capture_output=True, text=True)
            self.assertEqual((done.returncode, done.stderr), (0, ""))
            self.assertIn("100 ±8%", done.stdout)
            self.assertIn("not counted: dtlb_walk (PMCEID lacks it)", done.stdout)
            written = bench_compare.read(Path(folder) / "bench-pmu.json")
            self.assertEqual(written["machine"]["accelerator"], "none: the log console.log")


class Showing(unittest.TestCase):
    def test_the_series_table_has_its_claims_beside_the_same_walks_here(self) -> None:
        name = "vmap 25600, order 8/range-only"
        walks = [line(name, walker=walker, cycles=[cycles] * 5) for walker, cycles in (("vmwalk", 10), ("rewalk", 83), ("series", 20))]
        shown = [row.split() for row in bench_pmu.claims(made(*walks)) if "cycles" in row]
        self.assertEqual(shown, [[*"vmap() of 100 MB, order 8 1235 -> 149 us 8.3x cycles warm 83 20 4.15x 10 8.30x".split()]])
        self.assertEqual(bench_pmu.claims(made(line("a"))), [])

    def test_parts_are_named_and_others_described(self) -> None:
        self.assertEqual(bench_pmu.name_of_cpu(0x410FD083), "Cortex-A72 r0p3")
        self.assertEqual(bench_pmu.name_of_cpu(0x611F0221), "M1 Icestorm r1p1")
        self.assertEqual(bench_pmu.name_of_cpu(0x410FD991), "Arm, part 0xd99 r0p1")
        self.assertEqual(bench_pmu.name_of_cpu(0x990FD991), "implementer 0x99, part 0xd99 r0p1")


class Comparing(unittest.TestCase):
    def compared(self, one: bench.Json, other: bench.Json) -> str:
        return "\n".join(bench_compare.compare(one, other, ("one", "two")))

    def test_with_itself_is_all_ones_inside_the_spread(self) -> None:
        document = made(line("a"), line("a", "unmap"), line("a", state="cold"))
        shown = self.compared(document, document)
        self.assertIn("cycles: 1.00 (geometric mean of 3), 3 of them inside the spread", shown)
        self.assertNotIn("not of one machine", shown)

    def test_a_ratio_has_its_spread_and_a_mark_if_it_is_inside(self) -> None:
        before = made(line("a", cycles=[80, 90, 100, 110, 200]))
        near, far = (made(line("a", cycles=[low, low, middle, high, high])) for low, middle, high in ((95, 105, 120), (150, 200, 220)))
        self.assertRegex(self.compared(before, near), r"a +vmwalk +map +warm .* 1\.05 \(0\.86-1\.33\) ~")
        self.assertRegex(self.compared(before, far), r"a +vmwalk +map +warm .* 2\.00 \(1\.36-2\.44\)\n")

    def test_a_median_of_0_has_no_ratio(self) -> None:
        none = made(line("a", cycles=[0, 0, 0, 0, 7]))
        self.assertIsNone(bench_compare.Ratio.of([0.0] * 5, [1.0] * 5))
        self.assertNotIn("cycles:", self.compared(none, none))

    def test_other_machines_are_said(self) -> None:
        shown = self.compared(made(line("a")), made(line("a"), midr=0x410FD083, hz=54_000_000))
        self.assertIn("not of one machine and image: name: Cortex-A76 r4p1 and Cortex-A72 r0p3", shown)
        self.assertIn("hz: 24000000 and 54000000", shown)

    def test_only_counters_that_both_have_are_compared(self) -> None:
        alone = made('bench {"case":"a","walker":"vmwalk","op":"map","state":"warm","runs":3,"ticks":[1,1,1,1,1]}', counted={"ticks": ""})
        self.assertNotRegex(self.compared(alone, made(line("a"))), "cycles[: ]")

    def test_other_kinds_and_no_common_case_are_refused(self) -> None:
        exact = {"machine": {}, "cases": [{"case": "a", "map": {"instructions": 5}}]}
        with self.assertRaisesRegex(Malformed, "cannot be compared: one has exact instructions.*, two has counters"):
            self.compared(exact, made(line("a")))
        with self.assertRaisesRegex(Malformed, "no case in common"):
            self.compared(made(line("a")), made(line("b")))
        self.assertIn("1 of 1 operations cost the same", self.compared(exact, exact))

    def test_damaged_files_are_one_line_and_no_traceback(self) -> None:
        whole = made(line("a"))
        wrong: list[tuple[object, str]] = [
            (None, "expected an object"),
            ({}, "machine: expected an object"),
            ({"machine": {"counters": "abacus"}}, "counters: expected instructions or pmu"),
            ({"machine": {"counters": "pmu"}, "cases": []}, "counted: expected an array"),
            ({"machine": whole["machine"]}, "cases: expected an array"),
            ({**whole, "cases": [{"case": "a"}]}, "walkers: expected an object"),
            ({**whole, "cases": [{"case": "a", "walkers": {"vmwalk": {"map": {"warm": {"ns": 5}}}}}]}, "ns: expected an array"),
            ({**whole, "cases": [{"case": "a", "walkers": {"vmwalk": {"map": {"warm": {"ns": [1, 2]}}}}}]}, "ns: expected minimum"),
            ({**whole, "cases": [{"case": "a", "walkers": {"vmwalk": {"map": {"warm": 7}}}}]}, "expected an object, found 7"),
        ]
        with tempfile.TemporaryDirectory() as folder:
            good, bad = Path(folder) / "good.json", Path(folder) / "bad.json"
            good.write_text(json.dumps(whole))
            texts = [(json.dumps(value), says) for value, says in wrong] + [("", "expected JSON"), ("\x00", "expected JSON")]
            for text, says in texts:
                bad.write_text(text)
                with self.subTest(text[:60]), self.assertRaisesRegex(Malformed, says):
                    bench_compare.read(bad)
            bad.write_text("[")
            for words in ([good, bad], [good], [good, Path(folder) / "none.json"]):
                done = subprocess.run([ROOT / "scripts/compare", *words], capture_output=True, text=True)
                with self.subTest(words):
                    self.assertIn(done.returncode, (1, 2))
                    self.assertRegex(done.stderr, r"^compare: [^\n]+\n$")
            with self.assertRaisesRegex(Malformed, "good.json: has counters of the PMU"):
                bench.read_document(good)


if __name__ == "__main__":
    unittest.main()
