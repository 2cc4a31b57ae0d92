"""What the hook points of `paging::trace` report, in words. Knows nothing of gdb.

The numbers are those that kernel/paging/src/trace.rs documents.
"""

from dataclasses import dataclass

from .arch import LAST_LEVEL, Descriptor, Geometry, show_size

BARRIERS = ("DSB ISHST", "DSB ISH", "ISB")
TLBIS = ("VAALE1IS", "VAAE1IS", "RVAALE1IS", "RVAAE1IS", "VMALLE1IS")


@dataclass(frozen=True)
class Event:
    kind: str
    """level, leaf, store, tlbi or barrier."""
    lines: tuple[str, ...]
    what: str = ""
    """The instruction, for a TLBI or a barrier."""
    passed: tuple[str, ...] = ()
    """What is told of it when it is not stopped at, if not all."""

    @property
    def brief(self) -> tuple[str, ...]:
        return self.passed or self.lines


def show_offset(offset: int) -> str:
    text = show_size(offset)
    return text if len(text) <= 5 else f"{offset:#x}"


def why_not(size: int, va: int, pa: int, run: int, remaining: int, allowed: bool) -> list[str]:
    """Every condition of the leaf rule (paging::leaf) that a leaf of `size` bytes fails here."""
    text = show_size(size)
    reasons = []
    if not allowed:
        reasons.append(f"{text} leaves are not allowed")
    for name, address in (("va", va), ("pa", pa)):
        if address % size:
            reasons.append(f"{name} is {show_offset(address % size)} past a multiple of {text}")
    if run and run < size:
        reasons.append(f"the run covers only {show_size(run)}")
    if remaining < size:
        reasons.append(f"only {show_size(remaining)} remain")
    return reasons


NOT_FOLLOWED = "the frames do not follow each other for as long"
"""Of a page whose first and last neighbour in a group were looked at, and no more."""


def level_event(geometry: Geometry, level: int, table: int, index: int, va: int, size: int) -> Event:
    text = f"level {level}: enters table {table:#x} at descriptor {index}, va {va:#x}, {show_size(size)} to go"
    return Event("level", (text,))


def leaf_event(
    geometry: Geometry, level: int, contiguous: int, va: int, pa: int, run: int, remaining: int, allowed: int
) -> Event:
    group = geometry.group(level) if contiguous else 1
    chosen = geometry.size(level) * group
    known = show_size(run) if run else "not looked at"
    made_of = f" = {group} x {show_size(geometry.size(level))} contiguous" if contiguous else ""
    name = f"{show_size(chosen)} (L{level}{'C' if contiguous else ''}{made_of})"
    first = f"leaf {name}: va {va:#x} -> pa {pa:#x}, run {known}, remaining {show_size(remaining)}"
    refused = []
    for other_level, other_group, size in geometry.leaf_sizes():
        if size > chosen:
            in_set = bool(allowed >> (2 * other_level + other_group) & 1)
            reasons = why_not(size, va, pa, run, remaining, in_set) or [NOT_FOLLOWED if not run else "no reason found: the walker should have taken it"]
            refused.append((show_size(size), "; ".join(reasons)))
    lines = (first, *(f"  not {size:<4} {reasons}" for size, reasons in refused))
    next_larger = f" (not {refused[-1][0]}: {refused[-1][1]})" if refused else ""
    return Event("leaf", lines, passed=(first + next_larger,))


def store_event(geometry: Geometry, level: int | None, kind: int, table: int, index: int, values: list[int], old: int) -> Event:
    """`values` are the descriptors as they are after the store."""
    nr = len(values)
    place = f"{'level ' + str(level) if level is not None else 'level ?'} table {table:#x}"
    place += f"[{index}..{index + nr - 1}]" if nr > 1 else f"[{index}]"
    if kind == 3 or kind == 0 and values == [0]:
        return Event("store", (f"store {place}: {f'{nr} x ' if nr > 1 else ''}vacant",))
    shown = level if level is not None else LAST_LEVEL
    first = Descriptor(values[0], shown, geometry)
    if kind == 4:
        return Event("store", (f"store {place}: {exchange(Descriptor(old, shown, geometry), first)}",))
    if first.table and level is not None:
        return Event("store", (f"store {place}: link to table {first.address:#x}",))
    lines = [f"store {place}: {nr} descriptor{'s' if nr > 1 else ''}"]
    start = 0
    step = geometry.size(shown)
    for i in range(1, nr + 1):
        if i < nr and values[i] == values[i - 1] + step:
            continue
        one = Descriptor(values[start], shown, geometry)
        where = f"[{index + start}..{index + i - 1}]" if i - start > 1 else f"[{index + start}]"
        shape = "vacant"
        if not one.vacant:
            shape = f"{one.value:#018x}{'..' if i - start > 1 else ''} pa {one.address:#x} {'C' if one.contiguous else '-'} {one.attributes()}"
        groups = geometry.group(shown)
        if one.contiguous and (i - start) % groups == 0:
            shape += f": {(i - start) // groups} x {show_size(step * groups)} group"
        lines.append(f"  {where} {shape}{'' if one.vacant or one.valid else ' invalid'}")
        start = i
    return Event("store", tuple(lines))


def exchange(old: Descriptor, new: Descriptor) -> str:
    if old.vacant:
        return f"links table {new.address:#x}"
    if new.vacant:
        return f"unlinks table {old.address:#x}"
    return f"links table {new.address:#x} in place of {old.address:#x}"


def tlbi_event(geometry: Geometry, kind: int, va: int, pages: int, scale: int, num: int) -> Event:
    name = TLBIS[kind]
    if kind == 4:
        return Event("tlbi", (f"TLBI {name}: everything",), name)
    levels = "last level" if kind in (0, 2) else "all levels"
    size = f"{pages} pages, SCALE={scale} NUM={num}" if kind in (2, 3) else "one entry"
    return Event("tlbi", (f"TLBI {name}: va {va:#x}, {size}, {levels}",), name)


def barrier_event(geometry: Geometry, kind: int) -> Event:
    return Event("barrier", (BARRIERS[kind],), BARRIERS[kind])
