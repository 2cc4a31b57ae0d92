"""The check of the linked code for what only silicon would show: it sees what is missing, and nothing else."""

import importlib.machinery
import importlib.util
import unittest
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType


def load() -> ModuleType:
    path = Path(__file__).resolve().parents[1] / "check-silicon.py"
    loader = importlib.machinery.SourceFileLoader("check_silicon", str(path))
    spec = importlib.util.spec_from_loader(loader.name, loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


SILICON = load()

ADRP_X8 = 0x9000_0008
LDR_X0_X8 = 0xF940_0100  # ldr x0, [x8]
STR_X1_X2 = 0xF900_0041  # str x1, [x2]
LDR_X8_X2 = 0xF940_0048  # ldr x8, [x2]
LDP_X8_X9 = 0xA940_2448  # ldp x8, x9, [x2]
STP_X0_X1_X8_POST = 0xA881_0500  # stp x0, x1, [x8], #16
ADD = 0x8B01_0000
B = 0x1400_0010
CBZ = 0xB400_0040
RET = 0xD65F_03C0
NOP = 0xD503_201F


def wrong(check: Callable[..., Iterator[str]], words: list[int], at: int = 0x1000, name: str = "") -> int:
    """How many lines `check` has for `words` from `at` on, in a function called `name`."""
    code = SILICON.Code({at + 4 * i: word for i, word in enumerate(words)}, {name: (at, 4 * len(words))} if name else {})
    return len(list(check(code)))


class Erratum843419(unittest.TestCase):
    def count(self, *words: int, at: int = 0x1FF8) -> int:
        return wrong(SILICON.erratum_843419, [ADRP_X8, *words], at)

    def test_the_sequences_are_seen_in_the_last_two_words_of_a_page(self) -> None:
        for at, expected in ((0x1FF8, 1), (0x1FFC, 1), (0x1FF4, 0), (0x2000, 0), (0x1000, 0)):
            self.assertEqual(self.count(STR_X1_X2, LDR_X0_X8, at=at), expected)
            self.assertEqual(self.count(STR_X1_X2, ADD, LDR_X0_X8, at=at), expected)

    def test_what_breaks_the_sequence_is_none(self) -> None:
        for words in (
            (ADD, LDR_X0_X8),
            (STR_X1_X2, ADD, ADD, LDR_X0_X8),
            (STR_X1_X2, B, LDR_X0_X8),
            (STR_X1_X2, CBZ, LDR_X0_X8),
            (STR_X1_X2, RET, LDR_X0_X8),
            (STR_X1_X2, STR_X1_X2, STR_X1_X2),
            (LDR_X8_X2, LDR_X0_X8),
            (LDP_X8_X9, LDR_X0_X8),
            (STP_X0_X1_X8_POST, LDR_X0_X8),
        ):
            self.assertEqual(self.count(*words), 0, [hex(word) for word in words])


class Neighbours(unittest.TestCase):
    def test_par_stands_between_two_barriers(self) -> None:
        par = SILICON.MRS_PAR_EL1 | 7
        for words, expected in (
            ([SILICON.DMB_SY, par, SILICON.DMB_SY], 0),
            ([SILICON.ISB, par, SILICON.DMB_SY], 1),
            ([SILICON.DMB_SY, par, NOP], 1),
            ([NOP], 1),
        ):
            self.assertEqual(wrong(SILICON.par_reads, words), expected)

    def test_hcr_stands_between_dsb_and_isb(self) -> None:
        hcr = SILICON.MSR_HCR_EL2 | 9
        for words, expected in (
            ([SILICON.DSB_SY, hcr, SILICON.ISB], 0),
            ([NOP, hcr, SILICON.ISB], 1),
            ([SILICON.DSB_SY, hcr, NOP], 1),
            ([NOP], 1),
        ):
            self.assertEqual(wrong(SILICON.hcr_writes, words), expected)

    def test_the_header_is_cleaned_first(self) -> None:
        clean, load = SILICON.DC_CIVAC | 3, 0xB940_0001
        for words, expected in (([NOP, clean, load], 0), ([load, clean], 1), ([NOP], 1)):
            self.assertEqual(wrong(SILICON.header_is_cleaned, words, name="x11early_setup"), expected)

    def test_the_registers_of_el1_are_zeroed(self) -> None:
        both = [SILICON.MSR_TCR2_EL1 | 31, SILICON.MSR_SCTLR2_EL1 | 31]
        for words, expected in ((both, 0), (both[:1], 1), ([SILICON.MSR_TCR2_EL1 | 3, both[1]], 1), ([], 2)):
            self.assertEqual(wrong(SILICON.el1_registers, words), expected)


if __name__ == "__main__":
    unittest.main()
