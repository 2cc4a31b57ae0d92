"""The crates that others can have: their manifests, and what their errors promise."""

import json
import re
import subprocess
import unittest

from lib.paths import ROOT

PACKAGES = ("paging", "vmalloc")


def metadata() -> dict[str, dict[str, object]]:
    command = ["scripts/cargo", "metadata", "--format-version", "1", "--no-deps", "--offline"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return {package["name"]: package for package in json.loads(done.stdout)["packages"]}


class APackage(unittest.TestCase):
    def test_says_what_it_is(self) -> None:
        found = metadata()
        for name in PACKAGES:
            for field in ("version", "description", "license", "readme", "keywords", "categories", "rust_version"):
                self.assertTrue(found[name][field], f"{name} has no {field}")

    def test_has_what_it_needs_and_nothing_else(self) -> None:
        for name in PACKAGES:
            command = ["scripts/cargo", "package", "--list", "--allow-dirty", "--offline", "-p", name]
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
            files = set(done.stdout.split())
            self.assertLessEqual({"Cargo.toml", "README.md", "src/lib.rs"}, files)
            self.assertEqual({file for file in files if not file.startswith(("src/", "tests/", "examples/"))} - {"Cargo.toml", "Cargo.toml.orig", "Cargo.lock", "README.md", ".cargo_vcs_info.json"}, set())


class PublicEnums(unittest.TestCase):
    def test_of_errors_and_policies_may_get_variants(self) -> None:
        seen = 0
        for name in PACKAGES:
            for file in (ROOT / "kernel" / name / "src").rglob("*.rs"):
                for attributes, enum in re.findall(r"((?:^#\[.*\]\n)*)^pub enum (\w*(?:Error|Policy|Pages|Violation))\b", file.read_text(), re.MULTILINE):
                    seen += 1
                    self.assertIn("#[non_exhaustive]", attributes, f"{enum} in {file}")
        self.assertGreater(seen, 8)

    def test_of_errors_are_all_produced_by_a_self_test(self) -> None:
        body = re.search(r"pub enum Error \{\n(.*?)^\}", (ROOT / "kernel/vmalloc/src/error.rs").read_text(), re.MULTILINE | re.DOTALL)
        listed = re.search(r"^errors! \{\n(.*?)^\}", (ROOT / "kernel/harness/src/selftest/cases/bad_input/mod.rs").read_text(), re.MULTILINE | re.DOTALL)
        assert body and listed
        variants = set(re.findall(r"^    (\w+)", body[1], re.MULTILINE))
        self.assertGreater(len(variants), 20)
        self.assertEqual(set(re.findall(r"^    (\w+) =>", listed[1], re.MULTILINE)), variants)


if __name__ == "__main__":
    unittest.main()
