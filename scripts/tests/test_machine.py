"""The emulator's command line, from the Makefile's variables."""

import dataclasses
import os
import re
import struct
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path
from unittest import mock

from lib import accel, firmware
from lib.machine import (
    RAM_BASE,
    STUB_AT,
    BadSetting,
    Machine,
    RawBoot,
    asks_for_tests,
    needs_small_pages,
    page_size,
    parallel_boots,
    parse_seconds,
    ram_for_tests,
)
from lib.paths import ROOT


class TheMachine(unittest.TestCase):
    def option(self, command: list[str], name: str) -> str:
        return command[command.index(name) + 1]

    def test_of_an_empty_environment_is_the_default_one(self) -> None:
        self.assertEqual(Machine.from_environment({}), Machine())
        self.assertEqual(Machine.from_environment({"CPU": "", "EL2": "", "MEM": ""}), Machine())

    def test_follows_each_variable(self) -> None:
        variables = {"CPU": "cortex-a53", "SMP": "4", "MEM": "8G", "GIC": "2", "EL2": "1", "BOOTARGS": "seed=1 log=debug"}
        files = {"QEMU": "my-qemu", "IMAGE": "other/Image", "INITRD": "some.cpio"}
        command = Machine.from_environment({**variables, **files}).command()
        self.assertEqual(command[0], "my-qemu")
        self.assertEqual(self.option(command, "-M"), "virt,gic-version=2,virtualization=on")
        for name, value in (("-cpu", "cortex-a53"), ("-smp", "4"), ("-m", "8G"), ("-append", "seed=1 log=debug")):
            self.assertEqual(self.option(command, name), value)
        self.assertEqual(self.option(command, "-kernel"), "other/Image")
        self.assertEqual(self.option(command, "-initrd"), "some.cpio")

    def test_has_no_display_no_network_card_and_does_not_reboot(self) -> None:
        command = Machine().command()
        self.assertEqual((self.option(command, "-display"), self.option(command, "-nic")), ("none", "none"))
        self.assertIn("-no-reboot", command)

    def test_boots_at_el1_unless_told(self) -> None:
        self.assertNotIn("virtualization", self.option(Machine.from_environment({"EL2": "0"}).command(), "-M"))

    def test_refuses_a_switch_that_is_neither_on_nor_off(self) -> None:
        with self.assertRaisesRegex(BadSetting, "EL2 is 1 or 0, not 'yes'"):
            Machine.from_environment({"EL2": "yes"})

    def test_refuses_what_the_emulator_would_take_and_no_kernel_could_run_on(self) -> None:
        for name, values in {
            "SMP": ("0", "-1", "two", "1.5", "4,sockets=2"),
            "MEM": ("0", "lots", "-1G", "1GiB", "M"),
            "GIC": ("1", "7", "max"),
        }.items():
            for value in values:
                with self.subTest(name=name, value=value), self.assertRaisesRegex(BadSetting, f"^{name} is .*, not '{value}'$"):
                    Machine.from_environment({name: value})
        for name, values in {"SMP": ("1", "07", "32"), "MEM": ("128", "64M", "2g", "size=1G,maxmem=2G"), "GIC": ("2", "3")}.items():
            for value in values:
                Machine.from_environment({name: value})

    def test_asks_the_emulator_whether_a_processor_is_aarch64(self) -> None:
        def emulator(says: str) -> str:
            path = Path(folder) / "emulator"
            path.write_text(f"#!/bin/sh\n{says}\n")
            path.chmod(0o755)
            return str(path)

        greeting = """echo '{"QMP": {}}'; echo '{"return": {}}'; """
        with tempfile.TemporaryDirectory(prefix="vmwalk-cpu-") as folder:
            gone = emulator(greeting + """echo '{"id": "aarch64", "error": {"desc": "Property not found"}}'""")
            with self.assertRaisesRegex(BadSetting, "^CPU=cortex-a15 has no AArch64 state"):
                Machine.from_environment({"CPU": "cortex-a15", "QEMU": gone})
            # The default is not asked for.
            Machine.from_environment({"CPU": "max", "QEMU": gone})
            Machine.from_environment({"CPU": "cortex-a53", "QEMU": emulator(greeting + """echo '{"id": "aarch64", "return": true}'""")})
            # What an emulator that says nothing of it lacks is told when it boots.
            for says in ("exit 1", "echo unable to find CPU model >&2; exit 1", "echo []; echo '{'", "cat"):
                Machine.from_environment({"CPU": "cortex-a53", "QEMU": emulator(says)})
            Machine.from_environment({"CPU": "cortex-a53", "QEMU": str(Path(folder) / "none")})

    def test_with_less_ram_than_the_tests_take_is_refused_with_what_they_take(self) -> None:
        for cpus in ("1", "8"):
            needed = ram_for_tests(int(cpus))
            Machine(mem=f"{needed}M", smp=cpus).check_for_tests()
            with self.assertRaisesRegex(BadSetting, f"^MEM={needed - 1}M is too little: the self-tests take MEM={needed}M with SMP={cpus}$"):
                Machine(mem=f"{needed - 1}M", smp=cpus).check_for_tests()

    def test_is_judged_before_anything_boots(self) -> None:
        env = {**os.environ, "QEMU": "/bin/false"}
        for variables, says in (({"SMP": "0"}, "SMP is "), ({"MEM": "8M"}, "MEM=8M is too little")):
            done = subprocess.run([ROOT / "scripts/run"], env={**env, **variables}, capture_output=True, text=True)
            self.assertEqual((done.returncode, done.stdout), (2, ""))
            self.assertRegex(done.stderr, f"^run: {says}[^\n]*\n$")

    def test_with_firmware_boots_from_a_disk_with_what_the_firmware_wants(self) -> None:
        machine = Machine.from_environment({"FIRMWARE": "uefi", "EL2": "1"})
        with self.assertRaisesRegex(BadSetting, "FIRMWARE is for make run"):
            machine.command()
        with tempfile.TemporaryDirectory() as folder, mock.patch.object(firmware, "UNPACKED", Path(folder)):
            for name in firmware.EDK2:
                (Path(folder) / name).parent.mkdir(parents=True)
                (Path(folder) / name).touch()
            line = dataclasses.replace(machine, disk=Path("/a/disk.img")).command()
        self.assertIn("virtualization=on,acpi=off", line[2])
        self.assertTrue(line[line.index("-bios") + 1].endswith("QEMU_EFI.fd"))
        self.assertIn("/a/disk.img", line[line.index("-drive") + 1])
        self.assertNotIn("-kernel", line)

    def test_refuses_firmware_that_there_is_not_and_what_it_would_not_pass_on(self) -> None:
        with self.assertRaisesRegex(BadSetting, "FIRMWARE is uefi or "):
            Machine.from_environment({"FIRMWARE": "bios"})
        with self.assertRaisesRegex(BadSetting, "INITRD goes without FIRMWARE"):
            Machine.from_environment({"FIRMWARE": "uefi", "INITRD": "/x"})
        with mock.patch.object(firmware.Path, "is_file", return_value=False), self.assertRaisesRegex(firmware.Unavailable, "scripts/setup firmware"):
            firmware.of("u-boot").path()

    def test_passes_extra_arguments_last(self) -> None:
        self.assertEqual(Machine(extra=("-icount", "shift=0")).command()[-2:], ["-icount", "shift=0"])

    def test_refuses_a_timeout_that_is_no_time(self) -> None:
        for value in ("soon", "0", "-1", "nan", "inf", ""):
            with self.subTest(value=value), self.assertRaises(BadSetting):
                parse_seconds("TIMEOUT", value)
        self.assertEqual(parse_seconds("TIMEOUT", "2.5"), 2.5)


