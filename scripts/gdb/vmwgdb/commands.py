"""The commands that look: walk, ptdump, rmap, regs, diff. They know no kernel: registers and tables say it all."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

import gdb  # type: ignore  # exists only in gdb

from . import dump
from . import walk as walking
from .arch import MASK, Half, NotWalkable, Registers, describe_registers
from .target import BY_HAND, DEDUCED, Physical, alive, by_hand, check_machine, evaluate, evaluate_size, fail, halves, is_vmwalk
from .target import one_line, parse_range, register, regions, registers, shown_register, split, unusual

MAX_TABLES = 20_000
"""As many as a snapshot has: beyond it memory that is no table may have been followed."""


class Command(gdb.Command):
    """A command below `vmw` that raises only what gdb shows as one line."""

    usage = ""
    """What stands behind the name, of a command that takes something."""
    of_vmwalk = False
    """Whether it reads what vmwalk's debug information describes."""

    def __init__(self) -> None:
        super().__init__(f"vmw {self.name}", gdb.COMMAND_DATA)

    def invoke(self, argument: str, from_tty: bool) -> None:
        argument = argument.strip()
        try:
            if argument and not self.usage:
                raise fail(f"vmw {self.name} takes nothing, not {argument!r}")
            check_machine()
            if self.of_vmwalk and not is_vmwalk():
                raise fail(f"vmw {self.name} reads structures of vmwalk, and vmwalk's ELF is not loaded")
            self.run(argument)
        except gdb.GdbError:
            raise
        except (NotWalkable, dump.BadFilter) as error:
            raise fail(str(error)) from None
        except KeyboardInterrupt:
            raise fail("interrupted") from None
        except Exception as error:
            raise fail(one_line(error)) from None

    def run(self, argument: str) -> None:
        raise NotImplementedError


class Prefix(gdb.Command):
    """Translation tables as the hardware sees them. `help vmw` lists the commands."""

    def __init__(self) -> None:
        super().__init__("vmw", gdb.COMMAND_DATA, gdb.COMPLETE_NONE, True)


OPTION = re.compile(r"(?:(?<=\s)|^)(?:(ttbr[01])|(root|perm|el0|size|type)=(\S*))(?=\s|$)")


@dataclass(frozen=True)
class Options:
    """What chooses tables and leaves, whatever the command."""

    number: int | None
    root: int | None
    wanted: dump.Filter

    @staticmethod
    def take(argument: str, *allowed: str) -> tuple[str, "Options"]:
        """Returns what is left of the argument, and its options; of filters only the `allowed` ones."""
        found: dict[str, str] = {}
        for half, name, value in OPTION.findall(argument):
            name, value = ("ttbr", half[-1]) if half else (name, value)
            if name not in ("ttbr", "root", *allowed):
                raise fail(f"{name}= is no option here")
            if name in found:
                raise fail(f"{name} is given twice")
            found[name] = value
        wanted = dump.Filter(
            el1=found.get("perm", ""),
            el0=found.get("el0", ""),
            sizes=tuple(evaluate_size(size) for size in found["size"].split(",")) if "size" in found else (),
            memory_type=found.get("type", ""),
        )
        number = int(found["ttbr"]) if "ttbr" in found else None
        root = evaluate(found["root"]) if "root" in found else None
        return " ".join(OPTION.sub(" ", argument).split()), Options(number, root, wanted)

    def halves(self, state: Registers) -> list[Half]:
        """The tables that are chosen: both halves' if none is."""
        if self.number is not None:
            return [state.half(self.number, self.root)]
        if self.root is not None:
            raise fail("root= wants ttbr0 or ttbr1 beside it: by whose size and granule it is read")
        return halves(state)


def runs_of(memory: Physical, chosen: list[Half], start: int = 0, last: int = MASK) -> list[walking.Leaf]:
    return [run for half in chosen for run in walking.merge(walking.leaves(memory.read, half, start, last), start, last)]


def regions_of(runs: list[walking.Leaf]) -> list[dump.Region]:
    """The regions of vmwalk's address map, or those that all of another kernel's tables show."""
    if is_vmwalk():
        named = [dump.Region(name, start, last) for name, (start, last) in regions().items()]
        return sorted(named, key=lambda region: region.start)
    level = registers().level
    return dump.deduced(runs, shown_register(f"VBAR_EL{level}", *(["VBAR"] if level == 1 else [])))


