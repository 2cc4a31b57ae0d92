"""`vmw trace-walk` and its steps: breakpoints on the hook points of `paging::trace`.

A debug kernel calls the hooks (kernel/paging/src/trace.rs); their arguments are in X0 to X6 at the first instruction, so
nothing here depends on what the optimiser left of the walker's variables. Stores, TLBIs and barriers are reported when they
have been made, levels and leaves before anything is written for them.
"""

from collections import Counter
from pathlib import Path

import gdb  # type: ignore  # exists only in gdb

from . import elf, events
from .arch import Geometry
from .commands import Command
from .target import Physical, alive, fail, register
from .walk import words

GEOMETRY = Geometry("4K")
HOOKS = "paging::trace::hook::"
ALL = frozenset({"level", "leaf", "store", "tlbi", "barrier"})


class HookPoint(gdb.Breakpoint):
    """A breakpoint on the first instruction of one hook."""

    def __init__(self, session: "Session", name: str, address: int, nr_arguments: int) -> None:
        super().__init__(f"*{address:#x}", internal=True)
        self.silent = True
        self.enabled = False
        self._session, self._name, self._nr = session, name, nr_arguments

    def stop(self) -> bool:
        arguments = [register(f"x{i}") for i in range(self._nr)]
        return self._session.hook(self._name, arguments)


class Entry(gdb.Breakpoint):
    """The function to trace is entered."""

    def __init__(self, location: str) -> None:
        super().__init__(location, internal=True)
        self.silent = True
        self.reached = False

    def stop(self) -> bool:
        self.reached = True
        return True


class Return(gdb.Breakpoint):
    """The traced call is over: its caller goes on, with the stack as it was before the call."""

    def __init__(self, session: "Session", pc: int, stack: int) -> None:
        super().__init__(f"*{pc:#x}", internal=True)
        self.silent = True
        self.reached = False
        self._session, self._stack = session, stack

    def stop(self) -> bool:
        if not self._session.is_traced_cpu() or register("sp") < self._stack:
            return False
        self.reached = True
        return True


class Session:
    """One traced call at a time."""

    def __init__(self) -> None:
        self._hooks: list[HookPoint] = []
        self._levels: dict[int, int] = {}
        self._return: Return | None = None
        self._function = ""
        self._cpu = 0
        self._stop_at: frozenset[str] = ALL
        self._stopped_at: events.Event | None = None
        self._passed: list[str] = []
        self.counts: Counter[str] = Counter()

    @property
    def active(self) -> bool:
        return any(hook.enabled for hook in self._hooks)

    def is_traced_cpu(self) -> bool:
        return bool(gdb.selected_thread().num == self._cpu)

    def install(self) -> None:
        if self._hooks:
            return
        names = {"level_entered": 5, "leaf_chosen": 7, "descriptors_stored": 6, "tlbi_issued": 5, "barrier_issued": 1}
        places = {name: elf.matching(program(), HOOKS + name) for name in names}
        if not all(places.values()):
            raise fail("this kernel has no hook points: build it with PROFILE=dev (or TRACE=1)")
        for name, nr_arguments in names.items():
            self._hooks += [HookPoint(self, name, address, nr_arguments) for address in places[name]]

    def start(self, location: str) -> None:
        """Runs to `location` and on to the first event."""
        self.install()
        self.end()
        try:
            entries = [Entry(place) for place in resolve(location)]
        except gdb.error as error:
            raise fail(str(error)) from None
        run_on()
        reached = any(entry.reached for entry in entries)
        for entry in entries:
            entry.delete()
        if not reached:
            raise fail(f"{location} was not reached: the kernel {'stopped elsewhere' if alive() else 'has powered off'}")
        frame = gdb.newest_frame()
        self._function = elf.without_generics(frame.name() or location)
        self._cpu = gdb.selected_thread().num
        self._levels.clear()
        self.counts.clear()
        where = frame.find_sal()
        source = f" at {where.symtab.filename}:{where.line}" if where.symtab else ""
        print(f"{self._function}{source}")
        while frame.type() == gdb.INLINE_FRAME:
            frame = frame.older()
        if caller := frame.older():
            self._return = Return(self, caller.pc(), int(caller.read_register("sp")))
        for hook in self._hooks:
            hook.enabled = True
        self.go(ALL)

    def end(self) -> None:
        for hook in self._hooks:
            hook.enabled = False
        if self._return and self._return.is_valid():
            self._return.delete()
        self._return = None

    def go(self, stop_at: frozenset[str]) -> None:
        """Runs to the next event of one of `stop_at`; those that are passed are told, indented."""
        if not self.active:
            raise fail("nothing is being traced: vmw trace-walk FUNCTION first")
        self._stop_at, self._stopped_at = stop_at, None
        self._passed.clear()
        run_on()
        for line in self._passed:  # what a breakpoint prints is lost with what gdb says of its own
            print(f"  . {line}")
        if self._stopped_at:
            print("\n".join(self._stopped_at.lines))
        elif self._return and self._return.reached or not alive():
            how = "has returned" if alive() else "did not return: the kernel has powered off"
            print(f"{self._function} {how}: {self.summary()}")
            self.end()
        else:
            print("stopped elsewhere; the trace goes on with the next step")
        self._stop_at = ALL

    def summary(self) -> str:
        words = {"level": ("level entered", "levels entered"), "leaf": ("leaf chosen", "leaves chosen"), "store": ("store", "stores")}
        parts = []
        for kind in ("level", "leaf", "store", "TLBI", "DSB", "ISB"):
            count = self.counts[kind]
            one, many = words.get(kind, (kind, kind))
            parts.append(f"{count} {one if count == 1 else many}")
        return ", ".join(parts)

    def hook(self, name: str, arguments: list[int]) -> bool:
        """Called in the middle of `continue`, with the CPU at a hook."""
        if not self.is_traced_cpu():
            return False
        event = self._decode(name, arguments)
        counted = event.kind
        if event.kind == "tlbi":
            counted = "TLBI"
        elif event.kind == "barrier":
            counted = event.what.split()[0]
        self.counts[counted] += 1
        if event.kind in self._stop_at:
            self._stopped_at = event
            return True
        self._passed += event.brief
        return False

    def _decode(self, name: str, arguments: list[int]) -> events.Event:
        if name == "level_entered":
            self._levels[arguments[1]] = arguments[0]
            return events.level_event(GEOMETRY, *arguments)
        if name == "leaf_chosen":
            return events.leaf_event(GEOMETRY, *arguments)
        if name == "tlbi_issued":
            return events.tlbi_event(GEOMETRY, *arguments)
        if name == "barrier_issued":
            return events.barrier_event(GEOMETRY, *arguments)
        kind, table, index, nr, first, step = arguments
        with Physical() as memory:
            values = list(words(memory.read(table + 8 * index, 8 * nr)))
        level = self._levels.get(table)
        if kind == 1 and level is None:
            # The step between descriptors is the size of a leaf.
            level = next((at for at in range(1, 4) if GEOMETRY.size(at) == step), None)
        if kind == 4 and level is not None and first & 0b11 == 0b11:
            self._levels.setdefault(first & 0x0000_FFFF_FFFF_F000, level + 1)
        return events.store_event(GEOMETRY, level, kind, table, index, values, step)


