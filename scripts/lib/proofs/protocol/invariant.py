"""What holds of every state that can be reached: what is promised (`promises`), what that implies (`consequences`), and what it rests on (`reasons`)."""

from __future__ import annotations

from typing import Any

import z3
from z3 import And, If, Implies, Not, Or

from .machine import (
    CHANGE, CLEAN, CUT, DONE, FIRST, IDLE, INVALID, ISSUED, LED, LINK, MAKE, PUBLISHED, ROOT, TAKEN, WAITING,
    State, World, agree, block, is_wide, leaf, out,
)  # fmt: skip


def during(s: State, *steps: Any) -> Any:
    return Or(*(s.step() == step for step in steps))


def settled(s: State, x: Any) -> Any:
    """No operation is under way at the address."""
    return Or(s.step() == IDLE, Not(s.covers(x)))


def promises(world: World, s: State) -> dict[str, Any]:
    """What the kernel relies on."""
    forall = world.forall
    return {
        "a TLB holds the one current translation": forall(
            "c t x v", lambda c, t, x, v: Implies(And(settled(s, x), Or(s.one(c, t, x, v), s.wide(c, t, v))), v == s.old(x))
        ),
        "no access was translated to anything else": forall(
            "c t x v", lambda c, t, x, v: Implies(And(settled(s, x), s.ahead(c, t, x, v), leaf(v)), v == s.old(x))
        ),
        "what is mapped does not fault on a CPU that was told": forall(
            "c t x", lambda c, t, x: Implies(And(settled(s, x), s.told(c, x), s.ahead(c, t, x, INVALID)), s.old(x) == INVALID)
        ),
        "no instruction comes from elsewhere on a CPU that was told": forall(
            "c t x v", lambda c, t, x, v: Implies(And(settled(s, x), s.told(c, x), s.fetched(c, t, x, v)), v == s.old(x))
        ),
        "meanwhile it is the old or the new one": forall(
            "c t x v",
            lambda c, t, x, v: Implies(
                And(Not(settled(s, x)), Or(s.one(c, t, x, v), s.wide(c, t, v))),
                Or(v == s.old(x), And(v == s.new(x), Not(s.unmaps()), Or(Not(s.replaces()), during(s, MAKE, PUBLISHED)))),
            ),
        ),
        "nothing leads to a frame that is free": forall(
            "c t x v", lambda c, t, x, v: Implies(And(s.free(out(v), x), leaf(v)), Not(Or(s.one(c, t, x, v), s.wide(c, t, v), s.ahead(c, t, x, v))))
        ),
        "no walk cache leads to a page that is no table": forall("c t", lambda c, t: Implies(s.walks(c, t), Or(s.live(t), s.dead(t)))),
        "no TLB holds anything of a page that is no table": forall(
            "c t x v", lambda c, t, x, v: Implies(Or(s.one(c, t, x, v), s.wide(c, t, v)), Or(s.live(t), s.dead(t)))
        ),
    }


def consequences(world: World, s: State) -> dict[str, Any]:
    """What follows of the rest, and is promised, too."""
    forall = world.forall

    def holds(c: Any, t: Any, x: Any, v: Any) -> Any:
        return Or(s.one(c, t, x, v), s.wide(c, t, v))

    return {
        "two entries for one address agree": forall(
            "c t u x v w", lambda c, t, u, x, v, w: Implies(And(holds(c, t, x, v), holds(c, u, x, w)), agree(v, w))
        ),
    }


