"""Which machines the kernel is booted on by `make test`, and what each boot has to show."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from .machine import RAM_BASE, ram_for_tests
from .paths import BUILD

CPUS = ("cortex-a53", "cortex-a57", "cortex-a72", "cortex-a76", "neoverse-n1", "max")

BREAKING = ("cortex-a53", "cortex-a72", "cortex-a76", "neoverse-n1")
"""CPUs that need break-before-make (FEAT_BBM level 0), unlike max: faults of one in another's break are part of it."""

IN_TURN = ("-accel", "tcg,thread=single")

OF_BOOT = "selftest=tree.*,frames.*,fault.*,device.*,initrd.*,set_memory.*,vmap.*,vmalloc.*"
"""What depends on where the image, its RAM and its devices lie, and not on the leaves of a range."""

OF_MACHINE = "selftest=tree.*,frames.*,map.*,device.*,smp.*"
"""What depends on the machine, and not on more than one of its properties."""

HALF = "memory-backend-ram,size=512M,id="
OPTIONS_OF_VIRT = {
    "highmem=off": ("-machine", "highmem=off"),
    "mte=on": ("-machine", "mte=on"),
    "iommu=smmuv3": ("-machine", "iommu=smmuv3"),
    "secure=on": ("-machine", "secure=on", "-serial", "null"),
    "two NUMA nodes": ("-object", f"{HALF}a", "-object", f"{HALF}b", "-numa", "node,memdev=a,cpus=0", "-numa", "node,memdev=b,cpus=1"),
}

OF_MANY = "selftest=tree.*,frames.*,smp.each*,smp.mem*,smp.words*"
"""What depends on the number of CPUs, and takes seconds with 512 of them."""

FOR_LINUX = "console=ttyAMA0,115200n8 root=/dev/vda1 rw quiet earlycon=pl011,0x9000000 no_such_argument=1"

ODD_IMAGE_AT = RAM_BASE + 0x0BA0_0000
"""2 MiB-aligned and nothing more: no multiple of 4 MiB, of 32 MiB or of where loaders put images."""

RAW_DTB_AT = RAM_BASE + 0x0817_F038
"""8-byte aligned and nothing more, and the emulator's tree, of 1 MiB, crosses a boundary of 2 MiB."""


@dataclass(frozen=True)
class BootCase:
    """One boot: the Makefile's variables and arguments for scripts/run."""

    name: str
    variables: dict[str, str] = field(default_factory=dict)
    arguments: tuple[str, ...] = ()
    extra: tuple[str, ...] = ()
    """Passed on to the emulator."""
    passes_over: str = ""
    """The words of its boot arguments that are none of the kernel's."""
    fails_with: str = ""
    """For a run that scripts/run itself must reject: a pattern that its reasons must match."""
    takes: str = ""
    """A pattern of the emulator's words where the host has not what this takes: it is then left out, aloud."""


