"""Firmware for the emulated machine, and the disk that it boots from."""

import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from . import processes
from .debian_trees import Unavailable, run
from .errors import BadSetting, ScriptError
from .paths import BUILD

UNPACKED = BUILD / "private" / "root"

EXTLINUX = """\
default vmwalk
label vmwalk
    kernel /Image
    append {bootargs}
"""
"""What U-Boot's `booti` is told by a file; without `fdt` it passes on the tree that it has."""


@dataclass(frozen=True)
class Firmware:
    """One of the values of FIRMWARE."""

    files: tuple[str, ...]
    """Where it may be, below the root of this machine or of what scripts/setup unpacked."""
    package: str
    machine_options: tuple[str, ...] = ()
    is_uefi: bool = True

    def path(self) -> Path:
        for root in (Path("/"), UNPACKED):
            for name in self.files:
                if (root / name).is_file():
                    return root / name
        raise Unavailable(f"no firmware: scripts/setup firmware unpacks {self.package}, where it can be had")


EDK2 = ("usr/share/qemu-efi-aarch64/QEMU_EFI.fd", "usr/share/edk2/aarch64/QEMU_EFI.fd")
U_BOOT = ("usr/lib/u-boot/qemu_arm64/u-boot.bin",)
FIRMWARE = {
    "uefi": Firmware(EDK2, "qemu-efi-aarch64", ("acpi=off",)),
    "uefi-acpi": Firmware(EDK2, "qemu-efi-aarch64"),
    "u-boot": Firmware(U_BOOT, "u-boot-qemu", is_uefi=False),
    "u-boot-uefi": Firmware(U_BOOT, "u-boot-qemu"),
}


def of(name: str) -> Firmware:
    if name not in FIRMWARE:
        raise BadSetting(f"FIRMWARE is {' or '.join(FIRMWARE)}, or nothing for the emulator's own loader, not {name!r}")
    return FIRMWARE[name]


def make_disk(firmware: Firmware, image: Path, bootargs: str, stack: ExitStack) -> Path:
    """Makes a disk that boots `image`; it lives as long as `stack`."""
    made = image.parent / "efi"
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="vmwalk-disk-")))
    if firmware.is_uefi:
        text, files = f"{bootargs}\n", {"EFI/BOOT/BOOTAA64.EFI": made / "BOOTAA64.EFI", "EFI/BOOT/bootargs.txt": folder / "bootargs"}
    else:
        text, files = EXTLINUX.format(bootargs=bootargs), {"Image": image, "extlinux/extlinux.conf": folder / "bootargs"}
    (folder / "bootargs").write_text(text)
    target = folder / "disk.img"
    processes.find(str(made / "disk"))
    if run([str(made / "disk"), str(target), *(f"{name}={file}" for name, file in files.items())]) is None:
        raise ScriptError(f"no disk can be made of {image}; make efi makes what it needs")
    return target
