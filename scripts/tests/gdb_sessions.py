"""Scripted gdb sessions on the booted kernel: what the commands print, and with which status a session ends.

Not found by the discovery of unit tests, since they need a kernel: `STAGES=gdb scripts/test` builds it and runs them. GDB_DEV
and GDB_RELEASE are the directories of a debug and of a release build.
"""

import os
import re
import subprocess
import sys
import unittest
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "gdb"))

from lib.paths import BUILD, ROOT  # noqa: E402
from tests.image_leaves import text_runs  # noqa: E402
from vmwgdb import elf  # noqa: E402

DEV = os.environ.get("GDB_DEV") or str(BUILD / "dev")
RELEASE = os.environ.get("GDB_RELEASE") or str(BUILD)
INSIDE = "scripts/tests/gdb_inside"
AT_THE_END = "break kernel::arch::psci::system_off; continue"
"""Every map is there, and nothing runs any more."""
QUIET = {"BOOTARGS": "selftest=none"}
MIXED = "selftest=vmap.a_mebibyte_of_mixed_orders*"
"""One vmap of 256 pages in pieces of 15 orders: 13 groups and 48 single pages (kernel/harness/src/selftest/cases/mixed_orders.rs)."""
HEX = r"0x[0-9a-f]+"


class Session(unittest.TestCase):
    maxDiff = None

    def gdb(self, commands: str, build: str = DEV, status: int = 0, **variables: str) -> str:
        """Runs `commands` in a session of its own, wants `status`, and gives what it printed."""
        environment = {**os.environ, **QUIET, "IMAGE": f"{build}/Image", "GDBCMD": commands, **variables}
        command = [sys.executable, "-B", "scripts/debug"]
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)
        self.assertEqual(done.returncode, status, done.stdout + done.stderr)
        return done.stdout + done.stderr

    def assertInOrder(self, text: str, *patterns: str) -> None:
        at = 0
        for pattern in patterns:
            found = re.compile(pattern, re.MULTILINE).search(text, at)
            self.assertTrue(found, f"no {pattern!r} behind character {at} of:\n{text}")
            assert found
            at = found.end()


