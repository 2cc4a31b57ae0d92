"""What a boot's serial output says, and whether that is a pass.

Everything here is pure: lines and the way the emulator ended go in, a verdict comes out, so
that each rule can be held against a canned transcript (scripts/tests/test_ktap.py).

The kernel prints KTAP version 1, flat: `KTAP version 1`, a plan `1..N` before the first
result, `ok`/`not ok K name` in order, `# ...` diagnostics, `# Totals: pass:N fail:N skip:N`
and `vmwalk: done`; then it powers the machine off. Boot log lines may stand between.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum, auto

VERSION_LINE = "KTAP version 1"
DONE_LINE = "vmwalk: done"
FATAL_MARK = "vmwalk: FATAL"
BAD_ARGUMENT_MARK = "vmwalk: bad boot argument"
PASSED_OVER = re.compile(r"vmwalk: warning: no boot arguments of this kernel, passed over: (.*) \(`help` lists those it has\)")

PLAN = re.compile(r"1\.\.(\d+)(?: #.*)?")
RESULT = re.compile(r"(ok|not ok) (\d+) (?:- )?(\S.*)")
RESULT_LIKE = re.compile(r"\s*(ok|not ok)\b")
TOTALS = re.compile(r"# Totals: pass:(\d+) fail:(\d+) skip:(\d+)")
SKIP = re.compile(r"\s#\s*SKIP\b", re.IGNORECASE)


class EndKind(Enum):
    """How the emulator's process came to its end."""

    EXITED = auto()
    """It exited by itself."""
    SILENT = auto()
    """It was killed after printing nothing for the time allowed."""
    OVERLONG = auto()
    """It was killed while still printing, past the limit for the whole run."""
    LINGERED = auto()
    """It was killed because it said it was done and then did not power off."""


@dataclass(frozen=True)
class End:
    kind: EndKind
    status: int = 0
    detail: str = ""

    def defect(self) -> str | None:
        """Why this end alone makes a run fail; None for a clean power-off."""
        match self.kind:
            case EndKind.EXITED if self.status == 0:
                return None
            case EndKind.EXITED if self.status < 0:
                return f"the emulator died of signal {-self.status}"
            case EndKind.EXITED:
                return f"the emulator exited with status {self.status}" + (f": {self.detail}" if self.detail else "")
            case EndKind.SILENT:
                return f"no output for {self.detail}"
            case EndKind.OVERLONG:
                return f"still running after {self.detail}"
            case EndKind.LINGERED:
                return f"still running {self.detail} after `{DONE_LINE}`"


@dataclass(frozen=True)
class Result:
    """One `ok` or `not ok` line with the diagnostics printed since the one before."""

    number: int
    passed: bool
    name: str
    diagnostics: tuple[str, ...] = ()

    @property
    def skipped(self) -> bool:
        return self.passed and SKIP.search(" " + self.name) is not None

    def mentions(self, pattern: str) -> bool:
        return any(re.search(pattern, text) for text in (self.name, *self.diagnostics))


@dataclass
class Transcript:
    """The structure found in a serial log; `defects` are breaches of the protocol itself."""

    plan: int | None = None
    results: list[Result] = field(default_factory=list)
    totals: tuple[int, int, int] | None = None
    done: bool = False
    version_seen: bool = False
    passed_over: str = ""
    """The boot arguments that the kernel does not have: a run without them proves less than it was asked to."""
    alarms: list[str] = field(default_factory=list)
    defects: list[str] = field(default_factory=list)
    last_line: str = ""

    @property
    def refused(self) -> bool:
        """The kernel did not take its arguments, and ran nothing."""
        return not self.version_seen and any(BAD_ARGUMENT_MARK in alarm for alarm in self.alarms)

    @property
    def failures(self) -> list[Result]:
        return [result for result in self.results if not result.passed]

    def counts(self) -> tuple[int, int, int]:
        """Passed, failed, skipped, counted from the result lines."""
        skipped = sum(result.skipped for result in self.results)
        failed = len(self.failures)
        return len(self.results) - failed - skipped, failed, skipped


class Reader:
    """Takes a serial log line by line; a test of its state machine reads like the log."""

    def __init__(self) -> None:
        self.transcript = Transcript()
        self._diagnostics: list[str] = []

    def take(self, line: str) -> None:
        seen = self.transcript
        line = line.rstrip("\r\n")
        if line.strip():
            seen.last_line = line
        if FATAL_MARK in line or BAD_ARGUMENT_MARK in line:
            # Anywhere in the line: a kernel that dies may do so in the middle of printing one.
            seen.alarms.append(line.strip())
        elif match := PASSED_OVER.fullmatch(line):
            seen.passed_over = match[1]
        elif line == VERSION_LINE:
            self._expect_open("a version line")
            if seen.version_seen:
                seen.defects.append("a second `KTAP version` line")
            seen.version_seen = True
        elif match := PLAN.fullmatch(line):
            self._take_plan(int(match[1]))
        elif match := TOTALS.fullmatch(line):
            self._take_totals((int(match[1]), int(match[2]), int(match[3])))
        elif line.startswith("# Totals"):
            seen.defects.append(f"malformed totals: {line}")
        elif line.startswith("#"):
            self._diagnostics.append(line[1:].strip())
        elif match := RESULT.fullmatch(line):
            self._take_result(int(match[2]), match[1] == "ok", match[3])
        elif RESULT_LIKE.match(line):
            seen.defects.append(f"malformed result: {line.strip()}")
        elif line == DONE_LINE:
            self._expect_open("a second end line")
            seen.done = True

    def _expect_open(self, what: str) -> None:
        if self.transcript.done:
            self.transcript.defects.append(f"{what} after `{DONE_LINE}`")

    def _take_plan(self, tests: int) -> None:
        seen = self.transcript
        self._expect_open("a plan")
        if not seen.version_seen:
            seen.defects.append(f"a plan without `{VERSION_LINE}` before it")
        if seen.plan is not None:
            seen.defects.append(f"a second plan, 1..{tests} after 1..{seen.plan}")
        elif seen.results:
            seen.defects.append("the plan came after the first result")
        seen.plan = tests

    def _take_result(self, number: int, passed: bool, name: str) -> None:
        seen = self.transcript
        self._expect_open(f"result {number}")
        if seen.plan is None:
            seen.defects.append(f"result {number} before the plan")
        if seen.totals is not None:
            seen.defects.append(f"result {number} after the totals")
        expected = seen.results[-1].number + 1 if seen.results else 1
        if number != expected:
            seen.defects.append(f"result {number} where {expected} was due")
        seen.results.append(Result(number, passed, name, tuple(self._diagnostics)))
        self._diagnostics.clear()

    def _take_totals(self, totals: tuple[int, int, int]) -> None:
        self._expect_open("totals")
        if self.transcript.totals is not None:
            self.transcript.defects.append("a second line of totals")
        self.transcript.totals = totals


