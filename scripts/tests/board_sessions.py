"""Boots on boards that are not virt, with the device trees that their machines have.

The stage `boot` of scripts/test runs this, and make soak, which gets a newer emulator and Debian's device trees for it.
"""

import os
import re
import selectors
import struct
import subprocess
import tempfile
import time
import unittest
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from lib import processes, qemu_new
from lib.machine import Machine
from lib.matrix import IN_TURN
from lib.paths import BUILD, ROOT, program

HOST = Machine.from_environment({"QEMU": os.environ.get("QEMU", ""), "IMAGE": os.environ.get("IMAGE", "")})
TREES = ROOT / "kernel" / "machine" / "tests" / "dtb"
RPI3 = "bcm2837-rpi-3-b.dtb"
PAGE = ROOT / "docs" / "MACHINES.md"
SOME = "tree.*,frames.*,map.*,device.*,smp.*"
SHOWN = "`tree.*`, `frames.*`, `map.*`, `device.*`, `smp.*`"
LIMIT = 600.0
"""Seconds that a boot may take: a whole suite, on a host that does other things."""
DONE = "vmwalk: done"


@cache
def boards_of(qemu: str) -> list[str]:
    machines = subprocess.run([qemu, "-M", "help"], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120)
    return [line.split()[0] for line in machines.stdout.splitlines() if line]


def emulator_with(board: str) -> str:
    """The installed emulator, else the newer one. Skips where none has the board."""
    for qemu in (HOST.qemu, *([str(qemu_new.PROGRAM)] if qemu_new.PROGRAM.exists() else [])):
        if board in boards_of(qemu):
            return qemu
    raise unittest.SkipTest(f"{HOST.qemu} has no {board}; scripts/setup qemu-new gets one that has")


def debian_tree(name: str) -> str:
    """One of Debian's, of the sample or of those that were fetched."""
    for tree in (TREES / name, *sorted((BUILD / "device-trees").rglob(name))):
        if tree.exists():
            return str(tree)
    raise unittest.SkipTest(f"{name} is not there; make device-trees fetches it")


def command(board: str, *options: str, bootargs: str) -> list[str]:
    """The emulator's command line. Skips where none has such a board."""
    qemu = emulator_with(board.split(",")[0])
    line = [qemu, "-M", board, *options, "-display", "none", "-monitor", "none", "-no-reboot", "-nic", "none"]
    return [*line, "-kernel", str(HOST.image), "-append", bootargs]