def boot_matrix(initrd: Path, dtb: Path) -> list[BootCase]:
    """The boots that have to pass the whole suite."""
    # Each CPU at one level, each level with three of them: the stage `counts` has both for each.
    cases = [alone(cpu, number % 2) for number, cpu in enumerate(CPUS)]
    # 4 and 8 CPUs are below. More than a host has wait for one another at each TLBI: at once they
    # are in `counts`.
    cases += [BootCase("2 CPUs", {"SMP": "2"})]
    cases += [BootCase(f"{smp} CPUs in turn", {"SMP": smp}, extra=IN_TURN) for smp in ("3", "5", "7")]
    # One number of CPUs for each: `counts` has the others, all at once.
    cases += [several("cortex-a53", "2")]
    # In turn, whose TLBI opens a break hands over to a CPU that may fault in it.
    cases += [several(cpu, smp, in_turn=True) for cpu, smp in (("cortex-a72", "4"), ("cortex-a76", "8"), ("neoverse-n1", "4"), ("max", "2"))]
    # More than a host has: those that wait would keep those from running that they wait for.
    cases += [BootCase("128 CPUs in turn", {"SMP": "128", "BOOTARGS": OF_MANY}, extra=IN_TURN)]
    cases += [BootCase("128M of RAM", {"MEM": "128M"}), BootCase("8G of RAM", {"MEM": "8G", "BOOTARGS": OF_BOOT})]
    cases += [BootCase("the least RAM", {"SMP": "2", "MEM": f"{ram_for_tests(2)}M"})]
    cases += [
        BootCase("64G of RAM", {"MEM": "64G", "BOOTARGS": "selftest=tree.*,frames.*,fault.*,set_memory.*,vmap.*,vmalloc.*"}, extra=lazily("64G")),
        BootCase("2T of RAM", {"MEM": "2T", "BOOTARGS": "selftest=tree.*,frames.*,fault.*,vmap.*,vmalloc.*"}, extra=lazily("2T"), takes="cannot set up guest memory"),
        BootCase("GICv2", {"GIC": "2", "BOOTARGS": OF_BOOT}),
        # 4 and 8 at once, with all tests, are in `counts`: more than a small host has.
        BootCase("GICv2, EL2, 8 CPUs in turn", {"GIC": "2", "EL2": "1", "SMP": "8"}, extra=IN_TURN),
        BootCase("GICv3, EL2, 4 CPUs in turn", {"GIC": "3", "EL2": "1", "SMP": "4"}, extra=IN_TURN),
        # Cortex-A76 r0p0 as the last of four: a TLBI has to be repeated for the sake of one CPU.
        BootCase("an erratum of the last CPU", {"SMP": "4", "BOOTARGS": "id_override=3:midr:0x410fd0b0 selftest=errata.*,count.*,smp.*,vmalloc.*"}, extra=IN_TURN),
        # CPU 1 without TLBI by range and with DC ZVA of 16 bytes, CPU 2 with 36 bits of PA and
        # another cache line.
        BootCase("CPUs that differ", {"SMP": "3", "BOOTARGS": "id_override=1:isar0:0,1:dczid:2,2:mmfr0:1,2:ctr:0x84420002 selftest=features.*,errata.*,count.*,smp.*,vmalloc.*,bulk.*"}),
        # And one that may not use DC ZVA, with errata of its own.
        BootCase("errata of every CPU", {"SMP": "2", "BOOTARGS": "id_override=0:midr:0x410fd4d0,1:midr:0x410fd030,1:dczid:0x14 selftest=features.*,errata.*,count.*,set_memory.*"}),
        BootCase("test_vmalloc on 4 CPUs in turn", {"SMP": "4", "BOOTARGS": "selftest=vmalloc.the_cases* threads=4 nr_pages=16 use_huge=1 loops=64"}, extra=IN_TURN),
        BootCase("linear=4k", {"BOOTARGS": "linear=4k"}),
        BootCase("another seed", {"BOOTARGS": "seed=2026"}),
        BootCase("a command line for Linux", {"BOOTARGS": f"{FOR_LINUX} selftest=tree.*"}, passes_over=FOR_LINUX),
        *(BootCase(f"virt, {name}", {"SMP": "2", "BOOTARGS": OF_MACHINE}, extra=extra) for name, extra in OPTIONS_OF_VIRT.items()),
        BootCase("an initrd", {"INITRD": str(initrd), "BOOTARGS": OF_BOOT}),
        BootCase("no test asked for", {"BOOTARGS": "selftest=none"}),
        BootCase(
            f"loaded at {ODD_IMAGE_AT:#x}",
            arguments=("--raw", hex(ODD_IMAGE_AT), "--raw-dtb", hex(RAW_DTB_AT), "--dtb", str(dtb)),
        ),
    ]
    return cases


def lazily(size: str) -> tuple[str, ...]:
    """RAM of which most hosts have less: hardly any of it is touched, and nothing is set aside for the rest."""
    return ("-object", f"memory-backend-ram,id=ram,size={size},reserve=off", "-machine", "memory-backend=ram")


def alone(cpu: str, el2: int) -> BootCase:
    return BootCase(f"{cpu}, EL{1 + el2}", {"CPU": cpu, "EL2": str(el2)})


def several(cpu: str, smp: str, in_turn: bool = False) -> BootCase:
    """What several CPUs of a kind do. In turn it takes a twentieth of the time, and is done three times."""
    of_turn, rounds, extra = (" in turn", " soak=3", IN_TURN) if in_turn else ("", "", ())
    return BootCase(f"{cpu}, {smp} CPUs{of_turn}", {"CPU": cpu, "SMP": smp, "BOOTARGS": f"selftest=smp.*,fault.*{rounds}"}, extra=extra)


