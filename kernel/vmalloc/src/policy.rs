//! Policy.

use paging::LeafSet;

/// Policy of a [`Vmalloc`](crate::Vmalloc).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Config {
    /// That mappings may use, within the tree's own policy.
    pub leaves: LeafSet,
    /// When unmapped areas are flushed.
    pub flush: FlushPolicy,
    /// Whether that applies to another owner's pages.
    pub foreign: ForeignPages,
    /// Ranges of up to [`MAX_CACHED_PAGES`](crate::MAX_CACHED_PAGES) pages that each CPU keeps for
    /// reuse.
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
    /// Before the free returns.
    Strict,
    /// At so many lazy areas or pages on all CPUs, when memory or addresses run out, or by
    /// [`vm_unmap_aliases`](crate::Vmalloc::vm_unmap_aliases). Until then a freed area may be
    /// accessible.
    Lazy {
        /// Areas.
        areas: usize,
        /// Pages of addresses, guards included.
        pages: u64,
    },
}

/// Another owner's pages under a lazy policy: of `vmap`, `vm_map_ram`, `map_pages`, and
/// `ioremap_cache` of RAM.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, Default)]
#[non_exhaustive]
pub enum ForeignPages {
    /// Flushed before the free returns: the owner need not know of TLBs.
    #[default]
    Flush,
    /// Unmapped at once and flushed later, as in Linux, without a TLBI or DSB.
    ///
    /// # Hazard
    ///
    /// Until the flush, a stray access through a TLB reaches the frames' next use, and speculation
    /// may cache lines with the old attributes. Where that matters the owner first calls
    /// [`vm_unmap_aliases`](crate::Vmalloc::vm_unmap_aliases).
    Defer,
}

impl FlushPolicy {
    /// Returns a lazy policy scaled by the bits of `cpus`, since a flush disturbs all (Linux's
    /// `lazy_max_pages`), up to 1/64 of `frames`.
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

    pub(crate) const fn share_of(self, shards: usize) -> Self {
        match self {
            Self::Strict => self,
            Self::Lazy { areas, pages } => Self::Lazy {
                areas: areas / shards,
                pages: pages / shards as u64,
            },
        }
    }

    #[inline(always)]
    pub(crate) const fn is_reached_by(self, usage: (usize, u64)) -> bool {
        match self {
            Self::Strict => usage.0 != 0,
            Self::Lazy { areas, pages } => usage.0 >= areas || usage.1 >= pages,
        }
    }
}
