"""The leaf rule, and the division of a piece into contiguous groups."""

from collections.abc import Iterator
from typing import Any

import claripy

from .arm import GRANULES, Granule, Level, implies, index, leaves_of, multiple
from .claim import Case, Claim, Mutant, Obligation
from .images import Images
from .machine import Path, Region


def inputs() -> tuple[Any, Any, Any, Any]:
    return tuple(claripy.BVS(name, 64, explicit_name=True) for name in ("va", "pa", "size", "allowed"))


def answer(path: Path, out: Region) -> tuple[Any, Any, Any, Any]:
    """Level, descriptors, of those in groups, single ones before them."""
    level, nr, grouped, head = (path.load(out, 8 * i, 8) for i in range(4))
    return level, nr, grouped, head


def groups_are_whole(granule: Granule, number: int, va: Any, pa: Any, nr: Any, grouped: Any, head: Any) -> dict[str, Any]:
    """Of descriptors of one level: what D8.6.1 asks of those that carry the contiguous bit, and that all that can carry it do."""
    shape = granule.levels[number]
    if not shape.group:
        return {"no group where the level has none": grouped == 0}
    size = shape.group << shape.shift
    first = (head << shape.shift) + va, (head << shape.shift) + pa
    some = grouped != 0
    last = index(granule, number, va) + head + grouped
    return {
        "a group is whole": multiple(grouped, shape.group),
        "a group is aligned in VA": implies(some, multiple(first[0], size)),
        "a group is aligned in PA": implies(some, multiple(first[1], size)),
        "groups lie within the piece": claripy.And(claripy.ULE(head, nr), claripy.ULE(grouped, nr - head)),
        "groups lie within the table": implies(some, claripy.ULE(last, shape.entries)),
        "before the first group there is no room for one": claripy.And(claripy.ULT(head, shape.group), implies(grouped == 0, head == 0)),
        "behind the last group there is no room for one": implies(some, claripy.ULT(nr - head - grouped, shape.group)),
    }


def all_groups_found(granule: Granule, number: int, va: Any, pa: Any, nr: Any, grouped: Any, allowed: Any) -> Any:
    """If the piece holds an aligned group, it is one: the witness is any place in the piece."""
    shape = granule.levels[number]
    if not shape.group:
        return claripy.true()
    size = shape.group << shape.shift
    to_boundary = claripy.LShR(-va & (size - 1), shape.shift)
    room = claripy.And(claripy.ULE(to_boundary, nr), claripy.UGE(nr - to_boundary, shape.group))
    return implies(claripy.And(allowed, (va ^ pa) & (size - 1) == 0, room), grouped != 0)


def rule(granule: Granule, path: Path, out: Region) -> dict[str, Any]:
    va, pa, size, allowed = inputs()
    level, nr, grouped, head = answer(path, out)
    claims: dict[str, Any] = {"no panic": claripy.BoolV(not path.panicked)}
    sizes = leaves_of(granule)
    legal = {leaf: claripy.And(leaf.is_in(allowed), multiple(va | pa, leaf.bytes), claripy.UGE(size, leaf.bytes)) for leaf in sizes}
    claims["the level has leaves"] = claripy.Or(*(level == number for number, shape in granule.levels.items() if shape.leaf))
    is_group = claripy.And(head == 0, grouped != 0)
    for number, shape in granule.levels.items():
        if not shape.leaf:
            continue
        here = level == number
        say = f"level {number}: "
        in_table = claripy.And(nr != 0, claripy.ULE(nr, shape.entries), claripy.ULE(index(granule, number, va) + nr, shape.entries))
        covered = claripy.ULE(nr, claripy.LShR(size, shape.shift))
        claims[say + "at least one, within the table"] = implies(here, in_table)
        claims[say + "within the memory"] = implies(here, covered)
        claims[say + "VA and PA are multiples of a descriptor's size"] = implies(here, multiple(va | pa, 1 << shape.shift))
        single = next(leaf for leaf in sizes if leaf.level == number and not leaf.group)
        claims[say + "single leaves only where they are allowed"] = implies(claripy.And(here, nr != grouped), single.is_in(allowed))
        for text, claim in groups_are_whole(granule, number, va, pa, nr, grouped, head).items():
            claims[say + text] = implies(here, claim)
        fill = claripy.Or(claripy.LShR(size, shape.shift) == nr, index(granule, number, va) + nr == shape.entries)
        claims[say + "as many as there are, if single ones are allowed"] = implies(claripy.And(here, single.is_in(allowed)), fill)
        if shape.group:
            group = next(leaf for leaf in sizes if leaf.level == number and leaf.group)
            claims[say + "groups only where they are allowed"] = implies(claripy.And(here, grouped != 0), group.is_in(allowed))
            claims[say + "every group that can be is one"] = implies(here, all_groups_found(granule, number, va, pa, nr, grouped, group.is_in(allowed)))
    for leaf in sizes:
        first = claripy.And(level == leaf.level, is_group == leaf.group)
        claims[f"a first leaf of {leaf.bytes >> 10}K is legal"] = implies(first, legal[leaf])
        for other in sizes:
            if other.bytes > leaf.bytes:
                claims[f"{other.bytes >> 10}K instead of {leaf.bytes >> 10}K is not"] = implies(first, claripy.Not(legal[other]))
    return claims


