"""`vmw areas` and `vmw lazy`: the kernel's address space, as the `vmalloc` crate keeps it.

Structures are found by the names of their fields in the debug information, whatever their layout; what a word of an area
means is kernel/vmalloc/src/record.rs's. The leaves shown are those of the live tables, not the book-keeping's.
"""

import struct
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import gdb  # type: ignore  # exists only in gdb

from . import printers
from . import walk as walking
from .arch import show_size
from .commands import Command
from .target import STATIC, Physical, fail, registers

LEFT, RIGHT = 0, 1
"""`Side` in kernel/vmalloc/src/va/node.rs."""


def page_shift() -> int:
    """log2 of the kernel's pages, as TTBR1 walks them."""
    return registers().half(1).geometry.page_shift


def find(value: "gdb.Value", prefix: str) -> "gdb.Value":
    """The first value inside `value`, itself included, whose type's name begins with `prefix`: through locks and cells."""
    waiting = [value]
    while waiting:
        candidate = waiting.pop(0)
        kind = candidate.type.strip_typedefs()
        if (kind.name or "").startswith(prefix):
            return candidate
        if kind.code == gdb.TYPE_CODE_STRUCT:
            waiting += [candidate[field] for field in kind.fields()]
    raise fail(f"no {prefix} in a {value.type}: the kernel's debug information is not what this script knows")


def number(value: "gdb.Value") -> int:
    """A number inside of cells and atomics."""
    return int.from_bytes(raw(value), "little")


def raw(value: "gdb.Value") -> bytes:
    return bytes(gdb.selected_inferior().read_memory(int(value.address), value.type.sizeof))


def elements(array: "gdb.Value") -> Iterator["gdb.Value"]:
    """The elements of an array."""
    low, high = array.type.range()
    return (array[i] for i in range(low, high + 1))


def names(enum: str) -> dict[int, str]:
    """The names of an enumeration's values."""
    return {field.enumval: field.name.rsplit("::", 1)[-1] for field in gdb.lookup_type(enum).fields()}


def location(address: int) -> str:
    """A `core::panic::Location`: file, its length, line, column."""
    if not address:
        return "nobody"
    data = bytes(gdb.selected_inferior().read_memory(address, 24))
    file, length, line, _ = struct.unpack("<QQII", data)
    if length > 4096:
        return f"{address:#x}"
    text = bytes(gdb.selected_inferior().read_memory(file, length)).decode(errors="replace")
    return f"{text}:{line}"


@dataclass(frozen=True)
class Segment:
    start: int
    pages: int
    state: str
    lead: int
    trail: int
    words: tuple[int, ...]
    kinds: dict[int, str]

    @property
    def va(self) -> int:
        return self.start + self.lead << page_shift()

    @property
    def body(self) -> int:
        return self.pages - self.lead - self.trail << page_shift()

    @property
    def kind(self) -> str:
        return self.kinds.get(self.words[0] & 0b111, "?").lower()

    @property
    def changed(self) -> bool:
        """Its permissions were changed; of a reserved area, pages were mapped."""
        return self.words[0] >> 3 & 1 != 0

    @property
    def ready(self) -> bool:
        return self.words[0] >> 4 & 1 != 0

    @property
    def asked(self) -> tuple[int, int]:
        """The caller's bytes: their start and how many. An ioremap may begin inside its first page."""
        offset = self.words[3] & (1 << page_shift()) - 1 if self.kind == "ioremap" else 0
        return self.va + offset, self.words[0] >> 8 & (1 << 54) - 1

    def show(self) -> str:
        text = f"{self.va:#018x}-{self.va + self.body:#018x} {show_size(self.body):>6} {self.kind} {self.state.lower()}"
        if not self.ready and self.state != "Parked":
            text += " not-ready"
        if self.changed:
            text += " pages-mapped" if self.kind == "reserved" else " permissions-changed"
        va, size = self.asked
        if (va, size) != (self.va, self.body):
            text += f" asked={va:#018x}+{size}"
        text += f" guards={self.lead}+{self.trail}"
        if self.kind == "ioremap":
            text += f" pa={self.words[3]:#x}"
        return f"{text} by {location(self.words[2])}"

    @property
    def freer(self) -> str:
        return location(self.words[1])


def segment_of(node: "gdb.Value") -> Segment:
    words = struct.unpack(f"<{node['words'].type.sizeof // 8}Q", raw(node["words"]))
    return Segment(
        start=number(node["start"]),
        pages=number(node["pages"]),
        state=names("vmalloc::va::State")[number(node["state"])],
        lead=number(node["lead"]),
        trail=number(node["trail"]),
        words=words,
        kinds=names("vmalloc::record::Kind"),
    )


