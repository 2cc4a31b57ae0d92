//! A translation tree: its root, its half of the address space, and the links between its tables.
//!
//! # Who may call what at once
//! Operations take `&self`. The rule is ownership of **addresses**: a range belongs to one caller
//! from before its map until after the flush that follows its unmap.
//!
//! 1. [`map`](Tree::map), [`unmap`](Tree::unmap), [`protect`](Tree::protect) and the other edits
//!    may run at once on ranges that share no leaf. They may share tables: each writes the leaves
//!    of its own range and nothing else, by plain stores.
//! 2. A missing table is linked by compare-exchange from 0. The loser of a race frees its page and
//!    uses the winner's table. So the only word that two callers ever both write is a link, once.
//! 3. A table is unlinked only (a) by an `unmap` or `coalesce` whose range covers **all that the
//!    table translates**, since then no other range has a leaf below it, and (b) by
//!    [`prune`](Tree::prune), which looks for empty tables and must be called with all other
//!    operations kept out. An emptied table that (a) does not cover stays linked, for the next map.
//! 4. An unlinked table may linger in walk caches until the flush, so nothing may be mapped in its
//!    span before that: the owner of the range keeps it until then anyway. It is freed by the
//!    flush, and software that reads tables of others ([`translate`](Tree::translate),
//!    [`walk`](Tree::walk), [`visit`](Tree::visit), [`dump`](Tree::dump)) must not be in it any
//!    more: with a readers' lock around walks, the flush of a batch that holds tables takes it
//!    alone.
//! 5. `map` takes no table out. Where an empty one stands in the way of a block it fails with
//!    [`Error::EmptyTable`]; `prune` the range, and map again.
//!
//! There are no counts, no marks in links, and no lock: mapping and unmapping where tables exist
//! writes no word that another range's owner reads or writes.

use crate::addr::{PhysAddr, VirtAddr, VirtRange};
use crate::descriptor::{Attributes, Descriptor, TABLE_OR_PAGE, VALID};
use crate::granule::{Granule, LAST_LEVEL, Level};
use crate::mmu::Mmu;
use crate::outcome::{Error, LeafSet, Outcome};
use crate::tables::Tables;
use crate::trace::{self, Hooked};
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
#[non_exhaustive]
pub enum BreakPolicy {
    /// Break-before-make: right on every CPU (DESIGN rule 3).
    #[default]
    BreakBeforeMake,
    /// Replaced in place, invalidated afterwards. Only for CPUs that are known to keep translating
    /// without a conflict abort; FEAT_BBM level 2 alone does not promise that (Arm ARM D8.16.1.1).
    InPlace,
}

/// Policy of a tree, fixed when it is made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Config {
    /// Implemented physical address bits (ID_AA64MMFR0_EL1.PARange), at most
    /// [`Granule::PA_BITS`].
    pub pa_bits: u32,
    /// Leaf sizes that any mapping may use. Without groups on a CPU whose contiguous bit has an
    /// erratum.
    pub leaves: LeafSet,
    /// How live leaves are split and folded.
    pub break_policy: BreakPolicy,
    /// Whether a TLBI must be repeated (DESIGN rule 11).
    pub repeat_tlbi: bool,
    /// Whether execute permission is taken away by break-before-make, not in place (DESIGN rule
    /// 11).
    pub break_executable: bool,
    /// More TLBIs than this, at least 1, become one `VMALLE1IS`. 512 is what Linux takes with 4 KiB
    /// pages: beyond it, refilling a TLB costs less than the broadcasts.
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

/// A translation tree: tables in `T`, barriers and TLBIs by `M`.
///
/// It has no destructor: it is a [handle](Self::handle) on tables by which a CPU may translate. To
/// have them back, unmap the [range](Self::range), flush, and free the [root](Self::root).
#[derive(Debug)]
pub struct Tree<G: Granule, T: Tables, M: Mmu> {
    root: PhysAddr,
    /// The first address, by `half`; used in every call.
    start: VirtAddr,
    /// Bits that a physical address must not have, by `config`; used in every call.
    unimplemented_pa: u64,
    half: Half,
    // The engine uses these fields, with their hooks; callers get what is behind.
    pub(crate) tables: Hooked<T>,
    pub(crate) mmu: Hooked<M>,
    config: Config,
    granule: PhantomData<G>,
}

/// A table, and the level of its descriptors.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Node {
    pub(crate) table: PhysAddr,
    pub(crate) level: Level,
}

/// What kinds of descriptors a stretch of a table holds: the AND and the OR of their bits
/// ([`Tables::kinds`]).
#[derive(Clone, Copy)]
pub(crate) struct Kinds {
    pub(crate) and: u64,
    pub(crate) or: u64,
}

impl Kinds {
    /// Returns whether all of them are vacant.
    #[inline(always)]
    pub(crate) const fn is_vacant(self) -> bool {
        self.or & Descriptor::KIND_BITS == 0
    }

