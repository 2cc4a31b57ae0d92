//! Nodes, the pages that they are cut from, and the pool of spare ones.
//!
//! A page that was fed is never freed, and what was a [`Node`] once stays a [`Node`] for ever.
//! So a node is named by a plain `&'static Node`, and following a link needs no `unsafe`: all that
//! it leads to is a node.
//!
//! # Who may touch what
//! - `start` and `pages` of an area that is not a gap do not change. They may be read by the holder
//!   of its [`Area`](super::Area) and of the space.
//! - `chain` belongs to the holder of the node outside the tree: its `Area`, a cache, a
//!   deferred-free list, or the pool.
//! - `meta` and `words` are atomic. The holder of the area changes them, and the holder of the
//!   space may read them meanwhile: each word is one of those that the area had, and `meta` is
//!   stored by release after the words of a new area.
//! - Everything else belongs to the space: read with `&Space`, written with `&mut Space`.
//!
//! An area that is taken out of a cache, or cut anew, changes state under the lock of the space,
//! which also guards the cache. So a look at the space never mixes two uses of one node. Its holder
//! may retire it at any time.
//!
//! These rules are what the `unsafe impl`s of `Send` and `Sync` in this module and its neighbours
//! stand on.

use super::State;
use core::cell::Cell;
use core::mem::{MaybeUninit, size_of};
use core::sync::atomic::AtomicU64;
use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};

/// Bits that a node has for the number of guard pages on either side.
const GUARD_BITS: u32 = 14;
const OWNER_SHIFT: u32 = 48;
/// The most guard pages on either side of an area.
pub const MAX_GUARD: u16 = (1 << GUARD_BITS) - 1;

/// A page of memory for nodes, given for ever.
#[repr(C, align(4096))]
pub struct NodePage(MaybeUninit<[u8; 4096]>);

impl NodePage {
    /// Returns a page with arbitrary contents.
    pub const fn uninit() -> Self {
        Self(MaybeUninit::uninit())
    }

    /// Holds `value` instead of nodes, for ever.
    pub fn hold<T>(&'static mut self, value: T) -> &'static T {
        self.hold_mut(value)
    }

    /// The same, for its only user.
    pub fn hold_mut<T>(&'static mut self, value: T) -> &'static mut T {
        const { assert!(size_of::<T>() <= size_of::<Self>() && align_of::<T>() <= align_of::<Self>()) };
        let place = core::ptr::from_mut(self).cast::<MaybeUninit<T>>();
        // SAFETY: the page is ours alone and for ever (`&'static mut`), and large and aligned
        // enough, as asserted above.
        unsafe { &mut *place }.write(value)
    }
}

/// Where pages for nodes come from.
pub trait NodePages {
    /// A page for ever, or `None` when there is none.
    fn node_page(&self) -> Option<&'static mut NodePage>;
}

pub(super) type NodeRef<const W: usize> = &'static Node<W>;
pub(super) type Link<const W: usize> = Cell<Option<NodeRef<W>>>;

/// Which subtree of a node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Side {
    /// Lower addresses.
    Left,
    /// Higher addresses.
    Right,
}

impl Side {
    #[inline(always)]
    pub const fn other(self) -> Self {
        match self {
            Self::Left => Self::Right,
            Self::Right => Self::Left,
        }
    }
}

/// A segment of the region, or a spare node.
///
/// What another CPU than that of its space touches when it ends an area is in its first half line:
/// state, link, and the first two words. Half a line is never in two lines.
#[repr(C, align(32))]
pub(super) struct Node<const W: usize> {
    /// State, guards and owner: see [`meta`].
    meta: AtomicU64,
    /// The next one in a cache, a deferred-free list or the pool.
    pub chain: Link<W>,
    /// The caller's.
    words: [AtomicU64; W],
    /// First page.
    pub start: Cell<u64>,
    /// Pages, guards included.
    pub pages: Cell<u64>,
    /// The subtrees below and above, indexed by a [`Side`].
    child: [Link<W>; 2],
    /// Largest gap in this subtree, saturated.
    pub max: Cell<u32>,
    /// Pages of this gap, saturated; 0 for an area.
    pub gap: Cell<u32>,
    /// Its rank in the tree (module `tree`).
    pub rank: Cell<u32>,
    pub parent: Link<W>,
    /// Neighbours in address order.
    pub prev: Link<W>,
    pub next: Link<W>,
}

impl<const W: usize> Node<W> {
    fn new(owner: u16) -> Self {
        Self {
            meta: AtomicU64::new(State::Gap as u64 | (owner as u64) << OWNER_SHIFT),
            chain: Cell::new(None),
            words: [const { AtomicU64::new(0) }; W],
            start: Cell::new(0),
            pages: Cell::new(0),
            child: [const { Cell::new(None) }; 2],
            max: Cell::new(0),
            gap: Cell::new(0),
            parent: Cell::new(None),
            prev: Cell::new(None),
            next: Cell::new(None),
            rank: Cell::new(1),
        }
    }

