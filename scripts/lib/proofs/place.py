"""Where an area goes: what `Space::reserve` takes from a gap, and that no lower place would do.

A space has segments in order, each an area or a gap, as nodes of a tree (`tree`). Here the tree is whole: one node, or two, with
any bounds below 2^40 pages.
"""

from collections.abc import Iterator
from typing import Any

import claripy

from .arm import bv, implies
from .claim import Case, Claim, Mutant, Obligation
from .images import Images
from .machine import Image, Path, Region
from .tree import CHILD, GAP, MAX, NOP, PARENT, RANK, After, Before, Maybe, Neighbourhood, Node, balanced, has_largest, kept, node_of, there

# Of `Space`, `Fit` and what `reserve` returns, as the compiler lays them out.
SPARE, NR_SPARE, ROOT, REGION, NR_AREAS, NR_GAPS, RESERVED, SPACE_SIZE = 16, 24, 48, 56, 72, 80, 88, 96
RESERVE = "vmalloc2va5space14Space.*7reserve17"
SEARCH = "vmalloc2va5space14Space.*6search17"
# `Node<6>` is repr(C).
START, PAGES, STATE, GUARDS, CHAIN, WORDS = 16, 24, 32, 36, 40, range(48, 96, 8)
IS_GAP, IS_OWNED = 0, 1
TAKEN = 7
"""The result is an area."""
BITS = 40
"""Of a page number: 52 bits of address, pages of 4K."""
MOST = 2**BITS


def saturated(pages: Any) -> Any:
    """In 32 bits, of which the largest value says that many or more."""
    return claripy.If(claripy.ULT(pages, 2**32 - 1), pages[31:0], claripy.BVV(2**32 - 1, 32))


def short(name: str) -> Any:
    """At most `MOST`, or little above."""
    return claripy.BVS(name, BITS + 1, explicit_name=True).zero_extend(63 - BITS)


