"""Walks, groups and dumps over any `read(pa, size) -> bytes`. Knows nothing of gdb."""

import struct
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

from .arch import ACCESSED, AP_READ_ONLY, CONTIGUOUS, LAST_LEVEL, MASK, SOFTWARE, VALID, Descriptor, Geometry, Half, Registers, bits, show_size

Read = Callable[[int, int], bytes]


def words(data: bytes) -> tuple[int, ...]:
    return struct.unpack(f"<{len(data) // 8}Q", data)


@dataclass(frozen=True)
class Step:
    level: int
    table: int
    index: int
    descriptor: Descriptor


@dataclass(frozen=True)
class Group:
    """The stretch of descriptors that a contiguous group at this place would be, and what is wrong with it."""

    table: int
    first: int
    level: int
    va: int
    descriptors: tuple[Descriptor, ...]
    faults: tuple[str, ...] = ()

    @property
    def is_group(self) -> bool:
        return any(self._has_bit(descriptor) for descriptor in self.descriptors)

    @property
    def whole(self) -> bool:
        return self.is_group and not self.faults

    @staticmethod
    def _has_bit(descriptor: Descriptor) -> bool:
        return not descriptor.table and descriptor.contiguous


def judge_group(half: Half, table: int, index: int, level: int, va: int, entries: tuple[int, ...]) -> Group | None:
    """The group around `index`. All or nothing: equal but for consecutive addresses, and aligned (DESIGN rule 1).

    What hardware manages by the descriptor, and bits that it ignores, may differ.
    """
    geometry = half.geometry
    nr = geometry.group(level)
    if nr == 1:
        return None
    first = index & ~(nr - 1)
    if first + nr > len(entries):
        return None
    step = geometry.size(level)
    start = va & ~(step * nr - 1) & MASK
    found = tuple(Descriptor(value, level, geometry) for value in entries[first : first + nr])
    group = Group(table, first, level, start, found)
    if not group.is_group:
        return group
    # What most members agree on is taken to be the group; the others deviate.
    free = free_bits(geometry)
    base, _ = Counter((d.value - i * step) & ~free & MASK for i, d in enumerate(found) if Group._has_bit(d)).most_common(1)[0]
    faults = []
    expected_first = Descriptor(base, level, geometry)
    if expected_first.address % (step * nr):
        faults.append(f"output address {expected_first.address:#x} is not a multiple of {show_size(step * nr)}")
    for i, descriptor in enumerate(found):
        expected = (base + i * step) & MASK
        if descriptor.value & ~free != expected:
            where = f"[{first + i}] at {start + i * step:#x}"
            expected |= descriptor.value & free
            faults.append(f"{where} is {descriptor.value:#018x}, not {expected:#018x}: {deviation(descriptor, expected)}")
    return Group(table, first, level, start, found, tuple(faults))


def free_bits(geometry: Geometry) -> int:
    """Bits in which members of one group may differ: hardware ignores them, or sets them in one member alone (FEAT_HAFDBS)."""
    managed = ACCESSED if geometry.hardware_af else 0
    return SOFTWARE | managed | (AP_READ_ONLY if geometry.hardware_dirty else 0)


def deviation(descriptor: Descriptor, expected: int) -> str:
    if descriptor.vacant:
        return "vacant"
    if descriptor.table:
        return "a table"
    other = Descriptor(expected, descriptor.level, descriptor.geometry)
    reasons = []
    if descriptor.address != other.address:
        reasons.append(f"output address {descriptor.address:#x}")
    if descriptor.contiguous != other.contiguous:
        reasons.append("CONT clear" if other.contiguous else "CONT set")
    rest = (descriptor.value ^ expected) & ~descriptor.geometry.address_bits & ~CONTIGUOUS
    if rest:
        reasons.append("bits " + ", ".join(str(bit) for bit in range(64) if rest >> bit & 1) + " differ")
    return "; ".join(reasons)


@dataclass
class Walk:
    va: int
    half: Half
    steps: list[Step] = field(default_factory=list)
    fault: str = ""
    """Why there is no translation; empty if there is one."""
    pa: int = 0
    group: Group | None = None
    in_use: list[int] = field(default_factory=list)
    """For each link followed: how many descriptors of its table are in use."""
    narrowed: int = 0
    """Bits 63:59 of all table descriptors passed."""

    @property
    def mapped(self) -> bool:
        return not self.fault

    @property
    def leaf(self) -> Descriptor:
        return self.steps[-1].descriptor