    /// Returns whether all of them are valid leaves of `level`.
    #[inline(always)]
    pub(crate) const fn are_valid_leaves(self, level: Level) -> bool {
        self.and & VALID != 0 && (level == LAST_LEVEL || self.or & TABLE_OR_PAGE == 0)
    }
}

impl<G: Granule, T: Tables, M: Mmu> Tree<G, T, M> {
    /// Returns the tree whose root table is at `root`.
    ///
    /// Not `unsafe`, since table memory is reached only through `T`, whose implementation made that
    /// promise; but a tree that a CPU translates by is as powerful as a pointer, so a kernel guards
    /// who may call `map`, `unmap` and `protect` on which ranges.
    ///
    /// # Panics
    /// If `root` is not aligned to a page, `config.pa_bits` is not within `PAGE_SHIFT + 1..=PA_BITS`,
    /// or `config.flush_all_above` is 0.
    pub fn new(root: PhysAddr, half: Half, tables: T, mmu: M, config: Config) -> Self {
        assert!(root.is_aligned(G::PAGE_SIZE), "root table at {root:?}");
        assert!(
            config.pa_bits > G::PAGE_SHIFT && config.pa_bits <= G::PA_BITS,
            "{} physical address bits",
            config.pa_bits
        );
        assert!(config.flush_all_above != 0, "no TLBI by address would be allowed");
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
            granule: PhantomData,
        }
    }

    /// Returns another handle on the same tables, with the same policy.
    pub fn handle<U: Tables, N: Mmu>(&self, tables: U, mmu: N) -> Tree<G, U, N> {
        Tree::new(self.root, self.half, tables, mmu, self.config)
    }

    /// Returns the root table: what TTBR0 or TTBR1 holds.
    pub fn root(&self) -> PhysAddr {
        self.root
    }

    /// Returns the half of the address space that it translates.
    pub fn half(&self) -> Half {
        self.half
    }

    /// Returns the table memory.
    #[inline]
    pub fn tables(&self) -> &T {
        trace::inner(&self.tables)
    }

    /// Returns the barriers and invalidations.
    #[inline]
    pub fn mmu(&self) -> &M {
        trace::inner(&self.mmu)
    }

    /// Returns the policy.
    #[inline]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Returns whether a live leaf with the attributes `old` may become one with `new` in place
    /// (DESIGN rules 3 and 11).
    pub(crate) fn may_change_in_place(&self, old: Attributes, new: Attributes) -> bool {
        let break_it = self.config.break_executable && old.is_executable() && !new.is_executable();
        old.may_change_in_place_to(new) && !break_it
    }

    /// Every address that the tree could translate.
    #[inline]
    pub fn range(&self) -> VirtRange {
        VirtRange::new(self.start, 1 << G::VA_BITS)
    }

    /// Whether `range` is page-aligned, not empty, and in this tree's half.
    #[inline]
    pub(crate) fn validate(&self, range: VirtRange) -> Result<(), Error> {
        let VirtRange { start, size } = range;
        // Both ends in this half, and a last page that is not before the first, as for an empty
        // range.
        let (first, length) = (start.offset_from(self.start), size.wrapping_sub(1));
        let within = (first | length | first.wrapping_add(length)) >> G::VA_BITS == 0;
        if (start.0 | size) & (G::PAGE_SIZE - 1) == 0 && within {
            return Ok(());
        }
        Err(refusal::<G>(range))
    }

    /// Bits that a physical address must not have.
    #[inline]
    pub(crate) fn unimplemented_pa(&self) -> u64 {
        self.unimplemented_pa
    }

    /// Returns the root as a node.
    #[inline]
    pub(crate) fn root_node(&self) -> Node {
        Node {
            table: self.root,
            level: G::ROOT_LEVEL,
        }
    }

    /// Returns the node behind the link `found` in `node`.
    #[inline]
    pub(crate) fn child(&self, node: Node, found: Descriptor) -> Node {
        Node {
            table: found.address::<G>(),
            level: node.level + 1,
        }
    }

    #[inline]
    pub(crate) fn load(&self, table: PhysAddr, index: usize) -> Descriptor {
        Descriptor(self.tables.load(table, index))
    }

    /// Returns whether `nr` descriptors of `node` from `index` on are vacant.
    #[inline]
    pub(crate) fn are_vacant(&self, node: Node, index: usize, nr: usize) -> bool {
        if nr == 1 {
            self.load(node.table, index).is_vacant()
        } else {
            self.tables.are_vacant(node.table, index, nr)
        }
    }

    /// Returns the kinds of `nr` descriptors of `node` from `index` on.
    #[inline]
    pub(crate) fn kinds(&self, node: Node, index: usize, nr: usize) -> Kinds {
        let (and, or) = if nr == 1 {
            let found = self.tables.load(node.table, index);
            (found, found)
        } else {
            self.tables.kinds(node.table, index, nr)
        };
        Kinds { and, or }
    }

    /// Returns the table of `level` that translates all of `range`, if it is linked.
    #[inline(always)]
    pub(crate) fn linked_table(&self, level: Level, range: VirtRange) -> Option<PhysAddr> {
        let mut table = self.root;
        // A loop over constants, so that each turn has constant shifts.
        for above in G::levels_before(LAST_LEVEL) {
            if above >= level {
                break;
            }
            trace::level::<G>(Node { table, level: above }, range.start, range.size);
            let found = self.load(table, G::index(range.start.0, above));
            if !found.is_link() {
                return None;
            }
            table = found.address::<G>();
        }
        trace::level::<G>(Node { table, level }, range.start, range.size);
        Some(table)
    }

    /// Returns the table of `level` that translates the first address of `range`, from `above`
    /// down. What is missing is made.
    ///
    /// # Errors
    /// [`Error::OutOfTables`]; [`Error::Occupied`] if a leaf is on the way.
    #[inline(always)]
    pub(crate) fn table_at(
        &self,
        above: Node,
        level: Level,
        range: VirtRange,
        outcome: &mut Outcome,
    ) -> Result<Node, Error> {
        let va = range.start;
        let mut table = above.table;
        // As in `linked_table`.
        for at in G::levels_before(LAST_LEVEL) {
            if at < above.level || at >= level {
                continue;
            }
            let index = G::index(va.0, at);
            let found = self.load(table, index);
            table = if found.is_link() {
                found.address::<G>()
            } else {
                let (table, is_new) = self.link_table(Node { table, level: at }, index, va)?;
                outcome.linked(at, is_new);
                table
            };
            trace::level::<G>(Node { table, level: at + 1 }, va, range.size);
        }
        Ok(Node { table, level })
    }

    /// Returns the table behind `index` of `node`: a new one, unless another caller is faster.
    /// Whether it is new.
    #[cold]
    #[inline(never)]
    fn link_table(&self, node: Node, index: usize, va: VirtAddr) -> Result<(PhysAddr, bool), Error> {
        let level = node.level;
        let found = self.load(node.table, index);
        if !found.is_vacant() && !found.is_table(level) {
            return Err(Error::Occupied { va, level, found });
        }
        let table = self.tables.alloc_table().ok_or(Error::OutOfTables(level + 1))?;
        let link = Descriptor::table::<G>(table);
        // The exchange releases: a walk that finds the link finds the table zeroed (DESIGN rule 2).
        match self.tables.compare_exchange(node.table, index, 0, link.0) {
            Ok(()) => Ok((table, true)),
            Err(found) => {
                // Another caller was faster. This page was never linked.
                self.tables.free_table(table);
                let found = Descriptor(found);
                if !found.is_table(level) {
                    return Err(Error::Occupied { va, level, found });
                }
                Ok((found.address::<G>(), false))
            }
        }
    }

    /// Returns the index of the first descriptor of `level` that the range `va + remaining`
    /// touches, and how many. One table holds all of it.
    #[inline]
    pub(crate) fn slots(&self, level: Level, va: VirtAddr, remaining: u64) -> (usize, usize) {
        let index = G::index(va.0, level);
        let shift = G::shift(level);
        let nr = (va.0.wrapping_add(remaining - 1) >> shift) - (va.0 >> shift) + 1;
        debug_assert!(
            index + nr as usize <= G::root_entries_at(level),
            "{remaining:#x} bytes at {va:?} leave their table of level {level}"
        );
        (index, nr as usize)
    }
}

