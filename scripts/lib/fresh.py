"""Roots of fresh machines, made by debootstrap, and what a person types first in them.

A root has what the README asks for and nothing else. What runs in it is in namespaces of its own, so
that mounts and processes end with it however it ends, and the root is removed. Where packages come
from, and what a connection takes, is the host's: its mirror, apt's settings for it, certificates and
cargo's configuration are read or copied when the root is made, and stand nowhere in the checkout.
"""

import ctypes
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from . import processes
from .errors import ScriptError
from .paths import BUILD, ROOT

FOLDER = BUILD / "fresh"
ROOTS = FOLDER / "roots"
ENOUGH_RAM = 8 << 30
"""Bytes that are available: a root of which all was built takes 3 GiB."""
CLONE_NEWNS = 0x20000
PACKAGES = "git,make,ca-certificates"
CHECKOUT = "/home/someone/vmwalk"
USER = 1000
LIMIT = 5400.0
"""Seconds for one command on a busy host. All that a command waits for has limits of its own."""
VARIABLES = re.compile(r"(https?|ftp|no)_proxy|(SSL|GIT|CURL|CARGO)_.*(CERT|CA|PROXY).*|CARGO_PROFILE_.*", re.IGNORECASE)
"""What of the environment goes on: what a connection may need, and what a build is told."""


class Skipped(ScriptError):
    """No root can be made here; the message says why."""

    status = 77


class Failed(ScriptError):
    """What was typed did not do what it should; the message says what it did."""


def host(*command: str) -> str:
    """Returns what a command of the host prints; nothing if it fails."""
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    return done.stdout if done.returncode == 0 else ""


def mirror() -> list[str]:
    """Returns where Debian's main suites come from, or nothing: debootstrap knows a place itself."""
    listed = host("apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages").split()
    known = [os.environ.get("OTHER_MIRROR", ""), *(uri.rstrip("/") for uri in listed if re.search(r"/debian/?$", uri))]
    return [uri for uri in known if uri][:1]


def take_room() -> None:
    """Has the roots lie in RAM, if there is plenty: a disk that discards takes minutes to remove one.

    It is mounted for this process alone, and goes with it however it ends.
    """
    ROOTS.mkdir(parents=True, exist_ok=True)
    available = re.search(r"^MemAvailable: *(\d+) kB$", Path("/proc/meminfo").read_text(), re.MULTILINE)
    if os.geteuid() != 0 or not available or int(available[1]) << 10 < ENOUGH_RAM:
        return
    if ctypes.CDLL(None).unshare(CLONE_NEWNS) == 0 and subprocess.run(["mount", "--make-rprivate", "/"], check=False).returncode == 0:
        subprocess.run(["mount", "-t", "tmpfs", "roots", str(ROOTS.absolute())], check=False)


def make_root(suite: str) -> Path:
    """Returns an archive of a minimal root of this suite, which is made once."""
    archive = FOLDER / f"{suite}.tar"
    if archive.exists():
        return archive
    if os.geteuid() != 0:
        raise Skipped("debootstrap takes root")
    if not shutil.which("debootstrap"):
        raise Skipped("no debootstrap here (apt-get install debootstrap)")
    root = ROOTS / f"{suite}.{os.getpid()}"
    try:
        command = ["debootstrap", "--variant=minbase", f"--include={PACKAGES}", suite, str(root.absolute()), *mirror()]
        log = FOLDER / f"{suite}.log"
        if run(command, log) != 0:
            raise Skipped(f"debootstrap {suite} failed: {last_line(log)} ({log})")
        for package in (root / "var/cache/apt/archives").glob("*.deb"):
            package.unlink()
        partial = archive.with_name(f"{archive.name}.{os.getpid()}")
        tar("-C", str(root), "-cf", str(partial), ".")
        partial.rename(archive)
    finally:
        remove(root)
    return archive


def run(command: list[str], log: Path, limit: float = 900, env: dict[str, str] | None = None) -> int:
    """Returns a command's exit status; what it says is added to the log. Past `limit` seconds it is ended."""
    with log.open("ab") as output:
        process = processes.start(command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, env=env)
        try:
            return process.wait(limit)
        except subprocess.TimeoutExpired:
            raise Failed(f"{command[-1]!r} did not end within {limit:g} s") from None
        finally:
            processes.end(process)


def tar(*arguments: str) -> None:
    process = processes.start(["tar", *arguments], stdin=subprocess.DEVNULL)
    if process.wait() != 0:
        raise Failed(f"tar {' '.join(arguments)} failed")


