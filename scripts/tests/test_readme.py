"""What the README quotes of the sources is what stands there."""

import re
import unittest

from lib.paths import ROOT

QUOTED = {"mapping.top = self.table_at": "kernel/paging/src/map.rs", "let table = ctx.table_for": "kernel/paging/examples/walker/one_by_one.rs"}
"""A line by which a block of the README is known, and the file that it is from."""


def bare(text: str) -> list[str]:
    """The lines without their indentation, without comments and empty ones."""
    return [line.strip() for line in text.splitlines() if line.strip() and not line.strip().startswith("//")]


def blocks() -> list[str]:
    return re.findall(r"^```rust\n(.*?)^```", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)


def holds(source: list[str], quoted: list[str]) -> bool:
    return any(source[i : i + len(quoted)] == quoted for i in range(len(source)))


class Readme(unittest.TestCase):
    def test_code_is_quoted_as_it_stands_in_the_source(self) -> None:
        for line, path in QUOTED.items():
            (block,) = [block for block in blocks() if line in block]
            self.assertTrue(holds(bare((ROOT / path).read_text()), bare(block)), f"{path} has another text by now than the README")

    def test_another_text_is_told(self) -> None:
        self.assertFalse(holds(["a", "b", "c"], ["a", "c"]))
        self.assertTrue(holds(["a", "b", "c"], ["b", "c"]))


if __name__ == "__main__":
    unittest.main()
