//! What TLBs are owed: each entry that an operation removes or changes (DESIGN rule 4), until a
//! TLBI that covers it and the DSB behind. It is owed from just before the operation, so another
//! CPU's flush of everything may pay it early.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering};

use kernel::arch::percpu::{cpu_index, nr_cpus};
use kernel::layout;
use kernel::smp;
use kernel::sync::IrqSpinLock;
use paging::mmu::MmuEvent;
use paging::{LeafSize, Mmu, TlbiRange, VirtAddr, VirtRange, forward_mmu};

use super::fault_injection::TestMmu;
use super::source::{BLOCK as PAGES_OF_BLOCK, PAGE};
use crate::options::Planted;

const BLOCK: u64 = PAGES_OF_BLOCK * PAGE;

/// Above the engine's threshold for a TLBI of all.
const MOST_ISSUED: usize = 600;

struct Bits(Box<[AtomicU64]>);

impl Bits {
    fn new(nr: u64) -> Self {
        Self(
            (0..nr.div_ceil(64))
                .map(|_| AtomicU64::new(0))
                .collect::<Vec<_>>()
                .into_boxed_slice(),
        )
    }

    fn set(&self, bit: u64) {
        self.0[(bit / 64) as usize].fetch_or(1 << (bit % 64), Ordering::AcqRel);
    }

    fn has(&self, bit: u64) -> bool {
        self.0[(bit / 64) as usize].load(Ordering::Acquire) >> (bit % 64) & 1 != 0
    }

    /// Returns how many were set.
    fn clear(&self, first: u64, end: u64) -> u64 {
        let mut cleared = 0;
        let mut bit = first;
        while bit < end {
            let upto = end.min((bit / 64 + 1) * 64);
            let mask = (u64::MAX >> (64 - (upto - bit))) << (bit % 64);
            let word = &self.0[(bit / 64) as usize];
            if word.load(Ordering::Acquire) & mask != 0 {
                cleared += u64::from((word.fetch_and(!mask, Ordering::AcqRel) & mask).count_ones());
            }
            bit = upto;
        }
        cleared
    }

    fn first(&self) -> Option<u64> {
        (0..self.0.len() as u64 * 64).find(|bit| self.has(*bit))
    }
}

pub struct Ledger {
    range: VirtRange,
    pages: Bits,
    blocks: Bits,
    /// Since its last DSB ISH.
    issued: Vec<IrqSpinLock<Vec<VirtRange>>>,
    idle: AtomicU64,
    paid: AtomicU64,
}

impl Ledger {
    #[must_use]
    pub fn new(range: VirtRange) -> Self {
        Self {
            range,
            pages: Bits::new(range.size / PAGE),
            blocks: Bits::new(range.size.div_ceil(BLOCK)),
            // Where TLBIs are issued nothing may be allocated.
            issued: (0..nr_cpus())
                .map(|cpu| {
                    let most = if smp::is_online(cpu) { MOST_ISSUED } else { 0 };
                    IrqSpinLock::new("ledger", Vec::with_capacity(most))
                })
                .collect(),
            idle: AtomicU64::new(0),
            paid: AtomicU64::new(0),
        }
    }

    fn page(&self, va: VirtAddr) -> u64 {
        va.offset_from(self.range.start) / PAGE
    }

    /// Notes the entries of a leaf, before it is removed or changed.
    pub fn owe(&self, va: VirtAddr, size: LeafSize) {
        let page = self.page(va);
        let (bits, first, nr) = match size {
            LeafSize::PAGE | LeafSize::PAGE_GROUP => {
                (&self.pages, page, size.bytes::<layout::Granule>() / PAGE)
            }
            _ => (
                &self.blocks,
                page / PAGES_OF_BLOCK,
                size.bytes::<layout::Granule>() / BLOCK,
            ),
        };
        (first..first + nr).for_each(|bit| bits.set(bit));
    }

    /// Returns whether a TLB may still hold the page as it was.
    #[must_use]
    pub fn owes(&self, va: VirtAddr) -> bool {
        self.range.contains(va) && {
            let page = self.page(va);
            self.pages.has(page) || self.blocks.has(page / PAGES_OF_BLOCK)
        }
    }