def last_line(path: Path) -> str:
    lines = path.read_text(errors="replace").split("\n")
    return next((line for line in reversed(lines) if line.strip()), "")


def remove(root: Path) -> None:
    # rm, since what a command left may be deep, and of any owner.
    subprocess.run(["rm", "-rf", "--one-file-system", str(root)], check=False)


class Machine:
    """A root that is unpacked, with a checkout in it. It stays until it is removed."""

    def __init__(self, name: str, suite: str, log: Path) -> None:
        archive = make_root(suite)
        self.root = ROOTS / name
        self.log = log
        remove(self.root)
        self.root.mkdir(parents=True)
        tar("-C", str(self.root), "-xpf", str(archive))
        self._take_over_connections()
        self._check_out()

    def _take_over_connections(self) -> None:
        for name in ("resolv.conf", "hosts", "ssl/certs/ca-certificates.crt"):
            source = Path("/etc") / name
            if source.exists():
                shutil.copyfile(source, self.root / "etc" / name)
        settings = [line for line in host("apt-config", "dump").splitlines() if line.startswith("Acquire::")]
        (self.root / "etc/apt/apt.conf.d/99host").write_text("\n".join([*settings, 'Acquire::Languages "none";', ""]))
        for file in Path("/etc/apt/auth.conf.d").glob("*"):
            shutil.copy(file, self.root / "etc/apt/auth.conf.d")
        self.environment = {name: value for name, value in os.environ.items() if VARIABLES.fullmatch(name)}
        cargo = Path(os.environ.get("CARGO_HOME") or Path.home() / ".cargo") / "config.toml"
        self.homes = {0: Path("/root"), USER: Path("/home/someone")}
        for home in self.homes.values():
            (self.root / str(home)[1:] / ".cargo").mkdir(parents=True, exist_ok=True)
            if cargo.exists():
                shutil.copy(cargo, self.root / str(home)[1:] / ".cargo")

    def _check_out(self) -> None:
        listed = subprocess.run(["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"], capture_output=True)
        if listed.returncode == 0:
            names = [name for name in listed.stdout.decode().split("\0") if (ROOT / name).is_file()]
        else:
            # A checkout without its history: all but what is built.
            names = [str(path.relative_to(ROOT)) for path in ROOT.rglob("*") if path.is_file() and path.relative_to(ROOT).parts[0] not in ("build", "target")]
        for name in names:
            target = self.root / CHECKOUT[1:] / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target)
        with (self.root / "etc/passwd").open("a") as passwd:
            passwd.write(f"someone:x:{USER}:{USER}::/home/someone:/bin/sh\n")
        with (self.root / "etc/shadow").open("a") as shadow:
            # PAM, which sudo asks, has no account without one.
            shadow.write("someone:*:19000:0:99999:7:::\n")
        subprocess.run(["chown", "-R", f"{USER}:{USER}", str(self.root / "home/someone")], check=True)

    def type(self, command: str, user: int = 0, fails: bool = False) -> str:
        """Returns what the command says. Raises Failed unless it succeeds, or fails if it should."""
        # The checkout belongs to who types.
        prepare = f"chown -R {user}:{user} {CHECKOUT}; cd {CHECKOUT}; exec setpriv --reuid {user} --regid {user} --clear-groups sh -c \"$1\""
        inside = 'mount --rbind /dev "$0/dev" && exec chroot "$0" sh -c "$1" sh "$2"'
        line = ["unshare", "--mount", "--pid", "--fork", "--kill-child", f"--mount-proc={self.root.absolute()}/proc"]
        line += ["sh", "-c", inside, str(self.root.absolute()), prepare, command]
        env = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": str(self.homes[user]), "LC_ALL": "C", **self.environment}
        with self.log.open("ab") as log:
            log.write(f"\n$ {command} # user {user}\n".encode())
        begin = self.log.stat().st_size
        status = run(line, self.log, LIMIT, env)
        if (status != 0) != fails:
            raise Failed(f"`{command}` as user {user} ended with {status}: {last_line(self.log)}")
        return self.log.read_bytes()[begin:].decode(errors="replace")

    def installed(self) -> dict[str, str]:
        """Returns the packages and their versions."""
        shown = host("dpkg-query", f"--admindir={self.root.absolute()}/var/lib/dpkg", "-W", "-f", "${Package}=${Version}\n")
        return dict(line.split("=", 1) for line in shown.splitlines())

    def unpacked(self, pattern: str) -> list[str]:
        """Returns the programs that were unpacked instead of installed."""
        return [file.name for file in Path(f"{self.root}{CHECKOUT}/build/private/bin").glob(pattern)]

    def make(self, arguments: str, user: int = 0, fails: bool = False) -> str:
        """Types `make`, and holds what became of the machine against what was said."""
        before = self.installed()
        said = self.type(f"make {arguments}", user, fails)
        after = self.installed()
        words = set(re.split(r"[\s;]+", "\n".join(line for line in said.splitlines() if line.startswith("setup: "))))
        if changed := [name for name in {**before, **after} if before.get(name) != after.get(name) and name not in words]:
            raise Failed(f"`make {arguments}` changed {', '.join(sorted(changed))} without a word")
        if lost := before.keys() - after.keys():
            raise Failed(f"`make {arguments}` removed {', '.join(sorted(lost))}")
        return said


