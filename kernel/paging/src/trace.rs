//! Hook points for a debugger, with the feature `trace`: the engine calls a function of `hook` when
//! it enters a table, chooses a leaf, and after each store, TLBI and barrier. Not traced: `map`'s
//! check that a range is vacant, and plain reads.

use crate::addr::{Pfn, PhysAddr, VirtAddr, VirtRange};
use crate::forward_mmu;
use crate::granule::{Granule, LAST_LEVEL};
use crate::leaf::Leaves;
use crate::mmu::{Mmu, MmuEvent};
use crate::outcome::{LeafSet, LeafSize};
use crate::source::output;
use crate::tables::{Groups, Tables, forward_unwritten};
use crate::tree::Node;

#[inline(always)]
fn traced(call_hooks: impl FnOnce()) {
    #[cfg(feature = "trace")]
    call_hooks();
    #[cfg(not(feature = "trace"))]
    let _ = call_hooks;
}

macro_rules! hooks {
    ($($(#[$doc:meta])* $name:ident($($arg:ident),*);)*) => {
        /// Names and arguments are stable: numbers in the C calling convention, X0 to X6 at the
        /// first instruction.
        pub mod hook {$(
            $(#[$doc])*
            #[inline(never)]
            pub extern "C" fn $name($($arg: u64),*) {
                // The name keeps equal functions from being merged.
                core::hint::black_box((stringify!($name), $($arg),*));
            }
        )*}

        $(#[inline]
        fn $name($($arg: u64),*) {
            let hook: extern "C" fn($($arg: u64),*) = hook::$name;
            traced(|| core::hint::black_box(hook)($($arg),*));
        })*
    };
}

hooks! {
    /// An operation entered the table at physical address `table`, of `level`, at descriptor
    /// `index`, with `size` bytes of its range left from `va` on.
    level_entered(level, table, index, va, size);
    /// A leaf is about to be written. `run`: physically consecutive bytes known from `pa` on, 0
    /// where the place forbids a larger leaf; `remaining`: bytes of the range from `va` on;
    /// `allowed`: sizes, bit `2 * level + contiguous`.
    leaf_chosen(level, contiguous, va, pa, run, remaining, allowed);
    /// `nr` descriptors from `index` on of the table at physical address `table` were written.
    /// `kind` 0: `first`. 1: `first`, `first + step`, and so on. 2: any outputs, that of the
    /// first in `first`, common bits in `step`. 3: cleared. 4: `step` was exchanged for `first`.
    descriptors_stored(kind, table, index, nr, first, step);
    /// A TLBI was issued. `kind` 0: VAALE1IS, 1: VAAE1IS, 2: RVAALE1IS, 3: RVAAE1IS, 4:
    /// VMALLE1IS. `pages` from `va` on are covered; `scale` and `num` are the range operand's.
    tlbi_issued(kind, va, pages, scale, num);
    /// A barrier was issued. `kind` 0: DSB ISHST, 1: DSB ISH, 2: ISB.
    barrier_issued(kind);
}

#[inline]
pub(crate) fn level<G: Granule>(node: Node, range: VirtRange) {
    let VirtRange { start, size } = range;
    let index = G::index(start.0, node.level) as u64;
    level_entered(node.level as u64, node.table.0, index, start.0, size);
}

/// The range of an operation, and the leaves that it may write.
type Within = (VirtRange, LeafSet);

fn leaf(size: LeafSize, va: VirtAddr, pa: PhysAddr, run: u64, (range, allowed): Within) {
    let (level, contiguous) = (size.level() as u64, size.is_contiguous().into());
    let remaining = range.end().offset_from(va);
    leaf_chosen(level, contiguous, va.0, pa.0, run, remaining, allowed.0.into());
}

#[inline]
pub(crate) fn leaves<G: Granule>(va: VirtAddr, pa: PhysAddr, leaves: Leaves, within: Within) {
    traced(|| {
        let Leaves {
            level, head, grouped, ..
        } = leaves;
        let (mut done, size) = (0, leaves.bytes::<G>());
        while done < size {
            let index = (done >> G::shift(level)) as usize;
            let chosen = LeafSize::new(level, (head..head + grouped).contains(&index));
            leaf(chosen, va.add(done), pa.add(done), size - done, within);
            done += chosen.bytes::<G>();
        }
    });
}

/// Of the `groups` that `frames` begin with, or of pages.
#[inline]
pub(crate) fn frames<G: Granule>(va: VirtAddr, frames: &[Pfn], groups: Option<Groups>, within: Within) {
    traced(|| {
        let (size, run, frames) = match groups {
            Some(groups) => (LeafSize::PAGE_GROUP, G::cont_size(LAST_LEVEL), groups.of(frames)),
            None => (LeafSize::PAGE, 0, frames),
        };
        for (chunk, i) in frames.chunks(size.descriptors::<G>()).zip(0..) {
            let at = va.add(i * size.bytes::<G>());
            leaf(size, at, output::<G>(chunk[0].0), run, within);
        }
    });
}

/// `T`, followed by the hooks.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Hooked<T>(pub(crate) T);

// SAFETY: forwards to `T`, which keeps the promises.
#[deny(clippy::missing_trait_methods)]
unsafe impl<T: Tables> Tables for Hooked<T> {
    forward_unwritten!(self => self.0);

    #[inline]
    fn store(&self, table: PhysAddr, index: usize, value: u64) {
        self.0.store(table, index, value);
        descriptors_stored(0, table.0, index as u64, 1, value, 0);
    }
    #[inline]
    fn compare_exchange(&self, table: PhysAddr, index: usize, current: u64, new: u64) -> Result<(), u64> {
        self.0.compare_exchange(table, index, current, new)?;
        descriptors_stored(4, table.0, index as u64, 1, new, current);
        Ok(())
    }
    #[inline]
    fn fill_linear(&self, table: PhysAddr, index: usize, nr: usize, first: u64, step: u64) {
        self.0.fill_linear(table, index, nr, first, step);
        descriptors_stored(1, table.0, index as u64, nr as u64, first, step);
    }
    #[inline]
    fn fill_frames(&self, table: PhysAddr, index: usize, frames: &[Pfn], page_shift: u32, template: u64) {
        self.0.fill_frames(table, index, frames, page_shift, template);
        stored_frames(table, index, frames, page_shift, template);
    }
    #[inline]
    fn fill_groups(
        &self,
        table: PhysAddr,
        index: usize,
        frames: &[Pfn],
        groups: Groups,
        template: u64,
    ) -> usize {
        let nr = self.0.fill_groups(table, index, frames, groups, template);
        traced(|| stored_frames(table, index, &frames[..nr], groups.page_shift, template));
        nr
    }
    #[inline]
    fn clear(&self, table: PhysAddr, index: usize, nr: usize) {
        self.0.clear(table, index, nr);
        descriptors_stored(3, table.0, index as u64, nr as u64, 0, 0);
    }
}

#[inline]
fn stored_frames(table: PhysAddr, index: usize, frames: &[Pfn], page_shift: u32, template: u64) {
    if let Some(first) = frames.first() {
        let (first, nr) = (first.0 << page_shift, frames.len() as u64);
        descriptors_stored(2, table.0, index as u64, nr, first, template);
    }
}

#[deny(clippy::missing_trait_methods)]
impl<M: Mmu> Mmu for Hooked<M> {
    forward_mmu!(self => self.0, Self::around);
}

impl<M> Hooked<M> {
    #[inline]
    fn around(&self, event: MmuEvent, issue: impl FnOnce()) {
        issue();
        let (kind, va, pages, scale, num) = match event {
            MmuEvent::DsbIshst => return barrier_issued(0),
            MmuEvent::DsbIsh => return barrier_issued(1),
            MmuEvent::Isb => return barrier_issued(2),
            MmuEvent::TlbiLastLevel(va) => (0, va, 1, 0, 0),
            MmuEvent::TlbiAllLevels(va) => (1, va, 1, 0, 0),
            MmuEvent::TlbiRangeLastLevel(op) => (2, op.start, op.pages(), op.scale, op.num),
            MmuEvent::TlbiRangeAllLevels(op) => (3, op.start, op.pages(), op.scale, op.num),
            MmuEvent::TlbiAll => (4, VirtAddr(0), 0, 0, 0),
        };
        tlbi_issued(kind, va.0, pages, scale.into(), num.into());
    }
}
