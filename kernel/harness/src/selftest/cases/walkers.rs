//! Every walker of [`for_each_walker!`] that `bench.walkers=` selects. An entry of its own tree is
//! linked into the live root, and the TLB is probed for what it unmapped.

use alloc::vec::Vec;

use kernel::arch::mmu::KernelMmu;
use kernel::layout::{self, VMALLOC_BASE, VMALLOC_END};
use kernel::mm;
use kernel::mm::tables::KernelTables;
use paging::reference::{Context as Walk, Error, Walker};
use paging::{
    Attributes, Descriptor, Granule as _, Level, LevelMask, Mmu, Pfn, PhysAddr, Tables, VirtAddr,
    for_each_walker,
};

use crate::options::Planted;
use crate::selftest::context::Context;
use crate::selftest::failure::{Failure, Stop, TestResult, expect, expect_value};
use crate::selftest::ktap::Report;
use crate::selftest::memory::{Block, Chunks};
use crate::selftest::source::{GROUP, PAGE};
use crate::selftest::verify::{Expected, verify_pages};
use crate::wrong_walkers::LastIsFirst;

/// Fewer bits of address than 48.
const FEWER: bool = layout::Granule::VA_BITS < 48;
/// Under one entry of a table of [`LEVEL`], unused by the kernel.
const BASE: VirtAddr = VirtAddr(if FEWER {
    (VMALLOC_END + (VMALLOC_END - VMALLOC_BASE) / 2) as u64
} else {
    0xffff_e000_0000_0000
});
/// A root of few entries has something in each.
const LEVEL: Level = match layout::PAGE_SHIFT {
    _ if FEWER => layout::Granule::ROOT_LEVEL,
    12 => 0,
    _ => 1,
};

fn slot(root: PhysAddr) -> Result<(PhysAddr, usize), Failure> {
    let (mut table, mut level) = (root, layout::Granule::ROOT_LEVEL);
    while level != LEVEL {
        let link = Descriptor(KernelTables.load(table, layout::Granule::index(BASE.0, level)));
        expect("a table above the walker's", table.0, link.is_table(level))?;
        table = link.address::<layout::Granule>();
        level += 1;
    }
    Ok((table, layout::Granule::index(BASE.0, LEVEL)))
}
/// So that the linked table stays.
const KEPT: VirtAddr = BASE.add(if FEWER { 256 << 20 } else { 32 << 30 });

type KernelWalk<'a> = Walk<'a, layout::Granule, KernelTables, KernelMmu>;
trait KernelWalker: Walker<layout::Granule, KernelTables, KernelMmu> {}
impl<W: Walker<layout::Granule, KernelTables, KernelMmu>> KernelWalker for W {}

struct Grafted<'a> {
    slot: (PhysAddr, usize),
    mmu: &'a KernelMmu,
}

impl<'a> Grafted<'a> {
    fn new(walk: &KernelWalk<'a>) -> Result<Self, Failure> {
        let (table, index) = slot(mm::kernel_tree().root())?;
        let found = KernelTables.load(table, index);
        expect_value("entry of the live tree where nothing is", found, 0)?;
        let (own, index) = slot(walk.root)?;
        KernelTables.store(table, index, KernelTables.load(own, index));
        walk.mmu.dsb_ishst();
        walk.mmu.isb();
        Ok(Self {
            slot: (table, index),
            mmu: walk.mmu,
        })
    }
}

impl Drop for Grafted<'_> {
    fn drop(&mut self) {
        KernelTables.store(self.slot.0, self.slot.1, 0);
        // All levels: walk caches hold what was below (DESIGN rule 5).
        self.mmu.dsb_ishst();
        self.mmu.tlbi_vmalle1is();
        self.mmu.dsb_ish();
        self.mmu.isb();
    }
}

enum Source<'a> {
    Range(PhysAddr, u64),
    Pages(&'a [Pfn]),
    Chunks(&'a [Pfn], u32),
}

impl Source<'_> {
    fn pages(&self) -> u64 {
        match self {
            Self::Range(_, pages) => *pages,
            Self::Pages(frames) | Self::Chunks(frames, _) => frames.len() as u64,
        }
    }

    fn pa(&self, page: u64) -> PhysAddr {
        match self {
            Self::Range(start, _) => start.add(page * PAGE),
            Self::Pages(frames) | Self::Chunks(frames, _) => PhysAddr(frames[page as usize].0 * PAGE),
        }
    }

    fn map(
        &self,
        walker: &impl KernelWalker,
        walk: &KernelWalk<'_>,
        va: VirtAddr,
    ) -> Result<LevelMask, Error> {
        let data = Attributes::KERNEL_DATA;
        match self {
            Self::Range(start, pages) => walker.map_range(walk, va, *start, pages * PAGE, data),
            Self::Pages(frames) => walker.map_pages(walk, va, *frames, data),
            Self::Chunks(frames, shift) => walker.map_chunks(walk, va, *frames, *shift, data),
        }
    }
}

