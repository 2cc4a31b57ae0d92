use core::hint::black_box;

use kernel::arch::interrupts;
use kernel::arch::pmu::{self, Counters, Counts, Event, known_loop};
use kernel::arch::time;

use crate::selftest::context::Context;
use crate::selftest::failure::{Failure, Stop, TestResult, expect, expect_value};

fn expect_range(what: &'static str, found: u64, least: u64, most: u64) -> TestResult {
    if (least..=most).contains(&found) {
        Ok(())
    } else {
        Err(Stop::Fail(Failure::Range {
            what,
            found,
            least,
            most,
        }))
    }
}

fn counted(counters: &Counters, rounds: u32) -> Counts {
    let _masked = interrupts::mask_all();
    counters.begin();
    let began = time::ticks();
    known_loop(black_box(rounds));
    let ticks = time::ticks() - began;
    let mut counts = counters.end();
    counts[Counters::TIME] = ticks;
    counts
}

/// An emulator may make cycles of time.
pub fn cycles_and_time_grow_with_the_work(ctx: &Context) -> TestResult {
    const ROUNDS: u32 = 1_000_000;
    if ctx.features.pmu_counters.is_none() {
        return Err(Stop::Skip("this CPU has no PMUv3"));
    }
    let counters = Counters::new(&ctx.features);
    // Of three, so that what interrupts the emulator does not count.
    let least = |rounds, place: usize| (0..3).map(|_| counted(&counters, rounds)[place]).min();
    for (what, place) in [("ticks", Counters::TIME), ("cycles", Counters::CYCLES)] {
        let (few, many) = (least(ROUNDS / 100, place), least(ROUNDS, place));
        expect(
            "no more of a hundred times the work",
            many.unwrap_or(0),
            many > few,
        )?;
        expect(what, many.unwrap_or(0), many > Some(0))?;
    }
    // Stopped, they stay.
    let stopped = counters.end();
    known_loop(black_box(ROUNDS));
    let later = counters.end()[Counters::CYCLES];
    expect_value("cycles while stopped", later, stopped[Counters::CYCLES])?;
    Ok(())
}

pub fn instructions_are_those_of_a_loop(ctx: &Context) -> TestResult {
    let counters = Counters::new(&ctx.features);
    let instructions = counters
        .each()
        .find(|(name, _)| *name == Event::Instructions.name());
    let Some((_, Ok(place))) = instructions else {
        return Err(Stop::Skip("the PMU does not count instructions"));
    };
    let of = |rounds| counted(&counters, rounds)[place];
    let (few, many) = (of(1_000), of(101_000));
    // A hypervisor's exits may count a few.
    expect_range("instructions of 100,000 rounds", many - few, 200_000, 200_100)
}

pub fn an_overflow_is_counted(ctx: &Context) -> TestResult {
    const BEFORE: u32 = 1_000;
    let _masked = interrupts::mask_all();
    let counted = pmu::across_an_overflow(&ctx.features, BEFORE, || known_loop(black_box(200_000)));
    let Some((events, cycles)) = counted else {
        return Err(Stop::Skip("no event counter that counts cycles"));
    };
    expect(
        "the counter did not come to its overflow",
        events,
        events > u64::from(BEFORE),
    )?;
    // Both began and ended at one instruction each.
    expect_range("cycles by an event counter", events, cycles / 2, cycles * 2)
}
