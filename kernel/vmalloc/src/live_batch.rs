//! [`LiveBatch`]: what is unmapped of an area that lookups find.

use crate::backend::{Backend, Lock};
use crate::error::Error;
use crate::record::Area;
use crate::region::{Batch, Vmalloc};
use crate::shard::Shard;
use paging::{Outcome, VirtRange};

/// Flushes where it is dropped, after lookups that may still use what was unmapped. They hold the
/// shard's lock until done: one hold comes after those that began before, and later ones find
/// nothing.
#[must_use = "it flushes where it is dropped, which is here"]
pub(crate) struct LiveBatch<'v, B: Backend> {
    vm: &'v Vmalloc<B>,
    shard: &'static Shard<B>,
    batch: Batch<'v, B>,
}

impl<'v, B: Backend> LiveBatch<'v, B> {
    pub fn new(vm: &'v Vmalloc<B>, area: &Area) -> Self {
        Self {
            vm,
            shard: vm.shard_of(area),
            batch: vm.backend.tree().batch(),
        }
    }

    pub fn unmap(&mut self, range: VirtRange) -> Result<Outcome, Error> {
        Ok(self.vm.backend.tree().unmap(range, &mut self.batch)?)
    }
}

impl<B: Backend> Drop for LiveBatch<'_, B> {
    fn drop(&mut self) {
        drop(self.shard.state.lock());
    }
}