def walk(read: Read, registers: Registers, va: int, root: int | None = None, number: int | None = None) -> Walk:
    """Walks as the MMU would, and looks at the group around what it ends at. Bit 55 chooses the half, unless `number` does."""
    va &= MASK
    half = registers.half_of(va, root) if number is None else registers.half(number, root)
    result = Walk(va, half)
    if not half.contains(va):
        which = "upper" if half.number else "lower"
        result.fault = f"translation fault, level 0: {va:#x} is outside of the {half.va_bits}-bit {which} half"
        return result
    if half.disabled:
        result.fault = f"translation fault, level 0: TCR_EL{half.level}.EPD{half.number} disables walks of TTBR{half.number}"
        return result
    table, level = half.root, half.start_level
    while True:
        entries = words(read(table, 8 * half.entries(level)))
        if result.steps:
            result.in_use.append(sum(entry != 0 for entry in entries))
        index = half.index(va, level)
        descriptor = Descriptor(entries[index], level, half.geometry)
        result.steps.append(Step(level, table, index, descriptor))
        if not descriptor.table or descriptor.address >> half.output_bits:
            break
        if half.hierarchical:
            result.narrowed |= descriptor.value & (0b11111 << 59)
        table, level = descriptor.address, level + 1
    if half.geometry.leaf_allowed(level):
        result.group = judge_group(half, table, index, level, va, entries)
    offset = half.geometry.size(level) - 1
    if descriptor.valid and (descriptor.table or descriptor.leaf) and descriptor.address >> half.output_bits:
        result.fault = f"address size fault, level {level}: {descriptor.address:#x} has more than the {half.output_bits} bits of TCR_EL{half.level}.IPS"
    elif not descriptor.leaf:
        result.fault = f"translation fault, level {level}: the descriptor is {descriptor.kind}"
    elif not descriptor.value & ACCESSED and not half.geometry.hardware_af:
        result.fault = f"access flag fault, level {level}"
    else:
        result.pa = descriptor.address & ~offset | va & offset
    return result


def permissions(result: Walk, registers: Registers) -> str:
    """What EL1 and EL0 may do, with what tables above and SCTLR_EL1.WXN take away."""
    leaf = result.leaf.narrowed(result.narrowed)
    wxn = registers.wxn and not registers.indirect
    by_wxn = wxn and leaf.el1 == "rwx"
    text = f"EL{registers.level} " + ("rw-" if by_wxn else leaf.el1)
    if leaf.el0 != "---":
        text += f", EL0 {'rw-' if wxn and leaf.el0 == 'rwx' else leaf.el0}"
    return text + (f" (not executable by SCTLR_EL{registers.level}.WXN)" if by_wxn else "")


def describe_group(group: Group) -> list[str]:
    """The members as runs of what belongs together, then the verdict."""
    nr = len(group.descriptors)
    geometry = group.descriptors[0].geometry
    step = geometry.size(group.level)
    what = f"[{group.first}..{group.first + nr - 1}] {nr} x {show_size(step)} at {group.va:#x}"
    if not group.is_group:
        mapped = sum(descriptor.leaf for descriptor in group.descriptors)
        return [f"  neighbours {what}: no CONT among them, {mapped} mapped: no group"]
    lines = []
    start = 0
    for i in range(1, nr + 1):
        if i < nr and continues(group.descriptors[i - 1], group.descriptors[i], step):
            continue
        lines.append("    " + describe_members(group, start, i))
        start = i
    if group.whole:
        verdict = [f"WHOLE: {nr} equal descriptors, consecutive, aligned to {show_size(step * nr)} in VA and PA"]
    else:
        verdict = ["BROKEN GROUP:", *(f"  {fault}" for fault in group.faults)]
    return [f"  group {what}:", *lines, *(f"    {line}" for line in verdict)]


def continues(one: Descriptor, two: Descriptor, step: int) -> bool:
    if one.vacant or two.vacant or one.table or two.table:
        return one.value == two.value == 0
    return two.value == (one.value + step) & MASK


def describe_members(group: Group, start: int, end: int) -> str:
    descriptor = group.descriptors[start]
    last = group.first + end - 1
    where = f"[{group.first + start}..{last}]" if end - start > 1 else f"[{last}]"
    if descriptor.vacant:
        return f"{where} vacant"
    if descriptor.table:
        return f"{where} table {descriptor.address:#x}"
    cont = "C" if descriptor.contiguous else "-"
    return f"{where} {cont} pa {descriptor.address:#x}.. {descriptor.attributes()}{'' if descriptor.valid else ' invalid'}"


