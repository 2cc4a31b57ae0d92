use core::time::Duration;

use crate::options::Planted;
use crate::selftest::context::Context;
use crate::selftest::failure::{Stop, TestResult, expect};
use crate::selftest::ktap::Report;
use kernel::arch::features::Features;
use kernel::arch::masked::{self, Count};
use kernel::arch::pmu::InstructionCounter;
use kernel::arch::time::Deadline;
use kernel::sync::IrqSpinLock;

pub fn sections_have_a_bound(ctx: &Context) -> TestResult {
    if ctx.planted == Some(Planted::LongHold) {
        let lock = IrqSpinLock::new("held too long", ());
        let _held = lock.lock();
        (0..=64).for_each(|_| masked::moves_block());
    }
    if !cfg!(debug_assertions) {
        return Err(Stop::Skip(
            "a build without debug assertions does not measure them",
        ));
    }
    let measured = masked::most(Count::Ticks);
    expect("nothing was measured", 0, measured.is_some())?;
    for count in Count::BOUNDED {
        let (Some(section), Some(bound)) = (masked::most(count), count.bound()) else {
            continue;
        };
        let nr = section.count(count);
        if nr > bound {
            let what = count.name();
            Report::say(format_args!(
                "{nr} {what} with interrupts masked, and at most {bound} may be: {section}"
            ));
        }
        expect(count.name(), nr, nr <= bound)?;
    }
    Ok(())
}

pub fn report(features: &Features) {
    let Some(longest) = masked::most(Count::Ticks) else {
        return;
    };
    let ticks = longest.count(Count::Ticks);
    if InstructionCounter::start(features).is_ok() {
        // Without `-icount` ticks are made of no instructions.
        let nr = ticks * 1_000_000 / masked::ticks_of_a_million().max(1);
        Report::say(format_args!(
            "longest section with interrupts masked: {nr} instructions, {longest}"
        ));
    } else {
        let ns = ticks * 1_000_000_000 / Deadline::ticks_of(Duration::from_secs(1));
        Report::say(format_args!(
            "longest section with interrupts masked: {ns} ns, {longest}"
        ));
    }
}
