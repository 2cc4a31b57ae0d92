use kernel::layout;
use kernel::mm::areas::{kernel_vmalloc, nr_node_frames};
use kernel::mm::layout::PAGE_SIZE;
use kernel::mm::{frames, heap, tables};
use kernel::println;
use kernel::smp;
use paging::DisplaySize;

use super::Shell;
use super::refusal::Refusal;
use crate::selftest::audit;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct InUse {
    frames: u64,
    tables: u64,
    areas: u64,
    pages: u64,
    heap: u64,
}

impl InUse {
    /// Lazy ranges count; frames of bookkeeping, never freed, do not.
    pub fn now() -> Self {
        let usage = kernel_vmalloc().usage();
        Self {
            frames: frames::stats().used() - nr_node_frames(),
            tables: tables::nr_tables(),
            areas: usage.areas as u64,
            pages: usage.pages,
            heap: heap::stats().used as u64,
        }
    }
}

pub fn stat<'a>(shell: &mut Shell, _: &[&'a str]) -> Result<(), Refusal<'a>> {
    let frames = frames::stats();
    let usage = kernel_vmalloc().usage();
    let heap = heap::stats();
    let size_of = |pages: u64| DisplaySize(pages * PAGE_SIZE as u64);
    println!(
        "frames   {} in all, {} free ({} of them with CPUs)",
        frames.total, frames.free, frames.cached
    );
    println!(
        "vmalloc  {} areas of {}; lazy {} of {}; kept for reuse {} of {}",
        usage.areas,
        size_of(usage.pages),
        usage.lazy.0,
        size_of(usage.lazy.1),
        usage.cached.0,
        size_of(usage.cached.1)
    );
    println!("heap     {} bytes of {} in use", heap.used, heap.size);
    println!("CPUs     {}", smp::nr_online());
    println!("shell    {} areas", shell.held.nr());
    let census = kernel_vmalloc().check().map_err(Refusal::Addresses)?;
    println!(
        "space    sound: {} areas, {} gaps",
        census.live + census.retired + census.parked,
        census.gaps
    );
    match audit::audit(shell.info) {
        Ok(audit) => println!(
            "tree     sound: {} tables, {} of them empty, {} unlinked, {}",
            audit.report.tables,
            audit.report.empty_tables,
            audit::unlinked_tables(&audit),
            audit.report.leaves.display::<layout::Granule>()
        ),
        Err(error) => return Err(Refusal::Unsound(error)),
    }
    let (now, before) = (InUse::now(), shell.before);
    let change = |now: u64, before: u64| now.wrapping_sub(before).cast_signed();
    println!(
        "since the shell began: frames {:+} tables {:+} areas {:+} pages {:+} heap {:+}",
        change(now.frames, before.frames),
        change(now.tables, before.tables),
        change(now.areas, before.areas),
        change(now.pages, before.pages),
        change(now.heap, before.heap)
    );
    Ok(())
}

pub fn purge<'a>(_: &mut Shell, _: &[&'a str]) -> Result<(), Refusal<'a>> {
    let before = kernel_vmalloc().usage().lazy;
    heap::trim();
    kernel_vmalloc().vm_unmap_aliases();
    let after = kernel_vmalloc().usage().lazy;
    println!(
        "{} areas of {} were lazy, {} are",
        before.0,
        DisplaySize(before.1 * PAGE_SIZE as u64),
        after.0
    );
    Ok(())
}
