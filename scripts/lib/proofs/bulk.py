"""Bulk operations on tables: exactly the descriptors asked for, each by an access that is single-copy atomic.

B2.2.1 of the Arm ARM: an aligned STR, LDR, STP or LDP of X registers accesses 64 bits at a time, and so do LD1
and ST1 of 64-bit elements. Which instruction made an access is looked up; nothing else is taken.
"""

from collections.abc import Callable, Iterator
from typing import Any

import claripy

from .arm import bv
from .claim import Case, Claim, Mutant, Obligation
from .images import Images
from .machine import Access, Image, Path, Region

TABLE = 512
"""Descriptors in a table of 4K pages."""
NOP = 0xD503_201F
KINDS = 0x00FF_0000_0000_00FF
"""Bits 7:0 and 55:48: type, memory type and permissions; contiguous bit and the like."""


def variable(name: str) -> Any:
    return claripy.BVS(name, 64, explicit_name=True)


def by_words(image: Image, access: Access) -> bool:
    """Whether its instruction accesses aligned 64-bit words, each single-copy atomic."""
    (word,) = image.words_at(access.instruction, 1)
    pair = word & 0xFE00_0000 == 0xA800_0000  # LDP and STP of X registers
    single = word & 0xFF20_0000 in (0xF900_0000, 0xF920_0000) or word & 0xFF00_0000 in (0xF800_0000, 0xF900_0000)
    ordered = word & 0xFFE0_0000 in (0xC8C0_0000, 0xC880_0000)  # LDAR, STLR
    vector = word & 0xBF20_0C00 == 0x0C00_0C00  # LD1 to LD4 and ST1 to ST4 of 64-bit elements
    return access.offset % 8 == 0 and (access.size == 8 and (pair or single or ordered) or access.size in (8, 16) and vector)