AARCH64 = {"linux": ("Linux", "aarch64"), "mac": ("Darwin", "arm64")}


class OnTheHostsCpu(unittest.TestCase):
    """ACCEL: the command lines, and each thing that can be missing. No host here has all."""

    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.kvm = self.folder / "kvm"
        self.kvm.touch()

    def emulator(self, says: str) -> str:
        path = self.folder / "qemu"
        path.write_text(f"#!/bin/sh\n{says}\n")
        path.chmod(0o755)
        return str(path)

    def machine(self, **variables: str) -> Machine:
        with mock.patch.object(accel, "check_host"):
            return Machine.from_environment(variables)

    def refused(self, host: accel.Host, name: str, qemu: str = "none") -> str:
        with self.assertRaises(BadSetting) as raised:
            accel.check_host(name, qemu, host)
        self.assertNotIn("\n", str(raised.exception))
        return str(raised.exception)

    def test_kvm_has_the_cpu_and_the_interrupt_controller_of_the_host(self) -> None:
        command = self.machine(ACCEL="kvm", SMP="4").command()
        self.assertEqual(command[1:7], ["-M", "virt,gic-version=host,accel=kvm", "-cpu", "host", "-smp", "4"])
        self.assertFalse({"-icount", "-accel"} & set(command))
        # The Makefile's default, and an interrupt controller that KVM may emulate.
        command = self.machine(ACCEL="kvm", CPU="max", GIC="2").command()
        self.assertEqual(command[1:5], ["-M", "virt,gic-version=2,accel=kvm", "-cpu", "host"])

    def test_hvf_leaves_the_interrupt_controller_to_the_emulator(self) -> None:
        self.assertEqual(self.machine(ACCEL="hvf", CPU="host").command()[1:5], ["-M", "virt,accel=hvf", "-cpu", "host"])
        self.assertEqual(self.machine(ACCEL="hvf", GIC="3").command()[2], "virt,gic-version=3,accel=hvf")

    def test_tcg_is_the_default(self) -> None:
        self.assertEqual(Machine.from_environment({"ACCEL": "tcg"}), Machine())
        with self.assertRaisesRegex(BadSetting, "^ACCEL is kvm, hvf or tcg, not 'xen'$"):
            Machine.from_environment({"ACCEL": "xen"})

    def test_what_makes_no_sense_with_it_is_refused(self) -> None:
        for variables, says in (
            ({"EL2": "1"}, "^EL2=1 goes without ACCEL=kvm: EL2 is the hypervisor's$"),
            ({"CPU": "cortex-a53"}, "^CPU=cortex-a53 goes without ACCEL=kvm, which has the host's$"),
            ({"GIC": "4"}, "^GIC is 2 or 3, not '4'$"),
        ):
            with self.subTest(variables), self.assertRaisesRegex(BadSetting, says):
                self.machine(ACCEL="kvm", **variables)
        with self.assertRaisesRegex(BadSetting, "^GIC is 2 or 3, not 'host'$"):
            Machine.from_environment({"GIC": "host"})

    def test_what_only_a_translation_has_is_refused(self) -> None:
        machine = self.machine(ACCEL="kvm")
        for extra in (("-icount", "shift=0"), ("-accel", "tcg,thread=single"), ("-plugin", "a.so")):
            with self.subTest(extra), self.assertRaisesRegex(BadSetting, f"^{extra[0]} goes without ACCEL=kvm, which translates nothing$"):
                dataclasses.replace(machine, extra=extra).command()

    def test_what_the_host_lacks_is_said(self) -> None:
        linux, mac = (accel.Host(*host, self.kvm) for host in AARCH64.values())
        self.assertIsNone(linux.missing("kvm"))
        self.assertIsNone(mac.missing("hvf"))
        self.assertEqual(self.refused(accel.Host("Linux", "x86_64", self.kvm), "kvm"), "ACCEL=kvm runs the guest on the host's CPU, which has to be AArch64, and is x86_64")
        self.assertIn("needs Linux, and this is Darwin (ACCEL=hvf", self.refused(mac, "kvm"))
        self.assertEqual(self.refused(linux, "hvf"), "ACCEL=hvf needs macOS, and this is Linux")
        self.assertIn("which has to be AArch64", self.refused(accel.Host("Darwin", "x86_64"), "hvf"))
        gone = accel.Host("Linux", "aarch64", self.folder / "gone")
        self.assertRegex(self.refused(gone, "kvm"), "^ACCEL=kvm needs .*/gone, which is not there")
        with mock.patch("os.access", return_value=False):
            self.assertRegex(self.refused(linux, "kvm"), "^ACCEL=kvm: no permission to open .*/kvm")

    def test_an_emulator_without_it_is_refused(self) -> None:
        linux = accel.Host("Linux", "aarch64", self.kvm)
        without = self.emulator("printf 'Accelerators supported in QEMU binary:\\ntcg\\nxen\\n'")
        self.assertEqual(self.refused(linux, "kvm", without), f"ACCEL=kvm: {without} is built without it (it has tcg, xen)")
        accel.check_host("kvm", self.emulator("printf 'Accelerators supported in QEMU binary:\\nkvm\\ntcg\\n'"), linux)
        # What it does not say is found out when it boots.
        for says in ("exit 1", "echo nothing"):
            accel.check_host("kvm", self.emulator(says), linux)

    def test_every_script_that_boots_says_it_in_one_line(self) -> None:
        env = {**os.environ, "ACCEL": "hvf", "QEMU": "/bin/false", "IMAGE": "/nowhere"}
        for words in (["run"], ["run", "--check"], ["shell"], ["ptmap"], ["bench"], ["replay"], ["debug"], ["lines"]):
            done = subprocess.run([ROOT / "scripts" / words[0], *words[1:]], env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True)
            with self.subTest(words):
                self.assertEqual((done.returncode, done.stdout), (2, ""))
                self.assertRegex(done.stderr, r"^\w+: (FAIL: )?.*ACCEL=hvf[^\n]*\n$")


