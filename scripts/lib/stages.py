"""The stages of `make test`, in the order in which they run.

A stage is a function that adds its cases to the report; a new one is one line in STAGES.
"""

import json
import os
import re
import shutil
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import TypeVar

from . import bench_compare, bench_pmu, qemu_new
from .bench import changes, other_accesses, read_document
from .bench_boot import ICOUNT, glob_argument
from .cases import Finished, log_path, python, run_logged
from .fresh import Skipped
from .machine import Machine, parallel_boots
from .matrix import FEWER_LEVELS, GRANULES, WIDE, WRONG_WALKERS, BootCase, Pages, boot_matrix, broken_entries, counts_of_cpus, models_of_cpus, of_firmware, of_granule, planted_faults, refusals, rejected_runs, traps
from .paths import BUILD
from .report import Outcome, Report

DENY = {"RUSTDOCFLAGS": "-D warnings"}

BUILD_LIMIT = 1200.0
BOOT_LIMIT = 480.0
"""What a boot may take: time is no claim of any test."""
SILENCE_OF_SEVERAL = "150"
"""What a boot of several CPUs may be silent for; the longest test of that boot took 36 s."""
LONG_LIMIT = 900.0
"""For what boots more than once or for longer, and has limits for silence of its own."""


# ---- lint -------------------------------------------------------------------------------------


def lint(report: Report) -> None:
    """Format, clippy and rustdoc, for what runs on the host and for what runs on the machine; and whether the packages build."""
    checks: list[tuple[str, list[str], dict[str, str]]] = [
        ("rustfmt", ["scripts/cargo", "fmt", "--all", "--", "--check", "--color", "never"], {}),
        ("clippy, host crates", ["scripts/cargo", "clippy", "--all-targets", "--", "-D", "warnings"], {}),
        # The two that are built: as gdb steps it, with hook points and debug assertions, and without both.
        ("clippy, kernel with hook points", ["scripts/cargo", "kernel", "clippy", "--features", "boot/trace", *packages("boot", "kernel", "harness", "proof-shim", "efi-loader"), "--", "-D", "warnings"], {}),
        ("clippy, kernel as released", ["scripts/cargo", "kernel", "clippy", "--release", "-p", "boot", "--", "-D", "warnings"], {}),
        ("rustdoc, host crates", ["scripts/cargo", "doc", "--no-deps"], DENY),
        ("packages", [python(), "-B", "scripts/check-packages.py"], {}),
        ("rustdoc, kernel", ["scripts/cargo", "kernel", "doc", "--no-deps", *packages("boot", "kernel", "harness")], DENY),
    ]
    for name, command, variables in checks:
        done = run_logged(f"lint: {name}", command, BUILD_LIMIT, variables)
        report.add(f"lint: {name}", Outcome.of(done.good, done.seconds, log=done.log))


def packages(*names: str) -> list[str]:
    return [word for name in names for word in ("-p", name)]


# ---- the scripts' own tests -------------------------------------------------------------------


def runner(report: Report) -> None:
    """The unit tests of everything in scripts/: a judge that errs would make all else worthless."""
    name = "runner: unit tests"
    done = run_logged(name, [python(), "-B", "-m", "unittest", "discover", "-v", "-s", "scripts", "-t", "scripts"], LONG_LIMIT)
    report.add(name, count_unittest(done))


def count_unittest(done: Finished) -> Outcome:
    text = done.text()
    ran = re.search(r"^Ran (\d+) tests?", text, re.MULTILINE)
    total = int(ran[1]) if ran else 0
    failed = sum(int(number) for number in re.findall(r"(?:failures|errors)=(\d+)", text))
    ignored = first_number(r"skipped=(\d+)", text)
    return counted(done, total - failed - ignored, failed, ignored)


# ---- host tests -------------------------------------------------------------------------------


ON_THE_HOST = {"CARGO_PROFILE_TEST_DEBUG": "0", "CARGO_PROFILE_DEV_DEBUG": "0"}
"""A tenth of the compilation is for line numbers in backtraces; a panic has its own. With one setting, what one stage has compiled another need not."""


def host(report: Report) -> None:
    """The crates' own tests, with nextest where it is installed, then their documentation's."""
    # One round of what `make soak` has SOAK of: make hands its 20 to whatever it starts.
    variables = ON_THE_HOST | {"SOAK": "1"}
    if run_logged("host: nextest version", ["scripts/cargo", "nextest", "--version"], 60.0).good:
        name = "host: cargo nextest"
        report.add(name, count_nextest(run_logged(name, ["scripts/cargo", "nextest", "run", "--no-fail-fast"], BUILD_LIMIT, variables)))
    else:
        name = "host: cargo test"
        report.add(name, count_libtest(run_logged(name, ["scripts/cargo", "test", "--no-fail-fast", "--all-targets"], BUILD_LIMIT, variables)))
    name = "host: locks in every order"
    report.add(name, count_libtest(run_logged(name, ["scripts/cargo", "test", "--no-fail-fast", "--manifest-path", "kernel/loom-locks/Cargo.toml"], BUILD_LIMIT, variables)))
    name = "host: doc tests"
    report.add(name, count_libtest(run_logged(name, ["scripts/cargo", "test", "--no-fail-fast", "--doc"], BUILD_LIMIT, variables)))


