"""Symbolic execution of compiled functions: every path from a function's first instruction to its return.

The instructions are read from an ELF file as they are; angr lifts them (VEX) and forks where a branch
depends on an input. What VEX does not know, barriers, TLBIs and DAIF, is decoded here and recorded in
order. An address is either a number or lies in a `Region`, whose base is a variable; any other, an
instruction without a meaning here, a read of what can change behind the function's back, or more paths
than the claim allows is an error, and an error is no proof.
"""

import logging
import re
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path as File
from typing import Any

# Its emulator, which is not used, is missed at import.
logging.disable(logging.ERROR)
import angr  # noqa: E402
import claripy  # noqa: E402
import z3  # noqa: E402

from angr.engines import HeavyVEXMixin, HooksMixin, SimEngineFailure, SimEngineSyscall  # noqa: E402
from angr.engines.vex.claripy import irop  # noqa: E402

logging.disable(logging.WARNING)


class Reversed:
    """REV16 and REV32 of a vector, which angr lacks: the elements of each lane in reverse order."""

    _float = False

    def __init__(self, element: int, lane: int) -> None:
        self.element, self.lane = element, lane

    def calculate(self, vector: Any) -> Any:
        return claripy.Concat(*(part for lane in vector.chop(self.lane) for part in reversed(lane.chop(self.element))))


irop.operations.update({"Iop_Reverse8sIn16_x8": Reversed(8, 16), "Iop_Reverse16sIn32_x4": Reversed(16, 32)})


class Engine(SimEngineFailure, SimEngineSyscall, HooksMixin, HeavyVEXMixin):
    """angr's own, less what costs time and is not used: other languages, an emulator, a record of all that is done."""


RETURN = 0xFFFF_FFFF_FFFF_F000
"""Where the function returns to."""
STACK = 0x7FFF_0000_0000
SHADOWS = 0x6000_0000_0000
"""Regions lie from here on, SHADOW_STRIDE apart."""
SHADOW_STRIDE = 0x10_0000_0000
DAIF_BIT = 6
PATIENCE_MS = 200
"""For a question that repeats most of the last one."""

PANIC = re.compile(r"core9panicking|core6option13|core6result13unwrap|rust_begin_unwind|slice5index\w*fail")


class NoProof(Exception):
    """The execution cannot say what the function does."""


class Held(Exception):
    """The execution is about to read what `Region.choices` or `Region.stops` has; `state` is as before that instruction."""

    def __init__(self, state: Any, region: str, offset: int) -> None:
        self.region, self.offset, self.address = region, offset, state.scratch.ins_addr
        # What is given is but a reference to it.
        self.state = state.copy()


@dataclass
class Region:
    """Memory that an argument points to: its address is `base`, a variable, unless `at` is given."""

    name: str
    size: int
    at: int | None = None
    words: list[Any] = field(default_factory=list)
    """Its 64-bit words at the start; the rest is unknown."""
    choices: dict[int, list[tuple[Any, int]]] = field(default_factory=dict)
    """Words of which each has a known value under a condition: by offset, decided where one is read first."""
    stops: frozenset[int] = frozenset()
    """Offsets: a path ends where it would read one."""

    def __post_init__(self) -> None:
        self.base = claripy.BVV(self.at, 64) if self.at is not None else claripy.BVS(self.name, 64, explicit_name=True)

    def within(self) -> list[Any]:
        """That it does not wrap, and is aligned to words."""
        if self.at is not None:
            return []
        return [claripy.ULE(self.base, 2**64 - 2 * self.size - 4096), self.base & 7 == 0]


@dataclass(frozen=True)
class Access:
    write: bool
    region: str | None
    """None for the stack and for constants."""
    offset: int
    size: int
    value: Any
    instruction: int = 0


@dataclass(frozen=True)
class System:
    """A barrier, a TLBI or a DC, as it was issued."""

    kind: str
    word: int
    operand: Any
    address: int


