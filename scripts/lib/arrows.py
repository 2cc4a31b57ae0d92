"""Which module of a crate names which: read from its source, so that the direction of the arrows can be held."""

import re
from collections.abc import Iterator
from pathlib import Path

PATH = re.compile(r"\b(crate|(?:super::)*super)((?:::\w+)*)(::\{)?")
COMMENT = re.compile(r"//.*")
IMPL = re.compile(r"\bimpl\b(?:<[^{;]*?>)? (\w+)(?:<[^{;]*?>)? \{")
METHOD = re.compile(r"\b(?:fn|const) (?!fn\b|unsafe\b)(\w+)")

Arrows = dict[tuple[str, str], set[str]]
"""From a module to one that it names: the files in which it does."""


def without_comments(text: str) -> str:
    return "\n".join(COMMENT.sub("", line) for line in text.splitlines())


def module_of(file: Path) -> tuple[str, ...]:
    """The module path of a source file, relative to the folder that has the crate's or a module's root."""
    parts = file.with_suffix("").parts
    return parts[:-1] if parts[-1] in ("mod", "lib") else parts


def named_in(text: str) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Each path of the crate in a source: what it begins with, and the names behind it."""
    code = without_comments(text)
    for match in PATH.finditer(code):
        path = tuple(match[2].split("::")[1:])
        if not match[3]:
            yield match[1], path
            continue
        depth, name = 1, ""
        for character in code[match.end() :]:
            depth += {"{": 1, "}": -1}.get(character, 0)
            if depth == 0 or depth == 1 and character == ",":
                if name.strip():
                    yield match[1], (*path, *re.findall(r"\w+", name)[:3])
                name = ""
            elif depth == 1 and character != "}":
                name += character
            if depth == 0:
                break


def modules(sources: dict[Path, str], inside: tuple[str, ...] = ()) -> set[str]:
    """The modules directly in `inside`, the path of a module or () for the crate's root."""
    depth = len(inside)
    paths = (module_of(file) for file in sources)
    return {path[depth] for path in paths if path[:depth] == inside and len(path) > depth}


def arrows(sources: dict[Path, str], inside: tuple[str, ...] = (), known_as: dict[str, str] | None = None) -> Arrows:
    """The arrows between the modules directly in `inside`.

    `known_as` has the module of a name that the crate's root, or a macro, gives to something.
    """
    depth = len(inside)
    files = {file: module_of(file) for file in sources}
    names = modules(sources, inside)
    found: Arrows = {}
    for file, path in files.items():
        if path[:depth] != inside or len(path) <= depth:
            continue
        here = path[depth]
        for start, behind in named_in(sources[file]):
            if start == "crate":
                base: tuple[str, ...] = ()
            else:
                base = path[: len(path) - start.count("super")]
            target = (*base, *behind)
            if depth == 0 and len(target) == 1:
                there = (known_as or {}).get(target[0], target[0])
            elif target[:depth] == inside and len(target) > depth:
                there = target[depth]
            else:
                continue
            if there in names and there != here:
                found.setdefault((here, there), set()).add(str(file))
    return found


def impls(code: str) -> Iterator[tuple[str, str]]:
    """Each type with methods of its own in a source, and the text of one block of these."""
    for match in IMPL.finditer(code):
        depth, end = 1, match.end()
        while depth and end < len(code):
            depth += {"{": 1, "}": -1}.get(code[end], 0)
            end += 1
        yield match[1], code[match.end() : end]


def calls(sources: dict[Path, str], receivers: dict[str, str]) -> Arrows:
    """The arrows between the crate's modules that call methods of one type, or use its constants, by `self` or `Self`.

    `receivers` has the type of what else methods are called on, as it is written.
    """
    codes = {file: without_comments(text) for file, text in sources.items()}
    blocks = [(file, of, block) for file, code in codes.items() for of, block in impls(code)]
    homes: dict[tuple[str, str], set[str]] = {}
    for file, of, block in blocks:
        for name in METHOD.findall(block):
            homes.setdefault((of, name), set()).add(module_of(file)[0])
    used = [(file, of, name) for file, of, block in blocks for name in re.findall(r"\bself\s*\.\s*(\w+)\(|\bSelf::(\w+)", block) for name in name if name]
    for receiver, of in receivers.items():
        pattern = re.compile(rf"(?<!\w){re.escape(receiver)}\s*\.\s*(\w+)\(")
        used += [(file, of, name) for file, code in codes.items() for name in pattern.findall(code)]
    found: Arrows = {}
    for file, of, name in used:
        here = module_of(file)[0]
        for there in homes.get((of, name), {here}) - {here}:
            found.setdefault((here, there), set()).add(f"{file}: {name}")
    return found


def against(order: list[str], found: Arrows) -> dict[tuple[str, str], set[str]]:
    """Those arrows that do not go from a module to one before it in `order`."""
    place = {name: number for number, name in enumerate(order)}
    return {arrow: files for arrow, files in found.items() if not place.get(arrow[1], len(place)) < place.get(arrow[0], -1)}


def crate(folder: Path) -> dict[Path, str]:
    """The source files of a crate, by their path in its `src`."""
    return {file.relative_to(folder): file.read_text() for file in sorted(folder.rglob("*.rs"))}
