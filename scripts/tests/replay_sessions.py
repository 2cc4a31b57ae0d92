"""Replays in the emulator: what must go through, and what must be noticed.

Not a unit test: `make test` runs it as the stage `replay`, when the kernel has been built.
"""

import json
import os
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

from lib.machine import RAM_BASE, Machine, RawBoot
from lib.matrix import IN_TURN
from lib.paths import BUILD, ROOT
from lib.replay_trace import PAGE
from tests.make_trace import make

TRACES = ROOT / "scripts" / "traces"

FAULTS = {
    # replay.break=NAME -> what the replay must say of it.
    "data": "word 0 of page 0 by the area holds",
    "protect": "of code is writable by the area",
    "frame": "frames: ",
    "area": "areas: ",
    "trace": "the trace in RAM has changed",
}
HANDED_ON = ("no-header", "last-line-cut-off", "size-0", "freed-twice", "cpu-4096", "compressed")
"""What the kernel must refuse by itself. Its reader is the crate trace-replay, whose tests have all of them."""

ODD_IMAGE_AT = RAM_BASE + 0x0400_0000
ODD_DTB_AT = RAM_BASE + 0x0800_0000


class Done:
    """A run of scripts/replay: its exit status, what it said, and the account it left."""

    def __init__(self, out: Path, variables: dict[str, str], *arguments: str) -> None:
        base = {name: value for name, value in os.environ.items() if name not in ("SMP", "MEM", "TRACE", "BOOTARGS", "INITRD")}
        done = subprocess.run(
            [sys.executable, "-B", "scripts/replay", *arguments],
            cwd=ROOT,
            env={**base, "OUT": str(out), **variables},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        self.status = done.returncode
        self.said = done.stdout + done.stderr
        account = out / "replay.json"
        self.runs = json.loads(account.read_text())["runs"] if account.is_file() else []


class Replaying(unittest.TestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory(prefix="vmwalk-replay-")
        self.addCleanup(folder.cleanup)
        self.out = Path(folder.name)

    def replay(self, variables: dict[str, str], *arguments: str) -> Done:
        return Done(self.out, variables, *arguments)

    def written(self, lines: list[str]) -> Path:
        path = self.out / "trace.csv"
        path.write_text("".join(line + "\n" for line in lines))
        return path

    def assert_clean(self, done: Done, smp: list[int]) -> None:
        self.assertEqual(done.status, 0, done.said)
        self.assertEqual([run["cpus"] for run in done.runs], smp)
        for run in done.runs:
            self.assertEqual((run["nr_failures"], run["failures"]), (0, []))

    def assert_on_four(self, *arguments: str) -> None:
        done = self.replay({"SMP": "4"}, "--quiet", *arguments)
        self.assert_clean(done, [4])
        self.assertNotIn("instructions", done.runs[0]["rows"][0], "they are counted on one CPU only")


class AtOnce(Replaying):
    """For the stage `counts`: four CPUs wait for one another at each TLBI where a host has two."""

    def test_the_boot_of_linux_goes_through_on_its_four_cpus(self) -> None:
        self.assert_on_four()


class Replays(Replaying):
    def test_the_boot_of_linux_goes_through_on_one_cpu_and_two_boots_count_the_same(self) -> None:
        done = self.replay({"SMP": "1"}, "--twice")
        self.assert_clean(done, [1])
        run = done.runs[0]
        self.assertTrue(all(row["instructions"]["total"] > 0 for row in run["rows"]))
        self.assertEqual(run["peak"]["live_areas"], 1434)
        counts = {(row["op"], row["kind"]): row for row in run["rows"]}
        # A fresh map takes one barrier of each kind and no invalidation, whatever it maps.
        for kind in ("vmalloc", "stack", "module", "vmap", "ioremap"):
            row = counts["alloc", kind]
            self.assertEqual((row["tlbi"], row["dsb"], row["isb"]), (0, row["count"], row["count"]), kind)

    def test_the_boot_of_linux_goes_through_on_its_four_cpus_in_turn(self) -> None:
        self.assert_on_four("--", *IN_TURN)

    def test_every_kind_goes_through_on_one_cpu_and_on_as_many_as_the_trace_has(self) -> None:
        path = self.written(list(make(seed=7, events=4_000, areas=400, mib=120, cpus=3)))
        done = self.replay({"TRACE": str(path)}, "--quiet", "--", *IN_TURN)
        self.assert_clean(done, [1, 3])
        self.assertGreater(done.runs[0]["trace"]["pre"], 0)
        self.assertGreater(done.runs[0]["trace"]["skipped"], 0)

    def test_a_trace_many_times_as_large_goes_through(self) -> None:
        path = self.written(list(make(seed=1, events=50_000, areas=2_400, mib=770)))
        done = self.replay({"TRACE": str(path), "SMP": "1"}, "--quiet")
        self.assert_clean(done, [1])
        self.assertGreater(done.runs[0]["peak"]["live_areas"], 2_300)

    def test_with_fewer_cpus_than_the_trace_has_each_takes_those_of_several(self) -> None:
        path = self.written(list(make(seed=8, events=1_500, areas=150, mib=20, cpus=8)))
        self.assert_clean(self.replay({"TRACE": str(path), "SMP": "2"}, "--quiet"), [2])

    def test_each_planted_fault_is_noticed(self) -> None:
        path = self.written(list(make(seed=9, events=300, areas=60, mib=8, cpus=2)))
        for name, words in FAULTS.items():
            with self.subTest(name):
                done = self.replay({"TRACE": str(path), "SMP": "1", "BOOTARGS": f"replay.break={name}"}, "--quiet")
                self.assertEqual(done.status, 1, done.said)
                self.assertIn("FAIL: ", done.said)
                self.assertIn(words, done.said)

    def test_the_host_refuses_a_malformed_trace_and_boots_nothing(self) -> None:
        path = TRACES / "refused" / "freed-twice.csv"
        done = self.replay({"TRACE": str(path), "QEMU": "/bin/false"})
        self.assertEqual(done.status, 1)
        self.assertIn("freed-twice.csv: line 4: id: 1 was freed on line 3", done.said)

    def test_the_kernel_refuses_a_malformed_trace_in_the_same_words(self) -> None:
        for name in HANDED_ON:
            with self.subTest(name):
                path = TRACES / "refused" / f"{name}.csv"
                if name == "compressed":
                    # Else scripts/replay would unpack it.
                    done = self.boot_with(path)
                else:
                    done = self.replay({"TRACE": str(path)}, "--unchecked").said
                self.assertIn(f"trace: {path.with_suffix('.txt').read_text().strip()}", done)
                self.assertNotIn("PASS", done)

    def test_too_little_ram_is_told_with_what_it_takes(self) -> None:
        done = self.replay({"MEM": "96M", "SMP": "1"})
        self.assertEqual(done.status, 1)
        self.assertRegex(done.said, r"it takes \d+ MiB of free RAM to replay it, and \d+ MiB are free")

    def test_a_boot_without_a_trace_says_so(self) -> None:
        self.assertIn("mode=replay takes a trace as the initrd, and there is none", self.boot_with(None))

    def boot_with(self, initrd: Path | None) -> str:
        machine = Machine(bootargs="mode=replay log=warn", initrd=initrd, image=BUILD / "Image", qemu=os.environ.get("QEMU") or Machine().qemu)
        return emulated(machine.command())

    def test_the_trace_is_kept_wherever_it_lies(self) -> None:
        text = self.written(list(make(seed=10, events=1_500, areas=100, mib=10, cpus=1)))
        size = text.stat().st_size
        end = RAM_BASE + (512 << 20)
        places = {
            "in no whole page": RAM_BASE + 0x0DEA_D123,
            "up to the last byte of RAM": end - size,
            "right behind the device tree": ODD_DTB_AT + (1 << 20),
        }
        for name, at in places.items():
            with self.subTest(name):
                said = self.boot_raw(text, at, size)
                self.assertIn('replay {"failures":0}', said)
        with self.subTest("past the end of RAM"):
            self.assertIn("which does not lie in RAM", self.boot_raw(text, end - PAGE, size))

    def boot_raw(self, trace: Path, at: int, size: int) -> str:
        """Boots with `trace` at `at`, and a device tree that says so."""
        machine = Machine(
            bootargs="mode=replay log=warn",
            mem="512M",
            initrd=trace,
            image=BUILD / "Image",
            qemu=os.environ.get("QEMU") or Machine().qemu,
        )
        dtb = self.out / "tree.dtb"
        dtb.unlink(missing_ok=True)
        emulated(machine.dump_dtb_command(dtb))
        tree = moved(dtb.read_bytes(), at, size)
        dtb.write_bytes(tree)
        boot = RawBoot(ODD_IMAGE_AT, ODD_DTB_AT, dtb)
        stub = self.out / "stub"
        stub.write_bytes(boot.stub())
        command = machine.raw_command(boot, stub)
        # What does not fit into RAM cannot be loaded; the kernel must not look there anyway.
        if at + size <= RAM_BASE + (512 << 20):
            command += ["-device", f"loader,file={trace},addr={at:#x},force-raw=on"]
        return emulated(command)


def moved(dtb: bytes, at: int, size: int) -> bytes:
    """A device tree whose initrd is at `at`: the same, but for two numbers in /chosen."""
    names = dtb[int.from_bytes(dtb[12:16], "big") :]
    for name, value in ((b"linux,initrd-start\0", at), (b"linux,initrd-end\0", at + size)):
        # FDT_PROP, length, offset of the name, then the value.
        for width in (4, 8):
            head = (3).to_bytes(4, "big") + width.to_bytes(4, "big") + names.index(name).to_bytes(4, "big")
            if (found := dtb.find(head)) >= 0:
                start = found + len(head)
                dtb = dtb[:start] + value.to_bytes(width, "big") + dtb[start + width :]
                break
        else:
            raise AssertionError(f"no {name!r} in the emulator's device tree")
    return dtb


def emulated(command: list[str]) -> str:
    done = subprocess.run(command, cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", timeout=300, check=False)
    return done.stdout + done.stderr


if __name__ == "__main__":
    unittest.main()