class Looking(Session):
    def test_make_gdb_walks_for_pc_and_names_the_levels(self) -> None:
        variables = {"OUT": DEV, "IMAGE": f"{DEV}/Image", "PROFILE": "dev", **QUIET}
        commands = "GDBCMD=break kernel_main; continue; vmw walk $pc"
        environment = {**os.environ, **variables}
        command = ["make", "gdb", commands]
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        levels = [rf"^  level {level}  {HEX}\[ *\d+\] = {HEX}  table" for level in range(3)]
        self.assertInOrder(done.stdout, "Breakpoint 1, .*kernel_main|kernel::", *levels, r"^  level 3  .*  page", r"^=> pa 0x.* EL1 r-x")

    def test_the_low_addresses_of_boot_have_their_symbols(self) -> None:
        commands = "break vmwalk::early::early_setup; break kernel_main; continue; bt 1; info symbol $pc; continue; info symbol $pc; bt 2"
        self.assertInOrder(
            self.gdb(commands),
            r"^Breakpoint 1.*early_setup .*boot/src/early.rs:\d+$",
            r"^#0  vmwalk::early::early_setup \(.*image_pa=",
            "early_setup.* in section",
            "^kernel_main.* in section",
            r"^#0  .*kernel_main \(.*boot/src/high.rs:\d+$",
        )

    def test_with_the_mmu_off_an_address_is_physical(self) -> None:
        text = self.gdb("vmw walk $pc; vmw regs; vmw ptdump; vmw diff")
        self.assertInOrder(text, "the MMU is off", r"^=> pa 0x0000000040000000$", "SCTLR_EL1 .*: MMU off", "^0 runs")

    def test_an_explicit_root_is_walked_instead(self) -> None:
        text = self.gdb(f"{AT_THE_END}; vmw walk 0xffffffff80000000 root=$TTBR1_EL1; vmw walk 0; vmw walk 0 root=$TTBR1_EL1; vmw walk 0xffffffff80000000 ttbr1")
        roots = r"TTBR0_EL1 0x4\S+, 48-bit addresses, 4K granule$"
        self.assertInOrder(text, "^=> pa ", "EPD0 disables", roots, "^  level 1 .* vacant$", "^=> pa ")

    def test_regs_are_decoded(self) -> None:
        text = self.gdb(f"{AT_THE_END}; vmw regs")
        self.assertInOrder(
            text,
            "^CPU 0 at EL1$",
            "MMU on$",
            "M=1 .* WXN=1",
            "T0SZ=16 .* EPD0=1 TG0=4K",
            "T1SZ=16 .* EPD1=0 TG1=4K",
            "^TTBR0_EL1 .*walks disabled",
            "Attr1 0x04 Device-nGnRE",
            "Attr3 0xff Normal, write-back RA WA",
        )

    def test_the_dump_tells_groups_from_single_leaves(self) -> None:
        first, *more = text_runs(ROOT / DEV / "vmwalk.elf")
        start = replace(first, va=first.va + 0x1000, pa=first.pa + 0x1000, size=0x2000)
        text = self.gdb(f"{AT_THE_END}; vmw ptdump; vmw ptdump image; vmw ptdump 0xffffffff80001000+0x2000; vmw ptdump fixed")
        self.assertInOrder(
            text,
            r"^0xffff00\S+-0xffff000080000000 \S+ +\S+ L2 32M  C rw- Normal-WB     UXN PXN ISH AF$",
            r"^0xffffc0\S+ 0x000009000000     4K L3 4K   - rw- Device-nGnRE  UXN PXN OSH AF$",
            *(run.dumped("r-x") for run in (first, *more)),
            start.dumped("r-x"),
            "^1 run$",
            "^-- fixed 0xffffffff00000000-0xffffffff40000000$",
            r"^0xffffffff00200000-\S+ \S+ +\S+ L3 4K   - r-- Normal-WB",
            "^total fixed: ",
        )
        self.assertNotIn("BROKEN", text)
        self.assertNotRegex(text, r"(?m)^0x\S+-\S+ .* rwx ")

    def test_a_thousand_addresses_agree_with_the_emulator(self) -> None:
        for place in ("break kernel_main; continue", AT_THE_END):
            text = self.gdb(f"{place}; source {INSIDE}/agreement.py")
            found = re.search(r"^agreement: 1000 addresses, (\d+) mapped, (\d+) unmapped, 0 differ$", text, re.MULTILINE)
            self.assertTrue(found, text)
            assert found
            self.assertGreaterEqual(min(int(found[1]), int(found[2])), 300)

    def test_a_thousand_addresses_agree_when_entered_at_el2_with_4k_leaves(self) -> None:
        text = self.gdb(f"{AT_THE_END}; source {INSIDE}/agreement.py", EL2="1", BOOTARGS="selftest=none linear=4k")
        self.assertRegex(text, r"(?m)^agreement: 1000 addresses, .* 0 differ$")

    def test_a_corrupted_group_is_called_out(self) -> None:
        text = self.gdb(f"{AT_THE_END}; source {INSIDE}/corruption.py")
        parts = re.split(r"^== ", text, flags=re.MULTILINE)[1:]
        self.assertEqual(len(parts), 10, text)
        reasons = {"without CONT": "CONT clear", "vacant": "vacant", "another address": "output address", "read-only": "bits 7 differ"}
        for part in parts:
            title, body = part.split("\n", 1)
            if title.endswith("mended"):
                self.assertIn("WHOLE: 16 equal descriptors", body)
                self.assertNotIn("BROKEN", body)
                self.assertRegex(body, "(?m)^1 run$")
                continue
            way, member = re.fullmatch(r"level \d (.*): member (\d+)", title).groups()  # type: ignore[union-attr]
            self.assertRegex(body, rf"BROKEN GROUP:\n +\[{member}\] at 0x.*: {reasons[way]}", title)
            self.assertRegex(body, r"(?m)^=> pa .* leaf of a BROKEN GROUP", title)
            self.assertGreaterEqual(len(re.findall(r"(?m)^0x.* BROKEN GROUP$", body)), 2, title)

    def test_a_group_is_broken_as_the_docs_do_it(self) -> None:
        text = (ROOT / "docs" / "GDB.md").read_text()
        shown = text[text.index("(gdb) set language c\n") :].split("```")[0]
        commands = re.findall(r"(?m)^\(gdb\) (.*)$", shown)
        self.assertEqual(len(commands), 3)
        answer = self.gdb("; ".join((AT_THE_END, *commands)))
        broken = shown[shown.index("    BROKEN GROUP:\n") :]
        self.assertIn("CONT clear", broken)
        self.assertIn(broken, answer)

    def test_values_are_printed_as_what_they_are(self) -> None:
        text = self.gdb(f"source {INSIDE}/printers.py")
        for line in (
            "VirtAddr = va:0xffff800000001000",
            "PhysAddr = pa:0x40200000",
            "Pfn = pfn:0x40200 (pa 0x40200000)",
            "VirtRange = va:0xffff800000000000+0x100000 (1M)",
            "Descriptor = vacant",
            "Descriptor = 0x006000004000070d block 0x40000000 rw- Normal-WB",
            "Descriptor = 0x007000004000070f page 0x40000000 rw- Normal-WB C",
            "Attributes = rw- Normal-WB",
            "LeafSize = L3C (64K)",
            "LeafSize = L1 (1G)",
            "LeafSet = {64K 4K}",
            "LevelMask = {2, 3}",
            "LeafCounts = 3x2M 16x64K 5x4K",
        ):
            self.assertIn(line + "\n", text)


