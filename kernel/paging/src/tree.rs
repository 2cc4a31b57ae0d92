//! [`Tree`]: a root, a half of the address space, the links between tables.

use crate::addr::{PhysAddr, VirtAddr, VirtRange};
use crate::descriptor::{Attributes, Descriptor, TABLE_OR_PAGE, VALID};
use crate::granule::{Granule, LAST_LEVEL, Level};
use crate::mmu::Mmu;
use crate::outcome::{Error, LeafSet, Outcome};
use crate::tables::Tables;
use crate::trace::{self, Hooked};
use core::marker::PhantomData;

/// The half of the address space that a tree translates.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Half {
    /// From 0 up, by TTBR0.
    Low,
    /// Down from the top, by TTBR1.
    High,
}

/// How a live leaf is replaced by leaves of another size.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, Default)]
#[non_exhaustive]
pub enum BreakPolicy {
    /// Right on every CPU (DESIGN rule 3).
    #[default]
    BreakBeforeMake,
    /// In place, invalidated afterwards. Only for CPUs that take no conflict abort, which FEAT_BBM
    /// level 2 does not promise (Arm ARM D8.16.1.1).
    InPlace,
}

/// Policy of a tree, fixed when it is made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Config {
    /// Implemented physical address bits, at most [`Granule::PA_BITS`].
    pub pa_bits: u32,
    /// No groups if the contiguous bit has an erratum.
    pub leaves: LeafSet,
    /// How live leaves are split and folded.
    pub break_policy: BreakPolicy,
    /// A TLBI is repeated (DESIGN rule 11).
    pub repeat_tlbi: bool,
    /// Execute permission goes by break-before-make (DESIGN rule 11).
    pub break_executable: bool,
    /// More TLBIs than this, at least 1, become one `VMALLE1IS`. Linux's is 512 with 4 KiB pages.
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
/// Without destructor: it is a [handle](Self::handle).
///
/// # Concurrency
/// Operations take `&self`, without locks. A range of **addresses** belongs to one caller from
/// before its map until after the flush that follows its unmap.
///
/// 1. Operations on ranges that share no leaf may run at once, though they share tables: each
///    writes its own leaves, by plain stores.
/// 2. A missing table is linked by compare-exchange from 0. The loser frees its page and uses the
///    winner's table.
/// 3. A table is unlinked only (a) by [`unmap`](Self::unmap), [`coalesce`](Self::coalesce) or
///    [`fold`](Self::fold) of **all that it translates**, so that no other range has a leaf below
///    it, (b) by [`prune`](Self::prune), with all other operations kept out.
/// 4. Walk caches may hold an unlinked table until the flush, which frees it. Software readers of
///    others' tables ([`translate`](Self::translate), [`walk`](Self::walk), [`visit`](Self::visit),
///    [`dump`](Self::dump)) must have left it by then: walks may share a readers' lock that such a
///    flush takes alone.
/// 5. [`map`](Self::map) unlinks nothing: an empty table in the way of a block is
///    [`Error::EmptyTable`].
#[derive(Debug)]
pub struct Tree<G: Granule, T: Tables, M: Mmu> {
    root: PhysAddr,
    start: VirtAddr,
    /// By `config`.
    unimplemented_pa: u64,
    half: Half,
    // Callers get what is behind the hooks.
    pub(crate) tables: Hooked<T>,
    pub(crate) mmu: Hooked<M>,
    config: Config,
    granule: PhantomData<G>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Node {
    pub(crate) table: PhysAddr,
    pub(crate) level: Level,
}

/// A descriptor, and the part of a range that it translates.
#[derive(Clone, Copy)]
pub(crate) struct Slot {
    pub(crate) index: usize,
    pub(crate) part: VirtRange,
    pub(crate) found: Descriptor,
}

#[derive(Clone, Copy)]
pub(crate) struct Kinds {
    pub(crate) and: u64,
    pub(crate) or: u64,
}

impl Kinds {
    #[inline(always)]
    pub(crate) const fn is_vacant(self) -> bool {
        self.or & Descriptor::KIND_BITS == 0
    }

