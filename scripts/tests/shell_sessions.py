"""Sessions with the kernel's shell, through the UART: the stage `shell` of scripts/test runs them.

Each command's good and bad forms, the keys, and thousands of lines that make no sense, after which
nothing may be missing and the tables must be sound.
"""

import dataclasses
import os
import pty
import re
import select
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path
from xml.etree import ElementTree

from lib.machine import Machine
from lib.shell import ENTER, PROMPT, Session
from lib.shell_fuzz import Typist
from tests.image_leaves import show_size, text_runs

CTRL_A, CTRL_C, CTRL_D, CTRL_E, CTRL_K, CTRL_U, CTRL_W = (bytes([ord(key) & 0x1F]) for key in "ACDEKUW")
UP, DOWN, RIGHT, LEFT, DELETE = b"\x1b[A", b"\x1b[B", b"\x1b[C", b"\x1b[D", b"\x1b[3~"
SEED = int(os.environ.get("SHELL_SEED") or "20261123", 0)
LINES = int(os.environ.get("SHELL_LINES") or "4000")
BATCH = 100
SCRIPTS = Path(__file__).resolve().parents[1]
NOTHING_MISSING = "since the shell began: frames +0 tables +0 areas +0 pages +0 heap +0"
VMALLOC = "0xffffc00000000000"
BROKEN = re.compile(r"FATAL|UNSOUND|panick")


def machine(**changes: str) -> Machine:
    settings = {"SMP": "2", "QEMU": os.environ.get("QEMU", ""), "IMAGE": os.environ.get("IMAGE", "")}
    return Machine.from_environment({**settings, **changes})


TEXT = text_runs(machine().image.with_name("vmwalk.elf"))
"""What the kernel's text is mapped by."""


class Case(unittest.TestCase):
    session: Session

    @classmethod
    def setUpClass(cls) -> None:
        cls.session = cls.enterClassContext(Session(machine()))

    def ask(self, line: str) -> str:
        answer = self.session.ask(line)
        self.assertIsNone(BROKEN.search(answer), answer)
        return answer

    def assert_line(self, line: str, pattern: str) -> re.Match[str]:
        """The answer to `line` is one line, and it matches."""
        answer = self.ask(line)
        self.assertEqual(answer.count("\n"), 1, answer)
        found = re.search(pattern, answer)
        assert found, f"{line}: {answer!r} does not match {pattern!r}"
        return found

    def make(self, line: str, pattern: str) -> tuple[int, int]:
        """Makes an area; its number and its address."""
        found = self.assert_line(line, rf"^(\d+): .* at (0x[0-9a-f]{{16}}): {pattern}$")
        return int(found[1]), int(found[2], 16)

    def assert_nothing_is_missing(self) -> None:
        for identifier in re.findall(r"^ *([1-9]\d*)  0x", self.ask("areas"), re.MULTILINE):
            self.assert_line(f"free {identifier}", "is freed$")
        self.ask("purge")
        answer = self.ask("stat")
        self.assertIn(NOTHING_MISSING, answer)
        self.assertRegex(answer, r"(?m)^tree     sound: \d+ tables, \d+ of them empty, 0 unlinked, ")
        self.assertRegex(answer, r"(?m)^space    sound: ")


