"""What `make` alone prints, against the Makefile itself."""

import re
import subprocess
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MAKEFILE = (ROOT / "Makefile").read_text()


class TheHelp(unittest.TestCase):
    printed: str

    @classmethod
    def setUpClass(cls) -> None:
        cls.printed = subprocess.run(["make", "-s", "-C", str(ROOT)], capture_output=True, text=True, check=True).stdout

    def test_lists_every_variable_that_can_be_set(self) -> None:
        variables = re.findall(r"^(\w+) *\?=", MAKEFILE, re.MULTILINE)
        self.assertIn("BENCH_WALKERS", variables)
        self.assertEqual(re.findall(r"^  ([A-Z]\w*) +\S", self.printed, re.MULTILINE), variables)

    def test_lists_every_target(self) -> None:
        phony = re.search(r"^\.PHONY: (.*)$", MAKEFILE, re.MULTILINE)
        assert phony
        self.assertEqual(sorted(re.findall(r"^  ([a-z][\w-]*) +\S", self.printed, re.MULTILINE)), sorted(phony[1].split()))

    def test_has_its_columns_apart(self) -> None:
        self.assertEqual(re.findall(r"^  \S+ \S.*$", self.printed, re.MULTILINE), [])


if __name__ == "__main__":
    unittest.main()
