"""Which module names which: the rooms of the kernel, of the harness and of vmalloc, each with those before it."""

import unittest
from pathlib import Path

from lib.arrows import Arrows, against, arrows, calls, crate, modules, named_in
from lib.paths import ROOT

ROOT_NAMES = {"per_cpu": "arch", "print": "drivers", "println": "drivers", "boot_argument": "bootargs", "BootInfo": "boot_info", "Init": "init"}
"""Where a name of the kernel's root, or a macro, has its definition."""

KERNEL = ["layout", "arch", "boot_info", "bootargs", "sync", "drivers", "mm", "smp", "report", "init"]
ARCH = ["alternatives", "pmu", "time", "masked", "interrupts", "syndrome", "mmio", "early_console", "percpu", "frame", "identity", "probe", "cpu", "mmu", "backtrace", "cache", "psci", "fatal", "exceptions"]
HARNESS = ["glob", "handles", "options", "measure", "test_vmalloc", "wrong_walkers", "selftest", "bench", "replay", "shell"]

VMALLOC = ["atomic", "linear", "policy", "va", "record", "error", "owner", "backend", "spin_lock", "gate", "frames", "place", "ram", "deferred", "shard", "region"]
VMALLOC += ["lookup", "alias", "unmap", "flush", "block", "drain", "purge", "reserve", "free", "area", "live_batch"]
VMALLOC += ["map", "nolock", "request", "resize", "sparse", "permissions", "map_ram", "read"]
VA = ["node", "tree", "area", "space", "ranges", "cache", "deferred_list", "check"]

MAY_NOT = [("mm", "drivers"), ("drivers", "mm"), ("mm", "smp"), ("arch", "sync")]
"""What the order alone would allow, or what it is there for: mm and the drivers know each other by the crate `machine` alone."""


def told(wrong: Arrows) -> list[str]:
    return [f"{here} -> {there} ({', '.join(sorted(files))})" for (here, there), files in sorted(wrong.items())]


class TheArrows(unittest.TestCase):
    def assert_ordered(self, order: list[str], sources: dict[Path, str], inside: tuple[str, ...] = ()) -> None:
        found = arrows(sources, inside, ROOT_NAMES)
        self.assertEqual(set(order) - modules(sources, inside), set(), "no module has this name any more")
        self.assertGreater(len(found), len(order), "the arrows are not found any more")
        self.assertEqual(told(against(order, found)), [], "a module names one that is not before it in the order; a new module has to be put in its place")

    def test_of_the_kernel_go_one_way(self) -> None:
        sources = crate(ROOT / "kernel/src")
        self.assert_ordered(KERNEL, sources)
        found = arrows(sources, known_as=ROOT_NAMES)
        self.assertEqual(told({arrow: files for arrow, files in found.items() if arrow in MAY_NOT}), [])

    def test_of_arch_go_one_way(self) -> None:
        self.assert_ordered(ARCH, crate(ROOT / "kernel/src"), ("arch",))

    def test_of_the_harness_go_one_way(self) -> None:
        self.assert_ordered(HARNESS, crate(ROOT / "kernel/harness/src"))

    def test_of_vmalloc_go_one_way(self) -> None:
        sources = {file: text for file, text in crate(ROOT / "kernel/vmalloc/src").items() if "tests" not in file.with_suffix("").parts}
        self.assert_ordered(VMALLOC, sources)
        found = calls(sources, {"vm": "Vmalloc", "manager()": "Vmalloc"})
        self.assertGreater(len(found), len(VMALLOC), "the calls are not found any more")
        self.assertEqual(told(against(VMALLOC, found)), [], "a method calls one of a module that is not before its own")
        self.assert_ordered(VA, sources, ("va",))

    def test_of_the_kernel_never_end_in_the_harness_or_in_a_self_test(self) -> None:
        manifest = (ROOT / "kernel/Cargo.toml").read_text()
        self.assertNotIn("harness", manifest)
        for file, text in crate(ROOT / "kernel/src").items():
            for word in ("selftest", "self-test", "harness::", "Planted"):
                self.assertNotIn(word, text, str(file))


class AnArrow(unittest.TestCase):
    SOURCES = {
        Path("lib.rs"): "mod arch;\nuse mm::areas;",
        Path("arch/mod.rs"): "mod mmu;",
        Path("arch/mmu.rs"): "use super::time;\n// crate::smp\nuse crate::mm::{self, layout::{A, B}};",
        Path("arch/exceptions/spurious.rs"): "use super::super::mmu;\nuse super::extable;",
        Path("arch/time.rs"): "",
        Path("mm/areas.rs"): "use crate::{arch::mmu, smp};\nfn f() { $crate::per_cpu!() }",
        Path("smp.rs"): "use crate::run;",
    }

    def test_is_found_by_whatever_path_it_is_written(self) -> None:
        found = arrows(self.SOURCES, known_as={"per_cpu": "arch", "run": "smp"})
        self.assertEqual(found, {("arch", "mm"): {"arch/mmu.rs"}, ("mm", "arch"): {"mm/areas.rs"}, ("mm", "smp"): {"mm/areas.rs"}})
        self.assertEqual(arrows(self.SOURCES, ("arch",)), {("mmu", "time"): {"arch/mmu.rs"}, ("exceptions", "mmu"): {"arch/exceptions/spurious.rs"}})

    def test_against_the_order_is_told(self) -> None:
        found = arrows(self.SOURCES)
        self.assertEqual(list(against(["arch", "mm", "smp"], found)), [("arch", "mm"), ("mm", "smp")])
        self.assertEqual(list(against(["smp", "arch"], found)), [("arch", "mm"), ("mm", "arch"), ("mm", "smp")], "a module without a place has none to name")

    def test_is_each_of_a_group(self) -> None:
        self.assertEqual(list(named_in("use crate::mm::{self, layout::{A, B}, tables};")), [("crate", ("mm", "self")), ("crate", ("mm", "layout")), ("crate", ("mm", "tables"))])

    def test_is_a_call_of_a_method_that_another_module_has(self) -> None:
        sources = {
            Path("lib.rs"): "mod low;",
            Path("low.rs"): "impl<B: Backend> Big<B> {\n    const PART: u64 = 1;\n    pub const fn low(&self) {}\n}\nimpl Clone for Big<u8> {\n    fn clone(&self) {}\n}",
            Path("mid/mod.rs"): "impl<B: Backend> Big<B> {\n    fn mid(&self) {\n        self\n            .low();\n        self.mid()\n    }\n}",
            Path("high.rs"): "impl Small {\n    fn low(&self) {\n        // self.big.mid()\n        self.low(Self::PART);\n        self.big.low()\n    }\n}",
            Path("part.rs"): "impl<B> Big<B> {\n    fn part(&self) -> u64 {\n        Self::PART\n    }\n}",
        }
        own = {("mid", "low"): {"mid/mod.rs: low"}, ("part", "low"): {"part.rs: PART"}}
        self.assertEqual(calls(sources, {}), own)
        self.assertEqual(calls(sources, {"big": "Big"}), own | {("high", "low"): {"high.rs: low"}})


if __name__ == "__main__":
    unittest.main()
