"""Kernels that Debian builds for arm64, unpacked below BUILD/debian-kernels: others' kernels, for the gdb commands to look at."""

import shutil
import socket
import struct
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
USER = "Run /init as init process"
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
def booted(suite: str = SUITE, package: str = CLOUD, cpu: str = "max", options: tuple[str, ...] = (), arguments: str = "", qemu: str = "", user: bool = False) -> Iterator[int]:
    """The port of a stub behind which the kernel waits for a root device that never comes, or runs a process that does nothing else."""
    kernel, port = image(suite, package), free_port()
    with tempfile.TemporaryDirectory(prefix="vmwalk-linux-") as folder:
        log = Path(folder) / "serial"
        if user:
            (Path(folder) / "initrd").write_bytes(archive("init", spinning_program()))
        machine = Machine(
            cpu=cpu,
            mem="512M",
            image=kernel,
            qemu=qemu or Machine.qemu,
            machine_options=options,
            initrd=Path(folder) / "initrd" if user else None,
            bootargs=f"console=ttyAMA0 root=/dev/vda rootwait cryptomgr.notests {arguments}",
            extra=("-gdb", f"tcp:127.0.0.1:{port}"),
        )
        emulator = processes.start(machine.command(serial=f"file:{log}"), stdin=subprocess.DEVNULL)
        try:
            deadline = time.monotonic() + BOOT_LIMIT
            while not (log.exists() and (USER if user else BOOTED) in log.read_text(errors="replace")):
                if emulator.poll() is not None or time.monotonic() > deadline:
                    said = log.read_text(errors="replace")[-2000:] if log.exists() else "nothing"
                    raise ScriptError(f"{kernel.name} did not come to {USER if user else BOOTED!r}; it said {said}")
                time.sleep(0.1)
            yield port
        finally:
            processes.end(emulator)


TEXT, DATA = 0x40_0000, 0x80_0000
"""Where the process has its code, and a page that it writes."""


def spinning_program() -> bytes:
    """A static ELF file for AArch64: it writes to its data once, and runs in a circle."""
    code = struct.pack("<3I", 0xD2A0_1000, 0xF900_0000, 0x1400_0000)  # mov x0, #DATA; str x0, [x0]; b .
    header = struct.pack("<16sHHIQQQIHHHHHH", b"\x7fELF\x02\x01\x01", 2, 183, 1, TEXT + 176, 64, 0, 0, 64, 56, 2, 0, 0, 0)
    size = 176 + len(code)
    segments = ((5, 0, TEXT, size, size), (6, 0, DATA, 8, 8))  # flags are R X and R W
    loads = [struct.pack("<IIQQQQQQ", 1, flags, offset, va, va, in_file, in_memory, 0x1000) for flags, offset, va, in_file, in_memory in segments]
    return header + b"".join(loads) + code


def archive(name: str, data: bytes) -> bytes:
    """A cpio archive (newc) of one program."""
    made = b""
    for path, mode, content in ((name, 0o100755, data), ("TRAILER!!!", 0, b"")):
        fields = (0, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(path) + 1, 0)
        made += padded(b"070701" + b"".join(b"%08x" % field for field in fields) + path.encode() + b"\0") + padded(content)
    return made


def padded(data: bytes) -> bytes:
    return data + b"\0" * (-len(data) % 4)
