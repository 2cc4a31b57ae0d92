"""What is held against a fresh machine after each `make`, and what no root means for `make test`."""

import contextlib
import io
import os
import subprocess
import sys
import tempfile
import unittest
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from unittest import mock

from lib import fresh, stages
from lib.cases import Finished
from lib.report import Report

SCRIPTS = Path(__file__).resolve().parents[1]
SPEC = spec_from_loader("fresh_script", SourceFileLoader("fresh_script", str(SCRIPTS / "fresh")))
assert SPEC and SPEC.loader
fresh_script = module_from_spec(SPEC)
SPEC.loader.exec_module(fresh_script)


class AMachine(fresh.Machine):
    """One whose packages and words are given, before and after each command."""

    def __init__(self, said: str, *packages: dict[str, str]) -> None:
        self.said = said
        self.packages = list(packages)

    def type(self, command: str, user: int = 0, fails: bool = False) -> str:
        return self.said

    def installed(self) -> dict[str, str]:
        return self.packages.pop(0)


class AMake(unittest.TestCase):
    BEFORE = {"libc6": "2.36", "qemu-utils": "10.0"}

    def assert_failed(self, machine: AMachine, because: str) -> None:
        with self.assertRaisesRegex(fresh.Failed, because):
            machine.make("run")

    def test_may_install_and_upgrade_what_it_names(self) -> None:
        after = {**self.BEFORE, "libc6": "2.37", "lld": "14", "libllvm14": "14"}
        said = "setup: installing: lld; with it: libllvm14; upgrading: libc6\n"
        self.assertEqual(AMachine(said, self.BEFORE, after).make("run"), said)

    def test_that_changes_a_package_without_a_word_is_a_failure(self) -> None:
        said = "setup: installing: lld\nrun: libllvm14\n"
        self.assert_failed(AMachine(said, self.BEFORE, {**self.BEFORE, "lld": "14", "libllvm14": "14"}), "changed libllvm14 without a word")
        self.assert_failed(AMachine(said, self.BEFORE, {**self.BEFORE, "libc6": "2.37"}), "changed libc6 without a word")

    def test_that_removes_a_package_is_a_failure_whatever_it_says(self) -> None:
        self.assert_failed(AMachine("setup: removing qemu-utils\n", self.BEFORE, {"libc6": "2.36"}), "removed qemu-utils")


class ACase(unittest.TestCase):
    def test_that_fails_leaves_the_logs_of_its_commands_and_no_root(self) -> None:
        with tempfile.TemporaryDirectory(prefix="vmwalk-fresh-") as folder:
            roots, log = Path(folder) / "roots", Path(folder) / "logs/typed.log"
            logs = roots / "debian-12" / fresh.CHECKOUT[1:] / "build" / "logs"
            logs.mkdir(parents=True)
            (logs / "gdb.log").write_text("why")
            with mock.patch.object(fresh, "ROOTS", roots), mock.patch.object(fresh, "Machine", side_effect=fresh.Failed("no")), self.assertRaises(fresh.Failed):
                fresh.run_case("debian-12", log)
            self.assertEqual((log.with_name("fresh-debian-12") / "gdb.log").read_text(), "why")
            self.assertFalse((roots / "debian-12").exists())


class TheScript(unittest.TestCase):
    def run_cases(self, *ends: Exception | None) -> tuple[int, list[str]]:
        """The status, and what is said, of as many cases as there are ends."""
        said = io.StringIO()
        names = list(fresh.CASES)[: len(ends)]
        with mock.patch.object(fresh_script, "run_case", side_effect=ends), mock.patch.object(fresh_script, "take_room"), mock.patch.object(Path, "read_text", return_value=""), contextlib.redirect_stdout(said):
            return fresh_script.main(names), said.getvalue().splitlines()

    def test_goes_on_behind_a_case_that_cannot_be_had(self) -> None:
        status, said = self.run_cases(fresh.Skipped("debootstrap trixie failed"), None)
        self.assertEqual(status, 0)
        self.assertRegex(said[0], "^fresh: [^ ]+: skipped: debootstrap trixie failed$")
        self.assertRegex(said[1], r"^fresh: [^ ]+: PASS \(\d+ s\)$")

    def test_has_a_status_of_its_own_where_none_can_be_had(self) -> None:
        self.assertEqual(self.run_cases(fresh.Skipped("no"), fresh.Skipped("no"))[0], fresh.Skipped.status)

    def test_fails_where_one_failed(self) -> None:
        self.assertEqual(self.run_cases(fresh.Failed("no"), fresh.Skipped("no"), None)[0], 1)


class TheRoom(unittest.TestCase):
    TAKE = """
import sys
from lib import fresh
fresh.ENOUGH_RAM = int(sys.argv[1])
fresh.take_room()
print(fresh.ROOTS.is_mount())
"""

    def taken(self, enough: int) -> bool:
        """Whether roots lie in RAM, where so much of it is enough; for others they never do."""
        with tempfile.TemporaryDirectory(prefix="vmwalk-fresh-") as folder:
            env = {**os.environ, "BUILD": folder, "PYTHONPATH": str(SCRIPTS)}
            command = [sys.executable, "-B", "-c", self.TAKE, str(enough)]
            said = subprocess.run(command, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True).stdout
            self.assertFalse((Path(folder) / "fresh/roots").is_mount())
        return said == "True\n"

    def test_is_in_ram_where_there_is_plenty(self) -> None:
        if subprocess.run(["unshare", "--mount", "true"], stderr=subprocess.DEVNULL, check=False).returncode != 0:
            self.skipTest("nothing can be mounted here")
        self.assertTrue(self.taken(1))

    def test_is_on_the_disk_where_ram_is_short(self) -> None:
        self.assertFalse(self.taken(1 << 60))


class TheStage(unittest.TestCase):
    def report(self, status: int, said: str) -> Report:
        report = Report()
        done = Finished(status, 1.0, Path("log"))
        with (
            mock.patch.object(stages, "run_logged", return_value=done),
            mock.patch.object(Finished, "last_line", return_value=said),
            contextlib.redirect_stdout(io.StringIO()),
        ):
            stages.fresh(report)
        return report

    def test_is_skipped_where_no_root_can_be_made(self) -> None:
        report = self.report(fresh.Skipped.status, "fresh: debian-12-run: skipped: debootstrap takes root")
        self.assertEqual((report.passed, report.failed, report.skipped), (0, 0, ["fresh: debian-12-run"]))

    def test_fails_where_one_was_made_and_a_command_failed(self) -> None:
        self.assertEqual(self.report(1, "fresh: debian-12-run: FAIL: `make run`").failed, 1)
        self.assertEqual(self.report(0, "fresh: debian-12-run: PASS (1 s)").passed, 1)


if __name__ == "__main__":
    unittest.main()
