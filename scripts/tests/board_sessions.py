"""Boots on boards that are not virt, with the device trees that the emulator gives them: the stage `boot` of scripts/test runs this."""

import os
import subprocess
import unittest

from lib.machine import Machine

HOST = Machine.from_environment({"QEMU": os.environ.get("QEMU", ""), "IMAGE": os.environ.get("IMAGE", "")})


def boot(board: str, *options: str, bootargs: str) -> list[str]:
    """What the kernel prints on the board until it turns it off. Skips where the emulator has no such board."""
    machines = subprocess.run([HOST.qemu, "-M", "help"], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120)
    if board not in [line.split()[0] for line in machines.stdout.splitlines() if line]:
        raise unittest.SkipTest(f"{HOST.qemu} has no {board}")
    command = [HOST.qemu, "-M", board, *options, "-display", "none", "-monitor", "none", "-no-reboot", "-nic", "none", "-serial", "stdio"]
    command += ["-kernel", str(HOST.image), "-append", bootargs]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=240)
    if done.returncode != 0:
        raise AssertionError(f"{board}: exit {done.returncode}: {done.stderr}")
    return done.stdout.splitlines()


class Boards(unittest.TestCase):
    def test_versal_with_long_names_and_ram_at_0(self) -> None:
        # Two application cores, and two of real time that run nothing here.
        said = boot("xlnx-versal-virt", "-smp", "4", "-m", "2G", bootargs="selftest=tree.*,frames.*")
        self.assertIn("vmwalk: RAM 0x0000000000..0x0080000000 2G", said)
        self.assertIn("vmwalk: 2 of 2 CPUs are up", said)
        self.assertEqual([line for line in said if line.startswith("not ok")], [])
        self.assertTrue(any(line.startswith("# Totals: pass:") and "fail:0" in line for line in said), said[-5:])
        self.assertEqual(said[-1], "vmwalk: done")


if __name__ == "__main__":
    unittest.main()