def boot(board: str, *options: str, bootargs: str, parks: bool = False) -> list[str]:
    """What the kernel prints on the board until it turns it off; if it parks, until it has nothing more to say."""
    # In turn: CPUs that no PSCI turns off spin while they wait, and a small host has two.
    process = processes.start(command(board, *IN_TURN, *options, bootargs=bootargs), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    said, deadline = b"", time.monotonic() + LIMIT
    assert process.stdout
    try:
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            while not (parks and DONE.encode() in said):
                if not selector.select(deadline - time.monotonic()):
                    raise AssertionError(f"{board}: no end within {LIMIT:g} s: {said[-600:].decode(errors='replace')}")
                data = os.read(process.stdout.fileno(), 65536)
                said += data
                if not data:
                    break
        if not parks and process.wait(60) != 0:
            raise AssertionError(f"{board}: exit {process.returncode}: {said[-600:].decode(errors='replace')}")
    finally:
        processes.end(process)
        process.stdout.close()
    return said.decode().splitlines()


@contextmanager
def changed(tree: bytes, was: bytes, now: bytes) -> Iterator[str]:
    """A device tree with other bytes, of the same number, in one property."""
    assert len(was) == len(now) and tree.count(was) == 1, (was, tree.count(was))
    with tempfile.NamedTemporaryFile(prefix="vmwalk-tree-", suffix=".dtb") as file:
        file.write(tree.replace(was, now))
        file.flush()
        yield file.name


def packed(tree: bytes) -> bytes:
    """The tree without what the emulator leaves free behind it, which it would double."""
    _, _, structure, strings, _, _, _, _, strings_size, structure_size = struct.unpack_from(">10I", tree)
    end = max(structure + structure_size, strings + strings_size)
    return tree[:4] + struct.pack(">I", end) + tree[8:end]


class Boards(unittest.TestCase):
    def assert_passed(self, said: list[str], warned_of: str | None = None) -> None:
        warnings = [line for line in said if "warning" in line and not (warned_of and warned_of in line)]
        self.assertEqual([line for line in said if line.startswith("not ok") or "FATAL" in line] + warnings, [])
        self.assertTrue(any(line.startswith("# Totals: pass:") and "fail:0" in line for line in said), said[-5:])
        self.assertEqual(said[-1], DONE)

    def assert_in_table(self, board: str, tree: str, turned_on: str, said: list[str], tests: str) -> None:
        """The page about machines has a row of what was seen."""
        text = "\n".join(said)
        found = [re.search(pattern, text) for pattern in (r"entered at (EL\d)", r"(\d+) of \1 CPUs are up", r"console: (\S+) at")]
        level, cpus, console = (match[1] if match else "none" for match in found)
        self.assertIn(f"| `{board}` | {tree} | {level} | {cpus} by {turned_on} | {console} | {tests} |\n", PAGE.read_text())

    def test_versal_with_long_names_and_ram_at_0(self) -> None:
        # Two application cores, and two of real time that run nothing here.
        said = boot("xlnx-versal-virt", "-smp", "4", "-m", "2G", "-serial", "stdio", bootargs="selftest=tree.*,frames.*")
        self.assertIn("vmwalk: RAM 0x0000000000..0x0080000000 2G", said)
        self.assert_passed(said)
        self.assert_in_table("xlnx-versal-virt", "the emulator's", "PSCI", said, "`tree.*`, `frames.*`")

    def test_a_raspberry_pi_3_by_its_mini_uart_and_spin_table(self) -> None:
        # With nothing that virt has: what needs a device of it says so, and nothing fails.
        said = boot("raspi3b", "-dtb", str(TREES / RPI3), "-serial", "null", "-serial", "stdio", bootargs="console=ttyS1,115200", parks=True)
        self.assertIn("vmwalk: RAM 0x0000000000..0x003c000000 960M", said)
        self.assert_passed(said, "passed over: console=ttyS1,115200")
        skipped = [line.partition(" # SKIP ")[2] for line in said if "SKIP" in line]
        self.assertEqual(len([reason for reason in skipped if reason.startswith("the device tree has no")]), 3, skipped)
        self.assert_in_table("raspi3b", "Debian's `bcm2837-rpi-3-b`", "spin table", said, "all")

    def test_a_raspberry_pi_3_by_its_pl011(self) -> None:
        with changed((TREES / RPI3).read_bytes(), b"serial1:115200n8\0", b"serial0:115200n8\0") as dtb:
            said = boot("raspi3b", "-dtb", dtb, "-serial", "stdio", bootargs="selftest=device.*", parks=True)
        self.assertIn("ok 1 device.the_console_runs_through_an_ioremap", said)
        self.assert_passed(said)
        self.assert_in_table("raspi3b", "the same, `stdout-path` `serial0`", "spin table", said, "`device.*`")


    def test_a_raspberry_pi_4(self) -> None:
        tree = debian_tree("bcm2711-rpi-4-b.dtb")
        said = boot("raspi4b", "-dtb", tree, "-serial", "null", "-serial", "stdio", bootargs=f"selftest={SOME}", parks=True)
        self.assert_passed(said)
        self.assert_in_table("raspi4b", "Debian's `bcm2711-rpi-4-b`", "spin table", said, SHOWN)

    def test_a_zynqmp(self) -> None:
        tree = debian_tree("zynqmp-zcu1275-revA.dtb")
        options = ("-audiodev", "none,id=none", "-smp", "4", "-m", "2G", "-serial", "stdio")
        said = boot("xlnx-zcu102", *options, "-dtb", tree, bootargs=f"selftest={SOME}")
        self.assert_passed(said)
        self.assert_in_table("xlnx-zcu102", "Debian's `zynqmp-zcu1275-revA`", "PSCI", said, SHOWN)

    def test_two_of_imx8m(self) -> None:
        for board, tree, mem in (("imx8mm-evk", "imx8mm-evk", "2G"), ("imx8mp-evk", "imx8mp-evk", "3G")):
            with self.subTest(board):
                options = ("-smp", "4", "-m", mem, "-serial", "null", "-serial", "stdio", "-dtb", debian_tree(f"{tree}.dtb"))
                said = boot(board, *options, bootargs=f"selftest={SOME}")
                self.assert_passed(said)
                self.assert_in_table(board, f"Debian's `{tree}`", "PSCI", said, SHOWN)

    def test_versal_of_the_second_generation(self) -> None:
        # Eight application cores; the emulator wants the ten of real time, too.
        said = boot("amd-versal2-virt", "-smp", "18", "-m", "2G", "-serial", "stdio", bootargs="selftest=tree.*,frames.*")
        self.assert_passed(said)
        self.assert_in_table("amd-versal2-virt", "the emulator's", "PSCI", said, "`tree.*`, `frames.*`")


class WithoutAConsole(unittest.TestCase):
    def test_what_is_printed_is_kept_for_a_debugger(self) -> None:
        with tempfile.TemporaryDirectory(prefix="vmwalk-kept-") as folder:
            tree, stub = Path(folder) / "virt.dtb", Path(folder) / "gdb"
            subprocess.run(HOST.dump_dtb_command(tree), stdin=subprocess.DEVNULL, capture_output=True, check=True, timeout=120)
            with changed(packed(tree.read_bytes()), b"arm,pl011\0arm,primecell\0", b"no-other,has-this-uart\0\0") as dtb:
                line = command("virt,gic-version=3", "-cpu", HOST.cpu, "-m", HOST.mem, "-dtb", dtb, "-serial", "stdio", "-gdb", f"unix:{stub},server=on,wait=off", bootargs="selftest=tree.*")
                emulator = processes.start(line, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
                try:
                    kept = self.kept(stub)
                    self.assertIsNone(emulator.poll(), "the machine is off, and what was kept with it")
                finally:
                    processes.end(emulator)
                    printed = emulator.communicate()[0]
        self.assertEqual(printed, b"")
        self.assertTrue(kept.startswith("vmwalk: entered at EL1, "), kept[:200])
        self.assertIn("vmwalk: warning: stdout-path names pl011@9000000, which this kernel has no driver for\\n", kept)
        self.assertIn("# Totals: pass:7 fail:0 skip:0\\nvmwalk: done\\n", kept)

    def kept(self, stub: Path) -> str:
        """What the debugger finds once the kernel has ended."""
        gdb = [program("gdb-multiarch"), "-q", "-nx", "-batch", "-ex", "set print elements 0", "-ex", f"target remote {stub}", "-ex", "set print repeats 0", "-ex", "x/s &kernel::arch::early_console::KEPT", str(HOST.image.with_name("vmwalk.elf"))]
        deadline = time.monotonic() + LIMIT
        while time.monotonic() < deadline:
            time.sleep(1)
            said = subprocess.run(gdb, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120).stdout
            if DONE in said:
                (line,) = [line for line in said.splitlines() if "KEPT" in line]
                return line[line.index('"') + 1 : line.rindex('"')]
        raise AssertionError(f"nothing is kept that ends with {DONE}: {said[-600:]}")


if __name__ == "__main__":
    unittest.main()
