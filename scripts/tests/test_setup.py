"""What scripts/setup decides on distributions made up here: their package lists, what is installed, and what comes of an installation.

The script runs as it is, but for the places where it looks for a distribution's files, which are moved to a folder. The names of the packages and
where their files lie are those that Debian and Ubuntu list.
"""

import json
import re
import shutil
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

SCRIPTS = Path(__file__).resolve().parents[1]
TARGET = "aarch64-unknown-none-softfloat"
TOOLS = "awk basename cat chmod cmp cp cut dirname env find flock grep head ln ls mkdir mv readlink rm sed sh sort tail tar timeout tr true wc".split()

APT = (Path(__file__).with_name("made_up_apt.py")).read_text()

DPKG = """#!/bin/sh
case $1 in
    --fsys-tarfile) name=${2##*/}; tar -c -C "$ROOT/packages/${name%%_*}" . ;;
    -S) shift; for path in "$@"; do grep ": $path\\$" "$ROOT/owners" || echo "dpkg-query: no path found matching pattern $path" >&2; done ;;
esac
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
        for name in ("archive", "lists", "packages", "tools", "home", "project/scripts", "usr/bin", "usr/lib", "etc/ssl/certs", "etc/apt/sources.list.d"):
            (root / name).mkdir(parents=True)
        (root / "var/lib/dpkg").mkdir(parents=True)
        (root / "var/lib/dpkg/status").touch()
        (root / "owners").touch()
        (root / "user").write_text("0")
        for name in TOOLS:
            found = shutil.which(name)
            assert found, name
            (root / "tools" / name).symlink_to(found)
        apt = f"#!{sys.executable} -S\n{APT}"
        for name, text in {"apt-cache": apt, "apt-get": apt, "dpkg": DPKG, "id": '#!/bin/sh\ncat "$ROOT/user"\n'}.items():
            self.script(root / "tools" / name, text)
        for name in ("python3", "cc"):
            self.script(root / "tools" / name, "#!/bin/sh\n")
        for name in ("setup", "lib/packages.sh", "lib/private.sh"):
            text = (SCRIPTS / name).read_text()
            for place in ("/usr", "/etc", "/var/lib"):
                text = re.sub(rf"(?<=[ =]){place}/", f"{root}{place}/", text)
            text = text.replace("file=${folder#", f"file={root}${{folder#")
            self.script(root / "project/scripts" / name, text)
        (root / "project/Cargo.toml").write_text('[workspace.package]\nrust-version = "1.88"\n')
        self.package("lld", "1:18.0-57", {"usr/bin/ld.lld": "#!/bin/sh\n"})
        self.package("ca-certificates", "20240203", {"etc/ssl/certs/ca-certificates.crt": "certificates\n"})

    @staticmethod
    def script(path: Path, text: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)

    def package(self, name: str, version: str, files: dict[str, str] | None = None, depends: str = "", **more: str) -> None:
        """A package in the archive; a file whose text begins with `->` is a link. `more`: suite, source, removes, upgrades."""
        suite = more.pop("suite", "main")
        entry = {"name": name, "version": version, "depends": depends, "suite": suite, **more}
        (self.root / "archive" / f"{name}@{suite}").write_text(json.dumps(entry))
        for path, text in (files or {f"usr/share/doc/{name}/copyright": ""}).items():
            file = self.root / "packages" / name / path
            if text.startswith("->"):
                file.parent.mkdir(parents=True, exist_ok=True)
                file.unlink(missing_ok=True)
                file.symlink_to(text.removeprefix("->"))
            else:
                self.script(file, text)

    @staticmethod
    def compiler(version: str) -> str:
        return f'#!/bin/sh\ncase "$*" in\n--version) echo "rustc {version} (0 2026-01-01)" ;;\n"--print sysroot") dirname "$(dirname "$(readlink -f "$0")")" ;;\nesac\n'

    def family(self, version: str, names: str, package_version: str, home: str, **more: str) -> None:
        """A compiler's five packages, whose files lie in `home`."""
        rustc, cargo, source, rustfmt, clippy = names.split()
        library = f"{home}/lib/rustlib/src/rust/library/core/Cargo.toml"
        self.package(rustc, package_version, {f"{home}/bin/rustc": self.compiler(version), f"{home}/bin/rustdoc": "#!/bin/sh\n"}, **more)
        self.package(cargo, package_version, {f"{home}/bin/cargo": "#!/bin/sh\n"}, depends=rustc, **more)
        self.package(source, package_version, {library: "[package]\n"}, **more)
        self.package(rustfmt, package_version, {f"{home}/bin/cargo-fmt": "#!/bin/sh\n"}, **more)
        self.package(clippy, package_version, {f"{home}/bin/cargo-clippy": "#!/bin/sh\n"}, **more)

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
        version = self.compiler("1.95.0")
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
        subprocess.run([self.root / "tools" / "apt-get", *words], env=self.environment(), check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)

    def setup(self, *arguments: str, **variables: str) -> "subprocess.CompletedProcess[str]":
        command = [self.root / "project/scripts/setup", *arguments]
        return subprocess.run(command, env={**self.environment(), **variables}, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=60)

    def status(self) -> list[str]:
        """The packages that are installed."""
        return re.findall(r"(?m)^Package: (.*)$", (self.root / "var/lib/dpkg/status").read_text())

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
        self.assertEqual(self.machine.did(), ["update", "install rustc-1.89 cargo-1.89 rust-1.89-src rustfmt-1.89 rust-1.89-clippy lld ca-certificates"])
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
        self.assertEqual(self.machine.status(), [])

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


