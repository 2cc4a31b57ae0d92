use arch_policy::features::{Bbm, Features};
use arch_policy::identity::{Identity, Override, Register};

/// The emulator's `max`.
fn max() -> Identity {
    Identity::default()
        .with(Register::Midr, 0x000f_0510)
        .with(Register::Pfr0, 0x1201_1120_1111_0011)
        .with(Register::Dfr0, 0xf015_0600)
        .with(Register::Isar0, 0x1221_1110_1021_2120)
        .with(Register::Mmfr0, 0x0323_1020_1126)
        .with(Register::Mmfr1, 0x1001_1100_1111_2112)
        .with(Register::Mmfr2, 0x1221_0111_1001_1011)
        .with(Register::Ctr, 0x8003_8003)
        .with(Register::Dczid, 4)
        .with(Register::Pmcr, 0x41 << 24 | 6 << 11)
}

#[test]
fn fields_are_where_the_manual_has_them() {
    let features = Features::of(&max());
    assert_eq!(
        features,
        Features {
            midr: 0x000f_0510,
            pa_bits: 52,
            granule_4k: true,
            granule_16k: true,
            granule_64k: true,
            wide_4k: true,
            wide_16k: true,
            wide_64k: true,
            tlbi_range: true,
            lse: true,
            bbm: Bbm::Level2,
            hardware_access_flag: true,
            hardware_dirty_state: true,
            pan: true,
            zva_size: 64,
            dcache_line: 32,
            icache_line: 32,
            fetches_see_data: false,
            fetches_see_stores: false,
            simd: true,
            pmu_counters: Some(6),
        }
    );
    assert_eq!(features.missing(12, 48), None);
}

#[test]
fn what_one_lacks_none_has() {
    let all = Features::of(&max());
    let with = |register, value| {
        let other = Features::of(&max().with(register, value));
        assert_eq!(all.common(other), other.common(all), "it is both's");
        all.common(other)
    };
    let mmfr0 = max().get(Register::Mmfr0);
    assert!(!with(Register::Isar0, 0x1021_1110_1021_2120).tlbi_range);
    assert!(!with(Register::Isar0, 0x1221_1110_1001_2120).lse);
    assert!(
        !with(Register::Isar0, 0x1121_1110_1021_2120).tlbi_range,
        "TLBIOS alone"
    );
    assert_eq!(with(Register::Dczid, 2).zva_size, 16);
    assert_eq!(with(Register::Dczid, 9).zva_size, 64);
    assert_eq!(with(Register::Dczid, 0x14).zva_size, 0);
    assert_eq!(with(Register::Ctr, 0x8001_8002).dcache_line, 8);
    assert_eq!(with(Register::Ctr, 0x8001_8002).icache_line, 16);
    assert_eq!(with(Register::Ctr, 0x8005_8005).dcache_line, 32);
    assert!(!with(Register::Ctr, 0xb003_8003).fetches_see_data);
    assert!(!with(Register::Ctr, 0xb003_8003).fetches_see_stores);
    assert_eq!(with(Register::Mmfr0, mmfr0 & !0xf | 1).pa_bits, 36);
    assert!(!with(Register::Mmfr0, mmfr0 & !(0xf << 20)).granule_16k);
    assert!(!with(Register::Mmfr0, mmfr0 | 0xf << 24).granule_64k);
    assert_eq!(with(Register::Mmfr2, 0).bbm, Bbm::Level0);
    assert!(!with(Register::Mmfr1, 0).hardware_access_flag);
    assert!(!with(Register::Mmfr1, 1).hardware_dirty_state);
    assert!(!with(Register::Mmfr1, 1).pan);
    assert_eq!(with(Register::Pmcr, 2 << 11).pmu_counters, Some(2));
    assert_eq!(with(Register::Dfr0, 0).pmu_counters, None);
}

#[test]
fn what_both_have_stays() {
    let fetches = Features::of(&max().with(Register::Ctr, 0xb003_8003));
    assert!(fetches.common(fetches).fetches_see_data && fetches.common(fetches).fetches_see_stores);
    let all = Features::of(&max());
    assert_eq!(all.common(all), all);
    let other = Features::of(&max().with(Register::Midr, 1));
    assert_eq!(all.common(other), all, "the first CPU's name");
}

#[test]
fn what_the_kernel_needs_is_missed() {
    let missing = |register, value| Features::of(&max().with(register, value)).missing(12, 48);
    assert_eq!(missing(Register::Pfr0, 0x00ff_0011), Some("Advanced SIMD"));
    assert_eq!(missing(Register::Mmfr0, 0xf << 28), Some("4 KiB granule"));
}

#[test]
fn addresses_of_52_bits_are_had_by_each_granule_in_its_own_way() {
    let all = Features::of(&max());
    let narrow = Some("52-bit addresses with this granule");
    let mmfr0 = max().get(Register::Mmfr0);
    let without = |register, value| Features::of(&max().with(register, value));
    let plain = [
        (12, without(Register::Mmfr0, mmfr0 & !(0xf << 28))),
        (14, without(Register::Mmfr0, mmfr0 & !(0xf << 20) | 1 << 20)),
        (16, without(Register::Mmfr2, 0)),
        (16, without(Register::Mmfr0, mmfr0 & !0xf | 5)),
    ];
    for (page_shift, lacks) in plain {
        assert_eq!(all.missing(page_shift, 52), None);
        assert_eq!(lacks.missing(page_shift, 52), narrow);
        assert_eq!(lacks.missing(page_shift, 48), None);
        assert_eq!(all.common(lacks).missing(page_shift, 52), narrow);
        for other in [12, 14, 16].into_iter().filter(|other| *other != page_shift) {
            assert_eq!(lacks.missing(other, 52), None);
        }
    }
    let no_4k = without(Register::Mmfr0, mmfr0 | 0xf << 28);
    assert_eq!(no_4k.missing(12, 52), Some("4 KiB granule"));
}

#[test]
fn an_override_is_of_one_register_of_one_cpu() {
    let overrides = [
        Override {
            cpu: 1,
            register: Register::Isar0,
            value: 0,
        },
        Override {
            cpu: 1,
            register: Register::Midr,
            value: 7,
        },
    ];
    let of = |cpu| Override::applied(overrides.into_iter(), cpu, max());
    assert_eq!(of(0), max());
    assert_eq!(of(1), max().with(Register::Isar0, 0).with(Register::Midr, 7));
    for (name, register) in Register::NAMES {
        assert_eq!(register.name(), *name);
    }
}
