//! What one CPU does to the tables, seen by the others. Each touches and looks again in one
//! closure: turned off in between, it would have an empty TLB.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use core::time::Duration;

use arrayvec::ArrayVec;
use kernel::arch::mmu::at_s1e1r;
use kernel::arch::percpu::{cpu_index, nr_cpus};
use kernel::arch::probe::{probe_read, probe_write};
use kernel::arch::time::{Deadline, relax};
use kernel::mm::areas::kernel_vmalloc;
use kernel::mm::{self, frames};
use kernel::smp;
use kernel::sync::IrqSpinLock;
use paging::{Attributes, LeafSet, LeafSize, Pfn};

use super::bad_input::AllFrames;
use crate::selftest::context::Context;
use crate::selftest::failure::{Failure, Stop, TestResult, expect, expect_value};
use crate::selftest::mapping::{Mapping, with_pages};
use crate::selftest::memory::{Block, Window};
use crate::selftest::source::{BLOCK, BLOCK_ORDER, BLOCK_SIZE, PAGE, Source, Walker};
use crate::selftest::verify::{read, write};

const PAGES: u64 = 32;
/// On a busy host an emulated CPU may not run for seconds. Two waits end before `make test` assumes
/// a hang (scripts/lib/stages.py).
const PATIENCE: Duration = Duration::from_secs(40);

pub(super) struct Meeting {
    expected: u32,
    arrived: AtomicU32,
}

impl Meeting {
    pub(super) fn of(expected: usize) -> Self {
        Self {
            expected: expected as u32,
            arrived: AtomicU32::new(0),
        }
    }

    pub(super) fn wait(&self) -> bool {
        self.arrived.fetch_add(1, Ordering::AcqRel);
        Deadline::after(PATIENCE).wait_until(|| self.arrived.load(Ordering::Acquire) >= self.expected)
    }
}

/// 0 for nothing.
pub(super) struct Findings(Box<[AtomicU64]>);

pub(super) const LATE: u64 = 1;
pub(super) const WRONG_DATA: u64 = 2;
pub(super) const FAULTED: u64 = 3;
const STILL_MAPPED: u64 = 4;
const STILL_WRITABLE: u64 = 5;
const WRONG_FAULT: u64 = 6;

impl Findings {
    pub(super) fn new() -> Self {
        Self((0..nr_cpus()).map(|_| AtomicU64::new(0)).collect())
    }

    pub(super) fn report(&self, cpu: usize, what: u64) {
        let _ = self.0[cpu].compare_exchange(0, what, Ordering::AcqRel, Ordering::Relaxed);
    }

    pub(super) fn check(&self) -> Result<(), Failure> {
        const TEXTS: [&str; 7] = [
            "",
            "was not there in time",
            "read other data than were written",
            "faulted on a page that is mapped",
            "reached a page after it was unmapped: a stale translation",
            "wrote to a page after it became read-only: a stale permission",
            "took another fault than expected",
        ];
        for (cpu, finding) in self.0.iter().enumerate() {
            let finding = finding.load(Ordering::Acquire) as usize;
            if finding != 0 {
                return Err(Failure::Cpu {
                    cpu,
                    what: TEXTS[finding],
                });
            }
        }
        Ok(())
    }
}

fn in_two_halves(
    findings: &Findings,
    touch: impl Fn(usize) + Sync,
    change: impl FnOnce() -> Result<(), Failure> + Send,
    look: impl Fn(usize) + Sync,
) -> Result<(), Failure> {
    let nr = smp::nr_online();
    let (touched, changed) = (Meeting::of(nr), Meeting::of(nr));
    let first = cpu_index();
    let change = IrqSpinLock::new("change", Some(change));
    let result = IrqSpinLock::new("result", Ok(()));
    smp::on_each_cpu(|cpu| {
        touch(cpu);
        if !touched.wait() {
            findings.report(cpu, LATE);
        }
        if cpu == first {
            let change = change.lock().take();
            if let Some(change) = change {
                *result.lock() = change();
            }
        }
        if !changed.wait() {
            findings.report(cpu, LATE);
        }
        look(cpu);
    });
    let result = result.lock().clone();
    result?;
    findings.check()
}

