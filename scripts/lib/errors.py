"""What a script refuses or fails with, to be told in one line."""

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class ScriptError(Exception):
    """Why a script cannot do what it was asked; the message is one line, without the script's name."""

    status = 1
    """How the script exits."""


class BadSetting(ScriptError):
    """A variable or an argument has a value that makes no sense; the message names it."""

    status = 2


class Malformed(ScriptError):
    """A file is not what it is read as; the message names the file, the place, and what was expected there."""


@contextmanager
def reading(what: str | Path) -> Iterator[None]:
    """Turns whatever a damaged binary file makes its reader stumble over into Malformed."""
    try:
        yield
    except (struct.error, LookupError, ValueError, OverflowError) as error:
        raise Malformed(f"{what}: truncated, damaged, or something else ({error})") from None
