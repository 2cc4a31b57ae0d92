//! The one decision of the walker: how large a leaf may be here.

use crate::addr::{PhysAddr, VirtAddr};
use crate::granule::Granule;
use crate::outcome::{LeafSet, LeafSize};

/// The largest leaf that may be placed at `va` for `pa`.
///
/// `run` is the number of physically consecutive bytes from `pa` on, `remaining` the number of bytes of the range from
/// `va` on. A leaf is legal when `va` and `pa` are both multiples of its size, the run covers it, the range covers it, the
/// granule has it, and `allowed` contains it (DESIGN section 3). This function is the whole rule: the walker's loops are
/// held to it by a property test and, in debug builds, by an assertion at every leaf.
///
/// # Panics
/// In debug builds, if `va`, `pa`, `run` or `remaining` is not a multiple of the page size, or `run` or `remaining` is 0.
#[must_use]
pub fn choose_leaf<G: Granule>(
    va: VirtAddr,
    pa: PhysAddr,
    run: u64,
    remaining: u64,
    allowed: LeafSet,
) -> LeafSize {
    debug_assert!(
        (va.0 | pa.0 | run | remaining) & (G::PAGE_SIZE - 1) == 0 && run != 0 && remaining != 0,
        "va {va:?} pa {pa:?} run {run:#x} remaining {remaining:#x}"
    );
    LeafSize::ALL
        .into_iter()
        .find(|size| {
            let bytes = size.bytes::<G>();
            size.exists::<G>()
                && allowed.contains(*size)
                && (va.0 | pa.0) & (bytes - 1) == 0
                && run >= bytes
                && remaining >= bytes
        })
        .unwrap_or(LeafSize::PAGE)
}