fn value(page: u64) -> u64 {
    0xc0de_0000 + page
}

fn touch(findings: &Findings, cpu: usize, start: usize) {
    for page in 0..PAGES {
        match probe_read(start + (page * PAGE) as usize) {
            Ok(found) if found == value(page) => {}
            Ok(_) => findings.report(cpu, WRONG_DATA),
            Err(_) => findings.report(cpu, FAULTED),
        }
    }
}

pub fn mapping_is_seen_and_goes(ctx: &Context) -> TestResult {
    ctx.needs_other_cpus()?;
    let block = Block::allocate(ctx, PAGES.ilog2() as u8)?;
    for page in 0..PAGES {
        write(mm::linear_va(block.start().0 + page * PAGE), value(page));
    }
    let window = Window::reserve(PAGES * PAGE, 2 << 20, 0)?;
    let start = window.start.0 as usize;
    let source = Source::Range {
        start: block.start(),
        pages: PAGES,
        walker: Walker::Array,
    };
    let findings = Findings::new();
    let expect_gone = |cpu| {
        for page in 0..PAGES {
            match probe_read(start + (page * PAGE) as usize) {
                Ok(_) => findings.report(cpu, STILL_MAPPED),
                Err(fault) if fault.translation_level().is_none() => findings.report(cpu, WRONG_FAULT),
                Err(_) => {}
            }
        }
    };
    let mut mapping = None;
    in_two_halves(
        &findings,
        expect_gone,
        || {
            mapping = Some(Mapping::map_data(ctx, window.start, &source, LeafSet::PAGES)?);
            Ok(())
        },
        |cpu| touch(&findings, cpu, start),
    )?;
    let Some(mapping) = mapping else {
        return Err(Failure::Claim {
            what: "nothing was mapped",
            at: window.start.0,
        }
        .into());
    };
    in_two_halves(
        &findings,
        |cpu| touch(&findings, cpu, start),
        || mapping.unmap_part(0, PAGES).map(drop),
        expect_gone,
    )?;
    mapping.verify_gone()?;
    Ok(())
}

pub fn read_only_is_seen(ctx: &Context) -> TestResult {
    ctx.needs_other_cpus()?;
    with_pages(ctx, PAGES, |mapping| {
        mapping.verify()?;
        let start = mapping.va.0 as usize;
        let findings = Findings::new();
        in_two_halves(
            &findings,
            |cpu| {
                for page in 0..PAGES {
                    let at = start + (page * PAGE) as usize + 8 * (cpu + 1);
                    // SAFETY: the frame is the test's; each CPU has a word of its own.
                    match unsafe { probe_write(at, value(page)) } {
                        Ok(()) if read(at) == value(page) => {}
                        Ok(()) => findings.report(cpu, WRONG_DATA),
                        Err(_) => findings.report(cpu, FAULTED),
                    }
                }
            },
            || mapping.protect_part(0, PAGES, Attributes::read_only).map(drop),
            |cpu| {
                for page in 0..PAGES {
                    let at = start + (page * PAGE) as usize + 8 * (cpu + 1);
                    // SAFETY: as above.
                    match unsafe { probe_write(at, !value(page)) } {
                        Ok(()) => findings.report(cpu, STILL_WRITABLE),
                        Err(fault) if fault.permission_level() != Some(3) => {
                            findings.report(cpu, WRONG_FAULT)
                        }
                        Err(_) => {}
                    }
                    if probe_read(at) != Ok(value(page)) {
                        findings.report(cpu, WRONG_DATA);
                    }
                }
            },
        )?;
        Ok(())
    })
}