@dataclass(frozen=True)
class Pages:
    """What an image may have beside pages of 4 KiB and 48-bit addresses."""

    granule: str
    bits: int = 48
    """Of virtual address; 52 are those of a physical one, too."""
    without: str | None = None
    """A CPU that has no such thing."""

    @property
    def name(self) -> str:
        return self.granule if self.bits == 48 else f"{self.granule}-{self.bits}"

    @property
    def variables(self) -> dict[str, str]:
        return {"GRANULE": self.granule, "VA": str(self.bits), "PA": str(max(self.bits, 48))}

    @property
    def refusal(self) -> str:
        size = self.granule[:-1]
        return f"this CPU has no {size} KiB granule" if self.bits == 48 else f"this CPU has no {self.bits}-bit addresses with {size} KiB pages"


GRANULES = (Pages("16K", without="cortex-a72"), Pages("64K"), Pages("4K", 52, "cortex-a76"))
"""Images that are tried each time."""

WIDE = (Pages("16K", 52, "cortex-a76"), Pages("64K", 52, "cortex-a76"))
"""And at length."""

FEWER_LEVELS = (Pages("4K", 39), Pages("16K", 47), Pages("64K", 42))
"""Images whose walks are shorter by a table, at length, too."""


def of_granule(pages: Pages, image: Path, whole: bool) -> list[BootCase]:
    """The suite with such pages, on one CPU and on four, and a CPU that has none. What several do, if not the `whole`; and one alone with 52 bits."""
    given = {"IMAGE": str(image)}
    of_several, in_turn = ({}, ()) if whole else ({"BOOTARGS": "selftest=smp.*,fault.*,count.*"}, IN_TURN)
    cases = [BootCase(f"{pages.name}, EL2", given | {"EL2": "1"})]
    if whole or pages.bits == 48:
        cases.append(BootCase(f"{pages.name}, 4 CPUs{' in turn' if in_turn else ''}", given | {"SMP": "4"} | of_several, extra=in_turn))
    if pages.bits == 39:
        # The linear map has 256 GiB, and the table by which an image turns the MMU on 512.
        large = {"extra": lazily("640G"), "takes": "cannot set up guest memory"}
        cases.append(BootCase(f"{pages.name}, 640G of RAM", given | {"MEM": "640G", "BOOTARGS": "selftest=tree.*,frames.*,vmalloc.*"}, **large))
        says = ("--expect-message", "the image lies at a physical address of more bits", "--raw", "0x9000000000", "--raw-dtb", "0x9008000000")
        cases.append(BootCase(f"{pages.name}, an image above 512G", given | {"MEM": "640G"}, says, **large))
    if pages.without:
        cases.append(BootCase(f"{pages.name}, {pages.without}", given | {"CPU": pages.without}, ("--expect-message", pages.refusal)))
    return cases


def models_of_cpus(qemu: str, names: Iterable[str]) -> list[BootCase]:
    """For an emulator that has more models than the installed one."""
    return [
        BootCase(f"{name} of the newer emulator, EL{2 if el2 else 1}", {"QEMU": qemu, "CPU": name, "SMP": "2", "EL2": str(el2), "BOOTARGS": OF_MACHINE})
        for name in names
        for el2 in (0, 1)
    ]


def counts_of_cpus() -> list[BootCase]:
    """For what takes its time: the suite with each of these numbers of CPUs, and what several do on each that needs break-before-make."""
    cases = [BootCase(f"{smp} CPUs", {"SMP": str(smp)}) for smp in (*range(1, 10), 12, 16)]
    cases += [BootCase(f"{smp} CPUs in turn", {"SMP": smp, "TIMEOUT": "300"}, extra=IN_TURN) for smp in ("8", "16", "32", "64")]
    cases += [BootCase(f"{smp} CPUs in turn", {"SMP": smp, "MEM": "2G", "TIMEOUT": "300", "BOOTARGS": OF_MANY}, extra=IN_TURN) for smp in ("256", "512")]
    cases += [several(cpu, smp) for cpu in BREAKING for smp in ("2", "4", "8")]
    # In `make test` these have what depends on them.
    cases += [BootCase("8G of RAM, all tests", {"MEM": "8G"}), BootCase("GICv2, all tests", {"GIC": "2"}), BootCase("GICv3, EL2, 4 CPUs", {"GIC": "3", "EL2": "1", "SMP": "4"})]
    return cases + [alone(cpu, el2) for cpu in CPUS for el2 in (0, 1)]