class TheShell(Case):
    def tearDown(self) -> None:
        self.assert_nothing_is_missing()

    def test_lists_its_commands_and_explains_one(self) -> None:
        listed = re.findall(r"^  (\w+) ", self.ask("help"), re.MULTILINE)
        for name in "walk ptdump areas vmalloc vmap ioremap free protect probe test bench stat purge cpu help off".split():
            self.assertIn(name, listed)
            self.assert_line(f"help {name}", rf"^{name}\b.*: ")

    def test_answers_a_bad_line_with_one_line(self) -> None:
        bad = {
            "nonsense": "is no command", "help nothing": "is no command", "Walk 0": "is no command",
            "walk": "^usage: walk VA", "walk 1 2": "^usage: ", "walk 0xzz": "is not an address", "walk -1": "`-1` is not an address", "walk 0x1ffff800000000000": "is not an address",
            "ptdump 0": "is not enough", "ptdump 0xffffffffffffffff 2": "are no range", "ptdump 0 0": "is not a size",
            "vmalloc": "^usage: ", "vmalloc 0": "is not a size", "vmalloc 4Q": "is not a size", "vmalloc 17179869184G": "is not a size",
            "vmalloc 900M": "may still take", "vmap 23": "is not up to", "vmap 1,,2": "is not up to", "vmap 13": "are more than 4096",
            "ioremap 0x40000000 4K": "hold RAM", "ioremap 0x3ffff000 8K": "hold RAM", "ioremap 0xfffffffffffff000 8K": "leave the physical", "ioremap 0x9000000": "^usage: ", "ioremap 0x9000000 0": "is not a size",
            "free 99999": "nothing is held", "free x": "is not a number", "protect 99999 all r": "nothing is held",
            "probe 0xffffc00000000001 r": "is not a multiple of 8", "probe 0xffffc00000000002 x": "is not a multiple of 4", "probe 0 q": "is not one of r, w, x", "probe 0 x": "upper half",
            "test": "^usage: ", "test no.such.test": "nothing has a name", "bench *": "icount",
            "cpu": "^usage: ", "cpu 9 stat": "is not up", "cpu 18446744073709551615 stat": "is not up", "cpu x stat": "is not a number", "cpu 1 off": "CPU 0 alone", "cpu 1 test *": "CPU 0 alone", "cpu 1 nonsense": "is no command",
            "stat now": "^usage: ", "off now": "^usage: ", "a b c d e f g h i j": "too many words", "x" * 500: "too long",
        }  # fmt: skip
        for line, pattern in bad.items():
            with self.subTest(line):
                self.assert_line(line, pattern)

    def test_says_nothing_to_an_empty_line(self) -> None:
        self.assertEqual(self.ask(""), "")
        self.assertEqual(self.ask("   "), "")

    def test_walks_level_by_level_to_the_leaf(self) -> None:
        for run in TEXT:
            answer = self.ask(f"walk {run.va:#x}")
            self.assertEqual(re.findall(r"^  level (\d) ", answer, re.MULTILINE), run.levels())
            self.assertRegex(answer, rf"(?m)^  {show_size(run.leaf)} of {run.va:#x}: PA {run.pa:#x}, r-x Normal-WB\n\Z")
        _, va = self.make("vmalloc 4K", "1x4K")
        answer = self.ask(f"walk {va:#x}")
        self.assertEqual(re.findall(r"^  level (\d) ", answer, re.MULTILINE), ["0", "1", "2", "3"])
        self.assertRegex(self.ask("walk 0xfffffbffffff0000"), r"not mapped: level \d has no descriptor\n$")
        self.assert_line("walk 0x1000", "not an address of the upper half")

    def test_maps_mixed_orders_with_the_largest_leaves_and_dumps_them(self) -> None:
        identifier, va = self.make("vmap 8,4,0", "17x64K 1x4K")
        dump = self.ask(f"ptdump {va:#x} 0x111000")
        groups = sum(int(size) for size in re.findall(r" (\d+)K L3 64K  C rw- Normal-WB", dump.replace(" 1M ", " 1024K ")))
        self.assertEqual(groups, 17 * 64, dump)
        self.assertIn(" 4K L3 4K   - rw- Normal-WB", dump)
        self.assert_line(f"free {identifier}", "Vmap at .* is freed")
        self.assert_line(f"free {identifier}", "nothing is held")
        self.assertIn("0 lines", self.ask(f"ptdump {va:#x} 0x111000"))

    def test_lists_areas_with_their_numbers(self) -> None:
        identifier, va = self.make("vmalloc 5000", "2x4K")
        self.assertRegex(self.ask("areas"), rf"(?m)^ *{identifier}  {va:#x}\.\.\S+ Vmalloc, 5000, made by ")

    def test_frees_the_table_that_a_protect_reserved_and_did_not_need(self) -> None:
        # A cut through the block takes a table; to stay as it is takes no cut.
        identifier, _ = self.make("vmalloc 2M", "1x2M")
        before = re.search(r"tables ([+-]\d+)", self.ask("stat"))
        for _ in range(3):
            self.assert_line(f"protect {identifier} 64K+4K rw", "4K at .* is rw: none")
        after = re.search(r"tables ([+-]\d+)", self.ask("stat"))
        assert before and after
        self.assertEqual(before[1], after[1])

    def test_protects_part_of_an_area_and_only_that(self) -> None:
        identifier, va = self.make("vmalloc 1M", "16x64K")
        self.assert_line(f"protect {identifier} 64K+4K r", "4K at .* is r: 1x4K")
        self.assert_line(f"probe {va + 0x10000:#x} w", "permission fault level 3")
        self.assert_line(f"probe {va + 0x10000:#x} r", "load of 0x0")
        self.assert_line(f"probe {va + 0x11000:#x} w", "store of 0x0")
        self.assert_line(f"protect {identifier} 64K+4K rw", "is rw: 1x4K")
        self.assert_line(f"probe {va + 0x10000:#x} w", "store of 0x0")
        self.assert_line(f"protect {identifier} 1M+4K r", "do not lie in an area")
        self.assert_line(f"protect {identifier} 1+4K r", "multiple|align")
        self.assert_line(f"protect {identifier} all q", "is not one of")

    def test_makes_nothing_writable_and_executable(self) -> None:
        identifier, va = self.make("vmalloc 64K", "1x64K")
        self.assert_line(f"probe {va:#x} x", "permission fault level 3")
        self.assert_line(f"protect {identifier} all rwx", "writable and executable")
        self.assert_line(f"protect {identifier} all rx", "is rx: 1x64K")
        self.assert_line(f"probe {va:#x} x", "executed")
        self.assert_line(f"probe {va:#x} w", "permission fault")
        device, _ = self.make("ioremap 0x9010000 4K", "1x4K")
        self.assert_line(f"protect {device} all rx", "never executable")

    def test_maps_devices_and_refuses_to_store_there(self) -> None:
        _, va = self.make("ioremap 0x9010000 4K", "1x4K")
        # The PL031's peripheral identification: a real register behind the mapping.
        self.assert_line(f"probe {va + 0xFE0:#x} r", "32-bit load of 0x31$")
        self.assert_line(f"probe {va:#x} w", "the MMU permits a store at PA 0x9010000; not tried")

    def test_probes_report_faults_and_leave_the_kernel_alone(self) -> None:
        self.assert_line("probe 0 r", "translation fault level 0")
        self.assert_line("probe 0xfffffbfffffff000 r", "translation fault level")
        for run in TEXT:
            self.assert_line(f"probe {run.va:#x} w", f"permission fault level {run.level}$")
        self.assert_line("probe 0xffffffff80000000 x", "not called")
        self.assert_line("probe 0xffff000048000000 w", "the MMU permits a store at PA 0x48000000; not tried")
        self.assert_line("probe 0xffff000048000000 x", "permission fault")

    def test_runs_tests_and_commands_on_another_cpu(self) -> None:
        answer = self.ask("test map.range.64k*")
        self.assertIn("ok 1 map.range.64k_is_one_group_of_pages", answer)
        self.assertIn("# Totals: pass:1 fail:0 skip:0", answer)
        self.assertRegex(self.ask("cpu 1 vmalloc 64K"), r"^\d+: Vmalloc of 64K at 0x")
        self.assertRegex(self.ask("cpu 1 stat"), r"tree     sound")
        self.assertRegex(self.ask("cpu 0 cpu 1 help walk"), "^walk VA")

    def test_purge_frees_all_that_is_lazy(self) -> None:
        identifier, _ = self.make("vmalloc 2M", "1x2M")
        self.ask(f"free {identifier}")
        lazy = re.search(r"lazy (\d+) of (\w+);", self.ask("stat"))
        assert lazy
        # Or an idle CPU was faster.
        self.assert_line("purge", f"^({lazy[1]} areas of {lazy[2]}|0 areas of 0) were lazy, 0 are$")
        self.assertIn("lazy 0 of 0", self.ask("stat"))

    def test_holds_no_more_than_its_share(self) -> None:
        self.make("vmalloc 200M", ".*")
        self.assert_line("vmalloc 100M", "may still take")
        for _ in range(63):
            self.ask("ioremap 0x9000000 4K")
        self.assert_line("ioremap 0x9000000 4K", "64 areas are held")

    def test_gives_examples_that_work(self) -> None:
        examples = dict(re.findall(r"^  (test|vmap) .*\((\S+)\)$", self.ask("help"), re.MULTILINE))
        self.assertEqual(sorted(examples), ["test", "vmap"])
        self.assertRegex(self.ask(f"test {examples['test']}"), r"(?m)^# Totals: pass:[1-9]\d* fail:0 ")
        self.assert_line(f"vmap {examples['vmap']}", r"^\d+: Vmap of ")