class WithAPrivateFolder(Setup):
    """What cannot be installed, or would take something away, is unpacked below build/."""

    def setUp(self) -> None:
        super().setUp()
        self.private = self.machine.root / "project/build/private"
        self.web = "rustc-web cargo-web rust-web-src rustfmt-web rust-web-clippy"
        self.machine.family("1.96.0", self.web, "1.96.0+dfsg1-1~deb12u2", "usr")
        self.machine.package("qemu-utils", "1:10.0~bpo12+1")
        self.emulator(removes="qemu-utils")
        self.machine.package("gdb-multiarch", "13.1-3", {"usr/bin/gdb-multiarch": "#!/bin/sh\necho $*\n"})

    def emulator(self, **more: str) -> None:
        says = '#!/bin/sh\necho "$LD_LIBRARY_PATH $*"\n'
        files = {"usr/bin/qemu-system-aarch64": says, "usr/lib/x/libfdt.so.1": "", "lib/y/libslirp.so": "", "usr/lib/z/qemu/block.so": ""}
        self.machine.package("qemu-system-arm", "1:7.2+dfsg-7", files, source="qemu", **more)

    def a_user(self) -> None:
        (self.machine.root / "user").write_text("1000")

    def sudo(self, text: str) -> None:
        self.machine.script(self.machine.root / "tools/sudo", text)

    def assert_unpacked(self, *programs: str) -> None:
        self.assertEqual(sorted(file.name for file in (self.private / "bin").iterdir()), sorted(programs))

    def assert_nothing_was_installed(self) -> None:
        self.assertFalse([line for line in self.machine.did() if line.startswith("install")])

    def test_an_emulator_whose_installation_would_remove_a_package_is_unpacked_and_all_else_installed(self) -> None:
        self.machine.installed("qemu-utils", "lld", "ca-certificates", *self.web.split())
        said = self.done("gdb")
        self.assertEqual(self.machine.did(), ["download qemu-system-arm=1:7.2+dfsg-7", "install gdb-multiarch"])
        why = "installing qemu-system-arm would remove qemu-utils: unpacking qemu-system-arm and what it needs, 1 packages, into build/private instead"
        self.assertIn(f"setup: {why}; nothing is installed\n", said)
        self.assert_unpacked("qemu-system-aarch64")
        self.assertIn("qemu-utils", self.machine.status())

    def test_what_was_unpacked_is_not_fetched_again(self) -> None:
        self.machine.installed("qemu-utils", "lld", "ca-certificates", *self.web.split())
        self.done("run")
        self.machine.did()
        self.assertEqual(self.done("run"), "")
        self.assertEqual(self.machine.did(), [])
        self.assertEqual(self.done("--check", "run"), "")

    def test_the_unpacked_program_alone_sees_the_unpacked_libraries_and_its_data(self) -> None:
        self.machine.installed("qemu-utils", "lld", "ca-certificates", *self.web.split())
        self.done("run")
        said = subprocess.run([self.private / "bin/qemu-system-aarch64", "-M", "virt"], capture_output=True, text=True, check=True).stdout
        root = self.private / "root"
        self.assertEqual(said, f"{root}/lib/y:{root}/usr/lib/x -L {root}/usr/share/qemu -M virt\n")

    def test_apt_plans_on_a_status_without_the_relations_of_what_is_installed(self) -> None:
        self.machine.package("qemu-utils", "1:10.0~bpo12+1", status="Source: qemu\nBreaks: qemu-system-common\n")
        relations = "Source: glib (2.0)\nDepends: x\n y\nBreaks: z\nProvides: a\nDescription: b\n c\n"
        self.machine.package("libglib", "1", status=relations)
        self.machine.installed("qemu-utils", "libglib", "lld", "ca-certificates", *self.web.split())
        self.done("run")
        planned = (self.machine.root / "planned-on").read_text()
        self.assertNotIn("Package: qemu-utils", planned)
        self.assertIn("Package: libglib\nStatus: install ok installed\nSource: glib (2.0)\nProvides: a\nDescription: b\n c\n", planned)

    def test_the_suite_of_what_is_there_is_taken_when_it_has_one_that_fits(self) -> None:
        self.emulator(removes="qemu-utils")
        self.emulator(suite="backports")
        (self.machine.root / "etc/apt/sources.list.d/backports.list").write_text("deb x backports main\n")
        self.machine.installed("qemu-utils", "lld", "ca-certificates", *self.web.split())
        said = self.done("run")
        self.assertEqual(self.machine.did(), ["install -t backports qemu-system-arm"])
        self.assertIn("setup: installing qemu-system-arm would remove qemu-utils; backports has one that fits\n", said)

    def test_another_suite_is_left_alone_when_something_would_be_upgraded_from_it(self) -> None:
        self.emulator(suite="backports", upgrades="libc6")
        (self.machine.root / "etc/apt/sources.list.d/backports.list").write_text("deb x backports main\n")
        self.machine.installed("qemu-utils", "lld", "ca-certificates", *self.web.split())
        self.done("run")
        self.assert_nothing_was_installed()
        self.assert_unpacked("qemu-system-aarch64")

    def test_all_that_an_installation_changes_is_said(self) -> None:
        self.machine.package("libfdt1", "1.6")
        self.emulator(depends="libfdt1", upgrades="libc6 libglib")
        self.machine.installed("lld", "ca-certificates", *self.web.split())
        self.assertIn("setup: installing: qemu-system-arm; with it: libfdt1; upgrading: libc6 libglib\n", self.done("run"))

    def test_a_user_without_sudo_gets_everything_below_the_build_folder(self) -> None:
        self.a_user()
        (self.machine.root / "etc/ssl/certs/ca-certificates.crt").touch()
        self.done("test")
        self.assertEqual(self.machine.did()[0], "update of lists of its own")
        self.assert_nothing_was_installed()
        self.assert_unpacked("qemu-system-aarch64", "gdb-multiarch", "ld.lld", "rustc", "rustdoc", "cargo", "cargo-fmt", "cargo-clippy")
        recorded = self.machine.recorded("distro")
        for line in (f"RUSTC='{self.private}/bin/rustc'", f"CARGO_TARGET_AARCH64_UNKNOWN_NONE_SOFTFLOAT_LINKER='{self.private}/bin/ld.lld'"):
            self.assertIn(f"{line}\n", recorded)
        self.assertEqual(self.done("test"), "")
        self.assertEqual(self.machine.did(), [])
        self.assertEqual(list((self.machine.root / "lists").iterdir()), [])

    def test_a_user_without_sudo_is_told_what_only_root_can_install_and_nothing_is_fetched(self) -> None:
        self.a_user()
        for name in ("python3", "cc"):
            (self.machine.root / "tools" / name).unlink()
        self.machine.package("python3", "3.11")
        self.machine.package("gcc", "12", {"usr/bin/cc": "#!/bin/sh\n"})
        self.machine.package("libc6-dev", "2.36")
        said = self.done("run", status=1)
        self.assertIn("setup: neither root nor sudo, and without an installation there is no way to: python3 gcc libc6-dev\n", said)
        self.assertIn("setup: have root run: apt-get install --no-install-recommends python3 gcc libc6-dev\n", said)
        self.assertEqual(self.machine.did(), [])

    def test_a_user_whom_sudo_asks_for_nothing_installs(self) -> None:
        self.a_user()
        self.sudo('#!/bin/sh\n[ "$1" = -n ] && shift\nUSER_ID=0 exec "$@"\n')
        self.emulator()
        self.done("run")
        self.assertIn("install rustc-web cargo-web rust-web-src lld ca-certificates", self.machine.did())
        self.assertFalse((self.private / "bin").exists())

    def test_sudo_that_wants_a_password_is_not_asked_without_a_terminal(self) -> None:
        self.a_user()
        self.sudo('#!/bin/sh\necho "sudo $*" >>"$ROOT/asked"\nexit 1\n')
        (self.machine.root / "etc/ssl/certs/ca-certificates.crt").touch()
        self.done("run")
        self.assertEqual(set((self.machine.root / "asked").read_text().splitlines()), {"sudo -n true"})
        self.assert_nothing_was_installed()

    def test_what_apt_does_not_get_done_is_unpacked(self) -> None:
        self.emulator()
        self.machine.installed("lld", "ca-certificates", *self.web.split())
        (self.machine.root / "no-installation").touch()
        said = self.done("run")
        self.assertIn("Could not get lock", said)
        self.assertIn("setup: apt-get failed: unpacking qemu-system-arm ", said)
        self.assert_unpacked("qemu-system-aarch64")

    def test_an_unpacked_program_that_does_not_start_is_not_used(self) -> None:
        self.machine.package("qemu-system-arm", "1:7.2", {"usr/bin/qemu-system-aarch64": "#!/bin/sh\necho no libgone.so\nexit 127\n"}, removes="qemu-utils")
        self.machine.installed("qemu-utils", "lld", "ca-certificates", *self.web.split())
        said = self.done("run", status=1)
        self.assertIn("setup: build/private/root has a qemu-system-aarch64 that does not start: no libgone.so\n", said)
        self.assert_unpacked()

    def test_the_unpacked_one_goes_when_the_machine_has_its_own(self) -> None:
        self.machine.installed("qemu-utils", "lld", "ca-certificates", *self.web.split())
        self.done("run")
        self.machine.script(self.machine.root / "usr/bin/qemu-system-aarch64", "#!/bin/sh\n")
        self.done("run")
        self.assert_unpacked()

    def test_an_emulator_that_does_not_start_is_none(self) -> None:
        self.machine.installed("qemu-utils", "lld", "ca-certificates", *self.web.split())
        self.machine.script(self.machine.root / "usr/bin/qemu-system-aarch64", "#!/bin/sh\nexit 127\n")
        self.done("run")
        self.assert_unpacked("qemu-system-aarch64")

    def test_a_compiler_that_would_push_an_older_one_out_is_unpacked_whole(self) -> None:
        self.machine.family("1.63.0", "rustc cargo rust-src rustfmt rust-clippy", "1.63.0+dfsg1-2", "usr")
        self.machine.family("1.96.0", self.web, "1.96.0+dfsg1-1~deb12u2", "usr", removes="rustc")
        self.machine.installed("rustc", "lld", "ca-certificates")
        self.done("build")
        self.assert_nothing_was_installed()
        self.assert_unpacked("rustc", "rustdoc", "cargo", "cargo-fmt", "cargo-clippy")
        self.assertIn(f"RUSTC='{self.private}/bin/rustc'\n", self.machine.recorded("distro"))

    def test_a_link_of_an_unpacked_package_may_lead_to_an_installed_one(self) -> None:
        self.machine.package("lld-14", "14", {"usr/lib/llvm-14/bin/lld": "#!/bin/sh\n", "usr/lib/llvm-14/bin/ld.lld": "->lld"})
        self.machine.package("lld", "14", {"usr/bin/ld.lld": "->../lib/llvm-14/bin/ld.lld"}, depends="lld-14")
        self.machine.installed("lld-14", "ca-certificates", *self.web.split())
        self.a_user()
        self.done("build")
        self.assert_unpacked("ld.lld")
        self.assertIn(f'exec "{self.machine.root}/usr/lib/llvm-14/bin/ld.lld" "$@"', (self.private / "bin/ld.lld").read_text())


