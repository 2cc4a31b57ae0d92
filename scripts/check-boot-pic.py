#!/usr/bin/env -S python3 -B
"""Prove that code which runs before the MMU is on refers to nothing by absolute address.

Usage: check-boot-pic.py vmwalk.elf

That code is in .boot.text and .boot.vectors, between __image_start and __boot_text_end. The image is linked with
--emit-relocs, so the relocations the linker applied are still there. In that range every relocation must be
PC-relative, or the low 12 bits of an address (the same wherever a multiple of 4 KiB was added), with the exceptions
named in ALLOWED; and every call and branch must stay in the range, so that nothing it runs was left out.
"""

import struct
from pathlib import Path

from lib import script
from lib.errors import BadSetting, ScriptError, reading

# ELF for the Arm 64-bit Architecture (AAELF64), "Relocation types".
RELATIVE = {
    261: "PREL32",
    273: "LD_PREL_LO19",
    274: "ADR_PREL_LO21",
    275: "ADR_PREL_PG_HI21",
    277: "ADD_ABS_LO12_NC",
    278: "LDST8_ABS_LO12_NC",
    279: "TSTBR14",
    280: "CONDBR19",
    282: "JUMP26",
    283: "CALL26",
    284: "LDST16_ABS_LO12_NC",
    285: "LDST32_ABS_LO12_NC",
    286: "LDST64_ABS_LO12_NC",
    299: "LDST128_ABS_LO12_NC",
}
BRANCHES = {279, 280, 282, 283}
ABS64 = 257
# Literals that are meant to be linked addresses: where enable_mmu goes, and with what.
ALLOWED = ("__image_size", "__boot_stack_end", "start_high", "EARLY")


class Elf:
    def __init__(self, data: bytes) -> None:
        if data[:6] != b"\x7fELF\x02\x01":
            raise ValueError("not a little-endian ELF64")
        self.data = data
        (shoff,) = struct.unpack_from("<Q", data, 0x28)
        entsize, number, names = struct.unpack_from("<HHH", data, 0x3A)
        # name, type, flags, addr, offset, size, link, info, align, entsize
        self.sections = [struct.unpack_from("<IIQQQQIIQQ", data, shoff + i * entsize) for i in range(number)]
        self.names = self.sections[names][4]

    def string(self, at: int) -> str:
        return self.data[at : self.data.index(b"\0", at)].decode()

    def content(self, address: int, size: int) -> int:
        """What was linked to `address`."""
        for _, kind, flags, start, offset, length, _, _, _, _ in self.sections:
            if kind == 1 and flags & 2 and start <= address < start + length:  # SHT_PROGBITS, SHF_ALLOC
                at = offset + address - start
                return int.from_bytes(self.data[at : at + size], "little")
        return 0

    def symbols(self, index: int) -> list[tuple[str, int]]:
        _, _, _, _, offset, size, link, _, _, _ = self.sections[index]
        strings = self.sections[link][4]
        out = []
        for at in range(offset, offset + size, 24):
            name, _, _, section, value, _ = struct.unpack_from("<IBBHQQ", self.data, at)
            label = self.string(strings + name)
            if not label and 0 < section < len(self.sections):
                label = self.string(self.names + self.sections[section][0])
            out.append((label, value))
        return out


def branch_target(where: int, kind: int, word: int) -> int:
    """Where the branch instruction `word` at `where` goes."""
    first, bits = {279: (5, 14), 280: (5, 19)}.get(kind, (0, 26))
    offset = word >> first & ((1 << bits) - 1)
    return where + 4 * (offset - (offset >> (bits - 1) << bits))


def main(argv: list[str]) -> int:
    if len(argv) != 1:
        raise BadSetting("usage: check-boot-pic.py vmwalk.elf")
    with reading(argv[0]):
        return check(Elf(Path(argv[0]).read_bytes()))


def check(elf: Elf) -> int:
    symbols = {}
    for i, section in enumerate(elf.sections):
        if section[1] == 2:  # SHT_SYMTAB
            symbols.update(elf.symbols(i))
    low, high = symbols["__image_start"], symbols["__boot_text_end"]
    allowed = {value for name, value in symbols.items() if any(part in name for part in ALLOWED)}
    seen, wrong = 0, []
    for section in elf.sections:
        if section[1] != 4:  # SHT_RELA
            continue
        table = elf.symbols(section[6])
        for at in range(section[4], section[4] + section[5], 24):
            where, info, addend = struct.unpack_from("<QQq", elf.data, at)
            if not low <= where < high or elf.sections[section[7]][3] == 0:
                continue
            seen += 1
            kind = info & 0xFFFFFFFF
            name, _ = table[info >> 32]
            # What a relocation refers to is read from what was linked: the linker may name a
            # section instead of a symbol, and with --fix-cortex-a53-843419 the section symbol that
            # it names has another value than the addend is for.
            if kind == ABS64:
                target = elf.content(where, 8)
                if target not in allowed:
                    wrong.append(f"{where:#x}: absolute address {target:#x} ({name}{addend:+#x})")
            elif kind not in RELATIVE:
                wrong.append(f"{where:#x}: relocation type {kind} to {name}")
            elif kind in BRANCHES:
                target = branch_target(where, kind, elf.content(where, 4))
                if not low <= target < high:
                    wrong.append(f"{where:#x}: branch out of .boot.text, to {target:#x} ({name}{addend:+#x})")
    if seen == 0:
        raise ScriptError("no relocation found: was the image linked with --emit-relocs?")
    if wrong:
        print("\n".join(wrong))
        raise ScriptError(f"{len(wrong)} of {seen} relocations before the MMU is on are absolute or leave .boot.text")
    print(f"{seen} relocations before the MMU is on, none absolute, no branch leaves .boot.text")
    return 0


if __name__ == "__main__":
    script.run("check-boot-pic", main)
