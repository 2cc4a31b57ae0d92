//! `test_vmalloc=MASK nr_pages=N use_huge=0|1 loops=N threads=N`: the
//! [`shapes`](crate::selftest::shapes), each thread a CPU.

use core::sync::atomic::{AtomicU64, Ordering};

use kernel::arch::pmu::InstructionCounter;
use kernel::smp;
use kernel::sync::IrqSpinLock;

use crate::options::TestVmalloc;
use crate::selftest::context::Context;
use crate::selftest::failure::{Failure, TestResult, expect_value, go_on};
use crate::selftest::ktap::Report;
use crate::selftest::shapes::{self, Backing, Run, Shape};

struct Outcome {
    threads: u64,
    passed: u64,
    instructions: u64,
    failure: Option<(usize, Failure)>,
}

fn run(ctx: &Context, shape: &Shape, args: &TestVmalloc, backing: &Backing, seed: u64) -> Outcome {
    let (threads, passed, instructions) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    let failure = IrqSpinLock::new("failure", None);
    smp::on_each_cpu(|cpu| {
        if cpu as u64 >= args.threads {
            return;
        }
        threads.fetch_add(1, Ordering::AcqRel);
        let mut run = Run {
            nr_pages: args.nr_pages,
            use_huge: args.use_huge,
            loops: args.loops,
            threads: args.threads,
            thread: cpu,
            every_page: true,
            rng: fastrand::Rng::with_seed(seed ^ (cpu as u64) << 32 ^ u64::from(shape.bit)),
            backing,
        };
        let counter = InstructionCounter::start(&ctx.features).ok();
        let before = counter.as_ref().map(InstructionCounter::read);
        let result = (shape.body)(&mut run);
        if let (Some(counter), Some(before)) = (&counter, before) {
            let taken = u64::from(counter.read().wrapping_sub(before));
            instructions.fetch_add(taken, Ordering::AcqRel);
        }
        match result {
            Ok(right) => {
                passed.fetch_add(right, Ordering::AcqRel);
            }
            Err(found) => {
                failure.lock().get_or_insert((cpu, found));
            }
        }
    });
    let failure = failure.lock().clone();
    Outcome {
        threads: threads.into_inner(),
        passed: passed.into_inner(),
        instructions: instructions.into_inner(),
        failure,
    }
}

pub fn suite(ctx: &Context) -> TestResult {
    let args = &crate::options().test_vmalloc;
    let seed = ctx.rng().u64(..);
    let backing = Backing::new(ctx, args.nr_pages)?;
    let selected = shapes::ALL.iter().filter(|shape| args.mask & shape.bit != 0);
    let mut wrong = None;
    for shape in selected {
        let Outcome {
            threads,
            passed,
            instructions,
            failure,
        } = run(ctx, shape, args, &backing, seed);
        go_on()?;
        let (name, expected) = (shape.name, threads * args.loops);
        let failed = expected - passed;
        let per_loop = instructions / expected.max(1);
        match per_loop {
            0 => Report::say(format_args!(
                "test_vmalloc {name}: passed {passed} failed {failed} threads {threads}"
            )),
            _ => Report::say(format_args!(
                "test_vmalloc {name}: passed {passed} failed {failed} threads {threads} instructions/loop {per_loop}"
            )),
        }
        if let Some((cpu, failure)) = failure {
            Report::say(format_args!("test_vmalloc {name}: CPU {cpu}: {failure}"));
            wrong = wrong.or(Some(failure));
        }
        if let Err(failure) = expect_value(name, passed, expected) {
            wrong = wrong.or(Some(failure));
        }
    }
    match wrong {
        Some(failure) => Err(failure.into()),
        None => Ok(()),
    }
}
