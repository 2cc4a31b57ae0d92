//! A translation tree: its root, its half of the address space, and the links between its tables.
//!
//! # Who may call what at once
//! Operations take `&self`. Any number of them may run at once **on ranges that share no leaf**, before or after: no lock
//! is needed between disjoint areas, not even where they share tables. The story:
//!
//! 1. A link carries the number of occupied descriptors in its table ([`Descriptor::occupied`]). It changes only by
//!    compare-exchange.
//! 2. Whoever is about to write into a table first raises the count in the link: by the descriptors it will write, or by
//!    one while it works further down. If the link is gone or leads elsewhere, it walks again.
//! 3. A table is unlinked only by exchanging a link with count 0. A count raised in between makes that fail, and the table
//!    stays.
//! 4. So nobody writes into an unlinked table. Somebody may still *read* one for a moment: the environment must not hand
//!    an unlinked table out again while a walk that may have begun before it was unlinked is under way (a readers' lock
//!    around walks and the release of a [`Pending`](crate::Pending), an epoch, or one lock for all). [`Tree::map`] gives no
//!    table back that was linked: those that it takes out are withheld until [`Tree::reclaim`], [`Tree::prune`] or a flush
//!    that gives back tables of its own.
//! 5. A link that is gone may linger in walk caches, and until it is invalidated no other link may take its place: that is
//!    break-before-make, too. [`Tree::unmap_keeping_tables`] and [`Tree::prune`] see to it themselves: an emptied table
//!    stays linked, and a pruned link is replaced by a mark that `map` waits for until the invalidation is complete.
//!    [`Tree::unmap`] unlinks at once and leaves the invalidation to the batch: then nothing may be mapped in the span of
//!    a table that it unlinked, until the batch has flushed. With one lock around unmap and flush that is so by itself.
//!
//! Ranges that share a leaf (two slices of one 2 MiB block, say) are the caller's to serialise.

use crate::addr::{PhysAddr, VirtAddr, VirtRange};
use crate::descriptor::{ADDRESS, Attributes, Descriptor};
use crate::granule::{Granule, LAST_LEVEL, Level};
use crate::mmu::Mmu;
use crate::outcome::{Error, LeafSet};
use crate::tables::Tables;
use crate::trace::{self, Hooked};
use crate::withheld::Withheld;
use core::marker::PhantomData;

/// Which half of the address space a tree translates.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Half {
    /// From 0 up, by TTBR0.
    Low,
    /// Down from the top, by TTBR1.
    High,
}

/// What may be assumed of the CPU when a live leaf is replaced by leaves of another size.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, Default)]
pub enum BreakPolicy {
    /// Invalid first, invalidated, then made anew: right on every CPU (DESIGN rule 3).
    #[default]
    BreakBeforeMake,
    /// Replaced in place, invalidated afterwards. Only for CPUs that are known to keep translating without a conflict
    /// abort; FEAT_BBM level 2 alone does not promise that (Arm ARM D8.16.1.1).
    InPlace,
}

/// Policy of a tree, fixed when it is made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Config {
    /// Implemented physical address bits (ID_AA64MMFR0_EL1.PARange), at most 48.
    pub pa_bits: u32,
    /// Leaf sizes that any mapping may use. Without groups on a CPU whose contiguous bit has an erratum.
    pub leaves: LeafSet,
    /// How live leaves are split and folded.
    pub break_policy: BreakPolicy,
    /// Whether a TLBI must be repeated (DESIGN rule 11).
    pub repeat_tlbi: bool,
    /// Whether what was executable becomes not executable by break-before-make only, and not in
    /// place (DESIGN rule 11).
    pub break_executable: bool,
    /// More TLBIs than this become one `VMALLE1IS`. 512 is what Linux takes with 4 KiB pages: beyond it, refilling a
    /// TLB costs less than the broadcasts.
    pub flush_all_above: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            pa_bits: 48,
            leaves: LeafSet::ALL,
            break_policy: BreakPolicy::BreakBeforeMake,
            repeat_tlbi: false,
            break_executable: false,
            flush_all_above: 512,
        }
    }
}

