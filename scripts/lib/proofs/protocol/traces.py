"""Whole operations on a few elements, from the start: that they can happen, and what each omission leads to."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any

import z3
from z3 import And, Implies, Not, Or

from . import invariant, machine
from .machine import (
    ARGUMENTS, CLEAN, CUT, DONE, IDLE, INVALID, ISSUED, LED, MAKE, PUBLISHED, RESULTS, ROOT, TAKEN,
    Few, State, World, cont, function, leaf, sort_of,
)  # fmt: skip
from .steps import EVERYTHING, NOTHING, Steps


def initial(world: World, s: State) -> dict[str, Any]:
    """A root, in which nothing stands, and CPUs that know it. Frames may be free."""
    forall = world.forall
    empty = {name: forall(" ".join(arguments), lambda *values, name=name: Not(getattr(s, name)(*values))) for name, arguments in EMPTY.items()}
    return empty | {
        "root": forall("t", lambda t: And(s.live(t) == (t == ROOT), Not(s.dead(t)), Not(s.private(t)))),
        "upper": s.upper(ROOT),
        "walks": forall("c t", lambda c, t: s.walks(c, t) == (t == ROOT)),
        "now": forall("x", lambda x: And(s.now(ROOT, x) == INVALID, s.old(x) == INVALID)),
        "seen": forall("x v", lambda x, v: s.seen(ROOT, x, v) == (v == INVALID)),
        "told": forall("c x", lambda c, x: s.told(c, x)),
        "idle": And(s.step() == IDLE, Not(s.unmaps()), Not(s.replaces())),
    }


EMPTY = {
    "above": "tu", "zeroed": "ct", "link": "tu", "seen_link": "tu", "own": "ctx", "known": "ctx", "complete": "ctx",
    "one": "ctxv", "wide": "ctv", "ahead": "ctxv", "fetched": "ctxv", "goes": "ctxv", "goes_wide": "ctv", "goes_walks": "ct",
}  # fmt: skip
"""Relations that hold of nothing at first."""


class Wrong(Steps):
    """Steps with something left out, and steps that no CPU should take."""

    def without(self, before: Any, after: Any) -> Any:
        return self.on(before), self.s.to(step=lambda: after)

    def no_lead(self) -> Any:
        return And(self.on(CUT), self.all_broken()), self.s.to(step=lambda: LED)

    def no_lead_for_others(self) -> Any:
        return self.without(TAKEN, LED)

    def lead_for_others_ishst(self) -> Any:
        s = self.s
        return self.on(TAKEN), machine.dsb(s, s.by(), ish=False).to(step=lambda: LED)

    def take_without_acquire(self) -> Any:
        c = self.pick("c")
        return self.on(machine.WAITING), self.s.to(step=lambda: TAKEN, by=lambda: c)

    def dsb_of_the_storer(self) -> Any:
        return self.on(machine.WAITING), machine.dsb(self.s, self.s.by())

    def no_tlbi(self) -> Any:
        return self.without(LED, ISSUED)

    def complete_here_only(self) -> Any:
        s = self.s
        return self.on(ISSUED), machine.dsb(s, s.by(), others=False).to(step=lambda: DONE)

    def issue_for_the_neighbour(self) -> Any:
        s = self.s
        return self.on(LED), machine.tlbi(self.world, s, s.by(), lambda x: Not(s.covers(x)), NOTHING, s.links_cut()).to(step=lambda: ISSUED)

    def issue_for_one_address(self) -> Any:
        s, x0 = self.s, self.pick("x")
        return And(self.on(LED), s.covers(x0)), machine.tlbi(self.world, s, s.by(), lambda x: x == x0, EVERYTHING, s.links_cut()).to(step=lambda: ISSUED)

    def issue_last_level(self) -> Any:
        s, x = self.s, self.pick("x")
        return And(self.on(LED), s.covers(x)), machine.tlbi(self.world, s, s.by(), s.covers, EVERYTHING, NOTHING).to(step=lambda: ISSUED)

    def no_dsb(self) -> Any:
        return self.without(ISSUED, DONE)

    def complete_ishst(self) -> Any:
        s = self.s
        return self.on(ISSUED), machine.dsb(s, s.by(), ish=False).to(step=lambda: DONE)

    def isb_before_the_dsb(self) -> Any:
        s = self.s
        return self.on(ISSUED), machine.synchronise(s, s.by())

    def no_isb(self) -> Any:
        return self.without(DONE, CLEAN)

    def free_before_the_flush(self) -> Any:
        return And(self.on(CUT), self.s.unmaps(), self.all_broken()), self.ended(self.s.to(dead=lambda t: NOTHING), lambda x: INVALID)

    def free_before_the_dsb(self) -> Any:
        return And(self.on(ISSUED), self.s.unmaps()), self.ended(self.s.to(dead=lambda t: NOTHING), lambda x: INVALID)

    def free_while_linked(self) -> Any:
        s, t = self.s, self.pick("t")
        return And(s.live(t), t != ROOT), s.to(live=lambda u: And(u != t, s.live(u)))

    def make_in_place(self) -> Any:
        """What was there is overwritten, and nothing was flushed between."""
        return And(self.on(CUT), self.s.replaces(), self.all_broken()), self.s.to(step=lambda: MAKE)

    def begin_protect_of_other_frames(self) -> Any:
        s, c, covers, new = self.s, self.pick("c"), self.relation("covers", "x"), self.relation("new", "x", machine.VALUE)
        leaves = self.forall("x", lambda x: Implies(covers(x), leaf(s.old(x))))
        return And(self.may_begin(c, covers), self.whole(covers, s.old), self.fits(covers, new), leaves), self.begin(machine.CHANGE, c, covers, new)

    def begin_protect_of_a_part(self) -> Any:
        s, c, covers, new = self.s, self.pick("c"), self.relation("covers", "x"), self.relation("new", "x", machine.VALUE)
        same = self.forall("x", lambda x: Implies(covers(x), And(leaf(s.old(x)), machine.agree(s.old(x), new(x)))))
        return And(self.may_begin(c, covers), same), self.begin(machine.CHANGE, c, covers, new)

    def begin_unmap_of_a_part(self) -> Any:
        s, c, covers = self.s, self.pick("c"), self.relation("covers", "x")
        group = self.forall("x", lambda x: Implies(covers(x), cont(s.old(x))))
        return And(self.may_begin(c, covers), group), self.begin(CUT, c, covers, s.new, unmaps=EVERYTHING)

    def begin_map_of_a_mixed_group(self) -> Any:
        s, c, covers, new = self.s, self.pick("c"), self.relation("covers", "x"), self.relation("new", "x", machine.VALUE)
        vacant = self.forall("x", lambda x: Implies(covers(x), And(leaf(new(x)), s.old(x) == INVALID, s.free(machine.out(new(x)), x))))
        return And(self.may_begin(c, covers), vacant), self.begin(MAKE, c, covers, new).to(
            free=lambda r, x: And(s.free(r, x), Not(And(covers(x), r == machine.out(new(x)))))
        )

    def link_plainly(self) -> Any:
        s, t, u = self.s, self.pick("t"), self.pick("u")
        return And(self.on(MAKE), self.may_link(s.by(), t, u)), self.linked(s.by(), t, u, release=NOTHING)

    def link_what_another_has_zeroed(self) -> Any:
        s, c, t, u = self.s, self.pick("c"), self.pick("t"), self.pick("u")
        vacant = self.forall("x", lambda x: s.now(t, x) == INVALID)
        return And(self.on(MAKE), s.live(t), s.upper(t), vacant, s.private(u), s.zeroed(c, u), Not(s.zeroed(s.by(), u))), self.linked(s.by(), t, u)

    def link_what_is_no_table(self) -> Any:
        s, t, u = self.s, self.pick("t"), self.pick("u")
        vacant = self.forall("x", lambda x: s.now(t, x) == INVALID)
        return And(self.on(MAKE), s.live(t), s.upper(t), vacant, s.private(u)), self.linked(s.by(), t, u)

    def publish_without_dsb(self) -> Any:
        return And(self.on(MAKE), self.s.path(), self.all_stored()), self.s.to(step=lambda: PUBLISHED)

    def publish_without_isb(self) -> Any:
        return self.on(PUBLISHED), self.ended(self.s, self.s.new)

    def publish_without_the_path(self) -> Any:
        s = self.s
        return And(self.on(MAKE), self.all_stored()), machine.dsb(s, s.by(), ish=False).to(step=lambda: PUBLISHED)

    def publish_a_part(self) -> Any:
        s, x = self.s, self.pick("x")
        return And(self.on(MAKE), s.path(), s.covers(x), s.stored(x)), machine.dsb(s, s.by(), ish=False).to(step=lambda: PUBLISHED)

    def told_without_isb(self) -> Any:
        """A CPU goes on as if it had synchronised when it heard."""
        s, c = self.s, self.pick("c")
        return self.on(IDLE), s.to(told=lambda d, x: Or(s.told(d, x), And(d == c, s.heard(d, x))))


class Traces:
    """On the same few elements. What scripts begin with in common is built once."""

    def __init__(self, pages: int = 2) -> None:
        self.world = Few(Cpu=2, Va=2, Page=pages, Value=4, Frames=2)
        first = machine.some_state(self.world, "@0")
        self.begun: dict[tuple[str, ...], tuple[list[Any], State]] = {(): ([*machine.axioms(self.world), *initial(self.world, first).values()], first)}

    def after(self, steps: tuple[str, ...]) -> tuple[list[Any], State]:
        if steps not in self.begun:
            _, before = self.after(steps[:-1])
            step = Wrong(self.world, before, len(steps)).named(steps[-1])
            state = named_apart(len(steps))
            self.begun[steps] = [step.guard, *equations(self.world, state, step.after)], state
        return self.begun[steps]

    def of(self, script: str) -> tuple[list[Any], list[State]]:
        """What is so if the steps of the script follow each other from the start, and the states between."""
        steps = tuple(script.split())
        all_of = [self.after(steps[:nr]) for nr in range(len(steps) + 1)]
        return [*(part for formula, _ in all_of for part in formula), *self.world.facts()], [state for _, state in all_of]


def named_apart(number: int) -> State:
    return State(**{name: function(f"{name}@{number}", arguments, RESULTS.get(name, machine.BOOL)) for name, arguments in ARGUMENTS.items()})


def equations(world: Few, state: State, after: State) -> Iterator[Any]:
    for name, arguments in ARGUMENTS.items():
        for values in product(*(world.elements[str(sort_of(letter))] for letter in arguments)):
            yield getattr(state, name)(*values) == getattr(after, name)(*values)


def kept(world: World, s: State) -> dict[str, Any]:
    """All promises, in one state."""
    return invariant.promises(world, s) | invariant.consequences(world, s)
