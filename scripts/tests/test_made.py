"""Blocks of README and docs that are made: found, made anew, compared."""

import unittest

from lib import doc_tables, made
from lib.errors import Malformed
from lib.made import Block, Session
from lib.paths import ROOT

PAGE = """# Page

<!-- made by: shell SMP=2 -->
```
vmwalk> areas
1: Vmap at 0xffff800000030000
vmwalk> help
gone
```

Between.

<!-- made by: shell goes-on -->
```
vmwalk> off
```

<!-- made by: figures of=table -->
| a | b |
| --- | --- |
| 1 | 2 |

The end.
"""
TABLE = ["| a | b |", "| --- | --- |", "| 1 | 2 |"]


def shell(session: Session) -> list[list[str]]:
    return made.answered(session, [{"areas": "1: Vmap at 0xffff800000050000\n", "help": "gone\n"}.get(typed, "") for typed in session.typed])


MAKERS: dict[str, made.Maker] = {"shell": shell, "figures": lambda session: [TABLE]}


class Made(unittest.TestCase):
    def test_blocks_are_found_with_their_settings(self) -> None:
        first, second, third = made.blocks("page", PAGE)
        self.assertEqual((first.kind, first.settings, first.typed, first.goes_on), ("shell", {"SMP": "2"}, ["areas", "help"], False))
        self.assertEqual((second.typed, second.goes_on), (["off"], True))
        self.assertEqual((third.kind, third.settings, third.lines), ("figures", {"of": "table"}, TABLE))

    def test_a_marker_without_a_block_is_refused(self) -> None:
        for text in ("<!-- made by: run -->\n\nwords\n", "<!-- made by: run -->\n```\nnever closed\n"):
            with self.assertRaisesRegex(Malformed, "page:1: no block"):
                list(made.blocks("page", text))

    def test_another_address_is_no_difference_and_is_written(self) -> None:
        text, wrong = made.remake("page", PAGE, MAKERS)
        self.assertEqual(wrong, [])
        self.assertEqual(text, PAGE.replace("30000", "50000"))

    def test_an_edited_line_a_missing_line_and_one_more_are_told(self) -> None:
        for old, new, says in (
            ("1: Vmap", "1: Vmalloc", "page:5: line 2 of the block"),
            ("gone\n", "", "the block has 3 lines, and what is made 4"),
            ("gone\n", "gone\nand more\n", "the block has 5 lines, and what is made 4"),
            ("| 1 | 2 |", "| 1 | 3 |", "page:19: line 3 of the block is '| 1 | 3 |'"),
        ):
            with self.subTest(new):
                text, (wrong,) = made.remake("page", PAGE.replace(old, new), MAKERS)
                self.assertIn(says, wrong)
                self.assertEqual(text, PAGE.replace("30000", "50000"))

    def test_what_has_no_maker_stays(self) -> None:
        self.assertEqual(made.remake("page", PAGE, {}), (PAGE, []))

    def test_a_quote_is_what_stands_between_two_lines_without_its_indentation(self) -> None:
        source = ["fn f() {", "    let a = 1;", "    if a {", "        b", "    }", "    Ok(())", "}"]
        self.assertEqual(made.quoted(source, "let a", "Ok(())"), ["let a = 1;", "if a {", "    b", "}"])
        for first, behind, says in (("nothing", "}", "0 lines have"), ("a", "}", "2 lines have"), ("let a", "None", "no line behind")):
            with self.assertRaisesRegex(Malformed, says):
                made.quoted(source, first, behind)

    def test_a_long_answer_is_shortened_in_the_middle(self) -> None:
        lines = [f"line {i}" for i in range(made.HEAD + made.TAIL + made.FEW + 1)]
        self.assertEqual(made.shortened(lines[:-1]), lines[:-1])
        short = made.shortened(lines)
        self.assertEqual((short[0], short[made.HEAD], short[-1]), ("line 0", f"... {made.FEW + 1} lines ...", lines[-1]))

    def test_only_what_may_differ_is_masked(self) -> None:
        def same(kind: str, old: str, new: str) -> bool:
            block = Block(kind, {}, old.split("\n"), 0)
            return made.difference("page", block, new.split("\n")) is None

        for kind, old, new, equal in (
            ("run", "run: PASS: 8 passed (12.1 s)", "run: PASS: 8 passed (9 s)", True),
            ("run", "run: PASS: 8 passed (12.1 s)", "run: PASS: 9 passed (9 s)", False),
            ("run", "vmwalk:     text     0xffff00 2112K r-x", "vmwalk:     text     0xffff10 2M r-x", True),
            ("run", "vmwalk:     text     0xffff00 2112K r-x", "vmwalk:     text     0xffff00 2112K rwx", False),
            ("run", "vmwalk: 4 of 4 CPUs are up", "vmwalk: 3 of 4 CPUs are up", False),
            ("shell", "made by kernel/src/lib.rs:192:11", "made by kernel/src/lib.rs:7:1", True),
            ("shell", "made by kernel/src/lib.rs:192:11", "made by kernel/src/lib.c:7:1", False),
            ("shell", "CPUs     2", "CPUs     3", False),
            ("gdb", "store level 3 table 0x403d3000[16..79]: 64 descriptors", "store level 3 table 0x403d9000[17..80]: 64 descriptors", True),
            ("gdb", "store level 3 table 0x403d3000[16..79]: 64 descriptors", "store level 3 table 0x403d9000[16..79]: 63 descriptors", False),
            ("gdb", "  not 2M   va is 64K past", "  not 2M   pa is 64K past", True),
            ("gdb", "  not 2M   va is 64K past", "  not 1G   va is 64K past", False),
            ("gdb", "DSB ISH", "DSB ISHST", False),
            ("replay", "alloc    vmap    285   833", "alloc    vmap    285   8,330", True),
            ("replay", "alloc    vmap    285   833", "alloc    vmaps   285   833", False),
            ("figures", "0x1000", "0x2000", False),
        ):
            with self.subTest(old, new=new):
                self.assertEqual(same(kind, old, new), equal)

    def test_runs_of_leaves_may_be_more_and_longer_but_no_others(self) -> None:
        run = "0xffff000040{}-0xffff000080000000 0x000040000000 {:>6} L2 2M   - rw- Normal-WB"
        block = Block("gdb", {}, [run.format("000000", "2M")], 0)
        more = [run.format("000000", "28M"), run.format("800000", "2M")]
        self.assertIsNone(made.difference("page", block, more))
        self.assertIsNotNone(made.difference("page", block, [more[0].replace("rw-", "r--")]))
        area = "0xffff800000030000-0xffff800000040000 0x000048100000    64K L3 64K  C rw- Normal-WB"
        block = Block("shell", {}, [area], 0)
        self.assertIsNone(made.difference("page", block, [area.replace("481", "482")]))
        self.assertIsNotNone(made.difference("page", block, [area.replace("L3 64K  C", "L3 4K   -")]))


class Tables(unittest.TestCase):
    def test_every_case_of_the_baseline_is_in_one(self) -> None:
        self.assertEqual(doc_tables.cases_without_a_table(), [])

    def test_each_has_as_many_cells_in_every_row(self) -> None:
        for name, table in doc_tables.TABLES.items():
            with self.subTest(name):
                rows = table()
                self.assertGreater(len(rows), 5)
                self.assertEqual(len({row.count("|") for row in rows}), 1)

    def test_every_block_of_the_pages_has_a_maker(self) -> None:
        kinds = {"run", "shell", "gdb", "linux", "figures", "example", "quote", "replay"}
        pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *(ROOT / "kernel").glob("*/README.md")]
        found = [block for page in pages for block in made.blocks(page.name, page.read_text())]
        self.assertLessEqual({block.kind for block in found}, kinds)
        self.assertEqual({block.kind for block in found}, kinds)


if __name__ == "__main__":
    unittest.main()
