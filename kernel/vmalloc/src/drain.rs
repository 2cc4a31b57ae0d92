//! Frees that are deferred to a later allocation or free on the area's CPU, or to a purge; until
//! then the area stays mapped.
//!
//! - In an exception handler, which must not wait for a lock whose holder it may have interrupted.
//!   [`Backend::deferred_work`] announces it.
//! - On another CPU than the area's, which would write lines of its shard, if the area may be lazy.
//!   One call in sixteen frees it, or, at half of the shard's share, the CPU that frees one more.
//!
//! An area goes into its shard's list (`deferred`), an address that cannot be looked up into
//! [`MAX_DEFERRED_ADDRESSES`](crate::MAX_DEFERRED_ADDRESSES) slots. A shard is drained inside its
//! purge gate, by at most [`STEP`] areas, or all in [`Vmalloc::vm_unmap_aliases`].

use crate::backend::{Backend, Lock};
use crate::error::Error;
use crate::record::{self, Area, Head, Kind, List};
use crate::region::{Context, Vmalloc};
use crate::shard::{STEP, Shard};
use core::panic::Location;
use core::sync::atomic::Ordering::{AcqRel, Relaxed, Release};
use paging::VirtAddr;

impl<B: Backend> Vmalloc<B> {
    pub(crate) fn defer(&self, mut area: Area, by: &'static Location<'static>) {
        record::set_freer(&area, by);
        let shard = self.shard_of(&area);
        area.retire();
        self.defer_to_next_call(shard, area);
    }

    pub(crate) fn defer_to_next_call(&self, shard: &Shard<B>, area: Area) {
        let pages = area.reserved();
        shard.deferred_list.push(area, pages);
        shard.look_soon();
        if shard.is_common() {
            self.put_off_shared();
        }
        self.backend.deferred_work();
    }

    pub(crate) fn put_off_shared(&self) {
        self.shared_work.store(true, Release);
        self.this_shard().look_soon();
    }

    /// Writes only the area's state and link.
    #[inline(never)]
    pub(crate) fn defer_to_owner(&self, shard: &Shard<B>, mut area: Area, pages: u64) {
        // Lookups hold the shard's lock meanwhile, and the unmap takes it.
        area.retire();
        let pages = pages + area.guards();
        let (nr, pages) = shard.deferred_list.push(area, pages);
        if self.share.is_reached_by((2 * nr, 2 * pages)) {
            self.take_in(shard, (nr, pages));
        }
    }

    #[cold]
    fn take_in(&self, shard: &Shard<B>, usage: (usize, u64)) {
        if let Some(_inside) = self.enter_purge(shard, || self.share.is_reached_by(usage)) {
            self.drain_all(shard);
            self.flush_inside(shard);
        }
    }

    /// And, if it may wait, some of the shared ones.
    #[inline(always)]
    pub(crate) fn drain_some(&self, context: Context) -> &'static Shard<B> {
        let shard = self.this_shard();
        if context != Context::Exception && shard.is_time_to_look() {
            self.look(shard, context);
        }
        shard
    }

    #[inline(never)]
    fn look(&self, shard: &Shard<B>, context: Context) {
        shard.look_later();
        if shard.deferred_list.any() {
            self.drain_step(shard, context);
        }
        if context == Context::Waiting && self.shared_work.load(Relaxed) {
            self.drain_shared();
        }
    }

    /// Drains at most `STEP` areas of each shard that is not being flushed. Returns whether that
    /// was all. [Waiting](crate#contexts).
    pub fn deal_with_deferred(&self) -> bool {
        self.drain_addresses(false);
        for shard in self.shards.iter().filter(|shard| shard.deferred_list.any()) {
            self.drain_step(shard, Context::Waiting);
        }
        self.addresses.nr.load(Relaxed) == 0 && self.shards.iter().all(|shard| !shard.deferred_list.any())
    }

    #[cold]
    #[inline(never)]
    fn drain_shared(&self) {
        // First: what is deferred meanwhile sets it again.
        self.shared_work.swap(false, AcqRel);
        self.drain_addresses(false);
        let common = self.shards.common();
        self.drain_step(common, Context::Waiting);
        if self.addresses.nr.load(Relaxed) != 0 || common.deferred_list.any() {
            self.put_off_shared();
        }
    }

    #[cold]
    #[inline(never)]
    fn drain_step(&self, shard: &Shard<B>, context: Context) {
        let Some(_inside) = shard.purge.try_enter() else {
            return;
        };
        let mut left = STEP;
        let old = shard.state.lock().deferred.take_all();
        let mut kept = self.drain_list(shard, old, &mut left, context);
        if left != 0 {
            let new = shard.deferred_list.new.take_all();
            let rest = self.drain_list(shard, new, &mut left, context);
            rest.for_each(|area| kept.push(area));
        }
        shard.state.lock().deferred = kept;
        self.flush_inside(shard);
    }

    /// Inside the purge gate.
    pub(crate) fn drain_all(&self, shard: &Shard<B>) {
        let mut held = shard.state.lock();
        let lists = [held.deferred.take_all(), shard.deferred_list.new.take_all()];
        drop(held);
        for list in lists {
            let none = self.drain_list(shard, list, &mut { usize::MAX }, Context::Waiting);
            debug_assert!(none.is_empty(), "all were to be dealt with");
        }
    }

    /// Frees at most `left` areas, and returns the rest.
    fn drain_list(&self, shard: &Shard<B>, mut list: List, left: &mut usize, context: Context) -> List {
        let mut kept = List::new();
        while *left != 0
            && let Some(area) = list.next()
        {
            *left -= 1;
            if context != Context::Waiting && Head::of(&area).permissions_changed() {
                // Restoring the linear map waits for a gate.
                kept.push(area);
                continue;
            }
            shard.deferred_list.gone(&area);
            let held = shard.state.lock();
            let range = record::range::<B::Granule>(&area);
            self.free_held(shard, held, area, range);
        }
        kept.for_each(|area| list.push(area));
        list
    }

    /// Looks once at each slot, so that one that refills does not hold up others. Without `wait` it
    /// skips shards that are being purged.
    pub(crate) fn drain_addresses(&self, wait: bool) {
        // Counted from before an address is in its slot until it is out.
        if self.addresses.nr.load(Relaxed) == 0 {
            return;
        }
        for slot in &self.addresses.slots {
            let Some(va) = slot.address() else {
                continue;
            };
            // An area in use keeps its shard.
            let shard = self.shards.get(self.owners.of(self.span_of(Self::page_of(va))));
            let Some(inside) = self.enter_purge(shard, || wait) else {
                continue;
            };
            if let Some(by) = slot.take(va) {
                let freed = self.free_deferred(va, by);
                self.addresses.nr.fetch_sub(1, Relaxed);
                drop(inside);
                if let Err(error) = freed {
                    self.addresses.nr_refused.fetch_add(1, Relaxed);
                    self.backend.deferred_free_refused(va, by, &error);
                }
            }
        }
    }

    fn free_deferred(&self, va: VirtAddr, by: &'static Location<'static>) -> Result<(), Error> {
        let (shard, mut held) = self.shard_at(Self::page_of(va)).ok_or(Error::Outside(va))?;
        let area = Self::claim(&mut held, va, Kind::Vmalloc)?;
        record::set_freer(&area, by);
        let range = record::range::<B::Granule>(&area);
        self.free_held(shard, held, area, range);
        Ok(())
    }
}
