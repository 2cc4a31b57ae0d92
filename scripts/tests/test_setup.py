"""What scripts/setup decides on distributions made up here: their package lists, what is installed, and what comes of an installation.

The script runs as it is, but for the places where it looks for a distribution's files, which are moved to a folder. The names of the packages and
where their files lie are those that Debian and Ubuntu list.
"""

import os
import shutil
import subprocess
import tempfile
import unittest
from pathlib import Path

SETUP = Path(__file__).resolve().parents[1] / "setup"
TARGET = "aarch64-unknown-none-softfloat"
TOOLS = "awk cat chmod cmp cp cut dirname env grep head ln ls mkdir mv readlink rm sed sh sort tail timeout true".split()

APT_CACHE = """#!/bin/sh
case $1 in
    policy) [ ! -f "$ROOT/lists/$2" ] || printf '%s:\\n  Installed: (none)\\n  Candidate: %s\\n' "$2" "$(cat "$ROOT/lists/$2")" ;;
    pkgnames) ls "$ROOT/lists" | grep "^$2" ;;
esac
"""

APT_GET = """#!/bin/sh
[ ! -e "$ROOT/no-network" ] || exit 100
install() {
    [ ! -e "$ROOT/installed/$1" ] || return 0
    [ -f "$ROOT/lists/$1" ] || { echo "E: Unable to locate package $1"; exit 100; }
    : >"$ROOT/installed/$1"
    (cd "$ROOT/packages/$1" && find . -type f -o -type l) | sed "s|^[.]|$1: $ROOT|" >>"$ROOT/owners"
    cp -a "$ROOT/packages/$1/." "$ROOT"
    for needed in $(cat "$ROOT/depends/$1" 2>/dev/null); do install "$needed"; done
}
while [ $# != 0 ]; do
    case $1 in
        update) echo update >>"$ROOT/did"; cp "$ROOT"/archive/* "$ROOT/lists" ;;
        install)
            shift
            asked=
            for word in "$@"; do case $word in -*) ;; *) asked="$asked $word" ;; esac; done
            echo "install$asked" >>"$ROOT/did"
            for word in $asked; do install "$word"; done
            exit 0
            ;;
    esac
    shift
done
"""

DPKG = """#!/bin/sh
shift
for path in "$@"; do grep ": $path\\$" "$ROOT/owners" || echo "dpkg-query: no path found matching pattern $path" >&2; done
"""

RUSTUP = f"""#!/bin/sh
echo "rustup $*" >>"$ROOT/did"
case "$1 $2" in
    "toolchain list") [ -e "$ROOT/stable" ] && echo "stable (default)" || echo "no installed toolchains" ;;
    "toolchain install") : >"$ROOT/stable" ;;
    "target list") echo {TARGET} ;;
    "component list") echo rustfmt-x86_64; echo clippy-x86_64 ;;
esac
"""


