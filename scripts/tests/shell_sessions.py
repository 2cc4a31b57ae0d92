"""Sessions with the kernel's shell, through the UART: the stage `shell` of scripts/test runs them.

Each command's good and bad forms, the keys, and thousands of lines that make no sense, after which
nothing may be missing and the tables must be sound.
"""

import dataclasses
import os
import re
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path
from xml.etree import ElementTree

from lib.machine import Machine
from lib.shell import ENTER, Session
from lib.shell_fuzz import Typist
from tests.image_leaves import show_size, text_runs

SEED = int(os.environ.get("SHELL_SEED") or "20261123", 0)
LINES = int(os.environ.get("SHELL_LINES") or "4000")
BATCH = 100
SCRIPTS = Path(__file__).resolve().parents[1]
NOTHING_MISSING = "since the shell began: frames +0 tables +0 areas +0 pages +0 heap +0"
VMALLOC = "0xffff800000000000"
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
            self.assert_line(f"free {identifier}", "is given back$")
        self.ask("purge")
        answer = self.ask("stat")
        self.assertIn(NOTHING_MISSING, answer)
        self.assertRegex(answer, r"(?m)^tree     sound: \d+ tables, 0 unlinked, ")
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
            "walk": "^usage: walk VA", "walk 1 2": "^usage: ", "walk 0xzz": "is not an address", "walk -1": "no command has options", "walk 0x1ffff800000000000": "is not an address",
            "ptdump 0": "is not enough", "ptdump 0xffffffffffffffff 2": "are no range", "ptdump 0 0": "is not a size",
            "vmalloc": "^usage: ", "vmalloc 0": "is not a size", "vmalloc 4Q": "is not a size", "vmalloc 17179869184G": "is not a size",
            "vmalloc 900M": "may still take", "vmap 23": "is not up to", "vmap 1,,2": "is not up to", "vmap 13": "are more than 4096",
            "ioremap 0x40000000 4K": "hold RAM", "ioremap 0x3ffff000 8K": "hold RAM", "ioremap 0xfffffffffffff000 8K": "leave the physical", "ioremap 0x9000000": "^usage: ", "ioremap 0x9000000 0": "is not a size",
            "free 99999": "nothing is held", "free x": "is not a number", "protect 99999 all r": "nothing is held",
            "probe 0xffff800000000001 r": "is not a multiple of 8", "probe 0xffff800000000002 x": "is not a multiple of 4", "probe 0 q": "is not one of r, w, x", "probe 0 x": "upper half",
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
        self.assertRegex(self.ask("walk 0xffffbfffffff0000"), r"not mapped: level \d has no descriptor\n$")
        self.assert_line("walk 0x1000", "not an address of the upper half")

    def test_maps_mixed_orders_with_the_largest_leaves_and_dumps_them(self) -> None:
        identifier, va = self.make("vmap 8,4,0", "17x64K 1x4K")
        dump = self.ask(f"ptdump {va:#x} 0x111000")
        groups = sum(int(size) for size in re.findall(r" (\d+)K L3 64K  C rw- Normal-WB", dump.replace(" 1M ", " 1024K ")))
        self.assertEqual(groups, 17 * 64, dump)
        self.assertIn(" 4K L3 4K   - rw- Normal-WB", dump)
        self.assert_line(f"free {identifier}", "Vmap at .* is given back")
        self.assert_line(f"free {identifier}", "nothing is held")
        self.assertIn("0 lines", self.ask(f"ptdump {va:#x} 0x111000"))

    def test_lists_areas_with_their_numbers(self) -> None:
        identifier, va = self.make("vmalloc 5000", "2x4K")
        self.assertRegex(self.ask("areas"), rf"(?m)^ *{identifier}  {va:#x}\.\.\S+ Vmalloc, 5000, made by ")

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
        self.assert_line("probe 0xffffbffffffff000 r", "translation fault level")
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

    def test_purge_gives_back_whatever_is_withheld(self) -> None:
        identifier, _ = self.make("vmalloc 2M", "1x2M")
        self.ask(f"free {identifier}")
        withheld = re.search(r"withheld (\d+) of (\w+);", self.ask("stat"))
        assert withheld
        self.assert_line("purge", f"^{withheld[1]} areas of {withheld[2]} were withheld, 0 are$")
        self.assertIn("withheld 0 of 0", self.ask("stat"))

    def test_holds_no_more_than_its_share(self) -> None:
        self.make("vmalloc 200M", ".*")
        self.assert_line("vmalloc 100M", "may still take")
        for _ in range(63):
            self.ask("ioremap 0x9000000 4K")
        self.assert_line("ioremap 0x9000000 4K", "64 areas are held")

    def test_completes_names_and_recalls_lines(self) -> None:
        self.session.type(b"pur\t" + ENTER)
        self.assertRegex(self.session.wait_for(b"vmwalk> "), r"were withheld")
        self.session.type(b"wal\t0x1000" + ENTER)
        self.assertIn("not an address of the upper half", self.session.wait_for(b"vmwalk> "))
        # The recalled line is shown behind a prompt of its own.
        self.session.type(b"\x1b[A" + ENTER)
        self.session.wait_for(b"vmwalk> ")
        self.assertIn("walk of 0x0000000000001000", self.session.wait_for(b"vmwalk> "))
        self.session.type(b"helq\b" + b"p wal" + b"x\x7f" + b"k" + ENTER)
        self.assertIn("walk VA: ", self.session.wait_for(b"vmwalk> "))


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


class TheBootLog(unittest.TestCase):
    def test_shows_what_is_mapped_when_it_is_asked_to(self) -> None:
        with Session(machine(BOOTARGS="ptdump=1")) as session:
            self.assertRegex(session.boot_log, r"(?m)^0xffff000040000000-\S+ 0x000040000000 .* rw- Normal-WB$")
            for run in TEXT:
                self.assertRegex(session.boot_log, f"(?m){run.dumped('r-x')}")
            self.assertEqual(session.off(), 0)


if __name__ == "__main__":
    unittest.main()
