"""What Linux's calls cost: its source, built with the files of scripts/linux-peer/, and measured.

The kernel is Debian's linux-source package of the suite that has it. Nothing is installed: the
package is unpacked below the build folder, with apt's lists of that suite.
"""

import csv
import io
import os
import re
import shutil
import subprocess
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from statistics import mean, median

from . import emulator, lines, processes
from .bench_boot import ICOUNT, Failed
from .machine import Machine
from .paths import ROOT

FILES = ROOT / "scripts" / "linux-peer"
CROSS = "aarch64-linux-gnu-"
TOOLS = {f"{CROSS}gcc": "gcc-aarch64-linux-gnu", "make": "make", "flex": "flex", "bison": "bison", "bc": "bc", "perl": "perl", "xz": "xz-utils", "dpkg-deb": "dpkg"}
"""What a build of Linux takes here, and the package of each."""

BUILD_LIMIT = 4 * 3600.0
FETCH_LIMIT = 1800.0
MARK = "vmwalk"
"""A word in each line that is added to Linux's own files."""

ICOUNT_FIELDS = ("case", "map", "unmap", "lazy_purge", "leaves")
LOOPS_FIELDS = ("test", "nr_pages", "use_huge", "instructions_per_loop")
NR_LOOPS = 10_000
LINES_FIELDS = ("case", "kind", "n", "insn", "load", "store", "lines", "rmw", "dsb", "dmb", "isb", "tlbi", "rxfer", "wxfer", "xfer_mean")


def missing_tools() -> dict[str, str]:
    return {tool: package for tool, package in TOOLS.items() if not shutil.which(tool)}


def run(command: list[str], log: Path, limit: float, cwd: Path | None = None, **variables: str) -> None:
    """Runs a step, its output kept; a failure is one line with the last that it said."""
    with log.open("ab") as output:
        output.write(f"$ {' '.join(command)}\n".encode())
        output.flush()
        process = processes.start(command, politely=True, cwd=cwd or ROOT, env={**os.environ, "LC_ALL": "C", **variables}, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT)
        try:
            process.wait(limit)
        except subprocess.TimeoutExpired:
            raise Failed(f"{command[0]} did not end in {limit:g} s ({log})") from None
        finally:
            processes.end(process)
    if process.returncode:
        said = log.read_text(errors="replace").splitlines()[-1]
        raise Failed(f"{command[0]}: {said} ({log})")


def fetch(package: str, suite: str, folder: Path, log: Path) -> Path:
    """The package's source, unpacked; with the package lists of `suite` alone."""
    tree = folder / "source"
    if (tree / "Makefile").is_file():
        return tree
    apt = folder / "apt"
    for part in ("lists/partial", "cache/archives/partial", "sources.list.d"):
        (apt / part).mkdir(parents=True, exist_ok=True)
    (apt / "sources.list").write_text(f"deb {mirror()} {suite} main\n")
    options = {
        "Dir::State::lists": apt / "lists",
        "Dir::Cache": apt / "cache",
        "Dir::Etc::sourcelist": apt / "sources.list",
        "Dir::Etc::sourceparts": apt / "sources.list.d",
        "APT::Sandbox::User": "root",
    }
    settings = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
    run(["apt-get", *settings, "update"], log, FETCH_LIMIT)
    run(["apt-get", *settings, "download", package], log, FETCH_LIMIT, cwd=folder)
    debs = sorted(folder.glob(f"{package}_*.deb"))
    if not debs:
        raise Failed(f"{package} was not downloaded ({log})")
    run(["dpkg-deb", "-x", str(debs[-1]), str(folder / "package")], log, FETCH_LIMIT)
    archives = list((folder / "package" / "usr" / "src").glob("linux-source-*.tar.xz"))
    if len(archives) != 1:
        raise Failed(f"{debs[-1].name} has {len(archives)} archives of a source")
    unpacked = folder / "unpacking"
    shutil.rmtree(unpacked, ignore_errors=True)
    unpacked.mkdir()
    run(["tar", "-xJf", str(archives[0]), "-C", str(unpacked), "--strip-components=1"], log, FETCH_LIMIT)
    unpacked.rename(tree)
    return tree


