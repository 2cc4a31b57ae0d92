use core::sync::atomic::{AtomicU64, Ordering};

use kernel::arch::percpu::{self, block_size, cpu_index, nr_cpus, this_cpu};
use kernel::drivers::console;
use kernel::mm::layout::{PAGE_SIZE, PER_CPU_WINDOW, PER_CPU_WINDOW_SIZE};
use kernel::mm::{self, areas, frames, heap, per_cpu};
use kernel::smp;

use crate::selftest::context::Context;
use crate::selftest::failure::{TestResult, expect, expect_value};

kernel::per_cpu! {
    /// Plus one.
    static WRITTEN_BY: AtomicU64 = AtomicU64::new(0);
}

pub fn each_has_its_own(_ctx: &Context) -> TestResult {
    let elsewhere = AtomicU64::new(0);
    smp::on_each_cpu(|cpu| {
        WRITTEN_BY.this().store(cpu as u64 + 1, Ordering::Relaxed);
        let block = &raw const *this_cpu() as usize;
        let stack = this_cpu().overflow_stack();
        if cpu != cpu_index() || stack.start < block || stack.end > block + block_size() {
            elsewhere.fetch_add(1, Ordering::Relaxed);
        }
    });
    expect_value(
        "CPUs whose block is another's",
        elsewhere.load(Ordering::Relaxed),
        0,
    )?;
    for cpu in 0..nr_cpus() {
        let expected = if smp::is_online(cpu) { cpu as u64 + 1 } else { 0 };
        let written = WRITTEN_BY.of(cpu).swap(0, Ordering::Relaxed);
        expect_value("the CPU that wrote a variable of its own", written, expected)?;
    }
    Ok(())
}

pub fn memory_follows_the_machine(_ctx: &Context) -> TestResult {
    let others = kernel::machine().other_cpus().count();
    expect_value("CPUs with a number", nr_cpus() as u64, 1 + others as u64)?;
    let size = others * block_size();
    let taken = per_cpu::memory().map_or(0, |memory| memory.blocks.size());
    expect_value("bytes of blocks", taken, size as u64)?;
    for page in (PER_CPU_WINDOW..PER_CPU_WINDOW + size).step_by(PAGE_SIZE) {
        let mapped = mm::translate(page).map(|pa| pa.0);
        expect(
            "a page of a block is not where it was taken",
            page as u64,
            mapped == Some(per_cpu::pa(page)),
        )?;
    }
    let room = PER_CPU_WINDOW_SIZE / percpu::MAX_CPUS;
    expect(
        "a block is too large for the most CPUs",
        block_size() as u64,
        block_size() <= room,
    )?;
    let behind = PER_CPU_WINDOW + size;
    expect(
        "something is mapped behind the last block",
        behind as u64,
        mm::translate(behind).is_none(),
    )?;
    Ok(())
}

pub fn hot_words_have_their_own_lines(_ctx: &Context) -> TestResult {
    let words = mm::hot_words()
        .into_iter()
        .chain(areas::hot_words())
        .chain(frames::hot_words())
        .chain(heap::hot_words())
        .chain(console::hot_words());
    for word in words {
        expect(word.name, word.start as u64, word.has_lines_of_its_own())?;
    }
    Ok(())
}
