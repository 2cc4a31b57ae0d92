"""Every rule of the verdict, with a transcript that breaks it and nothing else."""

import unittest

from lib.ktap import End, EndKind, Expectation, Verdict, judge, read_transcript

GOOD = """\
[    0.000000] vmwalk 0.1.0 on cortex-a72
KTAP version 1
1..3
# seed 1
ok 1 map_one_page
# took 12 walks
ok 2 ecam_shows_the_host_bridge # SKIP no ECAM window in the device tree
ok 3 unmap_faults_at_level_3
# Totals: pass:2 fail:0 skip:1
vmwalk: done
"""

PLANTED = """\
KTAP version 1
1..2
ok 1 map_one_page
# page 3: AT S1E1R gives 0x41003000, the table says 0x41004000 (wrong output)
not ok 2 group_of_16
# Totals: pass:1 fail:1 skip:0
vmwalk: done
"""

BAD_ARGUMENT = """\
[    0.000000] vmwalk 0.1.0
vmwalk: bad boot argument `linear=5k`: 4k or nothing
"""

POWERED_OFF = End(EndKind.EXITED)


def verdict(log: str, end: End = POWERED_OFF, expected: Expectation = Expectation()) -> Verdict:
    return judge(read_transcript(log.splitlines(keepends=True)), end, expected)


class VerdictTest(unittest.TestCase):
    def assert_fails(self, log: str, because: str, end: End = POWERED_OFF, expected: Expectation = Expectation()) -> None:
        """Fails, and for this reason alone: a second rule would hide that the first is broken."""
        given = verdict(log, end, expected)
        self.assertFalse(given.passed)
        self.assertEqual(len(given.reasons), 1, given.reasons)
        self.assertIn(because, given.reasons[0])