class TheKeys(Case):
    """Each key, by the command that comes of it: `help NAME` answers with NAME's usage."""

    def press(self, keys: bytes) -> str:
        """The answer to the line that `keys` and Enter make, without the echo."""
        self.session.type(keys + ENTER)
        return self.session.wait_for(PROMPT).partition("\n")[2]

    def assert_helps(self, keys: bytes, name: str) -> None:
        self.assertRegex(self.press(keys), rf"^{name}\b.*: ", keys)

    def test_complete_what_is_clear(self) -> None:
        self.assertIn("were lazy", self.press(b"pur\t"))
        self.assertIn("not an address of the upper half", self.press(b"wal\t0x1000"))
        self.assert_helps(b"he\twal\t", "walk")
        self.assert_helps(b"cpu 1 he\tpurg\t", "purge")
        self.assertIn("ok 1 map.range.64k_is_one_group_of_pages", self.press(b"test map.range.64\t"))
        # In the middle of a line, what is behind the cursor stays.
        self.assert_helps(b"hel walk" + LEFT * 5 + b"\t" + DELETE, "walk")

    def test_list_the_candidates_where_it_is_not(self) -> None:
        for typed, candidates in (
            (b"pt\t", {"ptdump", "ptmap"}),
            (b"help vma\t", {"vmalloc", "vmap"}),
            (b"test tree.audit_of_\t", {"tree.audit_of_the_live_tree_finds_nothing", "tree.audit_of_live_groups_and_blocks_finds_nothing"}),
        ):
            self.session.type(typed)
            listed = self.session.wait_for(PROMPT).partition("\n")[2]
            self.assertEqual(set(listed.split()), candidates)
            # What was typed is shown again, and goes on.
            self.session.type(b"!" + ENTER)
            self.assertTrue(self.session.wait_for(PROMPT).startswith(f"{typed.decode().strip()}"))
        self.session.type(b"\t")
        self.assertIn("vmalloc", self.session.wait_for(PROMPT))
        self.assert_helps(b"nothing\t" + CTRL_U + b"help walk", "walk")

    def test_recall_lines(self) -> None:
        for line in ("help walk", "help free", "help stat"):
            self.ask(line)
        self.assert_helps(UP, "stat")
        self.assert_helps(UP * 2, "free")
        self.assert_helps(UP * 4, "walk")
        self.assert_helps(UP * 2 + DOWN, "walk")
        self.assertEqual(self.press(UP * 2 + DOWN * 3), "")
        # A line that is recalled can be changed.
        self.ask("help free")
        self.assert_helps(UP + b"\b" * 4 + b"walk", "walk")

    def test_go_on_recalling_when_more_was_typed_than_is_kept(self) -> None:
        for number in range(60):
            self.ask(f"nonsense {number} " + "x" * 150)
        self.assertIn("is no command", self.press(UP * 3))
        self.assert_helps(UP * 100 + CTRL_U + b"help walk", "walk")
        self.assert_helps(UP, "walk")

    def test_move_and_delete(self) -> None:
        self.assert_helps(b"helq\b" + b"p wal" + b"x\x7f" + b"k", "walk")
        self.assert_helps(b"elp walk" + LEFT * 8 + b"h", "walk")
        self.assert_helps(b"hxelp walk" + LEFT * 8 + b"\b", "walk")
        self.assert_helps(b"xxhelp walk" + CTRL_A + DELETE * 2, "walk")
        self.assert_helps(b"xhelp walk" + CTRL_A + CTRL_D, "walk")
        self.assert_helps(b"hel walk" + LEFT * 6 + RIGHT + b"p", "walk")
        for home in (CTRL_A, b"\x1b[H", b"\x1b[1~", b"\x1b[7~", b"\x1bOH"):
            for end in (CTRL_E, b"\x1b[F", b"\x1b[4~", b"\x1b[8~", b"\x1bOF"):
                self.assert_helps(b"elp wal" + home + b"h" + end + b"k", "walk")

    def test_kill_words_and_lines(self) -> None:
        self.assert_helps(b"nonsense" + CTRL_U + b"help walk", "walk")
        self.assert_helps(b"nonsense help walk" + LEFT * 9 + CTRL_U, "walk")
        self.assert_helps(b"help walk and more" + LEFT * 9 + CTRL_K, "walk")
        self.assert_helps(b"help free  " + CTRL_W + b"walk", "walk")
        self.assert_helps(b"help nonsense walk" + LEFT * 4 + CTRL_W, "walk")
        self.assertEqual(self.press(b"nonsense" + CTRL_W * 5 + CTRL_K + CTRL_U), "")

    def test_drop_the_line(self) -> None:
        self.session.type(b"nonsense" + CTRL_C)
        self.assertTrue(self.session.wait_for(PROMPT).endswith("^C\n"))
        self.assert_helps(b"help walk", "walk")
        # One that is too long to be kept can be dropped, too.
        self.session.type(b"x" * 500 + CTRL_C)
        self.session.wait_for(PROMPT)
        self.assert_helps(b"help walk", "walk")

    def test_that_mean_nothing_change_nothing(self) -> None:
        self.assert_helps(b"he\x00l\x02\x1b[5~p \x1b[1;5Cwa\x1bxl\xffk\x1b[15~", "walk")

    def test_of_words_in_quotes_are_one_word(self) -> None:
        self.assertIn("nothing has a name that `no such` matches", self.press(b'test "no such"'))