    /// Returns the number of the space that it was cut for.
    #[inline(always)]
    pub fn owner(&self) -> u16 {
        (self.meta.load(Relaxed) >> OWNER_SHIFT) as u16
    }

    /// Its owner alone, as `meta` has it.
    #[inline(always)]
    fn owner_bits(&self) -> u64 {
        self.meta.load(Relaxed) >> OWNER_SHIFT << OWNER_SHIFT
    }

    #[inline(always)]
    pub fn child(&self, side: Side) -> Option<NodeRef<W>> {
        self.child[side as usize].get()
    }

    #[inline(always)]
    pub fn set_child(&self, side: Side, child: Option<NodeRef<W>>) {
        self.child[side as usize].set(child);
    }

    /// Returns the page behind the last.
    #[inline(always)]
    pub fn end(&self) -> u64 {
        self.start.get() + self.pages.get()
    }

    #[inline(always)]
    pub fn state(&self) -> State {
        state_of(self.meta.load(Acquire))
    }

    /// State, lead and trail of one moment.
    #[inline(always)]
    pub fn state_and_guards(&self) -> (State, u16, u16) {
        let meta = self.meta.load(Acquire);
        let (lead, trail) = guards_of(meta);
        (state_of(meta), lead, trail)
    }

    #[inline(always)]
    pub fn is_gap(&self) -> bool {
        self.meta.load(Relaxed) as u8 == State::Gap as u8
    }

    #[inline(always)]
    pub fn guards(&self) -> (u16, u16) {
        guards_of(self.meta.load(Relaxed))
    }

    /// Makes the node a gap.
    #[inline(always)]
    pub fn set_gap_state(&self) {
        self.meta.store(self.owner_bits() | State::Gap as u64, Release);
    }

    /// Makes the node an area that is in use, with `words`.
    #[inline(always)]
    pub fn begin(&self, words: &[u64; W], lead: u16, trail: u16) {
        self.set_words(words);
        self.meta
            .store(self.owner_bits() | meta(State::Owned, lead, trail), Release);
    }

    /// Changes the state and nothing else.
    #[inline(always)]
    pub fn set_state(&self, state: State) {
        let rest = self.meta.load(Relaxed) & !0xff;
        self.meta.store(rest | state as u64, Release);
    }

    /// Sets the bounds.
    #[inline(always)]
    pub fn set_bounds(&self, start: u64, pages: u64) {
        self.start.set(start);
        self.pages.set(pages);
    }

    #[inline(always)]
    pub fn words(&self) -> [u64; W] {
        core::array::from_fn(|i| self.words[i].load(Relaxed))
    }

    #[inline(always)]
    pub fn word(&self, index: usize) -> u64 {
        self.words[index].load(Relaxed)
    }

    #[inline(always)]
    pub fn set_word(&self, index: usize, value: u64) {
        self.words[index].store(value, Relaxed);
    }