class Distribution:
    """A folder that is a distribution's root, with an archive that its apt knows, and a project to set up."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for name in ("archive", "lists", "packages", "depends", "installed", "tools", "home", "project/scripts", "usr/bin", "usr/lib", "etc/ssl/certs"):
            (root / name).mkdir(parents=True)
        (root / "owners").touch()
        for name in [*TOOLS, "find"]:
            found = shutil.which(name)
            assert found, name
            (root / "tools" / name).symlink_to(found)
        for name, text in {"apt-cache": APT_CACHE, "apt-get": APT_GET, "dpkg": DPKG, "id": "#!/bin/sh\necho 0\n"}.items():
            self.script(root / "tools" / name, text)
        for name in ("python3", "cc"):
            self.script(root / "tools" / name, "#!/bin/sh\n")
        text = SETUP.read_text()
        for place in ("/usr/bin", "/usr/lib", "/etc/ssl"):
            assert place in text, place
            text = text.replace(f" {place}", f" {root}{place}")
        self.script(root / "project/scripts/setup", text)
        (root / "project/Cargo.toml").write_text('[workspace.package]\nrust-version = "1.88"\n')
        self.package("lld", "1:18.0-57", {"usr/bin/ld.lld": "#!/bin/sh\n"})
        self.package("ca-certificates", "20240203", {"etc/ssl/certs/ca-certificates.crt": "certificates\n"})

    @staticmethod
    def script(path: Path, text: str) -> None:
        path.write_text(text)
        path.chmod(0o755)

    def package(self, name: str, version: str, files: dict[str, str] | None = None, depends: str = "") -> None:
        """A package in the archive; a file whose text begins with `->` is a link."""
        (self.root / "archive" / name).write_text(version)
        (self.root / "depends" / name).write_text(depends)
        for path, text in (files or {f"usr/share/doc/{name}/copyright": ""}).items():
            file = self.root / "packages" / name / path
            file.parent.mkdir(parents=True, exist_ok=True)
            if text.startswith("->"):
                file.symlink_to(text.removeprefix("->"))
            else:
                self.script(file, text)

    def compiler(self, version: str, sysroot: str) -> str:
        return f'#!/bin/sh\ncase "$*" in\n--version) echo "rustc {version} (0 2026-01-01)" ;;\n"--print sysroot") echo {self.root}/{sysroot} ;;\nesac\n'

    def family(self, version: str, names: str, package_version: str, home: str) -> None:
        """A compiler's five packages, whose files lie in `home`."""
        rustc, cargo, source, rustfmt, clippy = names.split()
        library = f"{home}/lib/rustlib/src/rust/library/core/Cargo.toml"
        self.package(rustc, package_version, {f"{home}/bin/rustc": self.compiler(version, home)})
        self.package(cargo, package_version, {f"{home}/bin/cargo": "#!/bin/sh\n"}, depends=rustc)
        self.package(source, package_version, {library: "[package]\n"})
        self.package(rustfmt, package_version, {f"{home}/bin/cargo-fmt": "#!/bin/sh\n"})
        self.package(clippy, package_version, {f"{home}/bin/cargo-clippy": "#!/bin/sh\n"})

    def versioned(self, minor: int, package_version: str = "") -> None:
        """One of Ubuntu's compilers beside the default one."""
        names = f"rustc-1.{minor} cargo-1.{minor} rust-1.{minor}-src rustfmt-1.{minor} rust-1.{minor}-clippy"
        self.family(f"1.{minor}.0", names, package_version or f"1.{minor}.0+dfsg~24.04-0ubuntu0.24.04.2", f"usr/lib/rust-1.{minor}")

    def defaults(self, minor: int) -> None:
        """Ubuntu's default compiler since 24.10: links to a versioned one."""
        self.versioned(minor, f"1.{minor}.1+dfsg-0ubuntu1")
        of = {"rustc": f"rustc-1.{minor}", "cargo": f"cargo-1.{minor}", "rustfmt": f"rustfmt-1.{minor}", "rust-clippy": f"rust-1.{minor}-clippy"}
        programs = {"rustc": "rustc", "cargo": "cargo", "rustfmt": "cargo-fmt", "rust-clippy": "cargo-clippy"}
        for name, program in programs.items():
            self.package(name, f"1.{minor}.1ubuntu1", {f"usr/bin/{program}": f"->../lib/rust-1.{minor}/bin/{program}"}, depends=of[name])
        self.package("rust-src", f"1.{minor}.1ubuntu1", depends=f"rust-1.{minor}-src")

    def rustup(self) -> None:
        version = self.compiler("1.95.0", "home/stable")
        proxies = {f"usr/bin/{name}": "->../lib/rustup/bin/proxy" for name in ("rustc", "cargo")}
        self.package("rustup", "1.26.0-5ubuntu0.1", {"usr/bin/rustup": RUSTUP, "usr/lib/rustup/bin/proxy": version, **proxies})

    def installed(self, *names: str) -> None:
        """Has packages installed, without a word of it later."""
        self.update()
        self.run_apt("install", *names)
        (self.root / "did").unlink()

    def update(self) -> None:
        self.run_apt("update")

    def environment(self) -> dict[str, str]:
        root = str(self.root)
        return {"PATH": f"{root}/usr/bin:{root}/tools", "HOME": f"{root}/home", "ROOT": root}

    def run_apt(self, *words: str) -> None:
        subprocess.run([self.root / "tools" / "apt-get", *words], env=self.environment(), check=True, stdin=subprocess.DEVNULL)

    def setup(self, *arguments: str, **variables: str) -> "subprocess.CompletedProcess[str]":
        command = [self.root / "project/scripts/setup", *arguments]
        return subprocess.run(command, env={**self.environment(), **variables}, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=60)

    def did(self) -> list[str]:
        """What apt and rustup were told since the last time."""
        path = self.root / "did"
        lines = path.read_text().splitlines() if path.exists() else []
        path.unlink(missing_ok=True)
        return [line for line in lines if not line.startswith("rustup ") or line.startswith("rustup toolchain install")]

    def recorded(self, route: str) -> str:
        return (self.root / f"project/build/toolchain-{route}.env").read_text()