def read_transcript(lines: Iterable[str]) -> Transcript:
    reader = Reader()
    for line in lines:
        reader.take(line)
    return reader.transcript


@dataclass(frozen=True)
class Expectation:
    """What a boot has to do to be judged well; at most one pattern is set."""

    tests: bool = True
    """Whether the suite was asked for at all (`selftest=none` asks for no test)."""
    failing: str | None = None
    """A planted fault: the suite must fail by a `not ok` that this pattern names."""
    message: str | None = None
    """Input that must be refused: an alarm line must match, and no suite may run."""
    may_park: bool = False
    """Whether a refusal may end in silence: entered at EL3 there is nobody to power off."""


@dataclass(frozen=True)
class Verdict:
    passed: bool
    summary: str
    reasons: tuple[str, ...] = ()


def judge(seen: Transcript, end: End, expected: Expectation) -> Verdict:
    """The whole decision: a run passes only if no rule finds a reason against it."""
    if expected.message is not None:
        reasons = list(reasons_against_refusal(seen, end, expected.message, expected.may_park))
        return Verdict(not reasons, f"refused: {seen.alarms[0] if seen.alarms else 'nothing'}", tuple(reasons))
    reasons = list(reasons_against_run(seen, end, expected.tests))
    passed, failed, skipped = seen.counts()
    told = f"; passed over: {seen.passed_over}" if seen.passed_over else ""
    summary = f"{passed} passed, {failed} failed, {skipped} skipped{told}"
    if expected.failing is not None:
        reasons += reasons_against_detection(seen, expected.failing)
        return Verdict(not reasons, f"caught: {named_failure(seen, expected.failing)}{told}", tuple(reasons))
    reasons += [f"not ok {result.number} {result.name}" for result in seen.failures]
    return Verdict(not reasons, summary, tuple(reasons))


def reasons_against_run(seen: Transcript, end: End, tests_expected: bool) -> Iterable[str]:
    """Why the run is no complete, orderly one, whatever its results were."""
    yield from seen.alarms
    if defect := end.defect():
        yield defect
    if seen.refused:
        return
    if not seen.done:
        yield f"no `{DONE_LINE}`: " + (f"the last line was: {seen.last_line}" if seen.last_line else "nothing was printed")
    yield from seen.defects
    if tests_expected:
        yield from reasons_against_counts(seen)
    elif seen.plan or seen.results:
        yield f"{len(seen.results)} results and a plan of {seen.plan}, though no test was asked for"


def reasons_against_counts(seen: Transcript) -> Iterable[str]:
    """Plan, result lines and totals have to tell of the same number of tests, and of some."""
    passed, failed, skipped = seen.counts()
    if seen.plan is None:
        yield "no plan"
    elif seen.plan == 0:
        yield "no test was selected"
    elif seen.plan != len(seen.results):
        yield f"planned {seen.plan} tests, got {len(seen.results)} results"
    elif passed + failed == 0:
        yield "every test was skipped"
    if seen.totals is None:
        yield "no totals"
    elif seen.totals != (passed, failed, skipped):
        yield "totals say pass:%d fail:%d skip:%d" % seen.totals + f", the lines pass:{passed} fail:{failed} skip:{skipped}"


def named_failure(seen: Transcript, pattern: str) -> str:
    """The first failure that the pattern names, for the log."""
    return next((result.name for result in seen.failures if result.mentions(pattern)), "nothing")


def reasons_against_detection(seen: Transcript, pattern: str) -> Iterable[str]:
    """A planted fault counts as caught only by a failing test that tells of it.

    A panic, a hang or some unrelated failure is no detection; `reasons_against_run` has
    already named the first two.
    """
    if not seen.failures:
        yield "the planted fault was not noticed: no test failed"
    elif not any(result.mentions(pattern) for result in seen.failures):
        yield f"tests failed, but none that names /{pattern}/: " + ", ".join(result.name for result in seen.failures)


def reasons_against_refusal(seen: Transcript, end: End, pattern: str, may_park: bool) -> Iterable[str]:
    """Bad input has to be met by one clear message and a power-off, with no test run."""
    if not any(re.search(pattern, alarm) for alarm in seen.alarms):
        yield f"no message that matches /{pattern}/" + (f"; it said: {seen.alarms[0]}" if seen.alarms else "")
    if seen.results or seen.done:
        yield "the suite ran all the same"
    parked = may_park and end.kind is EndKind.SILENT
    if (defect := end.defect()) and not parked:
        yield defect