class ARun(VerdictTest):
    def test_that_is_complete_and_orderly_passes(self) -> None:
        given = verdict(GOOD)
        self.assertEqual((given.passed, given.summary, given.reasons), (True, "2 passed, 0 failed, 1 skipped", ()))

    def test_with_carriage_returns_passes(self) -> None:
        self.assertTrue(verdict(GOOD.replace("\n", "\r\n")).passed)

    def test_with_a_failing_test_fails(self) -> None:
        self.assert_fails(PLANTED, "not ok 2 group_of_16")

    def test_with_a_failing_test_marked_as_skipped_fails(self) -> None:
        log = PLANTED.replace("group_of_16", "group_of_16 # SKIP")
        self.assert_fails(log, "not ok 2 group_of_16 # SKIP")

    def test_that_selected_no_test_fails(self) -> None:
        self.assert_fails("KTAP version 1\n1..0\n# Totals: pass:0 fail:0 skip:0\nvmwalk: done\n", "no test was selected")

    def test_that_skipped_every_test_fails(self) -> None:
        log = "KTAP version 1\n1..1\nok 1 a # SKIP no device\n# Totals: pass:0 fail:0 skip:1\nvmwalk: done\n"
        self.assert_fails(log, "every test was skipped")

    def test_without_a_version_line_fails(self) -> None:
        self.assert_fails(GOOD.replace("KTAP version 1\n", ""), "a plan without `KTAP version 1`")

    def test_with_two_version_lines_fails(self) -> None:
        self.assert_fails(GOOD.replace("KTAP version 1\n", "KTAP version 1\n" * 2), "a second `KTAP version` line")

    def test_without_a_plan_fails(self) -> None:
        given = verdict(GOOD.replace("1..3\n", ""))
        self.assertFalse(given.passed)
        self.assertIn("no plan", given.reasons)

    def test_with_a_plan_of_more_tests_than_ran_fails(self) -> None:
        self.assert_fails(GOOD.replace("1..3", "1..4"), "planned 4 tests, got 3 results")

    def test_with_a_plan_of_fewer_tests_than_ran_fails(self) -> None:
        self.assert_fails(GOOD.replace("1..3", "1..2"), "planned 2 tests, got 3 results")

    def test_with_two_plans_fails(self) -> None:
        self.assert_fails(GOOD.replace("1..3\n", "1..3\n1..3\n"), "a second plan")

    def test_with_a_plan_after_its_results_fails(self) -> None:
        log = GOOD.replace("1..3\n", "").replace("# Totals", "1..3\n# Totals")
        given = verdict(log)
        self.assertFalse(given.passed)
        self.assertIn("the plan came after the first result", given.reasons)

    def test_with_a_result_before_the_plan_fails(self) -> None:
        log = GOOD.replace("1..3\n", "").replace("ok 2", "1..3\nok 2")
        self.assertIn("result 1 before the plan", verdict(log).reasons)

    def test_with_a_missing_result_fails(self) -> None:
        log = GOOD.replace("# took 12 walks\nok 2 ecam_shows_the_host_bridge # SKIP no ECAM window in the device tree\n", "")
        self.assertIn("result 3 where 2 was due", verdict(log).reasons)

    def test_with_a_repeated_result_fails(self) -> None:
        log = GOOD.replace("ok 3", "ok 2")
        self.assert_fails(log, "result 2 where 3 was due")

    def test_with_results_out_of_order_fails(self) -> None:
        log = GOOD.replace("ok 2", "ok X").replace("ok 3", "ok 2").replace("ok X", "ok 3")
        self.assertIn("result 3 where 2 was due", verdict(log).reasons)

    def test_that_does_not_begin_with_result_1_fails(self) -> None:
        log = "KTAP version 1\n1..1\nok 2 a\n# Totals: pass:1 fail:0 skip:0\nvmwalk: done\n"
        self.assert_fails(log, "result 2 where 1 was due")

    def test_with_a_result_that_cannot_be_read_fails(self) -> None:
        for line in ("not ok\n", "ok\n", "not ok map_one_page\n", "    not ok 1 nested\n", "ok 4\n"):
            with self.subTest(line=line):
                self.assert_fails(GOOD.replace("# Totals", line + "# Totals"), "malformed result")

    def test_with_a_result_after_the_totals_fails(self) -> None:
        log = GOOD.replace("1..3", "1..4").replace("skip:1\n", "skip:1\nok 4 late\n").replace("pass:2", "pass:3")
        self.assert_fails(log, "result 4 after the totals")

    def test_with_a_result_after_its_end_fails(self) -> None:
        given = verdict(GOOD + "not ok 4 late\n")
        self.assertFalse(given.passed)
        self.assertIn("result 4 after `vmwalk: done`", given.reasons)

    def test_that_runs_the_suite_twice_fails(self) -> None:
        self.assertIn("a version line after `vmwalk: done`", verdict(GOOD + GOOD).reasons)

    def test_without_totals_fails(self) -> None:
        self.assert_fails(GOOD.replace("# Totals: pass:2 fail:0 skip:1\n", ""), "no totals")

    def test_with_totals_that_disagree_with_the_lines_fails(self) -> None:
        for totals in ("pass:3 fail:0 skip:0", "pass:2 fail:1 skip:1", "pass:2 fail:0 skip:0"):
            with self.subTest(totals=totals):
                self.assert_fails(GOOD.replace("pass:2 fail:0 skip:1", totals), f"totals say {totals}")

    def test_with_totals_that_cannot_be_read_fails(self) -> None:
        given = verdict(GOOD.replace("pass:2 fail:0 skip:1", "pass:2"))
        self.assertFalse(given.passed)
        self.assertIn("malformed totals: # Totals: pass:2", given.reasons)

    def test_with_two_lines_of_totals_fails(self) -> None:
        totals = "# Totals: pass:2 fail:0 skip:1\n"
        self.assert_fails(GOOD.replace(totals, totals * 2), "a second line of totals")

    def test_without_its_end_line_fails(self) -> None:
        self.assert_fails(GOOD.replace("vmwalk: done\n", ""), "no `vmwalk: done`: the last line was: # Totals")

    def test_that_breaks_off_is_told_by_its_last_line_with_words(self) -> None:
        self.assert_fails(GOOD.replace("vmwalk: done\n", "\n \n"), "the last line was: # Totals")

    def test_with_two_end_lines_fails(self) -> None:
        self.assert_fails(GOOD + "vmwalk: done\n", "a second end line")

    def test_that_said_nothing_fails(self) -> None:
        given = verdict("")
        self.assertFalse(given.passed)
        self.assertIn("no `vmwalk: done`: nothing was printed", given.reasons)

    def test_that_breaks_off_fails_at_whatever_line(self) -> None:
        lines = GOOD.splitlines(keepends=True)
        for kept in range(len(lines)):
            with self.subTest(kept=kept):
                self.assertFalse(verdict("".join(lines[:kept])).passed)

    def test_with_a_fatal_line_fails(self) -> None:
        self.assert_fails(GOOD.replace("ok 3", "vmwalk: FATAL: panicked at lib.rs\nok 3"), "vmwalk: FATAL: panicked")

    def test_with_a_fatal_line_in_the_middle_of_another_fails(self) -> None:
        self.assert_fails(GOOD + "[    1.2] map vmwalk: FATAL: data abort", "vmwalk: FATAL: data abort")

    def test_that_refused_a_boot_argument_fails(self) -> None:
        self.assert_fails(BAD_ARGUMENT.splitlines()[1] + "\n" + GOOD, "vmwalk: bad boot argument")

    def test_that_passed_over_boot_arguments_passes_and_says_so(self) -> None:
        given = verdict("vmwalk: warning: no boot arguments of this kernel, passed over: quiet sed=1 (`help` lists those it has)\n" + GOOD)
        self.assertEqual((given.passed, given.summary), (True, "2 passed, 0 failed, 1 skipped; passed over: quiet sed=1"))

    def test_whose_emulator_did_not_end_well_fails(self) -> None:
        for end, because in (
            (End(EndKind.EXITED, 1), "exited with status 1"),
            (End(EndKind.EXITED, -11), "died of signal 11"),
            (End(EndKind.SILENT, detail="60 s"), "no output for 60 s"),
            (End(EndKind.OVERLONG, detail="900 s"), "still running after 900 s"),
            (End(EndKind.LINGERED, detail="10 s"), "still running 10 s after `vmwalk: done`"),
        ):
            with self.subTest(end=end):
                self.assert_fails(GOOD, because, end)


