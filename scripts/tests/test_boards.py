"""What `make boards` writes, against what boot/ needs and what the boards' firmware reads."""

import re
import tempfile
import unittest
from pathlib import Path

from lib import boards
from lib.errors import ScriptError
from lib.paths import ROOT
from tests.test_flatten import header

BOOTARGS = "selftest=map.* seed=3"


class TheFolders(unittest.TestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory(prefix="vmwalk-boards-")
        self.addCleanup(folder.cleanup)
        self.image = Path(folder.name) / "Image"
        self.image.write_bytes(header(0x40_0000) + b"code")
        self.folders = {path.name: path for path in boards.write(self.image, BOOTARGS, Path(folder.name) / "boards")}

    def test_are_complete(self) -> None:
        self.assertEqual(set(self.folders), {"raspberry-pi-3", "raspberry-pi-4", "raspberry-pi-5", "rk3588"})
        for name, folder in self.folders.items():
            files = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
            beside = {"Image", "extlinux/extlinux.conf", "u-boot.txt"} if name == "rk3588" else {"kernel8.img", "config.txt", "cmdline.txt"}
            self.assertEqual(files, beside | {"README.md"}, name)

    def test_of_a_raspberry_pi_make_its_firmware_enter_the_image_as_boot_needs_it(self) -> None:
        for name in ("raspberry-pi-3", "raspberry-pi-4", "raspberry-pi-5"):
            folder = self.folders[name]
            lines = [line for line in (folder / "config.txt").read_text().splitlines() if not line.startswith("#")]
            config = dict(line.split("=", 1) for line in lines)
            self.assertEqual(len(config), len(lines), name)
            self.assertEqual((config["arm_64bit"], config["enable_uart"]), ("1", "1"), name)
            # entry.s refuses another alignment, and page 0 is the spin tables'.
            self.assertEqual(int(config["kernel_address"], 0) % (2 << 20), 0, name)
            self.assertGreater(int(config["kernel_address"], 0), 0, name)
            self.assertEqual((folder / config["kernel"]).read_bytes(), self.image.read_bytes(), name)
            self.assertIn(f"`{config['device_tree']}`", (folder / "README.md").read_text(), name)
            self.assertEqual((folder / "cmdline.txt").read_text(), f"{BOOTARGS}\n", name)

    def test_the_alignment_is_what_the_entry_checks(self) -> None:
        self.assertIn("tst     x21, #0x1fffff", (ROOT / "boot/src/head/entry.s").read_text())

    def test_with_u_boot_say_the_same_by_file_and_by_hand(self) -> None:
        folder = self.folders["rk3588"]
        conf = dict(line.split(maxsplit=1) for line in (folder / "extlinux/extlinux.conf").read_text().splitlines())
        self.assertEqual((conf["default"], conf["append"]), (conf["label"], BOOTARGS))
        self.assertEqual((folder / conf["kernel"].lstrip("/")).read_bytes(), self.image.read_bytes())
        by_hand = (folder / "u-boot.txt").read_text()
        self.assertIn(f"setenv bootargs '{BOOTARGS}'\n", by_hand)
        tree = re.search(r"load mmc 1:1 \$\{fdt_addr_r\} rockchip/(\S+)\n", by_hand)
        assert tree
        self.assertIn(f"`{tree[1]}`", (folder / "README.md").read_text())
        self.assertTrue(by_hand.endswith("booti ${kernel_addr_r} - ${fdt_addr_r}\n"))

    def test_have_readmes_without_gaps(self) -> None:
        for name, folder in self.folders.items():
            text = (folder / "README.md").read_text()
            self.assertNotRegex(text, r"[{}]", name)
            self.assertIn("pages of 4 KiB", text)

    def test_are_not_made_of_what_is_no_image(self) -> None:
        self.image.write_bytes(b"no image")
        with self.assertRaisesRegex(ScriptError, "is no image"):
            boards.write(self.image, "", self.image.parent / "boards")


if __name__ == "__main__":
    unittest.main()