class AnImage(unittest.TestCase):
    def image(self, flags: int, magic: bytes = b"ARM\x64") -> Path:
        file = tempfile.NamedTemporaryFile(prefix="vmwalk-image-", delete=False)
        self.addCleanup(os.unlink, file.name)
        with file:
            file.write(struct.pack("<24xQ24x4s4x", flags, magic))
        return Path(file.name)

    def test_says_the_size_of_its_pages_in_its_header(self) -> None:
        for flags, size in ((0xA, 4096), (0xC, 16384), (0xE, 65536), (0x8, None)):
            with self.subTest(flags=flags):
                self.assertEqual(page_size(self.image(flags)), size)
        self.assertIsNone(page_size(self.image(0xC, b"ELF ")))
        self.assertIsNone(page_size(Path("/nonexistent")))

    def test_with_larger_pages_is_refused_where_figures_are_of_small_ones(self) -> None:
        needs_small_pages(self.image(0xA), "the bench has")
        with self.assertRaisesRegex(BadSetting, "has pages of 64 KiB, and the bench has pages of 4 KiB"):
            needs_small_pages(self.image(0xE), "the bench has")


class TheProgramsThatWereUnpacked(unittest.TestCase):
    def test_are_run_by_all_scripts_in_place_of_what_path_has(self) -> None:
        with tempfile.TemporaryDirectory(prefix="vmwalk-unpacked-") as folder:
            unpacked = Path(folder) / "private" / "bin"
            unpacked.mkdir(parents=True)
            (unpacked / "qemu-system-aarch64").touch()
            env = {**os.environ, "BUILD": folder, "QEMU": ""}
            command = [sys.executable, "-B", "scripts/run", "--show"]
            shown = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=True).stdout
            self.assertEqual(shown.split()[0], str(unpacked / "qemu-system-aarch64"))
            shown = subprocess.run(command, cwd=ROOT, env={**env, "QEMU": "mine"}, capture_output=True, text=True, check=True).stdout
            self.assertEqual(shown.split()[0], "mine")

    def test_are_asked_for_by_name_in_one_place(self) -> None:
        named = re.compile(r"""["'](qemu-system-aarch64|gdb-multiarch)["']""")
        for file in [path for path in (ROOT / "scripts").rglob("*") if path.is_file() and "tests" not in path.parts]:
            for line in file.read_text(errors="replace").splitlines():
                if named.search(line):
                    self.assertRegex(line, r"""program\(["']""", f"{file}: {line}")

    def test_the_folder_of_what_is_built_is_named_in_one_place(self) -> None:
        for file in [path for path in (ROOT / "scripts").rglob("*") if path.is_file()]:
            if "tests" not in file.parts or file.name.endswith("_sessions.py"):
                self.assertIsNone(re.search(r"""["']build/""", file.read_text(errors="replace")), file)


