"""The kernel's boot arguments, by what it says of them itself: the stage `broken` of scripts/test runs this."""

import os
import re
import subprocess
import unittest
from itertools import pairwise

from lib.machine import Machine

DONE = "vmwalk: done"


def boot(bootargs: str) -> list[str]:
    """What a kernel with these arguments prints until it turns the machine off."""
    machine = Machine.from_environment({"QEMU": os.environ.get("QEMU", ""), "IMAGE": os.environ.get("IMAGE", ""), "BOOTARGS": bootargs})
    done = subprocess.run(machine.command(), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120)
    if done.returncode != 0:
        raise AssertionError(f"{bootargs}: exit {done.returncode}: {done.stderr}")
    return done.stdout.splitlines()


class TheBootArguments(unittest.TestCase):
    listed: list[str]
    """What `help` prints."""
    arguments: dict[str, str]
    """Of those with a value: how it is written."""

    @classmethod
    def setUpClass(cls) -> None:
        cls.listed = boot("help")
        matches = [re.fullmatch(r"  (\S+)=(\S+): (\S.*)", line) for line in cls.listed]
        cls.arguments = {match[1]: match[2] for match in matches if match}

    def test_are_listed_by_the_kernel_and_nothing_else_is_done(self) -> None:
        self.assertEqual(self.listed[0], "Boot arguments, separated by blanks:")
        self.assertEqual(self.listed[-2:], ["  help: this list", DONE])
        self.assertEqual(len(self.arguments), len(self.listed) - 3, self.listed)
        for name in ("selftest", "seed", "mode", "id_override", "bench.walkers", "replay.break", "use_huge"):
            self.assertIn(name, self.arguments)

    def test_may_be_among_those_of_linux(self) -> None:
        # A misspelt one is told, too.
        others = "no_such_argument=1 console=ttyAMA0,115200n8 root=/dev/vda1 quiet Selftest=none helpme -- single"
        first, second, *rest = boot(f"selftest=tree.audit_of_the* {others}")
        self.assertEqual(first, f"vmwalk: warning: no boot arguments of this kernel, passed over: {others} (`help` lists those it has)")
        self.assertTrue(second.startswith("vmwalk: entered at EL1, "), second)
        self.assertFalse([line for line in rest if "passed over" in line])
        self.assertEqual(rest[-2:], ["# Totals: pass:1 fail:0 skip:0", DONE])
        self.assertNotIn("passed over", boot("selftest=none seed=1")[0])
        self.assertEqual(boot("quiet help"), self.listed)

    def test_refuse_a_value_that_is_none(self) -> None:
        bad = ["selftest=a,,b", "seed=1x", "seed=-1", "seed=18446744073709551616", "errata=none,no-cont", "errata=no-cont,", "id_override=4096:midr:0x410fd0b0", "id_override=0:midi:1", "id_override=0:midr", "id_override=0:midr:1,0:midr:1,0:midr:1,0:midr:1,0:midr:1"]
        bad += ["test_vmalloc=0", "test_vmalloc=8192", "nr_pages=0", "nr_pages=1048577", "soak=0", "threads=4294967297", "ptdump=2", "linear=4K", "mode=Shell"]
        for argument in [*self.arguments, *(f"{name}=" for name in self.arguments), *bad]:
            with self.subTest(argument):
                name = argument.partition("=")[0]
                (line,) = boot(f"selftest=none {argument}")
                self.assertTrue(line.startswith(f"vmwalk: bad boot argument `{argument}`: expected {name}={self.arguments[name]}: "), line)

    def test_take_each_value_that_is_listed(self) -> None:
        choices = {name: values.split("|") for name, values in self.arguments.items() if re.fullmatch(r"[a-z0-9|-]+", values)}
        self.assertGreater(len(choices), 6)
        self.assertEqual(choices["mode"][0], "selftest")
        # The last of each counts, so the first comes last; and no fault of a replay or of the
        # kernel matters where nothing runs.
        every = [f"{name}={value}" for name, values in choices.items() for value in reversed(values)]
        other = "seed=0xffff errata=none errata=repeat-tlbi,no-cont id_override=0:midr:0x410fd0b0,1:dczid:4 fail_page_alloc=4294967296 soak=4294967296 test_vmalloc=0x1f1fff nr_pages=1048576 loops=1 threads=64 bench=x bench.walkers=none selftest=none"
        self.assertEqual(boot(f"{' '.join(every)} {other}")[-1], DONE)

    def test_have_allocations_fail_as_often_as_they_say(self) -> None:
        # Frames that are taken before the kernel is up are not refused.
        said = boot("fail_page_alloc=1 selftest=vmalloc.vzalloc*")
        self.assertNotIn("FATAL", "".join(said))
        self.assertIn("# Totals: pass:0 fail:1 skip:0", said)
        self.assertIn("# Totals: pass:1 fail:0 skip:0", boot("fail_page_alloc=4294967296 selftest=vmalloc.vzalloc*"))

    def test_list_the_self_tests(self) -> None:
        names = [line for line in boot("selftest=list") if not line.startswith("vmwalk: ")]
        self.assertGreater(len(names), 150)
        self.assertEqual(len(set(names)), len(names))
        said = boot("selftest=tree.audit_of_the*")
        self.assertIn("1..1", said)
        self.assertIn(f"ok 1 {next(name for name in names if name.startswith('tree.audit_of_the'))}", said)
        # What others rest on comes first.
        groups = [name.partition(".")[0] for name in names]
        self.assertEqual([group for group, after in pairwise(groups) if group != after][:4], ["bulk", "tree", "frames", "map"])


if __name__ == "__main__":
    unittest.main()