def reasons(world: World, s: State) -> dict[str, Any]:
    """Why the promises are kept."""
    forall = world.forall
    before_flush = during(s, CUT, WAITING, TAKEN, LED, ISSUED)
    cutting = during(s, CUT, WAITING, TAKEN)
    breaks = Or(s.unmaps(), s.replaces())
    led = during(s, LED, ISSUED, DONE, CLEAN)

    def table(t: Any) -> Any:
        return Or(s.live(t), s.dead(t))

    def may_be_seen(x: Any, v: Any, now: Any) -> Any:
        """Of a live table."""
        change = during(s, CHANGE)
        return If(
            settled(s, x),
            Or(v == now, And(Not(leaf(v)), s.old(x) == INVALID)),
            Or(
                And(cutting, Or(v == s.old(x), Not(leaf(v)))),
                And(change, Or(v == s.old(x), v == s.new(x), v == LINK)),
                And(led, If(breaks, Not(leaf(v)), v == now)),
                And(during(s, MAKE, PUBLISHED), Or(And(v == s.new(x), v == now), Not(leaf(v)))),
            ),
        )

    def may_stand(x: Any, v: Any) -> Any:
        return Or(
            v == LINK,
            If(
                settled(s, x),
                v == s.old(x),
                Or(
                    And(during(s, CUT), Or(v == s.old(x), v == INVALID)),
                    And(during(s, WAITING, TAKEN), v == INVALID),
                    And(led, v == If(breaks, INVALID, s.new(x))),
                    And(during(s, MAKE, PUBLISHED), Or(v == INVALID, v == s.new(x))),
                    And(during(s, CHANGE), Or(v == s.old(x), v == s.new(x))),
                ),
            ),
        )

    def current(t: Any, x: Any, v: Any) -> Any:
        return And(s.live(t), v == s.now(t, x))

    return {
        # The operation.
        "steps are these": during(s, IDLE, CUT, WAITING, TAKEN, LED, ISSUED, DONE, CLEAN, MAKE, PUBLISHED, CHANGE),
        "operations are of one kind": And(
            Not(And(s.unmaps(), s.replaces())),
            Implies(during(s, MAKE, PUBLISHED, CHANGE), Not(s.unmaps())),
            Implies(during(s, CHANGE), Not(s.replaces())),
            Implies(during(s, CUT), breaks),
            Implies(during(s, WAITING, TAKEN), s.unmaps()),
            Implies(during(s, CLEAN), Not(s.replaces())),
        ),
        "links are cut by those that break": Implies(And(s.step() != IDLE, s.links_cut()), And(breaks, forall("x", lambda x: s.covers(x)))),
        "entries are whole": forall("x y", lambda x, y: Implies(is_wide(s.old(x)), s.old(y) == s.old(x))),
        "wide ones are covered whole": Implies(
            s.step() != IDLE, forall("x y", lambda x, y: Implies(And(s.covers(x), is_wide(s.old(x))), s.covers(y)))
        ),
        "so are new ones": Implies(
            And(s.step() != IDLE, Not(s.unmaps())), forall("x y", lambda x, y: Implies(And(s.covers(x), is_wide(s.new(x))), And(s.covers(y), s.new(y) == s.new(x))))
        ),
        "new ones are leaves": Implies(And(s.step() != IDLE, Not(s.unmaps())), forall("x", lambda x: Implies(s.covers(x), leaf(s.new(x))))),
        "old ones are no links": forall("x", lambda x: s.old(x) != LINK),
        "a map is where nothing was": Implies(
            And(during(s, MAKE, PUBLISHED), Not(s.replaces())), forall("x", lambda x: Implies(s.covers(x), s.old(x) == INVALID))
        ),
        "a change agrees": Implies(
            Or(during(s, CHANGE), And(led, Not(breaks))), forall("x", lambda x: Implies(s.covers(x), And(leaf(s.old(x)), agree(s.old(x), s.new(x)))))
        ),
        "nothing is stored while it breaks": Implies(And(Or(cutting, led), breaks), And(Not(s.path()), forall("x", lambda x: Not(s.stored(x))))),
        "what is replaced was a leaf": Implies(And(s.step() != IDLE, s.replaces()), forall("x", lambda x: Implies(s.covers(x), leaf(s.old(x))))),
        "frames in use are not free": forall("x", lambda x: Implies(leaf(s.old(x)), Not(s.free(out(s.old(x)), x)))),
        "nor are those to be used": Implies(
            And(s.step() != IDLE, Not(s.unmaps())), forall("x", lambda x: Implies(s.covers(x), Not(s.free(out(s.new(x)), x))))
        ),
        "no CPU was told of what is under way": forall("c x", lambda c, x: Implies(Not(settled(s, x)), Not(Or(s.heard(c, x), s.told(c, x))))),
        # Tables.
        "the root is one": And(s.live(ROOT), s.upper(ROOT)),
        "a page is one thing": forall("t", lambda t: And(Not(And(s.live(t), s.dead(t))), Not(And(s.live(t), s.private(t))), Not(And(s.dead(t), s.private(t))))),
        "tables die when links are cut": forall("t", lambda t: Implies(s.dead(t), And(before_flush_or_done(s), s.links_cut(), breaks, s.step() != IDLE))),
        "nothing is above the root": forall("t", lambda t: Implies(s.live(t), Not(s.above(t, ROOT)))),
        "above is an order": forall(
            "t u u2", lambda t, u, w: Implies(And(s.live(t), s.live(u), s.live(w), s.above(t, u), s.above(u, w)), s.above(t, w))
        ),
        "nothing is between": forall(
            "t u u2", lambda t, u, w: Implies(And(s.live(t), s.live(w), s.link(t, u), s.above(t, w)), Or(w == u, s.above(u, w)))
        ),
        "links of live tables": forall("t u", lambda t, u: Implies(And(s.live(t), s.link(t, u)), And(s.live(u), s.upper(t), s.above(t, u), s.now(t, FIRST) == LINK))),
        "one link each": forall("t u", lambda t, u: Implies(And(s.live(t), s.now(t, FIRST) != LINK), Not(s.link(t, u)))),
        "live tables are a chain": forall(
            "t u", lambda t, u: Implies(And(s.live(t), s.live(u), t != u), Or(And(s.above(t, u), Not(s.above(u, t))), And(s.above(u, t), Not(s.above(t, u)))))
        ),
        "none is above itself": forall("t", lambda t: Implies(s.live(t), Not(s.above(t, t)))),
        "above is a link": forall("t u x", lambda t, u, x: Implies(And(s.live(t), s.live(u), s.above(t, u)), And(s.now(t, x) == LINK, s.upper(t)))),
        "only upper tables have links": forall("t x", lambda t, x: Implies(And(table(t), Or(s.now(t, x) == LINK, s.seen(t, x, LINK))), s.upper(t))),
        "links seen are of upper tables": forall("t u", lambda t, u: Implies(And(table(t), s.seen_link(t, u)), And(s.upper(t), table(u)))),
        "a table that is cut off leads to such": forall("t u", lambda t, u: Implies(And(s.dead(t), s.seen_link(t, u)), s.dead(u))),
        "a live one too, until it is visible": forall(
            "t u",
            lambda t, u: Implies(
                And(s.live(t), s.seen_link(t, u), Not(s.link(t, u))), And(s.dead(u), cutting, If(s.step() == TAKEN, s.known(s.by(), t, FIRST), s.own(s.by(), t, FIRST)))
            ),
        ),
        "an upper descriptor is one": And(
            forall("t x y", lambda t, x, y: Implies(And(table(t), s.upper(t)), s.now(t, x) == s.now(t, y))),
            forall("t x y v", lambda t, x, y, v: Implies(And(table(t), s.upper(t), s.seen(t, x, v)), s.seen(t, y, v))),
            forall("c t x y", lambda c, t, x, y: Implies(And(table(t), s.upper(t)), And(s.own(c, t, x) == s.own(c, t, y), s.known(c, t, x) == s.known(c, t, y)))),
            forall("c t x y", lambda c, t, x, y: Implies(And(table(t), s.upper(t)), s.complete(c, t, x) == s.complete(c, t, y))),
        ),
        "blocks are in upper tables": forall(
            "t x v", lambda t, x, v: Implies(And(table(t), Or(s.seen(t, x, v), s.now(t, x) == v), leaf(v)), block(v) == s.upper(t))
        ),
        "a zeroed table is zero": forall("c t x", lambda c, t, x: Implies(And(s.private(t), s.zeroed(c, t)), s.now(t, x) == INVALID)),
        "a zeroed table was stored to by one": forall(
            "c d t x y",
            lambda c, d, t, x, y: Implies(
                And(s.private(t), s.zeroed(d, t)), And(s.own(c, t, x) == s.own(c, t, y), s.known(c, t, x) == s.known(c, t, y), s.complete(c, t, x) == s.complete(c, t, y))
            ),
        ),
        "zeroes may be seen": forall("c t x", lambda c, t, x: Implies(And(s.private(t), s.zeroed(c, t)), s.seen(t, x, s.now(t, x)))),
        "a zeroed table has no links": forall("c t u", lambda c, t, u: Implies(And(s.private(t), s.zeroed(c, t)), Not(s.link(t, u)))),
        # What stands, and what may be seen.
        "what stands": forall("t x", lambda t, x: Implies(s.live(t), may_stand(x, s.now(t, x)))),
        "what may be seen": forall("t x v", lambda t, x, v: Implies(And(s.live(t), s.seen(t, x, v)), may_be_seen(x, v, s.now(t, x)))),
        "in what was cut off, the old": forall("t x v", lambda t, x, v: Implies(And(s.dead(t), s.seen(t, x, v), leaf(v)), v == s.old(x))),
        "what is stored stands": Implies(
            during(s, MAKE, PUBLISHED, CHANGE), forall("t x", lambda t, x: Implies(And(s.live(t), s.covers(x), s.stored(x)), Or(s.now(t, x) == s.new(x), s.now(t, x) == LINK)))
        ),
        "all is stored": Implies(Or(during(s, PUBLISHED), And(led, Not(breaks))), forall("x", lambda x: Implies(s.covers(x), s.stored(x)))),
        "what was published is visible": Implies(
            during(s, PUBLISHED), forall("t x v", lambda t, x, v: Implies(And(s.live(t), s.covers(x), s.seen(t, x, v)), v == s.now(t, x)))
        ),
        # Who knows of the stores.
        "the path is known": Implies(
            And(during(s, MAKE), s.path()),
            forall("t x v", lambda t, x, v: Implies(And(s.live(t), s.upper(t), s.covers(x), s.seen(t, x, v), v != s.now(t, x)), s.own(s.by(), t, x))),
        ),
        "leaves that were made": Implies(
            during(s, MAKE),
            forall("t x v", lambda t, x, v: Implies(And(s.live(t), s.covers(x), leaf(s.now(t, x)), s.seen(t, x, v), v != s.now(t, x)), s.own(s.by(), t, x))),
        ),
        "stores of the operation": Implies(
            during(s, CUT, CHANGE),
            forall("t x v", lambda t, x, v: Implies(And(s.live(t), s.covers(x), s.seen(t, x, v), v != s.now(t, x), leaf(s.old(x))), s.own(s.by(), t, x))),
        ),
        "handed on": Implies(
            during(s, WAITING),
            forall("t x v", lambda t, x, v: Implies(And(s.live(t), s.covers(x), s.seen(t, x, v), leaf(v)), s.own(s.by(), t, x))),
        ),
        "and acquired": Implies(
            during(s, TAKEN),
            forall("t x v", lambda t, x, v: Implies(And(s.live(t), s.covers(x), s.seen(t, x, v), leaf(v)), s.known(s.by(), t, x))),
        ),
    } | held(world, s)


