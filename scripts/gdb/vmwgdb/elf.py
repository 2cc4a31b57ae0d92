"""Functions of an ELF file by name. Knows nothing of gdb.

gdb finds a generic function only by its full name with all type arguments, and lists no addresses; the symbol table has both
for every instance.
"""

import re
import struct
from collections.abc import Iterator
from pathlib import Path

from .rust_v0 import plain_path

PT_LOAD = 1
SHT_SYMTAB = 2
STT_FUNC = 2
ESCAPES = {
    **{"$LT$": "<", "$GT$": ">", "$LP$": "(", "$RP$": ")", "$C$": ",", "$RF$": "&", "$BP$": "*"},
    **{"$u20$": " ", "$u27$": "'", "$u5b$": "[", "$u5d$": "]", "$u7b$": "{", "$u7d$": "}"},
}
"""Of legacy Rust mangling."""


def first_segment(path: Path) -> tuple[int, bytes]:
    """The address and the bytes of the lowest loadable segment."""
    data = path.read_bytes()
    (phoff,) = struct.unpack_from("<Q", data, 32)
    phentsize, phnum = struct.unpack_from("<HH", data, 54)
    headers = [struct.unpack_from("<IIQQQQ", data, phoff + i * phentsize) for i in range(phnum)]
    loaded = [(vaddr, data[offset : offset + size]) for kind, _, offset, vaddr, _, size in headers if kind == PT_LOAD and size]
    return min(loaded)


def functions(path: Path) -> Iterator[tuple[str, int]]:
    """Mangled name and address of each function in the symbol table."""
    data = path.read_bytes()
    if data[:6] != b"\x7fELF\x02\x01":
        raise ValueError(f"{path} is no little-endian 64-bit ELF file")
    (shoff,) = struct.unpack_from("<Q", data, 40)
    shentsize, shnum = struct.unpack_from("<HH", data, 58)
    headers = [struct.unpack_from("<IIQQQQIIQQ", data, shoff + i * shentsize) for i in range(shnum)]
    for _, kind, _, _, offset, size, link, _, _, entsize in headers:
        if kind != SHT_SYMTAB:
            continue
        names = headers[link][4]
        for at in range(offset, offset + size, entsize):
            name, info, _, _, value, _ = struct.unpack_from("<IBBHQQ", data, at)
            if info & 0xF == STT_FUNC:
                end = data.index(b"\0", names + name)
                yield data[names + name : end].decode(), value


def without_generics(name: str) -> str:
    """`a::T<B, C<D>>::f<E>`, `m::<impl a::T<B>>::f` and `<a::T<B> as c::Trait>::f` as `a::T::f`; a legacy hash goes too."""
    rest = re.sub(r"::h[0-9a-f]{16}$", "", name).replace("->", "")
    plain = ""
    while "<" in rest:
        before, rest = rest.split("<", 1)
        inner, rest = split_bracket(rest)
        plain += before
        if not plain or plain.endswith("::"):
            if not plain and " as " not in inner:
                plain = without_generics(inner)
            elif inner.startswith("impl "):
                plain = without_generics(inner.removeprefix("impl ").rsplit(" for ", 1)[-1])
            elif " as " in inner:
                plain = without_generics(inner.split(" as ", 1)[0])
            else:
                plain = plain.removesuffix("::")
    return plain + rest


def split_bracket(text: str) -> tuple[str, str]:
    """What comes before the bracket that closes the one just opened, and what comes after it."""
    depth = 1
    for i, character in enumerate(text):
        depth += {"<": 1, ">": -1}.get(character, 0)
        if depth == 0:
            return text[:i], text[i + 1 :]
    return text, ""


def demangle_legacy(name: str) -> str:
    """A legacy Rust name (`_ZN..E`) in plain; any other as it is. Type arguments in it are left out."""
    if not name.startswith("_ZN"):
        return name
    parts, at = [], 3
    while match := re.compile(r"\d+").match(name, at):
        start = match.end()
        at = start + int(match[0])
        parts.append(name[start:at])
    text = "::".join(parts)
    for code, character in ESCAPES.items():
        text = text.replace(code, character)
    return re.sub(r"(^|::)_(?=<)", r"\1", text).replace("..", "::")


def plain_name(mangled: str) -> str:
    """The path that a symbol names, type arguments left out, in either mangling."""
    return plain_path(mangled) if mangled.startswith("_R") else without_generics(demangle_legacy(mangled))


def matching(path: Path, function: str) -> dict[int, str]:
    """Address and plain name of every instance of `function`, which may leave out leading path and type arguments."""
    last = function.rsplit("::", 1)[-1]
    found = {}
    for mangled, address in functions(path):
        if last in mangled:
            plain = plain_name(mangled)
            if plain == function or plain.endswith("::" + function):
                found[address] = plain
    return found
