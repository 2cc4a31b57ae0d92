"""What a flush invalidates: every page that it must, at the levels that it must, and the barriers around it.

An operand is decoded by C5.5 of the Arm ARM, not by what wrote it. By VA: VA[55:12] in bits 43:0. By
range: TG 47:46, SCALE 45:44, NUM 43:39, TTL 38:37, BaseADDR 36:0, which is VA[48:12], VA[50:14] or
VA[52:16], the last for any page size with TCR_EL1.DS; (NUM + 1) << (5 * SCALE + 1) pages of the size that TG says.
"""

import functools
import operator
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import claripy

from .arm import GRANULES, WIDE, Granule, bv, implies, multiple
from .claim import Case, Claim, Mutant, Obligation, Unproven
from .images import Images
from .machine import Function, Image, Path, Region

LOGGED = {1: "DSB ISHST", 2: "DSB ISH", 3: "ISB", 4: "TLBI VAALE1IS", 5: "TLBI VAAE1IS", 6: "TLBI RVAALE1IS", 7: "TLBI RVAAE1IS", 8: "TLBI VMALLE1IS"}
"""As kernel/proof-shim/src/flush.rs numbers them."""
MOST_PAGES = 32 << 16
"""The most that one operation by range covers: NUM 31, SCALE 3."""
ALL_LEVELS = ("TLBI VAAE1IS", "TLBI RVAAE1IS")
KNOWN = ("TLBI VAALE1IS", "TLBI RVAALE1IS", "TLBI VMALLE1IS", *ALL_LEVELS)


@dataclass(frozen=True)
class Issued:
    kind: str
    operand: Any


@dataclass(frozen=True)
class Stale:
    """What a flush is asked for: from `units` to twice as many entries of its stride, in one half of the address space.

    The number is split by its leading bit, so that what follows from it, as SCALE does, is a number
    to the solvers.
    """

    granule: Granule
    stride: int
    units: int
    suffix: str = ""
    has_links: bool | None = None
    """Whether a table was unlinked; either if not given."""

    @property
    def shift(self) -> int:
        return self.granule.levels[self.stride].shift

    def variable(self, name: str, bits: int) -> Any:
        return claripy.BVS(f"{name}{self.suffix}", bits, explicit_name=True)

    @property
    def links(self) -> Any:
        return self.variable("links", 8) if self.has_links is None else bv(self.has_links, 8)

    @property
    def start(self) -> Any:
        bits = self.granule.va_bits
        half = self.variable("half", 1).sign_extend(63 - bits)
        return claripy.Concat(half, self.variable("entry", bits - self.shift), bv(0, self.shift))

    @property
    def size(self) -> Any:
        if self.units == 1:
            return bv(1 << self.shift)
        rest = self.units.bit_length() - 1
        return claripy.Concat(bv(1, 64 - rest - self.shift), self.variable("rest", rest), bv(0, self.shift))

    def given(self) -> list[Any]:
        """Its end may be 2^64."""
        last = self.start + self.size - 1
        shown = [self.variable("start", 64) == self.start, self.variable("size", 64) == self.size]
        return [claripy.ULE(self.start, last), last[63 : self.granule.va_bits] == self.start[63 : self.granule.va_bits], claripy.ULE(self.links, 1), *shown]

    def by_va(self) -> Any:
        """How many TLBIs by VA it takes."""
        return claripy.LShR(self.size, self.shift)


def extended(field: Any, bits: int) -> Any:
    """An address of which the low `bits` bits are given: the upper ones are copies of the last."""
    return field[bits - 1 : 0].sign_extend(64 - bits)


def va_of(granule: Granule, operand: Any) -> Any:
    """The page of a TLBI by VA; bits below the page are not looked at."""
    return extended(operand << 12, 56) & ~(granule.page - 1)


