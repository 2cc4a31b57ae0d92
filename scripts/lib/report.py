"""The record of a `make test`: a line per case as it ends, and one count at the end."""

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Outcome:
    """What one case came to. A case may stand for many tests, as a host test run does."""

    passed: int
    failed: int
    seconds: float
    note: str = ""
    log: Path | None = None

    @staticmethod
    def of(good: bool, seconds: float, note: str = "", log: Path | None = None) -> "Outcome":
        return Outcome(int(good), int(not good), seconds, note, log)

    @property
    def good(self) -> bool:
        """All passed, and something ran: a case of zero tests proves nothing."""
        return self.failed == 0 and self.passed > 0


class Report:
    """Counts outcomes from several threads and prints each at once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._cases: Counter[int] = Counter()
        """By thread: each stage has one."""
        self.passed = 0
        self.failed = 0
        self.skipped: list[str] = []

    def add(self, name: str, outcome: Outcome) -> None:
        failed = outcome.failed if outcome.failed or outcome.good else 1
        note = f": {outcome.note}" if outcome.note else ""
        with self._lock:
            self._cases[threading.get_ident()] += 1
            self.passed += outcome.passed
            self.failed += failed
            print(f"{'ok  ' if outcome.good else 'FAIL'} {name} ({outcome.seconds:.1f} s){note}", flush=True)
            if not outcome.good and outcome.log:
                self._show(outcome.log)

    def skip(self, name: str, reason: str) -> None:
        """Leaves a case out, aloud: the reason stands in the log and in the closing lines."""
        with self._lock:
            self._cases[threading.get_ident()] += 1
            self.skipped.append(name)
            print(f"skip {name}: {reason}", flush=True)

    def _show(self, log: Path, lines: int = 20) -> None:
        """The end of a failed case's log, so that CI output alone tells what went wrong."""
        try:
            text = log.read_text(errors="replace").splitlines()
        except OSError as error:
            text = [str(error)]
        for line in text[-lines:]:
            print(f"     | {line}")
        print(f"     | ({log})", flush=True)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """A stage that ends without having run or skipped a case is itself a failure."""
        with self._lock:
            before = self._cases[threading.get_ident()]
            print(f"== {name}", flush=True)
        yield
        if self._cases[threading.get_ident()] == before:
            self.add(name, Outcome.of(False, 0.0, "the stage ran nothing"))

    def closing(self) -> str:
        return f"{self.passed} passed, {self.failed} failed"

    @property
    def good(self) -> bool:
        return self.failed == 0 and self.passed > 0
