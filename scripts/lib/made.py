"""Blocks of README and docs that a kernel prints, or that are figures: made anew, and compared.

A block is what follows a marker, `<!-- made by: KIND [NAME=VALUE...] -->`: a fenced text, or a
table. Of a session, the lines behind the prompt are what is typed; `goes-on` continues the session of the
block before. What differs from one build or boot to the next is masked when blocks are compared.
"""

import re
import shlex
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from .errors import Malformed

MARKER = re.compile(r"^<!-- made by: (.*) -->$")
FENCE = "```"
PROMPTS = {"gdb": "(gdb) ", "linux": "(gdb) ", "shell": "vmwalk> "}
"""Kinds that are sessions, and what stands before that which is typed."""
HEAD, TAIL = 12, 12
"""Of a longer answer in a session so many lines are shown, and how many are not."""
FEW = 8
"""So many more are shown: a few runs of leaves more or less, as images differ, move no line that says what was left out."""


@dataclass
class Block:
    """A block of a page: how it is made, and its lines without the fences."""

    kind: str
    settings: dict[str, str]
    lines: list[str]
    first: int
    """Where its lines begin in the page, counted from 0."""
    goes_on: bool = False

    @property
    def typed(self) -> list[str]:
        prompt = PROMPTS[self.kind]
        return [line.removeprefix(prompt) for line in self.lines if line.startswith(prompt)]


@dataclass
class Session:
    """Blocks that are made together, since each begins where the one before has ended."""

    blocks: list[Block] = field(default_factory=list)

    @property
    def typed(self) -> list[str]:
        return [line for block in self.blocks for line in block.typed]


def blocks(page: str, text: str) -> Iterator[Block]:
    """The blocks of a page. Raises Malformed where a marker has none behind it."""
    lines = text.split("\n")
    for number, line in enumerate(lines):
        if not (marker := MARKER.match(line)):
            continue
        kind, *words = shlex.split(marker[1])
        goes_on = "goes-on" in words
        settings = dict(word.partition("=")[::2] for word in words if word != "goes-on")
        first = number + 1
        fenced = first < len(lines) and lines[first].startswith(FENCE)
        if fenced:
            first += 1
        end = first
        while end < len(lines) and (lines[end] != FENCE if fenced else lines[end].startswith("|")):
            end += 1
        if end == len(lines) and fenced or end == first and not fenced:
            raise Malformed(f"{page}:{number + 1}: no block follows the marker")
        yield Block(kind, settings, lines[first:end], first, goes_on)


def sessions(found: list[Block]) -> Iterator[Session]:
    """The blocks, each with those that continue it."""
    session = Session()
    for block in found:
        if not block.goes_on and session.blocks:
            yield session
            session = Session()
        session.blocks.append(block)
    if session.blocks:
        yield session


def replace(text: str, found: list[Block], made: list[list[str]]) -> str:
    """The page with other lines in its blocks."""
    lines = text.split("\n")
    for block, new in reversed(list(zip(found, made, strict=True))):
        lines[block.first : block.first + len(block.lines)] = new
    return "\n".join(lines)


def answered(session: Session, answers: list[str]) -> list[list[str]]:
    """The lines of each block of a session: what is typed, and what came of it."""
    remaining = iter(answers)
    made = []
    for block in session.blocks:
        prompt = PROMPTS[block.kind]
        # The command that begins it stays as it is.
        lines = [line for line in block.lines if line.startswith("$ ")]
        for typed in block.typed:
            lines.append(prompt + typed)
            lines += shortened(next(remaining).rstrip("\n").split("\n"))
        made.append([line.rstrip() for line in lines if line or lines])
    return made


def shortened(lines: list[str]) -> list[str]:
    """The first and the last lines of many."""
    lines = [line for line in lines if line.strip()]
    if len(lines) <= HEAD + TAIL + FEW:
        return lines
    return [*lines[:HEAD], f"... {len(lines) - HEAD - TAIL} lines ...", *lines[-TAIL:]]


# ---- what may differ --------------------------------------------------------------------------

