"""The gdb commands on Debian's arm64 kernels, which know nothing of vmwalk: attached to by `scripts/debug --attach`, without an ELF.

Not found by the discovery of unit tests. The stage `gdb` of scripts/test runs FourKilobytes and AtEl0, and `make soak` all classes. Where
a kernel cannot be fetched its class is skipped, with the reason.
"""

import os
import re
import socket
import subprocess
import sys
import threading
import unittest

from lib import debian_kernels, qemu_new
from lib.debian_trees import Unavailable
from lib.paths import ROOT

INSIDE = "scripts/tests/gdb_inside"
BLOCKS = "rodata=on kfence.sample_interval=0"
"""The linear map may be of blocks: neither permissions nor KFENCE want its pages one by one."""
UART = 0x900_0000
"""The PL011 of the machine `virt`."""


class Sessions(unittest.TestCase):
    """A kernel that waits for its root device, and is stopped wherever it is when gdb comes."""

    suite, package = debian_kernels.SUITE, debian_kernels.CLOUD
    cpu = "max"
    options: tuple[str, ...] = ()
    arguments = ""
    qemu = ""
    """An emulator of its own."""
    user = False
    """Whether a process runs."""
    header = ""
    """What `vmw walk` says of the upper half."""
    port = 0
    unavailable = ""
    """Why there is no kernel."""
    maxDiff = None

    def setUp(self) -> None:
        if self.unavailable:
            self.skipTest(self.unavailable)

    @classmethod
    def setUpClass(cls) -> None:
        try:
            cls.port = cls.enterClassContext(debian_kernels.booted(cls.suite, cls.package, cls.cpu, cls.options, cls.arguments, cls.qemu, cls.user))
        except Unavailable as reason:
            cls.unavailable = f"{cls.package} of {cls.suite}: {reason}"

    def gdb(self, commands: str, status: int = 0, port: int = 0) -> str:
        environment = {**os.environ, "GDBCMD": commands, "PORT": str(port or self.port), "HOST": "127.0.0.1", "SYMBOLS": "", "TIMEOUT": "240"}
        done = subprocess.run([sys.executable, "-B", "scripts/debug", "--attach"], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=260)
        self.assertEqual(done.returncode, status, done.stdout + done.stderr)
        self.assertNotRegex(done.stdout + done.stderr, "Python Exception|Traceback|Error occurred in Python")
        return done.stdout + done.stderr

    def one_session(self, commands: str, *patterns: str) -> str:
        text = self.gdb(commands)
        for pattern in patterns:
            self.assertRegex(text, f"(?m){pattern}")
        return text

    def agrees(self) -> None:
        """A walk names its tables; 1,000 addresses are as the emulator's gva2gpa has them; the dump is as the CPU's AT has it."""
        text = self.one_session(
            f"vmw walk $pc; vmw regs; source {INSIDE}/agreement.py; source {INSIDE}/translated.py; vmw walk $pc",
            self.header,
            r"^=> pa 0x[0-9a-f]{16}  \w+ leaf, EL[12] r-x",
            r"^agreement: 1000 addresses, [1-9]\d\d mapped, [1-9]\d\d unmapped, 0 differ$",
            r"^translated: \d\d+ runs, [1-9]\d\d addresses in them and [1-9]\d\d beside them, 0 answers differ$",
        )
        walks = re.findall(r"(?ms)^va 0x.*?^=> pa .*?$", text)
        self.assertEqual((len(walks), walks[0]), (2, walks[1]), "the kernel was not put back as it was")