def node_pointer() -> "gdb.Type":
    """The type of a pointer to the node of an area."""
    return gdb.lookup_type("vmalloc::va::node::Node<6>").pointer()


def show_area(value: "gdb.Value") -> str:
    """A `vmalloc::va::area::Area`: what its node says."""
    return segment_of(value["node"].dereference()).show()


def show_handle(value: "gdb.Value") -> str:
    """A `vmalloc::area::VmArea`: its area, or that it was made raw; and what mapping it took."""
    address = number(value["area"])
    if not address:
        return "given away"
    node = gdb.Value(address).cast(node_pointer()).dereference()
    return f"{segment_of(node).show()}, {value['outcome']['leaves'].format_string()}"


def show_info(value: "gdb.Value") -> str:
    """A `vmalloc::record::AreaInfo`."""
    kind = str(value["kind"]).rsplit("::", 1)[-1].lower()
    va, size = number(value["va"]), int(value["size"])
    start, body = number(value["range"]["start"]), int(value["range"]["size"])
    pages = f" in {start:#018x}-{start + body:#018x}" if (va, size) != (start, body) else ""
    return f"{va:#018x}+{show_size(size)}{pages} {kind} by {location(int(value['caller']))}"


class Subsystem:
    """The kernel's one `Vmalloc`."""

    def __init__(self) -> None:
        symbol = gdb.lookup_static_symbol(STATIC) or gdb.lookup_global_symbol(STATIC)
        if symbol is None:
            raise fail(f"this kernel has no {STATIC}")
        once = symbol.value()
        data = once["data"]
        name = str(data.type)
        start = name.index("vmalloc::region::Vmalloc<")
        kind = gdb.lookup_type(name[start : name.rindex(">>")])
        self.value = data.address.cast(kind.pointer()).dereference()
        try:
            if number(once["status"]) == 0 or number(self.value["range"]["size"]) == 0:
                raise fail("the vmalloc subsystem is not set up yet")
        except gdb.MemoryError:
            raise fail("the vmalloc subsystem is not set up yet: the MMU is off") from None
        self._node = node_pointer()

    def _at(self, address: int) -> "gdb.Value":
        return gdb.Value(address).cast(self._node).dereference()

    def shards(self) -> Iterator[tuple[str, "gdb.Value", "gdb.Value"]]:
        """The shards, the common one first: whose each is, and what is behind its lock."""
        shards = self.value["shards"]
        table = shards["by_number"].dereference()
        for index in range(number(shards["nr"])):
            shard = table[index].dereference()
            owner = f"CPU {index - 1}" if index else "the common shard"
            yield owner, shard, find(shard["state"], "vmalloc::shard::State<")

    def segments(self) -> list[Segment]:
        """All of them, in address order. A shard's tree is whole between two changes: under its lock it may not be."""
        found = []
        for _, _, state in self.shards():
            waiting = [number(state["space"]["tree"]["root"])]
            while waiting:
                if address := waiting.pop():
                    node = self._at(address)
                    found.append(segment_of(node))
                    waiting += [number(node["child"][side]) for side in (LEFT, RIGHT)]
        return sorted(found, key=lambda segment: segment.start)

    def lazy_lists(self) -> Iterator[tuple[str, "gdb.Value"]]:
        """Every list of areas that wait for a flush, with whose it is."""
        for owner, _, state in self.shards():
            yield owner, state["lazy"]

    def chain(self, head: "gdb.Value") -> Iterator[Segment]:
        """The areas of a list, the latest first."""
        address = number(head)
        while address:
            node = self._at(address)
            yield segment_of(node)
            address = number(node["chain"])

    def deferred(self) -> tuple[list[Segment], list[tuple[int, int]]]:
        """What was freed on another CPU, or where nothing could be waited for: areas, and addresses with who gave them."""
        areas = [segment for _, shard, state in self.shards() for head in (shard["deferred_list"]["new"]["newest"], state["deferred"]) for segment in self.chain(head)]
        addresses = [(number(slot["va"]), number(slot["by"])) for slot in elements(self.value["addresses"]["slots"])]
        return areas, [(va, by) for va, by in addresses if va > 1]


