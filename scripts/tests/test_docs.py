"""What docs/, README and the comments say of the tree is so."""

import unittest
from pathlib import Path

from lib import docs
from lib.paths import ROOT

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "kernel").glob("*/README.md")), *sorted((ROOT / "scripts").glob("*/README.md"))]
DESIGN = ROOT / "docs" / "DESIGN.md"
LOCKING = ROOT / "docs" / "LOCKING.md"


class Links(unittest.TestCase):
    def test_every_file_and_name_exists(self) -> None:
        for page in PAGES:
            with self.subTest(page.relative_to(ROOT)):
                self.assertEqual(docs.broken_references(page), [])

    def test_a_missing_file_name_or_heading_is_told(self) -> None:
        for text, says in (
            ("[x](../kernel/none.rs)", "DESIGN.md: there is no ../kernel/none.rs"),
            ("[x](../kernel/paging/src/map.rs) `map`, `no_such`", "DESIGN.md: ../kernel/paging/src/map.rs has no `no_such`"),
            ("[`no_such`](../kernel/paging/src/map.rs)", "DESIGN.md: ../kernel/paging/src/map.rs has no `no_such`"),
            ("[x](#no-such)", "DESIGN.md:  has no heading #no-such"),
        ):
            self.assertEqual(docs.broken_references(DESIGN, text), [says])


class Questions(unittest.TestCase):
    def test_a_newcomer_is_sent_to_a_name_in_a_file(self) -> None:
        page = ROOT / "docs" / "CONTRIBUTING.md"
        questions = docs.rows(page.read_text(), "question")
        self.assertEqual(len(questions), 7)
        for question, answer in questions:
            with self.subTest(question):
                named = [reference for reference in docs.references(answer) if reference.names]
                self.assertTrue(named)
                self.assertLessEqual(len({reference.path for reference in named}), 2, "more than two files to look at")


class Rules(unittest.TestCase):
    text: str

    @classmethod
    def setUpClass(cls) -> None:
        cls.text = DESIGN.read_text()

    def numbers(self) -> set[int]:
        return set(range(1, len(docs.rows(self.text, "rule")) + 1))

    def test_each_has_a_place_a_test_and_a_fault_that_exist(self) -> None:
        self.assertEqual(docs.broken_rules(DESIGN), [])
        self.assertEqual(self.numbers(), set(range(1, 15)))

    def test_an_empty_column_is_told(self) -> None:
        (row,) = [line for line in self.text.splitlines() if line.startswith("| [9]")]
        cells = row.split("|")
        for column, says in ((2, "no place in the code"), (3, "no test"), (4, "no planted fault and no mutant")):
            without = "|".join([*cells[:column], " ", *cells[column + 1 :]])
            self.assertEqual(docs.broken_rules(DESIGN, self.text.replace(row, without)), [f"rule 9: {says}"])

    def test_a_test_or_fault_that_is_none_is_told(self) -> None:
        for old, new, says in (
            ("`the_levels_reported_are_the_levels_written`", "`levels_written`", "rule 9: ../kernel/paging/tests/faults/main.rs: `levels_written` is no test"),
            ("`count.a_fresh_map_is_one_dsb", "`count.no_fresh_map_is_one_dsb", "rule 2: ../kernel/harness/src/selftest/cases/mod.rs: `count.no_fresh_map_is_one_dsb_one_isb_and_no_tlbi` is no test"),
            ("`selftest.break=skip-dsb`", "`selftest.break=skip-all`", "rule 2: no stage plants `selftest.break=skip-all`"),
            ("`SilentLevels`", "`LoudLevels`", "rule 9: ../kernel/paging/tests/reference/variants.rs: `LoudLevels` is no mutant"),
        ):
            self.assertEqual(docs.broken_rules(DESIGN, self.text.replace(old, new)), [says])

    def test_a_rule_that_has_no_row_is_told(self) -> None:
        (wrong,) = docs.broken_rules(DESIGN, self.text + "\n### Rule 15\n")
        self.assertIn("the table has rules", wrong)

    def test_every_rule_that_is_named_anywhere_exists(self) -> None:
        files = {path: path.read_text(errors="replace") for path in docs.sources() if path != Path(__file__)}
        self.assertGreater(sum(bool(docs.rules_named(text)) for text in files.values()), 40)
        self.assertEqual(docs.unknown_rules(self.numbers(), files), [])

    def test_a_rule_that_does_not_exist_is_told_however_it_is_written(self) -> None:
        for text, found in (
            ("// See rule 99.", {99}),
            ("/// As it has to be (DESIGN rules 1, 3\n    /// and 99).", {1, 3, 99}),
            ("// (rule\n// 98; Arm ARM D8.16)", {98}),
            ("rules 5 to 7", {5, 6, 7}),
            ("Rules 11 and 13.", {11, 13}),
            ("the ruler 4 and a rule of 9", set()),
        ):
            self.assertEqual(docs.rules_named(text), found, text)
        path = Path("x.rs")
        self.assertEqual(docs.unknown_rules(self.numbers(), {path: "// rules 2 and 15"}), ["x.rs: rule 15"])


class Locks(unittest.TestCase):
    def test_the_order_is_that_of_the_code_and_has_every_lock(self) -> None:
        order = docs.levels(docs.ORDER.read_text())
        self.assertGreater(len(order), 5)
        self.assertEqual(docs.broken_locks(LOCKING.read_text(), order, docs.lock_classes()), [])

    def test_a_lock_without_a_class_is_on_the_page(self) -> None:
        locks = docs.static_locks()
        self.assertIn("LINEAR_MAP", locks)
        text = LOCKING.read_text()
        self.assertEqual([name for name in locks if f"`{name}`" not in text], [])

    def test_another_order_and_another_lock_are_told(self) -> None:
        text, order = LOCKING.read_text(), docs.levels(docs.ORDER.read_text())
        classes = docs.lock_classes()
        (wrong,) = docs.broken_locks(text, [*order[:-2], order[-1], order[-2]], classes)
        self.assertIn("the page orders", wrong)
        self.assertEqual(docs.broken_locks(text, order, classes | {"new": "x.rs"}), ["`new` of x.rs is not on the page"])
        del classes["heap"]
        self.assertEqual(docs.broken_locks(text, order, classes), ["there is no lock `heap`"])


if __name__ == "__main__":
    unittest.main()