class Setup(unittest.TestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory(prefix="vmwalk-setup-")
        self.addCleanup(folder.cleanup)
        self.machine = Distribution(Path(folder.name).resolve())

    def noble(self, *minors: int) -> None:
        """Ubuntu 24.04."""
        self.machine.family("1.75.0", "rustc cargo rust-src rustfmt rust-clippy", "1.75.0+dfsg0ubuntu1-0ubuntu7.4", "usr")
        for minor in minors:
            self.machine.versioned(minor)
        self.machine.rustup()

    def done(self, *arguments: str, status: int = 0, **variables: str) -> str:
        done = self.machine.setup(*arguments, **variables)
        self.assertEqual(done.returncode, status, done.stdout + done.stderr)
        self.assertNotRegex(done.stderr, r"setup: \d+: |parameter not set|unbound")
        return done.stderr

    def assert_uses(self, home: str) -> None:
        recorded = self.machine.recorded("distro")
        self.assertIn(f"PATH='{self.machine.root}/{home}':$PATH\n", recorded)
        self.assertIn(f"RUSTC='{self.machine.root}/{home}/rustc'\n", recorded)
        self.assertEqual((self.machine.root / "project/build/toolchain").read_text(), "distro\n")


class OnUbuntu2404(Setup):
    def test_the_newest_versioned_compiler_is_taken_with_its_source(self) -> None:
        self.noble(76, 85, 89, 91)
        self.done("build")
        self.assertEqual(self.machine.did(), ["update", "install rustc-1.91 cargo-1.91 rust-1.91-src lld ca-certificates"])
        self.assert_uses("usr/lib/rust-1.91/bin")

    def test_versions_are_numbers(self) -> None:
        self.noble(89, 99, 100)
        self.done("build")
        self.assert_uses("usr/lib/rust-1.100/bin")

    def test_tests_want_the_formatter_and_the_linter_of_the_same_version(self) -> None:
        self.noble(89)
        for name in ("qemu-system-aarch64", "gdb-multiarch"):
            self.machine.script(self.machine.root / "tools" / name, "#!/bin/sh\n")
        self.done("test")
        self.assertEqual(self.machine.did(), ["update", "install rustc-1.89 cargo-1.89 rust-1.89-src lld ca-certificates rustfmt-1.89 rust-1.89-clippy"])
        self.done("--check", "test")
        self.assertEqual(self.machine.did(), [])

    def test_what_is_there_is_not_fetched_again(self) -> None:
        self.noble(89)
        self.done("build")
        self.machine.did()
        self.assertEqual(self.done("build"), "")
        self.assertEqual(self.machine.did(), [])

    def test_a_default_compiler_that_is_too_old_stays_and_is_not_used(self) -> None:
        self.noble(89)
        self.machine.installed("rustc", "cargo")
        self.done("build")
        self.assertEqual(self.machine.did(), ["install rustc-1.89 cargo-1.89 rust-1.89-src lld ca-certificates"])
        self.assert_uses("usr/lib/rust-1.89/bin")

    def test_a_compiler_without_its_cargo_is_completed(self) -> None:
        self.noble(89)
        self.machine.installed("rustc-1.89", "lld", "ca-certificates")
        self.done("build")
        self.assertEqual(self.machine.did(), ["install rustc-1.89 cargo-1.89 rust-1.89-src"])

    def test_where_every_compiler_is_too_old_rustup_is_taken_with_what_it_needs_to_reach_its_server(self) -> None:
        self.noble(76, 85)
        self.done("build")
        install = f"rustup toolchain install stable --no-self-update --profile minimal -c rustfmt -c clippy -t {TARGET}"
        self.assertEqual(self.machine.did(), ["update", "install rustup ca-certificates", install])
        self.assertIn("RUSTUP_TOOLCHAIN='stable'\n", self.machine.recorded("rustup"))
        self.assertEqual((self.machine.root / "project/build/toolchain").read_text(), "rustup\n")

    def test_a_packaged_rustups_proxies_are_not_the_distributions_compiler(self) -> None:
        self.noble(89)
        self.machine.installed("rustup")
        (self.machine.root / "stable").touch()
        self.done("build", TOOLCHAIN="distro")
        self.assertIn(f"PATH='{self.machine.root}/usr/lib/rust-1.89/bin':", self.machine.recorded("distro"))
        self.done("build")
        self.assertIn("RUSTUP_TOOLCHAIN='stable'\n", self.machine.recorded("rustup"))

    def test_a_check_installs_nothing_and_names_what_is_missing(self) -> None:
        self.noble(89)
        self.machine.update()
        self.machine.did()
        said = self.done("--check", "build", status=1)
        self.assertIn("missing packages: rustc-1.89 cargo-1.89 rust-1.89-src lld ca-certificates\n", said)
        self.assertEqual(self.machine.did(), [])
        self.assertFalse(list((self.machine.root / "installed").iterdir()))

    def test_without_a_network_it_is_said_what_to_install_by_hand(self) -> None:
        self.noble(89)
        self.machine.update()
        (self.machine.root / "no-network").touch()
        said = self.done("build", status=1)
        self.assertIn("by hand: apt-get install --no-install-recommends rustc-1.89 cargo-1.89 rust-1.89-src lld ca-certificates\n", said)
        self.assertRegex(said, r"(?m)^setup:   Ubuntu: .*rustc-1\.")


class OnLaterUbuntus(Setup):
    """Where the default compiler is links to a versioned one."""

    def test_the_default_compiler_is_taken_when_it_is_new_enough(self) -> None:
        self.machine.defaults(93)
        self.machine.versioned(91)
        self.done("build")
        self.assertEqual(self.machine.did(), ["update", "install rustc cargo rust-src lld ca-certificates"])
        self.assert_uses("usr/bin")

    def test_what_is_added_later_is_linked_beside_it(self) -> None:
        self.machine.defaults(93)
        self.done("build")
        self.machine.did()
        for name in ("qemu-system-aarch64", "gdb-multiarch"):
            self.machine.script(self.machine.root / "tools" / name, "#!/bin/sh\n")
        self.done("test")
        self.assertEqual(self.machine.did(), ["install rustfmt rust-clippy"])
        self.done("--check", "test")


class OnDebian12(Setup):
    def test_the_newer_compiler_of_its_own_name_is_taken(self) -> None:
        self.machine.family("1.63.0", "rustc cargo rust-src rustfmt rust-clippy", "1.63.0+dfsg1-2", "usr")
        shutil.rmtree(self.machine.root / "packages/rustc")
        self.machine.family("1.96.0", "rustc-web cargo-web rust-web-src rustfmt-web rust-web-clippy", "1.96.0+dfsg1-1~deb12u2", "usr")
        self.done("build")
        self.assertEqual(self.machine.did(), ["update", "install rustc-web cargo-web rust-web-src lld ca-certificates"])
        self.assert_uses("usr/bin")


class Elsewhere(Setup):
    def own_compiler(self) -> None:
        """A compiler in /usr/bin that no package has brought."""
        home = self.machine.root / "usr"
        (home / "lib/rustlib/src/rust/library/core").mkdir(parents=True)
        (home / "lib/rustlib/src/rust/library/core/Cargo.toml").touch()
        self.machine.script(home / "bin/rustc", self.machine.compiler("1.90.0", "usr"))
        for name in ("cargo", "ld.lld"):
            self.machine.script(home / "bin" / name, "#!/bin/sh\n")
        (self.machine.root / "etc/ssl/certs/ca-certificates.crt").touch()

    def without_apt(self) -> None:
        for name in ("apt-cache", "apt-get", "dpkg"):
            (self.machine.root / "tools" / name).unlink()

    def test_a_compiler_that_is_no_packages_is_used(self) -> None:
        self.own_compiler()
        self.without_apt()
        self.done("build")
        self.assert_uses("usr/bin")

    def test_what_it_lacks_is_named_where_no_package_is_known(self) -> None:
        self.own_compiler()
        self.without_apt()
        for name in ("qemu-system-aarch64", "gdb-multiarch"):
            self.machine.script(self.machine.root / "tools" / name, "#!/bin/sh\n")
        self.assertRegex(self.done("test", status=1), "/usr/bin/rustc is of no package that is known here, and has no cargo-fmt beside it\n")
        for name in ("cargo-fmt", "cargo-clippy"):
            self.machine.script(self.machine.root / "usr/bin" / name, "#!/bin/sh\n")
        self.done("test")
        self.assert_uses("usr/bin")

    def test_without_any_compiler_all_ways_are_told(self) -> None:
        self.without_apt()
        said = self.done("build", status=1)
        for way in ("rustup:", "Debian:", "Ubuntu:", "other:"):
            self.assertRegex(said, rf"(?m)^setup:   {way} ")


if __name__ == "__main__":
    unittest.main()
