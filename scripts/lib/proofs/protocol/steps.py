"""What CPUs do: the engine's operations on the range, step by step, and what hardware may do at any time.

A step has a guard, which is what the engine makes sure of before, and a result.

```text
  map:      begin_map   { link } path { store } publish  isb_of_publish
  unmap:    begin_unmap { break, unlink } lead  issue  complete  isb  free
  lazily:   begin_unmap { break, unlink } defer  take  lead_for_others  issue  complete  isb  free
  replace:  begin_replace { break, unlink } lead  issue  complete  make { link, store } path publish  isb_of_publish
  protect:  begin_protect { change } lead_of_change  issue  complete  isb  end_protect
```
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import z3
from z3 import And, If, Implies, Not, Or

from . import machine
from .machine import (
    CHANGE, CLEAN, CUT, DONE, FIRST, IDLE, INVALID, ISSUED, LED, LINK, MAKE, PUBLISHED, TAKEN, WAITING,
    Few, State, World, agree, block, cont, function, is_wide, leaf, out,
)  # fmt: skip

NOTHING, EVERYTHING = z3.BoolVal(False), z3.BoolVal(True)


@dataclass(frozen=True)
class Step:
    """One of them, with what it is done with chosen: by its name, or by constants of the solver's."""

    name: str
    guard: Any
    after: State