def count_nextest(done: Finished) -> Outcome:
    passed = failed = ignored = 0
    if summary := re.search(r"^ *Summary \[.*\] (.*)$", done.text(), re.MULTILINE):
        words = summary[1]
        passed = first_number(r"(\d+) passed", words)
        ignored = first_number(r"(\d+) skipped", words)
        failed = sum(first_number(rf"(\d+) {how}", words) for how in ("failed", "exec failed", "timed out"))
    return counted(done, passed, failed, ignored)


def count_libtest(done: Finished) -> Outcome:
    results = re.findall(r"^test result: .*? (\d+) passed; (\d+) failed; (\d+) ignored", done.text(), re.MULTILINE)
    passed, failed, ignored = (sum(int(row[i]) for row in results) for i in range(3))
    return counted(done, passed, failed, ignored)


def first_number(pattern: str, text: str) -> int:
    match = re.search(pattern, text)
    return int(match[1]) if match else 0


def counted(done: Finished, passed: int, failed: int, ignored: int = 0) -> Outcome:
    """An outcome of many tests; a command that failed without a failing test counts as one."""
    if not done.good and failed == 0:
        failed = 1
    note = f"{passed} passed" + (f", {failed} failed" if failed else "") + (f", {ignored} ignored" if ignored else "")
    return Outcome(passed, failed, done.seconds, note, done.log)


# ---- boots ------------------------------------------------------------------------------------


T = TypeVar("T")

once = threading.RLock()
"""Held while something is made that several stages want."""


def made_once(make: Callable[[], T]) -> Callable[[], T]:
    """What `make` returns, made by the first who asks; others wait for it."""
    made = cache(make)

    def get() -> T:
        with once:
            return made()

    return get


@made_once
def built() -> Finished:
    return run_logged("boot: build", ["scripts/build"], BUILD_LIMIT)


def have_image(report: Report) -> bool:
    """Builds the kernel once for all stages that boot it; a failure is told in each."""
    done = built()
    if not done.good:
        report.add("build", Outcome.of(False, done.seconds, log=done.log))
    return done.good


def boot_case(stage: str, case: BootCase, limit: float = BOOT_LIMIT) -> Outcome:
    """Boots one case through scripts/run, whose exit status is the verdict."""
    name = f"{stage}: {case.name}"
    command = [python(), "-B", "scripts/run", *case.arguments, *(["--", *case.extra] if case.extra else [])]
    patience = {"TIMEOUT": SILENCE_OF_SEVERAL} if int(case.variables.get("SMP", "1")) > 1 else {}
    done = run_logged(name, command, limit, patience | case.variables)
    verdict = re.sub(r"^run: (PASS|FAIL): | \([\d.]+ s\)$", "", done.last_line())
    if not case.fails_with:
        return Outcome.of(done.good and passed_over(verdict) == case.passes_over, done.seconds, verdict, done.log)
    reasons = [line for line in done.text().splitlines() if line.startswith("run: ")]
    rejected = done.status in (1, 2) and any(re.search(case.fails_with, line) for line in reasons)
    return Outcome.of(rejected, done.seconds, f"rejected: {case.fails_with}" if rejected else verdict, done.log)


def passed_over(verdict: str) -> str:
    """The words of its boot arguments that the kernel did not have. A case of the matrix that misspells one proves nothing."""
    return verdict.partition("; passed over: ")[2]


def boot_all(report: Report, stage: str, cases: list[BootCase], limit: float = BOOT_LIMIT) -> None:
    with ThreadPoolExecutor(parallel_boots()) as pool:
        outcomes = {pool.submit(boot_case, stage, case, limit): case for case in cases}
        for future, case in outcomes.items():
            name, outcome = f"{stage}: {case.name}", future.result()
            if lacking := lacks(case, outcome):
                report.skip(name, lacking)
            else:
                report.add(name, outcome)


def lacks(case: BootCase, outcome: Outcome) -> str | None:
    """What the emulator says that the host has not got for this case, if it ended before the kernel had a word."""
    if outcome.good or not case.takes or not outcome.log:
        return None
    lines = outcome.log.read_text(errors="replace").splitlines()
    if "run: no `vmwalk: done`: nothing was printed" not in lines:
        return None
    said = re.compile(f"run: the emulator exited with status 1: (.*{case.takes}.*)")
    return next((match[1] for line in lines if (match := said.fullmatch(line))), None)


