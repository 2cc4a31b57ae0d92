//! Features and errata are those of all CPUs together (DESIGN rules 11 and 13).

use alloc::vec::Vec;

use kernel::arch::cache;
use kernel::arch::errata::Errata;
use kernel::arch::features::Features;
use kernel::arch::identity::{self, Identity, Override, Register};
use kernel::arch::mmu::repeats_tlbi;
use kernel::arch::percpu::nr_cpus;
use kernel::layout::Granule;
use kernel::mm::{kernel_tree, zva_size};
use kernel::smp;
use kernel::sync::IrqSpinLock;
use paging::{Granule as _, Mmu};

use crate::selftest::context::Context;
use crate::selftest::failure::{Failure, TestResult, expect_value};

/// They must be as recorded before the final tables.
fn identities() -> Result<Vec<Option<Identity>>, Failure> {
    let read = IrqSpinLock::new("identities", alloc::vec![None; nr_cpus()]);
    smp::on_each_cpu(|cpu| read.lock()[cpu] = Some(identity::read()));
    let mut read = core::mem::take(&mut *read.lock());
    for (cpu, identity) in read.iter_mut().enumerate() {
        let Some(identity) = identity else { continue };
        let recorded = identity::of_cpu(cpu).unwrap_or_default();
        // Apart from its size, a PMU's register has state.
        for register in Register::ALL
            .iter()
            .filter(|register| **register != Register::Pmcr)
        {
            expect_value(register.name(), recorded.get(*register), identity.get(*register))?;
        }
        let overrides = kernel::args().overrides.into_iter().flatten();
        *identity = Override::applied(overrides, cpu, recorded);
    }
    Ok(read)
}

pub fn policy_is_of_every_cpu(_ctx: &Context) -> TestResult {
    let needed = identities()?
        .iter()
        .flatten()
        .map(|identity| Errata::of(identity.get(Register::Midr)))
        .fold(kernel::args().errata, Errata::or);
    let config = kernel_tree().config();
    let groups = config.leaves != config.leaves.without_groups();
    for (what, is, should_be) in [
        ("the tree repeats TLBIs", config.repeat_tlbi, needed.repeat_tlbi),
        ("fixed slots repeat TLBIs", repeats_tlbi(), needed.repeat_tlbi),
        (
            "what was executable is broken",
            config.break_executable,
            needed.break_executable,
        ),
        ("the contiguous bit is used", groups, !needed.no_cont),
        (
            "a clean invalidates",
            cache::clean_invalidates(),
            needed.clean_invalidates,
        ),
    ] {
        expect_value(what, u64::from(is), u64::from(should_be))?;
    }
    Ok(())
}

pub fn used_is_what_every_cpu_has(ctx: &Context) -> TestResult {
    let identities = identities()?;
    let features = || identities.iter().flatten().map(Features::of);
    let every = |has: fn(&Features) -> bool| features().all(|features| has(&features));
    let least =
        |size: fn(&Features) -> usize| features().map(|features| size(&features)).min().unwrap_or(0) as u64;
    let by_range = u64::from(kernel_tree().mmu().has_tlbi_range());
    expect_value(
        "TLBI by range",
        by_range,
        u64::from(every(|features| features.tlbi_range)),
    )?;
    expect_value("DC ZVA", zva_size() as u64, least(|features| features.zva_size))?;
    expect_value(
        "data cache line",
        cache::dcache_line() as u64,
        least(|features| features.dcache_line),
    )?;
    let pa_bits = least(|features| u32::from(features.pa_bits).min(Granule::PA_BITS) as usize);
    expect_value("PA bits", u64::from(kernel_tree().config().pa_bits), pa_bits)?;
    expect_value(
        "the tests' features",
        ctx.features.zva_size as u64,
        zva_size() as u64,
    )?;
    expect_value(
        "the tests' features",
        u64::from(ctx.features.tlbi_range),
        by_range,
    )?;
    Ok(())
}