class Areas(Session):
    def test_areas_are_listed_with_their_leaves(self) -> None:
        text = self.gdb(f"{AT_THE_END}; vmw areas; vmw lazy")
        self.assertInOrder(
            text,
            r"^0xffffc0\S+-\S+ +4K ioremap raw guards=0\+1 pa=0x9000000 by kernel/src/lib.rs:\d+$",
            "^    1x4K  rw- Device-nGnRE$",
            r"^\d+ areas? \(.*1 raw.*\), \d+ pages with guards$",
            r"^policy: Lazy\{areas: 256, pages: 40\d\d\}$",
            "^nothing waits for a flush$",
        )

    def test_before_it_is_set_up_there_is_nothing_to_list(self) -> None:
        text = self.gdb("break kernel_main; continue; vmw areas", status=1)
        self.assertIn("the vmalloc subsystem is not set up yet", text)

    def test_an_area_shows_up_while_it_is_being_mapped(self) -> None:
        text = self.gdb("vmw trace-walk kernel::mm::areas::ioremap; vmw areas; vmw step-store; vmw step-out; vmw areas")
        before = ("ioremap owned not-ready", "^    nothing mapped$")
        self.assertInOrder(text, *before, "has returned", "ioremap owned guards", "^    1x4K  rw- Device-nGnRE$")

    @staticmethod
    def line_of(file: str, text: str) -> str:
        """Where gdb breaks for the first line of a file of vmalloc that has `text`."""
        lines = (ROOT / "kernel/vmalloc/src" / file).read_text().splitlines()
        return f"vmalloc/src/{file}:{next(number for number, line in enumerate(lines, 1) if text in line)}"

    def test_an_area_is_printed_as_what_it_is(self) -> None:
        commands = f"break {self.line_of('unmap.rs', 'self.share.is_reached_by(held')}; continue; print area"
        text = self.gdb(commands, BOOTARGS="selftest=vmalloc.vzalloc_is_zero")
        area = r"0xffffc\S+  1060K vmalloc retired guards=0\+1 by kernel/harness/src/selftest/cases/areas.rs:\d+"
        self.assertInOrder(text, rf"^\$1 = {area}$")
        self.assertNotIn("Python Exception", text)

    def test_what_a_test_holds_is_printed_as_what_it_is(self) -> None:
        text = self.gdb(f"break {self.line_of('free.rs', 'self.drain_some(Context::Waiting)')}; continue; up; up; up; info locals", BOOTARGS=MIXED)
        self.assertInOrder(text, "^leaves = 13x64K 48x4K$")
        self.assertNotIn("Python Exception", text)


