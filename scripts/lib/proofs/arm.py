"""What the Arm ARM (DDI 0487) says, for the specifications: nothing here is taken from the kernel.

Geometry: D8.2 (translation process), tables of the 4 KB, 16 KB and 64 KB granule with 48-bit
addresses; D8.6.1 (contiguous bit). Descriptors: D8.3. TLBI operands: C5.5.
"""

from dataclasses import dataclass
from typing import Any

import claripy


@dataclass(frozen=True)
class Level:
    """One level of a walk."""

    shift: int
    """log2 of the bytes that a descriptor covers."""
    entries: int
    """Descriptors in a table of this level."""
    leaf: bool
    """Whether a descriptor may be a block or a page."""
    group: int
    """Descriptors in a contiguous group; 0 where the bit has no meaning."""


@dataclass(frozen=True)
class Granule:
    name: str
    page_shift: int
    tg: int
    """The TG field of a TLBI by range."""
    levels: dict[int, Level]
    va_bits: int = 48
    ds: bool = False
    """TCR_EL1.DS: BaseADDR of a TLBI by range counts 64 KB."""

    @property
    def base_shift(self) -> int:
        return 16 if self.ds else self.page_shift

    @property
    def page(self) -> int:
        return 1 << self.page_shift


GRANULES = {
    "4k": Granule("4K", 12, 1, {0: Level(39, 512, False, 0), 1: Level(30, 512, True, 16), 2: Level(21, 512, True, 16), 3: Level(12, 512, True, 16)}),
    "16k": Granule("16K", 14, 2, {0: Level(47, 2, False, 0), 1: Level(36, 2048, False, 0), 2: Level(25, 2048, True, 32), 3: Level(14, 2048, True, 128)}),
    "64k": Granule("64K", 16, 3, {1: Level(42, 64, False, 0), 2: Level(29, 8192, True, 32), 3: Level(16, 8192, True, 32)}),
}

WIDE = {
    "16k_52": Granule("16K, 52 bits", 14, 2, {0: Level(47, 32, False, 0), 1: Level(36, 2048, True, 0), 2: Level(25, 2048, True, 32), 3: Level(14, 2048, True, 128)}, 52, ds=True),
}
"""With FEAT_LPA2, for TLBIs alone."""


@dataclass(frozen=True)
class Leaf:
    """A leaf size: one descriptor of a level, or a contiguous group of them."""

    level: int
    group: bool
    bytes: int

    def is_in(self, allowed: Any) -> Any:
        """Whether a set, bit 2 * level and the next one for groups, contains it."""
        bit = 2 * self.level + self.group
        return allowed[bit : bit] == 1


def leaves_of(granule: Granule) -> list[Leaf]:
    """All leaf sizes, smallest first."""
    found = []
    for number, level in granule.levels.items():
        if level.leaf:
            found.append(Leaf(number, False, 1 << level.shift))
            if level.group:
                found.append(Leaf(number, True, level.group << level.shift))
    return sorted(found, key=lambda leaf: leaf.bytes)


def bv(value: int, bits: int = 64) -> Any:
    return claripy.BVV(value, bits)


def index(granule: Granule, level: int, va: Any) -> Any:
    """The descriptor that `va` selects."""
    shape = granule.levels[level]
    return claripy.LShR(va, shape.shift) & (shape.entries - 1)


def multiple(value: Any, of: int) -> Any:
    """Whether `value` is a multiple of `of`, a power of two."""
    return value & (of - 1) == 0


def implies(condition: Any, consequence: Any) -> Any:
    return claripy.Or(claripy.Not(condition), consequence)
