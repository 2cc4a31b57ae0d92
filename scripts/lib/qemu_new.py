"""A newer QEMU than the distribution's, unpacked with all that it needs, its C library too, below BUILD/qemu-new.

Run by `scripts/setup qemu-new`. SUITE is the Debian suite that it comes from (sid).
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from . import script
from .debian_trees import Unavailable, run, view
from .errors import ScriptError
from .machine import is_aarch64
from .paths import BUILD

FOLDER = BUILD.absolute() / "qemu-new"
PROGRAM = FOLDER / "bin" / "qemu-new"
PACKAGE = "qemu-system-arm"
LIMIT = 1200.0

WRAPPER = """\
#!/bin/sh
# Runs what scripts/setup qemu-new unpacked beside it, with its own loader and libraries.
root=$(cd "${0%/*}/../root" && pwd)
exec "$root/LOADER" --library-path "LIBRARIES" "$root/usr/bin/qemu-system-aarch64" -L "$root/usr/share/qemu" "$@"
"""


def packages(options: list[str]) -> list[str]:
    """NAME=VERSION of all that the emulator needs on a machine that has nothing."""
    plan = run(["apt-get", *options, "--simulate", "--no-install-recommends", "install", PACKAGE]) or ""
    found = re.findall(r"^Inst (\S+) \((\S+) ", plan, re.MULTILINE)
    return [f"{name}={version}" for name, version in found]


def unpack(root: Path, suite: str) -> None:
    architecture = (run(["dpkg", "--print-architecture"]) or "").strip()
    options = view(FOLDER / "apt", suite, architecture)
    wanted = packages(options)
    if not wanted:
        raise Unavailable(f"{suite} has no {PACKAGE} for {architecture}")
    debs = FOLDER / "debs"
    shutil.rmtree(debs, ignore_errors=True)
    debs.mkdir(parents=True)
    print(f"setup: unpacking {len(wanted)} packages of {suite} below {FOLDER}; nothing is installed", file=sys.stderr)
    if run(["apt-get", *options, "download", *wanted], debs, LIMIT) is None:
        raise Unavailable(f"{PACKAGE} of {suite} cannot be downloaded")
    shutil.rmtree(root, ignore_errors=True)
    # A root is one folder where packages still have /lib beside /usr/lib.
    (root / "usr").mkdir(parents=True)
    for name in ("bin", "sbin", "lib", "lib64"):
        (root / "usr" / name).mkdir()
        (root / name).symlink_to(f"usr/{name}")
    for deb in sorted(debs.glob("*.deb")):
        with subprocess.Popen(["dpkg", "--fsys-tarfile", str(deb)], stdout=subprocess.PIPE) as package:
            command = ["tar", "-x", "-C", str(root), "--no-same-owner", "--keep-directory-symlink", "--exclude=./usr/share/doc", "--exclude=./usr/share/man", "--exclude=./usr/share/locale"]
            subprocess.run(command, stdin=package.stdout, check=True)
    shutil.rmtree(debs)


def wrap(root: Path) -> None:
    loaders = [path for path in sorted(root.glob("usr/lib/*/ld-linux*.so.*"))]
    if not loaders:
        raise ScriptError(f"{root} has no loader")
    libraries = sorted({path.parent.relative_to(root) for path in (root / "usr" / "lib").rglob("lib*.so*")})
    text = WRAPPER.replace("LOADER", str(loaders[0].relative_to(root)))
    text = text.replace("LIBRARIES", ":".join(f"$root/{folder}" for folder in libraries))
    PROGRAM.parent.mkdir(parents=True, exist_ok=True)
    PROGRAM.write_text(text)
    PROGRAM.chmod(0o755)


def version() -> str | None:
    """What it says of itself, if it is there and starts."""
    said = run([str(PROGRAM), "--version"]) if PROGRAM.exists() else None
    return said.splitlines()[0] if said else None


def models() -> list[str]:
    """Its models of CPUs that have AArch64 state; none if it is not there."""
    said = run([str(PROGRAM), "-cpu", "help"]) if version() else None
    names = re.findall(r"^ +((?:cortex-a|neoverse-|a64fx|max)\S*)", said or "", re.MULTILINE)
    return [name for name in names if is_aarch64(str(PROGRAM), name)]


def main(argv: list[str]) -> int:
    if not version() and "--check" not in argv:
        root = FOLDER / "root"
        unpack(root, os.environ.get("SUITE") or "sid")
        wrap(root)
    if not (said := version()):
        raise ScriptError(f"{PROGRAM} does not start")
    print(f"setup: {said}: {PROGRAM}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    script.run("setup", main)
