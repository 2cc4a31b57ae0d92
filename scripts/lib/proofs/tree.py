"""The tree of segments: what an insertion or a removal does to ranks, links and largest gaps, in a tree of any size.

A weak AVL tree (Haeupler, Sen, Tarjan, "Rank-Balanced Trees", ACM TALG 2015), with ranks from 1 on: a missing child
has rank 0, a leaf rank 1, and a child is one or two below its parent. Each node has the largest gap of its subtree.

The functions go up from a node in a loop. A turn sees a neighbourhood: the node, its parent, the parent's parent, and
some subtrees of them, each any tree or none. A path ends where the next turn begins, by the first read of the
node above. What holds there is what held where the turn began, one level higher; and so do the registers that the
next turn relies on. Begun from there with nothing else known, the turn is proven again. So the tree may be of any height.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import claripy

from .arm import implies
from .claim import Case, Claim, Mutant, Obligation, Unproven
from .images import Images
from .machine import STACK, Entry, Function, Image, Path, Region

LEFT, RIGHT = 0, 1
SIDES = (LEFT, RIGHT)
# `Node<6>` is repr(C): two links, start, pages, state, rank, owner, guards, chain, six words,
# largest gap, gap, parent.
SIZE, WORDS = 112, 14
CHILD = (0, 8)
RANK, MAX, GAP, PARENT = 33, 96, 100, 104
HIGHEST = 127
"""Of ranks: twice log2 of the nodes, of which there are less than 2^52."""
BASE, STRIDE = 0x5000_0000_0000, 0x1000


class Beyond:
    """A subtree that is none of the turn's: nothing may follow the link to it."""


BEYOND = Beyond()


