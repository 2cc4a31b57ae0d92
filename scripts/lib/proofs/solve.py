"""Two solvers for one question: whether a formula has a model. Both must say that it has none."""

import re
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import claripy
import cvc5
import z3

from .claim import Unproven

# z3's library checks sorts itself; Python's checks before it take as long as the solver does.
z3.z3.Z3_DEBUG = False

LIMIT_MS = 240_000
"""What one question may take of one solver."""


def to_z3(expression: Any) -> Any:
    """Of claripy's expression; one of z3 is taken as it is."""
    return claripy.backends.z3.convert(expression) if isinstance(expression, claripy.ast.Base) else expression


@dataclass
class Solvers:
    """Asks both, and counts what they took."""

    seconds: dict[str, float] = field(default_factory=lambda: {"z3": 0.0, "cvc5": 0.0})
    questions: int = 0

    def refute(self, formula: Iterable[Any]) -> dict[str, int] | None:
        """Returns a model by name of all in `formula` together, or None if both solvers say that there is none."""
        self.questions += 1
        solver = asserted(formula)
        started = time.process_time()
        answer = solver.check()
        self.seconds["z3"] += time.process_time() - started
        if answer == z3.unknown:
            raise Unproven(f"z3 does not know: {solver.reason_unknown()}")
        started = time.process_time()
        second = ask_cvc5(solver.to_smt2())
        self.seconds["cvc5"] += time.process_time() - started
        if second != str(answer):
            raise Unproven(f"z3 says {answer}, cvc5 says {second}")
        if answer == z3.unsat:
            return None
        model = solver.model()
        return {str(d): value_of(model[d]) for d in model.decls() if d.arity() == 0 and d.range().kind() != z3.Z3_UNINTERPRETED_SORT}

    def example(self, known: Iterable[Any], claims: dict[str, Any]) -> str | None:
        solver = asserted([*known, self.negation(list(claims.values()))])
        if solver.check() != z3.sat:
            return None
        model = solver.model()
        return next((says for says, claim in claims.items() if not z3.is_true(model.eval(to_z3(claim), True))), None)

    def negation(self, parts: list[Any]) -> Any:
        return z3.Not(z3.And(*(to_z3(part) for part in parts)))

    def is_plainly(self, part: Any) -> bool:
        return part.is_true() if isinstance(part, claripy.ast.Base) else z3.is_true(part)


def asserted(formula: Iterable[Any]) -> z3.Solver:
    """Each part once."""
    solver = z3.Solver()
    solver.set("timeout", LIMIT_MS)
    solver.add(*{part.get_id(): part for part in map(to_z3, formula)}.values())
    return solver


def value_of(value: Any) -> int:
    if z3.is_bool(value):
        return int(z3.is_true(value))
    return value.as_long() if z3.is_bv_value(value) or z3.is_int_value(value) else 0


def ask_cvc5(text: str) -> str:
    """What cvc5 says of a script that ends with check-sat."""
    logic = "ALL" if re.search(r"\((Array|forall|declare-datatypes|declare-sort)\b|\bInt\b", text) else "QF_BV"
    solver = cvc5.Solver()
    solver.setOption("tlimit-per", str(LIMIT_MS))
    parser = cvc5.InputParser(solver)
    parser.setStringInput(cvc5.InputLanguage.SMT_LIB_2_6, f"(set-logic {logic})\n{text}", "question")
    symbols = parser.getSymbolManager()
    answer = ""
    while not (command := parser.nextCommand()).isNull():
        said = command.invoke(solver, symbols)
        answer = str(said).strip() or answer
    return answer