def boot(report: Report) -> None:
    """The whole suite on every machine of the matrix."""
    if not have_image(report):
        return
    report.add("build", Outcome.of(True, built().seconds))
    for name, script in (
        ("boot: position independence before the MMU is on", "scripts/check-boot-pic.py"),
        ("boot: what only silicon would show", "scripts/check-silicon.py"),
    ):
        done = run_logged(name, [python(), "-B", script, str(BUILD / "vmwalk.elf")], 60.0)
        report.add(name, Outcome.of(done.good, done.seconds, done.last_line(), done.log))
    boot_all(report, "boot", boot_matrix(make_initrd(), dump_dtb()))
    name = "boot: RAM at high addresses"
    report.add(name, count_unittest(run_logged(name, high_ram(), LONG_LIMIT)))
    name = "boot: other boards"
    command = [python(), "-B", "-m", "unittest", "discover", "-v", "-s", "scripts", "-t", "scripts", "-p", "board_sessions.py"]
    done = run_logged(name, command, LONG_LIMIT)
    outcome = count_unittest(done)
    if done.good and outcome.passed == 0:
        report.skip(name, "the emulator has none of them")
    else:
        report.add(name, outcome)


def make_initrd() -> Path:
    """An initrd of no round size whose bytes differ from page to page."""
    path = BUILD / "test" / "initrd"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join((i * 0x9E3779B1 & 0xFFFF_FFFF).to_bytes(4, "little") for i in range(300_001)))
    return path


@made_once
def dump_dtb() -> Path:
    """The emulator's own device tree for the default machine."""
    path = BUILD / "test" / "virt.dtb"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    machine = Machine(qemu=os.environ.get("QEMU") or Machine().qemu)
    run_logged("boot: dumpdtb", machine.dump_dtb_command(path), 60.0)
    return path


def high_ram() -> list[str]:
    return [python(), "-B", "-m", "unittest", "discover", "-v", "-s", "scripts", "-t", "scripts", "-p", "high_ram_sessions.py"]


def granules(report: Report) -> None:
    """Images with larger pages, and with more bits of address."""
    other_pages(report, "granules", GRANULES, whole=False)


COMPILED_SOONER = {"CARGO_PROFILE_QUICK_OPT_LEVEL": "1", "CARGO_PROFILE_QUICK_DEBUG": "0"}
"""The suite takes as long with it."""


def other_pages(report: Report, stage: str, images: Iterable[Pages], whole: bool) -> None:
    """Each built by itself."""
    for pages in images:
        image = BUILD / pages.name
        name = f"{stage}: {pages.name}, build"
        done = run_logged(name, ["scripts/build"], BUILD_LIMIT, pages.variables | {"OUT": str(image), "PROFILE": "quick", **COMPILED_SOONER})
        report.add(name, Outcome.of(done.good, done.seconds, log=done.log))
        if not done.good:
            continue
        name = f"{stage}: {pages.name}, position independence before the MMU is on"
        done = run_logged(name, [python(), "-B", "scripts/check-boot-pic.py", str(image / "vmwalk.elf")], 60.0)
        report.add(name, Outcome.of(done.good, done.seconds, done.last_line(), done.log))
        boot_all(report, stage, of_granule(pages, image / "Image", whole))
        name = f"{stage}: {pages.name}, gdb and prompt"
        command = [python(), "-B", "-m", "unittest", "discover", "-v", "-s", "scripts", "-t", "scripts", "-p", "granule_sessions.py"]
        report.add(name, count_unittest(run_logged(name, command, 300.0, pages.variables | {"IMAGE": str(image / "Image")})))
        if pages.bits == 52:
            name = f"{stage}: {pages.name}, RAM at high addresses"
            report.add(name, count_unittest(run_logged(name, high_ram(), LONG_LIMIT, pages.variables | {"IMAGE": str(image / "Image")})))


def firmware(report: Report) -> None:
    """UEFI and U-Boot load the image from a disk."""
    if not have_image(report):
        return
    made = run_logged("firmware: disk", ["scripts/efi"], BUILD_LIMIT, ON_THE_HOST)
    report.add("firmware: disk", Outcome.of(made.good, made.seconds, log=made.log))
    setup = run_logged("firmware: setup", ["scripts/setup", "firmware"], BUILD_LIMIT)
    if setup.status == Skipped.status:
        report.skip("firmware: boots", reason(setup))
    elif made.good:
        boot_all(report, "firmware", of_firmware())


def broken(report: Report) -> None:
    """Broken entries and boot arguments: a clear message and a defined end, no test run."""
    if not have_image(report):
        return
    cases = refusals() + traps() + rejected_runs()
    for number, entry in enumerate(broken_entries(dump_dtb().read_bytes())):
        path = BUILD / "test" / f"broken-{number}.dtb"
        path.write_bytes(entry.dtb or b"")
        cases.append(entry.boot(path))
    boot_all(report, "broken", cases)
    name = "broken: boot arguments"
    command = [python(), "-B", "-m", "unittest", "discover", "-v", "-s", "scripts", "-t", "scripts", "-p", "bootarg_sessions.py"]
    report.add(name, count_unittest(run_logged(name, command, 300.0)))