class Node:
    """One of the neighbourhood. A child is a node, None, a `Maybe`, or BEYOND."""

    def __init__(self, name: str, left: Any = BEYOND, right: Any = BEYOND) -> None:
        self.name = name
        self.children = [left, right]
        self.parent: Any = None
        self.stops: set[int] = set()
        self.edge = False
        self.region: Region = Region(name, SIZE, 0)

    def variable(self, offset: int, size: int) -> Any:
        """A field at the start."""
        word = self.region.words[offset // 8]
        low = 8 * (offset % 8)
        return word[low + 8 * size - 1 : low]

    @property
    def rank(self) -> Any:
        return self.variable(RANK, 1)

    @property
    def max(self) -> Any:
        return self.variable(MAX, 4)

    @property
    def gap(self) -> Any:
        return self.variable(GAP, 4)

    @property
    def is_inner(self) -> bool:
        """Whether the turn may change it."""
        return BEYOND not in self.children and not self.edge


@dataclass(frozen=True)
class Maybe:
    """A child that may be missing."""

    node: Node

    @property
    def there(self) -> Any:
        return claripy.BoolS(f"{self.node.name}_there", explicit_name=True)


@dataclass(frozen=True)
class Token:
    """A link that was not read: any subtree that is allowed there."""

    owner: Node
    side: int


def node_of(link: Any) -> Node | None:
    return link.node if isinstance(link, Maybe) else link if isinstance(link, Node) else None


def there(link: Any) -> Any:
    return link.there if isinstance(link, Maybe) else claripy.BoolV(isinstance(link, Node))


@dataclass
class Neighbourhood:
    """Some connected nodes; `tree` holds the root's address."""

    top: Node
    above: Node | None
    """The parent of `top`."""
    apart: tuple[Node, ...] = ()
    """Nodes that no link leads to."""
    nodes: list[Node] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.tree = Region("tree", 8, BASE - STRIDE, [claripy.BVS("root", 64, explicit_name=True)])
        self._collect(self.above or self.top, None)
        self.nodes += self.apart
        for i, node in enumerate(self.nodes):
            node.region.at = BASE + i * STRIDE
            node.region.base = claripy.BVV(node.region.at, 64)
        if self.above is None:
            self.tree.words = [self.top.region.base]
        for node in self.nodes:
            self._fill(node)
        self.by_address = {node.region.at: node for node in self.nodes}

    def _collect(self, node: Node, parent: Node | None) -> None:
        node.parent = parent
        self.nodes.append(node)
        for link in node.children:
            if (child := node_of(link)) is not None:
                self._collect(child, node)

    def _fill(self, node: Node) -> None:
        words = [claripy.BVS(f"{node.name}_{i}", 64, explicit_name=True) for i in range(WORDS)]
        choices = {}
        for side, link in enumerate(node.children):
            if isinstance(link, Maybe):
                choices[CHILD[side]] = [(link.there, link.node.region.at), (claripy.Not(link.there), 0)]
            elif link is not BEYOND:
                words[side] = claripy.BVV(0, 64) if link is None else link.region.base
        if node.parent is not None:
            words[PARENT // 8] = node.parent.region.base
        elif node is self.top:
            words[PARENT // 8] = claripy.BVV(0, 64)
        node.region.words, node.region.choices, node.region.stops = words, choices, frozenset(node.stops)

    @property
    def regions(self) -> list[Region]:
        return [self.tree, *(node.region for node in self.nodes)]


# ---- the rules, at the start and at the end ----------------------------------------------------


def largest(of: Iterable[Any]) -> Any:
    first, *rest = of
    for value in rest:
        first = claripy.If(claripy.UGT(value, first), value, first)
    return first


class Before:
    """How it is at the start."""

    def rank(self, node: Node) -> Any:
        return node.rank

    def max(self, node: Node) -> Any:
        return node.max

    def gap(self, node: Node) -> Any:
        return node.gap

    def child(self, node: Node, side: int) -> Any:
        return node.children[side]


class After:
    """How it is at the end of a path."""

    def __init__(self, path: Path, around: Neighbourhood) -> None:
        self.path, self.around = path, around
        self.undecided = path.state.globals["choices"]
        self.decided = path.state.globals["decided"]

    def rank(self, node: Node) -> Any:
        return self.path.load(node.region, RANK, 1)

    def max(self, node: Node) -> Any:
        return self.path.load(node.region, MAX, 4)

    def gap(self, node: Node) -> Any:
        return self.path.load(node.region, GAP, 4)

    def link(self, region: Region, offset: int) -> Any:
        """A node, None, a Token, or "nowhere"."""
        value = self.path.load(region, offset, 8)
        if value.concrete:
            return self.around.by_address.get(value.concrete_value, "nowhere") if value.concrete_value else None
        tokens = {f"{node.name}_{side}": Token(node, side) for node in self.around.nodes for side in SIDES}
        return tokens.get(next(iter(value.variables)), "nowhere") if value.op == "BVS" else "nowhere"

    def child(self, node: Node, side: int) -> Any:
        link = self.link(node.region, CHILD[side])
        if isinstance(link, Token):
            return link.owner.children[link.side]
        return link

    def parent(self, node: Node) -> Any:
        return self.link(node.region, PARENT)

    def order_before(self, link: Any, owner: Node | None = None, side: int = 0) -> list[Any]:
        if link is None:
            return []
        if isinstance(link, Maybe) and owner is not None and (owner.name, CHILD[side]) in self.decided:
            link = link.node if self.decided[owner.name, CHILD[side]] else None
            return self.order_before(link)
        if not isinstance(link, Node):
            return [Token(owner, side)] if owner else []
        return [*self.order_before(link.children[LEFT], link, LEFT), link, *self.order_before(link.children[RIGHT], link, RIGHT)]

    def order_after(self, link: Any, depth: int = 0) -> list[Any]:
        if depth > len(self.around.nodes):
            return ["a circle"]
        if link is None or link == "nowhere":
            return [] if link is None else [link]
        if isinstance(link, Token):
            return [link]
        left, right = (self.order_after(self.link(link.region, CHILD[side]), depth + 1) for side in SIDES)
        return [*left, link, *right]

    def parents_agree(self, link: Any, parent: Node | None) -> bool:
        if not isinstance(link, Node):
            return link != "nowhere"
        return self.parent(link) is parent and all(self.parents_agree(self.link(link.region, CHILD[side]), link) for side in SIDES)


def of_child(link: Any, value: Callable[[Node], Any], bits: int) -> Any:
    """What a parent sees of a child; 0 where it is missing."""
    if link is None:
        return claripy.BVV(0, bits)
    node = node_of(link)
    if node is None:
        raise Unproven("a rule about a subtree that is none of the neighbourhood's")
    return claripy.If(link.there, value(node), claripy.BVV(0, bits)) if isinstance(link, Maybe) else value(node)


def difference(at: Any, node: Node, side: int) -> Any:
    return at.rank(node) - of_child(at.child(node, side), at.rank, 8)


def one_or_two(value: Any) -> Any:
    return claripy.Or(value == 1, value == 2)


def is_leaf(at: Any, node: Node) -> Any:
    return claripy.And(*(claripy.Not(there(at.child(node, side))) for side in SIDES))


def balanced(at: Any, node: Node) -> Any:
    return claripy.And(*(one_or_two(difference(at, node, side)) for side in SIDES), implies(is_leaf(at, node), at.rank(node) == 1))


def one_and_two(at: Any, node: Node) -> Any:
    """The one child is one below, the other two."""
    left, right = (difference(at, node, side) for side in SIDES)
    return claripy.Or(claripy.And(left == 1, right == 2), claripy.And(left == 2, right == 1))


def has_largest(at: Any, node: Node) -> Any:
    return at.max(node) == largest([at.gap(node), *(of_child(at.child(node, side), at.max, 32) for side in SIDES)])


def ranks_in_bounds(around: Neighbourhood) -> list[Any]:
    return [claripy.And(claripy.UGE(node.rank, 1), claripy.ULE(node.rank, HIGHEST)) for node in around.nodes]


def kept(path: Path, node: Node, may_change: Iterable[int]) -> Any:
    """All of a node but some fields, by offset."""
    sizes = {**{offset: 8 for offset in (*CHILD, PARENT)}, RANK: 1, MAX: 4, GAP: 4}
    changed = {offset + i for offset in may_change for i in range(sizes[offset])}
    parts = []
    for i, word in enumerate(node.region.words):
        if 8 * i in node.region.choices and 8 * i not in changed:
            # Undecided, or decided and still what it was.
            decided = path.state.globals["decided"].get((node.name, 8 * i))
            parts.append(claripy.true() if decided is None else path.load(node.region, 8 * i, 8) == decided)
            continue
        now = path.load(node.region, 8 * i, 8)
        parts += [now[8 * b + 7 : 8 * b] == word[8 * b + 7 : 8 * b] for b in range(8) if 8 * i + b not in changed]
    return claripy.And(*parts)


# ---- turns of a loop ---------------------------------------------------------------------------


@dataclass
class Turn:
    """A neighbourhood in which a turn begins, what is known of it, and what a path's end must show."""

    loop: str
    """Of which loop; none for what leads from the function's start."""
    around: Neighbourhood
    given: list[Any]
    begins: list[Any] | dict[str, Any]
    """The function's arguments; or what registers may hold where a turn begins, by role."""
    claims: Callable[[Path], dict[str, Any]]
    stops: Callable[[Path], tuple[str, dict[str, Any]]]
    """For a path that stopped: the loop of which a turn begins there, and the same of it."""


Facts = dict[str, tuple[str, Any]]
"""Of a register or a word of the stack: ("role", name) or ("constant", number)."""


def held(path: Path, place: str) -> Any:
    return path.state.registers.load(place) if place[0] in "xs" else path.state.memory.load(int(place), 8, endness="Iend_LE", inspect=False, disable_actions=True)


def same(path: Path, a: Any, b: Any) -> bool:
    if a.concrete and b.concrete:
        return a.concrete_value == b.concrete_value
    solver = claripy.Solver()
    solver.add(path.condition)
    return not solver.satisfiable(extra_constraints=[a != b])


Arrival = tuple[Path, dict[str, Any]]


def facts_of(arrivals: list[Arrival]) -> Facts:
    """What holds at the end of all these paths, where a turn begins."""
    first, roles = arrivals[0]
    bottom = held(first, "sp").concrete_value
    found: Facts = {}
    for place in ["sp", *(f"x{i}" for i in range(31)), *map(str, range(bottom, STACK, 8))]:
        value = held(first, place)
        known = [("role", role) for role in roles]
        if value.concrete and not BASE - STRIDE <= value.concrete_value < STACK - 2**40:
            known.append(("constant", value))
        fact = next((fact for fact in known if all(same(path, held(path, place), value_of(fact, roles)) for path, roles in arrivals)), None)
        if fact:
            found[place] = fact
    return found


def value_of(fact: tuple[str, Any], roles: dict[str, Any]) -> Any:
    return roles[fact[1]] if fact[0] == "role" else fact[1]


def entry_of(address: int, facts: Facts, turn: Turn) -> Entry:
    values = {place: value_of(fact, turn.begins) for place, fact in facts.items()}
    return Entry(address, {place: value for place, value in values.items() if place[0] in "xs"}, {int(place): value for place, value in values.items() if place[0] not in "xs"})


def ran(image: Image, function: Function, turn: Turn, entry: Entry | None = None, until: int | None = None) -> list[Path]:
    arguments = turn.begins if isinstance(turn.begins, list) else []
    return list(image.run(function, arguments, turn.given, turn.around.regions, entry=entry, until=until))


def first_turns(image: Image, function: Function, turns: Iterable[Turn]) -> Iterator[Obligation]:
    """From the function's start alone."""
    for turn in turns:
        if not turn.loop:
            yield Obligation(turn.given, (Case(path.condition, turn.claims(path)) for path in ran(image, function, turn)))


Places = dict[str, tuple[int, Facts]]
"""Where the turns of a loop begin, and what is known there."""


def settled(image: Image, function: Function, turns: list[Turn], until: int | None = None) -> tuple[list[list[Path]], Places]:
    """The paths of all turns: those not from the function's start begin with what all that end there leave in registers."""
    paths: dict[int, list[Path]] = {i: ran(image, function, turn, until=until) for i, turn in enumerate(turns) if not turn.loop}
    places: Places = {}
    while True:
        arrivals: dict[str, list[Arrival]] = {}
        for i, found in paths.items():
            for path in found:
                if path.stopped:
                    loop, roles = turns[i].stops(path)
                    arrivals.setdefault(loop, []).append((path, roles))
        changed = []
        for loop, at in arrivals.items():
            addresses = {path.stopped for path, _ in at}
            if len(addresses) != 1:
                raise Unproven(f"a turn of {loop} begins at {len(addresses)} places")
            _, before = places.get(loop, (0, None))
            facts = facts_of(at) if before is None else {p: f for p, f in before.items() if all(same(path, held(path, p), value_of(f, roles)) for path, roles in at)}
            if facts != before:
                places[loop] = addresses.pop(), facts
                changed.append(loop)
        if not changed:
            break
        for i, turn in enumerate(turns):
            if turn.loop in changed:
                paths[i] = ran(image, function, turn, entry_of(*places[turn.loop], turn), until)
    if len(paths) != len(turns):
        raise Unproven("a loop that is never reached")
    return [paths[i] for i in range(len(turns))], places


def climbs(image: Image, function: Function, turns: list[Turn], until: int | None = None) -> Iterator[Obligation]:
    """The first turns and all others, and that each begins with what it relies on."""
    paths, places = settled(image, function, turns, until)
    for turn, found in zip(turns, paths):

        def of(path: Path, turn: Turn = turn) -> Case:
            claims = turn.claims(path)
            if path.stopped:
                loop, roles = turn.stops(path)
                claims["registers are as where a turn begins"] = claripy.And(*(held(path, place) == value_of(fact, roles) for place, fact in places[loop][1].items()))
            return Case(path.condition, claims)

        yield Obligation(turn.given, map(of, found))


# ---- insertion ---------------------------------------------------------------------------------


def parent_of(node: Node, side: int) -> Node:
    """One of which the turn may only change the link to `node`."""
    beside = Maybe(Node("beside"))
    above = Node("above", *((node, beside) if side == LEFT else (beside, node)))
    above.edge = True
    return above


def insertion(side: int, up: int | None) -> Iterator[Turn]:
    """`node` is the child on `side`; its parent is the root, or the child `up` of another."""
    inner = Node("inner", Maybe(Node("inner_left")), Maybe(Node("inner_right")))
    outer = Node("outer")
    children = [Maybe(outer), Maybe(inner)] if side == LEFT else [Maybe(inner), Maybe(outer)]
    node = Node("node", *children)
    sibling = Maybe(Node("sibling"))
    parent = Node("parent", *((node, sibling) if side == LEFT else (sibling, node)))
    above = None
    if up is not None:
        above = parent_of(parent, up)
        above.stops.add(RANK)
    around = Neighbourhood(parent, above)
    before = Before()
    own = parent.rank - node.rank
    fresh = claripy.And(is_leaf(before, node), node.rank == 1)
    given = [
        *ranks_in_bounds(around),
        implies(there(node.children[1 - side]), claripy.And(balanced(before, inner), has_largest(before, inner))),
        balanced(before, node),
        has_largest(before, node),
        claripy.ULE(own, 2),
        implies(own == 0, claripy.Or(fresh, one_and_two(before, node))),
        one_or_two(difference(before, parent, 1 - side)),
        has_largest(before, parent),
    ]
    if above is not None:
        given += [balanced(before, above), has_largest(before, above)]

    def claims(path: Path) -> dict[str, Any]:
        after = After(path, around)
        region, offset = (around.tree, 0) if above is None else (above.region, CHILD[up or 0])
        top = after.link(region, offset)
        says: dict[str, Any] = {
            "no panic": claripy.BoolV(not path.panicked),
            "the same nodes in the same order": claripy.BoolV(after.order_after(top) == after.order_before(parent)),
            "parent and child agree": claripy.BoolV(after.parents_agree(top, above)),
        }
        if not isinstance(top, Node) or path.panicked:
            return says
        inners = [n for n in around.nodes if n.is_inner]
        exists = {n.name: claripy.true() for n in (node, parent)} | {"inner": there(node.children[1 - side])}
        says["ranks are one or two above, of leaves 1"] = claripy.And(*(implies(exists[n.name], balanced(after, n)) for n in inners))
        says["the largest gap of each"] = claripy.And(*(implies(exists[n.name], has_largest(after, n)) for n in inners))
        says["above nothing larger or smaller is seen"] = after.max(top) == parent.max
        says["of no node anything else changes"] = claripy.And(*(kept(path, n, [*CHILD, PARENT, RANK, MAX] if n.is_inner else [PARENT]) for n in around.nodes if n is not above))
        if above is not None:
            says["nothing above changes but the link"] = kept(path, above, [CHILD[up or 0]])
            if path.stopped:
                says["the parent is what was the node"] = claripy.And(claripy.BoolV(top is parent), claripy.ULE(above.rank - after.rank(parent), 2), one_and_two(after, parent), claripy.ULE(after.rank(parent), above.rank))
            else:
                says["one or two below its parent"] = one_or_two(above.rank - after.rank(top))
        return says

    def roles(at: Callable[[Node], Any], low: Node, high: Node | None) -> dict[str, Any]:
        return {"node": low.region.base, "above": high.region.base if high else claripy.BVV(0, 64), "tree": around.tree.base, "rank": at(low).zero_extend(56)}

    def stops(path: Path) -> tuple[str, dict[str, Any]]:
        return "ranks", roles(After(path, around).rank, parent, above)

    yield Turn("", around, given, [around.tree, node.region], claims, stops)
    yield Turn("ranks", around, given, roles(before.rank, node, parent), claims, stops)


def insertions() -> list[Turn]:
    return [turn for side in SIDES for up in (None, *SIDES) for turn in insertion(side, up)]


INSERTION = "tree.*12fix_inserted"


def inserted(image: Image) -> Iterator[Obligation]:
    yield from climbs(image, image.one(INSERTION), insertions())


# ---- removal -----------------------------------------------------------------------------------


def joined(around: Neighbourhood, top: Any, up: int, expected: Callable[[After], list[Any]], path: Path) -> tuple[After, Any, dict[str, Any]]:
    """What holds of links, whatever else was done."""
    above = around.above
    after = After(path, around)
    now = after.link(around.tree, 0) if above is None else after.link(above.region, CHILD[up])
    return after, now, {
        "no panic": claripy.BoolV(not path.panicked),
        "the nodes in the same order": claripy.BoolV(after.order_after(now) == expected(after)),
        "parent and child agree": claripy.BoolV(after.parents_agree(now, above)),
    }


def sibling_of(side: int) -> Node:
    """With what a rotation towards `side` moves."""
    inner = Maybe(Node("inner", Maybe(Node("inner_left")), Maybe(Node("inner_right"))))
    outer = Maybe(Node("outer"))
    return Node("sibling", *((inner, outer) if side == LEFT else (outer, inner)))


def rules(at: Any, node: Node) -> Any:
    return claripy.And(balanced(at, node), has_largest(at, node))


def where(link: Any, says: Callable[[Node], Any]) -> Any:
    """Of a child that may be missing."""
    return implies(there(link), says(link.node))


def lowered(side: int, up: int | None, removed: int | None, loop: str) -> Turn:
    """The subtree on `side` of `parent` became one lower: by a removal of `node`, whose one child is on the side `removed`, or in the turn before."""
    before = Before()
    sibling = Maybe(sibling_of(side))
    inner = sibling.node.children[side]
    child = Maybe(Node("child"))
    low = Node("low") if removed is None else Node("node", *((child, None) if removed == LEFT else (None, child)))
    parent = Node("parent", *((low, sibling) if side == LEFT else (sibling, low)))
    above = None if up is None else parent_of(parent, up)
    if above is not None:
        above.stops |= {RANK, MAX} if not loop else {RANK}
    around = Neighbourhood(parent, above)
    own = parent.rank - low.rank
    given = [*ranks_in_bounds(around), where(inner, lambda n: rules(before, n)), where(sibling, lambda n: rules(before, n)), has_largest(before, parent)]
    if removed is not None:
        given += [rules(before, low), balanced(before, parent)]
        if loop:
            given.append(low.gap == 0)
    else:
        given += [claripy.And(claripy.UGE(own, 1), claripy.ULE(own, 3)), one_or_two(difference(before, parent, 1 - side))]
    if above is not None:
        given += [balanced(before, above), has_largest(before, above)]

    def expected(after: After) -> list[Any]:
        return [node for node in after.order_before(parent) if removed is None or node is not low]

    def claims(path: Path) -> dict[str, Any]:
        if path.stopped and path.before != ("above", RANK):
            return gap_gone(path)
        after, top, says = joined(around, parent, up or 0, expected, path)
        if not isinstance(top, Node) or path.panicked:
            return says
        exists = {"parent": claripy.true(), "sibling": there(sibling), "inner": claripy.And(there(sibling), there(inner))}
        inners = [n for n in around.nodes if n.is_inner and n is not low]
        says["ranks are one or two above, of leaves 1"] = claripy.And(*(implies(exists[n.name], balanced(after, n)) for n in inners))
        says["the largest gap of each"] = claripy.And(*(implies(exists[n.name], has_largest(after, n)) for n in inners))
        may = {"low": [PARENT], "node": [MAX, GAP]}
        says["of no node anything else changes"] = claripy.And(*(kept(path, n, may.get(n.name, [*CHILD, PARENT, RANK, MAX] if n.is_inner else [PARENT])) for n in around.nodes if n is not above))
        if above is not None:
            says["nothing above changes but the link"] = kept(path, above, [CHILD[up or 0]])
            says["the largest gap above"] = has_largest(after, above)
            if path.stopped:
                apart = above.rank - after.rank(parent)
                says["the parent became lower"] = claripy.And(claripy.BoolV(top is parent), claripy.UGE(apart, 1), claripy.ULE(apart, 3))
            else:
                says["ranks above"] = balanced(after, above)
        return says

    def gap_gone(path: Path) -> dict[str, Any]:
        """The node is about to be removed, or else the next largest gap to be looked at."""
        after = After(path, around)
        says = {
            "the node has no gap": after.gap(low) == 0,
            "the largest gap of each": claripy.And(has_largest(after, low), has_largest(after, parent)),
            "nothing else changes": claripy.And(*(kept(path, n, {"node": [MAX, GAP], "parent": [MAX]}.get(n.name, [])) for n in around.nodes)),
        }
        if path.before == ("above", MAX):
            says["the parent's became smaller"] = claripy.ULT(after.max(parent), parent.max)
        elif above is not None:
            says["the largest gap above"] = has_largest(after, above)
        return says

    def stops(path: Path) -> tuple[str, dict[str, Any]]:
        after = After(path, around)
        if path.before == ("above", MAX):
            return "gaps", {"node": above.region.base, "gone": parent.max.zero_extend(32), "removed": low.region.base, "tree": around.tree.base}
        if path.before != ("above", RANK):
            return "splice", {"removed": low.region.base, "tree": around.tree.base}
        return "ranks", {"node": above.region.base, "low": parent.region.base, "rank": after.rank(parent).zero_extend(56), "side": claripy.BVV(up, 64), "tree": around.tree.base}

    begins: Any = [around.tree, low.region]
    if loop == "ranks":
        begins = {"node": parent.region.base, "low": low.region.base, "rank": low.rank.zero_extend(56), "side": claripy.BVV(side, 64), "tree": around.tree.base}
    elif loop:
        begins = {"removed": low.region.base, "tree": around.tree.base}
    return Turn(loop, around, given, begins, claims, stops)


def smaller(side: int, up: int | None) -> Turn:
    """The largest gap below `node` on `side` was `gone` and is smaller; far below is the node that is removed."""
    before = Before()
    low, other, removed = Node("low"), Maybe(Node("other")), Node("removed")
    node = Node("node", *((low, other) if side == LEFT else (other, low)))
    above = None if up is None else parent_of(node, up)
    if above is not None:
        above.stops.add(MAX)
    removed.stops = set(range(SIZE))
    around = Neighbourhood(node, above, (removed,))
    gone = claripy.BVS("gone", 32, explicit_name=True)
    given = [node.max == largest([node.gap, of_child(other, before.max, 32), gone]), claripy.ULT(low.max, gone)]
    if above is not None:
        given.append(has_largest(before, above))

    def claims(path: Path) -> dict[str, Any]:
        after = After(path, around)
        says = {
            "the loop ends with the removal, or goes on above": claripy.BoolV(bool(path.stopped)),
            "its largest gap": has_largest(after, node),
            "nothing else changes": claripy.And(*(kept(path, n, [MAX] if n is node else []) for n in around.nodes)),
        }
        if path.before == ("above", MAX):
            says["it became smaller"] = claripy.ULT(after.max(node), node.max)
        elif above is not None:
            says["the largest gap above"] = has_largest(after, above)
        return says

    def stops(path: Path) -> tuple[str, dict[str, Any]]:
        roles = {"removed": removed.region.base, "tree": around.tree.base}
        if path.before == ("above", MAX):
            return "gaps", {"node": above.region.base, "gone": node.max.zero_extend(32), **roles}
        return "splice", roles

    return Turn("gaps", around, given, {"node": node.region.base, "gone": gone.zero_extend(32), "removed": removed.region.base, "tree": around.tree.base}, claims, stops)


def of_root(removed: int, loop: str) -> Turn:
    """The root is removed."""
    before = Before()
    child = Maybe(Node("child"))
    node = Node("node", *((child, None) if removed == LEFT else (None, child)))
    around = Neighbourhood(node, None)
    given = [*ranks_in_bounds(around), rules(before, node), *([node.gap == 0] if loop else [])]

    roles = {"removed": node.region.base, "tree": around.tree.base}

    def claims(path: Path) -> dict[str, Any]:
        after = After(path, around)
        if path.stopped:
            return {"the node has no gap": after.gap(node) == 0, "its largest gap": has_largest(after, node), "nothing else changes": claripy.And(kept(path, node, [MAX, GAP]), kept(path, child.node, []))}
        _, _, says = joined(around, node, 0, lambda after: [n for n in after.order_before(node) if n is not node], path)
        return {**says, "of no node anything else changes": claripy.And(kept(path, node, [MAX, GAP]), kept(path, child.node, [PARENT]))}

    return Turn(loop, around, given, dict(roles) if loop else [around.tree, node.region], claims, lambda path: ("splice", roles))


def removals() -> list[Turn]:
    places = [(side, up) for side in SIDES for up in (None, *SIDES)]
    turns = [of_root(removed, loop) for loop in ("", "splice") for removed in SIDES]
    turns += [lowered(*place, removed, loop) for loop in ("", "splice") for place in places for removed in SIDES]
    return turns + [lowered(*place, None, "ranks") for place in places] + [smaller(*place) for place in places]


REMOVAL = "vmalloc2va4tree.*6remove17"


def removed(image: Image) -> Iterator[Obligation]:
    function = image.one(REMOVAL)
    # Where the largest gaps are right again: there the turns from the start may end.
    scout = lowered(LEFT, LEFT, LEFT, "")
    scout.given += [claripy.Not(there(link)) for node in scout.around.nodes if node.name in ("node", "parent") for link in node.children if isinstance(link, Maybe)]
    _, places = settled(image, function, [scout, smaller(LEFT, None), smaller(RIGHT, None), lowered(LEFT, None, None, "ranks")])
    yield from climbs(image, function, removals(), places["splice"][0])


# ---- planted bugs ------------------------------------------------------------------------------


NOP = 0xD503_201F


def stores(offset: int) -> Callable[[int], bool]:
    """STRB, STR of W and STR of X to a field of a node."""
    sizes = {RANK: (0x3900_0000, 0), MAX: (0xB900_0000, 2), PARENT: (0xF900_0000, 3)}
    opcode, scale = sizes[offset]
    return lambda word: word & 0xFFC0_0000 == opcode and (word >> 10 & 0xFFF) << scale == offset and word >> 5 & 31 != 31


def is_choice(word: int) -> bool:
    """CSEL of W registers."""
    return word & 0xFFE0_0C00 == 0x1A80_0000


def planted(image: Image, pattern: str, turns: Callable[[], list[Turn]]) -> Iterator[Mutant]:
    """The function without one store of a rank; with one of the two values of which it takes the larger; without any store of another field."""
    function = image.one(pattern)

    def without(addresses: list[int]) -> Iterator[Obligation]:
        with ExitStack() as patches:
            for address in addresses:
                patches.enter_context(image.patched(address, NOP))
            yield from first_turns(image, function, turns())

    def places(pick: Callable[[int], bool]) -> list[int]:
        return [address for address, word in image.code(function) if pick(word)]

    for says, pick in {"no rank is stored": stores(RANK), "one largest gap is taken for the larger of two": is_choice}.items():
        for address in places(pick):
            yield Mutant(f"{says} at +{address - function.address:#x}", lambda a=address: without([a]))
    for says, offset in {"parent": PARENT, "largest gap": MAX}.items():
        yield Mutant(f"no {says} is stored", lambda o=offset: without(places(stores(o))))


def claims(images: Images) -> Iterator[Claim]:
    yield Claim(
        "tree, insertion, as shipped",
        "order, links, ranks and largest gaps are right again, in a tree of any size",
        lambda: inserted(images.kernel),
        lambda: planted(images.kernel, INSERTION, insertions),
    )
    yield Claim(
        "tree, removal, as shipped",
        "the others in the same order, links, ranks and largest gaps right again, in a tree of any size",
        lambda: removed(images.kernel),
        lambda: planted(images.kernel, REMOVAL, removals),
    )
