//! Nodes, the pages that they are cut from, and the pool of spare ones. A [`Node`] stays one for
//! ever: it is a plain `&'static Node`, and following a link needs no `unsafe`.
//!
//! # Access rules
//! - Bounds and guards of an area are constant. Read by the holders of its [`Area`](super::Area)
//!   and of the space.
//! - `chain` belongs to the node's holder outside the tree: its `Area`, a cache, a deferred-free
//!   list, or the pool.
//! - `state` and `words` are atomic. The area's holder writes them while the space's holder may
//!   read: each word is one that the area had, and a new area's state is a release after its words.
//! - All else belongs to the space: read with `&Space`, written with `&mut Space`.
//!
//! A cached or new area changes state under the space's lock, which guards the cache too: a look at
//! the space never mixes two uses of a node. The `unsafe impl`s of `Send` and `Sync` here and
//! beside rest on these rules.

use super::State;
use core::cell::Cell;
use core::mem::{MaybeUninit, size_of};
use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use core::sync::atomic::{AtomicU8, AtomicU64};

/// A page of memory for nodes, given for ever.
#[repr(C, align(4096))]
pub struct NodePage(MaybeUninit<[u8; 4096]>);

impl NodePage {
    /// Returns a page with arbitrary contents.
    pub const fn uninit() -> Self {
        Self(MaybeUninit::uninit())
    }

