//! Hook points for a debugger, with the feature `trace`: the engine calls a function of `hook` when
//! it enters a table, chooses a leaf, and after each store, TLBI and barrier. Not traced: `map`'s
//! check that a range is vacant, and plain reads.

use crate::addr::{Pfn, PhysAddr, VirtAddr, VirtRange};
use crate::granule::Granule;
use crate::leaf::Leaves;
use crate::outcome::LeafSet;
#[cfg(feature = "trace")]
use crate::outcome::LeafSize;
use crate::tables::Groups;
use crate::tree::Node;

/// `T`, behind the hooks if any.
#[cfg(not(feature = "trace"))]
pub type Hooked<T> = T;
#[cfg(feature = "trace")]
pub use enabled::Hooked;

#[inline]
pub(crate) fn hooked<T>(inner: T) -> Hooked<T> {
    #[cfg(feature = "trace")]
    return Hooked(inner);
    #[cfg(not(feature = "trace"))]
    inner
}

#[inline]
pub(crate) fn inner<T>(hooked: &Hooked<T>) -> &T {
    #[cfg(feature = "trace")]
    return &hooked.0;
    #[cfg(not(feature = "trace"))]
    hooked
}

#[inline]
pub(crate) fn level<G: Granule>(node: Node, va: VirtAddr, size: u64) {
    #[cfg(feature = "trace")]
    enabled::call5(
        hook::level_entered,
        [
            node.level as u64,
            node.table.0,
            G::index(va.0, node.level) as u64,
            va.0,
            size,
        ],
    );
    let _ = (G::NAME, node, va, size);
}

#[inline]
pub(crate) fn leaves<G: Granule>(
    va: VirtAddr,
    pa: PhysAddr,
    leaves: Leaves,
    range: VirtRange,
    allowed: LeafSet,
) {
    #[cfg(feature = "trace")]
    enabled::leaves::<G>(va, pa, leaves, range, allowed);
    let _ = (G::NAME, va, pa, leaves, range, allowed);
}

#[inline]
pub(crate) fn frames<G: Granule>(va: VirtAddr, frames: &[Pfn], range: VirtRange, allowed: LeafSet) {
    #[cfg(feature = "trace")]
    enabled::frames::<G>(va, frames, LeafSize::PAGE, range, allowed);
    let _ = (G::NAME, va, frames, range, allowed);
}

#[inline]
pub(crate) fn groups<G: Granule>(
    va: VirtAddr,
    frames: &[Pfn],
    groups: Groups,
    range: VirtRange,
    allowed: LeafSet,
) {
    #[cfg(feature = "trace")]
    enabled::frames::<G>(va, groups.of(frames), LeafSize::PAGE_GROUP, range, allowed);
    let _ = (G::NAME, va, frames, groups, range, allowed);
}

/// Names and arguments are stable: numbers in the C calling convention, X0 to X6 at the first
/// instruction.
#[cfg(feature = "trace")]
pub mod hook {
    use core::hint::black_box;

