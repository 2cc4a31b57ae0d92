"""The emulated machine as the Makefile's variables describe it, and its command line."""

import json
import os
import re
import struct
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from . import accel, firmware, processes
from .errors import BadSetting, ScriptError
from .paths import BUILD, ROOT, program

RAM_BASE = 0x4000_0000
STUB_AT = RAM_BASE + 0x1F_0000
"""Between the emulator's own device tree, at the start of RAM, and the lowest image address."""


@dataclass(frozen=True)
class RawBoot:
    """A boot that bypasses the emulator's loader: image and device tree where we say.

    A stub enters the image as the arm64 boot protocol demands, so that the kernel sees exactly this
    tree: the emulator's loader would mend or refuse a broken one. What the protocol does not promise
    is not given either: a start at EL1 finds TCR2_EL1.PIE set, where the emulator has FEAT_TCR2 (QEMU
    11.1 has, 7.2 has not): with it no page could be accessed.
    """

    image_at: int
    dtb_at: int
    """What the kernel gets in x0."""
    dtb: Path | None = None

    def stub(self) -> bytes:
        """x1 to x3 are zero from reset."""
        code = (
            0x5800_0180,  # ldr     x0, dtb
            0x5800_01A4,  # ldr     x4, image
            0xD538_4249,  # mrs     x9, CurrentEL
            0xF100_113F,  # cmp     x9, #(1 << 2)
            0x5400_00C1,  # b.ne    1f
            0xD538_0769,  # mrs     x9, id_aa64mmfr3_el1
            0xF240_0D3F,  # tst     x9, #0xf            // TCRX
            0x5400_0060,  # b.eq    1f
            0xD280_004A,  # mov     x10, #(1 << 1)      // PIE
            0xD518_206A,  # msr     tcr2_el1, x10
            0xD61F_0080,  # 1: br   x4
            0xD503_201F,  # nop
        )
        return struct.pack(f"<{len(code)}IQQ", *code, self.dtb_at, self.image_at)