class Steps:
    """All steps from a state. The number keeps what the steps of a trace choose apart."""

    def __init__(self, world: World, s: State, number: int = 0) -> None:
        self.world, self.s, self.number = world, s, f"@of{number}"
        self.forall = world.forall

    def pick(self, name: str) -> Any:
        return self.world.choice(name + self.number)

    def relation(self, name: str, arguments: str, result: Any = z3.BoolSort()) -> Callable[..., Any]:
        chosen = function(name + self.number, arguments, result)
        if isinstance(self.world, Few) and not z3.is_bool(result) and result != z3.BoolSort():
            for x in self.world.elements["Va"]:
                self.world.closed(chosen(x))
        return chosen

    def all_of(self) -> Iterator[Step]:
        for name in ENGINE + HARDWARE:
            yield self.named(name)

    def named(self, name: str) -> Step:
        guard, after = getattr(self, name)()
        return Step(name, guard, after)

    # ---- helpers ----

    def everything(self, covers: Any = None) -> Any:
        covers = self.s.covers if covers is None else covers
        return self.forall("y", lambda y: covers(y))

    def whole(self, covers: Any, value: Any) -> Any:
        """What is one entry is covered whole, or not at all (DESIGN rules 1 and 8)."""
        return self.forall("x", lambda x: Implies(And(covers(x), is_wide(value(x))), self.everything(covers)))

    def fits(self, covers: Any, new: Any) -> Any:
        """A group, or a block, is the same for all addresses; and all else is leaves of single addresses."""

        def at(x: Any) -> Any:
            return And(leaf(new(x)), Implies(is_wide(new(x)), self.forall("y", lambda y: And(covers(y), new(y) == new(x)))))

        return self.forall("x", lambda x: Implies(covers(x), at(x)))

    def begin(self, step: Any, c: Any, covers: Any, new: Any, *, unmaps: Any = NOTHING, replaces: Any = NOTHING) -> State:
        s = self.s
        return s.to(
            step=lambda: step,
            by=lambda: c,
            covers=covers,
            new=new,
            unmaps=lambda: unmaps,
            replaces=lambda: replaces,
            links_cut=lambda: NOTHING,
            stored=lambda x: NOTHING,
            path=lambda: NOTHING,
            heard=lambda d, x: And(s.heard(d, x), Not(covers(x))),
            told=lambda d, x: And(s.told(d, x), Not(covers(x))),
        )

    def may_begin(self, c: Any, covers: Any) -> Any:
        return And(self.s.step() == IDLE, self.forall("x", lambda x: Implies(covers(x), Or(self.s.heard(c, x), self.s.told(c, x)))))

    def on(self, step: Any) -> Any:
        return self.s.step() == step

    # ---- tables ----

    def allocate(self) -> Any:
        """A page that is free becomes a private table. What was in it may be anything."""
        s, c, t, upper = self.s, self.pick("c"), self.pick("t"), function("upper" + self.number, "")
        garbage = {name: function(name + "_garbage" + self.number, a) for name, a in (("seen", "xv"), ("link", "u"), ("seen_link", "u"))}
        held = self.relation("now_garbage", "x", machine.VALUE)
        return And(Not(s.live(t)), Not(s.dead(t)), Not(s.private(t))), s.to(
            private=lambda u: Or(u == t, s.private(u)),
            upper=lambda u: If(u == t, upper(), s.upper(u)),
            zeroed=lambda d, u: And(u != t, s.zeroed(d, u)),
            now=lambda u, x: If(u == t, held(x), s.now(u, x)),
            seen=lambda u, x, v: If(u == t, garbage["seen"](x, v), s.seen(u, x, v)),
            link=lambda u, w: If(u == t, garbage["link"](w), s.link(u, w)),
            seen_link=lambda u, w: If(u == t, garbage["seen_link"](w), s.seen_link(u, w)),
            own=lambda d, u, x: And(u != t, s.own(d, u, x)),
            known=lambda d, u, x: And(u != t, s.known(d, u, x)),
            complete=lambda d, u, x: And(u != t, s.complete(d, u, x)),
            above=lambda u, w: And(u != t, w != t, s.above(u, w)),
        )

    def zero(self) -> Any:
        s, c, t = self.s, self.pick("c"), self.pick("t")
        zeroed = machine.store(s, c, t, lambda x: EVERYTHING, lambda x: INVALID)
        return s.private(t), zeroed.to(
            zeroed=lambda d, u: If(u == t, d == c, s.zeroed(d, u)),
            link=lambda u, w: And(u != t, s.link(u, w)),
        )

    def give_back(self) -> Any:
        """By the CPU that lost the race for a link: no walk has seen the page."""
        s, t = self.s, self.pick("t")
        return s.private(t), s.to(private=lambda u: And(u != t, s.private(u)))

    def linked(self, c: Any, t: Any, u: Any, release: Any = EVERYTHING) -> State:
        """A compare-exchange of a vacant descriptor of `t` for a link to `u`. It releases what `c` knows of `u` (B2.3)."""
        s = machine.store(self.s, c, t, lambda x: EVERYTHING, lambda x: LINK)
        ordered = And(release, self.s.zeroed(c, u))
        return s.to(
            live=lambda w: Or(w == u, self.s.live(w)),
            private=lambda w: And(w != u, self.s.private(w)),
            link=lambda w, z: Or(And(w == t, z == u), self.s.link(w, z)),
            seen_link=lambda w, z: Or(And(w == t, z == u), And(self.s.seen_link(w, z), Or(w != u, Not(ordered)))),
            seen=lambda w, x, v: And(s.seen(w, x, v), Or(w != u, Not(ordered), v == self.s.now(u, x))),
            above=lambda w, z: If(z == u, And(self.s.live(w), w != u), And(w != u, self.s.above(w, z))),
            cut_own=lambda d, z: And(z != u, self.s.cut_own(d, z)),
            cut_known=lambda d, z: And(z != u, self.s.cut_known(d, z)),
            cut_complete=lambda d, z: And(z != u, self.s.cut_complete(d, z)),
        )

    def may_link(self, c: Any, t: Any, u: Any) -> Any:
        s = self.s
        vacant = self.forall("x", lambda x: s.now(t, x) == INVALID)
        return And(s.live(t), s.upper(t), vacant, s.private(u), s.zeroed(c, u))

    def link(self) -> Any:
        """By the CPU whose operation it is."""
        s, t, u = self.s, self.pick("t"), self.pick("u")
        return And(self.on(MAKE), self.may_link(s.by(), t, u)), self.linked(s.by(), t, u)

    def link_by_another(self) -> Any:
        """For a neighbour, while nothing is cut off here."""
        s, c, t, u = self.s, self.pick("c"), self.pick("t"), self.pick("u")
        when = Or(self.on(IDLE), And(self.on(MAKE), Not(s.replaces())))
        return And(when, self.may_link(c, t, u)), self.linked(c, t, u).to(path=lambda: And(s.path(), c == s.by()))

    def load_path(self) -> Any:
        """What another CPU has linked and this one loads is visible to all (other-multi-copy atomicity)."""
        s = self.s

        def observed(t: Any) -> Any:
            return And(s.live(t), s.upper(t), Not(s.own(s.by(), t, FIRST)))

        return self.on(MAKE), s.to(
            path=lambda: EVERYTHING,
            seen=lambda t, x, v: And(s.seen(t, x, v), Or(Not(observed(t)), v == s.now(t, x))),
            seen_link=lambda t, u: And(s.seen_link(t, u), Or(Not(observed(t)), s.link(t, u))),
        )

    # ---- map ----

    def begin_map(self) -> Any:
        s, c, covers, new = self.s, self.pick("c"), self.relation("covers", "x"), self.relation("new", "x", machine.VALUE)
        vacant = self.forall("x", lambda x: Implies(covers(x), And(s.old(x) == INVALID, s.free(out(new(x)), x))))
        return And(self.may_begin(c, covers), vacant, self.fits(covers, new)), self.begin(MAKE, c, covers, new).to(
            free=lambda r, x: And(s.free(r, x), Not(And(covers(x), r == out(new(x)))))
        )

    def store_leaf(self) -> Any:
        s, t, x0 = self.s, self.pick("t"), self.pick("x")
        guard = And(self.on(MAKE), s.live(t), Not(s.upper(t)), s.covers(x0), Not(block(s.new(x0))), s.now(t, x0) == INVALID)
        stored = machine.store(s, s.by(), t, lambda x: x == x0, lambda x: s.new(x0))
        return guard, stored.to(stored=lambda x: Or(x == x0, s.stored(x)))

    def store_block(self) -> Any:
        s, t = self.s, self.pick("t")
        guard = And(self.on(MAKE), s.live(t), s.upper(t), s.covers(FIRST), block(s.new(FIRST)), self.forall("x", lambda x: s.now(t, x) == INVALID))
        return guard, machine.store(s, s.by(), t, lambda x: EVERYTHING, lambda x: s.new(FIRST)).to(stored=lambda x: EVERYTHING)

    def all_stored(self) -> Any:
        return self.forall("x", lambda x: Implies(self.s.covers(x), self.s.stored(x)))

    def publish(self) -> Any:
        s = self.s
        return And(self.on(MAKE), s.path(), self.all_stored()), machine.dsb(s, s.by(), ish=False).to(step=lambda: PUBLISHED)

    def isb_of_publish(self) -> Any:
        s = self.s
        return self.on(PUBLISHED), self.ended(machine.synchronise(s, s.by()), s.new)

    def ended(self, after: State, value: Any) -> State:
        """What is promised now, to the CPU that did it first. Frames that nothing leads to any more are free."""
        s = self.s
        return after.to(
            step=lambda: IDLE,
            old=lambda x: If(s.covers(x), value(x), s.old(x)),
            told=lambda d, x: Or(after.told(d, x), And(d == s.by(), s.covers(x))),
            free=lambda r, x: Or(s.free(r, x), And(s.covers(x), leaf(s.old(x)), r == out(s.old(x)), Or(Not(leaf(value(x))), r != out(value(x))))),
        )

    # ---- unmap, and the break of break-before-make ----

    def begin_unmap(self) -> Any:
        s, c, covers = self.s, self.pick("c"), self.relation("covers", "x")
        return And(self.may_begin(c, covers), self.whole(covers, s.old)), self.begin(CUT, c, covers, s.new, unmaps=EVERYTHING)

    def begin_replace(self) -> Any:
        """Another output, size or memory type, contiguous or not, other frames or the same."""
        s, c, covers, new = self.s, self.pick("c"), self.relation("covers", "x"), self.relation("new", "x", machine.VALUE)
        frames = self.forall("x", lambda x: Implies(covers(x), And(leaf(s.old(x)), Or(s.free(out(new(x)), x), out(new(x)) == out(s.old(x))))))
        guard = And(self.may_begin(c, covers), self.whole(covers, s.old), self.fits(covers, new), frames)
        return guard, self.begin(CUT, c, covers, new, replaces=EVERYTHING).to(free=lambda r, x: And(s.free(r, x), Not(And(covers(x), r == out(new(x))))))

    def break_leaf(self) -> Any:
        s, t, x0 = self.s, self.pick("t"), self.pick("x")
        guard = And(self.on(CUT), s.live(t), Not(s.upper(t)), s.covers(x0), leaf(s.now(t, x0)))
        return guard, machine.store(s, s.by(), t, lambda x: x == x0, lambda x: INVALID)

    def break_block(self) -> Any:
        s, t = self.s, self.pick("t")
        guard = And(self.on(CUT), s.live(t), s.upper(t), leaf(s.now(t, FIRST)), self.everything())
        return guard, machine.store(s, s.by(), t, lambda x: EVERYTHING, lambda x: INVALID)

    def unlink(self) -> Any:
        s, t, u = self.s, self.pick("t"), self.pick("u")
        return And(self.on(CUT), s.live(t), s.link(t, u), self.everything()), self.unlinked(t, u)

    def unlinked(self, t: Any, u: Any) -> State:
        s = self.s
        after = machine.store(s, s.by(), t, lambda x: EVERYTHING, lambda x: INVALID)

        def gone(w: Any) -> Any:
            return And(s.live(w), Or(w == u, s.above(u, w)))

        return after.to(
            links_cut=lambda: EVERYTHING,
            link=lambda w, z: And(s.link(w, z), w != t),
            live=lambda w: And(s.live(w), Not(gone(w))),
            dead=lambda w: Or(s.dead(w), gone(w)),
            cut_own=lambda d, w: If(gone(w), d == s.by(), s.cut_own(d, w)),
            cut_known=lambda d, w: If(gone(w), d == s.by(), s.cut_known(d, w)),
            cut_complete=lambda d, w: And(Not(gone(w)), s.cut_complete(d, w)),
        )

    def all_broken(self) -> Any:
        s = self.s
        return self.forall("t x", lambda t, x: Implies(And(s.live(t), s.covers(x)), Not(leaf(s.now(t, x)))))

    def lead(self) -> Any:
        s = self.s
        return And(self.on(CUT), self.all_broken()), machine.dsb(s, s.by(), ish=False).to(step=lambda: LED)

    def defer(self) -> Any:
        """On the list of those that wait: a release."""
        return And(self.on(CUT), self.s.unmaps(), self.all_broken()), self.s.to(step=lambda: WAITING)

    def take(self) -> Any:
        """By any CPU: an acquire."""
        s, c = self.s, self.pick("c")
        return self.on(WAITING), machine.hand_over(s, s.by(), c).to(step=lambda: TAKEN, by=lambda: c)

    def lead_for_others(self) -> Any:
        s = self.s
        return self.on(TAKEN), machine.dsb(s, s.by()).to(step=lambda: LED)

    def issue(self) -> Any:
        s, x = self.s, self.pick("x")
        return And(self.on(LED), s.covers(x)), machine.tlbi(self.world, s, s.by(), s.covers, EVERYTHING, s.links_cut()).to(step=lambda: ISSUED)

    def complete(self) -> Any:
        s = self.s
        return self.on(ISSUED), machine.dsb(s, s.by()).to(step=lambda: DONE)

    def isb(self) -> Any:
        s = self.s
        return And(self.on(DONE), Not(s.replaces())), machine.synchronise(s, s.by()).to(step=lambda: CLEAN)

    def free(self) -> Any:
        """Frames, tables and addresses: a dead table is a free page."""
        s = self.s
        return And(self.on(CLEAN), s.unmaps()), self.ended(s.to(dead=lambda t: NOTHING), lambda x: INVALID)

    def make(self) -> Any:
        """Break-before-make goes on, with no ISB between."""
        s = self.s
        return And(self.on(DONE), s.replaces()), s.to(step=lambda: MAKE, dead=lambda t: NOTHING)

    # ---- protect ----

    def begin_protect(self) -> Any:
        s, c, covers, new = self.s, self.pick("c"), self.relation("covers", "x"), self.relation("new", "x", machine.VALUE)
        same = self.forall("x", lambda x: Implies(covers(x), And(leaf(s.old(x)), agree(s.old(x), new(x)))))
        return And(self.may_begin(c, covers), self.whole(covers, s.old), self.fits(covers, new), same), self.begin(CHANGE, c, covers, new)

    def change_leaf(self) -> Any:
        s, t, x0 = self.s, self.pick("t"), self.pick("x")
        guard = And(self.on(CHANGE), s.live(t), Not(s.upper(t)), s.covers(x0), leaf(s.now(t, x0)))
        return guard, machine.store(s, s.by(), t, lambda x: x == x0, lambda x: s.new(x0)).to(stored=lambda x: Or(x == x0, s.stored(x)))

    def change_block(self) -> Any:
        s, t = self.s, self.pick("t")
        guard = And(self.on(CHANGE), s.live(t), s.upper(t), leaf(s.now(t, FIRST)), self.everything())
        return guard, machine.store(s, s.by(), t, lambda x: EVERYTHING, lambda x: s.new(FIRST)).to(stored=lambda x: EVERYTHING)

    def lead_of_change(self) -> Any:
        s = self.s
        return And(self.on(CHANGE), self.all_stored()), machine.dsb(s, s.by(), ish=False).to(step=lambda: LED)

    def end_protect(self) -> Any:
        s = self.s
        return And(self.on(CLEAN), Not(s.unmaps()), Not(s.replaces())), self.ended(s, s.new)

    # ---- what any CPU does at any time, and what its hardware may ----

    def other_release(self) -> Any:
        return EVERYTHING, machine.hand_over(self.s, self.pick("c"), self.pick("d"))

    def other_dsb_ishst(self) -> Any:
        return EVERYTHING, machine.dsb(self.s, self.pick("c"), ish=False)

    def other_dsb_ish(self) -> Any:
        return EVERYTHING, machine.dsb(self.s, self.pick("c"))

    def other_isb(self) -> Any:
        return EVERYTHING, machine.synchronise(self.s, self.pick("c"))

    def other_tlbi(self) -> Any:
        at, some, levels = self.relation("hits", "x"), function("some" + self.number, ""), function("levels" + self.number, "")
        return EVERYTHING, machine.tlbi(self.world, self.s, self.pick("c"), at, some(), levels())

    def becomes_visible(self) -> Any:
        s, t0, x0 = self.s, self.pick("t"), self.pick("x")

        def old(t: Any, x: Any) -> Any:
            return And(t == t0, Or(x == x0, s.upper(t)))

        return EVERYTHING, s.to(
            seen=lambda t, x, v: And(s.seen(t, x, v), Or(Not(old(t, x)), v == s.now(t, x))),
            seen_link=lambda t, u: And(s.seen_link(t, u), Or(t != t0, s.link(t, u))),
        )

    def walk(self) -> Any:
        s, c, t, u = self.s, self.pick("c"), self.pick("t"), self.pick("u")
        return And(s.walks(c, t), s.seen_link(t, u)), s.to(walks=lambda d, w: Or(And(d == c, w == u), s.walks(d, w)))

    def hold(self) -> Any:
        s, c, t, x0, v0 = (self.s, *(self.pick(n) for n in "ctxv"))
        guard = And(s.walks(c, t), s.seen(t, x0, v0), leaf(v0), Not(s.upper(t)))
        return guard, s.to(one=lambda d, u, x, v: Or(And(d == c, u == t, x == x0, v == v0), s.one(d, u, x, v)))

    def hold_wide(self) -> Any:
        s, c, t, x0, v0 = (self.s, *(self.pick(n) for n in "ctxv"))
        guard = And(s.walks(c, t), s.seen(t, x0, v0), leaf(v0), Or(s.upper(t), cont(v0)))
        return guard, s.to(wide=lambda d, u, v: Or(And(d == c, u == t, v == v0), s.wide(d, u, v)))

    def look_ahead(self) -> Any:
        """An access is translated before its turn: to what may be held, or to a fault."""
        s, c, t, x0, v0 = (self.s, *(self.pick(n) for n in "ctxv"))
        guard = Or(s.one(c, t, x0, v0), s.wide(c, t, v0), And(s.walks(c, t), s.seen(t, x0, v0), v0 == INVALID))
        return guard, s.to(ahead=lambda d, u, x, v: Or(And(d == c, u == t, x == x0, v == v0), s.ahead(d, u, x, v)))

    def fetch(self) -> Any:
        s, c, t, x0, v0 = (self.s, *(self.pick(n) for n in "ctxv"))
        guard = Or(s.one(c, t, x0, v0), s.wide(c, t, v0))
        return guard, s.to(fetched=lambda d, u, x, v: Or(And(d == c, u == t, x == x0, v == v0), s.fetched(d, u, x, v)))

    def evict(self) -> Any:
        s, c, t, v0 = (self.s, *(self.pick(n) for n in "ctv"))

        def kept(d: Any, u: Any) -> Any:
            return Not(And(d == c, u == t))

        return t != machine.ROOT, s.to(
            walks=lambda d, u: And(kept(d, u), s.walks(d, u)),
            one=lambda d, u, x, v: And(Or(kept(d, u), v != v0), s.one(d, u, x, v)),
            wide=lambda d, u, v: And(Or(kept(d, u), v != v0), s.wide(d, u, v)),
        )


def names_of(first: str, last: str) -> list[str]:
    names = [name for name in vars(Steps) if not name.startswith("_")]
    return names[names.index(first) : names.index(last) + 1]


HELPERS = {"linked", "may_link", "all_stored", "ended", "unlinked", "all_broken"}
ENGINE = [name for name in names_of("allocate", "end_protect") if name not in HELPERS]
HARDWARE = names_of("other_release", "evict")