pub fn all_allocate_at_once(ctx: &Context) -> TestResult {
    const ROUNDS: u64 = 60;
    ctx.needs_other_cpus()?;
    let findings = Findings::new();
    let seed = ctx.rng().u64(..);
    smp::on_each_cpu(|cpu| {
        let mut rng = fastrand::Rng::with_seed(seed ^ cpu as u64);
        for round in 0..ROUNDS {
            let Ok(area) = mm::vmalloc(rng.u64(1..=40 * PAGE)) else {
                findings.report(cpu, LATE);
                return;
            };
            let range = area.range();
            let words = (range.start.0..range.end().0).step_by(PAGE as usize);
            let stamp = |at: u64| at ^ round << 48 ^ (cpu as u64) << 40;
            words.clone().for_each(|at| write(at as usize, stamp(at)));
            if words.clone().any(|at| read(at as usize) != stamp(at)) {
                findings.report(cpu, WRONG_DATA);
            }
        }
    });
    findings.check()?;
    Ok(())
}

pub fn all_are_short_of_frames(ctx: &Context) -> TestResult {
    const ROUNDS: u64 = 200;
    const WANTED: usize = 32;
    ctx.needs_other_cpus()?;
    let findings = Findings::new();
    let nr_had = AtomicU64::new(0);
    let mut all = AllFrames::take();
    all.free((WANTED / 2 * smp::nr_online()) as u64);
    smp::on_each_cpu(|cpu| {
        for round in 0..ROUNDS {
            let had: ArrayVec<Pfn, WANTED> = (0..WANTED).map_while(|_| frames::allocate(0)).collect();
            let word = |frame: &Pfn| mm::linear_va(frame.0 * PAGE);
            let stamp = |frame: &Pfn| frame.0 << 24 | round << 8 | cpu as u64;
            had.iter().for_each(|frame| write(word(frame), stamp(frame)));
            relax();
            if had.iter().any(|frame| read(word(frame)) != stamp(frame)) {
                findings.report(cpu, WRONG_DATA);
            }
            nr_had.fetch_add(had.len() as u64, Ordering::Relaxed);
            had.into_iter().for_each(|frame| frames::free(frame, 0));
        }
    });
    drop(all);
    findings.check()?;
    let nr_had = nr_had.into_inner();
    expect("a frame was had in each round", nr_had, nr_had >= ROUNDS)?;
    Ok(())
}

pub fn parts_of_one_block_go_at_once(ctx: &Context) -> TestResult {
    const ROUNDS: u64 = 24;
    const PART: u64 = 3;
    ctx.needs_other_cpus()?;
    let block = Block::allocate(ctx, BLOCK_ORDER)?;
    let size = block.pages() * PAGE;
    let frames: Vec<Pfn> = (0..block.pages()).map(|page| Pfn(block.first.0 + page)).collect();
    let nr = smp::nr_online() as u64;
    let stride = block.pages() / nr;
    let is_gone = |page: u64| page / stride < nr && page % stride < PART;
    for _ in 0..ROUNDS {
        let area = kernel_vmalloc().get_vm_area(size, size)?;
        let mapped = area.map_pages(0, &frames[..], Attributes::KERNEL_DATA)?;
        expect_value("one block", u64::from(mapped.leaves.get(LeafSize::BLOCK2)), 1)?;
        let meeting = Meeting::of(smp::nr_online());
        let findings = Findings::new();
        let place = AtomicU64::new(0);
        smp::on_each_cpu(|cpu| {
            let first = place.fetch_add(1, Ordering::Relaxed) * stride;
            if !meeting.wait() || area.unmap_pages(first * PAGE, PART * PAGE).is_err() {
                findings.report(cpu, LATE);
            }
        });
        findings.check()?;
        for (page, frame) in (0..).zip(&frames) {
            let va = area.range().start.add(page * PAGE);
            let there = at_s1e1r(va.0 as usize).ok().map(|found| found.pa);
            let expected = (!is_gone(page)).then_some(frame.0 * PAGE);
            expect("only the parts are gone", va.0, there == expected)?;
        }
    }
    Ok(())
}