    #[must_use]
    pub fn first_debt(&self) -> Option<VirtAddr> {
        let page = self.pages.first();
        let block = self.blocks.first().map(|block| block * PAGES_OF_BLOCK);
        let first = page.into_iter().chain(block).min()?;
        Some(self.range.start.add(first * PAGE))
    }

    /// Returns the TLBIs at the last level that covered nothing owed.
    #[must_use]
    pub fn idle(&self) -> u64 {
        self.idle.load(Ordering::Relaxed)
    }

    #[must_use]
    pub fn nr_paid(&self) -> u64 {
        self.paid.load(Ordering::Relaxed)
    }

    fn issue(&self, range: VirtRange, last_level: bool) {
        if last_level && !self.is_owed(range) {
            self.idle.fetch_add(1, Ordering::Relaxed);
        }
        let mut issued = self.issued[cpu_index()].lock();
        // What does not fit stays owed, and is found.
        if issued.len() < issued.capacity() {
            issued.push(range);
        }
    }

    fn complete(&self) {
        let mut issued = self.issued[cpu_index()].lock();
        for range in issued.drain(..) {
            if let Some((first, end)) = self.pages_of(range) {
                let blocks = (first / PAGES_OF_BLOCK, end.div_ceil(PAGES_OF_BLOCK));
                let paid = self.pages.clear(first, end) + self.blocks.clear(blocks.0, blocks.1);
                self.paid.fetch_add(paid, Ordering::Relaxed);
            }
        }
    }

    fn is_owed(&self, range: VirtRange) -> bool {
        self.pages_of(range).is_some_and(|(first, end)| {
            (first..end).any(|page| self.pages.has(page) || self.blocks.has(page / PAGES_OF_BLOCK))
        })
    }

    fn pages_of(&self, range: VirtRange) -> Option<(u64, u64)> {
        let start = range.start.max(self.range.start);
        let last = range.last().min(self.range.last());
        (start <= last).then(|| (self.page(start), self.page(last) + 1))
    }
}

impl fmt::Debug for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ledger of {:?}", self.range)
    }
}

#[derive(Debug)]
pub struct LedgerMmu {
    inner: TestMmu,
    ledger: Arc<Ledger>,
    until_missed: Option<AtomicU64>,
}

impl LedgerMmu {
    #[must_use]
    pub fn new(inner: TestMmu, ledger: Arc<Ledger>) -> Self {
        let misses = crate::options().planted == Some(Planted::UncountedTlbi);
        Self {
            inner,
            ledger,
            until_missed: misses.then(|| AtomicU64::new(0)),
        }
    }

    fn enter(&self, range: VirtRange, last_level: bool) {
        let missed = self.until_missed.as_ref();
        if missed.is_none_or(|count| count.fetch_add(1, Ordering::Relaxed) % 4 != 3) {
            self.ledger.issue(range, last_level);
        }
    }

    fn page(va: VirtAddr) -> VirtRange {
        VirtRange::new(va.align_down(PAGE), PAGE)
    }

    fn pages(range: TlbiRange) -> VirtRange {
        VirtRange::new(range.start, range.pages() * PAGE)
    }

    fn around(&self, event: MmuEvent, issue: impl FnOnce()) {
        issue();
        match event {
            MmuEvent::DsbIshst | MmuEvent::Isb => {}
            MmuEvent::DsbIsh => self.ledger.complete(),
            MmuEvent::TlbiLastLevel(va) => self.enter(Self::page(va), true),
            MmuEvent::TlbiAllLevels(va) => self.enter(Self::page(va), false),
            MmuEvent::TlbiRangeLastLevel(range) => self.enter(Self::pages(range), true),
            MmuEvent::TlbiRangeAllLevels(range) => self.enter(Self::pages(range), false),
            MmuEvent::TlbiAll => self.enter(self.ledger.range, true),
        }
    }
}

#[deny(clippy::missing_trait_methods)]
impl Mmu for LedgerMmu {
    forward_mmu!(self => self.inner, Self::around);
}