class TheShellTurnedOffByAKey(unittest.TestCase):
    def test_on_an_empty_line(self) -> None:
        with Session(machine()) as session:
            session.type(b"help wal" + CTRL_D + b"k" + ENTER)
            self.assertIn("walk VA: ", session.wait_for(PROMPT))
            session.type(CTRL_D)
            self.assertEqual(session.wait_for_end(), 0)


class ALongRun(Case):
    """Ctrl-C ends it where it can be ended, and nothing is left of it."""

    def tearDown(self) -> None:
        self.assert_nothing_is_missing()

    def interrupt(self, command: bytes, after: bytes) -> str:
        self.session.type(command + ENTER)
        said = self.session.wait_for(after)
        self.session.type(CTRL_C)
        return said + self.session.wait_for(PROMPT)

    def test_of_tests_ends(self) -> None:
        said = self.interrupt(b"test *", b"ok 20 ")
        found = re.search(r"^Bail out! interrupted after (\d+) of (\d+) tests$", said, re.MULTILINE)
        assert found, said[-500:]
        self.assertLess(int(found[1]), int(found[2]))
        self.assertNotIn("not ok", said)

    def test_of_one_test_ends(self) -> None:
        # Of all pages of 16G: the longest test of one CPU.
        said = self.interrupt(b"test map.range.16g*", b"1..1")
        self.assertRegex(said, r"(?m)^Bail out! interrupted after 0 of 1 tests$")

    def test_of_a_test_of_all_cpus_ends(self) -> None:
        said = self.interrupt(b"test smp.areas_keep*", b"1..1")
        self.assertRegex(said, r"(?m)^(Bail out! interrupted after 0 of 1 tests|# Totals: pass:1 fail:0 skip:0)$")

    def test_drops_what_was_typed_before_and_keeps_what_is_typed_after(self) -> None:
        self.session.type(b"test *" + ENTER)
        self.session.wait_for(b"ok 5 ")
        self.session.type(b"help free" + ENTER + CTRL_C + b"help walk" + ENTER)
        said = self.session.wait_for(b"walk VA: ")
        self.session.wait_for(PROMPT)
        self.assertNotIn("free ID", said)

    def test_loses_nothing_that_is_typed_meanwhile(self) -> None:
        names = "walk ptdump areas vmalloc vmap ioremap free protect probe stat purge cpu".split()
        self.session.type(b"test map.range.*" + ENTER + b"".join(f"help {name}".encode() + ENTER for name in names))
        for name in names:
            self.session.wait_for(f"help {name}\r\n{name}".encode())
        self.session.wait_for(PROMPT)


