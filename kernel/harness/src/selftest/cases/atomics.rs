use core::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};

use crate::selftest::context::Context;
use crate::selftest::failure::{TestResult, expect_value};
use crate::selftest::ktap::Report;
use kernel::arch::alternatives::{self, Condition};
use kernel::arch::atomic::{exchange_relaxed, swap_acquire, swap_relaxed};
use kernel::arch::features::Features;
use kernel::arch::identity;
use kernel::smp;
use kernel::sync::IrqSpinLock;

pub fn are_what_every_cpu_has(ctx: &Context) -> TestResult {
    let every = identity::cpus(&kernel::args().overrides).all(|(_, identity)| Features::of(&identity).lse);
    let sites = alternatives::nr_sites(Condition::Lse) as u64;
    let replaced = alternatives::nr_replaced(Condition::Lse) as u64;
    Report::say(format_args!(
        "{sites} atomics are {}",
        if replaced == 0 {
            "loops of exclusives"
        } else {
            "LSE instructions"
        }
    ));
    expect_value(
        "FEAT_LSE of all CPUs",
        u64::from(ctx.features.lse),
        u64::from(every),
    )?;
    expect_value("atomics that can be replaced", u64::from(sites != 0), 1)?;
    expect_value(
        "atomics that are replaced",
        replaced,
        if every { sites } else { 0 },
    )?;
    Ok(())
}

pub fn do_what_they_say(_ctx: &Context) -> TestResult {
    let words = [const { AtomicU64::new(0x0123_4567_89ab_cdef) }; 3];
    let old = swap_relaxed(&words[1], !0);
    expect_value("what a swap returns", old, 0x0123_4567_89ab_cdef)?;
    expect_value("what it stores", words[1].load(Ordering::Relaxed), !0)?;
    for beside in [&words[0], &words[2]] {
        expect_value(
            "what is beside it",
            beside.load(Ordering::Relaxed),
            0x0123_4567_89ab_cdef,
        )?;
    }
    let halves = [AtomicU32::new(7), AtomicU32::new(8)];
    expect_value(
        "what a swap of 32 bits returns",
        u64::from(swap_acquire(&halves[0], 9)),
        7,
    )?;
    expect_value("what it stores", u64::from(halves[0].load(Ordering::Relaxed)), 9)?;
    expect_value(
        "what is beside it",
        u64::from(halves[1].load(Ordering::Relaxed)),
        8,
    )?;
    let bytes = [const { AtomicU8::new(0xc0) }; 8];
    for (i, byte) in bytes.iter().enumerate() {
        let done = exchange_relaxed(byte, 0xc1, 0x40);
        expect_value("an exchange of something else", u64::from(done), 0)?;
        let done = exchange_relaxed(byte, 0xc0, 0x40);
        expect_value("an exchange of what is there", u64::from(done), 1)?;
        let changed = bytes.iter().filter(|byte| byte.load(Ordering::Relaxed) == 0x40);
        expect_value("bytes that were exchanged", changed.count() as u64, i as u64 + 1)?;
    }
    Ok(())
}

pub fn exclude_each_other(_ctx: &Context) -> TestResult {
    const TURNS: u64 = 2_000;
    const BYTES: usize = 4_096;
    let sum = IrqSpinLock::new("sum", 0);
    let bytes: alloc::vec::Vec<AtomicU8> = (0..BYTES).map(|_| AtomicU8::new(0)).collect();
    let taken = AtomicU64::new(0);
    let turns = TURNS / smp::nr_online() as u64;
    smp::on_each_cpu(|_| {
        (0..turns).for_each(|_| *sum.lock() += 1);
        let mine = bytes.iter().filter(|byte| exchange_relaxed(byte, 0, 1)).count();
        taken.fetch_add(mine as u64, Ordering::Relaxed);
    });
    expect_value(
        "what all added under a lock",
        *sum.lock(),
        turns * smp::nr_online() as u64,
    )?;
    expect_value(
        "bytes that one CPU took",
        taken.load(Ordering::Relaxed),
        BYTES as u64,
    )?;
    Ok(())
}