/// Returns why `range` is refused.
#[cold]
#[inline(never)]
fn refusal<G: Granule>(range: VirtRange) -> Error {
    let VirtRange { start, size } = range;
    if !start.is_aligned(G::PAGE_SIZE) {
        Error::Misaligned(start.0)
    } else if size & (G::PAGE_SIZE - 1) != 0 {
        Error::Misaligned(size)
    } else if size == 0 {
        Error::Empty(start)
    } else {
        Error::NonCanonical(start, size)
    }
}

/// Returns the level of the lowest table that translates more than `range`, and all of it.
#[inline]
pub(crate) fn level_around<G: Granule>(range: VirtRange) -> Level {
    let VirtRange { start, size } = range;
    // The bits that vary within the range, and its size: a descriptor that covers just the range is
    // looked at as a whole, since it may be a block, or a link to a table that goes.
    let extent = (start.0 ^ start.0.wrapping_add(size.wrapping_sub(1))) | size;
    let mut level = LAST_LEVEL;
    while level > G::ROOT_LEVEL && extent >= G::size(level - 1) {
        level -= 1;
    }
    level
}

/// Returns the part of `range` that lies in the descriptor of `level` which covers `va`: from `va`
/// on, its size.
#[inline]
pub(crate) fn part<G: Granule>(level: Level, va: VirtAddr, remaining: u64) -> u64 {
    let size = G::size(level);
    remaining.min(size - (va.0 & (size - 1)))
}

const _: () = assert!(LAST_LEVEL == 3);
