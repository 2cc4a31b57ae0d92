"""What gdb's target knows: registers, physical memory, the address map's names."""

import re
from pathlib import Path

import gdb  # type: ignore  # exists only in gdb

from . import elf
from .arch import MASK, Geometry, Half, NotWalkable, Registers, address_map

LAYOUT = Path(__file__).resolve().parents[3] / "kernel" / "src" / "layout.rs"


def fail(message: str) -> gdb.GdbError:
    """An error that gdb shows as it is, without a Python backtrace."""
    return gdb.GdbError(f"vmw: {message}")


def one_line(error: BaseException) -> str:
    """What an exception says, in one line; of one that is no message for people, what kind it is, too."""
    text = " ".join(str(error).split())
    return text if isinstance(error, gdb.error) and text else f"{type(error).__name__}: {text}"


def check_machine() -> None:
    if not alive():
        raise fail("there is no machine: it is not started, or has powered off")


def split(argument: str) -> list[str]:
    """The words of a command's argument, as gdb takes them: quotes and backslashes keep blanks."""
    try:
        return list(gdb.string_to_argv(argument))
    except (gdb.error, RuntimeError, ValueError) as error:
        raise fail(f"{argument}: {one_line(error)}") from None


def evaluate(expression: str) -> int:
    """An address from an expression of gdb's: `$pc`, `0x40000000`, a symbol's value."""
    try:
        return number_in(gdb.parse_and_eval(expression), expression)
    except (gdb.error, TypeError, ValueError, OverflowError) as error:
        raise fail(f"{expression} is no address: {one_line(error)}") from None


SIZE = re.compile(r"(0x[0-9a-fA-F]+|[0-9]+)([KMGT])")


def evaluate_size(expression: str) -> int:
    """A number of bytes: `64K`, `0x10M`, or an expression of gdb's."""
    if match := SIZE.fullmatch(expression):
        return int(match[1], 0) << 10 * ("KMGT".index(match[2]) + 1)
    return evaluate(expression)


def number_in(value: "gdb.Value", expression: str) -> int:
    if value.type.strip_typedefs().code == gdb.TYPE_CODE_FUNC:
        return int(value.address) & MASK
    if value.type.strip_typedefs().code == gdb.TYPE_CODE_STRUCT:
        # VirtAddr and PhysAddr hold one number.
        fields = value.type.strip_typedefs().fields()
        if len(fields) != 1:
            raise fail(f"{expression} is a {value.type}, not an address")
        value = value[fields[0]]
    return int(value) & MASK


BY_HAND = ("tcr", "mair", "sctlr", "ttbr0", "ttbr1", "tcr2", "pir", "pire0", "linear")
"""What `vmw regs` takes by hand: registers that a stub does not have, and where a linear map begins."""
by_hand: dict[str, int] = {}


def shown_register(*names: str) -> int | None:
    """A register by the first of `names` that the stub has."""
    for name in names:
        value = gdb.parse_and_eval(f"${name}")
        if value.type.code != gdb.TYPE_CODE_VOID:
            return int(value) & MASK
    return None


def register(*names: str) -> int:
    """A register by the first of `names` that the stub has. Raises if there is none."""
    value = shown_register(*names)
    if value is None:
        raise fail(f"the stub has no register {' or '.join(names)}")
    return value


def system_register(name: str, level: int) -> int:
    """One of those that a walk takes, given by hand or as the stub has it."""
    if name in by_hand:
        return by_hand[name]
    full = f"{name.upper()}_EL{level}"
    value = shown_register(full, "SCTLR") if full == "SCTLR_EL1" else shown_register(full)
    if value is None and name == "sctlr" and "tcr" in by_hand:
        return 1  # a walk that is described by hand is of an MMU that is on
    if value is None:
        raise fail(f"the stub has no register {full}: vmw regs {name}=VALUE gives it by hand")
    return value


def alive() -> bool:
    return gdb.selected_inferior().pid != 0


E2H, TGE, VM = 1 << 34, 1 << 27, 1 << 0


def regime() -> int:
    """The exception level whose registers translate here: 2 where a kernel runs at EL2 as others do at EL1 (HCR_EL2.E2H)."""
    level = register("cpsr") >> 2 & 3
    hypervisor = shown_register("HCR_EL2") or 0
    return 2 if hypervisor & E2H and (level == 2 or level == 0 and hypervisor & TGE) else 1


def registers() -> Registers:
    check_machine()
    level = regime()
    ttbr0, ttbr1, tcr, mair, sctlr = (system_register(name, level) for name in ("ttbr0", "ttbr1", "tcr", "mair", "sctlr"))
    # A CPU without FEAT_TCR2 or FEAT_S1PIE has none of these.
    tcr2, pir, pire0 = (by_hand.get(name, shown_register(f"{name.upper()}_EL{level}") or 0) for name in ("tcr2", "pir", "pire0"))
    return Registers(ttbr0, ttbr1, tcr, mair, sctlr, level, tcr2, pir, pire0)


def unusual() -> list[str]:
    """What of the machine makes tables mean something else than is shown here, a line for each."""
    lines = []
    level = register("cpsr") >> 2 & 3
    hypervisor = shown_register("HCR_EL2") or 0
    if regime() == 1 and level < 2 and hypervisor & VM:
        lines.append("stage 2 is on (HCR_EL2.VM): what the tables hold are IPAs, and are read as if they were physical")
    if level > regime():
        lines.append(f"the CPU is at EL{level}, with tables of its own: what is shown is EL1's")
    tcr2 = f"TCR2_EL{regime()}"
    extensions = shown_register(tcr2) or 0
    if extensions & 0b1100:
        lines.append(f"permissions may have overlays ({tcr2}.POE, E0POE): what a thread's POR takes away is not shown")
    if extensions & 1 << 4:
        lines.append(f"types may be those of MAIR2 ({tcr2}.AIE): what is shown is MAIR's")
    return lines


