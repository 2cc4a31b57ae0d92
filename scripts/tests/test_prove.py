"""What counts as proven: a proof that shows nothing must not pass. The solvers here are made up, and count bits of small numbers."""

import shutil
import subprocess
import sys
import tempfile
import unittest
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any
from unittest import mock

from lib import litmus, stages
from lib.cases import Finished
from lib.errors import ScriptError
from lib.proofs.claim import Case, Claim, Mutant, Obligation, Result, Unproven, judge, prove
from lib.proofs.protocol import mutants
from lib.report import Report

SCRIPTS = Path(__file__).resolve().parents[1]
Formula = Callable[[int], bool]


class Numbers:
    """Tries x from 0 to 15."""

    def __init__(self) -> None:
        self.seconds = {"all": 0.0}
        self.questions = 0

    def refute(self, formula: Iterable[Any]) -> dict[str, int] | None:
        self.questions += 1
        parts = list(formula)
        return next(({"x": x} for x in range(16) if all(part(x) for part in parts)), None)

    def example(self, known: Iterable[Any], claims: dict[str, Any]) -> str | None:
        known = list(known)
        return next((says for says, claim in claims.items() if self.refute([*known, self.negation([claim])]) is not None), None)

    def negation(self, parts: list[Any]) -> Formula:
        return lambda x: not all(part(x) for part in parts)

    def is_plainly(self, part: Any) -> bool:
        return part is always


def always(_x: int) -> bool:
    return True


def below(limit: int) -> Formula:
    return lambda x: x < limit


def even(x: int) -> bool:
    return x % 2 == 0


def odd(x: int) -> bool:
    return x % 2 == 1


RIGHT = Obligation([below(10)], [Case([even], {"small": below(9)}), Case([odd], {"small": below(12)}, {"smaller": below(10)})])
WRONG = Obligation([below(10)], [Case([even], {"small": below(9)}), Case([odd], {"small": below(12)}, {"smaller": below(9)})])


def claim(obligation: Obligation, *planted: Obligation) -> Claim:
    mutants = [Mutant(f"bug {i}", lambda bug=bug: iter([bug])) for i, bug in enumerate(planted)]
    return Claim("a claim", "holds", lambda: iter([obligation]), lambda: iter(mutants))


class TheJudge(unittest.TestCase):
    def refused(self, obligation: Obligation) -> str:
        with self.assertRaises(Unproven) as refusal:
            judge(obligation, Numbers())
        return str(refusal.exception)

    def test_takes_what_holds_on_every_path(self) -> None:
        self.assertEqual(judge(RIGHT, Numbers()), "")

    def test_names_the_claim_and_the_input_that_break(self) -> None:
        self.assertEqual(judge(WRONG, Numbers()), "smaller: x=0x9")
        self.assertEqual(judge(Obligation([below(10)], [Case([always], {"a": below(20), "b": even})]), Numbers()), "b: x=0x1")

    def test_refuses_a_precondition_that_nothing_fulfils(self) -> None:
        self.assertEqual(self.refused(Obligation([below(10), lambda x: x > 12], RIGHT.cases)), "nothing fulfils the precondition")

    def test_asks_a_witness_instead_where_there_is_one(self) -> None:
        self.assertEqual(judge(Obligation([below(10)], RIGHT.cases, witness=[always]), Numbers()), "")
        self.assertEqual(self.refused(Obligation([below(10)], RIGHT.cases, witness=[lambda x: x > 15])), "nothing fulfils the precondition")

    def test_refuses_no_path(self) -> None:
        self.assertEqual(self.refused(Obligation([below(10)], [])), "no path was found")

    def test_refuses_paths_that_leave_an_input_out(self) -> None:
        self.assertEqual(self.refused(Obligation([below(10)], RIGHT.cases[:1])), "no path was found for x=0x1")

    def test_refuses_a_path_that_claims_nothing(self) -> None:
        self.assertEqual(self.refused(Obligation([below(10)], [Case([always], {})])), "a path claims nothing")


