"""Paths of symbols in Rust's v0 mangling, without their type arguments. Knows nothing of gdb.

Source: Rust RFC 2603, "Syntax of mangled names". Types are read only as far as a path leads through them (the type that an
`impl` is for); of all else it matters only where it ends.
"""


class Malformed(Exception):
    """No v0 symbol, or one with something that is not in the RFC."""


class Reader:
    """One symbol, read from left to right; back references go to places in it."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0

    def _next(self) -> str:
        if self._at >= len(self._text):
            raise Malformed(self._text)
        self._at += 1
        return self._text[self._at - 1]

    def _take(self, character: str) -> bool:
        found = self._text.startswith(character, self._at)
        self._at += found
        return found

    def _base62(self) -> int:
        """`_` is 0, and digits stand for one more than they say."""
        value = 0
        if self._take("_"):
            return 0
        while (character := self._next()) != "_":
            digit = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ".find(character)
            if digit < 0:
                raise Malformed(self._text)
            value = value * 62 + digit
        return value + 1

    def _name(self) -> str:
        """An identifier without its disambiguator."""
        self._take("u")
        digits = ""
        while self._at < len(self._text) and self._text[self._at].isdigit() and digits != "0":
            digits += self._next()
        if not digits:
            raise Malformed(self._text)
        self._take("_")
        self._at += int(digits)
        return self._text[self._at - int(digits) : self._at]

    def _identifier(self) -> str:
        if self._take("s"):
            self._base62()
        return self._name()

    def _back(self, read: str) -> str:
        target = self._base62()
        here, self._at = self._at, target
        found = str(getattr(self, read)())
        self._at = here
        return found

    def path(self) -> str:
        kind = self._next()
        if kind == "C":
            return self._identifier()
        if kind == "N":
            namespace, outer = self._next(), self.path()
            name = self._identifier()
            if namespace.isupper():
                name = "{" + {"C": "closure", "S": "shim"}.get(namespace, namespace) + "}"
            return f"{outer}::{name}"
        if kind in "MX":
            if self._take("s"):
                self._base62()
            self.path()  # where the impl stands
            of = self.type()
            if kind == "X":
                self.path()
            return of
        if kind == "Y":
            of = self.type()
            self.path()
            return of
        if kind == "I":
            found = self.path()
            while not self._take("E"):
                self._argument()
            return found
        if kind == "B":
            return self._back("path")
        raise Malformed(self._text)

    def _argument(self) -> None:
        if self._take("L"):
            self._base62()
        elif self._take("K"):
            self._constant()
        else:
            self.type()

    def _constant(self) -> str:
        if self._take("p"):
            return ""
        if self._take("B"):
            return self._back("_constant")
        self.type()
        while self._next() != "_":
            pass
        return ""

    def type(self) -> str:
        kind = self._text[self._at : self._at + 1]
        if kind in "CNMXYI" and kind:
            return self.path()
        self._next()
        if kind.islower():
            return kind
        if kind == "B":
            return self._back("type")
        if kind in "RQ":
            if self._take("L"):
                self._base62()
            return self.type()
        if kind in "SPO":
            return self.type()
        if kind == "A":
            of = self.type()
            self._constant()
            return of
        if kind == "T":
            while not self._take("E"):
                self.type()
            return "()"
        if kind == "F":
            return self._function()
        if kind == "D":
            return self._dyn()
        raise Malformed(self._text)

    def _binder(self) -> None:
        if self._take("G"):
            self._base62()

    def _function(self) -> str:
        self._binder()
        self._take("U")
        if self._take("K") and not self._take("C"):
            self._name()
        while not self._take("E"):
            self.type()
        self.type()
        return "fn"

    def _dyn(self) -> str:
        self._binder()
        while not self._take("E"):
            self.path()
            while self._take("p"):
                self._name()
                self.type()
        if self._take("L"):
            self._base62()
        return "dyn"


def plain_path(mangled: str) -> str:
    """The path that a v0 symbol names, type arguments left out; any other name as it is."""
    if not mangled.startswith("_R"):
        return mangled
    try:
        return Reader(mangled.removeprefix("_R").split(".", 1)[0]).path()
    except Malformed:
        return mangled
