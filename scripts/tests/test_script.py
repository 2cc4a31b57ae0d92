"""What all scripts share: one line for whatever is wrong, and nothing left behind, however they end."""

import os
import pty
import signal
import stat
import subprocess
import sys
import tempfile
import time
import unittest
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BOOTING = ("run", "debug", "shell", "ptmap", "replay", "bench", "lines", "soak", "test")
MACHINE = ("CPU", "SMP", "MEM", "GIC", "EL2", "BOOTARGS", "IMAGE", "INITRD", "GDBCMD", "BENCH", "BENCH_WALKERS", "TRACE", "STAGES", "OUT", "MAKELEVEL")
PATIENCE = 30.0
"""Seconds for what takes none: a busy host is no failure."""


def clean() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name not in MACHINE}


def eventually(holds: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + PATIENCE
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def is_gone(pid: int) -> bool:
    """Whether the process has ended; whoever is to take note of that may be slow."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except FileNotFoundError:
        return True


def setUpModule() -> None:
    """A job in the background, or under nohup, has these ignored, and all that it starts inherits that."""
    for number, handler in ((signal.SIGHUP, signal.SIG_DFL), (signal.SIGINT, signal.default_int_handler)):
        unittest.addModuleCleanup(signal.signal, number, signal.signal(number, handler))


class Folder(unittest.TestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory(prefix="vmwalk-test-")
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)

    def executable(self, name: str, body: str) -> Path:
        path = self.folder / name
        path.write_text(f"#!/bin/sh\n{body}\n")
        path.chmod(0o755)
        return path

    def pids(self, *names: str) -> list[int]:
        """What the emulator's processes wrote of themselves, when they have."""
        paths = [self.folder / name for name in names]
        self.assertTrue(eventually(lambda: all(path.exists() and path.read_text().endswith("\n") for path in paths)), f"no {names}")
        return [int(path.read_text()) for path in paths]

    def assert_gone(self, *pids: int) -> None:
        for pid in pids:
            self.assertTrue(eventually(lambda pid=pid: is_gone(pid)), f"process {pid} is left")


class AnythingWrong(Folder):
    def answer(self, script: str, *arguments: str, **variables: str) -> tuple[int, str]:
        """The status, and what was said last."""
        environment = {**clean(), "TIMEOUT": "3", "STAGES": "boot", "OUT": str(self.folder / "out"), **variables}
        command = [f"scripts/{script}", *arguments]
        done = subprocess.run(command, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", timeout=120)
        self.assertNotIn("Traceback", done.stderr + done.stdout)
        self.assertNotIn("a fault of this script", done.stderr)
        said = (done.stderr or done.stdout).strip().splitlines()
        self.assertTrue(said, f"{command} says nothing")
        return done.returncode, said[-1]

    def test_an_emulator_that_cannot_be_started_is_one_line(self) -> None:
        (self.folder / "file").write_text("no program")
        for script in BOOTING:
            for emulator, what in (("/no/such/emulator", "no such program"), (str(self.folder), "is not executable"), (str(self.folder / "file"), "is not executable")):
                with self.subTest(script=script, emulator=emulator):
                    status, said = self.answer(script, QEMU=emulator)
                    self.assertEqual(status, 1, said)
                    self.assertRegex(said, rf"^\w+: (FAIL: )?{emulator}: {what}$")

    def test_an_emulator_that_is_none_is_one_line(self) -> None:
        nonsense = self.executable("nonsense", r"printf '\377\376 bench {\nbench {\"machine\":7}\nreplay {\nlines {\nptmap {\n'")
        for script in ("run", "shell", "ptmap", "replay", "bench", "lines"):
            for emulator in ("/bin/true", "/bin/false", str(nonsense)):
                with self.subTest(script=script, emulator=emulator):
                    status, said = self.answer(script, QEMU=emulator, IMAGE=str(nonsense))
                    self.assertEqual(status, 1, said)
                    self.assertRegex(said, rf"^({script}|make): ")

    def test_a_setting_that_makes_no_sense_is_one_line(self) -> None:
        for script in ("run", "debug", "shell", "ptmap", "replay", "bench", "lines"):
            for name, value in (("TIMEOUT", "soon"), ("TIMEOUT", "nan"), ("TIMEOUT", "-1")):
                with self.subTest(script=script, name=name, value=value):
                    status, said = self.answer(script, QEMU="/bin/true", **{name: value})
                    self.assertEqual(status, 2, said)
                    self.assertIn(f"{name} is a number of seconds", said)
        status, said = self.answer("test", STAGES="no-such-stage")
        self.assertEqual(status, 2, said)
        self.assertIn("test: no such stage: no-such-stage", said)

    def test_a_file_that_is_none_is_one_line_that_names_it(self) -> None:
        text, binary, broken = self.folder / "text", self.folder / "binary", self.folder / "elf"
        text.write_text("some text\n")
        binary.write_bytes(bytes(range(256)) * 4)
        # The first bytes of an AArch64 ELF file whose tables lie far behind its end.
        broken.write_bytes(b"\x7fELF\x02\x01\x01" + bytes(9) + b"\x02\x00\xb7\x00" + b"\xff" * 100)
        empty = self.folder / "empty"
        empty.touch()
        away = self.folder / "none"
        for file in (text, binary, broken, empty, away, self.folder):
            for script, arguments, variables in (
                ("ptmap", ("--dump", str(file), "--out", str(self.folder / "x.svg")), {}),
                ("bench", ("--base", str(file)), {}),
                ("bench", ("--add-to-baseline", str(file)), {}),
                ("lines", ("--base", str(file)), {}),
                ("replay", ("--need",), {"TRACE": str(file)}),
                ("flatten", (str(file), str(self.folder / "flat")), {}),
                ("check-boot-pic.py", (str(file),), {}),
                ("check-silicon.py", (str(file),), {}),
            ):
                with self.subTest(script=script, arguments=arguments, file=file.name):
                    status, said = self.answer(script, *arguments, **variables)
                    self.assertEqual(status, 1, said)
                    self.assertIn(str(file), said)

    def test_where_nothing_can_be_written_is_said_before_anything_runs(self) -> None:
        status, said = self.answer("bench", OUT="/dev/null/out", QEMU="/bin/true")
        self.assertEqual((status, said), (2, "bench: FAIL: OUT=/dev/null/out: nothing can be written to /dev/null"))


class ASignal(Folder):
    """Whatever is sent to whichever process: the emulator does not stay behind."""

    def emulator(self) -> Path:
        """Not the emulator itself, but a shell script around it, as QEMU= may be."""
        return self.executable("emulator", f"echo $$ >{self.folder}/pid; sleep 600 & echo $! >{self.folder}/child; echo up; wait")

    def alone(self) -> Path:
        return self.executable("alone", f"echo $$ >{self.folder}/pid; echo up; exec sleep 600")

    def makefile(self, recipe: str) -> list[str]:
        path = self.folder / "Makefile"
        path.write_text(f"go:\n\t@true && exec {recipe}\n")
        return ["make", "-s", "-f", str(path), "go"]

    def start(self, command: list[str], emulator: Path, **variables: str) -> "subprocess.Popen[bytes]":
        environment = {**clean(), "QEMU": str(emulator), "TIMEOUT": "600", **variables}
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True)
        self.addCleanup(self.clean_up, process)
        return process

    def clean_up(self, process: "subprocess.Popen[bytes]") -> None:
        """A test that fails leaves nothing behind, either."""
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        process.wait()
        assert process.stderr
        process.stderr.close()
        for name in ("pid", "child"):
            if (file := self.folder / name).exists() and (text := file.read_text().strip()) and not is_gone(int(text)):
                os.kill(int(text), signal.SIGKILL)

    def test_ends_a_script_with_its_emulator_and_all_that_this_started(self) -> None:
        for script, number in (("run", signal.SIGTERM), ("run", signal.SIGHUP), ("run", signal.SIGINT), ("ptmap", signal.SIGINT), ("ptmap", signal.SIGTERM), ("replay", signal.SIGTERM)):
            with self.subTest(script=script, signal=number):
                for name in ("pid", "child"):
                    (self.folder / name).unlink(missing_ok=True)
                process = self.start([f"scripts/{script}"], self.emulator())
                started = self.pids("pid", "child")
                process.send_signal(number)
                assert process.stderr
                self.assertEqual(process.stderr.read(), b"")
                self.assertEqual(process.wait(PATIENCE), 128 + number)
                self.assert_gone(*started)

    def test_to_make_ends_what_make_runs(self) -> None:
        process = self.start(self.makefile("scripts/run"), self.emulator())
        started = self.pids("pid", "child")
        process.send_signal(signal.SIGTERM)
        process.wait(PATIENCE)
        self.assert_gone(*started)

    def test_that_kills_make_ends_what_make_runs(self) -> None:
        process = self.start(self.makefile("scripts/run"), self.emulator())
        started = self.pids("pid", "child")
        process.kill()
        process.wait(PATIENCE)
        self.assert_gone(*started)

    def test_that_kills_the_script_ends_the_emulator(self) -> None:
        process = self.start(["scripts/run"], self.alone())
        (started,) = self.pids("pid")
        process.kill()
        process.wait(PATIENCE)
        self.assert_gone(started)

    def test_ends_the_host_part_of_a_soak_with_all_that_cargo_started(self) -> None:
        self.emulator().rename(self.folder / "cargo")
        (self.folder / "toolchain").write_text("made-up\n")
        (self.folder / "toolchain-made-up.env").write_text(f"PATH='{self.folder}':$PATH\nkernel_flags=\n")
        for command, number in ((["scripts/soak"], signal.SIGTERM), (self.makefile("scripts/soak"), signal.SIGTERM), (["scripts/soak"], signal.SIGKILL)):
            with self.subTest(command=command, signal=number):
                for name in ("pid", "child"):
                    (self.folder / name).unlink(missing_ok=True)
                process = self.start(command, Path("/bin/true"), BUILD=str(self.folder), SOAK="2", TOOLCHAIN="")
                cargo, child = self.pids("pid", "child")
                process.send_signal(number)
                process.wait(PATIENCE)
                self.assert_gone(cargo)
                if number != signal.SIGKILL:
                    self.assert_gone(child)
                else:
                    os.kill(child, signal.SIGKILL)

    def test_that_kills_make_test_ends_the_boots(self) -> None:
        # As a stage boots: several at once in threads, more of them waiting.
        stage = """
from concurrent.futures import ThreadPoolExecutor
from lib import cases, script
def main(_):
    with ThreadPoolExecutor(2) as pool:
        return max(pool.map(lambda i: cases.run_logged(f"x{i}", ["scripts/run"], 600.0).status, range(6)))
script.run("x", main)
"""
        for number in (signal.SIGKILL, signal.SIGTERM):
            with self.subTest(signal=number):
                (self.folder / "pid").unlink(missing_ok=True)
                process = self.start([sys.executable, "-B", "-c", stage], self.alone(), PYTHONPATH="scripts", BUILD=str(self.folder))
                (started,) = self.pids("pid")
                process.send_signal(number)
                process.wait(PATIENCE)
                self.assert_gone(started)


class ATerminalThatGoesAway(Folder):
    def session(self, command: list[str], **variables: str) -> tuple[int, int]:
        """The command as the leader of a terminal's session: its process, and the terminal's other end."""
        emulator = self.executable("emulator", f"echo $$ >{self.folder}/pid; echo up; exec sleep 600")
        environment = {**clean(), "QEMU": str(emulator), "TIMEOUT": "600", **variables}
        pid, terminal = pty.fork()
        if pid == 0:
            try:
                os.chdir(ROOT)
                os.execvpe(command[0], command, environment)
            finally:
                os._exit(127)
        return pid, terminal

    def test_ends_the_script_and_its_emulator(self) -> None:
        makefile = self.folder / "Makefile"
        for script in ("shell", "run", "ptmap"):
            # make gets the signal, and waits for what it runs.
            makefile.write_text(f"go:\n\t@true && exec scripts/{script}\n")
            for command in ([f"scripts/{script}"], ["make", "-f", str(makefile), "go"]):
                with self.subTest(command=command):
                    (self.folder / "pid").unlink(missing_ok=True)
                    pid, terminal = self.session(command)
                    started = self.pids("pid")
                    os.close(terminal)
                    self.assert_gone(*started)
                    os.waitpid(pid, 0)


class TheExecutables(unittest.TestCase):
    def test_all_python_scripts_have_the_one_way_in_and_leave_nothing_in_the_checkout(self) -> None:
        for path in sorted((ROOT / "scripts").iterdir()):
            if path.is_file() and path.stat().st_mode & stat.S_IXUSR and b"python" in path.read_bytes().partition(b"\n")[0]:
                with self.subTest(path.name):
                    self.assertTrue(path.read_text().startswith("#!/usr/bin/env -S python3 -B\n"))
                    self.assertRegex(path.read_text(), r'(?m)^    script\.run\("[\w-]+(: FAIL)?", main\)$')


if __name__ == "__main__":
    unittest.main()
