"""What is typed at the shell under fire: the same for the same seed, and never what would end the session."""

import unittest

from lib.machine import Machine
from lib.shell import shell_machine
from lib.shell_fuzz import Typist, is_harmless


class TheTypist(unittest.TestCase):
    def test_types_the_same_for_the_same_seed_and_other_lines_for_another(self) -> None:
        first = list(Typist(1).lines(300))
        self.assertEqual(first, list(Typist(1).lines(300)))
        self.assertNotEqual(first, list(Typist(2).lines(300)))

    def test_types_every_command_in_right_and_wrong_forms(self) -> None:
        lines = list(Typist(3).lines(3000))
        for name in b"walk ptdump areas vmalloc vmap ioremap free protect probe test bench stat purge cpu help ptmap".split():
            self.assertGreater(sum(line.startswith(name) for line in lines), 15, name)
        self.assertGreater(sum(len(line) > 192 for line in lines), 50)
        self.assertGreater(sum(b"\x1b" in line for line in lines), 200)

    def test_never_types_what_ends_the_session(self) -> None:
        for line in (b"off", b"  off", b"o\t", b"of\t", b"off now", b"xo\bff\bof", b"o\x1b[Dff", b"test *", b"test map.*", b'test "*"', b"cpu 0 test *", b"te\tst *", b"\x04", b"  \x04", b"x\b\x04", b"x\x15\x04", b"f\x03off", b"ff\x01o"):
            self.assertFalse(is_harmless(line), line)

    def test_does_type_tests_that_are_short(self) -> None:
        self.assertTrue(is_harmless(b"test map.range.64k*"))
        self.assertTrue(is_harmless(b"test nosuchtest*"))


class TheShellsMachine(unittest.TestCase):
    def test_boots_to_the_prompt_whatever_else_is_asked_for(self) -> None:
        self.assertEqual(shell_machine(Machine(bootargs="log=debug")).bootargs, "log=debug mode=shell")
        self.assertEqual(shell_machine(Machine()).bootargs, "mode=shell")


if __name__ == "__main__":
    unittest.main()