class Tracing(Session):
    def test_every_leaf_of_the_linear_map_is_stepped_through(self) -> None:
        text = self.gdb(f"source {INSIDE}/linear_leaves.py")
        found = re.search(r"^leaves: (\d+) calls, (\d+) stops, (\d+) leaves chosen, (\d+) mapped, equal$", text, re.MULTILINE)
        self.assertTrue(found, text)
        assert found
        self.assertGreater(int(found[3]), 50)
        self.assertIn("sizes: 64K 2M 32M\n", text)

    def test_an_ioremap_is_followed_from_call_to_last_barrier(self) -> None:
        steps = "vmw step-leaf; vmw step-store; vmw diff; vmw step-barrier; vmw step; vmw step"
        text = self.gdb(f"vmw trace-walk kernel::mm::areas::ioremap; {steps}")
        self.assertInOrder(
            text,
            r"^kernel::mm::areas::ioremap at kernel/src/mm/areas.rs:\d+$",
            r"^level 0: enters table 0x\S+ at descriptor 384, va 0xffffc\S+, 4K to go$",
            r"^  \. store level 0 table \S+\[384]: links table",
            r"^  \. level 3: enters table",
            r"^leaf 4K \(L3\): va \S+ -> pa 0x9000000, run 4K, remaining 4K$",
            "^  not 64K  the run covers only 4K; only 4K remain$",
            r"^store level 3 table \S+: 1 descriptor$",
            r"^  \[0\] 0x0060000009000607 pa 0x9000000 - rw- Device-nGnRE$",
            r"^\+ 0xffffc\S+ 0x000009000000     4K L3 4K   - rw- Device-nGnRE  UXN PXN OSH AF$",
            "^DSB ISHST$",
            "^ISB$",
            r"^kernel::mm::areas::ioremap has returned: 4 levels entered, 1 leaf chosen, \d+ stores, 0 TLBI, 1 DSB, 1 ISB$",
        )

    def test_a_vmap_of_mixed_orders_has_its_groups_appear(self) -> None:
        steps = "vmw step-leaf; vmw step-store; vmw diff; vmw areas; vmw step-out; vmw areas"
        text = self.gdb(f"vmw trace-walk kernel::mm::areas::vmap; {steps}", BOOTARGS=MIXED)
        self.assertInOrder(
            text,
            r"^kernel::mm::areas::vmap at kernel/src/mm/areas.rs:\d+$",
            r"^leaf 64K \(L3C = 16 x 4K contiguous\): va 0xffffc\S+ -> pa 0x\S+, run 64K, remaining 1M$",
            r"^  not 2M   .*the run covers only 64K; only 1M remain$",
            r"^store level 3 table \S+: 80 descriptors$",
            r"^  \[\d+\.\.\d+\] 0x\S+\.\. pa \S+ C rw- Normal-WB: 4 x 64K group$",
            r"^\+ 0xffffc\S+ \S+   256K L3 64K  C rw- Normal-WB     UXN PXN ISH AF$",
            r"^0xffffc\S+     1M vmap owned not-ready .* by kernel/harness/src/selftest/cases/mixed_orders.rs:\d+$",
            "^    5x64K  rw- Normal-WB$",
            r"^  \. leaf 4K .* \(not 64K: the frames do not follow each other for as long\)$",
            r"^  \. leaf 4K .* \(not 64K: va is \d+K past a multiple of 64K; pa is ",
            r"^  \. store level 3 table .*: 16 descriptors$",
            r"^  \. DSB ISHST$\n^  \. ISB$",
            r"^kernel::mm::areas::vmap has returned: \d levels entered, 61 leaves chosen, \d+ stores, 0 TLBI, 1 DSB, 1 ISB$",
            "^    13x64K 48x4K  rw- Normal-WB$",
        )
        leaves = re.findall(r"^(?:  \. )?leaf (64K|4K) ", text, re.MULTILINE)
        self.assertEqual((leaves.count("64K"), leaves.count("4K")), (13, 48))

    def test_its_release_is_followed_to_the_flush_and_lazy_until_then(self) -> None:
        text = self.gdb("vmw trace-walk Vmalloc::free_area; vmw step-barrier; vmw lazy; vmw step; vmw step-out; vmw lazy", BOOTARGS=MIXED)
        self.assertInOrder(
            text,
            "^vmalloc::region::Vmalloc::free_area at kernel/vmalloc/src/free.rs",
            r"^  \. store level 3 table \S+: 256 x vacant$",
            "^DSB ISHST$",
            "^an area is being freed now",
            r"^  0xffffc\S+     1M vmap retired .*, freed by kernel/harness/src/selftest/cases/mixed_orders.rs:\d+$",
            "^TLBI RVAALE1IS: va 0xffffc.*, 256 pages, .* last level$",
            r"^  \. DSB ISH$\n^  \. ISB$",
            r"has returned: .*, 1 TLBI, 2 DSB, 1 ISB$",
            "^nothing waits for a flush$",
        )
        self.assertEqual(text.count("being freed now"), 1)

    def test_under_a_lazy_policy_an_area_waits_with_what_is_to_be_invalidated(self) -> None:
        set_up = f"break kernel::mm::areas::ioremap; continue; source {INSIDE}/lazy.py; vmw lazy"
        release = "vmw trace-walk Vmalloc::free_area; vmw step-out"
        text = self.gdb(f"{set_up}; {release}; vmw lazy; vmw areas", BOOTARGS="selftest=vmalloc.vzalloc_is_zero")
        self.assertInOrder(
            text,
            r"^policy: Lazy{areas: 1000, pages: 1048576}$",
            "^nothing waits for a flush$",
            "has returned: .*, 0 TLBI, 0 DSB, 0 ISB$",
            "^CPU 0: 1 area of 266 pages waits for a flush: a TLB may still hold translations of it$",
            r"^  0xffffc\S+  1060K vmalloc retired .* by kernel/harness/src/selftest/cases/areas.rs:\d+, freed by \S+:\d+$",
            r"^  to invalidate: 0xffffc\S+\+1060K by level 3 descriptors$",
            r"^0xffffc\S+  1060K vmalloc retired .*\n    nothing mapped$",
        )

    def test_without_range_operations_each_page_is_one_tlbi(self) -> None:
        text = self.gdb("vmw trace-walk Vmalloc::free_area; vmw step-out", BOOTARGS=MIXED, CPU="cortex-a53")
        self.assertEqual(len(re.findall(r"(?m)^  \. TLBI VAALE1IS: va 0xffffc\S+, one entry, last level$", text)), 256)

    def test_the_same_happens_on_the_first_of_several_cpus(self) -> None:
        text = self.gdb("vmw trace-walk kernel::mm::areas::ioremap; vmw step-out; info threads", SMP="2")
        self.assertInOrder(text, "1 leaf chosen, .* 1 DSB, 1 ISB", r"2 +Thread 1\.2")

    def test_levels_are_stepped_through_one_by_one(self) -> None:
        text = self.gdb("vmw trace-walk kernel::mm::areas::ioremap; vmw step-level; vmw step-level; vmw step-level; vmw step-level")
        stops = re.findall(r"^level (\d): enters table", text, re.MULTILINE)
        self.assertEqual(stops, ["0", "1", "2", "3"])
        self.assertIn("ioremap has returned", text)

    def test_a_generic_function_is_found_by_its_plain_name(self) -> None:
        text = self.gdb("vmw trace-walk vmap_range_noflush; vmw step-out")
        self.assertInOrder(text, "^paging::map::vmap_range_noflush at", r"^paging::map::vmap_range_noflush has returned: 3 levels entered")

    def test_a_function_that_is_not_reached_or_not_there_fails_the_session(self) -> None:
        self.assertIn("no function no_such_function", self.gdb("vmw trace-walk no_such_function", status=1))
        self.assertIn("was not reached: the kernel has powered off", self.gdb("vmw trace-walk ioremap_np", status=1))
        self.assertIn("nothing is being traced", self.gdb("vmw step-leaf", status=1))


