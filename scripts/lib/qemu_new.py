"""A newer QEMU than the distribution's, unpacked with all that it needs, its C library too, below BUILD/qemu-new.

Run by `scripts/setup qemu-new`. SUITE is the Debian suite that it comes from (sid).
"""

import os
import re
import sys

from . import script
from .errors import ScriptError
from .machine import is_aarch64
from .paths import BUILD
from .unpacked import Unpacked

FOLDER = BUILD.absolute() / "qemu-new"
PROGRAM = FOLDER / "bin" / "qemu-new"
QEMU = Unpacked(FOLDER, PROGRAM, "qemu-system-arm", '"$root/usr/bin/qemu-system-aarch64" -L "$root/usr/share/qemu"')


def version() -> str | None:
    """What it says of itself, if it is there and starts."""
    said = QEMU.says("--version")
    return said.splitlines()[0] if said else None


def models() -> list[str]:
    """Its models of CPUs that have AArch64 state; none if it is not there."""
    said = QEMU.says("-cpu", "help")
    names = re.findall(r"^ +((?:cortex-a|neoverse-|a64fx|max)\S*)", said or "", re.MULTILINE)
    return [name for name in names if is_aarch64(str(PROGRAM), name)]


def main(argv: list[str]) -> int:
    if not version() and "--check" not in argv:
        QEMU.unpack(os.environ.get("SUITE") or "sid")
    if not (said := version()):
        raise ScriptError(f"{PROGRAM} does not start")
    print(f"setup: {said}: {PROGRAM}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    script.run("setup", main)
