//! [`Owners`]: from an address to its shard, by a number per span (what a last-level table
//! translates) in a two-level radix tree. Spans without one are the common shard's.
//!
//! A number may be stale, so a reader takes that shard's lock and [reads again](Owners::of). A
//! piece goes from the common shard to a CPU's under both locks. It returns in two steps: out of
//! the CPU's space under that lock; then into the common space, with the number, under the other.
//! So if the number is that of a locked shard, its space has the piece or there is no area.

use crate::va::NodePage;
use core::ptr::null_mut;
use core::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed};
use core::sync::atomic::{AtomicPtr, AtomicU16};

pub(crate) const COMMON: usize = 0;

const LEAF: usize = 2048;
const BRANCH: usize = 512;
const ROOT: usize = 128;

pub(crate) const MAX_SPANS: u64 = (ROOT * BRANCH * LEAF) as u64;

type Leaf = [AtomicU16; LEAF];
type Branch = [AtomicPtr<Leaf>; BRANCH];

pub(crate) struct Owners([AtomicPtr<Branch>; ROOT]);

fn follow<T>(pointer: &AtomicPtr<T>) -> Option<&'static T> {
    // SAFETY: null, or given for ever by `hang`; acquired, so its contents are visible.
    unsafe { pointer.load(Acquire).as_ref() }
}

/// If nothing is there.
fn hang<T>(pointer: &AtomicPtr<T>, new: &'static T) {
    // Release: contents before the link. If another came first, this page stays unused.
    let new = core::ptr::from_ref(new).cast_mut();
    let _ = pointer.compare_exchange(null_mut(), new, AcqRel, Relaxed);
}

impl Owners {
    pub const fn new() -> Self {
        Self([const { AtomicPtr::new(null_mut()) }; ROOT])
    }

    /// The slot of a number, for ever.
    #[inline(always)]
    pub fn slot(&self, span: u64) -> Option<&'static AtomicU16> {
        let span = span as usize;
        let branch = follow(self.0.get(span / (LEAF * BRANCH))?)?;
        let leaf = follow(&branch[span / LEAF % BRANCH])?;
        Some(&leaf[span % LEAF])
    }

    #[inline(always)]
    pub fn of(&self, span: u64) -> usize {
        self.slot(span)
            .map_or(COMMON, |owner| usize::from(owner.load(Relaxed)))
    }

    /// False without [room](Self::feed). Needs the locks named by the module.
    pub fn set(&self, span: u64, owner: usize) -> bool {
        match self.slot(span) {
            Some(slot) => slot.store(owner as u16, Relaxed),
            None => return owner == COMMON,
        }
        true
    }

    pub fn feed(&self, span: u64, page: &'static mut NodePage) {
        let span = span as usize;
        let root = &self.0[span / (LEAF * BRANCH)];
        match follow(root) {
            Some(branch) => hang(
                &branch[span / LEAF % BRANCH],
                page.hold([const { AtomicU16::new(COMMON as u16) }; LEAF]),
            ),
            None => hang(root, page.hold([const { AtomicPtr::new(null_mut()) }; BRANCH])),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::boxed::Box;

    fn page() -> &'static mut NodePage {
        Box::leak(Box::new(NodePage::uninit()))
    }

    #[test]
    fn each_span_has_its_own_number_and_the_common_one_by_default() {
        let owners = Owners::new();
        let spans = [0, 1, 2047, 2048, 1 << 20, (1 << 20) + 1, MAX_SPANS - 1];
        for (i, span) in spans.into_iter().enumerate() {
            assert_eq!(owners.of(span), COMMON);
            assert!(owners.set(span, COMMON), "what it is already");
            while !owners.set(span, i + 1) {
                owners.feed(span, page());
            }
        }
        for (i, span) in spans.into_iter().enumerate() {
            assert_eq!(owners.of(span), i + 1);
        }
        assert_eq!(owners.of(2), COMMON);
        assert_eq!(owners.of(MAX_SPANS), COMMON);
    }
}