def mirror() -> str:
    """Where this machine takes Debian from; LINUX_MIRROR says so where it is none."""
    if given := os.environ.get("LINUX_MIRROR"):
        return given
    targets = subprocess.run(["apt-get", "indextargets", "--format", "$(REPO_URI) $(CODENAME) $(COMPONENT)", "Created-By: Packages"], stdin=subprocess.DEVNULL, capture_output=True, text=True)
    for line in targets.stdout.splitlines():
        address, codename, *_ = line.split()
        if re.fullmatch(r"[a-z]+", codename) and address.rstrip("/").endswith("/debian"):
            return address
    raise Failed("this machine takes packages from no mirror of Debian; LINUX_MIRROR=ADDRESS names one")


def add_files(tree: Path) -> None:
    """Puts what measures into the source, once."""
    for name in ("vmbench", "vmscale"):
        shutil.copy(FILES / f"{name}.c", tree / "mm" / f"{name}.c")
    makefile = tree / "mm" / "Makefile"
    text = makefile.read_text()
    if MARK not in text:
        makefile.write_text(text + f"\n# {MARK}\nobj-y += vmbench.o vmscale.o\n")


def build(tree: Path, folder: Path, log: Path) -> Path:
    """The kernel, with a first process that powers off."""
    init, listed, config = folder / "init", folder / "initramfs.list", folder / "config"
    run([f"{CROSS}gcc", "-static", "-nostdlib", "-ffreestanding", "-fno-stack-protector", "-O2", "-o", str(init), str(FILES / "init.c")], log, 60.0)
    listed.write_text(f"dir /dev 755 0 0\nnod /dev/console 600 0 0 c 5 1\nfile /init {init} 755 0 0\n")
    config.write_text((FILES / "config").read_text() + f'CONFIG_INITRAMFS_SOURCE="{listed}"\n')
    make = ["make", "-C", str(tree), "ARCH=arm64", f"CROSS_COMPILE={CROSS}"]
    run([*make, f"KCONFIG_ALLCONFIG={config}", "allnoconfig"], log, 600.0)
    run([*make, f"-j{os.cpu_count() or 2}", "Image"], log, BUILD_LIMIT)
    return tree / "arch" / "arm64" / "boot" / "Image"


def boot(image: Path, out: Path, smp: int, argument: str, end: str, *extra: str, loops: str = "run_test_mask=0") -> list[str]:
    """What a boot prints that measures, up to a line with `end`. `loops` are arguments of Linux's own test_vmalloc, which runs none by default."""
    tests = " ".join(f"test_vmalloc.{word}" for word in loops.split())
    bootargs = f"console=ttyAMA0 {argument} {tests}"
    machine = Machine(cpu="max", smp=str(smp), mem="1024", gic="3", bootargs=bootargs, qemu=os.environ.get("QEMU") or Machine().qemu, image=image, extra=extra)
    log = out / f"{argument.split('=')[0]}.log"
    with log.open("wb") as sink:
        _, how = emulator.run(machine.command(), emulator.Limits(900.0), emulator.Outlet(sink, quiet=True))
    printed = log.read_text(errors="replace").splitlines()
    if not any(end in line for line in printed):
        raise Failed(f"Linux did not come to the end of {argument}: {how.defect() or 'it powered off'} ({log})")
    return printed


def instruction_rows(printed: Iterable[str]) -> Iterator[dict[str, str]]:
    """Rows as in linux-7.3-icount.csv, of what vmbench.c printed."""
    line = re.compile(r"VMB\|(?P<case>[^|]+)\|n=\d+\|map med (?P<map>\d+) .*\|unmap med (?P<unmap>\d+) .*\|purge/op (?P<lazy_purge>\d+)\|(?:leaves )?(?P<leaves>.*)$")
    for text in printed:
        if found := line.search(text):
            yield {name: value.strip() for name, value in found.groupdict().items()}


def line_rows(counted: Iterable[str]) -> Iterator[dict[str, str]]:
    """Rows as in linux-7.3-lines-8cpus.csv, of what the plugin wrote: medians, and the mean of transfers."""
    calls: dict[tuple[int, int], list[list[int]]] = defaultdict(list)
    ended = False
    for text in counted:
        word, *rest = text.split()
        ended = word == "end"
        if word == "call":
            number, kind, *row = (int(field) for field in rest)
            calls[number, kind].append(row)
    if not ended:
        raise Failed("the plugin did not come to its end")
    for (number, kind), rows in sorted(calls.items()):
        columns = dict(zip(lines.FIELDS, zip(*rows, strict=True), strict=True))
        passed = columns.pop("transfers")
        cells = [f"{median(column):.0f}" for column in columns.values()]
        # The plugin tells reads from writes no more than `make lines` does.
        yield dict(zip(LINES_FIELDS, [str(number), "AB"[kind], str(len(rows)), *cells, "", "", f"{mean(passed):.2f}"], strict=True))