def faults(report: Report) -> None:
    """The suite must notice each fault that the kernel can plant in itself."""
    if have_image(report):
        boot_all(report, "faults", planted_faults())


def counts(report: Report) -> None:
    """The whole suite with each number of CPUs, each granule and its bits of address, and each model of CPU that a newer emulator has."""
    if not have_image(report):
        return
    boot_all(report, "counts", counts_of_cpus(), LONG_LIMIT)
    replays(report, "counts: a replay on four CPUs at once", "AtOnce")
    other_pages(report, "counts", (*GRANULES, *WIDE, *FEWER_LEVELS), whole=True)
    if models := qemu_new.models():
        boot_all(report, "counts", models_of_cpus(str(qemu_new.PROGRAM), models), LONG_LIMIT)
    else:
        report.skip("counts: models of a newer emulator", "scripts/setup qemu-new has not been run, or cannot")


NOT_LINKED_AS_ONE = {"CARGO_PROFILE_RELEASE_LTO": "off", "CARGO_PROFILE_RELEASE_CODEGEN_UNITS": "16", "CARGO_PROFILE_RELEASE_DEBUG": "0", "CARGO_PROFILE_RELEASE_OPT_LEVEL": "1"}
"""For a build that is about what it takes, and not about what comes out."""


def fresh(report: Report) -> None:
    """`make run` in a root that is a Debian 12 as debootstrap leaves it."""
    name = "fresh: debian-12-run"
    done = run_logged(name, [python(), "-B", "scripts/fresh", "debian-12-run"], 2 * LONG_LIMIT, NOT_LINKED_AS_ONE)
    verdict = re.sub(r"^fresh: debian-12-run: (skipped: )?", "", done.last_line())
    if done.status == Skipped.status:
        report.skip(name, verdict)
    else:
        report.add(name, Outcome.of(done.good, done.seconds, verdict, done.log))
        if done.good:
            booted_by.update(toolchains(log_path(f"{name}-typed")))


def toolchains(log: Path) -> list[str]:
    """Those that scripts/setup chose."""
    return re.findall(r"^setup: toolchain: (\w+) ", log.read_text(errors="replace"), re.MULTILINE) if log.is_file() else []


booted_by: set[str] = set()
"""The other toolchains that a stage of this run has built and booted the kernel with."""


def soak(report: Report) -> None:
    """One round of what `make soak` does, on as many CPUs as a small host has: more wait for one another at each TLBI."""
    name = "soak: one round on 2 CPUs"
    done = run_logged(name, ["make", "--no-print-directory", "soak"], LONG_LIMIT, {"SOAK": "1", "SMP": "2", "BOOTARGS": "", "TIMEOUT": SILENCE_OF_SEVERAL})
    report.add(name, Outcome.of(done.good, done.seconds, done.last_line().removeprefix("run: "), done.log))


def variants(report: Report) -> None:
    """Other builds of the same kernel: unoptimised, and by the other toolchain route."""
    dev = {"PROFILE": "dev", "OUT": str(BUILD / "dev")}
    if build_and_boot(report, "dev profile", dev):
        boot_all(report, "variants", [planted(f"{dev['OUT']}/Image") for planted in (lock_order, long_hold)])
    without_harness(report)
    current = os.environ.get("TOOLCHAIN") or (BUILD / "toolchain").read_text().strip()
    other = {"rustup": "distro", "distro": "rustup"}[current]
    name = f"{other} toolchain"
    if other in booted_by:
        report.skip(f"variants: {name}", "it built the kernel that stage fresh booted, with all its tests")
        return
    setup = run_logged(f"variants: {name}, setup", ["scripts/setup", "build"], 900.0, {"TOOLCHAIN": other})
    if setup.good:
        build_and_boot(report, name, {"TOOLCHAIN": other, "OUT": str(BUILD / other), **NOT_LINKED_AS_ONE})
    else:
        report.skip(f"variants: {name}", f"not to be had here (TOOLCHAIN={other} scripts/setup build): {reason(setup)}")


def without_harness(report: Report) -> None:
    """The kernel alone: it builds, boots, says what it has set up, and knows no argument but its own."""
    out = BUILD / "bare"
    done = run_logged("variants: without the harness, build", ["scripts/build", "--no-default-features"], BUILD_LIMIT, {"PROFILE": "dev", "OUT": str(out)})
    report.add("variants: without the harness, build", Outcome.of(done.good, done.seconds, log=done.log))
    if done.good:
        name = "variants: without the harness, boots"
        command = [python(), "-B", "-m", "unittest", "discover", "-v", "-s", "scripts", "-t", "scripts", "-p", "bare_sessions.py"]
        report.add(name, count_unittest(run_logged(name, command, 300.0, {"IMAGE": str(out / "Image"), "BOOTARGS": ""})))


