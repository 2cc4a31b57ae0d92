"""The barrier sequences that the engine emits, as litmus tests for herd7: as they are nothing wrong may be seen, and with a barrier less it may.

Run by scripts/litmus. herd7 is unpacked below BUILD/herd, from the Debian suite SUITE (sid), if it is not there. Where it
cannot be had the exit status is 77, with the reason. The tests are in scripts/lib/proofs/litmus.
"""

import os
import re
import subprocess
import tempfile
from pathlib import Path

from .debian_trees import Unavailable
from .errors import ScriptError
from .paths import BUILD, ROOT
from .unpacked import Unpacked

TESTS = ROOT / "scripts" / "lib" / "proofs" / "litmus"
FOLDER = BUILD.absolute() / "herd"
HERD = Unpacked(FOLDER, FOLDER / "bin" / "herd7", "herdtools7", '"$root/usr/bin/herd7" -set-libdir "$root/usr/share/herdtools7/herd"')
SECONDS = 60.0

LEAD, TRAIL, TLBI = "DSB ISHST", "DSB ISH ", "TLBI VAALE1IS,X3"
LOCAL = "TLBI VAALE1,X3  "

WITHOUT: dict[str, dict[str, tuple[str, str, int]]] = {
    "map": {"the DSB": (LEAD, "NOP", 1), "the ISB": ("ISB", "NOP", 1)},
    "link": {"the release": ("CASL", "CAS ", 1)},
    "unmap": {
        "the DSB before the TLBI": (LEAD, "NOP", 1),
        "the TLBI": (TLBI, "NOP", 1),
        "the inner-shareable form": (TLBI, LOCAL, 1),
        "the DSB behind the TLBI": (TRAIL, "NOP", 1),
        "waiting for the TLBI": (TRAIL, "DSB ISHST ", 1),
    },
    "unmap_here": {"the DSB before the TLBI": (LEAD, "NOP", 1), "the TLBI": (TLBI, "NOP", 1), "the DSB behind the TLBI": (TRAIL, "NOP", 1), "the ISB": (" ISB", " NOP", 1)},
    "reuse": {"the DSB before the TLBI": (LEAD, "NOP", 1), "the TLBI": (TLBI, "NOP", 1), "the DSB behind the TLBI": (TRAIL, "NOP", 1)},
    "replace": {"the DSB before the TLBI": (LEAD, "NOP", 1), "the TLBI": (TLBI, "NOP", 1), "the DSB behind the TLBI": (TRAIL, "NOP", 1)},
    "lazy": {
        "the release": ("STLR W9,[X5]", "STR W9,[X5] ", 1),
        "the DSB before the TLBI": (TRAIL, "NOP", 1),
        "waiting for loads before the TLBI": (TRAIL, "DSB ISHST ", 1),
        "the TLBI": (TLBI, "NOP", 1),
        "the inner-shareable form": (TLBI, LOCAL, 1),
        "the DSB behind the TLBI": (TRAIL, "NOP", 2),
    },
    "window_opens": {"the DMB": ("DMB ISH", "NOP", 1)},
    "window_closes": {"the release": ("STLR", "STR ", 1), "the DSB before the question": (TRAIL, "NOP", 1), "the ISB before the question": (" ISB", " NOP", 1)},
    "code": {
        "DC CVAU": ("DC CVAU,X1", "NOP", 1),
        "the DSB behind it": (TRAIL, "NOP", 1),
        "IC IVAU": ("IC IVAU,X1", "NOP", 1),
        "the DSB behind that": (TRAIL, "NOP", 2),
        "the ISB of the CPU that runs it": (" ISB", " NOP", 1),
    },
}
"""Of each test, what it must not do without: the text, what stands there instead, and which occurrence it is.

That the taker of the list acquires is not among it: the DSB ISH that follows waits for its load.
"""


def altered(text: str, name: str, without: str) -> str:
    """The test with one barrier less."""
    old, new, number = WITHOUT[name][without]
    head, separator, program = text.partition("}\n")
    at = -1
    for _ in range(number):
        at = program.find(old, at + 1)
        if at < 0:
            raise ScriptError(f"{name}.litmus has no '{old}' number {number}")
    return head + separator + program[:at] + new + program[at + len(old) :]


def verdict(said: str) -> str:
    """Never, Sometimes or Always: whether what must not be is seen."""
    if not (seen := re.search(r"^Observation \S+ (Never|Sometimes|Always) (\d+) (\d+)$", said, re.MULTILINE)):
        raise ScriptError(f"herd7 says nothing: {said.strip().splitlines()[-1:] or 'at all'}")
    if int(seen[2]) + int(seen[3]) == 0:
        raise ScriptError("herd7 has no execution")
    return seen[1]


def ask(text: str) -> str:
    with tempfile.TemporaryDirectory() as folder:
        test = Path(folder) / "test.litmus"
        test.write_text(text)
        try:
            done = subprocess.run([str(HERD.program), str(test)], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=SECONDS)
        except subprocess.TimeoutExpired as late:
            raise ScriptError(f"herd7 has no answer after {SECONDS:.0f} s") from late
    return verdict(done.stdout + done.stderr)


def run_all() -> int:
    passed = failed = 0
    files = {path.stem: path.read_text() for path in sorted(TESTS.glob("*.litmus"))}
    if set(files) != set(WITHOUT):
        raise ScriptError(f"{TESTS} and WITHOUT are not about the same tests: {' '.join(sorted(set(files) ^ set(WITHOUT)))}")
    for name, text in files.items():
        asked = {"": text} | {without: altered(text, name, without) for without in WITHOUT[name]}
        wrong = []
        for without, test in asked.items():
            said = ask(test)
            if (said == "Never") == bool(without):
                wrong.append(f"without {without}: {said}" if without else f"as it is: {said}")
        passed, failed = passed + (not wrong), failed + bool(wrong)
        print(f"FAILED  litmus {name}: {'; '.join(wrong)}" if wrong else f"held    litmus {name}: never; seen without {', '.join(WITHOUT[name])}", flush=True)
    print(f"litmus: {passed} passed, {failed} failed")
    return 1 if failed else 0


def main(_argv: list[str]) -> int:
    if not HERD.says("-version"):
        HERD.unpack(os.environ.get("SUITE") or "sid")
    if not (version := HERD.says("-version")):
        raise Unavailable("what was unpacked of herd7 does not start")
    print(f"litmus: herd7 {version.strip()}", flush=True)
    return run_all()