class TheSuiteInTheShell(Case):
    """What passes at boot passes at the prompt, whatever ran before and whatever the shell holds."""

    def assert_passes(self, line: str) -> None:
        answer = self.ask(line)
        self.assertRegex(answer, r"(?m)^# Totals: pass:[1-9]\d* fail:0 skip:\d+$", "\n".join(re.findall(r"(?m)^.*not ok.*$|^# .*$", answer)))

    def test_passes_twice_and_beside_what_the_shell_holds(self) -> None:
        self.assert_passes("test *")
        self.ask("ioremap 0x9000000 4K")
        self.ask("vmalloc 64M")
        self.ask("vmap 9,4,0")
        identifier, _ = self.make("vmalloc 2M", "1x2M")
        self.ask(f"protect {identifier} 64K+4K r")
        executable, _ = self.make("vmalloc 64K", "1x64K")
        self.ask(f"protect {executable} all rx")
        self.assert_passes("test *")
        self.assert_nothing_is_missing()

    def test_has_all_frames_after_other_cpus_had_them(self) -> None:
        self.assert_passes("test smp.*")
        self.assert_passes("test frames.all*")

    def test_leaves_the_heap_as_large_as_it_was(self) -> None:
        def size() -> int:
            found = re.search(r"^heap +\d+ bytes of (\d+) in use$", self.ask("stat"), re.MULTILINE)
            assert found
            return int(found[1])

        self.assert_passes("test heap*")
        before = size()
        for _ in range(3):
            self.assert_passes("test heap*")
        self.assertEqual(size(), before)
        self.assertLess(before, 4 << 20)


