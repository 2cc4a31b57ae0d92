"""JSON from outside, looked at field by field: what is not as expected is named with its place."""

import json
from collections.abc import Callable
from typing import Any

from .errors import Malformed

Json = dict[str, Any]
SHOWN = 60
"""Characters of a wrong value that a message shows."""


def decode(text: str | bytes, where: str) -> Any:
    """The value that `text` is. Raises Malformed with line and column."""
    try:
        return json.loads(text, parse_constant=no_constant)
    except json.JSONDecodeError as error:
        raise Malformed(f"{where}: expected JSON, at line {error.lineno}, column {error.colno}: {error.msg}") from None
    except UnicodeDecodeError as error:
        raise Malformed(f"{where}: expected UTF-8, found byte {error.object[error.start]:#04x} at {error.start}") from None
    except (ValueError, RecursionError) as error:
        raise Malformed(f"{where}: expected JSON: {error}") from None


def no_constant(name: str) -> None:
    """JSON has no such numbers; Python's reader would take them."""
    raise ValueError(f"{name} is no number")


def show(value: Any) -> str:
    """A wrong value, in so many characters."""
    text = "nothing" if value is None else json.dumps(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."


class Record:
    """An object whose fields are asked for one by one."""

    def __init__(self, value: Any, where: str) -> None:
        if not isinstance(value, dict):
            raise Malformed(f"{where}: expected an object, found {show(value)}")
        self.value: Json = value
        self.where = where

    def __contains__(self, name: str) -> bool:
        return name in self.value

    def refuse(self, name: str, expected: str) -> Malformed:
        return Malformed(f"{self.where}: {name}: expected {expected}, found {show(self.value.get(name))}")

    def number(self, name: str, least: int = 0, most: int = (1 << 64) - 1, multiple_of: int = 1) -> int:
        value = self.value.get(name)
        # A bool is an int to Python.
        if type(value) is not int or not least <= value <= most or value % multiple_of:
            what = f"a multiple of {multiple_of:#x}" if multiple_of > 1 else "a whole number"
            raise self.refuse(name, f"{what} from {least:#x} to {most:#x}")
        return value

    def text(self, name: str) -> str:
        value = self.value.get(name)
        if not isinstance(value, str) or not value.isprintable():
            raise self.refuse(name, "printable text")
        return value

    def flag(self, name: str) -> bool:
        value = self.value.get(name)
        if not isinstance(value, bool):
            raise self.refuse(name, "true or false")
        return value

    def record(self, name: str) -> "Record":
        return Record(self.value.get(name), f"{self.where}: {name}")

    def records(self, name: str) -> list["Record"]:
        return [Record(value, f"{self.where}: {name}[{i}]") for i, value in enumerate(self.array(name))]

    def array(self, name: str) -> list[Any]:
        value = self.value.get(name)
        if not isinstance(value, list):
            raise self.refuse(name, "an array")
        return value

    def check(self, name: str, holds: Callable[[Any], bool], expected: str) -> None:
        """Any other condition on a field."""
        if not holds(self.value.get(name)):
            raise self.refuse(name, expected)
