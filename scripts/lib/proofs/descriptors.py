"""Descriptors: encoded as D8.3 of the Arm ARM has them, and decoded to what was encoded.

Bits of a block or page, stage 1, 48-bit output addresses, no LPA2: valid 0, type 1, AttrIndx 4:2, NS 5,
AP 7:6, SH 9:8, AF 10, nG 11, output address 47:n, GP 50, DBM 51, Contiguous 52, PXN 53, UXN 54, software
58:55. 49:48 and the address below n are RES0, and so is 63 without FEAT_PBHA and the like.
"""

from collections.abc import Iterator
from typing import Any

import claripy

from .arm import GRANULES, Granule, Level, bv, implies, multiple
from .claim import Case, Claim, Mutant, Obligation
from .images import Images
from .machine import Path, Region

FIELDS = {"AttrIndx": (4, 2), "AP": (7, 6), "SH": (9, 8), "AF": (10, 10), "nG": (11, 11), "GP": (50, 50), "DBM": (51, 51), "PXN": (53, 53), "UXN": (54, 54), "software": (58, 55)}
"""The attributes, by their bits. NS has no meaning in the Non-secure state, and is not one."""


def bits(high: int, low: int) -> int:
    return (1 << high + 1) - (1 << low)


ATTRIBUTES = sum(bits(high, low) for high, low in FIELDS.values())
CONTIGUOUS = bits(52, 52)


def variables() -> tuple[Any, Any, Any, Any]:
    return tuple(claripy.BVS(name, 64, explicit_name=True) for name in ("pa", "attributes", "contiguous", "level"))


def encode(images: Images, granule: Granule, name: str) -> Iterator[Obligation]:
    """Of every leaf level: each field is where the architecture has it, and no bit anywhere else."""
    pa, attributes, contiguous, level = variables()

    def at(number: int, shape: Level) -> Obligation:
        given = [level == number, multiple(pa, 1 << shape.shift), claripy.ULT(pa, 1 << 48), claripy.ULE(contiguous, 1)]

        def of(path: Path) -> Case:
            said = path.x(0)
            claims: dict[str, Any] = {"no panic": claripy.BoolV(not path.panicked)}
            claims["valid, and the type of its level"] = said & 3 == (3 if number == 3 else 1)
            claims["the output address"] = said[47 : shape.shift] == pa[47 : shape.shift]
            for field, (high, low) in FIELDS.items():
                claims[field] = said[high:low] == attributes[high:low]
            claims["the contiguous bit"] = said[52:52] == contiguous[0:0]
            fields = 3 | ATTRIBUTES | CONTIGUOUS | bits(47, shape.shift)
            claims["no attribute reaches the address, RES0 or ignored bits"] = said & ~fields & (2**64 - 1) == 0
            return Case(path.condition, claims)

        return Obligation(given, map(of, images.shim.run(images.shim.one(f"^{name}$"), [level, pa, attributes, contiguous], given)))

    yield from (at(number, shape) for number, shape in granule.levels.items() if shape.leaf)


def links(images: Images, granule: Granule) -> Iterator[Obligation]:
    """A link: valid, of the type of a table, and nothing but the address; APTable, PXNTable and the rest are 0."""
    table = claripy.BVS("table", 64, explicit_name=True)
    given = [multiple(table, granule.page), claripy.ULT(table, 1 << 48)]
    paths = images.shim.run(images.shim.one("^shim_encode_table$"), [table], given)
    yield Obligation(given, (Case(path.condition, {"a link": path.x(0) == table | 3}) for path in paths))


def decode(images: Images, granule: Granule, key: str) -> Iterator[Obligation]:
    """Any 64 bits, at any level: decoded by the fields; and a leaf that was decoded and encoded again is the same."""
    value, level = (claripy.BVS(name, 64, explicit_name=True) for name in ("value", "level"))
    out = Region("out", 40)

    def at(number: int, shape: Level) -> Obligation:
        given = [level == number]

        def of(path: Path) -> Case:
            valid, table, contiguous, address, attributes = (path.load(out, 8 * i, 8) for i in range(5))
            claims: dict[str, Any] = {"no panic": claripy.BoolV(not path.panicked)}
            claims["valid"] = valid == value & 1
            claims["a link"] = table == (claripy.If(value & 3 == 3, bv(1), bv(0)) if number < 3 else bv(0))
            claims["contiguous"] = contiguous == value[52:52].zero_extend(63)
            claims["the address"] = address == value & bits(47, granule.page_shift)
            claims["the attributes"] = attributes == value & ATTRIBUTES
            if shape.leaf:
                proper = value & ~(ATTRIBUTES | CONTIGUOUS | bits(47, shape.shift)) & (2**64 - 1) == (3 if number == 3 else 1)
                again = address | attributes | contiguous << 52 | (3 if number == 3 else 1)
                claims["what is decoded is what was encoded"] = implies(proper, again == value)
            return Case(path.condition, claims)

        return Obligation(given + out.within(), map(of, images.shim.run(images.shim.one(f"^shim_decode_{key}$"), [value, level, out], given, [out])))

    yield from (at(number, shape) for number, shape in granule.levels.items())


def changes(images: Images, name: str) -> Iterator[Obligation]:
    """Each change of attributes changes its own bits and no others."""
    value, software = (claripy.BVS(name, 64, explicit_name=True) for name in ("value", "software"))
    out = Region("out", 40)

    def of(path: Path) -> Case:
        before = value & ATTRIBUTES
        read_only, never = bits(7, 7), bits(53, 53)
        expected = {
            "writable clears AP[2]": before & ~read_only,
            "read-only sets AP[2]": before | read_only,
            "executable clears PXN": before & ~never,
            "execute-never sets PXN": before | never,
            "software bits": before & ~bits(58, 55) | (software & 15) << 55,
        }
        return Case(path.condition, {says: path.load(out, 8 * i, 8) == right for i, (says, right) in enumerate(expected.items())})

    yield Obligation(out.within(), map(of, images.shim.run(images.shim.one(f"^{name}$"), [value, software, out], [], [out])))


def claims(images: Images) -> Iterator[Claim]:
    def all_of_them() -> Iterator[Obligation]:
        for key, granule in GRANULES.items():
            yield from encode(images, granule, "shim_encode_leaf")
            yield from links(images, granule)
            yield from decode(images, granule, key)
        yield from changes(images, "shim_attributes")

    def planted() -> Iterator[Mutant]:
        for bug, says in {1: "the attributes are not masked", 2: "the type of a block on a page", 3: "the contiguous bit one too high"}.items():
            yield Mutant(says, lambda bug=bug: encode(images, GRANULES["4k"], f"planted_encode_{bug}"))
        yield Mutant("read-only clears AP[1]", lambda: changes(images, "planted_attributes"))

    yield Claim(
        "descriptors, 4K, 16K and 64K",
        "each field in its place, nothing in RES0 or the address, any 64 bits decoded, and the same again",
        all_of_them,
        planted,
    )


