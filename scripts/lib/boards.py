"""What goes on the SD card of a board: the image, what its firmware reads beside it, and how to put it there.

What boot/ needs is MMU off, a device tree in x0, a multiple of 2 MiB, and a UART that the firmware has set up.
"""

import shutil
from dataclasses import dataclass
from pathlib import Path

from .errors import ScriptError
from .machine import page_size

KERNEL_ADDRESS = 0x20_0000
"""Where the firmware of a Raspberry Pi is told to put the image: the second 2 MiB, free on each of them."""

CONFIG_TXT = """\
# What the Raspberry Pi's firmware reads.
arm_64bit=1
kernel=kernel8.img
kernel_address={address:#x}
device_tree={tree}
enable_uart=1
{more}"""

EXTLINUX = """\
default vmwalk
label vmwalk
    kernel /Image
    fdtdir /
    append {bootargs}
"""

U_BOOT = """\
# At U-Boot's prompt, if extlinux.conf is not found. The card is mmc 1 on most boards, else mmc 0.
load mmc 1:1 ${kernel_addr_r} Image
load mmc 1:1 ${fdt_addr_r} rockchip/TREE
setenv bootargs BOOTARGS
booti ${kernel_addr_r} - ${fdt_addr_r}
"""


@dataclass(frozen=True)
class Board:
    title: str
    trees: tuple[str, ...]
    """Device trees of Linux, the first one named in config.txt."""
    uart: str
    """What to connect, and at what rate."""
    more: str = ""
    """Lines of config.txt beside those of every Raspberry Pi."""
    u_boot: bool = False


RASPBERRY = "GPIO 14 (TXD, pin 8) and 15 (RXD, pin 10), ground on pin 6, 115200 8N1, 3.3 V"
BOARDS = {
    "raspberry-pi-3": Board("Raspberry Pi 3", ("bcm2837-rpi-3-b.dtb",), RASPBERRY),
    "raspberry-pi-4": Board("Raspberry Pi 4", ("bcm2711-rpi-4-b.dtb",), RASPBERRY, "enable_gic=1\n"),
    "raspberry-pi-5": Board("Raspberry Pi 5", ("bcm2712-rpi-5-b.dtb",), "the 3-pin debug connector between the HDMI sockets, 115200 8N1, 3.3 V", "os_check=0\n"),
    "rk3588": Board("RK3588 (Rock 5B, Orange Pi 5)", ("rk3588-rock-5b.dtb", "rk3588s-orangepi-5.dtb"), "the debug UART (Rock 5B: pins 8 and 10, ground on 6), 1500000 8N1, 3.3 V", u_boot=True),
}

README = """\
# vmwalk on {title}

1. A card with one FAT32 partition, the first.
2. {firmware}
3. On it, all files of this folder, and {trees}.
4. A serial adapter: {uart}.
5. Power. The console says what the self-tests found, and then the machine parks or turns itself off.

Boot arguments are in `{arguments}`; `make help-bootargs` lists them. The image has pages of {page} KiB.

{last}None of this was run on the board: the emulator's boards and firmware are what it was tried with (docs/MACHINES.md).
"""


def files(board: Board, bootargs: str, page: int) -> dict[str, str]:
    """The texts beside the image."""
    trees = " or ".join(f"`{tree}`" for tree in board.trees)
    if board.u_boot:
        made = {"extlinux/extlinux.conf": EXTLINUX.format(bootargs=bootargs), "u-boot.txt": U_BOOT.replace("TREE", board.trees[0]).replace("BOOTARGS", f"'{bootargs}'")}
        firmware = "U-Boot, as the board's maker or its distribution has it, on the card or in flash. It looks for `extlinux/extlinux.conf` by itself."
        told = f"{trees} in a folder `rockchip`, of Linux (Debian: `linux-image-arm64`, `/usr/lib/linux-image-*/rockchip`)"
        arguments, last = "extlinux/extlinux.conf", "`u-boot.txt` has the same by hand, for U-Boot's prompt.\n"
    else:
        made = {"config.txt": CONFIG_TXT.format(address=KERNEL_ADDRESS, tree=board.trees[0], more=board.more), "cmdline.txt": f"{bootargs}\n"}
        firmware = "The Raspberry Pi's firmware: `bootcode.bin`, `start*.elf` and `fixup*.dat` of its `boot` folder (Debian: `raspi-firmware`). A Pi 5 has it in flash."
        told = f"{trees} of Linux (Debian: `linux-image-arm64`, `/usr/lib/linux-image-*/broadcom`)"
        arguments, last = "cmdline.txt", ""
    return made | {"README.md": README.format(title=board.title, firmware=firmware, trees=told, uart=board.uart, arguments=arguments, page=page // 1024, last=last)}


def write(image: Path, bootargs: str, target: Path) -> list[Path]:
    """Makes the folder of each board anew; returns them."""
    page = page_size(image)
    if page is None:
        raise ScriptError(f"{image} is no image; make build makes one")
    folders = []
    for name, board in BOARDS.items():
        folder = target / name
        shutil.rmtree(folder, ignore_errors=True)
        for path, text in files(board, bootargs, page).items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(text)
        shutil.copyfile(image, folder / ("Image" if board.u_boot else "kernel8.img"))
        folders.append(folder)
    return folders