def range_of(granule: Granule, operand: Any) -> tuple[Any, Any]:
    """First address and bytes of a TLBI by range. One for another page size covers nothing that can be relied on."""
    scale, num, base = claripy.LShR(operand, 44) & 3, claripy.LShR(operand, 39) & 31, operand & (2**37 - 1)
    tg = claripy.LShR(operand, 46) & 3
    pages = (num + 1) << (5 * scale + 1)
    return extended(base << granule.base_shift, 37 + granule.base_shift), claripy.If(tg == granule.tg, pages << granule.page_shift, bv(0))


def any_level(issued: Issued) -> Any:
    """TTL 0: entries of any level."""
    if issued.kind.startswith("TLBI RV"):
        return claripy.LShR(issued.operand, 37) & 3 == 0
    return claripy.LShR(issued.operand, 44) & 15 == 0


def covers(granule: Granule, issued: Issued, stale: Stale, page: Any) -> Any:
    """Whether the entry of `stale`'s stride around `page` is invalidated."""
    shift = granule.levels[stale.stride].shift
    if issued.kind == "TLBI VMALLE1IS":
        return claripy.true()
    if issued.kind in ("TLBI VAALE1IS", "TLBI VAAE1IS"):
        return claripy.LShR(va_of(granule, issued.operand), shift) == claripy.LShR(page, shift)
    if issued.kind in ("TLBI RVAALE1IS", "TLBI RVAAE1IS"):
        first, size = range_of(granule, issued.operand)
        return claripy.ULT(page - first, size)
    return claripy.false()


def covers_links(issued: Issued) -> bool:
    return issued.kind in ALL_LEVELS or issued.kind == "TLBI VMALLE1IS"


def within(granule: Granule, issued: Issued, stale: Stale) -> Any:
    """Whether it covers nothing beside `stale`."""
    if "RV" in issued.kind:
        first, size = range_of(granule, issued.operand)
        return claripy.And(claripy.ULE(size, stale.size), claripy.ULE(first - stale.start, stale.size - size))
    return claripy.ULT(va_of(granule, issued.operand) - stale.start, stale.size)