def words_of(image: Image, accesses: list[Access]) -> tuple[list[int], bool]:
    """The indexes of the words accessed, in order; and whether each was by itself."""
    indexes = [access.offset // 8 + i for access in accesses for i in range(access.size // 8)]
    return indexes, all(by_words(image, access) for access in accesses)


def stored(images: Images, path: Path, table: Region, nr: Any, value: Callable[[int], Any], frames: Region | None = None) -> Case:
    """A path that stores `value(i)` to each of `nr` descriptors, once, and reads no other memory than `frames`."""
    indexes, atomic = words_of(images.shim, path.stores(table))
    count = len(indexes)
    claims = {
        "no panic": claripy.BoolV(not path.panicked),
        "as many as asked for": nr == count,
        "each of them once, and no other": claripy.BoolV(sorted(indexes) == list(range(count))),
        "by single-copy atomic stores": claripy.BoolV(atomic),
        "no descriptor is read": claripy.BoolV(not path.loads(table)),
        "interrupts are as they were": path.state.globals["daif"] == claripy.BVS("daif", 64, explicit_name=True),
    }
    if frames is not None:
        claims["each frame is read once"] = claripy.BoolV(sorted(words_of(images.shim, path.loads(frames))[0]) == list(range(count)))
    claims["the right values"] = claripy.And(*(word == value(i) for i, word in enumerate(path.words(table, count))), claripy.true())
    return Case(path.condition, claims)


def linear(images: Images, name: str, most: int) -> Iterator[Obligation]:
    table, nr, first, step = Region("table", 8 * TABLE), variable("nr"), variable("first"), variable("step")
    given = [claripy.ULE(nr, most)]
    paths = images.shim.run(images.shim.one(f"^{name}$"), [table, nr, first, step], given, [table])
    # Twice the step as the code has it; that it is twice the step is asked by itself.
    twice = step << 1
    yield Obligation(given, [Case([], {"twice the step": twice == step + step})])
    yield Obligation(given + table.within(), (stored(images, path, table, nr, lambda i: first + (step if i % 2 else bv(0)) + twice * (i // 2)) for path in paths))


def cleared(images: Images, name: str, most: int) -> Iterator[Obligation]:
    table, nr = Region("table", 8 * TABLE), variable("nr")
    given = [claripy.ULE(nr, most)]
    paths = images.shim.run(images.shim.one(f"^{name}$"), [table, nr], given, [table])
    yield Obligation(given + table.within(), (stored(images, path, table, nr, lambda i: bv(0)) for path in paths))


def framed(images: Images, name: str, most: int) -> Iterator[Obligation]:
    numbers = [variable(f"frame{i}") for i in range(most)]
    table, frames = Region("table", 8 * TABLE), Region("frames", 8 * TABLE, words=numbers)
    nr, template = variable("nr"), variable("template")
    given = [claripy.ULE(nr, most)]
    paths = images.shim.run(images.shim.one(f"^{name}$"), [table, nr, frames, template], given, [table, frames])
    cases = (stored(images, path, table, nr, lambda i: numbers[i] << 12 | template, frames) for path in paths)
    yield Obligation(given + table.within() + frames.within(), cases)


def blocks(images: Images, name: str, most: int) -> Iterator[Obligation]:
    """Blocks of 16 consecutive frames: those before the first that is none are stored, and nothing else."""
    numbers = [variable(f"frame{i}") for i in range(most)]
    table, frames = Region("table", 8 * TABLE), Region("frames", 8 * TABLE, words=numbers)
    nr, mask, template = variable("nr"), variable("mask"), variable("template")
    # A head is aligned to the block, and the template has no address.
    given = [claripy.ULE(nr, most), mask & 15 == 15, template & 0xF000 == 0]
    paths = images.shim.run(images.shim.one(f"^{name}$"), [table, nr, frames, mask, template], given, [table, frames])
    is_block = [
        claripy.And(numbers[at] & mask == 0, *(numbers[at + i] == numbers[at] + i for i in range(1, 16)))
        for at in range(0, most - 15, 16)
    ]

    def of(path: Path) -> Case:
        indexes, atomic = words_of(images.shim, path.stores(table))
        looked_at, _ = words_of(images.shim, path.loads(frames))
        count = len(indexes)
        following = is_block[count // 16] if count // 16 < len(is_block) else claripy.false()
        claims = {
            "no panic": claripy.BoolV(not path.panicked),
            "whole blocks, from the first on, each once": claripy.BoolV(count % 16 == 0 and sorted(indexes) == list(range(count))),
            "as many as it says, of those there are": claripy.And(path.x(0) == count, claripy.ULE(count, nr)),
            "by single-copy atomic stores": claripy.BoolV(atomic),
            "no descriptor is read": claripy.BoolV(not path.loads(table)),
            "no frame beyond them is read": claripy.And(*(claripy.UGT(nr, i) for i in set(looked_at)), claripy.true()),
            "each frame is read once": claripy.BoolV(len(looked_at) == len(set(looked_at))),
            "interrupts are as they were": path.state.globals["daif"] == claripy.BVS("daif", 64, explicit_name=True),
            "each is a block": claripy.And(*is_block[: count // 16], claripy.true()),
            "the next one is none": claripy.Or(claripy.ULT(nr, count + 16), claripy.Not(following)),
            "the right values": claripy.And(*(word == numbers[i] << 12 | template for i, word in enumerate(path.words(table, count))), claripy.true()),
        }
        return Case(path.condition, claims)

    yield Obligation(given + table.within() + frames.within(), map(of, paths))


def read(images: Images, name: str, most: int, expected: Callable[[list[Any]], dict[str, Any]], result: Callable[[Path, Region], dict[str, Any]]) -> Iterator[Obligation]:
    """A function that reads `nr` words, each once, and writes none; what it returns is as `expected` has it of them."""
    values = [variable(f"word{i}") for i in range(most)]
    table, out, nr = Region("table", 8 * TABLE, words=values), Region("out", 16), variable("nr")
    given = [claripy.ULE(nr, most)]
    paths = images.shim.run(images.shim.one(f"^{name}$"), [table, nr, out], given, [table, out])

    def of(path: Path) -> Case:
        indexes, atomic = words_of(images.shim, path.loads(table))
        said, right = result(path, out), expected(values[: len(indexes)])
        claims = {
            "no panic": claripy.BoolV(not path.panicked),
            "as many as asked for": nr == len(indexes),
            "each of them once, and no other": claripy.BoolV(sorted(indexes) == list(range(len(indexes)))),
            "by single-copy atomic loads": claripy.BoolV(atomic),
            "nothing is written": claripy.BoolV(not path.stores(table)),
            "interrupts are as they were": path.state.globals["daif"] == claripy.BVS("daif", 64, explicit_name=True),
        }
        return Case(path.condition, claims | {says: said[says] == right[says] for says in right})

    yield Obligation(given + table.within() + out.within(), map(of, paths))


def or_of(values: list[Any]) -> Any:
    result = bv(0)
    for value in values:
        result = result | value
    return result


def and_of(values: list[Any]) -> Any:
    result = bv(2**64 - 1)
    for value in values:
        result = result & value
    return result


def reads(images: Images, most: int) -> Iterator[Obligation]:
    yield from read(
        images,
        "shim_kinds",
        most,
        lambda values: {"AND of the kinds": and_of(values) & KINDS, "OR of the kinds": or_of(values) & KINDS},
        lambda path, out: {"AND of the kinds": path.load(out, 0, 8) & KINDS, "OR of the kinds": path.load(out, 8, 8) & KINDS},
    )
    vacant = "vacant if no bit of the kinds is set"
    yield from read(
        images,
        "shim_are_vacant",
        most,
        lambda values: {vacant: claripy.If(or_of(values) & KINDS == 0, claripy.BVV(1, 8), claripy.BVV(0, 8))},
        lambda path, _out: {vacant: path.x(0)[7:0]},
    )
    yield from read(images, "shim_or_of", most, lambda values: {"the OR": or_of(values)}, lambda path, _out: {"the OR": path.x(0)})


def zeroed(images: Images, name: str) -> Iterator[Obligation]:
    """A table by DC ZVA: with every block size that DCZID_EL0 can say, as many blocks as a table has, each in it."""
    table = Region("table", 8 * TABLE)

    def by(size: int) -> Obligation:
        given = [claripy.BVS("unused", 64, explicit_name=True) == 0, table.base & 4095 == 0]
        paths = images.shim.run(images.shim.one(f"^{name}$"), [table, size], given, [table])

        def of(path: Path) -> Case:
            operands = [s.operand - table.base for s in path.system if s.kind == "DC ZVA"]
            claims = {"no panic": claripy.BoolV(not path.panicked), "nothing else is written": claripy.BoolV(bool(operands) or sorted(words_of(images.shim, path.stores(table))[0]) == list(range(TABLE)))}
            if operands:
                claims["each block once"] = claripy.And(claripy.BoolV(len(operands) == 4096 // size and not path.stores(table)), *(operand == i * size for i, operand in enumerate(operands)))
            else:
                claims["all of it, with 0"] = claripy.And(*(path.load(table, 8 * i, 8) == 0 for i in range(TABLE)))
            return Case(path.condition, claims)

        return Obligation(given + table.within(), map(of, paths))

    yield from (by(1 << bit) for bit in range(4, 12))


def planted(images: Images, pick: Callable[[int], bool], tried: dict[str, Callable[[], Iterator[Obligation]]], every: int) -> Iterator[Mutant]:
    """Machine code of these functions without one of the instructions that `pick` takes."""

    def without(address: int, obligations: Callable[[], Iterator[Obligation]]) -> Iterator[Obligation]:
        with images.shim.patched(address, NOP):
            yield from obligations()

    for name, obligations in tried.items():
        function = images.shim.one(f"^{name}$")
        places = [address for address, word in images.shim.code(function) if pick(word)]
        for address in places[::every]:
            yield Mutant(f"no access at +{address - function.address:#x} of {name}", lambda a=address, o=obligations: without(a, o))


def consecutive(images: Images, name: str, most: int) -> Iterator[Obligation]:
    """How many words are `first`, `first + 1` and so on: that many are, and the next is not, or there is none."""
    values = [variable(f"word{i}") for i in range(most)]
    table, nr, first = Region("table", 8 * TABLE, words=values), variable("nr"), variable("first")
    given = [claripy.ULE(nr, most)]
    paths = images.shim.run(images.shim.one(f"^{name}$"), [table, nr, first], given, [table])

    def of(path: Path) -> Case:
        indexes, _ = words_of(images.shim, path.loads(table))
        said = path.x(0)
        claims = {
            "no panic": claripy.BoolV(not path.panicked),
            "nothing is written": claripy.BoolV(not path.stores(table)),
            "no word beyond them is read": claripy.And(*(claripy.UGT(nr, i) for i in set(indexes)), claripy.true()),
            "no more than there are": claripy.ULE(said, nr),
            "all of them follow": claripy.And(*(claripy.Or(claripy.ULE(said, i), values[i] == first + i) for i in range(most))),
            "the next one does not": claripy.And(*(claripy.Or(said != i, nr == i, values[i] != first + i) for i in range(most)), claripy.true()),
            "interrupts are as they were": path.state.globals["daif"] == claripy.BVS("daif", 64, explicit_name=True),
        }
        return Case(path.condition, claims)

    yield Obligation(given + table.within(), map(of, paths))


def is_store(word: int) -> bool:
    pair = word & 0xFE40_0000 == 0xA800_0000 and word >> 5 & 31 != 31
    return pair or word & 0xFFC0_0000 == 0xF900_0000 and word >> 5 & 31 != 31 or word & 0xBF60_0C00 == 0x0C00_0C00


def is_load(word: int) -> bool:
    return word & 0xBF60_0C00 == 0x0C40_0C00


def claims(images: Images) -> Iterator[Claim]:
    most, looked_at, every = 70, 40, 4

    def writes() -> Iterator[Obligation]:
        yield from linear(images, "shim_fill_linear", most)
        yield from cleared(images, "shim_clear", most)
        yield from framed(images, "shim_fill_frames", most)
        yield from blocks(images, "shim_fill_blocks", looked_at)
        yield from zeroed(images, "shim_zero_table")

    def unwritten() -> Iterator[Mutant]:
        tried = {
            "shim_fill_linear": lambda: linear(images, "shim_fill_linear", 35),
            "shim_clear": lambda: cleared(images, "shim_clear", 35),
            "shim_fill_frames": lambda: framed(images, "shim_fill_frames", 19),
            "shim_fill_blocks": lambda: blocks(images, "shim_fill_blocks", 34),
        }
        return planted(images, is_store, tried, every)

    def unread() -> Iterator[Mutant]:
        return planted(images, is_load, {name: lambda: reads(images, 37) for name in ("shim_kinds", "shim_are_vacant", "shim_or_of")}, every)

    yield Claim(
        "bulk stores",
        f"exactly the descriptors asked for, each once, by single-copy atomic 64-bit stores, any alignment to 8, up to {most} of them",
        writes,
        unwritten,
    )
    yield Claim(
        "bulk loads",
        f"exactly the descriptors asked for, each once, what kinds they are, whether they are vacant, up to {looked_at} of them",
        lambda: reads(images, looked_at),
        unread,
    )

    def shorter() -> Iterator[Mutant]:
        return planted(images, is_load, {"shim_nr_consecutive": lambda: consecutive(images, "shim_nr_consecutive", 18)}, 1)

    yield Claim(
        "runs in arrays",
        "the run is exact, for any frame numbers, up to 20 of them, and none beyond them is read",
        lambda: consecutive(images, "shim_nr_consecutive", 20),
        shorter,
    )
