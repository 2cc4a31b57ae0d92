"""Boots of the kernel with mode=bench."""

import io
import os
import re
import subprocess
from concurrent.futures import ThreadPoolExecutor

from . import bench, bench_pmu, emulator, processes
from .errors import ScriptError
from .machine import Machine, parallel_boots

ICOUNT = ("-icount", "shift=0,sleep=off")
"""One instruction is one nanosecond, and the PMU counts them. All CPUs run in one host thread, in turn."""

PMU = "bench.counters=pmu"
"""The kernel counts what the machine can, and needs no -icount."""

NOTHING = "no-case-at-all"
"""A selection that leaves nothing but what the kernel says of the machine."""
LIST = "list"
"""A selection that prints the names of all cases and curves, and runs none."""

AT_ONCE = emulator.Limits(8.0, 15.0)
"""Seconds without a line, and in all, for a boot whose CPUs have a thread of the host each."""


class Failed(ScriptError):
    """The kernel did not do what was asked; the message says what it said."""


def machine_for(cpu: str, arguments: list[str], smp: int = 1, mem: str = "1024", counted: bool = True) -> Machine:
    """The machine of a bench: always the same, but for what is asked for."""
    env = {**os.environ, "CPU": cpu, "SMP": str(smp), "MEM": mem, "GIC": "", "EL2": ""}
    env["BOOTARGS"] = " ".join(["mode=bench", "log=warn", *arguments])
    plain = Machine.from_environment(env)
    return Machine(**{**vars(plain), "extra": ICOUNT if counted and not plain.accel and PMU not in arguments else ()})


def measure(machine: Machine, limits: emulator.Limits) -> list[str]:
    """The bench lines of one boot.

    Raises Failed if the kernel did not come to its end.
    """
    printed = io.BytesIO()
    transcript, end = emulator.run(machine.command(), limits, emulator.Outlet(printed, quiet=True))
    if transcript.alarms:
        raise Failed(transcript.alarms[0])
    if not transcript.done:
        raise Failed(f"the kernel did not finish ({end.defect() or 'it powered off early'}); it last said: {transcript.last_line!r}")
    if defect := end.defect():
        raise Failed(defect)
    lines = printed.getvalue().decode(errors="replace").splitlines()
    return [line for line in lines if line.startswith(bench.MARK)]


def glob_argument(glob: str) -> str:
    """Boot arguments are separated by blanks, so a blank in a glob goes as what matches it."""
    return "".join("?" if letter.isspace() else letter for letter in glob)


def names(cpu: str, shared: list[str], limits: emulator.Limits) -> tuple[list[str], str]:
    """The names of all cases, curves and kinds of work, in their order; and the line about the machine."""
    machine_line, *lines = measure(machine_for(cpu, [f"bench={LIST}", *shared]), limits)
    return [bench.parse_name(line) for line in lines], machine_line


def measure_each(cpu: str, chosen: list[str], shared: list[str], limits: emulator.Limits) -> list[str]:
    """The lines of these cases and curves, each from a boot of its own.

    What a case costs depends on the state of the frame allocator, and that on what ran before.
    """

    def one(name: str) -> list[str]:
        _machine, *lines = measure(machine_for(cpu, [f"bench={glob_argument(name)}", *shared]), limits)
        if not lines:
            raise Failed(f"{name}: the kernel has measured nothing")
        if others := {bench.name_of(line) for line in lines} - {name}:
            raise Failed(f"{name}: the kernel has measured {', '.join(sorted(others))} in the same boot")
        return lines

    # Boots at once would be in each other's times.
    with ThreadPoolExecutor(1 if PMU in shared else parallel_boots()) as pool:
        return [line for lines in pool.map(one, chosen) for line in lines]


def description(machine: Machine, said: bench.Json) -> bench.Json:
    """What a result says of its machine, beside what the kernel `said`."""
    version = subprocess.run([processes.find(machine.qemu), "--version"], stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", timeout=60)
    release = re.search(r"version (\S+)", version.stdout)
    stamp = re.search(rb"vmwalk commit: (\w+\+?)", machine.image.read_bytes())
    return {
        "cpu": machine.cpu,
        "name": bench_pmu.name_of_cpu(said["midr"]),
        "accelerator": machine.accel or "tcg",
        "emulator": f"QEMU {release[1]}" if release else "not said",
        "commit": stamp[1].decode() if stamp else "unknown",
        "counters": said.get("counters", "instructions"),
        "command": " ".join(machine.command()[1:]),
    }


def boot_curve(cpu: str, limits: emulator.Limits) -> list[list[int]]:
    """Instructions from reset to where the first self-test, or the bench, begins: by MiB of RAM."""
    points = []
    for mem in (128, 256, 512, 1024, 2048, 4096, 8192):
        lines = measure(machine_for(cpu, [f"bench={NOTHING}"], mem=str(mem)), limits)
        points.append([mem, bench.parse(lines).machine["boot_instructions"]])
    return points


def several_cpus(cpu: str, glob: str, limits: emulator.Limits) -> bench.Json:
    """The same work on 1, 2, 4 and 8 CPUs: in turn, where instructions are counted, and at once, where they are not.

    At once, an emulated TLBI waits for the host's threads of all CPUs. Where the host has fewer
    processors, or others use them, that may take longer than anybody waits: such a row is missing, and
    the document says which.
    """
    result: bench.Json = {"in turn": [], "at once": [], "unfinished": []}
    for smp in (1, 2, 4, 8):
        result["in turn"] += bench.parse_work(measure(machine_for(cpu, [f"bench={glob}"], smp=smp), limits), smp)
        at_once = machine_for(cpu, [f"bench={glob}"], smp=smp, counted=False)
        try:
            result["at once"] += bench.parse_work(measure(at_once, AT_ONCE), smp)
        except Failed as failed:
            if smp == 1:
                raise
            result["unfinished"].append(f"{smp} CPUs at once: {failed}")
    return result


def several_cpus_by_time(cpu: str, glob: str, shared: list[str], limits: emulator.Limits) -> list[bench.Json]:
    """The same work on 1, 2, 4 and 8 CPUs at once, as far as the host has so many: how long it takes."""
    result = []
    for smp in (1, 2, 4, 8):
        if smp <= max(1, os.cpu_count() or 1):
            result += bench_pmu.parse_cpus(measure(machine_for(cpu, [f"bench={glob}", *shared], smp=smp), limits), smp)
    return result
