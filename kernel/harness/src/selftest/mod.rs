//! The self-tests, on the live tables, as KTAP. Around each, what is in use is counted
//! ([`balance`]) and the tree audited ([`audit`]). `selftest.break=NAME` plants a fault
//! ([`fault_injection`]) that must be found.

pub mod audit;
mod backend;
mod balance;
pub mod by_address;
mod cases;
mod context;
mod failure;

mod fault_injection;
mod ktap;
mod ledger;
mod live;
mod mapping;
mod memory;
pub(crate) mod shapes;
mod source;
mod verify;

use kernel::BootInfo;
use kernel::arch::features::Features;
use kernel::arch::probe::trap_to_el2;
use kernel::arch::time::{Deadline, ticks};
use kernel::layout::PAGE_SIZE;
use kernel::mm::frames;
use kernel::{println, smp};
use paging::CheckError;

use crate::options::{Options, Planted, Selection};
use balance::Balance;
use cases::Test;
use context::Context;
use failure::{Failure, Stop, TestResult, go_on};
use ktap::Report;

const LONG: core::time::Duration = core::time::Duration::from_millis(1500);

/// That the suite takes with one CPU. scripts/lib/machine.py reads it here.
const FREE_MIB: u64 = 26;
const FREE_MIB_PER_CPU: u64 = 1;

/// Runs if there is enough free RAM.
pub fn run(info: &'static BootInfo, options: &Options<'_>, features: &Features) {
    let nr_cpus = smp::nr_online() as u64;
    let needed = (FREE_MIB + FREE_MIB_PER_CPU * (nr_cpus - 1)) * (PAGE_SIZE as u64 / 4096);
    let free = (frames::stats().free * PAGE_SIZE as u64) >> 20;
    let some_run = !matches!(options.selftest, Selection::None | Selection::List);
    if some_run && free < needed {
        kernel::fail(format_args!(
            "{free} MiB of RAM are free, and the self-tests take {needed} with {nr_cpus} CPUs"
        ));
    }
    run_selected(info, options, features);
    println!("vmwalk: done");
}

#[must_use]
pub fn selects(glob: &str) -> bool {
    names().any(|name| crate::glob::matches(glob, name))
}

pub fn names() -> impl Iterator<Item = &'static str> {
    cases::ALL.iter().map(|test| test.name)
}

pub fn run_selected(info: &'static BootInfo, options: &Options<'_>, features: &Features) {
    if options.selftest == Selection::List {
        names().for_each(|name| println!("{name}"));
        return;
    }
    let is_selected = |test: &&Test| match options.selftest {
        Selection::All => true,
        Selection::None | Selection::List => false,
        Selection::Globs(list) => crate::glob::matches_any(list, test.name),
    };
    if options.selftest != Selection::None {
        let selected = || cases::ALL.iter().filter(is_selected);
        let mut report = Report::begin(selected().count());
        Report::say(format_args!("seed={:#x}", options.seed));
        if let Some(planted) = options.planted {
            Report::say(format_args!("planted fault: {}", planted.name()));
            if planted == Planted::TrapToEl2 {
                trap_to_el2();
            }
        }
        // An unsound tree is reported once.
        let mut known = None;
        for test in selected() {
            if go_on().is_err() {
                return report.bail_out();
            }
            let ctx = Context::new(info, *features, options.planted, options.seed, test.name);
            match run_one(&ctx, test, &mut known) {
                Err(Stop::Fail(Failure::Interrupted)) => return report.bail_out(),
                result => report.result(test.name, &result),
            }
        }
        cases::masked::report(features);
        report.end();
    }
}

fn run_one(ctx: &Context, test: &Test, known: &mut Option<CheckError>) -> TestResult {
    let before = Balance::take();
    let began = ticks();
    let result = (test.run)(ctx);
    let took = ticks() - began;
    if took > Deadline::ticks_of(LONG) {
        let tenths = took * 10 / Deadline::ticks_of(core::time::Duration::from_secs(1));
        Report::say(format_args!(
            "{} took {}.{} s",
            test.name,
            tenths / 10,
            tenths % 10
        ));
    }
    let balanced = Balance::take().check_against(&before);
    let sound = audit_again(ctx, known);
    // Ctrl-C is no failure; what it leaves behind is.
    if let Err(Stop::Fail(Failure::Interrupted)) = result {
        balanced?;
        sound?;
        return result;
    }
    let audited = matches!(result, Err(Stop::Fail(Failure::Audit(_))));
    for found in [&balanced, &sound] {
        if let (Err(_), Err(failure)) = (&result, found)
            && !(audited && matches!(failure, Failure::Audit(_)))
        {
            Report::say(format_args!("{}: and {failure}", test.name));
        }
    }
    result?;
    balanced?;
    sound?;
    Ok(())
}

fn audit_again(ctx: &Context, known: &mut Option<CheckError>) -> Result<(), Failure> {
    match audit::audit(ctx.info) {
        Ok(_) => Ok(()),
        Err(error) if *known == Some(error) => Ok(()),
        Err(error) => {
            *known = Some(error);
            Err(error.into())
        }
    }
}
