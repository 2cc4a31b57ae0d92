//! Errata of translation and caches: switches by MIDR_EL1 or force, on if any CPU needs them
//! (DESIGN rule 11).
//!
//! Rows follow Linux as of June 2026: `Documentation/arch/arm64/silicon-errata.rst`,
//! `arch/arm64/Kconfig`, `arch/arm64/include/asm/cputype.h`, and for revisions the lists of
//! `arch/arm64/kernel/cpu_errata.c` named above them.
//!
//! Unconditional: Cortex-A77 1508412 (r0p0 to r1p0) in `arch::mmu::translate`; Cortex-A53 843419
//! (r0p0 to r0p4), Brahma-B53 in the linker (`boot/build.rs`); AmpereOne AC04_CPU_23 in
//! `configure_el2`.

use core::ops::RangeInclusive;

#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Errata {
    /// A TLBI may complete too early: DSB, TLBI again, DSB.
    pub repeat_tlbi: bool,
    /// Only by force.
    pub no_cont: bool,
    /// Cleaning a line may fail.
    pub clean_invalidates: bool,
    /// Executable memory changes by break-before-make only.
    pub break_executable: bool,
}

#[derive(Clone, Debug)]
pub struct Erratum {
    pub name: &'static str,
    pub implementer: u8,
    pub part: RangeInclusive<u16>,
    /// (variant, revision): r1p2 is (1, 2).
    pub revisions: RangeInclusive<(u8, u8)>,
    pub needs: Errata,
}

const NONE: Errata = Errata {
    repeat_tlbi: false,
    no_cont: false,
    clean_invalidates: false,
    break_executable: false,
};
const REPEAT_TLBI: Errata = Errata {
    repeat_tlbi: true,
    ..NONE
};
const NO_CONT: Errata = Errata {
    no_cont: true,
    ..NONE
};
const CLEAN_INVALIDATES: Errata = Errata {
    clean_invalidates: true,
    ..NONE
};
const BREAK_EXECUTABLE: Errata = Errata {
    break_executable: true,
    ..NONE
};

const ARM: u8 = 0x41;
const NVIDIA: u8 = 0x4e;
const QUALCOMM: u8 = 0x51;
const MICROSOFT: u8 = 0x6d;

const ALL: RangeInclusive<(u8, u8)> = (0, 0)..=(0xf, 0xf);

const fn row(
    name: &'static str,
    implementer: u8,
    part: u16,
    revisions: RangeInclusive<(u8, u8)>,
    needs: Errata,
) -> Erratum {
    Erratum {
        name,
        implementer,
        part: part..=part,
        revisions,
        needs,
    }
}