class Walk(Command):
    """Walk the live tables for an address, level by level.

    vmw walk VA [ttbr0|ttbr1] [root=ROOT]

    VA is any expression (`$pc`). Bit 55 chooses TTBR0 or TTBR1, as in hardware, unless one is named. ROOT, also an expression,
    is the table to begin at instead: its physical address, or the value of a TTBR. Every descriptor is decoded, the contiguous
    group around the last one is shown and judged."""

    name = "walk"
    usage = "VA [ttbr0|ttbr1] [root=ROOT]"

    def run(self, argument: str) -> None:
        rest, options = Options.take(argument)
        words = split(rest)
        if len(words) != 1:
            raise fail(f"usage: vmw walk {self.usage}")
        va = evaluate(words[0])
        state = registers()
        if not state.mmu_on:
            try:
                state.half_of(va, options.root)
            except NotWalkable as error:
                print(f"the MMU is off (SCTLR_EL{state.level}.M = 0) and no walk is set up ({error})")
                print(f"=> pa {va:#018x}")
                return
        with Physical() as memory:
            result = walking.walk(memory.read, state, va, options.root, options.number)
        print("\n".join([*unusual(), *walking.describe_walk(result, state)]))


class PtDump(Command):
    """Show what is mapped: a line for each run of equal leaves, groups told from single ones.

    vmw ptdump [RANGE] [ttbr0|ttbr1] [root=ROOT] [perm=rwx] [el0=rwx] [size=SIZE,...] [type=NAME]

    RANGE is START END, START-END, START+SIZE or a region; SIZE may end with K, M, G or T. Without it, both halves. vmwalk's
    regions are linear, vmalloc, fixed and image; another kernel's are what its tables show: user, linear and image. A line has
    VA, PA, size, level, size of a leaf, C for a whole contiguous group, what EL1 may do, the type by MAIR, UXN, PXN,
    shareability and AF; then nG, user (EL0 has access), DBM, GP and software bits.
    ROOT, with ttbr0 or ttbr1, is the table to begin at. Filters: perm=w is what EL1 may write, perm=wx what it may write and
    execute, perm=r-x what is exactly that; el0= the same for EL0; size=64K,2M leaves of these sizes; type=Device types whose
    names begin so."""

    name = "ptdump"
    usage = "[RANGE] [ttbr0|ttbr1] [root=ROOT] [perm=rwx] [el0=rwx] [size=SIZE,...] [type=NAME]"

    def run(self, argument: str) -> None:
        text, options = Options.take(argument, "perm", "el0", "size", "type")
        state = registers()
        chosen = options.halves(state)
        options.wanted.check(chosen)
        own = is_vmwalk()
        with Physical() as memory:
            if not own and (not text or text in DEDUCED):
                # What region an address is in, all of the tables together say.
                runs = runs_of(memory, chosen)
                marks = regions_of(runs)
                start, last = parse_range(text, {mark.name: (mark.start, mark.last) for mark in marks}) if text else (0, MASK)
            else:
                start, last = parse_range(text, regions() if own else {}) if text else (0, MASK)
                runs = runs_of(memory, chosen, start, last)
                marks = regions_of([]) if own else []
        shown = [run for run in runs if run.va + run.size > start and run.va <= last and options.wanted.takes(run)]
        for line in [*unusual(), *dump.marked(shown, marks)]:
            print(line)
        print(f"{len(shown)} run{'s' if len(shown) != 1 else ''}" + ("" if state.mmu_on else " (the MMU is off)"))


class RMap(Command):
    """Show which addresses map a physical one, and the tables that it lies in.

    vmw rmap PA [ttbr0|ttbr1] [root=ROOT]

    Goes through all of the tables, of both halves unless one is named."""

    name = "rmap"
    usage = "PA [ttbr0|ttbr1] [root=ROOT]"

    def run(self, argument: str) -> None:
        rest, options = Options.take(argument)
        words = split(rest)
        if len(words) != 1:
            raise fail(f"usage: vmw rmap {self.usage}")
        pa = evaluate(words[0])
        chosen = options.halves(registers())
        with Physical() as memory:
            runs = runs_of(memory, chosen)
            tables = walking.snapshot(memory.read, chosen, MAX_TABLES)
        marks = regions_of(runs)
        found = list(dump.reverse(runs, pa))
        for va, run in found:
            region = dump.region_of(marks, va)
            print(f"{va:#018x} {region.name if region else dump.OTHER}: {run.show()}")
        in_tables = dump.tables_at(tables, {half.number: half for half in chosen}, pa)
        for line in [*(f"{pa:#x} is in {table}" for table in in_tables), *unusual()]:
            print(line)
        print(f"{pa:#x} is mapped at {len(found)} address{'es' if len(found) != 1 else ''}")