class OnADebianWithoutItsSecuritySuite(Setup):
    """As debootstrap makes them: one line of sources, whose compilers are too old."""

    LINE = "http://mirror.made.up/debian-security bookworm-security main"

    def setUp(self) -> None:
        super().setUp()
        self.machine.family("1.63.0", "rustc cargo rust-src rustfmt rust-clippy", "1.63.0+dfsg1-2", "usr")
        web = "rustc-web cargo-web rust-web-src rustfmt-web rust-web-clippy"
        self.machine.family("1.85.0", web, "1.85.0+dfsg3-1~deb12u3", "usr")
        self.machine.family("1.96.0", web, "1.96.0+dfsg1-1~deb12u2", "usr", suite="security")
        (self.machine.root / "etc/os-release").write_text("ID=debian\nVERSION_CODENAME=bookworm\n")
        (self.machine.root / "etc/apt/targets").write_text("http://mirror.made.up/debian/ bookworm\n")

    def test_the_compiler_is_unpacked_from_there_and_the_machine_stays_as_it_is(self) -> None:
        tools, library = (f"usr/src/rustc-1.96.0/{path}" for path in ("src/tools/one_of_many", "library/std/src/lib.rs"))
        for file in (tools, library):
            self.machine.script(self.machine.root / "packages/rust-web-src" / file, "")
        said = self.done("build")
        unpacked = self.machine.root / "project/build/private/root"
        self.assertEqual(((unpacked / library).exists(), (unpacked / tools).exists()), (True, False))
        self.assertIn(f"setup: no suite of this machine has a rustc of 1.88 or newer; looking into another: deb {self.LINE}\n", said)
        did = self.machine.did()
        self.assertEqual([line.partition("=")[0] for line in did], ["update", "update of lists of its own", "download rustc-web", "install lld ca-certificates"])
        self.assertIn("rustc-web=1.96.0+dfsg1-1~deb12u2", did[2])
        self.assertIn(f"RUSTC='{self.machine.root}/project/build/private/bin/rustc'\n", self.machine.recorded("distro"))
        self.assertEqual(list((self.machine.root / "etc/apt/sources.list.d").iterdir()), [])
        self.assertEqual(self.done("build"), "")
        self.assertEqual(self.machine.did(), [])

    def test_where_it_cannot_be_reached_the_line_to_add_is_told(self) -> None:
        (self.machine.root / "no-network").touch()
        said = self.done("build", status=1)
        self.assertIn(f"setup:   Debian:  echo 'deb {self.LINE}' >/etc/apt/sources.list.d/security.list; apt-get update; then\n", said)

    def test_a_machine_that_lists_it_is_not_told_to(self) -> None:
        (self.machine.root / "etc/apt/sources.list.d/security.list").write_text("deb x security main\n")
        (self.machine.root / "etc/apt/targets").write_text("http://mirror.made.up/debian/ bookworm\nhttp://mirror.made.up/debian-security/ bookworm-security\n")
        self.done("build")
        self.assertIn("install rustc-web cargo-web rust-web-src lld ca-certificates", self.machine.did())
        self.assertEqual(self.machine.recorded("distro").count("private"), 0)