def rule_obligation(images: Images, granule: Granule, name: str) -> Iterator[Obligation]:
    va, pa, size, allowed = inputs()
    given = [multiple(va | pa | size, granule.page), size != 0, allowed & ~0xFF == 0, allowed[6:6] == 1]
    out = Region("out", 32)
    paths = images.shim.run(images.shim.one(f"^{name}$"), [va, pa, size, allowed, out], given, [out])
    yield Obligation(given + out.within(), (Case(path.condition, rule(granule, path, out)) for path in paths))


PLANTED_RULES = {
    "4k": {1: "groups where VA and PA are not congruent", 4: "a leaf as large as the memory is not taken", 5: "PA is not aligned", 6: "what is allowed is not asked", 7: "beyond the table"},
    "16k": {2: "a group that is not whole", 4: "a leaf as large as the memory is not taken"},
    "64k": {3: "a group that is not aligned", 5: "PA is not aligned"},
}
PLANTED_DIVISIONS = {1: "VA and PA are not congruent", 2: "a group that is not whole", 3: "a group that is not aligned"}


def division(images: Images, granule: Granule, name: str) -> Iterator[Obligation]:
    va, pa, nr, level, groups = (claripy.BVS(n, 64, explicit_name=True) for n in ("va", "pa", "nr", "level", "groups"))
    out = Region("out", 32)

    def at(number: int, shape: Level) -> Obligation:
        room = claripy.ULE(nr, shape.entries - index(granule, number, va))
        given = [level == number, multiple(va | pa, 1 << shape.shift), nr != 0, room, claripy.ULE(groups, 1)]
        # Where the level has none, the engine does not ask for any.
        given += [] if shape.group else [groups == 0]
        paths = images.shim.run(images.shim.one(f"^{name}$"), [level, va, pa, nr, groups, out], given, [out])

        def of(path: Path) -> Case:
            said, count, grouped, head = answer(path, out)
            claims = {"no panic": claripy.BoolV(not path.panicked), "level and number are those given": claripy.And(said == number, count == nr)}
            claims["groups only if asked for"] = implies(groups == 0, grouped == 0)
            claims |= groups_are_whole(granule, number, va, pa, nr, grouped, head)
            claims["every group that can be is one"] = all_groups_found(granule, number, va, pa, nr, grouped, groups == 1)
            return Case(path.condition, claims)

        return Obligation(given + out.within(), map(of, paths))

    yield from (at(number, shape) for number, shape in granule.levels.items() if shape.leaf)


def largest_within(images: Images, granule: Granule, name: str) -> Iterator[Obligation]:
    """The largest leaf that any place of a run can have, at congruent addresses."""
    pa, pages, allowed = (claripy.BVS(n, 64, explicit_name=True) for n in ("pa", "pages", "allowed"))
    given = [multiple(pa, granule.page), pages != 0, claripy.ULE(pages, 1 << (48 - granule.page_shift)), claripy.ULT(pa, 1 << 48), allowed & ~0xFF == 0, allowed[6:6] == 1]
    paths = images.shim.run(images.shim.one(f"^{name}$"), [pa, pages, allowed], given)

    def of(path: Path) -> Case:
        claims: dict[str, Any] = {"no panic": claripy.BoolV(not path.panicked)}
        possible = {}
        for leaf in leaves_of(granule):
            first = (pa + (leaf.bytes - 1)) & ~(leaf.bytes - 1)
            possible[leaf] = claripy.And(leaf.is_in(allowed), claripy.ULE(first + leaf.bytes, pa + (pages << granule.page_shift)))
        claims["a leaf size"] = claripy.Or(*(path.x(0) == leaf.level << 8 | leaf.group for leaf in possible))
        for leaf in possible:
            it = path.x(0) == leaf.level << 8 | leaf.group
            larger = [possible[other] for other in possible if other.bytes > leaf.bytes]
            claims[f"{leaf.bytes >> 10}K is possible, and nothing larger"] = implies(it, claripy.And(possible[leaf], *(claripy.Not(other) for other in larger)))
        return Case(path.condition, claims)

    yield Obligation(given, map(of, paths))


def claims(images: Images) -> Iterator[Claim]:
    for key, granule in GRANULES.items():

        def planted(key: str = key, granule: Granule = granule) -> Iterator[Mutant]:
            for bug, says in PLANTED_RULES[key].items():
                yield Mutant(says, lambda bug=bug: rule_obligation(images, granule, f"planted_leaves_{key}_{bug}"))

        yield Claim(
            f"leaf rule, {granule.name}",
            "the largest legal leaf, as many as the table takes, for all VA, PA, sizes and leaf sets",
            lambda key=key, granule=granule: rule_obligation(images, granule, f"shim_leaves_{key}"),
            planted,
        )
    for key, granule in GRANULES.items():

        def cut(key: str = key, granule: Granule = granule) -> Iterator[Mutant]:
            for bug, says in PLANTED_DIVISIONS.items():
                yield Mutant(says, lambda bug=bug: division(images, granule, f"planted_divide_{key}_{bug}"))

        yield Claim(
            f"groups, {granule.name}",
            "whole, aligned in VA and PA, congruent, within the table, and none left out, at every level",
            lambda key=key, granule=granule: division(images, granule, f"shim_divide_{key}"),
            cut,
        )

    def runs(name: str) -> Iterator[Obligation]:
        for key, granule in GRANULES.items():
            yield from largest_within(images, granule, f"{name}_{key}")

    yield Claim(
        "largest leaf of a run, 4K, 16K and 64K",
        "the one that a congruent place gets, for all runs of 48-bit memory and all leaf sets",
        lambda: runs("shim_within"),
        lambda: iter([Mutant("where the run begins is not looked at", lambda: runs("planted_within"))]),
    )
