"""Proofs that are wrong, and must be refused, by the solvers themselves: run before any claim."""

from collections.abc import Callable

import claripy

from .claim import Case, Claim, Mutant, Obligation, Unproven, judge, prove
from .solve import Solvers, ask_cvc5

x = claripy.BVS("x", 64, explicit_name=True)
SMALL, LARGE = claripy.ULT(x, 10), claripy.UGE(x, 10)
HOLDS = {"x is x": x + 1 - 1 == x, "no carry out of a half": claripy.UGE(claripy.LShR(x, 1) + claripy.LShR(x, 1), claripy.LShR(x, 1))}


def refused(why: str, obligation: Obligation) -> bool:
    try:
        judge(obligation, Solvers())
    except Unproven as said:
        return why in str(said)
    return False


def survivor() -> bool:
    right = Obligation([SMALL], [Case([SMALL], HOLDS)])
    claim = Claim("control", "", lambda: iter([right]), lambda: iter([Mutant("none", lambda: iter([right]))]))
    result = prove(claim, Solvers())
    return not result.proven and "was not noticed" in result.why


CONTROLS: dict[str, Callable[[], bool]] = {
    "a right proof is taken": lambda: judge(Obligation([SMALL], [Case([SMALL, x != 3], HOLDS), Case([x == 3], HOLDS)]), Solvers()) == "",
    "a precondition that nothing fulfils": lambda: refused("nothing fulfils", Obligation([SMALL, LARGE], [Case([SMALL], HOLDS)])),
    "no path": lambda: refused("no path", Obligation([SMALL], [])),
    "a path that was lost": lambda: refused("no path was found for x=0x3", Obligation([SMALL], [Case([SMALL, x != 3], HOLDS)])),
    "a false claim": lambda: judge(Obligation([SMALL], [Case([SMALL], {"below nine": claripy.ULT(x, 9)})]), Solvers()) == "below nine: x=0x9",
    "a false claim that is hard": lambda: judge(Obligation([SMALL], [Case([SMALL], HOLDS, {"below nine": claripy.ULT(x, 9)})]), Solvers()) == "below nine: x=0x9",
    "a mutant that survives": survivor,
    "cvc5 has an answer of its own": lambda: [ask_cvc5(f"(declare-fun a () (_ BitVec 8)) (assert (bvult a #x0{n})) (check-sat)") for n in (0, 1)] == ["unsat", "sat"],
}


def hold() -> int:
    """Returns how many wrong proofs were refused."""
    for name, control in CONTROLS.items():
        if not control():
            raise Unproven(f"control: {name}")
    return len(CONTROLS)