@dataclass(frozen=True)
class Machine:
    cpu: str = "max"
    smp: str = "1"
    mem: str = "1G"
    gic: str = "3"
    el2: bool = False
    bootargs: str = ""
    qemu: str = program("qemu-system-aarch64")
    image: Path = BUILD / "Image"
    initrd: Path | None = None
    firmware: str = ""
    """What loads the image, a name of lib.firmware; the emulator does if it is empty."""
    disk: Path | None = None
    """What the firmware boots from."""
    machine_options: tuple[str, ...] = ()
    accel: str = ""
    """What runs the guest on the host's CPU: kvm or hvf; the emulator translates it if it is empty."""
    extra: tuple[str, ...] = field(default=())

    @staticmethod
    def from_environment(env: Mapping[str, str]) -> "Machine":
        """Unset and empty variables mean the default, as in the Makefile."""
        plain = Machine.on(accel.parse(env.get("ACCEL", "")))
        cpu = env.get("CPU") or plain.cpu
        machine = Machine(
            # The Makefile's default says nothing.
            cpu=plain.cpu if cpu == Machine.cpu else cpu,
            smp=env.get("SMP") or plain.smp,
            mem=env.get("MEM") or plain.mem,
            gic=env.get("GIC") or plain.gic,
            el2=parse_switch("EL2", env.get("EL2", "")),
            bootargs=env.get("BOOTARGS", ""),
            qemu=env.get("QEMU") or plain.qemu,
            image=Path(env["IMAGE"]) if env.get("IMAGE") else plain.image,
            initrd=Path(env["INITRD"]) if env.get("INITRD") else None,
            firmware=env.get("FIRMWARE", ""),
            accel=plain.accel,
        )
        machine.check()
        if machine.accel:
            accel.check_host(machine.accel, machine.qemu)
        return machine

    @staticmethod
    def on(accelerator: str) -> "Machine":
        """The default machine: on the host's CPU it has the interrupt controller that the host, or the emulator there, can give."""
        if not accelerator:
            return Machine()
        return Machine(cpu="host", gic="host" if accelerator == accel.KVM else "", accel=accelerator)

    def check(self) -> None:
        """Raises BadSetting for what the emulator would take, and no kernel could run on."""
        if not re.fullmatch("0*[1-9][0-9]*", self.smp):
            raise BadSetting(f"SMP is a number of CPUs from 1 on, not {self.smp!r}")
        if self.gic not in ("2", "3", Machine.on(self.accel).gic):
            raise BadSetting(f"GIC is 2 or 3, not {self.gic!r}")
        if self.accel:
            if self.cpu != "host":
                raise BadSetting(f"CPU={self.cpu} goes without ACCEL={self.accel}, which has the host's")
            if self.el2:
                raise BadSetting(f"EL2=1 goes without ACCEL={self.accel}: EL2 is the hypervisor's")
        parse_size("MEM", self.mem)
        if self.firmware:
            firmware.of(self.firmware)
            if self.initrd:
                raise BadSetting("INITRD goes without FIRMWARE: the emulator's own loader passes it on")
        # The default is an AArch64 CPU of every emulator.
        if not self.accel and self.cpu != Machine.cpu and is_aarch64(self.qemu, self.cpu) is False:
            raise BadSetting(f"CPU={self.cpu} has no AArch64 state, which this kernel is written for")

    def check_for_tests(self) -> None:
        """Raises BadSetting for a machine with less RAM than the self-tests take."""
        needed = ram_for_tests(int(self.smp), (page_size(self.image) or 4096) // 4096)
        if parse_size("MEM", self.mem) < needed << 20:
            raise BadSetting(f"MEM={self.mem} is too little: the self-tests take MEM={needed}M with SMP={self.smp}")

    def _board(self) -> list[str]:
        options = ["virt", *([f"gic-version={self.gic}"] if self.gic else [])]
        if self.el2:
            options.append("virtualization=on")
        if self.firmware:
            options.extend(firmware.of(self.firmware).machine_options)
        options.extend(self.machine_options)
        if self.accel:
            accel.check_options(self.accel, self.extra)
            options.append(f"accel={self.accel}")
        return [
            *(self.qemu, "-M", ",".join(options), "-cpu", self.cpu, "-smp", self.smp, "-m", self.mem),
            *("-nic", "none", "-display", "none", "-monitor", "none", "-no-reboot"),
        ]

    def command(self, serial: str = "stdio") -> list[str]:
        """The emulator's command line for a boot by its own loader, or by firmware from a disk."""
        if self.firmware:
            if not self.disk:
                raise BadSetting("FIRMWARE is for make run")
            disk = f"file={self.disk},format=raw,if=virtio,readonly=on"
            return [*self._board(), "-serial", serial, "-bios", str(firmware.of(self.firmware).path()), "-drive", disk, *self.extra]
        line = [*self._board(), "-serial", serial, "-kernel", str(self.image), "-append", self.bootargs]
        if self.initrd:
            line += ["-initrd", str(self.initrd)]
        return [*line, *self.extra]

    def raw_command(self, boot: RawBoot, stub: Path, serial: str = "stdio") -> list[str]:
        """The command line for a boot through `stub`, a file that holds `boot.stub()`."""
        loads = [(self.image, boot.image_at), (stub, STUB_AT)]
        if boot.dtb:
            loads.append((boot.dtb, boot.dtb_at))
        line = [*self._board(), "-serial", serial]
        for path, at in loads:
            line += ["-device", f"loader,file={path},addr={at:#x},force-raw=on"]
        return [*line, "-device", f"loader,addr={STUB_AT:#x},cpu-num=0", *self.extra]

    def dump_dtb_command(self, target: Path) -> list[str]:
        """Writes the device tree that `command` would hand to the kernel, and exits."""
        line = self.command(serial="none")
        line[2] += f",dumpdtb={target}"
        return line


def is_aarch64(qemu: str, cpu: str) -> bool | None:
    """Returns what the emulator says of this processor; None if it says nothing of it."""
    of_cpu = {"path": "/machine/unattached/device[0]", "property": "aarch64"}
    asked = [{"execute": "qmp_capabilities"}, {"execute": "qom-get", "arguments": of_cpu, "id": "aarch64"}, {"execute": "quit"}]
    command = [qemu, "-M", "virt", "-cpu", cpu, "-display", "none", "-nic", "none", "-S", "-qmp", "stdio"]
    try:
        process = processes.start(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    except ScriptError:
        return None
    try:
        said, _ = process.communicate("\n".join(map(json.dumps, asked)).encode(), timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return None
    finally:
        processes.end(process)
    for line in said.splitlines():
        try:
            answer = json.loads(line)
        except ValueError:
            continue
        if isinstance(answer, dict) and answer.get("id") == "aarch64":
            # Processors of AArch32 alone have no such property.
            return False if "error" in answer else answer.get("return")
    return None


OUTSIDE_TESTS = 5
"""MiB: image, device tree, first tables, and what lies below the image."""


def ram_for_tests(cpus: int, times: int = 1) -> int:
    """Returns MiB: what the suite, which says it in its source, takes free, and what is never free. `times` is how large a page is, in pages of 4 KiB."""
    source = (ROOT / "kernel/harness/src/selftest/mod.rs").read_text()
    free, per_cpu = (int(re.findall(rf"const {name}: u64 = (\d+);", source)[0]) for name in ("FREE_MIB", "FREE_MIB_PER_CPU"))
    return OUTSIDE_TESTS + (free + per_cpu * (cpus - 1)) * times


def page_size(image: Path) -> int | None:
    """Returns the bytes of an image's pages, as its header says; None where there is no header."""
    try:
        header = image.read_bytes()[:64]
    except OSError:
        return None
    if len(header) < 64 or header[56:60] != b"ARM\x64":
        return None
    kind = header[24] >> 1 & 3
    return 1024 << 2 * kind if kind else None


def needs_small_pages(image: Path, what: str) -> None:
    """Raises BadSetting for an image with pages, or bits of address (VA), that `what` is not made for."""
    if (bits := os.environ.get("VA") or "48") != "48":
        raise BadSetting(f"{image} has {bits}-bit addresses, and {what} pages of 4 KiB and 48-bit addresses: VA=48 PA=48")
    size = page_size(image)
    if size not in (None, 4096):
        raise BadSetting(f"{image} has pages of {size // 1024} KiB, and {what} pages of 4 KiB: GRANULE=4K")


def parse_size(name: str, value: str) -> int:
    """Returns bytes, of what the emulator's -m takes: MiB without a unit, and perhaps more after a comma."""
    size = re.fullmatch(r"(?:size=)?(\d+)([bkmgt]?)(?:,.*)?", value, re.IGNORECASE)
    if not size or int(size[1]) == 0:
        raise BadSetting(f"{name} is a size such as 512M or 2G, not {value!r}")
    return int(size[1]) << {"b": 0, "k": 10, "": 20, "m": 20, "g": 30, "t": 40}[size[2].lower()]


def parse_switch(name: str, value: str) -> bool:
    if value in ("", "0"):
        return False
    if value == "1":
        return True
    raise BadSetting(f"{name} is 1 or 0, not {value!r}")


def parse_seconds(name: str, value: str) -> float:
    try:
        seconds = float(value)
    except ValueError:
        raise BadSetting(f"{name} is a number of seconds, not {value!r}") from None
    if not 0 < seconds < 1e6:
        raise BadSetting(f"{name} is a number of seconds above zero, not {value!r}")
    return seconds


def parallel_boots() -> int:
    """JOBS: how many emulators may run at once."""
    jobs = os.environ.get("JOBS") or "2"
    if not jobs.isdecimal() or not 1 <= int(jobs) <= 1024:
        raise BadSetting(f"JOBS is a number of boots from 1 on, not {jobs!r}")
    return int(jobs)


def asks_for_tests(bootargs: str) -> bool:
    """Whether the kernel is expected to run tests; the last of an argument counts."""
    words = bootargs.split()
    last = dict(word.split("=", 1) for word in words if "=" in word)
    return "help" not in words and last.get("selftest") not in ("none", "list") and last.get("mode", "selftest") == "selftest"
