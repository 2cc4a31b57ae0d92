"""What scripts/build leaves, and where: with a cargo made up here, which links at once."""

import os
import shutil
import subprocess
import tempfile
import unittest
from pathlib import Path

from tests.test_flatten import BASE, elf, header

SCRIPTS = Path(__file__).resolve().parents[1]

CARGO = """#!/bin/sh
# Each build links another kernel, and takes a moment for it, as each would do with other features.
[ "$1" = build ] || exit 1
dir=$CARGO_TARGET_DIR/aarch64-unknown-none-softfloat/release
mkdir -p "$dir"
cp "$KERNEL" "$dir/vmwalk"
sleep 0.1
"""


class ACheckout(unittest.TestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory(prefix="vmwalk-build-")
        self.addCleanup(folder.cleanup)
        self.root = Path(folder.name) / "a checkout"
        for name in ("scripts", "bin", "build"):
            (self.root / name).mkdir(parents=True)
        for name in ("build", "cargo", "flatten", "clean"):
            shutil.copy(SCRIPTS / name, self.root / "scripts" / name)
        shutil.copytree(SCRIPTS / "lib", self.root / "scripts/lib", ignore=shutil.ignore_patterns("__pycache__"))
        cargo = self.root / "bin/cargo"
        cargo.write_text(CARGO)
        cargo.chmod(0o755)
        self.record(self.root / "build")
        self.kernels = []
        for number in range(4):
            # Of different lengths, so that two in one file would show.
            code = bytes([number]) * (4096 * (number + 1))
            self.kernels.append((self.root / f"kernel-{number}", code))
            self.kernels[-1][0].write_bytes(elf((BASE, header(1 << 20) + code)))

    def record(self, build: Path) -> None:
        build.mkdir(parents=True, exist_ok=True)
        (build / "toolchain").write_text("made-up\n")
        (build / "toolchain-made-up.env").write_text(f"PATH='{self.root}/bin':$PATH\nkernel_flags=\n")

    def start(self, kernel: int = 0, **variables: str) -> "subprocess.Popen[str]":
        base = {name: value for name, value in os.environ.items() if name not in ("BUILD", "OUT", "PROFILE", "TRACE", "TOOLCHAIN", "CARGO_TARGET_DIR")}
        env = {**base, "KERNEL": str(self.kernels[kernel][0]), **variables}
        return subprocess.Popen([self.root / "scripts/build"], env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, text=True)

    def build(self, status: int = 0, **variables: str) -> str:
        process = self.start(**variables)
        said, _ = process.communicate(timeout=60)
        self.assertEqual(process.returncode, status, said)
        return said

    def files(self, folder: Path) -> list[str]:
        return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


class Builds(ACheckout):
    def test_of_a_page_size_that_there_is_not_is_refused_in_one_line(self) -> None:
        environment = {"PATH": f"{self.root}/bin:/usr/bin:/bin", "GRANULE": "8K"}
        done = subprocess.run(["scripts/build"], cwd=self.root, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)
        self.assertEqual((done.returncode, done.stderr), (1, "build: GRANULE is 4K, 16K or 64K, not '8K'\n"))

    def test_of_bits_of_address_that_the_pages_do_not_have_is_refused_in_one_line(self) -> None:
        goes_with = "VA=39 goes with GRANULE=4K, 47 with 16K and 42 with 64K"
        both = "VA and PA are both 48 or both 52, or VA is 39, 42 or 47 and PA 48"
        for granule, va, pa, says in (("16K", "39", "48", goes_with), ("4K", "42", "48", goes_with), ("4K", "52", "48", both), ("64K", "42", "52", both), ("4K", "40", "48", both)):
            environment = {"PATH": f"{self.root}/bin:/usr/bin:/bin", "GRANULE": granule, "VA": va, "PA": pa}
            done = subprocess.run(["scripts/build"], cwd=self.root, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)
            self.assertEqual(done.returncode, 1, environment)
            self.assertRegex(done.stderr, rf"^build: {says}, not VA={va} .*\n$")

    def test_at_once_in_one_checkout_all_succeed_and_leave_one_of_them_whole(self) -> None:
        for _ in range(3):
            processes = [self.start(kernel) for kernel in range(4)]
            for process in processes:
                said, _ = process.communicate(timeout=60)
                self.assertEqual(process.returncode, 0, said)
            out = self.root / "build"
            left = (out / "vmwalk.elf").read_bytes()
            whole = [code for path, code in self.kernels if path.read_bytes() == left]
            self.assertEqual(len(whole), 1)
            # The image is that of this kernel, not of another.
            self.assertTrue((out / "Image").read_bytes().endswith(whole[0][-4096:]))
            self.assertEqual(len((out / "Image").read_bytes()), len(whole[0]) + 64)
            self.assertEqual(self.files(out), ["Image", "toolchain", "toolchain-made-up.env", "vmwalk.elf"])

    def test_go_to_the_folder_that_build_names_and_nowhere_else(self) -> None:
        before = self.files(self.root)
        for name in ("elsewhere", str(self.root.parent / "far away")):
            folder = self.root / name
            self.record(folder)
            self.build(BUILD=name)
            built = ["Image", "target/made-up/aarch64-unknown-none-softfloat/release/vmwalk", "target/made-up/vmwalk.lock", "toolchain"]
            self.assertEqual(self.files(folder), [*built, "toolchain-made-up.env", "vmwalk.elf"])
        self.assertEqual([name for name in self.files(self.root) if not name.startswith("elsewhere")], before)

    def test_where_nothing_can_be_written_say_so_in_a_line(self) -> None:
        (self.root / "a file").touch()
        said = self.build(status=1, OUT="a file/build")
        self.assertEqual(said, "build: a file/build cannot be written; BUILD=DIR builds elsewhere\n")


class Clean(ACheckout):
    def clean(self, **variables: str) -> None:
        subprocess.run([self.root / "scripts/clean"], env={"PATH": os.environ["PATH"], **variables}, check=True)

    def test_removes_the_default_folders(self) -> None:
        self.build()
        self.clean()
        self.assertFalse((self.root / "build").exists() or (self.root / "target").exists())

    def test_removes_of_another_folder_only_what_was_built(self) -> None:
        folder = self.root / "elsewhere"
        self.record(folder)
        self.build(BUILD="elsewhere")
        (folder / "thesis.tex").touch()
        self.clean(BUILD="elsewhere")
        self.assertEqual(self.files(folder), ["thesis.tex"])
        self.assertTrue((self.root / "build/toolchain").exists())


if __name__ == "__main__":
    unittest.main()
