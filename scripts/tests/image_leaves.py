"""What the kernel's text has to be mapped by: the largest leaves, from its place and size in the built ELF file and from where the emulator's loader puts the image."""

import struct
import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "gdb"))

from lib.machine import RAM_BASE  # noqa: E402
from vmwgdb.arch import Geometry, show_size  # noqa: E402

IMAGE_AT = RAM_BASE + (2 << 20)
"""Where the emulator's loader puts an image whose header says offset 0: behind the 2 MiB that begin with its own code."""

LEAF_SIZES = Geometry("4K").leaf_sizes()


@dataclass(frozen=True)
class Run:
    """Leaves of one size, one behind the other."""

    va: int
    pa: int
    size: int
    level: int
    leaf: int
    """Bytes of one leaf."""
    contiguous: bool

    def dumped(self, rights: str) -> str:
        """The start of a dump's line about it, as a pattern; both dumps, the kernel's and gdb's, have the same."""
        kind = f"L{self.level} {show_size(self.leaf):<4} {'C' if self.contiguous else '-'}"
        return rf"^{self.va:#018x}-{self.va + self.size:#018x} {self.pa:#014x} +{show_size(self.size)} {kind} {rights} Normal-WB\b"

    def levels(self) -> list[str]:
        """The levels that a walk to it goes through."""
        return [str(level) for level in range(self.level + 1)]


def runs_of(va: int, pa: int, size: int) -> list[Run]:
    """The runs that `size` bytes at `va` are, mapped to `pa` by the largest leaves that fit."""
    found: list[Run] = []
    end = va + size
    while va < end:
        level, contiguous, leaf = next(kind for kind in LEAF_SIZES if va % kind[2] == pa % kind[2] == 0 and va + kind[2] <= end)
        last = found[-1] if found else None
        if last and last.leaf == leaf:
            found[-1] = Run(last.va, last.pa, last.size + leaf, level, leaf, contiguous)
        else:
            found.append(Run(va, pa, leaf, level, leaf, contiguous))
        va, pa = va + leaf, pa + leaf
    return found


def section(elf: Path, name: str) -> tuple[int, int]:
    """Address and size of a section of an ELF file."""
    data = elf.read_bytes()
    if data[:6] != b"\x7fELF\x02\x01":
        raise ValueError(f"{elf} is no little-endian 64-bit ELF file")
    (shoff,) = struct.unpack_from("<Q", data, 40)
    shentsize, shnum, shstrndx = struct.unpack_from("<HHH", data, 58)
    headers = [struct.unpack_from("<IIQQQQIIQQ", data, shoff + i * shentsize) for i in range(shnum)]
    names = headers[shstrndx][4]
    for at, _, _, address, _, size, *_ in headers:
        if data[names + at : data.index(b"\0", names + at)] == name.encode():
            return address, size
    raise ValueError(f"{elf} has no section {name}")


def text_runs(elf: Path) -> list[Run]:
    """The runs of the text, which is at the start of the image."""
    address, size = section(elf, ".text")
    return runs_of(address, IMAGE_AT, size)
