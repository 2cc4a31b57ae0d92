//! Nodes, the pages that they are cut from, and the pool of spare ones.
//!
//! A page that was fed is never given back, and what was a [`Node`] once stays a [`Node`] for ever. So a node is named by a
//! plain `&'static Node`, and following a link needs no `unsafe`: whatever it leads to is a node.
//!
//! # Who may touch what
//! - `start` and `pages` of an area that is not a gap do not change. They may be read by whoever holds its [`Area`](super::Area) or the
//!   space.
//! - `chain` belongs to whoever holds the node outside the tree: its `Area`, a cache, an inbox, or the pool.
//! - `meta` and `words` are atomic, and whoever has the space may look at them while somebody who has the area changes them: below.
//! - Everything else belongs to the space: read with `&Space`, written with `&mut Space`.
//!
//! # What is seen of an area that somebody else holds
//! An area goes from a cache to its next holder, and back, without the space being asked. A look at its words meanwhile must not mix two holders':
//!
//! 1. Only `&mut Space` makes a gap of an area, or an area of a gap. All other changes of state are the holder's.
//! 2. A new holder first makes the state [`Taken`](State::Taken), with the next [generation](Node::begin); a release fence; the words; and then, by release,
//!    the state [`Owned`](State::Owned).
//! 3. Every change of `meta` is a release.
//! 4. A look acquires `meta`, reads the words, and after an acquire fence reads `meta` again. If it is the same, the words are the state's.
//!
//! For: a word of the next holder that is seen makes his fence (2) synchronise with the look's (4), so that his `Taken`, or something later, is seen too, which has
//! another generation. And the words of this holder were there before his `Owned` (2), or are single words that he has changed since. The words
//! of a `Taken` area are anybody's.
//!
//! These rules are what the `unsafe impl`s of `Send` and `Sync` in this module and its neighbours stand on.

use super::State;
use core::cell::Cell;
use core::mem::{MaybeUninit, size_of};
use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use core::sync::atomic::{AtomicU64, fence};

/// A page of memory for nodes, given for ever.
#[repr(C, align(4096))]
pub struct NodePage(MaybeUninit<[u8; 4096]>);

impl NodePage {
    /// A page with arbitrary contents.
    #[must_use]
    pub const fn uninit() -> Self {
        Self(MaybeUninit::uninit())
    }

