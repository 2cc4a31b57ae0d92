"""That two readings of a device tree are held against each other, and what no network means.

DEVICE_TREES=1 also reads all trees of Debian's arm64 kernel, which are fetched for it.
"""

import os
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path
from unittest import mock

from lib import debian_trees
from lib.debian_trees import Unavailable, differences

SCRIPT = Path(__file__).resolve().parents[1] / "device-trees"
LIMIT = 1800.0


class Differences(unittest.TestCase):
    def test_there_are_none_between_equal_readings(self) -> None:
        self.assertEqual(differences({"memory": [[0, 4096]], "psci": None}, {"memory": [[0, 4096]], "psci": None}), [])

    def test_another_value_is_one(self) -> None:
        self.assertEqual(differences({"psci": None}, {"psci": "smc"}), ["psci: the kernel reads None, libfdt smc"])

    def test_a_value_that_only_one_has_is_one(self) -> None:
        self.assertEqual(len(differences({"memory": []}, {"cpus": []})), 2)

    def test_a_tree_that_the_kernel_refuses_differs(self) -> None:
        self.assertIn("error: the kernel reads Invalid property name, libfdt None", differences({"error": "Invalid property name"}, {"psci": "smc"}))


class Fetching(unittest.TestCase):
    def fetch(self, said: dict[str, str | None]) -> None:
        """With apt's answers given by its command; what is not given fails."""

        def run(command: list[str], *_rest: object) -> str | None:
            return next((answer for word, answer in said.items() if word in command), None)

        with tempfile.TemporaryDirectory() as folder, mock.patch.object(debian_trees, "run", run):
            debian_trees.fetch(Path(folder), "sid")

    TARGETS = "https://archive.example/debian/ Debian main\n"
    DEPENDS = "linux-image-arm64\n  Depends: linux-image-7.3-arm64\n"

    def test_what_cannot_be_had_is_told_and_is_no_failure(self) -> None:
        self.assertEqual(Unavailable.status, 77)
        answers = {"indextargets": self.TARGETS, "update": "", "depends": self.DEPENDS, "show": ""}
        for missing, why in (
            ("indextargets", "takes no packages from a Debian archive"),
            ("update", "lists of sid cannot be fetched"),
            ("depends", "has no linux-image-arm64"),
            ("show", "linux-image-7.3-arm64 cannot be downloaded"),
        ):
            with self.subTest(missing), self.assertRaisesRegex(Unavailable, why):
                self.fetch({**answers, missing: None})


@unittest.skipUnless(os.environ.get("DEVICE_TREES"), "DEVICE_TREES=1 fetches Debian's trees")
class DebiansTrees(unittest.TestCase):
    def test_all_are_read_as_libfdt_reads_them(self) -> None:
        done = subprocess.run([sys.executable, "-B", SCRIPT], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=LIMIT)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.assertRegex(done.stdout, r"(?m)^1\d{3} trees read; 0 of them differ$")


if __name__ == "__main__":
    unittest.main()