class ARunWithoutTests(VerdictTest):
    EXPECTED = Expectation(tests=False)

    def test_passes_when_it_ends_in_order(self) -> None:
        self.assertTrue(verdict("[    0.1] up\nvmwalk: done\n", expected=self.EXPECTED).passed)
        empty = "KTAP version 1\n1..0\n# Totals: pass:0 fail:0 skip:0\nvmwalk: done\n"
        self.assertTrue(verdict(empty, expected=self.EXPECTED).passed)

    def test_fails_when_tests_ran(self) -> None:
        self.assert_fails(GOOD, "though no test was asked for", expected=self.EXPECTED)

    def test_fails_when_it_does_not_end(self) -> None:
        self.assert_fails("[    0.1] up\n", "no `vmwalk: done`", expected=self.EXPECTED)

    def test_fails_when_a_suite_goes_on_after_the_end(self) -> None:
        self.assert_fails("KTAP version 1\nvmwalk: done\n1..0\n", "a plan after", expected=self.EXPECTED)
        self.assert_fails("vmwalk: done\n# Totals: pass:0 fail:0 skip:0\n", "totals after", expected=self.EXPECTED)


class APlantedFault(VerdictTest):
    def test_is_caught_by_a_failing_test_that_names_it(self) -> None:
        for pattern in ("group_of_16", r"wrong output"):
            with self.subTest(pattern=pattern):
                self.assertTrue(verdict(PLANTED, expected=Expectation(failing=pattern)).passed)

    def test_is_missed_when_all_tests_pass(self) -> None:
        self.assert_fails(GOOD, "not noticed", expected=Expectation(failing="map_one_page"))

    def test_is_missed_when_an_unrelated_test_fails(self) -> None:
        self.assert_fails(PLANTED, "none that names /stale/", expected=Expectation(failing="stale"))

    def test_is_missed_when_only_a_passing_test_or_a_log_line_names_it(self) -> None:
        log = "[    0.0] planted fault: leak-table\n# leak-table\n" + PLANTED.replace("map_one_page", "leak-table")
        self.assert_fails(log, "none that names /leak-table/", expected=Expectation(failing="leak-table"))

    def test_is_not_caught_by_a_panic(self) -> None:
        self.assert_fails(PLANTED + "vmwalk: FATAL: group_of_16", "FATAL", expected=Expectation(failing="group_of_16"))

    def test_is_not_caught_by_a_hang(self) -> None:
        silent = End(EndKind.SILENT, detail="60 s")
        self.assert_fails(PLANTED, "no output for 60 s", silent, Expectation(failing="group_of_16"))

    def test_is_not_caught_by_a_suite_that_is_cut_short(self) -> None:
        log = PLANTED.replace("1..2", "1..3")
        self.assert_fails(log, "planned 3 tests, got 2 results", expected=Expectation(failing="group_of_16"))


class BadInput(VerdictTest):
    EXPECTED = Expectation(message=r"bad boot argument .*linear=5k")

    def test_is_refused_by_a_clear_message_and_a_power_off(self) -> None:
        self.assertTrue(verdict(BAD_ARGUMENT, expected=self.EXPECTED).passed)

    def test_is_not_refused_by_silence(self) -> None:
        self.assert_fails("[    0.0] vmwalk\n", "no message that matches", expected=self.EXPECTED)

    def test_is_not_refused_by_some_other_message(self) -> None:
        self.assert_fails("vmwalk: FATAL: data abort\n", "it said: vmwalk: FATAL: data abort", expected=self.EXPECTED)

    def test_is_not_refused_when_the_suite_runs(self) -> None:
        self.assert_fails(BAD_ARGUMENT + GOOD, "the suite ran all the same", expected=self.EXPECTED)

    def test_is_not_refused_by_a_hang_after_the_message(self) -> None:
        silent = End(EndKind.SILENT, detail="60 s")
        self.assert_fails(BAD_ARGUMENT, "no output for 60 s", silent, self.EXPECTED)

    def test_may_end_in_silence_only_where_that_was_said_and_only_after_the_message(self) -> None:
        silent = End(EndKind.SILENT, detail="5 s")
        parking = Expectation(message="entered at EL3", may_park=True)
        self.assertTrue(verdict("vmwalk: FATAL: entered at EL3\n", silent, parking).passed)
        self.assertTrue(verdict("vmwalk: FATAL: entered at EL3\n", POWERED_OFF, parking).passed)
        self.assert_fails("[    0.0] vmwalk\n", "no message that matches", silent, parking)
        self.assert_fails("vmwalk: FATAL: entered at EL3\n", "died of signal 6", End(EndKind.EXITED, -6), parking)


if __name__ == "__main__":
    unittest.main()