def describe_walk(result: Walk, registers: Registers) -> list[str]:
    lines = [f"va {result.va:#018x}  {result.half.describe()}"]
    if not registers.mmu_on:
        lines.insert(0, f"the MMU is off (SCTLR_EL1.M = 0): {result.va:#x} is physical; what the tables would say:")
    for i, step in enumerate(result.steps):
        descriptor = step.descriptor
        text = f"  level {step.level}  {step.table:#014x}[{step.index:3}] = {descriptor.value:#018x}  {descriptor.kind}"
        if descriptor.table:
            text += f" -> {descriptor.address:#x}, {result.in_use[i]} in use"
            if descriptor.narrowing():
                text += f", {descriptor.narrowing()}"
        elif not descriptor.vacant:
            text += f"  pa {descriptor.address:#x}"
        lines.append(text)
        if not descriptor.table and not descriptor.vacant:
            lines.append(f"           {descriptor.fields()}")
    if result.group:
        lines += describe_group(result.group)
    if result.fault:
        lines.append(f"=> {result.fault}")
    else:
        leaf = result.leaf
        whole = result.group is not None and result.group.whole
        size = result.half.geometry.size(leaf.level) * (result.half.geometry.group(leaf.level) if whole else 1)
        broken = " of a BROKEN GROUP" if result.group and result.group.is_group and not whole else ""
        lines.append(f"=> pa {result.pa:#018x}  {show_size(size)} leaf{broken}, {permissions(result, registers)}, {leaf.attributes()}")
    return lines


# ---- leaves and runs --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Leaf:
    """A page, a block or a whole group; or one descriptor of a group that is not whole."""

    va: int
    pa: int
    size: int
    level: int
    bits: int
    """The descriptor's, its address and what no dump tells left out, with what tables above take away."""
    unit: int
    """The size of the leaf it is a part of: `size`, until runs are merged."""
    geometry: Geometry
    broken: bool = False

    @property
    def descriptor(self) -> Descriptor:
        return Descriptor(self.bits, self.level, self.geometry)

    @property
    def valid(self) -> bool:
        return self.bits & VALID != 0

    @property
    def contiguous(self) -> bool:
        return self.bits & CONTIGUOUS != 0

    @property
    def attributes(self) -> str:
        return self.descriptor.attributes()

    def continues(self, other: "Leaf") -> bool:
        """Whether `other` goes on where this ends; or is invalid and keeps its place for the same address."""
        return (
            self.va + self.size == other.va
            and (self.pa + self.size == other.pa or not self.valid and self.pa == other.pa)
            and self.bits == other.bits
            and (self.level, self.unit, self.broken) == (other.level, other.unit, other.broken)
        )

    def show(self) -> str:
        return (
            f"{self.va:#018x}-{(self.va + self.size) & MASK:#018x} {self.pa:#014x} {show_size(self.size):>6} "
            f"L{self.level} {show_size(self.unit):<4} {'C' if self.contiguous else '-'} {self.descriptor.columns()}"
            f"{'' if self.valid else ' invalid'}{' BROKEN GROUP' if self.broken else ''}"
        )


Link = tuple[int, Descriptor]
"""A table descriptor, and the first address that it translates."""


def items(half: Half, table: int, level: int, va: int, entries: tuple[int, ...], narrowed: int = 0, first: int = 0) -> Iterator[Leaf | Link]:
    """The leaves and links in one table that translates from `va` on, from the group of descriptor `first` on."""
    geometry = half.geometry
    step, nr, told = geometry.size(level), geometry.group(level), geometry.told_bits
    free = free_bits(geometry)
    group: Group | None = None
    group_of = -1
    i = first - first % nr
    while i < len(entries):
        value = entries[i]
        if value == 0:
            i += 1
            continue
        at = (va + i * step) & MASK
        descriptor = Descriptor(value, level, geometry)
        if descriptor.table:
            yield at, descriptor
            i += 1
            continue
        if group_of != i // nr:
            group_of, group = i // nr, None
            # Most stretches have no CONT at all: those need no judge.
            if any(entry & CONTIGUOUS for entry in entries[group_of * nr : (group_of + 1) * nr]):
                group = judge_group(half, table, i, level, at, entries)
        broken = group is not None and group.is_group and not group.whole
        members = nr if group is not None and group.whole else 1
        if narrowed:
            descriptor = descriptor.narrowed(narrowed)
        kept = descriptor.value
        if members > 1 and free:
            # Of what may differ in a group, that which any member has.
            kept = merged_bits(entries[i : i + nr], kept, free)
        yield Leaf(at, descriptor.address, step * members, level, kept & told, step * members, geometry, broken)
        i += members


def merged_bits(members: tuple[int, ...], value: int, free: int) -> int:
    """The first member's bits, with AF and software bits of any, and read-only only if all are."""
    either, both = 0, MASK
    for member in members:
        either, both = either | member, both & member
    return value & ~free | either & free & ~AP_READ_ONLY | both & value & free & AP_READ_ONLY


def table_leaves(half: Half, table: int, level: int, va: int, entries: tuple[int, ...]) -> Iterator[Leaf]:
    """The leaves in one table that translates from `va` on, without what lies behind its links."""
    return (item for item in items(half, table, level, va, entries) if isinstance(item, Leaf))