class Areas(Command):
    """List the areas of the vmalloc region with their flags, and the leaves that the live tables have for each.

    vmw areas"""

    name = "areas"
    of_vmwalk = True

    def run(self, argument: str) -> None:
        subsystem = Subsystem()
        state = registers()
        shown = reserved = 0
        with_state: Counter[str] = Counter()
        segments = subsystem.segments()
        with Physical() as memory:
            tables = [(segment, self._leaves(memory, state, segment)) for segment in segments if segment.state != "Gap"]
        for segment, leaves in tables:
            print(segment.show())
            for line in leaves:
                print(f"    {line}")
            shown += 1
            reserved += segment.pages
            with_state[segment.state.lower()] += 1
        by_state = ", ".join(f"{count} {name}" for name, count in with_state.items())
        print(f"{shown} area{'s' if shown != 1 else ''} ({by_state or 'none'}), {reserved} pages with guards")

    @staticmethod
    def _leaves(memory: Physical, state: walking.Registers, segment: Segment) -> list[str]:
        """The leaves by size and attributes, in the order in which they first appear."""
        found: Counter[tuple[int, bool, str]] = Counter()
        last = segment.va + segment.body - 1
        for leaf in walking.leaves(memory.read, state.half_of(segment.va), segment.va, last):
            found[leaf.unit, leaf.broken, leaf.attributes + ("" if leaf.valid else " invalid")] += 1
        by_attributes: dict[str, list[str]] = {}
        for (unit, broken, attributes), count in found.items():
            by_attributes.setdefault(attributes, []).append(f"{count}x{show_size(unit)}" + (" BROKEN GROUP" if broken else ""))
        return [f"{' '.join(sizes)}  {attributes}" for attributes, sizes in by_attributes.items()] or ["nothing mapped"]


class Lazy(Command):
    """Show what the vmalloc subsystem frees lazily, and why it waits.

    vmw lazy

    Areas that were taken out and wait for a flush, of each shard, the ranges that it will invalidate, dead tables; what was
    freed from an exception or on another CPU; areas that are being freed at this moment; and ranges that are
    flushed and kept for the next of the same size."""

    name = "lazy"
    of_vmwalk = True

    def run(self, argument: str) -> None:
        subsystem = Subsystem()
        policy = str(subsystem.value["config"]["flush"]).replace("vmalloc::policy::FlushPolicy::", "")
        print(f"policy: {policy}")
        listed: set[int] = set()
        for owner, waiting in subsystem.lazy_lists():
            nr_areas, pages = number(waiting["nr_areas"]), number(waiting["pages"])
            if not nr_areas:
                continue
            verb, them = ("waits", "it") if nr_areas == 1 else ("wait", "them")
            what = f"{owner}: {nr_areas} area{'s' if nr_areas > 1 else ''} of {pages} pages {verb} for a flush"
            print(f"{what}: a TLB may still hold translations of {them}")
            for segment in subsystem.chain(waiting["areas"]):
                print(f"  {segment.show()}, freed by {segment.freer}")
                listed.add(segment.start)
            self._pending(waiting["pending"])
        if not listed:
            print("nothing waits for a flush")
        areas, addresses = subsystem.deferred()
        if areas or addresses:
            print("freed on another CPU, or where nothing could be waited for, and still mapped:")
        for segment in areas:
            print(f"  {segment.show()}, freed by {segment.freer}")
            listed.add(segment.start)
        for va, by in addresses:
            print(f"  what is at {va:#018x}, by {location(by)}")
        segments = subsystem.segments()
        for segment in segments:
            if segment.state == "Retired" and segment.start not in listed:
                print("an area is being freed now: its flush is not done, or its frames and addresses are not back yet")
                print(f"  {segment.show()}, freed by {segment.freer}")
        parked = [segment for segment in segments if segment.state == "Parked"]
        pages = sum(segment.pages for segment in parked)
        if parked:
            print(f"{pages} pages of addresses are flushed, and kept for the next area of the same size:")
        for segment in parked:
            print(f"  {segment.start << page_shift():#018x} {show_size(segment.pages << page_shift()):>6} guards included")

    @staticmethod
    def _pending(pending: "gdb.Value") -> None:
        ranges = pending["ranges"]
        packed = gdb.lookup_type("paging::flush::pending::Packed")
        for i in range(number(ranges["len"])):
            entry = gdb.Value(int(ranges["xs"].address) + i * packed.sizeof).cast(packed.pointer()).dereference()
            start, size = number(entry["start"]), number(entry["size"])
            # paging::flush::Packed: log2 of the stride, and links, in the low bits of the size.
            level = 3 - ((size & 0x3F) - page_shift()) // (page_shift() - 3)
            links = ", and links: walk caches too" if size & 0x40 else ""
            print(f"  to invalidate: {start:#018x}+{show_size(size & ~0x7F)} by level {level} descriptors{links}")
        dead = number(pending["nr_dead"])
        if dead:
            print(f"  {dead} dead tables: a walk cache may still lead to them")
        if number(pending["published"]):
            print("  stores that other CPUs have yet to see")


def register_all() -> None:
    for command in (Areas, Lazy):
        command()
    printers.BY_PREFIX["vmalloc::va::area::Area<"] = show_area
    printers.BY_PREFIX["vmalloc::area::VmArea<"] = show_handle
    printers.PRINTERS["vmalloc::record::AreaInfo"] = show_info
