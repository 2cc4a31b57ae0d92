//! A CPU faults on a page between another's break and make (DESIGN rule 3).

use core::sync::atomic::{AtomicU32, Ordering};
use core::time::Duration;

use kernel::arch::exceptions::BreakWindow;
use kernel::arch::percpu::{cpu_index, nr_spurious_faults, nr_window_waits};
use kernel::arch::probe::probe_read;
use kernel::arch::time::{Deadline, relax};
use kernel::smp;

use crate::selftest::context::Context;
use crate::selftest::failure::{TestResult, expect, expect_value};
use crate::selftest::fault_injection::tamper;
use crate::selftest::mapping::{Mapping, with_pages};
use crate::selftest::verify::{read, write};

use super::cpus::{FAULTED, Findings, LATE, Meeting, WRONG_DATA};

const PAGES: u64 = 32;
const WORD: u64 = 0xc0de_0000;

pub fn a_fault_is_retried(ctx: &Context) -> TestResult {
    read_in_breaks(ctx, 1, Duration::ZERO)
}

pub fn a_fault_waits_as_long_as_the_window_is_open(ctx: &Context) -> TestResult {
    read_in_breaks(ctx, 1, Duration::from_millis(1500))
}

pub fn a_polled_word_outlives_many_windows(ctx: &Context) -> TestResult {
    // More than one instruction may retry without a window in between.
    read_in_breaks(ctx, 100, Duration::ZERO)
}

fn with_first_page_broken(mapping: &Mapping<'_>, meanwhile: impl FnOnce()) {
    let (va, root) = (mapping.va, mapping.tree.root());
    let window = BreakWindow::open();
    let mut old = 0;
    // SAFETY: the page is the test's, and comes back below.
    unsafe {
        tamper(root, va, |descriptor| {
            old = descriptor;
            descriptor & !1
        });
    }
    meanwhile();
    // SAFETY: as it was.
    unsafe { tamper(root, va, |_| old) };
    drop(window);
}

/// Each break lasts until the CPU that polls waits in its handler, and for `pause` longer.
fn read_in_breaks(ctx: &Context, windows: u64, pause: Duration) -> TestResult {
    let other = ctx.another_cpu()?;
    with_pages(ctx, PAGES, |mapping| {
        mapping.verify()?;
        let va = mapping.va.0 as usize;
        write(va, WORD);
        let before = nr_spurious_faults();
        let findings = Findings::new();
        let (ready, done) = (Meeting::of(2), AtomicU32::new(0));
        let first = cpu_index();
        smp::on_each_cpu(|cpu| {
            if cpu != first && cpu != other {
                return;
            }
            if !ready.wait() {
                findings.report(cpu, LATE);
            } else if cpu == first {
                for window in 0..windows {
                    let waits = nr_window_waits();
                    with_first_page_broken(mapping, || {
                        while nr_window_waits() == waits {
                            relax();
                        }
                        Deadline::after(pause).wait();
                    });
                    // Or the same fault would wait for the next window too.
                    while nr_spurious_faults() - before == window {
                        relax();
                    }
                }
                done.store(1, Ordering::Release);
            } else {
                while done.load(Ordering::Acquire) == 0 {
                    // No exception table entry: fatal unless it is retried.
                    if read(va) != WORD {
                        findings.report(cpu, WRONG_DATA);
                    }
                    relax();
                }
            }
        });
        findings.check()?;
        expect_value("spurious faults counted", nr_spurious_faults() - before, windows)?;
        mapping.verify()?;
        Ok(())
    })
}

pub fn a_fault_in_its_own_window_is_final(ctx: &Context) -> TestResult {
    with_pages(ctx, PAGES, |mapping| {
        mapping.verify()?;
        let mut found = Ok(0);
        with_first_page_broken(mapping, || found = probe_read(mapping.va.0 as usize));
        let level = found.err().and_then(|fault| fault.translation_level());
        expect("a translation fault at level 3", mapping.va.0, level == Some(3))?;
        mapping.verify()?;
        Ok(())
    })
}

pub fn a_hole_is_reported_beside_a_window(ctx: &Context) -> TestResult {
    const WHILE: Duration = Duration::from_millis(20);
    let other = ctx.another_cpu()?;
    with_pages(ctx, PAGES, |mapping| {
        mapping.verify()?;
        let hole = (mapping.range().end().0) as usize;
        let findings = Findings::new();
        let (broken, closed) = (Meeting::of(2), AtomicU32::new(0));
        let first = cpu_index();
        smp::on_each_cpu(|cpu| {
            if cpu == first {
                with_first_page_broken(mapping, || {
                    if !broken.wait() {
                        findings.report(cpu, LATE);
                    }
                    Deadline::after(WHILE).wait();
                    closed.store(1, Ordering::Release);
                });
            } else if cpu == other {
                if !broken.wait() {
                    findings.report(cpu, LATE);
                }
                let found = probe_read(hole);
                if !found.is_err_and(|fault| fault.translation_level().is_some()) {
                    findings.report(cpu, FAULTED);
                }
                if closed.load(Ordering::Acquire) == 0 {
                    findings.report(cpu, WRONG_DATA);
                }
            }
        });
        findings.check()?;
        Ok(())
    })
}