def reason(done: Finished) -> str:
    lines = done.text().splitlines()
    return lines[-1].removeprefix("setup: ") if lines else f"exit {done.status}"


def lock_order(image: str) -> BootCase:
    """Two locks taken in both orders: a build with debug assertions stops at the second."""
    says = "FATAL.*lock order: 'first' is taken while 'second' is held"
    return BootCase(
        "dev profile, planted lock-order",
        {"IMAGE": image, "BOOTARGS": "selftest.break=lock-order selftest=locks.*"},
        ("--expect-message", says),
    )


def long_hold(image: str) -> BootCase:
    """More done with interrupts masked than may be: measured in a build with debug assertions."""
    return BootCase(
        "dev profile, planted long-hold",
        {"IMAGE": image, "BOOTARGS": "selftest.break=long-hold selftest=masked.*"},
        ("--expect-fail", "65 blocks of frames with interrupts masked, and at most 64 may be"),
    )


def build_and_boot(report: Report, name: str, variables: dict[str, str]) -> bool:
    """Whether it could be built; the boot's outcome is in the report."""
    built_name = f"variants: {name}, build"
    done = run_logged(built_name, ["scripts/build"], BUILD_LIMIT, variables)
    report.add(built_name, Outcome.of(done.good, done.seconds, log=done.log))
    if done.good:
        boot_all(report, "variants", [BootCase(f"{name}, boot", {"IMAGE": f"{variables['OUT']}/Image", "SMP": "2"})])
    return done.good


# ---- gdb --------------------------------------------------------------------------------------


DEBUG = BUILD / "dev"
"""The build that gdb steps: with hook points, and with debug assertions."""


def have_debug_image(report: Report, stage: str) -> bool:
    """Builds the kernel that gdb steps."""
    done = run_logged(f"{stage}: build", ["scripts/build"], BUILD_LIMIT, {"PROFILE": "dev", "OUT": str(DEBUG)})
    report.add(f"{stage}: debug build", Outcome.of(done.good, done.seconds, log=done.log))
    return done.good


def gdb(report: Report) -> None:
    """Scripted gdb sessions on the debug kernel, and on the release kernel, which has no hook points."""
    if not have_image(report) or not have_debug_image(report, "gdb"):
        return
    name = "gdb: sessions"
    command = [python(), "-B", "-m", "unittest", "discover", "-v", "-s", "scripts", "-t", "scripts", "-p", "gdb_sessions.py"]
    report.add(name, count_unittest(run_logged(name, command, LONG_LIMIT, {"GDB_DEV": str(DEBUG), "GDB_RELEASE": str(BUILD)})))
    name = "gdb: another kernel, Debian's"
    command = [*command[:-1], "linux_sessions.py", "-k", "FourKilobytes", "-k", "AtEl0"]
    report.add(name, count_unittest(run_logged(name, command, LONG_LIMIT)))


# ---- documents --------------------------------------------------------------------------------


def docs(report: Report) -> None:
    """What README and docs/ show of consoles, of gdb and of figures is what comes out; all but the replay, which has a stage of its own."""
    if not have_image(report) or not have_debug_image(report, "docs"):
        return
    name = "docs: transcripts, tables and pictures"
    command = [python(), "-B", "scripts/docs", "--check", "--only", "run,shell,gdb,figures,example,quote,picture"]
    report.add(name, count_closing(run_logged(name, command, LONG_LIMIT, {"GDB_DEV": str(DEBUG)}), "docs"))


# ---- benches ----------------------------------------------------------------------------------

DEARER_BY = "2"
"""Percent more instructions than the committed baseline that a case may take."""


def bench(report: Report) -> None:
    """Two boots count the same, no case has become dearer than the committed baseline allows, and no wrong walker gets a number."""
    if not have_image(report):
        return
    name = "bench: every case beside the baseline"
    command = [python(), "-B", "scripts/bench", "--quiet", "--twice", "--base", "scripts/bench-data/baseline.json", "--fail-above", DEARER_BY]
    done = run_logged(name, command, LONG_LIMIT, {"BENCH": "", "BENCH_WALKERS": "none", "OUT": str(BUILD / "test" / "bench")})
    report.add(name, count_closing(done, "bench"))
    report.add("bench: a case costs the same whatever else runs", cases_alone(BUILD / "test" / "bench" / "bench.json"))
    if have_debug_image(report, "bench"):
        report.add("bench: what gdb steps does the same to the tables", stepped(BUILD / "test" / "bench" / "bench.json"))
    name = "bench: a breakdown adds up to what is counted"
    done = run_logged(name, [python(), "-B", "scripts/bench", "--breakdown", "range 4K, 4K pa"], LONG_LIMIT)
    report.add(name, Outcome.of(done.good, done.seconds, log=done.log))
    report.add("bench: the registered walkers", registered_walkers())
    report.add("bench: by the PMU, warm and cold", by_pmu())
    report.add("bench: the PMU's instructions are the exact ones", pmu_is_exact(BUILD / "test" / "bench" / "bench.json"))
    for walker, (case, says) in WRONG_WALKERS.items():
        report.add(f"bench: {walker} is refused", refused_walker(walker, case, says))


