use kernel::BootInfo;
use kernel::arch::features::Features;
use kernel::arch::percpu::cpu_index;
use kernel::layout;
use kernel::mm;
use kernel::smp;
use paging::{Granule as _, LeafSet, LeafSize, PhysAddr, VirtRange};

use super::failure::{Failure, Stop};
use super::fault_injection::{TestMmu, TestTables};
use super::live::TestTree;
use super::source::PAGE;
use super::verify::Memory;
use crate::options::Planted;

#[derive(Debug)]
pub struct Context {
    pub info: &'static BootInfo,
    /// This CPU's.
    pub features: Features,
    pub planted: Option<Planted>,
    seed: u64,
    name: &'static str,
}

/// Whether the granule has leaves of `size` (Arm ARM, "Contiguous bit", and block sizes).
#[must_use]
pub fn has_leaf(size: LeafSize) -> bool {
    let most = if layout::PAGE_SHIFT == 12 { 1 } else { 2 };
    size.level() >= layout::Granule::FIRST_LEAF_LEVEL && (!size.is_contiguous() || size.level() >= most)
}

impl Context {
    #[must_use]
    pub fn new(
        info: &'static BootInfo,
        features: Features,
        planted: Option<Planted>,
        seed: u64,
        name: &'static str,
    ) -> Self {
        Self {
            info,
            features,
            planted,
            seed,
            name,
        }
    }

    /// FNV-1a over the name.
    fn key(&self) -> u64 {
        self.name
            .bytes()
            .fold(self.seed ^ 0xcbf2_9ce4_8422_2325, |hash, byte| {
                (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
            })
    }

    /// Returns random numbers that do not depend on which tests ran before.
    #[must_use]
    pub fn rng(&self) -> fastrand::Rng {
        fastrand::Rng::with_seed(self.key())
    }

    #[must_use]
    pub fn owned(&self) -> Memory {
        Memory::Owned(self.key())
    }

    #[must_use]
    pub fn tree(&self) -> TestTree {
        let kernel = mm::kernel_tree();
        kernel.handle(
            TestTables::new(self.planted),
            TestMmu::new(*kernel.mmu(), self.planted),
        )
    }

    /// Frees the empty tables in `range`: a map fails where one is in the way of a block.
    ///
    /// # Errors
    /// `range` is not one of addresses.
    pub fn prune(&self, range: VirtRange) -> Result<(), Failure> {
        mm::kernel_tree().prune(range)?;
        Ok(())
    }

    #[must_use]
    pub fn leaves(&self) -> LeafSet {
        let of_granule = LeafSize::ALL.map(|size| if has_leaf(size) { size } else { LeafSize::PAGE });
        let config = mm::kernel_tree().config();
        config.leaves.intersection(LeafSet::of(&of_granule))
    }

    pub fn needs_groups(&self) -> Result<(), Stop> {
        if self.leaves().contains(LeafSize::PAGE_GROUP) {
            Ok(())
        } else {
            Err(Stop::Skip("the contiguous bit is switched off by an erratum"))
        }
    }

    pub fn needs_leaf(&self, size: LeafSize) -> Result<(), Stop> {
        if !has_leaf(size) {
            return Err(Stop::Skip("this granule has no such leaf"));
        }
        if size.is_contiguous() {
            self.needs_groups()
        } else {
            Ok(())
        }
    }

    /// Skips, too, where each page of the leaf is looked at.
    pub fn needs_leaf_by_page(&self, size: LeafSize) -> Result<(), Stop> {
        self.needs_leaf(size)?;
        if size.bytes::<layout::Granule>() / PAGE <= 1 << 20 {
            Ok(())
        } else {
            Err(Stop::Skip(
                "it takes too long to look at each page of a leaf of millions",
            ))
        }
    }

    pub fn needs_other_cpus(&self) -> Result<usize, Stop> {
        match smp::nr_online() {
            0 | 1 => Err(Stop::Skip("there is one CPU")),
            nr => Ok(nr - 1),
        }
    }

    pub fn another_cpu(&self) -> Result<usize, Stop> {
        let this = cpu_index();
        smp::online()
            .find(|cpu| *cpu != this)
            .ok_or(Stop::Skip("there is one CPU"))
    }

    /// Returns `size` bytes at `phase` modulo `align` without RAM or a device, never to be touched.
    ///
    /// # Errors
    /// No such range lies above RAM.
    pub fn untouched(&self, size: u64, align: u64, phase: u64) -> Result<PhysAddr, Failure> {
        let limit = 1u64 << mm::kernel_tree().config().pa_bits;
        let ram_end = mm::memory_plan()
            .ram
            .iter()
            .map(|region| region.end)
            .max()
            .unwrap_or(0);
        let top = (limit - size - phase) & !(align - 1);
        let start = top + phase;
        if start < ram_end || !start.is_multiple_of(PAGE) {
            return Err(Failure::Range {
                what: "start of a physical range above RAM",
                found: start,
                least: ram_end,
                most: limit,
            });
        }
        Ok(PhysAddr(start))
    }
}