@dataclass
class Path:
    condition: list[Any]
    state: Any
    system: list[System]
    accesses: list[Access]
    panicked: str = ""
    stopped: int = 0
    """The instruction before which it ended early,"""
    before: tuple[str, int] = ("", 0)
    """and which of `Region.stops` that would read, if one: region and offset."""

    def x(self, number: int) -> Any:
        return self.state.registers.load(f"x{number}")

    def load(self, region: Region, offset: int, size: int) -> Any:
        """What lies in `region` at the end, little-endian."""
        return self.state.memory.load(self.state.globals["shadows"][region.name] + offset, size, endness="Iend_LE", inspect=False, disable_actions=True)

    def words(self, region: Region, nr: int) -> list[Any]:
        """The first `nr` 64-bit words of `region` at the end, where no store is of less than a word."""
        stored = {a.offset + 8 * i: a.value[64 * i + 63 : 64 * i] for a in self.stores(region) for i in range(a.size // 8)}
        return [stored[8 * i] if 8 * i in stored else self.load(region, 8 * i, 8) for i in range(nr)]

    def stores(self, region: Region) -> list[Access]:
        return [a for a in self.accesses if a.write and a.region == region.name]

    def loads(self, region: Region) -> list[Access]:
        return [a for a in self.accesses if not a.write and a.region == region.name]


def path_of(state: Any, panicked: str = "", stopped: int = 0, before: tuple[str, int] = ("", 0)) -> Path:
    return Path(list(state.solver.constraints), state, list(state.globals["system"]), list(state.globals["accesses"]), panicked, stopped, before)


@dataclass(frozen=True)
class Function:
    name: str
    address: int
    size: int


@dataclass(frozen=True)
class Entry:
    """Where a path begins that does not begin with the function."""

    address: int
    registers: dict[str, Any]
    """`sp` among them. Others have any value."""
    stack: dict[int, Any]
    """Its 64-bit words by address."""


def barrier(word: int) -> str | None:
    """Arm ARM C6.2: DSB, DMB and ISB have CRn 3 of op0 0, op1 3; CRm says which accesses."""
    if word & 0xFFFF_F01F != 0xD503_301F:
        return None
    crm, op2 = word >> 8 & 0xF, word >> 5 & 7
    kinds = {0xF: "SY", 0xE: "ST", 0xD: "LD", 0xB: "ISH", 0xA: "ISHST", 9: "ISHLD", 7: "NSH", 6: "NSHST", 5: "NSHLD", 3: "OSH", 2: "OSHST", 1: "OSHLD"}
    names = {4: "DSB", 5: "DMB"}
    if op2 == 6:
        return "ISB"
    return f"{names[op2]} {kinds[crm]}" if op2 in names and crm in kinds else None


TLBI = {
    # (op1, CRm, op2), Arm ARM C5.5; CRn is 8, and 9 for the forms with nXS, which are not used.
    (0, 3, 0): "VMALLE1IS",
    (0, 3, 1): "VAE1IS",
    (0, 3, 3): "VAAE1IS",
    (0, 3, 5): "VALE1IS",
    (0, 3, 7): "VAALE1IS",
    (0, 2, 1): "RVAE1IS",
    (0, 2, 3): "RVAAE1IS",
    (0, 2, 5): "RVALE1IS",
    (0, 2, 7): "RVAALE1IS",
    (0, 7, 0): "VMALLE1",
}


def system_kind(word: int) -> str | None:
    """The name of a system instruction that has one here."""
    if name := barrier(word):
        return name
    if word & 0xFFF8_0000 == 0xD508_0000:  # SYS
        op1, crn, crm, op2 = word >> 16 & 7, word >> 12 & 15, word >> 8 & 15, word >> 5 & 7
        if crn == 8 and (op1, crm, op2) in TLBI:
            return f"TLBI {TLBI[op1, crm, op2]}"
        if (op1, crn, crm, op2) == (3, 7, 4, 1):
            return "DC ZVA"
    if word & 0xFFFF_FFE0 == 0xD53B_4220:
        return "MRS DAIF"
    if word & 0xFFFF_FFE0 == 0xD51B_4220:
        return "MSR DAIF"
    if word & 0xFFFF_F0FF == 0xD503_40DF:
        return "MSR DAIFSet"
    if word & 0xFFFF_F0FF == 0xD503_40FF:
        return "MSR DAIFClr"
    return None


def system(state: Any) -> None:
    """What stands for a system instruction: records it, and gives DAIF."""
    word = state.globals["words"][state.addr]
    kind = system_kind(word)
    if kind is None:
        raise NoProof(f"{state.addr:#x}: {word:#010x} has no meaning here")
    register = word & 31
    operand = claripy.BVV(0, 64) if register == 31 else state.registers.load(f"x{register}")
    if kind == "MRS DAIF":
        state.registers.store(f"x{register}", state.globals["daif"])
        return
    if kind == "MSR DAIF":
        state.globals["daif"] = operand
    elif kind.startswith("MSR DAIF"):
        bits = (word >> 8 & 15) << DAIF_BIT
        daif = state.globals["daif"]
        state.globals["daif"] = daif | bits if kind == "MSR DAIFSet" else daif & ~bits
    state.globals["system"] = (*state.globals["system"], System(kind, word, operand, state.addr))


class Branches:
    """Which branches can be taken, by z3 alone: what paths share is asserted once."""

    def __init__(self) -> None:
        self.solver = z3.SolverFor("QF_BV")
        self.solver.set("timeout", PATIENCE_MS)
        self.asserted: list[Any] = []

    def model(self, condition: list[Any], known: int = 0, model: Any = None) -> Any:
        """Returns a model of `condition`: that given if it is one of all but the first `known`; None if there is none."""
        if model is not None and all(z3.is_true(model.eval(claripy.backends.z3.convert(part), True)) for part in condition[known:]):
            return model
        shared = 0
        while shared < min(len(condition), len(self.asserted)) and condition[shared] is self.asserted[shared]:
            shared += 1
        self.solver.pop(len(self.asserted) - shared)
        for part in condition[shared:]:
            self.solver.push()
            self.solver.add(claripy.backends.z3.convert(part))
        self.asserted = list(condition)
        solver = self.solver
        answer = solver.check()
        if answer == z3.unknown:
            # It simplifies only what it has from the start: mostly it knows at once then.
            solver = z3.SolverFor("QF_BV")
            solver.add(*(claripy.backends.z3.convert(part) for part in condition))
            answer = solver.check()
        if answer == z3.unknown:
            raise NoProof(f"z3 does not know: {solver.reason_unknown()}")
        return solver.model() if answer == z3.sat else None


class Image:
    """An ELF file and what is known of it."""

    def __init__(self, file: File) -> None:
        self.file = file
        # The image keeps its relocations, which the linker has applied.
        self.project = angr.Project(str(file), auto_load_libs=False, perform_relocations=False, engine=Engine)
        self.object = self.project.loader.main_object
        self._compare_with_file()
        self.functions = sorted({Function(s.name, s.rebased_addr, s.size) for s in self.object.symbols if s.is_function and s.size}, key=lambda f: (f.address, f.name))
        self.writable = [(s.vaddr, s.vaddr + s.memsize) for s in self.object.sections if s.is_writable and s.memsize]
        self.words: dict[int, int] = {}
        for section in self.object.sections:
            if section.is_executable and section.memsize:
                self._hook_section(section.vaddr, section.memsize)
        self.panics = {f.address: f.name for f in self.functions if PANIC.search(f.name)}

    def _compare_with_file(self) -> None:
        """What is executed is what lies in the file, byte for byte."""
        content = self.file.read_bytes()
        for segment in self.object.segments:
            if segment.is_executable and self.project.loader.memory.load(segment.vaddr, segment.filesize) != content[segment.offset : segment.offset + segment.filesize]:
                raise NoProof(f"{self.file.name} was not loaded as it is")

    def _hook_section(self, start: int, size: int) -> None:
        text = self.project.loader.memory.load(start, size & ~3)
        for offset, (word,) in zip(range(0, len(text), 4), struct.iter_unpack("<I", text)):
            # System instructions, less the hints; and MRS and MSR that VEX may know.
            if word & 0xFFC0_0000 == 0xD500_0000 and (word & 0xFFFF_F01F != 0xD503_201F):
                if system_kind(word) is None and word & 0xFFF0_0000 in (0xD530_0000, 0xD510_0000):
                    continue
                self.words[start + offset] = word
                self.project.hook(start + offset, hook=system, length=4)

    def find(self, pattern: str) -> list[Function]:
        """Functions whose mangled name matches, each address once."""
        found = {f.address: f for f in self.functions if re.search(pattern, f.name)}
        return list(found.values())

    def one(self, pattern: str) -> Function:
        found = self.find(pattern)
        if len(found) != 1:
            raise NoProof(f"{self.file.name} has {len(found)} functions like {pattern!r}")
        return found[0]

    def code(self, function: Function) -> Iterator[tuple[int, int]]:
        """Address and word of each of its instructions."""
        return zip(range(function.address, function.address + function.size, 4), self.words_at(function.address, function.size // 4))

    def words_at(self, address: int, nr: int) -> list[int]:
        """Instructions from `address` on."""
        return [word for (word,) in struct.iter_unpack("<I", self.project.loader.memory.load(address, 4 * nr))]

    def calls(self, function: Function) -> list[Function]:
        """What it branches to beyond its end, by B or BL."""
        targets = set()
        for address, word in self.code(function):
            if word & 0x7C00_0000 == 0x1400_0000:
                offset = (word & 0x3FF_FFFF) - ((word & 0x200_0000) << 1)
                targets.add(address + 4 * offset)
        found = {f.address: f for f in self.functions if f.address in targets and f.address != function.address}
        return list(found.values())

    def kind_at(self, address: int) -> str | None:
        """The system instruction there."""
        word = self.words.get(address)
        return None if word is None else system_kind(word)

    def patched(self, address: int, word: int) -> "Patch":
        return Patch(self, address, word)

    def run(
        self,
        function: Function,
        arguments: list[Any],
        given: list[Any],
        regions: list[Region] | None = None,
        most_paths: int = 5000,
        most_steps: int = 200_000,
        entry: Entry | None = None,
        until: int | None = None,
        simplify: bool = True,
    ) -> Iterator[Path]:
        """All paths of `function` under the conditions `given`, as they are found. A `Region` as argument is its base.

        A path ends before the instruction at `until`, too, unless it begins there.
        """
        state = self._state(function, arguments, given, regions or [], simplify)
        if entry is not None:
            enter(state, entry)
        branches = Branches()
        if (model := branches.model(state.solver.constraints)) is None:
            raise NoProof("nothing fulfils the precondition")
        waiting, done, steps = [(state, model)], 0, 0
        while waiting:
            state, model = waiting.pop()
            steps += 1
            if steps > most_steps or done > most_paths:
                raise NoProof(f"more than {most_paths} paths, or {most_steps} blocks")
            if state.addr == RETURN or state.addr in self.panics:
                done += 1
                yield path_of(state, self.panics.get(state.addr, ""))
                continue
            if state.addr == until and (entry is None or entry.address != until):
                done += 1
                yield path_of(state, stopped=until)
                continue
            before, taken = len(state.solver.constraints), len(waiting)
            try:
                found = self.project.factory.successors(state)
                if found.unconstrained_successors:
                    raise NoProof(f"{state.addr:#x}: a branch to anywhere")
                following = found.flat_successors
            except Held as held:
                if (held.region, held.offset) not in state.globals["choices"]:
                    done += 1
                    yield path_of(held.state, stopped=held.address, before=(held.region, held.offset))
                    continue
                following = chosen(held)
            for after in following:
                if (other := branches.model(after.solver.constraints, before, model)) is not None:
                    waiting.append((after, other))
            if len(waiting) == taken:
                raise NoProof(f"{state.addr:#x}: a path ends without a return")
        if not done:
            raise NoProof("no path returns")

    def _state(self, function: Function, arguments: list[Any], given: list[Any], regions: list[Region], simplify: bool) -> Any:
        # `Branches` says what is feasible.
        add = {angr.options.SYMBOL_FILL_UNCONSTRAINED_MEMORY, angr.options.SYMBOL_FILL_UNCONSTRAINED_REGISTERS, angr.options.NO_CROSS_INSN_OPT, angr.options.LAZY_SOLVES}
        remove = {angr.options.COMPOSITE_SOLVER, angr.options.TRACK_CONSTRAINT_ACTIONS, *angr.options.refs} | angr.options.unicorn | (set() if simplify else angr.options.simplification)
        state = self.project.factory.blank_state(addr=function.address, add_options=add, remove_options=remove)
        shadows = {r.name: r.at if r.at is not None else SHADOWS + i * SHADOW_STRIDE for i, r in enumerate(regions)}
        daif = claripy.BVS("daif", 64, explicit_name=True)
        choices = {(r.name, offset): values for r in regions for offset, values in r.choices.items()}
        stops = frozenset((r.name, offset) for r in regions for offset in r.stops)
        for name, value in {"system": (), "accesses": (), "words": self.words, "shadows": shadows, "daif": daif, "regions": regions, "writable": self.writable, "choices": choices, "decided": {}, "stops": stops}.items():
            state.globals[name] = value
        for region in regions:
            state.add_constraints(*region.within())
            for i, word in enumerate(region.words):
                state.memory.store(shadows[region.name] + 8 * i, word, endness="Iend_LE", inspect=False, disable_actions=True)
        state.add_constraints(*given)
        state.registers.store("sp", claripy.BVV(STACK, 64))
        state.registers.store("x30", claripy.BVV(RETURN, 64))
        for i, argument in enumerate(arguments):
            value = argument.base if isinstance(argument, Region) else argument
            state.registers.store(f"x{i}", claripy.BVV(value, 64) if isinstance(value, int) else value)
        state.inspect.b("mem_read", when=angr.BP_BEFORE, action=lambda s: redirect(s, "mem_read"))
        state.inspect.b("mem_write", when=angr.BP_BEFORE, action=lambda s: redirect(s, "mem_write"))
        state.inspect.b("mem_read", when=angr.BP_AFTER, action=lambda s: note(s, "mem_read"))
        state.inspect.b("mem_write", when=angr.BP_AFTER, action=lambda s: note(s, "mem_write"))
        return state


def enter(state: Any, entry: Entry) -> None:
    """Begins at `entry` instead, where only what it says is known of registers and stack."""
    state.regs.ip = entry.address
    for i in range(31):
        state.registers.store(f"x{i}", entry.registers.get(f"x{i}", claripy.BVS(f"reg_x{i}", 64)))
    state.registers.store("sp", entry.registers["sp"])
    for address, value in entry.stack.items():
        state.memory.store(address, value, endness="Iend_LE", inspect=False, disable_actions=True)


def chosen(held: Held) -> Iterator[Any]:
    """The state once for each value that the word can have, at the instruction that reads it."""
    key = held.region, held.offset
    for condition, value in held.state.globals["choices"][key]:
        state = held.state.copy()
        state.regs.ip = held.address
        state.globals["choices"] = {k: v for k, v in state.globals["choices"].items() if k != key}
        state.globals["decided"] = {**state.globals["decided"], key: value}
        state.memory.store(state.globals["shadows"][held.region] + held.offset, claripy.BVV(value, 64), endness="Iend_LE", inspect=False, disable_actions=True)
        state.add_constraints(condition)
        yield state


def hold(state: Any, address: int, event: str) -> None:
    """Stops before a read of what is not decided yet, or not to be read."""
    choices, shadows = state.globals["choices"], state.globals["shadows"]
    for region, offset in state.globals["stops"] if event == "mem_read" else ():
        if address == shadows[region] + offset:
            raise Held(state, region, offset)
    size = number(getattr(state.inspect, f"{event}_length"))
    for region, offset in choices:
        at = shadows[region] + offset
        if size is None or address < at + 8 and at < address + size:
            if (event, address, size) != ("mem_read", at, 8):
                raise NoProof(f"{state.scratch.ins_addr:#x}: an access to a word that is not decided")
            raise Held(state, region, offset)


def number(expression: Any) -> int | None:
    if isinstance(expression, int):
        return expression
    return expression.concrete_value if expression.concrete else None


def redirect(state: Any, event: str) -> None:
    """Turns an address in a region into the number at which the region lies here."""
    address = getattr(state.inspect, f"{event}_address")
    if number(address) is not None:
        hold(state, number(address), event)
        return
    for region in state.globals["regions"]:
        if region.at is None and region.base.variables <= address.variables:
            shadow = claripy.BVV(state.globals["shadows"][region.name], 64)
            address = claripy.simplify(claripy.replace(address, region.base, shadow))
    if number(address) is None:
        raise NoProof(f"{state.scratch.ins_addr:#x}: the address {address} depends on an input")
    hold(state, number(address), event)
    setattr(state.inspect, f"{event}_address", address)


def note(state: Any, event: str) -> None:
    inspect = state.inspect
    address, size = number(getattr(inspect, f"{event}_address")), number(getattr(inspect, f"{event}_length"))
    if address is None or size is None:
        raise NoProof(f"{state.scratch.ins_addr:#x}: an access of unknown place or size")
    value = getattr(inspect, f"{event}_expr")
    name, offset = None, address
    for region in state.globals["regions"]:
        start = state.globals["shadows"][region.name]
        if start <= address < start + region.size:
            if address + size > start + region.size:
                raise NoProof(f"an access crosses the end of {region.name}")
            name, offset = region.name, address - start
    write = event == "mem_write"
    if name is None and not STACK - 0x10_0000 <= address < STACK:
        if write:
            raise NoProof(f"{state.scratch.ins_addr:#x}: a store to {address:#x}, which is no memory of its own")
        if any(start <= address < end for start, end in state.globals["writable"]):
            raise NoProof(f"{state.scratch.ins_addr:#x}: a read of {address:#x}, which others may change")
        if SHADOWS <= address < SHADOWS + 64 * SHADOW_STRIDE:
            raise NoProof(f"{state.scratch.ins_addr:#x}: an access beyond a region")
    state.globals["accesses"] = (*state.globals["accesses"], Access(write, name, offset, size, value, state.scratch.ins_addr or 0))


class Patch:
    """The image with one other instruction, for as long as it is entered."""

    def __init__(self, image: Image, address: int, word: int) -> None:
        self.image, self.address, self.word = image, address, word

    def __enter__(self) -> Image:
        image = self.image
        self.before = image.project.loader.memory.load(self.address, 4)
        self.hooked = image.words.pop(self.address, None)
        if self.hooked is not None:
            image.project.unhook(self.address)
        image.project.loader.memory.store(self.address, struct.pack("<I", self.word))
        if system_kind(self.word):
            image.words[self.address] = self.word
            image.project.hook(self.address, hook=system, length=4)
        self._forget()
        return image

    def __exit__(self, *_: object) -> None:
        image = self.image
        if self.address in image.words:
            image.words.pop(self.address)
            image.project.unhook(self.address)
        image.project.loader.memory.store(self.address, self.before)
        if self.hooked is not None:
            image.words[self.address] = self.hooked
            image.project.hook(self.address, hook=system, length=4)
        self._forget()

    def _forget(self) -> None:
        self.image.project.factory.default_engine.clear_cache()