/// A translation tree over table memory `T`, maintained through `M`.
#[derive(Debug)]
pub struct Tree<G: Granule, T: Tables, M: Mmu> {
    root: PhysAddr,
    /// Its first address, and bits that a physical address must not have: known by `half` and `config`, and asked for in
    /// every call.
    start: VirtAddr,
    unimplemented_pa: u64,
    half: Half,
    // The engine goes through the fields, and so through the hooks; who uses a tree gets what is behind them.
    pub(crate) tables: Hooked<T>,
    pub(crate) mmu: Hooked<M>,
    config: Config,
    pub(crate) withheld: Withheld,
    granule: PhantomData<G>,
}

/// A table on the way down: where it is, and which descriptor links to it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Node {
    pub(crate) table: PhysAddr,
    pub(crate) level: Level,
    /// The table and index of the link; for the root, itself and no meaning.
    pub(crate) parent: PhysAddr,
    pub(crate) index: usize,
}

/// The link was gone, or led to another table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Unlinked;

impl<G: Granule, T: Tables, M: Mmu> Tree<G, T, M> {
    /// The tree whose root table is at `root`.
    ///
    /// Not `unsafe`, since table memory is reached only through `T`, whose implementation made that promise; but a tree
    /// that a CPU translates by is as powerful as a pointer, so a kernel guards who may call `map`, `unmap` and `protect`
    /// on which ranges.
    ///
    /// # Panics
    /// If `root` is not aligned to a page or `config.pa_bits` is not within `PAGE_SHIFT + 1..=48`.
    pub fn new(root: PhysAddr, half: Half, tables: T, mmu: M, config: Config) -> Self {
        assert!(root.is_aligned(G::PAGE_SIZE), "root table at {root:?}");
        assert!(
            config.pa_bits > G::PAGE_SHIFT && config.pa_bits <= 48,
            "{} physical address bits",
            config.pa_bits
        );
        let start = match half {
            Half::Low => VirtAddr(0),
            Half::High => VirtAddr(0u64.wrapping_sub(1 << G::VA_BITS)),
        };
        Self {
            root,
            start,
            unimplemented_pa: !((1 << config.pa_bits) - 1) | (G::PAGE_SIZE - 1),
            half,
            tables: trace::hooked(tables),
            mmu: trace::hooked(mmu),
            config,
            withheld: Withheld::default(),
            granule: PhantomData,
        }
    }

    /// Another handle on the same tables, with the same policy. A table that one of them withholds
    /// ([`reclaim`](Self::reclaim)) is none of the other's.
    pub fn handle<U: Tables, N: Mmu>(&self, tables: U, mmu: N) -> Tree<G, U, N> {
        Tree::new(self.root, self.half, tables, mmu, self.config)
    }

    /// The root table: what TTBR0 or TTBR1 holds.
    pub fn root(&self) -> PhysAddr {
        self.root
    }

    /// The half of the address space that it translates.
    pub fn half(&self) -> Half {
        self.half
    }

    /// The table memory.
    #[inline(always)]
    pub fn tables(&self) -> &T {
        trace::inner(&self.tables)
    }

    /// The barriers and invalidations.
    #[inline(always)]
    pub fn mmu(&self) -> &M {
        trace::inner(&self.mmu)
    }

    /// The policy.
    #[inline(always)]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Whether a live leaf with the attributes `old` may become one with `new` in place (DESIGN
    /// rules 3 and 11).
    pub(crate) fn may_change_in_place(&self, old: Attributes, new: Attributes) -> bool {
        let break_it = self.config.break_executable && old.is_executable() && !new.is_executable();
        old.may_change_in_place_to(new) && !break_it
    }

    /// Every address that the tree could translate.
    pub fn range(&self) -> VirtRange {
        VirtRange::new(self.start, 1 << G::VA_BITS)
    }

