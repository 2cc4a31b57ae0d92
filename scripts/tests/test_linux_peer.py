"""What is read of a Linux that measures itself, and what differs from the committed files."""

import tempfile
import unittest
from pathlib import Path
from unittest import mock

from lib import lines, linux_peer
from lib.bench_boot import Failed
from lib.paths import ROOT

DATA = ROOT / "scripts" / "bench-data"
PRINTED = """\
[    0.100000] Linux version 7.3-rc7-vmbench (someone@somewhere)
[    0.200000] VMB|calib 1000 nops + call: 1002
[    0.300000] VMB|range 4K, 4K pa|n=101|map med 390 min 388 mean 391|unmap med 219 min 219 mean 220|purge/op 30|leaves pud=0 pmd=0 contpte=0 pte=1 none=0
[    0.400000] VMB|vm_map_ram 1|n=101|map med 360 min 360 mean 361|unmap med 394 min 394 mean 394|purge/op 49|
[    0.500000] VMB|done
""".splitlines()


class OfInstructions(unittest.TestCase):
    def test_each_case_is_a_row_with_medians(self) -> None:
        rows = list(linux_peer.instruction_rows(PRINTED))
        self.assertEqual(rows[0], {"case": "range 4K, 4K pa", "map": "390", "unmap": "219", "lazy_purge": "30", "leaves": "pud=0 pmd=0 contpte=0 pte=1 none=0"})
        self.assertEqual([row["case"] for row in rows], ["range 4K, 4K pa", "vm_map_ram 1"])

    def test_rows_are_written_as_the_committed_file_has_them(self) -> None:
        committed = linux_peer.read_csv(DATA / "linux-7.3-icount.csv")
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "icount.csv"
            linux_peer.write_csv(path, linux_peer.ICOUNT_FIELDS, linux_peer.instruction_rows(PRINTED), "# Linux version 7.3\n")
            written = linux_peer.read_csv(path)
        self.assertEqual(written[0], committed[0])

    def test_the_version_is_the_kernels(self) -> None:
        self.assertEqual(linux_peer.version(PRINTED), "Linux version 7.3-rc7-vmbench")


class OfLoops(unittest.TestCase):
    SUMMARY = ["[    4.948036] Summary: fix_size_alloc_test passed: 1 failed: 0 xfailed: 0 repeat: 1 loops: 10000 avg: 36916 usec"]

    def test_a_loop_is_the_test_by_its_loops(self) -> None:
        self.assertEqual(linux_peer.per_loop(self.SUMMARY, "fix_size_alloc_test"), 3692)

    def test_a_test_that_did_not_pass_has_no_figure(self) -> None:
        for said in ([], ["Summary: fix_size_alloc_test passed: 0 failed: 1 xfailed: 0 repeat: 1 loops: 10000 avg: 36916 usec"]):
            with self.assertRaisesRegex(Failed, "did not pass"):
                linux_peer.per_loop(said, "fix_size_alloc_test")

    def test_the_source_says_what_selects_a_test(self) -> None:
        source = '"\\t\\tid: 1,    name: fix_size_alloc_test\\n"\n"\\t\\tid: 1024, name: vm_map_ram_test\\n"'
        self.assertEqual(dict(linux_peer.loop_masks(source)), {"fix_size_alloc_test": 1, "vm_map_ram_test": 1024})


class OfLines(unittest.TestCase):
    def test_calls_of_a_case_are_medians_and_a_mean_of_transfers(self) -> None:
        counted = ["call 2 0 100 10 5 8 1 0 0 1 0 3", "call 2 0 102 10 5 8 1 0 0 1 0 0", "call 2 0 104 10 5 9 1 0 0 1 0 0", "call 2 1 50 4 2 3 1 0 0 0 0 1", "end"]
        rows = list(linux_peer.line_rows(counted))
        self.assertEqual([(row["case"], row["kind"], row["n"], row["insn"], row["xfer_mean"]) for row in rows], [("2", "A", "3", "102", "1.00"), ("2", "B", "1", "50", "1.00")])

    def test_counts_that_break_off_are_refused(self) -> None:
        with self.assertRaisesRegex(Failed, "did not come to its end"):
            list(linux_peer.line_rows(["call 2 0 100 10 5 8 1 0 0 1 0 3"]))

    def test_columns_are_those_of_the_committed_file(self) -> None:
        self.assertEqual(set(linux_peer.read_csv(lines.LINUX)[0]), set(linux_peer.LINES_FIELDS))


class WhatDiffers(unittest.TestCase):
    COMMITTED = [{"case": "a", "map": "10", "unmap": "5"}, {"case": "b", "map": "7", "unmap": "3"}]

    def differences(self, taken: list[dict[str, str]], slack: float = 0.0) -> list[str]:
        return list(linux_peer.differences(self.COMMITTED, taken, ("case",), ("map", "unmap"), slack))

    def test_is_nothing_where_all_is_the_same(self) -> None:
        self.assertEqual(self.differences([dict(row) for row in self.COMMITTED]), [])

    def test_is_each_figure_and_each_case_that_is_not_there(self) -> None:
        self.assertEqual(self.differences([{"case": "a", "map": "11", "unmap": "5"}]), ["a, map: 10 committed, 11 now", "b: not counted"])

    def test_is_no_figure_that_is_near_enough(self) -> None:
        taken = [{"case": "a", "map": "9", "unmap": "5"}, {"case": "b", "map": "7", "unmap": "4"}]
        self.assertEqual(self.differences(taken, 0.1), ["b, unmap: 3 committed, 4 now"])


class WhatALinuxTakes(unittest.TestCase):
    def test_files_are_added_once(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            tree = Path(folder)
            (tree / "mm").mkdir()
            (tree / "mm" / "Makefile").write_text("obj-y := mmap.o\n")
            linux_peer.add_files(tree)
            linux_peer.add_files(tree)
            self.assertEqual((tree / "mm" / "Makefile").read_text().count("vmbench.o"), 1)
            self.assertTrue((tree / "mm" / "vmscale.c").is_file())

    def test_missing_tools_are_named_with_their_packages(self) -> None:
        with mock.patch("shutil.which", lambda tool: None if tool == "flex" else f"/usr/bin/{tool}"):
            self.assertEqual(linux_peer.missing_tools(), {"flex": "flex"})


if __name__ == "__main__":
    unittest.main()
