#!/usr/bin/env -S python3 -B
"""Makes a trace out of random numbers, larger than the one of a boot and with every kind in it.

    scripts/tests/make_trace.py --seed 1 --events 50000 --areas 2400 --mib 770 > trace.csv

It begins with `pre` rows, grows to AREAS areas of MIB MiB that stay, and then has smaller ones
come and go on all CPUs, freed by whichever CPU, with purges among them. The same arguments give
the same trace.
"""

import argparse
import random
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field

if __package__:
    from lib.replay_trace import CODE, GUARDED, HEADER, PAGE, PURGES
else:
    sys.path.insert(0, str(__import__("pathlib").Path(__file__).resolve().parents[1]))
    from lib.replay_trace import CODE, GUARDED, HEADER, PAGE, PURGES

LARGE = (("vmalloc", 30), ("vmalloc_huge", 8), ("module", 25), ("vmap", 15), ("ioremap", 10), ("stack", 10), ("percpu", 2))
SMALL = (("vmalloc", 40), ("vmap", 20), ("stack", 14), ("module", 4), ("vm_map_ram", 14), ("ioremap", 5), ("bpf_jit", 2), ("execmem", 1))
PER_CALL = 4
"""One in so many vm_map_ram calls shows as the areas behind it, too: a replay leaves them out."""


@dataclass
class Maker:
    random: random.Random
    cpus: int
    rows: list[str] = field(default_factory=list)
    live: list[tuple[int, str, int, int]] = field(default_factory=list)
    nr_areas: int = 0

    def row(self, op: str, id: int, size: int, align: int, kind: str) -> None:
        seq = 0 if op == "pre" else len(self.rows) + 1
        self.rows.append(f"{seq},{self.random.randrange(self.cpus)},{op},{id},{size},{align},{kind}")

    def alloc(self, kind: str, body: int, stays: bool = False, op: str = "alloc") -> None:
        self.nr_areas += 1
        if kind == "stack":
            body, align = 16384, 32768
        elif kind in ("ioremap", "percpu"):
            align = PAGE
        else:
            align = self.random.choice((1, 1, 1, 1, 8, PAGE, 1 << 16))
        size = body + (PAGE if kind in GUARDED else 0)
        self.row(op, self.nr_areas, size, align, kind)
        if not stays:
            self.live.append((self.nr_areas, kind, size, align))

    def free(self) -> None:
        # Most that goes is young, as in a kernel.
        back = min(len(self.live), int(self.random.expovariate(1 / 20)) + 1)
        id, kind, size, align = self.live.pop(-back)
        self.row("free", id, size, align, kind)

    def purge(self) -> None:
        self.row("purge", 0, self.random.randrange(40), self.random.randrange(1000) * PAGE, self.random.choice(PURGES))

    def block(self, id: int) -> None:
        """What stands behind calls of vm_map_ram, and says the same."""
        self.row("alloc", id, 4 << 20, 4 << 20, "vmap_block")
        self.row("alloc", id + 1, 64 * PAGE, 1, "vm_map_ram_area")
        self.row("free", id + 1, 64 * PAGE, 1, "vm_map_ram_area")
        self.row("free", id, 4 << 20, 4 << 20, "vmap_block")


def pick(random: random.Random, kinds: tuple[tuple[str, int], ...]) -> str:
    return random.choices([kind for kind, _ in kinds], [weight for _, weight in kinds])[0]


def make(seed: int, events: int, areas: int, mib: int, cpus: int = 4) -> Iterator[str]:
    """The lines of a trace."""
    rng = random.Random(seed)
    maker = Maker(rng, cpus)
    churn = max(8, areas // 12)
    stay = areas - churn
    # Sizes whose logarithms are even, made to add up.
    weights = [2 ** rng.uniform(0, 9) for _ in range(stay)]
    unit = (mib << 20) * 0.97 / sum(weights)
    for number, weight in enumerate(weights):
        kind = pick(rng, LARGE)
        body = max(1, round(weight * unit / PAGE)) * PAGE
        if kind in CODE:
            body = min(body, 2 << 20)
        maker.alloc(kind, body, stays=True, op="pre" if number < stay // 20 else "alloc")
        if number >= stay // 20 and rng.randrange(8) == 0:
            maker.purge()
    id = 10**9
    while len(maker.rows) < events:
        lot = rng.randrange(100)
        if lot < 12:
            maker.purge()
        elif lot == 12 and rng.randrange(PER_CALL) == 0:
            maker.block(id)
            id += 2
        elif len(maker.live) < churn // 2 or (lot < 56 and len(maker.live) < churn):
            maker.alloc(pick(rng, SMALL), rng.choice((1, 1, 1, 2, 2, 3, 4, 8, 16, 33, 100)) * PAGE)
        else:
            maker.free()
    yield HEADER
    yield from maker.rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--events", type=int, default=50_000)
    parser.add_argument("--areas", type=int, default=2_400, help="areas that live at the same time, about")
    parser.add_argument("--mib", type=int, default=770, help="in as many MiB, about")
    parser.add_argument("--cpus", type=int, default=4)
    arguments = parser.parse_args()
    for line in make(arguments.seed, arguments.events, arguments.areas, arguments.mib, arguments.cpus):
        print(line)


if __name__ == "__main__":
    main()