def of_firmware() -> list[BootCase]:
    """The image loaded by firmware from a disk. One boot has the whole suite."""
    return [
        BootCase("UEFI, device tree", {"FIRMWARE": "uefi"}),
        BootCase("UEFI, ACPI, 2 CPUs", {"FIRMWARE": "uefi-acpi", "SMP": "2", "BOOTARGS": "selftest=tree.*,frames.*,device.*"}),
        BootCase("UEFI, ACPI, EL2, GICv2", {"FIRMWARE": "uefi-acpi", "EL2": "1", "GIC": "2", "SMP": "2", "BOOTARGS": OF_MANY}),
        BootCase("UEFI, device tree, EL2, 4 CPUs", {"FIRMWARE": "uefi", "EL2": "1", "SMP": "4", "BOOTARGS": OF_MANY}),
        BootCase("U-Boot, booti, EL2", {"FIRMWARE": "u-boot", "EL2": "1", "BOOTARGS": "selftest=tree.*"}),
        BootCase("U-Boot's UEFI, 2 CPUs", {"FIRMWARE": "u-boot-uefi", "SMP": "2", "BOOTARGS": "selftest=tree.*,frames.*"}),
    ]


@dataclass(frozen=True)
class BrokenEntry:
    """An entry that breaks the arm64 boot protocol, and what the kernel must say of it."""

    name: str
    says: str
    dtb: bytes | None = None
    """None: nothing is loaded where x0 points."""
    dtb_at: int = RAW_DTB_AT
    image_at: int = ODD_IMAGE_AT
    extra: tuple[str, ...] = ()
    may_park: bool = False

    def boot(self, dtb_file: Path) -> BootCase:
        arguments = ["--expect-message", self.says, "--raw", hex(self.image_at), "--raw-dtb", hex(self.dtb_at)]
        if self.dtb is not None:
            arguments += ["--dtb", str(dtb_file)]
        if self.may_park:
            arguments += ["--may-park"]
        return BootCase(self.name, {"TIMEOUT": "5" if self.may_park else "30"}, tuple(arguments), self.extra)