ALONE = ("vmalloc 4M", "test_vmalloc random_size_alloc*", "set_memory_ro 4K of 2M", "vmap 256*", "vmap 256, order 0/range-only", "vmalloc *", "range 4K, 4K pa")
"""Selections, in another order than the bench's, some of them twice among others."""


def cases_alone(whole: Path) -> Outcome:
    """Some cases alone, in groups, with other walkers, and in another order: exactly the figures of the whole bench."""
    if not whole.is_file():
        return Outcome.of(False, 0.0, "the whole bench left no figures")
    expected = read_document(whole)
    seconds, same, figures = 0.0, 0, BUILD / "test" / "bench" / "alone"
    for glob in ALONE:
        shutil.rmtree(figures, ignore_errors=True)
        done = run_logged(f"bench: {glob} alone", [python(), "-B", "scripts/bench", "--quiet"], BOOT_LIMIT, {"BENCH": glob, "BENCH_WALKERS": "*", "OUT": str(figures)})
        seconds += done.seconds
        if not done.good:
            return Outcome.of(False, seconds, done.last_line(), done.log)
        found = changes(expected, read_document(figures / "bench.json"))
        if other := [change for change in found if change.before != change.after]:
            return Outcome.of(False, seconds, f"{other[0].case} ({other[0].op}): {other[0].before} among all, {other[0].after} with BENCH={glob!r}", done.log)
        same += len(found)
    return Outcome.of(same >= 2 * len(ALONE), seconds, f"{same} figures")


def stepped(whole: Path) -> Outcome:
    """Leaves, loads and stores of descriptors, tables, TLBIs and barriers of every case: the same in the build with hooks."""
    figures = BUILD / "test" / "bench" / "stepped"
    variables = {"IMAGE": str(DEBUG / "Image"), "BENCH": "", "BENCH_WALKERS": "none", "OUT": str(figures)}
    shutil.rmtree(figures, ignore_errors=True)
    done = run_logged("bench: of the debug build", [python(), "-B", "scripts/bench", "--quiet"], LONG_LIMIT, variables)
    if not done.good or not whole.is_file():
        return Outcome.of(False, done.seconds, done.last_line() if not done.good else "the whole bench left no figures", done.log)
    release, debug = read_document(whole), read_document(figures / "bench.json")
    other = other_accesses(release, debug)
    return Outcome.of(not other, done.seconds, other[0] if other else f"{len(release['cases'])} cases", done.log)


def registered_walkers() -> Outcome:
    """Each of them has done the cases that are about walking alone, so that no right one is refused."""
    figures = BUILD / "test" / "bench" / "walkers"
    shutil.rmtree(figures, ignore_errors=True)
    variables = {"BENCH": "*range*", "BENCH_WALKERS": "*", "OUT": str(figures)}
    done = run_logged("bench: the registered walkers", [python(), "-B", "scripts/bench", "--quiet"], BOOT_LIMIT, variables)
    if not done.good:
        return Outcome.of(False, done.seconds, done.last_line(), done.log)
    cases = json.loads((figures / "bench.json").read_text())["cases"]
    walkers = [frozenset(peer for peer in case["peers"] if not peer.startswith("linux-")) for case in cases]
    # What the engine does alone, nobody else does.
    ran = [names for names in walkers if names]
    return Outcome.of(len(set(ran)) == 1 and len(ran) >= len(cases) - 1, done.seconds, f"{len(ran)} cases", done.log)


PMU_CASES = "*64K, 64K pa"