STATIC = "kernel::mm::areas::VMALLOC"
"""The kernel's one `Vmalloc`: whatever has it is vmwalk."""


def is_vmwalk() -> bool:
    """Whether the program that gdb has is vmwalk's ELF."""
    if gdb.current_progspace().filename is None:
        return False
    return (gdb.lookup_static_symbol(STATIC) or gdb.lookup_global_symbol(STATIC)) is not None


def halves(state: Registers) -> list[Half]:
    """The halves that are programmed, lower first."""
    found = []
    for number in (0, 1):
        try:
            found.append(state.half(number))
        except NotWalkable:
            continue
    return found


class Physical:
    """Reads and writes by physical address, MMU on or off.

    QEMU's stub takes memory packets as physical while `Qqemu.PhyMemMode` is 1 (QEMU 4.1 and later), for all CPUs. The mode
    lasts only as long as the `with`: gdb itself reads virtual addresses. Of a stub that has no such packet, the kernel's own
    linear map is read, where `vmw regs linear=VA` said where it has physical address 0. Reads are kept, since nothing runs
    meanwhile.
    """

    def __init__(self) -> None:
        self._seen: dict[tuple[int, int], bytes] = {}
        self._offset = by_hand.get("linear", 0)

    def __enter__(self) -> "Physical":
        self._mode(1)
        return self

    def __exit__(self, *_: object) -> None:
        self._mode(0)

    @staticmethod
    def _mode(physical: int) -> None:
        if "linear" in by_hand:
            return
        connection = gdb.selected_inferior().connection
        if not isinstance(connection, gdb.RemoteTargetConnection):
            raise fail("not connected to a stub")
        if connection.send_packet(f"Qqemu.PhyMemMode:{physical}") != b"OK":
            raise fail("this stub cannot read physical memory (QEMU 4.1 or later can): vmw regs linear=VA, the address of physical 0 in the linear map, reads there")

    def read(self, pa: int, size: int) -> bytes:
        key = (pa, size)
        if key not in self._seen:
            try:
                self._seen[key] = bytes(gdb.selected_inferior().read_memory(pa + self._offset & MASK, size))
            except gdb.MemoryError:
                raise fail(f"there is no memory at physical address {pa:#x}") from None
        return self._seen[key]

    def write(self, pa: int, data: bytes) -> None:
        self._seen.clear()
        try:
            gdb.selected_inferior().write_memory(pa + self._offset & MASK, data)
        except gdb.MemoryError:
            raise fail(f"there is no memory at physical address {pa:#x}") from None


RAM_BASE = 0x4000_0000
IMAGE_ALIGNMENT = 2 << 20
FURTHEST_IMAGE = 1 << 30
"""From the start of RAM, as far as an image is looked for."""


def load_low_symbols() -> None:
    """Gives the image's symbols at its physical addresses too, where it runs before the MMU is on.

    Where the loader put it is found by its first bytes, at a multiple of 2 MiB, as the arm64 boot protocol has it.
    """
    program = gdb.current_progspace().filename
    if not is_vmwalk() or not isinstance(gdb.selected_inferior().connection, gdb.RemoteTargetConnection) or registers().mmu_on:
        return
    base, image = elf.first_segment(Path(program))
    with Physical() as memory:
        for pa in range(RAM_BASE, RAM_BASE + FURTHEST_IMAGE, IMAGE_ALIGNMENT):
            try:
                if memory.read(pa, 64) != image[:64]:
                    continue
            except gdb.GdbError:
                return  # the end of RAM
            offset = pa - base & MASK
            gdb.execute(f"add-symbol-file {program} -o {offset:#x}", to_string=True)
            return


def regions() -> dict[str, tuple[int, int]]:
    """First and last address of each region of the address map, as kernel/src/layout.rs has them for the addresses that
    TTBR1 walks."""
    try:
        half = registers().half(1)
        bits, geometry = half.va_bits, half.geometry
    except (NotWalkable, gdb.error, gdb.GdbError):
        bits, geometry = 48, Geometry("4K")
    return address_map(LAYOUT.read_text(), bits, geometry)


DEDUCED = ("user", "linear", "image")
"""Regions that are found in the tables of a kernel whose address map is not known."""


def parse_range(text: str, known: dict[str, tuple[int, int]]) -> tuple[int, int]:
    """`START END`, `START-END`, `START+SIZE` (expressions of gdb's), or the name of one of the `known` regions."""
    if text in known:
        return known[text]
    own = is_vmwalk()
    if not own and text in regions():
        raise fail(f"{text} is a region of vmwalk's address map, and vmwalk's ELF is not loaded: here it is one of {', '.join(DEDUCED)}")
    if not own and text in DEDUCED:
        raise fail(f"no {text} can be told in these tables")
    for pattern, is_size in ((r"(\S+)\s*\+\s*(\S+)", True), (r"(\S+)\s*-\s*(\S+)", False), (r"(\S+)\s+(\S+)", False)):
        if match := re.fullmatch(pattern, text):
            start = evaluate(match[1])
            # The end of all addresses is written as 2^64 or as 0.
            end = start + evaluate_size(match[2]) if is_size else evaluate(match[2]) or MASK + 1
            if end <= start:
                raise fail(f"the range {text} is empty")
            if end > MASK + 1:
                raise fail(f"the range {text} goes on past the last address")
            return start, end - 1
    raise fail(f"{text} is no range: START END, START-END, START+SIZE, or one of {', '.join(known if own else DEDUCED)}")
