"""Whether this host can run the machine on its own CPU (ACCEL), and if not, what is missing."""

import os
import platform
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from . import processes
from .errors import BadSetting, ScriptError

KVM, HVF = "kvm", "hvf"
OF_HOSTS = (KVM, HVF)
"""Those that run the guest on the host's CPU. Without ACCEL, or with tcg, the emulator translates it."""

TRANSLATES = ("-icount", "-plugin", "-accel", "-singlestep", "-one-insn-per-tb")
"""Options of the emulator that go with translation alone, or choose what ACCEL has chosen."""


def parse(value: str) -> str:
    """What ACCEL means: kvm, hvf, or nothing."""
    if value in ("", "tcg"):
        return ""
    if value in OF_HOSTS:
        return value
    raise BadSetting(f"ACCEL is kvm, hvf or tcg, not {value!r}")


@dataclass(frozen=True)
class Host:
    """What is asked of the host."""

    system: str
    machine: str
    kvm: Path = Path("/dev/kvm")

    @staticmethod
    def here() -> "Host":
        return Host(platform.system(), platform.machine())

    def missing(self, accel: str) -> str | None:
        """What the host lacks for this accelerator, in one line."""
        if accel == HVF and self.system != "Darwin":
            return f"ACCEL=hvf needs macOS, and this is {self.system}"
        if self.machine.lower() not in ("aarch64", "arm64"):
            return f"ACCEL={accel} runs the guest on the host's CPU, which has to be AArch64, and is {self.machine}"
        if accel == HVF:
            return None
        if self.system != "Linux":
            return f"ACCEL=kvm needs Linux, and this is {self.system}" + (" (ACCEL=hvf is its own)" if self.system == "Darwin" else "")
        if not self.kvm.exists():
            return f"ACCEL=kvm needs {self.kvm}, which is not there: the host's kernel lacks KVM, or does not run at EL2"
        if not os.access(self.kvm, os.R_OK | os.W_OK):
            return f"ACCEL=kvm: no permission to open {self.kvm}; its group has it"
        return None


def accelerators(qemu: str) -> list[str] | None:
    """Those that the emulator is built with; None if it does not say."""
    try:
        said = subprocess.run([processes.find(qemu), "-accel", "help"], stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", timeout=30)
    except (OSError, ScriptError, subprocess.TimeoutExpired):
        return None
    _, found, names = said.stdout.partition(":")
    return names.split() if found and not said.returncode else None


def check_host(accel: str, qemu: str, host: Host | None = None) -> None:
    """Raises BadSetting with the first thing that is missing."""
    if missing := (host or Host.here()).missing(accel):
        raise BadSetting(missing)
    built_with = accelerators(qemu)
    if built_with is not None and accel not in built_with:
        raise BadSetting(f"ACCEL={accel}: {qemu} is built without it (it has {', '.join(built_with) or 'none'})")


def check_options(accel: str, options: Iterable[str]) -> None:
    """Raises BadSetting for an option of the emulator that makes no sense with this accelerator."""
    for option in options:
        if option in TRANSLATES:
            raise BadSetting(f"{option} goes without ACCEL={accel}, which translates nothing")
