//! The seam to barriers and invalidations, [`Mmu`]. TLBIs are inner-shareable: there is no local
//! one to use by mistake (DESIGN rule 4).

use crate::addr::VirtAddr;
use crate::granule::Granule;
use core::cell::Cell;

/// The operand of a TLBI by range (FEAT_TLBIRANGE): `(num + 1) << (5 * scale + 1)` pages from
/// `start` on (Arm ARM C5.5, TLBI RVAE1IS).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct TlbiRange {
    /// Aligned to a page, and to `1 <<` [`Granule::RANGE_SHIFT`].
    pub start: VirtAddr,
    /// SCALE, `0..=3`.
    pub scale: u8,
    /// NUM, `0..=31`.
    pub num: u8,
}

impl TlbiRange {
    /// Returns the pages covered.
    #[inline]
    #[must_use]
    pub const fn pages(self) -> u64 {
        (self.num as u64 + 1) << (5 * self.scale as u32 + 1)
    }

    /// Returns the operand: TG 47:46, SCALE 45:44, NUM 43:39, TTL 38:37 (0: any level), BaseADDR
    /// 36:0 in units of [`Granule::RANGE_SHIFT`].
    #[inline]
    #[must_use]
    pub fn operand<G: Granule>(self) -> u64 {
        let base = self.start.0 >> G::RANGE_SHIFT & ((1 << 37) - 1);
        G::TLBI_TG << 46 | (self.scale as u64) << 44 | (self.num as u64) << 39 | base
    }
}

/// Returns the operand of a TLBI by VA: VA\[55:12\] in bits 43:0, TTL 0 (any level) (Arm ARM C5.5,
/// TLBI VAAE1IS).
#[inline]
#[must_use]
pub const fn tlbi_va_operand(va: VirtAddr) -> u64 {
    va.0 >> 12 & ((1 << 44) - 1)
}

/// Barriers and TLB maintenance of a tree's translation regime.
pub trait Mmu {
    /// DSB ISHST: earlier stores are complete for the inner shareable domain, table walks included.
    fn dsb_ishst(&self);
    /// DSB ISH: earlier loads, stores and TLB maintenance are complete.
    fn dsb_ish(&self);
    /// ISB: this CPU drops what it fetched or translated speculatively.
    fn isb(&self);
    /// TLBI VAALE1IS: last-level entries for `va`, all ASIDs.
    fn tlbi_vaale1is(&self, va: VirtAddr);
    /// TLBI VAAE1IS: entries of all levels for `va` and walk caches, all ASIDs.
    fn tlbi_vaae1is(&self, va: VirtAddr);
    /// TLBI RVAALE1IS: the same for a range, if [`has_tlbi_range`](Self::has_tlbi_range).
    fn tlbi_rvaale1is(&self, range: TlbiRange);
    /// TLBI RVAAE1IS: the same for a range, if [`has_tlbi_range`](Self::has_tlbi_range).
    fn tlbi_rvaae1is(&self, range: TlbiRange);
    /// TLBI VMALLE1IS: everything of this regime.
    fn tlbi_vmalle1is(&self);
    /// Whether FEAT_TLBIRANGE is implemented.
    fn has_tlbi_range(&self) -> bool;
    /// Runs `f` with interrupts masked: nothing else may use what is broken.
    #[inline]
    fn masked<R>(&self, f: impl FnOnce() -> R) -> R
    where
        Self: Sized,
    {
        f()
    }
}

/// Implements [`Mmu`]: each method calls `$around` with the wrapper, its [`MmuEvent`], and a
/// closure that issues it.
#[macro_export]
macro_rules! forward_mmu {
    ($self:ident => $inner:expr, $around:expr) => {
        $crate::forward_mmu! { $self => $inner, $around;
            dsb_ishst() DsbIshst,
            dsb_ish() DsbIsh,
            isb() Isb,
            tlbi_vaale1is(va: $crate::VirtAddr) TlbiLastLevel,
            tlbi_vaae1is(va: $crate::VirtAddr) TlbiAllLevels,
            tlbi_rvaale1is(range: $crate::TlbiRange) TlbiRangeLastLevel,
            tlbi_rvaae1is(range: $crate::TlbiRange) TlbiRangeAllLevels,
            tlbi_vmalle1is() TlbiAll,
        }
        #[inline]
        fn has_tlbi_range(&$self) -> bool {
            $inner.has_tlbi_range()
        }
        #[inline]
        fn masked<R>(&$self, f: impl FnOnce() -> R) -> R {
            $inner.masked(f)
        }
    };
    ($self:ident => $inner:expr, $around:expr; $($name:ident($($arg:ident: $type:ty)?) $event:ident,)*) => {$(
        #[inline]
        fn $name(&$self $(, $arg: $type)?) {
            $around($self, $crate::mmu::MmuEvent::$event $(($arg))?, || $inner.$name($($arg)?));
        }
    )*};
}