pub fn a_slow_waker_hands_over_its_job(ctx: &Context) -> TestResult {
    const ROUNDS: u64 = 8;
    const OFF_BY_THEN: Duration = Duration::from_millis(500);
    let other = ctx.another_cpu()?;
    if !smp::turns_off(other) {
        return Err(Stop::Skip("no firmware turns the CPUs off and on"));
    }
    let mut woken = 0;
    let before = smp::nr_turned_on(other);
    for round in 0..ROUNDS {
        woken += u64::from(Deadline::after(OFF_BY_THEN).wait_until(|| smp::is_turned_off(other)));
        let keep_away = || Deadline::after(2 * smp::LINGER).wait();
        let answer = smp::run_on_woken(other, keep_away, || round + 1);
        expect(
            "the job's answer comes back",
            round,
            matches!(answer, Ok(found) if found == round + 1),
        )?;
    }
    expect("a CPU without work turns itself off", other as u64, woken > 0)?;
    let turned_on = smp::nr_turned_on(other) - before;
    expect(
        "a CPU is turned on once for a job",
        turned_on,
        turned_on <= ROUNDS,
    )?;
    Ok(())
}

fn cut_and_fold(mapping: &Mapping<'_>, rounds: u64) -> Result<u64, Failure> {
    for round in 0..rounds {
        let mut batch = mapping.tree.batch();
        mapping.tree.split(mapping.part(round * 7 + 1, 3), &mut batch)?;
        batch.flush();
        let mut batch = mapping.tree.batch();
        mapping.tree.coalesce(mapping.range(), &mut batch)?;
        batch.flush();
    }
    Ok(rounds)
}

pub fn reads_go_on_while_blocks_are_cut(ctx: &Context) -> TestResult {
    const ROUNDS: u64 = 20;
    let nr_others = ctx.needs_other_cpus()?;
    let block = Block::allocate(ctx, BLOCK_ORDER)?;
    let window = Window::reserve(BLOCK_SIZE, BLOCK_SIZE, 0)?;
    let source = Source::Range {
        start: block.start(),
        pages: BLOCK,
        walker: Walker::Range,
    };
    let mapping = Mapping::map(ctx, window.start, &source, Attributes::KERNEL_DATA, ctx.owned())?;
    let start = mapping.va.0 as usize;
    for page in 0..BLOCK {
        write(start + (page * PAGE) as usize, value(page));
    }
    let findings = Findings::new();
    let (ready, done) = (Meeting::of(nr_others + 1), AtomicU32::new(0));
    let work = IrqSpinLock::new("work", Ok(0u64));
    let first = cpu_index();
    let mapping_of_first = IrqSpinLock::new("mapping", Some(&mapping));
    smp::on_each_cpu(|cpu| {
        if !ready.wait() {
            findings.report(cpu, LATE);
        }
        if cpu == first {
            // A lock would mask interrupts.
            let mapping = mapping_of_first.lock().take();
            let result = mapping.map_or(Ok(0), |mapping| cut_and_fold(mapping, ROUNDS));
            *work.lock() = result;
            done.store(1, Ordering::Release);
        } else {
            let mut page = 13 * cpu as u64;
            while done.load(Ordering::Acquire) == 0 {
                page = (page * 5 + 7) % BLOCK;
                if read(start + (page * PAGE) as usize) != value(page) {
                    findings.report(cpu, WRONG_DATA);
                }
                // In turn, each TLBI of the first waits for this CPU's slice to end.
                relax();
            }
        }
    });
    let rounds = work.lock().clone();
    expect_value("rounds of cutting and folding", rounds?, ROUNDS)?;
    findings.check()?;
    mapping.verify_and_unmap()?;
    Ok(())
}
