"""What the pages of docs/ say of the tree: links, names, rules, locks.

A name in backticks that directly follows a link, as in [map.rs](kernel/paging/src/map.rs) `map`,
has to be defined in that file. So has a link whose own text is a name in backticks.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from .matrix import PLANTED_FAULTS
from .paths import ROOT

SOURCES = (".rs", ".py", ".s", ".c", ".md")

REFERENCE = re.compile(r"\[(?P<text>[^\]]*)\]\((?P<path>[^)#\s]*)(?P<anchor>#[^)]*)?\)(?P<names>(?:,?(?: and)? `[^`\n]+`)*)")

RULE = re.compile(r"\brules?\s+(\d+(?:(?:\s*,\s*|\s+to\s+|,?\s+and\s+)\d+)*)", re.IGNORECASE)

MARK = re.compile(r"^\s*(?://[/!]?|#|\*)?\s?")
"""What begins a line of a comment."""


@dataclass(frozen=True)
class Reference:
    """A link to a file, and the names that are said to be in it."""

    path: str
    anchor: str
    names: tuple[str, ...]


def references(text: str) -> Iterator[Reference]:
    """The links of a page to files of the tree."""
    for found in REFERENCE.finditer(text):
        if "://" not in found["path"]:
            own = re.fullmatch(r"`([\w:.]+)`", found["text"])
            names = (own[1],) if own and not is_path(own[1]) else ()
            yield Reference(found["path"], found["anchor"] or "", names + tuple(re.findall(r"`([^`]+)`", found["names"])))


def is_path(text: str) -> bool:
    return bool(re.search(r"\.(?:rs|py|md|s|sh|json|csv|txt|c|ld)$|/", text))


@cache
def text_of(path: Path) -> str:
    return path.read_text(errors="replace")


def defines(path: Path, name: str) -> bool:
    """Whether `name` is defined in the file: an item, a variant, a self-test, a make target, a Python name."""
    last = re.escape(name.rpartition("::")[2].removesuffix("()").removesuffix("!"))
    items = rf"\b(?:fn|struct|enum|trait|const|static|type|mod|union|macro_rules!|def|class)\s+{last}\b"
    others = (rf"^\s*{last}(?:\s*[,({{=]|$)", rf"^{last}\s*(?:\??=|:)", rf'"{re.escape(name)}"')
    text = text_of(path)
    return any(re.search(pattern, text, re.MULTILINE) for pattern in (items, *others))


def is_test(path: Path, name: str) -> bool:
    """Whether `name` is run as a test: in Rust, on the host or the machine; or in Python."""
    text = text_of(path)
    if "." in name:
        return f'"{name}" =>' in text
    if path.suffix == ".py":
        return bool(re.search(rf"^    def {name}\(self", text, re.MULTILINE)) and name.startswith("test_")
    plain = rf"#\[test\]\s*(?:#\[[^\]]*\]\s*)*fn {name}\("
    of_every_granule = rf"^    fn {name}<G>\(\) \{{"
    return bool(re.search(rf"{plain}|{of_every_granule}", text, re.MULTILINE))


def broken_references(page: Path, text: str | None = None) -> list[str]:
    """What the page's links say that is not so."""
    wrong = []
    for reference in references(text if text is not None else page.read_text()):
        target = (page.parent / reference.path).resolve() if reference.path else page
        if not target.exists():
            wrong.append(f"{page.name}: there is no {reference.path}")
        elif target.is_file():
            wrong += [f"{page.name}: {reference.path} has no `{name}`" for name in reference.names if not defines(target, name)]
            if reference.anchor and target.suffix == ".md" and reference.anchor[1:] not in anchors(text if target == page and text else text_of(target)):
                wrong.append(f"{page.name}: {reference.path} has no heading {reference.anchor}")
    return wrong


def anchors(text: str) -> set[str]:
    """The names by which a page's headings are linked to."""
    found = set()
    for heading in re.findall(r"^#+ (.*)$", text, re.MULTILINE):
        found.add(re.sub(r"[^\w -]", "", heading.replace("`", "")).strip().lower().replace(" ", "-"))
    return found


# ---- the rules --------------------------------------------------------------------------------


def rows(text: str, first: str) -> list[list[str]]:
    """The cells of the table whose header begins with `first`."""
    lines = iter(text.splitlines())
    for line in lines:
        if line.startswith(f"| {first} |"):
            break
    table = []
    for line in lines:
        if not line.startswith("|"):
            break
        table.append([cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]])
    return table[1:]


def broken_rules(page: Path, text: str | None = None) -> list[str]:
    """What the table of rules lacks: a rule without a place, a test or a fault, or a name that is none of these."""
    text = text if text is not None else page.read_text()
    table = rows(text, "rule")
    headings = [int(number) for number in re.findall(r"^### Rule (\d+)$", text, re.MULTILINE)]
    wrong = []
    numbers = []
    for cells in table:
        number = re.match(r"\[(\d+)\]", cells[0])
        name = f"rule {number[1] if number else cells[0]}"
        numbers.append(int(number[1]) if number else 0)
        if len(cells) != 4:
            wrong.append(f"{name}: {len(cells)} columns, not 4")
            continue
        places, tests = list(references(cells[1])), list(references(cells[2]))
        if not any(place.names for place in places):
            wrong.append(f"{name}: no place in the code")
        if not any(test.names for test in tests):
            wrong.append(f"{name}: no test")
        for test in tests:
            path = (page.parent / test.path).resolve()
            wrong += [f"{name}: {test.path}: `{test_name}` is no test" for test_name in test.names if not path.is_file() or not is_test(path, test_name)]
        wrong += [f"{name}: {fault}" for fault in broken_faults(page, cells[3])]
    if numbers != headings or numbers != list(range(1, len(numbers) + 1)):
        wrong.append(f"the table has rules {numbers}, the text {headings}")
    return wrong