    /// The first of them.
    #[inline(always)]
    pub(crate) fn start(&self) -> VirtAddr {
        self.start
    }

    /// Whether `range` is page-aligned, not empty, and in this tree's half.
    #[inline(always)]
    pub(crate) fn validate(&self, range: VirtRange) -> Result<(), Error> {
        let VirtRange { start, size } = range;
        if (start.0 | size) & (G::PAGE_SIZE - 1) != 0 {
            let odd = if start.is_aligned(G::PAGE_SIZE) {
                size
            } else {
                start.0
            };
            return Err(Error::Misaligned(odd));
        }
        if size == 0 {
            return Err(Error::Empty(start));
        }
        let all = self.range();
        let offset = start.offset_from(all.start);
        if offset >= all.size || size > all.size - offset {
            return Err(Error::NonCanonical(start, size));
        }
        Ok(())
    }

    /// Bits that a physical address must not have.
    #[inline(always)]
    pub(crate) fn unimplemented_pa(&self) -> u64 {
        self.unimplemented_pa
    }

    /// The root as a node.
    #[inline(always)]
    pub(crate) fn root_node(&self) -> Node {
        Node {
            table: self.root,
            level: G::ROOT_LEVEL,
            parent: self.root,
            index: 0,
        }
    }

    /// The node behind the link `found` at `index` of `node`.
    #[inline(always)]
    pub(crate) fn child(&self, node: &Node, index: usize, found: Descriptor) -> Node {
        Node {
            table: found.address::<G>(),
            level: node.level + 1,
            parent: node.table,
            index,
        }
    }

    #[inline(always)]
    pub(crate) fn load(&self, table: PhysAddr, index: usize) -> Descriptor {
        Descriptor(self.tables.load(table, index))
    }

    /// As [`load`](Self::load), but waits for a link that is leaving.
    #[inline(always)]
    pub(crate) fn load_settled(&self, table: PhysAddr, index: usize) -> Descriptor {
        loop {
            let found = self.load(table, index);
            if found != Descriptor::LEAVING {
                return found;
            }
            core::hint::spin_loop();
        }
    }

    /// Raises the count of occupied descriptors of `node` by `nr`, which also keeps it linked.
    #[inline(always)]
    pub(crate) fn occupy(&self, node: &Node, nr: usize) -> Result<(), Unlinked> {
        let link = self.load(node.parent, node.index);
        self.occupy_from(node, link, nr)
    }

    /// As [`occupy`](Self::occupy), where the link has just been read.
    #[inline(always)]
    pub(crate) fn occupy_from(&self, node: &Node, link: Descriptor, nr: usize) -> Result<(), Unlinked> {
        if node.level == G::ROOT_LEVEL {
            return Ok(());
        }
        let mut link = link.0;
        loop {
            if !Descriptor(link).is_table(node.level - 1) || table_of(link, G::PAGE_SIZE) != node.table {
                return Err(Unlinked);
            }
            let raised = Descriptor(link).occupied_more::<G>(nr).0;
            match self
                .tables
                .compare_exchange(node.parent, node.index, link, raised)
            {
                Ok(()) => return Ok(()),
                Err(found) => link = found,
            }
        }
    }

    /// As [`occupy`](Self::occupy), where the link has just been found to lead to `node`.
    #[inline(always)]
    pub(crate) fn occupy_seen(&self, node: &Node, link: Descriptor, nr: usize) -> Result<(), Unlinked> {
        let raised = link.occupied_more::<G>(nr).0;
        if node.level == G::ROOT_LEVEL
            || self
                .tables
                .compare_exchange(node.parent, node.index, link.0, raised)
                .is_ok()
        {
            return Ok(());
        }
        self.occupy(node, nr)
    }

