"""What is fetched for a newer emulator, and what runs it."""

import tempfile
import unittest
from pathlib import Path
from unittest import mock

from lib import qemu_new, unpacked
from lib.unpacked import Unpacked

PLAN = """\
Reading package lists...
Inst gcc-16-base (16-20260101-1 Debian:unstable [amd64])
Inst libc6 (2.42-5 Debian:unstable [amd64]) []
Inst qemu-system-arm (1:11.1.3+ds-1 Debian:unstable [amd64])
Conf libc6 (2.42-5 Debian:unstable [amd64])
"""


class ANewerEmulator(unittest.TestCase):
    def test_comes_with_all_that_it_needs(self) -> None:
        with mock.patch.object(unpacked, "run", return_value=PLAN):
            self.assertEqual(qemu_new.QEMU.packages([]), ["gcc-16-base=16-20260101-1", "libc6=2.42-5", "qemu-system-arm=1:11.1.3+ds-1"])
        with mock.patch.object(unpacked, "run", return_value=None):
            self.assertEqual(qemu_new.QEMU.packages([]), [])

    def test_is_run_by_the_loader_that_came_with_it(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            root, program = Path(folder) / "root", Path(folder) / "bin" / "qemu-new"
            for name in ("usr/lib/any-linux-gnu/ld-linux-any.so.2", "usr/lib/any-linux-gnu/libc.so.6", "usr/lib/any-linux-gnu/deep/libdeep.so.1"):
                (root / name).parent.mkdir(parents=True, exist_ok=True)
                (root / name).write_text("#!/bin/sh\necho \"$@\"\n")
                (root / name).chmod(0o755)
            qemu = Unpacked(Path(folder), program, qemu_new.QEMU.package, qemu_new.QEMU.command)
            qemu.wrap()
            with mock.patch.object(qemu_new, "QEMU", qemu):
                said = qemu_new.version()
            self.assertEqual(said, f"--library-path {root}/usr/lib/any-linux-gnu:{root}/usr/lib/any-linux-gnu/deep {root}/usr/bin/qemu-system-aarch64 -L {root}/usr/share/qemu --version")

    def test_that_does_not_start_is_none(self) -> None:
        with mock.patch.object(qemu_new, "QEMU", Unpacked(Path("/"), Path("/bin/false"), "", "")):
            self.assertIsNone(qemu_new.version())