class FourKilobytes(Sessions):
    """6.12, 4 KiB and 52 bits with TCR_EL1.DS."""

    header = r"^va 0xffff\w+  TTBR1_EL1 0x\w+, 52-bit addresses, 4K granule$"

    def test_it_agrees_with_the_emulator_and_the_cpu(self) -> None:
        self.agrees()

    def test_make_gdb_attach_takes_the_port_and_no_host_of_the_shell(self) -> None:
        command = ["make", "gdb-attach", f"PORT={self.port}", "GDBCMD=vmw walk $pc"]
        done = subprocess.run(command, cwd=ROOT, env={**os.environ, "HOST": "elsewhere.invalid"}, capture_output=True, text=True, timeout=260)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.assertRegex(done.stdout, self.header.replace("^", "(?m)^"))

    def test_types_are_those_of_its_mair(self) -> None:
        text = self.gdb(f"vmw rmap {UART:#x}; vmw rmap $pc; vmw rmap $TTBR1_EL1&~0xfff")
        # Linux has Device-nGnRE at index 4, which is vmwalk's Normal-WT.
        self.assertRegex(text, rf"(?m)^0x\w+ other: 0x\w+-0x\w+ {UART:#014x} +4K L3 4K   - rw- Device-nGnRE  UXN PXN \w+ AF")
        self.assertRegex(text, rf"(?m)^{UART:#x} is mapped at [1-9] address")
        self.assertRegex(text, r"(?m)^0x\w+ is in a table of level -1, TTBR1_EL1: descriptor \[0\] translates 0xfff0000000000000\+256T$")
        self.assertRegex(text, r"(?m)^0x\w+ linear: 0x\w+-0x\w+ 0x\w+ .* r-- Normal-WB ")

    def test_its_regions_are_told_by_its_tables(self) -> None:
        text = self.gdb("vmw ptdump; vmw ptdump image perm=x; vmw ptdump perm=wx; vmw ptdump type=dev size=2M; vmw ptdump ttbr0; vmw ptdump ttbr1 root=$TTBR1_EL1")
        everything, image, both, devices, lower, explicit = re.split(r"(?m)^\d+ runs?\n", text)[:6]
        linear = re.search(r"(?m)^-- linear (0x\w+)-(0x\w+): VA is PA \+ (0x\w+)", everything)
        self.assertTrue(linear, everything)
        assert linear
        start, end, distance = (int(part, 16) for part in linear.groups())
        self.assertEqual((end - start, start - distance & (1 << 64) - 1), (512 << 20, 0x4000_0000))
        self.assertRegex(everything, r"(?m)^total linear: 512M, ")
        self.assertRegex(everything, r"(?m)^total image: .* \d+x64K")
        runs = re.findall(r"(?m)^0x\w+-0x\w+ .*$", image)
        self.assertTrue(runs and all(" r-x Normal-WB     UXN --- ISH AF" in run for run in runs), image)
        self.assertEqual(re.findall(r"(?m)^0x\w+-0x\w+ ", both + lower), [])
        self.assertRegex(devices, r"(?m)^0x\w+-0x\w+ 0x004010000000   256M L2 2M   - rw- Device-nGnRnE")
        self.assertEqual(explicit.strip(), everything[everything.index("-- linear") :].strip())

    def test_what_is_vmwalks_says_so(self) -> None:
        for command, message in (
            ("vmw areas", "vmw areas reads structures of vmwalk, and vmwalk's ELF is not loaded"),
            ("vmw trace-walk vmap", "vmw trace-walk reads structures of vmwalk, and vmwalk's ELF is not loaded"),
            ("vmw ptdump vmalloc", "vmalloc is a region of vmwalk's address map, and vmwalk's ELF is not loaded: here it is one of user, linear, image"),
            ("vmw ptdump size=3M", "size=3M: leaves here are of 4K, 64K, 2M, 32M, 1G, 16G, 512G"),
        ):
            with self.subTest(command):
                self.assertIn(f"gdb: {command}: vmw: {message}\n", self.gdb(command, status=1))

    def test_what_it_changes_is_seen_between_two_stops(self) -> None:
        # A descriptor of the linear map is changed behind the kernel's back, and put back.
        change = f"source {INSIDE}/one_bit.py"
        text = self.gdb(f"vmw diff; stepi; vmw diff; {change}; vmw diff ttbr0; vmw diff ttbr1; {change}; vmw diff")
        self.assertRegex(
            text,
            r"(?m)^no earlier stop to compare with\n(?:.*\n)*?the tables have not changed since the last stop\n(?:.*\n)*?"
            r"the tables have not changed since the last stop\n"
            r"- 0x\w+-0x\w+ 0x\w+ +4K L3 4K .*\n\+ 0x\w+-0x\w+ 0x\w+ +4K L3 4K .* sw=0x\w+\nthe tables have not changed",
        )

    def test_what_a_stub_lacks_is_given_by_hand(self) -> None:
        registers = dict(re.findall(r"(?m)^(TCR|MAIR|SCTLR|TTBR0|TTBR1)_EL1 +(0x\w+):", self.gdb("vmw regs")))
        core = f"set tdesc filename {INSIDE}/core-registers.xml"
        self.assertIn("the stub has no register TTBR0_EL1: vmw regs ttbr0=VALUE gives it by hand", self.gdb(f"{core}; vmw walk $pc", status=1))
        given = " ".join(f"{name.lower()}={value}" for name, value in registers.items())
        text = self.gdb(f"vmw walk $pc; {core}; vmw regs {given}; vmw walk $pc")
        self.assertRegex(text, r"(?m)^given by hand: mair 0x\w+, sctlr ")
        walks = re.findall(r"(?ms)^va 0x.*?^=> pa .*?$", text)
        self.assertEqual((len(walks), walks[0]), (2, walks[1]))

    def test_a_stub_without_physical_memory_reads_the_linear_map(self) -> None:
        with WithoutPhysical(self.port) as port:
            self.assertIn("this stub cannot read physical memory (QEMU 4.1 or later can): vmw regs linear=VA", self.gdb("vmw walk $pc", status=1, port=port))
        found = re.search(r"(?m)^-- linear \S+ VA is PA \+ (0x\w+)", self.gdb("vmw ptdump"))
        assert found
        with WithoutPhysical(self.port) as port:
            text = self.gdb(f"vmw regs linear={found[1]}; vmw walk $pc; vmw ptdump image", port=port)
        self.assertRegex(text, r"(?m)^=> pa 0x[0-9a-f]{16}  \w+ leaf, EL1 r-x")
        self.assertRegex(text, r"(?m)^total image: ")