def by_pmu() -> Outcome:
    """Some cases with time and cycles, as without -icount: nothing is 0, and a result compared with itself is the same."""
    figures = BUILD / "test" / "bench" / "pmu"
    shutil.rmtree(figures, ignore_errors=True)
    variables = {"COUNTERS": "pmu", "BENCH": PMU_CASES, "BENCH_WALKERS": "series", "BOOTARGS": "bench.evict=1", "OUT": str(figures)}
    done = run_logged("bench: by the PMU", [python(), "-B", "scripts/bench"], BOOT_LIMIT, variables)
    if not done.good:
        return Outcome.of(False, done.seconds, done.last_line(), done.log)
    result = figures / "bench-pmu.json"
    found = list(bench_pmu.rows(bench_compare.read(result)))
    measured = {(walker, op, state) for _, walker, op, state, _ in found}
    expected = {(walker, op, state) for walker in ("vmwalk", "series") for op in ("map", "unmap") for state in bench_pmu.STATES}
    if missing := expected - measured:
        return Outcome.of(False, done.seconds, f"not measured: {sorted(missing)[0]}", done.log)
    zeroes = [f"{case} ({op}, {state}): {counter}" for case, _, op, state, figures in found for counter in (bench_pmu.NS, "cycles") if not bench_pmu.median(figures, counter)]
    compared = run_logged("bench: compare", [python(), "-B", "scripts/compare", str(result), str(result)], 60.0)
    same = re.findall(r"^(?:ns|cycles): 1\.00 \(geometric mean of (\d+)\), (\d+) of them inside the spread$", compared.text(), re.MULTILINE)
    good = compared.good and not zeroes and len(same) == 2 and all(both == inside for both, inside in same)
    return Outcome.of(good, done.seconds + compared.seconds, f"{zeroes[0]} is 0" if zeroes else f"{len(found)} spreads", done.log)


def pmu_is_exact(whole: Path) -> Outcome:
    """A log of a boot under -icount: the medians of INST_RETIRED, counted beside the rest, are what the bench counts alone."""
    figures = BUILD / "test" / "bench" / "log"
    figures.mkdir(parents=True, exist_ok=True)
    if not whole.is_file():
        return Outcome.of(False, 0.0, "the whole bench left no figures")
    variables = {"BOOTARGS": f"mode=bench log=warn bench={glob_argument('range 64K, 64K pa')} bench.counters=pmu bench.walkers=none bench.evict=0"}
    log = figures / "console.log"
    booted = run_logged("bench: PMU under -icount", [python(), "-B", "scripts/run", "--log", str(log), "--", *ICOUNT], BOOT_LIMIT, variables)
    done = run_logged("bench: of a log", [python(), "-B", "scripts/bench", "--quiet", "--from", str(log)], 60.0, {"OUT": str(figures)})
    if not booted.good or not done.good:
        return Outcome.of(False, booted.seconds, (done if booted.good else booted).last_line(), (done if booted.good else booted).log)
    exact = {case["case"]: case for case in read_document(whole)["cases"]}
    wrong = [
        f"{case} ({op}): {bench_pmu.median(figures, 'inst_retired'):.0f}, not {exact[case][op]['instructions']}"
        for case, _, op, state, figures in bench_pmu.rows(bench_compare.read(figures / "bench-pmu.json"))
        # Cold calls come second, and find other frames free.
        if state == "warm" and bench_pmu.median(figures, "inst_retired") != exact[case][op]["instructions"]
    ]
    return Outcome.of(not wrong, booted.seconds + done.seconds, wrong[0] if wrong else "", done.log)


def refused_walker(walker: str, case: str, says: str) -> Outcome:
    """The bench with this planted walker: it must name walker and case, fail, and leave no figure."""
    figures = BUILD / "test" / "bench" / walker
    shutil.rmtree(figures, ignore_errors=True)
    variables = {"BENCH": case, "BENCH_WALKERS": walker, "OUT": str(figures)}
    done = run_logged(f"bench: {walker} is refused", [python(), "-B", "scripts/bench", "--plant", "wrong-walker"], BOOT_LIMIT, variables)
    refused = re.search(rf"^bench: FAIL: .*{re.escape(case)}, {re.escape(walker)}: {says}", done.last_line())
    return Outcome.of(done.status == 1 and bool(refused) and not figures.exists(), done.seconds, done.last_line(), done.log)


def count_closing(done: Finished, command: str) -> Outcome:
    closing = re.search(rf"^{command}: (\d+) passed, (\d+) failed$", done.text(), re.MULTILINE)
    passed, failed = (int(closing[1]), int(closing[2])) if closing else (0, 1)
    return counted(done, passed, failed)


# ---- cache lines ------------------------------------------------------------------------------


def lines(report: Report) -> None:
    """No call passes more lines between CPUs, or takes more atomics, barriers or TLBIs, than the committed baseline says."""
    if not have_image(report):
        return
    name = "lines: every call beside the baseline"
    command = [python(), "-B", "scripts/lines", "--quiet", "--cpus", "1,8", "--base", "scripts/bench-data/lines-baseline.json"]
    done = run_logged(name, command, LONG_LIMIT, {"BENCH": "", "OUT": str(BUILD / "test" / "lines")})
    report.add(name, count_closing(done, "lines"))


# ---- replays ----------------------------------------------------------------------------------


def replay(report: Report) -> None:
    """A boot of Linux and other traces, performed on one CPU and on several; and what must be refused or noticed."""
    if have_image(report):
        replays(report, "replay: traces", "Replays")


