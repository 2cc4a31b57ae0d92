#!/usr/bin/env -S python3 -B
"""Look in the linked code for what only silicon would show: instructions that errata or the architecture ask for, and that
an emulator never misses.

Usage: check-silicon.py vmwalk.elf

- Cortex-A53 843419: no ADRP in the last two words of a page is followed by the loads and stores that the erratum is about
  (Arm, "Cortex-A53 MPCore Software Developers Errata Notice"; the linker mends them, if it is told to).
- Cortex-A77 1508412: each read of PAR_EL1 stands between two DMB SY.
- AmpereOne AC04_CPU_23: each write to HCR_EL2 stands between a DSB and an ISB.
- The device tree's header is written back to memory before it is read with the MMU off.
- A start at EL1 writes TCR2_EL1 and SCTLR2_EL1.
"""

import struct
from collections.abc import Iterator
from pathlib import Path

from lib import script
from lib.errors import BadSetting, ScriptError, reading

DMB_SY = 0xD503_3FBF
DSB_SY = 0xD503_3F9F
ISB = 0xD503_3FDF
# Arm ARM C5.2, system instructions: the register number is in bits 4:0.
MRS_PAR_EL1 = 0xD538_7400
MSR_HCR_EL2 = 0xD51C_1100
MSR_TCR2_EL1 = 0xD518_2060
MSR_SCTLR2_EL1 = 0xD518_1060
DC_CIVAC = 0xD50B_7E20


class Code:
    """The instructions of an image, by address, and its symbols."""

    def __init__(self, words: dict[int, int], symbols: dict[str, tuple[int, int]]) -> None:
        self.words = words
        self.symbols = symbols

    @staticmethod
    def of_elf(data: bytes) -> "Code":
        if data[:6] != b"\x7fELF\x02\x01":
            raise ValueError("not a little-endian ELF64")
        (shoff,) = struct.unpack_from("<Q", data, 0x28)
        entsize, number = struct.unpack_from("<HH", data, 0x3A)
        # name, type, flags, addr, offset, size, link, info, align, entsize
        sections = [struct.unpack_from("<IIQQQQIIQQ", data, shoff + i * entsize) for i in range(number)]
        words: dict[int, int] = {}
        symbols: dict[str, tuple[int, int]] = {}
        for _, kind, flags, address, offset, size, link, _, _, _ in sections:
            if kind == 1 and flags & 4:  # SHT_PROGBITS, SHF_EXECINSTR
                words.update(zip(range(address, address + size, 4), (word for (word,) in struct.iter_unpack("<I", data[offset : offset + size & ~3])), strict=False))
            if kind == 2:  # SHT_SYMTAB
                strings = sections[link][4]
                for at in range(offset, offset + size, 24):
                    name, _, _, _, value, length = struct.unpack_from("<IBBHQQ", data, at)
                    symbols[data[strings + name : data.index(b"\0", strings + name)].decode()] = (value, length)
        return Code(words, symbols)

    def at(self, address: int) -> int:
        return self.words.get(address, 0)

    def find(self, instruction: int) -> list[int]:
        """Where `instruction` is, with any register."""
        return [address for address, word in self.words.items() if word & ~0x1F == instruction]

    def function(self, name: str) -> Iterator[int]:
        """The instructions of the function whose symbol has `name` in it, up to the next symbol if it has no size; none if there is none."""
        for symbol, (start, size) in self.symbols.items():
            if name in symbol and start in self.words:
                end = start + size if size else min((value for value, _ in self.symbols.values() if value > start), default=start)
                yield from (self.at(address) for address in range(start, end, 4))
                return


# ---- Cortex-A53 843419 ------------------------------------------------------------------------


def is_load_store(word: int) -> bool:
    """Arm ARM C4.1, "Loads and Stores": bit 27 set, bit 25 clear."""
    return word & 0x0A00_0000 == 0x0800_0000


def is_unsigned_immediate(word: int, base: int) -> bool:
    """A load or store of one register, unsigned immediate offset from `base`."""
    return word & 0x3B00_0000 == 0x3900_0000 and word >> 5 & 0x1F == base


