"""What README and docs quote of the sources is what stands there, and README is short."""

import re
import unittest

from lib.paths import ROOT

QUOTED = {
    "README.md": ("mapping.top = self.table_at", "kernel/paging/src/map.rs"),
    "docs/CONTRIBUTING.md": ("let table = ctx.table_for", "kernel/paging/examples/walker/one_by_one.rs"),
}
"""A page, a line by which a block of it is known, and the file that the block is from."""


def bare(text: str) -> list[str]:
    """The lines without their indentation, without comments and empty ones."""
    return [line.strip() for line in text.splitlines() if line.strip() and not line.strip().startswith("//")]


def blocks(page: str) -> list[str]:
    return re.findall(r"^```rust\n(.*?)^```", (ROOT / page).read_text(), re.MULTILINE | re.DOTALL)


def holds(source: list[str], quoted: list[str]) -> bool:
    return any(source[i : i + len(quoted)] == quoted for i in range(len(source)))


class Readme(unittest.TestCase):
    def test_code_is_quoted_as_it_stands_in_the_source(self) -> None:
        for page, (line, path) in QUOTED.items():
            (block,) = [block for block in blocks(page) if line in block]
            self.assertTrue(holds(bare((ROOT / path).read_text()), bare(block)), f"{path} has another text by now than {page}")

    def test_the_readme_has_at_most_200_lines(self) -> None:
        self.assertLessEqual(len((ROOT / "README.md").read_text().splitlines()), 200)

    def test_another_text_is_told(self) -> None:
        self.assertFalse(holds(["a", "b", "c"], ["a", "c"]))
        self.assertTrue(holds(["a", "b", "c"], ["b", "c"]))


if __name__ == "__main__":
    unittest.main()