class Segments:
    """A space with a root and perhaps one child `beside` it; a request, with any alignment if none is given; two spare nodes."""

    def __init__(self, align: int | None, beside: str) -> None:
        self.left, self.right = (Maybe(Node(side, None, None)) if side == beside else None for side in ("left", "right"))
        self.root = Node("root_node", self.left, self.right)
        self.spares = [Node("spare_0"), Node("spare_1")]
        self.around = Neighbourhood(self.root, None, tuple(self.spares))
        self.nodes = [node for node in map(node_of, (self.left, self.root, self.right)) if node is not None]
        """In order."""
        for node in self.nodes:
            node.region.words[START // 8], node.region.words[PAGES // 8] = short(f"{node.name}_start"), short(f"{node.name}_pages")
        self.space_words = [claripy.BVS(f"space_{i}", 64, explicit_name=True) for i in range(SPACE_SIZE // 8)]
        self.space_words[ROOT // 8] = self.root.region.base
        self.space_words[SPARE // 8] = self.spares[0].region.base
        self.space = Region("space", SPACE_SIZE, 0x4000_0000_0000, self.space_words)
        for node, after in zip(self.spares, [self.spares[1].region.base, claripy.BVS("spare_rest", 64, explicit_name=True)]):
            node.region.words[CHAIN // 8] = after
        self.pages, self.align, self.phase, self.lead, self.trail = (claripy.BVS(n, b, explicit_name=True) for n, b in {"pages": 64, "align": 64, "phase": 64, "lead": 16, "trail": 16}.items())
        if align is not None:
            self.align = bv(align)
            self.pages = short("pages")
            self.phase = claripy.Concat(bv(0, 64 - align.bit_length() + 1), claripy.BVS("phase", align.bit_length() - 1, explicit_name=True)) if align > 1 else bv(0)
        self.fit = Region("fit", 32, 0x4000_0000_1000, [self.pages, self.align, self.phase, claripy.Concat(claripy.BVS("padding", 32, explicit_name=True), self.trail, self.lead)])
        self.texts = [claripy.BVS(f"text_{i}", 64, explicit_name=True) for i in range(len(WORDS))]
        self.words = Region("words", 48, 0x4000_0000_2000, self.texts)
        self.out = Region("out", 32, 0x4000_0000_3000)
        self.total = self.pages + self.lead.zero_extend(48) + self.trail.zero_extend(48)

    @property
    def regions(self) -> list[Region]:
        return [self.space, self.fit, self.words, self.out, *(node.region for node in self.around.nodes)]

    def there(self, node: Node) -> Any:
        return next((there(link) for link in (self.left, self.right) if node_of(link) is node), claripy.true())

    def number(self, offset: int) -> Any:
        return self.space_words[offset // 8]

    def start(self, node: Node) -> Any:
        return node.variable(START, 8)

    def size(self, node: Node) -> Any:
        return node.variable(PAGES, 8)

    def is_gap(self, node: Node) -> Any:
        return claripy.And(self.there(node), node.variable(STATE, 1) == IS_GAP)

    def given(self) -> list[Any]:
        before = Before()
        known = [claripy.ULE(self.number(REGION), MOST), claripy.UGE(self.number(NR_SPARE), 2)]
        for node in self.nodes:
            start, size = self.start(node), self.size(node)
            gap = claripy.If(node.variable(STATE, 1) == IS_GAP, saturated(size), claripy.BVV(0, 32))
            bounds = claripy.And(size != 0, claripy.ULE(size, MOST), claripy.ULE(start, MOST - size), claripy.ULE(node.variable(STATE, 1), 4), node.gap == gap)
            known.append(implies(self.there(node), claripy.And(bounds, balanced(before, node), has_largest(before, node))))
        # In order, and none within another.
        for lower, upper in zip(self.nodes, self.nodes[1:]):
            known.append(implies(claripy.And(self.there(lower), self.there(upper)), claripy.ULE(self.start(lower) + self.size(lower), self.start(upper))))
        return known

    def is_good(self) -> Any:
        """What can be asked for at all."""
        power = claripy.And(self.align != 0, self.align & (self.align - 1) == 0)
        pages = claripy.And(self.pages != 0, claripy.ULE(self.pages, self.number(REGION)), claripy.ULE(self.total, self.number(REGION)))
        return claripy.And(power, claripy.ULT(self.phase, self.align), pages)

    def congruent(self, at: Any) -> Any:
        """Whether the body, behind the guard, is where it is asked for."""
        return (at + self.lead.zero_extend(48)) & (self.align - 1) == self.phase

    def lowest(self, node: Node) -> Any:
        """The first congruent place from the start of a segment on, as the code has it; that it is that is asked by itself."""
        start = self.start(node)
        return start + (self.phase - self.lead.zero_extend(48) - start & self.align - 1)

    def fits(self, node: Node) -> Any:
        """Whether all pages, guards included, lie in this gap from its first congruent place on."""
        at, end = self.lowest(node), self.start(node) + self.size(node)
        return claripy.And(self.is_gap(node), claripy.ULE(at, end), claripy.ULE(self.total, end - at))

    def first_places(self) -> Iterator[Obligation]:
        for node in self.nodes:
            at, start = self.lowest(node), self.start(node)
            says = {"a place is congruent": self.congruent(at), "and none is between it and the start": claripy.And(claripy.UGE(at, start), claripy.ULT(at - start, self.align))}
            yield Obligation(self.given(), [Case([], says)])


def taken(case: Segments, path: Path) -> dict[str, Any]:
    after = After(path, case.around)
    top = after.link(case.space, ROOT)
    order = after.order_after(top)
    area = after.link(case.out, 8)

    def now(node: Node, offset: int, size: int) -> Any:
        return path.load(node.region, offset, size)

    if not isinstance(area, Node) or area not in order or not all(isinstance(node, Node) or not isinstance(node, str) for node in order):
        return {"an area of the tree": claripy.false()}
    at = now(area, START, 8)
    expected = after.order_before(case.root)
    new = [node for node in order if node not in expected]
    says = {
        "the nodes that there were, in order, and spare ones": claripy.BoolV([n for n in order if n not in new] == expected and new == [n for n in case.spares if n in new] or new == case.spares[::-1]),
        "parent and child agree": claripy.BoolV(after.parents_agree(top, None)),
        "all pages, guards included": now(area, PAGES, 8) == case.total,
        "congruent": case.congruent(at),
        "it says what it is": claripy.And(
            now(area, STATE, 1) == IS_OWNED, now(area, GAP, 4) == 0, now(area, GUARDS, 4) == claripy.Concat(case.trail, case.lead), *(now(area, offset, 8) == text for offset, text in zip(WORDS, case.texts))
        ),
        "inside one gap": claripy.Or(*(claripy.And(case.fits(node), at == case.lowest(node)) for node in case.nodes)),
        "no lower place": claripy.And(*(implies(case.fits(node), claripy.UGE(case.lowest(node), at)) for node in case.nodes)),
        "counted": claripy.And(
            path.load(case.space, NR_AREAS, 8) == case.number(NR_AREAS) + 1,
            path.load(case.space, RESERVED, 8) == case.number(RESERVED) + case.total,
            path.load(case.space, NR_SPARE, 8) == case.number(NR_SPARE) - len(new),
            path.load(case.space, NR_GAPS, 8) == case.number(NR_GAPS) + len(new) - 1,
        ),
        "what is left of the gap is gaps, no other segment changes": claripy.Or(*(cut(case, path, after, order, area, gap) for gap in expected if isinstance(gap, Node))),
    }
    exists = [n for n in order if isinstance(n, Node)]
    says["ranks and largest gaps"] = claripy.And(*(claripy.And(balanced(after, n), has_largest(after, n)) for n in exists))
    return says


def cut(case: Segments, path: Path, after: After, order: list[Any], area: Node, gap: Node) -> Any:
    """That the area and the gaps beside it are this gap, in order and without a hole, and all others are as they were."""
    at = order.index(gap)
    first, last = at, at
    while first > 0 and order[first - 1] in case.spares:
        first -= 1
    while last + 1 < len(order) and order[last + 1] in case.spares:
        last += 1
    pieces = order[first : last + 1]
    if area not in pieces or any(node in case.spares and node not in pieces for node in order):
        return claripy.false()
    edge, parts = case.start(gap), [case.is_gap(gap)]
    for node in pieces:
        size = path.load(node.region, PAGES, 8)
        parts += [path.load(node.region, START, 8) == edge, size != 0, claripy.ULE(size, case.size(gap))]
        if node is not area:
            parts += [path.load(node.region, STATE, 1) == IS_GAP, path.load(node.region, GAP, 4) == saturated(size)]
        edge = edge + size
    parts.append(edge == case.start(gap) + case.size(gap))
    parts += [kept(path, node, [*CHILD, PARENT, RANK, MAX]) for node in case.nodes if node is not gap]
    return claripy.And(*parts)


def refused(case: Segments, path: Path) -> dict[str, Any]:
    return {
        "nothing changes": claripy.And(*(kept(path, node, []) for node in case.around.nodes), *(path.load(case.space, 8 * i, 8) == word for i, word in enumerate(case.space_words))),
        "there is no place": claripy.Or(claripy.Not(case.is_good()), claripy.Not(claripy.Or(*(case.fits(node) for node in case.nodes)))),
    }


def reserved(image: Image, align: int | None, beside: str = "") -> Iterator[Obligation]:
    """Of good requests with this alignment; of all bad ones without any."""
    case = Segments(align, beside)
    given = [*case.given(), case.is_good() if align else claripy.Not(case.is_good())]
    if align:
        yield from case.first_places()
    paths = image.run(image.one(RESERVE), [case.out, case.space, case.fit, case.words], given, case.regions, simplify=False)

    def of(path: Path) -> Case:
        says = {"no panic": claripy.BoolV(not path.panicked)}
        result = path.load(case.out, 0, 8)
        if path.panicked:
            return Case(path.condition, says)
        if result.concrete and result.concrete_value == TAKEN:
            return Case(path.condition, says | taken(case, path))
        return Case(path.condition, says | {"no area": result != TAKEN} | refused(case, path))

    yield Obligation(given, map(of, paths))


ALIGNED = 512
"""The alignment that is not one page: a block of 2M, of pages of 4K."""


def all_reserved(image: Image) -> Iterator[Obligation]:
    yield from reserved(image, None)
    yield from reserved(image, 1)
    yield from reserved(image, ALIGNED)
    yield from reserved(image, 1, "left")
    yield from reserved(image, 1, "right")


def planted(image: Image) -> Iterator[Mutant]:
    """The machine code with one instruction less."""

    def without(address: int) -> Iterator[Obligation]:
        with image.patched(address, NOP):
            yield from reserved(image, 1)
            yield from reserved(image, ALIGNED)

    def places(pattern: str, mask: int, opcode: int) -> list[int]:
        return [address for address, word in image.code(image.one(pattern)) if word & mask == opcode]

    # CSEL of X registers: what is left of a gap, in 32 bits. AND of X registers: the second is what
    # is skipped before a place.
    for address in places(RESERVE, 0xFFE0_0C00, 0x9A80_0000):
        yield Mutant(f"what is left is another size at {address:#x}", lambda a=address: without(a))
    address = places(SEARCH, 0xFFE0_FC00, 0x8A00_0000)[1]
    yield Mutant("no remainder is taken of what is skipped", lambda: without(address))


def claims(images: Images) -> Iterator[Claim]:
    yield Claim(
        "placement, as shipped",
        f"in a gap, congruent, none lower; the rest of the gap is gaps, nothing else changes; one page or {ALIGNED}, of a space of one or two segments",
        lambda: all_reserved(images.kernel),
        lambda: planted(images.kernel),
    )