    /// Holds `value` instead of nodes, for ever.
    pub fn hold<T>(&'static mut self, value: T) -> &'static T {
        const { assert!(size_of::<T>() <= size_of::<Self>() && align_of::<T>() <= align_of::<Self>()) };
        let place = core::ptr::from_mut(self).cast::<MaybeUninit<T>>();
        // SAFETY: the page is ours alone and for ever (`&'static mut`), and large and aligned enough, as asserted above.
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
#[repr(C)]
pub(super) struct Node<const W: usize> {
    // What a search reads comes first.
    /// First page.
    pub start: Cell<u64>,
    /// The subtrees below and above, indexed by a [`Side`].
    child: [Link<W>; 2],
    /// Largest gap in this subtree, saturated.
    pub max: Cell<u32>,
    /// Pages of this gap, saturated; 0 for an area.
    pub gap: Cell<u32>,
    pub parent: Link<W>,
    /// Neighbours in address order.
    pub prev: Link<W>,
    pub next: Link<W>,
    /// Pages, guards included.
    pub pages: Cell<u64>,
    /// Its rank in the tree (module `tree`).
    pub rank: Cell<u32>,
    /// State in bits 7:0, lead in 15:8, trail in 23:16, generation in 63:24.
    meta: AtomicU64,
    /// The next one in a cache or in the pool.
    pub chain: Link<W>,
    /// The space that it was cut for. Never changes.
    pub owner: usize,
    /// The caller's.
    words: [AtomicU64; W],
}

impl<const W: usize> Node<W> {
    fn new(owner: usize) -> Self {
        Self {
            start: Cell::new(0),
            child: [const { Cell::new(None) }; 2],
            max: Cell::new(0),
            gap: Cell::new(0),
            parent: Cell::new(None),
            prev: Cell::new(None),
            next: Cell::new(None),
            pages: Cell::new(0),
            rank: Cell::new(1),
            meta: AtomicU64::new(State::Gap as u64),
            chain: Cell::new(None),
            owner,
            words: [const { AtomicU64::new(0) }; W],
        }
    }

    #[inline(always)]
    pub fn child(&self, side: Side) -> Option<NodeRef<W>> {
        self.child[side as usize].get()
    }

    #[inline(always)]
    pub fn set_child(&self, side: Side, child: Option<NodeRef<W>>) {
        self.child[side as usize].set(child);
    }

    /// The page behind the last.
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
    pub fn state_and_guards(&self) -> (State, u8, u8) {
        let meta = self.meta.load(Acquire);
        let (lead, trail) = guards_of(meta);
        (state_of(meta), lead, trail)
    }

    #[inline(always)]
    pub fn is_gap(&self) -> bool {
        self.meta.load(Relaxed) as u8 == State::Gap as u8
    }

    #[inline(always)]
    pub fn guards(&self) -> (u8, u8) {
        guards_of(self.meta.load(Relaxed))
    }

    /// The node is a gap. For whoever has the space.
    #[inline(always)]
    pub fn set_gap_state(&self) {
        let generation = self.meta.load(Relaxed) & !(GENERATION - 1);
        self.meta.store(generation | State::Gap as u64, Release);
    }

    /// The node becomes an area that is somebody's, in its next generation, with `words`. For whoever has the space.
    #[inline(always)]
    pub fn begin(&self, words: &[u64; W], lead: u8, trail: u8) {
        let generation = (self.meta.load(Relaxed) & !(GENERATION - 1)).wrapping_add(GENERATION);
        self.set_words(words);
        self.meta
            .store(meta(generation, State::Owned, lead, trail), Release);
    }

    /// The area gets its next holder, who has `words`, while others may look.
    #[inline(always)]
    pub fn begin_again(&self, words: &[u64; W], lead: u8, trail: u8) {
        let before = self.meta.load(Relaxed);
        let generation = (before & !(GENERATION - 1)).wrapping_add(GENERATION);
        let (old_lead, old_trail) = guards_of(before);
        let taken = meta(generation, State::Taken, old_lead, old_trail);
        // Nobody who looks at a word of the new holder takes it for one of the last: see the module.
        self.meta.store(taken, Release);
        fence(Release);
        self.set_words(words);
        self.meta
            .store(meta(generation, State::Owned, lead, trail), Release);
    }

    /// Changes the state and nothing else. For whoever holds the area: nobody else changes it then.
    #[inline(always)]
    pub fn set_state(&self, state: State) {
        let rest = self.meta.load(Relaxed) & !0xff;
        self.meta.store(rest | state as u64, Release);
    }

    /// What lies here: state, guards, generation and words that belong together.
    #[inline]
    pub fn look(&self) -> Look<W> {
        loop {
            let before = self.meta.load(Acquire);
            let words = self.words();
            fence(Acquire);
            if self.meta.load(Relaxed) == before {
                let (lead, trail) = guards_of(before);
                return Look {
                    state: state_of(before),
                    lead,
                    trail,
                    generation: before / GENERATION,
                    words,
                };
            }
        }
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

/// What was seen of a node.
pub(super) struct Look<const W: usize> {
    pub state: State,
    pub lead: u8,
    pub trail: u8,
    pub generation: u64,
    pub words: [u64; W],
}

/// One generation more.
const GENERATION: u64 = 1 << 24;

#[inline(always)]
const fn meta(generation: u64, state: State, lead: u8, trail: u8) -> u64 {
    generation | state as u64 | (lead as u64) << 8 | (trail as u64) << 16
}

#[inline(always)]
const fn guards_of(meta: u64) -> (u8, u8) {
    ((meta >> 8) as u8, (meta >> 16) as u8)
}

#[inline(always)]
const fn state_of(meta: u64) -> State {
    match meta as u8 {
        x if x == State::Owned as u8 => State::Owned,
        x if x == State::Raw as u8 => State::Raw,
        x if x == State::Retired as u8 => State::Retired,
        x if x == State::Parked as u8 => State::Parked,
        x if x == State::Taken as u8 => State::Taken,
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
    owner: usize,
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

    pub fn new(page: &'static mut NodePage) -> Self {
        let mut pool = Self {
            // Pages are never given back, so no other space ever has this number.
            owner: core::ptr::from_ref::<NodePage>(page).addr(),
            spare: None,
            fresh: &mut [],
            nr_spare: 0,
            nr_fed: 0,
        };
        pool.feed(page);
        pool
    }

    /// The number of the space, which its nodes bear.
    pub const fn owner(&self) -> usize {
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
        // SAFETY: the page is ours alone and for ever (`&'static mut`), is 4096 bytes at a multiple of 4096, which is more
        // than a node's alignment, and NODES_PER_PAGE nodes fit into it. Uninitialised contents are fine for MaybeUninit.
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

    /// A spare node: a leaf of the tree that is not linked yet.
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
    pub fn give_back(&mut self, node: NodeRef<W>) {
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

// SAFETY: a pool is reached by one thread at a time when it is moved; the nodes that it names are reached through it alone,
// but for those that are in use, and these obey the rules of the module.
unsafe impl<const W: usize> Send for Pool<W> {}