class Regs(Command):
    """Decode TCR_EL1, MAIR_EL1, SCTLR_EL1 and the TTBRs (of EL2 where a kernel runs there with HCR_EL2.E2H).

    vmw regs [NAME=VALUE...]

    Where a stub does not have them, they are given by hand, for all commands: vmw regs tcr=VALUE mair=VALUE ttbr0=VALUE
    ttbr1=VALUE sctlr=VALUE. Where it cannot read physical memory, linear=VA says where the kernel's linear map has physical
    address 0, and tables are read there. NAME= without a value takes it back."""

    name = "regs"
    usage = "[NAME=VALUE...]"

    def run(self, argument: str) -> None:
        given = dict(by_hand)
        for word in split(argument) if argument else []:
            name, equals, value = word.partition("=")
            if not equals or name not in BY_HAND:
                raise fail(f"{word}: what is given by hand is NAME=VALUE, NAME one of {', '.join(BY_HAND)}")
            if value:
                given[name] = evaluate(value)
            else:
                given.pop(name, None)
        by_hand.clear()
        by_hand.update(given)
        level = register("cpsr") >> 2 & 3
        print(f"CPU {gdb.selected_thread().num - 1} at EL{level}")
        print("\n".join([*unusual(), *describe_registers(registers())]))
        if by_hand:
            print("given by hand: " + ", ".join(f"{name} {value:#x}" for name, value in sorted(by_hand.items())))


@dataclass(frozen=True)
class Kept:
    """All tables as they were at a stop."""

    tables: walking.Snapshot
    halves: dict[int, Half]

    def changes(self, now: "Kept", number: int) -> Iterator[str]:
        """What is new in one half, in words."""
        before, after = self.halves.get(number), now.halves.get(number)
        half = after or before
        if half is None:
            return
        if before and after and (before.root, before.asid) != (after.root, after.asid):
            yield f"TTBR{number}_EL{after.level}: table {before.root:#x} ASID={before.asid} -> table {after.root:#x} ASID={after.asid}"
        old, new = ({key: value for key, value in kept.tables.items() if key[0] >> 55 & 1 == number} for kept in (self, now))
        yield from walking.describe_diff(old, new, half)
        if max(len(self.tables), len(now.tables)) >= MAX_TABLES:
            yield f"there are more than {MAX_TABLES} tables: the rest was not compared"


class Diff(Command):
    """Show what has changed in the tables since the last stop: tables, counts, and leaves that went (-) and came (+).

    vmw diff [ttbr0|ttbr1]

    Of another kernel than vmwalk the tables are kept from the first `vmw diff` on."""

    name = "diff"
    usage = "[ttbr0|ttbr1]"

    def __init__(self) -> None:
        super().__init__()
        self._previous: Kept | None = None
        self._current: Kept | None = None
        self._asked = False
        gdb.events.stop.connect(self._on_stop)

    def _take(self) -> Kept:
        state = registers()
        chosen = halves(state) if state.mmu_on else []
        with Physical() as memory:
            return Kept(walking.snapshot(memory.read, chosen, MAX_TABLES), {half.number: half for half in chosen})

    def _on_stop(self, _event: object) -> None:
        try:
            taken = self._take() if alive() and (self._asked or is_vmwalk()) else None
        except Exception:
            taken = None  # a stop without readable tables is none to compare with
        self._previous, self._current = self._current, taken

    def run(self, argument: str) -> None:
        rest, options = Options.take(argument)
        if rest or options.root is not None:
            raise fail(f"usage: vmw diff {self.usage}")
        self._asked = True
        if self._current is None:
            self._current = self._take()
        if self._previous is None:
            print("no earlier stop to compare with")
            return
        now = self._take()
        numbers = (0, 1) if options.number is None else (options.number,)
        lines = [line for number in numbers for line in self._previous.changes(now, number)]
        print("\n".join(lines) if lines else "the tables have not changed since the last stop")


def register_all() -> None:
    Prefix()
    for command in (Walk, PtDump, RMap, Regs, Diff):
        command()