class Errors(Session):
    def test_what_makes_no_sense_ends_with_status_1(self) -> None:
        for commands, message in (
            ("vmw walk no_such_symbol", 'gdb: vmw walk no_such_symbol: vmw: no_such_symbol is no address: No symbol "no_such_symbol"'),
            ("vmw nonsense", "Undefined vmw command"),
            (f"{AT_THE_END}; delete; continue; vmw walk 0", "vmw: there is no machine"),
        ):
            with self.subTest(commands):
                self.assertIn(message, self.gdb(commands, status=1))

    def refused(self, before: str, expected: dict[str, str]) -> None:
        """Each command is refused with a line that begins so, in one session."""
        text = self.gdb(f"{before}source {INSIDE}/refusals.py", COMMANDS="\n".join(expected))
        self.assertNotRegex(text, "Python Exception|Traceback|Error occurred in Python")
        for command, message in expected.items():
            self.assertIn(f"\n{command} => vmw: {message}", text)

    def test_a_wrong_argument_is_one_line_that_names_it(self) -> None:
        self.refused(
            "",
            {
                "vmw walk": "usage: vmw walk VA [ttbr0|ttbr1] [root=ROOT]",
                "vmw walk 1 2": "usage: vmw walk VA [ttbr0|ttbr1] [root=ROOT]",
                "vmw walk 1 ttbr0 ttbr1": "ttbr is given twice",
                "vmw walk 1 perm=w": "perm= is no option here",
                "vmw walk foo": 'foo is no address: No symbol "foo"',
                "vmw walk 1 root=foo": 'foo is no address: No symbol "foo"',
                "vmw walk 'a b": "",
                "vmw walk 1+": "1+ is no address: ",
                'vmw walk "text"': "text is no address: ",
                "vmw ptdump nowhere": "nowhere is no range: ",
                "vmw ptdump 0x2000-0x1000": "the range 0x2000-0x1000 is empty",
                "vmw ptdump 0+0": "the range 0+0 is empty",
                "vmw ptdump 0x1000+foo": "foo is no address: ",
                "vmw ptdump 0x1000+1P": "1P is no address: ",
                "vmw ptdump 0xffffffffffff0000+1M": "the range 0xffffffffffff0000+1M goes on past the last address",
                "vmw ptdump perm=q": "perm=q: letters of rwx",
                "vmw ptdump root=0": "root= wants ttbr0 or ttbr1 beside it",
                "vmw rmap": "usage: vmw rmap PA",
                "vmw regs 1": "1: what is given by hand is NAME=VALUE, NAME one of tcr, mair",
                "vmw diff 1": "usage: vmw diff",
                "vmw areas all": "vmw areas takes nothing, not 'all'",
                "vmw trace-walk": "usage: vmw trace-walk FUNCTION",
                "vmw trace-walk no such function": "no function no such function",
                "vmw step": "nothing is being traced",
            },
        )

    def test_without_a_machine_every_command_says_so(self) -> None:
        names = ("walk 0", "ptdump", "rmap 0", "regs", "diff", "areas", "lazy", "trace-walk kernel_main", "step", "step-level", "step-leaf", "step-store", "step-barrier", "step-out")
        expected = {f"vmw {name}": "there is no machine: it is not started, or has powered off" for name in names}
        for before in (f"{AT_THE_END}; delete; continue; ", "disconnect; "):
            with self.subTest(before):
                self.refused(before, expected)

    def test_a_kernel_without_symbols_is_looked_at_all_the_same(self) -> None:
        text = self.gdb(f"{AT_THE_END}; symbol-file; vmw walk 0xffffffff80000000; vmw ptdump image; vmw regs; vmw areas", status=1)
        self.assertInOrder(text, "^=> pa 0x", "^[1-9][0-9]* runs$", "MMU on$", "vmw: ")
        self.assertNotRegex(text, "Python Exception|Traceback|Error occurred in Python")

    def test_a_size_may_have_a_suffix(self) -> None:
        text = self.gdb(f"{AT_THE_END}; vmw ptdump 0xffffffff80000000+64K; vmw ptdump 0xffffffff80000000+0x10000; vmw ptdump image")
        parts = re.split(r"(?m)^\d+ runs?\n", text[text.index("\n-- image") + 1 :])
        self.assertEqual(parts[0], parts[1])
        self.assertIn(parts[0][:18], parts[2])
        self.assertRegex(self.gdb(f"{AT_THE_END}; vmw ptdump $pc+0x1M; vmw walk kernel::arch::psci::system_off"), "(?m)^=> pa 0x.* EL1 r-x")

    def test_a_time_limit_is_for_all_commands_together_and_says_so(self) -> None:
        text = self.gdb("continue; python __import__('time').sleep(60)", status=1, TIMEOUT="3")
        self.assertIn("debug: gdb has not done all of GDBCMD within 3 s", text)


