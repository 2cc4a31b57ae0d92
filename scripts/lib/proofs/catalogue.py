"""All claims, by name."""

from collections.abc import Iterator
from functools import cache
from pathlib import Path

from . import bulk, descriptors, leaves, place, tlbi, tree
from .claim import Claim, Result, prove
from .images import Images
from .protocol.claims import claims as of_the_protocol
from .solve import Solvers


LONGEST = (
    "placement, as shipped",
    "tree, removal, as shipped",
    "TLBIs of two ranges, 4K, as shipped",
    "TLBIs of a range, 4K, as shipped",
    "protocol, unmap, replace and protect",
    "bulk stores",
    "protocol, tables and maps",
    "bulk loads",
)
"""Where they are begun last, one process works alone at the end."""


def of(images: Images) -> Iterator[Claim]:
    yield from leaves.claims(images)
    yield from tlbi.claims(images)
    yield from descriptors.claims(images)
    yield from bulk.claims(images)
    yield from tree.claims(images)
    yield from place.claims(images)
    yield from of_the_protocol()


@cache
def claims(kernel: Path, shim: Path) -> list[Claim]:
    """Nothing is read before a claim is proven, and then once."""
    return list(of(Images(kernel, shim)))


def prove_one(kernel: Path, shim: Path, name: str, most_mutants: int | None = None) -> Result:
    """For a process of its own."""
    (claim,) = (claim for claim in claims(kernel, shim) if claim.name == name)
    return prove(claim, Solvers(), most_mutants)