#[rustfmt::skip]
pub const TABLE: &[Erratum] = &[
    // arm64_repeat_tlbi_list, QCOM_FALKOR_ERRATUM_1009; Kryo: is_kryo_midr.
    row("Falkor v1 1009", QUALCOMM, 0x800, (0, 0)..=(0, 0), REPEAT_TLBI),
    Erratum { part: 0x200..=0x2ff, ..row("Kryo 1009", QUALCOMM, 0x200, ALL, REPEAT_TLBI) },
    // arm64_repeat_tlbi_list, ARM64_ERRATUM_1286807. Kryo4xx Gold rcpe to rfpe is Cortex-A76 r0p0
    // to r3p0.
    row("Cortex-A76 1286807", ARM, 0xd0b, (0, 0)..=(3, 0), REPEAT_TLBI),
    row("Kryo4xx Gold 1286807", QUALCOMM, 0x804, (0xc, 0xe)..=(0xf, 0xe), REPEAT_TLBI),
    // arm64_repeat_tlbi_list, ARM64_ERRATUM_2441007.
    row("Cortex-A55 2441007", ARM, 0xd05, ALL, REPEAT_TLBI),
    // arm64_repeat_tlbi_list, ARM64_ERRATUM_2441009: fixed in r1p2.
    row("Cortex-A510 2441009", ARM, 0xd46, (0, 0)..=(1, 1), REPEAT_TLBI),
    // arm64_repeat_tlbi_list, ARM64_ERRATUM_4118414 (CVE-2025-10263).
    row("C1-Premium 4193780", ARM, 0xd90, ALL, REPEAT_TLBI),
    row("C1-Ultra 4193780", ARM, 0xd8c, ALL, REPEAT_TLBI),
    row("Cortex-A76 4193800", ARM, 0xd0b, ALL, REPEAT_TLBI),
    row("Cortex-A76AE 4193801", ARM, 0xd0e, ALL, REPEAT_TLBI),
    row("Cortex-A77 4193798", ARM, 0xd0d, ALL, REPEAT_TLBI),
    row("Cortex-A78 4193791", ARM, 0xd41, ALL, REPEAT_TLBI),
    row("Cortex-A78AE 4193793", ARM, 0xd42, ALL, REPEAT_TLBI),
    row("Cortex-A78C 4193794", ARM, 0xd4b, ALL, REPEAT_TLBI),
    row("Cortex-A710 4193788", ARM, 0xd47, ALL, REPEAT_TLBI),
    row("Cortex-X1 4193791", ARM, 0xd44, ALL, REPEAT_TLBI),
    row("Cortex-X1C 4193792", ARM, 0xd4c, ALL, REPEAT_TLBI),
    row("Cortex-X2 4193788", ARM, 0xd48, ALL, REPEAT_TLBI),
    row("Cortex-X3 4193786", ARM, 0xd4e, ALL, REPEAT_TLBI),
    row("Cortex-X4 4118414", ARM, 0xd82, ALL, REPEAT_TLBI),
    row("Cortex-X925 4193781", ARM, 0xd85, ALL, REPEAT_TLBI),
    row("Neoverse-N1 4193800", ARM, 0xd0c, ALL, REPEAT_TLBI),
    row("Neoverse-N2 4193789", ARM, 0xd49, ALL, REPEAT_TLBI),
    row("Neoverse-V1 4193790", ARM, 0xd40, ALL, REPEAT_TLBI),
    row("Neoverse-V2 4193787", ARM, 0xd4f, ALL, REPEAT_TLBI),
    row("Neoverse-V3 4193784", ARM, 0xd84, ALL, REPEAT_TLBI),
    row("Neoverse-V3AE 4193784", ARM, 0xd83, ALL, REPEAT_TLBI),
    row("Olympus T410-OLY-1029", NVIDIA, 0x010, ALL, REPEAT_TLBI),
    row("Azure Cobalt 100 4193789", MICROSOFT, 0xd49, ALL, REPEAT_TLBI),
    // workaround_clean_cache, ARM64_ERRATUM_826319, 827319, 824069 and 819472.
    row("Cortex-A53 826319, 827319, 824069", ARM, 0xd03, (0, 0)..=(0, 2), CLEAN_INVALIDATES),
    row("Cortex-A53 819472", ARM, 0xd03, (0, 0)..=(0, 1), CLEAN_INVALIDATES),
    // arm64_errata, ARM64_ERRATUM_2645198.
    row("Cortex-A715 2645198", ARM, 0xd4d, ALL, BREAK_EXECUTABLE),
];

impl Erratum {
    #[must_use]
    pub fn applies_to(&self, midr: u64) -> bool {
        let implementer = (midr >> 24) as u8;
        let part = (midr >> 4 & 0xfff) as u16;
        let revision = ((midr >> 20 & 0xf) as u8, (midr & 0xf) as u8);
        self.implementer == implementer && self.part.contains(&part) && self.revisions.contains(&revision)
    }
}

impl Errata {
    pub const SWITCHES: &[(&str, Self)] = &[
        ("repeat-tlbi", REPEAT_TLBI),
        ("no-cont", NO_CONT),
        ("clean-invalidates", CLEAN_INVALIDATES),
        ("break-executable", BREAK_EXECUTABLE),
    ];

    pub fn matching(midr: u64) -> impl Iterator<Item = &'static Erratum> {
        TABLE.iter().filter(move |erratum| erratum.applies_to(midr))
    }

    #[must_use]
    pub fn of(midr: u64) -> Self {
        Self::matching(midr).fold(NONE, |all, erratum| all.or(erratum.needs))
    }

    #[must_use]
    pub const fn or(self, other: Self) -> Self {
        Self {
            repeat_tlbi: self.repeat_tlbi | other.repeat_tlbi,
            no_cont: self.no_cont | other.no_cont,
            clean_invalidates: self.clean_invalidates | other.clean_invalidates,
            break_executable: self.break_executable | other.break_executable,
        }
    }

    pub fn names(self) -> impl Iterator<Item = &'static str> {
        Self::SWITCHES
            .iter()
            .filter_map(move |(name, switch)| (self.or(*switch) == self).then_some(*name))
    }
}