    /// Holds `value` for ever.
    pub fn hold<T>(&'static mut self, value: T) -> &'static T {
        self.hold_mut(value)
    }

    /// The same, for one user.
    pub fn hold_mut<T>(&'static mut self, value: T) -> &'static mut T {
        const { assert!(size_of::<T>() <= size_of::<Self>() && align_of::<T>() <= align_of::<Self>()) };
        let place = core::ptr::from_mut(self).cast::<MaybeUninit<T>>();
        // SAFETY: a `&'static mut` page is ours alone, and large and aligned enough as asserted.
        unsafe { &mut *place }.write(value)
    }
}

/// Where pages for nodes come from.
pub trait NodePages {
    /// Returns a page for ever, if there is one.
    fn node_page(&self) -> Option<&'static mut NodePage>;
}

pub(super) type NodeRef<const W: usize> = &'static Node<W>;
pub(super) type Link<const W: usize> = Cell<Option<NodeRef<W>>>;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Side {
    Left,
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

/// A segment, or a spare node: 112 bytes with six words. Another CPU that ends an area touches only
/// 32 bytes.
#[repr(C)]
pub(super) struct Node<const W: usize> {
    child: [Link<W>; 2],
    pub start: Cell<u64>,
    /// Guards included.
    pages: Cell<u64>,
    state: AtomicU8,
    /// At most twice log2 of the nodes.
    pub rank: Cell<u8>,
    /// Number of its space.
    owner: u16,
    /// Before and behind the body.
    lead: Cell<u16>,
    trail: Cell<u16>,
    /// In a cache, a deferred-free list or the pool.
    pub chain: Link<W>,
    words: [AtomicU64; W],
    /// In this subtree, saturated.
    pub max: Cell<u32>,
    /// Saturated; 0 for an area.
    pub gap: Cell<u32>,
    pub parent: Link<W>,
}

impl<const W: usize> Node<W> {
    const fn new(owner: u16) -> Self {
        Self {
            child: [const { Cell::new(None) }; 2],
            start: Cell::new(0),
            pages: Cell::new(0),
            state: AtomicU8::new(State::Gap as u8),
            rank: Cell::new(1),
            owner,
            lead: Cell::new(0),
            trail: Cell::new(0),
            chain: Cell::new(None),
            words: [const { AtomicU64::new(0) }; W],
            max: Cell::new(0),
            gap: Cell::new(0),
            parent: Cell::new(None),
        }
    }

    #[inline(always)]
    pub const fn owner(&self) -> u16 {
        self.owner
    }

    #[inline(always)]
    pub const fn pages(&self) -> u64 {
        self.pages.get()
    }

    #[inline(always)]
    pub fn child(&self, side: Side) -> Option<NodeRef<W>> {
        self.child[side as usize].get()
    }

    #[inline(always)]
    pub fn set_child(&self, side: Side, child: Option<NodeRef<W>>) {
        self.child[side as usize].set(child);
    }

    #[inline(always)]
    pub fn end(&self) -> u64 {
        self.start.get() + self.pages()
    }

    #[inline(always)]
    pub fn state(&self) -> State {
        match self.state.load(Acquire) {
            x if x == State::Owned as u8 => State::Owned,
            x if x == State::Raw as u8 => State::Raw,
            x if x == State::Retired as u8 => State::Retired,
            x if x == State::Parked as u8 => State::Parked,
            _ => State::Gap,
        }
    }

    #[inline(always)]
    pub fn is_gap(&self) -> bool {
        self.state.load(Relaxed) == State::Gap as u8
    }

    #[inline(always)]
    pub const fn guards(&self) -> (u16, u16) {
        (self.lead.get(), self.trail.get())
    }

    #[inline(always)]
    pub fn begin(&self, words: &[u64; W], lead: u16, trail: u16) {
        for (mine, theirs) in self.words.iter().zip(words) {
            mine.store(*theirs, Relaxed);
        }
        self.lead.set(lead);
        self.trail.set(trail);
        self.set_state(State::Owned);
    }

    #[inline(always)]
    pub fn become_gap(&self, start: u64, pages: u64) {
        self.set_bounds(start, pages);
        self.lead.set(0);
        self.trail.set(0);
        self.set_state(State::Gap);
    }

    #[inline(always)]
    pub fn set_state(&self, state: State) {
        self.state.store(state as u8, Release);
    }

    #[inline(always)]
    pub fn set_bounds(&self, start: u64, pages: u64) {
        self.start.set(start);
        self.pages.set(pages);
    }

    #[inline(always)]
    pub fn word(&self, index: usize) -> u64 {
        self.words[index].load(Relaxed)
    }

    #[inline(always)]
    pub fn set_word(&self, index: usize, value: u64) {
        self.words[index].store(value, Relaxed);
    }
}

#[inline(always)]
pub(super) const fn saturate(pages: u64) -> u32 {
    if pages < u32::MAX as u64 {
        pages as u32
    } else {
        u32::MAX
    }
}

/// Used before, or not yet cut from the page fed last.
pub(super) struct Pool<const W: usize> {
    pub owner: u16,
    spare: Option<NodeRef<W>>,
    fresh: &'static mut [MaybeUninit<Node<W>>],
    pub nr_spare: usize,
    pub nr_fed: usize,
}

impl<const W: usize> Pool<W> {
    pub const NODES_PER_PAGE: usize = {
        let nr = size_of::<NodePage>() / size_of::<Node<W>>();
        // For the first gap, and a reservation's two.
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

    pub fn feed(&mut self, page: &'static mut NodePage) {
        let base = core::ptr::from_mut(page).cast::<MaybeUninit<Node<W>>>();
        // SAFETY: a `&'static mut` page is ours alone, aligned for a node, with room for
        // NODES_PER_PAGE. MaybeUninit needs no contents.
        let fresh = unsafe { core::slice::from_raw_parts_mut(base, Self::NODES_PER_PAGE) };
        // The rest of the page before is few nodes or none.
        let rest = core::mem::replace(&mut self.fresh, fresh);
        for slot in rest {
            let node: NodeRef<W> = slot.write(Node::new(self.owner));
            node.chain.set(self.spare);
            self.spare = Some(node);
        }
        self.nr_spare += Self::NODES_PER_PAGE;
        self.nr_fed += Self::NODES_PER_PAGE;
    }

    /// Returns a spare node, as an unlinked leaf.
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

    /// Counts spare nodes along the chain, up to `limit`.
    pub fn count_spare(&self, limit: usize) -> usize {
        let chain = core::iter::successors(self.spare, |node| node.chain.get());
        self.fresh.len() + chain.take(limit).count()
    }
}

// SAFETY: one thread at a time reaches a pool. Its nodes are reached through it alone, except those
// in use, which obey the module's rules.
unsafe impl<const W: usize> Send for Pool<W> {}
