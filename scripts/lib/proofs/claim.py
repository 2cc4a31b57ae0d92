"""What a claim is, and when it counts as proven.

A claim holds of paths. It is proven when its precondition has a model, when there are paths, when
their conditions together cover the precondition, and when no input of any path breaks what is claimed;
and when each of its planted bugs is refuted by an input. Both solvers must agree on every answer.
"""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any, Protocol

from ..errors import ScriptError


class Unproven(ScriptError):
    """Why a claim does not hold, or cannot be shown."""


class Asked(Protocol):
    """What answers questions: `solve.Solvers`."""

    seconds: dict[str, float]
    questions: int

    def refute(self, formula: Iterable[Any]) -> dict[str, int] | None:
        """A model of all of the formula, by name; None if there is none."""

    def example(self, known: Iterable[Any], claims: dict[str, Any]) -> str | None:
        """One of the claims that one solver finds broken where all of `known` holds: where the others shall be asked."""

    def negation(self, parts: list[Any]) -> Any:
        """That not all of them hold."""

    def is_plainly(self, part: Any) -> bool:
        """Whether it is the constant true."""


@dataclass(frozen=True)
class Case:
    """One path, or one step of a protocol: under `condition` all of `claims` hold."""

    condition: list[Any]
    claims: dict[str, Any]
    """By what each says."""
    hard: dict[str, Any] = field(default_factory=dict)
    """The same, but each is a question of its own: for formulas that are hard together."""


@dataclass(frozen=True)
class Obligation:
    """What is to be shown: `given` has a model, `cases` cover it, and in each the claims hold."""

    given: list[Any]
    cases: Iterable[Case]
    witness: list[Any] | None = None
    """What is asked for a model instead of `given`, where that has quantifiers: a trace that leads there."""


@dataclass
class Result:
    """What came out of a claim."""

    name: str
    text: str
    proven: bool = False
    why: str = ""
    paths: int = 0
    questions: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    mutants: list[str] = field(default_factory=list)
    """What each planted bug was refuted by."""
    cpu: float = 0.0
    """Seconds that its process computed, solvers and mutants included."""
    cases: str = "paths"

    def line(self) -> str:
        if not self.proven:
            return f"FAILED  {self.name}: {self.why}"
        solvers = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in self.seconds.items())
        nr = len(self.mutants)
        return f"proven  {self.name}: {self.text}; {self.paths} {self.cases}, {self.cpu:.1f} s, of them {solvers}, {nr} mutant{'s' if nr != 1 else ''} refuted"


@dataclass(frozen=True)
class Mutant:
    """A planted bug: its name, and the obligations that it leads to."""

    name: str
    obligations: Callable[[], Iterable[Obligation]]


@dataclass(frozen=True)
class Claim:
    name: str
    text: str
    obligations: Callable[[], Iterable[Obligation]]
    mutants: Callable[[], Iterable[Mutant]]
    cases: str = "paths"
    """What is counted."""


def judge(obligation: Obligation, ask: Asked) -> str:
    """Returns "" if the obligation holds, else what breaks it, with the input.

    Raises Unproven where neither can be said.
    """
    cases = list(obligation.cases)
    if not cases:
        raise Unproven("no path was found")
    if ask.refute(obligation.given if obligation.witness is None else obligation.witness) is None:
        raise Unproven("nothing fulfils the precondition")
    conditions = [case.condition for case in cases]
    if all(conditions) and (model := ask.refute([*obligation.given, *(ask.negation(condition) for condition in conditions)])) is not None:
        raise Unproven(f"no path was found for {shown(model)}")
    for case in cases:
        if not case.claims:
            raise Unproven("a path claims nothing")
        known = list({id(part): part for part in [*obligation.given, *case.condition]}.values())
        easy = {says: claim for says, claim in case.claims.items() if not ask.is_plainly(claim)}
        if easy and ask.refute([*known, ask.negation(list(easy.values()))]) is None:
            easy = {}
        for says, claim in {**easy, **case.hard}.items():
            if not ask.is_plainly(claim) and (model := ask.refute([*known, ask.negation([claim])])) is not None:
                return f"{says}: {shown(model)}"
        if easy:
            raise Unproven("what cannot hold together holds apart")
    return ""


def shown(model: dict[str, int]) -> str:
    """The inputs of a model, shortly: without memory, registers, and the states of a trace."""
    return " ".join(f"{name}={value:#x}" for name, value in sorted(model.items()) if not name.startswith(("mem_", "reg_")) and "@" not in name) or "any input"


def prove(claim: Claim, ask: Asked, most_mutants: int | None = None) -> Result:
    """Proves the claim, then has each planted bug refuted, or the first `most_mutants` of them."""
    result = Result(claim.name, claim.text, cases=claim.cases)
    started = time.process_time()
    try:
        for obligation in claim.obligations():
            cases = list(obligation.cases)
            result.paths += len(cases)
            if broken := judge(replace(obligation, cases=cases), ask):
                raise Unproven(broken)
        if not result.paths:
            raise Unproven("no path was found")
        result.seconds, result.questions = dict(ask.seconds), ask.questions
        for mutant in islice(claim.mutants(), most_mutants):
            result.mutants.append(f"{mutant.name}: {refuted(mutant, ask)}")
        if not result.mutants:
            raise Unproven("no bug was planted")
        result.proven = True
    except Unproven as why:
        result.why = str(why)
    except Exception as error:  # noqa: BLE001  # whatever goes wrong, it is no proof
        result.why = f"{type(error).__name__}: {error}"
    result.cpu = time.process_time() - started
    return result


def refuted(mutant: Mutant, ask: Asked) -> str:
    """What refutes a planted bug: an input on which both solvers agree."""
    for obligation in mutant.obligations():
        for case in obligation.cases:
            known = [*obligation.given, *case.condition]
            claims = {says: claim for says, claim in {**case.claims, **case.hard}.items() if not ask.is_plainly(claim)}
            if claims and (says := ask.example(known, claims)) and (model := ask.refute([*known, ask.negation([claims[says]])])) is not None:
                return f"{says}: {shown(model)}"
    raise Unproven(f"the planted bug '{mutant.name}' was not noticed")
