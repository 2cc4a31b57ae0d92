//! The list is written from the public tables a second time.

use arch_policy::errata::{Errata, TABLE};

const REPEAT: &[&str] = &["repeat-tlbi"];
const CLEAN: &[&str] = &["clean-invalidates"];
const BREAK: &[&str] = &["break-executable"];
const NOTHING: &[&str] = &[];

/// Erratum, an affected MIDR_EL1, policy.
#[rustfmt::skip]
const AFFECTED: &[(&str, u64, &[&str])] = &[
    ("Falkor v1 1009", 0x510f_8000, REPEAT),
    ("Kryo 1009", 0x511f_2050, REPEAT),
    ("Kryo 1009", 0x510f_2110, REPEAT),
    ("Kryo 1009", 0x51ff_2fff, REPEAT),
    ("Cortex-A76 1286807", 0x410f_d0b0, REPEAT),
    ("Cortex-A76 1286807", 0x413f_d0b0, REPEAT),
    ("Kryo4xx Gold 1286807", 0x51cf_804e, REPEAT),
    ("Kryo4xx Gold 1286807", 0x51df_8040, REPEAT),
    ("Kryo4xx Gold 1286807", 0x51ff_804e, REPEAT),
    ("Cortex-A55 2441007", 0x410f_d050, REPEAT),
    ("Cortex-A55 2441007", 0x412f_d050, REPEAT),
    ("Cortex-A510 2441009", 0x410f_d460, REPEAT),
    ("Cortex-A510 2441009", 0x411f_d461, REPEAT),
    ("C1-Premium 4193780", 0x410f_d900, REPEAT),
    ("C1-Ultra 4193780", 0x410f_d8c0, REPEAT),
    ("Cortex-A76 4193800", 0x414f_d0b1, REPEAT),
    ("Cortex-A76AE 4193801", 0x411f_d0e1, REPEAT),
    ("Cortex-A77 4193798", 0x411f_d0d1, REPEAT),
    ("Cortex-A78 4193791", 0x411f_d412, REPEAT),
    ("Cortex-A78AE 4193793", 0x410f_d423, REPEAT),
    ("Cortex-A78C 4193794", 0x410f_d4b2, REPEAT),
    ("Cortex-A710 4193788", 0x412f_d471, REPEAT),
    ("Cortex-X1 4193791", 0x411f_d442, REPEAT),
    ("Cortex-X1C 4193792", 0x410f_d4c0, REPEAT),
    ("Cortex-X2 4193788", 0x412f_d481, REPEAT),
    ("Cortex-X3 4193786", 0x411f_d4e2, REPEAT),
    ("Cortex-X4 4118414", 0x410f_d823, REPEAT),
    ("Cortex-X925 4193781", 0x410f_d852, REPEAT),
    // The emulator's neoverse-n1: r4p1.
    ("Neoverse-N1 4193800", 0x414f_d0c1, REPEAT),
    ("Neoverse-N2 4193789", 0x410f_d493, REPEAT),
    ("Neoverse-V1 4193790", 0x411f_d402, REPEAT),
    ("Neoverse-V2 4193787", 0x410f_d4f2, REPEAT),
    ("Neoverse-V3 4193784", 0x410f_d842, REPEAT),
    ("Neoverse-V3AE 4193784", 0x410f_d832, REPEAT),
    ("Olympus T410-OLY-1029", 0x4e0f_0100, REPEAT),
    ("Azure Cobalt 100 4193789", 0x6d0f_d490, REPEAT),
    ("Cortex-A53 826319, 827319, 824069", 0x410f_d032, CLEAN),
    ("Cortex-A53 819472", 0x410f_d030, CLEAN),
    ("Cortex-A53 819472", 0x410f_d031, CLEAN),
    ("Cortex-A715 2645198", 0x410f_d4d0, BREAK),
    ("Cortex-A715 2645198", 0x411f_d4d3, BREAK),
];

const NOT_AFFECTED: &[u64] = &[
    // Cortex-A53 r0p3, r0p4.
    0x410f_d033,
    0x410f_d034,
    // Cortex-A57 r1p0, Cortex-A72 r0p3, Cortex-A75, Cortex-A73.
    0x411f_d070,
    0x410f_d083,
    0x410f_d0a0,
    0x410f_d090,
    // Cortex-A510 r1p2, fixed.
    0x411f_d462,
    // Cortex-A520, Cortex-A720, Cortex-A725, Neoverse-N3, C1-Pro.
    0x410f_d800,
    0x410f_d810,
    0x410f_d870,
    0x410f_d8e0,
    0x410f_d8b0,
    // Falkor v1 r1p0, Falkor, Kryo2xx Gold with Falkor's number, Kryo4xx Gold rfpf and rcpd.
    0x511f_8000,
    0x510f_c000,
    0x51af_8001,
    0x51ff_804f,
    0x51cf_804d,
    0x510f_1ff0,
    0x510f_3000,
    // Part numbers of other implementers.
    0x510f_d0b0,
    0x420f_d030,
    0x6d0f_d0c0,
    0x410f_0100,
    0x410f_8000,
    // The emulator's `max`.
    0x000f_0510,
];

fn needs(midr: u64) -> Vec<&'static str> {
    Errata::of(midr).names().collect()
}

#[test]
fn an_affected_cpu_has_its_row_and_its_policy() {
    for (name, midr, policy) in AFFECTED {
        let mut names = Errata::matching(*midr).map(|erratum| erratum.name);
        assert!(names.any(|found| found == *name), "{midr:#x} has no {name}");
        assert_eq!(needs(*midr), *policy, "{name}, {midr:#x}");
    }
}

#[test]
fn every_row_is_in_the_list_and_none_else() {
    for erratum in TABLE {
        let listed = AFFECTED.iter().any(|(name, ..)| *name == erratum.name);
        assert!(listed, "{} is not listed", erratum.name);
    }
    let mut names: Vec<_> = TABLE.iter().map(|erratum| erratum.name).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), TABLE.len());
}

#[test]
fn a_cpu_of_no_row_needs_nothing() {
    for midr in NOT_AFFECTED {
        assert_eq!(needs(*midr), NOTHING, "{midr:#x}");
    }
}

#[test]
fn a_row_ends_at_its_revisions_and_its_part() {
    for erratum in TABLE {
        let midr = |part: u16, (variant, revision): (u8, u8)| {
            u64::from(erratum.implementer) << 24
                | u64::from(variant) << 20
                | 0xf << 16
                | u64::from(part) << 4
                | u64::from(revision)
        };
        let (first, last) = (*erratum.revisions.start(), *erratum.revisions.end());
        for (variant, revision) in (0..=0xff).map(|both: u8| (both >> 4, both & 0xf)) {
            let affected = first <= (variant, revision) && (variant, revision) <= last;
            let midr = midr(*erratum.part.start(), (variant, revision));
            assert_eq!(erratum.applies_to(midr), affected, "{}, {midr:#x}", erratum.name);
        }
        for part in [erratum.part.start() - 1, erratum.part.end() + 1] {
            assert!(!erratum.applies_to(midr(part, first)), "{}", erratum.name);
        }
    }
}

#[test]
fn switches_add_up_and_have_names() {
    let mut all = Errata::default();
    for (name, switch) in Errata::SWITCHES {
        assert_eq!(switch.names().collect::<Vec<_>>(), [*name]);
        assert_ne!(all.or(*switch), all);
        all = all.or(*switch);
    }
    assert_eq!(all.names().count(), Errata::SWITCHES.len());
}