class TheShellUnderFire(Case):
    def test_survives_lines_that_make_no_sense_and_loses_nothing(self) -> None:
        typist = Typist(SEED)
        for number in range(LINES // BATCH):
            batch = list(typist.lines(BATCH))
            said = self.session.type_lines(batch, number)
            if found := BROKEN.search(said):
                self.fail(f"seed {SEED}, batch {number}: {said[max(0, found.start() - 1500) : found.end() + 500]}")
        self.assert_nothing_is_missing()


class TheMap(unittest.TestCase):
    def test_draws_what_the_running_kernel_has_mapped(self) -> None:
        with tempfile.TemporaryDirectory() as directory:
            picture = Path(directory) / "ptmap.svg"
            command = [sys.executable, "-B", str(SCRIPTS / "ptmap"), "--out", str(picture)]
            variables = {"PTMAP": "vmap 8,4,0; vmalloc 2M; ioremap 0x9000000 4K; free 3", "BOOTARGS": "", "SMP": "1"}
            done = subprocess.run(command, env={**os.environ, **variables}, capture_output=True, text=True, timeout=60)
            self.assertEqual(done.returncode, 0, done.stderr)
            root = ElementTree.parse(picture).getroot()
        hovers = [title.text or "" for title in root.iter("{http://www.w3.org/2000/svg}title")]
        self.assertTrue(any("Vmap of 1092K" in text and "64K: 16 groups of 16" in text and "rw- Normal-WB" in text for text in hovers), hovers)
        self.assertTrue(any("Vmalloc of 2M" in text and "L2 2M: 1 leaves" in text for text in hovers), hovers)
        self.assertTrue(any("r-- Normal-WB" in text and "0xffff000040" in text for text in hovers), hovers)
        groups = [rect for rect in root.iter("{http://www.w3.org/2000/svg}rect") if rect.get("class") == "group"]
        self.assertTrue(groups)
        self.assertTrue(all(rect.get("stroke") for rect in groups))


class TheBench(unittest.TestCase):
    def test_counts_instructions_where_they_can_be_counted(self) -> None:
        with Session(dataclasses.replace(machine(SMP="1"), extra=("-icount", "shift=0"))) as session:
            self.assertRegex(session.ask("bench range?4K*"), r'(?m)^bench \{.*"range 4K, 4K pa"')
            self.assertEqual(session.off(), 0)

    def test_says_so_where_no_case_is_selected(self) -> None:
        for smp, says in (("1", "`no.such.case` matches no case: `bench list` names them"), ("2", "matches no case that runs on 2 CPUs: `bench cpus*` does")):
            with Session(dataclasses.replace(machine(SMP=smp), extra=("-icount", "shift=0"))) as session:
                self.assertRegex(session.ask("bench no.such.case"), rf"^[^\n]*{re.escape(says)}\n$")
                self.assertRegex(session.ask("bench list"), r'(?m)^bench \{.*"range 4K, 4K pa"')
                self.assertEqual(session.off(), 0)

    def test_is_ended_by_a_key(self) -> None:
        with Session(dataclasses.replace(machine(SMP="1"), extra=("-icount", "shift=0"))) as session:
            session.type(b"bench *" + ENTER)
            session.wait_for(b'"range 4K, 4K pa"')
            session.type(CTRL_C)
            said = session.wait_for(PROMPT)
            self.assertRegex(said, r"(?m)^interrupted: the other cases did not run$")
            self.assertIn(NOTHING_MISSING, session.ask("stat"))
            self.assertRegex(session.ask("bench range?4K*"), r'(?m)^bench \{.*"range 4K, 4K pa"')
            self.assertEqual(session.off(), 0)


class TheTerminal(unittest.TestCase):
    """`make shell` on a terminal: each key is the kernel's, but for the one that ends the emulator."""

    def setUp(self) -> None:
        master, slave = pty.openpty()
        environment = {**os.environ, "SMP": "1", "BOOTARGS": ""}
        self.process = subprocess.Popen([sys.executable, "-B", str(SCRIPTS / "shell")], stdin=slave, stdout=slave, stderr=slave, env=environment, start_new_session=True)
        os.close(slave)
        self.addCleanup(os.close, master)
        self.addCleanup(self.process.wait)
        # It ends its emulator.
        self.addCleanup(self.process.terminate)
        self.terminal = master
        self.unread = b""

    def read_until(self, mark: bytes) -> bytes:
        while mark not in self.unread:
            ready, _, _ = select.select([self.terminal], [], [], 60)
            self.assertTrue(ready, self.unread[-500:])
            self.unread += os.read(self.terminal, 4096)
        seen, _, self.unread = self.unread.partition(mark)
        return seen

    def type(self, keys: bytes) -> None:
        os.write(self.terminal, keys)

    def test_gives_the_kernel_each_key_of_a_line(self) -> None:
        self.read_until(PROMPT)
        self.type(b"elp walk" + CTRL_A + b"h" + ENTER)
        self.read_until(b"walk VA: ")
        self.type(b"test *" + ENTER)
        self.read_until(b"ok 3 ")
        self.type(CTRL_C)
        self.read_until(b"Bail out!")
        self.read_until(PROMPT)
        self.type(CTRL_D)
        self.assertEqual(self.process.wait(60), 0)

    def test_ends_the_emulator_by_the_key_that_it_names(self) -> None:
        self.assertIn(b"Ctrl-] x ends the emulator", self.read_until(PROMPT))
        self.type(b"\x1dx")
        self.process.wait(60)


class TheBootLog(unittest.TestCase):
    def test_shows_what_is_mapped_when_it_is_asked_to(self) -> None:
        with Session(machine(BOOTARGS="ptdump=1")) as session:
            self.assertRegex(session.boot_log, r"(?m)^0xffff000040000000-\S+ 0x000040000000 .* rw- Normal-WB$")
            for run in TEXT:
                self.assertRegex(session.boot_log, f"(?m){run.dumped('r-x')}")
            self.assertEqual(session.off(), 0)


if __name__ == "__main__":
    unittest.main()
