"""VMSAv8-64 stage 1 translation as the registers and descriptors say it. Knows nothing of gdb.

Source: Arm ARM DDI 0487, D8.2 (translation process), D8.3 (descriptor formats), D8.4 (access control), D8.6 (other
attributes), and the registers TCR_EL1, MAIR_EL1, SCTLR_EL1, TTBRn_EL1.
"""

import re
from dataclasses import dataclass

from .memory_types import attribute_meaning, type_name

MASK = (1 << 64) - 1
LAST_LEVEL = 3

VALID = 1 << 0
TABLE_OR_PAGE = 1 << 1
AP_USER = 1 << 6
AP_READ_ONLY = 1 << 7
ACCESSED = 1 << 10
NOT_GLOBAL = 1 << 11
NT = 1 << 16
GUARDED = 1 << 50
DIRTY_MODIFIER = 1 << 51
CONTIGUOUS = 1 << 52
PXN = 1 << 53
UXN = 1 << 54
ADDRESS = 0x0000_FFFF_FFFF_F000

SOFTWARE = 0xF << 55
OWN_MAIR = 0xBB_FF44_0400
"""vmwalk's MAIR_EL1, for values of its types where no register is read (paging::MemoryType)."""

SHORT_SHAREABILITY = {0: "NSH", 1: "SH1", 2: "OSH", 3: "ISH"}
SHAREABILITY = {0: "non-shareable", 1: "reserved", 2: "outer", 3: "inner"}
GRANULES = {"4K": 12, "16K": 14, "64K": 16}
TG0 = {0: "4K", 1: "64K", 2: "16K"}
TG1 = {1: "16K", 2: "4K", 3: "64K"}
IPS_BITS = {0: 32, 1: 36, 2: 40, 3: 42, 4: 44, 5: 48, 6: 52, 7: 56}


INDIRECT = {1: "r--", 2: "--x", 3: "r-x", 5: "rw-", 6: "rw-", 7: "rwx", 8: "r--", 9: "r--", 10: "r-x", 12: "rw-", 14: "rwx"}
"""A field of PIR_EL1, overlays apart; 6 is what would be rwx and loses x, 9 a guarded control stack."""


class NotWalkable(Exception):
    """The registers describe no walk; the message says which field."""


def bits(value: int, high: int, low: int) -> int:
    return value >> low & ((1 << (high - low + 1)) - 1)


def show_size(size: int) -> str:
    """A size in bytes as paging::DisplaySize shows it: the largest unit that divides it."""
    for shift, unit in ((40, "T"), (30, "G"), (20, "M"), (10, "K")):
        if size and size % (1 << shift) == 0:
            return f"{size >> shift}{unit}"
    return str(size)


def root_of(ttbr: int, wide: bool) -> int:
    """The table in a TTBR: with output addresses of 52 bits, bits 5:2 are BADDR[51:48]."""
    return ttbr & 0x0000_FFFF_FFFF_FFC0 | (bits(ttbr, 5, 2) << 48 if wide else 0)


def explicit_root(value: int, wide: bool) -> int:
    """The table that `value` names: a physical address, or what a TTBR holds, ASID included."""
    if not wide:
        return value & 0x0000_FFFF_FFFF_FFC0
    return root_of(value, wide) if value & 0x3F or value >> 52 else value & 0x000F_FFFF_FFFF_FFC0


