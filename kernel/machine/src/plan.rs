use core::fmt;

use crate::device_tree::{Cpu, EnableMethod, Machine};
use crate::regions::{PhysRegion, Regions, TooManyRegions};

#[derive(Clone, Debug)]
pub struct Plan {
    /// Whole pages that may be mapped, below the limit.
    pub ram: Regions,
    /// Without what is taken, and page 0, where no table may be ([`paging::Tables`]).
    pub free: Regions,
    pub total: u64,
    /// From the limit on.
    pub beyond: u64,
    pub limit: u64,
    pub no_map: u64,
    pub initrd: Option<PhysRegion>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Error {
    NoMemory,
    TooManyRegions,
    ImageOutsideRam(PhysRegion),
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

fn release_page(cpu: Cpu, page: u64) -> Option<PhysRegion> {
    match cpu.method {
        Some(EnableMethod::SpinTable(release)) => {
            PhysRegion::new(release, 8).map(|word| word.grow_to_pages(page))
        }
        _ => None,
    }
}

impl From<TooManyRegions> for Error {
    fn from(_: TooManyRegions) -> Self {
        Self::TooManyRegions
    }
}

impl Plan {
    /// Plans for physical addresses below `limit`, in pages of `page` bytes.
    ///
    /// # Errors
    /// Why there is no plan.
    pub fn new(
        machine: &Machine<'_>,
        image: PhysRegion,
        tree: PhysRegion,
        limit: u64,
        page: u64,
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
            ram.remove(reserved.region.grow_to_pages(page))?;
        }
        let no_map = addressable - ram.size();
        let mut whole_pages = Regions::new();
        for region in ram.iter() {
            whole_pages.add(region.shrink_to_pages(page))?;
        }
        let ram = whole_pages;

        if !ram.contains(&image) {
            return Err(Error::ImageOutsideRam(image));
        }
        if !ram.contains(&tree) {
            return Err(Error::DeviceTreeOutsideRam(tree));
        }
        let initrd = machine.initrd.filter(|initrd| ram.contains(initrd));
        let mut free = ram.clone();
        let page_0 = PhysRegion { start: 0, end: page };
        let taken = machine
            .reserved
            .iter()
            .map(|reserved| reserved.region)
            .chain(machine.cpus().filter_map(|cpu| release_page(cpu, page)))
            .chain([image, tree, page_0])
            .chain(initrd);
        for region in taken {
            free.remove(region.grow_to_pages(page))?;
        }
        Ok(Self {
            ram,
            free,
            total,
            beyond: total - addressable,
            limit,
            no_map,
            initrd,
        })
    }
}
