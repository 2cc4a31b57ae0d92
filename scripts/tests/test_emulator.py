"""scripts/run as a process, with shell scripts in the emulator's place."""

import os
import signal
import subprocess
import tempfile
import time
import unittest
from pathlib import Path

RUN = Path(__file__).resolve().parents[1] / "run"

SUITE = r"""printf 'KTAP version 1\r\n1..1\r\nok 1 map\r\n# Totals: pass:1 fail:0 skip:0\r\nvmwalk: done\r\n'"""


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


class RunnerTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls) -> None:
        # A job in the background of a shell ignores SIGINT, and so would what is started here.
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        cls.addClassCleanup(signal.signal, signal.SIGINT, before)

    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory(prefix="vmwalk-test-")
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)

    def environment(self, body: str, **variables: str) -> dict[str, str]:
        """The environment of a run whose emulator is the shell script `body`."""
        emulator = self.folder / "emulator"
        emulator.write_text(f"#!/bin/sh\n{body}\n")
        emulator.chmod(0o755)
        machine = ("CPU", "SMP", "MEM", "GIC", "EL2", "BOOTARGS", "IMAGE", "INITRD")
        clean = {name: value for name, value in os.environ.items() if name not in machine}
        return {**clean, "QEMU": str(emulator), "TIMEOUT": "20", **variables}

    def run_with(self, body: str, *arguments: str, **variables: str) -> "subprocess.CompletedProcess[str]":
        environment = self.environment(body, **variables)
        return subprocess.run([RUN, *arguments], env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", timeout=30)

    def test_a_good_suite_exits_0_and_shows_the_output_and_a_verdict(self) -> None:
        done = self.run_with(SUITE)
        self.assertEqual(done.returncode, 0, done.stdout)
        self.assertIn("ok 1 map\n", done.stdout)
        self.assertRegex(done.stdout.splitlines()[-1], r"^run: PASS: 1 passed, 0 failed, 0 skipped \(.* s\)$")

    def test_it_passes_with_its_standard_input_closed(self) -> None:
        closed = subprocess.run(["sh", "-c", f"exec {RUN} <&-"], env=self.environment(SUITE), capture_output=True, timeout=30)
        self.assertEqual(closed.returncode, 0, closed.stdout)

    def test_an_emulator_that_ends_without_a_word_fails(self) -> None:
        self.assertEqual(self.run_with("exit 0").returncode, 1)
        self.assertEqual(self.run_with(SUITE, QEMU="/bin/true").returncode, 1)

    def test_an_emulator_that_is_not_there_fails(self) -> None:
        done = self.run_with(SUITE, QEMU="/no/such/emulator")
        self.assertEqual(done.returncode, 1)
        self.assertEqual(done.stderr, "run: /no/such/emulator: no such program\n")

    def test_an_emulator_that_fails_or_is_killed_after_a_good_suite_fails(self) -> None:
        self.assertIn("status 3", self.run_with(SUITE + "; exit 3").stdout)
        killed = self.run_with(SUITE + "; kill -KILL $$")
        self.assertEqual(killed.returncode, 1)
        self.assertIn("signal 9", killed.stdout)

    def test_what_the_emulator_says_on_standard_error_is_shown(self) -> None:
        done = self.run_with("echo 'Invalid SMP CPUs 9' >&2; exit 1")
        self.assertEqual(done.returncode, 1)
        self.assertIn("Invalid SMP CPUs 9", done.stdout)

    def test_standard_error_is_no_part_of_the_suite(self) -> None:
        self.assertEqual(self.run_with(SUITE + ">&2").returncode, 1)

    def test_a_kernel_that_falls_silent_is_killed_and_fails(self) -> None:
        done = self.run_with(f"echo $$ >{self.folder}/pid; echo up; exec sleep 60", TIMEOUT="0.5")
        self.assertEqual(done.returncode, 1)
        self.assertIn("no output for 0.5 s", done.stdout)
        self.assertFalse(is_alive(int((self.folder / "pid").read_text())))

    def test_output_that_keeps_coming_is_not_silence_but_ends_at_the_limit(self) -> None:
        done = self.run_with("while :; do echo up; sleep 0.1; done", "--limit", "1.5", TIMEOUT="0.8")
        self.assertEqual(done.returncode, 1)
        self.assertIn("still running after 1.5 s", done.stdout)

    def test_a_last_line_without_its_newline_is_still_read(self) -> None:
        done = self.run_with(SUITE + "; printf 'vmwalk: FATAL: data abort'")
        self.assertEqual(done.returncode, 1)
        self.assertIn("\nrun: vmwalk: FATAL: data abort\n", done.stdout)

    def test_bytes_that_are_no_text_do_not_stop_the_reading(self) -> None:
        self.assertEqual(self.run_with(r"printf '\377\000\n'; " + SUITE).returncode, 0)

    def test_output_is_shown_as_it_comes(self) -> None:
        environment = self.environment("echo first; sleep 20")
        with subprocess.Popen([RUN], env=environment, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout
            started = time.monotonic()
            shown = [process.stdout.readline(), process.stdout.readline()]
            waited = time.monotonic() - started
            process.send_signal(signal.SIGINT)
            process.wait(60)
        self.assertEqual(shown[1], "first\n")
        self.assertLess(waited, 10)

    def test_a_signal_to_the_runner_ends_the_emulator(self) -> None:
        for number, status in ((signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)):
            with self.subTest(signal=number):
                environment = self.environment("echo $$; exec sleep 60")
                with subprocess.Popen([RUN], env=environment, stdout=subprocess.PIPE, text=True) as process:
                    assert process.stdout
                    process.stdout.readline()
                    pid = int(process.stdout.readline())
                    process.send_signal(number)
                    process.wait(60)
                self.assertEqual(process.returncode, status)
                self.assertFalse(is_alive(pid))

    def test_a_reader_that_goes_away_does_not_change_the_verdict(self) -> None:
        environment = self.environment("sleep 0.5; " + SUITE + "; sleep 0.2; echo late")
        with subprocess.Popen([RUN], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            assert process.stdout and process.stderr
            process.stdout.close()
            errors = process.stderr.read()
        self.assertEqual((process.returncode, errors), (0, b""))

    def test_a_log_keeps_what_was_shown(self) -> None:
        log = self.folder / "boot.log"
        done = self.run_with(SUITE, "--log", str(log))
        self.assertEqual(log.read_bytes().decode().replace("\r\n", "\n"), done.stdout)

    def test_quiet_shows_the_verdict_only(self) -> None:
        self.assertRegex(self.run_with(SUITE, "--quiet").stdout, r"\Arun: PASS: .*\n\Z")

    def test_a_planted_fault_that_is_caught_passes_and_one_that_is_missed_fails(self) -> None:
        failing = SUITE.replace("ok 1 map", "not ok 1 map").replace("pass:1 fail:0", "pass:0 fail:1")
        self.assertEqual(self.run_with(failing).returncode, 1)
        self.assertEqual(self.run_with(failing, "--expect-fail", "map").returncode, 0)
        self.assertEqual(self.run_with(failing, "--expect-fail", "stale").returncode, 1)
        self.assertEqual(self.run_with(SUITE, "--expect-fail", "map").returncode, 1)

    def test_a_refusal_is_passed_only_when_it_was_expected(self) -> None:
        refusal = "echo 'vmwalk: bad boot argument `x`'"
        self.assertEqual(self.run_with(refusal).returncode, 1)
        self.assertEqual(self.run_with(refusal, "--expect-message", "bad boot argument `x`").returncode, 0)

    def test_no_test_is_expected_only_when_none_was_asked_for(self) -> None:
        self.assertEqual(self.run_with("echo 'vmwalk: done'").returncode, 1)
        self.assertEqual(self.run_with("echo 'vmwalk: done'", BOOTARGS="selftest=none").returncode, 0)

    def test_a_bad_setting_is_told_before_anything_starts(self) -> None:
        for name, value in (("EL2", "yes"), ("TIMEOUT", "soon"), ("TIMEOUT", "-1"), ("TIMEOUT", "nan")):
            with self.subTest(name=name, value=value):
                done = self.run_with(SUITE, **{name: value})
                self.assertEqual((done.returncode, done.stdout), (2, ""))
                self.assertIn(f"run: {name} is", done.stderr)


if __name__ == "__main__":
    unittest.main()
