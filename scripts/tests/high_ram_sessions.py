"""RAM at the ends of what an image can map. The stages `boot` and `granules` of scripts/test run this, with IMAGE and VA.

The emulator's virt has it as memory that was plugged in: it takes no more of the host than is touched. It would tell of it by
ACPI, to firmware alone; so the tree that the kernel gets has the nodes added, and the image is loaded past what is called firmware.
"""

import os
import re
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

from lib.machine import Machine
from lib.matrix import ODD_IMAGE_AT, RAW_DTB_AT
from lib.memory_nodes import with_memory
from lib.paths import ROOT

VA = os.environ.get("VA") or "48"
G, T = 1 << 30, 1 << 40
LINEAR_MAP = {"48": 192 * T, "52": 2048 * T}[VA]
MEM = "1G,slots=3,maxmem=4000T"
TESTS = "tree.*,frames.*,map.*,set_memory.*,vmap.*,vmalloc.*,walkers.*"


def boot(bootargs: str, *dimms: tuple[int, int]) -> list[str]:
    """What the kernel prints with such RAM beside the first GiB, each an address and a size."""
    with tempfile.TemporaryDirectory(prefix="vmwalk-ram-") as name:
        folder = Path(name)
        tree, firmware = folder / "tree.dtb", folder / "no-firmware"
        firmware.write_bytes(bytes(4096))
        machine = Machine.from_environment({"QEMU": os.environ.get("QEMU", ""), "IMAGE": os.environ.get("IMAGE", ""), "MEM": MEM, "BOOTARGS": bootargs})
        subprocess.run(machine.dump_dtb_command(tree), stdin=subprocess.DEVNULL, capture_output=True, check=True, timeout=60)
        blob = tree.read_bytes()
        extra = ["-bios", str(firmware)]
        for number, (at, size) in enumerate(dimms):
            blob = with_memory(blob, at, size)
            extra += ["-object", f"memory-backend-ram,id=ram{number},size={size},reserve=off", "-device", f"pc-dimm,memdev=ram{number},addr={at:#x}"]
        tree.write_bytes(blob)
        command = [sys.executable, "-B", "scripts/run", "--raw", hex(ODD_IMAGE_AT), "--raw-dtb", hex(RAW_DTB_AT), "--dtb", str(tree), "--", *extra]
        environment = {**os.environ, "MEM": MEM, "BOOTARGS": bootargs, "SMP": "1"}
        done = subprocess.run(command, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=600)
    if done.returncode != 0:
        raise AssertionError(f"exit {done.returncode}: {done.stdout[-2000:]}{done.stderr}")
    return done.stdout.splitlines()


def warnings(said: list[str]) -> list[str]:
    return [line.partition("warning: ")[2] for line in said if "warning: " in line]


class HighRam(unittest.TestCase):
    def test_up_to_the_end_of_the_linear_map_is_used(self) -> None:
        lowest = {"48": 1 << 47, "52": 1 << 48}[VA]
        said = boot(f"selftest={TESTS}", (lowest, G), (LINEAR_MAP - G, G))
        self.assertEqual(warnings(said), [])
        self.assert_frames(said, 3 * G)

    def test_beyond_it_is_named_and_not_used(self) -> None:
        said = boot("selftest=tree.*,frames.*", (LINEAR_MAP - G, 3 * G))
        told = f"2G of RAM, from {LINEAR_MAP:#x} on, are beyond the linear map of this image: they are not used"
        self.assertEqual(warnings(said), [told])
        self.assert_frames(said, 2 * G)

    def test_that_the_cpu_cannot_address_is_named_and_not_used(self) -> None:
        if VA == "52":
            self.skipTest("a CPU of fewer bits does not run this image")
        # 36 bits, and each granule.
        said = boot("selftest=tree.*,frames.* id_override=0:mmfr0:0x100001", (1 << 47, G))
        self.assertEqual(warnings(said), ["1G of RAM, from 0x1000000000 on, are beyond what this CPU can address: they are not used"])
        self.assert_frames(said, G)

    def assert_frames(self, said: list[str], ram: int) -> None:
        """All but a hundredth are the allocator's."""
        free = re.search(r"frames, \d+ free \((\d+) MiB\)", "\n".join(said))
        self.assertTrue(free, said)
        assert free
        self.assertGreater(int(free[1]) << 20, ram - ram // 100)
        self.assertLessEqual(int(free[1]) << 20, ram)


if __name__ == "__main__":
    unittest.main()
