//! [`Area`]: a reserved range; [`Lent`]: borrowed from the space; [`Segment`]: a copy of what lies
//! at an address.

use super::node::NodeRef;
use super::{State, Vpn};
use core::fmt;
use core::marker::PhantomData;

/// Owns a reserved range, guards included. Dropping it leaks the range, since freeing needs the
/// space.
#[must_use = "dropping it leaks the range: give it to Space::release or Space::entrust"]
pub struct Area<const W: usize> {
    pub(super) node: NodeRef<W>,
}

// SAFETY: an area reads atomics and bounds that are constant while it exists; it owns `chain`, and
// is not Clone.
unsafe impl<const W: usize> Send for Area<W> {}
// SAFETY: `&Area` reaches only constant bounds and atomics.
unsafe impl<const W: usize> Sync for Area<W> {}

impl<const W: usize> Area<W> {
    /// Returns the body's first page.
    #[inline(always)]
    pub fn start(&self) -> Vpn {
        Vpn(self.node.start.get() + u64::from(self.node.guards().0))
    }

    /// Returns the body's pages.
    #[inline(always)]
    pub fn pages(&self) -> u64 {
        let (lead, trail) = self.node.guards();
        self.node.pages() - u64::from(lead) - u64::from(trail)
    }

    /// Returns the body's first page and its pages.
    #[inline(always)]
    pub fn body(&self) -> (Vpn, u64) {
        let (lead, trail) = self.node.guards();
        let (lead, trail) = (u64::from(lead), u64::from(trail));
        let (start, pages) = (self.node.start.get(), self.node.pages());
        (Vpn(start + lead), pages - lead - trail)
    }

    /// Returns the number of its space.
    #[inline(always)]
    pub fn owner(&self) -> u16 {
        self.node.owner()
    }

    /// Returns the first page, guards included.
    #[inline(always)]
    pub fn first(&self) -> Vpn {
        Vpn(self.node.start.get())
    }

    /// Returns the guard pages.
    pub fn guards(&self) -> u64 {
        let (lead, trail) = self.node.guards();
        u64::from(lead) + u64::from(trail)
    }

    /// Returns the pages, guards included.
    #[inline(always)]
    pub fn reserved(&self) -> u64 {
        self.node.pages()
    }

    /// Returns the caller's words.
    #[inline(always)]
    pub fn words(&self) -> [u64; W] {
        self.node.words()
    }

    /// Returns one of the caller's words.
    ///
    /// # Panics
    ///
    /// If there is no word `index`.
    #[inline(always)]
    pub fn word(&self, index: usize) -> u64 {
        self.node.word(index)
    }

    /// Replaces one of the caller's words.
    ///
    /// # Panics
    ///
    /// If there is no word `index`.
    #[inline(always)]
    pub fn set_word(&self, index: usize, value: u64) {
        self.node.set_word(index, value);
    }

    /// Marks the area as dead: it is no longer found as live.
    #[inline]
    pub fn retire(&mut self) {
        self.node.set_state(State::Retired);
    }

    /// Leaves the area to its address, but keeps it.
    pub fn expose(&self) {
        self.node.set_state(State::Raw);
    }

    /// As [`Space::entrust`](super::Space::entrust) without its check.
    #[inline]
    pub fn entrust(self) {
        self.node.set_state(State::Raw);
    }

    /// Lends the area, under its space's lock.
    #[inline(always)]
    pub const fn lend(&self) -> Lent<'_, W> {
        Lent {
            area: Self { node: self.node },
            space: PhantomData,
        }
    }

    /// Links `rest` behind this area, and returns what was linked there.
    pub fn link(&mut self, rest: Option<Self>) -> Option<Self> {
        let before = self.node.chain.replace(rest.map(|area| area.node));
        before.map(|node| Self { node })
    }
}

impl<const W: usize> fmt::Debug for Area<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}+{:#x}", self.start().0, self.pages())
    }
}

/// An area of another owner, while the space is borrowed.
pub struct Lent<'s, const W: usize> {
    pub(super) area: Area<W>,
    pub(super) space: PhantomData<&'s mut ()>,
}

impl<const W: usize> core::ops::Deref for Lent<'_, W> {
    type Target = Area<W>;
    fn deref(&self) -> &Area<W> {
        &self.area
    }
}

/// A copy of what lies at an address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Segment<const W: usize> {
    /// Of the segment.
    pub state: State,
    /// Guards included.
    pub first: Vpn,
    /// Guards included.
    pub reserved: u64,
    /// Guard pages before the body.
    pub lead: u16,
    /// Guard pages behind the body.
    pub trail: u16,
    /// The caller's; arbitrary for a gap.
    pub words: [u64; W],
}

impl<const W: usize> Segment<W> {
    pub(super) fn of(node: NodeRef<W>) -> Self {
        let (lead, trail) = node.guards();
        Self {
            state: node.state(),
            first: Vpn(node.start.get()),
            reserved: node.pages(),
            lead,
            trail,
            words: node.words(),
        }
    }

    /// Returns the body's first page.
    pub const fn start(&self) -> Vpn {
        Vpn(self.first.0 + self.lead as u64)
    }

    /// Returns the body's pages.
    pub const fn pages(&self) -> u64 {
        self.reserved - self.lead as u64 - self.trail as u64
    }

    /// Whether `page` is in the body.
    pub const fn contains(&self, page: Vpn) -> bool {
        page.0.wrapping_sub(self.start().0) < self.pages()
    }
}
