"""The protocol between CPUs, proven for any number of them by induction: it holds at the start, and every step keeps it.

Sorts have no size: CPUs, addresses of the range, table pages, levels. What a formula with quantifiers
cannot be shown to have, a model, is shown on a few elements: each step happens in a trace from the
start, and each mutant ends one with a broken promise.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from itertools import islice
from typing import Any

import z3

from ..claim import Case, Claim, Mutant, Obligation, Unproven
from . import invariant, machine, mutants, traces
from .machine import World
from .steps import ENGINE, HARDWARE, Steps

AT_ONCE = 5
"""Parts of the invariant in one question: more are harder together, fewer are more questions."""

SHARES = {
    "tables and maps": ENGINE[: ENGINE.index("begin_unmap")],
    "unmap, replace and protect": ENGINE[ENGINE.index("begin_unmap") :],
    "what others and hardware do": HARDWARE,
}


@cache
def traces_on(pages: int) -> traces.Traces:
    return traces.Traces(pages)


def traces_of(script: str) -> traces.Traces:
    return traces_on(3 if script.split().count("allocate") > 1 else 2)


def holds(world: World, s: machine.State) -> dict[str, Any]:
    return invariant.promises(world, s) | invariant.reasons(world, s)


def in_parts(claims: dict[str, Any]) -> list[Case]:
    rest = iter(claims.items())
    return [Case([], dict(part)) for part in iter(lambda: list(islice(rest, AT_ONCE)), [])]


def way_to(name: str) -> str:
    """The shortest right trace that ends with the step."""
    ways = [script.split()[: script.split().index(name) + 1] for script in mutants.RIGHT.values() if name in script.split()]
    if not ways:
        raise Unproven(f"no trace has the step {name}")
    return " ".join(min(ways, key=len))


def kept_by(name: str) -> Obligation:
    """The step keeps the invariant."""
    world = World()
    state = machine.some_state(world)
    before = holds(world, state)
    step = Steps(world, state).named(name)
    # What speaks of nothing that the step changes is the same formula.
    after = {says: claim for says, claim in holds(world, step.after).items() if not claim.eq(before[says])}
    way = way_to(name)
    return Obligation([*machine.axioms(world), *before.values(), step.guard], in_parts(after), witness=traces_of(way).of(way)[0])


def start() -> Iterator[Obligation]:
    """The start fulfils the invariant, and the invariant has what else is promised as its consequence."""
    world = World()
    state = machine.some_state(world)
    first = [*machine.axioms(world), *traces.initial(world, state).values()]
    nothing = traces_on(2).of("")[0]
    yield Obligation(first, in_parts(holds(world, state)), witness=nothing)
    yield Obligation([*machine.axioms(world), *holds(world, state).values()], [Case([], invariant.consequences(world, state))], witness=nothing)


def happens(script: str) -> Obligation:
    """The whole operation can happen, and is over then."""
    formula, states = traces_of(script).of(script)
    return Obligation(formula, [Case([], {"it is over": states[-1].step() == machine.IDLE})])


def broken(script: str) -> Iterator[Obligation]:
    """Every promise is kept after the script: what a mutant must refute."""
    all_traces = traces_of(script)
    formula, states = all_traces.of(script)
    length = z3.Int("steps") == len(states) - 1
    yield Obligation([*formula, length], [Case([], traces.kept(all_traces.world, states[-1]))])


def share_of(script: str) -> str:
    """The claim that has a script: that of its last step that is the engine's, or of hardware if it is lazy."""
    if "take" in script:
        return "what others and hardware do"
    return "unmap, replace and protect" if "begin_unmap" in script or "begin_replace" in script or "begin_protect" in script else "tables and maps"


def claims() -> Iterator[Claim]:
    for share, steps in SHARES.items():

        def obligations(share: str = share, steps: list[str] = steps) -> Iterator[Obligation]:
            if share == "tables and maps":
                yield from start()
            for name in steps:
                yield kept_by(name)
            for script in mutants.RIGHT.values():
                if share_of(script) == share:
                    yield happens(script)

        def planted(share: str = share) -> Iterator[Mutant]:
            for wrong in mutants.without_answer(mutants.listed()):
                raise Unproven(wrong)
            for says, script in mutants.BROKEN.items():
                if share_of(script) == share:
                    yield Mutant(says, lambda script=script: broken(script))

        yield Claim(f"protocol, {share}", "any number of CPUs, addresses and tables: each step keeps the invariant", obligations, planted, cases="obligations")