    macro_rules! hooks {
        ($($(#[$doc:meta])* $name:ident($($arg:ident),*);)*) => {$(
            $(#[$doc])*
            #[inline(never)]
            pub extern "C" fn $name($($arg: u64),*) {
                // The name keeps equal functions from being merged.
                black_box((stringify!($name), $($arg),*));
            }
        )*};
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
}

#[cfg(feature = "trace")]
mod enabled {
    use super::{Granule, LeafSet, LeafSize, Leaves, Pfn, PhysAddr, VirtAddr, VirtRange, hook};
    use crate::mmu::{Mmu, TlbiRange};
    use crate::source::output;
    use crate::tables::{Groups, Tables, forward_unwritten};
    use core::hint::black_box;

    pub(super) fn call5(function: extern "C" fn(u64, u64, u64, u64, u64), [a, b, c, d, e]: [u64; 5]) {
        black_box(function)(a, b, c, d, e);
    }

    fn stored(kind: u64, table: PhysAddr, index: usize, nr: usize, first: u64, step: u64) {
        let function: extern "C" fn(u64, u64, u64, u64, u64, u64) = hook::descriptors_stored;
        black_box(function)(kind, table.0, index as u64, nr as u64, first, step);
    }

    fn barrier(kind: u64) {
        let function: extern "C" fn(u64) = hook::barrier_issued;
        black_box(function)(kind);
    }

    fn leaf(size: LeafSize, va: VirtAddr, pa: PhysAddr, run: u64, remaining: u64, allowed: LeafSet) {
        let function: extern "C" fn(u64, u64, u64, u64, u64, u64, u64) = hook::leaf_chosen;
        let set = LeafSize::ALL
            .iter()
            .filter(|size| allowed.contains(**size))
            .fold(0, |set, size| {
                set | 1 << (2 * size.level() as u32 + u32::from(size.is_contiguous()))
            });
        black_box(function)(
            size.level() as u64,
            size.is_contiguous().into(),
            va.0,
            pa.0,
            run,
            remaining,
            set,
        );
    }

    pub(super) fn leaves<G: Granule>(
        va: VirtAddr,
        pa: PhysAddr,
        leaves: Leaves,
        range: VirtRange,
        allowed: LeafSet,
    ) {
        let size = leaves.bytes::<G>();
        let mut done = 0;
        while done < size {
            let index = (done >> G::shift(leaves.level)) as usize;
            let grouped = index >= leaves.head && index < leaves.head + leaves.grouped;
            let chosen = LeafSize::new(leaves.level, grouped);
            let at = va.add(done);
            let remaining = range.end().offset_from(at);
            leaf(chosen, at, pa.add(done), size - done, remaining, allowed);
            done += chosen.bytes::<G>();
        }
    }

    pub(super) fn frames<G: Granule>(
        va: VirtAddr,
        frames: &[Pfn],
        size: LeafSize,
        range: VirtRange,
        allowed: LeafSet,
    ) {
        let bytes = size.bytes::<G>();
        let run = if size.is_contiguous() { bytes } else { 0 };
        for (chunk, i) in frames.chunks(size.descriptors::<G>()).zip(0..) {
            let at = va.add(i * bytes);
            let remaining = range.end().offset_from(at);
            leaf(size, at, output::<G>(chunk[0].0), run, remaining, allowed);
        }
    }

    /// `T`, followed by the hooks.
    #[derive(Clone, Copy, Debug, Default)]
    pub struct Hooked<T>(pub(super) T);

    // SAFETY: forwards to `T`, which keeps the promises.
    #[deny(clippy::missing_trait_methods)]
    unsafe impl<T: Tables> Tables for Hooked<T> {
        forward_unwritten!(self => self.0);

        fn store(&self, table: PhysAddr, index: usize, value: u64) {
            self.0.store(table, index, value);
            stored(0, table, index, 1, value, 0);
        }
        fn compare_exchange(&self, table: PhysAddr, index: usize, current: u64, new: u64) -> Result<(), u64> {
            self.0.compare_exchange(table, index, current, new)?;
            stored(4, table, index, 1, new, current);
            Ok(())
        }
        fn fill_linear(&self, table: PhysAddr, index: usize, nr: usize, first: u64, step: u64) {
            self.0.fill_linear(table, index, nr, first, step);
            stored(1, table, index, nr, first, step);
        }
        fn fill_frames(&self, table: PhysAddr, index: usize, frames: &[Pfn], page_shift: u32, template: u64) {
            self.0.fill_frames(table, index, frames, page_shift, template);
            let first = frames.first().map_or(0, |frame| frame.0 << page_shift);
            stored(2, table, index, frames.len(), first, template);
        }
        fn fill_groups(
            &self,
            table: PhysAddr,
            index: usize,
            frames: &[Pfn],
            groups: Groups,
            template: u64,
        ) -> usize {
            let nr = self.0.fill_groups(table, index, frames, groups, template);
            if nr != 0 {
                stored(2, table, index, nr, frames[0].0 << groups.page_shift, template);
            }
            nr
        }
        fn clear(&self, table: PhysAddr, index: usize, nr: usize) {
            self.0.clear(table, index, nr);
            stored(3, table, index, nr, 0, 0);
        }
    }

    fn tlbi(kind: u64, va: VirtAddr, pages: u64) {
        call5(hook::tlbi_issued, [kind, va.0, pages, 0, 0]);
    }

    fn tlbi_range(kind: u64, range: TlbiRange) {
        let (scale, num) = (range.scale.into(), range.num.into());
        call5(
            hook::tlbi_issued,
            [kind, range.start.0, range.pages(), scale, num],
        );
    }

    #[deny(clippy::missing_trait_methods)]
    impl<M: Mmu> Mmu for Hooked<M> {
        fn dsb_ishst(&self) {
            self.0.dsb_ishst();
            barrier(0);
        }
        fn dsb_ish(&self) {
            self.0.dsb_ish();
            barrier(1);
        }
        fn isb(&self) {
            self.0.isb();
            barrier(2);
        }
        fn tlbi_vaale1is(&self, va: VirtAddr) {
            self.0.tlbi_vaale1is(va);
            tlbi(0, va, 1);
        }
        fn tlbi_vaae1is(&self, va: VirtAddr) {
            self.0.tlbi_vaae1is(va);
            tlbi(1, va, 1);
        }
        fn tlbi_rvaale1is(&self, range: TlbiRange) {
            self.0.tlbi_rvaale1is(range);
            tlbi_range(2, range);
        }
        fn tlbi_rvaae1is(&self, range: TlbiRange) {
            self.0.tlbi_rvaae1is(range);
            tlbi_range(3, range);
        }
        fn tlbi_vmalle1is(&self) {
            self.0.tlbi_vmalle1is();
            tlbi(4, VirtAddr(0), 0);
        }
        fn has_tlbi_range(&self) -> bool {
            self.0.has_tlbi_range()
        }
        fn masked<R>(&self, f: impl FnOnce() -> R) -> R {
            self.0.masked(f)
        }
    }
}