def replays(report: Report, name: str, tests: str) -> None:
    command = [python(), "-B", "-m", "unittest", "discover", "-v", "-s", "scripts", "-t", "scripts", "-p", "replay_sessions.py", "-k", tests]
    report.add(name, count_unittest(run_logged(name, command, LONG_LIMIT, {"SMP": "", "MEM": "", "TRACE": ""})))


# ---- proofs -----------------------------------------------------------------------------------


LONG_PROOFS = ("TLBIs of two ranges, 4K, as shipped", "tree, insertion, as shipped", "tree, removal, as shipped", "placement, as shipped")
"""Claims that take half a minute or more each: `make prove` and `make soak` have them."""


def prove(report: Report) -> None:
    """The claims of docs/PROOFS.md, but for the longest, two planted bugs for each, and the litmus tests beside them."""
    litmus(report)
    name = "prove: all claims but the longest"
    setup = run_logged("prove: setup", ["scripts/setup", "prove"], BUILD_LIMIT)
    if setup.status == Skipped.status:
        report.skip(name, setup.last_line().removeprefix("setup: "))
        return
    if not setup.good:
        report.add(name, Outcome.of(False, setup.seconds, setup.last_line(), setup.log))
        return
    if not have_image(report):
        return
    listed = run_logged("prove: names", [python(), "-B", "scripts/prove", "--list"], 120.0)
    names = listed.text().splitlines()
    if not listed.good or not set(LONG_PROOFS).issubset(names):
        report.add("prove: names", Outcome.of(False, listed.seconds, "the longest claims are not among those that there are", listed.log))
        return
    command = [python(), "-B", "scripts/prove", "--mutants", "2", *(claim for claim in names if claim not in LONG_PROOFS)]
    report.add(name, count_closing(run_logged(name, command, BUILD_LIMIT, {"PROVE": ""}), "prove"))


def litmus(report: Report) -> None:
    name = "prove: litmus tests"
    done = run_logged(name, ["scripts/litmus"], LONG_LIMIT)
    if done.status == Skipped.status:
        report.skip(name, done.last_line().removeprefix("litmus: "))
    else:
        report.add(name, count_closing(done, "litmus"))


# ---- the shell --------------------------------------------------------------------------------


def shell(report: Report) -> None:
    """Sessions at the kernel's prompt: each command, lines that make no sense, and the picture of the tables."""
    if not have_image(report):
        return
    name = "shell: sessions"
    command = [python(), "-B", "-m", "unittest", "discover", "-v", "-s", "scripts", "-t", "scripts", "-p", "shell_sessions.py"]
    report.add(name, count_unittest(run_logged(name, command, 600.0)))


# ---- Miri -------------------------------------------------------------------------------------


MIRI: list[tuple[str, str, list[str]]] = [
    # A table's address is a number to the engine: its provenance is exposed and taken up again.
    ("miri: paging", "-Zmiri-permissive-provenance", ["-p", "paging", "--test", "all", "memory::"]),
    # By the other model of who may use which pointer.
    ("miri: paging, Tree Borrows", "-Zmiri-permissive-provenance -Zmiri-tree-borrows", ["-p", "paging", "--test", "all", "memory::"]),
    # So is that of whoever made an area. Pages for areas are given for ever. Left out is what takes
    # long and touches nothing more.
    (
        "miri: vmalloc",
        "-Zmiri-permissive-provenance -Zmiri-ignore-leaks",
        ["-p", "vmalloc", "--lib", "--", "va::tests", "real_threads", "tests::one_page", "tests::deferred::a_double_free_that"]
        + ["--skip", "against_model", "--skip", "pieces_come", "--skip", "cost", "--skip", "freeing_never", "--skip", "a_range_can_come"],
    ),
]


def miri(report: Report) -> None:
    """What touches memory by pointer, under Miri, where a nightly toolchain has it."""
    there = run_logged("miri: version", ["scripts/cargo", "+nightly", "miri", "--version"], 60.0).good
    for name, flags, arguments in MIRI:
        if not there:
            report.skip(name, "no Miri here (rustup component add --toolchain nightly miri)")
            continue
        command = ["scripts/cargo", "+nightly", "miri", "test", *arguments]
        report.add(name, count_libtest(run_logged(name, command, 600.0, {"MIRIFLAGS": flags})))


STAGES: dict[str, Callable[[Report], None]] = {
    # Two at once, and the longest first. Beside the first, which compiles for minutes, none that
    # waits for the same folder.
    "host": host,
    "fresh": fresh,
    "lint": lint,
    "prove": prove,
    "runner": runner,
    "miri": miri,
    "boot": boot,
    "gdb": gdb,
    "granules": granules,
    "firmware": firmware,
    "broken": broken,
    "faults": faults,
    "shell": shell,
    "docs": docs,
    "bench": bench,
    "lines": lines,
    "replay": replay,
    "soak": soak,
    "variants": variants,
}

LONGER: dict[str, Callable[[Report], None]] = {
    "counts": counts,
}
"""For what takes its time: these run only when they are named."""