def leaves(read: Read, half: Half, start: int, last: int) -> Iterator[Leaf]:
    """The leaves with a part in `start..=last`, in ascending order."""
    if not half.disabled and last >= half.start and start < half.start + half.size:
        yield from _leaves_below(read, half, half.root, half.start_level, half.start, start, last, 0)


def _leaves_below(read: Read, half: Half, table: int, level: int, va: int, start: int, last: int, narrowed: int) -> Iterator[Leaf]:
    entries = words(read(table, 8 * half.entries(level)))
    step = half.geometry.size(level)
    for item in items(half, table, level, va, entries, narrowed, max(start - va, 0) // step):
        if isinstance(item, Leaf):
            if item.va > last:
                break
            if item.va + item.size > start:
                yield item
            continue
        at, link = item
        if at > last:
            break
        if at + step > start and not link.address >> half.output_bits:
            taken = narrowed | link.value & (0b11111 << 59) if half.hierarchical else 0
            yield from _leaves_below(read, half, link.address, level + 1, at, start, last, taken)


def merge(found: Iterator[Leaf], start: int = 0, last: int = MASK) -> Iterator[Leaf]:
    """Runs of leaves of one kind, consecutive in VA and PA, cut to `start..=last`."""
    first: Leaf | None = None
    previous: Leaf | None = None
    size = 0
    for leaf in found:
        cut = max(start - leaf.va, 0)
        end = min(leaf.va + leaf.size, last + 1)
        if end - leaf.va - cut != leaf.size:
            leaf = replace(leaf, va=leaf.va + cut, pa=leaf.pa + cut, size=end - leaf.va - cut)
        if previous and previous.continues(leaf):
            size += leaf.size
        else:
            if first:
                yield replace(first, size=size)
            first, size = leaf, leaf.size
        previous = leaf
    if first:
        yield replace(first, size=size)


# ---- snapshots --------------------------------------------------------------------------------

Snapshot = dict[tuple[int, int], tuple[int, bytes]]
"""Every table by the first address that it translates and its level: where it is, and its bytes."""


def snapshot(read: Read, halves: list[Half], limit: int) -> Snapshot:
    """All tables that the halves reach; none beyond `limit` tables."""
    found: Snapshot = {}
    for half in halves:
        if half.disabled:
            continue
        waiting = [(half.start, half.root, half.start_level)]
        while waiting and len(found) < limit:
            va, table, level = waiting.pop()
            data = read(table, 8 * half.entries(level))
            found[va, level] = (table, data)
            if level == LAST_LEVEL:
                continue
            for i, value in enumerate(words(data)):
                descriptor = Descriptor(value, level, half.geometry)
                if descriptor.table and not descriptor.address >> half.output_bits:
                    waiting.append((va + i * half.geometry.size(level), descriptor.address, level + 1))
    return found


def describe_diff(old: Snapshot, new: Snapshot, half: Half) -> list[str]:
    """What went (-), came (+) and changed, tables first, then runs of leaves."""
    lines = []
    gone: list[Leaf] = []
    come: list[Leaf] = []
    for key in sorted(old.keys() | new.keys()):
        va, level = key
        before, after = old.get(key), new.get(key)
        if before == after:
            continue
        if before is None or after is None or before[0] != after[0]:
            if before:
                lines.append(f"- level {level} table {before[0]:#x} at {va:#018x}")
            if after:
                nr = sum(word != 0 for word in words(after[1]))
                lines.append(f"+ level {level} table {after[0]:#x} at {va:#018x}, {nr} descriptors")
        else:
            lines += changed_links(half, level, va, words(before[1]), words(after[1]))
        was = set(table_leaves(half, before[0], level, va, words(before[1]))) if before else set()
        now = set(table_leaves(half, after[0], level, va, words(after[1]))) if after else set()
        gone += was - now
        come += now - was
    for sign, found in (("-", gone), ("+", come)):
        lines += [f"{sign} {run.show()}" for run in merge(iter(sorted(found, key=lambda leaf: leaf.va)))]
    return lines


def changed_links(half: Half, level: int, va: int, before: tuple[int, ...], after: tuple[int, ...]) -> list[str]:
    """Links that still lead to the same table and have other bits: none of the engine's does."""
    lines = []
    for i, (one, two) in enumerate(zip(before, after)):
        was, now = Descriptor(one, level, half.geometry), Descriptor(two, level, half.geometry)
        if was.table and now.table and was.address == now.address and one != two:
            where = va + i * half.geometry.size(level)
            lines.append(f"  level {level} link [{i}] at {where:#018x}: {one:#x} -> {two:#x}")
    return lines
