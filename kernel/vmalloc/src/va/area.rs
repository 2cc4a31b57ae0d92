//! [`Area`]: a reserved range; [`List`]: of such; [`Lent`]: borrowed from the space.

use super::node::NodeRef;
use super::{State, Vpn};
use core::fmt;
use core::marker::PhantomData;

/// Owns a reserved range, guards included. Dropping it leaks the range, since freeing needs the
/// space.
#[must_use = "dropping it leaks the range: give it to Space::release, or entrust it"]
pub struct Area<const W: usize> {
    pub(super) node: NodeRef<W>,
}

// SAFETY: an area reads atomics and bounds that are constant while it exists; it owns `chain`, and
// is not Clone.
unsafe impl<const W: usize> Send for Area<W> {}
// SAFETY: `&Area` reaches only constant bounds and atomics.
unsafe impl<const W: usize> Sync for Area<W> {}

impl<const W: usize> Area<W> {
    /// Of the body.
    #[inline(always)]
    pub fn start(&self) -> Vpn {
        Vpn(self.node.start.get() + u64::from(self.node.guards().0))
    }

    /// Of the body.
    #[inline(always)]
    pub fn pages(&self) -> u64 {
        self.reserved() - self.guards()
    }

    /// The body's first page and its pages.
    #[inline(always)]
    pub fn body(&self) -> (Vpn, u64) {
        let (lead, trail) = self.node.guards();
        let (lead, trail) = (u64::from(lead), u64::from(trail));
        let (start, pages) = (self.node.start.get(), self.node.pages());
        (Vpn(start + lead), pages - lead - trail)
    }

    /// Whether `page` is in the body.
    #[inline(always)]
    pub fn contains(&self, page: Vpn) -> bool {
        page.0.wrapping_sub(self.start().0) < self.pages()
    }

    #[inline(always)]
    pub fn state(&self) -> State {
        self.node.state()
    }

    /// The number of its space.
    #[inline(always)]
    pub fn owner(&self) -> u16 {
        self.node.owner()
    }

    /// Guards included.
    #[inline(always)]
    pub fn first(&self) -> Vpn {
        Vpn(self.node.start.get())
    }

    #[inline(always)]
    pub fn guards(&self) -> u64 {
        let (lead, trail) = self.node.guards();
        u64::from(lead) + u64::from(trail)
    }

    /// Pages, guards included.
    #[inline(always)]
    pub fn reserved(&self) -> u64 {
        self.node.pages()
    }

    /// One of the caller's words; arbitrary for a gap.
    #[inline(always)]
    pub fn word(&self, index: usize) -> u64 {
        self.node.word(index)
    }

    #[inline(always)]
    pub fn set_word(&self, index: usize, value: u64) {
        self.node.set_word(index, value);
    }

    /// It is no longer found as live.
    #[inline]
    pub fn retire(&mut self) {
        self.node.set_state(State::Retired);
    }

    /// Leaves the area to its address, but keeps it.
    pub fn expose(&self) {
        self.node.set_state(State::Raw);
    }

    /// Leaves the area to the holder of its address.
    #[inline]
    pub fn entrust(self) {
        self.expose();
    }

    /// Under its space's lock.
    #[inline(always)]
    pub const fn lend(&self) -> Lent<'_, W> {
        Lent {
            area: Self { node: self.node },
            space: PhantomData,
        }
    }
}

impl<const W: usize> fmt::Debug for Area<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}+{:#x}", self.start().0, self.pages())
    }
}

/// Areas linked by their own nodes, the latest first.
#[must_use = "dropping it leaks its areas"]
pub struct List<const W: usize>(pub(super) Option<Area<W>>);

impl<const W: usize> List<W> {
    pub const fn new() -> Self {
        Self(None)
    }

    pub const fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    pub const fn take_all(&mut self) -> Self {
        Self(self.0.take())
    }

    #[inline(always)]
    pub fn push(&mut self, area: Area<W>) {
        let node = area.node;
        node.chain.set(self.0.replace(area).map(|below| below.node));
    }
}

impl<const W: usize> Iterator for List<W> {
    type Item = Area<W>;

    /// Takes the latest out.
    #[inline(always)]
    fn next(&mut self) -> Option<Area<W>> {
        let area = self.0.take()?;
        self.0 = area.node.chain.take().map(|node| Area { node });
        Some(area)
    }
}

/// A segment, also a gap, while the space is borrowed.
pub struct Lent<'s, const W: usize> {
    pub(super) area: Area<W>,
    pub(super) space: PhantomData<&'s ()>,
}

impl<const W: usize> core::ops::Deref for Lent<'_, W> {
    type Target = Area<W>;
    #[inline(always)]
    fn deref(&self) -> &Area<W> {
        &self.area
    }
}
