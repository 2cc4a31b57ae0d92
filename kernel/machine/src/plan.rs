//! Which physical memory is whose: before anything is allocated.

use core::fmt;

use crate::PAGE_SIZE;
use crate::device_tree::{Cpu, EnableMethod, Machine};
use crate::regions::{PhysRegion, Regions, TooManyRegions};

/// RAM, and what of it is whose.
#[derive(Clone, Debug)]
pub struct Plan {
    /// RAM that the linear map maps: all that the device tree has, in whole pages, less what must
    /// not be mapped and what the CPU cannot address.
    pub ram: Regions,
    /// Of that, what is unused: less image, device tree, initrd and reserved memory, less where
    /// CPUs look for an address to go to, and less the page at physical address 0: no table may be
    /// there ([`paging::Tables`]).
    pub free: Regions,
    /// RAM in all, in bytes.
    pub total: u64,
    /// Bytes of RAM beyond what the CPU can address.
    pub beyond: u64,
    /// Bytes of RAM that must not be mapped.
    pub no_map: u64,
    /// The initrd, if it lies in RAM.
    pub initrd: Option<PhysRegion>,
}

/// Why there is no plan.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Error {
    /// The device tree lists no RAM.
    NoMemory,
    /// RAM and what is reserved in it are in too many pieces.
    TooManyRegions,
    /// The image does not lie in mapped RAM.
    ImageOutsideRam(PhysRegion),
    /// The device tree does not lie in mapped RAM.
    DeviceTreeOutsideRam(PhysRegion),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoMemory => write!(
                f,
                "the device tree lists no RAM: its loader must fill in the `reg` of a memory node"
            ),
            Self::TooManyRegions => write!(f, "RAM and its reserved ranges are in too many pieces"),
            Self::ImageOutsideRam(image) => write!(
                f,
                "the image at {image} lies outside of the RAM that the device tree lists, or where nothing must be mapped"
            ),
            Self::DeviceTreeOutsideRam(tree) => write!(
                f,
                "the device tree at {tree} lies outside of the RAM that it lists, or where nothing must be mapped"
            ),
        }
    }
}

const PAGE_0: PhysRegion = PhysRegion {
    start: 0,
    end: PAGE_SIZE,
};

/// Returns the page where a CPU that waits in a spin table looks.
fn release_page(cpu: Cpu) -> Option<PhysRegion> {
    match cpu.method {
        Some(EnableMethod::SpinTable(release)) => PhysRegion::new(release, 8).map(PhysRegion::grow_to_pages),
        _ => None,
    }
}

impl From<TooManyRegions> for Error {
    fn from(_: TooManyRegions) -> Self {
        Self::TooManyRegions
    }
}

impl Plan {
    /// Makes the plan for a kernel that reaches physical addresses below `limit`, and whose image
    /// and device tree lie at `image` and `tree`.
    ///
    /// # Errors
    /// Why there is none.
    pub fn new(
        machine: &Machine<'_>,
        image: PhysRegion,
        tree: PhysRegion,
        limit: u64,
    ) -> Result<Self, Error> {
        if machine.memory.is_empty() {
            return Err(Error::NoMemory);
        }
        let mut ram = Regions::new();
        for bank in &machine.memory {
            ram.add(*bank)?;
        }
        let total = ram.size();
        ram.remove(PhysRegion {
            start: limit,
            end: u64::MAX,
        })?;
        let addressable = ram.size();
        for reserved in machine.reserved.iter().filter(|reserved| reserved.no_map) {
            ram.remove(reserved.region.grow_to_pages())?;
        }
        let no_map = addressable - ram.size();
        let mut whole_pages = Regions::new();
        for region in ram.iter() {
            whole_pages.add(region.shrink_to_pages())?;
        }
        let ram = whole_pages;

        if !ram.contains(&image) {
            return Err(Error::ImageOutsideRam(image));
        }
        if !ram.contains(&tree) {
            return Err(Error::DeviceTreeOutsideRam(tree));
        }
        // An initrd elsewhere could not be read: the boot goes on without it, and the log says so.
        let initrd = machine.initrd.filter(|initrd| ram.contains(initrd));
        let mut free = ram.clone();
        let taken = machine
            .reserved
            .iter()
            .map(|reserved| reserved.region)
            .chain(machine.cpus().filter_map(release_page))
            .chain([image, tree, PAGE_0])
            .chain(initrd);
        for region in taken {
            free.remove(region.grow_to_pages())?;
        }
        Ok(Self {
            ram,
            free,
            total,
            beyond: total - addressable,
            no_map,
            initrd,
        })
    }
}
