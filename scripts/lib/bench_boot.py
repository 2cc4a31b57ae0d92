"""Boots of the kernel with mode=bench."""

import io
import os

from . import bench, emulator
from .machine import Machine

ICOUNT = ("-icount", "shift=0,sleep=off")
"""One instruction is one nanosecond, and the PMU counts them. All CPUs run in one host thread, in turn."""

NOTHING = "no-case-at-all"
"""A selection that leaves nothing but what the kernel says of the machine."""


AT_ONCE = emulator.Limits(8.0, 15.0)
"""Seconds without a line, and in all, for a boot whose CPUs have a thread of the host each."""


class Failed(Exception):
    """The kernel did not do what was asked; the message says what it said."""


def machine_for(cpu: str, arguments: list[str], smp: int = 1, mem: str = "1024", counted: bool = True) -> Machine:
    """The machine of a bench: always the same, but for what is asked for."""
    env = {**os.environ, "CPU": cpu, "SMP": str(smp), "MEM": mem, "GIC": "3", "EL2": ""}
    env["BOOTARGS"] = " ".join(["mode=bench", "log=warn", *arguments])
    plain = Machine.from_environment(env)
    return Machine(**{**vars(plain), "extra": ICOUNT if counted else ()})


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
