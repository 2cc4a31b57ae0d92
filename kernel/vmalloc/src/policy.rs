//! Policy of a subsystem: leaf sizes, what is kept, and when unmapped areas are flushed.

use paging::LeafSet;

/// Policy, fixed when a [`Vmalloc`](crate::Vmalloc) is made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Config {
    /// Leaf sizes that mappings may use. The tree's own policy limits them further.
    pub leaves: LeafSet,
    /// When unmapped areas are flushed.
    pub flush: FlushPolicy,
    /// Whether that holds for pages of another owner.
    pub foreign: ForeignPages,
    /// Ranges of up to [`MAX_CACHED_PAGES`](crate::MAX_CACHED_PAGES) pages, guards included, that
    /// each CPU keeps for its next of the same size.
    pub cached_areas: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            leaves: LeafSet::ALL,
            flush: FlushPolicy::Strict,
            foreign: ForeignPages::Flush,
            cached_areas: 256,
        }
    }
}

/// When unmapped areas are flushed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[non_exhaustive]
pub enum FlushPolicy {
    /// Before the call that frees an area returns.
    Strict,
    /// When this many areas, or pages of addresses, wait on all CPUs together; when memory or
    /// addresses run out; or when [`vm_unmap_aliases`](crate::Vmalloc::vm_unmap_aliases) asks.
    /// Until then an area that was ended may be accessible: by what a TLB holds; and where another
    /// CPU than the one that made it ended it, by its tables.
    Lazy {
        /// Areas.
        areas: usize,
        /// Pages of addresses, guards included.
        pages: u64,
    },
}

/// What a lazy policy does with mappings of another owner's pages: those of `vmap`, `vm_map_ram`,
/// `map_pages`, and `ioremap_cache` of RAM.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, Default)]
#[non_exhaustive]
pub enum ForeignPages {
    /// They are flushed before the call that ends the mapping returns. The default: who owns the
    /// pages needs to know nothing of TLBs.
    #[default]
    Flush,
    /// They are unmapped before the call returns, and wait for the flush, as Linux's do: a `vunmap`
    /// and a `vm_unmap_ram` have no TLBI and no DSB.
    ///
    /// # Hazard
    /// The frames are not kept back. Until the flush, a TLB may hold translations of them: a stray
    /// access through the old address reaches the frames' next use, and what a
    /// CPU speculates there may bring their lines into its cache with the attributes of the old
    /// mapping. Before frames change hands in a way that must not see this (to a guest, a device,
    /// another memory type) their owner calls
    /// [`vm_unmap_aliases`](crate::Vmalloc::vm_unmap_aliases).
    Defer,
}

impl FlushPolicy {
    /// Returns a lazy policy for a machine of `cpus` CPUs and `frames` frames, from what is good
    /// for one CPU: as much more as the CPUs have bits, since a flush disturbs all of them, as
    /// Linux's `lazy_max_pages`; and never more than 1/64 of RAM.
    #[must_use]
    pub const fn lazy_for(cpus: usize, frames: u64, areas: usize, pages: u64) -> Self {
        let bits = match cpus.checked_ilog2() {
            Some(log) => log as usize + 1,
            None => 1,
        };
        let scaled = pages.saturating_mul(bits as u64);
        Self::Lazy {
            areas: areas.saturating_mul(bits),
            pages: if scaled < frames / 64 { scaled } else { frames / 64 },
        }
    }

    /// Returns what each of `shards` lets wait.
    pub(crate) const fn share_of(self, shards: usize) -> Self {
        match self {
            Self::Strict => self,
            Self::Lazy { areas, pages } => Self::Lazy {
                areas: areas / shards,
                pages: pages / shards as u64,
            },
        }
    }

    /// Returns whether `usage`, areas and their pages, is as much as this lets wait.
    #[inline(always)]
    pub(crate) const fn is_reached_by(self, usage: (usize, u64)) -> bool {
        match self {
            Self::Strict => usage.0 != 0,
            Self::Lazy { areas, pages } => usage.0 >= areas || usage.1 >= pages,
        }
    }
}