    #[inline(always)]
    pub fn set_words(&self, words: &[u64; W]) {
        for (mine, theirs) in self.words.iter().zip(words) {
            mine.store(*theirs, Relaxed);
        }
    }
}

/// State in bits 7:0, lead in 21:8, trail in 35:22. The number of the space that the node was cut
/// for, which never changes, is in 63:48.
#[inline(always)]
const fn meta(state: State, lead: u16, trail: u16) -> u64 {
    state as u64 | (lead as u64) << 8 | (trail as u64) << (8 + GUARD_BITS)
}

#[inline(always)]
const fn guards_of(meta: u64) -> (u16, u16) {
    (
        (meta >> 8) as u16 & MAX_GUARD,
        (meta >> (8 + GUARD_BITS)) as u16 & MAX_GUARD,
    )
}

#[inline(always)]
const fn state_of(meta: u64) -> State {
    match meta as u8 {
        x if x == State::Owned as u8 => State::Owned,
        x if x == State::Raw as u8 => State::Raw,
        x if x == State::Retired as u8 => State::Retired,
        x if x == State::Parked as u8 => State::Parked,
        _ => State::Gap,
    }
}

/// A number of pages as the tree keeps it.
#[inline(always)]
pub(super) const fn saturate(pages: u64) -> u32 {
    if pages < u32::MAX as u64 {
        pages as u32
    } else {
        u32::MAX
    }
}

/// Spare nodes: those that were in use, and the rest of the page fed last.
pub(super) struct Pool<const W: usize> {
    owner: u16,
    spare: Option<NodeRef<W>>,
    fresh: &'static mut [MaybeUninit<Node<W>>],
    nr_spare: usize,
    nr_fed: usize,
}

impl<const W: usize> Pool<W> {
    const NODES_PER_PAGE: usize = {
        let nr = size_of::<NodePage>() / size_of::<Node<W>>();
        // The first page must hold the first gap and the two nodes that a reservation may need.
        assert!(nr >= 3, "too many words: a page must hold three nodes");
        nr
    };

    pub fn new(owner: u16, page: &'static mut NodePage) -> Self {
        let mut pool = Self {
            owner,
            spare: None,
            fresh: &mut [],
            nr_spare: 0,
            nr_fed: 0,
        };
        pool.feed(page);
        pool
    }

    /// Returns the number of the space, which its nodes bear.
    pub const fn owner(&self) -> u16 {
        self.owner
    }

    pub const fn nr_spare(&self) -> usize {
        self.nr_spare
    }

    pub const fn nr_fed(&self) -> usize {
        self.nr_fed
    }

    pub fn feed(&mut self, page: &'static mut NodePage) {
        let base = core::ptr::from_mut(page).cast::<MaybeUninit<Node<W>>>();
        // SAFETY: the page is ours alone and for ever (`&'static mut`), is 4096 bytes at a multiple
        // of 4096, which is more than a node's alignment, and NODES_PER_PAGE nodes fit into it.
        // Uninitialised contents are fine for MaybeUninit.
        let fresh = unsafe { core::slice::from_raw_parts_mut(base, Self::NODES_PER_PAGE) };
        // What is left of the page before is few nodes or none: put it on the chain.
        let rest = core::mem::replace(&mut self.fresh, fresh);
        for slot in rest {
            let node: NodeRef<W> = slot.write(Node::new(self.owner));
            node.chain.set(self.spare);
            self.spare = Some(node);
        }
        self.nr_spare += Self::NODES_PER_PAGE;
        self.nr_fed += Self::NODES_PER_PAGE;
    }

    /// Returns a spare node: a leaf of the tree that is not linked yet.
    #[inline]
    pub fn take(&mut self) -> Option<NodeRef<W>> {
        let node = match self.spare {
            Some(node) => {
                self.spare = node.chain.take();
                node
            }
            None => {
                let (slot, rest) = core::mem::take(&mut self.fresh).split_first_mut()?;
                self.fresh = rest;
                slot.write(Node::new(self.owner))
            }
        };
        self.nr_spare -= 1;
        Some(node)
    }

    #[inline]
    pub fn free(&mut self, node: NodeRef<W>) {
        node.chain.set(self.spare);
        self.spare = Some(node);
        self.nr_spare += 1;
    }

    /// Walks the chain of spare nodes and counts it, at most `limit` of them.
    pub fn count_spare(&self, limit: usize) -> usize {
        let chain = core::iter::successors(self.spare, |node| node.chain.get());
        self.fresh.len() + chain.take(limit).count()
    }
}

// SAFETY: a pool is reached by one thread at a time when it is moved; the nodes that it names are
// reached through it alone, but for those that are in use, and these obey the rules of the module.
unsafe impl<const W: usize> Send for Pool<W> {}
