"""Kernels that Debian builds for arm64, unpacked below BUILD/debian-kernels: others' kernels, for the gdb commands to look at."""

import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from . import processes
from .debian_trees import Unavailable, run, view
from .errors import ScriptError
from .machine import Machine
from .paths import BUILD

FOLDER = BUILD.absolute() / "debian-kernels"
SUITE, CLOUD = "trixie", "linux-image-cloud-arm64"
BOOTED = "Waiting for root device"
BOOT_LIMIT = 300.0


def image(suite: str, package: str) -> Path:
    """Returns the Image of the kernel that `package` of `suite` depends on, fetched unless it is there. Raises Unavailable."""
    folder = FOLDER / suite / package
    if not (found := sorted(folder.glob("boot/vmlinuz-*"))):
        fetch(suite, package, folder)
        found = sorted(folder.glob("boot/vmlinuz-*"))
    if not found:
        raise Unavailable(f"{package} of {suite} has no kernel in /boot")
    return found[-1]


def fetch(suite: str, package: str, folder: Path) -> None:
    apt = view(FOLDER / suite / "apt", suite)
    depends = run(["apt-cache", *apt, "depends", "--important", package]) or ""
    images = [word for word in depends.split() if word.startswith("linux-image-") and word != package]
    if not images:
        raise Unavailable(f"{suite} has no {package}")
    debs, partly = folder.with_name(f"{package}.debs"), folder.with_name(f"{package}.partly")
    for fresh in (debs, partly):
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(parents=True)
    if run(["apt-get", *apt, "download", images[0]], debs) is None:
        raise Unavailable(f"{images[0]} cannot be downloaded")
    (deb,) = debs.glob("*.deb")
    with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", str(deb)], stdout=subprocess.PIPE) as unpacking:
        subprocess.run(["tar", "-x", "-C", str(partly), "--wildcards", "./boot/*"], stdin=unpacking.stdout, check=True)
    partly.rename(folder)
    shutil.rmtree(debs)


def free_port() -> int:
    """A port that nothing listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def booted(suite: str = SUITE, package: str = CLOUD, cpu: str = "max", options: tuple[str, ...] = (), arguments: str = "", qemu: str = "") -> Iterator[int]:
    """The port of a stub behind which the kernel waits for a root device that never comes."""
    kernel, port = image(suite, package), free_port()
    with tempfile.TemporaryDirectory(prefix="vmwalk-linux-") as folder:
        log = Path(folder) / "serial"
        machine = Machine(
            cpu=cpu,
            mem="512M",
            image=kernel,
            qemu=qemu or Machine.qemu,
            machine_options=options,
            bootargs=f"console=ttyAMA0 root=/dev/vda rootwait cryptomgr.notests {arguments}",
            extra=("-gdb", f"tcp:127.0.0.1:{port}"),
        )
        emulator = processes.start(machine.command(serial=f"file:{log}"), stdin=subprocess.DEVNULL)
        try:
            deadline = time.monotonic() + BOOT_LIMIT
            while not (log.exists() and BOOTED in log.read_text(errors="replace")):
                if emulator.poll() is not None or time.monotonic() > deadline:
                    said = log.read_text(errors="replace")[-2000:] if log.exists() else "nothing"
                    raise ScriptError(f"{kernel.name} did not come to {BOOTED!r}; it said {said}")
                time.sleep(0.1)
            yield port
        finally:
            processes.end(emulator)