def run_on() -> None:
    """`continue`, without gdb's words about where it stopped."""
    if not alive():
        raise fail("there is no machine: it is not started, or has powered off")
    gdb.execute("continue", to_string=True)


def program() -> Path:
    return Path(gdb.current_progspace().filename)


def resolve(location: str) -> list[str]:
    """Where to break for `FUNCTION [if CONDITION]`: as gdb finds it, or else every instance of a generic function."""
    function, _, condition = location.partition(" if ")
    try:
        if gdb.decode_line(function)[1]:
            return [location]
    except gdb.error:
        pass
    found = elf.matching(program(), function.strip())
    if not found:
        raise fail(f"no function {function.strip()}; the compiler may have merged it into its callers: FILE:LINE works there")
    suffix = f" if {condition}" if condition else ""
    return [f"*{address:#x}{suffix}" for address in sorted(found)]


_session = Session()


class TraceWalk(Command):
    """Run to a function and trace what it does to the tables.

    vmw trace-walk FUNCTION [if CONDITION]

    Stops at the first of: a level that the walker enters, a leaf it has chosen (with why no larger one), a store to a table,
    a TLBI, a barrier. `vmw step` goes on to the next of any kind, `vmw step-level`, `step-leaf`, `step-store` and
    `step-barrier` to the next of theirs, `vmw step-out` to the function's return; what is passed is told, indented. Needs a
    debug kernel (PROFILE=dev)."""

    name = "trace-walk"
    of_vmwalk = True
    usage = "FUNCTION [if CONDITION]"

    def run(self, argument: str) -> None:
        if not argument:
            raise fail(f"usage: vmw trace-walk {self.usage}")
        _session.start(argument)


class Step(Command):
    """Go on to the next event of a traced call, of any kind.

    vmw step"""

    name = "step"
    of_vmwalk = True
    stop_at: frozenset[str] = ALL

    def run(self, argument: str) -> None:
        _session.go(self.stop_at)


class StepLevel(Step):
    """Go on to the next table that the walker of a traced call enters.

    vmw step-level"""

    name = "step-level"
    stop_at = frozenset({"level"})


class StepLeaf(Step):
    """Go on to the next leaf that a traced call chooses.

    vmw step-leaf"""

    name = "step-leaf"
    stop_at = frozenset({"leaf"})


class StepStore(Step):
    """Go on to the next store to a table of a traced call.

    vmw step-store"""

    name = "step-store"
    stop_at = frozenset({"store"})


class StepBarrier(Step):
    """Go on to the next TLBI or barrier of a traced call.

    vmw step-barrier"""

    name = "step-barrier"
    stop_at = frozenset({"tlbi", "barrier"})


class StepOut(Step):
    """Go on to the return of a traced call, telling every event.

    vmw step-out"""

    name = "step-out"
    stop_at = frozenset()


def register_all() -> None:
    for command in (TraceWalk, Step, StepLevel, StepLeaf, StepStore, StepBarrier, StepOut):
        command()
