"""A program of a newer Debian suite, unpacked with all that it needs, its C library too, below BUILD: nothing is installed."""

import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from .debian_trees import Unavailable, run, view
from .errors import ScriptError

LIMIT = 1200.0

WRAPPER = """\
#!/bin/sh
# Runs what scripts/setup unpacked beside it, with its own loader and libraries.
root=$(cd "${0%/*}/../root" && pwd)
exec "$root/LOADER" --library-path "LIBRARIES" COMMAND "$@"
"""

EXCLUDED = ("doc", "man", "locale")


@dataclass(frozen=True)
class Unpacked:
    """One of them."""

    folder: Path
    program: Path
    """The wrapper that runs it."""
    package: str
    command: str
    """What the wrapper runs, in terms of $root."""

    def packages(self, options: list[str]) -> list[str]:
        """NAME=VERSION of all that it needs on a machine that has nothing."""
        plan = run(["apt-get", *options, "--simulate", "--no-install-recommends", "install", self.package]) or ""
        found = re.findall(r"^Inst (\S+) \((\S+) ", plan, re.MULTILINE)
        return [f"{name}={version}" for name, version in found]

    def unpack(self, suite: str) -> None:
        architecture = (run(["dpkg", "--print-architecture"]) or "").strip()
        options = view(self.folder / "apt", suite, architecture)
        wanted = self.packages(options)
        if not wanted:
            raise Unavailable(f"{suite} has no {self.package} for {architecture}")
        debs, root = self.folder / "debs", self.folder / "root"
        shutil.rmtree(debs, ignore_errors=True)
        debs.mkdir(parents=True)
        print(f"setup: unpacking {len(wanted)} packages of {suite} below {self.folder}; nothing is installed", file=sys.stderr)
        if run(["apt-get", *options, "download", *wanted], debs, LIMIT) is None:
            raise Unavailable(f"{self.package} of {suite} cannot be downloaded")
        shutil.rmtree(root, ignore_errors=True)
        # A root is one folder where packages still have /lib beside /usr/lib.
        (root / "usr").mkdir(parents=True)
        for name in ("bin", "sbin", "lib", "lib64"):
            (root / "usr" / name).mkdir()
            (root / name).symlink_to(f"usr/{name}")
        for deb in sorted(debs.glob("*.deb")):
            with subprocess.Popen(["dpkg", "--fsys-tarfile", str(deb)], stdout=subprocess.PIPE) as package:
                command = ["tar", "-x", "-C", str(root), "--no-same-owner", "--keep-directory-symlink", *(f"--exclude=./usr/share/{name}" for name in EXCLUDED)]
                subprocess.run(command, stdin=package.stdout, check=True)
        shutil.rmtree(debs)
        self.wrap()

    def wrap(self) -> None:
        root = self.folder / "root"
        loaders = [path for path in sorted(root.glob("usr/lib/*/ld-linux*.so.*"))]
        if not loaders:
            raise ScriptError(f"{root} has no loader")
        libraries = sorted({path.parent.relative_to(root) for path in (root / "usr" / "lib").rglob("lib*.so*")})
        text = WRAPPER.replace("LOADER", str(loaders[0].relative_to(root))).replace("COMMAND", self.command)
        text = text.replace("LIBRARIES", ":".join(f"$root/{folder}" for folder in libraries))
        self.program.parent.mkdir(parents=True, exist_ok=True)
        self.program.write_text(text)
        self.program.chmod(0o755)

    def says(self, *arguments: str) -> str | None:
        """What it answers, if it is there and starts."""
        return run([str(self.program), *arguments]) if self.program.exists() else None
