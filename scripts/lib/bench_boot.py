"""Boots of the kernel with mode=bench."""

import io
import os

from . import bench, emulator
from .machine import Machine

ICOUNT = ("-icount", "shift=0,sleep=off")
"""One instruction is one nanosecond, and the PMU counts them. All CPUs run in one host thread, in turn."""

NOTHING = "no-case-at-all"
"""A selection that leaves nothing but what the kernel says of the machine."""


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


def several_cpus(cpu: str, glob: str, limits: emulator.Limits) -> dict[str, list[bench.Json]]:
    """The same work on 1, 2, 4 and 8 CPUs: in turn, where instructions are counted, and at once, where they are not."""
    result: dict[str, list[bench.Json]] = {"in turn": [], "at once": []}
    for smp in (1, 2, 4, 8):
        for how, counted in (("in turn", True), ("at once", False)):
            machine = machine_for(cpu, [f"bench={glob}"], smp=smp, counted=counted)
            result[how] += bench.parse_work(measure(machine, limits), smp)
    return result
