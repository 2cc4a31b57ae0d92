#!/usr/bin/env -S python3 -B
"""Packs the crates that others can have, and compiles what is in the packages, with all features.

Not by `cargo package` alone: what it compiles one package against is the other one as it was when
cargo first unpacked its version, which here stays the same.
"""

import subprocess
import tarfile
import tempfile
from pathlib import Path

from lib import script
from lib.errors import ScriptError
from lib.paths import ROOT

PACKAGES = ("paging", "vmalloc")
"""In the order in which one needs the other."""


def cargo(*arguments: str) -> None:
    command = ["scripts/cargo", *arguments, "--offline"]
    if subprocess.run(command, cwd=ROOT, stdin=subprocess.DEVNULL).returncode:
        raise ScriptError(f"{' '.join(command)} failed")


def main(argv: list[str]) -> int:
    if argv:
        raise ScriptError("no arguments")
    with tempfile.TemporaryDirectory() as folder:
        packed, unpacked = Path(folder) / "packed", Path(folder) / "unpacked"
        chosen = [word for name in PACKAGES for word in ("-p", name)]
        cargo("package", "--no-verify", "--allow-dirty", *chosen, "--target-dir", str(packed))
        crates = sorted((packed / "package").glob("*.crate"))
        if [crate.name.rsplit("-", 1)[0] for crate in crates] != list(PACKAGES):
            raise ScriptError(f"packed were {', '.join(crate.name for crate in crates) or 'none'}")
        for crate in crates:
            with tarfile.open(crate) as archive:
                archive.extractall(unpacked, filter="data")
        where = {name: path for name in PACKAGES for path in unpacked.glob(f"{name}-*")}
        instead = [word for name in PACKAGES[:-1] for word in ("--config", f'patch.crates-io.{name}.path="{where[name]}"')]
        for name in PACKAGES:
            patches = instead if name == PACKAGES[-1] else []
            cargo("check", "--all-features", "--manifest-path", str(where[name] / "Cargo.toml"), "--target-dir", str(packed), *patches)
    print(f"{' and '.join(PACKAGES)} compile as they are packed")
    return 0


if __name__ == "__main__":
    script.run("check-packages", main)
