"""The counting of `make test`: what cannot be counted must not pass."""

import contextlib
import io
import os
import re
import subprocess
import tempfile
import threading
import time
import unittest
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from unittest import mock

from lib import cases, stages
from lib.cases import Finished
from lib.matrix import ODD_IMAGE_AT, RAW_DTB_AT, WRONG_WALKERS, BootCase, boot_matrix, broken_entries, of_firmware, planted_faults, refusals, rejected_runs
from lib.report import Outcome, Report

SCRIPTS = Path(__file__).resolve().parents[1]
SPEC = spec_from_loader("test_script", SourceFileLoader("test_script", str(SCRIPTS / "test")))
assert SPEC and SPEC.loader
test_script = module_from_spec(SPEC)
SPEC.loader.exec_module(test_script)


class WithFolder(unittest.TestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory(prefix="vmwalk-test-")
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        patched = mock.patch.object(cases, "LOGS", self.folder)
        patched.start()
        self.addCleanup(patched.stop)

    def finished(self, text: str, status: int = 0) -> Finished:
        log = self.folder / "some.log"
        log.write_text(text)
        return Finished(status, 1.0, log)


class HostTestCounts(WithFolder):
    def counts(self, outcome: Outcome) -> tuple[int, int, bool]:
        return outcome.passed, outcome.failed, outcome.good

    def test_of_nextest_come_from_its_summary(self) -> None:
        line = "     Summary [   0.010s] {}\n"
        for words, status, expected in (
            ("3 tests run: 3 passed, 0 skipped", 0, (3, 0, True)),
            ("3 tests run: 2 passed, 1 failed, 4 skipped", 100, (2, 1, False)),
            ("4 tests run: 1 passed (1 slow), 1 failed, 2 timed out, 0 skipped", 100, (1, 3, False)),
        ):
            with self.subTest(words=words):
                self.assertEqual(self.counts(stages.count_nextest(self.finished(line.format(words), status))), expected)

    def test_of_libtest_are_summed_over_the_crates(self) -> None:
        line = "test result: {}. {} passed; {} failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s\n"
        good = line.format("ok", 3, 0) + line.format("ok", 2, 0)
        self.assertEqual(self.counts(stages.count_libtest(self.finished(good))), (5, 0, True))
        bad = line.format("ok", 3, 0) + line.format("FAILED", 1, 2)
        self.assertEqual(self.counts(stages.count_libtest(self.finished(bad, 101))), (4, 2, False))

    def test_of_unittest_take_off_what_failed(self) -> None:
        self.assertEqual(self.counts(stages.count_unittest(self.finished("Ran 9 tests in 1s\n\nOK\n"))), (9, 0, True))
        text = "Ran 9 tests in 1s\n\nFAILED (failures=1, errors=2)\n"
        self.assertEqual(self.counts(stages.count_unittest(self.finished(text, 1))), (6, 3, False))

    def test_of_unittest_take_off_what_was_skipped(self) -> None:
        outcome = stages.count_unittest(self.finished("Ran 9 tests in 1s\n\nOK (skipped=2)\n"))
        self.assertEqual(self.counts(outcome), (7, 0, True))
        self.assertEqual(outcome.note, "7 passed, 2 ignored")

    def test_of_a_command_that_failed_to_build_are_one_failure(self) -> None:
        for count in (stages.count_nextest, stages.count_libtest, stages.count_unittest):
            self.assertEqual(self.counts(count(self.finished("error: could not compile\n", 101))), (0, 1, False))

    def test_of_zero_tests_are_no_success(self) -> None:
        for count in (stages.count_nextest, stages.count_libtest, stages.count_unittest):
            self.assertFalse(count(self.finished("no tests here\n")).good)


class AReport(unittest.TestCase):
    def setUp(self) -> None:
        self.report = Report()
        self.output = io.StringIO()
        redirected = contextlib.redirect_stdout(self.output)
        redirected.__enter__()
        self.addCleanup(redirected.__exit__, None, None, None)

    def test_sums_up_what_it_was_given(self) -> None:
        self.report.add("host", Outcome(40, 0, 1.0))
        self.report.add("boot", Outcome.of(True, 1.0))
        self.assertEqual((self.report.closing(), self.report.good), ("41 passed, 0 failed", True))
        self.report.add("host", Outcome(3, 2, 1.0))
        self.assertEqual((self.report.closing(), self.report.good), ("44 passed, 2 failed", False))

    def test_counts_a_case_of_zero_tests_as_a_failure(self) -> None:
        self.report.add("host", Outcome(0, 0, 1.0))
        self.assertEqual(self.report.closing(), "0 passed, 1 failed")

    def test_counts_a_stage_without_cases_as_a_failure(self) -> None:
        with self.report.stage("boot"):
            pass
        self.assertEqual(self.report.closing(), "0 passed, 1 failed")

    def test_of_nothing_is_not_good(self) -> None:
        self.assertFalse(self.report.good)
        self.report.skip("miri", "no nightly")
        self.assertFalse(self.report.good)

    def test_tells_what_was_skipped_and_why(self) -> None:
        with self.report.stage("miri"):
            self.report.skip("miri: paging", "no nightly")
        self.assertIn("skip miri: paging: no nightly", self.output.getvalue())
        self.assertEqual(self.report.skipped, ["miri: paging"])
        self.assertEqual(self.report.failed, 0)

    def test_shows_the_end_of_a_failed_cases_log(self) -> None:
        with tempfile.NamedTemporaryFile("w", suffix=".log") as log:
            log.write("".join(f"line {i}\n" for i in range(100)))
            log.flush()
            self.report.add("lint", Outcome.of(False, 1.0, log=Path(log.name)))
        self.assertIn("| line 99\n", self.output.getvalue())
        self.assertNotIn("| line 9\n", self.output.getvalue())


class StagesAtOnce(WithFolder):
    """`scripts/test` runs as many stages at once as JOBS says, and as many commands."""

    def test_count_their_own_cases(self) -> None:
        report, both = Report(), threading.Barrier(2)

        def busy() -> None:
            with report.stage("busy"):
                both.wait()
                report.add("busy: a case", Outcome.of(True, 1.0))
                both.wait()

        with contextlib.redirect_stdout(io.StringIO()) as output:
            other = threading.Thread(target=busy)
            other.start()
            with report.stage("idle"):
                both.wait()
                both.wait()
            other.join()
        self.assertIn("FAIL idle (0.0 s): the stage ran nothing", output.getvalue())
        self.assertEqual(report.closing(), "1 passed, 1 failed")

    def test_run_no_more_commands_than_jobs(self) -> None:
        marks = self.folder / "marks"
        command = ["sh", "-c", f"echo + >>{marks}; sleep 0.2; echo - >>{marks}"]
        for jobs in (1, 2):
            marks.write_text("")
            cases.slots.cache_clear()
            self.addCleanup(cases.slots.cache_clear)
            with mock.patch.dict("os.environ", {"JOBS": str(jobs)}):
                threads = [threading.Thread(target=cases.run_logged, args=(f"marks {n}", command, 20.0)) for n in range(5)]
                for thread in threads:
                    thread.start()
                for thread in threads:
                    thread.join()
            running = [0]
            for mark in marks.read_text().split():
                running.append(running[-1] + (1 if mark == "+" else -1))
            self.assertEqual((len(running), max(running)), (11, jobs))

    def test_make_once_what_several_want(self) -> None:
        made, both = [], threading.Barrier(2)

        def make() -> int:
            made.append(1)
            time.sleep(0.1)
            return len(made)

        get = stages.made_once(make)

        def want() -> None:
            both.wait()
            found.append(get())

        found: list[int] = []
        threads = [threading.Thread(target=want) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual((found, made), ([1, 1], [1]))


class ACommand(WithFolder):
    def test_past_its_limit_is_ended_with_all_that_it_started(self) -> None:
        child = self.folder / "child"
        done = cases.run_logged("slow", ["sh", "-c", f"sleep 60 & echo $! >{child}; wait"], 0.5)
        self.assertTrue(done.timed_out)
        self.assertFalse(done.good)
        self.assertIn("ended after 0.5 s", done.text())
        pid = child.read_text().strip()
        deadline = time.monotonic() + 5
        while Path(f"/proc/{pid}").exists() and time.monotonic() < deadline:
            if "\nState:\tZ" in Path(f"/proc/{pid}/status").read_text():
                break
            time.sleep(0.02)
        else:
            self.assertFalse(Path(f"/proc/{pid}").exists())

    def test_that_fails_is_not_good(self) -> None:
        self.assertFalse(cases.run_logged("false", ["false"], 10).good)
        self.assertTrue(cases.run_logged("true", ["true"], 10).good)

    def test_does_not_see_the_callers_machine(self) -> None:
        with mock.patch.dict(os.environ, {"BOOTARGS": "selftest=none", "SMP": "8", "TIMEOUT": "7"}):
            done = cases.run_logged("env", ["env"], 10, {"SMP": "2"})
        lines = done.text().splitlines()
        self.assertIn("SMP=2", lines)
        self.assertIn("TIMEOUT=7", lines)
        self.assertFalse([line for line in lines if line.startswith("BOOTARGS=")])


class BootCases(WithFolder):
    TREE = bytes.fromhex("d00dfeed") + bytes(range(1, 201)) * 10 + bytes(5000)

    def all_cases(self) -> list[BootCase]:
        broken = [entry.boot(Path("broken.dtb")) for entry in broken_entries(self.TREE)]
        return boot_matrix(Path("initrd"), Path("virt.dtb")) + broken + refusals() + rejected_runs() + planted_faults() + of_firmware()

    def test_have_names_and_logs_of_their_own(self) -> None:
        names = [case.name for case in self.all_cases()]
        self.assertEqual(len(set(names)), len(names))
        self.assertEqual(len({cases.log_path(name) for name in names}), len(names))

    def test_set_only_variables_that_the_runner_knows(self) -> None:
        for case in self.all_cases():
            self.assertLessEqual(set(case.variables), {*cases.MACHINE_VARIABLES, "QEMU", "TIMEOUT"}, case.name)

    def test_of_a_run_to_be_rejected_pass_only_for_the_right_reason(self) -> None:
        def outcome(fails_with: str) -> Outcome:
            return stages.boot_case("unit", BootCase("silent", {"QEMU": "/bin/true"}, fails_with=fails_with))

        self.assertTrue(outcome("nothing was printed").good)
        self.assertFalse(outcome("no test was selected").good)
        self.assertFalse(stages.boot_case("unit", BootCase("silent", {"QEMU": "/bin/true"})).good)

    def test_are_left_out_where_the_emulator_says_that_the_host_has_too_little(self) -> None:
        large = BootCase("2T of RAM", takes="cannot set up guest memory")

        def report(text: str, case: BootCase = large) -> tuple[int, list[str]]:
            told = Report()
            outcome = Outcome.of(False, 1.0, log=self.finished(text, 1).log)
            with mock.patch.object(stages, "boot_case", return_value=outcome), contextlib.redirect_stdout(io.StringIO()) as said:
                stages.boot_all(told, "boot", [case])
            self.assertEqual("skip boot: 2T of RAM: qemu: cannot" in said.getvalue(), bool(told.skipped))
            return told.failed, told.skipped

        lines = [
            "run: the emulator exited with status 1: qemu: cannot set up guest memory 'ram': no memory",
            "run: no `vmwalk: done`: nothing was printed",
            "run: FAIL",
        ]
        self.assertEqual(report("\n".join(lines)), (0, ["boot: 2T of RAM"]))
        self.assertEqual(report("\n".join(lines), BootCase("2T of RAM")), (1, []), "a case that says nothing of it")
        self.assertEqual(report("\n".join(lines[::2])), (1, []), "the kernel had a word")
        self.assertEqual(report("\n".join(["run: the emulator exited with status 1: qemu: no such CPU", *lines[1:]])), (1, []))
        self.assertEqual(report("vmwalk: " + "\n".join([lines[0].removeprefix("run: "), *lines[1:]])), (1, []), "said by the kernel")

    def test_of_broken_entries_break_one_thing_each(self) -> None:
        sound = (self.TREE, RAW_DTB_AT, ODD_IMAGE_AT, ())
        for entry in broken_entries(self.TREE):
            given = (entry.dtb, entry.dtb_at, entry.image_at, entry.extra)
            differences = sum(one != other for one, other in zip(sound, given, strict=True))
            # A pointer to nowhere comes with no tree there.
            self.assertIn(differences, (1, 2) if entry.dtb is None else (1,), entry.name)


class AWrongWalker(WithFolder):
    SAYS = r"page 15 is Some\(.*\), not 0x"
    REFUSAL = "bench: FAIL: vmwalk: FATAL: CPU 0 panicked at engine.rs:1:2: vmap 16, w: page 15 is Some((pa:0x1000, L3)), not 0x2000\n"

    def outcome(self, text: str, status: int, walker: str = "w", figures: bool = False) -> bool:
        def run(*_: object) -> Finished:
            if figures:
                (self.folder / "test" / "bench" / walker).mkdir(parents=True)
            return self.finished(text, status)

        with mock.patch.object(stages, "BUILD", self.folder), mock.patch.object(stages, "run_logged", run):
            return stages.refused_walker(walker, "vmap 16", self.SAYS).good

    def test_passes_as_refused_when_it_is_named_with_what_it_did(self) -> None:
        self.assertTrue(self.outcome(self.REFUSAL, 1))

    def test_that_gets_its_numbers_is_a_failure(self) -> None:
        self.assertFalse(self.outcome("bench: 1 cases, 0 curves\n", 0))
        self.assertFalse(self.outcome(self.REFUSAL, 0))
        self.assertFalse(self.outcome(self.REFUSAL, 1, figures=True))

    def test_that_is_refused_for_another_reason_or_in_anothers_place_is_a_failure(self) -> None:
        self.assertFalse(self.outcome("bench: FAIL: no case matches BENCH='vmap 16'\n", 1))
        self.assertFalse(self.outcome(self.REFUSAL.replace("15", "14"), 1))
        self.assertFalse(self.outcome(self.REFUSAL, 1, walker="another"))

    def test_has_a_case_for_each_that_the_kernel_has(self) -> None:
        source = (SCRIPTS.parent / "kernel/harness/src/wrong_walkers.rs").read_text()
        names = re.findall(r"^    [A-Z]\w+, \"([a-z-]+)\", ", source, re.MULTILINE)
        self.assertEqual(sorted(names), sorted(WRONG_WALKERS))


class HostTests(WithFolder):
    def test_have_one_round_whatever_make_says_of_soak(self) -> None:
        with (
            mock.patch.dict(os.environ, {"SOAK": "20"}),
            mock.patch.object(stages, "run_logged", return_value=self.finished("", 0)) as run,
            contextlib.redirect_stdout(io.StringIO()),
        ):
            stages.host(Report())
        tests = [call.args for call in run.call_args_list if "--version" not in call.args[1]]
        self.assertEqual([arguments[3]["SOAK"] for arguments in tests], ["1"] * 3)


class AnotherToolchain(WithFolder):
    def test_is_that_which_setup_chose_in_a_fresh_root(self) -> None:
        log = self.folder / "typed.log"
        self.assertEqual(stages.toolchains(log), [])
        log.write_text("setup: installing: make\nsetup: toolchain: distro (build/toolchain-distro.env)\ntoolchain: rustup\n")
        self.assertEqual(stages.toolchains(log), ["distro"])

    def built(self, *booted: str) -> list[str]:
        """The toolchains that the stage `variants` builds with."""
        report = Report()
        with (
            mock.patch.object(stages, "booted_by", set(booted)),
            mock.patch.dict(os.environ, {"TOOLCHAIN": "rustup"}),
            mock.patch.object(stages, "without_harness"),
            mock.patch.object(stages, "boot_all"),
            mock.patch.object(stages, "run_logged", return_value=self.finished("", 0)),
            mock.patch.object(stages, "build_and_boot", return_value=False) as build,
            contextlib.redirect_stdout(io.StringIO()),
        ):
            stages.variants(report)
        self.assertEqual(len(report.skipped), len(booted))
        return [call.args[2]["TOOLCHAIN"] for call in build.call_args_list if "TOOLCHAIN" in call.args[2]]

    def test_is_built_with_where_no_fresh_root_was(self) -> None:
        self.assertEqual(self.built(), ["distro"])
        self.assertEqual(self.built("distro"), [])


class TheStages(unittest.TestCase):
    def test_run_all_when_none_is_named_and_in_their_order_otherwise(self) -> None:
        self.assertEqual(test_script.selected_stages(""), list(stages.STAGES))
        self.assertEqual(test_script.selected_stages("boot, lint"), ["lint", "boot"])

    def test_refuse_a_name_that_there_is_not(self) -> None:
        done = subprocess.run([SCRIPTS / "test"], env={**os.environ, "STAGES": "lint,boots"}, capture_output=True, text=True)
        self.assertEqual(done.returncode, 2)
        self.assertIn("no such stage: boots", done.stderr)


if __name__ == "__main__":
    unittest.main()