def expect(said: str, *patterns: str) -> None:
    for pattern in patterns:
        if not re.search(pattern, said, re.MULTILINE):
            raise Failed(f"nothing was said that matches {pattern!r}")


RAN = r"^run: PASS: \d+ passed, 0 failed"
TESTED = r"^\d+ passed, 0 failed$"


def both_commands(machine: Machine, user: int = 0) -> None:
    expect(machine.make("run", user), RAN)
    expect(machine.make("test STAGES=runner,gdb", user), TESTED)


def run_alone(machine: Machine) -> None:
    expect(machine.make("run"), RAN)


def as_a_user(machine: Machine) -> None:
    """Without sudo: it is said what root has to install, and then all else is had without root."""
    said = machine.make("run", USER, fails=True)
    expect(said, "^setup: neither root nor sudo, and without an installation there is no way to: python3 gcc libc6-dev$")
    advice = re.search("^setup: have root run: (.*)$", said, re.MULTILINE)
    assert advice
    machine.type(f"apt-get update && apt-get install -y {advice[1].removeprefix('apt-get install ')}")
    before = machine.installed()
    both_commands(machine, USER)
    if machine.installed() != before:
        raise Failed("a user changed the machine")


def as_a_user_with_sudo(machine: Machine) -> None:
    machine.type("apt-get update && apt-get install -y --no-install-recommends sudo && echo 'someone ALL=(ALL) NOPASSWD: ALL' >/etc/sudoers.d/someone")
    both_commands(machine, USER)
    if programs := machine.unpacked("*"):
        raise Failed(f"what could be installed was unpacked: {', '.join(programs)}")


def beside_a_newer_suite(machine: Machine) -> None:
    """A tool of the emulator's is there from a suite that is listed no more."""
    more = "/etc/apt/sources.list.d/more.list"
    machine.type(f"sed 's/ bookworm / bookworm-backports /' /etc/apt/sources.list >{more}; apt-get update; apt-get install -y --no-install-recommends -t bookworm-backports qemu-utils; rm {more}; apt-get update")
    before = machine.installed()["qemu-utils"]
    both_commands(machine)
    if machine.installed()["qemu-utils"] != before:
        raise Failed("qemu-utils is another one")
    if not machine.unpacked("qemu-system-*"):
        raise Failed("the emulator was not unpacked")


def beside_an_older_compiler(machine: Machine) -> None:
    machine.type("apt-get update; apt-get install -y --no-install-recommends rustc cargo")
    both_commands(machine)


@dataclass(frozen=True)
class Case:
    """A root, and what is typed in it."""

    suite: str
    act: Callable[[Machine], None]


CASES = {
    "debian-12-run": Case("bookworm", run_alone),
    "debian-12": Case("bookworm", both_commands),
    "debian-12-user": Case("bookworm", as_a_user),
    "debian-12-conflict": Case("bookworm", beside_a_newer_suite),
    "debian-12-compiler": Case("bookworm", beside_an_older_compiler),
    "debian-13": Case("trixie", both_commands),
    "debian-13-user": Case("trixie", as_a_user),
    "debian-13-sudo": Case("trixie", as_a_user_with_sudo),
}


def run_case(name: str, log: Path) -> None:
    """Raises Skipped or Failed."""
    case = CASES[name]
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_bytes(b"")
    try:
        case.act(Machine(name, case.suite, log))
    finally:
        logs = ROOTS / name / CHECKOUT[1:] / "build" / "logs"
        if logs.is_dir():
            shutil.copytree(logs, log.with_name(f"fresh-{name}"), dirs_exist_ok=True)
        remove(ROOTS / name)