    /// As [`vacate`](Self::vacate), where the link has just been found to lead to `node`, which is not the root.
    #[inline(always)]
    pub(crate) fn vacate_seen(&self, node: &Node, link: Descriptor, nr: usize) -> Descriptor {
        if link.occupied::<G>() >= nr {
            let lowered = link.occupied_less::<G>(nr);
            if self
                .tables
                .compare_exchange(node.parent, node.index, link.0, lowered.0)
                .is_ok()
            {
                return lowered;
            }
        }
        self.vacate(node, nr)
    }

    /// Lowers the count of `node` by `nr` and gives the link that it left, whose count may now be 0.
    ///
    /// # Panics
    /// If the count was lower, or the node is not linked: the tree is corrupt.
    #[inline(always)]
    pub(crate) fn vacate(&self, node: &Node, nr: usize) -> Descriptor {
        let mut link = self.tables.load(node.parent, node.index);
        loop {
            let counts = Descriptor(link).is_table(node.level - 1)
                && table_of(link, G::PAGE_SIZE) == node.table
                && Descriptor(link).occupied::<G>() >= nr;
            if !counts {
                corrupt_count(link, node.table, nr);
            }
            let lowered = Descriptor(link).occupied_less::<G>(nr).0;
            match self
                .tables
                .compare_exchange(node.parent, node.index, link, lowered)
            {
                Ok(()) => return Descriptor(lowered),
                Err(found) => link = found,
            }
        }
    }

    /// As [`vacate`](Self::vacate), where an unmap of the whole span may have unlinked `node` already.
    pub(crate) fn vacate_if_linked(&self, node: &Node, nr: usize) {
        let mut link = self.load(node.parent, node.index);
        while link.is_table(node.level - 1) && table_of(link.0, G::PAGE_SIZE) == node.table {
            let lowered = link.occupied_less::<G>(nr);
            match self
                .tables
                .compare_exchange(node.parent, node.index, link.0, lowered.0)
            {
                Ok(()) => return,
                Err(found) => link = Descriptor(found),
            }
        }
    }

    /// Unlinks `node` if `link` is still its link and counts nothing. The link stays counted in the parent's own link.
    #[inline(always)]
    pub(crate) fn unlink_if_empty(&self, node: &Node, link: Descriptor) -> bool {
        // Another CPU may have unlinked it meanwhile, and a third may have linked another in its place.
        link.occupied::<G>() == 0
            && table_of(link.0, G::PAGE_SIZE) == node.table
            && self
                .tables
                .compare_exchange(node.parent, node.index, link.0, 0)
                .is_ok()
    }

    /// How many descriptors of `level` the range `va + remaining` touches from `va` to the end of its table, and the index
    /// of the first.
    #[inline(always)]
    pub(crate) fn slots(&self, level: Level, va: VirtAddr, remaining: u64) -> (usize, usize) {
        let index = G::index(va.0, level);
        let shift = G::shift(level);
        let offset = va.0 & ((1 << shift) - 1);
        // The root may resolve fewer bits than a table has, but a validated range never leaves it.
        let nr = (offset + remaining).div_ceil(1 << shift);
        let left = (G::root_entries_at(level) - index) as u64;
        (index, nr.min(left) as usize)
    }
}

/// Takes values and not the node, which would have to be in memory for it.
#[cold]
#[inline(never)]
fn corrupt_count(link: u64, table: PhysAddr, nr: usize) -> ! {
    panic!("link {link:#x} of table {table:?} cannot lose {nr}");
}

#[inline(always)]
fn table_of(link: u64, page_size: u64) -> PhysAddr {
    PhysAddr(link & ADDRESS & !(page_size - 1))
}

/// The part of `range` that lies in the descriptor of `level` which covers `va`: from `va` on, its size.
#[inline(always)]
pub(crate) fn part<G: Granule>(level: Level, va: VirtAddr, remaining: u64) -> u64 {
    let size = G::size(level);
    remaining.min(size - (va.0 & (size - 1)))
}

const _: () = assert!(LAST_LEVEL == 3);
