//! Errata are those of every CPU, and the tables are made for all of them.

use core::sync::atomic::{AtomicU64, Ordering};

use crate::arch::errata::{Errata, midr_of};
use crate::arch::features::Features;
use crate::arch::percpu::MAX_CPUS;
use crate::mm::kernel_tree;
use crate::selftest::context::Context;
use crate::selftest::failure::{Failure, TestResult, expect_value};
use crate::smp;

/// The table's first and last revisions are in, the next is out, and so are other parts and other makers.
pub fn table_has_exact_bounds(_ctx: &Context) -> TestResult {
    let repeats = |midr| u64::from(Errata::of(midr).repeat_tlbi);
    for (midr, expected) in [
        // Cortex-A76 r0p0, r3p0, r3p1, r4p0.
        (0x410f_d0b0, 1),
        (0x413f_d0b0, 1),
        (0x413f_d0b1, 0),
        (0x414f_d0b0, 0),
        // The same part number by another maker.
        (0x510f_d0b0, 0),
        // Cortex-A55 r0p0, r2p0, r3p0.
        (0x410f_d050, 1),
        (0x412f_d050, 1),
        (0x413f_d050, 0),
        // Cortex-A510 r1p1, r1p2.
        (0x411f_d461, 1),
        (0x411f_d462, 0),
        // Cortex-A72 r0p3, and the emulator's `max`.
        (0x410f_d083, 0),
        (0x000f_0510, 0),
    ] {
        if repeats(midr) != expected {
            return Err(Failure::Claim {
                what: "the table of errata is wrong for a MIDR",
                at: midr,
            }
            .into());
        }
    }
    Ok(())
}

/// What each CPU recorded before there were final tables is what it is; and the policy is what any of them, or the boot arguments, need.
pub fn policy_is_of_every_cpu(_ctx: &Context) -> TestResult {
    let args = crate::args();
    let mut needed = args.errata;
    let midrs = [const { AtomicU64::new(0) }; MAX_CPUS];
    smp::on_each_cpu(|cpu| midrs[cpu].store(Features::read().midr, Ordering::Release));
    for cpu in smp::online() {
        let midr = midrs[cpu].load(Ordering::Acquire);
        expect_value("MIDR_EL1 as recorded", midr_of(cpu).unwrap_or(0), midr)?;
        let pretended = args.pretence.filter(|pretence| pretence.cpu == cpu);
        needed = needed.or(Errata::of(pretended.map_or(midr, |pretence| pretence.midr)));
    }
    let config = kernel_tree().config();
    expect_value(
        "TLBIs are repeated",
        u64::from(config.repeat_tlbi),
        u64::from(needed.repeat_tlbi),
    )?;
    let groups = config.leaves != config.leaves.without_groups();
    expect_value(
        "the contiguous bit is used",
        u64::from(groups),
        u64::from(!needed.no_cont),
    )?;
    Ok(())
}