@dataclass(frozen=True)
class Geometry:
    """What TCR_EL1 and MAIR_EL1 make of a descriptor."""

    name: str
    pa_bits: int = 48
    """Bits of output address that a descriptor has: 52 with TCR_EL1.DS (FEAT_LPA2), and with pages of 64K where IPS says so (FEAT_LPA)."""
    mair: int = OWN_MAIR
    shareability: int = 0b11
    """TCR_EL1.SHn: with DS it is that of every leaf."""
    hardware_af: bool = False
    hardware_dirty: bool = False
    """TCR_EL1.HA and HD: hardware sets AF, and clears AP[2] where DBM is set, in one descriptor of a group."""
    indirect: tuple[int, int] | None = None
    """PIR_EL1 and PIRE0_EL1, with TCR2_EL1.PIE (FEAT_S1PIE): four bits of a leaf choose its permissions there."""

    @property
    def ds(self) -> bool:
        """OA[51:50] are where SH is otherwise."""
        return self.pa_bits == 52 and self.name != "64K"

    @property
    def address_bits(self) -> int:
        """The bits of a descriptor that hold its address."""
        return 0x0003_FFFF_FFFF_F300 if self.ds else ADDRESS

    @property
    def told_bits(self) -> int:
        """The bits of a leaf that a dump tells, and a run has in common."""
        told = VALID | TABLE_OR_PAGE | 0b111 << 2 | AP_USER | AP_READ_ONLY | ACCESSED | NOT_GLOBAL | GUARDED | DIRTY_MODIFIER | CONTIGUOUS | PXN | UXN | SOFTWARE
        return told if self.ds else told | 0b11 << 8

    def address(self, value: int) -> int:
        if self.ds:
            value = value & 0x0003_FFFF_FFFF_F000 | bits(value, 9, 8) << 50
        elif self.pa_bits == 52:
            value = value & ADDRESS & ~0xF000 | bits(value, 15, 12) << 48
        else:
            value &= ADDRESS
        return value & ~(self.page_size - 1)

    @property
    def page_shift(self) -> int:
        return GRANULES[self.name]

    @property
    def index_bits(self) -> int:
        return self.page_shift - 3

    @property
    def entries(self) -> int:
        return 1 << self.index_bits

    @property
    def page_size(self) -> int:
        return 1 << self.page_shift

    def shift(self, level: int) -> int:
        """log2 of the bytes that one descriptor of `level` covers."""
        return self.page_shift + self.index_bits * (LAST_LEVEL - level)

    def size(self, level: int) -> int:
        return 1 << self.shift(level)

    def leaf_allowed(self, level: int) -> bool:
        return level >= (1 if self.name == "4K" else 2) - (self.pa_bits == 52)

    def group(self, level: int) -> int:
        """Descriptors in a contiguous group at `level`; 1 where the bit means nothing."""
        table = {"4K": {1: 16, 2: 16, 3: 16}, "16K": {2: 32, 3: 128}, "64K": {2: 32, 3: 32}}
        return table[self.name].get(level, 1)

    def leaf_sizes(self) -> list[tuple[int, bool, int]]:
        """(level, contiguous, bytes) of every leaf, largest first."""
        found = []
        for level in range(LAST_LEVEL + 1):
            if self.leaf_allowed(level):
                found.append((level, False, self.size(level)))
                if self.group(level) > 1:
                    found.append((level, True, self.size(level) * self.group(level)))
        return sorted(found, key=lambda leaf: -leaf[2])


