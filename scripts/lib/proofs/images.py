"""The two ELF files that the proofs read: the image that ships, and the shim."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from .machine import Image


@dataclass
class Images:
    kernel_file: Path
    shim_file: Path

    @cached_property
    def kernel(self) -> Image:
        return Image(self.kernel_file)

    @cached_property
    def shim(self) -> Image:
        return Image(self.shim_file)