def before_flush_or_done(s: State) -> Any:
    return during(s, CUT, WAITING, TAKEN, LED, ISSUED, DONE, CLEAN)


def held(world: World, s: State) -> dict[str, Any]:
    """What may be held meanwhile, and that the flush takes it."""
    forall = world.forall

    by = s.by()

    def holds(c: Any, t: Any, x: Any, v: Any) -> Any:
        return Or(s.one(c, t, x, v), s.wide(c, t, v))

    def uses(c: Any, t: Any, x: Any, v: Any) -> Any:
        return Or(holds(c, t, x, v), And(s.ahead(c, t, x, v), leaf(v)))

    def current(t: Any, x: Any, v: Any) -> Any:
        return And(s.live(t), v == s.now(t, x))

    def always(body: Any) -> Any:
        return forall("c t x v", lambda c, t, x, v: Implies(Not(settled(s, x)), body(c, t, x, v)))

    def stale(c: Any, t: Any, x: Any, v: Any) -> Any:
        return And(uses(c, t, x, v), s.live(t), v != s.now(t, x))

    return {
        "leaves are held": forall("c t x v", lambda c, t, x, v: Implies(Or(holds(c, t, x, v), s.fetched(c, t, x, v)), leaf(v))),
        "one entry is of a last-level table": forall("c t x v", lambda c, t, x, v: Implies(s.one(c, t, x, v), Not(block(v)))),
        "as one entry, what can be": forall("c t v", lambda c, t, v: Implies(s.wide(c, t, v), is_wide(v))),
        "what is held stands": forall("c t x v", lambda c, t, x, v: Implies(And(settled(s, x), uses(c, t, x, v)), current(t, x, v))),
        "ahead is the old or the new": always(lambda c, t, x, v: Implies(And(s.ahead(c, t, x, v), leaf(v)), Or(v == s.old(x), And(v == s.new(x), Not(s.unmaps()))))),
        "before the flush, ahead is of a table": Implies(
            during(s, CUT, WAITING, TAKEN, LED, ISSUED, CHANGE), always(lambda c, t, x, v: Implies(uses(c, t, x, v), Or(s.live(t), s.dead(t))))
        ),
        "what was overwritten is known": And(
            *(
                Implies(
                    during(s, *steps),
                    forall(
                        "t x",
                        lambda t, x, knows=knows: Implies(
                            And(s.live(t), s.covers(x), leaf(s.old(x)), s.now(t, x) != s.old(x), s.now(t, x) != LINK), knows(by, t, x)
                        ),
                    ),
                )
                for steps, knows in (((CUT, CHANGE, WAITING), s.own), ((TAKEN,), s.known), ((LED, ISSUED), s.complete))
            )
        ),
        "the storer knows what went": Implies(
            during(s, CUT, CHANGE, WAITING), always(lambda c, t, x, v: Implies(stale(c, t, x, v), Or(s.own(by, t, x), And(during(s, CHANGE), v == s.new(x)))))
        ),
        "the taker knows what went": Implies(during(s, TAKEN), always(lambda c, t, x, v: Implies(stale(c, t, x, v), s.known(by, t, x)))),
        "what went is complete": Implies(during(s, LED, ISSUED), always(lambda c, t, x, v: Implies(stale(c, t, x, v), s.complete(by, t, x)))),
        "what went is invalidated": Implies(during(s, ISSUED), always(lambda c, t, x, v: Implies(And(uses(c, t, x, v), c != by, Not(current(t, x, v))), s.goes(by, t, x, v)))),
        "what this CPU holds, too": Implies(during(s, ISSUED), always(lambda c, t, x, v: Implies(And(holds(c, t, x, v), Not(current(t, x, v))), s.goes(by, t, x, v)))),
        "and wide ones": Implies(during(s, ISSUED), always(lambda c, t, x, v: Implies(And(s.wide(c, t, v), Not(current(t, x, v))), s.goes_wide(by, t, v)))),
        "afterwards what is held stands": Implies(
            during(s, DONE, CLEAN), always(lambda c, t, x, v: Implies(Or(holds(c, t, x, v), And(c != by, s.ahead(c, t, x, v), leaf(v))), current(t, x, v)))
        ),
        # A group may be held for all of its addresses when one of them is made.
        "or is made": Implies(
            during(s, MAKE, PUBLISHED),
            always(
                lambda c, t, x, v: And(
                    Implies(s.one(c, t, x, v), current(t, x, v)),
                    Implies(
                        Or(holds(c, t, x, v), And(c != by, s.ahead(c, t, x, v), leaf(v))), And(s.live(t), v == s.new(x), Implies(s.upper(t), v == s.now(t, x)))
                    ),
                )
            ),
        ),
        "where a link stands nothing is held": And(
            forall("t x v", lambda t, x, v: Implies(And(s.live(t), s.now(t, x) == LINK, s.seen(t, x, v)), Not(leaf(v)))),
            forall(
                "c t x v",
                lambda c, t, x, v: Implies(
                    And(s.live(t), s.now(t, x) == LINK, Or(holds(c, t, x, v), And(Or(c != by, settled(s, x), Not(during(s, DONE, MAKE, PUBLISHED))), s.ahead(c, t, x, v)))),
                    Not(leaf(v)),
                ),
            ),
        ),
        "and here, once synchronised": Implies(
            during(s, CLEAN),
            always(
                lambda c, t, x, v: And(
                    Implies(And(s.ahead(c, t, x, v), leaf(v)), current(t, x, v)),
                    Implies(And(c == by, s.fetched(c, t, x, v)), And(v == s.new(x), Not(s.unmaps()))),
                    Implies(And(c == by, s.ahead(c, t, x, INVALID)), s.unmaps()),
                )
            ),
        ),
        "the storer knows what it cut off": Implies(during(s, CUT, WAITING), forall("t", lambda t: Implies(s.dead(t), s.cut_own(by, t)))),
        "the taker knows what was cut off": Implies(during(s, TAKEN), forall("t", lambda t: Implies(s.dead(t), s.cut_known(by, t)))),
        "the cut is complete": Implies(during(s, LED, ISSUED), forall("t", lambda t: Implies(s.dead(t), s.cut_complete(by, t)))),
        "a walk into what was cut off is invalidated": Implies(
            during(s, ISSUED),
            forall("c t u x v", lambda c, t, u, x, v: Implies(And(s.dead(t), s.walks(c, t), s.dead(u)), And(s.goes_walks(by, u), s.goes_wide(by, u, v), s.goes(by, u, x, v)))),
        ),
        "no walk is in what was cut off": Implies(during(s, DONE, CLEAN), forall("c t", lambda c, t: Implies(s.walks(c, t), s.live(t)))),
    }
