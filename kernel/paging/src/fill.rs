//! Writes runs of descriptors into a table.

use crate::addr::{PhysAddr, VirtAddr};
use crate::descriptor::{Attributes, CONTIGUOUS, Descriptor};
use crate::granule::Granule;
use crate::leaf::Leaves;
use crate::mmu::Mmu;
use crate::outcome::LeafSize;
use crate::tables::Tables;
use crate::tree::{Node, Tree};

impl<G: Granule, T: Tables, M: Mmu> Tree<G, T, M> {
    /// Writes `leaves` into `table`: consecutive memory from `pa` on, at `va`. `template` is a
    /// single leaf's bits without its address.
    #[inline(always)]
    pub(crate) fn fill(&self, table: PhysAddr, va: VirtAddr, pa: PhysAddr, leaves: Leaves, template: u64) {
        let Leaves {
            level,
            nr,
            grouped,
            head,
        } = leaves;
        let mut index = G::index(va.0, level);
        let (mut first, step) = (pa.0 | template, G::size(level));
        // Single leaves, groups, single leaves: mostly only one of these.
        let (mut singles, mut groups) = if grouped == 0 { (nr, 0) } else { (head, grouped) };
        loop {
            if singles == 1 {
                self.tables.store(table, index, first);
            } else if singles != 0 {
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

    /// Clears `nr` descriptors of `node` from `index` on.
    #[inline(always)]
    pub(crate) fn clear(&self, node: Node, index: usize, nr: usize) {
        if nr == 1 {
            self.tables.store(node.table, index, 0);
        } else {
            self.tables.clear(node.table, index, nr);
        }
    }
}

/// Returns the bits of a valid leaf of `size` without its address.
#[inline(always)]
pub(crate) const fn template(size: LeafSize, attributes: Attributes) -> u64 {
    Descriptor::leaf(size.level(), PhysAddr(0), attributes, size.is_contiguous()).0
}
