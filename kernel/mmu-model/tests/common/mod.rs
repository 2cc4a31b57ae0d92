//! Tables built by hand: a test decides about every store and barrier.
#![allow(dead_code, reason = "each test file uses its part")]

use mmu_model::descriptor as d;
use mmu_model::{Cpu, Features, Model, Rule};
use paging::{Granule, Mmu, PhysAddr, Tables, VirtAddr, VirtRange};
use std::collections::BTreeSet;

/// Normal write-back RAM, inner shareable, accessed.
pub const RO: u64 = 3 << 2 | 0b11 << 8 | d::ACCESS_FLAG | d::PXN | d::UXN | d::AP_READ_ONLY;
pub const RW: u64 = RO & !d::AP_READ_ONLY;
pub const RX: u64 = RO & !d::PXN;
/// MAIR index 2.
pub const NC: u64 = RW & !d::ATTR_INDEX | 2 << 2;

pub fn raw<G: Granule>(pa: u64, attributes: u64) -> u64 {
    let without = if d::has_shareability::<G>() {
        0
    } else {
        d::SHAREABILITY
    };
    d::with_address::<G>(pa) | attributes & !without
}

pub struct Rig<G: Granule> {
    pub model: Model<G>,
    pub root: PhysAddr,
}

impl<G: Granule> Rig<G> {
    pub fn new(features: Features) -> Self {
        let (model, root) = Model::with_root(features);
        Self { model, root }
    }

    pub fn plain() -> Self {
        Self::new(Features::default())
    }

    pub fn smp(cpus: usize) -> Self {
        Self::new(Features {
            cpus,
            ..Features::default()
        })
    }

    pub fn cpu(&self, cpu: usize) -> Cpu<'_, G> {
        self.model.cpu(cpu)
    }

    pub fn va(&self, pages: u64) -> VirtAddr {
        VirtAddr(0u64.wrapping_sub(1 << G::VA_BITS) + pages * G::PAGE_SIZE)
    }

    pub fn frames(&self, n: u64) -> u64 {
        let largest = (G::ROOT_LEVEL..3)
            .filter(|level| G::leaf_allowed(*level))
            .map(d::group_size::<G>)
            .max()
            .unwrap_or(G::PAGE_SIZE);
        (n + 1) * largest.min(1 << 40)
    }

    pub fn leaf(&self, level: i8, pa: u64, attributes: u64) -> u64 {
        raw::<G>(pa, attributes) | if level == 3 { 0b11 } else { 0b01 }
    }

    pub fn member(&self, level: i8, pa: u64, attributes: u64) -> u64 {
        self.leaf(level, pa, attributes) | d::CONTIGUOUS
    }

    /// Linked by CPU 0 with all barriers.
    pub fn table(&self, level: i8, va: VirtAddr) -> PhysAddr {
        let cpu = self.cpu(0);
        let mut table = self.root;
        for at in G::ROOT_LEVEL..level {
            let index = d::index::<G>(at, va.0);
            let found = cpu.load(table, index);
            table = if found & 0b11 == 0b11 {
                PhysAddr(d::address::<G>(found))
            } else {
                let new = cpu.alloc_table().expect("a table");
                cpu.compare_exchange(table, index, 0, d::with_address::<G>(new.0) | 0b11)
                    .expect("vacant");
                new
            };
        }
        cpu.dsb_ishst();
        cpu.isb();
        table
    }

    pub fn slot(&self, level: i8, va: VirtAddr) -> (PhysAddr, usize) {
        (self.table(level, va), d::index::<G>(level, va.0))
    }

    pub fn put(&self, cpu: usize, level: i8, va: VirtAddr, raw: u64) {
        let (table, index) = self.find(level, va);
        self.cpu(cpu).store(table, index, raw);
    }

    pub fn find(&self, level: i8, va: VirtAddr) -> (PhysAddr, usize) {
        let cpu = self.cpu(0);
        let mut table = self.root;
        for at in G::ROOT_LEVEL..level {
            let found = cpu.load(table, d::index::<G>(at, va.0));
            assert_eq!(found & 0b11, 0b11, "no table below level {at}");
            table = PhysAddr(d::address::<G>(found));
        }
        (table, d::index::<G>(level, va.0))
    }

    pub fn map(&self, level: i8, va: VirtAddr, pa: u64, attributes: u64) {
        self.table(level, va);
        self.put(0, level, va, self.leaf(level, pa, attributes));
        self.made();
    }

    /// Zeroes if `first` is `None`.
    pub fn put_group(&self, cpu: usize, level: i8, va: VirtAddr, first: Option<(u64, u64)>) {
        let (table, index) = self.find(level, va);
        for i in 0..d::group_entries::<G>(level) {
            let raw = first.map_or(0, |(pa, attributes)| {
                self.member(level, pa + i as u64 * d::size::<G>(level), attributes)
            });
            self.cpu(cpu).store(table, index + i, raw);
        }
    }

    pub fn map_group(&self, level: i8, va: VirtAddr, pa: u64, attributes: u64) {
        self.table(level, va);
        self.put_group(0, level, va, Some((pa, attributes)));
        self.made();
    }

    pub fn made(&self) {
        self.cpu(0).dsb_ishst();
        self.cpu(0).isb();
    }

    pub fn flush_leaves(&self, va: VirtAddr, size: u64, stride: u64) {
        let cpu = self.cpu(0);
        cpu.dsb_ishst();
        for offset in (0..size).step_by(stride as usize) {
            cpu.tlbi_vaale1is(va.add(offset));
        }
        cpu.dsb_ish();
        cpu.isb();
    }

    pub fn page_range(&self, va: VirtAddr, pages: u64) -> VirtRange {
        VirtRange::new(va, pages * G::PAGE_SIZE)
    }

    #[track_caller]
    pub fn assert_broken(&self, rules: &[Rule]) {
        let violations = self.model.violations();
        let found: BTreeSet<_> = violations.iter().map(|violation| violation.rule).collect();
        let expected: BTreeSet<_> = rules.iter().copied().collect();
        assert_eq!(
            found,
            expected,
            "\n{violations:#?}\nevents:\n{}",
            self.model.log()
        );
    }

    #[track_caller]
    pub fn assert_told(&self, text: &str) {
        let violations = self.model.violations();
        assert!(
            violations.iter().any(|violation| violation.story.contains(text)),
            "nothing says {text:?}:\n{violations:#?}"
        );
    }
}

#[macro_export]
macro_rules! for_granules {
    ($($(#[$doc:meta])* fn $name:ident<$g:ident>() $body:block)*) => {
        $($(#[$doc])* fn $name<$g: paging::Granule>() $body)*
        mod granule_4k { $(#[test] fn $name() { super::$name::<paging::Granule4K>(); })* }
        mod granule_16k { $(#[test] fn $name() { super::$name::<paging::Granule16K>(); })* }
        mod granule_64k { $(#[test] fn $name() { super::$name::<paging::Granule64K>(); })* }
        mod granule_4k_52 { $(#[test] fn $name() { super::$name::<paging::Granule4K52>(); })* }
        mod granule_16k_52 { $(#[test] fn $name() { super::$name::<paging::Granule16K52>(); })* }
        mod granule_64k_52 { $(#[test] fn $name() { super::$name::<paging::Granule64K52>(); })* }
        mod granule_tiny { $(#[test] fn $name() { super::$name::<paging::TinyGranule>(); })* }
    };
}
