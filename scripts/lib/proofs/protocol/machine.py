"""The machine: descriptors of the tables above one range of addresses, walks, TLBs and barriers of any number of CPUs.

A state is a set of relations, and a step says what each becomes: there is one text for sorts of any
size (`World`) and for a few named elements of each (`Few`), where a model of a formula is a trace.
The rules are those of kernel/mmu-model/README.md, written a second time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import z3

CPU, VA, PAGE, VALUE, FRAMES = (z3.DeclareSort(name) for name in ("Cpu", "Va", "Page", "Value", "Frames"))
SORTS = {"c": CPU, "d": CPU, "x": VA, "y": VA, "t": PAGE, "u": PAGE, "v": VALUE, "w": VALUE, "r": FRAMES}
"""The sort of a variable, by the first letter of its name."""

Relation = Callable[..., Any]
BOOL = z3.BoolSort()


def sort_of(name: str) -> Any:
    return SORTS[name[0]]


def function(name: str, arguments: str, result: Any = BOOL) -> Relation:
    declared = z3.Function(name, *(sort_of(letter) for letter in arguments), result)
    return declared if arguments else lambda: declared()


class World:
    """Sorts of any size."""

    def forall(self, names: str, body: Callable[..., Any]) -> Any:
        variables = [z3.Const(name, sort_of(name)) for name in names.split()]
        return z3.ForAll(variables, body(*variables))

    def facts(self) -> list[Any]:
        return []

    def choice(self, name: str) -> Any:
        """A constant, for what a step is done with."""
        return z3.Const(name, sort_of(name))


class Few(World):
    """So many elements of each sort, all different."""

    def __init__(self, **sizes: int) -> None:
        self.elements = {str(sort): [z3.Const(f"{str(sort).lower()}{i}", sort) for i in range(sizes.get(str(sort), 2))] for sort in (CPU, VA, PAGE, VALUE, FRAMES)}
        self.known: list[Any] = [z3.Distinct(*elements) for elements in self.elements.values() if len(elements) > 1]

    def forall(self, names: str, body: Callable[..., Any]) -> Any:
        ranges = [self.elements[str(sort_of(name))] for name in names.split()]
        return z3.And(*(body(*values) for values in product(*ranges)))

    def closed(self, value: Any) -> None:
        """It is one of those that there are."""
        self.known.append(z3.Or(*(value == element for element in self.elements[str(value.sort())])))

    def facts(self) -> list[Any]:
        """That constants and the values of functions are among the elements."""
        return self.known

    def choice(self, name: str) -> Any:
        chosen = super().choice(name)
        self.closed(chosen)
        return chosen


# What stays as it is.
INVALID, LINK = z3.Consts("an_invalid a_link", VALUE)
"""Of a descriptor: nothing, or a table (which one, `State.link` says)."""
ROOT = z3.Const("root", PAGE)
FIRST = z3.Const("va_first", VA)
"""Any address: a descriptor of an upper table is the same for all."""
out = function("out", "v", FRAMES)
"""What a leaf leads to: a run of frames, of which an address gets the one of its own place."""
cont = function("cont", "v")
block = function("block", "v")


def leaf(v: Any) -> Any:
    return z3.And(v != INVALID, v != LINK)


def is_wide(v: Any) -> Any:
    """A TLB may hold it as one entry for all addresses."""
    return z3.Or(cont(v), block(v))


def agree(v: Any, w: Any) -> Any:
    """Both may be held at once: they differ in no more than permissions, AF and software bits (D8.16.1)."""
    return z3.And(out(v) == out(w), cont(v) == cont(w), block(v) == block(w))


# Of an operation on the range: its step.
IDLE, CUT, WAITING, TAKEN, LED, ISSUED, DONE, CLEAN, MAKE, PUBLISHED, CHANGE = (z3.IntVal(i) for i in range(11))


@dataclass(frozen=True)
class State:
    """All that changes."""

    # Table pages. Free: none of the three.
    live: Relation
    dead: Relation
    private: Relation
    upper: Relation
    above: Relation
    zeroed: Relation
    """By CPU: it knows that the private table is zeroed, and with what it is filled."""
    # Descriptors: what was stored last, what a walk may read.
    now: Relation
    seen: Relation
    link: Relation
    seen_link: Relation
    # Who knows of the store that was the last, or that cut a table off: by its own doing, or
    # from another; and whose DSB completed it.
    own: Relation
    known: Relation
    complete: Relation
    cut_own: Relation
    cut_known: Relation
    cut_complete: Relation
    # What a CPU may hold: tables whose link is in its walk caches, entries of one address or of
    # all, what was translated or fetched ahead.
    walks: Relation
    one: Relation
    wide: Relation
    ahead: Relation
    fetched: Relation
    # What goes with the next DSB ISH of the CPU that issued TLBIs.
    goes: Relation
    goes_wide: Relation
    goes_walks: Relation
    # The operation under way.
    step: Relation
    by: Relation
    covers: Relation
    links_cut: Relation
    unmaps: Relation
    replaces: Relation
    stored: Relation
    path: Relation
    """The whole way down was loaded: what others linked is visible."""
    old: Relation
    """What is promised at an address when no operation is under way there."""
    new: Relation
    # What CPUs were told of an address, and whether they have synchronised since.
    heard: Relation
    told: Relation
    free: Relation
    """A frame that may be used for something else."""

    def to(self, **changed: Relation) -> State:
        return replace(self, **changed)


ARGUMENTS = {
    "live": "t", "dead": "t", "private": "t", "upper": "t", "above": "tu", "zeroed": "ct",
    "now": "tx", "seen": "txv", "link": "tu", "seen_link": "tu",
    "own": "ctx", "known": "ctx", "complete": "ctx", "cut_own": "ct", "cut_known": "ct", "cut_complete": "ct",
    "walks": "ct", "one": "ctxv", "wide": "ctv", "ahead": "ctxv", "fetched": "ctxv",
    "goes": "ctxv", "goes_wide": "ctv", "goes_walks": "ct",
    "step": "", "by": "", "covers": "x", "links_cut": "", "unmaps": "", "replaces": "", "stored": "x", "path": "",
    "old": "x", "new": "x", "heard": "cx", "told": "cx", "free": "rx",
}  # fmt: skip
RESULTS = {"now": VALUE, "old": VALUE, "new": VALUE, "by": CPU, "step": z3.IntSort()}


def some_state(world: World, suffix: str = "") -> State:
    """Any at all."""
    relations = {name: function(name + suffix, arguments, RESULTS.get(name, BOOL)) for name, arguments in ARGUMENTS.items()}
    if isinstance(world, Few):
        for name in ("now", "old", "new", "by"):
            for values in product(*(world.elements[str(sort_of(letter))] for letter in ARGUMENTS[name])):
                world.closed(relations[name](*values))
    return State(**relations)


def axioms(world: World) -> list[Any]:
    if isinstance(world, Few):
        for constant in (INVALID, LINK, ROOT, FIRST):
            world.closed(constant)
        for value in world.elements["Value"]:
            world.closed(out(value))
    return [INVALID != LINK, world.forall("v", lambda v: z3.Implies(z3.Not(leaf(v)), z3.Not(is_wide(v))))]


# ---- what instructions do ----


def store(s: State, c: Any, t: Any, at: Relation, value: Relation) -> State:
    """A plain store by `c` to the descriptors of `t` for the addresses `at`: visible some time from now on."""

    def hit(u: Any, x: Any) -> Any:
        return z3.And(u == t, at(x))

    return s.to(
        now=lambda u, x: z3.If(hit(u, x), value(x), s.now(u, x)),
        seen=lambda u, x, v: z3.Or(s.seen(u, x, v), z3.And(hit(u, x), v == value(x))),
        own=lambda d, u, x: z3.If(hit(u, x), d == c, s.own(d, u, x)),
        known=lambda d, u, x: z3.If(hit(u, x), d == c, s.known(d, u, x)),
        complete=lambda d, u, x: z3.And(z3.Not(hit(u, x)), s.complete(d, u, x)),
        goes=lambda d, u, x, v: z3.And(s.goes(d, u, x, v), z3.Not(z3.And(hit(u, x), v == value(x)))),
        # A wide entry may come of any address: once more of this one.
        goes_wide=lambda d, u, v: z3.And(s.goes_wide(d, u, v), z3.Not(z3.And(u == t, is_wide(v)))),
    )


def dsb(s: State, c: Any, ish: bool = True, others: bool = True) -> State:
    """DSB ISHST of `c`: its own stores are visible. DSB ISH: those that it knows of too, and its TLBIs are complete.

    `others`: false for TLBIs of the local form.
    """

    def completes(t: Any, x: Any) -> Any:
        return z3.Or(s.own(c, t, x), s.known(c, t, x)) if ish else s.own(c, t, x)

    def completes_cut(t: Any) -> Any:
        return z3.Or(s.cut_own(c, t), s.cut_known(c, t)) if ish else s.cut_own(c, t)

    after = s.to(
        seen=lambda t, x, v: z3.And(s.seen(t, x, v), z3.Or(z3.Not(completes(t, x)), v == s.now(t, x))),
        seen_link=lambda t, u: z3.And(s.seen_link(t, u), z3.Or(z3.Not(completes(t, FIRST)), s.link(t, u))),
        complete=lambda d, t, x: z3.Or(s.complete(d, t, x), z3.And(d == c, completes(t, x))),
        cut_complete=lambda d, t: z3.Or(s.cut_complete(d, t), z3.And(d == c, completes_cut(t))),
    )
    if not ish:
        return after

    def at(d: Any) -> Any:
        return z3.BoolVal(True) if others else d == c

    return after.to(
        one=lambda d, t, x, v: z3.And(s.one(d, t, x, v), z3.Not(z3.And(at(d), s.goes(c, t, x, v)))),
        wide=lambda d, t, v: z3.And(s.wide(d, t, v), z3.Not(z3.And(at(d), s.goes_wide(c, t, v)))),
        walks=lambda d, t: z3.And(s.walks(d, t), z3.Not(z3.And(at(d), s.goes_walks(c, t)))),
        # Accesses of other CPUs are waited for. What this one has translated ahead stays.
        ahead=lambda d, t, x, v: z3.And(s.ahead(d, t, x, v), z3.Not(z3.And(at(d), d != c, leaf(v), s.goes(c, t, x, v)))),
        goes=lambda d, t, x, v: z3.And(d != c, s.goes(d, t, x, v)),
        goes_wide=lambda d, t, v: z3.And(d != c, s.goes_wide(d, t, v)),
        goes_walks=lambda d, t: z3.And(d != c, s.goes_walks(d, t)),
    )


def tlbi(world: World, s: State, c: Any, at: Relation, some: Any, all_levels: Any) -> State:
    """TLBIs of `c` for the addresses `at` (`some`: there is one). What was overwritten by stores that a DSB of `c` had completed goes."""

    def cut(t: Any) -> Any:
        return z3.And(s.dead(t), s.cut_complete(c, t))

    return s.to(
        goes=lambda d, t, x, v: z3.Or(s.goes(d, t, x, v), z3.And(d == c, at(x), z3.Or(cut(t), z3.And(s.complete(c, t, x), v != s.now(t, x))))),
        # It goes if it is hit anywhere, and can come back if it stands at any address.
        goes_wide=lambda d, t, v: z3.Or(
            s.goes_wide(d, t, v), z3.And(d == c, some, z3.Or(cut(t), world.forall("y", lambda y: z3.And(s.complete(c, t, y), v != s.now(t, y)))))
        ),
        goes_walks=lambda d, t: z3.Or(s.goes_walks(d, t), z3.And(d == c, all_levels, some, cut(t))),
    )


def synchronise(s: State, c: Any) -> State:
    """ISB, or the entry of an exception."""
    return s.to(
        ahead=lambda d, t, x, v: z3.And(d != c, s.ahead(d, t, x, v)),
        fetched=lambda d, t, x, v: z3.And(d != c, s.fetched(d, t, x, v)),
        told=lambda d, x: z3.Or(s.told(d, x), z3.And(d == c, s.heard(d, x))),
    )


def hand_over(s: State, c: Any, d: Any) -> State:
    """A release by `c` that `d` acquires."""
    return s.to(
        known=lambda e, t, x: z3.Or(s.known(e, t, x), z3.And(e == d, z3.Or(s.known(c, t, x), s.own(c, t, x)))),
        cut_known=lambda e, t: z3.Or(s.cut_known(e, t), z3.And(e == d, z3.Or(s.cut_known(c, t), s.cut_own(c, t)))),
        zeroed=lambda e, t: z3.Or(s.zeroed(e, t), z3.And(e == d, s.zeroed(c, t))),
        heard=lambda e, x: z3.Or(s.heard(e, x), z3.And(e == d, z3.Or(s.heard(c, x), s.told(c, x)))),
    )
