"""gdb and the prompt with an image of other pages: the stage `granules` of scripts/test runs this, with GRANULE, VA and IMAGE."""

import os
import re
import subprocess
import sys
import unittest

from lib.paths import ROOT

INSIDE = "scripts/tests/gdb_inside"
GRANULE = os.environ["GRANULE"]
VA = os.environ["VA"]
GROUP = {"4K": 16, "16K": 128, "64K": 32}[GRANULE]
"""Pages of a contiguous group."""


def run(script: str, typed: str = "", **variables: str) -> str:
    command = [sys.executable, "-B", f"scripts/{script}"]
    done = subprocess.run(command, cwd=ROOT, env=os.environ | variables, input=typed, capture_output=True, text=True, timeout=240)
    if done.returncode != 0:
        raise AssertionError(f"{script}: exit {done.returncode}: {done.stdout}{done.stderr}")
    return done.stdout


class WithOtherPages(unittest.TestCase):
    def test_gdb_walks_and_lists_with_the_granule_of_the_machine(self) -> None:
        text = run("debug", GDBCMD="break kernel_main; continue; vmw walk 0xffffffff80000000; vmw ptdump", TIMEOUT="120")
        self.assertIn(f"{VA}-bit addresses, {GRANULE} granule", text)
        self.assertRegex(text, rf"=> pa 0x[0-9a-f]+  {GRANULE} leaf, EL1 r-x")
        self.assertRegex(text, rf"(?m)^0xffffffff80000000-0xffffffff80[0-9a-f]+ 0x[0-9a-f]+ +\w+ L3 +{GRANULE} +- r-x Normal-WB")

    def test_gdb_knows_the_tables_without_the_elf(self) -> None:
        commands = f"source {INSIDE}/at_the_end.py; source {INSIDE}/agreement.py; source {INSIDE}/translated.py; vmw ptdump"
        text = run("debug", GDBCMD=commands, BOOTARGS="selftest=none", TIMEOUT="240")
        self.assertRegex(text, r"(?m)^agreement: 1000 addresses, [1-9]\d\d mapped, [1-9]\d\d unmapped, 0 differ$")
        self.assertRegex(text, r"(?m)^translated: \d+ runs, \d+ addresses in them and \d+ beside them, 0 answers differ$")
        self.assertRegex(text, r"(?m)^-- image 0xffffffff80\w+-")
        self.assertNotIn("BROKEN", text)

    def test_the_prompt_maps_in_groups_of_the_granule(self) -> None:
        pages = GROUP + 3
        text = run("shell", typed=f"vmalloc {pages * int(GRANULE[:-1])}K\nareas\nbench range*\noff\n")
        made = re.search(r"(?m)1: Vmalloc of \w+ at 0x[0-9a-f]+: (.*?)\r?$", text)
        self.assertTrue(made, text)
        assert made
        self.assertEqual(made[1], f"1x{'64K' if GRANULE == '4K' else '2M'} 3x{GRANULE}")
        self.assertRegex(text, r"Vmalloc, \w+, made by kernel/harness/src/shell/areas.rs")
        self.assertIn("the cases are those of Linux with pages of 4 KiB and 48-bit addresses", text)


if __name__ == "__main__":
    unittest.main()