class WithoutPhysical:
    """Stands between gdb and a stub, which then knows no packet for physical memory: its name is spelled wrong on the way."""

    def __init__(self, port: int) -> None:
        self._stub = port
        self._listener = socket.create_server(("127.0.0.1", 0))

    def __enter__(self) -> int:
        threading.Thread(target=self._serve, daemon=True).start()
        return int(self._listener.getsockname()[1])

    def __exit__(self, *_: object) -> None:
        self._listener.close()

    def _serve(self) -> None:
        gdb, _ = self._listener.accept()
        with gdb, socket.create_connection(("127.0.0.1", self._stub)) as stub:
            back = threading.Thread(target=self._pass, args=(stub, gdb), daemon=True)
            back.start()
            self._pass(gdb, stub)
            back.join(5)

    @staticmethod
    def _pass(source: socket.socket, sink: socket.socket) -> None:
        try:
            while data := source.recv(1 << 16):
                # The same letters, so that the checksum of the packet stays right.
                sink.sendall(data.replace(b"Qqemu.PhyMemMode", b"Qqemu.PhyMemMoed"))
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            pass


class FortyEightBits(Sessions):
    """The same kernel on a CPU without FEAT_LPA2, and with its page-table isolation."""

    cpu = "cortex-a57"
    arguments = "kpti=on"
    header = r"^va 0xffff\w+  TTBR1_EL1 0x\w+(?:, ASID \d+)?, 48-bit addresses, 4K granule$"

    def test_it_agrees_with_the_emulator_and_the_cpu(self) -> None:
        self.agrees()


class SixteenKilobytes(Sessions):
    """16 KiB and 52 bits with TCR_EL1.DS; its image has contiguous groups of 128 pages."""

    package = "linux-image-arm64-16k"
    header = r"^va 0xffff\w+  TTBR1_EL1 0x\w+, 52-bit addresses, 16K granule$"

    def test_it_agrees_with_the_emulator_and_the_cpu(self) -> None:
        self.agrees()

    def test_groups_of_its_image_are_whole(self) -> None:
        text = self.gdb("vmw ptdump image size=2M; vmw ptdump")
        self.assertRegex(text, r"(?m)^0x\w+-0x\w+ 0x\w+ +\w+ L3 2M   C r-x")
        self.assertNotIn("BROKEN", text)


class AtEl2(Sessions):
    """A kernel that runs at EL2 with HCR_EL2.E2H, as a host of KVM does."""

    options = ("virtualization=on",)
    header = r"^va 0xffff\w+  TTBR1_EL2 0x\w+, 52-bit addresses, 4K granule$"

    def test_it_agrees_with_the_emulator_and_the_cpu(self) -> None:
        self.agrees()