def write_csv(path: Path, fields: tuple[str, ...], rows: Iterable[dict[str, str]], head: str = "") -> list[dict[str, str]]:
    """Writes the rows, and returns them."""
    text, kept = io.StringIO(), list(rows)
    writer = csv.DictWriter(text, fields, lineterminator="\n")
    writer.writeheader()
    writer.writerows(kept)
    path.write_text(head + text.getvalue())
    return kept


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(line for line in file if not line.startswith("#")))


def differences(committed: Iterable[dict[str, str]], taken: Iterable[dict[str, str]], keys: tuple[str, ...], held: tuple[str, ...], slack: float = 0.0) -> Iterator[str]:
    """What differs by more than `slack`, as a part of it, from what the committed file says, or was not counted."""
    now = {tuple(row[key] for key in keys): row for row in taken}
    for row in committed:
        name = tuple(row[key] for key in keys)
        other = now.get(name)
        if other is None:
            yield f"{', '.join(name)}: not counted"
            continue
        for field in held:
            if abs(int(other[field]) - int(row[field])) > slack * int(row[field]):
                yield f"{', '.join(name)}, {field}: {row[field]} committed, {other[field]} now"


def measure_instructions(image: Path, out: Path) -> list[dict[str, str]]:
    printed = boot(image, out, 1, "vmbench=1", "VMB|done", *ICOUNT)
    return write_csv(out / "icount.csv", ICOUNT_FIELDS, instruction_rows(printed), f"# {version(printed)}\n")


def measure_lines(image: Path, out: Path) -> list[dict[str, str]]:
    rows = out / "lines.rows"
    plugin = lines.build_plugin(os.environ.get("QEMU") or Machine().qemu, out)
    boot(image, out, 8, "vmscale=1", "VMS|done", *ICOUNT, "-plugin", f"{plugin},out={rows}")
    with rows.open() as counted:
        return write_csv(out / "lines-8cpus.csv", LINES_FIELDS, line_rows(counted))


def measure_loops(image: Path, tree: Path, out: Path, wanted: Iterable[dict[str, str]]) -> list[dict[str, str]]:
    """The tests of lib/test_vmalloc.c that are `wanted`, each in a boot of its own."""
    masks = dict(loop_masks((tree / "lib" / "test_vmalloc.c").read_text()))

    def row(test: dict[str, str]) -> dict[str, str]:
        name = f"{test['test']}_test"
        # A range is what the test has in its source.
        pages = f"nr_pages={test['nr_pages']} " if test["nr_pages"].isdecimal() else ""
        loops = f"{pages}run_test_mask={masks[name]} use_huge={test['use_huge']} test_loop_count={NR_LOOPS} nr_threads=1"
        printed = boot(image, out, 1, "loops=1", "Summary: ", *ICOUNT, loops=loops)
        return {**test, "instructions_per_loop": str(per_loop(printed, name))}

    return write_csv(out / "test_vmalloc.csv", LOOPS_FIELDS, [row(test) for test in wanted])


def loop_masks(source: str) -> Iterator[tuple[str, int]]:
    """The tests that the source names, and what selects each."""
    for mask, name in re.findall(r"id: (\d+), +name: (\w+)", source):
        yield name, int(mask)


def per_loop(printed: Iterable[str], name: str) -> int:
    """Instructions of a loop: under `-icount shift=0` each takes a nanosecond."""
    line = re.compile(rf"Summary: {name} passed: 1 .*avg: (\d+) usec")
    for text in printed:
        if found := line.search(text):
            return round(int(found[1]) * 1000 / NR_LOOPS)
    raise Failed(f"{name} did not pass")


def version(printed: Iterable[str]) -> str:
    return next((found[0] for text in printed if (found := re.search(r"Linux version \S+", text))), "Linux")
