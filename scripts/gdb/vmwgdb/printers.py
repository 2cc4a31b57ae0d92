"""Pretty-printers for the types of `paging`, and for collections of them.

Types are recognised by their full name, so that a type of the same name elsewhere is left alone.
"""

from collections.abc import Callable, Iterator

import gdb  # type: ignore  # exists only in gdb
import gdb.printing  # type: ignore

from .arch import Descriptor, Geometry, show_size

GEOMETRY = Geometry("4K")
"""Of the kernel. Leaf sizes carry no granule, so sizes in bytes are shown for this one."""


def number(value: "gdb.Value") -> int:
    """The one field of a newtype."""
    return int(value[value.type.fields()[0]])


class Text:
    """A value that is shown as one text."""

    def __init__(self, value: "gdb.Value", show: Callable[["gdb.Value"], str]) -> None:
        self._value, self._show = value, show

    def to_string(self) -> str:
        """Optimised code has lost a value, or a part of it, or has it in registers: then there is nothing to follow."""
        if self._value.is_optimized_out:
            return "<optimized out>"
        try:
            return self._show(self._value)
        except (gdb.error, TypeError):
            return "<partly optimized out>"


def leaf_name(level: int, contiguous: bool) -> str:
    size = GEOMETRY.size(level) * (GEOMETRY.group(level) if contiguous else 1)
    return f"L{level}{'C' if contiguous else ''} ({show_size(size)})"


def leaf_slots() -> Iterator[tuple[int, str]]:
    """The slot of each leaf size in LeafSet and LeafCounts, and its name, largest first."""
    for level, contiguous, size in GEOMETRY.leaf_sizes():
        yield 2 * level + contiguous, show_size(size)


def show_descriptor(value: int) -> str:
    """Without its level: bits 1:0 tell a block from a link or a page, no more."""
    if value == 0:
        return "vacant"
    if value & 0b11 == 0b11:
        as_link, as_page = Descriptor(value, 2, GEOMETRY), Descriptor(value, 3, GEOMETRY)
        if value >> 48 == 0:
            return f"{value:#018x} table {as_link.address:#x}; or page {as_page.attributes()}"
        return f"{value:#018x} page {as_page.address:#x} {as_page.attributes()}{' C' if as_page.contiguous else ''}"
    leaf = Descriptor(value, 2, GEOMETRY)
    kind = "block" if value & 1 else "invalid"
    return f"{value:#018x} {kind} {leaf.address:#x} {leaf.attributes()}{' C' if leaf.contiguous else ''}"


def show_attributes(value: int) -> str:
    return Descriptor(value, 3, GEOMETRY).attributes()


def show_range(value: "gdb.Value") -> str:
    start, size = number(value["start"]), int(value["size"])
    return f"va:{start:#x}+{size:#x} ({show_size(size)})"


def show_counts(value: "gdb.Value") -> str:
    counts = value[value.type.fields()[0]]
    found = [f"{int(counts[slot])}x{name}" for slot, name in leaf_slots() if int(counts[slot])]
    return " ".join(found) or "none"


def show_set(value: "gdb.Value") -> str:
    mask = number(value)
    return "{" + " ".join(name for slot, name in leaf_slots() if mask >> slot & 1) + "}"


def show_levels(value: "gdb.Value") -> str:
    return "{" + ", ".join(str(level) for level in range(-1, 4) if number(value) >> (level & 31) & 1) + "}"


PRINTERS: dict[str, Callable[["gdb.Value"], str]] = {
    "paging::addr::VirtAddr": lambda value: f"va:{number(value):#x}",
    "paging::addr::PhysAddr": lambda value: f"pa:{number(value):#x}",
    "paging::addr::Pfn": lambda value: f"pfn:{number(value):#x} (pa {number(value) << GEOMETRY.page_shift:#x})",
    "paging::addr::VirtRange": show_range,
    "paging::descriptor::Descriptor": lambda value: show_descriptor(number(value)),
    "paging::descriptor::Attributes": lambda value: show_attributes(number(value)),
    "paging::outcome::LeafSize": lambda value: leaf_name(int(value["level"]), bool(value["contiguous"])),
    "paging::outcome::LeafSet": show_set,
    "paging::outcome::LevelMask": show_levels,
    "paging::outcome::LeafCounts": show_counts,
}


BY_PREFIX: dict[str, Callable[["gdb.Value"], str]] = {}
"""For generic types, by the beginning of their names."""


def lookup(value: "gdb.Value") -> Text | None:
    name = value.type.strip_typedefs().name or ""
    shown = PRINTERS.get(name) or next((by for prefix, by in BY_PREFIX.items() if name.startswith(prefix)), None)
    return Text(value, shown) if shown else None


def register_all() -> None:
    gdb.pretty_printers.insert(0, lookup)
