"""apt-get and apt-cache of the distributions in test_setup.py, which puts an interpreter's line before this.

ROOT is the distribution's root. `archive` has a JSON file for each package of each suite, `lists` those
of them that an update has told the machine; `did` gets a line for each thing done.
"""

import json
import os
import shutil
import sys
from pathlib import Path

ROOT = Path(os.environ["ROOT"])
PREFERRED = ("main", "security")


def view() -> str:
    """The configuration of whoever asks with a view of their own."""
    path = os.environ.get("APT_CONFIG")
    return Path(path).read_text() if path else ""


def setting(name: str) -> str | None:
    lines = [line for line in view().splitlines() if line.startswith(f'{name} "')]
    return lines[0].split('"')[1] if lines else None


def lists() -> Path:
    return Path(setting("Dir::State::lists") or ROOT / "lists")


def sources() -> str:
    folder = Path(setting("Dir::Etc::sourceparts") or ROOT / "etc/apt/sources.list.d")
    return "".join(file.read_text() for file in folder.iterdir())


def entries(name: str) -> list[dict[str, str]]:
    """The package in the suites that the lists have, what apt prefers first."""
    found = [json.loads(file.read_text()) for file in lists().glob(f"{name}@*")]
    order = {suite: place for place, suite in enumerate(("security", "main"))}
    return sorted(found, key=lambda entry: order.get(entry["suite"], 9))


def did(text: str) -> None:
    with (ROOT / "did").open("a") as file:
        file.write(text + "\n")


def fail(text: str) -> None:
    print(text)
    sys.exit(100)


def closure(names: list[str], suite: str | None, status: set[str]) -> list[dict[str, str]]:
    """What installing them would install."""
    wanted, queue = {}, list(names)
    while queue:
        name = queue.pop(0)
        if name in wanted or name in status:
            continue
        found = entries(name)
        if not found:
            fail(f"E: Unable to locate package {name}")
        of_suite = [entry for entry in found if entry["suite"] == suite]
        wanted[name] = (of_suite or found)[0]
        queue += wanted[name]["depends"].split()
    return list(wanted.values())


def installed(status: Path) -> set[str]:
    return {line.removeprefix("Package: ") for line in status.read_text().splitlines() if line.startswith("Package: ")}


def install(names: list[str], options: dict[str, str], simulated: bool) -> None:
    status = Path(options.get("Dir::State::status", ROOT / "var/lib/dpkg/status"))
    if "Dir::State::status" in options:
        shutil.copy(status, ROOT / "planned-on")
    there = installed(status)
    plan = closure(names, options.get("suite"), there)
    removed = {name for entry in plan for name in entry.get("removes", "").split()} & there
    for entry in plan:
        for name in entry.get("upgrades", "").split():
            print(f"Inst {name} [1] (2 Made-Up [amd64])")
        print(f"Inst {entry['name']} ({entry['version']} Made-Up [amd64])")
    for name in removed:
        print(f"Remv {name} [1]")
    if simulated:
        return
    did(f"install{' -t ' + options['suite'] if 'suite' in options else ''} {' '.join(names)}")
    if removed:
        fail("E: Packages need to be removed but remove is disabled.")
    if os.environ.get("USER_ID", (ROOT / "user").read_text()) != "0":
        fail("E: are you root?")
    if (ROOT / "no-installation").exists():
        fail("E: Could not get lock /var/lib/dpkg/lock-frontend.")
    for entry in plan:
        name = entry["name"]
        package = ROOT / "packages" / name
        with (ROOT / "owners").open("a") as file:
            file.writelines(f"{name}: {ROOT / path.relative_to(package)}\n" for path in package.rglob("*") if not path.is_dir() or path.is_symlink())
        shutil.copytree(package, ROOT, symlinks=True, dirs_exist_ok=True)
        with (ROOT / "var/lib/dpkg/status").open("a") as file:
            file.write(f"Package: {name}\nStatus: install ok installed\n{entry.get('status', '')}\n")


def update() -> None:
    did("update" if lists() == ROOT / "lists" else "update of lists of its own")
    if (ROOT / "no-network").exists():
        fail("E: Failed to fetch")
    for file in (ROOT / "archive").iterdir():
        suite = file.name.partition("@")[2]
        if suite == "main" or suite in sources():
            shutil.copy(file, lists())


def download(names: list[str]) -> None:
    did(f"download {' '.join(names)}")
    if (ROOT / "no-network").exists():
        fail("E: Failed to fetch")
    for name in names:
        Path(f"{name.partition('=')[0]}_amd64.deb").touch()


def show_policy(name: str) -> None:
    found = entries(name)
    if found:
        print(f"{name}:\n  Installed: (none)\n  Candidate: {found[0]['version']}\n  Version table:")
    for entry in found:
        print(f"     {entry['version']} 500\n        500 http://archive.made.up/debian {entry['suite']}/main amd64 Packages")


def main(words: list[str]) -> None:
    options: dict[str, str] = {}
    rest = []
    while words:
        word = words.pop(0)
        if word == "-o":
            key, _, value = words.pop(0).partition("=")
            options[key] = value
        elif word == "-t":
            options["suite"] = words.pop(0)
        elif word == "--format":
            words.pop(0)
        elif not word.startswith("-"):
            rest.append(word)
        elif word == "-s":
            options["-s"] = "1"
    what, names = rest[0], rest[1:]
    if what == "update":
        update()
    elif what == "download":
        download(names)
    elif what == "install":
        if (ROOT / "no-network").exists() and "-s" not in options:
            did(f"install {' '.join(names)}")
            fail("E: Failed to fetch")
        install(names, options, "-s" in options)
    elif what == "policy":
        show_policy(names[0])
    elif what == "pkgnames":
        print("\n".join(sorted({file.name.partition("@")[0] for file in lists().glob(f"{names[0]}*")})))
    elif what == "show":
        print(f"Source: {entries(names[0])[0].get('source', names[0])}" if entries(names[0]) else "")
    elif what == "indextargets":
        print((ROOT / "etc/apt/targets").read_text() if (ROOT / "etc/apt/targets").exists() else "")


main(sys.argv[1:])
