//! The linear map: RAM at [`LINEAR_BASE`](super::layout::LINEAR_BASE) + PA, writable, never
//! executable. Text and constants are read-only there (DESIGN rule 10), unless `rodata=` differs.

use paging::{
    Attributes, Failure, LeafSet, Mmu, Outcome, PhysAddr, Tables, Tree, VirtAddr, vmap_range_noflush,
};

use super::layout::Granule;
use super::linear_va;
use super::regions::{PhysRegion, Regions};
use crate::BootInfo;

/// Maps `ram`, text and constants with `alias`.
///
/// # Errors
/// There is no page for a table.
pub fn map<T: Tables, M: Mmu>(
    tree: &Tree<Granule, T, M>,
    ram: &Regions,
    info: &BootInfo,
    leaves: LeafSet,
    alias: Attributes,
) -> Result<Outcome, Failure> {
    let constant = constant_part(info);
    let before = PhysRegion {
        start: 0,
        end: constant.start,
    };
    let behind = PhysRegion {
        start: constant.end,
        end: u64::MAX,
    };
    let mut outcome = Outcome::default();
    for region in ram.iter() {
        let parts = [
            (before, Attributes::KERNEL_DATA),
            (constant, alias),
            (behind, Attributes::KERNEL_DATA),
        ];
        for (part, attributes) in parts {
            let part = region.intersection(&part);
            if !part.is_empty() {
                let va = VirtAddr(linear_va(part.start) as u64);
                let pa = PhysAddr(part.start);
                outcome.merge(&vmap_range_noflush(
                    tree,
                    va,
                    pa,
                    part.size(),
                    attributes,
                    leaves,
                )?);
            }
        }
    }
    Ok(outcome)
}

#[must_use]
pub fn constant_part(info: &BootInfo) -> PhysRegion {
    PhysRegion {
        start: info.image_pa(info.sections.text.start),
        end: info.image_pa(info.sections.rodata.end),
    }
}