class ReleaseKernel(Session):
    def test_it_has_no_hook_points(self) -> None:
        mangled = [name for name, _ in elf.functions(ROOT / RELEASE / "vmwalk.elf")]
        names = {elf.plain_name(name) for name in mangled}
        self.assertIn("paging::leaf::largest", {elf.plain_name(name) for name, _ in elf.functions(ROOT / DEV / "vmwalk.elf")})
        self.assertGreater(len(names), 100)
        # The wrappers are in each build. Empty hooks leave nothing of what they call.
        self.assertEqual({name for name in names if "paging::trace" in name and "paging::trace::Hooked" not in name}, set())
        debug = elf.matching(ROOT / DEV / "vmwalk.elf", "paging::trace::hook::leaf_chosen")
        self.assertEqual(len(debug), 1)

    def test_it_says_so_when_asked_to_trace(self) -> None:
        text = self.gdb("vmw trace-walk kernel_main", build=RELEASE, status=1)
        self.assertIn("this kernel has no hook points: build it with PROFILE=dev", text)

    def test_it_is_looked_at_as_a_debug_kernel_is(self) -> None:
        text = self.gdb("break kernel_main; continue; vmw walk $pc; vmw ptdump; vmw regs", build=RELEASE)
        # Under the first tables, which have pages only.
        self.assertInOrder(text, "^  level 3  .*  page", "^=> pa 0x.* EL1 r-x", r"^0xffffffff80000000\S+ .* r-x Normal-WB     UXN --- ISH AF$", "MMU on$")

    def test_its_text_has_the_largest_leaves_that_fit(self) -> None:
        runs = text_runs(ROOT / RELEASE / "vmwalk.elf")
        self.assertInOrder(self.gdb(f"{AT_THE_END}; vmw ptdump image", build=RELEASE), *(run.dumped("r-x") for run in runs))


if __name__ == "__main__":
    unittest.main()