fn plainly<T>(_: &T, _: MmuEvent, issue: impl FnOnce()) {
    issue();
}

#[deny(clippy::missing_trait_methods)]
impl<M: Mmu> Mmu for &M {
    forward_mmu!(self => (**self), plainly);
}

/// A barrier or invalidation, for [`Tracing`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum MmuEvent {
    /// DSB ISHST.
    DsbIshst,
    /// DSB ISH.
    DsbIsh,
    /// ISB.
    Isb,
    /// TLBI VAALE1IS.
    TlbiLastLevel(VirtAddr),
    /// TLBI VAAE1IS.
    TlbiAllLevels(VirtAddr),
    /// TLBI RVAALE1IS.
    TlbiRangeLastLevel(TlbiRange),
    /// TLBI RVAAE1IS.
    TlbiRangeAllLevels(TlbiRange),
    /// TLBI VMALLE1IS.
    TlbiAll,
}

/// Hands every event to `sink`, then to `inner`.
pub struct Tracing<M, F> {
    inner: M,
    sink: F,
}

impl<M: Mmu, F: Fn(MmuEvent)> Tracing<M, F> {
    /// Returns a tracer.
    pub const fn new(inner: M, sink: F) -> Self {
        Self { inner, sink }
    }

    fn around(&self, event: MmuEvent, issue: impl FnOnce()) {
        (self.sink)(event);
        issue();
    }
}

#[deny(clippy::missing_trait_methods)]
impl<M: Mmu, F: Fn(MmuEvent)> Mmu for Tracing<M, F> {
    forward_mmu!(self => self.inner, Self::around);
}

/// How many were issued.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct MmuCounts {
    /// DSBs.
    pub dsb: u64,
    /// Of those, DSB ISHST.
    pub dsb_ishst: u64,
    /// ISBs.
    pub isb: u64,
    /// TLBIs of any kind.
    pub tlbi: u64,
    /// Of those, by range.
    pub tlbi_range: u64,
    /// Of those, all.
    pub tlbi_all: u64,
}

/// Counts what passes, for one CPU.
#[derive(Default)]
pub struct Counting<M> {
    inner: M,
    counts: Cell<MmuCounts>,
}

impl<M: Mmu> Counting<M> {
    /// Returns a counter at zero.
    pub fn new(inner: M) -> Self {
        Self {
            inner,
            counts: Cell::default(),
        }
    }

    /// Returns the counts.
    pub fn counts(&self) -> MmuCounts {
        self.counts.get()
    }

    /// Returns the counts and resets them.
    pub fn take(&self) -> MmuCounts {
        self.counts.take()
    }

    fn around(&self, event: MmuEvent, issue: impl FnOnce()) {
        self.count(event);
        issue();
    }

    fn count(&self, event: MmuEvent) {
        let mut counts = self.counts.get();
        match event {
            MmuEvent::DsbIshst => counts.dsb_ishst += 1,
            MmuEvent::TlbiRangeLastLevel(_) | MmuEvent::TlbiRangeAllLevels(_) => counts.tlbi_range += 1,
            MmuEvent::TlbiAll => counts.tlbi_all += 1,
            _ => {}
        }
        match event {
            MmuEvent::DsbIshst | MmuEvent::DsbIsh => counts.dsb += 1,
            MmuEvent::Isb => counts.isb += 1,
            _ => counts.tlbi += 1,
        }
        self.counts.set(counts);
    }
}

#[deny(clippy::missing_trait_methods)]
impl<M: Mmu> Mmu for Counting<M> {
    forward_mmu!(self => self.inner, Self::around);
}

/// Issues nothing: for a tree that no CPU uses.
#[derive(Clone, Copy, Default, Debug)]
pub struct NoMmu {
    /// Of [`Mmu::has_tlbi_range`].
    pub tlbi_range: bool,
}

impl Mmu for NoMmu {
    fn dsb_ishst(&self) {}
    fn dsb_ish(&self) {}
    fn isb(&self) {}
    fn tlbi_vaale1is(&self, _va: VirtAddr) {}
    fn tlbi_vaae1is(&self, _va: VirtAddr) {}
    fn tlbi_rvaale1is(&self, _range: TlbiRange) {}
    fn tlbi_rvaae1is(&self, _range: TlbiRange) {}
    fn tlbi_vmalle1is(&self) {}
    fn has_tlbi_range(&self) -> bool {
        self.tlbi_range
    }
}