class SeveralBoots(unittest.TestCase):
    def test_are_as_many_at_once_as_jobs_says(self) -> None:
        for value, number in (("", 2), ("1", 1), ("16", 16)):
            with mock.patch.dict("os.environ", {"JOBS": value}):
                self.assertEqual(parallel_boots(), number)
        for value in ("many", "0", "-1", "1.5", " ", "99999"):
            with self.subTest(value=value), mock.patch.dict("os.environ", {"JOBS": value}), self.assertRaisesRegex(BadSetting, "JOBS is a number"):
                parallel_boots()


class ARawBoot(unittest.TestCase):
    BOOT = RawBoot(image_at=0x4060_0000, dtb_at=0x4400_0000, dtb=Path("broken.dtb"))

    def test_loads_image_tree_and_stub_and_starts_at_the_stub(self) -> None:
        command = Machine().raw_command(self.BOOT, Path("stub"))
        devices = [command[i + 1] for i, word in enumerate(command) if word == "-device"]
        self.assertEqual(
            devices,
            [
                f"loader,file={Machine().image},addr=0x40600000,force-raw=on",
                f"loader,file=stub,addr={STUB_AT:#x},force-raw=on",
                "loader,file=broken.dtb,addr=0x44000000,force-raw=on",
                f"loader,addr={STUB_AT:#x},cpu-num=0",
            ],
        )
        self.assertNotIn("-kernel", command)

    def test_stub_loads_x0_and_jumps_by_literals_that_lie_where_the_code_reads(self) -> None:
        stub = self.BOOT.stub()
        for at, register, expected in ((0, 0, self.BOOT.dtb_at), (4, 4, self.BOOT.image_at)):
            (word,) = struct.unpack_from("<I", stub, at)
            self.assertEqual((word >> 24, word & 31), (0x58, register))  # LDR (literal), 64-bit
            literal = at + 4 * (word >> 5 & 0x7FFFF)
            self.assertEqual(struct.unpack_from("<Q", stub, literal)[0], expected)
        self.assertEqual(struct.unpack_from("<I", stub, 40)[0], 0xD61F_0000 | 4 << 5)  # BR X4
        for at in (16, 28):
            (word,) = struct.unpack_from("<I", stub, at)
            self.assertEqual((word >> 24, at + 4 * (word >> 5 & 0x7FFFF)), (0x54, 40))  # B.cond to it

    def test_stub_lies_between_the_start_of_ram_and_the_first_image_address(self) -> None:
        self.assertTrue(RAM_BASE < STUB_AT < STUB_AT + len(self.BOOT.stub()) <= RAM_BASE + (2 << 20))


class TheBootArguments(unittest.TestCase):
    def test_ask_for_tests_unless_the_last_selection_is_of_none(self) -> None:
        for bootargs, asked in (("", True), ("selftest=none", False), ("selftest=list seed=1", False), ("selftest=map*", True), ("seed=1 help", False)):
            self.assertEqual(asks_for_tests(bootargs), asked, bootargs)
        self.assertTrue(asks_for_tests("selftest=none selftest=map*"))
        self.assertTrue(asks_for_tests("xselftest=none"))
        self.assertFalse(asks_for_tests("selftest=map* mode=bench"))
        self.assertTrue(asks_for_tests("mode=bench mode=selftest"))


if __name__ == "__main__":
    unittest.main()