def broken_faults(page: Path, cell: str) -> list[str]:
    """What is no fault of those that the cell names."""
    wrong = []
    arguments = re.findall(r"`(\w+(?:\.\w+)?=[^`]*)`", cell)
    mutants = [(reference, name) for reference in references(cell) for name in reference.names]
    if not arguments and not mutants:
        wrong.append("no planted fault and no mutant")
    for argument in arguments:
        key, _, value = argument.partition("=")
        if not is_planted(key, value):
            wrong.append(f"no stage plants `{argument}`")
    for reference, name in mutants:
        path = (page.parent / reference.path).resolve()
        if not path.is_file() or "/tests" not in str(path) or not (is_test(path, name) or re.search(rf"^    {name}, \||\bstruct {name}\b", text_of(path), re.MULTILINE)):
            wrong.append(f"{reference.path}: `{name}` is no mutant")
    return wrong


def is_planted(key: str, value: str) -> bool:
    """Whether a stage of `make test` boots with the argument."""
    if key == "selftest.break" and value in PLANTED_FAULTS:
        return True
    stages = "".join(text_of(ROOT / "scripts" / path) for path in ("lib/matrix.py", "lib/stages.py", "tests/replay_sessions.py"))
    return bool(re.search(rf"{re.escape(f'{key}={value}')}[ ,\"']", stages))


def rules_named(text: str) -> set[int]:
    """The numbers of the rules that the comments of a file name, or its text if it has none."""
    joined = " ".join(MARK.sub("", line) for line in text.splitlines())
    numbers: set[int] = set()
    for found in RULE.finditer(joined):
        listed = re.split(r"(\s+to\s+)|\D+", found[1])
        parts = [part.strip() for part in listed if part]
        for place, part in enumerate(parts):
            if part == "to":
                numbers |= set(range(int(parts[place - 1]), int(parts[place + 1]) + 1))
            else:
                numbers.add(int(part))
    return numbers


def sources() -> Iterator[Path]:
    """Every file of the tree that may name a rule."""
    for top in ("boot", "kernel", "scripts", "docs", "README.md"):
        path = ROOT / top
        for file in [path] if path.is_file() else sorted(path.rglob("*")):
            if file.suffix in SOURCES and "target" not in file.relative_to(ROOT).parts:
                yield file


def unknown_rules(numbers: set[int], files: dict[Path, str]) -> list[str]:
    """Rules that are named in a file and are none."""
    return [f"{path}: rule {number}" for path, text in files.items() for number in sorted(rules_named(text) - numbers)]


# ---- the locks --------------------------------------------------------------------------------

ORDER = ROOT / "kernel/src/sync/order.rs"
NEW_LOCK = re.compile(r'\bIrq(?:SpinLock|RwLock)::new\(\s*"([^"]+)"')
NAMED_CLASS = re.compile(r'\bLockClass::\w+ => "([^"]+)"')


def levels(text: str) -> list[tuple[int, str]]:
    """The order of locks that the kernel checks."""
    table = re.search(r"LEVELS: \[.*?\] = \[(.*?)\];", text, re.DOTALL)
    return [(int(level), name) for name, level in re.findall(r'\("([^"]+)", (\d+)\)', table[1] if table else "")]


def lock_classes() -> dict[str, str]:
    """The class of each lock that the kernel makes, and the file."""
    found = {}
    for path in sorted((ROOT / "kernel").rglob("*.rs")):
        if "tests" not in path.parts and "target" not in path.parts:
            for pattern in (NEW_LOCK, NAMED_CLASS):
                found |= {name: str(path.relative_to(ROOT)) for name in pattern.findall(text_of(path))}
    return found


STATIC_LOCK = re.compile(r"^(?:pub )?static (\w+): [\w:<]*(?:SpinMutex|Mutex|RwLock)<", re.MULTILINE)
"""A lock that has no class."""


def static_locks() -> dict[str, str]:
    """The locks without a class that are the kernel's own, and the file of each."""
    found = {}
    for path in sorted([*(ROOT / "kernel/src").rglob("*.rs"), *(ROOT / "kernel/harness/src").rglob("*.rs")]):
        found |= {name: str(path.relative_to(ROOT)) for name in STATIC_LOCK.findall(text_of(path)) if "Irq" not in name}
    return found


def broken_locks(text: str, order: list[tuple[int, str]], classes: dict[str, str]) -> list[str]:
    """Where the page's order is not that of the code, or leaves a lock out."""
    listed = [(int(cells[0]), cells[1].strip("`")) for cells in rows(text, "level") if cells[1].startswith("`")]
    numbers = [int(cells[0]) for cells in rows(text, "level")]
    wrong = []
    if listed != order:
        wrong.append(f"the page orders {listed}, the code {order}")
    if numbers != list(range(1, len(numbers) + 1)):
        wrong.append(f"levels {numbers} are no numbering")
    own = {name for cells in rows(text, "test lock") for name in re.findall(r"`([^`]+)`", cells[0])}
    names = {name for _, name in order}
    wrong += [f"`{name}` of {path} is not on the page" for name, path in sorted(classes.items()) if name not in names | own]
    wrong += [f"there is no lock `{name}`" for name in sorted((names | own) - classes.keys())]
    return wrong