class AClaim(unittest.TestCase):
    def test_is_proven_when_it_holds_and_its_planted_bug_is_refuted(self) -> None:
        result = prove(claim(RIGHT, WRONG), Numbers())
        self.assertTrue(result.proven, result.why)
        self.assertEqual(result.mutants, ["bug 0: smaller: x=0x9"])
        self.assertRegex(result.line(), r"^proven  a claim: holds; 2 paths, 0\.0 s, of them all 0\.0 s, 1 mutant refuted$")

    def test_is_not_when_a_mutant_survives(self) -> None:
        result = prove(claim(RIGHT, WRONG, RIGHT), Numbers())
        self.assertFalse(result.proven)
        self.assertEqual(result.why, "the planted bug 'bug 1' was not noticed")
        self.assertRegex(result.line(), r"^FAILED  a claim: ")

    def test_has_the_first_mutants_refuted_where_not_all_are_wanted(self) -> None:
        result = prove(claim(RIGHT, WRONG, WRONG, RIGHT), Numbers(), 2)
        self.assertEqual((result.proven, len(result.mutants)), (True, 2))
        self.assertFalse(prove(claim(RIGHT, RIGHT, WRONG), Numbers(), 1).proven)

    def test_is_not_without_a_mutant(self) -> None:
        self.assertEqual(prove(claim(RIGHT), Numbers()).why, "no bug was planted")

    def test_is_not_when_an_input_breaks_it(self) -> None:
        self.assertEqual(prove(claim(WRONG, WRONG), Numbers()).why, "smaller: x=0x9")

    def test_is_not_without_obligations(self) -> None:
        nothing = Claim("a claim", "holds", lambda: iter([]), lambda: iter([Mutant("bug", lambda: iter([WRONG]))]))
        self.assertEqual(prove(nothing, Numbers()).why, "no path was found")

    def test_is_not_when_something_goes_wrong_on_the_way(self) -> None:
        def fails() -> Iterable[Obligation]:
            raise RuntimeError("lifted wrong")

        broken = Claim("a claim", "holds", fails, lambda: iter([]))
        self.assertEqual(prove(broken, Numbers()).why, "RuntimeError: lifted wrong")

    def test_looks_no_further_once_a_planted_bug_is_refuted(self) -> None:
        def one_more() -> Iterable[Case]:
            yield WRONG.cases[1]
            raise RuntimeError("looked further")

        proof = prove(claim(RIGHT, Obligation([below(10)], one_more())), Numbers())
        self.assertEqual((proof.proven, proof.mutants), (True, ["bug 0: smaller: x=0x9"]))

    def test_without_a_proof_has_a_line_that_does_not_say_proven(self) -> None:
        self.assertNotIn("proven ", Result("a claim", "holds", why="x").line())


class MutantsOfTheProtocol(unittest.TestCase):
    def test_every_mutant_of_the_judge_has_a_counterpart_or_a_reason(self) -> None:
        known = mutants.listed()
        self.assertEqual(list(mutants.without_answer(known)), [])
        self.assertGreater(len({*mutants.COUNTERPARTS} & {one.name for one in known}), 70)

    def test_a_new_one_without_either_is_named(self) -> None:
        new = mutants.Known("a_new_way_to_be_wrong", "tables.rs")
        self.assertEqual(list(mutants.without_answer([*mutants.listed(), new])), ["tables.rs: a_new_way_to_be_wrong has neither a counterpart nor a reason"])

    def test_one_that_is_gone_is_named(self) -> None:
        known = [one for one in mutants.listed() if one.name != "Defect::NoTlbi"]
        self.assertEqual(list(mutants.without_answer(known)), ["Defect::NoTlbi: no such mutant"])

    def test_they_are_read_from_the_tests(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder)
            (root / "kernel/mmu-model").mkdir(parents=True)
            for part in ("kernel/mmu-model/tests", "kernel/paging/tests/interleaved"):
                shutil.copytree(SCRIPTS.parent / part, root / part)
            before = {one.name for one in mutants.listed(root)}
            with (root / "kernel/mmu-model/tests/tables.rs").open("a") as file:
                file.write("#[test]\nfn one_more() {\n    rig.assert_broken(&[Rule::TableReused]);\n}\n#[test]\nfn all_is_well() {\n    rig.model.assert_clean();\n}\n")
            seat = root / "kernel/paging/tests/interleaved/seat.rs"
            seat.write_text(seat.read_text().replace("    NoTlbi,", "    NoTlbi,\n    /// More.\n    OneMore,"))
            self.assertEqual({one.name for one in mutants.listed(root)} - before, {"one_more", "Defect::OneMore"})

    def test_no_mutant_is_a_right_operation(self) -> None:
        self.assertEqual({*mutants.BROKEN.values()} & {*mutants.RIGHT.values()}, set())
        self.assertEqual(len({*mutants.BROKEN.values()}), len(mutants.BROKEN))


class TheScript(unittest.TestCase):
    def test_says_how_to_get_the_solvers_where_they_are_not(self) -> None:
        done = subprocess.run([sys.executable, "-B", str(SCRIPTS / "prove"), "--list"], capture_output=True, text=True, env={"PATH": "/usr/bin:/bin", "BUILD": "/nonexistent"})
        self.assertEqual((done.returncode, done.stderr), (1, "prove: the solvers are not there; scripts/setup prove installs them\n"))