class Elsewhere(Setup):
    def own_compiler(self) -> None:
        """A compiler in /usr/bin that no package has brought."""
        home = self.machine.root / "usr"
        (home / "lib/rustlib/src/rust/library/core").mkdir(parents=True)
        (home / "lib/rustlib/src/rust/library/core/Cargo.toml").touch()
        self.machine.script(home / "bin/rustc", self.machine.compiler("1.90.0"))
        for name in ("cargo", "ld.lld"):
            self.machine.script(home / "bin" / name, "#!/bin/sh\n")
        (self.machine.root / "etc/ssl/certs/ca-certificates.crt").touch()

    def without_apt(self) -> None:
        for name in ("apt-cache", "apt-get", "dpkg"):
            (self.machine.root / "tools" / name).unlink()

    def test_where_nothing_can_be_written_it_says_so_in_a_line(self) -> None:
        (self.machine.root / "project/a file").touch()
        said = self.done("build", status=1, BUILD="a file/build")
        self.assertEqual(said, f"setup: {self.machine.root}/project/a file/build cannot be written; BUILD=DIR builds elsewhere\n")

    def test_another_folder_is_used_for_everything(self) -> None:
        self.own_compiler()
        self.without_apt()
        self.done("build", BUILD="else where")
        self.assertEqual((self.machine.root / "project/else where/toolchain").read_text(), "distro\n")
        self.assertFalse((self.machine.root / "project/build").exists())

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

    def test_where_no_solver_can_be_had_it_says_so_and_exits_as_one_that_skips(self) -> None:
        self.own_compiler()
        self.without_apt()
        said = self.done("prove", status=77)
        self.assertRegex(said, "(?m)^setup: PyPI cannot be reached, or has no package for this Python: ")
        self.assertFalse((self.machine.root / "project/build/prove").exists())

    def test_without_any_compiler_all_ways_are_told(self) -> None:
        self.without_apt()
        said = self.done("build", status=1)
        for way in ("rustup:", "Debian:", "Ubuntu:", "other:"):
            self.assertRegex(said, rf"(?m)^setup:   {way} ")


if __name__ == "__main__":
    unittest.main()
