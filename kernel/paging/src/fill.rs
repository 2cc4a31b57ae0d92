use crate::addr::{Pfn, PhysAddr, VirtAddr};
use crate::descriptor::CONTIGUOUS;
use crate::granule::{Granule, LAST_LEVEL};
use crate::leaf::Leaves;
use crate::mmu::Mmu;
use crate::source::output;
use crate::tables::{Groups, Tables};
use crate::tree::{Node, Tree};

impl<G: Granule, T: Tables, M: Mmu> Tree<G, T, M> {
    /// Writes `leaves` at `va`; `first` is the first descriptor, as a single leaf's.
    #[inline(always)]
    pub(crate) fn fill(&self, table: PhysAddr, va: VirtAddr, first: u64, leaves: Leaves) {
        let Leaves {
            level,
            nr,
            grouped,
            head,
        } = leaves;
        let mut index = G::index(va.0, level);
        if nr == 1 {
            return self.tables.store(table, index, first);
        }
        let (mut first, step) = (first, G::size(level));
        let (mut singles, mut groups) = if grouped == 0 { (nr, 0) } else { (head, grouped) };
        loop {
            if singles != 0 {
                self.tables.fill_linear(table, index, singles, first, step);
            }
            if groups == 0 {
                return;
            }
            index += singles;
            first += singles as u64 * step;
            self.tables
                .fill_linear(table, index, groups, first | CONTIGUOUS, step);
            index += groups;
            first += groups as u64 * step;
            (singles, groups) = (nr - head - grouped, 0);
        }
    }

    #[inline]
    pub(crate) fn page_groups(&self) -> Groups {
        let frames = G::cont_entries(LAST_LEVEL);
        // Addresses with bits out of their place are written as runs.
        let out_of_place = if G::PA_BITS > G::PLAIN_BITS {
            !0 << (G::PLAIN_BITS - G::PAGE_SHIFT)
        } else {
            0
        };
        // Rotated as by `output`.
        let unimplemented = self.unimplemented_pa().rotate_right(G::PAGE_SHIFT);
        Groups {
            frames,
            head_mask: unimplemented | out_of_place | (frames as u64 - 1),
            page_shift: G::PAGE_SHIFT,
        }
    }

    #[inline(always)]
    pub(crate) fn fill_frames(&self, table: PhysAddr, index: usize, frames: &[Pfn], template: u64) {
        let plain = G::PLAIN_BITS - G::PAGE_SHIFT;
        if G::PA_BITS > G::PLAIN_BITS && self.tables.or_of_frames(frames) >> plain != 0 {
            for (i, frame) in frames.iter().enumerate() {
                let descriptor = G::encode(output::<G>(frame.0)) | template;
                self.tables.store(table, index + i, descriptor);
            }
        } else {
            self.tables
                .fill_frames(table, index, frames, G::PAGE_SHIFT, template);
        }
    }

    #[inline(always)]
    pub(crate) fn clear(&self, node: Node, index: usize, nr: usize) {
        if nr == 1 {
            self.tables.store(node.table, index, 0);
        } else {
            self.tables.clear(node.table, index, nr);
        }
    }
}
