"""The kernel without the harness: the stage `variants` of scripts/test runs this, with its image as IMAGE."""

import os
import re
import subprocess
import unittest

from lib.machine import Machine


def boot(bootargs: str, **variables: str) -> list[str]:
    """What the kernel says until it turns the machine off."""
    machine = Machine.from_environment({"QEMU": os.environ.get("QEMU", ""), "IMAGE": os.environ["IMAGE"], "BOOTARGS": bootargs, **variables})
    done = subprocess.run(machine.command(), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120)
    if done.returncode != 0:
        raise AssertionError(f"{bootargs}: exit {done.returncode}: {done.stderr}")
    return done.stdout.splitlines()


class TheKernelAlone(unittest.TestCase):
    def test_reports_what_it_has_set_up_and_powers_off(self) -> None:
        said = boot("", SMP="2")
        self.assertRegex("\n".join(said), r"linear .* of RAM rw-, its text and constants r--: ")
        vmalloc = re.search(r"(?m)^vmwalk:   vmalloc +(0x[0-9a-f]+)\.\.(0x[0-9a-f]+) ", "\n".join(said))
        console = re.fullmatch(r"vmwalk: console: PL011 at 0x9000000, ioremap at (0x[0-9a-f]+)", said[-3])
        assert vmalloc and console, said
        self.assertIn(int(console[1], 16), range(int(vmalloc[1], 16), int(vmalloc[2], 16)))
        self.assertEqual(said[-2:], ["vmwalk: 2 of 2 CPUs are up", "vmwalk: done"])

    def test_has_arguments_of_its_own_and_no_others(self) -> None:
        listed = boot("help")
        names = [line.partition("=")[0].strip() for line in listed[1:-2]]
        self.assertLessEqual({"log", "linear", "rodata", "errata", "id_override", "fail_page_alloc"}, set(names))
        self.assertTrue({"mode", "selftest", "selftest.break", "seed", "soak", "bench", "ptdump", "replay.break"}.isdisjoint(names), names)
        self.assertEqual(listed[-2:], ["  help: this list", "vmwalk: done"])
        self.assertEqual(boot("selftest=none")[0], "vmwalk: warning: no boot arguments of this kernel, passed over: selftest=none (`help` lists those it has)")

    def test_says_what_its_arguments_did(self) -> None:
        said = "\n".join(boot("linear=4k rodata=on"))
        self.assertRegex(said, r"linear .* of RAM rw-, its text and constants rw-: \d+x4K\n")


if __name__ == "__main__":
    unittest.main()