    #[inline(always)]
    pub(crate) const fn are_valid_leaves(self, level: Level) -> bool {
        self.and & VALID != 0 && (level == LAST_LEVEL || self.or & TABLE_OR_PAGE == 0)
    }
}

impl<G: Granule, T: Tables, M: Mmu> Tree<G, T, M> {
    /// Returns the tree whose root table is at `root`. A tree that a CPU translates by is as
    /// powerful as a pointer: a kernel guards who changes which ranges.
    ///
    /// # Panics
    /// If `root` is not page-aligned, `config.pa_bits` is not within `PAGE_SHIFT + 1..=PA_BITS`, or
    /// `config.flush_all_above` is 0.
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
            tables: Hooked(tables),
            mmu: Hooked(mmu),
            config,
            granule: PhantomData,
        }
    }

    /// Returns another handle on the same tables.
    pub fn handle<U: Tables, N: Mmu>(&self, tables: U, mmu: N) -> Tree<G, U, N> {
        Tree::new(self.root, self.half, tables, mmu, self.config)
    }

    /// Returns the root table.
    pub fn root(&self) -> PhysAddr {
        self.root
    }

    /// Returns the table memory.
    #[inline]
    pub fn tables(&self) -> &T {
        &self.tables.0
    }

    /// Returns the barriers and invalidations.
    #[inline]
    pub fn mmu(&self) -> &M {
        &self.mmu.0
    }

    /// Returns the policy.
    #[inline]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// DESIGN rules 3 and 11.
    pub(crate) fn may_change_in_place(&self, old: Attributes, new: Attributes) -> bool {
        let break_it = self.config.break_executable && old.is_executable() && !new.is_executable();
        old.may_change_in_place_to(new) && !break_it
    }

    /// Returns all addresses that the tree could translate.
    #[inline]
    pub fn range(&self) -> VirtRange {
        VirtRange::new(self.start, 1 << G::VA_BITS)
    }

    #[inline]
    pub(crate) fn validate(&self, range: VirtRange) -> Result<(), Error> {
        if self.is_valid::<{ Level::MIN }>(range) {
            Ok(())
        } else {
            Err(refusal::<G>(range))
        }
    }

    /// Whether `range`, which a table of `TOP` holds, is pages of this half.
    #[inline]
    pub(crate) fn is_valid<const TOP: Level>(&self, range: VirtRange) -> bool {
        let VirtRange { start, size } = range;
        let mut outside = start.0 ^ self.start.0;
        if TOP <= G::ROOT_LEVEL {
            // Else both ends are in one half, which the start tells.
            outside |= (range.last().0 ^ self.start.0) | size.wrapping_sub(1);
        }
        (outside >> G::VA_BITS) | ((start.0 | size) & (G::PAGE_SIZE - 1)) == 0 && size != 0
    }

    #[inline]
    pub(crate) fn unimplemented_pa(&self) -> u64 {
        self.unimplemented_pa
    }

    #[inline]
    pub(crate) fn root_node(&self) -> Node {
        Node {
            table: self.root,
            level: G::ROOT_LEVEL,
        }
    }

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

    #[inline]
    pub(crate) fn are_vacant(&self, node: Node, index: usize, nr: usize) -> bool {
        if nr == 1 {
            self.load(node.table, index).is_vacant()
        } else {
            self.tables.are_vacant(node.table, index, nr)
        }
    }

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

    /// Returns the table of `level`, or the last above it that is linked.
    #[inline(always)]
    pub(crate) fn linked_table(&self, level: Level, range: VirtRange) -> Node {
        let mut node = self.root_node();
        // Over constants, so that shifts are.
        for above in G::levels_before(LAST_LEVEL) {
            if above >= level {
                break;
            }
            trace::level::<G>(node, range);
            let found = self.load(node.table, G::index(range.start.0, above));
            if !found.is_link() {
                return node;
            }
            node = self.child(node, found);
        }
        trace::level::<G>(node, range);
        node
    }

    /// It holds all of `range`, and is the lowest.
    pub(crate) fn table_around(&self, range: VirtRange) -> Node {
        let level = level_around::<G>(range);
        let mut node = self.root_node();
        while node.level < level {
            trace::level::<G>(node, range);
            let found = self.load(node.table, G::index(range.start.0, node.level));
            if !found.is_table(node.level) {
                break;
            }
            node = self.child(node, found);
        }
        node
    }

    /// Made if missing: [`Error::OutOfTables`], or [`Error::Occupied`] by a leaf.
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
            trace::level::<G>(Node { table, level: at + 1 }, range);
        }
        Ok(Node { table, level })
    }

    /// And whether it is new.
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
        // Release: a walk that finds the link finds the table zeroed (DESIGN rule 2).
        match self.tables.compare_exchange(node.table, index, 0, link.0) {
            Ok(()) => Ok((table, true)),
            Err(found) => {
                // This page was never linked.
                self.tables.free_table(table);
                let found = Descriptor(found);
                if !found.is_table(level) {
                    return Err(Error::Occupied { va, level, found });
                }
                Ok((found.address::<G>(), false))
            }
        }
    }

    /// Takes what the first descriptor translates off `rest`.
    #[inline]
    pub(crate) fn next_slot(&self, node: Node, rest: &mut VirtRange) -> Option<Slot> {
        if rest.size == 0 {
            return None;
        }
        let size = G::size(node.level);
        let to_end = size - (rest.start.0 & (size - 1));
        let part = VirtRange::new(rest.start, rest.size.min(to_end));
        let index = G::index(part.start.0, node.level);
        *rest = rest.without(part.size);
        Some(Slot {
            index,
            part,
            found: self.load(node.table, index),
        })
    }
}

/// Returns why `range` is not valid.
#[cold]
#[inline(never)]
pub(crate) fn refusal<G: Granule>(range: VirtRange) -> Error {
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

/// It translates more than `range`.
#[inline]
pub(crate) fn level_around<G: Granule>(range: VirtRange) -> Level {
    let VirtRange { start, size } = range;
    // A descriptor that covers just the range may be a block, or a link to take out.
    let extent = (start.0 ^ start.0.wrapping_add(size.wrapping_sub(1))) | size;
    let mut level = LAST_LEVEL;
    while level > G::ROOT_LEVEL && extent >= G::size(level - 1) {
        level -= 1;
    }
    level
}

const _: () = assert!(LAST_LEVEL == 3);
