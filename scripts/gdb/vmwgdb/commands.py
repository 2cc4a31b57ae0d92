"""The commands that look: walk, ptdump, regs, diff."""

import gdb  # type: ignore  # exists only in gdb

from . import walk as walking
from .arch import MASK, NotWalkable, describe_registers
from .target import Physical, alive, check_machine, evaluate, fail, halves, one_line, parse_range, register, registers, split

MAX_TABLES = 20_000
"""Beyond it a snapshot is not of tables: memory that is none was followed."""


class Command(gdb.Command):
    """A command below `vmw` that raises only what gdb shows as one line."""

    usage = ""
    """What stands behind the name, of a command that takes something."""

    def __init__(self) -> None:
        super().__init__(f"vmw {self.name}", gdb.COMMAND_DATA)

    def invoke(self, argument: str, from_tty: bool) -> None:
        argument = argument.strip()
        try:
            if argument and not self.usage:
                raise fail(f"vmw {self.name} takes nothing, not {argument!r}")
            check_machine()
            self.run(argument)
        except gdb.GdbError:
            raise
        except NotWalkable as error:
            raise fail(str(error)) from None
        except KeyboardInterrupt:
            raise fail("interrupted") from None
        except Exception as error:
            raise fail(one_line(error)) from None

    def run(self, argument: str) -> None:
        raise NotImplementedError


class Prefix(gdb.Command):
    """vmwalk's tables as the hardware sees them. `help vmw` lists the commands."""

    def __init__(self) -> None:
        super().__init__("vmw", gdb.COMMAND_DATA, gdb.COMPLETE_NONE, True)


class Walk(Command):
    """Walk the live tables for an address, level by level.

    vmw walk VA [TTBR]

    VA is any expression (`$pc`). Bit 55 chooses TTBR0 or TTBR1, as in hardware; TTBR, also an expression, is used instead if
    given. Every descriptor is decoded, the contiguous group around the last one is shown and judged."""

    name = "walk"
    usage = "VA [TTBR]"

    def run(self, argument: str) -> None:
        words = split(argument)
        if not 1 <= len(words) <= 2:
            raise fail(f"usage: vmw walk {self.usage}")
        va = evaluate(words[0])
        root = evaluate(words[1]) if len(words) == 2 else None
        state = registers()
        if not state.mmu_on:
            try:
                state.half_of(va, root)
            except NotWalkable as error:
                print(f"the MMU is off (SCTLR_EL1.M = 0) and no walk is set up ({error})")
                print(f"=> pa {va:#018x}")
                return
        with Physical() as memory:
            result = walking.walk(memory.read, state, va, root)
        print("\n".join(walking.describe_walk(result, state)))


class PtDump(Command):
    """Show what is mapped: a line for each run of equal leaves, groups told from single ones.

    vmw ptdump [RANGE]

    RANGE is START END, START-END, START+SIZE or a region of the address map (linear, vmalloc, fixed, image); SIZE may end with
    K, M, G or T. Without it, both halves."""

    name = "ptdump"
    usage = "[RANGE]"

    def run(self, argument: str) -> None:
        start, last = parse_range(argument) if argument else (0, MASK)
        state = registers()
        shown = 0
        with Physical() as memory:
            for half in halves(state):
                found = walking.leaves(memory.read, half, start, last)
                for run in walking.merge(found, start, last):
                    print(run.show())
                    shown += 1
        print(f"{shown} run{'s' if shown != 1 else ''}" + ("" if state.mmu_on else " (the MMU is off)"))


class Regs(Command):
    """Decode TCR_EL1, MAIR_EL1, SCTLR_EL1 and the TTBRs.

    vmw regs"""

    name = "regs"

    def run(self, argument: str) -> None:
        level = register("cpsr") >> 2 & 3
        print(f"CPU {gdb.selected_thread().num - 1} at EL{level}")
        print("\n".join(describe_registers(registers())))


class Diff(Command):
    """Show what has changed in the tables since the last stop: tables, counts, and leaves that went (-) and came (+).

    vmw diff"""

    name = "diff"

    def __init__(self) -> None:
        super().__init__()
        self._previous: walking.Snapshot | None = None
        self._current: walking.Snapshot | None = None
        gdb.events.stop.connect(self._on_stop)

    def _take(self) -> walking.Snapshot:
        state = registers()
        with Physical() as memory:
            return walking.snapshot(memory.read, halves(state) if state.mmu_on else [], MAX_TABLES)

    def _on_stop(self, _event: object) -> None:
        try:
            taken = self._take() if alive() else None
        except Exception:
            taken = None  # a stop without readable tables is none to compare with
        self._previous, self._current = self._current, taken

    def run(self, argument: str) -> None:
        if self._current is None:
            self._current = self._take()
        if self._previous is None:
            print("no earlier stop to compare with")
            return
        state = registers()
        lines = walking.describe_diff(self._previous, self._take(), state.half_of)
        print("\n".join(lines) if lines else "the tables have not changed since the last stop")


def register_all() -> None:
    Prefix()
    for command in (Walk, PtDump, Regs, Diff):
        command()