def is_branch(word: int) -> bool:
    """Arm ARM C4.1, "Branches, Exception Generating and System instructions", without the system instructions."""
    return word & 0x1C00_0000 == 0x1400_0000 and word & 0xFF00_0000 != 0xD500_0000


def overwrites(word: int, register: int) -> bool:
    """Whether the load or store `word` leaves another value in `register`: it is loaded, or the base of a write-back."""
    vector = bool(word & 1 << 26)
    base, first, second = word >> 5 & 0x1F, word & 0x1F, word >> 10 & 0x1F
    if word & 0x3A00_0000 == 0x2800_0000:  # pairs
        writes_back = word & 0x0080_0000 != 0
        loads = bool(word & 1 << 22) and not vector
        return (writes_back and base == register) or (loads and register in (first, second))
    if word & 0x3B00_0000 == 0x1800_0000:  # literal
        return not vector and first == register
    if word & 0x3B20_0C00 in (0x3800_0400, 0x3800_0C00) and base == register:  # post- and pre-index
        return True
    return word & 0x3A00_0000 == 0x3800_0000 and not vector and bool(word & 0x00C0_0000) and first == register


def erratum_843419(code: Code) -> Iterator[str]:
    for address, word in code.words.items():
        if word & 0x9F00_0000 != 0x9000_0000 or address & 0xFFF not in (0xFF8, 0xFFC):  # ADRP
            continue
        register = word & 0x1F
        second, third, fourth = (code.at(address + 4 * i) for i in (1, 2, 3))
        if not is_load_store(second) or overwrites(second, register):
            continue
        if is_unsigned_immediate(third, register):
            yield f"{address:#x}: the sequence of Cortex-A53 843419, in three instructions"
        elif not is_branch(third) and is_unsigned_immediate(fourth, register):
            yield f"{address:#x}: the sequence of Cortex-A53 843419, in four instructions"


# ---- what has to stand beside what ------------------------------------------------------------


def par_reads(code: Code) -> Iterator[str]:
    reads = code.find(MRS_PAR_EL1)
    if not reads:
        yield "PAR_EL1 is read nowhere"
    for address in reads:
        if code.at(address - 4) != DMB_SY or code.at(address + 4) != DMB_SY:
            yield f"{address:#x}: PAR_EL1 is read without a DMB SY on both sides (Cortex-A77 1508412)"


def hcr_writes(code: Code) -> Iterator[str]:
    writes = code.find(MSR_HCR_EL2)
    if not writes:
        yield "HCR_EL2 is written nowhere"
    for address in writes:
        if code.at(address - 4) != DSB_SY or code.at(address + 4) != ISB:
            yield f"{address:#x}: HCR_EL2 is written without a DSB before it and an ISB behind it (AmpereOne AC04_CPU_23)"


def header_is_cleaned(code: Code) -> Iterator[str]:
    """The first load of a 32-bit word in `early_setup` is one of the header's."""
    for word in code.function("early_setup"):
        if word & ~0x1F == DC_CIVAC:
            return
        if word & 0xFFC0_0000 == 0xB940_0000:  # LDR Wt, [Xn, #imm]
            break
    yield "early_setup: the device tree's header is read before DC CIVAC"


def el1_registers(code: Code) -> Iterator[str]:
    for name, instruction in (("TCR2_EL1", MSR_TCR2_EL1), ("SCTLR2_EL1", MSR_SCTLR2_EL1)):
        if all(code.at(address) & 0x1F != 0x1F for address in code.find(instruction)):
            yield f"{name} is not set to 0"


CHECKS = (erratum_843419, par_reads, hcr_writes, header_is_cleaned, el1_registers)


def main(argv: list[str]) -> int:
    if len(argv) != 1:
        raise BadSetting("usage: check-silicon.py vmwalk.elf")
    with reading(argv[0]):
        code = Code.of_elf(Path(argv[0]).read_bytes())
    wrong = [line for check in CHECKS for line in check(code)]
    if wrong:
        print("\n".join(wrong))
        raise ScriptError(f"{len(wrong)} places lack what only silicon would miss")
    print(f"{len(code.words)} instructions, {len(CHECKS)} things that only silicon would show")
    return 0


if __name__ == "__main__":
    script.run("check-silicon", main)