@dataclass(frozen=True)
class Half:
    """One of the two walks that TCR_EL1 sets up."""

    number: int
    """0 or 1, as in TTBR0 and TTBR1."""
    root: int
    va_bits: int
    geometry: Geometry
    disabled: bool
    """EPDn: a walk faults at once."""
    level: int
    """The exception level whose registers these are: 2 for a kernel at EL2 with HCR_EL2.E2H."""
    asid: int
    output_bits: int
    """Bits of address beyond which an output address is a fault (IPS)."""
    ignores_top_byte: bool
    hierarchical: bool
    """Whether permissions in table descriptors narrow what is below (not HPDn)."""

    @property
    def start(self) -> int:
        return (1 << 64) - (1 << self.va_bits) if self.number else 0

    @property
    def size(self) -> int:
        return 1 << self.va_bits

    @property
    def start_level(self) -> int:
        resolved = self.va_bits - self.geometry.page_shift
        return LAST_LEVEL + 1 - -(-resolved // self.geometry.index_bits)

    def entries(self, level: int) -> int:
        if level == self.start_level:
            return 1 << (self.va_bits - self.geometry.shift(level))
        return self.geometry.entries

    def index(self, va: int, level: int) -> int:
        return va >> self.geometry.shift(level) & (self.entries(level) - 1)

    def contains(self, va: int) -> bool:
        if self.ignores_top_byte:
            extension = MASK if va >> 55 & 1 else 0
            va = va & ((1 << 56) - 1) | extension & ~((1 << 56) - 1) & MASK
        return self.start <= va < self.start + self.size

    def describe(self) -> str:
        off = ", walks disabled (EPD)" if self.disabled else ""
        asid = f", ASID {self.asid}" if self.asid else ""
        return f"TTBR{self.number}_EL{self.level} {self.root:#x}{asid}, {self.va_bits}-bit addresses, {self.geometry.name} granule{off}"


@dataclass(frozen=True)
class Registers:
    ttbr0: int
    ttbr1: int
    tcr: int
    mair: int
    sctlr: int
    level: int = 1
    tcr2: int = 0
    pir: int = 0
    pire0: int = 0

    @property
    def indirect(self) -> bool:
        return self.tcr2 >> 1 & 1 != 0

    @property
    def asid(self) -> int:
        """The current one, from the TTBR that TCR_EL1.A1 chooses."""
        return (self.ttbr1 if self.tcr >> 22 & 1 else self.ttbr0) >> 48 & (0xFFFF if self.tcr >> 36 & 1 else 0xFF)

    @property
    def mmu_on(self) -> bool:
        return self.sctlr & 1 != 0

    @property
    def wxn(self) -> bool:
        return self.sctlr >> 19 & 1 != 0

    def half(self, number: int, root: int | None = None) -> Half:
        """The walk of TTBR`number`, from `root` instead if given."""
        tcr = self.tcr
        size = bits(tcr, 21, 16) if number else bits(tcr, 5, 0)
        granule = TG1.get(bits(tcr, 31, 30)) if number else TG0.get(bits(tcr, 15, 14))
        wide = wide_output(tcr, number)
        least = 12 if wide or granule == "64K" else 16
        if not least <= size <= 48:
            raise NotWalkable(f"TCR_EL{self.level}.T{number}SZ is {size}: not programmed (TCR_EL{self.level} = {tcr:#x})")
        if granule is None:
            raise NotWalkable(f"TCR_EL{self.level}.TG{number} has a reserved value (TCR_EL{self.level} = {tcr:#x})")
        if self.tcr2 >> 5 & 1:
            raise NotWalkable(f"TCR2_EL{self.level}.D128 is set: descriptors are of 128 bits")
        pa_bits = 52 if wide else 48
        return Half(
            number=number,
            root=root_of(self.ttbr1 if number else self.ttbr0, wide) if root is None else explicit_root(root, wide),
            va_bits=64 - size,
            geometry=Geometry(
                granule,
                pa_bits,
                self.mair,
                bits(tcr, 29, 28) if number else bits(tcr, 13, 12),
                hardware_af=bool(tcr >> 39 & 1),
                hardware_dirty=bool(tcr >> 40 & 1),
                indirect=(self.pir, self.pire0) if self.indirect else None,
            ),
            disabled=root is None and bool(tcr >> (23 if number else 7) & 1),
            level=self.level,
            asid=self.asid if root is None else 0,
            output_bits=min(IPS_BITS[bits(tcr, 34, 32)], pa_bits),
            ignores_top_byte=bool(tcr >> (38 if number else 37) & 1),
            # With PIE tables narrow nothing, as with HPD.
            hierarchical=not (tcr >> (42 if number else 41) & 1 or self.indirect),
        )

    def half_of(self, va: int, root: int | None = None) -> Half:
        """Bit 55 chooses, whatever the bits above say (Arm ARM D8.2.4)."""
        return self.half(va >> 55 & 1, root)


@dataclass(frozen=True)
class Descriptor:
    """A descriptor's value together with the level it was found at."""

    value: int
    level: int
    geometry: Geometry

    @property
    def valid(self) -> bool:
        return self.value & VALID != 0

    @property
    def vacant(self) -> bool:
        return self.value == 0

    @property
    def table(self) -> bool:
        return self.level < LAST_LEVEL and self.value & 0b11 == 0b11

    @property
    def page_bit_right(self) -> bool:
        """Bit 1 as a leaf of this level has it: set for a page, clear for a block."""
        return (self.value & TABLE_OR_PAGE != 0) == (self.level == LAST_LEVEL)

    @property
    def leaf(self) -> bool:
        """A valid leaf that this level may have."""
        return self.valid and not self.table and self.page_bit_right and self.geometry.leaf_allowed(self.level)

    @property
    def contiguous(self) -> bool:
        return self.value & CONTIGUOUS != 0

    @property
    def address(self) -> int:
        return self.geometry.address(self.value)

    @property
    def attr_index(self) -> int:
        return bits(self.value, 4, 2)

    @property
    def shareability(self) -> int:
        """Its own, or TCR_EL1's with DS."""
        return self.geometry.shareability if self.geometry.ds else bits(self.value, 9, 8)

    @property
    def memory_type(self) -> str:
        return type_name(self.geometry.mair >> 8 * self.attr_index & 0xFF)

    @property
    def software(self) -> int:
        return bits(self.value, 58, 55)

    @property
    def kind(self) -> str:
        if self.vacant:
            return "vacant"
        if self.table:
            return "table"
        if not self.valid:
            return "invalid"
        if not self.leaf:
            return "reserved"
        return "page" if self.level == LAST_LEVEL else "block"

    @property
    def writable(self) -> bool:
        """By AP[2], or since hardware makes it so at the first write."""
        return not self.value & AP_READ_ONLY or bool(self.geometry.hardware_dirty and self.value & DIRTY_MODIFIER)

    @property
    def el0(self) -> str:
        """What EL0 may do, as `rwx`. Execution does not ask AP[1]."""
        if self.geometry.indirect:
            return self.by_index(self.geometry.indirect[1])
        user = self.value & AP_USER
        return ("r" if user else "-") + ("w" if user and self.writable else "-") + ("-" if self.value & UXN else "x")

    @property
    def el1(self) -> str:
        """What EL1 may do, as `rwx`. What EL0 may write is not executable at EL1 (Arm ARM D8.4.1)."""
        if self.geometry.indirect:
            return self.by_index(self.geometry.indirect[0])
        executable = not self.value & PXN and not (self.value & AP_USER and self.writable)
        return "r" + ("w" if self.writable else "-") + ("x" if executable else "-")

    @property
    def permission_index(self) -> int:
        """PIIndex: UXN, PXN, DBM and AP[1], which mean nothing else then."""
        return bits(self.value, 54, 53) << 2 | bits(self.value, 51, 51) << 1 | bits(self.value, 6, 6)

    def by_index(self, permissions: int) -> str:
        """What PIR_EL1 or PIRE0_EL1 gives; AP[2] is nDirty, which hardware clears at a write if it may (HD)."""
        may = INDIRECT.get(permissions >> 4 * self.permission_index & 0xF, "---")
        return may.replace("w", "-") if self.value & AP_READ_ONLY and not self.geometry.hardware_dirty else may

    def narrowed(self, taken: int) -> "Descriptor":
        """The leaf with what table descriptors above it take away: bits 63:59 of all of them."""
        value = self.value
        for bit, sets, clears in ((59, PXN, 0), (60, UXN, 0), (61, 0, AP_USER), (62, AP_READ_ONLY, DIRTY_MODIFIER)):
            if taken >> bit & 1:
                value = value & ~clears | sets
        return Descriptor(value, self.level, self.geometry)

    def attributes(self) -> str:
        """As paging::Attributes shows them in a dump."""
        text = f"{self.el1} {self.memory_type}"
        if not self.value & ACCESSED:
            text += " !AF"
        if self.value & NOT_GLOBAL:
            text += " nG"
        if self.el0[:2] != "--":
            text += " user"
        if "x" in self.el0:
            text += " user-x"
        return text + self.rarer()

    def columns(self) -> str:
        """The same for a table of leaves: every field has its place."""
        never = ("x" not in self.el0, "x" not in self.el1) if self.geometry.indirect else (self.value & UXN, self.value & PXN)
        text = f"{self.el1} {self.memory_type:<13} {'UXN' if never[0] else '---'} {'PXN' if never[1] else '---'}"
        text += f" {SHORT_SHAREABILITY[self.shareability]} {'AF' if self.value & ACCESSED else '--'}"
        if self.value & NOT_GLOBAL:
            text += " nG"
        if self.el0[:2] != "--":
            text += " user"
        return text + self.rarer()

    def rarer(self) -> str:
        text = "".join(f" {name}" for bit, name in ((0 if self.geometry.indirect else DIRTY_MODIFIER, "DBM"), (GUARDED, "GP")) if self.value & bit)
        return text + (f" sw={self.software:#x}" if self.software else "")

    def fields(self) -> str:
        """Every field of a leaf, spelled out."""
        value = self.value
        access = {0: "EL1 rw", 1: "EL1 rw, EL0 rw", 2: "EL1 ro", 3: "EL1 ro, EL0 ro"}[bits(value, 7, 6)]
        permissions = f"AP={bits(value, 7, 6):02b} ({access}) UXN={bits(value, 54, 54)} PXN={bits(value, 53, 53)}"
        if self.geometry.indirect:
            permissions = f"PIIndex={self.permission_index} (EL1 {self.el1}, EL0 {self.el0}) nDirty={bits(value, 7, 7)}"
        text = (
            f"{permissions} "
            f"{'TCR.SH' if self.geometry.ds else 'SH'}={self.shareability:02b} ({SHAREABILITY[self.shareability]}) "
            f"AttrIndx={self.attr_index} ({attribute_meaning(self.geometry.mair >> 8 * self.attr_index & 0xFF)}) "
            f"AF={bits(value, 10, 10)} nG={bits(value, 11, 11)} CONT={bits(value, 52, 52)} sw={self.software:#x}"
        )
        for bit, name in ((0 if self.geometry.indirect else DIRTY_MODIFIER, "DBM"), (GUARDED, "GP"), (NT if self.level < LAST_LEVEL else 0, "nT")):
            if value & bit:
                text += f" {name}=1"
        return text

    def narrowing(self) -> str:
        """What a table descriptor takes from all that lies below it (bits 63:59)."""
        names = ((59, "PXNTable"), (60, "UXNTable"), (61, "APTable[0]"), (62, "APTable[1]"), (63, "NSTable"))
        return " ".join(name for bit, name in names if self.value >> bit & 1)


def wide_output(tcr: int, number: int) -> bool:
    """Whether descriptors of a half hold 52 bits of output address."""
    is_64k = (TG1.get(bits(tcr, 31, 30)) if number else TG0.get(bits(tcr, 15, 14))) == "64K"
    return bits(tcr, 34, 32) == 6 if is_64k else bool(tcr >> 59 & 1)


def describe_registers(registers: Registers) -> list[str]:
    """TCR, MAIR, SCTLR and the TTBRs, field by field."""
    tcr, sctlr, level = registers.tcr, registers.sctlr, registers.level
    lines = [f"SCTLR_EL{level} {sctlr:#018x}: MMU {'on' if registers.mmu_on else 'off'}"]
    named = ((0, "M"), (1, "A"), (2, "C"), (3, "SA"), (12, "I"), (19, "WXN"), (22, "EIS"), (23, "SPAN"), (25, "EE"))
    lines.append("  " + " ".join(f"{name}={sctlr >> bit & 1}" for bit, name in named))
    ips = bits(tcr, 34, 32)
    asid = f"ASIDs of {16 if tcr >> 36 & 1 else 8} bits from TTBR{tcr >> 22 & 1}"
    asid += f", now {registers.asid}" if registers.asid else ""
    lines.append(f"TCR_EL{level}   {tcr:#018x}: output addresses of {IPS_BITS[ips]} bits (IPS={ips}), {asid}")
    cache = {0: "non-cacheable", 1: "write-back RA WA", 2: "write-through RA", 3: "write-back RA"}
    for number, low in ((0, 0), (1, 16)):
        tg = TG1.get(bits(tcr, 31, 30), "reserved") if number else TG0.get(bits(tcr, 15, 14), "reserved")
        size = bits(tcr, low + 5, low)
        lines.append(
            f"  T{number}SZ={size} ({64 - size}-bit addresses) EPD{number}={tcr >> (low + 7) & 1} TG{number}={tg} "
            f"SH{number}={SHAREABILITY[bits(tcr, low + 13, low + 12)]} IRGN{number}={cache[bits(tcr, low + 9, low + 8)]} "
            f"ORGN{number}={cache[bits(tcr, low + 11, low + 10)]} "
            f"TBI{number}={tcr >> (37 + number) & 1} HPD{number}={tcr >> (41 + number) & 1}"
        )
    lines.append(f"  HA={tcr >> 39 & 1} HD={tcr >> 40 & 1} DS={tcr >> 59 & 1}")
    if registers.indirect:
        for name, register, el in (("PIR", registers.pir, "EL1"), ("PIRE0", registers.pire0, "EL0")):
            given = " ".join(INDIRECT.get(register >> 4 * index & 0xF, "---") for index in range(16))
            lines.append(f"{name}_EL{level} {register:#018x}, what {el} may do by PIIndex: {given}")
    for number, ttbr in ((0, registers.ttbr0), (1, registers.ttbr1)):
        off = " (walks disabled: EPD)" if tcr >> (23 if number else 7) & 1 else ""
        table = root_of(ttbr, wide_output(tcr, number))
        lines.append(f"TTBR{number}_EL{level} {ttbr:#018x}: table {table:#x} ASID={ttbr >> 48} CnP={ttbr & 1}{off}")
    lines.append(f"MAIR_EL{level}  {registers.mair:#018x}:")
    for index in range(8):
        attribute = registers.mair >> 8 * index & 0xFF
        lines.append(f"  Attr{index} {attribute:#04x} {attribute_meaning(attribute)}")
    return lines


def address_map(source: str, bits: int, geometry: Geometry) -> dict[str, tuple[int, int]]:
    """First and last address of each region, by the constants of kernel/src/layout.rs with `bits` of virtual address."""
    found = {"PAGE_SIZE": geometry.page_size, "ENTRIES": geometry.entries}
    listed = re.findall(r"^(?:pub )?const (\w+): \w+ = ([^;]*);", source, re.MULTILINE)
    constants = {name: " ".join(value.split()) for name, value in listed}
    waiting = {name: value for name, value in constants.items() if name not in found}
    while ready := {name: value for name, value in waiting.items() if found.keys() >= set(re.findall(r"\b[A-Z_]{2,}\b", value.replace("Granule::VA_BITS", "")))}:
        for name, value in ready.items():
            value = value.replace("Granule::VA_BITS", str(bits)).replace("0_usize.wrapping_sub", "-")
            value = re.sub(r"if (.*) \{ (.*) \} else \{ (.*) \}", r"((\2) if \1 else (\3))", value)
            value = re.sub(r"(.*)\.next_multiple_of\((.*)\)", r"-(-(\1) // (\2)) * (\2)", value)
            found[name] = eval(value, {"__builtins__": {}}, found) & MASK
            del waiting[name]
    bases = {name.removesuffix("_BASE"): value for name, value in found.items() if name.endswith("_BASE")}
    return {name.lower(): (base, found[f"{name}_END"] - 1) for name, base in bases.items() if f"{name}_END" in found}
