"""Lines for the kernel's shell that nobody in his right mind would type: seeded, so that a failure can be had again."""

import random
import re
from collections.abc import Iterator

SIZES = ("1", "4K", "5000", "64K", "0x11000", "1M", "2M", "3M", "33M", "900M", "1G", "64T", "0", "0x", "18446744073709551615", "17179869184G")
ADDRESSES = (
    *("0", "8", "0x1000", "0xffff000000000000", "0xffff000040000000", "0xffff000040200000", "0xffff00007ffffff8"),
    *("0xffffbffffffff000", "0xffffc00000000000", "0xffffc00000001000", "0xffffc00000010000", "0xffffc00000030000"),
    *("0xffffc00000200000", "0xffffc00000200008", "0xfffffbfffffff000", "0xffffffff00000000", "0xffffffff80000000"),
    *("0xffffffff80100000", "0xfffffffffffffff8", "0xffffffffffffffff", "0x1ffff800000000000", "0x00ff800000000000"),
)
PHYSICAL = ("0", "0x8000000", "0x9000000", "0x9010000", "0x9000ff8", "0xa000000", "0x10000000", "0x3fffffff", "0x40000000", "0x7ffff000", "4G", "0x4010000000", "0xfffffffff000", "256T")
ORDERS = ("0", "4", "9", "10", "8,4,0", "0,0,0,1", "5,7,7", "9,8,4", "12", "22", "23", "1,,2", ",", "0," * 63 + "0", "0," * 64 + "0")
RANGES = ("all", "0+4K", "64K+4K", "4K+64K", "0+1M", "1M+2M", "1+1", "0+0", "4K", "+", "0xfffffffffffff000+0x2000")
TESTS = ("map.range.64k*", "map.array.2m_is*", "tree.audit_of_the*", "protect.whole_leaves*", "nosuchtest*", "")
ODD = "\"\\'`$;|&<>(){}[]~!@#%^=-_ ,.:*?/"

# Control keys: TAB, backspace, delete, arrows, ends of the line, kills, unfinished and unknown
# sequences, bytes that are none.
KEYS = (
    *(b"\t", b"\b", b"\x7f", b"\x1b[A", b"\x1b[B", b"\x1b[C", b"\x1b[D", b"\x1b[3~", b"\x1b[H", b"\x1bOF", b"\x01", b"\x05", b"\x0b", b"\x15", b"\x17"),
    *(b"\x1b[", b"\x1b", b"\x1bO", b"\x1b[1;5C", b"\x1b[999999999999~", b"\x1b[;;", b"\x00", b"\x03", b"\x04", b"\xff", b"\xc3\xa9", b"\xe2\x82"),
)


class Typist:
    """Makes lines. The numbers of areas that it mentions are those that the shell may have given."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.made = 0

    def lines(self, number: int) -> Iterator[bytes]:
        while number:
            line = self.line()
            if is_harmless(line):
                number -= 1
                yield line

    def line(self) -> bytes:
        text = self.command()
        for _ in range(self.random.choice((0, 0, 0, 1, 1, 2, 4))):
            text = self.mutate(text)
        line = text.encode()
        for _ in range(self.random.choice((0, 0, 0, 0, 0, 1, 3))):
            at = self.random.randint(0, len(line))
            line = line[:at] + self.random.choice(KEYS) + line[at:]
        return line

    def command(self) -> str:
        pick = self.random.choice
        # What prints much comes seldom: the UART takes a character at a time.
        often = ("walk", "ptdump", "vmalloc", "vmap", "ioremap", "free", "free", "protect", "protect", "probe", "probe", "bench", "purge", "cpu", "help")
        name = pick(3 * often + ("areas", "test", "stat", "ptmap"))
        identifier = str(self.random.randint(0, max(4, self.made + 2)))
        match name:
            case "walk":
                return f"walk {pick(ADDRESSES)}"
            case "ptdump":
                return pick(("ptdump", *5 * (f"ptdump {pick(ADDRESSES)} {pick(SIZES)}",), f"ptdump {pick(ADDRESSES)}"))
            case "vmalloc":
                self.made += 1
                return f"vmalloc {pick(SIZES)}"
            case "vmap":
                self.made += 1
                return f"vmap {pick(ORDERS)}"
            case "ioremap":
                self.made += 1
                return f"ioremap {pick(PHYSICAL)} {pick(SIZES)}"
            case "free":
                return f"free {identifier}"
            case "protect":
                return f"protect {identifier} {pick(RANGES)} {pick(('r', 'rw', 'rx', 'rwx', 'x'))}"
            case "probe":
                return f"probe {pick(ADDRESSES)} {pick('rwx')}"
            case "test":
                return f"test {pick(TESTS)}"
            case "bench":
                return f"bench {pick(('range?4K*', '*', 'none'))}"
            case "cpu":
                return f"cpu {pick('00111278')} {self.command()}"
            case "help":
                return pick(("help", *3 * ("help walk", "help help", "help nothing")))
        return name

    def mutate(self, text: str) -> str:
        at = self.random.randint(0, len(text))
        words = text.split(" ")
        match self.random.randrange(8):
            case 0:
                return text[:at] + text[at + 1 :]
            case 1:
                return text[:at] + self.random.choice(ODD) + text[at:]
            case 2:
                return text[:at] + self.random.choice("0123456789abcdefxKMGT") + text[at + 1 :]
            case 3:
                self.random.shuffle(words)
                return " ".join(words)
            case 4:
                return " ".join([*words, self.random.choice(words)])
            case 5:
                return " ".join(words[:-1])
            case 6:
                return text[:at] + text[at : at + 1] * self.random.choice((2, 20, 150, 300)) + text[at:]
        return text + self.random.choice(ADDRESSES)


def is_harmless(line: bytes) -> bool:
    """Whether the line cannot end the session, nor start tests that take long: those are asked for elsewhere."""
    plain = line.decode("latin-1")
    # It turns the machine off where the line is empty: no other key may have made it so.
    if "\x04" in plain and not re.fullmatch(r"[!-~][ -~\x04]*", plain):
        return False
    keys = any(byte < 0x20 or byte == 0x7F for byte in line)
    if plain.lstrip(' "\0').startswith("o"):
        return False
    # With keys in it the line may become another: by completion, by recall, by characters taken
    # out.
    if keys and ("o" in plain and ("\t" in plain or plain.count("f") >= 2)):
        return False
    if keys and (set(plain) & set("*?") or any(word in plain for word in ("test", "tes", "est"))):
        return False
    if found := re.search(r"test[ \"]+(\S*)", plain):
        return all(len(re.sub(r"[*?\"]", "", glob)) >= 8 or not set(glob) & set("*?") for glob in found[1].split(","))
    return True