def cover(granule: Granule, issued: list[Issued], stale: list[Stale], has_range: Any, most: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the TLBIs of a flush must do for all that is stale; and of that what is hard to decide."""
    claims: dict[str, Any] = {"only TLBIs": claripy.BoolV(all(i.kind in KNOWN for i in issued))}
    hard: dict[str, Any] = {}
    for nr, part in enumerate(stale):
        page = claripy.BVS(f"page{nr}", 64, explicit_name=True)
        inside = claripy.And(claripy.ULT(page - part.start, part.size), multiple(page, granule.page))
        hard[f"every page of range {nr} is covered"] = implies(inside, claripy.Or(*(covers(granule, i, part, page) for i in issued), claripy.false()))
        if len(stale) > 1:
            links = [covers(granule, i, part, page) for i in issued if covers_links(i)]
            hard[f"walk caches of range {nr}, where a table was unlinked"] = implies(claripy.And(inside, part.links == 1), claripy.Or(*links, claripy.false()))
        else:
            claims["every level, where a table was unlinked"] = implies(part.links == 1, claripy.BoolV(all(map(covers_links, issued))))
    if [i.kind for i in issued] == ["TLBI VMALLE1IS"]:
        # It must have its reason: TLBIs by VA are more than allowed, and by range they are, too.
        claims["all is flushed only above the threshold"] = claripy.UGT(total(part.by_va() for part in stale), most)
        # Pages before the first 64 KB with DS, then one operation of each SCALE, then a page.
        fewest = 2 if granule.base_shift == granule.page_shift else (1 << granule.base_shift - granule.page_shift) + 4
        ops = (claripy.LShR(claripy.LShR(part.size, granule.page_shift) - 1, 21) + fewest for part in stale)
        claims["and only where operations by range are as many"] = implies(has_range, claripy.UGT(total(ops), most))
        return claims, hard
    claims["no more than the threshold"] = claripy.ULE(bv(len(issued)), most)
    claims["all is flushed alone"] = claripy.BoolV(not any("VMALL" in i.kind for i in issued))
    claims["by range only with FEAT_TLBIRANGE"] = claripy.Or(has_range, claripy.BoolV(not any("RV" in i.kind for i in issued)))
    claims["any level (TTL 0)"] = claripy.And(*(any_level(i) for i in issued), claripy.true())
    beside = [claripy.Or(*(within(granule, i, part) for part in stale)) for i in issued if "VMALL" not in i.kind]
    hard["nothing beside it is covered"] = claripy.And(*beside, claripy.true())
    if len(stale) == 1:
        claims["last level alone where no table was unlinked"] = implies(stale[0].links == 0, claripy.BoolV(not any(i.kind in ALL_LEVELS for i in issued)))
        few = claripy.And(has_range, claripy.ULE(claripy.LShR(stale[0].size, granule.page_shift), MOST_PAGES))
        if not granule.ds:
            claims["two suffice by range, up to 2^21 pages"] = implies(few, claripy.BoolV(len(issued) <= 2))
    return claims, hard


def total(numbers: Iterable[Any]) -> Any:
    return functools.reduce(operator.add, numbers)


def sequence(issued: list[Issued], foreign: Any, repeat: Any) -> tuple[dict[str, Any], list[Issued]]:
    """The barriers around TLBIs (D8.16, K13.5.3); and the TLBIs that must cover."""
    claims: dict[str, Any] = {}
    kinds = [i.kind for i in issued]
    first = kinds[0] if kinds else ""
    claims["stores are complete before the first TLBI"] = claripy.Or(claripy.BoolV(first == "DSB ISH"), claripy.And(claripy.BoolV(first == "DSB ISHST"), claripy.Not(foreign)))
    claims["an ISB at the end, and no other"] = claripy.BoolV(kinds[-1:] == ["ISB"] and kinds.count("ISB") == 1)
    body = issued[1:-1]
    ends = [at for at, i in enumerate(body) if i.kind.startswith("DSB")]
    claims["a DSB ISH behind the TLBIs"] = claripy.BoolV(bool(ends) and body[ends[0]].kind == "DSB ISH" and ends[0] != 0)
    behind = [i.kind for i in body[ends[0] + 1 :]] if ends else []
    once_more = len(behind) == 2 and behind[0] in ALL_LEVELS and behind[1] == "DSB ISH"
    claims["once more where an erratum asks for it, and only there"] = claripy.If(repeat, claripy.BoolV(once_more), claripy.BoolV(not behind))
    return claims, body[: ends[0]] if ends else body


def bounded(granule: Granule, stale: list[Stale], has_range: Any, most: Any, bound: int) -> list[Any]:
    """Any length and any threshold, as far as no more than `bound` TLBIs are issued one by one."""
    parts = []
    for part in stale:
        pages = claripy.LShR(part.size, granule.page_shift)
        by_range = claripy.And(has_range, claripy.ULE(pages, bound * MOST_PAGES // 2))
        parts.append(claripy.Or(claripy.ULE(part.by_va(), bound), by_range))
    return [most != 0, claripy.ULE(most, 2**32 - 1), claripy.Or(claripy.ULE(most, bound), claripy.And(*parts))]


# ---- as shipped -------------------------------------------------------------------------------


def flush_late(image: Image) -> Function:
    """The flush of the kernel's own tree: what the drop of its batch calls."""
    drop = image.find(r"drop_in_place\$LT\$paging\.\.flush\.\.FlushBatch\$LT\$paging\.\.granule\.\.Granule4K\$C\$kernel\.\.mm\.\.tables\.\.KernelTables\$C\$kernel\.\.arch\.\.mmu\.\.KernelMmu\$GT\$")
    found = {f.address: f for batch in drop for f in image.calls(batch) if "flush_late" in f.name}
    if len(found) != 1:
        raise Unproven(f"{len(found)} functions flush the kernel's batch")
    return next(iter(found.values()))


def parts_of(image: Image) -> list[Function]:
    """That function and what it calls to issue TLBIs."""
    whole = flush_late(image)
    return [whole, *(f for f in image.calls(whole) if "issue_" in f.name)]


def packed(images: Images, stale: Stale) -> tuple[list[Any], Region]:
    """A pending range as the engine packs it, with the head of what holds it: by the engine's own code."""
    flags = claripy.Concat(bv(0, 48), stale.links, bv(stale.stride, 8))
    question = Region("question", 32, words=[stale.start, stale.size, flags, bv(0)])
    out = Region("out", 256)
    (path,) = images.shim.run(images.shim.one("^shim_pending_4k$"), [question, out], stale.given(), [question, out])
    return [path.load(out, 8 * i, 8) for i in range(20)], out


FIELDS = {"has_range": ("^shim_has_tlbi_range$", 1), "repeat": ("^shim_repeat_tlbi$", 1), "most": ("^shim_flush_all_above$", 4)}


def tree(images: Images) -> tuple[Region, dict[str, Any], list[Any]]:
    """The kernel's tree, its fields that a flush depends on, and what holds of any: where they are is seen by what the accessors read."""
    region = Region("tree", 256)
    fields: dict[str, Any] = {}
    words: dict[int, list[Any]] = {}
    for name, (accessor, width) in FIELDS.items():
        (path,) = images.shim.run(images.shim.one(accessor), [region], [], [region])
        (load,) = path.loads(region)
        if load.size != width:
            raise Unproven(f"{accessor} reads {load.size} bytes")
        value = claripy.BVS(name, 8 * width, explicit_name=True)
        fields[name] = value.zero_extend(64 - 8 * width)
        at = words.setdefault(load.offset // 8, [claripy.BVS(f"tree{load.offset // 8}_{i}", 8, explicit_name=True) for i in range(8)])
        for i in range(width):
            at[load.offset % 8 + i] = value[8 * i + 7 : 8 * i]
    region.words = [claripy.Concat(*reversed(words[i])) if i in words else claripy.BVS(f"tree{i}", 64, explicit_name=True) for i in range(32)]
    return region, fields, [claripy.ULE(fields["has_range"], 1), claripy.ULE(fields["repeat"], 1)]


@dataclass
class Flushed:
    """All paths of a flush by the kernel's own code."""

    given: list[Any]
    fields: dict[str, Any]
    pending: Region
    tree: Region
    paths: Iterator[Path]


def flushed(images: Images, stale: list[Stale], bound: int, image: Image) -> Flushed:
    granule = GRANULES["4k"]
    words, _ = packed(images, stale[0])
    if len(stale) > 1:
        # A count of 32 bits, then two words for each range.
        for i, part in enumerate(stale[1:], 1):
            others, _ = packed(images, part)
            words[1 + 2 * i : 3 + 2 * i] = others[1:3]
        words[0] = claripy.Concat(words[0][63:32], bv(len(stale), 32))
    pending = Region("pending", 256, words=words)
    region, fields, given = tree(images)
    for part in stale:
        given += part.given()
    given += bounded(granule, stale, fields["has_range"] == 1, fields["most"], bound)
    paths = image.run(flush_late(image), [region, pending], given, [region, pending])
    return Flushed(given + region.within() + pending.within(), fields, pending, region, paths)


def shipped(images: Images, stale: list[Stale], bound: int, image: Image | None = None) -> Iterator[Obligation]:
    """What a flush of these ranges must do."""
    found = flushed(images, stale, bound, image or images.kernel)
    has_range, repeat, most = found.fields["has_range"] == 1, found.fields["repeat"] == 1, found.fields["most"]

    def of(path: Path) -> Case:
        claims, issued = sequence(issued_by(path), claripy.false(), repeat)
        claims["no panic"] = claripy.BoolV(not path.panicked)
        easy, hard = cover(GRANULES["4k"], issued, stale, has_range, most)
        claims["nothing is pending afterwards"] = path.load(found.pending, 0, 4) == 0
        claims["the tree is as it was"] = claripy.BoolV(not path.stores(found.tree))
        return Case(path.condition, claims | easy, hard)

    yield Obligation(found.given, map(of, found.paths))


def issued_by(path: Path) -> list[Issued]:
    return [Issued(s.kind, s.operand) for s in path.system]


NOP = 0xD503_201F


def planted_in(images: Images, bound: int, tried: list[list[Stale]]) -> Iterator[Mutant]:
    """The shipped code with one instruction changed: each TLBI and barrier left out, each TLBI of all levels made one of the last."""
    # One that no path comes to is no bug: a loop by VA is for where those by range are no fewer.
    paths = [path for stale in tried for path in flushed(images, stale, bound, images.kernel).paths]
    executed = {done.address for path in paths for done in path.system}
    for function in parts_of(images.kernel):
        for address, word in images.kernel.code(function):
            kind = images.kernel.kind_at(address)
            if kind is None or address not in executed or not kind.startswith(("TLBI", "DSB", "ISB")):
                continue
            place = f"at +{address - function.address:#x} of {'issue_' + function.name.split('issue_')[1][:7] if 'issue_' in function.name else 'flush_late'}"
            yield Mutant(f"no {kind} {place}", lambda a=address: patched(images, a, NOP, bound, tried))
            if kind in ALL_LEVELS:
                yield Mutant(f"{kind} {place} for the last level alone", lambda a=address, w=word: patched(images, a, w | 4 << 5, bound, tried))


def patched(images: Images, address: int, word: int, bound: int, tried: list[list[Stale]]) -> Iterator[Obligation]:
    with images.kernel.patched(address, word) as image:
        for stale in tried:
            yield from shipped(images, stale, bound, image)


# ---- other granules ---------------------------------------------------------------------------


def logged(path: Path, log: Region) -> list[Issued]:
    """What the shim wrote down: pairs of a kind and an operand."""
    words = [a.value for a in path.stores(log)]
    if len(words) % 2:
        raise Unproven("the log is torn")
    return [Issued(LOGGED[words[i].concrete_value], words[i + 1]) for i in range(0, len(words), 2)]


def of_granule(images: Images, key: str, stale: Stale, bound: int, foreign: bool) -> Iterator[Obligation]:
    """A flush of one range, with the operands of another granule: the engine's own code, in the shim."""
    granule = stale.granule
    has_range, repeat = (claripy.BVS(name, 8, explicit_name=True) for name in ("has_range", "repeat"))
    most = claripy.BVS("most", 32, explicit_name=True)
    flags = claripy.Concat(claripy.BVS("padding", 24, explicit_name=True), bv(foreign, 8), repeat, has_range, stale.links, bv(stale.stride, 8))
    question = Region("question", 32, words=[stale.start, stale.size, flags, claripy.Concat(bv(0, 32), most)])
    log = Region("log", 16 * (bound + 16))
    wide = most.zero_extend(32)
    given = stale.given() + [claripy.ULE(f, 1) for f in (has_range, repeat)]
    given += bounded(granule, [stale], has_range == 1, wide, bound)
    paths = images.shim.run(images.shim.one(f"^shim_flush_{key}$"), [question, log], given, [question, log])

    def of(path: Path) -> Case:
        claims, issued = sequence(logged(path, log), claripy.BoolV(foreign), repeat == 1)
        claims["no panic"] = claripy.BoolV(not path.panicked)
        easy, hard = cover(granule, issued, [stale], has_range == 1, wide)
        return Case(path.condition, claims | easy, hard)

    yield Obligation(given + question.within() + log.within(), map(of, paths))


PLANTED = {
    "16k": {1: "NUM one too large", 2: "the second operation begins where the first does", 3: "a rest of one page left out"},
    "16k_52": {4: "BaseADDR in pages", 5: "an operation begins between multiples of 64 KB"},
    "64k": {1: "NUM one too large", 2: "the second operation begins where the first does", 3: "a rest of one page left out", 5: "TG of another granule"},
}


def planted_cover(images: Images, key: str, bug: int, bound: int) -> Iterator[Obligation]:
    """A copy of the division into operations by range."""
    granule = OTHER[key]
    log = Region("log", 16 * (bound + 8))
    for stale in lengths(granule, 3, FEW):
        pages = claripy.LShR(stale.size, granule.page_shift)
        given = [*stale.given(), stale.links == 1]
        paths = images.shim.run(images.shim.one(f"^planted_cover_{key}_{bug}$"), [stale.start, pages, log], given, [log])

        def of(path: Path, stale: Stale = stale) -> Case:
            return Case(path.condition, *cover(granule, logged(path, log), [stale], claripy.true(), bv(bound)))

        yield Obligation(given + log.within(), map(of, paths))


FEW = (0, 1, 4, 9, 16, 20, 21, 22)
"""Leading bits of the lengths that are looked at, in entries: around each SCALE and the most of one operation."""
OTHER = {"16k": GRANULES["16k"], "64k": GRANULES["64k"], **WIDE}
OTHERS = (0, 1, 6)
"""The same, where the operands are another granule's."""
WIDES = (0, 3)
"""The same with FEAT_LPA2: up to 15 pages, of which up to 3 lie before the first 64 KB."""
BOUND = 2
"""How many TLBIs are followed one by one."""


def lengths(granule: Granule, number: int, bits: tuple[int, ...]) -> list[Stale]:
    return [Stale(granule, number, 1 << bit) for bit in bits]


def of_bits(bits: tuple[int, ...]) -> str:
    return f"2^n to 2^(n+1) - 1 entries, n in {','.join(map(str, bits))}"


def claims(images: Images) -> Iterator[Claim]:
    four = GRANULES["4k"]

    def one() -> Iterator[Obligation]:
        for number, bits in ((3, FEW), (2, FEW[:2]), (1, FEW[:2])):
            for stale in lengths(four, number, bits):
                yield from shipped(images, [stale], BOUND)

    def two() -> Iterator[Obligation]:
        for bit in (0, 5):
            yield from shipped(images, [Stale(four, 3, 1 << bit, "0"), Stale(four, 3, 2, "1")], BOUND)

    def planted(several: bool, tried: list[list[Stale]]) -> Iterator[Mutant]:
        found = [m for m in planted_in(images, 1 if several else BOUND, tried) if ("issue_several" in m.name) == several]
        return iter(found[::3])

    pairs = [[Stale(four, 3, units, "0"), Stale(four, 3, 1, "1")] for units in (1, 2, 64, 2 * MOST_PAGES)]
    some = [[Stale(four, 3, units)] for units in (1, 2, 64, 4 * MOST_PAGES)] + pairs[:1]
    yield Claim(
        "TLBIs of a range, 4K, as shipped",
        f"every page, walk caches, nothing beside, barriers in order; {of_bits(FEW)}, every threshold, up to {BOUND} TLBIs one by one",
        one,
        lambda: planted(False, some),
    )
    yield Claim(
        "TLBIs of two ranges, 4K, as shipped",
        f"every page of both, one threshold over both; 1 or 32 to 63 pages and 2 or 3 pages, up to {BOUND} TLBIs by VA each",
        two,
        lambda: planted(True, pairs),
    )
    for key, granule in OTHER.items():
        bits = OTHERS if key in GRANULES else WIDES

        def each(key: str = key, granule: Granule = granule, bits: tuple[int, ...] = bits) -> Iterator[Obligation]:
            for stale in lengths(granule, 3, bits):
                # The shim writes down which instruction it is: that must be a number on every path.
                for links in (False, True):
                    yield from of_granule(images, key, replace(stale, has_links=links), BOUND, foreign=stale.units == 2)

        def wrong(key: str = key) -> Iterator[Mutant]:
            for bug, says in PLANTED[key].items():
                yield Mutant(says, lambda bug=bug: planted_cover(images, key, bug, 4))

        yield Claim(f"TLBIs of a range, {granule.name}", f"the same with this granule's operands; {of_bits(bits)}", each, wrong)