class Older(Sessions):
    """6.1, 4 KiB and 48 bits, with contiguous groups in its linear map."""

    suite = "bookworm"
    arguments = BLOCKS
    header = r"^va 0xffff\w+  TTBR1_EL1 0x\w+(?:, ASID \d+)?, 48-bit addresses, 4K granule$"

    def test_it_agrees_with_the_emulator_and_the_cpu(self) -> None:
        self.agrees()

    def test_groups_of_its_linear_map_are_whole(self) -> None:
        text = self.gdb("vmw ptdump linear size=32M,64K")
        self.assertRegex(text, r"(?m)^0x\w+-0x\w+ 0x\w+ +\w+ L2 32M  C r")
        self.assertNotIn("BROKEN", text)


class AtEl0(Sessions):
    """A process runs, with tables and an ASID of its own; with page-table isolation TTBR1 has the trampoline's tables meanwhile."""

    cpu = "cortex-a57"
    arguments = "kpti=on"
    user = True

    def test_its_pages_are_those_of_ttbr0(self) -> None:
        for _ in range(50):
            text = self.gdb(f"vmw regs; vmw walk $pc; vmw ptdump; vmw ptdump el0=x; vmw ptdump el0=w ttbr0; source {INSIDE}/agreement.py")
            if "CPU 0 at EL0" in text:
                break
        regs, walk, everything, code, data = re.split(r"(?m)^va (?=0x)|^=> .*\n|^\d+ runs?\n", text)[:5]
        self.assertIn("CPU 0 at EL0", regs)
        asid = re.search(r"(?m)ASIDs of 16 bits from TTBR1, now (\d+)$", regs)
        assert asid, regs
        place = debian_kernels.TEXT
        self.assertRegex(walk, rf"(?m)^{place >> 8:#016x}\w\w  TTBR0_EL1 0x\w+, ASID {asid[1]}, 48-bit addresses, 4K granule$")
        self.assertRegex(text, r"(?m)^=> pa 0x\w+  4K leaf, EL1 r--, EL0 r-x, ")
        self.assertRegex(code, rf"(?m)^{place:#018x}-{place + 0x1000:#018x} 0x\w+ +4K L3 4K   - r-- Normal-WB     --- PXN ISH AF nG user")
        self.assertRegex(data, rf"(?m)^{debian_kernels.DATA:#018x}-\w+ 0x\w+ +4K L3 4K   - rw- Normal-WB     UXN PXN ISH AF nG user")
        # 12 KiB of trampoline are no linear map.
        self.assertNotIn("-- linear", everything)
        self.assertIn("-- image 0xffff", everything)
        upper = re.findall(r"(?m)^0xffff\w+-0xffff\w+ .*$", everything)
        self.assertTrue(0 < len(upper) < 10, everything)
        self.assertRegex(text, r"(?m)^agreement: 1000 addresses, [1-9]\d\d mapped, [1-9]\d\d unmapped, 0 differ$")


class WithIndirectPermissions(Sessions):
    """A newer emulator, whose CPU max has FEAT_S1PIE: 6.12 takes it."""

    qemu = str(qemu_new.PROGRAM)
    header = r"^va 0xffff\w+  TTBR1_EL1 0x\w+, 52-bit addresses, 4K granule$"

    @classmethod
    def setUpClass(cls) -> None:
        if qemu_new.version():
            super().setUpClass()
        else:
            cls.unavailable = "no newer QEMU is there: scripts/setup qemu-new"

    def test_it_agrees_with_the_emulator_and_the_cpu(self) -> None:
        self.agrees()

    def test_permissions_are_those_of_pir(self) -> None:
        text = self.gdb("vmw walk $pc; vmw regs; vmw ptdump image perm=x")
        self.assertRegex(text, r"(?m)^ +PIIndex=8 \(EL1 r-x, EL0 ---\) nDirty=1 ")
        self.assertRegex(text, r"(?m)^PIR_EL1 0x\w+, what EL1 may do by PIIndex: ")
        self.assertRegex(text, r"(?m)^0x\w+-.* r-x Normal-WB     UXN --- ISH AF")


if __name__ == "__main__":
    unittest.main()
