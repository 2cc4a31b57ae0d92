"""The device trees of Debian's arm64 kernel, libfdt's Python to read them with, and how two readings differ."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from . import processes
from .errors import ScriptError

PYLIBFDT = "pylibfdt==1.7.2.post2"
KEYS = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
SECONDS = 300.0
"""How long one command may take that waits for a network."""


class Unavailable(ScriptError):
    """What the comparison needs cannot be had here; the message says why."""

    status = 77


def run(command: list[str], folder: Path | None = None, limit: float = SECONDS) -> str | None:
    """What the command prints; None if it fails, or takes too long."""
    try:
        process = processes.start(command, cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    except ScriptError:
        return None
    try:
        said, _ = process.communicate(timeout=limit)
    except subprocess.TimeoutExpired:
        return None
    finally:
        processes.end(process)
    return said.decode(errors="replace") if process.returncode == 0 else None


def has_libfdt(python: str) -> bool:
    return run([python, "-c", "import libfdt"]) is not None


def python_with_libfdt(venv: Path) -> str:
    """The interpreter that runs this if it has libfdt, else the system's, else one in `venv`."""
    own = str(venv / "bin" / "python")
    for python in (sys.executable, "/usr/bin/python3", own):
        if os.path.exists(python) and has_libfdt(python):
            return python
    shutil.rmtree(venv, ignore_errors=True)
    if run([sys.executable, "-m", "venv", str(venv)]) is None or run([own, "-m", "pip", "install", "--quiet", PYLIBFDT]) is None or not has_libfdt(own):
        raise Unavailable("there is no libfdt for Python, and it cannot be installed (Debian: python3-libfdt)")
    return own


def fetch(folder: Path, suite: str) -> Path:
    """Unpacks the suite's newest arm64 kernel, unless it is there; returns the folder with its trees."""
    apt = view(folder / "apt", suite)
    depends = run(["apt-cache", *apt, "depends", "--important", "linux-image-arm64"]) or ""
    images = [word for word in depends.split() if word.startswith("linux-image-") and word != "linux-image-arm64"]
    if not images:
        raise Unavailable(f"{suite} has no linux-image-arm64")
    # The trees have a package of their own where the image's name has one beside it.
    base = images[0].replace("linux-image-", "linux-base-")
    package = base if run(["apt-cache", *apt, "show", base]) else images[0]
    unpacked = folder / package
    if not unpacked.exists():
        debs = folder / "debs"
        shutil.rmtree(debs, ignore_errors=True)
        debs.mkdir(parents=True)
        if run(["apt-get", *apt, "download", package], debs) is None:
            raise Unavailable(f"{package} cannot be downloaded")
        (deb,) = debs.glob("*.deb")
        partly = folder / "partly"
        shutil.rmtree(partly, ignore_errors=True)
        if run(["dpkg-deb", "-x", str(deb), str(partly)]) is None:
            raise ScriptError(f"{deb} cannot be unpacked")
        partly.rename(unpacked)
        shutil.rmtree(debs)
    print(f"{package}, of {suite}")
    return unpacked


def view(folder: Path, suite: str, architecture: str = "arm64") -> list[str]:
    """Has apt look at the suite's packages, with lists of its own. Returns the options for that."""
    archive = debian_archive()
    for part in ("lists/partial", "cache/archives/partial"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    (folder / "status").touch()
    signed = f" signed-by={KEYS}" if KEYS.exists() else ""
    (folder / "sources.list").write_text(f"deb [arch={architecture}{signed}] {archive} {suite} main\n")
    settings = {
        "APT::Architecture": architecture,
        "APT::Architectures": architecture,
        "APT::Sandbox::User": "root",
        "Acquire::Languages": "none",
        "Acquire::http::Timeout": "20",
        "Dir::State::lists": f"{folder}/lists",
        "Dir::State::status": f"{folder}/status",
        "Dir::Cache": f"{folder}/cache",
        "Dir::Etc::sourcelist": f"{folder}/sources.list",
        "Dir::Etc::sourceparts": "-",
    }
    options = [word for name, value in settings.items() for word in ("-o", f"{name}={value}")]
    if run(["apt-get", *options, "update"]) is None:
        raise Unavailable(f"the package lists of {suite} cannot be fetched")
    return options


def debian_archive() -> str:
    """The archive that this Debian takes its packages from."""
    targets = run(["apt-get", "indextargets", "--format", "$(REPO_URI) $(ORIGIN) $(COMPONENT)", "Created-By: Packages"]) or ""
    for line in targets.splitlines():
        uri, *rest = line.split()
        if rest == ["Debian", "main"] and uri.rstrip("/").endswith("/debian"):
            return uri
    raise Unavailable("this system takes no packages from a Debian archive")


def differences(kernel: dict[str, object], other: dict[str, object]) -> list[str]:
    """One line for each value that is not the same in both readings."""
    names = [*other, *(name for name in kernel if name not in other)]
    return [f"{name}: the kernel reads {kernel.get(name)}, libfdt {other.get(name)}" for name in names if kernel.get(name) != other.get(name)]