class TheStage(unittest.TestCase):
    def outcomes(self, setup: Finished, proofs: Finished, names: str = "") -> Report:
        report = Report()
        listed = self.finished(names or "\n".join(["leaf rule", *stages.LONG_PROOFS, "groups, 4K"]))
        with mock.patch.object(stages, "run_logged", side_effect=[setup, listed, proofs]) as self.run_logged:
            with mock.patch.object(stages, "have_image", return_value=True), mock.patch.object(stages, "litmus"), mock.patch("builtins.print"):
                stages.prove(report)
        return report

    def finished(self, text: str, status: int = 0) -> Finished:
        file = tempfile.NamedTemporaryFile("w", suffix=".log", delete=False)
        self.addCleanup(Path(file.name).unlink)
        with file:
            file.write(text)
        return Finished(status, 1.0, Path(file.name))

    def test_is_skipped_with_its_reason_where_no_solver_can_be_had(self) -> None:
        report = self.outcomes(self.finished("setup: PyPI cannot be reached\n", 77), self.finished(""))
        self.assertEqual((report.skipped, report.passed, report.failed), (["prove: all claims but the longest"], 0, 0))

    def test_fails_where_setup_fails_in_another_way(self) -> None:
        self.assertEqual(self.outcomes(self.finished("setup: no toolchain\n", 1), self.finished("")).failed, 1)

    def test_counts_claims(self) -> None:
        report = self.outcomes(self.finished(""), self.finished("proven  a\nprove: 8 passed, 1 failed\n", 1))
        self.assertEqual((report.passed, report.failed), (8, 1))

    def test_leaves_out_the_longest_and_nothing_else(self) -> None:
        self.outcomes(self.finished(""), self.finished("prove: 2 passed, 0 failed\n"))
        self.assertEqual(self.run_logged.call_args.args[1][3:], ["--mutants", "2", "leaf rule", "groups, 4K"])

    def test_fails_where_one_that_it_leaves_out_has_another_name(self) -> None:
        report = self.outcomes(self.finished(""), self.finished("prove: 2 passed, 0 failed\n"), "leaf rule\ngroups, 4K")
        self.assertEqual((report.passed, report.failed), (0, 1))

    def test_fails_without_a_count(self) -> None:
        self.assertEqual(self.outcomes(self.finished(""), self.finished("", 0)).failed, 1)

    def test_has_the_litmus_tests_or_says_why_not(self) -> None:
        for done, expected in (
            (self.finished("litmus: sid has no herdtools7 for riscv64\n", 77), (0, 0, ["prove: litmus tests"])),
            (self.finished("litmus: 10 passed, 0 failed\n"), (10, 0, [])),
            (self.finished("litmus: 9 passed, 1 failed\n", 1), (9, 1, [])),
            (self.finished("litmus: herd7 has no execution\n", 1), (0, 1, [])),
        ):
            report = Report()
            with mock.patch.object(stages, "run_logged", return_value=done), mock.patch("builtins.print"):
                stages.litmus(report)
            self.assertEqual((report.passed, report.failed, report.skipped), expected)


class Litmus(unittest.TestCase):
    def test_each_has_what_it_must_not_do_without(self) -> None:
        files = {path.stem: path.read_text() for path in litmus.TESTS.glob("*.litmus")}
        self.assertEqual(set(files), set(litmus.WITHOUT))
        for name, text in files.items():
            others = [litmus.altered(text, name, without) for without in litmus.WITHOUT[name]]
            self.assertEqual(len({text, *others}), len(others) + 1, name)
            self.assertTrue(all(other.splitlines()[0] == text.splitlines()[0] == f"AArch64 {name}" for other in others), name)

    def test_that_lacks_what_it_is_to_do_without_is_refused(self) -> None:
        with self.assertRaises(ScriptError):
            litmus.altered("AArch64 map\n{\n}\n P0 ;\n NOP ;\nexists (x=1)\n", "map", "the DSB")

    def test_takes_the_verdict_from_what_herd7_observed(self) -> None:
        self.assertEqual(litmus.verdict("Test map Allowed\nObservation map Never 0 4\n"), "Never")
        self.assertEqual(litmus.verdict("Observation map Sometimes 1 5\n"), "Sometimes")
        for nothing in ("", "Warning: File \"map.litmus\": unexpected 'S1E1R' (User error)\n", "Observation map Never 0 0\n"):
            with self.assertRaises(ScriptError):
                litmus.verdict(nothing)

    def test_fails_where_one_is_seen_or_one_that_should_be_is_not(self) -> None:
        for said, failed in ((lambda text: "Never", 10), (lambda text: "Sometimes", 10)):
            with mock.patch.object(litmus, "ask", side_effect=said), mock.patch("builtins.print") as printed:
                self.assertEqual(litmus.run_all(), 1)
            self.assertEqual(printed.call_args.args[0], f"litmus: 0 passed, {failed} failed")


if __name__ == "__main__":
    unittest.main()
