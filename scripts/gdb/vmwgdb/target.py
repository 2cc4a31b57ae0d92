"""What gdb's target knows: registers, physical memory, the address map's names."""

import re
from pathlib import Path

import gdb  # type: ignore  # exists only in gdb

from . import elf
from .arch import MASK, NotWalkable, Half, Registers

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


def register(*names: str) -> int:
    """A system register by the first of `names` that the stub has."""
    for name in names:
        value = gdb.parse_and_eval(f"${name}")
        if value.type.code != gdb.TYPE_CODE_VOID:
            return int(value) & MASK
    raise fail(f"the emulator's stub has no register {' or '.join(names)}")


def alive() -> bool:
    return gdb.selected_inferior().pid != 0


def registers() -> Registers:
    check_machine()
    return Registers(
        ttbr0=register("TTBR0_EL1"),
        ttbr1=register("TTBR1_EL1"),
        tcr=register("TCR_EL1"),
        mair=register("MAIR_EL1"),
        sctlr=register("SCTLR", "SCTLR_EL1"),
    )


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
    lasts only as long as the `with`: gdb itself reads virtual addresses. Reads are kept, since nothing runs meanwhile.
    """

    def __init__(self) -> None:
        self._seen: dict[tuple[int, int], bytes] = {}

    def __enter__(self) -> "Physical":
        self._mode(1)
        return self

    def __exit__(self, *_: object) -> None:
        self._mode(0)

    @staticmethod
    def _mode(physical: int) -> None:
        connection = gdb.selected_inferior().connection
        if not isinstance(connection, gdb.RemoteTargetConnection):
            raise fail("not connected to the emulator")
        if connection.send_packet(f"Qqemu.PhyMemMode:{physical}") != b"OK":
            raise fail("the emulator's stub cannot read physical memory (QEMU 4.1 or later can)")

    def read(self, pa: int, size: int) -> bytes:
        key = (pa, size)
        if key not in self._seen:
            try:
                self._seen[key] = bytes(gdb.selected_inferior().read_memory(pa, size))
            except gdb.MemoryError:
                raise fail(f"there is no memory at physical address {pa:#x}") from None
        return self._seen[key]

    def write(self, pa: int, data: bytes) -> None:
        self._seen.clear()
        try:
            gdb.selected_inferior().write_memory(pa, data)
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
    if program is None or not isinstance(gdb.selected_inferior().connection, gdb.RemoteTargetConnection) or registers().mmu_on:
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
        bits = registers().half(1).va_bits
    except (NotWalkable, gdb.error, gdb.GdbError):
        bits = 48
    found: dict[str, int] = {}
    for name, value in re.findall(r"^pub const (\w+_(?:BASE|END)): usize = (.*);", LAYOUT.read_text(), re.MULTILINE):
        sum_of = value.replace("Granule::VA_BITS", str(bits)).replace("0_usize.wrapping_sub", "-")
        # Others are no region's, and have sizes that are no numbers here.
        if not re.search(r"[^\w\s()<+-]", sum_of):
            found[name] = eval(sum_of, {"__builtins__": {}}, found) & MASK
    bases = {name.removesuffix("_BASE"): value for name, value in found.items() if name.endswith("_BASE")}
    return {name.lower(): (base, found[f"{name}_END"] - 1) for name, base in bases.items() if f"{name}_END" in found}


def parse_range(text: str) -> tuple[int, int]:
    """`START END`, `START-END`, `START+SIZE` (expressions of gdb's), or the name of a region."""
    text = text.strip()
    known = regions()
    if text in known:
        return known[text]
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
    raise fail(f"{text} is no range: START END, START-END, START+SIZE, or one of {', '.join(known)}")