MASKS: list[tuple[re.Pattern[str], str]] = [
    (re.compile(pattern), by)
    for pattern, by in (
        # Image and linear map: which leaves there are depends on how large the image is.
        (r"^0xffff(?:ffff|0000)\w+-\w+ 0x\w+ +\S+ L\d \S+ +[C-] (\S+ \S+.*)$", r"RUN \1"),
        (r"0x[0-9a-f]{3,}(\.\.)?", "ADDRESS"),
        (r"(\.rs(?::|, line ))\d+(:\d+)?", r"\1LINE"),
        (r"^\d+\t.*", "SOURCE"),
        (r"^Breakpoint \S+ .*", "BREAKPOINT"),
        (r"^  \. .*|^\.\.\. \d+ lines \.\.\.$", "PASSED"),
        (r"^\d+ runs$", "NUMBER runs"),
        (r"^(total \w+): .*", r"\1: LEAVES"),
        (r"\bpages: \d+", "pages: NUMBER"),
        (r"\b\d+ stores\b", "NUMBER stores"),
        (r"\b[\d.]+ s\b", "SECONDS"),
        (r"\[ *\d+(\.\.\d+)?\]", "[INDEX]"),
        (r"\b\d+ in use", "NUMBER in use"),
        (r"^( +not \d+[KMG] ) .*", r"\1 REASONS"),
    )
]
COUNTS = re.compile(r"\d[\d,.]*[KMG]?(?:iB)?|\b\d+x\d+[KMG]( \d+x\d+[KMG])*")
COUNTED = re.compile(r"^(vmwalk: .*(RAM|linear|image |text |rodata |data|stack|frames|fixed|vmalloc |entered|ioremap)|(frames|vmalloc|heap|tree|space) +\w)")
"""Lines of a boot and of `stat` whose numbers depend on the size of the image, and on how much memory there is."""
RUN = re.compile(r"^ADDRESS-ADDRESS +ADDRESS +\S+ (L\d \S+ +[C-] \S+ \S+.*)$")
"""A run of leaves: how long it is depends on where the image ends."""


def masked(kind: str, lines: list[str]) -> list[str]:
    """The lines without that which may differ from boot to boot."""
    found: list[str] = []
    for line in lines:
        line = line.rstrip()
        for pattern, by in MASKS:
            line = pattern.sub(by, line)
        if COUNTED.match(line) or kind == "replay":
            line = re.sub(" +", " ", COUNTS.sub("NUMBER", line))
        line = RUN.sub(r"ADDRESS-ADDRESS ADDRESS SIZE \1", line)
        # However many of the same kind there are.
        if not (found and found[-1] == line and MANY.match(line)):
            found.append(line)
    return found


MANY = re.compile("RUN |ADDRESS-ADDRESS ADDRESS SIZE |PASSED$")
"""Masked lines that stand for any number of their like: runs of leaves, and events that gdb passes on the way to one."""


def difference(page: str, block: Block, made: list[str]) -> str | None:
    """Where a block is not what is made, the masked apart; None where it is."""
    exact = block.kind in EXACT
    old, new = (block.lines, made) if exact else (masked(block.kind, block.lines), masked(block.kind, made))
    for place, (was, is_now) in enumerate(zip(old, new, strict=False)):
        if was != is_now:
            return f"{page}:{block.first + 1}: line {place + 1} of the block is {was!r}, and what is made is {is_now!r}"
    if len(old) != len(new):
        return f"{page}:{block.first + 1}: the block has {len(old)} lines, and what is made {len(new)}"
    return None


EXACT = frozenset({"figures", "quote"})
"""Kinds that are made of committed files, with nothing to mask."""


def quoted(source: list[str], first: str, behind: str) -> list[str]:
    """The lines from the one that contains `first` to before the next that is `behind`, without their indentation. Raises Malformed if there are none."""
    begins = [number for number, line in enumerate(source) if first in line]
    if len(begins) != 1:
        raise Malformed(f"{len(begins)} lines have {first!r}")
    ends = [number for number, line in enumerate(source) if line.strip() == behind and number > begins[0]]
    if not ends:
        raise Malformed(f"no line behind {first!r} is {behind!r}")
    return textwrap.dedent("\n".join(source[begins[0] : ends[0]])).split("\n")

Maker = Callable[[Session], list[list[str]]]


def remake(page: str, text: str, makers: dict[str, Maker]) -> tuple[str, list[str]]:
    """The page with its blocks made anew, and what was different. Kinds without a maker stay as they are."""
    found = list(blocks(page, text))
    made: list[list[str]] = []
    wrong = []
    for session in sessions(found):
        kind = session.blocks[0].kind
        new = makers[kind](session) if kind in makers else [block.lines for block in session.blocks]
        made += new
        wrong += [said for block, lines in zip(session.blocks, new, strict=True) if (said := difference(page, block, lines))]
    return replace(text, found, made), wrong