def broken_entries(dtb: bytes) -> list[BrokenEntry]:
    """What no kernel may trust, made from a good device tree."""
    tree = "(?i)device tree"
    no_ram = 0x20_0000_0000
    return [
        BrokenEntry("a truncated device tree", tree, dtb[: len(dtb.rstrip(b"\0")) // 2]),
        BrokenEntry("a device tree of its header only", tree, dtb[:40]),
        BrokenEntry("a device tree without its magic", tree, bytes(4) + dtb[4:]),
        BrokenEntry("no device tree at the address given", tree),
        BrokenEntry("a null device tree pointer", tree, dtb_at=0),
        BrokenEntry("a misaligned device tree", tree, dtb, dtb_at=RAW_DTB_AT + 4),
        BrokenEntry("a device tree where no memory is", "exception|device tree", dtb_at=no_ram),
        BrokenEntry("an image off the 2 MiB grid", "2 MiB", dtb, image_at=ODD_IMAGE_AT + 0x1_0000),
        BrokenEntry("an entry at EL3", "EL3", dtb, extra=("-machine", "secure=on"), may_park=True),
    ]


def refusals() -> list[BootCase]:
    """What must be met by one clear line that says why, and a power-off."""
    arguments = ("linear=5k", "seed=many", "selftest.break=no-such-fault", "log=loud", "id_override=0:midi:0x410fd0b0", "test_vmalloc=8192")
    says = {argument: f"bad boot argument .*{argument.partition('=')[0]}" for argument in arguments}
    says |= {
        "selftest=no_such_test_anywhere": "no test has a name that `no_such_test_anywhere` matches",
        "selftest=map.range.64k*,nosuch.*": r"no test has a name that `nosuch\.\*` matches",
        "bench.walkers=nosuch": "bench.walkers=nosuch`: expected none, or a glob over vmwalk rewalk series",
        "mode=bench bench.walkers=last-is-f*": "expected none, or a glob over vmwalk rewalk series$",
    }
    little = BootCase("less RAM than the tests take", {"MEM": "16M"}, ("--expect-message", "MiB of RAM are free, and the self-tests take"))
    elf = BootCase("an ELF file in the image's place", {"IMAGE": str(BUILD / "vmwalk.elf")}, ("--expect-message", "x0 is 0, as where an ELF file is loaded"))
    return [little, elf, *(BootCase(f"bad boot argument {argument}", {"BOOTARGS": argument}, ("--expect-message", message)) for argument, message in says.items())]


def traps() -> list[BootCase]:
    """What must end the kernel with a word, and not in a loop between two exception levels."""
    return [
        BootCase(
            "an instruction that traps to EL2",
            {"EL2": "1", "BOOTARGS": "selftest.break=trap-to-el2 selftest=errata.*"},
            ("--expect-message", "an instruction of EL1 trapped to EL2"),
        )
    ]


def rejected_runs() -> list[BootCase]:
    """Boots of a sound kernel that the runner must not let pass."""
    return [
        BootCase("an empty selection", {"BOOTARGS": "selftest=no_such_test_anywhere"}, fails_with="no test has a name that"),
        BootCase("a list with a glob that selects nothing", {"BOOTARGS": "selftest=map.range.64k*,nosuch.*"}, fails_with=r"`nosuch\.\*`"),
        BootCase("a MiB less than the tests take", {"SMP": "2", "MEM": f"{ram_for_tests(2) - 1}M"}, fails_with="the self-tests take MEM="),
        BootCase("a processor without AArch64", {"CPU": "cortex-a15"}, fails_with="CPU=cortex-a15 has no AArch64 state"),
        BootCase("an emulator that ends without a word", {"QEMU": "/bin/true"}, fails_with="nothing was printed"),
    ]


PLANTED_FAULTS: dict[str, tuple[str, str]] = {
    # selftest.break=NAME -> what the name or the diagnostics of a failing test must match, and
    # which tests run.
    "skip-tlbi": (r"reached it by a stale translation", "frames.*"),
    "stale-permission": (r"no_stale_permission.*permitted", "protect.*"),
    "skip-dsb": (r"DSB ISHST of a fresh map: 0", "count.*,map.array.orders*"),
    "wrong-output": (r"wrong output address", "map.*"),
    "mixed-group": (r"mixed contiguous group", "map.*"),
    "writable-rodata": (r"a_store_to_read_only_is_a_permission_fault.*rw-", "fault.*"),
    "writable-text": (r"text or constants are writable by an alias", "*"),
    "no-guard": (r"guard_page.*still mapped", "fault.*"),
    "leak-table": (r"leak of table pages", "map.*"),
    "wrong-walker": (r"walker last-is-first:|wrong output address", "walkers.*"),
    "leak-frame": (r"leak of frames", "map.array.*"),
    "uncounted-tlbi": (r"translation is not flushed|never flushed|before its translation was flushed", "smp.nothing*,count.every*"),
}


def planted_faults() -> list[BootCase]:
    """Each fault that the kernel can plant in itself must make the suite fail and be named."""
    return [
        BootCase(
            f"planted {name}",
            {"BOOTARGS": f"selftest.break={name} selftest={selection}"},
            ("--expect-fail", pattern),
        )
        for name, (pattern, selection) in PLANTED_FAULTS.items()
    ]


WRONG_WALKERS: dict[str, tuple[str, str]] = {
    # BENCH_WALKERS=NAME, planted -> a case that it does wrongly, and what the bench must say of it.
    "last-is-first": ("vmap 16, order 0/range-only", r"page 15 is Some\(.*\), not 0x"),
    "trusts-the-first": ("vmap 25600, order 8/range-only", r"page \d+ is in a leaf of other frames, not 0x"),
    "leaves-the-last": ("range 1M, 4K pa", r"left mapped: "),
}