pub fn registered(ctx: &Context) -> TestResult {
    ctx.needs_groups()?;
    let mut nr = 0;
    for_each_walker!(|walker| {
        nr += u32::from(run(ctx, &walker)?);
    });
    if nr == 0 {
        return Err(Stop::Skip("bench.walkers= selects no registered walker"));
    }
    if ctx.planted == Some(Planted::WrongWalker) {
        run(ctx, &LastIsFirst)?;
    }
    Ok(())
}

fn run<W: KernelWalker>(ctx: &Context, walker: &W) -> Result<bool, Failure> {
    if !crate::glob::matches(crate::options().bench_walkers, W::NAME) {
        return Ok(false);
    }
    let mmu = *mm::kernel_tree().mmu();
    let walk = Walk::new(&KernelTables, &mmu).ok_or(Failure::NoFrames(0))?;
    let result = on_tree(ctx, walker, &walk);
    walk.release();
    if result.is_err() {
        Report::say(format_args!("walker {}:", W::NAME));
    }
    result.map(|()| true)
}

fn on_tree<W: KernelWalker>(ctx: &Context, walker: &W, walk: &KernelWalk<'_>) -> Result<(), Failure> {
    let kept = Block::allocate(ctx, 0)?;
    let data = Attributes::KERNEL_DATA;
    let made = walker.map_range(walk, KEPT, kept.start(), PAGE, data);
    expect("a walker refuses to map a page", KEPT.0, made.is_ok())?;
    let grafted = Grafted::new(walk)?;

    let block = Block::allocate(ctx, 10)?;
    let mixed = Chunks::allocate(ctx, &[0, 4, 8, 9, 0, 5, 7, 1])?;
    let even = Chunks::allocate(ctx, &[GROUP.ilog2() as u8; 640 / GROUP as usize])?;
    let scattered = Chunks::allocate(ctx, &[0; 70])?;
    let (mixed, even, scattered) = (mixed.frames(), even.frames(), scattered.frames());
    let one_by_one: Vec<Pfn> = mixed.iter().rev().copied().collect();
    let sources = [
        Source::Range(block.start(), 1),
        Source::Range(block.start(), block.pages()),
        Source::Range(block.start().add(5 * PAGE), block.pages() - 9),
        Source::Pages(&mixed),
        Source::Pages(&one_by_one),
        Source::Pages(&scattered),
        Source::Chunks(&even, (GROUP * PAGE).ilog2()),
        Source::Chunks(&mixed, layout::PAGE_SHIFT),
    ];
    for source in &sources {
        for offset in [0, 5 * PAGE, 16 * PAGE, 507 * PAGE] {
            maps_and_unmaps(ctx, walker, walk, BASE.add(offset), source)?;
        }
    }
    drop(grafted);
    let gone = walker.unmap(walk, KEPT, PAGE);
    expect("a walker refuses to unmap a page", KEPT.0, gone.is_ok())
}

fn maps_and_unmaps<W: KernelWalker>(
    ctx: &Context,
    walker: &W,
    walk: &KernelWalk<'_>,
    va: VirtAddr,
    source: &Source<'_>,
) -> Result<(), Failure> {
    let (tree, pages) = (ctx.tree(), source.pages());
    let mapped = source.map(walker, walk, va);
    expect("a walker refuses to map", va.0, mapped.is_ok())?;
    let expected = |page| {
        Some(Expected {
            pa: source.pa(page),
            attributes: Attributes::KERNEL_DATA,
        })
    };
    verify_pages(&tree, va, pages, expected, ctx.owned())?;
    let unmapped = walker.unmap(walk, va, pages * PAGE);
    expect("a walker refuses to unmap", va.0, unmapped.is_ok())?;
    verify_pages(&tree, va, pages, |_| None, ctx.owned())
}
